"""The quirks of MCAP files, and the video in them."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from mcap.reader import make_reader
from mcap.writer import CompressionType, IndexType, Writer
from teleopen.converters import _topic_index
from teleopen.converters.mcap import Mcap
from teleopen.schemas import Episode

from tests.converters.test_ros_decoding import protobuf_class, raw_of
from tests.samples._ros import START, Run
from tests.samples.mcap import write_file

SECOND = 10**9


def write_json(path: Path, messages: Iterable[tuple[str, int, Any]]) -> Path:
    """Write messages in JSON: topic, log time, content."""
    with path.open("wb") as file:
        writer: Any = Writer(file)
        writer.start()
        schema = writer.register_schema("any", "jsonschema", b"{}")
        channels: dict[str, int] = {}
        for topic, time, content in messages:
            if topic not in channels:
                channels[topic] = writer.register_channel(topic, "json", schema)
            writer.add_message(channels[topic], time, json.dumps(content).encode(), time)
        writer.finish()
    return path


def write_joints(path: Path, told: Iterable[tuple[int, dict[str, float]]], late: int = 0) -> Path:
    """Write joint states of ROS 2: stamps, and positions by name."""
    run = Run(2)
    kind = "sensor_msgs/msg/JointState"
    with path.open("wb") as file:
        writer: Any = Writer(file)
        writer.start()
        schema = writer.register_schema(kind, "ros2msg", run.definition(kind).encode())
        channel = writer.register_channel("/joint_states", "cdr", schema)
        for i, (stamp, joints) in enumerate(told):
            empty, values = np.empty(0), np.array([*joints.values()])
            parts = {"name": list(joints), "position": values, "velocity": empty, "effort": empty}
            message = run.of(kind, header=run.header(stamp, ""), **parts)
            log = START + i * SECOND + late
            writer.add_message(channel, log, bytes(run.store.serialize_cdr(message, kind)), log)
        writer.finish()
    return path


def only(path: Path, **options: Any) -> Episode:
    (episode,) = Mcap(**options).episodes(path)
    return episode


def fate(episode: Episode, field: str) -> Any:
    (found,) = (f for f in episode.provenance.ledger if f.field == field)
    return found


@pytest.mark.parametrize(
    "options",
    [
        {"use_chunking": False},
        {"compression": CompressionType.LZ4},
        {
            "use_statistics": False,
            "use_summary_offsets": False,
            "repeat_channels": False,
            "repeat_schemas": False,
        },
        {"enable_crcs": False},
        {"index_types": IndexType.NONE},
        {
            "index_types": IndexType.NONE,
            "use_statistics": False,
            "use_summary_offsets": False,
            "repeat_channels": False,
            "repeat_schemas": False,
        },
    ],
)
def test_every_way_to_write_a_file_is_read_alike(tmp_path: Path, options: dict[str, Any]) -> None:
    plain = only(write_file(tmp_path / "plain.mcap", Run(2)))
    other = only(write_file(tmp_path / "other.mcap", Run(2), **options))
    assert set(other.streams) == set(plain.streams)
    for name, stream in plain.streams.items():
        np.testing.assert_array_equal(other.streams[name].values(), stream.values(), err_msg=name)


def test_messages_are_put_in_the_order_of_their_log_times(tmp_path: Path) -> None:
    told = [("t", START + time, {"x": time, "many": [time] * time}) for time in (3, 1, 4, 0, 2)]
    episode = only(write_json(tmp_path / "a.mcap", told))
    assert episode.streams["extra.t.x"].values().tolist() == [0, 1, 2, 3, 4]
    assert episode.streams["extra.t.many"].values().tolist() == [1, 2, 2, 3, 3, 3, 4, 4, 4, 4]
    assert episode.streams["extra.t.many.count"].values().tolist() == [0, 1, 2, 3, 4]
    assert episode.times("extra.t.many").tolist() == [1, 2, 2, 3, 3, 3, 4, 4, 4, 4]


def test_json_that_changes_its_type_loses_nothing(tmp_path: Path) -> None:
    told = [
        ("t", START, {"x": 1}),
        ("t", START + 1, {"x": 2.5}),
        ("t", START + 2, {"x": "off"}),
        ("t", START + 3, {}),
    ]
    episode = only(write_json(tmp_path / "a.mcap", told))
    assert episode.streams["extra.t.x"].values().tolist() == [1, 2.5]
    assert episode.streams["extra.t.x.count"].values().tolist() == [1, 1, 0, 0]
    # Every message is an event, since one of them has a text; where there is none, the list is empty.
    texts = [(event.start_ns, event.text or event.attributes["x@text"]) for event in episode.events]
    assert texts == [(0, []), (1, []), (2, "off"), (3, [])]


def test_joints_are_told_apart_by_name_not_by_place(tmp_path: Path) -> None:
    arm, hand = {"a": 1.0, "b": 2.0}, {"finger": 9.0}
    told = [(START, arm), (START + 1, hand), (START + 2, {"b": 4.0, "a": 3.0})]
    episode = only(write_joints(tmp_path / "a.mcap", told))
    first, second = (episode.streams[f"observation.joint_states.position{n}"] for n in ("", "_2"))
    assert (first.spec.axes, first.values().tolist()) == (("a", "b"), [[1, 2], [3, 4]])
    assert (second.spec.axes, second.values().tolist()) == (("finger",), [[9]])
    assert episode.times("observation.joint_states.position").tolist() == [0, 2]
    assert first.spec.unit == ("unknown",)


@pytest.mark.parametrize(
    ("stamps", "why"),
    [
        ([0, START + 1, START + 2], "not set"),
        ([START + 5, START + 4, START + 6], "backwards"),
        ([START, START, START], "never changes"),
        ([SECOND, 2 * SECOND, 3 * SECOND], "another epoch"),
    ],
)
def test_stamps_that_cannot_be_believed_are_kept_and_not_taken(
    tmp_path: Path, stamps: list[int], why: str
) -> None:
    episode = only(write_joints(tmp_path / "a.mcap", [(stamp, {"a": 1.0}) for stamp in stamps]))
    clock = episode.clocks["joint_states"]
    assert clock.source.startswith("log_time")
    assert why in clock.source
    assert clock.read().tolist() == [0, SECOND, 2 * SECOND]
    assert episode.streams["observation.joint_states.header.stamp"].values().tolist() == stamps
    assert episode.extra["recording"]["start_ns"] == START


def test_stamps_of_the_header_are_taken_and_the_log_times_kept(tmp_path: Path) -> None:
    stamps = [START - 5, START + SECOND - 3, START + 2 * SECOND]
    episode = only(write_joints(tmp_path / "a.mcap", [(stamp, {"a": 1.0}) for stamp in stamps], late=7))
    assert episode.clocks["joint_states"].source.startswith("header.stamp")
    assert (episode.clocks["joint_states"].read() + episode.extra["recording"]["start_ns"]).tolist() == stamps
    log = [START + i * SECOND + 7 for i in range(3)]
    assert episode.streams["extra.joint_states.log_time"].values().tolist() == log


def test_what_no_decoder_knows_is_dropped_aloud(tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    with path.open("wb") as file:
        writer: Any = Writer(file)
        writer.start()
        for name, encoding, language in (("flat", "flatbuffer", "flatbuffer"), ("plain", "cbor", "")):
            schema = writer.register_schema(name, language, b"\0") if language else 0
            number = writer.register_channel(name, encoding, schema)
            writer.add_message(number, START, b"\0\1", START)
        schema = writer.register_schema("any", "jsonschema", b"{}")
        writer.add_message(writer.register_channel("j", "json", schema), START, b'{"x": 1}', START)
        writer.finish()
    episode = only(path)
    assert {name: fate(episode, name).fate for name in ("flat", "plain")} == {
        "flat": "dropped",
        "plain": "dropped",
    }
    assert "flatbuffer" in fate(episode, "flat").how
    assert any("cbor" in warning for warning in episode.provenance.warnings)


def test_options_say_what_a_file_does_not(tmp_path: Path) -> None:
    told = [("/say", START, {"text": "fold the towel"}), ("t", START, {"x": 1})]
    path = write_json(tmp_path / "a.mcap", told)
    assert only(path).instructions == ()
    assert only(path, instruction_topic="/say").instructions == ("fold the towel",)
    episode = only(path, instruction="wipe the table", embodiment="SO-101", skip=("/say",))
    assert (episode.instructions, episode.embodiment) == (("wipe the table",), "SO-101")
    assert fate(episode, "/say").how == "left out by the option skip"


def test_what_a_file_says_of_people_is_evidence_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    with path.open("wb") as file:
        writer: Any = Writer(file)
        writer.start()
        schema = writer.register_schema("any", "jsonschema", b"{}")
        writer.add_message(writer.register_channel("t", "json", schema), START, b'{"x": 1}', START)
        writer.add_metadata("session", {"license": "CC-BY-4.0", "task_instruction": "fold"})
        writer.finish()
    episode = only(path)
    assert episode.provenance.evidence == {"metadata/session/license": "CC-BY-4.0"}
    assert episode.instructions == ("fold",)


def test_idl_and_msg_lay_out_a_message_alike(tmp_path: Path) -> None:
    run = Run(2)
    kind = "sensor_msgs/msg/JointState"
    idl = f"""{"=" * 80}
IDL: sensor_msgs/msg/JointState
#include "std_msgs/msg/Header.idl"
module sensor_msgs {{ module msg {{
  @verbatim (language="comment", text="it has {{ braces }}")
  struct JointState {{
    std_msgs::msg::Header header;
    sequence<string> name;
    sequence<double> position, velocity;
    @unit (value="N") sequence<double, 10> effort;
  }};
}}; }};
{"=" * 80}
IDL: std_msgs/msg/Header
module std_msgs {{ module msg {{
  struct Header {{ builtin_interfaces::msg::Time stamp; string frame_id; }};
}}; }};
{"=" * 80}
IDL: builtin_interfaces/msg/Time
module builtin_interfaces {{ module msg {{ struct Time {{ int32 sec; uint32 nanosec; }}; }}; }};
"""
    message = run.of(
        kind, header=run.header(START, "base"), name=["a", "b"], position=np.array([1.0, 2.0]),
        velocity=np.array([3.0]), effort=np.empty(0),
    )  # fmt: skip
    raw = bytes(run.store.serialize_cdr(message, kind))
    episodes = []
    for language, text in (("ros2msg", run.definition(kind)), ("ros2idl", idl)):
        path = tmp_path / f"{language}.mcap"
        with path.open("wb") as file:
            writer: Any = Writer(file)
            writer.start()
            schema = writer.register_schema(kind, language, text.encode())
            writer.add_message(writer.register_channel("/j", "cdr", schema), START, raw, START)
            writer.finish()
        episodes.append(only(path))
    assert set(episodes[0].streams) == set(episodes[1].streams)
    for name, stream in episodes[0].streams.items():
        assert stream.values().tolist() == episodes[1].streams[name].values().tolist(), name


VIDEO = "observation.images.camera.cam_high.video"


def test_video_is_passed_on_byte_for_byte(shared_data: Path) -> None:
    path = shared_data / "mcap/g1_foxglove_h264.mcap"
    schema, raw = raw_of(path, "/camera/cam_high/video")
    kind = protobuf_class(schema)
    stream = only(path).streams[VIDEO]
    assert stream.packets is not None
    packets = list(stream.packets.read())
    assert [packet.data for packet in packets] == [kind.FromString(data).data for data in raw]
    assert [packet.pts for packet in packets] == list(range(120))
    assert stream.packets.format.codec == "h264"


def test_video_decodes_to_what_ffmpeg_decodes(shared_data: Path) -> None:
    path = shared_data / "mcap/g1_foxglove_h264.mcap"
    schema, raw = raw_of(path, "/camera/cam_high/video")
    kind = protobuf_class(schema)
    decoder = av.CodecContext.create("h264", "r")
    frames = []
    for data in [kind.FromString(data).data for data in raw]:
        frames += decoder.decode(av.Packet(data))
    frames += decoder.decode(None)
    stream = only(path).streams[VIDEO]
    for start, stop in ((0, 3), (57, 61), (118, 120)):
        theirs = np.stack([frame.to_ndarray(format="rgb24") for frame in frames[start:stop]])
        assert int(np.abs(stream.values(start, stop).astype(int) - theirs).max()) <= 1


def test_pictures_before_the_first_key_are_left_out(shared_data: Path, tmp_path: Path) -> None:
    whole = shared_data / "mcap/g1_foxglove_h264.mcap"
    keys = [packet.pts for packet in only(whole).streams[VIDEO].packets.read() if packet.key]  # type: ignore[union-attr]
    path = tmp_path / "late.mcap"
    with whole.open("rb") as source, path.open("wb") as file:
        writer: Any = Writer(file)
        writer.start()
        found: list[Any] = list(make_reader(source).iter_messages(topics=["/camera/cam_high/video"]))
        schema = writer.register_schema(found[0][0].name, "protobuf", found[0][0].data)
        channel = writer.register_channel("/camera/cam_high/video", "protobuf", schema)
        for _, _, message in found[1:]:
            writer.add_message(channel, message.log_time, message.data, message.publish_time)
        writer.finish()
    episode = only(path)
    stream = episode.streams[VIDEO]
    assert stream.length == 120 - keys[1]
    np.testing.assert_array_equal(
        stream.values(0, 2), only(whole).streams[VIDEO].values(keys[1], keys[1] + 2)
    )
    assert "key picture" in fate(episode, "/camera/cam_high/video:data").how


def test_a_recording_too_large_to_be_held_is_read_from_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = [(START + i, {"a": float(i), "b": -float(i)}) for i in range(5_000)]
    held = only(write_joints(tmp_path / "held.mcap", told))
    monkeypatch.setattr(_topic_index, "_KEPT_BYTES", 0)
    read = only(write_joints(tmp_path / "read.mcap", told))
    assert set(read.streams) == set(held.streams)
    for name, stream in held.streams.items():
        np.testing.assert_array_equal(read.streams[name].values(), stream.values(), err_msg=name)
        np.testing.assert_array_equal(read.streams[name].values(4_321, 4_400), stream.values(4_321, 4_400))


def test_small_chunks_are_read_as_if_they_were_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    joined = only(write_file(tmp_path / "joined.mcap", Run(2), chunk_size=100))
    monkeypatch.setattr(_topic_index, "_JOINED_UNITS", 1)
    for path, size in (("alone.mcap", 100), ("whole.mcap", 1 << 20)):
        other = only(write_file(tmp_path / path, Run(2), chunk_size=size))
        assert set(other.streams) == set(joined.streams)
        for name, stream in joined.streams.items():
            np.testing.assert_array_equal(other.streams[name].values(), stream.values(), err_msg=name)


def test_names_that_change_late_are_all_told(tmp_path: Path) -> None:
    told = [(START + i, {"a": 1.0} if i < 4_500 else {"b": 2.0}) for i in range(5_000)]
    episode = only(write_joints(tmp_path / "a.mcap", told))
    first, second = (episode.streams[f"observation.joint_states.position{n}"] for n in ("", "_2"))
    assert (first.spec.axes, first.length, second.spec.axes, second.length) == (("a",), 4_500, ("b",), 500)


def write_pictures(path: Path, count: int) -> Path:
    """Write raw pictures of 1.2 MB each."""
    run = Run(2)
    kind = "sensor_msgs/msg/Image"
    with path.open("wb") as file:
        writer: Any = Writer(file, compression=CompressionType.LZ4)
        writer.start()
        schema = writer.register_schema(kind, "ros2msg", run.definition(kind).encode())
        channel = writer.register_channel("/cam", "cdr", schema)
        for i in range(count):
            stamp = START + i * 1_000_000
            data = np.full(1_200_000, i % 251, np.uint8)
            message = run.of(
                kind, header=run.header(stamp, ""), height=400, width=1_000, encoding="rgb8", is_bigendian=0,
                step=3_000, data=data,
            )  # fmt: skip
            writer.add_message(channel, stamp, bytes(run.store.serialize_cdr(message, kind)), stamp)
        writer.finish()
    return path


def read_through(path: Path) -> None:
    for stream in only(path).streams.values():
        for _ in stream:
            pass


@pytest.mark.slow
def test_memory_does_not_grow_with_the_recording(tmp_path: Path, peak_memory: Callable[..., int]) -> None:
    path = write_pictures(tmp_path / "long.mcap", 600)
    assert peak_memory(read_through, path) < 300 << 20
