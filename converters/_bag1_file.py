"""Bags of ROS 1, read from front to back.

Field notes (http://wiki.ros.org/Bags/Format/2.0). After one line of magic come records: a header of named
fields and data, each with a uint32 length in front. Chunks hold connections and messages, as they are or
compressed by bz2 or lz4 (its frame format); index records behind a chunk tell where its messages lie, and
need not be believed. Connections stand once more at the end, with the definition of their type as text. One
topic may have many connections, one per publisher. Stamps are seconds and nanoseconds, uint32 each.
"""

from __future__ import annotations

import re
import struct
from array import array
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..schemas import FormatError
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

MAGIC = b"#ROSBAG V2.0\n"

_MESSAGE, _BAG, _INDEX, _CHUNK, _CHUNK_INFO, _CONNECTION = range(2, 8)
_MAX_HEADER = 1 << 20
_WIDE = {"time", "index_pos"}
_STAMP = struct.Struct("<II")
_MESSAGE_HEAD = re.compile(
    rb"(?:\x09\0\0\0conn=(.{4})|\x04\0\0\0op=(\x02)|\x0d\0\0\0time=(.{8})){3}", re.DOTALL
)
"""The header of a message, its fields in any order: each of them once, if there are all three."""

Head = dict[str, bytes]


class Bag1File(ChunkedFile):
    """One bag of ROS 1."""

    def scan(self, channels: dict[int, Channel], facts: Facts) -> Scan:
        """Return a pass over the bag."""
        return _Scan(self.path, self.of, channels, facts)


class _Scan:
    """One pass over a bag."""

    def __init__(self, path: Path, of: Format, channels: dict[int, Channel], facts: Facts) -> None:
        self._path, self._of, self._channels, self._facts = path, of, channels, facts
        self._budget = Budget(path)
        self._announced: tuple[int, int] | None = None
        self._told: dict[int, int] = {}
        self._counted = Counter[int]()
        self._chunks = 0

    def refuse(self, where: str, why: str, advice: str = "") -> FormatError:
        return FormatError(str(self._path), where, why, advice)

    def chunks(self, file: BinaryIO) -> Iterator[tuple[Chunk, bytes]]:
        """Yield the chunks, decompressed; take in what else there is."""
        if file.read(len(MAGIC)) != MAGIC:
            raise self.refuse(
                "byte 0", "is no bag of ROS 1, version 2.0", "`rosbag fix` brings older ones up to date"
            )
        while True:
            at = file.tell()
            length = file.read(4)
            if not length:
                return
            where = f"record at byte {at}"
            head = self._head(self._read(file, _size(length), where, _MAX_HEADER), where)
            size = _size(self._read(file, 4, where, 4))
            op = self._number(head, "op", where)
            data_at = file.tell()
            data = self._read(file, size, where, MAX_CHUNK)
            if op == _CHUNK:
                yield self._chunk(head, data, data_at)
            elif op == _CONNECTION:
                self._connection(head, data, where)
            elif op == _BAG:
                self._bag(head, where)
            elif op == _CHUNK_INFO:
                for number, count in struct.iter_unpack("<II", data[: len(data) // 8 * 8]):
                    self._told[number] = self._told.get(number, 0) + count
            elif op != _INDEX:
                raise self.refuse(where, f"is of the kind {op}, which has no place here")

    def _read(self, file: BinaryIO, size: int, where: str, most: int) -> bytes:
        if size > most:
            raise self.refuse(where, f"claims {size:,} bytes; at most {most:,} are read")
        raw = file.read(size)
        if len(raw) != size:
            advice = "`rosbag reindex` saves the chunks that are whole"
            raise self.refuse(where, "is cut off: the file ends here", advice)
        return raw

    def _head(self, raw: bytes, where: str) -> Head:
        found: Head = {}
        at = 0
        while at < len(raw):
            size = _size(raw[at : at + 4])
            name, equals, value = raw[at + 4 : at + 4 + size].partition(b"=")
            if at + 4 + size > len(raw) or not equals:
                raise self.refuse(where, "has a header that is no list of name=value")
            found[name.decode("ascii", "replace")] = value
            at += 4 + size
        return found

    def _number(self, head: Head, name: str, where: str) -> int:
        if name not in head or len(head[name]) > (8 if name in _WIDE else 4):
            raise self.refuse(where, f"has no field {name!r}")
        return int.from_bytes(head[name], "little")

    def _bag(self, head: Head, where: str) -> None:
        if head.get("encryptor"):
            raise self.refuse(where, "is encrypted", "Decrypt it first: `rosbag decrypt`")
        counts = (self._number(head, "conn_count", where), self._number(head, "chunk_count", where))
        if self._number(head, "index_pos", where) == 0:
            self._facts.warnings.append("the bag was not closed: messages at its end may be missing")
        else:
            self._announced = counts

    def _chunk(self, head: Head, raw: bytes, at: int) -> tuple[Chunk, bytes]:
        where = f"chunk at byte {at}"
        compression = head.get("compression", b"").decode("ascii", "replace")
        size = self._number(head, "size", where)
        self._budget.take(size, where)
        chunk = Chunk(self._path, at, len(raw), size, compression)
        self._chunks += 1
        return chunk, decompressed(chunk, raw, self._of)

    def unit(self, number: int, data: bytes, chunk: Chunk) -> Unit:
        """Return the messages of a chunk; its connections are taken in."""
        found = array("q")
        at, end = 0, len(data)
        where = f"chunk at byte {chunk.offset}"
        while at < end:
            start = at + 8 + _size(data[at : at + 4])
            size = _size(data[start - 4 : start])
            if start + size > end:
                raise self.refuse(f"{where}, byte {at}", "a record claims more bytes than are left")
            known = _MESSAGE_HEAD.fullmatch(data, at + 4, start - 4)
            if known and all(known.groups()):
                conn, _, stamp = known.groups()
                found.extend((_size(conn), start, size, _time(stamp)))
            else:
                head, content = data[at + 4 : start - 4], data[start : start + size]
                sent = self._other(head, content, f"{where}, byte {at}")
                found.extend((sent[0], start, size, sent[1]) if sent else ())
            if len(found) > 4 * MAX_IN_CHUNK:
                raise self.refuse(where, f"holds more than {MAX_IN_CHUNK:,} messages")
            at = start + size
        rows = np.frombuffer(found, np.int64).reshape(-1, 4)
        channel, begin, sizes, log = np.ascontiguousarray(rows.T)
        counted = Counter[int](channel.tolist())
        if unknown := counted.keys() - self._channels.keys():
            raise self.refuse(where, f"holds messages of the unknown connection {min(unknown)}")
        self._counted.update(counted)
        return Unit(number, data, channel, begin, begin, sizes, log, log)

    def _other(self, raw: bytes, content: bytes, where: str) -> tuple[int, int] | None:
        """Take in a record of a chunk whose header is no message's usual one.

        Returns
        -------
        tuple or None
            Connection and time, if it is a message all the same.
        """
        head = self._head(raw, where)
        op = self._number(head, "op", where)
        if op == _MESSAGE:
            stamp = self._number(head, "time", where).to_bytes(8, "little")
            return self._number(head, "conn", where), _time(stamp)
        if op != _CONNECTION:
            raise self.refuse(where, f"a record of the kind {op} lies in a chunk")
        self._connection(head, content, where)
        return None

    def _connection(self, head: Head, data: bytes, where: str) -> None:
        number = self._number(head, "conn", where)
        told = {
            name: value.decode("utf-8", "backslashreplace") for name, value in self._head(data, where).items()
        }
        topic = head.get("topic", b"").decode("utf-8", "backslashreplace")
        if not topic or "type" not in told or "message_definition" not in told:
            raise self.refuse(where, "is a connection without topic, type or definition")
        text = told.pop("message_definition")
        about = {name: value for name, value in told.items() if name not in {"topic", "type"}}
        channel = Channel(topic, told["type"], "ros1", "ros1msg", text.encode(), about)
        before = self._channels.setdefault(number, channel)
        if (before.topic, before.type, before.schema) != (channel.topic, channel.type, channel.schema):
            raise self.refuse(where, f"defines the connection {number} otherwise than before")

    def compare(self) -> None:
        """Compare what was met with what the bag announces."""
        if self._announced is None:
            return
        if self._announced[1] != self._chunks:
            told = f"announces {self._announced[1]:,} chunks; the file holds {self._chunks:,}"
            raise self.refuse("bag header", told, "`rosbag reindex` may mend it")
        for number in {*self._told, *self._counted}:
            met, told_count = self._counted[number], self._told.get(number, 0)
            if met != told_count:
                topic = self._channels[number].topic if number in self._channels else str(number)
                raise self.refuse(
                    f"chunk info: {topic}", f"announces {told_count:,} messages; there are {met:,}"
                )


def _time(raw: bytes) -> int:
    seconds, nanoseconds = _STAMP.unpack(raw)
    return int(seconds * 1_000_000_000 + nanoseconds)


def _size(raw: bytes) -> int:
    return int.from_bytes(raw, "little")
