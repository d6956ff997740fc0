"""How a camera's pictures go to the viewer: the packets as they are, wherever that shows the right frames.

A viewer that is given packets one by one takes them for pictures in the order of their times. With B-frames
that order is another than the decoder's, and it shows wrong pictures without a word (Rerun 0.41, on 9 of
13 seeks). So packets go one by one only if each shows the frame after the one before it. All others go as
MP4, whose index tells both orders. Neither is transcoded; frames are compressed only where the source has no
packets, or none that the viewer decodes.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import IO, Any, NamedTuple

import numpy as np

from ..schemas import Array, Packet, Stream, VideoFormat

_IN_MEMORY = 32 << 20  # bytes of packets; more lie in a temporary file
_BATCH = 4 << 20  # bytes that go to the viewer at once
_FILM = 64 << 20  # bytes of packets after which another MP4 begins, as soon as a picture allows
_LARGEST_FILM = 512 << 20
_RATE = 25  # frames per second of an MP4, whose times nobody sees: 40 ms are whole in any of its time bases
_JPEG_QUALITY = 90


class _Place(NamedTuple):
    """A packet of a spool: what it shows, and where its bytes are."""

    pts: int
    key: bool
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Film:
    """An MP4 of consecutive frames.

    Attributes
    ----------
    data
        The file.
    first, count
        The frames of the stream that it is for.
    before
        Pictures that it begins with and that are no frames of the stream.
    """

    data: bytes
    first: int
    count: int
    before: int


class Spool:
    """A stream's packets, read once and kept in decode order: in memory if they are few, else on disk."""

    def __init__(self, video: VideoFormat, packets: Iterable[Packet], file: IO[bytes]) -> None:
        self.video = video
        self._file = file
        self._places: list[_Place] = []
        offset = 0
        for packet in packets:
            file.write(packet.data)
            self._places.append(_Place(packet.pts, packet.key, offset, len(packet.data)))
            offset += len(packet.data)

    def is_in_order(self, length: int) -> bool:
        """Tell whether the packets show frames 0 to ``length`` - 1, one after the other, from a key on."""
        return (
            len(self._places) == length
            and all(place.pts == i for i, place in enumerate(self._places))
            and bool(length)
            and self._places[0].key
        )

    def batches(self) -> Iterator[tuple[int, list[bytes]]]:
        """Yield runs of packets: the number of the first, and the bytes of each."""
        first, size = 0, 0
        for index, place in enumerate(self._places):
            size += place.size
            if size >= _BATCH or index + 1 == len(self._places):
                yield first, [self._bytes(place) for place in self._places[first : index + 1]]
                first, size = index + 1, 0

    def films(self, length: int) -> list[range] | None:
        """Return the runs of packets that make an MP4 each; None if they would not show all frames."""
        shown = {place.pts for place in self._places}
        whole = len(shown) == len(self._places) and all(frame in shown for frame in range(length))
        if not whole or not self._places[0].key:
            return None
        cuts = [0]
        for index in self._closed_keys():
            if index and self._size(range(cuts[-1], index)) >= _FILM:
                cuts.append(index)
        parts = [range(a, b) for a, b in zip(cuts, [*cuts[1:], len(self._places)], strict=True)]
        return parts if all(self._size(part) <= _LARGEST_FILM for part in parts) else None

    def _closed_keys(self) -> Iterator[int]:
        """Yield the key packets after which no picture is shown earlier, nor before which one later."""
        pts = np.array([place.pts for place in self._places])
        latest_before = np.maximum.accumulate(np.concatenate([[np.iinfo(np.int64).min], pts[:-1]]))
        earliest_from = np.minimum.accumulate(pts[::-1])[::-1]
        for index, place in enumerate(self._places):
            if place.key and latest_before[index] < place.pts <= earliest_from[index]:
                yield index

    def _size(self, part: range) -> int:
        last = self._places[part.stop - 1]
        return last.offset + last.size - self._places[part.start].offset

    def film(self, part: range, length: int) -> Film:
        """Return the MP4 of a run of packets that `films` gave."""
        places = self._places[part.start : part.stop]
        order = sorted(place.pts for place in places)
        wanted = [pts for pts in order if 0 <= pts < length]
        slot = {pts: number for number, pts in enumerate(order)}
        packets = ((self._bytes(place), slot[place.pts], place.key) for place in places)
        late = max(index - slot[place.pts] for index, place in enumerate(places))
        data = _mp4(self.video, packets, late)
        return Film(data, wanted[0], len(wanted), slot[wanted[0]])

    def _bytes(self, place: _Place) -> bytes:
        self._file.seek(place.offset)
        return self._file.read(place.size)


@contextmanager
def spooled(stream: Stream) -> Iterator[Spool | None]:
    """Give the packets of a camera, or None where it has none that a viewer decodes."""
    packets = stream.packets
    if packets is None or packets.format.pixel_format not in {"yuv420p", "yuv422p", "yuv444p", "gray"}:
        yield None  # Rerun's decoders give no RGB
        return
    with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY) as file:
        yield Spool(packets.format, packets.read(), file)


def _mp4(video: VideoFormat, packets: Iterable[tuple[bytes, int, bool]], late: int) -> bytes:
    """Return packets as an MP4; each comes as its bytes, the place it is shown in, and whether it is a key.

    ``late`` is how many places a picture comes later in decode order than in the order of display.
    """
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as output:
        size: Any = {"width": video.width, "height": video.height}
        track = output.add_mux_stream(video.codec, _RATE, **size)
        for index, (data, slot, key) in enumerate(packets):
            packet: Any = av.Packet(data)
            packet.stream, packet.time_base = track, Fraction(1, _RATE)
            packet.dts, packet.pts, packet.duration = index, slot + late, 1
            packet.is_keyframe = key
            output.mux(packet)
    return file.getvalue()


def jpeg(frame: Array, size: tuple[int, int] | None = None) -> bytes:
    """Return a frame (H, W, 3) or (H, W, 1), uint8, as JPEG; scaled to fit into ``size``, if any."""
    from PIL import Image

    plane: Any = frame[..., 0] if frame.ndim == 3 and frame.shape[2] == 1 else frame
    image = Image.fromarray(np.ascontiguousarray(plane))
    if size is not None:
        image.thumbnail(size)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=_JPEG_QUALITY)
    return file.getvalue()


def jpegs(stream: Stream) -> Iterator[Sequence[bytes]]:
    """Yield the frames of a camera as JPEG, a block at a time."""
    for block in stream:
        yield [jpeg(frame) for frame in block]
