"""AgiBot World: sparse commands, arrays that do not fit, segments, depth, and files that mean harm."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import h5py
import numpy as np
import pytest
from PIL import Image
from teleopen.converters.agibot_world import AgibotWorld
from teleopen.schemas import ActionPart, Episode, problems_of

from tests.converters import reading
from tests.samples._films import film, png, write_mp4
from tests.samples.agibot_world import SENT, START_NS, STEPS, TASK, write_episode, write_tasks

NUMBER = 648642
PLACE = f"{TASK}/{NUMBER}"


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write one episode."""
    root = tmp_path_factory.mktemp("agibot") / "data"
    write_episode(root, NUMBER, np.random.default_rng(2))
    write_tasks(root, (NUMBER,))
    return root


@pytest.fixture
def root(template: Path, tmp_path: Path) -> Path:
    """Give a test a data set of its own."""
    return shutil.copytree(template, tmp_path / "data")


def read(root: Path, **options: Any) -> Episode:
    return reading.only(AgibotWorld(**options), root)


def change(root: Path, **arrays: Any) -> None:
    """Put other arrays in the place of some; ``__`` in a name stands for a slash."""
    with h5py.File(root / "proprio_stats" / PLACE / "proprio_stats.h5", "r+") as file:
        for name, values in arrays.items():
            if name.replace("__", "/") in file:
                del file[name.replace("__", "/")]
            if values is not None:
                file[name.replace("__", "/")] = values


def tell(root: Path, change_: Callable[[dict[str, Any]], Any]) -> None:
    """Change what is told of the episode."""
    path = root / "task_info" / f"task_{TASK}.json"
    told = json.loads(path.read_text())
    change_(told[0])
    path.write_text(json.dumps(told))


# What it means


def test_a_gripper_is_millimetres_as_a_state_and_a_share_as_a_command(root: Path) -> None:
    episode = read(root)
    assert episode.streams["observation.gripper"].spec.unit == ("mm",)
    command = episode.streams["action.gripper"].spec
    assert command.contract is not None
    part = ActionPart(start=0, stop=2, space="gripper", mode="absolute", frame=None, rotation="none",
                      gripper_closed=1.0, gripper_open=0.0)  # fmt: skip
    assert (command.contract.parts, command.contract.offset_steps) == ((part,), None)


@pytest.mark.parametrize(
    ("joints", "rotation", "first"), [(14, "quaternion_xyzw", "x"), (34, "quaternion_wxyz", "w")]
)
def test_quaternions_are_xyzw_but_in_the_simulated_twin(
    root: Path, joints: int, rotation: str, first: str
) -> None:
    change(root, state__joint__position=np.zeros((STEPS, joints), np.float32))
    episode = read(root)
    spec = episode.streams["action.ee_orientation"].spec
    assert spec.contract is not None
    assert (spec.contract.parts[0].rotation, spec.axes[0]) == (rotation, first)
    assert episode.streams["observation.base_orientation"].spec.axes[0] == first
    assert episode.embodiment == ("agibot g1" if joints == 14 else "agibot g1, simulated")


def test_a_dexterous_hand_is_joints_and_no_gripper(root: Path) -> None:
    hand = np.zeros((STEPS, 12), np.float32)
    change(root, state__effector__position=hand, action__effector__position=hand)
    episode = read(root)
    assert episode.streams["observation.hand_joint_position"].spec.unit == ("rad",)
    contract = episode.streams["action.hand_joint_position"].spec.contract
    assert contract is not None
    assert contract.parts[0].space == "joint_position"


def test_the_waist_is_told_where_it_cannot_be_in_metres(root: Path) -> None:
    change(root, state__waist__position=np.full((STEPS, 2), 27, np.float32))
    assert any("lift reaches 27" in text for text in read(root).provenance.warnings)


# Which rows belong together


def test_sparse_commands_stand_at_the_rows_of_their_index(root: Path) -> None:
    episode = read(root)
    index = episode.streams["extra.action.joint.index"].values()
    for name in ("action.joint_position", "action.ee_position"):
        assert episode.streams[name].length == SENT
        np.testing.assert_array_equal(episode.times(name), episode.clocks["steps"].read()[index])


def test_commands_of_every_row_belong_to_the_steps(root: Path) -> None:
    change(root, action__joint__position=np.zeros((STEPS, 14)), action__joint__index=np.arange(STEPS))
    assert read(root).streams["action.joint_position"].spec.clock == "steps"


@pytest.mark.parametrize("rows", [STEPS + 1, SENT - 1, 1])
def test_commands_that_nothing_ties_to_rows_keep_a_clock_of_their_own(root: Path, rows: int) -> None:
    values = np.random.default_rng(0).normal(0, 1, (rows, 14))
    change(root, action__joint__position=values)
    episode = read(root)
    stream = episode.streams["action.joint_position"]
    assert stream.spec.clock == "action_joint_position"
    np.testing.assert_array_equal(stream.values(), values)
    assert episode.clocks["action_joint_position"].kind == "nominal"
    assert any(f"action/joint/position has {rows} samples" in text for text in episode.provenance.warnings)


@pytest.mark.parametrize(
    "index", [[3] * SENT, range(SENT, 0, -1), range(-1, SENT - 1), range(STEPS, STEPS + SENT)]
)
def test_an_index_that_is_no_rising_list_of_rows_is_not_used(root: Path, index: Any) -> None:
    change(root, action__joint__index=np.array(list(index)))
    episode = read(root)
    assert any("no rising list of rows" in text for text in episode.provenance.warnings)
    assert episode.streams["action.joint_position"].spec.clock == "action_joint_position"


def test_empty_arrays_are_told_as_such(root: Path) -> None:
    change(root, action__joint__position=np.zeros((0, 14)))
    episode = read(root)
    assert "action.joint_position" not in episode.streams
    fates = {fate.field: fate for fate in episode.provenance.ledger}
    assert fates["action/joint/position"].fate == "dropped"


def test_segments_are_events_at_the_times_of_their_rows(root: Path) -> None:
    episode = read(root)
    times = episode.clocks["steps"].read()
    first, second = episode.events
    assert (first.kind, first.start_ns, first.stop_ns, first.text) == (
        "phase",
        0,
        times[12],
        "Reach for the cup.",
    )
    assert second.stop_ns == times[-1] + int(np.median(np.diff(times)))
    assert second.attributes == {"skill": "Pick", "start_frame": 12, "end_frame": STEPS}


@pytest.mark.parametrize(
    "segment",
    [
        {"start_frame": 0, "end_frame": STEPS + 1, "action_text": "x"},
        {"start_frame": 9, "end_frame": 3, "action_text": "x"},
        {"start_frame": -1, "end_frame": 3, "action_text": "x"},
        {"start_frame": 0.5, "end_frame": 3, "action_text": "x"},
        {"start_frame": 0, "end_frame": 1e300, "action_text": "x"},
        {"end_frame": 3, "action_text": "x"},
        {"start_frame": 0, "end_frame": 3, "action_text": ["x"]},
        "reach",
        None,
    ],
)
def test_a_segment_that_fits_no_rows_is_kept_and_no_event(root: Path, segment: Any) -> None:
    tell(root, lambda info: info["label_info"]["action_config"].append(segment))
    episode = read(root)
    assert len(episode.events) == 2
    assert any("action_config[2]" in text for text in episode.provenance.warnings)
    assert episode.extra["task_info"]["task_info.label_info"]["action_config"][2] == segment


def test_words_that_write_on_the_terminal_reach_no_ledger_and_no_event(root: Path) -> None:
    tell(root, lambda info: info.update({"\x1b[2J" * 500: 1, "\x1b[2J" * 501: 2, "": 3, "Größe": 4}))
    tell(root, lambda info: info["label_info"]["action_config"][0].update(action_text="\x1b[2J"))
    episode = read(root)
    assert len(episode.events) == 1
    fields = [fate.field for fate in episode.provenance.ledger]
    assert all(name.isascii() and name.isprintable() for name in fields)


def test_an_episode_that_no_task_tells_of_is_still_one(root: Path) -> None:
    shutil.rmtree(root / "task_info")
    episode = read(root)
    assert (episode.instructions, episode.events) == ((), ())
    assert "task_info tells nothing of this episode" in episode.provenance.warnings


def test_listed_episodes_that_are_not_here_are_counted(root: Path) -> None:
    write_more = json.loads((root / "task_info" / f"task_{TASK}.json").read_text())
    (root / "task_info" / f"task_{TASK}.json").write_text(json.dumps([*write_more, {"episode_id": 5}]))
    assert any("lists 1 episodes that are not here" in text for text in read(root).provenance.warnings)


# Time


def test_stamps_are_kept_as_their_origin_and_times_since(root: Path) -> None:
    episode = read(root)
    with h5py.File(root / "proprio_stats" / PLACE / "proprio_stats.h5") as file:
        stamps = file["timestamp"][()]
    np.testing.assert_array_equal(
        episode.extra["origin"]["timestamp_ns"] + episode.clocks["steps"].read(), stamps
    )
    assert episode.extra["origin"]["timestamp_ns"] == START_NS


@pytest.mark.parametrize("stamps", [np.arange(STEPS) / 30, np.full(STEPS, np.nan), np.zeros((STEPS, 2), int)])
def test_stamps_that_are_no_nanoseconds_give_way_to_a_rate(root: Path, stamps: Any) -> None:
    change(root, timestamp=stamps)
    episode = read(root)
    assert (episode.clocks["steps"].kind, episode.clocks["steps"].declared_hz) == ("nominal", 30.0)
    assert any("no whole nanoseconds" in text for text in episode.provenance.warnings)
    assert read(root, rate_hz=10.0).clocks["steps"].declared_hz == 10.0


@pytest.mark.parametrize(
    ("stamps", "why"),
    [
        (np.arange(STEPS)[::-1], "backwards"),
        (np.full(STEPS, -5), "no time in nanoseconds"),
        (np.full(STEPS, (1 << 64) - 1, np.uint64), "no time in nanoseconds"),
        (None, "missing or empty"),
        (np.zeros(0, int), "missing or empty"),
    ],
)
def test_stamps_that_lie_are_refused(root: Path, stamps: Any, why: str) -> None:
    change(root, timestamp=stamps)
    error = reading.refusal(AgibotWorld(), root)
    assert error.where == "timestamp"
    assert why in error.why


# Pictures


@pytest.mark.parametrize("frames", [STEPS - 4, STEPS + 4])
def test_a_video_of_another_length_keeps_its_own_times(root: Path, frames: int) -> None:
    write_mp4(root / f"observations/{PLACE}/videos/head_color.mp4", film(np.random.default_rng(0), frames))
    episode = read(root)
    stream = episode.streams["observation.images.head"]
    assert (stream.length, stream.spec.clock.startswith("observations_")) == (frames, True)
    assert any(f"head_color.mp4 has {frames} frames" in text for text in episode.provenance.warnings)


def test_camera_parameters_stand_with_the_pictures(root: Path) -> None:
    episode = read(root)
    assert episode.streams["observation.images.head"].spec.attributes["intrinsic"]["intrinsic"]["fx"] == 615.0
    assert episode.streams["observation.depth.head"].spec.attributes["intrinsic"]["intrinsic"]["fx"] == 615.0


def test_extrinsics_that_are_told_once_are_an_attribute(root: Path) -> None:
    path = root / f"parameters/{PLACE}/parameters/camera/head_extrinsic_params_aligned.json"
    path.write_text(json.dumps(json.loads(path.read_text())[:1]))
    attributes = read(root).streams["observation.images.head"].spec.attributes
    assert len(attributes["extrinsic_aligned"]) == 1


@pytest.mark.parametrize(
    "document",
    [
        "[{}, {}]",
        '[{"extrinsic": 1}, 2]',
        '[{"extrinsic": {"rotation_matrix": [[1, 2], [3, 4]], "translation_vector": [0, 0]}}, {}]',
    ],
)
def test_extrinsics_that_are_none_are_refused(root: Path, document: str) -> None:
    path = root / f"parameters/{PLACE}/parameters/camera/head_extrinsic_params_aligned.json"
    path.write_text(document)
    assert "is no list of extrinsic parameters" in reading.refusal(AgibotWorld(), root).why


def test_depth_of_some_rows_stands_at_the_rows_its_files_are_numbered_by(root: Path) -> None:
    folder = root / f"observations/{PLACE}/depth"
    for lost in (3, 4, 20):
        (folder / f"head_depth_{lost:06d}.png").unlink()
    episode = read(root)
    rows = [i for i in range(STEPS) if i not in {3, 4, 20}]
    np.testing.assert_array_equal(
        episode.times("observation.depth.head"), episode.clocks["steps"].read()[rows]
    )


def test_depth_numbered_beyond_the_rows_keeps_its_own_clock(root: Path) -> None:
    folder = root / f"observations/{PLACE}/depth"
    (folder / "head_depth_000000.png").rename(folder / f"head_depth_{STEPS:06d}.png")
    episode = read(root)
    assert episode.streams["observation.depth.head"].spec.clock != "steps"
    assert any("numbered beyond the rows" in text for text in episode.provenance.warnings)


def test_one_record_tells_of_all_files_of_depth(root: Path) -> None:
    def digest() -> str:
        (record,) = (source for source in read(root).provenance.sources if source.role == "depth")
        return record.sha256

    before = digest()
    path = root / f"observations/{PLACE}/depth/head_depth_000004.png"
    path.write_bytes(png(np.zeros((12, 16), np.uint16)))
    assert digest() != before


# Harm


@pytest.mark.parametrize(
    "number", ["../../../../etc", "/etc/passwd", "648642/../648642", "", None, -1, 1.5, [1], "9" * 16, True]
)
def test_an_episode_that_is_no_number_is_refused(root: Path, number: Any) -> None:
    tell(root, lambda info: info.__setitem__("episode_id", number))
    error = reading.refusal(AgibotWorld(), root)
    assert error.where == "[0].episode_id"


@pytest.mark.parametrize("text", ["[" * 50_000, "{}", '[{"episode_id": 1', "[1]", '{"a": 1}', "\xff"])
def test_a_task_that_is_no_list_of_episodes_is_refused(root: Path, text: str) -> None:
    (root / "task_info" / f"task_{TASK}.json").write_text(text, encoding="latin-1")
    assert reading.refusal(AgibotWorld(), root).path.endswith(f"task_{TASK}.json")


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda good: good[:-80], "cannot be decoded"),
        (lambda good: good[:20], "is not a PNG"),
        (lambda _: b"", "is not a PNG"),
        (lambda _: png(np.zeros((12, 16), np.uint16), claims=(60_000, 60_000)), "claim a picture of 60000"),
        (lambda _: png(np.zeros((12, 16), np.uint16), claims=(2**31, 2**31)), "claim a picture"),
        (lambda _: png(np.zeros((12, 16), np.uint16), claims=(0, 16)), "claim a picture"),
        (lambda _: png(np.zeros((12, 16), np.uint16), claims=(48, 64)), "the first of this camera is"),
        (lambda _: png(np.zeros((12, 16), np.uint8)), "the first of this camera is"),
        (lambda good: good[:40] + bytes([good[40] ^ 255]) + good[41:], "cannot be decoded"),
    ],
)
@pytest.mark.parametrize("row", [0, 11])
def test_depth_that_harms_is_refused(root: Path, spoil: Callable[[bytes], bytes], why: str, row: int) -> None:
    path = root / f"observations/{PLACE}/depth/head_depth_{row:06d}.png"
    path.write_bytes(spoil(path.read_bytes()))
    error = reading.refusal(AgibotWorld(), root)
    if row:
        assert error.path == str(path)
        assert why in error.why


def bomb(root: Path) -> None:
    """Read a PNG whose rows inflate to a thousand times their size, within the picture that it claims."""
    assert "claim" in reading.refusal(AgibotWorld(), root).why


def test_a_png_bomb_costs_no_memory(root: Path, peak_memory: Callable[..., int]) -> None:
    path = root / f"observations/{PLACE}/depth/head_depth_000000.png"
    path.write_bytes(png(np.zeros((2000, 2000), np.uint16), claims=(60_000, 60_000)))
    assert peak_memory(bomb, root) < 100 << 20


@pytest.mark.parametrize("name", ["videos/head_color.mp4", "depth/head_depth_000002.png"])
def test_links_out_of_the_data_are_refused(root: Path, tmp_path: Path, name: str) -> None:
    path, secret = root / f"observations/{PLACE}" / name, tmp_path / "secret"
    shutil.move(path, secret)
    path.symlink_to(secret)
    assert "outside of the recording" in reading.refusal(AgibotWorld(), root).why


@pytest.mark.parametrize("keep", [0, 100, -200])
def test_a_video_that_was_cut_off_is_refused(root: Path, keep: int) -> None:
    path = root / f"observations/{PLACE}/videos/head_color.mp4"
    path.write_bytes(path.read_bytes()[:keep])
    assert reading.refusal(AgibotWorld(), root).path == str(path)


def test_other_files_are_left_out_and_told(root: Path) -> None:
    folder = root / f"observations/{PLACE}"
    (folder / "videos" / "notes.txt").write_text("x")
    (folder / "depth" / "x\x07.png").write_text("x")
    (folder / "depth" / os.fsdecode(b"\xff.png")).write_text("x")
    dropped = {fate.field for fate in read(root).provenance.ledger if fate.fate == "dropped"}
    assert f"observations/{PLACE}/videos/notes.txt" in dropped


# A recording


def test_the_sample_is_what_h5py_pyav_and_pillow_read(shared_data: Path) -> None:
    root = shared_data / "agibot_world" / "beta_sample"
    episodes = list(AgibotWorld().episodes(root))
    assert [episode.provenance.selector for episode in episodes] == ["327/648642", "327/648649"]
    for episode, steps in zip(episodes, (60, 50), strict=True):
        assert problems_of(episode) == []
        assert [len(event.text) > 10 for event in episode.events] == [True, True]
        place = episode.provenance.selector
        compared = 0
        with h5py.File(root / "proprio_stats" / place / "proprio_stats.h5") as file:
            for fate in episode.provenance.ledger:
                stream = episode.streams.get(fate.to[0]) if fate.to else None
                if fate.field in file and stream is not None:
                    np.testing.assert_array_equal(stream.values(), file[fate.field][()], err_msg=fate.field)
                    compared += 1
        assert compared >= 18
        files = sorted((root / "observations" / place / "depth").glob("*.png"))
        wanted = np.stack([np.asarray(Image.open(file)) for file in files])
        np.testing.assert_array_equal(episode.streams["observation.depth.head"].values(), wanted)
        for video in sorted((root / "observations" / place / "videos").glob("hand*.mp4")):
            with av.open(str(video)) as container:
                frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
            name = f"observation.images.{video.stem.removesuffix('_color')}"
            np.testing.assert_array_equal(episode.streams[name].values(), frames)
            assert (episode.streams[name].length, episode.streams[name].spec.clock) == (steps, "steps")
