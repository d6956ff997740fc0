"""How things are measured: CPU time, in interleaved rounds, as medians.

Wall time says little on a machine that others use too; CPU time hardly depends on them. What does is how
full caches are and how fast the cores are clocked, so contenders take turns within every round, on the same
items and in changing order, and a ratio is the median of the rounds' own ratios.
"""

from __future__ import annotations

import gc
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Item = TypeVar("Item")
Told = TypeVar("Told")
Pixels = NDArray[np.uint8]
ROOT = Path(__file__).parents[1]

_PACKAGES = (
    "teleopen", "av", "numpy", "zarr", "h5py", "pyarrow", "pillow",
    "simplejpeg", "torch", "torchcodec", "lerobot",
)  # fmt: skip


@dataclass(slots=True)
class Samples:
    """CPU seconds per item, by contender, one for each round."""

    seconds: dict[str, list[float]] = field(default_factory=dict)

    def __contains__(self, name: str) -> bool:
        """Tell whether a contender took part."""
        return name in self.seconds

    def median(self, name: str) -> float:
        """Return the median over the rounds, in seconds per item."""
        return statistics.median(self.seconds[name])

    def ratio(self, name: str, peer: str) -> float:
        """Return how many times as much as ``peer`` something costs: the median of the rounds' ratios."""
        pairs = zip(self.seconds[name], self.seconds[peer], strict=True)
        return statistics.median(one / other for one, other in pairs)


def interleaved(
    contenders: Mapping[str, Callable[[Item], object]], draws: Sequence[Sequence[Item]]
) -> Samples:
    """Time contenders that work in this process.

    Parameters
    ----------
    contenders
        What to do with one item.
    draws
        The items of each round: the same for every contender.
    """
    found = Samples({name: [] for name in contenders})
    for work in contenders.values():
        for item in draws[0]:
            work(item)
    gc.collect()
    gc.disable()
    try:
        for turn, items in enumerate(draws):
            for name in _rotated(list(contenders), turn):
                work = contenders[name]
                start = time.process_time_ns()
                for item in items:
                    work(item)
                found.seconds[name].append((time.process_time_ns() - start) / 1e9 / len(items))
    finally:
        gc.enable()
    return found


def interleaved_jobs(jobs: Mapping[str, tuple[Callable[[int], object], int]], rounds: int) -> Samples:
    """Time jobs that may use threads and child processes.

    Parameters
    ----------
    jobs
        For each name: the job, called with the number of the round, and how many items it handles.
    """

    def timed(job: Callable[[int], object], items: int, turn: int) -> float:
        start = _all_cpu_seconds()
        job(turn)
        return (_all_cpu_seconds() - start) / items

    return Samples(take_turns({name: partial(timed, *told) for name, told in jobs.items()}, rounds))


def take_turns(jobs: Mapping[str, Callable[[int], Told]], rounds: int) -> dict[str, list[Told]]:
    """Return what jobs tell that measure themselves, by round; they are called with its number."""
    found: dict[str, list[Told]] = {name: [] for name in jobs}
    for turn in range(rounds):
        for name in _rotated(list(jobs), turn):
            gc.collect()
            found[name].append(jobs[name](turn))
    return found


def _rotated(names: list[str], turn: int) -> list[str]:
    at = turn % len(names)
    return names[at:] + names[:at]


def _all_cpu_seconds() -> float:
    """Return the CPU seconds of this process and of the children that have ended."""
    parts = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(part.ru_utime + part.ru_stime for part in parts)


def in_child(module: str, env: Mapping[str, str] | None, *told: object, python: str = sys.executable) -> Any:
    """Run a module in a process of its own, given ``told`` as JSON, and return the JSON that it prints last.

    So nothing that was imported, opened or cached here takes part in what is measured there.
    """
    command = [python, "-m", module, json.dumps(told)]
    done = subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    return json.loads(done.stdout.splitlines()[-1])


def psnr(truth: Pixels, decoded: Pixels) -> float:
    """Return the PSNR in dB of the mean squared error over all frames and channels."""
    errors = [
        np.mean((one.astype(np.float32) - other) ** 2) for one, other in zip(truth, decoded, strict=True)
    ]
    return float(10 * np.log10(255**2 / np.mean(errors)))


def conditions() -> dict[str, Any]:
    """Return what a figure depends on besides the code."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def load_average() -> str:
    """Return the load of the last 1, 5 and 15 minutes."""
    return " ".join(f"{load:.1f}" for load in os.getloadavg())


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown"
    )
