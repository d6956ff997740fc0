"""Cameras as MP4: packets as they lie in the store, many episodes behind each other in one file.

LeRobot finds a picture by its number, second × average rate, and asks that it stands within 0.1 ms of its
time (github.com/huggingface/lerobot: src/lerobot/datasets/video_utils.py, decode_video_frames_torchcodec). So
pictures stand at whole multiples of the row's period, from 0 on in each file.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from ...schemas import Array, DamageError
from .. import disk
from ..arrays import ArrayReader
from ..gop import Entry, unpack

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.stream import Stream

FILE_BYTES = 200 << 20
"""When a file is full: video_files_size_in_mb in LeRobot's info.json."""
FILE_SECONDS = 1000.0
"""When a file is full, too: LeRobot compares times in it as float32, whose steps are 0.06 ms below 1024 s."""
PER_CHUNK = 1000
"""Files of one folder: chunks_size in LeRobot's info.json."""
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"

_TICKS = 512  # of a picture's period, as LeRobot's own encoder has it: time base 1/15360 at 30 Hz
_IN_MEMORY = 64 << 20
_CRF, _KEY_EVERY = "15", 10
_FITTING = frozenset({"h264", "hevc", "av1"})


class Shot(NamedTuple):
    """A packet of a film: sample that it shows, bytes, whether decoding can start here."""

    pts: int
    size: int
    key: bool


@dataclass(slots=True)
class Film:
    """An episode's pictures of one camera, encoded.

    Attributes
    ----------
    data
        Holds the packets' bytes.
    form
        Codec, pixel format, width and height: one for all films of a file.
    length
        Pictures of the episode; others are only there to decode these.
    shots
        The packets in decode order.
    why
        Why the pictures were encoded anew; empty if the packets are the store's.
    """

    data: IO[bytes]
    form: tuple[str, str, int, int]
    length: int = 0
    why: str = ""
    shots: list[Shot] = field(default_factory=list)

    def take(self, pts: int, data: bytes | memoryview, *, key: bool) -> None:
        """Add a packet."""
        self.data.write(data)
        self.shots.append(Shot(pts, len(data), key))

    @property
    def ranks(self) -> list[int]:
        """The place of each packet's picture among those that are shown, in decode order."""
        place = {pts: rank for rank, pts in enumerate(sorted(shot.pts for shot in self.shots))}
        return [place[shot.pts] for shot in self.shots]

    @property
    def before(self) -> int:
        """Pictures from before the episode, which others are decoded from."""
        return sum(shot.pts < 0 for shot in self.shots)

    @property
    def delay(self) -> int:
        """Periods by which a picture is shown later than its packet is decoded, at least."""
        return max(at - rank for at, rank in enumerate(self.ranks))

    @property
    def size(self) -> int:
        """Bytes of all packets."""
        return sum(shot.size for shot in self.shots)

    def packets(self) -> Iterator[tuple[Shot, bytes]]:
        """Yield the packets in decode order."""
        self.data.seek(0)
        for shot in self.shots:
            yield shot, self.data.read(shot.size)


# --- films --------------------------------------------------------------------------------------------


def obstacle(array: ArrayReader) -> str:
    """Say why a camera's packets cannot go into an MP4 file that LeRobot reads; "" if they can."""
    video = array.layout.video
    if video is None:
        return "it is not stored as packets"
    if video.codec not in _FITTING:
        return f"{video.codec} does not go into MP4 without what only its container told"
    if (video.height, video.width) != array.layout.sample[:2]:
        return f"its pictures of {video.width} × {video.height} are shown cropped, which MP4 would not tell"
    return ""


def spool() -> IO[bytes]:
    """Return a file for the packets of a film: in memory up to 64 MiB, then on the disk."""
    return tempfile.SpooledTemporaryFile(_IN_MEMORY)


def taken(array: ArrayReader, start: int, length: int, data: IO[bytes]) -> Film:
    """Return the film of slots ``[start, start + length)`` with the packets of the store, put into ``data``.

    Raises
    ------
    DamageError
        If they are not what the store says.
    """
    video = array.layout.video
    if video is None:
        raise ValueError(f"{array.key} holds no packets")
    film = Film(data, (video.codec, video.pixel_format, video.width, video.height), length)
    for entry in _entries(array, start, length):
        film.take(entry.pts, entry.data, key=entry.key)
    if missing := set(range(length)) - {shot.pts for shot in film.shots}:
        raise DamageError(array.key, f"no packet shows slot {start + min(missing)}")
    return film


def _entries(array: ArrayReader, start: int, length: int) -> Iterator[Entry]:
    """Yield what is needed to decode an episode, in decode order, each once, with ``pts`` from its start.

    Chunks repeat what they need of their neighbours; the first time is in decode order.
    """
    size = array.layout.chunk
    seen: set[int] = set()
    for first in range(0, length, size):
        place = (start + first) // size
        try:
            packets = unpack(array.chunk(place), size).packets
        except DamageError as error:
            raise DamageError(f"{array.key} [chunk {place}]", error.why) from error
        for entry in packets:
            if first + entry.pts not in seen:
                seen.add(first + entry.pts)
                yield entry._replace(pts=first + entry.pts)


def encoded(
    frames: Iterable[Array], rate: Fraction, why: str, data: IO[bytes], *, fine: bool = False
) -> Film:
    """Return the film of frames (n, H, W, C) uint8, encoded as H.264 by x264 at a constant rate factor of 15.

    Parameters
    ----------
    fine
        Keep colour in full resolution. Odd heights and widths have it so in any case, since 4:2:0 has none.
    """
    film: Film | None = None
    context: VideoCodecContext | None = None
    scaler = VideoReformatter()
    at = 0
    for block in frames:
        for pixels in block:
            if context is None or film is None:
                height, width = pixels.shape[:2]
                form = "yuv444p" if fine or height % 2 or width % 2 else "yuv420p"
                context = _encoder(width, height, form, rate)
                film = Film(data, ("h264", form, width, height), why=why)
            rgb = np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))
            picture = scaler.reformat(
                av.VideoFrame.from_ndarray(rgb, "rgb24"),
                format=film.form[1],
                src_colorspace=Colorspace.ITU601,
                dst_colorspace=Colorspace.ITU601,
                src_color_range=ColorRange.JPEG,
                dst_color_range=ColorRange.MPEG,
            )
            picture.pts = at
            at += 1
            _drain(context, picture, film)
    if context is None or film is None:
        raise ValueError("a film needs a picture")
    _drain(context, None, film)
    film.length = at
    return film


def _encoder(width: int, height: int, form: str, rate: Fraction) -> VideoCodecContext:
    context = av.CodecContext.create("libx264", "w")
    context.width, context.height, context.pix_fmt = width, height, form
    context.time_base, context.framerate = 1 / rate, rate
    context.gop_size, context.max_b_frames, context.thread_count = _KEY_EVERY, 0, 1
    context.colorspace, context.color_range = int(Colorspace.ITU601), int(ColorRange.MPEG)
    context.options = {"crf": _CRF, "preset": "medium", "x264-params": "scenecut=0:open-gop=0"}
    return context


def _drain(context: VideoCodecContext, picture: av.VideoFrame | None, film: Film) -> None:
    for packet in context.encode(picture):
        film.take(int(packet.pts or 0), bytes(packet), key=packet.is_keyframe)


# --- files --------------------------------------------------------------------------------------------


class Videos:
    """The MP4 files of one camera.

    A file holds films of one codec and size. It ends before it would grow beyond `FILE_BYTES` or
    `FILE_SECONDS`, and where a film brings its pictures further out of order than those before it.
    """

    def __init__(
        self,
        root: Path,
        key: str,
        rate: Fraction,
        file_bytes: int = FILE_BYTES,
        file_seconds: float = FILE_SECONDS,
    ) -> None:
        self._root, self._key, self._rate = root, key, rate
        self._most, self._longest = file_bytes, file_seconds * rate
        self._number = -1
        self._container: OutputContainer | None = None
        self._stream: Stream | None = None
        self._form: tuple[str, str, int, int] | None = None
        self._delay = self._pictures = self._bytes = 0

    def add(self, film: Film) -> dict[str, int | float]:
        """Put a film behind the others, and return its place as meta/episodes tells it."""
        self._make_room(film)
        first = self._pictures
        for at, ((shot, data), rank) in enumerate(zip(film.packets(), film.ranks, strict=True)):
            self._mux(data, first + rank, first + at - self._delay, key=shot.key)
        self._pictures += len(film.shots)
        self._bytes += film.size
        start = first + film.before
        return {
            "chunk_index": self._number // PER_CHUNK,
            "file_index": self._number % PER_CHUNK,
            "from_timestamp": float(start / self._rate),
            "to_timestamp": float((start + film.length) / self._rate),
        }

    def close(self) -> None:
        """Finish the file that is being written, if there is one."""
        if self._container is not None:
            self._container.close()
            self._container = None

    def _make_room(self, film: Film) -> None:
        full = self._bytes + film.size >= self._most or self._pictures + len(film.shots) > self._longest
        if self._container is not None and not full and film.form == self._form and film.delay <= self._delay:
            return
        self.close()
        self._number += 1
        self._form, self._delay, self._pictures, self._bytes = film.form, film.delay, 0, 0
        path = self._root / VIDEO_PATH.format(
            video_key=self._key, chunk_index=self._number // PER_CHUNK, file_index=self._number % PER_CHUNK
        )
        disk.make_folder(path.parent)
        self._container = av.open(str(path), "w", format="mp4", options={"movflags": "faststart"})
        codec, _, width, height = film.form
        more: dict[str, Any] = {"width": width, "height": height, "time_base": self._tick}
        self._stream = self._container.add_mux_stream(codec, rate=self._rate, **more)

    @property
    def _tick(self) -> Fraction:
        return Fraction(1, self._rate.numerator * _TICKS)

    def _mux(self, data: bytes, shown: int, decoded: int, *, key: bool) -> None:
        if self._container is None or self._stream is None:
            raise ValueError("no file is open")
        step = _TICKS * self._rate.denominator
        packet = av.Packet(len(data))
        packet.update(data)
        packet.stream, packet.time_base = self._stream, self._tick
        packet.pts, packet.dts, packet.duration = shown * step, decoded * step, step
        packet.is_keyframe = key
        self._container.mux(packet)
