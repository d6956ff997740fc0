"""The only place where bytes on a local disk are made durable.

Every effect goes through one of these few functions, and they through the names of `os`: a test can end the
process, or fill the disk, at each single step. A folder's entries last only once the folder is synced too, so
whoever creates, renames or removes says `sync_folder` where it matters.
"""

# The names of `os` are what a test takes the place of; pathlib's would slip past it.
# ruff: noqa: PTH102, PTH104, PTH106, PTH108, PTH121

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from ..schemas import StoreError

_ADVICE = {
    errno.ENOSPC: "the disk is full; free some space and run it again",
    errno.EDQUOT: "the disk quota is used up; free some space or ask for more, and run it again",
    errno.EROFS: "the file system is read-only; give a store on one that can be written",
    errno.EACCES: "permission denied; this user may not write there",
    errno.EPERM: "not permitted to this user, or not by this file system",
    errno.EIO: "the disk reports an error; look at its health before running it again",
    errno.EMFILE: "too many open files; raise `ulimit -n` and run it again",
    errno.EXDEV: "lies on another file system than the store; build in the store's own staging folder",
}

_CLOSED = -1


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Tell an `OSError` about ``path`` as a `StoreError` with what to do; pass `FileExistsError` on."""
    try:
        yield
    except (FileExistsError, StoreError):
        raise
    except OSError as error:
        why = _ADVICE.get(error.errno or 0) or error.strerror or type(error).__name__
        raise StoreError(str(path), why) from error


class DurableFile:
    """A new file that is only ever appended to, and on disk when `close` has returned.

    Raises
    ------
    FileExistsError
        If there is one already.
    StoreError
        From each method, if the disk refuses.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with told(path):
            self._fd = os.open(path, flags, 0o666)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append bytes."""
        view = memoryview(data)
        rest = view.cast("B") if view.nbytes else b""  # an empty view cannot be cast
        with told(self.path):
            while rest:
                rest = rest[os.write(self._fd, rest) :]

    def close(self) -> None:
        """Make the bytes durable and release the file; a second call does nothing."""
        if self._fd == _CLOSED:
            return
        try:
            with told(self.path):
                os.fsync(self._fd)
        finally:
            self.abort()

    def abort(self) -> None:
        """Release the file without making it durable, for a caller that is going to remove it."""
        if self._fd != _CLOSED:
            # The descriptor is gone even if close fails, so it is forgotten first.
            fd, self._fd = self._fd, _CLOSED
            with told(self.path):
                os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()


def write(path: Path, chunks: Iterable[bytes | bytearray | memoryview]) -> None:
    """Write a new durable file; if that fails, no part of it stays."""
    file = DurableFile(path)
    try:
        with file:
            for chunk in chunks:
                file.write(chunk)
    except BaseException:
        with suppress(StoreError):
            unlink(path)
        raise


def sync_folder(path: Path) -> None:
    """Make the entries of a folder durable."""
    with told(path):
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def rename(source: Path, target: Path) -> None:
    """Move a file over another, or a folder to where there is none."""
    with told(target):
        os.rename(source, target)


def link(source: Path, target: Path) -> None:
    """Give a file a second name, if that name is free; else raise `FileExistsError`."""
    with told(target):
        try:
            os.link(source, target, follow_symlinks=False)
        except FileExistsError:
            # A network file system may have done it, lost the answer, and been asked again.
            if not os.path.samefile(source, target):
                raise
        except OSError as error:
            if error.errno in {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}:
                why = "this file system has no hard links, on which commits rest; keep the store on another"
                raise StoreError(str(target), why) from error
            raise


def unlink(path: Path) -> None:
    """Remove a file, if it is there."""
    with told(path), suppress(FileNotFoundError):
        os.unlink(path)


def make_folder(path: Path) -> None:
    """Make a folder and those above it, as far as they are missing."""
    with told(path):
        try:
            os.mkdir(path)
        except FileNotFoundError:
            make_folder(path.parent)
            make_folder(path)
        except FileExistsError:
            if path.is_symlink() or not path.is_dir():
                raise StoreError(str(path), "is no folder, where one is needed") from None


def remove_tree(path: Path) -> None:
    """Remove a folder and all below, if it is there; links are removed and never followed."""
    with told(path), suppress(FileNotFoundError):
        with os.scandir(path) as entries:
            found = list(entries)
        for entry in found:
            if entry.is_dir(follow_symlinks=False):
                remove_tree(Path(entry.path))
            else:
                unlink(Path(entry.path))
        os.rmdir(path)
