"""Checks of cameras: pictures that stand still while the robot moves, and pictures that are black."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import numpy as np

from ..schemas import Array, Event, Stream, Times
from ._runs import Rows, Runs, anomaly, seconds

_APART_NS = 500_000_000
"""Pictures are looked at no more often than this: two a second."""
_TOO_FAR_NS = 2_000_000_000
"""Key pictures that are farther apart than this are not enough."""
_TILES = 24
"""Pictures are told apart by the means of so many tiles along their shorter side: sensor noise averages out,
a moving gripper does not."""
_SAME = 0.5
"""Grey levels of 255 within which every tile has to stay. A repeated picture that was encoded again differs
less, a robot that moves in view changes some tile by tens."""
_BLACK = 10.0
"""Grey levels of 255 below which every tile of a black picture is; the noise of a covered sensor is around
2."""
_FROZEN_NS = 1_000_000_000
"""For how long a picture has to stand still."""
_LUMA = np.array([0.299, 0.587, 0.114])
"""Weights of red, green and blue (ITU-R BT.601-7, section 2.5.1)."""


def cameras(stream: Stream, times: Times, moves: Callable[[int, int], bool] | None) -> Iterator[Event]:
    """Yield ``frozen`` and ``black`` for a camera.

    No more than two pictures a second are looked at; where there are packets, those that can be decoded by
    themselves. That a picture stands still is odd only while the robot moves.

    Parameters
    ----------
    times
        Of the camera's clock.
    moves
        Tells whether the robot moved in a range of time ``[start_ns, stop_ns)``; None: nothing tells that.
    """
    wanted = _wanted(stream, times)
    black, frozen = Runs(), Runs()
    shown = []
    before: Rows | None = None
    for number, (index, frame) in enumerate(_frames(stream, wanted)):
        tiles = _tiles(frame)
        shown.append(int(times[index]))
        black.add(number, np.array([tiles.max() < _BLACK]), np.array([1.0]))
        if before is not None and moves is not None:
            same = float(np.abs(tiles - before).max()) < _SAME and tiles.max() >= _BLACK
            frozen.add(number - 1, np.array([same and moves(shown[-2], shown[-1])]), np.array([1.0]))
        before = tiles
    yield from _black(stream, shown, black, int(times[-1]))
    yield from _frozen(stream, shown, frozen)


def _black(stream: Stream, shown: Sequence[int], runs: Runs, end: int) -> Iterator[Event]:
    for run in runs:
        start, stop = shown[run.start], shown[run.stop] if run.stop < len(shown) else end
        text = (
            f"{stream.spec.name} is black from {seconds(start)} to {seconds(stop)} (below {_BLACK:g} of 255)"
        )
        yield anomaly(
            "black", start, stop, text, stream=stream.spec.name, value=(stop - start) / 1e9, unit="s"
        )


def _frozen(stream: Stream, shown: Sequence[int], runs: Runs) -> Iterator[Event]:
    for run in runs:
        start, stop = shown[run.start], shown[run.stop]
        if stop - start >= _FROZEN_NS:
            text = (
                f"{stream.spec.name} shows one picture from {seconds(start)} to {seconds(stop)} "
                f"while the robot moves (no tile changes by {_SAME:g} of 255)"
            )
            length = (stop - start) / 1e9
            yield anomaly("frozen", start, stop, text, stream=stream.spec.name, value=length, unit="s")


def _wanted(stream: Stream, times: Times) -> list[int]:
    """Return the frames to look at, in order."""
    keys: list[int] = []
    if stream.packets is not None:
        keys = sorted({p.pts for p in stream.packets.read() if p.key and 0 <= p.pts < stream.length})
    stamps = times[keys] if keys else np.zeros(0, np.int64)
    near = bool(keys) and int(np.diff([times[0], *stamps, times[-1]]).max()) <= _TOO_FAR_NS
    found: list[int] = []
    for index in keys if near else range(stream.length):
        if not found or times[index] - times[found[-1]] >= _APART_NS:
            found.append(index)
    return found


def _frames(stream: Stream, wanted: Sequence[int]) -> Iterator[tuple[int, Array]]:
    """Yield the frames that are wanted. Where they lie close it is cheaper to read all between them."""
    steps = [b - a for a, b in pairwise(wanted)]
    if stream.packets is not None or (steps and max(steps) > 1):
        for index in wanted:
            for block in stream.read(index, index + 1):
                if len(block):
                    yield index, block[0]
        return
    at, done = 0, 0
    for block in stream:
        while done < len(wanted) and wanted[done] < at + len(block):
            yield wanted[done], block[wanted[done] - at]
            done += 1
        at += len(block)


def _tiles(frame: Array) -> Rows:
    """Return the mean grey level of each tile of a picture (H, W, 3) or (H, W, 1), uint8."""
    height, width = frame.shape[:2]
    side = max(1, min(height, width) // _TILES)
    whole = frame[: height // side * side, : width // side * side]
    means = whole.reshape(height // side, side, width // side, side, -1).mean(axis=(1, 3), dtype=np.float64)
    grey: Rows = means @ _LUMA if means.shape[-1] == 3 else means[..., 0]
    return grey
