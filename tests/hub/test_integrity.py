"""Damage of any kind to any file of a store is found, and a damaged camera chunk never gives a picture."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from teleopen.hub import Store, WriteOptions, create_store, open_store
from teleopen.hub.catalog import Withdraw
from teleopen.hub.verify import verify
from teleopen.schemas import NotFoundError, Rights, TeleopenError

from tests.episodes import make

ROUNDS = 2000
GATED = Rights.from_document({**Rights().to_document(), "tier": "gated"})


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two segments, a change of rights and several commits."""
    root = tmp_path_factory.mktemp("pristine") / "s"
    store = create_store(root)
    options = WriteOptions(workers=2)
    store.write([make(seed=1, steps=40), make(seed=2, steps=40)], options)
    store.write([make(seed=3, steps=20, depth=False)], options)
    store.set_rights(GATED, ["1"])
    assert not store.verify().damage
    return root


def files_of(root: Path) -> list[Path]:
    return sorted(p for p in root.rglob("*") if p.is_file() and ".staging" not in p.parts)


def flip(path: Path, files: list[Path], rng: random.Random) -> bool:
    data = bytearray(path.read_bytes())
    at = rng.randrange(len(data))
    data[at] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    return True


def cut(path: Path, files: list[Path], rng: random.Random) -> bool:
    data = path.read_bytes()
    path.write_bytes(data[: rng.randrange(len(data))])
    return True


def delete(path: Path, files: list[Path], rng: random.Random) -> bool:
    path.unlink()
    return True


def extend(path: Path, files: list[Path], rng: random.Random) -> bool:
    path.write_bytes(path.read_bytes() + rng.randbytes(rng.randrange(1, 40)))
    return True


def swap(path: Path, files: list[Path], rng: random.Random) -> bool:
    other = rng.choice(files)
    one, two = path.read_bytes(), other.read_bytes()
    path.write_bytes(two)
    other.write_bytes(one)
    return one != two


def zero(path: Path, files: list[Path], rng: random.Random) -> bool:
    data = bytearray(path.read_bytes())
    at = rng.randrange(len(data))
    end = at + rng.randrange(1, 200)
    blank = bytes(len(data[at:end]))
    changed = data[at:end] != blank
    data[at:end] = blank
    path.write_bytes(data)
    return changed


DAMAGES: list[Callable[[Path, list[Path], random.Random], bool]] = [
    flip,
    flip,
    flip,
    cut,
    delete,
    extend,
    swap,
    zero,
]


def test_verify_finds_every_damage(pristine: Path, ram_path: Path) -> None:
    root = ram_path / "s"
    shutil.copytree(pristine, root)
    files = files_of(root)
    kept = {path: path.read_bytes() for path in files}
    storage = open_store(root).storage
    rng = random.Random(20261121)
    missed = []
    done = 0
    while done < ROUNDS:
        damage = DAMAGES[done % len(DAMAGES)]
        # Every file has its turn, and large files are hit as often as small ones.
        path = files[done % len(files)]
        if damage(path, files, rng):
            done += 1
            if not verify(storage).damage:
                missed.append((damage.__name__, path.relative_to(root)))
        for file in files:
            if not file.exists() or file.read_bytes() != kept[file]:
                file.write_bytes(kept[file])
    assert missed == []
    assert not verify(storage).damage


def test_a_damaged_camera_or_depth_chunk_raises_when_read(pristine: Path, tmp_path: Path) -> None:
    root = tmp_path / "s"
    shutil.copytree(pristine, root)
    truth = open_store(root).episode("0").streams
    rng = random.Random(7)
    for name in ("observation.images.top", "observation.depth.top"):
        whole = truth[name].values()
        shards = [p for p in files_of(root) if f"/{name}/c/" in p.as_posix()]
        for _ in range(150):
            path = rng.choice(shards)
            kept = path.read_bytes()
            rng.choice([flip, cut, zero])(path, shards, rng)
            try:
                got = open_store(root).episode("0").streams[name].values()
                # The damage may lie in another episode's chunk; what is given must then be right.
                np.testing.assert_array_equal(got, whole)
            except TeleopenError:
                pass
            path.write_bytes(kept)


def test_what_nobody_claims_is_named_and_is_no_damage(pristine: Path, tmp_path: Path) -> None:
    root = tmp_path / "s"
    shutil.copytree(pristine, root)
    root.joinpath("segments", "0" * 32).mkdir()
    root.joinpath("segments", "0" * 32, "zarr.json").write_text("{}")
    report = open_store(root).verify()
    assert report.damage == ()
    assert report.unclaimed == (f"segments/{'0' * 32}/zarr.json",)


def test_garbage_is_collected_after_its_grace_and_data_never(pristine: Path, tmp_path: Path) -> None:
    root = tmp_path / "s"
    shutil.copytree(pristine, root)
    store = open_store(root)
    before = {p.relative_to(root): p.read_bytes() for p in files_of(root)}
    orphan = root / "segments" / ("0" * 32)
    orphan.mkdir()
    orphan.joinpath("zarr.json").write_text("{}")
    staged = root / ".staging" / "left"
    staged.mkdir(parents=True)
    assert store.gc().removed == ()
    assert orphan.exists()
    assert store.gc(grace_s=0, dry_run=True).removed
    assert orphan.exists()
    report = store.gc(grace_s=0)
    assert set(report.removed) == {f"segments/{'0' * 32}", ".staging/left"}
    assert not orphan.exists()
    assert not staged.exists()
    assert {p.relative_to(root): p.read_bytes() for p in files_of(root)} == before
    assert not store.verify().damage


def test_compaction_copies_bytes_and_keeps_every_sample(tmp_path: Path) -> None:
    store: Store = create_store(tmp_path / "s")
    options = WriteOptions(workers=2)
    episodes = [make(seed=s, steps=30 + 17 * s) for s in range(4)]
    for source in episodes:
        store.write([source], options)
    store.set_rights(GATED, ["2"])
    before = {e.id: {n: s.values() for n, s in e.streams.items()} for e in store}
    documents = {e.id: e for e in store}
    report = store.compact()
    assert len(report.removed) == 3  # the one of another rights class stays apart
    assert len(store.state.segments) == 2
    assert store.ids == open_store(store.url).ids
    for found in store:
        assert found == documents[found.id]
        for name, values in before[found.id].items():
            np.testing.assert_array_equal(found.streams[name].values(), values, strict=True)
    assert store.compact().removed == ()
    assert not store.verify(decode=True).damage
    store.gc(grace_s=0)
    report2 = store.verify(decode=True)
    assert (report2.damage, report2.unclaimed) == ((), ())


def test_compaction_leaves_withdrawn_episodes_out_for_good(tmp_path: Path) -> None:
    store = create_store(tmp_path / "s")
    options = WriteOptions(workers=2)
    store.write([make(seed=1, steps=40), make(seed=2, steps=33), make(seed=3, steps=5)], options)
    store.write([make(seed=4, steps=9, imu=False)], options)
    kept, gone = make(seed=2, steps=33), [make(seed=1, steps=40).id, make(seed=4, steps=9, imu=False).id]
    store.catalog.commit(lambda _state: [Withdraw(episodes=tuple(gone), ground="consent")], author="test")
    store.refresh()
    before = store.episode(kept.id).streams["observation.images.top"].values()
    with pytest.raises(NotFoundError, match="withdrawn"):
        store.episode(gone[0])
    assert store.write([make(seed=1, steps=40)], options).withdrawn == (gone[0],)
    report = store.compact()
    assert (len(report.removed), len(report.added)) == (2, 1)
    assert report.bytes_after < report.bytes_before
    store.gc(grace_s=0)
    assert [p.is_dir() for p in tmp_path.glob("s/segments/*")].count(True) == 1
    np.testing.assert_array_equal(store.episode(kept.id).streams["observation.images.top"].values(), before)
    assert (store.verify(decode=True).damage, len(store)) == ((), 2)


def test_compaction_never_changes_rights(tmp_path: Path) -> None:
    store = create_store(tmp_path / "s")
    sources = [make(seed=s, steps=5, cameras=(), depth=False) for s in range(6)]
    # Two segments that both hold episodes of two rights records, and a dead row in the first.
    for batch in (sources[:3], sources[3:]):
        store.write(batch, WriteOptions(workers=2))
    store.set_rights(GATED, [sources[0].id, sources[3].id])
    store.catalog.commit(lambda _: [Withdraw(episodes=(sources[1].id,), ground="consent")], author="test")
    before = dict(store.refresh().state.rights)
    assert len({str(record) for record in before.values()}) == 2
    assert store.compact().removed
    assert dict(open_store(store.url).state.rights) == before
