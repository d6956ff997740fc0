"""The tables of Minari's Arrow and Parquet layouts: one file per episode, structs for nested spaces.

The last row of actions, rewards, terminations and truncations is padding, since there is one observation more
(Farama-Foundation/Minari: minari/dataset/_storages/arrow_storage.py: update_episodes).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..schemas import Array, FormatError, StreamSpec
from ..schemas.validate import has_controls
from ._arrow_file import arrow_batches, opened_arrow
from ._jpeg import Picture, decoded
from ._parquet import as_numpy, batches, numpy_name, opened
from ._pictures import in_blocks

if TYPE_CHECKING:
    import pyarrow as pa

_MAX_LEAVES = 10_000
_MAX_DEPTH = 32
_MAX_NAME = 500
_MAX_ROWS = 10_000_000
_PICTURES_AT_ONCE = 4
_TEXTS_AT_ONCE = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """A column, or what lies in its structs.

    Attributes
    ----------
    name
        Names of the column and of the structs' members down to it, joined by ``/``.
    dtype
        NumPy's name of its numbers; ``bytes`` or ``text``; empty if it is of another type.
    width
        Numbers in a row; None for one that is no list.
    shape
        What the field's metadata says of a row's shape.
    """

    name: str
    dtype: str
    width: int | None = None
    shape: tuple[int, ...] | None = None

    @property
    def path(self) -> tuple[str, ...]:
        """The names."""
        return tuple(self.name.split("/"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A file of one episode: its rows and leaves."""

    path: Path
    parquet: bool
    rows: int
    leaves: Mapping[str, Leaf]

    @classmethod
    def open(cls, path: Path, *, parquet: bool) -> Table:
        """Read a file's metadata."""
        with _of(path, ""):
            schema, rows = _parquet(path) if parquet else _arrow(path)
            found = (leaf for field in schema for leaf in _leaves(field, "", path, 0))
            leaves = list(islice(found, _MAX_LEAVES))
        if not 0 < rows <= _MAX_ROWS:
            raise FormatError(str(path), "", f"has {rows} rows")
        names = {leaf.name for leaf in leaves}
        if len(leaves) == _MAX_LEAVES or len(names) != len(leaves):
            raise FormatError(str(path), "", f"has {_MAX_LEAVES} columns, or two of one name")
        return cls(path=path, parquet=parquet, rows=rows, leaves={leaf.name: leaf for leaf in leaves})


def _parquet(path: Path) -> tuple[pa.Schema, int]:
    with opened(path) as file:
        return file.schema_arrow, file.metadata.num_rows


def _arrow(path: Path) -> tuple[pa.Schema, int]:
    with opened_arrow(path) as reader:
        return reader.schema, sum(reader.get_batch(i).num_rows for i in range(reader.num_record_batches))


def _leaves(field: pa.Field[Any], above: str, path: Path, depth: int) -> Iterator[Leaf]:
    import pyarrow.types as pt

    kind, name = field.type, f"{above}/{field.name}" if above else field.name
    if depth > _MAX_DEPTH or len(name) > _MAX_NAME or has_controls(name):
        raise FormatError(
            str(path), ascii(name[:80]), "is nested too deep, or has a name that cannot be shown"
        )
    if pt.is_struct(kind):
        for i in range(kind.num_fields):
            yield from _leaves(kind.field(i), name, path, depth + 1)
        return
    width = kind.list_size if pt.is_fixed_size_list(kind) else None
    told = numpy_name(kind if width is None else kind.value_type) or ""
    if width is None and (pt.is_binary(kind) or pt.is_large_binary(kind)):
        told = "bytes"
    elif width is None and (pt.is_string(kind) or pt.is_large_string(kind)):
        told = "text"
    yield Leaf(name=name, dtype=told, width=width, shape=_shape(field.metadata))


def _shape(metadata: Mapping[bytes, bytes] | None) -> tuple[int, ...] | None:
    """Return the shape that a field of infos says (arrow_storage.py: _encode_info)."""
    words = (metadata or {}).get(b"shape", b"").split(b",")
    if not all(word.isdigit() and len(word) < 10 for word in words):
        return None
    return tuple(int(word) for word in words)


def _columns(
    table: Path, leaf: Leaf, start: int, stop: int, rows: int, *, parquet: bool
) -> Iterator[tuple[int, Any]]:
    read = batches if parquet else arrow_batches
    column, *inner = leaf.path
    for at, batch in read(table, column, start, stop, rows):
        found: Any = batch
        for name in inner:
            if found.null_count or found.type.get_field_index(name) < 0:
                raise FormatError(str(table), f"{leaf.name}, from row {at}", "a value is absent")
            found = found.field(name)
        yield at, found


@contextmanager
def _of(path: Path, where: str) -> Iterator[None]:
    """Turn what a column's values make of a reader into a `FormatError`."""
    import pyarrow as pa

    try:
        yield
    except FormatError:
        raise
    except (ValueError, TypeError, pa.ArrowException) as error:
        raise FormatError(str(path), where, str(error)[:300]) from error


def read_numbers(
    path: Path, leaf: Leaf, spec: StreamSpec, rows: int, start: int, stop: int, *, parquet: bool
) -> Iterator[Array]:
    """Yield samples ``[start, stop)`` of a leaf of numbers, ``rows`` at a time."""
    flat = () if leaf.width is None else (leaf.width,)
    for at, found in _columns(path, leaf, start, stop, rows, parquet=parquet):
        with _of(path, f"{leaf.name}, from row {at}"):
            values = as_numpy(found, flat).astype(spec.np_dtype)
            values = values.reshape(len(values), *spec.shape)
        yield values


def read_pictures(
    path: Path, leaf: Leaf, spec: StreamSpec, rows: int, start: int, stop: int, *, parquet: bool
) -> Iterator[Array]:
    """Yield samples ``[start, stop)`` of a leaf of JPEGs, decoded, ``rows`` at a time."""

    def blame(row: int, why: str) -> FormatError:
        return FormatError(str(path), f"{leaf.name}, row {row}", why)

    columns = _columns(path, leaf, start, stop, _PICTURES_AT_ONCE, parquet=parquet)
    files = (raw or b"" for _, found in columns for raw in found.to_pylist())
    decode = partial(decoded, want=Picture(*spec.shape), order="standard")
    return in_blocks(files, decode, rows, start, blame)


def read_texts(path: Path, leaf: Leaf, stop: int, *, parquet: bool) -> Iterator[bytes]:
    """Yield the first ``stop`` texts of a leaf; of an absent one, no bytes."""
    for _, found in _columns(path, leaf, 0, stop, _TEXTS_AT_ONCE, parquet=parquet):
        yield from (str(text or "").encode() for text in found.to_pylist())
