"""Reading recordings that may do harm in processes of their own, and telling what came of it.

``python -m tests.reading`` is such a process: it gives up what `converters._sandbox` can take if it is told
to, reads one recording after the other as its parent asks, and answers with an `Outcome` each.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import sysconfig
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[1]
MEMORY = 1 << 30
SECONDS = 30.0
"""What no recording may take of the processor."""

_PATIENCE = 180.0
"""Seconds of the clock after which a process hangs: machines of tests are busy."""

_IMPORTS = (
    "av",
    "h5py",
    "numcodecs",
    "PIL.Image",
    "pyarrow.parquet",
    "rosbags",
    "mcap",
    "sqlite3",
    "zstandard",
)
_SYSTEM = (
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/dev/null",
    "/dev/urandom",
    "/proc",
    "/usr/share/zoneinfo",
)


@dataclass(frozen=True, kw_only=True)
class Task:
    """One recording to be read to its end: headers, payload, packets and clocks."""

    format: str
    path: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a reading.

    Attributes
    ----------
    kind
        ``read``; ``refused`` with an error of our own; ``raised`` any other; the process ``died`` or was
        ``late``.
    error
        Type and text of the error; the end of its trace if it is none of ours.
    seconds
        Of the processor; of the clock if the process was ended.
    peak
        Bytes by which the process grew.
    opened
        Files that Python was asked for which lie neither beside the recording nor in the installation, nor in
        the folder for temporary files, in which nothing is but what the process puts there.
    """

    kind: str
    error: str = ""
    seconds: float = 0.0
    peak: int = 0
    opened: tuple[str, ...] = ()


class Reader:
    """A process that reads, started anew whenever it dies or is late."""

    def __init__(self, allowed: Sequence[Path] | None = None, *, wrapper: Sequence[str] = ()) -> None:
        """Note how to start it.

        Parameters
        ----------
        allowed
            What it may open besides the installation, enforced by the kernel if it can; None: anything.
        wrapper
            A program that starts it, such as a tracer.
        """
        self._setup = {"allowed": None if allowed is None else [str(path) for path in allowed]}
        self._wrapper = wrapper
        self._process: subprocess.Popen[bytes] | None = None
        self._scratch = TemporaryDirectory(prefix="reading-")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        left = list(Path(self._scratch.name).iterdir())
        self._scratch.cleanup()
        assert not left, "temporary files have no names, so that none is left of a process that died"

    def outcome(self, task: Task, seconds: float = _PATIENCE) -> Outcome:
        """Return what comes of reading a recording."""
        process = self._process or self._start()
        began = time.monotonic()
        assert process.stdin
        try:
            process.stdin.write(json.dumps(asdict(task)).encode() + b"\n")
            process.stdin.flush()
            line = self._line(seconds)
        except BrokenPipeError:
            line = b""
        if line:
            told = json.loads(line)
            return Outcome(**{**told, "opened": tuple(told["opened"])})
        late = time.monotonic() - began >= seconds
        self._end()
        return Outcome(kind="late" if late else "died", seconds=time.monotonic() - began)

    def _start(self) -> subprocess.Popen[bytes]:
        self._process = subprocess.Popen(
            [*self._wrapper, sys.executable, "-m", "tests.reading", json.dumps(self._setup)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=ROOT,
            env={**os.environ, "TMPDIR": self._scratch.name},
        )
        if not self._line(120):
            raise RuntimeError("the reading process did not start")
        return self._process

    def _line(self, seconds: float) -> bytes:
        assert self._process
        assert self._process.stdout
        ready, _, _ = select.select([self._process.stdout], [], [], seconds)
        return self._process.stdout.readline() if ready else b""

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


# In the process


def main() -> None:
    """Read what the parent asks for until it closes the pipe."""
    import importlib

    from teleopen.converters import converters
    from teleopen.converters._sandbox import confine

    setup = json.loads(sys.argv[1])
    outlet = os.fdopen(os.dup(1), "wb")
    silence = os.open(os.devnull, os.O_RDWR)
    os.dup2(silence, 1)
    for name in _IMPORTS:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    known = converters()
    memory = _Memory()
    opened: list[str] = []
    installation = [*_SYSTEM, *_installation()]
    if setup["allowed"] is not None:
        confine([*installation, *setup["allowed"]], MEMORY)
    sys.addaudithook(lambda event, arguments: _note(event, arguments, opened))
    outlet.write(b"ready\n")
    outlet.flush()
    for line in sys.stdin.buffer:
        task = Task(**json.loads(line))
        opened.clear()
        memory.begin()
        began = time.process_time()
        found = _read(known[task.format](**task.options), Path(task.path))
        places = [*installation, str(Path(task.path).parent), os.environ["TMPDIR"]]
        beyond = sorted({place for place in opened if not _within(place, places)})
        found = replace(
            found, seconds=time.process_time() - began, peak=memory.growth(), opened=tuple(beyond[:5])
        )
        outlet.write(json.dumps(asdict(found)).encode() + b"\n")
        outlet.flush()


def _read(converter: Any, path: Path) -> Outcome:
    from teleopen.schemas import TeleopenError

    try:
        read_all(getattr(converter, "unconfined", converter.episodes)(path))
    except TeleopenError as error:
        return Outcome(kind="refused", error=f"{type(error).__name__}: {error}"[:2_000])
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is what the test asks about
        trace = "".join(traceback.format_exception(error)[-4:])
        return Outcome(kind="raised", error=trace[-3_000:])
    return Outcome(kind="read")


def read_all(episodes: Iterator[Any]) -> None:
    """Read whatever episodes hold."""
    for episode in episodes:
        for clock in episode.clocks.values():
            clock.read()
        for stream in episode.streams.values():
            for _ in stream:
                pass
            for _ in stream.packets.read() if stream.packets else ():
                pass


def _note(event: str, arguments: tuple[Any, ...], opened: list[str]) -> None:
    if event == "open" and isinstance(arguments[0], str | bytes):
        opened.append(os.path.realpath(os.fsdecode(arguments[0])))


def _within(path: str, places: Sequence[str]) -> bool:
    return any(Path(path).is_relative_to(os.path.realpath(place)) for place in places)


def _installation() -> list[str]:
    paths = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    return sorted(
        {*paths, sys.prefix, sys.base_prefix, *(str(ROOT / n) for n in ("schemas", "converters", "tests"))}
    )


class _Memory:
    """The process' own peak, by files of the kernel that are opened before nothing may be opened."""

    def __init__(self) -> None:
        self._status = os.open("/proc/self/status", os.O_RDONLY)
        self._reset = os.open("/proc/self/clear_refs", os.O_WRONLY)
        self._before = 0

    def begin(self) -> None:
        os.pwrite(self._reset, b"5", 0)
        self._before = self._bytes(b"VmRSS:")

    def growth(self) -> int:
        return self._bytes(b"VmHWM:") - self._before

    def _bytes(self, field: bytes) -> int:
        for line in os.pread(self._status, 1 << 16, 0).splitlines():
            if line.startswith(field):
                return int(line.split()[1]) * 1024
        raise LookupError(field)


if __name__ == "__main__":
    main()
