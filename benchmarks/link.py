"""A Hub on this machine behind a slow line: each request waits, and all answers share a bandwidth.

The line is a proxy in front of the tests' Hub, both in a process of their own. It also counts. Whoever
measures talks to it over HTTP: ``/__line?latency=0.05&rate=25000000`` sets it, ``/__taken`` tells requests
and bytes since the last time.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import multiprocessing
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

RTT_S = 0.05
RATE = 25e6
"""Bytes per second: 200 Mbit/s."""

_BLOCK = 64 << 10


@contextmanager
def slow_hub() -> Iterator[str]:
    """Run a Hub behind a line that is fast at first; give its endpoint."""
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,), daemon=True)
    process.start()
    try:
        yield mine.recv()
    finally:
        process.terminate()
        process.join()


def set_line(endpoint: str, latency_s: float, bytes_per_s: float) -> None:
    """Let each request wait, and all answers share this bandwidth; 0: as fast as can be."""
    _ask(f"{endpoint}/__line?latency={latency_s}&rate={bytes_per_s}")


def taken(endpoint: str) -> tuple[int, int]:
    """Return the requests, and the bytes of answers, since this was asked last."""
    told = _ask(f"{endpoint}/__taken")
    return told["requests"], told["bytes"]


def token() -> str:
    """Return the token of someone who may write to the Hub."""
    _tests_hub()
    return str(importlib.import_module("hub_server.hub").TOKEN)


def _tests_hub() -> Any:
    """Return the tests' Hub by its folder: other packages install a ``tests`` of their own."""
    folder = str(Path(__file__).parents[1] / "tests")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    return importlib.import_module("hub_server")


def _ask(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return json.load(answer)


def _serve(pipe: Connection) -> None:
    with _tests_hub().hub_server() as hub:
        asyncio.run(_Line(int(hub.url.rpartition(":")[2])).serve(hub, pipe))


class _Line:
    def __init__(self, behind: int) -> None:
        self.behind = behind
        self.latency_s = self.rate = 0.0
        self.requests = self.bytes = 0
        self.free_at = 0.0

    async def serve(self, hub: Any, pipe: Connection) -> None:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        hub.url, hub.cdn = f"http://127.0.0.1:{port}", f"http://localhost:{port}"
        pipe.send(hub.url)
        await server.serve_forever()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self.behind)
        answers = asyncio.create_task(self._answers(there, writer))
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(_BLOCK):
                if data.startswith(b"GET /__"):
                    writer.write(self._told(data))
                    break
                heads = data.count(b" HTTP/1.1\r\n")
                self.requests += heads
                await asyncio.sleep(self.latency_s * bool(heads))
                back.write(data)
        back.close()
        await asyncio.wait([answers])
        writer.close()

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(_BLOCK):
                self.bytes += len(data)
                if self.rate:
                    now = time.monotonic()
                    self.free_at = max(now, self.free_at) + len(data) / self.rate
                    await asyncio.sleep(self.free_at - now)
                writer.write(data)
                await writer.drain()

    def _told(self, data: bytes) -> bytes:
        url = urlsplit(data.split(b" ")[1].decode())
        if url.path == "/__line":
            asked = parse_qs(url.query)
            self.latency_s, self.rate = float(asked["latency"][0]), float(asked["rate"][0])
        body = json.dumps({"requests": self.requests, "bytes": self.bytes}).encode()
        self.requests = self.bytes = 0
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        return head.encode() + body
