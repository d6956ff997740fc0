"""Memory of batches, used again once nobody holds the batch any more."""

from __future__ import annotations

import math
import weakref
from collections import deque
from contextlib import suppress
from typing import Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ...schemas import Array

LEAST_BYTES = 1 << 20
"""Of an array whose memory is worth keeping: the system does not take smaller blocks back at once."""


class Allocator(Protocol):
    """Where the arrays of batches get their memory."""

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """Return an array of any content."""


class Memory:
    """Gives arrays memory that was theirs before, where there is some.

    The system clears each page that it gives to a process, and takes large blocks back as soon as they are
    freed: for batches of pictures that is a fifth of the time of decoding them. Safe to share between
    threads, and without a lock, since what frees an array may run at any time.

    Parameters
    ----------
    most
        Bytes that are kept, beside those in use; more where two arrays of the largest size do not go into it.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._spare: deque[NDArray[np.uint8]] = deque()

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """Return an array of any content, whose memory is used again when neither it nor a view is left."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if size < LEAST_BYTES:
            return np.empty(shape, dtype)
        self._most = max(self._most, 2 * size)
        block = self._taken(size)
        # Over a memoryview: of an array over an array, views would hold the lower one only.
        whole = np.frombuffer(block.data, np.uint8)
        weakref.finalize(whole, self._give, block).atexit = False
        return whole.view(dtype).reshape(shape)

    def _taken(self, size: int) -> NDArray[np.uint8]:
        with suppress(IndexError):  # another thread may have taken the last
            for _ in range(len(self._spare)):
                block = self._spare.popleft()
                if block.nbytes == size:
                    return block
                self._spare.append(block)
        return np.empty(size, np.uint8)

    def _give(self, block: NDArray[np.uint8]) -> None:
        self._spare.append(block)
        with suppress(IndexError):
            while sum(spare.nbytes for spare in tuple(self._spare)) > self._most:
                self._spare.popleft()


MEMORY = Memory(256 << 20)
"""Of this process's batches."""
