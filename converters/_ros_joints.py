"""States of joints, whose values are told by name.

Field notes. ``sensor_msgs/JointState`` (github.com/ros2/common_interfaces) holds parallel arrays: the order
of names may change from message to message, several publishers may take turns with joints of their own, and
any of the value arrays may be empty. Numbers are rad or m by the joint's kind, which only a robot's
description knows; some publishers even write degrees. So units stay unknown here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np

from ..schemas import Array
from ._messages import Counts
from ._topics import Column, Topic

_MAX_GROUPS = 32


@dataclass(frozen=True, slots=True)
class JointLayout:
    """Which leaves of a type hold names, and which hold as many values."""

    name: str
    values: tuple[str, ...]


_FOXGLOVE = JointLayout(
    "joints[].name", tuple(f"joints[].{word}" for word in ("position", "velocity", "acceleration", "effort"))
)
JOINTS = {
    "sensor_msgs/JointState": JointLayout("name", ("position", "velocity", "effort")),
    "foxglove.JointStates": _FOXGLOVE,
    "foxglove_msgs/JointStates": _FOXGLOVE,
}


@dataclass(frozen=True, slots=True, eq=False)
class Joints:
    """The joints of a topic.

    Attributes
    ----------
    groups
        Messages that tell of the same joints, and their names in the order of the first of them.
    orders
        For each group, (m, joints) where in its message each joint stands; None if all have one order.
    """

    groups: tuple[tuple[Counts, tuple[str, ...]], ...]
    orders: tuple[Counts | None, ...]

    @property
    def plain(self) -> bool:
        """Whether all messages tell of the same joints in the same order."""
        return len(self.groups) == 1 and self.orders[0] is None

    def fits(self, column: Column) -> bool:
        """Tell whether a column has one value for each joint in every message."""
        return all(bool(np.all(column.counts[which] == len(names))) for which, names in self.groups)

    def rows(self, column: Column, group: int, block_bytes: int, start: int, stop: int) -> Iterator[Array]:
        """Yield blocks (m, joints) of the samples ``[start, stop)`` of a group."""
        which, names = self.groups[group]
        order = self.orders[group]
        rows = max(1, block_bytes // max(1, len(names) * np.dtype(column.dtype).itemsize))
        ends = np.cumsum(column.counts)
        for at in range(start, stop, rows):
            some = which[at : min(stop, at + rows)]
            first, last = int(some[0]), int(some[-1]) + 1
            values = np.concatenate([np.asarray(v, column.dtype) for v in _runs(column, first, last)])
            begin = int(ends[first] - column.counts[first])
            starts = ends[some] - column.counts[some] - begin
            places = np.arange(len(names)) if order is None else order[at : at + len(some)]
            yield values[starts[:, None] + places]


def _runs(column: Column, first: int, last: int) -> Iterator[Array]:
    ends = np.cumsum(column.counts)
    begin = int(ends[first] - column.counts[first])
    return column.flat(begin, int(ends[last - 1]), 1 << 24)


_KNOWN: WeakKeyDictionary[Topic, Joints | None] = WeakKeyDictionary()


def joints_of(topic: Topic) -> Joints | None:
    """Return the joints of a topic; None if its names do not tell them apart."""
    if topic not in _KNOWN:
        _KNOWN[topic] = _joints_of(topic)
    return _KNOWN[topic]


def _joints_of(topic: Topic) -> Joints | None:
    column = topic.columns.get(JOINTS[topic.short_type].name)
    if column is None or not column.kept or not column.total:
        return None
    if column.constant is not None:
        return Joints(((np.arange(topic.count), tuple(column.constant)),), (None,))
    met: dict[frozenset[str], tuple[tuple[str, ...], list[int], list[list[int]]]] = {}
    for index, texts in enumerate(column.each(0, topic.count)):
        names = tuple(str(text) for text in texts)
        if len(set(names)) != len(names) or not names:
            return None
        first, which, orders = met.setdefault(frozenset(names), (names, [], []))
        if len(met) > _MAX_GROUPS:
            return None
        place = {name: i for i, name in enumerate(names)}
        which.append(index)
        orders.append([place[name] for name in first])
    groups, placed = [], []
    for first, which, orders in met.values():
        table = np.array(orders, np.int64)
        groups.append((np.array(which, np.int64), first))
        placed.append(None if bool(np.all(table == np.arange(len(first)))) else table)
    return Joints(tuple(groups), tuple(placed))
