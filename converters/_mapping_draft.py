"""A mapping file to begin with: everything that is in a recording, and nothing of what it means."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from itertools import chain, count
from pathlib import Path

from ..schemas import FormatError, TeleopenError
from ._columns import Column, Columns, Share
from ._columns_of import columns_of, is_bag
from ._draft import stream_name
from ._mapped_split import natural, parts_of
from ._mapping import MappingFile, Rules, SplitRule

_MAX_FIELDS = 2_000
_MAX_VALUES = 200
_HEAD = """\
# What the fields of {name} are. Written by looking at the file alone, so nothing here says what anything
# means: change "unknown" where you know, rename the streams, delete what you do not want to say.
# All keys: docs/formats/mapped.md. What is not mentioned is kept as extra.*, or the ledger says why not.

mapping = 1
"""
_EPISODE = """
[episode]
# instruction = "..."            # what the robot was asked to do, or
# instruction_field = "..."      # the field that tells it
# embodiment = "..."             # robot and end effector
# outcome = "success"            # or "failure", or outcome_field
"""
_NAMES = """
# Streams. Names in use: observation.joint_position, observation.joint_velocity, observation.ee_pose,
# observation.gripper, observation.images.<camera>, observation.depth.<camera>, action, action.<part>.
"""


def draft(path: Path) -> str:
    """Return the text of a mapping for a recording: each field with its type and size, all of it unknown.

    The text converts as it is. A folder is told by the first file in it that can be read as columns.

    Raises
    ------
    FormatError
        If there is no such file, or it is damaged or dangerous.
    """
    source, pattern = _first(path)
    groups = _groups_of(source)
    rules = Rules(mapping=1, episodes=SplitRule(groups=groups))
    part = next(iter(parts_of(source, MappingFile(path=path, text="", rules=rules))))
    lines = [_HEAD.format(name=path.name)]
    if pattern or groups:
        lines.append("\n[episodes]\n")
        lines += [f"files = {_quoted(pattern)}\n"] if pattern else []
        lines += (
            [f"groups = {_quoted(groups)}     # groups whose names differ by a number\n"] if groups else []
        )
    lines.append(_EPISODE)
    lines += _values(part.share)
    lines += _fields(part.share)
    return "".join(lines)


def _first(path: Path) -> tuple[Columns, str]:
    """Return a recording's columns, and for a folder the pattern of the files that are like it."""
    if not path.is_dir() or is_bag(path):
        return columns_of(path), ""
    for name in sorted((p.name for p in path.iterdir() if p.is_file()), key=natural):
        try:
            return columns_of(path / name), f"*{Path(name).suffix}" if Path(name).suffix else name
        except TeleopenError:
            continue
    raise FormatError(str(path), "", "holds no file that can be read as columns", "Name the file itself")


def _groups_of(source: Columns) -> str:
    """Return the pattern of groups that differ by a number alone, if several have columns in them."""
    for depth in range(1, 4):
        found = Counter(
            pattern
            for group in {
                "/".join(name.split("/")[:depth]) for name in source.columns if name.count("/") >= depth
            }
            if (pattern := re.sub(r"\d+$", "*", group)) != group and not re.search(r"[*?\[]", group)
        )
        if found and found.most_common(1)[0][1] > 1:
            return found.most_common(1)[0][0]
    return ""


def _values(share: Share) -> Iterator[str]:
    names = sorted([*share.values, *share.unread])
    if names:
        yield "\n# Single values, for the *_field keys above:\n"
    for name in names[:_MAX_VALUES]:
        told = (
            json.dumps(share.values[name], ensure_ascii=False) if name in share.values else share.unread[name]
        )
        yield f"#   {_quoted(name)}: {_short(told)}\n"
    if len(names) > _MAX_VALUES:
        yield f"#   and {len(names) - _MAX_VALUES} more\n"


def _fields(share: Share) -> Iterator[str]:
    columns = [column for name, column in share.columns.items() if name not in share.outside]
    if len(columns) > _MAX_FIELDS:
        raise FormatError(
            str(share.source.path),
            "",
            f"has {len(columns)} fields: more than a person can map",
            "Map by hand",
        )
    plain = [c for c in columns if not c.clock and _is_plain(c)]
    lengths = Counter(column.length for column in plain)
    steps = max(lengths, key=lambda n: (lengths[n], n), default=0)
    if plain:
        yield from _clock([c for c in plain if c.length == steps])
    yield _NAMES
    taken: set[str] = set()
    for column in columns:
        words = [word for word in column.name.split("/") if word]
        wanted = stream_name("extra", *words)
        names = chain([wanted], (f"{wanted}_{i}" for i in count(2)))
        name = next(n for n in names if n.casefold() not in taken)
        taken.add(name.casefold())
        active = _is_plain(column) and (bool(column.clock) or column.length == steps)
        yield from _field(column, name, active=active)


def _is_plain(column: Column) -> bool:
    """Tell whether a column can be a stream without anything being said of it."""
    return column.holds == "numbers" and not column.unread and column.length > 0 and 0 not in column.shape


def _clock(columns: list[Column]) -> Iterator[str]:
    yield "\n[clocks.steps]\n"
    yield 'rate_hz = "unknown"              # the rate in Hz; or, if times were recorded, instead of it:\n'
    for column in (c for c in columns if c.shape in {(), (1,)}):
        yield f"# field = {_quoted(column.name)}\n"
    yield '# unit = "s"                     # or "ms", "us", "ns"\n'


def _field(column: Column, name: str, *, active: bool) -> Iterator[str]:
    mark = "" if active else "# "
    yield f"\n# {_quoted(column.name)}: {_kind_of(column)}\n"
    if column.unread:
        return
    if column.holds == "texts":
        yield f'# [[events]]\n# field = {_quoted(column.name)}\n# kind = "unknown"\n'
        return
    yield f"{mark}[streams.{_quoted(name)}]\n{mark}field = {_quoted(column.name)}\n"
    if column.holds == "bytes":
        yield '# kind = "video"\n# encoding = "jpeg"             # or "png"\n# order = "unknown"\n'
        return
    yield f'{mark}unit = "unknown"\n'
    if column.dtype == "uint8" and len(column.shape) in {2, 3}:
        yield '# kind = "video"                 # then without a unit\n'
        yield '# order = "unknown"              # "rgb" or "bgr"\n'
    elif column.dtype in {"uint16", "float32"} and len(column.shape) == 2:
        yield '# kind = "depth"\n'
    elif column.dtype == "uint8" and len(column.shape) == 1 and column.shape[0] > 64:
        yield '# kind = "video"\n# encoding = "jpeg"             # if these are padded files; or "png"\n'
    elif column.shape:
        yield '# frame = "unknown"\n# axes = []\n'


def _kind_of(column: Column) -> str:
    if column.unread:
        return column.unread
    if column.holds != "numbers":
        return f"{column.holds} in each of {column.length} rows"
    what = "one" if column.shape == () else " × ".join(map(str, column.shape))
    return f"{what} {column.dtype} in each of {column.length} rows"


def _quoted(text: str) -> str:
    """Return a text as a basic string of TOML, which is what JSON writes but for other planes' characters."""
    return json.dumps(text, ensure_ascii=False)


def _short(text: str) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= 80 else plain[:80] + " ..."
