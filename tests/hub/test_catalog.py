"""The commit log: what is committed stays, in one order, whoever else writes and wherever a process dies."""

import errno
import functools
import hashlib
import io
import json
import multiprocessing
import os
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule
from teleopen.hub import catalog as catalog_module
from teleopen.hub import disk
from teleopen.hub.catalog import (
    Add,
    Catalog,
    Create,
    File,
    Operation,
    Replace,
    SetRights,
    State,
    Withdraw,
    operation_document,
    parse_operation,
)
from teleopen.hub.checkpoint import check_checkpoints, checkpoint_key
from teleopen.hub.log import HEAD, Head, entry_key, head_bytes, new_entry, read_head, sealed
from teleopen.hub.storage import Storage, open_storage
from teleopen.schemas import ConflictError, DamageError, SchemaError, StoreError, canonical

from tests.hub.bucket import Gate, losing_the_answer, s3_server
from tests.hub.test_storage import Failing
from tests.hub.web import Ranges, serving

OPEN, CLOSED = {"licence": "CC-BY-4.0"}, {"licence": None}
Build = Callable[[State], Sequence[Operation]]


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def add_of(episodes: Sequence[str], segment: str = "", rights: Any = OPEN) -> Add:
    """Return the addition of a segment, whose content tells the episode's name."""
    return Add(
        segment=segment or uuid.uuid4().hex,
        files={"zarr.json": File(2, digest("{}")), "steps/timestamp/c/0": File(8, digest("0"))},
        episodes={episode: row for row, episode in enumerate(episodes)},
        contents={episode: digest(episode) for episode in episodes},
        rights=rights,
    )


def segment_of(name: str) -> str:
    return digest(name)[:32]


def adding(name: str) -> Build:
    """Return a commit of one segment that does nothing if it is there."""
    add = add_of([name], segment_of(name))
    return lambda state: [] if add.segment in state.segments else [add]


def in_memory() -> Storage:
    return open_storage(f"memory://{uuid.uuid4().hex}")


def filled(storage: Storage, count: int = 3) -> Catalog:
    catalog = Catalog(storage)
    catalog.create("me")
    for number in range(count):
        catalog.commit(adding(f"e{number}"), "me")
    return catalog


def fresh(storage: Storage) -> State:
    return Catalog(storage).load()


def overwrite(storage: Storage, key: str, data: bytes) -> None:
    storage.replace(key, data)


# ---------------------------------------------------------------- what a commit is


def test_an_empty_store_is_two_zarr_groups_and_a_log(tmp_path: Path) -> None:
    import zarr

    state = Catalog(open_storage(tmp_path)).create("me")
    assert (state.version, list(state.episodes), list(state.segments)) == (1, [], [])
    group = zarr.open_group(tmp_path, mode="r")
    assert group.attrs["teleopen"] == {"format": 1, "dataset": state.dataset}
    assert isinstance(group["segments"], zarr.Group)
    for path, file in state.files.items():
        raw = tmp_path.joinpath(path).read_bytes()
        assert file == File(len(raw), hashlib.sha256(raw).hexdigest())
    assert list(open_storage(tmp_path).keys()) == [
        "catalog/00000001.json",
        HEAD,
        "segments/zarr.json",
        "zarr.json",
    ]


def test_an_entry_can_be_read_without_us(tmp_path: Path) -> None:
    catalog = filled(open_storage(tmp_path), 1)
    raw = tmp_path.joinpath("catalog/00000002.json").read_bytes()
    document = json.loads(raw)
    told = document.pop("checksum")
    assert hashlib.sha256(canonical(document)).hexdigest() == told
    assert raw.endswith(b"}\n")
    assert (
        document["previous"]
        == hashlib.sha256(tmp_path.joinpath("catalog/00000001.json").read_bytes()).hexdigest()
    )
    assert document["author"] == "me"
    assert document["tool"].startswith("teleopen ")
    assert document["operations"][0]["op"] == "add"
    assert catalog.load().head == hashlib.sha256(raw).hexdigest()
    assert [entry.version for entry in catalog.entries()] == [1, 2]


def test_each_operation_does_what_it_says() -> None:
    catalog = filled(in_memory(), 0)
    one, two = add_of(["a", "b", "c"]), add_of(["d"], rights=CLOSED)
    state = catalog.commit(lambda _: [one, two], "me")
    assert list(state.episodes) == ["a", "b", "c", "d"]
    assert state.segments == {one.segment: one, two.segment: two}
    assert state.rights == {"a": OPEN, "b": OPEN, "c": OPEN, "d": CLOSED}
    assert state.contents[digest("b")] == "b"
    state = catalog.commit(lambda _: [SetRights(("a", "d"), CLOSED)], "me")
    assert state.rights == {"a": CLOSED, "b": OPEN, "c": OPEN, "d": CLOSED}
    state = catalog.commit(lambda _: [Withdraw(("b",), "consent", "asked by mail")], "me")
    assert list(state.episodes) == list(state.rights) == ["a", "c", "d"]
    assert dict(state.segments[one.segment].episodes) == {"a": 0, "c": 2}
    assert (state.withdrawn["b"].ground, state.withdrawn["b"].version) == ("consent", 4)
    assert state.withdrawn["b"].content == digest("b")
    assert digest("b") not in state.contents
    both = add_of(["d", "a", "c"], rights=CLOSED)
    state = catalog.commit(lambda _: [Replace((one.segment, two.segment), (both,))], "me")
    assert list(state.episodes) == ["a", "c", "d"], "what comes again keeps its place"
    assert state.segments == {both.segment: both}
    assert (state.episodes["d"].segment, state.episodes["d"].row) == (both.segment, 0)
    assert fresh(catalog.storage) == catalog.check() == state


def test_of_equal_contents_the_first_is_found() -> None:
    catalog = filled(in_memory(), 0)
    twins = replace(add_of(["a", "b"]), contents={"a": digest("same"), "b": digest("same")})
    assert catalog.commit(lambda _: [twins], "me").contents == {digest("same"): "a"}
    assert catalog.commit(lambda _: [Withdraw(("a",), "x")], "me").contents == {digest("same"): "b"}


def test_nothing_to_do_is_no_commit() -> None:
    catalog = filled(in_memory(), 1)
    before = list(catalog.storage.keys())
    assert catalog.commit(lambda _: [], "me").version == 2
    assert list(catalog.storage.keys()) == before


def test_every_operation_survives_json() -> None:
    operations: list[Operation] = [
        Create(str(uuid.uuid4()), {"zarr.json": File(0, digest(""))}),
        add_of(["a", "b"]),
        SetRights(("a",), {"deep": [{"x": [1.5, None]}]}),
        Withdraw(("a",), "consent", "two\nlines"),
        Replace((uuid.uuid4().hex,), (add_of(["a"]), add_of([]))),
    ]
    for operation in operations:
        document = json.loads(canonical(operation_document(operation)))
        assert parse_operation(document, "here") == operation
        with pytest.raises(DamageError, match="here"):
            parse_operation({**document, "more": 1}, "here")


BAD: dict[str, Operation] = {
    "climbing path": replace(add_of(["a"]), files={"../x": File(0, digest(""))}),
    "segment": replace(add_of(["a"]), segment="../../etc"),
    "digest": replace(add_of(["a"]), contents={"a": "0"}),
    "negative row": replace(add_of(["a"]), episodes={"a": -1}),
    "rows": replace(add_of(["a", "b"]), episodes={"a": 0, "b": 0}),
    "contents": replace(add_of(["a"]), contents={"b": digest("b")}),
    "episode": add_of(["a\nb"]),
    "inner": Replace((), (replace(add_of(["a"]), contents={}),)),
    "ground": Withdraw(("e0",), ""),
    "surrogate": Withdraw(("e0",), "consent", "\ud800"),
    "number": SetRights(("e0",), {"x": float("nan")}),
}


@pytest.mark.parametrize("name", BAD)
def test_a_malformed_operation_is_not_written(name: str) -> None:
    catalog = filled(in_memory(), 1)
    with pytest.raises(SchemaError):
        catalog.commit(lambda _: [BAD[name]], "me")
    assert fresh(catalog.storage).version == 2


def _contradictions() -> dict[str, Sequence[Operation]]:
    e0 = segment_of("e0")
    return {
        "unknown episode gets rights": [SetRights(("x",), OPEN)],
        "unknown episode is withdrawn": [Withdraw(("x",), "g")],
        "withdrawn twice": [Withdraw(("e0", "e0"), "g")],
        "withdrawn again": [Withdraw(("e0",), "g"), Withdraw(("e0",), "g")],
        "rights after withdrawal": [Withdraw(("e0",), "g"), SetRights(("e0",), OPEN)],
        "live id added": [add_of(["e0"])],
        "segment added twice": [add_of(["x"], e0)],
        "unknown segment removed": [Replace((uuid.uuid4().hex,), ())],
        "segment removed twice": [Replace((e0, e0), ())],
        "replaced by another's episode": [Replace((e0,), (add_of(["e1"]),))],
        "replaced by two of one": [Replace((e0,), (add_of(["e0"]), add_of(["e0"])))],
        "withdrawn comes back by compaction": [Withdraw(("e0",), "g"), Replace((e0,), (add_of(["e0"]),))],
        "created twice": [Create(str(uuid.uuid4()), {})],
    }


@pytest.mark.parametrize("name", _contradictions())
def test_a_contradiction_is_not_written_and_not_read(name: str) -> None:
    catalog = filled(in_memory(), 2)
    storage, state = catalog.storage, catalog.load()
    operations = _contradictions()[name]
    with pytest.raises(ConflictError):
        catalog.commit(lambda _: operations, "me")
    assert fresh(storage) == state
    storage.create(entry_key(4), new_entry(4, state.head, "liar", tuple(operations)))
    for read in (catalog.load, Catalog(storage).load, Catalog(storage).check):
        with pytest.raises(DamageError, match=r"00000004\.json.*contradicts"):
            read()


def test_build_may_refuse() -> None:
    catalog = filled(in_memory(), 1)

    def build(state: State) -> list[Operation]:
        raise ConflictError("x", f"gone at {state.version}")

    with pytest.raises(ConflictError, match="gone at 2"):
        catalog.commit(build, "me")


def test_build_sees_what_came_between() -> None:
    storage = in_memory()
    filled(storage, 1)
    mine, other = Catalog(storage), Catalog(storage)
    seen = []

    def build(state: State) -> list[Operation]:
        seen.append(state.version)
        if len(seen) == 1:
            other.commit(adding("x"), "other")
        return [add_of(["y"])]

    assert mine.commit(build, "me").version == 4
    assert seen == [2, 3]
    assert list(fresh(storage).episodes) == ["e0", "x", "y"]


def test_a_writer_that_never_wins_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    storage = in_memory()
    filled(storage, 0)
    other = Catalog(storage)
    monkeypatch.setattr(catalog_module, "_TRIES", 3)

    def build(_: State) -> list[Operation]:
        other.commit(lambda _: [add_of([uuid.uuid4().hex])], "other")
        return [add_of(["mine"])]

    with pytest.raises(ConflictError, match="3 times another writer"):
        Catalog(storage).commit(build, "me")
    assert "mine" not in fresh(storage).episodes


# ---------------------------------------------------------------- against a model


class Log(RuleBasedStateMachine):
    """A log and a dict are told the same; two writers hold different states of it."""

    live = Bundle("live")

    @initialize()
    def begin(self) -> None:
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(catalog_module, "CHECKPOINT_EVERY", 3)
        self.storage = in_memory()
        self.writers = [Catalog(self.storage), Catalog(self.storage)]
        self.states = [self.writers[0].create("me")]
        self.segments: dict[str, dict[str, int]] = {}
        self.order: list[str] = []
        self.rights: dict[str, Any] = {}
        self.withdrawn: set[str] = set()

    def commit(self, writer: int, *operations: Operation) -> None:
        self.states.append(self.writers[writer].commit(lambda _: operations, "me"))

    @rule(
        target=live, writer=st.integers(0, 1), count=st.integers(1, 4), rights=st.sampled_from([OPEN, CLOSED])
    )
    def add(self, writer: int, count: int, rights: Any) -> Any:
        names = [uuid.uuid4().hex[:6] for _ in range(count)]
        add = add_of(names, rights=rights)
        self.commit(writer, add)
        self.segments[add.segment] = dict(add.episodes)
        self.order += names
        self.rights.update(dict.fromkeys(names, rights))
        return multiple(*names)

    @rule(writer=st.integers(0, 1), episode=live, rights=st.sampled_from([OPEN, CLOSED]))
    def set_rights(self, writer: int, episode: str, rights: Any) -> None:
        self.commit(writer, SetRights((episode,), rights))
        self.rights[episode] = rights

    @rule(target=live, writer=st.integers(0, 1), episode=consumes(live), again=st.booleans())
    def withdraw(self, writer: int, episode: str, again: bool) -> Any:
        self.commit(writer, Withdraw((episode,), "consent"))
        self._forget(episode)
        self.withdrawn.add(episode)
        if not again:
            return multiple()
        add = add_of([episode])
        self.commit(writer, add)
        self.segments[add.segment] = {episode: 0}
        self.order.append(episode)
        self.rights[episode] = OPEN
        self.withdrawn.remove(episode)
        return episode

    def _forget(self, episode: str) -> None:
        self.order.remove(episode)
        del self.rights[episode]
        for episodes in self.segments.values():
            episodes.pop(episode, None)

    @rule(writer=st.integers(0, 1), count=st.integers(1, 3), data=st.data())
    def compact(self, writer: int, count: int, data: st.DataObject) -> None:
        chosen = list(self.segments)[:count]
        names = [episode for segment in chosen for episode in self.segments[segment]]
        names = data.draw(st.permutations(names))
        add = add_of(names)
        self.commit(writer, Replace(tuple(chosen), (add,)))
        for segment in chosen:
            del self.segments[segment]
        self.segments[add.segment] = dict(add.episodes)

    @invariant()
    def every_reader_sees_the_model(self) -> None:
        newest = self.states[-1]
        for state in (newest, fresh(self.storage), self.writers[1].load(), self.writers[0].check()):
            assert state == newest
            assert list(state.episodes) == list(state.rights) == self.order
            assert dict(state.rights) == self.rights
            assert {k: dict(a.episodes) for k, a in state.segments.items()} == self.segments
            assert {e: w.segment for e, w in state.episodes.items()} == {
                e: k for k, episodes in self.segments.items() for e in episodes
            }
            assert state.contents == {digest(episode): episode for episode in self.order}
            assert set(state.withdrawn) == self.withdrawn
        assert not list(check_checkpoints(self.storage, newest))

    def teardown(self) -> None:
        if hasattr(self, "patch"):
            self.patch.undo()


TestLog = Log.TestCase
TestLog.settings = settings(max_examples=15, stateful_step_count=20, deadline=None)


def test_a_state_is_left_as_it_was_by_the_next() -> None:
    catalog = filled(in_memory(), 3)
    state = catalog.load()
    told = repr(state)
    catalog.commit(lambda _: [Withdraw(("e0",), "g"), SetRights(("e1",), CLOSED), add_of(["x"])], "me")
    assert repr(state) == told


# ---------------------------------------------------------------- many writers

CONTEXT: ForkServerContext = multiprocessing.get_context("forkserver")


def in_processes(count: int, work: Callable[..., None], *args: Any) -> list[int | None]:
    """Run ``work(number, barrier, *args)`` in processes that start together; return their exit codes."""
    CONTEXT.set_forkserver_preload([__name__])
    barrier = CONTEXT.Barrier(count)
    processes = [CONTEXT.Process(target=work, args=(number, barrier, *args)) for number in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    return [process.exitcode for process in processes]


def create_and_commit(number: int, barrier: Any, url: str, rounds: int) -> None:
    catalog = Catalog(open_storage(url))
    barrier.wait()
    catalog.create(f"writer {number}")
    for turn in range(rounds):
        catalog.commit(adding(f"{number}-{turn}"), f"writer {number}")


@pytest.mark.parametrize("rounds", [8, pytest.param(63, marks=pytest.mark.slow)])
def test_sixteen_processes_lose_no_commit(tmp_path: Path, rounds: int) -> None:
    assert in_processes(16, create_and_commit, str(tmp_path), rounds) == [0] * 16
    storage = open_storage(tmp_path)
    state = Catalog(storage).check()
    assert set(state.episodes) == {f"{number}-{turn}" for number in range(16) for turn in range(rounds)}
    assert state.version == 1 + 16 * rounds
    assert state == fresh(storage)
    head = read_head(storage)
    assert head is not None
    assert (head.version, head.sha256) == (state.version, state.head)
    assert head.checkpoint is not None
    assert not list(storage.keys(".staging"))


def test_threads_on_one_memory_lose_no_commit() -> None:
    storage = in_memory()

    def work(number: int) -> None:
        catalog = Catalog(open_storage(storage.url))
        catalog.create(f"writer {number}")
        for turn in range(10):
            catalog.commit(adding(f"{number}-{turn}"), "me")

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(work, range(16)))
    state = Catalog(storage).check()
    assert len(state.episodes) == 160
    assert state.version == 161
    assert state == fresh(storage)


@pytest.fixture(scope="module")
def gate() -> Iterator[Gate]:
    pytest.importorskip("moto")
    pytest.importorskip("s3fs")
    with s3_server() as gate:
        yield gate


def test_threads_on_one_bucket_lose_no_commit(gate: Gate) -> None:
    url = f"s3://hub/{uuid.uuid4().hex}"

    def work(number: int) -> None:
        catalog = Catalog(open_storage(url))
        catalog.create(f"writer {number}")
        for turn in range(2):
            catalog.commit(adding(f"{number}-{turn}"), "me")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    state = Catalog(open_storage(url)).check()
    assert len(state.episodes) == 8
    assert state.version == 9
    creations = [s for s in gate.seen if s[0] == "PUT" and "/catalog/0" in s[1]]
    assert {condition for _, _, condition in creations} == {"*"}


def test_a_commit_whose_answer_was_lost_is_made_once(gate: Gate) -> None:
    catalog = filled(open_storage(f"s3://hub/{uuid.uuid4().hex}"), 1)
    gate.spoilers.append(losing_the_answer)
    state = catalog.commit(lambda _: [add_of(["x"])], "me")
    assert not gate.spoilers
    assert state.version == 3
    assert Catalog(catalog.storage).check() == state


# ---------------------------------------------------------------- death and full disks


def die() -> None:
    os._exit(77)


def work_until_death(number: int, barrier: Any, url: str, first: int) -> None:
    """Create and commit; die at call ``first + number`` to the disk."""
    setattr(disk, "os", Failing(first + number, die))  # noqa: B010 - mypy knows that it is a module
    life(open_storage(url + f"/{first + number}", create=True))


def life(storage: Storage) -> None:
    catalog = Catalog(storage)
    catalog.create("me")
    catalog.commit(adding("a"), "me")


def check_convergence(storage: Storage) -> None:
    """What is there is an old state or the new one, and doing it again leads to the new one."""
    try:
        before = Catalog(storage).check()
    except DamageError:
        raise
    except StoreError:
        pass  # not created yet
    else:
        assert list(before.episodes) in ([], ["a"])
        assert before == fresh(storage)
    life(storage)
    after = Catalog(storage).check()
    assert (list(after.episodes), after.version) == (["a"], 2)


def test_a_writer_may_die_at_any_call_to_the_disk(tmp_path: Path) -> None:
    died = 0
    for first in range(1, 1000, 16):
        codes = in_processes(16, work_until_death, str(tmp_path), first)
        assert set(codes) <= {0, 77}
        for at in range(first, first + 16):
            check_convergence(open_storage(tmp_path / str(at), create=True))
        died += codes.count(77)
        if 0 in codes:
            break
    assert died > 60


def test_the_disk_may_fail_at_any_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise OSError(errno.EIO, "Input/output error")

    for at in range(1, 1000):
        storage = open_storage(tmp_path / str(at), create=True)
        shim = Failing(at, fail)
        with monkeypatch.context() as patch:
            patch.setattr(disk, "os", shim)
            try:
                life(storage)
            except DamageError:
                raise
            except StoreError:
                pass
        check_convergence(storage)
        if len(shim.calls) < at:
            return
    pytest.fail("never came to an end")


def test_an_interrupted_creation_is_told_and_finished(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    with pytest.raises(StoreError, match="holds no store"):
        fresh(storage)
    storage.create(HEAD, head_bytes(Head()))
    with pytest.raises(StoreError, match="interrupted; create it again"):
        fresh(storage)
    assert Catalog(storage).create("me").version == 1


def test_creating_again_changes_nothing(tmp_path: Path) -> None:
    state = filled(open_storage(tmp_path)).load()
    assert Catalog(open_storage(tmp_path)).create("another") == state


def test_somebody_elses_zarr_is_left_alone(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    for foreign in (b'{"zarr_format":3,"node_type":"group"}', b"{", b"[]"):
        storage.replace("zarr.json", foreign)
        with pytest.raises(StoreError, match="something else"):
            Catalog(storage).create("me")
        assert list(storage.keys()) == ["zarr.json"]
        assert storage.read("zarr.json") == foreign


# ---------------------------------------------------------------- damage


def test_any_changed_byte_is_detected() -> None:
    storage = in_memory()
    filled(storage, 2)
    flips = 0
    for key in [*map(entry_key, (1, 2, 3)), HEAD]:
        raw = storage.read(key)
        for at in range(len(raw)):
            spoiled = bytearray(raw)
            spoiled[at] ^= 1 << at % 8
            overwrite(storage, key, bytes(spoiled))
            with pytest.raises(DamageError, match="catalog/"):
                fresh(storage)
            flips += 1
        overwrite(storage, key, raw)
    assert fresh(storage) == Catalog(storage).check()
    assert flips > 2000


@pytest.mark.parametrize("key", [*map(entry_key, (1, 2, 3, 4)), HEAD])
def test_lost_cut_and_exchanged_files_are_detected(key: str) -> None:
    storage = in_memory()
    state = filled(storage).load()
    raw = storage.read(key)
    others = [storage.read(name) for name in (*map(entry_key, (1, 2, 3, 4)), HEAD) if name != key]
    for spoiled in (b"", raw[:-1], raw[: len(raw) // 2], raw + b"\n", raw + raw, b"null\n", *others):
        overwrite(storage, key, spoiled)
        for read in (Catalog(storage).load, Catalog(storage).check):
            with pytest.raises(DamageError):
                read()
    storage.delete([key])
    for read in (Catalog(storage).load, Catalog(storage).check):
        with pytest.raises(DamageError, match=r"missing.*log|missing.*head|missing.*later"):
            read()
    storage.create(key, raw)
    assert fresh(storage) == state


def test_a_log_that_was_rolled_back_is_detected() -> None:
    storage = in_memory()
    filled(storage)
    storage.delete([entry_key(3), entry_key(4)])
    with pytest.raises(
        DamageError, match=r"00000003\.json.*missing, though catalog/head\.json tells of version 4"
    ):
        fresh(storage)


def test_a_forged_history_is_detected() -> None:
    """Entries that are sound by themselves, but are another store's or another order's."""
    storage, other = in_memory(), in_memory()
    filled(storage)
    filled(other)
    for version in (1, 2, 3, 4):
        raw = storage.read(entry_key(version))
        overwrite(storage, entry_key(version), other.read(entry_key(version)))
        with pytest.raises(DamageError):
            fresh(storage)
        overwrite(storage, entry_key(version), raw)


def test_a_newest_entry_that_was_exchanged_for_a_sound_one_is_detected() -> None:
    storage = in_memory()
    filled(storage, 1)
    first = next(Catalog(storage).entries())
    overwrite(storage, entry_key(2), new_entry(2, first.sha256, "liar", (add_of(["x"]),)))
    for read in (Catalog(storage).load, Catalog(storage).check):
        with pytest.raises(
            DamageError, match=r"00000002\.json.*is not the entry that catalog/head\.json tells of"
        ):
            read()


def test_a_gap_behind_the_head_is_detected() -> None:
    storage = in_memory()
    filled(storage)
    head = storage.read(HEAD)
    catalog = Catalog(storage)
    catalog.load()
    for name in ("x", "y"):
        catalog.commit(adding(name), "me")
    overwrite(storage, HEAD, head)
    assert fresh(storage).version == 6, "a head that is behind is what a crash leaves"
    storage.delete([entry_key(5)])
    for read in (Catalog(storage).load, Catalog(storage).check):
        with pytest.raises(DamageError, match=r"00000005\.json.*missing, though later"):
            read()


def test_a_planted_number_costs_nothing() -> None:
    storage = in_memory()
    filled(storage)
    storage.create(entry_key(99_999_999), b"")
    with pytest.raises(DamageError, match=r"00000005\.json.*missing"):
        fresh(storage)


def test_a_head_that_fell_behind_catches_up() -> None:
    storage = in_memory()
    catalog = filled(storage)
    overwrite(storage, HEAD, head_bytes(Head()))
    catalog.commit(adding("x"), "me")
    head = read_head(storage)
    assert head is not None
    assert head.version == 5


def test_a_head_that_another_writer_moved_on_is_not_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    storage = in_memory()
    catalog = filled(storage, 1)
    other = Catalog(open_storage(storage.url))
    replaced = storage.replace

    def late(key: str, data: bytes) -> None:
        monkeypatch.undo()
        other.commit(adding("theirs"), "other")
        replaced(key, data)

    monkeypatch.setattr(storage, "replace", late)
    assert catalog.commit(adding("mine"), "me").version == 3
    head = read_head(storage)
    assert head is not None
    assert head.version == 4


def test_a_newer_format_is_told_as_such() -> None:
    storage = in_memory()
    filled(storage, 1)
    document = json.loads(storage.read(entry_key(2)))
    del document["checksum"]
    overwrite(storage, entry_key(2), sealed({**document, "format": 2}))
    with pytest.raises(StoreError, match="written by a newer teleopen") as caught:
        fresh(storage)
    assert not isinstance(caught.value, DamageError)


def test_nesting_without_end_is_damage() -> None:
    storage = in_memory()
    filled(storage, 1)
    overwrite(storage, entry_key(2), b"[" * 100_000)
    with pytest.raises(DamageError):
        fresh(storage)


# ---------------------------------------------------------------- checkpoints


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog_module, "CHECKPOINT_EVERY", 4)


@pytest.mark.usefixtures("often")
def test_a_store_opens_from_its_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    storage = in_memory()
    state = filled(storage, 6).load()
    read = []

    def noting(storage: Storage, key: str) -> bytes | None:
        read.append(key)
        return storage.read(key) if storage.exists(key) else None

    monkeypatch.setattr(catalog_module, "read_or_none", noting)
    assert fresh(storage) == state
    assert sorted(read) == [entry_key(version) for version in (5, 6, 7, 8)]


@pytest.mark.usefixtures("often")
def test_a_checkpoint_is_a_table_for_others() -> None:
    import pyarrow.parquet as pq

    storage = in_memory()
    filled(storage, 3)
    table = pq.read_table(io.BytesIO(storage.read(checkpoint_key(4))))
    assert table.column_names == ["episode", "segment", "row", "content", "rights"]
    assert table["episode"].to_pylist() == ["e0", "e1", "e2"]


@pytest.mark.usefixtures("often")
def test_a_spoiled_checkpoint_is_told_and_done_without() -> None:
    storage = in_memory()
    state = filled(storage, 6).load()
    key = checkpoint_key(4)
    raw = storage.read(key)
    for spoiled in (
        b"",
        raw[:-1],
        *(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :] for at in range(0, len(raw), 97)),
    ):
        overwrite(storage, key, spoiled)
        assert fresh(storage) == state
        assert list(check_checkpoints(storage, state)) == [
            (key, "was changed after it was written: its checksum differs")
        ]
    storage.delete([key])
    assert fresh(storage) == state
    assert list(check_checkpoints(storage, state)) == [(key, "is missing")]


@pytest.mark.usefixtures("often")
def test_a_checkpoint_of_another_store_is_not_believed() -> None:
    storage, other = in_memory(), in_memory()
    state = filled(storage, 3).load()
    filled(other, 3)
    theirs = read_head(other)
    mine = read_head(storage)
    assert mine is not None
    assert theirs is not None
    overwrite(storage, checkpoint_key(4), other.read(checkpoint_key(4)))
    overwrite(storage, HEAD, head_bytes(replace(mine, checkpoint=theirs.checkpoint)))
    assert fresh(storage) == state
    assert list(check_checkpoints(storage, state)) == [(checkpoint_key(4), "does not belong to this log")]


@pytest.mark.usefixtures("often")
def test_entries_before_a_checkpoint_are_checked_all_the_same() -> None:
    storage = in_memory()
    filled(storage, 5)
    raw = storage.read(entry_key(2))
    overwrite(storage, entry_key(2), raw.replace(b"me", b"ma"))
    with pytest.raises(DamageError):
        Catalog(storage).check()
    storage.delete([entry_key(2)])
    with pytest.raises(DamageError, match="missing"):
        fresh(storage)


@pytest.mark.usefixtures("often")
def test_a_checkpoint_that_cannot_be_written_stops_no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object) -> None:
        raise StoreError("x", "the disk is full")

    storage = in_memory()
    catalog = filled(storage, 2)
    with monkeypatch.context() as patch:
        patch.setattr(catalog_module, "write_checkpoint", full)
        catalog.commit(adding("x"), "me")
    head = read_head(storage)
    assert head is not None
    assert (head.version, head.checkpoint) == (4, None)
    catalog.commit(adding("y"), "me")
    assert storage.exists(checkpoint_key(5))


# ---------------------------------------------------------------- over the web


@pytest.mark.usefixtures("often")
def test_a_store_is_read_from_a_web_server(tmp_path: Path) -> None:
    local = open_storage(tmp_path / "store", create=True)
    head = b""
    for name in ("a", "b", "c", "d", "e", "f"):
        catalog = Catalog(local)
        catalog.create("me")
        catalog.commit(adding(name), "me")
        head = head or local.read(HEAD)
    with serving(functools.partial(Ranges, directory=str(tmp_path))) as url:
        reader = Catalog(open_storage(url))
        state = reader.load()
        assert state == fresh(local) == reader.check()
        Catalog(local).commit(adding("g"), "me")
        assert list(reader.load().episodes) == ["a", "b", "c", "d", "e", "f", "g"]
        overwrite(local, HEAD, head)
        assert Catalog(open_storage(url)).load() == reader.load()
        with pytest.raises(StoreError, match="read only"):
            reader.commit(adding("h"), "me")
    assert not [t for t in threading.enumerate() if t.name.startswith("log")]
