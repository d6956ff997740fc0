"""The parent's side of one confined process: starting it, asking it, doubting it."""

from __future__ import annotations

import json
import math
import os
import pickle
import select
import signal
import site
import subprocess
import sys
import sysconfig
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np

from ..schemas import (
    Array,
    FormatError,
    MissingExtraError,
    Packet,
    SchemaError,
    TeleopenError,
    strict_json,
)
from ._confined_child import HEAD
from ._sandbox import Ability
from .base import MAX_EPISODE_BYTES, Converter

_MAX_REPLY = 1 << 20
_MAX_WORD = 2_000
_MAX_PTS = 1 << 62
_HASHED_PER_SECOND = 25_000_000
_MOST_COUNTED = 200_000

_CHILD = (
    "import sys,json;sys.path[:]=json.loads(sys.argv[1]);from {package}._confined_child import main;main()"
)
_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/nix/store", "/etc/ld.so.cache")
_DEVICES = ("/dev/null", "/dev/urandom")
_INHERITED = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT")
_ENVIRONMENT = {
    "HOME": "/nonexistent",
    "TMPDIR": "/nonexistent",
    "LC_ALL": "C.UTF-8",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a confined reader may use.

    Attributes
    ----------
    seconds
        Longest that one block, packet or header may take. A header may take longer by the time it takes to
        compute the digests of large sources.
    memory_bytes
        Memory of the child besides the code of its libraries.
    """

    seconds: float = 25.0
    memory_bytes: int = 896 << 20


DEFAULT = Limits()


class LostError(Exception):
    """The child is gone, late or incoherent."""


@dataclass(slots=True)
class Reply:
    """What the child answered: a document, and bytes that wait in the pipe until they are taken.

    Whatever is wrong with it is raised as one of `_DOUBTS`.
    """

    document: Mapping[str, Any]
    size: int
    receive: Callable[[memoryview], None]

    def taken(self) -> bytes:
        data = bytearray(self.size)
        self._take(memoryview(data))
        return bytes(data)

    def array(self, *, dtype: np.dtype[Any], sample: tuple[int, ...]) -> Array:
        """Return the rows that came, if they are of this dtype and shape."""
        shape = self.document.get("shape")
        same = self.document.get("dtype") == dtype.str and type(shape) is list and tuple(shape[1:]) == sample
        rows = shape[0] if same and shape else None
        row_bytes = dtype.itemsize * math.prod(sample)
        if type(rows) is not int or rows < 1 or rows * row_bytes != self.size:
            raise ValueError("a block is not what the header says")
        block: Array = np.empty((rows, *sample), dtype)
        raw = block.reshape(-1).view(np.uint8)
        self._take(raw.data)
        if dtype.kind == "b" and raw.max() > 1:
            raise ValueError("a block of truth values holds others")
        return block

    def packet(self) -> Packet:
        """Return the packet that came."""
        pts, key = self.document.get("pts"), self.document.get("key")
        if type(pts) is not int or type(key) is not bool or abs(pts) > _MAX_PTS:
            raise ValueError("a packet has no pts")
        return Packet(self.taken(), pts, key)

    def plain(self) -> Mapping[str, Any]:
        """Return the document of a reply that is nothing else."""
        return self.document

    def ended(self) -> None:
        """Raise `ValueError` if bytes are left in the pipe."""
        if self.size:
            raise ValueError("it sent bytes that nobody asked for")

    def _take(self, view: memoryview) -> None:
        self.receive(view)
        self.size = 0


_DOUBTS = (LostError, SchemaError, ValueError, TypeError, LookupError, AttributeError, RecursionError)
_END = object()


class Worker:
    """One child. Requests and replies alternate, whatever threads ask."""

    def __init__(self, converter: Converter | None, path: Path, limits: Limits) -> None:
        self._path, self._limits = path, limits
        self._absolute = path.absolute()
        self._lock = threading.Lock()
        self._unwanted: deque[int] = deque()
        self._process = _started()
        self._end = weakref.finalize(self, _ended, self._process, os.getpid())
        self._poll = select.poll()
        self._poll.register(_fd(self._process.stdout), select.POLLIN | select.POLLHUP)
        setup = {
            "path": str(self._absolute),
            "readable": [*_installation(), *map(str, _inputs(converter, self._absolute))],
            "memory_bytes": limits.memory_bytes,
            "seconds": limits.seconds,
        }
        self.abilities: tuple[Ability, ...] = ()
        self.abilities = self.ask(
            setup,
            lambda reply: tuple(Ability(**told) for told in reply.document["abilities"]),
            payload=b"" if converter is None else pickle.dumps(converter),
        )

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        return self._end.alive and self._process.poll() is None

    def end(self) -> None:
        """End the child, whatever it does."""
        self._end()

    def drawn(
        self, request: Mapping[str, Any], take: Callable[[Reply], T], most: int, *, patient: bool = False
    ) -> Iterator[T]:
        """Yield what an iterator in the child gives, and close it there when nobody wants more."""
        of: int = self.ask(request, lambda reply: reply.document["of"])
        try:
            while True:
                value = self.ask(
                    {"ask": "next", "of": of},
                    lambda reply: _END if reply.document.get("end") else take(reply),
                    most,
                    patient=patient,
                )
                if value is _END:
                    return
                yield cast("T", value)
        finally:
            self._close(of)

    def _close(self, of: int) -> None:
        self._unwanted.append(of)
        # This may run amid another request: wherever a generator is let go. The next one tells it then.
        if not self._lock.locked() and self.alive:
            with suppress(FormatError):
                self.ask({"ask": "nothing"}, Reply.plain)

    def ask(
        self,
        request: Mapping[str, Any],
        take: Callable[[Reply], T],
        most: int = 0,
        *,
        patient: bool = False,
        payload: bytes = b"",
    ) -> T:
        """Return what ``take`` makes of the reply to a request.

        Parameters
        ----------
        most
            Bytes that may come behind the document.
        patient
            The child may compute digests of the sources first.

        Raises
        ------
        FormatError
            If the child found one, or is lost, or its reply is not to be believed.
        """
        with self._lock:
            unwanted = [self._unwanted.popleft() for _ in range(len(self._unwanted))]
            until = time.monotonic() + self._limits.seconds
            try:
                self._send({**request, "unwanted": unwanted}, payload)
                reply = self._reply(until, most, patient=patient)
                if "error" not in reply.document and "missing" not in reply.document:
                    value = take(reply)
                    reply.ended()
                    return value
                told = _told(reply.document, self._path, self._absolute)
            except _DOUBTS as error:
                raise self.lost(str(request.get("stream", "")), str(error)) from error
        raise told

    def _send(self, request: Mapping[str, Any], payload: bytes) -> None:
        text = json.dumps(request).encode()
        try:
            os.write(_fd(self._process.stdin), HEAD.pack(len(text), len(payload)) + text + payload)
        except OSError as error:
            raise LostError(self._epitaph()) from error

    def _reply(self, until: float, most: int, *, patient: bool) -> Reply:
        head = memoryview(bytearray(HEAD.size))
        if patient and not self._ready(until):
            until += _size_of(self._absolute) / _HASHED_PER_SECOND
        self._receive(head, until)
        length, size = HEAD.unpack(head)
        if length > _MAX_REPLY or size > most:
            raise LostError(f"it wanted to send {length + size:,} bytes")
        until = time.monotonic() + self._limits.seconds
        text = memoryview(bytearray(length))
        self._receive(text, until)
        document = strict_json(bytes(text))
        if not isinstance(document, dict):
            raise LostError("it did not keep the protocol")
        return Reply(document, size, partial(self._receive, until=until))

    def _ready(self, until: float) -> bool:
        return bool(self._poll.poll(max(0.0, until - time.monotonic()) * 1_000))

    def _receive(self, view: memoryview, until: float) -> None:
        pipe = _fd(self._process.stdout)
        at = 0
        while at < len(view):
            if not self._ready(until):
                raise LostError(self._late())
            got = os.readv(pipe, [view[at:]])
            if not got:
                raise LostError(self._epitaph())
            at += got

    def _late(self) -> str:
        return f"it took longer than {self._limits.seconds:g} s"

    def _epitaph(self) -> str:
        try:
            code = self._process.wait(1)
        except subprocess.TimeoutExpired:
            return "it fell silent"
        if code == -signal.SIGXCPU:
            return self._late()
        return "it died of " + (signal.Signals(-code).name if code < 0 else f"code {code}")

    def lost(self, where: str, why: str) -> FormatError:
        """End the child and return the error that tells why."""
        self.end()
        advice = "The file is damaged or hostile, or larger than a confined reader may be"
        if not self.abilities:
            advice = "It never began: is its converter importable in a process of its own?"
        return FormatError(str(self._path), where, f"the confined reader was given up: {_word(why)}", advice)


def _told(document: Mapping[str, Any], path: Path, absolute: Path) -> TeleopenError:
    """Return the error that the child found."""
    if "missing" in document:
        return MissingExtraError(_word(document["missing"]))
    told = document["error"]
    if not isinstance(told, list) or len(told) != 4:
        raise ValueError("it did not keep the protocol")
    file, where, why, advice = map(_word, told)
    if file.startswith(str(absolute)):
        file = str(path) + file.removeprefix(str(absolute))
    return FormatError(file, where, why, advice)


def _word(value: object) -> str:
    """Return a text of the child with nothing in it that a terminal would obey."""
    return "".join(c if c.isprintable() else "?" for c in str(value)[:_MAX_WORD])


def _fd(pipe: Any) -> int:
    return int(pipe.fileno())


def _started() -> subprocess.Popen[bytes]:
    places = json.dumps([place for place in sys.path if place])
    code = _CHILD.format(package=__package__)
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    return subprocess.Popen(
        [sys.executable, "-I", "-B", "-c", code, places],
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env={**_ENVIRONMENT, **inherited},
    )


def _ended(process: subprocess.Popen[bytes], owner: int) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    if os.getpid() == owner:  # and not a fork, whose parent may still be asking
        process.kill()
        process.wait()


def _installation() -> Iterator[str]:
    """Yield where this Python and its libraries lie: what a reader imports while it reads."""
    yield from _LIBRARIES
    yield from _DEVICES
    paths = sysconfig.get_paths()
    yield from {paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    yield from {f"{prefix}/lib" for prefix in (sys.base_prefix, sys.base_exec_prefix)}
    yield from site.getsitepackages()
    if site.ENABLE_USER_SITE:
        yield site.getusersitepackages()
    here = Path(__file__).parent
    yield from (str(here), str(here.with_name("schemas")))


def _inputs(converter: Converter | None, path: Path) -> Iterator[Path]:
    """Yield what may be opened of the recording.

    That is itself; the files beside it whose names are its own and more, such as a sheet ``<name>.json``; and
    what its converter names, if it has a method ``beside(path)``. Of links, only the recording is followed.
    """
    if converter is None:
        return
    yield path
    yield from (place for place in getattr(converter, "beside", lambda _: ())(path) if not place.is_symlink())
    if path.is_file():
        with os.scandir(path.parent) as neighbours:
            ours = [n for n in neighbours if _adds_to(path.stem, n.name) and n.is_file(follow_symlinks=False)]
        yield from (Path(neighbour.path) for neighbour in ours)
    home = path.resolve()
    if home.parent.name == "snapshots":  # links of the Hugging Face Hub's cache: see `contained`
        yield home.parent.parent / "blobs"


def _adds_to(stem: str, name: str) -> bool:
    """Tell whether a name is a stem and more: ``run1.json`` of ``run1``, and not ``run10.json``."""
    return name.startswith(stem) and not name.removeprefix(stem)[:1].isalnum()


def _size_of(path: Path) -> int:
    """Return the bytes of all files at ``path``, or of so many that more make no difference."""
    if not path.is_dir():
        return path.stat().st_size if path.exists() else 0
    total, counter = 0, count()
    for folder, _, names in os.walk(path):
        for name in names:
            if next(counter) > _MOST_COUNTED:
                return max(total, MAX_EPISODE_BYTES)
            total += Path(folder, name).lstat().st_size
    return total
