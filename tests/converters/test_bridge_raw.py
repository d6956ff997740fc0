"""BridgeData V2 raw: what its recorder meant, and what its published folders do."""

import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from teleopen.converters.bridge_raw import BridgeRaw
from teleopen.schemas import ActionContract, Episode, FormatError

from tests.samples import bridge_raw


@pytest.fixture
def dated(tmp_path: Path) -> Path:
    """Write one trajectory of a recording of 2022."""
    bridge_raw.write_trajectory(
        tmp_path / bridge_raw.DATE / "raw" / "traj_group0" / "traj0", 1, bridge_raw.TEXTS[0]
    )
    return tmp_path / bridge_raw.DATE


def only(path: Path, **options: Any) -> Episode:
    """Return the episode, read in this process: tests/converters/test_conformance.py reads confined."""
    (episode,) = BridgeRaw(**options).unconfined(path)
    return episode


def contract(episode: Episode) -> ActionContract:
    found = episode.streams["action"].spec.contract
    assert found is not None
    return found


def trajectory(dated: Path) -> Path:
    return dated / "raw" / "traj_group0" / "traj0"


def change(dated: Path, name: str, **changes: Any) -> None:
    path = trajectory(dated) / name
    held = pickle.loads(path.read_bytes())
    path.write_bytes(pickle.dumps({k: v for k, v in {**held, **changes}.items() if v is not None}))


@pytest.mark.parametrize(("date", "offset"), [("2021-07-22_23-59-59", 1), ("2021-07-23_00-00-00", 0)])
def test_observations_before_july_23_of_2021_lag_by_a_step(dated: Path, date: str, offset: int) -> None:
    moved = dated.rename(dated.with_name(date))
    assert contract(only(moved)).offset_steps == offset
    assert ("lag by one step" in contract(only(moved)).evidence) == bool(offset)


def test_without_a_date_the_lag_is_not_known(dated: Path, tmp_path: Path) -> None:
    loose = shutil.copytree(trajectory(dated), tmp_path / "loose")
    assert contract(only(loose)).offset_steps is None


def test_actions_move_the_target_and_set_the_gripper(dated: Path) -> None:
    position, turn, gripper = contract(only(dated)).parts
    assert (position.space, position.mode, position.frame) == ("ee_position", "delta", "base")
    assert (turn.space, turn.mode, turn.rotation) == ("ee_orientation", "delta", "euler_xyz")
    assert (gripper.mode, gripper.gripper_closed, gripper.gripper_open) == ("absolute", 0.0, 1.0)


@pytest.mark.parametrize(("axes", "parts"), [(4, 2), (5, 3), (7, 3), (6, 0)])
def test_action_modes_of_fewer_axes_are_known_and_others_are_not(dated: Path, axes: int, parts: int) -> None:
    actions = [np.zeros(axes)] * (bridge_raw.STEPS - 1)
    trajectory(dated).joinpath("policy_out.pkl").write_bytes(pickle.dumps(actions))
    episode = only(dated)
    assert len(contract(episode).parts) == parts
    assert (episode.streams["action"].spec.unit == ("unknown",)) == (parts == 0)


def test_confidence_is_no_instruction(dated: Path) -> None:
    episode = only(dated)
    assert episode.instructions == ("put the spoon in the pot", "move the spoon")
    assert episode.extra["bridge"]["lang.txt: confidence"] == ["confidence: 0.9"]


def test_a_trajectory_is_the_same_episode_however_it_is_reached(dated: Path) -> None:
    (dated / "collection_metadata.json").write_text('{"robot": "widowx"}')
    found: list[Episode] = []
    for path in (dated, trajectory(dated), dated.parent, trajectory(dated).parent):
        found += BridgeRaw().unconfined(path)
    assert [episode.embodiment for episode in found] == ["widowx"] * 4
    assert len({episode.id for episode in found}) == 1


def test_trajectories_come_in_the_order_of_their_numbers(dated: Path) -> None:
    for number in (10, 2):
        shutil.copytree(trajectory(dated), trajectory(dated).with_name(f"traj{number}"))
    found = [e.provenance.sources[0].uri.split("/")[2] for e in BridgeRaw().unconfined(dated)]
    assert found == ["traj0", "traj2", "traj10"]


def test_folders_of_another_layout_are_left_alone(dated: Path) -> None:
    other = dated.with_name("2022-03-04_lmdb")
    shutil.copytree(dated, other)
    assert len(list(BridgeRaw().unconfined(dated.parent))) == 1
    assert not BridgeRaw().probe(other)
    with pytest.raises(FormatError, match="lmdb layout"):
        only(other)


def test_without_stamps_the_rate_must_be_said(dated: Path) -> None:
    change(dated, "obs_dict.pkl", time_stamp=None)
    with pytest.raises(FormatError, match="rate_hz"):
        only(dated)
    clock = only(dated, rate_hz=5.0).clocks["steps"]
    assert (clock.kind, clock.declared_hz) == ("nominal", 5.0)


def test_what_has_not_one_row_per_step_is_told_or_dropped(dated: Path) -> None:
    change(dated, "obs_dict.pkl", camera_info=["top", {"id": 3}], blob=b"raw", odd=np.arange(3.0))
    episode = only(dated)
    assert episode.extra["bridge"]["obs_dict.pkl: camera_info"] == ["top", {"id": 3}]
    assert episode.extra["bridge"]["obs_dict.pkl: odd"] == [0.0, 1.0, 2.0]
    fates = {fate.field: fate for fate in episode.provenance.ledger}
    assert fates["obs_dict.pkl: blob"].fate == "dropped"


def test_policies_that_differ_from_step_to_step_are_told(dated: Path) -> None:
    steps = [{"actions": np.zeros(7), "policy_type": f"p{i % 2}"} for i in range(bridge_raw.STEPS - 1)]
    trajectory(dated).joinpath("policy_out.pkl").write_bytes(pickle.dumps(steps))
    assert only(dated).extra["bridge"]["policy_out.pkl: policy_type"] == ["p0", "p1", "p0", "p1", "p0"]


def test_one_action_too_many_is_told(dated: Path) -> None:
    trajectory(dated).joinpath("policy_out.pkl").write_bytes(pickle.dumps([np.zeros(7)] * bridge_raw.STEPS))
    with pytest.raises(FormatError, match="6 actions for 6 observations"):
        only(dated)


def test_a_picture_of_another_size_is_told_when_it_is_read(dated: Path) -> None:
    picture = trajectory(dated) / "images1" / "im_4.jpg"
    Image.new("RGB", (20, 10)).save(picture)
    stream = only(dated).streams["observation.images.1"]
    assert len(stream.values(0, 4)) == 4
    with pytest.raises(FormatError, match="20×10") as caught:
        stream.values()
    assert Path(caught.value.path) == picture


def test_a_link_out_of_the_recording_is_refused(dated: Path, tmp_path: Path) -> None:
    picture = trajectory(dated) / "images0" / "im_1.jpg"
    outside = tmp_path / "elsewhere.jpg"
    picture.rename(outside)
    picture.symlink_to(outside)
    with pytest.raises(FormatError):
        only(dated)


def test_the_samples_are_what_pickle_and_pillow_read(shared_data: Path) -> None:
    root = shared_data / "bridge_raw" / "bridgedata_raw"
    episodes = list(BridgeRaw().episodes(root))
    assert [len(e.streams["action"].values()) for e in episodes] == [9, 21, 21]
    assert [contract(e).offset_steps for e in episodes] == [1, 0, 0]
    assert [e.instructions for e in episodes] == [
        (),
        ("lift the red cube off the table",),
        ("pick up the cube", "grab the block"),
    ]
    for episode in episodes:
        folder = (root / episode.provenance.sources[0].uri).parent
        held = pickle.loads(folder.joinpath("obs_dict.pkl").read_bytes())
        for key, stream in bridge_raw.STREAMS.items():
            np.testing.assert_array_equal(episode.streams[stream].values(), held[key], err_msg=key)
        actions = [step["actions"] for step in pickle.loads(folder.joinpath("policy_out.pkl").read_bytes())]
        np.testing.assert_array_equal(episode.streams["action"].values(), actions)
        for camera in folder.glob("images*"):
            files = sorted(camera.iterdir(), key=lambda file: int(file.stem[3:]))
            pictures = np.stack([np.asarray(Image.open(file)) for file in files])
            stream = f"observation.images.{camera.name[6:]}"
            np.testing.assert_array_equal(episode.streams[stream].values(), pictures)
