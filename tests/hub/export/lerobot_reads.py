"""Run by an interpreter that has LeRobot: prints what its loader gives of a dataset.

Usage: lerobot_reads.py ROOT OUT.npz
"""

import json
import sys

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset


def main(root: str, out: str) -> None:
    dataset = LeRobotDataset("lab/arms", root=root)
    found = {}
    keys = [key for key, feature in dataset.features.items() if feature["dtype"] != "string"]
    items = [dataset[index] for index in range(len(dataset))]
    for key in keys:
        values = np.stack([item[key].numpy() for item in items])
        if dataset.features[key]["dtype"] == "video":
            values = np.round(values * 255).astype(np.uint8).transpose(0, 2, 3, 1)
        found[key] = values
    np.savez(out, allow_pickle=False, **found)
    stats = {key: sorted(figures) for key, figures in dataset.meta.stats.items()}
    told = {"fps": dataset.fps, "tasks": [item["task"] for item in items], "stats": stats}
    sys.stdout.write(
        json.dumps({**told, "robot": dataset.meta.robot_type, "episodes": dataset.meta.total_episodes}) + "\n"
    )


main(*sys.argv[1:])
