"""A target may be anybody's: nothing of it is read without a bound, and no ref of it is passed over."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from teleopen.hub.log import File
from teleopen.hub.sync import audit_refs, bounds, hub_files
from teleopen.hub.sync.audit import audit
from teleopen.hub.sync.bounds import DOCUMENT_BYTES, checked_document
from teleopen.hub.sync.hub_target import HubTarget
from teleopen.hub.sync.mirror_target import MirrorTarget, revocations
from teleopen.hub.sync.public_log import read_public
from teleopen.hub.sync.pull import pull
from teleopen.hub.sync.target import Snapshot
from teleopen.hub.sync.withdraw import purge
from teleopen.schemas import DamageError, StoreError

from tests.hub.sync.world import NOW, REPO, World, tiny
from tests.hub_server import Hub
from tests.hub_server.hub import TOKEN

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

Make = Callable[..., HubTarget]
LATER = NOW + timedelta(days=1)
TOO_LARGE = "documents of at most"
HUGE = 1 << 40


# ---------------------------------------------------------------- bounds


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let documents have 100,000 bytes."""
    monkeypatch.setattr(bounds, "DOCUMENT_BYTES", 100_000)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    "key", ["generations/head.json", "generations/00000001.json", "generations/00000002.json"]
)
def test_no_list_of_a_mirror_is_read_beyond_its_bound(world: World, key: str) -> None:
    place = Path(world.folder / "mirror")
    world.publish(MirrorTarget(str(place)))
    (place / key).touch()
    os.truncate(place / key, HUGE)
    for act in (
        lambda target: audit(target, now=LATER),
        lambda target: pull(target, world.folder / "home"),
        world.publish,
    ):
        with pytest.raises(DamageError, match=TOO_LARGE):
            act(MirrorTarget(str(place)))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("key", ["generations/format.json", "revocations.json"])
def test_no_note_of_a_mirror_is_read_beyond_its_bound(world: World, key: str) -> None:
    place = MirrorTarget(str(world.folder / "mirror"))
    world.publish(place)
    world.add(tiny(7))
    (world.folder / "mirror" / key).touch()
    os.truncate(world.folder / "mirror" / key, HUGE)
    with pytest.raises(DamageError, match=TOO_LARGE):
        revocations(place.storage()) if "revocations" in key else world.publish(place)  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["manifest.json", "catalog/head.json", "catalog/00000001.json"])
def test_a_document_that_is_listed_as_too_large_is_not_even_asked_for(world: World, path: str) -> None:
    mirror = MirrorTarget(str(world.folder / "mirror"))
    world.publish(mirror)
    state = mirror.look()
    assert state.storage is not None
    content = {path: state.storage.read(path) for path in state.files}
    asked: list[str] = []

    def fetch(path: str, start: int, stop: int) -> bytes:
        asked.append(path)
        return content[path][start:stop]

    listed = {**state.files, path: File(size=DOCUMENT_BYTES + 1, sha256="0" * 64)}
    with pytest.raises(DamageError, match=TOO_LARGE):
        read_public(Snapshot("somewhere", listed, fetch), "1", listed)
    assert path not in asked


def test_samples_are_read_in_parts_however_large_their_file_is() -> None:
    files = {"segments/a/c/0": File(size=HUGE, sha256="0" * 64)}
    place = Snapshot("somewhere", files, lambda _path, start, stop: bytes(stop - start))
    assert place.read("segments/a/c/0", HUGE - 10, HUGE) == bytes(10)
    with pytest.raises(DamageError, match=TOO_LARGE):
        place.read("segments/a/c/0")


def test_a_plain_file_of_a_repository_that_is_listed_as_too_large_is_not_fetched(
    hub: Hub, world: World, target: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.publish(target())
    monkeypatch.setattr(bounds, "DOCUMENT_BYTES", 1000)
    hub.record.clear()
    with pytest.raises(DamageError, match=TOO_LARGE):
        audit(target(cache=world.folder / "stranger"), now=LATER)
    found = hub.repositories[REPO]
    large = [path for path, file in found.resolve("main").files.items() if file.size > 1000]
    assert large
    asked = [one.path for one in hub.record]
    assert not [path for path in large if any(one.endswith(f"/{path}") for one in asked)]


class Endless:
    """An answer that does not end."""

    def iter_bytes(self, size: int) -> Iterator[bytes]:
        while True:
            yield bytes(size)


def test_an_answer_without_an_end_is_left_once_it_is_longer_than_was_asked_for() -> None:
    assert len(hub_files._body(Endless(), 10)) == 11
    assert len(hub_files._body(Endless(), 5 << 20)) == (5 << 20) + 1


def test_a_document_of_brackets_is_refused_before_it_fills_the_memory() -> None:
    raw = b"[" + b"[]," * (1 << 20) + b"[]]"
    with pytest.raises(DamageError, match="brackets"):
        checked_document("somewhere/manifest.json", raw)
    assert checked_document("somewhere/manifest.json", b"[[],[]]") == b"[[],[]]"
    numbers = b"[" + b"1," * (1 << 20) + b"1]"
    assert checked_document("somewhere/manifest.json", numbers) == numbers


def test_nobody_publishes_what_readers_would_refuse(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "DOCUMENT_BYTES", 1000)
    place = world.folder / "mirror"
    with pytest.raises(StoreError, match=TOO_LARGE):
        world.publish(MirrorTarget(str(place)))
    assert not (place / "generations" / "00000001.json").exists()


# ---------------------------------------------------------------- refs


def seen(found: Any) -> dict[str, tuple[int | None, int]]:
    """Return how many episodes each ref holds, and how many of them were withdrawn."""
    return {ref.name: (ref.episodes, len(ref.withdrawn)) for ref in found.refs}


def test_an_episode_that_was_withdrawn_is_told_of_every_older_tag_until_a_purge(
    hub: Hub, world: World, target: Make
) -> None:
    gone = world.store.ids[0]
    world.publish(target())
    world.add(tiny(7))
    world.publish(target())
    before = audit(target(), now=LATER)
    assert before.ok
    assert seen(before) == {"main": (3, 0), "v1": (2, 0), "v2": (3, 0)}
    world.withdraw(gone, ground="consent")
    world.publish(target())
    found = audit(target(), now=LATER)
    assert seen(found) == {"main": (2, 0), "v1": (2, 1), "v2": (3, 1), "v3": (2, 0)}
    assert {ref.withdrawn for ref in found.refs if ref.name in {"v1", "v2"}} == {(gone,)}
    assert found.ok
    assert audit(target(), now=LATER, revision="v3").refs == ()
    purge(target(), log=world.log())
    after = audit(target(), now=LATER)
    assert after.ok
    assert seen(after) == {"main": (2, 0), "v3": (2, 0)}


@pytest.fixture
def branch(hub: Hub, world: World, target: Make) -> Callable[..., None]:
    """Publish, and give what commits to a branch beside it."""
    world.publish(target())
    api = HfApi(endpoint=hub.url, token=TOKEN)
    api.create_branch(REPO, branch="draft", repo_type="dataset")

    def commit(*operations: Any) -> None:
        api.create_commit(REPO, operations, commit_message="by hand", repo_type="dataset", revision="draft")

    return commit


def test_what_nobody_claims_is_found_on_any_branch(branch: Callable[..., None], target: Make) -> None:
    branch(
        CommitOperationAdd("notes/private.txt", b"by hand"),
        CommitOperationAdd("segments/abc/steps/action/c/0/0", b"samples"),
        CommitOperationAdd("NOTICE", b"nobody's, and of another size"),
        CommitOperationDelete("README.md"),
    )
    found = audit(target(), now=LATER)
    assert {(one.path, one.why) for one in found.findings} == {
        ("notes/private.txt", "is claimed by nobody, at branch draft"),
        ("NOTICE", "is not the file that the manifest claims, at branch draft"),
        ("README.md", "is missing, at branch draft"),
    }
    assert found.pending == ("segments/abc/steps/action/c/0/0 at branch draft",)


def test_a_branch_without_a_manifest_claims_nothing(branch: Callable[..., None], target: Make) -> None:
    branch(CommitOperationDelete("manifest.json"))
    found = audit(target(), now=LATER)
    assert {one.why for one in found.findings} == {
        "is claimed by nobody: there is no manifest, at branch draft"
    }
    assert "catalog/head.json" in {one.path for one in found.findings}


@pytest.mark.parametrize("raw", [b"[]", b"{", b'{"files":[{"path":"../x"}]}', b"[1,2]" * 30_000])
def test_a_branch_whose_manifest_is_none_is_told(
    branch: Callable[..., None], target: Make, raw: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    branch(CommitOperationAdd("manifest.json", raw))
    monkeypatch.setattr(bounds, "DOCUMENT_BYTES", 100_000)
    found = audit(target(), now=LATER)
    assert [one.path for one in found.findings] == ["manifest.json"]
    assert found.findings[0].why.endswith("at branch draft")


def test_the_other_refs_cost_few_requests_and_what_was_not_looked_at_is_told(
    hub: Hub, world: World, target: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.publish(target())
    for seed in (7, 8, 9):
        world.add(tiny(seed))
        world.publish(target())
    hub.record.clear()
    audit(target(), now=LATER, revision="main")
    alone = len(hub.record)
    hub.record.clear()
    assert audit(target(), now=LATER).ok
    assert set(hub.record.methods()) == {"GET"}
    assert len(hub.record) <= alone + 1 + 3 * 3  # the refs; of each older one its files and its manifest
    monkeypatch.setattr(audit_refs, "MOST_REFS", 1)
    found = audit(target(), now=LATER)
    assert sorted(ref.files is None for ref in found.refs) == [False, False, False, True, True]
    assert found.ok
