"""Converters that do what a hijacked reader would: for the tests of the process that holds them.

They lie in a module of their own, since the confined process imports them by its name.
"""

import ctypes
import fcntl
import mmap
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from teleopen.converters import Format
from teleopen.converters._draft import Draft
from teleopen.converters.base import source_file
from teleopen.schemas import Episode, Rights, Stream, StreamSpec

ROWS = 4
_MAP_GROWSDOWN = 0x100


def _values(start: int, stop: int) -> Iterator[Any]:
    yield np.arange(start, stop, dtype=np.int32)


def honest(converter: Any, path: Path, extra: Any = None) -> Episode:
    """Return an episode of one stream and one clock, with nothing wrong about it."""
    draft = Draft(path)
    draft.nominal("steps", ROWS, 10.0, "made up")
    draft.add(
        StreamSpec(name="extra.count", kind="low_dim", dtype="int32", shape=()), ROWS, _values, source="count"
    )
    if extra is not None:
        draft.tell("found", extra)
    return draft.build(converter, [source_file(path, path)], version="1")


def _dies() -> None:
    os.abort()


def _hangs() -> None:
    time.sleep(60)


def _spins() -> None:
    while True:
        pass


def _eats() -> None:
    held = bytearray(3 << 30)
    held[-1] = 1


def _babbles() -> None:
    for descriptor in range(3, 20):
        with suppress(OSError):
            os.write(descriptor, b"\xff" * 100)


def _exits() -> None:
    sys.exit(0)


MISDEEDS: dict[str, Callable[[], None]] = {
    "dies": _dies,
    "hangs": _hangs,
    "spins": _spins,
    "eats": _eats,
    "babbles": _babbles,
    "exits": _exits,
}


def _doing(misdeed: str, start: int, stop: int) -> Iterator[Any]:
    MISDEEDS[misdeed]()
    yield from _values(start, stop)


BLOCKS: dict[str, Callable[[int, int], Any]] = {
    "another dtype": lambda a, b: np.arange(a, b, dtype=np.int64),
    "another shape": lambda a, b: np.zeros((b - a, 2), np.int32),
    "too many": lambda a, b: np.arange(a, b + 5, dtype=np.int32),
    "too few": lambda a, b: np.arange(a, b - 1, dtype=np.int32),
    "none": lambda a, b: np.empty(0, np.int32),
    "a flood": lambda a, b: np.zeros(1 << 22, np.int32),
}


def _lying(lie: str, start: int, stop: int) -> Iterator[Any]:
    yield BLOCKS[lie](start, stop)


HEADERS: dict[str, Callable[[Episode], Episode]] = {
    "rights": lambda e: replace(
        e, rights=Rights.from_document({**Rights().to_document(), "licence": "CC0-1.0"})
    ),
    "another format": lambda e: replace(e, provenance=replace(e.provenance, format="aloha-hdf5")),
    "no clock": lambda e: replace(e, clocks={}),
    "an id that is none": lambda e: replace(e, id="../../etc/passwd"),
    "controls": lambda e: replace(e, instructions=("\x1b[2J",)),
    "terabytes": lambda e: _with_spec(e, shape=(1 << 40,)),
    "a dtype that is none": lambda e: _with_spec(e, dtype="object"),
    "a long clock": lambda e: replace(e, clocks={"steps": replace(e.clocks["steps"], length=1 << 40)}),
    "a header of gigabytes": lambda e: replace(e, extra={"a": "a" * (1 << 25)}),
    "what is no JSON": lambda e: replace(e, extra={"a": float("nan")}),
}


def _with_spec(episode: Episode, **changes: Any) -> Episode:
    stream = episode.streams["extra.count"]
    lied = Stream(spec=replace(stream.spec, **changes), length=stream.length, read=stream.read)
    return replace(episode, streams={"extra.count": lied})


@dataclass(frozen=True)
class Liar:
    """Reads any file; the option says how it misbehaves."""

    format: ClassVar[Format] = Format(name="liar", title="Liar")
    how: str = ""
    block_bytes: int = 1 << 20

    def probe(self, path: Path) -> bool:
        """Claim everything."""
        if self.how == "probe":
            os.abort()
        return True

    def episodes(self, path: Path) -> Iterator[Episode]:
        """Yield one episode, wrong in the way that was asked for."""
        if self.how.startswith("header: "):
            MISDEEDS[self.how.removeprefix("header: ")]()
        if self.how == "escape":
            yield honest(self, path, {name: _tried(attempt, path) for name, attempt in ESCAPES.items()})
            return
        episode = honest(self, path)
        if self.how in HEADERS:
            episode = HEADERS[self.how](episode)
        stream = episode.streams["extra.count"]
        wrong = _doing if self.how in MISDEEDS else _lying if self.how in BLOCKS else None
        if wrong:
            lied = Stream(spec=stream.spec, length=stream.length, read=partial(wrong, self.how))
            episode = replace(episode, streams={"extra.count": lied})
        if self.how == "times":
            clock = replace(episode.clocks["steps"], read=lambda: np.arange(ROWS)[::-1])
            episode = replace(episode, clocks={"steps": clock})
        yield episode


def _tried(attempt: Callable[[Path], Any], path: Path) -> str:
    try:
        return f"done: {attempt(path)!r}"[:200]
    except Exception as error:  # noqa: BLE001 - whatever refuses it
        return f"refused: {type(error).__name__}"


def _raw(number: int, *arguments: Any) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), "refused")
    return 0


ESCAPES: dict[str, Callable[[Path], Any]] = {
    "read a file of the system": lambda _: Path("/etc/passwd").read_bytes()[:10],
    "list the home": lambda _: list(Path("/root").iterdir()) or list(Path("/home").iterdir()),
    "read a neighbour": lambda path: path.with_name("secret").read_bytes(),
    "read a neighbour of a longer name": lambda path: path.with_name(f"{path.name}10").read_bytes(),
    "read in a folder beside it": lambda path: (
        path.with_name(f"{path.name}.d").joinpath("secret").read_bytes()
    ),
    "read through a link": lambda path: path.with_name("link").read_bytes(),
    "read through a link beside it": lambda path: path.with_name(f"{path.name}.json").read_bytes(),
    "read the parent's environment": lambda _: Path(f"/proc/{os.getppid()}/environ").read_bytes()[:10],
    "write the input": lambda path: path.open("r+b").write(b"x"),
    "write beside it": lambda path: path.with_name("canary").write_bytes(b"x"),
    "write a temporary file": lambda _: Path("/tmp/teleopen-canary").write_bytes(b"x"),
    "open a socket": lambda _: socket.socket().close(),
    "connect": lambda _: closing(socket.create_connection(("127.0.0.1", 80), 1)),
    "start a program": lambda _: subprocess.run(["/bin/true"], check=True),
    "replace the program": lambda _: os.execv("/bin/true", ["true"]),
    "fork": lambda _: os.fork() or os._exit(0),
    "kill the parent": lambda _: os.kill(os.getppid(), signal.SIGKILL),
    "kill the parent by its thread": lambda _: _raw(234, os.getppid(), os.getppid(), 0),
    "kill the parent by a queue": lambda _: _raw(129, os.getppid(), 0, ctypes.create_string_buffer(128)),
    "limit the parent": lambda _: resource.prlimit(os.getppid(), resource.RLIMIT_CORE),
    "have signals sent to the parent": lambda _: fcntl.fcntl(0, fcntl.F_SETOWN, os.getppid()),
    "change the mode of a neighbour": lambda path: path.with_name("secret").chmod(0o777),
    "change the mode of the input": lambda path: path.chmod(0o600),
    "change the times of the input": os.utime,
    "change the owner of the input": lambda path: os.chown(path, os.getuid(), os.getgid()),
    "change an attribute of the input": lambda path: os.setxattr(path, "user.canary", b"x"),
    "open a pair of sockets": lambda _: len(socket.socketpair()),
    "use memory of the system": lambda _: _raw(29, 0, 4096, 0o1600),
    "trace the parent": lambda _: _raw(101, 16, os.getppid(), 0, 0),
    "start io_uring": lambda _: _raw(425, 1, ctypes.create_string_buffer(120)),
    "allocate 4 GiB": lambda _: len(mmap.mmap(-1, 4 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)),
    "share 4 GiB": lambda _: len(mmap.mmap(-1, 4 << 30)),
    "grow by 4 GiB downwards": lambda _: len(
        mmap.mmap(-1, 4 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_GROWSDOWN)
    ),
    "see a secret": lambda _: os.environ["AWS_SECRET_ACCESS_KEY"],
}
