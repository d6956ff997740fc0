"""Where a public tree goes: a repository of the Hugging Face Hub, or a mirror on any file system.

Both keep the same promise. A reader sees one whole state or another, never a mixture; whoever switches from
one to the next names the state that the switch rests on, and is refused if it is no longer the newest.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Protocol

from ...schemas import ConflictError, DamageError, NotFoundError, StoreError
from ..log import File
from ..storage import exactly, safe_key
from .bounds import check_size, checked_document
from .plan import Plan
from .tree import Blob, PublicState, Tombstone, tree_digest

Progress = Callable[[str, int], None]
"""Told of what goes on: the path of a file, and the bytes of it that have been dealt with."""

_PARALLEL = 8
_MOST_TOLD = 5


def silent(_path: str, _size: int) -> None:
    """Be told, and say nothing."""


class StaleError(ConflictError):
    """The target is no longer what was told of: look again, plan again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Purged:
    """What a purge did, and what it cannot reach.

    Attributes
    ----------
    base
        The target's revision afterwards.
    files
        Objects that were deleted for good, by SHA-256.
    refs
        Branches that were made anew, tags and other refs that were deleted or moved.
    remaining
        What still holds withdrawn bytes, one sentence each, with what its owner can do.
    """

    base: str
    files: tuple[str, ...]
    refs: tuple[str, ...]
    remaining: tuple[str, ...]


class Target(Protocol):
    """A place for one public tree.

    Attributes
    ----------
    url
        As it was given, and as plans name it.
    """

    url: str

    def look(self, revision: str | None = None) -> PublicState:
        """Return what is there now, or was at an earlier revision. Reads only.

        Raises
        ------
        DamageError
            If what is there contradicts itself.
        StaleError
            If newer revisions have taken the place of the one that was asked for while it was read.
        StoreError
            If it cannot be read.
        """

    def prepare(self) -> None:
        """Make the target ready to be written to, and check that it is as open as it was planned to be.

        Raises
        ------
        StoreError
            If it is not, or the right to write is missing, or it cannot tell writers apart.
        """

    def stage(self, blobs: Sequence[Blob], progress: Progress) -> None:
        """Bring bytes to the target where no reader looks. What is there already is not sent again.

        Raises
        ------
        DamageError
            If bytes are not those that were planned. They were not sent.
        """

    def unstage(self, paths: Sequence[str]) -> None:
        """Take back data that was staged here and is not to go after all."""

    def switch(self, plan: Plan) -> str:
        """Make the plan's tree what readers see, in one step, and return the new revision.

        Raises
        ------
        StaleError
            If the target is no longer at the plan's base.
        StoreError
            If it failed; whether it was done was looked up, and it was not.
        """

    def finish(self, base: str, version: int, /) -> tuple[str, ...]:
        """Do what follows a checked switch and may be done again: open, name, tidy; return what was done."""

    def probe(self, state: PublicState, paths: Sequence[str]) -> None:
        """Read files as a stranger would, and check that who is to be refused is refused.

        Raises
        ------
        DamageError
            If a stranger gets other bytes.
        StaleError
            If newer revisions have taken the place of this one.
        StoreError
            If a stranger gets what is closed, or not what is open.
        """

    def purge(self, tombstones: Sequence[Tombstone], progress: Progress) -> Purged:
        """Delete for good what withdrawn episodes left in older revisions."""


def check_tree(url: str, found: Mapping[str, File], planned: Mapping[str, File]) -> None:
    """Raise `DamageError` unless a target holds exactly the files that were planned, and these bytes."""
    if tree_digest(found) == tree_digest(planned):
        return
    wrong = [f"{path} is missing" for path in sorted(planned.keys() - found.keys())]
    wrong += [f"{path} is one too many" for path in sorted(found.keys() - planned.keys())]
    wrong += [
        f"{path} holds other bytes"
        for path in sorted(found.keys() & planned.keys())
        if found[path] != planned[path]
    ]
    more = f" and {len(wrong) - _MOST_TOLD} more" if len(wrong) > _MOST_TOLD else ""
    raise DamageError(url, f"is not what was planned: {'; '.join(wrong[:_MOST_TOLD])}{more}")


class Snapshot:
    """One revision of a target as a store's storage: read only.

    Parameters
    ----------
    url
        What it is called in messages.
    files
        All files of the revision by path.
    fetch
        Returns bytes ``start`` to ``stop`` of a file that is among them.
    """

    can_list = True

    def __init__(self, url: str, files: Mapping[str, File], fetch: Callable[[str, int, int], bytes]) -> None:
        self.url = url
        self._files = files
        self._fetch = fetch

    def _file(self, key: str) -> File:
        if safe_key(key) not in self._files:
            raise NotFoundError(f"{self.url}/{key} is not there")
        return self._files[key]

    def read(self, key: str, start: int = 0, stop: int | None = None) -> bytes:
        size, place = self._file(key).size, f"{self.url}/{key}"
        if stop is None:
            check_size(place, size)
            return checked_document(place, self._exactly(key, start, size))
        return self._exactly(key, start, min(stop, size))

    def _exactly(self, key: str, start: int, stop: int) -> bytes:
        if start >= stop:
            return b""
        return exactly(f"{self.url}/{key}", start, stop, self._fetch(key, start, stop))

    def read_many(self, ranges: Sequence[tuple[str, int, int]]) -> list[bytes]:
        with ThreadPoolExecutor(_PARALLEL, "snapshot") as pool:
            return list(pool.map(lambda wanted: self._range(*wanted), ranges))

    def _range(self, key: str, start: int, stop: int) -> bytes:
        return exactly(f"{self.url}/{key}", start, stop, self.read(key, start, stop))

    def size(self, key: str) -> int:
        return self._file(key).size

    def exists(self, key: str) -> bool:
        return safe_key(key) in self._files

    def age_s(self, keys: Sequence[str]) -> float:
        self._refuse(str(keys))

    def keys(self, prefix: str = "") -> Iterator[str]:
        below = f"{safe_key(prefix)}/" if prefix else ""
        return iter(sorted(path for path in self._files if path.startswith(below)))

    def local(self, key: str) -> None:
        safe_key(key)

    def create(self, key: str, data: bytes) -> None:
        self._refuse(key, data)

    def replace(self, key: str, data: bytes) -> None:
        self._refuse(key, data)

    def put_folder(self, local: Path, key: str) -> None:
        self._refuse(key, local)

    def put_file(self, local: Path, key: str) -> None:
        self._refuse(key, local)

    def delete(self, keys: Sequence[str]) -> None:
        self._refuse(str(keys))

    def delete_folder(self, key: str) -> None:
        self._refuse(key)

    def staging(self) -> Path:
        self._refuse("")

    def _refuse(self, key: str, _what: object = None) -> NoReturn:
        raise StoreError(f"{self.url}/{key}", "is a revision that was published; it is read only")


def each(effect: Callable[[Blob], None], blobs: Iterable[Blob], workers: int = _PARALLEL) -> None:
    """Do something with each blob, several at once; the first error ends it, what has begun is awaited."""
    stop = threading.Event()

    def one(blob: Blob) -> None:
        if stop.is_set():
            return
        try:
            effect(blob)
        except BaseException:
            stop.set()
            raise

    with ThreadPoolExecutor(workers, "publish") as pool:
        for done in [pool.submit(one, blob) for blob in blobs]:
            done.result()
