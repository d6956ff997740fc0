"""What is in a .rrd file, read back by Rerun."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from teleopen.viewer.rerun import rrc


@dataclass(frozen=True)
class Read:
    """The chunks of a recording, by entity."""

    batches: dict[str, list[pa.RecordBatch]]

    @classmethod
    def of(cls, path: Path) -> Read:
        """Read a file."""
        batches: dict[str, list[pa.RecordBatch]] = {}
        for chunk in rrc.RrdReader(path).stream().to_chunks():
            batches.setdefault(str(chunk.entity_path), []).append(pa.record_batch(chunk.to_record_batch()))
        return cls(batches)

    def components(self, entity: str) -> set[str]:
        """Return the columns of an entity."""
        return {name for batch in self.batches[entity] for name in batch.schema.names}

    def column(self, entity: str, name: str) -> list[Any]:
        """Return the values of a column by ``frame``, without the lists of one around them."""
        rows: list[tuple[int, Any]] = []
        for batch in self.batches.get(entity, []):
            if name not in batch.schema.names:
                continue
            order = batch["frame"].to_pylist() if "frame" in batch.schema.names else [0] * len(batch)
            column = batch[name]
            if pa.types.is_duration(column.type) or pa.types.is_timestamp(column.type):
                column = column.cast(pa.int64())
            for at, value in zip(order, column.to_pylist(), strict=True):
                rows.append((int(at or 0), value[0] if isinstance(value, list) and value else value))
        return [value for _, value in sorted(rows, key=lambda row: row[0])]

    def blobs(self, entity: str, name: str) -> list[bytes]:
        """Return the bytes of a column."""
        return [np.array(value, np.uint8).tobytes() for value in self.column(entity, name)]

    def numbers(self, entity: str, name: str) -> NDArray[Any]:
        """Return a column as an array."""
        return np.array(self.column(entity, name))

    @property
    def properties(self) -> dict[str, Any]:
        """Return the properties of the episode."""
        found = {}
        for batch in self.batches["/__properties/episode"]:
            for name in batch.schema.names:
                if name != "rerun.controls.RowId":
                    (values,) = batch[name].to_pylist()
                    found[name.rpartition(":")[2]] = values[0] if values else None
        return found
