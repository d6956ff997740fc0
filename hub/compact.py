"""Housekeeping: small segments into large ones by copying bytes, and garbage out.

Nothing is decoded or encoded: camera and depth chunks are copied as they are, rows are laid anew.
"""

from __future__ import annotations

import hashlib
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from ..schemas import ConflictError, StoreError, canonical
from . import disk
from .catalog import Add, Operation, Replace, State
from .copying import CopiedSegment, told_of
from .session import is_alive, session
from .storage import Storage, is_garbage
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
    merged = CopiedSegment(staging / uuid.uuid4().hex)
    try:
        for add in group:
            merged.take(storage, add)
        merged.rights = state.rights[next(episode for add in group for episode in add.episodes)]
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
            told_of(segment.documents[path]).get("stream"),
        ]
        for path, array in segment.arrays.items()
    }
    rights = sorted({canonical(state.rights[e]).decode() for e in add.episodes})
    return hashlib.sha256(canonical([header, schemas, dict(segment.slots), rights])).hexdigest()


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
        if not is_garbage(key, claimed):
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
