"""Cards, links and comparisons: what is made is only what is shown, and nobody else can listen."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest
from teleopen.cli.main import main
from teleopen.hub import Store, create_store
from teleopen.schemas import ActionContract, ActionPart, Array, Episode, Event, MissingExtraError, StreamSpec

from tests.viewer import numbered
from tests.viewer.conftest import need
from tests.viewer.made import episode_of

pytest.importorskip("rerun", reason="the extra `viewer` is not installed")

from teleopen.viewer import rerun as door
from teleopen.viewer.browse import Cache, Item, browsing
from teleopen.viewer.compare import write_pair
from teleopen.viewer.plan import RecordOptions
from teleopen.viewer.process import LOOPBACK
from teleopen.viewer.robots import placed, robot_named
from teleopen.viewer.scene import robots

from tests.viewer.recordings import Read

if TYPE_CHECKING:
    from teleopen.viewer.screen import Viewer

RED = (220, 30, 30)
PATIENCE = 30.0
AXES = tuple(f"joint_{i}" for i in range(1, 8))
JOINTS = ActionContract(parts=(ActionPart(start=0, stop=7, space="joint_position", mode="absolute"),))
STATE = StreamSpec(
    name="observation.state", kind="low_dim", dtype="float64", shape=(7,), unit=("rad",), axes=AXES
)
ACTION = replace(STATE, name="action", contract=JOINTS)
REST = np.array([0, 0, 0, -1.5, 0, 1.5, 0])
CAMERA = StreamSpec(name="observation.images.top", kind="video", dtype="uint8", shape=(48, 64, 3))


def demonstration(seed: int, task: str = "stack the cups", steps: int = 60) -> Episode:
    """Return an episode of a Panda whose third joint jumps at frame 40, under a camera that shows a red
    wall."""
    rng = np.random.default_rng(seed)
    state = REST + 0.3 * np.sin(np.arange(steps)[:, None] / 15 + rng.uniform(0, 6, 7))
    state[40:, 2] += 1.0
    frames = np.full((steps, 48, 64, 3), RED, np.uint8)
    frames[:, :, :4] = rng.integers(0, 255, (steps, 48, 4, 3))
    streams: list[tuple[StreamSpec, Array]] = [(STATE, state), (ACTION, state), (CAMERA, frames)]
    return episode_of(streams, rate_hz=20, embodiment="panda", instructions=(task,))


def item(episode: Episode, **options: Any) -> Item:
    return Item(episode=episode, key=episode.id, options=RecordOptions(ascii=True, **options))


# ---------------------------------------------------------------- robots in recordings


def test_a_robot_without_meshes_is_drawn_as_sticks_at_the_poses_that_its_kinematics_give(
    tmp_path: Path,
) -> None:
    from teleopen.viewer.record import write

    episode = demonstration(0)
    arms = placed(episode, replace(robot_named("panda"), document=None))
    recorded = write(episode, tmp_path / "one.rrd", RecordOptions(), extend=robots(arms))
    assert {"/robot", "/commanded", "/trail_of_robot"} <= set(recorded.spatial)
    read = Read.of(tmp_path / "one.rrd")
    chain = arms[0].robot.chain
    positions = {f"panda_joint{i + 1}": episode.streams["observation.state"].values()[:, i] for i in range(7)}
    expected = chain.poses(positions)["panda_hand_tcp"][:, :3, 3]
    (column,) = [name for name in read.components("/robot") if name.endswith(":strips")]
    rows = [
        row
        for batch in read.batches["/robot"]
        if column in batch.schema.names
        for row in batch[column].to_pylist()
    ]
    index = [joint.child for joint in chain.joints].index("panda_hand_tcp")
    tips = np.array([row[index][1] for row in rows if row is not None])
    np.testing.assert_allclose(tips, expected, atol=1e-5)


def test_a_robot_with_meshes_keeps_positions_beyond_its_limits(tmp_path: Path) -> None:
    from teleopen.viewer.record import write
    from teleopen.viewer.robots import robot_from

    tmp_path.joinpath("cube.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    joint = (
        '<joint name="joint_1" type="revolute"><parent link="base"/><child link="one"/><axis xyz="0 0 1"/>'
    )
    look = '<visual><geometry><mesh filename="cube.obj"/></geometry></visual>'
    (urdf := tmp_path / "arm.urdf").write_text(
        f'<robot name="arm"><link name="base"/><link name="one">{look}</link>{joint}'
        '<limit lower="-0.1" upper="0.1" velocity="1" effort="1"/></joint></robot>'
    )
    episode = demonstration(0)
    arms = placed(episode, robot_from(urdf))
    write(episode, tmp_path / "one.rrd", RecordOptions(), extend=robots(arms))
    read = Read.of(tmp_path / "one.rrd")
    entity = "/joints_of/robot/joint_1"
    (column,) = [name for name in read.components(entity) if name.endswith(":quaternion")]
    turned = np.array([row[2] for row in read.column(entity, column)])
    expected = np.sin(episode.streams["observation.state"].values()[:, 0] / 2)
    np.testing.assert_allclose(turned, expected, atol=1e-5)
    assert np.abs(turned).max() > np.sin(0.05), "a position beyond the limits was moved back"
    assert any(entity.startswith("/commanded") for entity in read.batches), "there is no ghost"


def test_a_card_tells_that_the_order_of_joints_was_assumed(tmp_path: Path) -> None:
    from teleopen.viewer.record import write

    state = replace(STATE, axes=tuple(f"j{i}" for i in range(7)))
    episode = episode_of([(state, np.zeros((5, 7)) + REST)], rate_hz=20, embodiment="panda")
    arms = placed(episode, replace(robot_named("panda"), document=None))
    write(episode, tmp_path / "one.rrd", RecordOptions(), extend=robots(arms))
    read = Read.of(tmp_path / "one.rrd")
    assert "/robot" in read.batches
    (column,) = [name for name in read.components("/info") if name.endswith(":text")]
    (text,) = read.column("/info", column)
    assert "joint order assumed from the embodiment" in text


# ---------------------------------------------------------------- two in one


def test_two_episodes_share_a_timeline_on_which_their_phases_begin_together(tmp_path: Path) -> None:
    def phased(seed: int, at_s: float) -> Episode:
        events = (
            Event(kind="phase", start_ns=0, text="reach"),
            Event(kind="phase", start_ns=round(at_s * 1e9), text="grasp"),
        )
        return replace(demonstration(seed), events=events)

    pair = phased(1, 1.0), phased(2, 2.0)
    options = RecordOptions(ascii=True), RecordOptions(ascii=True)
    arms = tuple(placed(one, robot_named("panda")) for one in pair)
    found = write_pair(pair, tmp_path / "pair.rrd", "phase", options, (arms[0], arms[1]))
    assert found.phases == ("reach", "grasp")
    read = Read.of(tmp_path / "pair.rrd")
    times = {side: read.numbers(f"/{side}/cameras/top/image", "aligned") for side in "AB"}
    assert times["A"][20] == times["B"][40] == 1_000_000_000
    assert {"/A/robot", "/B/robot"} <= set(read.batches)


# ---------------------------------------------------------------- many


def test_a_recording_is_made_once_and_again_when_its_episode_changes(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    one = item(demonstration(0))
    first = cache.entry(one)
    made_at = first.recording.stat().st_mtime_ns
    again = Cache(tmp_path).entry(one)
    assert (again.recording, again.recording.stat().st_mtime_ns) == (first.recording, made_at)
    assert [event.kind for event in again.events] == ["anomaly.joint_speed", *2 * ["anomaly.jump"]]
    assert cache.entry(replace(one, key="other")).recording != first.recording


def test_a_recording_that_was_not_finished_does_not_count(tmp_path: Path) -> None:
    one = item(demonstration(0))
    entry = Cache(tmp_path).entry(one)
    entry.recording.with_name("about.json").write_text('{"cam')
    entry.recording.write_bytes(b"half")
    assert Cache(tmp_path).entry(one).recording.stat().st_size > 1_000


def test_the_cache_is_kept_below_its_size_and_never_loses_what_is_shown(tmp_path: Path) -> None:
    old = Cache(tmp_path).entry(item(demonstration(0)))
    cache = Cache(tmp_path, largest=1)
    shown = [cache.entry(item(demonstration(seed))) for seed in (1, 2)]
    assert not old.recording.exists()
    assert all(entry.recording.exists() for entry in shown)


def listening() -> set[str]:
    """Return the addresses that this process and its children listen at."""
    me = psutil.Process()
    found: set[str] = set()
    for one in (me, *me.children(recursive=True)):
        found |= {c.laddr.ip for c in one.net_connections("inet") if c.status == psutil.CONN_LISTEN}
    return found


def test_a_catalogue_listens_on_this_machine_only_and_links_to_each_finding(tmp_path: Path) -> None:
    before = listening()
    tasks = ("stack the cups", "把杯子叠起来 \U0001f600", "")
    items = [item(demonstration(seed, task)) for seed, task in enumerate(tasks)]
    with browsing(items, Cache(tmp_path)) as found:
        assert listening() - before <= {LOOPBACK}
        assert found.address.startswith(f"rerun+http://{LOOPBACK}:")
        jumps = [link for link in found.links if link.event.kind == "anomaly.jump"]
        assert {link.episode for link in jumps} == {one.episode.id for one in items}
        assert all(link.address.endswith("#when=frame@39&time_selection=frame@39..40") for link in jumps)
    assert listening() <= before | {LOOPBACK}


def test_a_viewer_that_came_without_its_catalogue_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "rerun.server", None)
    with pytest.raises(MissingExtraError, match="teleopen\\[viewer\\]"), door.catalogue():
        pass


# ---------------------------------------------------------------- the command line


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Give a store of three demonstrations."""
    made = create_store(tmp_path / "store")
    made.write([demonstration(seed, f"task {seed}") for seed in range(3)])
    return tmp_path / "store"


def test_events_tells_each_finding_with_the_command_that_opens_there(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["events", f"{store}#1", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    by_kind = {event["kind"]: event for event in told["events"]}
    assert set(by_kind) == {"anomaly.joint_speed", "anomaly.jump"}
    jump = by_kind["anomaly.jump"]
    assert jump["start_s"] == pytest.approx(39 / 20)
    assert jump["open"] == f"teleopen view '{store}#1' --at 1.950s"
    assert main(["events", str(store), "--robot", "none"]) == 0
    assert "6 findings in 3 of 3 episodes" in capsys.readouterr().out


def test_a_robot_is_told_in_one_way(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["events", str(store), "--robot", "panda", "--urdf", "x.urdf"]) == 2
    assert main(["events", str(store), "--robot", "Baxter"]) == 1
    assert "franka-panda" in capsys.readouterr().err


def test_compare_keeps_a_recording(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "pair.rrd"
    assert main(["compare", f"{store}#0", f"{store}#2", "--save", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bytes"] == file.stat().st_size
    assert main(["compare", f"{store}#0", f"{store}#2", "--save", str(file), "--align", "phase"]) == 1
    assert "no phases in common" in capsys.readouterr().err


def test_browse_makes_recordings_of_what_it_shows_only(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("teleopen.viewer.show.until_interrupted", lambda: None)
    cache = tmp_path / "cache"
    words = ["browse", str(store), "--serve", "--json", "--cache", str(cache)]
    assert main([*words, "--limit", "1"]) == 0
    assert len(list(cache.iterdir())) == 1
    assert main([*words, "--task", "TASK 2"]) == 0
    told = json.loads(capsys.readouterr().out.split("\n{\n")[-1].join(["{\n", ""]))
    assert {event["episode"] for event in told["events"]} == {demonstration(2, "task 2").id}
    assert len(list(cache.iterdir())) == 2
    assert main([*words, "--open-only"]) == 1
    assert "no episode is what was asked for" in capsys.readouterr().err


def licensed(episode: Episode, licence: str) -> Episode:
    own = replace(episode.rights.licence, expression=licence)
    return replace(episode, rights=replace(episode.rights, licence=own))


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (["--licence", "CC-BY-4.0"], [1]),
        (["--licence", "cc-by-nc-4.0", "--task", "TASK 3"], [3]),
        (["--task", "task", "--limit", "2"], [0, 1]),
        (["--robot", "PANDA", "--task", "k 2"], [2]),
        (["--robot", "ur5e"], []),
        (["--licence", "CC-BY"], []),
        (["--open-only"], []),
    ],
)
def test_filters_open_no_episode_that_is_not_shown(
    asked: list[str], found: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    licences = {1: "CC-BY-4.0", 2: "CC-BY-NC-4.0", 3: "CC-BY-NC-4.0"}
    episodes = [demonstration(seed, f"task {seed}", steps=2) for seed in range(4)]
    episodes = [licensed(e, licences[n]) if n in licences else e for n, e in enumerate(episodes)]
    create_store(tmp_path / "store").write(episodes)
    opened: list[str] = []
    plain = Store.episode

    def counted(self: Store, key: str) -> Episode:
        opened.append(key)
        return plain(self, key)

    monkeypatch.setattr(Store, "episode", counted)
    monkeypatch.setattr("teleopen.viewer.show.until_interrupted", lambda: None)
    words = ["browse", str(tmp_path / "store"), "--serve", "--cache", str(tmp_path / "cache"), *asked]
    assert main(words) == (0 if found else 1)
    assert opened == [episodes[number].id for number in found]


# ---------------------------------------------------------------- on screen


def redness(viewer: Viewer) -> float:
    """Return the part of the screen that is as red as the wall that the camera shows."""
    import io

    from PIL import Image

    with Image.open(io.BytesIO(viewer.picture())) as image:
        pixels = np.asarray(image.convert("RGB"), np.int16)
    return float((np.abs(pixels - RED).max(axis=2) < 25).mean())


def waits_for(seen: Callable[[], bool]) -> bool:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if seen():
            return True
        time.sleep(0.3)
    return False


@pytest.fixture
def wide() -> Iterator[Viewer]:
    """Give a viewer without a window that has room for cards."""
    need("native")
    from teleopen.viewer.process import silent
    from teleopen.viewer.screen import viewer

    with silent() as environment, viewer(environment, "--headless", size=(1280, 720)) as shown:
        yield shown


@pytest.mark.slow
def test_cards_show_stills_and_a_link_opens_the_episode_at_what_was_found(
    wide: Viewer, tmp_path: Path
) -> None:
    tasks = ("stack the cups", "把杯子叠起来 \U0001f600")
    items = [item(demonstration(seed, task)) for seed, task in enumerate(tasks)]
    with browsing(items, Cache(tmp_path)) as found:
        wide.client.open(found.address)
        assert waits_for(lambda: redness(wide) > 0.02), "no still is on screen"
        assert not wide.client.get_state().views, "these are no cards"
    with browsing(items, Cache(tmp_path)) as found:
        (link, *_) = [link for link in found.links if link.event.kind == "anomaly.jump"]
        wide.client.open(link.address)
        assert waits_for(lambda: bool(wide.client.get_state().views))
        assert waits_for(lambda: redness(wide) > 0.02), "the camera is not on screen"
        state = wide.client.get_state()
        assert not [report for view in state.views for report in view.reports]
        assert "top" in {view.name for view in state.views}, "the layout is not ours"
    assert not [entry for entry in wide.client.get_logs() if "panic" in entry.message.lower()]


@pytest.mark.slow
def test_the_link_of_a_finding_opens_the_very_frame_at_which_it_was_found(
    wide: Viewer, tmp_path: Path
) -> None:
    episode = demonstration(0)
    steps = episode.streams["observation.state"].values()
    top = replace(CAMERA, shape=(numbered.HEIGHT, numbered.WIDTH, 3))
    streams: list[tuple[StreamSpec, Array]] = [(STATE, steps), (top, numbered.frames(0, len(steps)))]
    counted = episode_of(streams, rate_hz=20, embodiment="panda")
    with browsing([item(counted)], Cache(tmp_path)) as found:
        (link,) = [link for link in found.links if link.event.kind == "anomaly.jump"]
        wide.client.open(link.address)

        def number() -> int | None:
            views = [view for view in wide.client.get_state().views if view.name == "top"]
            return numbered.number_on(wide.seen(views[0])) if views else None

        assert waits_for(lambda: number() == 39), number()
    assert not [entry for entry in wide.client.get_logs() if "panic" in entry.message.lower()]
