"""Random windows from a Hub behind a slow line, compared with LeRobot's streaming and JPEG shards."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from .contenders import LEROBOT_MAIN, Contender, Places, absent
from .corpus import Bench
from .link import RATE, RTT_S, slow_hub, token
from .measure import in_child
from .report import Aim, Row, Table
from .sample import CAMERAS, EPISODES, STEPS

Told = Mapping[str, Mapping[str, float]]

_CHILD = f"{__package__}.streams"
_OURS, *_BLOCKS = (
    Contender(name=name, opener="ours", place="store", options={"blocks": blocks})
    for name, blocks in (("permuted", None), ("blocks of 4", (4, 4)), ("blocks of 32", (32, 2)))
)
_JPEG = Contender(name="JPEG q80 shards by ranges, permuted", opener="jpeg", place="jpeg")
_RELEASED = Contender(name="StreamingLeRobotDataset 0.4.4, float32", opener="lerobot", place="lerobot")
_MAIN = Contender(
    name="StreamingLeRobotDataset main, uint8",
    opener="lerobot",
    place="lerobot",
    options={"return_uint8": True},
    python=LEROBOT_MAIN,
)

_LEAST_RATE = {_RELEASED.name: 10, _MAIN.name: 10, _JPEG.name: 1}
_MOST_BYTES = {_RELEASED.name: 1 / 3, _MAIN.name: 1 / 3}


def table(bench: Bench) -> Table:
    """Measure single windows that nobody fetched ahead, and a loader that reads ahead."""
    found = Table(
        "streaming: windows from a Hub behind a slow line",
        notes=[
            "Windows of 2 cameras × 2 frames 480 × 640, 2 states and 16 actions, of",
            f"{EPISODES} episodes of {STEPS} steps on a Hub on this machine, like the real one.",
            f"Each request waits {RTT_S * 1e3:.0f} ms. Single windows: one by one, others before them,",
            f"no limit of bandwidth. Read ahead: {RATE * 8 / 1e6:.0f} Mbit/s for all, two decoding threads,",
            "a whole epoch from the first request on; the limit is bandwidth / bytes per window.",
            "LeRobot's streaming is not random: it mixes a buffer of 64 windows of one shard, read in order;",
            "blocks of 32 mix as many, of two places of the dataset.",
            *(
                ["Quick: LeRobot's epochs end after 128 windows, much of whose bytes are for later ones."]
                * bench.quick
            ),
            "Wall time, since waiting is measured: other jobs on the machine make it longer for all.",
            "Ratio: of rates, ours / theirs or its limit; of times, requests and bytes, ours / theirs.",
            "",
        ],
    )
    places = Places(bench, bench.new_folder())
    places.make()
    with slow_hub() as endpoint:
        found.rows += _rows(dict(_results(places, endpoint, found)))
    return found


def _results(places: Places, endpoint: str, found: Table) -> Iterator[tuple[str, Mapping[str, float]]]:
    """Put the recording on the Hub in each format; measure those who are there, one after the other."""
    for place in ("store", "jpeg", "lerobot"):
        env = _environment(places.bench, endpoint)
        in_child(_CHILD, env, "publish", f"lab/{place}", str(places.folder / place))
    single, most = (8, 8) if places.bench.quick else (40, None)
    for one in (_OURS, *_BLOCKS, _JPEG, _RELEASED, _MAIN):
        if one.interpreter is None:
            absent(found, one, f"{one.python} names no Python")
            continue
        asked = ("measured", one.opener, f"lab/{one.place}", one.options, single, most)
        told = in_child(_CHILD, _environment(places.bench, endpoint), *asked, python=one.interpreter)
        if why := told.get("absent"):
            absent(found, one, why)
        else:
            yield one.name, told


def _environment(bench: Bench, endpoint: str) -> dict[str, str]:
    return {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_TOKEN": token(),
        "HF_HOME": str(bench.new_folder()),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }


# ---------------------------------------------------------------- rows


def _rows(results: Told) -> Iterator[Row]:
    yield from _single(results)
    for name, told in results.items():
        limit = RATE / told["ahead_bytes"]
        yield Row(
            what=f"read ahead, {name}: windows/s",
            figure=f"{1 / told['ahead_seconds']:.0f}/s, {told['ahead_requests']:.2f} requests",
            peer="its limit by bandwidth",
            peer_figure=f"{limit:.0f}/s, {told['ahead_bytes'] / 1e3:.0f} kB",
            ratio=1 / told["ahead_seconds"] / limit,
        )
    for own in (_OURS, *_BLOCKS):
        for peer in (_RELEASED, _MAIN, _JPEG):
            if peer.name in results:
                yield from _compared(own, peer, results[own.name], results[peer.name])


def _single(results: Told) -> Iterator[Row]:
    ours = results[_OURS.name]
    figure = f"{ours['single_seconds'] * 1e3:.1f} ms"
    yield Row(
        what="single window: requests",
        figure=f"{ours['single_requests']:.2f}",
        peer="one for each camera",
        peer_figure=str(len(CAMERAS)),
        ratio=ours["single_requests"] / len(CAMERAS),
        aim=Aim("<=", 1.05),
    )
    yield Row(
        what="single window: time",
        figure=figure,
        peer="one round trip",
        peer_figure=f"{RTT_S * 1e3:.0f} ms",
        ratio=ours["single_seconds"] / RTT_S,
        aim=Aim("<=", 1.3),
    )
    if theirs := results.get(_JPEG.name):
        yield Row(
            what="single window: time",
            figure=figure,
            peer=_JPEG.name,
            peer_figure=f"{theirs['single_seconds'] * 1e3:.1f} ms",
            ratio=ours["single_seconds"] / theirs["single_seconds"],
        )


def _compared(
    own: Contender, peer: Contender, ours: Mapping[str, float], theirs: Mapping[str, float]
) -> Iterator[Row]:
    """Return how many times as fast ours is, and with how many times the bytes."""
    most = _MOST_BYTES.get(peer.name)
    yield Row(
        what=f"read ahead, {own.name}: windows/s",
        figure=f"{1 / ours['ahead_seconds']:.0f}/s",
        peer=peer.name,
        peer_figure=f"{1 / theirs['ahead_seconds']:.0f}/s",
        ratio=theirs["ahead_seconds"] / ours["ahead_seconds"],
        aim=Aim(">=", _LEAST_RATE[peer.name]),
    )
    yield Row(
        what=f"read ahead, {own.name}: bytes of a window",
        figure=f"{ours['ahead_bytes'] / 1e3:.0f} kB",
        peer=peer.name,
        peer_figure=f"{theirs['ahead_bytes'] / 1e3:.0f} kB",
        ratio=ours["ahead_bytes"] / theirs["ahead_bytes"],
        aim=Aim("<=", most) if most else None,
    )
