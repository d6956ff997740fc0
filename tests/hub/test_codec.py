"""The Zarr codec: what plain Zarr writes and reads, and how little it decodes for that."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray
from teleopen.hub import codec, decode
from teleopen.hub.codec import VideoCodec
from teleopen.hub.gop import Entry, unpack
from teleopen.schemas import DamageError

from tests.hub.clips import clip

Pixels = NDArray[np.uint8]
LENGTH, SLOTS, HEIGHT, WIDTH = 40, 16, 65, 80
CODECS = {
    "train": VideoCodec(),
    "archive": VideoCodec(codec="av1", bitstream="obu"),
    "lossless": VideoCodec(pixel_format="gbrp", matrix="rgb", range="full"),
}
FUSED = hasattr(zarr.core.codec_pipeline, "FusedCodecPipeline")
PIPELINES = ["BatchedCodecPipeline", *(["FusedCodecPipeline"] if FUSED else [])]


@pytest.fixture(scope="module", autouse=True)
def _registered() -> None:
    codec.register()


@pytest.fixture(scope="module")
def pictures() -> Pixels:
    return clip(LENGTH, HEIGHT, WIDTH)


@pytest.fixture(params=PIPELINES)
def _pipeline(request: pytest.FixtureRequest) -> Iterator[None]:
    with zarr.config.set({"codec_pipeline.path": f"zarr.core.codec_pipeline.{request.param}"}):
        yield


def create(path: Path, shape: tuple[int, ...], serializer: VideoCodec, **more: Any) -> Any:
    chunks = (SLOTS, *shape[1:])
    return zarr.create_array(
        path, shape=shape, dtype="uint8", chunks=chunks, serializer=serializer, compressors=None, **more
    )


@pytest.fixture(params=CODECS)
def array(request: pytest.FixtureRequest, tmp_path: Path, pictures: Pixels) -> Any:
    created = create(tmp_path / "a", pictures.shape, CODECS[request.param], shards=(48, HEIGHT, WIDTH, 3))
    created[:] = pictures
    return zarr.open_array(tmp_path / "a", mode="r", zarr_format=3)


@pytest.fixture
def fed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the packets of each run that a decoder is fed."""
    counts: list[int] = []
    feed = decode._Decoder.feed

    def counting(self: decode._Decoder, run: Sequence[Entry]) -> Any:
        counts.append(len(run))
        return feed(self, run)

    monkeypatch.setattr(decode._Decoder, "feed", counting)
    return counts


@pytest.mark.usefixtures("_pipeline")
def test_a_sharded_array_is_read_by_any_selection(array: Any, pictures: Pixels) -> None:
    whole = array[:]
    error = (whole.astype(float) - pictures) ** 2
    assert 10 * np.log10(255**2 / max(error.mean(), 1e-9)) > 36
    mask = np.zeros(LENGTH, bool)
    mask[[1, 39]] = True
    times = [3, 3, 17, 39]
    np.testing.assert_array_equal(array[5], whole[5])
    np.testing.assert_array_equal(array[-1, 3:9, :, 1], whole[-1, 3:9, :, 1])
    np.testing.assert_array_equal(array[14:18], whole[14:18])
    np.testing.assert_array_equal(array[::7, :, 4], whole[::7, :, 4])
    np.testing.assert_array_equal(array.oindex[times[1:]], whole[times[1:]])
    np.testing.assert_array_equal(array.oindex[times[1:], [5, 7]], whole[times[1:]][:, [5, 7]])
    np.testing.assert_array_equal(array.oindex[3:9, [5, 7]], whole[3:9][:, [5, 7]])
    np.testing.assert_array_equal(array.oindex[mask], whole[mask])
    where = (times, [5, 7, 9, 64], [1, 2, 3, 79], [0, 1, 2, 0])
    np.testing.assert_array_equal(array.vindex[where], whole[where])


@pytest.mark.usefixtures("_pipeline")
def test_lossless_is_lossless(tmp_path: Path, pictures: Pixels) -> None:
    created = create(tmp_path / "a", pictures.shape, CODECS["lossless"])
    created[:] = pictures
    np.testing.assert_array_equal(created[:], pictures)
    np.testing.assert_array_equal(created[11:13], pictures[11:13])


def test_one_frame_feeds_only_what_it_needs(tmp_path: Path, pictures: Pixels, fed: list[int]) -> None:
    create(tmp_path / "a", pictures.shape, CODECS["train"], shards=(48, HEIGHT, WIDTH, 3))[:] = pictures
    array = zarr.open_array(tmp_path / "a", mode="r", zarr_format=3)
    fed.clear()
    array[5]
    assert fed == [3]  # the key picture, the anchor behind, and the picture itself
    fed.clear()
    array[15:17]
    assert sorted(fed) == [1, 2]  # the last of 16 frames is an anchor, the first of the next a key picture


@pytest.mark.usefixtures("_pipeline")
def test_a_chunk_without_a_shard_is_decoded_partially_too(
    tmp_path: Path, pictures: Pixels, fed: list[int]
) -> None:
    create(tmp_path / "a", pictures.shape, CODECS["train"])[:] = pictures
    array = zarr.open_array(tmp_path / "a", mode="r", zarr_format=3)
    fed.clear()
    array[5]
    assert fed == [3]


@pytest.mark.usefixtures("_pipeline")
def test_grey_arrays(tmp_path: Path) -> None:
    grey = clip(20, HEIGHT, WIDTH, 1)
    array = create(tmp_path / "a", grey.shape, VideoCodec(range="full"))
    array[:] = grey
    assert np.abs(array[:].astype(float) - grey).mean() < 4
    np.testing.assert_array_equal(array[3], array[:][3])


@pytest.mark.usefixtures("_pipeline")
def test_a_chunk_that_is_not_there_is_the_fill_value(tmp_path: Path) -> None:
    array = create(tmp_path / "a", (LENGTH, HEIGHT, WIDTH, 3), CODECS["train"], fill_value=9)
    assert (array[3:5] == 9).all()


@pytest.mark.usefixtures("_pipeline")
def test_a_flipped_bit_is_damage(tmp_path: Path, pictures: Pixels) -> None:
    array = create(tmp_path / "a", pictures.shape, CODECS["train"])
    array[:] = pictures
    chunk = tmp_path / "a" / "c" / "0" / "0" / "0" / "0"
    raw = bytearray(chunk.read_bytes())
    assert unpack(bytes(raw), SLOTS).n_frames == SLOTS
    raw[200] ^= 4
    chunk.write_bytes(raw)
    for selection in (slice(None), 5):
        with pytest.raises(DamageError):
            array[selection]


def test_the_metadata_is_that_of_the_specification(tmp_path: Path) -> None:
    create(tmp_path / "a", (LENGTH, HEIGHT, WIDTH, 3), CODECS["train"])
    (stored,) = json.loads((tmp_path / "a" / "zarr.json").read_text())["codecs"]
    assert stored == {
        "name": "teleopen.video",
        "configuration": {
            "version": 1,
            "codec": "h264",
            "bitstream": "annexb",
            "pixel_format": "yuv420p",
            "matrix": "bt601",
            "range": "limited",
        },
    }
    assert VideoCodec.from_dict(stored) == VideoCodec()


@pytest.mark.parametrize(
    "change",
    [{"version": 2}, {"version": None}, {"colour": "red"}, {"codec": "theora"}, {"pixel_format": "nv12"}],
)
def test_a_configuration_that_is_not_known_is_refused(change: dict[str, Any]) -> None:
    stored = VideoCodec().to_dict()
    stored["configuration"] |= change
    with pytest.raises(ValueError, match=r"teleopen\.video"):
        VideoCodec.from_dict(stored)


def test_a_configuration_that_lacks_a_member_is_refused() -> None:
    stored = VideoCodec().to_dict()
    del stored["configuration"]["matrix"]
    with pytest.raises(ValueError, match="exactly"):
        VideoCodec.from_dict(stored)


@pytest.mark.parametrize(
    ("shape", "dtype"), [((8, 8, 3), "uint8"), ((4, 8, 8, 2), "uint8"), ((4, 8, 8, 3), "int16")]
)
def test_arrays_that_are_no_video_are_refused(tmp_path: Path, shape: tuple[int, ...], dtype: str) -> None:
    with pytest.raises(ValueError, match="uint8"):
        zarr.create_array(tmp_path / "a", shape=shape, dtype=dtype, chunks=shape, serializer=VideoCodec())


def test_formats_that_only_come_as_packets_are_not_encoded(tmp_path: Path, pictures: Pixels) -> None:
    array = create(tmp_path / "a", pictures.shape, VideoCodec(matrix="bt709"))
    with pytest.raises(NotImplementedError, match="bt709"):
        array[:] = pictures


def test_a_cold_interpreter_finds_the_codec(tmp_path: Path, pictures: Pixels) -> None:
    if "teleopen.video" not in {point.name for point in entry_points(group="zarr.codecs")}:
        pytest.skip("teleopen is not installed, so there is no entry point")
    array = create(tmp_path / "a", pictures.shape, CODECS["train"])
    array[:] = pictures
    code = "import sys, zarr; print(int(zarr.open_array(sys.argv[1], zarr_format=3)[7].sum()))"
    found = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a")], check=True, capture_output=True, text=True
    ).stdout
    assert int(found) == int(array[7].sum())
