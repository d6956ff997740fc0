"""Publishing to the Hub with the real client: exactly the open subset, in one commit, checked outside."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from teleopen.hub import disk
from teleopen.hub.sync import hub_target
from teleopen.hub.sync.audit import audit
from teleopen.hub.sync.audit_log import read_log
from teleopen.hub.sync.hub_target import HubTarget
from teleopen.hub.sync.planning import GIT_ATTRIBUTES, plan, recheck
from teleopen.hub.sync.publish import apply
from teleopen.schemas import ConflictError, DamageError, NotFoundError, RightsError, StoreError

from tests.hub.sync.world import NOW, REPO, URL, World, shown, tiny
from tests.hub_server import Fault, Hub
from tests.hub_server.hub import READER, STRANGER, TOKEN
from tests.hub_server.repository import Limits, Repository

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

Make = Callable[..., HubTarget]


def head(hub: Hub) -> Any:
    return hub.repositories[REPO].resolve("main")


def write_by_hand(hub: Hub, path: str, data: bytes) -> None:
    api = HfApi(endpoint=hub.url, token=TOKEN)
    api.create_commit(REPO, [CommitOperationAdd(path, data)], commit_message="by hand", repo_type="dataset")


def test_the_open_subset_is_published_and_a_stranger_can_prove_it(
    hub: Hub, world: World, target: Make
) -> None:
    report = world.publish(target())
    assert (report.changed, report.episodes, report.base) == (True, 2, head(hub).id)
    found = audit(target(token="", cache=world.folder / "stranger"), full=True, now=NOW)
    assert (found.findings, found.pending, found.episodes) == ((), (), 2)
    assert found.files == len(head(hub).files)
    assert world.leaks(hub) == []
    assert not hub.repositories[REPO].private


def test_one_commit_makes_the_switch_and_its_parent_is_the_base(hub: Hub, world: World, target: Make) -> None:
    world.publish(target())
    titles = [commit.title for commit in hub.repositories[REPO].history(head(hub))]
    assert titles == ["Publish version 1: 2 episodes", "Prepare for publishing", "initial commit"]
    assert shown(hub) == [sorted(world.store.ids[:2])]


def test_the_commit_is_tagged_with_the_version(hub: Hub, world: World, target: Make) -> None:
    world.publish(target())
    assert hub.repositories[REPO].refs["refs/tags/v1"] == head(hub).id


def test_publishing_again_sends_nothing_and_asks_at_most_five_times(
    hub: Hub, world: World, target: Make
) -> None:
    world.publish(target())
    before = head(hub).id
    hub.record.clear()
    report = world.publish(target())
    assert not report.changed
    assert head(hub).id == before
    assert set(hub.record.methods()) == {"GET"}
    assert len(hub.record) <= 5
    assert hub.record.body_bytes == 0


def test_another_machine_that_knows_nothing_finds_nothing_to_do_either(
    hub: Hub, world: World, target: Make
) -> None:
    world.publish(target())
    hub.record.clear()
    assert not world.publish(target(cache=world.folder / "elsewhere")).changed
    assert set(hub.record.methods()) == {"GET"}


def test_only_what_is_new_is_sent(hub: Hub, world: World, target: Make) -> None:
    world.publish(target())
    hub.record.clear()
    world.add(tiny(7))
    assert world.publish(target()).episodes == 3
    first = hub.repositories[REPO].commits[hub.repositories[REPO].refs["refs/tags/v1"]]
    sent = {r.path.rpartition("/")[2] for r in hub.record if r.method == "PUT"}
    assert sent.isdisjoint(file.lfs for file in first.files.values())
    assert [len(state) for state in shown(hub)] == [2, 3]


def test_planning_only_reads(hub: Hub, world: World, target: Make) -> None:
    place = target()
    world.replan(place)(place.look())
    assert set(hub.record.methods()) <= {"GET"}
    world.publish(place)
    world.add(tiny(7))
    hub.record.clear()
    world.replan(place)(target().look())
    assert set(hub.record.methods()) <= {"GET"}


def test_data_and_all_that_names_episodes_are_objects_that_a_purge_can_reach(
    hub: Hub, world: World, target: Make
) -> None:
    world.publish(target())
    plain = {path for path, file in head(hub).files.items() if file.lfs is None and file.size}
    assert plain == {".gitattributes", "LICENSES/CC-BY-4.0.txt", "NOTICE", "README.md", "zarr.json"}
    assert hub.repositories[REPO].text(head(hub), ".gitattributes").encode() == GIT_ATTRIBUTES


def test_what_somebody_changed_by_hand_is_put_right(hub: Hub, world: World, target: Make) -> None:
    world.publish(target())
    good = head(hub).files
    write_by_hand(hub, "README.md", b"---\nlicense: mit\n---\nall yours\n")
    write_by_hand(hub, "notes/private.txt", b"by hand")
    api = HfApi(endpoint=hub.url, token=TOKEN)
    api.create_commit(REPO, [CommitOperationDelete("NOTICE")], commit_message="by hand", repo_type="dataset")
    assert len(audit(target(), now=NOW).findings) == 3
    world.publish(target())
    assert {p: f for p, f in head(hub).files.items() if p != "manifest.json"} == {
        p: f for p, f in good.items() if p != "manifest.json"
    }
    assert audit(target(), full=True, now=NOW).ok


def test_a_remote_ignore_file_hides_nothing(hub: Hub, world: World, target: Make) -> None:
    world.publish(target())
    write_by_hand(hub, ".gitignore", b"segments/\n*.json\n")
    world.add(tiny(7))
    assert world.publish(target()).episodes == 3
    assert ".gitignore" not in head(hub).files
    assert audit(target(), full=True, now=NOW).ok


def test_a_repository_that_holds_something_else_is_left_alone(hub: Hub, world: World, target: Make) -> None:
    HfApi(endpoint=hub.url, token=TOKEN).create_repo(REPO, repo_type="dataset")
    write_by_hand(hub, "train.csv", b"a,b\n")
    before = head(hub).id
    with pytest.raises(ConflictError, match="was not published from a store"):
        world.publish(target())
    assert head(hub).id == before


# ---------------------------------------------------------------- who may, and how open it is


def test_without_a_token_there_is_one_clear_error(hub: Hub, world: World, target: Make) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("HF_TOKEN")
        with pytest.raises(StoreError, match="needs a token"):
            world.publish(target(token=""))
    assert REPO not in hub.repositories


@pytest.mark.parametrize(("token", "why"), [(READER, "right to write"), (STRANGER, "right to write")])
def test_without_the_right_there_is_one_clear_error(
    hub: Hub, world: World, target: Make, token: str, why: str
) -> None:
    hub.repositories[REPO] = Repository(REPO)
    before = head(hub).id
    with pytest.raises(StoreError, match=why) as caught:
        world.publish(target(token=token))
    assert token not in str(caught.value)
    assert head(hub).id == before
    assert world.leaks(hub) == []


def test_a_wrong_token_is_told_and_never_shown(world: World, target: Make) -> None:
    wrong = "hf_wrongwrongwrongwrongwrongwrongwrong"
    with pytest.raises(StoreError, match="does not accept the token") as caught:
        world.publish(target(token=wrong))
    told = repr(caught.value) + str(caught.value)
    assert wrong not in told
    assert TOKEN not in told


@pytest.mark.parametrize(
    ("private", "gated", "planned", "why"),
    [
        (False, False, {"private": True}, "is public"),
        (False, False, {"gated": "manual"}, "is gated=False"),
        (False, "manual", {}, "is gated=manual"),
        (True, "auto", {"gated": "manual", "private": True}, "is gated=auto"),
    ],
)
def test_a_repository_that_is_not_as_open_as_planned_gets_nothing(
    hub: Hub, world: World, target: Make, private: bool, gated: Any, planned: dict[str, Any], why: str
) -> None:
    found = hub.repositories[REPO] = Repository(REPO, private=private, gated=gated)
    before = head(hub).id
    with pytest.raises(StoreError, match=why):
        world.publish(target(**planned))
    assert (head(hub).id, found.private, found.gated) == (before, private, gated)
    assert not {"POST", "PUT"} & set(hub.record.methods())


def test_a_repository_made_private_after_publishing_is_not_opened_again(
    hub: Hub, world: World, target: Make
) -> None:
    world.publish(target())
    hub.repositories[REPO].private = True
    world.add(tiny(7))
    with pytest.raises(StoreError, match="made private after publishing"):
        world.publish(target())
    assert hub.repositories[REPO].private


def test_a_gated_repository_is_gated_before_it_is_filled_and_refuses_strangers(
    hub: Hub, world: World, target: Make
) -> None:
    world.publish(target(gated="manual"))
    found = hub.repositories[REPO]
    assert (found.private, found.gated) == (False, "manual")
    asked = [(r.method, r.path.partition("?")[0].rpartition("/")[2]) for r in hub.record]
    assert asked.index(("PUT", "settings")) < asked.index(("POST", "main"))
    with pytest.raises(StoreError):
        HubTarget(URL, endpoint=hub.url, token=STRANGER, cache=world.folder / "eve").look()


def test_a_private_repository_stays_private(hub: Hub, world: World, target: Make) -> None:
    world.publish(target(private=True))
    assert hub.repositories[REPO].private
    with pytest.raises(NotFoundError):
        audit(HubTarget(URL, endpoint=hub.url, token=STRANGER), now=NOW)


def test_a_server_that_says_yes_to_settings_and_keeps_its_own_gets_nothing(
    hub: Hub, world: World, target: Make
) -> None:
    hub.heeds_settings = False
    with pytest.raises(StoreError, match="is gated=False"):
        world.publish(target(gated="manual"))
    assert "PUT" not in [r.method for r in hub.record if "/lfs/" in r.path]
    assert shown(hub) == []


def test_a_server_that_accepts_stale_parents_is_found_out_and_needs_a_promise(
    hub: Hub, world: World, target: Make
) -> None:
    hub.checks_parent = False
    for _ in range(2):
        with pytest.raises(StoreError, match="--single-writer"):
            world.publish(target())
    assert shown(hub) == []
    assert hub.repositories[REPO].text(head(hub), ".gitattributes").encode() == GIT_ATTRIBUTES
    assert world.publish(target(single_writer=True)).changed
    assert audit(target(), full=True, now=NOW).ok


def test_the_token_never_reaches_where_objects_lie(hub: Hub, world: World, target: Make) -> None:
    world.publish(target())
    audit(target(), full=True, now=NOW)
    beyond = [r for r in hub.record if r.path.startswith(("/cdn/", "/lfs/"))]
    assert beyond
    assert all("authorization" not in {name.lower() for name, _ in r.headers} for r in beyond)


# ---------------------------------------------------------------- what stands against it


def test_a_full_quota_is_told_and_nothing_is_public(hub: Hub, world: World, target: Make) -> None:
    hub.limits = Limits(quota_bytes=1000)
    with pytest.raises(StoreError, match="Storage limit reached"):
        world.publish(target())
    assert shown(hub) == []
    hub.limits = Limits()
    assert world.publish(target()).changed


def test_a_full_disk_is_told_before_anything_is_sent(
    hub: Hub, world: World, target: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = target()
    replan = world.replan(place)
    planned = replan(place.look())
    hub.record.clear()

    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="the disk is full"):
        apply(planned, place, replan, log=world.log())
    assert len(hub.record) == 0


def test_a_clock_that_was_set_back_opens_nothing(hub: Hub, world: World, target: Make) -> None:
    world.publish(target())
    world.add(tiny(7))
    world.shift -= timedelta(days=30)
    with pytest.raises(ConflictError, match="clock"):
        world.publish(target())
    assert [len(state) for state in shown(hub)] == [2]


def test_rights_that_close_during_the_upload_keep_the_episode_out(
    hub: Hub, world: World, target: Make
) -> None:
    place = target()
    replan = world.replan(place)
    planned = replan(place.look())
    gone = world.store.ids[0]
    hub.faults.add(Fault("call", "PUT", "/lfs/", skip=3, effect=lambda: world.withdraw(gone)))
    report = apply(planned, place, replan, log=world.log())
    assert report.episodes == 1
    assert shown(hub) == [[world.store.ids[0]]]


def test_a_plan_that_was_approved_is_not_stretched(hub: Hub, world: World, target: Make) -> None:
    place = target()
    state = place.look()
    planned = plan(world.store, URL, state, world.settings())

    def only_what_was_approved(now: Any) -> Any:
        recheck(planned, world.store, world.settings())
        return plan(world.store, URL, now, world.settings())

    world.withdraw(world.store.ids[0])
    with pytest.raises(RightsError, match="has changed since"):
        apply(planned, place, only_what_was_approved, log=world.log())
    assert shown(hub) == []


def test_a_store_that_was_damaged_since_planning_sends_no_wrong_byte(
    hub: Hub, world: World, target: Make
) -> None:
    place = target()
    replan = world.replan(place)
    planned = replan(place.look())
    blob = next(b for p, b in planned.files().files.items() if p.startswith("segments/") and b.local())
    local = blob.local()
    assert local is not None
    local.write_bytes(bytes(blob.size))
    with pytest.raises(DamageError, match="not what was planned"):
        apply(planned, place, lambda _state: planned, log=world.log())
    assert hashlib.sha256(bytes(blob.size)).hexdigest() not in {r.path[-64:] for r in hub.record}
    assert shown(hub) == []


def test_a_commit_that_a_server_bends_is_noticed(hub: Hub, world: World, target: Make) -> None:
    def bend() -> None:
        found = hub.repositories[REPO]
        files = {path: file for path, file in head(hub).files.items() if path != "NOTICE"}
        found._land("refs/heads/main", files, head(hub).parent, "bent", "", "server")

    place = target()
    replan = world.replan(place)
    planned = replan(place.look())
    original = HfApi.create_commit

    def create(self: HfApi, *args: Any, **options: Any) -> Any:
        made = original(self, *args, **options)
        if options["commit_message"].startswith("Publish"):
            bend()
            made.oid = head(hub).id
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HfApi, "create_commit", create)
        with pytest.raises(DamageError, match="NOTICE is missing"):
            apply(planned, place, replan, log=world.log())
    assert hub.repositories[REPO].private


def test_a_download_that_is_bent_is_noticed_before_strangers_see_it(
    hub: Hub, world: World, target: Make
) -> None:
    hub.faults.add(Fault("corrupt", "GET", "/cdn/", times=100))
    with pytest.raises(DamageError, match="other bytes"):
        world.publish(target())
    assert hub.repositories[REPO].private
    hub.faults.clear()
    world.publish(target())
    assert not hub.repositories[REPO].private
    assert len(shown(hub)) == 1


def test_what_died_between_switch_and_tag_is_finished_by_the_next(
    hub: Hub, world: World, target: Make
) -> None:
    world.publish(target())
    del hub.repositories[REPO].refs["refs/tags/v1"]
    hub.repositories[REPO].private = True
    report = world.publish(target())
    assert (report.changed, report.done) == (False, ("made public", "named v1"))
    assert hub.repositories[REPO].refs["refs/tags/v1"] == head(hub).id


def test_a_repository_is_not_opened_while_its_history_holds_what_closed_before_anybody_saw_it(
    hub: Hub, world: World, target: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(HubTarget, "finish", killed)
        with pytest.raises(KeyboardInterrupt):
            world.publish(target())
    assert hub.repositories[REPO].private
    world.withdraw(world.public[0])
    for _ in range(2):
        with pytest.raises(StoreError, match="delete it, and publish again"):
            world.publish(target())
        assert hub.repositories[REPO].private
    del hub.repositories[REPO]
    assert world.publish(target()).episodes == 1
    assert not hub.repositories[REPO].private


def test_a_repository_that_was_emptied_is_not_opened_with_what_was_in_it(
    hub: Hub, world: World, target: Make
) -> None:
    hub.repositories[REPO] = Repository(REPO, private=True)
    write_by_hand(hub, "diary.txt", b"dear diary")
    api = HfApi(endpoint=hub.url, token=TOKEN)
    api.create_commit(
        REPO, [CommitOperationDelete("diary.txt")], commit_message="by hand", repo_type="dataset"
    )
    with pytest.raises(StoreError, match="diary"):
        world.publish(target())
    assert hub.repositories[REPO].private


def test_a_tag_that_leads_elsewhere_is_not_moved(hub: Hub, world: World, target: Make) -> None:
    world.publish(target())
    world.add(tiny(7))
    elsewhere = hub.repositories[REPO].refs["refs/tags/v2"] = hub.repositories[REPO].refs["refs/tags/v1"]
    world.publish(target())
    refs = hub.repositories[REPO].refs
    assert (refs["refs/tags/v2"], refs["refs/tags/v2.1"]) == (elsewhere, head(hub).id)


def test_more_files_than_fit_a_commit_go_ahead_and_no_state_claims_them_early(
    hub: Hub, world: World, target: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_target, "COMMIT_FILES", 4)
    world.publish(target())
    history = list(hub.repositories[REPO].history(head(hub)))
    assert [c.title for c in history].count("Add data ahead of publishing") == 3
    assert [c for c in history if "catalog/head.json" in c.files] == [history[0]]
    assert audit(target(), full=True, now=NOW).ok


def test_large_objects_go_by_parts(hub: Hub, world: World, target: Make) -> None:
    hub.part_bytes = 1000
    world.publish(target())
    assert any(r.path.startswith("/lfs-complete/") for r in hub.record)
    assert audit(target(), full=True, now=NOW).ok


def test_another_branch_is_a_place_of_its_own(hub: Hub, world: World, target: Make) -> None:
    world.publish(target(f"{URL}@draft"))
    found = hub.repositories[REPO]
    assert "manifest.json" in found.resolve("draft").files
    assert "manifest.json" not in found.resolve("main").files


@pytest.mark.parametrize(
    "url", ["hf://lab/arms", "hf://models/lab/arms", "hf://datasets/arms", "hf://datasets/lab/arms/x"]
)
def test_only_dataset_repositories_are_published_to(url: str) -> None:
    with pytest.raises(StoreError, match="no dataset"):
        HubTarget(url)


def test_every_step_is_written_down_beside_the_store(hub: Hub, world: World, target: Make) -> None:
    world.publish(target())
    steps = [entry["step"] for entry in read_log(world.folder / "publish.jsonl")]
    assert steps == ["begin", "stage", "switch", "switched", "finish", "end"]
    text = (world.folder / "publish.jsonl").read_text()
    assert TOKEN not in text
    assert json.loads(text.splitlines()[-1])["base"] == head(hub).id


def test_the_cache_may_be_missing_or_damaged(hub: Hub, world: World, target: Make) -> None:
    world.publish(target())
    for path in (world.folder / "cache").rglob("*"):
        if path.is_file():
            path.write_bytes(b"damaged")
    assert not world.publish(target()).changed
    disk.remove_tree(world.folder / "cache")
    Path(world.folder / "cache").write_bytes(b"a file in the way")
    assert not world.publish(target()).changed
