"""Bags of ROS 2: a folder with ``metadata.yaml`` and message files, which are SQLite or MCAP.

Field notes (github.com/ros2/rosbag2: rosbag2_storage/yaml.hpp, rosbag2_storage_sqlite3/sqlite_storage.cpp,
rosbag2_compression). A bag is split into files that follow one another in time. A database has the tables
``topics`` and ``messages``; ``message_definitions``, ``metadata`` and ``schema`` came later and may be empty.
The number of a topic differs from file to file. With ``compression_mode: FILE`` each file was compressed by
Zstandard once it was complete, with ``MESSAGE`` each message was. Old bags name their files with the folder
in front. ``metadata.yaml`` announces how many messages each topic has: they are counted and compared.

A database is somebody's program: views, triggers and virtual tables run code when they are asked. So tables
must be plain, nothing is attached, and no function runs that the schema names. It is opened as immutable, so
that no journal is played back or made; a database with messages left in its journal is refused.
"""

from __future__ import annotations

import atexit
import dataclasses
import shutil
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import numpy as np

from ..schemas import FormatError, Json
from ._aside import Aside
from ._chunks import MAX_CHUNK, Budget, Channel, Container, Facts, Unit, inflated, zstd_size
from ._mcap_file import McapFile
from .base import Format, contained, need, version_of

METADATA = "metadata.yaml"
ROOT = "rosbag2_bagfile_information"
SQLITE_MAGIC = b"SQLite format 3\0"

_MAX_YAML = 1 << 22
_MAX_DEPTH = 24
_MAX_NODES = 200_000
_MAX_FILES = 100_000
_MAX_TIME = 1 << 62
_RUN_BYTES = 4 << 20
_LARGE = 1 << 16
_RUN_ROWS = 4_096
_MAX_TOPICS = 100_000
_PRAGMAS = ("trusted_schema = OFF", "cell_size_check = ON", "query_only = ON", "mmap_size = 0")
_LIMITS = {
    sqlite3.SQLITE_LIMIT_LENGTH: MAX_CHUNK,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 1 << 20,
    sqlite3.SQLITE_LIMIT_COLUMN: 64,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 20,
    sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 2,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH: 0,
    sqlite3.SQLITE_LIMIT_WORKER_THREADS: 0,
}


class Db3File:
    """One database of messages."""

    def __init__(self, path: Path, name: Path | None = None) -> None:
        self._path = path
        self._name = name or path
        """What it is called in errors, if it is the decompressed copy of another."""

    @property
    def files(self) -> tuple[Path, ...]:
        """The file."""
        return (self._name,)

    def units(self, channels: dict[int, Channel], facts: Facts) -> Iterator[Unit]:
        """Yield the messages in the order in which they were written, in runs of about 1 MiB."""
        try:
            with closing(self._open()) as database:
                self._judge(database)
                self._topics(database, channels, facts)
                yield from self._runs(database, channels)
        except (sqlite3.Error, OverflowError, UnicodeDecodeError) as error:
            raise FormatError(str(self._name), "messages", f"is no sound database: {error}") from error

    def payloads(self, places: Iterable[tuple[int, int, int]]) -> Iterator[bytes]:
        """Yield the messages with these row numbers, the second of each place."""
        try:
            with closing(self._open()) as database:
                asked = "SELECT data FROM messages WHERE rowid = ?"
                for _, row, _ in places:
                    yield bytes(database.execute(asked, (row,)).fetchone()[0])
        except (sqlite3.Error, TypeError) as error:
            raise FormatError(str(self._name), "messages", f"cannot be read: {error}") from error

    def close(self) -> None:
        """Do nothing: nothing is laid aside."""

    def _open(self) -> sqlite3.Connection:
        journal = self._path.with_name(f"{self._path.name}-wal")
        if journal.is_file() and journal.stat().st_size:
            raise FormatError(
                str(self._name),
                journal.name,
                "messages are still in the journal beside the database",
                "Open and close it once with `sqlite3`, or with `ros2 bag reindex`",
            )
        uri = f"file:{quote(str(self._path.resolve()))}?mode=ro&immutable=1"
        database = sqlite3.connect(uri, uri=True, check_same_thread=False)
        try:
            for limit, most in _LIMITS.items():
                database.setlimit(limit, most)
            for pragma in _PRAGMAS:
                database.execute(f"PRAGMA {pragma}")
        except sqlite3.Error:
            database.close()
            raise
        return database

    def _judge(self, database: sqlite3.Connection) -> None:
        kinds: dict[str, tuple[str, str]] = {}
        for kind, name, sql in database.execute("SELECT type, name, sql FROM sqlite_master LIMIT 1000"):
            if kind in {"table", "view"}:
                kinds[str(name).lower()] = (kind, str(sql))
            elif kind == "trigger":
                raise FormatError(str(self._name), f"trigger {name}", "a bag has no triggers")
        for name in ("topics", "messages", "message_definitions", "schema"):
            kind, sql = kinds.get(name, ("", ""))
            if name in {"topics", "messages"} and not kind:
                raise FormatError(str(self._name), name, "is no bag of ROS 2: it has no such table")
            # Hidden columns (the pragma's seventh) are those of virtual tables, or computed when asked for.
            hidden = (
                any(column[6] for column in database.execute(f"PRAGMA table_xinfo({name})"))
                if kind
                else False
            )
            if kind == "view" or "virtual" in sql[:40].lower() or hidden:
                raise FormatError(str(self._name), name, "is no plain table")
        self._tables = frozenset(kinds)

    def _topics(self, database: sqlite3.Connection, channels: dict[int, Channel], facts: Facts) -> None:
        texts: dict[str, tuple[str, bytes]] = {}
        if "message_definitions" in self._tables:
            asked = "SELECT topic_type, encoding, encoded_message_definition FROM message_definitions LIMIT ?"
            for kind, language, text in database.execute(asked, (_MAX_TOPICS,)):
                texts[str(kind)] = (str(language), str(text).encode())
        if "schema" in self._tables:
            for (name,) in database.execute("SELECT ros_distro FROM schema LIMIT 1"):
                facts.header["ros_distro"] = str(name)
        asked = "SELECT id, name, type, serialization_format, offered_qos_profiles FROM topics LIMIT ?"
        for number, name, kind, encoding, qos in database.execute(asked, (_MAX_TOPICS,)):
            language, text = texts.get(str(kind), ("", b""))
            about = {"offered_qos_profiles": str(qos)}
            channels[int(number)] = Channel(str(name), str(kind), str(encoding), language, text, about)

    def _runs(self, database: sqlite3.Connection, channels: Mapping[int, Channel]) -> Iterator[Unit]:
        rows: list[tuple[int, int, int, int]] = []
        payloads: list[bytes] = []
        held = number = 0
        asked = "SELECT rowid, topic_id, timestamp, data FROM messages ORDER BY rowid"
        for row, topic, time, data in database.execute(asked):
            if not isinstance(data, bytes) or topic not in channels or not isinstance(time, int):
                raise FormatError(
                    str(self._name), f"messages: row {row}", "is no message of a topic that is listed"
                )
            if abs(time) >= _MAX_TIME:
                raise FormatError(str(self._name), f"messages: row {row}", "has a time that is none")
            # A large message is a run of its own, which spares a copy of it.
            large = len(data) >= _LARGE
            if rows and (large or held >= _RUN_BYTES or len(rows) >= _RUN_ROWS):
                yield _run(number, rows, payloads)
                rows, payloads, held = [], [], 0
                number += 1
            rows.append((topic, row, len(data), time))
            payloads.append(data)
            held += _RUN_BYTES if large else len(data)
        if rows:
            yield _run(number, rows, payloads)


def _run(number: int, rows: list[tuple[int, int, int, int]], payloads: list[bytes]) -> Unit:
    channel, place, size, log = np.ascontiguousarray(np.array(rows, np.int64).T)
    start = np.cumsum(size) - size
    return Unit(number, b"".join(payloads), channel, place, start, size, log, log)


class Bag2Files:
    """A bag of ROS 2 with all of its files."""

    def __init__(self, path: Path, of: Format) -> None:
        self._path, self._of = path, of
        self._bases: list[int] = []
        if path.is_dir():
            self._root, told = path, _metadata(version_of(path / METADATA), of)
        else:
            self._root, told = path.parent, {"relative_file_paths": [path.name]}
        self._told = told
        mode, form = (
            str(told.get(name) or "").lower() for name in ("compression_mode", "compression_format")
        )
        if mode not in {"", "none", "file", "message"} or (mode in {"file", "message"} and form != "zstd"):
            raise FormatError(
                str(self._metadata), "compression_format", f"{mode} compression by {form!r} is not known"
            )
        self._each = mode == "message"
        self._paths = [self._named(i, name) for i, name in enumerate(self._names())]
        self._parts: list[Container] | None = None
        self._aside = Aside()

    @property
    def _metadata(self) -> Path:
        return self._path / METADATA if self._path.is_dir() else self._path

    @property
    def files(self) -> tuple[Path, ...]:
        """The message files, and then ``metadata.yaml``."""
        return (*self._paths, self._metadata) if self._path.is_dir() else tuple(self._paths)

    def _names(self) -> list[str]:
        names = self._told.get("relative_file_paths")
        if (
            not isinstance(names, list)
            or not all(isinstance(n, str) for n in names)
            or len(names) > _MAX_FILES
        ):
            raise FormatError(str(self._metadata), "relative_file_paths", "is no list of file names")
        if len(set(names)) != len(names):
            raise FormatError(str(self._metadata), "relative_file_paths", "names a file twice")
        return names

    def _named(self, index: int, name: str) -> Path:
        where = f"relative_file_paths[{index}]"
        contained(self._root, name, path=self._metadata, where=where)
        for choice in (name, name.rpartition("/")[2]):
            if (self._root / choice).is_file():
                contained(self._root, choice, path=self._metadata, where=where)
                return self._root / choice
        raise FormatError(str(self._metadata), where, f"the bag lacks the file {name}")

    def units(self, channels: dict[int, Channel], facts: Facts) -> Iterator[Unit]:
        """Yield the messages of all files, one file after the other."""
        self._tell(facts)
        self._parts = [self._part(path) for path in self._paths]
        self._bases = []
        numbers: dict[object, int] = {}
        base = 0
        for part in self._parts:
            own: dict[int, Channel] = {}
            inner = Facts()
            self._bases.append(base)
            budget = Budget(part.files[0])
            for unit in self._named_errors(part, part.units(own, inner)):
                base = self._bases[-1] + unit.number + 1
                for name, value in inner.header.items() if not unit.number else ():
                    # The distribution of ROS must be known before messages are looked into.
                    facts.header.setdefault(name, value)
                yield from self._renumbered(unit, _numbers(own, channels, numbers), budget)
            _numbers(own, channels, numbers)
            facts.losses += [(f"{part.files[0].name}: {name}", why) for name, why in inner.losses]
            facts.warnings += inner.warnings
            for name, value in inner.header.items():
                facts.header.setdefault(name, value)

    def _named_errors(self, part: Container, units: Iterator[Unit]) -> Iterator[Unit]:
        """Yield units; errors of an unpacked copy bear the name of the file that it was made from."""
        try:
            yield from units
        except FormatError as error:
            path = str(self._paths[len(self._bases) - 1])
            if error.path != str(part.files[0]) or error.path == path:
                raise
            raise FormatError(path, error.where, error.why, error.advice) from error

    def payloads(self, places: Iterable[tuple[int, int, int]]) -> Iterator[bytes]:
        """Yield the messages of these units, places and sizes."""
        run: list[tuple[int, int, int]] = []
        held = -1
        for unit, place, size in places:
            part = int(np.searchsorted(self._bases, unit, side="right")) - 1
            # Files without messages share the base of the next one, which is the last of them.
            if part != held or len(run) >= _RUN_ROWS:
                yield from self._fetched(held, run)
                held, run = part, []
            run.append((unit - self._bases[part], place, size))
        yield from self._fetched(held, run)

    def close(self) -> None:
        """Give up what is laid aside."""
        self._aside.clear()

    def _fetched(self, part: int, run: list[tuple[int, int, int]]) -> Iterator[bytes]:
        if not run or self._parts is None:
            return
        # The size of a message that is compressed by itself is not known to the file it lies in.
        for payload in self._parts[part].payloads(run):
            yield self._inflated(payload, part) if self._each else payload

    def _part(self, path: Path) -> Container:
        with path.open("rb") as file:
            magic = file.read(16)
        plain = path
        if path.suffix == ".zstd" and magic[:4] == b"\x28\xb5\x2f\xfd":
            plain = _unpacked(version_of(path), self._of)
        if plain.suffix == ".mcap":
            return cast("Container", McapFile(plain, self._of, self._aside))
        return cast("Container", Db3File(plain, path))

    def _tell(self, facts: Facts) -> None:
        told = {k: v for k, v in self._told.items() if k not in {"relative_file_paths", "files"}}
        topics = told.get("topics_with_message_count")
        for entry in topics if isinstance(topics, list) else []:
            about = entry.get("topic_metadata") if isinstance(entry, dict) else None
            count = entry.get("message_count") if isinstance(entry, dict) else None
            if isinstance(about, dict) and isinstance(count, int):
                facts.announced[str(about.get("name"))] = count
        told.pop("topics_with_message_count", None)
        if self._path.is_dir():
            facts.header[METADATA] = _json(told)

    def _renumbered(self, unit: Unit, mapped: Mapping[int, int], budget: Budget) -> Iterator[Unit]:
        """Yield a file's unit with the bag's numbers; in parts, if its messages are to be decompressed."""
        channel = np.array([mapped[int(number)] for number in unit.channel], np.int64)
        whole = dataclasses.replace(unit, number=self._bases[-1] + unit.number, channel=channel)
        if not self._each:
            yield whole
            return
        first, parts, held = 0, list[bytes](), 0
        for i, (at, length) in enumerate(zip(unit.start.tolist(), unit.size.tolist(), strict=True)):
            raw = unit.data[at : at + length]
            budget.take(self._claimed(raw), "messages")
            parts.append(self._inflated(raw, len(self._bases) - 1))
            held += len(parts[-1])
            if held >= _RUN_BYTES or i + 1 == len(unit.start):
                yield _inflated_unit(whole, first, parts)
                first, parts, held = i + 1, [], 0

    def _claimed(self, raw: bytes) -> int:
        try:
            return zstd_size(raw, self._of)
        except ValueError as error:
            raise FormatError(str(self._path), "messages", f"a message {error}") from error

    def _inflated(self, raw: bytes, part: int) -> bytes:
        size = self._claimed(raw)
        if size > MAX_CHUNK:
            raise FormatError(str(self._paths[part]), "messages", f"a message claims {size:,} bytes")
        try:
            return inflated(raw, size, "zstd", self._of)
        except ValueError as error:
            raise FormatError(str(self._paths[part]), "messages", f"a message {error}") from error


def _inflated_unit(unit: Unit, first: int, parts: list[bytes]) -> Unit:
    """Return the messages from ``first`` on, whose decompressed bytes are given."""
    which = slice(first, first + len(parts))
    size = np.array([len(part) for part in parts], np.int64)
    return Unit(
        unit.number, b"".join(parts), unit.channel[which], unit.place[which], np.cumsum(size) - size, size,
        unit.log[which], unit.publish[which], unit.size[which],
    )  # fmt: skip


def _numbers(
    own: Mapping[int, Channel], channels: dict[int, Channel], numbers: dict[object, int]
) -> dict[int, int]:
    """Return the number of a file's channels in the whole bag."""
    mapped = {}
    for number, channel in own.items():
        key = (channel.topic, channel.type, channel.encoding, channel.language, channel.schema)
        mapped[number] = numbers.setdefault(key, len(numbers))
        channels.setdefault(mapped[number], channel)
    return mapped


@lru_cache(maxsize=4)
def _metadata(version: tuple[Path, int, int, int], of: Format) -> Mapping[str, Any]:
    """Return what ``metadata.yaml`` tells of the bag. Every reader of a stream asks for it."""
    path = version[0]
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_YAML + 1)
    except OSError as error:
        raise FormatError(str(path), "", f"cannot be read: {error.strerror}") from error
    told = safe_yaml(raw, path, of)
    inner = told.get(ROOT) if isinstance(told, dict) else None
    if not isinstance(inner, dict):
        raise FormatError(str(path), ROOT, "is missing: this does not describe a bag of ROS 2")
    return inner


def safe_yaml(raw: bytes, path: Path, of: Format) -> Json:
    """Return a document of YAML: plain values alone, without aliases, tags or great depth."""
    yaml = need("yaml", of=of)
    if len(raw) > _MAX_YAML:
        raise FormatError(str(path), "", f"has more than {_MAX_YAML:,} bytes")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    depth = 0
    try:
        text = raw.decode()
        for count, event in enumerate(yaml.parse(text, Loader=loader)):
            if isinstance(event, yaml.AliasEvent):
                raise FormatError(
                    str(path), f"line {event.start_mark.line + 1}", "holds an alias, which may be a bomb"
                )
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _MAX_DEPTH or count > _MAX_NODES:
                raise FormatError(str(path), f"line {event.start_mark.line + 1}", "is too deep or too long")
        return yaml.load(text, Loader=loader)  # one of the two safe loaders
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if isinstance(error, FormatError):
            raise
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}" if mark else "document"
        raise FormatError(str(path), where, f"is no YAML: {getattr(error, 'problem', error)}") from error


def _json(value: Any) -> Json:
    """Return a value of YAML as JSON: its dates and keys as text."""
    if isinstance(value, dict):
        return {str(key): _json(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_json(inner) for inner in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)


@lru_cache(maxsize=1)
def _room() -> Path:
    """Return a folder for decompressed files that goes when the program ends."""
    folder = tempfile.mkdtemp(prefix="teleopen-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


@lru_cache(maxsize=1024)
def _unpacked(version: tuple[Path, int, int, int], of: Format) -> Path:
    """Return a decompressed copy of a file that was compressed as a whole, in a folder for a while."""
    zstandard = need("zstandard", of=of)
    path = version[0]
    most = (1 << 30) + 64 * version[1]
    target = Path(tempfile.mkdtemp(dir=_room())) / path.name.removesuffix(".zstd")
    written = 0
    try:
        with path.open("rb") as source, target.open("wb") as copy:
            reader = zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(
                source, read_across_frames=True
            )
            while block := reader.read(_RUN_BYTES):
                written += len(block)
                if written > most:
                    raise FormatError(str(path), "", f"decompresses to more than {most:,} bytes")
                copy.write(block)
    except zstandard.ZstdError as error:
        raise FormatError(
            str(path), f"byte {written} decompressed", f"is no sound Zstandard: {error}"
        ) from error
    return target
