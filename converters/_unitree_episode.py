"""What the fields of a Unitree recording become. The reasons are told in ``unitree_json.py``."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..schemas import (
    UNKNOWN,
    ActionContract,
    ActionPart,
    Array,
    Event,
    FormatError,
    Json,
    SourceFile,
    StreamSpec,
    Times,
)
from ..schemas.episode import Space
from ..schemas.validate import has_controls
from ._draft import Draft, stream_name
from ._folder import small_bytes
from ._jpeg import Picture, decoded, picture_of
from ._npz import Npy, arrays_of, rows
from ._pictures import in_blocks
from ._unitree_steps import Column, Names, Recording, recording, steps_of
from .base import contained, rows_in, source_file

EXAMPLE_GOALS = frozenset({"Pick up the red cup on the table.", "pick up cube."})
"""What ``text.goal`` is if nobody says otherwise: episode_writer.py, teleop_hand_and_arm.py (--task-goal)."""

_AUTHOR = "unitree"
_WRITER = "unitreerobotics/xr_teleoperate: teleop/teleop_hand_and_arm.py"
_HANDS = "unitreerobotics/xr_teleoperate: teleop/robot_control/robot_hand_*.py"
_STEPS = "steps"
_MAX_PICTURE_BYTES = 1 << 26
_MAX_SAMPLES = 1 << 31
_QUANTITIES = {"qpos": "joint_position", "qvel": "joint_velocity", "torque": "joint_effort"}
_ARMS = ("left_arm", "right_arm")
_HANDS_OF = ("left_ee", "right_ee", "left_hand", "right_hand")
_HAND_UNITS = {1: "rad", 6: "1", 7: "rad"}
_DEX1_CLOSED, _DEX1_OPEN = 0.0, 5.4
_ARM_AXES = 7
_SHORT_ARMS = {1: "four", 3: "five"}
"""How far the arms' numbers overlap, by which the recorder shifts them: 8 or 10 joints cut into 7 and 7."""


@dataclass(slots=True)
class Composer:
    """Turns a recording into the streams of an episode.

    Attributes
    ----------
    folder
        Of the episode; what its ``data.json`` names must lie in it.
    """

    draft: Draft
    found: Recording
    folder: Path
    block_bytes: int
    _rate: float = 0.0
    _rate_source: str = ""
    _turns: Times = field(default_factory=lambda: np.empty(0, np.int64))
    _files: dict[str, list[str]] = field(default_factory=dict)

    def compose(self, rate_hz: float | None, instruction: str | None) -> None:
        """Decide what becomes of every field."""
        self._set_rate(rate_hz)
        self._set_turns()
        for name, column in self.found.columns.items():
            self._column(name, column)
        for name, names in self.found.files.items():
            self._named_files(name, names)
        for name, runs in self.found.texts.items():
            self._text(name, runs)
        for name in sorted(self.found.empty):
            self.draft.drop(f"data.{name}", "is null or empty in every step")
        for name, value in self.found.members.items():
            self._member(name, value, instruction)
        if instruction is not None and not self.draft.instruct(instruction):
            self.draft.refuse("option instruction", "is no text that a robot can be given")
        self._judge_arms()

    def sources(self, root: Path) -> Iterator[SourceFile]:
        """Yield a source for the files of each camera and microphone.

        Its digest is the SHA-256 of what ``sha256sum`` prints for them in the order of the steps, named as in
        ``data.json``.
        """
        for name, members in self._files.items():
            digest, size = hashlib.sha256(), 0
            for member in members:
                file = source_file(self._place(member, name), self._place(member, name))
                digest.update(f"{file.sha256}  {member}\n".encode())
                size += file.size
            above = "" if self.folder == root else f"{self.folder.relative_to(root).as_posix()}/"
            yield SourceFile(uri=f"{above}{name}", size=size, sha256=digest.hexdigest(), role="video")

    # Time

    def _set_rate(self, asked: float | None) -> None:
        info = self.found.members.get("info")
        image = info.get("image") if isinstance(info, Mapping) else None
        said = image.get("fps") if isinstance(image, Mapping) else None
        if asked is not None:
            self._rate, self._rate_source = asked, "option rate_hz"
        elif isinstance(said, int | float) and not isinstance(said, bool) and 1e-6 <= said <= 1e6:
            self._rate = float(said)
            self._rate_source = "info.image.fps: the rate asked for, which the control loop may not have kept"
        else:
            self.draft.refuse("info.image.fps", "tells no rate", "Say the rate: option rate_hz")

    def _set_turns(self) -> None:
        """Take the numbers of the loop's turns from ``idx``, if that counts them."""
        self._turns = np.arange(self.found.length)
        idx = self.found.columns.get("idx")
        turns = idx.numbers("int64") if idx and idx.kinds == {"i"} and idx.shape == () else self._turns[:0]
        if len(turns) != self.found.length or np.any(np.diff(turns) <= 0):
            self.draft.warn("idx does not count the steps: their places in the list are taken for times")
            return
        self._turns = turns - turns[0]
        lost = int(self._turns[-1]) + 1 - len(turns)
        if lost:
            self.draft.warn(f"{lost} turns of the control loop were not written: there are gaps in time")

    def _clock(self, steps: NDArray[np.int64], name: str) -> str:
        """Return the clock of a field that these steps have: that of all steps, or one with gaps."""
        whole = len(steps) == self.found.length
        if not whole:
            self.draft.warn(f"{name} is missing in {self.found.length - len(steps)} steps")
        wanted = _STEPS if whole else name.replace(".", "_")[:90]
        if wanted not in self.draft.clocks:
            turns = self._turns[steps]
            self.draft.nominal(wanted, len(turns), self._rate, self._rate_source)
            if np.any(turns != np.arange(len(turns))):
                gaps = replace(
                    self.draft.clocks[wanted],
                    source=f"{self._rate_source}; times of the turns that idx counts",
                    read=partial(_turn_times, turns, self._rate),
                )
                self.draft.clocks[wanted] = gaps
        return wanted

    # Numbers

    def _column(self, name: str, column: Column) -> None:
        dtype = _dtype(name, column)
        meaning = _meaning(name, column.shape, self._joint_names(name))
        spec = replace(
            meaning, dtype=dtype, shape=column.shape, clock=self._clock(steps_of(column.steps), name)
        )
        read = partial(_numbers, self.draft.path, name, dtype, rows_in(self.block_bytes, spec))
        self.draft.add(spec, len(column.steps), read, source=f"data.{name}")

    def _joint_names(self, name: str) -> tuple[str, ...]:
        """Return the axes of ``states.<part>.<quantity>`` as ``info.joint_names`` tells them."""
        info = self.found.members.get("info")
        names = info.get("joint_names") if isinstance(info, Mapping) else None
        told = names.get(name.split(".")[1]) if isinstance(names, Mapping) and name.count(".") == 2 else None
        good = isinstance(told, list) and all(
            isinstance(axis, str) and 0 < len(axis) <= 100 and not has_controls(axis) for axis in told
        )
        return tuple(told) if good and told and len(set(told)) == len(told) else ()

    def _judge_arms(self) -> None:
        """Warn where the numbers of both arms overlap, and take the names of the joints back."""
        for side, shown in (("states", "observation"), ("actions", "action")):
            pair = [self.found.columns.get(f"{side}.{arm}.qpos") for arm in _ARMS]
            left, right = (c.numbers("float64") if c else None for c in pair)
            if left is None or right is None or left.shape != right.shape or left.shape[1:] != (_ARM_AXES,):
                continue
            for shift, joints in _SHORT_ARMS.items():
                both = left[:, shift:]
                if np.array_equal(both, right[:, :-shift]) and np.ptp(both) > 0:
                    self.draft.warn(
                        f"{side}: the last {_ARM_AXES - shift} numbers of left_arm are the first of "
                        f"right_arm, as the recorder does for robots with {joints} joints to an arm: "
                        "left_arm ends and right_arm begins with joints of the other"
                    )
                    for arm in _ARMS:
                        self._unname(f"{shown}.{arm}.joint_position")

    def _unname(self, stream: str) -> None:
        known = self.draft.streams[stream]
        self.draft.streams[stream] = replace(known, spec=replace(known.spec, axes=()))

    # Files

    def _named_files(self, name: str, names: Names) -> None:
        self._files[name] = names.names
        if name.startswith("audios."):
            self._sound(name, names)
            return
        clock = self._clock(steps_of(names.steps), name)
        first = self._place(names.names[0], name)
        try:
            picture = picture_of(small_bytes(first, _MAX_PICTURE_BYTES))
        except FormatError:
            raise
        except ValueError as error:
            raise FormatError(str(self.draft.path), f"data.{name}", f"{names.names[0]}: {error}") from error
        kind: Literal["colors", "depths"] = "depths" if name.startswith("depths.") else "colors"
        spec = _picture_spec(name, kind, picture, clock)
        read = partial(_pictures, self.draft.path, self.folder, name, picture, spec, self.block_bytes)
        how = "JPEG files decoded by libjpeg"
        how += ", and widened from 8 to 16 bits" if spec.kind == "depth" else ""
        self.draft.add(spec, len(names.names), read, source=f"data.{name}", how=how, lossless=None)
        if kind == "depths":
            self.draft.warn(
                f"{name}: depth went through JPEG, lossy and cut off at 255: unfit for measurements"
            )

    def _place(self, member: str, name: str) -> Path:
        return contained(self.folder, member, path=self.draft.path, where=f"data.{name}")

    def _sound(self, name: str, names: Names) -> None:
        """Lay the pieces of a microphone's sound behind each other, and keep how long each is."""
        pieces = [_piece(self._place(member, name), self.draft, name) for member in names.names]
        shapes = {piece.shape[1:] for piece in pieces}
        kinds = {piece.dtype for piece in pieces}
        lengths = np.array([piece.shape[0] for piece in pieces], np.int64)
        if len(shapes) > 1 or len(kinds) > 1 or not 0 < lengths.sum() < _MAX_SAMPLES:
            self.draft.refuse(f"data.{name}", "names pieces of sound that do not fit together")
        rate = self._sample_rate()
        microphone = name.partition(".")[2]
        clock = name.replace(".", "_")[:90]
        self.draft.nominal(clock, int(lengths.sum()), rate, "info.audio.sample_rate")
        spec = StreamSpec(
            name=stream_name("observation", "audio", microphone),
            kind="low_dim",
            dtype=kinds.pop().name,
            shape=shapes.pop(),
            clock=clock,
            description="Sound: the pieces of the steps joined; where they lie in time is not told.",
        )
        read = partial(_samples, self.draft.path, self.folder, name, lengths, spec, self.block_bytes)
        self.draft.add(spec, int(lengths.sum()), read, source=f"data.{name}", how="pieces joined")
        counts = StreamSpec(
            name=stream_name("extra", "audio", microphone, "samples"),
            kind="low_dim",
            dtype="int64",
            shape=(),
            unit=("1",),
            clock=self._clock(steps_of(names.steps), name + ".pieces"),
            description="Samples of sound that came with each step.",
        )
        self.draft.add(
            counts,
            len(lengths),
            partial(_slices, lengths, rows_in(self.block_bytes, counts)),
            source=f"data.{name} (lengths)",
            how="the number of samples in each file",
        )

    def _sample_rate(self) -> float:
        info = self.found.members.get("info")
        audio = info.get("audio") if isinstance(info, Mapping) else None
        rate = audio.get("sample_rate") if isinstance(audio, Mapping) else None
        if not isinstance(rate, int | float) or isinstance(rate, bool):
            self.draft.refuse("info.audio.sample_rate", "tells no rate, and there is sound")
        return float(rate)

    # Texts

    def _text(self, name: str, runs: list[tuple[int, str]]) -> None:
        source = f"data.{name}"
        if len(runs) == 1 and runs[0][0] == 0:
            self.draft.tell(source, runs[0][1], "steps")
            return
        if any(has_controls(text) for _, text in runs):
            self.draft.drop(source, "holds texts with control characters")
            return
        times = _turn_times(self._turns, self._rate).tolist()
        stops = [*(times[step] for step, _ in runs[1:]), times[-1] + 1]
        for (step, text), stop in zip(runs, stops, strict=True):
            if text:
                self.draft.events.append(
                    Event(kind=name, start_ns=times[step], stop_ns=stop, text=text[:100_000])
                )
        self.draft.account(source, "transformed", ["events"], "a span of time for each text")

    def _member(self, name: str, value: Json, instruction: str | None) -> None:
        """Tell a member of the file but the steps, entry by entry."""
        members = value if isinstance(value, Mapping) else {"": value}
        for key, told in members.items():
            source = f"{name}.{key}".rstrip(".")
            to: list[str] = []
            if source == "text.goal" and instruction is None:
                to = ["instructions"] if self._goal(told) else []
            if source == "info.image" and self._rate_source.startswith(source):
                to = ["clocks"]
            self.draft.tell(source, told, name, to)
            if source == "info.author" and told == _AUTHOR:
                self.draft.warn(f"info.author is {_AUTHOR!r}, the writer's constant: it tells of nobody")
            if source == "rewards.success":
                self.draft.warn("rewards.success is the writer's constant: the outcome is unknown")

    def _goal(self, told: Json) -> bool:
        if told in EXAMPLE_GOALS:
            self.draft.warn(
                f"text.goal is the writer's own example, {told!r}: what was asked is unknown. "
                "Say it with the option instruction"
            )
            return False
        return self.draft.instruct(told)


def _dtype(name: str, column: Column) -> str:
    """Return the dtype of a column: of joints always float64, since JSON writes 1.0 as it likes."""
    plain = {frozenset("b"): "bool", frozenset("i"): "int64"}
    joints = name.startswith(("states.", "actions."))
    return "float64" if joints else plain.get(frozenset(column.kinds), "float64")


def _meaning(name: str, shape: tuple[int, ...], joints: tuple[str, ...]) -> StreamSpec:
    """Return what is known of a field of numbers, as the header of a stream without dtype and shape."""
    side, *rest = name.split(".")
    spec = StreamSpec(name=stream_name("extra", *name.split(".")), kind="low_dim", dtype="float64", shape=())
    if side not in {"states", "actions"} or len(rest) != 2 or len(shape) != 1:
        return spec
    part, quantity = rest
    action = side == "actions"
    unit, space = _unit(part, quantity, shape[0], action=action)
    axes = joints if len(joints) == shape[0] else ()
    word = _QUANTITIES.get(quantity, quantity)
    if space == "base_velocity":
        axes, word = ("vx", "vy", "vyaw"), space
    spec = replace(
        spec,
        name=stream_name("action" if action else "observation", part, word),
        unit=unit,
        axes=axes,
        frame="base" if space == "base_velocity" else None,
    )
    return replace(spec, contract=_contract(shape[0], space, part)) if action else spec


def _unit(part: str, quantity: str, axes: int, *, action: bool) -> tuple[tuple[str, ...], Space]:
    """Return unit and meaning of a part's quantity, as far as the recorder's code tells them."""
    if quantity != "qpos":  # the recorder leaves the others empty
        return (UNKNOWN,), "unknown"
    if part in _ARMS or (part == "body" and not action):
        return ("rad",), "joint_position"
    if part in _HANDS_OF and axes in _HAND_UNITS:
        return (_HAND_UNITS[axes],), "gripper" if axes == 1 else "joint_position"
    if part == "body" and axes == 3:
        return ("m/s", "m/s", "rad/s"), "base_velocity"
    return (UNKNOWN,), "unknown"


def _contract(axes: int, space: Space, part: str) -> ActionContract:
    if space == "unknown":
        return ActionContract(offset_steps=0, evidence=_WRITER)
    gripper = space == "gripper"
    meaning = ActionPart(
        start=0,
        stop=axes,
        space=space,
        mode="absolute",
        frame="base" if space == "base_velocity" else None,
        rotation="none",
        gripper_closed=_DEX1_CLOSED if gripper else None,
        gripper_open=_DEX1_OPEN if gripper else None,
    )
    told = f"{_WRITER}; {_HANDS}" if part in _HANDS_OF else _WRITER
    return ActionContract(parts=(meaning,), offset_steps=0, evidence=told)


def _picture_spec(name: str, kind: Literal["colors", "depths"], picture: Picture, clock: str) -> StreamSpec:
    camera = name.partition(".")[2]
    if kind == "depths" and picture.channels == 1:
        return StreamSpec(
            name=stream_name("observation", "depth", camera),
            kind="depth",
            dtype="uint16",
            shape=(picture.height, picture.width),
            clock=clock,
            description="Depth after 8-bit JPEG: cut off at 255, lossy, its unit not stored.",
            attributes={"encoding": "jpeg", "stored_bits": 8},
        )
    return StreamSpec(
        name=stream_name("observation", "images" if kind == "colors" else "depth", camera),
        kind="video",
        dtype="uint8",
        shape=(picture.height, picture.width, picture.channels),
        unit=("1",),
        clock=clock,
        attributes={"encoding": "jpeg", "stored_order": "rgb", "order_evidence": _WRITER}
        if picture.channels == 3
        else {"encoding": "jpeg"},
    )


def _turn_times(turns: NDArray[np.int64], rate_hz: float) -> Times:
    times: Times = np.rint(turns * (1e9 / rate_hz)).astype(np.int64)
    return times


def _numbers(path: Path, name: str, dtype: str, step: int, start: int, stop: int) -> Iterator[Array]:
    values = recording(path).columns[name].numbers(dtype)
    for first in range(start, min(stop, len(values)), step):
        yield values[first : min(first + step, stop)]


def _slices(values: Array, step: int, start: int, stop: int) -> Iterator[Array]:
    for first in range(start, min(stop, len(values)), step):
        yield values[first : min(first + step, stop)]


def _pictures(
    path: Path,
    folder: Path,
    name: str,
    picture: Picture,
    spec: StreamSpec,
    block_bytes: int,
    start: int,
    stop: int,
) -> Iterator[Array]:
    names = recording(path).files[name].names

    def blame(number: int, why: str) -> FormatError:
        return FormatError(str(path), f"data.{name}", f"{names[number]}: {why}")

    places = (contained(folder, member, path=path, where=f"data.{name}") for member in names[start:stop])
    files = (small_bytes(place, _MAX_PICTURE_BYTES) for place in places)
    decode = partial(_sample, picture=picture, spec=spec)
    return in_blocks(files, decode, rows_in(block_bytes, spec), start, blame)


def _sample(data: bytes, picture: Picture, spec: StreamSpec) -> Array:
    return decoded(data, picture, "standard").reshape(spec.shape).astype(spec.np_dtype, copy=False)


def _piece(place: Path, draft: Draft, name: str) -> Npy:
    piece = arrays_of(place).get("array")
    if piece is None or piece.unread or piece.dtype.kind not in "if" or not 1 <= len(piece.shape) <= 2:
        draft.refuse(f"data.{name}", f"names {place.name}, which holds no sound: {piece and piece.unread}")
    return piece


def _samples(
    path: Path,
    folder: Path,
    name: str,
    lengths: NDArray[np.int64],
    spec: StreamSpec,
    block_bytes: int,
    start: int,
    stop: int,
) -> Iterator[Array]:
    ends = np.cumsum(lengths)
    step = rows_in(block_bytes, spec)
    for i, member in enumerate(recording(path).files[name].names):
        begin = int(ends[i] - lengths[i])
        low, high = max(start - begin, 0), min(stop - begin, int(lengths[i]))
        if low >= high:
            continue
        place = contained(folder, member, path=path, where=f"data.{name}")
        for block in rows(place, arrays_of(place)["array"], low, high, step):
            yield block.astype(spec.np_dtype, copy=False)
