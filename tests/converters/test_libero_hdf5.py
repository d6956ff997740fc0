"""LIBERO: observations from after the action, pictures upside down, rewards that nobody measured."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from teleopen.converters import converter_for
from teleopen.converters.libero_hdf5 import LiberoHdf5
from teleopen.converters.robomimic_hdf5 import RobomimicHdf5
from teleopen.schemas import Episode, FormatError, problems_of

from tests.samples._same import assert_all_fields_are_told, assert_same_as_h5py
from tests.samples.libero_hdf5 import write
from tests.samples.robomimic_hdf5 import write as write_robomimic

Edit = Callable[[h5py.File], None]


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    return write(tmp_path).path


def first(path: Path, **options: Any) -> Episode:
    episode = next(iter(LiberoHdf5(**options).episodes(path)))
    assert problems_of(episode) == []
    return episode


def edit(path: Path, change: Edit) -> Path:
    with h5py.File(path, "r+") as file:
        change(file)
    return path


def test_libero_and_robomimic_do_not_claim_each_others_files(tmp_path: Path, sample: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    robomimic = write_robomimic(other).path
    assert [LiberoHdf5().probe(sample), LiberoHdf5().probe(robomimic)] == [True, False]
    assert [RobomimicHdf5().probe(sample), RobomimicHdf5().probe(robomimic)] == [False, True]


def test_an_observation_was_taken_after_the_action_of_its_row_and_a_state_before(sample: Path) -> None:
    streams = first(sample).streams
    contract = streams["action"].spec.contract
    assert contract is not None
    assert contract.offset_steps == -1
    assert [part.mode for part in contract.parts] == ["delta", "delta", "absolute"]
    assert streams["extra.states"].spec.attributes["taken"] == "before the row's action"


def test_rewards_and_dones_are_told_to_be_made_up(sample: Path) -> None:
    episode = first(sample)
    assert all(episode.streams[f"next.{name}"].spec.attributes["synthetic"] for name in ("reward", "done"))
    assert episode.outcome == "unknown"


@pytest.mark.parametrize(
    ("convention", "orientation"),
    [("opengl", "upside_down"), ("opencv", "upright"), ("direct3d", "unknown"), (7, "unknown")],
)
def test_the_way_up_of_pictures_is_what_the_file_says(
    sample: Path, convention: Any, orientation: str
) -> None:
    def say(file: h5py.File) -> None:
        file["data"].attrs["macros_image_convention"] = convention

    streams = first(edit(sample, say)).streams
    assert streams["observation.images.agentview"].spec.attributes["orientation"] == orientation
    assert streams["observation.depth.agentview"].spec.unit == ("1",)


def test_poses_have_their_rotation_told(sample: Path) -> None:
    streams = first(sample).streams
    assert streams["observation.ee_pose"].spec.attributes["rotation"] == "axis_angle"
    assert streams["observation.state"].spec.axes[-4:] == ("qx", "qy", "qz", "qw")


def test_raw_demonstrations_pair_a_state_with_the_action_after_it(sample: Path) -> None:
    def make_raw(file: h5py.File) -> None:
        for name in ("obs", "robot_states", "rewards", "dones"):
            del file[f"data/demo_0/{name}"]
        file["data"].attrs["env_info"] = json.dumps({"robots": ["Panda"]})
        del file["data"].attrs["env_args"]

    path = edit(sample, make_raw)
    with pytest.raises(FormatError, match="option rate_hz"):
        first(path)
    episode = first(path, rate_hz=20.0)
    contract = episode.streams["action"].spec.contract
    assert contract is not None
    assert contract.offset_steps == 0
    assert episode.extra["dialect"] == "libero-raw"


@pytest.mark.parametrize("text", ["[" * 100_000, "{", json.dumps({"language_instruction": ["a", "b"]}), "{}"])
def test_problem_info_that_lies_gives_no_instruction(sample: Path, text: str) -> None:
    def lie(file: h5py.File) -> None:
        file["data"].attrs["problem_info"] = text

    assert first(edit(sample, lie)).instructions == ()


def test_a_wrong_count_and_arrays_of_another_length_are_told(sample: Path) -> None:
    def lie(file: h5py.File) -> None:
        file["data/demo_0"].attrs["num_samples"] = -1
        del file["data/demo_0/obs/joint_states"]
        file["data/demo_0/obs/joint_states"] = np.zeros((300, 7))

    episode = first(edit(sample, lie))
    assert any("num_samples is -1" in warning for warning in episode.provenance.warnings)
    assert episode.streams["observation.joint_position"].spec.clock != "steps"


def test_a_group_that_holds_itself_is_refused(sample: Path) -> None:
    def loop(file: h5py.File) -> None:
        file["data/demo_0/obs/again"] = file["data/demo_0"]

    with pytest.raises(FormatError, match="holds itself"):
        first(edit(sample, loop))


def test_a_real_file_comes_out_as_h5py_reads_it(shared_data: Path) -> None:
    (path,) = (shared_data / "libero_hdf5").iterdir()
    assert converter_for(path).format.name == "libero-hdf5"
    episodes = list(LiberoHdf5().episodes(path))
    for episode in episodes:
        assert problems_of(episode) == []
        assert assert_same_as_h5py(episode, path) == 12
        assert_all_fields_are_told(episode, path, episode.provenance.selector)
        assert episode.clocks["steps"].declared_hz == 20
        assert episode.embodiment == "Panda"
    assert episodes[0].instructions == (
        "pick up the book and place it in the front compartment of the caddy",
    )
