"""What the other branches and tags of a repository hold: whoever names one reads it as well as the newest.

A commit that removes files leaves them in every older one, so a withdrawn episode is public until no ref
leads to it. That is told, and is no fault: whether history is purged is for the publisher to say. Each ref
costs a listing of its files, and its manifest unless that was read before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ...schemas import DamageError, Json, NotFoundError
from ..log import File
from ..verify import Finding
from .bounds import check_size
from .hub_client import call
from .hub_files import ATTRIBUTES, REPO_TYPE, Entry, Reader
from .manifest import told_records
from .public_log import parse_manifest, told_files
from .tree import MANIFEST, PublicState, is_data

MOST_REFS = 64
"""Commits beside the newest whose files are looked at; of more it is told that they were not."""
_OWN = frozenset({ATTRIBUTES, "README.md"})


@dataclass(frozen=True, slots=True, kw_only=True)
class RefReport:
    """What an audit saw of a branch or tag.

    Attributes
    ----------
    kind, name, commit
        ``branch`` or ``tag``, its name, and where it leads.
    episodes, files
        How many are public there, and how many files lie there; None: it was not looked at.
    withdrawn
        Episodes that are public there and were withdrawn since.
    """

    kind: str
    name: str
    commit: str
    episodes: int | None = None
    files: int | None = None
    withdrawn: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Seen:
    """A commit: its files, its manifest, and what is wrong with the two."""

    files: int
    episodes: frozenset[str]
    wrong: tuple[tuple[str, str], ...]


def look_at_refs(
    api: Any, reader: Reader, state: PublicState
) -> tuple[list[RefReport], list[Finding], list[str]]:
    """Return what each branch and tag holds, what is wrong there, and data there that nothing claims.

    Parameters
    ----------
    state
        What was audited: which episodes were withdrawn. What is wrong at its own commit is told elsewhere.
    """
    told = call(reader.url, api.list_repo_refs, reader.repository, repo_type=REPO_TYPE)
    refs = [(kind, ref.name, ref.target_commit) for kind, group in _groups(told) for ref in group]
    # First what leads to what was looked at just now: it costs nothing.
    refs.sort(key=lambda ref: ref[2] != state.base)
    gone = _withdrawn(state)
    seen: dict[str, _Seen] = {}
    reports, findings, pending = [], list[Finding](), list[str]()
    for kind, name, commit in refs:
        if commit == state.base:
            episodes = told_records(state.manifest)
            reports.append(_report(kind, name, commit, len(episodes), len(state.files)))
            continue
        if commit not in seen and len(seen) >= MOST_REFS:
            reports.append(RefReport(kind=kind, name=name, commit=commit))
            continue
        if commit not in seen:
            seen[commit] = _look(reader, commit)
        one = seen[commit]
        there = tuple(sorted(one.episodes & gone))
        reports.append(_report(kind, name, commit, len(one.episodes), one.files, there))
        for path, why in one.wrong:
            if why:
                findings.append(Finding(path, f"{why}, at {kind} {name}"))
            else:
                pending.append(f"{path} at {kind} {name}")
    return reports, findings, pending


def _groups(told: Any) -> Iterator[tuple[str, Any]]:
    yield "branch", told.branches
    yield "tag", told.tags


def _report(
    kind: str, name: str, commit: str, episodes: int, files: int, withdrawn: tuple[str, ...] = ()
) -> RefReport:
    return RefReport(kind=kind, name=name, commit=commit, episodes=episodes, files=files, withdrawn=withdrawn)


def _withdrawn(state: PublicState) -> frozenset[str]:
    """Return what was withdrawn by the log or by the manifest, whichever says so."""
    log = state.state.withdrawn.keys() if state.state else set()
    return frozenset(log) | {one["id"] for one in state.manifest.get("tombstones", ())}


def _look(reader: Reader, commit: str) -> _Seen:
    entries = reader.entries(commit)
    manifest, wrong = _manifest(reader, commit, entries)
    if manifest is not None:
        wrong += _unlike(reader, entries, told_files(manifest))
    elif not wrong:
        wrong += [
            (path, "is claimed by nobody: there is no manifest") for path in entries if path not in _OWN
        ]
    return _Seen(len(entries), frozenset(told_records(manifest or {})), tuple(wrong))


def _manifest(
    reader: Reader, commit: str, entries: Mapping[str, Entry]
) -> tuple[Mapping[str, Json] | None, list[tuple[str, str]]]:
    """Return the manifest of a commit, or what keeps it from being read."""
    entry = entries.get(MANIFEST)
    if entry is None:
        return None, []
    try:
        check_size(f"{reader.url}/{MANIFEST}", entry.size)
        files = reader.files(commit, {MANIFEST: entry})
        raw = reader.snapshot(commit, entries, files).read(MANIFEST)
        return parse_manifest(raw, f"{reader.url}@{commit}/{MANIFEST}"), []
    except DamageError as error:
        return None, [(MANIFEST, error.why)]
    except NotFoundError:
        return None, [(MANIFEST, "cannot be read: its bytes are gone")]


def _unlike(
    reader: Reader, entries: Mapping[str, Entry], claimed: Mapping[str, File]
) -> Iterator[tuple[str, str]]:
    """Hold what a commit lists against what its manifest claims; data that is pending has no reason."""
    for path, file in claimed.items():
        entry = entries.get(path)
        if entry is None:
            yield path, "is missing"
        elif entry.size != file.size or reader.sha256(entry) not in {None, file.sha256}:
            yield path, "is not the file that the manifest claims"
    for path in entries:
        if path not in claimed and path != MANIFEST:
            yield path, "" if is_data(path) else "is claimed by nobody"
