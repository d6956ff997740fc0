"""Pictures in messages: every encoding as its specification says, against pictures made here."""

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mcap.writer import Writer
from numpy.typing import NDArray
from PIL import Image
from teleopen.converters._ros_pictures import swapped
from teleopen.converters.mcap import Mcap
from teleopen.schemas import Episode, FormatError, Stream

from tests.samples._ros import START, Run

H, W = 4, 6
RANDOM = np.random.default_rng(3)
RGB = RANDOM.integers(0, 255, (2, H, W, 3), dtype=np.uint8)
DEEP = RANDOM.integers(0, 60_000, (2, H, W), dtype=np.uint16)


def write(path: Path, kind: str, messages: list[dict[str, Any]], topic: str = "/cam") -> Path:
    run = Run(2)
    with path.open("wb") as file:
        writer: Any = Writer(file)
        writer.start()
        schema = writer.register_schema(kind, "ros2msg", run.definition(kind).encode())
        channel = writer.register_channel(topic, "cdr", schema)
        for i, fields in enumerate(messages):
            message = run.of(kind, header=run.header(START + i, "optical"), **fields)
            writer.add_message(channel, START + i, bytes(run.store.serialize_cdr(message, kind)), START + i)
        writer.finish()
    return path


def raw(
    encoding: str, pictures: NDArray[Any], *, padding: int = 0, big: int = 0, height: int = H
) -> list[dict[str, Any]]:
    told = []
    for picture in pictures:
        rows = np.frombuffer(picture.tobytes(), np.uint8).reshape(height, -1)
        rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=77)
        told.append({
            "height": height, "width": W, "encoding": encoding, "is_bigendian": big, "step": rows.shape[1],
            "data": rows.reshape(-1),
        })  # fmt: skip
    return told


def only(path: Path) -> Episode:
    (episode,) = Mcap().episodes(path)
    return episode


def read_raw(folder: Path, topic: str = "/cam", **options: Any) -> Stream:
    path = write(folder / "a.mcap", "sensor_msgs/msg/Image", raw(**options), topic)
    streams = only(path).streams
    (found,) = (stream for name, stream in streams.items() if not name.endswith("log_time"))
    return found


ALPHA = np.full((2, H, W, 1), 200, np.uint8)


@pytest.mark.parametrize(
    ("encoding", "stored", "shown"),
    [
        ("rgb8", RGB, RGB),
        ("bgr8", RGB[..., ::-1], RGB),
        ("rgba8", np.concatenate([RGB, ALPHA], axis=3), RGB),
        ("bgra8", np.concatenate([RGB[..., ::-1], ALPHA], axis=3), RGB),
        ("mono8", RGB[..., 0], RGB[..., :1]),
    ],
)
def test_pictures_are_red_first_however_they_are_stored(
    tmp_path: Path, encoding: str, stored: NDArray[Any], shown: NDArray[Any]
) -> None:
    stream = read_raw(tmp_path, encoding=encoding, pictures=np.ascontiguousarray(stored), padding=5)
    assert (stream.spec.name, stream.spec.kind) == ("observation.images.cam", "video")
    np.testing.assert_array_equal(stream.values(), shown)
    assert stream.spec.frame == "optical"


@pytest.mark.parametrize(
    ("encoding", "values", "topic", "unit"),
    [
        ("16UC1", DEEP, "/depth/image", "mm"),
        ("16UC1", DEEP, "/infrared", "unknown"),
        ("mono16", DEEP, "/depth/image", "unknown"),
        ("32FC1", DEEP.astype(np.float32) / 7, "/depth/image", "m"),
    ],
)
@pytest.mark.parametrize("big", [0, 1])
def test_depth_keeps_its_numbers_in_either_byte_order(
    tmp_path: Path, encoding: str, values: NDArray[Any], topic: str, unit: str, big: int
) -> None:
    stored = values.astype(values.dtype.newbyteorder(">")) if big else values
    stream = read_raw(tmp_path, topic, encoding=encoding, pictures=stored, big=big, padding=2)
    assert (stream.spec.kind, stream.spec.unit) == ("depth", (unit,))
    np.testing.assert_array_equal(stream.values(), values)


@pytest.mark.parametrize(("encoding", "luma_first"), [("yuv422", False), ("yuv422_yuy2", True)])
def test_packed_yuv_becomes_rgb_by_bt601(tmp_path: Path, encoding: str, luma_first: bool) -> None:
    y, u, v = (np.full((1, H, W), value) for value in (120, 90, 160))
    chroma = np.where(np.arange(W) % 2 == 0, u, v)
    stored = np.stack([y, chroma] if luma_first else [chroma, y], axis=3).astype(np.uint8)
    # ITU-R BT.601, limited range.
    light, blue, red = 1.164 * (y - 16), u - 128, v - 128
    rgb = np.stack([light + 1.596 * red, light - 0.813 * red - 0.392 * blue, light + 2.017 * blue], axis=3)
    shown = read_raw(tmp_path, encoding=encoding, pictures=stored).values()
    assert float(np.abs(shown - rgb).max()) < 3


@pytest.mark.parametrize(
    ("encoding", "values"),
    [("bayer_rggb8", RGB[..., 0]), ("16SC2", DEEP.astype(np.int16)[..., None].repeat(2, 3))],
)
def test_numbers_whose_colours_are_not_told_stay_numbers(
    tmp_path: Path, encoding: str, values: NDArray[Any]
) -> None:
    stream = read_raw(tmp_path, encoding=encoding, pictures=np.ascontiguousarray(values))
    assert (stream.spec.name, stream.spec.kind) == ("extra.cam", "low_dim")
    np.testing.assert_array_equal(stream.values(), values)


def fate_of(messages: list[dict[str, Any]], folder: Path) -> Any:
    episode = only(write(folder / "a.mcap", "sensor_msgs/msg/Image", messages))
    (fate,) = (f for f in episode.provenance.ledger if f.field == "/cam:data")
    return fate


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"encoding": "nv21"}, "nv21"),
        ({"encoding": "64UC1"}, "64UC1"),
        ({"height": 1 << 20, "width": 1 << 20}, "not read"),
        ({"step": 3}, "3 bytes"),
        ({"data": np.zeros(5, np.uint8)}, "fewer"),
    ],
)
def test_pictures_that_cannot_be_are_dropped_by_name(
    tmp_path: Path, change: dict[str, Any], word: str
) -> None:
    fate = fate_of([message | change for message in raw("rgb8", RGB)], tmp_path)
    assert (fate.fate, word in fate.how) == ("dropped", True)


def test_pictures_of_two_sizes_are_no_stream(tmp_path: Path) -> None:
    fate = fate_of([*raw("rgb8", RGB), *raw("rgb8", RGB[:, :2], height=2)], tmp_path)
    assert (fate.fate, "height" in fate.how) == ("dropped", True)


def encoded(picture: NDArray[Any], kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, kind, **({"quality": 95} if kind == "JPEG" else {}))
    return file.getvalue()


def compressed(folder: Path, told: str, data: list[bytes], topic: str = "/cam/compressed") -> Stream:
    messages = [{"format": told, "data": np.frombuffer(one, np.uint8)} for one in data]
    path = write(folder / "a.mcap", "sensor_msgs/msg/CompressedImage", messages, topic)
    (found,) = (stream for name, stream in only(path).streams.items() if not name.endswith("log_time"))
    return found


@pytest.mark.parametrize(
    ("told", "swap"),
    [
        ("jpeg", False),
        ("bgr8; jpeg compressed bgr8", False),
        ("rgb8; jpeg compressed bgr8", False),
        ("rgb8; jpeg compressed rgb8", True),
        ("mono8; jpeg compressed mono8", False),
    ],
)
def test_the_transport_tells_whether_red_and_blue_were_swapped(tmp_path: Path, told: str, swap: bool) -> None:
    data = [encoded(picture, "JPEG") for picture in RGB]
    theirs = np.stack([np.asarray(Image.open(io.BytesIO(one))) for one in data])
    assert swapped(told) == swap
    np.testing.assert_array_equal(
        compressed(tmp_path, told, data).values(), theirs[..., ::-1] if swap else theirs
    )


def test_png_is_kept_to_the_bit(tmp_path: Path) -> None:
    stream = compressed(tmp_path, "png", [encoded(picture, "PNG") for picture in RGB])
    np.testing.assert_array_equal(stream.values(), RGB)


def test_depth_behind_the_header_of_its_transport_is_millimetres(tmp_path: Path) -> None:
    data = [bytes(12) + encoded(picture, "PNG") for picture in DEEP]
    stream = compressed(tmp_path, "16UC1; compressedDepth", data)
    assert (stream.spec.kind, stream.spec.unit) == ("depth", ("mm",))
    np.testing.assert_array_equal(stream.values(), DEEP)


def test_quantised_depth_becomes_metres_again(tmp_path: Path) -> None:
    a, b = 5_000.0, -20.0
    stored = DEEP.copy()
    stored[0, 0, 0] = 0
    data = [struct.pack("<iff", 0, a, b) + encoded(picture, "PNG") for picture in stored]
    values = compressed(tmp_path, "32FC1; compressedDepth png", data).values()
    assert np.isnan(values[0, 0, 0])
    told = np.float32(a) / (stored.astype(np.float32) - np.float32(b))
    np.testing.assert_array_equal(values[stored != 0], told[stored != 0])


@pytest.mark.parametrize("told", ["16UC1; compressedDepth rvl", "webp"])
def test_codecs_that_are_not_read_are_named(tmp_path: Path, told: str) -> None:
    messages = [{"format": told, "data": np.zeros(99, np.uint8)}]
    episode = only(write(tmp_path / "a.mcap", "sensor_msgs/msg/CompressedImage", messages))
    (fate,) = (f for f in episode.provenance.ledger if f.field == "/cam:data")
    assert (fate.fate, told in fate.how) == ("dropped", True)


def test_a_picture_that_was_cut_off_is_refused_with_its_message(tmp_path: Path) -> None:
    data = [encoded(RGB[0], "PNG"), encoded(RGB[1], "PNG")[:-30]]
    with pytest.raises(FormatError, match="message 1"):
        compressed(tmp_path, "png", data).values()


def test_a_png_that_claims_a_gigapixel_is_not_decoded(tmp_path: Path) -> None:
    header = struct.pack(">I4sIIBBBBB", 13, b"IHDR", 50_000, 50_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + header + bytes(9)
    messages = [{"format": "png", "data": np.frombuffer(bomb, np.uint8)}]
    episode = only(write(tmp_path / "a.mcap", "sensor_msgs/msg/CompressedImage", messages))
    (fate,) = (f for f in episode.provenance.ledger if f.field == "/cam:data")
    assert "50000" in fate.how
