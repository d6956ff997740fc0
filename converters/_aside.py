"""A temporary file without a name, for what was made with effort and is asked for again.

The streams of a recording lie interleaved in its chunks and are read one after the other. What is laid aside
while the recording is indexed spares each of them from decompressing all chunks anew; to read it back costs
a tenth of that. The file has no name, so nothing is left of it however the process ends.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

MOST_BYTES = 32 << 30
"""Most that is laid aside of a recording: this, or half of what is free on the disk if that is less."""

_LARGE = Path("/var/tmp")  # noqa: S108 # what is made there has no name


class _Handle:
    """An open file that closes itself when nobody holds it any more, so no reader loses it while it reads."""

    __slots__ = ("fd",)

    def __init__(self, folder: str) -> None:
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            self.fd = os.dup(file.fileno())

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        close(self.fd)


class Aside:
    """Bytes laid aside on the disk, as far as there is room. Without any, nothing is kept.

    They are put there by one thread, and read by any.
    """

    def __init__(self) -> None:
        self._handle: _Handle | None = None
        self._end = 0
        self._left = MOST_BYTES

    def put(self, data: bytes) -> int:
        """Return where bytes lie from now on; -1 if there is no room for them."""
        try:
            if self._handle is None and self._left:
                folder = _folder()
                self._left = min(self._left, shutil.disk_usage(folder).free // 2)
                self._handle = _Handle(folder)
            if self._handle is None or len(data) > self._left:
                return -1
            at, written = self._end, 0
            while written < len(data):
                written += os.pwrite(self._handle.fd, memoryview(data)[written:], at + written)
        except OSError:  # no such folder, a full disk, a quota: it is done without
            self._left = 0
            return -1
        self._end += len(data)
        self._left -= len(data)
        return at

    def get(self, at: int, size: int) -> bytes | None:
        """Return bytes that were put; None if they are not there any more."""
        handle = self._handle
        if handle is None or at < 0:
            return None
        data = os.pread(handle.fd, size, at)
        return data if len(data) == size else None

    def clear(self) -> None:
        """Give the room back, once the last reader is done."""
        self._handle, self._left = None, 0


def _folder() -> str:
    """Return where large temporary files belong: ``/tmp`` is memory on many systems.

    Filesystem Hierarchy Standard 3.0, 5.15; the variable ``TMPDIR`` goes first, as everywhere.
    """
    if told := os.environ.get("TMPDIR"):
        return told
    return str(_LARGE) if os.access(_LARGE, os.W_OK) else tempfile.gettempdir()
