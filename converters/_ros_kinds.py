"""Topics of types whose meaning is known: pictures, video, joints and transforms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from ..schemas import UNKNOWN, Array, Json, StreamSpec
from ..schemas.episode import Fate
from ._draft import stream_name
from ._ros_clocks import Taken
from ._ros_joints import JOINTS, Joints, joints_of
from ._ros_pictures import COMPRESSED_TYPES, RAW_TYPES, NotReadError, picture_form, pictures
from ._ros_topic import Shared, TopicDraft
from ._ros_transforms import TRANSFORMS, Pair, transforms
from ._ros_video import TYPES as VIDEO_TYPES
from ._ros_video import video_of
from ._topics import Column, Source

_INFO_TYPES = {"sensor_msgs/CameraInfo", "foxglove.CameraCalibration", "foxglove_msgs/CameraCalibration"}
_INTRINSICS = ("width", "height", "distortion_model", "D", "K", "R", "P")


class KnownTopicDraft(TopicDraft):
    """One topic on its way into an episode.

    Parameters
    ----------
    pairs
        The pairs of frames, if it is a topic of transforms.
    """

    def __init__(
        self, shared: Shared, name: str, taken: Taken, start: int, pairs: Sequence[Pair] | None
    ) -> None:
        super().__init__(shared, name, taken, start)
        self._pairs = pairs

    def known(self) -> None:
        """Take the leaves whose meaning the type tells."""
        kind = self.topic.short_type
        if kind in RAW_TYPES | COMPRESSED_TYPES:
            self._pictures()
        elif kind in VIDEO_TYPES:
            self._video()
        elif self._pairs is not None:
            self._transforms(self._pairs)
        elif kind in JOINTS:
            self._joints()

    def _pictures(self) -> None:
        try:
            form = picture_form(self.topic)
        except NotReadError as error:
            self._not_read("data", str(error))
            return
        self.take("data")
        spec = StreamSpec(
            name=stream_name(
                *{"video": ("observation", "images"), "depth": ("observation", "depth")}.get(
                    form.kind, ("extra",)
                ),
                *self.parts,
            ),
            kind=form.kind,
            dtype=form.dtype,
            shape=form.shape,
            unit=(form.unit,) if form.kind == "depth" else (UNKNOWN,),
            frame=self.frame(),
            clock=self.clock,
            attributes={**form.attributes, **self._intrinsics()},
        )
        read = partial(pictures, self.source, self.name, form, self.shared.options.block_bytes)
        name = self.draft.add(
            spec, self.topic.count, read, source=self.field("data"), how=form.how, lossless=form.lossless
        )
        for path in ("height", "width", "step", "is_bigendian"):
            if self.take(path) is not None:
                self.draft.account(self.field(path), "renamed", [name])

    def _not_read(self, path: str, why: str) -> None:
        if self.take(path) is not None:
            self.draft.drop(self.field(path), why)
        self.draft.warn(f"{self.name}: {self.topic.count:,} pictures are not read: {why}")

    def _video(self) -> None:
        try:
            video = video_of(self.source, self.name)
        except NotReadError as error:
            self._not_read("data", str(error))
            return
        self.take("data")
        clock, how = self.clock, ""
        if video.skipped:
            clock = self.free_clock(f"{self.clock}-video")
            times = self.taken.times[video.skipped :] - self.start
            self.draft.recorded(clock, times, self.taken.source, field=self.name)
            how = f"without the first {video.skipped} pictures: before a key picture, nobody can decode any"
            self.draft.warn(f"{self.name}: {how}")
        spec = StreamSpec(
            name=stream_name("observation", "images", *self.parts),
            kind="video",
            dtype="uint8",
            shape=(video.format.height, video.format.width, 3),
            frame=self.frame(),
            clock=clock,
            attributes={**video.attributes, **self._intrinsics()},
        )
        read = partial(video.frames, self.shared.options.block_bytes)
        self.draft.add(
            spec,
            len(video),
            read,
            source=self.field("data"),
            how=how,
            lossless=not how,
            packets=video.packets(),
        )

    def _intrinsics(self) -> dict[str, Json]:
        """Return what the camera's info topic tells, if there is one and it never changes."""
        for name in _info_topics(self.name):
            topic = self.shared.recording.topics.get(name)
            if topic is None or topic.short_type not in _INFO_TYPES or topic.problem or not topic.count:
                continue
            told: dict[str, Json] = {"topic": name}
            for path in _INTRINSICS:
                column = topic.columns.get(path) or topic.columns.get(path.lower())
                value = _unchanging(column) if column is not None else None
                if value is None and path == "K":
                    return {}
                if value is not None:
                    told[path] = value
            return {"intrinsics": told}
        return {}

    def _transforms(self, pairs: Sequence[Pair]) -> None:
        layout = TRANSFORMS[self.topic.short_type]
        values = {path: self.take(path) for path in (layout.translation, layout.rotation)}
        others = [self.take(path) for path in (layout.stamp, layout.parent, layout.child)]
        to: dict[str, list[str]] = {path: [] for path in values}
        clocks = []
        for number, pair in enumerate(pairs):
            names = [*self.parts, pair.parent or "_", pair.child or "_"]
            clock = self.free_clock("_".join(names))
            self.draft.recorded(clock, pair.taken.times - self.start, pair.taken.source, field=self.name)
            clocks.append(f"clocks.{clock}")
            for path, word, axes, unit in (
                (layout.translation, "translation", ("x", "y", "z"), "m"),
                (layout.rotation, "rotation", ("x", "y", "z", "w"), "1"),
            ):
                spec = StreamSpec(
                    name=self.draft.free(stream_name("extra", *names, word)),
                    kind="low_dim", dtype="float64", shape=(len(axes),), unit=(unit,), axes=axes, clock=clock,
                    frame=pair.parent or UNKNOWN, attributes={"child_frame": pair.child},
                    description="Pose of the child frame in the parent frame.",
                )  # fmt: skip
                read = partial(
                    transforms, self.source, self.name, number, path, self.shared.options.block_bytes
                )
                to[path].append(self.put(spec, len(pair.which), read))
            self._other_stamps(layout.stamp, names, clock, number, pair)
        how = "one stream for each pair of parent and child"
        for path, names in to.items():
            self.draft.account(self.field(path), "transformed", names, how)
        for column in others:
            if column is not None:
                places = clocks if column.leaf.kind == "time" else to[layout.translation]
                self.draft.account(self.field(column.leaf.path), "transformed", places, how)

    def _other_stamps(self, path: str, names: list[str], clock: str, number: int, pair: Pair) -> None:
        """Keep the stamps that did not become the clock of a pair."""
        word = "log_time" if pair.taken.header else "stamp"
        spec = StreamSpec(
            name=self.draft.free(stream_name("extra", *names, word)),
            kind="low_dim", dtype="int64", shape=(), unit=("ns",), clock=clock,
        )  # fmt: skip
        read = partial(
            transforms,
            self.source,
            self.name,
            number,
            word if word == "log_time" else path,
            self.shared.options.block_bytes,
        )
        name = self.put(spec, len(pair.which), read)
        self.elsewhere.append(name if pair.taken.header else f"clocks.{clock}")
        shown = "/".join(filter(None, (pair.parent, pair.child)))
        self.draft.account(f"{self.field(word)}@{shown}#{number}", "renamed", [name])

    def _joints(self) -> None:
        joints = joints_of(self.topic)
        if joints is None:
            return
        layout = JOINTS[self.topic.short_type]
        self.take(layout.name)
        named: list[str] = []
        for path in layout.values:
            column = self.left.get(path)
            if column is None or not column.total or not joints.fits(column):
                continue
            del self.left[path]
            word = path.rpartition(".")[2]
            names = [self._joint_stream(word, path, joints, group) for group in range(len(joints.groups))]
            named += names
            how = (
                ""
                if joints.plain
                else "by the names of the joints, whose order or number differs between messages"
            )
            fate: Fate = "transformed" if how else "renamed"
            self.draft.account(self.field(path), fate, names, how)
        if named:
            self.draft.account(self.field(layout.name), "transformed", named, "they name the axes")
        else:
            self.draft.drop(self.field(layout.name), "names joints that have no values")

    def _joint_stream(self, word: str, path: str, joints: Joints, group: int) -> str:
        which, names = joints.groups[group]
        clock = self.clock
        if len(joints.groups) > 1:
            clock = f"{self.clock}-{group + 1}"
            if clock not in self.draft.clocks:
                times = self.taken.times[which] - self.start
                self.draft.recorded(clock, times, self.taken.source, field=self.name)
        column = self.topic.columns[path]
        spec = StreamSpec(
            name=self.draft.free(stream_name(self.home, *self.parts, word)),
            kind="low_dim",
            dtype=column.dtype,
            shape=(len(names),),
            axes=names if len(set(names)) == len(names) and all(names) else (),
            clock=clock,
            description="rad or m for a position, by the joint's kind, which the message does not tell.",
        )
        read = partial(_joint_rows, self.source, self.name, path, group, self.shared.options.block_bytes)
        return self.put(spec, len(which), read)


def _info_topics(name: str) -> list[str]:
    """Return where the calibration of a camera may be published.

    In the camera's own namespace (github.com/ros-perception/image_common: camera_common.cpp), also that of a
    transport's base topic; or where librealsense puts it (src/media/ros/ros_file_format.h).
    """
    above = name.rpartition("/")[0]
    places = [f"{above}/camera_info", f"{above.rpartition('/')[0]}/camera_info"]
    if name.endswith("/image/data"):
        places.insert(0, f"{name.removesuffix('/image/data')}/info/camera_info")
    places.append(f"{above}/calibration")
    return places


def _unchanging(column: Column) -> Json:
    """Return a leaf's value as JSON if no message has another; else None."""
    if column.leaf.kind == "text":
        return column.constant[0] if column.constant else None
    if column.shape is None or not column.kept or not column.total:
        return None
    rows = np.concatenate(list(column.rows(0, len(column.counts), 1 << 20)))
    same = bool(np.all(rows == rows[0])) and bool(np.all(np.isfinite(rows[0])))
    return rows[0].tolist() if same else None


def _joint_rows(
    source: Source, name: str, path: str, group: int, block_bytes: int, start: int, stop: int
) -> Iterator[Array]:
    topic = source.topic(name)
    joints = joints_of(topic)
    return iter(()) if joints is None else joints.rows(topic.columns[path], group, block_bytes, start, stop)
