"""A store: a dataset of episodes at rest, on a disk or behind a URL.

What is in it is what its commit log says; see docs/format.md.
"""

from __future__ import annotations

import getpass
import io
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..schemas import (
    OPEN_V1,
    Array,
    Clock,
    DamageError,
    Episode,
    Json,
    NotFoundError,
    Packet,
    Packets,
    Policy,
    Problem,
    Reason,
    Rights,
    SchemaError,
    StoreError,
    Stream,
    Times,
    from_document,
    packet_blocks,
    reasons,
    strict_json,
    tighten,
)
from .arrays import ArrayReader
from .catalog import Add, Catalog, Operation, SetRights, State, Withdraw
from .ingest import WriteReport, write
from .layout import parse_array
from .options import WriteOptions
from .sinks import Progress
from .storage import Storage, open_storage

if TYPE_CHECKING:
    from .compact import CompactReport, GcReport
    from .verify import VerifyReport

GROUNDS = ("consent", "licence", "court", "error", "safety")
"""Why an episode may be withdrawn: the words of a rights record's ``withdrawal.ground``."""

_BLOCK_BYTES = 16 << 20
_OPEN_SEGMENTS = 64


def _silent(_stream: str, _samples: int) -> None:
    pass


@dataclass(frozen=True, slots=True)
class OpenSegment:
    """An opened segment: its arrays and their documents by path, and its table of episodes."""

    header: Mapping[str, Json]
    documents: Mapping[str, Mapping[str, Any]]
    arrays: Mapping[str, ArrayReader]
    slots: Mapping[str, int]
    table: Mapping[str, Sequence[Any]]

    def stream(self, name: str, row: int) -> tuple[ArrayReader, int, int]:
        """Return the reader of a stream's array, and the slots ``[start, stop)`` of an episode in it.

        Raises
        ------
        NotFoundError
            If there is no such stream.
        """
        for path, array in self.arrays.items():
            clock, _, found = path.partition("/")
            if found == name:
                start = int(self.table[f"{clock}.start"][row])
                return array, start, start + int(self.table[f"{clock}.length"][row])
        names = ", ".join(path.partition("/")[2] for path in self.arrays)
        raise NotFoundError(f"there is no stream {name!r}; there are {names}")


@dataclass(slots=True)
class Store:
    """A store that was opened. Make one with `open_store` or `create_store`.

    Reading is safe from many threads. `refresh` shows what others committed since.
    """

    storage: Storage
    catalog: Catalog
    state: State
    _segments: OrderedDict[str, OpenSegment] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        """Where the store is."""
        return self.storage.url

    def refresh(self) -> Store:
        """Read what was committed since, and return the store."""
        self.state = self.catalog.load()
        return self

    # ------------------------------------------------------------ writing

    def write(
        self,
        episodes: Iterable[Episode],
        options: WriteOptions | None = None,
        *,
        author: str = "",
        progress: Progress = _silent,
    ) -> WriteReport:
        """Add episodes, all of them or none: one commit at the end.

        Episodes that the store has are skipped, so writing twice adds nothing. If the process is
        killed, the next write of the same episodes goes on from the last finished segment. Memory is
        bounded by a few GOPs of frames, whatever the length of a recording.

        Raises
        ------
        TeleopenError
            If a source is bad or storage fails; the store is then as it was.
        """
        try:
            report = write(
                self.storage,
                self.catalog,
                episodes,
                options or WriteOptions(),
                author=author or whoami(),
                progress=progress,
            )
        except OSError as error:
            if isinstance(error, StoreError):
                raise
            raise StoreError(self.url, f"writing failed: {error}") from error
        self.refresh()
        return report

    def set_rights(
        self, rights: Rights, keys: Iterable[str] | None = None, *, author: str = ""
    ) -> tuple[str, ...]:
        """Put a rights record on episodes (None: on all) and return the ids of those whose record changed.

        No data moves: this is an entry in the commit log.
        """
        document = rights.to_document()
        wanted = list(self.state.episodes) if keys is None else [self.find(key) for key in keys]
        changed: list[str] = []

        def build(state: State) -> list[Operation]:
            changed[:] = [e for e in wanted if e in state.episodes and state.rights[e] != document]
            return [SetRights(episodes=tuple(changed), rights=document)] if changed else []

        self.state = self.catalog.commit(build, author=author or whoami())
        return tuple(changed)

    def withdraw(
        self, keys: Iterable[str], ground: str, note: str = "", *, author: str = ""
    ) -> tuple[str, ...]:
        """Take episodes back, and return the ids of those that went. They may not come back.

        They are gone for every reader at once; their bytes go with the next `compact` and `gc`, and from
        public places with the next publish.

        Parameters
        ----------
        ground
            Why, in a word that becomes public: one of `GROUNDS`.
        note
            What else there is to say. It stays in this store.

        Raises
        ------
        NotFoundError
            If an episode is not there; nothing was withdrawn.
        SchemaError
            If the ground is none of `GROUNDS`.
        """
        if ground not in GROUNDS:
            raise SchemaError([Problem("ground", f"is {ground!r}; must be one of {', '.join(GROUNDS)}")])
        wanted = tuple(dict.fromkeys(self.find(key) for key in keys))
        gone: list[str] = []

        def build(state: State) -> list[Operation]:
            gone[:] = [episode for episode in wanted if episode in state.episodes]
            return [Withdraw(episodes=tuple(gone), ground=ground, note=note)] if gone else []

        self.state = self.catalog.commit(build, author=author or whoami())
        return tuple(gone)

    # ------------------------------------------------------------ reading

    @property
    def ids(self) -> tuple[str, ...]:
        """Ids of the live episodes, in the order in which they were added."""
        return tuple(self.state.episodes)

    def __len__(self) -> int:
        """Return the number of live episodes."""
        return len(self.state.episodes)

    def __iter__(self) -> Iterator[Episode]:
        """Yield the live episodes, headers only."""
        for episode in self.ids:
            yield self.episode(episode)

    def find(self, key: str) -> str:
        """Return the id that ``key`` means: an id, a unique prefix of one, or a number counted from 0.

        Raises
        ------
        NotFoundError
            If there is none, or more than one.
        """
        if key in self.state.episodes:
            return key
        if key.isdecimal() and int(key) < len(self):
            return self.ids[int(key)]
        found = [e for e in self.ids if key and e.startswith(key)]
        if len(found) == 1:
            return found[0]
        if key in self.state.withdrawn:
            raise NotFoundError(f"{self.url}: episode {key} was withdrawn")
        why = f"{len(found)} episodes begin with {key!r}" if found else f"has no episode {key!r}"
        raise NotFoundError(f"{self.url}: {why}; it holds {len(self)} (numbers 0 to {len(self) - 1})")

    def rights(self, key: str) -> Rights:
        """Return the rights record that holds for an episode now.

        It is the one in the commit log. Where that does not say what the recording was made from, the
        hashes of the source files on record are, since those are facts.
        """
        return _pinned(self._header(self.find(key))[2])

    def encodings(self, key: str) -> dict[str, list[Mapping[str, Json]]]:
        """Return how each camera of an episode's segment was encoded, by stream."""
        segment = self._segment(self.state.episodes[self.find(key)].segment)
        told = {
            path.partition("/")[2]: document["attributes"] for path, document in segment.documents.items()
        }
        return {
            name: attributes["teleopen"]["encodings"]
            for name, attributes in told.items()
            if "encodings" in attributes.get("teleopen", {})
        }

    def why(self, key: str, *, now: datetime | None = None, policy: Policy = OPEN_V1) -> tuple[Reason, ...]:
        """Return what keeps an episode closed; empty if it is open."""
        return reasons(self.rights(key), now=now or datetime.now(UTC), policy=policy)

    def episode(self, key: str) -> Episode:
        """Return an episode, its streams lazy.

        Raises
        ------
        NotFoundError
            If there is no such episode.
        DamageError
            If its segment's documents are not what was committed.
        """
        segment, row, header = self._header(self.find(key))
        start = {c: int(segment.table[f"{c}.start"][row]) for c in header.clocks}
        clocks = {
            name: replace(clock, read=partial(self._times, segment, clock, start[name]))
            for name, clock in header.clocks.items()
        }
        streams = {
            name: self._stream(segment, stream, start[stream.spec.clock])
            for name, stream in header.streams.items()
        }
        return replace(header, clocks=clocks, streams=streams, rights=_pinned(header))

    def header(self, key: str) -> Mapping[str, Json]:
        """Return an episode's header as it is stored, for looking through many: its fields are not checked.

        Its rights are those that it came with; what holds now is in the log.

        Raises
        ------
        NotFoundError
            If there is no such episode.
        DamageError
            If it cannot be read.
        """
        episode = self.find(key)
        where = self.state.episodes[episode]
        try:
            found = strict_json(self._segment(where.segment).table["header"][where.row])
        except (ValueError, IndexError) as error:
            raise self._unreadable(episode, error) from error
        if not isinstance(found, dict):
            raise self._unreadable(episode, "it is no object")
        return found

    def _header(self, episode: str) -> tuple[OpenSegment, int, Episode]:
        """Return an episode's segment, its row in it, and its header with the rights of the log."""
        where = self.state.episodes[episode]
        try:
            header = from_document(Episode, self.header(episode))
            rights = Rights.from_document(self.state.rights[episode])
        except SchemaError as error:
            raise self._unreadable(episode, error) from error
        return self._segment(where.segment), where.row, replace(header, rights=rights)

    def _unreadable(self, episode: str, why: object) -> DamageError:
        where = self.state.episodes[episode]
        place = f"{self.url}/segments/{where.segment}/episodes.parquet [row {where.row}]"
        return DamageError(place, f"episode header cannot be read: {why}")

    def _times(self, segment: OpenSegment, clock: Clock, start: int) -> Times:
        times: Times = segment.arrays[f"{clock.name}/timestamp"].rows(start, start + clock.length)
        return times

    def _stream(self, segment: OpenSegment, stream: Stream, start: int) -> Stream:
        array = segment.arrays[f"{stream.spec.clock}/{stream.spec.name}"]

        def read(first: int, last: int) -> Iterator[Array]:
            return array.blocks(start + first, start + min(last, stream.length), _BLOCK_BYTES)

        packets = None
        if array.layout.video is not None:
            packets = Packets(
                format=array.layout.video,
                blocks=lambda: packet_blocks(_packets(array, start, stream.length)),
            )
        return replace(stream, read=read, packets=packets)

    def array(self, key: str, stream: str) -> tuple[ArrayReader, int, int]:
        """Return the reader of a stream's array, and the slots ``[start, stop)`` of the episode in it."""
        where = self.state.episodes[self.find(key)]
        try:
            return self._segment(where.segment).stream(stream, where.row)
        except NotFoundError as error:
            raise NotFoundError(f"{self.url}: episode {key}: {error}") from error

    # ------------------------------------------------------------ housekeeping

    def verify(self, *, decode: bool = False, progress: Progress | None = None) -> VerifyReport:
        """Check every hash, every index and every count; with ``decode`` also every camera frame."""
        from .verify import verify

        return verify(self.storage, decode=decode, progress=progress)

    def compact(self, *, author: str = "") -> CompactReport:
        """Merge small segments by copying bytes, and leave withdrawn episodes out of the new ones."""
        from .compact import compact

        return compact(self, author=author)

    def gc(self, *, grace_s: float | None = None, dry_run: bool = False) -> GcReport:
        """Remove what no entry of the commit log claims, once it is ``grace_s`` old (default: a day)."""
        from .compact import GRACE_S, gc

        return gc(self, grace_s=GRACE_S if grace_s is None else grace_s, dry_run=dry_run)

    def segment_header(self, segment: str) -> Mapping[str, Json]:
        """Return the header of a segment: embodiment, count of episodes, and the tool that wrote it."""
        return self._segment(segment).header

    def _segment(self, segment: str) -> OpenSegment:
        with self._lock:
            if segment in self._segments:
                self._segments.move_to_end(segment)
                return self._segments[segment]
        opened = open_segment(self.storage, self.state.segments[segment])
        with self._lock:
            self._segments[segment] = opened
            while len(self._segments) > _OPEN_SEGMENTS:
                self._segments.popitem(last=False)
        return opened


def _pinned(header: Episode) -> Rights:
    if header.rights.source:
        return header.rights
    files = [
        {"uri": file.uri, "sha256": file.sha256, "bytes": file.size, "role": file.role}
        for file in header.provenance.sources
    ]
    return tighten(header.rights, {"source": files})


def open_segment(storage: Storage, add: Add) -> OpenSegment:
    """Open a segment: two reads, each checked against the commit log.

    Raises
    ------
    DamageError
        If a document is missing or is not what was committed.
    """
    root = f"segments/{add.segment}"
    document = _json(checked_read(storage, add, "zarr.json"), f"{root}/zarr.json")
    try:
        header = document["attributes"]["teleopen"]
        members = document["consolidated_metadata"]["metadata"]
    except (KeyError, TypeError) as error:
        raise DamageError(f"{root}/zarr.json", "is not the document of a segment") from error
    sizes = {f"{root}/{path}": file.size for path, file in add.files.items()}
    arrays, slots = {}, {}
    for path, member in members.items():
        if member.get("node_type") == "group":
            slots[path] = int(member["attributes"]["teleopen"]["slots"])
            continue
        layout, length, per_shard = parse_array(member, f"{root}/{path}/zarr.json")
        arrays[path] = ArrayReader(storage, f"{root}/{path}", layout, length, per_shard, sizes)
    documents = {path: members[path] for path in arrays}
    return OpenSegment(
        header, documents, arrays, slots, _table(checked_read(storage, add, "episodes.parquet"), root)
    )


def checked_read(storage: Storage, add: Add, path: str) -> bytes:
    """Return a file of a segment, or raise `DamageError` if it is not what was committed."""
    key = f"segments/{add.segment}/{path}"
    try:
        raw = storage.read(key) if path in add.files else b""
    except NotFoundError as error:
        raise DamageError(key, "is missing") from error
    return _proved(add, path, raw)


def checked(storage: Storage, adds: Sequence[Add], path: str) -> list[bytes]:
    """Return a file of each of some segments, read at once; `DamageError` if one is not as committed."""
    if len(adds) < 2 or storage.local("segments") is not None:
        return [checked_read(storage, add, path) for add in adds]
    sizes = [add.files[path].size if path in add.files else 0 for add in adds]
    ranges = [(f"segments/{add.segment}/{path}", 0, size) for add, size in zip(adds, sizes, strict=True)]
    try:
        raws = storage.read_many(ranges)
    except NotFoundError as error:
        raise DamageError(storage.url, f"a file of a segment is missing: {error}") from error
    return [_proved(add, path, raw) for add, raw in zip(adds, raws, strict=True)]


def _proved(add: Add, path: str, raw: bytes) -> bytes:
    key, told = f"segments/{add.segment}/{path}", add.files.get(path)
    if told is None:
        raise DamageError(key, "the commit log knows no such file")
    if len(raw) != told.size or sha256(raw).hexdigest() != told.sha256:
        raise DamageError(key, "is not what was committed: its checksum differs")
    return raw


def _json(raw: bytes, key: str) -> Any:
    try:
        return strict_json(raw)
    except ValueError as error:
        raise DamageError(key, f"is not JSON: {error}") from error


def _table(raw: bytes, root: str) -> Mapping[str, Sequence[Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(io.BytesIO(raw)).read()
        return {name: table[name].to_pylist() for name in table.column_names}
    except (pa.ArrowException, OSError) as error:
        raise DamageError(f"{root}/episodes.parquet", f"cannot be read: {error}") from error


def _packets(array: ArrayReader, start: int, length: int) -> Iterator[Packet]:
    """Yield an episode's packets in decode order, each once, with ``pts`` from the episode's start.

    Among them are those from before and after the episode that its pictures are decoded from.
    """
    from .gop import unpack

    size = array.layout.chunk
    seen: set[int] = set()
    for first in range(0, length, size):
        chunk = (start + first) // size
        for packet in unpack(array.chunk(chunk), size).packets:
            pts = first + packet.pts
            # A GOP repeats what it needs from its neighbours; the first time is in decode order.
            if pts in seen:
                continue
            seen.add(pts)
            yield Packet(bytes(packet.data), pts, packet.key)
        seen = {pts for pts in seen if pts > first - size * 16}


def whoami() -> str:
    """Return the name that goes into the commit log when no author is told: the user's login name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def open_store(url: str | Path) -> Store:
    """Open a store that exists.

    Raises
    ------
    StoreError
        If there is none, or it is of a newer format.
    """
    storage = open_storage(url)
    catalog = Catalog(storage)
    return Store(storage, catalog, catalog.load())


def create_store(url: str | Path, *, author: str = "") -> Store:
    """Open a store, and make it first if there is none."""
    storage = open_storage(url, create=True)
    catalog = Catalog(storage)
    return Store(storage, catalog, catalog.create(author=author or whoami()))
