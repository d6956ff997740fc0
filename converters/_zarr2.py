"""Zarr version 2 arrays in a folder or a zip file, read with suspicion.

Field notes. A store is a set of named byte strings: ``.zarray`` describes the array in whose folder it
lies, ``.zattrs`` holds attributes, ``0.1.0`` is a chunk. Everything that a store declares is a claim, and all
claims are held against the files that are there before the first chunk is touched:

- A chunk that is absent means "all fill values" to Zarr. A lost file looks the same, so it is an error here.
- A 150-byte ``.zarray`` may declare 10^13 elements: shapes are bounded, and every chunk must exist.

The store's files are found and fetched by `Store`; what decodes a chunk is told in ``_zarr2_codecs.py``.

zarr-python would fill missing chunks, follow links and call any codec that is registered, so it is not used.
The layout is that of https://zarr-specs.readthedocs.io/en/latest/v2/v2.0.html.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..schemas import Array as Block
from ..schemas import FormatError, Json, canonical, strict_json
from ._zarr2_codecs import PICTURES, Refuse, check_compressor, check_filter, picture, unpacked
from ._zarr2_store import Fetch, Place, Store, damage_told
from .base import MAX_EPISODE_BYTES, Format

MAX_CHUNK_BYTES = 1 << 28
"""Decoded bytes of one chunk, and of the row of chunks that make up whole samples: 256 MiB."""

_MAX_DOCUMENT_BYTES = 1 << 20
_MAX_DEPTH = 32
_MAX_ARRAYS = 1_000
_BOMB_BYTES, _BOMB_RATIO = 1 << 30, 1_000
_DOCUMENTS = frozenset({".zarray", ".zattrs", ".zgroup"})
_DTYPE = re.compile(r"[<>|](?:b1|[iu][1248]|f[248]|[US]\d{1,4})")
_LEFT_OUT = "If it was left out for being all fill values, write the store with write_empty_chunks=True"

_Extents = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ChunkedArray:
    """One array: what its ``.zarray`` declares, checked, and where its chunks lie.

    Attributes
    ----------
    places
        (chunks, 5) int64: the `Place` of every chunk, the last axis of the grid running fastest.
    of
        The format on whose behalf it is read; names the extra if a decoder is absent.
    """

    name: str
    shape: _Extents
    chunks: _Extents
    dtype: np.dtype[Any]
    order: str
    separator: str
    compressor: Mapping[str, Json] | None
    filters: tuple[Mapping[str, Json], ...]
    store: Store
    places: NDArray[np.int64] = field(repr=False)
    of: Format

    @property
    def codec(self) -> str:
        """The id of the compressor, empty for none."""
        return str(self.compressor["id"]) if self.compressor else ""

    def rows(self, start: int, stop: int, most_bytes: int) -> Iterator[Block]:
        """Yield ``[start, stop)`` along the first axis in blocks of at most ``most_bytes`` or one row.

        Each chunk is decoded once. Holds the chunks of one step along the first axis.
        """
        length = self.chunks[0]
        step = max(1, most_bytes // max(1, _bytes_of(self.shape[1:], self.dtype)))
        if start >= stop:
            return
        with self.store.opened() as fetch:
            for index in range(start // length, -(-stop // length)):
                slab = self._slab(fetch, index)
                first = index * length
                high = min(stop - first, length)
                for low in range(max(start - first, 0), high, step):
                    yield slab[low : min(low + step, high)]

    def values(self) -> Block:
        """Return the whole array."""
        blocks = list(self.rows(0, self.shape[0], MAX_CHUNK_BYTES))
        empty = np.empty(self.shape, self.dtype.newbyteorder("<"))
        return np.concatenate(blocks) if blocks else empty

    def _slab(self, fetch: Fetch, index: int) -> Block:
        """Return the samples of the ``index``-th chunk along time: (n, *shape[1:]), little endian."""
        rows = min(self.chunks[0], self.shape[0] - index * self.chunks[0])
        slab = np.empty((rows, *self.shape[1:]), self.dtype.newbyteorder("<"))
        grid = _grid(self.shape, self.chunks)[1:]
        for number, position in enumerate(np.ndindex(*grid), start=index * math.prod(grid)):
            key = _chunk_name(self.name, (index, *position), self.separator)
            chunk = self._decoded(fetch(key, Place(*self.places[number].tolist())), key)
            box = tuple(
                slice(p * c, min((p + 1) * c, s))
                for p, c, s in zip(position, self.chunks[1:], self.shape[1:], strict=True)
            )
            inner = tuple(slice(b.stop - b.start) for b in box)
            slab[(slice(rows), *box)] = chunk[(slice(rows), *inner)]
        return slab

    def _decoded(self, raw: bytes, where: str) -> Block:
        with damage_told(self.store.path, where):
            if self.compressor and self.codec in PICTURES:
                return picture(raw, self.compressor, self.chunks, self.dtype, self.of)
            data = unpacked(raw, self.codec, self.filters, _bytes_of(self.chunks, self.dtype), self.of)
            values: Block = np.frombuffer(data, self.dtype)
            return values.reshape(self.chunks, order="F" if self.order == "F" else "C")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """What a store holds.

    Attributes
    ----------
    attributes
        The content of each ``.zattrs`` that has any, by the folder it lies in.
    loose
        Files that no array claims, such as chunks outside of an array's grid.
    """

    store: Store
    arrays: Mapping[str, ChunkedArray]
    attributes: Mapping[str, Mapping[str, Json]]
    loose: tuple[str, ...]


def open_tree(store: Store, of: Format) -> Tree:
    """Return what a store holds, after all that it declares was held against the files that are there.

    Raises
    ------
    FormatError
        Where they disagree, or something is dangerous to read.
    """
    listing = store.listing()
    documents = _documents(store, listing)
    described = [name for name in documents if name.rpartition("/")[2] == ".zarray"]
    if len(described) > _MAX_ARRAYS:
        raise FormatError(str(store.path), "", f"has {len(described)} arrays; at most {_MAX_ARRAYS} are read")
    found = [_array(store, listing, documents[name], name, of) for name in described]
    claimed = {
        _chunk_name(array.name, position, array.separator)
        for array in found
        for position in np.ndindex(*_grid(array.shape, array.chunks))
    }
    attributes = {
        name.rpartition("/")[0]: document
        for name, document in documents.items()
        if name.rpartition("/")[2] == ".zattrs" and document
    }
    return Tree(
        store=store,
        arrays={array.name: array for array in found},
        attributes=attributes,
        loose=tuple(sorted(listing.keys() - documents.keys() - claimed)),
    )


def _documents(store: Store, listing: Mapping[str, Place]) -> dict[str, dict[str, Json]]:
    found = {}
    with store.opened() as fetch:
        for name in sorted(name for name in listing if name.rpartition("/")[2] in _DOCUMENTS):
            if listing[name].size > _MAX_DOCUMENT_BYTES:
                raise FormatError(str(store.path), name, f"is larger than {_MAX_DOCUMENT_BYTES} bytes")
            with damage_told(store.path, name):
                document = strict_json(fetch(name, listing[name]))
                canonical(document)  # a number too large for a float, or half a character, has no JSON form
                deep = _depth(document) > _MAX_DEPTH
            if deep or not isinstance(document, dict):
                raise FormatError(str(store.path), name, "is no JSON object, or is nested too deep")
            found[name] = document
            version = document.get("zarr_format")
            if not name.endswith(".zattrs") and version != 2:
                raise FormatError(str(store.path), name, f"is of Zarr version {str(version)[:20]}, not 2")
    return found


def _depth(value: Json) -> int:
    inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return 1 + max(map(_depth, inner), default=0)


def _array(
    store: Store, listing: Mapping[str, Place], document: Mapping[str, Json], where: str, of: Format
) -> ChunkedArray:
    def refuse(member: str, why: str) -> FormatError:
        return FormatError(str(store.path), f"{where}: {member}", why)

    shape, chunks = (_extents(document.get(member)) for member in ("shape", "chunks"))
    if shape is None or chunks is None or len(shape) != len(chunks) or 0 in chunks:
        raise refuse("shape, chunks", "are not two lists of as many whole numbers, chunks being positive")
    # A scalar is stored like an array of one element.
    shape, chunks = shape or (1,), chunks or (1,)
    word = document.get("dtype")
    if not isinstance(word, str) or not _DTYPE.fullmatch(word):
        raise refuse("dtype", f"{str(word)[:80]!r} is neither bool, integer nor float")
    order, separator = document.get("order", "C"), document.get("dimension_separator", ".")
    if order not in ("C", "F") or separator not in (".", "/"):
        raise refuse("order, dimension_separator", "must be C or F, and a dot or slash")
    dtype = np.dtype(word)
    compressor, filters = document.get("compressor"), document.get("filters") or []
    if not isinstance(filters, list) or len(filters) > 4:
        raise refuse("filters", "are not a list of at most 4")
    if compressor is not None:
        check_compressor(compressor, refuse)
        if compressor["id"] in PICTURES and (filters or order == "F"):
            raise refuse("compressor", "a picture with filters or in Fortran order is not read")
    for config in filters:
        check_filter(config, dtype, refuse)
    name = where.removesuffix("/.zarray")
    _check_sizes(shape, chunks, dtype, refuse)
    places = _places(store, listing, name, _grid(shape, chunks), separator)
    _check_stored(_bytes_of(shape, dtype), _bytes_of(chunks, dtype), places, refuse)
    return ChunkedArray(
        name=name,
        shape=shape,
        chunks=chunks,
        dtype=dtype,
        order=order,
        separator=separator,
        compressor=compressor,
        filters=tuple(filters),
        store=store,
        places=places,
        of=of,
    )


def _extents(value: Json) -> _Extents | None:
    if not isinstance(value, list) or len(value) > 8:
        return None
    return tuple(value) if all(type(n) is int and 0 <= n < 1 << 48 for n in value) else None


def _check_sizes(shape: _Extents, chunks: _Extents, dtype: np.dtype[Any], refuse: Refuse) -> None:
    shape = tuple(max(n, 1) for n in shape)  # an empty axis must not hide how long the others are
    slab = _bytes_of((min(chunks[0], shape[0]), *shape[1:]), dtype)
    if max(slab, _bytes_of(chunks, dtype)) > MAX_CHUNK_BYTES:
        raise refuse("chunks", f"one step along the first axis decodes to more than {MAX_CHUNK_BYTES} bytes")
    if _bytes_of(shape, dtype) > MAX_EPISODE_BYTES:
        raise refuse("shape", f"declares more than {MAX_EPISODE_BYTES} bytes")


def _places(
    store: Store, listing: Mapping[str, Place], name: str, grid: _Extents, separator: str
) -> NDArray[np.int64]:
    count = math.prod(grid)
    if count > len(listing):
        why = f"needs {count} chunks, the store has {len(listing)} files: chunks are missing"
        raise FormatError(str(store.path), f"{name}/.zarray: shape", why, _LEFT_OUT)
    found = []
    for position in np.ndindex(*grid):
        key = _chunk_name(name, position, separator)
        if key not in listing:
            raise FormatError(str(store.path), key, "this chunk is missing", _LEFT_OUT)
        found.append(listing[key])
    return np.array(found, np.int64).reshape(count, len(Place._fields))


def _check_stored(total: int, chunk: int, places: NDArray[np.int64], refuse: Refuse) -> None:
    """Compare the declared bytes with the stored ones: neither may be out of all proportion to the other."""
    if len(places) and places[:, 1:3].max() > chunk + chunk // 8 + (1 << 16):
        raise refuse("chunks", f"a chunk is stored in more bytes than the {chunk} it decodes to")
    if total > max(_BOMB_BYTES, _BOMB_RATIO * int(places[:, 1].sum())):
        raise refuse("shape", f"declares {total} bytes, over {_BOMB_RATIO} times what is stored")


def _chunk_name(array: str, position: _Extents, separator: str) -> str:
    """Return the name of the chunk at a position of an array's grid."""
    return f"{array}/{separator.join(map(str, position))}"


def _grid(shape: _Extents, chunks: _Extents) -> _Extents:
    return tuple(-(-s // c) for s, c in zip(shape, chunks, strict=True))


def _bytes_of(shape: _Extents, dtype: np.dtype[Any]) -> int:
    return math.prod(shape) * dtype.itemsize
