"""Which samples stand for which times, and what lies between them. Pure functions on arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...schemas import Times
from .wants import Align

Floats = NDArray[np.float64]
_BEYOND = 1.5
"""Median steps behind a stream's last sample for which it still stands: one, and half of one for jitter."""


def chosen(
    times: Times, wanted: Times, align: Align, tolerance_ns: int | None
) -> tuple[NDArray[np.int64], NDArray[np.bool_], Floats]:
    """Return which samples stand for the wanted times.

    Parameters
    ----------
    times
        (n,) of the stream, rising, n at least 1.
    wanted
        (k,) on the same axis.
    tolerance_ns
        Farthest that a sample may be from its time; see `Want.tolerance_s`.

    Returns
    -------
    index
        (k,) of the sample; for ``linear`` and ``slerp`` of the one before.
    pad
        (k,) whether there is none, so that the nearest end stands in.
    part
        (k,) how far towards the next sample, 0 to below 1; 0 unless interpolated.
    """
    n = len(times)
    before = np.searchsorted(times, wanted, side="right") - 1
    part = np.zeros(len(wanted))
    if align == "previous":
        index = before
    else:
        low, high = np.clip(before, 0, n - 1), np.clip(before + 1, 0, n - 1)
        gap = np.maximum(1, times[high] - times[low])
        part = np.clip((wanted - times[low]) / gap, 0.0, 1.0)
        if align == "nearest":
            index, part = np.where(part > 0.5, high, low), np.zeros(len(wanted))
        else:
            index = low
            whole = part >= 1.0
            index, part = np.where(whole, high, index), np.where(whole, 0.0, part)
    index = np.clip(index, 0, n - 1)
    if tolerance_ns is None:
        step = float(np.median(np.diff(times))) if n > 1 else 0.0
        late = wanted > times[-1] + _BEYOND * step if n > 1 else wanted > times[-1]
        pad = (wanted < times[0]) | late
    else:
        distance = np.abs(wanted - times[index])
        if align in {"linear", "slerp"}:
            after = np.clip(index + (part > 0), 0, n - 1)
            distance = np.minimum(distance, np.abs(times[after] - wanted))
        pad = distance > tolerance_ns
        if align == "previous":
            pad |= wanted < times[0]
    return index, pad, part


def between(left: Floats, right: Floats, part: Floats, *, spherical: bool) -> Floats:
    """Return what lies between neighbouring samples: (k, ...).

    Parameters
    ----------
    part
        (k,) how far from left to right.
    spherical
        The last axis is a unit quaternion: along the shorter great circle (Shoemake, "Animating rotation
        with quaternion curves", 1985). Otherwise along the line.
    """
    share = part.reshape(-1, *([1] * (left.ndim - 1)))
    if not spherical:
        return left + (right - left) * share
    cosine = np.sum(left * right, axis=-1, keepdims=True)
    right = np.where(cosine < 0, -right, right)  # q and -q are one rotation
    angle = np.arccos(np.clip(np.abs(cosine), 0.0, 1.0))
    sine = np.sin(angle)
    near = sine < 1e-9
    safe = np.where(near, 1.0, sine)
    mixed = np.where(
        near,
        left + (right - left) * share,
        (np.sin((1 - share) * angle) * left + np.sin(share * angle) * right) / safe,
    )
    found: Floats = mixed / np.linalg.norm(mixed, axis=-1, keepdims=True)
    return found
