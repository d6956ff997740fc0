"""One who reads windows from a Hub behind a slow line, in a process of its own.

As in `rival`, nothing of this project is imported but where our own loader is opened: peers live in
environments of their own.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from .link import RATE, RTT_S, set_line, taken
from .rival import missing
from .sample import ACTION, ACTIONS, BATCH, EPISODES, IMAGES, PAST, STATE, STEPS, past, seconds

_AHEAD = 32
_LARGE = b"* filter=lfs diff=lfs merge=lfs -text\n*.json !filter !diff !merge text\n"

Single = Callable[[int], Any]
Ahead = Callable[[], Iterator[Any]]


def publish(repository: str, folder: str) -> None:
    """Put a folder's files on the Hub."""
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


def measured(
    opener: str, repository: str, options: dict[str, Any], single: int, most: int | None
) -> dict[str, Any]:
    """Return seconds, requests and bytes of a window: of single ones, where there are such, and read ahead.

    ``most`` batches of LeRobot's are read ahead, if that is told; of others, and else, those of an epoch: so
    nothing was fetched for later.
    """
    source, endpoint = SOURCES[opener], os.environ["HF_ENDPOINT"]
    if why := missing(source.modules):
        return {"absent": why}
    set_line(endpoint, 0, 0)
    one, ahead = source.open(repository, **options)
    found: dict[str, Any] = {}
    if one is not None:
        for number in range(2 * EPISODES):
            one(number * STEPS // 2)  # indices, rows, and where large files lie
        set_line(endpoint, RTT_S, 0)
        draws = np.random.default_rng(2).integers(0, EPISODES * STEPS, single).tolist()
        found |= _timed(endpoint, (one(at) for at in draws), "single")
    set_line(endpoint, RTT_S, RATE)
    return found | _timed(endpoint, islice(ahead(), most if opener == "lerobot" else None), "ahead", BATCH)


def _timed(endpoint: str, work: Iterator[Any], name: str, windows: int = 1) -> dict[str, float]:
    taken(endpoint)
    began, count = time.monotonic(), 0
    for _ in work:
        count += windows
    passed = time.monotonic() - began
    requests, size = taken(endpoint)
    told = {"seconds": passed / count, "requests": requests / count, "bytes": size / count}
    return {f"{name}_{what}": value for what, value in told.items()}


def _ours(repository: str, *, blocks: Sequence[int] | None) -> tuple[Single | None, Ahead]:
    from teleopen.hub.train import Blocks, Permuted, Want, open_dataset

    wants: dict[str, Any] = {name: Want(steps=PAST) for name in IMAGES}
    windows = open_dataset(f"hf://datasets/{repository}").windows({**wants, STATE: PAST, ACTION: ACTIONS})
    order = Blocks(*blocks) if blocks else Permuted()
    return None if blocks else windows.__getitem__, lambda: iter(windows.loader(BATCH, order, threads=2))


def _jpeg(repository: str) -> tuple[Single | None, Ahead]:
    import simplejpeg
    from teleopen.hub.storage import open_storage

    storage = open_storage(f"hf://datasets/{repository}")
    offsets = json.loads(storage.read("offsets.json"))

    def one(at: int) -> list[Any]:
        places = [(f"{camera}.bin", *of[frame]) for camera, of in enumerate(offsets) for frame in past(at)]
        parts = storage.read_many([(key, start, start + size) for key, start, size in places])
        return [simplejpeg.decode_jpeg(part) for part in parts]

    def ahead() -> Iterator[Any]:
        order = iter(np.random.default_rng(1).permutation(EPISODES * STEPS).tolist())
        with ThreadPoolExecutor(_AHEAD) as pool:
            line = deque(pool.submit(one, at) for at in islice(order, 2 * _AHEAD))
            while len(line) >= BATCH:
                batch = [line.popleft().result() for _ in range(BATCH)]
                line.extend(pool.submit(one, at) for at in islice(order, BATCH))
                yield batch

    return one, ahead


def _lerobot(repository: str, **options: Any) -> tuple[Single | None, Ahead]:
    from lerobot.datasets.streaming_dataset import StreamingLeRobotDataset

    dataset = StreamingLeRobotDataset(
        repository, delta_timestamps=seconds(), buffer_size=64, max_num_shards=1, **options
    )

    def ahead() -> Iterator[Any]:
        windows = iter(dataset)
        while batch := list(islice(windows, BATCH)):
            yield batch

    return None, ahead


@dataclass(frozen=True, slots=True)
class Source:
    """What opens a repository, and the modules that have to import for that."""

    open: Callable[..., tuple[Single | None, Ahead]]
    modules: tuple[str, ...]


SOURCES = {
    "ours": Source(_ours, ("teleopen.hub.train",)),
    "jpeg": Source(_jpeg, ("simplejpeg", "teleopen.hub.storage")),
    "lerobot": Source(_lerobot, ("lerobot.datasets.streaming_dataset", "torchcodec.decoders")),
}


if __name__ == "__main__":
    what, *told = json.loads(sys.argv[1])
    print(json.dumps({"publish": publish, "measured": measured}[what](*told)))
