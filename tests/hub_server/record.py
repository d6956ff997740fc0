"""Everything that the server ever received, searchable."""

from __future__ import annotations

import base64
import binascii
import io
import json
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import unquote

_PARQUET = b"PAR1"


@dataclass(frozen=True, slots=True)
class Received:
    """A request as it came: method, path with query, headers, body; and the status it was answered with."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    status: int | None

    def texts(self) -> Iterator[bytes]:
        """Yield what the request says, in every wrapping and out of it."""
        yield unquote(self.path).encode()
        yield "\n".join(f"{name}: {value}" for name, value in self.headers).encode()
        yield self.body
        yield unquote(self.body.decode("latin-1")).encode("latin-1", "replace")
        for inner in _inside(self.body):
            yield inner
            yield from _columns(inner)
        yield from _columns(self.body)


def _inside(body: bytes) -> Iterator[bytes]:
    """Yield the bytes that lie as base64 in JSON, one document or one a line."""
    for line in [body, *body.splitlines()] if body[:1] == b"{" else []:
        try:
            waiting = [json.loads(line)]
        except ValueError:
            continue
        while waiting:
            value = waiting.pop()
            if isinstance(value, dict):
                waiting.extend(value.values())
                yield from (name.encode() for name in value)
            elif isinstance(value, list):
                waiting.extend(value)
            elif isinstance(value, str):
                yield value.encode()
                try:
                    yield base64.b64decode(value, validate=True)
                except (binascii.Error, ValueError):
                    continue


def _columns(data: bytes) -> Iterator[bytes]:
    """Yield the values of a Parquet file as text: in the file they may be compressed."""
    if data[:4] == _PARQUET and data[-4:] == _PARQUET:
        import pyarrow.parquet as pq

        table = pq.ParquetFile(io.BytesIO(data)).read()
        yield repr(table.schema.metadata).encode()
        yield repr(table.to_pydict()).encode()


class Record:
    """The requests in the order in which they came."""

    def __init__(self) -> None:
        self._requests: list[Received] = []
        self._lock = threading.Lock()

    def add(self, request: Received) -> None:
        """Keep one."""
        with self._lock:
            self._requests.append(request)

    def __iter__(self) -> Iterator[Received]:
        with self._lock:
            return iter(list(self._requests))

    def __len__(self) -> int:
        return len(self._requests)

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._requests.clear()

    @property
    def body_bytes(self) -> int:
        """Bytes of all bodies."""
        return sum(len(request.body) for request in self)

    def methods(self) -> list[str]:
        """Return the methods in order."""
        return [request.method for request in self]

    def holding(self, markers: Iterable[str | bytes]) -> list[tuple[str, str]]:
        """Return each marker that any request held, in whatever wrapping, with the request's line."""
        wanted = [marker.encode() if isinstance(marker, str) else marker for marker in markers]
        found = []
        for request in self:
            everything = b"\0".join(request.texts())
            found += [
                (marker.decode(errors="replace"), f"{request.method} {request.path}")
                for marker in wanted
                if marker in everything
            ]
        return found
