"""What the bitstream says of its packets, held against what encoders and decoders do."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from teleopen.hub.bitstream import UNSURE, Inspector, without_sei
from teleopen.schemas import Packet, VideoFormat

from tests.hub.clips import clip, in_sequence, stream

QUIET = {"x265-params": "log-level=none:pools=none:frame-threads=1"}
SOURCES = {
    "h264": ("libx264", {"preset": "veryfast", "x264-params": "scenecut=0"}),
    "h264 pyramid": ("libx264", {"preset": "fast", "x264-params": "bframes=5:b-adapt=0:b-pyramid=normal"}),
    "hevc": ("libx265", {"preset": "ultrafast", **QUIET}),
    "hevc layers": (
        "libx265",
        {"preset": "ultrafast", "x265-params": QUIET["x265-params"] + ":temporal-layers=1:bframes=4"},
    ),
    "av1 low delay": ("libsvtav1", {"preset": "10", "svtav1-params": "pred-struct=1:lp=1"}),
    "av1 random access": ("libsvtav1", {"preset": "10", "svtav1-params": "pred-struct=2:lp=1"}),
    "vp9": ("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "12"}),
}


@pytest.fixture(autouse=True)
def _quiet_svt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SVT_LOG", "0")


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return clip(40, 64, 96, noise=1.0)


@pytest.fixture(params=SOURCES)
def source(request: pytest.FixtureRequest, pictures: np.ndarray) -> tuple[list[Packet], VideoFormat]:
    encoder, options = SOURCES[request.param]
    return stream(pictures, encoder, options, gop=16)


def test_disposable_packets_can_be_left_out(source: tuple[list[Packet], VideoFormat]) -> None:
    packets, video = source
    inspect = Inspector(video.codec)
    kept = [packet for packet in packets if not inspect(packet.data).disposable]
    whole, part = in_sequence(packets, video), in_sequence(kept, video)
    assert set(part) == {packet.pts for packet in kept}
    for pts, picture in part.items():
        np.testing.assert_array_equal(picture, whole[pts])


def test_decoding_can_start_at_every_key_packet(source: tuple[list[Packet], VideoFormat]) -> None:
    packets, video = source
    inspect = Inspector(video.codec)
    keys = [index for index, packet in enumerate(packets) if inspect(packet.data).key]
    whole = in_sequence(packets, video)
    assert keys[0] == 0
    assert len(keys) >= 2
    for key in keys:
        first = packets[key].pts
        rest = [packet for packet in packets[key:] if packet.pts >= first]
        found = in_sequence(rest, video)
        assert set(found) == {packet.pts for packet in rest}
        for pts, picture in found.items():
            np.testing.assert_array_equal(picture, whole[pts])


@pytest.mark.parametrize("name", ["h264", "hevc", "av1 low delay"])
def test_what_encoders_drop_is_recognised(name: str, pictures: np.ndarray) -> None:
    encoder, options = SOURCES[name]
    packets, video = stream(pictures, encoder, options, gop=16)
    inspect = Inspector(video.codec)
    assert sum(inspect(packet.data).disposable for packet in packets) >= len(packets) // 4


def one_by_one(codec: str, packets: list[bytes]) -> list[tuple[bool, bool]]:
    inspect = Inspector(codec)
    return [(flags.key, flags.disposable) for flags in map(inspect, packets)]


def at_once(codec: str, parts: list[list[bytes]]) -> list[tuple[bool, bool]]:
    inspect = Inspector(codec)
    found: list[tuple[bool, bool]] = []
    for packets in parts:
        size = np.array([len(data) for data in packets])
        flags = inspect.block(np.frombuffer(b"".join(packets), np.uint8), size)
        found += zip(*(column.tolist() for column in flags), strict=True)
    return found


def test_blocks_say_what_their_packets_say(source: tuple[list[Packet], VideoFormat]) -> None:
    packets, video = source
    data = [packet.data for packet in packets]
    assert at_once(video.codec, [data[:7], data[7:8], data[8:]]) == one_by_one(video.codec, data)


@pytest.mark.parametrize("name", SOURCES)
@given(data=st.data())
def test_blocks_of_damaged_packets_say_what_their_packets_say(name: str, data: st.DataObject) -> None:
    packets, codec = _few(name)
    chosen = data.draw(st.lists(st.sampled_from(packets), min_size=1, max_size=6))
    for number, packet in enumerate(chosen):
        if data.draw(st.booleans()):
            raw = bytearray(packet[: data.draw(st.integers(1, 60) | st.just(len(packet)))])
            raw[data.draw(st.integers(0, min(len(raw) - 1, 40)))] = data.draw(st.integers(0, 255))
            chosen[number] = bytes(raw)
    cut = data.draw(st.integers(1, len(chosen)))
    parts = [part for part in (chosen[:cut], chosen[cut:]) if part]
    assert at_once(codec, parts) == one_by_one(codec, chosen)


@pytest.mark.parametrize("codec", ["h264", "hevc", "vp9", "av1"])
@given(
    data=st.binary(max_size=60),
    start=st.sampled_from([b"", b"\0\0\1", b"\0\0\0\1", b"\x0a\x0b", b"\x32\x10"]),
)
def test_garbage_is_neither_key_nor_error(codec: str, data: bytes, start: bytes) -> None:
    flags = Inspector(codec)(start + data)
    assert not (flags.key and flags.disposable)


@pytest.mark.parametrize("name", ["h264", "hevc", "vp9", "av1 low delay"])
@given(cut=st.integers(0, 200), bit=st.integers(0, 400))
def test_damage_to_real_headers_is_no_error(name: str, cut: int, bit: int) -> None:
    packets, codec = _few(name)
    inspect = Inspector(codec)
    for data in packets:
        broken = bytearray(data[: cut or None])
        broken[bit // 8 % len(broken)] ^= 1 << bit % 8
        inspect(bytes(broken))


_cache: dict[str, tuple[list[bytes], str]] = {}


def _few(name: str) -> tuple[list[bytes], str]:
    if name not in _cache:
        encoder, options = SOURCES[name]
        packets, video = stream(clip(6, 64, 96), encoder, options)
        _cache[name] = [packet.data for packet in packets], video.codec
    return _cache[name]


def test_a_key_picture_without_its_parameter_sets_is_no_place_to_start() -> None:
    packets, _ = _few("h264")
    whole = packets[0]
    bare = whole[whole.rindex(b"\0\0\1\x65") :] if b"\0\0\1\x65" in whole else whole[-100:]
    assert Inspector("h264")(whole).key
    assert not Inspector("h264")(bare).key
    assert Inspector("h264")(b"") == UNSURE


def test_sei_is_taken_out_and_nothing_else() -> None:
    packets, _ = _few("h264")
    lean = without_sei(packets[0])
    assert b"x264" in packets[0]
    assert b"x264" not in lean
    assert Inspector("h264")(lean) == Inspector("h264")(packets[0])
    assert without_sei(lean) == lean
    assert without_sei(b"\0\0\1") in {b"", b"\0\0\1"}


def test_an_unknown_codec_is_refused() -> None:
    with pytest.raises(ValueError, match="theora"):
        Inspector("theora")
