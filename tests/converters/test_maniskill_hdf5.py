"""ManiSkill: one observation more than actions, control modes, and a JSON file beside the recording."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from teleopen.converters import converter_for
from teleopen.converters.maniskill_hdf5 import ManiSkillHdf5
from teleopen.schemas import Episode, FormatError, problems_of

from tests.samples._same import assert_all_fields_are_told, assert_same_as_h5py
from tests.samples.maniskill_hdf5 import record, write


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    return write(tmp_path).path


def first(path: Path, **options: Any) -> Episode:
    episode = next(iter(ManiSkillHdf5(**options).episodes(path)))
    assert problems_of(episode) == []
    return episode


def edit(path: Path, change: Callable[[h5py.File], None]) -> Path:
    with h5py.File(path, "r+") as file:
        change(file)
    return path


def say(path: Path, document: Any) -> Path:
    text = document if isinstance(document, str) else json.dumps(document)
    path.with_suffix(".json").write_text(text)
    return path


def controlled(mode: str, **arguments: Any) -> dict[str, Any]:
    document = record()
    document["env_info"]["env_kwargs"].update(arguments)
    for episode in document["episodes"]:
        episode["control_mode"] = mode
    return document


def test_observations_have_one_row_more_than_actions_and_a_clock_for_it(sample: Path) -> None:
    episode = first(sample)
    assert episode.streams["observation.joint_position"].spec.clock == "observations"
    assert episode.streams["extra.env_states.actors.cube"].spec.clock == "observations"
    assert episode.clocks["observations"].length == episode.clocks["steps"].length + 1
    assert np.array_equal(episode.clocks["observations"].read()[:-1], episode.clocks["steps"].read())


def test_the_rate_is_the_files_or_has_to_be_said(sample: Path) -> None:
    assert first(sample).clocks["steps"].declared_hz == 25
    document = record()
    del document["env_info"]["env_kwargs"]["sim_config"]
    with pytest.raises(FormatError, match="option rate_hz"):
        first(say(sample, document))
    assert first(sample, rate_hz=20.0).clocks["steps"].source == "option rate_hz"


@pytest.mark.parametrize(
    ("mode", "width", "spaces", "how", "frame"),
    [
        ("pd_joint_pos", 8, ["joint_position", "gripper"], "absolute", None),
        ("pd_joint_delta_pos", 8, ["joint_position", "gripper"], "delta", None),
        ("pd_joint_target_delta_pos", 8, ["joint_position", "gripper"], "unknown", None),
        ("pd_ee_delta_pos", 4, ["ee_position", "gripper"], "delta", "base"),
        ("pd_ee_delta_pose", 7, ["ee_position", "ee_orientation", "gripper"], "delta", "base"),
        ("pd_joint_vel", 8, ["joint_velocity", "gripper"], "absolute", None),
        ("pd_ee_delta_pose", 9, [], "", None),
        ("of_another_kind", 7, [], "", None),
    ],
)
def test_a_control_mode_tells_what_pandas_actions_mean(
    sample: Path, mode: str, width: int, spaces: list[str], how: str, frame: str | None
) -> None:
    def widen(file: h5py.File) -> None:
        del file["traj_2/actions"]
        file["traj_2/actions"] = np.zeros((8, width), np.float32)

    spec = first(edit(say(sample, controlled(mode)), widen)).streams["action"].spec
    assert spec.contract is not None
    parts = spec.contract.parts
    assert [part.space for part in parts] == spaces
    assert spec.contract.offset_steps == 0
    assert spec.attributes["control_mode"] == mode
    if parts:
        assert (parts[0].mode, parts[0].frame) == (how, frame)
        assert (parts[-1].gripper_closed, parts[-1].gripper_open) == (-1, 1)
        assert spec.unit[0] == ("rad" if mode == "pd_joint_pos" else "1")


def test_another_robots_actions_mean_nothing(sample: Path) -> None:
    spec = first(say(sample, controlled("pd_ee_delta_pose", robot_uids="xarm6"))).streams["action"].spec
    assert spec.contract is not None
    assert spec.contract.parts == ()


def test_rotations_of_older_files_are_unknown(sample: Path) -> None:
    def flatten(file: h5py.File) -> None:
        del file["traj_2/env_states"]
        file["traj_2/env_states"] = np.zeros((9, 70), np.float32)

    contract = first(edit(sample, flatten)).streams["action"].spec.contract
    assert contract is not None
    assert contract.parts[1].rotation == "unknown"


def test_depths_are_millimetres_without_sign_and_poses_begin_quaternions_with_w(sample: Path) -> None:
    streams = first(sample).streams
    depth = streams["observation.depth.base_camera"]
    assert (depth.spec.dtype, depth.spec.unit, len(depth.spec.shape)) == ("uint16", ("mm",), 2)
    pose = streams["observation.ee_pose"].spec
    assert pose.axes == ("x", "y", "z", "qw", "qx", "qy", "qz")
    assert pose.attributes["rotation"] == "quaternion_wxyz"


def test_success_is_the_jsons_word_unless_the_recording_contradicts_it(sample: Path) -> None:
    assert first(sample).outcome == "success"
    document = record()
    document["episodes"][0]["success"] = False
    contradicted = first(say(sample, document))
    assert contradicted.outcome == "unknown"
    assert any("nothing is believed" in warning for warning in contradicted.provenance.warnings)
    del document["episodes"][0]["success"]
    assert first(say(sample, document)).outcome == "success"


def test_several_robots_have_an_action_each(sample: Path) -> None:
    def split(file: h5py.File) -> None:
        del file["traj_2/actions"]
        for name in ("panda-0", "panda-1"):
            file[f"traj_2/actions/{name}"] = np.zeros((8, 8), np.float32)

    assert {"action.panda-0", "action.panda-1"} <= set(first(edit(sample, split)).streams)


def test_without_its_json_a_recording_is_read_and_warned_of(sample: Path) -> None:
    sample.with_suffix(".json").unlink()
    episode = first(sample, rate_hz=20.0)
    assert len(episode.provenance.sources) == 1
    assert any("there is no trajectory.rgbd.json" in warning for warning in episode.provenance.warnings)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, '{"env_info"', '"\\ud800"', "\x00"])
def test_a_json_that_is_none_is_refused(sample: Path, text: str) -> None:
    with pytest.raises(FormatError, match="JSON"):
        first(say(sample, text))


@pytest.mark.parametrize(
    "document", [[], {}, {"episodes": 3}, {"episodes": [{"episode_id": "0"}, 5]}, {"env_info": []}]
)
def test_a_json_of_another_make_tells_nothing(sample: Path, document: Any) -> None:
    episode = first(say(sample, document), rate_hz=20.0)
    assert any("no record of traj_2" in warning for warning in episode.provenance.warnings)


def test_a_json_in_another_folder_is_not_followed(sample: Path, tmp_path: Path) -> None:
    beside = sample.with_suffix(".json")
    inner = tmp_path / "inner"
    inner.mkdir()
    moved = sample.rename(inner / sample.name)
    (inner / beside.name).symlink_to(beside)
    with pytest.raises(FormatError, match="outside"):
        first(moved)


def test_a_wrong_number_of_steps_is_a_warning(sample: Path) -> None:
    document = record()
    document["episodes"][0]["elapsed_steps"] = -7
    assert any("elapsed_steps is -7" in w for w in first(say(sample, document)).provenance.warnings)


def test_long_arguments_are_kept_as_their_digest(sample: Path) -> None:
    document = record()
    document["source_desc"] = "x" * 200_000
    assert "trajectory.rgbd.json@source_desc" in first(say(sample, document)).extra["digests"]


def test_a_trajectory_that_holds_itself_is_refused(sample: Path) -> None:
    def loop(file: h5py.File) -> None:
        file["traj_2/obs/again"] = file["traj_2"]

    with pytest.raises(FormatError, match="holds itself"):
        first(edit(sample, loop))


@pytest.mark.parametrize(
    ("name", "streams"),
    [("PickCube-v1_state/trajectory.h5", 10), ("StackCube-v1_rgbd/20261121_181749.h5", 27)],
)
def test_real_files_come_out_as_h5py_reads_them(shared_data: Path, name: str, streams: int) -> None:
    path = shared_data / "maniskill_h5" / name
    assert converter_for(path).format.name == "maniskill-hdf5"
    for episode in ManiSkillHdf5(rate_hz=20.0).episodes(path):
        assert problems_of(episode) == []
        assert assert_same_as_h5py(episode, path) == streams
        assert_all_fields_are_told(episode, path, episode.provenance.selector)
        assert episode.outcome == "failure"
        assert not episode.provenance.warnings
