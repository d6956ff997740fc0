"""Large conversions: jobs side by side, one commit, and what goes wrong on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from teleopen.hub import WriteOptions, create_store, open_store
from teleopen.hub import fleet as fleet_module
from teleopen.hub.fleet import cluster_size, crew_of, ingest
from teleopen.hub.jobs import Tick
from teleopen.hub.store import Store
from teleopen.hub.verify import verify
from teleopen.schemas import FormatError, StoreError

from tests.episodes import make
from tests.fleet import MadeUpRecording

FAST = WriteOptions(workers=1, profile="stream")


@contextmanager
def threads() -> Iterator[Executor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return create_store(str(tmp_path / "store"))


def ids(*seeds: int) -> list[str]:
    return [make(seed=seed, steps=12, depth=False, imu=False).id for seed in seeds]


def recordings(*groups: tuple[int, ...]) -> list[MadeUpRecording]:
    return [MadeUpRecording(group) for group in groups]


def assert_holds(store: Store, *seeds: int) -> None:
    fresh = open_store(store.url)
    assert list(fresh.ids) == ids(*seeds)
    assert not verify(fresh.storage).damage
    left = [p.name for p in fresh.storage.staging().iterdir() if ".tick" in p.name or "staged" in p.name]
    assert left == []


def test_jobs_of_any_executor_are_one_commit_in_the_order_of_the_sources(store: Store) -> None:
    ticks: list[Tick] = []
    before = store.state.version
    done = ingest(
        store, recordings((1, 2), (3,), (4,), (5,)), FAST, crew=threads, workers=2, watch=ticks.extend
    )
    assert list(done.written.added) == ids(1, 2, 3, 4, 5)
    assert store.state.version == before + 1
    assert [seen.episodes for seen in done.seen] == [tuple(ids(1, 2)), *((i,) for i in ids(3, 4, 5))]
    assert_holds(store, 1, 2, 3, 4, 5)


def test_an_episode_that_two_jobs_meet_is_added_once(store: Store) -> None:
    done = ingest(store, recordings((1,), (2,), (1,), (2, 3)), FAST, crew=threads, workers=2)
    assert sorted(done.written.added) == sorted(ids(1, 2, 3))
    assert sorted(done.written.skipped) == sorted(ids(1, 2))
    assert not verify(open_store(store.url).storage).damage


@pytest.mark.parametrize("crew", [None, threads])
def test_what_is_bad_is_left_out_and_what_shared_its_segment_is_not(
    store: Store, crew: fleet_module.Crew | None
) -> None:
    bad = MadeUpRecording((3, 4, 5), broken=4)
    cut = MadeUpRecording((6,), headless=True)
    done = ingest(store, [MadeUpRecording((1, 2)), bad, cut, MadeUpRecording((7,))], FAST, crew=crew)
    assert [(f.recording, f.episode) for f in done.failures] == [(bad.name, ids(4)[0]), (cut.name, "")]
    assert isinstance(done.failures[0].error, FormatError)
    assert_holds(store, 1, 2, 3, 5, 6, 7)


@pytest.mark.parametrize("crew", [None, threads])
def test_strict_leaves_the_store_as_it_was(store: Store, crew: fleet_module.Crew | None) -> None:
    before = store.state.version
    with pytest.raises(FormatError, match="is cut off"):
        ingest(store, [MadeUpRecording((1,)), MadeUpRecording((2,), broken=2)], FAST, crew=crew, strict=True)
    assert open_store(store.url).state.version == before
    ingest(store, recordings((1,)), FAST)
    assert_holds(store, 1)


def test_where_all_is_bad_that_is_the_error(store: Store) -> None:
    with pytest.raises(FormatError, match="is cut off"):
        ingest(store, [MadeUpRecording((2,), broken=2)], FAST)
    assert len(open_store(store.url)) == 0


def test_a_recording_that_may_be_none_is_passed_over(store: Store, tmp_path: Path) -> None:
    from teleopen.cli.intake import Recorded

    (tmp_path / "notes.h5").write_text("no recording")
    odd = Recorded(name=str(tmp_path / "notes.h5"), optional=True)
    done = ingest(store, [MadeUpRecording((1,)), odd], FAST)
    assert [seen.format for seen in done.seen] == ["made-up", ""]
    assert done.failures == ()


def test_processes_do_the_work(store: Store) -> None:
    done = ingest(store, recordings((1,), (2,), (3,), (4,)), FAST, crew=crew_of(2), workers=2)
    assert list(done.written.added) == ids(1, 2, 3, 4)
    assert_holds(store, 1, 2, 3, 4)


def test_a_worker_that_is_killed_costs_its_job_only_once(store: Store, tmp_path: Path) -> None:
    deaths = tmp_path / "deaths"
    deaths.mkdir()
    killer = MadeUpRecording((2,), kills=str(deaths), deaths=1)
    done = ingest(store, [*recordings((1,)), killer, *recordings((3,))], FAST, crew=crew_of(2), workers=2)
    assert done.lost >= 1
    assert done.failures == ()
    assert_holds(store, 1, 2, 3)


def test_a_recording_that_kills_whoever_reads_it_is_left_out_alone(store: Store, tmp_path: Path) -> None:
    deaths = tmp_path / "deaths"
    deaths.mkdir()
    killer = MadeUpRecording((2,), kills=str(deaths), deaths=99)
    done = ingest(store, [*recordings((1,)), killer, *recordings((3,))], FAST, crew=crew_of(2), workers=2)
    assert [f.recording for f in done.failures] == [killer.name]
    assert "died" in str(done.failures[0].error)
    assert sorted(open_store(store.url).ids) == sorted(ids(1, 3))


KILLED = """
import os, signal, sys
from teleopen.hub import WriteOptions, create_store
from teleopen.hub import fleet
from tests.fleet import MadeUpRecording

fleet.land = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
store = create_store(sys.argv[1])
sources = [MadeUpRecording((n,)) for n in range(1, 5)]
if __name__ == "__main__":
    options = WriteOptions(workers=1, profile="stream")
    fleet.ingest(store, sources, options, crew=fleet.crew_of(2), workers=2)
"""


def test_a_run_that_is_killed_before_its_commit_is_taken_up(store: Store, tmp_path: Path) -> None:
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    root = Path(__file__).parents[2]
    env = {**os.environ, "PYTHONPATH": str(root)}
    ended = subprocess.run([sys.executable, script, store.url], cwd=root, env=env, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert len(open_store(store.url)) == 0
    done = ingest(store, recordings((1,), (2,), (3,), (4,)), FAST, crew=threads, workers=2)
    assert sorted(done.written.resumed) == sorted(ids(1, 2, 3, 4))
    assert_holds(store, 1, 2, 3, 4)


def test_a_cluster_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr(fleet_module, "_PATIENCE_S", 1)
    with pytest.raises(StoreError, match="no Dask scheduler answers there"):
        cluster_size("tcp://127.0.0.1:9")


@pytest.mark.filterwarnings("default")
def test_a_dask_cluster_of_separate_processes_loses_nothing_with_a_worker(
    store: Store, tmp_path: Path
) -> None:
    distributed = pytest.importorskip("distributed")
    deaths = tmp_path / "deaths"
    deaths.mkdir()
    killer = MadeUpRecording((2,), kills=str(deaths), deaths=1)
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=None
    ) as cluster:
        assert cluster_size(cluster.scheduler_address) == 2
        began = time.monotonic()
        done = ingest(
            store,
            [*recordings((1,)), killer, *recordings((3,), (4, 5))],
            FAST,
            crew=crew_of(0, cluster.scheduler_address),
            workers=2,
        )
        assert time.monotonic() - began < 120
    assert len(list(deaths.iterdir())) == 1
    assert done.failures == ()
    assert_holds(store, 1, 2, 3, 4, 5)
