"""Figures that tell how commands go with the motion that followed: pure functions of two arrays of rows.

Everywhere ``action`` and ``state`` are (n, axes) float64, row t of both belongs together, and an axis means
the same quantity in both. A lag is the number of rows by which the state comes after the action.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOST_LAG = 10
LEAST_ROWS = 4 * MOST_LAG

_LEAST_MOTION = 1e-3
"""Peak to peak, in rad, m or parts of a gripper's way: an axis that moves less tells nothing."""

_FOLLOWS = 0.9
"""Correlation from which an action is taken to command the state (teleoperation samples: 0.93 to 0.999)."""

_CHANGES = 0.8
"""The same for changes of the state from row to row, which carry more of the sensors' noise."""

_ABSOLUTE = 0.1
_NOT_ABSOLUTE = 0.5
"""Part of the motion's variance that is left when the state is taken from the action."""

Rows = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """How well an action goes with something at each lag: correlations, averaged over the moving axes.

    Attributes
    ----------
    correlation
        By lag, from ``-MOST_LAG`` to ``MOST_LAG``.
    """

    correlation: dict[int, float]

    @property
    def lag(self) -> int:
        """The lag at which it fits best."""
        return max(self.correlation, key=self.correlation.__getitem__)

    @property
    def best(self) -> float:
        """The correlation at that lag."""
        return self.correlation[self.lag]

    def precedes(self, least: int, follows: float) -> bool:
        """Tell whether the response clearly comes before lag ``least``.

        A slow motion looks alike at all lags. It is clear if what the best lag leaves unexplained is less
        than half of what the least lag that can be leaves.
        """
        known = self.correlation[max(-MOST_LAG, min(MOST_LAG, least))]
        return self.lag < least and self.best >= follows and 1 - self.best < (1 - known) / 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Motion:
    """What two arrays of rows tell about each other.

    Attributes
    ----------
    value, change
        How the action goes with the state, and with ``state[t + 1] - state[t]``.
    error
        ``action - state`` at the best lag: its mean square, as part of the state's variance; the median of
        the axes.
    shape_error
        The same after each axis' mean was taken off both.
    scale
        By what the state must be multiplied to give the action at the best lag; the median of the axes.
    """

    value: Fit
    change: Fit
    error: float
    shape_error: float
    scale: float

    @property
    def looks_absolute(self) -> bool:
        """The action is the state that is reached soon after, in the state's own unit."""
        return self.value.best >= _FOLLOWS and self.error < _ABSOLUTE

    @property
    def looks_delta(self) -> bool:
        """The action goes with the state's changes, and is too far from the state itself."""
        return self.change.best >= _CHANGES and self.shape_error > _NOT_ABSOLUTE

    @property
    def scale_of_degrees(self) -> str:
        """``degrees`` if the action's numbers are degrees where the state's are radians, or ``radians``."""
        for word, factor in (("degrees", np.rad2deg(1.0)), ("radians", np.deg2rad(1.0))):
            if self.value.best > 0.95 and abs(self.scale / factor - 1) < 0.1:
                return word
        return ""


def motion(action: Rows, state: Rows) -> Motion | None:
    """Return the figures of the axes that move in both, or None if too little is there to tell anything."""
    moves = (np.ptp(action, axis=0) >= _LEAST_MOTION) & (np.ptp(state, axis=0) >= _LEAST_MOTION)
    if len(action) < LEAST_ROWS or not moves.any():
        return None
    action, state = action[:, moves], state[:, moves]
    value, change = fit(action, state), fit(action[:-1], np.diff(state, axis=0))
    rows = slice(MOST_LAG, len(action) - MOST_LAG)
    command, reached = action[rows], state[rows.start + value.lag : rows.stop + value.lag]
    command_mean, reached_mean = command - command.mean(axis=0), reached - reached.mean(axis=0)
    variance = np.maximum(np.mean(reached_mean**2, axis=0), 1e-12)
    return Motion(
        value=value,
        change=change,
        error=float(np.median(np.mean((command - reached) ** 2, axis=0) / variance)),
        shape_error=float(np.median(np.mean((command_mean - reached_mean) ** 2, axis=0) / variance)),
        scale=float(np.median(np.mean(command_mean * reached_mean, axis=0) / variance)),
    )


def fit(action: Rows, other: Rows) -> Fit:
    """Return how ``action[t]`` correlates with ``other[t + lag]``, over the same rows t for every lag."""
    rows = slice(MOST_LAG, len(action) - MOST_LAG)
    command = _standard(action[rows])
    return Fit(
        correlation={
            lag: float(
                np.mean(command * _standard(other[rows.start + lag : rows.stop + lag])) * _axes(command)
            )
            for lag in range(-MOST_LAG, MOST_LAG + 1)
        }
    )


def _axes(command: Rows) -> float:
    """Return the factor that makes a mean over all axes one over those that move within the rows."""
    moving = np.count_nonzero(command.any(axis=0))
    return command.shape[1] / moving if moving else 0.0


def _standard(rows: Rows) -> Rows:
    """Return each axis with its mean taken off and its deviation made 1; zeros if it does not move."""
    centred = rows - rows.mean(axis=0)
    deviation = centred.std(axis=0)
    still = deviation <= 1e-9 * (1 + np.abs(rows).max(axis=0))
    standard: Rows = np.where(still, 0.0, centred / np.where(still, 1.0, deviation))
    return standard


def copied_from(action: Rows, state: Rows) -> int | None:
    """Return k if ``action[t]`` is ``state[t + k]`` bit for bit: 0, 1, or None if neither."""
    if len(action) < LEAST_ROWS or np.ptp(action, axis=0).max() < _LEAST_MOTION:
        return None
    return next((k for k in (0, 1) if np.array_equal(action[: len(action) - k], state[k:])), None)


def opposes(action: Rows, state: Rows) -> float | None:
    """Return the correlation if the state clearly moves against the action, of one axis each; else None."""
    if len(action) < LEAST_ROWS or min(np.ptp(action), np.ptp(state)) < _LEAST_MOTION:
        return None
    later = {lag: c for lag, c in fit(action, state).correlation.items() if lag >= 0}
    strongest = max(later.values(), key=abs)
    return strongest if strongest < -_CHANGES else None
