"""Programs beside this one: started with a list of words, ended with it, listening on this machine only."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ..schemas import MissingExtraError

LOOPBACK = "127.0.0.1"
_PATIENCE = 60.0  # seconds that a program may take to listen; on busy machines they take long
_LAST_WORDS = 2_000


def free_port() -> int:
    """Return a port of this machine that nobody listens on now."""
    with socket.socket() as one:
        one.bind((LOOPBACK, 0))
        return int(one.getsockname()[1])


@dataclass(slots=True)
class Program:
    """A program that runs, and what it has said so far."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    ports: Sequence[int] = field(default=())

    def said(self) -> str:
        """Return the end of what it has said."""
        return self.log.read_bytes()[-_LAST_WORDS:].decode(errors="replace").strip()

    def check(self) -> None:
        """Tell if it has ended.

        Raises
        ------
        MissingExtraError
            With its last words.
        """
        if self.process.poll() is not None:
            raise MissingExtraError(f"{self.name} ended with code {self.process.returncode}: {self.said()}")

    def wait_until_it_listens(self) -> None:
        """Wait for all of its ports.

        Raises
        ------
        MissingExtraError
            If it ends before that, or takes too long.
        """
        end = time.monotonic() + _PATIENCE
        for port in self.ports:
            while not _listens(port):
                self.check()
                if time.monotonic() > end:
                    raise MissingExtraError(
                        f"{self.name} does not listen after {_PATIENCE:.0f} s: {self.said()}"
                    )
                time.sleep(0.05)


def _listens(port: int) -> bool:
    with socket.socket() as one:
        one.settimeout(1)
        return one.connect_ex((LOOPBACK, port)) == 0


@contextmanager
def running(
    words: Sequence[str | Path],
    *,
    ports: Sequence[int] = (),
    environment: Mapping[str, str] | None = None,
    inherited: Sequence[int] = (),
) -> Iterator[Program]:
    """Run a program while the block runs.

    Parameters
    ----------
    ports
        What it will listen on.
    environment
        Variables that differ from ours.
    inherited
        File descriptors that it may use.

    Raises
    ------
    MissingExtraError
        If it cannot be started, or does not come to listen on the ports.
    """
    with tempfile.TemporaryDirectory(prefix="teleopen-") as folder:
        log = Path(folder, "log")
        with log.open("wb") as output:
            try:
                process = subprocess.Popen(
                    list(map(str, words)),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **(environment or {})},
                    pass_fds=tuple(inherited),
                )
            except OSError as error:
                raise MissingExtraError(f"{words[0]} cannot be started: {error.strerror}") from error
        program = Program(Path(words[0]).name, process, log, ports)
        try:
            program.wait_until_it_listens()
            yield program
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def silent() -> Iterator[Mapping[str, str]]:
    """Give an environment in which Rerun tells nobody that it was used, whatever its user has chosen."""
    folder = Path(tempfile.mkdtemp(prefix="teleopen-"))
    try:
        told = folder / "rerun" / "analytics.json"
        told.parent.mkdir()
        told.write_text(json.dumps({"analytics_enabled": False, "analytics_id": "", "metadata": {}}))
        yield {"XDG_CONFIG_HOME": str(folder), "XDG_DATA_HOME": str(folder)}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
