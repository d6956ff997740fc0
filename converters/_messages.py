"""What the decoders of messages have in common: a message as a set of leaves.

A message of any encoding is a tree. Its leaves are named by their path, such as ``pose.position`` or
``transforms[].child_frame_id``, where ``[]`` stands for "of each element". A leaf may have no value in a
message, one, or many; so a batch of messages gives for each leaf how many values every message has, and
all of them one after the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ..schemas import UNKNOWN, Array

BULK_BYTES = 4096
"""Bytes of one message's leaf above which values are not kept while a recording is indexed."""

MAX_LEAVES = 2_000
MAX_DEPTH = 32

Counts = NDArray[np.int64]


class UndecodableError(ValueError):
    """A message does not have the form that its definition says."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """One leaf of a type of messages.

    Attributes
    ----------
    path
        Where it stands: field names joined by dots, ``[]`` behind an array of messages.
    kind
        ``number``; ``time``, which is int64 nanoseconds whatever its form in the message; or ``text``.
    dtype
        NumPy name of the values; empty for text.
    shape
        What every message has of it by its type: ``()`` for one value, ``(9,)`` for an array of nine, None
        where messages may differ.
    axes
        Names of its last axis, such as ``x``, ``y``, ``z``.
    unit
        By the definition of its type, else ``unknown``.
    nested
        An array of any length inside of another such array: what one message holds of it does not tell
        where the inner ones begin.
    """

    path: str
    kind: Literal["number", "time", "text"]
    dtype: str
    shape: tuple[int, ...] | None = ()
    axes: tuple[str, ...] = ()
    unit: str = UNKNOWN
    nested: bool = False


@dataclass(frozen=True, slots=True)
class Values:
    """What a batch of messages holds of one leaf.

    Attributes
    ----------
    counts
        (n,) values in each message.
    flat
        All of them in order of the messages; None if there is too much of it to be kept.
    """

    counts: Counts
    flat: Array | list[str] | None


class Decoder(Protocol):
    """Knows how the messages of one type are written. Holds no payload."""

    @property
    def leaves(self) -> Mapping[str, Leaf]:
        """The leaves by path. Those of self-describing messages are known once they were met."""
        ...

    @property
    def spare(self) -> int:
        """How many messages so far had bytes behind what their definition tells."""
        ...

    def batch(self, data: bytes, starts: Counts, sizes: Counts) -> Mapping[str, Values]:
        """Return what the messages at ``starts`` in ``data`` hold; `UndecodableError` if one is malformed."""
        ...

    def reach(self, data: bytes, start: int, size: int) -> int:
        """Return how many bytes of a message, from its front, `batch` looks at: all, if that is not known."""
        ...

    def pick(self, payload: bytes, path: str) -> Array | list[str]:
        """Return the values of one leaf of one message, as a view where that is possible."""
        ...


_VECTORS = ({"x", "y"}, {"x", "y", "z"}, {"x", "y", "z", "w"})


def is_vector(names: Sequence[str]) -> bool:
    """Tell whether fields with these names are one vector or quaternion, in the order they stand in."""
    return set(names) in _VECTORS and len(set(names)) == len(names)


# REP 103 (https://www.ros.org/reps/rep-0103.html) fixes SI units for all interfaces of ROS; what each field
# is a quantity of stands in the comments of its definition (ros2/common_interfaces, foxglove/foxglove-sdk:
# schemas). JointState is not here: its numbers are rad or m, by a joint's kind, which the message hides.
_UNITS = {
    "Pose": {"position": "m", "orientation": "1"},
    "Pose2D": {"x": "m", "y": "m", "theta": "rad"},
    "PointStamped": {"point": "m"},
    "QuaternionStamped": {"quaternion": "1"},
    "Transform": {"translation": "m", "rotation": "1"},
    "FrameTransform": {"translation": "m", "rotation": "1"},
    "Twist": {"linear": "m/s", "angular": "rad/s"},
    "Accel": {"linear": "m/s2", "angular": "rad/s2"},
    "Wrench": {"force": "N", "torque": "N.m"},
    "Imu": {"orientation": "1", "angular_velocity": "rad/s", "linear_acceleration": "m/s2"},
    "MagneticField": {"magnetic_field": "T"},
    "Temperature": {"temperature": "Cel"},
    "FluidPressure": {"fluid_pressure": "Pa"},
    "Illuminance": {"illuminance": "lx"},
    "RelativeHumidity": {"relative_humidity": "1"},
    "Range": {"field_of_view": "rad", "min_range": "m", "max_range": "m", "range": "m"},
    "LaserScan": {
        **dict.fromkeys(("angle_min", "angle_max", "angle_increment"), "rad"),
        **dict.fromkeys(("time_increment", "scan_time"), "s"),
        **dict.fromkeys(("range_min", "range_max", "ranges"), "m"),
    },
    "BatteryState": {
        "voltage": "V",
        "temperature": "Cel",
        "current": "A",
        **dict.fromkeys(("charge", "capacity", "design_capacity"), "A.h"),
        "percentage": "1",
        "cell_voltage": "V",
        "cell_temperature": "Cel",
    },
    "NavSatFix": {"latitude": "deg", "longitude": "deg", "altitude": "m"},
}
_PACKAGES = {"geometry_msgs", "sensor_msgs", "foxglove", "foxglove_msgs"}


def plain_type(name: str) -> str:
    """Return a type's name in its short form: ``sensor_msgs/Image`` for ``sensor_msgs/msg/Image``."""
    package, _, rest = name.partition("/")
    return f"{package}/{rest.removeprefix('msg/')}" if rest else name


def unit_of(owner: str, field: str) -> str:
    """Return the unit of a field of the type ``owner``, as far as the type's definition tells."""
    package, _, name = plain_type(owner).replace(".", "/").rpartition("/")
    return _UNITS.get(name, {}).get(field, UNKNOWN) if package in _PACKAGES else UNKNOWN


def together(parts: Sequence[tuple[Counts, Array]], length: int) -> Values:
    """Return values in order of the messages, from groups of messages that have equally many each.

    Parameters
    ----------
    parts
        Which messages, (m,), and their values, (m, values).
    length
        Of the batch; messages that are in no group have no values.
    """
    counts = np.zeros(length, np.int64)
    if len(parts) == 1 and len(parts[0][0]) == length:
        counts[:] = parts[0][1].shape[1]
        return Values(counts, parts[0][1].reshape(-1))
    for which, values in parts:
        counts[which] = values.shape[1]
    starts = np.cumsum(counts) - counts
    flat = np.empty(int(counts.sum()), parts[0][1].dtype if parts else np.uint8)
    for which, values in parts:
        flat[starts[which][:, None] + np.arange(values.shape[1])] = values
    return Values(counts, flat)


class Gathered:
    """Values of leaves, gathered message by message in lists."""

    def __init__(self) -> None:
        self._length = 0
        self._values: dict[str, list[Any]] = {}
        self._ends: dict[str, list[int]] = {}

    def of(self, path: str) -> list[Any]:
        """Return the list that a leaf's values are put into."""
        if path not in self._values:
            self._values[path], self._ends[path] = [], [0] * self._length
        return self._values[path]

    def end(self) -> None:
        """Close a message."""
        self._length += 1
        for path, values in self._values.items():
            self._ends[path].append(len(values))

    def values(self, leaves: Mapping[str, Leaf]) -> dict[str, Values]:
        """Return what was gathered. Bytes count as their uint8; long runs of numbers are counted only."""
        found = {}
        for path, leaf in leaves.items():
            values = self.of(path)
            counts: Counts = np.diff(np.array(self._ends[path], np.int64), prepend=0).astype(np.int64)
            flat: Array | list[str] | None = values
            if values and isinstance(values[0], bytes):
                sizes = np.array([0, *(len(value) for value in values)], np.int64)
                ends = np.cumsum(sizes)[np.array(self._ends[path], np.int64)]
                counts = np.diff(ends, prepend=0).astype(np.int64)
                bulk = counts.max(initial=0) > BULK_BYTES
                flat = None if bulk else np.frombuffer(b"".join(values), np.uint8)
            elif leaf.kind != "text":
                bulk = counts.max(initial=0) * np.dtype(leaf.dtype).itemsize > BULK_BYTES
                flat = None if bulk else np.array(values, leaf.dtype)
            found[path] = Values(counts, flat)
        return found
