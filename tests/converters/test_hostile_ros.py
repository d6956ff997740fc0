"""Recordings of topics that were made to do harm: refused by name, soon, and in little memory."""

import bz2
import contextlib
import importlib
import shutil
import sqlite3
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcap.writer import CompressionType
from rosbags.rosbag2 import CompressionMode
from teleopen.converters import Converter
from teleopen.converters._messages import UndecodableError
from teleopen.converters._ros_definitions import DefinitionError, parse_text, tree_of
from teleopen.converters._ros_idl import parse_idl
from teleopen.converters._ros_wire import RosDecoder
from teleopen.converters.mcap import Mcap
from teleopen.converters.rosbag1 import Rosbag1
from teleopen.converters.rosbag2 import Rosbag2
from teleopen.schemas import FormatError

from tests.converters.reading import read_all, refusal
from tests.samples._ros import Run
from tests.samples.mcap import write_file
from tests.samples.rosbag1 import write_bag as write_bag1
from tests.samples.rosbag2 import write_bag as write_bag2

GIB = 1 << 30


# MCAP


def record(opcode: int, content: bytes) -> bytes:
    return struct.pack("<BQ", opcode, len(content)) + content


def text(value: str) -> bytes:
    return struct.pack("<I", len(value)) + value.encode()


def chunk(size: int, stored: bytes, compression: str, crc: int = 0) -> bytes:
    front = struct.pack("<QQQI", 0, 0, size, crc) + text(compression) + struct.pack("<Q", len(stored))
    return record(6, front + stored)


def mcap(*records: bytes) -> bytes:
    magic = b"\x89MCAP0\r\n"
    end = record(15, bytes(4)) + record(2, bytes(20))
    return magic + record(1, text("") + text("")) + b"".join(records) + end + magic


def channel(topic: str = "t", encoding: str = "json") -> bytes:
    return record(4, struct.pack("<HH", 1, 0) + text(topic) + text(encoding) + struct.pack("<I", 0))


def message(payload: bytes, number: int = 1, log: int = 1) -> bytes:
    return record(5, struct.pack("<HIQQ", number, 0, log, log) + payload)


def in_file(folder: Path, raw: bytes, name: str = "hostile.mcap") -> Path:
    path = folder / name
    path.write_bytes(raw)
    return path


def test_a_small_sound_file_is_read(tmp_path: Path) -> None:
    path = in_file(tmp_path, mcap(channel(), message(b'{"x": 1}'), message(b'{"x": 2}', log=9)))
    (episode,) = Mcap().episodes(path)
    assert episode.streams["extra.t.x"].values().tolist() == [1, 2]


def bombs(folder: Path) -> list[tuple[Any, Path]]:
    """Write small files that claim, or unpack to, far more than they are."""
    lz4 = importlib.import_module("lz4.frame")
    zeros = bytes(1 << 27)
    packed = {
        "zstd": zstandard.ZstdCompressor().compress(zeros),
        "lz4": lz4.compress(zeros, store_size=False),
        "bz2": bz2.compress(zeros[: 1 << 24]),
    }
    found: list[tuple[Any, Path]] = []
    for name in ("zstd", "lz4"):
        for size in (1_000, 1 << 40):
            raw = mcap(chunk(size, packed[name], name))
            found.append((Mcap(), in_file(folder, raw, f"{name}-{size}.mcap")))
    found.append((Mcap(), in_file(folder, mcap(chunk(1 << 40, bytes(100), "")), "none.mcap")))
    tiny = message(b"") * 4_000_000
    raw = mcap(channel(), chunk(len(tiny), zstandard.ZstdCompressor().compress(tiny), "zstd"))
    found.append((Mcap(), in_file(folder, raw, "tiny.mcap")))
    for name in ("bz2", "lz4"):
        for size in (1_000, 1 << 31):
            front = header(op=b"\5", compression=name.encode(), size=struct.pack("<I", size))
            raw = b"#ROSBAG V2.0\n" + front + struct.pack("<I", len(packed[name])) + packed[name]
            found.append((Rosbag1(), in_file(folder, raw, f"{name}-{size}.bag")))
    return found


def header(**fields: bytes) -> bytes:
    """Return the header of a record of a bag."""
    raw = b"".join(struct.pack("<I", len(k) + 1 + len(v)) + k.encode() + b"=" + v for k, v in fields.items())
    return struct.pack("<I", len(raw)) + raw


def refuse_all(files: list[tuple[Any, Path]]) -> None:
    for converter, path in files:
        assert "chunk at byte" in refusal(converter, path).where


def test_bombs_are_stopped_before_they_grow(tmp_path: Path, peak_memory: Callable[..., int]) -> None:
    assert peak_memory(refuse_all, bombs(tmp_path)) < GIB // 2


def test_many_chunks_do_not_add_up_to_a_bomb(tmp_path: Path) -> None:
    size = 1 << 26
    bomb = zstandard.ZstdCompressor().compress(bytes(size))
    path = in_file(tmp_path, mcap(*[chunk(size, bomb, "zstd")] * 40))
    # The first is no sequence of records; what matters is that no more than it is unpacked.
    assert refusal(Mcap(), path).where.startswith("chunk")


def test_a_chunk_that_does_not_match_its_checksum_is_refused(tmp_path: Path) -> None:
    inner = channel() + message(b'{"x": 1}')
    sound = in_file(tmp_path, mcap(chunk(len(inner), inner, "", zlib.crc32(inner))))
    read_all(Mcap(), sound)
    path = in_file(tmp_path, mcap(chunk(len(inner), inner, "", zlib.crc32(inner) ^ 1)), "bad.mcap")
    assert "checksum" in refusal(Mcap(), path).why


def test_the_data_section_and_the_summary_are_checked_too(tmp_path: Path) -> None:
    sound = write_file(tmp_path / "sound.mcap", Run(2), CompressionType.NONE, enable_data_crcs=True)
    read_all(Mcap(), sound)
    raw = sound.read_bytes()
    for name, place in {"data": raw.index(b"bench 3"), "summary": raw.rindex(b"/force")}.items():
        broken = bytearray(raw)
        broken[place] ^= 1
        error = refusal(Mcap(), in_file(tmp_path, bytes(broken), f"{name}.mcap"))
        assert name in error.why
        assert "checksum" in error.why


@pytest.mark.parametrize(
    ("records", "word"),
    [
        ([message(b"{}")], "unknown channel"),
        ([channel(), channel("other")], "otherwise than before"),
        ([record(4, struct.pack("<HH", 1, 5) + text("t") + text("json") + bytes(4))], "unknown schema"),
        ([channel(), message(b"{}", log=1 << 63)], "time"),
        ([record(5, bytes(3))], "message of 3 bytes"),
        ([record(0, b"")], "kind 0"),
        ([chunk(20, channel()[:20], "")], "claims"),
        ([chunk(9, b"123456789", "brotli")], "brotli"),
        ([struct.pack("<BQ", 5, 1 << 40)], "claims"),
        ([struct.pack("<BQ", 12, 1 << 40)], "claims"),
        ([record(12, text("n") + struct.pack("<I", 1 << 30))], "ends within"),
    ],
)
def test_records_that_lie_are_named(tmp_path: Path, records: list[bytes], word: str) -> None:
    error = refusal(Mcap(), in_file(tmp_path, mcap(*records)))
    assert word in error.why
    assert error.where


def test_a_file_that_was_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    raw = write_file(tmp_path / "whole.mcap", Run(2)).read_bytes()
    for length in range(8, len(raw), max(1, len(raw) // 60)):
        refusal(Mcap(), in_file(tmp_path, raw[:length], "cut.mcap"))


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_flipped_bytes_raise_anything_but_our_errors(tmp_path: Path, data: st.DataObject) -> None:
    whole = tmp_path / "whole.mcap"
    if not whole.exists():
        write_file(whole, Run(2), CompressionType.NONE, use_chunking=False)
        write_bag1(tmp_path / "whole.bag", Run(1))
    readers: dict[str, Converter] = {"whole.mcap": Mcap(), "whole.bag": Rosbag1()}
    name = data.draw(st.sampled_from(sorted(readers)))
    raw = bytearray((tmp_path / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(FormatError):
        read_all(readers[name], in_file(tmp_path, bytes(raw), f"flipped-{name}"))


def test_json_that_nests_without_end_is_no_crash(tmp_path: Path) -> None:
    path = in_file(tmp_path, mcap(channel(), message(b"[" * 200_000 + b"]" * 200_000)))
    assert list(Mcap().episodes(path)) == []


def test_damage_after_the_first_messages_names_the_topic_and_can_be_left_out(tmp_path: Path) -> None:
    many = [message(b'{"x": 1}', log=i) for i in range(5_000)]
    path = in_file(tmp_path, mcap(channel(), *many, message(b"not json", log=9_000)))
    error = refusal(Mcap(), path)
    assert error.where.startswith("t: message")
    assert list(Mcap(skip=("t",)).episodes(path)) == []


# Definitions and messages


def decoder(definition: str, *, cdr: bool = True) -> RosDecoder:
    dialect = "ros2" if cdr else "ros1"
    return RosDecoder(tree_of(parse_text(definition, "a/A"), "a/A", dialect), cdr=cdr)


def decode(definition: str, payload: bytes, *, cdr: bool = True) -> Any:
    one = np.array([0]), np.array([len(payload)])
    return decoder(definition, cdr=cdr).batch(payload, *one)


RULE = "=" * 80


@pytest.mark.parametrize(
    "definition",
    [
        "A again",
        f"B b\n{RULE}\nMSG: a/B\nA a",
        "Missing m",
        "uint8[99999999999999999999] x",
        "wstring w",
        f"int8 x\n{RULE}\nnot a message",
        "int8 x\nint8 x",
        "\n".join(f"int8 x{i}" for i in range(3_000)),
        "x" * 2_000_000,
        "exec(1)",
    ],
)
def test_definitions_that_cannot_be_are_refused(definition: str) -> None:
    with pytest.raises(DefinitionError):
        decoder(definition)


def test_types_that_double_at_each_level_are_counted_before_they_are_laid_out() -> None:
    levels = [f"{RULE}\nMSG: a/L{i}\nL{i + 1} p\nL{i + 1} q" for i in range(30)]
    definition = "L0 x\n" + "\n".join([*levels, f"{RULE}\nMSG: a/L30\nint8 x"])
    with pytest.raises(DefinitionError, match="leaves"):
        decoder(definition)


@pytest.mark.parametrize(
    ("definition", "body"),
    [
        ("float64[] x", struct.pack("<I", 0xFFFFFFFF)),
        ("string x", struct.pack("<I", 0x7FFFFFFF)),
        ("string[] x", struct.pack("<I", 1_000_000)),
        ("float64[1000000000] x", b""),
        (f"B[] x\n{RULE}\nMSG: a/B\nstring s", struct.pack("<I", 0x7FFFFFFF)),
        (
            f"B[] x\n{RULE}\nMSG: a/B\nB0[] s\n{RULE}\nMSG: a/B0\nint8[0] n",
            struct.pack("<I", 60_000) + b"\xff\0\0\0" * 60_000,
        ),
        ("int8 x", bytes(9)),
    ],
)
def test_messages_whose_lengths_lie_allocate_nothing(definition: str, body: bytes) -> None:
    with pytest.raises(UndecodableError):
        decode(definition, b"\0\1\0\0" + body)


def test_later_encodings_are_refused_by_name() -> None:
    for kind, word in {7: "XCDR2", 3: "parameter-list", 0x55: "no CDR"}.items():
        with pytest.raises(UndecodableError, match=word):
            decode("int8 x", bytes([0, kind, 0, 0, 1]))


@pytest.mark.parametrize(
    "idl",
    [
        "module a { module msg { struct A { a::msg::A again; }; }; };",
        "module a { module msg { union A switch(long) { case 1: long x; }; }; };",
        "module a { module msg { typedef X Y; typedef Y X; struct A { Y y; }; }; };",
        "module a { module msg { struct A { long x",
        "module a { module msg { struct A { map<long, long> x; }; }; };",
        "}" * 9,
        "struct B { long x; };",
    ],
)
def test_idl_that_cannot_be_is_refused(idl: str) -> None:
    with pytest.raises(DefinitionError):
        tree_of(parse_idl(idl, "a/msg/A"), "a/msg/A", "ros2")


# Bags of ROS 1


def test_a_bag_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    raw = write_bag1(tmp_path / "whole.bag", Run(1)).read_bytes()
    for length in range(20, len(raw), max(1, len(raw) // 60)):
        refusal(Rosbag1(), in_file(tmp_path, raw[:length], "cut.bag"))


# Bags of ROS 2


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    return write_bag2(tmp_path / "run", Run(2))


def rewritten(bag: Path, old: str, new: str) -> None:
    metadata = bag / "metadata.yaml"
    told = metadata.read_text()
    assert old in told
    metadata.write_text(told.replace(old, new))


@pytest.mark.parametrize("name", ["../outside.db3", "/etc/passwd", "a/../../outside.db3"])
def test_metadata_names_no_file_outside_of_its_folder(bag: Path, name: str) -> None:
    shutil.copy(bag / "run.db3", bag.parent / "outside.db3")
    rewritten(bag, "- run.db3", f"- {name}")
    assert "outside" in refusal(Rosbag2(), bag).why


def test_a_link_out_of_the_folder_is_not_followed(bag: Path) -> None:
    shutil.move(bag / "run.db3", bag.parent / "outside.db3")
    (bag / "run.db3").symlink_to(bag.parent / "outside.db3")
    assert "outside" in refusal(Rosbag2(), bag).why


@pytest.mark.parametrize(
    "yaml",
    [
        "a: &a [x, x]\nb: &b [*a, *a]\nrosbag2_bagfile_information: *b\n",
        "rosbag2_bagfile_information: " + "[" * 10_000 + "]" * 10_000,
        "rosbag2_bagfile_information: !!python/object/apply:os.system ['true']\n",
        "rosbag2_bagfile_information: {relative_file_paths: 7}\n",
        "rosbag2_bagfile_information: [",
        "rosbag2_bagfile_information: {compression_mode: FILE, compression_format: rot13}",
        "x: " + "y" * (1 << 23),
        "rosbag2_bagfile_information: \xff",
    ],
    ids=["aliases", "depth", "tag", "type", "syntax", "compression", "size", "latin"],
)
def test_metadata_is_plain_and_small(bag: Path, yaml: str) -> None:
    (bag / "metadata.yaml").write_bytes(yaml.encode("latin-1"))
    refusal(Rosbag2(), bag)


def with_schema(bag: Path, script: str) -> None:
    database = sqlite3.connect(bag / "run.db3")
    database.executescript(script)
    database.close()


@pytest.mark.parametrize(
    "script",
    [
        "ALTER TABLE messages RENAME TO hidden; CREATE VIEW messages AS SELECT * FROM hidden;",
        "ALTER TABLE topics RENAME TO hidden; CREATE VIEW topics AS SELECT * FROM hidden;",
        "CREATE TRIGGER t AFTER INSERT ON topics BEGIN DELETE FROM messages; END;",
        "DROP TABLE messages;",
        "DROP TABLE messages; CREATE VIRTUAL TABLE messages USING fts5(topic_id, timestamp, data);",
        "UPDATE messages SET topic_id = 99;",
        "UPDATE messages SET data = 'text';",
        "UPDATE messages SET timestamp = 'noon';",
        "DELETE FROM messages WHERE id % 2;",
        """DROP TABLE messages;
        CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id, timestamp, data AS (zeroblob(1000000000)));
        INSERT INTO messages VALUES (1, 1, 1);""",
    ],
)
def test_a_database_is_no_program(bag: Path, script: str) -> None:
    with_schema(bag, script)
    assert refusal(Rosbag2(), bag).where


def test_messages_in_a_journal_are_not_overlooked(bag: Path) -> None:
    (bag / "run.db3-wal").write_bytes(b"messages")
    assert "journal" in refusal(Rosbag2(), bag).why


def test_reading_leaves_a_bag_as_it_was(bag: Path) -> None:
    before = {file.name: file.read_bytes() for file in bag.iterdir()}
    read_all(Rosbag2(), bag)
    assert {file.name: file.read_bytes() for file in bag.iterdir()} == before


@pytest.mark.parametrize("mode", [CompressionMode.FILE, CompressionMode.MESSAGE])
def test_compressed_bags_that_are_damaged_are_refused(tmp_path: Path, mode: CompressionMode) -> None:
    bag = write_bag2(tmp_path / "run", Run(2), mode=mode)
    if mode is CompressionMode.FILE:
        raw = (bag / "run.db3.zstd").read_bytes()
        (bag / "run.db3.zstd").write_bytes(raw[: len(raw) // 2])
    else:
        with_schema(bag, "UPDATE messages SET data = x'28B52FFDA0000000FFFFFFFF' WHERE id = 9")
    refusal(Rosbag2(), bag)
