"""MCAP files, read from front to back with every checksum that is there.

Field notes (https://mcap.dev/spec). After eight bytes of magic come records: an opcode, a uint64 length and
content. Messages lie in the data section or in its chunks; the summary behind them repeats what is known by
then, so it is not needed and only checked. A checksum of zero means that there is none: of a chunk over its
decompressed bytes, of the data section over all before its end, of the summary over all from its start, of an
attachment over its own record. Stamps are nanoseconds, usually of the Unix epoch.

A recorder that was stopped hard leaves no footer. Such a file may have lost messages, so it is refused.
"""

from __future__ import annotations

import os
import struct
import zlib
from array import array
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..schemas import FormatError, Json
from ._chunks import (
    MAX_CHUNK,
    MAX_IN_CHUNK,
    Budget,
    Channel,
    Chunk,
    ChunkedFile,
    Facts,
    Scan,
    Unit,
    decompressed,
)
from .base import Format

MAGIC = b"\x89MCAP0\r\n"

_HEADER, _FOOTER, _SCHEMA, _CHANNEL, _MESSAGE, _CHUNK = range(1, 7)
_ATTACHMENT, _STATISTICS, _METADATA, _DATA_END = 0x09, 0x0B, 0x0C, 0x0F
_INDEXES = {0x07, 0x08, 0x0A, 0x0D, 0x0E}
_RECORD = struct.Struct("<BQ")
_MESSAGE_HEAD = struct.Struct("<BQHIQQ")
_FRONT = _MESSAGE_HEAD.size - _RECORD.size
_CHUNK_HEAD = struct.Struct("<QQQII")
_DATA_END_RECORD = struct.Struct("<BQI")
_END = struct.Struct("<BQQQI8s")
"""The footer and the magic behind it."""

_RUN_BYTES = 1 << 20
_MAX_SMALL = 1 << 24
_MAX_TIME = 1 << 62
_KEPT_TEXT = 1 << 16
_BLOCK = 1 << 20


class McapFile(ChunkedFile):
    """One MCAP file; messages outside of chunks come in runs of about 1 MiB."""

    def scan(self, channels: dict[int, Channel], facts: Facts) -> Scan:
        """Return a pass over the file."""
        return _Scan(self.path, self.of, channels, facts)


class _Scan:
    """One pass over a file."""

    def __init__(self, path: Path, of: Format, channels: dict[int, Channel], facts: Facts) -> None:
        self._path, self._of, self._channels, self._facts = path, of, channels, facts
        self._schemas: dict[int, tuple[str, str, bytes]] = {}
        self._numbers: dict[int, int] = {}
        self._counted = Counter[int]()
        self._told: dict[int, int] | None = None
        self._budget = Budget(path)
        self._crc = 0
        self._counts = True

    def refuse(self, where: str, why: str, advice: str = "") -> FormatError:
        return FormatError(str(self._path), where, why, advice)

    def chunks(self, file: BinaryIO) -> Iterator[tuple[Chunk, bytes]]:
        """Yield what is stored as a chunk, and runs of messages that are not, decompressed."""
        if self._read(file, len(MAGIC), "magic") != MAGIC:
            raise self.refuse("byte 0", "is no MCAP file, or one of a later major version")
        self._counts = _has_data_crc(file)
        run = bytearray()
        run_at = 0
        while True:
            at = file.tell()
            before = self._crc
            head = self._read(file, _RECORD.size, f"byte {at}")
            opcode, length = _RECORD.unpack(head)
            if run and (opcode != _MESSAGE or len(run) + length > _RUN_BYTES):
                yield Chunk(self._path, run_at, len(run), len(run), ""), bytes(run)
                run.clear()
            if opcode == _MESSAGE:
                run_at = run_at if run else at
                run += head + self._read(file, length, f"message at byte {at}")
            elif opcode == _CHUNK:
                yield self._chunk(file, at, length)
            elif opcode == _ATTACHMENT:
                self._attachment(file, at, length)
            elif opcode == _DATA_END:
                self._data_end(file, at, length, before)
                return
            else:
                self._record(opcode, self._read(file, length, f"record at byte {at}", _MAX_SMALL), at)

    def _read(self, file: BinaryIO, size: int, where: str, most: int = MAX_CHUNK) -> bytes:
        if size > most:
            raise self.refuse(where, f"claims {size:,} bytes; at most {most:,} are read")
        raw = file.read(size)
        if len(raw) != size:
            raise self.refuse(
                where,
                "is cut off: the file ends here",
                "If its recorder was stopped, `mcap recover` saves the messages that are whole",
            )
        if self._counts:
            self._crc = zlib.crc32(raw, self._crc)
        return raw

    def _chunk(self, file: BinaryIO, at: int, length: int) -> tuple[Chunk, bytes]:
        where = f"chunk at byte {at}"
        # The records are read by themselves, which spares a copy of them.
        raw = self._read(file, min(length, _CHUNK_HEAD.size), where)
        size, crc, word = _Fields(self._path, where, raw).numbers(_CHUNK_HEAD.format)[2:]
        raw += self._read(file, min(length - len(raw), word + 8), where, _MAX_SMALL)
        fields = _Fields(self._path, where, raw[_CHUNK_HEAD.size - 4 :])
        compression = fields.text()
        (stored,) = fields.numbers("<Q")
        if stored != length - len(raw):
            raise self.refuse(where, f"claims {stored:,} bytes of records; {length - len(raw):,} are there")
        self._budget.take(size, where)
        chunk = Chunk(self._path, file.tell(), stored, size, compression, crc)
        return chunk, decompressed(chunk, self._read(file, stored, where), self._of)

    def unit(self, number: int, data: bytes, chunk: Chunk) -> Unit:
        """Return the messages of a chunk; its other records are taken in."""
        found = array("Q")
        at, end = 0, len(data)
        where = f"chunk at byte {chunk.offset}"
        while at < end:
            if at + _MESSAGE_HEAD.size <= end and data[at] == _MESSAGE:
                _, length, channel, _, log, publish = _MESSAGE_HEAD.unpack_from(data, at)
                after = at + _RECORD.size + length
                if length >= _FRONT and after <= end and channel in self._numbers:
                    found.extend((channel, at + _MESSAGE_HEAD.size, length - _FRONT, log, publish))
                    if len(found) > 5 * MAX_IN_CHUNK:
                        raise self.refuse(where, f"holds more than {MAX_IN_CHUNK:,} messages")
                    at = after
                    continue
            at = self._other(data, at, f"{where}, byte {at}")
        return self._unit(number, data, found, where)

    def _other(self, data: bytes, at: int, where: str) -> int:
        """Take in a record of a chunk that is no sound message; return where the next one begins."""
        if at + _RECORD.size > len(data):
            raise self.refuse(where, "ends within a record")
        opcode, length = _RECORD.unpack_from(data, at)
        start = at + _RECORD.size
        if start + length > len(data):
            raise self.refuse(where, f"a record claims {length:,} bytes, more than are left")
        if opcode == _MESSAGE and length < _FRONT:
            raise self.refuse(where, f"is a message of {length} bytes")
        if opcode == _MESSAGE:
            channel = int.from_bytes(data[start : start + 2], "little")
            raise self.refuse(where, f"is a message of the unknown channel {channel}")
        if opcode not in {_SCHEMA, _CHANNEL}:
            raise self.refuse(where, f"a record of kind {opcode:#04x} lies in a chunk")
        self._record(opcode, data[start : start + length], at)
        return start + int(length)

    def _unit(self, number: int, data: bytes, found: array[int], where: str) -> Unit:
        rows = np.frombuffer(found, np.uint64).reshape(-1, 5)
        if rows.size and int(rows[:, 3:].max()) >= _MAX_TIME:
            raise self.refuse(where, "holds a message of a time that is none")
        channel, start, size, log, publish = np.ascontiguousarray(rows.astype(np.int64).T)
        self._counted.update(channel.tolist())
        return Unit(number, data, channel, start, start, size, log, publish)

    def _record(self, opcode: int, content: bytes, at: int) -> None:
        where = f"record at byte {at}"
        fields = _Fields(self._path, where, content)
        if opcode == _HEADER:
            self._facts.header["header"] = {"profile": fields.text(), "library": fields.text()}
        elif opcode == _SCHEMA:
            (number,) = fields.numbers("<H")
            schema = (fields.text(), fields.text(), fields.blob())
            if number == 0 or self._schemas.setdefault(number, schema) != schema:
                raise self.refuse(where, f"defines the schema {number} otherwise than before, or as none")
        elif opcode == _CHANNEL:
            self._channel(fields, where)
        elif opcode == _METADATA:
            name, told = fields.text(), fields.table()
            names = (f"metadata/{name}", *(f"metadata/{name}_{i}" for i in range(2, 1_000)))
            free = next((n for n in names if n not in self._facts.header), names[-1])
            self._facts.header[free] = told
        elif opcode == 0:
            raise self.refuse(where, "is of the kind 0, which no record is")
        elif opcode not in _INDEXES:
            self._facts.losses.append(
                (f"record {opcode:#04x} at byte {at}", "of a kind that the format leaves to others")
            )

    def _channel(self, fields: _Fields, where: str) -> None:
        number, schema = fields.numbers("<HH")
        topic, encoding, about = fields.text(), fields.text(), fields.table()
        if schema and schema not in self._schemas:
            raise self.refuse(where, f"the channel {number} has the unknown schema {schema}")
        name, language, text = self._schemas.get(schema, ("", "", b""))
        channel = Channel(topic, name, encoding, language, text, about)
        if self._channels.setdefault(number, channel) != channel:
            raise self.refuse(where, f"defines the channel {number} otherwise than before")
        self._numbers[number] = schema

    def _attachment(self, file: BinaryIO, at: int, length: int) -> None:
        where = f"attachment at byte {at}"
        front = self._read(file, min(length, _BLOCK), where)
        crc = zlib.crc32(front[: length - 4])
        fields = _Fields(self._path, where, front)
        fields.numbers("<QQ")
        name, kind = fields.text(), fields.text()
        (size,) = fields.numbers("<Q")
        if fields.at + size + 4 != length:
            raise self.refuse(where, f"claims {size:,} bytes of data, which is not what its record holds")
        left = length - len(front)
        tail = front[-4:]
        while left:
            part = self._read(file, min(left, _BLOCK), where)
            left -= len(part)
            crc = zlib.crc32(part[: len(part) - max(0, 4 - left)], crc)
            tail = (tail + part)[-4:]
        told = int.from_bytes(tail, "little")
        if told and told != crc:
            raise self.refuse(where, "does not match its checksum: the file is damaged")
        text = _as_text(front[fields.at : fields.at + size], kind) if size <= _KEPT_TEXT else None
        if text is None:
            self._facts.losses.append(
                (f"attachments/{name}", f"an attachment ({kind}, {size:,} bytes) is no stream")
            )
        else:
            self._facts.header[f"attachments/{name}"] = text

    def _data_end(self, file: BinaryIO, at: int, length: int, crc: int) -> None:
        (told,) = _Fields(self._path, f"byte {at}", self._read(file, length, f"byte {at}", 64)).numbers("<I")
        if told and not (self._counts and told == crc):
            raise self.refuse(
                f"byte {at}", "the data section does not match its checksum: the file is damaged"
            )
        start = file.tell()
        summary = file.read(MAX_CHUNK + 1)
        if len(summary) > MAX_CHUNK or not summary.endswith(MAGIC):
            raise self.refuse(
                f"byte {start}",
                "the summary does not end in a footer and magic",
                "`mcap recover` may mend it",
            )
        self._summary(summary[: -len(MAGIC)], start)

    def _summary(self, raw: bytes, start: int) -> None:
        at = 0
        while at + _RECORD.size <= len(raw):
            opcode, length = _RECORD.unpack_from(raw, at)
            content = raw[at + _RECORD.size : at + _RECORD.size + length]
            where = f"byte {start + at}"
            if len(content) != length:
                break
            if opcode == _FOOTER:
                _, _, told = _Fields(self._path, where, content).numbers("<QQI")
                if told and told != zlib.crc32(raw[: at + _RECORD.size + 16]):
                    raise self.refuse(where, "the summary does not match its checksum: the file is damaged")
                return
            if opcode == _STATISTICS:
                self._statistics(_Fields(self._path, where, content))
            at += _RECORD.size + length
        raise self.refuse(f"byte {start + at}", "the summary has no footer", "`mcap recover` may mend it")

    def _statistics(self, fields: _Fields) -> None:
        fields.numbers("<QHIIIIQQ")
        (length,) = fields.numbers("<I")
        self._told = dict(fields.numbers("<HQ") for _ in range(length // 10))  # type: ignore[misc] # pairs

    def compare(self) -> None:
        """Compare what was met with what the statistics announce, where they do."""
        if self._told is None:
            return
        for number in {*self._told, *self._counted}:
            met, told = self._counted[number], self._told.get(number, 0)
            if met != told and self._told:
                topic = self._channels[number].topic if number in self._channels else str(number)
                raise self.refuse(
                    f"statistics: {topic}", f"announce {told:,} messages; the file holds {met:,}"
                )


def _has_data_crc(file: BinaryIO) -> bool:
    """Tell whether the data section may have a checksum, which few writers make and takes time to compute.

    The record with it ends where the footer says that the summary begins, or else where the footer does.
    """
    here = file.tell()
    footer = max(here, file.seek(0, os.SEEK_END) - _END.size)
    file.seek(footer)
    end = file.read(_END.size)
    sound = len(end) == _END.size and end.endswith(MAGIC) and end[0] == _FOOTER
    summary = int.from_bytes(end[_RECORD.size : _RECORD.size + 8], "little") or footer
    file.seek(max(0, min(summary, footer) - _DATA_END_RECORD.size))
    last = file.read(_DATA_END_RECORD.size)
    file.seek(here)
    return not sound or last != _DATA_END_RECORD.pack(_DATA_END, 4, 0)


class _Fields:
    """Takes a record apart."""

    def __init__(self, path: Path, where: str, raw: bytes) -> None:
        self._path, self._where, self._raw = path, where, raw
        self.at = 0

    def numbers(self, form: str) -> tuple[int, ...]:
        return struct.unpack(form, self._take(struct.calcsize(form)))

    def blob(self) -> bytes:
        (size,) = self.numbers("<I")
        return self._take(size)

    def text(self) -> str:
        try:
            return self.blob().decode()
        except UnicodeDecodeError as error:
            raise FormatError(
                str(self._path), self._where, f"holds a text that is no UTF-8: {error}"
            ) from error

    def table(self) -> dict[str, Json]:
        (size,) = self.numbers("<I")
        inner = _Fields(self._path, self._where, self._take(size))
        found: dict[str, Json] = {}
        while inner.at < size:
            name = inner.text()
            found[name] = inner.text()
        return found

    def _take(self, size: int) -> bytes:
        raw = self._raw[self.at : self.at + size]
        if len(raw) != size:
            raise FormatError(str(self._path), self._where, "ends within its fields")
        self.at += size
        return raw


def _as_text(raw: bytes, kind: str) -> str | None:
    if not kind.startswith(("text/", "application/json", "application/yaml")):
        return None
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None
