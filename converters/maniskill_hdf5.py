"""ManiSkill's trajectories: an HDF5 file, and a JSON file of the same name beside it.

Field notes. ``traj_<n>`` holds what `RecordEpisode` recorded (haosulab/ManiSkill:
mani_skill/utils/wrappers/record.py); the JSON has one record per trajectory and tells the task, how the robot
was controlled and whether the task was solved. Nothing of it is ever made or run.

*Rows.* ``obs`` and ``env_states`` have one row more than ``actions``: the one that the last action led to.
They have a clock of that length; row t of it comes before action t. ``rewards``, ``success``, ``fail``,
``terminated`` and ``truncated`` tell what came of the action of their row.

*Actions* mean what ``control_mode`` says, and how wide each part is depends on the robot. Known are Panda's
(mani_skill/agents/robots/panda/panda.py, mani_skill/agents/controllers). Its arm comes first and its gripper
last, as one number from -1 closed to 1 open. Deltas are scaled from -1..1 to ±0.1 m or rad; rotations are
Euler angles since ManiSkill 3 (pd_ee_pose.py: compute_target_pose), whose files have ``env_states`` as a
group. ``target`` modes add to the last target, not to the measured state, which the contract has no word for.

*Poses* are x, y, z and a quaternion w, x, y, z (mani_skill/utils/structs/pose.py), in the frame of the world.
An actor's state is its pose, then linear and angular velocity.

*Depth* is in millimetres, as 16 bits with a sign since ManiSkill 3 (mani_skill/render/shaders.py) and without
one before. The same bits are kept without a sign; no camera sees 32 metres.

*Time.* The clock is nominal at ``control_freq`` of ``env_kwargs`` or of its ``sim_config``. A task has 20
unless it says otherwise (mani_skill/utils/structs/types.py: SimConfig), which the files do not tell: then the
option `rate_hz` is needed.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from ..schemas import UNKNOWN, ActionContract, ActionPart, Episode, FormatError, Json, SourceFile, StreamSpec
from ..schemas.episode import Mode, Rotation, Space
from ._contracts import gripper, part
from ._demos import (
    Demo,
    depth_of,
    first_numbered,
    is_demo_file,
    members_in,
    members_of,
    number_of,
    numbered,
    only,
    outcome_of,
    picture_of,
    rate_of,
    spec_of,
    tell_bounded,
)
from ._draft import Draft, embodiment_of, stream_name
from ._hdf5 import Field, Hdf5, open_hdf5
from .base import Format, contained, source_file

VERSION = "1"

_TRAJECTORY = re.compile(r"traj_(\d{1,18})")

_RECORDER = "haosulab/ManiSkill: mani_skill/utils/wrappers/record.py: RecordEpisode"
_PANDA = "mani_skill/agents/robots/panda/panda.py: controller_configs"
_PANDAS = ("panda", "panda_wristcam")
_ARM = 7

_POSE_AXES = ("x", "y", "z", "qw", "qx", "qy", "qz")
_POSE_UNITS = ("m", "m", "m", "1", "1", "1", "1")
_ACTOR_AXES = (*_POSE_AXES, "vx", "vy", "vz", "wx", "wy", "wz")
_ACTOR_UNITS = (*_POSE_UNITS, *("m/s",) * 3, *("rad/s",) * 3)

_NEXT = {
    "rewards": "next.reward",
    "success": "next.success",
    "fail": "next.fail",
    "terminated": "next.terminated",
    "truncated": "next.truncated",
}


@dataclass(frozen=True, slots=True)
class _Control:
    """What Panda's arm is told in a control mode: its numbers by space, mode and rotation."""

    runs: tuple[tuple[Space, int, Rotation], ...]
    mode: Mode
    frame: str | None = None
    unit: str = "1"


_POSE: tuple[tuple[Space, int, Rotation], ...] = (
    ("ee_position", 3, "none"),
    ("ee_orientation", 3, "euler_xyz"),
)
_JOINTS: tuple[tuple[Space, int, Rotation], ...] = (("joint_position", _ARM, "none"),)
_CONTROLS = {
    "pd_joint_pos": _Control(_JOINTS, "absolute", unit="rad"),
    "pd_joint_delta_pos": _Control(_JOINTS, "delta"),
    "pd_joint_target_delta_pos": _Control(_JOINTS, "unknown"),
    "pd_ee_delta_pos": _Control(_POSE[:1], "delta", "base"),
    "pd_ee_target_delta_pos": _Control(_POSE[:1], "unknown", "base"),
    "pd_ee_delta_pose": _Control(_POSE, "delta", "base"),
    "pd_ee_target_delta_pose": _Control(_POSE, "unknown", "base"),
    "pd_joint_vel": _Control((("joint_velocity", _ARM, "none"),), "absolute"),
}


@dataclass(frozen=True)
class ManiSkillHdf5:
    """Reads one file of trajectories; each of them is an episode.

    Attributes
    ----------
    block_bytes
        Most payload bytes in a block.
    rate_hz
        Steps per second; None: ``control_freq``, where the JSON tells it.
    instruction
        What the robot was asked to do, since the format has no place for it.
    """

    format: ClassVar[Format] = Format(
        name="maniskill-hdf5",
        title="ManiSkill trajectories (HDF5 and JSON)",
        suffixes=(".h5", ".hdf5"),
        spec="https://github.com/haosulab/ManiSkill: mani_skill/utils/wrappers/record.py",
    )
    block_bytes: int = 16 << 20
    rate_hz: float | None = None
    instruction: str | None = None

    def probe(self, path: Path) -> bool:
        """Tell whether a file has ``traj_<n>`` with actions and the ends of episodes, by its names."""
        return is_demo_file(path, _is_maniskill)

    def episodes(self, path: Path) -> Iterator[Episode]:
        """Yield the trajectories in the order of their numbers."""
        with open_hdf5(path, lambda name: not _TRAJECTORY.fullmatch(name)) as hdf5:
            names = numbered(hdf5.passed_by, _TRAJECTORY)
        if not names:
            raise FormatError(str(path), "", "holds no traj_<n>", "Is this a file of ManiSkill's?")
        record = _Record.beside(path)
        source = source_file(path, path)
        for name in names:
            with open_hdf5(path, only(name)) as hdf5:
                episode = _Reader(hdf5, name, self, record).episode(source)
            yield episode


def _is_maniskill(file: Any) -> bool:
    trajectory = first_numbered(file, _TRAJECTORY)
    return (
        trajectory is not None
        and "actions" in trajectory
        and ("env_states" in trajectory or "terminated" in trajectory or "success" in trajectory)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Record:
    """The JSON file: its members, and those of each trajectory by its number."""

    path: Path
    sources: tuple[SourceFile, ...] = ()
    members: Mapping[str, Json] = field(default_factory=dict)
    episodes: Mapping[int, Mapping[str, Json]] = field(default_factory=dict)

    @classmethod
    def beside(cls, path: Path) -> _Record:
        """Read the JSON file of a file of trajectories; an empty record if there is none."""
        name = f"{path.stem}.json"
        beside = path.with_name(name)
        if not beside.exists():
            return cls(path=beside)
        target = contained(path.parent, name, path=path, where=name)
        members = members_in(target)
        listed = members.get("episodes")
        episodes = {
            one["episode_id"]: one
            for one in (listed if isinstance(listed, list) else [])
            if isinstance(one, dict) and isinstance(one.get("episode_id"), int)
        }
        rest = {key: value for key, value in members.items() if key != "episodes"}
        found = source_file(target, target.parent, "metadata")
        return cls(path=beside, sources=(found,), members=rest, episodes=episodes)

    @property
    def arguments(self) -> Mapping[str, Json]:
        """The arguments that the environment was made with."""
        return members_of(members_of(self.members.get("env_info")).get("env_kwargs"))


class _Reader:
    """Goes through the fields of one trajectory."""

    def __init__(self, hdf5: Hdf5, name: str, options: ManiSkillHdf5, record: _Record) -> None:
        self.hdf5, self.name, self.options, self.record = hdf5, name, options, record
        self.draft = Draft(hdf5.path, name)
        self.mine = record.episodes.get(int(name.removeprefix("traj_")), {})
        rate, rate_source = self._rate()
        self.demo = Demo(
            hdf5=hdf5,
            group=name,
            draft=self.draft,
            length=self._length(),
            rate_hz=rate,
            rate_source=rate_source,
            block_bytes=options.block_bytes,
            one_more=("obs", "env_states"),
        )

    def episode(self, source: SourceFile) -> Episode:
        """Decide what becomes of every field."""
        self.demo.place(self._spec)
        if self.options.instruction is not None:
            self.draft.instruct(self.options.instruction)
        self._tell_record()
        self.demo.rest()
        return self.draft.build(
            self.options,
            [source, *self.record.sources],
            version=VERSION,
            selector=self.name,
            embodiment=embodiment_of(self._robot()),
            outcome=outcome_of(self._success()),
        )

    def _rate(self) -> tuple[float, str]:
        arguments = self.record.arguments
        places = (("", arguments), ("sim_config.", members_of(arguments.get("sim_config"))))
        told = [
            (
                number_of(members.get("control_freq")),
                f"{self.record.path.name}: env_info.env_kwargs.{where}control_freq",
            )
            for where, members in places
        ]
        usual = "ManiSkill's tasks have 20 unless they say otherwise"
        return rate_of(self.draft, self.options.rate_hz, told, usual)

    def _length(self) -> int:
        """Return the rows of actions, which are a group if several robots act."""
        prefix = f"{self.name}/actions"
        found = [f for n, f in self.hdf5.fields.items() if n == prefix or n.startswith(f"{prefix}/")]
        lengths = {f.shape[0] if f.shape and not f.unread else 0 for f in found}
        if len(lengths) != 1 or lengths == {0}:
            why = "are of different lengths" if len(lengths) > 1 else "are missing, or have no rows"
            self.draft.refuse("actions", why, "The recording was cut off")
        return lengths.pop()

    def _spec(self, name: str, found: Field) -> StreamSpec | None:
        top, _, rest = name.partition("/")
        path = rest.split("/") if rest else []
        if top == "actions":
            return self._action(found, path)
        if top in _NEXT and not path:
            return spec_of(found, _NEXT[top], unit=("1",) if found.dtype.kind == "b" else (UNKNOWN,))
        if top == "obs":
            return self._observation(found, path)
        if top == "env_states":
            return self._state(found, path)
        return None

    def _observation(self, found: Field, path: Sequence[str]) -> StreamSpec:
        if not path:
            return spec_of(
                found, "observation.state", description="All of the task's observations, flattened."
            )
        group, key = path[0], path[-1]
        camera = path[1] if len(path) == 3 and group in {"sensor_data", "image"} else ""
        if camera and key in {"rgb", "Color", "color"}:
            picture = picture_of(found, stream_name("observation", "images", camera), stored_order="rgb")
            if picture is not None:
                return picture
        if camera and key == "depth":
            depth = depth_of(found, stream_name("observation", "depth", camera), "mm")
            if depth is not None and found.dtype.kind in "iu":
                return depth
        if group == "agent" and key in {"qpos", "qvel"}:
            who = path[1:-1]
            quantity = "joint_position" if key == "qpos" else "joint_velocity"
            about = "Angles and, of gripper fingers, lengths; in SI units."
            return spec_of(found, stream_name("observation", *who, quantity), description=about)
        if key == "tcp_pose":
            return self._pose(found, "observation.ee_pose")
        if key.endswith("pose"):
            return self._pose(found, stream_name("observation", *path))
        home = "extra" if group in {"sensor_data", "sensor_param", "image"} else "observation"
        return spec_of(found, stream_name(home, *path))

    def _pose(self, found: Field, name: str) -> StreamSpec:
        return spec_of(
            found, name, unit=_POSE_UNITS, axes=_POSE_AXES, frame="world", rotation="quaternion_wxyz"
        )

    def _state(self, found: Field, path: Sequence[str]) -> StreamSpec:
        name = stream_name("extra", "env_states", *path)
        if len(path) == 2 and path[0] == "actors":
            spec = spec_of(found, name, unit=_ACTOR_UNITS, axes=_ACTOR_AXES, frame="world")
            return (
                dataclasses.replace(spec, attributes={"rotation": "quaternion_wxyz"}) if spec.axes else spec
            )
        about = "Pose (quaternion w, x, y, z) and velocities of the root, then joints and their velocities."
        return spec_of(found, name, description=about if path[:1] == ["articulations"] else "")

    def _action(self, found: Field, path: Sequence[str]) -> StreamSpec:
        mode = self.mine.get("control_mode", self.record.arguments.get("control_mode"))
        told = f"{_RECORDER}: an observation comes before the action of its row; control_mode {mode!r}"
        control = _CONTROLS.get(mode) if isinstance(mode, str) and self._robot() in _PANDAS else None
        width = found.shape[-1] if len(found.shape) == 2 else 0
        arm = sum(run[1] for run in control.runs) if control else 0
        parts: list[ActionPart] = []
        spec = spec_of(
            found, stream_name("action", *path), control_mode=mode if isinstance(mode, str) else None
        )
        if control and width == arm + 1 and not path:
            parts = self._parts(control)
            told += f"; {_PANDA}"
            spec = dataclasses.replace(spec, unit=(control.unit,) * arm + ("1",))
        contract = ActionContract(parts=tuple(parts), offset_steps=0, evidence=told[:1_000])
        return dataclasses.replace(spec, contract=contract)

    def _parts(self, control: _Control) -> list[ActionPart]:
        newer = any(name.startswith(f"{self.name}/env_states/") for name in self.hdf5.fields)
        parts, at = [], 0
        for space, width, rotation in control.runs:
            known = rotation if newer or rotation == "none" else "unknown"
            parts.append(part(at, at + width, space, control.mode, control.frame, known))
            at += width
        return [*parts, gripper(at, closed=-1.0, opened=1.0)]

    def _robot(self) -> str:
        """Return the robot's name: the JSON's word, or that of the one articulation that is known."""
        told = self.record.arguments.get("robot_uids")
        if isinstance(told, str):
            return told
        prefix = f"{self.name}/env_states/articulations/"
        there = {name.removeprefix(prefix) for name in self.hdf5.fields if name.startswith(prefix)}
        known = there & set(_PANDAS)
        return known.pop() if len(known) == 1 else UNKNOWN

    def _success(self) -> Json:
        """Return whether the task was solved in the end, as the JSON says or the last row."""
        told, found = self.mine.get("success"), self.hdf5.fields.get(f"{self.name}/success")
        last: Json = None
        if (
            found is not None
            and self.demo.readable(found)
            and found.dtype.kind == "b"
            and len(found.shape) == 1
        ):
            rows = found.shape[0]
            last = bool(next(self.hdf5.rows(found, rows - 1, rows, 1))[0])
        if isinstance(told, bool) and isinstance(last, bool) and told != last:
            self.draft.warn(
                f"the JSON says success {told}, and the last row of success {last}: nothing is believed"
            )
            return None
        return told if isinstance(told, bool) else last

    def _tell_record(self) -> None:
        name = self.record.path.name
        if not self.record.sources:
            self.draft.warn(f"there is no {name}, which tells how the robot was controlled")
            return
        for key, value in self.record.members.items():
            tell_bounded(self.draft, f"{name}@{key}", value, "recording")
        if self.mine:
            tell_bounded(self.draft, f"{name}@episodes", dict(self.mine), "recording")
        else:
            self.draft.drop(f"{name}@episodes", "has no record of this trajectory")
            self.draft.warn(f"{name} has no record of {self.name}")
        steps = self.mine.get("elapsed_steps", self.demo.length)
        if steps != self.demo.length:
            self.draft.warn(f"elapsed_steps is {steps!r}, and there are {self.demo.length} actions")


CONVERTER = ManiSkillHdf5
