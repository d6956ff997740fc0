"""Jumps: steps that no motion makes, far beyond the axis' usual step and beyond the steps around."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..schemas import Event, StreamSpec, Times
from ._runs import MOST_EVENTS, Chunk, Rows, anomaly, name_of, size_of, told, unit_of

_FEWEST = 20  # samples that "usual" can be told from
_KEPT = 65_536  # steps per axis that the usual one is told from
_CANDIDATES = 1_000  # steps per axis that wait for the end, the largest
_NEAR = 5  # steps on either side that one is compared with
_SIGMA = 1.4826
"""Standard deviation of a normal distribution whose median absolute deviation is 1 (Rousseeuw and Croux,
Alternatives to the Median Absolute Deviation, 1993, section 1)."""
_USUAL = 10.0
"""Robust standard deviations of an axis' steps that a jump exceeds. Smooth motion stays below 4 of them."""
_AROUND = 8.0
"""Times the median step around it that a jump exceeds: motion that merely begins fast does not."""
_WAY = 0.02
"""Part of the way that the axis goes in the episode, or that the axis of the same unit goes farthest, if that
is more: a joint that hardly moves jitters, it does not jump."""
_FEW_VALUES = 8
"""An axis with no more different values than this is a switch, and a switch jumps."""
_ANGLES = {"roll", "pitch", "yaw", "rx", "ry", "rz"}
_QUATERNION = {"qx", "qy", "qz", "qw"}
_POSITIONS = {"joint_position", "ee_position", "ee_orientation", "ee_pose"}


class Jumps:
    """Looks for jumps of one stream.

    A step is one if it exceeds all of: 10 robust standard deviations (the median absolute step that is not
    zero, times 1.4826), 8 times the median of the 10 steps around it, and 2 % of the way of the axis that
    goes farthest in the episode, among those of the same unit. Axes on which a jump is nothing odd are left
    out: switches, grippers, and commands that are velocities or differences. Angles of an orientation that
    wrap and quaternions that turn their sign do not jump.
    """

    neighbours = _NEAR + 1
    """Samples on either side that a chunk has to come with."""

    def __init__(self, spec: StreamSpec) -> None:
        self._spec = spec
        self._axes = [axis for axis in range(size_of(spec)) if _may_not_jump(spec, axis)]
        self._stride, self._seen = 1, 0
        self._steps: list[Rows] = []
        self._values: list[Rows] = []
        self._low = np.full(len(self._axes), np.inf)
        self._high = -self._low
        self._found = [np.zeros((0, 3)) for _ in self._axes]

    def add(self, chunk: Chunk) -> None:
        """Add samples. The step of a sample is the one to the next."""
        values = chunk.values[:, self._axes]
        if not self._axes or len(values) < 2:
            return
        own = chunk.own[:, self._axes]
        self._low = np.fmin(self._low, np.fmin.reduce(own, axis=0))
        self._high = np.fmax(self._high, np.fmax.reduce(own, axis=0))
        steps = np.stack([self._sizes(values[:, i], axis) for i, axis in enumerate(self._axes)], axis=1)
        steps[~np.isfinite(steps)] = 0.0
        mine = steps[chunk.past : chunk.past + chunk.count]
        self._keep(mine, own)
        for index in range(len(self._axes)):
            self._candidates(index, steps[:, index], len(mine), chunk)

    def _sizes(self, column: Rows, axis: int) -> Rows:
        """Return the sizes of an axis' steps: (n - 1,)."""
        steps: Rows = np.abs(np.diff(column))
        unit = unit_of(self._spec, axis)
        word = self._spec.axes[axis].lower().rpartition("_")[2] if len(self._spec.axes) > axis else ""
        if word in _ANGLES and unit in {"rad", "deg"}:
            turn = 2 * np.pi if unit == "rad" else 360.0
            steps = np.abs(steps - turn * np.rint(steps / turn))
        elif word in _QUATERNION or "orientation" in self._spec.name:
            steps = np.minimum(steps, np.abs(column[1:] + column[:-1]))
        return steps

    def _keep(self, steps: Rows, own: Rows) -> None:
        """Keep every n-th step and value, with n doubled whenever they become too many."""
        offset = (-self._seen) % self._stride
        self._steps.append(steps[offset :: self._stride])
        self._values.append(own[offset :: self._stride])
        self._seen += len(own)
        if sum(map(len, self._steps)) > _KEPT:
            self._steps = [np.concatenate(self._steps)[::2]]
            self._values = [np.concatenate(self._values)[::2]]
            self._stride *= 2

    def _candidates(self, index: int, steps: Rows, count: int, chunk: Chunk) -> None:
        """Keep the largest steps: sample, size, median of the steps around."""
        largest = chunk.past + np.argsort(steps[chunk.past : chunk.past + count])[-_CANDIDATES:]
        around = largest[:, None] + np.array([*range(-_NEAR, 0), *range(1, _NEAR + 1)])
        near = steps[np.clip(around, 0, len(steps) - 1)]
        near[(around < 0) | (around >= len(steps))] = np.nan
        if not len(largest) or np.isnan(near).all(axis=1).any():
            return
        origin = chunk.first - chunk.past
        rows = np.stack([largest + origin, steps[largest], np.nanmedian(near, axis=1)], axis=1)
        rows = np.concatenate([self._found[index], rows])
        self._found[index] = rows[np.argsort(rows[:, 1])[-_CANDIDATES:]]

    def events(self, times: Times) -> Iterator[Event]:
        """Yield the jumps, once all samples were added."""
        if self._seen < _FEWEST or not self._axes:
            return
        usual, values = np.concatenate(self._steps), np.concatenate(self._values)
        for index, axis in enumerate(self._axes):
            moving = usual[usual[:, index] > 0, index]
            if not moving.size or len(np.unique(values[:, index])) <= _FEW_VALUES:
                continue
            scale = _SIGMA * float(np.median(moving))
            least = max(_USUAL * scale, _WAY * self._way(unit_of(self._spec, axis)))
            rows = self._found[index]
            rows = rows[(rows[:, 1] > least) & (rows[:, 1] > _AROUND * rows[:, 2])]
            for at, size, _ in rows[np.argsort(rows[:, 0])][:MOST_EVENTS]:
                yield self._event(times, axis, int(at), (float(size), scale))

    def _way(self, unit: str) -> float:
        """Return how far the axis goes that goes farthest of those of a unit."""
        own = [i for i, axis in enumerate(self._axes) if unit_of(self._spec, axis) == unit]
        ways = (self._high - self._low)[own]
        return float(np.max(ways, where=np.isfinite(ways), initial=0.0))

    def _event(self, times: Times, axis: int, at: int, size: tuple[float, float]) -> Event:
        unit, spec = unit_of(self._spec, axis), self._spec
        text = (
            f"{name_of(spec, axis)} jumps by {told(size[0], unit)} between {times[at] / 1e9:.3f} and "
            f"{times[at + 1] / 1e9:.3f} s, {size[0] / size[1]:.0f} times its usual step"
        )
        start, stop = times[at], times[at + 1]
        return anomaly("jump", start, stop, text, stream=spec.name, axis=axis, value=size[0], unit=unit)


def _may_not_jump(spec: StreamSpec, axis: int) -> bool:
    """Tell whether an axis is a position of something that moves."""
    name = name_of(spec, axis).lower()
    if spec.np_dtype.kind != "f" or any(word in name for word in ("gripper", "finger", "vel")):
        return False
    if not spec.name.startswith("action"):
        return is_state(spec)
    parts = spec.contract.parts if spec.contract is not None else ()
    own = next((part for part in parts if part.start <= axis < part.stop), None)
    return own is not None and own.mode == "absolute" and own.space in _POSITIONS


def is_state(spec: StreamSpec) -> bool:
    """Tell whether a stream is what a robot measured of its own pose."""
    name = spec.name.lower()
    words = ("state", "position", "pose", "orientation", "joint")
    others = (
        "environment",
        "camera",
        "vel",
        "effort",
        "torque",
        "current",
        "command",
        "temperature",
        "stamp",
    )
    told_so = any(word in name for word in words) and not any(word in name for word in others)
    return spec.kind == "low_dim" and name.startswith("observation.") and told_so
