"""What recorders do besides the usual: bytes in JSON, topics of two types, simulated time, empty messages."""

import base64
import io
import json
import struct
from collections.abc import Iterable
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcap.writer import Writer
from numpy.typing import NDArray
from PIL import Image
from rosbags.typesys import get_types_from_msg
from teleopen.converters._ros_joints import JOINTS
from teleopen.converters._ros_pictures import COMPRESSED_TYPES, RAW_TYPES
from teleopen.converters._ros_transforms import TRANSFORMS
from teleopen.converters._ros_video import TYPES as VIDEO_TYPES
from teleopen.converters.mcap import Mcap
from teleopen.schemas import Episode, FormatError

from tests.converters.reading import read_all
from tests.samples._ros import START, Run

STEP = 100_000_000
RGB = np.random.default_rng(9).integers(0, 255, (3, 16, 16, 3), dtype=np.uint8)


class File:
    """An MCAP file that messages are put into, one topic after the other."""

    def __init__(self, path: Path) -> None:
        self.path, self.run = path, Run(2)
        self._file = path.open("wb")
        self._writer: Any = Writer(self._file)
        self._writer.start()

    def raw(
        self, topic: str, kind: str, encoding: str, language: str, schema: bytes, messages: Iterable[bytes]
    ) -> None:
        number = self._writer.register_schema(kind, language, schema)
        channel = self._writer.register_channel(topic, encoding, number)
        for i, message in enumerate(messages):
            self._writer.add_message(channel, START + i * STEP, message, START + i * STEP)

    def json(self, topic: str, kind: str, messages: Iterable[Any], schema: Any = None) -> None:
        texts = (json.dumps(message).encode() for message in messages)
        self.raw(topic, kind, "json", "jsonschema", json.dumps(schema or {}).encode(), texts)

    def ros(self, topic: str, kind: str, messages: Iterable[Any]) -> None:
        raws = (bytes(self.run.store.serialize_cdr(message, kind)) for message in messages)
        self.raw(topic, kind, "cdr", "ros2msg", self.run.definition(kind).encode(), raws)

    def episode(self) -> Episode:
        self._writer.finish()
        self._file.close()
        (found,) = Mcap().episodes(self.path)
        return found


@pytest.fixture
def file(tmp_path: Path) -> File:
    return File(tmp_path / "a.mcap")


def dropped(episode: Episode, field: str) -> str:
    """Return why a field was dropped, which is told aloud too."""
    (fate,) = (f for f in episode.provenance.ledger if f.field == field)
    assert fate.fate == "dropped"
    assert any(fate.how in warning for warning in episode.provenance.warnings)
    return fate.how


# JSON


def stamp(i: int) -> dict[str, int]:
    return {"sec": START // 10**9, "nsec": START % 10**9 + i}


def in_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


# As in github.com/foxglove/foxglove-sdk: schemas/jsonschema.
BYTES = {"type": "object", "properties": {"data": {"type": "string", "contentEncoding": "base64"}}}


def png(picture: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


def test_pictures_in_json_are_read_as_their_schema_says(file: File) -> None:
    file.json("/png", "foxglove.CompressedImage", (
        {"timestamp": stamp(i), "frame_id": "eye", "format": "png", "data": in_base64(png(frame))}
        for i, frame in enumerate(RGB)
    ), BYTES)  # fmt: skip
    file.json("/raw", "foxglove.RawImage", (
        {"timestamp": stamp(i), "frame_id": "eye", "encoding": "bgr8", "height": 16, "width": 16, "step": 48,
         "data": in_base64(frame[..., ::-1].tobytes())}
        for i, frame in enumerate(RGB)
    ), BYTES)  # fmt: skip
    episode = file.episode()
    for name in ("png", "raw"):
        stream = episode.streams[f"observation.images.{name}"]
        np.testing.assert_array_equal(stream.values(), RGB)
        assert (stream.spec.frame, episode.times(stream.spec.name).tolist()) == ("eye", [0, 1, 2])


@pytest.mark.parametrize("data", ["AAAA", [1, 2], 7, None, {"x": 1}])
@pytest.mark.parametrize(
    "kind", ["foxglove.RawImage", "foxglove.CompressedImage", "foxglove.CompressedVideo"]
)
def test_pictures_in_json_that_are_no_bytes_are_named(file: File, kind: str, data: Any) -> None:
    parts = {"format": "h264", "encoding": "mono8", "height": 1, "width": 3, "step": 3, "data": data}
    file.json("/cam", kind, [parts, parts])
    episode = file.episode()
    assert not [stream for stream in episode.streams.values() if stream.spec.kind == "video"]
    assert any("no bytes" in warning for warning in episode.provenance.warnings)


def test_base64_that_is_none_is_refused_or_told(file: File) -> None:
    file.json("/t", "any", [{"x": 1}])
    file.json("/cam", "foxglove.CompressedImage", [{"format": "png", "data": "no base64!"}], BYTES)
    assert "base64" in dropped(file.episode(), "/cam")


NAMES = [
    *("data", "format", "encoding", "height", "width", "step", "is_bigendian", "name", "position", "joints"),
    *("transforms", "translation", "rotation", "timestamp", "frame_id", "child_frame_id", "x"),
]
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-2, 300)
    | st.floats()
    | st.sampled_from(["", "h264", "png", "mono8", "AAAA"])
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(sorted({*RAW_TYPES, *COMPRESSED_TYPES, *VIDEO_TYPES, *JOINTS, *TRANSFORMS})),
    messages=st.lists(st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=9), min_size=1, max_size=3),
    schema=st.sampled_from([{}, BYTES, {"properties": 3}, []]),
)
def test_json_that_only_claims_to_be_of_a_known_type_raises_nothing_else(
    tmp_path: Path, kind: str, messages: list[Any], schema: Any
) -> None:
    file = File(tmp_path / "any.mcap")
    file.json("/t", kind, messages, schema)
    with suppress(FormatError, ValueError):  # of unpacking no episode at all
        file.episode()
    with suppress(FormatError):
        read_all(Mcap(), file.path)


# Topics and clocks


def test_two_types_on_one_topic_are_two_topics_and_two_publishers_are_one(file: File) -> None:
    for kind, first in (("std_msgs/msg/Float64", 0.5), ("std_msgs/msg/Int32", 3)):
        for offset in (0, 10):
            file.ros(
                "/same", kind, [file.run.of(kind, data=first + offset), file.run.of(kind, data=first + 1)]
            )
    episode = file.episode()
    assert sorted(episode.streams["extra.same.data"].values()) == [0.5, 1.5, 1.5, 10.5]
    assert sorted(episode.streams["extra.same.std_msgs.Int32.data"].values()) == [3, 4, 4, 13]


def test_simulated_time_is_kept_and_not_mixed_with_that_of_the_day(file: File) -> None:
    time = file.run.store.types["builtin_interfaces/msg/Time"]
    clock, joints = "rosgraph_msgs/msg/Clock", "sensor_msgs/msg/JointState"
    file.ros("/clock", clock, (file.run.of(clock, clock=time(sec=5, nanosec=i)) for i in range(4)))
    empty = np.empty(0)
    file.ros("/joint_states", joints, (
        file.run.of(joints, header=file.run.header(5 * 10**9 + i, ""), name=["a"],
                    position=np.array([1.0 * i]), velocity=empty, effort=empty) for i in range(4)
    ))  # fmt: skip
    episode = file.episode()
    told = [5 * 10**9 + i for i in range(4)]
    assert episode.streams["extra.clock.clock"].values().tolist() == told
    assert episode.streams["observation.joint_states.header.stamp"].values().tolist() == told
    assert "another epoch" in episode.clocks["joint_states"].source
    assert {tuple(one.read().tolist()) for one in episode.clocks.values()} == {
        tuple(i * STEP for i in range(4))
    }


def test_a_recording_all_of_whose_times_are_simulated_is_read_by_its_stamps(tmp_path: Path) -> None:
    run, kind = Run(2), "std_msgs/msg/Header"
    path = tmp_path / "a.mcap"
    with path.open("wb") as raw:
        writer: Any = Writer(raw)
        writer.start()
        schema = writer.register_schema(kind, "ros2msg", run.definition(kind).encode())
        channel = writer.register_channel("/h", "cdr", schema)
        for log in (10, 20, 40):
            message = bytes(run.store.serialize_cdr(run.header(log - 3, "f"), kind))
            writer.add_message(channel, log, message, log)
        writer.finish()
    (episode,) = Mcap().episodes(path)
    assert episode.clocks["h"].source.startswith("stamp")
    assert episode.clocks["h"].read().tolist() == [0, 10, 30]


def test_transforms_that_were_sent_once_long_ago_do_not_move_the_start(file: File) -> None:
    of = file.run.of
    kind, one = "tf2_msgs/msg/TFMessage", "geometry_msgs/msg/TransformStamped"
    turn = of("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=0.0, w=1.0)
    pose = of(
        "geometry_msgs/msg/Transform",
        translation=of("geometry_msgs/msg/Vector3", x=1.0, y=2.0, z=3.0),
        rotation=turn,
    )
    file.ros("/tf_static", kind, [of(kind, transforms=[
        of(one, header=file.run.header(START - age, "base"), child_frame_id=child, transform=pose)
        for child, age in (("camera", 2 * 86_400 * 10**9), ("gripper", 0))
    ])])  # fmt: skip
    file.json("/t", "any", [{"x": 1}, {"x": 2}])
    episode = file.episode()
    assert episode.extra["recording"]["start_ns"] == START
    for child in ("camera", "gripper"):
        stream = episode.streams[f"extra.tf_static.base.{child}.translation"]
        assert (stream.values().tolist(), stream.spec.frame) == ([[1, 2, 3]], "base")
    assert "log_time" in episode.clocks["tf_static_base_camera"].source


# Messages without content


def test_empty_messages_are_times_alone(tmp_path: Path) -> None:
    file = File(tmp_path / "a.mcap")
    # ROS 2 puts one byte into a message without fields (rosidl_adapter: struct.idl.em).
    file.raw("/ping", "std_msgs/msg/Empty", "cdr", "ros2msg", b"", [b"\0\1\0\0\0"] * 3)
    file.raw("/pong", "std_msgs/Empty", "ros1", "ros1msg", b"", [b""] * 2)
    episode = file.episode()
    assert episode.times("extra.ping.structure_needs_at_least_one_member").tolist() == [0, STEP, 2 * STEP]
    assert episode.streams["extra.pong.log_time"].values().tolist() == [START, START + STEP]


@pytest.mark.parametrize("at", [0, 1, 5_000])
def test_a_message_of_no_bytes_that_should_have_some_is_told(tmp_path: Path, at: int) -> None:
    file = File(tmp_path / "a.mcap")
    kind = "std_msgs/msg/Float64"
    messages = [
        bytes(file.run.store.serialize_cdr(file.run.of(kind, data=float(i)), kind)) for i in range(at)
    ]
    definition = file.run.definition(kind).encode()
    file.raw("/z", kind, "cdr", "ros2msg", definition, [*messages, b""])
    file.json("/t", "any", [{"x": 1}])
    if at > 4_096:
        with pytest.raises(FormatError, match="/z: message"):
            file.episode()
    else:
        assert "do not fit" in dropped(file.episode(), "/z")


def test_a_picture_of_no_bytes_among_others_is_refused_with_its_number(file: File) -> None:
    kind = "sensor_msgs/msg/CompressedImage"
    parts = [np.frombuffer(png(RGB[0]), np.uint8), np.empty(0, np.uint8)]
    file.ros("/cam", kind, (
        file.run.of(kind, header=file.run.header(START + i, ""), format="png", data=data)
        for i, data in enumerate(parts)
    ))  # fmt: skip
    with pytest.raises(FormatError, match="/cam: message 1"):
        file.episode().streams["observation.images.cam"].values()


# Video

VIDEO = "foxglove_msgs/msg/CompressedVideo"
DEFINITION = "builtin_interfaces/Time timestamp\nstring frame_id\nuint8[] data\nstring format"


def encoded(codec: str, options: dict[str, str]) -> list[bytes]:
    """Return moving pictures as Annex B, one packet each, in the order of the encoder."""
    encoder: Any = av.CodecContext.create(codec, "w")
    encoder.width, encoder.height, encoder.pix_fmt = 64, 64, "yuv420p"
    encoder.time_base, encoder.options = Fraction(1, 30), options
    packets = []
    random = np.random.default_rng(2)
    for i in range(12):
        frame = av.VideoFrame.from_ndarray(np.roll(random.integers(0, 99, (64, 64, 3), dtype=np.uint8), i, 1))
        frame.pts = i
        packets += encoder.encode(frame)
    return [bytes(packet) for packet in [*packets, *encoder.encode(None)]]


def filmed(file: File, packets: list[bytes], told: str) -> Episode:
    store = file.run.store
    store.register(get_types_from_msg(DEFINITION, VIDEO))
    time = store.types["builtin_interfaces/msg/Time"]
    file.ros("/film", VIDEO, (
        file.run.of(VIDEO, timestamp=time(sec=1_700_000_000, nanosec=i + 1), frame_id="eye",
                    data=np.frombuffer(packet, np.uint8), format=told)
        for i, packet in enumerate(packets)
    ))  # fmt: skip
    return file.episode()


@pytest.mark.parametrize(
    ("encoder", "told", "options"),
    [
        ("libx264", "h264", {"bf": "0", "g": "4", "sc_threshold": "0", "tune": "zerolatency"}),
        (
            "libx265",
            "h265",
            {"x265-params": "bframes=0:keyint=4:repeat-headers=1:log-level=none", "tune": "zerolatency"},
        ),
    ],
)
def test_video_is_taken_as_it_came_whatever_message_it_lies_in(
    file: File, encoder: str, told: str, options: dict[str, str]
) -> None:
    packets = encoded(encoder, options)
    stream = filmed(file, packets, told).streams["observation.images.film"]
    assert stream.packets is not None
    taken = list(stream.packets.read())
    assert [packet.data for packet in taken] == packets
    assert [packet.key for packet in taken] == [i % 4 == 0 for i in range(12)]
    assert (stream.spec.frame, stream.values().shape) == ("eye", (12, 64, 64, 3))


@pytest.mark.parametrize(
    ("encoder", "told", "options"),
    [
        ("libx264", "h264", {"bf": "2", "g": "12"}),
        ("libx265", "h265", {"x265-params": "bframes=2:keyint=12:repeat-headers=1:log-level=none"}),
    ],
)
def test_video_with_b_frames_is_named_and_not_read_in_the_wrong_order(
    file: File, encoder: str, told: str, options: dict[str, str]
) -> None:
    episode = filmed(file, encoded(encoder, options), told)
    assert "B-frames" in dropped(episode, "/film:data")
    assert "observation.images.film" not in episode.streams


@pytest.mark.parametrize("told", ["av1", "vp9", "mpeg4", ""])
def test_codecs_that_are_not_read_are_named(file: File, told: str) -> None:
    assert repr(told) in dropped(filmed(file, [struct.pack("<I", i) for i in range(3)], told), "/film:data")
