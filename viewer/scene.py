"""A robot in 3D: as it was measured, and as it was commanded, beside it as a ghost; and the way of its hand.

With meshes where a URDF and its files are at hand, else as sticks between its joints. Positions beyond a
joint's limits are shown as they are: Rerun would move them back to the limits unless told not to.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..schemas import Episode, Stream
from .kinematics import Joint, Poses, Rows, pose_of
from .plan import Namer, Recorded, RecordOptions
from .rerun import rr
from .robots import Placed, Source
from .timing import Timing
from .urdf import Document, with_meshes

Extend = Callable[[Episode, rr.RecordingStream, Recorded, RecordOptions], Recorded]

_ROWS = 2_048
_MEASURED = (70, 140, 240)
_COMMANDED = (240, 160, 50)
_GHOST = 90  # of 255: how solid what was commanded is
_STICK = 0.012  # metres
_THIN = 0.003
_MOST_POINTS = 5_000  # of a trail


def robots(arms: Sequence[Placed]) -> Extend:
    """Return what adds robots to a recording, for `teleopen.viewer.record.write`."""

    def extend(
        episode: Episode, sink: rr.RecordingStream, recorded: Recorded, options: RecordOptions
    ) -> Recorded:
        found: list[str] = []
        for arm in arms:
            for what, source in (("robot", arm.state), ("commanded", arm.command)):
                if source is not None:
                    found += _Body(episode, sink, options, arm, source, what).draw()
        notes = [note for arm in arms for note in arm.notes()]
        card = replace(recorded.card, notes=(*recorded.card.notes, *notes))
        return replace(recorded, spatial=(*recorded.spatial, *found), card=card)

    return extend


class _Body:
    """One arm as one stream tells it."""

    def __init__(
        self,
        episode: Episode,
        sink: rr.RecordingStream,
        options: RecordOptions,
        arm: Placed,
        source: Source,
        what: str,
    ) -> None:
        self.sink, self.arm, self.source = sink, arm, source
        self.is_ghost = what == "commanded"
        self.stream: Stream = episode.streams[source.stream]
        self.timing = Timing(episode, options.timelines)
        self.base = pose_of(arm.arm.xyz, arm.arm.rpy)
        self.name = Namer(options)
        self.what = f"{what}_{arm.arm.name}" if arm.arm.name else what
        # Rerun takes a prefix of a robot as one part of a path, so it cannot lie below another entity.
        self.flat = f"{options.prefix}_{self.what}" if options.prefix else self.what

    def draw(self) -> Iterator[str]:
        """Log it; yield the entities that are to be seen."""
        document = self.arm.robot.document
        files = document.mesh_files() if document is not None else None
        if document is not None and files:
            self._meshes(document, files)
            yield f"/{self.flat}"
        else:
            yield self._sticks()
        yield self._trail()

    def _blocks(self) -> Iterator[tuple[list[rr.TimeColumn], Mapping[str, Rows]]]:
        """Yield the times and the positions of the joints, some rows at a time."""
        clock = self.stream.spec.clock
        for first in range(0, self.stream.length, _ROWS):
            values = self.stream.values(first, first + _ROWS).astype(np.float64)
            at = self.timing.of_clock(clock, first, first + len(values))
            yield at, self.source.positions(np.nan_to_num(values))

    # As sticks

    def _sticks(self) -> str:
        path = self.name(self.what)
        colour = (*(_COMMANDED if self.is_ghost else _MEASURED), _GHOST if self.is_ghost else 255)
        style = rr.LineStrips3D.from_fields(colors=colour, radii=_THIN if self.is_ghost else _STICK)
        self.sink.log(path, style, static=True)
        chain = self.arm.robot.chain
        for at, positions in self._blocks():
            sticks = _sticks(self.base, chain.poses(positions), chain.joints)
            count, per_row = sticks.shape[:2]
            columns = rr.LineStrips3D.columns(strips=list(sticks.reshape(-1, 2, 3)))
            self.sink.send_columns(path, at, columns.partition([per_row] * count))
        return path

    def _trail(self) -> str:
        """Log the way of the hand as one line that is there all the time."""
        path = self.name(f"trail_of_{self.what}")
        step = -(-self.stream.length // _MOST_POINTS)
        tip, ways = self.arm.robot.tip, []
        for _, positions in self._blocks():
            kept = {joint: values[::step] for joint, values in positions.items()}
            ways.append((self.base @ self.arm.robot.chain.poses(kept)[tip])[:, :3, 3])
        colour = (*(_COMMANDED if self.is_ghost else _MEASURED), 160)
        line = rr.LineStrips3D([np.concatenate(ways)], colors=colour, radii=_THIN / 2)
        self.sink.log(path, line, static=True)
        return path

    # With meshes

    def _meshes(self, document: Document, files: Mapping[str, Path]) -> None:
        with tempfile.TemporaryDirectory(prefix="teleopen-") as folder:
            path = Path(folder, "robot.urdf")
            path.write_text(_visible(with_meshes(document, files)), encoding="utf-8")
            frames = f"{self.flat}/"
            tree = rr.urdf.UrdfTree.from_file_path(path, self.flat, frame_prefix=frames)
            tree.log_urdf_to_recording(self.sink)
        chain = self.arm.robot.chain
        stand = rr.Transform3D(
            translation=self.base[:3, 3],
            mat3x3=self.base[:3, :3],
            parent_frame="tf#/",
            child_frame=frames + chain.root,
        )
        self.sink.log(self.name("base", self.what), stand, static=True)
        if self.is_ghost:
            ghost = rr.Asset3D.from_fields(albedo_factor=(*_COMMANDED, _GHOST))
            for joint in chain.joints:
                for entity in tree.get_visual_geometry_paths(joint.child):
                    self.sink.log(entity, ghost, static=True)
        moving = {joint.name: joint for joint in tree.joints() if joint.joint_type != "fixed"}
        for at, positions in self._blocks():
            for name, values in positions.items():
                if name in moving:
                    columns = moving[name].compute_transform_columns(list(map(float, values)), clamp=False)
                    self.sink.send_columns(self.name("joints_of", self.what, name), at, columns)


def _sticks(base: Rows, poses: Mapping[str, Poses], joints: Sequence[Joint]) -> Rows:
    """Return a line from each link's origin to the next: (n, joints, 2, 3) metres."""
    ends = [[(base @ poses[link])[:, :3, 3] for link in (joint.parent, joint.child)] for joint in joints]
    return np.array(ends).transpose(2, 0, 1, 3)


def _visible(text: str) -> str:
    """Return a URDF without what is there for collisions: it would double what is sent."""
    return re.sub(r"<collision\b.*?</collision\s*>", "", text, flags=re.DOTALL)
