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

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

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
)
from ..schemas.episode import Fate
from ..schemas.validate import RESERVED, has_controls
from . import _lerobot_meta as meta
from . import _parquet as parquet
from ._lerobot_shared import BOOKKEEPING, MAX_SECONDS, Cuts, book_of, runs_of
from ._mp4 import Mp4Video
from .base import MAX_EPISODE_BYTES, Format, rows_in, source_file

if TYPE_CHECKING:
    import pyarrow as pa

_VERSION = "1"
"""Goes up when an episode read from the same files changes."""

_MAX_RUNS = 100_000
_TEXTS_AT_ONCE = 256

_UNDECLARED: Mapping[str, Any] = {"dtype": "", "shape": None}
_Read = Callable[[int, int], Iterator[Array]]


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
            return meta.version(meta.read_info(path)) == "3"
        except (FormatError, OSError):
            return False

    def episodes(self, path: Path) -> Iterator[Episode]:
        """Yield the episodes in order of their index; payload is read when asked for."""
        dataset = meta.Dataset.open(path)
        cuts = Cuts(dataset.table, dataset.fps)
        wanted = sorted(set(self.only)) or list(dataset.table.position)
        for index in wanted:
            if index not in dataset.table.position:
                raise NotFoundError(f"{path}: there is no episode {index}")
        for index in wanted:
            yield _Builder(dataset, cuts, index, self.block_bytes).build()


class _Builder:
    """Puts one episode together, field by field, and keeps account of them."""

    def __init__(self, dataset: meta.Dataset, cuts: Cuts, index: int, block_bytes: int) -> None:
        self.dataset, self.cuts, self.index, self.block = dataset, cuts, index, block_bytes
        self.where = f"episode {index}"
        self.row = dataset.table.row(index)
        self.length = meta.whole(self.row, "length", dataset.table)
        numbers = {n: meta.whole(self.row, f"data/{n}", dataset.table) for n in ("chunk_index", "file_index")}
        self.data = dataset.file("data_path", self.where, **numbers)
        self.book = book_of(self.data)
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
            embodiment=robot if isinstance(robot, str) and 0 < len(robot) <= meta.MAX_WORD else UNKNOWN,
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
        start, stop = (meta.whole(self.row, f"dataset_{n}_index", self.dataset.table) for n in ("from", "to"))
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
            path = str(self.dataset.root / meta.INFO)
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
        if not np.all(np.abs(seconds) < MAX_SECONDS):
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
        spans = runs_of(numbers)
        for start, _ in spans:
            if int(numbers[start]) not in tasks:
                where = f"task_index, row {self.first + start}"
                raise FormatError(str(self.data), where, f"there is no task {numbers[start]} in {meta.TASKS}")
        used = list(dict.fromkeys(int(numbers[start]) for start, _ in spans))
        told = self.row.get("tasks")
        if isinstance(told, list) and set(told) != {tasks[i] for i in used}:
            self.warnings.append("the tasks in meta/episodes are not those of the rows; the rows' were taken")
        if list(tasks) != list(range(len(tasks))):
            self.warnings.append(
                f"{meta.TASKS} is not in order; LeRobot's loader, going by rows, reads other texts"
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
        spans = runs_of(numbers)
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
        axes, attributes = meta.axes_of(feature or _UNDECLARED, shape)
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
        spec = replace(spec, attributes={"feature": meta.rest_of(feature)})
        self._compare_shape(name, feature, spec.shape)
        read = partial(parquet.pictures, self.data, name, spec, self.block, self.first)
        self._add(spec, read, f"data#{name}", f"pixels of {form} files")

    def _add_video(self, name: str, feature: Mapping[str, Any]) -> None:
        path = self.dataset.video(name, self.row)
        video = Mp4Video(path)
        self.videos.append(path)
        start, warning = self.cuts.first(name, path, video, self.row)
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
            attributes={"feature": meta.rest_of(feature), **video.attributes},
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
            self._account(f"{meta.INFO}#{member}", "kept", [*places.get(member, ()), "extra.info"])
        how = "dtype and shape as stored, names as axes, the rest as attributes of each stream"
        self._account(f"{meta.INFO}#features", "transformed", self.streams, how)
        self.extra["episode"] = {c: v for c, v in self.row.items() if meta.is_json(v)}
        for column in self.row:
            if column in self.extra["episode"]:
                self._account(f"{meta.EPISODES}#{column}", "kept", ["extra.episode"])
            else:
                self._account(f"{meta.EPISODES}#{column}", "dropped", how="its value is not JSON")
        statistics = "statistics can be computed from the data again"
        if dataset.table.statistics:
            self._account(f"{meta.EPISODES}#{meta.STATISTICS}*", "dropped", how=statistics)
        if (dataset.root / meta.STATS).exists():
            self._account(meta.STATS, "dropped", how=statistics)
        self._account(meta.TASKS, "transformed", ["instructions"], "the texts of this episode's tasks")
        if dataset.subtasks:
            self._account(meta.SUBTASKS, "transformed", ["events"], "the texts of this episode's subtasks")
        if meta.CARD in dataset.evidence:
            how = "what it says on the licence; the rest is about the whole dataset"
            self._account(meta.CARD, "transformed", ["provenance.evidence"], how, lossless=False)

    def _provenance(self) -> Provenance:
        said = meta.telling(self.extra["episode"])
        evidence = {**self.dataset.evidence, **{f"{meta.EPISODES}#{c}": v for c, v in said.items()}}
        if "apache-2.0" in str(evidence.get(meta.CARD)):
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
        metadata = [root / meta.INFO, root / meta.TASKS, described.resolve()]
        metadata += [root / meta.SUBTASKS] if self.dataset.subtasks else []
        metadata += [root / meta.CARD] if meta.CARD in self.dataset.evidence else []
        for path in metadata:
            yield source_file(path, root, "metadata")


def _recorded_times(path: Path, start: int, stop: int) -> Times:
    """Return the column ``timestamp`` as nanoseconds since the first of these rows."""
    seconds = book_of(path).columns["timestamp"][start:stop].astype(np.float64)
    times: Times = np.rint((seconds - seconds[0]) * 1e9).astype(np.int64)
    return times


def _frames(video: Mp4Video, first: int, rows: int, start: int, stop: int) -> Iterator[Array]:
    return video.frames(first + start, first + stop, rows)


def _without_controls(text: str) -> str:
    """Return a task as an instruction may be; `extra` and events keep the source's text."""
    return "".join(c for c in text if not has_controls(c))


def _is_short_json(value: object) -> bool:
    return meta.is_json(value) and not (isinstance(value, str) and len(value) > meta.MAX_TEXT)


CONVERTER = LerobotV3
