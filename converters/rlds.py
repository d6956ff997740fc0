"""RLDS episodes in TFDS datasets: Open X-Embodiment, DROID, and what OpenVLA and Octo are trained on.

Field notes. A folder ``<name>/<version>`` with dataset_info.json, features.json and TFRecord shards, one
tf.train.Example per episode (kpertsch/rlds_dataset_builder: example_dataset/). Read without TensorFlow:
``_tfrecord.py`` reads the records by range, ``_tfds.py`` what the features are. What is odd, and what was
chosen:

- Nothing tells time. The clock is nominal; its rate is from the table ``_oxe.toml``, which says for each
  dataset whose word it is, or from the option `rate_hz`. Without either the dataset is refused.
- A step holds an observation and the action that answers it (google-research/rlds: README.md). What the axes
  of an action mean differs from dataset to dataset, as do sign and range of the gripper, and features.json
  tells it in prose at best: the prose becomes the stream's description, and the table's facts its contract.
  The prose of the builders' template ("7x joint velocities, 2x gripper velocities, 1x terminate episode")
  stands in many datasets that hold something else. Values are never changed: bridge's first action of zeros
  stays, a gripper's relative closing stays relative, and so on; `provenance.warnings` tell of them.
- Floats are stored as float32, whatever features.json declares (tensorflow_datasets:
  core/example_serializer.py). The stream has the declared dtype, as TFDS gives it.
- Texts are stored in each step. What stays the same all along is told once.
- Pictures are PNG or JPEG, by their first bytes. Some datasets stored blue first; that is recorded as
  ``stored_order``, and the pixels are as stored.
- Features of changing length per step become lists in `extra`, if they are short.
- Shards may be absent, since people download parts; a warning tells.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ..schemas import Episode, FormatError
from . import _tfds as tfds
from ._rlds_episode import STEPS, Builder, Dataset
from ._tfds import FEATURES, INFO
from ._tfrecord import check_data, records_of
from .base import Format

VERSION = "1"
"""Goes up when an episode read from the same files changes."""


@dataclass(frozen=True)
class Rlds:
    """The folder of a version of a dataset, the one that holds ``dataset_info.json``.

    Attributes
    ----------
    rate_hz
        Steps per second; None: what is known of datasets of this name.
    dataset
        Look rate and action up under this name instead of the dataset's own.
    split
        Read this split only, such as ``train``; all if empty.
    """

    format: ClassVar[Format] = Format(
        name="rlds",
        title="RLDS dataset in TFDS format (TFRecord)",
        spec="https://github.com/google-research/rlds",
    )
    block_bytes: int = 1 << 22
    rate_hz: float | None = None
    dataset: str = ""
    split: str = ""

    def probe(self, path: Path) -> bool:
        """Tell whether ``path`` holds a dataset whose features.json tells of steps."""
        try:
            document = tfds.read(path, FEATURES) if (path / INFO).is_file() else {}
            return any(f.key.startswith(STEPS) for f in tfds.features_of(path / FEATURES, document))
        except (FormatError, OSError):
            return False

    def episodes(self, path: Path) -> Iterator[Episode]:
        """Yield the episodes in order of splits, shards and records; payload is read when asked for."""
        dataset = Dataset.open(path, rate_hz=self.rate_hz, name=self.dataset, split=self.split)
        for shard, missing in dataset.shards:
            records = records_of(shard.path)
            if shard.records not in {None, len(records)}:
                why = f"holds {len(records)} records, but {INFO} tells of {shard.records}"
                raise FormatError(str(shard.path), f"record {len(records)}", why)
            for record in records:
                check_data(record)
                builder = Builder(dataset, shard, record, missing, self.block_bytes)
                yield builder.build(self, VERSION)


CONVERTER = Rlds
