"""Reading a repository of the Hub: what a commit holds, each file's SHA-256, and bytes of it."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...schemas import DamageError, NotFoundError, StoreError
from .. import disk
from ..log import File
from . import hub_client
from .bounds import check_size
from .hub_client import as_ours, call
from .target import Snapshot

ATTRIBUTES = ".gitattributes"
REPO_TYPE = "dataset"
_TRIES = 3
_SMALL = 16 << 20
_MOST_KEPT = 4 << 20
_PART = 1 << 20


def git_id(data: bytes) -> str:
    """Return the id that git gives a file: SHA-1 over a header and the bytes (git: gitformat-pack)."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


class Cache:
    """Small files of repositories on this machine, by git's id or by SHA-256; what is in it never changes.

    A repository tells the SHA-256 only of files in LFS, so the others are read once to learn it. And a log
    whose entries are here need not be fetched again.
    """

    def __init__(self, folder: Path | None = None) -> None:
        if folder is None:
            from huggingface_hub import constants

            folder = Path(constants.HF_HOME) / "teleopen"
        self._folder = folder

    def get(self, name: str) -> bytes | None:
        """Return a file, or None if it is not here or is damaged."""
        with suppress(OSError):
            data = (self._folder / name[:2] / name).read_bytes()
            if name in {git_id(data), hashlib.sha256(data).hexdigest()}:
                return data
        return None

    def put(self, data: bytes, name: str) -> None:
        """Keep a file; if the disk refuses, the next reader asks the server again."""
        self._write(self._folder / name[:2] / name, data)

    def noted(self, name: str) -> bytes | None:
        """Return a note that was kept under a name, or None."""
        with suppress(OSError):
            return (self._folder / name).read_bytes()
        return None

    def note(self, name: str, data: bytes) -> None:
        """Keep a note under a name."""
        self._write(self._folder / name, data)

    def _write(self, place: Path, data: bytes) -> None:
        aside = place.with_name(f"{uuid.uuid4().hex}.aside")
        with suppress(StoreError, FileExistsError):
            disk.make_folder(place.parent)
            disk.write(aside, [data])
            disk.rename(aside, place)


def _is_kept(path: str, size: int) -> bool:
    """Tell whether a file is worth keeping: the log and the manifest are read each time, data is not."""
    return size <= _MOST_KEPT and not path.startswith("segments/")


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of a commit as the server lists it: size, git's id, and the SHA-256 if it is in LFS."""

    size: int
    blob: str
    lfs: str | None


class Reader:
    """A repository as someone sees it.

    Parameters
    ----------
    api
        From `hub_client.connect`: it says who reads.
    repository
        ``org/name``.
    cache
        What others of this machine have read.
    """

    def __init__(self, api: Any, repository: str, cache: Cache) -> None:
        self.api, self.repository, self._cache = api, repository, cache
        self.url = f"hf://datasets/{repository}"

    def info(self, revision: str) -> Any | None:
        """Return what the Hub tells of a revision, or None if there is no such repository for this reader.

        Raises
        ------
        NotFoundError
            If there is the repository but not the revision.
        """
        try:
            return call(
                self.url,
                self.api.dataset_info,
                self.repository,
                revision=revision,
                timeout=hub_client.TIMEOUT_S,
            )
        except NotFoundError as error:
            if "RepositoryNotFoundError" in {cls.__name__ for cls in type(error.__cause__).__mro__}:
                return None
            raise NotFoundError(f"{self.url} has no revision {revision!r}") from error

    def entries(self, commit: str) -> dict[str, Entry]:
        """Return every file of a commit."""
        from huggingface_hub.hf_api import RepoFile

        def listed() -> list[Any]:
            tree = self.api.list_repo_tree(
                self.repository, recursive=True, revision=commit, repo_type=REPO_TYPE
            )
            return list(tree)

        return {
            found.path: Entry(found.size, found.blob_id, found.lfs.sha256 if found.lfs else None)
            for found in call(self.url, listed)
            if isinstance(found, RepoFile)
        }

    def files(self, commit: str, entries: Mapping[str, Entry]) -> dict[str, File]:
        """Return size and SHA-256 of files; reads those that are neither in LFS nor in the cache."""
        found = {}
        for path, entry in entries.items():
            sha256 = entry.lfs or hashlib.sha256(self.small(commit, path, entry)).hexdigest()
            found[path] = File(size=entry.size, sha256=sha256)
        return found

    def sha256(self, entry: Entry) -> str | None:
        """Return the SHA-256 of a file as far as it is known without asking: in LFS, or read before."""
        if entry.lfs is not None:
            return entry.lfs
        known = self._cache.get(entry.blob)
        return None if known is None else hashlib.sha256(known).hexdigest()

    def small(self, commit: str, path: str, entry: Entry) -> bytes:
        """Return a file that is not in LFS, checked against its id."""
        known = self._cache.get(entry.blob)
        if known is not None:
            return known
        check_size(f"{self.url}/{path}", entry.size)
        for _ in range(_TRIES):
            data = self.get(commit, path, 0, entry.size, entry.size)
            if git_id(data) == entry.blob:
                self._cache.put(data, entry.blob)
                return data
        raise DamageError(f"{self.url}/{path}", "the server sends other bytes than it lists")

    def snapshot(self, commit: str, entries: Mapping[str, Entry], files: Mapping[str, File]) -> Snapshot:
        """Return a commit as a store's storage."""

        def fetch(path: str, start: int, stop: int) -> bytes:
            entry = entries[path]
            if entry.lfs is None:
                return self.small(commit, path, entry)[start:stop]
            if start or stop < entry.size or entry.size > _SMALL:
                return self.get(commit, path, start, stop, entry.size)
            return self._whole(commit, path, entry.size, entry.lfs)

        return Snapshot(f"{self.url}@{commit}", files, fetch)

    def _whole(self, commit: str, path: str, size: int, sha256: str) -> bytes:
        known = self._cache.get(sha256) if _is_kept(path, size) else None
        if known is not None:
            return known
        for _ in range(_TRIES):
            data = self.get(commit, path, 0, size, size)
            if hashlib.sha256(data).hexdigest() == sha256:
                if _is_kept(path, size):
                    self._cache.put(data, sha256)
                return data
        raise DamageError(f"{self.url}/{path}", "the server sends other bytes than it lists")

    def get(self, commit: str, path: str, start: int, stop: int, size: int) -> bytes:
        """Return bytes of a file; nothing but their number is checked."""
        if start >= stop:
            return b""
        from huggingface_hub import hf_hub_url

        client = hub_client.utilities()
        url = hf_hub_url(
            self.repository, path, repo_type=REPO_TYPE, revision=commit, endpoint=self.api.endpoint
        )
        headers = client.build_hf_headers(token=self.api.token, library_name="teleopen")
        headers["Accept-Encoding"] = "identity"
        whole = (start, stop) == (0, size)
        if not whole:
            headers["Range"] = f"bytes={start}-{stop - 1}"

        def ask() -> bytes:
            session = client.get_session()
            with session.stream("GET", url, headers=headers, timeout=hub_client.TIMEOUT_S) as response:
                client.hf_raise_for_status(response)
                # A server or cache on the way may ignore ranges, and send the whole file.
                most = size if response.status_code == 200 else stop - start
                data = _body(response, most)
                if response.status_code == 200 and not whole and len(data) == size:
                    return data[start:stop]
                return data

        try:
            data = call(f"{self.url}/{path}", ask)
        except (NotFoundError, StoreError):
            raise
        except Exception as error:
            raise as_ours(f"{self.url}/{path}", error) from error
        if len(data) != stop - start:
            why = f"the server sent {len(data)} bytes where {stop - start} were asked for"
            raise DamageError(f"{self.url}/{path}", why)
        return data


def _body(response: Any, most: int) -> bytes:
    """Return the body of an answer, but no more than one byte beyond what was asked for."""
    parts, size = [], 0
    for part in response.iter_bytes(_PART):
        parts.append(part)
        size += len(part)
        if size > most:
            break
    return b"".join(parts)[: most + 1]


def check_bytes(reader: Reader, commit: str, entries: Mapping[str, Entry], paths: Sequence[str]) -> None:
    """Read files of a commit and raise `DamageError` unless they are what the server lists."""
    for path in paths:
        entry = entries[path]
        if entry.lfs is None:
            data = reader.get(commit, path, 0, entry.size, entry.size)
            same = git_id(data) == entry.blob
        else:
            digest = hashlib.sha256()
            for start in range(0, entry.size, _SMALL):
                stop = min(entry.size, start + _SMALL)
                digest.update(reader.get(commit, path, start, stop, entry.size))
            same = digest.hexdigest() == entry.lfs
        if not same:
            raise DamageError(f"{reader.url}/{path}", "the server sends other bytes than it lists")
