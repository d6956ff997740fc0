"""Packets as MP4 stores them, made into the forms in which they stand by themselves: Annex B, and OBUs.

Packets go by the block, all of a block at once, as long as nothing in them is unusual. FFmpeg's filters take
over otherwise, packet by packet; for the usual they do the same.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import av
    from av.bitstream import BitStreamFilterContext

    Bytes = NDArray[np.uint8]
    Ints = NDArray[np.int64]
    Flags = NDArray[np.bool_]

_SEQUENCE_HEADER = 1  # AV1 specification, section 6.2.2: OBU types
_SLICE, _IDR, _SPS, _PPS = 1, 5, 7, 8  # ITU-T H.264, table 7-1: NAL unit types
_FIRST_IRAP, _LAST_KNOWN_IRAP, _LAST_IRAP = 16, 21, 23  # ITU-T H.265, table 7-1; 22 and 23 are reserved
_HEVC_SETS = (32, 33, 34)
_FOUR = np.arange(4)
_MAX_UNITS = 64
"""Most units of a packet that are gone through side by side; more than slices and messages of a picture."""


class MalformedError(ValueError):
    """A packet is not what its codec says. ``number`` counts within the block."""

    def __init__(self, number: int, why: object) -> None:
        super().__init__(str(why))
        self.number = number


@dataclass(frozen=True, slots=True, eq=False)
class Setup:
    """What the container says once for all packets of a video.

    Attributes
    ----------
    header
        What stands in front of a key picture that does not bring it itself: parameter sets, or OBUs.
    stream
        For FFmpeg's filter, where there is one; a stream of its own, which holds no file open.
    length_bytes
        Of the length in front of each NAL unit; 0 if that is not told as ISO/IEC 14496-15 has it.
    """

    codec: str
    header: bytes = b""
    stream: av.VideoStream | None = None
    length_bytes: int = 0

    @classmethod
    def of(cls, stream: av.VideoStream, codec: str) -> Setup:
        """Read the setup of a video whose packets have all been read; FFmpegError if it is malformed."""
        import av
        from av.bitstream import BitStreamFilterContext

        record = stream.codec_context.extradata or b""
        if codec == "av1":
            # AV1 in ISOBMFF, section 2.3.3: av1C is four bytes, then the OBUs in front of all others.
            return cls(codec, record[4:] if record[:1] == b"\x81" else record)
        if codec not in {"h264", "hevc"}:
            return cls(codec)
        nowhere = av.open(io.BytesIO(), "w", format="null")
        kept = nowhere.add_stream_from_template(stream, opaque=True)
        # Written back to the stream, so that its extradata become the parameter sets as Annex B.
        BitStreamFilterContext(_filter_of(codec), stream, stream)
        return cls(codec, stream.codec_context.extradata or b"", kept, _length_bytes(record, codec))


def _length_bytes(record: bytes, codec: str) -> int:
    """Return lengthSizeMinusOne + 1 of avcC or hvcC (ISO/IEC 14496-15, 5.3.3.1, 8.3.3.1); 0 of neither."""
    at = 4 if codec == "h264" else 21
    return record[at] % 4 + 1 if record[:1] == b"\x01" and len(record) > at + 1 else 0


class BitstreamForm:
    """Turns packets as MP4 stores them into the bitstream form of `VideoFormat`; others pass unchanged."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._filter: BitStreamFilterContext | None = None

    def of(self, data: Bytes, size: Ints, key: Flags) -> tuple[Bytes, Ints]:
        """Return the bytes of a block of packets in their bitstream form, and the size of each.

        Parameters
        ----------
        data
            (sum of ``size``,), which may be changed.
        size, key
            (n,), of each packet.

        Raises
        ------
        MalformedError
            If a packet is none.
        """
        codec = self._setup.codec
        if codec not in {"h264", "hevc", "av1"}:
            return data, size
        if codec == "av1":
            plain = _are_sized_obus(data, size, key)
            return (data, size) if plain else self._one_by_one(data, size, key)
        # Once FFmpeg's filter has seen parameter sets, those count, and it goes on.
        if self._filter is None and (found := annexb_of(self._setup, data, size, key)):
            return found
        return self._one_by_one(data, size, key)

    def _one_by_one(self, data: Bytes, size: Ints, key: Flags) -> tuple[Bytes, Ints]:
        import av

        ends = np.cumsum(size)
        parts = []
        for number, (end, length, is_key) in enumerate(zip(ends, size, key, strict=True)):
            raw = data[end - length : end].tobytes()
            try:
                parts.append(
                    self._obus(raw, key=is_key)
                    if self._setup.codec == "av1"
                    else self._annexb(raw, key=is_key)
                )
            except (av.FFmpegError, ValueError) as error:
                raise MalformedError(number, error) from error
        return np.frombuffer(b"".join(parts), np.uint8), np.array([len(part) for part in parts], np.int64)

    def _annexb(self, raw: bytes, *, key: bool) -> bytes:
        from av.bitstream import BitStreamFilterContext

        codec, stream = self._setup.codec, self._setup.stream
        if self._filter is None:
            self._filter = BitStreamFilterContext(_filter_of(codec), stream)
        filtered = self._filter.filter(padded(raw))
        if len(filtered) != 1:
            raise ValueError("the packet is empty")
        data = bytes(filtered[0])
        # The filter puts parameter sets in front of IDR pictures only. A key frame may also be an open
        # group's intra picture, which x264 marks as a place to start from.
        return self._setup.header + data if key and codec == "h264" and not _has_sps(data) else data

    def _obus(self, raw: bytes, *, key: bool) -> bytes:
        units = list(_obus(raw))
        # AV1 in ISOBMFF, section 2.4: a sample's last OBU may leave its size out. In a stream it may not.
        data = b"".join(unit for _, unit in units)
        if key and all(kind != _SEQUENCE_HEADER for kind, _ in units):
            return self._setup.header + data
        return data


# NAL units, all packets of a block at once


class _Units(NamedTuple):
    """NAL units of a block in order: the packet of each, its number in that packet, and its place."""

    packet: Ints
    number: Ints
    at: Ints
    """Behind the length."""
    heads: Bytes
    """(units, 2): the first bytes."""


def annexb_of(setup: Setup, data: Bytes, size: Ints, key: Flags) -> tuple[Bytes, Ints] | None:
    """Return packets with start codes in place of lengths, and parameter sets in front of key pictures.

    None if there is anything but pictures with lengths of four bytes, and messages on them: FFmpeg's filter
    knows what to do then. ``data`` is changed, unless None is returned.
    """
    units = _units(data, size) if setup.length_bytes == 4 and setup.header else None
    opened = None if units is None else _OPENED[setup.codec](units, key)
    if units is None or opened is None:
        return None
    data[units.at[:, None] + (_FOUR - 4)] = (0, 0, 0, 1)
    # As FFmpeg's filters do it: in H.264 only the first of a packet gets a start code of four bytes.
    short = (units.number > 0) | (opened & _is_idr(units)) if setup.codec == "h264" else np.zeros_like(opened)
    (edited,) = np.nonzero(opened | short)
    if not edited.size:
        return data, size
    size = size.copy()
    np.add.at(size, units.packet[edited], opened[edited] * len(setup.header) - short[edited])
    return _edited(data, units.at[edited] - 4, opened[edited], short[edited], setup.header), size


def _edited(data: Bytes, places: Ints, opened: Flags, short: Flags, header: bytes) -> Bytes:
    """Return the data with the header put in at some places, and a byte taken out at some."""
    view = data.data
    begins, ends = [0, *(places + short).tolist()], [*places.tolist(), len(data)]
    parts = [view[begin:end] for begin, end in zip(begins, ends, strict=True)]
    for number in reversed(np.flatnonzero(opened).tolist()):
        parts.insert(number + 1, memoryview(header))
    return np.frombuffer(b"".join(parts), np.uint8)


def _units(data: Bytes, size: Ints) -> _Units | None:
    """Return all NAL units; None if a length is wrong or odd, or there are too many to go through here."""
    limit = np.cumsum(size)
    at, packet = limit - size, np.arange(len(size))
    found = []
    for number in range(_MAX_UNITS):
        if (at + 6 > limit).any():
            return None
        length = data[at[:, None] + _FOUR].view(">u4")[:, 0].astype(np.int64)
        after = at + 4 + length
        if ((length < 2) | (after > limit)).any():
            return None
        found.append((packet, np.full(len(at), number), at + 4))
        left = after < limit
        if not left.any():
            columns = [np.concatenate(column) for column in zip(*found, strict=True)]
            order = np.argsort(columns[2], kind="stable")
            packet, numbers, places = (column[order] for column in columns)
            return _Units(packet, numbers, places, data[places[:, None] + _FOUR[:2]])
        at, packet, limit = after[left], packet[left], limit[left]
    return None


def _is_idr(units: _Units) -> Flags:
    found: Flags = units.heads[:, 0] & 31 == _IDR
    return found


def _h264_opened(units: _Units, key: Flags) -> Flags | None:
    """Tell in front of which units parameter sets belong; None if some are there, or slices are mixed."""
    kind, is_idr = units.heads[:, 0] & 31, _is_idr(units)
    opened = is_idr & _is_first(units, is_idr)
    begins = units.heads[:, 1] >= 0x80  # first_mb_in_slice is 0
    has_idr = np.bincount(units.packet[is_idr], minlength=len(key)) > 0
    mixed = (kind == _SLICE) & has_idr[units.packet]
    if ((kind == _SPS) | (kind == _PPS) | mixed | is_idr & (begins != opened)).any():
        return None
    # A key frame may also be an open group's intra picture, which x264 marks as a place to start from.
    found: Flags = opened | ((key & ~has_idr)[units.packet] & (units.number == 0))
    return found


def _hevc_opened(units: _Units, _key: Flags) -> Flags | None:
    """Tell in front of which units parameter sets belong; None if some are there."""
    kind = units.heads[:, 0] >> 1 & 63
    is_irap = (kind >= _FIRST_IRAP) & (kind <= _LAST_IRAP)
    if np.any(np.isin(kind, _HEVC_SETS)) or np.any(kind[is_irap] > _LAST_KNOWN_IRAP):
        return None
    found: Flags = is_irap & _is_first(units, is_irap)
    return found


_OPENED = {"h264": _h264_opened, "hevc": _hevc_opened}


def _is_first(units: _Units, chosen: Flags) -> Flags:
    """Tell of which units no other chosen one stands before them in their packet."""
    (places,) = chosen.nonzero()
    packet = units.packet[places]
    found = np.zeros(len(chosen), np.bool_)
    found[places[np.append(True, packet[1:] != packet[:-1])[: len(places)]]] = True
    return found


# Open bitstream units, all packets of a block at once


def _are_sized_obus(data: Bytes, size: Ints, key: Flags) -> bool:
    """Tell whether every OBU tells its size, all sizes are right, and all keys hold a sequence header."""
    ends = np.cumsum(size)
    at, packet = ends - size, np.arange(len(size))
    opened = np.zeros(len(size), np.bool_)
    for _ in range(_MAX_UNITS):
        head = data[at]
        if np.any(head & 0x82 != 2):  # the forbidden bit; obu_has_size_field
            return False
        opened[packet[head >> 3 & 15 == _SEQUENCE_HEADER]] = True
        begin = at + 1 + (head >> 2 & 1)
        length, begin = _leb128s(data, begin, ends[packet])
        at = begin + length
        if np.any(at > ends[packet]):
            return False
        left = at < ends[packet]
        at, packet = at[left], packet[left]
        if not at.size:
            return bool(np.all(opened | ~key))
    return False


def _leb128s(data: Bytes, at: Ints, ends: Ints) -> tuple[Ints, Ints]:
    """Return the numbers that begin at places, and where they end; behind ``ends`` if they are no numbers."""
    value = np.zeros(len(at), np.int64)
    after, (open_,) = ends + 1, np.nonzero(at < ends)
    for i in range(8):
        if not open_.size:
            break
        byte = data[at[open_] + i].astype(np.int64)
        value[open_] |= (byte & 0x7F) << 7 * i
        done = byte < 0x80
        after[open_[done]] = at[open_[done]] + i + 1
        open_ = open_[~done]
        open_ = open_[at[open_] + i + 1 < ends[open_]]
    return value, after


def _filter_of(codec: str) -> str:
    return f"{codec}_mp4toannexb"


def padded(raw: bytes) -> av.Packet[Any]:
    """Return a packet with the zeros behind its data that decoders rely on: they read up to 64 bytes ahead.

    ``av.Packet(raw)`` would point to the bytes as they lie in memory, with whatever comes after them.
    """
    import av

    packet: av.Packet[Any] = av.Packet(len(raw))
    packet.update(raw)
    return packet


def _obus(raw: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the type and the bytes of each open bitstream unit, with its size (AV1 specification, 5.3)."""
    at = 0
    while at < len(raw):
        header = raw[at]
        extension, sized = bool(header & 4), bool(header & 2)
        head = at + 1 + extension
        length, body = _leb128(raw, head) if sized else (len(raw) - head, head)
        if header & 0x80 or length < 0 or body + length > len(raw):
            raise ValueError(f"malformed OBU at byte {at}")
        prefix = bytes([header | 2]) + raw[at + 1 : head]
        yield header >> 3 & 15, raw[at : body + length] if sized else prefix + _as_leb128(length) + raw[head:]
        at = body + length


def _leb128(raw: bytes, at: int) -> tuple[int, int]:
    """Return the number that begins at ``at``, and where it ends (AV1 specification, 4.10.5)."""
    value = 0
    for i, byte in enumerate(raw[at : at + 8]):
        value |= (byte & 0x7F) << 7 * i
        if not byte & 0x80:
            return value, at + i + 1
    raise ValueError(f"malformed OBU size at byte {at}")


def _as_leb128(value: int) -> bytes:
    raw = bytearray()
    while value > 0x7F:
        raw.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*raw, value])


def _has_sps(annexb: bytes) -> bool:
    return any(unit[:1] and unit[0] & 31 == _SPS for unit in annexb.split(b"\0\0\1")[1:])
