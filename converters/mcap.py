"""MCAP: a container of messages of any encoding, whatever recorder wrote it.

Field notes. One file is one episode: the format knows no other boundaries. Messages of ROS 1, ROS 2,
Protocol Buffers and JSON are read; see `_mcap_file` for the container, `_ros_wire`, `_protobuf` and
`_json_messages` for the encodings, and `_ros_episode` for what becomes of topics.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ..schemas import Episode
from ._mcap_file import MAGIC
from ._ros_episode import episode_of
from ._ros_topic import TopicOptions
from .base import Format

VERSION = "1"


@dataclass(frozen=True)
class Mcap(TopicOptions):
    """An MCAP file, which is one episode."""

    format: ClassVar[Format] = Format(
        name="mcap",
        title="MCAP recording",
        suffixes=(".mcap",),
        extra="ros",
        spec="https://mcap.dev/spec",
    )

    def probe(self, path: Path) -> bool:
        """Tell whether ``path`` is an MCAP file."""
        try:
            with path.open("rb") as file:
                return file.read(len(MAGIC)) == MAGIC
        except (OSError, ValueError):
            return False

    def episodes(self, path: Path) -> Iterator[Episode]:
        """Yield the episode; none if the file holds no messages that can be read."""
        return episode_of(self, "mcap", path, VERSION)


CONVERTER = Mcap
