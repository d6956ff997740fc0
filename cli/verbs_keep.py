"""Verbs that keep a store in order: is it whole, can it be smaller, what is left over."""

from __future__ import annotations

import argparse
import dataclasses
from functools import cache
from typing import Any

from ..hub import WriteOptions, open_store
from ..hub.compact import compact as merge
from ..hub.compact import gc as collect
from ..hub.storage import open_storage
from ..hub.verify import verify as check
from ..schemas import TeleopenError
from .output import amount, line, megabytes, report, say, table
from .progress import progress


def verify(args: argparse.Namespace) -> int:
    """Check a whole store; exit code 1 on any damage."""
    storage = open_storage(args.store)
    with progress("verify", unit="bytes", total=cache(lambda: _bytes_of(args.store))) as note:
        found = check(storage, decode=args.decode, progress=note)
    document = {
        "store": storage.url,
        "ok": not found.damage,
        "decoded": args.decode,
        **dataclasses.asdict(found),
    }
    report(document, _show_verify, as_json=args.json)
    return 1 if found.damage else 0


def _bytes_of(store: str) -> int | None:
    try:
        state = open_store(store).state
    except TeleopenError:
        return None
    return sum(file.size for add in state.segments.values() for file in add.files.values())


def _show_verify(document: dict[str, Any]) -> None:
    if document["damage"]:
        table(("damaged", "what is wrong"), [(d["path"], d["why"]) for d in document["damage"]])
        line()
    checked = (
        f"{amount(document['episodes'], 'episode')} in {amount(document['segments'], 'segment')}, "
        f"{amount(document['files'], 'file')}, {megabytes(document['bytes'])}"
    )
    if document["ok"]:
        line(f"whole: {checked}" + (", every frame decoded" if document["decoded"] else ""))
    else:
        line(f"DAMAGED: {amount(len(document['damage']), 'finding')}; checked {checked}")
        say("  next: put good copies of these files in place, or convert the sources into a new store")
    if document["unclaimed"]:
        line(f"unclaimed: {amount(len(document['unclaimed']), 'object')}, which `teleopen gc` collects")


def compact(args: argparse.Namespace) -> int:
    """Merge small segments into large ones."""
    store = open_store(args.store)
    done = merge(store, author=args.author)
    document = {"store": store.url, "version": store.state.version, **dataclasses.asdict(done)}
    report(document, _show_compact, as_json=args.json)
    return 0


def _show_compact(document: dict[str, Any]) -> None:
    if not document["removed"]:
        line("nothing to do: no segments of one kind that are small enough to be merged")
        return
    line(
        f"{amount(len(document['removed']), 'segment')} became {len(document['added'])}: "
        f"{megabytes(document['bytes_before'])}, now {megabytes(document['bytes_after'])}"
    )
    line("the old ones stay for readers that have them open, until `teleopen gc` collects them")


def derive(args: argparse.Namespace) -> int:
    """Make smaller copies of a store's cameras, or bring them up to date."""
    from ..hub.levels import derive as make_level

    store = open_store(args.store)
    options = WriteOptions(profile=args.video, quality_db=args.quality)
    with progress("derive", unit="samples", total=lambda: None) as note:
        done = make_level(store, args.resize, options, author=args.author, progress=note)
    document = {
        "store": store.url,
        "level": done.url,
        "size": list(args.resize),
        "added": list(done.written.added),
        "already_there": len(store) - len(done.written.added),
        "withdrawn": list(done.withdrawn),
        "rights_changed": list(done.rights),
    }
    report(document, _show_derive, as_json=args.json)
    return 0


def _show_derive(document: dict[str, Any]) -> None:
    height, width = document["size"]
    line(f"{document['level']}: cameras at {height} × {width}")
    line(f"added {amount(len(document['added']), 'episode')}; {document['already_there']} were there")
    for what, word in (("withdrawn", "left it"), ("rights_changed", "got the rights they have in the store")):
        if document[what]:
            line(f"{amount(len(document[what]), 'episode')} {word}")
    line("windows of pictures no larger than these are read from here")


def gc(args: argparse.Namespace) -> int:
    """Remove what no entry of the commit log claims."""
    store = open_store(args.store)
    done = collect(store, grace_s=args.grace * 3600, dry_run=args.dry_run)
    document = {
        "store": store.url,
        "dry_run": args.dry_run,
        "grace_hours": args.grace,
        **dataclasses.asdict(done),
    }
    report(document, _show_gc, as_json=args.json)
    return 0


def _show_gc(document: dict[str, Any]) -> None:
    for path in document["removed"]:
        line(path)
    verb = "would be removed" if document["dry_run"] else "removed"
    line(f"{verb}: {amount(len(document['removed']), 'thing')}, {megabytes(document['bytes'])}")
    if document["kept_young"]:
        kept = amount(len(document["kept_young"]), "thing")
        line(f"left alone: {kept} younger than {document['grace_hours']:g} h")
