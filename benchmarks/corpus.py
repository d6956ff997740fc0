"""The recording that everything is measured on, and stores made of it.

benchmarks/data tells what it shows. The pixels that its JPEGs decode to are the ground truth; decoding them
is never inside of what is timed. Longer datasets are the recording again and again: every GOP is encoded
without regard to any other, so repetition helps nobody, but that what is done once per dataset is shared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from teleopen.converters.aloha_hdf5 import AlohaHdf5
from teleopen.hub import Store, WriteOptions, create_store
from teleopen.hub.arrays import ArrayReader
from teleopen.schemas import Array, Episode, episode_id

from .measure import Pixels
from .sample import CAMERAS

DATA = Path(__file__).parent / "data" / "aloha_textured_96.hdf5"
_IMAGES = "observation.images."
_BLUR = 3.0  # radius in pixels: nothing is left of the noise, little of the texture
_BLOCK = 32


@dataclass(slots=True)
class StoredCamera:
    """A camera of the recording in a store.

    Attributes
    ----------
    array, start
        Its reader, and the slot at which the episode begins.
    bytes
        Of its shards, indices included.
    """

    store: Store
    array: ArrayReader
    start: int
    length: int
    bytes: int

    def frames(self, first: int, count: int, out: Pixels | None = None) -> Pixels:
        """Return frames by index in the episode."""
        return self.array.frames(np.arange(self.start + first, self.start + first + count), out)


@dataclass
class Bench:
    """What a run shares: the recording, a folder to write to, and whether it has to be short."""

    folder: Path
    quick: bool
    _stores: dict[tuple[str, WriteOptions], StoredCamera] = field(default_factory=dict)

    @cached_property
    def episode(self) -> Episode:
        """The recording. Its JPEGs were made from red-first pixels, unlike those of ALOHA's recorders."""
        return next(iter(AlohaHdf5(jpeg_order="standard").episodes(DATA)))

    @cached_property
    def streams(self) -> Mapping[str, Array]:
        """Every stream, in memory."""
        return {name: stream.values() for name, stream in self.episode.streams.items()}

    @cached_property
    def clips(self) -> Mapping[str, Pixels]:
        """Pictures (96, 480, 640, 3) by name: the cameras, and the static one blurred."""
        found = {camera: self.streams[_IMAGES + camera] for camera in CAMERAS}
        return {**found, "blurred": _blurred(found["cam_high"])}

    def episodes(self, count: int, cameras: Mapping[str, Pixels] | None = None) -> Iterator[Episode]:
        """Yield the recording as ``count`` episodes whose samples are in memory.

        Parameters
        ----------
        cameras
            What its cameras show; None: what they do show.
        """
        if cameras is None:
            cameras = {camera: self.clips[camera] for camera in CAMERAS}
        values = {name: array for name, array in self.streams.items() if not name.startswith(_IMAGES)}
        values |= {_IMAGES + camera: frames for camera, frames in cameras.items()}
        streams = {
            name: replace(self.episode.streams[name], read=partial(_slices, array))
            for name, array in values.items()
        }
        for number in range(count):
            yield replace(self.episode, id=episode_id([], f"episode {number}"), streams=streams)

    def new_folder(self) -> Path:
        """Return an empty folder of its own."""
        return Path(mkdtemp(dir=self.folder))

    def stored(self, clip: str, options: WriteOptions) -> StoredCamera:
        """Return one clip in a store of its own, written once per run."""
        if (clip, options) not in self._stores:
            camera = clip if clip in CAMERAS else CAMERAS[0]
            store = create_store(self.new_folder(), author="benchmarks")
            store.write(self.episodes(1, {camera: self.clips[clip]}), options)
            self._stores[clip, options] = stored_camera(store, camera)
        return self._stores[clip, options]


def stored_camera(store: Store, camera: str) -> StoredCamera:
    """Return a camera of a store's first episode."""
    array, start, stop = store.array("0", _IMAGES + camera)
    size = sum(size for key, size in array.files.items() if key.startswith(f"{array.key}/c/"))
    return StoredCamera(store, array, start, stop - start, size)


def spread(rng: np.random.Generator, below: int, count: int) -> NDArray[np.int64]:
    """Draw places ``[0, below)``, one from each of ``count`` equal parts, so that rounds are alike."""
    edges = np.linspace(0, below, count + 1)
    return (edges[:-1] + rng.random(count) * np.diff(edges)).astype(np.int64)


def _slices(array: Array, start: int, stop: int) -> Iterator[Array]:
    for at in range(start, stop, _BLOCK):
        yield array[at : min(stop, at + _BLOCK)]


def _blurred(frames: Pixels) -> Pixels:
    blur = ImageFilter.GaussianBlur(_BLUR)
    return np.stack([np.asarray(Image.fromarray(frame).filter(blur)) for frame in frames])
