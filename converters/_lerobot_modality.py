"""GR00T's addition to LeRobot datasets: meta/modality.json, which names the slices of state and action.

After the format's description in NVIDIA/Isaac-GR00T: getting_started/data_preparation.md, and of its first
releases getting_started/LeRobot_compatible_data_schema.md, which told ``absolute``, ``rotation_type`` and
``range``. Slices are half open and count from zero. What an entry leaves out stays unknown: the loader's
defaults are not the recorder's word.

Others write ``original_key`` for state and action, too, where a slice is of another column.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..schemas import ActionContract, ActionPart, FormatError, Json
from ..schemas.episode import Mode, Rotation
from ._lerobot_meta import MAX_WORD, read_json

MODALITY = "meta/modality.json"

_COLUMNS = {"state": "observation.state", "action": "action"}
_MAX_ENTRIES = 10_000

# The order of a quaternion is not told; angles are in the order roll, pitch, yaw about x, y, z.
_ROTATIONS: Mapping[str, Rotation] = {
    "axis_angle": "axis_angle",
    "rotation_6d": "rotation_6d",
    "matrix": "matrix",
    "euler_angles_rpy": "euler_xyz",
}


@dataclass(frozen=True, slots=True)
class Slice:
    """A run of a column's axes that has a name.

    Attributes
    ----------
    where
        Its place in the file, such as ``action.left_arm``.
    told
        All that the file says of it.
    """

    where: str
    start: int
    stop: int
    told: Mapping[str, Json]

    @property
    def name(self) -> str:
        """The name, without ``state`` or ``action``."""
        return self.where.partition(".")[2]

    def part(self) -> ActionPart:
        """Return what the file says of these axes of an action."""
        absolute = self.told.get("absolute")
        mode: Mode = "unknown"
        if isinstance(absolute, bool):
            mode = "absolute" if absolute else "delta"
        rotation = _ROTATIONS.get(str(self.told.get("rotation_type")), "unknown")
        return ActionPart(start=self.start, stop=self.stop, space="unknown", mode=mode, rotation=rotation)


@dataclass(frozen=True)
class Modality:
    """What meta/modality.json says.

    Attributes
    ----------
    members
        All of it.
    slices
        By column, in the order of the axes.
    videos
        GR00T's name of each camera, by its column.
    annotations
        Columns that hold indices into the table of tasks.
    """

    path: Path
    members: Mapping[str, Json]
    slices: Mapping[str, tuple[Slice, ...]]
    videos: Mapping[str, str]
    annotations: frozenset[str]

    @classmethod
    def open(cls, root: Path) -> Modality | None:
        """Read and check the file, if there is one."""
        path = root / MODALITY
        if not path.exists():
            return None
        members = read_json(root, MODALITY)
        slices: dict[str, list[Slice]] = {}
        for section, column in _COLUMNS.items():
            for key, told in _entries(path, members, section):
                found = _slice(path, f"{section}.{key}", told)
                slices.setdefault(str(told.get("original_key") or column), []).append(found)
        return cls(
            path=path,
            members=members,
            slices={c: tuple(sorted(found, key=lambda s: (s.start, s.stop))) for c, found in slices.items()},
            videos={str(t.get("original_key") or k): k for k, t in _entries(path, members, "video")},
            annotations=frozenset(
                str(t.get("original_key") or f"annotation.{k}")
                for k, t in _entries(path, members, "annotation")
            ),
        )

    def of(self, column: str, axes: int) -> tuple[Slice, ...]:
        """Return the slices of a column of so many axes; all must lie within."""
        found = self.slices.get(column, ())
        for part in found:
            if part.stop > axes:
                why = f"is [{part.start}, {part.stop}) of {column!r}, which has {axes} axes"
                raise FormatError(str(self.path), part.where, why)
        return found


def axes_of(slices: tuple[Slice, ...], axes: int) -> tuple[str, ...]:
    """Return a name for each axis, if the slices cover each of them once."""
    names = [f"{s.name}.{i}" if s.stop - s.start > 1 else s.name for s in slices for i in _span(s)]
    covered = [s.start + i for s in slices for i in _span(s)] == list(range(axes))
    return tuple(names) if covered and len(set(names)) == axes else ()


def contract_of(slices: tuple[Slice, ...]) -> ActionContract:
    """Return what the file says of an action; the parts are left out where slices overlap."""
    ends = [0, *(s.stop for s in slices)]
    apart = all(s.start >= end for s, end in zip(slices, ends, strict=False))
    said = "absolute and rotation_type of meta/modality.json, where they are declared"
    return ActionContract(parts=tuple(s.part() for s in slices) if apart else (), evidence=said)


def _span(part: Slice) -> range:
    return range(part.stop - part.start)


def _entries(path: Path, members: Mapping[str, Json], section: str) -> Iterator[tuple[str, dict[str, Any]]]:
    found = members.get(section)
    if found is None:
        return
    if not isinstance(found, dict) or len(found) > _MAX_ENTRIES:
        raise FormatError(str(path), section, f"is no object of up to {_MAX_ENTRIES:,} entries")
    for key, told in found.items():
        if not 0 < len(key) <= MAX_WORD - 20 or not (told is None or isinstance(told, dict)):
            raise FormatError(str(path), f"{section}.{key[:100]}", "is no object of a name")
        yield key, told or {}


def _slice(path: Path, where: str, told: Mapping[str, Json]) -> Slice:
    start, stop = told.get("start"), told.get("end")
    for value in (start, stop):
        if not isinstance(value, int) or isinstance(value, bool):
            raise FormatError(str(path), where, f"goes from {start!r} to {stop!r}, which are no indices")
    if not 0 <= start < stop:  # type: ignore[operator] # both are int
        raise FormatError(str(path), where, f"goes from {start} to {stop}, which is no run of axes")
    return Slice(where, start, stop, told)  # type: ignore[arg-type] # both are int
