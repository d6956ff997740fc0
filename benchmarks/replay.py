"""An episode into a Rerun recording: packets handed over, compared with decoding and logging every frame."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from teleopen.hub import WriteOptions, create_store
from teleopen.schemas import (
    Array,
    Episode,
    Packet,
    PacketBlock,
    Packets,
    Stream,
    episode_id,
    nominal_times,
    packet_blocks,
)

from .corpus import Bench
from .measure import interleaved_jobs
from .mp4 import LEROBOT_AV1, SeekingReader, encode_mp4
from .report import Aim, Row, Table
from .sample import CAMERAS, FPS

_STEPS, _LONG_STEPS, _LONG_CAMERAS = 300, 9_000, 4
_IMAGES = "observation.images."
_SERIES = ("observation.state", "action")
_SECONDS = 3.0
_LOGGED = "every frame decoded and logged"


def table(bench: Bench) -> Table:
    """Measure recordings of a short and of a long episode."""
    found = Table(
        "replay: CPU time from an episode to a Rerun recording (.rrd)",
        notes=[
            f"{_STEPS} steps, 2 cameras of 480 × 640, 28 curves; the store is opened and read each time.",
            "The peer does as `lerobot-dataset-viz`: frames are decoded from MP4 and logged with rr.Image,",
            "each number with rr.Scalars; its DataLoader and torch are left out, in its favour.",
            "Ratios: peer / ours, of time and of bytes. Our thumbnails are included. The long episode",
            "is made of the packets of the short one, in memory.",
        ],
    )
    rounds = 1 if bench.quick else 5
    for profile in ("train", "stream"):
        _short(bench, found, profile, rounds)
    _long(bench, found, rounds)
    return found


def _short(bench: Bench, found: Table, profile: Any, rounds: int) -> None:
    store = create_store(bench.new_folder(), author="benchmarks")
    store.write([_repeated(bench, _STEPS)], WriteOptions(profile=profile))
    films = [bench.new_folder() / f"{camera}.mp4" for camera in CAMERAS]
    for camera, film in zip(CAMERAS, films, strict=True):
        encode_mp4(_cycle(bench.clips[camera], 0, _STEPS), film, "libsvtav1", LEROBOT_AV1)
    ours, theirs = bench.folder / "ours.rrd", bench.folder / "theirs.rrd"
    episode = store.episode("0")
    series = {name: episode.streams[name].values() for name in _SERIES}
    jobs = {
        "ours": (partial(_record, store.url, ours), 1),
        _LOGGED: (partial(_log_frames, films, series, theirs), 1),
    }
    for job, _ in jobs.values():
        job(-1)
    samples = interleaved_jobs(jobs, rounds)
    found.rows += [
        Row(
            what=f"a store of profile `{profile}`: time",
            figure=f"{samples.median('ours'):.3f} s",
            peer=_LOGGED,
            peer_figure=f"{samples.median(_LOGGED):.2f} s",
            ratio=samples.ratio(_LOGGED, "ours"),
            aim=Aim(">=", 20),
        ),
        Row(
            what=f"a store of profile `{profile}`: bytes",
            figure=f"{ours.stat().st_size / 1e6:.2f} MB",
            peer=_LOGGED,
            peer_figure=f"{theirs.stat().st_size / 1e6:.1f} MB",
            ratio=theirs.stat().st_size / ours.stat().st_size,
            aim=Aim(">=", 10),
        ),
    ]


def _long(bench: Bench, found: Table, rounds: int) -> None:
    from teleopen.viewer.record import write

    store = create_store(bench.new_folder(), author="benchmarks")
    store.write([_repeated(bench, 96)], WriteOptions(profile="stream"))
    path = bench.folder / "long.rrd"
    episode = _lengthened(bench, store.episode("0"))
    write(episode, path)
    samples = interleaved_jobs({"long": (lambda _: write(episode, path), 1)}, rounds)
    seconds = samples.median("long")
    found.rows.append(
        Row(
            what=f"{_LONG_STEPS:,} steps × {_LONG_CAMERAS} cameras",
            figure=f"{seconds:.2f} s, {path.stat().st_size / 1e6:.0f} MB",
            peer=f"at most {_SECONDS:g} s",
            peer_figure=f"{_SECONDS:g} s",
            ratio=_SECONDS / seconds,
            aim=Aim(">=", 1),
        )
    )


def _record(url: str, path: Path, _turn: int) -> None:
    from teleopen.hub import open_store
    from teleopen.viewer.record import write

    write(open_store(url).episode("0"), path)


def _log_frames(films: Sequence[Path], series: dict[str, Array], path: Path, _turn: int) -> None:
    """Log every frame and every number by itself."""
    from teleopen.viewer.rerun import rr, saved

    with saved(path, "peer", "peer") as sink:
        cameras = [SeekingReader(film).frames(0, _STEPS) for film in films]
        for step in range(_STEPS):
            sink.set_time("frame_index", sequence=step)
            sink.set_time("timestamp", duration=step / FPS)
            for camera, frames in zip(CAMERAS, cameras, strict=True):
                sink.log(f"{_IMAGES}{camera}", rr.Image(frames[step]))
            for name, values in series.items():
                for axis, value in enumerate(values[step]):
                    sink.log(f"{name}/{axis}", rr.Scalars(float(value)))


def _repeated(bench: Bench, steps: int) -> Episode:
    """Return the recording again and again, with so many steps."""
    (episode,) = bench.episodes(1)
    names = (*_SERIES, *(_IMAGES + camera for camera in CAMERAS))
    streams = {
        name: replace(episode.streams[name], length=steps, read=partial(_blocks, bench.streams[name]))
        for name in names
    }
    return _of_length(replace(episode, id=episode_id([], f"replay {steps}"), streams=streams), steps)


def _of_length(episode: Episode, steps: int) -> Episode:
    (name,) = {stream.spec.clock for stream in episode.streams.values()}
    clock = replace(episode.clocks[name], length=steps, read=partial(nominal_times, steps, FPS))
    return replace(episode, clocks={name: clock}, events=())


def _cycle(values: Array, start: int, stop: int) -> Array:
    return np.take(values, np.arange(start, stop) % len(values), axis=0)


def _blocks(values: Array, start: int, stop: int) -> Iterator[Array]:
    for at in range(start, stop, 32):
        yield _cycle(values, at, min(stop, at + 32))


def _lengthened(bench: Bench, episode: Episode) -> Episode:
    """Return a long episode of the packets and values of a short one."""
    streams = {
        name: replace(episode.streams[name], length=_LONG_STEPS, read=partial(_blocks, bench.streams[name]))
        for name in _SERIES
    }
    for number in range(_LONG_CAMERAS):
        camera = CAMERAS[number % len(CAMERAS)]
        model = episode.streams[_IMAGES + camera]
        if model.packets is None:
            raise ValueError(f"{model.spec.name} has no packets")
        name = f"{_IMAGES}camera_{number}"
        packets = Packets(format=model.packets.format, blocks=partial(_again, list(model.packets.read())))
        streams[name] = Stream(
            spec=replace(model.spec, name=name),
            length=_LONG_STEPS,
            read=partial(_blocks, bench.clips[camera]),
            packets=packets,
        )
    return _of_length(replace(episode, streams=streams), _LONG_STEPS)


def _again(packets: Sequence[Packet]) -> Iterator[PacketBlock]:
    turns = (packets[index % len(packets)] for index in range(_LONG_STEPS))
    return packet_blocks(replace(packet, pts=index) for index, packet in enumerate(turns))
