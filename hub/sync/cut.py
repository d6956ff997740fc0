"""Public segments: made of private ones by leaving out, never by encoding.

A segment is taken byte for byte where nothing in it has to stay and its documents may leave as they are.
Where only its documents may not, its public form has documents of its own and the very files of the private
one beside them. Only where episodes have to stay are their chunks left out, by copying those of the others.

A header lies in the segment's own files, so it cannot be corrected from outside: whoever reads the segment
reads the header. So a scrubbed header makes another segment, and no overlay is laid over the private one.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from ...schemas import (
    DamageError,
    NotFoundError,
    Problem,
    SchemaError,
    canonical,
    from_document,
    strict_json,
    to_document,
)
from .. import disk
from ..catalog import Add
from ..copying import CopiedSegment
from ..log import File
from ..segment import SegmentFolder
from ..storage import LocalStorage, Storage
from ..store import open_segment
from .alike import scrubber
from .facts import public_attributes
from .scrub import VERSION
from .tree import Blob


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What is to be made of a segment.

    Attributes
    ----------
    source
        The segment, with the episodes that go and no others; their contents as they will be told.
    streams
        Streams that go.
    withheld
        Streams that stay.
    names
        Of people that must not occur in the documents.
    id
        Of the public segment; the source's own where it is taken byte for byte.
    rows
        How many episodes lie in the source, dead ones too.
    """

    source: Add
    streams: frozenset[str]
    withheld: frozenset[str]
    names: tuple[str, ...]
    id: str
    rows: int

    @property
    def whole(self) -> bool:
        """Whether every episode of the source goes, so that its files can be taken as they are."""
        return len(self.source.episodes) == self.rows

    @property
    def clocks(self) -> frozenset[str]:
        """Clocks of the streams that go."""
        parts = (path.split("/") for path in self.source.files)
        return frozenset(clock for clock, *rest in parts if rest and rest[0] in self.streams)

    def wants(self, path: str) -> bool:
        """Tell whether an array goes, by its path ``<clock>/<name>``."""
        clock, _, name = path.partition("/")
        return clock in self.clocks and (name in self.streams or name == "timestamp")

    @property
    def shards(self) -> list[str]:
        """Paths of the files that hold the samples and times that go."""
        return [
            path
            for path in sorted(self.source.files)
            if "/c/" in path and self.wants(path.partition("/c/")[0])
        ]

    @property
    def verbatim(self) -> bool:
        """Whether the segment is taken byte for byte."""
        return self.id == self.source.segment


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A public segment: what the public log is to say of it but for its rights, and its files."""

    add: Add
    blobs: Mapping[str, Blob]


def part_id(episodes: Sequence[tuple[str, str, str]], withheld: frozenset[str]) -> str:
    """Return the id of a public segment: a UUID of version 8 that tells what is in it.

    The same content has the same id wherever it is cut from, so that what is public already is recognised
    even after the private store was compacted.

    Parameters
    ----------
    episodes
        In the order of their rows: id, SHA-256 of the content, SHA-256 of the whole public header.
    """
    told = ["teleopen-public-segment-1", VERSION, [list(one) for one in episodes], sorted(withheld)]
    raw = bytearray(sha256(canonical(told)).digest()[:16])
    raw[6] = (raw[6] & 0x0F) | 0x80
    raw[8] = (raw[8] & 0x3F) | 0x80
    return uuid.UUID(bytes=bytes(raw)).hex


def part_content(content: str, streams: frozenset[str], withheld: frozenset[str]) -> str:
    """Return the content hash of an episode that goes without some of its streams."""
    if not withheld:
        return content
    return sha256(canonical(["teleopen-part-1", content, sorted(streams)])).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """What is kept of a segment that was made; which episodes are in it, its id tells."""

    files: Mapping[str, File]
    lengths: Mapping[str, tuple[int, ...]]


Headers = Callable[[str, tuple[str, ...]], Mapping[str, str]]
"""Gives public headers by episode, for a segment and the names of people that are not in them."""


def _none(_segment: str, _names: tuple[str, ...]) -> Mapping[str, str]:
    return {}


class Cutter:
    """Makes public segments in a folder, and takes up what it has made there before.

    Parameters
    ----------
    folder
        Where they are kept, each below its id.
    """

    def __init__(self, folder: Path) -> None:
        disk.make_folder(folder)
        self.folder = folder
        self.storage = LocalStorage(folder)

    def cut(self, storage: Storage, part: Part, headers: Headers = _none) -> Cut:
        """Return the public segment of a part.

        Parameters
        ----------
        headers
            Gives the public headers of a segment's episodes that are at hand, with every stream in them.

        Raises
        ------
        DamageError
            If the source is not what was committed.
        """
        if part.verbatim:
            _check_sizes(storage, part.source, part.source.files)
            return Cut(add=part.source, blobs=_taken(storage, part, part.source.files))
        found = self._kept(storage, part)
        return found if found is not None else self._make(storage, part, headers)

    def _make(self, storage: Storage, part: Part, headers: Headers) -> Cut:
        _check_sizes(storage, part.source, part.shards)
        folder = self.folder / part.id
        aside = self.folder / f"{part.id}.{os.getpid()}"
        known = {} if part.withheld else headers(part.source.segment, part.names)
        for old in (folder, aside):
            disk.remove_tree(old)
        # A segment is named after its folder, so it is made in one of that name.
        inner = aside / part.id
        disk.make_folder(aside)
        try:
            if part.whole:
                add = _Redocumented(inner, storage, part, known).finish()
            else:
                for path in part.shards:
                    _check_bytes(storage, part.source, path)
                add = _Chosen(inner, storage, part, known).finish()
        except BaseException:
            disk.remove_tree(aside)
            raise
        disk.rename(inner, folder)
        disk.remove_tree(aside)
        note = self.folder / f"{part.id}.json"
        disk.unlink(note)
        disk.write(note, [canonical(to_document(_Made(files=add.files, lengths=add.lengths)))])
        return self._with_shards(storage, part, add) if part.whole else self._own(add)

    def _kept(self, storage: Storage, part: Part) -> Cut | None:
        """Return what was made before, if it is whole."""
        note = self.folder / f"{part.id}.json"
        try:
            made = from_document(_Made, strict_json(note.read_bytes()))
        except (OSError, ValueError):
            return None
        rows = {episode: row for row, (episode, _) in enumerate(_in_rows(part.source))}
        add = Add(
            segment=part.id,
            files=made.files,
            episodes=rows,
            contents={episode: part.source.contents[episode] for episode in rows},
            rights={},
            lengths=made.lengths,
        )
        try:
            _check_sizes(self.storage, add, add.files, root=part.id)
            return self._with_shards(storage, part, add) if part.whole else self._own(add)
        except DamageError:
            return None

    def _own(self, add: Add) -> Cut:
        blobs = {
            path: Blob(
                path=f"segments/{add.segment}/{path}",
                size=file.size,
                sha256=file.sha256,
                storage=self.storage,
                key=f"{add.segment}/{path}",
            )
            for path, file in add.files.items()
        }
        return Cut(add=add, blobs=blobs)

    def _with_shards(self, storage: Storage, part: Part, documents: Add) -> Cut:
        """Return a segment of documents of its own and shards of its source."""
        shards = {path: part.source.files[path] for path in part.shards}
        add = replace(documents, files=dict(sorted({**shards, **documents.files}.items())))
        blobs = {**_taken(storage, part, shards), **self._own(documents).blobs}
        return Cut(add=add, blobs=dict(sorted(blobs.items())))


def _taken(storage: Storage, part: Part, files: Mapping[str, File]) -> dict[str, Blob]:
    return {
        path: Blob(
            path=f"segments/{part.id}/{path}",
            size=file.size,
            sha256=file.sha256,
            storage=storage,
            key=f"segments/{part.source.segment}/{path}",
        )
        for path, file in files.items()
    }


def _check_sizes(storage: Storage, add: Add, paths: Iterable[str], root: str = "") -> None:
    """Raise `DamageError` if a file is missing or has another size; its bytes are checked when read."""
    for path in paths:
        key = f"{root or f'segments/{add.segment}'}/{path}"
        try:
            size = storage.size(key)
        except NotFoundError as error:
            raise DamageError(f"{storage.url}/{key}", "is missing") from error
        if size != add.files[path].size:
            raise DamageError(f"{storage.url}/{key}", f"is {size} bytes, was {add.files[path].size}")


def _check_bytes(storage: Storage, add: Add, path: str) -> None:
    """Raise `DamageError` if a file is not what was committed: rows have no check of their own."""
    key, told = f"segments/{add.segment}/{path}", add.files[path]
    blob = Blob(path=key, size=told.size, sha256=told.sha256, storage=storage, key=key)
    for _ in blob.chunks():
        pass


class _Redocumented(SegmentFolder):
    """The documents of a segment of which every episode goes; its shards stay where they are."""

    def __init__(self, folder: Path, storage: Storage, part: Part, known: Mapping[str, str]) -> None:
        super().__init__(folder)
        segment = open_segment(storage, part.source)
        self._documents = {
            path: {**document, "attributes": public_attributes(document, part.names, part.withheld)}
            for path, document in segment.documents.items()
            if part.wants(path)
        }
        self.clocks = {clock: slots for clock, slots in segment.slots.items() if clock in part.clocks}
        for episode, row in _in_rows(part.source):
            self.tell_as(episode, known.get(episode) or _public_header(segment.table["header"][row], part))
            self.contents[episode] = part.source.contents[episode]
            for clock in self.clocks:
                start, length = (int(segment.table[f"{clock}.{name}"][row]) for name in ("start", "length"))
                self.spans.setdefault(clock, []).append((start, length))
        self.embodiment = strict_json(self.headers[0])["embodiment"]

    def arrays(self) -> dict[str, Any]:
        return self._documents

    def abort(self) -> None:
        disk.remove_tree(self.folder)


class _Chosen(CopiedSegment):
    """A segment of some episodes of another: their chunks copied, their headers scrubbed."""

    def __init__(self, folder: Path, storage: Storage, part: Part, known: Mapping[str, str]) -> None:
        super().__init__(folder)
        self._part, self._known = part, known
        try:
            self.take(storage, part.source)
        except BaseException:
            self.abort()
            raise
        self.embodiment = strict_json(self.headers[0])["embodiment"]

    def wants(self, path: str) -> bool:
        return self._part.wants(path)

    def take_header(self, episode: str, header: str) -> None:
        self.tell_as(episode, self._known.get(episode) or _public_header(header, self._part))

    def attributes_of(self, document: Mapping[str, Any]) -> dict[str, Any]:
        public = public_attributes(document, self._part.names, self._part.withheld)
        told: dict[str, Any] = public.get("teleopen", {})
        return told


def _in_rows(add: Add) -> list[tuple[str, int]]:
    return sorted(add.episodes.items(), key=lambda item: item[1])


def _public_header(header: str, part: Part) -> str:
    found = scrubber(part.names, part.withheld).public(header)
    if found.problems:
        raise SchemaError([Problem("header", problem) for problem in found.problems])
    return found.text
