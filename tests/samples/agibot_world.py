"""Two episodes of AgiBot World, after its card: sparse commands, an index that is missing, depth, touch.

Layout: huggingface.co/datasets/agibot-world/AgiBotWorld-Beta, and Tavish9/any4lerobot: agibot2lerobot.
"""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from tests.samples import EpisodeTruth, Truth
from tests.samples._films import film, png, write_mp4

STEPS, SENT = 30, 19
TASK, EPISODES = 327, (648642, 1000001)
START_NS = 1_728_000_000_000_000_123
PHASES = (("Reach for the cup.", "Reach", 0, 12), ("Lift the cup.", "Pick", 12, STEPS))
EMPTY = ("action/effector/force", "action/end/index", "state/end/wrench", "state/robot/position_drift")


def write(folder: Path) -> Truth:
    """Write the sample, and one whose depth is damaged."""
    root, broken = folder / "sample", folder / "broken"
    random = np.random.default_rng(6)
    episodes = tuple(write_episode(root, number, random) for number in EPISODES)
    write_tasks(root, EPISODES)
    write_episode(broken, EPISODES[0], random)
    write_tasks(broken, EPISODES[:1])
    depth = broken / f"observations/{TASK}/{EPISODES[0]}/depth/head_depth_000007.png"
    depth.write_bytes(depth.read_bytes()[:-60])
    return Truth(
        path=root,
        episodes=episodes,
        fields=frozenset({*numbers(random), *EMPTY, "timestamp"})
        | {
            "task_info.episode_id",
            "task_info.task_name",
            "task_info.label_info",
            "task_info.init_scene_text",
        },
        broken=broken,
    )


def write_tasks(root: Path, numbers_: tuple[int, ...]) -> None:
    """Write what was asked in each episode."""
    (root / "task_info").mkdir()
    config = [
        {"start_frame": start, "end_frame": stop, "action_text": text, "skill": skill}
        for text, skill, start, stop in PHASES
    ]
    told = [
        {
            "episode_id": number,
            "label_info": {"action_config": config},
            "task_name": "Pour the tea",
            "init_scene_text": "A cup stands on the table.",
        }
        for number in reversed(numbers_)
    ]
    (root / "task_info" / f"task_{TASK}.json").write_text(json.dumps(told))


def write_episode(root: Path, number: int, random: np.random.Generator) -> EpisodeTruth:
    """Write one episode into the four trees."""
    values = numbers(random)
    times = np.cumsum(random.integers(33_000_000, 34_000_000, STEPS)).astype(np.int64)
    times -= times[0]
    folder = root / f"proprio_stats/{TASK}/{number}"
    folder.mkdir(parents=True)
    with h5py.File(folder / "proprio_stats.h5", "w") as file:
        for name, array in values.items():
            file[name] = array
        for name in EMPTY:
            file[name] = np.zeros(0, np.int64 if name.endswith("index") else np.float32)
        file["timestamp"] = START_NS + times
    observations = root / f"observations/{TASK}/{number}"
    for name in ("videos", "depth", "tactile"):
        (observations / name).mkdir(parents=True)
    films = {
        "head": film(random, STEPS),
        "hand_left_fisheye": film(random, STEPS),
        "left_sensor_1": film(random, 5),
    }
    for camera, pictures in films.items():
        place = "tactile/{}.mp4" if "sensor" in camera else "videos/{}_color.mp4"
        write_mp4(observations / place.format(camera), pictures)
    depth = random.integers(0, 4_000, (STEPS, 12, 16)).astype(np.uint16)
    for i, picture in enumerate(depth):
        (observations / "depth" / f"head_depth_{i:06d}.png").write_bytes(png(picture))
    extrinsics = write_parameters(root / f"parameters/{TASK}/{number}/parameters/camera", random)
    return EpisodeTruth(
        values={
            **{STREAMS[name]: array for name, array in values.items()},
            "observation.depth.head": depth,
            "observation.camera_extrinsics.head": extrinsics,
        },
        close={
            "observation.images.head": (films["head"], 30.0),
            "observation.images.hand_left_fisheye": (films["hand_left_fisheye"], 30.0),
            "observation.images.tactile_left_sensor_1": (films["left_sensor_1"], 30.0),
        },
        times={"steps": times, "action_joint": times[values["action/joint/index"]]},
        instructions=("Pour the tea",),
    )


def write_parameters(folder: Path, random: np.random.Generator) -> NDArray[np.float64]:
    """Write intrinsics, and extrinsics a frame; return the latter: (T, 3, 4)."""
    folder.mkdir(parents=True)
    (folder / "head_intrinsic_params.json").write_text(json.dumps({"intrinsic": {"fx": 615.0, "ppx": 320.0}}))
    matrices = random.normal(0, 1, (STEPS, 3, 4))
    frames = [
        {"extrinsic": {"rotation_matrix": m[:, :3].tolist(), "translation_vector": m[:, 3].tolist()}}
        for m in matrices
    ]
    (folder / "head_extrinsic_params_aligned.json").write_text(json.dumps(frames))
    return matrices


STREAMS = {
    "state/joint/position": "observation.joint_position",
    "state/joint/current_value": "observation.joint_current",
    "state/effector/position": "observation.gripper",
    "state/end/position": "observation.ee_position",
    "state/end/orientation": "observation.ee_orientation",
    "state/head/position": "observation.head_position",
    "state/waist/position": "observation.waist_position",
    "state/robot/position": "observation.base_position",
    "state/robot/orientation": "observation.base_orientation",
    "action/joint/position": "action.joint_position",
    "action/joint/index": "extra.action.joint.index",
    "action/end/position": "action.ee_position",
    "action/end/orientation": "action.ee_orientation",
    "action/effector/position": "action.gripper",
    "action/robot/velocity": "action.base_velocity",
    "action/waist/position": "action.waist_position",
}
"""Commands of the arms are sparse, those of their ends as well but without an index of their own."""


def numbers(random: np.random.Generator) -> dict[str, NDArray[Any]]:
    """Make the arrays of one episode."""

    def some(*shape: int) -> NDArray[np.float32]:
        return random.normal(0, 1, shape).astype(np.float32)

    return {
        "state/joint/position": some(STEPS, 14),
        "state/joint/current_value": some(STEPS, 14),
        "state/effector/position": some(STEPS, 2) * 35,
        "state/end/position": some(STEPS, 2, 3),
        "state/end/orientation": some(STEPS, 2, 4),
        "state/head/position": some(STEPS, 2),
        "state/waist/position": some(STEPS, 2) / 10,
        "state/robot/position": some(STEPS, 3),
        "state/robot/orientation": some(STEPS, 4),
        "action/joint/position": some(SENT, 14),
        "action/joint/index": np.sort(random.choice(STEPS, SENT, replace=False)).astype(np.int64),
        "action/end/position": some(SENT, 2, 3),
        "action/end/orientation": some(SENT, 2, 4),
        "action/effector/position": random.random((STEPS, 2)),
        "action/robot/velocity": some(STEPS, 2),
        "action/waist/position": some(STEPS + 3, 2),
    }
