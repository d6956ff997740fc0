"""Which of an episode's clocks its steps are counted on."""

from __future__ import annotations

from ..schemas import Clock, Episode


def main_clock(episode: Episode) -> Clock:
    """Return the clock of the commands; without any, of the state; else the one with the most streams.

    Of several commands or states the first by name counts, and of clocks with as many streams, too.
    """
    specs = sorted((stream.spec for stream in episode.streams.values()), key=lambda spec: spec.name)
    for whole in ("action", "observation.state"):
        for spec in specs:
            if spec.name == whole or (whole == "action" and spec.name.startswith("action.")):
                return episode.clocks[spec.clock]
    count = {name: sum(spec.clock == name for spec in specs) for name in sorted(episode.clocks)}
    return episode.clocks[max(count, key=lambda name: count[name])]


def rate_of(clock: Clock) -> float | None:
    """Return samples per second: as measured where the times were, else as declared; None if neither."""
    if clock.kind == "recorded":
        return clock.measured_hz or clock.declared_hz
    return clock.declared_hz or clock.measured_hz
