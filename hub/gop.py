"""The bytes of one camera chunk: a few hundred bytes of table, and the packets of one group of pictures.

Specified in docs/codec.md. The checksum is part of the chunk, since a checksum codec after this one would
make Zarr fetch and decode whole chunks where one frame is wanted.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

import google_crc32c
import numpy as np

from ..schemas import DamageError

MAGIC = b"TOV1"
KEY, DISPOSABLE = 1, 2

_HEAD = struct.Struct("<4sHHI")  # magic, n_frames, n_packets, flags
_ROW = struct.Struct("<IhBB")  # size, pts, flags, zero
_CRC = struct.Struct("<I")
_MOST = 0xFFFF  # frames or packets that the head can count


class Entry(NamedTuple):
    """One packet of a chunk.

    Attributes
    ----------
    data
        The packet's bytes; a view into the chunk where they come from `unpack`.
    pts
        Slot it shows, from the chunk's first. Negative: preroll, shown before. From ``n_frames`` on: a
        picture shown after the chunk that others in it refer to.
    key
        Decoding can start here, for all packets after it that are not shown before it.
    disposable
        No other picture refers to it, so it need not be decoded unless it is wanted.
    """

    data: bytes | memoryview
    pts: int
    key: bool
    disposable: bool


class Gop(NamedTuple):
    """The content of a chunk: how many slots hold a frame, and the packets in decode order."""

    n_frames: int
    packets: tuple[Entry, ...]


def pack(packets: Iterable[Entry], n_frames: int) -> bytes:
    """Return the bytes of a chunk.

    Parameters
    ----------
    packets
        In decode order. Each slot below ``n_frames`` is shown by exactly one.
    n_frames
        Slots that hold a frame, counted from the chunk's first; at least 1.

    Raises
    ------
    ValueError
        If `unpack` would refuse the result.
    """
    entries = list(packets)
    if problem := _problem(entries, n_frames):
        raise ValueError(problem)
    parts = [_HEAD.pack(MAGIC, n_frames, len(entries), 0)]
    for entry in entries:
        flags = KEY * entry.key | DISPOSABLE * entry.disposable
        parts.append(_ROW.pack(len(entry.data), entry.pts, flags, 0))
    body = b"".join((*parts, *(entry.data for entry in entries)))
    return body + _CRC.pack(google_crc32c.value(body))


def unpack(buffer: bytes | memoryview, slots: int | None = None) -> Gop:
    """Return the packets of a chunk, as views into ``buffer``, once all of it is found to be sound.

    Parameters
    ----------
    buffer
        The chunk, C-contiguous.
    slots
        Length of the array's chunk in frames; None if it is not known, then it is not checked.

    Raises
    ------
    DamageError
        If a bit was flipped, a byte is missing or added, or the head contradicts the rest. Its ``path``
        is empty: the caller knows the place.
    """
    view = memoryview(buffer).cast("B")
    if len(view) < _HEAD.size + _CRC.size:
        raise DamageError("", f"a camera chunk of {len(view)} bytes is cut off")
    magic, n_frames, n_packets, flags = _HEAD.unpack_from(view)
    table_end = _HEAD.size + n_packets * _ROW.size
    end = len(view) - _CRC.size
    if magic != MAGIC or flags:
        raise DamageError("", f"a camera chunk begins with {bytes(view[: _HEAD.size]).hex()}")
    if table_end > end:
        raise DamageError("", f"a camera chunk of {len(view)} bytes claims {n_packets} packets")
    # As an array, since the library takes no memoryview and a copy would cost more than the checksum.
    if google_crc32c.value(np.frombuffer(view[:end], np.uint8)) != _CRC.unpack_from(view, end)[0]:
        raise DamageError("", "the checksum of a camera chunk does not match")
    entries = _entries(view, table_end, end)
    problem = _problem(entries, n_frames)
    if slots is not None and n_frames > slots:
        problem = f"{n_frames} frames for {slots} slots"
    if problem:
        raise DamageError("", f"a camera chunk contradicts itself: {problem}")
    return Gop(n_frames, tuple(entries))


def shown(head: bytes) -> list[int] | None:
    """Return the slots that a chunk's packets show, from the chunk's first bytes; None: more are needed.

    Nothing is checked: this is for finding out what a chunk holds without reading it.
    """
    if len(head) < _HEAD.size:
        return None
    _, _, n_packets, _ = _HEAD.unpack_from(head)
    end = _HEAD.size + n_packets * _ROW.size
    if len(head) < end:
        return None
    return [pts for _, pts, _, _ in _ROW.iter_unpack(head[_HEAD.size : end])]


def runs(packets: Sequence[Entry], wanted: Collection[int]) -> list[list[Entry]]:
    """Return what to feed to a decoder so that it gives the pictures ``wanted``, by their pts.

    Each run begins at a key packet, with nothing decoded before it. A picture may follow a key picture in
    decode order and be shown before it; such a one may refer to what lies before that key picture, so it
    is decoded from the last key packet that is not shown after it.

    Raises
    ------
    DamageError
        If no key packet precedes a wanted picture.
    """
    keys = [index for index, entry in enumerate(packets) if entry.key]
    spans: dict[int, int] = {}
    for index, entry in enumerate(packets):
        if entry.pts in wanted:
            start = start_of(packets, keys, index)
            if start is None:
                raise DamageError("", f"a camera chunk has no key packet to decode slot {entry.pts} from")
            spans[start] = index
    merged: list[tuple[int, int]] = []
    for start, last in sorted(spans.items()):
        if merged and start <= merged[-1][1]:
            before, end = merged.pop()
            merged.append((before, max(end, last)))
        else:
            merged.append((start, last))
    return [_needed(packets, start, last, wanted) for start, last in merged]


def start_of(packets: Sequence[Entry], keys: Sequence[int], index: int) -> int | None:
    """Return the index of the key packet that the picture of packet ``index`` is decoded from, if any.

    Parameters
    ----------
    keys
        Indices of the key packets, ascending.
    """
    for key in reversed(keys[: bisect_right(keys, index)]):
        if packets[key].pts <= packets[index].pts:
            return key
    return None


def _needed(packets: Sequence[Entry], start: int, last: int, wanted: Collection[int]) -> list[Entry]:
    """Leave out what nobody needs: disposable pictures, and those that depend on what precedes the key."""
    first = packets[start].pts
    return [
        entry
        for entry in packets[start : last + 1]
        if entry.pts in wanted or (not entry.disposable and entry.pts >= first)
    ]


def _entries(view: memoryview, table_end: int, end: int) -> list[Entry]:
    """Cut the packets out of a chunk whose checksum was found right."""
    entries: list[Entry] = []
    start = table_end
    for size, pts, flags, zero in _ROW.iter_unpack(view[_HEAD.size : table_end]):
        if flags & ~(KEY | DISPOSABLE) or zero or size > end - start:
            raise DamageError("", f"packet {len(entries)} of a camera chunk has a false entry in the table")
        data = view[start : start + size]
        entries.append(Entry(data, pts, bool(flags & KEY), bool(flags & DISPOSABLE)))
        start += size
    if start != end:
        raise DamageError("", f"a camera chunk has {end - start} bytes that belong to no packet")
    return entries


def _problem(entries: Sequence[Entry], n_frames: int) -> str:
    """Say what keeps these packets from being a chunk; "" if nothing does."""
    shown = {entry.pts for entry in entries}
    if not 1 <= n_frames <= _MOST or len(entries) > _MOST:
        return f"{n_frames} frames in {len(entries)} packets"
    if len(shown) != len(entries):
        return "two packets are shown at the same time"
    if missing := [slot for slot in range(n_frames) if slot not in shown]:
        return f"no packet shows slot {missing[0]}"
    if not -0x8000 <= min(shown) <= max(shown) <= 0x7FFF:
        return f"packets are shown from {min(shown)} to {max(shown)}, which 16 bits do not hold"
    if any(entry.key and entry.disposable for entry in entries):
        return "a key packet is marked as disposable"
    if not entries[0].key:
        return "the first packet is not a key packet"
    if not all(entry.data for entry in entries):
        return "a packet is empty"
    return ""
