"""The steps of a Unitree ``data.json``, read one at a time into columns.

A step takes some kilobytes of text, an episode of minutes tens of megabytes, and a Python list of all that
some gigabytes. So the array ``data`` is never parsed as a whole: a window slides over the text, one step at
a time is parsed, and its numbers go to columns of 8 bytes each. The file, a value, the steps and the
columns are bounded.
"""

from __future__ import annotations

import codecs
import json
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np
from numpy.typing import NDArray

from ..schemas import Array, FormatError, Json
from ..schemas.validate import has_controls
from .base import version_of

MAX_JSON_BYTES = 1 << 27
"""A step takes 3 to 8 kB, so this is over 16,000 of them: nine minutes at 30 Hz."""

MAX_STEPS = 500_000
MAX_TEXTS = 10_000

_MAX_VALUE = 1 << 22
_MAX_COLUMNS = 1_000
_MAX_NAME = 300
_MAX_DEPTH = 8
_MAX_TEXT_BYTES = 1 << 24
_PIECE = 1 << 18
_SPACE = " \t\r\n"
_FILES = ("colors.", "depths.", "audios.")
_EXACT = 1 << 53
_SAVE_AGAIN = "The recorder was ended before it wrote the rest: save the episode again, or leave it out"


@dataclass(slots=True)
class Column:
    """A field that holds numbers: its values, and the steps that have it.

    Attributes
    ----------
    shape
        Of its value in one step.
    kinds
        NumPy's letters of what was met: ``b``, ``i``, ``f``.
    """

    shape: tuple[int, ...]
    values: array[float] = field(default_factory=lambda: array("d"))
    steps: array[int] = field(default_factory=lambda: array("q"))
    kinds: set[str] = field(default_factory=set)

    def numbers(self, dtype: str) -> Array:
        """Return all values: (steps, *shape)."""
        return np.frombuffer(self.values, np.float64).reshape(-1, *self.shape).astype(dtype, copy=False)


@dataclass(slots=True)
class Names:
    """A field that names files: the name in each step that has it."""

    names: list[str] = field(default_factory=list)
    steps: array[int] = field(default_factory=lambda: array("q"))


@dataclass(slots=True, kw_only=True)
class Recording:
    """What a ``data.json`` holds.

    Attributes
    ----------
    members
        Its members but ``data``.
    length
        How many steps there are.
    columns, files
        The steps' fields of numbers, and those that name files, by their path: ``states.body.qpos``.
    texts
        Fields of text: the steps at which the text changes, and what it is from there on.
    empty
        Fields that are null or empty in every step.
    """

    members: dict[str, Json] = field(default_factory=dict)
    length: int = 0
    columns: dict[str, Column] = field(default_factory=dict)
    files: dict[str, Names] = field(default_factory=dict)
    texts: dict[str, list[tuple[int, str]]] = field(default_factory=dict)
    empty: set[str] = field(default_factory=set)


def steps_of(array_: array[int]) -> NDArray[np.int64]:
    """Return numbers of steps as NumPy has them: (n,) int64."""
    return np.frombuffer(array_, np.int64)


def recording(path: Path) -> Recording:
    """Return what a ``data.json`` holds; that of the last two files is kept.

    Raises
    ------
    FormatError
        If it is no such file, cut off, or larger than the bounds.
    """
    return _recording(*version_of(path))


@lru_cache(maxsize=2)
def _recording(path: Path, size: int, _mtime_ns: int, _inode: int) -> Recording:
    if size > MAX_JSON_BYTES:
        raise FormatError(
            str(path), "", f"has {size:,} bytes; at most {MAX_JSON_BYTES:,} are read", "Split the episode"
        )
    with path.open("rb") as file:
        text = _Text(path, file)
        found = Recording()
        for name in text.members(""):
            if name == "data":
                _take_steps(path, text, found)
            else:
                found.members[name] = text.value(name)
    if "data" in found.members or not found.length:
        raise FormatError(str(path), "data", "holds no steps", _SAVE_AGAIN)
    found.empty -= found.columns.keys() | found.files.keys() | found.texts.keys()
    return found


def _take_steps(path: Path, text: _Text, found: Recording) -> None:
    if found.length:
        raise FormatError(str(path), "data", "occurs twice")
    sink = _Sink(path, found)
    for step in text.entries("data"):
        if found.length == MAX_STEPS:
            raise FormatError(str(path), "data", f"holds more than {MAX_STEPS:,} steps")
        where = f"data[{found.length}]"
        if not isinstance(step, Mapping):
            raise FormatError(str(path), where, "is no object, as every step is")
        sink.take(step, "", where, 0)
        found.length += 1


class _Sink:
    """Puts the fields of one step after the other into the columns of a recording."""

    def __init__(self, path: Path, found: Recording) -> None:
        self._path, self._found = path, found
        self._names: set[str] = set()
        self._text_bytes = 0

    def take(self, member: Mapping[str, Any], prefix: str, where: str, depth: int) -> None:
        """Take all fields below an object."""
        for key, value in member.items():
            name = f"{prefix}{key}"
            if isinstance(value, Mapping) and value and depth < _MAX_DEPTH:
                self.take(value, f"{name}.", where, depth + 1)
                continue
            self._judge_name(name, where)
            if value is None or value in ([], {}, ""):
                self._found.empty.add(name)
                self._end_text(name)
            elif name.startswith(_FILES):
                self._file(name, value, where)
            else:
                self._leaf(name, value, where)

    def _refuse(self, name: str, where: str, why: str, advice: str = "") -> NoReturn:
        raise FormatError(str(self._path), f"{where}.{name}", why, advice)

    def _judge_name(self, name: str, where: str) -> None:
        if name in self._names:
            return
        self._names.add(name)
        if len(name) > _MAX_NAME or has_controls(name):
            raise FormatError(str(self._path), where, f"has a name that is none: {name[:80]!a}")
        if len(self._names) > _MAX_COLUMNS:
            raise FormatError(str(self._path), where, f"makes more than {_MAX_COLUMNS:,} fields")

    def _file(self, name: str, value: object, where: str) -> None:
        if not isinstance(value, str) or len(value) > _MAX_NAME:
            self._refuse(name, where, "must name a file")
        names = self._found.files.setdefault(name, Names())
        names.names.append(value)
        names.steps.append(self._found.length)

    def _leaf(self, name: str, value: object, where: str) -> None:
        numbers = None if isinstance(value, str) else _numbers(value)
        if numbers is None:
            self._text(name, value if isinstance(value, str) else json.dumps(value), where)
            return
        if name in self._found.texts:
            self._refuse(name, where, "is a number here and was a text before")
        column = self._found.columns.setdefault(name, Column(numbers.shape))
        if column.shape != numbers.shape:
            self._refuse(
                name,
                where,
                f"has the shape {list(numbers.shape)}, and {list(column.shape)} in the steps before",
            )
        if numbers.dtype.kind == "i" and np.any(np.abs(numbers) >= _EXACT):
            self._refuse(name, where, "holds an integer of more than 53 bits")
        column.kinds.add(numbers.dtype.kind)
        column.values.frombytes(np.ascontiguousarray(numbers, np.float64).tobytes())
        column.steps.append(self._found.length)

    def _text(self, name: str, text: str, where: str) -> None:
        if name in self._found.columns:
            self._refuse(name, where, "is a text here and was a number before")
        runs = self._found.texts.setdefault(name, [])
        if runs and runs[-1][1] == text:
            return
        self._text_bytes += len(text)
        if len(runs) == MAX_TEXTS or self._text_bytes > _MAX_TEXT_BYTES:
            self._refuse(name, where, f"changes more than {MAX_TEXTS:,} times, or takes more than 16 MiB")
        runs.append((self._found.length, text))

    def _end_text(self, name: str) -> None:
        runs = self._found.texts.get(name)
        if runs and runs[-1][1]:
            runs.append((self._found.length, ""))


def _numbers(value: object) -> Array | None:
    """Return numbers and lists of them as an array of one of the kinds b, i and f; None for anything else."""
    try:
        found = np.asarray(value)
    except (ValueError, OverflowError):  # lists of different lengths
        return None
    return found if found.dtype.kind in "bif" and found.size and found.ndim <= 4 else None


class _Text:
    """The text of a JSON file, of which a window is held."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path, self._file = path, file
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        # NaN is no JSON, but the recorder's own library writes it for a joint that gave none.
        self._decoder = json.JSONDecoder(object_pairs_hook=_once)
        self._window, self._at, self._passed, self._ended = "", 0, 0, False

    def members(self, where: str) -> Iterator[str]:
        """Yield the names of an object's members; the caller takes each value before the next name."""
        self._expect("{", where)
        seen: set[str] = set()
        while self._more("}", where, first=not seen):
            name = self.value(where)
            if not isinstance(name, str) or name in seen:
                self._refuse(where, f"has a member called {ascii(name)[:80]}, or has it twice")
            seen.add(name)
            self._expect(":", name)
            yield name
        if self._next():
            self._refuse(where, "goes on behind its end")

    def entries(self, where: str) -> Iterator[Any]:
        """Yield the entries of a list."""
        self._expect("[", where)
        count = 0
        while self._more("]", where, first=not count):
            yield self.value(f"{where}[{count}]")
            count += 1

    def value(self, where: str) -> Any:
        """Return the value that comes next."""
        self._next()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._window, self._at)
                # A number at the end of the window may go on behind it.
                if end < len(self._window) or not self._fill():
                    self._at = end
                    return value
            except (ValueError, RecursionError) as error:
                if len(self._window) - self._at > _MAX_VALUE or not self._fill():
                    self._refuse(where, f"is no JSON: {error}")

    def _more(self, end: str, where: str, *, first: bool) -> bool:
        found = self._next()
        if found == end:
            self._at += 1
            return False
        if not first:
            self._expect(",", where)
        return True

    def _expect(self, mark: str, where: str) -> None:
        if self._next() != mark:
            self._refuse(where, f"is no JSON: {mark!r} is missing")
        self._at += 1

    def _next(self) -> str:
        """Return the next character that is no space, without passing it; empty at the end."""
        while True:
            while self._at < len(self._window) and self._window[self._at] in _SPACE:
                self._at += 1
            if self._at < len(self._window):
                return self._window[self._at]
            if not self._fill():
                return ""

    def _fill(self) -> bool:
        """Move the window on by as much again as it holds unread; False at the end of the file."""
        if self._ended:
            return False
        rest = self._window[self._at :]
        try:
            piece = self._file.read(max(_PIECE, len(rest)))
            more = self._utf8.decode(piece, final=not piece)
        except UnicodeDecodeError as error:
            self._refuse("", f"is not UTF-8: {error.reason}")
        self._passed += self._at
        self._window, self._at, self._ended = rest + more, 0, not piece
        return not self._ended

    def _refuse(self, where: str, why: str) -> NoReturn:
        place = f"{where} near character {self._passed + self._at}".strip()
        raise FormatError(str(self._path), place, why[:300], _SAVE_AGAIN)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a member occurs twice in one object")
    return found
