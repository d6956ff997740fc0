"""Indexes a recording: where its messages lie, and the values of all leaves that are not large.

One pass reads everything once. Numbers and texts are kept in memory as long as there is room; of large
leaves, such as pictures, only how many values each message has. Units are joined to a few MiB before they
are looked into, since what is done once per unit, topic and leaf would cost more than its messages; and
large messages are cut behind what is looked at, since to copy pictures would cost more than all else.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from ..schemas import Array, FormatError
from ._chunks import Channel, Container, Facts, Unit
from ._json_messages import JsonDecoder
from ._messages import Counts, Decoder, Leaf, UndecodableError, Values, plain_type
from ._protobuf import ProtobufDecoder
from ._ros_definitions import DefinitionError, Struct, parse_text, published, tree_of
from ._ros_idl import parse_idl
from ._ros_wire import RosDecoder
from ._topic_columns import Column, Topic
from .base import Format

MAX_MESSAGES = 8_000_000
MAX_TOPICS = 4_000
_KEPT_BYTES = 256 << 20
_TEXT_BYTES = 64
_POINTER_BYTES = 8
_LISTED_BYTES = 64 << 20
_STEP = 4_096
_JOINED_BYTES = 4 << 20
_JOINED_UNITS = 1_024
_CUT_BYTES = 1 << 16


class Wanted(Protocol):
    """What is to be indexed, and in whose name."""

    @property
    def path(self) -> Path: ...
    @property
    def of(self) -> Format: ...
    @property
    def skip(self) -> tuple[str, ...]: ...


def indexed(wanted: Wanted, container: Container) -> tuple[dict[str, Topic], Facts]:
    """Return the topics of a recording by name, and what else its container tells. Reads it once, whole."""
    channels: dict[int, Channel] = {}
    facts = Facts()
    indexer = _Indexer(wanted, container, channels, facts)
    for run in _joined_units(map(indexer.cut, container.units(channels, facts))):
        indexer.take(run)
    topics = indexer.topics()
    _compare(wanted.path, topics, facts)
    return topics, facts


def _compare(path: Path, topics: Mapping[str, Topic], facts: Facts) -> None:
    """Compare how many messages were announced with how many there are."""
    met = Counter[str]()
    for topic in topics.values():
        met[topic.name] += topic.count
    for name, told in facts.announced.items():
        if met[name] < told:
            raise FormatError(
                str(path),
                f"metadata.yaml: {name}",
                f"announces {told:,} messages; the files hold {met[name]:,}",
                "`ros2 bag reindex` makes the metadata anew, if this is all there is",
            )
        if met[name] > told:
            facts.warnings.append(f"{name}: {met[name]:,} messages, where metadata.yaml announces {told:,}")


@dataclass(frozen=True, slots=True, eq=False)
class _Run:
    """Messages of one unit or of many: as of a `Unit`, with the number of each message's own."""

    data: bytes
    unit: Counts
    channel: Counts
    place: Counts
    start: Counts
    size: Counts
    stored: Counts
    log: Counts
    publish: Counts


def _joined_units(units: Iterable[Unit]) -> Iterator[_Run]:
    """Yield the messages of units, of small ones many at a time."""
    held: list[Unit] = []
    size = 0
    for unit in units:
        if held and (size + len(unit.data) > _JOINED_BYTES or len(held) == _JOINED_UNITS):
            yield _joined_run(held)
            held, size = [], 0
        held.append(unit)
        size += len(unit.data)
    if held:
        yield _joined_run(held)


def _joined_run(units: Sequence[Unit]) -> _Run:
    ends = np.cumsum([len(unit.data) for unit in units])
    lengths = [len(unit.channel) for unit in units]
    return _Run(
        b"".join(unit.data for unit in units),
        np.repeat([unit.number for unit in units], lengths),
        np.concatenate([unit.channel for unit in units]),
        np.concatenate([unit.place for unit in units]),
        np.concatenate([unit.start for unit in units])
        + np.repeat(ends - [len(unit.data) for unit in units], lengths),
        np.concatenate([unit.size for unit in units]),
        np.concatenate([unit.size if unit.stored is None else unit.stored for unit in units]),
        np.concatenate([unit.log for unit in units]),
        np.concatenate([unit.publish for unit in units]),
    )


class _Indexer:
    """Takes in all messages once."""

    def __init__(
        self, wanted: Wanted, container: Container, channels: Mapping[int, Channel], facts: Facts
    ) -> None:
        self._wanted, self._container, self._channels, self._facts = wanted, container, channels, facts
        self._found: dict[tuple[str, str, str, str, bytes], _Growing] = {}
        self._of: dict[int, _Growing | None] = {}
        self._messages = 0
        self.room = _KEPT_BYTES

    def cut(self, unit: Unit) -> Unit:
        """Return a unit whose large messages lack what is not looked at; their sizes stay as they were."""
        parts, at = list[bytes](), 0
        lost = np.zeros(len(unit.size) + 1, np.int64)
        for i in np.flatnonzero(unit.size > _CUT_BYTES).tolist():
            topic = self._topic(int(unit.channel[i]))
            start, size = int(unit.start[i]), int(unit.size[i])
            reach = topic.reach(unit.data, start, size) if topic is not None else 0
            if reach < size:
                parts.append(unit.data[at : start + reach])
                at, lost[i + 1] = start + size, size - reach
        if not parts:
            return unit
        parts.append(unit.data[at:])
        return replace(unit, data=b"".join(parts), start=unit.start - np.cumsum(lost)[:-1])

    def take(self, run: _Run) -> None:
        """Take in the messages of a run."""
        self._messages += len(run.channel)
        if self._messages > MAX_MESSAGES:
            why = f"holds more than {MAX_MESSAGES:,} messages"
            raise FormatError(
                str(self._wanted.path), "messages", why, "Split it: an index of it must be held"
            )
        by_topic: dict[int, list[Counts]] = {}
        growing: dict[int, _Growing] = {}
        for number in np.unique(run.channel).tolist():
            topic = self._topic(number)
            if topic is not None:
                by_topic.setdefault(id(topic), []).append(np.flatnonzero(run.channel == number))
                growing[id(topic)] = topic
        for key, parts in by_topic.items():
            which = parts[0] if len(parts) == 1 else np.sort(np.concatenate(parts))
            self.room = growing[key].take(run, which, self.room)

    def _topic(self, number: int) -> _Growing | None:
        if number not in self._of:
            channel = self._channels[number]
            key = (channel.topic, channel.type, channel.encoding, channel.language, channel.schema)
            skipped = channel.topic in self._wanted.skip
            if len(self._found) >= MAX_TOPICS:
                why = f"holds more than {MAX_TOPICS:,} topics"
                raise FormatError(str(self._wanted.path), channel.topic, why)
            if not skipped and key not in self._found:
                self._found[key] = _Growing(self._wanted, self._container, channel, self._facts)
            self._of[number] = None if skipped else self._found[key]
        return self._of[number]

    def topics(self) -> dict[str, Topic]:
        """Return the topics by name; of topics of one name, all but the first with their type behind it."""
        for number in self._channels:
            self._topic(number)
        found: dict[str, Topic] = {}
        for growing in self._found.values():
            topic = growing.topic()
            names = [topic.name, f"{topic.name}@{topic.short_type}"]
            names += [f"{names[1]}@{i}" for i in range(2, len(self._found) + 2)]
            found[next(name for name in names if name not in found)] = topic
        return found


class _Growing:
    """A topic while its messages come in."""

    def __init__(self, wanted: Wanted, container: Container, channel: Channel, facts: Facts) -> None:
        self._wanted, self._channel, self._container = wanted, channel, container
        self._problem, self._standard = "", False
        self._decoder: Decoder | None = None
        self._warnings: list[str] = []
        self._distribution = str(facts.header.get("ros_distro", ""))
        self._index: list[tuple[Array, ...]] = []
        self._published = False
        self._parts: dict[str, list[tuple[int, Values]]] = {}
        self._dropped: set[str] = set()
        self._same: dict[str, list[str]] = {}
        self._count = 0
        self._bytes = 0
        try:
            self._decoder = decoder_of(channel, wanted.of, self._distribution)
        except DefinitionError as error:
            self._problem = str(error)

    def take(self, run: _Run, which: Counts, room: int) -> int:
        """Take in messages of a run; return how many bytes of values may still be kept."""
        log, publish = run.log[which], run.publish[which]
        self._published = self._published or not np.array_equal(log, publish)
        unit, size = run.unit[which].astype(np.int32), run.stored[which].astype(np.int32)
        self._index.append((unit, run.place[which], size, log, publish))
        first, self._count = self._count, self._count + len(which)
        # A batch at a time, so that a run of many messages does not multiply in memory.
        for part in range(0, len(which), _STEP):
            some = which[part : part + _STEP]
            for path, values in self._decoded(run, some, first + part).items():
                room -= self._keep(path, first + part, values, room)
        return room

    def reach(self, data: bytes, start: int, size: int) -> int:
        """Return how many bytes of a message have to be there when it is taken in."""
        return 0 if self._decoder is None else self._decoder.reach(data, start, size)

    def _decoded(self, run: _Run, which: Counts, first: int) -> Mapping[str, Values]:
        if self._decoder is None:
            return {}
        try:
            return self._decoder.batch(run.data, run.start[which], run.size[which])
        except UndecodableError as error:
            if first:
                raise FormatError(
                    str(self._wanted.path),
                    f"{self._channel.topic}: message {first} or one of the {len(which) - 1:,} after it",
                    str(error),
                    "Leave the topic out: option skip",
                ) from error
            return self._decoded_otherwise(run, which, error)

    def _decoded_otherwise(self, run: _Run, which: Counts, error: UndecodableError) -> Mapping[str, Values]:
        """Try the published definition of a type whose own does not fit even its first messages."""
        self._decoder, self._problem = None, f"the first messages do not fit: {error}"
        if self._channel.encoding != "cdr":
            return {}
        try:
            decoder = published_decoder(self._channel.type, self._wanted.of, self._distribution)
            found = decoder.batch(run.data, run.start[which], run.size[which])
        except (DefinitionError, UndecodableError):
            return {}
        told = f"its own definition of {self._channel.type} does not fit: read by the published one"
        self._warnings.append(told)
        self._decoder, self._problem = decoder, ""
        return found

    def _keep(self, path: str, first: int, values: Values, room: int) -> int:
        """Keep the values of a batch if there is room; return how many bytes they take."""
        flat, counts = values.flat, _steady(values.counts)
        if isinstance(flat, list) and self._repeats(path, flat, counts):
            flat = None
        size = sum(_TEXT_BYTES + len(text) for text in flat) if isinstance(flat, list) else 0
        size = flat.nbytes if isinstance(flat, np.ndarray) else size
        parts = self._parts.setdefault(path, [])
        if flat is not None and path not in self._dropped and size <= room:
            parts.append((first, Values(counts, flat)))
            return size
        if values.flat is None or flat is not None:
            self._dropped.add(path)
        if parts and parts[-1][1].flat is None and parts[-1][0] + len(parts[-1][1].counts) == first:
            # Without values, what is left of a batch is how many each message has: all the same, as a rule.
            first, before = parts.pop()
            counts = _steady(_joined_counts([before.counts, counts]))
        parts.append((first, Values(counts, None)))
        return 0

    def _repeats(self, path: str, flat: list[str], counts: Counts) -> bool:
        """Tell whether texts, such as names of joints, are those of all messages before: one copy will do."""
        count = int(counts[0])
        known = self._same.get(path) if path in self._parts else flat[:count]
        if known is None or counts.strides != (0,) or flat != known * len(counts):
            if known is not None and path in self._parts:
                self._listed(path, known)
            self._same.pop(path, None)
            return False
        self._same[path] = known
        return True

    def _listed(self, path: str, known: list[str]) -> None:
        """Make a list again of texts that were one copy, since others have come."""
        parts = self._parts[path]
        if sum(len(part.counts) for _, part in parts) * len(known) * _POINTER_BYTES > _LISTED_BYTES:
            self._dropped.add(path)
            return
        self._parts[path] = [(first, Values(part.counts, known * len(part.counts))) for first, part in parts]

    def topic(self) -> Topic:
        """Return the topic, its messages in the order of their log times."""
        units, places, sizes, log, publish = (
            np.concatenate([np.empty(0, dtype), *(row[i] for row in self._index)])
            for i, dtype in enumerate((np.int32, np.int64, np.int32, np.int64, np.int64))
        )
        self._index.clear()
        order = np.argsort(log, kind="stable")
        sorted_already = bool(np.all(log[1:] >= log[:-1]))
        if not sorted_already:
            units, places, sizes, log, publish = (row[order] for row in (units, places, sizes, log, publish))
        channel = self._channel
        decoder = self._decoder or JsonDecoder()
        spare = decoder.spare
        if spare:
            self._warnings.append(f"{spare:,} messages have bytes behind what their definition tells")
        topic = Topic(
            path=self._wanted.path,
            name=channel.topic,
            type=channel.type,
            encoding=channel.encoding,
            language=channel.language,
            about=channel.about,
            container=self._container,
            decoder=decoder,
            problem=self._problem,
            warnings=tuple(self._warnings),
            log_times=log,
            publish_times=publish if self._published else None,
            _units=units,
            _places=places,
            _sizes=sizes,
        )
        leaves = decoder.leaves if self._decoder else {}
        topic.columns = {
            path: self._column(topic, leaf, None if sorted_already else order)
            for path, leaf in leaves.items()
        }
        return topic

    def _column(self, topic: Topic, leaf: Leaf, order: Counts | None) -> Column:
        parts = self._parts.pop(leaf.path, [])
        counts = _filled([(first, values.counts) for first, values in parts], topic.count)
        same = None if leaf.path in self._dropped else self._same.get(leaf.path)
        if same is not None:
            return Column(topic, leaf, "", _shape(leaf, counts), counts, None, same)
        kept = None if leaf.path in self._dropped else _joined(leaf, [values for _, values in parts])
        if order is not None:
            kept = None if kept is None else _reordered(kept, counts, order)
            counts = _steady(counts[order])
        dtype = kept.dtype.name if isinstance(kept, np.ndarray) else leaf.dtype
        return Column(topic, leaf, dtype, _shape(leaf, counts), counts, kept)


def _steady(counts: Counts) -> Counts:
    """Return counts in the space of one, if all are the same."""
    if not len(counts) or counts.strides == (0,):
        return counts
    return _alike(counts[0], len(counts)) if (counts == counts[0]).all() else counts


def _alike(count: np.int64, length: int) -> Counts:
    # As `np.broadcast_to`, which takes longer than decoding a leaf of a few messages.
    return np.ndarray((length,), np.int64, np.array(count), strides=(0,))


def _joined_counts(parts: Sequence[Counts]) -> Counts:
    first = parts[0][0]
    if all(part.strides == (0,) and part[0] == first for part in parts):
        return _alike(first, sum(map(len, parts)))
    return np.concatenate(parts)


def _filled(parts: Sequence[tuple[int, Counts]], length: int) -> Counts:
    """Return the counts of all messages; those of which no part tells have none."""
    if parts and sum(len(counts) for _, counts in parts) == length:
        return _steady(_joined_counts([counts for _, counts in parts]))
    whole = np.zeros(length, np.int64)
    for first, counts in parts:
        whole[first : first + len(counts)] = counts
    return _steady(whole)


def _joined(leaf: Leaf, parts: Sequence[Values]) -> Array | list[str] | None:
    if leaf.kind == "text":
        return [text for part in parts for text in part.flat or ()]
    arrays = [part.flat for part in parts if isinstance(part.flat, np.ndarray)]
    return np.concatenate([np.empty(0, leaf.dtype), *arrays]).astype(leaf.dtype, copy=False)


def _reordered(kept: Array | list[str], counts: Counts, order: Counts) -> Array | list[str]:
    ends = np.cumsum(counts)
    spans = [(int(ends[i] - counts[i]), int(ends[i])) for i in order.tolist()]
    if isinstance(kept, list):
        return [text for start, stop in spans for text in kept[start:stop]]
    return np.concatenate([np.empty(0, kept.dtype), *(kept[start:stop] for start, stop in spans)])


def _shape(leaf: Leaf, counts: Counts) -> tuple[int, ...] | None:
    if not len(counts) or np.any(counts != counts[0]):
        return None
    count, width = int(counts[0]), max(1, len(leaf.axes))
    if leaf.shape is not None and math.prod(leaf.shape) == count:
        return leaf.shape
    return (count // width, width) if leaf.axes else (count,)


def decoder_of(channel: Channel, of: Format, distribution: str = "") -> Decoder:
    """Return what decodes a channel's messages; `DefinitionError` if nothing does, and why."""
    if channel.encoding == "json":
        return JsonDecoder(channel.schema if channel.language == "jsonschema" else b"")
    if channel.encoding == "protobuf" and channel.language == "protobuf":
        return ProtobufDecoder(channel.schema, channel.type, of)
    if channel.encoding == "ros1" and channel.language == "ros1msg":
        return RosDecoder(_tree(channel, "ros1"), cdr=False)
    if channel.encoding == "cdr" and channel.language in {"ros2msg", "ros2idl"}:
        return RosDecoder(_tree(channel, "ros2"), cdr=True)
    if channel.encoding == "cdr" and not channel.schema:
        return published_decoder(channel.type, of, distribution)
    told = f"messages in {channel.encoding!r} with a schema in {channel.language or 'nothing'!r} are not read"
    raise DefinitionError(told)


def published_decoder(type_: str, of: Format, distribution: str) -> Decoder:
    """Return a decoder by the definition that ROS 2 itself published; `DefinitionError` if there is none."""
    types = published(distribution, of)
    if plain_type(type_) not in types:
        raise DefinitionError(
            f"the recording does not define {type_}, and it is not one of ROS 2's own types"
        )
    return RosDecoder(tree_of(types, type_, "ros2"), cdr=True)


def _tree(channel: Channel, dialect: str) -> Struct:
    try:
        text = channel.schema.decode()
    except UnicodeDecodeError as error:
        raise DefinitionError(f"its definition is no UTF-8: {error}") from error
    parse = parse_idl if channel.language == "ros2idl" else parse_text
    return tree_of(parse(text, channel.type), channel.type, dialect)
