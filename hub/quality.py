"""How close decoded frames are to what was encoded, in integers where it matters: the same on any machine."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]

EQUAL_DB = 100.0
"""Stands for the PSNR of equal frames, which is infinite: JSON has no word for that, nor means a use."""

_BLOCK = 8
_GREY = (77, 150, 29)  # of 256: the luma weights of BT.601


@dataclass(frozen=True, slots=True)
class Quality:
    """How close decoded frames are to those that were encoded.

    Attributes
    ----------
    psnr_db
        PSNR of the mean squared error over all measured frames and channels; at most `EQUAL_DB`.
    min_psnr_db
        PSNR of the worst of the frames.
    ssim
        Structural similarity of the middle one of the frames; see `ssim`.
    frames
        How many were measured.
    """

    psnr_db: float
    min_psnr_db: float
    ssim: float
    frames: int


def measure(truth: Pixels, decoded: Pixels) -> Quality:
    """Compare frames with their decoded form, each (n, H, W, C) uint8."""
    errors = squared_errors(truth, decoded)
    middle = len(truth) // 2  # one frame tells: similarity costs five times what the error does
    return Quality(
        psnr_db=psnr(sum(errors) / len(errors)),
        min_psnr_db=psnr(max(errors)),
        ssim=ssim(truth[middle], decoded[middle]),
        frames=len(errors),
    )


def psnr(squared_error: float) -> float:
    """Return the PSNR in dB that belongs to a mean squared error of 8-bit samples."""
    if squared_error <= 0:
        return EQUAL_DB
    return min(EQUAL_DB, 10 * math.log10(255**2 / squared_error))


def squared_errors(truth: Pixels, decoded: Pixels) -> list[float]:
    """Return the mean squared error of each frame."""
    errors = []
    for one, other in zip(truth, decoded, strict=True):
        apart = np.maximum(one, other) - np.minimum(one, other)
        errors.append(int(np.square(apart, dtype=np.uint16).sum(dtype=np.uint64)) / apart.size)
    return errors


def ssim(one: Pixels, other: Pixels) -> float:
    """Return the mean structural similarity of two frames (H, W, C).

    The index of Wang et al. (2004) with K1 = 0.01, K2 = 0.03 and population variances, over the blocks of
    8 × 8 grey pixels that do not overlap; what is left over at the right and at the bottom does not count,
    unless the frame is smaller than a block.
    """
    x, y = _grey(one), _grey(other)
    n = _BLOCK**2 if min(x.shape) >= _BLOCK else x.size
    sums = (_block_sums(a) for a in (x, y, x * x, y * y, x * y))
    mean_x, mean_y, square_x, square_y, product = (a / n for a in sums)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    variances = square_x - mean_x**2 + square_y - mean_y**2
    covariance = product - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return float(np.mean(luminance * (2 * covariance + c2) / (variances + c2)))


def _grey(frame: Pixels) -> NDArray[np.int32]:
    """Return luma as integers: (H, W)."""
    if frame.shape[2] == 1:
        return frame[..., 0].astype(np.int32)
    luma = frame[..., 0] * np.uint16(_GREY[0])
    luma += frame[..., 1] * np.uint16(_GREY[1])
    luma += frame[..., 2] * np.uint16(_GREY[2])
    return (luma >> 8).astype(np.int32)


def _block_sums(values: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return the sum of each block, or of all values where there is less than one."""
    height, width = (side // _BLOCK for side in values.shape)
    if not height or not width:
        return np.array([[values.sum()]], np.int32)
    whole = values[: height * _BLOCK, : width * _BLOCK]
    rows = whole.reshape(height, _BLOCK, -1).sum(1, dtype=np.int32)
    sums: NDArray[np.int32] = rows.reshape(height, width, _BLOCK).sum(2, dtype=np.int32)
    return sums
