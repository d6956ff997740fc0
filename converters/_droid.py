"""What the datasets of a DROID ``trajectory.h5`` mean, as its recorder's code says.

Sources, all of github.com/droid-dataset/droid: droid/franka/robot.py (state and action dictionaries),
droid/robot_ik/robot_ik_solver.py (scales of the velocities), droid/misc/transformations.py (angles: SciPy's
lower-case "xyz", so turned about fixed axes), droid/controllers/oculus_controller.py (targets),
droid/robot_env.py (extrinsics, control rate), droid/trajectory_utils/misc.py (order of a step).
"""

from __future__ import annotations

from dataclasses import replace

from ..schemas.episode import Space
from ._contracts import Meaning

RATE_HZ = 15.0
RATE_SOURCE = "droid-dataset/droid: droid/robot_env.py: control_hz = 15"

BASE = "robot base"
_POSE_UNIT = ("m", "m", "m", "rad", "rad", "rad")
_POSE_AXES = ("x", "y", "z", "roll", "pitch", "yaw")

CAMERA_TYPES = {0: "hand_camera", 1: "varied_camera", 2: "fixed_camera"}
"""droid/camera_utils/info.py: camera_type_to_string_dict."""

_JOINTS = tuple(f"joint_{i}" for i in range(1, 8))
_EVIDENCE = (
    "droid-dataset/droid: droid/franka/robot.py: create_action_dict computes all spaces from one command, "
    "and update_command sends joint_position and gripper_position; a step observes, then commands "
    "(trajectory_utils/misc.py). In steps of skip_action nothing was sent"
)


_ABOUT_FIXED_AXES = {"rotation": "euler_xyz, about fixed axes"}


def _pose(
    stream: str, description: str, space: Space = "ee_pose", unit: tuple[str, ...] = _POSE_UNIT
) -> Meaning:
    meaning = Meaning(stream, (6,), unit, _POSE_AXES, BASE, description, space, rotation="euler_xyz")
    return replace(meaning, attributes=_ABOUT_FIXED_AXES)


def _joints(stream: str, unit: str, description: str = "", space: Space = "unknown") -> Meaning:
    return Meaning(stream, (7,), (unit,), _JOINTS, None, description, space)


def _gripper(stream: str, description: str) -> Meaning:
    return Meaning(stream, (), ("1",), description=description, space="gripper", closed=1.0, opened=0.0)


def _closing(stream: str, description: str) -> Meaning:
    return Meaning(stream, (), ("1",), description=description, space="gripper", mode="delta")


_COMMANDS = {
    "cartesian_position": _pose("action.ee_pose", "Pose that the command leads to within the step."),
    "cartesian_velocity": _pose(
        "action.ee_velocity",
        "Motion within a step: 1 is 0.075 m or 0.15 rad; longer vectors are cut to length 1.",
        "ee_velocity",
        ("1",),
    ),
    "joint_position": _joints(
        "action.joint_position", "rad", "Joint positions that were sent to the robot.", "joint_position"
    ),
    "joint_velocity": _joints(
        "action.joint_velocity", "1", "Motion within a step: 1 is 0.2 rad.", "joint_velocity"
    ),
    "gripper_position": _gripper("action.gripper", "Gripper position that was sent to the robot."),
    "gripper_velocity": _closing(
        "action.gripper_velocity", "Closing within a step: 1 is a quarter of the way, below 0 opens."
    ),
    "gripper_delta": _closing(
        "action.gripper_delta",
        "Despite its name a velocity: 1 is a quarter of the way within a step, below 0 opens.",
    ),
    "target_cartesian_position": _pose(
        "action.target_ee_pose",
        "Pose that the operator's controller asks for, before gains and limits; never sent.",
    ),
    "target_gripper_position": _gripper(
        "action.target_gripper", "How far the operator's trigger is pulled; never sent."
    ),
}
ACTIONS = {name: replace(told, offset_steps=0, evidence=_EVIDENCE) for name, told in _COMMANDS.items()}
"""Datasets of ``action``."""

CAMERA_POSE = _pose("observation.camera_pose", "Pose of one eye of a camera.")

STATES = {
    "cartesian_position": _pose("ee_pose", "Measured pose of the end effector."),
    "joint_positions": _joints("joint_position", "rad", "Measured positions."),
    "joint_velocities": _joints("joint_velocity", "rad/s", "Measured velocities."),
    "joint_torques_computed": _joints("joint_torque_computed", "N.m"),
    "prev_joint_torques_computed": _joints("previous_joint_torque_computed", "N.m"),
    "prev_joint_torques_computed_safened": _joints("previous_joint_torque_safened", "N.m"),
    "motor_torques_measured": _joints("motor_torque", "N.m"),
    "gripper_position": Meaning("gripper", (), ("1",), description="Measured gripper: 0 open, 1 closed."),
    "prev_controller_latency_ms": Meaning("controller_latency", (), ("ms",)),
    "prev_command_successful": Meaning("previous_command_successful", (), ("1",)),
}
"""Datasets of ``robot_state``: in ``observation`` and, read again for the command, in ``action``."""
