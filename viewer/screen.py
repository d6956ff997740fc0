"""A viewer of this machine, driven from here: what it shows, and whether that is what it should show."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..schemas import Array, MissingExtraError, NotFoundError
from .plan import Camera, Recorded
from .process import LOOPBACK, Program, free_port, running
from .rerun import connected, executable
from .timing import FRAME

if TYPE_CHECKING:
    from rerun.experimental import View, ViewerClient

Grey = NDArray[np.float64]

SIZE = (1600, 900)
NOTES = 7.0
"""Seconds for which the viewer shows notes on itself over the top right."""

PATIENCE = 120.0
"""Seconds until pictures have to be there: without a graphics card, and beside others, a viewer is slow."""

_ALIKE = 0.8  # correlation of what is on screen with the frame that should be
_LOOKS = 5  # at a view that shows what it did before, since in the scene nothing may have moved
_CERTAIN = 0.9  # the same where the place on the screen is not known
_COARSE = 8  # pixels that are one when a frame is sought
_FLAT = 6.0  # grey levels of deviation below which a frame has nothing to compare


def grey(frame: Array) -> Grey:
    """Return the grey levels of a picture: (H, W) of (H, W, C)."""
    levels: Grey = np.asarray(frame, np.float64)[..., :3].mean(-1)
    return levels


def is_drawn(screen: Grey, frame: Grey) -> bool:
    """Tell whether a camera's view shows a frame: as large as fits, in the middle.

    Parameters
    ----------
    screen, frame
        (H, W) grey levels of the view and of the picture that it should show.
    """
    if frame.std() < _FLAT:
        return True
    height, width = screen.shape
    scale = min(width / frame.shape[1], height / frame.shape[0])
    rows, columns = round(frame.shape[0] * scale), round(frame.shape[1] * scale)
    top, left = (height - rows) // 2, (width - columns) // 2
    inner = screen[top : top + rows, left : left + columns]
    one, other = (_reduced(plane, 24, 32) for plane in (inner, frame))
    if one.std() < 1e-6:
        return False
    return bool(np.corrcoef(one.ravel(), other.ravel())[0, 1] >= _ALIKE)


def is_somewhere(screen: Grey, frame: Grey) -> bool:
    """Tell whether a frame is shown anywhere on a screen, at any size from a tenth of its width on.

    By normalised cross-correlation (J. P. Lewis, "Fast Normalized Cross-Correlation", 1995).
    """
    if frame.std() < _FLAT:
        return True
    rows, columns = screen.shape[0] // _COARSE, screen.shape[1] // _COARSE
    coarse = _blurred(_reduced(screen, rows, columns))
    squares, sums = (np.fft.rfft2(plane) for plane in (coarse**2, coarse))
    for width in range(columns // 10, columns + 1):
        height = round(width * frame.shape[0] / frame.shape[1])
        if not 1 < height <= rows:
            continue
        sought = _blurred(_reduced(frame, height, width))
        sought -= sought.mean()
        window = _correlated(squares, np.ones((height, width)), coarse.shape)
        mean = _correlated(sums, np.ones((height, width)), coarse.shape) / sought.size
        energy = np.maximum(window - sought.size * mean**2, 1.0) * (sought**2).sum()
        if (_correlated(sums, sought, coarse.shape) / np.sqrt(energy)).max() >= _CERTAIN:
            return True
    return False


def _correlated(spectrum: NDArray[np.complex128], other: Grey, shape: tuple[int, ...]) -> Grey:
    """Return the correlation of a plane, given as its spectrum, with another wherever that lies inside."""
    rows, columns = shape[0] - other.shape[0] + 1, shape[1] - other.shape[1] + 1
    product = spectrum * np.conj(np.fft.rfft2(other, shape))
    found: Grey = np.fft.irfft2(product, shape)[:rows, :columns]
    return found


def _blurred(plane: Grey) -> Grey:
    """Return a plane without the detail whose place on a coarse grid would be chance."""
    wide = np.pad(plane, 1, mode="edge")
    rows = wide[:-2] + wide[1:-1] + wide[2:]
    found: Grey = (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]) / 9
    return found


def _reduced(plane: Grey, rows: int, columns: int) -> Grey:
    """Return a plane in another size, each level the mean of those that it stands for."""
    from PIL import Image

    image = Image.fromarray(plane.astype(np.float32))
    return np.asarray(image.resize((columns, rows), Image.Resampling.BOX), np.float64)


@dataclass(frozen=True, slots=True)
class Viewer:
    """A viewer that runs, and what drives it."""

    client: ViewerClient
    program: Program

    def show(self, path: Path) -> None:
        """Open a recording and wait until all of it is there."""
        self.client.open(str(path.resolve()))
        self._wait(lambda: bool((state := self.client.get_state()).recordings) and not state.loading)

    def set_time(self, timeline: str, frame: int, time_ns: int) -> None:
        """Stop at a time: at a frame of the timeline ``frame``, at a time of any other."""
        if timeline == FRAME:
            self.client.set_time(timeline, sequence=frame, play_state="paused")
        else:
            self.client.set_time(timeline, duration=np.timedelta64(time_ns, "ns"), play_state="paused")

    def view(self, camera: Camera) -> View:
        """Return the view that shows a camera."""
        found = [view for view in self.client.get_state().views if view.origin == camera.path]
        if not found:
            raise NotFoundError(f"no view shows {camera.name}")
        return found[0]

    def seen(self, view: View) -> Array:
        """Return what a view shows: (H, W, 3)."""
        from PIL import Image

        with Image.open(io.BytesIO(self.client.take_screenshot(view.view_id))) as image:
            return np.asarray(image.convert("RGB"))

    def wait_for_pictures(
        self, recorded: Recorded, frames: Mapping[str, Grey], before: Mapping[str, Array]
    ) -> dict[str, Array]:
        """Wait until each camera that is on screen shows its frame, and not still what it showed before.

        Frames that follow each other are alike, so a view is looked at until it changes, for a while.

        Returns
        -------
            What each camera shows now, by the path of its entity: what is ``before`` the next.

        Raises
        ------
        MissingExtraError
            If one does not, with what the viewer has said: most likely it has no decoder.
        """
        found: dict[str, Array] = {}
        for camera in recorded.cameras:
            if camera.path not in frames:
                continue
            view = self.view(camera)
            if view.visible:
                self._wait(partial(self._shows, view, frames[camera.path]), camera.name)
                found[camera.path] = self._changed(view, before.get(camera.path))
        return found

    def _changed(self, view: View, before: Array | None) -> Array:
        found = self.seen(view)
        for _ in range(_LOOKS):
            if before is None or not np.array_equal(found, before):
                break
            found = self.seen(view)
        return found

    def _shows(self, view: View, frame: Grey) -> bool:
        return is_drawn(grey(self.seen(view)), frame)

    def wait_for_silence(self) -> None:
        """Wait until the notes that pop up at the start are gone; their time passes only while it draws."""
        end = time.monotonic() + NOTES
        while time.monotonic() < end:
            self.client.take_screenshot(max_size=64)
            time.sleep(0.05)

    def picture(self) -> bytes:
        """Return all of the viewer as PNG."""
        return self.client.take_screenshot()

    def _wait(self, until: Callable[[], bool], what: str = "the recording") -> None:
        end = time.monotonic() + PATIENCE
        while not self._holds(until):
            self.program.check()
            if time.monotonic() > end:
                told = [entry.message for entry in self.client.get_logs() if entry.level in {"WARN", "ERROR"}]
                raise MissingExtraError(
                    f"the viewer does not show {what} after {PATIENCE:.0f} s: {' '.join(told[-3:])}"
                )
            time.sleep(0.1)

    @staticmethod
    def _holds(condition: Callable[[], bool]) -> bool:
        try:
            return condition()
        except TimeoutError:  # a viewer that is busy drawing answers late
            return False


@contextmanager
def viewer(environment: Mapping[str, str], *flags: str, size: tuple[int, int] = SIZE) -> Iterator[Viewer]:
    """Run a viewer, without a window if ``--headless`` is among the flags.

    Raises
    ------
    MissingExtraError
        If it does not start.
    """
    port = free_port()
    words: list[str | Path] = [executable(), *flags, "--bind", LOOPBACK, "--port", str(port)]
    words += ["--hide-welcome-screen", "--window-size", f"{size[0]}x{size[1]}", "--memory-limit", "2GB"]
    with running(words, ports=[port], environment=environment) as program:
        yield Viewer(connected(port), program)
