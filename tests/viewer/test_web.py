"""What --web serves: to this machine only, and from the moment that was asked for."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import psutil
import pytest
from PIL import Image
from teleopen.cli.main import main
from teleopen.hub import WriteOptions, create_store

from tests.viewer import numbered
from tests.viewer.conftest import need

pytest.importorskip("rerun", reason="the extra `viewer` is not installed")

from teleopen.viewer.process import LOOPBACK, silent
from teleopen.viewer.screen import is_somewhere
from teleopen.viewer.shot import photographed_pages

PATIENCE = 60.0
LINE = re.compile(r"open (http://\S+) in a browser")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Give a store of one episode of numbered frames."""
    create_store(tmp_path / "store").write([numbered.episode(40)], WriteOptions(profile="archive"))
    return tmp_path / "store"


@dataclass(frozen=True)
class Served:
    """What the command line serves: its page, and how the process tree of it is reached."""

    page: str
    process: psutil.Process

    def tree(self) -> list[psutil.Process]:
        return [self.process, *self.process.children(recursive=True)]

    def heard(self) -> set[str]:
        """Return the addresses that are listened at, as they are written."""
        every = [c for one in self.tree() for c in one.net_connections("inet")]
        return {c.laddr.ip for c in every if c.status == psutil.CONN_LISTEN}

    def ports(self) -> set[int]:
        every = [c for one in self.tree() for c in one.net_connections("inet")]
        return {c.laddr.port for c in every if c.status == psutil.CONN_LISTEN}


@contextmanager
def served(*words: str) -> Iterator[Served]:
    """Run the command line until its page is told; then end it as Ctrl-C does, which is no error."""
    with silent() as environment:
        process = subprocess.Popen(
            [sys.executable, "-m", "teleopen.cli", *words],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        assert process.stderr is not None
        children: list[psutil.Process] = []
        try:
            told = ""
            page = None
            for row in process.stderr:
                told += row
                if page := LINE.search(row):
                    break
            assert page, told
            found = Served(page[1], psutil.Process(process.pid))
            children = found.tree()[1:]
            yield found
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE) == 0
            _, alive = psutil.wait_procs(children, timeout=10)
            assert not alive, "a server outlives its command"
        finally:
            for one in (process, *children):
                with suppress(psutil.NoSuchProcess):
                    one.kill()
            process.wait()
            process.stderr.close()


@pytest.mark.slow
@pytest.mark.parametrize("at", [(), ("--at", "21")])
def test_view_serves_to_this_machine_only(at: tuple[str, ...], store: Path) -> None:
    with served("view", f"{store}#0", "--web", *at) as found:
        assert found.heard() == {LOOPBACK}
        with urllib.request.urlopen(found.page, timeout=PATIENCE) as answer:
            assert b"<html" in answer.read().lower()
        assert urlsplit(found.page).port in found.ports()


@pytest.mark.slow
def test_browse_serves_to_this_machine_only(store: Path, tmp_path: Path) -> None:
    with served("browse", str(store), "--web", "--cache", str(tmp_path / "cache")) as found:
        assert found.heard() == {LOOPBACK}
        with urllib.request.urlopen(found.page, timeout=PATIENCE) as answer:
            assert b"<html" in answer.read().lower()
        (catalogue,) = parse_qs(urlsplit(found.page).query)["url"]
        assert urlsplit(catalogue).port in found.ports()


@pytest.mark.slow
@pytest.mark.parametrize(("at", "frame"), [("21", 21), (f"{(35 + 0.4) / 30:.3f}s", 35)])
def test_view_in_a_browser_begins_at_the_frame_or_time_that_is_asked_for(
    at: str, frame: int, store: Path
) -> None:
    need("chromium")
    sought = numbered.frames(frame, frame + 1)[0].astype(float).mean(-1)
    with served("view", f"{store}#0", "--web", "--at", at) as found:
        (picture,) = photographed_pages([(f"{found.page}&renderer=webgl", [sought])])
    with Image.open(BytesIO(picture)) as image:
        screen = np.asarray(image.convert("RGB"), np.float64).mean(-1)
    assert is_somewhere(screen, sought)
    assert not is_somewhere(screen, numbered.frames(10, 11)[0].astype(float).mean(-1))


def test_view_tells_of_a_frame_that_is_not_there(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["view", f"{store}#0", "--web", "--at", "40"]) == 1
    assert "has no frame 40: it has 40" in capsys.readouterr().err
