"""From a recording through a store and back: what must be equal is, bit for bit; the rest is measured."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from teleopen.converters import converter_for
from teleopen.hub import Store, WriteOptions, create_store
from teleopen.schemas import Episode, Stream

HERE = Path(__file__).parent
BUNDLED = [HERE / "data" / "aloha_act_sim.hdf5", HERE.parent / "cli" / "sample" / "mobile_aloha.hdf5"]
SHARED = [
    "aloha_hdf5/act_sim_transfer_cube_raw/episode_0.hdf5",
    "bench/aloha_textured_96.hdf5",
    "lerobot/v3.0_aloha_sim_2tasks",
    "lerobot/v3.0_g1_bottle_officially_converted",
    "lerobot/v3.0_so101_pick_place",
    "zarr_dp_umi/pusht_human.zarr",
    "zarr_dp_umi/umi_cup.zarr.zip",
]
LEAST_DB = 36.0


def squared_error(one: Any, other: Any) -> float:
    return float(np.mean((one.astype("float32") - other) ** 2))


def psnr(error: float) -> float:
    return float(10 * np.log10(255**2 / error)) if error else float("inf")


def pairs(one: Stream, other: Stream, step: int = 64) -> Iterator[tuple[Any, Any]]:
    for start in range(0, one.length, step):
        yield one.values(start, start + step), other.values(start, start + step)


def check_equal(found: Episode, source: Episode) -> None:
    """Assert that all but the pictures is what the source gives."""
    assert found.streams.keys() == source.streams.keys()
    for name, stream in source.streams.items():
        if stream.spec.kind != "video":
            for got, want in pairs(found.streams[name], stream, 1 << 16):
                np.testing.assert_array_equal(got, want, strict=True)
    for name, clock in source.clocks.items():
        np.testing.assert_array_equal(found.clocks[name].read(), clock.read(), strict=True)


def check_pictures(found: Stream, source: Stream, profile: str) -> None:
    if source.packets is not None:
        taken = {p.pts: p for p in found.packets.read()} if found.packets else {}
        for packet in source.packets.read():
            # What comes before or after the episode is there only as far as its frames need it.
            if 0 <= packet.pts < source.length:
                assert taken[packet.pts].data == packet.data
        profile = "lossless"
    errors = []
    for got, want in pairs(found, source):
        if profile == "lossless":
            np.testing.assert_array_equal(got, want)
        else:
            errors += [squared_error(a, b) for a, b in zip(got, want, strict=True)]
    if errors:
        assert psnr(float(np.mean(errors))) >= LEAST_DB


def check_windows(stream: Stream) -> None:
    """Assert that frames are the same alone, in a window and in sequence."""
    whole = stream.values(0, 100)
    for i in range(0, len(whole), 7):
        np.testing.assert_array_equal(stream.values(i, i + 1)[0], whole[i])
        np.testing.assert_array_equal(stream.values(i, min(i + 5, len(whole))), whole[i : i + 5])


def round_trip(path: Path, folder: Path, profile: Any) -> Store:
    converter = converter_for(path)
    store = create_store(folder / "store")
    sources = list(converter.episodes(path))
    report = store.write(sources, WriteOptions(profile=profile))
    assert list(report.added) == [e.id for e in sources]
    assert not store.verify(decode=True).damage
    for source in sources[:3]:
        found = store.episode(source.id)
        check_equal(found, source)
        for name, stream in source.streams.items():
            if stream.spec.kind == "video":
                check_pictures(found.streams[name], stream, profile)
                check_windows(found.streams[name])
    assert store.write(sources).added == ()
    return store


@pytest.mark.parametrize("profile", ["train", "lossless"])
@pytest.mark.parametrize("path", BUNDLED, ids=lambda p: p.stem)
def test_a_bundled_recording_survives(path: Path, profile: str, tmp_path: Path) -> None:
    round_trip(path, tmp_path, profile)


@pytest.mark.parametrize("name", SHARED)
def test_a_real_recording_survives(name: str, shared_data: Path, tmp_path: Path) -> None:
    round_trip(shared_data / name, tmp_path, "train")


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["archive", "auto", "stream", "lossless"])
@pytest.mark.parametrize("name", SHARED[:2] + SHARED[-2:])
def test_a_real_recording_survives_in_every_profile(
    name: str, profile: str, shared_data: Path, tmp_path: Path
) -> None:
    round_trip(shared_data / name, tmp_path, profile)
