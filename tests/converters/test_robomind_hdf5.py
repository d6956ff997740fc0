"""RoboMIND: which robot it is, whose red is whose, raw pictures amid JPEGs, arrays of any length, and harm.

No original can be had without an agreement: the files here are built from what its makers publish of them.
"""

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from teleopen.converters.robomind_hdf5 import RobomindHdf5
from teleopen.schemas import Episode, FormatError

from tests.converters import reading
from tests.samples._films import film, png
from tests.samples.aloha_hdf5 import jpeg
from tests.samples.robomind_hdf5 import (
    HEIGHT,
    RAW,
    STEPS,
    TASK,
    TEXT,
    WIDTH,
    common_jpeg,
    write_episode,
    write_rows,
    write_words,
)

TOP, DEEP = "observations/rgb_images/camera_top", "observations/depth_images/camera_top"

ROBOTS: dict[str, tuple[dict[str, int], str | None]] = {
    "franka": ({"puppet/joint_position": 8, "puppet/end_effector": 6, "master/joint_position": 8}, "rgb"),
    "ur": ({"puppet/joint_position": 7, "puppet/end_effector": 6, "master/joint_position": 7}, "rgb"),
    "franka_fr3_dual": ({"puppet/joint_position": 16, "puppet/end_effector": 12}, "rgb"),
    "agilex": (
        {"puppet/joint_position_left": 7, "puppet/end_effector_left": 7, "master/joint_effort_left": 7},
        "bgr",
    ),
    "tienkung_gello": ({"puppet/joint_position": 16, "master/joint_position": 16}, "bgr"),
    "tienkung_xsens": ({"puppet/joint_position": 14, "puppet/end_effector": 12}, "bgr"),
    "sim_franka": ({"franka/joint_position": 8, "franka/end_effector": 7, "franka/joint_effort": 8}, None),
    "sim_tienkung": ({"tiangong/left_arm_joint_pos_seq": 7, "tiangong/left_hand_joint_pos_seq": 12}, None),
}
"""Widths of the arrays, and how red and blue are stored, by the makers' list and any4lerobot."""


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write one episode of a Franka."""
    path = tmp_path_factory.mktemp("robomind") / "data" / "trajectory.hdf5"
    write_episode(path, np.random.default_rng(4))
    return path


@pytest.fixture
def path(template: Path, tmp_path: Path) -> Path:
    """Give a test an episode of its own."""
    return Path(shutil.copy(template, tmp_path))


def read(path: Path, **options: Any) -> Episode:
    return reading.only(RobomindHdf5(**options), path)


def change(path: Path, spoil: Callable[[h5py.File], None]) -> None:
    with h5py.File(path, "r+") as file:
        spoil(file)


def put(path: Path, name: str, rows: Any) -> None:
    """Put other rows in the place of some: of numbers, or of bytes."""

    def spoil(file: h5py.File) -> None:
        if name in file:
            del file[name]
        if isinstance(rows, list):
            write_rows(file, name, rows)
        else:
            file[name] = rows

    change(path, spoil)


def robot(path: Path, name: str, rows: list[bytes]) -> Path:
    """Write an episode of a robot."""
    with h5py.File(path, "w") as file:
        for array, width in ROBOTS[name][0].items():
            file[array] = np.random.default_rng(0).normal(0, 1, (len(rows), width))
        if name.startswith("sim"):
            file["sim_time_seq"] = np.arange(len(rows)) / 60
        write_rows(file, TOP, rows)
    return path


# Robots


@pytest.mark.parametrize("name", ROBOTS)
def test_a_robot_is_told_by_the_widths_of_its_arrays(tmp_path: Path, name: str) -> None:
    episode = read(
        robot(tmp_path / "trajectory.hdf5", name, [common_jpeg(film(np.random.default_rng(0), 1)[0])] * 3)
    )
    assert episode.embodiment == f"robomind {name}"
    for stream in episode.streams.values():
        if stream.spec.kind == "low_dim" and stream.spec.name != "extra.sim_time_seq":
            assert len(stream.spec.axes) == stream.spec.shape[0], stream.spec.name
            assert (stream.spec.contract is not None) == stream.spec.name.startswith("action")


def test_a_robot_of_other_widths_is_unknown(path: Path) -> None:
    put(path, "puppet/joint_position", np.zeros((STEPS, 11)))
    episode = read(path)
    assert episode.embodiment == "unknown"
    assert episode.streams["action.joint_position"].spec.unit == ("unknown",)
    assert any("no known robot" in text for text in episode.provenance.warnings)


def test_rotations_are_quaternions_or_angles_by_robot(tmp_path: Path) -> None:
    rows = [common_jpeg(film(np.random.default_rng(0), 1)[0])] * 3
    specs = {
        name: next(
            s.spec
            for s in read(robot(tmp_path / "trajectory.hdf5", name, rows)).streams.values()
            if "end_effector" in s.spec.name
        )
        for name in ("franka", "agilex", "sim_franka", "tienkung_xsens")
    }
    assert specs["franka"].axes[3:] == ("roll", "pitch", "yaw")
    assert specs["agilex"].axes[3:] == specs["sim_franka"].axes[3:] == ("qx", "qy", "qz", "qw")
    assert specs["tienkung_xsens"].axes[:2] == ("left_little", "left_ring")


def test_commands_are_the_leaders_and_grippers_have_no_known_range(path: Path) -> None:
    contract = read(path).streams["action.joint_position"].spec.contract
    assert contract is not None
    arm, gripper = contract.parts
    assert (arm.space, arm.stop, arm.mode) == ("joint_position", 7, "absolute")
    assert (gripper.space, gripper.gripper_closed, gripper.gripper_open) == ("gripper", None, None)
    assert contract.offset_steps is None


# Colours


def red(count: int) -> NDArray[np.uint8]:
    pictures = np.zeros((count, HEIGHT, WIDTH, 3), np.uint8)
    pictures[..., 0] = 220
    return pictures


@pytest.mark.parametrize(("name", "stored"), [(name, order) for name, (_, order) in ROBOTS.items() if order])
def test_red_is_red_whoever_encoded_it(tmp_path: Path, name: str, stored: str) -> None:
    """Franka's and UR's pictures were encoded as BGR, as OpenCV wants it, the others' as RGB."""
    picture = red(1)[0]
    encoded = common_jpeg(picture) if stored == "rgb" else jpeg(picture, 95)
    raw = (picture[..., ::-1] if stored == "rgb" else picture).tobytes()
    stream = read(robot(tmp_path / "trajectory.hdf5", name, [encoded, raw, encoded])).streams[
        "observation.images.camera_top"
    ]
    for shown in stream.values():
        r, g, b = shown.reshape(-1, 3).mean(axis=0)
        assert (r > 200, g < 20, b < 20) == (True, True, True)
    assert stream.spec.attributes["stored_order"] == stored
    assert "any4lerobot" in stream.spec.attributes["order_evidence"]


@pytest.mark.parametrize("name", ["sim_franka", "sim_tienkung"])
def test_of_a_simulations_colours_nobody_says(tmp_path: Path, name: str) -> None:
    path = robot(tmp_path / "trajectory.hdf5", name, [common_jpeg(red(1)[0])] * 2)
    episode = read(path)
    assert any("red may be blue" in text for text in episode.provenance.warnings)
    swapped = read(path, jpeg_order="opencv").streams["observation.images.camera_top"]
    assert swapped.values()[0, 0, 0, 2] > 200
    assert swapped.spec.attributes["order_evidence"] == "option jpeg_order=opencv"


@pytest.mark.parametrize(("height", "width"), [(480, 640), (720, 1280)])
def test_pictures_that_begin_raw_are_of_a_cameras_size(path: Path, height: int, width: int) -> None:
    pictures = np.random.default_rng(0).integers(0, 255, (2, height, width, 3)).astype(np.uint8)
    put(path, TOP, [picture[..., ::-1].tobytes() for picture in pictures])
    stream = read(path).streams["observation.images.camera_top"]
    np.testing.assert_array_equal(stream.values(), pictures)


def test_a_picture_that_is_not_compressed_stands_amid_the_others(template: Path) -> None:
    stream = read(template).streams["observation.images.camera_top"]
    with h5py.File(template) as file:
        rows = file[TOP][()]
    raw = np.frombuffer(rows[RAW], np.uint8).reshape(HEIGHT, WIDTH, 3)[..., ::-1]
    np.testing.assert_array_equal(stream.values(RAW, RAW + 1)[0], raw)
    wanted = np.asarray(Image.open(io.BytesIO(rows[RAW + 1].tobytes())))
    np.testing.assert_array_equal(stream.values(RAW + 1, RAW + 2)[0], wanted)


# Depth


def test_the_unit_of_depth_is_unknown_and_the_makers_rule_stands_beside_it(path: Path) -> None:
    episode = read(path)
    spec = episode.streams["observation.depth.camera_top"].spec
    assert (spec.unit, spec.kind, spec.dtype) == (("unknown",), "depth", "uint16")
    first = int(episode.streams["observation.depth.camera_top"].values(0, 1).max())
    assert (spec.attributes["first_maximum"], first > 100) == (first, True)
    assert "maximum is over 100" in spec.attributes["unit_evidence"]
    assert any("unit of the depth" in text for text in episode.provenance.warnings)


def test_depth_of_8_bits_is_widened(path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 9, (3, 5, 7)).astype(np.uint8)
    put(path, DEEP, [png(values[0]), values[1].tobytes(), png(values[2])])
    stream = read(path).streams["observation.depth.camera_top"]
    np.testing.assert_array_equal(stream.values(), values.astype(np.uint16))
    assert stream.spec.attributes["stored_bits"] == 8


@pytest.mark.parametrize("name", [TOP, DEEP])
@pytest.mark.parametrize("row", [b"", b"what is this", b"\0" * 999])
def test_rows_that_are_no_pictures_are_left_out_and_told(path: Path, name: str, row: bytes) -> None:
    put(path, name, [row] * STEPS)
    episode = read(path)
    fates = {fate.field: fate for fate in episode.provenance.ledger}
    assert fates[name].fate == "dropped"
    assert any("'camera_top' was left out" in text for text in episode.provenance.warnings)


# Clocks


def test_arrays_of_a_simulation_keep_clocks_of_their_own(tmp_path: Path) -> None:
    """The makers list 1436, 1437 and 1438 rows of joints, 1363 of depth and 1140 of pictures in one file."""
    path = tmp_path / "trajectory.hdf5"
    picture = common_jpeg(film(np.random.default_rng(0), 1)[0])
    with h5py.File(path, "w") as file:
        for name, rows in (
            ("left_arm_joint_pos_seq", 36),
            ("left_arm_joint_vel_seq", 37),
            ("right_arm_x", 38),
        ):
            file[f"tiangong/{name}"] = np.random.default_rng(rows).normal(0, 1, (rows, 7))
        write_rows(file, TOP, [picture] * 20)
        write_rows(file, DEEP, [png(np.full((4, 4), 7, np.uint16))] * 23)
        file["sim_time_seq"] = np.arange(20) / 30 + 5
    episode = read(path)
    clocks = {name: (s.spec.clock, s.length) for name, s in episode.streams.items()}
    assert clocks["observation.left_arm_joint_pos_seq"] == ("steps", 36)
    assert clocks["observation.left_arm_joint_vel_seq"] == ("tiangong_left_arm_joint_vel_seq", 37)
    assert clocks["observation.right_arm_x"] == ("tiangong_right_arm_x", 38)
    assert clocks["observation.images.camera_top"] == ("simulation", 20)
    assert clocks["observation.depth.camera_top"] == ("observations_depth_images_camera_top", 23)
    assert (episode.clocks["simulation"].kind, episode.clocks["simulation"].read()[3]) == (
        "recorded",
        100_000_000,
    )
    assert sum("clock of its own" in text for text in episode.provenance.warnings) == 3


def test_the_simulated_franka_has_four_states_for_a_picture(tmp_path: Path) -> None:
    """The makers list 720 states, 170 pictures, 176 of depth and 680 stamps in one file."""
    path = tmp_path / "trajectory.hdf5"
    picture = common_jpeg(film(np.random.default_rng(0), 1)[0])
    with h5py.File(path, "w") as file:
        file["franka/joint_position"] = np.zeros((72, 8))
        write_rows(file, TOP, [picture] * 17)
        file["sim_time_seq"] = np.arange(68) / 60
    episode = read(path)
    assert episode.clocks["steps"].declared_hz == pytest.approx(60)
    assert episode.clocks["observations_rgb_images_camera_top"].declared_hz == pytest.approx(15)
    assert (episode.clocks["simulation"].length, episode.clocks["steps"].kind) == (68, "nominal")
    change(path, lambda file: file.__delitem__("sim_time_seq"))
    assert reading.refusal(RobomindHdf5(), path).advice == "Say the rate: option rate_hz"
    assert read(path, rate_hz=40.0).clocks["observations_rgb_images_camera_top"].declared_hz == 10.0


@pytest.mark.parametrize(
    ("stamps", "why"),
    [
        (np.full(STEPS, np.nan), "finite seconds"),
        (np.array([0.0, np.inf]), "finite seconds"),
        (np.arange(STEPS), "finite seconds"),
        (np.zeros((STEPS, 2)), "finite seconds"),
        (np.arange(STEPS, 0, -1.0), "backwards"),
        (np.array([0.0, 1e300]), "no time in seconds"),
    ],
)
def test_times_that_lie_are_refused(path: Path, stamps: Any, why: str) -> None:
    put(path, "sim_time_seq", stamps)
    error = reading.refusal(RobomindHdf5(), path)
    assert (error.where, why in error.why) == ("sim_time_seq", True)


def test_the_rate_is_the_makers_unless_told(path: Path) -> None:
    clock = read(path).clocks["steps"]
    assert (clock.kind, clock.declared_hz) == ("nominal", 30.0)
    assert read(path, rate_hz=12.5).clocks["steps"].source == "option rate_hz"


# Words


@pytest.fixture
def tree(template: Path, tmp_path: Path) -> Path:
    """Lay an episode into the folders of the data set."""
    place = tmp_path / "all" / f"benchmark1/h5_franka_1rgb/{TASK}/success_episodes/train/1014_144601/data"
    place.mkdir(parents=True)
    shutil.copy(template, place)
    write_words(tmp_path / "all")
    return tmp_path / "all"


def test_words_come_from_the_files_above(tree: Path) -> None:
    episode = read(tree)
    assert (episode.instructions, episode.outcome) == ((TEXT,), "success")
    assert episode.extra["annotations"].popitem()[1]["task_summary"] == "Bread goes into a basket."
    assert [source.role for source in episode.provenance.sources] == ["recording", "metadata", "metadata"]
    assert episode.extra["place"]["split"] == "train"


def test_files_above_what_was_given_are_not_looked_at(tree: Path) -> None:
    whole = read(tree)
    part = read(tree / "benchmark1" / "h5_franka_1rgb")
    assert (part.id, part.instructions, part.outcome) == (whole.id, (), "success")
    assert any("not given" in text for text in read(next(tree.rglob("data"))).provenance.warnings)


def test_a_task_of_two_wordings_has_both(tree: Path) -> None:
    with (tree / "RoboMIND_v1_2_instr.csv").open("a") as file:
        csv.writer(file).writerow([9, TASK, "Bread, please"])
    assert read(tree).instructions == (TEXT, "Bread, please")


def test_a_task_without_wording_is_told(tree: Path) -> None:
    (tree / "RoboMIND_v1_2_instr.csv").write_text(",task,instruction\n0,other,x\n")
    episode = read(tree)
    assert episode.instructions == ()
    assert any("tells no instruction" in text for text in episode.provenance.warnings)


@pytest.mark.parametrize("name", ["RoboMIND_v1_2_instr.csv", "h5_franka_1rgb.json"])
def test_words_that_harm_are_refused(tree: Path, tmp_path: Path, name: str) -> None:
    path = next(tree.rglob(name))
    path.write_bytes(b"[" * 70_000 if name.endswith("json") else b'task,instruction\n"a\xff')
    with pytest.raises(FormatError, match="is no"):
        reading.read_all(RobomindHdf5(), tree)
    path.unlink()
    (tmp_path / "secret").write_text("task,instruction")
    path.symlink_to(tmp_path / "secret")
    with pytest.raises(FormatError, match="outside of the recording"):
        reading.read_all(RobomindHdf5(), tree)


@pytest.mark.parametrize(
    "entry", [[], [1, None, {"id": 5}, {"id": "a"}], [{"id": "/a/b", "response": {"x": 1}}]]
)
def test_annotations_of_others_are_passed_over(tree: Path, entry: Any) -> None:
    next(tree.rglob("h5_franka_1rgb.json")).write_text(json.dumps(entry))
    assert "annotations" not in read(tree).extra


# Harm


@pytest.mark.parametrize(
    ("name", "row", "why"),
    [
        (TOP, b"", "neither a JPEG nor a raw picture"),
        (TOP, b"\0" * (HEIGHT * WIDTH * 3 - 1), "neither a JPEG nor a raw picture"),
        (TOP, b"\xff\xd8\xff\xe0", "no end marker"),
        (DEEP, b"lost", "neither a PNG nor a raw picture"),
        (DEEP, png(np.zeros((12, 16), np.uint16))[:-30], "cannot be decoded"),
        (DEEP, png(np.zeros((12, 16), np.uint16), claims=(60_000, 60_000)), "claim a picture"),
        (DEEP, png(np.zeros((2, 2), np.uint16)), "the first of this camera"),
    ],
)
def test_rows_that_harm_are_refused(path: Path, name: str, row: bytes, why: str) -> None:
    change(path, lambda file: file[name].__setitem__(9, np.frombuffer(row, np.uint8)))
    error = reading.refusal(RobomindHdf5(), path)
    assert (error.where, why in error.why) == (f"{name}[9]", True)


def test_a_first_picture_that_harms_is_refused(path: Path) -> None:
    put(path, DEEP, [png(np.zeros((12, 16), np.uint16), claims=(60_000, 60_000))] * STEPS)
    assert reading.refusal(RobomindHdf5(), path).where == f"{DEEP}[0]"


def test_a_file_without_joints_is_refused(path: Path) -> None:
    change(path, lambda file: file.__delitem__("puppet/joint_position"))
    assert "no steps" in reading.refusal(RobomindHdf5(), path).why


@pytest.mark.parametrize("bits", [(4, "heap"), (0, "size")])
def test_references_that_lie_are_refused(path: Path, bits: tuple[int, str]) -> None:
    with h5py.File(path) as file:
        at = file[TOP].id.get_offset() + 16 * 9 + bits[0]
    data = bytearray(path.read_bytes())
    data[at + 2] ^= 0x7F
    path.write_bytes(data)
    assert reading.refusal(RobomindHdf5(), path).where == f"{TOP}[9]"


def test_files_of_that_name_of_others_are_not_claimed(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "trajectory.hdf5", "w") as file:
        file["action"] = np.zeros(3)
    assert not RobomindHdf5().probe(tmp_path)
