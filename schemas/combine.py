"""How rights records combine: what holds for a part, and what holds for several together.

The strictest always wins. `join` is the least record that is as strict as its arguments, whatever their
order or grouping (a semilattice), so that it does not matter who merges what first. `tighten` applies the
statement of a part, which must not loosen what holds for the whole.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import reduce
from typing import Any

from .errors import Problem, SchemaError
from .records import Record, Sub, members
from .rights import RIGHTS_VERSION, Deid, People, Rights, rights_problems

OWN = ("source", "quality", "signature")
"""Members that describe the very item: a part states its own without asking the whole."""


def join(first: Rights, *others: Rights) -> Rights:
    """Return the record of several items together: whatever closes one of them closes all.

    Raises
    ------
    SchemaError
        Where a list grows beyond what a record may hold.
    """
    return reduce(_join, others, first)


def tighten(whole: Rights, part: object) -> Rights:
    """Return what holds for a part, given what the part's document states; the rest is inherited.

    A list that the part states takes the place of the inherited one. A signature is never inherited,
    since the record that it signed is another one.

    Raises
    ------
    SchemaError
        Where the document is wrong, or states anything looser than what holds for the whole.
    """
    stated: Any = {"rights_version": RIGHTS_VERSION, **part} if type(part) is dict else part
    if problems := rights_problems(stated):
        raise SchemaError(problems)
    inherited = {key: value for key, value in whole.to_document().items() if key != "signature"}
    asked = Rights.from_document(_overlay(inherited, stated))
    base = dataclasses.replace(whole, **{key: getattr(asked, key) for key in OWN})
    bound = join(base, asked)
    if bound != asked:
        raise SchemaError(list(_looser(asked, bound)))
    return asked


def _join(one: Rights, other: Rights) -> Rights:
    joined = {
        key: told.shape.join(getattr(one, key), getattr(other, key)) for key, told in members(Rights).items()
    }
    return Rights(**{**joined, "people": _people(one, other), "deid": _deid(one, other)})


def _people(one: Rights, other: Rights) -> People:
    """Join consent among those who need one: a recording without people neither gives nor withholds it."""
    both = (one.people, other.people)
    asked = [record.people for record in (one, other) if _needs_consent(record)] or both
    joined: People = reduce(Sub(People).join, asked)
    if any(people.minors == "present" for people in both):
        joined = dataclasses.replace(joined, minors="present")
    return joined


def _needs_consent(record: Rights) -> bool:
    return record.people.present != "none" or record.pii.status not in {"none", "removed"}


def _deid(one: Rights, other: Rights) -> Deid:
    """Join checks among those who need one: a recording without personal data has nothing to check."""
    asked = [record.deid for record in (one, other) if record.pii.status != "none"] or [one.deid, other.deid]
    joined: Deid = reduce(Sub(Deid).join, asked)
    steps = members(Deid)["steps"].shape.join(one.deid.steps, other.deid.steps)
    return dataclasses.replace(joined, steps=steps)


def _overlay(whole: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    merged = dict(whole)
    for key, value in part.items():
        below = merged.get(key)
        if type(below) is dict and type(value) is dict:
            merged[key] = _overlay(below, value)
        else:
            merged[key] = value
    return merged


def _looser(asked: Record, bound: Record, where: str = "") -> Iterator[Problem]:
    """Yield each member that would have to be stricter."""
    for key in members(type(asked)):
        have, need = getattr(asked, key), getattr(bound, key)
        place = f"{where}.{key}" if where else key
        if isinstance(have, Record) and isinstance(need, Record):
            yield from _looser(have, need, place)
        elif have != need:
            yield Problem(place, "is looser than what holds for the whole", "conflict")
