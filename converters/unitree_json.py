"""Unitree's recordings by ``xr_teleoperate``: a folder with ``data.json``, pictures and perhaps sound.

Field notes, from unitreerobotics/xr_teleoperate (teleop/utils/episode_writer.py, teleop_hand_and_arm.py,
robot_control/robot_hand_*.py) at v1.1 and at the versions since.

*Layout.* ``<task>/episode_<n>/{data.json, colors/, depths/, audios/}``; ``data.json`` holds ``info``,
``text`` and ``data``, a list with an object for each turn of the control loop. A newer writer adds
``rewards``.

*Templates.* ``info.author`` is the constant "unitree", ``rewards.success`` the constant true, and ``text``
is filled with an example unless the operator gives another: none of these is believed. They are kept as
told.

*Time.* No stamp is kept. ``info.image.fps`` is the rate that was asked for; the loop sleeps for what is
left of a turn, so the real one is lower where a turn took longer. ``idx`` counts turns; one whose files
could not be written is missing, and so is its time.

*Rows.* State, pictures and target of a step are of the same turn: the state is read, inverse kinematics
solved for it, the target sent, the step written. So an action follows its observation in the same row.

*Numbers.* ``arm.qpos`` is in radians: measured in ``states``, the solution of inverse kinematics in
``actions``, before the arm controller limits its speed. ``ee.qpos`` depends on the hand, which is not
named: one number is Dex1's motor in radians (0 closed, 5.4 open), seven are Dex3's joints in radians, six
are Inspire's or BrainCo's fingers from 0 to 1, where Inspire's 1 is open and BrainCo's 1 is closed.
``body.qpos`` is something else on each side: positions of all motors in ``states``, and in ``actions`` the
velocity that the thumbsticks ask of the legs.

*Short arms.* The recorder takes the first and the last seven numbers of both arms together, for robots with
four or five joints to an arm as well: there the two overlap.

*Cameras.* ``color_0`` is the head's camera, or its left half, and what the next are depends on that.
Pictures are OpenCV's, given to it in its own order: any decoder gives the right colours.

*Depth* goes through `cv2.imwrite` as JPEG, which cuts off at 255 and is lossy: it is no measurement any
more.

*Sound* comes in pieces, one with a step, of ``info.audio.sample_rate``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ..schemas import UNKNOWN, Episode, FormatError
from ._draft import Draft, embodiment_of
from ._unitree_episode import Composer
from ._unitree_steps import recording
from .base import Format, contained, source_file

VERSION = "1"

_DATA = "data.json"
_EPISODE = re.compile(r"episode_(\d+)")
_HEAD = 1 << 14
_MARKS = ('"info"', '"joint_names"', '"tactile_names"')
"""Members that no other ``data.json`` has, and that stand at the head of this one since its first version."""


@dataclass(frozen=True)
class UnitreeJson:
    """Reads an episode's folder, or a task's folder with ``episode_<n>`` in it.

    Attributes
    ----------
    block_bytes
        Most payload bytes in a block.
    rate_hz
        Rate of the nominal clock; None: ``info.image.fps``.
    instruction
        What the robot was asked to do; None: ``text.goal``, unless that is the writer's example.
    embodiment
        The robot and its hands, since the format has no place for them.
    """

    format: ClassVar[Format] = Format(
        name="unitree-json",
        title="Unitree xr_teleoperate JSON",
        suffixes=(".json",),
        spec="https://github.com/unitreerobotics/xr_teleoperate/blob/main/teleop/utils/episode_writer.py",
    )
    block_bytes: int = 16 << 20
    rate_hz: float | None = None
    instruction: str | None = None
    embodiment: str = UNKNOWN

    def probe(self, path: Path) -> bool:
        """Tell whether ``path`` is an episode's folder or a task's, by the head of a ``data.json``."""
        try:
            if not path.is_dir():
                return False
            first = path if path.joinpath(_DATA).is_file() else path / next(iter(_episodes_in(path)))
            with first.joinpath(_DATA).open("rb") as file:
                head = file.read(_HEAD).decode(errors="replace")
            return head.lstrip().startswith("{") and all(mark in head for mark in _MARKS)
        except (OSError, StopIteration, ValueError):
            return False

    def episodes(self, path: Path) -> Iterator[Episode]:
        """Yield the episode of a folder, or those of a task in the order of their numbers."""
        if path.joinpath(_DATA).is_file():
            yield self._episode(path, path, ())
            return
        names = _episodes_in(path) if path.is_dir() else []
        if not names:
            raise FormatError(
                str(path),
                "",
                "holds neither data.json nor episode_<n>",
                "Name the episode's or task's folder",
            )
        warnings = _others_in(path, names)
        for name in names:
            contained(path, name, path=path, where=name)
            yield self._episode(path / name, path, warnings)

    def _episode(self, folder: Path, root: Path, warnings: tuple[str, ...]) -> Episode:
        contained(folder, _DATA, path=folder, where=_DATA)
        place = folder / _DATA
        draft = Draft(path=place)
        for warning in warnings:
            draft.warn(warning)
        composer = Composer(draft, recording(place), folder, self.block_bytes)
        composer.compose(self.rate_hz, self.instruction)
        return draft.build(
            self,
            (source_file(place, root), *composer.sources(root)),
            version=VERSION,
            embodiment=embodiment_of(self.embodiment),
        )


def _episodes_in(folder: Path) -> list[str]:
    """Return the names of a task's episodes that were saved, by their numbers."""
    found = [
        (int(m[1]), p.name)
        for p in folder.iterdir()
        if (m := _EPISODE.fullmatch(p.name)) and p.joinpath(_DATA).is_file()
    ]
    return [name for _, name in sorted(found)]


def _others_in(folder: Path, episodes: list[str]) -> tuple[str, ...]:
    """Return a warning that names what in a folder is not read."""
    names = sorted({p.name for p in folder.iterdir()} - set(episodes))
    told = ", ".join(ascii(name) for name in names[:20]) + (" ..." if len(names) > 20 else "")
    return (f"not read, since no episode_<n> with a data.json: {told}",) if names else ()


CONVERTER = UnitreeJson
