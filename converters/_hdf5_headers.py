"""The values of HDF5 attributes as they are stored, found without the library.

Texts of variable length are stored as references into the heap, and the library allocates what a reference
claims before it looks there: 4 GiB for a file of 6 kB. So the references are read here, from the header of
the object that the attribute belongs to, and `GlobalHeap` follows them (HDF5 File Format Specification 3.0,
sections IV.A "Data Object Headers", IV.A.2.m "Attribute", IV.A.2.q "Object Header Continuation").

Attributes that are kept in a heap of their own, which the library does where there are many of them and the
file was opened for its latest version only, are not found.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

_ATTRIBUTE, _CONTINUATION = 0x0C, 0x10
_SHARED = 2
_MOST_BLOCKS = 1_000
_MOST_BLOCK_BYTES = 1 << 24

_MESSAGE_1, _MESSAGE_2 = struct.Struct("<HHB3x"), struct.Struct("<BHB")
_SIZES = struct.Struct("<BxHHH")


def stored_attribute(file: BinaryIO, size: int, address: int, name: bytes) -> bytes | None:
    """Return the stored bytes of an attribute, and perhaps a few behind them; None if it is not found.

    Parameters
    ----------
    file, size
        The whole file and how many bytes it has.
    address
        Where the header of the object begins.

    Raises
    ------
    ValueError
        If the header reaches beyond the file, or in circles.
    """
    for message in _messages(file, size, address):
        found = _value(message, name)
        if found is not None:
            return found
    return None


def _value(message: bytes, name: bytes) -> bytes | None:
    """Return the value in an attribute message if it has the name."""
    if len(message) < _SIZES.size or message[0] not in {1, 2, 3}:
        return None
    version, *sizes = _SIZES.unpack_from(message)
    at = _SIZES.size + (version == 3)
    if message[at : at + sizes[0]].rstrip(b"\0") != name:
        return None
    step = 8 if version == 1 else 1
    return message[at + sum(-(-part // step) * step for part in sizes) :]


def _messages(file: BinaryIO, size: int, address: int) -> Iterator[bytes]:
    """Yield the attribute messages of an object header."""
    head = _read(file, size, address, 40)
    new = head[:4] == b"OHDR"
    if new:
        flags = head[5]
        at = 6 + 16 * bool(flags & 0x20) + 4 * bool(flags & 0x10)
        width = 1 << (flags & 3)
        length = int.from_bytes(head[at : at + width], "little")
        blocks = [(address + at + width, length)]
        extra = 2 * bool(flags & 0x04)
    else:
        length = int.from_bytes(head[8:12], "little")
        blocks, extra = [(address + 16, length)], 0
    for number in range(_MOST_BLOCKS):
        if number == len(blocks):
            return
        block = _read(file, size, *blocks[number])
        for kind, flags, data in _split(block, extra, new=new):
            if kind == _CONTINUATION and len(data) >= 16:
                start, length = struct.unpack_from("<QQ", data)
                blocks.append((start + 4, length - 8) if new else (start, length))
            elif kind == _ATTRIBUTE and not flags & _SHARED:
                yield data
    raise ValueError("has a header without end")


def _split(block: bytes, extra: int, *, new: bool) -> Iterator[tuple[int, int, bytes]]:
    """Yield kind, flags and data of the messages of a block."""
    layout = _MESSAGE_2 if new else _MESSAGE_1
    at = 0
    while at + layout.size + extra <= len(block):
        kind, length, flags = layout.unpack_from(block, at)
        at += layout.size + extra
        yield kind, flags, block[at : at + length]
        at += length


def _read(file: BinaryIO, size: int, start: int, length: int) -> bytes:
    if not 0 <= start < size or not 0 <= length <= _MOST_BLOCK_BYTES:
        raise ValueError(f"has a header of {length} bytes at {start}, beyond the end of the file")
    file.seek(start)
    return file.read(length)
