"""Statistics as LeRobot keeps them: for each feature, of each episode and of the whole dataset.

After github.com/huggingface/lerobot: src/lerobot/datasets/compute_stats.py. Numbers are exact here. Of
cameras as many frames are taken as LeRobot takes, and of large ones every n-th pixel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ...schemas import Array
from ..train.statistics import QUANTILES, statistics_of
from ..train.wants import WindowError

Figures = dict[str, Array]
Blocks = Callable[[], Iterator[Array]]

_NAMES = {0.01: "q01", 0.1: "q10", 0.5: "q50", 0.9: "q90", 0.99: "q99"}
_LEAST_FRAMES, _MOST_FRAMES, _POWER = 100, 10_000, 0.75  # estimate_num_samples
_LARGE, _SMALL = 300, 150  # auto_downsample_height_width
_GROUP_BYTES = 64 << 20
_AXES_AT_ONCE = 32
_AT_ONCE = 32


def of_episode(blocks: Blocks, length: int, shape: tuple[int, ...]) -> Figures:
    """Return the figures of a column of an episode, each (*shape); ``count`` is (1,).

    What is not finite does not count; an axis with nothing else has zeros.
    """
    axes = math.prod(shape)
    group = max(1, _GROUP_BYTES // (8 * max(1, length)))
    parts = [_of_axes(blocks, first, min(axes, first + group)) for first in range(0, axes, group)]
    whole = {name: np.concatenate([part[name] for part in parts]).reshape(shape) for name in parts[0]}
    return {**whole, "count": np.array([length], np.int64)}


def _of_axes(blocks: Blocks, first: int, last: int) -> Figures:
    values = np.concatenate([block.reshape(len(block), -1)[:, first:last] for block in blocks()])
    values = values.astype(np.float64)
    bad = ~np.isfinite(values)
    if bad.any():
        return _of_ragged(values, bad)
    return _figures(values)


def _figures(values: NDArray[np.float64]) -> Figures:
    low, high = values.min(axis=0), values.max(axis=0)
    told = {
        "min": low,
        "max": high,
        "mean": np.clip(values.mean(axis=0), low, high),
        "std": values.std(axis=0),
    }
    quantiles = np.quantile(values, QUANTILES, axis=0, method="inverted_cdf")
    return {**told, **{_NAMES[share]: row for share, row in zip(QUANTILES, quantiles, strict=True)}}


def _of_ragged(values: NDArray[np.float64], bad: NDArray[np.bool_]) -> Figures:
    axes = [
        _figures(values[~bad[:, axis], axis][:, None] if not bad[:, axis].all() else np.zeros((1, 1)))
        for axis in range(values.shape[1])
    ]
    return {name: np.concatenate([one[name] for one in axes]) for name in axes[0]}


def of_dataset(blocks: Blocks, length: int, shape: tuple[int, ...]) -> Figures:
    """Return the figures of a column of all episodes, as `of_episode` does, whatever their number."""
    axes = math.prod(shape)
    parts = []
    for first in range(0, axes, _AXES_AT_ONCE):
        last = min(axes, first + _AXES_AT_ONCE)
        parts.append(_merged(partial(_cut, blocks, first, last), last - first))
    whole = {name: np.concatenate([part[name] for part in parts]).reshape(shape) for name in parts[0]}
    return {**whole, "count": np.array([length], np.int64)}


def _cut(blocks: Blocks, first: int, last: int) -> Iterator[Array]:
    for block in blocks():
        yield block.reshape(len(block), -1)[:, first:last]


def _merged(blocks: Blocks, axes: int) -> Figures:
    try:
        found = statistics_of(blocks, axes)
    except WindowError:  # nothing is finite
        return _figures(np.zeros((1, axes)))
    told = {"min": found.min, "max": found.max, "mean": found.mean, "std": found.std}
    told |= {_NAMES[share]: values for share, values in found.quantiles.items()}
    return {name: np.nan_to_num(values, nan=0.0) for name, values in told.items()}


# --- cameras ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tones:
    """How often each value occurs in each channel of a camera: (3, 256); and the number of frames."""

    counts: NDArray[np.int64]
    frames: int

    def __add__(self, other: Tones) -> Tones:
        return Tones(self.counts + other.counts, self.frames + other.frames)

    def figures(self) -> Figures:
        """Return the figures of pixels from 0 to 1, each (3, 1, 1); ``count`` is the number of frames."""
        values, total = np.arange(256) / 255, self.counts.sum(axis=1)
        mean = self.counts @ values / total
        square = self.counts @ values**2 / total
        reached = np.cumsum(self.counts, axis=1)
        told = {
            "min": values[(self.counts > 0).argmax(axis=1)],
            "max": values[255 - (self.counts[:, ::-1] > 0).argmax(axis=1)],
            "mean": mean,
            "std": np.sqrt(np.maximum(0.0, square - mean**2)),
        }
        for share in QUANTILES:
            wanted = np.maximum(1, np.ceil(total * share))
            told[_NAMES[share]] = values[(reached < wanted[:, None]).sum(axis=1)]
        shaped = {name: figure.reshape(3, 1, 1) for name, figure in told.items()}
        return {**shaped, "count": np.array([self.frames], np.int64)}


def sampled(length: int) -> NDArray[np.int64]:
    """Return the numbers of the frames that LeRobot would look at."""
    most = max(min(length, _LEAST_FRAMES), min(int(length**_POWER), _MOST_FRAMES))
    return np.round(np.linspace(0, length - 1, most)).astype(np.int64)


def tones_of(read: Callable[[NDArray[np.int64]], Array], length: int) -> Tones:
    """Return the tones of an episode of a camera.

    Parameters
    ----------
    read
        Returns the frames (n, H, W, C) uint8 of these numbers.
    """
    counts = np.zeros((3, 256), np.int64)
    numbers = sampled(length)
    for at in range(0, len(numbers), _AT_ONCE):
        frames = _smaller(read(numbers[at : at + _AT_ONCE]))
        for channel in range(3):
            values = frames[..., channel % frames.shape[3]]
            counts[channel] += np.bincount(values.reshape(-1), minlength=256)
    return Tones(counts, len(numbers))


def _smaller(frames: Array) -> Array:
    height, width = frames.shape[1:3]
    if max(height, width) < _LARGE:
        return frames
    step = max(1, (max(height, width)) // _SMALL)
    return frames[:, ::step, ::step]


def plain(figures: Mapping[str, Array]) -> dict[str, list[object]]:
    """Return figures as JSON."""
    return {name: values.tolist() for name, values in figures.items()}
