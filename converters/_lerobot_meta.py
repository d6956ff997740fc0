"""What a LeRobot dataset says of itself: info.json, tasks, the table of episodes, the licence in its card.

All of it is read and checked before a data file or a video is opened. What is read of info.json and of the
card is the same in format 2; the tables of tasks and episodes are those of format 3.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..schemas import Array, FormatError, Json, strict_json
from . import _parquet as parquet
from ._mp4 import MAX_PIXELS
from .base import contained

if TYPE_CHECKING:
    import pyarrow as pa

INFO = "meta/info.json"
STATS = "meta/stats.json"
TASKS = "meta/tasks.parquet"
SUBTASKS = "meta/subtasks.parquet"
CARD = "README.md"
STATISTICS = "stats/"
EPISODES = "meta/episodes"

MAX_TEXT = 100_000
"""Most characters of a task, or of a text in the data."""
MAX_WORD = 1_000
"""Most characters of a name."""

_MAX_JSON_BYTES = 1 << 26
_MAX_EPISODES = 5_000_000
_MAX_TABLE_BYTES = 1 << 30
_MAX_SAMPLE_BYTES = 1 << 30
_MAX_DIMENSIONS = 5

_FIELD = re.compile(r"\{([a-z_]+)(?::0?(\d{0,2})d)?\}")

_TELLING = re.compile(r"licen[cs]e|copyright|author|consent|citation", re.IGNORECASE)
_FRONT_MATTER = re.compile(r"---\r?\n(.*?\n)---\s", re.DOTALL)
_LICENCE_LINES = re.compile(r"^(?:license|license_\w+):[^\n]*\n(?:[ \t-][^\n]*\n)*", re.MULTILINE)
"""Members of a dataset card's front matter, which go on while lines are indented or items of a list."""


@dataclass(frozen=True, slots=True)
class Table:
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
class Dataset:
    """What all episodes of a dataset share."""

    root: Path
    info: Mapping[str, Any]
    fps: float
    features: Mapping[str, Mapping[str, Any]]
    tasks: Mapping[int, str]
    subtasks: Mapping[int, str]
    table: Table
    evidence: Mapping[str, Json]

    @classmethod
    def open(cls, root: Path) -> Dataset:
        """Read and check everything below meta/."""
        info, path = read_info(root), root / INFO
        if version(info) != "3":
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
            tasks=_read_texts(root, TASKS),
            subtasks=_read_texts(root, SUBTASKS) if (root / SUBTASKS).exists() else {},
            table=table,
            evidence=_evidence(root, info),
        )
        dataset.check_totals()
        return dataset

    def check_totals(self) -> None:
        """Compare what info.json counts with what is there."""
        path, rows = str(self.root / INFO), self.table.rows.num_rows
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
        path, pattern = self.root / INFO, self.info.get(template)
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
        numbers = {n: whole(row, f"videos/{camera}/{n}", self.table) for n in ("chunk_index", "file_index")}
        return self.file("video_path", f"episode {row['episode_index']}", video_key=camera, **numbers)


# info.json


def read_info(root: Path) -> dict[str, Any]:
    """Return info.json, an object of plain values."""
    path = root / INFO
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise FormatError(str(path), "", f"is larger than {_MAX_JSON_BYTES:,} bytes")
        info = strict_json(contained(root, INFO, path=path, where="").read_bytes())
    except OSError as error:
        raise FormatError(str(path), "", f"cannot be read: {error.strerror}") from error
    except FormatError:
        raise
    except ValueError as error:
        raise FormatError(str(path), "", f"is no JSON: {error}") from error
    if not isinstance(info, dict) or not is_json(info):
        raise FormatError(str(path), "", "is no JSON object of plain values")
    return info


def version(info: Mapping[str, Any]) -> str:
    """Return the major version of the format, ``""`` if there is none."""
    found = re.fullmatch(r"v?(\d{1,3})(\.\d{1,9})*", str(info.get("codebase_version", "")))
    return found[1] if found else ""


def is_json(value: object) -> bool:
    """Tell whether a value can stand in a header: finite numbers, text that is Unicode, and so on."""
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError):
        return False
    return True


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


def rest_of(feature: Mapping[str, Any]) -> dict[str, Json]:
    """Return what a feature tells beyond its dtype, shape and names."""
    return {m: v for m, v in feature.items() if m not in {"dtype", "shape", "names"}}


def axes_of(feature: Mapping[str, Any], shape: tuple[int, ...]) -> tuple[tuple[str, ...], dict[str, Json]]:
    """Return the names of a sample's last axis, and as attributes what these do not tell."""
    names = feature.get("names")
    found = _flat_names(names)
    fit = len(set(found)) == len(found) == (shape[-1] if shape else 1)
    axes = tuple(found) if fit and all(0 < len(n) <= MAX_WORD for n in found) else ()
    attributes: dict[str, Json] = {"feature": rest} if (rest := rest_of(feature)) else {}
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


def _filled(template: str, values: Mapping[str, object]) -> str | None:
    """Return a path template filled in. Not by str.format, which reaches attributes and any width."""
    rest = _FIELD.sub("", template)
    if "{" in rest or "}" in rest or any(name not in values for name, _ in _FIELD.findall(template)):
        return None
    return _FIELD.sub(lambda found: str(values[found[1]]).zfill(int(found[2] or 0)), template)


# The tables of tasks and episodes


def _read_texts(root: Path, name: str) -> dict[int, str]:
    """Return the texts of tasks.parquet or subtasks.parquet, by their number."""
    path = contained(root, name, path=root / INFO, where=name)
    columns = _read_all(path).to_pydict()
    number = next((c for c in columns if c.endswith("task_index")), None)
    text = next((c for c in columns if c != number), None)
    if number is None or text is None:
        raise FormatError(str(path), "task_index", "there must be a column of numbers and one of texts")
    found: dict[int, str] = {}
    for row, (index, value) in enumerate(zip(columns[number], columns[text], strict=True)):
        if not isinstance(index, int) or index in found:
            raise FormatError(str(path), f"row {row}", f"{index!r} is no new {number}")
        if not isinstance(value, str) or len(value) > MAX_TEXT:
            raise FormatError(str(path), f"row {row}", f"holds no text of up to {MAX_TEXT:,} characters")
        found[index] = value
    return found


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


def _read_table(root: Path, info: Path) -> Table:
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
    return Table(rows, _positions(rows, files), files, file_of_row, statistics)


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


def whole(row: Mapping[str, Any], column: str, table: Table) -> int:
    """Return a count out of an episode's row."""
    value = row.get(column)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 40:
        where = f"{column} of episode {row.get('episode_index')}"
        raise FormatError(str(table.files[0]), where, f"is {value!r} instead of a count")
    return value


# Rights


def _evidence(root: Path, info: Mapping[str, Any]) -> dict[str, Json]:
    """Return what the dataset says on licence, authors and consent, word for word."""
    found: dict[str, Json] = {f"{INFO}#{m}": v for m, v in telling(info).items()}
    with suppress(OSError, UnicodeDecodeError):
        path = contained(root, CARD, path=root / INFO, where=CARD)
        with path.open("rb") as file:
            front = _FRONT_MATTER.match(file.read(1 << 20).decode())
        if front and (stated := _LICENCE_LINES.findall(front[1])):
            found[CARD] = "".join(stated)
    return found


def telling(members: Mapping[str, Json]) -> dict[str, Json]:
    """Return the members whose names are about licence, authors or consent."""
    return {m: v for m, v in members.items() if _TELLING.search(m)}
