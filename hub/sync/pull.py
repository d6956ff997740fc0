"""Bringing a published store home: a Hub repository or a mirror to a local folder, each byte checked.

Pulling again brings only what is new, and takes out what was withdrawn since. Of what a crash cuts short, the
next pull keeps whatever is whole. Readers of the folder see the old store or the new one: segments come
before the log entries that name them, and leave after.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from ...schemas import ConflictError, DamageError, Json, NotFoundError, StoreError
from .. import disk
from ..log import CATALOG, HEAD, File, read_or_none
from ..storage import STAGING, LocalStorage, Storage
from .manifest import FORMAT, told_records, told_tombstones
from .public_log import parse_manifest, told_files
from .target import Progress, Target, silent
from .tree import MANIFEST, PublicState, Tombstone

_BLOCK = 8 << 20
_PARALLEL = 4
_ROUNDS = 5
_TRIES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class PullReport:
    """What a pull brought.

    Attributes
    ----------
    url, base, folder
        From where, which revision, and to where.
    episodes
        How many the store holds now.
    brought, bytes, removed
        Files that came, their bytes, and files that left.
    withdrawn
        Episodes that an earlier pull had brought and that were withdrawn since. Copies that were made of them
        elsewhere are for their holder to delete.
    tombstones
        All that were ever withdrawn there.
    """

    url: str
    base: str
    folder: str
    episodes: int
    brought: int
    bytes: int
    removed: int
    withdrawn: tuple[Tombstone, ...]
    tombstones: tuple[Tombstone, ...]


def pull(
    target: Target, folder: Path, *, revision: str | None = None, progress: Progress = silent
) -> PullReport:
    """Bring what is published at a target to a local folder, or bring the folder up to date.

    Raises
    ------
    NotFoundError
        If nothing was published there.
    ConflictError
        If the folder holds something else, or entries of its own.
    DamageError
        If what comes is not what the manifest claims.
    """
    for turn in range(_ROUNDS):
        state = target.look(revision)
        if state.base is None or state.storage is None or MANIFEST not in state.files:
            raise NotFoundError(f"{target.url}: nothing was published there")
        try:
            return _pull(target.url, state, state.storage, LocalStorage(folder, create=True), progress)
        except NotFoundError:
            # A newer state has just taken this one's place, and what it does not list is gone.
            if turn + 1 == _ROUNDS or target.look(revision).base == state.base:
                raise
    raise AssertionError


def _pull(
    url: str, state: PublicState, source: Storage, home: LocalStorage, progress: Progress
) -> PullReport:
    claimed = told_files(state.manifest)
    if {**claimed, MANIFEST: state.files.get(MANIFEST)} != {
        path: file for path, file in state.files.items() if path in claimed or path == MANIFEST
    }:
        raise DamageError(url, "does not hold what its manifest claims; run `teleopen audit` on it")
    files = {**claimed, MANIFEST: state.files[MANIFEST]}
    before = _manifest(home)
    _check_own(home, before, files)
    missing = _missing(home, files)
    for group in (_data(missing), _documents(missing), _log(missing), [p for p in missing if p == MANIFEST]):
        with ThreadPoolExecutor(_PARALLEL, "pull") as pool:
            list(pool.map(lambda path: _bring(home, source, path, files[path], progress), group))
    gone = [path for path in told_files(before) if path not in files]
    home.delete([path for path in gone if home.exists(path)])
    stones = told_tombstones(state.manifest)
    had = told_records(before)
    return PullReport(
        url=url,
        base=str(state.base),
        folder=home.url,
        episodes=len(told_records(state.manifest)),
        brought=len(missing),
        bytes=sum(files[path].size for path in missing),
        removed=len(gone),
        withdrawn=tuple(stone for stone in stones if stone.id in had),
        tombstones=stones,
    )


def _manifest(home: Storage) -> dict[str, Json]:
    raw = read_or_none(home, MANIFEST)
    if raw is None:
        return {}
    place = f"{home.url}/{MANIFEST}"
    document = parse_manifest(raw, place)
    if document.get("manifest") != FORMAT:
        raise ConflictError(place, "is not from there; pull into a folder of its own")
    return document


def _check_own(home: Storage, before: Mapping[str, Json], files: Mapping[str, File]) -> None:
    """Refuse a folder in which somebody wrote: a pull would mix two stores, or write over their files."""
    told = told_files(before)
    # A first pull that was cut short has no manifest yet, and may have brought older files.
    if before or not Path(home.url, STAGING).is_dir():
        for key in _documents(files):
            if key not in told and home.exists(key) and not _is_whole(home, key, files[key]):
                raise ConflictError(f"{home.url}/{key}", "is not from there; pull into a folder of its own")
    for key in home.keys(CATALOG):
        if key in files and key != HEAD and key not in told and _is_whole(home, key, files[key]):
            continue
        if key not in files and not key.startswith(f"{CATALOG}/checkpoint-"):
            raise ConflictError(f"{home.url}/{key}", "is not from there; pull into a folder of its own")
        if key in files and key != HEAD and key not in told:
            raise ConflictError(f"{home.url}/{key}", "is of another store; pull into a folder of its own")
        if key in files and key != HEAD and home.size(key) != files[key].size:
            raise ConflictError(f"{home.url}/{key}", "is of another store; pull into a folder of its own")
    if not before and home.exists("zarr.json") and not home.exists(HEAD) and "zarr.json" not in files:
        raise ConflictError(home.url, "holds something else; pull into a folder of its own")


def _missing(home: Storage, files: Mapping[str, File]) -> list[str]:
    """Return what is not there yet, or is not whole."""

    def lacks(path: str) -> bool:
        return not _is_whole(home, path, files[path])

    with ThreadPoolExecutor(_PARALLEL, "pull") as pool:
        return [path for path, lacking in zip(files, pool.map(lacks, files), strict=True) if lacking]


def _is_whole(home: Storage, path: str, told: File) -> bool:
    try:
        if home.size(path) != told.size:
            return False
        digest = sha256()
        for start in range(0, told.size, _BLOCK):
            digest.update(home.read(path, start, min(told.size, start + _BLOCK)))
    except NotFoundError:
        return False
    return digest.hexdigest() == told.sha256


def _data(paths: Iterable[str]) -> list[str]:
    return [path for path in paths if path.startswith("segments/")]


def _documents(paths: Iterable[str]) -> list[str]:
    return [path for path in paths if not path.startswith(("segments/", f"{CATALOG}/")) and path != MANIFEST]


def _log(paths: Iterable[str]) -> list[str]:
    return sorted(path for path in paths if path.startswith(f"{CATALOG}/"))


def _bring(home: LocalStorage, source: Storage, path: str, told: File, progress: Progress) -> None:
    aside = home.staging() / f"{uuid.uuid4().hex}.pulled"
    for attempt in range(_TRIES):
        digest = sha256()
        try:
            with disk.DurableFile(aside) as file:
                for start in range(0, told.size, _BLOCK):
                    block = source.read(path, start, min(told.size, start + _BLOCK))
                    digest.update(block)
                    file.write(block)
            if digest.hexdigest() == told.sha256:
                home.take_file(aside, path)
                progress(path, told.size)
                return
        finally:
            with suppress(StoreError):
                disk.unlink(aside)
        if attempt + 1 == _TRIES:
            raise DamageError(f"{source.url}/{path}", "its bytes are not those that the manifest claims")
