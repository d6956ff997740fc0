"""What a converter is, and the few things that every one of them does alike."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import ClassVar, Protocol, runtime_checkable

from ..schemas import Episode, FormatError, MissingExtraError, SourceFile, StreamSpec

MAX_EPISODE_BYTES = 1 << 42
"""Declared payload above which a header is taken for a lie: 4 TiB in one episode."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """What is true of a format before any file is opened.

    Attributes
    ----------
    name
        Lower case, hyphens: what a person types after ``--format``. The module bears it too.
    title
        One line for people.
    suffixes
        File name endings; for people, never a proof.
    extra
        The extra of this project that brings what the reader needs; ``""`` for none.
    spec
        Where the format is described: its specification, or the source file of its writer.
    """

    name: str
    title: str
    suffixes: tuple[str, ...] = ()
    extra: str = ""
    spec: str = ""


@runtime_checkable
class Converter(Protocol):
    """Reads one source format. Options are fields of the converter; reading has none.

    A frozen dataclass, so that it compares, prints and pickles. It holds no open file: each call opens
    what it needs and closes it when the iterator it gave is exhausted or closed.
    """

    format: ClassVar[Format]

    @property
    def block_bytes(self) -> int:
        """Most payload bytes that a block holds, except that a block holds at least one sample."""
        ...

    def probe(self, path: Path) -> bool:
        """Tell whether ``path`` is of this format. Cheap, headers only; never raises."""
        ...

    def episodes(self, path: Path) -> Iterator[Episode]:
        """Yield the episodes of ``path`` in a stable order: headers with lazy streams.

        Raises
        ------
        FormatError
            Where the source breaks its own format or is dangerous to read. Also raised while a
            stream is read, if the damage lies in the payload.
        """
        ...


def rows_in(block_bytes: int, spec: StreamSpec) -> int:
    """Return how many samples of a stream go into one block."""
    return max(1, block_bytes // max(1, spec.sample_bytes))


def need(module: str, *, of: Format) -> ModuleType:
    """Import what a reader needs, or say which extra brings it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"reading {of.title} needs {module!r}: pip install 'teleopen[{of.extra}]'"
        ) from error


def source_file(path: Path, root: Path, role: str = "recording") -> SourceFile:
    """Return the record of a source file: its name below ``root``, size and SHA-256.

    The whole file is read, once per process and version of it. Its absolute path is not recorded, since
    that tells about the machine and its user.

    Raises
    ------
    FormatError
        If it cannot be read, or reaches out of ``root`` through a symbolic link.
    """
    uri = path.relative_to(root).as_posix() if path != root else path.name
    if path != root:
        contained(root, uri, path=path, where=uri)
    version = version_of(path)
    try:
        return SourceFile(uri=uri, size=version[1], sha256=_sha256(*version), role=role)
    except OSError as error:
        raise FormatError(str(path), "", f"cannot be read: {error.strerror}") from error


def version_of(path: Path) -> tuple[Path, int, int, int]:
    """Return what tells one version of a file from another: its path, size, time of change and inode.

    Whatever is read of a file once and kept is kept under this.

    Raises
    ------
    FormatError
        If there is no such file, or it may not be looked at.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise FormatError(str(path), "", f"cannot be read: {error.strerror}") from error
    return path, found.st_size, found.st_mtime_ns, found.st_ino


@lru_cache(maxsize=4096)
def _sha256(path: Path, _size: int, _mtime_ns: int, _inode: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def contained(root: Path, name: str, *, path: Path, where: str) -> Path:
    """Return the file that a source names, if it lies inside ``root`` once links are followed.

    A download cache of the Hugging Face Hub (``<repository>/snapshots/<revision>``) holds links into
    ``<repository>/blobs`` (huggingface_hub: file_download.py); for such a root that folder is inside too.

    Parameters
    ----------
    path, where
        The source file and the place in it that names the file, for the error.

    Raises
    ------
    FormatError
        If the name is absolute, climbs out, or reaches out through a symbolic link.
    """
    home = root.resolve()
    inside = [home, home.parent.parent / "blobs"] if home.parent.name == "snapshots" else [home]
    plain = "\0" not in name and not Path(name).is_absolute() and ".." not in Path(name).parts
    target = (root / name).resolve() if plain else None
    if target is None or not any(target.is_relative_to(folder) for folder in inside):
        raise FormatError(str(path), where, f"names {name!r}, which lies outside of the recording")
    return target
