"""How an array of a segment lies on disk, and the Zarr v3 document that tells it.

Every array is a standard Zarr v3 array in `sharding_indexed` shards (ZEP 2), which plain zarr-python opens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ..schemas import DamageError, StreamSpec, VideoFormat

SLOTS = 32
"""Default T: frames of a camera chunk, and the multiple on which every episode starts."""
ROWS = 1024
"""Rows of an inner chunk of a low-dimensional array."""
_CHUNK_BYTES = 4 << 20

Storing = Literal["rows", "depth", "video"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How one array lies on disk.

    Attributes
    ----------
    storing
        ``rows``: dense and uncompressed, so that they can be mapped. ``depth``: a frame a chunk,
        bitshuffle + zstd + crc32c. ``video``: a closed GOP a chunk, codec ``teleopen.video``.
    dtype, sample
        dtype and shape of one slot.
    chunk
        Slots per inner chunk.
    video
        For ``video`` only: how its packets are decoded.
    """

    storing: Storing
    dtype: str
    sample: tuple[int, ...]
    chunk: int
    video: VideoFormat | None = None

    @property
    def np_dtype(self) -> np.dtype[Any]:
        """The little-endian dtype of the slots."""
        return np.dtype(self.dtype).newbyteorder("<")

    @property
    def slot_bytes(self) -> int:
        """Bytes of one slot when decoded."""
        return self.np_dtype.itemsize * int(np.prod(self.sample, dtype=np.int64))

    def shard_key(self, shard: int) -> str:
        """Return the key of a shard, below the array's own."""
        return "/".join(["c", str(shard), *("0" for _ in self.sample)])


def rows_layout(dtype: str, sample: tuple[int, ...]) -> Layout:
    """Return the layout of a low-dimensional array: chunks of 1024 rows, fewer if rows are large."""
    layout = Layout(storing="rows", dtype=dtype, sample=sample, chunk=ROWS)
    rows = ROWS
    while rows > 1 and rows * layout.slot_bytes > _CHUNK_BYTES:
        rows //= 2
    return Layout(storing="rows", dtype=dtype, sample=sample, chunk=rows)


def layout_of(spec: StreamSpec, video: VideoFormat | None = None, slots: int = SLOTS) -> Layout:
    """Return the layout of a stream's array."""
    if spec.kind == "video":
        return Layout(storing="video", dtype=spec.dtype, sample=spec.shape, chunk=slots, video=video)
    if spec.kind == "depth":
        return Layout(storing="depth", dtype=spec.dtype, sample=spec.shape, chunk=1)
    return rows_layout(spec.dtype, spec.shape)


def array_document(
    layout: Layout,
    slots: int,
    chunks_per_shard: int,
    attributes: Mapping[str, Any],
    dimensions: Sequence[str],
) -> dict[str, Any]:
    """Return the ``zarr.json`` of an array of ``slots`` slots."""
    sample = list(layout.sample)
    chunk = min(layout.chunk, slots) if layout.storing == "rows" else layout.chunk
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [slots, *sample],
        "data_type": layout.dtype,
        "chunk_grid": {
            "name": "regular",
            "configuration": {"chunk_shape": [chunk * chunks_per_shard, *sample]},
        },
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": False if layout.dtype == "bool" else 0,
        "codecs": [
            {
                "name": "sharding_indexed",
                "configuration": {
                    "chunk_shape": [chunk, *sample],
                    "codecs": _inner_codecs(layout),
                    "index_codecs": [
                        {"name": "bytes", "configuration": {"endian": "little"}},
                        {"name": "crc32c"},
                    ],
                    "index_location": "end",
                },
            }
        ],
        "dimension_names": list(dimensions),
        "attributes": dict(attributes),
        "storage_transformers": [],
    }


def _inner_codecs(layout: Layout) -> list[dict[str, Any]]:
    if layout.video is not None:
        video = layout.video
        return [
            {
                "name": "teleopen.video",
                "configuration": {
                    "version": 1,
                    "codec": video.codec,
                    "bitstream": video.bitstream,
                    "pixel_format": video.pixel_format,
                    "matrix": video.matrix,
                    "range": video.range,
                },
            }
        ]
    plain: dict[str, Any] = {"name": "bytes"}
    if layout.np_dtype.itemsize > 1:
        plain["configuration"] = {"endian": "little"}
    if layout.storing == "rows":
        return [plain]
    blosc = {
        "typesize": layout.np_dtype.itemsize,
        "cname": "zstd",
        "clevel": 5,
        "shuffle": "bitshuffle",
        "blocksize": 0,
    }
    return [plain, {"name": "blosc", "configuration": blosc}, {"name": "crc32c"}]


def group_document(attributes: Mapping[str, Any], members: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the ``zarr.json`` of a group, with inline consolidated metadata if ``members`` are given."""
    document: dict[str, Any] = {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}
    if members is not None:
        document["consolidated_metadata"] = {
            "kind": "inline",
            "must_understand": False,
            "metadata": dict(members),
        }
    return document


def parse_array(document: Mapping[str, Any], key: str) -> tuple[Layout, int, int]:
    """Return the layout, the number of slots and the chunks per shard that an array document tells.

    Raises
    ------
    DamageError
        If it is not a document that `array_document` makes.
    """
    try:
        codec = document["codecs"][0]["configuration"]
        sample = tuple(document["shape"][1:])
        inner = codec["codecs"]
        video = None
        if inner[0]["name"] == "teleopen.video":
            told = {k: v for k, v in inner[0]["configuration"].items() if k != "version"}
            video = VideoFormat(**told, width=sample[1] + sample[1] % 2, height=sample[0] + sample[0] % 2)
        storing: Storing = "video" if video else ("rows" if len(inner) == 1 else "depth")
        layout = Layout(
            storing=storing,
            dtype=document["data_type"],
            sample=sample,
            chunk=codec["chunk_shape"][0],
            video=video,
        )
        slots = int(document["shape"][0])
        per_shard = document["chunk_grid"]["configuration"]["chunk_shape"][0] // layout.chunk
        again = array_document(layout, slots, per_shard, document["attributes"], document["dimension_names"])
    except (KeyError, TypeError, ValueError, IndexError, ZeroDivisionError) as error:
        raise DamageError(key, f"is not an array of format 1: {error!r}") from error
    if again != document:
        raise DamageError(key, "is not an array of format 1")
    return layout, slots, per_shard
