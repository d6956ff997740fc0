"""Recordings of topics, of whatever container: the API that converters of MCAP and ROS bags build on.

::

    source = Source("mcap", path)              # or "rosbag1", "rosbag2"; hashable, pickles, holds nothing
    recording = source.recording()             # indexed once, then kept for a while
    topic = recording.topics["/joint_states"]
    topic.type, topic.encoding, topic.count    # "sensor_msgs/msg/JointState", "cdr", 240
    topic.problem                              # why it cannot be decoded, or ""
    topic.log_times, topic.publish_times       # (n,) int64 ns; the second None where it says the same
    topic.stamps()                             # (n,) int64 ns of its header, or None
    column = topic.columns["position"]         # a leaf by its path, such as "pose.position"
    column.leaf.kind, .dtype, .axes, .unit     # "number" | "time" | "text"
    column.shape                               # of one message; None: messages hold differently many
    column.counts                              # (n,) values in each message
    column.rows(start, stop, block_bytes)      # blocks (m, *shape) of the messages [start, stop)
    column.each(start, stop)                   # per message: a 1-D array, or a list of str
    column.flat(start, stop, block_bytes)      # blocks (m,) of values [start, stop) of all, counted through
    column.constant                            # the list that every message holds, if all hold the same texts
    source.column(topic, path)                 # the same, for a read that must not hold the recording

Messages of a topic stand in the order of their log times; those of equal time as they lie in the file. What a
reader keeps for later should be `Source`, not `Recording`: the index of a long recording is large.
A picture's pixels are a column too (``data``); `_ros_pictures` makes samples of them.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ._bag1_file import Bag1File
from ._bag2_files import Bag2Files
from ._chunks import Container, Facts
from ._mcap_file import McapFile
from ._topic_columns import Column, Topic
from ._topic_index import indexed
from .base import Format, version_of

__all__ = ["Column", "Kind", "Recording", "Source", "Topic"]

Kind = Literal["mcap", "rosbag1", "rosbag2"]

_KEPT_RECORDINGS = 2


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """All topics of a recording, indexed."""

    path: Path
    files: tuple[Path, ...]
    topics: Mapping[str, Topic]
    facts: Facts
    container: Container


@dataclass(frozen=True, slots=True)
class Source:
    """Names a recording, and opens it when asked. What is kept for later reads is this.

    Attributes
    ----------
    kind
        The container: ``mcap``, ``rosbag1`` or ``rosbag2``.
    path
        Its file, or its folder.
    of
        The format in whose name it is read, for errors.
    skip
        Topics that are left out.
    """

    kind: Kind
    path: Path
    of: Format
    skip: tuple[str, ...] = ()

    def recording(self) -> Recording:
        """Return the recording, indexed now or kept from the last time.

        Raises
        ------
        FormatError
            If the container or one of its messages is damaged or dangerous.
        """
        container = self.container()
        key = (self, *(version_of(file) for file in container.files))
        with _LOCK:
            found = _OPEN.get(key)
            if found is None:
                topics, facts = indexed(self, container)
                found = Recording(self.path, container.files, topics, facts, container)
                _OPEN[key] = found
            _OPEN.move_to_end(key)
            while len(_OPEN) > _KEPT_RECORDINGS:
                _OPEN.popitem(last=False)[1].container.close()
            return found

    def container(self) -> Container:
        """Return the container, not read yet."""
        if self.kind == "mcap":
            return McapFile(self.path, self.of)
        if self.kind == "rosbag1":
            return Bag1File(self.path, self.of)
        return Bag2Files(self.path, self.of)

    def topic(self, name: str) -> Topic:
        """Return a topic by its name in `Recording.topics`."""
        return self.recording().topics[name]

    def column(self, topic: str, path: str) -> Column:
        """Return a column of a topic."""
        return self.topic(topic).columns[path]


_OPEN: OrderedDict[object, Recording] = OrderedDict()
_LOCK = threading.RLock()
