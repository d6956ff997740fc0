"""The commit log's files: entries, head, and the operations they tell of; bytes to values and back.

Each file is one sealed JSON document: canonical bytes and a newline, with a checksum over all other members.
So there is one way to write it, and any changed byte shows. Each entry holds the SHA-256 of the one before.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import Annotated

from ..schemas import (
    DamageError,
    Json,
    NotFoundError,
    Problem,
    SchemaError,
    StoreError,
    canonical,
    from_document,
    strict_json,
    to_document,
)
from ..schemas.episode import Bound, ClockName, Count, Digest
from .storage import Storage, safe_key
from .version import TOOL

FORMAT = 1
CATALOG = "catalog"
HEAD = f"{CATALOG}/head.json"

SegmentId = Annotated[str, Bound(pattern=r"^[0-9a-f]{32}$")]
DatasetId = Annotated[str, Bound(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
EpisodeId = Annotated[str, Bound(pattern=r"^[^\x00-\x20\x7f]{1,255}$")]
Line = Annotated[str, Bound(pattern=r"^[^\x00-\x1f\x7f]{1,200}$")]
Time = Annotated[str, Bound(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$")]


@dataclass(frozen=True, slots=True)
class File:
    """What a file was when it was committed: bytes and SHA-256."""

    size: Count
    sha256: Digest


@dataclass(frozen=True, slots=True)
class Create:
    """The first operation of a store: its id, and the files that lie outside of segments."""

    dataset: DatasetId
    files: Mapping[str, File]


@dataclass(frozen=True, slots=True)
class Add:
    """A segment joins.

    Attributes
    ----------
    segment
        Its id, which is its folder's name.
    files
        Every file in it, by path below the folder.
    episodes
        Id of each episode and its row in the segment.
    contents
        Id of each episode and the SHA-256 of its content.
    rights
        The record that all of them have at first.
    lengths
        Samples on each clock, by row, so that windows can be drawn before any segment is opened. Stores
        that were written before this was told have none.
    """

    segment: SegmentId
    files: Mapping[str, File]
    episodes: Mapping[EpisodeId, Count]
    contents: Mapping[EpisodeId, Digest]
    rights: Mapping[str, Json]
    lengths: Mapping[ClockName, tuple[Count, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SetRights:
    """Live episodes get another rights record."""

    episodes: tuple[EpisodeId, ...]
    rights: Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Live episodes are gone for every reader of the log from here on."""

    episodes: tuple[EpisodeId, ...]
    ground: Line
    note: str = ""


@dataclass(frozen=True, slots=True)
class Replace:
    """Segments leave and others come, in one step: compaction, cutting, purging.

    Episodes that come again keep their place in the order and their rights; the others are live no more.
    """

    remove: tuple[SegmentId, ...]
    add: tuple[Add, ...]


Operation = Create | Add | SetRights | Withdraw | Replace

_OPERATIONS: dict[str, type[Operation]] = {
    "create": Create,
    "add": Add,
    "rights": SetRights,
    "withdraw": Withdraw,
    "replace": Replace,
}
_WORDS = {cls: word for word, cls in _OPERATIONS.items()}


def operation_document(operation: Operation) -> dict[str, Json]:
    """Return the JSON document of an operation."""
    return {"op": _WORDS[type(operation)], **to_document(operation)}


def checked_operation(document: Json) -> Operation:
    """Return the operation that a document tells of, or raise `SchemaError`."""
    if not isinstance(document, Mapping) or document.get("op") not in _OPERATIONS:
        raise SchemaError([Problem("op", f"must be one of {', '.join(_OPERATIONS)}")])
    members = {name: value for name, value in document.items() if name != "op"}
    operation = from_document(_OPERATIONS[document["op"]], members)
    problems = list(_problems(operation))
    if problems:
        raise SchemaError(problems)
    return operation


def parse_operation(document: Json, place: str) -> Operation:
    """Return the operation that a stored document tells of, or raise `DamageError` about ``place``."""
    try:
        return checked_operation(document)
    except SchemaError as error:
        raise DamageError(place, str(error)) from error


def _problems(operation: Operation) -> Iterator[Problem]:
    if isinstance(operation, Replace):
        for add in operation.add:
            yield from _problems(add)
    if isinstance(operation, Create | Add):
        for path in operation.files:
            try:
                safe_key(path)
            except StoreError as error:
                yield Problem("files", str(error))
    if isinstance(operation, Add):
        if operation.episodes.keys() != operation.contents.keys():
            yield Problem("contents", "must tell of the same episodes as `episodes`", "conflict")
        if len(set(operation.episodes.values())) < len(operation.episodes):
            yield Problem("episodes", "two share a row", "conflict")
        for clock, lengths in operation.lengths.items():
            if operation.episodes and max(operation.episodes.values()) >= len(lengths):
                yield Problem(f"lengths.{clock}", "must tell of every row", "conflict")


# ---------------------------------------------------------------- sealed documents


def sealed(members: Mapping[str, Json]) -> bytes:
    """Return the bytes of a log file with these members: with its format and checksum."""
    document = {"format": FORMAT, **members}
    checksum = sha256(canonical(document)).hexdigest()
    return canonical({**document, "checksum": checksum}) + b"\n"


def unsealed(raw: bytes, place: str) -> dict[str, Json]:
    """Return the members of a log file without format and checksum.

    Raises
    ------
    DamageError
        If these are not the bytes that were written.
    StoreError
        If they are, by a newer format.
    """
    try:
        document = strict_json(raw)
        if not isinstance(document, dict) or canonical(document) + b"\n" != raw:
            raise DamageError(place, "is not in canonical form: it was changed after it was written")
        told = document.pop("checksum", None)
        if told != sha256(canonical(document)).hexdigest():
            raise DamageError(place, "was changed after it was written: its checksum differs")
    except ValueError as error:
        raise DamageError(place, f"is not JSON: {error}") from error
    check_format(document.pop("format", None), place)
    return document


def check_format(told: Json, place: str) -> None:
    """Raise unless a document's format is the one that is read here."""
    if isinstance(told, int) and told > FORMAT:
        raise StoreError(place, f"written by a newer teleopen (format {told}); this reads format {FORMAT}")
    if type(told) is not int or told != FORMAT:
        raise DamageError(place, f"its format is {told!r}; must be {FORMAT}")


# ---------------------------------------------------------------- entries


@dataclass(frozen=True, slots=True, kw_only=True)
class _Frame:
    """The members of an entry but for its operations."""

    version: Count
    id: SegmentId
    previous: Digest | None
    author: Line
    time: Time
    tool: Line


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One commit, as it lies in the log.

    Attributes
    ----------
    place
        The file, for messages.
    sha256
        Of its bytes; the next entry's ``previous``.
    id
        Random, so that a writer whose answer was lost knows its own entry from another's.
    """

    place: str
    sha256: str
    version: int
    id: str
    previous: str | None
    author: str
    time: str
    tool: str
    operations: tuple[Operation, ...]


def utc(moment: datetime) -> str:
    """Return an instant as entries tell it: RFC 3339 in UTC, to the microsecond."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def entry_key(version: int) -> str:
    """Return the key of an entry."""
    return f"{CATALOG}/{version:08d}.json"


def new_entry(
    version: int,
    previous: str | None,
    author: str,
    operations: tuple[Operation, ...],
    *,
    time: str = "",
    id: str = "",
) -> bytes:
    """Return the bytes of a new entry.

    Parameters
    ----------
    time, id
        What it is to bear; else the time now, and a random id.

    Raises
    ------
    SchemaError
        If a value is none that an entry may hold.
    """
    documents = [operation_document(operation) for operation in operations]
    for document in documents:
        checked_operation(document)
    frame = _Frame(
        version=version,
        id=id or uuid.uuid4().hex,
        previous=previous,
        author=author,
        time=time or utc(datetime.now(UTC)),
        tool=TOOL,
    )
    members = to_document(frame)
    from_document(_Frame, members)
    try:
        return sealed({**members, "operations": documents})
    except UnicodeEncodeError as error:
        raise SchemaError([Problem("operations", f"is no Unicode text: {error.reason}")]) from error


def parse_entry(raw: bytes, place: str, version: int, previous: str | None) -> Entry:
    """Return the entry in a file, or raise `DamageError` if it is not the one that belongs there.

    Parameters
    ----------
    version, previous
        The number in its name, and the SHA-256 of the entry before it.
    """
    members = unsealed(raw, place)
    documents = members.pop("operations", None)
    if not isinstance(documents, list):
        raise DamageError(place, "operations: must be a list")
    try:
        frame = from_document(_Frame, members)
    except SchemaError as error:
        raise DamageError(place, str(error)) from error
    if frame.version != version:
        raise DamageError(place, f"is the entry of version {frame.version}")
    if frame.previous != previous:
        raise DamageError(place, "does not follow the entry before it: one of them was exchanged")
    return Entry(
        place=place,
        sha256=sha256(raw).hexdigest(),
        version=version,
        id=frame.id,
        previous=previous,
        author=frame.author,
        time=frame.time,
        tool=frame.tool,
        operations=tuple(parse_operation(document, place) for document in documents),
    )


# ---------------------------------------------------------------- head


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointNote:
    """The newest checkpoint: the version it stands for, and the SHA-256 of its file."""

    version: Count
    sha256: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A hint at the newest entry, laid before the first one and never ahead of the log.

    Version 0 says that no entry was known yet.
    """

    version: Count = 0
    sha256: Digest | None = None
    checkpoint: CheckpointNote | None = None


def head_bytes(head: Head) -> bytes:
    """Return the bytes of ``head.json``."""
    return sealed(to_document(head))


def read_head(storage: Storage) -> Head | None:
    """Return the hint, or None if there is none and no entry either.

    Raises
    ------
    DamageError
        If it was changed, or is gone while there are entries.
    """
    place = f"{storage.url}/{HEAD}"
    raw = read_or_none(storage, HEAD)
    if raw is None:
        if not storage.exists(entry_key(1)):
            return None
        # Both may have come between the two looks.
        raw = read_or_none(storage, HEAD)
    if raw is None:
        raise DamageError(place, "is missing, though the log has entries")
    try:
        head = from_document(Head, unsealed(raw, place))
    except SchemaError as error:
        raise DamageError(place, str(error)) from error
    if (head.version == 0) != (head.sha256 is None):
        raise DamageError(place, "sha256: must be told of every version but 0")
    return head


def read_or_none(storage: Storage, key: str) -> bytes | None:
    """Return an object, or None if it is absent."""
    try:
        return storage.read(key)
    except NotFoundError:
        return None
