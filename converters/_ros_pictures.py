"""Pictures in messages: raw ones, JPEG and PNG, and the depth transport of ROS.

Field notes. The words for raw pictures are those of sensor_msgs/image_encodings.hpp
(github.com/ros2/common_interfaces) and foxglove.RawImage: ``rgb8``, ``bgr8`` …, and OpenCV's
``<bits><U|S|F>C<channels>``. Rows may be padded (``step``). By REP 118 (https://ros.org/reps/rep-0118.html)
depth is millimetres as 16UC1 and metres as 32FC1; ``mono16`` says nothing of depth, though librealsense
writes its depth so.

The format of a compressed picture is free text. `compressed_image_transport`
(github.com/ros-perception/image_transport_plugins: src/compressed_subscriber.cpp) writes ``<encoding>; jpeg
compressed <encoding>``; if the second does not begin with ``bgr``, then red and blue were swapped on the way
into the JPEG, and are here swapped back. Its depth twin (compressed_depth_image_transport/src/codec.cpp) puts
12 bytes in front of a PNG: a word and two float32 A and B, by which 32FC1 is A / (pixel − B), and NaN for a
pixel of zero.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import numpy as np

from ..schemas import UNKNOWN, Array, Json
from ._jpeg import MAX_PIXELS, is_jpeg
from ._pictures import Shown, in_blocks, pixels_of, shown
from ._png import ANY, is_png
from ._topics import Column, Source, Topic

RAW_TYPES = {"sensor_msgs/Image", "foxglove.RawImage", "foxglove_msgs/RawImage"}
COMPRESSED_TYPES = {
    "sensor_msgs/CompressedImage",
    "foxglove.CompressedImage",
    "foxglove_msgs/CompressedImage",
}

_CONFIG = struct.Struct("<iff")
_OPENCV = re.compile(r"(8|16|32|64)([USF])C([1-9][0-9]?)$")
_BAYER = re.compile(r"bayer_[rgb]{4}(8|16)$")
_CHANNELS = {
    "rgb8": (0, 1, 2),
    "rgba8": (0, 1, 2, 3),
    "bgr8": (2, 1, 0),
    "bgra8": (2, 1, 0, 3),
    "mono8": (0,),
    "8UC1": (0,),
}
_DEEP = {"mono16": "uint16", "16UC1": "uint16", "32FC1": "float32"}
_LUMA_FIRST = {"yuv422": False, "uyvy": False, "yuv422_yuy2": True, "yuyv": True}

Kind = Literal["video", "depth", "low_dim"]


@dataclass(frozen=True, slots=True)
class PictureForm:
    """What the pictures of a topic become, and how.

    Attributes
    ----------
    decode
        Makes a sample of the bytes of one picture, (n,) uint8; `ValueError` if they are no such picture.
        The sample may be a view of them.
    how
        What is done to them, for the ledger; empty if nothing but the order of channels.
    lossless
        Whether the samples give back the source's pixels.
    """

    kind: Kind
    dtype: str
    shape: tuple[int, ...]
    decode: Callable[[Array], Array]
    how: str = ""
    lossless: bool = True
    unit: str = UNKNOWN
    attributes: dict[str, Json] = field(default_factory=dict)


class NotReadError(ValueError):
    """Pictures of a form that is not read, and why."""


def picture_form(topic: Topic) -> PictureForm:
    """Return what the pictures of a topic become, as its first message tells; `NotReadError` if nothing."""
    return _raw(topic) if topic.short_type in RAW_TYPES else _compressed(topic)


def pictures(
    source: Source, name: str, form: PictureForm, block_bytes: int, start: int, stop: int
) -> Iterator[Array]:
    """Yield the samples ``[start, stop)`` of a topic of pictures in blocks."""
    topic = source.topic(name)
    size = int(np.prod(form.shape)) * np.dtype(form.dtype).itemsize
    rows = max(1, block_bytes // max(1, size))
    messages = topic.columns["data"].each(start, stop)
    files = (np.asarray(data, np.uint8) for data in messages)
    return in_blocks(
        files, form.decode, rows, start, lambda number, why: topic.damaged(number, f"the picture {why}")
    )


def data_of(topic: Topic) -> Column:
    """Return the pictures' bytes; `NotReadError` if they are none, as JSON without a schema has it."""
    column = topic.columns.get("data")
    if column is None or column.dtype != "uint8":
        raise NotReadError("its messages have no bytes called data")
    return column


def text_of(topic: Topic, path: str) -> str:
    """Return the text that all messages have of a leaf; `NotReadError` if they differ or lack it."""
    texts = _leaf(topic, path, "text").constant
    if texts is None or len(texts) != 1:
        raise NotReadError(f"its messages differ in {path}: a stream's samples are all of one form")
    return texts[0]


def _number(topic: Topic, path: str) -> int:
    """Return the whole number that all messages have of a leaf; `NotReadError` if they differ or lack it."""
    column = _leaf(topic, path, "number")
    values = np.concatenate([np.empty(0, np.int64), *column.flat(0, column.total, 1 << 20)])
    if len(values) != topic.count or np.any(values != values[0]):
        raise NotReadError(f"its messages differ in {path}: a stream's samples are all of one form")
    if not float(values[0]).is_integer():
        raise NotReadError(f"its {path} is {values[0]}")
    return int(values[0])


def _leaf(topic: Topic, path: str, kind: str) -> Column:
    column = topic.columns.get(path)
    if column is None or column.leaf.kind != kind or (kind == "text" and column.leaf.shape != ()):
        raise NotReadError(f"its messages have no {path}")
    return column


def _raw(topic: Topic) -> PictureForm:
    height, width, step = (_number(topic, path) for path in ("height", "width", "step"))
    encoding = text_of(topic, "encoding")
    big = bool(_number(topic, "is_bigendian")) if "is_bigendian" in topic.columns else False
    if not 0 < height * width <= MAX_PIXELS or step > (1 << 30):
        raise NotReadError(f"pictures of {width}×{height} are not read")
    if int(data_of(topic).counts.min()) < step * height:
        raise NotReadError(f"a message holds fewer than {height} rows of {step} bytes")
    if step < width * _bytes_of(encoding):
        raise NotReadError(f"its rows of {step} bytes are too short for {width} pixels in {encoding!r}")
    base: dict[str, Json] = {"encoding": encoding, "step": step, "is_bigendian": big}
    depth = "depth" in topic.name.lower()
    if encoding in _CHANNELS:
        channels = _CHANNELS[encoding]
        cut = _Rows(height, width, step, "uint8", len(channels), big)
        shown = channels[:3]
        alpha = len(channels) == 4
        how = "without its alpha channel" if alpha else ""
        shape = (height, width, len(shown))
        return PictureForm("video", "uint8", shape, _Shown(cut, shown), how, not alpha, attributes=base)
    if encoding in _DEEP:
        units = {"16UC1": "mm", "32FC1": "m"}
        unit = units.get(encoding, UNKNOWN) if depth else UNKNOWN
        cut = _Rows(height, width, step, _DEEP[encoding], 0, big)
        return PictureForm("depth", _DEEP[encoding], (height, width), cut, unit=unit, attributes=base)
    if encoding in _LUMA_FIRST:
        cut = _Rows(height, width, step, "uint8", 2, big)
        form = _Yuv(cut, _LUMA_FIRST[encoding])
        how = "YUV made into RGB by BT.601, limited range"
        base |= {"colours_assumed": ["matrix", "range"]}
        return PictureForm("video", "uint8", (height, width, 3), form, how, lossless=False, attributes=base)
    dtype, channels_count = _opencv(encoding)
    cut = _Rows(height, width, step, dtype, channels_count, big)
    size = (height, width, channels_count) if channels_count else (height, width)
    return PictureForm("low_dim", dtype, size, cut, attributes=base)


def _bytes_of(encoding: str) -> int:
    """Return the bytes of a pixel."""
    if encoding in _CHANNELS:
        return len(_CHANNELS[encoding])
    if encoding in _LUMA_FIRST:
        return 2
    dtype, channels = (_DEEP[encoding], 0) if encoding in _DEEP else _opencv(encoding)
    return np.dtype(dtype).itemsize * max(1, channels)


def _opencv(encoding: str) -> tuple[str, int]:
    """Return the type and the channels (0 for one) of an encoding whose colours are not told."""
    bayer = _BAYER.match(encoding)
    if bayer:
        return f"uint{bayer[1]}", 0
    match = _OPENCV.match(encoding)
    if match is None:
        raise NotReadError(f"its encoding {encoding!r} is not read")
    kind = {"U": "uint", "S": "int", "F": "float"}[match[2]]
    if (match[1] == "64") != (kind == "float" and match[1] == "64") or (kind == "float" and match[1] == "8"):
        raise NotReadError(f"its encoding {encoding!r} is not read")
    channels = int(match[3])
    return f"{kind}{match[1]}", 0 if channels == 1 else channels


@dataclass(frozen=True, slots=True)
class _Rows:
    """Cuts pixels out of padded rows."""

    height: int
    width: int
    step: int
    dtype: str
    channels: int
    big: bool

    def __call__(self, data: Array) -> Array:
        dtype = np.dtype(self.dtype).newbyteorder(">" if self.big else "<")
        used = self.width * max(1, self.channels) * dtype.itemsize
        if used > self.step or len(data) < self.step * self.height:
            raise ValueError(f"has {len(data):,} bytes for {self.height} rows of {self.step}")
        rows = data[: self.step * self.height].reshape(self.height, self.step)
        pixels = np.ascontiguousarray(rows[:, :used]).view(dtype).astype(dtype.newbyteorder("<"), copy=False)
        return pixels.reshape(self.height, self.width, self.channels) if self.channels else pixels


@dataclass(frozen=True, slots=True)
class _Shown:
    """Puts channels into the order red, green, blue."""

    rows: _Rows
    channels: tuple[int, ...]

    def __call__(self, data: Array) -> Array:
        pixels = self.rows(data)
        return pixels if self.channels == tuple(range(pixels.shape[2])) else pixels[..., list(self.channels)]


@dataclass(frozen=True, slots=True)
class _Yuv:
    """Makes RGB of packed YUV 4:2:2."""

    rows: _Rows
    luma_first: bool

    def __call__(self, data: Array) -> Array:
        import av

        pixels = self.rows(data)
        if self.rows.width % 2:
            raise ValueError("has an odd width, which YUV 4:2:2 cannot have")
        ordered = pixels if self.luma_first else np.ascontiguousarray(pixels[..., ::-1])
        frame = av.VideoFrame.from_ndarray(ordered, format="yuyv422")
        return frame.to_ndarray(format="rgb24")


def _compressed(topic: Topic) -> PictureForm:
    told = text_of(topic, "format")
    data = _first(data_of(topic))
    encoding = told.partition(";")[0].strip()
    base: dict[str, Json] = {"format": told}
    if "compresseddepth" in told.lower():
        return _depth(topic, data, told, base)
    if not is_jpeg(data) and not is_png(data):
        raise NotReadError(f"its pictures ({told!r}, beginning with {data[:4]!r}) are neither JPEG nor PNG")
    found = _shown(data)
    how = f"decoded from {found.encoding.upper()}"
    if found.kind == "depth":
        unit = "mm" if "depth" in topic.name.lower() and encoding == "16UC1" else UNKNOWN
        decode = partial(_decoded, want=found)
        return PictureForm("depth", found.dtype, found.shape, decode, how, unit=unit, attributes=base)
    alpha = found.kind == "low_dim"
    shape = (*found.shape[:2], found.shape[2] - alpha)
    how += ", without its alpha channel" if alpha else ""
    decode = partial(_colours, want=found, channels=shape[2], swap=swapped(told))
    return PictureForm("video", "uint8", shape, decode, how, not alpha, attributes=base)


def _shown(data: bytes) -> Shown:
    try:
        return shown(data, forms=ANY)
    except ValueError as error:
        raise NotReadError(f"its first picture {error}") from error


def _first(column: Column) -> bytes:
    data = np.asarray(next(column.each(0, 1)), np.uint8).tobytes()
    if not data:
        raise NotReadError("its first message holds no picture")
    return data


def swapped(told: str) -> bool:
    """Tell whether a compressed picture of this format has red and blue in each other's place."""
    encoding, semicolon, rest = told.partition(";")
    colour = encoding.strip().startswith(("rgb", "bgr"))
    return bool(semicolon) and colour and "compressed" in rest and "compressed bgr" not in rest


def _decoded(data: Array, want: Shown) -> Array:
    return pixels_of(data.tobytes(), want)


def _colours(data: Array, want: Shown, channels: int, *, swap: bool) -> Array:
    pixels = _decoded(data, want)[..., :channels]
    return pixels[..., ::-1] if swap else pixels


def _depth(topic: Topic, data: bytes, told: str, base: dict[str, Json]) -> PictureForm:
    encoding = told.partition(";")[0].strip()
    if "rvl" in told.lower() or not is_png(data[_CONFIG.size :]):
        raise NotReadError(f"its depth ({told!r}) is no PNG behind 12 bytes of header")
    found = _shown(data[_CONFIG.size :])
    if found.kind != "depth":
        raise NotReadError("its depth is no PNG of 16 bits of grey")
    if encoding in {"16UC1", "mono16"}:
        unit = "mm" if encoding == "16UC1" else UNKNOWN
        form = partial(_distances, want=found, quantised=False)
        how = "decoded from PNG"
        return PictureForm("depth", "uint16", found.shape, form, how, unit=unit, attributes=base)
    if encoding == "32FC1":
        form = partial(_distances, want=found, quantised=True)
        how = "decoded from PNG, and made metres by its header: A / (pixel − B)"
        return PictureForm("depth", "float32", found.shape, form, how, unit="m", attributes=base)
    raise NotReadError(f"{topic.name} has depth in {encoding!r}, which is not read")


def _distances(data: Array, want: Shown, *, quantised: bool) -> Array:
    if len(data) < _CONFIG.size:
        raise ValueError("is no PNG behind 12 bytes of header")
    pixels = _decoded(data[_CONFIG.size :], want)
    if not quantised:
        return pixels
    _, a, b = _CONFIG.unpack(data[: _CONFIG.size].tobytes())
    with np.errstate(divide="ignore", invalid="ignore"):
        depth = np.float32(a) / (pixels.astype(np.float32) - np.float32(b))
    return np.where(pixels == 0, np.float32("nan"), depth).astype(np.float32)
