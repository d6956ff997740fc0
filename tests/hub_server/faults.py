"""What goes wrong on purpose, and when."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["status", "lost", "drop", "drop-after", "delay", "truncate", "corrupt", "ignore-range", "call"]


@dataclass(slots=True)
class Fault:
    """One thing that goes wrong.

    Attributes
    ----------
    kind
        ``status``: answered with ``status``, nothing done. ``lost``: done, yet answered with ``status``.
        ``drop``: the connection ends, nothing done. ``drop-after``: done, the connection ends without an
        answer. ``delay``: answered ``seconds`` late. ``truncate``: half of the body comes. ``corrupt``: one
        bit of the body is flipped. ``ignore-range``: the whole file comes. ``call``: done, then ``effect`` is
        called before the answer goes.
    method, path
        Patterns that the whole method and any part of the path must match.
    skip, times
        How many that match pass first, and how many are then spoiled.
    """

    kind: Kind
    method: str = ".*"
    path: str = ""
    skip: int = 0
    times: int = 1
    status: int = 503
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    seconds: float = 0.0
    effect: Callable[[], object] | None = None
    hits: int = 0

    def takes(self, method: str, path: str) -> bool:
        """Tell whether this request is spoiled, and count it."""
        if not re.fullmatch(self.method, method) or not re.search(self.path, path):
            return False
        if self.skip:
            self.skip -= 1
            return False
        if self.hits >= self.times:
            return False
        self.hits += 1
        return True


class Faults:
    """The faults that wait."""

    def __init__(self) -> None:
        self._waiting: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, *faults: Fault) -> None:
        """Let these happen, from now on."""
        with self._lock:
            self._waiting.extend(faults)

    def clear(self) -> None:
        """Let nothing more happen."""
        with self._lock:
            self._waiting.clear()

    def take(self, method: str, path: str) -> Fault | None:
        """Return what goes wrong with a request."""
        with self._lock:
            return next((fault for fault in self._waiting if fault.takes(method, path)), None)
