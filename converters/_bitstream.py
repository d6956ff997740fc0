"""Packets as MP4 stores them, made into the forms in which they stand by themselves: Annex B, and OBUs."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import av
    from av.bitstream import BitStreamFilterContext

_SEQUENCE_HEADER = 1  # AV1 specification, section 6.2.2: OBU types
_SPS = 7  # ITU-T H.264, table 7-1: NAL unit types


@dataclass(frozen=True, slots=True, eq=False)
class Setup:
    """What the container says once for all packets of a video.

    Attributes
    ----------
    header
        What stands in front of a key picture that does not bring it itself: parameter sets, or OBUs.
    stream
        For FFmpeg's filter, where there is one; a stream of its own, which holds no file open.
    """

    codec: str
    header: bytes = b""
    stream: av.VideoStream | None = None

    @classmethod
    def of(cls, stream: av.VideoStream, codec: str) -> Setup:
        """Read the setup of a video whose packets have all been read; FFmpegError if it is malformed."""
        import av
        from av.bitstream import BitStreamFilterContext

        if codec == "av1":
            # AV1 in ISOBMFF, section 2.3.3: av1C is four bytes, then the OBUs in front of all others.
            record = stream.codec_context.extradata or b""
            return cls(codec, record[4:] if record[:1] == b"\x81" else record)
        if codec not in {"h264", "hevc"}:
            return cls(codec)
        nowhere = av.open(io.BytesIO(), "w", format="null")
        kept = nowhere.add_stream_from_template(stream, opaque=True)
        # Written back to the stream, so that its extradata become the parameter sets as Annex B.
        BitStreamFilterContext(_filter_of(codec), stream, stream)
        return cls(codec, stream.codec_context.extradata or b"", kept)


class BitstreamForm:
    """Turns packets as MP4 stores them into the bitstream form of `VideoFormat`; others pass unchanged."""

    def __init__(self, setup: Setup) -> None:
        from av.bitstream import BitStreamFilterContext

        self._codec, self._header = setup.codec, setup.header
        self._filter: BitStreamFilterContext | None = None
        if setup.stream is not None:
            self._filter = BitStreamFilterContext(_filter_of(setup.codec), setup.stream)

    def of(self, raw: bytes, *, key: bool) -> bytes:
        """Return the packet in its bitstream form; ValueError or FFmpegError if it is malformed."""
        if self._codec == "av1":
            return self._obus(raw, key=key)
        if self._filter is None:
            return raw
        filtered = self._filter.filter(padded(raw))
        if len(filtered) != 1:
            raise ValueError("the packet is empty")
        data = bytes(filtered[0])
        # The filter puts parameter sets in front of IDR pictures only. A key frame may also be an open
        # group's intra picture, which x264 marks as a place to start from.
        return self._header + data if key and self._codec == "h264" and not _has_sps(data) else data

    def _obus(self, raw: bytes, *, key: bool) -> bytes:
        units = list(_obus(raw))
        # AV1 in ISOBMFF, section 2.4: a sample's last OBU may leave its size out. In a stream it may not.
        data = b"".join(unit for _, unit in units)
        if key and all(kind != _SEQUENCE_HEADER for kind, _ in units):
            return self._header + data
        return data


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
