"""How often a recording of topics is read: what is decompressed, laid aside, cut and copied."""

import errno
import gc
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcap.writer import CompressionType, Writer
from rosbags.rosbag1 import Writer as BagWriter
from teleopen.converters import _aside, _bag1_file, _chunks, _mcap_file, _topic_index, converter_for
from teleopen.converters._aside import Aside
from teleopen.converters._chunks import Chunk, Unit
from teleopen.converters._confined import confined
from teleopen.converters._ros_definitions import parse_text, tree_of
from teleopen.converters._ros_wire import RosDecoder
from teleopen.converters._topics import Source
from teleopen.converters.base import Format
from teleopen.converters.mcap import Mcap
from teleopen.schemas import Array, FormatError

from tests.samples._ros import START, Run, Told
from tests.samples.rosbag1 import write_bag

FRAMES = 6
SIZE = (120, 256, 3)
CAMERAS = ("/left", "/right")


class Filmed(Run):
    """Two cameras and a joint, whose messages alternate."""

    def messages(self) -> Iterator[Told]:
        kind, other = "sensor_msgs/msg/Image", "std_msgs/msg/Float64"
        for i in range(FRAMES):
            for number, topic in enumerate(CAMERAS):
                frame = np.full(SIZE, 10 * i + number, np.uint8)
                frame[i] = 255
                yield Told(topic, kind, START + 10 * i + number, self.of(
                    kind, header=self.header(START + i, topic[1:]), height=SIZE[0], width=SIZE[1],
                    encoding="rgb8", is_bigendian=0, step=3 * SIZE[1], data=frame.reshape(-1),
                ))  # fmt: skip
            yield Told("/grip", other, START + 10 * i + 5, self.of(other, data=float(i)))


def write_mcap(path: Path, compression: CompressionType, **options: Any) -> Path:
    run = Filmed(2)
    with path.open("wb") as file:
        writer: Any = Writer(file, compression=compression, chunk_size=150_000, **options)
        writer.start()
        channels: dict[str, int] = {}
        for told in run.messages():
            if told.topic not in channels:
                text = run.definition(told.type).encode()
                schema = writer.register_schema(told.type, "ros2msg", text)
                channels[told.topic] = writer.register_channel(told.topic, "cdr", schema)
            raw = bytes(run.store.serialize_cdr(told.message, told.type))
            writer.add_message(channels[told.topic], told.log_ns, raw, told.log_ns)
        writer.finish()
    return path


def values(path: Path) -> dict[str, Array]:
    (episode,) = converter_for(path).episodes(path)
    return {name: stream.values() for name, stream in episode.streams.items()}


def same(some: dict[str, Array], others: dict[str, Array]) -> None:
    assert set(some) == set(others)
    for name, array in some.items():
        np.testing.assert_array_equal(others[name], array, err_msg=name)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Chunk]:
    """Give the chunks that are decompressed from now on."""
    found: list[Chunk] = []
    real = _chunks.decompressed

    def counted(chunk: Chunk, raw: bytes, of: Format) -> bytes:
        found.append(chunk)
        return real(chunk, raw, of)

    for module in (_chunks, _mcap_file, _bag1_file):
        monkeypatch.setattr(module, "decompressed", counted)
    return found


FILES = {
    "zstd.mcap": lambda path: write_mcap(path, CompressionType.ZSTD),
    "lz4.mcap": lambda path: write_mcap(path, CompressionType.LZ4),
    "none.mcap": lambda path: write_mcap(path, CompressionType.NONE),
    "alone.mcap": lambda path: write_mcap(path, CompressionType.NONE, use_chunking=False),
    "bz2.bag": lambda path: write_bag(path, Filmed(1), BagWriter.CompressionFormat.BZ2),
    "lz4.bag": lambda path: write_bag(path, Filmed(1), BagWriter.CompressionFormat.LZ4),
    "none.bag": lambda path: write_bag(path, Filmed(1)),
}


@pytest.mark.parametrize("name", FILES)
def test_no_chunk_is_decompressed_twice_however_many_streams_lie_in_it(
    tmp_path: Path, made: list[Chunk], name: str
) -> None:
    found = values(FILES[name](tmp_path / name))
    for number, topic in enumerate(CAMERAS):
        pixels = found[f"observation.images.{topic[1:]}"]
        assert pixels[:, -1, 0, 0].tolist() == [10 * i + number for i in range(FRAMES)]
    compressed = [chunk for chunk in made if not chunk.plain]
    assert len(compressed) == len(set(compressed))
    assert bool(compressed) != name.startswith(("none", "alone"))


@pytest.mark.parametrize("room", [0, 400_000])
def test_without_room_chunks_are_decompressed_again_and_read_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: list[Chunk], room: int
) -> None:
    whole = values(write_mcap(tmp_path / "whole.mcap", CompressionType.ZSTD))
    made.clear()
    monkeypatch.setattr(_aside, "MOST_BYTES", room)
    same(whole, values(write_mcap(tmp_path / "again.mcap", CompressionType.ZSTD)))
    assert len(made) > len(set(made)) + (0 if room else len(set(made)) // 2)


def test_a_disk_that_gets_full_costs_time_and_no_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = values(write_mcap(tmp_path / "whole.mcap", CompressionType.ZSTD))
    real, left = os.pwrite, [500_000]

    def filling(fd: int, data: Any, at: int) -> int:
        # Half of what is asked for, as the system may; and then nothing any more.
        if left[0] <= 0:
            raise OSError(errno.ENOSPC, "no space left")
        written = real(fd, data[: max(1, len(data) // 2)], at)
        left[0] -= written
        return written

    monkeypatch.setattr(os, "pwrite", filling)
    same(whole, values(write_mcap(tmp_path / "full.mcap", CompressionType.ZSTD)))
    assert left[0] <= 0


def test_a_system_without_a_folder_for_temporary_files_is_no_hindrance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = values(write_mcap(tmp_path / "whole.mcap", CompressionType.ZSTD))
    monkeypatch.setattr(_aside, "_folder", lambda: str(tmp_path / "absent"))
    same(whole, values(write_mcap(tmp_path / "again.mcap", CompressionType.ZSTD)))


def handles() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 # of links that may go meanwhile


def test_what_is_laid_aside_has_no_name_and_goes_with_its_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "room"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    files = [write_mcap(tmp_path / f"{i}.mcap", CompressionType.ZSTD) for i in range(6)]
    sources = [Source("mcap", path, Mcap.format) for path in files]
    first = sources[0].topic("/left")
    gc.collect()
    before = handles()
    for source in sources[1:]:
        source.recording()
    assert list(folder.iterdir()) == []
    # Of those before the last two, nothing is open any more; what is still held can be read.
    assert handles() <= before + 1
    sizes = [len(payload) for payload in first.payloads(0, FRAMES)]
    assert sizes == [sizes[0]] * FRAMES


def test_bytes_laid_aside_are_there_until_they_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_aside, "MOST_BYTES", 10)
    aside = Aside()
    assert (aside.put(b"four"), aside.put(b"three"), aside.put(b"more")) == (0, 4, -1)
    assert [aside.get(*where) for where in ((4, 5), (2, 4), (8, 9), (-1, 1))] == [
        b"three",
        b"urth",
        None,
        None,
    ]
    aside.clear()
    assert (aside.get(0, 4), aside.put(b"x")) == (None, -1)


# What is looked at


def written(name: str, data: bytes, number: float, *, last: bool) -> bytes:
    """Return a message in CDR: ``string name``, ``uint8[] data`` and ``float64 number``, data last or not."""
    raw = struct.pack("<I", len(name) + 1) + name.encode() + b"\0"
    for part in ("number", "data") if last else ("data", "number"):
        if part == "number":
            raw += bytes(-len(raw) % 8) + struct.pack("<d", number)
        else:
            raw += bytes(-len(raw) % 4) + struct.pack("<I", len(data)) + data
    return b"\0\1\0\0" + raw


def batch(decoder: RosDecoder, parts: list[bytes], sizes: list[int]) -> list[Any]:
    lengths = np.array([len(part) for part in parts], np.int64)
    found = decoder.batch(b"".join(parts), np.cumsum(lengths) - lengths, np.array(sizes, np.int64))
    return [found["data"].counts.tolist(), found["name"].flat, found["number"].flat.tolist()]  # type: ignore[union-attr]


@given(
    told=st.lists(st.tuples(st.text("ab", max_size=9), st.integers(0, 40), st.floats(0, 1)), min_size=1),
    last=st.booleans(),
)
def test_bytes_out_of_reach_are_not_missed(told: list[tuple[str, int, float]], *, last: bool) -> None:
    # Names and arrays of differing lengths make messages of one size that are laid out differently.
    messages = [written(name, bytes(9_000 + more), number, last=last) for name, more, number in told]
    fields = ("float64 number", "uint8[] data") if last else ("uint8[] data", "float64 number")
    text = "\n".join(["string name", *fields])
    decoder = RosDecoder(tree_of(parse_text(text, "a/A"), "a/A", "ros2"), cdr=True)
    sizes = [len(message) for message in messages]
    assert [decoder.reach(message, 0, len(message)) for message in messages] == sizes
    whole = batch(decoder, messages, sizes)
    parts = [message[: decoder.reach(message, 0, len(message))] for message in messages]
    assert batch(decoder, parts, sizes) == whole
    assert whole[1:] == [[name for name, _, _ in told], [number for _, _, number in told]]
    if last:
        assert len(parts[0]) < 50


@pytest.mark.parametrize("most", [0, 1 << 30])
def test_large_messages_are_indexed_by_what_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    whole = values(write_mcap(tmp_path / "whole.mcap", CompressionType.ZSTD))
    cut: list[tuple[int, int]] = []
    real = _topic_index._Indexer.cut

    def counted(self: Any, unit: Unit) -> Unit:
        found = real(self, unit)
        cut.append((len(unit.data), len(found.data)))
        return found

    monkeypatch.setattr(_topic_index._Indexer, "cut", counted)
    monkeypatch.setattr(_topic_index, "_CUT_BYTES", most)
    monkeypatch.setattr(_topic_index, "_JOINED_UNITS", 1)
    same(whole, values(write_mcap(tmp_path / "again.mcap", CompressionType.ZSTD)))
    # All but the first units, from which the layouts are learnt.
    assert all(after < 2_000 for _, after in cut[3:]) == (most == 0)
    assert all(before > 150_000 for before, _ in cut[:-1])


# Checksums that are not computed, if there are none


def with_data_crc(path: Path) -> bytearray:
    write_mcap(path, CompressionType.NONE, enable_data_crcs=True)
    return bytearray(path.read_bytes())


def test_a_data_section_without_a_checksum_is_not_summed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summed: list[int] = []
    real = zlib.crc32

    def counted(data: bytes, start: int = 0) -> int:
        summed.append(len(data))
        return real(data, start)

    path = write_mcap(tmp_path / "a.mcap", CompressionType.NONE, use_chunking=False)
    monkeypatch.setattr(zlib, "crc32", counted)
    values(path)
    assert sum(summed) < 5_000
    with_data_crc(tmp_path / "b.mcap")
    values(tmp_path / "b.mcap")
    assert sum(summed) > (tmp_path / "b.mcap").stat().st_size


def test_a_footer_that_points_elsewhere_does_not_hide_the_checksum(tmp_path: Path) -> None:
    raw = with_data_crc(tmp_path / "sound.mcap")
    at = raw.rindex(b"\x0f\x04" + bytes(7))
    told = raw[at : at + 13]
    assert struct.unpack("<BQI", told)[2]
    raw[at + 9] ^= 1
    # Another record that looks like the end of a data section without a checksum, and a footer behind it.
    fake = b"\x0f\x04" + bytes(11)
    footer = len(raw) - 37
    raw[footer:footer] = b"\x80" + struct.pack("<Q", len(fake)) + fake
    struct.pack_into("<Q", raw, len(raw) - 28, footer + 9 + len(fake))
    struct.pack_into("<I", raw, len(raw) - 12, 0)
    path = tmp_path / "lying.mcap"
    path.write_bytes(raw)
    with pytest.raises(FormatError, match="data section"):
        list(Mcap().episodes(path))


def test_a_confined_reader_that_may_write_nothing_reads_alike(tmp_path: Path) -> None:
    path = write_mcap(tmp_path / "a.mcap", CompressionType.ZSTD)
    (episode,) = confined(Mcap()).episodes(path)
    same(values(path), {name: stream.values() for name, stream in episode.streams.items()})
