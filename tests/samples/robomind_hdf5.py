"""Two episodes of RoboMIND of a Franka, in the data set's folders, with a picture that is not compressed.

After Open-X-Humanoid/x-humanoid-training-toolchain: scripts/configs/all_robot_h5_info_v1.2.md (names, shapes
and types as HDF5 lists them), and Tavish9/any4lerobot: robomind2lerobot (pictures, files beside).
"""

import io
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.samples import EpisodeTruth, Truth
from tests.samples._films import film, png

STEPS, RAW = 30, 13
TASK, TEXT = "bread_in_basket", "Put the bread into the basket"
HEIGHT, WIDTH = 48, 64


def write(folder: Path) -> Truth:
    """Write the sample, and one in which a picture's bytes are lost."""
    root, broken = folder / "sample", folder / "broken"
    random = np.random.default_rng(12)
    places = [root / f"benchmark1/h5_franka_1rgb/{TASK}/success_episodes/train/1014_14460{n}" for n in (1, 2)]
    episodes = tuple(write_episode(place / "data" / "trajectory.hdf5", random) for place in places)
    write_words(root)
    bad = broken / "trajectory.hdf5"
    write_episode(bad, random)
    with h5py.File(bad, "r+") as file:
        file["observations/rgb_images/camera_top"][7] = np.frombuffer(b"lost", np.uint8)
    return Truth(
        path=root,
        episodes=episodes,
        fields=frozenset(
            {
                "master/joint_position",
                "puppet/joint_position",
                "puppet/end_effector",
                "observations/rgb_images/camera_top",
                "observations/depth_images/camera_top",
                f"RoboMIND_v1_2_instr.csv: {TASK}",
                "language_description_annotation_json/h5_franka_1rgb.json",
            }
        ),
        broken=broken,
    )


def write_words(root: Path) -> None:
    """Write the table of instructions and the annotations of the steps, of the first episode only."""
    table = f",task,instruction\n0,{TASK},{TEXT}\n1,{TASK},{TEXT}\n2,other,Do nothing\n"
    (root / "RoboMIND_v1_2_instr.csv").write_text(table)
    place = root / "benchmark1" / "language_description_annotation_json"
    place.mkdir()
    told = [
        {
            "id": f"h5_franka_1rgb/{TASK}/success_episodes/train/1014_14460{n}/camera_top.mp4",
            "response": {"task_summary": "Bread goes into a basket.", "steps": [{"description": "grasp"}]},
        }
        for n in (1, 2)
    ]
    (place / "h5_franka_1rgb.json").write_text(json.dumps(told))


def write_episode(path: Path, random: np.random.Generator) -> EpisodeTruth:
    """Write one file. Franka's pictures are common JPEGs, and BGR where they are not compressed."""
    path.parent.mkdir(parents=True)
    values = {
        "master/joint_position": random.normal(0, 1, (STEPS, 8)),
        "puppet/joint_position": random.normal(0, 1, (STEPS, 8)),
        "puppet/end_effector": random.normal(0, 1, (STEPS, 6)),
    }
    pictures = film(random, STEPS, HEIGHT, WIDTH)
    depth = random.integers(0, 3000, (STEPS, 12, 16)).astype(np.uint16)
    rows = [common_jpeg(picture) for picture in pictures]
    rows[RAW] = pictures[RAW, ..., ::-1].tobytes()
    deep = [png(picture) for picture in depth]
    deep[RAW] = depth[RAW].tobytes()
    with h5py.File(path, "w") as file:
        for name, array in values.items():
            file[name] = array
        write_rows(file, "observations/rgb_images/camera_top", rows)
        write_rows(file, "observations/depth_images/camera_top", deep)
    return EpisodeTruth(
        values={
            "action.joint_position": values["master/joint_position"],
            "observation.joint_position": values["puppet/joint_position"],
            "observation.end_effector": values["puppet/end_effector"],
            "observation.depth.camera_top": depth,
        },
        close={"observation.images.camera_top": (pictures, 30.0)},
        times={"steps": np.rint(np.arange(STEPS) * (1e9 / 30)).astype(np.int64)},
        instructions=(TEXT,),
    )


def common_jpeg(picture: NDArray[np.uint8]) -> bytes:
    """Encode a picture as everyone does, red first."""
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "JPEG", quality=90)
    return out.getvalue()


def write_rows(file: h5py.File, name: str, rows: list[bytes], **plan: Any) -> None:
    """Store rows of variable length, as the data set has them."""
    found = file.create_dataset(name, (len(rows),), h5py.vlen_dtype(np.uint8), **plan)
    for i, row in enumerate(rows):
        found[i] = np.frombuffer(row, np.uint8)
