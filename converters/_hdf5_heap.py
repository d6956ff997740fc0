"""The global heap of an HDF5 file, where rows of variable length lie.

A dataset of such rows holds a reference for each: how long the row is, at which address of the file its
collection begins, and which object of that collection it is (HDF5 File Format Specification 3.0, sections
III.E "Global Heap" and VIII.B "Variable-length"). The library believes all of them and allocates what they
say, so the heap is read here, and nothing is allocated that the file does not hold.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from typing import BinaryIO

REFERENCE_BYTES = 16
"""Size of a reference where addresses have 8 bytes, as in every file that is not of another age."""

_REFERENCE = struct.Struct("<IQI")
_COLLECTION = struct.Struct("<4sB3xQ")
_OBJECT = struct.Struct("<HH4xQ")
_MAGIC, _VERSION = b"GCOL", 1
_FREE_SPACE = 0

# The library fills up to 16 collections in turn (H5Fpkg.h: H5F_NCWFS), so neighbours lie in different ones.
_KEPT = 64

# What a hostile file can make us look through, in its own sizes; a sound one is looked through once.
_MOST_PASSES = 4


def references_of(stored: bytes) -> list[bytes]:
    """Return the references that are stored behind each other."""
    return [stored[i : i + REFERENCE_BYTES] for i in range(0, len(stored), REFERENCE_BYTES)]


def row_sizes(references: bytes) -> list[int]:
    """Return how many bytes each of the rows claims that the references lead to."""
    return [size for size, _, _ in _REFERENCE.iter_unpack(references)]


class GlobalHeap:
    """Reads objects of the heap of one file. Holds a row and the tables of a few collections.

    Parameters
    ----------
    file
        The whole file, open for reading.
    size
        How many bytes it has.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size
        self._tables: OrderedDict[int, dict[int, tuple[int, int]]] = OrderedDict()
        self._looked_through = self._given = 0

    def row(self, reference: bytes, most: int) -> bytes:
        """Return the bytes of the row that a reference leads to.

        Raises
        ------
        ValueError
            If it has more than ``most`` bytes, if reference and heap contradict each other, or if the rows
            asked for so far are more than the file can hold.
        """
        size, address, index = _REFERENCE.unpack(reference)
        if not size:
            return b""
        self._given += size
        if size > most or self._given > self._size:
            raise ValueError(f"claims {size} bytes: more than {most}, or more than the file can hold")
        if address not in self._tables:
            self._tables[address] = self._table(address)
            if len(self._tables) > _KEPT:
                self._tables.popitem(last=False)
        self._tables.move_to_end(address)
        start, stored = self._tables[address].get(index, (0, -1))
        if stored != size:
            raise ValueError(f"claims {size} bytes of object {index} of the heap at {address}, "
                             f"which has {max(stored, 0)}")  # fmt: skip
        return self._read(start, size)

    def _table(self, address: int) -> dict[int, tuple[int, int]]:
        """Return the place and size of each object of the collection at an address."""
        magic, version, size = _COLLECTION.unpack(self._read(address, _COLLECTION.size))
        if magic != _MAGIC or version != _VERSION:
            raise ValueError(f"leads to {address}, where no heap begins")
        end = address + size
        self._looked_through += size
        if end > self._size or self._looked_through > _MOST_PASSES * self._size:
            raise ValueError(f"leads to a heap of {size} bytes at {address}, more than the file can hold")
        table: dict[int, tuple[int, int]] = {}
        at = address + _COLLECTION.size
        while at + _OBJECT.size <= end:
            index, _, length = _OBJECT.unpack(self._read(at, _OBJECT.size))
            if index == _FREE_SPACE:
                break
            at += _OBJECT.size
            if index in table or length > end - at:
                raise ValueError(f"leads to a damaged heap at {address}: object {index}")
            table[index] = at, length
            at += -(-length // 8) * 8
        return table

    def _read(self, start: int, size: int) -> bytes:
        if start + size > self._size:
            raise ValueError(f"leads to byte {start}, beyond the end of the file")
        self._file.seek(start)
        data = self._file.read(size)
        if len(data) != size:
            raise ValueError(f"leads to byte {start}, beyond the end of the file")
        return data
