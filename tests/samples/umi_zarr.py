"""UMI's replay buffer, written by zarr-python in Zarr version 2 and put into a zip file."""

import importlib.util
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import zarr
from numpy.typing import NDArray

from tests.samples import EpisodeTruth, Truth

ENDS = (7, 12)
STREAMS = {
    "camera0_rgb": "observation.images.camera0",
    "camera1_rgb": "observation.images.camera1",
    "robot0_eef_pos": "observation.robot0.ee_position",
    "robot0_eef_rot_axis_angle": "observation.robot0.ee_orientation",
    "robot0_gripper_width": "observation.robot0.gripper_width",
    "robot0_demo_start_pose": "extra.robot0.demo_start_pose",
    "robot0_demo_end_pose": "extra.robot0.demo_end_pose",
}


def data() -> dict[str, NDArray[Any]]:
    """Make up the arrays of both episodes."""
    random = np.random.default_rng(9)
    steps, shades = ENDS[-1], np.arange(24)
    picture = (shades[:, None, None] * 8 + shades[None, :, None] * 2 + np.array([0, 20, 40])).astype(np.uint8)
    noise = random.integers(0, 8, (2, steps, 24, 24, 3), dtype=np.uint8)
    return {
        "camera0_rgb": picture + noise[0],
        "camera1_rgb": picture[::-1] + noise[1],
        "robot0_eef_pos": random.normal(0, 0.3, (steps, 3)).astype(np.float32),
        "robot0_eef_rot_axis_angle": random.normal(0, 1, (steps, 3)).astype(np.float32),
        "robot0_gripper_width": random.uniform(0, 0.08, (steps, 1)).astype(np.float32),
        "robot0_demo_start_pose": np.repeat(random.normal(size=(2, 6)), np.diff((0, *ENDS)), axis=0),
        "robot0_demo_end_pose": np.repeat(random.normal(size=(2, 6)), np.diff((0, *ENDS)), axis=0),
    }


def write_buffer(
    folder: Path,
    arrays: dict[str, NDArray[Any]],
    ends: tuple[int, ...] = ENDS,
    compressors: dict[str, Any] | None = None,
    **options: Any,
) -> Path:
    """Write a replay buffer as a folder: pictures one per chunk, the rest four rows per chunk."""
    root = zarr.open_group(str(folder), mode="w", zarr_format=2)
    default = numcodecs.Blosc("zstd", clevel=5, shuffle=numcodecs.Blosc.BITSHUFFLE)
    for key, values in arrays.items():
        rows = 1 if values.ndim == 4 else 4
        settings = {
            "chunks": (rows, *(max(n, 1) for n in values.shape[1:])),
            "compressors": (compressors or {}).get(key, default),
            "config": {"write_empty_chunks": True},
            **options,
        }
        root.create_array(f"data/{key}", shape=values.shape, dtype=values.dtype, **settings)[...] = values
    # ReplayBuffer leaves room in the only chunk of episode_ends.
    room: dict[str, Any] = {"chunks": (max(1, len(ends) * 3 // 2),), "compressors": None}
    root.create_array("meta/episode_ends", shape=(len(ends),), dtype="int64", **room)[...] = np.array(ends)
    return folder


def zip_store(folder: Path, archive: Path, without: str = "") -> Path:
    """Zip a store as zarr's ZipStore does: stored, no entries for folders."""
    with zipfile.ZipFile(archive, "w") as file:
        for member in sorted(p for p in folder.rglob("*") if p.is_file()):
            name = member.relative_to(folder).as_posix()
            if name != without:
                file.write(member, name)
    return archive


def jpegxl() -> dict[str, Any]:
    """Return UMI's codec for camera 1, lossless, if there is one on this machine."""
    if importlib.util.find_spec("imagecodecs") is None:
        return {}
    from imagecodecs.numcodecs import Jpegxl, register_codecs

    register_codecs(["imagecodecs_jpegxl"], verbose=False)
    return {"camera1_rgb": Jpegxl(lossless=True, effort=3, numthreads=1)}


def nominal(length: int) -> NDArray[np.int64]:
    """Return the times of a 59.94 Hz camera, which takes 60 pictures in 1.001 s."""
    return np.array([round(i * 1_001_000_000 / 60) for i in range(length)], np.int64)


def write(folder: Path) -> Truth:
    """Write two episodes of 7 and 5 steps with two cameras and one gripper."""
    arrays = data()
    store = write_buffer(folder / "store", arrays, compressors=jpegxl())
    root = zarr.open_group(str(store), mode="r+", zarr_format=2)
    root.attrs["site"] = "bench 3"
    root.create_array("meta/operator", shape=(), dtype="int64", compressors=None)[...] = 4
    whole = zip_store(store, folder / "umi.zarr.zip")
    broken = zip_store(store, folder / "broken.zarr.zip", without="data/robot0_eef_pos/1.0")
    shutil.rmtree(store)
    spans = zip((0, *ENDS), ENDS, strict=False)
    others = ("meta/episode_ends", "meta/operator", ".zattrs")
    return Truth(
        path=whole,
        episodes=tuple(
            EpisodeTruth(
                values={STREAMS[key]: values[start:stop] for key, values in arrays.items()},
                times={"steps": nominal(stop - start)},
            )
            for start, stop in spans
        ),
        fields=frozenset({*(f"data/{key}" for key in arrays), *others}),
        broken=broken,
    )
