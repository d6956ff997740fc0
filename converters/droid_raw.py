"""DROID as it was recorded: ``trajectory.h5``, the cameras' MP4 files and ``metadata_*.json`` in one folder.

Field notes (github.com/droid-dataset/droid). What each dataset means is told in ``_droid.py``.

*Time.* A step takes about 67 ms and is no instant (trajectory_utils/misc.py: collect_trajectory): the state
is read, then the cameras, then the loop sleeps, and only then the command is sent. So each has a clock:
``robot_state`` (read_start), ``camera_<serial>`` (estimated_capture: when the frame was received, less 2.5
frame times), ``control`` (control_start, for commands) and ``steps`` (step_start, for the rest). All are of
one computer. The robot's own stamps (robot_timestamp_*) are of another, whose clock nobody compared; they are
kept as numbers, as are all stamps.

*Videos.* The recorder grabs a frame a step, so frame i belongs to row i where there are as many. The rate
that the MP4 tells is the camera's (60 Hz) and not that of the frames. Where a video has another number of
frames, ``<serial>_timestamps.json`` beside it tells when each was received (mp4_reader.py); else it gets a
clock of what the MP4 says, with a warning. ``<serial>.mp4`` is the left eye (svo2mp4.py),
``<serial>-stereo.mp4`` both eyes side by side; some of those lack the suffix, which a picture that is more
than three times as wide as high tells.

*Skipped steps.* Where ``skip_action`` is true the operator did not hold the enable button: the action was
computed from zeros and not sent. These steps are kept and marked by events.

*Calibration.* ``camera_extrinsics`` are poses of each eye in the robot's base frame; that of the hand camera
moves, and ``*_gripper_offset`` is where it sits on the gripper. Intrinsics stand in every row; they are told
once, as an attribute of the video, and are those of the camera's picture, which a video may have scaled.

*People.* ``user`` and ``user_id`` name persons, ``building`` and ``scene_id`` tell where they work.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..schemas import UNKNOWN, Episode, Event, FormatError, Json, SourceFile, Times
from ..schemas.episode import Outcome
from ._beside import add_video, named_members, told_name
from ._contracts import Meaning
from ._demos import own_group, spec_of
from ._draft import Draft, stream_name
from ._droid import ACTIONS, BASE, CAMERA_POSE, CAMERA_TYPES, RATE_HZ, RATE_SOURCE, STATES
from ._folder import json_members, small_json
from ._hdf5 import Field, open_hdf5
from ._hdf5_episode import Hdf5Episode
from ._hdf5_tree import Hdf5Tree
from ._mp4 import Mp4Video
from .base import Format, contained, source_file

VERSION = "1"

_VIDEO = re.compile(r"([A-Za-z0-9_]{1,60})(-stereo)?\.mp4")
_MAX_EVENTS = 100_000
_STAMPS = "observation/timestamp"
_PEOPLE = ("user", "user_id", "lab")
_NAMES = ("user", "user_id")
_STEREO_RATIO = 3
_NEEDS_SDK = (
    "Export them with the camera's SDK first (droid/postprocessing/util/svo2mp4.py), or fetch the MP4 files"
)


@dataclass(frozen=True)
class DroidRaw(Hdf5Tree):
    """Reads a folder of DROID, or all that lie below a folder.

    Attributes
    ----------
    block_bytes
        Most payload bytes in a block.
    rate_hz
        Steps per second, where the file has no stamps; None: the recorder's 15 Hz.
    """

    format: ClassVar[Format] = Format(
        name="droid-raw",
        title="DROID raw (trajectory.h5 with MP4 recordings)",
        suffixes=(".h5",),
        spec="https://github.com/droid-dataset/droid/blob/main/droid/trajectory_utils/misc.py",
    )
    file_name: ClassVar[re.Pattern[str]] = re.compile(r"trajectory\.h5")
    absent: ClassVar[tuple[str, str, str]] = (
        "trajectory.h5",
        "is nowhere in this folder",
        "Give the episode's folder",
    )
    block_bytes: int = 16 << 20
    rate_hz: float | None = None

    def probe(self, path: Path) -> bool:
        """Tell whether ``path`` is a ``trajectory.h5`` with DROID's groups, or holds one."""
        named = not path.is_file() or bool(self.file_name.fullmatch(path.name))
        return named and super().probe(path)

    def owns(self, file: Any) -> bool:
        """Tell whether an open file has DROID's groups."""
        observation = own_group(file, "observation")
        return (
            own_group(file, "action") is not None
            and observation is not None
            and own_group(observation, "robot_state") is not None
            and own_group(observation, "timestamp") is not None
        )

    def episode(self, file: Path, root: Path) -> Episode:
        """Read the episode of a file, its metadata and its videos."""
        with open_hdf5(file) as hdf5:
            draft = Draft(path=file)
            found = hdf5.fields.get("action/joint_position")
            if found is None or found.unread or not found.shape or not found.shape[0]:
                draft.refuse("action/joint_position", "is missing or empty", "Its recording was given up")
            steps = found.shape[0]
            parts = Hdf5Episode(hdf5=hdf5, draft=draft, block_bytes=self.block_bytes, steps=steps)
            episode = _Droid(parts=parts, folder=file.parent, root=root, rate_hz=self.rate_hz)
            sources = [source_file(file, root)]
            sources += episode.compose()
        return draft.build(
            self, sources, version=VERSION, embodiment=episode.embodiment(), outcome=episode.outcome()
        )


@dataclass(slots=True)
class _Droid:
    """One episode while its files are gone through."""

    parts: Hdf5Episode
    folder: Path
    root: Path
    rate_hz: float | None
    _origin: int = 0

    def compose(self) -> list[SourceFile]:
        """Place everything; return the files that were read beside ``trajectory.h5``."""
        self._clocks()
        for name in self.parts.hdf5.fields:
            self._place(name)
        sources = [*self._metadata(), *self._videos()]
        for name in sorted(self._members("camera_intrinsics") + self._members("camera_type")):
            self._calibration_without_video(name)
        self._stamps()
        self._skipped()
        self._attributes()
        self.parts.rest(lambda found: "steps" if found.shape[0] == self.parts.steps else "")
        return sources

    # Clocks

    def _clocks(self) -> None:
        wanted = {
            "steps": f"{_STAMPS}/control/step_start",
            "control": f"{_STAMPS}/control/control_start",
            "robot_state": f"{_STAMPS}/robot_state/read_start",
        }
        for name in self.parts.hdf5.fields:
            match = re.fullmatch(rf"{_STAMPS}/cameras/(\w{{1,60}})_estimated_capture", name)
            if match:
                wanted[f"camera_{match[1]}"] = name
        stamps = {clock: self._milliseconds(name) for clock, name in wanted.items()}
        known = {clock: times for clock, times in stamps.items() if times is not None}
        draft, steps = self.parts.draft, self.parts.steps
        self._origin = min((int(times[0]) for times in known.values()), default=0)
        for clock, times in known.items():
            rising = bool(np.all(np.diff(times) >= 0))
            if clock.startswith("camera_") and not rising:
                draft.warn(
                    f"{wanted[clock]} runs backwards: that camera's frames get the times of their steps"
                )
                continue
            draft.recorded(
                clock, times - self._origin, wanted[clock], declared_hz=RATE_HZ, field=wanted[clock]
            )
        if "steps" not in draft.clocks:
            rate, source = (
                (RATE_HZ, RATE_SOURCE) if self.rate_hz is None else (self.rate_hz, "option rate_hz")
            )
            draft.nominal("steps", steps, rate, source)
            draft.warn("the file tells no times of its steps: they are computed from a rate")
        draft.extra["origin"] = {"unix_ns": self._origin} if known else None

    def _milliseconds(self, name: str) -> Times | None:
        """Return stamps in milliseconds as nanoseconds, or None if there are none."""
        stamps = self.parts.whole(name)
        if stamps is None:
            return None
        draft = self.parts.draft
        if stamps.dtype.kind not in "iu" or stamps.shape != (self.parts.steps,):
            draft.refuse(name, f"is {stamps.dtype} {stamps.shape}; must be a whole number for each step")
        if int(stamps.min()) < 0 or int(stamps.max()) >= 1 << 43:
            draft.refuse(name, "holds what is no time in milliseconds")
        return stamps.astype(np.int64) * 1_000_000

    def _clock(self, wanted: str) -> str:
        return wanted if wanted in self.parts.draft.clocks else "steps"

    # Datasets

    def _place(self, name: str) -> None:
        """Give a dataset of numbers its place, if its meaning is known."""
        group, _, last = name.rpartition("/")
        if group == "action" and last in ACTIONS:
            self._keep(name, ACTIONS[last], "", "control")
        elif group == "observation/robot_state" and last in STATES:
            self._keep(name, STATES[last], "observation.", "robot_state")
        elif group == "action/robot_state" and last in STATES:
            self._keep(name, STATES[last], "extra.state_at_command.", "control")
        elif group == "observation/camera_extrinsics":
            self._extrinsics(name, last)

    def _rows(self, name: str) -> Field | None:
        found = self.parts.numbers(name)
        if found is not None and found.shape[0] != self.parts.steps:
            self.parts.draft.refuse(
                name, f"has {found.shape[0]} rows, action/joint_position {self.parts.steps}"
            )
        return found

    def _keep(self, name: str, meaning: Meaning, prefix: str, clock: str) -> None:
        found = self._rows(name)
        if found is None:
            return
        spec = meaning.spec(found, self._clock(clock))
        if not spec.axes and meaning.axes:
            self.parts.draft.warn(f"{name} has rows {found.shape[1:]}: their meaning is unknown")
        self.parts.keep(name, replace(spec, name=f"{prefix}{spec.name}"))

    def _extrinsics(self, name: str, camera: str) -> None:
        """Keep where an eye is: in the robot's base frame, or for the hand camera on the gripper as well."""
        found = self._rows(name)
        if found is None:
            return
        frame = "gripper" if camera.endswith("_gripper_offset") else BASE
        spec = replace(CAMERA_POSE, frame=frame).spec(found, self._clock("robot_state"))
        self.parts.keep(name, replace(spec, name=stream_name("observation", "camera_pose", camera)))

    def _members(self, group: str) -> list[str]:
        return [name for name in self.parts.hdf5.fields if name.startswith(f"observation/{group}/")]

    def _stamps(self) -> None:
        """Keep every stamp as the number that was written."""
        for name in self.parts.hdf5.fields:
            found = self._rows(name) if name.startswith(f"{_STAMPS}/") else None
            if found is None or name.endswith("skip_action"):
                continue
            unit = "s" if name.endswith("_seconds") else "ns" if name.endswith("_nanos") else "ms"
            spec = spec_of(found, stream_name("extra", "timestamp", *name.split("/")[2:]))
            self.parts.keep(name, replace(spec, unit=(unit,)))

    def _skipped(self) -> None:
        """Mark runs of steps whose command was not sent."""
        name = f"{_STAMPS}/skip_action"
        found = self._rows(name)
        if found is None or found.shape != (self.parts.steps,):
            return
        skipped = np.asarray(self.parts.whole(name), bool)
        edges = np.flatnonzero(np.diff(np.concatenate([[False], skipped, [False]]).astype(np.int8)))
        draft = self.parts.draft
        times = draft.clocks["steps"].read()
        last = int(times[-1]) + round(1e9 / RATE_HZ)
        text = "The operator did not hold the enable button: the commands of these steps were not sent"
        if len(edges) > 2 * _MAX_EVENTS:
            draft.refuse(name, f"changes {len(edges)} times")
        for start, stop in edges.reshape(-1, 2).tolist():
            end = int(times[stop]) if stop < len(times) else last
            draft.events.append(Event(kind="skip_action", start_ns=int(times[start]), stop_ns=end, text=text))
        self.parts.keep(name, replace(spec_of(found, "extra.skip_action"), unit=("1",)))

    # Files beside

    def _metadata(self) -> Iterator[SourceFile]:
        for name in sorted(p.name for p in self.folder.glob("metadata*.json")):
            path = contained(
                self.root, str((self.folder / name).relative_to(self.root)), path=self.folder, where=name
            )
            for _, member, value in named_members(json_members(path, 1 << 22)):
                field_name = f"metadata.{member}"
                if field_name not in self.parts.draft.extra.get("metadata", {}):
                    self._tell(field_name, value, "metadata")
            yield source_file(path, self.root, "metadata")

    def _tell(self, name: str, value: Json, home: str) -> None:
        draft = self.parts.draft
        key = re.split("[@.]", name)[-1]
        to = ["instructions"] if key == "current_task" and draft.instruct(value) else []
        if key in _PEOPLE:
            draft.evidence[name] = value
            to.append("provenance.evidence")
        if key in _NAMES and value:
            draft.warn(f"{name} names a person")
        draft.tell(name, value, home, to)

    def _attributes(self) -> None:
        for name, value in self.parts.hdf5.attributes.items():
            self.parts.placed.add(name)
            self._tell(name, value, "attributes")

    def _videos(self) -> Iterator[SourceFile]:
        names = self._files("MP4")
        cameras = {match[1] for name in names if (match := _VIDEO.fullmatch(name))}
        bare = []
        for name in self._files("SVO"):
            if name.partition(".")[0] in cameras:
                why = "the camera maker's own container; its pictures are read from the MP4 beside it"
                self.parts.draft.drop(told_name(f"recordings/SVO/{name}"), why)
            else:
                bare.append(name)
        if bare:
            self.parts.draft.refuse(
                told_name(f"recordings/SVO/{bare[0]}"),
                f"{len(bare)} recordings lie here without an MP4",
                _NEEDS_SDK,
            )
        for name in names:
            match = _VIDEO.fullmatch(name)
            if match:
                yield from self._video(name, match[1], stereo=bool(match[2]))
            elif not re.fullmatch(r"\w{1,60}_timestamps\.json", name):
                self.parts.draft.drop(
                    told_name(f"recordings/MP4/{name}"), "is not called like a camera's recording"
                )

    def _files(self, kind: str) -> list[str]:
        folder = self.folder / "recordings" / kind
        return sorted(p.name for p in folder.iterdir() if p.is_file()) if folder.is_dir() else []

    def _beside(self, name: str) -> Path:
        whole = self.folder / "recordings" / "MP4" / name
        return contained(
            self.root, str(whole.relative_to(self.root)), path=self.folder, where=f"recordings/MP4/{name}"
        )

    def _video(self, name: str, camera: str, *, stereo: bool) -> Iterator[SourceFile]:
        path = self._beside(name)
        video = Mp4Video(path)
        height, width = video.size
        suffix = "_stereo" if stereo else ""
        stream = stream_name("observation", "images", f"{camera}{suffix}")
        attributes = self._calibration(camera, stream)
        if stereo:
            attributes["view"] = "left and right eye side by side"
        elif width > _STEREO_RATIO * height:
            attributes["view"] = "probably left and right eye side by side"
            self.parts.draft.warn(
                f"recordings/MP4/{name} is {width}x{height}, as wide as two eyes, and is not called so"
            )
        else:
            attributes["view"] = "left eye"
        clock, stamped = self._video_clock(video, name, camera, suffix)
        add_video(
            self.parts.draft,
            video,
            name=stream,
            clock=clock,
            source=f"recordings/MP4/{name}",
            block_bytes=self.parts.block_bytes,
            attributes=attributes,
        )
        yield source_file(path, self.root, "video")
        if stamped is not None:
            yield source_file(stamped, self.root, "times")

    def _video_clock(self, video: Mp4Video, name: str, camera: str, suffix: str) -> tuple[str, Path | None]:
        """Return the clock of a video's frames, and the file of stamps that it comes from, if it does."""
        draft, own = self.parts.draft, f"video_{camera}{suffix}"
        beside = f"{name.removesuffix('.mp4')}_timestamps.json"
        stamped = beside in self._files("MP4")
        if len(video) == self.parts.steps:
            if stamped:
                draft.drop(f"recordings/MP4/{beside}", "not needed: trajectory.h5 tells the same times")
            return self._clock(f"camera_{camera}"), None
        if stamped:
            path = self._beside(beside)
            draft.recorded(own, self._received(path, video), beside, field=beside)
            draft.account(
                f"recordings/MP4/{beside}", "transformed", [f"clocks.{own}"], "as times since the start"
            )
            return own, path
        draft.warn(
            f"recordings/MP4/{name} has {len(video)} frames and there are {self.parts.steps} steps: nothing "
            "tells which belong together, so it keeps the times that the MP4 tells"
        )
        draft.recorded(
            own, video.times, f"recordings/MP4/{name}: presentation times", declared_hz=video.rate_hz
        )
        return own, None

    def _received(self, path: Path, video: Mp4Video) -> Times:
        """Return when each frame of a video was received, on the clock of the steps."""
        stamps = small_json(path, 1 << 24)
        whole = isinstance(stamps, list) and all(type(s) is int and 0 <= s < 1 << 43 for s in stamps)
        if not whole or len(stamps) != len(video):
            raise FormatError(str(path), "", f"is no list of {len(video)} times in milliseconds")
        times = np.array(stamps, np.int64) * 1_000_000
        return times - (self._origin or times[0])

    def _calibration(self, camera: str, stream: str) -> dict[str, Json]:
        """Return what the file tells of a camera, and account for it."""
        attributes: dict[str, Json] = {}
        for eye in ("left", "right"):
            name = f"observation/camera_intrinsics/{camera}_{eye}"
            value = self.parts.constant(name)
            if value is not None:
                attributes.setdefault("intrinsics", {})[eye] = value
                self._once(name, stream)
        name = f"observation/camera_type/{camera}"
        kind = self.parts.constant(name)
        if isinstance(kind, int):
            attributes["camera_type"] = CAMERA_TYPES.get(kind, kind)
            self._once(name, stream)
        metadata = self.parts.draft.extra.get("metadata", {})
        for role in ("wrist", "ext1", "ext2"):
            if metadata.get(f"metadata.{role}_cam_serial") == camera:
                attributes["role"] = role
        return attributes

    def _once(self, name: str, to: str) -> None:
        if name not in self.parts.placed:
            self.parts.tell_once(name, to)

    def _calibration_without_video(self, name: str) -> None:
        value = None if name in self.parts.placed else self.parts.constant(name)
        if value is not None:
            self.parts.draft.extra.setdefault("cameras", {})[name.removeprefix("observation/")] = value
            self.parts.tell_once(name, "extra.cameras")

    # The header

    def _said(self, key: str) -> Json:
        metadata: Mapping[str, Json] = self.parts.draft.extra.get("metadata", {})
        return self.parts.hdf5.attributes.get(f"@{key}", metadata.get(f"metadata.{key}"))

    def embodiment(self) -> str:
        """Return the robot, from a serial number such as ``panda-295341-1325480`` (data_collector.py)."""
        serial = self.parts.hdf5.attributes.get("@robot_serial_number")
        kind = serial.partition("-")[0] if isinstance(serial, str) else ""
        return f"droid {kind}" if re.fullmatch(r"[a-z0-9_]{1,40}", kind) else UNKNOWN

    def outcome(self) -> Outcome:
        """Return what the operator said of the episode, unless what was said contradicts itself."""
        told: dict[str, Outcome] = {}
        if self._said("success") is True:
            told["success"] = "success"
        if self._said("failure") is True:
            told["failure"] = "failure"
        places: dict[str, Outcome] = {"success": "success", "failure": "failure"}
        folders = self.folder.resolve().parts[-3:]
        told |= {f"folder {part}": places[part] for part in folders if part in places}
        if len(set(told.values())) > 1:
            self.parts.draft.warn(f"the outcome is told in two ways: {', '.join(sorted(told))}")
            return "unknown"
        return next(iter(told.values()), "unknown")


CONVERTER = DroidRaw
