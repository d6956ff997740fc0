"""Windows of joint states, compared with zarr-python and with a bare memory map."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import zarr
from teleopen.hub import create_store
from teleopen.schemas import Array, Clock, Episode, Stream, episode_id, nominal_times

from .corpus import Bench
from .measure import interleaved
from .report import Aim, Row, Table
from .sample import FPS

_EPISODES, _STEPS = 20, 5_000
_WINDOW = 50
_STATE = "observation.state"


def table(bench: Bench) -> Table:
    """Measure random windows of 50 rows of 14 float32."""
    store = create_store(bench.new_folder(), author="benchmarks")
    store.write(_episodes(bench))
    reader, start, _ = store.array("0", _STATE)
    path = store.storage.local(reader.key)
    assert path is not None
    slow = zarr.open_array(path, mode="r", zarr_format=3)
    plain = bench.new_folder() / "plain"
    rows = reader.rows(0, reader.slots)
    rows.tofile(plain)
    mapped = np.memmap(plain, rows.dtype, "r", shape=rows.shape)

    rng = np.random.default_rng(0)
    rounds, few, many = (15, 10, 200) if bench.quick else (101, 20, 400)
    places = rng.integers(start, reader.slots - _WINDOW, (rounds, many)).tolist()
    fast = interleaved(
        {
            "ArrayReader.rows": lambda at: reader.rows(at, at + _WINDOW),
            "np.memmap copy": lambda at: np.array(mapped[at : at + _WINDOW]),
        },
        places,
    )
    both = interleaved(
        {
            "ArrayReader.rows": lambda at: reader.rows(at, at + _WINDOW),
            "zarr-python": lambda at: slow[at : at + _WINDOW],
        },
        [draw[:few] for draw in places],
    )
    found = Table(
        "low-dim: CPU time of a 50-row window of 14 float32",
        notes=[
            f"{_EPISODES} episodes of {_STEPS} rows in one local store, random windows, warm page cache.",
            "Ratio to zarr-python: theirs / ours, of the same array. Ratio to np.memmap: ours / theirs.",
        ],
    )
    ours = f"{fast.median('ArrayReader.rows') * 1e6:.1f} µs"
    for name, samples, aim in (("zarr-python", both, Aim(">=", 150)), ("np.memmap copy", fast, Aim("<=", 2))):
        pair = ("ArrayReader.rows", name) if aim.side == "<=" else (name, "ArrayReader.rows")
        found.rows.append(
            Row(
                what="ArrayReader.rows",
                figure=ours,
                peer=name,
                peer_figure=f"{samples.median(name) * 1e6:.1f} µs",
                ratio=samples.ratio(*pair),
                aim=aim,
            )
        )
    return found


def _episodes(bench: Bench) -> Iterator[Episode]:
    rng = np.random.default_rng(0)
    spec = bench.episode.streams[_STATE].spec
    clock = Clock(
        name=spec.clock,
        kind="nominal",
        declared_hz=FPS,
        length=_STEPS,
        read=partial(nominal_times, _STEPS, FPS),
    )
    for number in range(_EPISODES):
        values = rng.normal(size=(_STEPS, *spec.shape)).astype(spec.dtype)
        stream = Stream(spec=spec, length=_STEPS, read=partial(_whole, values))
        ledger = tuple(f for f in bench.episode.provenance.ledger if f.to == (_STATE,))
        yield replace(
            bench.episode,
            id=episode_id([], f"rows {number}"),
            provenance=replace(bench.episode.provenance, ledger=ledger),
            clocks={spec.clock: clock},
            streams={_STATE: stream},
        )


def _whole(values: Array, start: int, stop: int) -> Iterator[Array]:
    yield values[start:stop]
