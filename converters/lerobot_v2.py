"""LeRobot datasets, formats v2.0 and v2.1, and GR00T's dialect of them: a Parquet file and MP4s per episode.

Field notes. Written by lerobot 0.1 to 0.3 (lerobot/common/datasets/ of huggingface/lerobot, tags v0.1.0 to
v0.3.3) and by many who never had LeRobot installed. v2.1 differs from v2.0 in where statistics lie, and we
leave those behind. What is odd, and what was chosen:

- A file's name tells its episode, and so does the column ``episode_index``. Where they disagree the file is
  refused: LeRobot's loader never looks, and takes rows by the lengths in meta/episodes.jsonl.
- Pictures are those from the start of an episode's MP4, one for each row. A surplus is left out, with a
  warning; a film that is shorter than the data is refused.
- ``task_index`` is looked up by value in meta/tasks.jsonl, as LeRobot's loader does in these versions.
- `datasets` 4 renamed the type ``Sequence`` to ``List`` in the schema's metadata. Arrow's types are the same,
  and they are what is read.
- GR00T's datasets lack ``frame_index`` at times, and bear meta/modality.json: see `_lerobot_modality`.
- Version 1 kept Arrow files in ``train`` and had no tasks. It is known, and refused with advice.
- ``timestamp``, units, frames, actions and the licence are as in v3: see ``lerobot_v3.py``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from ..schemas import Episode, FormatError
from . import _lerobot_meta as meta
from ._lerobot_episode import episodes_of
from ._lerobot_modality import Modality
from ._lerobot_shared import Book, drift
from ._lerobot_tables import LinesTable, lines_texts, where_of, whole
from ._mp4 import Mp4Video
from .base import Format

VERSION = "1"
"""Goes up when an episode read from the same files changes."""

_TASKS = "meta/tasks.jsonl"
_EPISODES = "meta/episodes.jsonl"
_VERSION_1 = "meta_data/info.json"
_ADVICE = (
    "Bring it to v2.0 first: lerobot/common/datasets/v2/convert_dataset_v1_to_v2.py of huggingface/lerobot "
    "at v0.1.0"
)
_STATISTICS = (meta.STATS, "meta/episodes_stats.jsonl", "meta/relative_stats.json")


@dataclass(frozen=True)
class _Own:
    """A dataset whose episodes have files of their own; a `Dataset` of ``_lerobot_shared``."""

    info: meta.Info
    table: LinesTable
    tasks: Mapping[int, str]
    modality: Modality | None
    chunk: int
    subtasks: Mapping[int, str] = field(default_factory=dict)
    episodes_name: str = _EPISODES
    tasks_name: str = _TASKS
    subtasks_name: str = ""
    by_row: bool = False

    @classmethod
    def open(cls, root: Path) -> _Own:
        """Read and check everything below meta/."""
        info = meta.Info.open(root, "2")
        table = LinesTable.open(root, _EPISODES)
        chunk = info.members.get("chunks_size")
        if not isinstance(chunk, int) or isinstance(chunk, bool) or chunk < 1:
            raise FormatError(str(info.path), "chunks_size", f"is {chunk!r} instead of a count")
        info.check_total("total_episodes", len(table.position), _EPISODES)
        info.check_total("total_frames", sum(table.lengths), _EPISODES)
        return cls(info, table, lines_texts(root, _TASKS), Modality.open(root), chunk)

    @property
    def statistics(self) -> tuple[str, ...]:
        return tuple(name for name in _STATISTICS if (self.info.root / name).exists())

    def length(self, row: Mapping[str, Any]) -> int:
        return whole(row, "length", self.table)

    def data(self, row: Mapping[str, Any]) -> Path:
        return self._file("data_path", row)

    def rows(self, row: Mapping[str, Any], data: Path, book: Book) -> tuple[int, int]:
        where, length = where_of(row), self.length(row)
        if length == 0:
            raise FormatError(str(self.table.files[0]), where, "has no rows")
        if set(book.rows) != {row["episode_index"]}:
            others = sorted(book.rows)[:5]
            raise FormatError(str(data), f"episode_index, {where}", f"the file holds the episodes {others}")
        if book.length != length:
            why = f"has {book.length} rows here, but {length} in {_EPISODES}"
            raise FormatError(str(data), where, why)
        return 0, length

    def first_index(self, row: Mapping[str, Any]) -> int | None:  # noqa: ARG002 # these versions do not tell
        return None

    def video(self, camera: str, row: Mapping[str, Any]) -> tuple[Mp4Video, int, str]:
        video, length = Mp4Video(self._file("video_path", row, video_key=camera)), self.length(row)
        if len(video) < length:
            why = f"holds {len(video)} pictures of {length} rows"
            raise FormatError(str(video.path), where_of(row), why)
        surplus = f"holds {len(video)} pictures of {length} rows; the last ones were left out"
        said = [surplus if len(video) > length else "", drift(video.times[:length], 1e9 / self.info.fps)]
        return video, 0, "; ".join(filter(None, said))

    def _file(self, template: str, row: Mapping[str, Any], **values: object) -> Path:
        index = row["episode_index"]
        return self.info.file(
            template, where_of(row), episode_chunk=index // self.chunk, episode_index=index, **values
        )


def _is_version_1(path: Path) -> bool:
    return (path / _VERSION_1).is_file() and (path / "train" / "state.json").is_file()


@dataclass(frozen=True)
class LerobotV2:
    """The root folder of a dataset, the one that holds ``meta``.

    Attributes
    ----------
    only
        Indices of the episodes to read; all if empty. Leaves out an episode that is broken.
    """

    format: ClassVar[Format] = Format(
        name="lerobot-v2",
        title="LeRobot dataset v2.0 and v2.1, with or without GR00T's modality.json",
        spec="https://github.com/huggingface/lerobot/tree/v0.3.3/src/lerobot/datasets",
    )
    block_bytes: int = 1 << 22
    only: tuple[int, ...] = ()

    def probe(self, path: Path) -> bool:
        """Tell whether ``path`` holds meta/info.json of a codebase version 2, or a dataset of version 1."""
        try:
            return _is_version_1(path) or meta.version(meta.read_info(path)) == "2"
        except (FormatError, OSError):
            return False

    def episodes(self, path: Path) -> Iterator[Episode]:
        """Yield the episodes in order of their index; payload is read when asked for."""
        if _is_version_1(path):
            why = "a LeRobot dataset of version 1 (Arrow files and meta_data) is not read"
            raise FormatError(str(path / _VERSION_1), "", why, _ADVICE)
        yield from episodes_of(_Own.open(path), self, VERSION)


CONVERTER = LerobotV2
