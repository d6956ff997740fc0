"""Bags of ROS 1, as `rosbag record` and librealsense write them.

Field notes. One bag is one episode: the format knows no other boundaries. Every type is defined in the bag
itself; see `_bag1_file` for the container, `_ros_wire` for the messages, and `_ros_episode` for what becomes
of topics.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ..schemas import Episode
from ._bag1_file import MAGIC
from ._ros_episode import episode_of
from ._ros_topic import TopicOptions
from .base import Format

VERSION = "1"


@dataclass(frozen=True)
class Rosbag1(TopicOptions):
    """A bag of ROS 1, which is one episode."""

    format: ClassVar[Format] = Format(
        name="rosbag1",
        title="ROS 1 bag",
        suffixes=(".bag",),
        extra="ros",
        spec="http://wiki.ros.org/Bags/Format/2.0",
    )

    def probe(self, path: Path) -> bool:
        """Tell whether ``path`` is a bag of ROS 1."""
        try:
            with path.open("rb") as file:
                return file.read(len(MAGIC)) == MAGIC
        except (OSError, ValueError):
            return False

    def episodes(self, path: Path) -> Iterator[Episode]:
        """Yield the episode; none if the bag holds no messages that can be read."""
        return episode_of(self, "rosbag1", path, VERSION)


CONVERTER = Rosbag1
