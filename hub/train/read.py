"""Camera and depth chunks of a batch: fetched together, decoded side by side, each once."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field

from ...schemas import Array, DamageError, NotFoundError, StoreError
from ..arrays import ArrayReader, decompress_depth
from ..decode import Form, scatter

_TRIES = 5
_FIRST_PAUSE_S = 0.1


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


@dataclass(slots=True)
class Chunks:
    """Reads chunks of any number of stores, and tries again where a server fails."""

    retries: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __reduce__(self) -> tuple[type[Chunks], tuple[()]]:
        return Chunks, ()

    def fetch(self, jobs: Sequence[Job]) -> Fetched:
        """Read the chunks of these jobs: from a disk as they are decoded, from elsewhere all at once."""
        remote = [job for job in jobs if job.reader.storage.local("segments") is None]
        found: dict[tuple[str, int], bytes] = {}
        by_store: dict[int, list[Job]] = {}
        for job in remote:
            by_store.setdefault(id(job.reader.storage), []).append(job)
        for group in by_store.values():
            found.update(self._ranges(group))
        return Fetched(found)

    def _ranges(self, jobs: Sequence[Job]) -> dict[tuple[str, int], bytes]:
        unique = list({(job.reader.key, job.chunk): job for job in jobs}.values())
        storage = unique[0].reader.storage
        for attempt in range(_TRIES):
            try:
                places = [job.reader.place(job.chunk) for job in unique]
                parts = storage.read_many(places)
            except (DamageError, NotFoundError):
                raise
            except StoreError:
                if attempt == _TRIES - 1:
                    raise
                with self._lock:
                    self.retries += 1
                time.sleep(_FIRST_PAUSE_S * 2**attempt * random.uniform(0.5, 1.5))
            else:
                return {(job.reader.key, job.chunk): part for job, part in zip(unique, parts, strict=True)}
        raise AssertionError  # the last attempt returned or raised


@dataclass(slots=True)
class Fetched:
    """Chunks that are here; others are on a disk, and read when they are decoded."""

    chunks: dict[tuple[str, int], bytes]

    def decode(self, work: Sequence[tuple[Job, Array]], pool: Executor | None = None) -> None:
        """Decode chunks into their rows of a batch, on the threads of a pool if there is one."""
        if pool is None:
            for job, out in work:
                self._one(job, out)
        else:
            for _ in pool.map(lambda item: self._one(*item), work):
                pass

    def _one(self, job: Job, out: Array) -> None:
        raw = self.chunks.get((job.reader.key, job.chunk))
        job.decode(job.reader.chunk(job.chunk) if raw is None else raw, out)
