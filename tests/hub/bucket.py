"""An S3 server on this machine whose answers a test can read, delay and spoil."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
Spoil = Callable[["Gate", dict[str, Any], Callable[..., Any]], Iterable[bytes]]

CONFLICT = ("409 Conflict", "ConditionalRequestConflict")
BUSY = ("503 Slow Down", "ServiceUnavailable")
FORBIDDEN = ("403 Forbidden", "AccessDenied")


class Gate:
    """Stands before moto. One request at a time passes, since moto looks and then writes without a lock."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.lock = threading.Lock()
        self.seen: list[tuple[str, str, str | None]] = []
        self.spoilers: list[Spoil] = []
        self.deaf = False

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        with self.lock:
            condition = environ.get("HTTP_IF_NONE_MATCH")
            self.seen.append((environ["REQUEST_METHOD"], environ["PATH_INFO"], condition))
            if self.deaf:
                environ.pop("HTTP_IF_NONE_MATCH", None)
            if condition and self.spoilers:
                return self.spoilers.pop(0)(self, environ, start)
            return self.app(environ, start)


def answering(status: str, code: str) -> Spoil:
    """Return a spoiler that refuses without doing anything."""

    def spoil(_gate: Gate, _environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        body = f"<Error><Code>{code}</Code><Message>spoiled</Message></Error>".encode()
        start(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
        return [body]

    return spoil


def losing_the_answer(gate: Gate, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
    """Do what is asked, and answer that the server was busy."""
    list(gate.app(environ, lambda *_args, **_kwargs: None))
    return answering(*BUSY)(gate, environ, start)


@contextmanager
def s3_server() -> Iterator[Gate]:
    """Run a server with the bucket ``hub``; ``s3://hub/...`` leads there."""
    import fsspec
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    assert server._server is not None
    gate = Gate(server._server.app)
    server._server.app = gate
    host, port = server.get_host_and_port()
    s3 = fsspec.get_filesystem_class("s3")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        s3.clear_instance_cache()
        s3().makedirs("hub", exist_ok=True)  # moto keeps its buckets for as long as the process lives
        yield gate
        s3.clear_instance_cache()
    server.stop()
