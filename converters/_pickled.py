"""Pickles that hold numbers, texts, containers and NumPy arrays, read without ever running one.

A pickle is a program for a stack machine, and `pickle.loads` calls whatever it names. This is another machine
for the same programs (CPython: Lib/pickletools.py describes each opcode; Lib/pickle.py): it imports nothing,
calls nothing that a pickle names and constructs no class of a stranger. The few names that NumPy and the
standard library write for plain data are told by a table, and each of them only says what to build here.

What a pickle builds may be far larger than itself: objects may stand in many places at once, or in
themselves. So memory is counted while it is built, and the finished value is copied into a plain tree, which
counts what stands twice as two.
"""

from __future__ import annotations

import gc
import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..schemas import FormatError
from ..schemas.validate import has_controls
from ._npz import arrays_of
from ._pickle_machine import Machine
from ._pickle_values import MAX_DEPTH, NdArray, RefusedError

MAX_BYTES = 1 << 28
"""Most bytes of a pickle."""

_MAX_VALUES = 4_000_000


def unpickled(data: bytes, *, path: Path, where: str = "") -> Any:
    """Return what a pickle holds.

    That is None, bool, int, float, str, bytes, list, tuple, dict, set, NumPy arrays and scalars. An array of
    objects comes as nested lists, or as its object if it has no axes.

    Raises
    ------
    FormatError
        If it names, calls or claims anything else, or is larger than data can be.
    """
    machine = Machine(data)
    try:
        if len(data) > MAX_BYTES:
            raise RefusedError(f"is a pickle of more than {MAX_BYTES:,} bytes")
        with _without_collector():
            return _Plain().of(machine.run())
    except RefusedError as error:
        why = str(error)
    except (LookupError, TypeError, ValueError, struct.error, OverflowError, MemoryError) as error:
        why = f"is no sound pickle: {type(error).__name__}"
    raise FormatError(str(path), ": ".join(filter(None, (where, f"byte {machine.at}"))), why, _ADVICE)


_ADVICE = (
    "Pickles can run code: do not open it with Python, and ask whoever made it for the data in another form"
)


@contextmanager
def _without_collector() -> Iterator[None]:
    """Keep Python from looking for cycles again and again among objects that are all still wanted."""
    wanted = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if wanted:
            gc.enable()


def unpickled_file(path: Path, *, where: str = "") -> Any:
    """Return what the pickle in a file holds; see `unpickled`."""
    return unpickled(_bytes(path, 0), path=path, where=where)


def unpickled_npy(path: Path, *, where: str = "") -> Any:
    """Return what an ``.npy`` file of objects holds (numpy/lib/_format_impl.py: they are one pickle).

    `numpy.save` puts an object that is no array into an array without axes: that comes as the object itself.

    Raises
    ------
    FormatError
        Like `unpickled`, and if the file holds no objects.
    """
    found = next(iter(arrays_of(path).values()))
    if not found.dtype.hasobject or not found.offset:
        raise FormatError(str(path), where, "is no .npy file of objects")
    return unpickled(_bytes(path, found.offset), path=path, where=where)


def _bytes(path: Path, start: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(start)
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise FormatError(str(path), "", f"cannot be read: {error.strerror}") from error


_LEAVES = frozenset({bool, int, float, str, bytes})


class _Plain:
    """Copies what the machine built into a tree of plain values; what stands twice counts twice."""

    def __init__(self) -> None:
        self._values = 0

    def of(self, value: Any, depth: int = 0) -> Any:
        self._values += 1
        if self._values > _MAX_VALUES or depth > MAX_DEPTH:
            raise RefusedError("nests objects deeper or repeats them more often than data does")
        kind = type(value)
        if kind in {list, tuple}:
            return kind(self.of(item, depth + 1) for item in value)
        if kind is dict:
            self._values += len(value)
            return {key: self.of(item, depth + 1) for key, item in value.items()}
        if kind in {set, frozenset}:
            self._values += len(value)
            return set(value)
        if kind is NdArray:
            return self._array(value, depth)
        if value is None or kind in _LEAVES or isinstance(value, np.generic):
            return value
        raise RefusedError("holds a name in place of a value")

    def _array(self, value: NdArray, depth: int) -> Any:
        if value.objects is None:
            if value.value is None:
                raise RefusedError("holds an array without values")
            return value.value
        items = [self.of(item, depth + 1) for item in value.objects]
        for extent in reversed(value.shape[1:]):
            items = [items[i : i + extent] for i in range(0, len(items), extent)] if extent else []
        return items if value.shape else items[0]


def json_of(value: Any, *, most: int = 10_000) -> Any:
    """Return what was unpickled as JSON: arrays as lists, keys as texts.

    Raises
    ------
    ValueError
        If JSON has no word for it, or it has more than ``most`` values.
    """
    return _Json(most).of(value)


class _Json:
    def __init__(self, most: int) -> None:
        self._left = most

    def of(self, value: Any) -> Any:
        self._left -= value.size if isinstance(value, np.ndarray) else 1
        if self._left < 0:
            raise ValueError("is too large for a header")
        if isinstance(value, np.ndarray | np.generic):
            return self.of(value.tolist())
        if isinstance(value, dict):
            return {str(key): self.of(item) for key, item in value.items()}
        if isinstance(value, list | tuple | set):
            return [self.of(item) for item in value]
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError("holds what is no number")
        if isinstance(value, str) and has_controls(value):
            raise ValueError("holds control characters")
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise ValueError(f"holds {type(value).__name__}, for which a header has no word")
