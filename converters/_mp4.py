"""MP4 video, taken apart without transcoding: packets as they came, or pictures decoded from those packets.

Field notes. A file may hold many episodes back to back, so everything here goes by frame index, the rank
of a picture by its presentation time: edit lists, B-frames and a start that is not zero shift stamps, but
not ranks. Pictures that an edit list hides have no rank inside; they are needed to decode others at most.

An index is kept per version of the file. It is made from the sample tables of a plain file, and of any other
from what FFmpeg's demuxer gives when it reads the file once, without decoding. After that, packets are read
from their places in the file, since seeking in FFmpeg goes by decoding time, and where it ends up depends on
its version and on the edit list.

FFmpeg plays a text that names other files, if that text is called ``.mp4``. So the file must begin with a
``ftyp`` box, the demuxer is forced, and it may open this file alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, cast

import numpy as np
from numpy.typing import NDArray

from ..schemas import Array, FormatError, Packet, PacketBlock, Times, VideoFormat
from ..schemas.episode import PACKET_BLOCK_BYTES, PACKET_BLOCK_ROWS
from ._bitstream import BitstreamForm, MalformedError, Setup, padded
from ._mp4_tables import PACKET, packets_of
from .base import version_of

if TYPE_CHECKING:
    import av

MAX_PIXELS = 64_000_000
"""Most pixels of a picture; a decoder allocates several pictures before it looks at the data."""

MAX_FRAMES = 1_000_000
"""Most pictures of a file: nine hours at 30 Hz. LeRobot ends a shared file at 200 MB."""

MAX_PACKET_BYTES = 1 << 28
"""Most bytes of a packet; more than an uncompressed picture of the greatest size has."""

Matrix = Literal["bt601", "bt709", "bt2020", "rgb"]
Bitstream = Literal["annexb", "obu", "frames"]

# Codes of ISO/IEC 23091-2, table 4 (MatrixCoefficients), which FFmpeg's AVColorSpace takes over.
_MATRIX: dict[int, Matrix] = {0: "rgb", 1: "bt709", 5: "bt601", 6: "bt601", 9: "bt2020", 10: "bt2020"}
_UNSPECIFIED = 2
_FULL_RANGE = 2  # AVCOL_RANGE_JPEG of libavutil/pixfmt.h; 1 is limited, 0 is not told

_BITSTREAM: dict[str, Bitstream] = {"h264": "annexb", "hevc": "annexb", "av1": "obu", "vp9": "frames"}
_ALLOWED = frozenset({*_BITSTREAM, "mpeg4", "mjpeg"})
"""Decoders that may run. Others are less tested against hostile input, and no recorder writes them."""

_DEEPEST = 16
"""Most pictures that a codec holds back to bring them into order (ITU-T H.264, A.3.1; H.265, A.4.2)."""
_MOST_EARLY = 4 * _DEEPEST
"""Pictures that may wait for an earlier one before that is taken for lost."""


@dataclass(frozen=True, slots=True, eq=False)
class _Index:
    """What one pass over the packets tells. Arrays are in decode order, unless said otherwise."""

    codec: str
    decoder: str
    pixel_format: str
    width: int
    height: int
    matrix: Matrix
    full_range: bool
    rate_hz: float | None
    audio: bool
    attributes: Mapping[str, Any]
    setup: Setup
    offset: NDArray[np.int64]
    size: NDArray[np.int64]
    key: NDArray[np.bool_]
    rank: NDArray[np.int64]
    place: NDArray[np.int64]
    """Where in decode order the frame of each index stands."""
    times: Times
    """Nanoseconds since the first picture, by frame index."""


@dataclass(frozen=True, slots=True)
class Mp4Video:
    """The one video of an MP4 file. Holds no open file; the first look at it reads the file once.

    Raises
    ------
    FormatError
        From every member: the file is no MP4, is cut off, or contradicts itself.
    """

    path: Path
    _index: _Index = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_index", _index_of(self.path))

    def __reduce__(self) -> tuple[type[Mp4Video], tuple[Path]]:
        return Mp4Video, (self.path,)

    def __len__(self) -> int:
        return len(self._index.place)

    @property
    def codec(self) -> str:
        """FFmpeg's name of the codec, such as ``av1``."""
        return self._index.codec

    @property
    def pixel_format(self) -> str:
        """FFmpeg's name of the decoded picture's format, such as ``yuv420p``."""
        return self._index.pixel_format

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the decoded picture."""
        return self._index.height, self._index.width

    @property
    def rate_hz(self) -> float | None:
        """The average rate that the container tells, if it tells one."""
        return self._index.rate_hz

    @property
    def audio(self) -> bool:
        """Whether the file also holds sound, which nobody here reads."""
        return self._index.audio

    @property
    def times(self) -> Times:
        """Presentation times: (frames,) int64 nanoseconds since the first picture, increasing."""
        return self._index.times

    @property
    def format(self) -> VideoFormat | None:
        """How packets are to be decoded; None for a codec that is decoded, but not passed on."""
        index = self._index
        if index.codec not in _BITSTREAM:
            return None
        return VideoFormat(
            codec=index.codec,  # type: ignore[arg-type] # a key of _BITSTREAM
            bitstream=_BITSTREAM[index.codec],
            pixel_format=index.pixel_format,
            matrix=index.matrix,
            range="full" if index.full_range else "limited",
            width=index.width,
            height=index.height,
        )

    @property
    def attributes(self) -> Mapping[str, Any]:
        """What a stream of these pictures should tell as JSON, such as what is assumed of the colours."""
        return self._index.attributes

    def packets(self, start: int, stop: int) -> Iterator[Packet]:
        """Yield the packets of `blocks` one by one."""
        for block in self.blocks(start, stop):
            yield from block

    def blocks(self, start: int, stop: int) -> Iterator[PacketBlock]:
        """Yield what decoding frames ``[start, stop)`` takes, in decode order. Holds one block of a few MB.

        It begins with the last key frame at or before ``start`` and ends with the last packet that shows
        a wanted frame. ``pts`` counts from ``start``: it is negative for a picture from before, and
        ``stop - start`` or more for a later picture that a wanted one refers to.
        """
        if not 0 <= start <= stop <= len(self):
            raise IndexError(f"frames [{start}, {stop}) of a video of {len(self)}")
        if start == stop:
            return
        index = self._index
        form = BitstreamForm(index.setup)
        with _readable(self.path) as file:
            for numbers in _parts(index, _needed(index, *_span(index, start, stop, self.path))):
                raw, key = _read(file, self.path, index, numbers), index.key[numbers]
                try:
                    data, size = form.of(raw, index.size[numbers], key)
                except MalformedError as error:
                    where = f"packet {numbers[error.number]}"
                    raise FormatError(str(self.path), where, f"is no {index.codec}: {error}") from error
                yield PacketBlock(data, size, index.rank[numbers] - start, key)

    def frames(self, start: int, stop: int, rows: int) -> Iterator[Array]:
        """Yield frames ``[start, stop)`` in blocks of up to ``rows``, decoded from `packets` of that range.

        Blocks are uint8 RGB, (n, H, W, 3); of a picture that is grey, uint8 (n, H, W, 1) up to 8 bit and
        uint16 (n, H, W) above. Holds one block, and the few pictures that the decoder reorders.
        """
        block: list[Array] = []
        for picture in self._in_order(start, stop):
            block.append(picture)
            if len(block) == rows:
                yield np.stack(block)
                block = []
        if block:
            yield np.stack(block)

    def _in_order(self, start: int, stop: int) -> Iterator[Array]:
        """Yield decoded pictures by frame index, whatever order the decoder gives them in."""
        form = _PictureForm(self.path, self._index)
        early: dict[int, Array] = {}
        wanted = 0
        for frame in self._decoded(start, stop):
            pts = form.check(frame, start)
            if not wanted <= pts < stop - start or pts in early:
                continue
            early[pts] = form.pixels(frame)
            if len(early) > _MOST_EARLY:
                break
            while wanted in early:
                yield early.pop(wanted)
                wanted += 1
        if wanted < stop - start:
            raise FormatError(str(self.path), f"frame {start + wanted}", "cannot be decoded")

    def _decoded(self, start: int, stop: int) -> Iterator[av.VideoFrame]:
        import av

        index = self._index
        with ExitStack() as held:
            if index.codec in _BITSTREAM:
                decoder = cast("av.VideoCodecContext", av.CodecContext.create(index.decoder, "r"))
            else:
                # What is not passed on as a bitstream of its own needs what the container says of it.
                decoder = _video_of(held.enter_context(_opened(self.path)), self.path).codec_context
            decoder.thread_count = 1
            # Error concealment stays on, since it is what marks damaged pictures. A decoder that is to
            # give up at the first oddity finds no more damage, and refuses sound H.264 of open groups.
            decoder.options = {"max_pixels": str(MAX_PIXELS)}
            if index.codec in {"h264", "hevc"} and np.any(np.diff(index.rank) < 0):
                # Parameter sets need not tell how much is reordered; a decoder then drops what comes late.
                decoder.reorder_depth = _DEEPEST
            try:
                for packet in self.packets(start, stop):
                    coded = padded(packet.data)
                    coded.pts = coded.dts = packet.pts
                    coded.is_keyframe = packet.key
                    yield from decoder.decode(coded)
                yield from decoder.decode(None)
            except av.FFmpegError as error:
                where = f"frames [{start}, {stop})"
                raise FormatError(str(self.path), where, f"cannot be decoded: {error}") from error


class _PictureForm:
    """Turns decoded frames into arrays, by one matrix for the whole file."""

    def __init__(self, path: Path, index: _Index) -> None:
        from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

        self._path, self._index = path, index
        self._reformatter = VideoReformatter()
        others = {"bt709": Colorspace.ITU709, "bt2020": Colorspace.BT2020}
        matrix = others.get(index.matrix, Colorspace.ITU601)
        self._colours: dict[str, Any] = {
            "src_colorspace": matrix,
            "dst_colorspace": matrix,
            "src_color_range": ColorRange.JPEG if index.full_range else ColorRange.MPEG,
            "dst_color_range": ColorRange.JPEG,
        }

    def check(self, frame: av.VideoFrame, start: int) -> int:
        """Return the frame's pts, if it is sound. ``start`` is for the error only."""
        index, pts, name = self._index, frame.pts, _plain(frame.format.name)
        where = f"frame {start + (pts or 0)}"
        if frame.is_corrupt or pts is None:
            raise FormatError(str(self._path), where, "is damaged")
        if (frame.width, frame.height, name) != (index.width, index.height, index.pixel_format):
            told = f"is {frame.width}x{frame.height} {name}"
            raise FormatError(str(self._path), where, f"{told}, in a video of {index.width}x{index.height}")
        return pts

    def pixels(self, frame: av.VideoFrame) -> Array:
        """Return the samples of a frame."""
        if _is_deep_grey(self._index.pixel_format):
            return np.ascontiguousarray(frame.to_ndarray(), np.uint16)
        if self._index.pixel_format == "gray":
            return frame.to_ndarray()[..., None]
        # One thread, since starting more costs more than they save (measured at 640x480).
        return self._reformatter.reformat(frame, format="rgb24", threads=1, **self._colours).to_ndarray()


def _span(index: _Index, start: int, stop: int, path: Path) -> tuple[int, int]:
    """Return the first and last packet, in decode order, that frames ``[start, stop)`` need."""
    keys = np.flatnonzero(index.key & (index.rank <= start))
    if not keys.size:
        raise FormatError(str(path), f"frame {start}", "no key frame stands at or before it")
    first, last = int(keys[-1]), int(index.place[start:stop].max())
    if first > int(index.place[start:stop].min()):
        raise FormatError(str(path), f"packet {first}", "is a key frame shown before what precedes it")
    return first, last


def _needed(index: _Index, first: int, last: int) -> NDArray[np.int64]:
    """Return the numbers of the packets that one decoder needs from first to last."""
    # Pictures that follow a key frame but are shown before it refer to what lies before it.
    return first + np.flatnonzero(index.rank[first : last + 1] >= index.rank[first])


def _parts(index: _Index, numbers: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Yield packets by their numbers, as many as make a block."""
    ends = np.cumsum(index.size[numbers])
    first = 0
    while first < len(numbers):
        before = int(ends[first - 1]) if first else 0
        rest = ends[first + 1 : first + PACKET_BLOCK_ROWS]
        after = first + 1 + int(np.searchsorted(rest, before + PACKET_BLOCK_BYTES, "right"))
        yield numbers[first:after]
        first = after


def _read(file: BinaryIO, path: Path, index: _Index, numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return the bytes of packets; what lies together in the file is read together."""
    offset, size = index.offset[numbers], index.size[numbers]
    ends = np.cumsum(size)
    breaks = np.flatnonzero(offset[1:] != offset[:-1] + size[:-1])
    firsts, lasts = [0, *(breaks + 1).tolist()], [*breaks.tolist(), len(numbers) - 1]
    data = np.empty(int(ends[-1]), np.uint8)
    for first, last in zip(firsts, lasts, strict=True):
        begin, end = int(ends[first] - size[first]), int(ends[last])
        file.seek(int(offset[first]))
        got = begin + file.readinto(data[begin:end].data)  # type: ignore[attr-defined] # BufferedReader has it
        if got < end:
            number = numbers[np.searchsorted(ends, got, "right")]
            raise FormatError(str(path), f"packet {number}", "is cut off")
    return data


def _plain(pixel_format: str) -> str:
    """Return a pixel format without FFmpeg's older way to tell the full range."""
    return pixel_format.replace("yuvj", "yuv")


def _is_deep_grey(pixel_format: str) -> bool:
    return pixel_format.startswith("gray") and pixel_format.endswith("le")


@contextmanager
def _readable(path: Path) -> Iterator[BinaryIO]:
    try:
        # Packets lie behind each other, and many are small.
        with path.open("rb", buffering=1 << 17) as file:
            yield file
    except OSError as error:
        raise FormatError(str(path), "", f"cannot be read: {error.strerror}") from error


def _opened(path: Path) -> av.container.InputContainer:
    """Open an MP4 file and nothing else."""
    import av

    with _readable(path) as file:
        magic = file.read(8)
    # ISO/IEC 14496-12, section 4.3: the file type box comes as early as possible.
    if magic[4:] != b"ftyp":
        raise FormatError(str(path), "byte 4", f"is no MP4: begins with {magic!r}, no file type box")
    options = {"protocol_whitelist": "file", "enable_drefs": "0", "max_pixels": str(MAX_PIXELS)}
    try:
        # An absolute path, so that no name is taken for a protocol.
        return av.open(f"file:{path.resolve()}", format="mov", options=options)
    except (av.FFmpegError, ValueError) as error:
        raise FormatError(str(path), "moov", f"is no readable MP4: {error}") from error


def _video_of(container: av.container.InputContainer, path: Path) -> av.VideoStream:
    from av.stream import Disposition

    videos = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if len(videos) != 1:
        raise FormatError(str(path), "moov", f"holds {len(videos)} videos, where one is wanted")
    return videos[0]


def _index_of(path: Path) -> _Index:
    return _cached_index(*version_of(path))


@lru_cache(maxsize=16)
def _cached_index(path: Path, size: int, _mtime_ns: int, _inode: int) -> _Index:
    import av

    with _opened(path) as container:
        try:
            return _read_index(path, size, container, _video_of(container, path))
        except av.FFmpegError as error:
            raise FormatError(str(path), "packets", f"cannot be read: {error}") from error


def _read_index(
    path: Path, size: int, container: av.container.InputContainer, stream: av.VideoStream
) -> _Index:
    context = stream.codec_context
    if context is None:
        raise FormatError(str(path), "moov", "holds video of a codec that FFmpeg does not know")
    codec = context.codec.canonical_name
    if codec not in _ALLOWED:
        allowed = ", ".join(sorted(_ALLOWED))
        raise FormatError(str(path), "moov", f"holds {codec} video, which is not among {allowed}")
    width, height = context.width, context.height
    if not 0 < width * height <= MAX_PIXELS or context.pix_fmt is None:
        raise FormatError(str(path), "moov", f"pictures of {width}x{height} {context.pix_fmt} are not read")
    matrix, full_range, attributes = colours(path, context, context.pix_fmt)
    packets = packets_of(path, size, MAX_FRAMES) if codec in _BITSTREAM else None
    if packets is None or packets["size"].max() > MAX_PACKET_BYTES or not _is_ffmpegs(packets, stream):
        packets = _read_packets(path, size, container.demux(stream))
    # At the end of a file that was cut between two packets, the demuxer just stops.
    if len(packets) < len(stream.index_entries):
        raise FormatError(str(path), f"packet {len(packets)}", "is cut off: the file ends before it")
    rank, place = _ranks(path, packets)
    pts = packets["pts"][place]
    times = np.rint((pts - pts[0]) * (1e9 * float(stream.time_base or 0))).astype(np.int64)
    times.setflags(write=False)
    return _Index(
        codec=codec,
        decoder=context.name,
        pixel_format=_plain(context.pix_fmt),
        width=width,
        height=height,
        matrix=matrix,
        full_range=full_range,
        rate_hz=float(stream.average_rate) if stream.average_rate else None,
        audio=bool(container.streams.audio),
        attributes=MappingProxyType(attributes),
        setup=Setup.of(stream, codec),
        offset=packets["offset"],
        size=packets["size"],
        key=packets["flags"] & 1 == 1,
        rank=rank,
        place=place,
        times=times,
    )


def _is_ffmpegs(packets: Array, stream: av.VideoStream) -> bool:
    """Tell whether FFmpeg read as many packets out of the tables, and the same ones first and last."""
    entries = stream.index_entries
    return len(entries) == len(packets) and all(
        (entries[at].pos, entries[at].size) == (packets["offset"][at], packets["size"][at])
        for at in (0, len(packets) - 1)
    )


_BATCH = 4096


def _read_packets(path: Path, size: int, packets: Iterator[av.Packet[Any]]) -> Array:
    """Return every packet, in decode order."""
    parts: list[Array] = []
    rows: list[tuple[int, int, int, int]] = []
    for number, packet in enumerate(packets):
        pts, at, length = packet.pts, packet.pos, packet.size
        if pts is None or at is None or not 0 < length <= MAX_PACKET_BYTES or not 0 <= at <= size - length:
            if pts is None and length == 0:  # the demuxer's last word
                continue
            raise _unreadable(path, number, packet)
        if packet.is_corrupt or packet.has_sidedata("new_extradata") or number >= MAX_FRAMES:
            raise _unreadable(path, number, packet)
        rows.append((pts, at, length, packet.is_keyframe | packet.is_discard << 1))
        if len(rows) == _BATCH:
            parts.append(np.array(rows, PACKET))
            rows = []
    return np.concatenate([*parts, np.array(rows, PACKET)])


def _unreadable(path: Path, number: int, packet: av.Packet[Any]) -> FormatError:
    """Return what is wrong with a packet that is not taken."""
    if number >= MAX_FRAMES:
        why = f"only {MAX_FRAMES:,} pictures are read"
    elif packet.pts is None:
        why = "has no presentation time"
    elif packet.has_sidedata("new_extradata"):
        why = "changes the decoder's parameters within the file"
    elif not 0 < packet.size <= MAX_PACKET_BYTES or packet.pos is None:
        why = f"holds {packet.size} bytes"
    else:
        why = "is cut off: the file ends before it"
    return FormatError(str(path), f"packet {number}", why)


def _ranks(path: Path, packets: Array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the frame index of each packet, and the packet of each frame index.

    Hidden packets get negative indices, or such as lie behind the last frame.
    """
    hidden = packets["flags"] & 2 == 2
    if not len(packets) or hidden.all():
        raise FormatError(str(path), "packets", "the video holds no picture")
    order = np.argsort(packets["pts"], kind="stable")
    doubled = np.flatnonzero(np.diff(packets["pts"][order]) == 0)
    if doubled.size:
        where = f"packet {int(order[doubled[0] + 1])}"
        raise FormatError(str(path), where, "has the presentation time of another packet")
    shown = np.flatnonzero(~hidden[order])
    first, last = int(shown[0]), int(shown[-1])
    if last - first + 1 != len(shown):
        at = int(order[first + int(np.flatnonzero(hidden[order][first:])[0])])
        raise FormatError(str(path), f"packet {at}", "an edit list cuts it out of the middle of the video")
    rank = np.empty(len(packets), np.int64)
    rank[order] = np.arange(len(packets)) - first
    return rank, order[first : last + 1]


def colours(
    path: Path, context: av.VideoCodecContext, pixel_format: str
) -> tuple[Matrix, bool, dict[str, Any]]:
    """Return the matrix, whether the range is full, and what of that is assumed."""
    space, span = int(context.colorspace), int(context.color_range)
    grey, rgb = pixel_format.startswith("gray"), pixel_format.startswith("gbr")
    if space not in {*_MATRIX, _UNSPECIFIED}:
        raise FormatError(str(path), "moov", f"colour matrix {space} of ISO/IEC 23091-2 is not supported")
    # FFmpeg gives grey and RGB in full range, whatever the tags.
    full = grey or rgb or span == _FULL_RANGE or pixel_format.startswith("yuvj")
    assumed = [] if grey or rgb or space != _UNSPECIFIED else ["matrix"]
    assumed += [] if full or span else ["range"]
    # What FFmpeg's scaler takes for want of tags, and with it LeRobot, OpenCV and torchcodec.
    matrix = _MATRIX.get(space, "bt601")
    matrix = "rgb" if rgb else "bt601" if matrix == "rgb" else matrix
    return matrix, full, {"colours_assumed": assumed} if assumed else {}
