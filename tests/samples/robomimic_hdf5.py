"""A file of robomimic's as dataset_states_to_obs.py, extract_action_dict.py and split_train_val.py leave it.

After ARISE-Initiative/robomimic: robomimic/scripts. The demonstrations have gaps in their numbers and pass 9.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from tests.samples import EpisodeTruth, Truth

HEIGHT, WIDTH = 16, 20
ENV_ARGS: dict[str, Any] = {
    "env_name": "Lift",
    "env_version": "1.4.1",
    "type": 1,
    "env_kwargs": {
        "robots": ["Panda"],
        "control_freq": 20,
        "controller_configs": {
            "type": "OSC_POSE",
            "input_max": 1,
            "input_min": -1,
            "output_max": [0.05, 0.05, 0.05, 0.5, 0.5, 0.5],
            "output_min": [-0.05, -0.05, -0.05, -0.5, -0.5, -0.5],
            "impedance_mode": "fixed",
            "control_delta": True,
        },
    },
}
PLACES = {
    "action": "actions",
    "action.absolute": "actions_abs",
    "action.rel_pos": "action_dict/rel_pos",
    "action.gripper": "action_dict/gripper",
    "next.reward": "rewards",
    "next.done": "dones",
    "extra.states": "states",
    "observation.images.agentview": "obs/agentview_image",
    "observation.depth.agentview": "obs/agentview_depth",
    "observation.object": "obs/object",
    "observation.robot0.ee_position": "obs/robot0_eef_pos",
    "observation.robot0.ee_orientation": "obs/robot0_eef_quat",
    "observation.robot0.joint_position": "obs/robot0_joint_pos",
    "next_observation.images.agentview": "next_obs/agentview_image",
    "next_observation.robot0.joint_position": "next_obs/robot0_joint_pos",
    "extra.datagen_info.subtask": "datagen_info/subtask",
}
LENGTHS = {"demo_10": 9, "demo_2": 13}


def numbers(random: np.random.Generator, steps: int) -> dict[str, NDArray[Any]]:
    """Make a demonstration of ``steps`` steps, by the streams that its arrays become."""
    joints = random.normal(0, 1, (steps + 1, 7))
    film = random.integers(0, 256, (steps + 1, HEIGHT, WIDTH, 3)).astype(np.uint8)
    actions = random.uniform(-1, 1, (steps, 7))
    return {
        "action": actions,
        "action.absolute": random.normal(0, 1, (steps, 7)),
        "action.rel_pos": actions[:, :3].astype(np.float32),
        "action.gripper": actions[:, 6:].astype(np.float32),
        "next.reward": np.linspace(0, 1, steps),
        "next.done": np.arange(steps) == steps - 1,
        "extra.states": random.normal(0, 1, (steps, 32)),
        "observation.images.agentview": film[:-1],
        "observation.depth.agentview": random.uniform(0.1, 3, (steps, HEIGHT, WIDTH)).astype(np.float32),
        "observation.object": random.normal(0, 1, (steps, 10)),
        "observation.robot0.ee_position": random.normal(0, 1, (steps, 3)),
        "observation.robot0.ee_orientation": random.normal(0, 1, (steps, 4)),
        "observation.robot0.joint_position": joints[:-1],
        "next_observation.images.agentview": film[1:],
        "next_observation.robot0.joint_position": joints[1:],
        "extra.datagen_info.subtask": random.integers(0, 3, steps),
    }


def write_demo(data: h5py.Group, name: str, values: dict[str, NDArray[Any]]) -> None:
    """Write one demonstration as the scripts do, with pictures compressed."""
    demo = data.create_group(name)
    for stream, array in values.items():
        stored = array[..., None] if ".depth." in stream else array
        pressed = {"compression": "gzip", "chunks": (4, 7, 9, 2)} if ".images." in stream else {}
        demo.create_dataset(PLACES[stream], data=stored, **pressed)
    demo.attrs["num_samples"] = len(values["action"])
    demo.attrs["model_file"] = '<mujoco model="base">\n</mujoco>'
    demo.attrs["ep_meta"] = json.dumps({"lang": f"lift the cube of {name}", "layout_id": 3})


def write(folder: Path) -> Truth:
    """Write the sample, and one whose pictures end before the demonstration does."""
    random = np.random.default_rng(7)
    path, broken = folder / "image.hdf5", folder / "broken.hdf5"
    demos = {name: numbers(random, steps) for name, steps in LENGTHS.items()}
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        for name, values in demos.items():
            write_demo(data, name, values)
        data.attrs["total"] = sum(LENGTHS.values())
        data.attrs["env_args"] = json.dumps(ENV_ARGS, indent=4)
        data.attrs["author"] = "A. Person"
        file["mask/train"] = np.array(["demo_10"], dtype="S")
        file.create_dataset("mask/valid", data=["demo_2"], dtype=h5py.string_dtype())
    shutil.copy(path, broken)
    with h5py.File(broken, "r+") as file:
        del file["data/demo_10/obs/agentview_image"]
        shape = (LENGTHS["demo_10"], HEIGHT, WIDTH, 3)
        short = file.create_dataset("data/demo_10/obs/agentview_image", shape, "u1", chunks=(1, *shape[1:]))
        short[0] = 1
    return Truth(
        path=path,
        episodes=tuple(truth_of(name, demos[name]) for name in ("demo_2", "demo_10")),
        fields=frozenset({"data@total", "data@env_args", "data@author", "mask/train", "mask/valid"}),
        broken=broken,
    )


def truth_of(name: str, values: dict[str, NDArray[Any]]) -> EpisodeTruth:
    """Return what has to come out of a demonstration."""
    times = np.arange(len(values["action"]), dtype=np.int64) * 50_000_000
    return EpisodeTruth(values=values, times={"steps": times}, instructions=(f"lift the cube of {name}",))
