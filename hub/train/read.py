"""Chunks and rows of a batch: fetched together, decoded side by side, each once."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field

import numpy as np

from ...schemas import Array, DamageError
from ..arrays import ArrayReader, decompress_depth
from ..decode import Form, scatter
from ..ranges import Range
from ..storage import Storage

Rows = tuple[ArrayReader, int, int]
"""Rows ``[start, stop)`` of a low-dimensional array."""


@dataclass(slots=True)
class Job:
    """A chunk, and the rows of the batch that its frames go to, by slot of the chunk."""

    reader: ArrayReader
    chunk: int
    form: Form | None
    rows: dict[int, list[int]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.reader.key} [chunk {self.chunk}]"

    def decode(self, raw: bytes, out: Array) -> None:
        """Put the frames into their rows."""
        if self.reader.layout.video is None:
            for rows in self.rows.values():
                out[rows] = decompress_depth(raw, self.reader.layout, self.name)
            return
        try:
            scatter(raw, self.reader.layout.video, self.rows, out, form=self.form)
        except DamageError as error:
            raise DamageError(self.name, error.why) from error


def fetch(jobs: Sequence[Job], rows: Sequence[Rows] = ()) -> Fetched:
    """Read what these jobs and rows need: from a disk as it is used, from elsewhere all at once."""
    wanted: dict[int, list[tuple[tuple[str, int, int], list[Range]]]] = {}
    storages: dict[int, Storage] = {}
    for job in jobs:
        storage = storages.setdefault(id(job.reader.storage), job.reader.storage)
        if storage.local("segments") is None:
            name = (job.reader.key, job.chunk, job.chunk + 1)
            wanted.setdefault(id(storage), []).append((name, [job.reader.place(job.chunk)]))
    for reader, start, stop in rows:
        storages.setdefault(id(reader.storage), reader.storage)
        if far := reader.far(start, stop):
            wanted.setdefault(id(reader.storage), []).append(((reader.key, start, stop), far))
    found: dict[tuple[str, int, int], bytes] = {}
    for number, asked in wanted.items():
        parts = iter(storages[number].read_many([part for _, parts in asked for part in parts]))
        found |= {name: b"".join([next(parts) for _ in own]) for name, own in asked}
    return Fetched(found)


@dataclass(slots=True)
class Fetched:
    """What is here, by array and part of it; the rest is on a disk or in memory, and read when it is used."""

    parts: dict[tuple[str, int, int], bytes] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """Bytes that are held."""
        return sum(map(len, self.parts.values()))

    def rows(self, reader: ArrayReader, start: int, stop: int) -> Array:
        """Return rows ``[start, stop)`` of an array: (n, *sample), not to be written to."""
        raw = self.parts.get((reader.key, start, stop))
        if raw is None:
            return reader.rows(start, stop)
        return np.frombuffer(raw, reader.layout.np_dtype).reshape(-1, *reader.layout.sample)

    def decode(self, work: Sequence[tuple[Job, Array]], pool: Executor | None = None) -> None:
        """Decode chunks into their rows of a batch, on the threads of a pool if there is one."""
        if pool is None:
            for job, out in work:
                self._one(job, out)
        else:
            for _ in pool.map(lambda item: self._one(*item), work):
                pass

    def _one(self, job: Job, out: Array) -> None:
        raw = self.parts.get((job.reader.key, job.chunk, job.chunk + 1))
        job.decode(job.reader.chunk(job.chunk) if raw is None else raw, out)
