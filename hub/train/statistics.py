"""What normalisation needs of a stream: extremes, mean, deviation and quantiles, merged from its parts.

Moments are merged part by part without cancellation (Chan, Golub, LeVeque: "Updating formulae and a pairwise
algorithm for computing sample variances", 1979). Quantiles are exact, and need no sample in memory: a float's
bits, seen as an integer that rises with it, are counted by their leading bits, and then, within the one
bucket that holds the quantile, by the next. Counts merge by adding them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...schemas import Array
from .wants import WindowError

QUANTILES = (0.01, 0.1, 0.5, 0.9, 0.99)
_BITS = 16

Blocks = Callable[[], Iterator[Array]]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """Of each axis of a stream, over all samples that are finite.

    Attributes
    ----------
    count
        Finite samples of each axis.
    not_finite
        Samples that are not a number or infinite, which nothing else counts.
    quantiles
        By share: the smallest value that at least this share of the samples does not exceed.
    """

    count: NDArray[np.int64]
    not_finite: NDArray[np.int64]
    min: Floats
    max: Floats
    mean: Floats
    std: Floats
    quantiles: Mapping[float, Floats]

    def to_document(self) -> dict[str, Any]:
        """Return it as JSON."""
        plain = {n: getattr(self, n).tolist() for n in ("count", "not_finite", "min", "max", "mean", "std")}
        return {**plain, "quantiles": {str(share): v.tolist() for share, v in self.quantiles.items()}}


@dataclass(slots=True)
class _Moments:
    """Of all axes, so far: counts, means, and sums of squared distances from the mean: (axes,)."""

    count: NDArray[np.int64]
    bad: NDArray[np.int64]
    mean: Floats
    squares: Floats
    low: Floats
    high: Floats

    @classmethod
    def none(cls, axes: int) -> _Moments:
        """Return those of no sample."""
        whole, real = np.zeros(axes, np.int64), np.zeros(axes)
        return cls(whole, whole.copy(), real, real.copy(), np.full(axes, np.inf), np.full(axes, -np.inf))

    def take(self, values: Floats) -> None:
        """Add a block (n, axes)."""
        good = np.isfinite(values)
        count = good.sum(axis=0)
        self.bad += len(values) - count
        safe = np.where(good, values, 0.0)
        mean = safe.sum(axis=0) / np.maximum(1, count)
        squares = (np.where(good, values - mean, 0.0) ** 2).sum(axis=0)
        both = self.count + count
        away, share = mean - self.mean, count / np.maximum(1, both)
        self.squares += squares + away**2 * self.count * share
        self.mean += away * share
        self.count = both
        self.low = np.minimum(self.low, np.where(good, values, np.inf).min(axis=0, initial=np.inf))
        self.high = np.maximum(self.high, np.where(good, values, -np.inf).max(axis=0, initial=-np.inf))


def statistics_of(blocks: Blocks, axes: int, *, shares: Sequence[float] = QUANTILES) -> Statistics:
    """Return the statistics of what ``blocks`` gives.

    Parameters
    ----------
    blocks
        Gives all samples, (n, *shape) at a time, as often as it is called: once for the sums, and up to four
        times for the quantiles. Memory is a block and a count of 65,536 numbers for each axis and quantile.
    axes
        Entries of a sample.

    Raises
    ------
    WindowError
        If there is no sample at all.
    """
    moments, wide = _Moments.none(axes), False
    for block in blocks():
        wide = wide or not np.can_cast(block.dtype, np.float32)
        moments.take(block.reshape(len(block), -1).astype(np.float64))
    if not moments.count.any():
        raise WindowError("there are no finite samples to make statistics of")
    empty = moments.count == 0
    return Statistics(
        count=moments.count,
        not_finite=moments.bad,
        min=np.where(empty, np.nan, moments.low),
        max=np.where(empty, np.nan, moments.high),
        mean=np.where(empty, np.nan, moments.mean),
        std=np.where(empty, np.nan, np.sqrt(moments.squares / np.maximum(1, moments.count))),
        quantiles=_quantiles(blocks, moments.count.tolist(), shares, wide=wide),
    )


def _quantiles(
    blocks: Blocks, counts: Sequence[int], shares: Sequence[float], *, wide: bool
) -> dict[float, Floats]:
    """Find each quantile by its bits, the leading ones first: two passes for float32, four for float64."""
    kind = np.dtype(np.float64 if wide else np.float32)
    bits = kind.itemsize * 8
    ranks = np.array([[max(1, -(-count * share // 1)) for share in shares] for count in counts], np.int64)
    known = np.zeros(ranks.shape, np.uint64)
    for shift in range(bits - _BITS, -1, -_BITS):
        tables = np.zeros((*ranks.shape, 1 << _BITS), np.int64)
        for block in blocks():
            flat = block.reshape(len(block), -1)
            for axis in range(len(counts)):
                _count(tables[axis], _rising(flat[:, axis], kind), known[axis], shift)
        ends = np.cumsum(tables, axis=2)
        bucket = (ends < ranks[..., None]).sum(axis=2)
        before = np.take_along_axis(ends, np.maximum(bucket - 1, 0)[..., None], axis=2)[..., 0]
        ranks = ranks - np.where(bucket > 0, before, 0)
        known = (known << np.uint64(_BITS)) | bucket.astype(np.uint64)
    values = _falling(known, kind)
    values[np.array(counts) == 0] = np.nan
    return {share: values[:, at] for at, share in enumerate(shares)}


def _count(
    tables: NDArray[np.int64], keys: NDArray[np.uint64], known: NDArray[np.uint64], shift: int
) -> None:
    """Count the next bits of the keys that begin as each quantile does so far."""
    lead, next_bits = keys >> np.uint64(shift), (keys >> np.uint64(shift)) & np.uint64((1 << _BITS) - 1)
    for prefix in np.unique(known):
        same = next_bits[(lead >> np.uint64(_BITS)) == prefix]
        counted = np.bincount(same.astype(np.int64), minlength=1 << _BITS)
        tables[known == prefix] += counted


def _rising(values: Array, kind: np.dtype[Any]) -> NDArray[np.uint64]:
    """Return integers that rise with the finite values: with the sign turned, and negative ones inverted."""
    plain = np.ascontiguousarray(values[np.isfinite(values)], kind) + kind.type(0)  # -0 becomes 0
    unsigned = plain.view(np.uint32 if kind.itemsize == 4 else np.uint64).astype(np.uint64)
    top = np.uint64(1) << np.uint64(kind.itemsize * 8 - 1)
    every = (top - np.uint64(1)) | top
    keys: NDArray[np.uint64] = np.where(unsigned & top, unsigned ^ every, unsigned | top)
    return keys


def _falling(keys: NDArray[np.uint64], kind: np.dtype[Any]) -> Floats:
    """Return the values that integers of `_rising` stand for."""
    top = np.uint64(1) << np.uint64(kind.itemsize * 8 - 1)
    every = (top - np.uint64(1)) | top
    unsigned = np.where(keys & top, keys ^ top, keys ^ every)
    plain = unsigned.astype(np.uint32 if kind.itemsize == 4 else np.uint64).view(kind)
    return plain.astype(np.float64)
