"""What a pickle may name, and what the machine builds for it: arrays, dtypes, a few containers."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..schemas import Array

MAX_HELD = 640 << 20
"""Most bytes that a pickle may build, by an estimate."""

MAX_DEPTH = 32
_MAX_DIMENSIONS = 32
_OBJECT_COST = 64

_DTYPE = re.compile(r"\?|b1|[biufc]\d{1,2}|[SU]\d{1,7}|O8?")

# Where NumPy keeps what it names: numpy.core before version 2 (numpy/_core/__init__.py), numpy._core since.
_CORES = ("numpy.core", "numpy._core")
KNOWN: Mapping[str, str] = {
    **{f"{core}.multiarray._reconstruct": "array" for core in _CORES},
    **{f"{core}.multiarray.scalar": "scalar" for core in _CORES},
    **{f"{core}.numeric._frombuffer": "buffer" for core in _CORES},
    "numpy.ndarray": "ndarray",
    "numpy.dtype": "dtype",
    "_codecs.encode": "encode",
    "collections.OrderedDict": "ordered",
    "collections.defaultdict": "default",
    **{
        f"{home}.{name}": name
        for home in ("builtins", "__builtin__")
        for name in ("bytearray", "bytes", "dict", "float", "frozenset", "int", "list", "set", "str", "tuple")
    },
}


class RefusedError(Exception):
    """What is wrong with a pickle."""


@dataclass(frozen=True, slots=True)
class Name:
    """Stands for something that a pickle names. Nothing was imported."""

    what: str


@dataclass(slots=True, eq=False)
class Dtype:
    """A dtype; what is told later of it is its byte order."""

    value: np.dtype[Any]


@dataclass(slots=True, eq=False)
class NdArray:
    """An array whose values are told later, or a list of objects in its shape."""

    value: Array | None = None
    objects: list[Any] | None = None
    shape: tuple[int, ...] = ()


def key(value: Any) -> Any:
    """Return a key of a dict, if it is of those whose hash is Python's own."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, tuple):
        return tuple(map(key, value)) if _depth_of(value) <= MAX_DEPTH else _no_key()
    return value if value is None or type(value) in {bool, int, float, str, bytes} else _no_key()


def _no_key() -> Any:
    raise RefusedError("has a key that is neither text nor number")


def _depth_of(value: tuple[Any, ...]) -> int:
    level, depth = list(value), 1
    while level := [child for item in level if isinstance(item, tuple) for child in item]:
        depth += 1
        if depth > MAX_DEPTH or len(level) > 100:
            return MAX_DEPTH + 1
    return depth


def size(value: Any) -> int:
    if isinstance(value, NdArray) and value.value is not None:
        return value.value.nbytes
    return len(value) if isinstance(value, bytes) else _OBJECT_COST


# What follows is told in numpy/_core/src/multiarray: array_reduce and array_setstate of methods.c,
# arraydescr_reduce of descriptor.c.


def _dtype(text: Any = None, align: Any = 0, copy: Any = 0) -> Dtype:
    if type(text) is not str or not _DTYPE.fullmatch(text) or align or type(copy) not in {bool, int}:
        raise RefusedError(
            f"holds an array of the dtype {ascii(text)[:60]}, which is no plain number or text"
        )
    return Dtype(np.dtype(text))


def ordered(dtype: np.dtype[Any], state: Any) -> np.dtype[Any]:
    """Return the dtype in the byte order of its state: (version, order, sub-dtype, names, fields ...)."""
    plain = type(state) is tuple and 5 <= len(state) <= 9 and state[2:5] == (None, None, None)
    if not plain or state[0] not in {1, 2, 3, 4} or state[1] not in {"<", ">", "=", "|"}:
        raise RefusedError("holds an array whose dtype has parts")
    return dtype if dtype.hasobject else dtype.newbyteorder(state[1])


def _reconstructed(kind: Any, _shape: Any, _code: Any) -> NdArray:
    if kind != Name("ndarray"):
        raise RefusedError("holds an array of a class of its own")
    return NdArray()


def tell_array(target: NdArray, state: Any) -> int:
    """Give an array its values; return their size. The state is (version, shape, dtype, Fortran, data)."""
    if target.value is not None or target.objects is not None or type(state) is not tuple or len(state) != 5:
        raise RefusedError("tells the values of an array twice, or not as NumPy does")
    _, shape, dtype, fortran, data = state
    if type(dtype) is not Dtype:
        raise RefusedError("holds an array without a dtype")
    count = _count(shape)
    if dtype.value.hasobject:
        if type(data) is not list or len(data) != count or (fortran and len(shape) > 1):
            raise RefusedError("holds an array of objects that are not as many as its shape says")
        target.objects, target.shape = data, shape
        return 0
    target.value = _values(data, dtype.value, shape, "F" if fortran else "C")
    return target.value.nbytes


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> NdArray:
    if type(dtype) is not Dtype or dtype.value.hasobject or order not in {"C", "F"}:
        raise RefusedError("holds an array that is not as NumPy writes it")
    _count(shape)
    return NdArray(_values(data, dtype.value, shape, order))


def _values(data: Any, dtype: np.dtype[Any], shape: tuple[int, ...], order: Any) -> Array:
    if type(data) is str:  # bytes of Python 2
        data = data.encode("latin-1")
    size = _count(shape) * dtype.itemsize
    if type(data) is not bytes or len(data) != size:
        raise RefusedError(f"holds an array of {size} bytes by its shape, and not as many by its data")
    values = np.frombuffer(data, dtype) if size else np.empty(_count(shape), dtype)
    return values.reshape(shape, order=order)


def _count(shape: Any) -> int:
    if type(shape) is not tuple or len(shape) > _MAX_DIMENSIONS:
        raise RefusedError("holds an array without a shape")
    if not all(type(extent) is int and 0 <= extent <= MAX_HELD for extent in shape):
        raise RefusedError("holds an array of an impossible shape")
    return math.prod(shape)


def _scalar(dtype: Any, data: Any = None) -> Any:
    if type(dtype) is not Dtype or dtype.value.hasobject:
        raise RefusedError("holds a NumPy scalar that is no number or text")
    return _values(data, dtype.value, (1,), "C")[0]


def _encoded(text: Any, encoding: Any = None) -> bytes:
    # How protocols 0 to 2 write bytes (Lib/pickle.py: save_bytes).
    if type(text) is not str or encoding not in {"latin1", "latin-1"}:
        raise RefusedError("encodes what is no bytes of an older protocol")
    return text.encode("latin-1")


def _raw(value: Any = b"", encoding: Any = None) -> bytes:
    if type(value) is str:
        return _encoded(value, encoding)
    if type(value) is not bytes:
        raise RefusedError("makes bytes of what is none")
    return value


def _pairs(items: Any = ()) -> dict[Any, Any]:
    if type(items) not in {list, tuple}:
        raise RefusedError("makes a dict of what is no list of pairs")
    return {key(key): value for key, value in items}


def _default(factory: Any = None) -> dict[Any, Any]:
    if factory is not None and type(factory) is not Name:
        raise RefusedError("has a dict whose missing values come from a stranger")
    return {}


def _set(items: Any = ()) -> set[Any]:
    if type(items) is not list and items != ():
        raise RefusedError("makes a set of what is no list")
    return set(map(key, items))


BUILDERS: Mapping[str, Callable[..., Any]] = {
    "array": _reconstructed,
    "buffer": _from_buffer,
    "bytearray": _raw,
    "bytes": _raw,
    "default": _default,
    "dtype": _dtype,
    "encode": _encoded,
    "frozenset": _set,
    "ordered": _pairs,
    "scalar": _scalar,
    "set": _set,
}
