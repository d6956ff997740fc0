"""Batches that a worker hands to another process where they lie, instead of sending them.

PyTorch copies each tensor of a worker into new memory that both processes see. The system clears each page of
that, and a batch has thousands: it costs as much as decoding. Here the worker decodes into memory that the
other process maps as well, and uses it again once all arrays there are gone.
"""

from __future__ import annotations

import math
import mmap
import os
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.reduction import DupFd
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ...schemas import Array
from .memory import LEAST_BYTES, MEMORY

_HEAD = mmap.PAGESIZE
"""Bytes before the content: one for each time that a block is handed over, 1 as soon as it is given back."""

IS_AVAILABLE = hasattr(os, "memfd_create")
"""Whether the system has memory without a name, which is gone with the last process that holds it."""


class SharedMemory:
    """Gives the arrays of batches memory that can be handed to another process.

    Parameters
    ----------
    most
        Bytes in use and kept. What is asked for beyond comes from this process's own memory.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._blocks: list[_Block] = []

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """Return an array of any content, whose memory is used again when nobody anywhere needs it."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        block = self._taken(size) if size >= LEAST_BYTES else None
        if block is None:
            return MEMORY.empty(shape, dtype)
        return block.content().view(dtype).reshape(shape)

    def _taken(self, size: int) -> _Block | None:
        for block in self._blocks:
            if block.size == size and block.is_free:
                return block
        while self._blocks and sum(block.size for block in self._blocks) + size > self._most:
            unused = [block for block in self._blocks if block.is_free]
            if not unused:
                return None
            self._blocks.remove(unused[0])
        self._blocks.append(_Block(size))
        return self._blocks[-1]

    def handed(self, values: Array) -> Callable[[], Array] | None:
        """Return what gives the same array in the process that it is sent to; None: it does not lie here."""
        start = values.__array_interface__["data"][0]
        for block in self._blocks:
            offset = start - block.address
            if 0 <= offset < block.size and block.handed < _HEAD:
                return block.hand(offset, values)
        return None


class _Block:
    """A piece of memory that several processes map."""

    def __init__(self, size: int) -> None:
        self.size, self.handed, self._is_held = size, 0, False
        self._file = os.memfd_create("teleopen")
        weakref.finalize(self, os.close, self._file)
        os.ftruncate(self._file, _HEAD + size)
        self._memory = mmap.mmap(self._file, _HEAD + size)
        self._bytes = np.frombuffer(self._memory, np.uint8)
        self.address: int = self._bytes.ctypes.data + _HEAD

    @property
    def is_free(self) -> bool:
        """Whether no array is left, neither here nor where it was handed to."""
        return not self._is_held and bool(self._bytes[: self.handed].all())

    def content(self) -> NDArray[np.uint8]:
        """Return the bytes, which are not free until this and all views of it are gone."""
        self._bytes[: self.handed] = 0
        self.handed, self._is_held = 0, True
        whole = np.frombuffer(memoryview(self._memory)[_HEAD:], np.uint8)
        weakref.finalize(whole, self._let_go).atexit = False
        return whole

    def _let_go(self) -> None:
        self._is_held = False

    def hand(self, offset: int, values: Array) -> _Handed:
        """Return a note of an array at ``offset`` for another process."""
        self.handed += 1
        return _Handed(
            file=DupFd(self._file),
            number=self.handed - 1,
            offset=offset,
            shape=values.shape,
            strides=values.strides,
            dtype=values.dtype.str,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Handed:
    """Where an array lies, for the process that gets this note: good for one call there."""

    file: Any
    number: int
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str

    def __call__(self) -> Array:
        """Return the array; its memory is given back when it and all views of it are gone."""
        file = self.file.detach()
        try:
            memory = mmap.mmap(file, 0)
        finally:
            os.close(file)
        whole = np.frombuffer(memoryview(memory)[_HEAD:], np.uint8)
        weakref.finalize(whole, memory.__setitem__, self.number, 1).atexit = False
        return np.ndarray(self.shape, self.dtype, whole, self.offset, self.strides)
