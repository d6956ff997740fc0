"""What is special about ALOHA's files: dialects, colours, rows, and what becomes of the unexpected.

tests/data/aloha_act_sim.hdf5 (CC0-1.0) was generated for this project by ACT's own record_sim_episodes.py,
then packed by h5repack. cli/sample/NOTICE.md tells of the other.
"""

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image
from teleopen.converters._checks import findings
from teleopen.converters.aloha_hdf5 import AlohaHdf5
from teleopen.schemas import ActionContract, Episode, FormatError, problems_of

from tests.samples.aloha_hdf5 import film, jpeg, padded

ROOT = Path(__file__).parents[2]
ACT = ROOT / "tests/data/aloha_act_sim.hdf5"
MOBILE = ROOT / "cli/sample/mobile_aloha.hdf5"
STEPS = 12
GRIPPERS = (6, 13)

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Write a small file: the attributes first, then datasets that replace or join those of the format."""

    def write(attributes: dict[str, Any], name: str = "episode_0.hdf5", **datasets: Any) -> Path:
        leader = np.linspace(0, 1, STEPS + 2)[:, None] * np.ones(14)
        fields: dict[str, Any] = {
            "action": leader[2:].astype(np.float32),
            "observations/qpos": leader[:-2].astype(np.float32),
            "observations/qvel": np.zeros((STEPS, 14), np.float32),
        } | {key.replace("__", "/"): value for key, value in datasets.items()}
        with h5py.File(tmp_path / name, "w") as file:
            file.attrs.update(attributes)
            for key, value in fields.items():
                if value is not None:
                    file[key] = value
        return tmp_path / name

    return write


def only(path: Path, **options: Any) -> Episode:
    (episode,) = AlohaHdf5(**options).episodes(path)
    assert problems_of(episode) == []
    return episode


def contract(episode: Episode, stream: str = "action") -> ActionContract:
    found = episode.streams[stream].spec.contract
    assert found is not None
    return found


def test_act_simulation_of_the_original_recorder() -> None:
    episode = only(ACT)
    assert {name: stream.length for name, stream in episode.streams.items()} == {
        "action": 120,
        "observation.images.top": 120,
        "observation.state": 120,
        "observation.velocity": 120,
    }
    spec = episode.streams["observation.state"].spec
    assert (spec.axes[0], spec.axes[6], spec.axes[13]) == ("left_waist", "left_gripper", "right_gripper")
    assert (spec.unit[0], spec.unit[6]) == ("rad", "1")
    assert [(p.space, p.gripper_closed, p.gripper_open) for p in contract(episode).parts] == [
        ("joint_position", None, None),
        ("gripper", 0.0, 1.0),
    ] * 2
    assert contract(episode).offset_steps == 0
    assert episode.clocks["steps"].declared_hz == 50
    assert "DT = 0.02" in episode.clocks["steps"].source
    assert episode.instructions == ()
    assert episode.embodiment == "unknown"
    assert episode.provenance.warnings == ()
    with h5py.File(ACT) as file:
        for field, stream in {
            "action": "action",
            "observations/images/top": "observation.images.top",
        }.items():
            np.testing.assert_array_equal(episode.streams[stream].values(), file[field][()])


def test_mobile_aloha_of_the_original_recorder() -> None:
    episode = only(MOBILE)
    cameras = [f"observation.images.cam_{place}" for place in ("high", "left_wrist", "right_wrist")]
    assert [name for name in episode.streams if "images" in name] == cameras
    assert contract(episode).offset_steps == 1
    assert contract(episode, "action.base").offset_steps == 0
    assert episode.streams["action.base"].spec.unit == ("m/s", "rad/s")
    assert episode.streams["observation.effort"].spec.unit == ("unknown",)
    fates = {fate.field: fate for fate in episode.provenance.ledger}
    assert fates["compress_len"].fate == "dropped"
    assert fates["observations/images/cam_high"].fate == "transformed"
    with h5py.File(MOBILE) as file:
        data = file["observations/images/cam_high"][5].tobytes()
    with Image.open(io.BytesIO(data)) as image:
        swapped = np.asarray(image)[..., ::-1]
    np.testing.assert_array_equal(episode.streams[cameras[0]].values(5, 6)[0], swapped)


def test_colours_of_mobile_aloha_are_those_of_the_scene() -> None:
    """ACT's insertion: red peg on the right, blue socket on the left (utils.py: sample_insertion_pose)."""
    picture = only(MOBILE).streams["observation.images.cam_high"].values(0, 1)[0].astype(int)
    red = picture[..., 0] - picture[..., 1:].max(axis=-1) > 80
    blue = picture[..., 2] - picture[..., :2].max(axis=-1) > 80
    assert np.nonzero(red)[1].mean() > picture.shape[1] / 2 > np.nonzero(blue)[1].mean()


def test_jpegs_can_be_taken_at_their_word() -> None:
    camera = "observation.images.cam_high"
    ours, theirs = (only(MOBILE, jpeg_order=order).streams[camera] for order in ("opencv", "standard"))
    np.testing.assert_array_equal(ours.values(0, 2), theirs.values(0, 2)[..., ::-1])
    assert ours.spec.attributes["stored_order"] == "bgr"
    assert theirs.spec.attributes["stored_order"] == "rgb"


def test_real_aloha_observes_just_before_it_acts(make: Make) -> None:
    episode = only(make({"sim": False}, observations__effort=np.ones((STEPS, 14), np.float32)))
    assert episode.extra["dialect"] == "aloha"
    assert contract(episode).offset_steps == 0
    assert "42 Hz" in episode.clocks["steps"].source


def test_agilex_keeps_raw_grippers_and_padded_depth(make: Make) -> None:
    depth = np.zeros((STEPS, 100, 16), np.uint16)
    depth[:, 40:-40] = np.random.default_rng(1).integers(1, 5000, (STEPS, 20, 16))
    path = make(
        {"sim": False, "compress": False},
        base_action=np.zeros((STEPS, 2), np.float32),
        observations__images__cam_high=np.zeros((STEPS, 8, 16, 3), np.uint8),
        observations__images_depth__cam_high=depth,
    )
    episode = only(path)
    state, image = episode.streams["observation.state"].spec, episode.streams["observation.depth.cam_high"]
    assert episode.extra["dialect"] == "agilex"
    assert (state.axes[5], state.unit[5], state.unit[6]) == ("left_joint5", "rad", "unknown")
    assert {p.gripper_open for p in contract(episode).parts} == {None}
    assert contract(episode).offset_steps == 1
    assert episode.clocks["steps"].declared_hz == 30
    assert image.spec.attributes["added_rows"] == {"top": 40, "bottom": 40}
    assert image.spec.unit == ("unknown",)
    np.testing.assert_array_equal(image.values(), depth)
    assert any("base_action is zero" in warning for warning in episode.provenance.warnings)


def test_nothing_is_claimed_of_what_somebody_else_wrote(make: Make) -> None:
    pictures = np.zeros((STEPS, 8, 16, 3), np.uint8)
    episode = only(make({}, observations__images__top=pictures))
    assert episode.extra["dialect"] == "unknown"
    assert contract(episode) == ActionContract()
    assert episode.streams["action"].spec.axes == ()
    assert episode.streams["action"].spec.unit == ("unknown",)
    assert any("taken for RGB" in warning for warning in episode.provenance.warnings)


def test_other_numbers_of_columns_mean_nothing_known(make: Make) -> None:
    episode = only(make({"sim": True}, action=np.zeros((STEPS, 16), np.float32)))
    assert contract(episode).parts == ()
    assert any("16 columns" in warning for warning in episode.provenance.warnings)


def test_one_more_observation_has_a_clock_of_its_own(make: Make) -> None:
    longer = np.zeros((STEPS + 1, 14), np.float32)
    episode = only(make({"sim": True}, observations__qpos=longer, observations__qvel=longer))
    assert {s.spec.name: (s.spec.clock, s.length) for s in episode.streams.values()} == {
        "action": ("steps", STEPS),
        "observation.state": ("observations", STEPS + 1),
        "observation.velocity": ("observations", STEPS + 1),
    }
    np.testing.assert_array_equal(episode.times("observation.state")[:STEPS], episode.times("action"))


@pytest.mark.parametrize("rows", [0, STEPS - 1, STEPS + 2])
def test_rows_that_cannot_be_matched_are_refused(make: Make, rows: int) -> None:
    path = make({"sim": True}, observations__qpos=np.zeros((rows, 14), np.float32))
    with pytest.raises(FormatError, match=r"observations/qpos.*nothing tells which belong together"):
        only(path)


@pytest.mark.parametrize("name", ["action", "observations__qpos"])
def test_what_makes_the_format_must_be_there(make: Make, name: str) -> None:
    with pytest.raises(FormatError, match="is missing"):
        only(make({"sim": True}, **{name: None}))


def test_rates_are_the_options_then_the_files_then_the_formats(make: Make) -> None:
    path = make({"sim": True, "fps": 25})
    assert only(path).clocks["steps"].declared_hz == 25
    assert only(path).clocks["steps"].source == "the file's attribute fps"
    np.testing.assert_array_equal(only(path).times("action")[:3], [0, 40_000_000, 80_000_000])
    assert only(path, rate_hz=10.0).clocks["steps"].declared_hz == 10
    assert only(path, rate_hz=10.0).provenance.options["rate_hz"] == 10


def test_instructions_are_the_options_or_the_files(make: Make) -> None:
    path = make({"sim": True, "task": "fold the towel", "author": "A. N. Other"})
    assert only(path).instructions == ("fold the towel",)
    assert only(path, instruction="fold it", embodiment="aloha").instructions == ("fold it",)
    assert only(path, embodiment="aloha").embodiment == "aloha"
    assert only(path).provenance.evidence == {"@author": "A. N. Other"}


def test_jpegs_of_unknown_origin_are_taken_at_their_word(make: Make) -> None:
    frames = film(np.random.default_rng(2))[:STEPS]
    data = [jpeg(frame[..., ::-1], quality=95) for frame in frames]
    episode = only(make({"sim": True}, observations__images__top=padded(data)))
    stream = episode.streams["observation.images.top"]
    assert np.abs(stream.values().astype(int) - frames).mean() < 3
    assert any("red may be blue" in warning for warning in episode.provenance.warnings)


def test_grey_jpegs_stay_grey(make: Make) -> None:
    out = io.BytesIO()
    Image.fromarray(film(np.random.default_rng(3))[0, ..., 0]).save(out, "JPEG")
    path = make({"sim": False, "compress": True}, observations__images__top=padded([out.getvalue()] * STEPS))
    assert only(path).streams["observation.images.top"].values().shape == (STEPS, 48, 64, 1)


def test_jpegs_may_be_strings_of_a_fixed_length(make: Make) -> None:
    data = [jpeg(frame) for frame in film(np.random.default_rng(4))[:STEPS]]
    rows = padded(data)
    strings = np.array(data, f"S{rows.shape[1]}")
    names = {"a": rows, "b": strings}
    path = make(
        {"sim": False, "compress": True}, **{f"observations__images__{k}": v for k, v in names.items()}
    )
    a, b = (only(path).streams[f"observation.images.{key}"].values() for key in names)
    np.testing.assert_array_equal(a, b)


def test_a_picture_of_another_size_is_named(make: Make) -> None:
    frames = film(np.random.default_rng(5))[:STEPS]
    data = [jpeg(frame) for frame in frames]
    data[7] = jpeg(frames[7][:, :32])
    path = make({"sim": False, "compress": True}, observations__images__top=padded(data))
    with pytest.raises(FormatError, match=r"observations/images/top\[7\].*32×48"):
        only(path).streams["observation.images.top"].values()


def test_odd_names_become_valid_and_stay_apart(make: Make) -> None:
    picture = np.zeros((STEPS, 8, 16, 3), np.uint8)
    names = {"cam high": 1, "cam_high": 2, "CAM.HIGH": 3}
    path = make({"sim": True}, **{f"observations__images__{k}": picture + n for k, n in names.items()})
    episode = only(path)
    fates = {
        fate.field.rpartition("/")[2]: fate.to[0] for fate in episode.provenance.ledger if "/" in fate.field
    }
    for name, value in names.items():
        assert (episode.streams[fates[name]].values() == value).all()


def test_second_names_are_noted_and_not_read_twice(make: Make) -> None:
    path = make({"sim": True})
    with h5py.File(path, "r+") as file:
        file["copy"] = file["action"]
        file["soft"] = h5py.SoftLink("/observations/qpos")
    fates = {fate.field: fate.how for fate in only(path).provenance.ledger}
    assert fates["copy"] == "is another name of action"
    assert fates["soft"] == "is another name of observations/qpos"


def test_what_is_not_read_is_named(make: Make) -> None:
    path = make({"sim": True}, many=np.zeros((3, 1000)), nothing=h5py.Empty("f"), kinds=np.zeros(3, "i4,f4"))
    fates = {fate.field: fate for fate in only(path).provenance.ledger}
    assert {name: fates[name].how for name in ("many", "nothing", "kinds")} == {
        "many": "has no row per step: (3, 1000)",
        "nothing": "holds no values",
        "kinds": "is neither number nor text",
    }


def test_warns_where_action_is_computed_from_the_state(make: Make) -> None:
    state = np.cumsum(np.random.default_rng(6).normal(size=(40, 14)), axis=0).astype(np.float32)
    state[:, GRIPPERS] = 0.5
    path = make(
        {"sim": True}, action=np.roll(state, -1, 0), observations__qpos=state, observations__qvel=None
    )
    assert any("is the next row's observation.state bit for bit" in text for text in findings(only(path)))


def test_warns_where_the_state_is_ahead_of_the_action(make: Make) -> None:
    path_ = np.cumsum(np.random.default_rng(7).normal(size=(60, 14)), axis=0).astype(np.float32)
    path_[:, GRIPPERS] = 3
    path = make({"sim": True}, action=path_[:50], observations__qpos=path_[3:53], observations__qvel=None)
    lag, gripper = (text for text in findings(only(path)) if "rad" not in text)
    assert "declared 0 to 1 and reach from 3 to 3" in gripper
    assert "3 rows ahead" in lag


def test_a_folder_is_read_by_numbers_and_names_the_rest(make: Make, tmp_path: Path) -> None:
    for number in (10, 2, 1):
        make({"sim": True, "number": number}, name=f"episode_{number}.hdf5")
    make({"sim": True}, name="mirror_episode_2.hdf5")
    tmp_path.joinpath("notes.txt").write_text("hello")
    converter = AlohaHdf5()
    assert converter.probe(tmp_path)
    episodes = list(converter.episodes(tmp_path))
    assert [e.extra["attributes"]["@number"] for e in episodes] == [1, 2, 10]
    assert [e.provenance.sources[0].uri for e in episodes] == [f"episode_{n}.hdf5" for n in (1, 2, 10)]
    for episode in episodes:
        assert "'mirror_episode_2.hdf5', 'notes.txt'" in episode.provenance.warnings[-1]
    (alone,) = converter.episodes(tmp_path / "episode_2.hdf5")
    assert alone.id == episodes[1].id


def test_a_folder_without_episodes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"holds no episode_<n>\.hdf5"):
        list(AlohaHdf5().episodes(tmp_path))


def test_streams_can_be_read_in_another_process() -> None:
    stream = only(ACT).streams["action"]
    again = pickle.loads(pickle.dumps(stream.read))
    np.testing.assert_array_equal(next(again(3, 9)), stream.values(3, 9))


def test_raw_images_of_the_original_recorder(shared_data: Path) -> None:
    path = shared_data / "aloha_hdf5/act_sim_transfer_cube_raw/episode_0.hdf5"
    with h5py.File(path) as file:
        np.testing.assert_array_equal(
            only(path).streams["observation.images.top"].values(), file["observations/images/top"][()]
        )


def test_claims_no_other_file_of_the_samples(shared_data: Path) -> None:
    ours = {"aloha_hdf5", "bench"}
    for path in shared_data.rglob("*"):
        assert AlohaHdf5().probe(path) == (
            path.relative_to(shared_data).parts[0] in ours
            and (path.suffix == ".hdf5" or any(path.glob("episode_*.hdf5")))
        ), path
