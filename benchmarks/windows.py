"""Random windows of a dataset, in samples per CPU-second, compared with LeRobot's loader and JPEG shards."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from teleopen.hub import create_store
from teleopen.hub.levels import derive
from teleopen.hub.train import Blocks, Order, Permuted, Want, Windows, open_dataset

from .corpus import CAMERAS, FPS, Bench
from .lerobot import make_dataset
from .loading import loader_rows
from .measure import Samples, interleaved_jobs
from .mp4 import LEROBOT_AV1
from .peers import peer
from .report import Aim, Row, Table

_EPISODES = 20
_BATCH = 16
_ACTIONS = 16
_CAMERAS = [f"observation.images.{camera}" for camera in CAMERAS]
_LEROBOT_U8 = "torchcodec alone on its MP4, uint8"
_LEROBOT = "LeRobotDataset"
_JPEG = "JPEG q80 shards, simplejpeg"


def table(bench: Bench) -> Table:
    """Measure full permutation and blocks, at full size and at 224 × 224."""
    found = Table(
        "windows: CPU time of a training sample",
        notes=[
            "CPU time of one window in ms: 2 cameras × 2 frames 480 × 640, 2 states, 16 actions; in process.",
            f"Batches of {_BATCH}, {_EPISODES} episodes of 96 steps. Ratio: theirs / ours: more is better.",
            "LeRobotDataset: its own loader on its default MP4 (AV1 g=2 crf 30), torchcodec, float32; the",
            "row with uint8 is its decoder alone, no dataset around it: less than any loader on it needs.",
            "JPEG q80 4:2:0 in one file, offsets in memory; permuted windows, as all peers' are.",
            "DataLoader: wall time after the first batch; CPU time with workers'. Rate: ours / theirs.",
            "",
        ],
    )
    store = create_store(bench.new_folder() / "store", author="benchmarks")
    store.write(bench.episodes(_EPISODES))
    derive(store, (224, 224), author="benchmarks")
    dataset = open_dataset(store)
    contenders: dict[str, Callable[[int], object]] = {}
    full, small = _windows(dataset.windows, None), _windows(dataset.windows, (224, 224))
    for name, windows in (("full size", full), ("224 × 224", small)):
        for kind, order in (
            ("permuted", Permuted()),
            ("blocks of 4", Blocks(4, 4)),
            ("blocks of 8", Blocks(8, 2)),
        ):
            contenders[f"{name}, {kind}"] = _ours(windows, order)
    peers, root = _peers(bench, found)
    contenders |= peers
    rounds, batches = (2, 2) if bench.quick else (9, 4)
    jobs = {
        name: (lambda turn, draw=draw: [draw(turn * batches + at) for at in range(batches)], batches * _BATCH)
        for name, draw in contenders.items()
    }
    for draw in contenders.values():
        draw(0)
    samples = interleaved_jobs(jobs, rounds)
    found.rows += _rows(samples)
    if importlib.util.find_spec("torch"):
        places = {"ours": store.url} | ({"lerobot": str(root)} if root else {})
        found.rows += loader_rows(places, _BATCH, quick=bench.quick)
    return found


def _windows(make: Callable[..., Windows], size: tuple[int, int] | None) -> Windows:
    wants: dict[str, Any] = {camera: Want(steps=(-1, 0), size=size) for camera in _CAMERAS}
    return make({**wants, "observation.state": [-1, 0], "action": range(_ACTIONS)})


def _ours(windows: Windows, order: Order) -> Callable[[int], object]:
    def draw(batch: int) -> object:
        positions = np.arange(batch * _BATCH, (batch + 1) * _BATCH)
        return windows.batch(*order.draw(positions, 0, windows.space))

    return draw


def _peers(bench: Bench, found: Table) -> tuple[dict[str, Callable[[int], object]], Path | None]:
    """Return what peers do for a batch, and where LeRobot's dataset is."""
    steps = len(bench.streams["action"]) * _EPISODES
    random = np.random.default_rng(1)

    def drawn() -> list[int]:
        return [int(at) for at in random.integers(0, steps, _BATCH)]

    peers: dict[str, Callable[[int], object]] = {}
    root: Path | None = None
    module = peer("lerobot", found.absent)
    codec = peer("torchcodec", found.absent)
    if module and codec:
        root = bench.new_folder() / "lerobot"
        make_dataset(bench, root, "libsvtav1", LEROBOT_AV1, _EPISODES)
        add_stats(bench, root)
        dataset = module.LeRobotDataset(
            "benchmarks/none",
            root=root,
            delta_timestamps={
                **{camera: [-1 / FPS, 0] for camera in _CAMERAS},
                "observation.state": [-1 / FPS, 0],
                "action": [at / FPS for at in range(_ACTIONS)],
            },
            video_backend="torchcodec",
        )
        peers[_LEROBOT] = lambda _: [dataset[at] for at in drawn()]
        paths = [next(root.glob(f"videos/{camera}/**/*.mp4")) for camera in _CAMERAS]
        decoders = [codec.VideoDecoder(str(path), seek_mode="approximate") for path in paths]
        peers[_LEROBOT_U8] = lambda _: [
            [d.get_frames_at([max(0, at - 1), at]).data for d in decoders] for at in drawn()
        ]
    if simplejpeg := peer("simplejpeg", found.absent):
        jpegs = [[as_jpeg(frame) for frame in bench.clips[camera]] for camera in CAMERAS]
        shard, offsets = jpeg_shard(jpegs, bench.new_folder() / "shard")
        out = np.empty((2, 480, 640, 3), np.uint8)

        def read(_: int) -> None:
            with shard.open("rb") as file:
                for at in drawn():
                    for camera in range(len(CAMERAS)):
                        for row, frame in enumerate((max(0, at - 1), at)):
                            start, size = offsets[camera][frame % len(offsets[camera])]
                            file.seek(start)
                            simplejpeg.decode_jpeg(file.read(size), buffer=out[row])

        peers[_JPEG] = read
    return peers, root


def _rows(samples: Samples) -> Iterator[Row]:
    aims = {
        ("full size, permuted", _LEROBOT): 5,
        ("full size, permuted", _LEROBOT_U8): 3,
        ("full size, blocks of 4", _LEROBOT): 10,
        ("full size, blocks of 4", _LEROBOT_U8): 6,
        ("full size, blocks of 4", _JPEG): 2,
        ("224 × 224, permuted", _LEROBOT): 10,
        ("224 × 224, blocks of 4", _LEROBOT): 20,
    }
    ours = [name for name in samples.seconds if name not in {_LEROBOT, _LEROBOT_U8, _JPEG}]
    for name in ours:
        figure = f"{samples.median(name) * 1e3:.2f} ms"
        for theirs in (_LEROBOT, _LEROBOT_U8, _JPEG):
            if theirs in samples:
                aim = aims.get((name, theirs))
                yield Row(
                    what=name,
                    figure=figure,
                    peer=theirs,
                    peer_figure=f"{samples.median(theirs) * 1e3:.2f} ms",
                    ratio=samples.ratio(theirs, name),
                    aim=Aim(">=", aim) if aim else None,
                )
        if _LEROBOT not in samples and _JPEG not in samples:
            yield Row(what=name, figure=figure)


def as_jpeg(frame: np.ndarray[Any, Any]) -> bytes:
    """Return a picture as JPEG q80 4:2:0."""
    data = io.BytesIO()
    Image.fromarray(frame).save(data, "JPEG", quality=80, subsampling="4:2:0")
    return data.getvalue()


def jpeg_shard(jpegs: list[list[bytes]], path: Path) -> tuple[Path, list[list[tuple[int, int]]]]:
    """Write the pictures one after another; return where each camera's are."""
    offsets: list[list[tuple[int, int]]] = []
    with path.open("wb") as file:
        for camera in jpegs:
            offsets.append([])
            for jpeg in camera:
                offsets[-1].append((file.tell(), len(jpeg)))
                file.write(jpeg)
    return path, offsets


def add_stats(bench: Bench, root: Path) -> None:
    """Write the statistics without which LeRobot does not open a dataset."""
    import json

    found: dict[str, Any] = {}
    for name in ("observation.state", "action"):
        values = bench.streams[name]
        found[name] = {
            "min": values.min(0).tolist(),
            "max": values.max(0).tolist(),
            "mean": values.mean(0).tolist(),
            "std": values.std(0).tolist(),
            "count": [len(values)],
        }
    (root / "meta/stats.json").write_text(json.dumps(found))
