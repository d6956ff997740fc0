"""Checkpoints: the state of a store in one Parquet file, so that opening it need not read every entry.

Derived and never trusted alone: the head holds the file's SHA-256, and the file names the entry it stands
for. The table has one row per live episode, for whoever wants to query a store without this package; what
is not per episode lies in the metadata under ``teleopen``, as JSON.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import numpy as np

from ..schemas import (
    DamageError,
    Json,
    NotFoundError,
    SchemaError,
    canonical,
    from_document,
    strict_json,
    to_document,
)
from ..schemas.episode import Digest
from .log import (
    CATALOG,
    FORMAT,
    Add,
    CheckpointNote,
    DatasetId,
    Entry,
    File,
    Head,
    check_format,
    entry_key,
    parse_entry,
    read_head,
    read_or_none,
)
from .state import State, Where, Withdrawal, contents_of, replay
from .storage import Storage

_COLUMNS = ("episode", "segment", "row", "content", "rights")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rest:
    """What of a state is not in the table. ``segments`` are without episodes, in order."""

    version: int
    head: Digest
    dataset: DatasetId
    files: Mapping[str, File]
    segments: tuple[Add, ...]
    rights: Mapping[str, Mapping[str, Json]]
    withdrawn: Mapping[str, Withdrawal]


def checkpoint_key(version: int) -> str:
    """Return the key of a checkpoint."""
    return f"{CATALOG}/checkpoint-{version:08d}.parquet"


def write_checkpoint(storage: Storage, state: State) -> CheckpointNote:
    """Write the checkpoint of a state, unless a good one is there, and return what the head is to say."""
    key = checkpoint_key(state.version)
    raw = encode_checkpoint(state)
    try:
        storage.create(key, raw)
    except FileExistsError:
        # Another version of pyarrow may have put the same state into other bytes.
        raw = storage.read(key)
        if _decode(raw, f"{storage.url}/{key}") != state:
            raise DamageError(f"{storage.url}/{key}", "is not the state that the log tells") from None
    return CheckpointNote(version=state.version, sha256=sha256(raw).hexdigest())


def read_checkpoint(storage: Storage, head: Head, note: CheckpointNote) -> State:
    """Return the state in a checkpoint.

    Parameters
    ----------
    head
        Tells the checksum of the entry that the checkpoint stands for, if that is the newest.

    Raises
    ------
    DamageError
        If it is missing, not what was written, or not of this log.
    """
    key = checkpoint_key(note.version)
    place = f"{storage.url}/{key}"
    try:
        raw = storage.read(key)
    except NotFoundError as error:
        raise DamageError(place, "is missing") from error
    if sha256(raw).hexdigest() != note.sha256:
        raise DamageError(place, "was changed after it was written: its checksum differs")
    state = _decode(raw, place)
    if state.version != note.version or state.head != _entry_sha256(storage, head, note.version):
        raise DamageError(place, "does not belong to this log")
    return state


def _entry_sha256(storage: Storage, head: Head, version: int) -> str | None:
    if head.version == version and storage.local(CATALOG) is None:
        return head.sha256  # one request less; whether the entry itself is whole is for `verify`
    entry = read_or_none(storage, entry_key(version))
    return None if entry is None else sha256(entry).hexdigest()


def check_checkpoints(storage: Storage, state: State) -> Iterator[tuple[str, str]]:
    """Yield (key, what is wrong) for the checkpoint that the head names; nobody reads any other.

    Parameters
    ----------
    state
        What the whole log tells.
    """
    head = read_head(storage)
    if head is None or head.checkpoint is None or head.checkpoint.version > state.version:
        return
    key = checkpoint_key(head.checkpoint.version)
    try:
        found = read_checkpoint(storage, head, head.checkpoint)
        caught_up = replay(found, _entries_between(storage, found, state.version))
    except DamageError as error:
        yield key, error.why
    else:
        if caught_up != state or list(caught_up.episodes) != list(state.episodes):
            yield key, "is not the state that the log tells"


def _entries_between(storage: Storage, state: State, last: int) -> Iterator[Entry]:
    previous = state.head
    for version in range(state.version + 1, last + 1):
        key = entry_key(version)
        entry = parse_entry(storage.read(key), f"{storage.url}/{key}", version, previous)
        previous = entry.sha256
        yield entry


def encode_checkpoint(state: State) -> bytes:
    """Return the bytes of a state's checkpoint."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    digests: dict[int, str] = {}
    table: dict[str, Json] = {}
    for document in [*state.rights.values(), *(add.rights for add in state.segments.values())]:
        # Episodes of one operation share one record.
        if id(document) not in digests:
            digests[id(document)] = sha256(canonical(document)).hexdigest()
            table[digests[id(document)]] = document
    rest = _Rest(
        version=state.version,
        head=state.head,
        dataset=state.dataset,
        files=state.files,
        segments=tuple(
            replace(add, episodes={}, contents={}, rights={"sha256": digests[id(add.rights)]})
            for add in state.segments.values()
        ),
        rights=table,
        withdrawn=state.withdrawn,
    )
    places = state.episodes.values()
    text = pa.dictionary(pa.int32(), pa.string())
    columns = {
        "episode": pa.array(list(state.episodes), pa.string()),
        "segment": pa.array([where.segment for where in places], pa.string()).cast(text),
        "row": pa.array([where.row for where in places], pa.int64()),
        "content": pa.array(
            [state.segments[w.segment].contents[e] for e, w in state.episodes.items()], pa.string()
        ),
        "rights": pa.array([digests[id(document)] for document in state.rights.values()], pa.string()).cast(
            text
        ),
    }
    metadata = {"teleopen": canonical({"format": FORMAT, **to_document(rest)})}
    sink = io.BytesIO()
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), sink, compression="zstd")
    return sink.getvalue()


def _decode(raw: bytes, place: str) -> State:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(io.BytesIO(raw)).read()
        document = strict_json((table.schema.metadata or {})[b"teleopen"])
        columns = [_values(table[name]) for name in _COLUMNS]
        check_format(document.pop("format", None), place)
        lengths = [_taken_lengths(add) for add in document["segments"]]
        return _restored(from_document(_Rest, document), lengths, columns)
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError, SchemaError) as error:
        if isinstance(error, DamageError):
            raise
        raise DamageError(place, f"is no checkpoint: {error}") from error


def _values(column: Any) -> list[Any]:
    """Return the values of a column; equal ones of a dictionary are one object."""
    import pyarrow as pa

    if not pa.types.is_dictionary(column.type):
        found: list[Any] = column.to_numpy(zero_copy_only=False).tolist()
        return found
    found = []
    for chunk in column.chunks:
        words = chunk.dictionary.to_pylist()
        found += [words[index] for index in chunk.indices.to_numpy(zero_copy_only=False).tolist()]
    return found


def _taken_lengths(add: Any) -> dict[str, tuple[int, ...]]:
    """Take the lengths out of a segment's document: they are so many that they are checked as arrays."""
    found = {clock: np.array(told) for clock, told in add.pop("lengths", {}).items()}
    for clock, told in found.items():
        if told.ndim != 1 or (told.size and (told.dtype.kind != "i" or told.min() < 0)):
            raise ValueError(f"lengths.{clock}: must be whole numbers from 0")
    return {clock: tuple(told.tolist()) for clock, told in found.items()}


def _restored(
    rest: _Rest, lengths: Sequence[Mapping[str, tuple[int, ...]]], columns: list[list[Any]]
) -> State:
    rows: dict[str, dict[str, int]] = {add.segment: {} for add in rest.segments}
    contents: dict[str, dict[str, str]] = {add.segment: {} for add in rest.segments}
    episodes, rights = {}, {}
    for episode, segment, row, content, digest in zip(*columns, strict=True):
        episodes[episode] = Where(segment, row)
        rows[segment][episode] = row
        contents[segment][episode] = content
        rights[episode] = rest.rights[digest]
    segments = {
        add.segment: replace(
            add,
            episodes=rows[add.segment],
            contents=contents[add.segment],
            rights=rest.rights[add.rights["sha256"]],
            lengths=told,
        )
        for add, told in zip(rest.segments, lengths, strict=True)
    }
    return State(
        version=rest.version,
        head=rest.head,
        dataset=rest.dataset,
        files=rest.files,
        segments=segments,
        episodes=episodes,
        contents=contents_of(episodes, segments),
        rights=rights,
        withdrawn=rest.withdrawn,
    )
