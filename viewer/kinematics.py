"""Forward kinematics: where the links of a robot are, from the positions of its joints. NumPy only.

Conventions are URDF's (https://wiki.ros.org/urdf/XML/joint): metres and radians; a joint's origin is a
translation and roll, pitch, yaw about the fixed axes x, y, z of its parent; then the joint turns about, or
moves along, its axis.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..schemas import SchemaError
from ..schemas.errors import Problem

Rows = NDArray[np.float64]
Poses = NDArray[np.float64]
"""(n, 4, 4): for each sample, what takes the link's coordinates to the base's."""

JointType = Literal["revolute", "continuous", "prismatic", "fixed"]
Triple = tuple[float, float, float]
_MOST_LINKS = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Joint:
    """A joint between two links.

    Attributes
    ----------
    xyz, rpy, axis
        m, rad, and a direction.
    lower, upper, velocity
        rad or m, and that per second; None: no limit is known.
    mimic, multiplier, offset
        It follows this joint: ``multiplier * position + offset``.
    """

    name: str
    type: JointType
    parent: str
    child: str
    xyz: Triple = (0.0, 0.0, 0.0)
    rpy: Triple = (0.0, 0.0, 0.0)
    axis: Triple = (1.0, 0.0, 0.0)
    lower: float | None = None
    upper: float | None = None
    velocity: float | None = None
    mimic: str | None = None
    multiplier: float = 1.0
    offset: float = 0.0

    @property
    def unit(self) -> str:
        """``rad`` or ``m``."""
        return "m" if self.type == "prismatic" else "rad"


@dataclass(frozen=True, slots=True)
class Chain:
    """The joints of a robot as a tree, parents first.

    Raises
    ------
    SchemaError
        If they are no tree.
    """

    joints: tuple[Joint, ...]
    root: str = field(init=False)

    def __post_init__(self) -> None:
        parents = {joint.child: joint for joint in self.joints}
        roots = {joint.parent for joint in self.joints} - set(parents)
        if len(parents) < len(self.joints) or len(roots) != 1 or len(self.joints) >= _MOST_LINKS:
            raise SchemaError(
                [Problem("joints", f"{len(self.joints)} joints from {len(roots)} bases: no tree")]
            )
        root = roots.pop()
        ordered = tuple(_parents_first(self.joints, root))
        if len(ordered) < len(self.joints):
            raise SchemaError([Problem("joints", "some joints go round in a circle")])
        object.__setattr__(self, "joints", ordered)
        object.__setattr__(self, "root", root)

    def joint(self, name: str) -> Joint:
        """Return a joint by its name; KeyError if there is none."""
        return {joint.name: joint for joint in self.joints}[name]

    def path(self, link: str) -> list[Joint]:
        """Return the joints from the base to a link."""
        above = {joint.child: joint for joint in self.joints}
        found: list[Joint] = []
        while link in above:
            found.append(above[link])
            link = above[link].parent
        return found[::-1]

    def leaf(self) -> str:
        """Return the link that most moving joints lie before."""
        links = [joint.child for joint in self.joints]
        return max(links, key=lambda link: sum(joint.type != "fixed" for joint in self.path(link)))

    def poses(self, positions: Mapping[str, Rows]) -> dict[str, Poses]:
        """Return the pose of every link.

        Parameters
        ----------
        positions
            By joint, (n,) rad or m. Joints that are not told stand at 0, or follow the one that they mimic.

        Returns
        -------
            By link, (n, 4, 4); the base's is the identity.
        """
        count = max((len(values) for values in positions.values()), default=1)
        found: dict[str, Poses] = {self.root: np.broadcast_to(np.eye(4), (count, 4, 4))}
        for joint in self.joints:
            values = positions.get(joint.name)
            if values is None and joint.mimic is not None and joint.mimic in positions:
                values = joint.multiplier * positions[joint.mimic] + joint.offset
            moved = found[joint.parent] @ pose_of(joint.xyz, joint.rpy)
            if values is not None and joint.type != "fixed":
                moved = moved @ _motion(joint, np.asarray(values, np.float64))
            found[joint.child] = moved
        return found


def _parents_first(joints: Sequence[Joint], root: str) -> Iterator[Joint]:
    below: dict[str, list[Joint]] = {}
    for joint in joints:
        below.setdefault(joint.parent, []).append(joint)
    todo = [root]
    while todo:
        for joint in below.get(todo.pop(), []):
            yield joint
            todo.append(joint.child)


def pose_of(xyz: Triple, rpy: Triple) -> Rows:
    """Return a translation and a rotation as (4, 4): ``Rz(yaw) Ry(pitch) Rx(roll)``."""
    matrix = np.eye(4)
    roll, pitch, yaw = (_turn(axis, np.array([angle]))[0] for axis, angle in zip(np.eye(3), rpy, strict=True))
    matrix[:3, :3] = yaw @ pitch @ roll
    matrix[:3, 3] = xyz
    return matrix


def _motion(joint: Joint, values: Rows) -> Poses:
    direction = np.asarray(joint.axis, np.float64)
    direction = direction / (np.linalg.norm(direction) or 1.0)
    found = np.broadcast_to(np.eye(4), (len(values), 4, 4)).copy()
    if joint.type == "prismatic":
        found[:, :3, 3] = values[:, None] * direction
    else:
        found[:, :3, :3] = _turn(direction, values)
    return found


def _turn(axis: Rows, angles: Rows) -> Rows:
    """Return rotations about a unit axis: (n, 3, 3), by Rodrigues' formula."""
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    sine, cosine = np.sin(angles)[:, None, None], np.cos(angles)[:, None, None]
    turned: Rows = np.eye(3) + sine * cross + (1 - cosine) * (cross @ cross)
    return turned
