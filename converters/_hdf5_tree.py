"""Formats of which an HDF5 file is an episode: one file is read, or all that lie below a folder."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

from ..schemas import Episode, FormatError
from ._demos import is_demo_file
from ._folder import files_below
from .base import Format

_PROBED_FOLDERS = 200
_MOST_FOLDERS = 100_000


@dataclass(frozen=True)
class Hdf5Tree(ABC):
    """A converter of such a format.

    Attributes
    ----------
    file_name
        What the format's files are called; a file that is named itself may be called otherwise.
    absent
        What is wrong with a folder that has none: where, why, and what to do.
    """

    format: ClassVar[Format]
    file_name: ClassVar[re.Pattern[str]]
    absent: ClassVar[tuple[str, str, str]]

    def probe(self, path: Path) -> bool:
        """Tell whether a file has the names that only this format has, or the first file below a folder."""
        try:
            found = [path] if path.is_file() else islice(self._below(path, _PROBED_FOLDERS), 1)
            return any(is_demo_file(file, self.owns) for file in found)
        except (OSError, FormatError):
            return False

    def beside(self, path: Path) -> tuple[Path, ...]:
        """Return what is read beside a file that was named: what lies in its folder."""
        return (path.parent,) if path.is_file() else ()

    def episodes(self, path: Path) -> Iterator[Episode]:
        """Yield the episode of a file, or those below a folder, folder by folder."""
        place = path.resolve()
        root = place.parent if place.is_file() else place
        files = iter([place]) if place.is_file() else self.in_order(self._below(place, _MOST_FOLDERS))
        first = next(files, None)
        if first is None:
            raise FormatError(str(path), *self.absent)
        yield self.episode(first, root)
        for file in files:
            yield self.episode(file, root)

    def _below(self, root: Path, folders: int) -> Iterator[Path]:
        return files_below(root, lambda name: bool(self.file_name.fullmatch(name)), folders=folders)

    def in_order(self, files: Iterator[Path]) -> Iterator[Path]:
        """Return the files of a folder in the order of their episodes: as they come, by name."""
        return files

    @abstractmethod
    def owns(self, file: Any) -> bool:
        """Tell whether an open file has the names that only this format has."""

    @abstractmethod
    def episode(self, file: Path, root: Path) -> Episode:
        """Read the episode of a file that lies below ``root``."""
