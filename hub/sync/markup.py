"""Text of strangers in YAML, Markdown and code: it says what it says, and does nothing."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

Yaml = str | bool | int | Sequence["Yaml"] | Mapping[str, "Yaml"]


class Word(str):
    """A word of ours or of the Hub's, such as ``n<1K``, that YAML takes as it is."""

    __slots__ = ()


MOST = 500
"""Characters of one text on a card; the whole of it is in the index."""

_PLAIN_KEY = re.compile(r"[a-z_]+")
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories of what cannot be seen, or turns the direction of what can."""
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_MARKS = re.compile(
    r"""
    [\\`*_\[\]|~$@]                       # of code, emphasis, links, cells, formulas, mentions
    | :(?=/) | (?<=www)[.]                # of links that GitHub's Markdown makes of bare text
    | (?:^ [-+=>#] | (?<=^\d) [.)] | (?<=^\d\d) [.)] | (?<=^\d\d\d) [.)])      # of lists and headings
    | [#](?=\s|[#])
    """,
    re.VERBOSE | re.IGNORECASE,
)


def yaml_block(members: Mapping[str, Yaml], indent: int = 0) -> str:
    """Return YAML lines of a mapping; texts but for a `Word` are double-quoted (YAML 1.2.2, 7.3.1)."""
    pad = " " * indent
    lines = []
    for key, value in members.items():
        name = key if _PLAIN_KEY.fullmatch(key) else quoted(key)
        if isinstance(value, Mapping) and value:
            lines.append(f"{pad}{name}:\n{yaml_block(value, indent + 2)}")
        elif isinstance(value, Sequence) and not isinstance(value, str) and value:
            lines.append(f"{pad}{name}:\n{''.join(_item(one, pad) for one in value)}")
        else:
            lines.append(f"{pad}{name}: {_scalar(value)}\n")
    return "".join(lines)


def _item(value: Yaml, pad: str) -> str:
    if isinstance(value, Mapping) and value:
        indent = len(pad) + 2
        return f"{pad}- {yaml_block(value, indent)[indent:]}"
    return f"{pad}- {_scalar(value)}\n"


def _scalar(value: Yaml) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return value if isinstance(value, Word) else quoted(value)
    return "{}" if isinstance(value, Mapping) else "[]"


def quoted(text: str) -> str:
    """Return a double-quoted scalar of YAML that reads as this text, and is no tag to HTML that it gets into.

    Lone surrogates become U+FFFD.
    """
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(char: str) -> str:
    if char in '"\\':
        return f"\\{char}"
    code = ord(char)
    if 0xD800 <= code <= 0xDFFF:
        return "\\uFFFD"
    if char == " " or (char not in "<>" and char.isprintable() and _is_visible(char)):
        return char
    return f"\\x{code:02X}" if code < 0x100 else f"\\u{code:04X}" if code < 0x10000 else f"\\U{code:08X}"


def shown(text: str, most: int = MOST) -> str:
    """Return a text as Markdown that shows it in one line, in a table's cell too: no mark-up, no HTML.

    What could be a mark stands behind a backslash (CommonMark 0.31, section 2.4) or as an entity. What cannot
    be seen is left out, and white space becomes one blank.
    """
    seen = " ".join(_visible(text).split())
    cut = seen if len(seen) <= most else f"{seen[: most - 1]}…"
    return "".join(_ENTITIES.get(c, c) for c in _MARKS.sub(r"\\\g<0>", cut))


def code(text: str) -> str:
    """Return a text as a span of code: in Markdown no mark works within one but the backtick and the pipe."""
    seen = " ".join(_visible(text).split())
    return "`" + re.sub(r"[`|<>&]", "_", seen)[:MOST] + "`" if seen else ""


def _visible(text: str) -> str:
    return "".join(" " if c.isspace() else c for c in text if c.isspace() or _is_visible(c))


def _is_visible(char: str) -> bool:
    return unicodedata.category(char) not in _INVISIBLE


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of Markdown from cells that are Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
