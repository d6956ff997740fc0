"""What robosuite's numbers mean, in robomimic's files and in LIBERO's.

The action is what `env.step` took. It is made of one run of numbers per robot: the arm controller's, then the
gripper's (robosuite: robots/single_arm.py: control). The controller of nearly all demonstrations is OSC_POSE:
six numbers from -1 to 1, scaled to metres and radians by the controller's configuration and added to the pose
that the end effector has when the command comes, in the frame of the world (controllers/osc.py: set_goal;
utils/control_utils.py: set_goal_position, set_goal_orientation). With ``control_delta`` false they are the
pose itself, in metres and as a rotation vector, and are not scaled. From 1.5 on the configuration is one of
several body parts and says the frame itself (``input_ref_frame``).

A gripper of one number takes -1 for open and 1 for closed (models/grippers: format_action). Quaternions are
x, y, z, w (robots/single_arm.py: eef_quat), though MuJoCo's own are w, x, y, z: those in ``states`` and in
the model. Pictures come as OpenGL has them, last row first, unless the macro IMAGE_CONVENTION says ``opencv``
(macros.py, environments/robot_env.py: camera_rgb).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ..schemas import UNKNOWN, ActionContract, ActionPart, Json, StreamSpec
from ..schemas.episode import Mode
from ._contracts import gripper, part
from ._demos import depth_of, json_of, members_of, number_of, picture_of, spec_of
from ._draft import Draft, stream_name
from ._hdf5 import Field, Hdf5

OSC = "robosuite: controllers/osc.py: set_goal; models/grippers: format_action"

_XYZ = ("x", "y", "z")
_NUMBERS = ("input_max", "input_min", "output_max", "output_min")
_MAX_ROBOTS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Controller:
    """The controller of one arm, as far as it is known.

    Attributes
    ----------
    width
        Numbers that it takes; the gripper's come after them.
    frame
        In which its numbers stand.
    scaling
        Range of the numbers, and what it is scaled to.
    """

    width: int
    mode: Mode
    frame: str
    scaling: Mapping[str, Json]

    def parts(self, start: int, *, grip: bool) -> Iterator[ActionPart]:
        """Yield what the numbers from ``start`` on mean."""
        yield part(start, start + 3, "ee_position", self.mode, self.frame)
        if self.width == 6:
            yield part(start + 3, start + 6, "ee_orientation", self.mode, self.frame, "axis_angle")
        if grip:
            yield gripper_part(start + self.width)


def gripper_part(start: int) -> ActionPart:
    """Return what the one number of a gripper means."""
    return gripper(start, closed=1.0, opened=-1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """What ``env_args`` or ``env_info`` tell of the simulation. It is read, and never made.

    Attributes
    ----------
    name, kind
        The task's name, and robomimic's number for the kind of environment (envs/env_base.py: EnvType).
    robots
        Names of the robots.
    control_hz
        Steps per second; None if that is not said.
    controllers
        One per robot; empty if any of them is not known.
    simulation
        Isaac Lab's ``sim_args``.
    """

    name: str = UNKNOWN
    kind: int | None = None
    robots: tuple[str, ...] = ()
    control_hz: float | None = None
    controllers: tuple[Controller, ...] = ()
    simulation: Mapping[str, Json]

    @classmethod
    def of(cls, hdf5: Hdf5, draft: Draft) -> Environment:
        """Read the first attribute of ``data`` that tells it; warn of those that are damaged."""
        for name in ("data@env_args", "data@env_info"):
            text = hdf5.attributes.get(name)
            try:
                return cls.read(text)
            except ValueError as error:
                if text is not None:
                    draft.warn(f"{name} {error if isinstance(text, str) else 'is no text'}: it tells nothing")
        return cls(simulation={})

    @classmethod
    def read(cls, text: Json) -> Environment:
        """Read the JSON text of an attribute; `ValueError` if it is none."""
        document = members_of(json_of(text))
        kwargs = members_of(document.get("env_kwargs")) or document
        robots = kwargs.get("robots")
        names = robots if isinstance(robots, list) else [robots]
        names = [name for name in names if isinstance(name, str)][:_MAX_ROBOTS]
        found = kwargs.get("controller_configs")
        each = found if isinstance(found, list) else [found] * len(names)
        controllers = [_controller(members_of(one)) for one in each[:_MAX_ROBOTS]]
        known = [one for one in controllers if one is not None]
        name, kind = document.get("env_name"), document.get("type")
        return cls(
            name=name if isinstance(name, str) else UNKNOWN,
            kind=kind if isinstance(kind, int) else None,
            robots=tuple(names),
            control_hz=number_of(kwargs.get("control_freq")),
            controllers=tuple(known) if len(known) == len(controllers) == len(names) else (),
            simulation=members_of(document.get("sim_args")),
        )

    @property
    def embodiment(self) -> str:
        """Names of the robots, joined."""
        return " + ".join(self.robots) or UNKNOWN

    def parts(self, width: int) -> tuple[ActionPart, ...]:
        """Return what the axes of an action of this width mean; nothing if it fits no controller."""
        each, rest = divmod(width, len(self.controllers) or 1)
        grips = [each - one.width for one in self.controllers]
        if not grips or rest or set(grips) - {0, 1}:
            return ()
        runs = enumerate(zip(self.controllers, grips, strict=True))
        return tuple(told for i, (one, grip) in runs for told in one.parts(i * each, grip=bool(grip)))


def _controller(config: Mapping[str, Json]) -> Controller | None:
    """Return what is known of a controller; None for one whose numbers are not known."""
    parts = members_of(config.get("body_parts"))
    composite = set(parts) == {"right"}
    if composite:
        config = members_of(parts["right"])
    width = {"OSC_POSE": 6, "OSC_POSITION": 3}.get(str(config.get("type")))
    if width is None or config.get("impedance_mode", "fixed") != "fixed":
        return None
    delta = config.get("input_type", "delta") == "delta" and config.get("control_delta", True) is True
    frame = config.get("input_ref_frame", UNKNOWN) if composite else "world"
    return Controller(
        width=width,
        mode="delta" if delta else "absolute",
        frame=frame if frame in {"world", "base"} else UNKNOWN,
        scaling={key: config[key] for key in _NUMBERS if _is_scale(config.get(key))} if delta else {},
    )


def _is_scale(value: Json) -> bool:
    numbers = value if isinstance(value, list) and len(value) <= 6 else [value]
    return all(isinstance(number, int | float) for number in numbers)


def action_spec(
    found: Field, environment: Environment, offset_steps: int | None, evidence: str
) -> StreamSpec:
    """Return the spec of ``actions``."""
    width = found.shape[-1] if len(found.shape) == 2 else 0
    parts = environment.parts(width)
    unit = [UNKNOWN] * width
    axes: list[str] = []
    for run in parts:
        scaled = run.mode == "delta" or run.space == "gripper"
        one = "m" if run.space == "ee_position" else "rad"
        unit[run.start : run.stop] = ["1" if scaled else one] * (run.stop - run.start)
    for i in range(len(environment.controllers) if parts else 0):
        prefix = f"robot{i}_" if len(environment.controllers) > 1 else ""
        names = [*_XYZ, "rx", "ry", "rz"][: environment.controllers[i].width]
        names += ["gripper"] if width // len(environment.controllers) > len(names) else []
        axes += [prefix + name for name in names]
    scaling = [dict(one.scaling) for one in environment.controllers] if parts else []
    spec = spec_of(
        found,
        "action",
        unit=tuple(unit) if parts else (UNKNOWN,),
        axes=tuple(axes),
        description="What the environment's step was given.",
    )
    if any(scaling):
        spec = dataclasses.replace(spec, attributes={"scaling": scaling})
    told = f"{evidence}; {OSC}" if parts else evidence
    contract = ActionContract(parts=parts, offset_steps=offset_steps, evidence=told)
    return dataclasses.replace(spec, contract=contract)


@dataclass(frozen=True, slots=True)
class _Meaning:
    """What an observation's key says, and units, axes, frame and rotation of its numbers."""

    pattern: str
    stream: str
    unit: tuple[str, ...] = (UNKNOWN,)
    axes: tuple[str, ...] = ()
    frame: str | None = None
    rotation: str = ""


_WHO = r"(?:(robot\d{1,3})_)?(?:(left|right)_)?"
_XYZW = (*_XYZ, "w")
_KEYS = (
    _Meaning(_WHO + "joint_pos", "joint_position", ("rad",)),
    _Meaning(_WHO + "joint_pos_cos", "joint_position_cos", ("1",)),
    _Meaning(_WHO + "joint_pos_sin", "joint_position_sin", ("1",)),
    _Meaning(_WHO + "joint_vel", "joint_velocity", ("rad/s",)),
    _Meaning(_WHO + "gripper_qpos", "gripper_position"),
    _Meaning(_WHO + "gripper_qvel", "gripper_velocity"),
    _Meaning(_WHO + "eef_pos", "ee_position", ("m",), _XYZ, "world"),
    _Meaning(_WHO + "eef_quat", "ee_orientation", ("1",), _XYZW, "world", "quaternion_xyzw"),
    _Meaning(_WHO + "eef_quat_site", "ee_orientation_site", ("1",), _XYZW, "world", "quaternion_xyzw"),
    _Meaning(_WHO + "eef_vel_lin", "ee_velocity_linear", ("m/s",), _XYZ, UNKNOWN),
    _Meaning(_WHO + "eef_vel_ang", "ee_velocity_angular", ("rad/s",), _XYZ, UNKNOWN),
    _Meaning(_WHO + "base_to_eef_pos", "ee_position_in_base", ("m",), _XYZ, "base"),
    _Meaning(_WHO + "base_to_eef_quat", "ee_orientation_in_base", ("1",), _XYZW, "base", "quaternion_xyzw"),
    _Meaning(_WHO + "base_pos", "base_position", ("m",), _XYZ, "world"),
    _Meaning(_WHO + "base_quat", "base_orientation", ("1",), _XYZW, "world", "quaternion_xyzw"),
)


def observation_spec(found: Field, key: str, home: str, orientation: Mapping[str, Json]) -> StreamSpec:
    """Return the spec of an observation by robosuite's name for it.

    Parameters
    ----------
    home
        ``observation`` or ``next_observation``.
    orientation
        What is known of which way up pictures are.
    """
    camera = re.sub(r"_(image|rgb)$", "", key)
    picture = picture_of(found, stream_name(home, "images", camera), stored_order="rgb", **orientation)
    if picture is not None:
        return picture
    if key.endswith("_depth"):
        depth = depth_of(found, stream_name(home, "depth", key.removesuffix("_depth")), "m", **orientation)
        if depth is not None:
            return depth
    for known in _KEYS:
        if match := re.fullmatch(known.pattern, key):
            who = [word for word in match.groups() if word]
            return spec_of(
                found,
                stream_name(home, *who, known.stream),
                unit=known.unit,
                axes=known.axes,
                frame=known.frame,
                **({"rotation": known.rotation} if known.rotation else {}),
            )
    return spec_of(found, stream_name(home, *key.split("/")))
