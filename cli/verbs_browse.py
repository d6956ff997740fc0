"""Verbs that look at more than one episode: what is odd about them, two side by side, many as cards."""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..hub import open_store
from ..schemas import UNKNOWN, Episode, Event, Json, NotFoundError, Rights
from ..schemas.document import to_document
from ..viewer.checks import anomalies
from ..viewer.robots import Placed, Robot, limits, placed, robot_from, robot_named, robot_of
from .origin import Origin, opened, split
from .output import MisuseError, amount, line, megabytes, report, say, table

if TYPE_CHECKING:
    from ..hub.store import Store
    from ..viewer.align import Aligned
    from ..viewer.browse import Browsing, Item
    from ..viewer.plan import RecordOptions

_NO_DISPLAY = "--web shows it in a browser"


def events(args: argparse.Namespace) -> int:
    """Tell what is odd about the episodes of a store or a recording, and how to look at it."""
    source, key = split(args.src)
    origin = opened(source, args)
    chosen = [origin.episode(key)] if key is not None else enumerate(origin)
    found = [_odd(origin, number, episode, args) for number, episode in chosen]
    document = {
        "source": origin.text,
        "episodes": len(found),
        "events": [one for several in found for one in several],
    }
    report(document, _show_events, as_json=args.json)
    return 0


def _odd(origin: Origin, number: int, episode: Episode, args: argparse.Namespace) -> list[dict[str, Any]]:
    arms = arms_of(episode, args)
    rows = anomalies(episode, limits(arms), pictures=not args.no_cameras)
    place = f"{origin.text}#{number}"
    return [{"number": number, "episode": episode.id, **_row(event, place)} for event in rows]


def _row(event: Event, place: str) -> dict[str, Any]:
    seconds = f"{event.start_ns / 1e9:.3f}s"
    return {
        "kind": event.kind,
        "start_s": event.start_ns / 1e9,
        "stop_s": None if event.stop_ns is None else event.stop_ns / 1e9,
        "text": event.text,
        "attributes": dict(event.attributes),
        "open": f"teleopen view {shlex.quote(place)} --at {seconds}",
    }


def _show_events(document: dict[str, Any]) -> None:
    rows = document["events"]
    if rows:
        table((">#", "kind", ">from", ">to", "what", "look at it"), map(_cells, rows))
        line()
    whole = {row["number"] for row in rows}
    line(
        f"{amount(len(rows), 'finding')} in {len(whole)} of {amount(document['episodes'], 'episode')}; "
        "these are facts, and no judgement of quality"
    )


def _cells(row: dict[str, Any]) -> Sequence[object]:
    stop = "" if row["stop_s"] is None else f"{row['stop_s']:.2f} s"
    kind = row["kind"].removeprefix("anomaly.")
    return row["number"], kind, f"{row['start_s']:.2f} s", stop, row["text"], row["open"]


# ---------------------------------------------------------------- robots


def arms_of(episode: Episode, args: argparse.Namespace) -> tuple[Placed, ...]:
    """Return the arms of the robot that an episode is of, or that the command line says it is of."""
    robot = _robot(episode, args)
    is_told = bool(args.robot or args.urdf)
    return () if robot is None else placed(episode, robot, args.joint_unit, is_certain=is_told)


def _robot(episode: Episode, args: argparse.Namespace) -> Robot | None:
    if args.urdf is not None and args.robot is not None:
        raise MisuseError("--urdf and --robot both say which robot it is; give one")
    if args.urdf is not None:
        return robot_from(Path(args.urdf))
    if args.robot == "none":
        return None
    return robot_of(episode) if args.robot is None else robot_named(args.robot)


# ---------------------------------------------------------------- two


def compare(args: argparse.Namespace) -> int:
    """Show two episodes side by side with one cursor."""
    from ..viewer.compare import write_pair

    _look_or_keep(args)
    pair = [_one(text, args) for text in (args.a, args.b)]
    (options_a, a), (options_b, b) = pair
    with tempfile.TemporaryDirectory(prefix="teleopen-") as folder:
        path = Path(args.save) if args.save else Path(folder, "compare.rrd")
        arms = arms_of(a, args), arms_of(b, args)
        aligned = write_pair((a, b), path, args.align, (options_a, options_b), arms)
        if args.save or args.json:
            report(_compared(args, a, b, aligned, path), _show_compared, as_json=args.json)
        if args.web or not args.save:
            _show(path, args)
    return 0


def _one(text: str, args: argparse.Namespace) -> tuple[RecordOptions, Episode]:
    from ..viewer.plan import RecordOptions

    source, key = split(text)
    origin = opened(source, args)
    number, episode = origin.episode(key)
    closed_by = origin.store.why(episode.id) if origin.store else None
    found = anomalies(episode, limits(arms_of(episode, args)), pictures=False)
    return RecordOptions(closed_by=closed_by, source=f"{origin.text}#{number}", events=found), episode


def _compared(
    args: argparse.Namespace, a: Episode, b: Episode, aligned: Aligned, path: Path
) -> dict[str, Any]:
    return {
        "a": {"source": args.a, "episode": a.id},
        "b": {"source": args.b, "episode": b.id},
        "align": args.align,
        "phases": list(aligned.phases),
        "file": args.save,
        "bytes": path.stat().st_size,
    }


def _show_compared(document: dict[str, Any]) -> None:
    phases = f", {amount(len(document['phases']), 'phase')} matched" if document["align"] == "phase" else ""
    line(f"{document['file']}: {megabytes(document['bytes'])}, aligned by {document['align']}{phases}")


def _look_or_keep(args: argparse.Namespace) -> None:
    from ..viewer import show

    if not (getattr(args, "save", None) or args.web or show.has_display()):
        error = NotFoundError("there is no display here to open a window on")
        error.add_note(_NO_DISPLAY)
        raise error


def _show(path: Path, args: argparse.Namespace) -> None:
    from ..viewer import show

    if args.web:
        show.web([path], lambda address: say(f"open {address} in a browser; Ctrl-C ends it"), port=args.port)
    else:
        show.window([path])


# ---------------------------------------------------------------- many


def browse(args: argparse.Namespace) -> int:
    """Show the episodes of a store as cards, until interrupted."""
    from ..viewer import show
    from ..viewer.browse import Cache, browsing, default_cache

    if not args.serve:
        _look_or_keep(args)
    store = open_store(args.store)
    cache = Cache(Path(args.cache) if args.cache else default_cache(), round(args.cache_size * 1e9))
    items = list(_items(store, args))
    if not items:
        raise NotFoundError(f"{store.url}: no episode is what was asked for")
    say(f"{amount(len(items), 'episode')} of {len(store)}; recordings are kept in {cache.folder}")
    with browsing(items, cache, port=args.port) as found:
        report(_browsed(store, found), _show_browsed, as_json=args.json)
        if args.web:
            show.web_of(found.address, lambda address: say(f"open {address} in a browser; Ctrl-C ends it"))
        elif args.serve:
            show.until_interrupted()
        else:
            show.window([found.address])
    return 0


def _items(store: Store, args: argparse.Namespace) -> Iterator[Item]:
    """Yield what is asked for, and open no episode beyond it."""
    from ..viewer.browse import Item
    from ..viewer.plan import RecordOptions

    for id in islice(_wanted(store, args), args.limit):
        episode, place = store.episode(id), store.state.episodes[id]
        told = json.dumps([place.segment, place.row, to_document(episode)], sort_keys=True)
        source = f"{store.url}#{store.ids.index(episode.id)}"
        options = RecordOptions(closed_by=store.why(episode.id), source=source)
        yield Item(episode=episode, key=hashlib.sha256(told.encode()).hexdigest(), options=options)


def _wanted(store: Store, args: argparse.Namespace) -> Iterator[str]:
    """Yield the ids of the episodes that are asked for, by what is cheap to know first.

    The licence is in the commit log, task and robot in the headers as they are stored. A licence is asked for
    by its whole expression: a part of ``CC-BY-4.0`` is also one of ``CC-BY-NC-4.0``.
    """
    for id in store.ids:
        if args.licence:
            rights = Rights.from_document(store.state.rights[id])
            if rights.licence.expression.casefold() != args.licence.casefold():
                continue
        if (args.task or args.robot) and not _speaks_of(store.header(id), args.task, args.robot):
            continue
        if not args.open_only or not store.why(id):
            yield id


def _speaks_of(header: Mapping[str, Json], task: str, robot: str) -> bool:
    """Tell whether a header, which nobody has checked, holds the texts in its tasks and in its robot."""
    told = header.get("instructions")
    tasks = [text for text in told if isinstance(text, str)] if isinstance(told, list) else []
    if task and not any(task.casefold() in text.casefold() for text in tasks):
        return False
    return robot.casefold() in str(header.get("embodiment", UNKNOWN)).casefold()


def _browsed(store: Store, found: Browsing) -> dict[str, Any]:
    links = [
        {"episode": link.episode, **_row(link.event, f"{store.url}#{link.episode}"), "link": link.address}
        for link in found.links
    ]
    return {"store": store.url, "address": found.address, "datasets": dict(found.datasets), "events": links}


def _show_browsed(document: dict[str, Any]) -> None:
    for name, address in document["datasets"].items():
        line(f"{name}: {address}")
    if document["events"]:
        rows = [
            (e["episode"][:8], e["kind"].removeprefix("anomaly."), e["text"], e["link"])
            for e in document["events"]
        ]
        table(("episode", "kind", "what", "opens there"), rows)
