"""Replay buffers of Diffusion Policy, and of UMI, which writes the same with other keys.

Field notes. A replay buffer is a Zarr version 2 group, as a folder or a zip file: ``data/<key>`` holds all
episodes one after the other along its first axis, ``meta/episode_ends`` where each of them ends
(real-stanford/diffusion_policy: diffusion_policy/common/replay_buffer.py). It says nothing on units, frames,
rates or what was asked of the robot. What is known of a key is known from the script that wrote it, and the
set of keys tells which script that was:

- UMI (real-stanford/universal_manipulation_interface: 06_generate_dataset_plan.py and
  07_generate_replay_buffer.py in scripts_slam_pipeline). Poses of the gripper's tip in the frame of the
  table's tag, metres and rotation vectors. One row per GoPro picture; no times and no actions, which a policy
  derives from later poses. The pictures are JPEG XL, one per chunk and lossy unless someone chose otherwise:
  what is kept is what they decode to. The poses at a demonstration's start and end are repeated in each row;
  they are no observations, since the end lies in the future.
- Push-T (diffusion_policy: demo_pusht.py, diffusion_policy/env/pusht/pusht_env.py). A step is a tenth of a
  second of simulated time, whatever rate the person played at. The published data set holds its pictures as
  float32. These stay numbers here: that all of them are whole cannot be known from a header.
- Diffusion Policy's real robot (diffusion_policy/real_world/real_env.py). ``timestamp`` is the grid that
  samples were put on (start + i / frequency, seconds of the Unix epoch), not when each of them was taken.
  Actions are target poses and stand in the row of the time they were meant for. The cameras' videos lie
  beside the buffer as ``videos/<episode>/<camera>.mp4``, with a rate and so a clock of their own; their first
  picture belongs to the first row (real_data_conversion.py reads them so).

Of any other buffer the names are kept and units, frames and rates are unknown; `rate_hz` is then required,
unless there are timestamps.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np

from ..schemas import (
    Array,
    Clock,
    Episode,
    FieldFate,
    FormatError,
    Json,
    Provenance,
    SourceFile,
    Stream,
    StreamSpec,
    Times,
    episode_id,
    median_rate,
    nominal_times,
)
from ..schemas.episode import Fate
from ._replay_buffer import ANY, Layout, Meaning, layout_of
from ._replay_videos import EpisodeVideos, given_up
from ._zarr2 import ChunkedArray, Tree, open_tree
from ._zarr2_store import Store, shown, zip_names
from .base import Format

_ENDS = "meta/episode_ends"
_MAX_STEPS = 10_000_000
_MAX_META_BYTES = 1 << 26
_MAX_META_VALUES = 10_000
_SHOWN = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class _Buffer:
    """A replay buffer whose header was read and checked."""

    path: Path
    tree: Tree
    layout: Layout
    data: Mapping[str, ChunkedArray]
    names: Mapping[str, str]
    ends: tuple[int, ...]
    videos: Path | None


@dataclass(frozen=True)
class UmiZarr:
    """A replay buffer; each of its episodes is one.

    Attributes
    ----------
    block_bytes
        Most payload bytes of a block; while reading, a chunk of the source is held besides.
    rate_hz
        Steps per second, where the buffer has no timestamps. Takes the place of what is known of UMI and
        Push-T, such as for a buffer that was down-sampled.
    """

    format: ClassVar[Format] = Format(
        name="umi-zarr",
        title="UMI / Diffusion Policy zarr",
        suffixes=(".zarr.zip", ".zarr"),
        extra="umi",
        spec="https://github.com/real-stanford/diffusion_policy: diffusion_policy/common/replay_buffer.py",
    )
    block_bytes: int = 1 << 20
    rate_hz: float | None = None

    def __post_init__(self) -> None:
        if self.rate_hz is not None and not 1e-6 <= self.rate_hz <= 1e6:
            raise ValueError(f"rate_hz is {self.rate_hz}; must lie between 1e-6 and 1e6")

    def probe(self, path: Path) -> bool:
        """Tell whether ``path`` is a replay buffer, or the folder of a real robot's recordings around it."""
        try:
            if path.is_dir():
                root = _root(path)
                return (root / _ENDS / ".zarray").is_file() and (root / "data").is_dir()
            with path.open("rb") as file:
                magic = file.read(4)
            return magic == b"PK\3\4" and zip_names(path, f"{_ENDS}/.zarray".encode())
        except (OSError, ValueError):
            return False

    def episodes(self, path: Path) -> Iterator[Episode]:
        """Yield the episodes in the order in which they were recorded."""
        buffer = _open(path, self.format)
        if not buffer.ends:
            return
        store = buffer.tree.store
        source = store.source()
        shared = _SharedHeader(buffer)
        for index in range(len(buffer.ends)):
            yield self._episode(buffer, shared, index, source)

    def _episode(self, buffer: _Buffer, shared: _SharedHeader, index: int, source: SourceFile) -> Episode:
        start, stop = (0, *buffer.ends)[index : index + 2]
        clock, warnings = self._clock(buffer, start, stop)
        streams = {}
        for key, spec in shared.specs.items():
            read = partial(_rows, buffer.data[key], start, stop - start, self.block_bytes)
            streams[spec.name] = Stream(spec=spec, length=stop - start, read=read)
        videos = EpisodeVideos(buffer.videos, index, buffer.names.values(), self.block_bytes)
        sources = (source, *videos.sources)
        return Episode(
            id=episode_id([file.sha256 for file in sources], f"episode={index}"),
            embodiment=buffer.layout.embodiment,
            provenance=Provenance(
                format=self.format.name,
                converter=__name__.rpartition(".")[2],
                converter_version="1",
                sources=sources,
                selector=f"episode={index}",
                options={} if self.rate_hz is None else {"rate_hz": self.rate_hz},
                ledger=(*shared.ledger, *videos.ledger),
                warnings=(*shared.warnings, *warnings),
            ),
            clocks={"steps": clock, **videos.clocks},
            streams={**streams, **videos.streams},
            extra={"replay_buffer": {**shared.extra, "steps": [start, stop]}},
        )

    def _clock(self, buffer: _Buffer, start: int, stop: int) -> tuple[Clock, list[str]]:
        stamps, length = buffer.data.get("timestamp"), stop - start
        warnings: list[str] = []
        times = None if stamps is None else _times(stamps, start, length)
        if stamps is not None and times is not None:
            known = buffer.layout.timestamps
            clock = Clock(
                name="steps",
                kind="recorded",
                measured_hz=median_rate(times),
                source=f"{stamps.name}: {known}" if known else stamps.name,
                length=length,
                read=partial(_stored_times, stamps, start, length),
            )
            return clock, warnings
        if stamps is not None:
            warnings.append(f"{stamps.name} is no rising sequence of seconds: times come from a nominal rate")
        rate = self.rate_hz or buffer.layout.rate_hz
        if rate is None:
            raise FormatError(
                str(buffer.path),
                "data",
                "tells neither timestamps nor a rate, and its keys are not those of UMI or Push-T",
                "Say how many steps it has per second: option rate_hz",
            )
        clock = Clock(
            name="steps",
            kind="nominal",
            declared_hz=rate,
            source="nominal, from the option rate_hz" if self.rate_hz else buffer.layout.rate_source,
            length=length,
            read=partial(nominal_times, length, rate),
        )
        return clock, warnings


class _SharedHeader:
    """What the headers of all episodes of a buffer have in common."""

    def __init__(self, buffer: _Buffer) -> None:
        self.warnings: list[str] = []
        self.ledger: list[FieldFate] = []
        self.extra: dict[str, Json] = {"layout": buffer.layout.name}
        self.specs = {key: _spec(buffer, key) for key in buffer.names}
        for key in sorted(buffer.data):
            self.ledger.append(self._fate(buffer, key))
        self._tell_meta(buffer)
        self._tell_attributes(buffer)
        self._tell_rest(buffer)

    def _fate(self, buffer: _Buffer, key: str) -> FieldFate:
        array, name = buffer.data[key], buffer.names.get(key)
        if name is None:
            return FieldFate(field=array.name, fate="dropped", how="its samples hold no values")
        how = []
        if name.startswith("extra.") and buffer.layout.meaning(key) is None:
            how.append("what this key means is unknown")
        if array.codec.startswith("imagecodecs"):
            how.append(f"the pictures that {array.codec} decodes to, not their stored bytes")
        if key == "img" and array.dtype.kind == "f":
            self.warnings.append(f"{array.name} has pictures as {array.dtype.name}: they are kept as numbers")
        to = (name, "clocks.steps") if key == "timestamp" else (name,)
        fate: Fate = "kept" if name == key else "renamed"
        return FieldFate(field=array.name, fate=fate, to=to, how="; ".join(how), lossless=True)

    def _tell_meta(self, buffer: _Buffer) -> None:
        self.ledger.append(
            FieldFate(
                field=_ENDS,
                fate="transformed",
                to=("extra.replay_buffer.steps",),
                how="each episode tells its own steps [start, stop)",
            )
        )
        meta: dict[str, Json] = {}
        for name, array in sorted(buffer.tree.arrays.items()):
            if name == _ENDS or not name.startswith("meta/"):
                continue
            value = _small_values(array)
            if value is None:
                how = f"{list(array.shape)} of {array.dtype}: too many, no numbers, or not finite"
                self.ledger.append(FieldFate(field=name, fate="dropped", how=how))
                continue
            meta[name.removeprefix("meta/")] = value
            to = ("extra.replay_buffer.meta",)
            self.ledger.append(FieldFate(field=name, fate="renamed", to=to, how="whole, in each episode"))
        if meta:
            self.extra["meta"] = meta

    def _tell_attributes(self, buffer: _Buffer) -> None:
        found = {name or "/": value for name, value in sorted(buffer.tree.attributes.items())}
        for name in found:
            place = ".zattrs" if name == "/" else f"{name}/.zattrs"
            self.ledger.append(FieldFate(field=place, fate="renamed", to=("extra.replay_buffer.attributes",)))
        if found:
            self.extra["attributes"] = found

    def _tell_rest(self, buffer: _Buffer) -> None:
        for name in sorted(buffer.tree.arrays):
            if not name.startswith(("data/", "meta/")):
                how = "lies outside of data and meta, which a replay buffer consists of"
                self.ledger.append(FieldFate(field=name or "/", fate="dropped", how=how))
        loose = [name for name in buffer.tree.loose if not name.endswith(".zmetadata")]
        if len(loose) < len(buffer.tree.loose):
            how = "a copy of the store's other documents"
            self.ledger.append(FieldFate(field=".zmetadata", fate="dropped", how=how))
        for name in loose[:_SHOWN]:
            how = "belongs to no array: not Zarr, or outside of its array's grid"
            self.ledger.append(FieldFate(field=shown(name), fate="dropped", how=how))
        if loose:
            self.warnings.append(f"{len(loose)} files belong to no array, such as {shown(loose[0])}")
        if buffer.videos is not None:
            self.ledger += given_up(buffer.videos, len(buffer.ends))
        if buffer.videos is None and _root(buffer.path.parent) == buffer.path:
            self.warnings.append("videos may lie beside this buffer: give the folder around it to read them")
        if buffer.layout is ANY:
            self.warnings.append("no known writer has these keys: units, frames and actions are unknown")


def _root(path: Path) -> Path:
    inner = path / "replay_buffer.zarr"
    return inner if inner.is_dir() else path


def _open(path: Path, of: Format) -> _Buffer:
    zipped = not path.is_dir()
    root = path if zipped else _root(path)
    tree = open_tree(Store(path=root if zipped else root.resolve(), zipped=zipped), of)
    if _ENDS not in tree.arrays:
        raise FormatError(str(root), _ENDS, "is missing: this is no replay buffer")
    data = {name[5:]: array for name, array in tree.arrays.items() if name.startswith("data/")}
    ends = _ends(root, tree.arrays[_ENDS])
    _check_lengths(root, data, ends)
    layout = layout_of(data.keys())
    videos = root.parent / "videos" if root != path and not zipped else None
    return _Buffer(
        path=root,
        tree=tree,
        layout=layout,
        data=data,
        names=_stream_names(layout, data),
        ends=ends,
        videos=videos if videos is not None and videos.is_dir() else None,
    )


def _ends(root: Path, array: ChunkedArray) -> tuple[int, ...]:
    total = math.prod(array.shape) * array.dtype.itemsize
    if array.dtype.kind not in "iu" or len(array.shape) != 1 or total > _MAX_META_BYTES:
        why = f"is {list(array.shape)} of {array.dtype}, not a list of whole numbers"
        raise FormatError(str(root), _ENDS, why)
    ends = tuple(int(end) for end in array.values())
    for i, (before, end) in enumerate(zip((0, *ends), ends, strict=False)):
        if not before < end <= before + _MAX_STEPS:
            why = f"is {end} after {before}: no episode of 1 to {_MAX_STEPS} steps"
            raise FormatError(str(root), f"{_ENDS}[{i}]", why)
    return ends


def _check_lengths(root: Path, data: Mapping[str, ChunkedArray], ends: Sequence[int]) -> None:
    length = ends[-1] if ends else 0
    for array in data.values():
        if array.shape[0] != length:
            why = f"has {array.shape[0]} rows; the last episode ends at {length} ({_ENDS})"
            raise FormatError(str(root), array.name, why)
        if array.dtype.kind not in "biuf":
            why = f"{array.dtype} is neither bool, integer nor float"
            raise FormatError(str(root), f"{array.name}: dtype", why)
    if length and not data:
        raise FormatError(str(root), "data", "holds no array")


def _is_video(array: ChunkedArray) -> bool:
    return array.dtype == np.uint8 and len(array.shape) == 4 and array.shape[3] in {1, 3}


def _stream_names(layout: Layout, data: Mapping[str, ChunkedArray]) -> dict[str, str]:
    """Return the stream of each key that has values; those of the script come first if two want one name."""
    wanted = {}
    for key, array in data.items():
        known = layout.meaning(key)
        plain = ".".join(re.sub(r"[^A-Za-z0-9_@+-]", "_", part)[:60] for part in key.split("/")[-2:])
        name = known.stream if known else ("observation.images." if _is_video(array) else "extra.") + plain
        if name.startswith("observation.images.") and not _is_video(array):
            name = name.replace("observation.images.", "observation.", 1)
        if 0 not in array.shape[1:]:
            wanted[key] = (known is None, name[:180])
    names: dict[str, str] = {}
    taken: set[str] = set()
    for key, (_, name) in sorted(wanted.items(), key=lambda item: (item[1][0], item[0])):
        number, free = 1, name
        while free.casefold() in taken:
            number += 1
            free = f"{name}_{number}"
        taken.add(free.casefold())
        names[key] = free
    return dict(sorted(names.items()))


def _spec(buffer: _Buffer, key: str) -> StreamSpec:
    array, name = buffer.data[key], buffer.names[key]
    known = buffer.layout.meaning(key) or Meaning(pattern="", stream="")
    shape, video = array.shape[1:], _is_video(array)
    if (known.shape and known.shape != shape) or (key == "timestamp" and array.dtype.kind != "f"):
        known = Meaning(pattern="", stream="")
    attributes = dict(known.attributes)
    if video and array.compressor:
        attributes["source_codec"] = dict(array.compressor)
    return StreamSpec(
        name=name,
        kind="video" if video else "low_dim",
        dtype=array.dtype.name,
        shape=shape,
        unit=("1",) if video else known.unit,
        frame=None if video else known.frame,
        axes=() if video else known.axes,
        contract=known.contract if name == "action" else None,
        description=known.description,
        attributes=attributes,
    )


def _rows(
    array: ChunkedArray, first: int, length: int, block_bytes: int, start: int, stop: int
) -> Iterator[Array]:
    start, stop = max(0, start), min(stop, length)
    return array.rows(first + start, first + stop, block_bytes)


def _times(array: ChunkedArray, first: int, length: int) -> Times | None:
    """Return seconds as nanoseconds since the first, or None if they are not a rising sequence of seconds."""
    if array.dtype.kind != "f" or len(array.shape) != 1:
        return None
    stamps = np.concatenate(list(array.rows(first, first + length, 1 << 20))).astype(np.float64)
    if not np.all(np.isfinite(stamps)):
        return None
    since = stamps - stamps[0]
    if np.any(np.diff(since) <= 0) or since[-1] > 9e9:
        return None
    times: Times = np.rint(since * 1e9).astype(np.int64)
    return times


def _stored_times(array: ChunkedArray, first: int, length: int) -> Times:
    times = _times(array, first, length)
    if times is None:
        raise FormatError(str(array.store.path), array.name, "changed since its header was read")
    return times


def _small_values(array: ChunkedArray) -> Json:
    if array.dtype.kind not in "biuf" or math.prod(array.shape) > _MAX_META_VALUES:
        return None
    values = array.values()
    return values.tolist() if np.all(np.isfinite(values)) else None


CONVERTER = UmiZarr
