"""TFRecord files and the tf.train.Example messages in them, read by range and without TensorFlow.

A record is a length (uint64), a masked CRC-32C of these 8 bytes, the data, and a masked CRC-32C of the data,
all little endian (tensorflow/tensorflow: tensorflow/core/lib/io/record_writer.h and
tensorflow/core/lib/hash/crc32c.h). The data is a protocol buffer (tensorflow/core/example/example.proto and
feature.proto), whose wire format is https://protobuf.dev/programming-guides/encoding:

    Example        1: Features
    Features       1: repeated entry of a map: 1: key, 2: Feature
    Feature        one of 1: BytesList, 2: FloatList, 3: Int64List
    *List          1: repeated value; numbers are packed, or one by one

A record holds a whole episode and may be hundreds of megabytes. So only the places of its values are kept,
and values are read from there when asked for. Messages are four deep and are walked by hand, without
recursion: whatever else a message nests is skipped by its length. Every length is held against what is left
of the message around it before anything is read.
"""

from __future__ import annotations

import math
import zlib
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, Literal

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from ..schemas import Array, FormatError
from .base import version_of

_CRC_MASK = 0xA282EAD8
_FRAME = 12
_CHUNK = 1 << 18
_WINDOW = 1 << 12
_MAX_RECORDS = 5_000_000
_MAX_KEY = 1_000
_MAX_FEATURES = 10_000
MAX_VALUES = 500_000
"""Most texts, pictures and numbers stored one by one of a record: each takes 16 bytes of memory."""
MAX_VALUE_BYTES = 1 << 28
"""Most bytes of one text or picture."""

_VARINT, _FIXED64, _MESSAGE, _FIXED32 = 0, 1, 2, 5

Form = Literal["bytes", "float", "int"]
_FORMS: Mapping[int, Form] = {1: "bytes", 2: "float", 3: "int"}


@dataclass(frozen=True, slots=True)
class Record:
    """The place of a record's data in its file."""

    path: Path
    number: int
    offset: int
    size: int


def _none() -> NDArray[np.int64]:
    return np.empty(0, np.int64)


@dataclass(frozen=True, eq=False)
class Values:
    """A feature's values, where they lie in the file.

    Attributes
    ----------
    where
        The feature's name and its record, for errors.
    count
        How many values there are.
    offset, size
        The packed numbers; nothing if there are none.
    offsets, sizes
        Of each value, for bytes.
    held
        Numbers that were stored one by one.
    ends
        For packed integers: how many end within the first 1, 2, 3 ... chunks.
    """

    path: Path
    where: str
    form: Form | None
    count: int = 0
    offset: int = 0
    size: int = 0
    offsets: NDArray[np.int64] = field(default_factory=_none)
    sizes: NDArray[np.int64] = field(default_factory=_none)
    held: Array | None = None
    ends: NDArray[np.int64] = field(default_factory=_none)

    def numbers(self, start: int, stop: int) -> Array:
        """Return values ``[start, stop)``: float32 or int64."""
        if self.held is not None:
            return self.held[start:stop]
        with self.path.open("rb") as file:
            if self.form == "float":
                file.seek(self.offset + 4 * start)
                return np.frombuffer(_exactly(self, file, 4 * (stop - start)), "<f4")
            return self._integers(file, start, stop)

    def pieces(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield texts or pictures ``[start, stop)``, one at a time."""
        with self.path.open("rb") as file:
            for i in range(start, stop):
                if self.sizes[i] > MAX_VALUE_BYTES:
                    why = f"takes {int(self.sizes[i]):,} bytes; {MAX_VALUE_BYTES:,} are read at most"
                    raise FormatError(str(self.path), f"{self.where}[{i}]", why)
                file.seek(int(self.offsets[i]))
                yield _exactly(self, file, int(self.sizes[i]))

    def _integers(self, file: BinaryIO, start: int, stop: int) -> NDArray[np.int64]:
        """Decode varints. The chunk in which value ``start`` - 1 ends is where the reading begins."""
        if start == stop:
            return np.empty(0, np.int64)
        chunk = int(np.searchsorted(self.ends, start)) if start else 0
        before = int(self.ends[chunk - 1]) if chunk else 0  # values that end in front of the chunk
        file.seek(self.offset + chunk * _CHUNK)
        left, parts, rest, torn = self.size - chunk * _CHUNK, [], b"", chunk > 0
        while before < stop:
            raw = rest + _exactly(self, file, min(_CHUNK, left))
            left -= len(raw) - len(rest)
            last = np.flatnonzero(np.frombuffer(raw, np.uint8) < 0x80)
            whole = int(last[-1]) + 1 if last.size else 0
            # The first value may have begun in the chunk before; value `start` has not.
            decoded, torn = _varints(self, raw[:whole], len(last), torn=torn), False
            parts.append(decoded[max(start - before, 0) : stop - before])
            before, rest = before + len(decoded), raw[whole:]
        return np.concatenate(parts)


def _varints(values: Values, raw: bytes, count: int, *, torn: bool = False) -> NDArray[np.int64]:
    """Decode varints that fill ``raw``. The first may lack its beginning (torn), and is not used then."""
    if count == len(raw):
        return np.frombuffer(raw, np.uint8).astype(np.int64)
    data = np.frombuffer(raw, np.uint8)
    ends = np.flatnonzero(data < 0x80)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if int(lengths[torn:].max(initial=0)) > 10:
        raise FormatError(str(values.path), values.where, "holds an integer of more than 10 bytes")
    place = np.minimum(np.arange(len(data)) - np.repeat(starts, lengths), 9).astype(np.uint64)
    bits = (data & 0x7F).astype(np.uint64) << (np.uint64(7) * place)
    return np.bitwise_or.reduceat(bits, starts).view(np.int64)


def _exactly(values: Values, file: BinaryIO, size: int) -> bytes:
    raw = file.read(size)
    if len(raw) != size:
        raise FormatError(str(values.path), values.where, "the file ends before its values do")
    return raw


# Frames


def records_of(path: Path) -> tuple[Record, ...]:
    """Return the records of a file by their lengths, whose checksums are checked.

    Raises
    ------
    FormatError
        If a length does not fit its checksum or the file.
    """
    return _cached_records(*version_of(path))


@lru_cache(maxsize=8)
def _cached_records(path: Path, size: int, _mtime_ns: int, _inode: int) -> tuple[Record, ...]:
    found: list[Record] = []
    with path.open("rb") as file:
        at = 0
        while at < size:
            where = f"record {len(found)}"
            file.seek(at)
            head = file.read(_FRAME)
            if len(head) < _FRAME:
                raise FormatError(str(path), where, "the file ends within the record's head")
            if masked_crc(google_crc32c.value(head[:8])) != int.from_bytes(head[8:], "little"):
                why = "the checksum of the record's length is wrong"
                raise FormatError(str(path), where, why, "The file is damaged, or no TFRecord file")
            length = int.from_bytes(head[:8], "little")
            if length > size - at - _FRAME - 4:
                raise FormatError(str(path), where, f"claims {length:,} bytes, more than the file has left")
            if len(found) == _MAX_RECORDS:
                raise FormatError(str(path), where, f"only {_MAX_RECORDS:,} records are read")
            found.append(Record(path, len(found), at + _FRAME, length))
            at += _FRAME + length + 4
    return tuple(found)


def masked_crc(crc: int) -> int:
    """Return a CRC-32C as TFRecord stores it: rotated right by 15 bits, plus a constant."""
    return (((crc >> 15) | (crc << 17)) + _CRC_MASK) & 0xFFFFFFFF


def check_data(record: Record) -> None:
    """Hold a record's data against its checksum. Reads all of it, a piece at a time."""
    crc = 0
    with record.path.open("rb") as file:
        file.seek(record.offset)
        left = record.size
        while left and (piece := file.read(min(_CHUNK, left))):
            crc = google_crc32c.extend(crc, piece)
            left -= len(piece)
        told = int.from_bytes(file.read(4), "little")
    if left or masked_crc(crc) != told:
        where = f"record {record.number}"
        raise FormatError(str(record.path), where, "the checksum of the data is wrong: it was damaged")


# Messages


class Walk:
    """Walks over the fields of one message, which lies at [at, end) of a file."""

    def __init__(self, file: BinaryIO, path: Path, where: str, at: int, end: int) -> None:
        self.file, self.path, self.where, self.at, self.end = file, path, where, at, end
        self.base, self.held = 0, b""

    def refuse(self, why: str) -> FormatError:
        return FormatError(str(self.path), f"{self.where}, byte {self.at}", why)

    def varint(self) -> int:
        here = self.at - self.base
        if not 0 <= here <= len(self.held) - 10:
            self.file.seek(self.at)
            self.base, here, self.held = self.at, 0, self.file.read(_WINDOW)
        value, last = 0, min(here + 10, self.end - self.base, len(self.held))
        for i in range(here, last):
            byte = self.held[i]
            value |= (byte & 0x7F) << 7 * (i - here)
            if byte < 0x80:
                self.at += i - here + 1
                return value
        raise self.refuse("a number does not end within the message")

    def fields(self) -> Iterator[tuple[int, int, int, int]]:
        """Yield number, wire type, offset and size of each field. What is of fixed size has its size too."""
        while self.at < self.end:
            number, wire = divmod(self.varint(), 8)
            if wire == _VARINT:
                begin = self.at
                self.varint()
                size = self.at - begin
            elif wire in {_FIXED64, _FIXED32, _MESSAGE}:
                size = self.varint() if wire == _MESSAGE else 8 if wire == _FIXED64 else 4
                begin = self.at
                if size > self.end - begin:
                    raise self.refuse(f"a field claims {size:,} bytes, more than the message has left")
                self.at = begin + size
            else:
                raise self.refuse(f"a field is of wire type {wire}, which no Example has")
            yield number, wire, begin, size

    def messages(self, wanted: int) -> Iterator[tuple[int, int]]:
        """Yield offset and end of each field of this number that is a message."""
        for number, wire, begin, size in self.fields():
            if number == wanted and wire == _MESSAGE:
                yield begin, begin + size


def example_of(record: Record) -> dict[str, Values]:
    """Return the features of a tf.train.Example by their names, without reading their values.

    Raises
    ------
    FormatError
        If the record is no Example, names a feature twice, or holds more values than are read.
    """
    path, where = record.path, f"record {record.number}"
    found: dict[str, Values] = {}
    budget = MAX_VALUES
    with path.open("rb") as file:
        end = record.offset + record.size
        for features in Walk(file, path, where, record.offset, end).messages(1):
            for entry in Walk(file, path, where, *features).messages(1):
                key, value = _entry(file, path, where, entry)
                if key in found or len(found) == _MAX_FEATURES:
                    raise FormatError(str(path), f"{where}, {key}", "is there twice, or one of too many")
                found[key] = _values(file, path, f"{where}, {key}", value, budget)
                budget -= 0 if found[key].size else found[key].count
    return found


def _entry(file: BinaryIO, path: Path, where: str, entry: tuple[int, int]) -> tuple[str, tuple[int, int]]:
    key, value = "", (entry[1], entry[1])
    for number, wire, begin, size in Walk(file, path, where, *entry).fields():
        if number == 1 and wire == _MESSAGE:
            if size > _MAX_KEY:
                raise FormatError(str(path), f"{where}, byte {begin}", f"a name of {size:,} bytes is none")
            file.seek(begin)
            try:
                key = file.read(size).decode()
            except UnicodeDecodeError as error:
                raise FormatError(str(path), f"{where}, byte {begin}", "a name is no UTF-8") from error
        elif number == 2 and wire == _MESSAGE:
            value = begin, begin + size
    if not key:
        raise FormatError(str(path), f"{where}, byte {entry[0]}", "a feature has no name")
    return key, value


def _values(file: BinaryIO, path: Path, where: str, feature: tuple[int, int], budget: int) -> Values:
    lists = [f for f in Walk(file, path, where, *feature).fields() if f[0] in _FORMS and f[1] == _MESSAGE]
    if not lists:
        return Values(path, where, None)
    if len(lists) > 1:
        raise FormatError(str(path), where, "holds two lists")
    number, _, begin, size = lists[0]
    form = _FORMS[number]
    offsets, sizes, wires = array("q"), array("q"), set()
    for place, wire, at, length in Walk(file, path, where, begin, begin + size).fields():
        if place != 1:
            continue
        if len(offsets) == budget:
            raise FormatError(str(path), where, f"a record of more than {MAX_VALUES:,} values is not read")
        offsets.append(at)
        sizes.append(length)
        wires.add(wire)
    if form == "bytes":
        if wires - {_MESSAGE}:
            raise FormatError(str(path), where, "holds numbers in a list of bytes")
        places = np.frombuffer(offsets, np.int64), np.frombuffer(sizes, np.int64)
        return Values(path, where, form, len(offsets), offsets=places[0], sizes=places[1])
    if wires == {_MESSAGE} and len(offsets) == 1:
        return _packed(file, Values(path, where, form, 0, offsets[0], sizes[0]))
    return _held(file, Values(path, where, form), list(zip(offsets, sizes, strict=True)), wires)


def _packed(file: BinaryIO, values: Values) -> Values:
    """Count packed numbers; for integers this reads them once."""
    path, where, form, size = values.path, values.where, values.form, values.size
    if form == "float":
        if size % 4:
            raise FormatError(str(path), where, f"{size} bytes are no list of float32")
        return Values(path, where, form, size // 4, values.offset, size)
    file.seek(values.offset)
    ends, total, last = array("q"), 0, b"\0"
    for left in range(size, 0, -_CHUNK):
        last = _exactly(values, file, min(_CHUNK, left))
        here = int(np.count_nonzero(np.frombuffer(last, np.uint8) < 0x80))
        if not here and len(last) > 10:
            raise FormatError(str(path), where, "holds an integer of more than 10 bytes")
        total += here
        ends.append(total)
    if last[-1] >= 0x80:
        raise FormatError(str(path), where, "the last integer does not end within the list")
    return Values(path, where, form, total, values.offset, size, ends=np.frombuffer(ends, np.int64))


def _held(file: BinaryIO, values: Values, places: list[tuple[int, int]], wires: set[int]) -> Values:
    """Read numbers that are stored one by one, as writers may."""
    single = {"float": _FIXED32, "int": _VARINT}[str(values.form)]
    if len(wires) > 1 or (wires and wires != {single}):
        raise FormatError(str(values.path), values.where, "stores its numbers in more than one way or run")
    raw = bytearray()
    for at, size in places:
        file.seek(at)
        raw += _exactly(values, file, size)
    if values.form == "float":
        held: Array = np.frombuffer(bytes(raw), "<f4")
    else:
        held = _varints(values, bytes(raw), len(places)) if places else np.empty(0, np.int64)
    return Values(values.path, values.where, values.form, len(places), held=held)


def inflated(data: bytes, size: int) -> bytes:
    """Return zlib data that must inflate to exactly so many bytes; `ValueError` if it does not."""
    stream = zlib.decompressobj()
    try:
        found = stream.decompress(data, size + 1)
    except zlib.error as error:
        raise ValueError(f"is no zlib data: {error}") from error
    if len(found) != size or not stream.eof:
        raise ValueError(f"does not inflate to {size:,} bytes")
    return found


def rows_of(values: Values, shape: tuple[int, ...]) -> tuple[int, int]:
    """Return how many samples of a shape there are, and how many values are left over."""
    return divmod(values.count, max(1, math.prod(shape)))
