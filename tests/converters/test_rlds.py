"""What is special about RLDS: an episode in one message, features told as data, rates that nobody stored."""

import hashlib
import io
import json
import shutil
import struct
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from teleopen.converters import _tfds, _tfrecord
from teleopen.converters._oxe import table
from teleopen.converters._tfrecord import Record, example_of, masked_crc, records_of
from teleopen.converters.rlds import Rlds
from teleopen.schemas import Episode, FormatError, problems_of

from tests.samples import rlds as sample
from tests.samples.rlds import example, field, of, record, shard_name, texts, varint

MIB = 1 << 20


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sample.write(tmp_path_factory.mktemp("rlds")).path


@pytest.fixture
def root(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "dataset"))


def read(root: Path, **options: Any) -> list[Episode]:
    episodes = list(Rlds(**options).episodes(root))
    for episode in episodes:
        assert problems_of(episode) == []
    return episodes


def read_through(root: Path, **options: Any) -> None:
    for episode in read(root, **options):
        for stream in episode.streams.values():
            for _ in stream:
                pass


def edit(root: Path, name: str, change: Callable[[dict[str, Any]], Any]) -> None:
    document = json.loads(root.joinpath(name).read_text())
    change(document)
    root.joinpath(name).write_text(json.dumps(document))


def fates(episode: Episode) -> dict[str, tuple[str, str]]:
    return {fate.field: (fate.fate, fate.how) for fate in episode.provenance.ledger}


def small(folder: Path, steps: Mapping[str, tuple[dict[str, Any], bytes]], **info: Any) -> Path:
    """Write a dataset of one episode with these features of its steps."""
    flat = {f"steps/{key}": feature for key, (feature, _) in steps.items()}
    inner = sample.dictionary({key.removeprefix("steps/"): feature for key, feature in flat.items()})
    document = sample.dictionary({"steps": sample.sequence(inner)})
    told = {f"steps/{key}": value for key, (_, value) in steps.items()}
    return raw(folder, example(told), document, **info)


def raw(folder: Path, data: bytes, features: dict[str, Any] | None = None, **info: Any) -> Path:
    folder.mkdir(exist_ok=True)
    told = {"name": "x", "version": "1.0.0", "splits": []} | info
    folder.joinpath("dataset_info.json").write_text(json.dumps(told))
    features = features or sample.dictionary({"steps": sample.sequence(sample.dictionary(FIRST))})
    folder.joinpath("features.json").write_text(json.dumps(features))
    folder.joinpath("x-train.tfrecord-00000-of-00001").write_bytes(record(data))
    return folder


FIRST = {"is_first": sample.tensor("bool")}
IS_FIRST = (sample.tensor("bool"), of(np.array([True, False, False])))


# Rate and meaning


def test_the_rate_is_from_the_table_or_the_option_or_the_dataset_is_refused(root: Path) -> None:
    assert read(root)[0].clocks["steps"].declared_hz == 15
    assert "any4lerobot" in read(root)[0].clocks["steps"].source
    assert read(root, rate_hz=7.5)[0].clocks["steps"].declared_hz == 7.5
    edit(root, "dataset_info.json", lambda info: info.update(name="nobody_knows"))
    with pytest.raises(FormatError, match="rate_hz"):
        read(root)
    assert read(root, dataset="bridge_dataset")[0].clocks["steps"].declared_hz == 5


def test_droids_commands_are_streams_of_their_own_with_contracts(root: Path) -> None:
    streams = read(root)[0].streams
    pose = streams["action.cartesian_position"].spec.contract
    gripper = streams["action.gripper_position"].spec.contract
    assert pose is not None
    assert gripper is not None
    assert [(p.space, p.mode, p.rotation) for p in pose.parts] == [("ee_pose", "absolute", "euler_xyz")]
    assert (gripper.parts[0].gripper_closed, gripper.parts[0].gripper_open) == (1.0, 0.0)
    assert pose.offset_steps == 0
    assert "droid" in pose.evidence
    action = streams["action"].spec.contract
    assert action is not None
    assert action.parts == ()
    assert streams["action"].spec.description == "Robot action, consists of [7x joint velocities]."


def test_the_three_instructions_are_told_each_under_its_own_name(root: Path) -> None:
    episode = read(root)[0]
    assert episode.instructions == sample.INSTRUCTIONS
    assert episode.extra["texts"] == {
        "steps/language_instruction": sample.INSTRUCTIONS[0],
        "steps/language_instruction_2": sample.INSTRUCTIONS[1],
        "steps/language_instruction_3": "",
    }


def test_texts_that_change_are_events(root: Path) -> None:
    episode = read(root)[0]
    assert [(e.kind, e.text) for e in episode.events] == [("phase", "reach"), ("phase", "grasp")]
    assert episode.events[1].start_ns == episode.clocks["steps"].read()[sample.LENGTHS[0] // 2]


def test_every_entry_of_the_table_is_sound() -> None:
    entries = table()
    assert len(entries) > 60
    for name, entry in entries.items():
        assert entry.rate_hz is None or (0.1 <= entry.rate_hz <= 100 and entry.rate_source), name
        for key, parts in entry.parts.items():
            assert key.split("/")[0] in {"action", "action_dict"}, name
            ends = [0, *(part.stop for part in parts)]
            assert all(0 <= end <= part.start < part.stop for end, part in zip(ends, parts, strict=False)), (
                name
            )
        assert not entry.parts or entry.evidence, name
        assert not entry.features or entry.evidence, name


def test_parts_that_do_not_fit_the_action_are_not_declared(tmp_path: Path) -> None:
    steps = {"is_first": IS_FIRST, "action": (sample.tensor("float32", 2), of(np.zeros((3, 2), np.float32)))}
    (episode,) = read(small(tmp_path / "x", steps, name="bridge_dataset"))
    contract = episode.streams["action"].spec.contract
    assert contract is not None
    assert contract.parts == ()
    assert any("action has 2 axes" in warning for warning in episode.provenance.warnings)
    assert any("all zeros" in warning for warning in episode.provenance.warnings)


def test_blue_first_is_recorded_and_pixels_stay_as_stored(tmp_path: Path) -> None:
    pictures = np.random.default_rng(1).integers(0, 255, (3, 24, 32, 3), np.uint8)
    stored = texts([sample.encoded(picture, "PNG") for picture in pictures])
    steps = {"is_first": IS_FIRST, "observation/hand_image": (sample.image("uint8", 3, "png"), stored)}
    (episode,) = read(small(tmp_path / "x", steps, name="berkeley_autolab_ur5"))
    stream = episode.streams["observation.images.hand_image"]
    assert stream.spec.attributes["stored_order"] == "bgr"
    np.testing.assert_array_equal(stream.values(), pictures)


def test_language_tables_characters_become_text(tmp_path: Path) -> None:
    text = "push the “red” star"
    row = np.zeros(64, np.int32)
    row[: len(text)] = [ord(c) for c in text]
    steps = {
        "is_first": IS_FIRST,
        "observation/instruction": (sample.tensor("int32", 64), of(np.tile(row, (3, 1)))),
    }
    (episode,) = read(small(tmp_path / "x", steps, name="language_table"))
    assert episode.instructions == (text,)
    row[50] = 1  # behind the end: no text any more
    steps["observation/instruction"] = (sample.tensor("int32", 64), of(np.tile(row, (3, 1))))
    (episode,) = read(small(tmp_path / "y", steps, name="language_table"))
    np.testing.assert_array_equal(episode.streams["observation.instruction"].values()[0], row)


def kuka(folder: Path, states: list[bytes]) -> Path:
    key = "observation/clip_function_input/base_pose_tool_reached"
    return small(folder, {"is_first": IS_FIRST, key: (sample.tensor("string"), texts(states))}, name="kuka")


def test_kukas_compressed_state_is_inflated(tmp_path: Path) -> None:
    poses = np.random.default_rng(2).normal(size=(3, 7)).astype(np.float32)
    (episode,) = read(kuka(tmp_path / "x", [zlib.compress(pose.tobytes()) for pose in poses]))
    stream = episode.streams["observation.clip_function_input.base_pose_tool_reached"]
    np.testing.assert_array_equal(stream.values(), poses)


def test_a_zlib_bomb_is_not_inflated(tmp_path: Path, peak_memory: Callable[..., int]) -> None:
    bomb = zlib.compress(bytes(256 * MIB))
    path = kuka(tmp_path / "x", [bomb] * 3)
    assert peak_memory(not_inflated, path) < 32 * MIB


def not_inflated(path: Path) -> None:
    with pytest.raises(FormatError, match="does not inflate to 28 bytes"):
        read_through(path)


def test_bytes_that_are_no_text_are_kept_as_they_are(tmp_path: Path) -> None:
    same, other = [b"\xff\x00", b"\xfe\x01", b"\xfd\x02"], [b"\xff", b"\xfe\x01", b""]
    steps = {
        "is_first": IS_FIRST,
        "a": (sample.tensor("string"), texts(same)),
        "b": (sample.tensor("string"), texts(other)),
    }
    (episode,) = read(small(tmp_path / "x", steps), rate_hz=1)
    assert episode.streams["extra.a"].values().tobytes() == b"".join(same)
    assert episode.extra["base64"]["steps/b"] == ["/w==", "/gE=", ""]


def test_features_of_changing_length_become_lists(root: Path) -> None:
    for episode, length in zip(read(root), sample.LENGTHS, strict=True):
        rows = episode.extra["ragged"]["steps/observation/contacts"]
        assert len(rows) == length
        assert len({len(row) for row in rows}) > 1


def test_what_is_told_of_the_episode_is_kept(root: Path) -> None:
    episode = read(root)[2]
    assert episode.extra["episode"]["episode_metadata/building"] == "Übungsraum"
    assert episode.extra["episode"]["episode_metadata/success"] is True
    assert episode.extra["episode"]["episode_metadata/intrinsics"][:4] == [1.0, 0.0, 0.0, 0.0]
    assert episode.provenance.evidence["dataset_info.json/redistributionInfo/license"] == "CC-BY-4.0"
    assert episode.provenance.selector == "split=val shard=0 record=0"


def test_python_classes_are_named_and_never_imported(root: Path) -> None:
    before = set(sys.modules)
    edit(root, "features.json", lambda told: told.update(pythonClassName="antigravity.Feature"))
    fate, how = fates(read(root)[0])["steps/mystery"]
    assert fate == "dropped"
    assert "os.system" in how
    assert "antigravity" not in set(sys.modules) - before


def test_absent_shards_are_told(root: Path) -> None:
    root.joinpath(shard_name("train", 1)).unlink()
    first, last = read(root)
    assert first.provenance.warnings == (
        "1 of 2 files of the split 'train' are absent",
        *table()["droid"].quirks,
    )
    assert not [w for w in last.provenance.warnings if "absent" in w]


def test_one_split_alone_may_be_read(root: Path) -> None:
    assert [e.provenance.selector for e in read(root, split="val")] == ["split=val shard=0 record=0"]
    with pytest.raises(FormatError, match="no split 'test'"):
        read(root, split="test")


def test_other_file_formats_of_tfds_are_refused_by_name(root: Path) -> None:
    edit(root, "dataset_info.json", lambda info: info.update(fileFormat="array_record"))
    assert Rlds().probe(root)
    with pytest.raises(FormatError, match=r"array_record.*TFRecord"):
        read(root)


# Messages


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("messages")


@given(st.lists(st.integers(-(1 << 63), (1 << 63) - 1), max_size=50), st.integers(0, 50), st.integers(0, 50))
def test_packed_integers_are_read_by_range(folder: Path, values: list[int], start: int, stop: int) -> None:
    path, data = folder / "x.tfrecord", example({"x": of(np.array(values, np.int64))})
    path.write_bytes(record(data))
    found = example_of(Record(path, 0, 12, len(data)))["x"]
    start, stop = sorted((min(start, len(values)), min(stop, len(values))))
    assert found.count == len(values)
    assert found.numbers(start, stop).tolist() == values[start:stop]


def test_integers_that_cross_chunks_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tfrecord, "_CHUNK", 16)
    values = np.random.default_rng(3).integers(-(1 << 62), 1 << 62, 200) >> np.arange(200) % 63
    path = tmp_path / "x.tfrecord"
    path.write_bytes(record(example({"x": of(values)})))
    found = example_of(records_of(path)[0])["x"]
    for start in range(0, 200, 7):
        for stop in (start, start + 1, 200):
            np.testing.assert_array_equal(found.numbers(start, stop), values[start:stop])


def test_numbers_may_be_stored_one_by_one(tmp_path: Path) -> None:
    floats = b"".join(varint(1 << 3 | 5) + struct.pack("<f", value) for value in (1.5, -2.0))
    integers = b"".join(varint(1 << 3 | 0) + varint(value) for value in (7, -1))
    data = example({"f": field(2, floats), "i": field(3, integers)})
    path = tmp_path / "x.tfrecord"
    path.write_bytes(record(data))
    found = example_of(records_of(path)[0])
    assert found["f"].numbers(0, 2).tolist() == [1.5, -2.0]
    assert found["i"].numbers(0, 2).tolist() == [7, -1]


def test_unknown_fields_are_skipped_and_nesting_costs_nothing(tmp_path: Path) -> None:
    nested = b""
    for _ in range(20_000):
        nested = field(1, nested)
    unknown = field(9, nested) + varint(10 << 3 | 1) + bytes(8) + varint(11 << 3) + varint(5)
    path = tmp_path / "x.tfrecord"
    path.write_bytes(record(unknown + example({"x": of(np.array([1]))})))
    assert example_of(records_of(path)[0])["x"].numbers(0, 1).tolist() == [1]


def test_the_mask_is_that_of_tensorflow() -> None:
    # tensorflow/core/lib/hash/crc32c_test.cc: the CRC of 32 zero bytes; the mask by its definition.
    assert masked_crc(0x8A9136AA) == (((0x8A9136AA >> 15) | (0x8A9136AA << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def test_a_long_episode_is_read_in_bounded_memory(tmp_path: Path, peak_memory: Callable[..., int]) -> None:
    rows = 64
    steps = {
        "is_first": (sample.tensor("bool"), of(np.arange(rows) == 0)),
        "observation/cloud": (
            sample.tensor("float32", 1 << 18),
            field(2, field(1, bytes(rows << 20))),
        ),
        "observation/depth": (sample.tensor("uint16", 256, 256), field(3, field(1, b"\x05" * (rows << 16)))),
    }
    path = small(tmp_path / "x", steps)
    warm = peak_memory(read_through, path, rate_hz=1)
    assert warm < 64 * MIB


# What is refused


def bomb_png() -> bytes:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + header + bytes(400)


def lengths(*values: int) -> dict[str, bytes]:
    return {
        "steps/is_first": IS_FIRST[1],
        "steps/r/ragged_flat_values": of(np.arange(5)),
        "steps/r/ragged_row_lengths_0": of(np.array(values)),
    }


RAGGED = sample.dictionary(
    {"steps": sample.sequence(sample.dictionary(FIRST | {"r": sample.sequence(sample.tensor("int64"))}))}
)


def framed(length: int, *, honest: bool) -> bytes:
    head = struct.pack("<Q", length)
    return head + (sample.masked(head) if honest else bytes(4)) + b"data"


MESSAGES: dict[str, tuple[bytes, str]] = {
    "a field longer than its message": (varint(1 << 3 | 2) + varint(1 << 63) + b"x", "claims"),
    "a number without end": (b"\xff" * 30, "does not end"),
    "a group": (varint(1 << 3 | 3), "wire type 3"),
    "a name twice": (
        field(1, field(1, field(1, b"x") + field(2, b"")) * 2),
        "is there twice",
    ),
    "a name of a megabyte": (example({"x" * MIB: b""}), "name"),
    "a name that is no text": (field(1, field(1, field(1, b"\xff"))), "UTF-8"),
    "no name": (field(1, field(1, field(2, b""))), "no name"),
    "two lists": (example({"x": texts([b""]) + of(np.zeros(1))}), "two lists"),
    "half a float": (example({"x": field(2, field(1, b"abc"))}), "float32"),
    "half an integer": (example({"x": field(3, field(1, b"\x80"))}), "does not end"),
    "an integer of 11 bytes": (
        example({"steps/is_first": field(3, field(1, b"\x80" * 10 + b"\1" + b"\1\1"))}),
        "10 bytes",
    ),
    "numbers in a list of bytes": (example({"x": field(1, varint(1 << 3) + b"\1")}), "list of bytes"),
    "runs of numbers": (example({"x": field(3, field(1, b"\1") * 2)}), "more than one way"),
    "no steps": (example({"steps/is_first": of(np.zeros(0, np.int64))}), "no steps"),
    "no features": (b"", "no steps"),
    "another form": (example({"steps/is_first": of(np.zeros(3))}), "declares bool"),
    "no bool": (example({"steps/is_first": of(np.array([0, 2, 0]))}), "no bool"),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_messages_that_contradict_themselves_are_refused(name: str, tmp_path: Path) -> None:
    data, why = MESSAGES[name]
    with pytest.raises(FormatError, match=why) as caught:
        read_through(raw(tmp_path / "x", data), rate_hz=1)
    assert caught.value.where.startswith("record 0"), caught.value


STEPS: dict[str, tuple[dict[str, tuple[dict[str, Any], bytes]], str]] = {
    "rows of two lengths": ({"x": (sample.tensor("int64"), of(np.arange(2)))}, "for 2 steps, but"),
    "half a sample": ({"x": (sample.tensor("int64", 2), of(np.arange(5)))}, "no samples of"),
    "a PNG bomb": ({"x": (sample.image("uint8", 3, "png"), texts([bomb_png()] * 3))}, "60000×60000"),
    "no picture": ({"x": (sample.image("uint8", 3, "png"), texts(["GIF89a"] * 3))}, "neither JPEG nor PNG"),
    "no float picture": (
        {
            "x": (
                sample.image("float32", 1, "png"),
                texts([sample.encoded(np.zeros((9, 9), np.uint8), "PNG")] * 3),
            )
        },
        "float32 is made into",
    ),
    "no zlib": ({"x": (sample.tensor("int64", encoding="zlib"), texts(["no zlib"] * 3))}, "no zlib data"),
    "short bytes": ({"x": (sample.tensor("int64", encoding="bytes"), texts(["x"] * 3))}, "are no int64"),
    "an integer too large": ({"x": (sample.tensor("uint8"), of(np.array([1, 256, 3])))}, "no uint8"),
    "shapes are absent": (
        {
            "x": (sample.tensor("int64", -1, -1, encoding="zlib"), b""),
            "x/value": (sample.TEXT, texts([b""] * 3)),
        },
        "shapes of its tensors",
    ),
}


@pytest.mark.parametrize("name", STEPS)
def test_features_that_contradict_features_json_are_refused(name: str, tmp_path: Path) -> None:
    features, why = STEPS[name]
    steps = {"is_first": IS_FIRST, **features}
    stored = {f"steps/{key}": value for key, (_, value) in steps.items() if value}
    declared = {key: feature for key, (feature, _) in steps.items() if "/" not in key}
    document = sample.dictionary({"steps": sample.sequence(sample.dictionary(declared))})
    with pytest.raises(FormatError, match=why):
        read_through(raw(tmp_path / "x", example(stored), document), rate_hz=1)


@pytest.mark.parametrize("rows", [(1, 2, 3), (1, 2), (5, 5, -5), (1 << 62, 1 << 62, 5), (2, 2, 0)])
def test_row_lengths_that_do_not_add_up_are_refused(rows: tuple[int, ...], tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"row lengths|for 2 steps"):
        read(raw(tmp_path / "x", example(lengths(*rows)), RAGGED), rate_hz=1)
    read(raw(tmp_path / "y", example(lengths(1, 0, 4)), RAGGED), rate_hz=1)


@pytest.mark.parametrize("length", [5, 1 << 40, 1 << 63, (1 << 64) - 1])
def test_lengths_of_records_that_lie_are_refused(length: int, root: Path) -> None:
    shard = root / shard_name("train", 0)
    shard.write_bytes(shard.read_bytes() + framed(length, honest=True))
    with pytest.raises(FormatError, match="more than the file has left") as caught:
        read(root)
    assert caught.value.where == "record 1"
    shard.write_bytes(framed(length, honest=False))
    with pytest.raises(FormatError, match="checksum of the record's length"):
        read(root)
    shard.write_bytes(b"abc")
    with pytest.raises(FormatError, match="record's head"):
        read(root)


def test_a_record_with_a_wrong_checksum_is_refused(root: Path) -> None:
    shard = root / shard_name("val", 0)
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    with pytest.raises(FormatError, match="checksum of the data"):
        read(root, split="val")


def test_a_shard_of_more_records_than_announced_is_refused(root: Path) -> None:
    shard = root / shard_name("val", 0)
    shard.write_bytes(shard.read_bytes() * 2)
    with pytest.raises(FormatError, match=r"holds 2 records, but dataset_info\.json tells of 1"):
        read(root)


def shape(value: Any) -> dict[str, Any]:
    told = sample.tensor("int64")
    told["tensor"]["shape"] = value
    return told


def deep(levels: int) -> dict[str, Any]:
    told: dict[str, Any] = sample.tensor("int64")
    for _ in range(levels):
        told = sample.sequence(told)
    return told


FEATURES: dict[str, tuple[dict[str, Any], str]] = {
    "no dictionary": ({"pythonClassName": "x"}, "no dictionary"),
    "the old form": ({"type": "x", "content": {}}, "4.5"),
    "a shape of words": (sample.dictionary({"steps": shape({"dimensions": ["x"]})}), "no shape"),
    "a shape of a text": (sample.dictionary({"steps": shape({"dimensions": "9"})}), "no shape"),
    "a shape without end": (sample.dictionary({"steps": shape({"dimensions": ["1"] * 99})}), "no shape"),
    "a shape of 10^24": (sample.dictionary({"steps": shape({"dimensions": ["9" * 12] * 2})}), "no shape of"),
    "a pit": (sample.dictionary({"steps": deep(20)}), "levels"),
    "an unknown encoding": (
        sample.dictionary({"steps": sample.tensor("int64", encoding="lzma")}),
        "'lzma' is unknown",
    ),
    "no feature": (
        sample.dictionary({"steps": {"pythonClassName": "x", "sequence": {"feature": 1}}}),
        "no feature",
    ),
}


@pytest.mark.parametrize("name", FEATURES)
def test_descriptions_that_are_hostile_are_refused(name: str, tmp_path: Path) -> None:
    document, why = FEATURES[name]
    path = raw(tmp_path / "x", b"", document)
    assert not Rlds().probe(path)
    with pytest.raises(FormatError, match=why) as caught:
        read(path, rate_hz=1)
    assert caught.value.path.endswith("features.json")


def test_a_link_out_of_the_dataset_is_refused(root: Path) -> None:
    shard = root / shard_name("val", 0)
    shard.rename(root.parent / "outside")
    shard.symlink_to(root.parent / "outside")
    with pytest.raises(FormatError, match="outside of the recording"):
        read(root)


def test_a_record_of_too_many_values_is_refused_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_tfrecord, "MAX_VALUES", 1_000)
    path = raw(tmp_path / "x", example({"a": texts([b""] * 600), "b": texts([b""] * 600)}))
    with pytest.raises(FormatError, match="more than 1,000 values"):
        read(path, rate_hz=1)


# Real recordings


REAL = {
    # SHA-256 of all numbers and PNG pictures as tensorflow-datasets 4.9.10 with TensorFlow 2.21 gives them.
    "droid_like_sample/1.0.1": ([50, 40], "1a03be2f8ad1bab755907f47e9354758109fbdf4bc8997aa8b99cf34a1066a56"),
    "octo_bridge_debug/bridge_dataset/1.0.0": (
        [10] * 50,
        "e60fd5adb594531e634aaf2ac4d8caf59349ad5eff955e26ad78f8b7e2c40e99",
    ),
    "rlds_dataset_builder_example/1.0.0": (
        None,
        "9ce10beed146abd1ee9d9796ba4995f89b9b1a892d8ccae02368964bbb3be054",
    ),
}


def by_key(episodes: list[Episode]) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield the arrays of all streams but JPEG's, by split, number in the split, and feature."""
    numbers: dict[str, int] = {}
    for episode in episodes:
        split = episode.provenance.selector.split()[0].partition("=")[2]
        number = numbers[split] = numbers.get(split, -1) + 1
        for fate in episode.provenance.ledger:
            name = fate.to[0] if fate.to else ""
            stream = episode.streams.get(name)
            if stream and fate.field.startswith("steps/") and "JPEG" not in fate.how:
                yield f"{split}|{number}|{fate.field.removeprefix('steps/')}", stream.values()


@pytest.mark.parametrize("name", REAL)
def test_real_values_are_those_that_tensorflow_datasets_gives(name: str, shared_data: Path) -> None:
    told_lengths, digest = REAL[name]
    episodes = read(shared_data / "rlds" / name, rate_hz=5)
    if told_lengths is not None:
        assert [e.clocks["steps"].length for e in episodes] == told_lengths
    found = hashlib.sha256()
    arrays = dict(by_key(episodes))
    for key in sorted(arrays):
        found.update(f"{key}|{arrays[key].dtype.name}".encode() + np.ascontiguousarray(arrays[key]).tobytes())
    assert found.hexdigest() == digest


@pytest.mark.parametrize("name", list(REAL)[:2])
def test_real_jpegs_are_decoded_as_libjpeg_does(name: str, shared_data: Path) -> None:
    root = shared_data / "rlds" / name
    episode = next(Rlds(rate_hz=5).episodes(root))
    data = root.joinpath(episode.provenance.sources[0].uri).read_bytes()
    cameras = [f for f in episode.provenance.ledger if "JPEG" in f.how]
    assert cameras
    for fate in cameras:
        values = example_of(records_of(root / episode.provenance.sources[0].uri)[0])[fate.field]
        for i, picture in enumerate(episode.streams[fate.to[0]].values()):
            at, size = int(values.offsets[i]), int(values.sizes[i])
            told = np.asarray(Image.open(io.BytesIO(data[at : at + size])))
            np.testing.assert_array_equal(picture, told)


def test_other_datasets_of_tfds_are_not_claimed(tmp_path: Path) -> None:
    other = raw(tmp_path / "x", b"", sample.dictionary({"image": sample.image("uint8", 3, "png")}))
    assert not Rlds().probe(other)
    assert _tfds.features_of(other, sample.dictionary({"a": sample.TEXT}))[0].kind == "text"


def test_a_record_is_where_it_says(written: Path) -> None:
    path = written / shard_name("train", 0)
    assert records_of(path) == (Record(path, 0, 12, path.stat().st_size - 16),)
