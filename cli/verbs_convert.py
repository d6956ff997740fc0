"""The verb that brings recordings into a store, and its summary."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from ..converters.base import Converter
from ..hub import WriteOptions, create_store, open_store
from ..schemas import Episode, Rights, SchemaError, StoreError
from .about import standing, summary
from .origin import converter_of, is_store
from .output import amount, facts, heading, line, megabytes, report, table
from .progress import progress
from .verbs_read import show_episodes
from .verbs_rights import read_rights, show_standing

if TYPE_CHECKING:
    from ..hub.ingest import WriteReport
    from ..hub.store import Store


@dataclasses.dataclass(slots=True)
class Intake:
    """The episodes of several recordings as one sequence, and notes of what was seen of them.

    Attributes
    ----------
    sources
        Recordings with their converters, in the order in which they were named.
    rights
        What holds for all of them; None: what their headers say.
    """

    sources: Sequence[tuple[str, Converter]]
    rights: Rights | None = None
    counts: Counter[str] = dataclasses.field(default_factory=Counter)
    files: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)
    warnings: Counter[str] = dataclasses.field(default_factory=Counter)
    encoded: set[str] = dataclasses.field(default_factory=set)
    samples: int = 0
    current: str = ""

    def __iter__(self) -> Iterator[Episode]:
        """Yield the episodes, headers only."""
        for source, converter in self.sources:
            self.current = source
            for found in converter.episodes(Path(source)):
                self._note(found)
                yield found if self.rights is None else dataclasses.replace(found, rights=self.rights)

    def _note(self, episode: Episode) -> None:
        self.counts[self.current] += 1
        self.files[episode.id] = {file.sha256: file.size for file in episode.provenance.sources}
        self.warnings.update(episode.provenance.warnings)
        self.encoded.update(name for name, stream in episode.streams.items() if stream.packets)
        self.samples += sum(stream.length for stream in episode.streams.values())

    def bytes_of(self, ids: Sequence[str]) -> int:
        """Return the size of the source files of these episodes, each file counted once."""
        files: dict[str, int] = {}
        for id in ids:
            files |= self.files.get(id, {})
        return sum(files.values())

    def documents(self) -> list[dict[str, Any]]:
        """Return the recordings, each with its format and how many episodes it gave."""
        return [
            {"source": source, "format": converter.format.name, "episodes": self.counts[source]}
            for source, converter in self.sources
        ]


def convert(args: argparse.Namespace) -> int:
    """Bring recordings into a store, in one commit."""
    intake = Intake(
        [(source, converter_of(source, args)) for source in args.src],
        read_rights(args.rights) if args.rights else None,
    )
    document = _dry_run(args.store, intake) if args.dry_run else _write(args, intake)
    report(document, _show_dry_run if args.dry_run else show_summary, as_json=args.json)
    return 0


def _dry_run(url: str, intake: Intake) -> dict[str, Any]:
    there = set(open_store(url).ids) if is_store(url) else set()
    found = [{**summary(n, e), "there_already": e.id in there} for n, e in enumerate(intake)]
    return {"store": url, "dry_run": True, "sources": intake.documents(), "episodes": found}


def _show_dry_run(document: dict[str, Any]) -> None:
    show_episodes(document["episodes"])
    there = sum(e["there_already"] for e in document["episodes"])
    line()
    line(f"nothing was written; {there} of {amount(len(document['episodes']), 'episode')} are there already")


def _write(args: argparse.Namespace, intake: Intake) -> dict[str, Any]:
    options = WriteOptions(
        profile=args.video, quality_db=args.quality, transcode=args.transcode, workers=args.workers
    )
    return write_all(args.store, intake, options, author=args.author)


def write_all(url: str, intake: Intake, options: WriteOptions, *, author: str = "") -> dict[str, Any]:
    """Write recordings into a store, which is made if there is none, and return the summary.

    Raises
    ------
    TeleopenError
        If a source is bad; the store is then as it was, and none was made for a bad first one.
    """
    episodes = iter(intake)
    try:
        first = list(islice(episodes, 1))
        store = _store_at(url, author)
        with progress("convert", unit="samples", total=lambda: intake.samples) as note:
            done = store.write(chain(first, episodes), options, author=author, progress=note)
    except SchemaError as error:
        error.add_note(f"the source is {intake.current}")
        raise
    return _summary(store, intake, done, transcode=options.transcode)


def _store_at(url: str, author: str) -> Store:
    """Open the store, or make one, but never in a folder that holds something else."""
    folder = Path(url)
    if "://" not in url and not is_store(url) and folder.exists():
        others = [path.name for path in folder.iterdir()] if folder.is_dir() else [folder.name]
        if any(not name.startswith(".") for name in others):
            raise StoreError(url, "is no store and not empty; name a new folder, or an empty one")
    return create_store(url, author=author)


def _summary(store: Store, intake: Intake, done: WriteReport, *, transcode: bool) -> dict[str, Any]:
    stored = [store.state.segments[segment] for segment in done.segments]
    seen = [id for id in dict.fromkeys((*done.added, *done.skipped)) if id in store.state.episodes]
    return {
        "store": store.url,
        "version": done.version,
        "dry_run": False,
        "sources": intake.documents(),
        "added": list(done.added),
        "resumed": list(done.resumed),
        "already_there": list(done.skipped),
        "withdrawn": list(done.withdrawn),
        "segments": list(done.segments),
        "source_bytes": intake.bytes_of(done.added),
        "stored_bytes": sum(file.size for add in stored for file in add.files.values()),
        "cameras": _cameras(store, done.added, frozenset() if transcode else intake.encoded),
        "warnings": [{"text": text, "episodes": count} for text, count in intake.warnings.items()],
        "rights": standing(store, seen),
        "next": _next_steps(store.url, seen),
    }


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
    heading("rights")
    show_standing(document["rights"], brief=True)
    if document["next"]:
        heading("next")
        for step in document["next"]:
            line(f"  {step}")


def _decibel(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} dB"
