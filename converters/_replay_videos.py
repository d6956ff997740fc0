"""The videos of Diffusion Policy's real robot, ``videos/<episode>/<camera>.mp4`` beside its replay buffer."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path

from ..schemas import (
    Array,
    Clock,
    FieldFate,
    FormatError,
    Packets,
    SourceFile,
    Stream,
    StreamSpec,
    median_rate,
)
from ._mp4 import Mp4Video
from ._zarr2_store import shown
from .base import contained, rows_in, source_file


class EpisodeVideos:
    """The videos of one episode: its streams, their clocks, the files and what became of each.

    Parameters
    ----------
    folder
        The folder ``videos``; None if there is none.
    index
        Number of the episode.
    names
        The streams that the buffer has; a video of the same name is not read.
    block_bytes
        Most payload bytes of a block.
    """

    def __init__(self, folder: Path | None, index: int, names: Collection[str], block_bytes: int) -> None:
        self.streams: dict[str, Stream] = {}
        self.clocks: dict[str, Clock] = {}
        self.sources: list[SourceFile] = []
        self.ledger: list[FieldFate] = []
        if folder is None or not (folder / str(index)).is_dir():
            return
        taken = {name.casefold() for name in names}
        root = folder.parent
        for name in sorted(entry.name for entry in (folder / str(index)).iterdir()):
            field_name = f"videos/{index}/{name}"
            path = contained(root, field_name, path=root, where="videos")
            match = re.fullmatch(r"([A-Za-z0-9_-]{1,60})\.mp4", name)
            stream = f"observation.images.camera_{match[1]}" if match else ""
            if not match or stream.casefold() in taken:
                how = "is not called like a camera" if not match else f"{stream} is in the buffer already"
                self.ledger.append(FieldFate(field=shown(field_name), fate="dropped", how=how))
                continue
            taken.add(stream.casefold())
            self._add(stream, f"camera_{match[1]}", Mp4Video(path), block_bytes)
            self.sources.append(source_file(path, root, "video"))
            to = (stream, f"clocks.camera_{match[1]}")
            self.ledger.append(FieldFate(field=field_name, fate="renamed", to=to, how="packets as they came"))

    def _add(self, name: str, clock: str, video: Mp4Video, block_bytes: int) -> None:
        if not len(video) or (video.pixel_format.startswith("gray") and video.pixel_format != "gray"):
            raise FormatError(
                str(video.path), "", f"{len(video)} pictures of {video.pixel_format} are no video"
            )
        spec = StreamSpec(
            name=name,
            kind="video",
            dtype="uint8",
            shape=(*video.size, 1 if video.pixel_format == "gray" else 3),
            unit=("1",),
            clock=clock,
            attributes=dict(video.attributes),
        )
        packets = None
        if video.format is not None:
            packets = Packets(format=video.format, blocks=partial(video.blocks, 0, len(video)))
        rows = rows_in(block_bytes, spec)
        read = partial(_frames, video, rows)
        self.streams[name] = Stream(spec=spec, length=len(video), read=read, packets=packets)
        self.clocks[clock] = Clock(
            name=clock,
            kind="recorded",
            declared_hz=video.rate_hz,
            measured_hz=median_rate(video.times),
            source="the MP4's times: a grid that pictures were repeated or left out for (video_recorder.py)",
            length=len(video),
            read=partial(getattr, video, "times"),
        )


def _frames(video: Mp4Video, rows: int, start: int, stop: int) -> Iterator[Array]:
    return video.frames(max(0, start), min(stop, len(video)), rows)


def given_up(folder: Path, episodes: int) -> Iterator[FieldFate]:
    """Yield the fate of what belongs to none of the episodes."""
    known = {str(index) for index in range(episodes)}
    for name in sorted(entry.name for entry in folder.iterdir() if entry.name not in known):
        how = "no episode has this number: its recording was given up"
        yield FieldFate(field=f"videos/{shown(name)}", fate="dropped", how=how)
