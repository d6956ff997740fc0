"""Storage in a bucket, through fsspec; web servers are in `web`, and the Hub in `hf`.

What a place promises:

- ``memory://``, ``s3://``, ``gs://``: `Storage.create` is atomic and conditional, so many writers may commit
  at once. On a bucket this is tried out before the first commit, since servers exist that accept the
  condition and ignore it.
- any other: read only, since it cannot create an object only if it is absent.

URLs that could lead elsewhere are refused: chains, caches, archives, reference specifications.
"""

from __future__ import annotations

import errno
import random
import shutil
import tempfile
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fsspec.core import url_to_fs

from ..schemas import DamageError, MissingExtraError, NotFoundError, StoreError
from . import disk
from .ranges import cut, merged
from .storage import STAGING, exactly, open_storage, safe_key

_CONDITIONAL = {"gcs", "gs", "memory", "s3", "s3a"}
_WEB = {"http", "https"}
_READABLE = {"abfs", "adl", "az", "ftp", "hf", "oci", "oss", "sftp", "smb", "ssh", "webdav", "webhdfs"}
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
_TRIES = 8
_PARALLEL = 8
# What may pass by itself: two conditional writes met, too many requests, the server stumbled.
_PASSING = {408, 409, 429, 500, 502, 503, 504}

# fsspec's memory file system is one for the process, reads through a shared position, and has no atomic step.
_MEMORY = threading.RLock()


def checked_scheme(url: str) -> str:
    """Return the scheme of a URL, or raise `StoreError` if it could lead elsewhere or holds a secret."""
    scheme = url.partition("://")[0]
    allowed = _CONDITIONAL | _WEB | _READABLE
    if scheme not in allowed:
        why = f"{scheme}:// is refused, since it may lead elsewhere; allowed are {', '.join(sorted(allowed))}"
        raise StoreError(url, why)
    if "?" in url or "#" in url or urlsplit(url).password is not None:
        # The URL is not told: what it should not hold may be a secret.
        raise StoreError(f"{scheme}://...", "give the URL without query, fragment and password")
    return scheme


class RemoteStorage:
    """A bucket or server, through fsspec; keys lie below the URL's path.

    Attributes
    ----------
    single_writer
        Set it where somebody promises that nobody else writes: `create` then looks before it writes, and does
        not ask the place for a condition that it may not know.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._scheme = checked_scheme(url)
        self.can_list = True
        try:
            # A cached listing would hide what others committed.
            self._fs, self._base = url_to_fs(self.url, use_listings_cache=False)
        except ImportError as error:
            package = f"teleopen[{_EXTRAS[self._scheme]}]" if self._scheme in _EXTRAS else str(error)
            raise MissingExtraError(f"{self._scheme}:// needs more: pip install '{package}'") from error
        self._base = self._base.rstrip("/")
        self._proved = self._scheme == "memory"
        self.single_writer = False
        self._staging: Path | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return open_storage, (self.url,)

    def local(self, key: str) -> None:
        safe_key(key)

    def staging(self) -> Path:
        if self._staging is None:
            self._staging = Path(tempfile.mkdtemp(prefix="teleopen-"))
            weakref.finalize(self, shutil.rmtree, self._staging, ignore_errors=True)
        return self._staging

    def read(self, key: str, start: int = 0, stop: int | None = None) -> bytes:
        if (start, stop) == (0, None):
            with self._told(key):
                return bytes(self._fs.cat_file(self._path(key)))
        stop = self.size(key) if stop is None else stop
        if start >= stop:
            return b""
        try:
            with self._told(key):
                data = bytes(self._fs.cat_file(self._path(key), start=start, end=stop))
        except StoreError as error:
            if _status(error.__cause__) != 416:  # nothing lies at or behind the start
                raise
            return b""
        return data if len(data) < stop - start else exactly(f"{self.url}/{key}", start, stop, data)

    def read_many(self, ranges: Sequence[tuple[str, int, int]]) -> list[bytes]:
        asked = merged(ranges)
        paths = [self._path(key) for key, _, _ in asked]
        with self._told(""):
            # Exceptions come back in place, so that each can be told with its key.
            starts, stops = [start for _, start, _ in asked], [stop for _, _, stop in asked]
            found = self._fs.cat_ranges(paths, starts, stops, on_error="return")
        parts = {wanted: self._whole(*wanted, data) for wanted, data in zip(asked, found, strict=True)}
        return cut(ranges, parts)

    def _whole(self, key: str, start: int, stop: int, data: Any) -> bytes:
        if isinstance(data, Exception):
            if _status(data) == 416:
                raise DamageError(f"{self.url}/{key}", f"ends before byte {start}") from data
            with self._told(key):
                raise data
        return exactly(f"{self.url}/{key}", start, stop, bytes(data))

    def size(self, key: str) -> int:
        with self._told(key):
            info = self._fs.info(self._path(key))
        if info["type"] == "directory":
            raise NotFoundError(f"{self.url}/{key} is no file")
        if info["size"] is None:
            raise StoreError(f"{self.url}/{key}", "the server does not tell its size")
        return int(info["size"])

    def exists(self, key: str) -> bool:
        try:
            self.size(key)
        except NotFoundError:
            return False
        return True

    def age_s(self, keys: Sequence[str]) -> float:
        youngest = datetime.min.replace(tzinfo=UTC)
        for key in keys:
            with self._told(key):
                youngest = max(youngest, self._fs.modified(self._path(key)))
        return (datetime.now(UTC) - youngest).total_seconds()

    def keys(self, prefix: str = "") -> Iterator[str]:
        folder = self._path(prefix) if prefix else self._base
        try:
            with self._told(prefix):
                self._fs.invalidate_cache()
                found = sorted(self._fs.find(folder))
        except NotFoundError:
            found = []
        yield from (name[len(self._base) + 1 :] for name in found if name.startswith(f"{folder}/"))

    def create(self, key: str, data: bytes) -> None:
        path = self._writable(key)
        if self.single_writer:
            self._create_alone(key, data)
            return
        self._prove()
        for attempt in range(_TRIES):
            try:
                with self._lock():
                    self._fs.pipe_file(path, data, mode="create")
                return
            except Exception as error:  # noqa: BLE001 - each library has its own, and all end in a verdict
                if self._created_after_all(key, data, error):
                    return
            time.sleep(random.uniform(0, 0.05 * 2**attempt))
        why = f"the server did not decide in {_TRIES} attempts; try again later"
        raise StoreError(f"{self.url}/{key}", why)

    def _create_alone(self, key: str, data: bytes) -> None:
        if self.exists(key):
            if self.read(key) != data:
                raise FileExistsError(errno.EEXIST, "is there already", f"{self.url}/{key}")
            return
        self.replace(key, data)

    def _created_after_all(self, key: str, data: bytes, error: Exception) -> bool:
        """Look what lies there after an attempt to create that failed: the answer alone proves nothing."""
        place = f"{self.url}/{key}"
        try:
            there = self.read(key)
        except NotFoundError:
            if isinstance(error, FileExistsError) or _status(error) in _PASSING | {412}:
                return False
            raise StoreError(place, _reason(error)) from error
        except StoreError as unseen:
            why = f"{_reason(error)}; whether it was written could not be read back"
            raise StoreError(place, why) from unseen
        if there != data:
            raise FileExistsError(errno.EEXIST, "is there already", place) from error
        return True

    def _prove(self) -> None:
        """Try out that an object is created only if absent, once: some servers ignore the condition."""
        if self._proved:
            return
        key = f"{STAGING}/{uuid.uuid4().hex}.conditional"
        path = self._path(key)
        with self._told(key, writing=True):
            self._fs.pipe_file(path, b"first", mode="create")
        try:
            self._fs.pipe_file(path, b"second", mode="create")
        except Exception as error:
            if not isinstance(error, FileExistsError) and _status(error) != 412:
                raise StoreError(f"{self.url}/{key}", _reason(error)) from error
            self._proved = True
        finally:
            with suppress(Exception):  # an object of five bytes may stay
                self._fs.rm_file(path)
        if not self._proved:
            raise StoreError(self.url, "ignores If-None-Match, so commits would overwrite each other here")

    def replace(self, key: str, data: bytes) -> None:
        path = self._writable(key)
        with self._told(key, writing=True):
            self._fs.pipe_file(path, data)

    def put_folder(self, local: Path, key: str) -> None:
        self._writable(key)
        names = [path.relative_to(local).as_posix() for path in sorted(local.rglob("*")) if path.is_file()]
        if next(self.keys(key), None) is not None:
            raise FileExistsError(errno.EEXIST, "is there already", f"{self.url}/{key}")
        self._for_each(lambda name: self._upload(local, key, name), [n for n in names if n != "zarr.json"])
        self._for_each(lambda name: self._upload(local, key, name), [n for n in names if n == "zarr.json"])
        disk.remove_tree(local)

    def _upload(self, local: Path, key: str, name: str) -> None:
        self.put_file(local / name, f"{key}/{name}")

    def put_file(self, local: Path, key: str) -> None:
        path = self._writable(key)
        with self._told(key, writing=True):
            self._fs.put_file(str(local), path)

    def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            self._writable(key)
        self._for_each(self._delete, keys)

    def _delete(self, key: str) -> None:
        # One by one: fsspec's rm takes lists of patterns, and a key may hold what looks like one.
        with suppress(NotFoundError), self._told(key):
            self._fs.rm_file(self._path(key))

    def delete_folder(self, key: str) -> None:
        self.delete(list(self.keys(key)))

    def _for_each(self, effect: Callable[[str], None], items: Sequence[str]) -> None:
        with ThreadPoolExecutor(_PARALLEL) as pool:
            list(pool.map(effect, items))

    def _path(self, key: str) -> str:
        safe_key(key)
        return f"{self._base}/{key}"

    def _writable(self, key: str) -> str:
        if self._scheme not in _CONDITIONAL and not self.single_writer:
            why = "cannot create an object only if it is absent, so no commit would be safe there"
            raise StoreError(self.url, f"is read only: {self._scheme}:// {why}")
        return self._path(key)

    def _lock(self) -> AbstractContextManager[Any]:
        return _MEMORY if self._scheme == "memory" else nullcontext()

    @contextmanager
    def _told(self, key: str, *, writing: bool = False) -> Iterator[None]:
        """Tell any library's error as ours, under the memory lock where that is needed."""
        place = f"{self.url}/{key}" if key else self.url
        try:
            with self._lock():
                yield
        except Exception as error:
            if not writing and _means_absent(error):
                raise NotFoundError(f"{place} is not there") from error
            raise StoreError(place, _reason(error)) from error


def _means_absent(error: Exception) -> bool:
    """Tell absence from failure: fsspec's web client says "not found" after both, but names the cause."""
    if not isinstance(error, FileNotFoundError):
        return False
    cause = error.__cause__
    return cause is None or isinstance(cause, FileNotFoundError | KeyError) or _status(error) in {404, 410}


def _status(error: BaseException | None) -> int | None:
    """Return the HTTP status that an error or its cause tells, in the words of aiohttp, botocore or httpx."""
    for told in (error, error.__cause__ if error else None):
        response = getattr(told, "response", None)
        if isinstance(response, dict):
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        else:
            status = getattr(told, "status", getattr(response, "status_code", None))
        if isinstance(status, int):
            return status
    return None


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:300]
