"""Training from a server: few requests, nothing twice, memory bounded, and the same windows."""

from __future__ import annotations

import functools
import gc
import hashlib
import multiprocessing
import random
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from teleopen.converters import registry
from teleopen.hub import WriteOptions, arrays, create_store
from teleopen.hub.cache import Cache
from teleopen.hub.catalog import Add, Catalog, File
from teleopen.hub.storage import open_storage
from teleopen.hub.train import Blocks, Permuted, Want, open_dataset
from teleopen.schemas import Episode

from tests.episodes import make
from tests.hub.web import Ranges, serving

CAMERAS = ("observation.images.top", "observation.images.side")
WANTS: dict[str, Any] = {**{camera: [-1, 0] for camera in CAMERAS}, "action": range(4), "phase": [0]}


class Counting(Ranges):
    """A server that waits before it answers, and keeps what it was asked for."""

    def __init__(self, *args: Any, seen: Seen, wait_s: float, **kwargs: Any) -> None:
        self.seen, self.wait_s = seen, wait_s
        super().__init__(*args, **kwargs)

    def do_GET(self) -> None:  # noqa: N802 - the server's word
        with self.seen.lock:
            self.seen.append(self.path)
            self.seen.steps += not self.seen.running
            self.seen.running += 1
            self.seen.together = max(self.seen.together, self.seen.running)
        time.sleep(self.wait_s)
        with self.seen.lock:
            self.seen.running -= 1
        super().do_GET()


class Seen(list[str]):
    """The paths that were asked for; how many at once, and how often after there were none."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()
        self.running = self.together = self.steps = 0

    def clear(self) -> None:
        super().clear()
        self.together = self.steps = 0


@contextmanager
def counting(folder: Path, wait_s: float = 0.0) -> Iterator[tuple[str, Seen]]:
    seen = Seen()
    handler = functools.partial(Counting, directory=str(folder), seen=seen, wait_s=wait_s)
    with serving(handler) as url:
        yield url, seen


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("remote")
    made = create_store(root / "store")
    episodes = (make(seed=n, steps=70, cameras=("top", "side"), imu=False) for n in range(6))
    made.write(episodes, WriteOptions(profile="stream", segment_episodes=2))
    return root


def test_a_window_costs_one_request_for_each_camera_and_one_round_trip(folder: Path) -> None:
    with counting(folder, wait_s=0.3) as (url, seen):
        windows = open_dataset(url).windows(WANTS)
        windows.batch(range(6), [0] * 6)
        seen.clear()
        windows.batch([3], [40])
        assert len(seen) == seen.together == len(CAMERAS)
        seen.clear()
        windows.batch([3], [32])  # its pictures lie in two chunks, one behind the other
        assert len(seen) == len(CAMERAS)


def test_what_a_cold_batch_needs_comes_in_three_steps(folder: Path) -> None:
    with counting(folder, wait_s=0.3) as (url, seen):
        windows = open_dataset(url).windows(WANTS)
        seen.clear()
        windows.batch([0, 2, 4], [5, 6, 7])
        documents = [path for path in seen if path.endswith("zarr.json")]
        assert len(documents) == len(set(documents)) == 2, "the first was read to look at its streams"
        assert seen.steps == 3, "documents, then indices and rows, then chunks"
        low_dim = [path for path in seen if "/action/" in path]
        assert len(low_dim) == len(set(low_dim)) == 3, "rows come whole, with their index"


def test_threads_that_begin_together_read_nothing_twice(folder: Path) -> None:
    with counting(folder) as (url, seen):
        windows = open_dataset(url).windows({"action": [0]})
        list(windows.loader(8, Permuted(1), threads=2))
        segments = [path for path in seen if "/segments/" in path]
        assert len(segments) == len(set(segments))


def test_rows_that_there_is_no_room_for_are_read_by_ranges(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = open_dataset(folder / "store")
    with counting(folder) as (url, seen):
        monkeypatch.setattr(arrays, "_room", arrays._Room(0))
        there = open_dataset(url)
        for wants in (WANTS, {"action": Want(seconds=(-0.05, 0.0), align="linear")}):
            mine, theirs = here.windows(wants), there.windows(wants)
            drawn = [0, 3, 5, 3], [0, 69, 33, 32]
            theirs.batch(*drawn)
            seen.clear()
            batch = theirs.batch(*drawn)
            assert len(seen) == len(set(seen)), "of one object only one range"
            for name, values in mine.batch(*drawn).items():
                np.testing.assert_array_equal(batch[name], values)
        assert len(there.windows({"action": [0]}, rate_hz=7)) == len(here.windows({"action": [0]}, rate_hz=7))
        np.testing.assert_array_equal(there.statistics("action").mean, here.statistics("action").mean)


def test_what_is_kept_of_remote_rows_is_bounded_and_given_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = arrays._Room(6000)
    monkeypatch.setattr(arrays, "_room", room)
    with counting(folder) as (url, _):
        dataset = open_dataset(url)
        dataset.windows({"action": [0], "phase": [0]}).batch(range(6), [0] * 6)
        assert 0 < room._used <= 6000
        del dataset
        gc.collect()
    assert room._used == 0


# ---------------------------------------------------------------- large


def _large(root: Path, segments: int, episodes: int) -> None:
    """Write the log of a large store: nothing but names, lengths and checksums."""
    storage = open_storage(root, create=True)
    catalog = Catalog(storage)
    catalog.create("test")
    random_ = random.Random(0)
    names = ("zarr.json", "episodes.parquet", "steps/action/c/0/0", "steps/timestamp/c/0")
    files = {name: File(100, "0" * 64) for name in names}
    for _ in range(segments):
        ids = [str(uuid.UUID(int=random_.getrandbits(128))) for _ in range(episodes)]
        add = Add(
            uuid.UUID(int=random_.getrandbits(128)).hex,
            files,
            {id: row for row, id in enumerate(ids)},
            {id: hashlib.sha256(id.encode()).hexdigest() for id in ids},
            {"tier": "closed"},
            {"steps": tuple(random_.randint(100, 500) for _ in ids)},
        )
        catalog.commit(lambda _state, add=add: [add], author="test")  # type: ignore[misc]  # told by name


def _open_large(url: str, wanted: int) -> None:
    dataset = open_dataset(url)
    assert len(dataset) == wanted
    assert dataset.subset(range(10)).places[3].row == 3


@pytest.mark.slow
def test_a_hundred_thousand_episodes_are_opened_with_three_requests(tmp_path: Path, peak_memory: Any) -> None:
    _large(tmp_path / "store", 99, 1011)
    with counting(tmp_path) as (url, seen):
        began = time.process_time()
        dataset = open_dataset(url)
        opened = time.process_time() - began
        assert len(seen) == 3, "head, checkpoint, and whether there is a newer entry"
        began = time.process_time()
        lengths = np.concatenate([dataset.shelf.lengths(n, "steps") for n in range(99)])
        assert lengths.sum() > 100 * len(dataset)
        assert time.process_time() - began < 1
        assert opened < 3, "a second, on a core of one's own"
        assert peak_memory(_open_large, url, 99 * 1011) < 300 << 20


def _rss() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


def _grown(root: str) -> float:
    """Return how the memory after 10^5 windows compares with that after 10^3."""
    wants = {"observation.images.top": [0], "action": range(2), "imu.accel": [0.0]}
    loader = open_dataset(root).windows(wants).loader(100, Blocks(20, 10, 1), threads=1)
    seen, early = 0, 0
    while seen < 100_000:
        for batch in loader:
            seen += len(batch["step"])
            early = early or (seen >= 1_000 and _rss())
    return _rss() / early


@pytest.mark.slow
def test_memory_does_not_grow_with_the_windows_that_were_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = create_store(tmp_path / "store")
    episodes = (make(seed=n, steps=200, size=(16, 16), depth=False) for n in range(20))
    made.write(episodes, WriteOptions(profile="stream", segment_episodes=2))
    # Each thread of each epoch may take another of glibc's arenas, up to a number: that is not our growth.
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        assert process.submit(_grown, str(tmp_path / "store")).result() < 1.1


@pytest.mark.parametrize("context", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_read_a_server_on_their_own_and_leave_nothing(
    no_leaks: None, folder: Path, context: str
) -> None:
    del no_leaks
    pytest.importorskip("torch", reason="PyTorch is not installed: this test needs a CPU build of it")
    from teleopen.hub.train.torch import TorchLoader

    with counting(folder) as (url, _):
        windows = open_dataset(url).windows(WANTS)
        windows.batch([0], [0])  # connections, locks and indices are there when a worker is forked
        loader = TorchLoader(windows.loader(16, Permuted(2)), workers=2, multiprocessing_context=context)
        for _ in range(2):
            drawn = [(int(e), int(s)) for b in loader for e, s in zip(b["episode"], b["step"], strict=True)]
            assert sorted(drawn) == [(e, s) for e in range(6) for s in range(70)]
    assert not multiprocessing.active_children()


# ---------------------------------------------------------------- every sample


SAMPLES = (
    "aloha_hdf5/act_sim_transfer_cube_raw/episode_0.hdf5",
    "lerobot/v3.0_aloha_sim_2tasks",
    "mcap/g1_foxglove_h264.mcap",
    "mcap/protobuf_and_json.mcap",
    "ros2_bag/g1_bottle_jazzy_mcap",
    "unitree_json/pick_bottle",
    "zarr_dp_umi/pusht_human.zarr",
)
STEPS = np.array([-2, 0, 1])


@pytest.mark.slow
@pytest.mark.parametrize("sample", SAMPLES)
def test_every_window_of_a_recording_is_a_slice_of_its_arrays(
    shared_data: Path, tmp_path: Path, sample: str
) -> None:
    source = shared_data / sample
    made = create_store(tmp_path / "store")
    made.write(islice(registry.converter_for(source).episodes(source), 1))
    cache = Cache(tmp_path / "cache")
    for episode in made:
        truth = _Plain(episode)
        main = max(truth.clocks, key=lambda name: len(truth.clocks[name]))
        streams = {name: clock for name, clock in truth.clock_of.items() if len(truth.clocks[clock])}
        wants = {
            name: Want(steps=tuple(STEPS.tolist()), layout="hwc")
            if clock == main
            else Want(seconds=(0.0,), layout="hwc")
            for name, clock in streams.items()
        }
        number = list(made.ids).index(episode.id)
        with counting(tmp_path) as (url, seen):
            places: tuple[tuple[Any, Any], ...] = ((made.url, None), (url, None), (url, cache), (url, cache))
            for where, kept in places:
                seen.clear()
                windows = open_dataset(where, cache=kept).subset([number]).windows(wants, clock=main)
                batches = list(windows.loader(16, Permuted(3), threads=2))
                steps = np.concatenate([batch["step"] for batch in batches])
                assert sorted(steps.tolist()) == list(range(len(truth.clocks[main])))
                for batch in batches:
                    _check(batch, truth, streams, main)
            assert not [path for path in seen if "/segments/" in path], "all of it was in the cache"


class _Plain:
    """The arrays of an episode: clocks and streams by name."""

    def __init__(self, episode: Episode) -> None:
        self.clocks = {name: clock.read() for name, clock in episode.clocks.items()}
        self.values = {name: stream.values() for name, stream in episode.streams.items()}
        self.clock_of = {name: stream.spec.clock for name, stream in episode.streams.items()}


def _check(batch: Mapping[str, NDArray[Any]], truth: _Plain, streams: Mapping[str, str], main: str) -> None:
    times = truth.clocks[main]
    for row, step in enumerate(batch["step"].tolist()):
        assert batch["time_ns"][row] == times[step]
        for name, clock in streams.items():
            if clock == main:
                index = np.clip(step + STEPS, 0, len(times) - 1)
                pad = index != step + STEPS
            else:
                index = np.searchsorted(truth.clocks[clock], times[[step]], side="right") - 1
                pad = index < 0
                index = np.maximum(index, 0)
            np.testing.assert_array_equal(batch[name][row], truth.values[name][index])
            assert (batch[f"{name}.pad"][row] | ~pad).all()
