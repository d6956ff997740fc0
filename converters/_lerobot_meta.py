"""What a LeRobot dataset says of itself in info.json, and of the licence in its card.

This is the same in the formats 2 and 3. It is read and checked before a table, a data file or a video is
opened.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..schemas import FormatError, Json
from ._folder import json_members
from ._mp4 import MAX_PIXELS
from .base import contained

INFO = "meta/info.json"
STATS = "meta/stats.json"
CARD = "README.md"

MAX_WORD = 1_000
"""Most characters of a name."""

_FILES_KNOWN = 64
_MAX_SAMPLE_BYTES = 1 << 30
_MAX_DIMENSIONS = 5

_FIELD = re.compile(r"\{([a-z_]+)(?::0?(\d{0,2})d)?\}")

_TELLING = re.compile(r"licen[cs]e|copyright|author|consent|citation", re.IGNORECASE)
_FRONT_MATTER = re.compile(r"---\r?\n(.*?\n)---\s", re.DOTALL)
_LICENCE_LINES = re.compile(r"^(?:license|license_\w+):[^\n]*\n(?:[ \t-][^\n]*\n)*", re.MULTILINE)
"""Members of a dataset card's front matter, which go on while lines are indented or items of a list."""


@dataclass(frozen=True)
class Info:
    """What info.json and the card say, checked.

    Attributes
    ----------
    home
        The dataset's folder, links followed.
    members
        All of info.json.
    evidence
        What the dataset says on licence, authors and consent, word for word.
    """

    root: Path
    home: Path
    members: Mapping[str, Any]
    fps: float
    features: Mapping[str, Mapping[str, Any]]
    evidence: Mapping[str, Json]
    _files: dict[str, Path] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def open(cls, root: Path, major: str) -> Info:
        """Read info.json, which must be of this major version."""
        members, path = read_info(root), root / INFO
        if version(members) != major:
            told = members.get("codebase_version")
            advice = "Use the converter of that version, or bring the data to v3.0 with LeRobot's own script"
            raise FormatError(str(path), "codebase_version", f"is {told!r}; this reads v{major}", advice)
        if members.get("storage_format", "parquet") != "parquet":
            why = f"is {members['storage_format']!r}; Parquet is read"
            raise FormatError(str(path), "storage_format", why)
        return cls(
            root=root,
            home=root.resolve(),
            members=members,
            fps=_read_fps(members, path),
            features=_read_features(members, path),
            evidence=_evidence(root, members),
        )

    @property
    def path(self) -> Path:
        """The file, for errors."""
        return self.root / INFO

    def check_total(self, member: str, found: int, teller: str) -> None:
        """Compare what info.json counts with what is there."""
        told = self.members.get(member)
        if told != found or isinstance(told, bool):
            raise FormatError(str(self.path), member, f"is {told!r}, but {teller} tells of {found}")

    def file(self, template: str, where: str, **values: object) -> Path:
        """Return the file that a path template of info.json names."""
        pattern = self.members.get(template)
        if not isinstance(pattern, str):
            raise FormatError(str(self.path), template, f"is {pattern!r} instead of a path")
        name = _filled(pattern, values)
        if name is None:
            raise FormatError(str(self.path), template, f"{pattern[:200]!r} is no template of a path")
        if name not in self._files:  # episodes share files, and following links takes its time
            if len(self._files) >= _FILES_KNOWN:
                self._files.clear()
            found = contained(self.root, name, path=self.path, where=template)
            if not found.is_file():
                raise FormatError(str(self.path), where, f"the file {name} is absent")
            self._files[name] = found
        return self._files[name]


# info.json


def read_json(root: Path, name: str) -> dict[str, Any]:
    """Return a file of a dataset that holds an object of plain values."""
    path = root / name
    found = json_members(contained(root, name, path=path, where=""))
    if not is_json(found):
        raise FormatError(str(path), "", "is no JSON object of plain values")
    return found


def read_info(root: Path) -> dict[str, Any]:
    """Return info.json, an object of plain values."""
    return read_json(root, INFO)


def version(info: Mapping[str, Any]) -> str:
    """Return the major version of the format, ``""`` if there is none."""
    found = re.fullmatch(r"v?(\d{1,3})(\.\d{1,9})*", str(info.get("codebase_version", "")))
    return found[1] if found else ""


def is_json(value: object) -> bool:
    """Tell whether a value can stand in a header: finite numbers, text that is Unicode, and so on."""
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _read_fps(info: Mapping[str, Any], path: Path) -> float:
    fps = info.get("fps")
    if isinstance(fps, bool) or not isinstance(fps, int | float) or not 0 < fps <= 1e6:
        raise FormatError(str(path), "fps", f"{fps!r} is no rate")
    return float(fps)


def _read_features(info: Mapping[str, Any], path: Path) -> dict[str, Mapping[str, Any]]:
    features = info.get("features")
    if not isinstance(features, dict):
        raise FormatError(str(path), "features", "is absent or no object")
    for name, feature in features.items():
        where = f"features.{name}"
        # LeRobot forbids the slash, since names are folders: _validate_feature_names in datasets/utils.py.
        if not name or "/" in name or "\0" in name or len(name) > 200:
            raise FormatError(str(path), where, "no feature may bear such a name")
        if not isinstance(feature, dict) or not isinstance(feature.get("dtype"), str):
            raise FormatError(str(path), where, "tells no dtype")
        _check_shape(feature, path, f"{where}.shape")
    return features


def _check_shape(feature: Mapping[str, Any], path: Path, where: str) -> None:
    shape = feature.get("shape")
    if not isinstance(shape, list) or len(shape) > _MAX_DIMENSIONS or not all(map(_is_extent, shape)):
        raise FormatError(str(path), where, f"{str(shape)[:100]} is no shape of a sample")
    limit = 4 * MAX_PIXELS if feature["dtype"] in {"video", "image"} else _MAX_SAMPLE_BYTES
    if math.prod(shape) > limit:
        raise FormatError(str(path), where, f"{shape} is larger than any sample that is read")


def _is_extent(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def rest_of(feature: Mapping[str, Any]) -> dict[str, Json]:
    """Return what a feature tells beyond its dtype, shape and names."""
    return {m: v for m, v in feature.items() if m not in {"dtype", "shape", "names"}}


def axes_of(feature: Mapping[str, Any], shape: tuple[int, ...]) -> tuple[tuple[str, ...], dict[str, Json]]:
    """Return the names of a sample's last axis, and as attributes what these do not tell."""
    names = feature.get("names")
    found = _flat_names(names)
    fit = len(set(found)) == len(found) == (shape[-1] if shape else 1)
    axes = tuple(found) if fit and all(0 < len(n) <= MAX_WORD for n in found) else ()
    attributes: dict[str, Json] = {"feature": rest} if (rest := rest_of(feature)) else {}
    if names is not None and names != list(axes):
        attributes["names"] = names
    return axes, attributes


def _flat_names(names: Json) -> list[str]:
    """Return the names in the order of the axes, in whatever form a dataset gives them; else nothing."""
    inner = next(iter(names.values())) if isinstance(names, dict) and len(names) == 1 else names
    if isinstance(inner, list) and len(inner) == 1 and isinstance(inner[0], list):
        inner = inner[0]
    if isinstance(names, dict) and set(map(str, names.values())) == set(map(str, range(len(names)))):
        inner = sorted(names, key=lambda name: int(names[name]))  # {"delta_x": 0, "delta_y": 1}
    return inner if isinstance(inner, list) and all(isinstance(n, str) for n in inner) else []


def _filled(template: str, values: Mapping[str, object]) -> str | None:
    """Return a path template filled in. Not by str.format, which reaches attributes and any width."""
    rest = _FIELD.sub("", template)
    if "{" in rest or "}" in rest or any(name not in values for name, _ in _FIELD.findall(template)):
        return None
    return _FIELD.sub(lambda found: str(values[found[1]]).zfill(int(found[2] or 0)), template)


# Rights


def _evidence(root: Path, info: Mapping[str, Any]) -> dict[str, Json]:
    """Return what the dataset says on licence, authors and consent, word for word."""
    found: dict[str, Json] = {f"{INFO}#{m}": v for m, v in telling(info).items()}
    with suppress(OSError, UnicodeDecodeError):
        path = contained(root, CARD, path=root / INFO, where=CARD)
        with path.open("rb") as file:
            front = _FRONT_MATTER.match(file.read(1 << 20).decode())
        if front and (stated := _LICENCE_LINES.findall(front[1])):
            found[CARD] = "".join(stated)
    return found


def telling(members: Mapping[str, Json]) -> dict[str, Json]:
    """Return the members whose names are about licence, authors or consent."""
    return {m: v for m, v in members.items() if _TELLING.search(m)}
