"""What the arrays of a CALVIN time step mean.

Source: github.com/mees/calvin: dataset/README.md (keys, axes, units), and github.com/mees/calvin_env, folder
calvin_env: datarenderer.py (`worker_run`, `save_step`), utils/utils.py (`to_relative_action`),
robot/robot.py (`get_observation`), camera/camera.py (`process_rgbd`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from ..schemas import UNKNOWN, ActionContract, StreamSpec
from ..schemas.episode import Mode
from ._contracts import gripper, part
from ._draft import stream_name
from ._npz import Npy

_POSE = ("x", "y", "z", "rx", "ry", "rz")
_POSE_UNITS = ("m", "m", "m", "rad", "rad", "rad")
_JOINTS = tuple(f"joint_{i}" for i in range(1, 8))
_BLOCKS = tuple(f"{colour}_block_{axis}" for colour in ("red", "blue", "pink") for axis in _POSE)

_ABSOLUTE = (
    "github.com/mees/calvin_env: calvin_env/datarenderer.py (the action of a step is the pose and the "
    "gripper's command of the next one)"
)
_RELATIVE = (
    f"{_ABSOLUTE}; calvin_env/utils/utils.py, to_relative_action (less robot_obs of the same step, over "
    "0.02 m and 0.05 rad, clipped to [-1, 1])"
)


def _contract(mode: Mode, evidence: str) -> ActionContract:
    return ActionContract(
        parts=(
            part(0, 3, "ee_position", mode, "world"),
            part(3, 6, "ee_orientation", mode, "world", "euler_xyz"),
            gripper(6, closed=-1.0, opened=1.0),
        ),
        offset_steps=0,
        evidence=evidence,
    )


_KNOWN: Mapping[tuple[str, int], Mapping[str, Any]] = {
    ("actions", 7): {
        "name": "action",
        "unit": (*_POSE_UNITS, "1"),
        "axes": (*_POSE, "gripper"),
        "frame": "world",
        "contract": _contract("absolute", _ABSOLUTE),
        "description": "Pose of the point between the fingers to be reached, and the gripper's command",
    },
    ("rel_actions", 7): {
        "name": "action.relative",
        "unit": ("1",),
        "axes": (*_POSE, "gripper"),
        "frame": "world",
        "contract": _contract("delta", _RELATIVE),
        "description": "The action less the pose of the same step, in parts of 0.02 m and 0.05 rad",
        "attributes": {"scale": [0.02, 0.02, 0.02, 0.05, 0.05, 0.05, 1.0], "clipped_to": [-1.0, 1.0]},
    },
    ("robot_obs", 15): {
        "name": "observation.state",
        "unit": (*_POSE_UNITS, "m", *("rad",) * 7, "1"),
        "axes": (*_POSE, "gripper_width", *_JOINTS, "gripper_action"),
        "frame": "world",
        "description": "Pose between the fingers, gripper width, joints, and the gripper's last command",
    },
    ("scene_obs", 24): {
        "name": "observation.environment_state",
        "unit": (*(UNKNOWN,) * 4, "1", "1", *_POSE_UNITS * 3),
        "axes": ("sliding_door", "drawer", "button", "switch", "lightbulb", "green_light", *_BLOCKS),
        "frame": "world",
        "description": "Joints and lamps of the table, and the poses of the blocks",
    },
}


def spec_of(found: Npy) -> StreamSpec:
    """Return the stream that an array of every step fits into."""
    dtype, shape = found.dtype.name, found.shape
    plain: dict[str, Any] = {"kind": "low_dim", "dtype": dtype, "shape": shape}
    known = _KNOWN.get((found.name, shape[0])) if len(shape) == 1 else None
    if known is not None:
        return StreamSpec(**plain, **known)
    what, _, camera = found.name.partition("_")
    if what == "rgb" and camera:
        video = dtype == "uint8" and len(shape) == 3 and shape[2] == 3
        kind: Literal["video", "low_dim"] = "video" if video else "low_dim"
        name = stream_name("observation", "images", camera)
        return StreamSpec(name=name, kind=kind, dtype=dtype, shape=shape, unit=("1",))
    if what == "depth" and camera and dtype == "float32":
        return StreamSpec(
            name=stream_name("observation", "depth", camera),
            kind="depth" if len(shape) == 2 else "low_dim",
            dtype=dtype,
            shape=shape,
            unit=("m",) if len(shape) == 2 else (UNKNOWN,),
        )
    return StreamSpec(name=stream_name("extra", found.name), **plain)
