"""The verb that brings recordings into a store, and its summary."""

from __future__ import annotations

import argparse
import dataclasses
import os
import shlex
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from ..hub import WriteOptions, create_store, open_store
from ..hub.fleet import cluster_size, crew_of, ingest
from ..schemas import Episode, StoreError, UnknownFormatError
from .about import standing, summary
from .intake import Recorded, recordings
from .origin import is_store
from .output import amount, error_document, facts, heading, line, megabytes, report, table
from .progress import crowd
from .verbs_read import show_episodes
from .verbs_rights import read_rights, show_standing

if TYPE_CHECKING:
    from ..hub.fleet import Crew, FleetReport
    from ..hub.jobs import Seen
    from ..hub.store import Store


def convert(args: argparse.Namespace) -> int:
    """Bring recordings into a store, in one commit."""
    found = recordings(args, read_rights(args.rights) if args.rights else None)
    if args.dry_run:
        document = _dry_run(args.store, found)
        report(document, _show_dry_run, as_json=args.json)
        return 0
    options = WriteOptions(
        profile=args.video, quality_db=args.quality, transcode=args.transcode, workers=args.workers
    )
    document = write_all(
        args.store, found, options, author=args.author, strict=args.strict, dask=args.dask or ""
    )
    report(document, show_summary, as_json=args.json)
    return 1 if document["quarantined"] else 0


def _dry_run(url: str, found: Sequence[Recorded]) -> dict[str, Any]:
    there = set(open_store(url).ids) if is_store(url) else set()
    episodes: list[Episode] = []
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as scratch:
        for number, recorded in enumerate(found):
            try:
                met = list(recorded.episodes(Path(scratch, str(number))))
            except UnknownFormatError:
                if not recorded.optional:
                    raise
                continue
            counts[recorded.name] = len(met)
            episodes += met
    told = [{**summary(n, e), "there_already": e.id in there} for n, e in enumerate(episodes)]
    sources = [{"source": name, "episodes": count} for name, count in counts.items()]
    return {"store": url, "dry_run": True, "sources": sources, "episodes": told}


def _show_dry_run(document: dict[str, Any]) -> None:
    show_episodes(document["episodes"])
    there = sum(e["there_already"] for e in document["episodes"])
    line()
    line(f"nothing was written; {there} of {amount(len(document['episodes']), 'episode')} are there already")


def write_all(
    url: str,
    found: Sequence[Recorded],
    options: WriteOptions,
    *,
    author: str = "",
    strict: bool = False,
    dask: str = "",
) -> dict[str, Any]:
    """Write recordings into a store, which is made if there is none, and return the summary.

    Raises
    ------
    TeleopenError
        If storage fails, or a source is bad and is the only one, or ``strict``; the store is then as it was,
        and none was made for a bad first source.
    """
    crew, workers = _crew(len(found), options, dask)
    if workers > 1:
        # Side by side, each encodes with its share of the cores.
        options = dataclasses.replace(options, workers=max(1, (os.cpu_count() or 1) // workers))
    if not is_store(url) and (strict or len(found) == 1) and "://" not in found[0].name:
        next(found[0].episodes(Path()), None)
    store = _store_at(url, author)
    with crowd(len(found)) as watch:
        done = ingest(
            store, found, options, crew=crew, workers=workers, strict=strict, author=author, watch=watch
        )
    return _summary(store, found, done, transcode=options.transcode)


def _crew(sources: int, options: WriteOptions, dask: str) -> tuple[Crew | None, int]:
    """Return who does the work: processes only where there is enough of it for each."""
    if dask:
        return crew_of(0, dask), cluster_size(dask)
    workers = options.workers or os.cpu_count() or 1
    return (crew_of(workers), workers) if sources >= 2 * workers > 2 else (None, 1)


def _store_at(url: str, author: str) -> Store:
    """Open the store, or make one, but never in a folder that holds something else."""
    folder = Path(url)
    if "://" not in url and not is_store(url) and folder.exists():
        others = [path.name for path in folder.iterdir()] if folder.is_dir() else [folder.name]
        if any(not name.startswith(".") for name in others):
            raise StoreError(url, "is no store and not empty; name a new folder, or an empty one")
    return create_store(url, author=author)


def _summary(
    store: Store, found: Sequence[Recorded], done: FleetReport, *, transcode: bool
) -> dict[str, Any]:
    written = done.written
    stored = [store.state.segments[segment] for segment in written.segments]
    seen = [id for id in dict.fromkeys((*written.added, *written.skipped)) if id in store.state.episodes]
    warnings = sum((Counter(s.warnings) for s in done.seen), Counter[str]())
    taken = frozenset[str]() if transcode else frozenset(name for s in done.seen for name in s.encoded)
    held = {s.recording: s for s in done.seen}
    return {
        "store": store.url,
        "version": written.version,
        "dry_run": False,
        "sources": [
            {"source": r.name, "format": held[r.name].format, "episodes": len(held[r.name].episodes)}
            for r in found
            if r.name in held and held[r.name].format
        ],
        "not_read": [r.name for r in found if r.name in held and not held[r.name].format],
        "quarantined": [
            {"source": f.recording, "episode": f.episode, "error": error_document(f.error)["error"]}
            for f in done.failures
        ],
        "workers_lost": done.lost,
        "added": list(written.added),
        "resumed": list(written.resumed),
        "already_there": list(written.skipped),
        "withdrawn": list(written.withdrawn),
        "segments": list(written.segments),
        "source_bytes": _source_bytes(done.seen, written.added),
        "stored_bytes": sum(file.size for add in stored for file in add.files.values()),
        "cameras": _cameras(store, written.added, taken),
        "warnings": [{"text": text, "episodes": count} for text, count in warnings.items()],
        "rights": standing(store, seen),
        "next": _next_steps(store.url, seen),
    }


def _source_bytes(seen: Sequence[Seen], ids: Sequence[str]) -> int:
    """Return the size of the source files of these episodes, each file counted once."""
    by_episode = {id: files for s in seen for id, files in s.files.items()}
    files: dict[str, int] = {}
    for id in ids:
        files |= by_episode.get(id, {})
    return sum(files.values())


def _cameras(store: Store, ids: Sequence[str], taken: Collection[str]) -> list[dict[str, Any]]:
    """Return how each camera was stored, and how close what is stored is to what came in."""
    found: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for id in ids:
        episode = store.episode(id)
        measured = _measured(episode)
        for name, stream in episode.streams.items():
            if stream.spec.kind == "video":
                told = measured.get(name, {})
                profile = told.get("profile", "source" if name in taken else "lossless")
                codec = stream.packets.format.codec if stream.packets else ""
                found.setdefault((name, profile, codec), []).append(told)
    return [
        {
            "stream": name,
            "profile": profile,
            "codec": codec,
            "episodes": len(told),
            "psnr_db": _figure(told, "psnr_db", fmean),
            "min_psnr_db": _figure(told, "min_psnr_db", min),
        }
        for (name, profile, codec), told in sorted(found.items())
    ]


def _figure(told: list[dict[str, Any]], name: str, of: Callable[[list[float]], float]) -> float | None:
    figures = [t[name] for t in told if t.get(name) is not None]
    return round(of(figures), 2) if figures else None


def _measured(episode: Episode) -> dict[str, dict[str, Any]]:
    """Return the measured error of each stream that has one, as the ledger tells it."""
    found: dict[str, dict[str, Any]] = {}
    for fate in episode.provenance.ledger:
        error = dict(fate.error or {})
        for name in fate.to:
            told = error.get(name, error)
            if isinstance(told, dict) and "profile" in told:
                found[name] = told
    return found


def _next_steps(url: str, ids: Sequence[str]) -> list[str]:
    shown = shlex.quote(url)
    steps = [f"teleopen verify {shown}", f"teleopen why {shown}"]
    return [f"teleopen show {shlex.quote(f'{url}#{ids[0][:8]}')}", *steps] if ids else steps


def show_summary(document: dict[str, Any]) -> None:
    """Print the summary of a conversion."""
    stored, source = document["stored_bytes"], document["source_bytes"]
    size = f"{megabytes(stored)} stored, {megabytes(source)} in the source" if document["added"] else None
    resumed, there, withdrawn = (len(document[k]) for k in ("resumed", "already_there", "withdrawn"))
    facts(
        [
            ("store", f"{document['store']} (version {document['version']})"),
            ("added", amount(len(document["added"]), "episode")),
            ("resumed", f"{resumed} of them, staged by a run that was killed" if resumed else None),
            ("already there", amount(there, "episode") if there else None),
            ("withdrawn", f"{amount(withdrawn, 'episode')}, which stay out" if withdrawn else None),
            ("left out", _left_out(document["quarantined"])),
            ("not read", f"{amount(len(document['not_read']), 'file')} that no converter knows")
            if document["not_read"]
            else ("not read", None),
            ("workers", f"lost {document['workers_lost']} times; their work was done again")
            if document["workers_lost"]
            else ("workers", None),
            ("segments", len(document["segments"]) or None),
            ("size", size and size + (f": {source / stored:.1f} to 1" if stored else "")),
        ]
    )
    if document["cameras"]:
        heading("cameras")
        table(
            ("stream", "profile", "codec", ">episodes", ">PSNR", ">worst frame"),
            [
                (
                    c["stream"],
                    c["profile"],
                    c["codec"],
                    c["episodes"],
                    _decibel(c["psnr_db"]),
                    _decibel(c["min_psnr_db"]),
                )
                for c in document["cameras"]
            ],
        )
    if document["warnings"]:
        heading("warnings")
        for warning in document["warnings"]:
            count = f" ({amount(warning['episodes'], 'episode')})" if warning["episodes"] > 1 else ""
            line(f"- {warning['text']}{count}")
    if document["quarantined"]:
        heading("left out")
        for left in document["quarantined"]:
            line(f"- {left['source']}: {left['error']['message']}")
    heading("rights")
    show_standing(document["rights"], brief=True)
    if document["next"]:
        heading("next")
        for step in document["next"]:
            line(f"  {step}")


def _left_out(quarantined: Sequence[Mapping[str, Any]]) -> str | None:
    whole = sum(not left["episode"] for left in quarantined)
    told = [amount(len(quarantined) - whole, "episode")] if len(quarantined) > whole else []
    told += [f"what follows the fault in {amount(whole, 'recording')}"] if whole else []
    return " and ".join(told) or None


def _decibel(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} dB"
