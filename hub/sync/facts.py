"""What publishing has to know of a segment, found once: segments never change, so the answer is kept.

Facts are kept beside the cuts in a cache folder, one small file for each segment. Nothing is lost with it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from ...schemas import DamageError, Json, SchemaError, StoreError, canonical, strict_json
from .. import disk
from ..arrays import ArrayReader
from ..catalog import Add
from ..copying import told_of
from ..gop import shown
from ..layout import group_document
from ..storage import Storage
from ..store import OpenSegment, open_segment
from .alike import scrubber
from .scrub import RIGHTS_OF_A_STREAM, VERSION, scrub_encodings, scrub_spec

_HEAD_BYTES = 4 << 10
_MOST_PACKED = 64 << 20

CACHE = "publish"
"""Folder for what publishing keeps between runs, below a store's staging folder unless told otherwise."""


@dataclass(frozen=True, slots=True)
class EpisodeFacts:
    """What is known of an episode's header.

    Attributes
    ----------
    row
        Its row in the segment.
    header
        SHA-256 of its public header, all streams in it.
    unchanged
        Whether the public header is the private one.
    sources
        SHA-256 of each file that it was made from.
    foreign
        Whether a camera, taken as its packets came, holds pictures from before or after the episode.
    problem
        Why its header may not leave; empty if it may.
    """

    row: int
    header: str
    unchanged: bool
    sources: tuple[str, ...]
    foreign: bool
    problem: str


@dataclass(frozen=True, slots=True)
class SegmentFacts:
    """What is known of a segment.

    Attributes
    ----------
    rows
        Episodes that lie in it, dead ones too.
    unchanged
        Whether the documents of its arrays may leave as they are.
    streams
        Each stream, and the rights that it states for itself; None: those of its episode.
    episodes
        By id: those that were live when the segment was looked at.
    """

    rows: int
    unchanged: bool
    streams: Mapping[str, Json]
    episodes: Mapping[str, EpisodeFacts]


class Facts:
    """Facts on the segments of a storage, kept in a folder.

    Parameters
    ----------
    storage
        Where the segments lie.
    folder
        Where facts are kept.
    """

    def __init__(self, storage: Storage, folder: Path) -> None:
        self.storage, self.folder = storage, folder
        self._headers: dict[tuple[str, tuple[str, ...]], _Packed] = {}
        disk.make_folder(folder)

    def of(self, add: Add, names: tuple[str, ...]) -> SegmentFacts:
        """Return the facts on a segment, which is opened only if nothing is known of it.

        Parameters
        ----------
        names
            Of people that must not occur in what is published.

        Raises
        ------
        DamageError
            If its documents are not what was committed.
        """
        told = canonical([VERSION, add.files["episodes.parquet"].sha256, names])
        kept = self.folder / f"{add.segment}-{sha256(told).hexdigest()[:16]}.json"
        found = _read(kept)
        if found is None or not add.episodes.keys() <= found.episodes.keys():
            found, headers = facts_of(open_segment(self.storage, add), add, names)
            _write(kept, found)
            if sum(len(one.data) for one in self._headers.values()) < _MOST_PACKED:
                self._headers[add.segment, names] = _Packed.of(headers)
        return found

    def headers(self, segment: str, names: tuple[str, ...]) -> Mapping[str, str]:
        """Return public headers of a segment's episodes that were made for its facts, if they are at hand."""
        packed = self._headers.get((segment, names))
        return {} if packed is None else packed.headers()


@dataclass(frozen=True, slots=True)
class _Packed:
    """Headers of a segment, which differ little, in a small part of their size."""

    episodes: tuple[str, ...]
    data: bytes
    size: int

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> _Packed:
        import pyarrow as pa

        raw = "\n".join(headers.values()).encode()  # canonical JSON has no newline of its own
        return cls(tuple(headers), pa.compress(raw, codec="lz4", asbytes=True), len(raw))

    def headers(self) -> dict[str, str]:
        import pyarrow as pa

        raw = pa.decompress(self.data, self.size, codec="lz4", asbytes=True).decode()
        return dict(zip(self.episodes, raw.split("\n"), strict=True))


def facts_of(segment: OpenSegment, add: Add, names: tuple[str, ...]) -> tuple[SegmentFacts, dict[str, str]]:
    """Return the facts on an open segment, and the public headers of its episodes.

    Raises
    ------
    DamageError
        If a header cannot be read.
    """
    specs: dict[str, Any] = {}
    unchanged = _is_known(segment, add)
    for document in segment.documents.values():
        told = told_of(document)
        if "stream" in told:
            specs[told["stream"]["name"]] = told["stream"]
        unchanged = unchanged and document["attributes"] == public_attributes(document, names)
    episodes = {}
    headers = {}
    scrub = scrubber(names).public
    for episode, row in add.episodes.items():
        place = f"{add.segment}/episodes.parquet [row {row}]"
        try:
            public = scrub(segment.table["header"][row])
            if public.id != episode and not public.problems:
                raise ValueError(f"it is of episode {public.id}")
        except (ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
            raise DamageError(place, f"episode header cannot be read: {error!r}") from error
        headers[episode] = public.text
        episodes[episode] = EpisodeFacts(
            row=row,
            header=sha256(public.text.encode()).hexdigest(),
            unchanged=public.unchanged,
            sources=public.sources,
            foreign=_has_foreign_pictures(segment, row),
            problem="; ".join(public.problems[:3]),
        )
        unchanged = unchanged and segment.header["embodiment"] == public.embodiment
    found = SegmentFacts(
        rows=len(segment.table["id"]),
        unchanged=unchanged,
        streams={name: _stated_rights(spec["attributes"]) for name, spec in sorted(specs.items())},
        episodes=episodes,
    )
    return found, headers


def _is_known(segment: OpenSegment, add: Add) -> bool:
    """Tell whether a segment has just the files that this version writes, and they say what it knows of.

    What a newer version wrote besides has to stay, so such a segment is not taken as it is.
    """
    members: dict[str, Any] = dict(segment.documents)
    columns = {"id", "content", "header"}
    for clock, slots in segment.slots.items():
        members[clock] = group_document({"teleopen": {"slots": slots}})
        columns |= {f"{clock}.start", f"{clock}.length"}
    documents = {f"{path}/zarr.json": member for path, member in members.items()}
    documents["zarr.json"] = group_document({"teleopen": segment.header}, dict(sorted(members.items())))
    others = add.files.keys() - documents.keys() - {"episodes.parquet"}
    return (
        segment.header.keys() == {"format", "segment", "embodiment", "episodes", "tool"}
        and str(segment.header["tool"]).startswith("teleopen ")
        and segment.table.keys() == columns
        and all(path.partition("/c/")[0] in segment.documents for path in others)
        and all(
            path in add.files and add.files[path].sha256 == sha256(canonical(document)).hexdigest()
            for path, document in documents.items()
        )
    )


def _stated_rights(attributes: Mapping[str, Json]) -> Json:
    """Return the rights that a stream states; null in their place is no statement that opens it."""
    stated = attributes.get(RIGHTS_OF_A_STREAM)
    return False if stated is None and RIGHTS_OF_A_STREAM in attributes else stated


def _has_foreign_pictures(segment: OpenSegment, row: int) -> bool:
    """Tell whether packets of an episode show what lies outside of it.

    Groups of pictures that were cut out of a longer video keep the pictures that theirs refer to
    (docs/codec.md), and those may be of another episode.
    """
    for path, array in segment.arrays.items():
        if array.layout.storing == "video" and _taken_as_they_came(segment.documents[path]):
            clock = path.partition("/")[0]
            start, length = (int(segment.table[f"{clock}.{name}"][row]) for name in ("start", "length"))
            if _outside(array, start, length):
                return True
    return False


def _taken_as_they_came(document: Mapping[str, Any]) -> bool:
    notes = told_of(document).get("encodings", ())
    return not notes or any(note.get("profile") == "source" for note in notes)


def _outside(array: ArrayReader, start: int, length: int) -> bool:
    for first in range(0, length, array.layout.chunk):
        chunk = (start + first) // array.layout.chunk
        pictures = shown(array.chunk(chunk, _HEAD_BYTES)) or shown(array.chunk(chunk))
        if not pictures or min(pictures) + first < 0 or max(pictures) + first >= length:
            return True
    return False


def public_attributes(
    document: Mapping[str, Any], names: tuple[str, ...], withheld: frozenset[str] = frozenset()
) -> dict[str, Any]:
    """Return the attributes of an array as they may leave."""
    told = told_of(document)
    if not told:
        return {}
    public: dict[str, Any] = {}
    if "stream" in told:
        public["stream"] = scrub_spec(told["stream"], names, withheld)
    if "encodings" in told:
        public["encodings"] = scrub_encodings(told["encodings"], names, withheld)
    if "unit" in told:
        public["unit"] = ["ns"]
    return {"teleopen": public}


def _write(path: Path, facts: SegmentFacts) -> None:
    document = {
        "rows": facts.rows,
        "unchanged": facts.unchanged,
        "streams": facts.streams,
        "episodes": {
            episode: [one.row, one.header, one.unchanged, one.sources, one.foreign, one.problem]
            for episode, one in facts.episodes.items()
        },
    }
    aside = path.with_name(f"{path.name}.{os.getpid()}")
    disk.unlink(aside)
    disk.write(aside, [canonical(document)])
    disk.rename(aside, path)


def _read(path: Path) -> SegmentFacts | None:
    """Return what was kept; None if it is not there, or not whole."""
    try:
        document = strict_json(path.read_bytes())
        episodes = {
            episode: EpisodeFacts(row, header, unchanged, tuple(sources), foreign, problem)
            for episode, (row, header, unchanged, sources, foreign, problem) in document["episodes"].items()
        }
        return SegmentFacts(document["rows"], document["unchanged"], document["streams"], episodes)
    except (OSError, ValueError, KeyError, TypeError, SchemaError, StoreError):
        return None
