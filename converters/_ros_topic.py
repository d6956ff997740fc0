"""One topic on its way into an episode, whatever its type.

An array whose length differs from message to message is kept as all of its values one after the other, on a
clock of its own where each has the time of its message, and its lengths as a stream besides.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np

from ..schemas import UNKNOWN, Array, Event, Json, Stream, StreamSpec, Times
from ._draft import Draft, Read, stream_name
from ._messages import Counts
from ._ros_clocks import Taken
from ._topics import Column, Recording, Source
from .base import Format

MAX_RAGGED = 1 << 23
"""Values of arrays of differing length, above which they are not kept: each needs a time of its own."""

INSTRUCTION = re.compile(r"(^|[/_.])((task|language)_)?instructions?$", re.IGNORECASE)
"""Names of what tells the robot's task in words."""

_MAX_EVENTS = 100_000
_MAX_EVENT_TEXT = 1 << 25
_LONG_TEXT = 100_000
_OBSERVED = {"sensor_msgs/JointState", "foxglove.JointStates", "sensor_msgs/Imu", "nav_msgs/Odometry"}
_COMMANDS = re.compile(
    r"(^|[/_.])(action|cmd|command|control|desired|goal|leader|master|ref|reference|setpoint|target|teleop)s?($|[/_.])"
)
_TEXTS = ("data", "msg", "message", "text", "value")
_FRAMES = ("header.frame_id", "frame_id", "parent_frame_id")


@dataclass(frozen=True)
class TopicOptions:
    """What a person says of a recording beforehand: the options of its converter.

    Attributes
    ----------
    block_bytes
        Most payload bytes of a block.
    instruction
        What the robot was asked to do, if the recording does not tell.
    instruction_topic
        The topic whose text is the instruction.
    embodiment
        The robot and its end effector, if known.
    skip
        Topics that are left out, such as one that is damaged.
    """

    format: ClassVar[Format]
    block_bytes: int = 1 << 20
    instruction: str = ""
    instruction_topic: str = ""
    embodiment: str = ""
    skip: tuple[str, ...] = ()


@dataclass(slots=True)
class Shared:
    """What all topics of a recording have in common while an episode is made of them.

    Attributes
    ----------
    characters
        Of all texts that are events by now.
    """

    draft: Draft
    source: Source
    recording: Recording
    options: TopicOptions
    characters: int = 0


class TopicDraft:
    """One topic on its way into an episode, all of whose leaves are alike."""

    def __init__(self, shared: Shared, name: str, taken: Taken, start: int) -> None:
        self.shared, self.draft, self.source = shared, shared.draft, shared.source
        self.name, self.topic = name, shared.recording.topics[name]
        self.taken, self.start = taken, start
        self.parts = [part for part in re.split(r"[/@]", name) if part] or ["topic"]
        words = "_".join(self.parts)
        self.clock = self.free_clock(words)
        self.left = dict(self.topic.columns)
        observed = self.topic.short_type in _OBSERVED and not _COMMANDS.search(name.lower())
        self.home = "observation" if observed else "extra"
        self.elsewhere: list[str] = []
        """Where the log times went, if not to the topic's own clock."""

    def free_clock(self, wanted: str) -> str:
        """Return a name for a clock that is not taken."""
        clean = re.sub(r"[^A-Za-z0-9_@+-]", "_", wanted)[:80] or "topic"
        names = [clean, *(f"{clean}_{i}" for i in range(2, len(self.draft.clocks) + 3))]
        used = {name.casefold() for name in self.draft.clocks} | {"timestamp", "start", "length"}
        return next(name for name in names if name.casefold() not in used)

    def field(self, path: str) -> str:
        """Return what the ledger calls a leaf."""
        return f"{self.name}:{path}"

    def stream(self, path: str) -> str:
        """Return what a leaf's stream is called."""
        words = [part for part in re.split(r"[.\[\]@]+", path) if part]
        return stream_name(self.home, *self.parts, *words)

    def fill(self, *, keep_log: bool) -> None:
        """Give every leaf of the topic a fate, and its log times a stream if ``keep_log`` wants it."""
        self.draft.recorded(self.clock, self.taken.times - self.start, self.taken.source, field=self.name)
        before = len(self.draft.streams)
        self.known()
        self._texts()
        for path, column in list(self.left.items()):
            self._column(path, column)
        used = {stream.spec.clock for stream in list(self.draft.streams.values())[before:]}
        self._stamps(keep_log=keep_log, used=self.clock in used)

    def known(self) -> None:
        """Take the leaves whose meaning the type tells; of any type, there are none."""

    def take(self, path: str) -> Column | None:
        """Take a column, so that nothing else is made of it."""
        return self.left.pop(path, None)

    def frame(self, leaf: str = "") -> str | None:
        """Return the coordinate frame that the messages tell of a leaf, if it is one."""
        # nav_msgs/Odometry: the twist stands in the child's frame, the pose in the header's.
        odometry = self.topic.short_type == "nav_msgs/Odometry" and leaf.startswith("twist.")
        for path in ("child_frame_id",) if odometry else _FRAMES:
            column = self.topic.columns.get(path)
            if column is not None and column.constant and column.constant[0].strip():
                return column.constant[0][:1_000]
        return None

    def put(self, spec: StreamSpec, length: int, read: Read) -> str:
        """Add a stream whose field is accounted for elsewhere."""
        self.draft.streams[spec.name] = Stream(spec=spec, length=length, read=read)
        return spec.name

    # Stamps

    def _stamps(self, *, keep_log: bool, used: bool) -> None:
        published = self.topic.publish_times
        lost = self.taken.header and (used or "events" in self.elsewhere)
        if lost or keep_log or not (used or self.elsewhere):
            self._times("log_time", self.topic.log_times)
            used = True
        else:
            to = [f"clocks.{self.clock}"] if used or published is not None else self.elsewhere
            how = "made relative to the episode's start"
            self.draft.account(self.field("log_time"), "transformed", to, how)
        if published is not None:
            self._times("publish_time", published)
        elif not used:
            del self.draft.clocks[self.clock]

    def _times(self, word: str, times: Times) -> None:
        spec = StreamSpec(
            name=stream_name("extra", *self.parts, word),
            kind="low_dim", dtype="int64", shape=(), unit=("ns",), clock=self.clock,
            description="Nanoseconds of the recorder's own epoch.",
        )  # fmt: skip
        read = partial(_stored_times, self.source, self.name, word, self.shared.options.block_bytes)
        self.draft.add(spec, len(times), read, source=self.field(word))

    # Leaves without a known meaning

    def _column(self, path: str, column: Column) -> None:
        if column.leaf.kind == "text":
            return
        if not column.total:
            self.draft.drop(self.field(path), "has no values in any message")
            return
        stamp = (
            self.taken.header
            and self.topic.stamps() is not None
            and path in {"header.stamp", "stamp", "timestamp"}
        )
        if stamp and column.shape == ():
            to = [f"clocks.{self.clock}"]
            self.draft.account(self.field(path), "transformed", to, "made relative to the episode's start")
        elif column.shape is None:
            self._ragged(path, column)
        else:
            spec = self._spec(path, column, column.shape)
            read = partial(_rows, self.source, self.name, path, self.shared.options.block_bytes)
            how = "inner arrays one after the other" if column.leaf.nested else ""
            lossless = None if column.leaf.nested else True
            self.draft.add(spec, self.topic.count, read, source=self.field(path), how=how, lossless=lossless)

    def _spec(self, path: str, column: Column, shape: tuple[int, ...], clock: str = "") -> StreamSpec:
        leaf = column.leaf
        axes = leaf.axes if shape and shape[-1] == len(leaf.axes) else ()
        spatial = bool(axes) and leaf.unit != UNKNOWN
        return StreamSpec(
            name=self.stream(path),
            kind="low_dim",
            dtype=column.dtype,
            shape=shape,
            unit=(leaf.unit,),
            frame=(self.frame(path) or UNKNOWN) if spatial else None,
            axes=axes,
            clock=clock or self.clock,
        )

    def _ragged(self, path: str, column: Column) -> None:
        """Keep arrays of differing length as all of their values, and how many each message has."""
        if column.total > MAX_RAGGED:
            why = f"{column.total:,} values in arrays of differing length; at most {MAX_RAGGED:,} are kept"
            self.draft.drop(self.field(path), why)
            self.draft.warn(f"{self.name}: {path} is not kept: {why}")
            return
        clock = self.free_clock(f"{self.clock[:50]}-{re.sub(r'[^A-Za-z0-9]+', '_', path)}")
        values = np.repeat(self.taken.times - self.start, column.counts)
        self.draft.recorded(
            clock, values, f"that of its message on the clock {self.clock}", field=self.field(path)
        )
        spec = self._spec(path, column, (), clock)
        read = partial(_flat, self.source, self.name, path, self.shared.options.block_bytes)
        name = self.draft.add(
            spec, column.total, read, source=self.field(path), lossless=None if column.leaf.nested else True,
            how="arrays of differing length, one after the other: their lengths are a stream of their own",
        )  # fmt: skip
        counts = StreamSpec(
            name=f"{name}.count", kind="low_dim", dtype="int64", shape=(), unit=("1",), clock=self.clock,
            description=f"How many values of {name} each message has.",
        )  # fmt: skip
        reader = partial(_counts, self.source, self.name, path, self.shared.options.block_bytes)
        self.draft.add(counts, self.topic.count, reader, source=self.field(f"{path}.length"))

    # Texts

    def _texts(self) -> None:
        columns = {path: c for path, c in self.left.items() if c.leaf.kind == "text"}
        alone = len(columns) == len(self.left)
        changing: dict[str, Column] = {}
        for path, column in columns.items():
            del self.left[path]
            if not column.kept:
                self.draft.drop(self.field(path), "more text than is held in memory")
            elif not alone and column.constant is not None:
                self._constant(path, column)
            elif column.total:
                changing[path] = column
            else:
                self.draft.drop(self.field(path), "has no values in any message")
        if changing:
            self._events(changing)

    def _constant(self, path: str, column: Column) -> None:
        texts = column.constant or []
        single = column.shape == ()
        value = texts[0] if single and texts else texts
        to = ["instructions"] if single and self._instructs(path) and self.draft.instruct(value) else []
        self.draft.tell(self.field(path), value, "texts", to)

    def _instructs(self, path: str) -> bool:
        wanted = self.shared.options.instruction_topic
        if wanted:
            return self.name == wanted
        return bool(INSTRUCTION.search(self.name) or INSTRUCTION.search(path))

    def _events(self, columns: dict[str, Column]) -> None:
        size = sum(
            len(text)
            for column in columns.values()
            for texts in column.each(0, self.topic.count)
            for text in texts
        )
        room = self.topic.count + len(self.draft.events) <= _MAX_EVENTS
        if not room or self.shared.characters + size > _MAX_EVENT_TEXT:
            for path in columns:
                self.draft.drop(
                    self.field(path),
                    f"{size:,} characters in {self.topic.count:,} texts: too much for events",
                )
            self.draft.warn(f"{self.name}: its texts are too many to be kept as events")
            return
        self.shared.characters += size
        self.elsewhere.append("events")
        main = next((path for path in _TEXTS if path in columns), next(iter(columns)))
        instructs = [path for path in columns if self._instructs(path)]
        every = zip(*(column.each(0, self.topic.count) for column in columns.values()), strict=True)
        for time, row in zip((self.taken.times - self.start).tolist(), every, strict=True):
            told: dict[str, Json] = {}
            for (path, column), texts in zip(columns.items(), row, strict=True):
                listed = [str(text) for text in texts]
                told[path] = listed[0] if column.leaf.shape == () and len(listed) == 1 else listed
            for path in instructs:
                self.draft.instruct(told[path])
            text = told[main] if isinstance(told[main], str) and len(told[main]) <= _LONG_TEXT else ""
            if text == told[main]:
                del told[main]
            self.draft.events.append(
                Event(kind=self.name[:1_000] or "topic", start_ns=time, text=text, attributes=told)
            )
        for path in columns:
            to = ["events", "instructions"] if path in instructs else ["events"]
            self.draft.account(self.field(path), "transformed", to, "one event per message")


def _stored_times(
    source: Source, name: str, word: str, block_bytes: int, start: int, stop: int
) -> Iterator[Array]:
    topic = source.topic(name)
    times = topic.log_times if word == "log_time" or topic.publish_times is None else topic.publish_times
    return _blocks(times, block_bytes, start, stop)


def _blocks(values: Array, block_bytes: int, start: int, stop: int) -> Iterator[Array]:
    rows = max(1, block_bytes // values.itemsize)
    for at in range(start, stop, rows):
        yield values[at : min(stop, at + rows)]


def _rows(source: Source, name: str, path: str, block_bytes: int, start: int, stop: int) -> Iterator[Array]:
    return source.column(name, path).rows(start, stop, block_bytes)


def _flat(source: Source, name: str, path: str, block_bytes: int, start: int, stop: int) -> Iterator[Array]:
    return source.column(name, path).flat(start, stop, block_bytes)


def _counts(source: Source, name: str, path: str, block_bytes: int, start: int, stop: int) -> Iterator[Array]:
    counts: Counts = source.column(name, path).counts
    return _blocks(counts, block_bytes, start, stop)
