"""Trajectories of robodm (formerly fog_x): one Matroska file, whose packets are pickles but for video.

Field notes (github.com/BerkeleyAutomation/robodm: robodm/trajectory.py, robodm/backend/pyav_backend.py and
codecs.py, robodm/feature.py).

- Each feature is a track, with its name and type in the tags ``FEATURE_NAME`` and ``FEATURE_TYPE``. Pictures
  are H.264, H.265, AV1 or FFV1; all else claims to be raw video, and each packet is a pickle of one value:
  an array, a scalar, a text or a list. robodm loads them as they are, and evaluates the type's text as
  Python. Here they are read by `_pickled`, the type is not read at all, and everything happens in a confined
  process. Packets of several values (codec ``rawvideo_pyarrow``) are refused.
- Values belong together by their position, which is how robodm loads them. The tracks' times cannot say so:
  each value is put one millisecond behind the one written before it, and when a file is transcoded at its
  end, pictures get times of another unit (in a file of 60 pictures, 34 stood at 6.7 hours). So tracks of one
  length share a clock, whose times are those of the first track that is no video; pictures are decoded, and
  not passed on.
- There is no episode but the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..schemas import ActionContract, Array, Episode, Event, FormatError, StreamSpec, Times
from ._confined import episodes
from ._draft import Draft, stream_name
from ._pickled import unpickled
from .base import Format, rows_in, source_file

if TYPE_CHECKING:
    import av

VERSION = "1"

_EBML = b"\x1a\x45\xdf\xa3"
_SEGMENT = b"\x18\x53\x80\x67"
_TAG = b"FEATURE_NAME"
_LOOKED_AT = 1 << 20
_MAX_PIXELS = 64_000_000
_MAX_TRACKS = 1_000
_MAX_PACKETS = 4_000_000
_MAX_TEXTS = 100_000
_VIDEO = frozenset({"av1", "ffv1", "h264", "hevc"})
_HOMES = {
    "observation": "observation",
    "observations": "observation",
    "action": "action",
    "actions": "action",
}


@dataclass(frozen=True)
class RobodmVla:
    """A ``.vla`` file of robodm, which is one episode.

    Attributes
    ----------
    block_bytes
        Most payload bytes of a block.
    rate_hz
        Steps per second, for a file of nothing but video without usable times.
    """

    format: ClassVar[Format] = Format(
        name="robodm-vla",
        title="robodm",
        suffixes=(".vla",),
        spec="https://github.com/BerkeleyAutomation/robodm: robodm/trajectory.py",
    )
    block_bytes: int = 1 << 20
    rate_hz: float | None = None

    def probe(self, path: Path) -> bool:
        """Tell whether ``path`` is Matroska with the tags of robodm near its beginning."""
        try:
            with path.open("rb") as file:
                return file.read(4) == _EBML and _TAG in file.read(_LOOKED_AT)
        except OSError:
            return False

    def episodes(self, path: Path) -> Iterator[Episode]:
        """Yield the episode, read in a confined process."""
        return episodes(self, path)

    def unconfined(self, path: Path) -> Iterator[Episode]:
        """Do what `episodes` promises, in this process."""
        draft = Draft(path)
        end, size = _segment_end(path), path.stat().st_size
        if end is None:
            draft.warn("the file was never closed by its writer: the last of its values may be missing")
        elif end > size:
            draft.refuse("Segment", f"lacks the last {end - size:,} of its bytes", "The file was cut off")
        tracks = _tracks(path)
        _clocks(self, draft, tracks)
        for track in tracks:
            _add(self, draft, track)
        if not draft.streams:
            draft.refuse("", "holds no values of any feature")
        yield draft.build(self, [source_file(path, path)], version=VERSION)


CONVERTER = RobodmVla


@dataclass(slots=True)
class _Track:
    """One feature: a track of the file, and where its packets stand in time."""

    path: Path
    index: int
    name: str
    codec: str
    pts: list[int] = field(default_factory=list)
    clock: str = "steps"
    first: Any = None

    @property
    def video(self) -> bool:
        return self.codec != "rawvideo"


def _segment_end(path: Path) -> int | None:
    """Return the byte at which a Matroska file says that it ends; None if it does not say.

    The segment follows the header (RFC 9559, section 4.5; sizes: RFC 8794, section 6). Its size stands as
    unknown until the writer closes the file.
    """
    with path.open("rb") as file:
        for name in (_EBML, _SEGMENT):
            if file.read(len(name)) != name:
                raise FormatError(str(path), f"byte {file.tell()}", "is no Matroska file")
            first = file.read(1)
            extra = 8 - first[0].bit_length() if first and first[0] else 0
            size = int.from_bytes(first + file.read(extra)) & ((1 << 7 * (extra + 1)) - 1)
            if name == _SEGMENT:
                return None if size == (1 << 7 * (extra + 1)) - 1 else file.tell() + size
            file.seek(size, 1)
    return None


@contextmanager
def _opened(path: Path) -> Iterator[av.container.InputContainer]:
    """Open a Matroska file and nothing else."""
    import av

    options = {"protocol_whitelist": "file", "max_pixels": str(_MAX_PIXELS)}
    try:
        with av.open(f"file:{path.resolve()}", format="matroska", options=options) as container:
            yield container
    except (av.FFmpegError, ValueError) as error:
        raise FormatError(str(path), "", f"is no readable Matroska file: {error}") from error


def _tracks(path: Path) -> list[_Track]:
    """Return the features of a file, with their packets' times and first values, in one pass."""
    with _opened(path) as container:
        if len(container.streams) > _MAX_TRACKS:
            raise FormatError(str(path), "Tracks", f"holds {len(container.streams)} tracks")
        tracks = {}
        for stream in container.streams.video:
            name, context = stream.metadata.get("FEATURE_NAME", ""), stream.codec_context
            codec = context.codec.canonical_name if context else "unknown"
            if codec != "rawvideo" and codec not in _VIDEO:
                raise FormatError(
                    str(path), f"track {stream.index}", f"is {codec}, which robodm does not write"
                )
            tracks[stream.index] = _Track(path, stream.index, name, codec)
        for number, packet in enumerate(container.demux(list(container.streams.video))):
            if number >= _MAX_PACKETS:
                raise FormatError(str(path), f"packet {number}", f"only {_MAX_PACKETS:,} packets are read")
            track = tracks[packet.stream_index]
            if not packet.size:  # a placeholder, or the end
                continue
            if not track.video and not track.pts:
                track.first = _value(track, bytes(packet), 0)
            base = float(packet.time_base or 0)
            track.pts.append(round((packet.pts or 0) * base * 1e9))
        return list(tracks.values())


def _clocks(converter: RobodmVla, draft: Draft, tracks: list[_Track]) -> None:
    """Put tracks on clocks: one for those of the first one's length, and one each for the others."""
    filled = [track for track in tracks if track.pts]
    if not filled:
        draft.refuse("", "holds no packets")
    main = next((track for track in filled if not track.video), filled[0])
    times = _times(main)
    if main.video and len(np.unique(times)) < len(times):
        if converter.rate_hz is None:
            draft.refuse(main.name, "has no times of its pictures", "Say their rate: option rate_hz")
        draft.nominal("steps", len(times), converter.rate_hz, "nominal, from the option rate_hz")
    else:
        draft.recorded("steps", times, f"the packets of {main.name}, in milliseconds", field=main.name)
    for track in filled:
        if len(track.pts) != len(main.pts):
            track.clock = stream_name(track.name.replace("/", "_")).replace(".", "_")
            times = _times(track)
            draft.recorded(track.clock, times, f"the packets of {track.name}", field=track.name)
            draft.warn(f"{track.name} has {len(track.pts)} values, and {main.name} {len(main.pts)}")


def _times(track: _Track) -> Times:
    times: Times = np.array(track.pts, np.int64) - track.pts[0]
    return times


def _add(converter: RobodmVla, draft: Draft, track: _Track) -> None:
    source = track.name or f"track {track.index}"
    if not track.name or not track.pts:
        draft.drop(
            source, "has no packets" if track.name else "has no FEATURE_NAME, and is skipped by robodm"
        )
        return
    if track.video:
        spec = _spec(track, _size(track), "uint8")
        draft.add(spec, len(track.pts), partial(_pictures, track, spec, converter.block_bytes), source=source)
    elif isinstance(track.first, str):
        _texts(draft, track)
    else:
        like = _number(track, track.first, 0)
        spec = _spec(track, like.shape, like.dtype.name)
        draft.add(spec, len(track.pts), partial(_values, track, spec, converter.block_bytes), source=source)


def _spec(track: _Track, shape: tuple[int, ...], dtype: str) -> StreamSpec:
    home, *rest = track.name.split("/")
    known = _HOMES.get(home)
    name = stream_name(known, *rest) if known else stream_name("extra", home, *rest)
    picture = dtype == "uint8" and len(shape) == 3 and shape[2] in {1, 3}
    return StreamSpec(
        name=name,
        kind="video" if picture else "low_dim",
        dtype=dtype,
        shape=shape,
        unit=("1",) if picture else ("unknown",),
        frame=None if picture else "unknown",
        clock=track.clock,
        contract=ActionContract() if known == "action" else None,
    )


def _stream(container: av.container.InputContainer, track: _Track) -> av.VideoStream:
    return next(stream for stream in container.streams.video if stream.index == track.index)


def _packets(track: _Track) -> Iterator[bytes]:
    with _opened(track.path) as container:
        for packet in container.demux(_stream(container, track)):
            if packet.size:
                yield bytes(packet)


def _value(track: _Track, data: bytes, number: int) -> Any:
    where = f"{track.name or track.index}: packet {number}"
    if data.startswith(b"PAR1"):
        advice = "Write it anew with the codec rawvideo_pickle"
        raise FormatError(
            str(track.path), where, "holds a table of several values (rawvideo_pyarrow)", advice
        )
    return unpickled(data, path=track.path, where=where)


def _number(track: _Track, value: Any, number: int) -> Array:
    """Return a value as an array, if it is made of numbers."""
    try:
        found = np.asarray(value)
    except ValueError:
        found = np.empty(0, object)
    if found.dtype.kind not in "biuf" or 0 in found.shape:
        where = f"{track.name}: packet {number}"
        raise FormatError(
            str(track.path), where, f"holds {type(value).__name__}, which is neither numbers nor text"
        )
    return found


def _values(track: _Track, spec: StreamSpec, block_bytes: int, start: int, stop: int) -> Iterator[Array]:
    rows = rows_in(block_bytes, spec)
    block: list[Array] = []
    for number, data in enumerate(_packets(track)):
        if number >= stop:
            break
        if number < start:
            continue
        found = _number(track, _value(track, data, number), number)
        if (found.shape, found.dtype.name) != (spec.shape, spec.dtype):
            where = f"{track.name}: packet {number}"
            why = f"holds {found.dtype} {found.shape}; the first is {spec.dtype} {spec.shape}"
            raise FormatError(str(track.path), where, why)
        block.append(found.astype(spec.np_dtype))
        if len(block) == rows:
            yield np.stack(block)
            block = []
    if block:
        yield np.stack(block)


def _size(track: _Track) -> tuple[int, int, int]:
    with _opened(track.path) as container:
        context = _stream(container, track).codec_context
        height, width = context.height, context.width
    if not 0 < height * width <= _MAX_PIXELS:
        raise FormatError(str(track.path), track.name, f"claims pictures of {width}×{height}")
    return height, width, 3


def _pictures(track: _Track, spec: StreamSpec, block_bytes: int, start: int, stop: int) -> Iterator[Array]:
    rows = rows_in(block_bytes, spec)
    block: list[Array] = []
    shown = 0
    for number, frame in enumerate(_decoded(track)):
        if number >= stop:
            break
        shown = number + 1
        if number < start:
            continue
        # As robodm does: FFmpeg's default matrix, which is also what it encoded with.
        picture = frame.to_ndarray(format="rgb24")
        if frame.is_corrupt or picture.shape != spec.shape:
            where = f"{track.name}: picture {number}"
            raise FormatError(str(track.path), where, "is damaged, or of another size than the others")
        block.append(picture)
        if len(block) == rows:
            yield np.stack(block)
            block = []
    if block:
        yield np.stack(block)
    if shown < stop:
        raise FormatError(str(track.path), f"{track.name}: picture {shown}", "cannot be decoded")


def _decoded(track: _Track) -> Iterator[av.VideoFrame]:
    with _opened(track.path) as container:
        stream = _stream(container, track)
        stream.codec_context.thread_count = 1
        for packet in container.demux(stream):
            yield from packet.decode()


def _texts(draft: Draft, track: _Track) -> None:
    """Take a track of texts: what the robot was asked to do, or events wherever the text changes."""
    times = draft.clocks[track.clock].read()
    changes: list[tuple[int, str]] = []
    for number, data in enumerate(_packets(track)):
        text = _value(track, data, number)
        if not isinstance(text, str):
            draft.refuse(f"{track.name}: packet {number}", "holds no text, where the first did")
        if not changes or changes[-1][1] != text:
            changes.append((number, text))
        if len(changes) > _MAX_TEXTS:
            draft.refuse(track.name, "changes too often to be a text about the episode")
    last = track.name.rpartition("/")[2]
    asked = "instruction" in last or "language" in last
    if asked and all(draft.instruct(text) for _, text in changes):
        if len(changes) == 1:
            draft.account(track.name, "renamed", ["instructions"])
            return
    elif len(changes) == 1:
        draft.tell(track.name, changes[0][1], "robodm")
        return
    ends = [number for number, _ in changes[1:]]
    for (number, text), end in zip(changes, [*ends, None], strict=True):
        stop = None if end is None else int(times[end])
        draft.events.append(
            Event(kind=last[:1_000] or "text", start_ns=int(times[number]), stop_ns=stop, text=text)
        )
    draft.account(
        track.name, "transformed", ["events", *(["instructions"] if asked else [])], "where it changes"
    )
