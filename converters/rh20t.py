"""RH20T: scenes of a robot, or of a hand, watched by up to ten cameras.

Field notes (github.com/rh20t/rh20t_api: rh20t_api/scene.py, rh20t_api/extract.py, README.md). A scene is a
folder ``task_0001_user_0001_scene_0001_cfg_0003``, with ``_human`` behind it if a person shows the task; cfg
tells which of seven robots it was. Nothing happens at one rate, so every sensor keeps its own clock; stamps
are milliseconds of the Unix epoch.

- ``cam_<serial>/color.mp4`` and ``timestamps.npy``, a pickled dict of the stamps of ``color`` and ``depth``.
- ``cam_<serial>/depth.mp4``: pictures of double height, the low bytes above the high bytes. The unit is a
  millimetre. The authors' script multiplies the values of L515 cameras (serials that begin with f) by four,
  and their viewer divides them by four again; here they stay as they are.
- ``transformed/*.npy``, pickled dicts of cameras: whatever was measured was stored beside the picture taken
  at that time. The tables of the base frame are the robot's, and are merged by time; those of ``tcp`` and
  ``force_torque`` stand in the frame of the camera that each row tells.
- ``../calib/<time>``: matrices of the cameras, pickled. They are of pictures of 1280 by 720, and what is
  published is 640 by 360.

All that is pickled is read by `_pickled`, and everything in a confined process. No sample of the published
data was at hand: this follows the code that reads it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..schemas import UNKNOWN, Array, Episode, FormatError, Json, SourceFile, StreamSpec, Times
from ._beside import add_video
from ._confined import episodes
from ._draft import Draft, stream_name
from ._folder import entries, small_json
from ._mp4 import Mp4Video
from ._npz import arrays_of, whole
from ._pickled import json_of, unpickled_npy
from ._rh20t import CONFIGURATIONS, Configuration, Table, plain, stamps_of, table_of
from .base import Format, rows_in, source_file

VERSION = "1"

_SCENE = re.compile(r"task_\d+_user_\d+_scene_\d+_cfg_(\d+)(_human)?")
_CAMERA = re.compile(r"cam_([A-Za-z0-9]{1,40})")
_STAMPS = "timestamps.npy"
_MOST_LOOKED = 50
_MAX_JSON = 1 << 22
_MAX_ARRAY = 1 << 28
_TABLES = ("tcp_base", "tcp", "force_torque_base", "force_torque", "joint", "gripper", "high_freq_data")
_FORCES = 6
_CALIBRATED = (720, 1280)


@dataclass(frozen=True)
class Rh20t:
    """A scene of RH20T, or a folder of scenes.

    Attributes
    ----------
    block_bytes
        Most payload bytes of a block.
    """

    format: ClassVar[Format] = Format(
        name="rh20t", title="RH20T", spec="https://github.com/rh20t/rh20t_api: rh20t_api/scene.py"
    )
    block_bytes: int = 1 << 20

    def probe(self, path: Path) -> bool:
        """Tell whether ``path`` is a scene, or a folder of scenes."""
        try:
            return _is_scene(path) or any(map(_is_scene, entries(path)[:_MOST_LOOKED]))
        except (FormatError, OSError, ValueError):
            return False

    def episodes(self, path: Path) -> Iterator[Episode]:
        """Yield the scenes in the order of their names, each read in a confined process."""
        return episodes(self, path)

    def unconfined(self, path: Path) -> Iterator[Episode]:
        """Do what `episodes` promises, in this process."""
        scenes = [path] if _is_scene(path) else [folder for folder in entries(path) if _is_scene(folder)]
        for folder in scenes:
            yield _Scene(self, path, folder).episode()

    def beside(self, path: Path) -> tuple[Path, ...]:
        """Return what is read besides ``path``: the calibrations that a scene lies beside."""
        return (path.parent / "calib",) if _is_scene(path) else ()


CONVERTER = Rh20t


def _is_scene(path: Path) -> bool:
    if not _SCENE.fullmatch(path.name) or not path.is_dir():
        return False
    return (path / "metadata.json").is_file() and any(
        _CAMERA.fullmatch(child.name) and (child / _STAMPS).is_file() for child in path.iterdir()
    )


@dataclass(slots=True)
class _Scene:
    """One scene. Clocks are gathered first, since none of them is known to be the earliest."""

    converter: Rh20t
    root: Path
    folder: Path
    sources: list[SourceFile] = field(default_factory=list)
    stamps: dict[str, tuple[Times, str]] = field(default_factory=dict)

    def episode(self) -> Episode:
        """Return the episode."""
        matched = _SCENE.fullmatch(self.folder.name)
        number, human = int(matched[1] if matched else 0), bool(matched and matched[2])
        robot = CONFIGURATIONS.get(number)
        draft = Draft(self.folder)
        told = self._metadata(draft)
        cameras = self._calibration(draft, told)
        videos = list(self._cameras(draft, robot, cameras))
        tables = list(self._tables(draft))
        raw = list(self._raw_tables(draft, robot))
        self._clocks(draft)
        for add in videos:
            add()
        for name, table, source in tables:
            self._add_table(draft, name, table, source, robot)
        for name, values, clock, source in raw:
            self._low_dim(draft, name, values, clock, source, {"unit": (UNKNOWN,)})
        self._rest(draft)
        embodiment = "human" if human else f"{robot.robot}, {robot.gripper}" if robot else UNKNOWN
        return draft.build(self.converter, self.sources, version=VERSION, embodiment=embodiment)

    def _source(self, path: Path, role: str) -> None:
        self.sources.append(source_file(path, self.root if path.is_relative_to(self.root) else path, role))

    def _metadata(self, draft: Draft) -> dict[str, Json]:
        path = self.folder / "metadata.json"
        self._source(path, "metadata")
        told = small_json(path, _MAX_JSON)
        draft.tell("metadata.json", told, "rh20t")
        return told if isinstance(told, dict) else {}

    def _calibration(self, draft: Draft, told: Mapping[str, Json]) -> dict[str, dict[str, Json]]:
        """Return what is known of each camera, as attributes of its streams."""
        found: dict[str, dict[str, Json]] = {}
        when = told.get("calib")
        home = self.folder.parent / "calib" / str(when)
        if type(when) is not int or when < 0 or not home.is_dir():
            draft.warn("the cameras' calibration is not at hand")
            return found
        for what in ("intrinsics", "extrinsics"):
            path = home / f"{what}.npy"
            if not path.is_file():
                continue
            self._source(path, "calibration")
            held = unpickled_npy(path)
            for serial, matrix in held.items() if isinstance(held, dict) else ():
                try:
                    found.setdefault(str(serial), {})[what] = json_of(matrix, most=64)
                except ValueError as error:
                    raise FormatError(str(path), str(serial), str(error)) from error
            draft.account(f"calib/{what}.npy", "renamed", [f"streams.*.attributes.{what}"])
        for camera in found.values():
            camera["calibrated_at"] = list(_CALIBRATED)
        return found

    # Cameras

    def _cameras(
        self, draft: Draft, robot: Configuration | None, known: Mapping[str, dict[str, Json]]
    ) -> Iterator[Any]:
        for folder in entries(self.folder):
            matched = _CAMERA.fullmatch(folder.name)
            if not matched or not folder.is_dir():
                continue
            serial = matched[1]
            attributes = dict(known.get(serial, {}))
            if robot and serial in robot.in_hand:
                attributes["mounted"] = "gripper"
            stamps = self._stamps(draft, folder)
            for what in ("color", "depth"):
                path = folder / f"{what}.mp4"
                if not path.is_file():
                    continue
                self._source(path, "video")
                video = Mp4Video(path)
                clock = f"{what}_{serial}"
                self._camera_clock(draft, video, clock, stamps.get(what), f"{folder.name}/{_STAMPS}")
                source = f"{folder.name}/{path.name}"
                yield partial(self._video, draft, video, serial, clock, source, attributes)
            for other in entries(folder):
                if other.name not in {"color.mp4", "depth.mp4", _STAMPS}:
                    draft.drop(
                        f"{folder.name}/{other.name}", "was taken out of what is read here, or is unknown"
                    )

    def _stamps(self, draft: Draft, folder: Path) -> dict[str, Times]:
        path = folder / _STAMPS
        if not path.is_file():
            return {}
        self._source(path, "metadata")
        held = unpickled_npy(path)
        if not isinstance(held, dict):
            raise FormatError(str(path), "pickle", "is no dict of time stamps")
        found = {str(key): stamps_of(value, path, str(key)) for key, value in held.items() if len(value)}
        clocks = [f"clocks.{key}_{folder.name[4:]}" for key in found]
        draft.account(
            f"{folder.name}/{_STAMPS}", "transformed", clocks or ["clocks"], "counted from the earliest"
        )
        return found

    def _camera_clock(
        self, draft: Draft, video: Mp4Video, clock: str, stamps: Times | None, source: str
    ) -> None:
        if stamps is not None and len(stamps) == len(video):
            self.stamps[clock] = np.sort(stamps), f"{source}, milliseconds"
            return
        have = "no" if stamps is None else str(len(stamps))
        draft.warn(f"{clock}: {have} time stamps for {len(video)} pictures; its clock is the video's")
        draft.recorded(clock, video.times, "the MP4's own times, from its first picture", field=clock)

    def _video(
        self,
        draft: Draft,
        video: Mp4Video,
        serial: str,
        clock: str,
        source: str,
        attributes: Mapping[str, Json],
    ) -> None:
        height, width = video.size
        depth = clock.startswith("depth_")
        if "intrinsics" in attributes and (height // (1 + depth), width) != _CALIBRATED:
            draft.warn(f"intrinsics are of 1280×720 pictures; {source} has {width}×{height // (1 + depth)}")
        if not depth:
            name = stream_name("observation", "images", serial)
            add_video(
                draft,
                video,
                name=name,
                clock=clock,
                source=source,
                block_bytes=self.converter.block_bytes,
                attributes=attributes,
            )
            return
        if height % 2:
            raise FormatError(str(video.path), "height", f"is {height}, and not two halves of one height")
        spec = StreamSpec(
            name=stream_name("observation", "depth", serial),
            kind="depth",
            dtype="uint16",
            shape=(height // 2, width),
            unit=("mm",),
            clock=clock,
            attributes={**attributes, "stored_as": f"{video.codec} {video.pixel_format}"},
        )
        read = partial(_depths, video, rows_in(self.converter.block_bytes, spec))
        how = "low bytes of the upper half and high bytes of the lower half put together"
        draft.add(spec, len(video), read, source=source, how=how)

    # Tables

    def _tables(self, draft: Draft) -> Iterator[tuple[str, Table, str]]:
        for stem in _TABLES:
            path = self.folder / "transformed" / f"{stem}.npy"
            if not path.is_file():
                continue
            source = f"transformed/{path.name}"
            self._source(path, "recording")
            held = unpickled_npy(path)
            name = stem.removesuffix("_data")
            if name == "high_freq" and isinstance(held, dict):
                for serial in [key for key in held if key != "base"]:
                    why = "the samples of base, in a camera's frame: its calibration gives them again"
                    draft.drop(f"{source}: {serial}", why)
                held = {key: value for key, value in held.items() if key == "base"}
            table = table_of(held, path=path, value="value")
            self.stamps[name] = table.times_ms, f"{source}, milliseconds"
            yield name, table, source

    def _add_table(
        self, draft: Draft, name: str, table: Table, source: str, robot: Configuration | None
    ) -> None:
        for key, values in table.columns.items():
            where = f"{source}: {key}"
            if name == "joint" and robot and values.ndim == 2 and values.shape[1] >= len(robot.joints):
                self._joints(draft, values, where, robot)
            else:
                width = values.shape[1] if values.ndim == 2 else 0
                self._low_dim(
                    draft, plain(key, name, width)["name"], values, name, where, plain(key, name, width)
                )
        if len(table.serials) > 1:
            text = "Which camera's folder the row came from: an index into `serials`"
            told = {"unit": ("1",), "description": text, "attributes": {"serials": list(table.serials)}}
            self._low_dim(draft, f"extra.{name}.camera", table.cameras, name, f"{source}: cameras", told)

    def _joints(self, draft: Draft, values: Array, source: str, robot: Configuration) -> None:
        count = len(robot.joints)
        told = {"unit": ("rad",), "axes": robot.joints}
        part = values[:, :count]
        rest = values[:, count:]
        self._low_dim(draft, "observation.joint_position", part, "joint", source, told)
        if rest.shape[1]:
            self._low_dim(
                draft, "extra.joint.rest", rest, "joint", f"{source}[{count}:]", {"unit": (UNKNOWN,)}
            )

    def _raw_tables(self, draft: Draft, robot: Configuration | None) -> Iterator[tuple[str, Array, str, str]]:
        """Yield what the sensors gave at their own rate; the last column is the time."""
        for path in (
            entries(self.folder / "high_freq_data") if (self.folder / "high_freq_data").is_dir() else ()
        ):
            source = f"high_freq_data/{path.name}"
            if path.suffix != ".npy":
                draft.drop(source, "is no .npy file")
                continue
            self._source(path, "recording")
            values = whole(path, arrays_of(path)["array"], _MAX_ARRAY)
            if values.ndim != 2 or values.shape[1] < 2 or values.dtype.kind not in "iuf":
                raise FormatError(
                    str(path), "array", f"is {values.dtype} {values.shape}, not rows with a time"
                )
            stamps = np.rint(values[:, -1].astype(np.float64))
            if not np.isfinite(stamps).all():
                raise FormatError(str(path), "timestamp", "holds what is no time")
            clock = stream_name(path.stem)
            self.stamps[clock] = (
                stamps_of(stamps.astype(np.int64), path, "timestamp"),
                f"{source}, last column",
            )
            for name, part in _split(values[:, :-1], clock, robot):
                yield name, part, clock, f"{source}: {name.rpartition('.')[2]}"

    def _low_dim(
        self, draft: Draft, name: str, values: Array, clock: str, source: str, told: Mapping[str, Any]
    ) -> None:
        values = values.astype(values.dtype.newbyteorder("<"))
        spec = StreamSpec(
            **{
                "name": name,
                "kind": "low_dim",
                "dtype": values.dtype.name,
                "shape": values.shape[1:],
                "clock": clock,
                **{key: value for key, value in told.items() if key != "name"},
            }
        )
        read = partial(_held, values, rows_in(self.converter.block_bytes, spec))
        draft.add(spec, len(values), read, source=source)

    def _clocks(self, draft: Draft) -> None:
        if not self.stamps:
            return
        start = min(int(times.min()) for times, _ in self.stamps.values())
        draft.extra.setdefault("rh20t", {})["start_ms"] = start
        for name, (times, source) in self.stamps.items():
            draft.recorded(name, (times - start) * 1_000_000, source, field=name)

    def _rest(self, draft: Draft) -> None:
        known = {"metadata.json", "transformed", "high_freq_data"}
        for path in entries(self.folder):
            if path.name not in known and not _CAMERA.fullmatch(path.name):
                why = "sound is not read" if path.name.startswith("audio") else "is no part of the format"
                draft.drop(path.name, why)
        if (self.folder / "transformed").is_dir():
            for path in entries(self.folder / "transformed"):
                if path.stem not in _TABLES:
                    draft.drop(f"transformed/{path.name}", "is no table of the format")


def _split(values: Array, clock: str, robot: Configuration | None) -> Iterator[tuple[str, Array]]:
    """Yield forces, pose and joints of a raw table, if it is as wide as the robot's are; else all of it."""
    widths = (_FORCES, robot.tcp, len(robot.joints)) if robot else ()
    if not clock.startswith("force_torque_tcp_joint") or values.shape[1] != sum(widths):
        yield stream_name("observation", "raw", clock), values
        return
    parts = np.split(values, np.cumsum(widths)[:-1], axis=1)
    for name, part in zip(("force_torque", "tcp", "joint"), parts, strict=True):
        yield f"observation.raw.{name}", part


def _held(values: Array, rows: int, start: int, stop: int) -> Iterator[Array]:
    for first in range(start, stop, rows):
        yield values[first : min(first + rows, stop)]


def _depths(video: Mp4Video, rows: int, start: int, stop: int) -> Iterator[Array]:
    for block in video.frames(start, stop, rows):
        grey = _grey(block)
        half = grey.shape[1] // 2
        yield grey[:, :half] + (grey[:, half:] << 8)


def _grey(block: Array) -> Array:
    """Return pictures as (n, H, W) uint16: as OpenCV makes grey of colours, where they have any."""
    if block.ndim == 4 and block.shape[3] == 1:
        return block[..., 0].astype(np.uint16)
    if block.ndim == 3:
        return block
    # OpenCV: modules/imgproc/src/color_rgb.simd.hpp, weights of 0.299, 0.587 and 0.114 in 15 bits.
    red, green, blue = (block[..., i].astype(np.uint32) for i in range(3))
    return ((red * 9_798 + green * 19_235 + blue * 3_735 + (1 << 14)) >> 15).astype(np.uint16)
