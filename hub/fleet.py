"""A large conversion: many recordings, worked on side by side, and one commit at the end.

The work is cut into jobs. They run in this process, in processes of this machine, or on any executor whose
workers see the store: the segments that they finish wait, unseen, for the one commit. A worker that is lost
costs the job it was at, which is done again by another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    wait,
)
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from ..schemas import MissingExtraError, StoreError, TeleopenError
from . import disk
from .ingest import WriteReport, land
from .jobs import Failure, Job, Outcome, Recording, Seen, Tick, ticks, work
from .options import WriteOptions
from .session import is_alive, session
from .store import Store, whoami

Watch = Callable[[Sequence[Tick]], None]
Crew = Callable[[], AbstractContextManager[Executor]]
"""Gives an executor, and a new one if that is broken by the death of a worker."""

_POLL_S = 0.25
_MOST_RECORDINGS = 64
_JOBS_PER_WORKER = 4
_LIVES = 2
_PATIENCE_S = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetReport:
    """What a large conversion did.

    Attributes
    ----------
    failures
        What was left out, and why.
    lost
        How often a job was begun again because its worker had died.
    """

    written: WriteReport
    seen: tuple[Seen, ...]
    failures: tuple[Failure, ...]
    lost: int


def _unwatched(_ticks: Sequence[Tick]) -> None:
    pass


def ingest(
    store: Store,
    recordings: Sequence[Recording],
    options: WriteOptions | None = None,
    *,
    crew: Crew | None = None,
    workers: int = 1,
    strict: bool = False,
    author: str = "",
    watch: Watch = _unwatched,
) -> FleetReport:
    """Write recordings into a store, with one commit at the end.

    A recording that is bad is left out and reported, unless ``strict``. What was finished before the
    process is killed is taken up by the next run over the same recordings.

    Parameters
    ----------
    crew
        Runs the jobs; None: this process does, one after another.
    workers
        How many jobs the crew does side by side.
    watch
        Called now and then with how far the jobs are.

    Raises
    ------
    TeleopenError
        If storage fails; if a recording is bad and this is strict, or is the only one and gives nothing.
        The store is then as it was.
    """
    options = options or WriteOptions()
    try:
        with session(store.storage) as (staging, name):
            fleet = _Fleet(staging, name, crew, workers, watch)
            try:
                url = store.url if "://" in store.url else str(Path(store.url).resolve())
                fleet.run(_jobs(url, name, recordings, options, workers if crew else 1, strict=strict))
                report = _commit(store, fleet, staging, author or whoami())
            finally:
                _sweep(staging, name)
    except OSError as error:
        if isinstance(error, StoreError):
            raise
        raise StoreError(store.url, f"writing failed: {error}") from error
    store.refresh()
    return report


def _jobs(
    url: str,
    name: str,
    recordings: Sequence[Recording],
    options: WriteOptions,
    workers: int,
    *,
    strict: bool,
) -> list[Job]:
    """Cut the work into jobs that are alike in size; always alike, so that a killed run is resumed."""
    least = -(-len(recordings) // (_JOBS_PER_WORKER * workers))
    size = max(1, min(_MOST_RECORDINGS, least)) if workers > 1 else max(1, len(recordings))
    return [
        Job(
            url=url,
            session=name,
            number=number,
            recordings=tuple(recordings[start : start + size]),
            options=options,
            strict=strict,
        )
        for number, start in enumerate(range(0, len(recordings), size))
    ]


def _commit(store: Store, fleet: _Fleet, staging: Path, author: str) -> FleetReport:
    outcomes = [outcome for _, outcome in sorted(fleet.outcomes.items())]
    failures = (*(f for outcome in outcomes for f in outcome.failures), *fleet.failures)
    staged = [add for outcome in outcomes for add in outcome.operations()]
    others = any(outcome.skipped or outcome.withdrawn for outcome in outcomes)
    if failures and not staged and not others:
        raise failures[0].error
    adds, doubled = land(store.storage, store.catalog, staging, staged, author)
    for add in staged:
        disk.unlink(staging / f"{add.segment}.staged.json")
    added = [episode for add in adds for episode in add.episodes]
    resumed = {episode for outcome in outcomes for episode in outcome.resumed}
    written = WriteReport(
        added=tuple(added),
        resumed=tuple(episode for episode in added if episode in resumed),
        skipped=(*(e for outcome in outcomes for e in outcome.skipped), *doubled),
        withdrawn=tuple(e for outcome in outcomes for e in outcome.withdrawn),
        segments=tuple(add.segment for add in adds),
        version=store.catalog.load().version,
    )
    seen = tuple(s for outcome in outcomes for s in outcome.seen)
    return FleetReport(written=written, seen=seen, failures=failures, lost=fleet.lost)


def _sweep(staging: Path, name: str) -> None:
    """Remove what jobs told of their progress, also those of a process that died."""
    for path in staging.glob("*.tick"):
        owner = path.name.partition(".")[0]
        if owner == name or not is_alive(staging, owner):
            path.unlink(missing_ok=True)


@dataclass(slots=True)
class _Fleet:
    """Jobs on their way through an executor."""

    staging: Path
    session: str
    crew: Crew | None
    workers: int
    watch: Watch
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    lost: int = 0

    def run(self, jobs: Sequence[Job]) -> None:
        """Do all jobs. Those whose worker died are done again; then one by one, a recording at a time."""
        if self.crew is None:
            for job in jobs:
                self.outcomes[job.number] = work(job, lambda tick: self.watch([tick]))
            return
        left = self._round(jobs, self.workers)
        for _ in range(_LIVES - 1):
            left = left and self._round([replace(job, again=True) for job in left], self.workers)
        numbers = iter(range(len(jobs), len(jobs) + sum(len(job.recordings) for job in left)))
        for suspect in [
            replace(job, recordings=(r,), number=next(numbers)) for job in left for r in job.recordings
        ]:
            if self._round([suspect], 1):
                why = "the process that read it died, twice or more; it may ask for too much memory"
                error = TeleopenError(f"{suspect.recordings[0].name}: {why}")
                self.failures.append(Failure(recording=suspect.recordings[0].name, episode="", error=error))

    def _round(self, jobs: Sequence[Job], side_by_side: int) -> list[Job]:
        """Do jobs on one executor and return those that were lost with it or with a worker."""
        assert self.crew is not None  # noqa: S101 - `run` does the jobs itself where there is none
        todo, lost = list(reversed(jobs)), []
        running: dict[Future[Outcome], Job] = {}
        with self.crew() as executor:
            try:
                while todo or running:
                    # Not more than can run: what waits in a queue is lost with the executor.
                    while todo and len(running) < side_by_side:
                        job = todo.pop()
                        running[executor.submit(work, job)] = job
                    done, _ = wait(running, timeout=_POLL_S, return_when=FIRST_COMPLETED)
                    self.watch(ticks(self.staging, self.session))
                    for future in done:
                        job = running.pop(future)
                        error = future.exception()
                        if error is None:
                            self.outcomes[job.number] = future.result()
                        elif _is_loss(error):
                            lost.append(job)
                            self.lost += 1
                        else:
                            raise error
                    if any(isinstance(f.exception(), BrokenExecutor) for f in done):
                        break
            except BrokenExecutor:
                lost.append(job)
            finally:
                for future in running:
                    future.cancel()
            # The executor broke under these, if they are still there.
            lost += running.values()
        return sorted([*lost, *todo], key=lambda job: job.number)


def _is_loss(error: BaseException) -> bool:
    """Tell whether a worker died, as the standard library says it, or Dask, which need not be installed."""
    return isinstance(error, BrokenExecutor) or type(error).__name__ == "KilledWorker"


# ---------------------------------------------------------------- crews


@contextmanager
def processes(workers: int) -> Iterator[Executor]:
    """Give an executor of processes of this machine, started afresh so that no lock is inherited."""
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield pool


@contextmanager
def dask(address: str) -> Iterator[Executor]:
    """Give an executor on a Dask cluster, whose workers must see the store under the same URL."""
    with _client(address) as client:
        # A job is no pure function of its arguments: an outcome of an earlier run would be given again.
        yield client.get_executor(pure=False)


def cluster_size(address: str) -> int:
    """Return how many jobs a Dask cluster does side by side."""
    with _client(address) as client:
        threads: dict[str, int] = client.nthreads()
    return max(1, sum(threads.values()))


@contextmanager
def _client(address: str) -> Iterator[Any]:
    """Connect to a Dask scheduler.

    Raises
    ------
    StoreError
        If it cannot be reached.
    MissingExtraError
        If Dask is not installed.
    """
    try:
        import distributed
    except ImportError as error:
        told = "converting on Dask needs 'distributed': pip install 'teleopen[dask]'"
        raise MissingExtraError(told) from error
    try:
        client: Any = distributed.Client(address, timeout=_PATIENCE_S, set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, TimeoutError, ValueError) as error:
        raise StoreError(address, f"no Dask scheduler answers there: {error}") from error
    try:
        yield client
    finally:
        client.close()


def crew_of(workers: int, address: str = "") -> Crew:
    """Return the crew of a Dask cluster, or of so many processes of this machine."""
    return partial(dask, address) if address else partial(processes, workers)
