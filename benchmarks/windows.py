"""Random windows of a dataset: what one costs us, LeRobot's loaders, a Lance dataset and JPEG shards."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from .contenders import (
    FULL,
    JPEG,
    JPEG_CHANNELS_FIRST,
    LANCE,
    LEVEL,
    MAIN,
    RELEASED,
    RESIZED,
    SIMPLEJPEG,
    TORCHCODEC,
    Contender,
    Places,
    Running,
    check,
    running,
    small,
)
from .corpus import Bench
from .measure import take_turns
from .report import Aim, Row, Table
from .sample import BATCH, EPISODES, PICTURES, STEPS

Told = Mapping[str, Sequence[Mapping[str, float]]]

_LOADERS = (MAIN, RELEASED, LANCE, JPEG)
_SMALL = tuple(small(peer) for peer in _LOADERS)
_MOST_BYTES = {JPEG.name: 1 / 4}


_NOTES = f"""\
CPU time of one window as part of a batch of {BATCH}: 2 cameras × 2 frames of 480 × 640, 2 states, 16 actions;
{EPISODES} episodes of {STEPS} steps. Contenders run in a process each, take turns, and draw the same windows,
permuted but where ours draws blocks: 4 or 8 windows of each camera chunk, 4 or 2 chunks for a batch.
What they deliver is first checked against the recording.
Ratio: theirs / ours; of bytes, ours / theirs.
LeRobot's datasets are its default MP4 (AV1 g=2 crf 30), Lance's hold the same bytes. JPEG shards: q80 4:2:0,
records of litdata, simplejpeg. For 224 × 224, LeRobot's and Lance's loaders resize with torchvision, and JPEG
is decoded at half size and resized with OpenCV; ours reads a level of that size, or resizes too.
A decoder alone makes no batch and is no loader: these rows show a limit.
DataLoader: CPU time with that of workers, who live on from turn to turn; windows/s in brackets.
Bytes: of all files, states and actions included, by picture.

"""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Ours in each order with some peers.

    Attributes
    ----------
    factor
        How many times the peers' aims are to be reached; None: they are not.
    """

    ours: Sequence[Contender]
    peers: Sequence[Contender]
    factor: float | None


_IN_PROCESS = (
    Comparison(FULL, (*_LOADERS, JPEG_CHANNELS_FIRST, TORCHCODEC, SIMPLEJPEG), 1),
    Comparison(LEVEL, _SMALL, 2),
    Comparison(RESIZED, _SMALL, None),
)
_LOADED = (Comparison(FULL, _LOADERS, 1),)


def table(bench: Bench) -> Table:
    """Measure in process and through PyTorch's DataLoader, at full size and at 224 × 224."""
    found = Table("windows: CPU time of a training sample", notes=_NOTES.splitlines())
    places = Places(bench, bench.new_folder())
    places.make()
    rounds, batches = (2, 2) if bench.quick else (11, 2)
    found.rows += _measured(_IN_PROCESS, places, None, rounds, batches, found)
    for workers in (0, 2):
        rounds, batches = (1, 4) if bench.quick else (5, 8)
        found.rows += _measured(_LOADED, places, workers, rounds, batches, found)
    found.rows += _sizes(places)
    found.notes.append("")
    return found


def _measured(
    comparisons: Sequence[Comparison],
    places: Places,
    workers: int | None,
    rounds: int,
    batches: int,
    found: Table,
) -> Iterator[Row]:
    """Let all contenders take turns; return the rows of each comparison."""
    everyone = {one.name: one for part in comparisons for one in (*part.ours, *part.peers)}
    with running(list(everyone.values()), places.folder, workers, found) as there:
        turns = {name: _turn(process, places, workers, batches) for name, process in there.items()}
        for name, process in there.items():
            check(places.bench, process, places.batches(process.contender.order, 0, 2), places.folder)
            turns[name](0)
        told = take_turns(turns, rounds)
    through = "" if workers is None else f", DataLoader with {workers} workers"
    for part in comparisons:
        for own in (one for one in part.ours if one.name in told):
            peers = [one for one in part.peers if one.name in told]
            for peer in peers:
                yield _row(own, peer, part.factor, told, batches * BATCH, through)
            if not peers:
                yield Row(what=own.name + through, figure=_figure(told[own.name], batches * BATCH, through))


def _turn(
    process: Running, places: Places, workers: int | None, batches: int
) -> Callable[[int], Mapping[str, float]]:
    """Return what draws the windows of a round. Workers that live on draw the same ones in each."""

    def turn(number: int) -> Mapping[str, float]:
        first = 0 if workers is not None else number * batches
        return process.draw(places.batches(process.contender.order, first, batches))

    return turn


def _row(
    own: Contender, peer: Contender, factor: float | None, told: Told, windows: int, through: str
) -> Row:
    pairs = zip(told[peer.name], told[own.name], strict=True)
    aim = peer.aims.get(own.order.split()[0])
    return Row(
        what=own.name + through,
        figure=_figure(told[own.name], windows, through),
        peer=peer.name,
        peer_figure=_figure(told[peer.name], windows, through),
        ratio=median(theirs["cpu"] / mine["cpu"] for theirs, mine in pairs),
        aim=Aim(">=", aim * factor) if aim and factor else None,
    )


def _figure(rounds: Sequence[Mapping[str, float]], windows: int, through: str) -> str:
    """Return the medians of CPU time per window and, through a `DataLoader`, of windows per second."""
    cpu = f"{median(one['cpu'] for one in rounds) / windows * 1e3:.2f} ms"
    return f"{cpu} ({median(windows / one['wall'] for one in rounds):.0f}/s)" if through else cpu


def _sizes(places: Places) -> Iterator[Row]:
    """Return the bytes of a picture on disk, those of states and actions included."""
    for what, place in (("full size", FULL[0].place), ("with a level of 224 × 224", LEVEL[0].place)):
        mine = places.bytes(place)
        for peer in _LOADERS:
            if theirs := places.bytes(peer.place):
                most = _MOST_BYTES.get(peer.name)
                yield Row(
                    what=f"bytes of a picture, {what}",
                    figure=f"{mine / PICTURES / 1e3:.2f} kB",
                    peer=peer.name,
                    peer_figure=f"{theirs / PICTURES / 1e3:.2f} kB",
                    ratio=mine / theirs,
                    aim=Aim("<=", most) if most else None,
                )
