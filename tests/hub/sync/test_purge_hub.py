"""Withdrawn bytes are in no ref after a purge, and what cannot be recalled is told."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from huggingface_hub import HfApi
from teleopen.hub.sync.audit import audit
from teleopen.hub.sync.hub_target import HubTarget
from teleopen.hub.sync.withdraw import purge
from teleopen.schemas import NotFoundError, StoreError, TeleopenError

from tests.hub.sync.world import NOW, REPO, World, tiny
from tests.hub_server import Fault, Hub
from tests.hub_server.hub import TOKEN

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

Make = Callable[..., HubTarget]
LATER = NOW + timedelta(days=1)


def bytes_of(hub: Hub, episode: str) -> set[str]:
    """Return the objects of a repository that hold an episode's bytes: its segment's data, and its header."""
    found = hub.repositories[REPO]
    return {sha for sha, data in found.lfs.items() if episode.encode() in data and b"PAR1" in data[:4]}


def reachable(hub: Hub) -> set[str]:
    return {
        file.lfs
        for commit in hub.repositories[REPO].reachable()
        for file in commit.files.values()
        if file.lfs
    }


@pytest.fixture
def withdrawn(hub: Hub, world: World, target: Make) -> str:
    """Publish, publish more, withdraw one, publish: the episode is in two older versions."""
    gone = world.store.ids[0]
    world.publish(target())
    world.add(tiny(7))
    world.publish(target())
    world.withdraw(gone, ground="consent")
    world.publish(target())
    assert bytes_of(hub, gone) & reachable(hub)
    return gone


def test_after_a_purge_no_ref_leads_to_withdrawn_bytes_and_they_cannot_be_had(
    hub: Hub, world: World, target: Make, withdrawn: str
) -> None:
    head = hub.repositories[REPO].resolve("main")
    old = hub.repositories[REPO].refs["refs/tags/v1"]
    before = bytes_of(hub, withdrawn)
    done = purge(target(), log=world.log())
    found = hub.repositories[REPO]
    assert before
    assert before.isdisjoint(reachable(hub) | found.lfs.keys())
    assert before <= set(done.files)
    assert len(list(found.history(found.resolve("main")))) == 1
    assert found.resolve("main").files == head.files
    assert set(found.refs) == {"refs/heads/main", "refs/tags/v3"}
    assert found.refs["refs/tags/v3"] == done.base == found.resolve("main").id
    assert found.resolve("main").parent is None
    assert audit(target(), full=True, now=LATER).ok
    with pytest.raises(TeleopenError):
        audit(target(cache=world.folder / "stranger"), revision=old, now=LATER, full=True)


def test_what_a_purge_cannot_reach_is_told(hub: Hub, world: World, target: Make, withdrawn: str) -> None:
    refs = hub.repositories[REPO].refs
    refs["refs/pr/1"] = refs["refs/tags/v1"]
    refs["refs/convert/parquet"] = refs["refs/tags/v2"]
    done = purge(target(), log=world.log())
    told = "\n".join(done.remaining)
    assert "pull request 1" in told
    assert "conversion parquet" in told
    assert "clones" in told


def test_tags_from_before_the_episode_stay(hub: Hub, world: World, target: Make) -> None:
    world.publish(target())
    world.add(tiny(7))
    world.publish(target())
    late = next(e for e in world.public if e not in hub_ids(hub, "v1"))
    world.withdraw(late)
    world.publish(target())
    first = hub.repositories[REPO].refs["refs/tags/v1"]
    purge(target(), log=world.log())
    refs = hub.repositories[REPO].refs
    assert refs["refs/tags/v1"] == first
    assert "refs/tags/v2" not in refs
    assert audit(target(), revision="v1", full=True, now=LATER).ok


def hub_ids(hub: Hub, revision: str) -> set[str]:
    import json

    found = hub.repositories[REPO]
    commit = found.resolve(revision)
    manifest = json.loads(found.content(commit.files["manifest.json"]))
    return {one["id"] for one in manifest["episodes"]}


def test_a_purge_may_be_done_again(hub: Hub, world: World, target: Make, withdrawn: str) -> None:
    purge(target(), log=world.log())
    refs = dict(hub.repositories[REPO].refs)
    done = purge(target(), log=world.log())
    assert (done.files, done.refs) == ((), ())
    assert hub.repositories[REPO].refs == refs


def test_what_was_uploaded_and_never_committed_goes_too(
    hub: Hub, world: World, target: Make, withdrawn: str
) -> None:
    import hashlib

    orphan = b"bytes of an episode whose commit failed"
    hub.repositories[REPO].lfs[hashlib.sha256(orphan).hexdigest()] = orphan
    purge(target(), log=world.log())
    assert orphan not in hub.repositories[REPO].lfs.values()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        ("GET", "/refs", "status"),
        ("GET", "/commits/", "drop"),
        ("GET", "/lfs-files", "lost"),
        ("POST", "/lfs-files/batch", "lost"),
        ("POST", "/super-squash/", "drop-after"),
        ("DELETE", "/tag/", "lost"),
        ("GET", "/tree/", "truncate"),
    ],
)
def test_a_purge_whose_answers_get_lost_ends_the_same(
    hub: Hub, world: World, target: Make, withdrawn: str, method: str, path: str, kind: Any
) -> None:
    before = bytes_of(hub, withdrawn)
    hub.faults.add(Fault(kind, method, path))
    purge(target(), log=world.log())
    assert before.isdisjoint(reachable(hub) | hub.repositories[REPO].lfs.keys())
    assert audit(target(), now=LATER).ok


def test_an_episode_that_is_public_still_is_not_purged(hub: Hub, world: World, target: Make) -> None:
    world.publish(target())
    before = dict(hub.repositories[REPO].refs)
    with pytest.raises(NotFoundError, match="was withdrawn"):
        purge(target(), log=world.log())
    assert hub.repositories[REPO].refs == before


def test_a_server_that_cannot_purge_is_told_as_it_is(
    hub: Hub, world: World, target: Make, withdrawn: str
) -> None:
    hub.faults.add(Fault("status", "GET", "/lfs-files", status=404, times=100))
    with pytest.raises((StoreError, NotFoundError)):
        purge(target(), log=world.log())
    assert HfApi(endpoint=hub.url, token=TOKEN).dataset_info(REPO).sha
