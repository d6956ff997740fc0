"""What a packet of video says about itself: can decoding start here, does another picture need it.

Containers do not tell the second and are often wrong about the first (MP4 also marks pictures as sync
samples that leave others behind them undecodable), so both are read from the bitstream. Where that is
damaged or strange the answer is "no" to both: such a packet costs time, but no picture.

The sources are ITU-T H.264 (7.3, 7.4.1), ITU-T H.265 (7.3, 7.4.2.2), the VP9 bitstream specification
(6.2) and the AV1 bitstream specification (5.3 to 5.9).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]
Truths = NDArray[np.bool_]


class Flags(NamedTuple):
    """What `Inspector` finds.

    Attributes
    ----------
    key
        Decoding can start here with nothing known before: parameters included, and what follows in
        decode order and is not shown before this picture can be decoded.
    disposable
        No other picture needs this one.
    """

    key: bool
    disposable: bool


UNSURE = Flags(key=False, disposable=False)


class Inspector:
    """Reads the flags of one stream's packets, in decode order.

    Parameters
    ----------
    codec
        ``h264`` or ``hevc`` (Annex B), ``av1`` (low-overhead format) or ``vp9``.
    """

    def __init__(self, codec: str) -> None:
        inspectors: dict[str, Callable[[bytes], Flags]] = {
            "h264": _h264,
            "hevc": _Hevc(),
            "vp9": _vp9,
            "av1": _Av1(),
        }
        if codec not in inspectors:
            raise ValueError(f"{codec!r} is none of {', '.join(inspectors)}")
        self._inspect = inspectors[codec]
        self._at_once: Callable[[Bytes, Ints], tuple[Truths, Truths] | None] | None = None
        if codec == "h264":
            self._at_once = _h264_at_once
        elif isinstance(self._inspect, _Av1):
            self._at_once = self._inspect.at_once

    def block(self, data: Bytes, size: Ints) -> tuple[Truths, Truths]:
        """Return which of the stream's next packets are keys, and which are disposable: (n,) each.

        Parameters
        ----------
        data
            The packets' bytes behind each other.
        size
            (n,), of each packet.
        """
        found = self._at_once(data, size) if self._at_once else None
        if found is not None:
            return found
        ends = np.cumsum(size)
        each = zip((ends - size).tolist(), ends.tolist(), strict=True)
        flags = [self(data[start:end].tobytes()) for start, end in each]
        return np.array([f.key for f in flags], np.bool_), np.array([f.disposable for f in flags], np.bool_)

    def __call__(self, data: bytes) -> Flags:
        """Return the flags of the stream's next packet."""
        try:
            return self._inspect(data)
        except _EndOfBitsError:
            return UNSURE


class _EndOfBitsError(Exception):
    """The data ended inside of a header."""


class _Bits:
    """Reads a big-endian run of bits from its front."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def __call__(self, width: int = 1) -> int:
        self._left -= width
        if self._left < 0:
            raise _EndOfBitsError
        return self._value >> self._left & ((1 << width) - 1)

    def skip_uvlc(self) -> None:
        zeros = 0
        while not self():
            zeros += 1
        self(zeros if zeros < 32 else 0)


def _nal_units(data: bytes) -> Iterator[bytes]:
    """Yield the NAL units of an Annex B packet, each with its start code in front."""
    start = _start_code(data, 0)
    while start < len(data):
        after = _start_code(data, data.index(b"\0\0\1", start) + 3)
        yield data[start:after]
        start = after


def _start_code(data: bytes, begin: int) -> int:
    """Return where the next start code begins, its leading zero byte included, or the end of ``data``."""
    at = data.find(b"\0\0\1", begin)
    if at < 0:
        return len(data)
    return at - 1 if at > begin and data[at - 1] == 0 else at


def _payloads(data: bytes) -> Iterator[bytes]:
    """Yield the first bytes of each NAL unit, without the start code."""
    at = data.find(b"\0\0\1")
    while 0 <= at < len(data) - 3:
        yield data[at + 3 : at + 9]
        at = data.find(b"\0\0\1", at + 3)


_SEI = {bytes([reference << 5 | 6]) for reference in range(4)}


def without_sei(data: bytes) -> bytes:
    """Return an H.264 packet without its SEI messages, which no decoder needs for the pixels.

    x264 writes its version and options into every first packet, some 700 bytes of it.
    """
    return b"".join(nal for nal in _nal_units(data) if nal.lstrip(b"\0")[1:2] not in _SEI)


def _h264(data: bytes) -> Flags:
    heads = set()
    at, end = data.find(b"\0\0\1"), len(data) - 3
    while 0 <= at < end:
        heads.add(data[at + 3])
        at = data.find(b"\0\0\1", at + 3)
    return _h264_of(frozenset(heads))


@lru_cache(maxsize=256)
def _h264_of(heads: frozenset[int]) -> Flags:
    """Return the flags by what the first bytes of NAL units are; a stream has few combinations of them."""
    types = [(head & 0x1F, head >> 5 & 3) for head in heads]
    kinds = {kind for kind, _ in types}
    references = [reference for kind, reference in types if 1 <= kind <= 5]
    # 14, 15 and 20 are layers on top of what a plain decoder shows; what refers to what is theirs to tell.
    plain = not kinds & {14, 15, 20}
    key = {5, 7, 8} <= kinds and not kinds & {1, 2, 3, 4}
    return Flags(key, plain and bool(references) and not any(references))


def _h264_at_once(data: Bytes, size: Ints) -> tuple[Truths, Truths]:
    """Return what `_h264` does, of all packets of a block."""
    ends = np.cumsum(size)
    (at,) = np.nonzero(data[2:] == 1)
    at = at[(data[at] == 0) & (data[at + 1] == 0)]
    packet = np.searchsorted(ends, at, "right")
    inside = at + 3 < ends[packet]
    packet, heads = packet[inside], data[at[inside] + 3]
    kinds = np.zeros((len(size), 32), np.bool_)
    kinds[packet, heads & 0x1F] = True
    is_picture = (heads & 0x1F >= 1) & (heads & 0x1F <= 5)
    referred = np.zeros(len(size), np.bool_)
    referred[packet[is_picture & (heads & 0x60 > 0)]] = True
    key = np.all(kinds[:, [5, 7, 8]], axis=1) & ~np.any(kinds[:, 1:5], axis=1)
    disposable = np.any(kinds[:, 1:6], axis=1) & ~np.any(kinds[:, [14, 15, 20]], axis=1) & ~referred
    return np.asarray(key, np.bool_), np.asarray(disposable, np.bool_)


class _Hevc:
    """HEVC: "sub-layer non-reference" only means unneeded in the highest temporal sub-layer."""

    def __init__(self) -> None:
        self._highest: int | None = None

    def __call__(self, data: bytes) -> Flags:
        kinds: set[int] = set()
        unneeded: list[bool] = []
        for head in _payloads(data):
            bits = _Bits(head)
            _, kind, layer, sub_layer = bits(1), bits(6), bits(6), bits(3) - 1
            kinds.add(kind)
            if kind == 33 and not layer:
                self._highest = (bits(4), bits(3))[1]
            if kind < 32:
                is_leaf = kind < 16 and kind % 2 == 0
                unneeded.append(is_leaf and not layer and sub_layer == self._highest)
        pictures = {kind for kind in kinds if kind < 32}
        key = {32, 33, 34} <= kinds and bool(pictures) and pictures <= set(range(16, 22))
        return Flags(key, bool(unneeded) and all(unneeded))


def _vp9(data: bytes) -> Flags:
    """VP9: nothing is disposable.

    A frame that updates no reference may still leave its probabilities, segmentation, loop filter deltas
    and motion vectors to the frame that follows it.
    """
    bits = _Bits(data[:2])
    if bits(2) != 2:
        return UNSURE
    profile = bits() + 2 * bits()
    if profile == 3:
        bits()
    is_shown_again = bits()
    return Flags(key=not is_shown_again and bits() == 0, disposable=False)


_SEQUENCE, _FRAME_HEADER, _FRAME = 1, 3, 6
_KEY_FRAME, _INTRA_ONLY, _SWITCH = 0, 2, 3
_MOST_UNITS = 64  # of a packet, to be gone through side by side
_PER_FRAME = 2  # a sequence-wide tool that each frame header turns on or off


@dataclass(frozen=True, slots=True)
class _Sequence:
    """What of an AV1 sequence header tells where refresh_frame_flags lies in a frame header."""

    still: bool  # reduced_still_picture_header
    plain: bool  # neither a decoder model nor frame ids
    screen_content: int  # seq_force_screen_content_tools
    integer_mv: int  # seq_force_integer_mv
    order_bits: int


class _Av1:
    """AV1: a temporal unit is disposable if it is one shown frame that refreshes no reference."""

    def __init__(self) -> None:
        self._sequence: _Sequence | None = None

    def __call__(self, data: bytes) -> Flags:
        found = []
        has_sequence = False
        for kind, payload in _obus(data):
            if kind == _SEQUENCE:
                self._sequence, has_sequence = _sequence_of(payload[:128]), True
            if kind in {_FRAME_HEADER, _FRAME}:
                if self._sequence is None:
                    return UNSURE
                found.append(_frame(_Bits(payload[:32]), self._sequence))
        if len(found) != 1:
            return UNSURE
        return Flags(found[0].key and has_sequence, found[0].disposable)

    def at_once(self, data: Bytes, size: Ints) -> tuple[Truths, Truths] | None:
        """Return what calls for each packet of a block do; None where that takes looking at each."""
        units = _obus_at_once(data, size)
        if units is None:
            return None
        opens = units.kind == _SEQUENCE
        shows = (units.kind == _FRAME_HEADER) | (units.kind == _FRAME)
        opened = np.bincount(units.packet[opens], minlength=len(size))
        late = opens & (np.maximum.accumulate(np.where(shows, units.packet, -1)) == units.packet)
        alone = np.bincount(units.packet[shows], minlength=len(size)) == 1
        shows &= alone[units.packet]
        if opened.max() > 1 or late.any() or np.any(units.end[shows] - units.begin[shows] < 4):
            return None
        sequences = [self._sequence]
        try:
            for begin, end in zip(units.begin[opens].tolist(), units.end[opens].tolist(), strict=True):
                sequences.append(_sequence_of(data[begin : min(end, begin + 128)].tobytes()))
        except _EndOfBitsError:
            return None
        self._sequence = sequences[-1]
        number = np.cumsum(opened)[units.packet[shows]]
        heads = data[units.begin[shows][:, None] + np.arange(4)].view(">u4")[:, 0].astype(np.int64)
        key, disposable = np.zeros(len(size), np.bool_), np.zeros(len(size), np.bool_)
        for sequence in {s for s in sequences if s is not None}:
            same = np.array([s == sequence for s in sequences])[number]
            packets = units.packet[shows][same]
            key[packets], disposable[packets] = _frames(heads[same], sequence)
        return key & (opened > 0), disposable


def _obus(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield type and payload of each open bitstream unit."""
    at = 0
    while at < len(data):
        head = data[at]
        at += 2 if head & 4 else 1
        size = len(data) - at
        if head & 2:
            size, at = _leb128(data, at)
        if size < 0 or at + size > len(data):
            raise _EndOfBitsError
        yield head >> 3 & 15, data[at : at + size]
        at += size


class _Units(NamedTuple):
    """Open bitstream units of a block in order: the packet and type of each, and where its payload lies."""

    packet: Ints
    kind: Ints
    begin: Ints
    end: Ints


def _obus_at_once(data: Bytes, size: Ints) -> _Units | None:
    """Return all units of a block; None if one leaves out its size or has a false one, or there are many."""
    ends = np.cumsum(size)
    at, packet = ends - size, np.arange(len(size))
    found = []
    for _ in range(_MOST_UNITS):
        head, limit = data[at], ends[packet]
        begin = at + 1 + (head >> 2 & 1)
        # A size of up to four bytes: more than a packet has.
        places = np.minimum(begin[:, None] + np.arange(4), len(data) - 1)
        raw = data[places].astype(np.int64)
        width = 1 + np.cumprod(raw >> 7, axis=1).sum(1)
        if np.any(head & 2 == 0) or np.any(width > 4):
            return None
        used = np.arange(4) < width[:, None]
        begin += width
        after = begin + np.where(used, (raw & 0x7F) << [0, 7, 14, 21], 0).sum(1)
        if np.any(after > limit):
            return None
        found.append((packet, (head >> 3 & 15).astype(np.int64), begin, after))
        left = after < limit
        at, packet = after[left], packet[left]
        if not at.size:
            columns = [np.concatenate(column) for column in zip(*found, strict=True)]
            order = np.argsort(columns[2], kind="stable")
            return _Units(*(column[order] for column in columns))
    return None


def _leb128(data: bytes, at: int) -> tuple[int, int]:
    """Return a number of at most eight bytes, seven bits each, and where it ends."""
    value = 0
    for index, byte in enumerate(data[at : at + 8]):
        value |= (byte & 0x7F) << 7 * index
        if not byte & 0x80:
            return value, at + index + 1
    raise _EndOfBitsError


@lru_cache(maxsize=64)
def _sequence_of(payload: bytes) -> _Sequence:
    return _sequence(_Bits(payload))


def _sequence(bits: _Bits) -> _Sequence:
    bits(3)  # seq_profile
    bits()  # still_picture
    if bits():  # reduced_still_picture_header
        return _Sequence(still=True, plain=True, screen_content=0, integer_mv=0, order_bits=0)
    has_model = _skip_operating_points(bits)
    width, height = bits(4) + 1, bits(4) + 1
    bits(width)
    bits(height)
    has_ids = bits()
    if has_ids:
        bits(4 + 3)
    bits(3 + 4)  # 128 blocks, filter intra, edges; compound and warp tools
    has_order = bits()
    if has_order:
        bits(2)  # enable_jnt_comp, enable_ref_frame_mvs
    screen_content = _PER_FRAME if bits() else bits()
    integer_mv = _PER_FRAME
    if screen_content:
        integer_mv = _PER_FRAME if bits() else bits()
    return _Sequence(
        still=False,
        plain=not has_model and not has_ids,
        screen_content=screen_content,
        integer_mv=integer_mv,
        order_bits=bits(3) + 1 if has_order else 0,
    )


def _skip_operating_points(bits: _Bits) -> bool:
    """Pass from timing_info to the last operating point; return whether there is a decoder model."""
    has_model, delay_bits = False, 0
    if bits():  # timing_info_present_flag
        bits(32 + 32)
        if bits():  # equal_picture_interval
            bits.skip_uvlc()
        if bits():  # decoder_model_info_present_flag
            has_model, delay_bits = True, bits(5) + 1
            bits(32 + 5 + 5)
    has_display_delay = bits()
    for _ in range(bits(5) + 1):
        bits(12)
        if bits(5) > 7:
            bits()  # seq_tier
        if has_model and bits():
            bits(2 * delay_bits + 1)
        if has_display_delay and bits():
            bits(4)
    return has_model


def _frame(bits: _Bits, sequence: _Sequence) -> Flags:
    """Read an uncompressed_header as far as refresh_frame_flags."""
    if sequence.still:
        return Flags(key=True, disposable=False)
    if bits():  # show_existing_frame
        return UNSURE
    kind, is_shown = bits(2), bits()
    if kind == _KEY_FRAME and is_shown:
        return Flags(key=True, disposable=False)
    if not sequence.plain or not is_shown or kind == _SWITCH:
        return UNSURE
    is_resilient = bits()
    bits()  # disable_cdf_update
    screen_content = bits() if sequence.screen_content == _PER_FRAME else sequence.screen_content
    if screen_content and sequence.integer_mv == _PER_FRAME:
        bits()  # force_integer_mv
    bits(1 + sequence.order_bits)  # frame_size_override_flag, order_hint
    if kind != _INTRA_ONLY and not is_resilient:
        bits(3)  # primary_ref_frame
    return Flags(key=False, disposable=bits(8) == 0)


def _frames(heads: Ints, sequence: _Sequence) -> tuple[Truths, Truths]:
    """Return what `_frame` does of headers by their first four bytes, more than which it never reads."""
    if sequence.still:
        return np.ones(len(heads), np.bool_), np.zeros(len(heads), np.bool_)
    is_new, kind, is_shown = heads >> 31 == 0, heads >> 29 & 3, heads >> 28 & 1 == 1
    key = is_new & is_shown & (kind == _KEY_FRAME)
    if not sequence.plain:
        return key, np.zeros(len(heads), np.bool_)
    is_resilient = heads >> 27 & 1
    at = np.full(len(heads), 6)
    screen_content = np.full(len(heads), sequence.screen_content)
    if sequence.screen_content == _PER_FRAME:
        screen_content = heads >> 25 & 1
        at += 1
    if sequence.integer_mv == _PER_FRAME:
        at += screen_content > 0
    at += 1 + sequence.order_bits
    at += 3 * ((kind != _INTRA_ONLY) & (is_resilient == 0))
    refreshes = heads >> (24 - at) & 0xFF
    return key, is_new & is_shown & ~key & (kind != _SWITCH) & (refreshes == 0)
