"""A store as a LeRobot dataset: vectors, times and tasks; what may go; all of it or nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from teleopen.cli.main import main
from teleopen.hub.export import export_lerobot
from teleopen.hub.export import video as video_module
from teleopen.schemas import (
    ActionContract,
    ActionPart,
    Event,
    NotFoundError,
    RightsError,
    SchemaError,
    StoreError,
)

from tests.hub.export.exporting import (
    EVERYTHING,
    OPEN_ONLY,
    back,
    exported,
    plain,
    read_json,
    rows_of,
    slow_times,
    store_of,
    stream_of,
    with_streams,
)
from tests.hub.export.films import CAMERA
from tests.hub.sync.publishing import OPEN, rights, small

# --- vectors, times, tasks ---------------------------------------------------------------------------


def test_finer_streams_become_vectors_with_named_slices(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arm, grip = rng.normal(size=(12, 3)).astype(np.float32), rng.normal(size=12).astype(np.float32)
    scene = rng.normal(size=(12, 2)).astype(np.float32)
    contract = ActionContract(
        parts=(ActionPart(start=0, stop=3, space="joint_position", mode="delta", rotation="none"),)
    )
    episode = with_streams(
        plain(),
        stream_of("observation.gripper", grip),
        stream_of("observation.joint_position", arm, axes=("a", "b", "c")),
        stream_of("observation.target", scene),
        stream_of("action.gripper", grip + 1, contract=ActionContract()),
        stream_of("action.joint_position", arm + 1, contract=contract),
        without=("observation.state", "action"),
    )
    root, report = exported(store_of(tmp_path, episode), tmp_path)
    features = read_json(root, "meta/info.json")["features"]
    assert features["observation.state"]["names"] == [
        "joint_position.a",
        "joint_position.b",
        "joint_position.c",
        "gripper",
    ]
    assert features["action"]["shape"] == [4]
    assert "observation.target" in report.features
    found = back(root)[0].streams
    assert np.array_equal(found["observation.state"].values(), np.column_stack([arm, grip]))
    assert np.array_equal(found["action"].values(), np.column_stack([arm + 1, grip + 1]))
    told = read_json(root, "meta/modality.json")
    assert told["state"] == {"joint_position": {"start": 0, "end": 3}, "gripper": {"start": 3, "end": 4}}
    assert told["action"]["joint_position"] == {"start": 0, "end": 3, "absolute": False}
    parts = found["action"].spec.contract
    assert parts
    assert parts.parts[0].mode == "delta"


def test_measured_times_have_a_column_of_their_own(tmp_path: Path) -> None:
    episode = plain()
    times = np.cumsum(np.r_[0, np.random.default_rng(1).integers(20_000_000, 40_000_000, 11)])
    clock = replace(
        episode.clocks["steps"], kind="recorded", measured_hz=29.9, read=partial(np.array, times, np.int64)
    )
    root, report = exported(store_of(tmp_path, replace(episode, clocks={"steps": clock})), tmp_path)
    rows = rows_of(root, "data")
    assert [row["recorded_time_ns"] for row in rows] == times.tolist()
    assert [row["timestamp"] for row in rows] == (np.arange(12) / 30).astype(np.float32).tolist()
    assert any("recorded_time_ns" in note for note in report.notes)
    assert read_json(root, "meta/info.json")["fps"] == 30


def test_other_clocks_are_left_out_with_a_word_or_aligned(tmp_path: Path) -> None:
    store = store_of(tmp_path, small(3, imu=True, depth=True, cameras=()))
    root, report = exported(store, tmp_path)
    assert set(report.dropped) == {"imu.accel", "observation.depth.top"}
    assert "imu.accel" in (root / "README.md").read_text()
    assert read_json(root, "meta/teleopen.json")["dropped"] == report.dropped
    again = export_lerobot(store, tmp_path / "aligned", replace(EVERYTHING, align="previous"))
    assert set(again.dropped) == {"observation.depth.top"}
    mine = store.episode("0")
    steps, imu = mine.clocks["steps"].read(), mine.clocks["imu"].read()
    latest = np.maximum(0, np.searchsorted(imu, steps, side="right") - 1)
    found = back(tmp_path / "aligned")[0].streams["imu.accel"].values()
    assert np.array_equal(found, mine.streams["imu.accel"].values()[latest])


def test_a_camera_on_another_clock_shows_the_latest_frame_of_each_row(tmp_path: Path) -> None:
    episode = small(3, imu=True, size=(64, 80), steps=12)
    slow = replace(
        episode.clocks["steps"], name="video", declared_hz=15, length=6, read=partial(slow_times, 6)
    )
    camera = episode.streams[CAMERA]
    moved = replace(camera, spec=replace(camera.spec, clock="video"), length=6)
    mixed = replace(
        episode,
        clocks={**episode.clocks, "video": slow},
        streams={**episode.streams, CAMERA: moved},
    )
    store = store_of(tmp_path, mixed)
    root, report = exported(store, tmp_path, replace(EVERYTHING, align="previous"))
    assert list(report.cameras[CAMERA]["transcoded"]) == ["it was on another clock"]
    frames = store.episode("0").streams[CAMERA].values().astype(np.int16)
    found = back(root)[0].streams[CAMERA].values()
    assert len(found) == 12
    apart = [np.abs(found - np.roll(frames, by, 0)[np.arange(12) // 2]).mean() for by in range(6)]
    assert apart[0] == min(apart)
    assert apart[0] < 3
    other = export_lerobot(store, tmp_path / "slow", replace(EVERYTHING, clock="video", align="previous"))
    assert (other.frames, other.fps) == (6, 15)
    assert other.cameras[CAMERA]["remuxed"] == 1


def test_instructions_follow_their_events(tmp_path: Path) -> None:
    events = (
        Event(kind="instruction", start_ns=0, stop_ns=200_000_000, text="reach"),
        Event(kind="instruction", start_ns=200_000_000, text="grasp"),
        Event(kind="phase", start_ns=0, text="x"),
    )
    first = replace(plain(1), instructions=("reach", "grasp"), events=events)
    root, report = exported(store_of(tmp_path, first, replace(plain(2), instructions=())), tmp_path)
    rows = rows_of(root, "data")
    assert [row["task_index"] for row in rows] == [0] * 6 + [1] * 6 + [2] * 12
    assert pq.read_table(root / "meta/tasks.parquet")["task"].to_pylist() == ["reach", "grasp", ""]
    assert "events of kind phase" in report.dropped


def test_streams_that_not_every_episode_has_are_left_out_with_a_word(tmp_path: Path) -> None:
    extra = stream_of("observation.extra", np.zeros((12, 2), np.float32))
    other = stream_of("phase", np.zeros((12, 3), np.float32))
    store = store_of(tmp_path, plain(1), with_streams(plain(2), extra, other))
    _, report = exported(store, tmp_path)
    assert set(report.dropped) == {"observation.extra", "phase"}
    assert set(report.features) == {"observation.state", "action"}


def test_names_of_lerobots_own_columns_give_way(tmp_path: Path) -> None:
    index = stream_of("index", np.arange(12, dtype=np.int64) + 5)
    root, _ = exported(store_of(tmp_path, with_streams(plain(), index)), tmp_path)
    rows = rows_of(root, "data")
    assert [row["source.index"] for row in rows] == list(range(5, 17))
    assert [row["index"] for row in rows] == list(range(12))


# --- rights ------------------------------------------------------------------------------------------


def test_only_what_is_open_goes(tmp_path: Path) -> None:
    store = store_of(tmp_path, plain(1), plain(2), plain(3))
    store.set_rights(OPEN, ["0", "2"])
    root, report = exported(store, tmp_path, OPEN_ONLY)
    assert report.episodes == 2
    assert [row["teleopen/id"] for row in rows_of(root, "meta/episodes")] == [store.ids[0], store.ids[2]]
    assert {row["teleopen/licence"] for row in rows_of(root, "meta/episodes")} == {"CC-BY-4.0"}
    raw = b"".join(p.read_bytes() for p in root.rglob("*") if p.is_file())
    assert store.ids[1].encode() not in raw
    assert b"do task 2" not in raw
    header = yaml.safe_load((root / "README.md").read_text().split("---\n")[1])
    assert header["license"] == "cc-by-4.0"
    assert "LeRobot" in header["tags"]
    assert (root / "LICENSES/CC-BY-4.0.txt").is_file()
    assert b"Kitchen" in (root / "NOTICE").read_bytes()


def test_what_is_private_in_an_open_episode_stays(tmp_path: Path) -> None:
    hidden = replace(plain(1).streams["phase"].spec, attributes={"rights": {"tier": "gated"}})
    episode = with_streams(plain(1), replace(plain(1).streams["phase"], spec=hidden))
    episode = replace(episode, instructions=("mail ada@lab.example.com",), extra={"note": "CANARY"})
    root, report = exported(store_of(tmp_path, episode, opened=OPEN), tmp_path, OPEN_ONLY)
    raw = b"".join(p.read_bytes() for p in root.rglob("*") if p.is_file())
    assert b"CANARY" not in raw
    assert b"ada@" not in raw
    assert "phase" not in report.features
    assert b"phase" not in raw


def test_a_house_may_export_everything_for_itself_and_the_card_says_so(tmp_path: Path) -> None:
    root, report = exported(store_of(tmp_path, plain(1)), tmp_path, EVERYTHING)
    assert report.licence == ""
    card = (root / "README.md").read_text()
    assert "not to be passed on" in card
    assert yaml.safe_load(card.split("---\n")[1])["license"] == "other"
    assert not (root / "LICENSES").exists()


def test_nothing_open_is_refused_with_the_codes(tmp_path: Path) -> None:
    with pytest.raises(RightsError, match="R01_LICENCE_MISSING"):
        exported(store_of(tmp_path, plain(1)), tmp_path, OPEN_ONLY)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store"]


def test_of_several_licences_one_is_chosen(tmp_path: Path) -> None:
    store = store_of(tmp_path, plain(1), plain(2))
    store.set_rights(OPEN, ["0"])
    store.set_rights(rights(licence__expression="CC0-1.0"), ["1"])
    with pytest.raises(RightsError, match=r"several: CC-BY-4\.0, CC0-1\.0"):
        exported(store, tmp_path, OPEN_ONLY)
    root, report = exported(store, tmp_path, replace(OPEN_ONLY, licence="CC0-1.0"))
    assert report.episodes == 1
    assert (root / "LICENSES/CC0-1.0.txt").is_file()
    with pytest.raises(RightsError, match="under MIT"):
        export_lerobot(store, tmp_path / "more", replace(OPEN_ONLY, licence="MIT"))


# --- all or nothing ----------------------------------------------------------------------------------


def test_a_folder_that_holds_something_is_refused(tmp_path: Path) -> None:
    store = store_of(tmp_path, plain(1))
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("x")
    with pytest.raises(StoreError, match="new or an empty"):
        exported(store, tmp_path)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]
    (tmp_path / "out/mine.txt").unlink()
    assert (exported(store, tmp_path)[0] / "meta/info.json").is_file()


@pytest.mark.parametrize("at", ["add", "close"])
def test_what_fails_midway_leaves_nothing(at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_of(tmp_path, *(small(seed) for seed in range(2)))

    def full(*_: object) -> None:
        raise StoreError("disk", "is full")

    monkeypatch.setattr(video_module.Videos, at, full)
    with pytest.raises(StoreError, match="is full"):
        exported(store, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store"]


def test_a_damaged_camera_ends_it(tmp_path: Path) -> None:
    store = store_of(tmp_path, small(1))
    (shard,) = (path for path in (tmp_path / "store").rglob("c/0/0/0/0") if CAMERA in str(path))
    raw = bytearray(shard.read_bytes())
    raw[len(raw) // 2] ^= 1
    shard.chmod(0o644)
    shard.write_bytes(raw)
    with pytest.raises(StoreError):
        exported(store, tmp_path)
    assert not (tmp_path / "out").exists()


def test_episodes_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    slow = plain(2)
    clock = replace(slow.clocks["steps"], declared_hz=10, read=partial(slow_times, 12))
    store = store_of(tmp_path, plain(1), replace(slow, clocks={"steps": clock}))
    with pytest.raises(SchemaError, match="from 10 to 30 steps per second"):
        exported(store, tmp_path)
    _, report = exported(store, tmp_path, replace(EVERYTHING, episodes=("1",)))
    assert (report.episodes, report.fps) == (1, 10)
    with pytest.raises(SchemaError, match="it has steps"):
        export_lerobot(store, tmp_path / "more", replace(EVERYTHING, clock="imu"))
    with pytest.raises(NotFoundError):
        export_lerobot(store, tmp_path / "more", replace(EVERYTHING, episodes=("77",)))


def test_the_command_tells_what_became_of_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = store_of(tmp_path, small(1, imu=True), opened=OPEN)
    words = ["export", store.url, str(tmp_path / "out"), "--to", "lerobot-v3"]
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["episodes"], told["fps"], told["licence"], told["open_only"]) == (1, 30, "CC-BY-4.0", True)
    assert told["cameras"][CAMERA]["remuxed"] == 1
    assert "imu.accel" in told["dropped"]
    assert main(words) == 1
    assert "new or an empty folder" in capsys.readouterr().err
    assert main(["export", store.url, str(tmp_path / "two"), "--to", "lerobot-v3", "--all"]) == 0
    assert "imu.accel" in capsys.readouterr().out
