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
from ._ros_topic import TopicOptions
from .base import Format

VERSION = "1"

_HEAD_BYTES = 1 << 16
_TABLES = {b"topic_id", b"offered_qos_profiles"}


@dataclass(frozen=True)
class Rosbag2(TopicOptions):
    """A bag of ROS 2, which is one episode."""

    format: ClassVar[Format] = Format(
        name="rosbag2",
        title="ROS 2 bag",
        suffixes=(".db3",),
        extra="ros",
        spec="https://github.com/ros2/rosbag2: rosbag2_storage, rosbag2_storage_sqlite3",
    )

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

    def episodes(self, path: Path) -> Iterator[Episode]:
        """Yield the episode; none if the bag holds no messages that can be read."""
        return episode_of(self, "rosbag2", path, VERSION)


CONVERTER = Rosbag2
