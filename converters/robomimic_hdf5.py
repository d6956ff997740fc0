"""robomimic's HDF5 files and their kin: MimicGen, RoboCasa, Isaac Lab, and robosuite's own demonstrations.

Field notes. One file holds many demonstrations as ``data/demo_<n>``, which are taken by their numbers
(ARISE-Initiative/robomimic: docs/datasets/overview.md, robomimic/utils/dataset.py). What wrote a file is told
from its content:

- ``robosuite``: ``data`` has ``env_args`` of type 1 (robomimic, MimicGen, RoboCasa), or ``env_info`` or
  ``repository_version`` (robosuite: scripts/collect_human_demonstrations.py, states and actions only).
- ``isaaclab``: ``env_args`` of type 2 and simulator states (isaac-sim/IsaacLab:
  source/isaaclab/isaaclab/utils/datasets/hdf5_dataset_file_handler.py).
- ``unknown``: any other, such as robomimic's Gym data; names are kept and nothing is said on their meaning.

*Rows.* An observation and the simulator's ``states`` come before the action of their row, ``next_obs``,
``rewards`` and ``dones`` after it (robomimic/scripts/dataset_states_to_obs.py: extract_trajectory). Isaac Lab
takes ``obs`` and ``actions`` before the step and ``states`` after it (isaac-sim/IsaacLab:
source/isaaclab/isaaclab/envs/mdp/recorders/recorders.py). robosuite 0.3 has no ``actions`` but the parts of
commands, whose rows nobody explains.

*Time.* Nobody stores stamps. The clock is nominal at ``control_freq``, or Isaac Lab's 1 / (dt × decimation);
where neither is told, the option `rate_hz` is needed. robosuite's demonstrations never tell it.

*Quaternions* are x, y, z, w in observations of robosuite. Isaac Lab changed from w, x, y, z to x, y, z, w in
January 2026 (isaac-sim/IsaacLab: pull request 4437) and its files do not tell which: the option
`quaternion_order` does.

*Pictures* of robosuite are stored the right way up: robomimic turns over what OpenGL gives
(robomimic/envs/env_robosuite.py: get_observation), and makes metres of depths.

*``dones`` and ``rewards``* depend on how observations were extracted (``--done_mode``, ``--shaped``), so they
are no word on success. Isaac Lab's ``success`` is. It also says False where a task does not judge itself
(isaac-sim/IsaacLab: source/isaaclab/isaaclab/managers/recorder_manager.py: record_pre_reset).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from ..schemas import UNKNOWN, ActionContract, ActionPart, Episode, FormatError, Json, SourceFile, StreamSpec
from ..schemas.episode import Rotation, Space
from ._contracts import part
from ._demos import (
    Demo,
    depth_of,
    first_numbered,
    is_demo_file,
    json_of,
    members_of,
    number_of,
    numbered,
    only,
    outcome_of,
    own_group,
    picture_of,
    rate_of,
    spec_of,
)
from ._draft import Draft, embodiment_of, stream_name
from ._hdf5 import Field, Hdf5, open_hdf5
from ._robosuite import Environment, action_spec, gripper_part, observation_spec
from .base import Format, source_file

VERSION = "1"

_DEMO = re.compile(r"demo_(\d{1,18})")
_MAX_FILTER_NAMES = 1_000_000
_MAX_NAME_BYTES = 500
_SHOWN = 3
_LIBERO = ("problem_info", "bddl_file_name")

_ROWS = {
    "robosuite": "ARISE-Initiative/robomimic: robomimic/scripts/dataset_states_to_obs.py: "
    "an observation comes before the action of its row",
    "raw": "robosuite: scripts/collect_human_demonstrations.py: a state comes before the action of its row",
    "isaaclab": "isaac-sim/IsaacLab: source/isaaclab/isaaclab/envs/mdp/recorders/recorders.py: "
    "observations and actions are recorded before the step",
    "unknown": "ARISE-Initiative/robomimic: docs/datasets/overview.md: "
    "an observation and its action share a row",
}
_UPRIGHT = {
    "orientation": "upright",
    "orientation_evidence": "ARISE-Initiative/robomimic: robomimic/envs/env_robosuite.py: get_observation",
}
_AFTER = {
    "rewards": ("next.reward", "Reward after the action."),
    "dones": (
        "next.done",
        "Whether the action ended the demonstration, by the rule that its writer was given.",
    ),
}
_DICT: dict[str, tuple[Space, Rotation]] = {
    "pos": ("ee_position", "none"),
    "rot_axis_angle": ("ee_orientation", "axis_angle"),
    "rot_6d": ("ee_orientation", "rotation_6d"),
}
_QUATERNION = re.compile(r"(^|_)quat$|^root_pose$")
_ORDER_UNKNOWN = (
    "nothing tells the order of quaternions: Isaac Lab's were w, x, y, z before January 2026 and are "
    "x, y, z, w since (isaac-sim/IsaacLab: pull request 4437). Say which: option quaternion_order"
)


@dataclass(frozen=True)
class RobomimicHdf5:
    """Reads one file; each of its demonstrations is an episode.

    Attributes
    ----------
    block_bytes
        Most payload bytes in a block.
    rate_hz
        Steps per second; None: what the file says.
    instruction
        What the robot was asked to do; None: ``lang`` of ``ep_meta``, where there is one.
    quaternion_order
        Order of Isaac Lab's quaternions, which its files do not tell.
    """

    format: ClassVar[Format] = Format(
        name="robomimic-hdf5",
        title="robomimic HDF5 (robosuite, MimicGen, RoboCasa, Isaac Lab)",
        suffixes=(".hdf5", ".h5"),
        spec="https://github.com/ARISE-Initiative/robomimic: docs/datasets/overview.md",
    )
    block_bytes: int = 16 << 20
    rate_hz: float | None = None
    instruction: str | None = None
    quaternion_order: Literal["wxyz", "xyzw"] | None = None

    def probe(self, path: Path) -> bool:
        """Tell whether a file has ``data/demo_<n>`` and is none of LIBERO's, by its names."""
        return is_demo_file(path, _is_robomimic)

    def episodes(self, path: Path) -> Iterator[Episode]:
        """Yield the demonstrations in the order of their numbers."""
        with open_hdf5(path, _header) as hdf5:
            names = numbered(hdf5.passed_by, _DEMO)
            filters = _filters(hdf5, names)
        if not names:
            raise FormatError(str(path), "data", "holds no demo_<n>", "Is this a file of robomimic's kind?")
        source = source_file(path, path)
        for name in names:
            yield self._episode(path, name, filters, source)

    def _episode(self, path: Path, name: str, filters: _Filters, source: SourceFile) -> Episode:
        with open_hdf5(path, only(name)) as hdf5:
            return _Reader(hdf5, name, self).episode(filters, source)


def _header(name: str) -> bool:
    """Let pass all but what lies in ``data``, which may be thousands of demonstrations."""
    return not name.startswith("data/")


def _is_robomimic(file: Any) -> bool:
    data = own_group(file, "data")
    demo = None if data is None else first_numbered(data, _DEMO)
    if data is None or demo is None or any(name in data.attrs for name in _LIBERO):
        return False
    return any(name in demo for name in ("actions", "states", "obs"))


@dataclass(frozen=True, slots=True)
class _Filters:
    """Which demonstrations ``mask`` lists, by the name of the list, and what is wrong with the lists."""

    members: Mapping[str, frozenset[str]] = field(default_factory=dict)
    unread: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def _filters(hdf5: Hdf5, demos: Sequence[str]) -> _Filters:
    """Read the filter keys: lists of names of demonstrations (robomimic: robomimic/utils/file_utils.py)."""
    members, unread, warnings = {}, {}, []
    there = {name.removeprefix("data/") for name in demos}
    for name, found in hdf5.fields.items():
        if not name.startswith("mask/"):
            continue
        if not _is_list_of_names(found):
            unread[name] = found.unread or f"is no list of names: {found.shape} of {found.dtype}"
            continue
        listed: set[str] = set()
        absent: list[str] = []
        for text in _names(hdf5, found):
            if text in there:
                listed.add(text)
            elif len(absent) < _SHOWN:
                absent.append(ascii(text[:80]))
        members[name] = frozenset(listed)
        if absent:
            warnings.append(f"{name} lists what is no demonstration here, such as {', '.join(absent)}")
    return _Filters(members, unread, tuple(warnings))


def _is_list_of_names(found: Field) -> bool:
    readable = found.varying or (not found.unread and found.dtype.kind == "S")
    small = len(found.shape) == 1 and found.shape[0] <= _MAX_FILTER_NAMES
    return readable and small and found.dtype.itemsize <= _MAX_NAME_BYTES


def _names(hdf5: Hdf5, found: Field) -> Iterator[str]:
    rows = found.shape[0]
    raw = hdf5.varying_rows(found, 0, rows, _MAX_NAME_BYTES) if found.varying else _fixed(hdf5, found)
    return (text.decode("utf-8", "replace") for text in raw)


def _fixed(hdf5: Hdf5, found: Field) -> Iterator[bytes]:
    for block in hdf5.rows(found, 0, found.shape[0], 4_096):
        yield from block.tolist()


class _Reader:
    """Goes through the fields of one demonstration."""

    def __init__(self, hdf5: Hdf5, name: str, options: RobomimicHdf5) -> None:
        self.hdf5, self.name, self.options = hdf5, name, options
        self.draft = Draft(hdf5.path, name)
        self.environment = Environment.of(hdf5, self.draft)
        self.dialect = self._dialect()
        self.raw = not any(field.startswith(f"{name}/obs/") for field in hdf5.fields)
        rate, rate_source = self._rate()
        self.demo = Demo(
            hdf5=hdf5,
            group=name,
            draft=self.draft,
            length=self._length(),
            rate_hz=rate,
            rate_source=rate_source,
            block_bytes=options.block_bytes,
        )

    def episode(self, filters: _Filters, source: SourceFile) -> Episode:
        """Decide what becomes of every field."""
        self.demo.place(self._spec)
        self._tell_filters(filters)
        self._tell_instruction()
        self.demo.check_count("num_samples")
        outcome = outcome_of(self.hdf5.attributes.get(f"{self.name}@success"))
        if outcome == "failure" and self.dialect == "isaaclab":
            self.draft.warn("success is False, which Isaac Lab also says where a task does not judge itself")
        self.demo.rest()
        self.draft.extra["dialect"] = self.dialect
        return self.draft.build(
            self.options,
            [source],
            version=VERSION,
            selector=self.name,
            embodiment=embodiment_of(self.environment.embodiment),
            outcome=outcome,
        )

    def _dialect(self) -> str:
        attributes, kind = self.hdf5.attributes, self.environment.kind
        simulated = any(
            f.startswith((f"{self.name}/initial_state/", f"{self.name}/states/")) for f in self.hdf5.fields
        )
        if kind == 1 or {"data@env_info", "data@repository_version"} & attributes.keys():
            return "robosuite"
        return "isaaclab" if kind == 2 and (simulated or self.environment.simulation) else UNKNOWN

    def _length(self) -> int:
        """Return the steps: the rows of actions, of states where there are none, or of the first array."""
        fields = [(n.removeprefix(f"{self.name}/"), f) for n, f in self.hdf5.fields.items()]
        core = {n: f.shape[0] for n, f in fields if f.shape and not f.unread}
        if not core:
            self.draft.refuse("", "holds no array that can be read")
        length = core.get("actions", core.get("states", next(iter(core.values()))))
        if not length:
            self.draft.refuse("actions" if "actions" in core else "", "has no rows")
        return length

    def _rate(self) -> tuple[float, str]:
        simulation, args = self.environment.simulation, "env_args or env_info of data"
        step, decimation = number_of(simulation.get("dt")), number_of(simulation.get("decimation"))
        simulated = 1 / (step * decimation) if step and decimation else None
        told = [
            (self.environment.control_hz, f"control_freq of the attribute {args}"),
            (simulated, "1 / (dt × decimation) of sim_args in the attribute env_args of data"),
        ]
        usual = "robosuite 1.4 and later make 20 unless told otherwise"
        return rate_of(self.draft, self.options.rate_hz, told, usual)

    def _spec(self, name: str, found: Field) -> StreamSpec | None:
        top, _, key = name.partition("/")
        if name in {"actions", "actions_abs"} or (top == "action_dict" and key):
            return self._action(name, found)
        if top in {"obs", "next_obs"} and key:
            home = "observation" if top == "obs" else "next_observation"
            if self.dialect == "robosuite":
                return observation_spec(found, key, home, _UPRIGHT)
            return self._observation(found, key, home)
        if name in _AFTER:
            stream, description = _AFTER[name]
            return spec_of(found, stream, description=description)
        if top == "states" or (top == "processed_actions" and self.dialect == "isaaclab"):
            return self._state(name, found)
        if self.dialect == "robosuite" and name in _OLD:
            return self._command(found, _OLD[name], ())
        return None

    def _action(self, name: str, found: Field) -> StreamSpec:
        offset, evidence = 0, _ROWS["raw" if self.raw and self.dialect == "robosuite" else self.dialect]
        if name == "actions":
            return action_spec(found, self.environment, offset, evidence)
        actions = self.hdf5.fields.get(f"{self.name}/actions")
        width = actions.shape[-1] if actions is not None and len(actions.shape) == 2 else 0
        parts = self.environment.parts(width)
        last = found.shape[-1] if len(found.shape) == 2 else 0
        if name == "actions_abs":
            frame = parts[0].frame if parts else UNKNOWN
            absolute = [_absolute(part, frame) for part in parts] if last == width else []
            return self._command(found, "action.absolute", absolute, offset, evidence)
        key = name.partition("/")[2]
        mode, _, what = key.partition("_")
        meant: list[ActionPart] = []
        if what in _DICT and mode in {"rel", "abs"} and len(self.environment.controllers) == 1 and parts:
            space, rotation = _DICT[what]
            delta = parts[0].mode if mode == "rel" else "absolute"
            meant = [part(0, last, space, delta, parts[0].frame, rotation)]
        elif key == "gripper" and last == 1 and parts and parts[-1].space == "gripper":
            meant = [gripper_part(0)]
        return self._command(found, stream_name("action", *key.split("/")), meant, offset, evidence)

    def _command(
        self,
        found: Field,
        name: str,
        parts: Sequence[ActionPart],
        offset: int | None = None,
        evidence: str = "",
    ) -> StreamSpec:
        contract = ActionContract(parts=tuple(parts), offset_steps=offset, evidence=evidence)
        return dataclasses.replace(spec_of(found, name), contract=contract)

    def _observation(self, found: Field, key: str, home: str) -> StreamSpec:
        """Return the spec of an observation whose name was chosen by whoever set up the task."""
        path = key.split("/")
        camera = [*path[:-1], re.sub(r"_(image|rgb)$", "", path[-1])]
        picture = picture_of(found, stream_name(home, "images", *camera), orientation=UNKNOWN)
        if picture is not None:
            return picture
        if re.search(r"depth|distance_to", key):
            depth = depth_of(found, stream_name(home, "depth", *path), UNKNOWN, orientation=UNKNOWN)
            if depth is not None:
                return depth
        return spec_of(found, stream_name(home, *path), **self._rotation(path[-1], found))

    def _state(self, name: str, found: Field) -> StreamSpec:
        taken = {"robosuite": "before the row's action", "isaaclab": "after the row's action"}
        has_actions = f"{self.name}/actions" in self.hdf5.fields
        path = name.split("/")
        return spec_of(
            found,
            stream_name("extra", *path),
            description="State of the simulator.",
            taken=taken.get(self.dialect, UNKNOWN) if has_actions else UNKNOWN,
            **self._rotation(path[-1], found),
        )

    def _rotation(self, key: str, found: Field) -> dict[str, Json]:
        """Return what is known of the quaternion in Isaac Lab's arrays of these names."""
        width = found.shape[-1] if len(found.shape) == 2 else 0
        if self.dialect != "isaaclab" or not _QUATERNION.search(key) or width not in {4, 7}:
            return {}
        order = self.options.quaternion_order
        if order is None:
            self.draft.warn(_ORDER_UNKNOWN)
        return {"rotation": f"quaternion_{order}" if order else UNKNOWN}

    def _tell_filters(self, filters: _Filters) -> None:
        for text in filters.warnings:
            self.draft.warn(text)
        demo = self.name.removeprefix("data/")
        keys = [name.removeprefix("mask/") for name, listed in filters.members.items() if demo in listed]
        if keys:
            self.draft.extra["filter_keys"] = keys
        for name in filters.members:
            how = "each demonstration tells the lists that it is on"
            self.draft.account(name, "transformed", ["extra.filter_keys"], how, lossless=None)
        for name, why in filters.unread.items():
            self.draft.drop(name, why)

    def _tell_instruction(self) -> None:
        name = f"{self.name}@ep_meta"
        text = self.hdf5.attributes.get(name)
        if self.options.instruction is not None:
            self.draft.instruct(self.options.instruction)
        elif isinstance(text, str):
            try:
                said = members_of(json_of(text)).get("lang")
            except ValueError as error:
                self.draft.warn(f"{name} {error}: it tells nothing")
                return
            if self.draft.instruct(said):
                self.draft.tell(name, text, to=["instructions"])


def _absolute(part: ActionPart, frame: str | None) -> ActionPart:
    """Return what the same axes mean in ``actions_abs`` (robomimic: robosuite_add_absolute_actions.py)."""
    known = frame if frame == "world" else UNKNOWN
    return part if part.space == "gripper" else dataclasses.replace(part, mode="absolute", frame=known)


_OLD = {
    "joint_velocities": "action.joint_velocity",
    "gripper_actuations": "action.gripper",
    "right_dpos": "action.right_dpos",
    "right_dquat": "action.right_dquat",
    "left_dpos": "action.left_dpos",
    "left_dquat": "action.left_dquat",
}
"""Parts of commands of robosuite 0.3 (robosuite 0.3.0: wrappers/data_collection.py: step)."""

CONVERTER = RobomimicHdf5
