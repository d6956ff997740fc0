"""Housekeeping: small segments into large ones by copying bytes, and garbage out.

Nothing is decoded or encoded: camera and depth chunks are copied as they are, rows are laid anew.
"""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..schemas import ConflictError, StoreError, canonical, strict_json
from . import disk
from .catalog import CATALOG, Add, Operation, Replace, State
from .layout import Layout, array_document, rows_layout
from .segment import SegmentFolder
from .session import is_alive, session
from .shards import RowWriter, ShardWriter
from .storage import STAGING, Storage
from .store import Store, open_segment, whoami
from .verify import claims

GRACE_S = 24 * 3600.0
"""How long `gc` leaves unclaimed objects alone: longer than any writer needs from upload to commit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactReport:
    """What `compact` did: segments that went, those that came, and bytes before and after."""

    removed: tuple[str, ...]
    added: tuple[str, ...]
    bytes_before: int
    bytes_after: int


def compact(store: Store, *, target_bytes: int = 1 << 30, author: str = "") -> CompactReport:
    """Merge segments of one schema and one rights class, and drop the chunks of withdrawn episodes.

    The old segments stay on disk, unclaimed, until `gc` collects them, so that readers who hold the old
    state of the log can finish.
    """
    state = store.refresh().state
    groups = _groups(store, state, target_bytes)
    with session(store.storage) as (staging, _):
        added = [_merge(store.storage, state, staging, group) for group in groups if _live(group)]
    removed = [add.segment for group in groups for add in group]

    def build(now: State) -> list[Operation]:
        for segment in removed:
            if now.segments.get(segment) != state.segments[segment] or any(
                now.rights[e] != state.rights[e] for e in now.segments[segment].episodes
            ):
                raise ConflictError(f"segments/{segment}", "changed while it was compacted; compact again")
        return [Replace(remove=tuple(removed), add=tuple(added))]

    before = sum(file.size for segment in removed for file in state.segments[segment].files.values())
    if removed:
        store.state = store.catalog.commit(build, author=author or whoami())
    return CompactReport(
        removed=tuple(removed),
        added=tuple(add.segment for add in added),
        bytes_before=before,
        bytes_after=sum(file.size for add in added for file in add.files.values()),
    )


def _live(group: list[Add]) -> bool:
    return any(add.episodes for add in group)


def _merge(storage: Storage, state: State, staging: Path, group: list[Add]) -> Add:
    """Write the live episodes of some segments as one, and move it into place."""
    merged = _Merge(staging / uuid.uuid4().hex, storage, state)
    try:
        for add in group:
            merged.take(add)
        done = merged.finish()
    except BaseException:
        merged.abort()
        raise
    storage.put_folder(merged.folder, f"segments/{done.segment}")
    return done


def _groups(store: Store, state: State, target_bytes: int) -> list[list[Add]]:
    """Return the runs of segments that are worth merging, each up to ``target_bytes``."""
    alike: dict[str, list[Add]] = {}
    for add in state.segments.values():
        alike.setdefault(_likeness(store, state, add), []).append(add)
    groups = []
    for adds in alike.values():
        run: list[Add] = []
        size = 0
        for add in adds:
            weight = sum(file.size for file in add.files.values())
            if run and size + weight > target_bytes:
                groups.append(run)
                run, size = [], 0
            run.append(add)
            size += weight
        groups.append(run)
    return [run for run in groups if len(run) > 1 or _has_dead_rows(store, run[0])]


def _has_dead_rows(store: Store, add: Add) -> bool:
    return len(add.episodes) < int(store.segment_header(add.segment)["episodes"])


def _likeness(store: Store, state: State, add: Add) -> str:
    """Return the digest of what segments must have in common to be merged."""
    segment = open_segment(store.storage, add)
    header = {k: v for k, v in segment.header.items() if k not in {"segment", "episodes", "tool"}}
    schemas = {
        path: [
            repr(array.layout) if array.layout.storing != "rows" else array.layout.dtype,
            _told(segment.documents[path]).get("stream"),
        ]
        for path, array in segment.arrays.items()
    }
    rights = sorted({canonical(state.rights[e]).decode() for e in add.episodes})
    return hashlib.sha256(canonical([header, schemas, dict(segment.slots), rights])).hexdigest()


def _told(document: Mapping[str, Any]) -> Mapping[str, Any]:
    told: Mapping[str, Any] = document["attributes"].get("teleopen", {})
    return told


class _Merge(SegmentFolder):
    """A segment that is put together from chunks of others."""

    def __init__(self, folder: Path, storage: Storage, state: State) -> None:
        super().__init__(folder)
        self.storage, self.state = storage, state
        self.chunks: dict[str, ShardWriter] = {}
        self.rows: dict[str, RowWriter] = {}
        self.documents: dict[str, Mapping[str, Any]] = {}
        self.encodings: dict[str, list[Any]] = {}

    def take(self, add: Add) -> None:
        """Copy the live episodes of a segment."""
        segment = open_segment(self.storage, add)
        self.embodiment = segment.header["embodiment"]
        self.clocks = dict(segment.slots)
        self.documents = self.documents or dict(segment.documents)
        for path, document in segment.documents.items():
            told = self.encodings.setdefault(path, [])
            told += [e for e in _told(document).get("encodings", []) if e not in told]
        for episode, row in sorted(add.episodes.items(), key=lambda item: item[1]):
            self.rights = self.state.rights[episode]
            self.headers.append(strict_json(segment.table["header"][row]))
            self.contents[episode] = add.contents[episode]
            spans = {}
            for clock, unit in segment.slots.items():
                start, length = (int(segment.table[f"{clock}.{k}"][row]) for k in ("start", "length"))
                spans[clock] = (start, -(-length // unit) * unit)
                self.span(clock, length)
            for path, array in segment.arrays.items():
                clock, _, name = path.partition("/")
                if name in {"start", "length"}:
                    continue
                start, slots = spans[clock]
                if array.layout.storing == "rows":
                    writer = self.rows.get(path) or RowWriter(self.folder / path, _fresh(array.layout))
                    self.rows[path] = writer
                    step = max(1, (16 << 20) // max(1, array.layout.slot_bytes))
                    for at in range(start, start + slots, step):
                        writer.append(array.rows(at, min(start + slots, at + step)))
                    continue
                shards = self.chunks.setdefault(path, ShardWriter(self.folder / path, array.layout))
                last: tuple[str, int, int] | None = None
                for chunk in range(start // array.layout.chunk, (start + slots) // array.layout.chunk):
                    place = array.place(chunk)
                    if place == last:
                        shards.repeat()
                    else:
                        shards.append(array.chunk(chunk))
                    last = place

    def arrays(self) -> dict[str, Any]:
        """Return the documents of the merged arrays."""
        found = {}
        writers: dict[str, RowWriter | ShardWriter] = {**self.rows, **self.chunks}
        for path, writer in writers.items():
            told = self.documents[path]
            teleopen = dict(_told(told))
            if self.encodings[path]:
                teleopen["encodings"] = self.encodings[path]
            found[path] = array_document(
                writer.layout,
                self.cursor[path.partition("/")[0]],
                writer.finish(),
                {"teleopen": teleopen},
                told["dimension_names"],
            )
        return found

    def abort(self) -> None:
        """Close all files and remove the staging folder."""
        for rows in self.rows.values():
            rows.abort()
        for shards in self.chunks.values():
            shards.abort()
        disk.remove_tree(self.folder)


def _fresh(layout: Layout) -> Layout:
    """Return the layout of an array of any length: a short array's only chunk is as short as it is."""
    return rows_layout(layout.dtype, layout.sample)


# ---------------------------------------------------------------- garbage


@dataclass(frozen=True, slots=True, kw_only=True)
class GcReport:
    """What `gc` found: folders and files that nobody claims, removed or (``dry_run``) only named."""

    removed: tuple[str, ...]
    kept_young: tuple[str, ...]
    bytes: int


def gc(store: Store, *, grace_s: float = GRACE_S, dry_run: bool = False) -> GcReport:
    """Remove what no entry of the commit log claims and no living writer may still want."""
    state = store.refresh().state
    claimed = set(dict(claims(state)))
    removed: list[str] = []
    young: list[str] = []
    size = 0
    for folder, keys in _unclaimed_folders(store.storage, claimed).items():
        if store.storage.age_s(keys) < grace_s:
            young.append(folder)
            continue
        size += sum(store.storage.size(key) for key in keys)
        removed.append(folder)
        if not dry_run:
            store.storage.delete(keys)
            store.storage.delete_folder(folder)
    for path in _dead_staging(store.storage.staging(), grace_s):
        removed.append(f".staging/{path.name}")
        size += sum(p.stat().st_size for p in (path, *path.rglob("*")) if p.is_file())
        if not dry_run:
            disk.remove_tree(path) if path.is_dir() else disk.unlink(path)
    return GcReport(removed=tuple(removed), kept_young=tuple(young), bytes=size)


def _unclaimed_folders(storage: Storage, claimed: set[str]) -> dict[str, list[str]]:
    """Return unclaimed objects by the segment folder (or single file) they belong to."""
    found: dict[str, list[str]] = {}
    for key in storage.keys(""):
        if key in claimed or key.startswith((f"{CATALOG}/", f"{STAGING}/")):
            continue
        parts = key.split("/")
        found.setdefault("/".join(parts[:2]) if parts[0] == "segments" else key, []).append(key)
    return found


def _dead_staging(staging: Path, grace_s: float) -> list[Path]:
    """Return what dead writers left in the staging folder longer than ``grace_s`` ago."""
    if not staging.is_dir():
        return []
    owners = {lock.stem for lock in staging.glob("*.lock")}
    if any(is_alive(staging, owner) for owner in owners):
        # A living writer's half-written segments cannot be told from a dead one's.
        return []
    try:
        now = time.time()
        return [p for p in sorted(staging.iterdir()) if now - p.stat().st_mtime >= grace_s]
    except OSError as error:
        raise StoreError(str(staging), f"cannot be listed: {error}") from error
