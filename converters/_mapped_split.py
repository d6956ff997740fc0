"""How a file of columns falls into episodes, as the rules of a mapping say."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

import numpy as np

from ..schemas import Array, FormatError, Json
from ._columns import Column, Columns, Share, whole
from ._mapping import MappingFile

MAX_EPISODES = 100_000

_BLOCK = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One episode of a file, and what became of the field that tells the episodes apart.

    Attributes
    ----------
    marker
        That field; empty if none does.
    values
        Values that are this episode's alone, taken from fields with one value for each episode.
    """

    share: Share
    marker: str = ""
    values: Mapping[str, Json] = field(default_factory=dict)


def parts_of(source: Columns, mapping: MappingFile) -> Iterator[Part]:
    """Yield the episodes of a file, in the order of their numbers or rows.

    Raises
    ------
    FormatError
        Where mapping and file contradict each other.
    """
    rule = mapping.rules.episodes
    if rule.groups:
        yield from _groups(source, mapping, rule.groups)
    elif rule.column:
        mapping.must_know("episodes.column", rule.column, source.columns)
        yield from _spans(source, rule.column, _changes(source, mapping, rule.column))
    elif rule.ends:
        mapping.must_know("episodes.ends", rule.ends, source.columns)
        yield from _spans(source, rule.ends, _ends(source, mapping, rule.ends))
    else:
        yield Part(share=whole(source))


def natural(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts the numbers in names as numbers: 10 after 9."""
    return [(int(p), "") if p.isdecimal() else (-1, p) for p in re.split(r"(\d{1,15})", name)]


def _home(name: str) -> str:
    return name.partition("@")[0]


def _groups(source: Columns, mapping: MappingFile, pattern: str) -> Iterator[Part]:
    wanted = pattern.strip("/").split("/")
    depth = len(wanted)
    found = set()
    names = [*source.columns, *source.values, *source.unread]
    for name in names:
        steps = _home(name).split("/")
        inside = len(steps) > depth or "@" in name
        if inside and len(steps) >= depth and all(map(fnmatchcase, steps[:depth], wanted)):
            found.add("/".join(steps[:depth]))
    found -= source.columns.keys()  # attributes of a dataset are no group
    if not found or len(found) > MAX_EPISODES:
        mapping.refuse("episodes.groups", f"{pattern!r} fits {len(found)} groups of {source.path.name}")
    home = {name: "/".join(_home(name).split("/")[:depth]) for name in names}
    for group in sorted(found, key=natural):
        local = {
            name: name.removeprefix(group).lstrip("/") if home[name] == group else f"/{name}"
            for name in names
            if home[name] == group or home[name] not in found
        }
        yield Part(
            share=Share(
                source=source,
                selector=group,
                columns={
                    local[n]: replace(c, name=local[n]) for n, c in source.columns.items() if n in local
                },
                values={local[n]: v for n, v in source.values.items() if n in local},
                unread={local[n]: w for n, w in source.unread.items() if n in local},
                outside=frozenset(local[n] for n in source.columns if n in local and home[n] != group),
                origin={local[n]: (n, 0) for n in source.columns if n in local},
            )
        )


def _spans(source: Columns, marker: str, found: tuple[list[tuple[str, int, int]], int]) -> Iterator[Part]:
    """Cut every column of the file's length at the same rows."""
    spans, total = found
    own = {
        name: column
        for name, column in source.columns.items()
        if column.length == total and name != marker and not column.unread
    }
    single = {
        name
        for name, column in source.columns.items()
        if column.length == len(spans) != total
        and name != marker
        and column.holds == "numbers"
        and not column.unread
    }
    for index, (selector, start, stop) in enumerate(spans):
        columns = {
            name: replace(c, length=stop - start) if name in own else c for name, c in source.columns.items()
        }
        values = {name: _row(source, name, index) for name in single}
        for name in (*values, marker):
            del columns[name]
        yield Part(
            share=Share(
                source=source,
                selector=selector,
                columns=columns,
                values=source.values,
                unread=source.unread,
                outside=frozenset(columns.keys() - own.keys()),
                origin={name: (name, start) for name in own},
            ),
            marker=marker,
            values=values,
        )


def _row(source: Columns, name: str, index: int) -> Json:
    return next(source.blocks(name, index, index + 1, 1))[0].tolist()


def _numbers(source: Columns, mapping: MappingFile, where: str, column: Column) -> Iterator[Array]:
    if column.unread or column.holds != "numbers" or column.shape not in {(), (1,)} or not column.length:
        mapping.refuse(where, f"{column.name!r} must hold one whole number for each row, and some rows")
    if np.dtype(column.dtype).kind not in "iu":
        mapping.refuse(where, f"{column.name!r} holds {column.dtype}, not whole numbers")
    for block in source.blocks(column.name, 0, column.length, _BLOCK):
        yield block.reshape(len(block))


def _changes(source: Columns, mapping: MappingFile, name: str) -> tuple[list[tuple[str, int, int]], int]:
    """Return the runs of equal values of a column, each of which has to be one episode."""
    column = source.columns[name]
    starts: list[int] = []
    values: list[int] = []
    at = 0
    for block in _numbers(source, mapping, "episodes.column", column):
        first = not values or int(block[0]) != values[-1]
        edges = np.flatnonzero(block[1:] != block[:-1]) + 1
        for edge in ([0] if first else []) + edges[: MAX_EPISODES + 1].tolist():
            starts.append(at + edge)
            values.append(int(block[edge]))
        if len(starts) > MAX_EPISODES:
            mapping.refuse("episodes.column", f"{name!r} changes more than {MAX_EPISODES:,} times")
        at += len(block)
    if len(set(values)) != len(values):
        raise FormatError(
            str(source.path), name, "comes back to an episode after another: rows are out of order"
        )
    stops = [*starts[1:], column.length]
    return [(f"{name}={v}", a, b) for v, a, b in zip(values, starts, stops, strict=True)], column.length


def _ends(source: Columns, mapping: MappingFile, name: str) -> tuple[list[tuple[str, int, int]], int]:
    column = source.columns[name]
    if column.length > MAX_EPISODES:
        mapping.refuse("episodes.ends", f"{name!r} has more than {MAX_EPISODES:,} rows")
    stops = [int(v) for block in _numbers(source, mapping, "episodes.ends", column) for v in block]
    starts = [0, *stops[:-1]]
    if any(stop <= start for start, stop in zip(starts, stops, strict=True)):
        raise FormatError(str(source.path), name, "does not tell where episodes end: it does not grow")
    if not any(c.length == stops[-1] for n, c in source.columns.items() if n != name):
        raise FormatError(str(source.path), name, f"ends at row {stops[-1]}, and no field has as many")
    return [(f"episode {i}", a, b) for i, (a, b) in enumerate(zip(starts, stops, strict=True))], stops[-1]
