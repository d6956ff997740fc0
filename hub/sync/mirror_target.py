"""A mirror on any file system as a target: a disk, a bucket, memory.

Nobody can change many files of a bucket at once. So nothing that readers rely on is ever changed::

    generations/00000042.json     a state: path, size and SHA-256 of all files; SHA-256 of the state before
    objects/ab/abcd...            a file of the tree under its SHA-256, unless it is data
    segments/<segment>/...        data, under its own path: its name is never used again
    zarr.json, catalog/, ...      copies, for people and for readers who do not know of generations
    generations/head.json         a hint at the newest generation, written when the copies are done
    revocations.json              what was withdrawn, for those who hold copies of their own

The switch is the creation of the next generation's list, which succeeds only if there is none yet. Everything
on the list is there before it, so whoever reads the newest list, at any moment and for however long, can
check all of it. Two who switch at once make the same number; one is refused, and looks again.

The copies follow. A reader of them alone sees a store that is whole as well: segments are there before any
entry of the log that names them, entries are created once and in order, and ``head.json`` is only a hint to a
store's reader. Documents such as the card may be older than the log for a moment there. A publisher that dies
before the copies are done leaves a hint that is behind; the next one, with or without anything to publish,
finishes its work.

Data that a new generation no longer lists is deleted after it, so a reader who is at it then loses the files
under its hands: it looks again, and finds a newer generation. Nothing that no list ever named is deleted,
since another publisher may just be bringing it.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from typing import Any

from ...schemas import (
    ConflictError,
    DamageError,
    Json,
    NotFoundError,
    StoreError,
    to_document,
)
from ..compact import GRACE_S
from ..log import sealed, unsealed
from ..remote import RemoteStorage
from ..storage import STAGING, Storage, open_storage
from ..verify import Finding
from .bounds import document_or_none
from .generation import (
    FOLDER,
    HEAD,
    KEPT,
    MARK,
    OBJECTS,
    REVOCATIONS,
    Found,
    Generation,
    data_there,
    file_key,
    holds,
    keys_of,
    list_key,
    read_list,
)
from .plan import Plan
from .public_log import read_public
from .target import Progress, Purged, Snapshot, StaleError, each
from .tree import EMPTY, Blob, PublicState, Tombstone, is_data

_MARK = b'{"format":1}\n'
_OBJECT = re.compile(rf"{OBJECTS}/[0-9a-f]{{2}}/[0-9a-f]{{64}}")
_BASE = re.compile(r"(\d{8})-([0-9a-f]{16})")
_REPLACED = "newer generations have taken its place"
_PARALLEL = 8
_TRIES = 5


class MirrorTarget:
    """A mirror.

    Parameters
    ----------
    url
        A path, or the URL of a service.
    single_writer
        Publish even where nothing can be created only if it is absent: the caller promises to be alone.
    """

    def __init__(self, url: str, *, single_writer: bool = False) -> None:
        self.url = url
        self._alone = single_writer
        self._opened: Storage | None = None
        self._staged: set[str] = set()

    # ------------------------------------------------------------ looking

    def storage(self) -> Storage | None:
        """Return the storage; None if it is a local folder that is not there yet."""
        try:
            return self._open(create=False)
        except StoreError as error:
            if error.why == "there is no such folder":
                return None
            raise

    def _open(self, *, create: bool = True) -> Storage:
        if self._opened is None:
            self._opened = open_storage(self.url, create=create)
            if self._alone and isinstance(self._opened, RemoteStorage):
                self._opened.single_writer = True
        return self._opened

    def look(self, revision: str | None = None) -> PublicState:
        storage = self.storage()
        found = None if storage is None else self.generation(storage, revision)
        if storage is None or found is None:
            if revision is not None:
                raise NotFoundError(f"{self.url} has no generation {revision}")
            return EMPTY
        try:
            return read_public(self._snapshot(storage, found), found.base, found.generation.files)
        except (NotFoundError, DamageError) as error:
            # Others may have published meanwhile, and tidied up what they no longer list.
            if self._is_newest(storage, found):
                raise
            if revision is not None:
                raise StaleError(
                    f"{self.url}@{revision}", "newer generations have taken its place"
                ) from error
        return self.look()

    def _snapshot(self, storage: Storage, found: Found) -> Snapshot:
        files = found.generation.files

        def fetch(path: str, start: int, stop: int) -> bytes:
            return storage.read(file_key(path, files[path].sha256), start, stop)

        return Snapshot(f"{self.url}@{found.base}", files, fetch)

    def generation(self, storage: Storage, revision: str | None = None) -> Found | None:
        """Return a generation, the newest unless told; None if there is none yet.

        Raises
        ------
        NotFoundError
            If the one that is asked for is not there any more.
        StoreError
            If something else lies at this place.
        """
        if revision is not None:
            told = _BASE.fullmatch(revision)
            found = read_list(storage, int(told[1])) if told else None
            if found is None or found.base != revision:
                raise NotFoundError(f"{self.url} has no generation {revision}")
            return found
        number, found = self._hint(storage), None
        if number:
            found = read_list(storage, number)
            if found is None:
                raise DamageError(f"{self.url}/{list_key(number)}", f"is missing, though {HEAD} tells of it")
        elif document_or_none(storage, MARK) is None:
            self._check_free(storage)
            return None
        while (newer := read_list(storage, number + 1)) is not None:
            if found is not None and newer.generation.previous != found.sha256:
                place = f"{self.url}/{list_key(number + 1)}"
                raise DamageError(place, "does not follow the list before it: one of them was exchanged")
            number, found = number + 1, newer
        return found

    def _check_free(self, storage: Storage) -> None:
        """Refuse a place that holds something else: above all a private store."""
        there = storage.exists("zarr.json")
        there = there or (storage.can_list and any(not key.startswith(".") for key in storage.keys("")))
        # Another publisher may have begun between the two looks.
        if there and document_or_none(storage, MARK) is None:
            why = "holds something that was not published there; give an empty place"
            raise StoreError(self.url, why)

    def _hint(self, storage: Storage) -> int:
        raw = document_or_none(storage, HEAD)
        if raw is None:
            return 0
        try:
            number = unsealed(raw, f"{self.url}/{HEAD}")["number"]
        except (DamageError, KeyError):
            return 0  # the lists themselves tell
        return number if isinstance(number, int) else 0

    def probe(self, state: PublicState, paths: Sequence[str]) -> None:
        storage = self._open()

        def check(path: str) -> None:
            told = state.files[path]
            key = file_key(path, told.sha256)
            if holds(storage, key, told):
                return
            if key not in keys_of(self._newest(storage).generation.files):
                raise StaleError(f"{self.url}/{path}", _REPLACED)
            raise DamageError(f"{self.url}/{path}", "does not hold the bytes that were brought there")

        with ThreadPoolExecutor(_PARALLEL, "probe") as pool:
            list(pool.map(check, paths))

    def strays(self) -> tuple[list[str], list[Finding]]:
        """Return what the newest list does not name: what is pending, and what has no business there.

        Nothing can be said of a place that cannot be listed, such as a web server.
        """
        storage = self.storage()
        found = None if storage is None else self.generation(storage)
        if storage is None or found is None or not storage.can_list:
            return [], []
        newest = found.generation
        before = read_list(storage, newest.number - 1) if newest.number > 1 else None
        recent = [newest, *([before.generation] if before else [])]
        listed = set().union(*(keys_of(one.files) for one in recent))
        pending, wrong = [], []
        for key in storage.keys(""):
            if key in listed or key.startswith((f"{FOLDER}/", f"{STAGING}/")) or key == REVOCATIONS:
                continue
            if is_data(key) or _OBJECT.fullmatch(key):
                pending.append(key)
            elif not any(holds(storage, key, one.files[key]) for one in recent if key in one.files):
                why = "is no copy of a published file" if key in newest.files else "is claimed by nobody"
                wrong.append(Finding(key, why))
        return pending, wrong

    # ------------------------------------------------------------ sending

    def prepare(self) -> None:
        storage = self._open()
        if document_or_none(storage, MARK) is None:
            self._check_free(storage)
        try:
            # Also tries out, on a bucket, whether a thing is created only if it is absent.
            storage.create(MARK, _MARK)
        except FileExistsError:
            if document_or_none(storage, MARK) != _MARK:
                raise StoreError(f"{self.url}/{MARK}", "is of a newer teleopen") from None
        except ConflictError:
            raise
        except StoreError as error:
            if "If-None-Match" in error.why or "is read only" in error.why:
                advice = "if nobody else publishes here, say so: --single-writer"
                raise StoreError(self.url, f"{error.why}; {advice}") from error
            raise

    def stage(self, blobs: Sequence[Blob], progress: Progress) -> None:
        storage = self._open()
        found = self.generation(storage)
        live = found.generation.files if found else {}
        there = data_there(storage, blobs)

        def bring(blob: Blob) -> None:
            key = file_key(blob.path, blob.sha256)
            if key in self._staged or live.get(blob.path) == blob.file:
                return
            if key == blob.path and blob.path in live:
                why = "is data that readers use, and was to be overwritten with other bytes"
                raise StoreError(f"{self.url}/{blob.path}", why)
            # What an earlier attempt brought is not sent again, if it is whole.
            if key not in there or not holds(storage, key, blob.file):
                self._put(storage, key, blob)
            self._staged.add(key)
            progress(blob.path, blob.size)

        each(bring, blobs)

    def unstage(self, paths: Sequence[str]) -> None:
        storage = self._open()
        found = self.generation(storage)
        listed = found.generation.files if found else {}
        # Whoever else is bringing the same looks after its switch whether all is there.
        gone = [path for path in paths if path in self._staged and path not in listed]
        self._staged.difference_update(gone)
        _again(lambda: storage.delete(gone))

    def _put(self, storage: Storage, key: str, blob: Blob) -> None:
        local = blob.local()
        if blob.data is not None:
            _again(lambda: storage.replace(key, blob.read()))
        elif local is not None:
            for _ in blob.chunks():
                pass  # the last one comes only if all are what was planned
            _again(lambda: storage.put_file(local, key))
        else:
            aside = storage.staging() / f"{blob.sha256}.mirror"
            with suppress(FileNotFoundError):
                aside.unlink()
            try:
                with aside.open("xb") as file:
                    file.writelines(blob.chunks())
                _again(lambda: storage.put_file(aside, key))
            finally:
                aside.unlink(missing_ok=True)

    def switch(self, plan: Plan) -> str:
        storage, tree = self._open(), plan.files()
        found = self.generation(storage)
        if (found.base if found else None) != plan.base:
            raise StaleError(self.url, f"another publisher was faster: it is at {found and found.base}")
        self.stage([tree.files[path] for path in plan.switch], lambda _path, _size: None)
        generation = Generation(
            number=found.generation.number + 1 if found else 1,
            previous=found.sha256 if found else None,
            id=uuid.uuid4().hex,
            version=plan.version,
            plan=plan.digest,
            time=datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
            tool=plan.tool,
            files={path: blob.file for path, blob in sorted(tree.files.items())},
        )
        raw = sealed(to_document(generation))
        try:
            self._create(storage, list_key(generation.number), raw)
        except FileExistsError as error:
            why = f"another publisher was faster: it made generation {generation.number}"
            raise StaleError(self.url, why) from error
        # Whoever tidied up while these were brought may have taken them for what an older list left.
        self._staged.clear()
        brought = [tree.files[path] for path in plan.add]
        there = data_there(storage, brought)
        lost = [blob for blob in brought if is_data(blob.path) and blob.path not in there]
        each(lambda blob: self._put(storage, blob.path, blob), lost)
        return Found(generation, sha256(raw).hexdigest()).base

    def _create(self, storage: Storage, key: str, raw: bytes) -> None:
        for attempt in range(_TRIES):
            try:
                storage.create(key, raw)
                return
            except StoreError:
                # The answer may have been lost: what lies there tells, and ours is like no other.
                there = document_or_none(storage, key)
                if there is not None and there != raw:
                    raise FileExistsError(key) from None
                if there is None and attempt + 1 == _TRIES:
                    raise
                time.sleep(0.05 * 2**attempt)

    # ------------------------------------------------------------ afterwards

    def finish(self, _base: str, _version: int, /) -> tuple[str, ...]:
        storage = self._open()
        found = self.generation(storage)
        hint = self._hint(storage)
        if found is None or hint >= found.generation.number:
            return ()
        while True:
            try:
                self._copy(storage, hint, found)
            except NotFoundError:
                if self._is_newest(storage, found):
                    raise
            if self._is_newest(storage, found):
                break
            # Another publisher was faster, and this one may have put older copies over its.
            hint, found = found.generation.number, self._newest(storage)
        head = sealed({"number": found.generation.number})
        _again(lambda: storage.replace(HEAD, head))
        return (f"copies brought to generation {found.generation.number}",)

    def _newest(self, storage: Storage) -> Found:
        found = self.generation(storage)
        if found is None:
            raise DamageError(self.url, "had generations a moment ago, and has none any more")
        return found

    def _is_newest(self, storage: Storage, found: Found) -> bool:
        return self._newest(storage).base == found.base

    def _copy(self, storage: Storage, hint: int, found: Found) -> None:
        """Bring the copies from one generation to a newer one, and delete what only older ones list."""
        before = read_list(storage, hint) if hint else None
        old = before.generation.files if before else {}
        plain = {path: file for path, file in found.generation.files.items() if not is_data(path)}
        changed = [path for path, file in plain.items() if old.get(path) != file]
        for path in sorted(changed, key=_order):
            data = self._snapshot(storage, found).read(path)
            _again(partial(storage.replace, path, data))
        if self._is_newest(storage, found):
            self._delete_unlisted(storage, hint, found)

    def _delete_unlisted(self, storage: Storage, hint: int, found: Found) -> None:
        """Delete what older lists named and the newest does not; documents stay for one generation more."""
        newest = found.generation
        first = max(1, min(hint, newest.number - 1) - 1)
        older = [
            o.generation for n in range(first, newest.number) if (o := read_list(storage, n)) is not None
        ]
        gone = set().union(*(keys_of(one.files) for one in older)) - keys_of(newest.files)
        if older:
            gone -= {key for key in keys_of(older[-1].files) if not is_data(key)}
        gone |= {path for one in older for path in one.files if path not in newest.files}
        storage.delete(sorted(gone))
        if newest.number > KEPT:
            storage.delete([list_key(newest.number - KEPT)])

    def purge(self, tombstones: Sequence[Tombstone], progress: Progress) -> Purged:
        storage = self._open()
        self.finish("", 0)
        found = self.generation(storage)
        if found is None:
            raise StoreError(self.url, "nothing was published here")
        newest = found.generation
        listed = keys_of(newest.files)
        older = [o for n in range(1, newest.number) if (o := read_list(storage, n)) is not None]
        live = {file.sha256 for file in newest.files.values()}
        former = {file.sha256 for one in older for file in one.generation.files.values()} - live
        gone = set().union(*(keys_of(one.generation.files) for one in older)) - listed
        gone |= {list_key(one.generation.number) for one in older}
        if storage.can_list:
            # What died on the way, too; data that is young may be that of others who are publishing.
            gone |= {key for key in storage.keys(OBJECTS) if key not in listed}
            gone |= _left_behind(storage, listed)
        self._revoke(storage, tombstones, former)
        _again(lambda: storage.delete(sorted(gone)))
        for key in sorted(gone):
            progress(key, 0)
        remaining = [f"{key} is there still" for key in sorted(gone) if storage.exists(key)]
        remaining.append("versions, backups and copies that the place or others keep are out of reach")
        return Purged(
            base=found.base,
            files=tuple(sorted(former)),
            refs=tuple(f"generation {one.generation.number}" for one in older),
            remaining=tuple(remaining),
        )

    def _revoke(self, storage: Storage, tombstones: Sequence[Tombstone], former: set[str]) -> None:
        """Tell holders of copies what to delete: episodes, and files by their SHA-256."""
        told = revocations(storage)
        episodes = {**told["episodes"], **{s.id: {"ground": s.ground, "time": s.time} for s in tombstones}}
        files = sorted(former.union(told["files"]))
        storage.replace(REVOCATIONS, sealed({"episodes": episodes, "files": files}))


def revocations(storage: Storage) -> dict[str, Any]:
    """Return a mirror's list of what was withdrawn: episodes by id, and files by SHA-256."""
    raw = document_or_none(storage, REVOCATIONS)
    empty: dict[str, Json] = {"episodes": {}, "files": []}
    if raw is None:
        return empty
    return {**empty, **unsealed(raw, f"{storage.url}/{REVOCATIONS}")}


def _left_behind(storage: Storage, listed: set[str]) -> set[str]:
    """Return data that no list names, of segments that nobody has written to for a day."""
    segments: dict[str, list[str]] = {}
    for key in storage.keys("segments"):
        if is_data(key) and key not in listed:
            segments.setdefault(key.split("/")[1], []).append(key)
    return {key for keys in segments.values() if storage.age_s(keys) >= GRACE_S for key in keys}


def _order(path: str) -> tuple[int, str]:
    """Sort copies so that a store's reader finds no entry before what it needs: the log, then its hint."""
    return (2 if path == "catalog/head.json" else 1 if path.startswith("catalog/") else 0, path)


def _again(effect: Any) -> None:
    """Do something that may be done twice, until the place lets it."""
    for attempt in range(_TRIES):
        try:
            effect()
            return
        except DamageError:
            raise
        except StoreError:
            if attempt + 1 == _TRIES:
                raise
            time.sleep(0.05 * 2**attempt)
