"""What of an episode is recorded under which entity: known from its header, before anything is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from ..schemas import Episode, Event, Reason, Stream, StreamSpec
from ._plots import pairs
from .calibration import intrinsics, pose
from .card import Card, Words, decided
from .rerun import rr
from .timing import EPISODE_TIME, FRAME, Timing, Warp

METRES = {"m": 1.0, "dm": 10.0, "cm": 100.0, "mm": 1_000.0, "um": 1e6}
"""How many of a unit are a metre."""

Colour = tuple[int, int, int]

ANOMALY = "anomaly"
_MOST_AXES = 64  # of a sample that is drawn as curves


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordOptions:
    """How an episode is recorded.

    Attributes
    ----------
    prefix
        Entity that all of it lies under; "": the root. With two prefixes, one recording holds two episodes.
    ascii
        Write all texts in ASCII, for the viewer without a window, which dies of glyphs that it lacks.
    thumbnails
        Add a small still of each camera under ``thumbnail``.
    events
        Added to the episode's own; those whose kind begins with ``anomaly`` are counted as such.
    timelines
        More timelines: by name, what gives their times (ns) for times of the episode (ns).
    closed_by
        The decision on a store's episode; None: the episode's own rights decide.
    source
        What the viewer was asked to show, for the card.
    hue
        Colour of all curves; None: each axis has its own.
    """

    prefix: str = ""
    ascii: bool = False
    thumbnails: bool = True
    events: Sequence[Event] = ()
    timelines: Mapping[str, Warp] = field(default_factory=dict)
    closed_by: Sequence[Reason] | None = None
    source: str = ""
    hue: Colour | None = None


@dataclass(frozen=True, slots=True)
class Camera:
    """A camera and where its pictures are. ``placed``: it is known where it stands and how it projects."""

    stream: str
    name: str
    path: str
    kind: Literal["video", "depth"]
    placed: bool = False
    note: str = ""

    @property
    def home(self) -> str:
        """The entity of the camera itself, above its pictures."""
        return self.path.rpartition("/")[0]


@dataclass(frozen=True, slots=True)
class Curve:
    """One axis of a stream, and how it is called; or a whole stream."""

    stream: str
    name: str
    path: str
    unit: str = ""
    commanded: bool = False


@dataclass(frozen=True, slots=True)
class Plot:
    """Curves that belong together: an observed stream, its command, or both.

    Attributes
    ----------
    axes
        The curves of each axis: what was observed, then what was commanded.
    """

    name: str
    axes: tuple[tuple[Curve, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What is recorded, and where: all that a layout needs to know.

    Attributes
    ----------
    tensors
        Streams whose samples are pictures of numbers, such as tactile arrays.
    lanes
        Kinds of events, and the entity of each. ``log`` is the entity that has them as text, or "".
    spatial
        Entities that are something in 3D. Whoever adds a robot adds its entities here.
    timeline
        The one to look at first.
    rate_hz
        Of the main clock; None if it is not known.
    """

    title: str
    prefix: str
    card: Card
    info: str
    cameras: tuple[Camera, ...] = ()
    plots: tuple[Plot, ...] = ()
    tensors: tuple[Curve, ...] = ()
    lanes: Mapping[str, str] = field(default_factory=dict)
    log: str = ""
    spatial: tuple[str, ...] = ()
    timeline: str = FRAME
    rate_hz: float | None = None


def planned(episode: Episode, timing: Timing, options: RecordOptions) -> Recorded:
    """Return what `teleopen.viewer.record.record` records of an episode."""
    words = Words(ascii=options.ascii)
    name = Namer(options)
    main = episode.clocks.get(timing.main)
    rate_hz = (main.measured_hz or main.declared_hz) if main else None
    card = Card(
        episode=episode,
        rate_hz=rate_hz,
        closed_by=decided(episode) if options.closed_by is None else options.closed_by,
        duration_s=timing.seconds,
        frames=timing.frames,
        anomalies=sum(event.kind.startswith(ANOMALY) for event in options.events),
        source=options.source,
    )
    cameras = tuple(_camera(s.spec, name) for s in episode.streams.values() if s.length and _seen(s.spec))
    kinds = dict.fromkeys(event.kind for event in events_of(episode, options))
    clocks = {stream.spec.clock for stream in episode.streams.values()}
    return Recorded(
        title=words(" / ".join(episode.instructions) or episode.id),
        prefix=options.prefix,
        card=card,
        info=name("info"),
        cameras=cameras,
        plots=tuple(_plots(episode, name)),
        tensors=tuple(_tensors(episode, name)),
        lanes={kind: name("events", kind) for kind in kinds},
        log=name("events_as_text") if kinds else "",
        spatial=tuple(camera.home for camera in cameras if camera.placed),
        timeline=FRAME if len(clocks) <= 1 else EPISODE_TIME,
        rate_hz=rate_hz,
    )


def events_of(episode: Episode, options: RecordOptions) -> list[Event]:
    """Return all events of an episode, and those that were added, by their start."""
    return sorted((*episode.events, *options.events), key=lambda event: event.start_ns)


class Namer:
    """Gives the paths of entities. Any text is one part of a path, and is escaped."""

    def __init__(self, options: RecordOptions) -> None:
        self._above = [options.prefix] if options.prefix else []
        self.words = Words(ascii=options.ascii)

    def __call__(self, *parts: str) -> str:
        """Return the path of an entity under the prefix."""
        path: str = rr.new_entity_path([*self._above, *(self.words(part) or "_" for part in parts)])
        return path


def _seen(spec: StreamSpec) -> bool:
    return spec.kind in {"video", "depth"}


def _camera(spec: StreamSpec, name: Namer) -> Camera:
    called = spec.name.removeprefix("observation.").removeprefix("images.").removeprefix("depth.")
    is_depth = spec.kind == "depth"
    placed = intrinsics(spec) is not None and pose(spec.attributes) is not None
    note = "unit unknown" if is_depth and spec.unit[0] not in METRES else ""
    path = name("depth" if is_depth else "cameras", called, "image")
    return Camera(spec.name, called, path, "depth" if is_depth else "video", placed, note)


def _plots(episode: Episode, name: Namer) -> Iterator[Plot]:
    for pair in pairs(episode):
        found = [s for s in pair if s is not None and size_of(s.spec) <= _MOST_AXES]
        if found:
            both = [_curves(stream, name, commanded=stream is pair[1]) for stream in found]
            title = " and ".join(stream.spec.name for stream in found)
            yield Plot(title, tuple(zip(*both, strict=True)))


def _curves(stream: Stream, name: Namer, *, commanded: bool) -> list[Curve]:
    spec = stream.spec
    home = spec.name.split(".")
    return [
        Curve(spec.name, name.words(axis), name(*home, axis), _unit(spec, index), commanded)
        for index, axis in enumerate(_axes(spec))
    ]


def _tensors(episode: Episode, name: Namer) -> Iterator[Curve]:
    for stream in episode.streams.values():
        spec = stream.spec
        if not _seen(spec) and stream.length and size_of(spec) > _MOST_AXES:
            yield Curve(spec.name, spec.name, name(*spec.name.split(".")))


def size_of(spec: StreamSpec) -> int:
    """Return how many numbers a sample has."""
    return int(np.prod(spec.shape, dtype=np.int64))


def _axes(spec: StreamSpec) -> list[str]:
    """Return a name for each number of a sample, no two the same."""
    count = size_of(spec)
    if len(spec.axes) == count and len(set(spec.axes)) == count:
        return list(spec.axes)
    if not spec.shape:
        return ["value"]
    places = [",".join(map(str, index)) for index in np.ndindex(*spec.shape)]
    if len(spec.axes) == count:
        return [f"{axis} [{place}]" for axis, place in zip(spec.axes, places, strict=True)]
    return [f"[{place}]" for place in places]


def _unit(spec: StreamSpec, index: int) -> str:
    unit = spec.unit[index] if len(spec.unit) > index else spec.unit[0]
    return "" if unit in {"1", "unknown"} else unit
