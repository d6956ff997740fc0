"""What goes into a store comes out of it: through our reader, and through plain Zarr."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from teleopen.hub import Store, WriteOptions, create_store, open_store
from teleopen.schemas import (
    Episode,
    FormatError,
    NotFoundError,
    Packets,
    Rights,
    SchemaError,
    StoreError,
    packet_blocks,
    to_document,
)

from tests.episodes import Recipe, episode, frame, imu_times, make, values_of
from tests.hub import clips

QUICK = WriteOptions(workers=2)
RECIPES = [Recipe(seed=1), Recipe(seed=2, steps=33), Recipe(seed=3, steps=1), Recipe(seed=4, steps=128)]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = create_store(tmp_path_factory.mktemp("store") / "s")
    report = store.write(map(episode, RECIPES), QUICK)
    assert len(report.added) == len(RECIPES) == len(store)
    return store


def psnr(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> float:
    error = np.mean((one.astype("float64") - other) ** 2)
    return float(10 * np.log10(255**2 / error)) if error else float("inf")


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda r: f"seed {r.seed}")
def test_samples_and_times_come_back_bit_for_bit(store: Store, recipe: Recipe) -> None:
    source = episode(recipe)
    found = store.episode(source.id)
    assert found.streams.keys() == source.streams.keys()
    for name, stream in source.streams.items():
        if stream.spec.kind != "video":
            got = found.streams[name].values()
            np.testing.assert_array_equal(got, stream.values(), strict=True)
            assert got.dtype == stream.spec.np_dtype
    for name, clock in source.clocks.items():
        np.testing.assert_array_equal(found.clocks[name].read(), clock.read(), strict=True)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda r: f"seed {r.seed}")
def test_camera_frames_come_back_at_the_quality_asked_for(store: Store, recipe: Recipe) -> None:
    got = store.episode(episode(recipe).id).streams["observation.images.top"].values()
    assert len(got) == recipe.steps
    for i in range(recipe.steps):
        assert psnr(got[i], frame(recipe, "top", i)) >= 36


def test_headers_come_back_and_tell_the_measured_error(store: Store) -> None:
    source = episode(RECIPES[0])
    found = store.episode(source.id)
    fates = {f.field: f for f in found.provenance.ledger}
    fate = fates["/observation.images.top"]
    assert fate.lossless is False
    assert fate.error is not None
    assert fate.error["psnr_db"] >= 36
    assert fates["/action"].lossless is True
    same = replace(found, provenance=source.provenance, rights=source.rights)
    assert to_document(same) == to_document(source)


def test_a_range_is_a_slice(store: Store) -> None:
    source, stream = episode(RECIPES[0]), "observation.images.top"
    found = store.episode(source.id).streams
    whole = {name: found[name].values() for name in found}

    @settings(max_examples=40, deadline=None)
    @given(st.sampled_from(sorted(found)), st.integers(0, 220), st.integers(0, 220))
    def check(name: str, a: int, b: int) -> None:
        start, stop = min(a, b), max(a, b)
        np.testing.assert_array_equal(found[name].values(start, stop), whole[name][start:stop], strict=True)

    check()
    for i in (0, 31, 32, 69):
        np.testing.assert_array_equal(found[stream].values(i, i + 1)[0], whole[stream][i])


def test_a_range_of_time_is_half_open_on_each_clock(store: Store) -> None:
    recipe = RECIPES[0]
    found = store.episode(episode(recipe).id)
    times = imu_times(recipe)
    got = np.concatenate(list(found.between("imu.accel", int(times[5]), int(times[9]))))
    np.testing.assert_array_equal(got, values_of(recipe, "imu.accel", 5, 9))
    assert list(found.between("imu.accel", -5, 0)) == []


@pytest.mark.filterwarnings("ignore:Consolidated metadata")
def test_plain_zarr_reads_every_array(store: Store) -> None:
    root: Any = zarr.open(store.url, mode="r")
    for recipe in RECIPES:
        source = episode(recipe)
        where = store.state.episodes[source.id]
        found = store.episode(source.id)
        for name, stream in found.streams.items():
            clock = stream.spec.clock
            start = int(root[f"segments/{where.segment}/{clock}/start"][where.row])
            array = root[f"segments/{where.segment}/{clock}/{name}"]
            np.testing.assert_array_equal(array[start : start + stream.length], stream.values())
            np.testing.assert_array_equal(array[start + stream.length - 1], stream.values()[-1])


def test_a_cold_interpreter_needs_only_zarr(store: Store) -> None:
    source = episode(RECIPES[0])
    where = store.state.episodes[source.id]
    code = (
        "import sys, zarr, warnings; warnings.simplefilter('ignore')\n"
        f"a = zarr.open({store.url!r}, mode='r')['segments/{where.segment}/steps/observation.images.top']\n"
        "print(int(a[40].sum()), a.shape)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    array, start, _ = store.array(source.id, "observation.images.top")
    assert out.split()[0] == str(int(array.frames([40])[0].astype("int64").sum()))
    assert start == 0


def test_writing_twice_adds_nothing(tmp_path: Path) -> None:
    store = create_store(tmp_path / "s")
    first = store.write([make(seed=1)], QUICK)
    before = sorted(p for p in tmp_path.rglob("*"))
    again = store.write([make(seed=1), make(seed=1)], QUICK)
    assert (first.added, again.added) == ((make(seed=1).id,), ())
    assert set(again.skipped) == {make(seed=1).id}
    assert sorted(p for p in tmp_path.rglob("*")) == before


def test_segments_are_of_one_schema_one_robot_and_one_rights_record(tmp_path: Path) -> None:
    store = create_store(tmp_path / "s")
    signed = Rights.from_document({**Rights().to_document(), "tier": "gated"})
    recipes: list[dict[str, Any]] = [
        {"seed": 1},
        {"seed": 2},
        {"seed": 3, "embodiment": "other"},
        {"seed": 4, "imu": False},
        {"seed": 5, "rights": signed},
    ]
    report = store.write([make(depth=False, **recipe) for recipe in recipes], QUICK)
    assert sorted(len(add.episodes) for add in store.state.segments.values()) == [1, 1, 1, 2]
    assert store.rights(make(depth=False, seed=5, rights=signed).id).tier == "gated"
    assert len(report.added) == 5


def test_large_writes_roll_over_segments_and_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("teleopen.hub.shards.SHARD_CHUNKS", 2)
    store = create_store(tmp_path / "s")
    recipes = [Recipe(seed=s, steps=200) for s in range(3)]
    store.write(map(episode, recipes), replace(QUICK, segment_episodes=2))
    assert len(store.state.segments) == 2
    for recipe in recipes:
        source = episode(recipe)
        found = store.episode(source.id)
        for name in ("observation.state", "observation.depth.top", "imu.accel"):
            np.testing.assert_array_equal(found.streams[name].values(), source.streams[name].values())
        assert len(found.streams["observation.images.top"].values()) == 200
    assert not store.verify(decode=True).damage


def test_lossless_gives_the_pixels_back(tmp_path: Path) -> None:
    store = create_store(tmp_path / "s")
    source = make(seed=1, size=(45, 63))
    store.write([source], replace(QUICK, profile="lossless"))
    got = store.episode(source.id).streams["observation.images.top"].values()
    np.testing.assert_array_equal(got, source.streams["observation.images.top"].values())
    fate = {f.field: f for f in store.episode(source.id).provenance.ledger}["/observation.images.top"]
    assert fate.lossless is True


@pytest.mark.parametrize("profile", ["train", "stream", "archive", "auto", "lossless"])
def test_every_gotis_the_same_alone_in_a_window_and_in_sequence(tmp_path: Path, profile: Any) -> None:
    store = create_store(tmp_path / "s")
    source = make(seed=1, steps=50, size=(64, 80), depth=False, imu=False)
    store.write([source], replace(QUICK, profile=profile))
    stream = store.episode(source.id).streams["observation.images.top"]
    whole = stream.values()
    truth = source.streams["observation.images.top"].values()
    for i in range(50):
        np.testing.assert_array_equal(stream.values(i, i + 1)[0], whole[i])
        np.testing.assert_array_equal(stream.values(i, i + 3), whole[i : i + 3])
        assert psnr(whole[i], truth[i]) >= 36


def test_packets_of_a_store_go_into_another_without_transcoding(tmp_path: Path) -> None:
    one, other = create_store(tmp_path / "one"), create_store(tmp_path / "other")
    source = make(seed=1)
    one.write([source], QUICK)
    found = one.episode(source.id)
    other.write([found], QUICK)
    copied = other.episode(source.id)
    name = "observation.images.top"
    packets = [list(e.streams[name].packets.read()) for e in (found, copied)]  # type: ignore[union-attr]
    assert packets[0] == packets[1]
    assert sorted(p.pts for p in packets[0]) == list(range(70))
    np.testing.assert_array_equal(copied.streams[name].values(), found.streams[name].values())


class BrokenError(Exception):
    pass


def failing(source: Episode, name: str, error: Exception | None) -> Episode:
    stream = source.streams[name]

    def read(start: int, stop: int) -> Any:
        blocks = list(stream.read(start, stop))
        yield blocks[0]
        if error is not None:
            raise error

    return replace(source, streams={**source.streams, name: replace(stream, read=read)})


@pytest.mark.parametrize(
    ("name", "error", "raised"),
    [
        ("action", FormatError("x", "row 50", "is broken"), FormatError),
        ("observation.images.top", BrokenError(), BrokenError),
        ("observation.depth.top", None, FormatError),
    ],
)
def test_a_bad_source_leaves_the_store_as_it_was(
    tmp_path: Path, name: str, error: Exception | None, raised: type[Exception]
) -> None:
    store = create_store(tmp_path / "s")
    store.write([make(seed=9, steps=5)], QUICK)
    before = {p: p.is_file() and p.read_bytes() for p in tmp_path.rglob("*")}
    for sources in ([make(seed=1), failing(make(seed=2), name, error)], [failing(make(seed=2), name, error)]):
        with pytest.raises(raised):
            store.write(sources, QUICK)
        assert {p: p.is_file() and p.read_bytes() for p in tmp_path.rglob("*")} == before


def test_a_header_that_breaks_the_schema_is_refused(tmp_path: Path) -> None:
    store = create_store(tmp_path / "s")
    source = make(seed=1)
    with pytest.raises(SchemaError, match=r"instructions\.0"):
        store.write([replace(source, instructions=("a\x07b",))], QUICK)


def test_samples_that_break_their_header_are_refused(tmp_path: Path) -> None:
    store = create_store(tmp_path / "s")
    source = make(seed=1)
    stream = source.streams["action"]
    wide = replace(stream, read=lambda a, b: iter([np.zeros((b - a, 7), "float64")]))
    with pytest.raises(SchemaError, match="float64"):
        store.write([replace(source, streams={**source.streams, "action": wide})], QUICK)


def test_episodes_are_found_by_id_prefix_and_number(store: Store) -> None:
    ids = store.ids
    assert [store.find(str(i)) for i in range(len(ids))] == list(ids)
    assert store.find(ids[2]) == ids[2]
    assert store.find(ids[2][:13]) == ids[2]
    for key in ("99", "", "zz"):
        with pytest.raises(NotFoundError, match="holds 4"):
            store.find(key)


def test_rights_change_in_the_log_and_data_never_moves(tmp_path: Path) -> None:
    store = create_store(tmp_path / "s")
    store.write([make(seed=1), make(seed=2)], QUICK)
    files = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("segments/*/**/*") if p.is_file()}
    assert store.rights("0").tier == "closed"
    assert store.why("0")
    gated = Rights.from_document({**Rights().to_document(), "tier": "gated"})
    assert store.set_rights(gated, ["0"]) == (store.ids[0],)
    assert store.set_rights(gated, ["0"]) == ()
    again = open_store(store.url)
    assert [again.rights(key).tier for key in "01"] == ["gated", "closed"]
    assert again.episode("0").rights == again.rights("0")
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("segments/*/**/*") if p.is_file()} == files


def test_what_a_recording_was_made_from_is_on_record_without_being_stated(store: Store) -> None:
    (source,) = store.rights("0").source
    assert source.sha256 == store.episode("0").provenance.sources[0].sha256
    assert "R11_SOURCE_UNPINNED" not in {reason.code for reason in store.why("0")}


def test_what_is_no_store_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        open_store(tmp_path / "absent")
    tmp_path.joinpath("zarr.json").write_text(
        json.dumps({"zarr_format": 3, "node_type": "group", "attributes": {}})
    )
    with pytest.raises(StoreError):
        open_store(tmp_path)


def test_a_store_in_memory_or_behind_a_url_is_the_same() -> None:
    store = create_store("memory://teleopen-test-store")
    source = make(seed=1)
    store.write([source], QUICK)
    found = open_store("memory://teleopen-test-store").episode("0")
    for name in ("action", "observation.depth.top"):
        np.testing.assert_array_equal(found.streams[name].values(), source.streams[name].values())
    assert not store.verify(decode=True).damage


def test_packets_that_are_handed_out_decode_to_all_frames_though_the_cut_was_not_at_a_key(
    tmp_path: Path,
) -> None:
    """The last pictures of an episode may refer to one that is shown after it."""
    pictures = clips.clip(40, 64, 96)
    packets, video = clips.stream(pictures, "libx264", {"bf": "3", "b-adapt": "0"}, gop=24)
    source = episode(Recipe(seed=5, steps=34, cameras=("top",)))
    camera = source.streams["observation.images.top"]
    camera = replace(
        camera,
        spec=replace(camera.spec, shape=(64, 96, 3)),
        read=lambda start, stop: iter([pictures[start:stop]]),
        packets=Packets(format=video, blocks=lambda: packet_blocks(packets)),
    )
    source = replace(source, streams={**source.streams, camera.spec.name: camera})
    store = create_store(tmp_path / "store")
    store.write([source], QUICK)
    found = store.episode(source.id).streams[camera.spec.name]
    assert found.packets is not None
    taken = list(found.packets.read())
    assert max(packet.pts for packet in taken) >= 34
    whole, again = clips.in_sequence(packets, video), clips.in_sequence(taken, video)
    for index, got in enumerate(found.values()):
        np.testing.assert_array_equal(again[index], whole[index])
        np.testing.assert_array_equal(got, whole[index])
