"""AgiBot World, Alpha and Beta: ``task_info``, ``observations``, ``proprio_stats`` and ``parameters``.

Field notes. The recorder is not public; the card and those who convert the data tell the layout
(``_agibot.py``; Tavish9/any4lerobot: agibot2lerobot/agibot_utils). An episode is spread over four trees by
task and number.

*Time.* ``timestamp`` of ``proprio_stats.h5`` has a stamp in nanoseconds for each row; states, most actions,
videos and depth have a sample for each of them.

*Actions.* ``action/<part>/index`` lists the rows in which the control source was really sending. Most arrays
have all rows all the same. One that has as many rows as its index holds the commands of those rows and gets a
clock of their times, ``action_<part>``; ``end`` often lacks its index and shares that of ``joint``. An array
that is longer than the states, or shorter without an index that fits, gets a clock of its own with nominal
times, and a warning: nothing tells which rows belong together. Many arrays are empty.

*Quaternions* are xyzw, but wxyz in AgiBotDigitalWorld, the simulated twin, whose 34 joints tell it.

*Grippers.* States are the opening in millimetres, commands 0 open to 1 closed.

*Depth* is PNG of 16 bits in millimetres, a file a frame, numbered like the rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ..schemas import (
    UNKNOWN,
    Array,
    Episode,
    Event,
    FormatError,
    Json,
    SourceFile,
    StreamSpec,
)
from ..schemas.validate import has_controls
from ._agibot import RATE_HZ, RATE_SOURCE, meaning_of
from ._beside import add_video, named_members, told_name
from ._contracts import Meaning
from ._demos import spec_of
from ._draft import Draft, stream_name
from ._folder import files_source, small_json
from ._hdf5 import Field, open_hdf5
from ._hdf5_episode import Hdf5Episode
from ._mp4 import Mp4Video
from ._picture_files import read_files, shown_in
from .base import Format, contained, rows_in, source_file

VERSION = "1"

_STATS = "proprio_stats.h5"
_TASK = re.compile(r"task_(\d{1,12})\.json")
_NUMBER = re.compile(r"\d{1,15}")
_VIDEO = re.compile(r"([A-Za-z0-9_]{1,80})\.mp4")
_DEPTH = re.compile(r"([A-Za-z0-9_]{1,60})_(\d{1,9})\.png")
_CAMERA = re.compile(r"([A-Za-z0-9_]{1,60})_(intrinsic|extrinsic)_params(_aligned)?\.json")
_MAX_EPISODES = 1_000_000
_MAX_FRAMES = 1_000_000
_MAX_SEGMENTS = 10_000
_MAX_TEXT = 100_000
_LIFT_LIMIT_M = 2.0


@dataclass(frozen=True)
class AgibotWorld:
    """Reads a folder of AgiBot World: that which holds ``task_info`` and ``proprio_stats``.

    Attributes
    ----------
    block_bytes
        Most payload bytes in a block.
    rate_hz
        Rate of arrays that no stamps belong to; None: 30 Hz.
    """

    format: ClassVar[Format] = Format(
        name="agibot-world",
        title="AgiBot World (Alpha, Beta)",
        spec="https://huggingface.co/datasets/agibot-world/AgiBotWorld-Beta",
    )
    block_bytes: int = 16 << 20
    rate_hz: float | None = None

    def probe(self, path: Path) -> bool:
        """Tell whether ``path`` has the folders of AgiBot World and a task in them."""
        try:
            if not (path / "proprio_stats").is_dir() or not (path / "task_info").is_dir():
                return False
            return any(_TASK.fullmatch(p.name) for p in (path / "task_info").iterdir())
        except OSError:
            return False

    def episodes(self, path: Path) -> Iterator[Episode]:
        """Yield the episodes that have a ``proprio_stats.h5``, by task and number."""
        root = path.resolve()
        tasks = _numbered(root / "proprio_stats")
        if not tasks:
            raise FormatError(str(path), "proprio_stats", "holds no task", "Unpack proprio_stats.tar there")
        for task in tasks:
            listed = _listed(root, task)
            here = _numbered(root / "proprio_stats" / task)
            absent = len(set(listed) - set(here))
            for number in here:
                if (root / "proprio_stats" / task / number / _STATS).is_file():
                    yield self._episode(root, task, number, listed.get(number), absent)

    def _episode(
        self, root: Path, task: str, number: str, info: Mapping[str, Json] | None, absent: int
    ) -> Episode:
        file = _inside(root, f"proprio_stats/{task}/{number}/{_STATS}")
        with open_hdf5(file) as hdf5:
            draft = Draft(path=file)
            stamps = hdf5.fields.get("timestamp")
            steps = stamps.shape[0] if stamps and stamps.shape else 0
            if not steps:
                draft.refuse("timestamp", "is missing or empty: nothing tells how many rows there are")
            parts = Hdf5Episode(hdf5=hdf5, draft=draft, block_bytes=self.block_bytes, steps=steps)
            episode = _Agibot(parts=parts, root=root, place=f"{task}/{number}", rate_hz=self.rate_hz)
            sources = [source_file(file, root), *episode.compose(info)]
        if absent:
            draft.warn(f"task_info/task_{task}.json lists {absent} episodes that are not here")
        if info is not None:
            sources.append(source_file(_inside(root, f"task_info/task_{task}.json"), root, "metadata"))
        simulated = episode.simulated
        return draft.build(
            self,
            sources,
            version=VERSION,
            selector=f"{task}/{number}",
            embodiment="agibot g1, simulated" if simulated else "agibot g1",
        )


def _inside(root: Path, name: str) -> Path:
    return contained(root, name, path=root, where=name)


def _numbered(folder: Path) -> list[str]:
    """Return the names of a folder's folders that are numbers, in their order."""
    names = [p.name for p in folder.iterdir() if _NUMBER.fullmatch(p.name)] if folder.is_dir() else []
    return sorted(names, key=int)


def _listed(root: Path, task: str) -> dict[str, Mapping[str, Json]]:
    """Return what ``task_info`` tells of a task's episodes, by number; empty if there is no such file."""
    path = root / "task_info" / f"task_{task}.json"
    if not path.is_file():
        return {}
    path = _inside(root, f"task_info/{path.name}")
    document = small_json(path)
    if not isinstance(document, list) or len(document) > _MAX_EPISODES:
        raise FormatError(str(path), "", "is no list of episodes")
    listed: dict[str, Mapping[str, Json]] = {}
    for i, info in enumerate(document):
        number = info.get("episode_id") if isinstance(info, dict) else None
        if not isinstance(number, int | str) or not _NUMBER.fullmatch(str(number)):
            raise FormatError(str(path), f"[{i}].episode_id", "is no number of an episode")
        listed.setdefault(str(number), info)
    return listed


@dataclass(slots=True)
class _Agibot:
    """One episode while its files are gone through."""

    parts: Hdf5Episode
    root: Path
    place: str
    rate_hz: float | None
    simulated: bool = False
    cameras: dict[str, dict[str, Json]] = field(default_factory=dict)

    def compose(self, info: Mapping[str, Json] | None) -> list[SourceFile]:
        """Place everything; return the files that were read beside ``proprio_stats.h5``."""
        joints = self.parts.numbers("state/joint/position")
        self.simulated = joints is not None and joints.shape[1:] == (34,)
        self._steps()
        for name in self.parts.hdf5.fields:
            self._place(name)
        self._tell_task(info)
        sources = [*self._parameters(), *self._videos(), *self._depths()]
        self.parts.rest(self._clock_of)
        return sources

    # Clocks

    def _steps(self) -> None:
        draft = self.parts.draft
        stamps = self.parts.whole("timestamp")
        if stamps is None or stamps.ndim != 1 or stamps.dtype.kind not in "iu":
            self._nominal("steps", self.parts.steps)
            draft.warn("timestamp holds no whole nanoseconds: times come from a nominal rate")
            return
        if int(stamps.max()) >= 1 << 62 or int(stamps.min()) < 0:
            draft.refuse("timestamp", "holds what is no time in nanoseconds")
        times = stamps.astype(np.int64)
        draft.recorded("steps", times - times[0], "timestamp", declared_hz=RATE_HZ, field="timestamp")
        draft.extra["origin"] = {"timestamp_ns": int(times[0])}
        self.parts.placed.add("timestamp")
        draft.account(
            "timestamp", "transformed", ["clocks.steps", "extra.origin"], "as times since the first"
        )

    def _nominal(self, name: str, length: int) -> None:
        rate, source = (RATE_HZ, RATE_SOURCE) if self.rate_hz is None else (self.rate_hz, "option rate_hz")
        self.parts.draft.nominal(name, length, rate, source)

    def _own(self, source: str, length: int, why: str) -> str:
        """Return a clock of its own for samples that nothing ties to the steps."""
        name = stream_name(source.replace("/", "_"))
        self._nominal(name, length)
        self.parts.draft.warn(f"{source} has {length} samples for {self.parts.steps} rows: {why}")
        return name

    def _clock_of(self, found: Field) -> str:
        """Return the clock of a dataset's rows."""
        rows, name = found.shape[0], found.name
        if rows == self.parts.steps:
            return "steps"
        if name.startswith("action/") and rows < self.parts.steps:
            part = name.split("/")[1]
            for owner in (part, "joint") if part == "end" else (part,):
                if self._indexed(owner, rows):
                    return f"action_{owner}"
        return self._own(name, rows, "nothing tells which belong together, so they keep a clock of their own")

    def _indexed(self, part: str, rows: int) -> bool:
        """Tell whether a part's index has this many rows; make its clock if it has none."""
        draft, clock = self.parts.draft, f"action_{part}"
        if clock in draft.clocks:
            return draft.clocks[clock].length == rows
        name = f"action/{part}/index"
        found = self.parts.numbers(name)
        if found is None or found.shape != (rows,) or found.dtype.kind not in "iu":
            return False
        index = np.asarray(self.parts.whole(name))
        if (
            int(index.min()) < 0
            or int(index.max()) >= self.parts.steps
            or np.any(np.diff(index.astype(np.int64)) <= 0)
        ):
            draft.warn(f"{name} is no rising list of rows: it is not used")
            return False
        times = draft.clocks["steps"].read()[index]
        draft.recorded(clock, times, f"timestamp of the rows in {name}")
        return True

    # Datasets

    def _place(self, name: str) -> None:
        found = self.parts.numbers(name)
        if found is None or name == "timestamp":
            return
        if re.fullmatch(r"action/\w+/index", name):
            stream = stream_name("extra", *name.split("/"))
            self.parts.keep(name, spec_of(found, stream, clock=self._clock_of(found)))
            return
        meaning = meaning_of(name, found.shape[1:], simulated=self.simulated)
        if meaning is None:
            return
        self.parts.keep(name, meaning.spec(found, self._clock_of(found)))
        if name == "state/waist/position":
            self._check_lift(name, meaning)

    def _check_lift(self, name: str, meaning: Meaning) -> None:
        values = self.parts.whole(name)
        if (
            values is not None
            and meaning.axes[-1] == "lift"
            and np.nanmax(np.abs(values[:, -1])) > _LIFT_LIMIT_M
        ):
            most = float(np.nanmax(np.abs(values[:, -1])))
            self.parts.draft.warn(f"{name}: lift reaches {most:.4g}, which are no metres as the card says")

    # What the operator did

    def _tell_task(self, info: Mapping[str, Json] | None) -> None:
        draft = self.parts.draft
        if info is None:
            draft.warn("task_info tells nothing of this episode")
            return
        for key, name, value in named_members(info):
            to = ["instructions"] if key == "task_name" and draft.instruct(value) else []
            if key == "label_info" and self._phases(value):
                to.append("events")
            draft.tell(f"task_info.{name}", value, "task_info", to)

    def _phases(self, labels: Json) -> bool:
        """Make an event of each segment; its frames are rows of the clock ``steps``."""
        segments = labels.get("action_config") if isinstance(labels, dict) else None
        if not isinstance(segments, list) or len(segments) > _MAX_SEGMENTS:
            return False
        draft = self.parts.draft
        times = draft.clocks["steps"].read()
        ends = np.append(times, times[-1] + (int(np.median(np.diff(times))) if len(times) > 1 else 0))
        made = len(draft.events)
        for i, segment in enumerate(segments):
            told = segment if isinstance(segment, dict) else {}
            span, text = _span(told, self.parts.steps), told.get("action_text")
            if span is None or not isinstance(text, str) or len(text) > _MAX_TEXT or has_controls(text):
                draft.warn(
                    f"task_info: action_config[{i}] is no segment of {self.parts.steps} rows: not an event"
                )
                continue
            rest = {key: value for key, value in told.items() if key != "action_text"}
            draft.events.append(
                Event(
                    kind="phase",
                    start_ns=int(ends[span[0]]),
                    stop_ns=int(ends[span[1]]),
                    text=text,
                    attributes=rest,
                )
            )
        return len(draft.events) > made

    # Files beside

    def _files(self, *folders: str) -> Iterator[tuple[str, Path]]:
        """Yield the files of an episode's folder by their names below the root."""
        for folder in folders:
            if (self.root / folder).is_dir():
                for name in sorted(p.name for p in (self.root / folder).iterdir() if p.is_file()):
                    yield f"{folder}/{name}", _inside(self.root, f"{folder}/{name}")

    def _parameters(self) -> Iterator[SourceFile]:
        base = f"parameters/{self.place}"
        for name, path in self._files(f"{base}/camera", f"{base}/parameters/camera"):
            match = _CAMERA.fullmatch(path.name)
            if not match:
                self.parts.draft.drop(told_name(name), "is not called like a camera's parameters")
                continue
            document = small_json(path)
            if match[2] == "extrinsic" and isinstance(document, list) and len(document) > 1:
                self._extrinsics(name, match[1], document)
            else:
                self.cameras.setdefault(match[1], {})[f"{match[2]}{match[3] or ''}"] = document
                self.parts.draft.tell(name, document, "parameters")
            yield source_file(path, self.root, "parameters")

    def _extrinsics(self, name: str, camera: str, document: list[Json]) -> None:
        """Keep a camera's pose for each frame: rotation matrix, and translation as a fourth column."""
        if len(document) > _MAX_FRAMES:
            self.parts.draft.refuse(name, f"lists {len(document)} frames")
        try:
            matrices = np.array([_matrix(frame) for frame in document], np.float64)
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(
                str(self.root / name), "", f"is no list of extrinsic parameters: {error}"
            ) from error
        rows = len(matrices)
        clock = "steps" if rows == self.parts.steps else self._own(name, rows, "it keeps a clock of its own")
        spec = StreamSpec(
            name=stream_name("observation", "camera_extrinsics", camera),
            kind="low_dim",
            dtype="float64",
            shape=(3, 4),
            frame=UNKNOWN,
            clock=clock,
            description="Rotation matrix, and the translation in m as its fourth column.",
        )
        how = "rotation_matrix and translation_vector side by side"
        read = partial(_slices, matrices, rows_in(self.parts.block_bytes, spec))
        self.parts.draft.add(spec, rows, read, source=name, how=how)

    def _videos(self) -> Iterator[SourceFile]:
        base = f"observations/{self.place}"
        for name, path in self._files(f"{base}/videos", f"{base}/tactile"):
            match = _VIDEO.fullmatch(path.name)
            if not match:
                self.parts.draft.drop(told_name(name), "is not called like a camera's video")
                continue
            camera = match[1].removesuffix("_color")
            tactile = name.startswith(f"{base}/tactile/")
            video = Mp4Video(path)
            add_video(
                self.parts.draft,
                video,
                name=stream_name("observation", "images", f"tactile_{camera}" if tactile else camera),
                clock=self._video_clock(name, video),
                source=name,
                block_bytes=self.parts.block_bytes,
                attributes=self.cameras.get(camera, {}),
                description="Pictures of a tactile sensor." if tactile else "",
            )
            yield source_file(path, self.root, "video")

    def _video_clock(self, name: str, video: Mp4Video) -> str:
        if len(video) == self.parts.steps:
            return "steps"
        clock = stream_name(name.replace("/", "_").removesuffix(".mp4"))
        self.parts.draft.recorded(
            clock, video.times, f"{name}: presentation times", declared_hz=video.rate_hz
        )
        self.parts.draft.warn(
            f"{name} has {len(video)} frames for {self.parts.steps} rows: it keeps the times of the MP4"
        )
        return clock

    def _depths(self) -> Iterator[SourceFile]:
        folder = f"observations/{self.place}/depth"
        cameras: dict[str, dict[int, Path]] = {}
        for name, path in self._files(folder):
            match = _DEPTH.fullmatch(path.name)
            if not match or int(match[2]) in cameras.get(match[1], {}):
                self.parts.draft.drop(told_name(name), "is not called like a frame of depth")
                continue
            cameras.setdefault(match[1], {})[int(match[2])] = path
        for camera, frames in sorted(cameras.items()):
            yield self._depth(f"{folder}/{camera}_*.png", camera, dict(sorted(frames.items())))

    def _depth(self, name: str, camera: str, frames: dict[int, Path]) -> SourceFile:
        files = tuple(frames.values())
        first = shown_in(files[0], "png", "depth")
        camera = camera.removesuffix("_depth")
        spec = StreamSpec(
            name=stream_name("observation", "depth", camera),
            kind="depth",
            dtype=first.dtype,
            shape=first.shape,
            unit=("mm",),
            clock=self._depth_clock(name, frames),
            attributes=self.cameras.get(camera, {}),
        )
        read = partial(read_files, files, first, rows_in(self.parts.block_bytes, spec))
        self.parts.draft.add(spec, len(files), read, source=name, how="PNG files, decoded")
        return files_source(files, name, "depth")

    def _depth_clock(self, name: str, frames: Mapping[int, Path]) -> str:
        """Return the clock of frames, whose numbers are rows."""
        steps, numbers = self.parts.steps, np.array(list(frames), np.int64)
        if np.array_equal(numbers, np.arange(steps)):
            return "steps"
        if int(numbers[-1]) >= steps:
            return self._own(
                name, len(numbers), "they are numbered beyond the rows, so they keep their own clock"
            )
        clock = stream_name("depth", name.rpartition("/")[2].removesuffix("_*.png")).replace(".", "_")
        times = self.parts.draft.clocks["steps"].read()[numbers]
        self.parts.draft.recorded(clock, times, "timestamp of the rows that the files are numbered by")
        self.parts.draft.warn(f"{name} are {len(numbers)} files for {steps} rows")
        return clock


def _span(segment: Mapping[str, Json], rows: int) -> tuple[int, int] | None:
    """Return the rows ``[start, stop)`` of a segment, or None if it tells none that there are."""
    start, stop = segment.get("start_frame"), segment.get("end_frame")
    if type(start) is not int or type(stop) is not int or not 0 <= start <= stop <= rows:
        return None
    return start, stop


def _matrix(frame: Json) -> list[list[float]]:
    told = frame["extrinsic"]
    rotation, shift = told["rotation_matrix"], told["translation_vector"]
    matrix = [[*map(float, row), float(at)] for row, at in zip(rotation, shift, strict=True)]
    if len(matrix) != 3 or any(len(row) != 4 for row in matrix):
        raise ValueError("a matrix is not of three by three")
    return matrix


def _slices(values: NDArray[np.float64], rows: int, start: int, stop: int) -> Iterator[Array]:
    stop = min(stop, len(values))
    for first in range(start, stop, rows):
        yield values[first : min(first + rows, stop)]


CONVERTER = AgibotWorld
