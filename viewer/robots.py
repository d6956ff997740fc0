"""Robots that are known: how joints are arranged, what they can do, which axes of a stream they are.

What is bundled, ``embodiments/*.toml``, is kinematics only: figures that the makers publish, with their
source, and no meshes. Where meshes are at hand is told by a user's URDF, or by the package that an entry
names.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from ..schemas import Episode, NotFoundError, Stream, StreamSpec
from ._check_joints import Limit
from .kinematics import Chain, Joint, Rows, Triple
from .urdf import Document, read_urdf

_NUMBER = re.compile(r"([a-z]*)[ _.-]?([0-9]{1,3})")
_JOINTS = {"j", "joint", "joints", "q"}
"""What axes are called before their numbers where they are joints."""

SCALES = {"rad": 1.0, "deg": math.pi / 180, "m": 1.0, "mm": 1e-3, "cm": 1e-2}
"""What a value of a unit is in rad or m."""


@dataclass(frozen=True, slots=True)
class Arm:
    """One of a robot's arms: its name in axes (``left``; "" for the only one), and where it stands."""

    name: str = ""
    xyz: Triple = (0.0, 0.0, 0.0)
    rpy: Triple = (0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Gripper:
    """An axis from 0, closed, to 1, open, and the joint that it moves between two positions in rad or m."""

    axes: tuple[str, ...]
    joint: str
    closed: float
    open: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Robot:
    """A robot.

    Attributes
    ----------
    aliases
        What embodiments call it, as words.
    formats
        Formats of recordings that are of this robot only and do not name it.
    tip
        The link whose way is drawn.
    order
        The joints in the order of a stream whose axes have no names.
    names
        Other names that axes have, each as many as ``order``.
    document
        A URDF with meshes, if there is one.
    """

    name: str
    chain: Chain
    tip: str
    order: tuple[str, ...]
    names: tuple[tuple[str, ...], ...] = ()
    gripper: Gripper | None = None
    arms: tuple[Arm, ...] = (Arm(),)
    aliases: tuple[str, ...] = ()
    formats: tuple[str, ...] = ()
    document: Document | None = None


@dataclass(frozen=True, slots=True)
class Column:
    """The axis of a stream that a joint's position is in: ``position = scale * value + offset``, rad or m."""

    joint: str
    axis: int
    scale: float = 1.0
    offset: float = 0.0


@dataclass(frozen=True, slots=True)
class Source:
    """A stream that tells the positions of an arm's joints; ``is_assumed``: but not which is which."""

    stream: str
    columns: tuple[Column, ...]
    is_assumed: bool = False

    def positions(self, values: Rows) -> dict[str, Rows]:
        """Return the positions that samples (n, axes) tell, by joint."""
        return {c.joint: c.scale * values[:, c.axis] + c.offset for c in self.columns}


@dataclass(frozen=True, slots=True)
class Placed:
    """An arm whose joints are in the streams of an episode: as measured, as commanded, or both."""

    robot: Robot
    arm: Arm
    state: Source | None
    command: Source | None

    def notes(self) -> list[str]:
        """Return what has to be told of how its joints were found."""
        streams = [one.stream for one in (self.state, self.command) if one is not None and one.is_assumed]
        if not streams:
            return []
        order = ", ".join(self.robot.order)
        return [f"joint order assumed from the embodiment: {' and '.join(streams)} as {order}"]


# ---------------------------------------------------------------- the registry


@cache
def registry() -> Mapping[str, Robot]:
    """Return the robots that are bundled, by the name of their file."""
    folder = resources.files(__package__) / "embodiments"
    texts = {f.name: f.read_text(encoding="utf-8") for f in folder.iterdir() if f.name.endswith(".toml")}
    tables = {name.removesuffix(".toml"): tomllib.loads(text) for name, text in sorted(texts.items())}
    return {
        name: _robot({**tables.get(table.get("like", ""), {}), **table}) for name, table in tables.items()
    }


def _robot(table: Mapping[str, Any]) -> Robot:
    joints = [Joint(**_triples(joint)) for joint in table["joint"]]
    arms = [Arm(**_triples(arm)) for arm in table.get("arm", [{}])]
    grip = table.get("gripper")
    return Robot(
        name=table["name"],
        chain=Chain(tuple(joints)),
        tip=table["tip"],
        order=tuple(table["axes"]["joints"]),
        names=tuple(tuple(names) for names in table["axes"].get("names", ())),
        gripper=Gripper(tuple(grip["axes"]), grip["joint"], grip["closed"], grip["open"]) if grip else None,
        arms=tuple(arms),
        aliases=tuple(table.get("aliases", ())),
        formats=tuple(table.get("formats", ())),
        document=_bundled(table.get("urdf")),
    )


def _triples(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if key in {"xyz", "rpy", "axis"} else value for key, value in table.items()}


def _bundled(told: Mapping[str, str] | None) -> Document | None:
    """Return the URDF of a Python package, if that is installed and the file is the one that is meant."""
    import hashlib
    from importlib import metadata

    if told is None:
        return None
    try:
        path = Path(str(metadata.distribution(told["package"]).locate_file(told["path"])))
        if hashlib.sha256(path.read_bytes()).hexdigest() != told["sha256"]:
            return None
    except (metadata.PackageNotFoundError, OSError):
        return None
    return read_urdf(path)


def robot_named(name: str) -> Robot:
    """Return a bundled robot by its name or an alias.

    Raises
    ------
    NotFoundError
        If there is none.
    """
    words = _words(name)
    for key, robot in registry().items():
        if words in {_words(key), _words(robot.name), *map(_words, robot.aliases)}:
            return robot
    raise NotFoundError(f"no robot is called {name!r}; bundled are: {', '.join(registry())}")


def robot_from(path: Path) -> Robot:
    """Return the robot of a URDF file. Axes are its moving joints, by name or in the order of the file.

    Raises
    ------
    FormatError
        If it is no URDF.
    """
    document = read_urdf(path)
    chain = document.chain
    moving = tuple(joint.name for joint in chain.joints if joint.type != "fixed" and joint.mimic is None)
    return Robot(name=document.name, chain=chain, tip=chain.leaf(), order=moving, document=document)


def robot_of(episode: Episode) -> Robot | None:
    """Return the bundled robot that an episode is of: by its embodiment, failing that by its format."""
    told = f" {_words(episode.embodiment)} "
    found = [
        (len(alias), robot)
        for robot in registry().values()
        for alias in map(_words, robot.aliases)
        if f" {alias} " in told
    ]
    if found:
        return max(found, key=lambda one: one[0])[1]
    if episode.embodiment != "unknown":
        return None
    formats = episode.provenance.format
    return next((robot for robot in registry().values() if formats in robot.formats), None)


def _words(text: str) -> str:
    return " ".join(re.findall(r"[a-z]+|\d+", text.lower()))


# ---------------------------------------------------------------- which axes


def placed(
    episode: Episode, robot: Robot, unit: str | None = None, *, is_certain: bool = False
) -> tuple[Placed, ...]:
    """Return the arms of a robot whose joints are in an episode.

    Parameters
    ----------
    unit
        Of joints where the stream does not say: ``rad`` or ``deg``. None: such streams are not drawn.
    is_certain
        It is known for sure that the episode is of this robot, as it is where its embodiment is a name of
        this one and nothing else. Then the axes of a stream that is of as many joints as the robot has, and
        of nothing else, are taken to be in the robot's order, though they are numbered or have no names.
    """
    is_certain = is_certain or _is_named(episode.embodiment, robot)
    low = [
        s
        for s in episode.streams.values()
        if s.spec.kind == "low_dim" and s.length and len(s.spec.shape) == 1
    ]
    observed = [s for s in low if s.spec.name.startswith("observation.") and _positions(s.spec)]
    commands = [s for s in low if s.spec.name.startswith("action") and _commands(s.spec)]
    found = []
    for arm in robot.arms:
        state = _source(observed, robot, arm, unit, is_certain=is_certain)
        command = _source(commands, robot, arm, unit, is_certain=is_certain)
        if state is not None or command is not None:
            found.append(Placed(robot, arm, state, command))
    return tuple(found)


def _positions(spec: StreamSpec) -> bool:
    name = spec.name.lower()
    others = ("vel", "effort", "torque", "current", "environment", "pose", "ee_", "previous")
    return ("state" in name or "position" in name or "joint_pos" in name) and not any(
        o in name for o in others
    )


def _commands(spec: StreamSpec) -> bool:
    parts = spec.contract.parts if spec.contract is not None else ()
    return any(part.space == "joint_position" and part.mode == "absolute" for part in parts)


def _is_named(embodiment: str, robot: Robot) -> bool:
    """Tell whether an embodiment is a name of this bundled robot, and of no other, and nothing else."""
    words = _words(embodiment)
    named = [one for one in registry().values() if words in map(_words, (one.name, *one.aliases))]
    return [one.name for one in named] == [robot.name]


def _source(
    streams: Sequence[Stream], robot: Robot, arm: Arm, unit: str | None, *, is_certain: bool
) -> Source | None:
    """Return the first stream that tells all joints of an arm, and where."""
    for stream in streams:
        columns = _columns(stream.spec, robot, arm, unit)
        if columns is not None:
            return Source(stream.spec.name, columns)
    in_order = [Column(joint, axis) for axis, joint in enumerate(robot.order)]
    for stream in streams if not arm.name else ():
        spec = stream.spec
        says_joints = not spec.axes and "joint" in spec.name
        if (is_certain or says_joints) and _is_of_joints_only(spec, len(in_order)):
            columns = _scaled(spec, robot, in_order, unit)
            if columns is not None:
                return Source(spec.name, columns, is_assumed=True)
    return None


def _is_of_joints_only(spec: StreamSpec, count: int) -> bool:
    """Tell whether a stream is of so many joints and of nothing else, though it does not name them.

    A stream that calls neither itself nor its axes joints has to say by their units that they may be: seven
    numbers of an arm of seven joints can also be the pose of its hand.
    """
    parts = spec.contract.parts if spec.contract is not None else ()
    covered = sorted((part.start, part.stop) for part in parts)
    others = [part for part in parts if part.space != "joint_position" or part.mode != "absolute"]
    if spec.shape != (count,) or others or (parts and not _cover(covered, count)):
        return False
    words = _numbered(spec.axes)
    if spec.axes and words is None:
        return False
    return words in _JOINTS or "joint" in spec.name or set(spec.unit) <= {"rad", "deg"}


def _cover(spans: Sequence[tuple[int, int]], count: int) -> bool:
    """Tell whether spans, in order, follow each other from 0 to the end."""
    return [start for start, _ in spans] + [count] == [0] + [stop for _, stop in spans]


def _numbered(axes: Sequence[str]) -> str | None:
    """Return the word that axes have before numbers that count from 0 or 1; None: they are not such."""
    found = [_NUMBER.fullmatch(axis.lower()) for axis in axes]
    told = [(match[1], int(match[2])) for match in found if match is not None]
    first = told[0] if told else ("", -1)
    counted = [(first[0], first[1] + at) for at in range(len(axes))]
    return first[0] if axes and first[1] in {0, 1} and told == counted else None


def _columns(spec: StreamSpec, robot: Robot, arm: Arm, unit: str | None) -> tuple[Column, ...] | None:
    axes = [axis.lower() for axis in spec.axes]
    if arm.name:
        before = f"{arm.name}_"
        axes = [axis.removeprefix(before) if axis.startswith(before) else "" for axis in axes]
    found: list[Column] | None = None
    for names in (robot.order, *robot.names):
        if all(name.lower() in axes for name in names):
            found = [Column(j, axes.index(name.lower())) for j, name in zip(robot.order, names, strict=True)]
            break
    scaled = None if found is None else _scaled(spec, robot, found, unit)
    return None if scaled is None else (*scaled, *_gripper(robot.gripper, axes))


def _scaled(
    spec: StreamSpec, robot: Robot, columns: Sequence[Column], unit: str | None
) -> tuple[Column, ...] | None:
    """Return the columns with their scales; None if the unit of one is not known."""
    scaled = [replace(c, scale=scale) for c in columns if (scale := _scale(spec, robot, c, unit)) is not None]
    return tuple(scaled) if len(scaled) == len(columns) else None


def _scale(spec: StreamSpec, robot: Robot, column: Column, unit: str | None) -> float | None:
    told = spec.unit[column.axis] if len(spec.unit) > column.axis else spec.unit[0]
    turns = robot.chain.joint(column.joint).unit == "rad"
    told = (unit if turns else "m") or "" if told == "unknown" and unit else told
    return SCALES[told] if told in ({"rad", "deg"} if turns else {"m", "cm", "mm"}) else None


def _gripper(gripper: Gripper | None, axes: Sequence[str]) -> Iterator[Column]:
    for name in gripper.axes if gripper is not None else ():
        if gripper is not None and name in axes:
            way = gripper.open - gripper.closed
            yield Column(gripper.joint, axes.index(name), way, gripper.closed)
            return


def limits(arms: Sequence[Placed]) -> dict[str, list[Limit]]:
    """Return what the joints behind the axes of an episode's measured positions can do, by stream.

    Where the order of the joints is assumed, nothing is found against it.
    """
    found: dict[str, list[Limit]] = {}
    for one in arms:
        for column in one.state.columns if one.state is not None and not one.state.is_assumed else ():
            joint = one.robot.chain.joint(column.joint)
            if joint.lower is None or joint.upper is None or joint.type == "continuous" or column.offset:
                continue
            limit = Limit(
                axis=column.axis,
                joint=f"{one.arm.name}_{joint.name}" if one.arm.name else joint.name,
                lower=joint.lower,
                upper=joint.upper,
                velocity=joint.velocity,
                scale=column.scale,
                unit=joint.unit,
            )
            found.setdefault(one.state.stream if one.state else "", []).append(limit)
    return found


def trail(arm: Placed, source: Source, values: Rows) -> Rows:
    """Return the way of an arm's tip in the robot's frame: (n, 3) metres, from samples (n, axes)."""
    poses = arm.robot.chain.poses(source.positions(values))[arm.robot.tip]
    from .kinematics import pose_of

    points: Rows = (pose_of(arm.arm.xyz, arm.arm.rpy) @ poses)[:, :3, 3]
    return np.asarray(points)
