"""What HDF5's filters did to a chunk, undone: shuffle and Fletcher-32. Deflate is zlib's."""

from __future__ import annotations

import numpy as np


def unshuffled(data: bytes, itemsize: int) -> bytes:
    """Undo the shuffle filter: all first bytes, all second bytes ..., then what makes no whole item."""
    whole = len(data) // itemsize * itemsize
    planes = np.frombuffer(data, np.uint8, whole).reshape(itemsize, -1)
    return planes.T.tobytes() + data[whole:]


def checked(data: bytes) -> bytes:
    """Return a chunk without its Fletcher-32 checksum, which has to be right (H5checksum.c)."""
    body, told = data[:-4], int.from_bytes(data[-4:], "little")
    words = np.frombuffer(body + b"\0" * (len(body) % 2), ">u2").astype(np.uint64)
    modulus = np.uint64(65535)
    low = int(words.sum() % modulus)
    # Word i takes part in n - i of the running sums; reduced before it is multiplied, so nothing overflows.
    weights = np.arange(len(words), 0, -1, dtype=np.uint64) % modulus
    high = int((weights * words % modulus).sum() % modulus)
    if (told & 0xFFFF) % 65535 != low or (told >> 16) % 65535 != high:
        raise ValueError("a checksum is wrong")
    return body
