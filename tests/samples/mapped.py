"""A lab's own HDF5, of a layout that no converter knows, and the mapping that its people wrote."""

import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.samples import EpisodeTruth, Truth

HEIGHT, WIDTH = 16, 24
MAPPING = """\
mapping = 1

[episodes]
files = "runs/*.h5"

[episode]
instruction_field = "meta@task"
embodiment = "UR5e with a suction cup"
outcome_field = "@ok"

[clocks.steps]
field = "control/stamp"
unit = "us"

[clocks.camera]
field = "camera/t"
unit = "s"

[streams."observation.joint_position"]
field = "control/state"
columns = [0, 6]
unit = "rad"
axes = ["pan", "lift", "elbow", "wrist_1", "wrist_2", "wrist_3"]

[streams."observation.gripper"]
field = "control/state"
columns = [6, 7]
unit = "1"

[streams.action]
field = ["control/target_x", "control/target_yz"]
unit = "m"
frame = "base"

[streams.action.contract]
offset_steps = 0
evidence = "the lab's manual"

[[streams.action.contract.parts]]
start = 0
stop = 3
space = "ee_position"
mode = "absolute"
frame = "base"
rotation = "none"

[streams."observation.images.front"]
field = "camera/front"
kind = "video"
encoding = "jpeg"
order = "bgr"
clock = "camera"

[streams."observation.images.wrist"]
field = "camera/wrist"
kind = "video"
layout = "chw"
order = "rgb"
clock = "camera"

[[events]]
field = "control/phase"
kind = "phase"

[drop]
"debug/*" = "scratch space of the controller"
"""


def jpeg(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Encode a picture as OpenCV does a red-first one: red and blue end up in each other's place."""
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture[..., ::-1])).save(out, "JPEG", quality=95)
    return np.frombuffer(out.getvalue(), np.uint8)


def _run(path: Path, seed: int, steps: int, frames: int) -> EpisodeTruth:
    random = np.random.default_rng(seed)
    stamp = 1_700_000_000_000_000 + np.cumsum(random.integers(1_900, 2_100, steps))
    camera = stamp[0] / 1e6 + 0.004 + np.arange(frames) / 64
    state = random.normal(size=(steps, 8)).astype(np.float32)
    x, yz = random.normal(size=steps), random.normal(size=(steps, 2))
    y, z = np.meshgrid(np.arange(HEIGHT), np.arange(WIDTH), indexing="ij")
    front = np.stack(
        [np.stack([40 + y * 2 + f, 100 + z, 220 - y - f], axis=-1) for f in range(frames)]
    ).astype(np.uint8)
    wrist = random.integers(0, 255, (frames, 3, HEIGHT, WIDTH), dtype=np.uint8)
    with h5py.File(path, "w") as file:
        file.attrs.update({"ok": True, "operator": "A. N. Other"})
        file.create_group("meta").attrs["task"] = "stack the trays"
        file["control/stamp"] = stamp
        file["control/state"] = state
        file["control/target_x"], file["control/target_yz"] = x, yz
        file["control/phase"] = np.repeat([b"reach", b"lift"], [3, steps - 3])
        file["control/spare"] = np.arange(steps)
        file["camera/t"], file["camera/wrist"] = camera, wrist
        jpegs = file.create_dataset("camera/front", frames, h5py.vlen_dtype(np.uint8))
        for i, picture in enumerate(front):
            jpegs[i] = jpeg(picture)
        file["camera/K"] = np.eye(3)
        file["debug/a"], file["debug/b"] = np.zeros(3), np.zeros(4)
    first = stamp[0] * 1_000
    values: dict[str, NDArray[Any]] = {
        "observation.joint_position": state[:, :6],
        "observation.gripper": state[:, 6:7],
        "extra.control.state.7-8": state[:, 7:],
        "action": np.column_stack([x, yz]),
        "observation.images.wrist": wrist.transpose(0, 2, 3, 1),
        "extra.control.spare": np.arange(steps),
    }
    taken = np.rint((camera - camera[0]) * 1e9).astype(np.int64)
    offset = round(Fraction(float(camera[0])) * 10**9)
    return EpisodeTruth(
        values=values,
        close={"observation.images.front": (front, 35.0)},
        times={"steps": stamp * 1_000 - first, "camera": taken + (offset - int(first))},
        instructions=("stack the trays",),
    )


def write(folder: Path) -> Truth:
    """Write two runs and their mapping; the broken one's camera stopped early and its times went on."""
    site, broken = folder / "site", folder / "broken"
    for place in (site, broken):
        place.joinpath("runs").mkdir(parents=True)
        place.joinpath("teleopen.toml").write_text(MAPPING)
    episodes = tuple(_run(site / f"runs/{n}.h5", n, steps, 4) for n, steps in ((2, 9), (10, 7)))
    _run(broken / "runs/1.h5", 1, 9, 4)
    with h5py.File(broken / "runs/1.h5", "r+") as file:
        del file["camera/wrist"]
        file["camera/wrist"] = np.zeros((3, 3, HEIGHT, WIDTH), np.uint8)
    names = {"control/stamp", "control/state", "control/target_x", "control/target_yz", "control/phase"}
    names |= {"control/spare", "camera/t", "camera/front", "camera/wrist", "camera/K", "debug/a", "debug/b"}
    names |= {"@ok", "@operator", "meta@task"}
    return Truth(path=site, episodes=episodes, fields=frozenset(names), broken=broken)
