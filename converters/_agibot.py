"""What the datasets of AgiBot World's ``proprio_stats.h5`` mean, as its card and that of its twin say.

Sources: the data set's card (huggingface.co/datasets/agibot-world/AgiBotWorld-Beta: "Explanation of
Proprioceptive State") and that of its simulated twin (agibot-world/AgiBotDigitalWorld), which writes the same
layout with quaternions the other way round. The recorder is not public.
"""

from __future__ import annotations

from dataclasses import replace

from ..schemas import UNKNOWN
from ..schemas.episode import Rotation
from ._contracts import Meaning

RATE_HZ = 30.0
RATE_SOURCE = "agibot-world/AgiBotWorld-Beta: card: cameras of 30 Hz"

_CARD = "agibot-world/AgiBotWorld-Beta: card"
_TWIN = "agibot-world/AgiBotDigitalWorld: card"
_ARMS = tuple(f"{side}_arm_{i}" for side in ("left", "right") for i in range(1, 8))
_HANDS = tuple(f"{side}_hand_{i}" for side in ("left", "right") for i in range(1, 7))
_SIDES = ("left", "right")
_XYZ, _XYZW, _WXYZ = ("x", "y", "z"), ("x", "y", "z", "w"), ("w", "x", "y", "z")
_ROWS = {"rows": list(_SIDES)}
_FLANGE = "Pose of the flanges, first the left arm's; the frame is told nowhere."


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
    stream = f"{prefix}{meaning.stream}" if meaning.stream.startswith(".") else meaning.stream
    return replace(meaning, stream=stream, evidence=meaning.evidence or _CARD)


def _orientation(axes: tuple[str, ...], rotation: Rotation, evidence: str = "") -> Meaning:
    return Meaning(
        ".ee_orientation",
        (2, 4),
        ("1",),
        axes,
        UNKNOWN,
        _FLANGE,
        "ee_orientation",
        rotation=rotation,
        evidence=evidence,
        attributes=_ROWS,
    )


def _base_orientation(axes: tuple[str, ...]) -> Meaning:
    return Meaning("observation.base_orientation", (4,), ("1",), axes, "odometry")


_MEANINGS: dict[str, tuple[Meaning, ...]] = {
    "joint/position": (Meaning(".joint_position", (14,), ("rad",), _ARMS, space="joint_position"),),
    "joint/current_value": (Meaning("observation.joint_current", (14,), axes=_ARMS),),
    "joint/velocity": (Meaning("observation.joint_velocity", (14,), axes=_ARMS),),
    "joint/effort": (Meaning("observation.joint_effort", (14,), axes=_ARMS),),
    "effector/position": (
        Meaning(
            "observation.gripper",
            (2,),
            ("mm",),
            _SIDES,
            description="How far the grippers are open; their greatest width is told nowhere.",
        ),
        Meaning(
            "action.gripper",
            (2,),
            ("1",),
            _SIDES,
            description="Commanded closing of the grippers: 0 open, 1 closed.",
            space="gripper",
            closed=1.0,
            opened=0.0,
        ),
        Meaning(".hand_joint_position", (12,), ("rad",), _HANDS, space="joint_position"),
    ),
    "end/position": (
        Meaning(".ee_position", (2, 3), ("m",), _XYZ, UNKNOWN, _FLANGE, "ee_position", attributes=_ROWS),
    ),
    "end/orientation": (_orientation(_XYZW, "quaternion_xyzw"),),
    "head/position": (Meaning(".head_position", (2,), ("rad",), ("yaw", "pitch"), space="joint_position"),),
    "waist/position": (
        Meaning(".waist_position", (2,), ("rad", "m"), ("pitch", "lift"), space="joint_position"),
    ),
    "robot/position": (
        Meaning(
            "observation.base_position",
            (3,),
            ("m",),
            _XYZ,
            "odometry",
            "Position since the robot was switched on; z is always 0.",
        ),
    ),
    "robot/orientation": (_base_orientation(_XYZW),),
    "robot/velocity": (
        Meaning(
            "action.base_velocity",
            (2,),
            axes=("x", "yaw"),
            frame="base",
            description="Commanded velocity along x, and rate of turning; their units are told nowhere.",
            space="base_velocity",
        ),
    ),
}
"""By the name below ``state`` or ``action``. A stream that begins with a dot is of both."""

_SIMULATED: dict[str, tuple[Meaning, ...]] = {
    "end/orientation": (_orientation(_WXYZ, "quaternion_wxyz", _TWIN),),
    "robot/orientation": (_base_orientation(_WXYZ),),
    "effector/position": (
        Meaning("observation.gripper", (2,), ("mm",), _SIDES, description="How far the grippers are open."),
        Meaning(
            "action.gripper",
            (2,),
            ("mm",),
            _SIDES,
            description="How far the grippers are to be open.",
            space="gripper",
            closed=0.0,
            evidence=_TWIN,
        ),
    ),
    "joint/position": (
        Meaning("observation.joint_position", (34,)),
        Meaning("action.joint_position", (14,), ("rad",), _ARMS, space="joint_position", evidence=_TWIN),
    ),
}
