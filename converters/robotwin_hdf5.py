"""RoboTwin's HDF5 files: those of RoboTwin 2.0, and XPolicyLab v1.0, which replaced them in 2026.

Field notes (github.com/RoboTwin-Platform/RoboTwin: envs/utils/pkl2hdf5.py in both versions,
envs/_base_task.py, envs/robot/robot.py, envs/camera/camera.py). One file is one episode of a simulation.

*Layouts.* ``legacy`` has ``joint_action``, ``endpose`` and ``observation/<camera>``; ``xpolicylab-1.0`` has
``data_format_version``, ``state``, ``action`` and ``vision/<camera>``.

*Joints* are commands in both: what the joints' drives were set to (get_drive_target), never what was
measured. In ``legacy`` a row is taken after its command was set, so the observation is the younger (offset
-1). The new layout stores the same rows twice, ``state[t]`` and ``action[t] = state[t + 1]``, so that a row
is observe, then act.

*Grippers* are commanded, 0 closed to 1 open. *Poses* of the end effectors are measured, in the simulation's
world, with quaternions wxyz (transforms3d).

*Pictures.* RGB is given to `cv2.imencode`, which expects BGR, on purpose; so red and blue are swapped for
every decoder but OpenCV's. Here they come out as they were rendered. Rows are padded with zeros.

*Time.* Nothing is stamped. A row is taken every ``save_freq`` steps of 4 ms (take_dense_action,
set_timestep), 15 unless configured, which makes 16.7 Hz; and once more where a motion begins and ends, so
that neighbouring rows may show the same instant. ``additional_info/frequency`` is ``save_freq`` in files of
RoboTwin itself, and no rate though its name says so; in files of other origin it is taken at its word.

*Instructions* of ``legacy`` lie beside, in ``instructions/episode<n>.json``: those ``seen`` in training are
kept as instructions, those held back (``unseen``) in ``extra``. ``video/episode<n>.mp4`` shows the head
camera's pictures again, lossy.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..schemas import UNKNOWN, ActionContract, ActionPart, Episode, Json, SourceFile, StreamSpec
from ..schemas.document import strict_json
from ._beside import named_members
from ._contracts import gripper, part
from ._demos import number_of, own_group, spec_of
from ._draft import Draft, stream_name
from ._folder import small_json
from ._hdf5 import Field, open_hdf5
from ._hdf5_episode import Hdf5Episode
from ._hdf5_tree import Hdf5Tree
from ._jpeg import ChannelOrder, decoded, is_jpeg, picture_of, unpadded
from .base import Format, contained, source_file

VERSION = "1"

_FILE = re.compile(r"episode_?(\d{1,9})\.(hdf5|h5)")
_STEP_HZ = 250.0
_SAVE_FREQ = 15
_LEGACY_RATE = "RoboTwin: envs/_base_task.py: a row every 15 steps of 4 ms, unless configured otherwise"
_WRITER = "RoboTwin-Platform/RoboTwin: envs/utils/pkl2hdf5.py"
_ORDER = f"{_WRITER}: images_encoding gives RGB to cv2.imencode"
_POSE_UNIT = ("m", "m", "m", "1", "1", "1", "1")
_POSE_AXES = ("x", "y", "z", "qw", "qx", "qy", "qz")
_WORLD = "simulation world"
_CHECKED_ROWS = 2_000
_LEGACY_EVIDENCE = (
    "RoboTwin-Platform/RoboTwin: envs/_base_task.py: get_obs stores the targets of the joints' drives, which "
    "were set before the simulation step that the row shows; grippers are commands, 0 closed and 1 open"
)
_EVIDENCE = f"{_WRITER}: action is state of the next row; envs/_base_task.py: both are the drives' targets"


@dataclass(frozen=True)
class RobotwinHdf5(Hdf5Tree):
    """Reads RoboTwin files: one of them, or all ``episode<n>.hdf5`` below a folder.

    Attributes
    ----------
    block_bytes
        Most payload bytes in a block.
    rate_hz
        Rate of the nominal clock; None: what the file or the writer's code says.
    embodiment
        The robot, since the format has no place for it.
    jpeg_order
        Which decoder gives the pixels that were rendered.
    """

    format: ClassVar[Format] = Format(
        name="robotwin-hdf5",
        title="RoboTwin HDF5 (2.0, XPolicyLab v1.0)",
        suffixes=(".hdf5", ".h5"),
        spec="https://github.com/RoboTwin-Platform/RoboTwin/blob/main/envs/utils/pkl2hdf5.py",
    )
    file_name: ClassVar[re.Pattern[str]] = _FILE
    absent: ClassVar[tuple[str, str, str]] = ("", "holds no episode<n>.hdf5", "Name the file itself")
    block_bytes: int = 16 << 20
    rate_hz: float | None = None
    embodiment: str = UNKNOWN
    jpeg_order: ChannelOrder = "opencv"

    def owns(self, file: Any) -> bool:
        """Tell whether an open file has RoboTwin's groups."""
        legacy = own_group(file, "joint_action") is not None and own_group(file, "observation") is not None
        new = all(own_group(file, name) is not None for name in ("state", "action", "vision"))
        return legacy or (new and file.get("data_format_version", getlink=True) is not None)

    def in_order(self, files: Iterator[Path]) -> Iterator[Path]:
        """Return the files by folder, then by number."""
        return iter(sorted(files, key=lambda file: (str(file.parent), _number(file))))

    def episode(self, file: Path, root: Path) -> Episode:
        """Read the episode of a file, and the instructions that lie beside it."""
        with open_hdf5(file) as hdf5:
            draft = Draft(path=file)
            legacy = "joint_action/left_arm" in hdf5.fields or "joint_action/vector" in hdf5.fields
            parts = Hdf5Episode(hdf5=hdf5, draft=draft, block_bytes=self.block_bytes, steps=0)
            episode = _RoboTwin(parts=parts, options=self)
            episode.compose(legacy=legacy)
            sources = [source_file(file, root)]
            if legacy:
                sources += episode.beside(file, root)
        return draft.build(self, sources, version=VERSION, embodiment=self.embodiment)


def _number(file: Path) -> int:
    match = _FILE.fullmatch(file.name)
    return int(match[1]) if match else 0


@dataclass(slots=True)
class _RoboTwin:
    """One episode while its file's fields are gone through."""

    parts: Hdf5Episode
    options: RobotwinHdf5

    def compose(self, *, legacy: bool) -> None:
        """Place everything that lies in the file."""
        draft = self.parts.draft
        draft.extra["layout"] = "legacy" if legacy else "xpolicylab-1.0"
        names = (
            ("joint_action/left_arm", "joint_action/vector") if legacy else ("state/left_arm_joint_states",)
        )
        first = next((found for name in names if (found := self.parts.numbers(name))), None)
        if first is None:
            draft.refuse(names[0], "is missing or empty, so there are no steps")
        self.parts.steps = first.shape[0]
        self._clock(legacy=legacy)
        for name in list(self.parts.hdf5.fields):
            if legacy:
                self._legacy(name)
            else:
                self._new(name)
        if not legacy:
            self._instructions()
            self._compare()
        self.parts.rest(self._clock_of)

    # Clocks

    def _clock(self, *, legacy: bool) -> None:
        draft, options = self.parts.draft, self.options
        rate, source = _STEP_HZ / _SAVE_FREQ, _LEGACY_RATE
        if not legacy:
            rate, source = self._frequency()
        if options.rate_hz is not None:
            rate, source = options.rate_hz, "option rate_hz"
        draft.nominal("steps", self.parts.steps, rate, source)

    def _frequency(self) -> tuple[float, str]:
        """Return the rate in Hz that ``additional_info/frequency`` tells, and how."""
        draft, name = self.parts.draft, "additional_info/frequency"
        found = self.parts.hdf5.fields.get(name)
        value = number_of(self.parts.hdf5.told(found)[1]) if found else None
        if value is None:
            if self.options.rate_hz is None:
                draft.refuse(name, "tells no rate", "Say the rate: option rate_hz")
            return self.options.rate_hz, "option rate_hz"
        if self.parts.hdf5.attributes.get("@source_format") != "RoboTwin":
            return value, name
        draft.warn(
            f"{name} is {value:g}, which RoboTwin sets to the simulation steps of 4 ms between rows: taken "
            f"for {_STEP_HZ / value:.4g} Hz"
        )
        return _STEP_HZ / value, f"{name}, as steps of 4 ms (RoboTwin: envs/_base_task.py: save_freq)"

    def _clock_of(self, found: Field) -> str:
        """Return the clock of a dataset's rows: the steps, or one of its own."""
        if found.shape[0] == self.parts.steps:
            return "steps"
        draft, clock = self.parts.draft, stream_name(found.name.replace("/", "_"))
        if clock not in draft.clocks:
            steps = draft.clocks["steps"]
            draft.nominal(clock, found.shape[0], steps.declared_hz or _STEP_HZ / _SAVE_FREQ, steps.source)
            draft.warn(
                f"{found.name} has {found.shape[0]} rows for {self.parts.steps} steps: it has its own clock"
            )
        return clock

    # Datasets

    def _legacy(self, name: str) -> None:
        group, _, last = name.rpartition("/")
        if group == "joint_action" and last == "vector":
            self._vector(name)
        elif group == "joint_action":
            self._joints(name, f"action.{last}", -1, _LEGACY_EVIDENCE)
        elif group == "endpose" and last.endswith("_endpose"):
            self._pose(name, f"observation.{last.removesuffix('_endpose')}_ee_pose")
        elif group.startswith("observation/"):
            self._camera(name, group.removeprefix("observation/"), last)
        elif name == "third_view_rgb":
            self._pictures(name, "third_view", {})

    def _new(self, name: str) -> None:
        group, _, last = name.rpartition("/")
        kind = {"state": "observation", "action": "action"}.get(group)
        if kind and last.endswith("_ee_poses"):
            self._pose(name, f"{kind}.{last.removesuffix('_ee_poses')}_ee_pose")
        elif kind and last.endswith("_joint_states"):
            quantity = last.removesuffix("_joint_states")
            quantity = quantity.replace("_ee", "_gripper") if quantity.endswith("_ee") else quantity
            prefix = "action" if kind == "action" else "observation.target"
            self._joints(name, f"{prefix}.{quantity}", 0, _EVIDENCE)
        elif group.startswith("vision/"):
            self._camera(name, group.removeprefix("vision/"), last)

    def _joints(self, name: str, stream: str, offset: int, evidence: str) -> None:
        """Keep an arm's joints or a gripper, as the drives were commanded."""
        found = self.parts.numbers(name)
        if found is None or len(found.shape) > 2:
            return
        grips = stream.endswith("gripper")
        width = found.shape[1] if len(found.shape) > 1 else 1
        commands = stream.startswith("action")
        spec = replace(
            spec_of(found, stream, clock=self._clock_of(found)),
            unit=("1",) if grips else ("rad",),
            contract=ActionContract(parts=(_part(0, width, stream),), offset_steps=offset, evidence=evidence)
            if commands
            else None,
            description="Commanded, not measured." + (" 0 closed, 1 open." if grips else ""),
        )
        self.parts.keep(name, spec)

    def _vector(self, name: str) -> None:
        """Keep the command of both arms, whose parts are as wide as the datasets beside it."""
        found = self.parts.numbers(name)
        if found is None or len(found.shape) != 2:
            return
        widths = {"left_arm": 0, "left_gripper": 1, "right_arm": 0, "right_gripper": 1}
        for side in ("left_arm", "right_arm"):
            arm = self.parts.numbers(f"joint_action/{side}")
            widths[side] = arm.shape[1] if arm is not None and len(arm.shape) > 1 else 0
        parts: list[ActionPart] = []
        at, units, axes = 0, [], []
        for side, width in widths.items():
            grips = side.endswith("gripper")
            if width:
                parts.append(_part(at, at + width, side))
            units += ["1" if grips else "rad"] * width
            axes += [side] if grips else [f"{side}_{i}" for i in range(1, width + 1)]
            at += width
        known = at == found.shape[1]
        spec = replace(
            spec_of(found, "action", clock=self._clock_of(found)),
            unit=tuple(units) if known else (UNKNOWN,),
            axes=tuple(axes) if known else (),
            contract=ActionContract(
                parts=tuple(parts) if known else (), offset_steps=-1, evidence=_LEGACY_EVIDENCE
            ),
            description="Targets of both arms' joints and grippers.",
        )
        self.parts.keep(name, spec)

    def _pose(self, name: str, stream: str) -> None:
        found = self.parts.numbers(name)
        if found is None or found.shape[1:] != (7,):
            return
        pose = part(0, 7, "ee_pose", "absolute", _WORLD, "quaternion_wxyz")
        contract = ActionContract(parts=(pose,), offset_steps=0, evidence=_EVIDENCE)
        command = stream.startswith("action")
        spec = replace(
            spec_of(found, stream, clock=self._clock_of(found)),
            unit=_POSE_UNIT,
            axes=_POSE_AXES,
            frame=_WORLD,
            contract=contract if command else None,
            description="Measured pose of the next row, to be taken for a command."
            if command
            else "Measured pose.",
        )
        self.parts.keep(name, spec)

    # Cameras

    def _camera(self, name: str, camera: str, last: str) -> None:
        """Keep one of a camera's datasets; calibration that never changes goes to its pictures."""
        if last in {"rgb", "colors"}:
            self._pictures(name, camera, self._calibration(name.rpartition("/")[0], camera))
            return
        found = self.parts.numbers(name) if name not in self.parts.placed else None
        if found is None:
            return
        if last in {"depth", "depths"} and len(found.shape) == 3:
            spec = spec_of(found, stream_name("observation", "depth", camera), clock=self._clock_of(found))
            depth = found.dtype.name in {"uint16", "float32"}
            self.parts.keep(
                name,
                replace(
                    spec,
                    kind="depth" if depth else "low_dim",
                    unit=("mm",),
                    description="Distance along the camera's axis; 0 where nothing was rendered.",
                ),
            )

    def _calibration(self, group: str, camera: str) -> dict[str, Json]:
        """Return what never changes of a camera; keep as streams what does."""
        names = {
            "intrinsic_cv": "intrinsics",
            "intrinsic_matrix": "intrinsics",
            "extrinsic_cv": "extrinsic_cv",
            "cam2world_gl": "cam2world_gl",
            "extrinsics_matrix": "extrinsics_matrix",
        }
        attributes: dict[str, Json] = {}
        stream = stream_name("observation", "images", camera)
        for last, key in names.items():
            name = f"{group}/{last}"
            found = self.parts.numbers(name)
            if found is None:
                continue
            value = self.parts.constant(name)
            if value is not None:
                attributes[key] = value
                self.parts.tell_once(name, stream)
                continue
            spec = spec_of(
                found, stream_name("observation", "camera", camera, last), clock=self._clock_of(found)
            )
            self.parts.keep(name, replace(spec, frame=_WORLD, description=_CALIBRATIONS[last]))
        if f"{group}/shape" in self.parts.hdf5.fields:
            value = self.parts.hdf5.told(self.parts.hdf5.fields[f"{group}/shape"])[1]
            attributes["stored_shape"] = value
            self.parts.placed.add(f"{group}/shape")
            self.parts.draft.account(f"{group}/shape", "renamed", [stream])
        return attributes

    def _pictures(self, name: str, camera: str, attributes: dict[str, Json]) -> None:
        draft, found = self.parts.draft, self.parts.hdf5.fields[name]
        first = self.parts.first_encoded(found)
        if not is_jpeg(first):
            return
        try:
            picture = picture_of(unpadded(first))
        except ValueError as error:
            draft.refuse(f"{name}[0]", str(error))
        shape = (picture.height, picture.width, picture.channels)
        told = attributes.pop("stored_shape", None)
        if told is not None and told != list(shape):
            draft.warn(f"{name} are pictures of {list(shape)}, though shape tells {told}")
        order = self.options.jpeg_order
        spec = StreamSpec(
            name=stream_name("observation", "images", camera),
            kind="video",
            dtype="uint8",
            shape=shape,
            unit=("1",),
            clock=self._clock_of(found),
            attributes={
                **attributes,
                "encoding": "jpeg",
                "stored_order": "bgr" if order == "opencv" else "rgb",
                "order_evidence": _ORDER if order == "opencv" else f"option jpeg_order={order}",
            },
        )
        how = "zeros behind the JPEG's end marker cut off; decoded by libjpeg"
        how += "; red and blue swapped back, as OpenCV's decoder does" if order == "opencv" else ""
        self.parts.keep_pictures(name, spec, partial(_decode, picture=picture, order=order), how)

    # Words

    def _instructions(self) -> None:
        name = "instructions"
        found = self.parts.hdf5.fields.get(name)
        if found is None:
            return
        draft = self.parts.draft
        why, value = self.parts.hdf5.told(found)
        if why:
            return
        try:
            texts = strict_json(value) if isinstance(value, str) else value
        except ValueError as error:
            draft.refuse(name, f"is no JSON: {error}")
        self.parts.placed.add(name)
        to = ["instructions"] if _instruct(draft, texts) else []
        draft.tell(name, texts, "values", to)

    def beside(self, file: Path, root: Path) -> Iterator[SourceFile]:
        """Read the instructions that lie beside the folder of a file; note the video that does."""
        folder = file.parent.parent
        if file.parent.name != "data" or not folder.is_relative_to(root):
            self.parts.draft.warn("instructions lie beside the folder data, which was not given")
            return
        draft, number = self.parts.draft, _number(file)
        place = folder.relative_to(root)
        name = (place / "instructions" / f"episode{number}.json").as_posix()
        if (root / name).is_file():
            path = contained(root, name, path=file, where=name)
            document = small_json(path, 1 << 24)
            told = document if isinstance(document, dict) else {"seen": document}
            for key, member, value in named_members(told):
                to = ["instructions"] if key == "seen" and _instruct(draft, value) else []
                draft.tell(f"instructions/{path.name}.{member}", value, "instructions", to)
            yield source_file(path, root, "metadata")
        video = (place / "video" / f"episode{number}.mp4").as_posix()
        if (root / video).is_file():
            draft.drop(video, "the head camera's pictures again, lossy: they are read from the HDF5 file")

    def _compare(self) -> None:
        """Warn where action is not the next row of state, as the writer makes it."""
        for name in ("left_arm_joint_states", "right_arm_joint_states"):
            state, action = self.parts.numbers(f"state/{name}"), self.parts.numbers(f"action/{name}")
            if state is None or action is None or state.shape != action.shape:
                continue
            rows = min(_CHECKED_ROWS, state.shape[0])
            left, right = (next(self.parts.hdf5.rows(f, 0, rows, rows)) for f in (state, action))
            if not np.array_equal(left[1:], right[:-1], equal_nan=True):
                self.parts.draft.warn(f"action/{name} is not state of the next row: somebody else wrote it")


_CALIBRATIONS = {
    "intrinsic_cv": "Intrinsic matrix.",
    "intrinsic_matrix": "Intrinsic matrix.",
    "extrinsic_cv": "From the world to the camera, which looks along z, with y down.",
    "cam2world_gl": "From the camera, which looks along -z, with y up, to the world.",
    "extrinsics_matrix": "As the writer found it: cam2world_gl, else extrinsic_cv.",
}


def _part(start: int, stop: int, name: str) -> ActionPart:
    """Return what axes of an arm or gripper of this name mean."""
    if name.endswith("gripper"):
        return gripper(start, stop, closed=0.0, opened=1.0)
    return part(start, stop, "joint_position")


def _instruct(draft: Draft, texts: Json) -> bool:
    """Take a list of texts as instructions; empty ones mean that there are none."""
    listed = texts if isinstance(texts, list) else [texts]
    taken = [draft.instruct(text) for text in listed[:1_000]]
    return any(taken)


def _decode(data: bytes, *, picture: Any, order: ChannelOrder) -> Any:
    return decoded(unpadded(data), picture, order)


CONVERTER = RobotwinHdf5
