"""Frames that say which they are: eight fields, black or white, are the bits of a frame's number."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from teleopen.schemas import (
    ActionContract,
    Array,
    Clock,
    Episode,
    Packets,
    Provenance,
    Stream,
    StreamSpec,
    episode_id,
    nominal_times,
    packet_blocks,
)
from teleopen.schemas.episode import Event

from tests.hub.clips import stream

HEIGHT, WIDTH = 96, 192
FIELD = 48
CAMERA = "observation.images.top"
SECOND = 1_000_000_000


def frames(start: int, stop: int) -> NDArray[np.uint8]:
    """Return frames: (n, 96, 192, 3). The first field is the highest bit."""
    bits = np.unpackbits(np.arange(start, stop, dtype=np.uint8)[:, None], axis=1).reshape(-1, 2, 4)
    plane = np.kron(bits, np.ones((1, FIELD, FIELD), np.uint8)) * 215 + 20
    return np.repeat(plane[..., None], 3, axis=-1).astype(np.uint8)


def number_on(picture: Array) -> int | None:
    """Return the number that a view shows, as large as fits, in the middle; None if it shows none."""
    scale = min(picture.shape[1] / WIDTH, picture.shape[0] / HEIGHT)
    top, left = (picture.shape[0] - HEIGHT * scale) / 2, (picture.shape[1] - WIDTH * scale) / 2
    bits = []
    for row in range(2):
        for column in range(4):
            y = round(top + (row + 0.5) * FIELD * scale)
            x = round(left + (column + 0.5) * FIELD * scale)
            level = float(picture[y - 2 : y + 3, x - 2 : x + 3].mean())
            if 80 < level < 175:
                return None
            bits.append(level > 128)
    return int(np.packbits(bits)[0])


def _blocks(start: int, stop: int) -> Iterator[Array]:
    for at in range(start, stop, 20):
        yield frames(at, min(stop, at + 20))


def episode(steps: int = 70, **told: Any) -> Episode:
    """Return an episode whose camera shows numbered frames, at 30 Hz, with a state, a command and events."""
    clock = Clock(
        name="steps",
        kind="nominal",
        declared_hz=30,
        length=steps,
        read=lambda: nominal_times(steps, 30),
    )
    axes = ("left_elbow", "left_gripper")
    values = np.sin(np.arange(2 * steps, dtype=np.float32)).reshape(steps, 2)
    specs = {
        "observation.state": StreamSpec(
            name="observation.state",
            kind="low_dim",
            dtype="float32",
            shape=(2,),
            unit=("rad", "1"),
            axes=axes,
        ),
        "action": StreamSpec(
            name="action", kind="low_dim", dtype="float32", shape=(2,), axes=axes, contract=ActionContract()
        ),
    }
    streams = {
        name: Stream(spec=spec, length=steps, read=lambda a, b: iter([values[a:b]]))
        for name, spec in specs.items()
    }
    streams[CAMERA] = Stream(
        spec=StreamSpec(name=CAMERA, kind="video", dtype="uint8", shape=(HEIGHT, WIDTH, 3)),
        length=steps,
        read=_blocks,
    )
    return Episode(
        id=episode_id(["numbered", str(steps)]),
        **{"instructions": ("Show which frame this is",), "events": EVENTS, **told},
        provenance=Provenance(format="made-up", converter="tests", converter_version="1"),
        clocks={"steps": clock},
        streams=streams,
    )


EVENTS = (
    Event(kind="phase", start_ns=0, stop_ns=SECOND, text="reach"),
    Event(kind="phase", start_ns=SECOND, stop_ns=2 * SECOND, text="grasp"),
    Event(kind="marker", start_ns=SECOND // 2, text="bump"),
)


def encoded(steps: int = 70, options: dict[str, str] | None = None, encoder: str = "libx264") -> Episode:
    """Return the episode with its camera encoded by somebody else: x264 as it is, which means B-frames."""
    packets, video = stream(frames(0, steps), encoder, options or {"bf": "3", "b-pyramid": "normal"}, gop=24)
    made = episode(steps)
    camera = replace(
        made.streams[CAMERA], packets=Packets(format=video, blocks=partial(packet_blocks, list(packets)))
    )
    return replace(made, streams={**made.streams, CAMERA: camera})
