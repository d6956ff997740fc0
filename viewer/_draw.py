"""Small pieces of a picture: text that fits, curves without steps, depth as colours. Pillow only."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ..schemas import Array, MissingExtraError

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont as Font

Colour = tuple[int, int, int]

INK: Colour = (27, 36, 48)
MUTED: Colour = (102, 113, 127)
FAINT: Colour = (214, 219, 226)
PANEL: Colour = (245, 247, 250)
PAPER: Colour = (255, 255, 255)
OBSERVED: Colour = (36, 87, 197)
COMMANDED: Colour = (232, 118, 43)

WIDTH = 1520
"""Of the page between its margins."""
GAP = 8

_SMOOTH = 3
"""Curves are drawn this much larger and scaled down, which takes the steps out of them."""

# Fonts that systems have for scripts that Pillow's own font lacks, the most complete first.
_OTHER_FONTS = (
    "NotoSansCJK-Regular.ttc",
    "NotoSansSC-Regular.otf",
    "NotoSans-Regular.ttf",
    "DejaVuSans.ttf",
    "wqy-microhei.ttc",
    "wqy-zenhei.ttc",
    "PingFang.ttc",
    "Arial Unicode.ttf",
    "msyh.ttc",
    "malgun.ttf",
    "meiryo.ttc",
)
_NOBODYS = "\U0010fffd"
_DEPTH = (
    (48, 18, 59),
    (63, 114, 229),
    (25, 190, 200),
    (90, 226, 96),
    (214, 224, 53),
    (248, 145, 41),
    (150, 22, 6),
)
_NO_DEPTH: Colour = (226, 229, 233)


def new_band(height: int) -> tuple[Image, ImageDraw]:
    """Return an empty band as wide as the page, and what draws on it."""
    from PIL import Image, ImageDraw

    band = Image.new("RGB", (WIDTH, height), PAPER)
    return band, ImageDraw.Draw(band)


def plain(text: str) -> str:
    """Return a text on one line: what has no shape of its own becomes a blank."""
    shown = "".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in text)
    return " ".join(shown.split())


@cache
def _default(size: int) -> Font:
    from PIL import ImageFont

    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise MissingExtraError(
            "drawing text needs a Pillow with FreeType: pip install --only-binary pillow pillow"
        )
    return font


@cache
def _others(size: int) -> tuple[Font, ...]:
    from PIL import ImageFont

    found = []
    for name in _OTHER_FONTS:
        try:
            found.append(ImageFont.truetype(name, size))
        except OSError:
            continue
    return tuple(found)


@cache
def _has(font: Font, character: str) -> bool:
    """Tell whether a font can draw a character: it draws what it lacks like what nobody has."""
    return bytes(font.getmask(character)) != bytes(font.getmask(_NOBODYS))


def _runs(text: str, size: int) -> list[tuple[str, Font]]:
    """Split a text into runs of one font each: Pillow's own, or one of the system for what that lacks."""
    found: list[tuple[str, Font]] = []
    for character in text:
        shown, font = _drawable(character, size)
        if found and found[-1][1] is font:
            found[-1] = (found[-1][0] + shown, font)
        else:
            found.append((shown, font))
    return found


@cache
def _drawable(character: str, size: int) -> tuple[str, Font]:
    """Return a character and a font that has it; failing that its base letter, or a box."""
    own = _default(size)
    if character.isascii():
        return character, own
    for font in (own, *_others(size)):
        if _has(font, character):
            return character, font
    base = unicodedata.normalize("NFKD", character)[0]
    return (base if base.isascii() else character), own


def width_of(text: str, size: int) -> int:
    """Return how wide a text is, in pixels."""
    return round(sum(font.getlength(run) for run, font in _runs(text, size)))


def fitted(text: str, size: int, width: int) -> str:
    """Return the text, or as much of its beginning as fits, with an ellipsis."""
    text = plain(text)[:1000]
    if width_of(text, size) <= width:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if width_of(text[:middle].rstrip() + "...", size) <= width:
            low = middle
        else:
            high = middle - 1
    return text[:low].rstrip() + "..." if low else ""


def write(
    draw: ImageDraw, at: tuple[float, float], text: str, size: int, colour: Colour = INK, anchor: str = "la"
) -> None:
    """Write a text. The anchor is Pillow's: left, middle or right of it, then ascender or middle."""
    x, y = at
    x -= width_of(text, size) * {"l": 0.0, "m": 0.5, "r": 1.0}[anchor[0]]
    up, down = _default(size).getmetrics()
    baseline = y + up if anchor[1] == "a" else y + (up - down) / 2
    for run, font in _runs(text, size):
        draw.text((x, baseline), run, fill=colour, font=font, anchor="ls")
        x += font.getlength(run)


def wrapped(text: str, size: int, width: int, lines: int) -> list[str]:
    """Return a text in at most so many lines; the last is cut if it does not fit."""
    found: list[str] = []
    words = plain(text)[:2000].split()
    while words and len(found) < lines - 1:
        count = 1
        while count < len(words) and width_of(" ".join(words[: count + 1]), size) <= width:
            count += 1
        if width_of(words[0], size) > width:
            break  # a script without blanks, or a monster
        found.append(" ".join(words[:count]))
        words = words[count:]
    return [*found, fitted(" ".join(words), size, width)] if words else found


# ---------------------------------------------------------------- curves


def curves(
    size: tuple[int, int],
    lines: Sequence[tuple[Array, Array, Colour]],
    span: tuple[float, float],
    low: float,
    high: float,
) -> Image:
    """Return a panel with curves.

    Parameters
    ----------
    lines
        Times, values and colour of each, the lowest first. A value that is not finite breaks the curve.
    span
        Times of the left and the right edge.
    low, high
        Values of the lower and the upper edge, but for a small margin.
    """
    from PIL import Image, ImageDraw

    width, height = size[0] * _SMOOTH, size[1] * _SMOOTH
    panel = Image.new("RGB", (width, height), PANEL)
    draw = ImageDraw.Draw(panel)
    edge = 6 * _SMOOTH
    scale = (height - 2 * edge) / (high - low)
    if low < 0 < high:
        zero = height - edge + low * scale
        draw.line([(0, zero), (width, zero)], fill=FAINT, width=_SMOOTH)
    for times, values, colour in lines:
        x = (times - span[0]) * (width / max(span[1] - span[0], 1e-9))
        y = height - edge - (values - low) * scale
        for piece in _unbroken(x, y):
            if len(piece) == 1:
                draw.circle(piece[0], 1.5 * _SMOOTH, fill=colour)
            else:
                draw.line(piece, fill=colour, width=round(1.6 * _SMOOTH), joint="curve")
    return panel.resize(size, Image.Resampling.LANCZOS)


def _unbroken(x: Array, y: Array) -> list[list[tuple[float, float]]]:
    """Return the runs of finite points."""
    finite = np.isfinite(x) & np.isfinite(y)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], finite, [False]]).astype(np.int8)))
    return [list(zip(x[a:b].tolist(), y[a:b].tolist(), strict=True)) for a, b in edges.reshape(-1, 2)]


def limits(values: Sequence[Array]) -> tuple[float, float]:
    """Return a range that holds all finite values and is not empty."""
    finite = [v[np.isfinite(v)] for v in values]
    full = [v for v in finite if v.size]
    if not full:
        return -1.0, 1.0
    low, high = min(float(v.min()) for v in full), max(float(v.max()) for v in full)
    # What does not move is drawn as a line in the middle and not as magnified noise.
    least = max(1e-6, 0.01 * max(abs(low), abs(high)))
    if high - low < least:
        middle = (low + high) / 2
        return middle - least / 2, middle + least / 2
    return low, high


def short(value: float, extent: float) -> str:
    """Return a number with as many digits as matter in a range of this extent."""
    if abs(value) >= 1e5 or extent < 1e-4:
        return f"{value:.2g}"
    digits = min(4, max(0, 2 - math.floor(math.log10(extent))))
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text


# ---------------------------------------------------------------- frames


def depth_range(frames: Sequence[Array]) -> tuple[float, float]:
    """Return the distances between which depth frames are coloured: few samples lie outside."""
    known = [f[np.isfinite(f) & (f > 0)] for f in frames]
    all_known = np.concatenate([np.zeros(0), *(k.ravel()[:: max(1, k.size // 20_000)] for k in known)])
    if not all_known.size:
        return 0.0, 1.0
    near, far = np.percentile(all_known, [2, 98])
    return float(near), float(max(far, near * 1.01))


def coloured(depth: Array, near: float, far: float) -> Array:
    """Return a depth frame as RGB: near is dark blue, far is red, what was not measured is grey."""
    known = np.isfinite(depth) & (depth > 0)
    position = np.clip((np.where(known, depth, near).astype(np.float64) - near) / (far - near), 0, 1)
    steps = np.linspace(0, 1, len(_DEPTH))
    anchors = np.array(_DEPTH, np.float64)
    rgb = np.stack([np.interp(position, steps, anchors[:, c]) for c in range(3)], axis=-1)
    rgb[~known] = _NO_DEPTH
    return rgb.astype(np.uint8)


def picture(frame: Array, size: tuple[int, int]) -> Image:
    """Return a frame (H, W), (H, W, 1) or (H, W, 3), uint8, scaled to fit into ``size``."""
    from PIL import Image

    plane: Any = frame[..., 0] if frame.ndim == 3 and frame.shape[2] == 1 else frame
    image = Image.fromarray(np.ascontiguousarray(plane)).convert("RGB")
    scale = min(size[0] / image.width, size[1] / image.height)
    target = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    smooth = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC
    return image.resize(target, smooth, reducing_gap=3.0)
