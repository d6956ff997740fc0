"""Who is at work in a staging folder: a lock that the kernel frees when its process dies."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from . import disk
from .storage import Storage


@contextmanager
def session(storage: Storage) -> Iterator[tuple[Path, str]]:
    """Give the staging folder and a session name that `is_alive` as long as this process is."""
    import fcntl

    staging = storage.staging()
    disk.make_folder(staging)
    name = uuid.uuid4().hex
    lock = staging / f"{name}.lock"
    handle = os.open(lock, os.O_CREAT | os.O_RDWR, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield staging, name
    finally:
        lock.unlink(missing_ok=True)
        os.close(handle)


def is_alive(staging: Path, session: str) -> bool:
    """Tell whether the process of a session still runs: the kernel frees its lock when it dies."""
    import fcntl

    try:
        handle = os.open(staging / f"{session}.lock", os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
