"""The columns of MCAP files and ROS bags: each leaf of each topic's messages, as ``<topic>:<leaf>``.

What the messages are made of, and how they are decoded, is the business of ``_topics.py``. A topic's messages
are its own time axis.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..schemas import Array, FormatError, Json, Times
from ._columns import Column, Stamps, judged
from ._topics import Column as Leaf
from ._topics import Kind, Source, Topic
from .base import Format

_READER = Format(name="mapped", title="MCAP or ROS bag with a mapping file", extra="ros")
_DIFFERENT = "messages hold differently many values"


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicColumns:
    """Leaves of messages; joint names and other lists of texts that never change are values."""

    recording: Source
    files: tuple[Path, ...]
    columns: Mapping[str, Column]
    values: Mapping[str, Json]
    unread: Mapping[str, str]
    leaves: Mapping[str, tuple[str, str]]

    @property
    def path(self) -> Path:
        """The file, or the folder of a bag."""
        return self.recording.path

    def _leaf(self, name: str) -> Leaf:
        return self.recording.column(*self.leaves[name])

    def blocks(self, name: str, start: int, stop: int, rows: int) -> Iterator[Array]:
        """Yield the values of messages; see `Columns`."""
        stop = min(stop, self.columns[name].length)
        if start < stop:
            yield from self._leaf(name).rows(start, stop, rows * self.columns[name].row_bytes)

    def items(self, name: str, start: int, stop: int) -> Iterator[bytes]:
        """Yield the bytes or the text of each message; see `Columns`."""
        for values in self._leaf(name).each(start, min(stop, self.columns[name].length)):
            if isinstance(values, list):
                if len(values) != 1:
                    raise FormatError(str(self.path), name, "holds other texts than when it was read first")
                yield values[0].encode(errors="replace")
            else:
                yield values.tobytes()

    def stamps(self, clock: str, which: Stamps) -> Times | None:
        """Return the stamps of a topic's messages; see `Columns`. Without publish times: the log times."""
        topic = self.recording.topic(clock)
        if which == "header":
            found = topic.stamps()
            return None if found is None else found[1]
        return (
            topic.publish_times if which == "publish" and topic.publish_times is not None else topic.log_times
        )


def topics_of(kind: Kind, path: Path) -> TopicColumns:
    """Return the columns of a recording of topics.

    Raises
    ------
    FormatError
        If the recording is damaged or dangerous.
    """
    source = Source(kind, path, _READER)
    recording = source.recording()
    columns: dict[str, Column] = {}
    values: dict[str, Json] = {f"@{name}": value for name, value in recording.facts.header.items()}
    unread = dict(recording.facts.losses)
    leaves: dict[str, tuple[str, str]] = {}
    for key, topic in recording.topics.items():
        if topic.problem or not topic.count:
            unread[key] = topic.problem or "holds no messages"
            continue
        for path_, leaf in topic.columns.items():
            name = f"{key}:{path_}"
            if leaf.constant is not None and leaf.shape != ():
                values[name] = leaf.constant
                continue
            leaves[name] = (key, path_)
            columns[name] = judged(path, _column(name, key, topic, leaf))
    return TopicColumns(
        recording=source,
        files=recording.files,
        columns=columns,
        values=values,
        unread=unread,
        leaves=leaves,
    )


def _column(name: str, key: str, topic: Topic, leaf: Leaf) -> Column:
    if leaf.leaf.kind == "text":
        why = "" if leaf.shape == () else "holds lists of texts that change"
        return Column(name=name, length=topic.count, holds="texts", clock=key, unread=why)
    if leaf.shape is None:
        octets = np.dtype(leaf.dtype) == np.uint8
        return Column(
            name=name, length=topic.count, holds="bytes", clock=key, unread="" if octets else _DIFFERENT
        )
    unit = "ns" if leaf.leaf.kind == "time" else ""
    return Column(name=name, length=topic.count, dtype=leaf.dtype, shape=leaf.shape, unit=unit, clock=key)
