"""Two episodes of DROID as its recorder lays them out, one of them given up.

After droid-dataset/droid: droid/trajectory_utils/trajectory_writer.py (a resizable dataset for each leaf, a
row a step), droid/franka/robot.py, droid/robot_env.py, droid/user_interface/data_collector.py.
"""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from tests.samples import EpisodeTruth, Truth
from tests.samples._films import Film, film, write_mp4

STEPS, STOPPED = 30, 6
START_MS = 1_700_000_000_000
HAND, LEFT = "15512737", "22008760"
EPISODES = {"Mon_Jan__1_09:06:40_2024": True, "Mon_Jan__1_09:31:02_2024": False}
ATTRIBUTES: dict[str, Any] = {
    "user": "Alex Example",
    "building": "Main Hall",
    "scene_id": 2024010112,
    "robot_serial_number": "panda-295341-1325480",
    "version_number": "1.3",
    "current_task": "Put the cup on the shelf",
}


def write(folder: Path) -> Truth:
    """Write the sample, and one in which a recording is cut off."""
    root, broken = folder / "sample", folder / "broken"
    random = np.random.default_rng(5)
    told = []
    for name, success in EPISODES.items():
        place = root / "LAB" / ("success" if success else "failure") / "2024-01-01" / name
        columns, films = numbers(random), {camera: film(random, STEPS) for camera in (HAND, LEFT)}
        write_episode(place, columns, films, success=success)
        told.append((success, truth(columns, films)))
    write_episode(broken / "episode", numbers(random), {HAND: film(random, STEPS)}, success=True)
    video = broken / "episode" / "recordings" / "MP4" / f"{HAND}.mp4"
    video.write_bytes(video.read_bytes()[:-400])
    fields = {name for name in numbers(random) if not name.startswith("action/robot_state")}
    return Truth(
        path=root,
        episodes=tuple(episode for success, episode in sorted(told, key=lambda pair: pair[0])),
        fields=frozenset(fields)
        | {f"recordings/MP4/{camera}.mp4" for camera in (HAND, LEFT)}
        | {f"@{key}" for key in ATTRIBUTES}
        | {"metadata.uuid", "metadata.user_id", "metadata.wrist_cam_serial"},
        broken=broken,
    )


def write_episode(
    folder: Path, columns: dict[str, NDArray[Any]], films: dict[str, Film], *, success: bool
) -> None:
    """Write one folder."""
    (folder / "recordings" / "MP4").mkdir(parents=True)
    with h5py.File(folder / "trajectory.h5", "w") as file:
        for name, values in columns.items():
            shape = (None, *values.shape[1:])
            file.create_dataset(name, data=values, maxshape=shape, chunks=(1, *values.shape[1:]))
        file.attrs.update({**ATTRIBUTES, "success": success, "failure": not success})
    for camera, pictures in films.items():
        write_mp4(folder / "recordings" / "MP4" / f"{camera}.mp4", pictures, rate=60)
    metadata = {"uuid": "LAB+Alex1234+2024", "user_id": "Alex1234", "wrist_cam_serial": HAND}
    (folder / "metadata_LAB+Alex1234+2024.json").write_text(json.dumps(metadata))


def numbers(random: np.random.Generator) -> dict[str, NDArray[Any]]:
    """Make every dataset of a trajectory."""
    state: dict[str, NDArray[Any]] = {
        "cartesian_position": random.normal(0, 1, (STEPS, 6)),
        "joint_positions": random.normal(0, 1, (STEPS, 7)),
        "joint_velocities": random.normal(0, 1, (STEPS, 7)),
        "joint_torques_computed": random.normal(0, 9, (STEPS, 7)),
        "gripper_position": random.random(STEPS),
        "prev_command_successful": random.random(STEPS) < 0.9,
        "prev_controller_latency_ms": random.random(STEPS),
    }
    columns: dict[str, NDArray[Any]] = {
        "action/cartesian_position": random.normal(0, 1, (STEPS, 6)),
        "action/cartesian_velocity": random.uniform(-1, 1, (STEPS, 6)),
        "action/joint_position": random.normal(0, 1, (STEPS, 7)),
        "action/joint_velocity": random.uniform(-1, 1, (STEPS, 7)),
        "action/gripper_position": random.random(STEPS),
        "action/gripper_velocity": random.uniform(-1, 1, STEPS),
        "action/target_cartesian_position": random.normal(0, 1, (STEPS, 6)),
        "action/target_gripper_position": random.random(STEPS),
        **{f"action/robot_state/{name}": np.copy(values[::-1]) for name, values in state.items()},
        **{f"observation/robot_state/{name}": values for name, values in state.items()},
        f"observation/camera_extrinsics/{HAND}_left": random.normal(0, 1, (STEPS, 6)),
        f"observation/camera_extrinsics/{HAND}_left_gripper_offset": np.tile(np.arange(6.0), (STEPS, 1)),
        f"observation/camera_intrinsics/{HAND}_left": np.tile(np.diag([500.0, 500, 1]), (STEPS, 1, 1)),
        f"observation/camera_type/{HAND}": np.zeros(STEPS, np.int64),
        f"observation/camera_type/{LEFT}": np.ones(STEPS, np.int64),
        "observation/controller_info/movement_enabled": np.arange(STEPS) >= STOPPED,
        "observation/timestamp/skip_action": np.arange(STEPS) < STOPPED,
    }
    return columns | stamps(random)


def stamps(random: np.random.Generator) -> dict[str, NDArray[np.int64]]:
    """Make the stamps of steps of 67 ms with some jitter."""
    starts = START_MS + np.arange(STEPS) * 67 + random.integers(0, 3, STEPS)
    name = "observation/timestamp"
    return {
        f"{name}/control/step_start": starts,
        f"{name}/control/control_start": starts + 66,
        f"{name}/robot_state/read_start": starts + 1,
        f"{name}/robot_state/robot_timestamp_seconds": starts // 1000 + 5,
        f"{name}/robot_state/robot_timestamp_nanos": starts % 1000 * 1_000_000,
        f"{name}/cameras/{HAND}_read_start": starts + 3,
        f"{name}/cameras/{HAND}_estimated_capture": starts - 20,
        f"{name}/cameras/{LEFT}_estimated_capture": starts - 24,
    }


ACTIONS = {
    "cartesian_position": "ee_pose",
    "cartesian_velocity": "ee_velocity",
    "joint_position": "joint_position",
    "joint_velocity": "joint_velocity",
    "gripper_position": "gripper",
    "gripper_velocity": "gripper_velocity",
    "target_cartesian_position": "target_ee_pose",
    "target_gripper_position": "target_gripper",
}
STATES = {
    "cartesian_position": "ee_pose",
    "joint_positions": "joint_position",
    "joint_velocities": "joint_velocity",
    "joint_torques_computed": "joint_torque_computed",
    "gripper_position": "gripper",
    "prev_command_successful": "previous_command_successful",
    "prev_controller_latency_ms": "controller_latency",
}


def stream_of(name: str) -> str:
    """Return the stream that a dataset becomes; empty for what is told once."""
    group, _, last = name.rpartition("/")
    if group == "action":
        return f"action.{ACTIONS[last]}"
    if group.endswith("robot_state") and last in STATES:
        prefix = "observation" if group.startswith("observation") else "extra.state_at_command"
        return f"{prefix}.{STATES[last]}"
    if group == "observation/camera_extrinsics":
        return f"observation.camera_pose.{last}"
    if last == "skip_action":
        return "extra.skip_action"
    if group.startswith("observation/timestamp"):
        return ".".join(("extra", *name.split("/")[1:]))
    return f"extra.{name.replace('/', '.')}" if group == "observation/controller_info" else ""


def truth(columns: dict[str, NDArray[Any]], films: dict[str, Film]) -> EpisodeTruth:
    """Return what comes of an episode. The earliest stamp is that of the camera which is 24 ms late."""
    origin = int(columns[f"observation/timestamp/cameras/{LEFT}_estimated_capture"][0])
    clocks = {
        "steps": "control/step_start",
        "control": "control/control_start",
        "robot_state": "robot_state/read_start",
        f"camera_{HAND}": f"cameras/{HAND}_estimated_capture",
        f"camera_{LEFT}": f"cameras/{LEFT}_estimated_capture",
    }
    return EpisodeTruth(
        values={stream: values for name, values in columns.items() if (stream := stream_of(name))},
        close={f"observation.images.{camera}": (pictures, 30.0) for camera, pictures in films.items()},
        times={
            clock: (columns[f"observation/timestamp/{name}"] - origin) * 1_000_000
            for clock, name in clocks.items()
        },
        instructions=("Put the cup on the shelf",),
    )
