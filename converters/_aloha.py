"""What is known of ALOHA's dialects beyond what their files say.

Each fact comes with the file of the recorder that it was read from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..schemas import UNKNOWN, ActionContract, ActionPart, Json
from ._hdf5 import Field

_VIPERX = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate", "gripper")
_COBOT = ("joint0", "joint1", "joint2", "joint3", "joint4", "joint5", "gripper")


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """What is known of a dialect beyond what its files say, and from which file of its recorder."""

    name: str
    recorder: str
    joints: tuple[str, ...] = ()
    scaled_grippers: bool = False
    has_base: bool = False
    offset_steps: int | None = None
    rate_hz: float = 50.0
    rate_source: str = ""
    evidence: str = ""
    order_evidence: str = ""

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the entries of every joint vector."""
        return tuple(f"{side}_{joint}" for side in ("left", "right") for joint in self.joints)

    def units(self, joint: str, gripper: str) -> tuple[str, ...]:
        """Return a unit for each entry of a joint vector, or one ``unknown`` for all."""
        arm = (joint,) * 6 + (gripper if self.scaled_grippers else UNKNOWN,)
        return arm * 2 if self.joints and set(arm) != {UNKNOWN} else (UNKNOWN,)

    def contract(self) -> ActionContract:
        """Return what the 14 numbers of ``action`` mean."""
        closed, opened = (0.0, 1.0) if self.scaled_grippers else (None, None)
        parts = []
        for start in (0, 7) if self.joints else ():
            parts += [
                ActionPart(
                    start=start,
                    stop=start + 6,
                    space="joint_position",
                    mode="absolute",
                    frame=None,
                    rotation="none",
                ),
                ActionPart(
                    start=start + 6,
                    stop=start + 7,
                    space="gripper",
                    mode="absolute",
                    frame=None,
                    rotation="none",
                    gripper_closed=closed,
                    gripper_open=opened,
                ),
            ]
        return ActionContract(parts=tuple(parts), offset_steps=self.offset_steps, evidence=self.evidence)

    def base_contract(self) -> ActionContract:
        """Return what the 2 numbers of ``base_action`` mean."""
        part = ActionPart(
            start=0, stop=2, space="base_velocity", mode="absolute", frame="base", rotation="none"
        )
        evidence = f"{self.recorder}: base_action is base_vel, measured with the observation of its row"
        return (
            ActionContract(parts=(part,), offset_steps=0, evidence=evidence)
            if self.has_base
            else ActionContract()
        )


_SWAPS = "swaps red and blue before it gives an image to OpenCV, so it takes them for RGB"

DIALECTS = {
    dialect.name: dialect
    for dialect in (
        Dialect(
            name="act-sim",
            recorder="tonyzhaozh/act: record_sim_episodes.py",
            joints=_VIPERX,
            scaled_grippers=True,
            offset_steps=0,
            rate_source="tonyzhaozh/act: constants.py: DT = 0.02",
            evidence="tonyzhaozh/act: sim_env.py: absolute joint positions, grippers 0 closed to 1 open; "
            "record_sim_episodes.py: a row is an observation and the action taken on it",
            order_evidence=f"tonyzhaozh/act: visualize_episodes.py {_SWAPS}",
        ),
        Dialect(
            name="aloha",
            recorder="tonyzhaozh/aloha: aloha_scripts/record_episodes.py",
            joints=_VIPERX,
            scaled_grippers=True,
            offset_steps=0,
            rate_source="tonyzhaozh/aloha: aloha_scripts/constants.py: DT = 0.02; "
            "record_episodes.py keeps episodes whose mean rate was 42 Hz or more",
            evidence="tonyzhaozh/aloha: aloha_scripts/real_env.py: absolute positions of the leaders' "
            "joints, grippers scaled from 0 closed to 1 open with the leader's range; step waits, observes",
            order_evidence=f"tonyzhaozh/aloha: aloha_scripts/visualize_episodes.py {_SWAPS}",
        ),
        Dialect(
            name="mobile-aloha",
            recorder="MarkFzp/mobile-aloha: aloha_scripts/record_episodes.py",
            joints=_VIPERX,
            scaled_grippers=True,
            has_base=True,
            offset_steps=1,
            rate_source="MarkFzp/mobile-aloha: aloha_scripts/constants.py: DT = 0.02; "
            "record_episodes.py keeps episodes whose mean rate was 30 Hz or more",
            evidence="MarkFzp/mobile-aloha: aloha_scripts/real_env.py: absolute positions of the leaders' "
            "joints, grippers scaled from 0 closed to 1 open with the leader's range; step observes at once "
            "and record_episodes.py waits after it, so a row's action is a step younger than its observation",
            order_evidence=f"MarkFzp/mobile-aloha: aloha_scripts/visualize_episodes.py {_SWAPS}",
        ),
        Dialect(
            name="agilex",
            recorder="agilexrobotics/cobot_magic: collect_data/collect_data.py",
            joints=_COBOT,
            has_base=True,
            offset_steps=1,
            rate_hz=30.0,
            rate_source="agilexrobotics/cobot_magic: collect_data/collect_data.py: default of --frame_rate",
            evidence="agilexrobotics/cobot_magic: collect_data/collect_data.py: positions of the leaders' "
            "joints as their driver gives them; the first observation is a turn older than the first action",
            order_evidence=f"agilexrobotics/cobot_magic: collect_data/visualize_episodes.py {_SWAPS}",
        ),
        Dialect(
            name="unknown",
            recorder=UNKNOWN,
            rate_source="tonyzhaozh/act: constants.py: DT = 0.02, though another program wrote this file",
        ),
    )
}


def dialect_of(fields: Mapping[str, Field], attributes: Mapping[str, Json]) -> Dialect:
    """Tell what wrote a file, from what is in it."""
    sim, compress = attributes.get("@sim"), attributes.get("@compress")
    if sim is True:
        return DIALECTS["act-sim"]
    if compress is False:
        return DIALECTS["agilex"]
    if "base_action" in fields:
        return DIALECTS["mobile-aloha"]
    return DIALECTS["aloha" if sim is False else "unknown"]
