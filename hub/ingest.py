"""Episodes into a store: grouped into segments, staged, and committed together at the end.

Nothing is visible before the one commit. What was staged by a process that died is taken up by the next
run that meets the same episodes, so that a conversion resumes where it was killed.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..schemas import Episode, StoreError, TeleopenError, canonical, check, strict_json, to_document
from . import disk
from .catalog import Add, Catalog, Operation, State, operation_document, parse_operation
from .options import WriteOptions
from .segment import SegmentWriter, hashed, signature
from .session import is_alive, session
from .sinks import Progress
from .storage import Storage

if TYPE_CHECKING:
    from .encode import Encoding

_OPEN_SEGMENTS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteReport:
    """What a write did.

    Attributes
    ----------
    added, resumed, skipped, withdrawn
        Ids of the episodes that are new; of those among them that an earlier, killed run had staged; of
        those that the store had already; and of those that were withdrawn from it and stay out.
    segments
        Ids of the new segments.
    version
        Of the commit log, afterwards.
    """

    added: tuple[str, ...]
    resumed: tuple[str, ...]
    skipped: tuple[str, ...]
    withdrawn: tuple[str, ...]
    segments: tuple[str, ...]
    version: int


def write(
    storage: Storage,
    catalog: Catalog,
    episodes: Iterable[Episode],
    options: WriteOptions,
    *,
    author: str,
    progress: Progress,
) -> WriteReport:
    """Write episodes into a store, with one commit at the end. See `Store.write`."""
    state = catalog.load()
    with session(storage) as (staging, name):
        run = Run(staging, name, options, progress)
        skipped, withdrawn = [], []
        try:
            run.take_up(storage, state)
            for episode in episodes:
                fate = run.meet(episode, state)
                if fate == "skipped":
                    skipped.append(episode.id)
                elif fate == "withdrawn":
                    withdrawn.append(episode.id)
            adds = run.finish()
        except BaseException:
            run.abort()
            raise
        finally:
            run.close()
        adds, doubled = land(storage, catalog, staging, adds, author)
        run.forget()
    added = [e for add in adds for e in add.episodes]
    return WriteReport(
        added=tuple(added),
        resumed=tuple(e for e in added if e in run.resumed),
        skipped=(*skipped, *doubled),
        withdrawn=tuple(withdrawn),
        segments=tuple(add.segment for add in adds),
        version=catalog.load().version,
    )


def land(
    storage: Storage, catalog: Catalog, staging: Path, adds: list[Add], author: str
) -> tuple[list[Add], list[str]]:
    """Move finished segments into place and commit them; return what was added, and what others had."""
    for add in adds:
        if (staging / add.segment).exists():
            storage.put_folder(staging / add.segment, f"segments/{add.segment}")
    landed: list[Add] = []

    def build(state: State) -> list[Operation]:
        landed[:] = _new_ones(adds, state)
        return list(landed)

    if adds:
        catalog.commit(build, author=author)
    new = Counter(e for add in landed for e in add.episodes)
    doubled = Counter(e for add in adds for e in add.episodes) - new
    return landed, list(doubled.elements())


def _new_ones(adds: Iterable[Add], state: State) -> list[Add]:
    """Return the additions without the episodes that were committed meanwhile, or come twice."""
    there = {*state.episodes, *state.withdrawn}
    kept = []
    for add in adds:
        rows = {e: row for e, row in add.episodes.items() if e not in there}
        there |= rows.keys()
        if rows:
            kept.append(replace(add, episodes=rows, contents={e: add.contents[e] for e in rows}))
    return kept


@dataclass(slots=True)
class _Orphan:
    """A finished segment of a process that died before its commit, and who claimed it in this run."""

    add: Add
    headers: Mapping[str, str]
    claimed: dict[str, Episode] = field(default_factory=dict)


class Run:
    """The open and the finished segments of one write, or of one job of a large one.

    Parameters
    ----------
    session
        Whose work the segments are until they are committed; see `session`.
    job
        Which part of that session's work this is.
    """

    def __init__(
        self, staging: Path, session: str, options: WriteOptions, progress: Progress, *, job: int = 0
    ) -> None:
        self.staging, self.session, self.options, self.progress = staging, session, options, progress
        self.job = job
        self.pool = ThreadPoolExecutor(options.workers or os.cpu_count() or 1, "encode")
        self.open: dict[str, SegmentWriter] = {}
        self.members: dict[str, list[Episode]] = {}
        self.most = options.segment_episodes
        self.adds: list[Add] = []
        self.known: dict[str, Encoding] = {}
        self.done: set[str] = set()
        self.resumed: set[str] = set()
        self._headers: dict[str, str] = {}
        self._orphans: dict[str, _Orphan] = {}

    def take_up(self, storage: Storage, state: State, *, again: bool = False) -> None:
        """Look for segments that a dead process had finished and not committed.

        Parameters
        ----------
        again
            This job was begun before, by a worker of this session that was lost: also take up its segments.
        """
        mine = (self.session, self.job) if again else None
        for path in sorted(self.staging.glob("*.staged.json")):
            orphan = staged(storage, self.staging, path, self.options, mine)
            if orphan and not any(e in state.episodes or e in state.withdrawn for e in orphan.add.episodes):
                self._orphans.update(dict.fromkeys(orphan.add.episodes, orphan))

    def meet(self, episode: Episode, state: State) -> str:
        """Write an episode unless that is not needed; tell which: added, skipped, withdrawn."""
        if episode.id in state.episodes or episode.id in self.done:
            return "skipped"
        if episode.id in state.withdrawn:
            return "withdrawn"
        if not self.claim(episode):
            self.add(check(episode))
        return "added"

    def claim(self, episode: Episode) -> bool:
        """Tell whether an orphan holds just this episode, header for header, and note that it is wanted."""
        orphan = self._orphans.get(episode.id)
        if orphan is None or orphan.headers.get(episode.id) != header_digest(episode):
            return False
        orphan.claimed[episode.id] = episode
        self.done.add(episode.id)
        return True

    def _settle_orphans(self) -> None:
        """Take the orphans of which every episode was met; write the episodes met of the others."""
        for orphan in {id(o): o for o in self._orphans.values()}.values():
            if orphan.claimed.keys() == orphan.add.episodes.keys():
                self.adds.append(orphan.add)
                self.resumed.update(orphan.claimed)
            else:
                for episode in orphan.claimed.values():
                    self.add(episode)

    def add(self, episode: Episode) -> None:
        """Write an episode into the segment of its kind.

        Raises
        ------
        TeleopenError
            If the source is bad or storage fails. What was written of its segment is lost: abort, or
            `restore` the episodes that shared it.
        """
        document = to_document(episode)
        key = signature(episode, document, self.options)
        if key not in self.open:
            if len(self.open) >= _OPEN_SEGMENTS:
                self._finish(next(iter(self.open)))
            self.open[key] = self._begin(episode)
            self.members[key] = []
        segment = self.open[key]
        header = canonical(document)
        segment.add(episode, header.decode(), self.progress)
        self.members[key].append(episode)
        self.done.add(episode.id)
        self._headers[episode.id] = hashlib.sha256(header).hexdigest()
        if len(segment.headers) >= self.most or segment.written_bytes >= self.options.segment_bytes:
            self._finish(key)

    def restore(self, episode: Episode) -> None:
        """Write anew the episodes that shared a segment with one that failed halfway, without it.

        Segments get smaller with each failure, so that what is written twice stays little.
        """
        key = signature(episode, to_document(episode), self.options)
        self.most = max(1, self.most // 2)
        segment = self.open.pop(key, None)
        if segment is not None:
            segment.abort()
        for member in self.members.pop(key, []):
            self.add(member)

    def _begin(self, episode: Episode) -> SegmentWriter:
        folder = self.staging / uuid.uuid4().hex
        try:
            return SegmentWriter(folder, episode, self.options, self.pool, self.known)
        except BaseException:
            disk.remove_tree(folder)
            raise

    def _finish(self, key: str) -> None:
        segment = self.open[key]
        add = segment.finish()
        del self.open[key], self.members[key]
        note = {
            "add": operation_document(add),
            "headers": {e: self._headers[e] for e in add.episodes},
            "options": options_digest(self.options),
            "session": self.session,
            "job": self.job,
        }
        disk.write(self.staging / f"{add.segment}.staged.json", [canonical(note)])
        disk.sync_folder(self.staging)
        self.adds.append(add)

    def finish(self) -> list[Add]:
        self._settle_orphans()
        for key in list(self.open):
            self._finish(key)
        return self.adds

    def abort(self) -> None:
        """Remove the segments that are not finished; finished ones stay for the next run to take up."""
        for segment in self.open.values():
            try:
                segment.abort()
            except StoreError:
                # What stopped the write may stop the cleaning too; `gc` collects what stays.
                continue
        self.open, self.members = {}, {}

    def close(self) -> None:
        self.pool.shutdown(cancel_futures=True)

    def forget(self) -> None:
        """Remove the notes on segments that are committed now."""
        for add in self.adds:
            disk.unlink(self.staging / f"{add.segment}.staged.json")


def options_digest(options: WriteOptions) -> str:
    """Return the digest of the options that change what is written."""
    told = [options.profile, options.quality_db, options.transcode]
    return hashlib.sha256(canonical(told)).hexdigest()


def header_digest(episode: Episode) -> str:
    """Return the digest of an episode's header as its source gives it."""
    return hashlib.sha256(canonical(to_document(episode))).hexdigest()


def staged(
    storage: Storage, staging: Path, note: Path, options: WriteOptions, mine: tuple[str, int] | None = None
) -> _Orphan | None:
    """Return the finished segment that a note tells of, if it is whole, written alike and nobody's now.

    Parameters
    ----------
    mine
        The session and job whose segments are nobody's although the session lives.
    """
    try:
        document: Mapping[str, Any] = strict_json(note.read_bytes())
        add = parse_operation(document["add"], note.name)
        headers, owner = dict(document["headers"]), (document["session"], document["job"])
        same = document["options"] == options_digest(options)
    except (OSError, ValueError, KeyError, TypeError, TeleopenError):
        return None  # a note that was cut off by the crash: `gc` collects it
    if not same or not isinstance(add, Add) or (owner != mine and is_alive(staging, owner[0])):
        return None
    # The crash may have come before or after the segment was moved into place.
    for folder in (staging / add.segment, storage.local(f"segments/{add.segment}")):
        if folder is not None and folder.is_dir() and hashed(folder) == dict(add.files):
            return _Orphan(add, headers)
    return None
