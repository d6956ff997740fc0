"""A topic of a recording, and its leaves as columns. The API is told in `_topics`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path

import numpy as np

from ..schemas import Array, FormatError, Times
from ._chunks import Container
from ._messages import BULK_BYTES, Counts, Decoder, Leaf, UndecodableError, plain_type

_STAMPS = ("header.stamp", "stamp", "timestamp")
_STEP = 1_024
_STEP_BYTES = 1 << 23


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """One leaf of all messages of a topic.

    Attributes
    ----------
    leaf
        What it is by its type.
    dtype
        NumPy name of its values; empty for text.
    shape
        Of one message: ``()``, ``(26,)`` ...; None if messages hold differently many values.
    counts
        (n,) values in each message.
    """

    topic: Topic
    leaf: Leaf
    dtype: str
    shape: tuple[int, ...] | None
    counts: Counts
    _kept: Array | list[str] | None
    _same: list[str] | None = None

    @property
    def total(self) -> int:
        """Values of all messages together."""
        return int(self.counts.sum())

    @property
    def kept(self) -> bool:
        """Whether the values are at hand; else they are read from the file."""
        return self._kept is not None or self._same is not None

    @property
    def constant(self) -> list[str] | None:
        """The texts that every message holds, if all hold the same."""
        if self._same is not None:
            return self._same
        if not isinstance(self._kept, list) or not len(self.counts) or np.any(self.counts != self.counts[0]):
            return None
        first = self._kept[: int(self.counts[0])]
        width = len(first)
        same = all(self._kept[i : i + width] == first for i in range(0, len(self._kept), max(1, width)))
        return first if same else None

    def each(self, start: int, stop: int) -> Iterator[Array | list[str]]:
        """Yield the values of each message of ``[start, stop)``: a 1-D array, or a list of texts."""
        if self._same is not None:
            yield from repeat(self._same, stop - start)
            return
        if self._kept is not None:
            ends = np.cumsum(self.counts)
            first = int(ends[start - 1]) if start else 0
            for end in ends[start:stop].tolist():
                yield self._kept[first:end]
                first = end
            return
        most = int(self.counts.max(initial=0)) * np.dtype(self.dtype or "S64").itemsize
        if most > BULK_BYTES:
            yield from self._picked(start, stop)
            return
        for first in range(start, stop, _STEP):
            yield from self._decoded(first, min(stop, first + _STEP))

    def _picked(self, start: int, stop: int) -> Iterator[Array | list[str]]:
        for index, payload in enumerate(self.topic.payloads(start, stop), start):
            try:
                yield self.topic.decoder.pick(payload, self.leaf.path)
            except UndecodableError as error:
                raise self.topic.damaged(index, str(error)) from error

    def _decoded(self, start: int, stop: int) -> Iterator[Array | list[str]]:
        """Yield small values, whose messages are decoded together: they may still be large themselves."""
        if self.topic.bytes_of(start, stop) > _STEP_BYTES:
            yield from self._picked(start, stop)
            return
        payloads = list(self.topic.payloads(start, stop))
        sizes = np.array([len(payload) for payload in payloads], np.int64)
        try:
            found = self.topic.decoder.batch(b"".join(payloads), np.cumsum(sizes) - sizes, sizes)
        except UndecodableError as error:
            raise self.topic.damaged(start, f"or one after it: {error}") from error
        values = found[self.leaf.path]
        at = 0
        for count in values.counts.tolist():
            yield values.flat[at : at + count] if values.flat is not None else []
            at += count

    def rows(self, start: int, stop: int, block_bytes: int) -> Iterator[Array]:
        """Yield blocks (m, *shape) of the messages ``[start, stop)``; for a shape that is known only."""
        if self.shape is None:
            raise ValueError(f"messages hold differently many values of {self.leaf.path}")
        width = math.prod(self.shape)
        rows = max(1, block_bytes // max(1, width * np.dtype(self.dtype).itemsize))
        for block in self._blocks(start, stop, rows):
            yield block.reshape(-1, *self.shape)

    def _blocks(self, start: int, stop: int, rows: int) -> Iterator[Array]:
        if isinstance(self._kept, np.ndarray):
            width = math.prod(self.shape or ())
            for at in range(start, stop, rows):
                yield self._kept[at * width : min(stop, at + rows) * width]
            return
        block: list[Array] = []
        for index, values in enumerate(self.each(start, stop), start):
            if len(values) != int(self.counts[index]):
                raise self.topic.damaged(index, "holds other values than when it was read first")
            block.append(np.asarray(values, self.dtype))
            if len(block) == rows:
                yield np.concatenate(block)
                block = []
        if block:
            yield np.concatenate(block)

    def flat(self, start: int, stop: int, block_bytes: int) -> Iterator[Array]:
        """Yield blocks (m,) of the values ``[start, stop)``, counted through all messages."""
        rows = max(1, block_bytes // np.dtype(self.dtype).itemsize)
        if isinstance(self._kept, np.ndarray):
            for at in range(start, stop, rows):
                yield self._kept[at : min(stop, at + rows)]
            return
        ends = np.cumsum(self.counts)
        first, last = (int(np.searchsorted(ends, at, side="right")) for at in (start, stop - 1))
        at = int(ends[first] - self.counts[first]) if len(ends) and first < len(ends) else 0
        for values in self.each(first, min(last + 1, len(ends))):
            wanted = np.asarray(values, self.dtype)[max(0, start - at) : stop - at]
            for offset in range(0, len(wanted), rows):
                yield wanted[offset : offset + rows]
            at += len(values)


@dataclass(slots=True, eq=False, weakref_slot=True)
class Topic:
    """Messages of one name and form.

    Attributes
    ----------
    name, type, encoding, language
        As the container has them; ``language`` is that of the definition.
    about
        What else it tells of the channel.
    problem
        Why its messages cannot be decoded; empty if they can.
    warnings
        Oddities of its messages.
    log_times, publish_times
        (n,) int64 nanoseconds; the second is None if it says the same as the first.
    columns
        Its leaves by path.
    """

    path: Path
    name: str
    type: str
    encoding: str
    language: str
    about: Mapping[str, str]
    container: Container
    decoder: Decoder
    problem: str = ""
    warnings: tuple[str, ...] = ()
    log_times: Times = field(default_factory=lambda: np.empty(0, np.int64))
    publish_times: Times | None = None
    columns: Mapping[str, Column] = field(default_factory=dict)
    _units: Counts = field(default_factory=lambda: np.empty(0, np.int64))
    _places: Counts = field(default_factory=lambda: np.empty(0, np.int64))
    _sizes: Counts = field(default_factory=lambda: np.empty(0, np.int64))

    @property
    def count(self) -> int:
        """Messages."""
        return len(self.log_times)

    @property
    def short_type(self) -> str:
        """The type without ROS 2's ``msg``, such as ``sensor_msgs/Image``."""
        return plain_type(self.type)

    def stamps(self) -> tuple[str, Times] | None:
        """Return where each message bears a stamp and their values, (n,) int64 ns; None if none does."""
        for path in _STAMPS:
            column = self.columns.get(path)
            if column is not None and column.leaf.kind == "time" and column.shape == () and self.count:
                return path, np.concatenate(list(column.rows(0, self.count, 1 << 30)))
        return None

    def bytes_of(self, start: int, stop: int) -> int:
        """Return the bytes of messages ``[start, stop)``, as they are stored."""
        return int(self._sizes[start:stop].sum(dtype=np.int64))

    def payloads(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield messages ``[start, stop)`` as they were sent."""
        which = slice(start, stop)
        rows = (self._units[which].tolist(), self._places[which].tolist(), self._sizes[which].tolist())
        return self.container.payloads(zip(*rows, strict=True))

    def damaged(self, index: int, why: str) -> FormatError:
        """Return the error of a message."""
        return FormatError(
            str(self.path), f"{self.name}: message {index}", why, "Leave the topic out: option skip"
        )
