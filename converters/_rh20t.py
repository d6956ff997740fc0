"""The robots of RH20T, and the tables of what they did.

Source: github.com/rh20t/rh20t_api: configs/configs.json (`CONFIGURATIONS`), rh20t_api/scene.py (the files of
``transformed`` and ``high_freq_data``), rh20t_api/transforms.py (poses are x y z and a quaternion, scalar
first), rh20t_api/online.py (forces in N, torques in N·m).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from ..schemas import UNKNOWN, ActionContract, ActionPart, Array, FormatError, Times
from ._draft import stream_name

_MAX_ROWS = 10_000_000
_LATEST_MS = 1 << 43  # the year 2248


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """One of the seven robots.

    Attributes
    ----------
    tcp
        How many numbers tell the raw pose of the tool.
    joints
        Their names, in the order of the recorded angles; there may be more numbers behind these.
    in_hand
        Serial numbers of the cameras on the gripper.
    """

    robot: str
    gripper: str
    tcp: int
    joints: tuple[str, ...]
    in_hand: tuple[str, ...]


_FLEXIV = tuple(f"joint{i}" for i in range(1, 8))
_UR5 = ("shoulder_pan_joint", "shoulder_lift_joint", "elbow_joint",
        "wrist_1_joint", "wrist_2_joint", "wrist_3_joint")  # fmt: skip
_PANDA = tuple(f"panda_joint{i}" for i in range(1, 8))
_IIWA = tuple(f"lbr_iiwa_joint_{i}" for i in range(1, 8))
_KUKA_HANDS = ("135122075425", "135122070361")

CONFIGURATIONS: Mapping[int, Configuration] = {
    number: Configuration(robot=robot, gripper=gripper, tcp=tcp, joints=joints, in_hand=in_hand)
    for number, robot, gripper, tcp, joints, in_hand in (
        (1, "flexiv", "Dahuan AG-95", 7, _FLEXIV, ("043322070878",)),
        (2, "flexiv", "Dahuan AG-95", 7, _FLEXIV, ("104422070042",)),
        (3, "ur5", "WSG-50", 6, _UR5, ("045322071843",)),
        (4, "ur5", "Robotiq 2F-85", 6, _UR5, ("045322071843",)),
        (5, "franka", "franka", 6, _PANDA, ("104422070042", "135122079702")),
        (6, "kuka", "Robotiq 2F-85", 6, _IIWA, _KUKA_HANDS),
        (7, "kuka", "Robotiq 2F-85", 6, _IIWA, _KUKA_HANDS),
    )
}

_POSE = {"unit": ("m", "m", "m", "1", "1", "1", "1"), "axes": ("x", "y", "z", "qw", "qx", "qy", "qz")}
_WRENCH = {"unit": ("N", "N", "N", "N.m", "N.m", "N.m"), "axes": ("fx", "fy", "fz", "tx", "ty", "tz")}
_BASE, _CAMERA = {"frame": "base"}, {"frame": "camera"}

GRIPPER = ActionContract(
    parts=(ActionPart(start=0, stop=1, space="gripper", mode="absolute", frame=None, rotation="none"),),
    offset_steps=None,
    evidence="github.com/rh20t/rh20t_api: rh20t_api/scene.py, get_gripper (the first of three numbers)",
)

MEANINGS: Mapping[tuple[str, str, int], Mapping[str, Any]] = {
    ("tcp_base", "tcp", 7): {"name": "observation.ee_pose", **_POSE, **_BASE},
    ("tcp", "tcp", 7): {"name": "observation.camera_frame.ee_pose", **_POSE, **_CAMERA},
    ("force_torque_base", "zeroed", 6): {"name": "observation.force_torque", **_WRENCH, **_BASE},
    ("force_torque_base", "raw", 6): {"name": "observation.force_torque_raw", **_WRENCH, **_BASE},
    ("force_torque", "zeroed", 6): {"name": "observation.camera_frame.force_torque", **_WRENCH, **_CAMERA},
    ("force_torque", "raw", 6): {"name": "observation.camera_frame.force_torque_raw", **_WRENCH, **_CAMERA},
    ("high_freq", "tcp", 7): {"name": "observation.high_freq.ee_pose", **_POSE, **_BASE},
    ("high_freq", "zeroed", 6): {"name": "observation.high_freq.force_torque", **_WRENCH, **_BASE},
    ("high_freq", "raw", 6): {"name": "observation.high_freq.force_torque_raw", **_WRENCH, **_BASE},
    ("gripper", "gripper_command", 3): {"name": "action.gripper", "contract": GRIPPER},
    ("gripper", "gripper_info", 3): {"name": "observation.gripper"},
}
"""What is known of a column, by table, key and number of values."""


@dataclass(frozen=True, slots=True)
class Table:
    """What one file tells: rows in the order of time, each with the camera beside whose pictures it lay.

    Attributes
    ----------
    times_ms, cameras
        (n,) stamps, and (n,) indices into ``serials``.
    columns
        (n, ...) values by key.
    """

    serials: tuple[str, ...]
    times_ms: Times
    cameras: Array
    columns: Mapping[str, Array]


def table_of(held: Any, *, path: Path, value: str) -> Table:
    """Return the table that a file of ``transformed`` holds.

    It is a dict of cameras, and each of them a list of dicts with a ``timestamp``, or a dict of values or of
    dicts by time stamp.

    Parameters
    ----------
    value
        What to call a value that stands alone.

    Raises
    ------
    FormatError
        If it is none of these, or its values are not of one shape.
    """
    if not isinstance(held, dict):
        raise FormatError(str(path), "pickle", "is no dict of cameras")
    serials = tuple(str(serial) for serial in held)
    rows = []
    for camera, (serial, items) in enumerate(held.items()):
        for stamp, columns in _items(items, value, path, str(serial)):
            rows.append((stamp, camera, columns))
    if not 0 < len(rows) <= _MAX_ROWS:
        raise FormatError(str(path), "pickle", f"holds {len(rows)} rows")
    rows.sort(key=lambda row: row[:2])
    columns = {key: _stacked([row[2].get(key) for row in rows], path, key) for key in rows[0][2]}
    return Table(
        serials=serials,
        times_ms=stamps_of([row[0] for row in rows], path, "timestamp"),
        cameras=np.array([row[1] for row in rows], np.int16),
        columns=columns,
    )


def _items(items: Any, value: str, path: Path, serial: str) -> Iterator[tuple[int, dict[str, Any]]]:
    told: Any = items.items() if isinstance(items, dict) else items if isinstance(items, list) else None
    if told is None:
        raise FormatError(str(path), serial, "is neither a list nor a dict of time stamps")
    for i, item in enumerate(told):
        stamp, held = item if isinstance(items, dict) else (None, item)
        columns = dict(held) if isinstance(held, dict) else {value: held}
        stamp = columns.pop("timestamp", None) if stamp is None else stamp
        if isinstance(stamp, np.integer):
            stamp = int(stamp)
        if type(stamp) is not int or not columns:
            raise FormatError(str(path), f"{serial}[{i}]", "has no time stamp, or no values")
        yield stamp, columns


def _stacked(values: list[Any], path: Path, key: str) -> Array:
    arrays = [
        np.asarray(value) for value in values if isinstance(value, np.ndarray | list | tuple | int | float)
    ]
    kinds = {(array.shape, array.dtype.kind) for array in arrays}
    if len(arrays) != len(values) or len(kinds) != 1 or arrays[0].dtype.kind not in "biuf":
        raise FormatError(str(path), key or "value", "is not told of each time, or not in one shape")
    return np.stack(arrays)


def stamps_of(stamps: Any, path: Path, where: str) -> Times:
    """Return time stamps as (n,) int64 milliseconds of the Unix epoch; `FormatError` if they are none."""

    def wrong() -> NoReturn:
        raise FormatError(str(path), where, "is no list of time stamps in milliseconds")

    if not isinstance(stamps, list | np.ndarray) or not len(stamps):
        wrong()
    try:
        times = np.asarray(stamps)
    except ValueError:
        wrong()
    if times.ndim != 1 or times.dtype.kind not in "iu" or not 0 <= times.min() <= times.max() < _LATEST_MS:
        wrong()
    found: Times = times.astype(np.int64)
    return found


def plain(key: str, table: str, width: int) -> Mapping[str, Any]:
    """Return what is known of a column, or its place among the unknown."""
    unknown = {"name": stream_name("extra", table, key), "unit": (UNKNOWN,), "frame": UNKNOWN}
    return MEANINGS.get((table, key, width), unknown)
