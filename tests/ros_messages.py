"""Messages as other libraries decode them, laid out as leaves: the judge of our own decoders."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

Leaves = dict[str, Any]
VECTORS = ({"x", "y"}, {"x", "y", "z"}, {"x", "y", "z", "w"})


def names_of(message: Any) -> list[str]:
    """Return the fields of a message of `rosbags` or `mcap_ros2`."""
    if dataclasses.is_dataclass(message):  # its constants are no fields
        return [field.name for field in dataclasses.fields(message) if field.default is dataclasses.MISSING]
    return [name for name in getattr(message, "__slots__", ()) if not name.startswith("_")]


def is_message(value: Any) -> bool:
    plain = (bool, int, float, str, bytes, list, tuple, np.ndarray, np.generic)
    return not isinstance(value, plain) and bool(names_of(value))


def leaves(message: Any, path: str = "", found: Leaves | None = None) -> Leaves:
    """Return the values of each leaf of a message, by its path."""
    found = {} if found is None else found
    if not is_message(message):
        if isinstance(message, (list, tuple)) and message and is_message(message[0]):
            for item in message:
                leaves(item, path if is_leaf(item) else f"{path}[]", found)
        elif path not in found and isinstance(message, (bytes, np.ndarray)) and len(message):
            found[path] = np.frombuffer(message, np.uint8) if isinstance(message, bytes) else message
        elif isinstance(message, (list, tuple, bytes, np.ndarray)):
            found[path] = [*found.get(path, []), *message]
        else:
            found.setdefault(path, []).append(message)
        return found
    names = names_of(message)
    if is_leaf(message):
        values = [getattr(message, name) for name in names]
        nanoseconds = values[0] * 10**9 + values[1] if len(names) == 2 and names[0] != "x" else None
        found.setdefault(path, []).extend(values if nanoseconds is None else [nanoseconds])
        return found
    for name in names:
        leaves(getattr(message, name), f"{path}.{name}" if path else name, found)
    return found


def is_leaf(message: Any) -> bool:
    """Tell whether a message is a time or a vector, which are one leaf here."""
    names = names_of(message)
    numbers = all(isinstance(getattr(message, name), (int, float, np.number)) for name in names)
    return numbers and (set(names) in VECTORS or names in (["sec", "nanosec"], ["secs", "nsecs"]))


def differences(ours: dict[str, Sequence[Any]], theirs: Leaves) -> list[str]:
    """Return the leaves in which two decoders differ. NaN equals NaN; absent equals empty."""
    found = []
    for path in sorted({*ours, *theirs}):
        left, right = ours.get(path, ()), theirs.get(path, ())
        if len(left) and isinstance(left[0], str):
            same = list(left) == list(right)
        else:
            same = len(left) == len(right) and np.array_equal(left, right, equal_nan=bool(len(left)))
        if not same:
            found.append(path)
    return found
