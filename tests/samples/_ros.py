"""One run of an arm, as messages of either ROS: what was recorded, and which streams that must become."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

START = 1_700_000_000_250_000_000
LATE = 2_000_000
"""Nanoseconds from a message's stamp to its log time."""
JOINTS = ("shoulder", "elbow", "wrist")
INSTRUCTION = "stack the red cube on the blue one"
STORES = {1: Stores.ROS1_NOETIC, 2: Stores.ROS2_HUMBLE}


@dataclass(frozen=True)
class Told:
    """A message: its topic, type, log time and content."""

    topic: str
    type: str
    log_ns: int
    message: Any


@dataclass
class Run:
    """The run in the types of ROS 1 or 2."""

    version: int

    def __post_init__(self) -> None:
        self.store = get_typestore(STORES[self.version])
        tf = "tf2_msgs/msg/TFMessage"
        if tf not in self.store.types:
            self.store.register(get_types_from_msg("geometry_msgs/TransformStamped[] transforms", tf))
        random = np.random.default_rng(5)
        self.position = random.normal(size=(12, 3))
        self.velocity = random.normal(size=(12, 3))
        self.pixels = random.integers(0, 255, (6, 6, 8, 3), dtype=np.uint8)
        self.poses = random.normal(size=(6, 7))
        self.grip = random.uniform(0, 0.08, 5)
        self.scans = [random.normal(size=n).astype(np.float32) for n in (3, 0, 5, 1)]
        self.transforms = random.normal(size=(4, 2, 7))

    def of(self, type_: str, /, **fields: Any) -> Any:
        return self.store.types[type_](**fields)

    def header(self, stamp: int, frame: str) -> Any:
        time = self.of("builtin_interfaces/msg/Time", sec=stamp // 10**9, nanosec=stamp % 10**9)
        sequence = {"seq": 7} if self.version == 1 else {}
        return self.of("std_msgs/msg/Header", stamp=time, frame_id=frame, **sequence)

    def messages(self) -> Iterator[Told]:
        """Yield the messages, topic after topic."""
        text = "std_msgs/msg/String"
        yield Told("/task/instruction", text, START + LATE, self.of(text, data=INSTRUCTION))
        yield from self._joints()
        yield from self._pictures()
        yield from self._poses()
        yield from self._arrays()
        yield from self._transforms()

    def _joints(self) -> Iterator[Told]:
        kind = "sensor_msgs/msg/JointState"
        for i in range(12):
            stamp = START + i * 20_000_000
            order = [0, 1, 2] if i % 2 == 0 else [2, 0, 1]
            yield Told("/joint_states", kind, stamp + LATE, self.of(
                kind, header=self.header(stamp, ""), name=[JOINTS[k] for k in order],
                position=self.position[i, order], velocity=self.velocity[i, order], effort=np.empty(0),
            ))  # fmt: skip

    def _pictures(self) -> Iterator[Told]:
        kind = "sensor_msgs/msg/Image"
        for i, pixels in enumerate(self.pixels):
            stamp = START + i * 40_000_000
            padded = np.full((6, 30), 99, np.uint8)
            padded[:, :24] = pixels[..., ::-1].reshape(6, 24)
            yield Told("/cam/image_raw", kind, stamp + LATE, self.of(
                kind, header=self.header(stamp, "camera"), height=6, width=8, encoding="bgr8",
                is_bigendian=0, step=30, data=padded.reshape(-1),
            ))  # fmt: skip

    def _pose(self, values: NDArray[Any]) -> dict[str, Any]:
        vector = {name: float(value) for name, value in zip("xyz", values[:3], strict=True)}
        turn = {name: float(value) for name, value in zip("xyzw", values[3:], strict=True)}
        return {"vector": vector, "turn": turn}

    def _poses(self) -> Iterator[Told]:
        kind = "geometry_msgs/msg/PoseStamped"
        for i, values in enumerate(self.poses):
            stamp = START + i * 40_000_000
            parts = self._pose(values)
            pose = self.of(
                "geometry_msgs/msg/Pose",
                position=self.of("geometry_msgs/msg/Point", **parts["vector"]),
                orientation=self.of("geometry_msgs/msg/Quaternion", **parts["turn"]),
            )
            message = self.of(kind, header=self.header(stamp, "base"), pose=pose)
            yield Told("/ee_pose", kind, stamp + LATE, message)

    def _arrays(self) -> Iterator[Told]:
        kind = "std_msgs/msg/Float64"
        for i, value in enumerate(self.grip):
            yield Told("/gripper", kind, START + LATE + i * 50_000_000, self.of(kind, data=float(value)))
        kind = "std_msgs/msg/Float32MultiArray"
        layout = self.of("std_msgs/msg/MultiArrayLayout", dim=[], data_offset=0)
        for i, values in enumerate(self.scans):
            yield Told(
                "/scan", kind, START + LATE + i * 60_000_000, self.of(kind, layout=layout, data=values)
            )

    def _transforms(self) -> Iterator[Told]:
        kind = "tf2_msgs/msg/TFMessage"
        for i, both in enumerate(self.transforms):
            stamp = START + i * 60_000_000
            stamped = []
            for child, values in zip(("hand", "camera"), both, strict=True):
                parts = self._pose(values)
                stamped.append(self.of(
                    "geometry_msgs/msg/TransformStamped",
                    header=self.header(stamp, "base"), child_frame_id=child,
                    transform=self.of(
                        "geometry_msgs/msg/Transform",
                        translation=self.of("geometry_msgs/msg/Vector3", **parts["vector"]),
                        rotation=self.of("geometry_msgs/msg/Quaternion", **parts["turn"]),
                    ),
                ))  # fmt: skip
            yield Told("/tf", kind, stamp + LATE, self.of(kind, transforms=stamped))

    def streams(self) -> dict[str, NDArray[Any]]:
        """Return the streams that the run must become."""

        def log(step_ms: int, count: int) -> NDArray[np.int64]:
            return START + LATE + np.arange(count) * step_ms * 1_000_000

        found: dict[str, NDArray[Any]] = {
            "observation.joint_states.position": self.position,
            "observation.joint_states.velocity": self.velocity,
            "extra.joint_states.log_time": log(20, 12),
            "observation.images.cam.image_raw": self.pixels,
            "extra.cam.image_raw.log_time": log(40, 6),
            "extra.ee_pose.pose.position": self.poses[:, :3],
            "extra.ee_pose.pose.orientation": self.poses[:, 3:],
            "extra.ee_pose.log_time": log(40, 6),
            "extra.gripper.data": self.grip,
            "extra.scan.data": np.concatenate(self.scans),
            "extra.scan.data.count": np.array([3, 0, 5, 1]),
            "extra.scan.layout.data_offset": np.zeros(4, np.uint32),
        }
        for k, child in enumerate(("hand", "camera")):
            found[f"extra.tf.base.{child}.translation"] = self.transforms[:, k, :3]
            found[f"extra.tf.base.{child}.rotation"] = self.transforms[:, k, 3:]
            found[f"extra.tf.base.{child}.log_time"] = log(60, 4)
        if self.version == 1:
            for path, count in {"joint_states": 12, "cam.image_raw": 6, "ee_pose": 6}.items():
                home = "observation" if path == "joint_states" else "extra"
                found[f"{home}.{path}.header.seq"] = np.full(count, 7, np.uint32)
            found["extra.tf.transforms.header.seq"] = np.full((4, 2), 7, np.uint32)
        return found

    def times(self) -> dict[str, NDArray[np.int64]]:
        """Return the clocks, from the first stamp on."""
        return {
            "joint_states": np.arange(12) * 20_000_000,
            "cam_image_raw": np.arange(6) * 40_000_000,
            "gripper": LATE + np.arange(5) * 50_000_000,
            "scan-data": LATE + np.repeat([0, 2, 3], [3, 5, 1]) * 60_000_000,
            "tf_base_hand": np.arange(4) * 60_000_000,
        }

    def fields(self) -> frozenset[str]:
        """Return fields of the source that must be accounted for, lost ones among them."""
        arm = ("position", "effort", "name", "header.stamp", "header.frame_id")
        return frozenset(
            {
                *(f"/joint_states:{path}" for path in arm),
                "/cam/image_raw:data",
                "/cam/image_raw:step",
                "/ee_pose:pose.position",
                "/task/instruction:data",
                "/scan:data",
                "/scan:layout.dim[].label",
                "/gripper:log_time",
                "/tf:transforms[].transform.rotation",
                "/tf:transforms[].child_frame_id",
            }
        )

    def definition(self, name: str) -> str:
        """Return the text that defines a type, with all that it refers to."""
        text, _ = self.store.generate_msgdef(name, ros_version=self.version)
        return str(text)
