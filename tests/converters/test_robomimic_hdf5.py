"""robomimic and its kin: what wrote a file, what its rows pair, and what a stranger can put into it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from teleopen.converters import converter_for
from teleopen.converters.robomimic_hdf5 import RobomimicHdf5
from teleopen.schemas import Episode, FormatError, problems_of

from tests.samples._same import assert_all_fields_are_told, assert_same_as_h5py
from tests.samples.robomimic_hdf5 import ENV_ARGS, numbers, write, write_demo

Edit = Callable[[h5py.File], None]


@pytest.fixture
def edited(tmp_path: Path) -> Callable[..., Path]:
    """Write a file of one demonstration, changed by a function."""

    def make(edit: Edit | None = None, env_args: Any = ENV_ARGS) -> Path:
        path = tmp_path / "demo.hdf5"
        with h5py.File(path, "w") as file:
            data = file.create_group("data")
            write_demo(data, "demo_0", numbers(np.random.default_rng(1), 10))
            data.attrs["env_args"] = env_args if isinstance(env_args, str) else json.dumps(env_args)
            if edit:
                edit(file)
        return path

    return make


def only(path: Path, **options: Any) -> Episode:
    (episode,) = RobomimicHdf5(**options).episodes(path)
    assert problems_of(episode) == []
    return episode


def changed(**kwargs: Any) -> dict[str, Any]:
    return {**ENV_ARGS, "env_kwargs": {**ENV_ARGS["env_kwargs"], **kwargs}}


def controller(**config: Any) -> dict[str, Any]:
    return changed(controller_configs={**ENV_ARGS["env_kwargs"]["controller_configs"], **config})


def contract(episode: Episode, name: str = "action") -> Any:
    return episode.streams[name].spec.contract


def test_demonstrations_come_by_their_numbers_and_tell_their_lists(tmp_path: Path) -> None:
    episodes = list(RobomimicHdf5().episodes(write(tmp_path).path))
    assert [e.provenance.selector for e in episodes] == ["data/demo_2", "data/demo_10"]
    assert [e.extra["filter_keys"] for e in episodes] == [["valid"], ["train"]]


def test_every_field_of_a_demonstration_and_of_its_file_is_told(tmp_path: Path) -> None:
    path = write(tmp_path).path
    for episode in RobomimicHdf5().episodes(path):
        assert_all_fields_are_told(episode, path, episode.provenance.selector)
        assert episode.provenance.evidence == {"data@author": "A. Person"}


def test_an_osc_action_is_a_scaled_delta_in_the_world_and_a_gripper_from_open_to_closed(
    edited: Callable[..., Path],
) -> None:
    spec = only(edited()).streams["action"].spec
    assert spec.contract is not None
    position, rotation, gripper = spec.contract.parts
    assert (position.space, position.mode, position.frame) == ("ee_position", "delta", "world")
    assert (rotation.space, rotation.rotation) == ("ee_orientation", "axis_angle")
    assert (gripper.gripper_open, gripper.gripper_closed) == (-1, 1)
    assert spec.contract.offset_steps == 0
    assert spec.axes == ("x", "y", "z", "rx", "ry", "rz", "gripper")
    assert spec.attributes["scaling"][0]["output_max"][0] == 0.05


@pytest.mark.parametrize(
    ("config", "modes", "frame"),
    [
        ({"control_delta": False}, ["absolute"] * 3, "world"),
        ({"type": "JOINT_VELOCITY"}, [], None),
        ({"impedance_mode": "variable_kp"}, [], None),
    ],
)
def test_other_controllers_mean_what_their_configuration_says_or_nothing(
    edited: Callable[..., Path], config: dict[str, Any], modes: list[str], frame: str | None
) -> None:
    parts = contract(only(edited(env_args=controller(**config)))).parts
    assert [part.mode for part in parts] == modes
    assert not parts or parts[0].frame == frame


def test_a_composite_controller_says_its_frame_itself(edited: Callable[..., Path]) -> None:
    arm = {"type": "OSC_POSE", "input_type": "delta", "input_ref_frame": "base"}
    parts = contract(only(edited(env_args=changed(controller_configs={"body_parts": {"right": arm}})))).parts
    assert [part.frame for part in parts] == ["base", "base", None]
    both = {"right": arm, "left": arm}
    assert not contract(only(edited(env_args=changed(controller_configs={"body_parts": both})))).parts


def test_an_action_that_does_not_fit_its_controller_means_nothing(edited: Callable[..., Path]) -> None:
    def widen(file: h5py.File) -> None:
        del file["data/demo_0/actions"]
        file["data/demo_0/actions"] = np.zeros((10, 12))

    assert contract(only(edited(widen))).parts == ()


def test_absolute_actions_and_parts_of_actions_have_contracts_of_their_own(
    edited: Callable[..., Path],
) -> None:
    episode = only(edited())
    assert [part.mode for part in contract(episode, "action.absolute").parts] == ["absolute"] * 3
    assert contract(episode, "action.rel_pos").parts[0].mode == "delta"
    assert contract(episode, "action.gripper").parts[0].gripper_closed == 1


def test_quaternions_of_robosuite_end_with_w_and_pictures_are_upright(edited: Callable[..., Path]) -> None:
    streams = only(edited()).streams
    orientation = streams["observation.robot0.ee_orientation"].spec
    assert orientation.axes == ("x", "y", "z", "w")
    assert orientation.attributes["rotation"] == "quaternion_xyzw"
    assert streams["observation.images.agentview"].spec.attributes["orientation"] == "upright"
    assert streams["observation.depth.agentview"].spec.unit == ("m",)
    assert streams["extra.states"].spec.attributes["taken"] == "before the row's action"


def test_without_control_freq_the_rate_has_to_be_said(edited: Callable[..., Path]) -> None:
    path = edited(env_args=changed(control_freq=None))
    with pytest.raises(FormatError, match="option rate_hz"):
        only(path)
    clock = only(path, rate_hz=20.0).clocks["steps"]
    assert (clock.kind, clock.declared_hz, clock.source) == ("nominal", 20.0, "option rate_hz")


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 100_000, "{", "7", '"x"', '{"env_kwargs": [1], "type": "one"}']
)
def test_env_args_that_lie_tell_nothing_and_stop_nobody(edited: Callable[..., Path], text: str) -> None:
    episode = only(edited(env_args=text), rate_hz=20.0)
    assert contract(episode).parts == ()
    assert set(episode.streams) >= {"action", "observation.object"}


def test_a_long_model_is_kept_as_its_digest(edited: Callable[..., Path]) -> None:
    def lengthen(file: h5py.File) -> None:
        file["data/demo_0"].attrs["model_file"] = "<mujoco>" + "x" * 200_000

    episode = only(edited(lengthen))
    name = "data/demo_0@model_file"
    assert episode.extra["digests"][name]["bytes"] == 200_008
    assert name not in episode.extra["attributes"]
    (fate,) = (f for f in episode.provenance.ledger if f.field == name)
    assert (fate.fate, fate.lossless) == ("transformed", False)


def test_a_text_of_megabytes_is_not_told(edited: Callable[..., Path]) -> None:
    def lengthen(file: h5py.File) -> None:
        file["data/demo_0"].attrs["notes"] = "x" * 3_000_000

    (fate,) = (f for f in only(edited(lengthen)).provenance.ledger if f.field == "data/demo_0@notes")
    assert fate.fate == "dropped"


def test_attributes_that_take_much_together_are_refused(edited: Callable[..., Path]) -> None:
    def add(file: h5py.File) -> None:
        for i in range(20):
            file["data/demo_0"].attrs[f"notes_{i}"] = "x" * 1_000_000

    with pytest.raises(FormatError, match="attributes take more"):
        only(edited(add))


def test_a_list_of_demonstrations_that_are_not_there_is_a_warning(edited: Callable[..., Path]) -> None:
    def list_more(file: h5py.File) -> None:
        file["mask/train"] = np.array(["demo_0", "demo_7"], dtype="S")
        file["mask/odd"] = np.zeros((2, 2))

    episode = only(edited(list_more))
    assert episode.extra["filter_keys"] == ["train"]
    assert any("demo_7" in warning for warning in episode.provenance.warnings)
    assert any(f.field == "mask/odd" and f.fate == "dropped" for f in episode.provenance.ledger)


@pytest.mark.parametrize("count", [-3, 11, 10**12])
def test_a_wrong_num_samples_is_a_warning(edited: Callable[..., Path], count: int) -> None:
    def lie(file: h5py.File) -> None:
        file["data/demo_0"].attrs["num_samples"] = count

    assert any("num_samples" in warning for warning in only(edited(lie)).provenance.warnings)


def test_arrays_of_another_length_have_a_clock_of_their_own(edited: Callable[..., Path]) -> None:
    def add(file: h5py.File) -> None:
        file["data/demo_0/obs/force"] = np.arange(4_000.0).reshape(400, 10)

    episode = only(edited(add))
    clock = episode.streams["observation.force"].spec.clock
    assert clock not in {"steps", "observations"}
    assert episode.clocks[clock].length == 400


def test_few_values_are_kept_in_the_header_and_as_a_stream_where_json_cannot_tell_them(
    edited: Callable[..., Path],
) -> None:
    def add(file: h5py.File) -> None:
        file["data/demo_0/gains"] = np.array([1.0, 2.5])
        file["data/demo_0/limits"] = np.array([[np.inf], [np.nan]])

    episode = only(edited(add))
    assert episode.extra["values"]["data/demo_0/gains"] == [1.0, 2.5]
    assert np.isnan(episode.streams["extra.limits"].values()[1])


def test_a_text_per_step_becomes_events(edited: Callable[..., Path]) -> None:
    def add(file: h5py.File) -> None:
        texts = ["reach"] * 4 + ["grasp"] * 6
        file.create_dataset("data/demo_0/language", data=texts, dtype=h5py.string_dtype())

    events = only(edited(add)).events
    assert [(e.kind, e.text, e.start_ns, e.stop_ns) for e in events] == [
        ("language", "reach", 0, 200_000_000),
        ("language", "grasp", 200_000_000, 500_000_000),
    ]


def test_a_demonstration_that_holds_itself_is_refused(edited: Callable[..., Path]) -> None:
    def loop(file: h5py.File) -> None:
        file["data/demo_0/obs/again"] = file["data"]

    with pytest.raises(FormatError, match="holds itself"):
        only(edited(loop))


def test_a_demonstration_in_another_file_is_refused(edited: Callable[..., Path]) -> None:
    def link(file: h5py.File) -> None:
        file["data/demo_1"] = h5py.ExternalLink("other.hdf5", "/data/demo_0")

    with pytest.raises(FormatError, match="never followed"):
        list(RobomimicHdf5().episodes(edited(link)))


def test_a_demonstration_that_is_a_link_to_another_has_no_data(edited: Callable[..., Path]) -> None:
    def link(file: h5py.File) -> None:
        file["data/demo_1"] = h5py.SoftLink("/data/demo_0")

    with pytest.raises(FormatError, match="no array"):
        list(RobomimicHdf5().episodes(edited(link)))


def test_a_demonstration_of_no_steps_is_refused(edited: Callable[..., Path]) -> None:
    def empty(file: h5py.File) -> None:
        del file["data/demo_0/actions"]
        file["data/demo_0/actions"] = np.zeros((0, 7))

    with pytest.raises(FormatError, match="no rows"):
        only(edited(empty))


def test_one_demonstration_of_thousands_is_surveyed_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "many.hdf5"
    with h5py.File(path, "w") as file:
        for i in range(300):
            file[f"data/demo_{i}/actions"] = np.zeros((2, 7))
            file[f"data/demo_{i}"].attrs["model_file"] = "x" * 60_000
    monkeypatch.setattr("teleopen.converters._hdf5.MAX_OBJECTS", 310)
    episodes = list(RobomimicHdf5(rate_hz=20.0).episodes(path))
    assert len({episode.id for episode in episodes}) == 300
    assert np.concatenate(list(episodes[250].streams["action"])).shape == (2, 7)


@pytest.mark.slow
def test_a_long_recording_is_read_in_little_memory(tmp_path: Path, peak_memory: Callable[..., int]) -> None:
    path = tmp_path / "long.hdf5"
    with h5py.File(path, "w") as file:
        file["data/demo_0/actions"] = np.zeros((2_000, 7))
        shape = (2_000, 256, 256, 3)
        film = file.create_dataset("data/demo_0/obs/cam_image", shape, "u1", chunks=(8, *shape[1:]))
        for i in range(0, 2_000, 8):
            film[i : i + 8] = i % 251

    assert peak_memory(drain, path) < 100 << 20


def drain(path: Path) -> None:
    for block in only(path, rate_hz=20.0, block_bytes=4 << 20).streams["observation.images.cam"]:
        assert block.shape[1:] == (256, 256, 3)


# Isaac Lab


@pytest.fixture
def isaaclab(shared_data: Path) -> Path:
    return shared_data / "isaaclab_hdf5" / "lift_franka_rgb.hdf5"


def test_isaac_lab_tells_success_and_its_rate_and_not_the_order_of_quaternions(isaaclab: Path) -> None:
    first, second = RobomimicHdf5().episodes(isaaclab)
    assert [first.outcome, second.outcome] == ["success", "failure"]
    assert first.clocks["steps"].declared_hz == pytest.approx(50)
    assert first.streams["observation.eef_quat"].spec.attributes["rotation"] == "unknown"
    assert any("quaternion_order" in warning for warning in first.provenance.warnings)
    told, _ = RobomimicHdf5(quaternion_order="wxyz").episodes(isaaclab)
    assert told.streams["observation.eef_quat"].spec.attributes["rotation"] == "quaternion_wxyz"
    assert not any("quaternion_order" in warning for warning in told.provenance.warnings)


def test_isaac_lab_takes_states_after_the_action_and_keeps_the_first(isaaclab: Path) -> None:
    episode, _ = RobomimicHdf5().episodes(isaaclab)
    state = episode.streams["extra.states.rigid_object.cube.root_pose"].spec
    assert state.attributes["taken"] == "after the row's action"
    kept = episode.extra["values"]["data/demo_0/initial_state/rigid_object/cube/root_pose"]
    with h5py.File(isaaclab) as file:
        np.testing.assert_array_equal(kept, file["data/demo_0/initial_state/rigid_object/cube/root_pose"][()])


# Real recordings

REAL = {
    "can_ur5e_low_dim/low_dim.hdf5": 25,
    "lift_panda_scripted/demo.hdf5": 2,
    "lift_panda_scripted/image_84.hdf5": 15,
    "robosuite_0.3.0_SawyerLift/demo.hdf5": 5,
    "robosuite_1.0.1_lift_panda/demo.hdf5": 3,
    "robosuite_1.0.1_stack_panda/demo.hdf5": 3,
    "robosuite_1.0.1_wipe_panda/demo.hdf5": 3,
    "robosuite_1.4.1_lift/demo.hdf5": 2,
    "../isaaclab_hdf5/lift_franka_rgb.hdf5": 9,
}


@pytest.mark.parametrize("name", REAL)
def test_real_files_come_out_as_h5py_reads_them(shared_data: Path, name: str) -> None:
    path = shared_data / "robomimic_hdf5" / name
    for episode in RobomimicHdf5(rate_hz=20.0).episodes(path):
        assert problems_of(episode) == []
        assert assert_same_as_h5py(episode, path) >= REAL[name]
        assert_all_fields_are_told(episode, path, episode.provenance.selector)


def test_no_other_converter_claims_a_real_file(shared_data: Path) -> None:
    for name in REAL:
        assert converter_for(shared_data / "robomimic_hdf5" / name).format.name == "robomimic-hdf5"


def test_robosuite_0_3_has_parts_of_commands_and_arrays_of_no_width(shared_data: Path) -> None:
    path = shared_data / "robomimic_hdf5" / "robosuite_0.3.0_SawyerLift" / "demo.hdf5"
    episode = next(iter(RobomimicHdf5(rate_hz=100.0).episodes(path)))
    assert contract(episode, "action.joint_velocity").offset_steps is None
    assert episode.streams["extra.states"].spec.attributes["taken"] == "unknown"
    dropped = {f.field: f.how for f in episode.provenance.ledger if f.fate == "dropped"}
    assert "no values" in dropped["data/demo_1/left_dpos"]


def test_a_wiping_robot_has_no_gripper(shared_data: Path) -> None:
    path = shared_data / "robomimic_hdf5" / "robosuite_1.0.1_wipe_panda" / "demo.hdf5"
    (episode,) = RobomimicHdf5(rate_hz=20.0).episodes(path)
    assert [part.space for part in contract(episode).parts] == ["ee_position", "ee_orientation"]
