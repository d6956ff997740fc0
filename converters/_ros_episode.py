"""A recording of topics as one episode, without being told what its topics mean.

Every leaf of every topic gets a fate. Numbers become streams on the clock of their topic; an array whose
length differs from message to message is kept as all of its values one after the other, on a clock of its
own, and its lengths. Texts become events, or part of the header if they never change. Pictures, video, joints
and transforms are known by their types. What a topic is for is not known: nothing is called an action, and
only what a type is made to observe is called an observation, if the topic's name does not speak of commands.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..schemas import UNKNOWN, Episode, Json, SourceFile
from ._draft import Draft
from ._ros_clocks import Taken, taken
from ._ros_kinds import KnownTopicDraft
from ._ros_topic import INSTRUCTION, Shared, TopicOptions
from ._ros_transforms import TRANSFORMS, pairs_of
from ._topics import Kind, Recording, Source
from .base import source_file

MAX_COLUMNS = 50_000


def episode_of(converter: TopicOptions, kind: Kind, path: Path, version: str) -> Iterator[Episode]:
    """Yield the episode of a recording; none if it holds no message that can be read."""
    source = Source(kind, path, converter.format, tuple(converter.skip))
    recording = source.recording()
    draft = Draft(recording.path)
    _tell_container(draft, recording)
    for name in source.skip:
        draft.drop(name, "left out by the option skip")
    _fill(Shared(draft, source, recording, converter))
    if not draft.streams:
        return
    if converter.instruction:
        draft.instruct(converter.instruction)
    root = recording.path if recording.path.is_dir() else recording.path.parent
    sources = [_source(path, root) for path in recording.files]
    yield draft.build(converter, sources, version=version, embodiment=converter.embodiment or UNKNOWN)


def _source(path: Path, root: Path) -> SourceFile:
    return source_file(path, root, "metadata" if path.suffix == ".yaml" else "recording")


def _tell_container(draft: Draft, recording: Recording) -> None:
    for name, value in recording.facts.header.items():
        for member, told in value.items() if isinstance(value, dict) else [("", value)]:
            where = f"{name}/{member}" if member else name
            to = ["instructions"] if INSTRUCTION.search(where) and draft.instruct(told) else []
            draft.tell(where, told, "container", to)
    for where, why in recording.facts.losses:
        draft.drop(where, why)
    for warning in recording.facts.warnings:
        draft.warn(warning)


def _fill(shared: Shared) -> None:
    """Give every topic its times, and then every leaf of it a fate."""
    topics = shared.recording.topics
    about: dict[str, Json] = {}
    chosen: dict[str, Taken] = {}
    for name, topic in topics.items():
        told = {"type": topic.type, "encoding": topic.encoding, "messages": topic.count}
        about[name] = {**topic.about, **told}
        for warning in topic.warnings:
            shared.draft.warn(f"{name}: {warning}")
        if topic.problem:
            shared.draft.drop(name, topic.problem)
            shared.draft.warn(f"{name}: {topic.count:,} messages are not read: {topic.problem}")
        elif not topic.count:
            shared.draft.drop(name, "has no messages")
        else:
            path, stamps = topic.stamps() or ("", None)
            chosen[name] = taken(topic.log_times, stamps, path)
    # Transforms have stamps of their own, which may come first.
    pairs = {name: pairs_of(topics[name]) for name in chosen if topics[name].short_type in TRANSFORMS}
    starts = [int(one.times[0]) for one in chosen.values()]
    starts += [int(pair.taken.times[0]) for found in pairs.values() for pair in found or ()]
    start = min(starts, default=0)
    shared.draft.extra["recording"] = {"start_ns": start, "topics": about}
    columns = [column for name in chosen for column in topics[name].columns.values()]
    if len(columns) > MAX_COLUMNS:
        shared.draft.refuse(
            "topics", f"has {len(columns):,} fields; at most {MAX_COLUMNS:,} are read", "Skip some"
        )
    alone = all(column.leaf.kind == "text" or not column.total for column in columns)
    for name, one in chosen.items():
        KnownTopicDraft(shared, name, one, start, pairs.get(name)).fill(keep_log=alone)
