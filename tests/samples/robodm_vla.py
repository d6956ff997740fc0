"""A robodm trajectory, muxed with PyAV as robodm does: pickles in tracks that claim to be raw video."""

import pickle
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from tests.samples import EpisodeTruth, Truth

STEPS = 9
MILLISECOND = Fraction(1, 1000)


def write_vla(path: Path, tracks: dict[str, list[Any]], *, video: str = "") -> Path:
    """Write tracks of values, pickled one by one; those of ``video`` are encoded as H.264.

    A value that is bytes is put into its packet as it is. Packets of a step stand a millisecond apart.
    """
    with av.open(str(path), "w", format="matroska") as container:
        streams: dict[str, Any] = {}
        for name, values in tracks.items():
            stream: Any = container.add_stream("libx264" if name == video else "rawvideo", rate=1000)
            stream.metadata["FEATURE_NAME"] = name
            stream.metadata["FEATURE_TYPE"] = f"dtype={getattr(values[0], 'dtype', 'string')}; shape=())"
            stream.time_base = stream.codec_context.time_base = MILLISECOND
            if name == video:
                stream.height, stream.width = values[0].shape[:2]
                stream.pix_fmt, stream.options = "yuv420p", {"crf": "8", "bf": "0"}
            streams[name] = stream
        for step in range(max(map(len, tracks.values()))):
            for late, (name, values) in enumerate(tracks.items()):
                if step < len(values):
                    write_value(
                        container, streams[name], values[step], 50 * step + late, encoded=name == video
                    )
        for name, stream in streams.items():
            if name == video:
                container.mux(stream.encode(None))
    return path


def write_value(container: Any, stream: Any, value: Any, pts: int, *, encoded: bool) -> None:
    """Write one packet, or hand a picture to the encoder."""
    if encoded:
        frame = av.VideoFrame.from_ndarray(value, format="rgb24")
        frame.pts, frame.time_base = pts, MILLISECOND
        container.mux(stream.encode(frame))
        return
    packet = av.Packet(value if isinstance(value, bytes) else pickle.dumps(value))
    packet.pts = packet.dts = pts
    packet.time_base, packet.stream, packet.is_keyframe = MILLISECOND, stream, True
    container.mux(packet)


def write(folder: Path) -> Truth:
    """Write a file with a camera, a state, actions, a text and a flag, and one whose packet is no array."""
    random = np.random.default_rng(4)
    shades = np.add.outer(np.arange(48), np.arange(64))[..., None] + np.array([0, 40, 90])
    pictures = np.stack([(shades + 4 * i).astype(np.uint8) for i in range(STEPS)])
    state = random.normal(0, 1, (STEPS, 5)).astype(np.float32)
    action = random.normal(0, 1, (STEPS, 3))
    done = np.arange(STEPS) == STEPS - 1
    contacts = np.arange(4)
    tracks: dict[str, list[Any]] = {
        "observation/images/top": list(pictures),
        "observation/state": list(state),
        "action": list(action),
        "language_instruction": ["fold the towel"] * STEPS,
        "is_last": list(done),
        "contacts": [int(count) for count in contacts],
    }
    whole = write_vla(folder / "whole.vla", tracks, video="observation/images/top")
    bad = dict(tracks)
    bad["action"] = [*bad["action"][:3], b"cos\nsystem\n(S'true'\ntR.", *bad["action"][4:]]
    broken = write_vla(folder / "broken.vla", bad, video="observation/images/top")
    return Truth(
        path=whole,
        episodes=(
            EpisodeTruth(
                values={
                    "observation.state": state,
                    "action": action,
                    "extra.is_last": done,
                    "extra.contacts": contacts,
                },
                close={"observation.images.top": (pictures, 30.0)},
                times={
                    "steps": 50_000_000 * np.arange(STEPS, dtype=np.int64),
                    "contacts": 50_000_000 * np.arange(4, dtype=np.int64),
                },
                instructions=("fold the towel",),
            ),
        ),
        fields=frozenset(tracks),
        broken=broken,
    )
