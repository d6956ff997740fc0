"""A store as a LeRobot dataset: what LeRobot and our own converter read of it is what the store has."""

from __future__ import annotations

import io
import json
import os
import subprocess
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from teleopen.converters.lerobot_v3 import LerobotV3
from teleopen.hub import WriteOptions
from teleopen.hub.export import lerobot as lerobot_module
from teleopen.hub.export.tables import DataFiles
from teleopen.hub.export.video import Videos, encoded, spool
from teleopen.schemas import (
    Array,
    Stream,
    StreamSpec,
)

from tests.episodes import make
from tests.hub.clips import clip
from tests.hub.export.exporting import (
    back,
    blocks_of,
    exported,
    plain,
    read_json,
    rows_of,
    store_of,
    stream_of,
    with_streams,
)
from tests.hub.export.films import CAMERA, CODECS, filmed
from tests.hub.sync.publishing import small
from tests.samples import lerobot_v3 as sample

LEROBOT = os.environ.get("TELEOPEN_LEROBOT_PYTHON", "")
READS = Path(__file__).with_name("lerobot_reads.py")


# --- what comes back ---------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", [codec for codec in CODECS if codec not in {"vp9", "av1"}])
def test_packets_come_back_byte_for_byte(codec: str, tmp_path: Path) -> None:
    store = store_of(tmp_path, *(filmed(codec, seed, 20 + seed) for seed in range(3)))
    root, report = exported(store, tmp_path)
    assert report.cameras == {CAMERA: {"remuxed": 3, "transcoded": {}}}
    assert len(list((root / "videos").rglob("*.mp4"))) == 1
    for id, found in zip(store.ids, back(root), strict=True):
        mine = store.episode(id)
        packets, theirs = mine.streams[CAMERA].packets, found.streams[CAMERA].packets
        assert packets
        assert theirs
        for one, other in zip(packets.read(), theirs.read(), strict=True):
            # MP4 keeps units by their length, so the zeros of start codes are nobody's; and of HEVC the
            # reader puts parameter sets in front of key frames that have them already.
            whole = units(one.data)
            assert units(other.data)[-len(whole) :] == whole
            assert other.pts == one.pts
        apart = mine.streams[CAMERA].values().astype(np.int16) - found.streams[CAMERA].values()
        assert np.abs(apart).max() <= (1 if "4:4:4" in codec else 0)
        for name in ("observation.state", "action", "phase"):
            assert np.array_equal(mine.streams[name].values(), found.streams[name].values())
        assert mine.instructions == found.instructions
        assert found.embodiment == mine.embodiment
        assert found.clocks["steps"].kind == "nominal"
        assert np.array_equal(mine.clocks["steps"].read(), found.clocks["steps"].read())
        assert not [warning for warning in found.provenance.warnings if "apache" not in warning]


def units(data: bytes) -> list[bytes]:
    return [unit.rstrip(b"\0") for unit in data.split(b"\0\0\1") if unit.rstrip(b"\0")]


def test_av1_comes_back_byte_for_byte(tmp_path: Path) -> None:
    store = store_of(tmp_path, *(filmed("av1", seed, 21) for seed in range(2)))
    root, _ = exported(store, tmp_path)
    for id, found in zip(store.ids, back(root), strict=True):
        packets, theirs = store.episode(id).streams[CAMERA].packets, found.streams[CAMERA].packets
        assert packets
        assert theirs
        delimiter = b"\x12\x00"  # of temporal units, which MP4 leaves out
        mine = [(p.data.removeprefix(delimiter), p.pts) for p in packets.read()]
        assert mine == [(p.data.removeprefix(delimiter), p.pts) for p in theirs.read()]


@pytest.mark.parametrize("profile", ["train", "stream", "lossless"])
def test_what_was_encoded_here_comes_back_to_the_bit(profile: Any, tmp_path: Path) -> None:
    episodes = [make(seed=seed, steps=40 + seed, size=(48, 64), imu=False, depth=False) for seed in range(2)]
    store = store_of(tmp_path, *episodes, options=WriteOptions(profile=profile))
    root, report = exported(store, tmp_path)
    assert report.cameras[CAMERA]["remuxed"] == 2
    for id, found in zip(store.ids, back(root), strict=True):
        mine = store.episode(id).streams[CAMERA].values().astype(np.int16)
        # The converter's colour arithmetic is FFmpeg's, ours is exact: one step apart in 4:4:4.
        assert np.abs(mine - found.streams[CAMERA].values()).max() <= 1


def test_a_lerobot_dataset_survives_the_way_through_a_store(tmp_path: Path) -> None:
    truth = sample.write(tmp_path / "sample")
    store = store_of(tmp_path, *LerobotV3().episodes(truth.path))
    root, report = exported(store, tmp_path)
    before, after = list(LerobotV3().episodes(truth.path)), back(root)
    assert len(before) == len(after)
    for old, new in zip(before, after, strict=True):
        for name in ("observation.state", "action", "observation.touch", "next.reward", "next.done"):
            assert np.array_equal(old.streams[name].values(), new.streams[name].values()), name
        for camera in sample.CAMERAS:
            assert np.array_equal(old.streams[camera].values(), new.streams[camera].values()), camera
        assert old.instructions == new.instructions
    assert all(not told["transcoded"] for name, told in report.cameras.items() if name in sample.CAMERAS)
    # An episode whose pictures need others from before it brings them along, and does not show them.
    wrist = [
        row[f"videos/{'observation.images.wrist'}/from_timestamp"] for row in rows_of(root, "meta/episodes")
    ]
    assert wrist != [row["dataset_from_index"] / 30 for row in rows_of(root, "meta/episodes")]


# --- what has to be encoded anew ---------------------------------------------------------------------


def test_what_mp4_cannot_hold_is_encoded_anew_and_told(tmp_path: Path) -> None:
    store = store_of(tmp_path, filmed("vp9", 1, 24))
    root, report = exported(store, tmp_path)
    ((why, count),) = report.cameras[CAMERA]["transcoded"].items()
    assert "vp9" in why
    assert count == 1
    mine, found = store.episode("0").streams[CAMERA].values(), back(root)[0].streams[CAMERA].values()
    assert np.abs(mine.astype(np.int16) - found).mean() < 3
    assert read_json(root, "meta/teleopen.json")["cameras"] == report.cameras
    assert "encoded anew" in (root / "README.md").read_text()


def test_odd_sizes_stay_what_they_are(tmp_path: Path) -> None:
    store = store_of(tmp_path, make(steps=20, size=(49, 65), imu=False, depth=False))
    root, report = exported(store, tmp_path)
    assert report.cameras[CAMERA]["remuxed"] == 0
    assert read_json(root, "meta/info.json")["features"][CAMERA]["shape"] == [49, 65, 3]
    mine, found = store.episode("0").streams[CAMERA].values(), back(root)[0].streams[CAMERA].values()
    assert mine.shape == found.shape
    assert np.abs(mine.astype(np.int16) - found).mean() < 3


def test_grey_cameras_become_colour_ones(tmp_path: Path) -> None:
    grey = clip(12, 32, 48, 1)
    spec = StreamSpec(name="observation.images.grey", kind="video", dtype="uint8", shape=(32, 48, 1))
    camera = Stream(spec=spec, length=12, read=partial(blocks_of, grey))
    root, _ = exported(store_of(tmp_path, with_streams(plain(), camera)), tmp_path)
    assert read_json(root, "meta/info.json")["features"][spec.name]["shape"] == [32, 48, 3]


# --- files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [{"file_bytes": 1}, {"file_seconds": 0.8}])
def test_full_files_are_followed_by_others(
    limit: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lerobot_module, "Videos", partial(Videos, **limit))
    monkeypatch.setattr(lerobot_module, "DataFiles", partial(DataFiles, file_bytes=1))
    store = store_of(tmp_path, *(filmed("h264 with B-frames", seed, 12 + seed) for seed in range(3)))
    root, _ = exported(store, tmp_path)
    assert len(list((root / "videos").rglob("*.mp4"))) == 3
    assert len(list((root / "data").rglob("*.parquet"))) == 3
    for id, found in zip(store.ids, back(root), strict=True):
        assert np.array_equal(store.episode(id).streams[CAMERA].values(), found.streams[CAMERA].values())


def test_films_of_several_codecs_lie_in_several_files(tmp_path: Path) -> None:
    kinds = ("h264 without B-frames", "h264 with B-frames", "hevc", "h264 without B-frames")
    store = store_of(tmp_path, *(filmed(kind, seed, 12) for seed, kind in enumerate(kinds)))
    root, _ = exported(store, tmp_path)
    assert len(list((root / "videos").rglob("*.mp4"))) == 3  # the store puts the two of a kind together
    for id, found in zip(store.ids, back(root), strict=True):
        assert np.array_equal(store.episode(id).streams[CAMERA].values(), found.streams[CAMERA].values())


@pytest.mark.parametrize("rate", [(30, 1), (25, 2), (30000, 1001), (1, 3)])
def test_pictures_stand_at_whole_multiples_of_the_period(rate: tuple[int, int], tmp_path: Path) -> None:
    exact = Fraction(*rate)
    videos = Videos(tmp_path, "cam", exact)
    places = []
    for n in (5, 7):
        with spool() as data:
            places.append(videos.add(encoded([clip(n, 32, 32, seed=n)], exact, "test", data)))
    videos.close()
    assert [p["from_timestamp"] for p in places] == [0.0, float(5 / exact)]
    (file,) = tmp_path.rglob("*.mp4")
    with av.open(str(file)) as container:
        track = container.streams.video[0]
        tick = track.time_base or Fraction(1)
        times = [(frame.pts or 0) * tick for frame in container.decode(track)]
        assert times == [index / exact for index in range(12)]
        assert track.average_rate == exact


def test_statistics_are_those_of_the_values(tmp_path: Path) -> None:
    store = store_of(tmp_path, *(small(seed, steps=30 + seed) for seed in range(3)))
    root, _ = exported(store, tmp_path)
    values = [store.episode(id).streams["action"].values().astype(np.float64) for id in store.ids]
    whole = np.concatenate(values)
    told = read_json(root, "meta/stats.json")["action"]
    check_figures(told, whole)
    for row, one in zip(rows_of(root, "meta/episodes"), values, strict=True):
        check_figures({n.rpartition("/")[2]: v for n, v in row.items() if n.startswith("stats/action/")}, one)
    frames = np.concatenate([store.episode(id).streams[CAMERA].values() for id in store.ids]) / 255
    pixels = frames.reshape(-1, 3)
    told = read_json(root, "meta/stats.json")[CAMERA]
    assert told["count"] == [93]
    for name, expected in (
        ("mean", pixels.mean(axis=0)),
        ("std", pixels.std(axis=0)),
        ("max", pixels.max(axis=0)),
    ):
        assert np.allclose(np.array(told[name]), expected.reshape(3, 1, 1), atol=1e-9), name
    median = np.quantile(pixels, 0.5, axis=0, method="inverted_cdf")
    assert np.allclose(np.array(told["q50"]).reshape(3), median)
    features = read_json(root, "meta/info.json")["features"]
    assert set(read_json(root, "meta/stats.json")) == set(features)


def check_figures(told: dict[str, Any], values: NDArray[np.float64]) -> None:
    assert told["count"] == [len(values)]
    for name in ("min", "max", "mean", "std"):
        assert np.allclose(told[name], getattr(values, name)(axis=0)), name
    for share, name in ((0.01, "q01"), (0.1, "q10"), (0.5, "q50"), (0.9, "q90"), (0.99, "q99")):
        assert np.allclose(told[name], np.quantile(values, share, axis=0, method="inverted_cdf")), name


def test_what_is_not_finite_does_not_count(tmp_path: Path) -> None:
    values = np.array([[1.0, np.nan], [np.inf, np.nan], [3.0, np.nan]] * 4, np.float32)
    episode = with_streams(plain(), stream_of("observation.force", values), without=("phase",))
    root, _ = exported(store_of(tmp_path, episode), tmp_path)
    for told in (
        read_json(root, "meta/stats.json")["observation.force"],
        {
            n.rpartition("/")[2]: v
            for n, v in rows_of(root, "meta/episodes")[0].items()
            if "/observation.force/" in n
        },
    ):
        assert told["mean"] == [2.0, 0.0]
        assert told["max"] == [3.0, 0.0]


# --- LeRobot itself ----------------------------------------------------------------------------------


@pytest.mark.skipif(not LEROBOT, reason="TELEOPEN_LEROBOT_PYTHON names no interpreter that has LeRobot")
@pytest.mark.slow
@pytest.mark.parametrize("codec", sorted(CODECS))
def test_lerobot_reads_what_the_store_has(codec: str, tmp_path: Path) -> None:
    store = store_of(tmp_path, *(filmed(codec, seed, 20 + seed) for seed in range(3)))
    found, told = lerobot_reads(exported(store, tmp_path)[0], tmp_path)
    assert (told["fps"], told["episodes"], told["robot"]) == (30, 3, "test-arm")
    assert told["tasks"] == [text for s in range(3) for text in [f"do task {s}"] * (20 + s)]
    for name in ("observation.state", "action", "phase"):
        mine = np.concatenate([store.episode(id).streams[name].values() for id in store.ids])
        assert np.array_equal(found[name], mine), name
    counted = np.concatenate([np.arange(20 + seed) / 30 for seed in range(3)]).astype(np.float32)
    assert np.array_equal(found["timestamp"], counted)
    frames = np.concatenate([store.episode(id).streams[CAMERA].values() for id in store.ids]).astype(np.int16)
    apart = np.abs(frames - found[CAMERA])
    if codec == "vp9":  # encoded anew
        assert apart.mean() < 3
    else:  # 4:4:4 is exact here, and rounded by FFmpeg
        assert apart.max() <= (1 if "4:4:4" in codec else 0)
    everything = {"min", "max", "mean", "std", "count", "q01", "q10", "q50", "q90", "q99"}
    assert all(set(figures) == everything for figures in told["stats"].values())


@pytest.mark.skipif(not LEROBOT, reason="TELEOPEN_LEROBOT_PYTHON names no interpreter that has LeRobot")
@pytest.mark.slow
def test_lerobot_reads_its_own_dataset_after_a_store(tmp_path: Path) -> None:
    truth = sample.write(tmp_path / "sample")
    store = store_of(tmp_path, *LerobotV3().episodes(truth.path))
    found, _ = lerobot_reads(exported(store, tmp_path)[0], tmp_path)
    for name in ("observation.state", "observation.touch", "next.done", *sample.CAMERAS):
        mine = np.concatenate([store.episode(id).streams[name].values() for id in store.ids])
        assert np.allclose(found[name].astype(np.float64), mine, rtol=1e-6), name


def lerobot_reads(root: Path, work: Path) -> tuple[dict[str, Array], Any]:
    out = work / "read.npz"
    offline = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(work / "hf"),
        "HF_DATASETS_CACHE": str(work / "hf"),
    }
    done = subprocess.run(
        [LEROBOT, str(READS), str(root), str(out)], check=False, capture_output=True, text=True, env=offline
    )
    assert done.returncode == 0, done.stderr[-3000:]
    with np.load(io.BytesIO(out.read_bytes())) as found:
        return dict(found), json.loads(done.stdout.splitlines()[-1])
