"""The replay of an episode as a moving picture: the viewer at times that lie evenly, as WebP or GIF."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..schemas import Episode, NotFoundError
from .plan import RecordOptions
from .record import Extend
from .shot import Backend, kept, pictures
from .timing import At, Timing

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = {".webp": "WEBP", ".gif": "GIF"}
"""Endings of files, and what is written into them."""

_WIDTH = 800
_LONGEST_MS = 250
_LEAST_MS = 20  # browsers slow down what is faster
_WRITING: dict[str, dict[str, Any]] = {
    "WEBP": {"quality": 80, "method": 6},
    "GIF": {"optimize": True},
}


@dataclass(frozen=True, slots=True)
class Film:
    """A moving picture that was made: where, by which backend, of which frames, how long it plays."""

    path: Path
    backend: str
    frames: tuple[int, ...]
    seconds: float
    width: int
    height: int


def film(
    episode: Episode,
    path: Path,
    count: int,
    *,
    backend: Backend = "auto",
    options: RecordOptions | None = None,
    extend: Extend | None = None,
) -> Film:
    """Write a moving picture of the viewer that replays an episode, from its first frame to its last.

    It plays for as long as the episode, or faster where a picture would stay for more than a quarter second.

    Parameters
    ----------
    path
        It ends as one of `FORMATS` says.
    count
        Of pictures; no more than the main clock has samples.
    backend, options, extend
        As for `teleopen.viewer.shot.shot`.

    Raises
    ------
    MissingExtraError
        If no backend works here; it tells what to install.
    NotFoundError
        If the episode has no frames.
    StoreError
        If it cannot be written.
    """
    timing = Timing(episode, {})
    if not timing.frames:
        raise NotFoundError("the episode has no frames")
    frames = [int(at) for at in np.linspace(0, timing.frames - 1, min(count, timing.frames)).round()]
    taken = pictures(
        episode, [At(frame) for frame in frames], backend=backend, options=options, extend=extend
    )
    images = [_reduced(picture) for _, picture in taken.pictures]
    each_ms = min(max(round(1000 * timing.seconds / len(images)), _LEAST_MS), _LONGEST_MS)
    form = FORMATS[path.suffix.lower()]
    file = io.BytesIO()
    first, *rest = images
    first.save(file, form, save_all=True, append_images=rest, duration=each_ms, loop=0, **_WRITING[form])
    kept(path, file.getvalue())
    return Film(path, taken.backend, tuple(frames), each_ms * len(images) / 1000, *first.size)


def _reduced(picture: bytes) -> Image:
    from PIL import Image

    with Image.open(io.BytesIO(picture)) as image:
        height = round(image.height * _WIDTH / image.width)
        return image.convert("RGB").resize((_WIDTH, height), Image.Resampling.LANCZOS)
