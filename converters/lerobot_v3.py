"""LeRobot datasets, format v3.0: many episodes in one Parquet file and in one MP4 per camera.

Field notes. Written by lerobot 0.4 and later (src/lerobot/datasets/ of huggingface/lerobot); the format is
described nowhere else. What is odd, and what was chosen:

- LeRobot looks episodes up by the *position* of their row, which goes wrong once a row is lost. Here the
  value of ``episode_index`` counts, in meta/episodes as in data.
- Where an episode lies in a shared MP4 is told in seconds, ``from_timestamp``, a sum of many rounded
  durations. It drifts (lerobot #2364, #3177). Where the episodes of a file add up to its pictures, each
  picture belongs to one episode and is counted instead; otherwise the seconds must fall on pictures.
- An MP4 may hold more pictures of an episode than it has rows: staged images of a discarded take were
  encoded behind those of the take that was kept (lerobot #4109). The surplus is left out, with a warning.
- ``timestamp`` is no measurement: the recorder computes it as frame_index / fps. If it is anything else in
  the data, it was measured by whoever wrote the dataset otherwise, and is taken as recorded.
- A task's number is its row in meta/tasks.parquet for LeRobot's loader. We take the column ``task_index``;
  the text is that table's index, which pandas calls ``__index_level_0__`` or ``task``.
- Nothing tells units, frames, what an action commands, or which licence applies. The card's licence is
  apache-2.0 unless somebody chose another, so it is evidence of little.
- Statistics can be computed again, and lerobot 0.4.4 wrote zeros for cameras. They are left behind.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..schemas import Episode, FormatError
from . import _lerobot_meta as meta
from ._lerobot_episode import episodes_of
from ._lerobot_modality import Modality
from ._lerobot_shared import Book, Cuts
from ._lerobot_tables import STATISTICS, ParquetTable, parquet_texts, where_of, whole
from ._mp4 import Mp4Video
from .base import Format

VERSION = "1"
"""Goes up when an episode read from the same files changes."""

_TASKS = "meta/tasks.parquet"
_SUBTASKS = "meta/subtasks.parquet"
_EPISODES = "meta/episodes"


@dataclass(frozen=True)
class _Shared:
    """A dataset whose files hold many episodes each; a `Dataset` of ``_lerobot_shared``."""

    info: meta.Info
    table: ParquetTable
    tasks: Mapping[int, str]
    subtasks: Mapping[int, str]
    modality: Modality | None
    cuts: Cuts
    episodes_name: str = _EPISODES
    tasks_name: str = _TASKS
    subtasks_name: str = _SUBTASKS
    by_row: bool = True

    @classmethod
    def open(cls, root: Path) -> _Shared:
        """Read and check everything below meta/."""
        info = meta.Info.open(root, "3")
        table = ParquetTable.open(root, _EPISODES)
        dataset = cls(
            info=info,
            table=table,
            tasks=parquet_texts(root, _TASKS),
            subtasks=parquet_texts(root, _SUBTASKS) if (root / _SUBTASKS).exists() else {},
            modality=Modality.open(root),
            cuts=Cuts(table, info.fps),
        )
        lengths = table.numbers("length") if table.position else np.zeros(0)
        if np.any(lengths < 0):
            raise FormatError(str(table.files[0]), "length", "is negative")
        info.check_total("total_episodes", len(table.position), _EPISODES)
        info.check_total("total_frames", int(lengths.sum()), _EPISODES)
        return dataset

    @property
    def statistics(self) -> tuple[str, ...]:
        beside = (meta.STATS,) if (self.info.root / meta.STATS).exists() else ()
        return (f"{_EPISODES}#{STATISTICS}*", *beside) if self.table.statistics else beside

    def length(self, row: Mapping[str, Any]) -> int:
        return whole(row, "length", self.table)

    def data(self, row: Mapping[str, Any]) -> Path:
        numbers = {n: whole(row, f"data/{n}", self.table) for n in ("chunk_index", "file_index")}
        return self.info.file("data_path", where_of(row), **numbers)

    def rows(self, row: Mapping[str, Any], data: Path, book: Book) -> tuple[int, int]:
        path, where, length = str(self.table.files[0]), where_of(row), self.length(row)
        if length == 0:
            raise FormatError(path, where, "has no rows")
        start, stop = (whole(row, f"dataset_{n}_index", self.table) for n in ("from", "to"))
        if stop - start != length:
            raise FormatError(path, where, f"has {length} rows, but goes from {start} to {stop}")
        if row["episode_index"] not in book.rows:
            raise FormatError(str(data), where, "has no row in the file that meta/episodes tells")
        first, last = book.rows[row["episode_index"]]
        if last - first != length:
            raise FormatError(
                str(data), where, f"has {last - first} rows here, but {length} in meta/episodes"
            )
        return first, last

    def first_index(self, row: Mapping[str, Any]) -> int | None:
        return whole(row, "dataset_from_index", self.table)

    def video(self, camera: str, row: Mapping[str, Any]) -> tuple[Mp4Video, int, str]:
        numbers = {n: whole(row, f"videos/{camera}/{n}", self.table) for n in ("chunk_index", "file_index")}
        path = self.info.file("video_path", where_of(row), video_key=camera, **numbers)
        video = Mp4Video(path)
        return video, *self.cuts.first(camera, path, video, row)


@dataclass(frozen=True)
class LerobotV3:
    """The root folder of a dataset, the one that holds ``meta``.

    Attributes
    ----------
    only
        Indices of the episodes to read; all if empty. Leaves out an episode that is broken.
    """

    format: ClassVar[Format] = Format(
        name="lerobot-v3",
        title="LeRobot dataset v3.0",
        spec="https://github.com/huggingface/lerobot/tree/main/src/lerobot/datasets",
    )
    block_bytes: int = 1 << 22
    only: tuple[int, ...] = ()

    def probe(self, path: Path) -> bool:
        """Tell whether ``path`` holds meta/info.json of a codebase version 3."""
        try:
            return meta.version(meta.read_info(path)) == "3"
        except (FormatError, OSError):
            return False

    def episodes(self, path: Path) -> Iterator[Episode]:
        """Yield the episodes in order of their index; payload is read when asked for."""
        yield from episodes_of(_Shared.open(path), self, VERSION)


CONVERTER = LerobotV3
