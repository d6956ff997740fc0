"""Reads robots from URDF files that somebody else wrote.

The specification is https://wiki.ros.org/urdf/XML. Documents with a DTD are refused, since those can name
other files and grow without bounds; sizes and depth are capped; and meshes count only if they lie beside the
document.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args
from xml.parsers import expat

import numpy as np

from ..schemas import FormatError, SchemaError
from .kinematics import Chain, Joint, JointType, Triple

_LARGEST = 8 << 20  # bytes of a document
_LARGEST_MESH = 128 << 20
_MOST_MESHES = 512
_DEEPEST = 64
_MOST_JOINTS = 1_000
_TYPES = frozenset(get_args(JointType))


@dataclass(frozen=True, slots=True)
class Document:
    """What is read of a URDF.

    Attributes
    ----------
    meshes
        The files that it names, as it names them.
    """

    path: Path
    name: str
    chain: Chain
    meshes: tuple[str, ...]

    def mesh_files(self) -> dict[str, Path] | None:
        """Return where the meshes are; None unless each is a file below the document's package."""
        found = {}
        for name in self.meshes:
            place = self._place(name)
            if place is None:
                return None
            found[name] = place
        return found

    def _place(self, name: str) -> Path | None:
        home = self.path.resolve().parent
        if name.startswith("package://"):
            package, _, rest = name.removeprefix("package://").partition("/")
            root = next((folder for folder in (home, *home.parents) if folder.name == package), None)
            beside = next((f / package for f in (home, *home.parents)[:4] if (f / package).is_dir()), None)
            base = root or beside
        else:
            base, rest = home, name.removeprefix("file://")
        if base is None or Path(rest).is_absolute():
            return None
        place = (base / rest).resolve()
        inside = place.is_relative_to(base.resolve()) or place.is_relative_to(home)
        return place if inside and place.is_file() and place.stat().st_size <= _LARGEST_MESH else None


class _Reader:
    """Takes from the XML what kinematics need."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, ""
        self.joints: list[dict[str, Any]] = []
        self.meshes: dict[str, None] = {}
        self.stack: list[str] = []

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        self.stack.append(tag)
        place = self.stack[1:]
        if len(self.stack) > _DEEPEST or len(self.joints) > _MOST_JOINTS or len(self.meshes) > _MOST_MESHES:
            raise self.wrong(tag, "is too deep or too large for a robot")
        if len(self.stack) == 1:
            if tag != "robot":
                raise self.wrong(tag, "is no <robot>")
            self.name = attributes.get("name", "")
        elif place == ["joint"]:
            self.joints.append({"name": attributes.get("name", ""), "type": attributes.get("type", "")})
        elif place[0] == "joint" and len(place) == 2:
            self._of_joint(tag, attributes)
        elif tag == "mesh" and place[0] == "link" and place[1] == "visual":
            self.meshes[attributes.get("filename", "")] = None

    def end(self, _: str) -> None:
        self.stack.pop()

    def _of_joint(self, tag: str, attributes: Mapping[str, str]) -> None:
        joint = self.joints[-1]
        if tag in {"parent", "child"}:
            joint[tag] = attributes.get("link", "")
        elif tag == "origin":
            joint |= {key: self._triple(key, attributes.get(key, "0 0 0")) for key in ("xyz", "rpy")}
        elif tag == "axis":
            joint["axis"] = self._triple("axis", attributes.get("xyz", "1 0 0"))
        elif tag == "limit":
            found = {key: attributes[key] for key in ("lower", "upper", "velocity") if key in attributes}
            joint |= {key: self._number(key, text) for key, text in found.items()}
        elif tag == "mimic":
            joint["mimic"] = attributes.get("joint", "")
            joint["multiplier"] = self._number("multiplier", attributes.get("multiplier", "1"))
            joint["offset"] = self._number("offset", attributes.get("offset", "0"))

    def _triple(self, name: str, text: str) -> Triple:
        parts = text.split()
        if len(parts) != 3:
            raise self.wrong(name, f"{text[:60]!r} is not three numbers")
        x, y, z = (self._number(name, part) for part in parts)
        return x, y, z

    def _number(self, name: str, text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            raise self.wrong(name, f"{text[:60]!r} is no number") from None
        if not np.isfinite(number):
            raise self.wrong(name, f"{text[:60]!r} is no number")
        return number

    def wrong(self, where: str, why: str) -> FormatError:
        """Return the error that tells what is wrong."""
        return FormatError(str(self.path), where, why)

    def doctype(self, *_: object) -> None:
        """Refuse a document type definition."""
        raise self.wrong("<!DOCTYPE>", "a URDF needs no document type, and one may name other files")

    def document(self) -> Document:
        """Return what was read."""
        made = []
        for joint in self.joints:
            if joint["type"] not in _TYPES:
                raise self.wrong(joint["name"], f"joints of type {joint['type'][:40]!r} are not supported")
            missing = [key for key in ("name", "parent", "child") if not joint.get(key)]
            if missing:
                raise self.wrong(joint["name"] or "joint", f"has no {missing[0]}")
            made.append(Joint(**joint))
        if not made:
            raise self.wrong("robot", "has no joint")
        try:
            chain = Chain(tuple(made))
        except SchemaError as error:
            raise self.wrong("robot", str(error)) from error
        return Document(self.path, self.name, chain, tuple(self.meshes))


def read_urdf(path: Path) -> Document:
    """Read a URDF.

    Raises
    ------
    FormatError
        If it is none, is too large, has a DTD, or has joints that are not supported.
    """
    reader = _Reader(path)
    try:
        size = path.stat().st_size
        raw = path.read_bytes() if size <= _LARGEST else b""
    except OSError as error:
        raise FormatError(str(path), "", f"cannot be read: {error}") from error
    if size > _LARGEST:
        raise FormatError(str(path), "", f"is {size:,} bytes, and a URDF is below {_LARGEST:,}")
    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = reader.start, reader.end
    parser.StartDoctypeDeclHandler = reader.doctype
    try:
        parser.Parse(raw, True)
    except expat.ExpatError as error:
        raise FormatError(str(path), f"line {error.lineno}", f"is no XML: {error}") from error
    return reader.document()


_FILE_NAME = re.compile(r'filename\s*=\s*"([^"]*)"|filename\s*=\s*\'([^\']*)\'')


def with_meshes(document: Document, files: Mapping[str, Path]) -> str:
    """Return the text of a URDF with each mesh that `Document.mesh_files` found named by its full path.

    Whatever else it names, such as textures and meshes for collisions, is named by nothing.
    """
    from xml.sax.saxutils import quoteattr, unescape

    def placed(match: re.Match[str]) -> str:
        name = unescape(match[1] if match[1] is not None else match[2])
        place = files.get(name)
        return f"filename={quoteattr(str(place) if place else '')}"

    return _FILE_NAME.sub(placed, document.path.read_text(encoding="utf-8"))
