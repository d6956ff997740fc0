"""Web servers on this machine: one answers ranges, one ignores them, one fails at everything."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Plain(SimpleHTTPRequestHandler):
    """Python's own server, which ignores ranges."""

    def log_message(self, *_args: object) -> None:
        pass


class Ranges(Plain):
    """A server that answers ranges, as most do (RFC 9110, section 14)."""

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        told = self.headers.get("Range")
        if not told or not path.is_file():
            super().do_GET()
            return
        first, _, last = told.removeprefix("bytes=").partition("-")
        data = path.read_bytes()
        start = int(first) if first else max(0, len(data) - int(last))
        stop = int(last) + 1 if first and last else len(data)
        part = data[start:stop]
        self.send_response(206 if part else 416)
        self.send_header("Content-Range", f"bytes {start}-{start + len(part) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)


class Broken(BaseHTTPRequestHandler):
    """A server that fails at everything."""

    def do_GET(self) -> None:
        self.send_error(500)

    def do_HEAD(self) -> None:
        self.send_error(500)

    def log_message(self, *_args: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    request_queue_size = 128  # of 5, others would wait a second for their next attempt


@contextmanager
def serving(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[str]:
    """Run a server and give the URL of ``store`` on it."""
    server = _Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/store"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
