"""Recordings as columns: named fields with a row per sample, whatever file they lie in.

Each kind of file has one class that keeps the protocol `Columns`; who reads columns need not know the file.
A `Share` is what one episode has of them. None of these holds an open file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from ..schemas import Array, FormatError, Json, Times

MAX_ROWS = 1 << 25
"""Rows of a column above which a header is taken for a lie: nine hours at 1 kHz."""

Holds = Literal["numbers", "bytes", "texts"]
Stamps = Literal["header", "publish", "log"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One field of a recording that has rows.

    Attributes
    ----------
    name, length
        What it is called in the file, and how many rows it has.
    holds
        ``bytes`` and ``texts`` of any length are read with `Columns.items`, numbers with `Columns.blocks`.
    dtype, shape
        Of a row of numbers.
    unit
        What the file's own type says of a time: ``s``, ``ms``, ``us`` or ``ns``; else empty.
    how
        What is done to give these numbers, if they are not what is stored; for the ledger.
    clock
        Which of the recording's own time axes the rows are on; empty where it has none.
    unread
        Why the rows cannot be read; empty if they can.
    """

    name: str
    length: int
    holds: Holds = "numbers"
    dtype: str = "uint8"
    shape: tuple[int, ...] = ()
    unit: str = ""
    how: str = ""
    clock: str = ""
    unread: str = ""

    @property
    def row_bytes(self) -> int:
        """Bytes of a row of numbers."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


class Columns(Protocol):
    """A file as columns.

    Attributes
    ----------
    path, files
        The recording, and the files that it consists of.
    columns
        Every field that has rows, by its name.
    values
        Every single value and attribute, as JSON, by its name; attributes as ``path@name``.
    unread
        Why the others cannot be told.
    """

    @property
    def path(self) -> Path: ...

    @property
    def files(self) -> tuple[Path, ...]: ...

    @property
    def columns(self) -> Mapping[str, Column]: ...

    @property
    def values(self) -> Mapping[str, Json]: ...

    @property
    def unread(self) -> Mapping[str, str]: ...

    def blocks(self, name: str, start: int, stop: int, rows: int) -> Iterator[Array]:
        """Yield rows ``[start, stop)`` of numbers, ``rows`` at a time but for the last block.

        Raises
        ------
        FormatError
            If they cannot be read.
        """
        ...

    def items(self, name: str, start: int, stop: int) -> Iterator[bytes]:
        """Yield rows ``[start, stop)`` of bytes or texts, texts in UTF-8.

        Raises
        ------
        FormatError
            If they cannot be read.
        """
        ...

    def stamps(self, clock: str, which: Stamps) -> Times | None:
        """Return the times of one of the recording's own time axes; None if it has no such stamps.

        They are int64 nanoseconds of the recording's epoch, and may run backwards.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What one episode has of a file's columns.

    Attributes
    ----------
    selector
        Which episode of the file it is; empty if that is all.
    columns, values, unread
        Like those of `Columns`, by the names that they have for this episode.
    outside
        Names of columns that belong to the file and not to this episode.
    origin
        Name in the file, and the first row, of each column.
    """

    source: Columns
    selector: str = ""
    columns: Mapping[str, Column]
    values: Mapping[str, Json]
    unread: Mapping[str, str]
    outside: frozenset[str] = frozenset()
    origin: Mapping[str, tuple[str, int]] = field(default_factory=dict)

    def blocks(self, name: str, start: int, stop: int, rows: int) -> Iterator[Array]:
        """Yield rows ``[start, stop)`` of this episode, like `Columns.blocks`."""
        there, first = self.origin.get(name, (name, 0))
        stop = min(stop, self.columns[name].length)
        return self.source.blocks(there, first + start, first + stop, rows)

    def items(self, name: str, start: int, stop: int) -> Iterator[bytes]:
        """Yield rows ``[start, stop)`` of this episode, like `Columns.items`.

        Rows of bytes of a fixed length count as items, too: without the zeros behind them.
        """
        there, first = self.origin.get(name, (name, 0))
        column = self.columns[name]
        stop = min(stop, column.length)
        if column.holds != "numbers":
            yield from self.source.items(there, first + start, first + stop)
            return
        for block in self.source.blocks(there, first + start, first + stop, 1):
            yield block.tobytes().rstrip(b"\0")


def whole(source: Columns) -> Share:
    """Return all of a file as one episode."""
    return Share(source=source, columns=source.columns, values=source.values, unread=source.unread)


def even(blocks: Iterable[Array], rows: int) -> Iterator[Array]:
    """Yield the same rows in blocks of ``rows`` but for the last. Holds two blocks."""
    held: list[Array] = []
    count = 0
    for block in blocks:
        rest = block
        while count + len(rest) >= rows:
            cut = rows - count
            yield np.concatenate([*held, rest[:cut]]) if held else rest[:cut]
            held, count, rest = [], 0, rest[cut:]
        if len(rest):
            held.append(rest)
            count += len(rest)
    if held:
        yield np.concatenate(held)


def judged(path: Path, column: Column) -> Column:
    """Return a column, or refuse it if it claims more rows than are believed."""
    if column.length > MAX_ROWS:
        raise FormatError(
            str(path), column.name, f"has {column.length:,} rows; at most {MAX_ROWS:,} are read"
        )
    return column
