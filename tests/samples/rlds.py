"""An RLDS dataset as TFDS lays it out: three episodes in two shards and two splits.

Bytes are built from the specifications: TFRecord's framing (tensorflow/core/lib/io/record_writer.h), protocol
buffers (https://protobuf.dev/programming-guides/encoding) and what TFDS makes of features
(tensorflow_datasets/core/example_serializer.py). It bears DROID's name, and has more kinds of features.
"""

import io
import json
import shutil
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.samples import EpisodeTruth, Truth

NAME, RATE = "droid", 15
LENGTHS = (12, 7, 9)
SHARDS = {"train": ((0,), (1,)), "val": ((2,),)}
HEIGHT, WIDTH = 24, 32
INSTRUCTIONS = ("Put the cube on the plate.", "Place the red block onto the dish.")
CLASS = "tensorflow_datasets.core.features"

Feature = tuple[str, bytes]


def write(folder: Path) -> Truth:
    """Write the sample, and one with a flipped bit in a picture."""
    random = np.random.default_rng(15)
    root, broken = folder / NAME / "1.0.1", folder / "broken" / "1.0.1"
    episodes = [episode(random, index) for index in range(len(LENGTHS))]
    write_dataset(root, [features for features, _ in episodes])
    shutil.copytree(root, broken)
    shard = broken / shard_name("train", 0)
    raw = bytearray(shard.read_bytes())
    raw[len(raw) // 2] ^= 1
    shard.write_bytes(raw)
    return Truth(
        path=root,
        episodes=tuple(truth for _, truth in episodes),
        fields=frozenset(
            {f"steps/{key}" for key in STEPS}
            | {f"episode_metadata/{key}" for key in ("file_path", "building", "success", "intrinsics")}
            | {f"dataset_info.json/{member}" for member in ("name", "version", "citation", "splits")}
            | {"dataset_info.json/redistributionInfo/license", "features.json"}
        ),
        broken=broken,
    )


# What is in it


def episode(random: np.random.Generator, index: int) -> tuple[dict[str, bytes], EpisodeTruth]:
    """Make the features of an episode, and what must come of them."""
    n = LENGTHS[index]
    rgb = random.integers(0, 256, (n, HEIGHT, WIDTH, 3), np.uint8)
    smooth = np.cumsum(random.integers(0, 4, (n, HEIGHT, WIDTH, 3)), axis=2).astype(np.uint8)
    jpegs = [encoded(picture, "JPEG") for picture in smooth]
    depth = random.integers(0, 1 << 16, (n, HEIGHT, WIDTH)).astype(np.uint16)
    real = random.normal(size=(n, HEIGHT, WIDTH)).astype(np.float32)
    numbers: dict[str, NDArray[Any]] = {
        "action": random.normal(size=(n, 7)).astype(np.float32).astype(np.float64),
        "action.cartesian_position": random.normal(size=(n, 6)).astype(np.float32).astype(np.float64),
        "action.gripper_position": random.random((n, 1), np.float32).astype(np.float64),
        "observation.joint_position": random.normal(size=(n, 7)).astype(np.float32),
        "observation.counts": random.integers(-(1 << 40), 1 << 40, (n, 3)),
        "observation.touched": random.random((n, 2)) < 0.5,
        "observation.level": random.integers(0, 256, n, np.uint8),
        "extra.language_embedding": random.normal(size=(n, 5)).astype(np.float32),
        "is_first": np.arange(n) == 0,
        "is_last": np.arange(n) == n - 1,
        "reward": (np.arange(n) == n - 1).astype(np.float32),
    }
    touch = random.normal(size=(n, 3, 2))
    cloud = random.normal(size=(n, 6, 3)).astype(np.float32)
    lengths = random.integers(0, 4, n)
    touched = random.integers(0, 99, int(lengths.sum()))
    stored = {key: of(numbers[STREAM_OF.get(key, "")]) for key in STEPS if STREAM_OF.get(key, "") in numbers}
    stored |= {
        "observation/wrist_image_left": texts([encoded(picture, "PNG") for picture in rgb]),
        "observation/exterior_image_1_left": texts(jpegs),
        "observation/depth": texts([encoded(picture, "PNG") for picture in depth]),
        "observation/range": texts(
            [encoded(p.view(np.uint8).reshape(HEIGHT, WIDTH, 4), "PNG") for p in real]
        ),
        "observation/touch": texts([zlib.compress(sample.tobytes()) for sample in touch]),
        "observation/cloud/value": texts([sample.tobytes() for sample in cloud]),
        "observation/cloud/shape": of(np.tile(cloud.shape[1:], (n, 1))),
        "observation/contacts/ragged_flat_values": of(touched),
        "observation/contacts/ragged_row_lengths_0": of(lengths),
        "language_instruction": texts([INSTRUCTIONS[0]] * n),
        "language_instruction_2": texts([INSTRUCTIONS[1]] * n),
        "language_instruction_3": texts([""] * n),
        "phase": texts(["reach"] * (n // 2) + ["grasp"] * (n - n // 2)),
        "mystery": texts([b"\0\1"] * n),
    }
    values = numbers | {
        "observation.images.wrist_image_left": rgb,
        "observation.images.exterior_image_1_left": np.stack([decoded(jpeg) for jpeg in jpegs]),
        "observation.depth.depth": depth,
        "observation.depth.range": real,
        "observation.touch": touch,
        "observation.cloud": cloud,
    }
    told = {f"steps/{key}": value for key, value in stored.items()} | {
        "episode_metadata/file_path": texts([f"recordings/{index}.h5"]),
        "episode_metadata/building": texts(["Übungsraum"]),
        "episode_metadata/success": of(np.array([True])),
        "episode_metadata/intrinsics": of(np.eye(3, dtype=np.float32)),
    }
    times = np.array([round(i * 1e9 / RATE) for i in range(n)], np.int64)
    return told, EpisodeTruth(values=values, times={"steps": times}, instructions=INSTRUCTIONS)


STREAM_OF = {
    "action": "action",
    "action_dict/cartesian_position": "action.cartesian_position",
    "action_dict/gripper_position": "action.gripper_position",
    "observation/joint_position": "observation.joint_position",
    "observation/counts": "observation.counts",
    "observation/touched": "observation.touched",
    "observation/level": "observation.level",
    "language_embedding": "extra.language_embedding",
    "is_first": "is_first",
    "is_last": "is_last",
    "reward": "reward",
}


def tensor(dtype: str, *shape: int, **more: Any) -> dict[str, Any]:
    dimensions = {"dimensions": [str(extent) for extent in shape]} if shape else {}
    told = {"shape": dimensions, "dtype": dtype, "encoding": "none", **more}
    return {"pythonClassName": f"{CLASS}.tensor_feature.Tensor", "tensor": told}


def image(dtype: str, channels: int, encoding: str) -> dict[str, Any]:
    shape = {"dimensions": [str(HEIGHT), str(WIDTH), str(channels)]}
    told = {"shape": shape, "dtype": dtype, "encodingFormat": encoding}
    return {"pythonClassName": f"{CLASS}.image_feature.Image", "image": told}


def sequence(feature: Mapping[str, Any]) -> dict[str, Any]:
    told = {"feature": feature, "length": "-1"}
    return {"pythonClassName": f"{CLASS}.sequence_feature.Sequence", "sequence": told}


TEXT = {"pythonClassName": f"{CLASS}.text_feature.Text", "text": {}}
STEPS: dict[str, dict[str, Any]] = {
    "action": tensor("float64", 7) | {"description": "Robot action, consists of [7x joint velocities]."},
    "action_dict/cartesian_position": tensor("float64", 6),
    "action_dict/gripper_position": tensor("float64", 1),
    "observation/joint_position": tensor("float32", 7),
    "observation/counts": tensor("int64", 3),
    "observation/touched": tensor("bool", 2),
    "observation/level": tensor("uint8"),
    "observation/wrist_image_left": image("uint8", 3, "png"),
    "observation/exterior_image_1_left": image("uint8", 3, "jpeg"),
    "observation/depth": image("uint16", 1, "png"),
    "observation/range": image("float32", 1, "png"),
    "observation/touch": tensor("float64", 3, 2, encoding="zlib"),
    "observation/cloud": tensor("float32", -1, -1, encoding="bytes"),
    "observation/contacts": sequence(tensor("int64")),
    "language_embedding": tensor("float32", 5),
    "language_instruction": TEXT,
    "language_instruction_2": TEXT,
    "language_instruction_3": TEXT,
    "phase": TEXT,
    "is_first": tensor("bool"),
    "is_last": tensor("bool"),
    "reward": tensor("float32"),
    "absent": tensor("float32", 2, optional=True),
    "mystery": {"pythonClassName": "os.system", "jsonFeature": {"json": "{}"}},
}
META = {
    "file_path": TEXT,
    "building": TEXT,
    "success": tensor("bool"),
    "intrinsics": tensor("float32", 3, 3),
}


def dictionary(flat: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Nest features by the slashes in their keys."""
    inner: dict[str, Any] = {}
    for key, feature in flat.items():
        first, _, rest = key.partition("/")
        if rest:
            inner.setdefault(first, {})[rest] = feature
        else:
            inner[first] = feature
    nested = {k: dictionary(v) if "pythonClassName" not in v else v for k, v in inner.items()}
    return {"pythonClassName": f"{CLASS}.features_dict.FeaturesDict", "featuresDict": {"features": nested}}


def features_json() -> dict[str, Any]:
    """Return what features.json says."""
    steps = sequence(dictionary(STEPS)) | {"pythonClassName": f"{CLASS}.dataset_feature.Dataset"}
    return dictionary({"steps": steps, "episode_metadata": dictionary(META)})


def info_json() -> dict[str, Any]:
    """Return what dataset_info.json says."""
    template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    splits = [
        {"name": split, "shardLengths": [str(len(shard)) for shard in shards], "filepathTemplate": template}
        for split, shards in SHARDS.items()
    ]
    return {
        "name": NAME,
        "version": "1.0.1",
        "fileFormat": "tfrecord",
        "citation": "@article{nobody}",
        "redistributionInfo": {"license": "CC-BY-4.0"},
        "splits": splits,
    }


def write_dataset(root: Path, episodes: Sequence[Mapping[str, bytes]]) -> None:
    """Write all files of a dataset."""
    root.mkdir(parents=True)
    for split, shards in SHARDS.items():
        for number, indices in enumerate(shards):
            records = b"".join(record(example(episodes[index])) for index in indices)
            root.joinpath(shard_name(split, number)).write_bytes(records)
    root.joinpath("features.json").write_text(json.dumps(features_json()), encoding="utf-8")
    root.joinpath("dataset_info.json").write_text(json.dumps(info_json()), encoding="utf-8")


def shard_name(split: str, number: int) -> str:
    return f"{NAME}-{split}.tfrecord-{number:05d}-of-{len(SHARDS[split]):05d}"


def encoded(picture: NDArray[Any], form: str) -> bytes:
    out = io.BytesIO()
    Image.fromarray(picture).save(out, form)
    return out.getvalue()


def decoded(jpeg: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(jpeg)))


# TFRecord and protocol buffers


def record(data: bytes) -> bytes:
    """Frame a record."""
    length = struct.pack("<Q", len(data))
    return length + masked(length) + data + masked(data)


def masked(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def example(features: Mapping[str, bytes]) -> bytes:
    """Return a tf.train.Example."""
    entries = (field(1, field(1, key.encode()) + field(2, value)) for key, value in features.items())
    return field(1, b"".join(entries))


def of(values: NDArray[Any]) -> bytes:
    """Return a Feature of numbers, packed."""
    if values.dtype.kind == "f":
        return field(2, field(1, values.astype("<f4").tobytes()))
    return field(3, field(1, b"".join(varint(int(value)) for value in values.ravel())))


def texts(values: Sequence[str | bytes]) -> bytes:
    """Return a Feature of bytes."""
    return field(1, b"".join(field(1, v.encode() if isinstance(v, str) else v) for v in values))


def field(number: int, data: bytes) -> bytes:
    """Return a field that holds bytes or a message."""
    return varint(number << 3 | 2) + varint(len(data)) + data


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
