"""Bytes per frame at the quality of LeRobot's default video."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from teleopen.hub import WriteOptions

from .corpus import Bench
from .measure import Pixels, psnr
from .mp4 import LerobotMp4
from .report import Aim, Row, Table

_CLOSE_DB = 0.1
_TRIES = 6
_NOISY = {"cam_high"}
_CLIPS = {
    "cam_high": "static view, textured, noisy",
    "cam_left_wrist": "moving close-up of blurred wood, smooth: the worst of these for H.264",
    "blurred": "cam_high after a Gaussian blur of 3 pixels: no noise is left",
}


def table(bench: Bench) -> Table:
    """Measure every clip in the profiles ``train`` and ``auto``."""
    found = Table(
        "size: bytes at equal PSNR",
        notes=[
            f"quality_db is searched until the PSNR is that of LeRobot's MP4 within {_CLOSE_DB} dB, over RGB",
            "and all frames. Where steps of CRF are coarser, log(size) is interpolated between two stores.",
            "Ratio: ours / theirs.",
            "",
            *(f"- {clip}: {what}." for clip, what in _CLIPS.items()),
        ],
    )
    for clip in _CLIPS:
        truth = bench.clips[clip]
        mp4 = LerobotMp4(truth, bench.new_folder())
        goal = psnr(truth, mp4.decoded)
        for profile in ("train", "auto"):
            size, reached, codec = _size_at(bench, clip, truth, profile, goal)
            found.rows.append(
                Row(
                    what=f"{clip} {profile} ({codec}), {reached}",
                    figure=f"{size / len(truth) / 1e3:.2f} kB/frame",
                    peer=f"LeRobot MP4, {goal:.2f} dB",
                    peer_figure=f"{mp4.bytes / len(truth) / 1e3:.2f} kB/frame",
                    ratio=size / mp4.bytes,
                    aim=_aim(clip, profile),
                )
            )
    return found


def _aim(clip: str, profile: str) -> Aim | None:
    if clip in _NOISY:
        return Aim("<=", 0.333)
    return Aim("<=", 1.1) if profile == "auto" else None


def _size_at(bench: Bench, clip: str, truth: Pixels, profile: str, goal: float) -> tuple[float, str, str]:
    """Return the bytes that a profile takes at a PSNR, how that was found, and the codec."""
    points: dict[str, dict[float, int]] = {}
    asked, chosen = round(goal, 2), ""
    for _ in range(2 if bench.quick else _TRIES):
        # mypy: the profile comes from a tuple of literals that a loop widens to str
        stored = bench.stored(clip, WriteOptions(profile=profile, quality_db=asked))  # type: ignore[arg-type]
        reached = psnr(truth, stored.frames(0, len(truth)))
        codec = stored.array.layout.video.codec if stored.array.layout.video else ""
        chosen = chosen or codec  # what auto takes when asked for this very quality
        points.setdefault(codec, {})[reached] = stored.bytes
        if codec == chosen and abs(reached - goal) <= _CLOSE_DB:
            return stored.bytes, f"{reached:.2f} dB", codec
        asked = round(asked + goal - reached, 2)
    return *_between(points[chosen], goal), chosen


def _between(points: Mapping[float, int], goal: float) -> tuple[float, str]:
    """Return the bytes at a PSNR between those that were reached, and how that was found."""
    below, above = [p for p in points if p < goal], [p for p in points if p > goal]
    if not below or not above:
        nearest = min(points, key=lambda p: abs(p - goal))
        return points[nearest], f"{nearest:.2f} dB, the nearest reached"
    ends = [max(below), min(above)]
    size = math.exp(np.interp(goal, ends, [math.log(points[end]) for end in ends]))
    return size, f"interpolated from {ends[0]:.2f} and {ends[1]:.2f} dB"
