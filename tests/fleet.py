"""Recordings that other processes can read, for tests of large conversions."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from teleopen.schemas import Array, Episode, FormatError, Stream

from tests.episodes import make


@dataclass(frozen=True)
class MadeUpRecording:
    """Gives made-up episodes; one may break off, and reading may end the process that does it.

    Attributes
    ----------
    kills
        A folder: the process is killed as long as fewer than ``deaths`` files lie there.
    """

    seeds: tuple[int, ...]
    broken: int | None = None
    headless: bool = False
    kills: str = ""
    deaths: int = 1
    optional: bool = False

    @property
    def name(self) -> str:
        return f"made-up {self.seeds}"

    def episodes(self, scratch: Path) -> Iterator[Episode]:
        for seed in self.seeds:
            episode = make(seed=seed, steps=12, depth=False, imu=False)
            yield replace(episode, streams={n: self._watched(seed, s) for n, s in episode.streams.items()})
        if self.headless:
            raise FormatError(self.name, "the end", "is missing")

    def _watched(self, seed: int, stream: Stream) -> Stream:
        def read(start: int, stop: int) -> Iterator[Array]:
            self._die()
            yield from stream.read(start, min(stop, 5) if seed == self.broken else stop)
            if seed == self.broken and stop > 5:
                raise FormatError(self.name, f"row 5 of {stream.spec.name}", "is cut off")

        return replace(stream, read=read)

    def _die(self) -> None:
        if self.kills and len(list(Path(self.kills).iterdir())) < self.deaths:
            Path(self.kills, str(os.getpid())).touch()
            os.kill(os.getpid(), signal.SIGKILL)
