"""Two episodes side by side in one recording, ``A/`` and ``B/``, on the timeline ``aligned``.

Rerun's recordings each have a cursor of their own, so two of them cannot be played together. What both have
measured or commanded under one name and in one unit is drawn as curves in one plot.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from ..schemas import Episode
from .align import Align, Aligned, align
from .layout import cameras, card, lanes
from .plan import Colour, Curve, Recorded, RecordOptions
from .record import Recorder
from .rerun import rrb, saved
from .robots import Placed
from .scene import robots
from .timing import wall_start

ALIGNED = "aligned"
_HUES: tuple[Colour, Colour] = ((70, 140, 240), (240, 160, 50))
"""Colours of the curves of A and of B."""

_PAGE = 8  # plots that can be read at once


def write_pair(
    pair: tuple[Episode, Episode],
    path: Path,
    how: Align,
    options: tuple[RecordOptions, RecordOptions],
    arms: tuple[Sequence[Placed], Sequence[Placed]] = ((), ()),
) -> Aligned:
    """Write two episodes and their layout as one .rrd file; return how they were aligned.

    Parameters
    ----------
    options
        Of each; prefixes and timelines are set here.
    arms
        The robots of each that are drawn.

    Raises
    ------
    NotFoundError
        If the episodes do not tell what the alignment needs.
    StoreError
        If the file cannot be written.
    """
    aligned = align(*pair, how, [wall_start(episode) for episode in pair])
    warps = (aligned.a, aligned.b)
    told = [
        replace(one, prefix=prefix, hue=hue, timelines={**one.timelines, ALIGNED: warp})
        for one, prefix, hue, warp in zip(options, "AB", _HUES, warps, strict=True)
    ]
    recorders = [Recorder(episode, one) for episode, one in zip(pair, told, strict=True)]
    both = hashlib.sha256(" ".join(episode.id for episode in pair).encode()).hexdigest()[:16]
    # A viewer lays recordings of one id together, and those of two alignments have other times.
    with saved(path, f"teleopen-compare-{both}", f"compare-{both}-{how}") as sink:
        for own, recorder in zip(arms, recorders, strict=True):
            recorder.plan = robots(own)(recorder.episode, sink, recorder.plan, recorder.options)
        sink.send_blueprint(blueprint([recorder.plan for recorder in recorders]))
        for recorder in recorders:
            recorder.record(sink)
    return aligned


def blueprint(plans: Sequence[Recorded]) -> rrb.Blueprint:
    """Return the layout: A at the left, B at the right, each with its cameras, robot, events and card.

    Below are the curves of both, a plot for each axis.
    """
    sides = rrb.Horizontal(*(_side(plan) for plan in plans))
    pages = list(_pages(plans))
    below = [rrb.Tabs(*pages) if len(pages) > 1 else pages[0]] if pages else []
    return rrb.Blueprint(
        rrb.Vertical(sides, *below, row_shares=[6, 4][: 1 + len(below)]),
        rrb.TimePanel(state="collapsed", timeline=ALIGNED, play_state="paused", loop_mode="all"),
        rrb.SelectionPanel(state="collapsed"),
        rrb.BlueprintPanel(state="collapsed"),
        auto_layout=False,
        auto_views=False,
    )


def _side(plan: Recorded) -> rrb.Container:
    pictures = cameras(plan)
    scene = [
        rrb.Spatial3DView(
            origin=f"/{plan.prefix}", contents=[f"+ {path}/**" for path in plan.spatial], name="Scene"
        )
    ]
    top = [*pictures, *(scene if plan.spatial else [])]
    below = rrb.Tabs(*lanes(plan), card(plan))
    parts = [*([rrb.Grid(*top, grid_columns=min(2, len(top)))] if top else []), below]
    return rrb.Vertical(*parts, row_shares=[5, 2][-len(parts) :], name=f"{plan.prefix}: {plan.title}")


def _pages(plans: Sequence[Recorded]) -> Iterator[rrb.Container]:
    """Yield the curves, a stream at a time, some plots to a page."""
    for stream, axes in together(plans).items():
        named = list(axes.items())
        for first in range(0, len(named), _PAGE):
            views = [
                rrb.TimeSeriesView(
                    origin="/",
                    contents=[f"+ {curve.path}" for curve in curves],
                    name=name,
                    plot_legend=rrb.PlotLegend(visible=True),
                )
                for (name, _), curves in named[first : first + _PAGE]
            ]
            title = stream if len(named) <= _PAGE else f"{stream} ({first // _PAGE + 1})"
            columns = min(len(views), math.ceil(_PAGE / 2))
            yield rrb.Grid(*views, grid_columns=columns, name=title)


def together(plans: Sequence[Recorded]) -> dict[str, dict[tuple[str, str], list[Curve]]]:
    """Return the curves of all episodes by stream, then by the name and the unit of their axis.

    A command lies with what was observed if both speak of the same axes.
    """
    found: dict[str, dict[tuple[str, str], list[Curve]]] = {}
    for plan in plans:
        for plot in plan.plots:
            for axis in plot.axes:
                first = axis[0]
                of_stream = found.setdefault(first.stream, {})
                of_stream.setdefault((first.name, first.unit), []).extend(axis)
    return found
