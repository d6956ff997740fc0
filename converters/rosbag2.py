"""Bags of ROS 2: a folder with ``metadata.yaml`` and its databases or MCAP files, or one database alone.

Field notes. One bag is one episode, all of its files one after the other. Bags from before Iron do not
define their types, so the definitions that ROS 2 published are taken, of the distribution that the bag names
and of Humble if it names none. See `_bag2_files` for the container, `_ros_wire` for the messages, and
`_ros_episode` for what becomes of topics.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ..schemas import Episode
from ._bag2_files import METADATA, ROOT, SQLITE_MAGIC
from ._ros_episode import episode_of
from ._ros_topic import Wishes
from ._topics import Source
from .base import Format

VERSION = "1"

_HEAD_BYTES = 1 << 16
_TABLES = {b"topic_id", b"offered_qos_profiles"}


@dataclass(frozen=True)
class Rosbag2:
    """A bag of ROS 2, which is one episode.

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
        name="rosbag2",
        title="ROS 2 bag",
        suffixes=(".db3",),
        extra="ros",
        spec="https://github.com/ros2/rosbag2: rosbag2_storage, rosbag2_storage_sqlite3",
    )
    block_bytes: int = 1 << 20
    instruction: str = ""
    instruction_topic: str = ""
    embodiment: str = ""
    skip: tuple[str, ...] = ()

    def probe(self, path: Path) -> bool:
        """Tell whether ``path`` is a folder with a bag's metadata, or a database with a bag's tables."""
        try:
            if path.is_dir():
                with (path / METADATA).open("rb") as file:
                    return ROOT.encode() in file.read(_HEAD_BYTES)
            with path.open("rb") as file:
                head = file.read(_HEAD_BYTES)
            # The schema stands in the first page as it was typed (https://sqlite.org/fileformat2.html, 2.6).
            return (
                head.startswith(SQLITE_MAGIC)
                and set(re.findall(rb"topic_id|offered_qos_profiles", head)) >= _TABLES
            )
        except (OSError, ValueError):
            return False

    def beside(self, path: Path) -> tuple[Path, ...]:
        """Return what is read beside a file that was named: its ``metadata.yaml``."""
        return (path.parent,) if path.is_file() else ()

    def episodes(self, path: Path) -> Iterator[Episode]:
        """Yield the episode; none if the bag holds no messages that can be read."""
        wishes = Wishes(
            instruction=self.instruction,
            instruction_topic=self.instruction_topic,
            embodiment=self.embodiment,
            block_bytes=self.block_bytes,
        )
        source = Source("rosbag2", path, self.format, tuple(self.skip))
        yield from episode_of(self, source, wishes, VERSION)


CONVERTER = Rosbag2
