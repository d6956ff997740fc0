"""The disk cache of remote stores."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from teleopen.hub import WriteOptions, create_store
from teleopen.hub.cache import Cache, CachedStorage
from teleopen.hub.storage import open_storage
from teleopen.hub.train import open_dataset

from tests.episodes import make
from tests.hub.web import Ranges, serving

CAMERA = "observation.images.top"


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def test_the_second_time_nothing_is_asked_of_the_server(tmp_path: Path, cache: Cache) -> None:
    made = create_store(tmp_path / "store")
    made.write([make(seed=1, steps=70)], WriteOptions(profile="stream"))
    asked: list[str] = []

    class Counting(Ranges):
        def do_GET(self) -> None:  # noqa: N802 - the server's word
            asked.append(self.path)
            super().do_GET()

    def handler(*args: object, **kwargs: object) -> Counting:
        return Counting(*args, directory=str(tmp_path), **kwargs)  # type: ignore[arg-type]

    wants = {CAMERA: [-1, 0], "action": range(3)}
    with serving(handler) as url:
        first = list(open_dataset(url, cache=cache).windows(wants).loader(16, threads=0))
        before = len([path for path in asked if "/segments/" in path])
        assert before > 0
        second = list(open_dataset(url, cache=cache).windows(wants).loader(16, threads=0))
        assert len([path for path in asked if "/segments/" in path]) == before
    plain = list(open_dataset(made).windows(wants).loader(16, threads=0))
    for name, values in plain[1].items():
        np.testing.assert_array_equal(first[1][name], values)
        np.testing.assert_array_equal(second[1][name], values)


def test_a_part_that_was_changed_or_cut_is_fetched_again(cache: Cache) -> None:
    cache.put("segments/a/x", 3, 9, b"abcdef")
    assert cache.get("segments/a/x", 3, 9) == b"abcdef"
    (part,) = cache.folder.glob("*/*")
    for raw in (b"abcdeg" + part.read_bytes()[-4:], part.read_bytes()[:5], b""):
        part.write_bytes(raw)
        assert cache.get("segments/a/x", 3, 9) is None
    assert (cache.hits, cache.misses) == (1, 3)


def test_it_stays_below_its_bound_and_keeps_what_was_used_last(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", most_bytes=100_000)
    for number in range(300):
        cache.put(f"segments/a/{number}", 0, 1000, bytes(1000))
        for path in cache.folder.glob("*/*"):
            os.utime(path, (number, number)) if path.stat().st_mtime > 10_000 else None
    cache.clear()
    size = sum(path.stat().st_size for path in cache.folder.glob("*/*"))
    assert size <= 100_000
    assert cache.get("segments/a/299", 0, 1000) is not None
    assert cache.get("segments/a/0", 0, 1000) is None


def test_a_full_disk_is_only_a_cache_that_keeps_nothing(tmp_path: Path, cache: Cache) -> None:
    cache.folder.rmdir()
    cache.folder.write_bytes(b"")
    cache.put("segments/a/x", 0, 3, b"abc")
    assert cache.get("segments/a/x", 0, 3) is None


def test_what_can_change_is_never_kept(tmp_path: Path, cache: Cache) -> None:
    storage = open_storage("memory://cached")
    cached = CachedStorage(storage, cache)
    storage.create("catalog/head", b"one")
    assert cached.read("catalog/head") == b"one"
    storage.replace("catalog/head", b"two")
    assert cached.read("catalog/head") == b"two"
    storage.create("segments/a/x", b"0123456789")
    assert cached.read("segments/a/x") == b"0123456789"
    assert cached.read_many([("segments/a/x", 1, 3), ("segments/a/x", 1, 3)]) == [b"12", b"12"]
    storage.delete(["segments/a/x"])
    copy = pickle.loads(pickle.dumps(cached))
    assert copy.read("segments/a/x", 1, 3) == b"12"
    assert copy.read("segments/a/x") == b"0123456789"
