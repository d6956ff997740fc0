"""RoboMIND's ``trajectory.hdf5``: Franka, UR, AgileX, Tien Kung, and two simulations.

Field notes. The robots and their columns are told in ``_robomind.py``; the layout by the data set's makers
(github.com/Open-X-Humanoid/x-humanoid-training-toolchain: scripts/configs/all_robot_h5_info_v1.2.md).

*Arrays.* ``master`` is the leader that the operator moves, ``puppet`` the robot; simulations have ``franka``
or ``tiangong`` and no commands. The makers' own converter takes ``puppet`` for state and action alike.

*Pictures* are rows of variable length: JPEG, and amid them pictures that were not compressed (any4lerobot:
decode_images), of 720×1280 or 480×640. For Franka and UR what OpenCV decodes is BGR, as it should be; for
the others it is RGB, so that red and blue are swapped for every other decoder. Of simulations nobody says.

*Depth* is PNG, or raw amid it. Its unit is millimetres, or metres: "if the maximum is greater than 100, it is
millimetres", say the makers. That is a rule of thumb and not a statement, so the unit is unknown here and the
first picture's maximum stands beside it.

*Time.* Nothing is stamped; 30 Hz is what the makers' converter assumes. Simulations have ``sim_time_seq``, in
seconds: arrays with as many rows belong to it, and its rate is that of nominal clocks. In simulations arrays
have almost any length (1436, 1437, 1438, 1363 and 1140 in one file); one of another length than the steps
keeps a clock of its own, for nothing tells which rows belong together. Of the simulated Franka the makers say
that it has four states for a picture (720 and 170 to 176 in one file, with 680 stamps).

*Words.* Instructions stand in ``RoboMIND_v1_2_instr.csv``, by task, annotated steps in
``language_description_annotation_json/h5_<embodiment>.json``; both are read if they lie in a folder above the
episode, within the one that was given.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..schemas import (
    UNKNOWN,
    Array,
    Episode,
    FormatError,
    Json,
    SourceFile,
    StreamSpec,
    Times,
    median_rate,
)
from ..schemas.episode import Outcome
from ._demos import own_group
from ._draft import Draft, stream_name
from ._folder import small_bytes, small_json
from ._hdf5 import Field, open_hdf5
from ._hdf5_episode import Hdf5Episode
from ._hdf5_tree import Hdf5Tree
from ._jpeg import ChannelOrder, Picture, decoded, is_jpeg, picture_of, unpadded
from ._png import PngPicture, decoded_png, is_png, png_of
from ._robomind import RATE_HZ, RATE_SOURCE, Robot, robot_of
from .base import Format, contained, source_file, version_of

VERSION = "1"

_INSTRUCTIONS = "RoboMIND_v1_2_instr.csv"
_ANNOTATIONS = "language_description_annotation_json"
_MAX_CSV_BYTES = 1 << 24
_RAW = {720 * 1280 * 3: (720, 1280), 480 * 640 * 3: (480, 640)}
"""Sizes of the cameras' pictures by their bytes (any4lerobot: decode_images)."""

_MAX_SECONDS = 1e8
_STAMPS = "sim_time_seq, seconds of simulated time"
_DEPTH_RULE = (
    "x-humanoid-training-toolchain: all_robot_h5_info_v1.2.md: mm if the maximum is over 100, else m"
)


@dataclass(frozen=True)
class RobomindHdf5(Hdf5Tree):
    """Reads a ``trajectory.hdf5`` of RoboMIND, or all below a folder.

    Attributes
    ----------
    block_bytes
        Most payload bytes in a block.
    rate_hz
        Rate of the nominal clocks; None: 30 Hz for robots, that of ``sim_time_seq`` for simulations.
    jpeg_order
        Which decoder gives the pixels that were encoded; None: what is known of the robot.
    """

    format: ClassVar[Format] = Format(
        name="robomind-hdf5",
        title="RoboMIND HDF5",
        suffixes=(".hdf5",),
        spec="https://github.com/Open-X-Humanoid/x-humanoid-training-toolchain: "
        "scripts/configs/all_robot_h5_info_v1.2.md",
    )
    file_name: ClassVar[re.Pattern[str]] = re.compile(r"trajectory\.hdf5")
    absent: ClassVar[tuple[str, str, str]] = (
        "trajectory.hdf5",
        "is nowhere in this folder",
        "Name the file itself",
    )
    block_bytes: int = 16 << 20
    rate_hz: float | None = None
    jpeg_order: ChannelOrder | None = None

    def owns(self, file: Any) -> bool:
        """Tell whether an open file has RoboMIND's groups."""
        observations = own_group(file, "observations")
        if observations is None or own_group(observations, "rgb_images") is None:
            return False
        return any(own_group(file, name) is not None for name in ("puppet", "franka", "tiangong"))

    def episode(self, file: Path, root: Path) -> Episode:
        """Read the episode of a file, and the words that are told of it."""
        with open_hdf5(file) as hdf5:
            draft = Draft(path=file)
            parts = Hdf5Episode(hdf5=hdf5, draft=draft, block_bytes=self.block_bytes, steps=0)
            episode = _Robomind(parts=parts, options=self, robot=robot_of(hdf5.fields))
            episode.compose()
            place = _Place.of(file, root)
            sources = [source_file(file, root), *_words(draft, place, file, root)]
        known = episode.robot.name != UNKNOWN
        return draft.build(
            self,
            sources,
            version=VERSION,
            embodiment=f"robomind {episode.robot.name}" if known else UNKNOWN,
            outcome=place.outcome,
        )


@dataclass(slots=True)
class _Robomind:
    """One episode while its file's fields are gone through."""

    parts: Hdf5Episode
    options: RobomindHdf5
    robot: Robot
    _rate: float = RATE_HZ
    _rate_source: str = RATE_SOURCE

    def compose(self) -> None:
        """Place everything that lies in the file."""
        draft = self.parts.draft
        draft.extra["robot"] = self.robot.name
        if self.robot.name == UNKNOWN:
            draft.warn("the widths of the arrays are those of no known robot: their columns are unknown")
        self._steps()
        for name in list(self.parts.hdf5.fields):
            group, _, last = name.rpartition("/")
            if group in {"master", "puppet", "franka", "tiangong"}:
                self._array(name, "action" if group == "master" else "observation", last)
            elif group == "observations/rgb_images":
                self._pictures(name, last)
            elif group == "observations/depth_images":
                self._depth(name, last)
        self.parts.rest(self._clock_of)

    # Clocks

    def _steps(self) -> None:
        """Make the clock of the steps: the robot's rows, or the stamps of a simulation."""
        draft = self.parts.draft
        joints = re.compile(r"(puppet|franka|tiangong)/.*joint_pos")
        wanted = sorted(name for name in self.parts.hdf5.fields if joints.match(name))
        first = next((found for name in wanted if (found := self.parts.numbers(name))), None)
        if first is None:
            draft.refuse("puppet/joint_position", "is missing or empty, so there are no steps")
        self.parts.steps = first.shape[0]
        times = self._simulated()
        self._set_rate(times)
        if times is not None and len(times) == self.parts.steps:
            draft.recorded("steps", times, _STAMPS, field="sim_time_seq")
            return
        draft.nominal("steps", self.parts.steps, self._rate, self._rate_source)
        if times is not None:
            draft.recorded("simulation", times, _STAMPS, field="sim_time_seq")
            draft.warn(f"sim_time_seq has {len(times)} rows for {self.parts.steps} steps: theirs are nominal")

    def _simulated(self) -> Times | None:
        """Return the times of a simulation since its start, or None if there are none."""
        draft, stamps = self.parts.draft, self.parts.whole("sim_time_seq")
        if stamps is None:
            return None
        if stamps.ndim != 1 or stamps.dtype.kind != "f" or not np.isfinite(stamps).all():
            draft.refuse("sim_time_seq", "is no list of finite seconds")
        since = stamps - stamps[0]
        if np.abs(since).max() > _MAX_SECONDS:
            draft.refuse("sim_time_seq", "holds what is no time in seconds")
        times: Times = np.rint(since * 1e9).astype(np.int64)
        return times

    def _set_rate(self, times: Times | None) -> None:
        """Find the rate of nominal clocks: as told, as simulated, or the makers' for robots."""
        simulated = None if times is None else median_rate(times)
        if self.options.rate_hz is not None:
            self._rate, self._rate_source = self.options.rate_hz, "option rate_hz"
        elif simulated is not None and simulated > 0:
            self._rate, self._rate_source = simulated, "sim_time_seq: its median rate"
        elif self.robot.simulated:
            self.parts.draft.refuse("sim_time_seq", "tells no rate", "Say the rate: option rate_hz")

    def _clock_of(self, found: Field) -> str:
        """Return the clock of a dataset's rows: the steps, simulated time, or one of its own."""
        draft, rows = self.parts.draft, math.prod(found.shape[:1])
        if rows == self.parts.steps:
            return "steps"
        if "simulation" in draft.clocks and draft.clocks["simulation"].length == rows:
            return "simulation"
        clock = stream_name(found.name.replace("/", "_"))
        if clock not in draft.clocks:
            share = self.robot.states_per_picture if found.name.startswith("observations/") else 1
            source = (
                f"{self._rate_source}; a picture every {share} states" if share > 1 else self._rate_source
            )
            draft.nominal(clock, rows, self._rate / share, source)
            draft.warn(
                f"{found.name} has {rows} rows for {self.parts.steps} steps: nothing tells which belong "
                "together, so it keeps a clock of its own"
            )
        return clock

    # Datasets

    def _array(self, name: str, kind: str, quantity: str) -> None:
        found = self.parts.numbers(name)
        if found is None:
            return
        spec = self.robot.spec(found, f"{kind}.{stream_name(quantity)}", self._clock_of(found))
        self.parts.keep(name, spec)

    def _pictures(self, name: str, camera: str) -> None:
        """Keep a camera's pictures, JPEG or raw; what is neither is left to be told as unread."""
        found = self.parts.hdf5.fields[name]
        first = self.parts.first_encoded(found)
        if is_jpeg(first):
            try:
                picture = picture_of(unpadded(first))
            except ValueError as error:
                self.parts.draft.refuse(f"{name}[0]", str(error))
        elif len(first) in _RAW:
            picture = Picture(*_RAW[len(first)], 3)
        else:
            self._give_up(name, camera, first)
            return
        order = self.options.jpeg_order or self.robot.order
        if order is None:
            self.parts.draft.warn(
                f"nothing tells the order of the colours of {camera!r}: red may be blue in them"
            )
        evidence = f"option jpeg_order={order}" if self.options.jpeg_order else self.robot.order_evidence
        order = order or "standard"
        spec = StreamSpec(
            name=stream_name("observation", "images", camera),
            kind="video",
            dtype="uint8",
            shape=(picture.height, picture.width, picture.channels),
            unit=("1",),
            clock=self._clock_of(found),
            attributes={
                "encoding": "jpeg",
                "stored_order": "bgr" if order == "opencv" else "rgb",
                "order_evidence": evidence,
            },
        )
        how = "JPEG decoded by libjpeg; pictures that are not compressed as they are, red first"
        how += (
            "; red and blue of the JPEGs swapped back, as OpenCV's decoder does" if order == "opencv" else ""
        )
        self.parts.keep_pictures(name, spec, partial(_decode, picture=picture, order=order), how)

    def _depth(self, name: str, camera: str) -> None:
        found = self.parts.hdf5.fields[name]
        first = self.parts.first_encoded(found)
        if not is_png(first):
            self._give_up(name, camera, first)
            return
        try:
            picture = png_of(first)
            most = int(decoded_png(first, picture).max())
        except ValueError as error:
            self.parts.draft.refuse(f"{name}[0]", str(error))
        if picture.channels != 1:
            self._give_up(name, camera, first)
            return
        self.parts.draft.warn(f"the unit of the depth of {camera!r} is not stored: mm or m")
        spec = StreamSpec(
            name=stream_name("observation", "depth", camera),
            kind="depth",
            dtype="uint16",
            shape=(picture.height, picture.width),
            clock=self._clock_of(found),
            attributes={"first_maximum": most, "unit_evidence": _DEPTH_RULE, "stored_bits": picture.bits},
        )
        how = "PNG, decoded; pictures that are not compressed as they are"
        self.parts.keep_pictures(name, spec, partial(_decode_depth, picture=picture), how, lossless=True)

    def _give_up(self, name: str, camera: str, first: bytes) -> None:
        """Note that nothing here tells what a camera's rows are."""
        found = self.parts.hdf5.fields[name]
        if not found.varying and not found.unread:
            return
        self.parts.placed.add(name)
        why = f"begins with {len(first)} bytes that are no picture of a known size or kind"
        self.parts.draft.drop(name, why if found.varying else found.unread)
        self.parts.draft.warn(f"camera {camera!r} was left out: {name} {why}")


def _decode(data: bytes, *, picture: Picture, order: ChannelOrder) -> Array:
    """Return a picture, red first. Raw ones are BGR where JPEGs are common ones, and RGB elsewhere."""
    if is_jpeg(data):
        return decoded(unpadded(data), picture, order)
    if len(data) != picture.height * picture.width * picture.channels:
        raise ValueError(f"has {len(data)} bytes, which are neither a JPEG nor a raw picture of its camera")
    pixels = np.frombuffer(data, np.uint8).reshape(picture.height, picture.width, picture.channels)
    return pixels[..., ::-1] if order == "standard" else pixels


def _decode_depth(data: bytes, *, picture: PngPicture) -> Array:
    if is_png(data):
        return decoded_png(data, picture).reshape(picture.height, picture.width)
    width = picture.bits // 8
    if len(data) != picture.height * picture.width * width:
        raise ValueError(f"has {len(data)} bytes, which are neither a PNG nor a raw picture of its camera")
    return np.frombuffer(data, f"<u{width}").reshape(picture.height, picture.width)


# What lies beside


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """What an episode's folders tell: ``h5_<embodiment>/<task>/success_episodes/<split>/<name>/data``."""

    embodiment: str = ""
    task: str = ""
    split: str = ""
    name: str = ""
    outcome: Outcome = "unknown"

    @classmethod
    def of(cls, file: Path, root: Path) -> _Place:
        """Read the folders between ``root`` and a file, and ``root``'s own name."""
        parts = (root.name, *file.relative_to(root).parts[:-1])
        fits = len(parts) >= 6 and parts[-1] == "data" and parts[-6].startswith("h5_")
        if not fits or parts[-4] != "success_episodes":
            return cls()
        return cls(
            embodiment=parts[-6].removeprefix("h5_"),
            task=parts[-5],
            split=parts[-3],
            name=parts[-2],
            outcome="success",
        )


def _words(draft: Draft, place: _Place, file: Path, root: Path) -> Iterator[SourceFile]:
    """Take instructions and annotations from files that lie in ``root``."""
    if not place.task:
        draft.warn("the task is told by the folders above, which were not given")
        return
    draft.extra["place"] = {
        "embodiment": place.embodiment, "task": place.task, "split": place.split, "episode": place.name,
    }  # fmt: skip
    table = _above(file, root, _INSTRUCTIONS)
    if table is not None:
        texts = _instructions(version_of(table)).get(place.task, ())
        taken = [draft.instruct(text) for text in texts]
        if any(taken):
            draft.account(f"{_INSTRUCTIONS}: {place.task}", "renamed", ["instructions"])
        else:
            draft.warn(f"{_INSTRUCTIONS} tells no instruction of {place.task!r}")
        yield source_file(table, root, "metadata")
    name = f"{_ANNOTATIONS}/h5_{place.embodiment}.json"
    path = _above(file, root, name)
    if path is not None:
        for parts, response in _annotations(version_of(path)).get(place.name, ()):
            if place.task in parts and place.split in parts:
                draft.tell(name, response, "annotations")
                break
        yield source_file(path, root, "metadata")


def _above(file: Path, root: Path, name: str) -> Path | None:
    """Return a file of this name in a folder between ``root`` and an episode's file, or None."""
    folders = [folder for folder in file.parents if folder.is_relative_to(root)]
    beside = next((folder / name for folder in folders if (folder / name).is_file()), None)
    return beside and contained(root, str(beside.relative_to(root)), path=file, where=name)


@lru_cache(maxsize=4)
def _instructions(version: tuple[Path, int, int, int]) -> dict[str, tuple[str, ...]]:
    """Return the instructions of each task."""
    path = version[0]
    data = small_bytes(path, _MAX_CSV_BYTES)
    try:
        rows = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True))
    except (csv.Error, UnicodeError) as error:
        raise FormatError(str(path), "", f"is no table: {error}") from error
    found: dict[str, tuple[str, ...]] = {}
    for row in rows:
        task, text = row.get("task"), row.get("instruction")
        if isinstance(task, str) and isinstance(text, str) and text not in found.get(task, ()):
            found[task] = (*found.get(task, ()), text)
    return found


@lru_cache(maxsize=4)
def _annotations(version: tuple[Path, int, int, int]) -> dict[str, list[tuple[list[str], Json]]]:
    """Return the parts of an annotation's ``id``, which is a path, and what was annotated, by episode."""
    path = version[0]
    document = small_json(path)
    if not isinstance(document, list):
        raise FormatError(str(path), "", "is no list of annotations")
    found: dict[str, list[tuple[list[str], Json]]] = {}
    for entry in document:
        told = entry if isinstance(entry, dict) else {}
        parts = str(told.get("id", "")).split("/")
        if len(parts) > 1:
            found.setdefault(parts[-2], []).append((parts, told.get("response")))
    return found


CONVERTER = RobomindHdf5
