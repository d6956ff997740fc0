"""Planning a publish of a large store: what is public already must cost next to nothing."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

from teleopen.hub import WriteOptions, create_store, open_store
from teleopen.hub.catalog import Add, Operation
from teleopen.hub.segment import SegmentFolder
from teleopen.hub.storage import LocalStorage
from teleopen.hub.store import OpenSegment, Store
from teleopen.hub.sync.plan import Plan
from teleopen.hub.sync.planning import Settings, plan
from teleopen.hub.sync.public_log import read_public
from teleopen.hub.sync.tree import EMPTY, PublicState, materialise
from teleopen.schemas import Rights, episode_id, strict_json

from tests.measure import peak_memory

from .corpus import Bench
from .report import Aim, Row, Table

_PER_SEGMENT = WriteOptions().segment_episodes
_TASKS = 100
_SECONDS, _MEGABYTES = 10.0, 500.0
_TARGET = "hf://datasets/benchmarks/plan"
_START = datetime(2026, 1, 1, tzinfo=UTC)
_OPEN = Rights.from_document(
    {
        "rights_version": "1.0",
        "licence": {"expression": "CC-BY-4.0", "state": "stated-by-holder"},
        "tier": "open",
        "holder": [{"name": "Lab", "kind": "org"}],
        "attribution": [{"title": "Kitchen", "creators": ["A. Author"]}],
        "acquisition": {"channel": "own-recording", "basis": "holder"},
        "people": {"present": "none", "consent": "not-needed", "minors": "none"},
        "jurisdiction": {"collected_in": ["CN"]},
        "pii": {"status": "none"},
        "signoff": [{"by": "A. Author", "at": "2025-05-01T09:00:00Z"}],
    }
)


class _Copies(SegmentFolder):
    """A segment of many copies of one episode, which differ as episodes do. Its shards are one slot long.

    Each has an id, a length, a task and a source file of its own, as where a file is recorded per episode.
    """

    def __init__(self, folder: Path, model: OpenSegment, first: int) -> None:
        super().__init__(folder)
        self._documents = {
            path: document
            for path, document in model.documents.items()
            if path.partition("/")[2] not in {"start", "length"}
        }
        self.embodiment, self.clocks = model.header["embodiment"], dict(model.slots)
        header, content = strict_json(model.table["header"][0]), model.table["content"][0]
        for number in range(first, first + _PER_SEGMENT):
            told = _another(header, number)
            self.tell(told)
            self.contents[told["id"]] = f"{number:x}".zfill(8) + content[8:]
            for clock in self.clocks:
                self.span(clock, told["clocks"][clock]["length"])

    def arrays(self) -> dict[str, Any]:
        for path in self._documents:
            shard = self.folder / path / "c" / "0"
            shard.parent.mkdir(parents=True)
            shard.write_bytes(path.encode())
        return self._documents

    def abort(self) -> None:
        raise NotImplementedError


def _another(header: dict[str, Any], number: int) -> dict[str, Any]:
    """Return the header of another recording of the same robot."""
    id, length = episode_id([], f"plan {number}"), {"length": 50 + number * 7919 % 451}
    (source,) = header["provenance"]["sources"]
    source = {
        **source,
        "uri": f"episode_{number:06d}.hdf5",
        "size": 10_000_000 + number,
        "sha256": sha256(id.encode()).hexdigest(),
    }
    return {
        **header,
        "id": id,
        "instructions": [f"Put object {number % _TASKS} on the mat"],
        "clocks": {name: clock | length for name, clock in header["clocks"].items()},
        "streams": {name: stream | length for name, stream in header["streams"].items()},
        "provenance": {**header["provenance"], "sources": [source]},
    }


def table(bench: Bench) -> Table:
    """Measure plans of a store of 100,000 episodes."""
    episodes = 10_000 if bench.quick else 100_000
    folder = bench.new_folder()
    _make(bench, folder / "store", episodes)
    public = folder / "public"
    found = Table(
        f"plan: CPU time and memory of planning {episodes:,} episodes",
        notes=[
            f"{_PER_SEGMENT:,} episodes a segment, as the writer lays them; shards are stubs. Headers are",
            "those of the recording without its cameras; each has an id, a length, a source and one of",
            f"{_TASKS} tasks of its own.",
            "CPU is of planning alone; memory is of opening the store and reading the target's log too.",
            f"Ratios: to {_SECONDS:g} s of CPU, and to {_MEGABYTES:g} MB above the process when it begins.",
        ],
    )
    first = _row(found, "first plan: every header is read and scrubbed", folder, cold=True)
    _row(found, "the same again: facts and documents are kept", folder)
    materialise(first.files(), public)
    assert not _row(found, "nothing has changed", folder).changed
    store = open_store(folder / "store")
    gone, opened = store.ids[: 2 * _PER_SEGMENT], store.ids[-_PER_SEGMENT:]
    store.withdraw(gone, "consent")
    store.set_rights(_OPEN, opened)
    told = _row(found, "2 segments withdrawn, one opened", folder)
    assert (len(told.changes.withdrawn), len(told.changes.added)) == (len(gone), len(opened))
    return found


def _row(found: Table, what: str, folder: Path, *, cold: bool = False) -> Plan:
    """Plan twice: here for the time, and in a process of its own for the memory; each keeps its own cache."""
    caches = [folder / "cache", folder / "cache of the other"]
    if cold:
        assert not any(cache.exists() for cache in caches)
    store, previous = open_store(folder / "store"), _previous(folder)
    start = time.process_time()
    told = plan(store, _TARGET, previous, _settings(previous, caches[0]))
    seconds = time.process_time() - start
    memory = peak_memory(_plan, folder, caches[1]) / 1e6
    limits = ((seconds, _SECONDS, "s"), (memory, _MEGABYTES, "MB"))
    for figure, most, unit in limits:
        row = Row(
            what=what,
            figure=f"{figure:.1f} {unit}",
            peer="the aim",
            peer_figure=f"{most:g} {unit}",
            ratio=figure / most,
            aim=Aim("<=", 1.0),
        )
        found.rows.append(row)
    return told


def _plan(folder: Path, cache: Path) -> Plan:
    previous = _previous(folder)
    return plan(open_store(folder / "store"), _TARGET, previous, _settings(previous, cache))


def _previous(folder: Path) -> PublicState:
    public = folder / "public"
    return _unread(read_public(LocalStorage(public), "1")) if public.is_dir() else EMPTY


def _unread(previous: PublicState) -> PublicState:
    """Return what a target tells without its files at hand: nothing of them is to be read."""
    return replace(previous, storage=None)


def _settings(previous: PublicState, cache: Path) -> Settings:
    version = previous.state.version if previous.state else 0
    return Settings(now=_START + timedelta(days=version), cache=cache)


def _make(bench: Bench, folder: Path, episodes: int) -> Store:
    """Write a store of copies of the recording's episode, without its cameras."""
    names = {name: one for name, one in bench.episode.streams.items() if one.spec.kind == "low_dim"}
    ledger = tuple(fate for fate in bench.episode.provenance.ledger if set(fate.to) & names.keys())
    provenance = replace(bench.episode.provenance, ledger=ledger)
    small = create_store(bench.new_folder(), author="benchmarks")
    small.write([replace(bench.episode, streams=names, provenance=provenance)], WriteOptions())
    model = small._segment(next(iter(small.state.segments)))  # noqa: SLF001 - its documents are copied
    store = create_store(folder, author="benchmarks")
    adds = list(_segments(store, model, episodes))

    def build(_: object) -> list[Operation]:
        return [*adds]

    store.catalog.commit(build, author="benchmarks")
    store.refresh().set_rights(_OPEN, store.ids[:-_PER_SEGMENT])
    return store


def _segments(store: Store, model: OpenSegment, episodes: int) -> Iterator[Add]:
    for first in range(0, episodes, _PER_SEGMENT):
        made = _Copies(store.storage.staging() / uuid.uuid4().hex, model, first)
        add = made.finish()
        store.storage.put_folder(made.folder, f"segments/{add.segment}")
        yield add
