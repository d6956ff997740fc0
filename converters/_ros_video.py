"""Compressed video in messages, one picture each.

Field notes (github.com/foxglove/foxglove-sdk: schemas/proto/foxglove/CompressedVideo.proto). H.264 and H.265
come as Annex B, each message with all that one picture needs; messages with a key picture (IDR, or IRAP) hold
the parameter sets too; pictures are shown in the order of the messages, since B-frames are not allowed. All
of that is checked here. A picture is a place to start from only where its message has the parameter sets.

A recording may begin between two key pictures. What lies before the first cannot be decoded by anyone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..schemas import Array, FormatError, Json, Packet, PacketBlock, Packets, VideoFormat, packet_blocks
from ._bitstream import padded
from ._mp4 import MAX_PIXELS, colours
from ._ros_pictures import NotReadError, data_of, text_of
from ._topics import Source, Topic

if TYPE_CHECKING:
    import av

TYPES = {"foxglove.CompressedVideo", "foxglove_msgs/CompressedVideo"}

_CODECS: dict[str, Literal["h264", "hevc"]] = {"h264": "h264", "h265": "hevc", "hevc": "hevc"}
_PROBED = 8

# ITU-T H.264, table 7-1, and H.265, table 7-1: NAL unit types.
_IDR, _SPS, _SLICES = 5, 7, {1, 5}
_IRAP, _HEVC_SPS, _HEVC_SLICES = range(16, 22), 33, range(32)


@dataclass(frozen=True, slots=True, eq=False)
class Video:
    """The video of a topic.

    Attributes
    ----------
    skipped
        Messages before the first key picture.
    keys
        (n,) whether decoding can start at a picture; counted from behind the skipped ones.
    """

    source: Source
    topic: str
    format: VideoFormat
    skipped: int
    keys: NDArray[np.bool_]
    attributes: dict[str, Json]

    def __len__(self) -> int:
        return len(self.keys)

    def packets(self) -> Packets:
        """Return the messages as packets."""
        return Packets(format=self.format, blocks=self._blocks)

    def _blocks(self) -> Iterator[PacketBlock]:
        return packet_blocks(self._packets())

    def _packets(self) -> Iterator[Packet]:
        for index, data in enumerate(self._data(0, len(self))):
            yield Packet(data, index, bool(self.keys[index]))

    def _data(self, start: int, stop: int) -> Iterator[bytes]:
        column = self.source.column(self.topic, "data")
        for data in column.each(self.skipped + start, self.skipped + stop):
            yield np.asarray(data, np.uint8).tobytes()

    def frames(self, block_bytes: int, start: int, stop: int) -> Iterator[Array]:
        """Yield pictures ``[start, stop)`` in blocks (n, H, W, 3) uint8 RGB."""
        if start >= stop:
            return
        topic = self.source.topic(self.topic)
        rows = max(1, block_bytes // (self.format.width * self.format.height * 3))
        first = int(np.flatnonzero(self.keys[: start + 1])[-1])
        block: list[Array] = []
        rgb = _Rgb(self.format)
        wanted = start
        for index, frame in _decoded(topic, self.format, self._data(first, stop), first, self.skipped):
            if index < start:
                continue
            if index != wanted:
                raise topic.damaged(
                    self.skipped + index, "its picture is not shown next: the video has B-frames"
                )
            block.append(rgb.of(frame))
            wanted += 1
            if len(block) == rows:
                yield np.stack(block)
                block = []
        if wanted != stop:
            raise topic.damaged(self.skipped + wanted, "its picture cannot be decoded")
        if block:
            yield np.stack(block)


def video_of(source: Source, name: str) -> Video:
    """Return the video of a topic; `NotReadError` if it is of a codec or form that is not read."""
    topic = source.topic(name)
    told = text_of(topic, "format")
    codec = _CODECS.get(told.lower())
    if codec is None:
        raise NotReadError(f"its video is {told!r}; H.264 and H.265 are read")
    column = data_of(topic)
    keys = []
    for index, data in enumerate(column.each(0, topic.count)):
        key, pictures = _judged(np.asarray(data, np.uint8).tobytes(), codec)
        if pictures != 1:
            raise NotReadError(f"message {index} holds {pictures} pictures of {codec}, not one")
        keys.append(key)
    starts = np.flatnonzero(keys)
    if not starts.size:
        raise NotReadError("no message holds a key picture with its parameter sets")
    skipped = int(starts[0])
    probe = [
        np.asarray(d, np.uint8).tobytes() for d in column.each(skipped, min(topic.count, skipped + _PROBED))
    ]
    form, attributes = _form(topic, codec, probe, skipped)
    return Video(source, name, form, skipped, np.array(keys[skipped:], bool), attributes)


def _judged(data: bytes, codec: str) -> tuple[bool, int]:
    """Return whether decoding can start at a message, and how many pictures begin in it."""
    idr = sets = False
    pictures = 0
    at = data.find(b"\0\0\1")
    while at >= 0 and at + 5 < len(data):
        head, after = data[at + 3], data[at + 5]
        kind = head & 31 if codec == "h264" else head >> 1 & 63
        if codec == "h264":
            # The first field of a slice is 0, written as one bit, where a picture begins (7.3.3).
            pictures += kind in _SLICES and bool(data[at + 4] & 0x80)
            idr, sets = idr or kind == _IDR, sets or kind == _SPS
        else:
            # Its first bit tells the first slice of a picture (7.3.6.1).
            pictures += kind in _HEVC_SLICES and bool(after & 0x80)
            idr, sets = idr or kind in _IRAP, sets or kind == _HEVC_SPS
        at = data.find(b"\0\0\1", at + 3)
    return idr and sets, pictures


def _decoder(codec: str) -> av.VideoCodecContext:
    import av

    decoder: av.VideoCodecContext = av.CodecContext.create(codec, "r")  # type: ignore[assignment] # of video
    decoder.thread_count = 1
    decoder.options = {"max_pixels": str(MAX_PIXELS), "flags": "+low_delay"}
    return decoder


def _form(
    topic: Topic, codec: Literal["h264", "hevc"], probe: list[bytes], skipped: int
) -> tuple[VideoFormat, dict[str, Json]]:
    import av

    decoder = _decoder(codec)
    try:
        for data in probe:
            if decoder.decode(padded(data)):
                break
        else:
            decoder.decode(None)
    except av.FFmpegError as error:
        raise topic.damaged(skipped, f"its picture cannot be decoded: {error}") from error
    if not decoder.pix_fmt or not 0 < decoder.width * decoder.height <= MAX_PIXELS:
        raise topic.damaged(skipped, "its picture cannot be decoded")
    if decoder.has_b_frames:
        raise NotReadError("its pictures are not in the order in which they are shown: it has B-frames")
    matrix, full, attributes = colours(topic.path, decoder, decoder.pix_fmt)
    form = VideoFormat(
        codec=codec,
        bitstream="annexb",
        pixel_format=decoder.pix_fmt.replace("yuvj", "yuv"),
        matrix=matrix,
        range="full" if full else "limited",
        width=decoder.width,
        height=decoder.height,
    )
    return form, attributes


def _decoded(
    topic: Topic, form: VideoFormat, data: Iterator[bytes], first: int, skipped: int
) -> Iterator[tuple[int, Any]]:
    import av

    decoder = _decoder(form.codec)
    index = first
    try:
        for index, raw in enumerate(data, first):
            packet = padded(raw)
            packet.pts = packet.dts = index
            for frame in decoder.decode(packet):
                yield _checked(topic, frame, form, skipped), frame
        for frame in decoder.decode(None):
            yield _checked(topic, frame, form, skipped), frame
    except av.FFmpegError as error:
        raise topic.damaged(skipped + index, f"its picture cannot be decoded: {error}") from error


def _checked(topic: Topic, frame: av.VideoFrame, form: VideoFormat, skipped: int) -> int:
    index = frame.pts or 0
    name = frame.format.name.replace("yuvj", "yuv")
    if frame.is_corrupt:
        raise topic.damaged(skipped + index, "its picture is damaged")
    if (frame.width, frame.height, name) != (form.width, form.height, form.pixel_format):
        told = f"its picture is {frame.width}×{frame.height} {name}"
        raise FormatError(
            str(topic.path),
            f"{topic.name}: message {skipped + index}",
            f"{told}; the first was of another form",
        )
    return index


class _Rgb:
    """Makes RGB of pictures, by one matrix for the whole video."""

    def __init__(self, form: VideoFormat) -> None:
        from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

        others = {"bt709": Colorspace.ITU709, "bt2020": Colorspace.BT2020}
        matrix = others.get(form.matrix, Colorspace.ITU601)
        self._reformatter = VideoReformatter()
        self._colours: dict[str, Any] = {
            "src_colorspace": matrix,
            "dst_colorspace": matrix,
            "src_color_range": ColorRange.JPEG if form.range == "full" else ColorRange.MPEG,
            "dst_color_range": ColorRange.JPEG,
        }

    def of(self, frame: av.VideoFrame) -> Array:
        """Return (H, W, 3) uint8."""
        return self._reformatter.reformat(frame, format="rgb24", threads=1, **self._colours).to_ndarray()
