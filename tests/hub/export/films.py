"""Episodes whose cameras come encoded, in every way that a store takes them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from teleopen.schemas import Array, Episode, Packet, Packets, packet_blocks

from tests.episodes import make
from tests.hub.clips import Pixels, clip, in_sequence, stream

CAMERA = "observation.images.top"
CODECS: dict[str, tuple[str, dict[str, str], dict[str, Any]]] = {
    "h264 without B-frames": ("libx264", {"bf": "0", "crf": "20"}, {"gop": 8}),
    "h264 with B-frames": (
        "libx264",
        {"bf": "3", "crf": "20", "x264-params": "b-pyramid=normal"},
        {"gop": 16},
    ),
    "h264 in 4:4:4": ("libx264", {"bf": "2", "crf": "20"}, {"gop": 12, "pixel_format": "yuv444p"}),
    "hevc": ("libx265", {"crf": "24", "x265-params": "log-level=none:pools=1"}, {"gop": 12}),
    "av1": ("libsvtav1", {"crf": "30", "preset": "12", "svtav1-params": "lp=1"}, {"gop": 2}),
    "vp9": ("libvpx-vp9", {"crf": "30", "b": "0", "deadline": "realtime", "cpu-used": "8"}, {"gop": 10}),
}


def filmed(codec: str, seed: int = 0, steps: int = 40, size: tuple[int, int] = (64, 80)) -> Episode:
    """Return an episode whose camera comes as packets."""
    encoder, options, more = CODECS[codec]
    packets, video = stream(clip(steps, *size, seed=seed), encoder, options, **more)
    return with_packets(make(seed=seed, steps=steps, size=size, imu=False, depth=False), packets, video)


def with_packets(episode: Episode, packets: list[Packet], video: Any) -> Episode:
    """Return the episode with these packets as its camera."""
    shown = in_sequence(packets, video)
    camera = replace(
        episode.streams[CAMERA],
        read=partial(_frames, shown),
        packets=Packets(format=video, blocks=lambda: packet_blocks(packets)),
    )
    return replace(episode, streams={**episode.streams, CAMERA: camera})


def _frames(shown: dict[int, Pixels], start: int, stop: int) -> Iterator[Array]:
    for index in range(start, stop):
        yield shown[index][None]
