"""Where things are shown: cameras and the card above, the 3D scene below at the left, curves at its right."""

from __future__ import annotations

import math
from collections.abc import Iterator

from .plan import Camera, Curve, Plot, Recorded
from .rerun import rrb

_ROW = 7  # axes of one view of curves
_LEGEND = 4  # curves that leave room for a legend; else pointing at one tells its name
_SIDES = ("left", "right")


def blueprint(recorded: Recorded) -> rrb.Blueprint:
    """Return the layout of one episode."""
    below = [part for part in (_scene(recorded), _below_right(recorded)) if part is not None]
    rows = [_top(recorded), *([rrb.Horizontal(*below, column_shares=[5, 6][-len(below) :])] if below else [])]
    return rrb.Blueprint(
        rrb.Vertical(*rows, row_shares=[5, 6][: len(rows)]),
        time_panel(recorded),
        rrb.SelectionPanel(state="collapsed"),
        rrb.BlueprintPanel(state="collapsed"),
        auto_layout=False,
        auto_views=False,
    )


def time_panel(recorded: Recorded) -> rrb.TimePanel:
    """Return the time panel: paused at the start, at the speed of the recording."""
    return rrb.TimePanel(
        state="collapsed",
        timeline=recorded.timeline,
        fps=recorded.rate_hz,
        play_state="paused",
        loop_mode="all",
    )


def cameras(recorded: Recorded) -> list[rrb.View]:
    """Return a view for each camera."""
    side = f"{recorded.prefix}: " if recorded.prefix else ""
    return [
        rrb.Spatial2DView(origin=one.path, contents="$origin/**", name=side + _title(one))
        for one in recorded.cameras
    ]


def _title(camera: Camera) -> str:
    name = f"depth of {camera.name}" if camera.kind == "depth" else camera.name
    return f"{name} ({camera.note})" if camera.kind == "depth" and camera.note else name


def card(recorded: Recorded) -> rrb.View:
    """Return the view of the card."""
    return rrb.TextDocumentView(origin=recorded.info, name="Task & licence")


def _top(recorded: Recorded) -> rrb.Container:
    views = cameras(recorded)
    if len(views) <= 3:
        return rrb.Horizontal(*views, card(recorded), column_shares=[4] * len(views) + [5])
    columns = math.ceil(len(views) / 2)
    grid = rrb.Grid(*views, grid_columns=columns)
    return rrb.Horizontal(grid, card(recorded), column_shares=[4 * columns, 6])


def _scene(recorded: Recorded) -> rrb.View | None:
    if not recorded.spatial:
        return None
    return rrb.Spatial3DView(
        origin=f"/{recorded.prefix}",
        contents=[f"+ {path}/**" for path in recorded.spatial],
        name="Scene",
        line_grid=True,
    )


def _below_right(recorded: Recorded) -> rrb.Container | None:
    """Return the curves, a page of them at a time, and the events under them."""
    pages = [_page(name, views, recorded) for name, views in _pages(recorded)]
    events = lanes(recorded)
    parts = [*([rrb.Tabs(*pages)] if len(pages) > 1 else pages), *([rrb.Tabs(*events)] if events else [])]
    if not parts:
        return None
    return rrb.Vertical(*parts, row_shares=[3, 1][: len(parts)])


def _pages(recorded: Recorded) -> list[tuple[str, list[rrb.View]]]:
    """Return the views of all streams, as many to a page as can be read, and what to call each page."""
    room = 3 if recorded.spatial else 4
    pages: list[tuple[list[str], list[rrb.View]]] = []
    shown: list[tuple[str, list[rrb.View]]] = [(plot.name, list(curves(plot))) for plot in recorded.plots]
    shown += [(one.name, [rrb.TensorView(origin=one.path, name=one.name)]) for one in recorded.tensors]
    for name, views in shown:
        for first in range(0, len(views), room):
            some = views[first : first + room]
            if not pages or len(pages[-1][1]) + len(some) > room:
                pages.append(([], []))
            pages[-1][0].append(name)
            pages[-1][1].extend(some)
    return [(", ".join(dict.fromkeys(names)), views) for names, views in pages]


def _page(name: str, views: list[rrb.View], recorded: Recorded) -> rrb.Container:
    if recorded.spatial:
        return rrb.Vertical(*views, name=name)
    return rrb.Grid(*views, grid_columns=min(2, len(views)), name=name)


def lanes(recorded: Recorded) -> list[rrb.View]:
    """Return the views of the events, if there are any: a lane for each kind, and all of them as text."""
    if not recorded.lanes:
        return []
    timeline = rrb.StateTimelineView(
        origin="/", contents=[f"+ {path}" for path in recorded.lanes.values()], name="Events"
    )
    log = rrb.TextLogView(origin=recorded.log, name="Events as text")
    return [timeline, log]


def curves(plot: Plot) -> Iterator[rrb.View]:
    """Yield views of a plot's curves: one for each side of a robot where the axes say so, a few axes each."""
    for name, axes in _groups(plot):
        for number, first in enumerate(range(0, len(axes), _ROW)):
            row = axes[first : first + _ROW]
            title = name if len(axes) <= _ROW else f"{name} ({number + 1})"
            yield rrb.TimeSeriesView(
                origin="/",
                contents=[f"+ {curve.path}" for axis in row for curve in axis],
                name=title,
                plot_legend=rrb.PlotLegend(visible=1 < sum(map(len, row)) <= _LEGEND),
            )


def _groups(plot: Plot) -> list[tuple[str, list[tuple[Curve, ...]]]]:
    sides = {side: [axis for axis in plot.axes if axis[0].name.startswith(side)] for side in _SIDES}
    if all(sides.values()) and sum(map(len, sides.values())) == len(plot.axes):
        return [(f"{side}: {plot.name}", axes) for side, axes in sides.items()]
    return [(plot.name, list(plot.axes))]
