"""Where an episode lies in LeRobot's files, which format 3 shares among episodes.

Rows are found by the values of ``episode_index``, pictures by counting or by the seconds that meta/episodes
tells; the field notes of lerobot_v3 say why.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..schemas import Array, FormatError, StreamSpec, Times
from . import _parquet as parquet
from ._lerobot_meta import Info
from ._lerobot_modality import Modality
from ._lerobot_tables import ParquetTable, Table
from ._mp4 import Mp4Video
from .base import rows_in, version_of

if TYPE_CHECKING:
    import pyarrow as pa

# Added to every dataset by LeRobot (DEFAULT_FEATURES in src/lerobot/datasets/utils.py).
BOOKKEEPING = ("timestamp", "frame_index", "episode_index", "index", "task_index")
_OPTIONAL = {"frame_index", "index"}
"""They tell nothing that the order of the rows does not, and other recorders leave them out."""

MAX_SECONDS = 1e9
"""Stamps from here on, 31 years, are taken for no times."""

_MAX_ROWS = 10_000_000
"""Most rows of a data file, whose bookkeeping takes 36 bytes of memory a row. LeRobot ends it at 100 MB."""

_KEPT_BYTES = 1 << 26
"""Most bytes of decoded columns that are kept of a data file. LeRobot's own take a few MB each."""

_Kept = dict[tuple[str, str, tuple[int, ...]], "Array | None"]
_Episodes = Mapping[int, "tuple[int, str] | FormatError"]


# Rows of a data file


@dataclass(frozen=True, slots=True)
class Book:
    """The bookkeeping columns of a data file, the rows of each episode in it, and what its footer tells.

    Attributes
    ----------
    per_row
        Values in a row of each column: see `values_per_row`.
    """

    rows: Mapping[int, tuple[int, int]]
    columns: Mapping[str, Array]
    schema: pa.Schema
    per_row: Mapping[str, int | None]

    @property
    def length(self) -> int:
        """Rows of the file."""
        return len(self.columns["episode_index"])


def book_of(path: Path) -> Book:
    """Return the bookkeeping of a data file, read once per version of the file while few are in use."""
    return _cached_book(*version_of(path))


@lru_cache(maxsize=2)
def _cached_book(path: Path, _size: int, _mtime_ns: int, _inode: int) -> Book:
    with parquet.opened(path) as file:
        total, schema = file.metadata.num_rows, file.schema_arrow
        if total > _MAX_ROWS:
            raise FormatError(str(path), "", f"claims {total:,} rows; {_MAX_ROWS:,} are read at most")
        columns = {}
        for name in BOOKKEEPING:
            if name not in schema.names:
                if name in _OPTIONAL:
                    continue
                raise FormatError(str(path), name, "the column is absent")
            dtype = parquet.numpy_name(schema.field(name).type)
            if dtype is None:
                raise FormatError(str(path), name, f"is {schema.field(name).type} instead of numbers")
            spec = StreamSpec(name=name, kind="low_dim", dtype=dtype, shape=())
            columns[name] = parquet.whole(file, path, name, spec)
        runs = _runs_of_episodes(path, columns["episode_index"])
        return Book(runs, columns, schema, parquet.values_per_row(file))


def samples(
    path: Path, column: str, spec: StreamSpec, block_bytes: int, first: int, start: int, stop: int
) -> Iterator[Array]:
    """Yield what `_parquet.numbers` does; a small column that many episodes share is decoded once."""
    kept, key = _columns_kept(*version_of(path)), (column, spec.dtype, spec.shape)
    if key not in kept:
        taken = sum(values.nbytes for values in kept.values() if values is not None)
        kept[key] = _small(path, column, spec, _KEPT_BYTES - taken)
    values = kept[key]
    if values is None:
        yield from parquet.numbers(path, column, spec, block_bytes, first, start, stop)
        return
    rows = rows_in(block_bytes, spec)
    for at in range(first + start, first + stop, rows):
        yield values[at : min(at + rows, first + stop)]


@lru_cache(maxsize=2)
def _columns_kept(_path: Path, _size: int, _mtime_ns: int, _inode: int) -> _Kept:
    return {}


def _small(path: Path, column: str, spec: StreamSpec, most: int) -> Array | None:
    """Return a whole column; None if it takes more memory than that, or is damaged somewhere."""
    try:
        with parquet.opened(path, column) as file:
            if file.metadata.num_rows * spec.sample_bytes > most:
                return None
            values = parquet.whole(file, path, column, spec)
    except FormatError:
        return None  # other episodes may be sound; whoever reads this one's rows is told
    values.setflags(write=False)
    return values


def _runs_of_episodes(path: Path, indices: Array) -> dict[int, tuple[int, int]]:
    found: dict[int, tuple[int, int]] = {}
    for start, stop in runs_of(indices):
        index = int(indices[start])
        if index in found:
            raise FormatError(str(path), f"episode_index, row {start}", f"episode {index} begins twice")
        found[index] = (start, stop)
    return found


def runs_of(values: Array) -> list[tuple[int, int]]:
    """Return the bounds of each run of equal values."""
    breaks = np.flatnonzero(values[1:] != values[:-1]) + 1
    return list(pairwise([0, *breaks.tolist(), len(values)])) if len(values) else []


class Dataset(Protocol):
    """What all episodes of a dataset share, and where each of them lies.

    Attributes
    ----------
    episodes_name, tasks_name, subtasks_name
        The tables as the ledger calls them.
    statistics
        What holds statistics, as the ledger calls it.
    by_row
        Whether LeRobot's loader takes a task's row for its number.
    """

    @property
    def info(self) -> Info: ...

    @property
    def table(self) -> Table: ...

    @property
    def tasks(self) -> Mapping[int, str]: ...

    @property
    def subtasks(self) -> Mapping[int, str]: ...

    @property
    def modality(self) -> Modality | None: ...

    @property
    def episodes_name(self) -> str: ...

    @property
    def tasks_name(self) -> str: ...

    @property
    def subtasks_name(self) -> str: ...

    @property
    def by_row(self) -> bool: ...

    @property
    def statistics(self) -> tuple[str, ...]: ...

    def length(self, row: Mapping[str, Any]) -> int:
        """Return how many rows the table of episodes tells of an episode."""
        ...

    def data(self, row: Mapping[str, Any]) -> Path:
        """Return the data file of an episode."""
        ...

    def rows(self, row: Mapping[str, Any], data: Path, book: Book) -> tuple[int, int]:
        """Return the episode's rows in its data file, where all that tell of them agree."""
        ...

    def first_index(self, row: Mapping[str, Any]) -> int | None:
        """Return the episode's first row in the whole dataset, if the table tells it."""
        ...

    def video(self, camera: str, row: Mapping[str, Any]) -> tuple[Mp4Video, int, str]:
        """Return the video of an episode's camera, its first picture there, and a warning if any."""
        ...


# Pictures of a video file


@dataclass(frozen=True)
class Cuts:
    """Where the episodes of video files begin.

    Attributes
    ----------
    table, fps
        Of the dataset.
    known
        What was worked out for the newest file of each camera.
    """

    table: ParquetTable
    fps: float
    known: dict[tuple[str, Path], _Episodes] = field(default_factory=dict)

    def first(self, camera: str, path: Path, video: Mp4Video, row: Mapping[str, Any]) -> tuple[int, str]:
        """Return the first picture of an episode in a video file, and a warning if there is one."""
        key = (camera, path)
        if key not in self.known:
            for stale in [k for k in self.known if k[0] == camera]:
                del self.known[stale]
            self.known[key] = self._work_out(camera, path, video, row)
        found = self.known[key][row["episode_index"]]
        if isinstance(found, FormatError):
            raise found
        return found

    def _work_out(self, camera: str, path: Path, video: Mp4Video, row: Mapping[str, Any]) -> _Episodes:
        table, prefix = self.table, f"videos/{camera}/"
        here = np.logical_and.reduce(
            [table.numbers(prefix + n) == row[prefix + n] for n in ("chunk_index", "file_index")]
        )
        episodes = np.array(list(table.position))[here].tolist()
        lengths = table.numbers("length")[here].astype(np.int64)
        seconds = [table.numbers(prefix + n)[here] for n in ("from_timestamp", "to_timestamp")]
        spans = _nanoseconds(np.stack(seconds, axis=1))
        found: dict[int, tuple[int, str] | FormatError] = {}
        for i, cut in enumerate(_cuts(video.times, spans, lengths, 1e9 / self.fps)):
            where = f"episode {episodes[i]}"
            found[episodes[i]] = FormatError(str(path), where, cut) if isinstance(cut, str) else cut
        return found


def _nanoseconds(seconds: Array) -> NDArray[np.int64]:
    """Return seconds as int64 nanoseconds; what is no time at all becomes a time before all pictures."""
    whole = np.where(np.abs(seconds) < MAX_SECONDS, seconds, -MAX_SECONDS)
    return np.rint(whole * 1e9).astype(np.int64)


def _cuts(
    times: Times, spans: NDArray[np.int64], lengths: NDArray[np.int64], period: float
) -> Iterator[tuple[int, str] | str]:
    """Yield the first picture of each episode of a file with a warning, or what is wrong with it.

    Parameters
    ----------
    times
        Of the file's pictures, increasing.
    spans : (episodes, 2) int64
        First and last moment of each episode.
    period
        Nanoseconds between two rows of the data.
    """
    step = float(np.median(np.diff(times))) if len(times) > 1 else period
    edges = np.append(times, times[-1] + round(step))
    begins, ends = _nearest(edges, spans[:, 0]), _nearest(edges, spans[:, 1])
    starts, counted = begins, False
    # LeRobot writes episodes behind each other, so if nothing is left over, each picture has its episode.
    if lengths.sum() == len(times) and np.all(np.diff(spans[:, 0]) > 0):
        starts, counted = np.cumsum(lengths) - lengths, True
    for i, length in enumerate(lengths.tolist()):
        start = int(starts[i])
        window = f"from_timestamp and to_timestamp enclose pictures [{begins[i]}, {ends[i]})"
        surplus = int(ends[i] - begins[i]) - length
        warning = ""
        if counted:
            if begins[i] != start or surplus:
                taken = f"[{start}, {start + length})"
                warning = f"{window}; {taken} were taken, by the lengths of all episodes in the file"
        else:
            if (wrong := _contradiction(edges, spans, starts, lengths, i)) or surplus < 0:
                yield wrong or f"{window}, fewer than the {length} rows"
                continue
            if surplus:
                warning = f"{window}, {surplus} more than there are rows; the last ones were left out"
        yield start, "; ".join(filter(None, [warning, drift(times[start : start + length], period)]))


def _nearest(edges: Times, moments: Times) -> NDArray[np.int64]:
    """Return the index of the edge nearest to each moment."""
    behind = np.clip(np.searchsorted(edges, moments), 1, len(edges) - 1)
    before = moments - edges[behind - 1] <= edges[behind] - moments
    return (behind - before).astype(np.int64)


def _contradiction(
    edges: Times, spans: NDArray[np.int64], starts: NDArray[np.int64], lengths: NDArray[np.int64], i: int
) -> str:
    start, stop, half = int(starts[i]), int(starts[i] + lengths[i]), (edges[-1] - edges[-2]) / 2
    inside = (spans[:, 0] >= -half) & (spans[:, 0] <= edges[-1] + half)
    if not inside[i]:
        return "from_timestamp lies outside of the video"
    if stop >= len(edges):
        return f"pictures [{start}, {stop}) are wanted of a video of {len(edges) - 1}"
    overlapping = inside & (starts < stop) & (starts + lengths > start)
    return "another episode has the same pictures, going by from_timestamp" if overlapping.sum() > 1 else ""


def drift(times: Times, period: float) -> str:
    """Return a warning if pictures do not stand at their rows' times."""
    off = float(np.abs(times - times[:1] - np.arange(len(times)) * period).max(initial=0))
    return f"pictures stand up to {off / 1e6:.1f} ms off the times of their rows" if off > period / 2 else ""
