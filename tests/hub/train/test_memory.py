"""Memory is used again when nobody holds it, and never before."""

from __future__ import annotations

import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from teleopen.hub import WriteOptions, create_store
from teleopen.hub.train import Permuted, Want, memory, open_dataset
from teleopen.hub.train.memory import Memory

from tests.episodes import make

MIB = 1 << 20


def test_memory_that_nobody_holds_is_used_again() -> None:
    spare = Memory(8 * MIB)
    array = spare.empty((3, MIB), np.uint8)
    address = array.ctypes.data
    del array
    again = spare.empty((MIB, 3), np.int8)
    assert again.ctypes.data == address
    assert spare.empty((MIB, 3), np.int8).ctypes.data != address


@pytest.mark.parametrize(
    "held_by",
    [
        lambda array: array,
        lambda array: array[1:, ::2],
        lambda array: array.reshape(-1).view(np.uint16)[5:],
        lambda array: array.transpose(1, 0)[:4][2],
        memoryview,
        lambda array: np.asarray(memoryview(array)),
    ],
)
def test_memory_that_any_view_holds_is_nobody_elses(held_by: Any) -> None:
    spare = Memory(64 * MIB)
    held = held_by(spare.empty((4, MIB), np.uint8))
    held_bytes = np.asarray(held).tobytes()
    others = []
    for value in range(4):
        others.append(spare.empty((4, MIB), np.uint8))
        others[-1].fill(value)
    assert not any(np.shares_memory(np.asarray(held), other) for other in others)
    assert np.asarray(held).tobytes() == held_bytes


@pytest.mark.parametrize(("sizes", "kept"), [((1, 2, 3, 3, 3, 2, 3), 6), ((1, 2, 3, 4, 5, 3), 10)])
def test_no_more_is_kept_than_was_said_or_two_of_the_largest_take(sizes: list[int], kept: int) -> None:
    tracemalloc.start()
    try:
        spare = Memory(6 * MIB)
        arrays = [spare.empty((size * MIB,), np.uint8) for size in sizes]
        assert tracemalloc.get_traced_memory()[0] > sum(sizes) * MIB
        arrays.clear()
        assert tracemalloc.get_traced_memory()[0] < (kept + 1) * MIB
    finally:
        tracemalloc.stop()


def test_threads_do_not_get_the_same_memory() -> None:
    spare = Memory(16 * MIB)

    def work(number: int) -> bool:
        for _ in range(20):
            array = spare.empty((2 * MIB,), np.uint8)
            array.fill(number)
            if (array != number).any():
                return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_batches_that_are_kept_stay_as_they_are(
    dtype: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "LEAST_BYTES", 1)
    store = create_store(tmp_path / "store")
    store.write([make(seed=1, steps=24)], WriteOptions(profile="lossless"))
    camera = "observation.images.top"
    windows = open_dataset(store).windows({camera: Want(steps=(-1, 0), dtype=dtype)})
    kept = []
    for batch in windows.loader(4, Permuted(), threads=2):
        kept.append((batch["step"].tolist(), batch[camera][:, 1], batch[camera].copy()))
        del batch
    assert len(kept) == 6
    for steps, pictures, whole in kept:
        np.testing.assert_array_equal(pictures, whole[:, 1])
        again = windows.batch([0] * len(steps), steps)
        np.testing.assert_array_equal(pictures, again[camera][:, 1])
