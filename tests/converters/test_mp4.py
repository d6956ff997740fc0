"""MP4 files taken apart: packets are FFmpeg's own, cuts decode to the same pictures, traps are refused."""

from __future__ import annotations

import io
import os
import pickle
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeAlias

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from teleopen.converters import _bitstream, _mp4
from teleopen.converters._mp4 import Mp4Video
from teleopen.schemas import FormatError, Packet

Film = NDArray[np.uint8]
Edit: TypeAlias = "Callable[[int, av.Packet[Any]], av.Packet[Any] | None]"
LENGTH, HEIGHT, WIDTH = 50, 64, 80

ENCODERS: dict[str, tuple[str, str, dict[str, str]]] = {
    "h264-pyramid": ("libx264", "yuv420p", {"g": "12", "bf": "3", "x264-params": "b-pyramid=normal"}),
    "h264-open": ("libx264", "yuv420p", {"g": "10", "bf": "2", "x264-params": "open-gop=1:b-adapt=0"}),
    "h264-lossless": ("libx264rgb", "rgb24", {"g": "9", "qp": "0"}),
    "hevc-open": ("libx265", "yuv420p", {"g": "10", "preset": "ultrafast", "x265-params": "log-level=none"}),
    "av1-2": ("libsvtav1", "yuv420p", {"g": "2", "preset": "12", "svtav1-params": "lp=1"}),
    "av1-16": ("libsvtav1", "yuv420p", {"g": "16", "preset": "12", "svtav1-params": "lp=1"}),
    "vp9": ("libvpx-vp9", "yuv420p", {"g": "11", "deadline": "realtime", "cpu-used": "8"}),
    "mpeg4": ("mpeg4", "yuv420p", {"g": "10", "bf": "2"}),
}
REMUXED = [name for name in ENCODERS if name != "mpeg4"]


def film(length: int = LENGTH) -> Film:
    noise = np.random.default_rng(4)
    t, y, x = np.meshgrid(np.arange(length), np.arange(HEIGHT), np.arange(WIDTH), indexing="ij")
    waves = [np.sin((x * a + y * b + 2 * t) / 9) for a, b in noise.uniform(0.2, 1, (3, 2))]
    return np.stack([128 + 60 * wave for wave in waves], axis=-1).astype(np.uint8)


def encode(path: Path, name: str, pictures: Film | None = None, **tags: int) -> Path:
    encoder, pixel_format, options = ENCODERS[name]
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream = container.add_stream(encoder, rate=30, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, pixel_format
        stream.thread_count = 1
        for tag, value in tags.items():
            setattr(stream.codec_context, tag, value)
        for picture in film() if pictures is None else pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("videos")

    def of(name: str) -> Path:
        path = folder / f"{name}.mp4"
        return path if path.exists() else encode(path, name)

    return of


def in_sequence(path: Path) -> Film:
    """Decode the whole file as anybody would."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def joined(video: Mp4Video, start: int, stop: int, rows: int = 7) -> Film:
    return np.concatenate(list(video.frames(start, stop, rows)))


def demuxed(path: Path) -> Iterator[tuple[int, bytes]]:
    with av.open(str(path)) as container:
        for packet in container.demux(video=0):
            if packet.size:
                yield packet.pts or 0, bytes(packet)


def remux(source: Path, target: Path, edit: Edit, **options: str) -> Path:
    """Copy the packets of a video, after ``edit`` looked at each; None leaves one out."""
    with av.open(str(source)) as old, av.open(str(target), "w", format="mp4", options=options) as new:
        video = old.streams.video[0]
        stream = new.add_stream_from_template(video, opaque=True)
        for number, packet in enumerate(old.demux(video)):
            if packet.size and (edited := edit(number, packet)) is not None:
                edited.stream = stream
                new.mux(edited)
    return target


def raw_muxed(path: Path, muxer: str) -> bytes:
    """Return FFmpeg's own elementary stream of a video."""
    out = io.BytesIO()
    with av.open(str(path)) as source, av.open(out, "w", format=muxer) as container:
        video = source.streams.video[0]
        stream = container.add_stream_from_template(video, opaque=True)
        for packet in source.demux(video):
            if packet.size:
                packet.stream = stream
                container.mux(packet)
        container.close()
        return out.getvalue()


def test_h264_packets_are_ffmpegs_annex_b(videos: Callable[[str], Path]) -> None:
    video = Mp4Video(videos("h264-pyramid"))
    assert b"".join(p.data for p in video.packets(0, len(video))) == raw_muxed(video.path, "h264")


def test_hevc_packets_are_ffmpegs_annex_b(videos: Callable[[str], Path]) -> None:
    video = Mp4Video(videos("hevc-open"))
    assert b"".join(p.data for p in video.packets(0, len(video))) == raw_muxed(video.path, "hevc")


@pytest.mark.parametrize("name", ["av1-2", "av1-16"])
def test_av1_packets_are_ffmpegs_obus_without_delimiters(name: str, videos: Callable[[str], Path]) -> None:
    video = Mp4Video(videos(name))
    units = [b"\x12\0" + p.data for p in video.packets(0, len(video))]
    assert b"".join(units) == raw_muxed(video.path, "obu")


def test_vp9_packets_are_as_they_came(videos: Callable[[str], Path]) -> None:
    video = Mp4Video(videos("vp9"))
    assert [p.data for p in video.packets(0, len(video))] == [data for _, data in demuxed(video.path)]


@pytest.mark.parametrize("name", ENCODERS)
def test_any_cut_decodes_as_the_whole_does(name: str, videos: Callable[[str], Path]) -> None:
    video, whole = Mp4Video(videos(name)), in_sequence(videos(name))
    assert len(video) == len(whole) == LENGTH
    chance = random.Random(name)
    cuts = [sorted(chance.sample(range(LENGTH + 1), 2)) for _ in range(12)]
    for start, stop in [(0, LENGTH), (LENGTH - 1, LENGTH), *cuts]:
        np.testing.assert_array_equal(
            joined(video, start, stop), whole[start:stop], err_msg=f"[{start}:{stop}]"
        )


@pytest.mark.parametrize("name", REMUXED)
def test_packets_of_a_cut_are_what_it_takes(name: str, videos: Callable[[str], Path]) -> None:
    video = Mp4Video(videos(name))
    for start in range(0, LENGTH - 9, 4):
        packets = list(video.packets(start, start + 9))
        numbers = [p.pts for p in packets]
        assert packets[0].key
        assert numbers[0] <= 0
        assert min(numbers) == numbers[0], "pictures from before the key frame are of no use"
        assert sorted(n for n in numbers if 0 <= n < 9) == list(range(9))
        assert 0 <= numbers[-1] < 9, "nothing comes after the last one that is wanted"
        assert not any(p.key and p.pts <= 0 for p in packets[1:]), "a later key frame would have done"


@pytest.mark.parametrize("name", REMUXED)
def test_packets_decode_without_their_file(name: str, videos: Callable[[str], Path]) -> None:
    video, whole = Mp4Video(videos(name)), in_sequence(videos(name))
    form = video.format
    assert form is not None
    decoder = av.CodecContext.create("libdav1d" if form.codec == "av1" else form.codec, "r")
    assert isinstance(decoder, av.VideoCodecContext)
    shown = {}
    for packet in [*(as_av(p) for p in video.packets(17, 31)), None]:
        for frame in decoder.decode(packet):
            assert frame.format.name == form.pixel_format
            shown[frame.pts] = frame.to_ndarray(format="rgb24")
    np.testing.assert_array_equal(np.stack([shown[i] for i in range(14)]), whole[17:31])


def as_av(packet: Packet) -> av.Packet[Any]:
    found: av.Packet[Any] = av.Packet(packet.data)
    found.pts = packet.pts
    return found


@pytest.mark.parametrize(
    ("name", "starts"),
    [
        ("h264-pyramid", b"\0\0\0\1\x67"),
        ("h264-open", b"\0\0\0\1\x67"),
        ("hevc-open", b"\0\0\0\1\x40"),
        ("av1-2", b"\x0a"),
    ],
)
def test_every_key_frame_has_its_parameters(name: str, starts: bytes, videos: Callable[[str], Path]) -> None:
    video = Mp4Video(videos(name))
    keys = [p.data for p in video.packets(0, LENGTH) if p.key]
    assert len(keys) > 3
    for data in keys:
        assert starts in data[:1000]


def test_av1_gets_back_the_header_that_was_left_to_the_container(
    videos: Callable[[str], Path], tmp_path: Path
) -> None:
    whole = Mp4Video(videos("av1-2"))
    stripper = av.BitStreamFilterContext("filter_units=remove_types=1", "av1")
    bare = remux(whole.path, tmp_path / "bare.mp4", lambda _, packet: filtered(stripper, packet))
    assert sum(len(data) for _, data in demuxed(bare)) < sum(len(data) for _, data in demuxed(whole.path))
    with av.open(str(bare)) as container:
        record = container.streams.video[0].codec_context.extradata
    assert record is not None
    for packet, (_, data) in zip(Mp4Video(bare).packets(0, LENGTH), demuxed(bare), strict=True):
        # Not decoded: what SVT-AV1 tells the container is not the header that it puts into the stream.
        assert packet.data == (record[4:] + data if packet.key else data)


def filtered(bitstream_filter: av.BitStreamFilterContext, packet: av.Packet[Any]) -> av.Packet[Any]:
    pts, dts, key, base = packet.pts, packet.dts, packet.is_keyframe, packet.time_base
    (found,) = bitstream_filter.filter(packet)
    found.pts, found.dts, found.is_keyframe, found.time_base = pts, dts, key, base
    return found


def test_av1_gets_the_size_that_may_be_left_out() -> None:
    unsized = b"\x0a\x03abc" + b"\x30" + bytes(200)
    assert b"".join(
        unit for _, unit in _bitstream._obus(unsized)
    ) == b"\x0a\x03abc" + b"\x32\xc8\x01" + bytes(200)


@pytest.mark.parametrize("data", [b"\x0a\x05abc", b"\x8a\x00", b"\x0a" + b"\x80" * 9, b"\x0a"])
def test_malformed_obus_are_told(data: bytes) -> None:
    with pytest.raises(ValueError, match="malformed"):
        list(_bitstream._obus(data))


def test_a_late_start_shifts_no_index(videos: Callable[[str], Path], tmp_path: Path) -> None:
    def later(_: int, packet: av.Packet[Any]) -> av.Packet[Any]:
        assert packet.pts is not None
        assert packet.dts is not None
        packet.pts, packet.dts = packet.pts + 7000, packet.dts + 7000
        return packet

    plain = Mp4Video(videos("h264-pyramid"))
    late = Mp4Video(remux(plain.path, tmp_path / "late.mp4", later, use_editlist="0"))
    np.testing.assert_array_equal(late.times, plain.times)
    np.testing.assert_array_equal(joined(late, 5, 20), joined(plain, 5, 20))


def test_what_an_edit_list_hides_is_not_counted(videos: Callable[[str], Path], tmp_path: Path) -> None:
    hidden, step = 6, 512

    def earlier(_: int, packet: av.Packet[Any]) -> av.Packet[Any]:
        assert packet.pts is not None
        assert packet.dts is not None
        packet.pts, packet.dts = packet.pts - hidden * step, packet.dts - hidden * step
        return packet

    path = remux(
        videos("h264-pyramid"),
        tmp_path / "edited.mp4",
        earlier,
        avoid_negative_ts="disabled",
        use_editlist="1",
    )
    video, whole = Mp4Video(path), in_sequence(path)
    assert len(video) == len(whole) == LENGTH - hidden
    np.testing.assert_array_equal(joined(video, 0, 9), whole[:9])
    assert sorted(p.pts for p in video.packets(0, 9))[:hidden] == list(range(-hidden, 0))


def test_a_fragmented_file_is_like_any_other(videos: Callable[[str], Path], tmp_path: Path) -> None:
    plain = Mp4Video(videos("h264-pyramid"))
    flags = "frag_keyframe+empty_moov+delay_moov"
    live = Mp4Video(remux(plain.path, tmp_path / "live.mp4", lambda _, packet: packet, movflags=flags))
    assert list(live.packets(5, 20)) == list(plain.packets(5, 20))


def test_times_of_a_variable_rate_are_the_pictures_own(videos: Callable[[str], Path], tmp_path: Path) -> None:
    def uneven(number: int, packet: av.Packet[Any]) -> av.Packet[Any]:
        packet.pts = packet.dts = number**2 * 512
        return packet

    video = Mp4Video(remux(videos("av1-2"), tmp_path / "uneven.mp4", uneven))
    assert video.times[:4].tolist() == [round(i**2 * 1e9 / 30) for i in range(4)]


def test_two_pictures_of_one_time_are_refused(videos: Callable[[str], Path], tmp_path: Path) -> None:
    def doubled(number: int, packet: av.Packet[Any]) -> av.Packet[Any]:
        packet.dts = number * 512
        packet.pts = (5 if number == 4 else number) * 512
        return packet

    path = remux(videos("av1-2"), tmp_path / "doubled.mp4", doubled)
    with pytest.raises(FormatError, match=r"\[packet 5\]: has the presentation time of another"):
        Mp4Video(path)


def test_colours_are_those_of_the_tags(tmp_path: Path) -> None:
    path = encode(tmp_path / "tagged.mp4", "h264-pyramid", colorspace=1, color_range=2)
    video = Mp4Video(path)
    assert video.format is not None
    assert (video.format.matrix, video.format.range) == ("bt709", "full")
    assert not video.attributes
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        told = frame.reformat(format="rgb24", src_colorspace="ITU709", src_color_range="JPEG").to_ndarray()
    np.testing.assert_array_equal(joined(video, 0, 1)[0], told)


def test_colours_without_tags_are_assumed_and_said_to_be(videos: Callable[[str], Path]) -> None:
    video = Mp4Video(videos("h264-pyramid"))
    assert video.format is not None
    assert (video.format.matrix, video.format.range) == ("bt601", "limited")
    assert video.attributes == {"colours_assumed": ["matrix", "range"]}


def test_rgb_needs_no_matrix(videos: Callable[[str], Path]) -> None:
    video = Mp4Video(videos("h264-lossless"))
    assert video.format is not None
    assert (video.format.matrix, video.format.pixel_format) == ("rgb", "gbrp")
    np.testing.assert_array_equal(joined(video, 3, 9), film()[3:9])


def test_deep_grey_keeps_its_codes(tmp_path: Path) -> None:
    codes = np.random.default_rng(1).integers(0, 4096, (5, HEIGHT, WIDTH), np.uint16)
    path = tmp_path / "deep.mp4"
    with av.open(str(path), "w", format="mp4") as container:
        options = {"x265-params": "lossless=1:log-level=none"}
        stream = container.add_stream("libx265", rate=30, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "gray12le"
        for picture in codes:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="gray12le")))
        container.mux(stream.encode())
    np.testing.assert_array_equal(joined(Mp4Video(path), 0, 5), codes)


def test_sound_is_told_and_left_out(videos: Callable[[str], Path], tmp_path: Path) -> None:
    path = tmp_path / "sound.mp4"
    plain = Mp4Video(videos("h264-pyramid"))
    with av.open(str(plain.path)) as old, av.open(str(path), "w", format="mp4") as new:
        video = new.add_stream_from_template(old.streams.video[0], opaque=True)
        sound = new.add_stream("aac", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 16_000, 0, Fraction(1, 16_000)
        new.mux(sound.encode(frame))
        new.mux(sound.encode(None))
        for packet in old.demux(video=0):
            if packet.size:
                packet.stream = video
                new.mux(packet)
    assert not plain.audio
    assert Mp4Video(path).audio
    assert list(Mp4Video(path).packets(0, LENGTH)) == list(plain.packets(0, LENGTH))


@pytest.mark.parametrize(
    "text", ["ffconcat version 1.0\nfile secret.mp4\n", "#EXTM3U\n#EXTINF:1,\nsecret.mp4\n", "", "ftyp"]
)
def test_a_text_that_names_other_files_is_refused(
    text: str, videos: Callable[[str], Path], tmp_path: Path
) -> None:
    tmp_path.joinpath("secret.mp4").write_bytes(videos("av1-2").read_bytes())
    trap = tmp_path / "trap.mp4"
    trap.write_text(text)
    with pytest.raises(FormatError, match="file type box"):
        Mp4Video(trap)


def test_a_cut_off_file_is_refused(videos: Callable[[str], Path], tmp_path: Path) -> None:
    raw, path = videos("h264-pyramid").read_bytes(), tmp_path / "cut.mp4"
    shares = [int(len(raw) * share) for share in (0.02, 0.2, 0.5, 0.9, 0.999)]
    between = Mp4Video(videos("h264-pyramid"))._index.offset[[1, 7, -1]].tolist()
    for length in (*shares, *between):
        path.write_bytes(raw[:length])
        with pytest.raises(FormatError) as caught:
            Mp4Video(path)
        assert caught.value.path == str(path)
        assert caught.value.where


def test_a_file_that_was_cut_off_since_it_was_looked_at_is_refused(
    videos: Callable[[str], Path], tmp_path: Path
) -> None:
    path = tmp_path / "shrunk.mp4"
    path.write_bytes(videos("av1-2").read_bytes())
    video = Mp4Video(path)
    os.truncate(path, int(video._index.offset[7]) + 1)
    with pytest.raises(FormatError, match=r"packet 7\]: is cut off"):
        list(video.packets(0, LENGTH))


@pytest.mark.parametrize(("limit", "most"), [("PACKET_BLOCK_ROWS", 3), ("PACKET_BLOCK_BYTES", 900)])
@pytest.mark.parametrize("name", REMUXED)
def test_small_blocks_hold_the_same_packets(
    name: str, limit: str, most: int, videos: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    video = Mp4Video(videos(name))
    whole = list(video.packets(3, 47))
    monkeypatch.setattr(_mp4, limit, most)
    blocks = list(video.blocks(3, 47))
    assert [packet for block in blocks for packet in block] == whole
    assert len(blocks) > 1
    assert all(len(block) <= most for block in blocks)


@pytest.mark.parametrize("name", ["h264-pyramid", "hevc-open", "av1-2", "vp9", "mpeg4"])
def test_a_flipped_bit_is_told_or_bears_no_harm(
    name: str, videos: Callable[[str], Path], tmp_path: Path
) -> None:
    raw, path, chance = videos(name).read_bytes(), tmp_path / "flipped.mp4", random.Random(6)
    for _ in range(40):
        damaged = bytearray(raw)
        damaged[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        with suppress(FormatError):
            video = Mp4Video(path)
            assert len(joined(video, 0, len(video))) == len(video)


def test_a_huge_picture_is_not_decoded(
    videos: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    _mp4._cached_index.cache_clear()
    monkeypatch.setattr(_mp4, "MAX_PIXELS", HEIGHT * WIDTH - 1)
    with pytest.raises(FormatError, match="80x64"):
        Mp4Video(videos("h264-pyramid"))


def test_too_many_pictures_are_not_counted(
    videos: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    _mp4._cached_index.cache_clear()
    monkeypatch.setattr(_mp4, "MAX_FRAMES", LENGTH - 1)
    with pytest.raises(FormatError, match="packet 49"):
        Mp4Video(videos("h264-pyramid"))


def test_a_file_is_read_once_and_again_when_it_changes(videos: Callable[[str], Path], tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    path.write_bytes(videos("av1-2").read_bytes())
    before = _mp4._cached_index.cache_info().misses
    lengths = [len(Mp4Video(path)) for _ in range(100)]
    assert lengths == [LENGTH] * 100
    assert _mp4._cached_index.cache_info().misses == before + 1
    encode(path, "av1-2", film(30))
    assert len(Mp4Video(path)) == 30


def test_a_range_outside_is_the_callers_fault(videos: Callable[[str], Path]) -> None:
    video = Mp4Video(videos("av1-2"))
    assert list(video.packets(4, 4)) == []
    for start, stop in [(-1, 2), (0, LENGTH + 1), (3, 2)]:
        with pytest.raises(IndexError):
            next(video.packets(start, stop))


@pytest.mark.usefixtures("no_leaks")
def test_half_read_videos_are_closed_and_videos_travel(videos: Callable[[str], Path]) -> None:
    video = pickle.loads(pickle.dumps(Mp4Video(videos("h264-pyramid"))))
    assert video == Mp4Video(videos("h264-pyramid"))
    for reader in (video.packets(0, LENGTH), video.frames(0, LENGTH, 1)):
        next(reader)
        reader.close()


@pytest.mark.parametrize(
    "sample",
    [
        "lerobot/v3.0_aloha_sim_2tasks/videos/observation.images.top/chunk-000/file-000.mp4",
        "lerobot/v3.0_g1_bottle_officially_converted/videos/observation.images.cam_high/chunk-000/file-000.mp4",
        "lerobot/v3.0_so101_pick_place/videos/observation.images.wrist/chunk-000/file-000.mp4",
    ],
)
def test_recorders_own_files(sample: str, shared_data: Path) -> None:
    video = Mp4Video(shared_data / sample)
    units = [b"\x12\0" + p.data for p in video.packets(0, len(video))]
    assert b"".join(units) == raw_muxed(video.path, "obu")
    whole = in_sequence(video.path)[:200]
    for start, stop in [(0, 40), (33, 61), (120, 121)]:
        np.testing.assert_array_equal(joined(video, start, stop), whole[start:stop])
