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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import numpy as np

from ..schemas import Episode, MissingExtraError, NotFoundError, StoreError
from .card import is_plain
from .layout import blueprint
from .plan import Recorded, RecordOptions
from .process import LOOPBACK, free_port, running, silent
from .record import Extend, write
from .renderers import PACKAGES, browser, missing
from .rerun import executable
from .screen import PATIENCE, SIZE, Grey, Viewer, grey, is_somewhere, viewer
from .timing import FRAME, Timing

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
class At:
    """A time of an episode: a frame of its main clock, or seconds since its start."""

    frame: int | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class _Moment:
    """The time to show, and the grey frames that each camera shows then, by the path of its entity."""

    timeline: str
    frame: int
    time_ns: int
    frames: Mapping[str, Grey]
    path: Path
    recorded: Recorded


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
    options = options or RecordOptions()
    if backend != "auto":
        return _shot(episode, path, at, backend, options, extend)
    order = BACKENDS if is_plain(episode) else ("xvfb", "chromium", "native")
    told = []
    for one in order:
        try:
            return _shot(episode, path, at, one, options, extend)
        except MissingExtraError as error:
            told.append(str(error))
    raise MissingExtraError("no backend can draw here. " + "; ".join(told))


def _shot(
    episode: Episode, path: Path, at: At | None, backend: str, options: RecordOptions, extend: Extend | None
) -> Shot:
    """Take a picture by one backend."""
    absent = missing(backend)
    if absent:
        raise MissingExtraError(f"{backend} needs {', '.join(absent)}: apt install {PACKAGES[backend]}")
    options = replace(options, ascii=options.ascii or backend == "native")
    with tempfile.TemporaryDirectory(prefix="teleopen-") as folder:
        file = Path(folder, "episode.rrd")
        recorded = write(episode, file, options, extend=extend)
        moment = _moment(episode, recorded, at, file)
        take: dict[str, Callable[[_Moment], bytes]] = {
            "native": _native,
            "xvfb": _xvfb,
            "chromium": _chromium,
        }
        picture = take[backend](moment)
    try:
        path.write_bytes(picture)
    except OSError as error:
        raise StoreError(str(path), f"the picture cannot be written: {error.strerror}") from error
    from PIL import Image

    width, height = Image.open(io.BytesIO(picture)).size
    return Shot(path, backend, moment.frame, moment.time_ns / 1e9, width, height)


def _moment(episode: Episode, recorded: Recorded, at: At | None, path: Path) -> _Moment:
    timing = Timing(episode, {})
    at = at or At(frame=timing.frames // 2)
    if at.frame is not None:
        if not 0 <= at.frame < max(1, timing.frames):
            raise NotFoundError(f"the episode has no frame {at.frame}: it has {timing.frames}")
        frame, time_ns = at.frame, timing.time_of(at.frame) if timing.frames else 0
    else:
        time_ns = round((at.seconds or 0) * 1e9)
        frame = timing.frame_at(time_ns) if timing.frames else 0
    frames = {}
    for camera in recorded.cameras:
        stream = episode.streams[camera.stream]
        index = timing.sample_at(stream.spec.clock, time_ns)
        if camera.kind == "video":
            frames[camera.path] = grey(stream.values(index, index + 1)[0])
    return _Moment(recorded.timeline, frame, time_ns, frames, path, recorded)


# ---------------------------------------------------------------- the viewer's own program


def _native(moment: _Moment) -> bytes:
    with silent() as environment, viewer(environment, "--headless") as shown:
        return _photographed(shown, moment)


def _xvfb(moment: _Moment) -> bytes:
    with silent() as environment, _display() as display:
        words = {**environment, "DISPLAY": display, "WAYLAND_DISPLAY": "", "LIBGL_ALWAYS_SOFTWARE": "1"}
        with viewer(words) as shown:
            return _photographed(shown, moment)


def _photographed(shown: Viewer, moment: _Moment) -> bytes:
    try:
        shown.show(moment.path)
        shown.set_time(moment.timeline, moment.frame, moment.time_ns)
        shown.wait_for_pictures(moment.recorded, moment.frames)
        shown.wait_for_silence()
        return shown.picture()
    except (RuntimeError, ConnectionError) as error:
        shown.program.check()
        raise MissingExtraError(f"the viewer does not answer: {error}") from error


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


def _chromium(moment: _Moment) -> bytes:
    """Let a browser show the recording from a catalogue of this machine, which knows links to a time."""
    from rerun.server import Server

    ports = [free_port(), free_port()]
    words: list[str | Path] = [executable(), "--serve-web", "--bind", LOOPBACK]
    words += ["--port", str(ports[0]), "--web-viewer-port", str(ports[1])]
    with (
        silent() as environment,
        running(words, ports=ports, environment=environment),
        Server(host=LOOPBACK, port=free_port(), datasets={"episode": [moment.path]}) as server,
    ):
        link = _link(server, moment)
        page = f"http://{LOOPBACK}:{ports[1]}/?renderer=webgl&url={quote(link, safe='')}"
        return _photographed_page(page, moment)


def _link(server: Any, moment: _Moment) -> str:
    """Return the link to the recording at the moment; a catalogue has to be told the layout by itself."""
    dataset = server.client().get_dataset("episode")
    layout = moment.path.with_suffix(".rbl")
    blueprint(moment.recorded).save("episode", layout)
    dataset.register_blueprint(layout.as_uri())
    (segment,) = dataset.segment_ids()
    at = moment.frame if moment.timeline == FRAME else np.timedelta64(moment.time_ns, "ns")
    return str(dataset.segment_url(segment, timeline=moment.timeline, start=at, end=at))


def _photographed_page(address: str, moment: _Moment) -> bytes:
    from playwright.sync_api import Error, sync_playwright

    here = f"http://{LOOPBACK}:"
    try:
        with sync_playwright() as playwright:
            chromium = playwright.chromium.launch(
                executable_path=browser(), args=[*_BROWSER_FLAGS, *(["--no-sandbox"] if _is_root() else [])]
            )
            page = chromium.new_page(viewport={"width": SIZE[0], "height": SIZE[1]})
            # The viewer's page asks for fonts and news of Rerun, and tells that it was used.
            page.route("**/*", lambda r: r.continue_() if r.request.url.startswith(here) else r.abort())
            page.goto(address)
            end = time.monotonic() + PATIENCE
            while time.monotonic() < end:
                picture = page.screenshot(timeout=1000 * PATIENCE)
                if _has_all(picture, moment):
                    chromium.close()
                    return picture
                time.sleep(1)
            chromium.close()
    except Error as error:
        raise MissingExtraError(f"the browser cannot show it: {error.message.splitlines()[0]}") from error
    raise MissingExtraError(f"the browser does not show all pictures after {PATIENCE:.0f} s")


def _has_all(picture: bytes, moment: _Moment) -> bool:
    """Tell whether all cameras are on the page."""
    from PIL import Image

    with Image.open(io.BytesIO(picture)) as image:
        screen = grey(np.asarray(image.convert("RGB")))
    return all(is_somewhere(screen, frame) for frame in moment.frames.values())


def _is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0
