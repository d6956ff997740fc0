"""The quirks of bags of ROS 1, on recordings of a simulator, of turtles and of a RealSense camera."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rosbags.rosbag1 import Reader, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from teleopen.converters.rosbag1 import Rosbag1
from teleopen.schemas import Episode, FormatError

from tests.samples._ros import Run
from tests.samples.rosbag1 import write_bag


def only(path: Path, **options: Any) -> Episode:
    (episode,) = Rosbag1(**options).episodes(path)
    return episode


def decoded(path: Path, topic: str, cut: int = 0) -> list[Any]:
    store = get_typestore(Stores.ROS1_NOETIC)
    with Reader(path) as bag:
        wanted = [c for c in bag.connections if c.topic == topic]
        for connection in wanted:
            types = get_types_from_msg(connection.msgdef.data, connection.msgtype)
            store.register({k: v for k, v in types.items() if k not in store.fielddefs})
        return [
            store.deserialize_ros1(raw[: len(raw) - cut], c.msgtype) for c, _, raw in bag.messages(wanted)
        ]


@pytest.mark.parametrize("compression", [None, *Writer.CompressionFormat])
def test_chunks_of_every_compression_are_read_alike(tmp_path: Path, compression: Any) -> None:
    episode = only(write_bag(tmp_path / "a.bag", Run(1), compression))
    for name, values in Run(1).streams().items():
        np.testing.assert_array_equal(episode.streams[name].values(), values, err_msg=name)


def with_heads(path: Path, *parts: bytes | str) -> Path:
    """Write a run whose messages have other headers of the same length; words stand for what they held."""
    usual = rb"\x04\0\0\0op=\x02\x09\0\0\0conn=(?P<conn>(?P<short>..)..)\x0d\0\0\0time=(?P<time>.{8})"

    def head(found: re.Match[bytes]) -> bytes:
        return b"".join(part if isinstance(part, bytes) else found[part] for part in parts)

    raw, count = re.subn(usual, head, write_bag(path, Run(1)).read_bytes(), flags=re.DOTALL)
    assert count == sum(1 for _ in Run(1).messages())
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize(
    "order",
    [
        (b"\x09\0\0\0conn=", "conn", b"\x04\0\0\0op=\x02\x0d\0\0\0time=", "time"),
        (b"\x0d\0\0\0time=", "time", b"\x09\0\0\0conn=", "conn", b"\x04\0\0\0op=\x02"),
        (b"\x06\0\0\0op=\x02\0\0\x07\0\0\0conn=", "short", b"\x0d\0\0\0time=", "time"),
    ],
)
def test_the_fields_of_a_message_stand_in_any_order_and_width(
    tmp_path: Path, order: tuple[bytes | str, ...]
) -> None:
    episode = only(with_heads(tmp_path / "a.bag", *order))
    for name, values in Run(1).streams().items():
        np.testing.assert_array_equal(episode.streams[name].values(), values, err_msg=name)


def test_a_connection_of_more_bytes_than_the_format_has_is_refused(tmp_path: Path) -> None:
    wide = b"\x0d\0\0\0conn=" + 8 * b"\xff"
    path = with_heads(tmp_path / "a.bag", b"\x04\0\0\0op=\x02", wide, b"\x09\0\0\0time=", "conn")
    with pytest.raises(FormatError, match="conn"):
        only(path)


def test_a_bag_without_messages_is_no_episode(shared_data: Path) -> None:
    path = shared_data / "ros1_bag/no_messages.bag"
    assert Rosbag1().probe(path)
    assert list(Rosbag1().episodes(path)) == []


def test_raw_pictures_of_a_simulator_are_its_pixels(shared_data: Path) -> None:
    path = shared_data / "ros1_bag/lift_panda_lz4.bag"
    messages = decoded(path, "/camera/color/image_raw")
    stream = only(path).streams["observation.images.camera.color.image_raw"]
    theirs = np.stack([message.data.reshape(message.height, message.width, 3) for message in messages])
    np.testing.assert_array_equal(stream.values(), theirs)
    intrinsics = stream.spec.attributes["intrinsics"]
    info = decoded(path, "/camera/color/camera_info")[0]
    assert intrinsics["topic"] == "/camera/color/camera_info"
    assert intrinsics["K"] == info.K.tolist()


def test_a_realsense_is_read_whole_though_its_messages_are_longer_than_defined(shared_data: Path) -> None:
    path = shared_data / "ros1_bag/realsense_d400.bag"
    episode = only(path)
    for topic, name in (
        ("/device_0/sensor_0/Depth_0/image/data", "observation.depth.device_0.sensor_0.Depth_0.image.data"),
        ("/device_0/sensor_1/Color_0/image/data", "observation.images.device_0.sensor_1.Color_0.image.data"),
    ):
        messages = decoded(path, topic, cut=4)
        stream = episode.streams[name]
        raw = b"".join(message.data.tobytes() for message in messages)
        assert stream.values().tobytes() == raw
        assert "intrinsics" in stream.spec.attributes
        assert any(topic in warning for warning in episode.provenance.warnings)
    assert episode.streams["observation.depth.device_0.sensor_0.Depth_0.image.data"].spec.unit == ("unknown",)


def test_times_of_two_epochs_are_not_mixed(shared_data: Path) -> None:
    # The bag's own times begin at zero; the headers of its pictures are of the year 2025.
    episode = only(shared_data / "ros1_bag/realsense_d400.bag")
    assert all(clock.read()[-1] < 10**9 for clock in episode.clocks.values())
    clock = episode.clocks["device_0_sensor_0_Depth_0_image_data"]
    assert "another epoch" in clock.source
    stamps = episode.streams["extra.device_0.sensor_0.Depth_0.image.data.header.stamp"].values()
    assert stamps[0] == 1_747_141_385_125_357_151


def test_keys_and_values_are_events(shared_data: Path) -> None:
    episode = only(shared_data / "ros1_bag/realsense_d400.bag")
    topic = "/device_0/sensor_0/Depth_0/image/metadata"
    events = [event for event in episode.events if event.kind == topic]
    messages = decoded(shared_data / "ros1_bag/realsense_d400.bag", topic)
    assert [(event.attributes["key"], event.text) for event in events] == [(m.key, m.value) for m in messages]


def test_transforms_are_one_stream_for_each_pair_of_frames(shared_data: Path) -> None:
    path = shared_data / "ros1_bag/turtlesim_lz4.bag"
    episode = only(path)
    for child in ("turtle1", "turtle2"):
        told = [t for m in decoded(path, "/tf") for t in m.transforms if t.child_frame_id == child]
        stream = episode.streams[f"extra.tf.world.{child}.rotation"]
        turns = [
            (t.transform.rotation.x, t.transform.rotation.y, t.transform.rotation.z, t.transform.rotation.w)
            for t in told
        ]
        np.testing.assert_array_equal(stream.values(), np.array(turns))
        assert (stream.spec.frame, stream.spec.attributes["child_frame"]) == ("world", child)
        assert stream.spec.axes == ("x", "y", "z", "w")
        stamps = [t.header.stamp.sec * 10**9 + t.header.stamp.nanosec for t in told]
        assert (episode.times(stream.spec.name) + episode.extra["recording"]["start_ns"]).tolist() == stamps


def test_commands_are_not_called_observations_and_nothing_an_action(shared_data: Path) -> None:
    episode = only(shared_data / "ros1_bag/lift_panda_lz4.bag")
    assert "extra.teleop.twist_cmd.twist.linear" in episode.streams
    assert not any(name.startswith("action") for name in episode.streams)
    assert episode.streams["extra.teleop.twist_cmd.twist.linear"].spec.unit == ("m/s",)
    assert episode.streams["extra.ee_pose.pose.position"].spec.unit == ("m",)
    assert episode.streams["observation.joint_states.position"].spec.axes[0] == "panda_joint1"
