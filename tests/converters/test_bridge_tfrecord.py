"""What is special about BridgeData's TFRecords: whole arrays in one value, in folders told by their place."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from teleopen.converters import converter_for
from teleopen.converters.bridge_tfrecord import BridgeTfrecord
from teleopen.schemas import Episode, FormatError, problems_of

from tests.samples import bridge_tfrecord as sample
from tests.samples.rlds import example, field, of, record, texts, varint

MIB = 1 << 20


def read(path: Path, rate_hz: float | None = None) -> list[Episode]:
    episodes = list(BridgeTfrecord(rate_hz=rate_hz).episodes(path))
    for episode in episodes:
        assert problems_of(episode) == []
        for stream in episode.streams.values():
            for _ in stream:
                pass
    return episodes


def written(folder: Path, **changes: bytes) -> Path:
    """Write one trajectory, some of whose features are others; underscores stand for slashes."""
    part = sample.stored(sample.trajectory(np.random.default_rng(0), 6))
    part |= {key.replace("_", "/"): value for key, value in changes.items()}
    path = folder / "out.tfrecord"
    path.write_bytes(record(example(part)))
    return path


def test_the_action_means_what_bridges_means(tmp_path: Path) -> None:
    (episode,) = read(written(tmp_path))
    contract = episode.streams["action"].spec.contract
    assert contract is not None
    assert [part.space for part in contract.parts] == ["ee_position", "ee_orientation", "gripper"]
    assert {part.mode for part in contract.parts[:2]} == {"delta"}
    assert (contract.parts[2].gripper_closed, contract.parts[2].gripper_open) == (0.0, 1.0)
    assert contract.offset_steps == 0
    assert episode.streams["observation.state"].spec.axes[-1] == "gripper"


def test_every_annotation_is_an_instruction_and_an_empty_one_is_none(tmp_path: Path) -> None:
    (episode,) = read(written(tmp_path, language=texts([sample.words("", "lift it")])))
    assert episode.instructions == ("lift it",)
    assert episode.extra["texts"]["language"] == ["", "lift it"]


def test_the_rate_may_be_told(tmp_path: Path) -> None:
    (episode,) = read(written(tmp_path), rate_hz=10)
    assert episode.clocks["steps"].declared_hz == 10
    assert episode.clocks["steps"].source == "option rate_hz"


def test_a_file_alone_is_read_and_claimed(tmp_path: Path) -> None:
    path = written(tmp_path)
    assert converter_for(path).format.name == "bridge-tfrecord"
    assert read(path)[0].provenance.sources[0].uri == "out.tfrecord"


def test_other_records_are_not_claimed(tmp_path: Path) -> None:
    path = tmp_path / "out.tfrecord"
    path.write_bytes(record(example({"actions": texts([b""])})))
    assert not BridgeTfrecord().probe(path)
    assert not BridgeTfrecord().probe(tmp_path)


def shaped(*extents: int) -> bytes:
    return texts([sample.proto(1, extents) + field(4, bytes(8))])


HOSTILE: dict[str, tuple[bytes, str]] = {
    "no tensor": (of(np.zeros(3)), "no tensor"),
    "two tensors": (texts([b"", b""]), "no tensor"),
    "10^18 rows": (shaped(10**9, 10**9), "holds 8"),
    "an extent of 2^63": (shaped(1 << 63), "is none"),
    "a negative extent": (shaped(-1), "is none"),
    "too many dimensions": (shaped(*[1] * 9), "is none"),
    "another length": (shaped(2), "there are 6 actions"),
    "an unknown type": (texts([sample.proto(21, (6,)) + field(4, bytes(6))]), "type 21"),
    "no bool": (texts([sample.proto(10, (6,)) + field(4, b"\2" * 6)]), "no bool"),
    "texts that are missing": (texts([sample.proto(7, (3,))]), "holds 0 texts"),
    "no text": (texts([sample.proto(7, (1,)) + field(8, b"\xff")]), "no UTF-8"),
    "a field that lies": (texts([varint(4 << 3 | 2) + varint(1 << 50)]), "claims"),
    "numbers one by one": (texts([sample.proto(1, (1,)) + field(5, bytes(4))]), "holds 0"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_tensors_that_contradict_themselves_are_refused(name: str, tmp_path: Path) -> None:
    value, why = HOSTILE[name]
    with pytest.raises(FormatError, match=why) as caught:
        read(written(tmp_path, terminals=value))
    assert "terminals" in caught.value.where


def test_a_tensor_is_read_a_block_at_a_time(tmp_path: Path, peak_memory: Callable[..., int]) -> None:
    array = np.zeros((6, 8, MIB), np.uint8)
    path = written(tmp_path, extra_array=texts([sample.tensor(array)]))
    assert peak_memory(read, path) < 40 * MIB


def test_real_values_are_the_bytes_of_the_tensors(shared_data: Path) -> None:
    root = shared_data / "bridge_raw/bridgedata_tfrecord"
    assert converter_for(root).format.name == "bridge-tfrecord"
    train, val = read(root)
    assert train.instructions == ("pick up the cube", "grab the block")
    assert [e.clocks["steps"].length for e in (train, val)] == [21, 21]
    data = root.joinpath(train.provenance.sources[0].uri).read_bytes()
    for name, stream in train.streams.items():
        assert data.count(stream.values().tobytes()), name
    np.testing.assert_array_equal(
        train.streams["observation.images.images0"].values()[1:],
        train.streams["extra.next_observations.images0"].values()[:-1],
    )
