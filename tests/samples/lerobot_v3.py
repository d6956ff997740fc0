"""A LeRobot dataset of version 3.0 as lerobot 0.4.4 lays it out: four episodes in two files of each kind.

After src/lerobot/datasets/ of huggingface/lerobot. One camera is AV1 with a key frame every other picture,
each episode encoded by itself and put behind the one before, which is LeRobot's way. The other is H.264 in
long groups that run on from one episode to the next, so that decoding the second one begins before it.
Episodes end there on pictures that refer to nothing later.
"""

import io
import json
import shutil
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from tests.samples import EpisodeTruth, Truth

FPS = 30
LENGTHS = (25, 21, 19, 10)
FILES = ((0, 1, 2), (3,))
HEIGHT, WIDTH = 64, 80
SWITCH = 8
TASKS = ("Pick up the cube.", "Put the cube into the “tray”.")
TASK_OF = (0, None, 1, 0)
"""The task of each episode; the second one goes from one to the other."""

CAMERAS = {"observation.images.top": "libsvtav1", "observation.images.wrist": "libx264"}
OPTIONS = {
    "libsvtav1": {"g": "2", "crf": "20", "preset": "12", "svtav1-params": "lp=1"},
    "libx264": {"g": "12", "bf": "2", "crf": "16", "x264-params": "b-adapt=0:scenecut=0:b-pyramid=none"},
}
NUMBERS: dict[str, pa.DataType] = {
    "observation.state": pa.list_(pa.float32(), 3),
    "action": pa.list_(pa.float32(), 3),
    "observation.touch": pa.list_(pa.list_(pa.float64())),
    "next.reward": pa.float32(),
    "next.done": pa.bool_(),
}
STILL, SUBGOAL = "observation.images.still", "subgoal"
MEMBERS: list[tuple[str, pa.DataType]] = [("bytes", pa.binary()), ("path", pa.string())]
JOINTS = ["shoulder", "elbow", "gripper"]

Film = NDArray[np.uint8]
Columns = dict[str, Any]


def write(folder: Path) -> Truth:
    """Write the sample, and one of whose videos was cut off."""
    random = np.random.default_rng(30)
    root, broken = folder / "dataset", folder / "broken"
    films = {camera: [film(random, length) for length in LENGTHS] for camera in CAMERAS}
    columns = [episode(random, index) for index in range(len(LENGTHS))]
    write_dataset(root, columns, films)
    shutil.copytree(root, broken)
    cut = broken / video_path("observation.images.wrist", 0)
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size * 3 // 4])
    return Truth(
        path=root,
        episodes=tuple(truth(index, columns[index], films) for index in range(len(LENGTHS))),
        fields=FIELDS,
        broken=broken,
    )


def truth(index: int, columns: Columns, films: dict[str, list[Film]]) -> EpisodeTruth:
    values: dict[str, NDArray[Any]] = {name: columns[name] for name in (*NUMBERS, STILL)}
    task = TASK_OF[index]
    return EpisodeTruth(
        values=values,
        close={camera: (films[camera][index], 32.0) for camera in CAMERAS},
        times={"steps": np.array([round(i * 1e9 / FPS) for i in range(LENGTHS[index])], np.int64)},
        instructions=TASKS if task is None else (TASKS[task],),
    )


FIELDS = frozenset(
    {f"data#{name}" for name in (*NUMBERS, STILL, SUBGOAL)}
    | {f"data#{name}" for name in ("timestamp", "frame_index", "episode_index", "index", "task_index")}
    | {f"videos#{camera}" for camera in CAMERAS}
    | {
        f"meta/info.json#{member}"
        for member in ("codebase_version", "robot_type", "fps", "features", "splits")
    }
    | {
        f"meta/info.json#{member}"
        for member in ("total_episodes", "total_frames", "total_tasks", "chunks_size")
    }
    | {f"meta/info.json#{member}" for member in ("data_files_size_in_mb", "video_files_size_in_mb")}
    | {f"meta/info.json#{member}" for member in ("data_path", "video_path")}
    | {f"meta/episodes#{column}" for column in ("episode_index", "tasks", "length", "stats/*")}
    | {f"meta/episodes#dataset_{end}_index" for end in ("from", "to")}
    | {f"meta/episodes#data/{number}_index" for number in ("chunk", "file")}
    | {f"meta/episodes#videos/{c}/{end}_timestamp" for c in CAMERAS for end in ("from", "to")}
    | {"meta/tasks.parquet", "meta/stats.json", "README.md"}
)


def episode(random: np.random.Generator, index: int) -> Columns:
    """Make the columns of an episode: NumPy arrays, and lists of text."""
    length, task = LENGTHS[index], TASK_OF[index]
    path = np.cumsum(random.normal(0, 0.02, (length, 3)), axis=0).astype(np.float32)
    switched = (np.arange(length) >= SWITCH).astype(np.int64)
    return {
        "observation.state": path,
        "action": (path + 0.01).astype(np.float32),
        "observation.touch": random.normal(size=(length, 2, 4)),
        "next.reward": random.random(length, np.float32),
        "next.done": np.arange(length) == length - 1,
        STILL: film(random, length),
        SUBGOAL: ["reach" if i < length // 2 else "grasp" for i in range(length)],
        "task_index": switched if task is None else np.full(length, task),
    }


def film(random: np.random.Generator, length: int) -> Film:
    """Make a smooth coloured picture that drifts: (T, H, W, 3)."""
    t, y, x = np.meshgrid(np.arange(length), np.arange(HEIGHT), np.arange(WIDTH), indexing="ij")
    waves = [np.sin((x * a + y * b + t) / 17) for a, b in random.uniform(0.2, 1, (3, 2))]
    return np.stack([40 + 30 * waves[0], 120 + 30 * waves[1], 200 + 30 * waves[2]], axis=-1).astype(np.uint8)


def write_dataset(root: Path, columns: list[Columns], films: dict[str, list[Film]]) -> None:
    """Write all files of a dataset."""
    for number, episodes in enumerate(FILES):
        write_data(root / f"data/chunk-000/file-{number:03d}.parquet", columns, episodes)
        for camera, codec in CAMERAS.items():
            path = root / video_path(camera, number)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_video(path, [films[camera][i] for i in episodes], codec)
        write_episodes(root / f"meta/episodes/chunk-000/file-{number:03d}.parquet", columns, episodes)
    # As pandas writes a table whose index has no name.
    tasks = pa.table({"task_index": list(range(len(TASKS))), "__index_level_0__": list(TASKS)})
    pq.write_table(tasks, root / "meta/tasks.parquet")
    root.joinpath("meta/info.json").write_text(json.dumps(info(), indent=4), encoding="utf-8")
    root.joinpath("meta/stats.json").write_text(json.dumps({"action": {"count": [sum(LENGTHS)]}}))
    root.joinpath("README.md").write_text("---\nlicense: apache-2.0\ntags:\n- LeRobot\n---\n\nA dataset.\n")


def video_path(camera: str, number: int) -> str:
    return f"videos/{camera}/chunk-000/file-{number:03d}.mp4"


def info() -> dict[str, Any]:
    """Return what info.json says of the sample."""
    one = {"shape": [1], "names": None}
    shown = {"video.fps": FPS, "video.codec": "av1", "video.pix_fmt": "yuv420p", "has_audio": False}
    pictures = {"shape": [HEIGHT, WIDTH, 3], "names": ["height", "width", "channels"]}
    joints: dict[str, Any] = {"dtype": "float32", "shape": [3]}
    features: dict[str, Any] = {
        "observation.state": {**joints, "names": {"motors": JOINTS}},
        "action": {**joints, "names": JOINTS},
        "observation.touch": {"dtype": "float64", "shape": [2, 4], "names": None},
        "next.reward": {"dtype": "float32", **one},
        "next.done": {"dtype": "bool", **one},
        SUBGOAL: {"dtype": "string", **one},
        STILL: {"dtype": "image", **pictures},
        **{camera: {"dtype": "video", **pictures, "info": shown} for camera in CAMERAS},
        "timestamp": {"dtype": "float32", **one},
        **{n: {"dtype": "int64", **one} for n in ("frame_index", "episode_index", "index", "task_index")},
    }
    return {
        "codebase_version": "v3.0",
        "robot_type": "so101_follower",
        "total_episodes": len(LENGTHS),
        "total_frames": sum(LENGTHS),
        "total_tasks": len(TASKS),
        "chunks_size": 1000,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "fps": FPS,
        "splits": {"train": f"0:{len(LENGTHS)}"},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        "features": features,
    }


def write_data(path: Path, columns: list[Columns], episodes: Sequence[int]) -> None:
    """Write a data file with one row group per episode."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tables = [table(columns[index], index) for index in episodes]
    with pq.ParquetWriter(path, tables[0].schema, compression="snappy") as writer:
        for rows in tables:
            writer.write_table(rows)


def table(columns: Columns, index: int) -> pa.Table:
    """Return the rows of an episode."""
    length = LENGTHS[index]
    frames = np.arange(length)
    arrays = {name: pa.array(columns[name].tolist(), kind) for name, kind in NUMBERS.items()}
    files = [
        {"bytes": png(picture), "path": f"frame-{i:06d}.png"} for i, picture in enumerate(columns[STILL])
    ]
    return pa.table(
        {
            **arrays,
            SUBGOAL: pa.array(columns[SUBGOAL]),
            STILL: pa.array(files, pa.struct(MEMBERS)),
            "timestamp": pa.array((frames / FPS).astype(np.float32)),
            "frame_index": pa.array(frames),
            "episode_index": pa.array(np.full(length, index)),
            "index": pa.array(sum(LENGTHS[:index]) + frames),
            "task_index": pa.array(columns["task_index"]),
        }
    )


def png(picture: Film) -> bytes:
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "PNG")
    return out.getvalue()


def write_episodes(path: Path, columns: list[Columns], episodes: Sequence[int]) -> None:
    """Write the part of the episodes' table that is about the episodes of one file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows, seconds = [], 0.0
    for index in episodes:
        start, duration = sum(LENGTHS[:index]), LENGTHS[index] / FPS
        file = {"chunk_index": 0, "file_index": FILES.index(tuple(episodes))}
        span = {"from_timestamp": seconds, "to_timestamp": seconds + duration}
        row = {
            "episode_index": index,
            "tasks": [TASKS[i] for i in dict.fromkeys(columns[index]["task_index"].tolist())],
            "length": LENGTHS[index],
            **{f"data/{name}": value for name, value in file.items()},
            "dataset_from_index": start,
            "dataset_to_index": start + LENGTHS[index],
            **{f"videos/{camera}/{n}": v for camera in CAMERAS for n, v in {**file, **span}.items()},
            "stats/action/max": columns[index]["action"].max(axis=0).tolist(),
        }
        rows.append(row)
        seconds += duration
    pq.write_table(pa.Table.from_pylist(rows), path)


def write_video(path: Path, films: list[Film], codec: str) -> None:
    """Write films behind each other: AV1 each for itself, H.264 in one go."""
    parts = films if codec == "libsvtav1" else [np.concatenate(films)]
    with av.open(str(path), "w", format="mp4") as out:
        stream: av.VideoStream | None = None
        start = 0
        for part in parts:
            with av.open(io.BytesIO(encoded(part, codec)), "r") as source:
                video = source.streams.video[0]
                stream = stream or out.add_stream_from_template(video, opaque=True)
                step = int(1 / (FPS * (video.time_base or Fraction(1))))
                for packet in source.demux(video):
                    if packet.pts is None or packet.dts is None:
                        continue
                    packet.pts, packet.dts = packet.pts + start * step, packet.dts + start * step
                    packet.stream = stream
                    out.mux(packet)
            start += len(part)


def encoded(pictures: Film, codec: str) -> bytes:
    """Encode pictures as an MP4 file."""
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream(codec, rate=FPS, options=OPTIONS[codec])
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = pictures.shape[1:3]
        stream.pix_fmt, stream.thread_count = "yuv420p", 1
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return out.getvalue()
