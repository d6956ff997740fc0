"""Is a store what was written? Every hash, every index, every count; and what lies in it unclaimed.

Nothing is repaired: damage is named, file by file. Replace a damaged file with a good copy, or convert
the source again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..schemas import (
    DamageError,
    Episode,
    NotFoundError,
    SchemaError,
    StoreError,
    from_document,
    strict_json,
)
from .arrays import ArrayReader
from .catalog import Add, Catalog, File, State
from .checkpoint import check_checkpoints
from .storage import Storage, is_garbage
from .store import open_segment

_READ_BYTES = 16 << 20
_WORKERS = 4


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong, and the file it is wrong with."""

    path: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """What `verify` found.

    Attributes
    ----------
    damage
        What is not as it was written. A store without damage gives back every episode it promises.
    unclaimed
        Objects that no entry of the commit log tells of: left by a killed writer, collected by `gc`.
    episodes, segments, files, bytes
        What was checked.
    """

    damage: tuple[Finding, ...]
    unclaimed: tuple[str, ...]
    episodes: int
    segments: int
    files: int
    bytes: int


def verify(
    storage: Storage, *, decode: bool = False, progress: Callable[[str, int], None] | None = None
) -> VerifyReport:
    """Check a whole store.

    Parameters
    ----------
    decode
        Also decode every frame of every camera.
    progress
        Called with a file and the bytes of it that were read.
    """
    report = progress or (lambda _path, _bytes: None)
    catalog = Catalog(storage)
    damage: list[Finding] = []
    try:
        state = catalog.check()
    except DamageError as error:
        # Without the log nothing can be said of the rest.
        found = Finding(error.path, error.why)
        return VerifyReport(damage=(found,), unclaimed=(), episodes=0, segments=0, files=0, bytes=0)
    damage += [Finding(path, why) for path, why in check_checkpoints(storage, state)]
    claimed = dict(claims(state))
    with ThreadPoolExecutor(_WORKERS, "verify") as pool:
        checks = pool.map(lambda item: _file_damage(storage, item[0], item[1], report), claimed.items())
        damage += [finding for finding in checks if finding]
    broken = {finding.path for finding in damage}
    for add in state.segments.values():
        if not any(f"segments/{add.segment}/{path}" in broken for path in add.files):
            damage += _segment_damage(storage, add, decode=decode)
    return VerifyReport(
        damage=tuple(damage),
        unclaimed=tuple(unclaimed(storage, claimed)),
        episodes=len(state.episodes),
        segments=len(state.segments),
        files=len(claimed),
        bytes=sum(file.size for file in claimed.values()),
    )


def claims(state: State) -> Iterator[tuple[str, File]]:
    """Yield every object that the commit log tells of, but for the log itself."""
    yield from state.files.items()
    for add in state.segments.values():
        for path, file in add.files.items():
            yield f"segments/{add.segment}/{path}", file


def unclaimed(storage: Storage, claimed: Mapping[str, File]) -> Iterator[str]:
    """Yield the objects that nobody claims; nothing if the storage cannot list."""
    try:
        for key in storage.keys(""):
            if is_garbage(key, claimed):
                yield key
    except DamageError:
        raise
    except StoreError:
        return


def _file_damage(
    storage: Storage, key: str, told: File, report: Callable[[str, int], None]
) -> Finding | None:
    digest = hashlib.sha256()
    try:
        size = storage.size(key)
        if size != told.size:
            return Finding(key, f"is {size} bytes, was {told.size}")
        for start in range(0, size, _READ_BYTES):
            block = storage.read(key, start, min(size, start + _READ_BYTES))
            digest.update(block)
            report(key, len(block))
    except NotFoundError:
        return Finding(key, "is missing")
    except StoreError as error:
        return Finding(key, error.why)
    return None if digest.hexdigest() == told.sha256 else Finding(key, "its checksum differs")


def _segment_damage(storage: Storage, add: Add, *, decode: bool) -> list[Finding]:
    """Return what in a segment, though unchanged since, contradicts itself: a fault of its writer."""
    root = f"segments/{add.segment}"
    try:
        segment = open_segment(storage, add)
        found = [Finding(f"{root}/episodes.parquet", why) for why in _table_faults(segment.table, add)]
        for path, array in segment.arrays.items():
            clock, _, name = path.partition("/")
            if name in {"start", "length"}:
                if not np.array_equal(array.rows(0, array.slots), segment.table[f"{clock}.{name}"]):
                    found.append(Finding(f"{root}/{path}", "differs from episodes.parquet"))
                continue
            spans = list(zip(segment.table[f"{clock}.start"], segment.table[f"{clock}.length"], strict=True))
            found += [
                Finding(f"{root}/{path}", why) for why in _span_faults(array, spans, segment.slots[clock])
            ]
            for start, length in spans if decode else ():
                for _ in array.blocks(start, start + length, _READ_BYTES):
                    pass
    except DamageError as error:
        return [Finding(error.path, error.why)]
    return found


def _table_faults(table: Mapping[str, Sequence[Any]], add: Add) -> Iterator[str]:
    for episode, row in add.episodes.items():
        if row >= len(table["id"]) or table["id"][row] != episode:
            yield f"row {row} is not episode {episode}"
        elif table["content"][row] != add.contents[episode]:
            yield f"row {row}: content digest differs from the commit log"
        else:
            try:
                from_document(Episode, strict_json(table["header"][row]))
            except (ValueError, SchemaError) as error:
                yield f"row {row}: header: {error}"
    for clock, lengths in add.lengths.items():
        if list(lengths) != table.get(f"{clock}.length"):
            yield f"{clock}: lengths differ from the commit log"


def _span_faults(array: ArrayReader, spans: Sequence[tuple[int, int]], unit: int) -> Iterator[str]:
    end = 0
    for row, (start, length) in enumerate(spans):
        if start != -(-end // unit) * unit or start + length > array.slots:
            yield f"row {row}: slots [{start}, {start + length}) are out of place"
            return
        end = start + length
        if array.layout.storing == "rows":
            array.rows(start, start + 1)
            continue
        for chunk in range(start // array.layout.chunk, -(-end // array.layout.chunk)):
            array.place(chunk)
    if array.slots % unit:
        yield f"{array.slots} slots are no multiple of {unit}"
