"""What is told of an episode beside its pictures: a card for people and properties for filters.

Texts from recordings are shown, never obeyed: markup is escaped, and what could drive a display or turn the
direction of text becomes a blank.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from ..schemas import LICENCES, UNKNOWN, Episode, Reason
from ..schemas.decision import published_as, reasons

_MARKUP = re.compile(r"([!-/:-@\[-`{-~])")
_LONGEST = 2_000  # characters of one text
_MOST_NOTES = 5


@dataclass(frozen=True, slots=True)
class Words:
    """How texts are written.

    Attributes
    ----------
    ascii
        For viewers that have no glyphs for most scripts, and die of one that is missing: what has a plain
        letter at its base becomes that, the rest its code point, such as ``<4E2D>``.
    """

    ascii: bool = False

    def __call__(self, text: str) -> str:
        """Return a text on one line, with nothing in it that drives a display."""
        shown = "".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in text[:_LONGEST])
        if self.ascii:
            shown = "".join(map(_in_ascii, shown))
        return " ".join(shown.split())

    def markdown(self, text: str) -> str:
        """Return a text as markdown that shows it and does nothing else."""
        return _MARKUP.sub(r"\\\1", self(text))


def _in_ascii(character: str) -> str:
    if character.isascii():
        return character
    plain = "".join(c for c in unicodedata.normalize("NFKD", character) if c.isascii())
    return plain or ("" if unicodedata.combining(character) else f"<{ord(character):04X}>")


def is_plain(episode: Episode) -> bool:
    """Tell whether a viewer without fonts can write what is told of an episode as it is."""
    told = [episode.embodiment, *episode.instructions, *(e.kind + e.text for e in episode.events)]
    told += [axis for stream in episode.streams.values() for axis in stream.spec.axes]
    return all(text.isascii() for text in told)


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """An episode, what decides over it, and what was found in it.

    Attributes
    ----------
    closed_by
        What keeps it closed; empty: it is open.
    duration_s
        From the first to the last sample of any clock.
    frames, rate_hz
        Samples of its main clock, and how many of them are a second's; None if that is not known.
    anomalies
        Events that checks added.
    source
        What the viewer was asked to show.
    notes
        What else has to be known of what is shown.
    """

    episode: Episode
    closed_by: Sequence[Reason]
    duration_s: float
    frames: int
    rate_hz: float | None = None
    anomalies: int = 0
    source: str = ""
    notes: Sequence[str] = ()

    @property
    def licence(self) -> str:
        """The licence that it goes out under, or that it states while it is closed."""
        rights = self.episode.rights
        return (not self.closed_by and published_as(rights)) or rights.licence.expression

    def properties(self, words: Words) -> dict[str, str | bool | int | float]:
        """Return what a catalogue can be filtered by. Whether it may be passed on is the decision's word."""
        episode = self.episode
        return {
            "id": episode.id,
            "task": words(" / ".join(episode.instructions)) or UNKNOWN,
            "license": words(self.licence),
            "redistributable": not self.closed_by,
            "robot": words(episode.embodiment),
            "outcome": episode.outcome,
            "num_frames": self.frames,
            "duration_s": self.duration_s,
            "num_anomalies": self.anomalies,
            "source": words(self.source),
        }

    def markdown(self, words: Words) -> str:
        """Return the card as markdown: task, facts, licence, what keeps it closed, where it comes from."""
        title = " / ".join(self.episode.instructions) or "No task stated"
        parts = [f"# {words.markdown(title)}", self._facts(words), *self._closed(words), *self._notes(words)]
        return "\n\n".join(parts) + "\n"

    def _facts(self, words: Words) -> str:
        episode, told = self.episode, words.markdown
        origin = episode.provenance
        rate = f", {self.rate_hz:.4g} per second" if self.rate_hz else ""
        rows = [
            ("Licence", self._licence(words)),
            ("May be passed on", "no" if self.closed_by else "yes"),
            ("Attribution", told(_credit(episode))),
            ("Robot", told("not stated" if episode.embodiment == UNKNOWN else episode.embodiment)),
            ("Outcome", "not stated" if episode.outcome == UNKNOWN else episode.outcome),
            ("Length", told(f"{self.duration_s:.1f} s, {self.frames:,} frames{rate}")),
            ("Episode", told(episode.id)),
            ("From", told(self.source)),
            ("Format", told(f"{origin.format}, read by {origin.converter} {origin.converter_version}")),
            *(("Made from", told(f"{s.uri}, sha256 {s.sha256[:16]}")) for s in origin.sources[:3]),
        ]
        if len(origin.sources) > 3:
            rows.append(("and", f"{len(origin.sources) - 3:,} more files"))
        lines = [f"| {name} | {value} |" for name, value in rows if value]
        return "\n".join(["| | |", "|---|---|", *lines])

    def _licence(self, words: Words) -> str:
        row = LICENCES.get(self.licence)
        told = words.markdown(row.id if row else self.licence)
        if self.licence == "NOASSERTION":
            return "none stated"
        return f"[{told}]({row.url})" if row else told

    def _closed(self, words: Words) -> list[str]:
        if not self.closed_by:
            return []
        told = words.markdown
        lines = [f"- {told(r.code.explanation)} {told(f'({r.detail})')}" for r in self.closed_by]
        return ["## What keeps it closed", "\n".join(lines)]

    def _notes(self, words: Words) -> list[str]:
        notes = (*self.notes, *self.episode.provenance.warnings)
        if not notes:
            return []
        lines = [f"- {words.markdown(note)}" for note in notes[:_MOST_NOTES]]
        if len(notes) > _MOST_NOTES:
            lines.append(f"- and {len(notes) - _MOST_NOTES} more")
        return ["## Notes", "\n".join(lines)]


def _credit(episode: Episode) -> str:
    """Return how the work wants to be named, or who holds it."""
    works = [credit for credit in episode.rights.attribution if not credit.suppressed]
    named = [", ".join(filter(None, (*c.creators, c.title, str(c.year or "")))) for c in works]
    return "; ".join(filter(None, named)) or ", ".join(holder.name for holder in episode.rights.holder)


def decided(episode: Episode) -> Sequence[Reason]:
    """Return what keeps an episode closed now, by its own header."""
    return reasons(episode.rights, now=datetime.now(UTC))
