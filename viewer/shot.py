"""A picture of the viewer that shows an episode, taken without anybody looking: no display is needed.

``native`` runs the viewer without a window, ``xvfb`` in a window of an X server that has no screen,
``chromium`` as a page of a browser. All three draw in software if there is no graphics card, and take seconds
to begin with: pictures are decoded beside the drawing, so what is on screen is compared with the frames that
should be there until all of them are.
"""

from __future__ import annotations

import io
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote

import numpy as np

from ..schemas import Array, Episode, MissingExtraError, StoreError
from .card import is_plain
from .link import linking
from .plan import Recorded, RecordOptions
from .process import LOOPBACK, free_port, running, silent
from .record import Extend, write
from .renderers import PACKAGES, browser, missing
from .rerun import executable
from .screen import PATIENCE, SIZE, Grey, Viewer, grey, is_somewhere, viewer
from .timing import At, Timing

if TYPE_CHECKING:
    from playwright.sync_api import Page

Backend = Literal["auto", "native", "xvfb", "chromium"]
BACKENDS: tuple[Backend, ...] = ("native", "xvfb", "chromium")
_BROWSER_FLAGS = (
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-dev-shm-usage",
)


@dataclass(frozen=True, slots=True)
class Moment:
    """A time to show, and the grey frames that each camera shows then, by the path of its entity."""

    frame: int
    time_ns: int
    frames: Mapping[str, Grey]


@dataclass(frozen=True, slots=True)
class _Scene:
    """A recording, and the moments of it that pictures are taken of."""

    path: Path
    recorded: Recorded
    moments: Sequence[Moment]


@dataclass(frozen=True, slots=True)
class Taken:
    """Pictures that were taken, PNG each, and by which backend."""

    backend: str
    pictures: Sequence[tuple[Moment, bytes]]


@dataclass(frozen=True, slots=True)
class Shot:
    """A picture that was taken: where, by which backend, of which frame and time."""

    path: Path
    backend: str
    frame: int
    seconds: float
    width: int
    height: int


def shot(
    episode: Episode,
    path: Path,
    at: At | None = None,
    *,
    backend: Backend = "auto",
    options: RecordOptions | None = None,
    extend: Extend | None = None,
) -> Shot:
    """Write a PNG of the viewer that shows an episode at a time.

    Parameters
    ----------
    at
        None: the middle.
    backend
        ``auto``: the first that works; one that has fonts where texts are not plain.
    extend
        As for `teleopen.viewer.record.write`.

    Raises
    ------
    MissingExtraError
        If no backend works here; it tells what to install.
    NotFoundError
        If the episode has no such frame.
    StoreError
        If the picture cannot be written.
    """
    at = at or At(frame=Timing(episode, {}).frames // 2)
    taken = pictures(episode, [at], backend=backend, options=options, extend=extend)
    ((moment, picture),) = taken.pictures
    kept(path, picture)
    from PIL import Image

    width, height = Image.open(io.BytesIO(picture)).size
    return Shot(path, taken.backend, moment.frame, moment.time_ns / 1e9, width, height)


def kept(path: Path, picture: bytes) -> None:
    """Write a picture; StoreError if it cannot be written."""
    try:
        path.write_bytes(picture)
    except OSError as error:
        raise StoreError(str(path), f"the picture cannot be written: {error.strerror}") from error


def pictures(
    episode: Episode,
    at: Sequence[At],
    *,
    backend: Backend = "auto",
    options: RecordOptions | None = None,
    extend: Extend | None = None,
) -> Taken:
    """Return pictures of the viewer that shows an episode, one for each time; otherwise as `shot`."""
    options = options or RecordOptions()
    if backend != "auto":
        return _taken(episode, at, backend, options, extend)
    order = BACKENDS if is_plain(episode) else ("xvfb", "chromium", "native")
    told = []
    for one in order:
        try:
            return _taken(episode, at, one, options, extend)
        except MissingExtraError as error:
            told.append(str(error))
    raise MissingExtraError("no backend can draw here. " + "; ".join(told))


def _taken(
    episode: Episode, at: Sequence[At], backend: str, options: RecordOptions, extend: Extend | None
) -> Taken:
    """Take pictures by one backend."""
    absent = missing(backend)
    if absent:
        raise MissingExtraError(f"{backend} needs {', '.join(absent)}: apt install {PACKAGES[backend]}")
    options = replace(options, ascii=options.ascii or backend == "native")
    take: dict[str, Callable[[_Scene], list[bytes]]] = {
        "native": _native,
        "xvfb": _xvfb,
        "chromium": _chromium,
    }
    with tempfile.TemporaryDirectory(prefix="teleopen-") as folder:
        file = Path(folder, "episode.rrd")
        recorded = write(episode, file, options, extend=extend)
        moments = [_moment(episode, recorded, one) for one in at]
        found = take[backend](_Scene(file, recorded, moments))
    return Taken(backend, list(zip(moments, found, strict=True)))


def _moment(episode: Episode, recorded: Recorded, at: At) -> Moment:
    timing = Timing(episode, {})
    frame, time_ns = timing.moment(at)
    frames = {}
    for camera in recorded.cameras:
        stream = episode.streams[camera.stream]
        index = timing.sample_at(stream.spec.clock, time_ns)
        if camera.kind == "video":
            frames[camera.path] = grey(stream.values(index, index + 1)[0])
    return Moment(frame, time_ns, frames)


# ---------------------------------------------------------------- the viewer's own program


def _native(scene: _Scene) -> list[bytes]:
    with silent() as environment, viewer(environment, "--headless") as shown:
        return _photographed(shown, scene)


def _xvfb(scene: _Scene) -> list[bytes]:
    with silent() as environment, _display() as display:
        words = {**environment, "DISPLAY": display, "WAYLAND_DISPLAY": "", "LIBGL_ALWAYS_SOFTWARE": "1"}
        with viewer(words) as shown:
            return _photographed(shown, scene)


def _photographed(shown: Viewer, scene: _Scene) -> list[bytes]:
    found: list[bytes] = []
    before: Mapping[str, Array] = {}
    try:
        shown.show(scene.path)
        for moment in scene.moments:
            shown.set_time(scene.recorded.timeline, moment.frame, moment.time_ns)
            before = shown.wait_for_pictures(scene.recorded, moment.frames, before)
            if not found:
                shown.wait_for_silence()
            found.append(shown.picture())
    except (RuntimeError, ConnectionError, TimeoutError) as error:
        shown.program.check()
        raise MissingExtraError(f"the viewer does not answer: {error}") from error
    return found


@contextmanager
def _display() -> Iterator[str]:
    """Give the name of an X display that has no screen."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as told:
        try:
            size = f"{SIZE[0]}x{SIZE[1]}x24"
            words = ["Xvfb", "-displayfd", str(writing), "-screen", "0", size, "-nolisten", "tcp"]
            server = running(words, inherited=[writing])
            with server:
                os.close(writing)
                writing = -1
                yield f":{told.readline().decode().strip()}"
        finally:
            if writing >= 0:
                os.close(writing)


# ---------------------------------------------------------------- a browser


def _chromium(scene: _Scene) -> list[bytes]:
    """Let a browser show the recording by links to its moments, each on a page of its own."""
    ports = [free_port(), free_port()]
    words: list[str | Path] = [executable(), "--serve-web", "--bind", LOOPBACK]
    words += ["--port", str(ports[0]), "--web-viewer-port", str(ports[1])]
    with (
        silent() as environment,
        running(words, ports=ports, environment=environment),
        linking(scene.path, scene.recorded) as link,
    ):
        links = [quote(link(moment.frame, moment.time_ns), safe="") for moment in scene.moments]
        pages = [f"http://{LOOPBACK}:{ports[1]}/?renderer=webgl&url={link}" for link in links]
        wanted = [list(moment.frames.values()) for moment in scene.moments]
        return photographed_pages(list(zip(pages, wanted, strict=True)))


def photographed_pages(pages: Sequence[tuple[str, Sequence[Grey]]]) -> list[bytes]:
    """Return pictures of pages of this machine, PNG each, once a page shows all of its grey frames.

    Raises
    ------
    MissingExtraError
        If there is no browser, or a page does not come to show them.
    """
    from playwright.sync_api import Error, sync_playwright

    here = f"http://{LOOPBACK}:"
    found = []
    try:
        with sync_playwright() as playwright:
            chromium = playwright.chromium.launch(
                executable_path=browser(), args=[*_BROWSER_FLAGS, *(["--no-sandbox"] if _is_root() else [])]
            )
            for address, frames in pages:
                page = chromium.new_page(viewport={"width": SIZE[0], "height": SIZE[1]})
                # The viewer's page asks for fonts and news of Rerun, and tells that it was used.
                page.route("**/*", lambda r: r.continue_() if r.request.url.startswith(here) else r.abort())
                page.goto(address)
                found.append(_photographed_page(page, frames))
                page.close()
            chromium.close()
    except Error as error:
        raise MissingExtraError(f"the browser cannot show it: {error.message.splitlines()[0]}") from error
    return found


def _photographed_page(page: Page, frames: Sequence[Grey]) -> bytes:
    from playwright.sync_api import Error

    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            picture = page.screenshot(timeout=1000 * PATIENCE)
        except Error as error:
            # Chromium says so of a page that it is still busy with; it comes to it later.
            if "Unable to capture screenshot" not in error.message:
                raise
        else:
            if _has_all(picture, frames):
                return picture
        time.sleep(1)
    raise MissingExtraError(f"the browser does not show all pictures after {PATIENCE:.0f} s")


def _has_all(picture: bytes, frames: Sequence[Grey]) -> bool:
    """Tell whether all frames are on the page."""
    from PIL import Image

    with Image.open(io.BytesIO(picture)) as image:
        screen = grey(np.asarray(image.convert("RGB")))
    return all(is_somewhere(screen, frame) for frame in frames)


def _is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0
