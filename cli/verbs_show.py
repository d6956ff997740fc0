"""Verbs that show one episode: everything about it in text, or a picture of it."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

from ..schemas import ActionContract, Episode, StreamSpec, to_document
from .about import decided_now, decision, header_seconds, show_reasons
from .origin import Origin, opened, split
from .output import amount, duration, facts, heading, line, megabytes, report, table

_MOST_EVENTS = 20


def show(args: argparse.Namespace) -> int:
    """Tell all about one episode."""
    source, key = split(args.src)
    origin = opened(source, args)
    number, episode = origin.episode(key)
    document = about_episode(origin, number, episode)
    report(document, lambda _: _show(document, episode), as_json=args.json)
    return 0


def about_episode(origin: Origin, number: int, episode: Episode) -> dict[str, Any]:
    """Return all about an episode: its header is there as it is stored; no frame is read."""
    found = origin.store.why(episode.id) if origin.store else decided_now(episode)
    seconds = header_seconds(episode)
    return {
        "source": origin.text,
        "kind": "store" if origin.store else "recording",
        "number": number,
        "duration_s": None if seconds is None else round(seconds, 3),
        "clocks": {name: _about_clock(episode, name) for name in episode.clocks},
        "fates": dict(Counter(fate.fate for fate in episode.provenance.ledger)),
        "decision": decision(found, episode.rights),
        "header": to_document(episode),
    }


def _about_clock(episode: Episode, name: str) -> dict[str, Any]:
    clock = episode.clocks[name]
    times = clock.read()
    return {
        "first_ns": int(times[0]) if len(times) else None,
        "last_ns": int(times[-1]) if len(times) else None,
        "streams": [s.spec.name for s in episode.streams.values() if s.spec.clock == name],
    }


def _show(document: dict[str, Any], episode: Episode) -> None:
    origin = episode.provenance
    facts(
        [
            ("episode", f"{episode.id}  (number {document['number']} of {document['source']})"),
            ("instruction", " / ".join(episode.instructions) or "not stated"),
            ("embodiment", episode.embodiment),
            ("outcome", episode.outcome),
            ("duration", duration(document["duration_s"])),
            ("format", f"{origin.format}, read by {origin.converter} {origin.converter_version}"),
            ("selector", origin.selector),
        ]
    )
    _show_streams(document, episode)
    _show_origin(episode)
    _show_rights(document, episode)
    if episode.events:
        heading(f"events ({len(episode.events)})")
        rows = [
            (e.kind, _seconds(e.start_ns), _seconds(e.stop_ns), e.text) for e in episode.events[:_MOST_EVENTS]
        ]
        table(("kind", ">from", ">to", "text"), rows)
        if len(episode.events) > _MOST_EVENTS:
            line(f"... and {len(episode.events) - _MOST_EVENTS} more: --json lists all")
    if origin.warnings:
        heading("warnings")
        for text in origin.warnings:
            line(f"- {text}")


def _seconds(time_ns: int | None) -> str:
    return "" if time_ns is None else f"{time_ns / 1e9:.3f} s"


def _show_streams(document: dict[str, Any], episode: Episode) -> None:
    heading("streams")
    table(
        ("stream", "kind", "dtype", "shape", ">samples", "clock", "unit", "axes"),
        [
            (
                name,
                stream.spec.kind
                if stream.packets is None
                else f"{stream.spec.kind} ({stream.packets.format.codec})",
                stream.spec.dtype,
                " x ".join(map(str, stream.spec.shape)) or "scalar",
                stream.length,
                stream.spec.clock,
                _units(stream.spec),
                " ".join(stream.spec.axes),
            )
            for name, stream in episode.streams.items()
        ],
    )
    for name, stream in episode.streams.items():
        if stream.spec.contract is not None:
            _show_contract(name, stream.spec.contract)
    heading("clocks")
    table(
        ("clock", "times are", ">samples", ">declared", ">measured", ">last at", "source"),
        [
            (
                name,
                clock.kind,
                clock.length,
                _hertz(clock.declared_hz),
                _hertz(clock.measured_hz),
                _seconds(document["clocks"][name]["last_ns"]),
                clock.source,
            )
            for name, clock in episode.clocks.items()
        ],
    )


def _units(spec: StreamSpec) -> str:
    """Return the units, each with how often it stands in a row: ``rad x 6, 1``."""
    if spec.kind != "low_dim":
        return "" if spec.unit[0] in {"unknown", "1"} else spec.unit[0]
    runs: list[list[Any]] = []
    for unit in spec.unit:
        if runs and runs[-1][0] == unit:
            runs[-1][1] += 1
        else:
            runs.append([unit, 1])
    return ", ".join(unit if count == 1 else f"{unit} x {count}" for unit, count in runs)


def _hertz(rate: float | None) -> str:
    return "" if rate is None else f"{rate:g} Hz" if rate == round(rate) else f"{rate:.2f} Hz"


def _show_contract(name: str, contract: ActionContract) -> None:
    heading(f"what {name} means")
    table(
        ("axes", "quantity", "mode", "frame", "rotation", ">closed", ">open"),
        [
            (f"[{p.start}, {p.stop})", p.space, p.mode, p.frame, p.rotation, p.gripper_closed, p.gripper_open)
            for p in contract.parts
        ],
    )
    steps = contract.offset_steps
    told = "not known" if steps is None else f"{amount(steps, 'step')} after the observation of the same row"
    facts([("issued", told), ("known from", contract.evidence)])


def _show_origin(episode: Episode) -> None:
    origin = episode.provenance
    heading("what became of each field of the source")
    table(
        ("field", "fate", "goes to", "lossless", "how"),
        [
            (
                f.field,
                f.fate,
                " ".join(f.to),
                {True: "yes", False: "no", None: ""}[f.lossless],
                _how(f.how, f.error),
            )
            for f in origin.ledger
        ],
    )
    heading("source files")
    table(
        ("file", "role", ">size", "sha256"),
        [(s.uri, s.role, megabytes(s.size), s.sha256) for s in origin.sources],
    )


def _how(how: str, error: Any) -> str:
    told = ", ".join(f"{key} {value}" for key, value in (error or {}).items())
    return "; ".join(filter(None, (how, told)))


def _show_rights(document: dict[str, Any], episode: Episode) -> None:
    rights, found = episode.rights, document["decision"]
    heading("rights")
    facts(
        [
            ("licence", f"{rights.licence.expression} ({rights.licence.state})"),
            ("holder", ", ".join(holder.name for holder in rights.holder)),
            ("tier", rights.tier),
            ("decision", f"open, goes out as {found['published_as']}" if found["open"] else "closed"),
        ]
    )
    for key, value in episode.provenance.evidence.items():
        facts([("the source says", f"{key}: {value}")])
    if found["reasons"]:
        line()
        show_reasons(found["reasons"])


def sheet(args: argparse.Namespace) -> int:
    """Draw one episode as a contact sheet."""
    from ..viewer.sheet import sheet as draw

    source, key = split(args.src)
    origin = opened(source, args)
    number, episode = origin.episode(key)
    width, height = draw(episode, Path(args.out), columns=args.columns)
    document = {
        "source": source,
        "number": number,
        "episode": episode.id,
        "file": args.out,
        "width": width,
        "height": height,
    }
    report(document, lambda d: line(f"{d['file']}: {d['width']} x {d['height']} pixels"), as_json=args.json)
    return 0
