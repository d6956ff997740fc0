"""The tables of an MP4 read at once: the packets that FFmpeg gives, or nothing where it has to decide."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from teleopen.converters import _mp4
from teleopen.converters._mp4 import Mp4Video
from teleopen.converters._mp4_tables import packets_of

from tests.converters.test_mp4 import LENGTH, REMUXED, encode, remux

MOST = 1000


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("tables")

    def of(name: str) -> Path:
        path = folder / f"{name}.mp4"
        return path if path.exists() else encode(path, name)

    return of


def tables(path: Path) -> Any:
    return packets_of(path, path.stat().st_size, MOST)


def demuxed(path: Path) -> Any:
    """Return the same from FFmpeg."""
    with av.open(str(path)) as container:
        return _mp4._read_packets(path, path.stat().st_size, container.demux(video=0))


def assert_as_ffmpeg(path: Path, most: int = MOST) -> None:
    found, expected = packets_of(path, path.stat().st_size, most), demuxed(path)
    assert found is not None
    # An edit list moves all times alike.
    np.testing.assert_array_equal(found["pts"] - found["pts"][0], expected["pts"] - expected["pts"][0])
    for column in ("offset", "size", "flags"):
        np.testing.assert_array_equal(found[column], expected[column])


@pytest.mark.parametrize("name", [*REMUXED, "mpeg4"])
def test_packets_are_those_of_ffmpeg(name: str, videos: Callable[[str], Path]) -> None:
    assert_as_ffmpeg(videos(name))


@pytest.mark.parametrize(
    "options", [{"use_editlist": "0"}, {"movflags": "faststart"}, {"movflags": "negative_cts_offsets"}]
)
def test_other_ways_to_write_the_tables_change_nothing(
    options: dict[str, str], videos: Callable[[str], Path], tmp_path: Path
) -> None:
    path = remux(videos("h264-pyramid"), tmp_path / "other.mp4", lambda _, packet: packet, **options)
    if tables(path) is not None:
        assert_as_ffmpeg(path)
    assert list(Mp4Video(path).packets(5, 20)) == list(Mp4Video(videos("h264-pyramid")).packets(5, 20))


def test_uneven_times_are_those_of_ffmpeg(videos: Callable[[str], Path], tmp_path: Path) -> None:
    def uneven(number: int, packet: av.Packet[Any]) -> av.Packet[Any]:
        packet.pts = packet.dts = number**2 * 512
        return packet

    assert_as_ffmpeg(remux(videos("av1-2"), tmp_path / "uneven.mp4", uneven))


def test_packets_of_a_file_with_sound_are_those_of_ffmpeg(
    videos: Callable[[str], Path], tmp_path: Path
) -> None:
    path = tmp_path / "sound.mp4"
    with av.open(str(videos("h264-pyramid"))) as old, av.open(str(path), "w") as new:
        video = new.add_stream_from_template(old.streams.video[0], opaque=True)
        sound = new.add_stream("aac", rate=16_000, layout="mono")
        for packet in old.demux(video=0):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate = 16_000
            new.mux(sound.encode(frame))
            if packet.size:
                packet.stream = video
                new.mux(packet)
    assert_as_ffmpeg(path)


@pytest.mark.parametrize("pause", [0, 3])
def test_an_edit_list_that_only_waits_hides_nothing(
    pause: int, videos: Callable[[str], Path], tmp_path: Path
) -> None:
    def later(_: int, packet: av.Packet[Any]) -> av.Packet[Any]:
        packet.pts, packet.dts = (packet.pts or 0) + pause * 512, (packet.dts or 0) + pause * 512
        return packet

    path = remux(videos("h264-pyramid"), tmp_path / "late.mp4", later, use_editlist="1")
    assert b"elst" in path.read_bytes()
    assert_as_ffmpeg(path)


def test_what_hides_pictures_is_left_to_ffmpeg(videos: Callable[[str], Path], tmp_path: Path) -> None:
    def earlier(_: int, packet: av.Packet[Any]) -> av.Packet[Any]:
        packet.pts, packet.dts = (packet.pts or 0) - 6 * 512, (packet.dts or 0) - 6 * 512
        return packet

    told = {"avoid_negative_ts": "disabled", "use_editlist": "1"}
    path = remux(videos("h264-pyramid"), tmp_path / "edited.mp4", earlier, **told)
    assert tables(path) is None
    assert len(Mp4Video(path)) == LENGTH - 6


def test_fragments_are_left_to_ffmpeg(videos: Callable[[str], Path], tmp_path: Path) -> None:
    flags = "frag_keyframe+empty_moov+delay_moov"
    assert (
        tables(remux(videos("av1-2"), tmp_path / "live.mp4", lambda _, packet: packet, movflags=flags))
        is None
    )


def test_more_packets_than_allowed_are_not_looked_at(videos: Callable[[str], Path]) -> None:
    path = videos("av1-2")
    assert packets_of(path, path.stat().st_size, LENGTH - 1) is None


TABLES = [b"stsz", b"stco", b"stsc", b"stts", b"ctts", b"stss", b"elst", b"stsd"]


@pytest.mark.parametrize("count", [0, 60, 2**31, 2**32 - 1])
@pytest.mark.parametrize("table", TABLES)
def test_a_false_count_is_not_believed(
    table: bytes, count: int, videos: Callable[[str], Path], tmp_path: Path
) -> None:
    raw = bytearray(videos("h264-pyramid").read_bytes())
    at = raw.index(table) + 8 + 4 * (table == b"stsz")
    struct.pack_into(">I", raw, at, count)
    path = tmp_path / "false.mp4"
    path.write_bytes(raw)
    assert tables(path) is None


@pytest.mark.parametrize(
    ("table", "at", "value"),
    [
        (b"stco", 16, 2**32 - 1),  # a chunk behind the end of the file
        (b"stsc", 16, 2),  # the first run does not begin at the first chunk
        (b"stsc", 20, 0),  # chunks of no samples
        (b"stsc", 20, 2**32 - 1),
        (b"stsc", 24, 2),  # another description than the one there is
        (b"stts", 20, 0),  # pictures of no duration
        (b"ctts", 20, 2**32 - 5),  # a negative delay
        (b"stss", 16, 2),  # the first picture is no key
        (b"stss", 20, 1),  # one picture named twice
        (b"stsz", 20, 0),  # an empty picture
        (b"elst", 16, 10),  # an edit that ends early
        (b"elst", 20, 40_000),  # and one that begins late
        (b"elst", 24, 0x20000),  # and one at twice the speed
        (b"mvhd", 20, 0),  # no time scale
    ],
)
def test_odd_values_are_left_to_ffmpeg(
    table: bytes, at: int, value: int, videos: Callable[[str], Path], tmp_path: Path
) -> None:
    raw = bytearray(videos("h264-pyramid").read_bytes())
    # From behind the kind of the box, whose size stands in front of it.
    struct.pack_into(">I", raw, raw.index(table) - 4 + at, value)
    path = tmp_path / "odd.mp4"
    path.write_bytes(raw)
    assert tables(path) is None


@pytest.mark.parametrize("name", ["h264-pyramid", "av1-2"])
def test_no_damage_to_the_tables_leads_out_of_the_file(
    name: str, videos: Callable[[str], Path], tmp_path: Path
) -> None:
    raw, chance, path = videos(name).read_bytes(), random.Random(7), tmp_path / "damaged.mp4"
    begin, taken = raw.index(b"moov"), 0
    size = struct.unpack_from(">I", raw, begin - 4)[0]
    for _ in range(400):
        damaged = bytearray(raw)
        at = begin - 4 + chance.randrange(size)
        damaged[at : at + 4] = chance.randbytes(chance.choice([1, 4]))
        path.write_bytes(damaged)
        found = tables(path)
        if found is not None:
            taken += 1
            assert found["size"].min() > 0
            assert found["offset"].min() >= 0
            assert (found["offset"] + found["size"]).max() <= len(damaged)
    assert taken, "damage to what this does not read is none"


def test_recorders_own_files_are_plain(shared_data: Path) -> None:
    paths = sorted((shared_data / "lerobot").rglob("*.mp4"))
    assert paths
    for path in paths:
        assert_as_ffmpeg(path, 1_000_000)
