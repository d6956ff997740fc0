"""What the datasets of a DROID ``trajectory.h5`` mean, as its recorder's code says.

Sources, all of github.com/droid-dataset/droid: droid/franka/robot.py (state and action dictionaries),
droid/robot_ik/robot_ik_solver.py (scales of the velocities), droid/misc/transformations.py (angles: SciPy's
lower-case "xyz", so turned about fixed axes), droid/controllers/oculus_controller.py (targets),
droid/robot_env.py (extrinsics, control rate), droid/trajectory_utils/misc.py (order of a step).
"""

from __future__ import annotations

from dataclasses import dataclass

from ..schemas import UNKNOWN, ActionContract, ActionPart, StreamSpec
from ..schemas.episode import Mode, Rotation, Space
from ._hdf5 import Field

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """What a dataset is.

    Attributes
    ----------
    columns
        How many numbers a row has; 0 for one that is no array.
    space, mode, rotation
        Of its contract, for commands.
    """

    stream: str
    columns: int
    unit: tuple[str, ...] = (UNKNOWN,)
    axes: tuple[str, ...] = ()
    frame: str | None = None
    description: str = ""
    space: Space | None = None
    mode: Mode = "absolute"
    rotation: Rotation = "none"
    closed: float | None = None
    opened: float | None = None

    def spec(self, found: Field, clock: str) -> StreamSpec:
        """Return the stream's spec; bare if its rows are not as many columns as they should be."""
        known = found.shape[1:] == ((self.columns,) if self.columns else ())
        return StreamSpec(
            name=self.stream,
            kind="low_dim",
            dtype=found.dtype.name,
            shape=found.shape[1:],
            unit=self.unit if known else (UNKNOWN,),
            axes=self.axes if known else (),
            frame=self.frame if known else None,
            clock=clock,
            contract=self._contract(known=known) if self.space else None,
            description=self.description if known else "",
            attributes={"rotation": "euler_xyz, about fixed axes"} if known and "yaw" in self.axes else {},
        )

    def _contract(self, *, known: bool) -> ActionContract:
        if not known or self.space is None:
            return ActionContract()
        part = ActionPart(
            start=0,
            stop=max(1, self.columns),
            space=self.space,
            mode=self.mode,
            frame=self.frame,
            rotation=self.rotation,
            gripper_closed=self.closed,
            gripper_open=self.opened,
        )
        return ActionContract(parts=(part,), offset_steps=0, evidence=_EVIDENCE)


ACTIONS = {
    "cartesian_position": Meaning(
        stream="action.ee_pose",
        columns=6,
        unit=_POSE_UNIT,
        axes=_POSE_AXES,
        frame=BASE,
        description="Pose that the command leads to within the step.",
        space="ee_pose",
        rotation="euler_xyz",
    ),
    "cartesian_velocity": Meaning(
        stream="action.ee_velocity",
        columns=6,
        unit=("1",),
        axes=_POSE_AXES,
        frame=BASE,
        description="Motion within a step: 1 is 0.075 m or 0.15 rad; longer vectors are cut to length 1.",
        space="ee_velocity",
        rotation="euler_xyz",
    ),
    "joint_position": Meaning(
        stream="action.joint_position",
        columns=7,
        unit=("rad",),
        axes=_JOINTS,
        description="Joint positions that were sent to the robot.",
        space="joint_position",
    ),
    "joint_velocity": Meaning(
        stream="action.joint_velocity",
        columns=7,
        unit=("1",),
        axes=_JOINTS,
        description="Motion within a step: 1 is 0.2 rad.",
        space="joint_velocity",
    ),
    "gripper_position": Meaning(
        stream="action.gripper",
        columns=0,
        unit=("1",),
        description="Gripper position that was sent to the robot.",
        space="gripper",
        closed=1.0,
        opened=0.0,
    ),
    "gripper_velocity": Meaning(
        stream="action.gripper_velocity",
        columns=0,
        unit=("1",),
        description="Closing within a step: 1 is a quarter of the way, below 0 opens.",
        space="gripper",
        mode="delta",
    ),
    "gripper_delta": Meaning(
        stream="action.gripper_delta",
        columns=0,
        unit=("1",),
        description="Despite its name a velocity: 1 is a quarter of the way within a step, below 0 opens.",
        space="gripper",
        mode="delta",
    ),
    "target_cartesian_position": Meaning(
        stream="action.target_ee_pose",
        columns=6,
        unit=_POSE_UNIT,
        axes=_POSE_AXES,
        frame=BASE,
        description="Pose that the operator's controller asks for, before gains and limits; never sent.",
        space="ee_pose",
        rotation="euler_xyz",
    ),
    "target_gripper_position": Meaning(
        stream="action.target_gripper",
        columns=0,
        unit=("1",),
        description="How far the operator's trigger is pulled; never sent.",
        space="gripper",
        closed=1.0,
        opened=0.0,
    ),
}
"""Datasets of ``action``."""

CAMERA_POSE = Meaning(
    stream="observation.camera_pose",
    columns=6,
    unit=_POSE_UNIT,
    axes=_POSE_AXES,
    frame=BASE,
    description="Pose of one eye of a camera.",
)

STATES = {
    "cartesian_position": Meaning(
        stream="ee_pose",
        columns=6,
        unit=_POSE_UNIT,
        axes=_POSE_AXES,
        frame=BASE,
        description="Measured pose of the end effector.",
    ),
    "joint_positions": Meaning(
        stream="joint_position", columns=7, unit=("rad",), axes=_JOINTS, description="Measured positions."
    ),
    "joint_velocities": Meaning(
        stream="joint_velocity", columns=7, unit=("rad/s",), axes=_JOINTS, description="Measured velocities."
    ),
    "joint_torques_computed": Meaning(stream="joint_torque_computed", columns=7, unit=("N.m",), axes=_JOINTS),
    "prev_joint_torques_computed": Meaning(
        stream="previous_joint_torque_computed", columns=7, unit=("N.m",), axes=_JOINTS
    ),
    "prev_joint_torques_computed_safened": Meaning(
        stream="previous_joint_torque_safened", columns=7, unit=("N.m",), axes=_JOINTS
    ),
    "motor_torques_measured": Meaning(stream="motor_torque", columns=7, unit=("N.m",), axes=_JOINTS),
    "gripper_position": Meaning(
        stream="gripper", columns=0, unit=("1",), description="Measured gripper: 0 open, 1 closed."
    ),
    "prev_controller_latency_ms": Meaning(stream="controller_latency", columns=0, unit=("ms",)),
    "prev_command_successful": Meaning(stream="previous_command_successful", columns=0, unit=("1",)),
}
"""Datasets of ``robot_state``: in ``observation`` and, read again for the command, in ``action``."""
