"""Unitree's episodes in the form of xr_teleoperate's episode_writer.py: JSON piece by piece, JPEG, npy."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.samples import EpisodeTruth, Truth

HEIGHT, WIDTH = 24, 32
SAMPLES = (3, 5, 4)
LEFT_ARM = ["kLeftShoulderPitch", "kLeftShoulderRoll", "kLeftShoulderYaw", "kLeftElbow"]
LEFT_ARM += ["kLeftWristRoll", "kLeftWristPitch", "kLeftWristYaw"]
HEAD: dict[str, Any] = {
    "info": {
        "version": "1.0.0",
        "date": "2025-07-18",
        "author": "unitree",
        "image": {"width": WIDTH, "height": HEIGHT, "fps": 40.0},
        "depth": {"width": WIDTH, "height": HEIGHT, "fps": 40.0},
        "audio": {"sample_rate": 16000, "channels": 1, "format": "PCM", "bits": 16},
        "joint_names": {"left_arm": LEFT_ARM, "left_ee": [], "right_arm": [], "right_ee": [], "body": []},
        "tactile_names": {"left_ee": [], "right_ee": []},
        "sim_state": "",
    },
    "text": {"goal": "hand over the bottle", "desc": "task description", "steps": "step1: do this"},
}


def jpeg(picture: NDArray[np.uint8]) -> bytes:
    """Encode a picture as any encoder does."""
    out = io.BytesIO()
    Image.fromarray(picture.squeeze()).save(out, "JPEG", quality=95)
    return out.getvalue()


def film(random: np.random.Generator, steps: int) -> NDArray[np.uint8]:
    """Make up a smooth coloured picture that drifts: (T, H, W, 3)."""
    t, y, x = np.meshgrid(np.arange(steps), np.arange(HEIGHT), np.arange(WIDTH), indexing="ij")
    wave = np.sin((x * random.uniform(0.2, 0.5) + y + 3 * t) / 17)
    return np.stack([60 + 40 * wave, 140 + 30 * wave, 200 - 50 * wave], axis=-1).astype(np.uint8)


def arrays(random: np.random.Generator, steps: int) -> dict[str, NDArray[np.float64]]:
    """Make up the numbers of states and actions by their path in a step."""
    sizes = {"left_arm": 7, "right_arm": 7, "left_ee": 1, "right_ee": 1}
    found = {
        f"{side}.{part}.qpos": random.normal(size=(steps, size))
        for side in ("states", "actions")
        for part, size in sizes.items()
    }
    found["states.body.qpos"] = random.normal(size=(steps, 29))
    found["actions.body.qpos"] = random.uniform(-0.3, 0.3, (steps, 3))
    return found


def write_episode(folder: Path, steps: list[dict[str, Any]], head: dict[str, Any] = HEAD) -> Path:
    """Write ``data.json`` piece by piece, as the writer does since version 1.3."""
    folder.mkdir(parents=True, exist_ok=True)
    members = "".join(
        f'"{key}": {json.dumps(value, indent=4, ensure_ascii=False)},\n' for key, value in head.items()
    )
    body = ",\n".join(json.dumps(step, indent=4, ensure_ascii=False) for step in steps)
    folder.joinpath("data.json").write_text(f'{{\n{members}"data": [\n{body}\n]\n}}', encoding="utf-8")
    return folder


def nested(values: dict[str, Any]) -> dict[str, Any]:
    """Return ``{"states.body.qpos": x}`` as objects in objects."""
    out: dict[str, Any] = {}
    for path, value in values.items():
        *above, last = path.split(".")
        place = out
        for key in above:
            place = place.setdefault(key, {})
        place[last] = value
    return out


def step(idx: int, numbers: dict[str, Any], **files: Any) -> dict[str, Any]:
    """Return one step with what the writer always writes."""
    unused = [f"{side}.left_arm.{name}" for side in ("states", "actions") for name in ("qvel", "torque")]
    empty: dict[str, Any] = {name: [] for name in unused}
    always = {"idx": idx, "colors": None, "depths": None, "tactiles": None, "audios": None, "sim_state": None}
    return {**always, **nested({**numbers, **empty}), **files}


def _episode(folder: Path, random: np.random.Generator, turns: list[int]) -> EpisodeTruth:
    steps = len(turns)
    numbers, pictures = arrays(random, steps), film(random, steps)
    depth = np.minimum(film(random, steps)[..., 0].astype(np.int64) * 2, 255).astype(np.uint8)
    sounds = [random.integers(-9000, 9000, SAMPLES[i % 3]).astype(np.int16) for i in range(steps)]
    for name in ("colors", "depths", "audios"):
        folder.joinpath(name).mkdir(parents=True)
    written = []
    for i, turn in enumerate(turns):
        color, deep = f"colors/{turn:06}_color_0.jpg", f"depths/{turn:06}_depth_0.jpg"
        sound = f"audios/audio_{turn:06}_mic0.npy"
        folder.joinpath(color).write_bytes(jpeg(pictures[i]))
        folder.joinpath(deep).write_bytes(jpeg(depth[i]))
        np.save(folder / sound, sounds[i])
        written.append(
            step(
                turn,
                {name: values[i].tolist() for name, values in numbers.items()},
                colors={"color_0": color},
                depths={"depth_0": deep},
                audios={"mic0": sound},
            )
        )
    write_episode(folder, written)
    names = {"states": "observation", "actions": "action"}
    values: dict[str, NDArray[Any]] = {}
    for path, value in numbers.items():
        side, part, _ = path.split(".")
        word = "base_velocity" if (side, part) == ("actions", "body") else "joint_position"
        values[f"{names[side]}.{part}.{word}"] = value
    values["extra.idx"] = np.array(turns)
    values["observation.audio.mic0"] = np.concatenate(sounds)
    values["extra.audio.mic0.samples"] = np.array([len(sound) for sound in sounds])
    return EpisodeTruth(
        values=values,
        close={"observation.images.color_0": (pictures, 35.0), "observation.depth.depth_0": (depth, 35.0)},
        times={"steps": np.array(turns) * 25_000_000},
        instructions=("hand over the bottle",),
    )


def write(folder: Path) -> Truth:
    """Write a task of two episodes; in the second, one turn of the control loop was not written."""
    random = np.random.default_rng(4)
    task, broken = folder / "task", folder / "broken"
    turns = ([0, 1, 2, 3, 4], [0, 1, 3])
    episodes = tuple(_episode(task / f"episode_{i:04}", random, list(t)) for i, t in enumerate(turns))
    shutil.copytree(task / "episode_0001", broken / "episode_0001")
    data = broken / "episode_0001" / "data.json"
    data.write_text(data.read_text("utf-8")[:-200], "utf-8")
    fields = {f"data.{path}" for path in arrays(random, 1)} | {f"info.{key}" for key in HEAD["info"]}
    fields |= {"data.idx", "data.colors.color_0", "data.depths.depth_0", "data.audios.mic0", "text.goal"}
    fields |= {"data.states.left_arm.qvel", "data.tactiles", "data.sim_state"}
    return Truth(path=task, episodes=episodes, fields=frozenset(fields), broken=broken)
