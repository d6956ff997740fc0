"""Packets as they came, cut into chunks without transcoding: the profile ``source``.

A source's groups of pictures seldom fit a chunk's slots. A chunk therefore begins with those packets from
before it that its own pictures are decoded from (preroll), and it may hold pictures that are shown after
it but decoded before its last.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from ..schemas import DamageError, FormatError, PacketBlock, VideoFormat
from .bitstream import Inspector
from .decode import format_problem
from .gop import Entries, needed, pack_all

Ints = NDArray[np.int64]

SLOT_COUNTS = (32, 64, 128, 256)
MOST_OVERHEAD = 1.25
"""Packets stored for each packet of the source, above which longer chunks are taken."""

_PEEK_PACKETS = 512
_MOST_HELD = 2048  # packets; a chunk with as much preroll would take seconds to decode
_MOST_AHEAD = 64  # pictures decoded before one that is shown earlier; codecs allow 16
_TRANSCODE = "Choose another video profile, such as train, to transcode it"


def gops_from_packets(
    blocks: Iterable[PacketBlock], *, video: VideoFormat, length: int, slots: int
) -> Iterator[bytes]:
    """Yield the chunks of a stream of packets: ``slots`` frames each, the last may hold fewer.

    Parameters
    ----------
    blocks
        The packets in decode order, each frame below ``length`` once. Other frames, before 0 too, are kept
        only as far as these need them. All are read; one block and about one group of pictures are held.
    video
        Their format. Which of them are key packets is read from the bitstream, not from `Packet.key`.
    length
        Frames of the stream.
    slots
        Frames of a chunk.

    Raises
    ------
    FormatError
        Where a frame is missing or there twice, or cannot be decoded from a key picture nearby. Its
        ``path`` is empty: the caller knows the source.
    """
    if problem := format_problem(video):
        raise FormatError("", "video", problem, _TRANSCODE)
    held, start, missing = Entries.none(), 0, 0
    for index, entries in _entries(blocks, video):
        before = len(held)
        held = held.joined(entries)
        _check_unique(held.pts, before, start, index)
        came, begin, first = _came(held.pts, start, length), 0, start
        _check_reach(held.pts, before, came, start, length)
        missing = start + int(np.searchsorted(came, len(held)))
        while start < length and min(start + slots, length) <= missing:
            stop = min(start + slots, length)
            last = int(came[stop - 1 - first])
            yield _chunk(held.cut(begin, last + 1), start, stop)
            begin, start = _begin(held, begin, stop), stop
        held = _rest(held, begin, start) if start < length else Entries.none()
    if start < length:
        raise FormatError("", f"frame {missing}", "no packet shows it", _TRANSCODE)


def slots_for_source(blocks: Iterable[PacketBlock], *, video: VideoFormat) -> int:
    """Return how long chunks have to be so that preroll does not weigh: 32, 64, 128 or 256 frames.

    Parameters
    ----------
    blocks
        The packets in decode order, of which the first few hundred are looked at.
    video
        Their format.

    Raises
    ------
    FormatError
        If the first is not a key picture.
    """
    held = Entries.none()
    for _, entries in _entries(blocks, video):
        held = held.joined(entries)
        if len(held) >= _PEEK_PACKETS:
            held = held.cut(0, _PEEK_PACKETS)
            break
    length = int(np.searchsorted(_came(held.pts, 0, len(held)), len(held)))
    for slots in SLOT_COUNTS:
        starts = range(0, length - slots + 1, slots)
        stored = sum(len(_needed(held, start, start + slots)) for start in starts)
        if stored and stored <= MOST_OVERHEAD * slots * len(starts):
            return slots
    return SLOT_COUNTS[-1]


def _entries(blocks: Iterable[PacketBlock], video: VideoFormat) -> Iterator[tuple[int, Entries]]:
    """Yield packets with the flags that their bitstream tells, each time with the number of the first."""
    inspect = Inspector(video.codec)
    index = 0
    for block in blocks:
        key, disposable = inspect.block(block.data, block.size)
        if not index and not key[0]:
            why = "decoding cannot start here: no key picture, or one without its parameter sets"
            raise FormatError("", "packet 0", why, _TRANSCODE)
        yield index, Entries(block.data, block.size, block.pts, key, disposable)
        index += len(block)


def _needed(entries: Entries, start: int, stop: int) -> Ints:
    """Return the numbers of the packets that frames ``[start, stop)`` are decoded from."""
    try:
        return needed(entries, start, stop)
    except DamageError as error:
        where = f"frames {start} to {stop - 1}"
        raise FormatError("", where, "no key picture to decode all of them from", _TRANSCODE) from error


def _chunk(entries: Entries, start: int, stop: int) -> bytes:
    """Return the bytes of the chunk of frames ``[start, stop)``."""
    chosen = _needed(entries, start, stop)
    _check_held(len(chosen), stop - 1)
    try:
        return pack_all(entries, stop - start, chosen, start)
    except ValueError as error:
        raise FormatError("", f"frames {start} to {stop - 1}", str(error), _TRANSCODE) from error


def _begin(held: Entries, begin: int, start: int) -> int:
    """Return the key packet from which on frames from ``start`` on may still need what is held."""
    later = held.pts[begin:] >= start
    first = begin + int(later.argmax()) if later.any() else len(held) - 1
    span = slice(begin, first + 1)
    (keys,) = np.nonzero(held.key[span] & (held.pts[span] <= start))
    return begin + int(keys[-1]) if keys.size else begin


def _rest(held: Entries, begin: int, start: int) -> Entries:
    """Return what frames from ``start`` on may still need, those included that have not come yet."""
    kept = begin + np.flatnonzero((held.pts[begin:] >= start) | ~held.disposable[begin:])
    _check_held(len(kept), int(held.pts[-1]))
    return held.at(kept)


def _check_held(packets: int, frame: int) -> None:
    """Bound what is held: refuse keys that lie too far apart."""
    if packets > _MOST_HELD:
        why = f"{_MOST_HELD} packets without a key picture to begin with"
        raise FormatError("", f"frame {frame}", why, _TRANSCODE)


def _came(pts: Ints, start: int, length: int) -> Ints:
    """Return with which packet all frames from ``start`` up to each one have come: (frames,).

    That is ``len(pts)`` where one is missing, and as many frames are looked at as there are packets.
    """
    place = np.full(min(length - start, len(pts)), len(pts))
    (inside,) = np.nonzero((pts >= start) & (pts < start + len(place)))
    place[pts[inside] - start] = inside
    found: Ints = np.maximum.accumulate(place)
    return found


def _check_unique(pts: Ints, before: int, start: int, index: int) -> None:
    """Refuse a packet that shows what another has shown.

    Parameters
    ----------
    before, index
        How many packets are not new, and the number of the first new one in the stream.
    start
        The frames before it have all been shown.
    """
    order = np.argsort(pts, kind="stable")
    again = order[1:][pts[order][1:] == pts[order][:-1]]
    gone = before + np.flatnonzero((pts[before:] >= 0) & (pts[before:] < start))
    if again.size or gone.size:
        first = int(min([*again, *gone]))
        why = f"a second packet shows frame {pts[first]}"
        raise FormatError("", f"packet {index + first - before}", why, _TRANSCODE)


def _check_reach(pts: Ints, before: int, came: Ints, start: int, length: int) -> None:
    """Bound what is held: refuse a frame that does not come while others do that are shown much later."""
    missing = start + np.searchsorted(came, np.arange(before, len(pts)), "right")
    late = np.flatnonzero((missing < length) & (pts[before:] - missing > _MOST_AHEAD))
    if late.size:
        raise FormatError("", f"frame {missing[late[0]]}", "no packet shows it", _TRANSCODE)
