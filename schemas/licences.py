"""Licences: what each asks for, SPDX expressions of them, and what may be merged with what.

``licences.json`` is the only thing that grants anything. A licence that has no row there, an expression
that cannot be read and a licence with an exception (``WITH``) grant nothing.

Sources: the ids and the grammar are those of SPDX 2.3, annex D; ``open_definition`` is the list of
https://opendefinition.org/licenses/ ; ``hub_id`` is the list of
https://huggingface.co/docs/hub/repositories-licenses . This is a table of facts and not legal advice.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from itertools import product
from types import MappingProxyType
from typing import Literal

from .errors import RightsError

MAX_EXPRESSION = 500
"""Most characters of an expression. Real ones have less than a hundred."""
_MAX_ALTERNATIVES = 64  # (a OR b) AND (c OR d) AND ... doubles with each bracket
_MAX_DEPTH = 16
_TOKEN = re.compile(r"[()]|[A-Za-z0-9.-]+")
_REFERENCE = re.compile(r"LicenseRef-[A-Za-z0-9.-]+")
_REFUSING = frozenset({"ND", "AGREEMENT", "USE-LIMITED"})

Node = str | tuple[Literal["AND", "OR"], tuple["Node", ...]]
Alternative = frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Licence:
    """A row of the table.

    Attributes
    ----------
    id, name, url
        SPDX id, full name, and where its text is.
    family
        ``public-domain``, ``attribution``, ``share-alike``, ``permissive-data``, ``software``,
        ``model-and-data``, ``use-limited``, ``non-commercial``, ``no-derivatives``.
    open_definition
        ``recommended``, ``conformant``, ``not-listed`` or ``non-conformant``.
    grant
        ``open``, ``open-if-stated-by-holder`` or ``closed``: the most that any policy can make of it.
    duties
        ``BY`` name the creators, ``NOTICE`` pass on notices and the licence, ``CHANGES`` say what was
        modified, ``SA:<id>`` pass on under that licence, ``NC``, ``ND``, ``USE-LIMITED``.
    hub_id
        The Hugging Face Hub's word for it; ``other`` where it has none.
    notice
        A sentence that the licence asks to be shown, with ``{title}`` of the work; may be empty.
    note
        What a person should know; may be empty.
    """

    id: str
    name: str
    url: str
    family: str
    open_definition: Literal["recommended", "conformant", "not-listed", "non-conformant"]
    grant: Literal["open", "open-if-stated-by-holder", "closed"]
    duties: frozenset[str]
    hub_id: str
    notice: str
    note: str


_TABLE = json.loads(files(__package__).joinpath("licences.json").read_text(encoding="utf-8"))
LICENCES: Mapping[str, Licence] = MappingProxyType(
    {row["id"]: Licence(**{**row, "duties": frozenset(row["duties"])}) for row in _TABLE["licences"]}
)
"""The table, by SPDX id."""
_BY_LOWER = {id.lower(): id for id in LICENCES}
_NO_LICENCE = frozenset(word.lower() for word in _TABLE["names_no_licence"])


def names_no_licence(expression: str) -> bool:
    """Tell whether this is a way of saying "none", "unknown" or "some licence of a family"."""
    return expression.strip().lower() in _NO_LICENCE


def is_reference(id: str) -> bool:
    """Tell whether an id stands for a text of its own, ``LicenseRef-<name>``, and is in no list."""
    return bool(_REFERENCE.fullmatch(id))


def spdx_of_hub_id(word: str) -> str:
    """Return the SPDX id of a Hub card's licence word; ``NOASSERTION`` for families and ``other``."""
    found = (row.id for row in LICENCES.values() if row.hub_id == word.lower())
    return "NOASSERTION" if names_no_licence(word) else next(found, "NOASSERTION")


def hub_id(expression: str) -> str:
    """Return what a Hub card's ``license`` is to say of an expression: ``other`` unless it is one licence."""
    row = LICENCES.get(canonical_expression(expression))
    return row.hub_id if row else "other"


def canonical_expression(expression: str) -> str:
    """Return an expression with ids in their true spelling, operands sorted, brackets as needed.

    What cannot be read is returned without the white space around it, for people to see.

    >>> canonical_expression("mit or (CC0-1.0)")
    'mit or (CC0-1.0)'
    >>> canonical_expression("mit OR (cc0-1.0)")
    'CC0-1.0 OR MIT'
    """
    node = _parse(expression)
    return expression.strip() if node is None else _text(node)


def alternatives(expression: str) -> tuple[Alternative, ...]:
    """Return the sets of licences of which one must be kept whole: the disjunctive normal form.

    Empty where the expression cannot be read.
    """
    node = _parse(expression)
    return () if node is None else tuple(dict.fromkeys(_alternatives(node)))


def both(one: str, other: str) -> str:
    """Return the expression that asks for what two ask for; ``NOASSERTION`` where it cannot be told."""
    if one == other:
        return one
    nodes = _parse(one), _parse(other)
    if nodes[0] is None or nodes[1] is None:
        return "NOASSERTION"
    joined = _text(_node("AND", [nodes[0], nodes[1]]))
    return "NOASSERTION" if _parse(joined) is None else joined


def preference(alternative: Alternative) -> tuple[int, int, tuple[str, ...]]:
    """Return the key by which alternatives are chosen: fewest share-alike, then fewest terms."""
    share_alike = sum(duty.startswith("SA:") for duty in duties(alternative))
    return share_alike, len(alternative), tuple(sorted(alternative))


def duties(licences: Iterable[str]) -> frozenset[str]:
    """Return what all of these licences ask for together; one without a row counts as an agreement."""
    rows = (LICENCES.get(id) for id in licences)
    return frozenset[str]().union(*(row.duties if row else {"AGREEMENT"} for row in rows))


@dataclass(frozen=True, slots=True)
class Outbound:
    """What a work made of others passes on.

    Attributes
    ----------
    expression
        The licences that hold for the whole.
    duties
        Everything that any of its parts asks for: merging never sheds a duty.
    """

    expression: str
    duties: frozenset[str]


def outbound(licences: Iterable[str]) -> Outbound:
    """Return what an adapted merge of works under these licences passes on.

    Raises
    ------
    RightsError
        Where no licence can hold for the whole: derivatives are forbidden, two licences each want the
        whole for themselves, or a non-commercial part would go out under a licence that allows commerce.
    """
    parts = sorted(set(licences))
    if not parts:
        raise RightsError("nothing to merge")
    for id in parts:
        if refusing := sorted(duties([id]) & _REFUSING):
            raise RightsError(f"{id} does not allow a merge: {', '.join(refusing)}")
    asked = duties(parts)
    owners = sorted(duty.removeprefix("SA:") for duty in asked if duty.startswith("SA:"))
    if len(owners) > 1:
        raise RightsError(f"{' and '.join(owners)} each ask for the whole; publish a collection instead")
    if owners and "NC" in asked - LICENCES[owners[0]].duties:
        raise RightsError(f"a non-commercial part cannot go out under {owners[0]}")
    return Outbound(owners[0] if owners else " AND ".join(parts), asked)


# --- reading expressions -------------------------------------------------------------------------------


def _parse(expression: str) -> Node | None:
    """Return the tree of an expression, or None where it is no expression that is trusted here."""
    if len(expression) > MAX_EXPRESSION or re.sub(_TOKEN, "", expression).strip(" "):
        return None
    tokens = _TOKEN.findall(expression)
    if _nesting(tokens) > _MAX_DEPTH:
        return None
    rest = iter([*tokens, ""])
    try:
        node, last = _operands("OR", next(rest), rest)
    except ValueError:
        return None
    sane = last == "" and _count(node) <= _MAX_ALTERNATIVES and len(_text(node)) <= MAX_EXPRESSION
    return node if sane else None


def _nesting(tokens: list[str]) -> int:
    depth = deepest = 0
    for token in tokens:
        depth += (token == "(") - (token == ")")
        deepest = max(deepest, depth)
    return deepest


def _operands(operator: Literal["AND", "OR"], token: str, rest: Iterator[str]) -> tuple[Node, str]:
    """Read ``x OPERATOR y ...`` from ``token`` on; return it and the token after it. AND binds tighter."""
    parts: list[Node] = []
    while True:
        node, token = _operands("AND", token, rest) if operator == "OR" else _operand(token, rest)
        parts.append(node)
        if token != operator:
            return _node(operator, parts), token
        token = next(rest)


def _operand(token: str, rest: Iterator[str]) -> tuple[Node, str]:
    if token == "(":
        node, token = _operands("OR", next(rest), rest)
        if token != ")":
            raise ValueError("a bracket stays open")
        return node, next(rest)
    if token.upper() in {"", ")", "AND", "OR", "WITH"} or names_no_licence(token):
        raise ValueError("a licence is missing")
    return _BY_LOWER.get(token.lower(), token), next(rest)


def _node(operator: Literal["AND", "OR"], parts: list[Node]) -> Node:
    """Return the node in canonical form: flat, sorted, each operand once, no operator over one operand."""
    flat: set[Node] = set()
    for part in parts:
        flat.update(part[1] if isinstance(part, tuple) and part[0] == operator else [part])
    return flat.pop() if len(flat) == 1 else (operator, tuple(sorted(flat, key=_text)))


def _text(node: Node) -> str:
    if isinstance(node, str):
        return node
    parts = (f"({_text(n)})" if isinstance(n, tuple) and node[0] == "AND" else _text(n) for n in node[1])
    return f" {node[0]} ".join(parts)


def _count(node: Node) -> int:
    """Count alternatives before equal ones are merged: a bound that can only grow as terms are added."""
    if isinstance(node, str):
        return 1
    total = 1 if node[0] == "AND" else 0
    for part in node[1]:
        total = total * _count(part) if node[0] == "AND" else total + _count(part)
    return total


def _alternatives(node: Node) -> list[Alternative]:
    if isinstance(node, str):
        return [frozenset({node})]
    lists = [_alternatives(part) for part in node[1]]
    if node[0] == "OR":
        return [alternative for one in lists for alternative in one]
    return [frozenset().union(*choice) for choice in product(*lists)]
