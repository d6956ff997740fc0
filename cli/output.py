"""What the command line prints: tables and JSON on stdout, errors on stderr.

Texts from recordings are shown, never obeyed: control characters, which can drive a terminal, and
characters that turn the direction of text are escaped, and no markup is read.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..schemas import DamageError, MissingExtraError, SchemaError, TeleopenError, UnknownFormatError

if TYPE_CHECKING:
    from rich.console import Console

Document = Mapping[str, Any]

_DANGEROUS = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff\U000e0000-\U000e007f]"
)
_MOST_PROBLEMS = 5


class MisuseError(Exception):
    """The words on the command line make no sense together, though each is well formed. Exit code 2."""


def clean(value: object) -> str:
    """Return a text that is safe to print on one line of a terminal: what could drive it is escaped."""
    return _DANGEROUS.sub(_escaped, str(value))


def _escaped(match: re.Match[str]) -> str:
    if match[0] in "\t\n":
        return " "
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


# ---------------------------------------------------------------- data, on stdout


def report(document: Document, show: Callable[[Any], None], *, as_json: bool) -> None:
    """Print a document: as JSON, or the way ``show`` prints it for people."""
    if as_json:
        print_json(document)
    else:
        show(document)


def print_json(document: Document) -> None:
    """Print a JSON document. It holds no character that a terminal obeys, and parses to what it was."""
    plain = (sys.stdout.encoding or "ascii").lower().replace("-", "") != "utf8"
    text = json.dumps(document, indent=2, ensure_ascii=plain, allow_nan=False)
    print(re.sub(rf"(?!\n){_DANGEROUS.pattern}", _json_escaped, text))


def _json_escaped(match: re.Match[str]) -> str:
    units = match[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))


def _console() -> Console:
    """Return a console on stdout that keeps whole lines when nobody looks: then a program reads them."""
    from rich.console import Console

    wide = None if sys.stdout.isatty() else 1_000_000
    return Console(file=sys.stdout, width=wide, markup=False, emoji=False, highlight=False)


def line(text: str = "", *, style: str = "") -> None:
    """Print a line."""
    from rich.text import Text

    _console().print(Text(clean(text), style=style), soft_wrap=True)


def heading(text: str) -> None:
    """Print a heading with a blank line before it."""
    line()
    line(text, style="bold")


def facts(rows: Iterable[tuple[str, object]]) -> None:
    """Print names and values, a pair a line. A value of None or of no text is left out."""
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in rows:
        if value is not None and value != "":
            grid.add_row(Text(name), Text(clean(value)))
    _print(grid)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table. A column whose name begins with ``>`` is right-aligned."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in columns:
        right = name.startswith(">")
        shown.add_column(Text(name.removeprefix(">")), justify="right" if right else "left", overflow="fold")
    for row in rows:
        shown.add_row(*(Text("" if cell is None else clean(cell)) for cell in row))
    _print(shown)


def _print(shown: object) -> None:
    """Print what rich lays out, without the blanks that it pads lines with."""
    console = _console()
    with console.capture() as capture:
        console.print(shown)
    sys.stdout.write("".join(f"{text.rstrip()}\n" for text in capture.get().splitlines()))


def amount(count: int, noun: str) -> str:
    """Return ``1 episode`` or ``2 episodes``."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def megabytes(size: float) -> str:
    """Return a number of bytes for people: ``1.2 MB``, powers of 1000."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError("the last unit takes any size")


def duration(seconds: float | None) -> str:
    """Return a duration for people: ``4.2 s``, ``3 min 20 s``, ``2 h 05 min``."""
    if seconds is None:
        return "unknown"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60:,} h {minutes % 60:02d} min"


# ---------------------------------------------------------------- talk, on stderr


def say(text: str) -> None:
    """Tell a person something that is no part of the data."""
    print(clean(text), file=sys.stderr)


def tell_error(error: Exception, *, as_json: bool) -> None:
    """Tell what went wrong in one line, then what to do about it; with ``--json`` on stdout too."""
    document = error_document(error)
    say(f"teleopen: error: {_in_one_line(error)}")
    for step in document["error"]["next"]:
        say(f"  next: {step}")
    if as_json:
        print_json(document)


def error_document(error: Exception) -> dict[str, Any]:
    """Return the JSON document of an error. All of its members are always there."""
    kind = type(error).__name__.removesuffix("Error")
    problems = error.problems if isinstance(error, SchemaError) else ()
    return {
        "error": {
            "kind": re.sub(r"(?<!^)(?=[A-Z])", "-", kind).lower(),
            "message": str(error),
            "path": getattr(error, "path", None),
            "where": getattr(error, "where", None),
            "problems": [{"where": p.where, "message": p.message, "kind": p.kind} for p in problems],
            "codes": list(map(str, getattr(error, "codes", ()))),
            "next": next_steps(error),
        }
    }


def _in_one_line(error: Exception) -> str:
    if not isinstance(error, SchemaError) or len(error.problems) <= _MOST_PROBLEMS:
        return str(error)
    told = "; ".join(map(str, error.problems[:_MOST_PROBLEMS]))
    return f"{told}; and {len(error.problems) - _MOST_PROBLEMS} more, which --json lists"


def next_steps(error: Exception) -> list[str]:
    """Return what can be done: the notes that were put on the error on its way, or what its kind tells."""
    notes = list(getattr(error, "__notes__", ()))
    if notes or not isinstance(error, TeleopenError):
        return notes
    if isinstance(error, UnknownFormatError):
        return ["`teleopen formats` lists what can be read; --format says which it is"]
    if isinstance(error, MissingExtraError):
        return ["`teleopen doctor` lists what is installed"]
    if isinstance(error, DamageError):
        return ["`teleopen verify STORE` names every damaged file"]
    return []
