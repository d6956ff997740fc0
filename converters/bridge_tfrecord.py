"""BridgeData V2 as its own training code reads it: TFRecords of whole trajectories, outside of TFDS.

Field notes (rail-berkeley/bridge_data_v2: data_processing/bridgedata_raw_to_numpy.py and
bridgedata_numpy_to_tfrecord.py). Below ``<environment>/<task>/<number>/`` lie ``train/out.tfrecord`` and
``val/out.tfrecord``. A record is a tf.train.Example; each feature holds one TensorProto
(tensorflow/core/framework/tensor.proto), a whole array of the trajectory as its raw bytes.

- ``observations`` and ``next_observations`` are the same rows, one step apart, for images and state. Both are
  kept as they are, since nothing says that no step was left out.
- Pictures were scaled to 128 x 128 by Pillow, red first. The recorder's latency of one step in data from
  before 2021-07-23 was taken out by the script that made the arrays.
- ``language`` holds every annotation of the trajectory; it may be empty.
- Nothing tells time. The rate and the meaning of the action are those of BridgeData (``_oxe.toml``).
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, ClassVar

import numpy as np

from ..schemas import UNKNOWN, ActionContract, Array, Episode, FormatError, StreamSpec
from ._draft import Draft, stream_name
from ._oxe import entry_of
from ._tfrecord import Record, Values, Walk, check_data, example_of, records_of
from .base import Format, contained, rows_in, source_file

VERSION = "1"
"""Goes up when an episode read from the same files changes."""

_NAME = "out.tfrecord"
_OWN = {"actions", "observations/state", "truncates"}
_STREAMS = {
    "actions": "action",
    "observations/state": "observation.state",
    "terminals": "is_terminal",
    "truncates": "extra.truncates",
}
_STATE = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")
_SCRIPT = "rail-berkeley/bridge_data_v2: data_processing/bridgedata_numpy_to_tfrecord.py"

_TYPES = {1: "float32", 2: "float64", 3: "int32", 4: "uint8", 5: "int16", 6: "int8", 9: "int64", 10: "bool"}
"""Numbers of tensorflow/core/framework/types.proto."""
_STRING = 7
_MAX_DIMENSIONS = 8
_MAX_TEXTS = 1_000
_MAX_TEXT = 100_000
_FIRST_FOLDERS, _MOST_FOLDERS = 500, 100_000


@dataclass(frozen=True)
class BridgeTfrecord:
    """An ``out.tfrecord``, or a folder with some below it.

    Attributes
    ----------
    rate_hz
        Steps per second; None: BridgeData's.
    """

    format: ClassVar[Format] = Format(
        name="bridge-tfrecord",
        title="BridgeData V2 TFRecords of trajectories",
        suffixes=(".tfrecord",),
        spec="https://github.com/rail-berkeley/bridge_data_v2/tree/main/data_processing",
    )
    block_bytes: int = 1 << 22
    rate_hz: float | None = None

    def probe(self, path: Path) -> bool:
        """Tell whether the first trajectory has the features that only the training code's have."""
        try:
            first = path if path.is_file() else next(_files(path, _FIRST_FOLDERS), None)
            return first is not None and set(example_of(records_of(first)[0])) >= _OWN
        except (FormatError, OSError, IndexError):
            return False

    def episodes(self, path: Path) -> Iterator[Episode]:
        """Yield the trajectories in order of the files' paths; payload is read when asked for."""
        files = [path] if path.is_file() else list(_files(path, _MOST_FOLDERS))
        if not files:
            raise FormatError(str(path), _NAME, "there is no such file below it")
        for file in files:
            root = path if path.is_dir() else path.parent
            inside = contained(root, file.relative_to(root).as_posix(), path=file, where="")
            records = records_of(inside)
            if not records:
                raise FormatError(str(file), "", "holds no trajectory", "The file was cut off")
            for record in records:
                check_data(record)
                yield self._episode(inside, root.resolve(), record)

    def _episode(self, path: Path, root: Path, record: Record) -> Episode:
        draft, known = Draft(path=path, where=f"record {record.number}"), entry_of("bridge_dataset")
        tensors = {key: _tensor(draft, key, values) for key, values in example_of(record).items()}
        if "actions" not in tensors or not tensors["actions"].shape or not tensors["actions"].shape[0]:
            draft.refuse("actions", "are absent or empty")
        length = tensors["actions"].shape[0]
        rate = self.rate_hz or known.rate_hz or 0.0
        said = "option rate_hz" if self.rate_hz else f"BridgeData: {known.rate_source}"
        draft.nominal("steps", length, rate, said)
        for key, tensor in tensors.items():
            if tensor.texts is not None:
                draft.tell(key, list(tensor.texts), "texts", ["instructions"] * (key == "language"))
                for text in tensor.texts if key == "language" else ():
                    draft.instruct(text)
            elif tensor.shape[:1] != (length,):
                draft.refuse(key, f"has the shape {list(tensor.shape)}; there are {length} actions")
            else:
                self._add(draft, key, tensor, length)
        return draft.build(
            self,
            [source_file(path, root)],
            version=VERSION,
            selector=f"record={record.number}",
            embodiment=known.robot or UNKNOWN,
        )

    def _add(self, draft: Draft, key: str, tensor: _Tensor, length: int) -> None:
        shape = tensor.shape[1:]
        picture = tensor.dtype == "uint8" and len(shape) == 3 and shape[2] in {1, 3} and "images" in key
        name = _STREAMS.get(key) or _name(key, picture=picture)
        known = entry_of("bridge_dataset")
        contract = ActionContract(
            parts=known.parts["action"] if shape == (7,) else (),
            offset_steps=0,
            evidence=f"{known.evidence}; {_SCRIPT}: actions[t] leads from observations[t] to the next",
        )
        spec = StreamSpec(
            name=name,
            kind="video" if picture else "low_dim",
            dtype=tensor.dtype,
            shape=shape,
            unit=("1",) if picture else (UNKNOWN,),
            frame=UNKNOWN if name in {"action", "observation.state"} else None,
            axes=_STATE if shape == (7,) and name.endswith("state") else (),
            contract=contract if name == "action" else None,
        )
        draft.add(spec, length, partial(_read, tensor, spec, self.block_bytes), source=key)


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A TensorProto: the place of its bytes, or its texts."""

    path: Path
    where: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    texts: tuple[str, ...] | None = None


def _read(tensor: _Tensor, spec: StreamSpec, block_bytes: int, start: int, stop: int) -> Iterator[Array]:
    rows = rows_in(block_bytes, spec)
    with tensor.path.open("rb") as file:
        for first in range(start, stop, rows):
            count = min(rows, stop - first)
            file.seek(tensor.offset + first * spec.sample_bytes)
            raw = file.read(count * spec.sample_bytes)
            if len(raw) != count * spec.sample_bytes:
                raise FormatError(str(tensor.path), tensor.where, "the file ends before its values do")
            values = np.frombuffer(raw, "u1" if spec.dtype == "bool" else spec.np_dtype)
            if spec.dtype == "bool" and int(values.max(initial=0)) > 1:
                raise FormatError(str(tensor.path), tensor.where, "holds what is no bool")
            yield values.astype(spec.np_dtype, copy=False).reshape(count, *spec.shape)


def _tensor(draft: Draft, key: str, values: Values) -> _Tensor:
    """Return the one TensorProto of a feature, checked."""
    if values.form != "bytes" or values.count != 1:
        draft.refuse(key, "holds no tensor")
    at, end = int(values.offsets[0]), int(values.offsets[0] + values.sizes[0])
    dtype, shape, content, texts = 0, list[int](), (0, -1), list[str]()
    with values.path.open("rb") as file:
        for number, _, begin, size in Walk(file, values.path, values.where, at, end).fields():
            if number == 1:
                dtype = Walk(file, values.path, values.where, begin, begin + size).varint()
            elif number == 2:
                shape = _shape(Walk(file, values.path, values.where, begin, begin + size), file)
            elif number == 4:
                content = begin, size
            elif number == 8:
                if size > _MAX_TEXT or len(texts) == _MAX_TEXTS:
                    draft.refuse(key, f"holds more than {_MAX_TEXTS:,} texts of {_MAX_TEXT:,} bytes")
                file.seek(begin)
                texts.append(_text(draft, key, file.read(size)))
    if dtype == _STRING:
        if math.prod(shape) != len(texts):
            draft.refuse(key, f"tells of the shape {shape}, and holds {len(texts)} texts")
        return _Tensor(values.path, values.where, "string", tuple(shape), 0, tuple(texts))
    if dtype not in _TYPES:
        draft.refuse(key, f"is of the type {dtype} of TensorFlow, which is not read")
    told = math.prod(shape) * np.dtype(_TYPES[dtype]).itemsize
    if content[1] != told:
        draft.refuse(key, f"tells of {told:,} bytes, and holds {max(content[1], 0):,}")
    return _Tensor(values.path, values.where, _TYPES[dtype], tuple(shape), content[0])


def _shape(walk: Walk, file: BinaryIO) -> list[int]:
    """Read a TensorShapeProto (tensorflow/core/framework/tensor_shape.proto)."""
    found: list[int] = []
    for begin, end in walk.messages(2):
        extent = 0
        for number, wire, at, size in Walk(file, walk.path, walk.where, begin, end).fields():
            if number == 1 and wire == 0:
                extent = Walk(file, walk.path, walk.where, at, at + size).varint()
        if extent >= 1 << 40 or len(found) == _MAX_DIMENSIONS:
            raise walk.refuse(f"an extent of {extent} is none")
        found.append(extent)
    return found


def _text(draft: Draft, key: str, raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        draft.refuse(key, "holds a text that is no UTF-8")


def _name(key: str, *, picture: bool) -> str:
    first, *rest = key.split("/")
    if first == "observations" and rest:
        return stream_name("observation", *(["images"] if picture else []), *rest)
    return stream_name("extra", first, *rest)


def _files(folder: Path, most: int) -> Iterator[Path]:
    """Yield the files of this name below a folder, in order, if there are no more than so many folders."""
    for seen, (place, folders, names) in enumerate(os.walk(folder)):
        folders.sort()
        if _NAME in names:
            yield Path(place, _NAME)
        if seen == most:
            why = f"more than {most:,} folders lie below it"
            raise FormatError(str(folder), _NAME, why, "Give a folder further down")


CONVERTER = BridgeTfrecord
