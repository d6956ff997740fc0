"""Many episodes as cards: Rerun's own catalogue, on this machine only, over a cache of recordings.

A recording is made when its card is asked for and kept under a name that is a hash of all that went into it,
so that whatever changes (the episode, its rights, the checks, the viewer) makes another. The cache has a size
that it is kept below; what was used longest ago goes first.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..schemas import Episode, Event, StoreError
from .checks import anomalies, is_anomaly
from .layout import blueprint
from .plan import RecordOptions
from .record import application_of, write
from .rerun import VERSION, catalogue, rr, rrb, tables
from .robots import limits, placed, robot_of
from .scene import robots
from .timing import FRAME, Timing

CACHE_BYTES = 4 << 30
_RECIPE = 2  # of what is recorded; a new number makes all recordings anew
_CARDS = "property:episode:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """An episode to be browsed.

    Attributes
    ----------
    key
        Changes whenever the stored episode does, such as its header and the segment that holds it.
    options
        Decision and source, for its card.
    """

    episode: Episode
    key: str
    options: RecordOptions = field(default_factory=RecordOptions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An episode as a recording that is in the cache."""

    episode: Episode
    recording: Path
    layout: Path
    cameras: tuple[str, ...]
    events: tuple[Event, ...]


def default_cache() -> Path:
    """Return the folder that recordings are kept in."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "teleopen" / "recordings"


class Cache:
    """Recordings by what they were made from, in a folder that is kept below a size."""

    def __init__(self, folder: Path, largest: int = CACHE_BYTES) -> None:
        self.folder, self._largest = folder, largest
        self._used: set[Path] = set()

    def entry(self, item: Item) -> Entry:
        """Return an episode's recording; make it unless it is there.

        Raises
        ------
        StoreError
            If the cache cannot be written.
        TeleopenError
            If the episode cannot be read.
        """
        told = json.dumps([_RECIPE, VERSION, item.key, item.options.ascii, str(item.options.closed_by)])
        home = self.folder / hashlib.sha256(told.encode()).hexdigest()
        paths = home / "episode.rrd", home / "layout.rbl", home / "about.json"
        try:
            home.mkdir(parents=True, exist_ok=True)
            about = self._about(paths[2]) or self._made(item, *paths)
            os.utime(home)
        except OSError as error:
            raise StoreError(str(home), f"the cache cannot be written: {error.strerror}") from error
        self._used.add(home)
        self._shrink()
        return Entry(
            episode=item.episode,
            recording=paths[0],
            layout=paths[1],
            cameras=tuple(about["cameras"]),
            events=tuple(Event(**event) for event in about["events"]),
        )

    @staticmethod
    def _about(path: Path) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = json.loads(path.read_bytes())
        except (OSError, ValueError):
            return None
        return found

    def _made(self, item: Item, recording: Path, layout: Path, about: Path) -> dict[str, Any]:
        from dataclasses import asdict, replace

        robot = robot_of(item.episode)
        arms = placed(item.episode, robot) if robot is not None else ()
        events = anomalies(item.episode, limits(arms))
        options = replace(item.options, events=(*item.options.events, *events))
        recorded = write(item.episode, recording, options, extend=robots(arms))
        blueprint(recorded).save(application_of(item.episode), layout)
        cameras = [camera.name for camera in recorded.cameras if camera.kind == "video"]
        told = {"cameras": cameras, "events": [asdict(event) for event in events]}
        # Last, and in one step: without it the recording does not count.
        part = about.with_suffix(".part")
        part.write_text(json.dumps(told))
        part.replace(about)
        found: dict[str, Any] = json.loads(json.dumps(told))
        return found

    def _shrink(self) -> None:
        """Remove what was used longest ago until the rest fits; never what this run uses."""
        import shutil

        sizes = {h: sum(f.stat().st_size for f in h.iterdir()) for h in self.folder.iterdir() if h.is_dir()}
        total = sum(sizes.values())
        for home in sorted(sizes.keys() - self._used, key=lambda h: h.stat().st_mtime):
            if total <= self._largest:
                return
            shutil.rmtree(home, ignore_errors=True)
            total -= sizes[home]


@dataclass(frozen=True, slots=True)
class Link:
    """Where an event is shown: the episode, and the address that opens it there."""

    episode: str
    event: Event
    address: str


@dataclass(frozen=True, slots=True)
class Browsing:
    """A catalogue that runs.

    Attributes
    ----------
    address
        Of the dataset with the most episodes: what a viewer opens.
    datasets
        The address of each dataset: episodes of one robot and the same streams.
    """

    address: str
    datasets: Mapping[str, str]
    links: Sequence[Link]


@contextmanager
def browsing(items: Iterable[Item], cache: Cache, *, port: int = 0, where: str = "") -> Iterator[Browsing]:
    """Serve episodes as cards while the block runs, on this machine only.

    Parameters
    ----------
    items
        No more than are to be shown: each becomes a recording.
    port
        Of the catalogue; 0: any that is free.
    where
        A condition in SQL that the viewer begins with, over the columns of the cards; "": none.

    Raises
    ------
    MissingExtraError
        If Rerun is not installed with its catalogue, or the port is taken.
    """
    groups: dict[str, list[Entry]] = {}
    for item in items:
        groups.setdefault(application_of(item.episode), []).append(cache.entry(item))
    with catalogue(port) as server:
        client = server.client()
        addresses: dict[str, str] = {}
        links: list[Link] = []
        for application, entries in sorted(groups.items(), key=lambda group: -len(group[1])):
            name = _name(entries[0].episode, application)
            dataset = client.create_dataset(name)
            dataset.register([_uri(one.recording) for one in entries]).wait()
            dataset.register_blueprint(_uri(entries[0].layout))
            cards = entries[0].layout.with_name("cards.rbl")
            _cards(entries[0].cameras, where).save(application, cards)
            dataset.register_blueprint(_uri(cards), segment_table=True)
            addresses[name] = f"{server.url()}/entry/{dataset.id}"
            links += [link for one in entries for link in _links(dataset, one)]
        first = next(iter(addresses.values()), server.url())
        yield Browsing(first, addresses, links)


def _name(episode: Episode, application: str) -> str:
    robot = re.sub(r"[^A-Za-z0-9]+", "-", episode.embodiment).strip("-") or "robot"
    return f"{robot[:40]}-{application[-6:]}"


def _uri(path: Path) -> str:
    return path.resolve().as_uri()


def _cards(cameras: Sequence[str], where: str) -> Any:
    """Return how the cards look: a still of the first camera, then what is told of the episode."""
    table = tables()
    origin = rr.new_entity_path(["thumbnail", cameras[0]]) if cameras else "/"
    preview = (
        rrb.Spatial2DView(origin=origin, name=cameras[0])
        if cameras
        else rrb.TextDocumentView(origin="/info", name="Task & licence")
    )
    facts = {
        "task": "Task",
        "robot": "Robot",
        "license": "Licence",
        "redistributable": "May be passed on",
        "outcome": "Outcome",
        "duration_s": "Seconds",
        "num_anomalies": "Findings",
    }
    columns = [table.Column(_CARDS + key, name=name) for key, name in facts.items()]
    picture = table.Column("recording link", name="Picture", column_type=table.PreviewCell(preview))
    return table.TableBlueprint(
        card_layout=table.CardLayout(title=_CARDS + "task", fields=[picture, *columns]),
        table_layout=table.TableLayout(columns=[picture, *columns]),
        default_layout="cards",
        previews_config=table.PreviewsConfig(timeline=FRAME),
        sort_by=table.SortBy("rerun_segment_id"),
        filters=[where] if where else [],
    )


def _links(dataset: Any, entry: Entry) -> Iterator[Link]:
    timing = Timing(entry.episode, {})
    for event in filter(is_anomaly, entry.events):
        stop = event.start_ns if event.stop_ns is None else event.stop_ns
        frames = timing.frame_at(event.start_ns), timing.frame_at(stop)
        address = dataset.segment_url(entry.episode.id, FRAME, *frames)
        yield Link(entry.episode.id, event, address)
