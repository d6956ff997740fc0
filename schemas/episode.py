"""What an episode is: the one currency between converters, the store, trainers and the viewer.

An `Episode` is a header with lazy streams. Holding one costs a few kilobytes; its payload is read a
bounded block at a time, as often as anyone asks. Times are int64 nanoseconds from the episode's start
and ranges are half open, everywhere.

``None`` means "has none"; the word ``unknown`` means "the source does not say". Nothing here guesses.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from .errors import NotFoundError
from .rights import Rights

Json = Any
"""A JSON value: None, bool, int, float, str, or a list or string-keyed mapping of those."""

Array = NDArray[Any]
Times = NDArray[np.int64]
UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Bound:
    """A limit on a member of a document, told once for the validator and for the JSON Schema."""

    pattern: str = ""
    minimum: float | None = None
    max_length: int | None = None
    min_length: int | None = None


StreamName = Annotated[str, Bound(pattern=r"^[A-Za-z0-9_@+-]+(\.[A-Za-z0-9_@+-]+)*$", max_length=200)]
ClockName = Annotated[str, Bound(pattern=r"^[A-Za-z0-9_@+-]+$", max_length=100)]
Digest = Annotated[str, Bound(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Bound(minimum=0)]
Rate = Annotated[float, Bound(minimum=0)]
Unit = Annotated[str, Bound(pattern=r"^[^\s\x00-\x1f]{1,40}$")]
"""A UCUM unit (https://ucum.org/ucum), ``1`` for a pure number, ``unknown`` where nobody says."""
Text = Annotated[str, Bound(max_length=100_000)]
Word = Annotated[str, Bound(min_length=1, max_length=1_000)]

Kind = Literal["low_dim", "video", "depth"]
Space = Literal[
    "joint_position",
    "joint_velocity",
    "joint_effort",
    "ee_position",
    "ee_orientation",
    "ee_pose",
    "ee_velocity",
    "gripper",
    "base_velocity",
    "base_pose",
    "other",
    "unknown",
]
Mode = Literal["absolute", "delta", "unknown"]
Rotation = Literal[
    "none",
    "quaternion_xyzw",
    "quaternion_wxyz",
    "euler_xyz",
    "axis_angle",
    "rotation_6d",
    "matrix",
    "unknown",
]
Fate = Literal["kept", "renamed", "transformed", "dropped"]
Outcome = Literal["success", "failure", "unknown"]


def _header_only(*_: object) -> Any:
    raise NotFoundError("this episode is a header only: its payload is not at hand")


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionPart:
    """What a run of an action's axes means.

    Attributes
    ----------
    start, stop
        The axes it speaks of, ``[start, stop)``.
    space
        The commanded quantity.
    mode
        ``absolute``, or ``delta`` from the state at the time of the command.
    frame
        Coordinate frame of the numbers; None where the quantity has none (joint space).
    rotation
        Representation and order of the rotation among the axes.
    gripper_closed, gripper_open
        The values that mean fully closed and fully open, which gives sign and range; None: not known.
    """

    start: Count
    stop: Count
    space: Space
    mode: Mode = "unknown"
    frame: Word | None = UNKNOWN
    rotation: Rotation = "unknown"
    gripper_closed: float | None = None
    gripper_open: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionContract:
    """What the numbers of an action mean.

    Attributes
    ----------
    parts
        One for each run of axes of one meaning; axes that no part covers are unknown.
    offset_steps
        ``k`` if ``action[t]`` was issued ``k`` steps after ``observation[t]`` was taken; 0 for the usual
        "observe, then act" of the same row; -1 where the row's observation was taken after its action;
        None where the source does not say.
    evidence
        Where this is known from: the recorder's source file, a specification, an attribute.
    """

    parts: tuple[ActionPart, ...] = ()
    offset_steps: int | None = None
    evidence: Text = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSpec:
    """One quantity over time.

    Attributes
    ----------
    name
        ``observation.state``, ``observation.images.<camera>``, ``observation.depth.<camera>``, ``action`` ...
    kind
        ``video`` is uint8 (H, W, 3) RGB or (H, W, 1) grey, ``depth`` uint16 or float32 (H, W); the
        rest is ``low_dim``.
    dtype
        NumPy name of the sample's dtype, such as ``float32``. Always stored little endian.
    shape
        Of one sample; ``()`` for a scalar.
    unit
        One for all axes, or one per axis.
    frame
        Coordinate frame the numbers stand in; None where they stand in none.
    axes
        A name per entry of a one-dimensional sample (or per entry of its last axis); empty if unknown.
    clock
        Name of the clock the samples belong to.
    contract
        For commands (``action`` and ``action.*``) only.
    description
        One sentence for people.
    attributes
        Whatever else is known of the stream as JSON, such as ``intrinsics`` or ``orientation``.
    """

    name: StreamName
    kind: Kind
    dtype: Word
    shape: tuple[Count, ...]
    unit: tuple[Unit, ...] = (UNKNOWN,)
    frame: Word | None = None
    axes: tuple[Word, ...] = ()
    clock: ClockName = "steps"
    contract: ActionContract | None = None
    description: Text = ""
    attributes: Mapping[str, Json] = field(default_factory=dict)

    @property
    def np_dtype(self) -> np.dtype[Any]:
        """The little-endian NumPy dtype of the samples."""
        return np.dtype(self.dtype).newbyteorder("<")

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample in memory."""
        size = self.np_dtype.itemsize
        for extent in self.shape:
            size *= extent
        return size


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoFormat:
    """How the packets of a video stream are to be decoded.

    Attributes
    ----------
    codec, bitstream
        ``h264``/``hevc`` as ``annexb`` with parameter sets in front of every key frame, ``av1`` as
        ``obu`` (low-overhead format, sequence header in every key frame), ``vp9`` as ``frames``.
    pixel_format
        FFmpeg's name of what the decoder gives, such as ``yuv420p`` or ``gbrp``.
    matrix, range
        How YUV becomes RGB: ``bt601``, ``bt709``, ``bt2020`` or ``rgb`` (no matrix); ``limited`` or ``full``.
    width, height
        Pixels of the decoded picture, before it is cropped to the sample's shape.
    """

    codec: Literal["h264", "hevc", "av1", "vp9"]
    bitstream: Literal["annexb", "obu", "frames"]
    pixel_format: Word
    matrix: Literal["bt601", "bt709", "bt2020", "rgb"]
    range: Literal["limited", "full"]
    width: Count
    height: Count


@dataclass(frozen=True, slots=True)
class Packet:
    """One encoded picture, in the bitstream form of its `VideoFormat`.

    Attributes
    ----------
    data
        The packet's bytes.
    pts
        Index of the sample it shows, in its stream. Negative, or not below the stream's length: a
        picture from before or after the episode that is needed to decode it.
    key
        Decoding can start here.
    """

    data: bytes
    pts: int
    key: bool


@dataclass(frozen=True, slots=True, eq=False)
class PacketBlock:
    """Packets that follow each other in decode order, their bytes behind each other.

    Attributes
    ----------
    data
        (sum of ``size``,) uint8.
    size, pts
        (n,) int64: bytes of each packet, and what `Packet.pts` tells.
    key
        (n,) bool, as `Packet.key`.
    """

    data: NDArray[np.uint8]
    size: NDArray[np.int64]
    pts: NDArray[np.int64]
    key: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.size)

    def __iter__(self) -> Iterator[Packet]:
        """Yield the packets one by one."""
        at = 0
        for size, pts, key in zip(self.size.tolist(), self.pts.tolist(), self.key.tolist(), strict=True):
            yield Packet(self.data[at : at + size].tobytes(), pts, key)
            at += size


PACKET_BLOCK_BYTES = 1 << 22
PACKET_BLOCK_ROWS = 4096
"""Bytes and packets from which on a block is not made longer."""


def packet_blocks(packets: Iterable[Packet]) -> Iterator[PacketBlock]:
    """Yield packets that come one by one as blocks of a few MB; holds one block."""
    held: list[Packet] = []
    taken = 0
    for packet in packets:
        held.append(packet)
        taken += len(packet.data)
        if taken >= PACKET_BLOCK_BYTES or len(held) == PACKET_BLOCK_ROWS:
            yield _block_of(held)
            held, taken = [], 0
    if held:
        yield _block_of(held)


def _block_of(packets: list[Packet]) -> PacketBlock:
    return PacketBlock(
        data=np.frombuffer(b"".join(packet.data for packet in packets), np.uint8),
        size=np.array([len(packet.data) for packet in packets], np.int64),
        pts=np.array([packet.pts for packet in packets], np.int64),
        key=np.array([packet.key for packet in packets], np.bool_),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Packets:
    """The encoded form of a video stream, for those who can take it without transcoding.

    Attributes
    ----------
    blocks
        Gives the packets in decode order, a block at a time, as often as anyone asks. Memory is one block.
    """

    format: VideoFormat
    blocks: Callable[[], Iterator[PacketBlock]] = field(compare=False, repr=False, default=_header_only)

    def read(self) -> Iterator[Packet]:
        """Yield the packets one by one."""
        for block in self.blocks():
            yield from block


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """A stream's header, and how to read it.

    Attributes
    ----------
    spec, length
        What a sample is, and how many there are.
    read
        ``read(start, stop)`` yields blocks ``(n, *spec.shape)`` of consecutive samples, which together
        are samples ``[start, stop)``. It may be called again and again. Memory is one block.
    packets
        The encoded pictures, where the source has them.
    """

    spec: StreamSpec
    length: Count
    read: Callable[[int, int], Iterator[Array]] = field(
        compare=False, repr=False, default=_header_only, metadata={"document": False}
    )
    packets: Packets | None = field(compare=False, default=None, metadata={"document": False})

    def __iter__(self) -> Iterator[Array]:
        """Yield all samples, a block at a time."""
        return self.read(0, self.length)

    def values(self, start: int = 0, stop: int | None = None) -> Array:
        """Return samples ``[start, stop)`` as one array: (n, *shape). Holds them all in memory."""
        stop = self.length if stop is None else min(stop, self.length)
        start = max(0, min(start, stop))
        blocks = list(self.read(start, stop)) if stop > start else []
        empty = np.empty((0, *self.spec.shape), self.spec.np_dtype)
        return np.concatenate(blocks) if blocks else empty


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """A time axis that one or more streams share.

    Attributes
    ----------
    kind
        ``recorded``: the times were measured. ``nominal``: they were computed from a rate.
    declared_hz, measured_hz
        The rate that the source or its format states, and the median rate of recorded times.
    source
        Which stamp was taken, or where the nominal rate comes from.
    length
        Samples of this episode on this clock.
    read
        Gives all times: (length,) int64, nanoseconds since the episode's start, never decreasing.
    """

    name: ClockName
    kind: Literal["recorded", "nominal"]
    declared_hz: Rate | None = None
    measured_hz: Rate | None = None
    source: Text = ""
    length: Count = 0
    read: Callable[[], Times] = field(
        compare=False, repr=False, default=_header_only, metadata={"document": False}
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that holds at an instant or for a while: a phase, a marker, a per-step text.

    Attributes
    ----------
    kind
        ``instruction``, ``phase``, ``marker``, or the name of the source's field.
    start_ns, stop_ns
        ``[start, stop)`` since the episode's start; None for an instant.
    """

    kind: Word
    start_ns: int
    stop_ns: int | None = None
    text: Text = ""
    attributes: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """A file that an episode was made from. ``role`` tells what it held: ``recording``, ``video`` ..."""

    uri: Word
    size: Count
    sha256: Digest
    role: Word = "recording"


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldFate:
    """What became of one field of the source.

    Attributes
    ----------
    field
        Its path in the source.
    fate
        ``kept`` under its own name, ``renamed``, ``transformed`` or ``dropped``.
    to
        Streams or header members it went to.
    how
        For people: how it was transformed or why it was dropped.
    lossless
        Whether the stored values give back the source's, bit for bit; None where not applicable.
    error
        Measured error where not lossless, such as ``{"psnr_db": 38.1}``.
    """

    field: Word
    fate: Fate
    to: tuple[Word, ...] = ()
    how: Text = ""
    lossless: bool | None = None
    error: Mapping[str, Json] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where an episode comes from, and what became of each field of its source.

    Attributes
    ----------
    selector
        Which episode of the source files this is; empty if they hold one only.
    evidence
        What the source itself states on licence, authors or consent, word for word. Never a grant.
    warnings
        Contradictions and oddities that a user of the data must know.
    """

    format: Word
    converter: Word
    converter_version: Word
    sources: tuple[SourceFile, ...] = ()
    revision: Word | None = None
    selector: Annotated[str, Bound(max_length=1_000)] = ""
    options: Mapping[str, Json] = field(default_factory=dict)
    ledger: tuple[FieldFate, ...] = ()
    evidence: Mapping[str, Json] = field(default_factory=dict)
    warnings: tuple[Text, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """One demonstration, from reset to end.

    Attributes
    ----------
    id
        A UUID made from the content of the source, so that the same recording has it wherever it is
        converted; see `episode_id`.
    instructions
        What the robot was asked to do; empty if the source does not say.
    embodiment
        Robot and end effector, or ``unknown``.
    extra
        Members of the source's header that have no place here, as JSON.
    unknown
        Members of a stored header that this version does not know; kept and written back.
    """

    id: Annotated[str, Bound(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
    instructions: tuple[Text, ...] = ()
    embodiment: Word = UNKNOWN
    outcome: Outcome = "unknown"
    rights: Rights = field(default_factory=Rights)
    provenance: Provenance
    clocks: Mapping[ClockName, Clock]
    streams: Mapping[StreamName, Stream]
    events: tuple[Event, ...] = ()
    extra: Mapping[str, Json] = field(default_factory=dict)
    unknown: Mapping[str, Json] = field(default_factory=dict, metadata={"document": False})

    def times(self, stream: str) -> Times:
        """Return the times of a stream's samples: (length,) int64 nanoseconds since the start."""
        return self.clocks[self.streams[stream].spec.clock].read()

    def between(self, stream: str, start_ns: int, stop_ns: int) -> Iterator[Array]:
        """Yield the blocks of a stream's samples with ``start_ns <= time < stop_ns``."""
        times = self.times(stream)
        first, last = np.searchsorted(times, [start_ns, stop_ns], side="left")
        return self.streams[stream].read(int(first), int(max(first, last)))


def episode_id(digests: Iterable[str], selector: str = "") -> str:
    """Return the id of the episode ``selector`` of the files with these SHA-256 digests.

    A version 8 UUID (RFC 9562, section 5.8) of a SHA-256, so that converting a recording twice, on any
    machine and under any file name, gives one episode. The order of the digests does not matter.
    """
    text = "\n".join(["teleopen-episode-1", *sorted(digests), selector])
    raw = bytearray(hashlib.sha256(text.encode()).digest()[:16])
    raw[6] = (raw[6] & 0x0F) | 0x80
    raw[8] = (raw[8] & 0x3F) | 0x80
    return str(uuid.UUID(bytes=bytes(raw)))


def nominal_times(length: int, rate_hz: float) -> Times:
    """Return the times of ``length`` samples at a nominal rate: (length,) int64 nanoseconds from 0."""
    times: Times = np.rint(np.arange(length) * (1e9 / rate_hz)).astype(np.int64)
    return times


def median_rate(times: Times) -> float | None:
    """Return the median rate of recorded times in Hz, or None if there are fewer than two distinct."""
    steps = np.diff(times)
    middle = float(np.median(steps)) if steps.size else 0.0
    return 1e9 / middle if middle > 0 else None
