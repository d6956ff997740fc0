"""Smaller copies of the cameras, beside those they are made from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from teleopen.hub import WriteOptions, create_store
from teleopen.hub.levels import derive, levels_of, open_level
from teleopen.hub.store import Store
from teleopen.hub.train import Sequential, Want, open_dataset
from teleopen.schemas import Rights, SchemaError

from tests.episodes import make

CAMERA = "observation.images.top"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = create_store(tmp_path / "store")
    made.write((make(seed=n, steps=40 + n) for n in range(3)), WriteOptions(profile="lossless"))
    return made


def test_a_level_holds_the_cameras_smaller_and_is_a_store(store: Store) -> None:
    done = derive(store, (24, 32), WriteOptions(profile="lossless"))
    level = open_level(store, (24, 32))
    assert done.url == level.url
    assert level.ids == store.ids
    assert not level.verify(decode=True).damage
    assert levels_of(store.storage) == [(24, 32)]
    episode = level.episode("1")
    assert list(episode.streams) == [CAMERA]
    assert episode.instructions == store.episode("1").instructions
    full = store.episode("1").streams[CAMERA].values().reshape(-1, 24, 2, 32, 2, 3).mean((2, 4))
    assert np.abs(episode.streams[CAMERA].values() - full).mean() < 1.5
    np.testing.assert_array_equal(episode.times(CAMERA), store.episode("1").times(CAMERA))
    fates = {fate.field: fate.fate for fate in episode.provenance.ledger}
    assert fates[CAMERA] == "transformed"
    assert fates["action"] == "dropped"


def test_a_reader_takes_the_level_by_the_size_that_is_asked_for(store: Store) -> None:
    def drawn(size: tuple[int, int]) -> tuple[np.ndarray, str]:
        windows = open_dataset(store).windows({CAMERA: Want(steps=(0,), size=size), "action": [0]})
        (job,) = windows.plan([1], [7]).jobs[CAMERA]
        return windows.batch([1], [7])[CAMERA][0, 0], job.reader.storage.url

    before, place = drawn((12, 16))
    assert place == store.url
    derive(store, (24, 32), WriteOptions(profile="lossless"))
    for size, from_level in (((24, 32), True), ((12, 16), True), ((30, 40), False)):
        _, place = drawn(size)
        assert place.endswith("levels/24x32") == from_level
    after, _ = drawn((12, 16))
    assert np.abs(before.astype(float) - after).mean() < 3


def test_a_level_follows_its_store(store: Store) -> None:
    derive(store, (24, 32))
    again = derive(store, (24, 32))
    assert again.written.added == ()
    store.set_rights(Rights(tier="open"), ["0"])
    store.write([make(seed=9, steps=20)])
    (left,) = store.withdraw(["1"], "consent")
    done = derive(store, (24, 32))
    level = open_level(store, (24, 32))
    assert done.withdrawn == (left,)
    assert set(level.ids) == set(store.ids)
    told = level.rights(store.ids[0])
    assert told.tier == "open"
    assert [parent.operation for parent in told.derived_from] == ["adapted"]
    assert all(level.why(episode) for episode in level.ids)


def test_episodes_that_are_not_in_the_level_are_read_from_the_store(store: Store) -> None:
    derive(store, (24, 32))
    store.write([make(seed=9, steps=20)])
    dataset = open_dataset(store)
    loader = dataset.windows({CAMERA: Want(steps=(0,), size=(24, 32))}).loader(16, Sequential(), threads=0)
    assert sum(len(batch["step"]) for batch in loader) == 40 + 41 + 42 + 20


def test_housekeeping_leaves_levels_alone(store: Store) -> None:
    derive(store, (24, 32))
    assert not store.verify().unclaimed
    assert store.gc(grace_s=0).removed == ()
    assert not open_level(store, (24, 32)).verify().damage


def test_pictures_are_not_made_larger(store: Store) -> None:
    with pytest.raises(SchemaError, match="smaller than 96"):
        derive(store, (96, 128))


def test_housekeeping_leaves_the_documents_of_a_published_place_alone(store: Store) -> None:
    for key in ("README.md", "NOTICE", "manifest.json", "LICENSES/MIT.txt", "index/episodes.parquet"):
        store.storage.create(key, b"of a published place")
    store.storage.create("segments/0123/left", b"by nobody")
    assert store.verify().unclaimed == ("segments/0123/left",)
    assert store.gc(grace_s=0).removed == ("segments/0123",)
