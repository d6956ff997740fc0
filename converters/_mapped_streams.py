"""Samples of a stream, made from columns as a rule of a mapping says."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

import numpy as np

from ..schemas import Array, FormatError, Json, StreamSpec
from ._columns import Column, Share
from ._draft import Read
from ._jpeg import ChannelOrder
from ._mapping import MappingFile, StreamRule
from ._pictures import Encoding, Shown, in_blocks, pixels_of, shown
from .base import rows_in

_EVIDENCE = "the mapping"
_TURNED = "red and blue swapped"
_LAST = "channels put last"


def made(
    mapping: MappingFile, where: str, rule: StreamRule, share: Share, columns: list[Column], block_bytes: int
) -> tuple[StreamSpec, Read, str]:
    """Return kind, dtype, shape and attributes of a rule's stream, how to read it, and what is done to it.

    Raises
    ------
    FormatError
        If the columns cannot be what the rule says.
    """
    if rule.kind == "low_dim":
        return numbers(mapping, where, rule.columns, share, columns, block_bytes)
    if rule.encoding == "raw":
        return _raw(mapping, where, rule, share, columns[0], block_bytes)
    return _encoded(mapping, where, rule, rule.encoding, share, columns[0], block_bytes)


def rows_of(block_bytes: int, columns: list[Column], spec: StreamSpec) -> int:
    """Return how many rows go into a block that is bounded both as it is read and as it is given."""
    largest = max(column.row_bytes for column in columns)
    return max(1, min(rows_in(block_bytes, spec), block_bytes // max(1, largest)))


def numbers(
    mapping: MappingFile,
    where: str,
    cut: tuple[int, ...] | None,
    share: Share,
    columns: list[Column],
    block_bytes: int,
) -> tuple[StreamSpec, Read, str]:
    """Return the same of a stream of numbers: a column, some of its axes, or several side by side."""
    for column in columns:
        if column.holds != "numbers":
            mapping.refuse(f"{where}.field", f"{column.name!r} holds {column.holds}, not numbers")
    first, how = columns[0], columns[0].how
    shape = first.shape
    if cut is not None:
        if len(shape) != 1 or cut[1] > shape[0]:
            mapping.refuse(f"{where}.columns", f"says {list(cut)}; a row of {first.name!r} is {list(shape)}")
        shape, how = (cut[1] - cut[0],), f"axes {cut[0]} to {cut[1] - 1}"
    if len(columns) > 1:
        for column in columns:
            if len(column.shape) > 1 or column.dtype != first.dtype:
                mapping.refuse(
                    f"{where}.field",
                    f"{column.name!r} is {column.dtype} {list(column.shape)}; fields side by side must be of "
                    f"one type, here {first.dtype}, and of one axis at most",
                )
        shape = (sum(math.prod(column.shape) for column in columns),)
        how = "side by side: " + ", ".join(column.name for column in columns)
    spec = StreamSpec(name=where, kind="low_dim", dtype=first.dtype, shape=shape)
    names = tuple(column.name for column in columns)
    read = partial(_numbers, share, names, cut, spec, rows_of(block_bytes, columns, spec))
    return spec, read, how


def _numbers(
    share: Share,
    names: tuple[str, ...],
    cut: tuple[int, ...] | None,
    spec: StreamSpec,
    rows: int,
    start: int,
    stop: int,
) -> Iterator[Array]:
    for parts in zip(*(share.blocks(name, start, stop, rows) for name in names), strict=True):
        block = parts[0]
        if len(parts) > 1:
            block = np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)
        if cut is not None:
            block = block[:, cut[0] : cut[1]]
        yield np.ascontiguousarray(block, spec.np_dtype).reshape(len(block), *spec.shape)


def _raw(
    mapping: MappingFile, where: str, rule: StreamRule, share: Share, column: Column, block_bytes: int
) -> tuple[StreamSpec, Read, str]:
    dtype, shape = _laid_out(mapping, where, rule, column)
    wanted = {"uint8"} if rule.kind == "video" else {"uint16", "float32"}
    if dtype not in wanted or len(shape) not in {2, 3} or 0 in shape:
        mapping.refuse(
            f"{where}.field",
            f"{column.name!r} holds {column.holds} of {dtype} {list(shape)}; raw pixels of {rule.kind} are "
            f"{' or '.join(sorted(wanted))} of two or three axes",
            "Say encoding if these are files of pictures, or shape if they lie flat",
        )
    swapped = rule.layout == "chw" and len(shape) == 3
    turned = (*shape[1:], shape[0]) if swapped else shape
    channels = turned[2] if len(turned) == 3 else 1
    if channels not in ({1, 3} if rule.kind == "video" else {1}):
        mapping.refuse(
            f"{where}.field", f"{column.name!r} is {list(shape)}: {channels} channels", "Say layout"
        )
    final = (*turned[:2], channels) if rule.kind == "video" else turned[:2]
    spec = _pictured(rule, dtype, final, "")
    steps = (_LAST,) * swapped + (_TURNED,) * (rule.order == "bgr" and channels == 3)
    flat = ("laid out as pixels",) if column.shape != shape else ()
    rows = rows_of(block_bytes, [column], spec)
    return spec, partial(_pixels, share, column.name, spec, rows, shape, steps), "; ".join(flat + steps)


def _laid_out(
    mapping: MappingFile, where: str, rule: StreamRule, column: Column
) -> tuple[str, tuple[int, ...]]:
    """Return dtype and shape of a row of raw pixels, which may lie flat and as bytes in the file."""
    if column.holds != "numbers":
        mapping.refuse(
            f"{where}.field", f"{column.name!r} holds {column.holds}, not raw pixels", "Say encoding"
        )
    dtype = rule.values or column.dtype
    if rule.values and column.dtype != "uint8":
        mapping.refuse(f"{where}.values", f"goes with bytes; {column.name!r} holds {column.dtype}")
    if rule.shape is None or len(column.shape) != 1:
        return dtype, column.shape
    size = math.prod(rule.shape) * np.dtype(dtype).itemsize
    if size != column.row_bytes:
        mapping.refuse(
            f"{where}.shape",
            f"is {size} bytes of {dtype}, and a row of {column.name!r} is {column.row_bytes}",
        )
    return dtype, rule.shape


def _pixels(
    share: Share,
    name: str,
    spec: StreamSpec,
    rows: int,
    shape: tuple[int, ...],
    steps: tuple[str, ...],
    start: int,
    stop: int,
) -> Iterator[Array]:
    for block in share.blocks(name, start, stop, rows):
        plain = np.ascontiguousarray(block)
        if plain.dtype != spec.np_dtype and plain.dtype == np.uint8:
            plain = plain.view(spec.np_dtype)
        pixels = plain.reshape(len(block), *shape)
        if _LAST in steps:
            pixels = np.moveaxis(pixels, 1, -1)
        pixels = pixels.reshape(len(block), *spec.shape)
        yield np.ascontiguousarray(pixels[..., ::-1] if _TURNED in steps else pixels, spec.np_dtype)


def _encoded(
    mapping: MappingFile,
    where: str,
    rule: StreamRule,
    encoding: Encoding,
    share: Share,
    column: Column,
    block_bytes: int,
) -> tuple[StreamSpec, Read, str]:
    padded = column.holds == "numbers" and column.dtype == "uint8" and len(column.shape) == 1
    if column.holds != "bytes" and not padded:
        mapping.refuse(
            f"{where}.field", f"{column.name!r} holds {column.holds}, not bytes of {encoding} files"
        )
    try:
        found = shown(next(iter(share.items(column.name, 0, 1))), encoding)
    except ValueError as error:
        raise FormatError(str(share.source.path), f"{column.name}[0]", str(error)) from error
    if found.kind != rule.kind:
        mapping.refuse(f"{where}.kind", f"says {rule.kind}; the first picture is {found.kind}")
    spec = _pictured(rule, found.dtype, found.shape, encoding)
    turned = rule.order == "bgr" and found.shape[-1] == 3 and found.kind == "video"
    order: ChannelOrder = "opencv" if turned else "standard"
    read = partial(_pictures, share, column.name, found, order, rows_in(block_bytes, spec))
    return spec, read, f"decoded {encoding.upper()}" + (f"; {_TURNED}" if turned else "")


def _pictured(rule: StreamRule, dtype: str, shape: tuple[int, ...], encoding: str) -> StreamSpec:
    attributes: dict[str, Json] = {"encoding": encoding} if encoding else {}
    if rule.kind == "video" and shape[2] == 3:
        attributes |= {"stored_order": rule.order, "order_evidence": _EVIDENCE}
    return StreamSpec(name="picture", kind=rule.kind, dtype=dtype, shape=shape, attributes=attributes)


def _pictures(
    share: Share,
    name: str,
    want: Shown,
    order: ChannelOrder,
    rows: int,
    start: int,
    stop: int,
) -> Iterator[Array]:
    def blame(row: int, why: str) -> FormatError:
        return FormatError(str(share.source.path), f"{name}[{row}]", why)

    decode = partial(pixels_of, want=want, order=order, padded=True)
    return in_blocks(share.items(name, start, stop), decode, rows, start, blame)
