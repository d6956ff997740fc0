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
from ._ros_topic import Wishes
from ._topics import Source
from .base import Format

VERSION = "1"


@dataclass(frozen=True)
class Rosbag1:
    """A bag of ROS 1, which is one episode.

    Attributes
    ----------
    block_bytes
        Most payload bytes of a block.
    instruction
        What the robot was asked to do, if the bag does not tell.
    instruction_topic
        The topic whose text is the instruction.
    embodiment
        The robot and its end effector, if known.
    skip
        Topics that are left out, such as one that is damaged.
    """

    format: ClassVar[Format] = Format(
        name="rosbag1",
        title="ROS 1 bag",
        suffixes=(".bag",),
        extra="ros",
        spec="http://wiki.ros.org/Bags/Format/2.0",
    )
    block_bytes: int = 1 << 20
    instruction: str = ""
    instruction_topic: str = ""
    embodiment: str = ""
    skip: tuple[str, ...] = ()

    def probe(self, path: Path) -> bool:
        """Tell whether ``path`` is a bag of ROS 1."""
        try:
            with path.open("rb") as file:
                return file.read(len(MAGIC)) == MAGIC
        except (OSError, ValueError):
            return False

    def episodes(self, path: Path) -> Iterator[Episode]:
        """Yield the episode; none if the bag holds no messages that can be read."""
        wishes = Wishes(
            instruction=self.instruction,
            instruction_topic=self.instruction_topic,
            embodiment=self.embodiment,
            block_bytes=self.block_bytes,
        )
        source = Source("rosbag1", path, self.format, tuple(self.skip))
        yield from episode_of(self, source, wishes, VERSION)


CONVERTER = Rosbag1
