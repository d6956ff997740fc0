"""RoboTwin: both layouts, red that is red, commands that are targets, a frequency that is none, and harm."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image
from teleopen.converters._mp4 import Mp4Video
from teleopen.converters.robotwin_hdf5 import RobotwinHdf5
from teleopen.schemas import ActionPart, Episode, FormatError, problems_of

from tests.converters import reading
from tests.samples._films import film
from tests.samples.robotwin_hdf5 import FRAMES, STEPS, TASK, write_episode, write_pictures

HEAD = "vision/cam_head"


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write one episode of the new layout."""
    path = tmp_path_factory.mktemp("robotwin") / "episode_0000000.hdf5"
    write_episode(path, np.random.default_rng(3))
    return path


@pytest.fixture
def path(template: Path, tmp_path: Path) -> Path:
    """Give a test an episode of its own."""
    return Path(shutil.copy(template, tmp_path))


@pytest.fixture
def legacy(tmp_path: Path) -> Path:
    """Write one episode of the old layout, in its folders."""
    random = np.random.default_rng(4)
    root = tmp_path / "beat_block" / "demo_clean"
    for folder in ("data", "instructions", "video"):
        (root / folder).mkdir(parents=True)
    arm = random.normal(0, 1, (FRAMES, 6))
    grip = random.random(FRAMES)
    with h5py.File(root / "data" / "episode3.hdf5", "w") as file:
        for side in ("left", "right"):
            file[f"joint_action/{side}_arm"], file[f"joint_action/{side}_gripper"] = arm, grip
            file[f"endpose/{side}_endpose"] = random.normal(0, 1, (FRAMES, 7))
            file[f"endpose/{side}_gripper"] = grip
        file["joint_action/vector"] = np.hstack([arm, grip[:, None], arm, grip[:, None]])
        group = file.create_group("observation/head_camera")
        write_pictures(group, "rgb", film(random, FRAMES))
        group["intrinsic_cv"] = np.tile(np.eye(3), (FRAMES, 1, 1))
        group["cam2world_gl"] = random.normal(0, 1, (FRAMES, 4, 4))
        file["pointcloud"] = np.zeros((FRAMES, 0))
    (root / "instructions" / "episode3.json").write_text(
        json.dumps({"seen": [TASK, ""], "unseen": ["Hit it"]})
    )
    (root / "video" / "episode3.mp4").write_bytes(b"")
    return root


def read(path: Path, **options: Any) -> Episode:
    return reading.only(RobotwinHdf5(**options), path)


def change(path: Path, spoil: Callable[[h5py.File], None]) -> None:
    with h5py.File(path, "r+") as file:
        spoil(file)


def put(file: h5py.File, name: str, value: Any, **plan: Any) -> None:
    if name in file:
        del file[name]
    file.create_dataset(name, data=value, **plan)


# What it means


def test_red_is_red(path: Path) -> None:
    """The writer's encoder takes RGB for BGR: whoever decodes as usual sees blue apples."""
    red = np.zeros((STEPS, 48, 64, 3), np.uint8)
    red[..., 0] = 220

    def paint(file: h5py.File) -> None:
        del file[f"{HEAD}/colors"]
        write_pictures(file[HEAD], "colors", red)

    change(path, paint)
    stream = read(path).streams["observation.images.cam_head"]
    r, g, b = stream.values().reshape(-1, 3).mean(axis=0)
    assert (r > 200, g < 20, b < 20) == (True, True, True)
    assert stream.spec.attributes["stored_order"] == "bgr"
    _, _, blue = (
        read(path, jpeg_order="standard").streams["observation.images.cam_head"].values().reshape(-1, 3)[0]
    )
    assert blue > 200


def test_an_action_is_the_state_of_the_next_row_and_says_so(path: Path) -> None:
    episode = read(path)
    state, action = (episode.streams[f"{n}.left_arm"] for n in ("observation.target", "action"))
    np.testing.assert_array_equal(state.values()[1:], action.values()[:-1])
    contract = action.spec.contract
    assert contract is not None
    assert contract.offset_steps == 0
    assert "action is state of the next row" in contract.evidence
    assert contract.parts == (
        ActionPart(start=0, stop=6, space="joint_position", mode="absolute", frame=None, rotation="none"),
    )
    assert not any("somebody else" in text for text in episode.provenance.warnings)


def test_an_action_that_is_not_the_next_state_is_told(path: Path) -> None:
    change(path, lambda file: file["action/left_arm_joint_states"].__setitem__(4, 9.0))
    warnings = read(path).provenance.warnings
    assert any("action/left_arm_joint_states is not state of the next row" in text for text in warnings)


def test_joints_are_called_targets_since_nothing_measured_them(path: Path) -> None:
    episode = read(path)
    assert "observation.joint_position" not in episode.streams
    assert "not measured" in episode.streams["observation.target.left_arm"].spec.description
    pose = episode.streams["observation.left_ee_pose"].spec
    assert (pose.frame, pose.axes[3]) == ("simulation world", "qw")


def test_a_gripper_is_0_closed_and_1_open(path: Path) -> None:
    contract = read(path).streams["action.left_gripper"].spec.contract
    assert contract is not None
    assert (contract.parts[0].gripper_closed, contract.parts[0].gripper_open) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("origin", "frequency", "rate", "warned"),
    [("RoboTwin", 15, 250 / 15, True), ("RoboTwin", 25, 10, True), ("elsewhere", 15, 15, False)],
)
def test_a_frequency_of_robotwin_is_steps_of_4_ms(
    path: Path, origin: str, frequency: int, rate: float, *, warned: bool
) -> None:
    def say(file: h5py.File) -> None:
        put(file, "additional_info/frequency", np.int32(frequency))
        file.attrs["source_format"] = origin

    change(path, say)
    episode = read(path)
    assert episode.clocks["steps"].declared_hz == pytest.approx(rate)
    assert any("simulation steps" in text for text in episode.provenance.warnings) == warned
    assert episode.extra["values"]["additional_info/frequency"] == frequency
    assert read(path, rate_hz=3.0).clocks["steps"].declared_hz == 3.0


@pytest.mark.parametrize("value", [0, -15, np.nan, np.inf, [15, 15]])
def test_a_frequency_that_is_none_needs_the_option(path: Path, value: Any) -> None:
    change(path, lambda file: put(file, "additional_info/frequency", np.array(value, np.float64)))
    assert reading.refusal(RobotwinHdf5(), path).advice == "Say the rate: option rate_hz"
    assert read(path, rate_hz=15.0).clocks["steps"].source == "option rate_hz"


def test_calibration_is_an_attribute_while_it_does_not_change(path: Path) -> None:
    episode = read(path)
    fixed = episode.streams["observation.images.cam_head"].spec.attributes
    moving = episode.streams["observation.images.cam_left_wrist"].spec.attributes
    assert fixed["intrinsics"] == np.diag([300.0, 300, 1]).tolist()
    assert (len(fixed["extrinsics_matrix"]), "extrinsics_matrix" in moving) == (4, False)
    assert episode.streams["observation.camera.cam_left_wrist.extrinsics_matrix"].spec.shape == (4, 4)


def test_depth_is_millimetres_as_it_was_written(path: Path) -> None:
    spec = read(path).streams["observation.depth.cam_head"].spec
    assert (spec.kind, spec.dtype, spec.unit) == ("low_dim", "float64", ("mm",))
    change(path, lambda file: put(file, f"{HEAD}/depths", np.ones((STEPS, 4, 5), np.float32)))
    assert read(path).streams["observation.depth.cam_head"].spec.kind == "depth"


def test_arrays_of_another_length_keep_a_clock_of_their_own(path: Path) -> None:
    change(path, lambda file: put(file, "action/left_ee_poses", np.ones((STEPS - 3, 7))))
    episode = read(path)
    assert episode.streams["action.left_ee_pose"].spec.clock == "action_left_ee_poses"
    assert any(f"has {STEPS - 3} rows" in text for text in episode.provenance.warnings)


@pytest.mark.parametrize(
    ("text", "instructions"),
    [(json.dumps([TASK, "Hit"]), (TASK, "Hit")), ('[""]', ()), ('"Hit"', ("Hit",)), ("[1, null]", ())],
)
def test_instructions_are_a_list_in_json(path: Path, text: str, instructions: tuple[str, ...]) -> None:
    change(path, lambda file: put(file, "instructions", text, dtype=h5py.string_dtype()))
    assert read(path).instructions == instructions


# The old layout


def test_the_old_layout_stores_a_command_that_is_older_than_its_observation(legacy: Path) -> None:
    episode = read(legacy)
    contract = episode.streams["action"].spec.contract
    assert contract is not None
    assert contract.offset_steps == -1
    assert [(part.start, part.stop, part.space) for part in contract.parts] == [
        (0, 6, "joint_position"),
        (6, 7, "gripper"),
        (7, 13, "joint_position"),
        (13, 14, "gripper"),
    ]
    assert episode.streams["action"].spec.axes[6:8] == ("left_gripper", "right_arm_1")
    assert episode.clocks["steps"].declared_hz == pytest.approx(250 / 15)
    assert episode.extra["layout"] == "legacy"


def test_instructions_of_the_old_layout_lie_beside(legacy: Path) -> None:
    episode = read(legacy)
    assert episode.instructions == (TASK,)
    assert episode.extra["instructions"]["instructions/episode3.json.unseen"] == ["Hit it"]
    assert [source.role for source in episode.provenance.sources] == ["recording", "metadata"]
    assert read(legacy.parent).id == episode.id
    alone = read(legacy / "data" / "episode3.hdf5")
    assert (alone.id, alone.instructions) == (episode.id, ())
    assert any("which was not given" in text for text in alone.provenance.warnings)


def test_a_vector_of_other_parts_has_no_meaning(legacy: Path) -> None:
    change(
        legacy / "data" / "episode3.hdf5",
        lambda file: put(file, "joint_action/vector", np.zeros((FRAMES, 16))),
    )
    spec = read(legacy).streams["action"].spec
    assert spec.contract is not None
    assert (spec.contract.parts, spec.axes, spec.unit) == ((), (), ("unknown",))


@pytest.mark.parametrize("text", ["[" * 99_999, "{", '{"seen": 1e999}', "\xff"])
def test_instructions_that_harm_are_refused(legacy: Path, text: str) -> None:
    beside = legacy / "instructions" / "episode3.json"
    beside.write_text(text, encoding="latin-1")
    with pytest.raises(FormatError, match="is no JSON"):
        reading.read_all(RobotwinHdf5(), legacy)


def test_instructions_that_link_out_are_refused(legacy: Path, tmp_path: Path) -> None:
    shutil.move(legacy / "instructions" / "episode3.json", tmp_path / "secret")
    (legacy / "instructions" / "episode3.json").symlink_to(tmp_path / "secret")
    with pytest.raises(FormatError, match="outside of the recording"):
        reading.read_all(RobotwinHdf5(), legacy)


# Harm


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no end marker"),
        (b"\xff\xd8\xff", "no end marker"),
        (b"\xff\xd8\xff\xd9", "without a frame header"),
        (b"\x89PNG\r\n\x1a\n", "no end marker"),
    ],
)
def test_a_damaged_picture_is_refused(path: Path, data: bytes, why: str) -> None:
    change(path, lambda file: file[f"{HEAD}/colors"].__setitem__(7, data))
    error = reading.refusal(RobotwinHdf5(), path)
    assert (error.where, why in error.why) == (f"{HEAD}/colors[7]", True)


@pytest.mark.parametrize("row", [0, 9])
def test_a_picture_that_claims_to_be_huge_is_refused(path: Path, row: int) -> None:
    def lie(file: h5py.File) -> None:
        data = bytearray(file[f"{HEAD}/colors"][row])
        at = data.index(b"\xff\xc0")
        data[at + 5 : at + 9] = b"\xea\x60\xea\x60"
        file[f"{HEAD}/colors"][row] = bytes(data)

    change(path, lie)
    error = reading.refusal(RobotwinHdf5(), path)
    assert error.where == f"{HEAD}/colors[{row}]"


def test_a_shape_that_lies_is_told(path: Path) -> None:
    change(path, lambda file: put(file, f"{HEAD}/shape", np.array([9, 9, 3], np.int32)))
    assert any("though shape tells [9, 9, 3]" in text for text in read(path).provenance.warnings)


@pytest.mark.parametrize("rows", [0, 1])
def test_a_recording_of_no_steps_is_refused_and_one_step_is_one(path: Path, rows: int) -> None:
    change(path, lambda file: put(file, "state/left_arm_joint_states", np.zeros((rows, 6))))
    if rows:
        assert read(path).clocks["steps"].length == 1
    else:
        assert "no steps" in reading.refusal(RobotwinHdf5(), path).why


def test_instructions_nested_deeply_are_refused(path: Path) -> None:
    change(path, lambda file: put(file, "instructions", "[" * 90_000, dtype=h5py.string_dtype()))
    assert reading.refusal(RobotwinHdf5(), path).where == "instructions"


def test_a_folder_of_many_tasks_is_known_by_its_first_episode(path: Path) -> None:
    root = path.parent / "many"
    for task in range(250):
        (root / f"task_{task:03d}").mkdir(parents=True)
    for name in ("episode10.hdf5", "episode9.hdf5"):
        shutil.copy(path, root / "task_001" / name)
    assert RobotwinHdf5().probe(root)
    found = [episode.provenance.sources[0].uri for episode in RobotwinHdf5().episodes(root)]
    assert found == ["task_001/episode9.hdf5", "task_001/episode10.hdf5"]


def test_folders_of_others_are_not_claimed(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "episode_0.hdf5", "w") as file:
        file["action"], file["observations/qpos"] = np.zeros((3, 14)), np.zeros((3, 14))
    assert not RobotwinHdf5().probe(tmp_path)


# Recordings


def test_the_samples_are_what_h5py_and_pillow_read(shared_data: Path) -> None:
    folder = shared_data / "robotwin_hdf5"
    episodes = list(RobotwinHdf5().episodes(folder))
    assert len(episodes) == 2
    for episode in episodes:
        assert problems_of(episode) == []
        assert episode.instructions
        with h5py.File(folder / episode.provenance.sources[0].uri) as file:
            compared = 0
            for fate in episode.provenance.ledger:
                stream = episode.streams.get(fate.to[0]) if fate.to else None
                if fate.field not in file or stream is None or "_cv" in fate.field or "world" in fate.field:
                    continue
                stored = file[fate.field][()]
                if stream.spec.kind == "video":
                    stored = np.stack([np.asarray(Image.open(io.BytesIO(row)))[..., ::-1] for row in stored])
                np.testing.assert_array_equal(stream.values(), stored, err_msg=fate.field)
                compared += 1
            assert compared == 12


def test_the_samples_show_what_their_own_preview_shows(shared_data: Path) -> None:
    """The preview was encoded from RGB as everyone does: colours are right if they are those of it."""
    folder = shared_data / "robotwin_hdf5" / "beat_block_hammer" / "demo_clean"
    shown = next(iter(RobotwinHdf5().episodes(folder))).streams["observation.images.head_camera"].values()
    preview = Mp4Video(folder / "video" / "episode0.mp4")
    (wanted,) = preview.frames(0, len(preview), len(preview))
    assert wanted.shape == shown.shape
    pictures = shown.astype(int)
    coloured = np.abs(pictures[..., 0] - pictures[..., 2]) > 40
    assert coloured.sum() > 1_000
    right, wrong = (np.abs(wanted - p)[coloured].mean() for p in (pictures, pictures[..., ::-1]))
    assert right < 20
    assert wrong > 100
