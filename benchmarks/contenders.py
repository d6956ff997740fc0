"""Who takes part where loaders are compared, and the processes that they run in."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Literal

import numpy as np
from PIL import Image
from teleopen.hub import create_store, open_store
from teleopen.hub.levels import derive
from teleopen.hub.train import Blocks, Order, Permuted, open_dataset
from teleopen.hub.train.order import Space

from .corpus import Bench
from .jpegs import make_jpegs
from .lerobot import add_stats, make_dataset
from .measure import ROOT, Pixels, psnr
from .mp4 import LEROBOT_AV1
from .report import Table
from .sample import ACTION, ACTIONS, BATCH, CAMERAS, EPISODES, IMAGES, STATE, STEPS, past

Batches = list[list[int]]
OrderName = Literal["permuted", "blocks of 4", "blocks of 8"]

ORDERS: Mapping[OrderName, Order] = {
    "permuted": Permuted(),
    "blocks of 4": Blocks(4, 4),
    "blocks of 8": Blocks(8, 2),
}
LEROBOT_MAIN = "TELEOPEN_BENCH_LEROBOT_MAIN"
LITDATA = "TELEOPEN_BENCH_LITDATA"

_SIZE = (224, 224)
_LEAST_DB = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One who draws windows.

    Attributes
    ----------
    opener, place, options
        Which function of `rival` opens it, with which of the `Places` and with what else.
    order
        In which order it draws.
    python
        The environment variable that names the Python it runs in; none: it runs in this one.
    how
        How to get it.
    aims
        How many times as dear as ours it is to be, by the first word of our order.
    """

    name: str
    opener: str
    place: str
    options: Mapping[str, Any] = field(default_factory=dict)
    order: OrderName = "permuted"
    python: str = ""
    how: str = "see docs/benchmarks.md"
    aims: Mapping[str, float] = field(default_factory=dict)

    @property
    def interpreter(self) -> str | None:
        """The Python it runs in; None if nobody named one."""
        return os.environ.get(self.python) if self.python else sys.executable


MAIN = Contender(
    name="LeRobotDataset main, uint8",
    opener="lerobot",
    place="lerobot",
    options={"return_uint8": True},
    python=LEROBOT_MAIN,
    aims={"permuted": 3, "blocks": 6},
)
RELEASED = Contender(
    name="LeRobotDataset 0.4.4, float32",
    opener="lerobot",
    place="lerobot",
    aims={"permuted": 5, "blocks": 10},
)
LANCE = Contender(
    name="lerobot-lancedb, batched, uint8",
    opener="lance",
    place="lance",
    python=LEROBOT_MAIN,
    aims={"permuted": 2, "blocks": 3},
)
JPEG = Contender(
    name="JPEG q80 shards, litdata",
    opener="litdata",
    place="litdata",
    python=LITDATA,
    aims={"blocks": 2},
)
JPEG_CHANNELS_FIRST = replace(
    JPEG, name=f"{JPEG.name}, channels first in memory", options={"channels_first": True}
)
TORCHCODEC = Contender(
    name="decoder alone: torchcodec, MP4",
    opener="torchcodec",
    place="lerobot",
    how="pip install torch torchcodec",
)
SIMPLEJPEG = Contender(
    name="decoder alone: simplejpeg, JPEG q80", opener="jpeg", place="jpeg", how="pip install simplejpeg"
)


def small(contender: Contender) -> Contender:
    """Return the same contender, delivering pictures of 224 × 224."""
    options = {**contender.options, "size": _SIZE}
    return replace(contender, name=f"{contender.name}, 224 × 224", options=options)


def ours(what: str, place: str, size: tuple[int, int] | None = None) -> tuple[Contender, ...]:
    """Return our loader in each order."""
    return tuple(
        Contender(name=f"{what}, {order}", opener="ours", place=place, options={"size": size}, order=order)
        for order in ORDERS
    )


FULL = ours("full size", "store")
LEVEL = ours("224 × 224 of a level", "levelled", _SIZE)
RESIZED = ours("224 × 224 of the full size", "store", _SIZE)


# ---------------------------------------------------------------- files


@dataclass
class Places:
    """The recording in each format, below one folder: what is not made by a contender itself."""

    bench: Bench
    folder: Path

    def make(self) -> None:
        """Write it."""
        store = create_store(self.folder / "store", author="benchmarks")
        store.write(self.bench.episodes(EPISODES))
        shutil.copytree(self.folder / "store", self.folder / "levelled")
        derive(open_store(self.folder / "levelled"), _SIZE, author="benchmarks")
        make_jpegs(self.bench, self.folder / "jpeg")
        make_dataset(self.bench, self.folder / "lerobot", "libsvtav1", LEROBOT_AV1, EPISODES)
        add_stats(self.bench, self.folder / "lerobot")

    def bytes(self, place: str) -> int:
        """Return how large the files of a place are."""
        return sum(path.stat().st_size for path in (self.folder / place).rglob("*") if path.is_file())

    @cached_property
    def _space(self) -> Space:
        return open_dataset(self.folder / "store").windows(dict.fromkeys(IMAGES, (0,))).space

    def batches(self, order: OrderName, first: int, count: int) -> Batches:
        """Return the windows of some batches of an epoch, counted through all episodes."""
        positions = np.arange(first * BATCH, (first + count) * BATCH) % (EPISODES * STEPS)
        episodes, anchors = ORDERS[order].draw(positions, 0, self._space)
        found: Batches = (episodes * STEPS + anchors).reshape(count, BATCH).tolist()
        return found


# ---------------------------------------------------------------- processes


class Running:
    """A contender's process. It is told what to draw, and tells what that cost."""

    def __init__(self, contender: Contender, python: str, folder: Path, workers: int | None) -> None:
        self.contender, self._log = contender, TemporaryFile("w+")  # noqa: SIM115 - closed by `close`
        told = [contender.opener, str(folder / contender.place), workers, contender.options]
        self._process = subprocess.Popen(
            [python, "-m", f"{__package__}.rival", json.dumps(told)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            cwd=ROOT,
            env=_environment(),
        )
        self.hello: dict[str, str] = self._answer()

    def draw(self, batches: Batches) -> dict[str, float]:
        """Draw some batches; return CPU and wall seconds."""
        found: dict[str, float] = self._ask({"batches": batches})
        return found

    def drawn(self, batches: Batches, path: Path) -> Mapping[str, Any]:
        """Draw some batches; return what came of it."""
        self._ask({"batches": batches, "keep": str(path)})
        return dict(np.load(path))

    def close(self) -> None:
        """End the process."""
        self._process.communicate()
        self._log.close()

    def _ask(self, asked: Mapping[str, Any]) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        self._log.seek(0)
        raise RuntimeError(f"{self.contender.name} ended:\n{self._log.read()}")


@contextmanager
def running(
    contenders: Sequence[Contender], folder: Path, workers: int | None, found: Table
) -> Iterator[dict[str, Running]]:
    """Start those contenders that are there; note the versions of other environments, and who is absent."""
    with ExitStack() as stack:
        there: dict[str, Running] = {}
        for contender in contenders:
            python = contender.interpreter
            if python is None:
                absent(found, contender, f"{contender.python} names no Python")
                continue
            process = Running(contender, python, folder, workers)
            stack.callback(process.close)
            if why := process.hello.get("absent"):
                absent(found, contender, why)
                continue
            there[contender.name] = process
            about = f"- {contender.python}: {process.hello['versions']}."
            if contender.python and about not in found.notes:
                found.notes.append(about)
        yield there


def absent(found: Table, contender: Contender, why: str) -> None:
    """Note that a contender is not there, once for all that it is opened as."""
    line = f"{contender.opener} ({why}; {contender.how})"
    if line not in found.absent:
        found.absent.append(line)


def _environment() -> dict[str, str]:
    quiet = {"PYTHONWARNINGS": "ignore", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "HF_HUB_OFFLINE": "1"}
    # In workers PyTorch keeps to one thread; without them its idle threads would spin and count as work.
    return {**os.environ, **quiet, "OMP_NUM_THREADS": "1"}


# ---------------------------------------------------------------- what is delivered


def check(bench: Bench, process: Running, batches: Batches, folder: Path) -> None:
    """Draw some batches, and make sure that they are the windows that were asked for.

    Raises
    ------
    ValueError
        If shapes or values are others. Pictures have to be close to the truth, since all are compressed.
    """
    name, told = process.contender.name, process.drawn(batches, folder / "drawn.npz")
    truth = _truth(bench, batches, process.contender.options.get("size"))
    if not set(told) >= set(IMAGES):
        raise ValueError(f"{name} delivers {sorted(told)}, not {IMAGES}")
    for stream, values in told.items():
        if values.shape != truth[stream].shape:
            raise ValueError(f"{name}: {stream} is {values.shape}, not {truth[stream].shape}")
        if stream in IMAGES:
            worst = min(psnr(one, other) for one, other in zip(truth[stream], values, strict=True))
            if worst < _LEAST_DB:
                raise ValueError(f"{name}: a window of {stream} is {worst:.1f} dB from the truth")
        elif not np.array_equal(values, truth[stream]):
            raise ValueError(f"{name}: {stream} has other values than were recorded")


def _truth(bench: Bench, batches: Batches, size: tuple[int, int] | None) -> dict[str, Any]:
    frames = np.array([past(at) for batch in batches for at in batch]) % STEPS
    ahead = np.minimum(frames[:, 1:] + np.array(ACTIONS), STEPS - 1)
    pictures = {f"observation.images.{camera}": _resized(bench.clips[camera], size) for camera in CAMERAS}
    return {
        **{name: clip[frames] for name, clip in pictures.items()},
        STATE: bench.streams[STATE][frames],
        ACTION: bench.streams[ACTION][ahead],
    }


def _resized(clip: Pixels, size: tuple[int, int] | None) -> Pixels:
    if size is None:
        return clip
    small = [Image.fromarray(frame).resize(size[::-1], Image.Resampling.BOX) for frame in clip]
    return np.stack([np.asarray(frame) for frame in small])
