"""The verb that brings a store's episodes into the formats of others."""

from __future__ import annotations

import argparse
import dataclasses
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..hub import open_store
from ..hub.export import ExportOptions, export_lerobot
from ..schemas.policy import POLICIES
from .output import amount, heading, line, report, say, table
from .progress import progress


def export(args: argparse.Namespace) -> int:
    """Write the open episodes of a store as a dataset of another format."""
    store = open_store(args.store)
    options = ExportOptions(
        now=datetime.now(UTC),
        policy=POLICIES[args.policy],
        everything=args.all,
        episodes=tuple(args.episode or ()),
        licence=args.licence,
        clock=args.clock,
        align=args.align,
    )
    with progress("export", unit="samples", total=lambda: None) as note:
        done = export_lerobot(store, Path(args.dir), options, note)
    document = {"store": store.url, "to": args.to, "open_only": not args.all, **dataclasses.asdict(done)}
    report(document, _show, as_json=args.json)
    return 0


def _show(document: dict[str, Any]) -> None:
    size = f"{amount(document['episodes'], 'episode')}, {amount(document['frames'], 'frame')}"
    line(f"{document['folder']}: {size} at {document['fps']:g} Hz")
    if document["open_only"]:
        line(f"licence: {document['licence']}; NOTICE and LICENSES belong to every copy")
    else:
        line("holds episodes whether they are open or not: keep it in the house")
    if document["cameras"]:
        heading("cameras")
        rows = [(name, told["remuxed"], _in_words(told)) for name, told in document["cameras"].items()]
        table(("camera", ">episodes with the store's packets", "encoded anew"), rows)
    if document["dropped"]:
        heading("left out")
        table(("of the store", "why"), list(document["dropped"].items()))
    for note in document["notes"]:
        line(f"note: {note}")
    for code, count in document["staying"].items():
        say(f"{amount(count, 'episode')} stayed: {code}; `teleopen why` tells more")


def _in_words(told: dict[str, Any]) -> str:
    return "; ".join(f"{count}: {why}" for why, count in told["transcoded"].items())
