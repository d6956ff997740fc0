"""What a window is to hold: which streams, at which steps or times, in which form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ...schemas import TeleopenError

Align = Literal["previous", "nearest", "linear", "slerp"]

Offsets = int | float | Sequence[int] | Sequence[float] | range


class WindowError(TeleopenError, ValueError):
    """A window that cannot be drawn from these episodes: the message says why, and what could be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Want:
    """What is wanted of one stream, or of several as one.

    Attributes
    ----------
    steps
        Steps from the window's anchor: 0 is the anchor, -1 the one before. Of the anchor's clock, or of
        ``rate_hz`` if the windows have one. A stream on another clock is taken at the times of these steps.
    seconds
        Times from the anchor, instead of steps.
    align
        Which sample stands for a time: ``previous``, the latest not after it, which is what a policy could
        have seen; ``nearest``; ``linear`` between its neighbours, for low-dimensional streams; ``slerp``, the
        same for unit quaternions, along the great circle.
    tolerance_s
        A time that is farther than this from its sample counts as padding. None: one and a half median
        steps of the stream beyond its ends, and any gap within.
    size
        (height, width) that pictures are brought to.
    crop
        (top, left, height, width) of the part of the picture that is wanted, before it is resized.
    layout
        Of pictures: ``chw`` (lies in memory as ``hwc``), ``hwc``, or ``yuv420``: planes as they are coded, Y
        above U beside V, of the shape (H * 3 / 2, W).
    dtype
        ``uint8``, or ``float32`` from 0 to 1, for pictures. Everything else keeps its own.
    streams
        Low-dimensional streams whose samples are put side by side, flattened, in this order and in the dtype
        that NumPy promotes theirs to; each on its own clock. Empty: the one stream of the given name.
    """

    steps: tuple[int, ...] = ()
    seconds: tuple[float, ...] = ()
    align: Align = "previous"
    tolerance_s: float | None = None
    size: tuple[int, int] | None = None
    crop: tuple[int, int, int, int] | None = None
    layout: Literal["chw", "hwc", "yuv420"] = "chw"
    dtype: Literal["uint8", "float32"] = "uint8"
    streams: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if bool(self.steps) == bool(self.seconds):
            raise WindowError("a stream is wanted at steps or at seconds: give one of the two")
        if self.size and min(self.size) < 1:
            raise WindowError(f"pictures cannot be brought to the size {self.size}")

    @property
    def count(self) -> int:
        """Samples in a window."""
        return len(self.steps or self.seconds)

    def sources(self, name: str) -> tuple[str, ...]:
        """Return the streams that are read for what is asked for as ``name``."""
        return self.streams or (name,)


def wants_of(asked: Mapping[str, Offsets | Want]) -> dict[str, Want]:
    """Return what is wanted, by stream; whole numbers are steps, others seconds.

    Raises
    ------
    WindowError
        If nothing is, or an offset is no number.
    """
    found = {name: want if isinstance(want, Want) else _want(name, want) for name, want in asked.items()}
    if not found:
        raise WindowError("a window holds at least one stream")
    return found


def _want(name: str, offsets: Offsets) -> Want:
    given = list(offsets) if isinstance(offsets, Iterable) else [offsets]
    if given and all(isinstance(offset, int) and not isinstance(offset, bool) for offset in given):
        return Want(steps=tuple(int(offset) for offset in given))
    try:
        return Want(seconds=tuple(float(offset) for offset in given))
    except (TypeError, ValueError) as error:
        raise WindowError(f"{name}: {offsets!r} are neither steps nor seconds") from error
