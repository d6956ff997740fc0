"""Arrow IPC files that a stranger wrote: columns, read from a map of the file.

A compressed buffer says itself how large it will be, and the library allocates that. Who writes what is read
here compresses none, so a file with any is refused before the library reads a batch; of all others the
buffers are parts of the file, and what is not asked for is not loaded. The few numbers that this takes are
read from the file's metadata by hand (Arrow columnar format: "IPC File Format"; format/File.fbs and
Message.fbs; FlatBuffers: "Internals").
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..schemas import FormatError

if TYPE_CHECKING:
    import pyarrow as pa

_MAGIC = b"ARROW1"
_MAX_FOOTER = 1 << 24
_MAX_BATCHES = 100_000
_BLOCK_BYTES = 24
_PREFIX_BYTES = 8

# Numbers of the members in their tables.
_FOOTER_DICTIONARIES, _FOOTER_BATCHES = 2, 3
_MESSAGE_HEADER = 2
_BATCH_COMPRESSION = 3


@contextmanager
def opened_arrow(path: Path, where: str = "") -> Iterator[pa.RecordBatchFileReader]:
    """Open a file whose buffers are not compressed; what goes wrong while it is open is a `FormatError`."""
    import pyarrow as pa

    try:
        _check(path)
        with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as reader:
            yield reader
    except FormatError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError, IndexError, struct.error, MemoryError) as error:
        raise FormatError(str(path), where, f"cannot be read as Arrow: {str(error)[:300]}") from error


def arrow_batches(
    path: Path, column: str, start: int, stop: int, rows: int
) -> Iterator[tuple[int, pa.Array[Any]]]:
    """Yield rows ``[start, stop)`` of a column, at most ``rows`` at a time, with the number of the first."""
    with opened_arrow(path, column) as reader:
        at = 0
        for i in range(reader.num_record_batches):
            batch = reader.get_batch(i)
            index = batch.schema.get_field_index(column)
            if index < 0:
                raise ValueError(f"{column!r} is no column, or two")
            found = batch.column(index)
            for low in range(max(start - at, 0), min(stop - at, len(found)), rows):
                part = found.slice(low, min(rows, stop - at - low))
                part.validate(full=True)  # offsets within bounds, text in UTF-8
                yield at + low, part
            at += len(found)
    if at < stop:
        raise FormatError(str(path), column, f"ends at row {at}, where {stop} were announced")


def _check(path: Path) -> None:
    """Raise `ValueError` if a file has compressed buffers or dictionaries, or metadata that is none."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[:6] != _MAGIC or data[-6:] != _MAGIC:
            raise ValueError("is no Arrow file, or was cut off")
        size = int.from_bytes(data[-10:-6], "little")
        if not 0 < size <= min(_MAX_FOOTER, len(data) - 10):
            raise ValueError(f"claims a footer of {size} bytes")
        footer = data[len(data) - 10 - size : -10]
        for member, what in ((_FOOTER_DICTIONARIES, "dictionaries"), (_FOOTER_BATCHES, "")):
            place = _member(footer, _root(footer), member)
            count = 0 if place is None else _number(footer, at := place + _number(footer, place))
            if count and what:
                raise ValueError(f"has {what}, which are not read")
            if count > min(_MAX_BATCHES, size // _BLOCK_BYTES):
                raise ValueError(f"claims {count} batches")
            for i in range(count):
                offset, length = struct.unpack_from("<qi", footer, at + 4 + i * _BLOCK_BYTES)
                if not 0 <= offset <= offset + length <= len(data) or length > _MAX_FOOTER:
                    raise ValueError("a batch lies outside of the file")
                _check_message(data[offset + _PREFIX_BYTES : offset + length])


def _check_message(message: bytes) -> None:
    place = _member(message, _root(message), _MESSAGE_HEADER)
    if place is None:
        raise ValueError("a batch has no header")
    if _member(message, place + _number(message, place), _BATCH_COMPRESSION) is not None:
        raise ValueError("has compressed buffers, which are not read: write it without compression")


def _root(buffer: bytes) -> int:
    return _number(buffer, 0)


def _number(buffer: bytes, at: int) -> int:
    found: int = struct.unpack_from("<I", buffer, at)[0]
    return found


def _member(buffer: bytes, table: int, number: int) -> int | None:
    """Return where a member of a table lies, or None if it is not there."""
    members = table - struct.unpack_from("<i", buffer, table)[0]
    place = 4 + 2 * number
    if members < 0 or place + 2 > struct.unpack_from("<H", buffer, members)[0]:
        return None
    offset = struct.unpack_from("<H", buffer, members + place)[0]
    return table + offset if offset else None
