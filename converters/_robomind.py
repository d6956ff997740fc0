"""RoboMIND's robots: what the columns of their arrays are, told by the arrays' shapes.

Sources: github.com/Open-X-Humanoid/x-humanoid-training-toolchain: scripts/configs/all_robot_h5_info.md and
all_robot_h5_info_v1.2.md (layouts, units, quaternions xyzw, roll pitch yaw in rad); order of colours:
github.com/Tavish9/any4lerobot: robomind2lerobot/robomind_uitls/robomind_uitls.py, which turns round what
OpenCV decodes for Franka and UR alone: their JPEGs are common
ones, those of the others were encoded from RGB.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..schemas import UNKNOWN, ActionContract, StreamSpec
from ..schemas.episode import Rotation, Space
from ._contracts import part
from ._hdf5 import Field
from ._jpeg import ChannelOrder

RATE_HZ = 30.0
RATE_SOURCE = "x-humanoid-training-toolchain: scripts/convert_to_lerobot.py: default of --fps"

_INFO = "x-humanoid-training-toolchain: scripts/configs/all_robot_h5_info_v1.2.md"
_COLOURS = "any4lerobot: robomind2lerobot/robomind_uitls/robomind_uitls.py"
_EVIDENCE = f"{_INFO}: master is the leader's side, puppet the robot's; units and columns are told there"
_POSE6, _POSE7 = ("x", "y", "z", "roll", "pitch", "yaw"), ("x", "y", "z", "qx", "qy", "qz", "qw")
_FINGERS = ("little", "ring", "middle", "index", "thumb_bend", "thumb_rotate")
_HAND12 = (
    "thumb_bend", "thumb_rotate", "passive_thumb_bend", "passive_thumb_rotate", "index", "passive_index",
    "middle", "passive_middle", "ring", "passive_ring", "little", "passive_little",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Run:
    """A run of columns of one meaning."""

    axes: tuple[str, ...]
    unit: tuple[str, ...]
    space: Space
    rotation: Rotation = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Robot:
    """A robot of the data set.

    Attributes
    ----------
    arrays
        Runs of columns by the name of an array, without ``_left`` or ``_right``.
    order, order_evidence
        Which decoder gives the pixels that were encoded; None: nobody says.
    simulated, states_per_picture
        Whether it is a simulation, and how many rows of states there are for a picture.
    """

    name: str
    arrays: Mapping[str, tuple[Run, ...]]
    order: ChannelOrder | None = None
    simulated: bool = False
    states_per_picture: int = 1

    @property
    def order_evidence(self) -> str:
        """Where the order of colours is known from."""
        return _COLOURS if self.order else UNKNOWN

    def spec(self, found: Field, stream: str, clock: str) -> StreamSpec:
        """Return the spec of an array of this robot; bare if it has another number of columns."""
        quantity = found.name.rpartition("/")[2].removesuffix("_left").removesuffix("_right")
        runs = self.arrays.get(quantity, ())
        axes = tuple(axis for run in runs for axis in run.axes)
        if found.shape[1:] != (len(axes),):
            runs, axes = (), ()
        unit = tuple(unit for run in runs for unit in run.unit) or (UNKNOWN,)
        return StreamSpec(
            name=stream,
            kind="low_dim",
            dtype=found.dtype.name,
            shape=found.shape[1:],
            unit=unit,
            axes=axes,
            frame=UNKNOWN if any(run.space == "ee_pose" for run in runs) else None,
            clock=clock,
            contract=_contract(runs) if stream.startswith("action") else None,
        )


def robot_of(fields: Mapping[str, Field]) -> Robot:
    """Tell the robot from the names and widths of its arrays; `UNKNOWN_ROBOT` if it is none of them."""
    if any(name.startswith("tiangong/") for name in fields):
        return _ROBOTS["sim_tienkung"]
    if "franka/joint_position" in fields:
        return _ROBOTS["sim_franka"]
    if "puppet/joint_position_left" in fields:
        return _ROBOTS["agilex"]
    joints = _width(fields, "puppet/joint_position")
    return _BY_WIDTH.get((joints, _width(fields, "puppet/end_effector")), UNKNOWN_ROBOT)


def _width(fields: Mapping[str, Field], name: str) -> int:
    found = fields.get(name)
    return found.shape[1] if found and len(found.shape) == len("TN") else 0


def _contract(runs: tuple[Run, ...]) -> ActionContract:
    parts, at = [], 0
    for run in runs:
        frame = UNKNOWN if run.space == "ee_pose" else None
        parts.append(part(at, at + len(run.axes), run.space, "absolute", frame, run.rotation))
        at += len(run.axes)
    return ActionContract(parts=tuple(parts), evidence=_EVIDENCE if parts else "")


def _joints(count: int, prefix: str = "", space: Space = "joint_position", unit: str = "rad") -> Run:
    return Run(tuple(f"{prefix}joint_{i}" for i in range(1, count + 1)), (unit,) * count, space)


def _gripper(prefix: str = "", name: str = "gripper") -> Run:
    return Run((f"{prefix}{name}",), (UNKNOWN,), "gripper")


def _pose6(prefix: str = "") -> Run:
    axes = tuple(f"{prefix}{axis}" for axis in _POSE6)
    return Run(axes, ("m", "m", "m", "rad", "rad", "rad"), "ee_pose", "unknown")


_POSE = Run(_POSE7, ("m", "m", "m", "1", "1", "1", "1"), "ee_pose", "quaternion_xyzw")
_BOTH = ("left_", "right_")


def _hands(axes: tuple[str, ...]) -> tuple[Run, ...]:
    return tuple(
        Run(tuple(f"{side}{axis}" for axis in axes), (UNKNOWN,) * len(axes), "other") for side in _BOTH
    )


_ARM_AND_GRIPPER = (_joints(7), _gripper())
_SIX_AND_GRIPPER = (_joints(6), _gripper())
_HAND = (Run(_HAND12, ("rad",) * 12, "joint_position"),)


def _of(unit: str, space: Space, count: int) -> tuple[Run, ...]:
    """Return velocities or efforts of joints and a gripper, whose units are not told."""
    return (_joints(count, space=space, unit=unit), _gripper())


UNKNOWN_ROBOT = Robot(name=UNKNOWN, arrays={})

_ROBOTS = {
    robot.name: robot
    for robot in (
        Robot(
            name="franka",
            arrays={"joint_position": _ARM_AND_GRIPPER, "end_effector": (_pose6(),)},
            order="standard",
        ),
        Robot(
            name="ur",
            arrays={"joint_position": _SIX_AND_GRIPPER, "end_effector": (_pose6(),)},
            order="standard",
        ),
        Robot(
            name="franka_fr3_dual",
            arrays={
                "joint_position": tuple(run for side in _BOTH for run in (_joints(7, side), _gripper(side))),
                "end_effector": tuple(_pose6(side) for side in _BOTH),
            },
            order="standard",
        ),
        Robot(
            name="agilex",
            arrays={
                "joint_position": _SIX_AND_GRIPPER,
                "joint_velocity": _of(UNKNOWN, "joint_velocity", 6),
                "joint_effort": _of(UNKNOWN, "joint_effort", 6),
                "end_effector": (_POSE,),
            },
            order="opencv",
        ),
        Robot(
            name="tienkung_gello",
            arrays={
                "joint_position": tuple(
                    run for side in _BOTH for run in (_joints(7, side), _gripper(side, "hand_closure"))
                )
            },
            order="opencv",
        ),
        Robot(
            name="tienkung_xsens",
            arrays={
                "joint_position": tuple(_joints(7, side) for side in _BOTH),
                "end_effector": _hands(_FINGERS),
            },
            order="opencv",
        ),
        Robot(
            name="sim_franka",
            simulated=True,
            states_per_picture=4,
            arrays={
                "joint_position": _ARM_AND_GRIPPER,
                "joint_velocity": _of(UNKNOWN, "joint_velocity", 7),
                "joint_effort": _of(UNKNOWN, "joint_effort", 7),
                "end_effector": (_POSE,),
            },
        ),
        Robot(
            name="sim_tienkung",
            simulated=True,
            arrays={
                **{f"{side}arm_joint_pos_seq": (_joints(7),) for side in _BOTH},
                **{f"{side}hand_joint_pos_seq": _HAND for side in _BOTH},
            },
        ),
    )
}

_BY_WIDTH = {
    (8, 6): _ROBOTS["franka"],
    (7, 6): _ROBOTS["ur"],
    (16, 12): _ROBOTS["franka_fr3_dual"],
    (16, 0): _ROBOTS["tienkung_gello"],
    (14, 12): _ROBOTS["tienkung_xsens"],
}
"""By the columns of ``puppet/joint_position`` and ``puppet/end_effector``."""
