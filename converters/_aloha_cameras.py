"""The cameras of ALOHA's dialects: what a dataset's layout, its first row and the recorder tell of pictures.

Which of red and blue comes first, and why, is told in ``aloha_hdf5.py``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from ..schemas import UNKNOWN, Array, FormatError, Json, StreamSpec
from ._aloha import Dialect
from ._hdf5 import Field, Hdf5, open_hdf5
from ._jpeg import ChannelOrder, Picture, decoded, is_jpeg, picture_of, unpadded
from .base import MAX_EPISODE_BYTES

_ENCODERS = (
    "MarkFzp/mobile-aloha: aloha_scripts/record_episodes.py and MarkFzp/act-plus-plus: compress_data.py "
    "encode with cv2.imencode"
)

Read = Callable[..., Iterator[Array]]
"""Gives a dataset's samples in blocks, for path, dataset, shape of a sample, rows per block, start, stop."""

_NO_NAME = re.compile(r"[^A-Za-z0-9_@+-]")


def stream_name(prefix: str, *parts: str) -> str:
    """Return a stream's name made of parts that may hold anything."""
    return ".".join([prefix, *(_NO_NAME.sub("_", part) or "_" for part in parts)])[:190].rstrip(".")


@dataclass(frozen=True, slots=True, kw_only=True)
class Camera:
    """What becomes of a camera's dataset.

    Attributes
    ----------
    spec
        Its stream, by the name it is to have unless that is taken.
    read
        What gives its samples; None: they are the dataset's rows.
    how, lossless
        For the ledger.
    """

    spec: StreamSpec
    read: Read | None = None
    how: str = ""
    lossless: bool | None = True
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Cameras:
    """Tells what a file's cameras are.

    Attributes
    ----------
    order
        Which decoder gives the pixels that went into the JPEGs, where that was said by the option.
    """

    hdf5: Hdf5
    dialect: Dialect
    order: ChannelOrder | None

    def of(self, found: Field, name: str) -> Camera | None:
        """Return what becomes of a camera's dataset; None if it is none of the layouts of images."""
        kind, sides = found.dtype.name, len(found.shape)
        if 0 in found.shape:
            return None
        if sides == 4 and kind == "uint8" and found.shape[3] in {1, 3}:
            return self._raw(name, found.shape[1:])
        if sides == 3 and kind == "uint8":
            return self._raw(name, (*found.shape[1:], 1))
        if sides == 3 and kind in {"uint16", "float32"}:
            return self._depth(found, name.removesuffix("_depth"))
        if (sides == 2 and kind == "uint8") or (sides == 1 and found.dtype.kind == "S"):
            return self._jpegs(found, name)
        return None

    def _raw(self, name: str, shape: tuple[int, ...]) -> Camera:
        coloured, evidence = shape[2] == 3, self.dialect.order_evidence
        spec = StreamSpec(
            name=stream_name("observation.images", name),
            kind="video",
            dtype="uint8",
            shape=shape,
            unit=("1",),
            attributes={"stored_order": "rgb", "order_evidence": evidence or UNKNOWN} if coloured else {},
        )
        if not coloured or evidence:
            return Camera(spec=spec)
        return Camera(
            spec=spec,
            warnings=(f"nothing tells the order of the channels of {name!r}: taken for RGB",),
        )

    def _depth(self, found: Field, name: str) -> Camera:
        return Camera(
            spec=StreamSpec(
                name=stream_name("observation.depth", name),
                kind="depth",
                dtype=found.dtype.name,
                shape=found.shape[1:],
                description="Depth as the camera's driver gave it; its unit is not stored.",
                attributes=self._borders(found),
            )
        )

    def _borders(self, found: Field) -> dict[str, Json]:
        """Tell the rows of zeros that AgileX adds, if the first sample has them."""
        border = 40
        first = next(self.hdf5.rows(found, 0, 1, 1))[0]
        padded = len(first) > 2 * border and not first[:border].any() and not first[-border:].any()
        if self.dialect.name != "agilex" or not padded:
            return {}
        return {
            "added_rows": {"top": border, "bottom": border},
            "added_rows_evidence": f"{self.dialect.recorder}: copyMakeBorder; zero in the first sample",
        }

    def _jpegs(self, found: Field, name: str) -> Camera | None:
        """Take rows for padded JPEGs, unless the first is none and the file does not say so."""
        said = self.hdf5.attributes.get("@compress") is True
        first = next(self.hdf5.rows(found, 0, 1, 1)).tobytes()
        if not is_jpeg(first) and not said:
            return None
        path = str(self.hdf5.path)
        try:
            picture = picture_of(unpadded(first))
        except ValueError as error:
            raise FormatError(path, f"{found.name}[0]", str(error)) from error
        shape = (picture.height, picture.width, picture.channels)
        if found.shape[0] * math.prod(shape) > MAX_EPISODE_BYTES:
            why = f"promises {found.shape[0]} pictures of {shape}, more than is believed"
            raise FormatError(path, found.name, why)
        order: ChannelOrder = self.order or ("opencv" if said else "standard")
        warning = f"nothing tells what encoded the JPEGs of {name!r}: red may be blue in them"
        how = "bytes behind the JPEG's end marker cut off; decoded by libjpeg"
        how += "; red and blue swapped back, as OpenCV's decoder does" if order == "opencv" else ""
        spec = StreamSpec(
            name=stream_name("observation.images", name),
            kind="video",
            dtype="uint8",
            shape=shape,
            unit=("1",),
            attributes={
                "encoding": "jpeg",
                "stored_order": "bgr" if order == "opencv" else "rgb",
                "order_evidence": self._order_evidence(),
            },
        )
        return Camera(
            spec=spec,
            read=partial(_read_jpegs, picture=picture, order=order),
            how=how,
            lossless=None,
            warnings=() if said or self.order is not None else (warning,),
        )

    def _order_evidence(self) -> str:
        if self.order:
            return f"option jpeg_order={self.order}"
        if self.hdf5.attributes.get("@compress") is not True:
            return UNKNOWN
        return f"{_ENCODERS}; {self.dialect.order_evidence or UNKNOWN}"


def _read_jpegs(
    path: Path,
    found: Field,
    shape: tuple[int, ...],
    rows: int,
    start: int,
    stop: int,
    *,
    picture: Picture,
    order: ChannelOrder,
) -> Iterator[Array]:
    with open_hdf5(path) as hdf5:
        stop = min(stop, found.shape[0])
        padded = hdf5.rows(found, start, stop, 1)
        for first in range(start, stop, rows):
            block = np.empty((min(rows, stop - first), *shape), np.uint8)
            for i, row in enumerate(islice(padded, len(block))):
                try:
                    decoded(unpadded(row.tobytes()), picture, order, out=block[i])
                except ValueError as error:
                    raise FormatError(str(path), f"{found.name}[{first + i}]", str(error)) from error
            yield block
