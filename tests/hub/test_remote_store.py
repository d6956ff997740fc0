"""A store is the same behind a URL: read from a plain web server, written to S3, by many at once."""

from __future__ import annotations

import functools
import multiprocessing
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from teleopen.hub import Store, WriteOptions, create_store, open_store
from teleopen.schemas import Episode, StoreError

from tests.episodes import make
from tests.hub.bucket import Gate, s3_server
from tests.hub.web import Plain, Ranges, serving

OPTIONS = WriteOptions(workers=1, profile="lossless")
SOURCE = make(seed=1, steps=40)
CAMERA = "observation.images.top"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("web")
    create_store(root / "store").write([SOURCE, make(seed=2, steps=20)], OPTIONS)
    return root


def check(store: Store, source: Episode) -> None:
    found = store.episode(source.id)
    for name, stream in source.streams.items():
        np.testing.assert_array_equal(found.streams[name].values(), stream.values(), strict=True)


def test_a_web_server_serves_a_store(folder: Path) -> None:
    with serving(functools.partial(Ranges, directory=str(folder))) as url:
        store = open_store(url)
        check(store, SOURCE)
        np.testing.assert_array_equal(
            store.episode("0").streams[CAMERA].values(33, 35), SOURCE.streams[CAMERA].values(33, 35)
        )
        report = store.verify(decode=True)
        assert (report.damage, report.episodes) == ((), 2)
        with pytest.raises(StoreError):
            store.write([make(seed=3, steps=3)], OPTIONS)


def test_plain_zarr_reads_a_camera_from_a_web_server_in_a_cold_interpreter(folder: Path) -> None:
    segment = next(iter(open_store(folder / "store").state.segments))
    with serving(functools.partial(Ranges, directory=str(folder))) as url:
        code = (
            "import zarr, warnings; warnings.simplefilter('ignore')\n"
            f"a = zarr.open({url!r}, mode='r')['segments/{segment}/steps/{CAMERA}']\n"
            "print(int(a[33].astype('int64').sum()))"
        )
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(out) == int(SOURCE.streams[CAMERA].values(33, 34).astype("int64").sum())


def test_a_server_that_ignores_ranges_is_told_and_never_misread(folder: Path) -> None:
    with serving(functools.partial(Plain, directory=str(folder))) as url:
        store = open_store(url)
        with pytest.raises(StoreError, match="range"):
            store.episode("0").streams[CAMERA].values(0, 1)


@pytest.fixture(scope="module")
def gate() -> Iterator[Gate]:
    with s3_server() as gate:
        yield gate


def test_a_bucket_holds_a_store(gate: Gate) -> None:
    store = create_store("s3://hub/one")
    assert store.write([SOURCE], OPTIONS).added == (SOURCE.id,)
    assert create_store("s3://hub/one").write([SOURCE], OPTIONS).added == ()
    again = open_store("s3://hub/one")
    check(again, SOURCE)
    assert again.verify(decode=True).damage == ()
    entries = [
        key for method, key, condition in gate.seen if method == "PUT" and condition and "catalog/0" in key
    ]
    assert entries, "log entries are created only if absent"
    store.write([make(seed=2, steps=5)], OPTIONS)
    assert len(store.compact().removed) == 2
    store.gc(grace_s=0)
    assert (store.verify().damage, store.verify().unclaimed) == ((), ())
    check(open_store("s3://hub/one"), SOURCE)


def _write_some(root: str, writer: int, rounds: int) -> None:
    for i in range(rounds):
        episodes = [
            make(seed=100 * writer + i, steps=3, cameras=(), depth=False),
            make(seed=7, steps=3, cameras=()),
        ]
        create_store(root).write(episodes, OPTIONS, author=f"writer {writer}")


def test_sixteen_writers_lose_nothing(ram_path: Path) -> None:
    root = str(ram_path / "s")
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write_some, args=(root, w, 3)) for w in range(16)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    assert [writer.exitcode for writer in writers] == [0] * 16
    store = open_store(root)
    wanted = {
        make(seed=100 * w + i, steps=3, cameras=(), depth=False).id for w in range(16) for i in range(3)
    }
    assert set(store.ids) == wanted | {make(seed=7, steps=3, cameras=()).id}
    assert store.verify(decode=True).damage == ()
    store.gc(grace_s=0)
    assert store.verify().unclaimed == ()
