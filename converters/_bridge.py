"""What the parts of a BridgeData trajectory mean.

Source: github.com/rail-berkeley/bridge_data_robot, folder widowx_envs/widowx_envs: base/robot_base_env.py
(`current_obs`, `step`, `_next_qpos`), utils/transformation_utils.py, utils/raw_saver.py, control_loops.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from ..schemas import UNKNOWN, ActionContract, ActionPart
from ._contracts import gripper, part

_POSE_AXES = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")
_POSE_UNITS = ("m", "m", "m", "rad", "rad", "rad", "1")
_POSE_TEXT = (
    "x y z, XYZ-fixed Euler angles of the rotation from the neutral orientation, gripper (0 closed, 1 open)"
)

LATENCY_ENDED = datetime(2021, 7, 23)  # noqa: DTZ001 - folders are named by the lab's own clock
DATED = "%Y-%m-%d_%H-%M-%S"


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """What is known of a key of ``obs_dict.pkl``."""

    stream: str
    unit: tuple[str, ...] = (UNKNOWN,)
    axes: tuple[str, ...] = ()
    frame: str | None = None
    text: str = ""


MEANINGS: Mapping[str, Meaning] = {
    "full_state": Meaning(
        stream="observation.full_state",
        unit=_POSE_UNITS,
        axes=_POSE_AXES,
        frame="base",
        text=f"Measured: {_POSE_TEXT}",
    ),
    "state": Meaning(
        stream="observation.state",
        frame="base",
        text="full_state, without the rotations that a lower-dimensional action mode does not command",
    ),
    "desired_state": Meaning(
        stream="observation.desired_state",
        unit=_POSE_UNITS,
        axes=_POSE_AXES,
        frame="base",
        text=f"The last commanded target: {_POSE_TEXT}",
    ),
    "qpos": Meaning(stream="observation.joint_position", unit=("rad",)),
    "qvel": Meaning(stream="observation.joint_velocity", unit=("rad/s",)),
    "joint_effort": Meaning(stream="observation.joint_effort"),
    "eef_transform": Meaning(
        stream="observation.ee_transform",
        unit=("1", "1", "1", "m"),
        frame="base",
        text="Homogeneous transform of the end effector",
    ),
    "time_stamp": Meaning(stream="extra.time_stamp", unit=("s",), text="Seconds of the Unix epoch"),
    "t_get_obs": Meaning(stream="extra.t_get_obs", unit=("s",), text="Time that the observation took"),
    "env_done": Meaning(stream="extra.env_done", unit=("1",)),
    "high_bound": Meaning(stream="extra.high_bound", text="Upper bound of the workspace"),
    "low_bound": Meaning(stream="extra.low_bound", text="Lower bound of the workspace"),
}

_EVIDENCE = (
    "github.com/rail-berkeley/bridge_data_robot: widowx_envs/widowx_envs/base/robot_base_env.py (_next_qpos: "
    "a delta moves the last target pose, about axes of the base; the gripper is absolute, 1 open, 0 closed)"
)
_LATENCY = (
    "; github.com/rail-berkeley/bridge_data_v2: data_processing/bridgedata_raw_to_numpy.py (recorded before "
    "2021-07-23: observations lag by one step)"
)
_NO_DATE = "; the folder has no date, so that it is not known whether observations lag by one step"


def contract(axes: int, recorded: datetime | None) -> ActionContract:
    """Return what is known of actions of so many axes: 7, 5 and 4 are the recorder's action modes.

    Parameters
    ----------
    recorded
        When the recording was made, by the name of its folder; None if it does not say.
    """
    late = recorded is not None and recorded < LATENCY_ENDED
    evidence = _EVIDENCE + (_LATENCY if late else _NO_DATE if recorded is None else "")
    offset = None if recorded is None else int(late)
    return ActionContract(parts=_parts(axes), offset_steps=offset, evidence=evidence)


def _parts(axes: int) -> tuple[ActionPart, ...]:
    if axes not in {4, 5, 7}:
        return ()
    position = part(0, 3, "ee_position", "delta", "base")
    turn = part(3, axes - 1, "ee_orientation", "delta", "base", "euler_xyz")
    grip = gripper(axes - 1, closed=0.0, opened=1.0)
    return (position, grip) if axes == 4 else (position, turn, grip)


def action_axes(axes: int) -> tuple[str, ...]:
    """Return the names of an action's axes, if it is of one of the recorder's action modes."""
    return {
        4: ("x", "y", "z", "gripper"),
        5: ("x", "y", "z", "yaw", "gripper"),
        7: _POSE_AXES,
    }.get(axes, ())


def action_units(axes: int) -> tuple[str, ...]:
    """Return the units of an action's axes."""
    names = action_axes(axes)
    units = dict(zip(_POSE_AXES, _POSE_UNITS, strict=True))
    return tuple(units[name] for name in names) or (UNKNOWN,)
