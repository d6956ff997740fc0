"""What a stranger can check of a published place, with nothing but the place itself.

The manifest claims every file and names the licence of every episode; the public log tells which episodes
there are and under which rights. Here they are held against each other and against what lies there: all of
it claimed, nothing else there, each episode open by its public rights record, each byte what it was claimed
to be.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from ...schemas import (
    OPEN_V1,
    POLICIES,
    Code,
    DamageError,
    Json,
    NotFoundError,
    Policy,
    Rights,
    SchemaError,
    digest,
    published_as,
    reasons,
)
from ..catalog import Catalog
from ..log import File
from ..state import State
from ..storage import Storage
from ..store import Store
from ..verify import Finding
from ..verify import verify as verify_store
from .audit_refs import RefReport
from .public_log import told_files
from .target import Progress, Target, silent
from .tree import MANIFEST, PublicState, is_data

SAMPLE = 16
_BLOCK = 8 << 20
_PARALLEL = 4
_ROUNDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport:
    """What an audit found.

    Attributes
    ----------
    url, base
        The place, and the revision that was checked.
    findings
        What is wrong. A place without any holds open episodes, whole, and nothing else.
    pending
        Data that nothing claims yet or any more: a publisher is at work, or died at it. Nobody vouches for
        it.
    refs
        What other branches and tags of a repository of the Hub hold, where the newest state was asked for.
    licence, episodes, withdrawn
        What all goes out under; how many are public, and how many were.
    files, bytes, hashed
        What lies there, and how many of these files were read and hashed.
    """

    url: str
    base: str
    findings: tuple[Finding, ...]
    pending: tuple[str, ...]
    refs: tuple[RefReport, ...]
    licence: str
    episodes: int
    withdrawn: int
    files: int
    bytes: int
    hashed: int

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings


def audit(
    target: Target,
    *,
    full: bool = False,
    revision: str | None = None,
    now: datetime | None = None,
    progress: Progress = silent,
) -> AuditReport:
    """Check a published place.

    Parameters
    ----------
    full
        Read and hash every file, and check the store in it, instead of a sample.
    revision
        An earlier state instead of the newest.
    now
        The time to decide for.

    Raises
    ------
    NotFoundError
        If nothing was published there.
    StoreError
        If it cannot be read.
    """
    for turn in range(_ROUNDS):
        state = target.look(revision)
        if state.base is None or state.storage is None or not state.files:
            raise NotFoundError(f"{target.url}: nothing was published there")
        report = _audit(
            target, state, state.storage, full=full, now=now or datetime.now(UTC), progress=progress
        )
        if revision is None:
            report = _with_refs(target, state, report)
        # What a newer state does not list is deleted after it: whoever was reading then looks again.
        if report.ok or revision is not None or turn + 1 == _ROUNDS or target.look().base == state.base:
            break
    return report


def _audit(
    target: Target, state: PublicState, storage: Storage, *, full: bool, now: datetime, progress: Progress
) -> AuditReport:
    manifest = state.manifest
    if MANIFEST not in state.files or state.state is None:
        findings: list[Finding] = [Finding(MANIFEST, "there is no manifest, or no log: nothing is claimed")]
        pending: list[str] = []
        hashed: list[str] = []
    else:
        claimed = told_files(manifest)
        findings = list(_file_findings(state, claimed))
        pending = _pending(state, claimed)
        findings += _log_findings(manifest, state.state, claimed)
        findings += _licence_findings(manifest, state.state, now)
        hashed = _chosen(state, claimed, full=full)
        findings += _byte_findings(storage, {path: claimed[path] for path in hashed}, progress)
        if full:
            findings += verify_store(storage).damage
            findings += _header_findings(Store(storage, Catalog(storage), state.state), manifest, now)
    strays = getattr(target, "strays", None)
    if strays is not None:
        unclaimed, wrong = strays()
        pending += unclaimed
        findings += wrong
    return AuditReport(
        url=target.url,
        base=str(state.base),
        findings=tuple(dict.fromkeys(findings)),
        pending=tuple(sorted(pending)),
        refs=(),
        licence=str(manifest.get("licence", "")),
        episodes=len(manifest.get("episodes", ())),
        withdrawn=len(manifest.get("tombstones", ())),
        files=len(state.files),
        bytes=sum(file.size for file in state.files.values()),
        hashed=len(hashed),
    )


def _with_refs(target: Target, state: PublicState, report: AuditReport) -> AuditReport:
    """Look at the other refs of a place that has any."""
    look = getattr(target, "refs", None)
    if look is None:
        return report
    refs, findings, pending = look(state)
    return replace(
        report,
        refs=tuple(refs),
        findings=tuple(dict.fromkeys((*report.findings, *findings))),
        pending=(*report.pending, *sorted(pending)),
    )


def _pending(state: PublicState, claimed: Mapping[str, File]) -> list[str]:
    return [path for path in state.files if path not in claimed and path != MANIFEST and is_data(path)]


def _file_findings(state: PublicState, claimed: Mapping[str, File]) -> Iterator[Finding]:
    """Hold what the place lists against what the manifest claims."""
    for path, file in claimed.items():
        there = state.files.get(path)
        if there is None:
            yield Finding(path, "is missing")
        elif there != file:
            yield Finding(path, "is not the file that the manifest claims")
    for path in state.files:
        if path not in claimed and path != MANIFEST and not is_data(path):
            yield Finding(path, "is claimed by nobody")


def _log_findings(
    manifest: Mapping[str, Json], state: State, claimed: Mapping[str, File]
) -> Iterator[Finding]:
    """Hold the public log against the manifest."""
    for name, told in (("dataset", state.dataset), ("version", state.version), ("head", state.head)):
        if manifest.get(name) != told:
            yield Finding(MANIFEST, f"{name} is {manifest.get(name)!r}, and the log says {told!r}")
    episodes = {one["id"]: one for one in manifest.get("episodes", ())}
    if len(episodes) != len(manifest.get("episodes", ())):
        yield Finding(MANIFEST, "an episode is told of twice")
    for episode in episodes.keys() ^ state.episodes.keys():
        yield Finding(MANIFEST, f"episode {episode} is not in both the manifest and the log")
    for episode in episodes.keys() & state.episodes.keys():
        segment = state.episodes[episode].segment
        content = state.segments[segment].contents[episode]
        if (episodes[episode]["segment"], episodes[episode]["content"]) != (segment, content):
            yield Finding(MANIFEST, f"episode {episode} lies elsewhere, or is another, by the log")
    buried = {one["id"] for one in manifest.get("tombstones", ())}
    for episode in buried & state.episodes.keys():
        yield Finding(MANIFEST, f"episode {episode} was withdrawn, and is public still")
    for episode in state.withdrawn.keys() - buried:
        yield Finding(MANIFEST, f"episode {episode} was withdrawn by the log, and has no tombstone")
    data = {
        f"segments/{add.segment}/{path}": file
        for add in state.segments.values()
        for path, file in add.files.items()
    }
    for path in data.keys() ^ {path for path in claimed if is_data(path)}:
        yield Finding(path, "is not in both the manifest and the log")
    for path, file in {**data, **state.files}.items():
        if path in claimed and claimed[path] != file:
            yield Finding(path, "is one file by the manifest and another by the log")


def _licence_findings(manifest: Mapping[str, Json], state: State, now: datetime) -> Iterator[Finding]:
    """Decide on every episode again, by the rights record that is public."""
    policy = _policy(manifest)
    records = manifest.get("records", {})
    verdicts: dict[int, tuple[str | None, str]] = {}
    digests: dict[int, str] = {}
    for one in manifest.get("episodes", ()):
        if one["id"] not in state.rights:
            continue
        record = state.rights[one["id"]]
        if id(record) not in verdicts:
            verdicts[id(record)], digests[id(record)] = _verdict(record, policy, now), digest(record)
        licence, why = verdicts[id(record)]
        if why:
            yield Finding(MANIFEST, f"episode {one['id']} is not open: {why}")
        elif one["rights"] != digests[id(record)]:
            yield Finding(MANIFEST, f"episode {one['id']} has other rights by the log")
        elif {one["licence"], records.get(one["rights"], {}).get("licence")} != {licence}:
            yield Finding(
                MANIFEST, f"episode {one['id']} goes out as {one['licence']}, and its rights say {licence}"
            )
        elif manifest.get("licence") != one["licence"]:
            yield Finding(MANIFEST, f"episode {one['id']} does not go out under the licence of the whole")


def _verdict(record: Any, policy: Policy, now: datetime) -> tuple[str | None, str]:
    try:
        rights = Rights.from_document(record)
    except SchemaError as error:
        return None, str(error)
    found = reasons(rights, now=now, policy=policy)
    # Where a record names no source, the episode's header does, which is looked at when all is.
    why = "; ".join(str(one) for one in found if one.code is not Code.R11_SOURCE_UNPINNED)
    return published_as(rights, policy), why


def _header_findings(store: Store, manifest: Mapping[str, Json], now: datetime) -> Iterator[Finding]:
    """Decide on every episode as its store does: by its rights and by what it says it was made from."""
    policy = _policy(manifest)
    for episode in store.ids:
        try:
            why = store.why(episode, now=now, policy=policy)
        except DamageError as error:
            yield Finding(error.path, error.why)
            continue
        if why:
            yield Finding(MANIFEST, f"episode {episode} is not open: {'; '.join(map(str, why))}")


def _policy(manifest: Mapping[str, Json]) -> Policy:
    return POLICIES.get(manifest.get("policy", {}).get("id", ""), OPEN_V1)


def _chosen(state: PublicState, claimed: Mapping[str, File], *, full: bool) -> list[str]:
    there = [path for path in claimed if state.files.get(path) == claimed[path]]
    if full:
        return there
    # A stranger's choice, so that nobody can tell beforehand what will be looked at.
    return random.SystemRandom().sample(there, min(SAMPLE, len(there)))


def _byte_findings(storage: Storage, files: Mapping[str, File], progress: Progress) -> Iterator[Finding]:
    def check(path: str) -> Finding | None:
        hashed = sha256()
        try:
            for start in range(0, files[path].size, _BLOCK):
                hashed.update(storage.read(path, start, min(files[path].size, start + _BLOCK)))
        except (NotFoundError, DamageError) as error:
            return Finding(path, f"cannot be read: {error}")
        progress(path, files[path].size)
        if hashed.hexdigest() != files[path].sha256:
            return Finding(path, "its bytes are not those that the manifest claims")
        return None

    with ThreadPoolExecutor(_PARALLEL, "audit") as pool:
        yield from (finding for finding in pool.map(check, files) if finding is not None)


def checked(report: AuditReport) -> AuditReport:
    """Return a report that is sound, or raise `DamageError` with the first findings."""
    if report.ok:
        return report
    first = "; ".join(f"{finding.path}: {finding.why}" for finding in report.findings[:3])
    raise DamageError(report.url, f"{len(report.findings)} findings: {first}")
