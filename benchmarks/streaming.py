"""Random windows from a Hub behind a slow line, compared with LeRobot's streaming and JPEG shards."""

from __future__ import annotations

import json
import os
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from teleopen.hub import create_store

from .corpus import CAMERAS, FPS, Bench
from .lerobot import make_dataset
from .link import set_line, slow_hub, taken, token
from .measure import in_child
from .mp4 import LEROBOT_AV1
from .peers import peer
from .report import Aim, Row, Table
from .windows import add_stats, as_jpeg, jpeg_shard

_EPISODES = 20
_STEPS = 96
_BATCH = 16
_ACTIONS = 16
_RTT_S = 0.05
_RATE = 25e6  # bytes per second: 200 Mbit/s
_AHEAD = 32
_IMAGES = [f"observation.images.{camera}" for camera in CAMERAS]
_LARGE = b"* filter=lfs diff=lfs merge=lfs -text\n*.json !filter !diff !merge text\n"
_OURS, _BLOCKS = "permuted", "blocks of 4"
_JPEG, _LEROBOT = "JPEG q80 shards by ranges, permuted", "StreamingLeRobotDataset"


def table(bench: Bench) -> Table:
    """Measure single windows that nobody fetched ahead, and a loader that reads ahead."""
    found = Table(
        "streaming: windows from a Hub behind a slow line",
        notes=[
            "Windows of 2 cameras × 2 frames 480 × 640, 2 states and 16 actions, of",
            f"{_EPISODES} episodes of {_STEPS} steps on a Hub on this machine, like the real one.",
            f"Each request waits {_RTT_S * 1e3:.0f} ms. Single windows: one by one, others before them,",
            f"no limit of bandwidth. Read ahead: {_RATE * 8 / 1e6:.0f} Mbit/s for all, two decoding threads,",
            "a whole epoch (LeRobot: 480 windows); the limit is bandwidth / bytes per window.",
            "LeRobot's streaming is not random: it mixes a buffer of 64 windows of one shard, read in order.",
            "Wall time, since waiting is measured: other jobs on the machine make it longer for all.",
            "Ratio: ours / theirs, or a rate / its limit.",
            "",
        ],
    )
    with slow_hub() as endpoint:
        env = _environment(bench, endpoint)
        results = {name: in_child(__name__, env, name, bench.quick) for name in _published(bench, env, found)}
    found.rows += _rows(results)
    return found


def _published(bench: Bench, env: Mapping[str, str], found: Table) -> list[str]:
    """Put the recording on the Hub in each format; return whom to measure."""
    names = [_OURS, _BLOCKS]
    store = create_store(bench.new_folder() / "store", author="benchmarks")
    store.write(bench.episodes(_EPISODES))
    in_child(__name__, env, "publish", "lab/ours", store.url)
    if peer("simplejpeg", found.absent):
        folder = bench.new_folder()
        jpegs = [[as_jpeg(frame) for frame in bench.clips[camera]] * _EPISODES for camera in CAMERAS]
        offsets = [jpeg_shard([frames], folder / f"{at}.bin")[1][0] for at, frames in enumerate(jpegs)]
        folder.joinpath("offsets.json").write_text(json.dumps(offsets))
        in_child(__name__, env, "publish", "lab/jpeg", str(folder))
        names.append(_JPEG)
    if peer("lerobot", found.absent) and peer("torchcodec", found.absent):
        root = bench.new_folder() / "lerobot"
        make_dataset(bench, root, "libsvtav1", LEROBOT_AV1, _EPISODES)
        add_stats(bench, root)
        in_child(__name__, env, "publish", "lab/lerobot", str(root))
        names.append(_LEROBOT)
    return names


def _environment(bench: Bench, endpoint: str) -> dict[str, str]:
    return {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_TOKEN": token(),
        "HF_HOME": str(bench.new_folder()),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }


# ---------------------------------------------------------------- in a process of its own


def _publish(repository: str, folder: str) -> None:
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi()
    api.create_repo(repository, repo_type="dataset")
    paths = [
        path for path in sorted(Path(folder).rglob("*")) if path.is_file() and ".staging" not in path.parts
    ]
    adds = [CommitOperationAdd(path.relative_to(folder).as_posix(), path) for path in paths]
    covered = [CommitOperationAdd(".gitattributes", _LARGE)]
    for operations in (covered, adds):
        api.create_commit(repository, operations, commit_message="benchmark", repo_type="dataset")
    api.create_tag(repository, tag="v3.0", repo_type="dataset")


def _measured(name: str, quick: bool) -> dict[str, float]:  # noqa: FBT001 - told by a parent process
    endpoint = os.environ["HF_ENDPOINT"]
    single = 8 if quick else 40
    source = {_JPEG: _jpeg, _LEROBOT: _lerobot}.get(name, _ours)
    set_line(endpoint, 0, 0)
    one, ahead = source(name)
    found: dict[str, float] = {}
    if one is not None:
        for number in range(2 * _EPISODES):
            one(number * _STEPS // 2)  # indices, rows, and where large files lie
        set_line(endpoint, _RTT_S, 0)
        draws = np.random.default_rng(2).integers(0, _EPISODES * _STEPS, single).tolist()
        found |= _timed(endpoint, (one(at) for at in draws), "single")
    set_line(endpoint, _RTT_S, _RATE)
    # A whole epoch, so that nothing was fetched for later; LeRobot's takes minutes, and fetches little ahead.
    most = (4 if quick else 30) if name == _LEROBOT else None
    return found | _timed(endpoint, islice(ahead(), most), "ahead", _BATCH)


def _timed(endpoint: str, work: Iterator[Any], name: str, windows: int = 1) -> dict[str, float]:
    taken(endpoint)
    began, count = time.monotonic(), 0
    for _ in work:
        count += windows
    seconds = time.monotonic() - began
    requests, size = taken(endpoint)
    told = {"seconds": seconds / count, "requests": requests / count, "bytes": size / count}
    return {f"{name}_{what}": value for what, value in told.items()}


def _ours(name: str) -> tuple[Any, Any]:
    from teleopen.hub.train import Blocks, Permuted, Want, open_dataset

    wants: dict[str, Any] = {camera: Want(steps=(-1, 0)) for camera in _IMAGES}
    wants |= {"observation.state": [-1, 0], "action": range(_ACTIONS)}
    windows = open_dataset("hf://datasets/lab/ours").windows(wants)
    order = Permuted() if name == _OURS else Blocks(4, 4)
    one = (lambda at: windows[at]) if name == _OURS else None
    return one, lambda: iter(windows.loader(_BATCH, order, threads=2))


def _jpeg(_name: str) -> tuple[Any, Any]:
    import simplejpeg
    from teleopen.hub.storage import open_storage

    storage = open_storage("hf://datasets/lab/jpeg")
    offsets = json.loads(storage.read("offsets.json"))

    def one(at: int) -> list[Any]:
        places = [(f"{c}.bin", *of[frame]) for c, of in enumerate(offsets) for frame in (max(0, at - 1), at)]
        parts = storage.read_many([(key, start, start + size) for key, start, size in places])
        return [simplejpeg.decode_jpeg(part) for part in parts]

    def ahead() -> Iterator[Any]:
        order = iter(np.random.default_rng(1).permutation(_EPISODES * _STEPS).tolist())
        with ThreadPoolExecutor(_AHEAD) as pool:
            line = deque(pool.submit(one, at) for at in islice(order, 2 * _AHEAD))
            while len(line) >= _BATCH:
                batch = [line.popleft().result() for _ in range(_BATCH)]
                line.extend(pool.submit(one, at) for at in islice(order, _BATCH))
                yield batch

    return one, ahead


def _lerobot(_name: str) -> tuple[Any, Any]:
    from lerobot.datasets.streaming_dataset import StreamingLeRobotDataset

    dataset = StreamingLeRobotDataset(
        "lab/lerobot",
        delta_timestamps={
            **{camera: [-1 / FPS, 0] for camera in _IMAGES},
            "observation.state": [-1 / FPS, 0],
            "action": [at / FPS for at in range(_ACTIONS)],
        },
        buffer_size=64,
        max_num_shards=1,
    )

    def ahead() -> Iterator[Any]:
        windows = iter(dataset)
        while batch := list(islice(windows, _BATCH)):
            yield batch

    return None, ahead


# ---------------------------------------------------------------- rows


def _rows(results: Mapping[str, Mapping[str, float]]) -> Iterator[Row]:
    ours = results[_OURS]
    rtt = ours["single_seconds"] / _RTT_S
    yield Row(
        what="single window: requests",
        figure=f"{ours['single_requests']:.2f}",
        peer="one for each camera",
        peer_figure=str(len(CAMERAS)),
        ratio=ours["single_requests"] / len(CAMERAS),
        aim=Aim("<=", 1.05),
    )
    yield Row(
        what="single window: time",
        figure=f"{ours['single_seconds'] * 1e3:.1f} ms",
        peer="one round trip",
        peer_figure=f"{_RTT_S * 1e3:.0f} ms",
        ratio=rtt,
        aim=Aim("<=", 1.3),
    )
    if _JPEG in results:
        theirs = results[_JPEG]
        yield Row(
            what="single window: time",
            figure=f"{ours['single_seconds'] * 1e3:.1f} ms",
            peer=_JPEG,
            peer_figure=f"{theirs['single_seconds'] * 1e3:.1f} ms",
            ratio=rtt * _RTT_S / theirs["single_seconds"],
        )
    for name, told in results.items():
        limit = _RATE / told["ahead_bytes"]
        yield Row(
            what=f"read ahead, {name}: windows/s",
            figure=f"{1 / told['ahead_seconds']:.0f}/s, {told['ahead_requests']:.2f} requests",
            peer="its limit by bandwidth",
            peer_figure=f"{limit:.0f}/s, {told['ahead_bytes'] / 1e3:.0f} kB",
            ratio=1 / told["ahead_seconds"] / limit,
        )
    for name in (_OURS, _BLOCKS):
        for other in (_LEROBOT, _JPEG):
            if other in results:
                yield Row(
                    what=f"read ahead, {name}: windows/s",
                    figure=f"{1 / results[name]['ahead_seconds']:.0f}/s",
                    peer=other,
                    peer_figure=f"{1 / results[other]['ahead_seconds']:.0f}/s",
                    ratio=results[other]["ahead_seconds"] / results[name]["ahead_seconds"],
                    aim=Aim(">=", 1),
                )


if __name__ == "__main__":
    what, *rest = json.loads(sys.argv[1])
    print(json.dumps(_publish(*rest) if what == "publish" else _measured(what, *rest)))
