"""The columns of HDF5, Parquet and NumPy files, and which kind a recording is, by its first bytes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..schemas import Array, FormatError, Json, Times
from ..schemas.validate import has_controls
from . import _npz as npz
from . import _parquet as parquet
from ._bag2_files import METADATA as BAG2_METADATA
from ._columns import Column, Columns, Stamps, even, judged
from ._columns_topics import topics_of
from ._demos import only
from ._hdf5 import MAGIC as HDF5_MAGIC
from ._hdf5 import Field, Hdf5, open_hdf5

if TYPE_CHECKING:
    import pyarrow as pa

PARQUET_MAGIC = b"PAR1"
MCAP_MAGIC = b"\x89MCAP"
BAG1_MAGIC = b"#ROSBAG V2.0"

_MAX_TOLD = 1 << 16
_MAX_NAME = 500
_AT_ONCE = 16
_FIXED = "bytes of a fixed length, as numbers"
_TIMES = "times as whole numbers"
_TIME_UNITS = {"s": "s", "ms": "ms", "us": "us", "ns": "ns"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """The members that `Columns` asks for, and the stamps that files of this kind have not."""

    path: Path
    columns: Mapping[str, Column]
    values: Mapping[str, Json]
    unread: Mapping[str, str]

    @property
    def files(self) -> tuple[Path, ...]:
        """The file alone."""
        return (self.path,)

    def stamps(self, clock: str, which: Stamps) -> Times | None:  # noqa: ARG002 - the protocol's names
        """Return None: times are columns like any other here."""
        return None


class Hdf5Columns(_Table):
    """Datasets with a row per sample, by their path; attributes and scalars are values."""

    __slots__ = ()

    def blocks(self, name: str, start: int, stop: int, rows: int) -> Iterator[Array]:
        """Yield rows of a dataset; see `Columns`."""
        column = self.columns[name]
        with open_hdf5(self.path, only(name)) as hdf5:
            for block in hdf5.rows(_same(hdf5, column), start, stop, rows):
                plain = np.ascontiguousarray(block).view(np.uint8) if block.dtype.kind == "S" else block
                yield plain.reshape(len(block), *column.shape)

    def items(self, name: str, start: int, stop: int) -> Iterator[bytes]:
        """Yield rows of variable length; see `Columns`."""
        with open_hdf5(self.path, only(name)) as hdf5:
            yield from hdf5.varying_rows(_same(hdf5, self.columns[name]), start, stop)


class ParquetColumns(_Table):
    """Columns by their names; the footer's keys and values are values."""

    __slots__ = ()

    def blocks(self, name: str, start: int, stop: int, rows: int) -> Iterator[Array]:
        """Yield rows of a column; see `Columns`."""
        return even(self._batches(name, start, stop, rows), rows)

    def _batches(self, name: str, start: int, stop: int, rows: int) -> Iterator[Array]:
        import pyarrow as pa

        column = self.columns[name]
        least = max(1, min(1 << 10, (1 << 20) // max(1, column.row_bytes)))
        for at, found in parquet.batches(self.path, name, start, stop, max(min(rows, 1 << 16), least)):
            plain = found.cast(pa.int64()) if column.unit else found
            try:
                yield parquet.as_numpy(plain, column.shape).astype(column.dtype, copy=False)
            except ValueError as error:
                raise FormatError(str(self.path), f"{name}, from row {at}", str(error)) from error

    def items(self, name: str, start: int, stop: int) -> Iterator[bytes]:
        """Yield bytes, files of the `datasets` library, or texts; see `Columns`."""
        texts = self.columns[name].holds == "texts"
        for at, found in parquet.batches(self.path, name, start, stop, 1 << 10 if texts else _AT_ONCE):
            for row, value in enumerate(found.to_pylist(), at):
                raw = value.get("bytes") if isinstance(value, Mapping) else value
                if raw is None and texts:
                    raw = ""
                if not isinstance(raw, bytes | str):
                    raise FormatError(str(self.path), f"{name}, row {row}", "holds no value")
                yield raw.encode() if isinstance(raw, str) else raw


class NumpyColumns(_Table):
    """Arrays by their names, fields of structured ones as ``array.field``."""

    __slots__ = ()

    def blocks(self, name: str, start: int, stop: int, rows: int) -> Iterator[Array]:
        """Yield rows of an array; see `Columns`."""
        column = self.columns[name]
        for block in self._rows(name, start, stop, rows):
            plain = np.ascontiguousarray(block)
            if plain.dtype.kind == "S":
                plain = plain.view(np.uint8)
            elif plain.dtype.kind in "mM":
                plain = plain.astype(np.int64)
            yield plain.reshape(len(block), *column.shape).astype(column.dtype, copy=False)

    def items(self, name: str, start: int, stop: int) -> Iterator[bytes]:
        """Yield texts; see `Columns`."""
        for block in self._rows(name, start, stop, 1 << 10):
            yield from (str(text).encode(errors="replace") for text in block)

    def _rows(self, name: str, start: int, stop: int, rows: int) -> Iterator[Array]:
        arrays = npz.arrays_of(self.path)
        home, part = _home_of(arrays, name)
        if home not in arrays or _columns_in(arrays[home]).get(name) != self.columns[name]:
            raise FormatError(str(self.path), name, "is not what it was when the file was surveyed")
        for block in npz.rows(self.path, arrays[home], start, stop, rows):
            yield block[part] if part else block


def columns_of(path: Path) -> Columns:
    """Return a file's columns: headers only, but for recordings of topics, which are indexed.

    Raises
    ------
    FormatError
        If it is of no kind that is read as columns, damaged, or dangerous.
    """
    read = _reader_of(path)
    if read is None:
        told = "is no HDF5, Parquet, .npz, .npy or MCAP file, ROS 1 bag or folder of a ROS 2 bag"
        raise FormatError(str(path), "", told, "See docs/formats/mapped.md")
    return read(path)


def has_columns(path: Path) -> bool:
    """Tell by its first bytes whether a file is of a kind that is read as columns."""
    return _reader_of(path) is not None


def _reader_of(path: Path) -> Callable[[Path], Columns] | None:
    if is_bag(path):
        return partial(topics_of, "rosbag2")
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise FormatError(str(path), "", f"cannot be read: {error.strerror}") from error
    kinds: dict[bytes, Callable[[Path], Columns]] = {
        HDF5_MAGIC: _hdf5,
        PARQUET_MAGIC: _parquet,
        npz.NPY_MAGIC: _numpy,
        npz.ZIP_MAGIC: _numpy,
        MCAP_MAGIC: partial(topics_of, "mcap"),
        BAG1_MAGIC: partial(topics_of, "rosbag1"),
    }
    return next((read for magic, read in kinds.items() if head.startswith(magic)), None)


def is_bag(path: Path) -> bool:
    """Tell whether a folder is a ROS 2 bag: it has the ``metadata.yaml`` of one."""
    return path.is_dir() and path.joinpath(BAG2_METADATA).is_file()


def _hdf5(path: Path) -> Hdf5Columns:
    columns: dict[str, Column] = {}
    with open_hdf5(path) as hdf5:
        values, unread = dict(hdf5.attributes), dict(hdf5.unread)
        for found in hdf5.fields.values():
            if found.shape:
                columns[found.name] = judged(path, _dataset(found))
                continue
            why, value = hdf5.told(found)
            if why:
                unread[found.name] = why
            else:
                values[found.name] = value
    return Hdf5Columns(path=path, columns=columns, values=values, unread=unread)


def _same(hdf5: Hdf5, column: Column) -> Field:
    """Return the dataset that a column was made from, if it is still what it was."""
    found = hdf5.fields.get(column.name)
    if found is None or _dataset(found) != column:
        raise FormatError(str(hdf5.path), column.name, "is not what it was when the file was surveyed")
    return found


def _dataset(found: Field) -> Column:
    import h5py

    name, length = found.name, found.shape[0]
    if found.varying:
        # The dtype of texts bears a note of h5py's; that of bytes does not.
        texts = h5py.check_string_dtype(found.dtype) is not None
        return Column(name=name, length=length, holds="texts" if texts else "bytes")
    if found.unread:
        return Column(name=name, length=length, unread=found.unread)
    if found.dtype.kind == "S":
        shape = (*found.shape[1:], found.dtype.itemsize)
        return Column(name=name, length=length, shape=shape, how=_FIXED)
    return Column(name=name, length=length, dtype=found.dtype.name, shape=found.shape[1:])


def _parquet(path: Path) -> ParquetColumns:
    columns: dict[str, Column] = {}
    values: dict[str, Json] = {}
    unread: dict[str, str] = {}
    with parquet.opened(path) as file:
        rows = file.metadata.num_rows
        sizes = parquet.values_per_row(file)
        schema = file.schema_arrow
        for i, member in enumerate(schema):
            if len(member.name) > _MAX_NAME or has_controls(member.name) or not member.name:
                raise FormatError(str(path), f"column {i}", "has a name that is none")
            if member.name in columns:
                raise FormatError(str(path), member.name, "is the name of two columns")
            found = _parquet_column(member.name, member.type, rows, sizes.get(member.name))
            columns[member.name] = judged(path, found)
        for key, value in (schema.metadata or {}).items():
            name = "@" + key.decode(errors="backslashreplace")[:_MAX_NAME]
            text = value.decode(errors="replace")
            if name.startswith("@ARROW:") or "\ufffd" in text or len(text) > _MAX_TOLD or has_controls(text):
                unread[ascii(name)[1:-1]] = "is no short text"
            else:
                values[ascii(name)[1:-1]] = text
    return ParquetColumns(path=path, columns=columns, values=values, unread=unread)


def _parquet_column(name: str, kind: pa.DataType, rows: int, per_row: int | None) -> Column:
    import pyarrow.types as pt

    plain = kind.value_type if pt.is_dictionary(kind) else kind
    if pt.is_string(plain) or pt.is_large_string(plain):
        return Column(name=name, length=rows, holds="texts")
    if pt.is_binary(kind) or pt.is_large_binary(kind) or pt.is_fixed_size_binary(kind):
        return Column(name=name, length=rows, holds="bytes")
    if pt.is_struct(kind) and parquet.holds_files(kind):
        return Column(name=name, length=rows, holds="bytes")
    if pt.is_timestamp(kind) or pt.is_duration(kind):
        return Column(name=name, length=rows, dtype="int64", unit=str(kind.unit), how=_TIMES)
    inner, lengths = parquet.unnested(kind)
    dtype = parquet.numpy_name(inner)
    if dtype is None:
        return Column(
            name=name, length=rows, unread=f"holds values of the type {str(kind)[:80]}, which is not read"
        )
    known = math.prod(extent for extent in lengths if extent is not None)
    open_ones = lengths.count(None)
    if open_ones > 1 or (open_ones and not (per_row and known and per_row % known == 0)):
        why = "holds no rows" if not rows else "holds lists of different lengths"
        return Column(name=name, length=rows, unread=why)
    shape = tuple((per_row or 0) // known if extent is None else extent for extent in lengths)
    return Column(name=name, length=rows, dtype=dtype, shape=shape)


def _numpy(path: Path) -> NumpyColumns:
    columns: dict[str, Column] = {}
    values: dict[str, Json] = {}
    unread: dict[str, str] = {}
    for found in npz.arrays_of(path).values():
        if found.unread:
            unread[found.name] = found.unread
        elif not found.shape:
            value = _single(path, found)
            if isinstance(value, bool | int | float | str):
                values[found.name] = value
            else:
                unread[found.name] = "is neither number nor text"
            continue
        for name, column in _columns_in(found).items():
            if name in columns or has_controls(name) or len(name) > _MAX_NAME:
                raise FormatError(str(path), ascii(name)[:80], "is a name that is none, or there twice")
            columns[name] = judged(path, column)
    return NumpyColumns(path=path, columns=columns, values=values, unread=unread)


def _columns_in(found: npz.Npy) -> dict[str, Column]:
    """Return the columns of an array: itself, or its fields."""
    if found.unread or not found.shape:
        return {}
    length, extents = found.shape[0], found.shape[1:]
    if not found.dtype.names:
        return {found.name: _array(found.name, length, found.dtype, extents)}
    names = {f"{found.name}.{part}": found.dtype[part] for part in found.dtype.names}
    return {name: _array(name, length, kind.base, (*extents, *kind.shape)) for name, kind in names.items()}


def _array(name: str, length: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Column:
    if dtype.kind in "mM":
        unit = _TIME_UNITS.get(np.datetime_data(dtype)[0], "")
        if unit and np.datetime_data(dtype)[1] == 1:
            return Column(name=name, length=length, dtype="int64", shape=shape, unit=unit, how=_TIMES)
    if dtype.kind == "S":
        return Column(name=name, length=length, shape=(*shape, dtype.itemsize), how=_FIXED)
    if dtype.kind == "U" and not shape:
        return Column(name=name, length=length, holds="texts")
    if dtype.kind in "biuf" and dtype.itemsize <= 8:
        return Column(name=name, length=length, dtype=dtype.name, shape=shape)
    return Column(
        name=name, length=length, unread=f"holds values of the type {str(dtype)[:80]}, which is not read"
    )


def _single(path: Path, found: npz.Npy) -> Json:
    value = npz.whole(path, found, _MAX_TOLD).item()
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _home_of(arrays: Mapping[str, npz.Npy], name: str) -> tuple[str, str]:
    """Return the array that a column's name speaks of, and its field; the field is empty for a plain one."""
    if name in arrays:
        return name, ""
    home, _, part = name.rpartition(".")
    while home not in arrays and "." in home:
        home, _, rest = home.rpartition(".")
        part = f"{rest}.{part}"
    return home, part
