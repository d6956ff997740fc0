"""BridgeData V2's TFRecords: three trajectories in two files, each feature one serialized tensor.

Bytes are built from the specifications: tensorflow/core/framework/tensor.proto, tensor_shape.proto and
types.proto, in a tf.train.Example (tests/samples/rlds.py).
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.samples import EpisodeTruth, Truth
from tests.samples.rlds import example, field, record, texts, varint

RATE = 5
LENGTHS = {"train": (9, 5), "val": (7,)}
LANGUAGE = ("pick up the cube", "grab the “block”")
TYPES = {"float32": 1, "uint8": 4, "bool": 10}
STREAMS = {
    "observations/images0": "observation.images.images0",
    "observations/state": "observation.state",
    "next_observations/images0": "extra.next_observations.images0",
    "next_observations/state": "extra.next_observations.state",
    "actions": "action",
    "terminals": "is_terminal",
    "truncates": "extra.truncates",
}


def write(folder: Path) -> Truth:
    """Write the sample, and one whose last record is cut off."""
    random = np.random.default_rng(5)
    root, broken = folder / "bridge", folder / "broken"
    episodes = []
    for split, lengths in LENGTHS.items():
        parts = [trajectory(random, length) for length in lengths]
        path = root / "toykitchen" / "lift" / "00" / split / "out.tfrecord"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"".join(record(example(stored(part))) for part in parts))
        episodes += [truth(part) for part in parts]
    shutil.copytree(root, broken)
    cut = next(broken.rglob("val/out.tfrecord"))
    cut.write_bytes(cut.read_bytes()[:-100])
    return Truth(path=root, episodes=tuple(episodes), fields=frozenset({*STREAMS, "language"}), broken=broken)


def trajectory(random: np.random.Generator, length: int) -> dict[str, NDArray[Any]]:
    pictures = random.integers(0, 256, (length + 1, 16, 16, 3), np.uint8)
    states = random.normal(size=(length + 1, 7)).astype(np.float32)
    return {
        "observations/images0": pictures[:-1],
        "observations/state": states[:-1],
        "next_observations/images0": pictures[1:],
        "next_observations/state": states[1:],
        "actions": random.normal(size=(length, 7)).astype(np.float32),
        "terminals": np.zeros(length, np.bool_),
        "truncates": np.arange(length) == length - 1,
    }


def truth(part: Mapping[str, NDArray[Any]]) -> EpisodeTruth:
    times = np.arange(len(part["actions"]), dtype=np.int64) * (1_000_000_000 // RATE)
    values = {STREAMS[key]: array for key, array in part.items()}
    return EpisodeTruth(values=values, times={"steps": times}, instructions=LANGUAGE)


def stored(part: Mapping[str, NDArray[Any]]) -> dict[str, bytes]:
    """Return the features of a trajectory."""
    told = {key: texts([tensor(array)]) for key, array in part.items()}
    return told | {"language": texts([words(*LANGUAGE)])}


def tensor(array: NDArray[Any]) -> bytes:
    """Return a TensorProto of numbers."""
    return proto(TYPES[array.dtype.name], array.shape) + field(4, array.tobytes())


def words(*told: str) -> bytes:
    """Return a TensorProto of texts."""
    return proto(7, (len(told),)) + b"".join(field(8, text.encode()) for text in told)


def proto(dtype: int, shape: tuple[int, ...]) -> bytes:
    extents = b"".join(field(2, varint(1 << 3) + varint(extent)) for extent in shape)
    return varint(1 << 3) + varint(dtype) + field(2, extents)
