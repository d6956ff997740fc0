"""The bytes of one camera chunk: a few hundred bytes of table, and the packets of one group of pictures.

Specified in docs/codec.md. The checksum is part of the chunk, since a checksum codec after this one would
make Zarr fetch and decode whole chunks where one frame is wanted.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from ..schemas import DamageError

MAGIC = b"TOV1"
KEY, DISPOSABLE = 1, 2

_HEAD = struct.Struct("<4sHHI")  # magic, n_frames, n_packets, flags
_ROW = struct.Struct("<IhBB")  # size, pts, flags, zero
_TABLE = np.dtype([("size", "<u4"), ("pts", "<i2"), ("flags", "u1"), ("zero", "u1")])  # the same, many
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


@dataclass(frozen=True, eq=False)
class Entries:
    """Packets side by side, in decode order: what an `Entry` each tells, in arrays.

    Attributes
    ----------
    data
        (sum of ``size``,) uint8, the packets' bytes behind each other.
    size, pts
        (n,) int64.
    key, disposable
        (n,) bool.
    """

    data: NDArray[np.uint8]
    size: NDArray[np.int64]
    pts: NDArray[np.int64]
    key: NDArray[np.bool_]
    disposable: NDArray[np.bool_]

    @classmethod
    def none(cls) -> Entries:
        """Return no packets."""
        whole, truth = np.zeros(0, np.int64), np.zeros(0, np.bool_)
        return cls(np.zeros(0, np.uint8), whole, whole, truth, truth)

    def __len__(self) -> int:
        return len(self.size)

    @cached_property
    def ends(self) -> NDArray[np.int64]:
        """(n,) int64: where each packet ends in ``data``."""
        ends: NDArray[np.int64] = np.cumsum(self.size)
        return ends

    def joined(self, more: Entries) -> Entries:
        """Return these packets and others behind them."""
        if not len(self):
            return more
        columns = ((getattr(self, name), getattr(more, name)) for name in _COLUMNS)
        return Entries(*(np.concatenate(pair) for pair in columns))

    def cut(self, start: int, stop: int) -> Entries:
        """Return the packets ``[start, stop)``, at least one, as views."""
        data = self.data[self.ends[start] - self.size[start] : self.ends[stop - 1]]
        return Entries(data, *(getattr(self, name)[start:stop] for name in _COLUMNS[1:]))

    def at(self, chosen: NDArray[np.int64]) -> Entries:
        """Return some of the packets by their numbers, which increase."""
        data = np.frombuffer(b"".join(self.parts(chosen)), np.uint8)
        return Entries(data, *(getattr(self, name)[chosen] for name in _COLUMNS[1:]))

    def parts(self, chosen: NDArray[np.int64]) -> list[memoryview]:
        """Return the bytes of some of the packets, those that lie together in one piece."""
        if not chosen.size:
            return []
        breaks = np.flatnonzero(np.diff(chosen) != 1)
        firsts, lasts = chosen[[0, *(breaks + 1)]], chosen[[*breaks, -1]]
        begins, ends = self.ends[firsts] - self.size[firsts], self.ends[lasts]
        return [self.data[begin:end].data for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)]


_COLUMNS = ("data", "size", "pts", "key", "disposable")


def needed(packets: Entries, start: int, stop: int) -> NDArray[np.int64]:
    """Return the numbers of the packets that the pictures ``[start, stop)`` are decoded from: see `runs`.

    Raises
    ------
    DamageError
        If no key packet precedes one of them.
    """
    pts = packets.pts
    if len(pts) == stop - start and packets.key[0] and pts[0] == start:
        return np.arange(len(pts))  # whole groups, and nothing else
    is_wanted = (pts >= start) & (pts < stop)
    (wanted,), (keys,) = is_wanted.nonzero(), packets.key.nonzero()
    nth = keys.searchsorted(wanted, "right") - 1
    while True:
        if (nth < 0).any():
            raise DamageError("", f"no key packet to decode pictures {start} to {stop - 1} from")
        is_leading = pts[keys[nth]] > pts[wanted]
        if not is_leading.any():
            break
        nth -= is_leading
    order = nth.argsort(kind="stable")
    begins = keys[nth[order]]
    first = np.append(0, 1 + (begins[1:] != begins[:-1]).nonzero()[0])
    begins = begins[first]
    # Runs of which one begins before another has ended are one: see `runs`.
    ends = np.maximum.accumulate(np.maximum.reduceat(wanted[order], first))
    heads = np.append(0, 1 + (begins[1:] > ends[:-1]).nonzero()[0])
    begins, ends = begins[heads], ends[np.append(heads[1:] - 1, len(ends) - 1)]
    number = np.arange(begins[0], ends[-1] + 1)
    run = begins.searchsorted(number, "right") - 1
    used = ~packets.disposable[number] & (pts[number] >= pts[begins[run]])
    found: NDArray[np.int64] = number[(number <= ends[run]) & (is_wanted[number] | used)]
    return found


def pack_all(packets: Entries, n_frames: int, chosen: NDArray[np.int64], first: int = 0) -> bytes:
    """Return the bytes of a chunk, as `pack` does, of some of the packets.

    Parameters
    ----------
    chosen
        Their numbers, which increase.
    first
        The ``pts`` of the chunk's first slot.
    """
    size, pts = packets.size[chosen], packets.pts[chosen] - first
    key, disposable = packets.key[chosen], packets.disposable[chosen]
    if problem := _problem(size, pts, key, disposable, n_frames):
        raise ValueError(problem)
    table = np.zeros(len(chosen), _TABLE)
    table["size"], table["pts"], table["flags"] = size, pts, KEY * key | DISPOSABLE * disposable
    head = _HEAD.pack(MAGIC, n_frames, len(chosen), 0) + table.tobytes()
    parts = packets.parts(chosen)
    checksum = google_crc32c.value(head)
    for part in parts:
        # As an array, since the library takes no memoryview.
        checksum = google_crc32c.extend(checksum, np.frombuffer(part, np.uint8))
    return b"".join([head, *parts, _CRC.pack(checksum)])


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
    data, pts, key, disposable = zip(*entries, strict=True) if entries else ((), (), (), ())
    columns = Entries(
        data=np.frombuffer(b"".join(data), np.uint8),
        size=np.array([len(part) for part in data], np.int64),
        pts=np.array(pts, np.int64),
        key=np.array(key, np.bool_),
        disposable=np.array(disposable, np.bool_),
    )
    return pack_all(columns, n_frames, np.arange(len(entries)))


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
    table = np.frombuffer(view[_HEAD.size : table_end], _TABLE)
    flags = table["flags"]
    entries = _entries(view, table_end, end)
    problem = _problem(table["size"], table["pts"], flags & KEY > 0, flags & DISPOSABLE > 0, n_frames)
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


def _problem(
    size: NDArray[np.int64],
    pts: NDArray[np.int64],
    key: NDArray[np.bool_],
    disposable: NDArray[np.bool_],
    n_frames: int,
) -> str:
    """Say what keeps these packets from being a chunk; "" if nothing does."""
    if not 1 <= n_frames <= _MOST or len(pts) > _MOST:
        return f"{n_frames} frames in {len(pts)} packets"
    shown = np.sort(pts)
    if (shown[1:] == shown[:-1]).any():
        return "two packets are shown at the same time"
    begin, end = np.searchsorted(shown, (0, n_frames))
    if end - begin < n_frames:
        gaps = np.flatnonzero(shown[begin:end] != np.arange(end - begin))
        return f"no packet shows slot {gaps[0] if gaps.size else end - begin}"
    if not -0x8000 <= shown[0] <= shown[-1] <= 0x7FFF:
        return f"packets are shown from {shown[0]} to {shown[-1]}, which 16 bits do not hold"
    if (key & disposable).any():
        return "a key packet is marked as disposable"
    if not key[0]:
        return "the first packet is not a key packet"
    if not size.all():
        return "a packet is empty"
    return ""
