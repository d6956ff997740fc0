"""Recordings that are folders of many small files: which there are, and what stands for them as a source."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from ..schemas import FormatError, SourceFile
from .base import contained, version_of


def numbered(folder: Path, name: re.Pattern[str], *, root: Path) -> list[Path]:
    """Return the files of a folder whose names match, in the order of the number that the group 1 is.

    Raises
    ------
    FormatError
        If a number is missing, occurs twice, or its file lies outside of ``root``.
    """
    found: dict[int, Path] = {}
    for path in entries(folder):
        matched = name.fullmatch(path.name)
        if matched is None:
            continue
        number = int(matched[1])
        if number in found or number > 1 << 40:
            raise FormatError(str(folder), path.name, "repeats a number, or has none that can be")
        if path.is_symlink():
            contained(root, str(path.relative_to(root)), path=folder, where=path.name)
        found[number] = path
    missing = next((i for i, number in enumerate(sorted(found)) if i != number), None)
    if missing is not None:
        raise FormatError(str(folder), f"number {missing}", "is missing", "Copy the recording anew")
    return [found[i] for i in range(len(found))]


def entries(folder: Path) -> list[Path]:
    """Return what lies in a folder, in the order of the numbers in its names; `FormatError` if unreadable."""
    try:
        return sorted((Path(entry.path) for entry in os.scandir(folder)), key=natural)
    except OSError as error:
        raise FormatError(str(folder), "", f"cannot be read: {error.strerror}") from error


def natural(path: Path) -> tuple[list[tuple[int, str]], str]:
    """Return a key that sorts ``traj10`` behind ``traj9``."""
    parts = re.findall(r"(\d{1,40})|(\D+)", path.name)
    return [(int(number or -1), text) for number, text in parts], path.name


def files_source(files: Sequence[Path], uri: str, role: str = "recording") -> SourceFile:
    """Return many files of one folder as one source.

    Its size is the sum of theirs, and its digest the SHA-256 of one line for each, in the order given: its
    SHA-256 in hex, two spaces, its name, newline, which is what ``sha256sum`` prints.
    """
    versions = tuple(version_of(file) for file in files)
    try:
        digest = _digest(versions)
    except OSError as error:
        raise FormatError(str(files[0].parent), "", f"cannot be read: {error.strerror}") from error
    return SourceFile(uri=uri, size=sum(v[1] for v in versions), sha256=digest, role=role)


@lru_cache(maxsize=16)
def _digest(versions: tuple[tuple[Path, int, int, int], ...]) -> str:
    total = hashlib.sha256()
    for path, *_ in versions:
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").hexdigest().encode() + b"  ")
        total.update(os.fsencode(path.name) + b"\n")
    return total.hexdigest()


def small_bytes(path: Path, most: int) -> bytes:
    """Return all of a file that has no more than ``most`` bytes; `FormatError` if it has more."""
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise FormatError(str(path), "", f"cannot be read: {error.strerror}") from error
    if len(data) > most:
        raise FormatError(str(path), "", f"has more than {most:,} bytes")
    return data
