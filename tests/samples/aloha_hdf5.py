"""A Mobile ALOHA episode as its recorder lays it out, with depth and with fields the format does not know.

After MarkFzp/mobile-aloha: aloha_scripts/record_episodes.py. Its encoder takes RGB for BGR, which is done
here by giving the encoder the channels the other way round.
"""

import io
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.samples import EpisodeTruth, Truth

STEPS, HEIGHT, WIDTH = 40, 48, 64
LOST = 17


def write(folder: Path) -> Truth:
    """Write the sample, and one in which a picture was lost."""
    random = np.random.default_rng(20)
    path, broken = folder / "episode_3.hdf5", folder / "broken" / "episode_3.hdf5"
    broken.parent.mkdir()
    values = numbers(random)
    pictures = {camera: film(random) for camera in ("cam_high", "cam_left_wrist")}
    with h5py.File(path, "w") as file:
        for name, array in values.items():
            file.create_dataset(PLACES[name], data=array, **STORED.get(name, {}))
        write_cameras(file, pictures)
        file.create_dataset("calibration/intrinsics", data=np.eye(3) * 0.1)
        file.create_dataset("language_instruction", data="wipe the table")
        file.create_dataset("history", (3,), h5py.vlen_dtype(np.float32))
        file.attrs.update({"sim": False, "compress": True, "licence": "CC-BY-4.0"})
        file["observations/qpos"].attrs["firmware"] = np.int16(7)
        file["action"].attrs["scale"] = file.ref
    shutil.copy(path, broken)
    with h5py.File(broken, "r+") as file:
        file["observations/images/cam_high"][LOST] = 0
    return Truth(
        path=path,
        episodes=(
            EpisodeTruth(
                values=values,
                close={f"observation.images.{camera}": (film, 30.0) for camera, film in pictures.items()},
                times={"steps": np.arange(STEPS, dtype=np.int64) * 20_000_000},
                instructions=("wipe the table",),
            ),
        ),
        fields=frozenset(PLACES.values())
        | {f"observations/images/{camera}" for camera in pictures}
        | {"compress_len", "calibration/intrinsics", "language_instruction", "history"}
        | {"@sim", "@compress", "@licence", "observations/qpos@firmware", "action@scale"},
        broken=broken,
    )


PLACES = {
    "action": "action",
    "action.base": "base_action",
    "observation.state": "observations/qpos",
    "observation.velocity": "observations/qvel",
    "observation.effort": "observations/effort",
    "observation.depth.cam_high": "observations/images_depth/cam_high",
    "extra.observations.touch": "observations/touch",
    "extra.light_on": "light on",
}

STORED: dict[str, dict[str, Any]] = {
    "observation.depth.cam_high": {"chunks": (1, HEIGHT, WIDTH), "compression": "gzip"},
    # Chunks that divide no axis evenly, and every filter.
    "extra.observations.touch": {
        "chunks": (7, 1, 2),
        "compression": "gzip",
        "shuffle": True,
        "fletcher32": True,
        "dtype": ">f8",
    },
}


def numbers(random: np.random.Generator) -> dict[str, NDArray[Any]]:
    """Make arms that follow their leader two steps behind, and what else has a row per step."""
    path = np.cumsum(random.normal(0, 0.02, (STEPS + 2, 14)), axis=0)
    path[:, [6, 13]] = np.clip(0.5 + path[:, [6, 13]], 0, 1)
    return {
        "action": path[2:].astype(np.float32),
        "action.base": random.normal(0, 0.2, (STEPS, 2)).astype(np.float32),
        "observation.state": path[:-2].astype(np.float32),
        "observation.velocity": random.normal(0, 1, (STEPS, 14)).astype(np.float32),
        "observation.effort": random.normal(0, 300, (STEPS, 14)).astype(np.float32),
        "observation.depth.cam_high": random.integers(300, 9000, (STEPS, HEIGHT, WIDTH)).astype(np.uint16),
        "extra.observations.touch": random.normal(0, 1, (STEPS, 2, 3)),
        "extra.light_on": random.random(STEPS) < 0.5,
    }


def film(random: np.random.Generator) -> NDArray[np.uint8]:
    """Make a smooth coloured picture that drifts: (T, H, W, 3)."""
    t, y, x = np.meshgrid(np.arange(STEPS), np.arange(HEIGHT), np.arange(WIDTH), indexing="ij")
    waves = [np.sin((x * a + y * b + t) / 17) for a, b in random.uniform(0.2, 1, (3, 2))]
    return np.stack([40 + 30 * waves[0], 120 + 30 * waves[1], 200 + 30 * waves[2]], axis=-1).astype(np.uint8)


def jpeg(picture: NDArray[np.uint8], quality: int = 50) -> bytes:
    """Encode as `cv2.imencode` does, which takes what it is given for BGR."""
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture[..., ::-1])).save(out, "JPEG", quality=quality)
    return out.getvalue()


def padded(encoded: list[bytes], size: int = 0) -> NDArray[np.uint8]:
    """Lay JPEGs under each other, with zeros behind them."""
    size = max(size, *map(len, encoded))
    return np.stack([np.frombuffer(data.ljust(size, b"\0"), np.uint8) for data in encoded])


def write_cameras(file: h5py.File, pictures: dict[str, NDArray[np.uint8]]) -> None:
    """Store the pictures as the recorder does: padded with zeros to the longest of all cameras."""
    encoded = {camera: [jpeg(picture) for picture in film] for camera, film in pictures.items()}
    lengths = np.array([[len(data) for data in row] for row in encoded.values()])
    size = int(lengths.max())
    for camera, row in encoded.items():
        file.create_dataset(f"observations/images/{camera}", data=padded(row, size), chunks=(1, size))
    file.create_dataset("compress_len", data=lengths.astype(np.float32))
