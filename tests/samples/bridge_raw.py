"""BridgeData V2 as its RawSaver writes it: pickle, and Pillow in place of OpenCV."""

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.samples import EpisodeTruth, Truth

DATE = "2022-03-04_05-06-07"
STEPS = 6
STAMPS = 1_646_370_367.25 + np.array([0.0, 0.2, 0.4, 0.65, 0.8, 1.0])
TEXTS = ("put the spoon in the pot\nconfidence: 0.9\nmove the spoon\n", "")


def observations(random: np.random.Generator) -> dict[str, Any]:
    """Make up what the environment tells; the scalars come as lists, as the recorder collects them."""
    state = random.normal(0, 0.2, (STEPS, 7))
    return {
        "joint_effort": random.normal(0, 90, (STEPS, 6)),
        "qpos": random.normal(0, 1, (STEPS, 6)),
        "qvel": random.normal(0, 1, (STEPS, 6)),
        "full_state": state,
        "state": state,
        "desired_state": state + 0.01,
        "time_stamp": [float(stamp) for stamp in STAMPS],
        "eef_transform": np.tile(np.eye(4), (STEPS, 1, 1)),
        "high_bound": np.tile([0.4, 0.2, 0.25, 1.5, 0.0], (STEPS, 1)),
        "low_bound": np.tile([0.1, -0.2, -0.05, -1.5, 0.0], (STEPS, 1)),
        "env_done": [False] * STEPS,
        "t_get_obs": [0.01 * i for i in range(STEPS)],
    }


STREAMS = {
    "joint_effort": "observation.joint_effort",
    "qpos": "observation.joint_position",
    "qvel": "observation.joint_velocity",
    "full_state": "observation.full_state",
    "state": "observation.state",
    "desired_state": "observation.desired_state",
    "time_stamp": "extra.time_stamp",
    "eef_transform": "observation.ee_transform",
    "high_bound": "extra.high_bound",
    "low_bound": "extra.low_bound",
    "env_done": "extra.env_done",
    "t_get_obs": "extra.t_get_obs",
}


def write_pictures(folder: Path, random: np.random.Generator) -> NDArray[Any]:
    """Write a camera's JPEG pictures, and return what they decode to."""
    folder.mkdir()
    shades = np.add.outer(np.arange(24) * 4, np.arange(32) * 4)[..., None] // 2 + np.array([0, 30, 60])
    for i in range(STEPS):
        picture = (shades + random.integers(0, 12, shades.shape) + 3 * i).astype(np.uint8)
        Image.fromarray(picture).save(folder / f"im_{i}.jpg", quality=95)
    return np.stack([np.asarray(Image.open(folder / f"im_{i}.jpg")) for i in range(STEPS)])


def write_trajectory(
    folder: Path, seed: int, text: str, *, depth: bool = False, bare: bool = False
) -> EpisodeTruth:
    """Write one trajectory; ``bare`` actions are arrays, others lie in dicts with more."""
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    held = observations(random)
    actions = [random.normal(0, 0.02, 7) for _ in range(STEPS - 1)]
    turns = [np.eye(4) * (i + 1) for i in range(STEPS - 1)]
    told: list[Any] = [
        {"actions": a, "delta_robot_transform": t, "policy_type": "VRTeleopPolicy"}
        for a, t in zip(actions, turns, strict=True)
    ]
    folder.joinpath("obs_dict.pkl").write_bytes(pickle.dumps(held))
    folder.joinpath("policy_out.pkl").write_bytes(pickle.dumps(actions if bare else told))
    folder.joinpath("agent_data.pkl").write_bytes(pickle.dumps({"traj_ok": True, "term_t": 5, "stats": {}}))
    if text:
        folder.joinpath("lang.txt").write_text(text, encoding="utf-8")
    values = {STREAMS[key]: np.asarray(value) for key, value in held.items()}
    values["observation.images.0"] = write_pictures(folder / "images0", random)
    values["observation.images.1"] = write_pictures(folder / "images1", random)
    values["action"] = np.stack(actions)
    if not bare:
        values["extra.policy.delta_robot_transform"] = np.stack(turns)
    if depth:
        folder.joinpath("depth_images0").mkdir()
        metres = random.integers(0, 65_535, (STEPS, 10, 12)).astype(np.uint16)
        for i, picture in enumerate(metres):
            Image.fromarray(picture).save(folder / "depth_images0" / f"im_{i}.png")
        values["observation.depth.0"] = metres
    times = np.rint((STAMPS - STAMPS[0]) * 1e9).astype(np.int64)
    asked = tuple(line for line in text.splitlines() if line and "confidence" not in line)
    return EpisodeTruth(values=values, times={"steps": times, "actions": times[:-1]}, instructions=asked)


def write(folder: Path) -> Truth:
    """Write two trajectories of one date, and one whose second camera lost a picture."""
    dated = folder / "toykitchen1" / DATE
    group = dated / "raw" / "traj_group0"
    episodes = (
        write_trajectory(group / "traj2", 2, TEXTS[0], depth=True),
        write_trajectory(group / "traj10", 10, TEXTS[1]),
    )
    dated.joinpath("collection_metadata.json").write_text(
        json.dumps({"robot": "widowx", "policy_desc": "human"})
    )
    broken = folder / "broken"
    shutil.copytree(group / "traj10", broken)
    broken.joinpath("images1", "im_3.jpg").unlink()
    fields = {
        *(f"obs_dict.pkl: {key}" for key in STREAMS),
        *(f"policy_out.pkl: {key}" for key in ("actions", "delta_robot_transform", "policy_type")),
        *(f"agent_data.pkl: {key}" for key in ("traj_ok", "term_t", "stats")),
        "collection_metadata.json",
        "images0",
        "images1",
    }
    return Truth(path=folder / "toykitchen1", episodes=episodes, fields=frozenset(fields), broken=broken)
