"""Frames through encoders and decoders: exact where that is promised, close where it is not, never wrong."""

import io
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from teleopen.hub import decode
from teleopen.hub.decode import decode_into, format_problem, write_pixels
from teleopen.hub.encode import Encoding, choose, encode_gop, encoding_of, format_of
from teleopen.hub.gop import Entry, pack, unpack
from teleopen.hub.quality import EQUAL_DB, measure, ssim
from teleopen.hub.source import gops_from_packets, slots_for_source
from teleopen.schemas import DamageError, FormatError, Packet, VideoFormat, packet_blocks

from tests.hub.clips import clip, in_sequence, stream

Pixels = NDArray[np.uint8]
HEIGHT, WIDTH = 96, 128


def decoded(chunk: bytes, video: VideoFormat, slots: Any, shape: tuple[int, ...]) -> Pixels:
    out = np.full((len(slots), *shape), 77, np.uint8)
    decode_into(chunk, video, slots, out)
    return out


@pytest.fixture(scope="module")
def pictures() -> Pixels:
    return clip(32, HEIGHT, WIDTH)


@pytest.fixture(scope="module")
def star(pictures: Pixels) -> tuple[bytes, Encoding]:
    encoding = choose(pictures, profile="train", quality_db=37)
    return encode_gop(pictures, encoding, quality_db=37)[0], encoding


# ---------------------------------------------------------------- every profile

CASES = {
    "train": ("train", 3, "yuv420p"),
    "train 4:4:4": ("train", 3, "yuv444p"),
    "train grey": ("train", 1, "yuv420p"),
    "stream": ("stream", 3, "yuv420p"),
    "archive": ("archive", 3, "yuv420p"),
    "archive grey": ("archive", 1, "yuv420p"),
    "lossless": ("lossless", 3, "yuv420p"),
    "lossless grey": ("lossless", 1, "yuv420p"),
}


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[Pixels, Encoding, bytes, Pixels]:
    """Give frames of odd size, how they are encoded, the chunk, and all of its frames at once."""
    profile, channels, pixel_format = CASES[request.param]
    frames = clip(29, HEIGHT - 1, WIDTH + 1, channels)
    video = format_of(frames, profile, pixel_format)  # type: ignore[arg-type]
    encoding = encoding_of(video, profile)  # type: ignore[arg-type]
    chunk, quality = encode_gop(frames, encoding, quality_db=37)
    whole = decoded(chunk, video, range(29), frames.shape[1:])
    assert measure(frames, whole).psnr_db == pytest.approx(quality.psnr_db, abs=1.5)
    return frames, encoding, chunk, whole


@settings(max_examples=25)
@given(st.data())
def test_a_frame_is_the_same_alone_and_in_any_window(
    case: tuple[Pixels, Encoding, bytes, Pixels], data: st.DataObject
) -> None:
    frames, encoding, chunk, whole = case
    slots = sorted(data.draw(st.lists(st.integers(0, 31), min_size=1, max_size=6)))
    found = decoded(chunk, encoding.video, slots, frames.shape[1:])
    np.testing.assert_array_equal(found, whole[np.minimum(slots, 28)])


def test_every_frame_is_the_same_alone(case: tuple[Pixels, Encoding, bytes, Pixels]) -> None:
    frames, encoding, chunk, whole = case
    for slot in range(29):
        np.testing.assert_array_equal(
            decoded(chunk, encoding.video, [slot], frames.shape[1:])[0], whole[slot]
        )


def test_encoding_is_a_pure_function(case: tuple[Pixels, Encoding, bytes, Pixels]) -> None:
    frames, encoding, chunk, _ = case
    assert encode_gop(frames, encoding, quality_db=37)[0] == chunk
    assert encode_gop(np.asfortranarray(frames), encoding, quality_db=37)[0] == chunk


@pytest.mark.parametrize("profile", ["train", "archive"])
def test_what_lies_in_unused_memory_does_not_get_into_a_chunk(profile: str) -> None:
    code = """if True:
        import sys, zlib
        from teleopen.hub.encode import encode_gop, encoding_of, format_of
        from tests.hub.clips import clip
        frames = clip(17, 98, 144)
        encoding = encoding_of(format_of(frames, sys.argv[1]), sys.argv[1])
        print(zlib.crc32(encode_gop(frames, encoding, quality_db=30)[0]))
    """
    root = Path(__file__).parents[2]
    found = {
        subprocess.run(
            [sys.executable, "-c", code, profile],
            check=True,
            capture_output=True,
            cwd=root,
            env={
                **os.environ,
                "MALLOC_PERTURB_": filler,
                "PYTHONPATH": os.pathsep.join(map(str, [root, *sys.path])),
            },
        ).stdout
        for filler in ("0", "1")
    }
    assert len(found) == 1


def test_quality_holds(case: tuple[Pixels, Encoding, bytes, Pixels]) -> None:
    frames, encoding, _, whole = case
    found = measure(frames, whole)
    if encoding.profile == "lossless":
        np.testing.assert_array_equal(whole, frames)
        assert found.psnr_db == EQUAL_DB
    assert found.psnr_db > 36
    assert found.ssim > 0.9


def test_a_decoder_that_holds_more_pictures_back_gives_the_same(
    star: tuple[bytes, Encoding], pictures: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunk, encoding = star
    whole = decoded(chunk, encoding.video, range(32), pictures.shape[1:])
    fresh: list[int | None] = []
    create, attempt = decode._Decoder, decode._attempt

    def counting(video: VideoFormat, depth: int | None = None) -> decode._Decoder:
        fresh.append(depth)
        return create(video, depth)

    def first_fails(decoder: decode._Decoder, *rest: Any) -> set[int]:
        missing = attempt(decoder, *rest)
        return missing if fresh else {0}

    monkeypatch.setattr(decode, "_Decoder", counting)
    monkeypatch.setattr(decode, "_attempt", first_fails)
    np.testing.assert_array_equal(decoded(chunk, encoding.video, range(32), pictures.shape[1:]), whole)
    assert fresh == [16]


def test_the_first_packet_is_the_only_entry_of_a_star(star: tuple[bytes, Encoding]) -> None:
    packets = unpack(star[0], 32).packets
    assert [entry.pts for entry in packets if entry.key] == [0]
    assert {entry.pts for entry in packets if not entry.disposable} == {0, 16, 31}


# ---------------------------------------------------------------- lossless


@settings(max_examples=20)
@given(
    st.integers(1, 20),
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from([1, 3]),
    st.integers(0, 2**32 - 1),
)
def test_lossless_is_exact_for_any_noise_of_any_size(
    n: int, height: int, width: int, channels: int, seed: int
) -> None:
    frames = np.random.default_rng(seed).integers(0, 256, (n, height, width, channels), np.uint8)
    encoding = choose(frames, profile="lossless", quality_db=37)
    chunk, quality = encode_gop(frames, encoding, quality_db=37)
    np.testing.assert_array_equal(decoded(chunk, encoding.video, range(n), frames.shape[1:]), frames)
    assert quality.min_psnr_db == EQUAL_DB


# ---------------------------------------------------------------- choosing


def test_the_target_is_met_and_not_overshot(star: tuple[bytes, Encoding], pictures: Pixels) -> None:
    chunk, encoding = star
    found = measure(pictures, decoded(chunk, encoding.video, range(32), pictures.shape[1:]))
    assert 36.9 <= found.psnr_db <= 38.0
    assert "train" in encoding.reason
    assert "dB" in encoding.reason


@pytest.mark.parametrize("quality_db", [34.0, 40.0])
def test_the_target_is_what_was_asked_for(pictures: Pixels, quality_db: float) -> None:
    encoding = choose(pictures, profile="train", quality_db=quality_db)
    _, quality = encode_gop(pictures, encoding, quality_db=quality_db)
    assert quality_db - 0.7 <= quality.min_psnr_db <= quality.psnr_db <= quality_db + 1.5


def test_a_chunk_that_is_harder_than_the_sample_keeps_the_floor() -> None:
    easy, hard = clip(32, HEIGHT, WIDTH, noise=0), clip(32, HEIGHT, WIDTH, noise=6)
    encoding = choose(easy, profile="train", quality_db=37)
    _, quality = encode_gop(hard, encoding, quality_db=37)
    assert quality.min_psnr_db >= 36.5


def test_sharp_colour_is_not_subsampled() -> None:
    frames = np.zeros((32, HEIGHT, WIDTH, 3), np.uint8)
    frames[:, :, ::2, 0] = 255
    frames[:, ::2, :, 2] = 255
    encoding = choose(frames, profile="auto", quality_db=37)
    assert encoding.video.pixel_format in {"yuv444p", "gbrp"}
    assert "colour" in encoding.reason
    assert encode_gop(frames, encoding, quality_db=37)[1].min_psnr_db >= 36.5


def test_auto_takes_archive_for_smooth_content_and_says_both_figures() -> None:
    smooth = clip(64, HEIGHT, WIDTH, noise=0)
    for axis in (1, 2):
        smooth = np.mean([np.roll(smooth, shift, axis) for shift in range(-3, 4)], 0).astype(np.uint8)
    encoding = choose(smooth, profile="auto", quality_db=42)
    assert "train (h264" in encoding.reason
    assert "archive (av1" in encoding.reason


def test_small_pictures_are_not_given_to_av1() -> None:
    encoding = choose(clip(8, 32, 40), profile="archive", quality_db=37)
    assert encoding.profile == "train"
    assert "AV1" in encoding.reason


def test_what_cannot_be_encoded_is_refused(pictures: Pixels) -> None:
    wrong: list[Any] = [pictures[0], pictures[..., :2], pictures[:0], pictures.astype(np.float32)]
    for frames in wrong:
        with pytest.raises(ValueError, match="uint8"):
            choose(frames, profile="train", quality_db=37)
    with pytest.raises(ValueError, match="packets"):
        choose(pictures, profile="source", quality_db=37)


ENCODE_ALL = """
import numpy as np
from teleopen.hub.encode import encode_gop, encoding_of, format_of
frames = np.random.default_rng(0).integers(0, 255, (4, 64, 64, 3), "uint8")
for profile in ("train", "archive", "lossless"):
    encode_gop(frames, encoding_of(format_of(frames, profile), profile), quality_db=30)
"""


def test_nothing_is_written_to_the_console() -> None:
    # A process of its own: SVT-AV1 looks once whether it is to be silent, at its first use by anyone.
    environment = {name: value for name, value in os.environ.items() if name != "SVT_LOG"}
    told = subprocess.run(
        [sys.executable, "-c", ENCODE_ALL], capture_output=True, check=True, env=environment
    )
    assert (told.stdout, told.stderr) == (b"", b"")


def test_the_textured_recording_is_small_and_close(shared_data: Path) -> None:
    import h5py
    from PIL import Image

    with h5py.File(shared_data / "bench" / "aloha_textured_96.hdf5") as file:
        raw = file["observations/images/cam_high"][:32]
    frames = np.stack([np.asarray(Image.open(io.BytesIO(one.tobytes()))) for one in raw])
    encoding = choose(frames, profile="train", quality_db=37)
    chunk, quality = encode_gop(frames, encoding, quality_db=37)
    assert len(chunk) < 32 * 4500
    assert quality.min_psnr_db >= 36.5


# ---------------------------------------------------------------- measuring


def test_ssim_is_one_for_equal_frames_and_less_for_others() -> None:
    one = clip(1, 33, 47)[0]
    assert ssim(one, one) == 1
    assert ssim(one, np.roll(one, 3, 1)) < 0.9
    assert ssim(one[:3, :3], one[:3, :3]) == 1


def test_psnr_is_that_of_its_definition() -> None:
    one, other = clip(2, 16, 16, seed=1), clip(2, 16, 16, seed=2)
    errors = ((one.astype(float) - other) ** 2).mean((1, 2, 3))
    found = measure(one, other)
    assert found.psnr_db == pytest.approx(10 * np.log10(255**2 / errors.mean()))
    assert found.min_psnr_db == pytest.approx(10 * np.log10(255**2 / errors.max()))


# ---------------------------------------------------------------- colour


def exact(planes: list[Pixels], matrix: str, range_: str) -> NDArray[np.float64]:
    """Convert by the equations of ITU-T H.273, in floating point."""
    kr, kb = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}[matrix]
    y, u, v = (plane.astype(float) for plane in planes)
    limited = range_ == "limited"
    y = (y - 16) / 219 if limited else y / 255
    u, v = ((c - 128) / (224 if limited else 255) for c in (u, v))
    red, blue = y + 2 * (1 - kr) * v, y + 2 * (1 - kb) * u
    green = (y - kr * red - kb * blue) / (1 - kr - kb)
    return np.clip(255 * np.stack([red, green, blue], -1), 0, 255)


@pytest.mark.parametrize("range_", ["limited", "full"])
@pytest.mark.parametrize("matrix", ["bt601", "bt709", "bt2020"])
@pytest.mark.parametrize(("pixel_format", "tolerance"), [("yuv420p", 4), ("yuv422p", 4), ("yuv444p", 0.51)])
def test_colour_is_that_of_the_specification(
    pixel_format: str, tolerance: float, matrix: Any, range_: Any
) -> None:
    rng = np.random.default_rng(5)
    frame = av.VideoFrame(WIDTH, HEIGHT, pixel_format)
    planes = []
    for index in range(3):
        plane = decode.plane_view(frame, index)[..., 0]
        plane[...] = rng.integers(0, 256, plane.shape)
        planes.append(plane.repeat(HEIGHT // plane.shape[0], 0).repeat(WIDTH // plane.shape[1], 1))
    video = replace(VIDEO, pixel_format=pixel_format, matrix=matrix, range=range_)
    out = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    write_pixels(frame, video, av.video.reformatter.VideoReformatter(), out)
    assert np.abs(out - exact(planes, matrix, range_)).max() <= tolerance


VIDEO = VideoFormat(
    codec="h264",
    bitstream="annexb",
    pixel_format="yuv420p",
    matrix="bt601",
    range="limited",
    width=WIDTH,
    height=HEIGHT,
)


@pytest.mark.parametrize("range_", ["limited", "full"])
@pytest.mark.parametrize("tagged", ["yuv420p", "yuvj420p"])
def test_the_array_says_the_range_whatever_the_bitstream_says(tagged: str, range_: Any) -> None:
    packets, video = stream(clip(2, 64, 96), "libx264", {"preset": "ultrafast"}, pixel_format=tagged)
    video = replace(video, pixel_format="yuv420p", range=range_)
    (chunk,) = gops_from_packets(packet_blocks(packets), video=video, length=2, slots=32)
    colour = decoded(chunk, video, [1], (64, 96, 3))[0]
    luma = decoded(chunk, replace(video, range="full"), [1], (64, 96, 1))[0]
    grey = luma.astype(float) if range_ == "full" else (luma - 16.0) * 255 / 219
    # The clip is mostly grey: what the matrix adds for colour cancels out in this sum.
    weighted = colour @ np.array([0.299, 0.587, 0.114])
    inside = (colour > 0).all(-1) & (colour < 255).all(-1)
    assert np.abs(weighted - grey[..., 0])[inside].max() < 4


def test_grey_of_a_limited_source_fills_the_range() -> None:
    frame = av.VideoFrame(WIDTH, HEIGHT, "yuv420p")
    decode.plane_view(frame, 0)[...] = np.linspace(0, 255, WIDTH, dtype=np.uint8)[None, :, None]
    out = np.empty((HEIGHT, WIDTH, 1), np.uint8)
    write_pixels(frame, VIDEO, av.video.reformatter.VideoReformatter(), out)
    luma = decode.plane_view(frame, 0)
    np.testing.assert_array_equal(out, np.clip(np.rint((luma - 16.0) * 255 / 219), 0, 255))


# ---------------------------------------------------------------- sources

QUIET = "log-level=none:pools=none:frame-threads=1"
SOURCES: dict[str, tuple[str, dict[str, str], int, str]] = {
    "h264 long": ("libx264", {"preset": "veryfast"}, 250, "yuv420p"),
    "h264 60": ("libx264", {"preset": "fast", "x264-params": "bframes=5"}, 60, "yuv420p"),
    "h264 slices": ("libx264", {"preset": "veryfast", "x264-params": "slices=4"}, 40, "yuv420p"),
    "h264 4:2:2": ("libx264", {"preset": "ultrafast"}, 20, "yuv422p"),
    "h264 open": ("libx264", {"preset": "veryfast", "x264-params": "open-gop=1:scenecut=0"}, 40, "yuv420p"),
    "hevc open": ("libx265", {"preset": "ultrafast", "x265-params": QUIET}, 25, "yuv420p"),
    "hevc closed": ("libx265", {"preset": "ultrafast", "x265-params": QUIET + ":open-gop=0"}, 30, "yuv420p"),
    "av1 2": ("libsvtav1", {"preset": "12", "svtav1-params": "lp=1"}, 2, "yuv420p"),
    "av1 access": ("libsvtav1", {"preset": "12", "svtav1-params": "pred-struct=2:lp=1"}, 48, "yuv420p"),
    "vp9": ("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "8"}, 45, "yuv420p"),
}
LENGTH = 140


@pytest.fixture(scope="module", params=SOURCES)
def source(request: pytest.FixtureRequest) -> tuple[list[Packet], VideoFormat]:
    encoder, options, gop, pixel_format = SOURCES[request.param]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SVT_LOG", "0")
        frames = clip(LENGTH, 64, 96, noise=1, cut=77)
        return stream(frames, encoder, options, gop=gop, pixel_format=pixel_format)


@pytest.mark.parametrize("slots", [16, 32, 128])
def test_a_source_keeps_its_packets_and_its_pixels(
    source: tuple[list[Packet], VideoFormat], slots: int
) -> None:
    packets, video = source
    truth = in_sequence(packets, video)
    of_source = {packet.pts: packet.data for packet in packets}
    chunks = list(gops_from_packets(packet_blocks(packets), video=video, length=LENGTH, slots=slots))
    assert len(chunks) == -(-LENGTH // slots)
    rng = np.random.default_rng(3)
    for index, chunk in enumerate(chunks):
        first = index * slots
        gop = unpack(chunk, slots)
        assert gop.n_frames == min(slots, LENGTH - first)
        for entry in gop.packets:
            assert bytes(entry.data) == of_source[first + entry.pts]
        whole = decoded(chunk, video, range(gop.n_frames), (64, 96, 3))
        np.testing.assert_array_equal(whole, [truth[first + slot] for slot in range(gop.n_frames)])
        for _ in range(4):
            slot = int(rng.integers(gop.n_frames))
            window = [slot, min(slot + 1, gop.n_frames - 1), min(slot + 9, gop.n_frames - 1)]
            np.testing.assert_array_equal(decoded(chunk, video, window, (64, 96, 3)), whole[window])


def test_it_does_not_matter_in_which_blocks_packets_come(source: tuple[list[Packet], VideoFormat]) -> None:
    packets, video = source

    def chunks(edges: Iterable[int]) -> list[bytes]:
        parts = [packets[a:b] for a, b in pairwise(edges)]
        blocks = [block for part in parts for block in packet_blocks(part)]
        assert sum(map(len, blocks)) == LENGTH
        return list(gops_from_packets(blocks, video=video, length=LENGTH, slots=32))

    whole = chunks([0, LENGTH])
    assert chunks(range(LENGTH + 1)) == whole
    assert chunks([0, 3, 40, 41, 128, LENGTH]) == whole


def test_the_length_of_chunks_follows_from_the_source(source: tuple[list[Packet], VideoFormat]) -> None:
    packets, video = source
    slots = slots_for_source(packet_blocks(packets), video=video)
    chunks = list(gops_from_packets(packet_blocks(packets), video=video, length=128, slots=slots))
    stored = sum(len(unpack(chunk).packets) for chunk in chunks)
    assert slots == 256 or stored <= 1.25 * 128 + slots


def test_a_source_that_fits_takes_no_preroll() -> None:
    packets, video = stream(clip(64, 64, 96), "libx264", {"preset": "ultrafast"}, gop=16)
    assert slots_for_source(packet_blocks(packets), video=video) == 32
    for chunk in gops_from_packets(packet_blocks(packets), video=video, length=64, slots=32):
        assert [entry.pts for entry in unpack(chunk).packets] == list(range(32))


def test_an_mp4_is_taken_as_it_is(tmp_path: Path) -> None:
    """Long groups, B-frames and a B-pyramid, through a container and its bitstream filter."""
    path = tmp_path / "robot.mp4"
    frames = clip(100, 64, 96, noise=1, cut=41)
    with av.open(str(path), "w") as container:
        written = container.add_stream("libx264", rate=30)
        written.height, written.width = 64, 96
        for frame in frames:
            container.mux(written.encode(av.VideoFrame.from_ndarray(frame)))
        container.mux(written.encode(None))
    with av.open(str(path)) as container:
        video_stream = container.streams.video[0]
        to_annexb = av.bitstream.BitStreamFilterContext("h264_mp4toannexb", video_stream)
        seconds = video_stream.time_base or Fraction(1)
        packets = [
            Packet(bytes(part), round((part.pts or 0) * seconds * 30), part.is_keyframe)
            for packet in container.demux(video_stream)
            if packet.size
            for part in to_annexb.filter(packet)
        ]
    video = replace(VIDEO, width=96, height=64)
    truth = in_sequence(packets, video)
    for index, chunk in enumerate(
        gops_from_packets(packet_blocks(packets), video=video, length=100, slots=32)
    ):
        n = unpack(chunk).n_frames
        expected = [truth[index * 32 + slot] for slot in range(n)]
        np.testing.assert_array_equal(decoded(chunk, video, range(n), (64, 96, 3)), expected)


def one_source() -> tuple[list[Packet], VideoFormat]:
    return stream(clip(70, 64, 96), "libx264", {"preset": "ultrafast", "x264-params": "bframes=2"}, gop=30)


def twice(packets: list[Packet]) -> list[Packet]:
    return [*packets[:9], packets[4], *packets[9:]]


FAULTS: dict[str, tuple[Callable[[list[Packet]], list[Packet]], str]] = {
    "missing": (lambda packets: [p for p in packets if p.pts != 40], "frame 40"),
    "twice": (twice, "packet 9"),
    "twice, much later": (lambda packets: [*packets[:66], packets[4], *packets[66:]], "packet 66"),
    "no key": (lambda packets: packets[1:], "packet 0"),
    "cut off": (lambda packets: packets[:50], "frame 49"),
    "empty": (lambda packets: [], "frame 0"),
    "renumbered": (lambda packets: [replace(p, pts=p.pts * 3) for p in packets], "frame 1"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_source_with_a_fault_is_refused_with_its_place(fault: str) -> None:
    packets, video = one_source()
    change, where = FAULTS[fault]
    with pytest.raises(FormatError) as caught:
        list(gops_from_packets(packet_blocks(change(packets)), video=video, length=70, slots=32))
    assert caught.value.where.startswith(where)


def test_what_is_held_is_bounded() -> None:
    packets, video = one_source()
    endless = (Packet(packets[0].data if n == 0 else packets[1].data, n, n == 0) for n in range(100_000))
    with pytest.raises(FormatError, match="without a key picture"):
        list(gops_from_packets(packet_blocks(endless), video=video, length=100_000, slots=32))


def test_frames_outside_of_the_episode_are_kept_as_far_as_they_are_needed() -> None:
    packets, video = one_source()
    truth = in_sequence(packets, video)
    shifted = [replace(packet, pts=packet.pts - 13) for packet in packets]
    (chunk,) = gops_from_packets(packet_blocks(shifted), video=video, length=20, slots=32)
    found = decoded(chunk, video, range(20), (64, 96, 3))
    np.testing.assert_array_equal(found, [truth[13 + slot] for slot in range(20)])
    assert max(entry.pts for entry in unpack(chunk).packets) < 24


def test_ten_bits_are_refused() -> None:
    packets, video = one_source()
    with pytest.raises(FormatError, match="yuv420p10le"):
        list(
            gops_from_packets(
                packet_blocks(packets), video=replace(video, pixel_format="yuv420p10le"), length=70, slots=32
            )
        )


# ---------------------------------------------------------------- damage


def test_threads_do_not_disturb_each_other(star: tuple[bytes, Encoding], pictures: Pixels) -> None:
    chunk, encoding = star
    other = choose(pictures[:16, :64, :96], profile="lossless", quality_db=37)
    exact_chunk, _ = encode_gop(pictures[:16, :64, :96], other, quality_db=37)
    whole = decoded(chunk, encoding.video, range(32), pictures.shape[1:])
    wrong: list[object] = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(25):
            slot = int(rng.integers(0, 31))
            if not np.array_equal(
                decoded(chunk, encoding.video, [slot, slot + 1], pictures.shape[1:]), whole[slot : slot + 2]
            ):
                wrong.append((seed, slot))
            slot = int(rng.integers(0, 16))
            if not np.array_equal(
                decoded(exact_chunk, other.video, [slot], (64, 96, 3))[0], pictures[slot, :64, :96]
            ):
                wrong.append((seed, slot, "lossless"))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@settings(max_examples=60)
@given(st.data())
def test_packets_that_lie_give_an_error_or_a_frame_and_leave_the_decoder_sound(
    star: tuple[bytes, Encoding], pictures: Pixels, data: st.DataObject
) -> None:
    """The checksum is made right again, so the decoder has to cope on its own."""
    chunk, encoding = star
    gop = unpack(chunk)
    hurt = data.draw(st.integers(0, 3))
    entries = list(gop.packets)
    raw = bytearray(entries[hurt].data)
    for _ in range(data.draw(st.integers(1, 5))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    entries[hurt] = entries[hurt]._replace(data=bytes(raw))
    with suppress(DamageError):
        decoded(pack(entries, 32), encoding.video, range(9), pictures.shape[1:])
    sound = decoded(chunk, encoding.video, [3], pictures.shape[1:])
    again = decoded(chunk, encoding.video, range(32), pictures.shape[1:])
    np.testing.assert_array_equal(sound[0], again[3])


def test_another_size_or_format_than_promised_is_damage(
    star: tuple[bytes, Encoding], pictures: Pixels
) -> None:
    chunk, encoding = star
    for wrong in (
        replace(encoding.video, width=WIDTH + 2),
        replace(encoding.video, height=4 * HEIGHT, width=4 * WIDTH),
        replace(encoding.video, pixel_format="yuv422p"),
    ):
        with pytest.raises(DamageError):
            decoded(chunk, wrong, [0], pictures.shape[1:])
    with pytest.raises(DamageError):
        decoded(chunk, replace(encoding.video, codec="av1", bitstream="obu"), [0], pictures.shape[1:])


def test_a_huge_picture_is_refused_before_it_is_decoded(star: tuple[bytes, Encoding]) -> None:
    with pytest.raises(ValueError, match="limit"):
        decoded(star[0], replace(VIDEO, width=100_000, height=100_000), [0], (8, 8, 3))
    small = replace(VIDEO, width=16, height=16)
    with pytest.raises(DamageError):
        decoded(star[0], small, [0], (8, 8, 3))


def test_a_request_that_contradicts_itself_is_refused(star: tuple[bytes, Encoding], pictures: Pixels) -> None:
    chunk, encoding = star
    with pytest.raises(ValueError, match="counted from 0"):
        decoded(chunk, encoding.video, [-1], pictures.shape[1:])
    with pytest.raises(ValueError, match="cropped"):
        decoded(chunk, encoding.video, [0], (HEIGHT + 1, WIDTH, 3))
    with pytest.raises(ValueError, match="do not go into"):
        decode_into(chunk, encoding.video, [0, 1], np.empty((1, HEIGHT, WIDTH, 3), np.uint8))
    with pytest.raises(ValueError, match="grey"):
        decoded(chunk, replace(VIDEO, pixel_format="gbrp", matrix="rgb"), [0], (HEIGHT, WIDTH, 1))
    decode_into(chunk, encoding.video, [], np.empty((0, HEIGHT, WIDTH, 3), np.uint8))


@pytest.mark.parametrize(
    "change",
    [{"codec": "theora"}, {"pixel_format": "nv12"}, {"matrix": "fcc"}, {"matrix": "rgb"}, {"width": 0}],
)
def test_unknown_formats_have_a_problem(change: dict[str, Any]) -> None:
    assert format_problem(replace(VIDEO, **change))
    assert not format_problem(VIDEO)


def test_a_key_packet_alone_does_not_make_a_stream() -> None:
    with pytest.raises(DamageError):
        decoded(pack([Entry(b"\0\0\0\1garbage", 0, True, False)], 1), VIDEO, [0], (HEIGHT, WIDTH, 3))
