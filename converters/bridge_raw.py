"""BridgeData V2, as the robot's own computer wrote it: folders of JPEG pictures and pickles.

Field notes. A trajectory is a folder ``<date>/raw/traj_group<g>/traj<t>`` with ``obs_dict.pkl`` (a dict of
arrays, one row per observation), ``policy_out.pkl`` (a list of one dict or array per action),
``agent_data.pkl``, ``images<i>/im_<t>.jpg`` and perhaps ``depth_images<i>/im_<t>.png`` and ``lang.txt``
(github.com/rail-berkeley/bridge_data_robot, folder widowx_envs/widowx_envs: utils/raw_saver.py). The recorder
observes, acts, observes ... and ends with an observation (control_loops.py: `rollout`): there is one action
less.

- Pictures are stored with the right order of colours: the environment turns the camera's blue-first pictures
  to red-first, and the saver turns them back for OpenCV.
- Before 2021-07-23 an observation shows what was one step before
  (github.com/rail-berkeley/bridge_data_v2: data_processing/bridgedata_raw_to_numpy.py). Nothing is shifted
  here; the action's contract tells.
- Folders with ``lmdb`` in their names are another layout, which that script skips as well.
- ``lang.txt`` has one annotation per line, and lines that tell how sure the annotator was.

The pickles are read by `_pickled`, and everything in a confined process.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..schemas import UNKNOWN, Array, Episode, FormatError, SourceFile, StreamSpec
from ._bridge import DATED, MEANINGS, Meaning, action_axes, action_units, contract
from ._confined import episodes
from ._draft import Draft, embodiment_of, stream_name
from ._folder import entries, files_source, natural, numbered, small_bytes, small_json
from ._pickled import json_of, unpickled_file
from ._picture_files import read_files, shown_in
from .base import Format, rows_in, source_file

VERSION = "1"

_LEVELS = 5
_MOST_LOOKED = 400
_MAX_STEPS = 100_000
_MAX_TEXT = 1 << 20
_MAX_JSON = 1 << 22
_PICKLES = ("obs_dict.pkl", "policy_out.pkl")
_SHEETS = ("collection_metadata.json", "config.json")
_JPEG_NAME, _PNG_NAME = re.compile(r"im_(\d+)\.jpe?g"), re.compile(r"im_(\d+)\.png")
_CAMERA = re.compile(r"(depth_)?images(\d+)")


@dataclass(frozen=True)
class BridgeRaw:
    """Raw trajectories of BridgeData V2: one of them, or a folder up to five levels above their dates.

    Attributes
    ----------
    block_bytes
        Most payload bytes of a block.
    rate_hz
        Steps per second, for a trajectory without time stamps.
    """

    format: ClassVar[Format] = Format(
        name="bridge-raw",
        title="BridgeData V2 raw",
        spec="https://github.com/rail-berkeley/bridge_data_robot: widowx_envs/widowx_envs/utils/raw_saver.py",
    )
    block_bytes: int = 1 << 20
    rate_hz: float | None = None

    def probe(self, path: Path) -> bool:
        """Tell whether ``path`` is a trajectory, or a folder above some."""
        try:
            return next(_trajectories(path, iter(range(_MOST_LOOKED))), None) is not None
        except (OSError, ValueError):
            return False

    def episodes(self, path: Path) -> Iterator[Episode]:
        """Yield the trajectories in the order of their numbers, each read in a confined process."""
        return episodes(self, path)

    def unconfined(self, path: Path) -> Iterator[Episode]:
        """Do what `episodes` promises, in this process."""
        if "lmdb" in path.name:
            why = "is of the lmdb layout, which is not read"
            raise FormatError(str(path), path.name, why, "Give the folder of JPEG pictures and pickles")
        for folder in _trajectories(path):
            yield _Trajectory(self, path, folder).episode()

    def beside(self, path: Path) -> tuple[Path, ...]:
        """Return what is read besides ``path``: the sheets of the dated folder that it may lie in."""
        dated = [place for place in path.absolute().parents[:3] if _date_of(place)]
        return tuple(place / name for place in dated for name in _SHEETS)


CONVERTER = BridgeRaw


def _trajectories(path: Path, patience: Iterator[int] | None = None, level: int = 0) -> Iterator[Path]:
    """Yield the trajectories at or below ``path``, looking at no more folders than ``patience`` counts."""
    if "lmdb" in path.name:
        return
    if all((path / name).is_file() for name in _PICKLES):
        yield path
        return
    inner = {"raw": re.compile("traj_group.*"), "traj_group": re.compile("traj.*")}
    wanted = inner.get(path.name.rstrip("0123456789"))
    deepest = _LEVELS + 3
    if level >= deepest or not path.is_dir():
        return
    for child in sorted((Path(e.path) for e in _listed(path)), key=natural):
        if patience is not None and next(patience, None) is None:
            return
        if wanted is None or wanted.fullmatch(child.name):
            yield from _trajectories(child, patience, level + 1)


def _date_of(folder: Path) -> datetime | None:
    try:
        return datetime.strptime(folder.name, DATED)  # noqa: DTZ007 - the lab's own clock
    except ValueError:
        return None


def _listed(path: Path) -> list[os.DirEntry[str]]:
    with os.scandir(path) as found:
        return [entry for entry in found if entry.is_dir(follow_symlinks=False)]


class _Trajectory:
    """One trajectory, read part by part into a draft."""

    def __init__(self, converter: BridgeRaw, root: Path, folder: Path) -> None:
        self._converter, self._root, self._folder = converter, root, folder
        where = "" if folder == root else folder.relative_to(root).as_posix()
        self._draft = Draft(root, where)
        self._sources: list[SourceFile] = []
        self._length = 0

    def episode(self) -> Episode:
        """Return the episode."""
        draft = self._draft
        self._observations()
        self._actions()
        self._told_of_agent()
        robot = self._sheets()
        for folder in entries(self._folder):
            matched = _CAMERA.fullmatch(folder.name)
            if matched and folder.is_dir():
                self._camera(folder, depth=bool(matched[1]), number=matched[2])
            elif folder.name not in {*_PICKLES, "agent_data.pkl", "lang.txt"}:
                draft.drop(folder.name, "is no part of a trajectory as the recorder writes it")
        self._language()
        return draft.build(self._converter, self._sources, version=VERSION, embodiment=robot)

    @property
    def _recorded(self) -> datetime | None:
        places = islice(self._folder.absolute().parents, 4)
        return next(filter(None, map(_date_of, places)), None)

    def _source(self, path: Path, role: str = "recording") -> None:
        self._sources.append(source_file(path, self._root if path.is_relative_to(self._root) else path, role))

    # Pickles

    def _pickle(self, name: str, role: str = "recording") -> Any:
        path = self._folder / name
        self._source(path, role)
        return unpickled_file(path)

    def _observations(self) -> None:
        name = _PICKLES[0]
        held = self._pickle(name)
        if not isinstance(held, dict) or not held or not all(isinstance(key, str) for key in held):
            raise FormatError(str(self._folder / name), "pickle", "is no dict of observations")
        columns = {key: _column(value) for key, value in held.items()}
        main = columns.get("full_state", columns.get("state"))
        if main is None or not 0 < len(main) <= _MAX_STEPS:
            raise FormatError(str(self._folder / name), "full_state", "has no rows of the robot's state")
        self._length = len(main)
        self._clock(columns.get("time_stamp"))
        for key, values in columns.items():
            if values is not None and len(values) == self._length:
                self._low_dim(f"{name}: {key}", values, MEANINGS.get(key, _unknown(key)), "steps")
            else:
                self._tell(f"{name}: {key}", held[key])

    def _clock(self, stamps: Array | None) -> None:
        draft, rate = self._draft, self._converter.rate_hz
        if (
            stamps is not None
            and stamps.ndim == 1
            and len(stamps) == self._length
            and np.isfinite(stamps).all()
        ):
            times = np.rint((stamps.astype(np.float64) - stamps[0]) * 1e9).astype(np.int64)
            source = "obs_dict.pkl: time_stamp (when joints had been read, before pictures were taken)"
            draft.recorded("steps", times, source, field="obs_dict.pkl: time_stamp")
            return
        if rate is None:
            draft.refuse("obs_dict.pkl: time_stamp", "is missing", "Say the steps per second: option rate_hz")
        draft.nominal("steps", self._length, rate, "nominal, from the option rate_hz")

    def _actions(self) -> None:
        name = _PICKLES[1]
        steps = self._pickle(name)
        if not isinstance(steps, list) or len(steps) != self._length - 1 or not steps:
            raise FormatError(
                str(self._folder / name),
                "pickle",
                f"holds {_length_of(steps)} actions for {self._length} observations",
                "A sound trajectory has one action less: this one was cut off",
            )
        rows = [step if isinstance(step, dict) else {"actions": step} for step in steps]
        times = self._draft.clocks["steps"]
        if times.kind == "recorded":
            self._draft.recorded(
                "actions", times.read()[:-1], "the steps' times, without the last observation's"
            )
        else:
            self._draft.nominal("actions", len(steps), times.declared_hz or 0, times.source)
        for key in rows[0]:
            values = [row.get(key) for row in rows]
            column = _column(values)
            if column is None:
                self._tell(f"{name}: {key}", values[0] if all(v == values[0] for v in values) else values)
            elif key == "actions":
                self._action(f"{name}: {key}", column)
            else:
                unknown = Meaning(stream=stream_name("extra", "policy", str(key)))
                self._low_dim(f"{name}: {key}", column, unknown, "actions")
        if "action" not in self._draft.streams:
            raise FormatError(str(self._folder / name), "actions", "are missing, or of different lengths")

    def _action(self, source: str, values: Array) -> None:
        axes = values.shape[1] if values.ndim == 2 else 0
        spec = StreamSpec(
            name="action",
            kind="low_dim",
            dtype=values.dtype.name,
            shape=values.shape[1:],
            unit=action_units(axes),
            frame="base" if action_axes(axes) else UNKNOWN,
            axes=action_axes(axes),
            clock="actions",
            contract=contract(axes, self._recorded),
            description="Displacement of the target pose and the gripper's target, as the policy gave it",
        )
        self._add(source, spec, values)

    def _low_dim(self, source: str, values: Array, meaning: Meaning, clock: str) -> None:
        last = values.shape[-1] if values.ndim > 1 else 1
        spec = StreamSpec(
            name=meaning.stream,
            kind="low_dim",
            dtype=values.dtype.name,
            shape=values.shape[1:],
            unit=meaning.unit if len(meaning.unit) in {1, last} else (UNKNOWN,),
            frame=meaning.frame,
            axes=meaning.axes if len(meaning.axes) == last else (),
            clock=clock,
            description=meaning.text,
        )
        self._add(source, spec, values)

    def _add(self, source: str, spec: StreamSpec, values: Array) -> None:
        if 0 in spec.shape:
            self._draft.drop(source, "its samples hold no values")
            return
        values = values.astype(spec.np_dtype)
        rows = rows_in(self._converter.block_bytes, spec)
        self._draft.add(spec, len(values), partial(_held, values, rows), source=source)

    def _told_of_agent(self) -> None:
        if (self._folder / "agent_data.pkl").is_file():
            told = self._pickle("agent_data.pkl", "metadata")
            for key, value in told.items() if isinstance(told, dict) else (("", told),):
                self._tell(f"agent_data.pkl: {key}", value)

    def _tell(self, source: str, value: Any) -> None:
        try:
            self._draft.tell(source, json_of(value), "bridge")
        except ValueError as error:
            self._draft.drop(source, f"has not one row per step, and {error}")

    # Files beside the pickles

    def _sheets(self) -> str:
        robot = UNKNOWN
        home = (
            self._folder.absolute().parents[2] if len(self._folder.absolute().parents) > 3 else self._folder
        )
        for name in _SHEETS:
            path = home / name
            if not path.is_file():
                continue
            self._source(path, "metadata")
            told = small_json(path, _MAX_JSON)
            self._draft.tell(name, told, "bridge")
            if isinstance(told, dict) and name == _SHEETS[0]:
                robot = embodiment_of(told.get("robot"))
        return robot

    def _language(self) -> None:
        path = self._folder / "lang.txt"
        if not path.is_file():
            return
        self._source(path, "metadata")
        try:
            lines = str(small_bytes(path, _MAX_TEXT), "utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise FormatError(str(path), f"byte {error.start}", "is no UTF-8") from error
        self._draft.account("lang.txt", "renamed", ["instructions"])
        sure = [line.strip() for line in lines if "confidence" in line]
        if sure:
            self._draft.tell("lang.txt: confidence", sure, "bridge")
        for line in lines:
            if line.strip() and "confidence" not in line and not self._draft.instruct(line.strip()):
                self._draft.warn(f"a line of lang.txt is no text: {line[:60]!a}")

    def _camera(self, folder: Path, *, depth: bool, number: str) -> None:
        files = numbered(folder, _PNG_NAME if depth else _JPEG_NAME, root=self._root)
        if len(files) != self._length:
            why = f"holds {len(files)} pictures for {self._length} observations"
            raise FormatError(str(folder), "im_*", why, "The trajectory was cut off")
        self._sources.append(files_source(files, folder.relative_to(self._root).as_posix()))
        first = shown_in(files[0], *(("png", "depth") if depth else ("jpeg", "video")))
        spec = StreamSpec(
            name=f"observation.{'depth' if depth else 'images'}.{number}",
            kind=first.kind,
            dtype=first.dtype,
            shape=first.shape,
            unit=("mm",) if depth else ("1",),
        )
        read = partial(read_files, tuple(files), first, rows_in(self._converter.block_bytes, spec))
        self._draft.add(spec, self._length, read, source=folder.name)


def _length_of(value: Any) -> int:
    return len(value) if isinstance(value, list) else 0


def _unknown(key: str) -> Meaning:
    return Meaning(stream=stream_name("extra", key))


def _column(value: Any) -> Array | None:
    """Return one row per step as an array, or None if it is no such thing."""
    if isinstance(value, list) and value:
        parts = [
            np.asarray(item)
            for item in value
            if isinstance(item, bool | int | float | np.generic | np.ndarray)
        ]
        alike = len(parts) == len(value) and len({(part.shape, part.dtype) for part in parts}) == 1
        value = np.stack(parts) if alike else None
    fine = isinstance(value, np.ndarray) and value.ndim > 0 and value.dtype.kind in "biuf"
    return value if fine else None


def _held(values: Array, rows: int, start: int, stop: int) -> Iterator[Array]:
    for first in range(start, stop, rows):
        yield values[first : min(first + rows, stop)]
