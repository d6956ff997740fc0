"""Columns of Parquet files as streams: numbers, nested lists of them, and image files.

A footer of a few bytes can promise any number of rows and values, so what it says is compared with what the
caller expects before a column is allocated. Columns are read piece by piece; pages that bear a checksum are
held against it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..schemas import Array, FormatError, StreamSpec
from ._pictures import in_blocks, pixels_of, shown
from .base import rows_in

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_MAX_BATCH = 1 << 16
_LEAST_BATCH = 1 << 10
_IMAGES_AT_ONCE = 4


@contextmanager
def opened(path: Path, where: str = "") -> Iterator[pq.ParquetFile]:
    """Open a Parquet file; what goes wrong while it is open is the file's fault, a `FormatError`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # With a buffer, and not ahead, a column is read piece by piece instead of a row group at once.
        with pq.ParquetFile(
            path, buffer_size=1 << 18, pre_buffer=False, memory_map=False, page_checksum_verification=True
        ) as file:
            yield file
    except FormatError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError, MemoryError) as error:
        raise FormatError(str(path), where, f"cannot be read as Parquet: {str(error)[:300]}") from error


def numpy_name(kind: pa.DataType) -> str | None:
    """Return the NumPy name of an Arrow type of numbers; None for any other type."""
    import pyarrow.types as pt

    if pt.is_boolean(kind) or pt.is_integer(kind) or pt.is_floating(kind):
        return np.dtype(kind.to_pandas_dtype()).name
    return None


def unnested(kind: pa.DataType) -> tuple[pa.DataType, list[int | None]]:
    """Return the innermost type of nested lists, and the length of each list where the type tells it."""
    import pyarrow as pa
    import pyarrow.types as pt

    lengths: list[int | None] = []
    while True:
        if isinstance(kind, pa.BaseExtensionType):  # the array types of the `datasets` library
            kind = kind.storage_type
        elif pt.is_fixed_size_list(kind):
            lengths.append(kind.list_size)
            kind = kind.value_type
        elif pt.is_list(kind) or pt.is_large_list(kind):
            lengths.append(None)
            kind = kind.value_type
        else:
            return kind, lengths


def values_per_row(file: pq.ParquetFile) -> dict[str, int | None]:
    """Return how many values a row of each column has, by the file's footer alone.

    Columns of several values side by side (structs) are left out; None: it differs between row groups.
    """
    found: dict[str, int | None] = {}
    leaf = 0
    for column in file.schema_arrow:
        leaves = _leaves(column.type)
        if leaves == 1:
            found[column.name] = _values_per_row(file.metadata, leaf)
        leaf += leaves
    return found


def _leaves(kind: pa.DataType) -> int:
    inner, _ = unnested(kind)
    return sum(_leaves(inner.field(i).type) for i in range(inner.num_fields)) or 1


def _values_per_row(meta: pq.FileMetaData, leaf: int) -> int | None:
    groups = [meta.row_group(i) for i in range(meta.num_row_groups)]
    found = {divmod(g.column(leaf).num_values, g.num_rows) for g in groups if g.num_rows}
    whole, rest = found.pop() if len(found) == 1 else (0, 1)
    return None if rest else whole


def batches(path: Path, column: str, start: int, stop: int, rows: int) -> Iterator[tuple[int, pa.Array[Any]]]:
    """Yield rows ``[start, stop)`` of a column, each time with the number of the first. Holds one batch."""
    if start >= stop:
        return
    with opened(path, column) as file:
        yield from _batches(file, path, column, start, stop, rows)


def _batches(
    file: pq.ParquetFile, path: Path, column: str, start: int, stop: int, rows: int
) -> Iterator[tuple[int, pa.Array[Any]]]:
    sizes = [file.metadata.row_group(g).num_rows for g in range(file.metadata.num_row_groups)]
    ends = np.cumsum(sizes).tolist()
    groups = [g for g, end in enumerate(ends) if end > start and end - sizes[g] < stop]
    at = ends[groups[0]] - sizes[groups[0]] if groups else start
    for batch in file.iter_batches(rows, row_groups=groups, columns=[column]):
        low, high = max(start - at, 0), min(stop - at, batch.num_rows)
        if low < high:
            # By name, since "a" asks for the column "a.b", too.
            found = batch.column(batch.schema.get_field_index(column)).slice(low, high - low)
            found.validate(full=True)  # offsets within bounds, text in UTF-8
            yield at + low, found
        at += batch.num_rows
        if at >= stop:
            return
    raise FormatError(str(path), column, f"ends at row {at}, where {stop} were announced")


def numbers(
    path: Path, column: str, spec: StreamSpec, block_bytes: int, first: int, start: int, stop: int
) -> Iterator[Array]:
    """Yield samples ``[start, stop)`` of a numeric column whose sample 0 is row ``first``, in blocks.

    Holds one block, or a thousand rows if that is more.
    """
    rows = _rows_at_once(spec, block_bytes)
    least = min(_LEAST_BATCH, rows_in(1 << 20, spec))
    for at, batch in batches(path, column, first + start, first + stop, max(rows, least)):
        values = _values(path, column, spec, at, batch)
        yield from (values[i : i + rows] for i in range(0, len(values), rows))


def whole(file: pq.ParquetFile, path: Path, column: str, spec: StreamSpec) -> Array:
    """Return all samples of a numeric column of an open file, for a caller who knows that they are few."""
    total, rows = file.metadata.num_rows, _rows_at_once(spec, 1 << 20)
    batches = _batches(file, path, column, 0, total, rows) if total else ()
    parts = [_values(path, column, spec, at, batch) for at, batch in batches]
    return np.concatenate([np.empty((0, *spec.shape), spec.np_dtype), *parts])


def _rows_at_once(spec: StreamSpec, block_bytes: int) -> int:
    return min(rows_in(block_bytes, spec), _MAX_BATCH)


def _values(path: Path, column: str, spec: StreamSpec, at: int, batch: pa.Array[Any]) -> Array:
    try:
        return as_numpy(batch, spec.shape).astype(spec.np_dtype, copy=False)
    except ValueError as error:
        raise FormatError(str(path), f"{column}, from row {at}", str(error)) from error


def as_numpy(column: pa.Array[Any], shape: tuple[int, ...]) -> Array:
    r"""Return a column of nested lists as (rows, \*shape); `ValueError` if a row is of another shape."""
    import pyarrow as pa

    found: Any = column
    for extent in (*shape, None):
        if isinstance(found, pa.ExtensionArray):
            found = found.storage
        if found.null_count:
            raise ValueError("a value is absent")
        if extent is not None:
            if not _all_of(found, extent):
                raise ValueError(f"a row does not have the shape {list(shape)}")
            found = found.flatten()
    return np.asarray(found.to_numpy(zero_copy_only=False)).reshape(len(column), *shape)


def _all_of(lists: Any, extent: int) -> bool:
    import pyarrow.compute as pc
    import pyarrow.types as pt

    if pt.is_fixed_size_list(lists.type):
        return bool(lists.type.list_size == extent)
    return bool(np.all(np.asarray(pc.list_value_length(lists)) == extent))


def pictures(
    path: Path, column: str, spec: StreamSpec, block_bytes: int, first: int, start: int, stop: int
) -> Iterator[Array]:
    """Yield samples ``[start, stop)`` of a column of image files, like `numbers`.

    Holds one block and a few files.
    """
    files = (raw for _, raw in _files(path, column, first + start, first + stop))
    return in_blocks(
        files,
        partial(_pixels, spec=spec),
        rows_in(block_bytes, spec),
        first + start,
        lambda row, why: _bad_picture(path, column, row, why),
    )


def _pixels(raw: bytes, spec: StreamSpec) -> Array:
    found = shown(raw)
    if (found.kind, found.shape) != (spec.kind, spec.shape):
        raise ValueError(f"is {list(found.shape)}, in a column of {list(spec.shape)}")
    return pixels_of(raw, found)


def picture_spec(path: Path, column: str, row: int, name: str) -> tuple[StreamSpec, str]:
    """Return the stream called ``name`` that an image file of a column fits into, and its file format."""
    _, raw = next(_files(path, column, row, row + 1))
    try:
        found = shown(raw)
    except ValueError as error:
        raise _bad_picture(path, column, row, str(error)) from error
    spec = StreamSpec(name=name, kind=found.kind, dtype=found.dtype, shape=found.shape)
    return spec, found.encoding.upper()


def _bad_picture(path: Path, column: str, row: int, why: str) -> FormatError:
    return FormatError(str(path), f"{column}, row {row}", f"is no readable image: {why}")


def holds_files(kind: pa.DataType) -> bool:
    """Tell whether a type is that of files in a column: bytes and a path (`Image` of `datasets`)."""
    return "bytes" in [kind.field(i).name for i in range(kind.num_fields)]


def _files(path: Path, column: str, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
    for at, batch in batches(path, column, start, stop, _IMAGES_AT_ONCE):
        for row, value in enumerate(batch.to_pylist(), at):
            raw = value.get("bytes") if isinstance(value, Mapping) else None
            if not isinstance(raw, bytes):
                raise FormatError(str(path), f"{column}, row {row}", "holds no image file")
            yield row, raw
