"""LeRobot: its own writer as a peer, and datasets in its format v3.0 as sources.

The datasets are written here, since LeRobot's writer offers no long GOPs; what they hold is told in the
source of lerobot 0.4.4, src/lerobot/datasets.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .corpus import Bench
from .mp4 import encode_mp4
from .peers import peer
from .sample import CAMERAS, FPS

_VALUES = ("observation.state", "action")
_TASK = "Push the parts around the mat with both arms"


class LerobotWriter:
    """Writes the recording with lerobot's own `LeRobotDataset`, as its recording script would."""

    def __init__(self, bench: Bench, module: Any) -> None:
        self.bench, self.module = bench, module
        names = {name: bench.streams[name] for name in _VALUES}
        images = {f"observation.images.{camera}": bench.clips[camera] for camera in CAMERAS}
        self.frames = [
            {"task": _TASK, **{name: array[i] for name, array in (names | images).items()}}
            for i in range(len(names["action"]))
        ]
        self.features = _features(bench)

    def write(self, episodes: int, *, steps: int | None = None, streaming: bool = False) -> None:
        """Write a new dataset of the recording's first ``steps`` steps, ``episodes`` times."""
        # Threads as in LeRobot's recorder: four for each camera.
        how = {"streaming_encoding": True, "encoder_queue_maxsize": 400} if streaming else {}
        dataset = self.module.LeRobotDataset.create(
            "benchmarks/none",
            FPS,
            self.features,
            root=self.bench.new_folder() / "dataset",
            image_writer_threads=0 if streaming else 4 * len(CAMERAS),
            **how,
        )
        for _ in range(episodes):
            for frame in self.frames[:steps]:
                dataset.add_frame(dict(frame))
            dataset.save_episode()
        dataset.finalize()
        # LeRobot leaves FFmpeg's own logging switched on.
        av.logging.set_libav_level(av.logging.ERROR)


def lerobot_writer(bench: Bench, absent: list[str]) -> LerobotWriter | None:
    """Return LeRobot's writer, warmed up; None if it is absent."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_DISABLE_PROGRESS_BARS"):
        os.environ.setdefault(name, "1")
    os.environ.setdefault("SVT_LOG", "0")
    module = peer("lerobot", absent)
    if module is None:
        return None
    writer = LerobotWriter(bench, module)
    writer.write(1, steps=4)
    return writer


def make_dataset(
    bench: Bench, root: Path, encoder: str, options: Mapping[str, str], episodes: int, takes: int = 1
) -> None:
    """Write a dataset of format v3.0 whose episodes hold the recording ``takes`` times each."""
    steps = takes * bench.episode.streams["action"].length
    for camera in CAMERAS:
        path = root / f"videos/observation.images.{camera}/chunk-000/file-000.mp4"
        encode_mp4(bench.clips[camera], path, encoder, options, repeats=episodes * takes)
    columns: dict[str, Any] = {}
    for name in _VALUES:
        values = np.tile(bench.streams[name].astype(np.float32), (episodes * takes, 1))
        columns[name] = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
    frame = np.tile(np.arange(steps), episodes)
    columns |= {
        "timestamp": (frame / FPS).astype(np.float32),
        "frame_index": frame,
        "episode_index": np.repeat(np.arange(episodes), steps),
        "index": np.arange(steps * episodes),
        "task_index": np.zeros(steps * episodes, np.int64),
    }
    _write_table(root / "data/chunk-000/file-000.parquet", columns)
    _write_table(root / "meta/tasks.parquet", {"task_index": [0], "__index_level_0__": [_TASK]})
    _write_table(root / "meta/episodes/chunk-000/file-000.parquet", _episode_table(episodes, steps))
    info = {
        "codebase_version": "v3.0",
        "robot_type": "aloha",
        "total_episodes": episodes,
        "total_frames": steps * episodes,
        "total_tasks": 1,
        "chunks_size": 1000,
        "fps": FPS,
        "splits": {"train": f"0:{episodes}"},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        "features": _features(bench) | _bookkeeping(),
    }
    (root / "meta/info.json").write_text(json.dumps(info))


def add_stats(bench: Bench, root: Path) -> None:
    """Write the statistics without which LeRobot does not open a dataset."""
    found: dict[str, Any] = {}
    for name in _VALUES:
        values = bench.streams[name]
        found[name] = {
            "min": values.min(0).tolist(),
            "max": values.max(0).tolist(),
            "mean": values.mean(0).tolist(),
            "std": values.std(0).tolist(),
            "count": [len(values)],
        }
    (root / "meta/stats.json").write_text(json.dumps(found))


def _features(bench: Bench) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for camera in CAMERAS:
        shape = bench.clips[camera].shape[1:]
        names = ["height", "width", "channels"]
        found[f"observation.images.{camera}"] = {"dtype": "video", "shape": shape, "names": names}
    for name in _VALUES:
        extent = bench.streams[name].shape[1]
        found[name] = {"dtype": "float32", "shape": (extent,), "names": [f"joint_{i}" for i in range(extent)]}
    return found


def _bookkeeping() -> dict[str, Any]:
    kinds = dict.fromkeys(("frame_index", "episode_index", "index", "task_index"), "int64")
    return {
        name: {"dtype": kind, "shape": (1,), "names": None}
        for name, kind in {"timestamp": "float32", **kinds}.items()
    }


def _episode_table(episodes: int, steps: int) -> dict[str, Any]:
    number = np.arange(episodes)
    found: dict[str, Any] = {
        "episode_index": number,
        "tasks": [[_TASK]] * episodes,
        "length": np.full(episodes, steps),
        "data/chunk_index": 0 * number,
        "data/file_index": 0 * number,
        "dataset_from_index": number * steps,
        "dataset_to_index": (number + 1) * steps,
    }
    for camera in CAMERAS:
        key = f"videos/observation.images.{camera}"
        found |= {f"{key}/chunk_index": 0 * number, f"{key}/file_index": 0 * number}
        found |= {
            f"{key}/from_timestamp": number * steps / FPS,
            f"{key}/to_timestamp": (number + 1) * steps / FPS,
        }
    return found


def _write_table(path: Path, columns: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(dict(columns)), path)
