"""PNG pictures of strangers: what is read, and what is refused before it is decoded."""

import io
import struct
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from teleopen.converters._png import ANY, PngPicture, decoded_png, is_png, png_of


def encoded(pixels: NDArray[Any]) -> bytes:
    held = io.BytesIO()
    Image.fromarray(pixels).save(held, "PNG")
    return held.getvalue()


def claiming(width: int, height: int, bits: int = 16, colour: int = 0) -> bytes:
    """Return a PNG's first bytes with a header that says what it likes."""
    return (
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBB", 13, b"IHDR", width, height, bits, colour) + bytes(40)
    )


@pytest.mark.parametrize(
    ("shape", "dtype", "want"),
    [
        ((4, 6), np.uint16, PngPicture(4, 6, 1, 16)),
        ((4, 6), np.uint8, PngPicture(4, 6, 1, 8)),
        ((4, 6, 3), np.uint8, PngPicture(4, 6, 3, 8)),
    ],
)
def test_pixels_come_back(shape: tuple[int, ...], dtype: Any, want: PngPicture) -> None:
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape).astype(dtype)
    data = encoded(pixels)
    assert is_png(data)
    assert png_of(data) == want
    found = decoded_png(data, want)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found.reshape(shape), pixels)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xd8\xff\xe0 a JPEG",
        claiming(1 << 20, 1 << 20),
        claiming(8_000, 8_000),
        claiming(0, 5),
        claiming(4, 4, colour=3, bits=8),
        claiming(4, 4, colour=6, bits=8),
        claiming(4, 4, bits=1),
    ],
)
def test_what_must_not_be_decoded_is_refused_by_its_header(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"PNG|claim"):
        png_of(data)


@pytest.mark.parametrize(("mode", "channels"), [("1", 1), ("P", 3), ("LA", 2), ("RGBA", 4)])
def test_uncommon_forms_are_read_where_they_are_asked_for(mode: str, channels: int) -> None:
    colours = Image.fromarray(np.random.default_rng(0).integers(0, 255, (4, 6, 4), np.uint8))
    picture = colours.convert("RGB").convert("P") if mode == "P" else colours.convert(mode)
    held = io.BytesIO()
    picture.save(held, "PNG")
    data = held.getvalue()
    with pytest.raises(ValueError, match="is not read"):
        png_of(data)
    found = decoded_png(data, png_of(data, ANY), ANY)
    plain = picture.convert({"1": "L", "P": "RGB"}.get(mode, mode))
    np.testing.assert_array_equal(found, np.asarray(plain).reshape(4, 6, channels))


def test_colours_of_16_bits_are_never_cut_to_8() -> None:
    with pytest.raises(ValueError, match="16 bits and colour type 2"):
        png_of(claiming(4, 4, bits=16, colour=2), ANY)


def test_another_size_and_damage_are_refused() -> None:
    data = encoded(np.zeros((4, 6), np.uint16))
    with pytest.raises(ValueError, match="the first of this camera"):
        decoded_png(data, PngPicture(6, 4, 1, 16))
    damaged = data[:40] + bytes(8) + data[48:]
    with pytest.raises(ValueError, match="cannot be decoded"):
        decoded_png(damaged, png_of(data))
