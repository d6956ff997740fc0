"""Forgetting at a target what was withdrawn: after the switch that removed it, its older states go too.

The order is: the store's log says that an episode is withdrawn; publishing removes it and leaves a tombstone;
then, if asked for, what is here deletes the bytes that older states hold. That breaks every reader that
pinned an older state, and cannot be undone.
"""

from __future__ import annotations

from ...schemas import NotFoundError
from .audit_log import AuditLog
from .manifest import told_tombstones
from .target import Progress, Purged, Target, check_tree, silent


def purge(target: Target, *, log: AuditLog, progress: Progress = silent) -> Purged:
    """Delete for good what withdrawn episodes left in older states of a target; doing it again is harmless.

    Raises
    ------
    NotFoundError
        If nothing that was published there was withdrawn.
    StoreError
        If the target refuses, or a withdrawn episode is public still.
    DamageError
        If what is public is not afterwards what it was before.
    """
    before = target.look()
    tombstones = told_tombstones(before.manifest)
    if not tombstones:
        raise NotFoundError(f"{target.url}: nothing that was published there was withdrawn")
    log.add("purge", target=target.url, base=before.base, episodes=[stone.id for stone in tombstones])
    done = target.purge(tombstones, progress)
    after = target.look()
    check_tree(target.url, after.files, before.files)
    target.finish(done.base, int(after.manifest["version"]))
    log.add(
        "purged",
        target=target.url,
        base=done.base,
        files=len(done.files),
        refs=list(done.refs),
        remaining=list(done.remaining),
    )
    return done
