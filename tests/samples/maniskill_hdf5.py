"""A file of trajectories as ManiSkill's recorder lays it out, and its JSON.

After haosulab/ManiSkill: mani_skill/utils/wrappers/record.py.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from tests.samples import EpisodeTruth, Truth

SIDE = 16
LENGTHS = {2: 8, 10: 6}
PLACES = {
    "action": "actions",
    "next.reward": "rewards",
    "next.success": "success",
    "next.fail": "fail",
    "next.terminated": "terminated",
    "next.truncated": "truncated",
    "observation.joint_position": "obs/agent/qpos",
    "observation.joint_velocity": "obs/agent/qvel",
    "observation.ee_pose": "obs/extra/tcp_pose",
    "observation.images.base_camera": "obs/sensor_data/base_camera/rgb",
    "observation.depth.base_camera": "obs/sensor_data/base_camera/depth",
    "extra.sensor_param.base_camera.intrinsic_cv": "obs/sensor_param/base_camera/intrinsic_cv",
    "extra.env_states.actors.cube": "env_states/actors/cube",
    "extra.env_states.articulations.panda": "env_states/articulations/panda",
}


def numbers(random: np.random.Generator, steps: int) -> dict[str, NDArray[Any]]:
    """Make a trajectory, by the streams that its arrays become."""
    more = steps + 1
    ended = np.arange(steps) == steps - 1
    shapes = {
        "observation.joint_position": (more, 9),
        "observation.joint_velocity": (more, 9),
        "observation.ee_pose": (more, 7),
        "extra.sensor_param.base_camera.intrinsic_cv": (more, 3, 3),
        "extra.env_states.actors.cube": (more, 13),
        "extra.env_states.articulations.panda": (more, 31),
        "action": (steps, 7),
        "next.reward": (steps,),
    }
    return {
        **{name: random.normal(0, 1, shape).astype(np.float32) for name, shape in shapes.items()},
        "next.success": ended,
        "next.fail": np.zeros(steps, bool),
        "next.terminated": ended,
        "next.truncated": np.zeros(steps, bool),
        "observation.images.base_camera": random.integers(0, 256, (more, SIDE, SIDE, 3)).astype(np.uint8),
        "observation.depth.base_camera": random.integers(0, 9_000, (more, SIDE, SIDE)).astype(np.uint16),
    }


def write(folder: Path) -> Truth:
    """Write the sample, and one without the actions of a trajectory."""
    random = np.random.default_rng(9)
    path, broken = folder / "trajectory.rgbd.h5", folder / "broken.rgbd.h5"
    film = {number: numbers(random, steps) for number, steps in LENGTHS.items()}
    with h5py.File(path, "w") as file:
        for number, values in film.items():
            group = file.create_group(f"traj_{number}", track_order=True)
            for stream, array in values.items():
                stored = array.astype(np.int16)[..., None] if ".depth." in stream else array
                pressed = {"compression": "gzip"} if array.ndim == 4 or ".depth." in stream else {}
                group.create_dataset(PLACES[stream], data=stored, **pressed)
    path.with_suffix(".json").write_text(json.dumps(record(), indent=2))
    shutil.copy(path, broken)
    shutil.copy(path.with_suffix(".json"), broken.with_suffix(".json"))
    with h5py.File(broken, "r+") as file:
        del file["traj_10/actions"]
    sidecar = path.with_suffix(".json").name
    return Truth(
        path=path,
        episodes=tuple(truth_of(values) for values in film.values()),
        fields=frozenset(f"{sidecar}@{name}" for name in record()),
        broken=broken,
    )


def record() -> dict[str, Any]:
    """Return the JSON of the sample."""
    return {
        "env_info": {
            "env_id": "PickCube-v1",
            "env_kwargs": {
                "obs_mode": "rgbd",
                "control_mode": "pd_ee_delta_pose",
                "robot_uids": "panda",
                "sim_config": {"sim_freq": 100, "control_freq": 25},
            },
            "max_episode_steps": 50,
        },
        "commit_info": None,
        "episodes": [
            {
                "episode_id": number,
                "episode_seed": number,
                "control_mode": "pd_ee_delta_pose",
                "elapsed_steps": steps,
                "reset_kwargs": {"seed": number},
                "success": True,
            }
            for number, steps in LENGTHS.items()
        ],
        "source_type": "teleoperation",
        "source_desc": "",
    }


def truth_of(values: dict[str, NDArray[Any]]) -> EpisodeTruth:
    """Return what has to come out of a trajectory."""
    times = np.arange(len(values["action"]) + 1, dtype=np.int64) * 40_000_000
    return EpisodeTruth(values=values, times={"steps": times[:-1], "observations": times})
