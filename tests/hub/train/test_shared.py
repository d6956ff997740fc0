"""Memory that a worker decodes into and another process reads: never copied, never used too early."""

from __future__ import annotations

import gc
import pickle
import random
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
import pytest
from teleopen.hub.train import shared
from teleopen.hub.train.shared import SharedMemory
from teleopen.schemas import Array

from tests.measure import leaking_nothing

pytestmark = pytest.mark.skipif(not shared.IS_AVAILABLE, reason="this system has no memory without a name")

MIB = 1 << 20


def sent(memory: SharedMemory, values: Array) -> Callable[[], Array]:
    """Return the note of an array as it comes out of a queue's other end."""
    note = memory.handed(values)
    assert note is not None
    found: Callable[[], Array] = pickle.loads(ForkingPickler.dumps(note))
    return found


@pytest.mark.parametrize("part", [np.s_[:], np.s_[1:, ::-1], np.s_[:, :, 3]])
def test_an_array_arrives_as_it_is(part: Any) -> None:
    memory = SharedMemory(64 * MIB)
    values = memory.empty((4, 8, 1024, 16), "<f4")
    values[...] = np.random.default_rng(0).normal(size=values.shape)
    values = values.transpose(0, 3, 2, 1)[part]
    found = sent(memory, values)()
    np.testing.assert_array_equal(found, values)
    assert (found.dtype, found.strides) == (values.dtype, values.strides)
    values[...] = 7  # nothing was copied
    assert (found == 7).all()


def test_memory_is_used_again_only_when_both_sides_have_let_go() -> None:
    memory = SharedMemory(64 * MIB)

    def address() -> int:
        return int(memory.empty((2 * MIB,), np.uint8).ctypes.data)

    array = memory.empty((2 * MIB,), np.uint8)
    first = int(array.ctypes.data)
    assert address() != first, "held here"
    note = sent(memory, array)
    del array
    assert address() != first, "on its way"
    view = note()[5:9][1:]
    assert address() != first, "held there"
    del note, view
    assert address() == first


def test_what_is_handed_in_parts_is_free_when_all_parts_are_back() -> None:
    memory = SharedMemory(64 * MIB)
    array = memory.empty((4, MIB), np.uint8)
    first = int(array.ctypes.data)
    parts = [sent(memory, array[at])() for at in range(4)]
    del array
    for _ in range(4):
        assert memory.empty((4, MIB), np.uint8).ctypes.data != first
        parts.pop()
    assert memory.empty((4, MIB), np.uint8).ctypes.data == first


def test_no_more_is_kept_than_allowed() -> None:
    memory = SharedMemory(4 * MIB)
    kept = [memory.empty((2 * MIB,), np.uint8) for _ in range(2)]
    beyond = memory.empty((2 * MIB,), np.uint8)
    assert memory.handed(beyond) is None
    assert all(memory.handed(array) for array in kept)
    assert memory.handed(memory.empty((100,), np.uint8)) is None, "little is sent as it is"
    kept.clear()
    other = memory.empty((3 * MIB,), np.uint8)  # of another size, in the place of those
    assert memory.handed(other) is None, "one of them is still on its way"


def test_files_are_closed() -> None:
    with leaking_nothing(grace_s=5):
        memory = SharedMemory(64 * MIB)
        found = [sent(memory, memory.empty((2 * MIB,), np.uint8))() for _ in range(5)]
        del found, memory
        gc.collect()
        from multiprocessing import resource_sharer

        resource_sharer.stop()


@pytest.mark.parametrize("seed", range(5))
def test_whatever_is_held_stays_as_it_is(seed: int) -> None:
    chance, memory = random.Random(seed), SharedMemory(12 * MIB)
    here: list[tuple[int, Array]] = []
    there: list[tuple[int, Array]] = []
    waiting: list[tuple[int, Callable[[], Array]]] = []
    for step in range(300):
        match chance.randrange(4):
            case 0:
                array = memory.empty((chance.choice([1, 2, 3]) * MIB,), np.uint8)
                array[:: 4096 + chance.randrange(9)] = step % 251
                here.append((step % 251, array))
                array.fill(step % 251)
                del array
            case 1 if here:
                value, array = here.pop(chance.randrange(len(here)))
                if memory.handed(array) is not None:
                    waiting.append((value, sent(memory, array)))
                del array
            case 2 if waiting:
                value, note = waiting.pop(0)
                there.append((value, note()[chance.randrange(99) :]))
            case 3 if there:
                there.pop(chance.randrange(len(there)))
        assert all((array[::65536] == value).all() for value, array in [*here, *there])
        if len(here) > 6:
            here.pop(0)
