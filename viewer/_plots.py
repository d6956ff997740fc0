"""The plots of a contact sheet: a small panel for each axis, what was observed over what was commanded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..schemas import Array, Episode, Stream
from ._draw import (
    COMMANDED,
    GAP,
    INK,
    MUTED,
    OBSERVED,
    PANEL,
    WIDTH,
    Colour,
    curves,
    fitted,
    limits,
    new_band,
    short,
    width_of,
    write,
)

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

_COLUMNS = 7
_HEIGHT = 74
_GUTTER = 46  # of a panel, for its limits
_MOST_POINTS = 2_000
_MOST_AXES = 28  # panels of one plot
_MOST_VALUES = 64  # of a sample that is still drawn as curves


@dataclass(frozen=True, slots=True)
class _Curves:
    """Samples of a stream as columns of numbers, no more than can be seen, and their times in seconds."""

    stream: Stream
    times: Array
    values: Array
    colour: Colour

    @classmethod
    def of(cls, episode: Episode, stream: Stream, colour: Colour) -> _Curves:
        """Read a stream block by block and keep every n-th sample."""
        step = -(-stream.length // _MOST_POINTS)
        size = int(np.prod(stream.spec.shape, dtype=np.int64))
        kept, at = [], 0
        for block in stream:
            kept.append(np.asarray(block[(-at) % step :: step], np.float64).reshape(-1, size))
            at += len(block)
        values = np.concatenate(kept)
        return cls(stream, episode.times(stream.spec.name)[::step][: len(values)] / 1e9, values, colour)


@dataclass(frozen=True, slots=True)
class _Plot:
    """An observed stream, its command, or both, and their axes as rows of panels."""

    curves: tuple[_Curves, ...]
    rows: list[list[tuple[int, str]]]

    @classmethod
    def of(cls, episode: Episode, observed: Stream | None, commanded: Stream | None) -> _Plot:
        # Commands lie below: where the robot follows, what it did is what is seen.
        both = ((commanded, COMMANDED), (observed, OBSERVED))
        found = tuple(_Curves.of(episode, stream, colour) for stream, colour in both if stream)
        axes, count = found[-1].stream.spec.axes, found[-1].values.shape[1]
        if len(axes) != count:
            axes = tuple(f"[{i}]" for i in range(count)) if count > 1 else ("value",)
        return cls(found, _rows(axes))

    @property
    def columns(self) -> int:
        """Columns that it takes: one for each panel of a row, and room for the names of its streams."""
        return max(len(self.curves), *map(len, self.rows))

    @property
    def left_out(self) -> int:
        """Axes that are not drawn."""
        return int(self.curves[-1].values.shape[1]) - sum(map(len, self.rows))

    def unit(self, axis: int) -> str:
        """Return the unit of an axis, or nothing where it has none."""
        units = self.curves[-1].stream.spec.unit
        unit = units[axis] if len(units) > axis else units[0]
        return "" if unit in {"1", "unknown"} else unit


def plots(episode: Episode, span: tuple[float, float]) -> Iterator[Image]:
    """Draw all low-dimensional streams; what has few axes shares a band with its neighbours."""
    found: list[_Plot] = []
    skipped: list[str] = []
    for pair in pairs(episode):
        if all(_is_drawable(stream) for stream in pair if stream):
            found.append(_Plot.of(episode, *pair))
        else:
            skipped += [stream.spec.name for stream in pair if stream]
    found.sort(key=lambda plot: len(plot.curves) == 1 and (1 if len(plot.rows) == 1 else 2))
    while found:
        count = 1
        while count < len(found) and _share_a_row(found[: count + 1]):
            count += 1
        yield _plot_band(found[:count], span)
        found = found[count:]
    if skipped:
        band, draw = new_band(20)
        write(draw, (0, 0), fitted(f"streams not drawn: {', '.join(skipped)}", 15, WIDTH), 15, MUTED)
        yield band


def _share_a_row(plots: list[_Plot]) -> bool:
    return all(len(p.rows) == 1 for p in plots) and sum(p.columns for p in plots) <= _COLUMNS


def pairs(episode: Episode) -> list[tuple[Stream | None, Stream | None]]:
    """Return all observed streams and commands, side by side where they speak of the same axes."""
    low = {n: s for n, s in episode.streams.items() if s.spec.kind == "low_dim" and s.length}
    commands = {n: s for n, s in low.items() if n == "action" or n.startswith("action.")}
    observed = {n: s for n, s in low.items() if n not in commands}
    pairs: list[tuple[Stream | None, Stream | None]] = []
    for name, command in commands.items():
        wanted = "observation.state" if name == "action" else f"observation.{name.removeprefix('action.')}"
        twin = observed.get(wanted)
        if twin is not None and twin.spec.shape == command.spec.shape:
            pairs.append((observed.pop(wanted), command))
        else:
            pairs.append((None, command))
    return [*pairs, *((stream, None) for stream in observed.values())]


def _is_drawable(stream: Stream) -> bool:
    return int(np.prod(stream.spec.shape, dtype=np.int64)) <= _MOST_VALUES


def _plot_band(plots: list[_Plot], span: tuple[float, float]) -> Image:
    width = (WIDTH - GAP * (_COLUMNS - 1)) // _COLUMNS
    pitch = 22 + _HEIGHT + 12
    band, draw = new_band(34 + pitch * max(len(p.rows) for p in plots) - 12)
    left = 0
    for plot in plots:
        alone = len(plots) == 1
        _legend(draw, plot, left, WIDTH if alone else plot.columns * (width + GAP) - 2 * GAP)
        for r, row in enumerate(plot.rows):
            for c, (axis, name) in enumerate(row):
                at = (left + c * (width + GAP), 34 + pitch * r)
                _panel(band, draw, at, width, plot, axis, name, span)
        left += plot.columns * (width + GAP)
    return band


def _rows(axes: Sequence[str]) -> list[list[tuple[int, str]]]:
    """Lay axes out in rows: one per side where names say ``left_`` and ``right_``, else as they come."""
    named = list(enumerate(axes))[:_MOST_AXES]
    sides = [[(i, n) for i, n in named if n.startswith(side)] for side in ("left", "right")]
    groups = sides if all(sides) and sum(map(len, sides)) == len(named) else [named]
    rows = []
    for group in groups:
        count = -(-len(group) // _COLUMNS)
        length = -(-len(group) // count)
        rows += [group[i : i + length] for i in range(0, len(group), length)]
    return rows


def _legend(draw: ImageDraw, plot: _Plot, x: int, room: int) -> None:
    share = room // len(plot.curves)
    for one in reversed(plot.curves):
        word = "observed" if one.colour == OBSERVED else "commanded"
        full = one.stream.spec.name
        names = (full, full.removeprefix("observation."), full.rpartition(".")[2])
        name = next((n for n in names if width_of(n, 19) <= share - 36), fitted(names[-1], 19, share - 36))
        draw.rounded_rectangle((x, 10, x + 20, 13), 2, fill=one.colour)
        write(draw, (x + 28, 0), name, 19)
        end = 28 + width_of(name, 19)
        if end + 90 < share:
            write(draw, (x + end + 8, 3), word, 15, MUTED)
            end += 8 + width_of(word, 15)
        x += end + 28
    if plot.left_out:
        write(draw, (WIDTH, 3), f"{plot.left_out} more axes", 15, MUTED, "ra")


def _panel(
    band: Image,
    draw: ImageDraw,
    at: tuple[int, int],
    width: int,
    plot: _Plot,
    axis: int,
    name: str,
    span: tuple[float, float],
) -> None:
    """Draw one axis: its name and unit above, its limits at the left, its curves."""
    x, y = at
    lines = [(one.times, one.values[:, axis], one.colour) for one in plot.curves]
    low, high = limits([values for _, values, _ in lines])
    unit = fitted(plot.unit(axis), 13, width // 3)
    write(draw, (x, y), fitted(name, 14, width - width_of(unit, 13) - 10), 14, INK)
    write(draw, (x + width, y + 1), unit, 13, MUTED, "ra")
    draw.rectangle((x, y + 20, x + width - 1, y + 20 + _HEIGHT - 1), fill=PANEL)
    band.paste(curves((width - _GUTTER, _HEIGHT), lines, span, low, high), (x + _GUTTER, y + 20))
    write(draw, (x + _GUTTER - 6, y + 20 + 6), short(high, high - low), 11, MUTED, "rm")
    write(draw, (x + _GUTTER - 6, y + 20 + _HEIGHT - 7), short(low, high - low), 11, MUTED, "rm")
