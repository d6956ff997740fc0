"""One job of a large conversion: some recordings into finished segments, in whatever process it is run.

A job commits nothing. What it finished lies staged, so that a job that is run again, or a conversion that
was killed, takes it up.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from ..schemas import (
    ConflictError,
    Episode,
    Json,
    SchemaError,
    StoreError,
    Stream,
    TeleopenError,
    UnknownFormatError,
    canonical,
    strict_json,
)
from . import disk
from .catalog import Add, Catalog, operation_document, parse_operation
from .ingest import Run
from .options import WriteOptions
from .storage import Storage, open_storage

_TICK_S = 0.5

Note = Callable[["Tick"], None]


class Recording(Protocol):
    """Something that gives episodes. Pickled, when another process is to read it."""

    @property
    def name(self) -> str:
        """What a person called it."""
        ...

    @property
    def optional(self) -> bool:
        """It may turn out to be no recording at all."""
        ...

    def episodes(self, scratch: Path) -> Iterator[Episode]:
        """Yield its episodes; ``scratch`` is a folder that lasts until the job has ended."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A recording, or one episode of it, that was left out.

    Attributes
    ----------
    episode
        Its id; empty if the recording could not be read on from there, so that more may be missing.
    """

    recording: str
    episode: str
    error: TeleopenError


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a recording held.

    Attributes
    ----------
    format
        Of its episodes; empty if it was passed over, since it is of no known format.
    files
        Sizes of the source files by SHA-256, for each episode's id.
    encoded
        Cameras that came as packets.
    """

    recording: str
    format: str = ""
    episodes: tuple[str, ...] = ()
    files: dict[str, dict[str, int]] = field(default_factory=dict)
    warnings: dict[str, int] = field(default_factory=dict)
    encoded: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """How far a job is.

    Attributes
    ----------
    recordings, of, episodes
        Recordings done, and how many the job has; episodes done.
    samples, frames, bytes
        Written: samples of all streams, pictures among them, and their bytes as read.
    expected
        Samples of the episodes that were met so far.
    current, stream
        What is being read.
    """

    job: int
    of: int = 0
    recordings: int = 0
    episodes: int = 0
    samples: int = 0
    frames: int = 0
    bytes: int = 0
    expected: int = 0
    current: str = ""
    stream: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Some recordings to be written. Crosses processes and machines that see the same storage.

    Attributes
    ----------
    session
        Of the process that will commit; see `session`.
    again
        The job was begun before in this session, by a worker that was lost.
    strict
        The first failure ends the job.
    """

    url: str
    session: str
    number: int
    recordings: tuple[Recording, ...]
    options: WriteOptions
    strict: bool = False
    again: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a job did; ``adds`` are the log's operations on its segments, as documents."""

    job: int
    adds: tuple[Json, ...]
    resumed: tuple[str, ...]
    skipped: tuple[str, ...]
    withdrawn: tuple[str, ...]
    failures: tuple[Failure, ...]
    seen: tuple[Seen, ...]

    def operations(self) -> list[Add]:
        """Return the operations."""
        found = [parse_operation(document, f"job {self.job}") for document in self.adds]
        return [operation for operation in found if isinstance(operation, Add)]


def work(job: Job, note: Note | None = None) -> Outcome:
    """Write the recordings of a job into staged segments.

    Parameters
    ----------
    note
        Called with how far the job is; None: a file in the staging folder tells it, see `ticks`.

    Raises
    ------
    TeleopenError
        If storage fails, or a recording is bad and the job is strict.
    """
    storage = open_storage(job.url)
    staging = storage.staging()
    disk.make_folder(staging)
    scratch = staging / f"{job.session}.{job.number}.scratch"
    disk.make_folder(scratch)
    try:
        return _Worker(job, storage, staging, note or _Teller(staging, job)).run(scratch)
    finally:
        disk.remove_tree(scratch)


class _Worker:
    """A job while it is done."""

    def __init__(self, job: Job, storage: Storage, staging: Path, note: Note) -> None:
        self.job, self.storage, self.staging, self.note = job, storage, staging, note
        self.tick = Tick(job=job.number, of=len(job.recordings))
        self.streams: Mapping[str, Stream] = {}
        self.state = Catalog(storage).load()
        self.segments = Run(staging, job.session, job.options, self._progress, job=job.number)
        self.fates: dict[str, list[str]] = {"added": [], "skipped": [], "withdrawn": []}
        self.failures: list[Failure] = []
        self.seen: list[Seen] = []

    def run(self, scratch: Path) -> Outcome:
        try:
            self.segments.take_up(self.storage, self.state, again=self.job.again)
            for number, recording in enumerate(self.job.recordings):
                self._tell(current=recording.name, stream="")
                self._take(recording, scratch / str(number))
                self._tell(recordings=number + 1)
            adds = self.segments.finish()
        except BaseException:
            self.segments.abort()
            raise
        finally:
            self.segments.close()
        if self.storage.local("segments") is None:
            self._upload(adds)
        return Outcome(
            job=self.job.number,
            adds=tuple(operation_document(add) for add in adds),
            resumed=tuple(sorted(self.segments.resumed)),
            skipped=tuple(self.fates["skipped"]),
            withdrawn=tuple(self.fates["withdrawn"]),
            failures=tuple(self.failures),
            seen=tuple(self.seen),
        )

    def _upload(self, adds: Sequence[Add]) -> None:
        """Put segments where the process that commits can reach them: this staging folder is local."""
        for add in adds:
            if (self.staging / add.segment).exists():
                self.storage.put_folder(self.staging / add.segment, f"segments/{add.segment}")

    def _take(self, recording: Recording, scratch: Path) -> None:
        ids: list[str] = []
        form = ""
        files: dict[str, dict[str, int]] = {}
        warnings: Counter[str] = Counter()
        encoded: set[str] = set()
        episodes = self._guarded(recording, scratch)
        for episode in episodes:
            ids.append(episode.id)
            form = episode.provenance.format
            files[episode.id] = {file.sha256: file.size for file in episode.provenance.sources}
            warnings.update(episode.provenance.warnings)
            encoded |= {name for name, stream in episode.streams.items() if stream.packets}
            self.streams = episode.streams
            self._tell(expected=self.tick.expected + sum(s.length for s in episode.streams.values()))
            self._write(recording, episode)
            self._tell(episodes=self.tick.episodes + 1)
        self.seen.append(
            Seen(
                recording=recording.name,
                format=form,
                episodes=tuple(ids),
                files=files,
                warnings=dict(warnings),
                encoded=frozenset(encoded),
            )
        )

    def _guarded(self, recording: Recording, scratch: Path) -> Iterator[Episode]:
        """Yield the episodes of a recording up to where it cannot be read on."""
        try:
            yield from recording.episodes(scratch)
        except TeleopenError as error:
            if not (recording.optional and isinstance(error, UnknownFormatError)):
                self._fail(Failure(recording=recording.name, episode="", error=error))

    def _write(self, recording: Recording, episode: Episode) -> None:
        try:
            fate = self.segments.meet(episode, self.state)
        except TeleopenError as error:
            if isinstance(error, SchemaError):
                error.add_note(f"the source is {recording.name}")
            self._fail(Failure(recording=recording.name, episode=episode.id, error=error))
            self.segments.restore(episode)
        else:
            self.fates[fate].append(episode.id)

    def _fail(self, failure: Failure) -> None:
        """Note a failure, unless it is none of the recording's, or ends the job."""
        if self.job.strict or isinstance(failure.error, StoreError | ConflictError):
            raise failure.error
        self.failures.append(failure)

    def _progress(self, stream: str, samples: int) -> None:
        spec, tick = self.streams[stream].spec, self.tick
        self._tell(
            stream=stream,
            samples=tick.samples + samples,
            frames=tick.frames + (samples if spec.kind != "low_dim" else 0),
            bytes=tick.bytes + samples * spec.sample_bytes,
        )

    def _tell(self, **changed: Any) -> None:
        self.tick = replace(self.tick, **changed)
        self.note(self.tick)


class _Teller:
    """Writes how far a job is into a file, not too often: whoever sees the staging folder can read it."""

    def __init__(self, staging: Path, job: Job) -> None:
        self.path = staging / f"{job.session}.{job.number}.tick"
        self.next = 0.0

    def __call__(self, tick: Tick) -> None:
        now = time.monotonic()
        if now < self.next:
            return
        self.next = now + _TICK_S
        aside = self.path.with_suffix(f".{os.getpid()}.new")
        with suppress(OSError):  # nobody's work ends because nobody can watch it
            aside.write_bytes(canonical(asdict(tick)))
            aside.replace(self.path)


def ticks(staging: Path, session: str) -> list[Tick]:
    """Return how far the jobs of a session are, as their last files tell."""
    found = []
    for path in staging.glob(f"{session}.*.tick"):
        with suppress(OSError, ValueError, TypeError):  # it is being removed
            found.append(Tick(**strict_json(path.read_bytes())))
    return sorted(found, key=lambda tick: tick.job)
