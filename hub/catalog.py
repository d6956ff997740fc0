"""The commit log in a storage: create, load, commit.

``catalog/<version>.json`` is created only if absent, so of two writers one wins and the other looks again.
``catalog/head.json`` is laid before the first entry and told of each later one: a head that is ahead of the
log, or missing, means that the log lost entries; one that is behind is what a crash leaves.
"""

from __future__ import annotations

import random
import re
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from hashlib import sha256

from ..schemas import ConflictError, DamageError, StoreError, canonical, strict_json
from .checkpoint import read_checkpoint, write_checkpoint
from .layout import group_document
from .log import (
    CATALOG,
    FORMAT,
    HEAD,
    Add,
    CheckpointNote,
    Create,
    Entry,
    File,
    Head,
    Operation,
    Replace,
    SetRights,
    Withdraw,
    check_format,
    entry_key,
    head_bytes,
    new_entry,
    operation_document,
    parse_entry,
    parse_operation,
    read_head,
    read_or_none,
)
from .state import State, Where, Withdrawal, replay
from .storage import Storage

__all__ = [
    "CATALOG",
    "CHECKPOINT_EVERY",
    "Add",
    "Catalog",
    "Create",
    "Entry",
    "File",
    "Operation",
    "Replace",
    "SetRights",
    "State",
    "Where",
    "Withdraw",
    "Withdrawal",
    "operation_document",
    "parse_operation",
]

CHECKPOINT_EVERY = 100
"""Entries between two checkpoints."""

_ENTRY = re.compile(rf"{CATALOG}/\d{{8}}\.json")
_ROOT = "zarr.json"
_SEGMENTS = "segments/zarr.json"
_TRIES = 1000
_LONGEST_PAUSE_S = 0.5
_PARALLEL = 16


class Catalog:
    """The log of one store. It remembers the newest state it saw, so that loading again reads only the news.

    Parameters
    ----------
    storage
        Where the store lies.
    """

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self._known: State | None = None

    # ------------------------------------------------------------ reading

    def load(self) -> State:
        """Return the newest state.

        Raises
        ------
        StoreError
            If there is no store, or a newer teleopen wrote it.
        DamageError
            If the log is not what was written; the file is named.
        """
        known = self._known
        head = self._head()
        start = known or self._from_checkpoint(head)
        state = replay(start, self._following(start, head))
        if state is None:
            raise StoreError(self.storage.url, "its creation was interrupted; create it again")
        if known is None:
            self._check_numbers(state.version)
        self._known = state
        return state

    def entries(self) -> Iterator[Entry]:
        """Yield every entry, each checked by itself and against the one before it."""
        yield from self._following(None, self._head())

    def check(self) -> State:
        """Return what the whole log tells, without any checkpoint; raise `DamageError` if it is not whole."""
        state = replay(None, self.entries())
        if state is None:
            raise StoreError(self.storage.url, "its creation was interrupted; create it again")
        self._check_numbers(state.version)
        return state

    def _head(self) -> Head:
        head = read_head(self.storage)
        if head is None:
            raise StoreError(self.storage.url, "holds no store; create one first")
        return head

    def _from_checkpoint(self, head: Head) -> State | None:
        """Return the state of the newest checkpoint, or None: the log alone tells everything."""
        if head.checkpoint is None:
            return None
        try:
            return read_checkpoint(self.storage, head, head.checkpoint)
        except DamageError:
            return None  # `verify` tells of it

    def _following(self, state: State | None, head: Head) -> Iterator[Entry]:
        """Yield the entries after a state: those that the head knows of, then whatever came since."""
        version, previous = (state.version, state.head) if state else (0, None)
        for raw in self._read(version, head):
            version += 1
            place = self._place(entry_key(version))
            if raw is None:
                why = f"is missing, though {HEAD} tells of version {head.version}"
                raise DamageError(place, why)
            entry = parse_entry(raw, place, version, previous)
            previous = entry.sha256
            yield entry
        if head.version == version and head.sha256 != previous:
            raise DamageError(self._place(entry_key(version)), f"is not the entry that {HEAD} tells of")
        while (raw := read_or_none(self.storage, entry_key(version + 1))) is not None:
            version += 1
            entry = parse_entry(raw, self._place(entry_key(version)), version, previous)
            previous = entry.sha256
            yield entry

    def _read(self, version: int, head: Head) -> Iterator[bytes | None]:
        """Yield the bytes of the entries after ``version`` up to the head's; many at once if it is remote."""
        keys = [entry_key(number) for number in range(version + 1, head.version + 1)]
        if len(keys) < 2 or self.storage.local(CATALOG) is not None:
            yield from (read_or_none(self.storage, key) for key in keys)
            return
        with ThreadPoolExecutor(_PARALLEL, "log") as pool:
            yield from pool.map(lambda key: read_or_none(self.storage, key), keys)

    def _check_numbers(self, version: int) -> None:
        """Raise if an entry is missing that no reader asked for: before a checkpoint, or after a gap."""
        if not self.storage.can_list:
            return
        names = set(self.storage.keys(CATALOG))
        missing = [number for number in range(1, version + 1) if entry_key(number) not in names]
        if any(_ENTRY.fullmatch(name) and name > entry_key(version + 1) for name in names):
            missing.append(version + 1)
        for key in map(entry_key, missing):
            # A listing may miss what is created meanwhile, so it is asked for by name.
            if not self.storage.exists(key):
                raise DamageError(self._place(key), "is missing, though later entries are there")

    def _place(self, key: str) -> str:
        return f"{self.storage.url}/{key}"

    # ------------------------------------------------------------ writing

    def create(self, author: str) -> State:
        """Create the store, or finish what a crash left of its creation, or load it if it is there.

        Of many who create one store at once, the first decides its id, and all get the same state.

        Raises
        ------
        StoreError
            If something else lies there.
        """
        if not self.storage.exists(entry_key(1)):
            self._lay(author)
        return self.load()

    def _lay(self, author: str) -> None:
        """Lay the files of an empty store, in such an order that each prefix of it is told from damage."""
        head = read_head(self.storage)
        if head is not None and head.version:
            return  # either another has just created it, or its first entry is lost: loading tells
        told = {"teleopen": {"format": FORMAT, "dataset": str(uuid.uuid4())}}
        root = self._first_wins(_ROOT, canonical(group_document(told)))
        dataset = self._dataset(root)
        segments = self._first_wins(_SEGMENTS, canonical(group_document({})))
        self._first_wins(HEAD, head_bytes(Head()))
        files = {key: _file(raw) for key, raw in ((_ROOT, root), (_SEGMENTS, segments))}
        first = new_entry(1, None, author, (Create(dataset, files),))
        with suppress(FileExistsError):
            self.storage.create(entry_key(1), first)
        self._tell(self.load())

    def _first_wins(self, key: str, data: bytes) -> bytes:
        """Create an object if there is none, and return the one that is there."""
        try:
            self.storage.create(key, data)
        except FileExistsError:
            return self.storage.read(key)
        return data

    def _dataset(self, root: bytes) -> str:
        place = self._place(_ROOT)
        try:
            told = strict_json(root)["attributes"]["teleopen"]
            dataset = told["dataset"]
            check_format(told["format"], place)
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(place, "is of something else; give an empty place") from error
        return str(dataset)

    def commit(self, build: Callable[[State], Sequence[Operation]], author: str) -> State:
        """Append an entry, and return the state after it.

        Parameters
        ----------
        build
            Given the newest state, returns the operations, or none if there is nothing to do. Called again
            whenever another writer was faster, so it checks each time what it rests on, and raises
            `ConflictError` if that is gone.
        author
            Who is answerable, as the log shall say.

        Raises
        ------
        ConflictError
            From ``build``, or because its operations contradict the log; nothing was written.
        SchemaError
            If an operation holds what an entry may not; nothing was written.
        StoreError
            If storage failed. The entry may or may not be there, never half; commit again to be sure.
        """
        for attempt in range(_TRIES):
            state = self.load()
            operations = tuple(build(state))
            if not operations:
                return state
            key = entry_key(state.version + 1)
            raw = new_entry(state.version + 1, state.head, author, operations)
            after = self._after(state, raw)
            try:
                self.storage.create(key, raw)
            except FileExistsError:
                time.sleep(random.uniform(0, min(_LONGEST_PAUSE_S, 0.002 * 2 ** min(attempt, 9))))
                continue
            self._known = after
            self._tell(after)
            return after
        raise ConflictError(self.storage.url, f"{_TRIES} times another writer was faster; try again later")

    def _after(self, state: State, raw: bytes) -> State:
        """Return the state after a new entry, from its bytes: what every reader will make of it."""
        version = state.version + 1
        try:
            return replay(state, [parse_entry(raw, self._place(entry_key(version)), version, state.head)])
        except DamageError as error:
            raise ConflictError(error.path, error.why) from error

    def _tell(self, state: State) -> None:
        """Bring the head up to the newest version. It is a hint: the commit stands even if this fails."""
        with suppress(StoreError):
            head = self._head()
            while head.version < state.version:
                told = Head(
                    version=state.version, sha256=state.head, checkpoint=self._checkpoint(head, state)
                )
                self.storage.replace(HEAD, head_bytes(told))
                # Another writer's newer head may have been overwritten just now; if so, its entry is there.
                head, state = told, replay(state, self._following(state, told))

    def _checkpoint(self, head: Head, state: State) -> CheckpointNote | None:
        """Return what the head is to say of a checkpoint, having written one if it is time."""
        if state.version - (head.checkpoint.version if head.checkpoint else 0) >= CHECKPOINT_EVERY:
            with suppress(StoreError):  # the log stands without; the next commit tries again
                return write_checkpoint(self.storage, state)
        return head.checkpoint


def _file(raw: bytes) -> File:
    return File(size=len(raw), sha256=sha256(raw).hexdigest())
