"""Small values of an HDF5 file as JSON, or the reason why they are not told."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..schemas import FormatError, Json

MAX_ATTRIBUTE_BYTES = 1 << 20
MAX_TEXTS = 64


def told(kind: Any, shape: tuple[int, ...] | None, size: int, read: Callable[[], object]) -> tuple[str, Json]:
    """Return a small value as JSON, or the reason why it is not told: (why, value)."""
    import h5py

    if shape is None:
        return "", None
    family = kind.get_class()
    if family not in {h5py.h5t.INTEGER, h5py.h5t.FLOAT, h5py.h5t.ENUM, h5py.h5t.STRING}:
        return "is neither number nor text", None
    if size > MAX_ATTRIBUTE_BYTES:
        return f"has {size} bytes, more than {MAX_ATTRIBUTE_BYTES}", None
    if family == h5py.h5t.STRING and kind.is_variable_str() and math.prod(shape) > MAX_TEXTS:
        return f"has {math.prod(shape)} texts, more than {MAX_TEXTS}", None
    try:
        value = _plain(read())
    except FormatError:
        raise
    except ValueError as error:
        return str(error), None
    return "", value


def characters_of(value: Json) -> int:
    """Return how many characters a value's texts have."""
    if isinstance(value, list):
        return sum(map(characters_of, value))
    return len(value) if isinstance(value, str) else 0


def _plain(value: object) -> Json:
    """Return what h5py gives as JSON, or raise `ValueError` with the reason."""
    if isinstance(value, np.ndarray | np.generic) and not isinstance(value, bytes | str):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(member) for member in value]
    if isinstance(value, bytes | str):
        try:
            return value.decode() if isinstance(value, bytes) else value.encode().decode()
        except UnicodeError:
            raise ValueError("is not UTF-8 text") from None
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("is not finite, which JSON cannot tell")
    if value is None or isinstance(value, bool | int | float):
        return value
    raise ValueError(f"is {type(value).__name__}, which JSON cannot tell")
