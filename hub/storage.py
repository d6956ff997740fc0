"""Where a store's objects lie: a local folder here, any other place in `remote`."""

from __future__ import annotations

import errno
import os
import time
import uuid
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_ISREG
from typing import Any, Protocol
from unicodedata import is_normalized

from ..schemas import DamageError, NotFoundError, StoreError
from . import disk

STAGING = ".staging"
"""Folder of a local store where things are built; no reader looks into it."""
LEVELS = "levels"
"""Folder of smaller copies of the cameras, each a store of its own; see `teleopen.hub.levels`."""

# What a published place holds besides the store: `teleopen.hub.sync`.
_PUBLISHED_FILES = frozenset(
    {".gitattributes", "NOTICE", "README.md", "croissant.json", "manifest.json", "revocations.json"}
)
_PUBLISHED_FOLDERS = ("LICENSES/", "generations/", "index/", "objects/")

_PART_BYTES = 255
_BLOCK_BYTES = 8 << 20


class Storage(Protocol):
    """Objects under keys like ``segments/ab12/zarr.json``; keys are checked by `safe_key`.

    Every method raises `StoreError` if the place fails or refuses.

    Attributes
    ----------
    url
        Where it is: the absolute path of a local folder, or a URL.
    can_list
        Whether `keys` works.
    """

    url: str
    can_list: bool

    def read(self, key: str, start: int = 0, stop: int | None = None) -> bytes:
        """Return bytes ``start`` to ``stop``, fewer where it ends; `NotFoundError` if it is absent."""

    def read_many(self, ranges: Sequence[tuple[str, int, int]]) -> list[bytes]:
        """Return exactly the bytes of each (key, start, stop), fetched at once where that is remote.

        Raises
        ------
        NotFoundError
            If an object is absent.
        DamageError
            If one ends too early.
        """

    def size(self, key: str) -> int:
        """Return the bytes of an object; `NotFoundError` if it is absent."""

    def exists(self, key: str) -> bool:
        """Tell whether there is an object."""

    def age_s(self, keys: Sequence[str]) -> float:
        """Return the seconds since the youngest of these objects was written."""

    def keys(self, prefix: str = "") -> Iterator[str]:
        """Yield the key of every object below a folder, sorted; those in staging are among them."""

    def create(self, key: str, data: bytes) -> None:
        """Create an object, whole and durable, unless there is one.

        Remote answers get lost; an object with exactly these bytes therefore counts as created. Whoever needs
        a single winner makes the bytes unique.

        Raises
        ------
        FileExistsError
            If there is another.
        """

    def replace(self, key: str, data: bytes) -> None:
        """Create or overwrite an object in one step; the last writer wins, so this is for hints only."""

    def put_folder(self, local: Path, key: str) -> None:
        """Move a finished and durable local folder to a free key prefix; its ``zarr.json`` comes last.

        Raises
        ------
        FileExistsError
            If there is something.
        """

    def put_file(self, local: Path, key: str) -> None:
        """Copy a local file to a key in one step, over what is there; the last writer wins."""

    def delete(self, keys: Sequence[str]) -> None:
        """Remove objects; those that are absent already are no error."""

    def delete_folder(self, key: str) -> None:
        """Remove all objects below a folder."""

    def local(self, key: str) -> Path | None:
        """Return the real path of an object that can be mapped, or None where it is remote."""

    def staging(self) -> Path:
        """Return a local folder to build in, which `put_folder` can take from."""


def is_garbage(key: str, claimed: Container[str]) -> bool:
    """Tell whether an object belongs to nobody.

    Parameters
    ----------
    claimed
        What the commit log tells of. The log itself, what is being built, levels, and the documents of a
        published place are no garbage either.
    """
    kept = ("catalog/", f"{STAGING}/", f"{LEVELS}/", *_PUBLISHED_FOLDERS)
    return key not in claimed and key not in _PUBLISHED_FILES and not key.startswith(kept)


def safe_key(key: str) -> str:
    """Return a key if it names a place below the root and nothing else, on any system.

    Raises
    ------
    StoreError
        If it is absolute, climbs, or holds what some system reads as more than a name.
    """
    why = _unsafe(key)
    if why:
        raise StoreError(ascii(key)[:300], f"is no safe key: {why}")
    return key


def _unsafe(key: str) -> str:
    parts = key.split("/")
    if not key.isprintable():
        return "it holds control or invisible characters"
    if "\\" in key or ":" in key:
        return "it holds a backslash or a colon"
    if not all(parts):
        return "it is empty, absolute, or has an empty part"
    if any(part in {".", ".."} for part in parts):
        return "it climbs"
    if any(len(part.encode()) > _PART_BYTES for part in parts):
        return f"a part is longer than {_PART_BYTES} bytes"
    if not is_normalized("NFC", key):
        return "it is not in Unicode's normal form C"
    return ""


def open_storage(url: str | Path, *, create: bool = False) -> Storage:
    """Return the storage at a local path or a URL.

    Parameters
    ----------
    url
        A path, ``file://``, or a URL of one plain service; no chains, caches, archives or references.
        ``hf://datasets/org/name`` is read at the commit that it is at now.
    create
        Make a local folder that is missing.

    Raises
    ------
    StoreError
        If the folder is missing, or the URL is of a kind that could lead elsewhere.
    NotFoundError
        If there is no such dataset on the Hub, or not for this token.
    MissingExtraError
        If what speaks the protocol is not installed.
    """
    text = os.fspath(url)
    if "::" in text:
        raise StoreError(text, "chained URLs are refused: give the plain URL of the store")
    scheme, divider, rest = text.partition("://")
    if not divider:
        return LocalStorage(Path(text), create=create)
    if scheme in {"file", "local"}:
        return LocalStorage(Path(rest), create=create)
    from .remote import RemoteStorage, checked_scheme

    scheme = checked_scheme(text)
    if scheme in {"http", "https"}:
        from .web import WebStorage

        return WebStorage(text)
    if scheme == "hf":
        from .hf import HubStorage

        return HubStorage(text)
    return RemoteStorage(text)


class LocalStorage:
    """A local folder. Symbolic links below its root are refused, whoever put them there."""

    def __init__(self, root: Path, *, create: bool = False) -> None:
        if create:
            disk.make_folder(root)
        self._root = Path(os.path.realpath(root))
        if not self._root.is_dir():
            raise StoreError(str(root), "there is no such folder")
        self.url = str(self._root)
        self.can_list = True

    def __reduce__(self) -> tuple[Any, ...]:
        return open_storage, (self.url,)

    def local(self, key: str) -> Path:
        place = self.url
        for part in safe_key(key).split("/"):
            place = f"{place}/{part}"
            if os.path.islink(place):  # noqa: PTH114 - this is in the way of every read
                raise StoreError(place, "is a symbolic link, which a store must not hold")
        return Path(place)

    def staging(self) -> Path:
        path = self.local(STAGING)
        disk.make_folder(path)
        return path

    def read(self, key: str, start: int = 0, stop: int | None = None) -> bytes:
        with self._opened(key) as (fd, size):
            return _pread(fd, start, size if stop is None else min(stop, size))

    def read_many(self, ranges: Sequence[tuple[str, int, int]]) -> list[bytes]:
        return [exactly(f"{self.url}/{r[0]}", r[1], r[2], self.read(*r)) for r in ranges]

    def size(self, key: str) -> int:
        with self._opened(key) as (_, size):
            return size

    def exists(self, key: str) -> bool:
        return self.local(key).is_file()

    def age_s(self, keys: Sequence[str]) -> float:
        youngest = 0.0
        for key in keys:
            with self._opened(key) as (fd, _):
                youngest = max(youngest, os.fstat(fd).st_mtime)
        return time.time() - youngest

    @contextmanager
    def _opened(self, key: str) -> Iterator[tuple[int, int]]:
        """Open an object: its descriptor and size."""
        path = self.local(key)
        with disk.told(path):
            try:
                fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            except (FileNotFoundError, NotADirectoryError) as error:
                raise NotFoundError(f"{path} is not there") from error
            try:
                found = os.fstat(fd)
                if not S_ISREG(found.st_mode):
                    raise NotFoundError(f"{path} is no file")
                yield fd, found.st_size
            finally:
                os.close(fd)

    def keys(self, prefix: str = "") -> Iterator[str]:
        folder = self.local(prefix) if prefix else self._root
        if folder.is_dir():
            yield from _below(folder, f"{prefix}/" if prefix else "")

    def create(self, key: str, data: bytes) -> None:
        target = self._ready(key)
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, "is there already", str(target))
        with self._aside([data]) as aside:
            disk.link(aside, target)
            disk.sync_folder(target.parent)

    def replace(self, key: str, data: bytes) -> None:
        target = self._ready(key)
        with self._aside([data]) as aside:
            disk.rename(aside, target)
            disk.sync_folder(target.parent)

    @contextmanager
    def _aside(self, chunks: Iterable[bytes]) -> Iterator[Path]:
        """Write bytes to a file in staging, which does not outlive the block."""
        aside = self.staging() / f"{uuid.uuid4().hex}.aside"
        disk.write(aside, chunks)
        try:
            yield aside
        finally:
            # What cannot be removed is swept up later; what the block did counts.
            with suppress(StoreError):
                disk.unlink(aside)

    def _ready(self, key: str) -> Path:
        """Return the path of a key, below folders that are there and durable."""
        target = self.local(key)
        above = target.relative_to(self._root).parents[:-1]
        for folder in reversed([self._root / name for name in above if not (self._root / name).is_dir()]):
            disk.make_folder(folder)
            disk.sync_folder(folder.parent)
        return target

    def put_folder(self, local: Path, key: str) -> None:
        target = self._ready(key)
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, "is there already", str(target))
        disk.rename(local, target)
        disk.sync_folder(target.parent)
        disk.sync_folder(local.parent)

    def take_file(self, local: Path, key: str) -> None:
        """Move a durable file of the staging folder to a key in one step, over what is there."""
        target = self._ready(key)
        disk.rename(local, target)
        disk.sync_folder(target.parent)

    def put_file(self, local: Path, key: str) -> None:
        target = self._ready(key)
        with self._aside(_blocks(local)) as aside:
            disk.rename(aside, target)
            disk.sync_folder(target.parent)

    def delete(self, keys: Sequence[str]) -> None:
        paths = [self.local(key) for key in keys]
        for path in paths:
            disk.unlink(path)
        for folder in {path.parent for path in paths}:
            if folder.is_dir():
                disk.sync_folder(folder)

    def delete_folder(self, key: str) -> None:
        path = self.local(key)
        if path.is_dir():
            # One step makes it vanish for readers; what a crash leaves of it lies in staging.
            aside = self.staging() / f"{uuid.uuid4().hex}.deleted"
            disk.rename(path, aside)
            disk.sync_folder(path.parent)
            disk.remove_tree(aside)


def _blocks(path: Path) -> Iterator[bytes]:
    with disk.told(path), path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            yield block


def _pread(fd: int, start: int, stop: int) -> bytes:
    parts = []
    while start < stop:
        part = os.pread(fd, stop - start, start)
        if not part:
            break
        parts.append(part)
        start += len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _below(folder: Path, prefix: str) -> Iterator[str]:
    """Yield the keys below a folder, sorted; a link counts as an object, so that a check trips over it."""
    found: list[tuple[str, str]] = []
    # It may have been removed since the folder above was listed.
    with disk.told(folder), suppress(FileNotFoundError), os.scandir(folder) as entries:
        found = sorted((e.name + "/" * e.is_dir(follow_symlinks=False), e.path) for e in entries)
    for name, path in found:
        if name.endswith("/"):
            yield from _below(Path(path), prefix + name)
        else:
            yield prefix + name


def exactly(place: str, start: int, stop: int, data: bytes) -> bytes:
    """Return the bytes that a range gave, or raise if there are more or fewer than were asked for."""
    if len(data) > stop - start:
        raise StoreError(place, "the server ignores byte ranges, so parts of a file cannot be read from it")
    if len(data) < stop - start:
        raise DamageError(place, f"ends at byte {start + len(data)}, and {stop} were promised")
    return data
