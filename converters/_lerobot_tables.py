"""The tables of a LeRobot dataset: its episodes and the texts of its tasks.

Format 3 keeps them as Parquet, format 2 as lines of JSON. Rows are found by the value of ``episode_index``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..schemas import Array, FormatError, strict_json
from . import _parquet as parquet
from ._lerobot_meta import INFO, is_json
from .base import contained

if TYPE_CHECKING:
    import pyarrow as pa

STATISTICS = "stats/"

MAX_TEXT = 100_000
"""Most characters of a task, or of a text in the data."""

_MAX_EPISODES = 5_000_000
_MAX_TABLE_BYTES = 1 << 30
_MAX_LINES_BYTES = 1 << 28
_MAX_LINE_BYTES = 1 << 22
_ROWS_AT_ONCE = 32


class Table(Protocol):
    """The episodes of a dataset.

    Attributes
    ----------
    position
        Row of each episode, by its index, in increasing order of the index.
    files
        The table's files; the first stands for all of them in errors.
    """

    @property
    def position(self) -> Mapping[int, int]: ...

    @property
    def files(self) -> tuple[Path, ...]: ...

    def row(self, index: int) -> dict[str, Any]:
        """Return the members of an episode's row."""
        ...

    def file_of(self, index: int) -> Path:
        """Return the file that an episode's row is in."""
        ...


def whole(row: Mapping[str, Any], column: str, table: Table) -> int:
    """Return a count out of an episode's row."""
    value = row.get(column)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 40:
        where = f"{column} of episode {row.get('episode_index')}"
        raise FormatError(str(table.files[0]), where, f"is {value!r} instead of a count")
    return value


def where_of(row: Mapping[str, Any]) -> str:
    """Return an episode's place, for errors."""
    return f"episode {row['episode_index']}"


def _checked(path: Path, indices: list[Any]) -> dict[int, int]:
    """Return the row of each episode, in order of the index; each stands once."""
    found: dict[int, int] = {}
    for position, index in enumerate(indices):
        if not isinstance(index, int) or isinstance(index, bool) or index < 0 or index in found:
            raise FormatError(str(path), f"row {position}", f"{index!r} is no new episode_index")
        found[index] = position
    return dict(sorted(found.items()))


def _texts(path: Path, number: str, rows: Iterator[tuple[Any, Any]]) -> dict[int, str]:
    """Return texts by their number."""
    found: dict[int, str] = {}
    for row, (index, value) in enumerate(rows):
        if not isinstance(index, int) or isinstance(index, bool) or index in found:
            raise FormatError(str(path), f"row {row}", f"{index!r} is no new {number}")
        if not isinstance(value, str) or len(value) > MAX_TEXT:
            raise FormatError(str(path), f"row {row}", f"holds no text of up to {MAX_TEXT:,} characters")
        found[index] = value
    return found


# Format 3: Parquet


@dataclass(frozen=True, slots=True)
class ParquetTable:
    """All of meta/episodes but the statistics.

    Attributes
    ----------
    file_of_row
        Which of the files each row is from.
    statistics
        Whether there were any.
    """

    rows: pa.Table
    position: Mapping[int, int]
    files: tuple[Path, ...]
    file_of_row: NDArray[np.int64]
    statistics: bool
    _recent: dict[int, list[dict[str, Any]]] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def open(cls, root: Path, folder: str) -> ParquetTable:
        """Read all files below a folder."""
        import pyarrow as pa

        info = root / INFO
        files = tuple(sorted(root.joinpath(folder).glob("**/*.parquet")))
        if not files:
            raise FormatError(str(info), "", f"there is no table of episodes below {folder}")
        parts, statistics = [], False
        for path in files:
            contained(root, path.relative_to(root).as_posix(), path=info, where=folder)
            parts.append(_read_all(path))
            with parquet.opened(path) as file:
                statistics |= len(file.schema_arrow.names) > parts[-1].num_columns
        try:
            rows = pa.concat_tables(parts, promote_options="permissive").combine_chunks()
        except pa.ArrowException as error:
            raise FormatError(str(files[0]), "schema", f"the files of the table disagree: {error}") from error
        if "episode_index" not in rows.column_names:
            raise FormatError(str(files[0]), "episode_index", "the column is absent")
        position = _checked(files[0], rows.column("episode_index").to_pylist())
        file_of_row = np.repeat(np.arange(len(files)), [part.num_rows for part in parts])
        return cls(rows, position, files, file_of_row, statistics)

    def row(self, index: int) -> dict[str, Any]:
        # A few at once, since one takes nearly as long, and most ask for the next.
        part, place = divmod(self.position[index], _ROWS_AT_ONCE)
        if part not in self._recent:
            self._recent.clear()
            self._recent[part] = self.rows.slice(part * _ROWS_AT_ONCE, _ROWS_AT_ONCE).to_pylist()
        return self._recent[part][place]

    def file_of(self, index: int) -> Path:
        return self.files[int(self.file_of_row[self.position[index]])]

    def numbers(self, column: str) -> Array:
        """Return a column: (episodes,), in increasing order of the episode's index."""
        if column not in self.rows.column_names:
            raise FormatError(str(self.files[0]), column, "the column is absent")
        values = self.rows.column(column)
        if values.null_count or parquet.numpy_name(values.type) is None:
            raise FormatError(str(self.files[0]), column, "holds what is not a number")
        return np.asarray(values.to_numpy())[list(self.position.values())]


def _read_all(path: Path) -> pa.Table:
    """Return a table of meta/ without its statistics, if it is of a sane size."""
    import pyarrow as pa

    with parquet.opened(path) as file:
        if file.metadata.num_rows > _MAX_EPISODES:
            raise FormatError(str(path), "", f"claims {file.metadata.num_rows:,} rows")
        names = [n for n in file.schema_arrow.names if not n.startswith(STATISTICS)]
        size, batches = 0, []
        for batch in file.iter_batches(256, columns=names):
            batch.validate(full=True)  # text in UTF-8
            batches.append(batch.select(names))
            size += batch.nbytes
            if size > _MAX_TABLE_BYTES:
                raise FormatError(str(path), "", f"holds more than {_MAX_TABLE_BYTES:,} bytes")
        schema = pa.schema([file.schema_arrow.field(n) for n in names])
        return pa.Table.from_batches(batches, schema)


def parquet_texts(root: Path, name: str) -> dict[int, str]:
    """Return the texts of tasks.parquet or subtasks.parquet, by their number."""
    path = contained(root, name, path=root / INFO, where=name)
    columns = _read_all(path).to_pydict()
    number = next((c for c in columns if c.endswith("task_index")), None)
    text = next((c for c in columns if c != number), None)
    if number is None or text is None:
        raise FormatError(str(path), "task_index", "there must be a column of numbers and one of texts")
    return _texts(path, number, zip(columns[number], columns[text], strict=True))


# Format 2: lines of JSON


@dataclass(frozen=True, slots=True)
class LinesTable:
    """meta/episodes.jsonl, of which the places of the lines are kept and not their values.

    Attributes
    ----------
    lengths
        Rows of each episode, in the order of the lines.
    offsets
        Where each line begins in the file.
    """

    files: tuple[Path, ...]
    position: Mapping[int, int]
    lengths: tuple[int, ...]
    offsets: NDArray[np.int64]

    @classmethod
    def open(cls, root: Path, name: str) -> LinesTable:
        """Read every line once, and check what is asked of each."""
        path = contained(root, name, path=root / INFO, where=name)
        indices: list[Any] = []
        lengths, offsets = [], []
        for row, (offset, members) in enumerate(_lines(path)):
            if len(indices) == _MAX_EPISODES:
                raise FormatError(str(path), "", f"holds more than {_MAX_EPISODES:,} lines")
            length = members.get("length")
            if not isinstance(length, int) or isinstance(length, bool) or not 0 <= length < 1 << 40:
                raise FormatError(str(path), f"row {row}, length", f"is {length!r} instead of a count")
            indices.append(members.get("episode_index"))
            lengths.append(length)
            offsets.append(offset)
        return cls((path,), _checked(path, indices), tuple(lengths), np.array(offsets, np.int64))

    def row(self, index: int) -> dict[str, Any]:
        offset = int(self.offsets[self.position[index]])
        return next(_lines(self.files[0], offset))[1]

    def file_of(self, index: int) -> Path:  # noqa: ARG002 # all are in the one file
        return self.files[0]


def _lines(path: Path, offset: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the objects of a file of JSON lines, each with its place."""
    try:
        if path.stat().st_size > _MAX_LINES_BYTES:
            raise FormatError(str(path), "", f"is larger than {_MAX_LINES_BYTES:,} bytes")
        with path.open("rb") as file:
            file.seek(offset)
            while line := file.readline(_MAX_LINE_BYTES):
                if line.strip():
                    yield offset, _object(path, offset, line)
                offset += len(line)
    except OSError as error:
        raise FormatError(str(path), "", f"cannot be read: {error.strerror}") from error


def _object(path: Path, offset: int, line: bytes) -> dict[str, Any]:
    where = f"byte {offset}"
    if len(line) == _MAX_LINE_BYTES:
        raise FormatError(str(path), where, f"the line is longer than {_MAX_LINE_BYTES:,} bytes")
    try:
        found = strict_json(line)
    except ValueError as error:
        raise FormatError(str(path), where, f"the line is no JSON: {error}") from error
    if not isinstance(found, dict) or not is_json(found):
        raise FormatError(str(path), where, "the line holds no object of plain values")
    return found


def lines_texts(root: Path, name: str) -> dict[int, str]:
    """Return the texts of tasks.jsonl, by their number."""
    path = contained(root, name, path=root / INFO, where=name)
    return _texts(path, "task_index", ((m.get("task_index"), m.get("task")) for _, m in _lines(path)))
