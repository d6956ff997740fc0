"""Verbs that publish: plan, show, ask, carry out; take back; check and bring home what others published."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from shlex import quote
from typing import Any

from ..hub import Store, open_store
from ..hub.sync.audit import audit as check
from ..hub.sync.audit_log import AuditLog, log_path
from ..hub.sync.describe import describer
from ..hub.sync.hub_target import Gated, HubTarget
from ..hub.sync.mirror_target import MirrorTarget
from ..hub.sync.plan import Plan, Refusal, load, save
from ..hub.sync.planning import Settings, confirm, follow, licence_classes, plan, split_target
from ..hub.sync.publish import apply
from ..hub.sync.pull import pull as bring
from ..hub.sync.select import Stay
from ..hub.sync.target import Target
from ..hub.sync.tree import PublicState
from ..hub.sync.withdraw import purge
from ..schemas import Code, ConflictError, NotFoundError
from ..schemas.policy import POLICIES
from .output import MisuseError, amount, facts, heading, line, megabytes, report, say, table
from .progress import progress

_MOST_LISTED = 20


def target_of(
    url: str, *, private: bool = False, gated: Gated = False, single_writer: bool = False
) -> Target:
    """Return the target at a URL: a dataset of the Hugging Face Hub, or a mirror."""
    if url.startswith("hf://"):
        return HubTarget(url, private=private, gated=gated, single_writer=single_writer)
    if private or gated:
        raise MisuseError("--private and --gated are settings of the Hub; a mirror is as open as its place")
    return MirrorTarget(url, single_writer=single_writer)


# ---------------------------------------------------------------- publish


def publish(args: argparse.Namespace) -> int:
    """Plan, show, ask, and carry out; or only plan; or carry out a plan that was saved."""
    _check_words(args)
    store = open_store(args.store)
    plans = _saved(args, store) if args.apply else _plans(args, store)
    for told in plans:
        if args.out:
            save(told, _out(args.out, told, len(plans)))
    document: dict[str, Any] = {
        "store": store.url,
        "policy": args.policy,
        "plan_only": args.plan_only,
        "plans": [plan_document(told) for told in plans],
    }
    if args.out:
        for shown, told in zip(document["plans"], plans, strict=True):
            shown["saved"] = str(_out(args.out, told, len(plans)))
    if not args.plan_only:
        if not args.json:
            _show_plans(document)
        if any(told.changed for told in plans):
            _check_problems(plans)
            if not args.yes:
                _ask(plans)
        for shown, told in zip(document["plans"], plans, strict=True):
            shown["published"] = _carry_out(store, told, args)
        report(document, _show_published, as_json=args.json)
        return 0
    report(document, _show_plans, as_json=args.json)
    return 0


def _check_words(args: argparse.Namespace) -> None:
    if args.apply and (args.plan_only or args.split or args.prune):
        raise MisuseError("--apply carries out a plan as it is: leave out --plan-only, --split and --prune")
    if args.out and not args.plan_only:
        raise MisuseError("--out saves a plan that is not carried out: add --plan-only")


def _settings(args: argparse.Namespace) -> Settings:
    return Settings(
        policy=POLICIES[args.policy],
        now=datetime.now(UTC),
        prune=args.prune,
        author=args.author,
        describe=describer(gated=bool(args.gated)),
    )


def _plans(args: argparse.Namespace, store: Store) -> list[Plan]:
    settings = _settings(args)
    if not args.split:
        return [plan(store, args.target, target_of(args.target).look(), settings)]
    names = {licence: split_target(args.target, licence) for licence in licence_classes(store, settings)}
    return [
        plan(store, url, target_of(url).look(), dataclasses.replace(settings, licence=licence))
        for licence, url in names.items()
    ]


def _saved(args: argparse.Namespace, store: Store) -> list[Plan]:
    saved = load(Path(args.apply))
    if saved.target != args.target:
        raise MisuseError(f"the plan is for {saved.target}")
    if saved.policy != args.policy:
        raise MisuseError(f"the plan was made by policy {saved.policy}: add --policy {saved.policy}")
    return [confirm(saved, store, target_of(saved.target).look(), _settings(args))]


def _out(out: str, told: Plan, count: int) -> Path:
    """Return the file for a plan; of several, each has its licence in its name."""
    path = Path(out)
    return path if count == 1 else path.with_name(split_target(path.stem, told.licence) + path.suffix)


def _check_problems(plans: list[Plan]) -> None:
    for told in plans:
        if told.problems:
            raise ConflictError(told.target, "; ".join(told.problems))


def _ask(plans: list[Plan]) -> None:
    """Ask whoever is there; nobody there is a no."""
    if not sys.stdin.isatty():
        raise MisuseError(
            "publishing asks first, and nobody is there to answer: look with --plan-only, then --yes"
        )
    size = megabytes(sum(told.add_bytes for told in plans))
    targets = ", ".join(told.target for told in plans if told.changed)
    say(f"What is published can be copied by anyone, and cannot be called back. Send {size} to {targets}?")
    say("Type yes to publish:")
    if sys.stdin.readline().strip() != "yes":
        raise ConflictError(targets, "nothing was published: the answer was not yes")


def _carry_out(store: Store, told: Plan, args: argparse.Namespace) -> dict[str, Any]:
    target = target_of(told.target, private=args.private, gated=args.gated, single_writer=args.single_writer)
    log = AuditLog(log_path(store.storage))

    def replan(state: PublicState) -> Plan:
        return follow(told, store, state, _settings(args))

    with progress("publish", unit="bytes", total=lambda: told.add_bytes) as note:
        done = apply(told, target, replan, log=log, progress=note)
    document = dataclasses.asdict(done)
    if args.purge:
        with suppress(NotFoundError):  # nothing that was published there was withdrawn
            document["purged"] = dataclasses.asdict(purge(target, log=log))
    return document


def plan_document(told: Plan) -> dict[str, Any]:
    """Return what a plan changes, and who stays and why."""
    return {
        "target": told.target,
        "base": told.base,
        "licence": told.licence or None,
        "digest": told.digest,
        "changed": told.changed,
        "episodes": told.episodes,
        "add": {"files": len(told.add), "bytes": told.add_bytes},
        "delete": list(told.delete),
        "keep": told.keep,
        "changes": {name: list(getattr(told.changes, name)) for name in told.changes.__slots__},
        "tombstones": [dataclasses.asdict(stone) for stone in told.tombstones],
        "staying": [
            {"episodes": list(group.episodes), "reasons": [_reason(one) for one in group.reasons]}
            for group in told.staying
        ],
        "problems": list(told.problems),
    }


def _reason(refusal: Refusal) -> dict[str, str]:
    code = Stay(refusal.code) if refusal.code in set(Stay) else Code(refusal.code)
    return {"code": refusal.code, "detail": refusal.detail, "explanation": code.explanation}


def _show_plans(document: dict[str, Any]) -> None:
    for told in document["plans"]:
        _show_plan(told, document["policy"])
        if "saved" in told:
            line()
            line(f"saved to {told['saved']}; it tells who stays, so keep it private")
            words = ("teleopen", "publish", document["store"], told["target"], "--apply", told["saved"])
            line(f"  next: {' '.join(map(quote, words))}")


def _show_plan(told: dict[str, Any], policy: str) -> None:
    line(f"{told['target']}: {amount(told['episodes'], 'episode')} public afterwards", style="bold")
    changes = told["changes"]
    facts(
        [
            ("licence", told["licence"]),
            ("policy", policy),
            ("go", amount(len(changes["added"]), "episode") if changes["added"] else None),
            ("laid anew", amount(len(changes["again"]), "episode") if changes["again"] else None),
            ("new rights", amount(len(changes["rights"]), "episode") if changes["rights"] else None),
            ("leave", amount(len(changes["withdrawn"]), "episode") if changes["withdrawn"] else None),
            ("pruned", amount(len(changes["pruned"]), "episode") if changes["pruned"] else None),
            ("send", f"{amount(told['add']['files'], 'file')}, {megabytes(told['add']['bytes'])}"),
            ("remove", amount(len(told["delete"]), "file") if told["delete"] else None),
            ("keep", amount(told["keep"], "file")),
            ("digest", told["digest"]),
        ]
    )
    _show_ids("go", changes["added"])
    _show_ids("leave, with a tombstone", changes["withdrawn"])
    _show_ids("pruned", changes["pruned"])
    if told["staying"]:
        heading("stay (private: none of this is published)")
        table(
            (">episodes", "first", "why"),
            [
                (len(group["episodes"]), group["episodes"][0], "; ".join(map(_in_words, group["reasons"])))
                for group in told["staying"]
            ],
        )
    for problem in told["problems"]:
        line(f"cannot be carried out: {problem}")
    if not told["changed"]:
        line("nothing to do: the target holds all of it already")


def _show_ids(title: str, ids: list[str]) -> None:
    if ids:
        heading(title)
        for one in ids[:_MOST_LISTED]:
            line(f"  {one}")
        if ids[_MOST_LISTED:]:
            line(f"  and {len(ids) - _MOST_LISTED:,} more, which --json lists")


def _in_words(reason: dict[str, str]) -> str:
    return f"{reason['code']} {reason['detail']}"


def _show_published(document: dict[str, Any]) -> None:
    for told in document["plans"]:
        done = told["published"]
        if done["changed"]:
            sent = f"{amount(done['added'], 'file')}, {megabytes(done['sent_bytes'])}"
            public = amount(done["episodes"], "episode")
            line(f"published: {public} at {done['url']} ({sent}), revision {done['base']}")
        for step in done["done"]:
            line(f"  {step}")
        if "purged" in done:
            purged = done["purged"]
            line(f"deleted for good: {amount(len(purged['files']), 'file')}; revision {purged['base']}")
            for step in (*purged["refs"], *(f"out of reach: {one}" for one in purged["remaining"])):
                line(f"  {step}")


# ---------------------------------------------------------------- withdraw


def withdraw(args: argparse.Namespace) -> int:
    """Take episodes of a store back."""
    store = open_store(args.store)
    gone = store.withdraw(args.episode, args.reason, args.note, author=args.author)
    document = {
        "store": store.url,
        "version": store.state.version,
        "withdrawn": list(gone),
        "reason": args.reason,
        "next": [
            f"teleopen publish {quote(store.url)} TARGET",
            f"teleopen compact {quote(store.url)}",
            f"teleopen gc {quote(store.url)}",
        ],
    }
    report(document, _show_withdrawn, as_json=args.json)
    return 0


def _show_withdrawn(document: dict[str, Any]) -> None:
    line(f"withdrawn ({document['reason']}): {amount(len(document['withdrawn']), 'episode')}")
    for one in document["withdrawn"]:
        line(f"  {one}")
    line("gone for readers of this store at once; what is left to do:")
    for step in document["next"]:
        line(f"  {step}")


# ---------------------------------------------------------------- audit, pull


def audit(args: argparse.Namespace) -> int:
    """Check a published place with nothing but the place; exit code 1 on any finding."""
    with progress("audit", unit="bytes", total=lambda: None) as note:
        found = check(target_of(args.target), full=args.full, revision=args.revision, progress=note)
    report({"ok": found.ok, **dataclasses.asdict(found)}, _show_audit, as_json=args.json)
    return 0 if found.ok else 1


def _show_audit(document: dict[str, Any]) -> None:
    if document["findings"]:
        table(("file", "what is wrong"), [(one["path"], one["why"]) for one in document["findings"]])
        line()
    told = f"{amount(document['episodes'], 'episode')} under {document['licence'] or 'no licence'}"
    checked = f"{amount(document['files'], 'file')}, {document['hashed']:,} of them read and hashed"
    verdict = "sound" if document["ok"] else f"NOT SOUND, {amount(len(document['findings']), 'finding')}"
    line(f"{verdict}: {told}, {checked}; revision {document['base']}")
    if document["withdrawn"]:
        line(f"withdrawn from here: {amount(document['withdrawn'], 'episode')}")
    for ref in document["refs"]:
        line(f"{ref['kind']} {ref['name']} ({ref['commit'][:12]}): {_seen_of(ref)}")
    if document["pending"]:
        line(f"nobody claims {amount(len(document['pending']), 'file')} yet: a publisher is at work, or died")


def _seen_of(ref: Mapping[str, Any]) -> str:
    if ref["files"] is None:
        return "not looked at"
    told = f"{amount(ref['episodes'], 'episode')}, {amount(ref['files'], 'file')}"
    if ref["withdrawn"]:
        return f"{told}; {len(ref['withdrawn'])} of them withdrawn since (publish --purge removes them)"
    return told


def pull(args: argparse.Namespace) -> int:
    """Bring a published store home, or bring an earlier pull up to date."""
    with progress("pull", unit="bytes", total=lambda: None) as note:
        done = bring(target_of(args.target), Path(args.dir), revision=args.revision, progress=note)
    report(dataclasses.asdict(done), _show_pull, as_json=args.json)
    return 0


def _show_pull(document: dict[str, Any]) -> None:
    came = f"{amount(document['brought'], 'file')}, {megabytes(document['bytes'])}"
    line(f"{document['folder']}: {amount(document['episodes'], 'episode')}; came: {came}, each checked")
    if document["withdrawn"]:
        heading("withdrawn since the last pull, and removed here; delete your other copies of them too")
        table(
            ("episode", "ground", "when"), [(s["id"], s["ground"], s["time"]) for s in document["withdrawn"]]
        )
