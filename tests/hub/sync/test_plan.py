"""What a plan changes at a target: what comes of it is a store of the open episodes, and nothing else."""

from __future__ import annotations

import dataclasses
import json
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from teleopen.hub import segment
from teleopen.hub.layout import group_document
from teleopen.hub.log import File, SetRights, Withdraw
from teleopen.hub.options import WriteOptions
from teleopen.hub.store import Store, open_store
from teleopen.hub.sync.notice import licence_files
from teleopen.hub.sync.plan import FOLDER_ENTRIES, Plan, limit_problems, load, save
from teleopen.hub.sync.planning import confirm, follow, plan, recheck
from teleopen.hub.sync.select import Stay
from teleopen.hub.sync.tree import (
    EMPTY,
    MANIFEST,
    Blob,
    PublicState,
    Published,
    materialise,
    public_place,
    tree_digest,
)
from teleopen.schemas import (
    LICENCES,
    ConflictError,
    DamageError,
    NotFoundError,
    RightsError,
    SchemaError,
    StoreError,
)

from tests.hub.sync.publishing import (
    NOW,
    OPEN,
    TARGET,
    Place,
    codes,
    planned,
    rights,
    settings,
    small,
    store_of,
)
from tests.samples import lerobot_v3

REQUESTED = rights(withdrawal={"state": "requested", "ground": "court"})


def assert_same(store: Store, public: Store) -> None:
    """Check that every public episode has the times and the values of the private one."""
    for episode in public.ids:
        mine, theirs = store.episode(episode), public.episode(episode)
        for clock in theirs.clocks:
            assert np.array_equal(mine.clocks[clock].read(), theirs.clocks[clock].read())
        for name, stream in theirs.streams.items():
            assert np.array_equal(mine.streams[name].values(), stream.values()), name


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of a store of five episodes in two segments, all closed."""
    rich = (small(seed, imu=True, depth=True) for seed in (3, 4))
    found = store_of(tmp_path_factory.mktemp("model"), *(small(seed) for seed in range(3)), *rich)
    assert len(found.state.segments) == 2
    return Path(found.url)


@pytest.fixture
def store(model: Path, tmp_path: Path) -> Store:
    """Give a copy of the model, which the test may do with as it likes."""
    return open_store(shutil.copytree(model, tmp_path / "private"))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Give an empty target."""
    return Place(tmp_path / "public")


# --- what comes of it --------------------------------------------------------------------------------------


def test_a_public_place_is_a_store_of_the_open_episodes(store: Store, place: Place) -> None:
    opened = store.set_rights(OPEN, ["0", "2", "3"])
    told = place.take(planned(store))
    public = place.store()
    assert public.ids == opened == told.changes.added
    assert public.verify(decode=True).damage == ()
    assert_same(store, public)
    assert [public.why(episode, now=NOW) for episode in public.ids] == [()] * 3
    assert {public.rights(episode).licence.expression for episode in public.ids} == {"CC-BY-4.0"}
    assert told.keep == 0
    assert told.problems == ()


def test_a_segment_that_goes_whole_is_taken_by_its_very_files(store: Store) -> None:
    store.set_rights(OPEN)
    shards = [
        blob for path, blob in planned(store).files().files.items() if "/c/0" in path and "image" in path
    ]
    assert len(shards) == 2
    assert all(blob.storage is store.storage for blob in shards)


def test_a_segment_whose_documents_may_leave_is_taken_byte_for_byte(tmp_path: Path, place: Place) -> None:
    store = store_of(tmp_path, small(1))  # its header states no rights: those are put on it here
    store.set_rights(OPEN)
    told = place.take(planned(store))
    assert told.files().segments == tuple(store.state.segments)
    add = next(iter(store.state.segments.values()))
    public = next(iter(place.store().state.segments.values()))
    assert public.files == add.files


def test_a_second_plan_changes_nothing(store: Store, place: Place) -> None:
    store.set_rights(OPEN, ["0", "3"])
    first = place.take(planned(store))
    again = planned(store, place.state(), day=30)
    assert not again.changed
    assert again.tree_digest == first.tree_digest
    assert again.keep == len(place.files())


def test_the_same_plan_has_the_same_bytes_wherever_it_is_made(store: Store, tmp_path: Path) -> None:
    store.set_rights(OPEN, ["0", "3"])
    one = planned(store, cache=tmp_path / "one")
    other = planned(store, cache=tmp_path / "other")
    assert one.tree_digest == other.tree_digest
    assert one.digest == other.digest
    kept = planned(store, cache=tmp_path / "one")
    assert kept.tree_digest == one.tree_digest


def test_what_is_public_is_recognised_after_the_store_was_compacted(store: Store, place: Place) -> None:
    store.set_rights(OPEN, ["0", "1"])
    place.take(planned(store))
    store.withdraw(["2"], "error")
    store.compact()
    assert not planned(store, place.state(), day=1).changed


def test_what_opens_later_is_added_and_nothing_else_is_sent(store: Store, place: Place) -> None:
    store.set_rights(OPEN, ["0"])
    place.take(planned(store))
    (late,) = store.set_rights(OPEN, ["1"])
    told = place.take(planned(store, place.state(), day=1))
    assert told.changes.added == (late,)
    assert told.changes.again == ()
    assert len({path.split("/")[1] for path in told.data}) == 1
    assert set(told.switch) == {"catalog/00000002.json", "catalog/head.json", MANIFEST}
    assert_same(store, place.store())


def test_new_rights_are_an_entry_and_no_data(store: Store, place: Place) -> None:
    changed = store.set_rights(OPEN, ["0", "3"])
    place.take(planned(store))
    store.set_rights(rights(attribution=[{"title": "Bath", "creators": ["B. Author"]}]), changed)
    told = place.take(planned(store, place.state(), day=1))
    assert told.data == ()
    assert set(told.changes.rights) == set(changed)
    assert b"B. Author" in place.folder.joinpath("NOTICE").read_bytes()
    assert b"A. Author" not in place.folder.joinpath("NOTICE").read_bytes()


# --- leaving -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("close", "ground"),
    [
        (lambda store, e: store.withdraw([e], "consent", "a person called"), "consent"),
        (lambda store, e: store.set_rights(rights(tier="gated"), [e]), "rights"),
        (
            lambda store, e: store.set_rights(
                rights(withdrawal={"state": "requested", "ground": "court"}), [e]
            ),
            "court",
        ),
        (lambda store, e: store.set_rights(rights(licence__expression="CC-BY-NC-4.0"), [e]), "rights"),
    ],
    ids=["withdrawn", "tier", "requested", "licence"],
)
def test_what_is_closed_leaves_with_its_bytes_and_a_tombstone(
    store: Store, place: Place, close: Any, ground: str
) -> None:
    store.set_rights(OPEN, ["0", "1", "3"])
    place.take(planned(store))
    gone = store.ids[1]
    frames = store.episode(gone).streams["observation.state"].values().tobytes()
    assert frames in place.raw()
    close(store, gone)
    told = place.take(planned(store, place.state(), day=1))
    assert told.changes.withdrawn == (gone,)
    assert [(stone.id, stone.ground) for stone in told.tombstones] == [(gone, ground)]
    assert frames not in place.raw()
    assert b"a person called" not in place.raw()
    public = place.store()
    assert set(public.ids) == {store.episode(e).id for e in store.ids if e != gone} & set(public.ids)
    assert public.state.withdrawn[gone].ground == ground
    assert public.verify(decode=True).damage == ()
    assert_same(store, public)
    manifest = json.loads(place.folder.joinpath(MANIFEST).read_bytes())
    assert [stone["id"] for stone in manifest["tombstones"]] == [gone]
    assert not planned(store, place.state(), day=2).changed


def test_a_ground_that_is_no_word_of_the_list_does_not_become_public(store: Store, place: Place) -> None:
    (gone,) = store.set_rights(OPEN, ["0"])
    place.take(planned(store))
    withdraw = Withdraw(episodes=(gone,), ground="a call by somebody")
    store.catalog.commit(lambda _: [withdraw], author="test")
    assert [stone.ground for stone in planned(store, place.state(), day=1).tombstones] == ["error"]


@pytest.mark.parametrize("withdrawal", [{"ground": "a call by Jane Roe"}, "a call by Jane Roe", ["x"], None])
def test_a_malformed_wish_to_withdraw_takes_back_and_does_not_become_public(
    store: Store, place: Place, withdrawal: Any
) -> None:
    (gone,) = store.set_rights(OPEN, ["0"])
    place.take(planned(store))
    odd = SetRights(episodes=(gone,), rights={**OPEN.to_document(), "withdrawal": withdrawal})
    store.catalog.commit(lambda _: [odd], author="test")
    told = place.take(planned(store, place.state(), day=1))
    assert [(stone.id, stone.ground) for stone in told.tombstones] == [(gone, "rights")]
    assert b"Jane Roe" not in place.raw()


def test_what_was_closed_by_its_rights_may_come_back(store: Store, place: Place) -> None:
    store.set_rights(OPEN, ["0", "1"])
    place.take(planned(store))
    (gone,) = store.set_rights(rights(tier="closed"), ["1"])
    place.take(planned(store, place.state(), day=1))
    store.set_rights(OPEN, [gone, "2"])
    told = place.take(planned(store, place.state(), day=2))
    assert gone in told.changes.added
    assert place.store().state.withdrawn == {}
    assert set(place.store().ids) == set(store.ids[:3])
    assert told.files().tombstones == ()
    assert place.store().verify(decode=True).damage == ()


def test_the_last_episode_may_leave(store: Store, place: Place) -> None:
    store.set_rights(OPEN, ["0"])
    place.take(planned(store))
    store.withdraw(["0"], "safety")
    place.take(planned(store, place.state(), day=1))
    assert place.store().ids == ()
    assert not [path for path in place.files() if path.count("/") > 1 and path.startswith("segments/")]


def test_absence_is_not_withdrawal(tmp_path: Path, place: Place) -> None:
    one, other = small(1, rights=OPEN), small(2, rights=OPEN)
    place.take(planned(store_of(tmp_path / "a", one)))
    theirs = store_of(tmp_path / "b", other)
    told = place.take(planned(theirs, place.state(readable=False), day=1))
    assert told.changes.withdrawn == told.changes.pruned == ()
    assert set(place.store().ids) == {one.id, other.id}
    pruned = place.take(planned(theirs, place.state(), day=2, prune=True))
    assert pruned.changes.pruned == (one.id,)
    assert pruned.tombstones == ()
    assert place.store().ids == (other.id,)
    assert place.store().verify().damage == ()


def test_an_episode_that_only_the_target_has_leaves_when_its_public_rights_do_not_open_it(
    tmp_path: Path, place: Place
) -> None:
    soon = (NOW + timedelta(days=1)).isoformat()
    ends = rights(acquisition__agreement=[{"id": "7", "expires": soon}])
    one, other = small(1, rights=ends), small(2, rights=OPEN)
    place.take(planned(store_of(tmp_path / "a", one)))
    told = place.take(planned(store_of(tmp_path / "b", other), place.state(), day=2))
    assert told.changes.withdrawn == (one.id,)


def test_a_segment_that_two_stores_share_is_cut_at_the_target(tmp_path: Path, place: Place) -> None:
    one, other = small(1, rights=OPEN), small(2, rights=OPEN)
    both = store_of(tmp_path / "both", one, other)
    place.take(planned(both))
    mine = store_of(tmp_path / "mine", one)
    mine.withdraw([one.id], "licence")
    with pytest.raises(StoreError, match="cannot be read from here"):
        planned(mine, place.state(readable=False), day=1)
    place.take(planned(mine, place.state(), day=1))
    assert place.store().ids == (other.id,)
    assert place.store().verify(decode=True).damage == ()
    assert_same(both, place.store())
    assert not planned(both, place.state(), day=2).changed


# --- what stays --------------------------------------------------------------------------------------------


def test_a_damaged_segment_stays_and_the_others_go(store: Store, place: Place) -> None:
    store.set_rights(OPEN)
    where = store.state.episodes[store.ids[0]].segment
    shard = store.storage.local(f"segments/{where}/steps/observation.state/c/0/0")
    assert shard is not None
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1])
    told = place.take(planned(store))
    assert {tuple(why) for why in codes(told).values()} == {(Stay.S01_DAMAGED,)}
    assert place.store().ids == store.ids[3:]
    shard.write_bytes(whole)
    assert planned(store, place.state(), day=1).changes.added == store.ids[:3]


def test_a_flipped_bit_never_leaves(store: Store, place: Place) -> None:
    opened = store.set_rights(OPEN)
    where = store.state.episodes[store.ids[0]].segment
    shard = store.storage.local(f"segments/{where}/steps/observation.state/c/0/0")
    assert shard is not None
    raw = bytearray(shard.read_bytes())
    raw[100] ^= 1
    shard.write_bytes(raw)
    with pytest.raises(DamageError, match="is not what was planned"):
        place.take(planned(store))
    store.set_rights(rights(tier="closed"), ["1"])  # so that the segment has to be cut
    assert codes(planned(store))[opened[0]] == [Stay.S01_DAMAGED]


def test_damage_here_takes_nothing_away_there(store: Store, place: Place) -> None:
    store.set_rights(OPEN, ["0", "1"])
    place.take(planned(store))
    store.set_rights(OPEN, ["2"])
    where = store.state.episodes[store.ids[0]].segment
    shard = store.storage.local(f"segments/{where}/steps/phase/c/0")
    assert shard is not None
    shard.write_bytes(b"")
    told = planned(store, place.state(), day=1)
    assert not told.changed
    assert codes(told)[store.ids[2]] == [Stay.S01_DAMAGED]


def test_pictures_of_a_neighbour_stay_with_it(tmp_path: Path) -> None:
    """An MP4 of several episodes is cut at pictures that refer to those before."""
    from teleopen.converters.lerobot_v3 import LerobotV3

    lerobot_v3.write(tmp_path)
    store = store_of(tmp_path)
    store.write(LerobotV3().episodes(tmp_path / "dataset"), WriteOptions())
    store.set_rights(OPEN)
    told = planned(store)
    assert set(told.changes.added) == set(store.ids)
    foreign = [e for e in store.ids if _has_foreign(store, e)]
    assert foreign, "the sample's second episode begins within a group of pictures"
    store.set_rights(rights(tier="closed"), [e for e in store.ids if e not in foreign])
    assert {codes(planned(store))[e][0] for e in foreign} == {Stay.S09_FOREIGN_PICTURES}


def _has_foreign(store: Store, episode: str) -> bool:
    from teleopen.hub.gop import unpack

    for name, stream in store.episode(episode).streams.items():
        if stream.spec.kind == "video":
            array, start, _ = store.array(episode, name)
            if min(entry.pts for entry in unpack(array.chunk(start // array.layout.chunk)).packets) < 0:
                return True
    return False


# --- the target --------------------------------------------------------------------------------------------


def test_a_place_that_holds_something_else_is_left_alone(store: Store) -> None:
    store.set_rights(OPEN)
    foreign = PublicState(base="1", files={"data/train.parquet": File(size=1, sha256="0" * 64)})
    with pytest.raises(ConflictError, match=r"data/train\.parquet"):
        planned(store, foreign)
    fresh = PublicState(base="1", files={"README.md": File(size=1, sha256="0" * 64)})
    told = planned(store, fresh)
    assert told.delete == ("README.md",)


def test_stray_files_at_a_target_are_removed(store: Store, place: Place) -> None:
    store.set_rights(OPEN)
    place.take(planned(store))
    stray = place.folder / "old" / "notes.txt"
    stray.parent.mkdir()
    stray.write_text("x")
    state = place.state()
    files = {**state.files, "old/notes.txt": File(size=1, sha256="0" * 64)}
    assert planned(store, dataclasses.replace(state, files=files), day=1).delete == ("old/notes.txt",)


@pytest.mark.parametrize(
    "path", ["catalog/private.json", "catalog/00000099.json", "x/zarr.json", "my-zarr.json"]
)
def test_strays_beside_the_log_are_removed_and_never_vouched_for(
    store: Store, place: Place, path: str
) -> None:
    store.set_rights(OPEN)
    place.take(planned(store))
    state = place.state()
    files = {**state.files, path: File(size=1, sha256="0" * 64)}
    told = planned(store, dataclasses.replace(state, files=files), day=1)
    assert told.delete == (path,)
    assert path not in told.files().files


def test_a_segment_of_which_this_version_does_not_know_all_is_not_taken_as_it_is(
    store: Store, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = group_document

    def newer(attributes: Any, members: Any = None) -> Any:
        teleopen = attributes.get("teleopen", {})
        return theirs({**attributes, "teleopen": {**teleopen, "operator": "Jane Roe"}}, members)

    with monkeypatch.context() as patch:
        patch.setattr(segment, "group_document", newer)
        store.write([small(9)])
    store.set_rights(OPEN, ["5"])  # its header states none, and could leave as it is
    place.take(planned(store))
    assert len(place.store().ids) == 1
    assert b"Jane Roe" not in place.raw()


@pytest.mark.parametrize("licence", ["CC0-1.0", ""])
def test_what_only_the_target_has_is_not_passed_on_under_another_licence(
    tmp_path: Path, place: Place, licence: str
) -> None:
    one, other = small(1, rights=OPEN), small(2, rights=rights(licence__expression="CC0-1.0"))
    place.take(planned(store_of(tmp_path / "a", one)))
    state = place.state()
    lying = dataclasses.replace(state, manifest={**state.manifest, "licence": licence})
    told = planned(store_of(tmp_path / "b", other), lying, day=1)
    assert told.changes.withdrawn == (one.id,)
    assert {e.licence for e in told.files().episodes.values()} == {"CC0-1.0"}


def test_what_two_stores_share_is_cut_when_it_is_to_be_told_otherwise(tmp_path: Path, place: Place) -> None:
    named = rights(attribution=[{"title": "Arms", "creators": ["Jane Roe"]}])
    unnamed = rights(attribution=[{"title": "Arms", "creators": ["Jane Roe"], "suppressed": True}])
    one, other = (
        dataclasses.replace(small(n, rights=named), instructions=(f"as Jane Roe does, {n}",)) for n in (1, 2)
    )
    place.take(planned(store_of(tmp_path / "both", one, other)))
    mine = store_of(tmp_path / "mine", one)
    assert not planned(mine, place.state(), day=1).changed
    mine.set_rights(unnamed)
    place.take(planned(mine, place.state(), day=1))
    assert place.store().episode(one.id).instructions == ("as [name] does, 1",)
    assert place.store().episode(other.id).instructions == ("as Jane Roe does, 2",)
    assert place.store().verify(decode=True).damage == ()


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("hf://datasets/lab/kitchen@dev", "hf://datasets/lab/kitchen@dev"),
        ("s3://bucket/arms", "s3://bucket/arms"),
        ("sftp://jane@nas.lan/arms", "sftp://nas.lan/arms"),
        ("/home/jane/secret-project/arms", "arms"),
        ("file:///home/jane/arms/", "arms"),
    ],
)
def test_documents_tell_neither_a_path_of_this_machine_nor_who_logs_in(target: str, name: str) -> None:
    assert public_place(target) == name


def test_published_documents_do_not_tell_where_a_mirror_lies(store: Store, tmp_path: Path) -> None:
    store.set_rights(OPEN)
    target = str(tmp_path / "home-of-jane" / "arms")
    seen: list[str] = []

    def describing(published: Published) -> dict[str, bytes]:
        seen.append(published.target)
        return {}

    made = plan(store, target, EMPTY, settings(describe=describing))
    assert seen == ["arms"]
    told_bytes = b"".join(blob.data or b"" for blob in made.files().files.values())
    assert b"home-of-jane" not in told_bytes


def test_a_clock_that_is_behind_the_last_publish_is_refused(store: Store, place: Place) -> None:
    store.set_rights(OPEN)
    place.take(planned(store, day=1))
    with pytest.raises(ConflictError, match="clock is behind"):
        planned(store, place.state(), day=0)


def test_limits_of_the_target_are_problems_of_the_plan() -> None:
    many = {
        f"segments/{number}/zarr.json": File(size=1, sha256="0" * 64) for number in range(FOLDER_ENTRIES + 1)
    }
    huge = {"segments/x/c/0": File(size=10**12, sha256="0" * 64)}
    assert [problem.split(" ")[0] for problem in limit_problems(many, {})] == ["segments"]
    assert [problem.split(" ")[0] for problem in limit_problems(huge, huge)] == ["segments/x/c/0"]


# --- a plan as a file --------------------------------------------------------------------------------------


def test_a_saved_plan_is_confirmed_by_planning_again(store: Store, tmp_path: Path) -> None:
    store.set_rights(OPEN, ["0"])
    told = planned(store)
    save(told, tmp_path / "plan.json")
    saved = load(tmp_path / "plan.json")
    assert saved == told
    with pytest.raises(StoreError, match="confirm it first"):
        saved.files()
    again = confirm(saved, store, EMPTY, settings(day=1))
    assert again.digest == told.digest
    assert again.tree_digest == told.tree_digest


@pytest.mark.parametrize(
    "change",
    [
        lambda store: store.withdraw(["0"], "consent"),
        lambda store: store.set_rights(rights(tier="closed"), ["0"]),
        lambda store: store.set_rights(OPEN, ["1"]),
        lambda store: store.set_rights(rights(attribution=[{"title": "T", "creators": ["C"]}]), ["0"]),
    ],
    ids=["withdrawn", "closed", "another opened", "attribution"],
)
def test_a_saved_plan_is_refused_once_a_decision_has_changed(
    store: Store, tmp_path: Path, change: Any
) -> None:
    store.set_rights(OPEN, ["0"])
    told = planned(store)
    save(told, tmp_path / "plan.json")
    change(store)
    with pytest.raises(ConflictError, match="decisions have changed"):
        confirm(load(tmp_path / "plan.json"), store, EMPTY, settings(day=1))


def test_a_saved_plan_is_refused_once_an_agreement_has_expired(store: Store) -> None:
    soon = (NOW + timedelta(days=1)).isoformat()
    store.set_rights(rights(acquisition__agreement=[{"id": "7", "expires": soon}]), ["0"])
    told = planned(store)
    with pytest.raises(ConflictError, match="which episodes"):
        confirm(told, store, EMPTY, settings(day=2))


def test_a_saved_plan_is_refused_once_the_target_has_changed(store: Store, place: Place) -> None:
    store.set_rights(OPEN, ["0"])
    told = planned(store)
    place.take(told)
    with pytest.raises(ConflictError, match="has changed since"):
        confirm(told, store, place.state(), settings(day=1))


def test_a_plan_that_was_edited_is_refused(store: Store, tmp_path: Path) -> None:
    store.set_rights(OPEN, ["0"])
    save(planned(store), tmp_path / "plan.json")
    document = json.loads((tmp_path / "plan.json").read_text())
    document["delete"] = ["NOTICE"]
    (tmp_path / "plan.json").write_text(json.dumps(document))
    with pytest.raises(DamageError, match="was changed"):
        load(tmp_path / "plan.json")


def test_following_a_target_publishes_no_more_than_was_approved(store: Store, place: Place) -> None:
    store.set_rights(OPEN, ["0"])
    approved = planned(store)
    assert follow(approved, store, EMPTY, settings(day=1)).changes == approved.changes
    store.set_rights(OPEN, ["1"])
    with pytest.raises(ConflictError, match="since the plan was approved"):
        follow(approved, store, EMPTY, settings(day=1))
    store.set_rights(rights(tier="closed"))
    assert not follow(approved, store, EMPTY, settings(day=1)).changed


def test_what_changed_during_an_upload_is_noticed_before_the_switch(store: Store) -> None:
    store.set_rights(OPEN, ["0", "3"])
    told = planned(store)
    recheck(told, store, settings(day=1))
    store.set_rights(rights(tier="closed"), ["3"])
    with pytest.raises(RightsError, match="has changed since"):
        recheck(told, store, settings(day=1))


# --- documents ---------------------------------------------------------------------------------------------


def test_the_manifest_claims_every_file_and_says_nothing_of_what_stays(store: Store, place: Place) -> None:
    opened = store.set_rights(OPEN, ["0", "3"])
    told = place.take(planned(store))
    manifest = json.loads(place.folder.joinpath(MANIFEST).read_bytes())
    files = place.files()
    assert {one["path"]: one["sha256"] for one in manifest["files"]} == {
        path: digest for path, digest in files.items() if path != MANIFEST
    }
    assert tuple(one["id"] for one in manifest["episodes"]) == opened
    assert manifest["plan"] == told.digest
    assert manifest["records"][OPEN.digest]["attribution"] == [
        {"creators": ["A. Author"], "title": "Kitchen"}
    ]
    for stays in set(store.ids) - set(opened):
        assert stays.encode() not in place.raw()


def test_hooks_describe_what_is_published_from_public_headers(store: Store, place: Place) -> None:
    store.set_rights(OPEN, ["0", "3"])

    def describe(published: Published) -> dict[str, bytes]:
        lines = [f"{episode} {header['instructions'][0]}" for episode, header in published.headers()]
        return {"README.md": "\n".join(sorted(lines)).encode()}

    place.take(planned(store, describe=describe))
    assert place.folder.joinpath("README.md").read_text().count("do task") == 2
    assert not planned(store, place.state(), day=1, describe=describe).changed


def test_a_notice_has_a_block_for_each_work_and_loses_only_that_of_what_leaves(
    store: Store, place: Place
) -> None:
    store.set_rights(OPEN, ["0"])
    other = rights(attribution=[{"title": "Bath", "creators": ["B. Author"], "year": 2026}])
    store.set_rights(other, ["3"])
    place.take(planned(store))
    both = place.folder.joinpath("NOTICE").read_text().split("\n\n")
    store.withdraw(["3"], "error")
    place.take(planned(store, place.state(), day=1))
    left = place.folder.joinpath("NOTICE").read_text().split("\n\n")
    assert [block for block in both if block.strip() not in {one.strip() for one in left}] == [
        block for block in both if block.startswith("Bath (2026)")
    ]


def test_every_licence_that_opens_has_its_text() -> None:
    for row in LICENCES.values():
        if row.grant == "closed":
            with pytest.raises(NotFoundError):
                licence_files(row.id)
        else:
            assert len(licence_files(row.id)[f"LICENSES/{row.id}.txt"]) > 1000


# --- blobs -------------------------------------------------------------------------------------------------


def test_a_blob_gives_its_bytes_or_an_error(tmp_path: Path) -> None:
    blob = Blob.of("a/b", b"bytes")
    assert blob.read() == blob.open().read() == b"bytes"
    assert list(Blob.of("a", b"").chunks()) == []
    with pytest.raises(DamageError):
        dataclasses.replace(blob, sha256="0" * 64).read()
    kept = dataclasses.replace(blob, data=None)
    assert not kept.at_hand
    with pytest.raises(NotFoundError):
        kept.read()
    with pytest.raises(NotFoundError):
        kept.open()


def test_a_tree_that_is_kept_elsewhere_cannot_be_written_here(
    store: Store, place: Place, tmp_path: Path
) -> None:
    store.set_rights(OPEN)
    first = planned(store)
    place.take(first)
    materialise(first.files(), tmp_path / "copy")
    assert open_store(tmp_path / "copy").verify().damage == ()
    with pytest.raises(NotFoundError):
        materialise(planned(store, place.state(), day=1).files(), tmp_path / "again")


def test_the_digest_of_a_tree_tells_every_file() -> None:
    one = {"a": File(size=1, sha256="0" * 64), "b": File(size=2, sha256="1" * 64)}
    assert tree_digest(one) == tree_digest(dict(reversed(one.items())))
    assert tree_digest(one) != tree_digest({"a": one["b"], "b": one["a"]})


# --- withdrawing -------------------------------------------------------------------------------------------


def test_withdrawn_episodes_are_gone_for_every_reader_and_do_not_come_back(store: Store) -> None:
    gone = store.withdraw(["1", store.ids[1]], "consent", "called by phone", author="me")
    assert len(gone) == 1
    assert gone[0] not in store.ids
    assert store.state.withdrawn[gone[0]].note == "called by phone"
    assert store.write([small(1)]).withdrawn == gone
    with pytest.raises(NotFoundError, match="was withdrawn"):
        store.find(gone[0])


def test_a_withdrawal_needs_a_ground_of_the_list(store: Store) -> None:
    before = store.state.version
    with pytest.raises(SchemaError, match="must be one of consent"):
        store.withdraw(["0"], "because")
    with pytest.raises(NotFoundError):
        store.withdraw(["0", "no such episode"], "consent")
    assert store.refresh().state.version == before


def test_plans_are_told_apart_by_their_digests(store: Store) -> None:
    store.set_rights(OPEN, ["0"])
    one = planned(store)
    assert isinstance(one, Plan)
    assert plan(store, f"{TARGET}-2", EMPTY, settings()).digest != one.digest
    assert planned(store, day=1).digest != one.digest
    assert planned(store, prune=True).digest != one.digest
