"""A recording of any length is written and read in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from teleopen.hub import WriteOptions, create_store, open_store
from teleopen.schemas import Array, Clock, Episode, FieldFate, Stream, StreamSpec, nominal_times

from tests.episodes import make
from tests.measure import peak_memory

GIB = 1 << 30
FRAME = (480, 640, 3)


def _frames(start: int, stop: int) -> Iterator[Array]:
    base = np.add.outer(np.arange(FRAME[0]), np.arange(FRAME[1])).astype("uint8")
    still = np.repeat(base[:, :, None], 3, axis=2)
    for at in range(start, stop, 16):
        yield np.repeat(still[None], min(16, stop - at), axis=0)


def _rows(width: int, start: int, stop: int) -> Iterator[Array]:
    step = max(1, (4 << 20) // (4 * width))
    for at in range(start, stop, step):
        yield np.full((min(step, stop - at), width), at, "float32")


def recording(frames: int, width: int) -> Episode:
    """Return an episode of ``frames`` 480 x 640 frames and as many rows of ``width`` float32."""
    clock = Clock(
        name="steps", kind="nominal", declared_hz=30, length=frames, read=partial(nominal_times, frames, 30)
    )
    camera = StreamSpec(name="observation.images.top", kind="video", dtype="uint8", shape=FRAME)
    wide = StreamSpec(name="tactile", kind="low_dim", dtype="float32", shape=(width,))
    streams = {
        camera.name: Stream(spec=camera, length=frames, read=_frames),
        wide.name: Stream(spec=wide, length=frames, read=partial(_rows, width)),
    }
    model = make(seed=1)
    ledger = tuple(FieldFate(field=n, fate="kept", to=(n,)) for n in streams)
    return replace(
        model, clocks={"steps": clock}, streams=streams, provenance=replace(model.provenance, ledger=ledger)
    )


def write_and_read(folder: str, frames: int, width: int) -> None:
    """Write a recording and read it back, block by block."""
    store = create_store(Path(folder) / "s")
    store.write([recording(frames, width)], WriteOptions(quality_db=30))
    found = open_store(store.url).episode("0")
    assert sum(len(block) for block in found.streams["tactile"]) == frames
    assert sum(len(block) for block in found.streams["observation.images.top"].read(0, 500)) == 500


def test_two_gigabytes_are_written_in_a_fraction_of_one(tmp_path: Path) -> None:
    frames, width = 1200, 230_400
    assert frames * (np.prod(FRAME) + 4 * width) > 2 * GIB
    assert peak_memory(write_and_read, str(tmp_path), frames, width) < GIB


@pytest.mark.slow
def test_twenty_gigabytes_are_written_in_less_than_one(tmp_path: Path) -> None:
    frames = 22_000
    assert frames * np.prod(FRAME) > 20e9
    assert peak_memory(write_and_read, str(tmp_path), frames, 14) < GIB
