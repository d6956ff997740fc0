"""Rows of a dataset, whose chunks are inflated here and never to more than their header says."""

from __future__ import annotations

import itertools
import math
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from ..schemas import Array
from ._hdf5_filters import checked, unshuffled

if TYPE_CHECKING:
    from ._hdf5 import Field

MAX_CHUNK_BYTES = 1 << 28
REPACK = "Repack it with: h5repack -f GZIP=4 IN OUT"

# A chunk that is the worse for its filters is stored with them all the same: deflate adds 5 bytes in 16 kB
# (RFC 1951, section 3.2.4) and fletcher32 adds 4.
_STORED_SLACK = 1 << 16

DEFLATE, SHUFFLE, FLETCHER32, LZF = 1, 2, 3, 32000
FILTERS = {DEFLATE: "gzip", SHUFFLE: "shuffle", FLETCHER32: "fletcher32", LZF: "lzf"}

# How many bytes one stored byte can become: 258 in 2 bits for deflate (RFC 1951), 264 in 3 bytes for LZF.
MOST = {DEFLATE: 1100, LZF: 264}
_LZF_MOST_STORED = 1 << 22


class Rows:
    """Reads rows of one dataset. Remembers the row of chunks that it inflated last."""

    def __init__(self, dataset: Any, found: Field, *, own: bool = False) -> None:
        self._field = found
        self._dataset = dataset
        self._truth = found.dtype.kind == "b"
        self._out = np.dtype(found.dtype.str).newbyteorder("<")
        self._own = own or (bool(found.filters) and LZF not in found.filters)
        self._band: tuple[int, Array] | None = None

    def read(self, start: int, stop: int) -> Array:
        if not self._own:
            self._check_lzf(start, stop)
            return np.asarray(self._dataset[start:stop], self._out)
        block = np.empty((stop - start, *self._field.shape[1:]), self._out)
        height = self._field.chunks[0] if self._field.chunks else 1
        for top in range(start - start % height, stop, height):
            first, last = max(start, top), min(stop, top + height)
            block[first - start : last - start] = self._chunks_at(top)[first - top : last - top]
        return block

    def _chunks_at(self, top: int) -> Array:
        """Return all chunks that begin at row ``top``, put together."""
        if self._band is None or self._band[0] != top:
            shape, chunks = self._field.shape, self._field.chunks or ()
            band = np.empty((min(chunks[0], shape[0] - top), *shape[1:]), self._field.dtype)
            if band.nbytes > MAX_CHUNK_BYTES:
                raise ValueError(f"chunks side by side make more than 256 MiB. {REPACK}")
            for corner in itertools.product(
                *(range(0, n, c) for n, c in zip(shape[1:], chunks[1:], strict=True))
            ):
                place = (
                    slice(0, len(band)),
                    *(slice(at, at + c) for at, c in zip(corner, chunks[1:], strict=True)),
                )
                part = band[place]
                part[...] = self._inflate((top, *corner))[tuple(slice(0, n) for n in part.shape)]
            self._band = top, band
        return self._band[1]

    def _inflate(self, corner: tuple[int, ...]) -> Array:
        """Return one chunk with its filters undone, within the size that the header gives."""
        field_, chunks = self._field, self._field.chunks or ()
        size = math.prod(chunks) * field_.dtype.itemsize
        self._stored_at(corner, size + size // 1000 + _STORED_SLACK)
        mask, data = self._dataset.id.read_direct_chunk(corner)
        for i, number in reversed(list(enumerate(field_.filters))):
            if mask >> i & 1:
                continue
            if number == FLETCHER32:
                data = checked(data)
            elif number == DEFLATE:
                data = zlib.decompressobj().decompress(data, size + _STORED_SLACK)
            elif number == SHUFFLE:
                data = unshuffled(data, field_.dtype.itemsize)
        if len(data) != size:
            raise ValueError(f"the chunk at {corner} has {len(data)} bytes, its header says {size}")
        values = np.frombuffer(data, "u1" if self._truth else field_.dtype).reshape(chunks)
        return values != 0 if self._truth else values

    def _check_lzf(self, start: int, stop: int) -> None:
        """Look at the chunks that the library itself will inflate."""
        chunks = self._field.chunks
        if chunks is None or LZF not in self._field.filters:
            return
        spans = [range(start - start % chunks[0], stop, chunks[0])]
        spans += [range(0, n, c) for n, c in zip(self._field.shape[1:], chunks[1:], strict=True)]
        for corner in itertools.product(*spans):
            self._stored_at(corner, _LZF_MOST_STORED)

    def _stored_at(self, corner: tuple[int, ...], most: int) -> None:
        info = self._dataset.id.get_chunk_info_by_coord(corner)
        if info.byte_offset is None:
            raise ValueError(f"the chunk at {corner} was never written")
        if info.size > most:
            raise ValueError(f"the chunk at {corner} takes {info.size} bytes, which is more than it can need")
