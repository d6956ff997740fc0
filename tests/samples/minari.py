"""A data set of Minari's in its HDF5 layout: a dictionary of spaces with a tuple, a camera and a text.

After Farama-Foundation/Minari: minari/dataset/_storages/hdf5_storage.py and minari/serialization.py.
"""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.samples import EpisodeTruth, Truth

HEIGHT, WIDTH = 32, 48
LENGTHS = (7, 5)
PLACES = {
    "action": "actions",
    "next.reward": "rewards",
    "next.terminated": "terminations",
    "next.truncated": "truncations",
    "observation.arm.position": "observations/arm/position",
    "observation.arm.contacts.0": "observations/arm/contacts/_index_0",
    "observation.arm.contacts.1": "observations/arm/contacts/_index_1",
    "extra.infos.success": "infos/success",
}


def box(shape: list[int], dtype: str, low: float, high: float) -> dict[str, Any]:
    """Return a box as Minari writes it: limits for every number."""
    limits = [np.full(shape, limit).tolist() for limit in (low, high)]
    return {"type": "Box", "dtype": dtype, "shape": shape, "low": limits[0], "high": limits[1]}


def observation_space() -> dict[str, Any]:
    """Return the space of observations."""
    contacts = [{"type": "MultiBinary", "n": 3}, {"type": "Discrete", "dtype": "int64", "start": 0, "n": 4}]
    arm = {
        "position": box([6], "float64", -np.inf, np.inf),
        "contacts": {"type": "Tuple", "subspaces": contacts},
    }
    inner = {
        "arm": {"type": "Dict", "subspaces": arm},
        "camera": box([HEIGHT, WIDTH, 3], "uint8", 0, 255),
        "mission": {"type": "Text", "max_length": 50, "min_length": 1, "charset": "abc"},
    }
    return {"type": "Dict", "subspaces": inner}


def metadata(layout: str, steps: int, **more: Any) -> dict[str, Any]:
    """Return the contents of metadata.json."""
    spec = {"id": "Reach-v0", "entry_point": "reach.envs:ReachEnv", "kwargs": {"control_freq": 20}}
    return {
        "total_episodes": len(LENGTHS),
        "total_steps": steps,
        "data_format": layout,
        "jpeg_encoding": True,
        "observation_space": json.dumps(observation_space()),
        "action_space": json.dumps(box([4], "float32", -1, 1)),
        "env_spec": json.dumps(spec),
        "dataset_id": "lab/reach-v0",
        "author": ["A. Person"],
        **more,
    }


def numbers(random: np.random.Generator, steps: int) -> dict[str, NDArray[Any]]:
    """Make an episode, by the streams that its arrays become."""
    return {
        "action": random.uniform(-1, 1, (steps, 4)).astype(np.float32),
        "next.reward": random.normal(0, 1, steps),
        "next.terminated": np.zeros(steps, bool),
        "next.truncated": np.arange(steps) == steps - 1,
        "observation.arm.position": random.normal(0, 1, (steps + 1, 6)),
        "observation.arm.contacts.0": random.integers(0, 2, (steps + 1, 3)).astype(np.int8),
        "observation.arm.contacts.1": random.integers(0, 4, steps + 1),
        "extra.infos.success": random.random(steps + 1) < 0.5,
    }


def film(random: np.random.Generator, length: int) -> NDArray[np.uint8]:
    """Make a smooth coloured picture that drifts: (T, H, W, 3)."""
    t, y, x = np.meshgrid(np.arange(length), np.arange(HEIGHT), np.arange(WIDTH), indexing="ij")
    waves = [np.sin((x * a + y * b + 3 * t) / 19) for a, b in random.uniform(0.2, 1, (3, 2))]
    return np.stack([40 + 30 * waves[0], 120 + 30 * waves[1], 200 + 30 * waves[2]], axis=-1).astype(np.uint8)


def jpeg(picture: NDArray[np.uint8]) -> bytes:
    """Encode as Minari does."""
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "JPEG")
    return out.getvalue()


def write(folder: Path) -> Truth:
    """Write the sample, and one with a picture that was cut off."""
    random = np.random.default_rng(10)
    path, broken = folder / "reach-v0", folder / "broken-v0"
    (path / "data").mkdir(parents=True)
    episodes = []
    with h5py.File(path / "data" / "main_data.hdf5", "w", track_order=True) as file:
        for i, steps in enumerate(LENGTHS):
            values, pictures = numbers(random, steps), film(random, steps + 1)
            write_episode(file.create_group(f"episode_{i}"), i, values, pictures)
            times = np.arange(steps + 1, dtype=np.int64) * 50_000_000
            episodes.append(
                EpisodeTruth(
                    values=values,
                    close={"observation.images.camera": (pictures, 30.0)},
                    times={"steps": times[:-1], "observations": times},
                )
            )
    (path / "data" / "metadata.json").write_text(json.dumps(metadata("hdf5", sum(LENGTHS))))
    shutil.copytree(path, broken)
    with h5py.File(broken / "data" / "main_data.hdf5", "r+") as file:
        file["episode_1/observations/camera"][2] = np.frombuffer(jpeg(pictures[0])[:200], np.uint8)
    return Truth(
        path=path,
        episodes=tuple(episodes),
        fields=frozenset(f"metadata.json@{name}" for name in metadata("hdf5", 0)),
        broken=broken,
    )


def write_episode(
    group: h5py.Group, number: int, values: dict[str, NDArray[Any]], pictures: NDArray[np.uint8]
) -> None:
    """Write one episode: arrays that can grow, pictures of different length, texts."""
    for stream, array in values.items():
        group.create_dataset(PLACES[stream], data=array, chunks=True, maxshape=(None, *array.shape[1:]))
    camera = group.create_dataset("observations/camera", (len(pictures),), h5py.vlen_dtype(np.uint8))
    for i, picture in enumerate(pictures):
        camera[i] = np.frombuffer(jpeg(picture), np.uint8)
    missions = ["go there"] * (len(pictures) - 2) + ["come back"] * 2
    group.create_dataset("observations/mission", data=missions, dtype=h5py.string_dtype(), chunks=True)
    group.attrs.update({"id": number, "seed": number, "total_steps": len(pictures) - 1})
