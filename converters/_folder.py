"""Folders of files: which there are, what stands for many of them as a source, and small ones read whole."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from ..schemas import FormatError, Json, SourceFile, strict_json
from .base import contained, version_of

_MAX_JSON_BYTES = 1 << 26
_MAX_FOLDERS = 100_000
_MAX_DEPTH = 12


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


def small_json(path: Path, most: int = _MAX_JSON_BYTES) -> Json:
    """Return what a JSON file says.

    Raises
    ------
    FormatError
        If it is larger than ``most`` bytes, no JSON, nested deeply, or holds what headers cannot.
    """
    data = small_bytes(path, most)
    try:
        return strict_json(data)
    except ValueError as error:
        raise FormatError(str(path), "", f"is no JSON: {error}") from error


def json_members(path: Path, most: int = _MAX_JSON_BYTES) -> dict[str, Json]:
    """Return the members of a JSON file that is an object; raise what `small_json` raises."""
    found = small_json(path, most)
    if not isinstance(found, dict):
        raise FormatError(str(path), "", "is no JSON object")
    return found


def files_below(root: Path, wanted: Callable[[str], bool], *, folders: int = _MAX_FOLDERS) -> Iterator[Path]:
    """Yield the files below ``root`` whose names are wanted, folder by folder in order of names.

    Links to folders are not followed, links to files only within ``root``; the walk ends after ``folders``
    folders or 12 levels.

    Raises
    ------
    FormatError
        If there are more folders than that.
    """
    for number, (place, below, names) in enumerate(os.walk(root)):
        if number >= folders:
            raise FormatError(str(root), "", f"holds more than {folders:,} folders", "Give a part of it")
        below.sort()
        here = Path(place)
        if len(here.relative_to(root).parts) >= _MAX_DEPTH:
            below.clear()
        for name in sorted(filter(wanted, names)):
            yield contained(root, str((here / name).relative_to(root)), path=root, where=name)
