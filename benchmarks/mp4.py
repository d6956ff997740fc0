"""MP4 files as LeRobot 0.4 makes them by default, and the ways to read frames from them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import av
import numpy as np

from .measure import Pixels
from .sample import FPS

LEROBOT_AV1 = {"g": "2", "crf": "30", "preset": "12"}
"""Options that lerobot 0.4.4 gives to libsvtav1 unless it is told otherwise."""

LONG_GOP_H264 = {"g": "250", "crf": "23", "preset": "medium"}
"""x264's own defaults, as in most videos that no LeRobot wrote."""


def encode_mp4(
    frames: Pixels, path: Path, encoder: str, options: Mapping[str, str], repeats: int = 1
) -> None:
    """Write a clip as yuv420p, by the calls that LeRobot's writer makes, ``repeats`` times back to back."""
    os.environ.setdefault("SVT_LOG", "0")
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as output:
        stream: Any = output.add_stream(encoder, FPS, options=dict(options))
        stream.pix_fmt = "yuv420p"
        stream.height, stream.width = frames.shape[1:3]
        packets = [p for frame in frames for p in stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24"))]
        packets += stream.encode(None)
        step = Fraction(1, FPS) * len(frames)
        for packet in [_later(packet, step * turn) for turn in range(repeats) for packet in packets]:
            packet.stream = stream
            output.mux(packet)


def _later(packet: av.Packet[Any], seconds: Fraction) -> av.Packet[Any]:
    copy: av.Packet[Any] = av.Packet(bytes(packet))
    ticks = int(seconds / packet.time_base)
    copy.pts, copy.dts = int(packet.pts or 0) + ticks, int(packet.dts or 0) + ticks
    copy.duration, copy.time_base = packet.duration, packet.time_base
    copy.is_keyframe = packet.is_keyframe
    return copy


class SeekingReader:
    """PyAV on an open file: seek to the key frame before, decode up to the frames."""

    def __init__(self, path: Path) -> None:
        self.container = av.open(str(path))
        self.stream = self.container.streams.video[0]
        self.stream.codec_context.thread_count = 1

    def frames(self, first: int, count: int) -> list[Pixels]:
        """Return frames by index."""
        base = self.stream.time_base or Fraction(1)
        ticks = [round(Fraction(first + i, FPS) / base) for i in range(count)]
        self.container.seek(ticks[0], stream=self.stream)
        found: list[Pixels] = []
        for frame in self.container.decode(self.stream):
            if frame.pts is not None and frame.pts >= ticks[len(found)]:
                found.append(np.asarray(frame.to_ndarray(format="rgb24"), np.uint8))
            if len(found) == count:
                break
        return found


class LerobotMp4:
    """A clip as LeRobot's default writer encodes it."""

    def __init__(self, frames: Pixels, folder: Path) -> None:
        self.path = folder / "lerobot.mp4"
        self.length = len(frames)
        encode_mp4(frames, self.path, "libsvtav1", LEROBOT_AV1)

    @property
    def bytes(self) -> int:
        """Size of the file."""
        return self.path.stat().st_size

    @cached_property
    def decoded(self) -> Pixels:
        """All frames as a reader gets them."""
        return np.stack(SeekingReader(self.path).frames(0, self.length))
