"""A scene of RH20T, written after the code that reads it: pickled tables and two videos of one camera."""

import json
import shutil
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from tests.samples import EpisodeTruth, Truth

SCENE = "task_0001_user_0002_scene_0003_cfg_0003"
START = 1_650_000_000_000
COLOR = START + 40 + np.array([0, 100, 199, 301, 402])
DEPTH = COLOR + 3
SERIALS = ("045322071843", "f0000001")


def write_video(path: Path, frames: NDArray[np.uint8]) -> None:
    """Write pictures as H.264: colour at high quality, grey without loss."""
    grey = frames.ndim == 3
    with av.open(str(path), "w", format="mp4") as container:
        stream: Any = container.add_stream("libx264", rate=10)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "gray" if grey else "yuv420p"
        stream.options = {"crf": "0" if grey else "8", "bf": "0"}
        if grey:
            stream.codec_context.color_range = 2
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(frame, format="gray" if grey else "rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


def save(path: Path, held: Any) -> None:
    """Write a dict as `numpy.save` does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.array(held, dtype=object), allow_pickle=True)


def tables(
    random: np.random.Generator,
) -> tuple[dict[str, Any], dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
    """Make up tables of two cameras whose rows alternate; return them, their values and their times."""
    stamps = {SERIALS[0]: START + np.array([0, 100, 200]), SERIALS[1]: START + np.array([50, 150])}
    merged = sorted((int(t), c) for c, serial in enumerate(SERIALS) for t in stamps[serial])
    count = len(merged)
    poses, wrenches, raw = (random.normal(0, 1, (count, width)) for width in (7, 6, 6))
    joints = random.normal(0, 1, (count, 8))
    commands, infos = random.integers(0, 255, (2, count, 3))
    place = {key: i for i, key in enumerate(merged)}

    def by_camera(row: Any) -> dict[str, Any]:
        return {s: [row(int(t), place[int(t), c]) for t in stamps[s]] for c, s in enumerate(SERIALS)}

    def by_time(row: Any) -> dict[str, Any]:
        return {s: {int(t): row(place[int(t), c]) for t in stamps[s]} for c, s in enumerate(SERIALS)}

    fast = [
        {"timestamp": START + 7 + 10 * i, "zeroed": wrenches[i], "raw": raw[i], "tcp": poses[i]}
        for i in range(4)
    ]
    held = {
        "tcp_base": by_camera(lambda t, i: {"timestamp": t, "tcp": poses[i]}),
        "tcp": by_camera(lambda t, i: {"timestamp": t, "tcp": poses[i] + 1}),
        "force_torque_base": by_camera(lambda t, i: {"timestamp": t, "zeroed": wrenches[i], "raw": raw[i]}),
        "joint": by_time(lambda i: joints[i]),
        "gripper": by_time(lambda i: {"gripper_command": commands[i], "gripper_info": infos[i]}),
        "high_freq_data": dict.fromkeys(("base", SERIALS[0]), fast),
    }
    values = {
        "observation.ee_pose": poses,
        "observation.camera_frame.ee_pose": poses + 1,
        "observation.force_torque": wrenches,
        "observation.force_torque_raw": raw,
        "observation.joint_position": joints[:, :6],
        "extra.joint.rest": joints[:, 6:],
        "action.gripper": commands,
        "observation.gripper": infos,
        "observation.high_freq.ee_pose": poses[:4],
        "observation.high_freq.force_torque": wrenches[:4],
        "observation.high_freq.force_torque_raw": raw[:4],
    }
    cameras = np.array([camera for _, camera in merged], np.int16)
    merged_times = 1_000_000 * (np.array([stamp for stamp, _ in merged], np.int64) - START)
    times = {}
    for name in ("tcp_base", "tcp", "force_torque_base", "joint", "gripper"):
        values[f"extra.{name}.camera"] = cameras
        times[name] = merged_times
    times["high_freq"] = 1_000_000 * (7 + 10 * np.arange(4, dtype=np.int64))
    return held, values, times


def write_scene(folder: Path) -> EpisodeTruth:
    """Write a scene, and the calibration beside it."""
    random = np.random.default_rng(20)
    held, values, times = tables(random)
    for name, table in held.items():
        save(folder / "transformed" / f"{name}.npy", table)
    camera = folder / f"cam_{SERIALS[1]}"
    camera.mkdir()
    shades = np.add.outer(np.arange(36), np.arange(64))[..., None] + np.array([0, 40, 90])
    colour = np.stack([(shades + 5 * i).astype(np.uint8) for i in range(5)])
    depth = random.integers(0, 65_536, (5, 36, 64)).astype(np.uint16)
    write_video(camera / "color.mp4", colour)
    write_video(camera / "depth.mp4", np.concatenate([depth & 255, depth >> 8], axis=1).astype(np.uint8))
    save(camera / "timestamps.npy", {"color": COLOR.tolist(), "depth": DEPTH.tolist()})
    raw = random.normal(0, 1, (6, 6 + 6 + 6))
    clock = START + 5.0 + 2 * np.arange(6)
    folder.joinpath("high_freq_data").mkdir()
    np.save(folder / "high_freq_data" / "force_torque_tcp_joint_timestamp.npy", np.column_stack([raw, clock]))
    folder.joinpath("metadata.json").write_text(
        json.dumps({"calib": 1_649_000_000_000, "rating": 9, "finish_time": -1})
    )
    calibration = folder.parent / "calib" / "1649000000000"
    save(calibration / "intrinsics.npy", {serial: np.eye(3, 4) * 900 for serial in SERIALS})
    save(calibration / "extrinsics.npy", {serial: [np.eye(4)] for serial in SERIALS})
    values["observation.depth.f0000001"] = depth
    for name, part in zip(("force_torque", "tcp", "joint"), np.split(raw, 3, axis=1), strict=True):
        values[f"observation.raw.{name}"] = part
    times["color_f0000001"] = 1_000_000 * (COLOR - START)
    times["depth_f0000001"] = 1_000_000 * (DEPTH - START)
    times["force_torque_tcp_joint_timestamp"] = 1_000_000 * (5 + 2 * np.arange(6, dtype=np.int64))
    return EpisodeTruth(values=values, close={"observation.images.f0000001": (colour, 30.0)}, times=times)


def write(folder: Path) -> Truth:
    """Write a scene of a UR5, and one whose table of joints lost a number."""
    whole = folder / "whole"
    truth = write_scene(whole / SCENE)
    broken = folder / "broken" / SCENE
    shutil.copytree(whole / SCENE, broken)
    save(broken / "transformed" / "joint.npy", {SERIALS[0]: {START: np.zeros(6), START + 100: np.zeros(5)}})
    fields = {
        "metadata.json",
        "calib/intrinsics.npy",
        "calib/extrinsics.npy",
        "cam_f0000001/color.mp4",
        "cam_f0000001/depth.mp4",
        "cam_f0000001/timestamps.npy",
        "transformed/tcp_base.npy: tcp",
        "transformed/force_torque_base.npy: zeroed",
        "transformed/joint.npy: value",
        "transformed/gripper.npy: gripper_command",
        "transformed/high_freq_data.npy: 045322071843",
    }
    return Truth(path=whole / SCENE, episodes=(truth,), fields=frozenset(fields), broken=broken)
