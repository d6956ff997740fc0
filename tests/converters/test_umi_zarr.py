"""What is special about replay buffers: who wrote them, their clocks, their codecs, their videos."""

import hashlib
import pickle
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

import av
import numcodecs
import numpy as np
import pytest
import zarr
from numpy.typing import NDArray
from teleopen.converters.umi_zarr import UmiZarr
from teleopen.schemas import Episode, FormatError, MissingExtraError, problems_of

from tests.samples.umi_zarr import ENDS, data, jpegxl, write, write_buffer, zip_store

Arrays = dict[str, NDArray[Any]]
STEPS = ENDS[-1]


def read(path: Path, **options: Any) -> list[Episode]:
    return list(UmiZarr(**options).episodes(path))


def fates(episode: Episode) -> dict[str, tuple[str, tuple[str, ...]]]:
    return {fate.field: (fate.fate, fate.to) for fate in episode.provenance.ledger}


def pusht(**changed: NDArray[Any]) -> Arrays:
    random = np.random.default_rng(2)
    return {
        "img": random.integers(0, 255, (STEPS, 16, 16, 3), dtype=np.uint8),
        "state": random.uniform(0, 512, (STEPS, 5)).astype(np.float32),
        "action": random.uniform(0, 512, (STEPS, 2)).astype(np.float32),
        "keypoint": random.uniform(0, 512, (STEPS, 9, 2)).astype(np.float32),
        "n_contacts": np.zeros((STEPS, 1), np.float32),
        **changed,
    }


def real(**changed: NDArray[Any]) -> Arrays:
    random = np.random.default_rng(3)
    start = np.repeat([1_672_531_200.25, 1_672_531_300.75], np.diff((0, *ENDS)))
    return {
        "timestamp": start + np.concatenate([np.arange(n) for n in np.diff((0, *ENDS))]) * 0.1,
        "action": random.normal(size=(STEPS, 6)),
        "stage": np.zeros(STEPS, np.int64),
        "robot_eef_pose": random.normal(size=(STEPS, 6)),
        "robot_joint": random.normal(size=(STEPS, 6)),
        "robot_joint_vel": random.normal(size=(STEPS, 6)),
        **changed,
    }


def write_video(path: Path, pictures: int = 20) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for i in range(pictures):
            frame = av.VideoFrame.from_ndarray(np.full((32, 48, 3), i * 10, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def test_umi_says_what_its_pipeline_says(tmp_path: Path) -> None:
    first, second = read(write(tmp_path).path)
    position = first.streams["observation.robot0.ee_position"].spec
    assert (position.unit, position.frame, position.axes) == (("m",), "tag", ("x", "y", "z"))
    rotation = first.streams["observation.robot0.ee_orientation"].spec
    assert (rotation.unit, rotation.attributes["rotation"]) == (("rad",), "axis_angle")
    assert first.streams["observation.robot0.gripper_width"].spec.unit == ("m",)
    assert first.streams["observation.images.camera0"].spec.attributes["source_codec"]["id"] == "blosc"
    clock = first.clocks["steps"]
    assert clock.kind == "nominal"
    assert clock.declared_hz == pytest.approx(59.94006)
    assert "action" not in first.streams
    assert first.id != second.id
    assert first.extra["replay_buffer"]["attributes"] == {"/": {"site": "bench 3"}}


def test_a_rate_takes_the_place_of_the_nominal_one(tmp_path: Path) -> None:
    (episode, _) = read(write(tmp_path).path, rate_hz=20.0)
    assert episode.clocks["steps"].declared_hz == 20
    assert episode.provenance.options == {"rate_hz": 20.0}
    for rate in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="rate_hz"):
            UmiZarr(rate_hz=rate)


def test_a_folder_gives_what_its_zip_gives(tmp_path: Path) -> None:
    arrays = data()
    folder = write_buffer(tmp_path / "a.zarr", arrays)
    zipped = zip_store(folder, tmp_path / "a.zarr.zip")
    assert UmiZarr().probe(folder)
    assert UmiZarr().probe(zipped)
    for one, other in zip(read(folder), read(zipped), strict=True):
        assert one.streams.keys() == other.streams.keys()
        for name, stream in one.streams.items():
            np.testing.assert_array_equal(stream.values(), other.streams[name].values())


def test_a_deflated_zip_is_read(tmp_path: Path) -> None:
    folder = write_buffer(tmp_path / "a.zarr", data())
    zipped = Path(shutil.make_archive(str(tmp_path / "b"), "zip", folder))  # with entries for folders
    for one, other in zip(read(folder), read(zipped), strict=True):
        for name, stream in one.streams.items():
            np.testing.assert_array_equal(stream.values(), other.streams[name].values())


def test_the_digest_of_a_folder_is_that_of_the_list_that_sha256sum_prints(tmp_path: Path) -> None:
    folder = write_buffer(tmp_path / "a.zarr", data())
    (source,) = read(folder)[0].provenance.sources
    lines = [
        f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.relative_to(folder).as_posix()}\n"
        for file in folder.rglob("*")
        if file.is_file()
    ]
    listed = "".join(sorted(lines, key=lambda line: line[66:])).encode()
    assert source.sha256 == hashlib.sha256(listed).hexdigest()
    copy = Path(shutil.copytree(folder, tmp_path / "elsewhere" / "b.zarr"))
    assert [e.id for e in read(copy)] == [e.id for e in read(folder)]
    (copy / "data/robot0_eef_pos/0.0").write_bytes((folder / "data/robot0_eef_pos/1.0").read_bytes())
    assert [e.id for e in read(copy)] != [e.id for e in read(folder)]


def test_push_t_says_what_its_script_says(tmp_path: Path) -> None:
    episode = read(write_buffer(tmp_path / "pusht.zarr", pusht()))[1]
    assert problems_of(episode) == []
    assert episode.clocks["steps"].declared_hz == 10
    contract = episode.streams["action"].spec.contract
    assert contract is not None
    assert (contract.parts[0].mode, contract.parts[0].frame) == ("absolute", "window")
    assert contract.offset_steps == 0
    assert episode.streams["observation.state"].spec.axes[-1] == "block_angle"
    assert fates(episode)["data/action"] == ("kept", ("action",))


def test_a_state_of_another_width_means_nothing_known(tmp_path: Path) -> None:
    arrays = pusht(state=np.zeros((STEPS, 2), np.float32))
    spec = read(write_buffer(tmp_path / "pusht.zarr", arrays))[0].streams["observation.state"].spec
    assert (spec.unit, spec.axes) == (("unknown",), ())


def test_pictures_of_floats_stay_numbers(tmp_path: Path) -> None:
    pictures = np.random.default_rng(1).integers(0, 255, (STEPS, 16, 16, 3)).astype(np.float32)
    episode = read(write_buffer(tmp_path / "pusht.zarr", pusht(img=pictures)))[0]
    stream = episode.streams["observation.img"]
    assert (stream.spec.kind, stream.spec.dtype) == ("low_dim", "float32")
    np.testing.assert_array_equal(stream.values(), pictures[: ENDS[0]])
    assert any("float32" in warning for warning in episode.provenance.warnings)


def test_timestamps_are_the_clock_and_are_kept(tmp_path: Path) -> None:
    arrays = real()
    first, second = read(write_buffer(tmp_path / "real.zarr", arrays))
    assert problems_of(second) == []
    clock = second.clocks["steps"]
    assert clock.kind == "recorded"
    assert clock.measured_hz == pytest.approx(10, abs=1e-3)
    since = arrays["timestamp"][7:] - arrays["timestamp"][7]
    np.testing.assert_array_equal(clock.read(), np.rint(since * 1e9).astype(np.int64))
    np.testing.assert_array_equal(second.streams["extra.timestamp"].values(), arrays["timestamp"][7:])
    assert fates(first)["data/timestamp"] == ("renamed", ("extra.timestamp", "clocks.steps"))
    contract = first.streams["action"].spec.contract
    assert contract is not None
    assert [part.rotation for part in contract.parts] == ["none", "axis_angle"]


@pytest.mark.parametrize(
    "stamps",
    [
        np.zeros(STEPS),
        np.full(STEPS, np.nan),
        np.arange(STEPS)[::-1].astype(float),
        np.arange(STEPS) * 1e18,
        np.arange(STEPS),
        np.zeros((STEPS, 2)),
    ],
)
def test_timestamps_that_do_not_rise_are_no_clock(tmp_path: Path, stamps: NDArray[Any]) -> None:
    buffer = write_buffer(tmp_path / "real.zarr", real(timestamp=stamps))
    with pytest.raises(FormatError, match="rate_hz"):
        read(buffer)
    episode = read(buffer, rate_hz=10.0)[0]
    assert episode.clocks["steps"].kind == "nominal"
    assert any("data/timestamp" in warning for warning in episode.provenance.warnings)


def test_videos_beside_a_buffer_keep_their_own_clock(tmp_path: Path) -> None:
    write_buffer(tmp_path / "demo/replay_buffer.zarr", real())
    write_video(tmp_path / "demo/videos/0/0.mp4")
    write_video(tmp_path / "demo/videos/2/0.mp4")
    (tmp_path / "demo/videos/0/notes.txt").write_text("hello")
    assert UmiZarr().probe(tmp_path / "demo")
    first, second = read(tmp_path / "demo", block_bytes=10_000)
    assert problems_of(first) == []
    stream = first.streams["observation.images.camera_0"]
    assert (stream.length, stream.spec.shape, stream.spec.clock) == (20, (32, 48, 3), "camera_0")
    assert all(block.nbytes <= 10_000 for block in stream)
    assert np.abs(stream.values()[:, 0, 0, 0].astype(int) - np.arange(20) * 10).max() <= 4
    assert stream.packets is not None
    assert len(list(stream.packets.read())) == 20
    np.testing.assert_allclose(first.clocks["camera_0"].read(), np.arange(20) * 1e9 / 30, atol=1)
    assert [source.role for source in first.provenance.sources] == ["recording", "video"]
    assert fates(first)["videos/0/notes.txt"][0] == "dropped"
    assert fates(first)["videos/2"][0] == "dropped"
    assert "observation.images.camera_0" not in second.streams
    alone = read(tmp_path / "demo/replay_buffer.zarr")[0]
    assert any("videos" in warning for warning in alone.provenance.warnings)


def test_a_video_outside_is_refused(tmp_path: Path) -> None:
    write_buffer(tmp_path / "demo/replay_buffer.zarr", real())
    write_video(tmp_path / "secret.mp4")
    (tmp_path / "demo/videos/0").mkdir(parents=True)
    (tmp_path / "demo/videos/0/0.mp4").symlink_to(tmp_path / "secret.mp4")
    with pytest.raises(FormatError, match="outside"):
        read(tmp_path / "demo")


def test_an_unknown_buffer_needs_a_rate_and_keeps_its_names(tmp_path: Path) -> None:
    arrays = {
        "wrist": np.zeros((STEPS, 8, 8, 3), np.uint8),
        "force": np.arange(STEPS, dtype=">i2"),
        "action": np.zeros((STEPS, 4), np.float32),
        "on": np.arange(STEPS) % 2 == 0,
    }
    buffer = write_buffer(tmp_path / "any.zarr", arrays)
    with pytest.raises(FormatError, match="rate_hz"):
        read(buffer)
    episode = read(buffer, rate_hz=15.0)[0]
    assert problems_of(episode) == []
    assert set(episode.streams) == {"observation.images.wrist", "extra.force", "action", "extra.on"}
    force = episode.streams["extra.force"].values()
    assert force.dtype == np.dtype("<i2")
    np.testing.assert_array_equal(force, np.arange(ENDS[0]))
    assert episode.streams["extra.force"].spec.unit == ("unknown",)


def test_names_never_collide(tmp_path: Path) -> None:
    keys = ("Force", "force", "for ce", "for_ce", "a.b", "x/y")
    extra = {key: np.full(STEPS, i) for i, key in enumerate(keys)}
    episode = read(write_buffer(tmp_path / "umi.zarr", data() | extra))[0]
    assert problems_of(episode) == []
    assert len(episode.streams) == 7 + len(extra)
    for key, values in extra.items():
        ((_, (name,)),) = [fate for field, fate in fates(episode).items() if field == f"data/{key}"]
        np.testing.assert_array_equal(episode.streams[name].values(), values[: ENDS[0]])


def test_what_is_left_over_is_told(tmp_path: Path) -> None:
    folder = write_buffer(tmp_path / "umi.zarr", data() | {"nothing": np.zeros((STEPS, 0))})
    (folder / "data/robot0_eef_pos/9.0").write_bytes(b"stale")
    (folder / "README.txt").write_text("hello")
    zarr.create_array(str(folder / "elsewhere"), shape=(3,), dtype="int64", zarr_format=2)[...] = 1
    told = fates(read(folder)[0])
    for field in ("data/robot0_eef_pos/9.0", "README.txt", "elsewhere", "data/nothing"):
        assert told[field] == ("dropped", ())


def test_an_empty_buffer_has_no_episodes(tmp_path: Path) -> None:
    arrays = {"robot0_eef_pos": np.zeros((0, 3), np.float32)}
    assert read(write_buffer(tmp_path / "empty.zarr", arrays, ends=())) == []


CODECS = {
    "none": None,
    "zlib": numcodecs.Zlib(),
    "gzip": numcodecs.GZip(),
    "bz2": numcodecs.BZ2(),
    "lzma": numcodecs.LZMA(),
    "zstd": numcodecs.Zstd(),
    "zstd with checksum": numcodecs.Zstd(level=9, checksum=True),
    "lz4": numcodecs.LZ4(),
    **{f"blosc {c}": numcodecs.Blosc(c) for c in ("lz4", "lz4hc", "blosclz", "zlib", "zstd")},
}


@pytest.mark.parametrize("codec", CODECS)
def test_each_codec_gives_back_what_zarr_wrote(tmp_path: Path, codec: str) -> None:
    arrays = data() | {"noise": np.random.default_rng(4).normal(size=(STEPS, 40, 50))}
    folder = write_buffer(tmp_path / "a.zarr", arrays, compressors=dict.fromkeys(arrays, CODECS[codec]))
    episode = read(folder)[0]
    np.testing.assert_array_equal(episode.streams["extra.noise"].values(), arrays["noise"][: ENDS[0]])


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("separator", [".", "/"])
@pytest.mark.parametrize("dtype", ["<i4", ">i4", "|u1", "<f2", ">f8", "|b1"])
def test_filters_orders_and_chunks_across_a_sample(
    tmp_path: Path, dtype: str, separator: str, order: str
) -> None:
    values = np.random.default_rng(5).integers(0, 99, (STEPS, 10, 7)).astype(dtype)
    filters: list[Any] = [numcodecs.Shuffle(values.dtype.itemsize)]
    if values.dtype.kind in "iu":
        filters.insert(0, numcodecs.Delta(dtype))
    folder = write_buffer(tmp_path / "a.zarr", data())
    zarr.create_array(
        str(folder / "data/grid"),
        shape=values.shape,
        chunks=(5, 4, 3),
        dtype=dtype,
        zarr_format=2,
        filters=filters,
        compressors=numcodecs.Zstd(),
        order=order,  # type: ignore[arg-type]
        chunk_key_encoding={"name": "v2", "separator": separator},
        config={"write_empty_chunks": True},
    )[...] = values
    stream = read(folder)[1].streams["extra.grid"]
    assert stream.spec.np_dtype == values.dtype.newbyteorder("<")
    np.testing.assert_array_equal(stream.values(), values[ENDS[0] :])
    np.testing.assert_array_equal(stream.values(1, 4), values[ENDS[0] + 1 : ENDS[0] + 4])


@pytest.mark.parametrize("codec", ["Jpegxl", "Jpeg2k", "Png"])
@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_are_what_imagecodecs_decodes(tmp_path: Path, codec: str, channels: int) -> None:
    codecs = pytest.importorskip("imagecodecs.numcodecs")
    codecs.register_codecs(verbose=False)
    pictures = np.ascontiguousarray(data()["camera0_rgb"][..., :channels])
    compressors = {"camera0_rgb": getattr(codecs, codec)(level=60 if codec == "Jpeg2k" else None)}
    folder = write_buffer(tmp_path / "a.zarr", data() | {"camera0_rgb": pictures}, compressors=compressors)
    found = read(folder)[0].streams["observation.images.camera0"].values()
    codec_of_chunk = compressors["camera0_rgb"]
    for i, picture in enumerate(found):
        stored = folder.joinpath(f"data/camera0_rgb/{i}.0.0.0").read_bytes()
        np.testing.assert_array_equal(picture, codec_of_chunk.decode(stored).reshape(picture.shape))


def test_without_imagecodecs_headers_are_read_and_pictures_name_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not jpegxl():
        pytest.skip("writing JPEG XL needs imagecodecs")
    path = write(tmp_path).path
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    episode = read(path)[0]
    assert problems_of(episode) == []
    assert len(episode.streams["observation.images.camera0"].values()) == ENDS[0]
    with pytest.raises(MissingExtraError, match=r"teleopen\[umi\]"):
        episode.streams["observation.images.camera1"].values()


def test_an_episode_can_be_sent_to_a_worker(tmp_path: Path) -> None:
    episode = read(write(tmp_path).path)[1]
    again = pickle.loads(pickle.dumps(episode))
    for name, stream in episode.streams.items():
        np.testing.assert_array_equal(again.streams[name].values(), stream.values())
    np.testing.assert_array_equal(again.clocks["steps"].read(), episode.clocks["steps"].read())


@pytest.mark.usefixtures("no_leaks")
def test_nothing_stays_open(tmp_path: Path) -> None:
    truth = write(tmp_path)
    for episode in read(truth.path):
        for stream in episode.streams.values():
            assert len(next(stream.read(0, 3))) > 0
    with pytest.raises(FormatError):
        read(truth.broken)


def test_other_stores_are_not_claimed(tmp_path: Path) -> None:
    version3 = tmp_path / "three.zarr"
    zarr.create_array(str(version3 / "meta/episode_ends"), shape=(1,), dtype="int64", zarr_format=3)
    nested = write_buffer(tmp_path / "outer/inner", data())
    zip_store(nested.parent, tmp_path / "nested.zip")
    (tmp_path / "magic.zip").write_bytes(b"PK\3\4 meta/episode_ends/.zarray")
    assert not UmiZarr().probe(version3)
    for name in ("outer", "nested.zip", "magic.zip", "absent"):
        assert not UmiZarr().probe(tmp_path / name)


def test_push_t_sample_is_what_its_chunks_decode_to(shared_data: Path) -> None:
    root = shared_data / "zarr_dp_umi" / "pusht_human.zarr"
    assert UmiZarr().probe(root)
    names = {
        "action": "action",
        "img": "observation.images.img",
        "state": "observation.state",
        "n_contacts": "observation.n_contacts",
    }
    episodes = read(root)
    assert [e.streams["action"].length for e in episodes] == [80, 81]
    for key, name in names.items():
        found = np.concatenate([e.streams[name].values() for e in episodes])
        folder = root / "data" / key
        chunks = sorted(folder.glob("[0-9]*"), key=lambda p: int(p.name.partition(".")[0]))
        decoded = b"".join(bytes(numcodecs.Blosc().decode(chunk.read_bytes())) for chunk in chunks)
        np.testing.assert_array_equal(found.ravel(), np.frombuffer(decoded, found.dtype)[: found.size])


def test_umi_sample_is_what_imagecodecs_decodes(shared_data: Path) -> None:
    imagecodecs = pytest.importorskip("imagecodecs")
    path = shared_data / "zarr_dp_umi" / "umi_cup.zarr.zip"
    assert UmiZarr().probe(path)
    episodes = read(path)
    assert [problems_of(e) for e in episodes] == [[], []]
    assert [e.streams["observation.robot0.ee_position"].length for e in episodes] == [90, 60]
    with zipfile.ZipFile(path) as archive:
        chunks = [archive.read(f"data/camera0_rgb/{i}.0.0.0") for i in range(150)]
        widths = b"".join(archive.read(f"data/robot0_gripper_width/{i}.0") for i in range(2))
    found = np.concatenate([e.streams["observation.images.camera0"].values() for e in episodes])
    np.testing.assert_array_equal(found, np.stack([imagecodecs.jpegxl_decode(chunk) for chunk in chunks]))
    width = np.concatenate([e.streams["observation.robot0.gripper_width"].values() for e in episodes])
    np.testing.assert_array_equal(width.ravel(), np.frombuffer(widths, "<f4")[:150])
