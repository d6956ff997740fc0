"""DROID raw: the clocks of a step, the contracts of its many commands, the recordings beside it, and harm."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import h5py
import numpy as np
import pytest
from teleopen.converters.droid_raw import DroidRaw
from teleopen.schemas import ActionPart, Episode, FormatError, problems_of

from tests.converters import reading
from tests.samples._films import film, write_mp4
from tests.samples.droid_raw import (
    HAND,
    LEFT,
    START_MS,
    STEPS,
    STOPPED,
    numbers,
    write_episode,
)

STAMPS = "observation/timestamp"


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write one episode of two cameras."""
    random = np.random.default_rng(1)
    place = tmp_path_factory.mktemp("droid") / "episode"
    write_episode(place, numbers(random), {c: film(random, STEPS) for c in (HAND, LEFT)}, success=True)
    return place


@pytest.fixture
def folder(template: Path, tmp_path: Path) -> Path:
    """Give a test an episode of its own."""
    return shutil.copytree(template, tmp_path / "Mon_Jan__1_09:06:40_2024")


def read(folder: Path, **options: Any) -> Episode:
    return reading.only(DroidRaw(**options), folder)


def change(folder: Path, spoil: Callable[[h5py.File], None]) -> None:
    with h5py.File(folder / "trajectory.h5", "r+") as file:
        spoil(file)


def dropped(episode: Episode) -> dict[str, str]:
    return {fate.field: fate.how for fate in episode.provenance.ledger if fate.fate == "dropped"}


# What it means


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("joint_position", ActionPart(start=0, stop=7, space="joint_position", mode="absolute", frame=None,
                                      rotation="none")),
        ("ee_pose", ActionPart(start=0, stop=6, space="ee_pose", mode="absolute", frame="robot base",
                               rotation="euler_xyz")),
        ("gripper", ActionPart(start=0, stop=1, space="gripper", mode="absolute", frame=None, rotation="none",
                               gripper_closed=1.0, gripper_open=0.0)),
        ("gripper_velocity", ActionPart(start=0, stop=1, space="gripper", mode="delta", frame=None,
                                        rotation="none")),
    ],
)  # fmt: skip
def test_each_space_of_a_command_is_a_stream_with_a_contract(
    folder: Path, name: str, part: ActionPart
) -> None:
    spec = read(folder).streams[f"action.{name}"].spec
    assert spec.contract is not None
    assert spec.contract.parts == (part,)
    assert spec.contract.offset_steps == 0
    assert spec.clock == "control"


def test_the_misnamed_gripper_delta_is_kept_as_the_velocity_that_it_is(folder: Path) -> None:
    def rename(file: h5py.File) -> None:
        file["action/gripper_delta"] = file["action/gripper_velocity"][()]
        del file["action/gripper_velocity"]

    change(folder, rename)
    spec = read(folder).streams["action.gripper_delta"].spec
    assert "velocity" in spec.description
    assert spec.unit == ("1",)


def test_a_command_is_later_than_the_state_and_the_pictures_of_its_step(folder: Path) -> None:
    episode = read(folder)
    steps, control, state, camera = (
        episode.clocks[name].read() for name in ("steps", "control", "robot_state", f"camera_{HAND}")
    )
    assert np.all(camera < steps)
    assert np.all(steps < state)
    assert np.all(state < control)
    assert episode.clocks["steps"].declared_hz == 15
    assert episode.clocks["steps"].measured_hz == pytest.approx(15, rel=0.05)
    with h5py.File(folder / "trajectory.h5") as file:
        first = int(file[f"{STAMPS}/control/step_start"][0])
    assert episode.extra["origin"]["unix_ns"] + steps[0] == first * 1_000_000


def test_every_stamp_is_kept_as_it_was_written(folder: Path) -> None:
    episode = read(folder)
    with h5py.File(folder / "trajectory.h5") as file:
        for name, unit in (
            ("robot_timestamp_seconds", "s"),
            ("robot_timestamp_nanos", "ns"),
            ("read_start", "ms"),
        ):
            stream = episode.streams[f"extra.timestamp.robot_state.{name}"]
            np.testing.assert_array_equal(stream.values(), file[f"{STAMPS}/robot_state/{name}"][()])
            assert stream.spec.unit == (unit,)


def test_steps_that_were_not_sent_are_marked(folder: Path) -> None:
    episode = read(folder)
    (event,) = episode.events
    times = episode.clocks["steps"].read()
    assert (event.kind, event.start_ns, event.stop_ns) == ("skip_action", times[0], times[STOPPED])
    assert episode.streams["extra.skip_action"].values().sum() == STOPPED


def test_an_episode_skipped_to_its_end_ends_its_event_after_its_last_step(folder: Path) -> None:
    change(folder, lambda file: file[f"{STAMPS}/skip_action"].__setitem__(slice(None), True))
    episode = read(folder)
    (event,) = episode.events
    assert event.stop_ns is not None
    assert event.stop_ns > episode.clocks["steps"].read()[-1]


def test_calibration_that_never_changes_goes_to_the_pictures(folder: Path) -> None:
    episode = read(folder)
    hand = episode.streams[f"observation.images.{HAND}"].spec.attributes
    assert hand["intrinsics"] == {"left": np.diag([500.0, 500, 1]).tolist()}
    assert (hand["camera_type"], hand["role"], hand["view"]) == ("hand_camera", "wrist", "left eye")
    assert episode.streams[f"observation.images.{LEFT}"].spec.attributes["camera_type"] == "varied_camera"
    pose = episode.streams[f"observation.camera_pose.{HAND}_left"].spec
    assert (pose.frame, pose.axes[3:], pose.unit[0]) == ("robot base", ("roll", "pitch", "yaw"), "m")
    assert episode.streams[f"observation.camera_pose.{HAND}_left_gripper_offset"].spec.frame == "gripper"


def test_intrinsics_that_do_change_are_a_stream(folder: Path) -> None:
    name = f"observation/camera_intrinsics/{HAND}_left"
    change(folder, lambda file: file[name].__setitem__(3, np.eye(3)))
    episode = read(folder)
    assert "intrinsics" not in episode.streams[f"observation.images.{HAND}"].spec.attributes
    assert episode.streams[f"extra.{name.replace('/', '.')}"].spec.shape == (3, 3)


def test_people_are_evidence_and_named_as_such(folder: Path) -> None:
    episode = read(folder)
    assert episode.provenance.evidence["@user"] == "Alex Example"
    assert episode.provenance.evidence["metadata.user_id"] == "Alex1234"
    assert {"@user names a person", "metadata.user_id names a person"} <= set(episode.provenance.warnings)
    assert "@building" not in episode.provenance.evidence


@pytest.mark.parametrize(
    ("said", "place", "outcome"),
    [
        ({"success": True, "failure": False}, "success", "success"),
        ({"success": False, "failure": True}, "failure", "failure"),
        ({"success": False, "failure": False}, "elsewhere", "unknown"),
        ({}, "failure", "failure"),
        ({"success": True}, "failure", "unknown"),
        ({"success": True, "failure": True}, "elsewhere", "unknown"),
    ],
)
def test_the_outcome_is_what_nothing_contradicts(
    folder: Path, tmp_path: Path, said: dict[str, bool], place: str, outcome: str
) -> None:
    def say(file: h5py.File) -> None:
        for name in ("success", "failure"):
            del file.attrs[name]
        file.attrs.update(said)

    change(folder, say)
    moved = tmp_path / place / "2024-01-01" / "episode"
    shutil.move(folder, moved)
    assert read(moved).outcome == outcome


def test_the_robot_is_told_by_its_serial_number(folder: Path) -> None:
    assert read(folder).embodiment == "droid panda"
    change(folder, lambda file: file.attrs.__setitem__("robot_serial_number", "\x07"))
    assert read(folder).embodiment == "unknown"


# Recordings


def test_packets_of_a_video_are_those_of_its_file(folder: Path) -> None:
    stream = read(folder).streams[f"observation.images.{HAND}"]
    assert stream.packets is not None
    with av.open(str(folder / "recordings" / "MP4" / f"{HAND}.mp4")) as container:
        wanted = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    np.testing.assert_array_equal(stream.values(), wanted)
    assert len(list(stream.packets.read())) == STEPS


def test_a_video_of_the_codec_of_droids_own_export_is_decoded(folder: Path) -> None:
    write_mp4(
        folder / "recordings" / "MP4" / f"{HAND}.mp4", film(np.random.default_rng(0), STEPS), codec="mpeg4"
    )
    stream = read(folder).streams[f"observation.images.{HAND}"]
    assert stream.packets is None
    assert stream.values().shape == (STEPS, 48, 64, 3)


def test_both_eyes_side_by_side_are_told(folder: Path) -> None:
    videos = folder / "recordings" / "MP4"
    wide = film(np.random.default_rng(0), STEPS, 32, 112)
    write_mp4(videos / f"{HAND}-stereo.mp4", wide)
    write_mp4(videos / "99.mp4", wide)
    episode = read(folder)
    view = {name: s.spec.attributes.get("view") for name, s in episode.streams.items() if ".images." in name}
    assert view[f"observation.images.{HAND}_stereo"] == "left and right eye side by side"
    assert view["observation.images.99"] == "probably left and right eye side by side"
    assert any("99.mp4 is 112x32" in text for text in episode.provenance.warnings)
    assert episode.streams[f"observation.images.{HAND}_stereo"].spec.clock == f"camera_{HAND}"


@pytest.mark.parametrize("frames", [STEPS - 7, STEPS + 9])
def test_a_video_of_another_length_keeps_its_own_times_and_says_so(folder: Path, frames: int) -> None:
    write_mp4(folder / "recordings" / "MP4" / f"{HAND}.mp4", film(np.random.default_rng(0), frames), rate=60)
    episode = read(folder)
    stream = episode.streams[f"observation.images.{HAND}"]
    assert (stream.length, stream.spec.clock) == (frames, f"video_{HAND}")
    assert episode.clocks[f"video_{HAND}"].declared_hz == 60
    assert any(f"{HAND}.mp4 has {frames} frames" in text for text in episode.provenance.warnings)


def test_stamps_beside_a_video_of_another_length_are_its_clock(folder: Path) -> None:
    videos = folder / "recordings" / "MP4"
    write_mp4(videos / f"{HAND}.mp4", film(np.random.default_rng(0), 10))
    stamps = [START_MS + 70 * i for i in range(10)]
    (videos / f"{HAND}_timestamps.json").write_text(json.dumps(stamps))
    episode = read(folder)
    times = episode.clocks[f"video_{HAND}"].read()
    np.testing.assert_array_equal(times + episode.extra["origin"]["unix_ns"], np.array(stamps) * 1_000_000)
    (videos / f"{HAND}_timestamps.json").write_text(json.dumps(stamps[:-1]))
    assert "is no list of 10 times" in reading.refusal(DroidRaw(), folder).why


def test_a_recording_of_the_camera_makers_own_kind_needs_its_mp4(folder: Path) -> None:
    recordings = folder / "recordings"
    (recordings / "SVO").mkdir()
    (recordings / "SVO" / f"{HAND}.svo").write_bytes(b"SVO")
    episode = read(folder)
    assert "own container" in dropped(episode)[f"recordings/SVO/{HAND}.svo"]
    (recordings / "MP4" / f"{HAND}.mp4").unlink()
    error = reading.refusal(DroidRaw(), folder)
    assert error.where == f"recordings/SVO/{HAND}.svo"
    assert "svo2mp4.py" in error.advice


def test_an_episode_without_recordings_is_still_one(folder: Path) -> None:
    shutil.rmtree(folder / "recordings")
    episode = read(folder)
    assert not any(".images." in name for name in episode.streams)
    assert episode.extra["cameras"][f"camera_type/{HAND}"] == 0


def test_a_video_made_of_two_others_is_left_out(folder: Path) -> None:
    shutil.copy(
        folder / "recordings" / "MP4" / f"{HAND}.mp4", folder / "recordings" / "MP4" / "fused (1).mp4"
    )
    assert "recordings/MP4/fused (1).mp4" in dropped(read(folder))


# Trees


def test_an_episode_has_the_same_id_wherever_it_lies(folder: Path, tmp_path: Path) -> None:
    alone, in_tree, by_file = read(folder), read(tmp_path), read(folder / "trajectory.h5")
    assert alone.id == in_tree.id == by_file.id
    assert in_tree.provenance.sources[0].uri == f"{folder.name}/trajectory.h5"
    assert alone.provenance.sources[0].uri == by_file.provenance.sources[0].uri == "trajectory.h5"


def test_other_files_of_that_name_are_not_claimed(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "trajectory.h5", "w") as file:
        file.create_group("traj_0")
    assert not DroidRaw().probe(tmp_path)
    with pytest.raises(FormatError, match="nowhere in this folder"):
        next(DroidRaw().episodes(tmp_path / ".." / tmp_path.name / "nothing"))


# Stamps that lie


def test_a_camera_whose_stamps_run_backwards_gets_the_times_of_its_steps(folder: Path) -> None:
    name = f"{STAMPS}/cameras/{HAND}_estimated_capture"
    change(folder, lambda file: file[name].__setitem__(5, file[name][9]))
    episode = read(folder)
    assert episode.streams[f"observation.images.{HAND}"].spec.clock == "steps"
    assert any("runs backwards" in text for text in episode.provenance.warnings)


@pytest.mark.parametrize("value", [-1, 1 << 62])
@pytest.mark.parametrize("name", ["control/step_start", f"cameras/{HAND}_estimated_capture"])
def test_stamps_that_are_no_times_are_refused(folder: Path, name: str, value: int) -> None:
    change(folder, lambda file: file[f"{STAMPS}/{name}"].__setitem__(3, value))
    error = reading.refusal(DroidRaw(), folder)
    assert error.where == f"{STAMPS}/{name}"
    assert "no time" in error.why


@pytest.mark.parametrize(
    "values", [np.full(STEPS, np.nan), np.full(STEPS, np.inf), np.zeros((STEPS, 2), int)]
)
def test_stamps_that_are_no_whole_numbers_are_refused(folder: Path, values: Any) -> None:
    def spoil(file: h5py.File) -> None:
        del file[f"{STAMPS}/control/step_start"]
        file[f"{STAMPS}/control/step_start"] = values

    change(folder, spoil)
    assert "must be a whole number" in reading.refusal(DroidRaw(), folder).why


def test_steps_that_run_backwards_are_refused(folder: Path) -> None:
    change(folder, lambda file: file[f"{STAMPS}/control/step_start"].__setitem__(9, START_MS))
    assert "backwards" in reading.refusal(DroidRaw(), folder).why


def test_without_stamps_times_come_from_the_recorders_rate(folder: Path) -> None:
    change(folder, lambda file: file.__delitem__(STAMPS))
    episode = read(folder)
    assert (episode.clocks["steps"].kind, episode.clocks["steps"].declared_hz) == ("nominal", 15.0)
    assert {stream.spec.clock for stream in episode.streams.values()} == {"steps"}
    assert read(folder, rate_hz=5.0).clocks["steps"].source == "option rate_hz"


# Harm


def test_arrays_of_another_length_are_refused(folder: Path) -> None:
    change(folder, lambda file: file["observation/robot_state/joint_positions"].resize(STEPS - 1, 0))
    assert f"has {STEPS - 1} rows" in reading.refusal(DroidRaw(), folder).why


def test_rows_of_another_width_lose_their_meaning_and_nothing_else(folder: Path) -> None:
    def widen(file: h5py.File) -> None:
        del file["action/joint_position"]
        file["action/joint_position"] = np.zeros((STEPS, 8))

    change(folder, widen)
    episode = read(folder)
    spec = episode.streams["action.joint_position"].spec
    assert (spec.shape, spec.axes, spec.unit) == ((8,), (), ("unknown",))
    assert spec.contract is not None
    assert spec.contract.parts == ()


@pytest.mark.parametrize("gone", ["action", "action/joint_position"])
def test_a_recording_that_was_given_up_is_refused(folder: Path, gone: str) -> None:
    change(folder, lambda file: file.__delitem__(gone))
    assert "missing or empty" in reading.refusal(DroidRaw(), folder).why


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[" * 100_000, "nested too deep"),
        ("[]", "is no JSON object"),
        ('{"a": NaN}', "is no JSON"),
        ("{", "is no JSON"),
        ('{"a": "' + "x" * (5 << 20) + '"}', "has more than 4,194,304 bytes"),
    ],
)
def test_metadata_that_harms_is_refused(folder: Path, text: str, why: str) -> None:
    (folder / "metadata_X.json").write_text(text)
    error = reading.refusal(DroidRaw(), folder)
    assert why in error.why
    assert error.path.endswith("metadata_X.json")


def test_metadata_of_any_names_is_kept_under_printable_ones(folder: Path) -> None:
    (folder / "metadata_X.json").write_text(json.dumps({"\x1b[2J": 1, "k" * 5_000: 2, "": 3, "user": "\x07"}))
    assert len(read(folder).extra["metadata"]) == 7


def test_a_link_out_of_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.mp4"
    video = folder / "recordings" / "MP4" / f"{HAND}.mp4"
    shutil.move(video, secret)
    video.symlink_to(secret)
    assert "outside of the recording" in reading.refusal(DroidRaw(), folder).why


@pytest.mark.parametrize("keep", [0, 40, -300])
def test_a_video_that_was_cut_off_is_refused(folder: Path, keep: int) -> None:
    video = folder / "recordings" / "MP4" / f"{HAND}.mp4"
    video.write_bytes(video.read_bytes()[:keep])
    assert reading.refusal(DroidRaw(), folder).path == str(video)


def test_external_links_are_refused(folder: Path) -> None:
    change(folder, lambda file: file["action"].__setitem__("more", h5py.ExternalLink("/etc/passwd", "/")))
    assert "never followed" in reading.refusal(DroidRaw(), folder).why


# A recording


def test_the_sample_is_what_h5py_and_pyav_read(shared_data: Path) -> None:
    (episode,) = DroidRaw().episodes(shared_data / "droid_raw")
    assert problems_of(episode) == []
    assert (episode.instructions, episode.outcome) == (("Lift the red cube",), "success")
    assert sum(event.kind == "skip_action" for event in episode.events) == 1
    folder = shared_data / "droid_raw" / Path(episode.provenance.sources[0].uri).parent
    compared = 0
    with h5py.File(folder / "trajectory.h5") as file:
        for fate in episode.provenance.ledger:
            stream = episode.streams.get(fate.to[0]) if fate.to else None
            if fate.field in file and stream is not None and stream.spec.kind == "low_dim":
                np.testing.assert_array_equal(stream.values(), file[fate.field][()], err_msg=fate.field)
                compared += 1
        assert compared >= 50
    for video in sorted((folder / "recordings" / "MP4").glob("*.mp4")):
        with av.open(str(video)) as container:
            wanted = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        np.testing.assert_array_equal(episode.streams[f"observation.images.{video.stem}"].values(), wanted)
