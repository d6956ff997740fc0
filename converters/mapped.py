"""Any recording of rows, by a mapping file that tells which of its fields is which stream.

HDF5, Parquet, NumPy's files, MCAP and ROS bags have no meaning of their own: labs put what they like into
them. Instead of a converter for each lab, a person who knows the recording tells what its fields are, in
TOML: ``docs/formats/mapped.md`` is the reference. What is told is believed; what is not told is unknown,
and kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import ClassVar

from ..schemas import Episode, FormatError, SourceFile, TeleopenError, problems_of
from ._columns_of import columns_of, has_columns, is_bag
from ._draft import Draft
from ._mapped_episode import Builder
from ._mapped_split import natural, parts_of
from ._mapping import NAMES, MappingFile, read_mapping
from .base import Format, contained, source_file

VERSION = "1"

_MAX_FILES = 100_000


@dataclass(frozen=True)
class Mapped:
    """Reads a file, or the files of a folder, as a mapping says.

    Attributes
    ----------
    block_bytes
        Most payload bytes in a block.
    mapping
        The mapping file; None: ``teleopen.toml`` or ``<name>.teleopen.toml`` beside the recording.
    """

    format: ClassVar[Format] = Format(
        name="mapped",
        title="HDF5, Parquet, npz, MCAP or ROS bag with a mapping file",
        suffixes=(".h5", ".hdf5", ".parquet", ".npz", ".npy", ".mcap", ".bag"),
        spec="docs/formats/mapped.md",
    )
    block_bytes: int = 16 << 20
    mapping: str | None = None

    def probe(self, path: Path) -> bool:
        """Tell whether a mapping lies beside ``path``, and ``path`` is what a mapping can speak of."""
        try:
            found = _beside(path)
            return found is not None and has_columns(_files(path, read_mapping(found))[0])
        except (TeleopenError, OSError, ValueError):
            return False

    def beside(self, path: Path) -> tuple[Path, ...]:
        """Return what is read beside a file that was named: its mapping."""
        found = _beside(path) if path.is_file() else None
        return () if found is None else (found,)

    def episodes(self, path: Path) -> Iterator[Episode]:
        """Yield the episodes of each file, file by file in the order of the numbers in their names."""
        place = Path(self.mapping) if self.mapping is not None else _beside(path)
        if place is None:
            wanted = f"{path.name}{NAMES[1]} or {NAMES[0]} beside it, or the option mapping"
            raise FormatError(str(path), "", "has no mapping file", f"Write {wanted}: docs/formats/mapped.md")
        mapping = read_mapping(place)
        for file in _files(path, mapping):
            yield from self._episodes(file, path, mapping)

    def _episodes(self, file: Path, root: Path, mapping: MappingFile) -> Iterator[Episode]:
        source = columns_of(file)
        sources = (*(source_file(one, root) for one in source.files), _mapping_source(mapping))
        for part in parts_of(source, mapping):
            draft = Draft(path=file, where=part.share.selector)
            builder = Builder(mapping, part, draft, self.block_bytes)
            builder.compose()
            episode = draft.build(
                self,
                sources,
                version=VERSION,
                selector=part.share.selector,
                embodiment=builder.embodiment,
                outcome=builder.outcome,
            )
            # The option is a path of somebody's machine; what it led to is on record instead.
            options = {"mapping": mapping.path.name, "mapping_text": mapping.text}
            episode = replace(episode, provenance=replace(episode.provenance, options=options))
            for problem in problems_of(episode):
                mapping.refuse(
                    problem.where, problem.message, f"In {file.name} {part.share.selector}".strip()
                )
            yield episode


def _mapping_source(mapping: MappingFile) -> SourceFile:
    raw = mapping.text.encode()
    digest = hashlib.sha256(raw).hexdigest()
    return SourceFile(uri=mapping.path.name, size=len(raw), sha256=digest, role="mapping")


def _beside(path: Path) -> Path | None:
    """Return the mapping that lies beside a recording: the one that bears its name before the one for all.

    Its text is put on record, so a link that leads to somebody's other files is refused.
    """
    whole, ending = NAMES
    names = [path.with_name(path.name + ending), path.with_name(path.stem + ending)] if path.name else []
    names.append(path / whole if path.is_dir() or not path.name else path.with_name(whole))
    found = next((name for name in names if name.is_file()), None)
    if found is not None:
        contained(found.parent, found.name, path=found.parent, where=found.name)
    return found


def _files(path: Path, mapping: MappingFile) -> list[Path]:
    """Return the recordings of a folder that the mapping wants, or the file itself."""
    if not path.is_dir() or (is_bag(path) and not mapping.rules.episodes.files):
        return [path]
    pattern = mapping.rules.episodes.files
    if not pattern:
        mapping.refuse("episodes.files", "is missing, and the recording is a folder", 'Say files = "*.h5"')
    if PurePosixPath(pattern).is_absolute() or ".." in PurePosixPath(pattern).parts:
        mapping.refuse("episodes.files", f"{pattern!r} leads out of the recording")
    names = sorted(
        (p.relative_to(path).as_posix() for p in path.glob(pattern) if p.is_file() or is_bag(p)), key=natural
    )
    if not 0 < len(names) <= _MAX_FILES:
        mapping.refuse("episodes.files", f"{pattern!r} fits {len(names)} files of {path.name}")
    for name in names:
        contained(path, name, path=path, where=name)
    return [path / name for name in names]


CONVERTER = Mapped
