"""What is known of the keys of replay buffers, from the scripts that write them.

A buffer tells neither units nor frames nor what an action means; each fact comes with the script it was read
from. What those scripts are is told in ``umi_zarr.py``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from ..schemas import UNKNOWN, ActionContract, ActionPart, Json

_POSE_UNIT = ("m", "m", "m", "rad", "rad", "rad")
_POSE_AXES = ("x", "y", "z", "rx", "ry", "rz")


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """What the writer's source says on a key; units and the like hold for samples of ``shape`` only."""

    pattern: str
    stream: str
    shape: tuple[int, ...] = ()
    unit: tuple[str, ...] = (UNKNOWN,)
    frame: str | None = UNKNOWN
    axes: tuple[str, ...] = ()
    contract: ActionContract = field(default_factory=ActionContract)
    description: str = ""
    attributes: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The keys that one script writes.

    Attributes
    ----------
    needs
        The keys by which the script is recognized.
    rate_hz, rate_source
        Steps per second where a buffer has no timestamps, and how that is known.
    timestamps
        What its timestamps are beyond what is true of any buffer's.
    """

    name: str
    needs: frozenset[str]
    meanings: tuple[Meaning, ...]
    rate_hz: float | None = None
    rate_source: str = ""
    timestamps: str = ""
    embodiment: str = UNKNOWN

    def meaning(self, key: str) -> Meaning | None:
        """Return what is known of a key, with the stream's name filled in."""
        for meaning in (*self.meanings, *_COMMON):
            match = re.fullmatch(meaning.pattern, key, re.ASCII)
            if match:
                return replace(meaning, stream=match.expand(meaning.stream))
        return None


_UMI_PICTURE = (
    "Fisheye picture of a GoPro, cropped and scaled; the gripper is blacked out and its tags are painted over"
)
_UMI = Layout(
    name="UMI",
    needs=frozenset(
        f"robot0_{key}"
        for key in ("eef_pos", "eef_rot_axis_angle", "gripper_width", "demo_start_pose", "demo_end_pose")
    ),
    # 06_generate_dataset_plan.py takes the videos' own rate and does not store it. 59.94 is what the cameras'
    # calibration tells (gopro_intrinsics_2_7k.json) and replay_real_bimanual_umi.py computes with.
    rate_hz=60_000 / 1_001,
    rate_source="nominal, from UMI's capture rate; replay buffers may have been down-sampled",
    embodiment="UMI gripper",
    meanings=(
        Meaning(
            pattern=r"camera(\d+)_rgb",
            stream=r"observation.images.camera\1",
            frame=None,
            description=_UMI_PICTURE,
            attributes={"lens": "fisheye", "masked": ["gripper"], "inpainted": ["tags"]},
        ),
        Meaning(
            pattern=r"robot(\d+)_eef_pos",
            stream=r"observation.robot\1.ee_position",
            shape=(3,),
            unit=("m",),
            frame="tag",
            axes=("x", "y", "z"),
            description="Tip of the gripper, in the z-up frame of the table's tag",
        ),
        Meaning(
            pattern=r"robot(\d+)_eef_rot_axis_angle",
            stream=r"observation.robot\1.ee_orientation",
            shape=(3,),
            unit=("rad",),
            frame="tag",
            axes=("rx", "ry", "rz"),
            description="Orientation of the gripper's tip as a rotation vector",
            attributes={"rotation": "axis_angle"},
        ),
        Meaning(
            pattern=r"robot(\d+)_gripper_width",
            stream=r"observation.robot\1.gripper_width",
            shape=(1,),
            unit=("m",),
            frame=None,
            description="Distance between the fingers, from the tags on them",
        ),
        Meaning(
            pattern=r"robot(\d+)_demo_(start|end)_pose",
            stream=r"extra.robot\1.demo_\2_pose",
            shape=(6,),
            unit=_POSE_UNIT,
            frame="tag",
            axes=_POSE_AXES,
            description="Pose at the first or last tracked picture of the recording, in each row",
            attributes={"rotation": "axis_angle"},
        ),
    ),
)

_PIXEL = "{pixel}"
_PUSHT = Layout(
    name="Push-T",
    needs=frozenset({"img", "state", "action", "n_contacts"}),
    rate_hz=10.0,
    rate_source="nominal: a step simulates sim_hz // control_hz hundredths of a second (pusht_env.py)",
    embodiment="Push-T simulator",
    meanings=(
        Meaning(
            pattern="img", stream="observation.images.img", frame=None, description="The window, rendered"
        ),
        Meaning(
            pattern="state",
            stream="observation.state",
            shape=(5,),
            unit=(_PIXEL, _PIXEL, _PIXEL, _PIXEL, "rad"),
            frame="window",
            axes=("agent_x", "agent_y", "block_x", "block_y", "block_angle"),
            description="Positions in the simulator's window, which is 512 pixels wide and high",
        ),
        Meaning(
            pattern="keypoint",
            stream="observation.keypoint",
            shape=(9, 2),
            unit=(_PIXEL,),
            frame="window",
            axes=("x", "y"),
            description="Nine points on the block",
        ),
        Meaning(
            pattern="action",
            stream="action",
            shape=(2,),
            unit=(_PIXEL,),
            frame="window",
            axes=("x", "y"),
            contract=ActionContract(
                parts=(
                    ActionPart(
                        start=0, stop=2, space="ee_position", mode="absolute", frame="window", rotation="none"
                    ),
                ),
                offset_steps=0,
                evidence="demo_pusht.py pairs the state with the mouse's place; pusht_env.py steers there",
            ),
            description="Where the mouse was: the agent's target",
        ),
        Meaning(
            pattern="n_contacts",
            stream="observation.n_contacts",
            shape=(1,),
            unit=("1",),
            frame=None,
            description="Contact points per simulated step, rounded up",
        ),
    ),
)

_REAL = Layout(
    name="Diffusion Policy real robot",
    needs=frozenset({"timestamp", "action", "stage", "robot_eef_pose"}),
    timestamps="the grid that samples were put on, not when each was taken (real_env.py)",
    meanings=(
        Meaning(
            pattern="robot_eef_pose",
            stream="observation.robot_eef_pose",
            shape=(6,),
            unit=_POSE_UNIT,
            axes=_POSE_AXES,
            description="ActualTCPPose of the UR controller: position and rotation vector",
            attributes={"rotation": "axis_angle"},
        ),
        Meaning(
            pattern="robot_eef_pose_vel",
            stream="observation.robot_eef_pose_vel",
            shape=(6,),
            axes=_POSE_AXES,
            description="ActualTCPSpeed of the UR controller",
        ),
        Meaning(
            pattern="robot_joint",
            stream="observation.robot_joint",
            shape=(6,),
            unit=("rad",),
            frame=None,
            description="ActualQ of the UR controller",
        ),
        Meaning(
            pattern="robot_joint_vel",
            stream="observation.robot_joint_vel",
            shape=(6,),
            frame=None,
            description="ActualQd of the UR controller",
        ),
        Meaning(
            pattern="action",
            stream="action",
            shape=(6,),
            unit=_POSE_UNIT,
            axes=_POSE_AXES,
            contract=ActionContract(
                parts=(
                    ActionPart(start=0, stop=3, space="ee_position", mode="absolute", rotation="none"),
                    ActionPart(
                        start=3, stop=6, space="ee_orientation", mode="absolute", rotation="axis_angle"
                    ),
                ),
                evidence="real_env.py schedules each action as a pose to be reached at its row's time",
            ),
            description="Target pose of the tool",
        ),
        Meaning(
            pattern="stage",
            stream="extra.stage",
            unit=("1",),
            frame=None,
            description="Stage of the task: presses of the space bar (demo_real_robot.py)",
        ),
    ),
)

# real_data_conversion.py spaces video frames by the differences of `timestamp`, so it is in seconds for any
# buffer.
_COMMON = (
    Meaning(
        pattern="timestamp", stream="extra.timestamp", unit=("s",), frame=None, description="Times as stored"
    ),
    Meaning(pattern="action", stream="action"),
    Meaning(pattern="state", stream="observation.state"),
)
ANY = Layout(name="unknown", needs=frozenset(), meanings=())


def layout_of(keys: Collection[str]) -> Layout:
    """Tell which script wrote a buffer, from its keys."""
    found = frozenset(keys)
    return next(layout for layout in (_UMI, _PUSHT, _REAL, ANY) if layout.needs <= found)
