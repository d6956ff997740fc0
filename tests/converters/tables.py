"""Tables of columns as files of several kinds, written by the libraries of those kinds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

KINDS = ("hdf5", "parquet", "npz")


def write_table(folder: Path, kind: str, columns: Mapping[str, Any], name: str = "run") -> Path:
    """Write arrays with a row per step, and lists of texts, as a file of a kind."""
    path = folder / f"{name}.{ {'hdf5': 'h5'}.get(kind, kind) }"
    if kind == "npz":
        arrays: dict[str, Any] = {key: np.asarray(value) for key, value in columns.items()}
        np.savez(path, **arrays)
    elif kind == "parquet":
        pq.write_table(
            pa.table({key: _arrow(value) for key, value in columns.items()}), path, row_group_size=7
        )
    else:
        with h5py.File(path, "w") as file:
            for key, value in columns.items():
                file[key] = value
    return path


def _arrow(value: Any) -> Any:
    array = np.asarray(value)
    if array.dtype.kind == "U":
        return pa.array(array.tolist())
    if array.ndim == 1:
        return pa.array(array)
    flat = pa.array(array.reshape(-1))
    for extent in reversed(array.shape[1:]):
        flat = pa.FixedSizeListArray.from_arrays(flat, int(extent))
    return flat


def write_mapping(path: Path, text: str) -> Path:
    """Write a mapping of version 1."""
    path.write_text("mapping = 1\n" + text, "utf-8")
    return path
