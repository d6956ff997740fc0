"""The server: sockets, faults and the record around the routes."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, unquote, urlsplit

from . import routes_files, routes_repo
from .faults import Fault
from .http import Answer, RefusedError, Request, as_json
from .hub import Hub
from .record import Received

_ROUTES = (*routes_files.ROUTES, *routes_repo.ROUTES)
_WINDOW_S = 300


def answer(hub: Hub, request: Request) -> Answer:
    """Return what the Hub says to a request."""
    with hub.lock:
        try:
            if request.path.startswith("/api/") and hub.rate is not None:
                _count(hub)
            for methods, pattern, route in _ROUTES:
                if request.method in methods and (found := pattern.fullmatch(request.path)):
                    return route(hub, request, **found.groupdict())
            return as_json({"error": f"no route {request.method} {request.path}"}, 404)
        except RefusedError as refused:
            return refused.answer()
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            return as_json({"error": f"bad request: {error!r}"}, 400)


def _count(hub: Hub) -> None:
    assert hub.rate is not None
    hub.rate -= 1
    if hub.rate < 0:
        told = {"RateLimit": '"api";r=0;t=1', "RateLimit-Policy": f'"fixed window";"api";q=500;w={_WINDOW_S}'}
        hub.rate = 500  # the next window
        raise RefusedError(429, "You have hit the rate limit", headers=told)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    hub: Hub

    def setup(self) -> None:
        super().setup()
        self.server.open_sockets.add(self.connection)  # type: ignore[attr-defined]  # our own server's

    def finish(self) -> None:
        self.server.open_sockets.discard(self.connection)  # type: ignore[attr-defined]  # our own server's
        with contextlib.suppress(OSError):
            super().finish()

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError, TimeoutError):
            super().handle()

    def log_message(self, *_: object) -> None:
        pass

    def _serve(self) -> None:
        body = self._body()
        parts = urlsplit(self.path)
        request = Request(
            method=self.command,
            path=unquote(parts.path),
            query=dict(parse_qsl(parts.query, keep_blank_values=True)),
            headers={name.lower(): value for name, value in self.headers.items()},
            body=body,
            base=self.hub.url,
        )
        fault = self.hub.faults.take(self.command, self.path)
        found = self._spoiled(request, fault)
        status = None if found is None else found.status
        self.hub.record.add(Received(self.command, self.path, tuple(self.headers.items()), body, status))
        if found is None:
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
            return
        self._send(found, fault)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = _serve  # noqa: N815 - http.server's names

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _spoiled(self, request: Request, fault: Fault | None) -> Answer | None:
        """Return the answer, spoiled as the fault says; None: none comes."""
        kind = fault.kind if fault else ""
        if fault and kind == "status":
            return Answer(fault.status, fault.body, dict(fault.headers))
        if fault and kind == "delay":
            time.sleep(fault.seconds)
        if kind == "drop":
            return None
        if kind == "ignore-range":
            plain = {name: value for name, value in request.headers.items() if name != "range"}
            request = Request(request.method, request.path, request.query, plain, request.body, request.base)
        found = answer(self.hub, request)
        if fault and kind == "lost":
            return Answer(fault.status, fault.body, dict(fault.headers))
        if kind == "drop-after":
            return None
        if fault and fault.effect:
            fault.effect()
        if kind == "corrupt" and found.body:
            middle = len(found.body) // 2
            found.body = found.body[:middle] + bytes([found.body[middle] ^ 1]) + found.body[middle + 1 :]
        return found

    def _send(self, found: Answer, fault: Fault | None) -> None:
        self.send_response(found.status)
        for name, value in found.headers.items():
            self.send_header(name, value)
        if "Content-Length" not in found.headers:
            self.send_header("Content-Length", str(len(found.body)))
        self.end_headers()
        body = b"" if self.command == "HEAD" else found.body
        if fault and fault.kind == "truncate" and body:
            body = body[: len(body) // 2]
            self.close_connection = True
        self.wfile.write(body)
        self.wfile.flush()
        if self.close_connection:
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, handler: type[_Handler]) -> None:
        self.open_sockets: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), handler)

    def handle_error(self, *_: object) -> None:
        """Say nothing of connections that a client, or a fault, cut."""


@contextmanager
def hub_server() -> Iterator[Hub]:
    """Run a Hub on this machine.

    Its endpoint is ``hub.url``; LFS objects come from ``hub.cdn``, which to a client is another host.
    """
    hub = Hub()
    server = _Server(type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    hub.cdn = f"http://localhost:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        for connection in list(server.open_sockets):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        thread.join()
