"""Two episodes of RoboTwin in its layout of 2026, as its writer makes them.

After RoboTwin-Platform/RoboTwin: envs/utils/pkl2hdf5.py: create_xpolicylab_hdf5. Its encoder takes RGB for
BGR, which is done here by giving the encoder the channels the other way round.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from tests.samples import EpisodeTruth, Truth
from tests.samples._films import Film, film
from tests.samples.aloha_hdf5 import jpeg

FRAMES = 30
STEPS = FRAMES - 1
TASK = "Grab the hammer and beat the block"
CAMERAS = {"cam_head": False, "cam_left_wrist": True}
"""Whether a camera moves."""


def write(folder: Path) -> Truth:
    """Write the sample, and one in which a picture was lost."""
    random = np.random.default_rng(9)
    root, broken = folder / "sample", folder / "broken"
    episodes = tuple(write_episode(root / "data" / f"episode_{n:07d}.hdf5", random) for n in (2, 10))
    broken.mkdir()
    shutil.copy(root / "data" / "episode_0000002.hdf5", broken / "episode_0000002.hdf5")
    with h5py.File(broken / "episode_0000002.hdf5", "r+") as file:
        file["vision/cam_head/colors"][11] = b"\xff\xd8\xff"
    kinds = ("left_arm_joint_states", "left_ee_joint_states", "right_arm_joint_states", "left_ee_poses")
    return Truth(
        path=root,
        episodes=episodes,
        fields=frozenset(f"{group}/{kind}" for group in ("state", "action") for kind in kinds)
        | {
            f"vision/{camera}/{part}"
            for camera in CAMERAS
            for part in ("colors", "shape", "intrinsic_matrix")
        }
        | {"data_format_version", "instructions", "additional_info/frequency", "@source_format"},
        broken=broken,
    )


STREAMS = {
    "left_arm_joint_states": "left_arm",
    "left_ee_joint_states": "left_gripper",
    "right_arm_joint_states": "right_arm",
    "left_ee_poses": "left_ee_pose",
}


def write_episode(path: Path, random: np.random.Generator) -> EpisodeTruth:
    """Write one file: every quantity once as state, and from the next row on as action."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = {
        "left_arm_joint_states": random.normal(0, 1, (FRAMES, 6)).astype(np.float32),
        "left_ee_joint_states": random.random((FRAMES, 1)).astype(np.float32),
        "right_arm_joint_states": random.normal(0, 1, (FRAMES, 6)).astype(np.float32),
        "left_ee_poses": random.normal(0, 1, (FRAMES, 7)).astype(np.float32),
    }
    films = {camera: film(random, STEPS) for camera in CAMERAS}
    depth = random.random((STEPS, 12, 16)) * 1000
    moving = random.normal(0, 1, (STEPS, 4, 4)).astype(np.float32)
    with h5py.File(path, "w") as file:
        text = h5py.string_dtype(encoding="utf-8")
        file.attrs.update({"source_format": "RoboTwin", "source_path": "native_collection"})
        file.create_dataset("data_format_version", data="v1.0", dtype=text)
        file.create_dataset("instructions", data=json.dumps([TASK]), dtype=text)
        file["additional_info/frequency"] = np.int32(15)
        for name, quantity in rows.items():
            file[f"state/{name}"], file[f"action/{name}"] = quantity[:-1], quantity[1:]
        for camera, moves in CAMERAS.items():
            group = file.create_group(f"vision/{camera}")
            write_pictures(group, "colors", films[camera])
            group["shape"] = np.array(films[camera].shape[1:], np.int32)
            group["intrinsic_matrix"] = np.tile(np.diag([300.0, 300, 1]), (STEPS, 1, 1))
            group["extrinsics_matrix"] = moving if moves else np.tile(np.eye(4, dtype="f4"), (STEPS, 1, 1))
        file["vision/cam_head/depths"] = depth
    values: dict[str, NDArray[Any]] = {}
    for name, stream in STREAMS.items():
        prefix = "observation" if name.endswith("poses") else "observation.target"
        values[f"{prefix}.{stream}"], values[f"action.{stream}"] = rows[name][:-1], rows[name][1:]
    return EpisodeTruth(
        values={
            **values,
            "observation.depth.cam_head": depth,
            "observation.camera.cam_left_wrist.extrinsics_matrix": moving,
        },
        close={f"observation.images.{camera}": (pictures, 30.0) for camera, pictures in films.items()},
        times={"steps": np.arange(STEPS, dtype=np.int64) * 60_000_000},
        instructions=(TASK,),
    )


def write_pictures(group: h5py.Group, name: str, pictures: Film, quality: int = 95) -> None:
    """Store pictures as the writer does: JPEGs as strings of the longest one's length."""
    encoded = [jpeg(picture, quality) for picture in pictures]
    group.create_dataset(name, data=encoded, dtype=f"S{max(map(len, encoded))}")
