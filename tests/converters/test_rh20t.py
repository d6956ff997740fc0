"""RH20T: many clocks, seven robots, depth in two halves."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from teleopen.converters._rh20t import CONFIGURATIONS, stamps_of, table_of
from teleopen.converters.rh20t import Rh20t
from teleopen.schemas import Episode, FormatError

from tests.samples import rh20t

HERE = Path("some.npy")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rh20t") / rh20t.SCENE
    rh20t.write_scene(folder)
    return folder


@pytest.fixture
def scene(written: Path, tmp_path: Path) -> Path:
    """Give a scene that may be changed, with its calibration."""
    shutil.copytree(written.parent / "calib", tmp_path / "calib")
    return shutil.copytree(written, tmp_path / written.name)


def only(path: Path) -> Episode:
    """Return the episode, read in this process: tests/converters/test_conformance.py reads confined."""
    (episode,) = Rh20t().unconfined(path)
    return episode


def test_every_sensor_keeps_its_own_clock_from_one_start(scene: Path) -> None:
    episode = only(scene)
    assert len({stream.spec.clock for stream in episode.streams.values()}) == len(episode.clocks) == 9
    assert min(int(clock.read()[0]) for clock in episode.clocks.values()) == 0
    assert episode.extra["rh20t"]["start_ms"] == rh20t.START


def test_rows_tell_beside_which_cameras_pictures_they_lay(scene: Path) -> None:
    stream = only(scene).streams["extra.joint.camera"]
    assert stream.spec.attributes["serials"] == list(rh20t.SERIALS)
    np.testing.assert_array_equal(stream.values(), [0, 1, 0, 1, 0])


@pytest.mark.parametrize("number", CONFIGURATIONS)
def test_the_robot_is_known_by_its_configuration(number: int, scene: Path) -> None:
    robot = CONFIGURATIONS[number]
    moved = scene.rename(scene.with_name(f"task_0001_user_0002_scene_0003_cfg_{number:04d}"))
    episode = only(moved)
    assert episode.embodiment == f"{robot.robot}, {robot.gripper}"
    assert episode.streams["observation.joint_position"].spec.axes == robot.joints


def test_scenes_of_a_person_have_no_robot(scene: Path) -> None:
    shutil.rmtree(scene / "transformed")
    episode = only(scene.rename(scene.with_name(f"{scene.name}_human")))
    assert episode.embodiment == "human"
    assert "observation.images.f0000001" in episode.streams


def test_an_unknown_robot_keeps_its_joints_whole(scene: Path) -> None:
    episode = only(scene.rename(scene.with_name("task_0001_user_0002_scene_0003_cfg_0099")))
    assert episode.embodiment == "unknown"
    assert episode.streams["extra.joint.value"].spec.shape == (8,)
    assert episode.streams["observation.raw.force_torque_tcp_joint_timestamp"].spec.shape == (18,)


def test_calibration_stands_with_the_camera_and_its_size(scene: Path) -> None:
    episode = only(scene)
    told = episode.streams["observation.images.f0000001"].spec.attributes
    assert told["intrinsics"][0][0] == 900.0
    assert np.shape(told["extrinsics"]) == (1, 4, 4)
    assert told["calibrated_at"] == [720, 1280]
    assert any("intrinsics are of 1280×720" in warning for warning in episode.provenance.warnings)


@pytest.mark.parametrize("calib", [-1, "../../etc", None])
def test_without_calibration_a_scene_is_read_all_the_same(scene: Path, calib: Any) -> None:
    (scene / "metadata.json").write_text(json.dumps({"calib": calib}))
    episode = only(scene)
    assert any("not at hand" in warning for warning in episode.provenance.warnings)
    assert "intrinsics" not in episode.streams["observation.images.f0000001"].spec.attributes


def test_pictures_without_as_many_stamps_keep_the_videos_time(scene: Path) -> None:
    held = {"color": rh20t.COLOR[:3].tolist(), "depth": rh20t.DEPTH.tolist()}
    rh20t.save(scene / "cam_f0000001" / "timestamps.npy", held)
    episode = only(scene)
    np.testing.assert_array_equal(episode.clocks["color_f0000001"].read(), np.arange(5) * 100_000_000)
    assert any("3 time stamps for 5 pictures" in warning for warning in episode.provenance.warnings)


def test_a_folder_of_scenes_is_read_in_order(scene: Path) -> None:
    shutil.copytree(scene, scene.with_name("task_0001_user_0002_scene_0010_cfg_0003"))
    assert Rh20t().probe(scene.parent)
    found = [e.provenance.sources[0].uri.split("/")[0] for e in Rh20t().unconfined(scene.parent)]
    assert found == [rh20t.SCENE, "task_0001_user_0002_scene_0010_cfg_0003"]


@pytest.mark.parametrize(
    "held",
    [
        [1, 2],
        {},
        {"a": 3},
        {"a": [{"tcp": np.zeros(7)}]},
        {"a": [{"timestamp": 1}]},
        {"a": [{"timestamp": -1, "tcp": np.zeros(7)}]},
        {"a": [{"timestamp": 1 << 60, "tcp": np.zeros(7)}]},
        {"a": [{"timestamp": 1.5, "tcp": np.zeros(7)}]},
        {"a": [{"timestamp": 1, "tcp": "text"}]},
        {"a": [{"timestamp": 1, "tcp": np.zeros(7)}, {"timestamp": 2}]},
        {"a": {1: np.zeros(7), 2: np.zeros(6)}},
        {"a": {"one": np.zeros(7)}},
    ],
)
def test_tables_of_another_make_are_refused(held: Any) -> None:
    with pytest.raises(FormatError):
        table_of(held, path=HERE, value="value")


@pytest.mark.parametrize("stamps", [None, [], ["a"], [[1]], [1, [2]], [1.5], [-1], [1 << 50], "12"])
def test_stamps_that_are_none_are_refused(stamps: Any) -> None:
    with pytest.raises(FormatError, match="milliseconds"):
        stamps_of(stamps, HERE, "color")
