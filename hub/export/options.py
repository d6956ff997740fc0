"""What is exported, and how."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from ...schemas import OPEN_V1, Policy

Align = Literal["drop", "previous"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """What is exported, and how.

    Attributes
    ----------
    now, policy
        The time to decide for, and what is asked for before an episode counts as open.
    everything
        Also export what is not open, for use by those who may: the result is not for others.
    episodes
        Only these: ids, unique beginnings of ids, or numbers counted from 0. Empty: all.
    licence
        The class of open episodes that goes; None: there may be only one.
    clock
        The clock whose samples become rows; None: that of the commands, see `main_clock`.
    align
        What becomes of streams on other clocks: ``drop`` leaves them out, ``previous`` takes for each row the
        latest sample that is not after it (the first one, where there is none yet).
    """

    now: datetime
    policy: Policy = OPEN_V1
    everything: bool = False
    episodes: tuple[str, ...] = ()
    licence: str | None = None
    clock: str | None = None
    align: Align = "drop"
