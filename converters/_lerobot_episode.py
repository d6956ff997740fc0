"""An episode of a LeRobot dataset, put together field by field.

The same in the formats 2 and 3, which differ in where things lie. The field notes of the converters say what
is odd and what was chosen.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..schemas import (
    UNKNOWN,
    ActionContract,
    Array,
    Episode,
    Event,
    FormatError,
    Json,
    NotFoundError,
    Packets,
    SourceFile,
    StreamSpec,
    Times,
)
from ..schemas.episode import Fate
from ..schemas.validate import RESERVED, has_controls
from . import _lerobot_meta as meta
from . import _lerobot_modality as modality
from . import _parquet as parquet
from ._draft import Draft, Read, embodiment_of
from ._lerobot_shared import BOOKKEEPING, MAX_SECONDS, Dataset, book_of, runs_of, samples
from ._lerobot_tables import MAX_TEXT, where_of
from ._mp4 import Mp4Video
from .base import rows_in, source_file, version_of

if TYPE_CHECKING:
    import pyarrow as pa

_MAX_RUNS = 100_000
_TEXTS_AT_ONCE = 256

_UNDECLARED: Mapping[str, Any] = {"dtype": "", "shape": None}


def episodes_of(dataset: Dataset, converter: Any, version: str) -> Iterator[Episode]:
    """Yield the episodes that the option ``only`` lists, all if it is empty, in order of the index."""
    known = dataset.table.position
    wanted = sorted(set(converter.only)) or list(known)
    for index in wanted:
        if index not in known:
            raise NotFoundError(f"{dataset.info.root}: there is no episode {index}")
    for index in wanted:
        yield _Builder(dataset, index, converter.block_bytes).build(converter, version)


class _Builder:
    """Puts one episode together, field by field, and keeps account of them."""

    def __init__(self, dataset: Dataset, index: int, block_bytes: int) -> None:
        self.dataset, self.index, self.block = dataset, index, block_bytes
        self.info = dataset.info
        self.row = dataset.table.row(index)
        self.where = where_of(self.row)
        self.length = dataset.length(self.row)
        self.data = dataset.data(self.row)
        self.book = book_of(self.data)
        self.first, self.last = dataset.rows(self.row, self.data, self.book)
        self.draft = Draft(self.info.path, self.where)
        self.videos: list[Path] = []
        self._add_clock()
        self.clock = self.draft.clocks["steps"]
        self.times = self.clock.read()

    def build(self, converter: Any, version: str) -> Episode:
        """Return the episode."""
        self._add_bookkeeping()
        self._add_tasks()
        self._add_features()
        self._add_meta()
        self._add_evidence()
        return self.draft.build(
            converter,
            list(self._sources()),
            version=version,
            selector=f"episode_index={self.index}",
            embodiment=embodiment_of(self.info.members.get("robot_type")),
        )

    def _column(self, name: str) -> Array:
        return self.book.columns[name][self.first : self.last]

    def _add(self, spec: StreamSpec, read: Read, source: str, how: str = "", **more: Any) -> str:
        fate: Fate = "kept" if source.endswith(f"#{spec.name}") else "renamed"
        return self.draft.add(spec, self.length, read, source=source, how=how, fate=fate, **more)

    # Time, and the columns that LeRobot adds

    def _add_clock(self) -> None:
        seconds, fps = self._column("timestamp"), self.info.fps
        # As the recorder computes it: a Python float, stored as float32 (add_frame in lerobot_dataset.py).
        computed = (np.arange(self.length) / fps).astype(seconds.dtype)
        if np.array_equal(seconds, computed):
            source = "fps of info.json; the column timestamp is frame_index / fps"
            self.draft.nominal("steps", self.length, fps, source)
            return
        if not np.all(np.abs(seconds) < MAX_SECONDS):
            raise FormatError(str(self.data), f"timestamp, {self.where}", "holds what is no time")
        if np.any(np.diff(seconds) < 0):
            at = self.first + 1 + int(np.flatnonzero(np.diff(seconds) < 0)[0])
            raise FormatError(str(self.data), f"timestamp, row {at}", "time runs backwards")
        since = seconds.astype(np.float64) - float(seconds[0])
        times: Times = np.rint(since * 1e9).astype(np.int64)
        source = "the column timestamp, which is not frame_index / fps"
        self.draft.recorded("steps", times, source, declared_hz=fps)

    def _add_bookkeeping(self) -> None:
        self.draft.account(
            "data#episode_index", "transformed", ["provenance.selector"], "one number for all rows"
        )
        numbers = np.arange(self.length)
        for name, expected, to, how in (
            ("frame_index", numbers, "clocks.steps", "the sample's number"),
            ("index", *self._expected_index(numbers)),
        ):
            if name not in self.book.columns:
                continue
            if np.array_equal(self._column(name), expected):
                self.draft.account(f"data#{name}", "transformed", [to], how)
            else:
                self._add_column(name, self.book.columns[name].dtype.name, ())
                self.draft.warn(f"the column {name} is not {how}; it is kept as a stream")
        if self.clock.kind == "nominal":
            how = "frame_index / fps as float32, so the clock is nominal"
            self.draft.account("data#timestamp", "transformed", ["clocks.steps"], how)
        else:
            self._add_column("timestamp", self.book.columns["timestamp"].dtype.name, (), unit="s", frame=None)

    def _expected_index(self, numbers: Array) -> tuple[Array, str, str]:
        """Return what the column `index` should hold, where that is kept, and how it is told."""
        first = self.dataset.first_index(self.row)
        if first is not None:
            return numbers + first, "extra.episode", "dataset_from_index and up"
        if "index" in self.book.columns:
            self.draft.extra["first_index"] = int(self._column("index")[0])
        return numbers + self.draft.extra.get("first_index", 0), "extra.first_index", "its first value and up"

    def _add_tasks(self) -> None:
        numbers, tasks = self._column("task_index"), self.dataset.tasks
        spans = runs_of(numbers)
        for start, _ in spans:
            if int(numbers[start]) not in tasks:
                where = f"task_index, row {self.first + start}"
                why = f"there is no task {numbers[start]} in {self.dataset.tasks_name}"
                raise FormatError(str(self.data), where, why)
        used = list(dict.fromkeys(int(numbers[start]) for start, _ in spans))
        told = self.row.get("tasks")
        if isinstance(told, list) and {*map(str, told)} != {tasks[i] for i in used}:
            self.draft.warn("the tasks in meta/episodes are not those of the rows; the rows' were taken")
        if self.dataset.by_row and list(tasks) != list(range(len(tasks))):
            self.draft.warn(
                f"{self.dataset.tasks_name} is not in order; "
                "LeRobot's loader, going by rows, reads other texts"
            )
        if len(spans) > 1:
            self._add_runs("instruction", "task_index", numbers, tasks)
            self.draft.account(
                "data#task_index", "transformed", ["instructions", "events"], "an event for each run"
            )
        else:
            self.draft.extra["task_index"] = used[0]
            self.draft.account(
                "data#task_index", "transformed", ["instructions", "extra.task_index"], "its text"
            )
        self.draft.instructions += filter(None, dict.fromkeys(_without_controls(tasks[i]) for i in used))

    def _add_runs(self, kind: str, column: str, numbers: Array, texts: Mapping[int, str]) -> None:
        spans = runs_of(numbers)
        if len(spans) > _MAX_RUNS:
            where = f"{column}, {self.where}"
            raise FormatError(str(self.data), where, f"changes more than {_MAX_RUNS:,} times")
        for start, stop in spans:
            index = int(numbers[start])
            self._add_event(kind, start, stop, texts.get(index, ""), {column: index})

    def _add_event(self, kind: str, start: int, stop: int, text: str, attributes: Mapping[str, Json]) -> None:
        after = int(self.times[-1]) + round(1e9 / self.info.fps)
        self.draft.events.append(
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
        schema, per_row = self.book.schema, self.book.per_row
        for name in dict.fromkeys([*self.info.features, *schema.names]):
            feature = self.info.features.get(name, _UNDECLARED)
            if name in BOOKKEEPING:
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
            self.draft.warn(f"the column {name!r} is not declared in info.json")
        inner, lengths = parquet.unnested(kind)
        dtype = parquet.numpy_name(inner)
        if not lengths and parquet.holds_files(inner):
            self._add_images(name, feature)
        elif dtype is None:
            self._add_values(name, kind)
        elif (shape := self._shape(name, feature, lengths, per_row)) is None:
            self.draft.account(
                f"data#{name}", "dropped", how="not declared in info.json, and of no fixed shape"
            )
        else:
            if feature["dtype"] not in {"", dtype}:
                self.draft.warn(f"{name} holds {dtype}; info.json declares {feature['dtype']!r}")
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
        new = _stream_name(name)
        axes, attributes = meta.axes_of(feature or _UNDECLARED, shape)
        slices = self._slices(name, shape)
        if slices:
            attributes["modality"] = {part.where: dict(part.told) for part in slices}
        command = new == "action" or new.startswith("action.")
        spec = StreamSpec(
            name=new,
            kind="low_dim",
            dtype=dtype,
            shape=shape,
            unit=(unit,),
            frame=frame,
            axes=axes or modality.axes_of(slices, math.prod(shape)) if shape else axes,
            contract=_contract(slices) if command else None,
            attributes=attributes,
        )
        read = partial(samples, self.data, name, spec, self.block, self.first)
        new = self._add(spec, read, f"data#{name}")
        if name == "subtask_index" and self.dataset.subtasks and not shape:
            self._add_runs("subtask", name, self.draft.streams[new].values(), self.dataset.subtasks)
        told = self.dataset.modality
        if told and name in told.annotations and not shape and np.issubdtype(spec.np_dtype, np.integer):
            self._add_runs(name, name, self.draft.streams[new].values(), self.dataset.tasks)

    def _add_images(self, name: str, feature: Mapping[str, Any]) -> None:
        spec, form = parquet.picture_spec(self.data, name, self.first, _stream_name(name))
        spec = replace(spec, attributes={"feature": meta.rest_of(feature)})
        self._compare_shape(name, feature, spec.shape)
        read = partial(parquet.pictures, self.data, name, spec, self.block, self.first)
        self._add(spec, read, f"data#{name}", f"pixels of {form} files")

    def _add_video(self, name: str, feature: Mapping[str, Any]) -> None:
        video, start, warning = self.dataset.video(name, self.row)
        self.videos.append(video.path)
        if warning:
            self.draft.warn(f"{name}: {warning}")
        grey = video.pixel_format.startswith("gray")
        deep = grey and video.pixel_format != "gray"
        spec = StreamSpec(
            name=_stream_name(name),
            kind="depth" if deep else "video",
            dtype="uint16" if deep else "uint8",
            shape=video.size if deep else (*video.size, 1 if grey else 3),
            description="Codes, not distances; attributes.feature tells their range." if deep else "",
            attributes={"feature": meta.rest_of(feature), **video.attributes, **self._video_modality(name)},
        )
        self._compare_shape(name, feature, spec.shape)
        stop = start + self.length
        form = None if deep else video.format
        packets = Packets(format=form, blocks=partial(video.blocks, start, stop)) if form else None
        how = f"{'packets' if form else 'decoded pictures'} [{start}, {stop}) of the file"
        read = partial(_frames, video, start, rows_in(self.block, spec))
        self._add(spec, read, f"videos#{name}", how, packets=packets)
        if video.audio:
            self.draft.account(
                f"videos#{name}/audio", "dropped", how="sound is not read, and may be of people"
            )

    def _compare_shape(self, name: str, feature: Mapping[str, Any], shape: tuple[int, ...]) -> None:
        # In any order, since some datasets put the channels first.
        if feature["shape"] is not None and sorted(feature["shape"]) != sorted([*shape, 1][:3]):
            told = f"info.json declares {feature['shape']}"
            self.draft.warn(f"{name} holds pictures of {list(shape)}; {told}")

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
                    self.draft.account(f"data#{name}", "dropped", how=how)
                    return
        for start, stop, value in runs:
            if isinstance(value, str):
                self._add_event(name, start, stop, value, {})
            elif value not in (None, [], {}):
                self._add_event(name, start, stop, "", {"value": value})
        how = "an event for each run of rows with one value, none where there is no value"
        self.draft.account(f"data#{name}", "transformed", ["events"], how)

    # GR00T's modality.json

    def _slices(self, column: str, shape: tuple[int, ...]) -> tuple[modality.Slice, ...]:
        """Return the named slices of a column; those of one of several dimensions are refused."""
        told = self.dataset.modality
        return told.of(column, math.prod(shape) if len(shape) < 2 else 0) if told else ()

    def _video_modality(self, column: str) -> dict[str, Json]:
        told = self.dataset.modality
        return {"modality": {f"video.{told.videos[column]}": {}}} if told and column in told.videos else {}

    def _add_modality(self) -> None:
        told = self.dataset.modality
        if told is None:
            return
        self.draft.extra["modality"] = dict(told.members)
        for column in [*told.slices, *told.videos, *sorted(told.annotations)]:
            if column not in {*self.info.features, *self.book.columns} and column not in self.draft.streams:
                self.draft.warn(f"{modality.MODALITY} tells of {column!r}, which the dataset does not have")
        for section in told.members:
            named = [
                n for n, s in self.draft.streams.items() if _names(s.spec.attributes.get("modality"), section)
            ]
            self.draft.account(f"{modality.MODALITY}#{section}", "kept", ["extra.modality", *named])

    # What is told outside of the data

    def _add_meta(self) -> None:
        dataset = self.dataset
        self.draft.extra["info"] = {m: v for m, v in dataset.info.members.items() if m != "features"}
        places = {"fps": ["clocks.steps"], "robot_type": ["embodiment"]}
        for member in self.draft.extra["info"]:
            self.draft.account(f"{meta.INFO}#{member}", "kept", [*places.get(member, ()), "extra.info"])
        how = "dtype and shape as stored, names as axes, the rest as attributes of each stream"
        self.draft.account(f"{meta.INFO}#features", "transformed", self.draft.streams, how)
        self.draft.extra["episode"] = {c: v for c, v in self.row.items() if meta.is_json(v)}
        for column in self.row:
            if column in self.draft.extra["episode"]:
                self.draft.account(f"{self.dataset.episodes_name}#{column}", "kept", ["extra.episode"])
            else:
                self.draft.account(
                    f"{self.dataset.episodes_name}#{column}", "dropped", how="its value is not JSON"
                )
        statistics = "statistics can be computed from the data again"
        for source in dataset.statistics:
            self.draft.account(source, "dropped", how=statistics)
        how = "the texts of this episode's tasks"
        self.draft.account(dataset.tasks_name, "transformed", ["instructions"], how)
        if dataset.subtasks:
            how = "the texts of this episode's subtasks"
            self.draft.account(dataset.subtasks_name, "transformed", ["events"], how)
        self._add_modality()
        if meta.CARD in self.info.evidence:
            how = "what it says on the licence; the rest is about the whole dataset"
            self.draft.account(meta.CARD, "transformed", ["provenance.evidence"], how, lossless=False)

    def _add_evidence(self) -> None:
        said = meta.telling(self.draft.extra["episode"])
        evidence = {**self.info.evidence, **{f"{self.dataset.episodes_name}#{c}": v for c, v in said.items()}}
        if "apache-2.0" in str(evidence.get(meta.CARD)):
            self.draft.warn("LeRobot writes apache-2.0 into a dataset's card where nobody chose a licence")
        self.draft.evidence |= evidence

    def _sources(self) -> Iterator[SourceFile]:
        dataset, root = self.dataset, self.info.home
        yield _source(*version_of(self.data), root, "recording")
        for video in dict.fromkeys(self.videos):
            yield _source(*version_of(video), root, "video")
        described = dataset.table.file_of(self.index).resolve()
        metadata = [root / meta.INFO, root / dataset.tasks_name, described]
        metadata += [root / dataset.subtasks_name] if dataset.subtasks else []
        metadata += [root / modality.MODALITY] if dataset.modality else []
        metadata += [root / meta.CARD] if meta.CARD in self.info.evidence else []
        for path in metadata:
            yield _source(*version_of(path), root, "metadata")


@lru_cache(maxsize=64)
def _source(path: Path, _size: int, _mtime_ns: int, _inode: int, root: Path, role: str) -> SourceFile:
    """Return the record of a file, looked up once per version of it, since episodes share most of them."""
    return source_file(path, root, role)


def _stream_name(name: str) -> str:
    """Return a name that a stream may have."""
    clean = re.sub(r"[^A-Za-z0-9_@+.-]|^\.|\.$|\.(?=\.)", "_", name)
    return f"source.{clean}" if clean in RESERVED else clean


def _frames(video: Mp4Video, first: int, rows: int, start: int, stop: int) -> Iterator[Array]:
    return video.frames(first + start, first + stop, rows)


def _contract(slices: tuple[modality.Slice, ...]) -> ActionContract:
    if slices:
        return modality.contract_of(slices)
    return ActionContract(evidence="LeRobot does not tell what an action means")


def _names(told: Json, section: str) -> bool:
    """Tell whether a stream's attribute ``modality`` is from a section of the file."""
    return isinstance(told, dict) and any(where.startswith(f"{section}.") for where in told)


def _without_controls(text: str) -> str:
    """Return a task as an instruction may be; `extra` and events keep the source's text."""
    return "".join(c for c in text if not has_controls(c)) if has_controls(text) else text


def _is_short_json(value: object) -> bool:
    return meta.is_json(value) and not (isinstance(value, str) and len(value) > MAX_TEXT)
