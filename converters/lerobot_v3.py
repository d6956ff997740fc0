"""LeRobot datasets, format v3.0: many episodes in one Parquet file and in one MP4 per camera.

Field notes. Written by lerobot 0.4 and later (src/lerobot/datasets/ of huggingface/lerobot); the format is
described nowhere else. What is odd, and what was chosen:

- LeRobot looks episodes up by the *position* of their row, which goes wrong once a row is lost. Here the
  value of ``episode_index`` counts, in meta/episodes as in data.
- Where an episode lies in a shared MP4 is told in seconds, ``from_timestamp``, a sum of many rounded
  durations. It drifts (lerobot #2364, #3177). Where the episodes of a file add up to its pictures, each
  picture belongs to one episode and is counted instead; otherwise the seconds must fall on pictures.
- An MP4 may hold more pictures of an episode than it has rows: staged images of a discarded take were
  encoded behind those of the take that was kept (lerobot #4109). The surplus is left out, with a warning.
- ``timestamp`` is no measurement: the recorder computes it as frame_index / fps. If it is anything else in
  the data, it was measured by whoever wrote the dataset otherwise, and is taken as recorded.
- A task's number is its row in meta/tasks.parquet for LeRobot's loader. We take the column ``task_index``;
  the text is that table's index, which pandas calls ``__index_level_0__`` or ``task``.
- Nothing tells units, frames, what an action commands, or which licence applies. The card's licence is
  apache-2.0 unless somebody chose another, so it is evidence of little.
- Statistics can be computed again, and lerobot 0.4.4 wrote zeros for cameras. They are left behind.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..schemas import (
    UNKNOWN,
    ActionContract,
    Array,
    Clock,
    Episode,
    Event,
    FieldFate,
    FormatError,
    Json,
    NotFoundError,
    Packets,
    Provenance,
    SourceFile,
    Stream,
    StreamSpec,
    Times,
    episode_id,
    median_rate,
    nominal_times,
    strict_json,
)
from ..schemas.episode import Fate
from ..schemas.validate import RESERVED, has_controls
from . import _parquet as parquet
from ._mp4 import MAX_PIXELS, Mp4Video
from .base import MAX_EPISODE_BYTES, Format, contained, rows_in, source_file

if TYPE_CHECKING:
    import pyarrow as pa

_VERSION = "1"
"""Goes up when an episode read from the same files changes."""

_INFO = "meta/info.json"
_STATS = "meta/stats.json"
_TASKS = "meta/tasks.parquet"
_SUBTASKS = "meta/subtasks.parquet"
_CARD = "README.md"
_STATISTICS = "stats/"
_EPISODES = "meta/episodes"

# Added to every dataset by LeRobot (DEFAULT_FEATURES in src/lerobot/datasets/utils.py).
_BOOKKEEPING = ("timestamp", "frame_index", "episode_index", "index", "task_index")

_MAX_JSON_BYTES = 1 << 26
_MAX_EPISODES = 5_000_000
_MAX_ROWS = 10_000_000
"""Most rows of a data file, whose bookkeeping takes 36 bytes of memory a row. LeRobot ends it at 100 MB."""
_MAX_RUNS = 100_000
_MAX_TEXT = 100_000
_MAX_TABLE_BYTES = 1 << 30
_MAX_SAMPLE_BYTES = 1 << 30
_MAX_DIMENSIONS = 5
_MAX_SECONDS = 1e9
_MAX_WORD = 1_000
_TEXTS_AT_ONCE = 256

_UNDECLARED: Mapping[str, Any] = {"dtype": "", "shape": None}
_Read = Callable[[int, int], Iterator[Array]]

_Episodes = Mapping[int, "tuple[int, str] | FormatError"]


@dataclass(frozen=True)
class LerobotV3:
    """The root folder of a dataset, the one that holds ``meta``.

    Attributes
    ----------
    only
        Indices of the episodes to read; all if empty. Leaves out an episode that is broken.
    """

    format: ClassVar[Format] = Format(
        name="lerobot-v3",
        title="LeRobot dataset v3.0",
        spec="https://github.com/huggingface/lerobot/tree/main/src/lerobot/datasets",
    )
    block_bytes: int = 1 << 22
    only: tuple[int, ...] = ()

    def probe(self, path: Path) -> bool:
        """Tell whether ``path`` holds meta/info.json of a codebase version 3."""
        try:
            return _version(_read_info(path)) == "3"
        except (FormatError, OSError):
            return False

    def episodes(self, path: Path) -> Iterator[Episode]:
        """Yield the episodes in order of their index; payload is read when asked for."""
        dataset = _Dataset.open(path)
        wanted = sorted(set(self.only)) or list(dataset.table.position)
        for index in wanted:
            if index not in dataset.table.position:
                raise NotFoundError(f"{path}: there is no episode {index}")
        for index in wanted:
            yield _Builder(dataset, index, self.block_bytes).build()


# The description of the dataset: everything below meta/


def _read_info(root: Path) -> dict[str, Any]:
    path = root / _INFO
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise FormatError(str(path), "", f"is larger than {_MAX_JSON_BYTES:,} bytes")
        info = strict_json(contained(root, _INFO, path=path, where="").read_bytes())
    except OSError as error:
        raise FormatError(str(path), "", f"cannot be read: {error.strerror}") from error
    except FormatError:
        raise
    except ValueError as error:
        raise FormatError(str(path), "", f"is no JSON: {error}") from error
    if not isinstance(info, dict) or not _is_json(info):
        raise FormatError(str(path), "", "is no JSON object of plain values")
    return info


def _version(info: Mapping[str, Any]) -> str:
    """Return the major version of the format, ``""`` if there is none."""
    found = re.fullmatch(r"v?(\d{1,3})(\.\d{1,9})*", str(info.get("codebase_version", "")))
    return found[1] if found else ""


def _is_json(value: object) -> bool:
    """Tell whether a value can stand in a header: finite numbers, text that is Unicode, and so on."""
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError):
        return False
    return True


@dataclass(frozen=True, slots=True)
class _Table:
    """All of meta/episodes but the statistics.

    Attributes
    ----------
    position
        Row of each episode, by its index, in increasing order of the index.
    files, file_of_row
        The files, and which of them each row is from.
    statistics
        Whether there were any.
    """

    rows: pa.Table
    position: Mapping[int, int]
    files: tuple[Path, ...]
    file_of_row: NDArray[np.int64]
    statistics: bool

    def row(self, index: int) -> dict[str, Any]:
        """Return the members of an episode's row."""
        found: dict[str, Any] = self.rows.slice(self.position[index], 1).to_pylist()[0]
        return found

    def numbers(self, column: str) -> Array:
        """Return a column: (episodes,), in increasing order of the episode's index."""
        if column not in self.rows.column_names:
            raise FormatError(str(self.files[0]), column, "the column is absent")
        values = self.rows.column(column)
        if values.null_count or parquet.numpy_name(values.type) is None:
            raise FormatError(str(self.files[0]), column, "holds what is not a number")
        return np.asarray(values.to_numpy())[list(self.position.values())]


@dataclass(frozen=True)
class _Dataset:
    """What all episodes of a dataset share."""

    root: Path
    info: Mapping[str, Any]
    fps: float
    features: Mapping[str, Mapping[str, Any]]
    tasks: Mapping[int, str]
    subtasks: Mapping[int, str]
    table: _Table
    evidence: Mapping[str, Json]
    cuts: dict[tuple[str, Path], _Episodes] = field(default_factory=dict)
    """Where the episodes of a video file begin; of the newest file of each camera."""

    @classmethod
    def open(cls, root: Path) -> _Dataset:
        """Read and check everything below meta/."""
        info, path = _read_info(root), root / _INFO
        if _version(info) != "3":
            told = info.get("codebase_version")
            advice = "Use the converter of that version, or bring the data to v3.0 with LeRobot's own script"
            raise FormatError(str(path), "codebase_version", f"is {told!r}; this reads v3", advice)
        if info.get("storage_format", "parquet") != "parquet":
            raise FormatError(str(path), "storage_format", f"is {info['storage_format']!r}; Parquet is read")
        table = _read_table(root, path)
        dataset = cls(
            root=root,
            info=info,
            fps=_read_fps(info, path),
            features=_read_features(info, path),
            tasks=_read_texts(root, _TASKS),
            subtasks=_read_texts(root, _SUBTASKS) if (root / _SUBTASKS).exists() else {},
            table=table,
            evidence=_evidence(root, info),
        )
        dataset.check_totals()
        return dataset

    def check_totals(self) -> None:
        """Compare what info.json counts with what is there."""
        path, rows = str(self.root / _INFO), self.table.rows.num_rows
        lengths = self.table.numbers("length") if rows else np.zeros(0)
        if np.any(lengths < 0):
            raise FormatError(str(self.table.files[0]), "length", "is negative")
        frames = int(lengths.sum())
        for member, found in (("total_episodes", rows), ("total_frames", frames)):
            told = self.info.get(member)
            if told != found or isinstance(told, bool):
                raise FormatError(path, member, f"is {told!r}, but meta/episodes tells of {found}")

    def file(self, template: str, where: str, **values: object) -> Path:
        """Return the file that a path template of info.json names."""
        path, pattern = self.root / _INFO, self.info.get(template)
        if not isinstance(pattern, str):
            raise FormatError(str(path), template, f"is {pattern!r} instead of a path")
        name = _filled(pattern, values)
        if name is None:
            raise FormatError(str(path), template, f"{pattern[:200]!r} is no template of a path")
        found = contained(self.root, name, path=path, where=template)
        if not found.is_file():
            raise FormatError(str(path), where, f"the file {name} is absent")
        return found

    def video(self, camera: str, row: Mapping[str, Any]) -> Path:
        """Return the video file of an episode's camera."""
        numbers = {n: _whole(row, f"videos/{camera}/{n}", self.table) for n in ("chunk_index", "file_index")}
        return self.file("video_path", f"episode {row['episode_index']}", video_key=camera, **numbers)

    def cut(self, camera: str, path: Path, video: Mp4Video, row: Mapping[str, Any]) -> tuple[int, str]:
        """Return the first picture of an episode in a video file, and a warning if there is one."""
        key = (camera, path)
        if key not in self.cuts:
            for stale in [k for k in self.cuts if k[0] == camera]:
                del self.cuts[stale]
            self.cuts[key] = self._cuts(camera, path, video, row)
        found = self.cuts[key][row["episode_index"]]
        if isinstance(found, FormatError):
            raise found
        return found

    def _cuts(self, camera: str, path: Path, video: Mp4Video, row: Mapping[str, Any]) -> _Episodes:
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
    whole = np.where(np.abs(seconds) < _MAX_SECONDS, seconds, -_MAX_SECONDS)
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
        yield start, "; ".join(filter(None, [warning, _drift(times[start : start + length], period)]))


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


def _drift(times: Times, period: float) -> str:
    """Return a warning if pictures do not stand at their rows' times."""
    off = float(np.abs(times - times[:1] - np.arange(len(times)) * period).max(initial=0))
    return f"pictures stand up to {off / 1e6:.1f} ms off the times of their rows" if off > period / 2 else ""


_FIELD = re.compile(r"\{([a-z_]+)(?::0?(\d{0,2})d)?\}")


def _filled(template: str, values: Mapping[str, object]) -> str | None:
    """Return a path template filled in. Not by str.format, which reaches attributes and any width."""
    rest = _FIELD.sub("", template)
    if "{" in rest or "}" in rest or any(name not in values for name, _ in _FIELD.findall(template)):
        return None
    return _FIELD.sub(lambda found: str(values[found[1]]).zfill(int(found[2] or 0)), template)


def _whole(row: Mapping[str, Any], column: str, table: _Table) -> int:
    value = row.get(column)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 40:
        where = f"{column} of episode {row.get('episode_index')}"
        raise FormatError(str(table.files[0]), where, f"is {value!r} instead of a count")
    return value


def _read_fps(info: Mapping[str, Any], path: Path) -> float:
    fps = info.get("fps")
    if isinstance(fps, bool) or not isinstance(fps, int | float) or not 0 < fps <= 1e6:
        raise FormatError(str(path), "fps", f"{fps!r} is no rate")
    return float(fps)


def _read_features(info: Mapping[str, Any], path: Path) -> dict[str, Mapping[str, Any]]:
    features = info.get("features")
    if not isinstance(features, dict):
        raise FormatError(str(path), "features", "is absent or no object")
    for name, feature in features.items():
        where = f"features.{name}"
        # LeRobot forbids the slash, since names are folders: _validate_feature_names in datasets/utils.py.
        if not name or "/" in name or "\0" in name or len(name) > 200:
            raise FormatError(str(path), where, "no feature may bear such a name")
        if not isinstance(feature, dict) or not isinstance(feature.get("dtype"), str):
            raise FormatError(str(path), where, "tells no dtype")
        _check_shape(feature, path, f"{where}.shape")
    return features


def _check_shape(feature: Mapping[str, Any], path: Path, where: str) -> None:
    shape = feature.get("shape")
    if not isinstance(shape, list) or len(shape) > _MAX_DIMENSIONS or not all(map(_is_extent, shape)):
        raise FormatError(str(path), where, f"{str(shape)[:100]} is no shape of a sample")
    limit = 4 * MAX_PIXELS if feature["dtype"] in {"video", "image"} else _MAX_SAMPLE_BYTES
    if math.prod(shape) > limit:
        raise FormatError(str(path), where, f"{shape} is larger than any sample that is read")


def _is_extent(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _read_texts(root: Path, name: str) -> dict[int, str]:
    """Return the texts of tasks.parquet or subtasks.parquet, by their number."""
    path = contained(root, name, path=root / _INFO, where=name)
    columns = _read_all(path).to_pydict()
    number = next((c for c in columns if c.endswith("task_index")), None)
    text = next((c for c in columns if c != number), None)
    if number is None or text is None:
        raise FormatError(str(path), "task_index", "there must be a column of numbers and one of texts")
    found: dict[int, str] = {}
    for row, (index, value) in enumerate(zip(columns[number], columns[text], strict=True)):
        if not isinstance(index, int) or index in found:
            raise FormatError(str(path), f"row {row}", f"{index!r} is no new {number}")
        if not isinstance(value, str) or len(value) > _MAX_TEXT:
            raise FormatError(str(path), f"row {row}", f"holds no text of up to {_MAX_TEXT:,} characters")
        found[index] = value
    return found


def _read_all(path: Path) -> pa.Table:
    """Return a table of meta/ without its statistics, if it is of a sane size."""
    import pyarrow as pa

    with parquet.opened(path) as file:
        if file.metadata.num_rows > _MAX_EPISODES:
            raise FormatError(str(path), "", f"claims {file.metadata.num_rows:,} rows")
        names = [n for n in file.schema_arrow.names if not n.startswith(_STATISTICS)]
        size, batches = 0, []
        for batch in file.iter_batches(256, columns=names):
            batch.validate(full=True)  # text in UTF-8
            batches.append(batch.select(names))
            size += batch.nbytes
            if size > _MAX_TABLE_BYTES:
                raise FormatError(str(path), "", f"holds more than {_MAX_TABLE_BYTES:,} bytes")
        schema = pa.schema([file.schema_arrow.field(n) for n in names])
        return pa.Table.from_batches(batches, schema)


def _read_table(root: Path, info: Path) -> _Table:
    import pyarrow as pa

    files = tuple(sorted((root / "meta" / "episodes").glob("**/*.parquet")))
    if not files:
        raise FormatError(str(info), "", "there is no table of episodes below meta/episodes")
    parts, statistics = [], False
    for path in files:
        contained(root, path.relative_to(root).as_posix(), path=info, where="meta/episodes")
        parts.append(_read_all(path))
        with parquet.opened(path) as file:
            statistics |= len(file.schema_arrow.names) > parts[-1].num_columns
    try:
        rows = pa.concat_tables(parts, promote_options="permissive").combine_chunks()
    except pa.ArrowException as error:
        raise FormatError(str(files[0]), "schema", f"the files of the table disagree: {error}") from error
    file_of_row = np.repeat(np.arange(len(files)), [part.num_rows for part in parts])
    return _Table(rows, _positions(rows, files), files, file_of_row, statistics)


def _positions(rows: pa.Table, files: tuple[Path, ...]) -> dict[int, int]:
    if "episode_index" not in rows.column_names:
        raise FormatError(str(files[0]), "episode_index", "the column is absent")
    indices = rows.column("episode_index").to_pylist()
    found: dict[int, int] = {}
    for position, index in enumerate(indices):
        if not isinstance(index, int) or isinstance(index, bool) or index < 0 or index in found:
            raise FormatError(str(files[0]), f"row {position}", f"{index!r} is no new episode_index")
        found[index] = position
    return dict(sorted(found.items()))


_TELLING = re.compile(r"licen[cs]e|copyright|author|consent|citation", re.IGNORECASE)
_FRONT_MATTER = re.compile(r"---\r?\n(.*?\n)---\s", re.DOTALL)
_LICENCE_LINES = re.compile(r"^(?:license|license_\w+):[^\n]*\n(?:[ \t-][^\n]*\n)*", re.MULTILINE)
"""Members of a dataset card's front matter, which go on while lines are indented or items of a list."""


def _evidence(root: Path, info: Mapping[str, Any]) -> dict[str, Json]:
    """Return what the dataset says on licence, authors and consent, word for word."""
    found: dict[str, Json] = {f"{_INFO}#{m}": v for m, v in info.items() if _TELLING.search(m)}
    with suppress(OSError, UnicodeDecodeError):
        path = contained(root, _CARD, path=root / _INFO, where=_CARD)
        with path.open("rb") as file:
            front = _FRONT_MATTER.match(file.read(1 << 20).decode())
        if front and (stated := _LICENCE_LINES.findall(front[1])):
            found[_CARD] = "".join(stated)
    return found


# The data files


@dataclass(frozen=True, slots=True)
class _Book:
    """The bookkeeping columns of a data file, and the rows of each episode in it."""

    rows: Mapping[int, tuple[int, int]]
    columns: Mapping[str, Array]


def _book_of(path: Path) -> _Book:
    try:
        found = path.stat()
    except OSError as error:
        raise FormatError(str(path), "", f"cannot be read: {error.strerror}") from error
    return _cached_book(path, found.st_size, found.st_mtime_ns, found.st_ino)


@lru_cache(maxsize=2)
def _cached_book(path: Path, _size: int, _mtime_ns: int, _inode: int) -> _Book:
    with parquet.opened(path) as file:
        total, schema = file.metadata.num_rows, file.schema_arrow
    if total > _MAX_ROWS:
        raise FormatError(str(path), "", f"claims {total:,} rows; {_MAX_ROWS:,} are read at most")
    columns = {}
    for name in _BOOKKEEPING:
        if name not in schema.names:
            raise FormatError(str(path), name, "the column is absent")
        dtype = parquet.numpy_name(schema.field(name).type)
        if dtype is None:
            raise FormatError(str(path), name, f"is {schema.field(name).type} instead of numbers")
        spec = StreamSpec(name=name, kind="low_dim", dtype=dtype, shape=())
        blocks = parquet.numbers(path, name, spec, 1 << 20, 0, 0, total) if total else ()
        columns[name] = np.concatenate([np.empty(0, dtype), *blocks])
    return _Book(_runs_of_episodes(path, columns["episode_index"]), columns)


def _runs_of_episodes(path: Path, indices: Array) -> dict[int, tuple[int, int]]:
    found: dict[int, tuple[int, int]] = {}
    for start, stop in _runs(indices):
        index = int(indices[start])
        if index in found:
            raise FormatError(str(path), f"episode_index, row {start}", f"episode {index} begins twice")
        found[index] = (start, stop)
    return found


def _runs(values: Array) -> list[tuple[int, int]]:
    """Return the bounds of each run of equal values."""
    breaks = np.flatnonzero(values[1:] != values[:-1]) + 1
    return list(pairwise([0, *breaks.tolist(), len(values)])) if len(values) else []


def _recorded_times(path: Path, start: int, stop: int) -> Times:
    """Return the column ``timestamp`` as nanoseconds since the first of these rows."""
    seconds = _book_of(path).columns["timestamp"][start:stop].astype(np.float64)
    times: Times = np.rint((seconds - seconds[0]) * 1e9).astype(np.int64)
    return times


# One episode


class _Builder:
    """Puts one episode together, field by field, and keeps account of them."""

    def __init__(self, dataset: _Dataset, index: int, block_bytes: int) -> None:
        self.dataset, self.index, self.block = dataset, index, block_bytes
        self.where = f"episode {index}"
        self.row = dataset.table.row(index)
        self.length = _whole(self.row, "length", dataset.table)
        numbers = {n: _whole(self.row, f"data/{n}", dataset.table) for n in ("chunk_index", "file_index")}
        self.data = dataset.file("data_path", self.where, **numbers)
        self.book = _book_of(self.data)
        self.first, self.last = self._find_rows()
        self.streams: dict[str, Stream] = {}
        self.names: set[str] = set()
        self.ledger: list[FieldFate] = []
        self.events: list[Event] = []
        self.warnings: list[str] = []
        self.videos: list[Path] = []
        self.extra: dict[str, Json] = {}
        self.payload = 0
        self.clock = self._clock()
        self.times = self.clock.read()

    def build(self) -> Episode:
        """Return the episode."""
        self._add_bookkeeping()
        instructions = self._add_tasks()
        self._add_features()
        self._add_meta()
        provenance = self._provenance()
        robot = self.dataset.info.get("robot_type")
        return Episode(
            id=episode_id(
                [s.sha256 for s in provenance.sources if s.role in {"recording", "video"}],
                provenance.selector,
            ),
            instructions=instructions,
            embodiment=robot if isinstance(robot, str) and 0 < len(robot) <= _MAX_WORD else UNKNOWN,
            provenance=provenance,
            clocks={"steps": self.clock},
            streams=self.streams,
            events=tuple(sorted(self.events, key=lambda event: event.start_ns)),
            extra=self.extra,
        )

    def _find_rows(self) -> tuple[int, int]:
        """Return the episode's rows in its data file, where all that tell of them agree."""
        table = str(self.dataset.table.files[0])
        if self.length == 0:
            raise FormatError(table, self.where, "has no rows")
        start, stop = (_whole(self.row, f"dataset_{n}_index", self.dataset.table) for n in ("from", "to"))
        if stop - start != self.length:
            raise FormatError(table, self.where, f"has {self.length} rows, but goes from {start} to {stop}")
        if self.index not in self.book.rows:
            raise FormatError(str(self.data), self.where, "has no row in the file that meta/episodes tells")
        first, last = self.book.rows[self.index]
        if last - first != self.length:
            why = f"has {last - first} rows here, but {self.length} in meta/episodes"
            raise FormatError(str(self.data), self.where, why)
        return first, last

    def _column(self, name: str) -> Array:
        return self.book.columns[name][self.first : self.last]

    def _account(
        self, source: str, fate: Fate, to: Iterable[str] = (), how: str = "", *, lossless: bool = True
    ) -> None:
        kept = None if fate == "dropped" else lossless
        self.ledger.append(FieldFate(field=source, fate=fate, to=tuple(to), how=how, lossless=kept))

    def _stream_name(self, name: str) -> str:
        """Return a name that a stream may have, unlike those there are."""
        clean = re.sub(r"[^A-Za-z0-9_@+.-]|^\.|\.$|\.(?=\.)", "_", name)
        clean = f"source.{clean}" if clean in RESERVED else clean
        while clean.casefold() in self.names:
            clean += "_"
        self.names.add(clean.casefold())
        return clean

    def _add(self, spec: StreamSpec, read: _Read, source: str, how: str = "", **more: Any) -> None:
        self.payload += spec.sample_bytes * self.length
        if self.payload > MAX_EPISODE_BYTES:
            path = str(self.dataset.root / _INFO)
            raise FormatError(path, self.where, f"declares more than {MAX_EPISODE_BYTES:,} bytes")
        self.streams[spec.name] = Stream(spec=spec, length=self.length, read=read, **more)
        kept = source.endswith(f"#{spec.name}")
        self._account(source, "kept" if kept else "renamed", [spec.name], how)

    # Time, and the columns that LeRobot adds

    def _clock(self) -> Clock:
        seconds, fps = self._column("timestamp"), self.dataset.fps
        # As the recorder computes it: a Python float, stored as float32 (add_frame in lerobot_dataset.py).
        computed = (np.arange(self.length) / fps).astype(seconds.dtype)
        if np.array_equal(seconds, computed):
            return Clock(
                name="steps",
                kind="nominal",
                declared_hz=fps,
                source="fps of info.json; the column timestamp is frame_index / fps",
                length=self.length,
                read=partial(nominal_times, self.length, fps),
            )
        if not np.all(np.abs(seconds) < _MAX_SECONDS):
            raise FormatError(str(self.data), f"timestamp, {self.where}", "holds what is no time")
        if np.any(np.diff(seconds) < 0):
            at = self.first + 1 + int(np.flatnonzero(np.diff(seconds) < 0)[0])
            raise FormatError(str(self.data), f"timestamp, row {at}", "time runs backwards")
        read = partial(_recorded_times, self.data, self.first, self.last)
        return Clock(
            name="steps",
            kind="recorded",
            declared_hz=fps,
            measured_hz=median_rate(read()),
            source="the column timestamp, which is not frame_index / fps",
            length=self.length,
            read=read,
        )

    def _add_bookkeeping(self) -> None:
        self._account("data#episode_index", "transformed", ["provenance.selector"], "one number for all rows")
        numbers = np.arange(self.length)
        for name, expected, to, how in (
            ("frame_index", numbers, "clocks.steps", "the sample's number"),
            ("index", numbers + self.row["dataset_from_index"], "extra.episode", "dataset_from_index and up"),
        ):
            if np.array_equal(self._column(name), expected):
                self._account(f"data#{name}", "transformed", [to], how)
            else:
                self._add_column(name, self.book.columns[name].dtype.name, ())
                self.warnings.append(f"the column {name} is not {how}; it is kept as a stream")
        if self.clock.kind == "nominal":
            how = "frame_index / fps as float32, so the clock is nominal"
            self._account("data#timestamp", "transformed", ["clocks.steps"], how)
        else:
            self._add_column("timestamp", self.book.columns["timestamp"].dtype.name, (), unit="s", frame=None)

    def _add_tasks(self) -> tuple[str, ...]:
        numbers, tasks = self._column("task_index"), self.dataset.tasks
        spans = _runs(numbers)
        for start, _ in spans:
            if int(numbers[start]) not in tasks:
                where = f"task_index, row {self.first + start}"
                raise FormatError(str(self.data), where, f"there is no task {numbers[start]} in {_TASKS}")
        used = list(dict.fromkeys(int(numbers[start]) for start, _ in spans))
        told = self.row.get("tasks")
        if isinstance(told, list) and set(told) != {tasks[i] for i in used}:
            self.warnings.append("the tasks in meta/episodes are not those of the rows; the rows' were taken")
        if list(tasks) != list(range(len(tasks))):
            self.warnings.append(
                f"{_TASKS} is not in order; LeRobot's loader, going by rows, reads other texts"
            )
        if len(spans) > 1:
            self._add_runs("instruction", "task_index", numbers, tasks)
            self._account(
                "data#task_index", "transformed", ["instructions", "events"], "an event for each run"
            )
        else:
            self.extra["task_index"] = used[0]
            self._account("data#task_index", "transformed", ["instructions", "extra.task_index"], "its text")
        return tuple(filter(None, dict.fromkeys(_without_controls(tasks[i]) for i in used)))

    def _add_runs(self, kind: str, column: str, numbers: Array, texts: Mapping[int, str]) -> None:
        spans = _runs(numbers)
        if len(spans) > _MAX_RUNS:
            where = f"{column}, {self.where}"
            raise FormatError(str(self.data), where, f"changes more than {_MAX_RUNS:,} times")
        for start, stop in spans:
            index = int(numbers[start])
            self._add_event(kind, start, stop, texts.get(index, ""), {column: index})

    def _add_event(self, kind: str, start: int, stop: int, text: str, attributes: Mapping[str, Json]) -> None:
        after = int(self.times[-1]) + round(1e9 / self.dataset.fps)
        self.events.append(
            Event(
                kind=kind,
                start_ns=int(self.times[start]),
                stop_ns=int(self.times[stop]) if stop < self.length else after,
                text=text,
                attributes=attributes,
            )
        )

    # Features

    def _add_features(self) -> None:
        with parquet.opened(self.data) as file:
            schema, per_row = file.schema_arrow, parquet.values_per_row(file)
        for name in dict.fromkeys([*self.dataset.features, *schema.names]):
            feature = self.dataset.features.get(name, _UNDECLARED)
            if name in _BOOKKEEPING:
                continue
            if feature["dtype"] == "video":
                self._add_video(name, feature)
            elif name in schema.names:
                self._add_by_type(name, feature, schema.field(name).type, per_row.get(name))
            else:
                raise FormatError(str(self.data), name, "the column is absent, though info.json declares it")

    def _add_by_type(
        self, name: str, feature: Mapping[str, Any], kind: pa.DataType, per_row: int | None
    ) -> None:
        if feature is _UNDECLARED:
            self.warnings.append(f"the column {name!r} is not declared in info.json")
        inner, lengths = parquet.unnested(kind)
        dtype = parquet.numpy_name(inner)
        if not lengths and parquet.holds_files(inner):
            self._add_images(name, feature)
        elif dtype is None:
            self._add_values(name, kind)
        elif (shape := self._shape(name, feature, lengths, per_row)) is None:
            self._account(f"data#{name}", "dropped", how="not declared in info.json, and of no fixed shape")
        else:
            if feature["dtype"] not in {"", dtype}:
                self.warnings.append(f"{name} holds {dtype}; info.json declares {feature['dtype']!r}")
            self._add_column(name, dtype, shape, feature)

    def _shape(
        self, name: str, feature: Mapping[str, Any], lengths: list[int | None], per_row: int | None
    ) -> tuple[int, ...] | None:
        """Return the shape of a sample; None if nothing tells it."""
        shape = feature["shape"]
        if shape is None:
            return None if None in lengths else tuple(n for n in lengths if n is not None)
        # A feature of shape (1,) is stored as a scalar: get_hf_features_from_features in datasets/utils.py.
        if not lengths and shape in ([], [1]):
            return ()
        fits = len(shape) == len(lengths) and all(a in {None, b} for a, b in zip(lengths, shape, strict=True))
        # A column of more values, or fewer, is refused before any of them is allocated.
        if not fits or per_row != math.prod(shape):
            raise FormatError(str(self.data), name, f"does not hold samples of the declared shape {shape}")
        return tuple(shape)

    def _add_column(
        self,
        name: str,
        dtype: str,
        shape: tuple[int, ...],
        feature: Mapping[str, Any] | None = None,
        unit: str = UNKNOWN,
        frame: str | None = UNKNOWN,
    ) -> None:
        new = self._stream_name(name)
        axes, attributes = _axes(feature or _UNDECLARED, shape)
        command = new == "action" or new.startswith("action.")
        spec = StreamSpec(
            name=new,
            kind="low_dim",
            dtype=dtype,
            shape=shape,
            unit=(unit,),
            frame=frame,
            axes=axes,
            contract=ActionContract(evidence="LeRobot does not tell what an action means")
            if command
            else None,
            attributes=attributes,
        )
        self._add(
            spec, partial(parquet.numbers, self.data, name, spec, self.block, self.first), f"data#{name}"
        )
        if name == "subtask_index" and self.dataset.subtasks and not shape:
            self._add_runs("subtask", name, self.streams[new].values(), self.dataset.subtasks)

    def _add_images(self, name: str, feature: Mapping[str, Any]) -> None:
        spec, form = parquet.picture_spec(self.data, name, self.first, self._stream_name(name))
        spec = replace(spec, attributes={"feature": _rest(feature)})
        self._compare_shape(name, feature, spec.shape)
        read = partial(parquet.pictures, self.data, name, spec, self.block, self.first)
        self._add(spec, read, f"data#{name}", f"pixels of {form} files")

    def _add_video(self, name: str, feature: Mapping[str, Any]) -> None:
        path = self.dataset.video(name, self.row)
        video = Mp4Video(path)
        self.videos.append(path)
        start, warning = self.dataset.cut(name, path, video, self.row)
        if warning:
            self.warnings.append(f"{name}: {warning}")
        grey = video.pixel_format.startswith("gray")
        deep = grey and video.pixel_format != "gray"
        spec = StreamSpec(
            name=self._stream_name(name),
            kind="depth" if deep else "video",
            dtype="uint16" if deep else "uint8",
            shape=video.size if deep else (*video.size, 1 if grey else 3),
            description="Codes, not distances; attributes.feature tells their range." if deep else "",
            attributes={"feature": _rest(feature), **video.attributes},
        )
        self._compare_shape(name, feature, spec.shape)
        stop = start + self.length
        form = None if deep else video.format
        packets = Packets(format=form, read=partial(video.packets, start, stop)) if form else None
        how = f"{'packets' if form else 'decoded pictures'} [{start}, {stop}) of the file"
        read = partial(_frames, video, start, rows_in(self.block, spec))
        self._add(spec, read, f"videos#{name}", how, packets=packets)
        if video.audio:
            self._account(f"videos#{name}/audio", "dropped", how="sound is not read, and may be of people")

    def _compare_shape(self, name: str, feature: Mapping[str, Any], shape: tuple[int, ...]) -> None:
        # In any order, since some datasets put the channels first.
        if feature["shape"] is not None and sorted(feature["shape"]) != sorted([*shape, 1][:3]):
            told = f"info.json declares {feature['shape']}"
            self.warnings.append(f"{name} holds pictures of {list(shape)}; {told}")

    def _add_values(self, name: str, kind: pa.DataType) -> None:
        """Turn a column of texts, or of anything else that JSON can hold, into an event per run of rows."""
        runs: list[tuple[int, int, Any]] = []
        for at, batch in parquet.batches(self.data, name, self.first, self.last, _TEXTS_AT_ONCE):
            for i, value in enumerate(batch.to_pylist(), at - self.first):
                if runs and runs[-1][2] == value:
                    runs[-1] = (runs[-1][0], i + 1, value)
                elif len(runs) < _MAX_RUNS and _is_short_json(value):
                    runs.append((i, i + 1, value))
                else:
                    how = f"{kind}, which from row {i} on holds more than a header can"
                    self._account(f"data#{name}", "dropped", how=how)
                    return
        for start, stop, value in runs:
            if isinstance(value, str):
                self._add_event(name, start, stop, value, {})
            elif value not in (None, [], {}):
                self._add_event(name, start, stop, "", {"value": value})
        how = "an event for each run of rows with one value, none where there is no value"
        self._account(f"data#{name}", "transformed", ["events"], how)

    # What is told outside of the data

    def _add_meta(self) -> None:
        dataset = self.dataset
        self.extra["info"] = {m: v for m, v in dataset.info.items() if m != "features"}
        places = {"fps": ["clocks.steps"], "robot_type": ["embodiment"]}
        for member in self.extra["info"]:
            self._account(f"{_INFO}#{member}", "kept", [*places.get(member, ()), "extra.info"])
        how = "dtype and shape as stored, names as axes, the rest as attributes of each stream"
        self._account(f"{_INFO}#features", "transformed", self.streams, how)
        self.extra["episode"] = {c: v for c, v in self.row.items() if _is_json(v)}
        for column in self.row:
            if column in self.extra["episode"]:
                self._account(f"{_EPISODES}#{column}", "kept", ["extra.episode"])
            else:
                self._account(f"{_EPISODES}#{column}", "dropped", how="its value is not JSON")
        statistics = "statistics can be computed from the data again"
        if dataset.table.statistics:
            self._account(f"{_EPISODES}#{_STATISTICS}*", "dropped", how=statistics)
        if (dataset.root / _STATS).exists():
            self._account(_STATS, "dropped", how=statistics)
        self._account(_TASKS, "transformed", ["instructions"], "the texts of this episode's tasks")
        if dataset.subtasks:
            self._account(_SUBTASKS, "transformed", ["events"], "the texts of this episode's subtasks")
        if _CARD in dataset.evidence:
            how = "what it says on the licence; the rest is about the whole dataset"
            self._account(_CARD, "transformed", ["provenance.evidence"], how, lossless=False)

    def _provenance(self) -> Provenance:
        said = {c: v for c, v in self.extra["episode"].items() if _TELLING.search(c)}
        evidence = {**self.dataset.evidence, **{f"{_EPISODES}#{c}": v for c, v in said.items()}}
        if "apache-2.0" in str(evidence.get(_CARD)):
            self.warnings.append(
                "LeRobot writes apache-2.0 into a dataset's card where nobody chose a licence"
            )
        return Provenance(
            format=LerobotV3.format.name,
            converter=__name__.rpartition(".")[2],
            converter_version=_VERSION,
            sources=tuple(self._sources()),
            selector=f"episode_index={self.index}",
            ledger=tuple(self.ledger),
            evidence=evidence,
            warnings=tuple(self.warnings),
        )

    def _sources(self) -> Iterator[SourceFile]:
        root, table = self.dataset.root.resolve(), self.dataset.table
        yield source_file(self.data, root)
        for video in dict.fromkeys(self.videos):
            yield source_file(video, root, "video")
        described = table.files[table.file_of_row[table.position[self.index]]]
        metadata = [root / _INFO, root / _TASKS, described.resolve()]
        metadata += [root / _SUBTASKS] if self.dataset.subtasks else []
        metadata += [root / _CARD] if _CARD in self.dataset.evidence else []
        for path in metadata:
            yield source_file(path, root, "metadata")


def _frames(video: Mp4Video, first: int, rows: int, start: int, stop: int) -> Iterator[Array]:
    return video.frames(first + start, first + stop, rows)


def _without_controls(text: str) -> str:
    """Return a task as an instruction may be; `extra` and events keep the source's text."""
    return "".join(c for c in text if not has_controls(c))


def _is_short_json(value: object) -> bool:
    return _is_json(value) and not (isinstance(value, str) and len(value) > _MAX_TEXT)


def _rest(feature: Mapping[str, Any]) -> dict[str, Json]:
    return {m: v for m, v in feature.items() if m not in {"dtype", "shape", "names"}}


def _axes(feature: Mapping[str, Any], shape: tuple[int, ...]) -> tuple[tuple[str, ...], dict[str, Json]]:
    """Return the names of a sample's last axis, and as attributes what these do not tell."""
    names = feature.get("names")
    found = _flat_names(names)
    fit = len(set(found)) == len(found) == (shape[-1] if shape else 1)
    axes = tuple(found) if fit and all(0 < len(n) <= _MAX_WORD for n in found) else ()
    attributes: dict[str, Json] = {"feature": rest} if (rest := _rest(feature)) else {}
    if names is not None and names != list(axes):
        attributes["names"] = names
    return axes, attributes


def _flat_names(names: Json) -> list[str]:
    """Return the names in the order of the axes, in whatever form a dataset gives them; else nothing."""
    inner = next(iter(names.values())) if isinstance(names, dict) and len(names) == 1 else names
    if isinstance(inner, list) and len(inner) == 1 and isinstance(inner[0], list):
        inner = inner[0]
    if isinstance(names, dict) and set(map(str, names.values())) == set(map(str, range(len(names)))):
        inner = sorted(names, key=lambda name: int(names[name]))  # {"delta_x": 0, "delta_y": 1}
    return inner if isinstance(inner, list) and all(isinstance(n, str) for n in inner) else []


CONVERTER = LerobotV3
