"""A repository of the Hub: commits, refs, LFS objects and settings, all in memory."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .git import Commit, File, Tree, blob_id, pointer
from .http import RefusedError
from .patterns import is_lfs

MAIN = "refs/heads/main"
_OID = re.compile(r"[0-9a-f]{40}")
_TOKEN = re.compile(rb"hf_[A-Za-z0-9]{34}")
_FORBIDDEN = {"", ".", "..", ".git", ".cache"}
_COVER = "filter=lfs diff=lfs merge=lfs -text"


class Limits(NamedTuple):
    """What a commit may hold: figures of the Hub's documentation, smaller ones where a test says so."""

    regular_bytes: int = 10 << 20
    commit_bytes: int = 1 << 30
    lfs_files: int = 25_000
    folder_entries: int = 10_000
    attributes_bytes: int = 10 << 20
    quota_bytes: int | None = None


@dataclass(slots=True)
class Repository:
    """One dataset repository; `Hub` serialises who changes it.

    Attributes
    ----------
    refs
        Commit of each full ref: ``refs/heads/main``, ``refs/tags/...``, ``refs/pr/...``, ``refs/convert/..``.
    commits
        Every commit that was ever made, reachable or not: nobody knows how long the Hub keeps them.
    lfs, blobs
        Contents by SHA-256, and by git's id.
    """

    id: str
    private: bool = False
    gated: str | bool = False
    allowed: set[str] = field(default_factory=set)
    refs: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)
    lfs: dict[str, bytes] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    ticks: int = 0

    def __post_init__(self) -> None:
        attributes = f"*.parquet {_COVER}\n*.zip {_COVER}\n*.mp4 {_COVER}\n".encode()
        files = {".gitattributes": self._blob(attributes)}
        self._land(MAIN, files, None, "initial commit", "", "hub")

    # ------------------------------------------------------------ reading

    def resolve(self, revision: str) -> Commit:
        """Return the commit that a revision means: a full id, a branch, a tag, or a full ref."""
        for ref in (f"refs/heads/{revision}", f"refs/tags/{revision}", revision):
            if ref in self.refs:
                return self.commits[self.refs[ref]]
        if _OID.fullmatch(revision) and revision in self.commits:
            return self.commits[revision]
        raise RefusedError(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    def file(self, commit: Commit, path: str) -> File:
        """Return a file of a commit."""
        if path not in commit.files:
            raise RefusedError(404, "Entry not found", "EntryNotFound", {"X-Repo-Commit": commit.id})
        return commit.files[path]

    def content(self, file: File) -> bytes:
        """Return the bytes of a file, behind its pointer if there is one."""
        if file.lfs is None:
            return self.blobs[file.blob]
        if file.lfs not in self.lfs:
            raise RefusedError(404, "This LFS object was deleted", "EntryNotFound")
        return self.lfs[file.lfs]

    def text(self, commit: Commit, path: str) -> str:
        """Return a file as text, empty if it is absent."""
        file = commit.files.get(path)
        return self.content(file).decode() if file else ""

    def history(self, commit: Commit) -> Iterator[Commit]:
        """Yield a commit and those it follows, newest first."""
        at: str | None = commit.id
        while at is not None:
            yield self.commits[at]
            at = self.commits[at].parent

    def reachable(self) -> Iterator[Commit]:
        """Yield every commit that some ref leads to, once."""
        seen: set[str] = set()
        for head in self.refs.values():
            for commit in self.history(self.commits[head]):
                if commit.id in seen:
                    break
                seen.add(commit.id)
                yield commit

    # ------------------------------------------------------------ committing

    def commit(self, ref: str, lines: Sequence[Mapping[str, Any]], limits: Limits, author: str) -> Commit:
        """Apply the lines of an NDJSON commit, all or none."""
        header = next((line["value"] for line in lines if line["key"] == "header"), None)
        if header is None or not header.get("summary"):
            raise RefusedError(400, "the commit has no header with a summary")
        base = self.commits[self.refs[ref]]
        files = dict(base.files)
        change = _Change(self, files, limits)
        for line in lines:
            change.take(line["key"], line["value"])
        change.finish()
        if files == base.files:
            return base
        return self._land(
            ref, files, base.id, str(header["summary"]), str(header.get("description") or ""), author
        )

    def _land(
        self, ref: str, files: Tree, parent: str | None, title: str, message: str, author: str
    ) -> Commit:
        self.ticks += 1
        commit = Commit(dict(files), parent, title, message, author, self.ticks)
        self.commits[commit.id] = commit
        self.refs[ref] = commit.id
        return commit

    def _blob(self, data: bytes) -> File:
        self.blobs[blob_id(data)] = data
        return File(blob_id(data), len(data))

    def put_lfs(self, sha256: str, data: bytes) -> None:
        """Keep an LFS object, if it is what it is called."""
        if hashlib.sha256(data).hexdigest() != sha256:
            raise RefusedError(400, "BadDigest: the content does not match its sha256")
        self.lfs[sha256] = data

    # ------------------------------------------------------------ history

    def squash(self, branch: str, title: str) -> None:
        """Make a branch one commit without a past; other refs keep theirs."""
        ref = f"refs/heads/{branch}"
        if ref not in self.refs:
            raise RefusedError(404, f"no branch {branch}", "RevisionNotFound")
        self._land(ref, self.commits[self.refs[ref]].files, None, title, "", "hub")

    def purge(self, wanted: set[str], *, rewrite: bool) -> None:
        """Delete LFS objects for good; with ``rewrite`` the commits of branches are made anew without them.

        Tags and pull requests keep their commits, as `super_squash_history` leaves them: what the Hub does
        there is not documented, and this is what a careful client must be ready for.
        """
        for sha256 in wanted:
            self.lfs.pop(sha256, None)
        if not rewrite:
            return
        anew: dict[str, str] = {}
        for ref in [ref for ref in self.refs if ref.startswith("refs/heads/")]:
            for old in reversed(list(self.history(self.commits[self.refs[ref]]))):
                files = {path: file for path, file in old.files.items() if file.lfs not in wanted}
                parent = anew.get(old.parent or "", old.parent)
                new = Commit(files, parent, old.title, old.message, old.author, old.time)
                self.commits[new.id] = new
                anew[old.id] = new.id
            self.refs[ref] = anew[self.refs[ref]]

    def forget_unreachable(self) -> None:
        """Do what a server's own housekeeping does one day: drop commits that no ref leads to."""
        kept = {commit.id for commit in self.reachable()}
        self.commits = {name: commit for name, commit in self.commits.items() if name in kept}

    @property
    def used_bytes(self) -> int:
        """Bytes of all LFS objects."""
        return sum(map(len, self.lfs.values()))


def check_path(path: str) -> None:
    """Refuse what is no path of a file in a repository."""
    if "\\" in path:
        raise RefusedError(422, f"Invalid path: {path!r} holds a backslash")
    if any(part in _FORBIDDEN for part in path.split("/")) or not path.isprintable():
        raise RefusedError(400, f"Invalid path: {path!r}")


class _Change:
    """The files of a commit in the making."""

    def __init__(self, repository: Repository, files: dict[str, File], limits: Limits) -> None:
        self.repository, self.files, self.limits = repository, files, limits
        self.regular_bytes = 0
        self.lfs_paths: list[str] = []

    def take(self, key: str, value: Mapping[str, Any]) -> None:
        match key:
            case "header":
                pass
            case "file":
                self._file(value)
            case "lfsFile":
                self._lfs(value)
            case "deletedFile":
                if self.files.pop(value["path"], None) is None:
                    raise RefusedError(404, "A file with this name doesn't exist", "EntryNotFound")
            case "deletedFolder":
                self._delete_folder(value["path"].rstrip("/"))
            case _:
                raise RefusedError(400, f"unknown operation {key!r}")

    def _file(self, value: Mapping[str, Any]) -> None:

        check_path(value["path"])
        data = base64.b64decode(value["content"], validate=True)
        if len(data) > self.limits.regular_bytes:
            raise RefusedError(413, f"{value['path']} is too large for a regular file: use LFS")
        if _TOKEN.search(data):
            raise RefusedError(400, f"{value['path']} holds a valid access token")
        self.regular_bytes += len(data)
        self.files[value["path"]] = self.repository._blob(data)

    def _lfs(self, value: Mapping[str, Any]) -> None:
        check_path(value["path"])
        data = self.repository.lfs.get(value["oid"])
        if value.get("algo") != "sha256" or data is None:
            raise RefusedError(400, "LFS pointer pointed to a file that does not exist: " + value["path"])
        if "size" in value and value["size"] != len(data):
            raise RefusedError(400, f"the size of {value['path']} is not that of its LFS object")
        blob = self.repository._blob(pointer(value["oid"], len(data))).blob
        self.files[value["path"]] = File(blob, len(data), value["oid"])
        self.lfs_paths.append(value["path"])

    def _delete_folder(self, folder: str) -> None:
        below = [path for path in self.files if path.startswith(f"{folder}/")]
        if not below:
            raise RefusedError(404, f"no folder {folder}", "EntryNotFound")
        for path in below:
            del self.files[path]

    def finish(self) -> None:
        """Check limits, and write a line into .gitattributes for each LFS file that no pattern covers."""
        if self.regular_bytes > self.limits.commit_bytes or len(self.lfs_paths) > self.limits.lfs_files:
            raise RefusedError(413, "Payload Too Large: too much for one commit")
        told = self.files.get(".gitattributes")
        text = self.repository.blobs[told.blob].decode() if told else ""
        lines = [f"{path} {_COVER}\n" for path in self.lfs_paths if not is_lfs(text, path)]
        if lines:
            self.files[".gitattributes"] = self.repository._blob((text + "".join(lines)).encode())
        told = self.files.get(".gitattributes")
        if told and told.size > self.limits.attributes_bytes:
            raise RefusedError(413, ".gitattributes is too large")
        counts: dict[str, int] = {}
        for folder in {folder for path in self.files for folder in _above(path)}:
            counts[folder.rpartition("/")[0]] = counts.get(folder.rpartition("/")[0], 0) + 1
        for path in self.files:
            parent = path.rpartition("/")[0]
            counts[parent] = counts.get(parent, 0) + 1
        if max(counts.values(), default=0) > self.limits.folder_entries:
            raise RefusedError(400, f"a folder holds more than {self.limits.folder_entries} entries")


def _above(path: str) -> Iterator[str]:
    while path := path.rpartition("/")[0]:
        yield path
