"""Recordings in a viewer that a person looks at, in a window or a browser; both serve this machine only."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from ..schemas import MissingExtraError
from .process import LOOPBACK, free_port, running
from .rerun import executable


def has_display() -> bool:
    """Tell whether a window can be opened here."""
    if sys.platform in {"win32", "darwin"}:
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def window(paths: Sequence[Path | str], then: Callable[[int], None] | None = None) -> None:
    """Open recordings in a window and return when it is closed.

    Parameters
    ----------
    paths
        Files, or addresses of what a catalogue holds.
    then
        Called with the port that the viewer listens on, once it does.

    Raises
    ------
    MissingExtraError
        If the viewer cannot run here.
    """
    port = free_port()
    words = [executable(), "--bind", LOOPBACK, "--port", str(port), "--hide-welcome-screen", *paths]
    try:
        with running(words, ports=[port]) as program:
            if then is not None:
                then(port)
            code = program.process.wait()
            said = program.said()
    except KeyboardInterrupt:
        return
    if code:
        raise MissingExtraError(
            f"the viewer ended with code {code}: {said}; `teleopen doctor` tells what it needs, and --web "
            "shows the episode in a browser"
        )


def web(paths: Sequence[Path], tell: Callable[[str], None], *, port: int = 0) -> None:
    """Serve recordings to a browser on this machine until interrupted.

    Parameters
    ----------
    tell
        Called with the address to open, once it answers.
    port
        Of the page; 0: any that is free.

    Raises
    ------
    MissingExtraError
        If the viewer cannot run here, or the port is taken.
    """
    page, data = port or free_port(), free_port()
    words: list[str | Path] = [executable(), "--serve-web", "--bind", LOOPBACK]
    words += ["--port", str(data), "--web-viewer-port", str(page), *paths]
    with running(words, ports=[page, data]) as program:
        tell(f"http://{LOOPBACK}:{page}/?url=rerun%2Bhttp://{LOOPBACK}:{data}/proxy")
        try:
            program.process.wait()
        except KeyboardInterrupt:
            return
        program.check()


def web_of(address: str, tell: Callable[[str], None], *, port: int = 0) -> None:
    """Serve the viewer's page to a browser on this machine until interrupted, for what another server holds.

    Parameters
    ----------
    address
        Of the other server, ``rerun+http://...``.
    tell, port
        As in `web`.

    Raises
    ------
    MissingExtraError
        If the viewer cannot run here, or the port is taken.
    """
    page, data = port or free_port(), free_port()
    words: list[str | Path] = [
        executable(),
        "--serve-web",
        "--bind",
        LOOPBACK,
        "--port",
        str(data),
        "--web-viewer-port",
        str(page),
    ]
    with running(words, ports=[page, data]) as program:
        tell(f"http://{LOOPBACK}:{page}/?url={quote(address, safe='')}")
        try:
            program.process.wait()
        except KeyboardInterrupt:
            return
        program.check()


def until_interrupted() -> None:
    """Wait for Ctrl-C."""
    with suppress(KeyboardInterrupt):
        while True:
            time.sleep(3600)
