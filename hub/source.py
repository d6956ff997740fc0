"""Packets as they came, cut into chunks without transcoding: the profile ``source``.

A source's groups of pictures seldom fit a chunk's slots. A chunk therefore begins with those packets from
before it that its own pictures are decoded from (preroll), and it may hold pictures that are shown after
it but decoded before its last.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..schemas import DamageError, FormatError, Packet, VideoFormat
from .bitstream import Inspector
from .decode import format_problem
from .gop import Entry, pack, runs

SLOT_COUNTS = (32, 64, 128, 256)
MOST_OVERHEAD = 1.25
"""Packets stored for each packet of the source, above which longer chunks are taken."""

_MOST_HELD = 2048  # packets; a chunk with as much preroll would take seconds to decode
_MOST_AHEAD = 64  # pictures decoded before one that is shown earlier; codecs allow 16
_TRANSCODE = "Choose another video profile, such as train, to transcode it"


def gops_from_packets(
    packets: Iterable[Packet], *, video: VideoFormat, length: int, slots: int
) -> Iterator[bytes]:
    """Yield the chunks of a stream of packets: ``slots`` frames each, the last may hold fewer.

    Parameters
    ----------
    packets
        In decode order, each frame below ``length`` once. Other frames, before 0 too, are kept only as far
        as these need them. All are read; about one group of pictures and one chunk is held.
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
    held: list[Entry] = []
    shown: set[int] = set()
    start, stop = 0, min(slots, length)
    missing = set(range(stop))
    for index, entry in enumerate(_entries(packets, video)):
        if entry.pts in shown or 0 <= entry.pts < start:
            raise FormatError("", f"packet {index}", f"a second packet shows frame {entry.pts}", _TRANSCODE)
        if start == length:
            continue
        held.append(entry)
        shown.add(entry.pts)
        missing.discard(entry.pts)
        while not missing and start < length:
            yield _chunk(held, start, stop)
            held = _rest(held, stop)
            start, stop = stop, min(stop + slots, length)
            shown = {pts for pts in shown if pts >= start}
            missing = set(range(start, stop)) - shown
        _check_reach(held, missing, start, entry.pts)
    if start < length:
        raise FormatError("", f"frame {min(missing)}", "no packet shows it", _TRANSCODE)


def slots_for_source(packets: Iterable[Packet], *, video: VideoFormat) -> int:
    """Return how long chunks have to be so that preroll does not weigh: 32, 64, 128 or 256 frames.

    Parameters
    ----------
    packets
        The first few hundred of the stream, in decode order.
    video
        Their format.

    Raises
    ------
    FormatError
        If the first is not a key picture.
    """
    entries = list(_entries(packets, video))
    shown = {entry.pts for entry in entries}
    length = next(frame for frame in range(len(entries) + 1) if frame not in shown)
    for slots in SLOT_COUNTS:
        starts = range(0, length - slots + 1, slots)
        stored = sum(len(_needed(entries, start, start + slots)) for start in starts)
        if stored and stored <= MOST_OVERHEAD * slots * len(starts):
            return slots
    return SLOT_COUNTS[-1]


def _entries(packets: Iterable[Packet], video: VideoFormat) -> Iterator[Entry]:
    """Yield packets with the flags that their bitstream tells."""
    inspect = Inspector(video.codec)
    has_key = False
    for index, packet in enumerate(packets):
        flags = inspect(packet.data)
        has_key |= flags.key
        if not has_key:
            why = "decoding cannot start here: no key picture, or one without its parameter sets"
            raise FormatError("", f"packet {index}", why, _TRANSCODE)
        yield Entry(packet.data, packet.pts, flags.key, flags.disposable)


def _needed(entries: list[Entry], start: int, stop: int) -> list[Entry]:
    """Return what frames ``[start, stop)`` are decoded from, in decode order."""
    try:
        return [entry for run in runs(entries, range(start, stop)) for entry in run]
    except DamageError as error:
        where = f"frames {start} to {stop - 1}"
        raise FormatError("", where, "no key picture to decode all of them from", _TRANSCODE) from error


def _chunk(held: list[Entry], start: int, stop: int) -> bytes:
    """Return the bytes of the chunk of frames ``[start, stop)``."""
    entries = [
        Entry(data, pts - start, key, disposable) for data, pts, key, disposable in _needed(held, start, stop)
    ]
    try:
        return pack(entries, stop - start)
    except ValueError as error:
        raise FormatError("", f"frames {start} to {stop - 1}", str(error), _TRANSCODE) from error


def _rest(held: list[Entry], stop: int) -> list[Entry]:
    """Return what frames from ``stop`` on may still need, those included that have not come yet."""
    first = next((index for index, entry in enumerate(held) if entry.pts >= stop), len(held))
    keys = [index for index, entry in enumerate(held[: first + 1]) if entry.key and entry.pts <= stop]
    begin = keys[-1] if keys else 0
    return [entry for entry in held[begin:] if entry.pts >= stop or not entry.disposable]


def _check_reach(held: list[Entry], missing: set[int], start: int, newest: int) -> None:
    """Bound what is held: refuse a frame that does not come and keys that lie too far apart."""
    # None that is missing lies before the start of the chunk.
    if newest - start > _MOST_AHEAD and missing and newest - min(missing) > _MOST_AHEAD:
        raise FormatError("", f"frame {min(missing)}", "no packet shows it", _TRANSCODE)
    if len(held) > _MOST_HELD:
        why = f"{_MOST_HELD} packets without a key picture to begin with"
        raise FormatError("", f"frame {newest}", why, _TRANSCODE)
