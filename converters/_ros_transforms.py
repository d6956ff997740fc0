"""Transforms between frames, taken apart by pairs of frames.

Field notes. A message of ``/tf`` (tf2_msgs/TFMessage, in old bags tf/tfMessage) holds any number of
transforms of any pairs, each with a stamp of its own; Foxglove's FrameTransform holds one. A transform is the
pose of the child frame in the parent frame: metres, and a quaternion x, y, z, w (geometry_msgs/Transform).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np

from ..schemas import Array
from ._messages import Counts
from ._ros_clocks import Taken, taken
from ._topics import Column, Source, Topic

_MAX_PAIRS = 1_000


@dataclass(frozen=True, slots=True)
class TransformLayout:
    """Which leaves of a type hold what."""

    stamp: str
    parent: str
    child: str
    translation: str
    rotation: str


_ROS = TransformLayout(
    "transforms[].header.stamp",
    "transforms[].header.frame_id",
    "transforms[].child_frame_id",
    "transforms[].transform.translation",
    "transforms[].transform.rotation",
)
_ONE = TransformLayout("timestamp", "parent_frame_id", "child_frame_id", "translation", "rotation")
_MANY = TransformLayout(*(f"transforms[].{path}" for path in (
    "timestamp", "parent_frame_id", "child_frame_id", "translation", "rotation",
)))  # fmt: skip
TRANSFORMS = {
    "tf2_msgs/TFMessage": _ROS,
    "tf/tfMessage": _ROS,
    "foxglove.FrameTransform": _ONE,
    "foxglove_msgs/FrameTransform": _ONE,
    "foxglove.FrameTransforms": _MANY,
    "foxglove_msgs/FrameTransforms": _MANY,
}


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """The transforms of one pair of frames.

    Attributes
    ----------
    which
        (m,) which of all transforms of the topic, counted through its messages.
    """

    parent: str
    child: str
    which: Counts
    taken: Taken


_KNOWN: WeakKeyDictionary[Topic, Sequence[Pair] | None] = WeakKeyDictionary()


def pairs_of(topic: Topic) -> Sequence[Pair] | None:
    """Return the pairs of frames of a topic; None if it does not have the leaves that its type promises."""
    if topic not in _KNOWN:
        _KNOWN[topic] = _pairs_of(topic)
    return _KNOWN[topic]


def _pairs_of(topic: Topic) -> Sequence[Pair] | None:
    layout = TRANSFORMS[topic.short_type]
    paths = (layout.stamp, layout.parent, layout.child, layout.translation, layout.rotation)
    columns = [topic.columns[path] for path in paths if path in topic.columns]
    if len(columns) != len(paths) or not all(column.kept for column in columns):
        return None
    stamps, parents, children, translation, rotation = columns
    counts = children.counts
    same = [parents.counts, stamps.counts, translation.counts // 3, rotation.counts // 4]
    if not all(np.array_equal(counts, other) for other in same) or not children.total:
        return None
    met: dict[tuple[str, str], list[int]] = {}
    for index, names in enumerate(zip(_texts(parents), _texts(children), strict=True)):
        met.setdefault(names, []).append(index)
    if len(met) > _MAX_PAIRS:
        return None
    log = np.repeat(topic.log_times, counts)
    told = values(stamps)
    found = []
    for (parent, child), rows in met.items():
        which = np.array(rows, np.int64)
        found.append(Pair(parent, child, which, taken(log[which], told[which], "the transform's stamp")))
    return tuple(found)


def _texts(column: Column) -> Iterator[str]:
    for texts in column.each(0, len(column.counts)):
        yield from (str(text) for text in texts)


def values(column: Column) -> Array:
    """Return all values of a column that is held in memory."""
    return np.concatenate([np.empty(0, column.dtype), *column.flat(0, column.total, 1 << 30)])


def transforms(
    source: Source, name: str, number: int, path: str, block_bytes: int, start: int, stop: int
) -> Iterator[Array]:
    """Yield samples ``[start, stop)`` of one leaf of one pair; ``log_time`` counts as a leaf."""
    topic = source.topic(name)
    pairs = pairs_of(topic) or ()
    which = pairs[number].which
    layout = TRANSFORMS[topic.short_type]
    if path == "log_time":
        table: Array = np.repeat(topic.log_times, topic.columns[layout.child].counts)
    else:
        table = values(topic.columns[path])
    width = {layout.translation: 3, layout.rotation: 4}.get(path, 0)
    table = table.reshape(-1, width) if width else table
    rows = max(1, block_bytes // max(1, table.itemsize * max(1, width)))
    for at in range(start, stop, rows):
        yield table[which[at : min(stop, at + rows)]]
