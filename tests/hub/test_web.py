"""A web server is asked little, told off clearly, and forgiven what passes."""

from __future__ import annotations

import functools
import multiprocessing
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from teleopen.hub import web
from teleopen.hub.ranges import GAP, cut, merged
from teleopen.hub.storage import open_storage
from teleopen.schemas import DamageError, NotFoundError, StoreError

from tests.hub.web import Ranges, serving

DATA = bytes(i * 7 % 251 for i in range(300_000))


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "FIRST_PAUSE_S", 0.001)


@dataclass
class Script:
    """What a server does to the first requests, by their turn; after that it does as it should."""

    spoiled: list[str] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    lock: Any = field(default_factory=threading.Lock)

    def take(self, range_: str) -> str:
        with self.lock:
            self.seen.append(range_)
            return self.spoiled.pop(0) if self.spoiled else ""


class Spoiling(Ranges):
    """A server that fails as a script says."""

    def __init__(self, *args: Any, script: Script, **kwargs: Any) -> None:
        self.script = script
        super().__init__(*args, **kwargs)

    def do_GET(self) -> None:  # noqa: N802 - the server's word
        kind = self.script.take(self.headers.get("Range", ""))
        if kind.isdecimal():
            self.send_response(int(kind))
            self.send_header("Retry-After", "0")
            self.end_headers()
        elif kind == "drop":
            self.close_connection = True
        elif kind == "cut":
            self.send_response(206)
            self.send_header("Content-Range", "bytes 100-199/300000")
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(DATA[100:150])
        elif kind == "cut-silently":
            self.send_response(206)
            self.send_header("Content-Range", "bytes 100-199/300000")
            self.end_headers()
            self.wfile.write(DATA[100:150])
        elif kind == "other":
            self.send_response(206)
            self.send_header("Content-Range", "bytes 0-99/300000")
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(DATA[:100])
        elif kind == "slow":
            time.sleep(1)
            super().do_GET()
        elif kind.startswith("to "):
            self.send_response(302)
            self.send_header("Location", kind[3:])
            self.end_headers()
        else:
            super().do_GET()


@contextmanager
def spoiling(folder: Path, *spoiled: str) -> Iterator[tuple[Any, Script]]:
    folder.joinpath("store").mkdir(exist_ok=True)
    folder.joinpath("store/x").write_bytes(DATA)
    script = Script(list(spoiled))
    with serving(functools.partial(Spoiling, directory=str(folder), script=script)) as url:
        yield open_storage(url), script


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 900), st.integers(0, 300)), max_size=12))
def test_near_ranges_are_fetched_as_one_and_cut_apart_again(drawn: list[tuple[str, int, int]]) -> None:
    objects = {"a": DATA[:1200], "b": DATA[5000:6200]}
    ranges = [(key, start, start + size) for key, start, size in drawn]
    parts = merged(ranges, gap=50)
    found = {(key, start, stop): objects[key][start:stop] for key, start, stop in parts}
    assert cut(ranges, found) == [objects[key][start:stop] for key, start, stop in ranges]
    for (key, _, stop), (other, start, _) in pairwise(parts):
        assert key != other or start - stop >= 50


def test_a_gap_is_only_fetched_where_it_is_cheaper_than_a_request(tmp_path: Path) -> None:
    with spoiling(tmp_path) as (storage, script):
        near, far = 100 + GAP - 1, 200 + 2 * GAP
        asked = [("x", 0, 100), ("x", near, near + 1), ("x", far, far + 5), ("x", 50, 60)]
        assert storage.read_many(asked) == [DATA[start:stop] for _, start, stop in asked]
        assert sorted(script.seen) == sorted([f"bytes=0-{near}", f"bytes={far}-{far + 4}"])


@pytest.mark.parametrize(
    "spoiled",
    [("503",) * 4, ("429", "500", "408"), ("drop",) * 4, ("cut",) * 4, ("cut-silently",) * 4],
    ids=lambda spoiled: spoiled[0],
)
def test_what_passes_is_tried_again(tmp_path: Path, spoiled: tuple[str, ...]) -> None:
    with spoiling(tmp_path, *spoiled) as (storage, script):
        assert storage.read_many([("x", 100, 200)]) == [DATA[100:200]]
        assert len(script.seen) == len(spoiled) + 1
    with spoiling(tmp_path, "503", "500") as (storage, script):
        assert storage.read("x") == DATA
        assert storage.size("x") == len(DATA)


def test_only_the_range_that_failed_is_asked_for_again(tmp_path: Path) -> None:
    with spoiling(tmp_path, "503") as (storage, script):
        asked = [("x", at, at + 10) for at in (0, 100_000, 200_000)]
        assert storage.read_many(asked) == [DATA[start:stop] for _, start, stop in asked]
        assert len(script.seen) == 4


def test_a_server_that_says_nothing_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "SILENCE_S", 0.2)
    monkeypatch.setattr(web, "_sessions", {})
    with spoiling(tmp_path, "slow", "slow") as (storage, script):
        assert storage.read("x", 5, 9) == DATA[5:9]
        assert len(script.seen) == 3
        web._close()


def test_a_server_that_goes_on_failing_is_told_in_one_line(tmp_path: Path) -> None:
    with spoiling(tmp_path, *["503"] * 99) as (storage, script):
        with pytest.raises(StoreError, match=r"store/x: the server failed 5 times.*503"):
            storage.read("x", 0, 10)
        assert len(script.seen) == web.TRIES


@pytest.mark.parametrize(
    ("spoiled", "error", "why"),
    [
        ("403", StoreError, "answers 403"),
        ("404", NotFoundError, "not there"),
        ("other", StoreError, "another range"),
        ("to file:///etc/passwd", StoreError, "not safe"),
        ("to ", StoreError, "not safe"),
    ],
)
def test_what_does_not_pass_is_not_tried_again(tmp_path: Path, spoiled: str, error: Any, why: str) -> None:
    with spoiling(tmp_path, spoiled) as (storage, script):
        with pytest.raises(error, match=why):
            storage.read("x", 100, 200)
        assert len(script.seen) == 1


def test_a_server_that_sends_us_in_a_circle_is_left(tmp_path: Path) -> None:
    circle = spoiling(tmp_path, *["to /store/x?1", "to /store/x?2"] * 9)
    with circle as (storage, _), pytest.raises(StoreError, match="more than 5 times"):
        storage.read("x")


def test_a_server_that_ignores_ranges_does_not_send_a_file_for_a_part_of_it() -> None:
    sent = []

    class Endless(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(1 << 40))
            self.end_headers()
            try:
                while True:
                    sent.append(self.wfile.write(bytes(1 << 20)))
            except OSError:
                pass

        def log_message(self, *_args: object) -> None:
            pass

    with serving(Endless) as url:
        storage = open_storage(url)
        with pytest.raises(StoreError, match="ignores byte ranges"):
            storage.read_many([("x", 10, 20)])
        assert sum(sent) < 64 << 20


def test_an_object_that_ends_early_is_damage(tmp_path: Path) -> None:
    with spoiling(tmp_path) as (storage, _):
        assert storage.read("x", 299_990, 300_010) == DATA[-10:]
        assert storage.read("x", 400_000, 400_010) == b""
        for short in (("x", 299_990, 300_010), ("x", 400_000, 400_010)):
            with pytest.raises(DamageError, match="ends"):
                storage.read_many([short])


def _read_in_child(storage: Any, results: Any) -> None:
    results.put(storage.read("x", 5, 9))


# Python 3.12 warns of what is tried here.
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_process_that_was_forked_has_connections_of_its_own(tmp_path: Path) -> None:
    with spoiling(tmp_path) as (storage, _):
        assert storage.read("x", 5, 9) == DATA[5:9]
        context = multiprocessing.get_context("fork")
        results = context.Queue()
        children = [context.Process(target=_read_in_child, args=(storage, results)) for _ in range(3)]
        for child in children:
            child.start()
        assert [results.get(timeout=30) for _ in children] == [DATA[5:9]] * 3
        for child in children:
            child.join(30)
        assert storage.read("x", 6, 9) == DATA[6:9]
