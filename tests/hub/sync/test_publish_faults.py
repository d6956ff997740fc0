"""Whatever goes wrong, and whenever: readers see the old state or the new one, and the next run goes on."""

from __future__ import annotations

import copy
import multiprocessing
import os
import random
import signal
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi
from teleopen.hub.sync.audit import audit
from teleopen.hub.sync.hub_target import HubTarget
from teleopen.schemas import TeleopenError

from tests.hub.sync.world import NOW, REPO, URL, World, again, make_world, shown, tiny
from tests.hub_server import Fault, Hub
from tests.hub_server.hub import TOKEN

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

Make = Callable[..., HubTarget]

PLACES = (
    ("GET", "/revision/"),
    ("GET", "/tree/"),
    ("GET", "/refs"),
    ("GET", "/resolve/"),
    ("GET", "/cdn/"),
    ("POST", "/repos/create"),
    ("PUT", "/settings"),
    ("POST", "/preupload/"),
    ("POST", "objects/batch"),
    ("PUT", "/lfs/"),
    ("POST", "/lfs-verify/"),
    ("POST", "validate-yaml"),
    ("POST", "/commit/"),
    ("POST", "/commit/"),
    ("POST", "/tag/"),
    (".*", ""),
)
STATUSES = (408, 409, 412, 429, 500, 502, 503, 504)
BODIES = (b"", b"<html>Bad Gateway</html>", b'{"error": "another commit operation is in progress"}')


def draw(rng: random.Random) -> Fault:
    """Return a fault: what, where, when and how often."""
    method, path = rng.choice(PLACES)
    kind: Any = rng.choice(
        ["status", "status", "lost", "lost", "drop", "drop-after", "truncate", "corrupt", "ignore-range"]
    )
    headers = rng.choice([{}, {"Retry-After": "1"}, {"RateLimit": '"api";r=0;t=1'}])
    return Fault(
        kind,
        method,
        path,
        skip=rng.choice([0, 0, 0, 1, 2, 5]),
        times=rng.choice([1, 1, 1, 2, 3, 30]),
        status=rng.choice(STATUSES),
        headers=headers,
        body=rng.choice(BODIES),
    )


class Stage:
    """A repository before, and a store that has something to publish to it."""

    def __init__(self, hub: Hub, folder: Path) -> None:
        self.hub = hub
        self.cache = folder / "cache"
        self.first = make_world(folder, opened=2, closed=220)
        self.first.publish(self.target())
        self.before = copy.deepcopy(hub.repositories[REPO])
        (folder / "later").mkdir()
        self.later = make_world(folder / "later", opened=2, closed=220)
        self.later.add(tiny(9))
        self.later.withdraw(self.later.store.ids[0])

    def target(self) -> HubTarget:
        return HubTarget(URL, endpoint=self.hub.url, token=TOKEN, cache=self.cache)


@pytest.fixture(scope="module")
def stage(_server: Hub, tmp_path_factory: pytest.TempPathFactory) -> Stage:
    _server.reset()
    return Stage(_server, tmp_path_factory.mktemp("stage"))


def run(stage: Stage, seed: int) -> None:
    """Publish under a schedule of faults until it succeeds, and look at everything that anybody could see."""
    rng = random.Random(seed)
    hub = stage.hub
    hub.reset()
    hub.verifies = rng.random() < 0.2
    world = rng.choice([stage.first, stage.later])
    goal = world.public
    if world is stage.later:
        hub.repositories[REPO] = copy.deepcopy(stage.before)
    states = [sorted(stage.first.store.ids[:2])] if world is stage.later else []
    hub.faults.add(*(draw(rng) for _ in range(rng.randint(1, 4))))
    for attempt in range(8):
        if attempt == 5:
            hub.faults.clear()
        try:
            report = world.publish(stage.target())
        except TeleopenError:
            continue
        break
    hub.faults.clear()
    assert report.episodes == len(goal)
    # Every commit is audited; there is one for each state, in order, and no other.
    assert shown(hub) == [*states, goal]
    assert not hub.repositories[REPO].private
    assert not world.publish(stage.target()).changed
    assert hub.repositories[REPO].resolve("main").id in hub.repositories[REPO].refs.values()
    assert world.leaks(hub) == []


@pytest.mark.parametrize("seed", range(32))
def test_every_schedule_of_faults_converges_to_the_one_right_state(stage: Stage, seed: int) -> None:
    run(stage, seed)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(5))
def test_five_hundred_schedules_of_faults_converge_to_the_one_right_state(stage: Stage, part: int) -> None:
    for seed in range(1000 + part * 100, 1100 + part * 100):
        run(stage, seed)


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("status", 409),
        ("status", 500),
        ("lost", 412),
        ("lost", 429),
        ("lost", 500),
        ("drop", 0),
        ("drop-after", 0),
    ],
)
def test_a_commit_that_fails_or_whose_answer_is_lost_is_made_once(
    hub: Hub, world: World, target: Make, kind: Any, status: int
) -> None:
    hub.faults.add(Fault(kind, "POST", "/commit/", skip=2, status=status))
    world.publish(target())
    assert shown(hub) == [sorted(world.store.ids[:2])]


def test_an_answer_that_comes_too_late_counts_as_lost(
    hub: Hub, world: World, target: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from teleopen.hub.sync import hub_client

    world.publish(target())
    world.add(tiny(7))
    monkeypatch.setattr(hub_client, "TIMEOUT_S", 0.2)
    hub.faults.add(Fault("delay", "POST", "/commit/", seconds=0.5))
    world.publish(target())
    assert [len(state) for state in shown(hub)] == [2, 3]


def test_a_poller_sees_only_whole_states(hub: Hub, world: World, target: Make) -> None:
    seen: list[int] = []
    problems: list[Any] = []
    stop = threading.Event()

    def poll() -> None:
        while not stop.is_set():
            try:
                found = audit(target(token="", cache=world.folder / "poller"), now=NOW + timedelta(days=1))
            except TeleopenError:
                continue  # nothing is published yet
            seen.append(found.episodes)
            problems.extend(found.findings)

    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("HF_TOKEN")
        thread = threading.Thread(target=poll)
        thread.start()
        try:
            for seed in range(20, 24):
                world.add(tiny(seed))
                world.publish(target())
            world.withdraw(world.store.ids[0])
            world.publish(target())
        finally:
            stop.set()
            thread.join()
    assert problems == []
    assert set(seen) <= {3, 4, 5, 6}
    assert [len(state) for state in shown(hub)] == [3, 4, 5, 6, 5]


# ---------------------------------------------------------------- kill -9


def _publisher(folder: str, endpoint: str, cache: str) -> None:
    """Publish in a process of its own, which is going to be killed."""
    from teleopen.hub.sync import hub_client

    hub_client.sleep = lambda _seconds: None
    world = again(World(store=None, folder=Path(folder)))  # type: ignore[arg-type]  # opened by `again`
    world.publish(HubTarget(URL, endpoint=endpoint, token=TOKEN, cache=Path(cache)))


@pytest.fixture(scope="module")
def forked() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.hub.sync.test_publish_faults"])
    return context


def kill_after(hub: Hub, world: World, forked: Any, requests: int) -> bool:
    """Publish in a process that dies right after its n-th request was done; tell whether it died."""
    args = (str(world.folder), hub.url, str(world.folder / "cache"))
    process = forked.Process(target=_publisher, args=args)

    def kill() -> None:
        os.kill(process.pid, signal.SIGKILL)

    hub.faults.clear()
    hub.faults.add(Fault("call", skip=requests, effect=kill))
    process.start()
    process.join()
    hub.faults.clear()
    assert process.exitcode in {0, -signal.SIGKILL}
    return bool(process.exitcode)


def sweep(hub: Hub, ram_path: Path, target: Make, forked: Any, points: range) -> None:
    for point in points:
        hub.reset()
        world = make_world(ram_path / str(point))
        died = kill_after(hub, world, forked, point)
        assert shown(hub) in ([], [sorted(world.store.ids[:2])])
        world.shift += timedelta(hours=1)
        world.publish(target(cache=world.folder / "cache"))
        assert shown(hub) == [sorted(world.store.ids[:2])]
        assert audit(target(cache=world.folder / "cache"), now=NOW + timedelta(days=1)).ok
        assert not hub.repositories[REPO].private
        assert world.leaks(hub) == []
        if not died:
            return


def test_a_publisher_that_is_killed_leaves_the_old_state_or_the_new_one(
    hub: Hub, ram_path: Path, target: Make, forked: Any
) -> None:
    sweep(hub, ram_path, target, forked, range(20, 83, 25))


@pytest.mark.slow
def test_a_publisher_may_be_killed_after_any_request(
    hub: Hub, ram_path: Path, target: Make, forked: Any
) -> None:
    sweep(hub, ram_path, target, forked, range(150))


# ---------------------------------------------------------------- many publishers


def race(hub: Hub, ram_path: Path, target: Make, writers: int) -> None:
    """Let publishers with stores of their own publish to one place at once."""
    worlds = []
    for number in range(writers):
        world = make_world(ram_path / f"w{number}", opened=0, closed=1)
        world.add(tiny(100 + number))
        worlds.append(world)
    errors: list[BaseException] = []

    def publish(world: World) -> None:
        try:
            world.publish(target(cache=world.folder / "cache"))
        except BaseException as error:  # noqa: BLE001 - told in the test's own thread
            errors.append(error)

    threads = [threading.Thread(target=publish, args=(world,)) for world in worlds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    states = shown(hub)
    assert [len(state) for state in states] == list(range(1, writers + 1))
    everyone = sorted(e for w in worlds for e in w.public)
    assert states[-1] == everyone
    assert audit(target(), full=True, now=NOW + timedelta(days=1)).ok
    tags = [ref for ref in hub.repositories[REPO].refs if ref.startswith("refs/tags/v")]
    assert len(tags) == writers


@pytest.mark.parametrize("writers", [2, 4])
def test_racing_publishers_lose_nothing(hub: Hub, ram_path: Path, target: Make, writers: int) -> None:
    race(hub, ram_path, target, writers)


def test_a_first_commit_upon_which_somebody_else_published_is_opened_by_them(
    hub: Hub, ram_path: Path, target: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (make_world(ram_path / name, opened=1, closed=1) for name in "ab")
    second.add(tiny(7))
    mine, theirs = (target(cache=world.folder / "cache") for world in (first, second))
    finish = mine.finish

    def after_them(base: str, version: int) -> tuple[str, ...]:
        with monkeypatch.context() as patch:
            patch.setattr(theirs, "finish", lambda _base, _version: ())
            second.publish(theirs)
        return finish(base, version)

    monkeypatch.setattr(mine, "finish", after_them)
    first.publish(mine)
    assert hub.repositories[REPO].private
    assert second.publish(theirs).done == ("made public", "named v2", "named v1")
    assert [len(state) for state in shown(hub)][-1] == len({*first.public, *second.public})


@pytest.mark.slow
@pytest.mark.parametrize("turn", range(3))
def test_eight_racing_publishers_lose_nothing(hub: Hub, ram_path: Path, target: Make, turn: int) -> None:
    race(hub, ram_path, target, 8)


def test_a_token_that_may_only_propose_ends_in_an_error_and_not_in_a_loop(
    hub: Hub, world: World, target: Make
) -> None:
    hub.faults.add(Fault("status", "POST", "/commit/", times=10_000, status=412))
    with pytest.raises(TeleopenError):
        world.publish(target())
    assert len(hub.record) < 500
    assert HfApi(endpoint=hub.url, token=TOKEN).dataset_info(REPO).private
