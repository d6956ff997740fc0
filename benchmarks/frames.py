"""Random frames out of a store, compared with MP4 files, JPEGs and the bare decoder."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from PIL import Image
from teleopen.hub import WriteOptions
from teleopen.hub.gop import Entry, runs, unpack

from .corpus import Bench, StoredCamera, spread
from .measure import Pixels, Samples, interleaved, psnr
from .mp4 import LerobotMp4, SeekingReader
from .peers import peer
from .report import Aim, Row, Table
from .sample import CAMERAS

_TORCHCODEC = "LeRobot MP4, torchcodec"
_PYAV = "LeRobot MP4, PyAV seek"
_SIMPLEJPEG = "JPEG, simplejpeg"
_PILLOW = "JPEG, Pillow"
_BARE = "bare libavcodec"
_CLOSE_DB = 0.3
_VISITS = 4
"""Windows that a shuffling loader draws from a chunk that it has read."""

_AIMS = {_TORCHCODEC: Aim("<=", 0.75), _BARE: Aim("<=", 1.3)}
_Work = Callable[[int], object]


@dataclass(frozen=True, slots=True)
class _Case:
    """One camera in one store, and the peers' forms of the same frames."""

    name: str
    stored: StoredCamera
    truth: Pixels
    mp4: LerobotMp4
    jpegs: list[bytes]


def table(bench: Bench) -> Table:
    """Measure single frames, windows of two, and windows drawn several to a chunk."""
    found = Table(
        "frames: CPU time of random access",
        notes=[
            "CPU time of a window in ms; draws are spread evenly over the clip and the same for all.",
            "Ratio: ours / theirs. All give RGB in uint8, with one thread.",
            "LeRobot MP4: SVT-AV1 g=2 crf 30 preset 12 yuv420p; the decoder is kept open.",
            "JPEG: 4:2:0, of the quality whose PSNR is nearest to the store's.",
            "Bare libavcodec: the packets that are needed, in memory already, fed to an open decoder, and",
            "swscale for the frames that are wanted.",
            f"Stores aim at the default of {WriteOptions().quality_db:g} dB unless said otherwise.",
            "",
        ],
    )
    for case in _cases(bench, found.notes):
        _measure(case, bench, found)
    return found


def _cases(bench: Bench, notes: list[str]) -> Iterator[_Case]:
    for camera in CAMERAS:
        truth = bench.clips[camera]
        mp4 = LerobotMp4(truth, bench.new_folder())
        goal = psnr(truth, mp4.decoded)
        notes.append(f"- {camera}: LeRobot's MP4 has {goal:.1f} dB.")
        seen: set[bytes] = set()
        for name, options in _choices(bench, goal).items():
            stored = bench.stored(camera, options)
            first, video = stored.array.chunk(0), stored.array.layout.video
            if first in seen:
                notes.append(f"- {camera}, {name}: the same bytes as above.")
                continue
            seen.add(first)
            reached = psnr(truth, stored.frames(0, len(truth)))
            jpegs, quality = _jpegs_near(truth, reached)
            codec = video.codec if video else ""
            notes.append(f"- {camera}, {name}: {codec}, {reached:.1f} dB; JPEG quality {quality}.")
            yield _Case(f"{camera}, {name}", stored, truth, mp4, jpegs)


def _choices(bench: Bench, goal: float) -> dict[str, WriteOptions]:
    """Return the stores to measure, by name."""
    found = {"train": WriteOptions(), "auto": WriteOptions(profile="auto")}
    if not bench.quick and abs(goal - WriteOptions().quality_db) > _CLOSE_DB:
        found["train at the MP4's dB"] = WriteOptions(quality_db=round(goal, 1))
        found["auto at the MP4's dB"] = WriteOptions(profile="auto", quality_db=round(goal, 1))
    return found


def _measure(case: _Case, bench: Bench, found: Table) -> None:
    rng = np.random.default_rng(0)
    rounds, draws = (5, 6) if bench.quick else (31, 8)
    for count in (1, 2):
        contenders = _contenders(case, count, found.absent)
        places = len(case.truth) - count + 1
        samples = interleaved(contenders, [spread(rng, places, draws).tolist() for _ in range(rounds)])
        found.rows += _rows(case.name, count, samples)
    _measure_visits(case, rounds, rng, found)


def _contenders(case: _Case, count: int, absent: list[str]) -> dict[str, _Work]:
    out = np.empty((count, *case.truth.shape[1:]), np.uint8)
    stream = case.stored.store.episode("0").streams[case.stored.array.key.rpartition("/")[2]]
    bare, seeking = _Bare(case.stored), SeekingReader(case.mp4.path)
    found: dict[str, _Work] = {
        "ArrayReader.frames": lambda at: case.stored.frames(at, count, out),
        "Stream.values": lambda at: stream.values(at, at + count),
        _BARE: lambda at: bare.decode(at, count),
        _PYAV: lambda at: seeking.frames(at, count),
        _PILLOW: lambda at: [np.asarray(Image.open(io.BytesIO(j))) for j in case.jpegs[at : at + count]],
    }
    if codec := peer("torchcodec", absent):
        decoder = codec.VideoDecoder(str(case.mp4.path), seek_mode="approximate")
        found[_TORCHCODEC] = lambda at: decoder.get_frames_at(list(range(at, at + count))).data
    if simplejpeg := peer("simplejpeg", absent):
        found[_SIMPLEJPEG] = lambda at: _decode_jpegs(simplejpeg, case.jpegs[at : at + count], out)
    return found


def _rows(name: str, count: int, samples: Samples) -> Iterator[Row]:
    what = "1 frame" if count == 1 else f"{count} frames"
    for peer_name in (_TORCHCODEC, _PYAV, _SIMPLEJPEG, _PILLOW, _BARE):
        if peer_name in samples:
            yield _row(f"{name}: {what}", samples, "ArrayReader.frames", peer_name, _AIMS.get(peer_name))
    if count == 2:
        yield _row(f"{name}: {what}, Stream.values", samples, "Stream.values", "ArrayReader.frames")


def _row(what: str, samples: Samples, ours: str, theirs: str, aim: Aim | None = None) -> Row:
    return Row(
        what=what,
        figure=f"{samples.median(ours) * 1e3:.2f} ms",
        peer=theirs,
        peer_figure=f"{samples.median(theirs) * 1e3:.2f} ms",
        ratio=samples.ratio(ours, theirs),
        aim=aim,
    )


def _measure_visits(case: _Case, rounds: int, rng: np.random.Generator, found: Table) -> None:
    """Measure what a window of two frames costs if several are drawn from each chunk that is read."""
    size = case.stored.array.layout.chunk
    chunks = len(case.truth) // size
    out = np.empty((2 * _VISITS, *case.truth.shape[1:]), np.uint8)
    simplejpeg = peer("simplejpeg", found.absent)

    def ours(windows: list[int]) -> None:
        wanted = np.unique(np.add.outer(windows, [0, 1]))
        case.stored.array.frames(case.stored.start + wanted, out[: len(wanted)])

    def jpeg(windows: list[int]) -> None:
        for at in windows:
            _decode_jpegs(simplejpeg, case.jpegs[at : at + 2], out)

    def draw(turn: int) -> list[list[int]]:
        first = turn % chunks * size
        return [(first + spread(rng, size - 1, _VISITS)).tolist() for _ in range(3)]

    work: Mapping[str, Callable[[list[int]], object]] = {"union": ours}
    if simplejpeg:
        work = {**work, _SIMPLEJPEG: jpeg}
    samples = interleaved(work, [draw(turn) for turn in range(rounds)])
    for figures in samples.seconds.values():
        figures[:] = [figure / _VISITS for figure in figures]
    what = f"{case.name}: 2 frames, {_VISITS} windows a chunk"
    if simplejpeg:
        found.rows.append(_row(what, samples, "union", _SIMPLEJPEG, Aim("<=", 1.0)))
    else:
        found.rows.append(Row(what=what, figure=f"{samples.median('union') * 1e3:.2f} ms"))


class _Bare:
    """The decoder alone: no file, no table, no checks, no copy into a batch."""

    def __init__(self, stored: StoredCamera) -> None:
        video, self.size = stored.array.layout.video, stored.array.layout.chunk
        assert video is not None
        chunks = range(stored.start // self.size, -(-(stored.start + stored.length) // self.size))
        self.packets = [unpack(stored.array.chunk(chunk)).packets for chunk in chunks]
        name = {"av1": "libdav1d"}.get(video.codec, video.codec)
        self.context: Any = av.VideoCodecContext.create(name, "r")
        self.context.thread_count = 1
        self.scaler = VideoReformatter()
        self.plans: dict[tuple[int, int], list[tuple[list[Entry], set[int]]]] = {}

    def decode(self, first: int, count: int) -> None:
        """Decode frames and convert them."""
        for run, wanted in self._plan(first, count):
            for entry in run:
                packet: av.Packet[Any] = av.Packet(entry.data)  # type: ignore[arg-type] # any buffer, says its source
                packet.pts = packet.dts = entry.pts
                self._show(self.context.decode(packet), wanted)
            self._show(self.context.decode(None), wanted)
            self.context.flush_buffers()

    def _show(self, frames: list[av.VideoFrame], wanted: set[int]) -> None:
        for frame in frames:
            if frame.pts in wanted:
                self.scaler.reformat(frame, format="rgb24", threads=1)

    def _plan(self, first: int, count: int) -> list[tuple[list[Entry], set[int]]]:
        """Return the packets to feed, and the frames to convert. Made once: it is not to be timed."""
        if (first, count) not in self.plans:
            wanted: dict[int, set[int]] = {}
            for at in range(first, first + count):
                wanted.setdefault(at // self.size, set()).add(at % self.size)
            self.plans[first, count] = [
                (run, slots) for chunk, slots in wanted.items() for run in runs(self.packets[chunk], slots)
            ]
        return self.plans[first, count]


def _decode_jpegs(simplejpeg: Any, jpegs: list[bytes], out: Pixels) -> None:
    for jpeg, place in zip(jpegs, out, strict=False):
        simplejpeg.decode_jpeg(jpeg, buffer=place)


def _jpegs_near(truth: Pixels, wanted_db: float) -> tuple[list[bytes], int]:
    """Return the frames as JPEGs of the quality whose PSNR is nearest to the one wanted."""
    some = truth[:: max(1, len(truth) // 8)]

    def reached(quality: int) -> float:
        return psnr(some, np.stack([np.asarray(Image.open(io.BytesIO(_jpeg(f, quality)))) for f in some]))

    low, high = 30, 98
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if reached(middle) < wanted_db else (low, middle)
    best = min((low, high), key=lambda quality: abs(reached(quality) - wanted_db))
    return [_jpeg(frame, best) for frame in truth], best


def _jpeg(frame: Pixels, quality: int) -> bytes:
    data = io.BytesIO()
    Image.fromarray(frame).save(data, "JPEG", quality=quality, subsampling="4:2:0")
    return data.getvalue()
