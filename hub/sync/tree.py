"""What lies, or is to lie, at a public place: files by path, and the episodes in them.

A public place is itself a store that anyone can read: segments and a commit log of its own. It holds nothing
of the private store's log.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

from ...schemas import Array, DamageError, Json, NotFoundError, canonical
from .. import disk
from ..log import CheckpointNote, File
from ..state import State
from ..storage import Storage, safe_key

MANIFEST = "manifest.json"
_BLOCK = 8 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """A file of a public tree, and where its bytes are at hand.

    Attributes
    ----------
    path
        Where it is to lie, below the root of the public place.
    size, sha256
        What it must be; whoever reads it here gets these bytes or an error.
    data
        The bytes themselves, of small files that were made for this tree.
    storage, key
        Where else to read them. With neither, only the target has them: the file is one that is kept.
    """

    path: str
    size: int
    sha256: str
    data: bytes | None = field(default=None, repr=False)
    storage: Storage | None = field(default=None, repr=False, compare=False)
    key: str = field(default="", compare=False)

    @classmethod
    def of(cls, path: str, data: bytes) -> Blob:
        """Return the blob of bytes that are at hand."""
        return cls(path=safe_key(path), size=len(data), sha256=sha256(data).hexdigest(), data=data)

    @property
    def file(self) -> File:
        """Size and SHA-256, as a commit log tells them."""
        return File(size=self.size, sha256=self.sha256)

    @property
    def at_hand(self) -> bool:
        """Whether the bytes can be read here."""
        return self.data is not None or self.storage is not None

    def local(self) -> Path | None:
        """Return the file on this machine that holds the bytes, if there is one. Nothing is checked."""
        return None if self.storage is None else self.storage.local(self.key)

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes in blocks of 8 MiB; the last one comes only if all of them are what they must be.

        Raises
        ------
        DamageError
            If the bytes are not those that were planned.
        NotFoundError
            If they are not at hand.
        """
        digest, size, held = sha256(), 0, b""
        for block in self._blocks():
            digest.update(block)
            size += len(block)
            if held:
                yield held
            held = block
        if size != self.size or digest.hexdigest() != self.sha256:
            place = self.path if self.storage is None else f"{self.storage.url}/{self.key}"
            raise DamageError(place, f"is not what was planned to be published as {self.path}")
        if held:
            yield held

    def _blocks(self) -> Iterator[bytes]:
        if self.data is not None:
            yield self.data
        elif self.storage is not None:
            if self.storage.size(self.key) != self.size:
                return
            for start in range(0, self.size, _BLOCK):
                yield self.storage.read(self.key, start, min(self.size, start + _BLOCK))
        else:
            raise NotFoundError(f"{self.path} is kept as it lies at the target; its bytes are not here")

    def read(self) -> bytes:
        """Return the bytes, checked as in `chunks`. For small files: all of it is held in memory."""
        return b"".join(self.chunks())

    def open(self) -> BinaryIO:
        """Return a file to read from; its bytes are *not* checked, so check the SHA-256 of what was sent.

        Raises
        ------
        NotFoundError
            If there are neither bytes nor a local file.
        """
        if self.data is not None:
            return io.BytesIO(self.data)
        path = self.local()
        if path is None:
            raise NotFoundError(f"{self.path}: its bytes are in no local file; read it in chunks")
        return path.open("rb")


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicEpisode:
    """An episode that is public, with what is said of its rights.

    Attributes
    ----------
    segment
        The public segment that holds it.
    content
        SHA-256 of its content, as the public log tells it.
    licence
        The SPDX expression that it goes out under.
    tier
        ``open``.
    record
        SHA-256 of the rights record that was decided on; the record itself stays private.
    rights
        The public part of that record, which the public log holds. Episodes of one record share one document.
    """

    id: str
    segment: str
    content: str
    licence: str
    tier: str
    record: str
    rights: Mapping[str, Json]

    @property
    def attribution(self) -> tuple[Mapping[str, Json], ...]:
        """How the work wants to be named: see `teleopen.schemas.rights.Credit`."""
        return tuple(self.rights.get("attribution", ()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Tombstone:
    """An episode that was public and is no more.

    Attributes
    ----------
    ground
        ``consent``, ``licence``, ``court``, ``error``, ``safety``, or ``rights``: its rights opened it once,
        and do so no longer.
    time
        When it left, RFC 3339 in UTC.
    """

    id: str
    ground: str
    time: str


@dataclass(frozen=True, kw_only=True)
class PublicTree:
    """All that is to lie at a public place.

    Attributes
    ----------
    files
        By path; those that are kept may not be at hand.
    episodes
        The public episodes by id, in the order of the public log.
    segments
        Ids of the segments that hold them.
    tombstones
        What was public once, in the order in which it left.
    """

    files: Mapping[str, Blob]
    episodes: Mapping[str, PublicEpisode]
    segments: tuple[str, ...]
    tombstones: tuple[Tombstone, ...] = ()

    @cached_property
    def digest(self) -> str:
        """SHA-256 over path, SHA-256 and size of every file: equal trees are equal byte for byte."""
        return tree_digest({path: blob.file for path, blob in self.files.items()})

    @property
    def bytes(self) -> int:
        """Bytes of all files."""
        return sum(blob.size for blob in self.files.values())


def is_data(path: str) -> bool:
    """Tell whether a file lies in a segment: no reader looks at it before a log names it."""
    return path.startswith("segments/") and path.count("/") > 1


def public_place(target: str) -> str:
    """Return how documents may call a target: a URL without who logs in; a local folder only by its name."""
    scheme, divider, rest = target.partition("://")
    if not divider or scheme in {"file", "local"}:
        return Path(os.path.realpath(rest if divider else target)).name
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2] if scheme != 'hf' else host}{slash}{path}"


def tree_digest(files: Mapping[str, File]) -> str:
    """Return the digest of a tree: SHA-256 of the canonical JSON ``[[path, sha256, size], ...]``, sorted."""
    told = [[path, file.sha256, file.size] for path, file in sorted(files.items())]
    return sha256(canonical(told)).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicState:
    """What a target held when it was looked at. Made by `public_log.read_public`.

    Attributes
    ----------
    base
        The target's own name of that revision: a commit, a generation. None: the target is empty.
    state
        What its commit log tells; None: it has none yet.
    manifest
        Its ``manifest.json``; empty if there is none.
    files
        Every file there, by path.
    checkpoint
        The newest checkpoint of its log, if there is one.
    storage
        Reads that revision. Needed only where a public segment must be cut that this store does not have.
    """

    base: str | None = None
    state: State | None = None
    manifest: Mapping[str, Json] = field(default_factory=dict)
    files: Mapping[str, File] = field(default_factory=dict)
    checkpoint: CheckpointNote | None = None
    storage: Storage | None = field(default=None, repr=False, compare=False)


EMPTY = PublicState()
"""A target that nothing was published to yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What a card, a Croissant file and an index are made from. Nothing in it is private.

    Attributes
    ----------
    target
        The URL that it is planned for.
    dataset, version
        Id of the public store, and the version that its log will have.
    licence
        The one SPDX expression that all of it goes out under.
    time
        When it was decided.
    episodes
        All that will be public, by id.
    segments
        Files of each segment, by id and by path below the segment's folder.
    headers
        Yields the scrubbed header of each episode, ``(id, document)``; reads one segment at a time.
    changed
        When the newest entry was put into the public log, RFC 3339 in UTC: `time` is another each time.
    first_frame
        Decodes the first frame of a camera, given the episode's id and the stream's name: (H, W, C) uint8.
        To be asked for streams that a public header tells of.
    read_previous
        Reads a file that lies at the target now; None if it is not there.
    cache
        A private folder for what is kept between plans.
    tombstones
        What was public once.
    """

    target: str
    dataset: str
    version: int
    licence: str
    policy: str
    time: datetime
    tool: str
    episodes: Mapping[str, PublicEpisode]
    segments: Mapping[str, Mapping[str, File]]
    headers: Callable[[], Iterator[tuple[str, dict[str, Any]]]] = field(repr=False, compare=False)
    changed: str
    first_frame: Callable[[str, str], Array] = field(repr=False, compare=False)
    read_previous: Callable[[str], bytes | None] = field(repr=False, compare=False)
    cache: Path = field(repr=False, compare=False)
    tombstones: tuple[Tombstone, ...] = ()


Describe = Callable[[Published], Mapping[str, bytes]]
"""Makes the documents for people and programs, by path: card, Croissant, index. Same input, same bytes."""


def materialise(tree: PublicTree, folder: Path) -> None:
    """Write a whole tree into an empty local folder, each byte checked.

    Raises
    ------
    NotFoundError
        If the bytes of a file are not at hand.
    DamageError
        If they are not what was planned.
    """
    for path, blob in tree.files.items():
        place = folder.joinpath(*safe_key(path).split("/"))
        disk.make_folder(place.parent)
        disk.write(place, blob.chunks())
    for below, _, _ in os.walk(folder, topdown=False):
        disk.sync_folder(Path(below))
