"""A plan: what publishing would change at a target, as data that a person can read before anything is sent.

A plan that was saved holds no bytes. It is carried out by planning again and comparing: see `confirm`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from ...schemas import (
    DamageError,
    SchemaError,
    StoreError,
    canonical,
    digest,
    from_document,
    strict_json,
    to_document,
)
from ...schemas.episode import Bound, Count, Digest
from .. import disk
from ..log import DatasetId, EpisodeId, File, Time
from .bounds import DOCUMENT_BYTES
from .tree import MANIFEST, PublicTree, Tombstone

PLAN_FORMAT = 1

FOLDER_ENTRIES = 10_000
"""Most entries of one folder that the Hugging Face Hub takes (hub docs: repositories, storage limits)."""
COMMIT_FILES = 25_000
"""Most files of one commit (docstring of huggingface_hub's ``create_commit``)."""
REPOSITORY_FILES = 100_000
FILE_BYTES = 200_000_000_000
"""Largest file that the Hub's documentation recommends; 500 GB is refused."""

Ground = Annotated[str, Bound(pattern=r"^[a-z]{1,20}$")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why an episode stays: a code of `teleopen.schemas.Code` or of `select.Stay`, with its ground."""

    code: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Staying:
    """Episodes that stay for the same reasons. Private: never part of what is published."""

    episodes: tuple[EpisodeId, ...]
    reasons: tuple[Refusal, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What happens to public episodes.

    Attributes
    ----------
    added, again
        Ids of those that are new; of those laid anew, with the bytes of their streams as they are.
    rights
        Ids of those whose public rights change.
    withdrawn, pruned
        Ids of those that leave with a tombstone, and of those that only leave.
    """

    added: tuple[EpisodeId, ...] = ()
    again: tuple[EpisodeId, ...] = ()
    rights: tuple[EpisodeId, ...] = ()
    withdrawn: tuple[EpisodeId, ...] = ()
    pruned: tuple[EpisodeId, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What publishing would change at a target. The plan itself is private: it tells who stays.

    Attributes
    ----------
    target, base
        The URL, and the target's own name of the revision that the plan rests on; None: it is empty.
    store, store_version
        Id of the private store, and the version of its log.
    dataset, version
        Id of the public store, and the version of its log afterwards.
    licence, tier
        What all of it goes out under.
    policy, policy_hash, tool
        What decided.
    time
        Of the decision; the public log and the manifest bear it.
    prune
        Whether episodes leave that are merely not in this store.
    episodes
        How many are public afterwards.
    add, delete, keep
        Files to send, paths to remove, number of files that stay as they lie there.
    changes, staying
        What happens to public episodes; who stays private and why.
    tombstones
        Those that are new.
    problems
        Limits of the target that the result would break; a plan with problems is not carried out.
    tree_digest
        Of the whole result: `PublicTree.digest`.
    digest
        Of all decisions of this plan; the manifest names it. Equal plans have equal digests.
    tree
        The result itself, bytes at hand. None in a plan that was read from a file.
    """

    format: Count = PLAN_FORMAT
    target: str
    base: str | None
    store: DatasetId
    store_version: Count
    dataset: DatasetId
    version: Count
    licence: str
    tier: str = "open"
    policy: str
    policy_hash: Digest
    tool: str
    time: Time
    prune: bool = False
    episodes: Count
    add: Mapping[str, File]
    delete: tuple[str, ...]
    keep: Count
    changes: Changes
    staying: tuple[Staying, ...]
    tombstones: tuple[Tombstone, ...]
    problems: tuple[str, ...]
    tree_digest: Digest
    digest: Digest
    tree: PublicTree | None = field(default=None, repr=False, compare=False, metadata={"document": False})

    @property
    def changed(self) -> bool:
        """Whether there is anything to send or to remove."""
        return bool(self.add or self.delete)

    @property
    def add_bytes(self) -> int:
        """Bytes of the files to send."""
        return sum(file.size for file in self.add.values())

    @property
    def data(self) -> tuple[str, ...]:
        """Files to send that no reader looks at before the rest is there: new segments. Sorted by path."""
        return tuple(
            sorted(path for path in self.add if path.startswith("segments/") and path.count("/") > 1)
        )

    @property
    def switch(self) -> tuple[str, ...]:
        """Files to send that make the new state visible, all in one commit: log, manifest, documents."""
        return tuple(sorted(self.add.keys() - set(self.data)))

    def files(self) -> PublicTree:
        """Return the result, bytes at hand.

        Raises
        ------
        StoreError
            If this plan was read from a file: confirm it first.
        """
        if self.tree is None:
            raise StoreError(self.target, "a plan that was read from a file holds no bytes; confirm it first")
        return self.tree


def save(plan: Plan, path: Path) -> None:
    """Write a plan to a new file. It is private: it tells who stays and why."""
    disk.write(path, [canonical(to_document(plan)) + b"\n"])


def load(path: Path) -> Plan:
    """Read a plan from a file; it has no tree until it is confirmed.

    Raises
    ------
    StoreError
        If it cannot be read.
    DamageError
        If it is no plan, or was changed.
    """
    with disk.told(path):
        raw = path.read_bytes()
    try:
        plan = from_document(Plan, strict_json(raw))
    except (ValueError, SchemaError) as error:
        raise DamageError(str(path), f"is no plan: {error}") from error
    if plan.format != PLAN_FORMAT:
        raise StoreError(str(path), f"is a plan of format {plan.format}; this reads format {PLAN_FORMAT}")
    if plan_digest(plan) != plan.digest:
        raise DamageError(str(path), "was changed after it was written: its digest differs")
    return plan


def plan_digest(plan: Plan) -> str:
    """Return the digest of a plan's decisions.

    The manifest names it, so it covers neither the manifest nor the tree with it. The store's version is
    left out, since a commit that changes no decision changes no plan.
    """
    document = to_document(plan)
    for name in ("digest", "tree_digest", "store_version"):
        del document[name]
    document["add"].pop(MANIFEST, None)
    return digest(document)


def limit_problems(files: Mapping[str, File], add: Mapping[str, File]) -> Iterator[str]:
    """Yield the limits of the Hugging Face Hub that a tree would break."""
    entries: dict[str, set[str]] = {}
    for path in files:
        parts = path.split("/")
        for depth in range(len(parts)):
            entries.setdefault("/".join(parts[:depth]), set()).add(parts[depth])
    for folder, names in sorted(entries.items()):
        if len(names) > FOLDER_ENTRIES:
            told = f"{folder or 'the root'} would hold {len(names):,} entries"
            yield f"{told}; a folder takes {FOLDER_ENTRIES:,}: compact the store first"
    for path, file in sorted(files.items()):
        if file.size > FILE_BYTES:
            yield f"{path} has {file.size:,} bytes; a file may have {FILE_BYTES:,}"
        elif "/c/" not in path and file.size > DOCUMENT_BYTES:
            yield f"{path} has {file.size:,} bytes; readers take {DOCUMENT_BYTES:,}: split the store"
    if len(files) > REPOSITORY_FILES:
        yield f"{len(files):,} files; a repository should hold {REPOSITORY_FILES:,}: compact the store first"
    switch = sum(not (path.startswith("segments/") and path.count("/") > 1) for path in add)
    if switch > COMMIT_FILES:
        yield f"{switch:,} files would have to be switched in one commit, which takes {COMMIT_FILES:,}"
