"""The Zarr codec ``teleopen.video``: plain Zarr reads camera arrays, and decodes only the frames asked for.

Specified in docs/codec.md. Installing teleopen is enough for Zarr to find it; `register` is for programs
that run without being installed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from zarr.abc.codec import ArrayBytesCodec, ArrayBytesCodecPartialDecodeMixin
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import Buffer, NDBuffer
from zarr.registry import register_codec

from ..schemas import VideoFormat
from .decode import Pixels, decode_into, format_problem
from .encode import Profile, encode_gop, encoding_of, format_of

NAME = "teleopen.video"
VERSION = 1
QUALITY_DB = 37.0
"""What arrays that are written through Zarr aim at; `teleopen.hub.encode.choose` is there for the rest."""

_MEMBERS = {"version", "codec", "bitstream", "pixel_format", "matrix", "range"}


@dataclass(frozen=True)
class VideoCodec(ArrayBytesCodec, ArrayBytesCodecPartialDecodeMixin):
    """Chunks (T, H, W, C) of uint8 as groups of pictures.

    The members are those of `VideoFormat`; the size of the coded picture follows from the chunk's shape.
    """

    is_fixed_size: ClassVar[bool] = False  # type: ignore[misc] # declared for instances, set by classes

    codec: Literal["h264", "hevc", "av1", "vp9"] = "h264"
    bitstream: Literal["annexb", "obu", "frames"] = "annexb"
    pixel_format: str = "yuv420p"
    matrix: Literal["bt601", "bt709", "bt2020", "rgb"] = "bt601"
    range: Literal["limited", "full"] = "limited"

    def __post_init__(self) -> None:
        if problem := format_problem(self._video(2, 2)):
            raise ValueError(f"{NAME}: {problem}")

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return the codec that an array's metadata names; refuse what this version does not know."""
        configuration = dict(data.get("configuration") or {})
        if data.get("name") != NAME or set(configuration) != _MEMBERS:
            expected = ", ".join(sorted(_MEMBERS))
            raise ValueError(f"{NAME} takes exactly {expected}, not {dict(data)}")
        if (version := configuration.pop("version")) != VERSION:
            raise ValueError(f"{NAME} version {version!r} is not known here, only {VERSION}")
        return cls(**configuration)

    def to_dict(self) -> dict[str, Any]:
        """Return what stands in an array's metadata."""
        configuration = {
            "version": VERSION,
            "codec": self.codec,
            "bitstream": self.bitstream,
            "pixel_format": self.pixel_format,
            "matrix": self.matrix,
            "range": self.range,
        }
        return {"name": NAME, "configuration": configuration}

    def evolve_from_array_spec(self, array_spec: ArraySpec) -> Self:
        """Refuse arrays that are not video."""
        shape = array_spec.shape
        if len(shape) != 4 or shape[3] not in {1, 3} or array_spec.dtype.to_native_dtype() != np.uint8:
            raise ValueError(f"{NAME} takes chunks (T, H, W, 3) or (T, H, W, 1) of uint8, not {shape}")
        return self

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        """Refuse: the size depends on the content."""
        raise NotImplementedError

    def _video(self, height: int, width: int) -> VideoFormat:
        return VideoFormat(
            codec=self.codec,
            bitstream=self.bitstream,
            pixel_format=self.pixel_format,
            matrix=self.matrix,
            range=self.range,
            width=width + width % 2,
            height=height + height % 2,
        )

    def _frames(self, chunk: Buffer, slots: NDArray[np.int64], spec: ArraySpec) -> Pixels:
        """Return frames of a chunk: (k, H, W, C)."""
        length, height, width, channels = spec.shape
        out = np.empty((len(slots), height, width, channels), np.uint8)
        raw = np.ascontiguousarray(chunk.as_numpy_array(), np.uint8)
        decode_into(raw.data, self._video(height, width), slots.tolist(), out, slots=length)
        return out

    def _decode_sync(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        frames = self._frames(chunk_data, np.arange(chunk_spec.shape[0]), chunk_spec)
        return _nd_buffer(frames, chunk_spec)

    async def _decode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        return await asyncio.to_thread(self._decode_sync, chunk_data, chunk_spec)

    def _select(self, chunk: Buffer, selection: Any, spec: ArraySpec) -> NDBuffer:
        """Return what indexing the whole chunk by ``selection`` would give."""
        of_time, *of_frame = selection if isinstance(selection, tuple) else (selection,)
        slots = np.arange(spec.shape[0])[of_time]
        wanted, place = np.unique(slots, return_inverse=True)
        frames = self._frames(chunk, wanted, spec)
        # A slice stays a slice: next to index arrays it means something else than the array of its indices.
        first = slice(None) if isinstance(of_time, slice) else place.reshape(slots.shape)[()]
        return _nd_buffer(frames[(first, *of_frame)], spec)

    def _decode_partial_sync(
        self, byte_getter: Any, selection: Any, chunk_spec: ArraySpec
    ) -> NDBuffer | None:
        chunk = byte_getter.get_sync(prototype=chunk_spec.prototype)
        return None if chunk is None else self._select(chunk, selection, chunk_spec)

    async def _decode_partial_single(
        self, byte_getter: Any, selection: Any, chunk_spec: ArraySpec
    ) -> NDBuffer | None:
        chunk = await byte_getter.get(prototype=chunk_spec.prototype)
        if chunk is None:
            return None
        return await asyncio.to_thread(self._select, chunk, selection, chunk_spec)

    def _encode_sync(self, chunk_data: NDBuffer, chunk_spec: ArraySpec) -> Buffer:
        frames = chunk_data.as_numpy_array()
        profile: Profile = "archive" if self.codec == "av1" else "train"
        if self.pixel_format == "gbrp":
            profile = "lossless"
        video = self._video(*frames.shape[1:3])
        if video != format_of(frames, profile, self.pixel_format):
            raise NotImplementedError(f"{video} is stored from packets, and not encoded from pixels")
        chunk, _ = encode_gop(frames, encoding_of(video, profile), quality_db=QUALITY_DB)
        return chunk_spec.prototype.buffer.from_bytes(chunk)

    async def _encode_single(self, chunk_data: NDBuffer, chunk_spec: ArraySpec) -> Buffer:
        return await asyncio.to_thread(self._encode_sync, chunk_data, chunk_spec)


def _nd_buffer(frames: Any, spec: ArraySpec) -> NDBuffer:
    return spec.prototype.nd_buffer.from_ndarray_like(frames)


def register() -> None:
    """Make the codec known to Zarr where teleopen is not installed, so that no entry point tells."""
    register_codec(NAME, VideoCodec)
