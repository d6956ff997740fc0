"""Episodes made of arrays, for checks and robots."""

import hashlib
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from teleopen.schemas import (
    Array,
    Clock,
    Episode,
    Provenance,
    Stream,
    StreamSpec,
    Times,
    episode_id,
    nominal_times,
)

BLOCK = 37


def _blocks(values: Array, start: int, stop: int) -> Iterator[Array]:
    for at in range(start, stop, BLOCK):
        yield values[at : min(stop, at + BLOCK)]


def episode_of(
    streams: Sequence[tuple[StreamSpec, Array]],
    *,
    rate_hz: float = 50,
    times: Times | None = None,
    **header: Any,
) -> Episode:
    """Return an episode of arrays on one clock: nominal, or recorded if its times are given."""
    length = len(streams[0][1])
    stamps = nominal_times(length, rate_hz) if times is None else times
    clock = Clock(
        name="steps",
        kind="nominal" if times is None else "recorded",
        declared_hz=rate_hz,
        length=length,
        read=lambda: stamps,
    )
    made = {
        spec.name: Stream(spec=spec, length=len(values), read=partial(_blocks, np.asarray(values)))
        for spec, values in streams
    }
    digest = hashlib.sha256(b"".join(np.ascontiguousarray(v).tobytes() for _, v in streams)).hexdigest()
    return Episode(
        id=episode_id([digest]),
        provenance=Provenance(format="made-up", converter="tests", converter_version="1"),
        clocks={"steps": clock},
        streams=made,
        **header,
    )
