"""A mirror keeps the promise of the Hub on any file system: whole states, one after the other, none lost."""

from __future__ import annotations

import hashlib
import random
import threading
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import fsspec
import pytest
from teleopen.hub import disk, open_store
from teleopen.hub.storage import Storage, open_storage
from teleopen.hub.sync import mirror_target
from teleopen.hub.sync.audit import audit
from teleopen.hub.sync.generation import HEAD, REVOCATIONS, list_key, read_list
from teleopen.hub.sync.mirror_target import MirrorTarget, revocations
from teleopen.hub.sync.plan import Plan
from teleopen.hub.sync.publish import apply
from teleopen.hub.sync.target import StaleError
from teleopen.hub.sync.withdraw import purge
from teleopen.schemas import DamageError, NotFoundError, StoreError, TeleopenError

from tests.hub.bucket import BUSY, FORBIDDEN, Gate, answering, losing_the_answer, s3_server
from tests.hub.sync.world import MARKER, NOW, World, again, make_world, tiny

LATER = NOW + timedelta(days=1)


@pytest.fixture(scope="module")
def bucket() -> Iterator[Gate]:
    with s3_server() as gate:
        yield gate


@pytest.fixture(params=["local", "memory", pytest.param("s3", marks=pytest.mark.slow)])
def any_url(request: pytest.FixtureRequest, ram_path: Path) -> str:
    """Give an empty place of each kind; the bucket only where time does not matter."""
    return _place(request, ram_path)


@pytest.fixture(params=["local", "memory", "s3"])
def url(request: pytest.FixtureRequest, ram_path: Path) -> str:
    """Give an empty place of each kind."""
    return _place(request, ram_path)


def _place(request: pytest.FixtureRequest, ram_path: Path) -> str:
    if request.param == "local":
        return str(ram_path / "mirror")
    if request.param == "memory":
        return f"memory://{uuid.uuid4().hex}"
    request.getfixturevalue("bucket")
    return f"s3://hub/{uuid.uuid4().hex}"


def everything(url: str) -> dict[str, bytes]:
    storage = open_storage(url)
    return {key: storage.read(key) for key in storage.keys("")}


def episodes(url: str) -> list[str]:
    state = MirrorTarget(url).look().state
    return sorted(state.episodes) if state else []


def test_the_open_subset_is_published_and_a_stranger_can_prove_it(url: str, world: World) -> None:
    report = world.publish(MirrorTarget(url))
    assert (report.changed, report.episodes) == (True, 2)
    found = audit(MirrorTarget(url), full=True, now=LATER)
    assert (found.findings, found.pending, found.episodes) == ((), (), 2)
    assert not any(MARKER.encode() in data or MARKER in key for key, data in everything(url).items())


def test_a_reader_who_does_not_know_of_generations_reads_a_store(any_url: str, world: World) -> None:
    world.publish(MirrorTarget(any_url))
    world.add(tiny(7))
    world.publish(MirrorTarget(any_url))
    store = open_store(any_url)
    assert sorted(store.ids) == world.public
    assert store.verify().damage == ()


def test_publishing_again_writes_nothing(any_url: str, world: World) -> None:
    world.publish(MirrorTarget(any_url))
    before = everything(any_url)
    assert not world.publish(MirrorTarget(any_url)).changed
    assert everything(any_url) == before


def test_each_publishing_is_the_next_generation_and_names_the_one_before(any_url: str, world: World) -> None:
    for seed in range(3):
        world.add(tiny(20 + seed))
        world.publish(MirrorTarget(any_url))
    target = MirrorTarget(any_url)
    storage = open_storage(any_url)
    chain = [read_list(storage, number) for number in (1, 2, 3)]
    assert [one.generation.previous for one in chain if one] == [None, chain[0].sha256, chain[1].sha256]  # type: ignore[union-attr]
    assert target.look(chain[1].base).state.version == 2  # type: ignore[union-attr]


def test_what_leaves_is_deleted_and_an_older_generation_tells_that_it_is_gone(
    any_url: str, world: World
) -> None:
    world.publish(MirrorTarget(any_url))
    old = MirrorTarget(any_url).look()
    segment = next(path for path in old.files if path.endswith("episodes.parquet"))
    world.withdraw(world.store.ids[0])
    world.publish(MirrorTarget(any_url))
    assert not open_storage(any_url).exists(segment)
    assert audit(MirrorTarget(any_url), full=True, now=LATER).ok
    assert old.storage is not None
    with pytest.raises(NotFoundError):
        old.storage.read(segment)


def test_old_lists_and_documents_do_not_pile_up(
    ram_path: Path, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror_target, "KEPT", 2)
    url = str(ram_path / "mirror")
    for seed in range(4):
        world.add(tiny(20 + seed))
        world.publish(MirrorTarget(url))
    assert [key for key in everything(url) if key.startswith("generations/0")] == [list_key(3), list_key(4)]
    assert audit(MirrorTarget(url), now=LATER).pending == ()


def test_a_place_that_holds_something_else_is_left_alone(any_url: str, world: World) -> None:
    storage = open_storage(any_url, create=True)
    storage.replace("notes.txt", b"mine")
    with pytest.raises(StoreError, match="was not published there"):
        world.publish(MirrorTarget(any_url))
    assert everything(any_url) == {"notes.txt": b"mine"}


def test_the_private_store_itself_is_no_target(world: World) -> None:
    before = everything(world.store.url)
    with pytest.raises(StoreError, match="was not published there"):
        world.publish(MirrorTarget(world.store.url))
    assert {k: v for k, v in everything(world.store.url).items() if not k.startswith(".staging")} == before


def test_a_stale_base_is_refused(any_url: str, world: World) -> None:
    target = MirrorTarget(any_url)
    world.publish(target)
    world.add(tiny(7))
    plan = world.replan(target)(target.look())
    world.add(tiny(8))
    world.publish(MirrorTarget(any_url))
    with pytest.raises(StaleError):
        target.switch(plan)
    assert len(episodes(any_url)) == 4


def test_a_list_that_was_changed_or_exchanged_is_noticed(any_url: str, world: World) -> None:
    world.publish(MirrorTarget(any_url))
    storage = open_storage(any_url)
    raw = storage.read(list_key(1))
    storage.replace(list_key(1), raw.replace(b'"version":1', b'"version":2'))
    with pytest.raises(DamageError):
        MirrorTarget(any_url).look()
    storage.replace(list_key(1), raw)
    storage.replace(list_key(2), raw)
    with pytest.raises(DamageError):
        MirrorTarget(any_url).look()
    storage.delete([list_key(1), list_key(2)])
    with pytest.raises(DamageError, match="missing"):
        MirrorTarget(any_url).look()


# ---------------------------------------------------------------- readers and crashes


def test_a_poller_sees_only_whole_states(any_url: str, world: World) -> None:
    world.publish(MirrorTarget(any_url))
    seen: list[int] = []
    problems: list[Any] = []
    stop = threading.Event()

    def poll() -> None:
        while not stop.is_set():
            try:
                found = audit(MirrorTarget(any_url), now=LATER)
            except TeleopenError as error:
                problems.append(error)
                return
            seen.append(found.episodes)
            problems.extend(f for f in found.findings if "copy" not in f.why)

    thread = threading.Thread(target=poll)
    thread.start()
    try:
        for seed in range(20, 24):
            world.add(tiny(seed))
            world.publish(MirrorTarget(any_url))
        world.withdraw(world.store.ids[0])
        world.publish(MirrorTarget(any_url))
    finally:
        stop.set()
        thread.join()
    assert problems == []
    assert set(seen) <= {2, 3, 4, 5, 6}
    assert audit(MirrorTarget(any_url), full=True, now=LATER).ok


class DeathError(BaseException):
    """The process ends here."""


def dying(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Let the process die before its n-th effect on the disk."""
    count = 0

    def before(name: str) -> None:
        original = getattr(disk, name)

        def effect(*args: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count > step:
                raise DeathError
            return original(*args, **options)

        monkeypatch.setattr(disk, name, effect)

    for name in ("rename", "link", "unlink", "write", "make_folder"):
        before(name)


def death(url: str, world: World, step: int) -> bool:
    """Publish and die at a step; tell whether it came to that."""
    with pytest.MonkeyPatch.context() as patch:
        target = MirrorTarget(url)
        replan = world.replan(target)
        planned = replan(target.look())
        dying(patch, step)
        try:
            apply(planned, target, lambda _state: planned, log=world.log())
        except DeathError:
            return True
    return False


def sweep(ram_path: Path, steps: range) -> None:
    for step in steps:
        world = make_world(ram_path / f"s{step}")
        url = str(ram_path / f"s{step}" / "mirror")
        world.publish(MirrorTarget(url))
        old = episodes(url)
        world.add(tiny(7))
        world.withdraw(world.store.ids[0])
        died = death(url, world, step)
        assert episodes(url) in (old, world.public)
        assert not [f for f in audit(MirrorTarget(url), now=LATER).findings if "copy" not in f.why]
        fresh = again(world)
        fresh.publish(MirrorTarget(url))
        found = audit(MirrorTarget(url), full=True, now=LATER)
        assert (found.findings, episodes(url)) == ((), world.public)
        assert open_store(url).verify().damage == ()
        if not died:
            return
    assert len(steps) < 100


def test_a_publisher_that_dies_leaves_the_old_state_or_the_new_one(ram_path: Path) -> None:
    sweep(ram_path, range(20, 96, 25))


@pytest.mark.slow
def test_a_publisher_may_die_at_any_step(ram_path: Path) -> None:
    sweep(ram_path, range(400))


# ---------------------------------------------------------------- many publishers


@pytest.mark.parametrize("writers", [2, 8])
def test_racing_publishers_lose_nothing(any_url: str, ram_path: Path, writers: int) -> None:
    if writers > 2 and any_url.startswith("s3"):
        writers = 4
    worlds = []
    for number in range(writers):
        world = make_world(ram_path / f"w{number}", opened=0, closed=1)
        world.add(tiny(100 + number))
        worlds.append(world)
    errors: list[BaseException] = []

    def publish(world: World) -> None:
        try:
            world.publish(MirrorTarget(any_url))
        except BaseException as error:  # noqa: BLE001 - told in the test's own thread
            errors.append(error)

    threads = [threading.Thread(target=publish, args=(world,)) for world in worlds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    worlds[0].publish(MirrorTarget(any_url))
    assert episodes(any_url) == sorted(e for world in worlds for e in world.public)
    found = audit(MirrorTarget(any_url), full=True, now=LATER)
    assert found.findings == ()
    newest = MirrorTarget(any_url).generation(open_storage(any_url))
    assert newest is not None
    assert newest.generation.number == writers


@pytest.mark.parametrize("step", ["look", "probe"])
def test_what_others_have_replaced_before_it_was_checked_is_theirs_to_check(
    any_url: str, ram_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    worlds = [make_world(ram_path / f"w{number}", opened=0, closed=1) for number in range(3)]
    for number, world in enumerate(worlds):
        world.add(tiny(100 + number))
    mine, others = MirrorTarget(any_url), worlds[1:]
    doing, switch = getattr(mine, step), mine.switch
    waiting: list[World] = []

    def switched(plan: Plan) -> str:
        waiting.extend(others)
        return switch(plan)

    def late(*words: Any) -> Any:
        while waiting:
            waiting.pop().publish(MirrorTarget(any_url))
        return doing(*words)

    monkeypatch.setattr(mine, "switch", switched)
    monkeypatch.setattr(mine, step, late)
    assert worlds[0].publish(mine).changed
    assert episodes(any_url) == sorted(e for world in worlds for e in world.public)
    assert audit(MirrorTarget(any_url), full=True, now=LATER).findings == ()


def test_a_place_where_another_publisher_begins_this_moment_is_no_foreign_one(
    any_url: str, ram_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (make_world(ram_path / name, opened=1, closed=1) for name in "ab")
    second.add(tiny(7))
    mine = MirrorTarget(any_url)
    check, waiting = mine._check_free, [second]

    def late(storage: Storage) -> None:
        while waiting:
            waiting.pop().publish(MirrorTarget(any_url))
        check(storage)

    monkeypatch.setattr(mine, "_check_free", late)
    first.publish(mine)
    assert episodes(any_url) == sorted({*first.public, *second.public})


# ---------------------------------------------------------------- faults of the place


class Flaky:
    """A storage that fails now and then: before doing what it is asked, or after."""

    def __init__(self, inner: Any, rng: random.Random, rate: float) -> None:
        self.inner, self.rng, self.rate = inner, rng, rate

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        if not callable(found) or name in {"local", "staging"}:
            return found

        def spoiled(*args: Any, **options: Any) -> Any:
            if self.rng.random() < self.rate:
                if self.rng.random() < 0.5 and name in {"create", "replace", "put_file", "delete"}:
                    found(*args, **options)
                raise StoreError(self.inner.url, "the network stumbled")
            return found(*args, **options)

        return spoiled


def run(folder: Path, seed: int, markers: int) -> None:
    rng = random.Random(seed)
    world = make_world(folder / str(seed), opened=1, closed=markers)
    url = f"memory://{uuid.uuid4().hex}"
    states: list[list[str]] = [[]]
    for step in range(rng.randint(1, 2)):
        if step:
            world.add(tiny(50 + step))
            if rng.random() < 0.5:
                world.withdraw(world.store.ids[0])
        states.append(world.public)
        rate = rng.choice([0.01, 0.05, 0.1])
        for attempt in range(8):
            target = MirrorTarget(url)
            opened = target._open()
            target._opened = Flaky(opened, rng, rate if attempt < 6 else 0)
            try:
                world.publish(target)
                break
            except TeleopenError:
                assert episodes(url) in states[-2:]
        assert episodes(url) == world.public
    world.publish(MirrorTarget(url))
    found = audit(MirrorTarget(url), full=True, now=LATER)
    assert found.findings == ()
    assert not any(MARKER.encode() in data for data in everything(url).values())
    fsspec.filesystem("memory").rm(url.removeprefix("memory:/"), recursive=True)


@pytest.fixture
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("teleopen.hub.sync.mirror_target.time.sleep", lambda _seconds: None)


@pytest.mark.usefixtures("_no_pauses")
def test_every_schedule_of_faults_converges_to_the_one_right_state(ram_path: Path) -> None:
    for seed in range(12):
        run(ram_path, seed, markers=2)


@pytest.mark.slow
@pytest.mark.usefixtures("_no_pauses")
def test_five_hundred_schedules_of_faults_converge_to_the_one_right_state(ram_path: Path) -> None:
    for seed in range(1000, 1500):
        run(ram_path, seed, markers=2)


def test_a_bucket_whose_answers_get_lost_has_one_generation_for_each_publishing(
    bucket: Gate, world: World
) -> None:
    url = f"s3://hub/{uuid.uuid4().hex}"
    target = MirrorTarget(url)
    target.prepare()
    bucket.spoilers[:] = [losing_the_answer, answering(*BUSY), losing_the_answer]
    world.publish(target)
    bucket.spoilers.clear()
    newest = MirrorTarget(url).generation(open_storage(url))
    assert newest is not None
    assert newest.generation.number == 1
    assert audit(MirrorTarget(url), full=True, now=LATER).ok


def test_a_bucket_that_forbids_writing_is_told_as_it_is(bucket: Gate, world: World) -> None:
    url = f"s3://hub/{uuid.uuid4().hex}"
    bucket.spoilers[:] = [answering(*FORBIDDEN)] * 20
    try:
        with pytest.raises(StoreError, match=r"Forbidden|AccessDenied|Access Denied|spoiled"):
            world.publish(MirrorTarget(url))
    finally:
        bucket.spoilers.clear()
    assert episodes(url) == []


@pytest.mark.slow
def test_a_bucket_that_ignores_conditions_needs_a_promise(bucket: Gate, world: World) -> None:
    url = f"s3://hub/{uuid.uuid4().hex}"
    bucket.deaf = True
    try:
        with pytest.raises(StoreError, match="--single-writer"):
            world.publish(MirrorTarget(url))
        assert episodes(url) == []
        world.publish(MirrorTarget(url, single_writer=True))
        world.add(tiny(7))
        world.publish(MirrorTarget(url, single_writer=True))
    finally:
        bucket.deaf = False
    assert audit(MirrorTarget(url), full=True, now=LATER).episodes == 3


# ---------------------------------------------------------------- purge


def test_withdrawn_bytes_are_nowhere_after_a_purge_and_holders_of_copies_are_told(
    any_url: str, world: World
) -> None:
    url = any_url
    world.publish(MirrorTarget(url))
    gone = world.store.ids[0]
    before = everything(url)
    world.withdraw(gone, ground="consent")
    world.publish(MirrorTarget(url))
    live = set(everything(url).values())
    done = purge(MirrorTarget(url), log=world.log())
    after = everything(url)
    state = MirrorTarget(url).look()
    assert state.state is not None
    assert gone not in state.state.episodes
    withdrawn = {data for data in before.values() if gone.encode() in data} - live
    assert withdrawn
    assert withdrawn.isdisjoint(after.values())
    told = revocations(open_storage(url))
    assert told["episodes"][gone]["ground"] == "consent"
    assert set(done.files) <= set(told["files"])
    assert not any(file.sha256 in told["files"] for file in state.files.values())
    assert audit(MirrorTarget(url), full=True, now=LATER).ok
    assert set(purge(MirrorTarget(url), log=world.log()).files) == set()
    assert REVOCATIONS in after


def test_what_closes_while_it_is_brought_does_not_stay_where_it_was_brought(
    any_url: str, world: World
) -> None:
    place = MirrorTarget(any_url)
    replan = world.replan(place)
    planned = replan(place.look())
    gone = world.store.ids[:2]

    first = threading.Lock()

    def closing(_path: str, _size: int) -> None:
        if first.acquire(blocking=False):
            world.withdraw(*gone)

    report = apply(planned, place, replan, log=world.log(), progress=closing)
    assert report.episodes == 0
    assert [key for key in everything(any_url) if key.startswith("segments/")] == []


def test_what_a_publisher_that_died_had_brought_leaves_with_a_purge(
    ram_path: Path, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = str(ram_path / "mirror")
    world.publish(MirrorTarget(url))
    stray = "segments/0123456789abcdef0123456789abcdef/zarr.json"
    open_storage(url).create(stray, b"half brought")
    world.withdraw(world.store.ids[0])
    world.publish(MirrorTarget(url))
    purge(MirrorTarget(url), log=world.log())
    assert stray in everything(url)
    monkeypatch.setattr(mirror_target, "GRACE_S", 0.0)
    purge(MirrorTarget(url), log=world.log())
    assert stray not in everything(url)


def test_a_slow_publisher_does_not_put_older_copies_over_newer_ones(any_url: str, world: World) -> None:
    world.publish(MirrorTarget(any_url))
    gone = world.store.ids[0]
    other = again(world)

    class Slow(MirrorTarget):
        def finish(self, base: str, version: int, /) -> tuple[str, ...]:
            storage: Any = self._open()
            theirs = storage.replace

            def replace(key: str, data: bytes) -> None:
                storage.replace = theirs
                other.withdraw(gone)
                other.publish(MirrorTarget(any_url))
                theirs(key, data)

            storage.replace = replace
            return super().finish(base, version)

    world.add(tiny(7))
    other.store.refresh()
    world.publish(Slow(any_url))
    newest = MirrorTarget(any_url).look()
    assert newest.state is not None
    assert gone not in newest.state.episodes
    copies = {path: hashlib.sha256(data).hexdigest() for path, data in everything(any_url).items()}
    for path, file in newest.files.items():
        assert copies[path] == file.sha256, path
    assert not any(gone.encode() in data for key, data in everything(any_url).items() if "index" in key)


def test_a_purge_without_withdrawals_does_nothing(any_url: str, world: World) -> None:
    world.publish(MirrorTarget(any_url))
    before = everything(any_url)
    with pytest.raises(NotFoundError, match="withdrawn"):
        purge(MirrorTarget(any_url), log=world.log())
    assert everything(any_url) == before


def test_mirrors_of_one_store_hold_the_same_episodes_and_data(ram_path: Path, world: World) -> None:
    places = [str(ram_path / "a"), f"memory://{uuid.uuid4().hex}"]
    for url in places:
        world.publish(MirrorTarget(url))
    states = [MirrorTarget(url).look().files for url in places]
    data = [{p: f for p, f in files.items() if p.startswith("segments/")} for files in states]
    assert data[0] == data[1]


def test_a_hint_that_is_missing_or_behind_hides_nothing(any_url: str, world: World) -> None:
    world.publish(MirrorTarget(any_url))
    world.add(tiny(7))
    storage = open_storage(any_url)
    hint = storage.read(HEAD)
    world.publish(MirrorTarget(any_url))
    for old in (hint, None):
        if old is None:
            storage.delete([HEAD])
        else:
            storage.replace(HEAD, old)
        assert len(episodes(any_url)) == 3
        assert world.publish(MirrorTarget(any_url)).done == ("copies brought to generation 2",)
