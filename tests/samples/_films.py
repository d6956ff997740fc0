"""Pictures that move smoothly, and the MP4 files and PNGs that recorders make of them."""

import struct
import zlib
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

Film = NDArray[np.uint8]


def film(random: np.random.Generator, length: int, height: int = 48, width: int = 64) -> Film:
    """Make a smooth coloured picture that drifts, more blue than red: (T, H, W, 3)."""
    t, y, x = np.meshgrid(np.arange(length), np.arange(height), np.arange(width), indexing="ij")
    waves = [np.sin((x * a + y * b + t) / 17) for a, b in random.uniform(0.2, 1, (3, 2))]
    return np.stack([40 + 30 * waves[0], 120 + 30 * waves[1], 200 + 30 * waves[2]], axis=-1).astype(np.uint8)


def write_mp4(path: Path, pictures: Film, rate: int = 30, codec: str = "libx264") -> None:
    """Write an MP4 file, by default of H.264."""
    options = {"crf": "12"} if codec == "libx264" else {"qscale": "2"}
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = pictures.shape[1:3]
        stream.pix_fmt, stream.thread_count = "yuv420p", 1
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def png(values: NDArray[Any], *, claims: tuple[int, int] | None = None) -> bytes:
    """Write grey values of 8 or 16 bits, or colours of 8, as a PNG, from the specification alone.

    Parameters
    ----------
    claims
        Height and width that the header is to tell; None: the truth.
    """
    height, width = claims or values.shape[:2]
    big = np.ascontiguousarray(values, values.dtype.newbyteorder(">"))
    rows = big.reshape(len(values), -1).view(np.uint8)
    filtered = np.pad(rows, ((0, 0), (1, 0))).tobytes()
    colour = 2 if values.ndim == len("HWC") else 0
    header = struct.pack(">IIBBBBB", width, height, values.dtype.itemsize * 8, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(filtered)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
