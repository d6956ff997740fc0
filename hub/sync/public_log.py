"""The public commit log: made anew for the public, never a copy of the private one.

It tells of public segments, of public rights, and of what left. Its entries say neither who works in the
private store nor what stays there. A place that nothing changes at gets no entry.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from hashlib import sha256

from ...schemas import DamageError, Json, SchemaError, StoreError, canonical, from_document, strict_json
from ..catalog import CHECKPOINT_EVERY, Add, Catalog, Create, Operation, Replace, SetRights, State, Withdraw
from ..checkpoint import checkpoint_key, encode_checkpoint
from ..layout import group_document
from ..log import (
    FORMAT,
    HEAD,
    CheckpointNote,
    File,
    Head,
    Time,
    entry_key,
    head_bytes,
    new_entry,
    operation_document,
    parse_entry,
    read_head,
    read_or_none,
)
from ..state import replay
from ..storage import Storage, safe_key
from .tree import MANIFEST, Blob, PublicState, Tombstone

AUTHOR = "publisher"
"""Whom public entries name unless told otherwise: the publisher's login name is nobody's business."""
ROOT, SEGMENTS = "zarr.json", "segments/zarr.json"


def dataset_id(target: str) -> str:
    """Return the id of the public store at a target: the same for all who publish to it."""
    raw = bytearray(sha256(f"teleopen-public-1\n{target}".encode()).digest()[:16])
    raw[6] = (raw[6] & 0x0F) | 0x80
    raw[8] = (raw[8] & 0x3F) | 0x80
    return str(uuid.UUID(bytes=bytes(raw)))


def read_public(storage: Storage, base: str | None, files: Mapping[str, File] | None = None) -> PublicState:
    """Return what a place holds.

    Parameters
    ----------
    storage
        Reads one revision of it.
    base
        The target's own name of that revision.
    files
        Every file there, if the target can tell. Else those are taken that its log and manifest tell of.

    Raises
    ------
    DamageError
        If its log or its manifest is not what was written.
    """
    raw = read_or_none(storage, MANIFEST)
    manifest = parse_manifest(raw, f"{storage.url}/{MANIFEST}") if raw is not None else {}
    head = read_head(storage)
    state = None if head is None else Catalog(storage).load()
    if files is None:
        files = told_files(manifest)
        if raw is not None:
            files = {**files, MANIFEST: File(size=len(raw), sha256=sha256(raw).hexdigest())}
    return PublicState(
        base=base,
        state=state,
        manifest=manifest,
        files=files,
        checkpoint=head.checkpoint if head else None,
        storage=storage,
    )


def parse_manifest(raw: bytes, place: str) -> dict[str, Json]:
    """Return the document of a manifest that a stranger may have written.

    Raises
    ------
    DamageError
        If it is none.
    """
    try:
        document: dict[str, Json] = strict_json(raw)
        told_files(document)
        from_document(_Told, {name: document[name] for name in _TOLD if name in document})
        if not all(type(one[name]) is str for one in document.get("episodes", ()) for name in _EPISODE):
            raise ValueError("an episode is told of in what is no text")
    except (ValueError, KeyError, TypeError, AttributeError, SchemaError, StoreError) as error:
        raise DamageError(place, f"is no manifest: {error!r}") from error
    return document


@dataclass(frozen=True, slots=True, kw_only=True)
class _Told:
    """What of a manifest is acted on, but for files and episodes, of which there are many."""

    time: Time | None = None
    licence: str = ""
    policy: Mapping[str, str] = field(default_factory=dict)
    records: Mapping[str, Mapping[str, Json]] = field(default_factory=dict)
    tombstones: tuple[Tombstone, ...] = ()


_TOLD = tuple(one.name for one in fields(_Told))
_EPISODE = ("id", "segment", "content", "licence", "rights")
_HASH = re.compile(r"[0-9a-f]{64}")


def told_files(manifest: Mapping[str, Json]) -> dict[str, File]:
    """Return the files that a manifest tells of; it does not tell of itself."""
    return {safe_key(one["path"]): _file(one) for one in manifest.get("files", ())}


def _file(told: Mapping[str, Json]) -> File:
    size, digest = told["size"], told["sha256"]
    if type(size) is not int or size < 0 or not _HASH.fullmatch(digest):
        raise ValueError(f"{told['path']} has no size or no SHA-256")
    return File(size=size, sha256=digest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the public store is to hold, as far as it changes.

    Attributes
    ----------
    add
        New segments.
    remove
        Ids of segments that leave.
    withdrawn
        Ground of each episode that leaves with a tombstone.
    rights
        The public rights record of every episode that is to be public.
    """

    add: Sequence[Add]
    remove: Sequence[str]
    withdrawn: Mapping[str, str]
    rights: Mapping[str, Mapping[str, Json]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """The next state of a public log, and the files that tell it; both unchanged where nothing changes."""

    state: State
    blobs: Mapping[str, Blob]
    operations: tuple[Operation, ...]


def next_entry(previous: PublicState, dataset: str, wanted: Wanted, time: str, author: str) -> Entry:
    """Return the log after one more entry that brings what is wanted.

    Raises
    ------
    StoreError
        If the entry would not bring it: a fault here, found before anything is sent.
    """
    before = previous.state
    roots = _roots(dataset) if before is None else {}
    operations: list[Operation] = []
    if before is None:
        operations.append(Create(dataset=dataset, files={path: blob.file for path, blob in roots.items()}))
    operations += _leaving(wanted.withdrawn)
    operations += _segments(before, wanted)
    operations += _rights(before, wanted)
    if before is not None and not operations:
        return Entry(state=before, blobs={}, operations=())
    version, head = (before.version + 1, before.head) if before else (1, None)
    told = [head, time, author, [operation_document(operation) for operation in operations]]
    raw = new_entry(
        version,
        head,
        author,
        tuple(operations),
        time=time,
        id=sha256(canonical(told)).hexdigest()[:32],
    )
    after = replay(before, [parse_entry(raw, entry_key(version), version, head)])
    if after is None or _differs(after, wanted):
        raise StoreError(entry_key(version), "would not bring the public log to what was decided")
    note, checkpoint = _checkpoint(previous, after)
    head_raw = head_bytes(Head(version=after.version, sha256=after.head, checkpoint=note))
    made = (Blob.of(entry_key(version), raw), Blob.of(HEAD, head_raw), *checkpoint)
    return Entry(
        state=after, blobs={**roots, **{blob.path: blob for blob in made}}, operations=tuple(operations)
    )


def _roots(dataset: str) -> dict[str, Blob]:
    told = {"teleopen": {"format": FORMAT, "dataset": dataset}}
    return {
        path: Blob.of(path, canonical(group_document(attributes)))
        for path, attributes in ((ROOT, told), (SEGMENTS, {}))
    }


def _leaving(withdrawn: Mapping[str, str]) -> list[Operation]:
    grounds: dict[str, list[str]] = {}
    for episode, ground in sorted(withdrawn.items()):
        grounds.setdefault(ground, []).append(episode)
    return [Withdraw(episodes=tuple(grounds[ground]), ground=ground) for ground in sorted(grounds)]


def _segments(before: State | None, wanted: Wanted) -> list[Operation]:
    """Replace what leaves by the segments that hold some of its episodes again; add the others."""
    public = before.episodes if before else {}
    again: list[Add] = []
    new: list[Add] = []
    for add in wanted.add:
        (again if any(episode in public for episode in add.episodes) else new).append(add)
    operations: list[Operation] = []
    if wanted.remove:
        operations.append(Replace(remove=tuple(wanted.remove), add=tuple(again)))
    return [*operations, *new]


def _rights(before: State | None, wanted: Wanted) -> list[Operation]:
    """Set the rights of those whose record is not the one that they have or come with."""
    has: dict[str, Mapping[str, Json]] = {}
    for add in wanted.add:
        has.update(dict.fromkeys(add.episodes, add.rights))
    if before is not None:
        # Whoever was public and stays so keeps its record, wherever it lies now.
        staying = before.rights.keys() - wanted.withdrawn.keys()
        has.update({episode: before.rights[episode] for episode in staying & wanted.rights.keys()})
    groups: dict[bytes, list[str]] = {}
    same: dict[tuple[int, int], bool] = {}
    keys: dict[int, bytes] = {}
    for episode, record in wanted.rights.items():
        pair = (id(has[episode]), id(record))
        if pair not in same:
            same[pair] = has[episode] == record
        if not same[pair]:
            if id(record) not in keys:
                keys[id(record)] = canonical(record)
            groups.setdefault(keys[id(record)], []).append(episode)
    return [
        SetRights(episodes=tuple(sorted(episodes)), rights=strict_json(key))
        for key, episodes in sorted(groups.items())
    ]


def _differs(after: State, wanted: Wanted) -> bool:
    if after.episodes.keys() != wanted.rights.keys():
        return True
    equal: dict[tuple[int, int], bool] = {}
    for episode, record in wanted.rights.items():
        pair = (id(after.rights[episode]), id(record))
        if pair not in equal:
            equal[pair] = after.rights[episode] == record
        if not equal[pair]:
            return True
    return not wanted.withdrawn.keys() <= after.withdrawn.keys()


def _checkpoint(previous: PublicState, after: State) -> tuple[CheckpointNote | None, Iterable[Blob]]:
    """Return what the head is to say of a checkpoint, and a new one if it is time."""
    last = previous.checkpoint
    if after.version - (last.version if last else 0) < CHECKPOINT_EVERY:
        return last, ()
    blob = Blob.of(checkpoint_key(after.version), encode_checkpoint(after))
    return CheckpointNote(version=after.version, sha256=blob.sha256), (blob,)
