"""JPEG pictures: whichever decoder goes first, the pixels and the refusals are Pillow's."""

from __future__ import annotations

import io
from itertools import product
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from teleopen.converters import _jpeg
from teleopen.converters._jpeg import Picture, decoded, picture_of

Pixels = NDArray[np.uint8]
ORDERS: tuple[Literal["opencv", "standard"], ...] = ("opencv", "standard")


def picture(height: int, width: int, channels: int) -> Pixels:
    y, x = np.mgrid[:height, :width]
    waves = [128 + 70 * np.sin(x / 7 + i) + 30 * np.cos(y * (i + 1) / 5) for i in range(channels)]
    noise = np.random.default_rng(height * width).normal(0, 9, (height, width, channels))
    return np.clip(np.stack(waves, axis=-1) + noise, 0, 255).astype(np.uint8)


def encoded(pixels: Pixels, **options: Any) -> bytes:
    out = io.BytesIO()
    shown = pixels[..., 0] if pixels.shape[2] == 1 else pixels
    Image.fromarray(shown).save(out, "JPEG", **options)
    return out.getvalue()


def of_pillow(data: bytes) -> Pixels:
    with Image.open(io.BytesIO(data)) as image:
        found = np.asarray(image)
    return found.reshape(*found.shape[:2], -1)


SIZES = [(1, 1), (17, 33), (63, 65), (120, 160)]
WAYS = [
    {"subsampling": sampling, "progressive": progressive, "quality": quality}
    for sampling, progressive, quality in product((0, 1, 2), (False, True), (35, 75, 95))
] + [{"keep_rgb": True}, {"optimize": True}, {"restart_marker_blocks": 3}]


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_pixels_are_those_of_pillow(size: tuple[int, int], way: dict[str, Any]) -> None:
    pytest.importorskip("simplejpeg")
    for channels, order in product((1, 3), ORDERS):
        data = encoded(picture(*size, channels), **way)
        truth = of_pillow(data)
        wanted = truth[..., ::-1] if order == "opencv" else truth
        out = np.empty_like(truth)
        assert _jpeg._decode_fast(data, out, order), "the fast decoder takes any sound picture"
        np.testing.assert_array_equal(out, wanted)
        np.testing.assert_array_equal(decoded(data, picture_of(data), order), wanted)


def test_pixels_go_where_they_are_wanted() -> None:
    block = np.zeros((3, 40, 56, 3), np.uint8)
    data = encoded(picture(40, 56, 3))
    decoded(data, picture_of(data), "standard", out=block[1])
    np.testing.assert_array_equal(block[1], of_pillow(data))
    assert not block[0].any()
    assert not block[2].any()


def test_a_decoder_that_sees_a_larger_picture_writes_nothing_behind_its_own() -> None:
    block = np.zeros((3, 40, 56, 3), np.uint8)
    assert not _jpeg._decode_fast(encoded(picture(41, 56, 3)), block[1], "standard")
    assert not _jpeg._decode_fast(encoded(picture(40, 55, 3)), block[1], "standard")
    assert not block[0].any()
    assert not block[2].any()


SOUND = encoded(picture(40, 56, 3), quality=60)


@settings(max_examples=150, deadline=None)
@given(
    changes=st.lists(st.tuples(st.integers(2, len(SOUND) - 3), st.integers(0, 255)), max_size=3),
    order=st.sampled_from(ORDERS),
)
def test_damaged_pictures_are_as_pillow_finds_them(
    changes: list[tuple[int, int]], order: Literal["opencv", "standard"]
) -> None:
    damaged = bytearray(SOUND)
    for at, byte in changes:
        damaged[at] = byte
    want = Picture(40, 56, 3)
    try:
        if picture_of(bytes(damaged)) != want:
            return
    except ValueError:
        return
    alone = np.empty((40, 56, 3), np.uint8)
    try:
        _jpeg._decode(bytes(damaged), alone, order)
    except ValueError:
        return  # Pillow also refuses for what is in segments that no pixel depends on
    np.testing.assert_array_equal(decoded(bytes(damaged), want, order), alone)
