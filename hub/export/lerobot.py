"""Export to LeRobot datasets, format v3.0: a dataset that LeRobot's own loader reads.

The format is described by its writer only (github.com/huggingface/lerobot 0.4.4: src/lerobot/datasets/);
GR00T's addition ``meta/modality.json`` in github.com/NVIDIA/Isaac-GR00T: getting_started/data_preparation.md.
What finds no place there is told in ``meta/teleopen.json`` and on the card, and never left out in silence.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...schemas import Array, Episode, StoreError
from .. import disk
from ..store import Store
from ..version import TOOL
from . import stats
from .choose import Chosen, choose
from .describe import documents, info, modality
from .features import BOOKKEEPING, RECORDED, Column, Features, Rows, features_of
from .options import ExportOptions
from .stats import Figures, Tones
from .tables import DataFiles, EpisodesFiles, arrow, write_tasks
from .video import Videos, encoded, obstacle, spool, taken

Progress = Callable[[str, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """What was exported.

    Attributes
    ----------
    licence
        What all of it goes out under; empty if it is for use in the house only.
    staying
        How many episodes stayed for each reason code.
    cameras
        For each camera how many episodes went ``remuxed`` and ``transcoded``, and why the latter.
    dropped
        Why, by what was left out.
    """

    folder: str
    episodes: int
    frames: int
    fps: int | float
    licence: str
    staying: dict[str, int]
    features: tuple[str, ...]
    cameras: dict[str, dict[str, Any]]
    dropped: dict[str, str]
    notes: tuple[str, ...]


def _silent(_what: str, _amount: int) -> None:
    pass


def export_lerobot(
    store: Store, folder: Path, options: ExportOptions, progress: Progress = _silent
) -> ExportReport:
    """Write the open episodes of a store as a LeRobot dataset into a new folder.

    It is put together beside the folder and then moved there: the folder has all of it, or is not there.
    Memory is bounded: a block of rows, a chunk of frames, and 64 MiB of packets.

    Parameters
    ----------
    folder
        New or empty.
    progress
        Told of the rows of each episode that was written.

    Raises
    ------
    RightsError
        If no episode is open, or they have several licences.
    SchemaError
        If episodes have no rate, different rates, or nothing in common.
    StoreError
        If the folder is not empty, or the disk or the store stand against it.
    """
    with disk.told(folder):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise StoreError(str(folder), "is there already; give a new or an empty folder")
    disk.make_folder(folder.parent)
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    disk.remove_tree(aside)
    try:
        facts = aside / ".facts"
        disk.make_folder(facts)
        chosen = choose(store, options, facts)
        features = features_of(map(chosen.episode, chosen.ids), options)
        work = _Export(chosen, features, aside, progress)
        report = work.run(folder)
        shutil.rmtree(facts)
        _sync(aside)
        disk.rename(aside, folder)
        disk.sync_folder(folder.parent)
    except BaseException:
        with suppress(StoreError):
            disk.remove_tree(aside)
        raise
    return report


def _sync(root: Path) -> None:
    """Make all files below a folder durable."""
    for below, _, names in os.walk(root, topdown=False):
        for name in names:
            with disk.told(Path(below, name)), Path(below, name).open("rb") as file:
                os.fsync(file.fileno())
        disk.sync_folder(Path(below))


@dataclass
class _Camera:
    """A camera's files, and what became of it so far."""

    videos: Videos
    tones: Tones = field(default_factory=lambda: Tones(np.zeros((3, 256), np.int64), 0))
    form: tuple[str, str, int, int] | None = None
    remuxed: int = 0
    transcoded: Counter[str] = field(default_factory=Counter)


class _Export:
    """One dataset in the making."""

    def __init__(self, chosen: Chosen, features: Features, root: Path, progress: Progress) -> None:
        self.chosen, self.features, self.root, self.progress = chosen, features, root, progress
        self.data, self.episodes = DataFiles(root), EpisodesFiles(root)
        self.cameras = {name: _Camera(Videos(root, name, features.rate)) for name in features.cameras}
        self.tasks: dict[str, int] = {}
        self.runs: list[tuple[int, list[tuple[int, int]]]] = []
        self.rows = 0

    def run(self, folder: Path) -> ExportReport:
        """Write everything, and return what was written."""
        try:
            for number, id in enumerate(self.chosen.ids):
                self._episode(number, self.chosen.episode(id))
        finally:
            self.data.close()
            self.episodes.close()
            for camera in self.cameras.values():
                camera.videos.close()
        write_tasks(self.root, list(self.tasks))
        report = self._report(folder)
        forms = {name: camera.form for name, camera in self.cameras.items() if camera.form}
        made = {
            "meta/info.json": info(self.features, forms, report, len(self.tasks)),
            "meta/stats.json": {name: stats.plain(f) for name, f in self._statistics()},
            "meta/modality.json": modality(self.features),
        }
        for path, raw in documents(self.chosen, self.features, report, made, TOOL).items():
            disk.make_folder((self.root / path).parent)
            disk.write(self.root / path, [raw])
        return report

    def _report(self, folder: Path) -> ExportReport:
        return ExportReport(
            folder=str(folder),
            episodes=len(self.chosen.ids),
            frames=self.rows,
            fps=self.features.fps,
            licence=self.chosen.licence,
            staying=self.chosen.staying,
            features=tuple(column.name for column in self.features.columns) + self.features.cameras,
            cameras={
                name: {"remuxed": camera.remuxed, "transcoded": dict(sorted(camera.transcoded.items()))}
                for name, camera in self.cameras.items()
            },
            dropped=dict(self.features.dropped),
            notes=self.features.notes,
        )

    # --- an episode

    def _episode(self, number: int, episode: Episode) -> None:
        rows = Rows(episode, self.features.clock_of(episode))
        runs = [(at, self.tasks.setdefault(text, len(self.tasks))) for at, text in rows.tasks()]
        self.runs.append((rows.length, runs))
        figures = self._write_rows(number, rows, runs)
        told: dict[str, Any] = {
            "episode_index": number,
            "tasks": list(dict.fromkeys(text for _, text in rows.tasks())),
            "length": rows.length,
            **{f"data/{name}": value for name, value in self.data.place.items()},
            "dataset_from_index": self.rows,
            "dataset_to_index": self.rows + rows.length,
        }
        for name, camera in self.cameras.items():
            place, tones = self._write_camera(rows, name, camera)
            told |= {f"videos/{name}/{member}": value for member, value in place.items()}
            figures[name] = tones.figures()
        told |= {f"stats/{n}/{what}": v.tolist() for n, one in figures.items() for what, v in one.items()}
        self.episodes.add({**told, **self._provenance(episode)})
        self.rows += rows.length
        self.progress(episode.id, rows.length)

    def _provenance(self, episode: Episode) -> dict[str, Any]:
        state, public = self.chosen.store.state, self.chosen.public.get(episode.id)
        content = state.segments[state.episodes[episode.id].segment].contents[episode.id]
        return {
            "teleopen/id": episode.id,
            "teleopen/content": public.content if public else content,
            "teleopen/licence": public.licence if public else "",
            "teleopen/rights": public.record if public else "",
            "teleopen/embodiment": episode.embodiment,
            "teleopen/outcome": episode.outcome,
            "teleopen/instructions": list(episode.instructions) or [""],
        }

    def _write_rows(self, number: int, rows: Rows, runs: list[tuple[int, int]]) -> dict[str, Figures]:
        import pyarrow as pa

        self.data.make_room(rows.length)
        columns = self.features.columns
        step = _rows_at_once(columns)
        blocks = [rows.blocks(column, step) for column in columns]
        for at in range(0, rows.length, step):
            stop = min(rows.length, at + step)
            table = {column.name: arrow(next(block)) for column, block in zip(columns, blocks, strict=True)}
            if self.features.recorded:
                table[RECORDED] = pa.array(rows.times[at:stop])
            book = self._book(number, self.rows, runs, np.arange(at, stop))
            self.data.write(pa.table({**table, **{name: pa.array(values) for name, values in book.items()}}))
        figures = {
            column.name: stats.of_episode(partial(rows.blocks, column), rows.length, column.shape)
            for column in columns
        }
        more = self._book(number, self.rows, runs, np.arange(rows.length))
        if self.features.recorded:
            more[RECORDED] = rows.times
        return figures | {n: stats.of_episode(partial(_once, v), rows.length, (1,)) for n, v in more.items()}

    def _book(
        self, number: int, first: int, runs: list[tuple[int, int]], at: NDArray[np.int64]
    ) -> dict[str, Array]:
        """Return LeRobot's own columns of some rows of an episode."""
        starts, tasks = np.array([run[0] for run in runs]), np.array([run[1] for run in runs], np.int64)
        return {
            "timestamp": (at / self.features.fps).astype(np.float32),
            "frame_index": at,
            "episode_index": np.full(len(at), number, np.int64),
            "index": first + at,
            "task_index": tasks[np.searchsorted(starts, at, side="right") - 1],
        }

    # --- a camera

    def _write_camera(self, rows: Rows, name: str, camera: _Camera) -> tuple[dict[str, int | float], Tones]:
        array, start, stop = self.chosen.store.array(rows.episode.id, name)
        index = rows.index(name)
        straight = len(index) == stop - start and bool(np.all(np.diff(index) == 1))
        why = obstacle(array) if straight else "it was on another clock"
        with spool() as data:
            if why:
                frames = _frames(rows.episode, name, index)
                video = array.layout.video
                fine = video is not None and video.pixel_format in {"yuv444p", "gbrp"}
                film = encoded(frames, self.features.rate, why, data, fine=fine)
                camera.transcoded[why] += 1
            else:
                film = taken(array, start, stop - start, data)
                camera.remuxed += 1
            camera.form = camera.form or film.form
            place = camera.videos.add(film)
        tones = stats.tones_of(lambda numbers: array.frames(start + index[numbers]), rows.length)
        camera.tones = camera.tones + tones
        return place, tones

    # --- all episodes

    def _statistics(self) -> Iterator[tuple[str, Figures]]:
        for column in self.features.columns:
            yield column.name, stats.of_dataset(partial(self._all, column), self.rows, column.shape)
        for name in (*([RECORDED] if self.features.recorded else []), *BOOKKEEPING):
            yield name, stats.of_dataset(partial(self._all_of_book, name), self.rows, (1,))
        for name, camera in self.cameras.items():
            yield name, camera.tones.figures()

    def _all(self, column: Column) -> Iterator[Array]:
        for id in self.chosen.ids:
            episode = self.chosen.store.episode(id)
            yield from Rows(episode, self.features.clock_of(episode)).blocks(column)

    def _all_of_book(self, name: str) -> Iterator[Array]:
        first = 0
        for number, (length, runs) in enumerate(self.runs):
            if name == RECORDED:
                episode = self.chosen.store.episode(self.chosen.ids[number])
                values: Array = self.features.clock_of(episode).read()
            else:
                values = self._book(number, first, runs, np.arange(length))[name]
            yield values[:, None]
            first += length


def _once(values: Array) -> Iterator[Array]:
    yield values[:, None]


def _rows_at_once(columns: tuple[Column, ...]) -> int:
    """Return how many rows make a row group of at most about 16 MiB."""
    return max(1, (16 << 20) // max(1, sum(column.sample_bytes for column in columns)))


def _frames(episode: Episode, name: str, index: NDArray[np.int64]) -> Iterator[Array]:
    """Yield the frames of these samples, which never go back, in blocks."""
    at, first = 0, int(index[0])
    seen = first
    for block in episode.streams[name].read(first, int(index[-1]) + 1):
        stop = int(np.searchsorted(index, seen + len(block)))
        if stop > at:
            yield block[index[at:stop] - seen]
        at, seen = stop, seen + len(block)
