"""Reading each kind of source, compared with the library that the format's own people read it with."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import av
import h5py
import numpy as np
import pyarrow.parquet as pq
from PIL import Image
from rosbags.highlevel import AnyReader
from teleopen.converters import Converter, converter_for
from teleopen.converters.aloha_hdf5 import AlohaHdf5
from teleopen.hub import WriteOptions, create_store
from teleopen.schemas import Episode

from tests.samples._ros import LATE, START, Run, Told
from tests.samples.mcap import write_file
from tests.samples.rosbag1 import write_bag as write_bag1
from tests.samples.rosbag2 import write_bag as write_bag2

from .corpus import DATA, Bench
from .lerobot import make_dataset
from .measure import interleaved_jobs
from .mp4 import LONG_GOP_H264
from .report import Aim, Row, Table
from .sample import CAMERAS, FPS

_JOINTS = 4_000
_DATASETS = (("10 episodes of 96 steps", 10, 1), ("20 episodes of 288 steps", 20, 3))
"""What they are called, how many episodes they have, and the recording how many times in each."""

_MCAP_CHUNK = 1 << 20  # that of the library, if it is told no other
_OURS = "ours"


@dataclass(frozen=True, kw_only=True)
class _Contest:
    """One comparison: the same payload, read by the converter and by its rival.

    Attributes
    ----------
    megabytes
        Of payload, as it comes out; of the files, for what is passed on.
    frames
        Pictures among it; 0 if they are not decoded.
    """

    what: str
    peer: str
    ours: Callable[[], object]
    theirs: Callable[[], object]
    megabytes: float
    frames: int = 0
    aim: Aim


def table(bench: Bench) -> Table:
    """Measure what reading costs besides what cannot be saved."""
    found = Table(
        "formats: reading a source",
        notes=[
            "The recording (2 cameras of 96 frames) in several formats, written here. Headers, hashes of the",
            "sources and payload are read. Ratio: CPU time of the peer / ours, so 1 is the peer's speed.",
            "Into a store: against the peer's reading and writing the recording from memory, which the table",
            "`convert` compares with the bare encoder.",
            "Topics: the peer validates checksums and hashes the source too, as a converter has to.",
            "Passed on: packets and tables as they are, against reading and writing the files' bytes.",
        ],
    )
    for contest in _contests(bench):
        jobs = {
            _OURS: (lambda _, job=contest.ours: job(), 1),
            contest.peer: (lambda _, job=contest.theirs: job(), 1),
        }
        samples = interleaved_jobs(jobs, 1 if bench.quick else 5)
        found.rows.append(
            Row(
                what=contest.what,
                figure=_figure(contest, samples.median(_OURS)),
                peer=contest.peer,
                peer_figure=_figure(contest, samples.median(contest.peer)),
                ratio=samples.ratio(contest.peer, _OURS),
                aim=contest.aim,
            )
        )
    return found


def _figure(contest: _Contest, seconds: float) -> str:
    speed = f"{contest.megabytes / seconds:.0f} MB/s"
    return f"{speed}, {contest.frames / seconds:.0f} frames/s" if contest.frames else speed


def _contests(bench: Bench) -> Iterator[_Contest]:
    frames = sum(len(bench.clips[camera]) for camera in CAMERAS)
    pixels = sum(bench.clips[camera].nbytes for camera in CAMERAS) / 1e6
    whole = {"megabytes": pixels, "frames": frames, "aim": Aim(">=", 0.8)}
    jpegs = Path(shutil.copy(DATA, bench.new_folder() / "episode_0.hdf5"))
    raw = _raw_frames(bench)
    for title, path, theirs in (
        ("aloha-hdf5, JPEG", jpegs, lambda: _jpegs(jpegs)),
        ("robomimic-hdf5, gzip", raw, lambda: _arrays(raw)),
    ):
        converter = AlohaHdf5(jpeg_order="standard") if path is jpegs else converter_for(path)
        peer = "h5py, Pillow" if path is jpegs else "h5py"
        yield _Contest(
            what=f"{title}: into memory",
            peer=peer,
            ours=lambda c=converter, p=path: _read(c, p),
            theirs=theirs,
            **whole,
        )
        yield _Contest(
            what=f"{title}: into a store",
            peer=f"{peer}, and writing from memory",
            ours=lambda c=converter, p=path: _stored(bench, c.episodes(_fresh(p))),
            theirs=lambda read=theirs: (read(), _stored(bench, bench.episodes(1))),
            **whole,
        )
    yield from _of_topics(bench)
    yield from _of_lerobot(bench)


def _fresh(path: Path) -> Path:
    """Make files look changed, since indices and hashes of those that were seen are remembered."""
    for file in path.rglob("*") if path.is_dir() else (path,):
        os.utime(file)
    return path


def _read(converter: Converter, path: Path) -> None:
    """Read all that a recording holds; packets, where there are any, in place of pictures."""
    _fresh(path)
    for episode in converter.episodes(path):
        for clock in episode.clocks.values():
            clock.read()
        for stream in episode.streams.values():
            for _ in stream.packets.blocks() if stream.packets else stream:
                pass


def _stored(bench: Bench, episodes: Iterable[Episode]) -> None:
    report = create_store(bench.new_folder(), author="benchmarks").write(episodes, WriteOptions())
    assert report.added


def _jpegs(path: Path) -> None:
    with h5py.File(path, "r") as file:
        for camera in file["observations/images"].values():
            for row in camera:
                np.asarray(Image.open(io.BytesIO(bytes(row)), formats=("JPEG",)))


def _arrays(path: Path) -> None:
    def look(_name: str, found: h5py.Dataset | h5py.Group) -> None:
        if isinstance(found, h5py.Dataset):
            for first in range(0, len(found), 16):
                found[first : first + 16]

    with h5py.File(path, "r") as file:
        file.visititems(look)


def _raw_frames(bench: Bench) -> Path:
    """Write the recording as robomimic lays demonstrations out, its pictures as arrays."""
    path = bench.new_folder() / "image.hdf5"
    with h5py.File(path, "w") as file:
        file.create_group("data").attrs["env_args"] = (
            '{"env_name": "Lift", "type": 1, "env_kwargs": {"control_freq": 20}}'
        )
        demo = file.create_group("data/demo_0")
        steps = len(bench.streams["action"])
        demo.attrs["num_samples"] = steps
        demo["actions"] = np.zeros((steps, 7))
        demo["dones"] = np.zeros(steps, np.int64)
        demo["rewards"] = np.zeros(steps)
        demo["obs/robot0_joint_pos"] = np.zeros((steps, 7))
        for camera in CAMERAS:
            clip = bench.clips[camera]
            demo.create_dataset(
                f"obs/{camera}_image",
                data=clip,
                chunks=(1, *clip.shape[1:]),
                compression="gzip",
                compression_opts=1,
            )
    return path


# Bags


@dataclass
class _Bagged(Run):
    """The recording as messages: raw pictures of one camera, and many joint states."""

    clip: Any = field(default_factory=lambda: np.empty((0, 1, 1, 3), np.uint8))

    def messages(self) -> Iterator[Told]:
        kind = "sensor_msgs/msg/Image"
        for i, frame in enumerate(self.clip):
            stamp = START + i * 10**9 // FPS
            yield Told("/camera/image_raw", kind, stamp + LATE, self.of(
                kind, header=self.header(stamp, "camera"), height=frame.shape[0], width=frame.shape[1],
                encoding="rgb8", is_bigendian=0, step=3 * frame.shape[1], data=frame.reshape(-1),
            ))  # fmt: skip
        kind, names = "sensor_msgs/msg/JointState", [f"joint_{i}" for i in range(7)]
        values = np.random.default_rng(1).normal(size=(_JOINTS, 7))
        for i, row in enumerate(values):
            stamp = START + i * 10**6
            yield Told("/joint_states", kind, stamp + LATE, self.of(
                kind, header=self.header(stamp, ""), name=names, position=row, velocity=row, effort=row,
            ))  # fmt: skip


def _of_topics(bench: Bench) -> Iterator[_Contest]:
    clip = bench.clips[CAMERAS[0]]
    folder = bench.new_folder()
    bags = {
        "mcap, zstd": write_file(folder / "run.mcap", _Bagged(2, clip), chunk_size=_MCAP_CHUNK),
        "rosbag2, SQLite": write_bag2(folder / "run", _Bagged(2, clip)),
        "rosbag1": write_bag1(folder / "run.bag", _Bagged(1, clip)),
    }
    for title, path in bags.items():
        yield _Contest(
            what=f"{title}: into memory",
            peer=f"{'mcap, rosbags' if path.suffix == '.mcap' else 'rosbags'}, SHA-256",
            ours=partial(_read, converter_for(path), path),
            theirs=lambda p=path: (_messages_of_mcap if p.suffix == ".mcap" else _messages)(p),
            megabytes=clip.nbytes / 1e6,
            frames=len(clip),
            aim=Aim(">=", 0.8),
        )


def _messages(path: Path) -> None:
    _hash(path)
    with AnyReader([path]) as bag:
        for connection, _, raw in bag.messages():
            _as_array(bag.deserialize(raw, connection.msgtype))


def _messages_of_mcap(path: Path) -> None:
    from mcap.reader import make_reader

    _hash(path)
    store = Run(2).store
    with path.open("rb") as file:
        # Off by default, in a converter always on: checksums of the chunks.
        for schema, _, message in make_reader(file, validate_crcs=True).iter_messages():
            if schema is not None and schema.encoding == "ros2msg":
                _as_array(store.deserialize_cdr(message.data, schema.name))


def _hash(path: Path) -> None:
    for part in path.iterdir() if path.is_dir() else (path,):
        with part.open("rb") as file:
            hashlib.file_digest(file, "sha256")


def _as_array(message: Any) -> None:
    if hasattr(message, "data"):
        np.asarray(message.data).reshape(message.height, message.width, 3)
    else:
        np.stack([message.position, message.velocity, message.effort])


# What is passed on


def _of_lerobot(bench: Bench) -> Iterator[_Contest]:
    for title, episodes, takes in _DATASETS:
        root = bench.new_folder() / "dataset"
        make_dataset(bench, root, "libx264", LONG_GOP_H264, episodes, takes)
        yield from _of_dataset(bench, root, title, episodes * takes)


def _of_dataset(bench: Bench, root: Path, title: str, repeats: int) -> Iterator[_Contest]:
    files = [path for path in sorted(root.rglob("*")) if path.is_file()]
    size = sum(path.stat().st_size for path in files) / 1e6
    target = bench.new_folder() / "copy"

    def copy() -> None:
        for path in files:
            target.write_bytes(path.read_bytes())

    def demux() -> None:
        for path in files:
            if path.suffix == ".mp4":
                with av.open(path) as container:
                    sum(len(bytes(packet)) for packet in container.demux(video=0))
            elif path.suffix == ".parquet":
                pq.read_table(path)

    for peer, theirs, aim in (("PyAV, pyarrow", demux, 0.8), ("copying the files", copy, 0.5)):
        yield _Contest(
            what=f"lerobot-v3, H.264, {title}: passed on",
            peer=peer,
            ours=partial(_read, converter_for(root), root),
            theirs=theirs,
            megabytes=size,
            frames=repeats * sum(len(bench.clips[camera]) for camera in CAMERAS),
            aim=Aim(">=", aim),
        )
