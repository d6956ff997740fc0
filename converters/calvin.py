"""CALVIN: hours of play in a simulated kitchen, one NumPy archive per time step.

Field notes. A split is a folder with ``episode_<number>.npz`` for every step, and ``ep_start_end_ids.npy``
with the first and last number of each session (github.com/mees/calvin_env: calvin_env/datarenderer.py). A
session is what is called an episode here. Steps are 1/30 s apart (conf/env/play_table_env.yaml: control_freq,
which a split's ``.hydra/merged_config.yaml`` repeats); there are no times.

About one in a hundred steps was described afterwards: ``lang_annotations/auto_lang_ann.npy`` is a pickled
dict with ``language`` (``ann``, ``task``, ``emb``) and ``info`` (``indx``: first and last step of each text)
(github.com/mees/calvin: dataset/README.md, calvin_models/calvin_agent/datasets/disk_dataset.py). Those spans
are events. They overlap, and nobody asked the robot to do what they say; they are the instructions of a
session only in the sense that they are what is known of it. Embeddings of the texts are left out.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..schemas import Array, Episode, Event, FormatError, SourceFile
from ..schemas.validate import has_controls
from ._calvin import spec_of
from ._confined import episodes
from ._draft import Draft
from ._folder import files_source, small_bytes
from ._npz import Npy, alike, arrays_of, whole
from ._pickled import json_of, unpickled_npy
from .base import Format, contained, rows_in, source_file

VERSION = "1"

_IDS = "ep_start_end_ids.npy"
_SPLITS = ("training", "validation")
_LANGUAGE = ("lang_annotations/auto_lang_ann.npy", "auto_lang_ann.npy")
_CONFIG = ".hydra/merged_config.yaml"
_SCENES = "scene_info.npy"
_RATE_HZ = 30.0
_RATE_LINE = re.compile(rb"^ *control_freq: *([0-9]{1,6}(?:\.[0-9]{1,6})?) *$", re.MULTILINE)
_MAX_IDS = 1 << 24
_MAX_STEPS = 1_000_000
_MAX_CONFIG = 1 << 20
_STEP = re.compile(r"episode_(\d{7})\.npz")


@dataclass(frozen=True)
class Calvin:
    """A split of CALVIN, or the folder around ``training`` and ``validation``.

    Attributes
    ----------
    block_bytes
        Most payload bytes of a block.
    rate_hz
        Steps per second, in place of what the split's configuration says, or of 30.
    """

    format: ClassVar[Format] = Format(
        name="calvin",
        title="CALVIN",
        spec="https://github.com/mees/calvin: dataset/README.md",
    )
    block_bytes: int = 1 << 20
    rate_hz: float | None = None

    def probe(self, path: Path) -> bool:
        """Tell whether ``path`` is a split, or a folder of splits."""
        try:
            return next(_splits(path), None) is not None
        except OSError:
            return False

    def episodes(self, path: Path) -> Iterator[Episode]:
        """Yield the sessions in the order of their steps, each read in a confined process."""
        return episodes(self, path)

    def unconfined(self, path: Path) -> Iterator[Episode]:
        """Do what `episodes` promises, in this process."""
        for folder in _splits(path):
            split = _Split(folder, path)
            for first, last in split.sessions():
                yield _session(self, split, first, last)


CONVERTER = Calvin


def _splits(path: Path) -> Iterator[Path]:
    if (path / _IDS).is_file():
        yield path
        return
    yield from (path / name for name in _SPLITS if (path / name / _IDS).is_file())


@dataclass(frozen=True, slots=True)
class _Text:
    """What somebody wrote of steps ``[first, last]``."""

    text: str
    task: str
    first: int
    last: int


class _Split:
    """A split's folder, and what its sessions have in common."""

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder, self.root = folder, root
        self.language = next((name for name in _LANGUAGE if (folder / name).is_file()), None)
        self.texts = self._texts(folder / self.language) if self.language else []
        self.scenes = unpickled_npy(folder / _SCENES) if (folder / _SCENES).is_file() else None
        with os.scandir(folder) as found:
            self.others = sorted(entry.name for entry in found if not _STEP.fullmatch(entry.name))

    def sessions(self) -> list[tuple[int, int]]:
        """Return the first and last step of each session."""
        path = self.folder / _IDS
        found = arrays_of(path)["array"]
        ids: Array = whole(path, found, _MAX_IDS) if found.dtype.kind in "iu" else np.empty(0)
        if ids.ndim != 2 or ids.shape[1] != 2:
            raise FormatError(str(path), "array", "is no list of first and last steps")
        spans = [(int(first), int(last)) for first, last in ids]
        for i, (first, last) in enumerate(spans):
            if not 0 <= first <= last < first + _MAX_STEPS:
                raise FormatError(str(path), f"row {i}", f"is no span of steps: {first} to {last}")
        return spans

    def rate(self) -> tuple[float, str]:
        """Return the steps per second, and where that is told."""
        path = self.folder / _CONFIG
        told = _RATE_LINE.search(small_bytes(path, _MAX_CONFIG)) if path.is_file() else None
        if told:
            return float(told[1]), f"nominal, control_freq of {_CONFIG}"
        spec = "github.com/mees/calvin_env: conf/env/play_table_env.yaml, control_freq"
        return _RATE_HZ, f"nominal, {spec}"

    def sources(self, steps: Sequence[Path]) -> tuple[SourceFile, ...]:
        """Return the records of a session's steps, and of what tells of them."""
        place = self.folder.relative_to(self.root)
        uri = (place / f"episode_{steps[0].stem[8:]}-{steps[-1].stem[8:]}.npz").as_posix()
        others = [_IDS, *([self.language] if self.language else []), *([_SCENES] if self.scenes else [])]
        told = (source_file(self.folder / name, self.root, "metadata") for name in others)
        for step in steps:
            if step.is_symlink():
                contained(self.root, step.relative_to(self.root).as_posix(), path=step, where=step.name)
        return (files_source(steps, uri), *told)

    def _texts(self, path: Path) -> list[_Text]:
        held = unpickled_npy(path)
        try:
            language, spans = held["language"], held["info"]["indx"]
            told = zip(language["ann"], language["task"], spans, strict=True)
            return [
                _Text(_line(ann), _line(task), int(first), int(last)) for ann, task, (first, last) in told
            ]
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            why = f"does not tell texts, tasks and spans of steps: {type(error).__name__} {error}"
            raise FormatError(str(path), "language", why) from error


def _line(text: Any) -> str:
    if not isinstance(text, str) or has_controls(text):
        raise TypeError("a text is none")
    return str(text)


def _session(converter: Calvin, split: _Split, first: int, last: int) -> Episode:
    where = f"{split.folder.name}: steps {first} to {last}"
    draft = Draft(split.folder, where)
    steps = [split.folder / f"episode_{number:07d}.npz" for number in range(first, last + 1)]
    sources = split.sources(steps)
    rate, told = (
        (converter.rate_hz, "nominal, from the option rate_hz") if converter.rate_hz else split.rate()
    )
    draft.nominal("steps", len(steps), rate, told)
    arrays = arrays_of(steps[0])
    if set(arrays_of(steps[-1])) != set(arrays):
        draft.refuse(steps[-1].name, "holds other arrays than the session's first step")
    for name, found in sorted(arrays.items()):
        _add(converter, draft, steps, name, found)
    if not draft.streams:
        draft.refuse(steps[0].name, "holds no array of numbers, so the session has no payload")
    draft.account(_IDS, "transformed", ["extra.calvin"], "each episode tells its own steps")
    draft.extra["calvin"] = {"split": split.folder.name, "steps": [first, last]}
    _tell_scene(draft, split)
    _tell_language(draft, split, first, last, rate)
    _tell_rest(draft, split)
    # The steps themselves tell the session: the split's name and numbers do not.
    return draft.build(converter, sources, version=VERSION, embodiment="panda")


def _add(converter: Calvin, draft: Draft, steps: Sequence[Path], name: str, found: Npy) -> None:
    source = f"episode_*.npz: {name}"
    if found.unread or 0 in found.shape or found.dtype.kind not in "biuf":
        draft.drop(source, found.unread or "its samples hold no numbers")
        return
    spec = spec_of(found)
    read = partial(_rows, tuple(steps), found, spec.np_dtype, rows_in(converter.block_bytes, spec))
    draft.add(spec, len(steps), read, source=source)


def _rows(
    steps: Sequence[Path], like: Npy, dtype: np.dtype[Any], rows: int, start: int, stop: int
) -> Iterator[Array]:
    for at in range(start, stop, rows):
        part = steps[at : min(at + rows, stop)]
        block: Array = np.empty((len(part), *like.shape), dtype)
        for i, step in enumerate(part):
            block[i] = alike(step, like)
        yield block


def _tell_scene(draft: Draft, split: _Split) -> None:
    if split.scenes is not None:
        try:
            draft.tell(_SCENES, json_of(split.scenes), "calvin_scenes")
        except ValueError as error:
            draft.drop(_SCENES, str(error))


def _tell_language(draft: Draft, split: _Split, first: int, last: int, rate_hz: float) -> None:
    name = split.language
    if name is None:
        return
    ours = [text for text in split.texts if first <= text.first <= text.last <= last]
    for text in ours:
        draft.instruct(text.text)
        draft.events.append(
            Event(
                kind="instruction",
                start_ns=round((text.first - first) * 1e9 / rate_hz),
                stop_ns=round((text.last + 1 - first) * 1e9 / rate_hz),
                text=text.text,
                attributes={"task": text.task, "rows": [text.first - first, text.last + 1 - first]},
            )
        )
    across = sum(text.first <= last and text.last >= first for text in split.texts) - len(ours)
    if across:
        draft.warn(f"{across} texts tell of steps beyond this session, and were left out")
    draft.account(f"{name}: language/ann", "renamed", ["instructions", "events"])
    draft.account(f"{name}: language/task", "renamed", ["events"])
    draft.account(f"{name}: info/indx", "transformed", ["events"], "steps counted from the session's first")
    draft.drop(f"{name}: language/emb", "embeddings of the texts by a model, which the texts give again")


def _tell_rest(draft: Draft, split: _Split) -> None:
    told: Mapping[str, str] = {
        "ep_lens.npy": f"the lengths of the spans of {_IDS}",
        "embeddings.npy": "embeddings of texts by a model",
        "statistics.yaml": "statistics of the whole split",
        ".hydra": "how the split was rendered; its rate is the clock's",
    }
    for name in split.others:
        if name in {_IDS, _SCENES, split.language, "lang_annotations"}:
            continue
        other = "embeddings of texts" if name.startswith("lang_") else "is no part of the format"
        draft.drop(name, told.get(name, other))
