"""Verbs that tell what can be read, what a recording is, and what a store holds."""

from __future__ import annotations

import argparse
import dataclasses
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..converters.registry import converters
from ..hub import open_store
from ..schemas import Episode
from .about import header_seconds, show_reasons, standing, summary
from .machine import missing_of, pip_line
from .origin import opened, options_of
from .output import amount, duration, facts, heading, line, megabytes, report, table

if TYPE_CHECKING:
    from ..hub.store import Store


def formats(args: argparse.Namespace) -> int:
    """List what can be read."""
    found = []
    for _, converter in sorted(converters().items()):
        told = dataclasses.asdict(converter.format)
        options = [
            {"name": key, "type": _type_name(kind), "default": _plain(default)}
            for key, (kind, default) in options_of(converter).items()
        ]
        found.append(
            {
                **told,
                "suffixes": list(told["suffixes"]),
                "missing": missing_of(told["extra"]),
                "options": options,
            }
        )
    report({"formats": found}, _show_formats, as_json=args.json)
    return 0


def _type_name(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) else str(kind).replace("typing.", "")


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _show_formats(document: dict[str, Any]) -> None:
    table(
        ("format", "what it is", "suffixes", "needs", "options"),
        [
            (
                f["name"],
                f["title"],
                " ".join(f["suffixes"]),
                pip_line(f["extra"]) if f["missing"] else "",
                " ".join(o["name"] for o in f["options"]),
            )
            for f in document["formats"]
        ],
    )


def probe(args: argparse.Namespace) -> int:
    """Tell what a recording is and what it holds."""
    if args.draft_mapping:
        from ..converters import draft_mapping

        report({"source": args.src, "mapping": draft_mapping(Path(args.src))}, _show_draft, as_json=args.json)
        return 0
    origin = opened(args.src, args)
    limit = args.limit or None
    episodes = list(islice(enumerate(origin), limit and limit + 1))
    document = {
        "source": args.src,
        "format": origin.format,
        "title": origin.converter.format.title if origin.converter else "teleopen store",
        "episodes": [summary(n, e) for n, e in episodes[:limit]],
        "more": limit is not None and len(episodes) > limit,
    }
    report(document, _show_probe, as_json=args.json)
    return 0


def _show_draft(document: dict[str, Any]) -> None:
    for text in document["mapping"].splitlines():
        line(text)


def _show_probe(document: dict[str, Any]) -> None:
    facts([("source", document["source"]), ("format", f"{document['format']}: {document['title']}")])
    line()
    show_episodes(document["episodes"])
    if document["more"]:
        line("... and more: --limit 0 lists all")
    first = document["episodes"][0] if document["episodes"] else None
    if first:
        heading(f"streams of episode {first['number']}")
        table(
            ("stream", "kind", "dtype", "shape", ">samples", "comes as"),
            [
                (s["name"], s["kind"], s["dtype"], _shape(s["shape"]), s["samples"], s["encoded"] or "values")
                for s in first["streams"]
            ],
        )
    told = Counter(w for e in document["episodes"] for w in e["warnings"])
    if told:
        heading("warnings")
        for text, count in told.items():
            line(f"- {text}" + (f" ({count} episodes)" if count > 1 else ""))


def _shape(shape: list[int]) -> str:
    return " x ".join(map(str, shape)) or "scalar"


def show_episodes(found: list[dict[str, Any]]) -> None:
    """Print a table of episodes; those of a store tell whether they are open."""
    decided = any("open" in e for e in found)
    table(
        (
            ">#",
            "id",
            "instruction",
            ">duration",
            ">streams",
            "embodiment",
            "outcome",
            *(("rights",) if decided else ()),
        ),
        [
            (
                e["number"],
                e["id"],
                " / ".join(e["instructions"]) or "-",
                duration(e["duration_s"]),
                len(e["streams"]),
                e["embodiment"],
                e["outcome"],
                *((_rights(e),) if decided else ()),
            )
            for e in found
        ],
    )


def _rights(episode: dict[str, Any]) -> str:
    if episode["open"]:
        return f"open, {episode['licence']}"
    return f"closed, {amount(len(episode['codes']), 'reason')}"


def episodes(args: argparse.Namespace) -> int:
    """List the episodes of a store."""
    store = open_store(args.store)
    found = []
    for number, episode in enumerate(store):
        codes = [str(reason.code) for reason in store.why(episode.id)]
        told = {"licence": episode.rights.licence.expression, "open": not codes, "codes": codes}
        found.append({**summary(number, episode), **told})
    document = {"store": store.url, "version": store.state.version, "episodes": found}
    report(document, lambda d: show_episodes(d["episodes"]), as_json=args.json)
    return 0


def info(args: argparse.Namespace) -> int:
    """Tell what a store holds."""
    document = about_store(open_store(args.store))
    report(document, _show_info, as_json=args.json)
    return 0


def about_store(store: Store) -> dict[str, Any]:
    """Return what a store holds, from its commit log and the headers of its episodes."""
    state = store.state
    seconds: list[float] = []
    tallies = {name: Counter[str]() for name in ("embodiments", "formats", "licences", "outcomes")}
    streams: dict[tuple[Any, ...], Counter[str]] = {}
    for episode in store:
        seconds.append(header_seconds(episode) or 0.0)
        tallies["embodiments"][episode.embodiment] += 1
        tallies["formats"][episode.provenance.format] += 1
        tallies["licences"][episode.rights.licence.expression] += 1
        tallies["outcomes"][episode.outcome] += 1
        _count_streams(episode, streams)
    return {
        "store": store.url,
        "version": state.version,
        "episodes": len(store),
        "withdrawn": len(state.withdrawn),
        "segments": len(state.segments),
        "bytes": sum(file.size for add in state.segments.values() for file in add.files.values()),
        "duration_s": round(sum(seconds), 3),
        **{name: dict(tally.most_common()) for name, tally in tallies.items()},
        "streams": [
            {"name": name, "kind": kind, "dtype": dtype, "shape": list(shape), **told}
            for (name, kind, dtype, shape), told in sorted(streams.items())
        ],
        "rights": standing(store),
    }


def _count_streams(episode: Episode, streams: dict[tuple[Any, ...], Counter[str]]) -> None:
    for name, stream in episode.streams.items():
        spec = stream.spec
        told = streams.setdefault((name, spec.kind, spec.dtype, spec.shape), Counter(episodes=0, samples=0))
        told["episodes"] += 1
        told["samples"] += stream.length


def _show_info(document: dict[str, Any]) -> None:
    facts(
        [
            ("store", document["store"]),
            ("version", document["version"]),
            ("episodes", f"{document['episodes']:,}, {duration(document['duration_s'])}"),
            ("withdrawn", document["withdrawn"] or None),
            ("size", f"{megabytes(document['bytes'])} in {amount(document['segments'], 'segment')}"),
            *((name, _tally(document[name])) for name in ("embodiments", "formats", "licences", "outcomes")),
            ("rights", f"{document['rights']['open']:,} open, {document['rights']['closed']:,} closed"),
        ]
    )
    heading("streams")
    table(
        ("stream", "kind", "dtype", "shape", ">episodes", ">samples"),
        [
            (s["name"], s["kind"], s["dtype"], _shape(s["shape"]), s["episodes"], f"{s['samples']:,}")
            for s in document["streams"]
        ],
    )
    if document["rights"]["reasons"]:
        heading("what keeps episodes closed")
        show_reasons(document["rights"]["reasons"], brief=True)


def _tally(counts: dict[str, int]) -> str:
    return ", ".join(name if len(counts) == 1 else f"{name} ({n:,})" for name, n in counts.items())
