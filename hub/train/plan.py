"""The plan of a batch: which chunks and rows it takes, known before any of them is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from ...schemas import Array, StreamSpec
from ..decode import Form
from .align import between
from .memory import MEMORY, Allocator
from .order import Indices
from .read import Fetched, Job, Rows, fetch
from .shelf import Place
from .wants import Want, WindowError

if TYPE_CHECKING:
    from .windows import Windows

Batch = dict[str, Array]
Source = tuple[str, str]
"""Name in a batch, and a stream that is read for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picked:
    """Which samples of one stream a window takes: index from the episode's start, padding, and part."""

    index: Indices
    pad: NDArray[np.bool_]
    part: NDArray[np.float64] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One window of a batch, planned."""

    episode: int
    anchor: int
    time_ns: int
    place: Place
    picked: Mapping[Source, Picked]


class Plan:
    """What it takes to read a batch: known before any of it is read, so that it can be fetched ahead."""

    def __init__(self, windows: Windows, rows: Sequence[Row]) -> None:
        self.windows, self.rows = windows, rows
        self.jobs: dict[str, list[Job]] = {}
        self.forms: dict[Source, tuple[StreamSpec, Form | None]] = {}
        for source in windows.sources:
            self._plan_stream(source, windows.wants[source[0]])

    def _plan_stream(self, source: Source, want: Want) -> None:
        (name, stream), jobs = source, dict[tuple[str, int], Job]()
        for at, row in enumerate(self.rows):
            segment, place = self.windows.source(stream, row.place)
            spec = segment.specs[stream]
            form = form_of(spec, want) if spec.kind == "video" else None
            first, known = self.forms.setdefault(source, (spec, form))
            if (known.shape if known else first.shape) != (form.shape if form else spec.shape):
                raise WindowError(
                    f"{stream}: samples of {first.shape} and {spec.shape} do not go into one batch; "
                    f"give a size"
                )
            if spec.kind == "low_dim":
                continue
            reader = segment.arrays[stream]
            start = int(segment.starts[spec.clock][place.row])
            for k, index in enumerate(row.picked[source].index):
                chunk, slot = divmod(start + int(index), reader.layout.chunk)
                job = jobs.setdefault((reader.key, chunk), Job(reader, chunk, form))
                job.rows.setdefault(slot, []).append(at * want.count + k)
        self.jobs[name] = list(jobs.values())

    @property
    def batch_bytes(self) -> int:
        """Bytes of the pictures of the batch."""
        return sum(
            len(self.rows) * self.windows.wants[name].count * int(np.prod(form.shape if form else spec.shape))
            for (name, _), (spec, form) in self.forms.items()
            if spec.kind != "low_dim"
        )

    def fetch(self) -> Fetched:
        """Read what the batch needs of remote stores, in as few requests as it has places there."""
        jobs = [job for jobs in self.jobs.values() for job in jobs]
        rows = [self._span(source, row) for source in self._low_dims for row in self.rows]
        return fetch(jobs, rows)

    @property
    def _low_dims(self) -> list[Source]:
        return [source for source, (spec, _) in self.forms.items() if spec.kind == "low_dim"]

    def _span(self, source: Source, row: Row) -> Rows:
        """Return the rows of an array from the first to the last that a window takes."""
        stream, picked = source[1], row.picked[source]
        segment = self.windows.shelf.open(row.place.segment)
        clock = segment.specs[stream].clock
        start, length = (int(of[clock][row.place.row]) for of in (segment.starts, segment.lengths))
        stop = min(int(picked.index.max()) + 1 + (picked.part is not None), length)
        return segment.arrays[stream], start + int(picked.index.min()), start + stop

    def read(self, fetched: Fetched, pool: Executor | None = None, memory: Allocator = MEMORY) -> Batch:
        """Decode what was fetched, read the rest, and return the batch, its pictures in ``memory``."""
        batch: Batch = {
            "episode": np.array([row.episode for row in self.rows], np.int64),
            "step": np.array([row.anchor for row in self.rows], np.int64),
            "time_ns": np.array([row.time_ns for row in self.rows], np.int64),
        }
        work: list[tuple[Job, Array]] = []
        for name, want in self.windows.wants.items():
            sources = [(name, stream) for stream in want.sources(name)]
            spec, form = self.forms[sources[0]]
            if spec.kind == "low_dim":
                parts = [self._low_dim(source, want, fetched) for source in sources]
                batch[name] = _side_by_side(parts) if want.streams else parts[0]
            else:
                shape = form.shape if form else spec.shape
                own = memory if form is None or want.dtype == "uint8" else MEMORY
                out = own.empty((len(self.rows) * want.count, *shape), spec.np_dtype)
                work += [(job, out) for job in self.jobs[name]]
                batch[name] = out.reshape(len(self.rows), want.count, *shape)
            pads = [np.stack([row.picked[source].pad for row in self.rows]) for source in sources]
            batch[f"{name}.pad"] = np.logical_or.reduce(pads)
        fetched.decode(work, pool)
        for (name, _), (spec, _form) in self.forms.items():
            if spec.kind == "video":
                batch[name] = _finished(batch[name], self.windows.wants[name], memory)
        return batch

    def _low_dim(self, source: Source, want: Want, fetched: Fetched) -> Array:
        spec, _ = self.forms[source]
        out = np.empty((len(self.rows), want.count, *spec.shape), spec.np_dtype)
        for at, row in enumerate(self.rows):
            values, picked = fetched.rows(*self._span(source, row)), row.picked[source]
            left = picked.index - picked.index.min()
            if picked.part is None:
                out[at] = values[left]
            else:
                right = np.minimum(left + 1, len(values) - 1)
                spherical = want.align == "slerp"
                ends = [values[side].astype(np.float64) for side in (left, right)]
                out[at] = between(ends[0], ends[1], picked.part, spherical=spherical)
        return out


def _side_by_side(parts: Sequence[Array]) -> Array:
    """Return samples (B, K, *shape) of several streams as (B, K, D)."""
    return np.concatenate([part.reshape(*part.shape[:2], -1) for part in parts], axis=-1)


def _finished(pictures: Array, want: Want, memory: Allocator) -> Array:
    """Return pictures (B, K, *shape) in the type and the layout that are wanted."""
    if want.dtype == "float32":
        whole = memory.empty(pictures.shape, np.float32)
        pictures = np.multiply(pictures, np.float32(1 / 255), out=whole)
    # Channels first is another way to look at the same memory, which most models prefer so.
    return pictures.transpose(0, 1, 4, 2, 3) if want.layout == "chw" else pictures


def form_of(spec: StreamSpec, want: Want) -> Form:
    """Return what is made of a camera's pictures.

    Raises
    ------
    WindowError
        If the crop does not lie in the picture.
    """
    height, width, channels = spec.shape
    crop = want.crop or (0, 0, height, width)
    top, left, tall, wide = crop
    if min(top, left) < 0 or min(tall, wide) < 1 or top + tall > height or left + wide > width:
        raise WindowError(f"{spec.name}: {crop} does not lie in a picture of {height} × {width}")
    layout: Literal["hwc", "yuv420"] = "yuv420" if want.layout == "yuv420" else "hwc"
    return Form(crop=crop, size=want.size, layout=layout, channels=channels)
