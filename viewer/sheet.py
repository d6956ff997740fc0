"""A contact sheet: one picture that shows what an episode is.

Frames of each camera evenly spaced in time, small plots of each axis, observed and commanded, the events,
and above all that what it is and whose it is. Only the frames that are shown are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..schemas import Array, Episode, Event, NotFoundError, StoreError, Stream
from ..schemas.decision import published_as, reasons
from ._draw import (
    FAINT,
    GAP,
    INK,
    MUTED,
    OBSERVED,
    PANEL,
    PAPER,
    WIDTH,
    Colour,
    coloured,
    depth_range,
    fitted,
    new_band,
    picture,
    plain,
    short,
    width_of,
    wrapped,
    write,
)
from ._plots import plots

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

_MARGIN = 40
_BETWEEN = 28
_MOST_CAMERAS = 8
_MOST_LANES = 6

_OPEN: tuple[Colour, Colour] = ((22, 101, 62), (224, 243, 232))
_CLOSED: tuple[Colour, Colour] = ((133, 77, 14), (253, 240, 214))
_LANES: tuple[Colour, ...] = (
    (205, 219, 247),
    (251, 222, 199),
    (208, 236, 220),
    (232, 217, 243),
    (246, 229, 180),
    (203, 233, 238),
)


def sheet(episode: Episode, path: Path, *, columns: int = 8) -> tuple[int, int]:
    """Draw a contact sheet of an episode as a PNG and return its width and height.

    Parameters
    ----------
    episode
        From a converter or from a store alike.
    path
        Where to write it; a picture that is there is replaced.
    columns
        Frames per camera.

    Raises
    ------
    StoreError
        If the picture cannot be written.
    TeleopenError
        If the episode cannot be read.
    """
    from PIL import Image

    span = _span(episode)
    bands = [_header(episode, span), *_cameras(episode, span, columns)]
    if episode.events:
        bands.append(_events(episode.events, span))
    bands += plots(episode, span)
    bands.append(_footer(episode))
    height = sum(band.height for band in bands) + _BETWEEN * (len(bands) - 1) + 2 * _MARGIN
    page = Image.new("RGB", (WIDTH + 2 * _MARGIN, height), PAPER)
    y = _MARGIN
    for band in bands:
        page.paste(band, (_MARGIN, y))
        y += band.height + _BETWEEN
    try:
        page.save(path, "PNG", optimize=True)
    except (OSError, ValueError) as error:
        raise StoreError(str(path), f"the picture cannot be written: {error}") from error
    return page.size


def _span(episode: Episode) -> tuple[float, float]:
    """Return the first and the last time of any clock, in seconds."""
    ends = [clock.read()[[0, -1]] for clock in episode.clocks.values() if clock.length]
    first = min((int(e[0]) for e in ends), default=0) / 1e9
    last = max((int(e[1]) for e in ends), default=0) / 1e9
    return first, max(last, first + 1e-3)


# ---------------------------------------------------------------- header


def _header(episode: Episode, span: tuple[float, float]) -> Image:
    state, tint = _standing(episode)
    badge = width_of(state, 18) + 32
    title = " / ".join(episode.instructions) or "No instruction stated"
    lines = wrapped(title, 32, WIDTH - badge - 40, 2)
    band, draw = new_band(44 * len(lines) + 38)
    for i, text in enumerate(lines):
        write(draw, (0, 44 * i), text, 32, INK if episode.instructions else MUTED)
    draw.rounded_rectangle((WIDTH - badge, 2, WIDTH - 1, 38), 18, fill=tint[1])
    write(draw, (WIDTH - badge / 2, 20), state, 18, tint[0], "mm")
    _facts(draw, 44 * len(lines) + 8, episode, span)
    return band


def _standing(episode: Episode) -> tuple[str, tuple[Colour, Colour]]:
    """Return whether it is open, under which licence, and the colours that say so."""
    if not reasons(episode.rights, now=datetime.now(UTC)):
        return f"open, {published_as(episode.rights)}", _OPEN
    expression = episode.rights.licence.expression
    licence = "no licence stated" if expression == "NOASSERTION" else fitted(expression, 18, 300)
    return f"closed, {licence}", _CLOSED


def _facts(draw: ImageDraw, y: int, episode: Episode, span: tuple[float, float]) -> None:
    rates = {
        round(rate, 1): None
        for c in episode.clocks.values()
        if (rate := c.measured_hz or c.declared_hz) is not None
    }
    robot = "unknown robot" if episode.embodiment == "unknown" else episode.embodiment
    told = [
        fitted(robot, 18, 360),
        f"{span[1] - span[0]:.1f} s" + (f" at {', '.join(f'{r:g}' for r in rates)} Hz" if rates else ""),
        *([episode.outcome] if episode.outcome != "unknown" else []),
        fitted(episode.provenance.format, 18, 200),
        episode.id,
    ]
    x = 0
    for i, text in enumerate(told):
        if i:
            draw.ellipse((x + 10, y + 9, x + 14, y + 13), fill=FAINT)
            x += 24
        write(draw, (x, y), text, 18, MUTED)
        x += width_of(text, 18)


# ---------------------------------------------------------------- cameras


def _cameras(episode: Episode, span: tuple[float, float], columns: int) -> Iterator[Image]:
    cameras = [s for s in episode.streams.values() if s.spec.kind in {"video", "depth"} and s.length]
    for stream in cameras[:_MOST_CAMERAS]:
        yield _strip(episode, stream, span, columns)
    if len(cameras) > _MOST_CAMERAS:
        band, draw = new_band(20)
        names = ", ".join(_camera_name(s.spec.name) for s in cameras[_MOST_CAMERAS:])
        write(draw, (0, 0), fitted(f"cameras not drawn: {names}", 15, WIDTH), 15, MUTED)
        yield band


def _strip(episode: Episode, stream: Stream, span: tuple[float, float], columns: int) -> Image:
    """Draw frames whose times lie in the middle of each of the columns' share of the episode."""
    times = episode.times(stream.spec.name) / 1e9
    middles = span[0] + (np.arange(columns) + 0.5) / columns * (span[1] - span[0])
    wanted = _nearest(times, middles)
    frames = {i: _frame(stream, i) for i in dict.fromkeys(wanted)}
    told = f"{stream.spec.shape[1]} x {stream.spec.shape[0]}, {stream.length} frames"
    if stream.packets is not None:
        told += f", {stream.packets.format.codec}"
    if stream.spec.kind == "depth":
        near, far = depth_range(list(frames.values()))
        frames = {i: coloured(frame, near, far) for i, frame in frames.items()}
        unit = stream.spec.unit[0] if stream.spec.unit[0] != "unknown" else "(unit unknown)"
        told += f", blue {short(near, far - near)} to red {short(far, far - near)} {plain(unit)}"
    width = (WIDTH - GAP * (columns - 1)) // columns
    height = round(min(width * stream.spec.shape[0] / max(1, stream.spec.shape[1]), 1.4 * width))
    band, draw = new_band(30 + height + 22)
    _caption(draw, _camera_name(stream.spec.name), told)
    for i, index in enumerate(wanted):
        x = i * (width + GAP)
        draw.rectangle((x, 30, x + width - 1, 30 + height - 1), fill=PANEL)
        shown = picture(frames[index], (width, height))
        band.paste(shown, (x + (width - shown.width) // 2, 30 + (height - shown.height) // 2))
        write(draw, (x + width / 2, 30 + height + 6), f"{times[index]:.2f} s", 14, MUTED, "ma")
    return band


def _nearest(times: Array, wanted: Array) -> list[int]:
    """Return the index of the sample that is nearest to each wanted time."""
    after = np.clip(np.searchsorted(times, wanted), 0, len(times) - 1)
    before = np.maximum(after - 1, 0)
    closer = np.abs(times[before] - wanted) <= np.abs(times[after] - wanted)
    return [int(i) for i in np.where(closer, before, after)]


def _frame(stream: Stream, index: int) -> Array:
    for block in stream.read(index, index + 1):
        if len(block):
            frame: Array = block[0]
            return frame
    raise NotFoundError(
        f"{stream.spec.name} has no frame {index}, though it says that it has {stream.length}"
    )


def _camera_name(name: str) -> str:
    return name.removeprefix("observation.").removeprefix("images.").replace("depth.", "depth of ")


def _caption(draw: ImageDraw, title: str, told: str) -> None:
    write(draw, (0, 0), fitted(title, 19, WIDTH // 2), 19)
    write(draw, (WIDTH, 3), fitted(told, 15, WIDTH // 2), 15, MUTED, "ra")


# ---------------------------------------------------------------- events


def _events(events: Sequence[Event], span: tuple[float, float]) -> Image:
    """Draw a lane for each kind of event, under the frames' time axis."""
    kinds = list(dict.fromkeys(event.kind for event in events))
    shown = kinds[:_MOST_LANES]
    band, draw = new_band(30 + 40 * len(shown) + 22)
    more = f", {len(kinds) - len(shown)} kinds not drawn" if len(kinds) > len(shown) else ""
    _caption(draw, "events", f"{len(events)} events{more}")
    label = min(200, max(width_of(fitted(kind, 15, 180), 15) for kind in shown) + 16)
    for lane, kind in enumerate(shown):
        y = 30 + 40 * lane
        write(draw, (0, y + 16), fitted(kind, 15, 180), 15, MUTED, "lm")
        draw.rectangle((label, y, WIDTH - 1, y + 31), fill=PANEL)
        own = sorted((e for e in events if e.kind == kind), key=lambda e: e.start_ns)
        _lane(draw, own, (label, y), span)
    y = 30 + 40 * len(shown)
    for i, anchor in ((0, "la"), (1, "ma"), (2, "ra")):
        x = label + (WIDTH - label) * i / 2
        write(draw, (x, y), f"{span[0] + (span[1] - span[0]) * i / 2:.2f} s", 14, MUTED, anchor)
    return band


def _lane(draw: ImageDraw, events: list[Event], at: tuple[int, int], span: tuple[float, float]) -> None:
    left, y = at
    scale = (WIDTH - 1 - left) / (span[1] - span[0])
    starts = [left + min(max(e.start_ns / 1e9 - span[0], 0), span[1] - span[0]) * scale for e in events]
    for i, event in enumerate(events):
        x = starts[i]
        room = (starts[i + 1] if i + 1 < len(events) else WIDTH) - x - 14
        if event.stop_ns is None:
            draw.line([(x, y + 3), (x, y + 28)], fill=OBSERVED, width=2)
            draw.circle((x, y + 16), 4, fill=OBSERVED)
        else:
            stop = min(left + (event.stop_ns / 1e9 - span[0]) * scale, WIDTH - 1)
            stop = max(stop, x + 2)
            draw.rectangle((x, y, stop - 1, y + 31), fill=_LANES[i % len(_LANES)])
            room = min(room, stop - x - 12)
        text = fitted(event.text, 15, int(room))
        write(draw, (x + 9, y + 16), text, 15, INK, "lm")


# ---------------------------------------------------------------- footer


def _footer(episode: Episode) -> Image:
    origin = episode.provenance
    lines = [fitted(f"Note: {text}", 15, WIDTH) for text in origin.warnings[:3]]
    if len(origin.warnings) > 3:
        lines.append(f"and {len(origin.warnings) - 3} more notes")
    sources = ", ".join(f"{s.uri} (sha256 {s.sha256[:12]})" for s in origin.sources[:2])
    more = f" and {len(origin.sources) - 2} more files" if len(origin.sources) > 2 else ""
    band, draw = new_band(14 + 22 * len(lines) + 18)
    draw.line([(0, 0), (WIDTH, 0)], fill=FAINT, width=1)
    for i, text in enumerate(lines):
        write(draw, (0, 12 + 22 * i), text, 15, _CLOSED[0])
    y = 12 + 22 * len(lines)
    write(draw, (0, y), fitted(f"made from {sources}{more}" if sources else "", 14, WIDTH - 120), 14, MUTED)
    write(draw, (WIDTH, y), "teleopen", 14, MUTED, "ra")
    return band
