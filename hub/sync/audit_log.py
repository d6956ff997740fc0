"""What publishing did, step by step: a private file beside the store that is only ever appended to.

Each line is a JSON document that names the SHA-256 of the line before, and is on disk before the step that
follows. A line that a crash cut short stays as it is; the next one names the SHA-256 of what there is of it.
"""

from __future__ import annotations

import fcntl
import os
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from ...schemas import DamageError, Json, canonical, strict_json
from .. import disk
from ..storage import Storage
from .hub_client import without_secrets

_TAIL = 1 << 20


def log_path(storage: Storage) -> Path:
    """Return where the log of a store lies: beside it, or for a remote one among this user's state."""
    root = Path(storage.url)
    if "://" not in storage.url:
        return root.with_name(f"{root.name}.publish.jsonl")
    home = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return home / "teleopen" / f"{sha256(storage.url.encode()).hexdigest()[:16]}.publish.jsonl"


class AuditLog:
    """An audit log. Several processes may write to it at once.

    Parameters
    ----------
    path
        The file; made if it is missing, readable by its owner alone.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, step: str, **details: Json) -> None:
        """Append a line, and return when it is on disk.

        Raises
        ------
        StoreError
            If the disk refuses. What the line was to tell of must not be done then.
        """
        disk.make_folder(self.path.parent)
        with disk.told(self.path):
            fd = os.open(
                self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
            )
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                last, is_cut = _last_line(fd)
                document = {
                    "time": datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
                    "step": step,
                    "process": os.getpid(),
                    "previous": sha256(last).hexdigest() if last else None,
                    **details,
                }
                line = without_secrets(canonical(document).decode()).encode() + b"\n"
                _write(fd, (b"\n" if is_cut else b"") + line)
                os.fsync(fd)
            finally:
                os.close(fd)


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _last_line(fd: int) -> tuple[bytes, bool]:
    """Return the last line without its end, and whether that end is missing."""
    size = os.fstat(fd).st_size
    tail = os.pread(fd, _TAIL, max(0, size - _TAIL))
    is_cut = bool(tail) and not tail.endswith(b"\n")
    return tail.removesuffix(b"\n").rpartition(b"\n")[2], is_cut


def read_log(path: Path) -> list[dict[str, Json]]:
    """Return the entries of a log in order, each checked against the one before.

    Raises
    ------
    DamageError
        If a line was changed, removed or put in.
    """
    with disk.told(path):
        raw = path.read_bytes()
    if not raw:
        return []
    found: list[dict[str, Json]] = []
    previous: bytes | None = None
    lines = raw.split(b"\n")
    for number, line in enumerate(lines[:-1], 1):
        try:
            document = strict_json(line)
        except ValueError:
            document = None
        if isinstance(document, dict):
            told = document.get("previous")
            if told != (sha256(previous).hexdigest() if previous else None):
                raise DamageError(f"{path}, line {number}", "does not follow the line before it")
            found.append(document)
        previous = line
    return found
