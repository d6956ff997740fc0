"""Every leaf of every message of the sample recordings, against the libraries of their formats."""

import importlib
import json
import sqlite3
import struct
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory
from rosbags.rosbag1 import Reader as Reader1
from rosbags.rosbag2 import Reader as Reader2
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from teleopen.converters._topics import Recording, Source, Topic
from teleopen.converters.base import Format

from tests.ros_messages import differences, leaves

OF = Format(name="ros", title="ROS", extra="ros")


def recording(kind: Any, path: Path) -> Recording:
    return Source(kind, path, OF).recording()


def messages(topic: Topic) -> Iterator[dict[str, Any]]:
    """Yield the leaves of each message, as our columns give them."""
    columns = {path: column.each(0, topic.count) for path, column in topic.columns.items()}
    for _ in range(topic.count):
        yield {path: next(values) for path, values in columns.items()}


def agree(topic: Topic, theirs: list[tuple[int, Any]]) -> None:
    """Compare a topic with the log times and messages of another library."""
    assert topic.problem == ""
    assert topic.log_times.tolist() == [time for time, _ in theirs]
    for index, (ours, (_, message)) in enumerate(zip(messages(topic), theirs, strict=True)):
        assert differences(ours, leaves(message)) == [], f"{topic.name}: message {index}"


@pytest.mark.parametrize("name", ["lift_panda_lz4", "turtlesim_lz4", "realsense_d400"])
def test_bags_of_ros_1_are_read_as_rosbags_reads_them(shared_data: Path, name: str) -> None:
    path = shared_data / f"ros1_bag/{name}.bag"
    store = get_typestore(Stores.ROS1_NOETIC)
    theirs: dict[str, list[tuple[int, Any]]] = {}
    with Reader1(path) as bag:
        for connection in bag.connections:
            types = get_types_from_msg(connection.msgdef.data, connection.msgtype)
            store.register({k: v for k, v in types.items() if k not in store.fielddefs})
        for connection, time, raw in bag.messages():
            # librealsense leaves four bytes behind its pictures, at which rosbags gives up.
            cut = raw[:-4] if name == "realsense_d400" and connection.topic.endswith("/image/data") else raw
            message = store.deserialize_ros1(cut, connection.msgtype)
            theirs.setdefault(connection.topic, []).append((time, message))
    found = recording("rosbag1", path).topics
    assert set(found) == set(theirs)
    for topic, told in theirs.items():
        agree(found[topic], told)


@pytest.mark.parametrize(
    "name", ["ros2_all_sensor_msgs", "../ros2_bag/g1_bottle_jazzy_mcap/g1_bottle_jazzy_mcap"]
)
def test_mcap_files_of_ros_2_are_read_as_their_own_library_reads_them(shared_data: Path, name: str) -> None:
    path = shared_data / f"mcap/{name}.mcap"
    theirs: dict[str, list[tuple[int, Any]]] = {}
    with path.open("rb") as file:
        for _, channel, message, decoded in make_reader(
            file, decoder_factories=[DecoderFactory()]
        ).iter_decoded_messages():
            theirs.setdefault(channel.topic, []).append((message.log_time, decoded))
    found = recording("mcap", path).topics
    assert {name for name, topic in found.items() if topic.count} == set(theirs)
    for topic, told in theirs.items():
        agree(found[topic], told)


@pytest.mark.parametrize("name", ["g1_bottle_humble_db3", "g1_bottle_jazzy_mcap"])
def test_bags_of_ros_2_are_read_as_rosbags_reads_them(shared_data: Path, name: str) -> None:
    path = shared_data / "ros2_bag" / name
    store = get_typestore(Stores.ROS2_HUMBLE)
    theirs: dict[str, list[tuple[int, Any]]] = {}
    with Reader2(path) as bag:
        for connection, time, raw in bag.messages():
            message = store.deserialize_cdr(raw, connection.msgtype)
            theirs.setdefault(connection.topic, []).append((time, message))
    found = recording("rosbag2", path).topics
    assert set(found) == set(theirs)
    for topic, told in theirs.items():
        agree(found[topic], told)


def texts_in(path: Path) -> dict[str, list[tuple[int, str]]]:
    """Return the texts of a database, by its own library and the four lines of CDR that a text takes."""
    found: dict[str, list[tuple[int, str]]] = {}
    database = sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)
    asked = (
        "SELECT name, timestamp, data FROM messages JOIN topics ON topics.id = topic_id "
        "WHERE type = 'std_msgs/msg/String' ORDER BY messages.id"
    )
    for name, time, data in database.execute(asked):
        (length,) = struct.unpack_from("<I", data, 4)
        found.setdefault(name, []).append((time, data[8 : 8 + length - 1].decode()))
    database.close()
    return found


def test_a_bag_that_rosbags_reads_nothing_of_is_read_whole(shared_data: Path) -> None:
    path = shared_data / "ros2_bag/talker_db3"
    found = recording("rosbag2", path)
    assert {name: topic.count for name, topic in found.topics.items()} == {
        "/topic": 10,
        "/rosout": 10,
        "/parameter_events": 0,
    }
    texts = [
        (int(t), m["data"][0])
        for t, m in zip(found.topics["/topic"].log_times, messages(found.topics["/topic"]), strict=True)
    ]
    assert texts == texts_in(path / "talker.db3")["/topic"]
    # Its definition of Log is a stub of one field; the messages are whole.
    rosout = found.topics["/rosout"]
    assert "published" in rosout.warnings[0]
    assert [m["msg"][0] for m in messages(rosout)] == [f"Publishing: '{text}'" for _, text in texts]


def test_a_split_bag_is_all_of_its_files(shared_data: Path) -> None:
    path = shared_data / "ros2_bag/wbag_db3_multifile"
    theirs: dict[str, list[tuple[int, str]]] = {}
    for part in range(5):
        for name, told in texts_in(path / f"wbag_{part}.db3").items():
            theirs.setdefault(name, []).extend(told)
    found = recording("rosbag2", path).topics
    for name, told in theirs.items():
        ours = [
            (int(t), m["data"][0]) for t, m in zip(found[name].log_times, messages(found[name]), strict=True)
        ]
        assert ours == sorted(told, key=lambda pair: pair[0])
    assert sum(topic.count for topic in found.values()) == sum(map(len, theirs.values()))


def raw_of(path: Path, topic: str) -> tuple[Any, list[bytes]]:
    """Return the schema and the messages of a topic."""
    with path.open("rb") as file:
        found = [
            (schema, message.data) for schema, _, message in make_reader(file).iter_messages(topics=[topic])
        ]
    return found[0][0], [data for _, data in found]


def protobuf_class(schema: Any) -> Any:
    parts = ("descriptor_pb2", "descriptor_pool", "message_factory")
    pb2, pools, factory = (importlib.import_module(f"google.protobuf.{part}") for part in parts)
    pool = pools.DescriptorPool()
    for file in pb2.FileDescriptorSet.FromString(schema.data).file:
        pool.Add(file)
    return factory.GetMessageClass(pool.FindMessageTypeByName(schema.name))


def nanoseconds(stamp: Any) -> int:
    return int(stamp.seconds * 10**9 + stamp.nanos)


def test_protobuf_is_read_as_its_own_library_reads_it(shared_data: Path) -> None:
    path = shared_data / "mcap/g1_foxglove_h264.mcap"
    found = recording("mcap", path).topics
    schema, raw = raw_of(path, "/robot/joint_states")
    kind = protobuf_class(schema)
    for ours, data in zip(messages(found["/robot/joint_states"]), raw, strict=True):
        message = kind.FromString(data)
        theirs: dict[str, list[Any]] = {"timestamp": [nanoseconds(message.timestamp)]}
        for joint in message.joints:
            for field, value in joint.ListFields():
                theirs.setdefault(f"joints[].{field.name}", []).append(value)
        assert differences(ours, theirs) == []
    schema, raw = raw_of(path, "/camera/cam_high/video")
    kind = protobuf_class(schema)
    for ours, data in zip(messages(found["/camera/cam_high/video"]), raw, strict=True):
        message = kind.FromString(data)
        told = {"timestamp": [nanoseconds(message.timestamp)], "data": np.frombuffer(message.data, np.uint8)}
        told |= {"frame_id": [message.frame_id], "format": [message.format]}
        assert differences(ours, told) == []


def test_a_pose_in_protobuf_is_two_vectors(shared_data: Path) -> None:
    path = shared_data / "mcap/protobuf_and_json.mcap"
    schema, (data,) = raw_of(path, "pose")
    message = protobuf_class(schema).FromString(data)
    (ours,) = messages(recording("mcap", path).topics["pose"])
    pose = message.pose
    assert list(ours["pose.position"]) == [pose.position.x, pose.position.y, pose.position.z]
    turn = pose.orientation
    assert list(ours["pose.orientation"]) == [turn.x, turn.y, turn.z, turn.w]


def test_json_is_read_as_json(shared_data: Path) -> None:
    for name, topic in (
        ("protobuf_and_json", "mouse"),
        ("g1_foxglove_h264", "/action"),
        ("g1_foxglove_h264", "/task"),
    ):
        path = shared_data / f"mcap/{name}.mcap"
        _, raw = raw_of(path, topic)
        for ours, data in zip(messages(recording("mcap", path).topics[topic]), raw, strict=True):
            theirs = {k: v if isinstance(v, list) else [v] for k, v in json.loads(data).items()}
            assert differences(ours, theirs) == []


def test_columns_of_a_range_are_those_of_the_whole(shared_data: Path) -> None:
    topic = recording("mcap", shared_data / "mcap/g1_foxglove_h264.mcap").topics["/camera/cam_high/video"]
    column = topic.columns["data"]
    assert not column.kept
    whole = np.concatenate([np.asarray(values) for values in column.each(0, topic.count)])
    ends = [0, *np.cumsum(column.counts).tolist()]
    for start, stop in pairwise([0, 1, ends[3] + 7, ends[50], len(whole)]):
        np.testing.assert_array_equal(
            np.concatenate(list(column.flat(start, stop, 1_000))), whole[start:stop]
        )
