"""A contender in a process of its own: it opens its files once, then draws windows whenever it is told to.

Peers live in environments of their own, where this project is not installed: nothing of it is imported here
but by `ours`, and nothing else that is not in each of them. A line of JSON on standard input asks for the
windows of some batches, counted through all episodes; a line on standard output tells what they cost.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from .sample import ACTION, ACTIONS, BATCH, CAMERAS, EPISODES, IMAGES, PAST, STATE, STEPS, past, seconds

Batches = Sequence[Sequence[int]]
Draw = Callable[[Batches], Iterator[Any]]

_TICKS = os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Serve one contender."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is no answer
    name, place, workers, options = json.loads(sys.argv[1])
    opener = OPENERS[name]
    if why := missing(opener.modules) or _unloadable(workers):
        print(json.dumps({"absent": why}), file=answers)
        return
    draw = opener.open(Path(place), workers, **options)
    told = ", ".join(f"{package} {version(package)}" for package in opener.packages)
    print(json.dumps({"versions": f"{told}, Python {platform.python_version()}"}), file=answers)
    for line in sys.stdin:
        asked = json.loads(line)
        if keep := asked.get("keep"):
            np.savez(keep, **_plain(draw(asked["batches"])))
            print("{}", file=answers)
        else:
            print(json.dumps(_timed(draw, asked["batches"])), file=answers)


def missing(modules: Sequence[str]) -> str:
    """Return why a module does not import; nothing if all do."""
    try:
        for module in modules:
            importlib.import_module(module)
    except Exception as error:  # noqa: BLE001 - libraries that do not fit the machine raise all kinds
        return f"{type(error).__name__}: {error}"
    return ""


def _unloadable(workers: int | None) -> str:
    """Return why no `DataLoader` can be measured; nothing if one can, or none is wanted."""
    if workers and not Path("/proc/self/task").is_dir():
        return "the CPU time of workers is read from /proc"
    return "" if workers is None else missing(["torch"])


def _timed(draw: Draw, batches: Batches) -> dict[str, float]:
    """Return CPU and wall seconds of drawing, child processes included."""
    gc.collect()
    cpu, wall = _cpu(), time.monotonic()
    for _ in draw(batches):
        pass
    wall = time.monotonic() - wall
    return {"cpu": _cpu() - cpu, "wall": wall}


def _cpu() -> float:
    """Return the CPU seconds of this process, of its ended children, and of all living below it."""
    parts = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    living = (Path(f"/proc/{child}/stat").read_text() for child in _below("self"))
    ticks = sum(sum(map(int, stat.rpartition(")")[2].split()[11:15])) for stat in living)
    return sum(part.ru_utime + part.ru_stime for part in parts) + ticks / _TICKS


def _below(process: str) -> Iterator[str]:
    for file in Path(f"/proc/{process}/task").glob("*/children"):
        for child in file.read_text().split():
            yield child
            yield from _below(child)


def _plain(parts: Iterator[Any]) -> dict[str, Any]:
    """Return what was drawn as arrays: pictures (N, 2, 480, 640, 3) in uint8, states and actions."""
    found: dict[str, list[Any]] = {}
    for part in parts:
        for name in {*IMAGES, STATE, ACTION} & set(part):
            values = np.array(part[name])
            if name in IMAGES:
                values = values if values.shape[-1] == 3 else np.moveaxis(values, -3, -1)
                values = np.rint(values * 255).astype(np.uint8) if values.dtype == np.float32 else values
            found.setdefault(name, []).append(values)
    return {name: np.concatenate(values) for name, values in found.items()}


# ---------------------------------------------------------------- PyTorch's datasets


@dataclass
class _Turn:
    """A sampler of batches that gives those of one turn."""

    batches: Batches = field(default_factory=list)

    def __iter__(self) -> Iterator[Sequence[int]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def _drawn(dataset: Any, workers: int | None, context: str | None = None) -> Draw:
    """Return what draws batches of a map-style dataset: as a `DataLoader` does, or by one.

    It keeps its workers. LeRobot's cannot read once their parent has, so it draws in one way only.
    """
    from torch.utils.data import DataLoader, default_collate

    def draw(batches: Batches) -> Iterator[Any]:
        for batch in batches:
            many = getattr(dataset, "__getitems__", None)
            yield default_collate(many(list(batch)) if many else [dataset[at] for at in batch])

    if workers is None:
        return draw
    turn = _Turn()
    loader = DataLoader(
        dataset,
        batch_sampler=turn,
        num_workers=workers,
        persistent_workers=workers > 0,
        multiprocessing_context=context if workers else None,
    )

    def load(batches: Batches) -> Iterator[Any]:
        turn.batches = batches
        return iter(loader)

    return load


def _ours(place: Path, workers: int | None, *, size: Sequence[int] | None = None) -> Draw:
    from teleopen.hub.train import Want, open_dataset

    wants: dict[str, Any] = {name: Want(steps=PAST, size=tuple(size) if size else None) for name in IMAGES}
    windows = open_dataset(place).windows({**wants, STATE: PAST, ACTION: ACTIONS})
    if workers is None:
        return lambda batches: (windows.batch(*windows.located(batch)) for batch in batches)
    return _ours_loaded(windows, workers)


def _ours_loaded(windows: Any, workers: int) -> Draw:
    from teleopen.hub.train import Sequential
    from teleopen.hub.train.torch import TorchBatches
    from torch.utils.data import DataLoader

    @dataclass(frozen=True)
    class Given:
        """The order of a list."""

        windows: Any

        def size(self, lengths: Any) -> int:
            del lengths
            return len(self.windows)

        def draw(self, positions: Any, epoch: int, space: Any) -> Any:
            return Sequential().draw(self.windows[positions], epoch, space)

    @cache
    def loader(told: tuple[int, ...]) -> Any:
        dataset = TorchBatches(windows.loader(BATCH, Given(np.array(told))))
        return DataLoader(dataset, batch_size=None, num_workers=workers, persistent_workers=workers > 0)

    return lambda batches: iter(loader(tuple(at for batch in batches for at in batch)))


def _lerobot(place: Path, workers: int | None, *, size: Sequence[int] | None = None, **options: Any) -> Draw:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    dataset = LeRobotDataset(
        "benchmarks/none",
        root=place,
        delta_timestamps=seconds(),
        image_transforms=_resize(size),
        video_backend="torchcodec",
        **options,
    )
    return _drawn(dataset, workers)


def _resize(size: Sequence[int] | None) -> Any:
    """Return a transform as LeRobot's loaders take it; None if pictures stay as they are."""
    if size is None:
        return None
    from torchvision.transforms.v2 import Resize

    return Resize(list(size))


def _lance(place: Path, workers: int | None, *, size: Sequence[int] | None = None) -> Draw:
    """Open LeRobot's dataset beside the place as a Lance dataset, which is made there first."""
    from lerobot_lancedb import LanceDBDataset, lance_mp_context
    from lerobot_lancedb.convert import convert

    if not place.exists():
        convert(place, root=place.with_name("lerobot"))
    dataset = LanceDBDataset(
        root=place, delta_timestamps=seconds(), image_transforms=_resize(size), return_uint8=True
    )
    return _drawn(dataset, workers, lance_mp_context())


# ---------------------------------------------------------------- JPEG shards


class _Shards:
    """Windows of records of litdata, one for each step: both pictures as JPEG, the state, 16 actions.

    Pictures lie in memory as they are decoded, which are looked at as channels first for nothing, or channels
    first, as LeRobot's loaders deliver them.
    """

    def __init__(self, place: Path, size: Sequence[int] | None, *, channels_first: bool) -> None:
        from litdata import StreamingDataset

        # Records are not read in order: decoding those that come next too would be in vain.
        self.records = StreamingDataset(str(place), batch_decode=False)
        self.size, self.channels_first = size, channels_first

    def __getitem__(self, at: int) -> dict[str, Any]:
        records = [self.records[frame] for frame in past(at)]
        pictures = {name: self._pictures([record[name] for record in records]) for name in IMAGES}
        return {**pictures, STATE: np.stack([r[STATE] for r in records]), ACTION: records[-1][ACTION]}

    def _pictures(self, jpegs: Sequence[bytes]) -> Any:
        import cv2
        import simplejpeg

        height, width = self.size or (480, 640)
        out = np.empty((len(jpegs), height, width, 3), np.uint8)
        for jpeg, picture in zip(jpegs, out, strict=True):
            if self.size is None:
                simplejpeg.decode_jpeg(jpeg, buffer=picture)
            else:
                # libjpeg-turbo leaves out what a smaller picture does not need.
                large = simplejpeg.decode_jpeg(jpeg, min_height=height, min_width=width, min_factor=1)
                cv2.resize(large, (width, height), dst=picture)
        return np.ascontiguousarray(out.transpose(0, 3, 1, 2)) if self.channels_first else out


def _litdata(
    place: Path,
    workers: int | None,
    *,
    size: Sequence[int] | None = None,
    channels_first: bool = False,
) -> Draw:
    """Open the shards, which are made of the JPEGs beside the place first."""
    if not place.exists():
        _make_shards(place)
    return _drawn(_Shards(place, size, channels_first=channels_first), workers)


def _make_shards(place: Path) -> None:
    from litdata.streaming.writer import BinaryWriter

    jpegs = _Jpegs(place.with_name("jpeg"))
    values = np.load(jpegs.place / "values.npz")
    writer = BinaryWriter(str(place), chunk_bytes="64MB")
    for at in range(EPISODES * STEPS):
        step, last = at % STEPS, STEPS - 1
        writer[at] = {
            **{name: jpegs.read(camera, at) for camera, name in enumerate(IMAGES)},
            STATE: values[STATE][step],
            ACTION: values[ACTION][[min(step + ahead, last) for ahead in ACTIONS]],
        }
    writer.done()
    writer.merge()


class _Jpegs:
    """JPEGs one behind the other, a file for each camera; where each begins is in memory."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.offsets = json.loads(place.joinpath("offsets.json").read_text())
        self.files = [place.joinpath(f"{camera}.bin").open("rb") for camera in range(len(CAMERAS))]

    def read(self, camera: int, frame: int) -> bytes:
        start, size = self.offsets[camera][frame]
        return os.pread(self.files[camera].fileno(), size, start)


# ---------------------------------------------------------------- decoders alone


def _jpeg(place: Path, workers: None) -> Draw:
    """Decode into the same memory again and again, and make no batch."""
    import simplejpeg

    del workers
    jpegs, out = _Jpegs(place), np.empty((len(CAMERAS), 1, 2, 480, 640, 3), np.uint8)

    def draw(batches: Batches) -> Iterator[Any]:
        for at in (at for batch in batches for at in batch):
            for camera in range(len(CAMERAS)):
                for row, frame in enumerate(past(at)):
                    simplejpeg.decode_jpeg(jpegs.read(camera, frame), buffer=out[camera, 0, row])
            yield dict(zip(IMAGES, out, strict=True))

    return draw


def _torchcodec(place: Path, workers: None) -> Draw:
    """Decode from LeRobot's MP4 files, and make no batch."""
    from torchcodec.decoders import VideoDecoder

    del workers
    paths = [next(place.glob(f"videos/{name}/**/*.mp4")) for name in IMAGES]
    decoders = [VideoDecoder(str(path), seek_mode="approximate") for path in paths]

    def draw(batches: Batches) -> Iterator[Any]:
        for at in (at for batch in batches for at in batch):
            frames = [decoder.get_frames_at(list(past(at))).data[None] for decoder in decoders]
            yield dict(zip(IMAGES, frames, strict=True))

    return draw


@dataclass(frozen=True, slots=True)
class Opener:
    """What opens a contender: with its place, and the number of workers or None for no `DataLoader`.

    Attributes
    ----------
    modules
        That have to import, else the contender is absent.
    packages
        Whose versions are told.
    """

    open: Callable[..., Draw]
    modules: tuple[str, ...]
    packages: tuple[str, ...]


OPENERS = {
    "ours": Opener(_ours, ("teleopen.hub.train",), ("teleopen",)),
    "lerobot": Opener(
        _lerobot,
        ("lerobot.datasets.lerobot_dataset", "torchcodec.decoders"),
        ("lerobot", "torch", "torchcodec"),
    ),
    "lance": Opener(
        _lance,
        ("lerobot_lancedb", "torchcodec.decoders"),
        ("lerobot-lancedb", "lancedb", "lerobot", "torch", "torchcodec"),
    ),
    "litdata": Opener(_litdata, ("litdata", "simplejpeg", "cv2"), ("litdata", "simplejpeg", "torch")),
    "jpeg": Opener(_jpeg, ("simplejpeg",), ("simplejpeg",)),
    "torchcodec": Opener(_torchcodec, ("torchcodec.decoders",), ("torchcodec", "torch")),
}


if __name__ == "__main__":
    main()
