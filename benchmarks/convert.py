"""Frames per CPU second that go into a store, compared with LeRobot's writer and with the bare encoder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import zarr
from av.video.reformatter import VideoReformatter
from teleopen.hub import Store, WriteOptions, create_store

from .corpus import Bench
from .lerobot import lerobot_writer
from .measure import Pixels, Samples, interleaved_jobs
from .report import Aim, Row, Table
from .sample import CAMERAS

_EPISODES = 10
_BARE_EPISODES = 3
_QUICK_EPISODES = 3
_OURS, _BARE = "Store.write, train", "bare x264"
_LEROBOT, _STREAMING = "LeRobot writer", "LeRobot writer, streaming_encoding"


def table(bench: Bench) -> Table:
    """Measure writing frames that are in memory."""
    episodes = _QUICK_EPISODES if bench.quick else _EPISODES
    found = Table(
        "convert: frames per CPU second",
        notes=[
            f"The recording (2 cameras of 96 frames) {episodes} times, its frames in memory, written with",
            "the default options. The trial that chooses CRF is included, and all measuring of quality.",
            "CPU time of all threads and child processes. Ratio: ours / theirs.",
            "LeRobot: lerobot's own LeRobotDataset (SVT-AV1 g=2 crf 30 preset 12, PNGs staged), one episode.",
            f"Bare x264: the frames of {_BARE_EPISODES} episodes in GOPs of the store's length, converted",
            "from RGB and encoded with the settings and CRF that the store records, in as many threads.",
        ],
    )
    per_episode = len(CAMERAS) * len(bench.clips[CAMERAS[0]])
    encoder = _BareEncoder(bench, _write(bench, 1, WriteOptions()))
    jobs: dict[str, Any] = {
        _OURS: (lambda _: _write(bench, episodes, WriteOptions()), episodes * per_episode),
        _BARE: (lambda _: encoder.run(_BARE_EPISODES), _BARE_EPISODES * per_episode),
    }
    if writer := lerobot_writer(bench, found.absent):
        jobs[_LEROBOT] = (lambda _: writer.write(1), per_episode)
        jobs[_STREAMING] = (lambda _: writer.write(1, streaming=True), per_episode)
    samples = interleaved_jobs(jobs, 1 if bench.quick else 3)
    aims = {_LEROBOT: Aim(">=", 6), _BARE: Aim(">=", 0.85), _STREAMING: None}
    found.rows += [_row(samples, name, aim) for name, aim in aims.items() if name in samples]
    return found


def _row(samples: Samples, theirs: str, aim: Aim | None) -> Row:
    return Row(
        what=_OURS,
        figure=f"{1 / samples.median(_OURS):.1f} frames/s",
        peer=theirs,
        peer_figure=f"{1 / samples.median(theirs):.1f} frames/s",
        ratio=samples.ratio(theirs, _OURS),
        aim=aim,
    )


def _write(bench: Bench, episodes: int, options: WriteOptions) -> Store:
    store = create_store(bench.new_folder(), author="benchmarks")
    store.write(bench.episodes(episodes), options)
    return store


class _BareEncoder:
    """The encoder alone, with what a store says of how it was encoded."""

    def __init__(self, bench: Bench, store: Store) -> None:
        self.bench = bench
        self.recorded = {camera: _recorded(store, camera) for camera in CAMERAS}
        array, _, _ = store.array("0", f"observation.images.{CAMERAS[0]}")
        self.slots = array.layout.chunk

    def run(self, episodes: int) -> None:
        """Encode the recording ``episodes`` times."""
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            list(pool.map(lambda work: self._encode(*work), self._gops(episodes)))

    def _gops(self, episodes: int) -> Iterator[tuple[str, Pixels]]:
        for _ in range(episodes):
            for camera in CAMERAS:
                frames = self.bench.clips[camera]
                for at in range(0, len(frames), self.slots):
                    yield camera, frames[at : at + self.slots]

    def _encode(self, camera: str, frames: Pixels) -> int:
        told = self.recorded[camera]
        context: Any = av.VideoCodecContext.create(told["encoder"], "w")
        context.height, context.width = frames.shape[1:3]
        context.pix_fmt, context.thread_count, context.gop_size = "yuv420p", 1, len(frames)
        context.time_base, context.framerate = Fraction(1, 30), Fraction(30)
        context.options = {**told["settings"], "crf": f"{told['crf']:g}"}
        scaler, packets = VideoReformatter(), []
        for index, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, "rgb24")
            picture = scaler.reformat(picture, format="yuv420p", threads=1)
            picture.pts = index
            packets += context.encode(picture)
        return len(packets + context.encode(None))


def _recorded(store: Store, camera: str) -> dict[str, Any]:
    array, _, _ = store.array("0", f"observation.images.{camera}")
    path = store.storage.local(array.key)
    assert isinstance(path, Path)
    attributes: Any = zarr.open_array(path, mode="r", zarr_format=3).attrs["teleopen"]
    told: dict[str, Any] = attributes["encodings"][0]
    return told
