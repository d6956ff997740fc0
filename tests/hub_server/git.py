"""Git's object ids: of a blob, a tree, a commit, and the pointer file that stands for an LFS object.

Source: git's documentation, gitformat-pack and git-hash-object; github.com/git-lfs/git-lfs: docs/spec.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class File:
    """A file of a tree: its blob's id, its size, and the SHA-256 of what an LFS pointer stands for."""

    blob: str
    size: int
    lfs: str | None = None

    @property
    def etag(self) -> str:
        """What the Hub calls the object id of the content: SHA-256 if LFS, else the blob's id."""
        return self.lfs or self.blob


Tree: TypeAlias = Mapping[str, File]


def object_id(kind: str, data: bytes) -> str:
    """Return the SHA-1 of a git object."""
    return hashlib.sha1(f"{kind} {len(data)}\0".encode() + data, usedforsecurity=False).hexdigest()


def blob_id(data: bytes) -> str:
    """Return the id of a blob."""
    return object_id("blob", data)


def pointer(sha256: str, size: int) -> bytes:
    """Return the file that stands for an LFS object in the tree."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


def folders(files: Tree) -> dict[str, str]:
    """Return the tree id of every folder, the root's under the empty path."""
    nested: dict[str, dict[str, tuple[str, str]]] = {"": {}}
    for path, file in files.items():
        parent = _parent(path)
        child = parent
        while child not in nested:
            nested[child] = {}
            child = _parent(child)
        nested[parent][path.rpartition("/")[2]] = ("100644", file.blob)
    found: dict[str, str] = {}
    for folder in sorted(nested, key=lambda name: -name.count("/") - bool(name)):
        entries = nested[folder]
        # Git sorts a folder's name as if it ended with a slash.
        ordered = sorted(entries.items(), key=lambda item: item[0] + "/" * (item[1][0] == "40000"))
        raw = b"".join(f"{mode} {name}\0".encode() + bytes.fromhex(sha) for name, (mode, sha) in ordered)
        found[folder] = object_id("tree", raw)
        if folder:
            nested[_parent(folder)][folder.rpartition("/")[2]] = ("40000", found[folder])
    return found


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


@dataclass(frozen=True)
class Commit:
    """A commit: its tree, what it follows, and its message. The time is a count, so that ids repeat."""

    files: Tree = field(repr=False)
    parent: str | None
    title: str
    message: str = ""
    author: str = "nobody"
    time: int = 0

    @cached_property
    def folders(self) -> dict[str, str]:
        """Tree ids by folder."""
        return folders(self.files)

    @cached_property
    def id(self) -> str:
        """The commit's id."""
        who = f"{self.author} <{self.author}@example.org> {self.time} +0000"
        lines = [f"tree {self.folders['']}"]
        lines += [f"parent {self.parent}"] if self.parent else []
        lines += [f"author {who}", f"committer {who}", "", self.title]
        return object_id(
            "commit", "\n".join([*lines, *([f"\n{self.message}"] if self.message else [])]).encode()
        )
