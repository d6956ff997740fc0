"""Two episodes with one cursor: what is on screen of each, and the curves of both in one plot."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from teleopen.cli.main import main
from teleopen.hub import WriteOptions, create_store
from teleopen.schemas import Array, Episode, Event

from tests.viewer import numbered
from tests.viewer.conftest import need
from tests.viewer.numbered import SECOND

pytest.importorskip("rerun", reason="the extra `viewer` is not installed")

from teleopen.viewer.compare import ALIGNED, together
from teleopen.viewer.plan import RecordOptions, planned
from teleopen.viewer.timing import Timing

if TYPE_CHECKING:
    from teleopen.viewer.screen import Viewer

OTHER = 100
"""What is added to the numbers on B's frames."""

LATER = 10
"""Frames that B began after A."""

GRASP = (30, 45)
"""The frames at which A and B grasp."""

NOON = 1_750_000_000 * SECOND
STEP = SECOND / 30
A_BLUE, B_ORANGE = (70, 140, 240), (240, 160, 50)
PATIENCE = 30.0


def one(steps: int, grasp: int, start_ns: int, first: int) -> Episode:
    """Return numbered frames, from ``first`` on, of a robot that reaches and then grasps."""
    at = round(grasp * STEP)
    events = (
        Event(kind="phase", start_ns=0, stop_ns=at, text="reach"),
        Event(kind="phase", start_ns=at, text="grasp"),
    )
    made = numbered.episode(steps, events=events, extra={"recording": {"start_ns": start_ns}})
    camera = made.streams[numbered.CAMERA]

    def read(start: int, stop: int) -> Iterator[Array]:
        return iter([numbered.frames(start + first, stop + first)])

    state = made.streams["observation.state"]
    values = np.full((steps, 2), 3.0 if first else -3.0, np.float32)  # curves that cover no other
    level = replace(state, read=lambda start, stop: iter([values[start:stop]]))
    own = {numbered.CAMERA: replace(camera, read=read), "observation.state": level}
    return replace(made, streams={**made.streams, **own})


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Give a store of the two."""
    later = NOON + round(LATER * STEP)
    pair = one(60, GRASP[0], NOON, 0), one(66, GRASP[1], later, OTHER)
    create_store(tmp_path / "store").write(pair, WriteOptions(profile="archive"))
    return tmp_path / "store"


@pytest.fixture
def wide() -> Iterator[Viewer]:
    """Give a viewer without a window that has room for two."""
    need("native")
    from teleopen.viewer.process import silent
    from teleopen.viewer.screen import viewer

    with silent() as environment, viewer(environment, "--headless", size=(1280, 720)) as shown:
        yield shown


def on_screen(viewer: Viewer, wanted: tuple[int, int]) -> list[int | None]:
    """Return the numbers that both cameras come to show: the wanted ones, or those that stay instead."""
    views = {view.origin: view for view in viewer.client.get_state().views}
    cameras = [views[f"/{side}/cameras/top/image"] for side in "AB"]
    end = time.monotonic() + PATIENCE
    found: list[int | None] = []
    while found != list(wanted) and time.monotonic() < end:
        found = [numbered.number_on(viewer.seen(view)) for view in cameras]
    return found


def part_of(picture: Array, colour: tuple[int, int, int]) -> float:
    return float((np.abs(picture.astype(np.int16) - colour).max(axis=2) < 40).mean())


@pytest.mark.slow
def test_both_cameras_show_their_frames_of_the_cursor_and_both_curves_are_in_one_plot(
    store: Path, wide: Viewer, tmp_path: Path
) -> None:
    seeks = {
        "start": [((k, k + OTHER), k) for k in (40, 3, 59)],
        "time": [((k, k - LATER + OTHER), k) for k in (25, 50, LATER)],
        "phase": [((GRASP[0], GRASP[1] + OTHER), GRASP[0]), ((0, OTHER), 0)],
    }
    for align, moments in seeks.items():
        file = tmp_path / f"{align}.rrd"
        assert main(["compare", f"{store}#0", f"{store}#1", "--align", align, "--save", str(file)]) == 0
        wide.show(file)
        for wanted, frame in moments:
            wide.set_time(ALIGNED, 0, round((frame + 0.4) * STEP))
            assert on_screen(wide, wanted) == list(wanted), (align, frame)
        wide.client.close("all")
    wide.show(tmp_path / "start.rrd")
    plots = {view.name: view for view in wide.client.get_state().views if view.visible}
    end = time.monotonic() + PATIENCE
    parts = [0.0, 0.0]
    while min(parts) < 0.001 and time.monotonic() < end:
        picture = wide.seen(plots["left_elbow"])
        parts = [part_of(picture, colour) for colour in (A_BLUE, B_ORANGE)]
    assert min(parts) >= 0.001, f"a curve of A or of B is not on screen: {parts}"
    assert not [report for view in wide.client.get_state().views for report in view.reports]


def test_curves_lie_together_where_they_have_one_name_and_one_unit() -> None:
    episode = numbered.episode(5)
    state = episode.streams["observation.state"]
    degrees = replace(state, spec=replace(state.spec, unit=("deg", "1")))
    other = replace(episode, streams={**episode.streams, "observation.state": degrees})
    plans = [planned(e, Timing(e, {}), RecordOptions(prefix=p)) for e, p in ((episode, "A"), (other, "B"))]
    found = together(plans)["observation.state"]
    paths = {axis: [curve.path for curve in curves] for axis, curves in found.items()}
    assert paths["left_elbow", "rad"] == ["/A/observation/state/left_elbow", "/A/action/left_elbow"]
    assert paths["left_elbow", "deg"] == ["/B/observation/state/left_elbow", "/B/action/left_elbow"]
    assert [path[:3] for path in paths["left_gripper", ""]] == ["/A/", "/A/", "/B/", "/B/"]
