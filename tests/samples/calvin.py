"""A split of CALVIN, written with NumPy as calvin_env's renderer does: two sessions, one described."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.samples import EpisodeTruth, Truth

SPANS = ((5, 9), (10, 12))
TEXTS = (("push the red block", "push_red", (6, 8)), ("open the drawer", "open_drawer", (10, 12)))
STREAMS = {
    "actions": "action",
    "rel_actions": "action.relative",
    "robot_obs": "observation.state",
    "scene_obs": "observation.environment_state",
    "rgb_static": "observation.images.static",
    "rgb_tactile": "observation.images.tactile",
    "depth_static": "observation.depth.static",
    "depth_tactile": "observation.depth.tactile",
}


def step(random: np.random.Generator) -> dict[str, NDArray[Any]]:
    """Make up one time step."""
    return {
        "actions": random.normal(0, 1, 7),
        "rel_actions": random.uniform(-1, 1, 7),
        "robot_obs": random.normal(0, 1, 15),
        "scene_obs": random.normal(0, 1, 24),
        "rgb_static": random.integers(0, 256, (20, 20, 3), np.uint8),
        "rgb_tactile": random.integers(0, 256, (16, 12, 6), np.uint8),
        "depth_static": random.uniform(3, 7, (20, 20)).astype(np.float32),
        "depth_tactile": random.uniform(0, 1, (16, 12, 2)).astype(np.float32),
    }


def write_split(folder: Path) -> list[dict[str, NDArray[Any]]]:
    """Write a split and return its steps, the first of which is number 5."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(15)
    steps = [step(random) for _ in range(SPANS[0][0], SPANS[-1][1] + 1)]
    for number, arrays in enumerate(steps, SPANS[0][0]):
        np.savez_compressed(folder / f"episode_{number:07d}.npz", **arrays)  # type: ignore[arg-type]
    np.save(folder / "ep_start_end_ids.npy", np.array(SPANS))
    np.save(folder / "ep_lens.npy", np.array([last - first + 1 for first, last in SPANS]))
    language = {
        "language": {
            "ann": [text for text, _, _ in TEXTS],
            "task": [task for _, task, _ in TEXTS],
            "emb": random.normal(0, 1, (2, 1, 8)).astype(np.float32),
        },
        "info": {"episodes": [], "indx": [span for _, _, span in TEXTS]},
    }
    folder.joinpath("lang_annotations").mkdir()
    np.save(folder / "lang_annotations" / "auto_lang_ann.npy", np.array(language), allow_pickle=True)
    return steps


def write(folder: Path) -> Truth:
    """Write a split of two sessions of 5 and 3 steps, and one with a step cut off."""
    whole = folder / "whole"
    steps = write_split(whole / "training")
    broken = folder / "broken"
    shutil.copytree(whole / "training", broken)
    last = broken / "episode_0000009.npz"
    np.savez_compressed(last, **{**steps[4], "rgb_static": steps[4]["rgb_static"][:10]})  # type: ignore[arg-type]
    first = SPANS[0][0]
    return Truth(
        path=whole,
        episodes=tuple(
            EpisodeTruth(
                values={
                    stream: np.stack([arrays[key] for arrays in steps[start - first : stop + 1 - first]])
                    for key, stream in STREAMS.items()
                },
                times={"steps": np.array([round(i * 1e9 / 30) for i in range(stop + 1 - start)], np.int64)},
                instructions=tuple(text for text, _, (a, b) in TEXTS if start <= a <= b <= stop),
            )
            for start, stop in SPANS
        ),
        fields=frozenset(
            {
                *(f"episode_*.npz: {key}" for key in STREAMS),
                *(f"lang_annotations/auto_lang_ann.npy: language/{key}" for key in ("ann", "task", "emb")),
                "lang_annotations/auto_lang_ann.npy: info/indx",
                "ep_start_end_ids.npy",
                "ep_lens.npy",
            }
        ),
        broken=broken,
    )
