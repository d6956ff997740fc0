"""A LeRobot dataset of version 2.1 as lerobot 0.3.3 lays it out, in GR00T's dialect: three episodes.

After lerobot/common/datasets/ of huggingface/lerobot at v0.3.3, and NVIDIA/Isaac-GR00T:
getting_started/data_preparation.md. What the episodes hold is made as for version 3.
"""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tests.samples import EpisodeTruth, Truth
from tests.samples import lerobot_v3 as v3

FPS, TASKS = v3.FPS, v3.TASKS
LENGTHS = v3.LENGTHS[:3]
CHUNK = 2
"""Episodes of a chunk, so that there are two."""
CAMERA = "observation.images.top"
VALIDITY = "annotation.human.validity"
MODALITY: dict[str, Any] = {
    "state": {"arm": {"start": 0, "end": 2}, "gripper": {"start": 2, "end": 3, "range": [0, 1]}},
    "action": {
        "arm": {"start": 0, "end": 2, "absolute": False, "rotation_type": "euler_angles_rpy"},
        "gripper": {"start": 2, "end": 3, "absolute": True},
    },
    "video": {"ego_view": {"original_key": CAMERA}},
    "annotation": {"human.validity": {}},
}


def write(folder: Path) -> Truth:
    """Write the sample, and one whose video is shorter than its data."""
    random = np.random.default_rng(21)
    root, broken = folder / "dataset", folder / "broken"
    films = [v3.film(random, length) for length in LENGTHS]
    columns = [v3.episode(random, index) for index in range(len(LENGTHS))]
    write_dataset(root, columns, films)
    shutil.copytree(root, broken)
    broken.joinpath(video_path(2)).write_bytes(v3.encoded(films[2][:-1], "libx264"))
    return Truth(
        path=root,
        episodes=tuple(truth(index, columns[index], films[index]) for index in range(len(LENGTHS))),
        fields=FIELDS,
        broken=broken,
    )


def truth(index: int, columns: v3.Columns, film: v3.Film) -> EpisodeTruth:
    values: dict[str, NDArray[Any]] = {name: columns[name] for name in (*v3.NUMBERS, v3.STILL)}
    task = v3.TASK_OF[index]
    return EpisodeTruth(
        values=values | {VALIDITY: np.ones(LENGTHS[index], np.int64)},
        close={CAMERA: (film, 32.0)},
        times={"steps": np.array([round(i * 1e9 / FPS) for i in range(LENGTHS[index])], np.int64)},
        instructions=TASKS if task is None else (TASKS[task],),
    )


FIELDS = frozenset(
    {f"data#{name}" for name in (*v3.NUMBERS, v3.STILL, v3.SUBGOAL, VALIDITY)}
    | {f"data#{name}" for name in ("timestamp", "frame_index", "episode_index", "index", "task_index")}
    | {f"videos#{CAMERA}", "meta/tasks.jsonl", "meta/episodes_stats.jsonl"}
    | {f"meta/info.json#{member}" for member in ("fps", "features", "robot_type", "total_chunks")}
    | {f"meta/episodes.jsonl#{member}" for member in ("episode_index", "tasks", "length")}
    | {f"meta/modality.json#{section}" for section in MODALITY}
)


def info() -> dict[str, Any]:
    """Return what info.json says of the sample."""
    told = v3.info()
    features = {name: told["features"][name] for name in told["features"] if name not in v3.CAMERAS}
    features[CAMERA] = told["features"][CAMERA]
    features[VALIDITY] = {"dtype": "int64", "shape": [1], "names": None}
    features["observation.state"] = features["observation.state"] | {"names": None}
    return {
        "codebase_version": "v2.1",
        "robot_type": "so101_follower",
        "total_episodes": len(LENGTHS),
        "total_frames": sum(LENGTHS),
        "total_tasks": len(TASKS),
        "total_videos": len(LENGTHS),
        "total_chunks": 2,
        "chunks_size": CHUNK,
        "fps": FPS,
        "splits": {"train": f"0:{len(LENGTHS)}"},
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
        "features": features,
    }


def data_path(index: int) -> str:
    return f"data/chunk-{index // CHUNK:03d}/episode_{index:06d}.parquet"


def video_path(index: int) -> str:
    return f"videos/chunk-{index // CHUNK:03d}/{CAMERA}/episode_{index:06d}.mp4"


def write_dataset(root: Path, columns: list[v3.Columns], films: list[v3.Film]) -> None:
    """Write all files of a dataset."""
    for index, film in enumerate(films):
        data, video = root / data_path(index), root / video_path(index)
        for path in (data, video):
            path.parent.mkdir(parents=True, exist_ok=True)
        table = v3.table(columns[index], index)
        pq.write_table(table.append_column(VALIDITY, pa.array(np.ones(len(film), np.int64))), data)
        video.write_bytes(v3.encoded(film, "libx264"))
    meta = root / "meta"
    meta.mkdir()
    write_lines(meta / "episodes.jsonl", (row(index, columns[index]) for index in range(len(films))))
    write_lines(meta / "tasks.jsonl", ({"task_index": i, "task": task} for i, task in enumerate(TASKS)))
    write_lines(meta / "episodes_stats.jsonl", ({"episode_index": i} for i in range(len(films))))
    meta.joinpath("info.json").write_text(json.dumps(info()), encoding="utf-8")
    meta.joinpath("modality.json").write_text(json.dumps(MODALITY), encoding="utf-8")


def row(index: int, columns: v3.Columns) -> dict[str, Any]:
    """Return an episode's line."""
    used = dict.fromkeys(columns["task_index"].tolist())
    return {"episode_index": index, "tasks": [TASKS[i] for i in used], "length": LENGTHS[index]}


def write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
