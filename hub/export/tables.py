"""The tables of a LeRobot dataset: rows of data, episodes, tasks.

After github.com/huggingface/lerobot: src/lerobot/datasets/lerobot_dataset.py and utils.py.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...schemas import Array
from .. import disk
from .video import PER_CHUNK

if TYPE_CHECKING:
    import pyarrow as pa

FILE_BYTES = 100 << 20
"""When a file is full: data_files_size_in_mb in LeRobot's info.json."""
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
_EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
_EPISODES_AT_ONCE = 100


def arrow(values: Array) -> pa.Array[Any]:
    """Return samples (n, *shape) as LeRobot stores them: ``(1,)`` as scalars, the rest as lists."""
    import pyarrow as pa

    shape = values.shape[1:]
    made: pa.Array[Any] = pa.array(np.ascontiguousarray(values).reshape(-1))
    if shape == (1,):
        return made
    if len(shape) == 1:
        return pa.FixedSizeListArray.from_arrays(made, shape[0])
    for axis in reversed(range(len(shape))):
        lists = len(values) * math.prod(shape[:axis])
        made = pa.ListArray.from_arrays(pa.array(np.arange(lists + 1, dtype=np.int32) * shape[axis]), made)
    return made


class _Files:
    """Parquet files of one series, each filled before the next begins."""

    def __init__(self, root: Path, template: str, file_bytes: int) -> None:
        self._root, self._template, self._most = root, template, file_bytes
        self._number = -1
        self._writer: Any = None
        self._path = root
        self._rows = 0

    @property
    def place(self) -> dict[str, int]:
        """Chunk and number of the file that is being written."""
        return {"chunk_index": self._number // PER_CHUNK, "file_index": self._number % PER_CHUNK}

    def make_room(self, rows: int) -> None:
        """Begin a new file if the one at hand would be full with so many more rows, going by those in it."""
        if self._writer is not None:
            size = self._path.stat().st_size
            if size + size / max(1, self._rows) * rows < self._most:
                return
        self.close()
        self._number, self._rows = self._number + 1, 0
        self._path = self._root / self._template.format(**self.place)
        disk.make_folder(self._path.parent)

    def write(self, table: pa.Table) -> None:
        """Add a row group."""
        import pyarrow.parquet as pq

        if self._writer is None:
            self._writer = pq.ParquetWriter(self._path, table.schema, compression="snappy")
        self._writer.write_table(table)
        self._rows += table.num_rows

    def close(self) -> None:
        """Finish the file that is being written, if there is one."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class DataFiles(_Files):
    """The rows of all episodes, in order; an episode lies in one file."""

    def __init__(self, root: Path, file_bytes: int = FILE_BYTES) -> None:
        super().__init__(root, DATA_PATH, file_bytes)


class EpisodesFiles(_Files):
    """A row for each episode."""

    def __init__(self, root: Path, file_bytes: int = FILE_BYTES) -> None:
        super().__init__(root, _EPISODES_PATH, file_bytes)
        self._held: list[dict[str, Any]] = []
        self._schema: pa.Schema | None = None

    def add(self, row: Mapping[str, Any]) -> None:
        """Add a row; some are held until there are enough for a row group."""
        self._held.append(dict(row))
        if len(self._held) == _EPISODES_AT_ONCE:
            self._flush()

    def close(self) -> None:
        """Write what is held, and finish the file."""
        if self._held:
            self._flush()
        super().close()

    def _flush(self) -> None:
        import pyarrow as pa

        held, self._held = self._held, []
        self.make_room(len(held))
        own = {f"meta/episodes/{name}": number for name, number in self.place.items()}
        table = pa.Table.from_pylist([{**row, **own} for row in held], self._schema)
        self._schema = table.schema
        self.write(table)


def write_tasks(root: Path, tasks: Sequence[str]) -> None:
    """Write meta/tasks.parquet, as pandas writes a table whose index holds the texts.

    LeRobot reads the text of a task as the name of the row of its number. That the column is an index stands
    in the schema's metadata (https://pandas.pydata.org/docs/development/developer.html).
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    def column(name: str, kind: str, numpy_kind: str) -> dict[str, Any]:
        return {
            "name": name,
            "field_name": name,
            "pandas_type": kind,
            "numpy_type": numpy_kind,
            "metadata": None,
        }

    told = {
        "index_columns": ["task"],
        "column_indexes": [],
        "columns": [column("task_index", "int64", "int64"), column("task", "unicode", "object")],
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.0.0",
    }
    fields: list[Any] = [pa.field("task_index", pa.int64()), pa.field("task", pa.string())]
    schema = pa.schema(fields, {"pandas": json.dumps(told)})
    table = pa.table({"task_index": list(range(len(tasks))), "task": list(tasks)}, schema)
    disk.make_folder(root / "meta")
    pq.write_table(table, root / "meta/tasks.parquet")
