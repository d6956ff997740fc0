"""A bar on stderr for work that lasts, if somebody looks."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

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
