"""Minari's data sets: a folder ``<name>-v<n>`` with ``data`` in it, or that ``data`` itself.

Field notes. ``metadata.json`` tells the layout, and the spaces of observations and actions as JSON
(Farama-Foundation/Minari: minari/dataset/minari_storage.py, minari/serialization.py). Of the environment it
has the specification, whose entry points Minari would import; here it is a text.

- ``hdf5``: ``main_data.hdf5`` with ``episode_<n>`` (minari/dataset/_storages/hdf5_storage.py). Members of a
  tuple are called ``_index_<i>``.
- ``arrow``, ``parquet``: ``<n>/part-0.<layout>`` and ``<n>/metadata.json`` (arrow_storage.py). Members of a
  tuple are called by their number. The last row of all but observations and infos is padding.

*Rows.* Observations and infos have one row more than actions: row t comes before action t, the last one after
the last action (minari/data_collector/data_collector.py: reset, step). They have a clock of that length.

*Pictures* of spaces of bytes from 0 to 255 with sides of 32 or more are stored as JPEG, unless the metadata's
``jpeg_encoding`` is false, which is recognised by the arrays themselves. Pillow encoded them as RGB.

*Time.* Gymnasium has steps and no seconds. The clock is nominal at ``control_freq`` where the environment was
made with such an argument; else the option `rate_hz` is needed.

*Success* is not told: ``terminations`` end an episode for good or for ill.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from ..schemas import UNKNOWN, ActionContract, Episode, FormatError, Json, SourceFile, StreamSpec
from ._demos import (
    Demo,
    json_of,
    members_in,
    members_of,
    number_of,
    numbered,
    only,
    picture_of,
    read_encoded,
    spec_of,
    tell_bounded,
    tell_texts,
)
from ._draft import Draft, stream_name
from ._hdf5 import Field, open_hdf5
from ._jpeg import Picture, decoded
from ._minari_tables import Leaf, Table, read_numbers, read_pictures, read_texts
from .base import Format, contained, rows_in, source_file

VERSION = "1"

_METADATA, _MAIN = "metadata.json", "main_data.hdf5"
_PROBED_BYTES = 1 << 12
_BOUNDS = 64
_LEAST_SIDE = 32
_EPISODE = re.compile(r"episode_(\d{1,18})")
_NUMBER = re.compile(r"(\d{1,18})")
_EVIDENCE = (
    "Farama-Foundation/Minari: minari/data_collector/data_collector.py: observation t comes before action t"
)
_NEXT = {"rewards": "next.reward", "terminations": "next.terminated", "truncations": "next.truncated"}

Layout = Literal["hdf5", "arrow", "parquet"]


@dataclass(frozen=True)
class Minari:
    """Reads a data set; its episodes in the order of their numbers.

    Attributes
    ----------
    block_bytes
        Most payload bytes in a block.
    rate_hz
        Steps per second, which the format does not tell.
    instruction
        What the robot was asked to do, since the format has no place for it.
    embodiment
        The robot, since the format has no place for it.
    """

    format: ClassVar[Format] = Format(
        name="minari",
        title="Minari data set (HDF5, Arrow or Parquet)",
        spec="https://github.com/Farama-Foundation/Minari: minari/dataset/minari_storage.py",
    )
    block_bytes: int = 16 << 20
    rate_hz: float | None = None
    instruction: str | None = None
    embodiment: str = UNKNOWN

    def probe(self, path: Path) -> bool:
        """Tell whether a folder has the metadata of a data set, by the beginning of that file."""
        try:
            with (_home(path) / _METADATA).open("rb") as file:
                begins = file.read(_PROBED_BYTES)
        except OSError:
            return False
        return b'"total_episodes"' in begins and b'"data_format"' in begins

    def beside(self, path: Path) -> tuple[Path, ...]:
        """Return what is read beside a file that was named: its ``metadata.json``."""
        return (path.parent,) if path.is_file() else ()

    def episodes(self, path: Path) -> Iterator[Episode]:
        """Yield the episodes."""
        dataset = _Dataset.open(path)
        rate = self._rate(dataset)
        read = _hdf5_episodes if dataset.layout == "hdf5" else _table_episodes
        yield from read(dataset, self, rate)

    def _rate(self, dataset: _Dataset) -> tuple[float, str]:
        if self.rate_hz is not None:
            return self.rate_hz, "option rate_hz"
        found = dataset.control_hz
        if found is None:
            why, advice = "nothing tells how many steps it has per second", "Say it: option rate_hz"
            raise FormatError(str(dataset.path), "env_spec", why, advice)
        return found, f"{_METADATA}: control_freq among the arguments of env_spec"


def _home(path: Path) -> Path:
    return path / "data" if (path / "data" / _METADATA).is_file() else path


@dataclass(frozen=True, slots=True, kw_only=True)
class _Dataset:
    """A data set whose metadata were read.

    Attributes
    ----------
    root, home
        The folder that was given, and the one that holds the data.
    spaces
        The spaces of ``observations`` and ``actions`` as JSON; empty if they are not told.
    """

    root: Path
    home: Path
    layout: Layout
    metadata: Mapping[str, Json]
    spaces: Mapping[str, Json]
    source: SourceFile
    _pictures: dict[tuple[str, ...], Picture | None] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path) -> _Dataset:
        """Read the metadata."""
        root = path.resolve()
        home = _home(root)
        file, metadata = _read_json(root, home / _METADATA)
        layout = metadata.get("data_format", "hdf5")
        if layout not in {"hdf5", "arrow", "parquet"}:
            raise FormatError(str(file), "data_format", f"is {layout!r}; hdf5, arrow and parquet are read")
        spaces = {
            part: _space_of(metadata.get(name), file, name)
            for part, name in (("observations", "observation_space"), ("actions", "action_space"))
        }
        source = source_file(file, root, "metadata")
        return cls(root=root, home=home, layout=layout, metadata=metadata, spaces=spaces, source=source)

    @property
    def path(self) -> Path:
        """The metadata, for errors."""
        return self.home / _METADATA

    @property
    def control_hz(self) -> float | None:
        """Steps per second that the environment was told to have, or None."""
        try:
            spec = members_of(json_of(self.metadata.get("env_spec")))
        except ValueError:
            return None
        arguments = members_of(spec.get("kwargs"))
        inner = members_of(arguments.get("sim_config"))
        return number_of(arguments.get("control_freq")) or number_of(inner.get("control_freq"))

    def file(self, *names: str) -> Path:
        """Return a file of the data set, which has to lie in its folder."""
        name = (self.home.relative_to(self.root) / Path(*names)).as_posix()
        target = contained(self.root, name, path=self.path, where=name)
        if not target.is_file():
            raise FormatError(str(self.root), name, "is missing", "Copy the data set anew")
        return target

    def space(self, part: str, path: Sequence[str]) -> Mapping[str, Json]:
        """Return the space of a leaf; empty if it is not told."""
        found = self.spaces.get(part)
        for name in path:
            inner = members_of(found).get("subspaces")
            if isinstance(inner, list):
                number = name.removeprefix("_index_")
                found = inner[int(number)] if number.isdigit() and int(number) < len(inner) else None
            else:
                found = members_of(inner).get(name)
        return members_of(found)

    def picture(self, part: str, path: Sequence[str]) -> Picture | None:
        """Return the picture that the space of a leaf is of, or None; looked at once, as limits are long."""
        place = (part, *path)
        if place not in self._pictures:
            self._pictures[place] = _picture(self.space(part, path))
        return self._pictures[place]

    def tell(self, draft: Draft, episodes: int) -> None:
        """Keep the metadata in the header of an episode."""
        for key, value in self.metadata.items():
            tell_bounded(draft, f"{_METADATA}@{key}", value, "dataset")
        said = self.metadata.get("total_episodes")
        if said != episodes:
            draft.warn(f"total_episodes is {said!r}, and there are {episodes}")


def _read_json(root: Path, file: Path) -> tuple[Path, dict[str, Json]]:
    name = file.relative_to(root).as_posix()
    target = contained(root, name, path=file, where=name)
    return target, members_in(target)


def _space_of(text: Json, file: Path, where: str) -> Json:
    """Return a space as JSON: the metadata hold it as a text of JSON."""
    if text is None:
        return {}
    try:
        return json_of(text)
    except ValueError as error:
        raise FormatError(str(file), where, f"is no space: {error}") from error


def _picture(space: Mapping[str, Json]) -> Picture | None:
    """Return the picture that a space is of, by the rule of minari_storage.py: is_image_space; or None."""
    shape = _shape(space)
    sides = shape is not None and len(shape) in {2, 3} and min(shape[:2]) >= _LEAST_SIDE
    if shape is None or not sides or space.get("type") != "Box" or space.get("dtype") != "uint8":
        return None
    try:
        low, high = np.asarray(space.get("low"), np.float64), np.asarray(space.get("high"), np.float64)
    except (TypeError, ValueError):
        return None
    channels = shape[2] if len(shape) == 3 else 1
    plain = low.size and high.size and not low.any() and bool((high == 255).all()) and channels in {1, 3}
    return Picture(shape[0], shape[1], channels) if plain else None


def _shape(space: Mapping[str, Json]) -> tuple[int, ...] | None:
    """Return the shape of an element of a space of numbers, where the space tells it."""
    told = space.get("shape", space.get("n") if space.get("type") == "MultiBinary" else None)
    told = [told] if isinstance(told, int) else told
    good = isinstance(told, list) and len(told) <= 8 and all(type(n) is int and 0 < n < 1 << 31 for n in told)
    return tuple(told) if good else None


def _bounds(space: Mapping[str, Json]) -> dict[str, Json]:
    """Return the limits of an element of a small space, where they are numbers."""
    small = math.prod(_shape(space) or ()) <= _BOUNDS
    limits = {name: space.get(name) for name in ("low", "high", "n", "start", "nvec")} if small else {}
    return {name: value for name, value in limits.items() if _are_numbers(value, _BOUNDS)}


def _are_numbers(value: Json, most: int) -> bool:
    inner = value if isinstance(value, list) else [value]
    while inner and all(isinstance(one, list) for one in inner) and len(inner) <= most:
        inner = [member for one in inner for member in one]
    return 0 < len(inner) <= most and all(type(one) in {int, float} for one in inner)


def _name(part: str, path: Sequence[str], *, picture: bool = False) -> str:
    """Return the stream of a leaf of observations, actions or infos."""
    words = [word.removeprefix("_index_") for word in path]
    if part == "observations":
        return stream_name(
            "observation", *(["images", *(words or ["image"])] if picture else words or ["state"])
        )
    return stream_name("action", *words) if part == "actions" else stream_name("extra", part, *words)


def _finished(spec: StreamSpec, part: str, space: Mapping[str, Json]) -> StreamSpec:
    """Return the spec with what the space tells, and for actions with their contract."""
    if spec.kind == "low_dim":
        spec = dataclasses.replace(spec, attributes={**spec.attributes, **_bounds(space)})
    if part != "actions":
        return spec
    return dataclasses.replace(spec, contract=ActionContract(offset_steps=0, evidence=_EVIDENCE))


def _video(name: str, want: Picture) -> StreamSpec:
    return StreamSpec(
        name=name,
        kind="video",
        dtype="uint8",
        shape=(want.height, want.width, want.channels),
        unit=("1",),
        attributes={"encoding": "jpeg", "stored_order": "rgb"},
    )


_DECODED = "JPEGs as Pillow wrote them, decoded by libjpeg"


# HDF5


def _hdf5_episodes(dataset: _Dataset, options: Minari, rate: tuple[float, str]) -> Iterator[Episode]:
    path = dataset.file(_MAIN)
    with open_hdf5(path, lambda name: not _EPISODE.fullmatch(name)) as hdf5:
        names = numbered(hdf5.passed_by, _EPISODE)
    if not names:
        raise FormatError(str(path), "", "holds no episode_<n>")
    sources = [source_file(path, dataset.root), dataset.source]
    for name in names:
        draft = Draft(path, name)
        with open_hdf5(path, only(name)) as hdf5:
            rewards = hdf5.fields.get(f"{name}/rewards", Field(name="", unread="is missing"))
            if rewards.unread or not rewards.shape or not rewards.shape[0]:
                draft.refuse("rewards", rewards.unread or "has no rows", "The recording was cut off")
            demo = Demo(
                hdf5=hdf5,
                group=name,
                draft=draft,
                length=rewards.shape[0],
                rate_hz=rate[0],
                rate_source=rate[1],
                block_bytes=options.block_bytes,
                one_more=("observations", "infos"),
            )
            for field, found in demo.fields():
                _place(demo, dataset, field, found)
            demo.check_count("total_steps")
            demo.rest()
        yield _built(draft, dataset, options, sources, name, len(names))


def _place(demo: Demo, dataset: _Dataset, name: str, found: Field) -> None:
    """Decide what becomes of a dataset."""
    part, *path = name.split("/")
    space = dataset.space(part, path)
    want = dataset.picture(part, path)
    rows = found.dtype == np.uint8 and len(found.shape) == 2 and found.shape[1:] != _shape(space)
    if want is not None and found.shape and (found.varying or (rows and demo.readable(found))):
        spec = _finished(_video(_name(part, path, picture=True), want), part, space)
        decode = partial(decoded, want=want, order="standard")
        demo.keep(name, found, spec, _DECODED, read=partial(read_encoded, decode=decode), lossless=None)
    elif not demo.readable(found) or part not in {"observations", "actions", "infos", *_NEXT}:
        demo.leave(name, found)
    elif part in _NEXT:
        demo.keep(name, found, spec_of(found, _NEXT[part]))
    else:
        picture = picture_of(found, _name(part, path, picture=True), stored_order="rgb")
        spec = picture if part == "observations" and picture else spec_of(found, _name(part, path))
        demo.keep(name, found, _finished(spec, part, space))


def _built(
    draft: Draft,
    dataset: _Dataset,
    options: Minari,
    sources: Sequence[SourceFile],
    selector: str,
    episodes: int,
) -> Episode:
    if options.instruction is not None:
        draft.instruct(options.instruction)
    dataset.tell(draft, episodes)
    draft.extra["layout"] = dataset.layout
    return draft.build(options, sources, version=VERSION, selector=selector, embodiment=options.embodiment)


# Arrow and Parquet


def _table_episodes(dataset: _Dataset, options: Minari, rate: tuple[float, str]) -> Iterator[Episode]:
    names = numbered((p.name for p in dataset.home.iterdir() if p.is_dir()), _NUMBER)
    if not names:
        raise FormatError(str(dataset.home), "", "holds no folders of episodes", "Copy the data set anew")
    for name in names:
        yield _TableReader(dataset, options, rate, name).episode(len(names))


class _TableReader:
    """Goes through the columns of one episode."""

    def __init__(self, dataset: _Dataset, options: Minari, rate: tuple[float, str], name: str) -> None:
        self.dataset, self.options, self.rate, self.name = dataset, options, rate, name
        self.path = dataset.file(name, f"part-0.{dataset.layout}")
        self.draft = Draft(self.path)
        self.table = Table.open(self.path, parquet=dataset.layout == "parquet")

    def episode(self, episodes: int) -> Episode:
        """Decide what becomes of every column."""
        if self.table.rows < 2:
            self.draft.refuse("", "has one row: an observation and no action", "The recording was cut off")
        others = sorted(p.name for p in self.path.parent.iterdir())
        for other in others:
            if other not in {self.path.name, _METADATA}:
                self.draft.refuse(other, "is one file too many: an episode of several files is not read")
        self.draft.nominal("observations", self.table.rows, *self.rate)
        self.draft.nominal("steps", self.table.rows - 1, *self.rate)
        for leaf in self.table.leaves.values():
            self._place(leaf)
        sources = [source_file(self.path, self.dataset.root), *self._record(), self.dataset.source]
        return _built(self.draft, self.dataset, self.options, sources, f"episode_{self.name}", episodes)

    def _record(self) -> list[SourceFile]:
        """Keep the metadata of the episode, where there are any."""
        beside = self.path.with_name(_METADATA)
        if not beside.exists():
            return []
        file, members = _read_json(self.dataset.root, beside)
        for key, value in members.items():
            tell_bounded(self.draft, f"{self.name}/{_METADATA}@{key}", value, "episode")
        said = members.get("total_steps", self.table.rows - 1)
        if said != self.table.rows - 1:
            self.draft.warn(f"total_steps is {said!r}, and there are {self.table.rows - 1}")
        return [source_file(file, self.dataset.root, "metadata")]

    def _place(self, leaf: Leaf) -> None:
        part, *path = leaf.path
        space = self.dataset.space(part, path)
        want = self.dataset.picture(part, path) if leaf.dtype == "bytes" else None
        whole = part in {"observations", "infos"}
        length = self.table.rows if whole else self.table.rows - 1
        parquet = self.table.parquet
        if leaf.dtype == "text":
            texts = read_texts(self.path, leaf, length, parquet=parquet)
            tell_texts(self.draft, leaf.name, leaf.name, texts, self.rate[0])
            return
        if not leaf.dtype or leaf.width == 0 or (leaf.dtype == "bytes" and want is None):
            self.draft.drop(leaf.name, "is of a type that is not read")
            return
        if want is not None:
            spec, read, how = _video(_name(part, path, picture=True), want), read_pictures, _DECODED
        else:
            spec, read, how = self._numbers(leaf, part, path, space), read_numbers, ""
        if not whole:
            how = "; ".join(filter(None, (how, "without the last row, which is padding")))
        spec = dataclasses.replace(_finished(spec, part, space), clock="observations" if whole else "steps")
        rows = rows_in(self.options.block_bytes, spec)
        samples = partial(read, self.path, leaf, spec, rows, parquet=parquet)
        lossless = None if want is not None else True
        self.draft.add(spec, length, samples, source=leaf.name, how=how, lossless=lossless)

    def _numbers(self, leaf: Leaf, part: str, path: Sequence[str], space: Mapping[str, Json]) -> StreamSpec:
        """Return the spec of a leaf of numbers, in the shape that its space or its field tells."""
        flat = () if leaf.width is None else (leaf.width,)
        told = _shape(space) or leaf.shape
        fits = told is not None and leaf.width is not None and np.prod(told, dtype=object) == leaf.width
        found = Field(
            name="", shape=(self.table.rows, *(told if told and fits else flat)), dtype=np.dtype(leaf.dtype)
        )
        name = _NEXT.get(part) if not path else None
        picture = picture_of(found, _name(part, path, picture=True), stored_order="rgb")
        if part == "observations" and picture is not None:
            return picture
        return spec_of(found, name or _name(part, path))


CONVERTER = Minari
