"""Two episodes side by side in one recording, ``A/`` and ``B/``, on the timeline ``aligned``.

Rerun's recordings each have a cursor of their own, so two of them cannot be played together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..schemas import Episode
from .align import Align, Aligned, align
from .layout import cameras, card, curves, lanes
from .plan import Recorded, RecordOptions
from .record import Recorder
from .rerun import rrb, saved
from .robots import Placed
from .scene import robots
from .timing import wall_start

ALIGNED = "aligned"
_MOST_PLOTS = 6  # of one side


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
        replace(one, prefix=prefix, timelines={**one.timelines, ALIGNED: warp})
        for one, prefix, warp in zip(options, "AB", warps, strict=True)
    ]
    recorders = [Recorder(episode, one) for episode, one in zip(pair, told, strict=True)]
    both = hashlib.sha256(" ".join(episode.id for episode in pair).encode()).hexdigest()[:16]
    with saved(path, f"teleopen-compare-{both}", f"compare-{both}") as sink:
        plans = [
            robots(own)(episode, sink, recorder.plan, one)
            for own, episode, recorder, one in zip(arms, pair, recorders, told, strict=True)
        ]
        sink.send_blueprint(blueprint(plans))
        for recorder in recorders:
            recorder.record(sink)
    return aligned


def blueprint(plans: Sequence[Recorded]) -> rrb.Blueprint:
    """Return the layout: A at the left, B at the right, each with its cameras, robot, curves and events."""
    return rrb.Blueprint(
        rrb.Horizontal(*(_side(plan) for plan in plans)),
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
    plots = [view for plot in plan.plots for view in curves(plot)][:_MOST_PLOTS]
    events = lanes(plan)
    below = [*([rrb.Tabs(*plots)] if plots else []), *([events] if events is not None else [])]
    parts = [*([rrb.Grid(*top, grid_columns=min(2, len(top)))] if top else []), *below, card(plan)]
    name = f"{plan.prefix}: {plan.title}"
    return rrb.Vertical(
        *parts,
        row_shares=[5, *([3] if plots else []), *([1] if events is not None else []), 2] if top else None,
        name=name,
    )
