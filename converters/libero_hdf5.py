"""LIBERO's demonstrations: robosuite's, extracted by a script of LIBERO's own.

Field notes. One file holds the demonstrations of one task as ``data/demo_<n>``; the attributes of ``data``
tell the task as ``problem_info`` and as BDDL (Lifelong-Robot-Learning/LIBERO: scripts/create_dataset.py). A
file that scripts/collect_demonstration.py wrote has the same attributes and only states and actions; it is
read, too.

*Rows.* The script plays the recorded actions anew and stores what each step returns, so that ``obs`` and
``robot_states`` were taken after the action of their row, while ``states`` are the recorded ones, from before
it. The first five steps are cut off. Where the simulation diverged from the recording, the script only
printed a warning: nothing in the file tells.

*``rewards`` and ``dones``* are made up: 0, and 1 in the last row.

*Time.* The clock is nominal at ``control_freq``, which the script sets to 20. AgiBot's tools take LIBERO for
10 Hz instead; the file's own word is taken.

*Pictures* are as OpenGL has them, last row first, if ``macros_image_convention`` is ``opengl``: upside down.
They are left so. People who train on them turn them in three different ways (top to bottom, left to right,
both), so a policy's convention has to be asked of the policy.

*Poses.* ``ee_states`` is the end effector's position and orientation as a rotation vector, ``ee_pos`` and
``ee_ori`` are its halves. ``robot_states`` are the gripper's two joints, position, and quaternion x, y, z, w
(libero/libero/envs/bddl_base_domain.py: get_robot_state_vector).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ..schemas import UNKNOWN, Episode, FormatError, Json, SourceFile, StreamSpec
from ._demos import (
    Demo,
    depth_of,
    first_numbered,
    is_demo_file,
    json_of,
    members_of,
    numbered,
    only,
    own_group,
    picture_of,
    rate_of,
    spec_of,
)
from ._draft import Draft, embodiment_of, stream_name
from ._hdf5 import Field, Hdf5, open_hdf5
from ._robosuite import Environment, action_spec
from .base import Format, source_file

VERSION = "1"

_SCRIPT = "Lifelong-Robot-Learning/LIBERO: scripts/create_dataset.py"
_DEMO = re.compile(r"demo_(\d{1,18})")
_ATTRIBUTES = ("problem_info", "bddl_file_name")

_AFTER = f"{_SCRIPT}: obs is what env.step of the row's action returned"
_BEFORE = (
    "Lifelong-Robot-Learning/LIBERO: scripts/collect_demonstration.py: "
    "a state comes before the action of its row"
)
_ORIENTATIONS = {"opengl": "upside_down", "opencv": "upright"}
_ORIENTATION_EVIDENCE = "data@macros_image_convention; robosuite: environments/robot_env.py: camera_rgb"

_XYZ = ("x", "y", "z")
_ROTATION = ("rx", "ry", "rz")
_METRES, _RADIANS = ("m",) * 3, ("rad",) * 3


@dataclass(frozen=True, slots=True)
class _Meaning:
    """Stream, units, axes and rotation of a field of LIBERO's."""

    stream: str
    unit: tuple[str, ...] = (UNKNOWN,)
    axes: tuple[str, ...] = ()
    frame: str | None = None
    rotation: str = ""
    description: str = ""


_KNOWN = {
    "obs/ee_states": _Meaning(
        "observation.ee_pose", _METRES + _RADIANS, _XYZ + _ROTATION, "world", "axis_angle"
    ),
    "obs/ee_pos": _Meaning("observation.ee_position", ("m",), _XYZ, "world"),
    "obs/ee_ori": _Meaning("observation.ee_orientation", ("rad",), _ROTATION, "world", "axis_angle"),
    "obs/gripper_states": _Meaning(
        "observation.gripper", description="Positions of the gripper's two joints."
    ),
    "obs/joint_states": _Meaning("observation.joint_position", ("rad",)),
    "robot_states": _Meaning(
        "observation.state",
        (UNKNOWN, UNKNOWN, *_METRES, "1", "1", "1", "1"),
        ("gripper_0", "gripper_1", *_XYZ, "qx", "qy", "qz", "qw"),
        "world",
        "quaternion_xyzw",
    ),
    "rewards": _Meaning("next.reward", ("1",), description="Made up by the script: 1 in the last row."),
    "dones": _Meaning("next.done", ("1",), description="Made up by the script: 1 in the last row."),
}


@dataclass(frozen=True)
class LiberoHdf5:
    """Reads one file; each of its demonstrations is an episode.

    Attributes
    ----------
    block_bytes
        Most payload bytes in a block.
    rate_hz
        Steps per second; None: ``control_freq``, where the file tells it.
    """

    format: ClassVar[Format] = Format(
        name="libero-hdf5",
        title="LIBERO HDF5",
        suffixes=(".hdf5", ".h5"),
        spec="https://github.com/Lifelong-Robot-Learning/LIBERO: scripts/create_dataset.py",
    )
    block_bytes: int = 16 << 20
    rate_hz: float | None = None

    def probe(self, path: Path) -> bool:
        """Tell whether a file has ``data/demo_<n>`` and the attributes that only LIBERO gives ``data``."""
        return is_demo_file(path, _is_libero)

    def episodes(self, path: Path) -> Iterator[Episode]:
        """Yield the demonstrations in the order of their numbers."""
        with open_hdf5(path, lambda name: not name.startswith("data/")) as hdf5:
            names = numbered(hdf5.passed_by, _DEMO)
        if not names:
            raise FormatError(str(path), "data", "holds no demo_<n>", "Is this a file of LIBERO's?")
        source = source_file(path, path)
        for name in names:
            with open_hdf5(path, only(name)) as hdf5:
                episode = _Reader(hdf5, name, self).episode(source)
            yield episode


def _is_libero(file: Any) -> bool:
    data = own_group(file, "data")
    marked = data is not None and any(name in data.attrs for name in _ATTRIBUTES)
    return marked and first_numbered(data, _DEMO) is not None


class _Reader:
    """Goes through the fields of one demonstration."""

    def __init__(self, hdf5: Hdf5, name: str, options: LiberoHdf5) -> None:
        self.hdf5, self.name, self.options = hdf5, name, options
        self.draft = Draft(hdf5.path, name)
        self.environment = Environment.of(hdf5, self.draft)
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

    def episode(self, source: SourceFile) -> Episode:
        """Decide what becomes of every field."""
        self.demo.place(self._spec)
        self._tell_instruction()
        self.demo.check_count("num_samples")
        self.demo.rest()
        self.draft.extra["dialect"] = "libero-raw" if self.raw else "libero"
        return self.draft.build(
            self.options,
            [source],
            version=VERSION,
            selector=self.name,
            embodiment=embodiment_of(self.environment.embodiment),
        )

    def _length(self) -> int:
        actions = self.hdf5.fields.get(f"{self.name}/actions", Field(name="", unread="is missing"))
        if actions.unread or not actions.shape or not actions.shape[0]:
            self.draft.refuse("actions", actions.unread or "has no rows", "The recording was cut off")
        return actions.shape[0]

    def _rate(self) -> tuple[float, str]:
        told = [(self.environment.control_hz, "control_freq of the attribute env_args of data")]
        return rate_of(self.draft, self.options.rate_hz, told, "LIBERO's scripts set 20")

    def _spec(self, name: str, found: Field) -> StreamSpec | None:
        if name == "actions":
            offset, evidence = (0, _BEFORE) if self.raw else (-1, _AFTER)
            return action_spec(found, self.environment, offset, evidence)
        if name == "states":
            description = "Flattened state of the simulator."
            return spec_of(found, "extra.states", description=description, taken="before the row's action")
        if name.startswith("obs/"):
            camera = re.sub(r"_(rgb|image|depth)$", "", name.removeprefix("obs/"))
            picture = picture_of(
                found, stream_name("observation", "images", camera), stored_order="rgb", **self._orientation()
            )
            depth = name.endswith("_depth")
            # MuJoCo's depth buffer as it is: from 0 at the near plane to 1 at the far one, and not linear.
            deep = depth_of(found, stream_name("observation", "depth", camera), "1", **self._orientation())
            if picture is not None or (depth and deep is not None):
                return picture or deep
        known = _KNOWN.get(name)
        if known is None:
            return (
                spec_of(found, stream_name("observation", *name.split("/")[1:])) if "obs/" in name else None
            )
        rotation = {"rotation": known.rotation} if known.rotation else {}
        made_up: dict[str, Json] = {"synthetic": True} if name in {"rewards", "dones"} else {}
        return spec_of(
            found,
            known.stream,
            unit=known.unit,
            axes=known.axes,
            frame=known.frame,
            description=known.description,
            **rotation,
            **made_up,
        )

    def _orientation(self) -> Mapping[str, Json]:
        told = self.hdf5.attributes.get("data@macros_image_convention")
        known = _ORIENTATIONS.get(told, UNKNOWN) if isinstance(told, str) else UNKNOWN
        return {"orientation": known, "orientation_evidence": _ORIENTATION_EVIDENCE}

    def _tell_instruction(self) -> None:
        name = "data@problem_info"
        text = self.hdf5.attributes.get(name)
        try:
            said = members_of(json_of(text)).get("language_instruction")
        except ValueError as error:
            self.draft.warn(f"{name} {error}: it does not tell what was asked")
            return
        if self.draft.instruct(said):
            self.draft.tell(name, text, to=["instructions"])


CONVERTER = LiberoHdf5
