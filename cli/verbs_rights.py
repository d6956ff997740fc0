"""Verbs about rights: state them, check them, put them on episodes, tell why something is closed."""

from __future__ import annotations

import argparse
import dataclasses
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..hub import open_store
from ..schemas import NotFoundError, Rights, SchemaError, StoreError
from ..schemas.decision import published_as, reasons
from ..schemas.policy import POLICIES
from ..schemas.rights import TEMPLATE, Source
from .about import decision, reason_document, show_reasons, standing
from .origin import split
from .output import amount, heading, line, report, table


def read_rights(file: str) -> Rights:
    """Return the rights that a ``rights.toml`` states.

    Raises
    ------
    TeleopenError
        If it cannot be read, or with every problem and its place.
    """
    return Rights.from_toml(_text(file))


def _text(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        missing = NotFoundError(f"{file}: there is no such file")
        missing.add_note(f"`teleopen rights init {file}` writes a commented one to fill in")
        raise missing from error
    except OSError as error:
        raise StoreError(file, f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise StoreError(file, "is not UTF-8 text") from error


def init(args: argparse.Namespace) -> int:
    """Write a commented ``rights.toml``, but never over another file."""
    try:
        with Path(args.file).open("x", encoding="utf-8") as file:
            file.write(TEMPLATE)
    except FileExistsError as error:
        raise StoreError(args.file, "is there already and is not overwritten") from error
    except OSError as error:
        raise StoreError(args.file, f"cannot be written: {error.strerror}") from error
    steps = [f"teleopen rights check {args.file}", f"teleopen convert RECORDING STORE --rights {args.file}"]
    report({"file": args.file, "next": steps}, _show_init, as_json=args.json)
    return 0


def _show_init(document: dict[str, Any]) -> None:
    line(f"{document['file']}: fill in what you know; whatever is not stated stays closed")
    for step in document["next"]:
        line(f"  {step}")


def check(args: argparse.Namespace) -> int:
    """Tell what is wrong with a ``rights.toml`` (exit code 1), and what it still keeps closed."""
    policy = POLICIES[args.policy]
    document: dict[str, Any] = {"file": args.file, "valid": True, "problems": []}
    try:
        rights = read_rights(args.file)
    except SchemaError as error:
        problems = [dataclasses.asdict(problem) for problem in error.problems]
        document |= {"valid": False, "problems": problems, "policy": policy.id, "open": False}
        document |= {"published_as": None, "reasons": []}
    else:
        # Converting names the source files; what is asked here is what the lab has to state.
        named = (
            rights
            if rights.source
            else dataclasses.replace(rights, source=(Source(uri="-", sha256="0" * 64),))
        )
        found = reasons(named, now=datetime.now(UTC), policy=policy)
        document |= {
            "policy": policy.id,
            "open": not found,
            "published_as": None if found else published_as(rights, policy),
            "reasons": [reason_document(reason) for reason in found],
        }
    report(document, _show_check, as_json=args.json)
    return 0 if document["valid"] else 1


def _show_check(document: dict[str, Any]) -> None:
    if not document["valid"]:
        line(f"{document['file']}: not valid, {amount(len(document['problems']), 'problem')}")
        table(("where", "problem"), [(p["where"], p["message"]) for p in document["problems"]])
        return
    if document["open"]:
        line(f"{document['file']}: valid, and opens what it is put on under {document['published_as']}")
        return
    line(
        f"{document['file']}: valid; recordings stay closed for {amount(len(document['reasons']), 'reason')}"
    )
    line()
    show_reasons(document["reasons"])


def set_rights(args: argparse.Namespace) -> int:
    """Put the rights of a ``rights.toml`` on episodes of a store."""
    rights = read_rights(args.file)
    store = open_store(args.store)
    wanted = store.ids if args.episode is None else tuple(dict.fromkeys(map(store.find, args.episode)))
    changed = store.set_rights(rights, wanted, author=args.author)
    document = {
        "store": store.url,
        "version": store.state.version,
        "changed": list(changed),
        "unchanged": len(wanted) - len(changed),
        "rights": standing(store, wanted),
    }
    report(document, _show_set, as_json=args.json)
    return 0


def _show_set(document: dict[str, Any]) -> None:
    changed = amount(len(document["changed"]), "episode")
    line(f"rights of {changed} changed, {document['unchanged']} had them already")
    show_standing(document["rights"])


def show_standing(document: dict[str, Any], *, brief: bool = False) -> None:
    """Print how many episodes are open, and what keeps the others closed."""
    line(f"{document['open']:,} open, {document['closed']:,} closed (policy {document['policy']})")
    if document["reasons"]:
        line()
        show_reasons(document["reasons"], brief=brief)


def why(args: argparse.Namespace) -> int:
    """Tell what keeps episodes closed. Exit code 0, whether they are open or closed."""
    url, key = split(args.store)
    store = open_store(url)
    policy = POLICIES[args.policy]
    wanted = store.ids if key is None else (store.find(key),)
    numbers = {id: number for number, id in enumerate(store.ids)}
    found = [
        {"number": numbers[id], "id": id, **decision(store.why(id, policy=policy), store.rights(id), policy)}
        for id in wanted
    ]
    document = {"store": store.url, "episodes": found, "rights": standing(store, wanted, policy)}
    report(document, _show_why, as_json=args.json)
    return 0


def _show_why(document: dict[str, Any]) -> None:
    show_standing(document["rights"])
    found = document["episodes"]
    if len({(e["open"], str(e["reasons"])) for e in found}) > 1:
        heading("episodes")
        table(
            (">#", "id", "rights", "reasons"),
            [
                (
                    e["number"],
                    e["id"],
                    f"open as {e['published_as']}" if e["open"] else "closed",
                    " ".join(r["code"] for r in e["reasons"]),
                )
                for e in found
            ],
        )
