"""A recording tells what the store holds, and nothing that the viewer would get wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from teleopen.hub import WriteOptions, create_store
from teleopen.hub.encode import Profile
from teleopen.schemas import UNKNOWN, Clock, Episode, Packets, Rights, Stream, StreamSpec, packet_blocks
from teleopen.schemas.decision import reasons
from teleopen.schemas.episode import Event

from tests import episodes as made_up
from tests.test_cli import NASTY, OPEN_RIGHTS
from tests.viewer import numbered
from tests.viewer.numbered import CAMERA, SECOND

pytest.importorskip("rerun", reason="the extra `viewer` is not installed")

from teleopen.viewer.plan import RecordOptions
from teleopen.viewer.record import Recorder, application_of, write
from teleopen.viewer.timing import Timing, lane

from tests.viewer.recordings import Read

IMAGE = "/cameras/top/image"


@pytest.fixture
def stored(tmp_path: Path) -> Callable[..., Episode]:
    def store(episode: Episode, profile: Profile = "train") -> Episode:
        store = create_store(tmp_path / f"store-{profile}")
        store.write([episode], WriteOptions(profile=profile))
        return store.episode(episode.id)

    return store


def recorded(episode: Episode, folder: Path, **options: Any) -> Read:
    path = folder / "episode.rrd"
    write(episode, path, RecordOptions(**options))
    return Read.of(path)


def test_values_and_times_are_those_of_the_store(stored: Callable[..., Episode], tmp_path: Path) -> None:
    episode = stored(made_up.make(steps=70))
    read = recorded(episode, tmp_path)
    for name, clock in (("observation.state", "steps"), ("imu.accel", "imu")):
        values = episode.streams[name].values()
        for axis in range(values.shape[1]):
            entity = next(
                c.path
                for plot in Recorder(episode, RecordOptions()).plan.plots
                for curves in [plot.axes[axis] if axis < len(plot.axes) else ()]
                for c in curves
                if c.stream == name
            )
            assert np.array_equal(read.numbers(entity, "Scalars:scalars"), values[:, axis].astype(np.float64))
            times = read.numbers(entity, "episode_time")
            assert np.array_equal(np.sort(times), episode.clocks[clock].read())


def test_samples_of_another_clock_stand_at_the_frame_that_was_current(tmp_path: Path) -> None:
    episode = made_up.make(steps=20)
    read = recorded(episode, tmp_path)
    imu, frames = episode.clocks["imu"].read(), episode.clocks["steps"].read()
    entity = next(name for name in read.batches if name.startswith("/imu/accel/"))
    told = dict(zip(read.column(entity, "episode_time"), read.column(entity, "frame"), strict=True))
    for time in imu:
        current = max((i for i, t in enumerate(frames) if t <= time), default=0)
        assert told[int(time)] == current


@pytest.mark.parametrize("profile", ["stream", "archive"])
def test_packets_in_order_are_handed_over_byte_for_byte(
    profile: Profile, stored: Callable[..., Episode], tmp_path: Path
) -> None:
    episode = stored(numbered.episode(), profile)
    packets = episode.streams[CAMERA].packets
    assert packets is not None
    read = recorded(episode, tmp_path)
    assert read.blobs(IMAGE, "VideoStream:sample") == [packet.data for packet in packets.read()]
    assert read.column(IMAGE, "episode_time") == episode.clocks["steps"].read().tolist()


def test_pictures_that_are_decoded_in_another_order_are_never_handed_over_one_by_one(
    stored: Callable[..., Episode], tmp_path: Path
) -> None:
    for episode in (numbered.encoded(), stored(numbered.episode(), "train")):
        packets = episode.streams[CAMERA].packets
        assert packets is not None
        shown = [packet.pts for packet in packets.read()]
        assert shown != sorted(shown)
        read = recorded(episode, tmp_path)
        assert "VideoStream:sample" not in read.components(IMAGE)
        assert len(read.column(IMAGE, "VideoFrameReference:timestamp")) == len(shown)
        assert read.blobs(f"{IMAGE}/film_0", "AssetVideo:blob")[0][4:8] == b"ftyp"


def test_one_packet_out_of_order_is_enough_to_tell_the_orders_apart(tmp_path: Path) -> None:
    """B-frames that begin after hours of none, as cameras with an adaptive encoder make them."""
    episode = numbered.encoded(options={"bf": "2", "b-adapt": "0"})
    packets = episode.streams[CAMERA].packets
    assert packets is not None
    tail = [p for p in packets.read() if p.pts >= 48]
    plain = numbered.encoded(options={"bf": "0"}).streams[CAMERA].packets
    assert plain is not None
    mixed = [*(p for p in plain.read() if p.pts < 48), *tail]
    camera = replace(
        episode.streams[CAMERA], packets=Packets(format=packets.format, blocks=lambda: packet_blocks(mixed))
    )
    episode = replace(episode, streams={**episode.streams, CAMERA: camera})
    assert "VideoStream:sample" not in recorded(episode, tmp_path).components(IMAGE)


def test_pictures_that_no_viewer_decodes_go_as_jpeg(stored: Callable[..., Episode], tmp_path: Path) -> None:
    episode = stored(numbered.episode(24), "lossless")
    blobs = recorded(episode, tmp_path).blobs(IMAGE, "EncodedImage:blob")
    assert len(blobs) == 24
    assert all(blob.startswith(b"\xff\xd8\xff") for blob in blobs)


def test_depth_keeps_its_samples_and_its_unit(tmp_path: Path) -> None:
    episode = made_up.make(steps=12, cameras=())
    depth = episode.streams["observation.depth.top"]
    metric = replace(depth, spec=replace(depth.spec, unit=("mm",)))
    for stream, meter in ((depth, None), (metric, 1000.0)):
        told = replace(episode, streams={**episode.streams, stream.spec.name: stream})
        read = recorded(told, tmp_path)
        frames = [blob for blob in read.blobs("/depth/top/image", "DepthImage:buffer") if blob]
        assert b"".join(frames) == stream.values().astype("<u2").tobytes()
        meters = read.column("/depth/top/image", "DepthImage:meter")
        assert [m for m in meters if m is not None] == ([] if meter is None else [meter])


def test_properties_tell_what_the_decision_says(tmp_path: Path) -> None:
    closed = numbered.episode()
    opened = replace(closed, rights=Rights.from_toml(OPEN_RIGHTS))
    assert not reasons(opened.rights, now=datetime.now(UTC))
    for episode, is_open in ((closed, False), (opened, True)):
        anomaly = Event(kind="anomaly", start_ns=0, text="jump")
        told = recorded(episode, tmp_path, source="store#0", events=[anomaly]).properties
        assert told == {
            "id": episode.id,
            "task": "Show which frame this is",
            "license": episode.rights.licence.expression,
            "redistributable": is_open,
            "robot": UNKNOWN,
            "outcome": UNKNOWN,
            "num_frames": 70,
            "duration_s": pytest.approx(2.3),
            "num_anomalies": 1,
            "source": "store#0",
        }


def test_a_closed_licence_that_begins_like_an_open_one_is_not_redistributable(tmp_path: Path) -> None:
    rights = Rights.from_toml(OPEN_RIGHTS.replace("CC-BY-4.0", "CC-BY-NC-4.0"))
    episode = replace(numbered.episode(8), rights=rights)
    told = recorded(episode, tmp_path).properties
    assert told["license"] == "CC-BY-NC-4.0"
    assert told["redistributable"] is False


def test_the_store_decides_over_its_episodes_and_not_their_headers(tmp_path: Path) -> None:
    opened = replace(numbered.episode(8), rights=Rights.from_toml(OPEN_RIGHTS))
    withdrawn = reasons(Rights(), now=datetime.now(UTC))
    assert recorded(opened, tmp_path, closed_by=withdrawn).properties["redistributable"] is False


def test_the_wall_time_is_there_only_if_the_source_told_it(tmp_path: Path) -> None:
    start = 1_700_000_000 * SECOND
    plain = numbered.episode(8)
    told = replace(plain, extra={"recording": {"start_ns": start}})
    boot = replace(plain, extra={"recording": {"start_ns": 5 * SECOND}})
    assert "wall_time" not in recorded(plain, tmp_path).components("/action/left_elbow")
    assert "wall_time" not in recorded(boot, tmp_path).components("/action/left_elbow")
    times = recorded(told, tmp_path).column("/action/left_elbow", "wall_time")
    assert times == (plain.clocks["steps"].read() + start).tolist()


def test_two_episodes_fit_into_one_recording_with_a_timeline_of_their_own(tmp_path: Path) -> None:
    from teleopen.viewer.rerun import saved

    episode = numbered.episode(8)
    with saved(tmp_path / "both.rrd", "both", "both") as sink:
        for prefix, late in (("A", 0), ("B", SECOND)):
            options = RecordOptions(prefix=prefix, timelines={"aligned": partial(np.add, late)})
            Recorder(episode, options).record(sink)
    read = Read.of(tmp_path / "both.rrd")
    times = episode.clocks["steps"].read()
    assert read.column("/A/action/left_elbow", "aligned") == times.tolist()
    assert read.column("/B/action/left_elbow", "aligned") == (times + SECOND).tolist()
    assert not [name for name in read.batches if not name.startswith(("/A/", "/B/", "/__properties"))]


@pytest.mark.parametrize("plain", [False, True])
def test_texts_of_recordings_are_shown_and_never_obeyed(plain: bool, tmp_path: Path) -> None:
    nasty = f"{NASTY} | # <b>x</b> ![x](http://example.invalid/x.png) `code` 杯 🤖 é"
    episode = numbered.episode(8, instructions=(nasty,), embodiment=nasty)
    episode = replace(episode, events=(Event(kind=nasty, start_ns=0, text=nasty),))
    state = episode.streams["observation.state"]
    spec = replace(state.spec, axes=(nasty, "杯/子"))
    episode = replace(episode, streams={**episode.streams, "observation.state": replace(state, spec=spec)})
    read = recorded(episode, tmp_path, ascii=plain)
    card = read.column("/info", "TextDocument:text")[0]
    title = card.splitlines()[0]
    assert "\\!\\[x\\]\\(http\\:\\/\\/example\\.invalid" in title
    assert "\\<b\\>" in title
    assert "\\`code\\`" in title
    told = [card, *read.batches, str(read.properties), *read.column("/events_as_text", "TextLog:text")]
    assert not any(c in text for text in told for c in "\x1b\x07\u202e")
    assert ("杯" in card) != plain
    assert not plain or all(text.isascii() for text in told)


def test_a_file_that_cannot_be_finished_is_not_there(tmp_path: Path) -> None:
    class BrokenError(Exception):
        pass

    def fail(start: int, stop: int) -> NoReturn:
        raise BrokenError

    episode = numbered.episode(8)
    broken = replace(episode.streams[CAMERA], read=fail)
    episode = replace(episode, streams={**episode.streams, CAMERA: broken})
    with pytest.raises(BrokenError):
        write(episode, tmp_path / "x.rrd")
    assert list(tmp_path.iterdir()) == []


def test_what_is_too_wide_for_curves_is_a_picture_of_numbers(tmp_path: Path) -> None:
    episode = numbered.episode(8)
    pads = np.arange(8 * 16 * 12, dtype=np.float32).reshape(8, 16, 12)
    spec = StreamSpec(name="observation.tactile.left", kind="low_dim", dtype="float32", shape=(16, 12))
    pad = Stream(spec=spec, length=8, read=lambda a, b: iter([pads[a:b]]))
    read = recorded(replace(episode, streams={**episode.streams, spec.name: pad}), tmp_path)
    tensors = read.column("/observation/tactile/left", "Tensor:data")
    assert [t["shape"] for t in tensors] == [[16, 12]] * 8


def test_an_episode_without_cameras_steps_or_instructions_can_be_recorded(tmp_path: Path) -> None:
    episode = numbered.episode(0)
    bare = replace(episode, streams={}, clocks={}, events=(), instructions=())
    assert recorded(bare, tmp_path).properties["num_frames"] == 0


def test_lanes_tell_what_holds_and_where_nothing_does() -> None:
    events = [
        Event(kind="phase", start_ns=0, stop_ns=10, text="a"),
        Event(kind="phase", start_ns=4, stop_ns=6, text="b"),
        Event(kind="phase", start_ns=20, text="c"),
    ]
    times, states = lane(events, 5)
    assert list(zip(times.tolist(), states, strict=True)) == [
        (0, "a"), (4, "b"), (6, "a"), (10, None), (20, "c"), (25, None),
    ]  # fmt: skip


def test_episodes_of_the_same_streams_share_a_layout_and_no_others() -> None:
    one, other = numbered.episode(8), numbered.episode(9)
    assert one.id != other.id
    assert application_of(one) == application_of(other)
    assert application_of(replace(one, embodiment="other")) != application_of(one)


def test_the_main_clock_is_that_of_the_cameras() -> None:
    episode = numbered.episode(8)
    fast = Clock(
        name="fast", kind="nominal", declared_hz=500, length=90, read=lambda: np.arange(90) * 2_000_000
    )
    timing = Timing(replace(episode, clocks={"fast": fast, **episode.clocks}), {})
    assert timing.main == "steps"
    assert timing.frames == 8
