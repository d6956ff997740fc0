"""A file of LIBERO's as its script lays it out.

After Lifelong-Robot-Learning/LIBERO: scripts/create_dataset.py.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from tests.samples import EpisodeTruth, Truth
from tests.samples.robomimic_hdf5 import ENV_ARGS

STEPS, SIDE = 11, 16
TASK = "put the bowl on the plate"
PLACES = {
    "action": "actions",
    "next.reward": "rewards",
    "next.done": "dones",
    "extra.states": "states",
    "observation.state": "robot_states",
    "observation.images.agentview": "obs/agentview_rgb",
    "observation.images.eye_in_hand": "obs/eye_in_hand_rgb",
    "observation.depth.agentview": "obs/agentview_depth",
    "observation.ee_pose": "obs/ee_states",
    "observation.ee_position": "obs/ee_pos",
    "observation.ee_orientation": "obs/ee_ori",
    "observation.gripper": "obs/gripper_states",
    "observation.joint_position": "obs/joint_states",
}


def numbers(random: np.random.Generator) -> dict[str, NDArray[Any]]:
    """Make a demonstration, by the streams that its arrays become."""
    pose = random.normal(0, 1, (STEPS, 6))
    last = (np.arange(STEPS) == STEPS - 1).astype(np.uint8)
    return {
        "action": random.uniform(-1, 1, (STEPS, 7)),
        "next.reward": last,
        "next.done": last,
        "extra.states": random.normal(0, 1, (STEPS, 45)),
        "observation.state": random.normal(0, 1, (STEPS, 9)),
        "observation.images.agentview": random.integers(0, 256, (STEPS, SIDE, SIDE, 3)).astype(np.uint8),
        "observation.images.eye_in_hand": random.integers(0, 256, (STEPS, SIDE, SIDE, 3)).astype(np.uint8),
        "observation.depth.agentview": random.random((STEPS, SIDE, SIDE)).astype(np.float32),
        "observation.ee_pose": pose,
        "observation.ee_position": pose[:, :3],
        "observation.ee_orientation": pose[:, 3:],
        "observation.gripper": random.normal(0, 1, (STEPS, 2)),
        "observation.joint_position": random.normal(0, 1, (STEPS, 7)),
    }


def write(folder: Path) -> Truth:
    """Write the sample, and one without the actions of a demonstration."""
    random = np.random.default_rng(8)
    path, broken = folder / "task_demo.hdf5", folder / "broken_demo.hdf5"
    demos = [numbers(random) for _ in range(2)]
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        for i, values in enumerate(demos):
            demo = data.create_group(f"demo_{i}")
            for stream, array in values.items():
                demo[PLACES[stream]] = array[..., None] if ".depth." in stream else array
            demo.attrs.update({"num_samples": STEPS, "model_file": "<mujoco/>"})
            demo.attrs["init_state"] = values["extra.states"][0]
        data.attrs["env_name"] = "Libero_Kitchen_Tabletop_Manipulation"
        data.attrs["problem_info"] = json.dumps({"domain_name": "robosuite", "language_instruction": TASK})
        data.attrs["macros_image_convention"] = "opengl"
        data.attrs["bddl_file_name"] = "bddl_files/libero_goal/put_the_bowl_on_the_plate.bddl"
        data.attrs["bddl_file_content"] = "(define (problem LIBERO_Kitchen_Tabletop_Manipulation))"
        data.attrs["env_args"] = json.dumps(ENV_ARGS)
        data.attrs.update({"num_demos": 2, "total": 2 * STEPS})
    shutil.copy(path, broken)
    with h5py.File(broken, "r+") as file:
        del file["data/demo_1/actions"]
    times = np.arange(STEPS, dtype=np.int64) * 50_000_000
    names = ("problem_info", "macros_image_convention", "bddl_file_name", "bddl_file_content", "env_args")
    return Truth(
        path=path,
        episodes=tuple(
            EpisodeTruth(values=values, times={"steps": times}, instructions=(TASK,)) for values in demos
        ),
        fields=frozenset({f"data@{name}" for name in names} | {"data@num_demos", "data@total"}),
        broken=broken,
    )
