"""A writer may die, or the disk fail, at any step: the store stays whole, and the next run finishes the work.

`teleopen.hub.disk` reaches the disk through the names of `os` only. Here each of those names counts its
calls, and at the n-th one the process ends (`os._exit`, as a killed process does) or the call fails, for
every n.
"""

from __future__ import annotations

import errno
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from teleopen.hub import WriteOptions, create_store, disk, open_store
from teleopen.schemas import Episode, StoreError, TeleopenError

from tests.episodes import make
from tests.measure import in_fresh_process

EFFECTS = ("open", "write", "fsync", "close", "rename", "link", "unlink", "mkdir", "rmdir")
OPTIONS = WriteOptions(workers=1, segment_episodes=1, profile="lossless")
DIED = 77
SIZE: dict[str, Any] = {"size": (16, 16), "steps": 9, "imu": False}
FIRST = make(seed=1, depth=False, cameras=(), **SIZE)
WANTED = [make(seed=2, **SIZE)]
MANY = [*WANTED, make(seed=3, depth=False, cameras=(), **SIZE)]


class CountedOs:
    """The `os` module, but the n-th effect on the disk does something else."""

    def __init__(self, at: int, fault: Callable[[], None]) -> None:
        self.at, self.fault, self.calls = at, fault, 0

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in EFFECTS:
            return real

        def effect(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            if self.calls == self.at:
                if name == "write" and len(args[1]) > 1:
                    real(args[0], args[1][: len(args[1]) // 2])  # a write that was cut in the middle
                self.fault()
            return real(*args, **kwargs)

        return effect


def die() -> None:
    os._exit(DIED)


def fail(number: int) -> Callable[[], None]:
    def fault() -> None:
        raise OSError(number, os.strerror(number))

    return fault


def write(root: Path, at: int, fault: Callable[[], None], episodes: list[Episode] | None = None) -> int:
    """Write episodes with a fault at one effect on the disk; return how many effects there were."""
    counted = CountedOs(at, fault)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(disk, "os", counted)  # the one name through which the disk is reached
        create_store(root).write(episodes or WANTED, OPTIONS, author="test")
    return counted.calls


def _child(root: Path, at: int, episodes: list[Episode]) -> None:
    write(root, at, die, episodes)


def prepare(root: Path) -> None:
    create_store(root).write([FIRST], OPTIONS, author="test")


def check_whole(root: Path, held: set[str]) -> None:
    """Assert that a store opens, verifies and holds just the episodes, each with its samples."""
    store = open_store(root)
    report = store.verify()
    assert report.damage == ()
    assert set(store.ids) == held
    for source in [FIRST, *WANTED]:
        if source.id in held:
            got = store.episode(source.id).streams["action"].values()
            np.testing.assert_array_equal(got, source.streams["action"].values())


def check_converges(root: Path) -> None:
    create_store(root).write([FIRST, *WANTED], OPTIONS, author="test")
    check_whole(root, {e.id for e in [FIRST, *WANTED]})
    store = open_store(root)
    store.gc(grace_s=0)
    assert store.verify().unclaimed == ()
    assert not any(root.joinpath(".staging").glob("*"))


def effects(folder: Path, episodes: list[Episode]) -> int:
    """Return how many effects on the disk an undisturbed write has."""
    root = folder / "count"
    prepare(root)
    return write(root, -1, die, episodes)


def test_a_writer_killed_at_any_step_leaves_old_or_new_and_the_next_run_converges(ram_path: Path) -> None:
    in_fresh_process(_kill_at_any_step, ram_path)


def _kill_at_any_step(ram_path: Path) -> None:
    prepare(ram_path / "model")
    context = multiprocessing.get_context("fork")
    total = effects(ram_path, WANTED)
    assert total > 100
    states = set()
    for at in range(1, total + 1):
        root = ram_path / f"kill{at}"
        _copy(ram_path / "model", root)
        child = context.Process(target=_child, args=(root, at, WANTED))
        child.start()
        child.join(60)
        assert child.exitcode == DIED, f"effect {at}"
        held = set(open_store(root).ids)
        assert held in ({FIRST.id}, {e.id for e in [FIRST, *WANTED]}), f"effect {at}"
        check_whole(root, held)
        states.add(len(held))
        check_converges(root)
        disk.remove_tree(root)
    assert states == {1, 2}, "the commit lies before the last effect"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_fails_at_any_step_gives_one_clear_error(ram_path: Path, number: int) -> None:
    prepare(ram_path / "model")
    total = effects(ram_path, WANTED)
    for at in range(1, total + 1):
        root = ram_path / f"fail{at}"
        _copy(ram_path / "model", root)
        told: TeleopenError | None = None
        try:
            write(root, at, fail(number))
        except TeleopenError as error:
            told = error
        assert told is None or (isinstance(told, StoreError) and told.why), f"effect {at}"
        held = set(open_store(root).ids)
        everything = {e.id for e in [FIRST, *WANTED]}
        assert held in ({FIRST.id}, everything), f"effect {at}"
        assert held == everything or told, f"effect {at}"
        check_whole(root, held)
        disk.remove_tree(root)


def _copy(source: Path, target: Path) -> None:
    import shutil

    shutil.copytree(source, target)


def test_a_killed_conversion_goes_on_from_its_finished_segments(ram_path: Path) -> None:
    in_fresh_process(_kill_before_the_commit, ram_path)


def _kill_before_the_commit(ram_path: Path) -> None:
    prepare(ram_path / "model")
    context = multiprocessing.get_context("fork")
    for at in range(effects(ram_path, MANY), 0, -1):
        root = ram_path / f"kill{at}"
        _copy(ram_path / "model", root)
        child = context.Process(target=_child, args=(root, at, MANY))
        child.start()
        child.join(60)
        notes = list(root.joinpath(".staging").glob("*.staged.json"))
        if set(open_store(root).ids) == {FIRST.id} and len(notes) == len(MANY):
            break
    report = create_store(root).write(MANY, OPTIONS)
    assert set(report.resumed) == {e.id for e in MANY}
    assert set(open_store(root).ids) == {e.id for e in [FIRST, *MANY]}
    assert not open_store(root).verify(decode=True).damage
