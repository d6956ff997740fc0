"""The manifest: a proof, for anyone without the private store, that a public place holds what it should.

Every file of the tree is told of, each with its hash, and every episode with the licence that opens it. So
whoever has the tree can check that nothing else lies there, and that each episode may. Nothing in it tells of
what was withheld, not even how much. Rights records are named by the SHA-256 of what is public of them: that
of the whole record would let a guessed name be confirmed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...schemas import canonical, digest
from ..log import File
from .plan import Plan
from .tree import MANIFEST, Blob, Tombstone

FORMAT = 1


def manifest(plan: Plan, head: str) -> Blob:
    """Return the manifest of a plan's tree, which has none yet.

    Parameters
    ----------
    plan
        With its digest, and its tree.
    head
        SHA-256 of the newest entry of the public log.
    """
    tree = plan.files()
    records: dict[str, Any] = {}
    digests: dict[int, str] = {}
    for episode in tree.episodes.values():
        if id(episode.rights) not in digests:
            grant, key = episode.rights["licence"], digest(episode.rights)
            digests[id(episode.rights)] = key
            records[key] = {
                "licence": episode.licence,
                "evidence": grant.get("statements", []),
                "state": grant.get("state", "not-stated"),
                "attribution": list(episode.attribution),
            }
    document = {
        "manifest": FORMAT,
        "dataset": plan.dataset,
        "version": plan.version,
        "head": head,
        "licence": plan.licence,
        "tier": plan.tier,
        "policy": {"id": plan.policy, "sha256": plan.policy_hash},
        "tool": plan.tool,
        "time": plan.time,
        "plan": plan.digest,
        "base": plan.base,
        "records": records,
        "episodes": [
            {
                "id": episode.id,
                "segment": episode.segment,
                "content": episode.content,
                "licence": episode.licence,
                "rights": digests[id(episode.rights)],
            }
            for episode in tree.episodes.values()
        ],
        "files": [_file(path, blob.file) for path, blob in sorted(tree.files.items())],
        "tombstones": [{"id": t.id, "ground": t.ground, "time": t.time} for t in tree.tombstones],
    }
    return Blob.of(MANIFEST, canonical(document) + b"\n")


def _file(path: str, file: File) -> dict[str, Any]:
    told: dict[str, Any] = {"path": path, "size": file.size, "sha256": file.sha256}
    parts = path.split("/")
    return {**told, "segment": parts[1]} if parts[0] == "segments" and len(parts) > 2 else told


def told_tombstones(document: Mapping[str, Any]) -> tuple[Tombstone, ...]:
    """Return the tombstones that a manifest tells of."""
    return tuple(Tombstone(**one) for one in document.get("tombstones", ()))


def told_records(document: Mapping[str, Any]) -> dict[str, str]:
    """Return the digest of each public episode's public rights record, as a manifest tells it."""
    return {one["id"]: one["rights"] for one in document.get("episodes", ())}
