"""Parts of contracts, and tables of what datasets mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ..schemas import UNKNOWN, ActionContract, ActionPart, Json, StreamSpec
from ..schemas.episode import Mode, Rotation, Space
from ._hdf5 import Field


def part(
    start: int,
    stop: int,
    space: Space,
    mode: Mode = "absolute",
    frame: str | None = None,
    rotation: Rotation = "none",
) -> ActionPart:
    """Return what axes ``[start, stop)`` mean, which have no frame and no rotation unless told."""
    return ActionPart(start=start, stop=stop, space=space, mode=mode, frame=frame, rotation=rotation)


def gripper(
    start: int,
    stop: int | None = None,
    *,
    closed: float | None,
    opened: float | None,
    mode: Mode = "absolute",
) -> ActionPart:
    """Return what the axes of a gripper mean: one, unless ``stop`` is told."""
    return ActionPart(
        start=start,
        stop=start + 1 if stop is None else stop,
        space="gripper",
        mode=mode,
        frame=None,
        rotation="none",
        gripper_closed=closed,
        gripper_open=opened,
    )


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a dataset is, if its rows have the shape that they should have.

    Attributes
    ----------
    shape
        Of a row; ``()`` for one number.
    space, mode, rotation, closed, opened, offset_steps, evidence
        Of its contract, for commands: streams that begin with ``action``.
    """

    stream: str
    shape: tuple[int, ...] = ()
    unit: tuple[str, ...] = (UNKNOWN,)
    axes: tuple[str, ...] = ()
    frame: str | None = None
    description: str = ""
    space: Space = "unknown"
    mode: Mode = "absolute"
    rotation: Rotation = "none"
    closed: float | None = None
    opened: float | None = None
    offset_steps: int | None = None
    evidence: str = ""
    attributes: Mapping[str, Json] = field(default_factory=dict)

    def spec(self, found: Field, clock: str) -> StreamSpec:
        """Return the stream's spec; bare if its rows are of another shape."""
        bare = StreamSpec(
            name=self.stream,
            kind="low_dim",
            dtype=found.dtype.name,
            shape=found.shape[1:],
            clock=clock,
            contract=ActionContract() if self.stream.startswith("action") else None,
        )
        if found.shape[1:] != self.shape:
            return bare
        return replace(
            bare,
            unit=self.unit,
            axes=self.axes,
            frame=self.frame,
            contract=bare.contract and self._contract(),
            description=self.description,
            attributes=dict(self.attributes),
        )

    def _contract(self) -> ActionContract:
        one = ActionPart(
            start=0,
            stop=self.shape[-1] if self.shape else 1,
            space=self.space,
            mode=self.mode,
            frame=self.frame,
            rotation=self.rotation,
            gripper_closed=self.closed,
            gripper_open=self.opened,
        )
        return ActionContract(parts=(one,), offset_steps=self.offset_steps, evidence=self.evidence)
