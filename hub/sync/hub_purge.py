"""Deleting for good what withdrawn episodes left in a repository's history.

A commit that removes files leaves them in every older commit, under every tag and pull request. What can be
reached is done in this order: the objects themselves, then the history of branches, then tags. Commit ids
change by it, so revisions that others pinned are gone; what cannot be reached is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ...schemas import NotFoundError, StoreError, strict_json
from .hub_client import call
from .hub_files import ATTRIBUTES, REPO_TYPE, Entry, Reader
from .manifest import told_records
from .target import Progress, Purged
from .tree import MANIFEST, PublicState, Tombstone, is_data

_OWN = frozenset({ATTRIBUTES, "README.md"})
"""What a repository holds before anything was published to it."""
_BEYOND = (
    "clones, downloads and caches of others, and models trained on them, keep what they have",
    "copies of this repository under other names keep it until their owners delete it",
)


@dataclass(frozen=True, slots=True)
class _Ref:
    """A ref, and each commit of its history: the files, and whether a withdrawn episode was public then."""

    kind: str
    name: str
    commits: Mapping[str, Mapping[str, Entry]]
    tainted: frozenset[str]


def purge(
    api: Any,
    reader: Reader,
    branch: str,
    state: PublicState,
    tombstones: Sequence[Tombstone],
    progress: Progress,
) -> Purged:
    """Delete what the withdrawn episodes left; see `Target.purge`. Doing it again finds nothing more to do.

    Raises
    ------
    StoreError
        If a withdrawn episode is public still: publish first. Or if the server cannot purge.
    """
    gone = {stone.id for stone in tombstones}
    alive = gone.intersection(told_records(state.manifest))
    if alive:
        raise StoreError(
            reader.url, f"{', '.join(sorted(alive))} is public still; publish the withdrawal first"
        )
    history = _History(api, reader, gone)
    refs = list(history.refs())
    live = {file.sha256 for file in state.files.values()}
    wanted = _objects(refs) - live
    listed = list(call(reader.url, lambda: list(api.list_lfs_files(reader.repository, repo_type=REPO_TYPE))))
    known = {entry.lfs for ref in refs for files in ref.commits.values() for entry in files.values()}
    # What was uploaded and never committed belongs to nobody, and may be of a withdrawn episode.
    objects = [one for one in listed if one.file_oid in wanted or one.file_oid not in known]
    if objects:
        call(
            reader.url,
            api.permanently_delete_lfs_files,
            reader.repository,
            objects,
            rewrite_history=True,
            repo_type=REPO_TYPE,
        )
    for one in objects:
        progress(one.filename, one.size)
    changed = list(_rewrite(api, reader, refs))
    return Purged(
        base=str(reader.info(branch).sha),  # type: ignore[union-attr]  # it was looked at just now
        files=tuple(sorted(one.file_oid for one in objects)),
        refs=tuple(changed),
        remaining=(*_remaining(api, reader, history, refs, wanted), *_BEYOND),
    )


class _History:
    """All refs of a repository, each with its commits."""

    def __init__(self, api: Any, reader: Reader, gone: set[str]) -> None:
        self._api, self._reader, self._gone = api, reader, gone
        self._entries: dict[str, dict[str, Entry]] = {}
        self._tainted: dict[str, bool] = {}

    def refs(self) -> Iterator[_Ref]:
        told = call(
            self._reader.url,
            self._api.list_repo_refs,
            self._reader.repository,
            repo_type=REPO_TYPE,
            include_pull_requests=True,
        )
        groups = (
            ("branch", told.branches),
            ("tag", told.tags),
            ("pull request", told.pull_requests or []),
            ("conversion", told.converts),
        )
        for kind, refs in groups:
            for ref in refs:
                commits = [commit.commit_id for commit in self._commits(ref.ref, ref.target_commit)]
                found = {commit: self._files(commit) for commit in commits}
                yield _Ref(kind, ref.name, found, frozenset(c for c in found if self._is_tainted(c)))

    def _commits(self, ref: str, target: str) -> Sequence[Any]:
        for revision in (target, ref):
            try:
                found: Sequence[Any] = call(
                    self._reader.url,
                    self._api.list_repo_commits,
                    self._reader.repository,
                    revision=revision,
                    repo_type=REPO_TYPE,
                )
            except NotFoundError:
                continue
            return found
        return []

    def _files(self, commit: str) -> dict[str, Entry]:
        if commit not in self._entries:
            self._entries[commit] = self._reader.entries(commit)
        return self._entries[commit]

    def _is_tainted(self, commit: str) -> bool:
        if commit not in self._tainted:
            self._tainted[commit] = self._holds_withdrawn(commit)
        return self._tainted[commit]

    def _holds_withdrawn(self, commit: str) -> bool:
        entries = self._files(commit)
        if not any(path.startswith("segments/") for path in entries):
            return False
        if MANIFEST not in entries:
            return True
        try:
            entry = entries[MANIFEST]
            read = self._reader.snapshot(commit, entries, self._reader.files(commit, {MANIFEST: entry}))
            manifest = strict_json(read.read(MANIFEST))
        except (NotFoundError, ValueError):
            return True  # what cannot be read may hold anything
        return not isinstance(manifest, dict) or bool(self._gone.intersection(told_records(manifest)))


def unpublished(api: Any, reader: Reader, base: str) -> str | None:
    """Return what any commit of a repository holds besides what is public at ``base``; None if there is none.

    Data must be that of ``base``. Documents may be older, if they tell of no other episode.
    """
    live = reader.entries(base)
    episodes = _episodes(reader, base, live)
    for ref in _History(api, reader, set()).refs():
        for commit, entries in ref.commits.items():
            odd = [path for path, entry in entries.items() if is_data(path) and live.get(path) != entry]
            if MANIFEST not in entries:
                odd += [path for path in entries if not is_data(path) and path not in _OWN]
            elif not _episodes(reader, commit, entries) <= episodes:
                odd.append(MANIFEST)
            if odd:
                return f"commit {commit} of {ref.kind} {ref.name} holds {min(odd)!r}"
    return None


def _episodes(reader: Reader, commit: str, entries: Mapping[str, Entry]) -> set[str]:
    files = reader.files(commit, {MANIFEST: entries[MANIFEST]})
    told = strict_json(reader.snapshot(commit, entries, files).read(MANIFEST))
    return set(told_records(told))


def _objects(refs: Iterable[_Ref]) -> set[str]:
    return {
        entry.lfs
        for ref in refs
        for commit in ref.tainted
        for entry in ref.commits[commit].values()
        if entry.lfs is not None
    }


def _rewrite(api: Any, reader: Reader, refs: Sequence[_Ref]) -> Iterator[str]:
    """Squash branches and delete tags that lead to a commit in which a withdrawn episode was public."""
    for ref in refs:
        if ref.tainted and ref.kind == "branch":
            squash = partial(
                api.super_squash_history, reader.repository, branch=ref.name, repo_type=REPO_TYPE
            )
            call(
                reader.url,
                squash,
                commit_message="Withdraw episodes, and forget the revisions that held them",
            )
            yield f"branch {ref.name} made anew"
    for ref in refs:
        if ref.tainted and ref.kind == "tag":
            try:
                call(reader.url, api.delete_tag, reader.repository, tag=ref.name, repo_type=REPO_TYPE)
            except NotFoundError:
                continue  # an earlier attempt, whose answer was lost, did it
            yield f"tag {ref.name} deleted"


def _remaining(
    api: Any, reader: Reader, before: _History, refs: Sequence[_Ref], wanted: set[str]
) -> Iterator[str]:
    """Look at all refs again, and at old commits by their ids; yield what still leads to withdrawn bytes."""
    after = _History(api, reader, before._gone)  # noqa: SLF001 - the same question, asked again
    for ref in after.refs():
        if ref.tainted:
            advice = {
                "pull request": "close it and delete its ref in the web page of the pull request",
                "conversion": "the Hub makes it anew by itself; ask its support if it stays",
            }.get(ref.kind, "run the purge again")
            found = f"{len(ref.tainted)} commits with withdrawn episodes"
            yield f"{ref.kind} {ref.name} leads to {found}: {advice}"
    for commit in sorted({commit for ref in refs for commit in ref.tainted}):
        paths = [path for path, entry in before._files(commit).items() if entry.lfs in wanted]  # noqa: SLF001
        if any(_is_readable(reader, commit, path, before._files(commit)[path]) for path in paths[:3]):  # noqa: SLF001
            yield f"commit {commit} can still be read by whoever knows its id; ask the server's support"


def _is_readable(reader: Reader, commit: str, path: str, entry: Entry) -> bool:
    try:
        reader.get(commit, path, 0, min(1, entry.size), entry.size)
    except (NotFoundError, StoreError):
        return False
    return True
