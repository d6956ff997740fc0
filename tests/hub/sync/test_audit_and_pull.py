"""What a stranger can prove of a published place, and how it comes home."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from teleopen.hub import open_store
from teleopen.hub.sync.audit import AuditReport, audit, checked
from teleopen.hub.sync.audit_log import AuditLog, log_path, read_log
from teleopen.hub.sync.hub_target import HubTarget
from teleopen.hub.sync.mirror_target import MirrorTarget
from teleopen.hub.sync.public_log import read_public
from teleopen.hub.sync.pull import pull
from teleopen.hub.sync.target import Snapshot
from teleopen.hub.sync.tree import Blob
from teleopen.schemas import (
    ConflictError,
    DamageError,
    NotFoundError,
    Rights,
    StoreError,
    canonical,
    digest,
    tighten,
)

from tests.hub.sync.world import NOW, OPEN, REPO, World, tiny
from tests.hub_server import Fault, Hub

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

LATER = NOW + timedelta(days=1)
Make = Callable[..., HubTarget]


class Bytes:
    """A place that is what somebody says."""

    url = "somewhere"

    def __init__(self, content: dict[str, bytes]) -> None:
        self.content = content

    def look(self, _revision: str | None = None) -> Any:
        files = {path: Blob.of(path, data).file for path, data in self.content.items()}
        storage = Snapshot(self.url, files, lambda path, start, stop: self.content[path][start:stop])
        return read_public(storage, "1", files)


@pytest.fixture
def mirror(world: World) -> MirrorTarget:
    target = MirrorTarget(str(world.folder / "mirror"))
    world.publish(target)
    return target


@pytest.fixture
def content(mirror: MirrorTarget) -> dict[str, bytes]:
    state = mirror.look()
    assert state.storage is not None
    return {path: state.storage.read(path) for path in state.files}


def audited(content: dict[str, bytes], *, full: bool = True) -> AuditReport:
    return audit(Bytes(content), full=full, now=LATER)  # type: ignore[arg-type]  # looks like a target


def test_a_published_place_passes(content: dict[str, bytes]) -> None:
    report = checked(audited(content))
    assert (report.episodes, report.licence, report.hashed) == (2, "CC-BY-4.0", len(content) - 1)


def test_any_file_that_is_changed_is_named(content: dict[str, bytes]) -> None:
    for path, data in content.items():
        if path == "manifest.json" or not data:
            continue
        middle = len(data) // 2
        bent = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        try:
            report = audited({**content, path: bent}, full=False)
        except DamageError as error:
            assert path.rpartition("/")[2] in str(error), path  # noqa: PT017 - either way it is told
            continue
        assert path in {finding.path for finding in report.findings}, path


def test_any_file_that_is_missing_is_named(content: dict[str, bytes]) -> None:
    for path in content.keys() - {"manifest.json", "catalog/head.json"}:
        less = {name: data for name, data in content.items() if name != path}
        try:
            report = audited(less, full=False)
        except DamageError as error:
            assert path in str(error), path  # noqa: PT017 - either way it is told
            continue
        assert path in {finding.path for finding in report.findings}, path


def test_a_file_that_nobody_claims_is_named_and_data_without_a_claim_is_pending(
    content: dict[str, bytes],
) -> None:
    data = f"segments/{'a' * 32}/zarr.json"
    report = audited({**content, "notes.txt": b"mine", data: b"{}"})
    assert [(finding.path, finding.why) for finding in report.findings] == [
        ("notes.txt", "is claimed by nobody")
    ]
    assert report.pending == (data,)
    with pytest.raises(DamageError, match=r"notes\.txt"):
        checked(report)


def _with_manifest(content: dict[str, bytes], change: Callable[[Any], object]) -> dict[str, bytes]:
    document = json.loads(content["manifest.json"])
    change(document)
    return {**content, "manifest.json": canonical(document) + b"\n"}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda m: m["episodes"][0].update(licence="CC-BY-NC-4.0"), "goes out as"),
        (lambda m: m.update(licence="CC0-1.0"), "licence of the whole"),
        (lambda m: m["episodes"].pop(), "both the manifest and the log"),
        (lambda m: m["episodes"].append(m["episodes"][0]), "told of twice"),
        (lambda m: m["episodes"][0].update(content="0" * 64), "is another, by the log"),
        (lambda m: m["episodes"][0].update(rights="0" * 64), "has other rights by the log"),
        (lambda m: m.update(version=7), "version is 7"),
        (lambda m: m.update(head="0" * 64), "head is"),
        (
            lambda m: m["tombstones"].append(
                {"id": m["episodes"][0]["id"], "ground": "consent", "time": "2026-01-01T00:00:00.000000Z"}
            ),
            "is public still",
        ),
        (lambda m: m["records"].clear(), "goes out as"),
    ],
)
def test_a_manifest_that_says_other_than_the_log_is_told(
    content: dict[str, bytes], change: Callable[[Any], object], why: str
) -> None:
    report = audited(_with_manifest(content, change), full=False)
    assert any(why in finding.why for finding in report.findings), report.findings


def test_no_hash_of_what_stays_private_of_a_rights_record_is_told(world: World) -> None:
    document = OPEN.to_document()
    document["acquisition"]["agreement"] = [{"id": "contract with Ada Lovelace"}]
    world.add(tiny(7, Rights.from_document(document)))
    target = MirrorTarget(str(world.folder / "mirror"))
    world.publish(target)
    state = target.look()
    assert state.storage is not None
    private = {digest(record) for record in world.store.state.rights.values()}
    for path in state.files:
        assert not any(one.encode() in state.storage.read(path) for one in private), path


def test_an_episode_whose_rights_do_not_open_it_is_told(world: World) -> None:
    embargo = tighten(OPEN, {"embargo_until": "2026-02-01T00:00:00Z"})
    world.add(tiny(7, embargo))
    target = MirrorTarget(str(world.folder / "mirror"))
    assert world.publish(target).episodes == 3
    assert audit(target, now=NOW).ok
    early = audit(target, now=NOW - timedelta(days=60))
    assert ["R06_EMBARGO" in finding.why for finding in early.findings] == [True]


def test_nothing_published_is_not_the_same_as_nothing_wrong(world: World) -> None:
    with pytest.raises(NotFoundError, match="nothing was published"):
        audit(MirrorTarget(str(world.folder / "empty")))
    with pytest.raises(NotFoundError):
        pull(MirrorTarget(str(world.folder / "empty")), world.folder / "home")


def test_a_server_that_lists_the_right_hash_and_sends_other_bytes_is_found_out(
    hub: Hub, world: World, target: Make
) -> None:
    world.publish(target())
    hub.faults.add(Fault("corrupt", "GET", "/cdn/", times=10_000))
    with pytest.raises(DamageError, match="other bytes than it lists"):
        audit(target(cache=world.folder / "stranger"), now=LATER)


# ---------------------------------------------------------------- pull


def test_what_was_published_comes_home_whole(hub: Hub, world: World, target: Make, ram_path: Path) -> None:
    world.publish(target())
    report = pull(target(token="", cache=ram_path / "stranger"), ram_path / "home")
    store = open_store(ram_path / "home")
    assert (report.episodes, sorted(store.ids)) == (2, world.public)
    assert store.verify(decode=True).damage == ()
    assert audited(
        {p: (ram_path / "home" / p).read_bytes() for p in hub.repositories[REPO].resolve("main").files}
    ).ok


def test_pulling_again_brings_only_what_is_new(mirror: MirrorTarget, world: World) -> None:
    home = world.folder / "home"
    first = pull(mirror, home)
    assert pull(mirror, home).brought == 0
    world.add(tiny(7))
    world.publish(mirror)
    second = pull(mirror, home)
    assert 0 < second.brought < first.brought
    assert sorted(open_store(home).ids) == world.public


def test_a_holder_of_an_earlier_pull_learns_what_was_withdrawn(mirror: MirrorTarget, world: World) -> None:
    home = world.folder / "home"
    pull(mirror, home)
    gone = world.store.ids[0]
    raw = [path.read_bytes() for path in home.rglob("*") if path.is_file()]
    assert any(gone.encode() in data for data in raw)
    world.withdraw(gone, ground="consent")
    world.publish(mirror)
    report = pull(mirror, home)
    assert [(stone.id, stone.ground) for stone in report.withdrawn] == [(gone, "consent")]
    assert gone not in open_store(home).ids
    data = [path for path in (home / "segments").rglob("*") if path.is_file()]
    assert not any(gone.encode() in path.read_bytes() for path in data)
    fresh = pull(mirror, world.folder / "other")
    assert (fresh.withdrawn, [stone.id for stone in fresh.tombstones]) == ((), [gone])
    assert pull(mirror, home).withdrawn == ()


def test_a_pull_that_was_cut_short_goes_on_and_mends(mirror: MirrorTarget, world: World) -> None:
    home = world.folder / "home"
    pull(mirror, home)
    files = sorted(path for path in (home / "segments").rglob("*") if path.is_file() and path.stat().st_size)
    files[0].write_bytes(b"half")
    files[1].unlink()
    (home / "manifest.json").unlink()
    assert pull(mirror, home).brought == 3
    assert open_store(home).verify().damage == ()


def test_a_folder_with_entries_of_its_own_is_left_alone(mirror: MirrorTarget, world: World) -> None:
    home = world.folder / "home"
    pull(mirror, home)
    store = open_store(home)
    store.write([tiny(99)])
    world.add(tiny(7))
    world.publish(mirror)
    before = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
    with pytest.raises(ConflictError, match="folder of its own"):
        pull(mirror, home)
    assert {path: path.read_bytes() for path in home.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", ["README.md", "zarr.json", "manifest.json", "index/episodes.txt"])
def test_a_pull_writes_over_nobodys_files(mirror: MirrorTarget, world: World, name: str) -> None:
    home = world.folder / "project"
    home.joinpath(name).parent.mkdir(parents=True)
    home.joinpath(name).write_text('{"name": "mine"}')
    with pytest.raises((ConflictError, DamageError), match=name):
        pull(mirror, home)
    assert home.joinpath(name).read_text() == '{"name": "mine"}'
    assert [path.name for path in home.rglob("*") if path.is_file()] == [Path(name).name]


def test_an_entry_of_ones_own_is_not_written_over_even_if_it_is_as_long(
    mirror: MirrorTarget, world: World
) -> None:
    home = world.folder / "home"
    size = mirror.look().files["catalog/00000001.json"].size
    home.joinpath("catalog").mkdir(parents=True)
    home.joinpath("catalog/00000001.json").write_bytes(b"x" * size)
    with pytest.raises(ConflictError, match="another store"):
        pull(mirror, home)
    assert home.joinpath("catalog/00000001.json").read_bytes() == b"x" * size


@pytest.mark.parametrize(
    "edit",
    [
        {"files": 7},
        {"files": [{"path": "../x", "size": 1, "sha256": "0" * 64}]},
        {"files": [{"path": "x", "size": -1, "sha256": "0" * 64}]},
        {"files": [{"path": "x", "size": 1, "sha256": "../../x"}]},
        {"episodes": [1]},
        {"episodes": [{"id": "x"}]},
        {"tombstones": [{"id": "../x", "ground": "x"}]},
        {"tombstones": [{"odd": 1}]},
        {"time": "soon"},
        {"time": "2026-01-01T00:00:00"},
        {"policy": "open"},
        {"records": {"x": 1}},
        {"licence": ["CC0-1.0"]},
    ],
)
def test_a_manifest_that_lies_about_its_own_shape_is_one_clear_error(
    content: dict[str, bytes], world: World, edit: dict[str, Any]
) -> None:
    manifest = {**json.loads(content["manifest.json"]), **edit}
    place: Any = Bytes({**content, "manifest.json": canonical(manifest)})
    with pytest.raises(DamageError, match="no manifest"):
        audit(place)
    with pytest.raises(DamageError, match="no manifest"):
        pull(place, world.folder / "home")
    with pytest.raises(DamageError, match="no manifest"):
        world.publish(place)


def test_bent_bytes_do_not_come_home(mirror: MirrorTarget, world: World) -> None:
    segment = next(path for path in mirror.look().files if path.endswith("state/c/0/0"))
    place = Path(mirror.url) / segment
    place.write_bytes(bytes(place.stat().st_size))
    with pytest.raises(DamageError, match="not those that the manifest claims"):
        pull(mirror, world.folder / "home")
    assert not (world.folder / "home" / "manifest.json").exists()


def test_downloads_that_fail_now_and_then_come_home_whole(
    hub: Hub, world: World, target: Make, ram_path: Path
) -> None:
    world.publish(target())
    hub.faults.add(
        Fault("truncate", "GET", "/cdn/", skip=2, times=2),
        Fault("status", "GET", "/resolve/", skip=3, times=3, status=429),
        Fault("corrupt", "GET", "/cdn/", skip=6),
        Fault("drop", "GET", "", skip=12, times=2),
    )
    pull(target(cache=ram_path / "stranger"), ram_path / "home")
    assert open_store(ram_path / "home").verify().damage == ()


def test_an_earlier_revision_can_be_pulled_while_it_is_there(hub: Hub, world: World, target: Make) -> None:
    first = world.publish(target())
    world.add(tiny(7))
    world.publish(target())
    for number, revision in enumerate((first.base, "v1")):
        assert pull(target(), world.folder / f"old{number}", revision=revision).episodes == 2
    assert pull(target(), world.folder / "new").episodes == 3
    with pytest.raises(NotFoundError, match="no revision"):
        pull(target(), world.folder / "none", revision="v9")


# ---------------------------------------------------------------- audit log


def test_the_log_is_chained_and_any_change_shows(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "log.jsonl")
    for number in range(4):
        log.add("step", number=number)
    assert [entry["number"] for entry in read_log(log.path)] == [0, 1, 2, 3]
    raw = log.path.read_bytes()
    lines = raw.splitlines(keepends=True)
    for bent in (
        raw.replace(b'"number":1', b'"number":9'),
        b"".join(lines[:1] + lines[2:]),
        b"".join(lines[1:]),
    ):
        log.path.write_bytes(bent)
        with pytest.raises(DamageError, match="does not follow"):
            read_log(log.path)


def test_a_line_that_a_crash_cut_short_stays_and_the_chain_goes_on(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "log.jsonl")
    log.add("one")
    log.add("two")
    log.path.write_bytes(log.path.read_bytes()[:-20])
    log.add("three")
    assert [entry["step"] for entry in read_log(log.path)] == ["one", "three"]


def test_the_log_is_for_its_owner_alone_and_never_holds_a_token(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "log.jsonl")
    log.add("failed", why="the token hf_abcdefghijklmnop was refused")
    assert log.path.stat().st_mode & 0o077 == 0
    assert b"hf_abc" not in log.path.read_bytes()


def test_the_log_of_a_local_store_lies_beside_it_and_not_in_it(world: World) -> None:
    assert log_path(world.store.storage) == world.folder / "private.publish.jsonl"
    with pytest.raises(StoreError):
        AuditLog(world.folder / "private" / "zarr.json" / "log").add("step")
