"""Which stamp of a message becomes its time.

A message bears up to three: that of its header, when the sensor measured or a program made it; when it was
published; and when the recorder logged it. The header's is nearest to what happened and is taken, if it can
be believed: it is set, it never runs backwards, it changes, and it is of the same epoch as the log. What is
not taken is kept as a stream of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..schemas import Times

FARTHEST_NS = 3_600 * 1_000_000_000
"""A stamp farther from the log time is of another epoch, such as a device's own or a simulation's."""


@dataclass(frozen=True, slots=True)
class Taken:
    """The times that were taken, absolute, and why.

    Attributes
    ----------
    header
        Whether they are those of the header.
    """

    times: Times
    source: str
    header: bool


def taken(log: Times, stamps: Times | None, path: str, *, log_word: str = "log_time") -> Taken:
    """Choose between the log times and the stamps at ``path``: (n,) int64 nanoseconds each."""
    if stamps is None:
        return Taken(
            log,
            f"{log_word}: when the recorder received the message, which bears no stamp itself",
            header=False,
        )
    why = _doubt(log, stamps)
    if why:
        return Taken(log, f"{log_word}, since {path} {why}", header=False)
    return Taken(stamps, f"{path}: the stamp that the message bears", header=True)


def _doubt(log: Times, stamps: Times) -> str:
    """Say what keeps stamps from being believed; "" if nothing does."""
    if np.any(stamps <= 0):
        return f"is not set in {int((stamps <= 0).sum()):,} of {len(stamps):,} messages"
    back = np.flatnonzero(np.diff(stamps) < 0)
    if back.size:
        return f"runs backwards at message {int(back[0]) + 1}"
    if len(stamps) > 1 and stamps[0] == stamps[-1] and log[0] != log[-1]:
        return "never changes"
    apart = np.abs(stamps - log)
    if apart.max(initial=0) > FARTHEST_NS:
        return f"lies {apart.max() / 1e9:,.0f} s from the log time: it is of another epoch"
    return ""
