"""The codecs of Zarr version 2 chunks, each bounded by what the array says that a chunk decodes to.

A chunk is decoded only if its own header announces exactly the bytes that a chunk of the array has, or else
as a stream that stops there. There are no other codecs than these: ``pickle`` and the other codecs of object
arrays run code. Where the header of a compressed chunk is described is told at each function.
"""

from __future__ import annotations

import bz2
import lzma
import math
import struct
import zlib
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from ..schemas import Array, FormatError, Json
from .base import Format, need

Refuse = Callable[[str, str], FormatError]


def check_compressor(config: Json, refuse: Refuse) -> None:
    """Refuse an array's ``compressor`` unless it is one of those that are read here."""
    _check_config(config, _DECODERS.keys() | PICTURES.keys(), "compressor", refuse)
    if config.get("index") is not None:
        raise refuse("compressor", "one picture of several in a chunk is not read")
    if config["id"] == "lzma" and config.get("format", lzma.FORMAT_XZ) != lzma.FORMAT_XZ:
        raise refuse("compressor", "lzma in another form than xz is not read")


def check_filter(config: Json, dtype: np.dtype[Any], refuse: Refuse) -> None:
    """Refuse one of an array's ``filters`` unless it is read here and gives back the array's dtype."""
    _check_config(config, _FILTERS.keys(), "filters", refuse)
    size = config.get("elementsize", 4)
    if config["id"] == "shuffle" and (type(size) is not int or not 0 < size <= 64):
        raise refuse("filters", f"elementsize {str(size)[:80]} of shuffle is no size of an element")
    words = {config.get("dtype"), config.get("astype", config.get("dtype"))}
    if config["id"] == "delta" and words != {dtype.str}:
        raise refuse("filters", f"dtypes of delta must be the array's, {dtype.str}")


def _check_config(config: Json, known: Collection[str], member: str, refuse: Refuse) -> None:
    if not isinstance(config, dict) or not isinstance(config.get("id"), str):
        raise refuse(member, "is not described by an object with an id")
    if not config["id"] or config["id"] not in known:
        raise refuse(member, f"codec {config['id'][:80]!r} is not read here")
    plain = (str, int, float, type(None))
    if not all(isinstance(v, plain) and v not in {math.inf, -math.inf} for v in config.values()):
        raise refuse(member, f"settings of {config['id']} are not plain values")


def unpacked(raw: bytes, codec: str, filters: tuple[Mapping[str, Json], ...], size: int, of: Format) -> bytes:
    """Return the bytes of a chunk's values, or raise one of the errors of the codecs' libraries."""
    data = _DECODERS[codec](raw, size, of)
    if len(data) != size:
        raise ValueError(f"decodes to {len(data)} bytes, a chunk has {size}")
    for config in reversed(filters):
        data = _FILTERS[config["id"]](data, config)
    return data


def picture(
    raw: bytes, config: Mapping[str, Json], chunk: tuple[int, ...], dtype: np.dtype[Any], of: Format
) -> Array:
    """Decode a picture into memory of the chunk's size, which the decoders check before they allocate."""
    imagecodecs = need("imagecodecs", of=of)
    codec = config["id"]
    out = np.zeros([n for n in chunk if n > 1], dtype)
    if codec == "imagecodecs_jpeg2k":
        _check_jpeg2000(raw, out.shape)
    options = {}
    if codec == "imagecodecs_jpegxl":
        options = {"numthreads": 1, "keeporientation": config.get("keeporientation")}
    decoded: Array = getattr(imagecodecs, PICTURES[codec])(raw, out=out, **options)
    return decoded.reshape(chunk)


def streamed(decoder: Any, raw: bytes, size: int) -> bytes:
    """Decompress with one of the standard library's decoders, and stop one byte after what is allowed."""
    data: bytes = decoder.decompress(raw, size + 1)
    if len(data) != size or not decoder.eof or decoder.unused_data:
        raise ValueError(f"does not decompress to exactly the {size} bytes that are announced")
    return data


def _xz(raw: bytes, size: int, _of: Format) -> bytes:
    return streamed(lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=1 << 27), raw, size)


def _blosc(raw: bytes, size: int, of: Format) -> bytes:
    """Decode a Blosc 1 chunk, whose 16-byte header tells both sizes (c-blosc: README_CHUNK_FORMAT.rst)."""
    decoded, _, encoded = struct.unpack_from("<III", raw, 4)
    if (decoded, encoded) != (size, len(raw)):
        raise ValueError(f"Blosc header announces {encoded} bytes for {decoded}, not {len(raw)} for {size}")
    return _by_numcodecs("blosc", raw, of)


def _zstd(raw: bytes, size: int, of: Format) -> bytes:
    """Decode a Zstandard frame, whose header tells the content's size (RFC 8878, section 3.1.1.1)."""
    magic, descriptor = struct.unpack_from("<IB", raw)
    flag, single = descriptor >> 6, bool(descriptor & 0x20)
    width = (1 if single else 0, 2, 4, 8)[flag]
    at = 5 + (not single) + (0, 1, 2, 4)[descriptor & 3]
    if magic != 0xFD2FB528 or not width or len(raw) < at + width:
        raise ValueError("is no Zstandard frame that tells the size of its content")
    announced = int.from_bytes(raw[at : at + width], "little") + (256 if flag == 1 else 0)
    if announced != size:
        raise ValueError(f"Zstandard header announces {announced} bytes, a chunk has {size}")
    return _by_numcodecs("zstd", raw, of)


def _lz4(raw: bytes, size: int, of: Format) -> bytes:
    """Decode an LZ4 block behind its decoded size as int32 (numcodecs: lz4.pyx)."""
    (announced,) = struct.unpack_from("<i", raw)
    if announced != size:
        raise ValueError(f"LZ4 header announces {announced} bytes, a chunk has {size}")
    return _by_numcodecs("lz4", raw, of)


def _by_numcodecs(codec: str, raw: bytes, of: Format) -> bytes:
    return bytes(need("numcodecs", of=of).get_codec({"id": codec}).decode(raw))


def _unshuffled(data: bytes, config: Mapping[str, Json]) -> bytes:
    size = config.get("elementsize", 4)
    return np.frombuffer(data, np.uint8).reshape(size, -1).T.tobytes()


def _summed(data: bytes, config: Mapping[str, Json]) -> bytes:
    dtype = np.dtype(config["dtype"])
    with np.errstate(over="ignore", invalid="ignore"):
        return np.cumsum(np.frombuffer(data, dtype), dtype=dtype).astype(dtype, copy=False).tobytes()


def _check_jpeg2000(raw: bytes, shape: tuple[int, ...]) -> None:
    """Refuse a JPEG 2000 picture of another size before OpenJPEG allocates it.

    The size stands in the SIZ segment right after the start of the codestream (ITU-T T.800, A.5.1), which is
    the whole file or the box ``jp2c`` (I.4).
    """
    at = 0
    while raw[at : at + 4] != b"\xff\x4f\xff\x51":
        length, kind = struct.unpack_from(">I4s", raw, at)
        if kind == b"jp2c" and raw[at + 8 : at + 12] == b"\xff\x4f\xff\x51":
            at += 8
            break
        if length < 8:
            raise ValueError("holds no JPEG 2000 codestream")
        at += length
    x, y, x0, y0 = struct.unpack_from(">4I", raw, at + 8)
    (components,) = struct.unpack_from(">H", raw, at + 40)
    if (y - y0, x - x0, components) != (*shape, 1)[:3]:
        raise ValueError(f"JPEG 2000 picture is {y - y0} x {x - x0} x {components}, a chunk has {shape}")


_DECODERS: dict[str, Callable[[bytes, int, Format], bytes]] = {
    "": lambda raw, _size, _of: raw,
    "zlib": lambda raw, size, _of: streamed(zlib.decompressobj(), raw, size),
    "gzip": lambda raw, size, _of: streamed(zlib.decompressobj(16 + zlib.MAX_WBITS), raw, size),
    "bz2": lambda raw, size, _of: streamed(bz2.BZ2Decompressor(), raw, size),
    "lzma": _xz,
    "blosc": _blosc,
    "zstd": _zstd,
    "lz4": _lz4,
}
PICTURES = {
    "imagecodecs_jpegxl": "jpegxl_decode",
    "imagecodecs_jpeg2k": "jpeg2k_decode",
    "imagecodecs_png": "png_decode",
}
_FILTERS: dict[str, Callable[[bytes, Mapping[str, Json]], bytes]] = {"shuffle": _unshuffled, "delta": _summed}
