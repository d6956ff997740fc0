"""MP4 sources into a store: packets taken as they are, compared with encoding them anew."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from teleopen.converters.lerobot_v3 import LerobotV3
from teleopen.hub import WriteOptions, create_store
from teleopen.schemas import Episode

from .corpus import Bench
from .lerobot import make_dataset
from .measure import interleaved_jobs
from .mp4 import LEROBOT_AV1, LONG_GOP_H264
from .report import Aim, Row, Table
from .sample import CAMERAS

_SOURCES = {
    "AV1 g=2 (LeRobot's default)": ("libsvtav1", LEROBOT_AV1),
    "H.264 g=250 with B-frames": ("libx264", LONG_GOP_H264),
}


def table(bench: Bench) -> Table:
    """Measure the LeRobot converter and the store's writer together."""
    episodes = 1 if bench.quick else 3
    frames = episodes * len(CAMERAS) * len(bench.clips[CAMERAS[0]])
    found = Table(
        "remux: CPU time from a LeRobot v3.0 dataset into a store",
        notes=[
            f"{frames} frames of {episodes} episode(s), one MP4 per camera. Hashes of the sources, states,",
            "documents and the commit are included. Ratio: with transcode=True / without.",
            "Copying is reading, writing and fsync. A store also tells the SHA-256 of the sources, of what",
            "went in, and of its files; the last row is of copying with as many hashes.",
        ],
    )
    for name, (encoder, options) in _SOURCES.items():
        source = bench.new_folder() / "dataset"
        make_dataset(bench, source, encoder, options, episodes)
        jobs = {
            "as they are": (partial(_convert, bench, source, WriteOptions()), frames),
            "anew": (partial(_convert, bench, source, WriteOptions(transcode=True)), frames),
        }
        samples = interleaved_jobs(jobs, 1 if bench.quick else 3)
        found.rows.append(
            Row(
                what=f"{name}: packets as they are",
                figure=f"{samples.median('as they are') * 1e3:.3f} ms/frame",
                peer="transcode=True",
                peer_figure=f"{samples.median('anew') * 1e3:.2f} ms/frame",
                ratio=samples.ratio("anew", "as they are"),
                aim=Aim(">=", 50),
            )
        )
    found.rows += _against_copying(bench)
    return found


def _against_copying(bench: Bench) -> list[Row]:
    """Compare a dataset of a usual size with what any tool has to do: read the files and write them."""
    episodes, takes = 20, 3
    source = bench.new_folder() / "dataset"
    make_dataset(bench, source, "libx264", LONG_GOP_H264, episodes, takes)
    files = [path for path in sorted(source.rglob("*")) if path.is_file()]
    size = sum(path.stat().st_size for path in files) / 1e6

    def copy(hashes: int, _turn: int) -> None:
        for path in files:
            data = path.read_bytes()
            for _ in range(hashes):
                hashlib.sha256(data).digest()
            with (bench.new_folder() / "copy").open("wb") as target:
                target.write(data)
                target.flush()
                os.fsync(target.fileno())

    def convert(_turn: int) -> None:
        for path in files:
            os.utime(path)  # so that it looks changed
        _store(bench, source, WriteOptions())

    peers = {"copying the files": 0, "copying, SHA-256 three times": 3}
    jobs = {"ours": (convert, 1), **{name: (partial(copy, hashes), 1) for name, hashes in peers.items()}}
    samples = interleaved_jobs(jobs, 1 if bench.quick else 5)
    steps = takes * len(bench.clips[CAMERAS[0]])
    return [
        Row(
            what=f"H.264 g=250, {episodes} episodes of {steps} steps: packets as they are",
            figure=f"{size / samples.median('ours'):.0f} MB/s",
            peer=name,
            peer_figure=f"{size / samples.median(name):.0f} MB/s",
            ratio=samples.ratio(name, "ours"),
            aim=Aim(">=", 0.5),
        )
        for name in peers
    ]


def _convert(bench: Bench, source: Path, options: WriteOptions, _turn: int) -> None:
    # A copy, since indices and hashes of files that were seen are remembered.
    _store(bench, shutil.copytree(source, bench.new_folder() / "dataset"), options)


def _store(bench: Bench, source: Path, options: WriteOptions) -> None:
    episodes: Iterable[Episode] = LerobotV3().episodes(source)
    report = create_store(bench.new_folder(), author="benchmarks").write(episodes, options)
    assert report.added
