"""The sample tables of an MP4, read at once: where each packet lies, and when it is shown.

FFmpeg's demuxer gives packets one by one, which takes longer than reading their bytes. So the tables of a
plain file are read here as arrays, by ISO/IEC 14496-12. It holds one video of one description, all of its
tables in one place, and no edit list that hides a picture. Of any other file, and of any that contradicts
itself, this module says nothing; FFmpeg then reads it, and says what is wrong with it.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..schemas import Array

PACKET = np.dtype([("pts", "i8"), ("offset", "i8"), ("size", "i8"), ("flags", "u1")])
"""Presentation time in ticks of the track, place in the file, bytes, and flags: 1 key, 2 hidden."""

_MAX_MOOV_BYTES = 1 << 26
_MAX_BOXES = 1000
_MAX_TICKS = 1 << 30  # of one picture, or of the delay of one
_PLAIN_TABLES = {b"stsd", b"stsz", b"stco", b"co64", b"stsc", b"stts", b"ctts", b"stss", b"sdtp", b"free"}
_PLAIN_TRACK = {b"tkhd", b"edts", b"mdia", b"udta", b"meta", b"free"}

Boxes = Mapping[bytes, list[memoryview]]


class _NotPlainError(Exception):
    """The file is not one of those that this module reads."""


def packets_of(path: Path, file_size: int, most: int) -> Array | None:
    """Return the packets of a plain file's one video in decode order, (n,) `PACKET`; None of any other file.

    Parameters
    ----------
    file_size
        Packets that do not lie within it are a reason to say nothing.
    most
        So are more packets than that.
    """
    try:
        with path.open("rb") as file:
            moov = _boxes(_moov(file, file_size))
        return _packets(moov, file_size, most)
    except (_NotPlainError, OSError, struct.error, ValueError, KeyError, IndexError, OverflowError):
        return None


def _moov(file: BinaryIO, file_size: int) -> memoryview:
    """Return the payload of the one box ``moov``."""
    at, found = 0, None
    for _ in range(_MAX_BOXES):
        if at == file_size:
            break
        file.seek(at)
        head = file.read(16)
        size, kind = struct.unpack_from(">I4s", head)
        begin = 8
        if size == 1:
            size, begin = struct.unpack_from(">Q", head, 8)[0], 16
        size = size or file_size - at
        if kind == b"moof" or size < begin or at + size > file_size or (kind == b"moov" and found):
            raise _NotPlainError
        if kind == b"moov":
            if size > _MAX_MOOV_BYTES:
                raise _NotPlainError
            file.seek(at + begin)
            found = memoryview(file.read(size - begin))
        at += size
    if found is None or at != file_size:
        raise _NotPlainError
    return found


def _boxes(view: memoryview) -> Boxes:
    """Return the payloads of the boxes that a box holds, by their kind."""
    found: dict[bytes, list[memoryview]] = {}
    at = 0
    for _ in range(_MAX_BOXES):
        if at == len(view):
            return found
        size, kind = struct.unpack_from(">I4s", view, at)
        if size < 8 or at + size > len(view):
            break
        found.setdefault(kind, []).append(view[at + 8 : at + size])
        at += size
    raise _NotPlainError


def _one(boxes: Boxes, kind: bytes) -> memoryview:
    (found,) = boxes[kind]
    return found


def _packets(moov: Boxes, file_size: int, most: int) -> Array:
    if b"mvex" in moov:
        raise _NotPlainError  # fragments follow
    (track,) = [t for t in map(_boxes, moov[b"trak"]) if _handler(t) == b"vide"]
    media = _boxes(_one(track, b"mdia"))
    tables = _boxes(_one(_boxes(_one(media, b"minf")), b"stbl"))
    if not track.keys() <= _PLAIN_TRACK or not tables.keys() <= _PLAIN_TABLES:
        raise _NotPlainError  # sample groups, partial sync samples, encryption and the like
    (descriptions,) = struct.unpack_from(">4xI", _one(tables, b"stsd"))
    size = _sizes(_one(tables, b"stsz"), most)
    n = len(size)
    if descriptions != 1 or n == 0:
        raise _NotPlainError
    found = np.empty(n, PACKET)
    found["size"], found["offset"] = size, _offsets(tables, size)
    found["pts"] = _times(tables, n)
    found["flags"] = _keys(tables, n)
    if size.min() <= 0 or found["offset"].min() < 0 or np.any(found["offset"] > file_size - size):
        raise _NotPlainError
    if b"edts" in track:
        edits = _boxes(_one(track, b"edts"))
        scales = _time_scale(_one(moov, b"mvhd")), _time_scale(_one(media, b"mdhd"))
        _check_edits(_one(edits, b"elst"), scales, found["pts"])
    return found


def _handler(track: Boxes) -> bytes:
    return bytes(_one(_boxes(_one(track, b"mdia")), b"hdlr")[8:12])


def _table(box: memoryview, dtype: str, skip: int = 4) -> Array:
    """Return the rows of a full box: version and flags, perhaps more, a count, and as many rows."""
    (count,) = struct.unpack_from(">I", box, skip)
    return np.frombuffer(box, dtype, count, skip + 4)


def _sizes(box: memoryview, most: int) -> NDArray[np.int64]:
    same, count = struct.unpack_from(">4xII", box)
    if count > most:
        raise _NotPlainError
    return np.full(count, same, np.int64) if same else _table(box, ">u4", 8).astype(np.int64)


def _offsets(tables: Boxes, size: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where samples lie, which stand behind each other in chunks (8.7.4 and 8.7.5)."""
    if (b"stco" in tables) == (b"co64" in tables):
        raise _NotPlainError
    wide = b"co64" in tables
    chunks = _table(_one(tables, b"co64" if wide else b"stco"), ">u8" if wide else ">u4").astype(np.int64)
    first, samples, description = (
        _table(_one(tables, b"stsc"), ">u4,>u4,>u4")[name].astype(np.int64) for name in ("f0", "f1", "f2")
    )
    runs = np.diff(np.append(first, len(chunks) + 1))
    if first[0] != 1 or runs.min() <= 0 or samples.min() <= 0 or np.any(description != 1):
        raise _NotPlainError
    if int(samples @ runs) != len(size):
        raise _NotPlainError
    in_chunk = np.repeat(samples, runs)
    before = np.cumsum(size) - size
    heads = np.cumsum(in_chunk) - in_chunk
    found: NDArray[np.int64] = before + np.repeat(chunks - before[heads], in_chunk)
    return found


def _run_lengths(box: memoryview, dtype: str, n: int) -> NDArray[np.int64]:
    """Return a table of counts and values as a value for each of ``n`` samples."""
    table = _table(box, dtype)
    count, value = table["f0"].astype(np.int64), table["f1"].astype(np.int64)
    if int(count.sum()) != n:
        raise _NotPlainError
    return np.repeat(value, count)


def _times(tables: Boxes, n: int) -> NDArray[np.int64]:
    """Return presentation times: the sums of durations, and delays where pictures are reordered (8.6.1)."""
    duration = _run_lengths(_one(tables, b"stts"), ">u4,>u4", n)
    if duration.min() < 1 or duration.max() > _MAX_TICKS:
        raise _NotPlainError
    times: NDArray[np.int64] = np.cumsum(duration) - duration
    if b"ctts" not in tables:
        return times
    delay = _run_lengths(_one(tables, b"ctts"), ">u4,>i4", n)
    if delay.min() < 0 or delay.max() > _MAX_TICKS:
        raise _NotPlainError  # FFmpeg then shifts what edit lists say
    return times + delay


def _keys(tables: Boxes, n: int) -> NDArray[np.uint8]:
    if b"stss" not in tables:
        return np.ones(n, np.uint8)  # 8.6.2: then every sample is a sync sample
    numbers = _table(_one(tables, b"stss"), ">u4").astype(np.int64)
    if numbers[0] != 1 or numbers[-1] > n or np.any(np.diff(numbers) <= 0):
        raise _NotPlainError
    keys = np.zeros(n, np.uint8)
    keys[numbers - 1] = 1
    return keys


def _time_scale(box: memoryview) -> int:
    """Return the ticks per second of ``mvhd`` or ``mdhd``, which stand behind two times."""
    (scale,) = struct.unpack_from(">I", box, 20 if box[0] == 1 else 12)
    if not scale:
        raise _NotPlainError
    return int(scale)


def _check_edits(box: memoryview, scales: tuple[int, int], pts: NDArray[np.int64]) -> None:
    """Refuse an edit list (8.6.6) but for one whose edit, perhaps after a pause, shows every picture."""
    edits = _table(box, ">u8,>i8,>i2,>i2" if box[0] == 1 else ">u4,>i4,>i2,>i2").tolist()
    while len(edits) > 1 and edits[0][1] == -1:
        del edits[0]
    ((length, start, *rate),) = edits
    movie, media = scales
    if rate != [1, 0] or start != int(pts.min()) or start + length * media // movie <= int(pts.max()):
        raise _NotPlainError
