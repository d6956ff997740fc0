"""Batches in an order, read ahead on threads, and gone on with exactly where a checkpoint says."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ...schemas import DamageError
from .memory import MEMORY, Allocator
from .order import Blocks, Order
from .plan import Batch, Plan
from .progress import Progress
from .read import Fetched
from .wants import WindowError
from .windows import Windows

_MOST_AHEAD = 64
_SPARE = 2.0
"""How many times as far to read ahead as an even line would ask for."""
_AHEAD_BYTES = 256 << 20
"""Bytes that are fetched ahead, and of pictures that are decoded ahead, unless one batch has more."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Which windows make up each batch: a pure function of a batch's number.

    Attributes
    ----------
    batch_size
        Windows of a batch, on this rank.
    rank, ranks
        This process among those that train together; each gets other windows, all get equally many batches.
    drop_last
        Leave out a last batch that is not full.
    """

    windows: Windows
    order: Order
    batch_size: int
    rank: int = 0
    ranks: int = 1
    drop_last: bool = False

    def __post_init__(self) -> None:
        if self.batch_size < 1 or not 0 <= self.rank < self.ranks:
            raise WindowError(
                f"batch_size {self.batch_size}, rank {self.rank} of {self.ranks}: none of these"
            )
        block = self.order.windows * self.order.buffer if isinstance(self.order, Blocks) else 1
        if block % self.batch_size and self.batch_size % block:
            raise WindowError(
                f"{block} windows are mixed at a time; a batch of {self.batch_size} is no part of that, nor "
                f"a multiple: let windows * buffer be a multiple of the batch size"
            )

    @property
    def together(self) -> int:
        """Batches that are read at once."""
        block = self.order.windows * self.order.buffer if isinstance(self.order, Blocks) else 1
        return max(1, block // self.batch_size)

    def __len__(self) -> int:
        """Return the number of batches of an epoch on this rank."""
        share = self._size() // self.ranks
        return share // self.batch_size if self.drop_last else -(-share // self.batch_size)

    def _size(self) -> int:
        return self.order.size(self.windows.space.lengths)

    def draw(self, batches: list[int], epoch: int) -> list[tuple[Any, Any]]:
        """Return episodes and anchors of some batches.

        Ranks take turns by groups of batches that are read at once, so that none reads another's chunks. What
        does not go into equal shares is left out, at the end of the epoch's order: other windows each epoch.
        """
        share = self._size() // self.ranks
        group = self.together * self.batch_size
        found = []
        for batch in batches:
            own = np.arange(
                batch * self.batch_size, min(share, (batch + 1) * self.batch_size), dtype=np.int64
            )
            whole = share // group * group
            turn = own // group
            mine = turn * group * self.ranks + self.rank * group + own % group
            # The last, short groups of the ranks lie one behind the other.
            tail = whole * self.ranks + self.rank * (share - whole) + (own - whole)
            found.append(self.order.draw(np.where(own < whole, mine, tail), epoch, self.windows.space))
        return found


@dataclass(slots=True)
class Skipped:
    """Windows that were left out since what they need is damaged, and the last reason."""

    windows: int = 0
    why: str = ""


@dataclass(eq=False)
class Loader:
    """Iterates over the batches of an epoch, and the next time over those of the next epoch.

    Attributes
    ----------
    schedule
        Which windows, in which batches.
    threads
        Decoding threads; None: one per core, 0: none but the caller's.
    skip_damage
        Leave out windows whose chunks are damaged, and count them in `skipped`, instead of raising.
    epoch
        The epoch that is being drawn.
    memory
        Where pictures are put.
    """

    schedule: Schedule
    threads: int | None = None
    skip_damage: bool = False
    epoch: int = 0
    progress: Progress = field(default_factory=Progress)
    skipped: Skipped = field(default_factory=Skipped)
    memory: Allocator = MEMORY

    def __len__(self) -> int:
        """Return the number of batches of a whole epoch."""
        return len(self.schedule)

    def within(self, windows: Windows, *, threads: int, memory: Allocator = MEMORY) -> Loader:
        """Return a loader that is where this one is, for another process."""
        schedule = replace(self.schedule, windows=windows)
        return Loader(schedule, threads, self.skip_damage, self.epoch, self.progress, memory=memory)

    def state_dict(self) -> dict[str, Any]:
        """Return where the loader is, as plain numbers: any number of workers can go on from there."""
        return {"epoch": self.epoch, **self.progress.to_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where another loader of the same windows, order, batch size and ranks was."""
        self.epoch, self.progress = int(state["epoch"]), Progress.from_state(state)

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches of the epoch that are not delivered yet, then turn to the next epoch."""
        for number, batch in self.part():
            self.progress.note(number)
            yield batch
        self.epoch, self.progress = self.epoch + 1, Progress()

    def part(self, part: int = 0, parts: int = 1) -> Iterator[tuple[int, Batch]]:
        """Yield number and content of a part's batches that are left; what is delivered is not noted.

        Parameters
        ----------
        part, parts
            Which worker this is of those that share the epoch.
        """
        # As it is now: others may note what they deliver before this is begun.
        now = Progress(self.progress.done, set(self.progress.ahead))
        return self._part(now.left(len(self.schedule), self.schedule.together, part, parts))

    def _part(self, groups: Iterator[list[int]]) -> Iterator[tuple[int, Batch]]:
        threads = os.cpu_count() or 1 if self.threads is None else self.threads
        if threads == 0:
            for group in groups:
                yield from self._split(group, self._read(self._plan(group)))
            return
        yield from self._ahead(groups, threads)

    # ------------------------------------------------------------ reading ahead

    def _ahead(self, groups: Iterator[list[int]], threads: int) -> Iterator[tuple[int, Batch]]:
        """Fetch as far ahead as latency asks for, decode one group for each thread, deliver in order."""
        with (
            ThreadPoolExecutor(threads, "decode") as decoders,
            ThreadPoolExecutor(_MOST_AHEAD, "fetch") as fetchers,
        ):
            line: deque[tuple[list[int], Future[tuple[Plan, Fetched]]]] = deque()
            ready: deque[tuple[list[int], Future[Batch]]] = deque()
            pace = _Pace(threads)
            try:
                more = True
                while more or line or ready:
                    while more and len(line) + len(ready) < pace.ahead:
                        group = next(groups, None)
                        more = group is not None
                        if group is not None:
                            line.append((group, fetchers.submit(self._fetched, group, pace)))
                    while line and len(ready) < pace.decoding:
                        group, fetched = line.popleft()
                        ready.append((group, decoders.submit(self._decoded, fetched, pace)))
                    group, future = ready.popleft()
                    yield from self._split(group, future.result())
            finally:
                for _, fetching in line:
                    fetching.cancel()
                for _, decoding in ready:
                    decoding.cancel()

    def _fetched(self, group: list[int], pace: _Pace) -> tuple[Plan, Fetched]:
        began = time.monotonic()
        plan = self._plan(group)
        fetched = plan.fetch()
        pace.fetched(time.monotonic() - began, fetched.bytes, plan.batch_bytes)
        return plan, fetched

    def _decoded(self, fetched: Future[tuple[Plan, Fetched]], pace: _Pace) -> Batch:
        plan, chunks = fetched.result()
        began = time.monotonic()
        batch = self._read(plan, chunks)
        pace.decoded(time.monotonic() - began)
        return batch

    def _plan(self, group: list[int]) -> Plan:
        drawn = self.schedule.draw(group, self.epoch)
        return self.schedule.windows.plan(*(np.concatenate(parts) for parts in zip(*drawn, strict=True)))

    def _read(self, plan: Plan, fetched: Fetched | None = None) -> Batch:
        try:
            return plan.read(fetched or plan.fetch(), memory=self.memory)
        except DamageError:
            if not self.skip_damage:
                raise
        return self._whole_ones(plan)

    def _whole_ones(self, plan: Plan) -> Batch:
        """Return the windows of a batch that can be read, each tried by itself."""
        kept: list[Batch] = []
        for row in plan.rows:
            try:
                kept.append(plan.windows.batch([row.episode], [row.anchor]))
            except DamageError as error:
                self.skipped = replace(self.skipped, windows=self.skipped.windows + 1, why=str(error))
        if not kept:
            return {}
        return {name: np.concatenate([batch[name] for batch in kept]) for name in kept[0]}

    def _split(self, group: list[int], batch: Batch) -> Iterator[tuple[int, Batch]]:
        """Cut what was read at once into its batches."""
        if len(group) == 1 or not batch:
            if batch:
                yield group[0], batch
            return
        size = self.schedule.batch_size
        for at, number in enumerate(group):
            part = {name: values[at * size : (at + 1) * size] for name, values in batch.items()}
            if len(part["episode"]):
                yield number, part


@dataclass(slots=True)
class _Pace:
    """How far to read ahead: so far that fetching, at its latency, keeps up with decoding."""

    threads: int
    ahead: int = 4
    decoding: int = 1
    _fetch_s: deque[float] = field(default_factory=lambda: deque(maxlen=32))
    _decode_s: float = 0.0

    def fetched(self, seconds: float, fetched_bytes: int, batch_bytes: int) -> None:
        """Take note of what a batch took to fetch, and how large it is, fetched and decoded."""
        # The shortest of late: on a full line the others tell how long they waited for each other.
        self._fetch_s.append(seconds)
        self.decoding = max(1, min(self.threads + 1, _AHEAD_BYTES // max(1, batch_bytes)))
        most = max(2, min(_MOST_AHEAD, _AHEAD_BYTES // max(1, fetched_bytes)))
        turns = self.threads * min(self._fetch_s) / max(1e-4, self._decode_s or 1e-2)
        self.ahead = max(2, min(most, self.decoding + 1 + int(_SPARE * turns)))

    def decoded(self, seconds: float) -> None:
        """Take note of what a batch took to decode."""
        self._decode_s = seconds if not self._decode_s else 0.8 * self._decode_s + 0.2 * seconds
