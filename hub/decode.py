"""From the packets of a chunk to pixels, decoding no more of them than the wanted frames need.

The rule is specified in docs/codec.md. Whatever is not exactly as the chunk promises is a `DamageError`:
a frame that does not come, a frame of another size or pixel format, a complaint of the decoder.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, cast

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from numpy.typing import NDArray

from ..schemas import DamageError, VideoFormat
from .gop import Entry, runs, unpack

Pixels = NDArray[np.uint8]

PIXEL_FORMATS = ("yuv420p", "yuv422p", "yuv444p", "gbrp", "gray")
MOST_PIXELS = 64_000_000
"""Pixels of one frame; a larger one is refused before anything is allocated for it."""

MATRICES = {"bt601": Colorspace.ITU601, "bt709": Colorspace.ITU709, "bt2020": Colorspace.BT2020}
RANGES = {"limited": ColorRange.MPEG, "full": ColorRange.JPEG}

_DECODERS = {"h264": "h264", "hevc": "hevc", "av1": "libdav1d", "vp9": "vp9"}
_LUMA = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}
_MOST_CONTEXTS = 4  # that a thread keeps: the cameras of a batch alternate and may differ in size
_DEEPEST = 16  # pictures that H.264 and HEVC may hold back to bring them into order


def format_problem(video: VideoFormat) -> str:
    """Say what keeps this format from being stored; "" if nothing does."""
    if video.codec not in _DECODERS:
        return f"codec {video.codec!r} is none of {', '.join(_DECODERS)}"
    if video.pixel_format not in PIXEL_FORMATS:
        return f"pixel format {video.pixel_format!r} is none of {', '.join(PIXEL_FORMATS)}"
    if video.matrix not in {*MATRICES, "rgb"} or video.range not in RANGES:
        return f"matrix {video.matrix!r} or range {video.range!r} is not known"
    if (video.matrix == "rgb") != (video.pixel_format == "gbrp"):
        return f"pixel format {video.pixel_format!r} does not go with matrix {video.matrix!r}"
    if not 0 < video.width * video.height <= MOST_PIXELS:
        return f"frames of {video.width} × {video.height} are beyond the limit of {MOST_PIXELS} pixels"
    return ""


def decode_into(
    chunk: bytes | memoryview,
    video: VideoFormat,
    frames: Sequence[int] | NDArray[np.integer],
    out: Pixels,
    *,
    slots: int | None = None,
) -> None:
    """Decode frames of one chunk.

    Parameters
    ----------
    chunk
        As `teleopen.hub.gop.pack` made it.
    video
        How to decode it.
    frames
        Slots of the chunk, ascending. A slot behind the chunk's last frame gives that frame again.
    out
        (k, H, W, C) uint8 with ``C`` 3 for RGB or 1 for grey: where the frames go, in this order. The
        decoded picture is cropped to (H, W) at its right and bottom.
    slots
        Length of the array's chunk, to check the chunk against; None if it is not known.

    Raises
    ------
    DamageError
        If the chunk does not give all of these frames; nothing in ``out`` is to be used then.
    ValueError
        If format, frames and ``out`` do not go together.
    """
    _check(video, frames, out)
    if not len(frames):
        return
    rows: dict[int, list[int]] = {}
    for row, slot in enumerate(frames):
        rows.setdefault(int(slot), []).append(row)
    scatter(chunk, video, rows, out, slots=slots)


def scatter(
    chunk: bytes | memoryview,
    video: VideoFormat,
    wanted: Mapping[int, Sequence[int]],
    out: Pixels,
    *,
    form: Form | None = None,
    slots: int | None = None,
) -> None:
    """Decode frames of one chunk to wherever in a batch they belong, each packet at most once.

    Parameters
    ----------
    wanted
        Rows of ``out`` by slot of the chunk. A slot behind the last frame gives that frame again.
    out
        (n, *form.shape) uint8, of which only the rows asked for are written.
    form
        What is made of the decoded picture; None: as `decode_into`.

    Raises
    ------
    DamageError
        If the chunk does not give all of these frames; their rows in ``out`` are not to be used then.
    """
    gop = unpack(chunk, slots)
    rows: dict[int, list[int]] = {}
    for slot, places in wanted.items():
        rows.setdefault(min(slot, gop.n_frames - 1), []).extend(places)
    for run in runs(gop.packets, rows):
        _decode(run, video, rows, out, form)


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """What is made of a decoded picture, in the same pass as its colours.

    Attributes
    ----------
    crop
        (top, left, height, width) of the part that is wanted, in pixels of the array's sample.
    size
        (height, width) that this part is brought to, by averaging where it gets smaller; None: as it is.
    layout
        ``hwc`` (H, W, C): RGB or grey. ``yuv420`` (H * 3 / 2, W): the planes as they are coded, Y above U
        beside V, half as much to move; height and width are even then.
    channels
        3 for RGB, 1 for grey.
    """

    crop: tuple[int, int, int, int]
    size: tuple[int, int] | None = None
    layout: Literal["hwc", "yuv420"] = "hwc"
    channels: int = 3

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one picture."""
        height, width = self.size or self.crop[2:]
        if self.layout == "yuv420":
            return height * 3 // 2, width
        return height, width, self.channels


def _check(video: VideoFormat, frames: Sequence[int] | NDArray[np.integer], out: Pixels) -> None:
    """Refuse a request that contradicts itself."""
    if problem := format_problem(video):
        raise ValueError(problem)
    if out.ndim != 4 or out.dtype != np.uint8 or len(out) != len(frames) or out.shape[3] not in {1, 3}:
        raise ValueError(f"{len(frames)} frames do not go into {out.dtype} {out.shape}")
    if out.shape[1] > video.height or out.shape[2] > video.width:
        raise ValueError(f"a picture of {video.width} × {video.height} cannot be cropped to {out.shape[1:]}")
    if out.shape[3] == 1 and video.pixel_format == "gbrp":
        raise ValueError("grey frames are not made from RGB")
    if len(frames) and min(frames) < 0:
        raise ValueError("slots are counted from 0")


def video_context(name: str, mode: Literal["r", "w"]) -> VideoCodecContext:
    """Return a decoder or an encoder of FFmpeg that runs in the thread which calls it."""
    context = cast("VideoCodecContext", av.CodecContext.create(name, mode))
    context.thread_count = 1
    return context


class _Decoder:
    """A decoder, opened once and flushed between runs, and the converter of its pictures."""

    def __init__(self, video: VideoFormat, reorder_depth: int | None = None) -> None:
        self.video = video
        self.context = video_context(_DECODERS[video.codec], "r")
        # Coded sizes are multiples of up to 64. What cannot be decoded is an error, and pictures that FFmpeg
        # concealed parts of are marked; without its concealment it marks all pictures of several slices.
        most = -(-video.width // 64) * -(-video.height // 64) * 64 * 64
        self.context.options = {"err_detect": "explode", "max_pixels": str(most)}
        if reorder_depth is not None:
            self.context.reorder_depth = reorder_depth
        self.scaler = VideoReformatter()

    def feed(self, run: Iterable[Entry]) -> Iterable[av.VideoFrame]:
        """Yield the pictures of a run in the order they are shown."""
        for entry in run:
            # Not `av.Packet(data)`: that lends Python's memory, without the zeros behind the packet that
            # FFmpeg's bitstream readers may run into (AV_INPUT_BUFFER_PADDING_SIZE in avcodec.h).
            packet = av.Packet(len(entry.data))
            packet.update(entry.data)  # type: ignore[arg-type] # any buffer, says its source
            packet.pts = packet.dts = entry.pts
            yield from self.context.decode(packet)
        yield from self.context.decode(None)
        self.context.flush_buffers()


class _Pool(threading.local):
    """The decoders of a thread, those used last at the end."""

    def __init__(self) -> None:
        self.decoders: dict[VideoFormat, _Decoder] = {}

    def take(self, video: VideoFormat) -> _Decoder:
        """Return a decoder, which is no longer in the pool: one that failed is not put back."""
        return self.decoders.pop(video, None) or _Decoder(video)

    def put(self, decoder: _Decoder) -> None:
        self.decoders[decoder.video] = decoder
        if len(self.decoders) > _MOST_CONTEXTS:
            del self.decoders[next(iter(self.decoders))]


_pool = _Pool()


def _decode(
    run: Sequence[Entry], video: VideoFormat, rows: Mapping[int, list[int]], out: Pixels, form: Form | None
) -> None:
    """Decode one run and write the pictures that have rows."""
    decoder = _pool.take(video)
    missing = _attempt(decoder, run, rows, out, form)
    if missing:
        # Without the optional field that tells how far pictures are out of order a decoder finds out on
        # its way, and drops what it then finds to be late.
        decoder = _Decoder(video, _DEEPEST)
        missing = _attempt(decoder, run, rows, out, form)
    if missing:
        raise DamageError("", f"slot {min(missing)} of a camera chunk was not decoded")
    _pool.put(decoder)


def _attempt(
    decoder: _Decoder,
    run: Sequence[Entry],
    rows: Mapping[int, list[int]],
    out: Pixels,
    form: Form | None,
) -> set[int]:
    """Return which of the wanted pictures did not come."""
    missing = {entry.pts for entry in run if entry.pts in rows}
    try:
        for frame in decoder.feed(run):
            _check_frame(frame, decoder.video)
            pts = frame.pts
            if pts in missing:
                missing.remove(pts)
                first, *more = rows[pts]
                if form is None:
                    write_pixels(frame, decoder.video, decoder.scaler, out[first])
                else:
                    write_form(frame, decoder.video, decoder.scaler, form, out[first])
                for row in more:
                    out[row] = out[first]
    except av.FFmpegError as error:
        raise DamageError("", f"a camera chunk cannot be decoded: {error}") from error
    return missing


def _check_frame(frame: av.VideoFrame, video: VideoFormat) -> None:
    """Refuse a picture that is not what the format promised."""
    name = frame.format.name.replace("yuvj", "yuv")  # FFmpeg's old way to say full range
    if frame.is_corrupt:
        raise DamageError("", "a camera chunk was decoded with errors")
    if (frame.width, frame.height, name) != (video.width, video.height, video.pixel_format):
        raise DamageError(
            "",
            f"a camera chunk holds {frame.width} × {frame.height} {name}, and the array says "
            f"{video.width} × {video.height} {video.pixel_format}",
        )


def write_pixels(frame: av.VideoFrame, video: VideoFormat, scaler: VideoReformatter, out: Pixels) -> None:
    """Convert a decoded picture into RGB or grey.

    Parameters
    ----------
    frame
        Of the size and pixel format of ``video``.
    scaler
        Reused, since setting one up costs more than a conversion.
    out
        (H, W, C) uint8, no larger than the picture.
    """
    height, width, channels = out.shape
    if channels == 1 or video.pixel_format == "gray":
        out[...] = _grey(plane_view(frame, 0), video)[:height, :width]
    elif video.pixel_format == "gbrp":
        for channel, index in enumerate((2, 0, 1)):
            out[..., channel] = plane_view(frame, index)[:height, :width, 0]
    elif video.pixel_format == "yuv444p":
        _write_444([plane_view(frame, index)[:height, :width, 0] for index in range(3)], video, out)
    else:
        rgb = scaler.reformat(
            _untagged(frame) if video.range == "limited" else frame,
            format="rgb24",
            src_colorspace=MATRICES[video.matrix],
            dst_colorspace=MATRICES[video.matrix],
            src_color_range=RANGES[video.range],
            dst_color_range=ColorRange.JPEG,
            interpolation=Interpolation.POINT,
            threads=1,
        )
        out[...] = plane_view(rgb, 0, 3)[:height, :width]


def _untagged(frame: av.VideoFrame) -> av.VideoFrame:
    """Return a picture whose range the scaler takes from us: for ``yuvj...`` it insists on full range."""
    if not frame.format.name.startswith("yuvj"):
        return frame
    plain = av.VideoFrame(frame.width, frame.height, frame.format.name.replace("yuvj", "yuv"))
    for index in range(len(frame.planes)):
        plane_view(plain, index)[...] = plane_view(frame, index)
    return plain


def write_form(
    frame: av.VideoFrame, video: VideoFormat, scaler: VideoReformatter, form: Form, out: Pixels
) -> None:
    """Crop, resize and convert a decoded picture into ``out`` of shape ``form.shape``."""
    if form.layout == "yuv420":
        _write_planes(frame, video, scaler, form, out)
        return
    top, left, height, width = form.crop
    if form.size is None or form.size == (height, width):
        whole = np.empty((top + height, left + width, form.channels), np.uint8) if top or left else None
        write_pixels(frame, video, scaler, out if whole is None else whole)
        if whole is not None:
            out[...] = whole[top:, left:]
        return
    small = _scaled(frame, video, scaler, form, "gray" if form.channels == 1 else "rgb24")
    pixels = plane_view(small, 0, form.channels)
    y, x = _corner(form)
    out[...] = pixels[y : y + form.size[0], x : x + form.size[1]]


def _corner(form: Form) -> tuple[int, int]:
    """Return where the crop begins in the picture that is resized as a whole."""
    top, left, height, width = form.crop
    size = form.size or (height, width)
    return round(top * size[0] / height), round(left * size[1] / width)


def _scaled(
    frame: av.VideoFrame, video: VideoFormat, scaler: VideoReformatter, form: Form, pixel_format: str
) -> av.VideoFrame:
    """Return the whole picture at the scale that brings the crop to its size."""
    size = form.size or form.crop[2:]
    height = max(size[0] + _corner(form)[0], round(video.height * size[0] / form.crop[2]))
    width = max(size[1] + _corner(form)[1], round(video.width * size[1] / form.crop[3]))
    if pixel_format == "yuv420p":
        height, width = height + height % 2, width + width % 2
    coloured = {} if video.matrix == "rgb" else _colours(video, keep=pixel_format == "yuv420p")
    return scaler.reformat(
        _untagged(frame) if video.range == "limited" else frame,
        width=width,
        height=height,
        format=pixel_format,
        interpolation=Interpolation.AREA,
        threads=1,
        **coloured,
    )


def _colours(video: VideoFormat, *, keep: bool) -> dict[str, Any]:
    """Return what swscale is told of the colours: as they are, or of full range."""
    matrix, range_ = MATRICES[video.matrix], RANGES[video.range]
    return {
        "src_colorspace": matrix,
        "dst_colorspace": matrix,
        "src_color_range": range_,
        "dst_color_range": range_ if keep else ColorRange.JPEG,
    }


def _write_planes(
    frame: av.VideoFrame, video: VideoFormat, scaler: VideoReformatter, form: Form, out: Pixels
) -> None:
    """Put the planes one below the other: Y (H, W), then U and V (H / 2, W / 2) side by side."""
    if not video.pixel_format.startswith("yuv"):
        raise ValueError(f"planes of 4:2:0 are asked for, and the camera is stored as {video.pixel_format}")
    height, width = form.size or form.crop[2:]
    top, left = form.crop[:2] if form.size is None else _corner(form)
    if any(n % 2 for n in (height, width, top, left)):
        raise ValueError("planes of 4:2:0 have even sizes and begin at even pixels")
    same = form.size is None and video.pixel_format == "yuv420p"
    picture = frame if same else _scaled(frame, video, scaler, form, "yuv420p")
    out[:height] = plane_view(picture, 0)[top : top + height, left : left + width, 0]
    half = (slice(top // 2, (top + height) // 2), slice(left // 2, (left + width) // 2))
    out[height:, : width // 2] = plane_view(picture, 1)[(*half, 0)]
    out[height:, width // 2 :] = plane_view(picture, 2)[(*half, 0)]


def plane_view(frame: av.VideoFrame, index: int, channels: int = 1) -> Pixels:
    """Return a plane of 8-bit samples without copying it: (height, width, channels)."""
    plane = frame.planes[index]
    shape, strides = (plane.height, plane.width, channels), (plane.line_size, channels, 1)
    return np.ndarray(shape, np.uint8, cast("memoryview", plane), strides=strides)


def _grey(luma: Pixels, video: VideoFormat) -> Pixels:
    """Return luma in full range."""
    return luma if video.range == "full" else _limited_luma()[luma]


@cache
def _limited_luma() -> Pixels:
    """Return what each value of limited luma is in full range: (256,)."""
    full = np.clip(np.rint((np.arange(256) - 16) * (255 / 219)), 0, 255)
    return np.asarray(full, np.uint8)


def _write_444(planes: Sequence[Pixels], video: VideoFormat, out: Pixels) -> None:
    """Convert without FFmpeg's scaler, which wraps around in the blue of over-bright pictures."""
    red, blue, luma, chroma = _tables(video.matrix, video.range)
    # A few rows at a time: what lies between is not written to memory. No index can be out of bounds, and
    # to wrap such around is what `take` does fastest.
    step = max(1, _IN_CACHE // max(1, out.shape[1]))
    for top in range(0, len(out), step):
        (y, u, v), part = (plane[top : top + step] for plane in planes), out[top : top + step]
        high = y.astype(np.uint16) << 8
        part[..., 0] = red.take(high | v, mode="wrap")
        part[..., 2] = blue.take(high | u, mode="wrap")
        green = chroma.take(u.astype(np.uint16) << 8 | v, mode="wrap")
        green += luma.take(y, mode="wrap")
        green >>= _FRACTION
        part[..., 1] = np.clip(green, 0, 255, out=green)


_IN_CACHE = 32768  # pixels
_FRACTION = 16  # bits behind the point in `_tables`


@cache
def _tables(matrix: str, range_: str) -> tuple[Pixels, Pixels, NDArray[np.int32], NDArray[np.int32]]:
    """Return what the samples of a pixel amount to, each pair of samples as one number of 16 bits.

    R by Y and V, and B by Y and U: (65536,). What G gets from Y: (256,), and by U and V: (65536,).
    """
    red, blue = _LUMA[matrix]
    green = 1 - red - blue
    luma = (np.arange(256) - 16) / 219 if range_ == "limited" else np.arange(256) / 255
    chroma = (np.arange(256) - 128) / (224 if range_ == "limited" else 255)
    terms = (
        luma + 0.5 / 255,  # so that what is cut off is rounded
        2 * (1 - red) * chroma,
        -2 * blue * (1 - blue) / green * chroma,
        -2 * red * (1 - red) / green * chroma,
        2 * (1 - blue) * chroma,
    )
    bright, red_v, green_u, green_v, blue_u = (
        np.rint(term * 255 * (1 << _FRACTION)).astype(np.int32) for term in terms
    )
    of_red, of_blue = (
        np.clip(np.add.outer(bright, colour).ravel() >> _FRACTION, 0, 255).astype(np.uint8)
        for colour in (red_v, blue_u)
    )
    return of_red, of_blue, bright, np.add.outer(green_u, green_v).ravel()
