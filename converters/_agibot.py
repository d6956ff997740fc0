"""What the datasets of AgiBot World's ``proprio_stats.h5`` mean, as its card and that of its twin say.

Sources: the data set's card (huggingface.co/datasets/agibot-world/AgiBotWorld-Beta: "Explanation of
Proprioceptive State") and that of its simulated twin (agibot-world/AgiBotDigitalWorld), which writes the same
layout with quaternions the other way round. The recorder is not public.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..schemas import UNKNOWN, ActionContract, ActionPart, StreamSpec
from ..schemas.episode import Mode, Rotation, Space
from ._hdf5 import Field

RATE_HZ = 30.0
RATE_SOURCE = "agibot-world/AgiBotWorld-Beta: card: cameras of 30 Hz"

_CARD = "agibot-world/AgiBotWorld-Beta: card"
_TWIN = "agibot-world/AgiBotDigitalWorld: card"
_ARMS = tuple(f"{side}_arm_{i}" for side in ("left", "right") for i in range(1, 8))
_HANDS = tuple(f"{side}_hand_{i}" for side in ("left", "right") for i in range(1, 7))
_SIDES = ("left", "right")
_XYZ, _XYZW, _WXYZ = ("x", "y", "z"), ("x", "y", "z", "w"), ("w", "x", "y", "z")
_FLANGE = "Pose of the flanges, first the left arm's; the frame is told nowhere."


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """What a dataset is, if its rows have the shape that it should have."""

    stream: str
    shape: tuple[int, ...]
    unit: tuple[str, ...] = (UNKNOWN,)
    axes: tuple[str, ...] = ()
    frame: str | None = None
    description: str = ""
    space: Space = "unknown"
    mode: Mode = "absolute"
    rotation: Rotation = "none"
    closed: float | None = None
    opened: float | None = None
    evidence: str = _CARD

    def spec(self, found: Field, clock: str) -> StreamSpec:
        """Return the stream's spec."""
        return StreamSpec(
            name=self.stream,
            kind="low_dim",
            dtype=found.dtype.name,
            shape=self.shape,
            unit=self.unit,
            axes=self.axes,
            frame=self.frame,
            clock=clock,
            contract=self._contract() if self.stream.startswith("action.") else None,
            description=self.description,
            attributes={"rows": list(_SIDES)} if len(self.shape) == 2 else {},
        )

    def _contract(self) -> ActionContract:
        part = ActionPart(
            start=0,
            stop=self.shape[-1],
            space=self.space,
            mode=self.mode,
            frame=self.frame,
            rotation=self.rotation,
            gripper_closed=self.closed,
            gripper_open=self.opened,
        )
        return ActionContract(parts=(part,), evidence=self.evidence)


def meaning_of(name: str, shape: tuple[int, ...], *, simulated: bool) -> Meaning | None:
    """Return what rows of a shape mean in a dataset; None if nobody says.

    Parameters
    ----------
    simulated
        The file is of AgiBotDigitalWorld, which has 34 joints where robots have 14.
    """
    group, _, quantity = name.partition("/")
    known = {**_MEANINGS, **_SIMULATED} if simulated else _MEANINGS
    prefix = {"state": "observation", "action": "action"}.get(group, "")
    candidates = known.get(quantity, ()) if prefix else ()
    for candidate in candidates:
        if candidate.shape == shape and candidate.stream.partition(".")[0] in {"", prefix}:
            return _named(candidate, prefix)
    return None


def _named(meaning: Meaning, prefix: str) -> Meaning:
    import dataclasses

    if meaning.stream.startswith("."):
        return dataclasses.replace(meaning, stream=f"{prefix}{meaning.stream}")
    return meaning


_MEANINGS: dict[str, tuple[Meaning, ...]] = {
    "joint/position": (
        Meaning(stream=".joint_position", shape=(14,), unit=("rad",), axes=_ARMS, space="joint_position"),
    ),
    "joint/current_value": (Meaning(stream="observation.joint_current", shape=(14,), axes=_ARMS),),
    "joint/velocity": (Meaning(stream="observation.joint_velocity", shape=(14,), axes=_ARMS),),
    "joint/effort": (Meaning(stream="observation.joint_effort", shape=(14,), axes=_ARMS),),
    "effector/position": (
        Meaning(
            stream="observation.gripper",
            shape=(2,),
            unit=("mm",),
            axes=_SIDES,
            description="How far the grippers are open; their greatest width is told nowhere.",
        ),
        Meaning(
            stream="action.gripper",
            shape=(2,),
            unit=("1",),
            axes=_SIDES,
            description="Commanded closing of the grippers: 0 open, 1 closed.",
            space="gripper",
            closed=1.0,
            opened=0.0,
        ),
        Meaning(
            stream=".hand_joint_position", shape=(12,), unit=("rad",), axes=_HANDS, space="joint_position"
        ),
    ),
    "end/position": (
        Meaning(
            stream=".ee_position",
            shape=(2, 3),
            unit=("m",),
            axes=_XYZ,
            frame=UNKNOWN,
            description=_FLANGE,
            space="ee_position",
        ),
    ),
    "end/orientation": (
        Meaning(
            stream=".ee_orientation",
            shape=(2, 4),
            unit=("1",),
            axes=_XYZW,
            frame=UNKNOWN,
            description=_FLANGE,
            space="ee_orientation",
            rotation="quaternion_xyzw",
        ),
    ),
    "head/position": (
        Meaning(
            stream=".head_position",
            shape=(2,),
            unit=("rad",),
            axes=("yaw", "pitch"),
            space="joint_position",
        ),
    ),
    "waist/position": (
        Meaning(
            stream=".waist_position",
            shape=(2,),
            unit=("rad", "m"),
            axes=("pitch", "lift"),
            space="joint_position",
        ),
    ),
    "robot/position": (
        Meaning(
            stream="observation.base_position",
            shape=(3,),
            unit=("m",),
            axes=_XYZ,
            frame="odometry",
            description="Position since the robot was switched on; z is always 0.",
        ),
    ),
    "robot/orientation": (
        Meaning(stream="observation.base_orientation", shape=(4,), unit=("1",), axes=_XYZW, frame="odometry"),
    ),
    "robot/velocity": (
        Meaning(
            stream="action.base_velocity",
            shape=(2,),
            axes=("x", "yaw"),
            frame="base",
            description="Commanded velocity along x, and rate of turning; their units are told nowhere.",
            space="base_velocity",
        ),
    ),
}
"""By the name below ``state`` or ``action``. A stream that begins with a dot is of both."""

_SIMULATED: dict[str, tuple[Meaning, ...]] = {
    "end/orientation": (
        Meaning(
            stream=".ee_orientation",
            shape=(2, 4),
            unit=("1",),
            axes=_WXYZ,
            frame=UNKNOWN,
            description=_FLANGE,
            space="ee_orientation",
            rotation="quaternion_wxyz",
            evidence=_TWIN,
        ),
    ),
    "robot/orientation": (
        Meaning(stream="observation.base_orientation", shape=(4,), unit=("1",), axes=_WXYZ, frame="odometry"),
    ),
    "effector/position": (
        Meaning(
            stream="observation.gripper",
            shape=(2,),
            unit=("mm",),
            axes=_SIDES,
            description="How far the grippers are open.",
        ),
        Meaning(
            stream="action.gripper",
            shape=(2,),
            unit=("mm",),
            axes=_SIDES,
            description="How far the grippers are to be open.",
            space="gripper",
            closed=0.0,
            evidence=_TWIN,
        ),
    ),
    "joint/position": (
        Meaning(stream="observation.joint_position", shape=(34,)),
        Meaning(
            stream="action.joint_position",
            shape=(14,),
            unit=("rad",),
            axes=_ARMS,
            space="joint_position",
            evidence=_TWIN,
        ),
    ),
}
