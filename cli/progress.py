"""A bar on stderr for work that lasts, or a line for each worker, if somebody looks."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rich.live import Live
    from rich.progress import Progress, TaskID
    from rich.table import Table

    from ..hub.jobs import Tick

PATIENCE_S = 2.0
"""Work that is done sooner shows nothing."""


@dataclass(slots=True)
class _Bar:
    """Counts from the start, and is drawn once patience is over."""

    title: str
    unit: Literal["samples", "bytes"]
    total: Callable[[], int | None]
    began: float = field(default_factory=time.monotonic)
    done: int = 0
    drawn: Progress | None = None
    task: TaskID | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, what: str, amount: int) -> None:
        """Note that ``amount`` more is done, in ``what``. Many threads may."""
        from .output import clean

        with self.lock:
            self.done += amount
            if self.drawn is None and time.monotonic() - self.began < PATIENCE_S:
                return
            drawn = self.drawn or self._draw()
            if self.task is not None:
                drawn.update(self.task, completed=self.done, total=self.total(), what=clean(what))

    def _draw(self) -> Progress:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        counted = DownloadColumn() if self.unit == "bytes" else MofNCompleteColumn()
        self.drawn = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            counted,
            TimeRemainingColumn(),
            TextColumn("{task.fields[what]}", style="dim", markup=False),
            console=Console(file=sys.stderr),
            transient=True,
        )
        self.drawn.start()
        self.task = self.drawn.add_task(self.title, total=None, what="")
        return self.drawn


def _nothing(_what: str, _amount: int) -> None:
    pass


@contextmanager
def progress(
    title: str, *, unit: Literal["samples", "bytes"], total: Callable[[], int | None]
) -> Iterator[Callable[[str, int], None]]:
    """Give a function to report work to: what was worked on, and how much of it is done since.

    Parameters
    ----------
    total
        Tells how much there is to do as far as is known, anew each time.
    """
    if not sys.stderr.isatty():
        yield _nothing
        return
    bar = _Bar(title, unit, total)
    try:
        yield bar
    finally:
        if bar.drawn is not None:
            bar.drawn.stop()


@dataclass(slots=True)
class _Crowd:
    """What jobs are at, side by side: their sum, and what each reads now.

    Attributes
    ----------
    recordings
        How many there are to read.
    ticks
        The last word of every job; one that has ended says no more.
    """

    recordings: int
    began: float = field(default_factory=time.monotonic)
    ticks: dict[int, Tick] = field(default_factory=dict)
    live: Live | None = None

    def __call__(self, ticks: Sequence[Tick]) -> None:
        self.ticks |= {tick.job: tick for tick in ticks}
        if self.live is None and time.monotonic() - self.began < PATIENCE_S:
            return
        if self.live is None:
            from rich.console import Console
            from rich.live import Live

            self.live = Live(console=Console(file=sys.stderr), transient=True, get_renderable=self.table)
            self.live.start()

    def table(self) -> Table:
        """Return what is shown, as of now."""
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        from .output import clean

        grid = Table.grid(padding=(0, 2))
        grid.add_row(ProgressBar(total=1, completed=self.done(), width=30), Text(self.sum()))
        told = sorted(self.ticks.values(), key=lambda tick: tick.job)
        for tick in [t for t in told if t.recordings < t.of]:
            at = f"{tick.recordings}/{tick.of}  {tick.current}  {tick.stream}"
            grid.add_row(Text(f"job {tick.job}", style="dim"), Text(clean(at), style="dim"))
        return grid

    def done(self) -> float:
        """Return which part is done: whole recordings, and of those begun as much as is written."""
        part = sum(
            t.recordings + min(1.0, t.samples / t.expected if t.expected else 0.0) * (t.recordings < t.of)
            for t in self.ticks.values()
        )
        return min(1.0, part / max(1, self.recordings))

    def sum(self) -> str:
        """Return the figures of all jobs in one line."""
        told, seconds = self.ticks.values(), max(1e-3, time.monotonic() - self.began)
        recordings, episodes, frames, size = (
            sum(getattr(t, name) for t in told) for name in ("recordings", "episodes", "frames", "bytes")
        )
        done = self.done()
        left = f", {seconds * (1 - done) / done:.0f} s left" if done > 0.01 else ""
        return (
            f"{recordings}/{self.recordings} recordings, {episodes} episodes, "
            f"{frames / seconds:.0f} frames/s, {size / seconds / 1e6:.0f} MB/s{left}"
        )


def _unwatched(_ticks: Sequence[Tick]) -> None:
    pass


@contextmanager
def crowd(recordings: int) -> Iterator[Callable[[Sequence[Tick]], None]]:
    """Give a function to report the state of jobs to."""
    if not sys.stderr.isatty():
        yield _unwatched
        return
    shown = _Crowd(recordings)
    try:
        yield shown
    finally:
        if shown.live is not None:
            shown.live.stop()
