"""Tables of figures and aims, as text that reads well in a terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

_HEADINGS = ("what", "figure", "compared with", "its figure", "ratio", "aim", "reached")


@dataclass(frozen=True, slots=True)
class Aim:
    """What a ratio is to be: at most or at least a number."""

    side: Literal["<=", ">="]
    value: float

    def reached(self, ratio: float) -> bool:
        """Tell whether a ratio fulfils the aim."""
        return ratio <= self.value if self.side == "<=" else ratio >= self.value

    def __str__(self) -> str:
        return f"{'≤' if self.side == '<=' else '≥'} {self.value:g}×"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One comparison.

    Attributes
    ----------
    what, figure
        What was measured of ours, with its figure and unit.
    peer, peer_figure
        What it is compared with.
    ratio
        Which of the two is divided by the other is said by the table.
    aim
        None where a row is for information.
    """

    what: str
    figure: str
    peer: str = ""
    peer_figure: str = ""
    ratio: float | None = None
    aim: Aim | None = None

    @property
    def reached(self) -> bool | None:
        """Whether the aim is reached; None if there is none."""
        return None if self.aim is None or self.ratio is None else self.aim.reached(self.ratio)

    def cells(self) -> tuple[str, ...]:
        """Return the row as text."""
        ratio = "" if self.ratio is None else f"{self.ratio:.3g}×"
        reached = {None: "", True: "yes", False: "no"}[self.reached]
        return (
            self.what, self.figure, self.peer, self.peer_figure, ratio, str(self.aim or ""), reached,
        )  # fmt: skip


@dataclass(slots=True)
class Table:
    """Comparisons of one kind, what a reader must know of them, what is missing, how busy the machine was."""

    title: str
    notes: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    load: str = ""

    def text(self) -> str:
        """Return the table as Markdown whose columns are aligned."""
        lines = [f"## {self.title}", "", *self.notes]
        lines += [f"absent: {peer}; its rows are left out" for peer in self.absent]
        lines += [f"Load average (others' jobs included): {self.load}."] if self.load else []
        return "\n".join([*lines, "", *_aligned([_HEADINGS, *(row.cells() for row in self.rows)])])

    def document(self) -> dict[str, Any]:
        """Return the table as JSON."""
        rows = [{**asdict(row), "aim": str(row.aim or ""), "reached": row.reached} for row in self.rows]
        return {
            "title": self.title,
            "notes": self.notes,
            "absent": self.absent,
            "load": self.load,
            "rows": rows,
        }


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in rows]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return [lines[0], rule, *lines[1:]]
