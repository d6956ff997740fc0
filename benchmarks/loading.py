"""PyTorch's DataLoader over our windows and over LeRobot's dataset, each in a process of its own."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Iterator
from itertools import islice
from statistics import median
from typing import Any

from .corpus import CAMERAS, FPS
from .measure import in_child
from .report import Aim, Row

_ACTIONS = 16
_IMAGES = [f"observation.images.{camera}" for camera in CAMERAS]


def loader_rows(places: dict[str, str], batch: int, *, quick: bool) -> Iterator[Row]:
    """Measure shuffled windows through a DataLoader with 0 and with 2 workers.

    Parameters
    ----------
    places
        Store and LeRobot dataset, by ``ours`` and ``lerobot``; the latter may be missing.
    """
    batches, rounds = (4, 1) if quick else (24, 5)
    # In workers PyTorch keeps to one thread; without them its idle threads would spin and count as work.
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    for workers in (0, 2):
        found: dict[str, list[dict[str, float]]] = {name: [] for name in places}
        for turn in range(rounds):
            for name in sorted(places, reverse=bool(turn % 2)):
                told = in_child(__name__, env, name, places[name], workers, batch, batches)
                found[name].append(told)
        yield from _rows(found, workers)


def _rows(found: dict[str, list[dict[str, float]]], workers: int) -> Iterator[Row]:
    """Return the medians of the rounds, and of the rounds' own ratios."""
    peer = f"LeRobotDataset, {workers} workers" if "lerobot" in found else ""
    ours, theirs = found["ours"], found.get("lerobot", [])
    for what, unit, aim in (("rate", "windows/s", None), ("cpu", "CPU", Aim(">=", 3))):
        ratios = [one[what] / other[what] for one, other in zip(ours, theirs, strict=bool(theirs))]
        more = ratios if what == "rate" else [1 / ratio for ratio in ratios]
        yield Row(
            what=f"full size, permuted, DataLoader with {workers} workers: {unit}",
            figure=_figure(what, ours),
            peer=peer,
            peer_figure=_figure(what, theirs) if theirs else "",
            ratio=median(more) if more else None,
            aim=aim if more else None,
        )


def _figure(what: str, rounds: list[dict[str, float]]) -> str:
    middle = median(one[what] for one in rounds)
    return f"{middle:.0f}/s" if what == "rate" else f"{middle * 1e3:.2f} ms"


def _measured(name: str, place: str, workers: int, batch: int, batches: int) -> dict[str, float]:
    """Return windows per second after the first batch, and CPU seconds of each, those of workers included."""
    loader = _ours(place, workers, batch) if name == "ours" else _lerobot(place, workers, batch)
    before, seen = _cpu(), iter(loader)
    next(seen)
    began = time.monotonic()
    count = sum(1 for _ in islice(seen, batches - 1))
    seconds = time.monotonic() - began
    del seen  # ends the workers, whose CPU time is told then
    return {"rate": count * batch / seconds, "cpu": (_cpu() - before) / ((count + 1) * batch)}


def _cpu() -> float:
    parts = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(part.ru_utime + part.ru_stime for part in parts)


def _ours(place: str, workers: int, batch: int) -> Any:
    from teleopen.hub.train import Permuted, Want, open_dataset
    from teleopen.hub.train.torch import TorchLoader

    wants: dict[str, Any] = {camera: Want(steps=(-1, 0)) for camera in _IMAGES}
    wants |= {"observation.state": [-1, 0], "action": range(_ACTIONS)}
    return TorchLoader(open_dataset(place).windows(wants).loader(batch, Permuted()), workers=workers)


def _lerobot(place: str, workers: int, batch: int) -> Any:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset
    from torch.utils.data import DataLoader

    dataset = LeRobotDataset(
        "benchmarks/none",
        root=place,
        delta_timestamps={
            **{camera: [-1 / FPS, 0] for camera in _IMAGES},
            "observation.state": [-1 / FPS, 0],
            "action": [at / FPS for at in range(_ACTIONS)],
        },
        video_backend="torchcodec",
    )
    return DataLoader(dataset, batch_size=batch, shuffle=True, num_workers=workers)


if __name__ == "__main__":
    print(json.dumps(_measured(*json.loads(sys.argv[1]))))
