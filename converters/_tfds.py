"""What a TFDS dataset says of itself: features.json and dataset_info.json, read as data.

After tensorflow/datasets: tensorflow_datasets/core/proto/feature.proto (what features.json holds),
core/example_serializer.py and core/features/ (how features become a tf.train.Example). Values of nested
dictionaries lie under their keys joined by slashes. Below a `Dataset` or `Sequence` the values of all
elements stand behind each other; below two of them the key is ``<key>/ragged_flat_values``, and
``<key>/ragged_row_lengths_<i>`` tells the lengths. bool and integers are int64, floats of any width are
float32, uint64 has the bits of an int64; ``encoding`` makes a tensor bytes, raw or zlib's.

TFDS imports the Python class that ``pythonClassName`` names. Here it is a word: what a feature is, is told
by which member describes it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..schemas import FormatError, Json
from ._folder import json_members
from ._mp4 import MAX_PIXELS
from .base import contained

INFO, FEATURES = "dataset_info.json", "features.json"

_MAX_JSON_BYTES = 1 << 24
_MAX_FEATURES = 10_000
_MAX_DEPTH = 16
_MAX_DIMENSIONS = 8
_MAX_SAMPLE_BYTES = 1 << 30
_MAX_DESCRIPTION = 10_000

Kind = Literal["tensor", "text", "image", "class", "unknown"]

_TYPES = {"bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16"}
_TYPES |= {"float32", "float64"}
_STRINGS = {"string", "object", "bytes", "str"}
_ENCODINGS = {"none": "none", "": "none", "bytes": "bytes", "zlib": "zlib"}
_SHARD = re.compile(r"(?P<name>.+)-(?P<split>[^-/]+)\.tfrecord(?:-(?P<shard>\d{5,})-of-(?P<of>\d{5,}))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """A leaf of features.json.

    Attributes
    ----------
    key
        Its name in a tf.train.Example, such as ``steps/observation/image``.
    kind
        ``unknown`` for what is stored in a way that only its Python class knows.
    dtype
        NumPy name of its values; ``string`` for bytes.
    shape
        Of one element; None stands for an extent that is not told.
    rank
        How many sequences it lies in, ``steps`` included.
    encoding
        ``none``, ``bytes`` or ``zlib`` for tensors; what was asked for, for images.
    python_class
        As the file names it.
    """

    key: str
    kind: Kind
    dtype: str
    shape: tuple[int | None, ...]
    rank: int
    encoding: str = "none"
    description: str = ""
    python_class: str = ""
    optional: bool = False


def read(root: Path, name: str) -> dict[str, Any]:
    """Return one of the two files, an object."""
    return json_members(contained(root, name, path=root / name, where=""), _MAX_JSON_BYTES)


def features_of(path: Path, document: Mapping[str, Any]) -> list[Feature]:
    """Return the leaves of features.json, in its order."""
    if "featuresDict" not in document:
        advice = "Write it again with tensorflow-datasets 4.5 or later" if "content" in document else ""
        raise FormatError(str(path), "featuresDict", "is absent: this is no dictionary of features", advice)
    found = []
    for feature in _walk(path, document, "", 0, 0):
        found.append(feature)
        if len(found) > _MAX_FEATURES:
            raise FormatError(str(path), "", f"holds more than {_MAX_FEATURES:,} features")
    return found


def _walk(path: Path, node: Any, key: str, rank: int, depth: int) -> Iterator[Feature]:
    if not isinstance(node, dict) or depth > _MAX_DEPTH:
        raise FormatError(str(path), key, f"is no feature of up to {_MAX_DEPTH} levels")
    if "featuresDict" in node:
        inner = _member(path, key, node["featuresDict"], "features")
        for name, child in inner.items():
            yield from _walk(path, child, f"{key}/{name}" if key else name, rank, depth + 1)
    elif "sequence" in node:
        yield from _walk(path, _member(path, key, node["sequence"], "feature"), key, rank + 1, depth + 1)
    else:
        yield _leaf(path, node, key, rank)


def _member(path: Path, key: str, node: Any, name: str) -> dict[str, Any]:
    found = node.get(name) if isinstance(node, dict) else None
    if not isinstance(found, dict):
        raise FormatError(str(path), key, f"holds no {name}")
    return found


def _leaf(path: Path, node: Mapping[str, Any], key: str, rank: int) -> Feature:
    kind, told = _kind(node)
    dtype = str(told.get("dtype") or {"image": "uint8", "class": "int64"}.get(kind, "string"))
    encoding = str(told.get("encoding") or told.get("encodingFormat") or "none").lower()
    string = dtype in _STRINGS
    if kind == "tensor" and encoding not in _ENCODINGS:
        raise FormatError(str(path), key, f"the encoding {encoding!r} is unknown")
    # TFDS encodes no strings, and shows no pictures of other types: Tensor and Image in core/features/.
    shown = kind != "image" or dtype in {"uint8", "uint16", "float32"}
    if (
        (string and _ENCODINGS.get(encoding) in {"bytes", "zlib"})
        or not (string or dtype in _TYPES)
        or not shown
    ):
        kind = "unknown"
    shape = _shape(path, key, told.get("shape"))
    _check_size(path, key, kind, shape)
    return Feature(
        key=key,
        kind="text" if string and kind == "tensor" and not shape else kind,
        dtype="string" if string else dtype,
        shape=shape,
        rank=rank,
        encoding=_ENCODINGS.get(encoding, encoding),
        description=str(node.get("description") or "")[:_MAX_DESCRIPTION],
        python_class=str(node.get("pythonClassName") or "")[:1_000],
        optional=told.get("optional") is True,
    )


def _kind(node: Mapping[str, Any]) -> tuple[Kind, Mapping[str, Any]]:
    for member, kind in _KINDS.items():
        if isinstance(node.get(member), dict):
            return kind, node[member]
    return "unknown", {}


_KINDS: Mapping[str, Kind] = {
    "tensor": "tensor",
    "text": "text",
    "image": "image",
    "classLabel": "class",
    "boundingBox": "tensor",
}
"""Members of a feature that tell what it is. Others are not read: ``video``, a sequence of pictures within a
step, ``audio``, ``translation`` and ``jsonFeature``."""


def _shape(path: Path, key: str, told: Any) -> tuple[int | None, ...]:
    """Return a shape, whose extents are decimal texts in JSON (int64 of protocol buffers); -1 is none."""
    extents = told.get("dimensions", []) if isinstance(told, dict) else []
    if not isinstance(extents, list) or len(extents) > _MAX_DIMENSIONS:
        raise FormatError(str(path), key, f"{str(extents)[:100]} is no shape")
    if not all(re.fullmatch(r"-1|\d{1,12}", str(extent)) for extent in extents):
        raise FormatError(str(path), key, f"{str(extents)[:100]} is no shape")
    return tuple(None if int(extent) < 0 else int(extent) for extent in extents)


def _check_size(path: Path, key: str, kind: Kind, shape: tuple[int | None, ...]) -> None:
    limit = 4 * MAX_PIXELS if kind == "image" else _MAX_SAMPLE_BYTES // 8
    if math.prod(extent for extent in shape if extent is not None) > limit or 0 in shape:
        raise FormatError(str(path), key, f"{list(shape)} is no shape of a sample that is read")


# Shards


@dataclass(frozen=True, slots=True)
class Shard:
    """A file of records.

    Attributes
    ----------
    number, of
        Which of how many of its split.
    records
        How many records dataset_info.json tells of; None if it does not.
    """

    path: Path
    split: str
    number: int
    of: int
    records: int | None


def shards_of(root: Path, info: Mapping[str, Any]) -> list[Shard]:
    """Return the shards that are there, in order of split and number."""
    lengths = _lengths(root / INFO, info)
    found = []
    for path in sorted(root.iterdir()):
        told = _SHARD.fullmatch(path.name)
        if told is None:
            continue
        file = contained(root, path.name, path=root / INFO, where=path.name)
        split, number, of = told["split"], int(told["shard"] or 0), int(told["of"] or 1)
        known = lengths.get(split)
        if number >= of or (known is not None and len(known) != of):
            why = f"is shard {number} of {of}, but {INFO} tells of {len(known or ())}"
            raise FormatError(str(path), split, why)
        found.append(Shard(file, split, number, of, known[number] if known else None))
    if not found:
        template = _template(info)
        raise FormatError(str(root / INFO), "splits", f"there is no file of records like {template!r}")
    return found


def _template(info: Mapping[str, Any]) -> str:
    for split in info.get("splits") or []:
        if isinstance(split, dict) and split.get("filepathTemplate"):
            return str(split["filepathTemplate"])[:200]
    return "<dataset>-<split>.tfrecord-00000-of-00001"


def _lengths(path: Path, info: Mapping[str, Any]) -> dict[str, list[int]]:
    """Return how many records each shard of each split has, where that is told."""
    found: dict[str, list[int]] = {}
    splits = info.get("splits") or []
    if not isinstance(splits, list):
        raise FormatError(str(path), "splits", "is no list")
    for split in splits:
        told: Json = split.get("shardLengths") if isinstance(split, dict) else None
        if isinstance(told, list) and told and all(re.fullmatch(r"\d{1,12}", str(n)) for n in told):
            found[str(split.get("name"))] = [int(n) for n in told]
    return found
