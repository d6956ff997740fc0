"""What the tests of exporting share: stores, datasets made of them, and how they are read back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from teleopen.converters.lerobot_v3 import LerobotV3
from teleopen.hub import WriteOptions
from teleopen.hub.export import ExportOptions, ExportReport, export_lerobot
from teleopen.hub.store import Store, create_store
from teleopen.schemas import (
    Array,
    Episode,
    FieldFate,
    Rights,
    Stream,
    StreamSpec,
)

from tests.hub.sync.publishing import NOW, small

OPEN_ONLY = ExportOptions(now=NOW)
EVERYTHING = ExportOptions(now=NOW, everything=True)


def store_of(
    folder: Path, *episodes: Episode, opened: Rights | None = None, options: WriteOptions | None = None
) -> Store:
    store = create_store(folder / "store", author="test")
    store.write(episodes, options)
    if opened:
        store.set_rights(opened)
    return store


def exported(store: Store, folder: Path, options: ExportOptions = EVERYTHING) -> tuple[Path, ExportReport]:
    root = folder / "out"
    return root, export_lerobot(store, root, options)


def back(root: Path) -> list[Episode]:
    """Read a dataset with our own converter."""
    return list(LerobotV3().episodes(root))


def rows_of(root: Path, below: str) -> list[dict[str, Any]]:
    return [row for p in sorted((root / below).rglob("*.parquet")) for row in pq.read_table(p).to_pylist()]


def read_json(root: Path, name: str) -> Any:
    return json.loads((root / name).read_text(encoding="utf-8"))


def plain(seed: int = 0, **options: Any) -> Episode:
    return small(seed, cameras=(), **options)


def stream_of(name: str, values: Array, **more: Any) -> Stream:
    spec = StreamSpec(name=name, kind="low_dim", dtype=values.dtype.name, shape=values.shape[1:], **more)
    return Stream(spec=spec, length=len(values), read=partial(blocks_of, values))


def blocks_of(values: Array, start: int, stop: int) -> Iterator[Array]:
    yield values[start:stop]


def with_streams(episode: Episode, *streams: Stream, without: tuple[str, ...] = ()) -> Episode:
    kept = {name: stream for name, stream in episode.streams.items() if name not in without}
    found = {**kept, **{stream.spec.name: stream for stream in streams}}
    ledger = tuple(FieldFate(field=f"/{name}", fate="kept", to=(name,), lossless=True) for name in found)
    return replace(episode, streams=found, provenance=replace(episode.provenance, ledger=ledger))


def slow_times(count: int) -> NDArray[np.int64]:
    return np.round(np.arange(count) * 1e9 / 15).astype(np.int64)
