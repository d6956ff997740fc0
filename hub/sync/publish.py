"""Carrying out a plan: bring, decide again, switch, check from outside, write down every step.

The same steps for every target. Whatever ends them midway, the target shows the old state or the new one, and
doing it again goes on from there.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from ...schemas import ConflictError, StoreError
from . import hub_client
from .audit_log import AuditLog
from .plan import Plan
from .target import Progress, StaleError, Target, check_tree, silent
from .tree import MANIFEST, PublicState

Replan = Callable[[PublicState], Plan]
"""Decides anew what is to be public, now, at a target in this state."""

ROUNDS = 60
"""How often other publishers may be faster before this one gives up."""
_SAMPLE = 3
_SAMPLE_BYTES = 16 << 20
_SAMPLE_PART = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What publishing did.

    Attributes
    ----------
    url, base, version
        The target, its revision now, and the version of the public log.
    changed
        Whether anything was switched. If not, the target held all of it already.
    episodes
        How many are public.
    added, removed
        Files.
    sent_bytes
        Bytes of the files that were added.
    rounds
        How often it was planned: more than once if others published meanwhile, or rights changed.
    done
        What was done besides, in sentences.
    """

    url: str
    base: str | None
    version: int
    changed: bool
    episodes: int
    added: int = 0
    removed: int = 0
    sent_bytes: int = 0
    rounds: int = 1
    done: tuple[str, ...] = ()


def apply(
    plan: Plan, target: Target, replan: Replan, *, log: AuditLog, progress: Progress = silent
) -> Report:
    """Publish what a plan says, and return what was done.

    Parameters
    ----------
    plan
        With its tree: see `plan.confirm` for one that was read from a file.
    target
        Where to.
    replan
        Called right before the switch, and whenever the target has changed: rights may be others after hours
        of upload. To publish no more than somebody approved, let it raise.
    log
        Gets a line before and after every step that others can notice.
    progress
        Told of each file that was brought.

    Raises
    ------
    StoreError
        If the target, the disk or the plan stands against it. The target shows what it showed before.
    ConflictError
        If others are faster each time.
    DamageError
        If the store's bytes are not what was planned, or the target does not hold what was sent.
    """
    log.add("begin", target=target.url, plan=plan.digest, base=plan.base, version=plan.version)
    try:
        report = _publish(plan, target, replan, log, progress)
    except BaseException as error:
        log.add("failed", target=target.url, why=f"{type(error).__name__}: {error}"[:500])
        raise
    log.add("end", target=target.url, base=report.base, version=report.version, changed=report.changed)
    return report


def _publish(plan: Plan, target: Target, replan: Replan, log: AuditLog, progress: Progress) -> Report:
    for turn in range(ROUNDS):
        _check(plan)
        if not plan.changed:
            done = target.finish(plan.base, plan.version) if plan.base is not None else ()
            if done:
                log.add("finish", target=target.url, done=list(done))
            return Report(
                url=target.url,
                base=plan.base,
                version=plan.version,
                changed=False,
                episodes=plan.episodes,
                rounds=turn + 1,
                done=done,
            )
        try:
            report = _round(plan, target, replan, log, progress)
        except StaleError as error:
            log.add("stale", target=target.url, why=str(error))
            # Whoever lost waits a little longer each time, so that many publishers fall out of step.
            hub_client.sleep(random.uniform(0, min(2.0, 0.02 * 2 ** min(turn, 7))))
            plan = replan(target.look())
            continue
        if report is not None:
            return replace(report, rounds=turn + 1)
        plan = replan(target.look())
    raise ConflictError(target.url, f"{ROUNDS} times another publisher was faster; try again later")


def _check(plan: Plan) -> None:
    if plan.problems:
        raise StoreError(plan.target, f"the plan cannot be carried out: {'; '.join(plan.problems)}")


def _round(plan: Plan, target: Target, replan: Replan, log: AuditLog, progress: Progress) -> Report | None:
    """Bring and switch once; None if it turned out on the way that nothing is left to do."""
    target.prepare()
    state = target.look()
    if state.base != plan.base:
        plan = replan(state)
    brought: set[str] = set()
    while plan.changed:
        _check(plan)
        waiting = [path for path in plan.data if path not in brought]
        if waiting:
            size = sum(plan.add[path].size for path in waiting)
            log.add("stage", target=target.url, plan=plan.digest, files=len(waiting), bytes=size)
            target.stage([plan.files().files[path] for path in waiting], progress)
            brought.update(waiting)
        plan = replan(state)
        if unwanted := brought.difference(plan.data):
            target.unstage(sorted(unwanted))
            brought -= unwanted
        if brought.issuperset(plan.data):
            _check(plan)
            return _switch(plan, target, log, progress, state) if plan.changed else None
    return None


def _switch(plan: Plan, target: Target, log: AuditLog, progress: Progress, state: PublicState) -> Report:
    _check_clock(plan, state)
    log.add(
        "switch",
        target=target.url,
        plan=plan.digest,
        base=plan.base,
        tree=plan.tree_digest,
        add=len(plan.add),
        delete=len(plan.delete),
    )
    base = target.switch(plan)
    log.add("switched", target=target.url, base=base)
    for path in plan.switch:
        progress(path, plan.add[path].size)
    try:
        done = _checked(plan, target, base)
    except StaleError:
        # Others have published upon it, and it is for them to check what is there now.
        done = target.finish(base, plan.version)
    log.add("finish", target=target.url, base=base, done=list(done))
    return Report(
        url=target.url,
        base=base,
        version=plan.version,
        changed=True,
        episodes=plan.episodes,
        added=len(plan.add),
        removed=len(plan.delete),
        sent_bytes=plan.add_bytes,
        done=done,
    )


def _checked(plan: Plan, target: Target, base: str) -> tuple[str, ...]:
    """Finish what was switched, if a stranger gets what was planned."""
    now = target.look(base)
    check_tree(target.url, now.files, {path: blob.file for path, blob in plan.files().files.items()})
    sample = _sample(plan)
    target.probe(now, sample)
    done = target.finish(base, plan.version)
    if done:
        target.probe(now, sample[:1])  # what was closed until now is to be open to strangers
    return done


def _sample(plan: Plan) -> list[str]:
    """Return files to read back: the manifest, and some of the data, others for each plan."""
    data = list(plan.data)
    random.Random(plan.digest).shuffle(data)
    most = max(_SAMPLE_BYTES, plan.add_bytes // _SAMPLE_PART)
    found, size = [MANIFEST], 0
    for path in data:
        size += plan.add[path].size
        if len(found) > _SAMPLE or size > most:
            break
        found.append(path)
    return found


def _check_clock(plan: Plan, state: PublicState) -> None:
    """Refuse to publish before the last time that somebody published: embargoes rest on the clock."""
    told = state.manifest.get("time")
    if isinstance(told, str) and datetime.fromisoformat(plan.time) < datetime.fromisoformat(told):
        why = f"was last published to at {told}, and this machine's clock said {plan.time}; set it right"
        raise StoreError(plan.target, why)
