"""Under which terms a mixture of episodes may be passed on, and whom to name for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ...schemas import Rights, RightsError, SchemaError
from ...schemas.licences import alternatives, duties, outbound, preference
from ..sync.notice import notice
from ..sync.public_rights import public_rights
from ..sync.tree import PublicEpisode
from .shelf import Place, Shelf

_FORBIDDING = {"ND", "AGREEMENT", "USE-LIMITED", "NC"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What the rights records of a dataset's episodes say together. No advice on the law.

    Attributes
    ----------
    licences
        Episodes by the SPDX expression that their records state.
    outbound
        The licence that an adapted merge of all of them passes on; empty if there is none.
    duties
        What any of them asks for, such as ``BY`` and ``SA:CC-BY-SA-4.0``.
    problem
        Why there is no such licence.
    notice
        A block for each work: what to ship with a model, so that those who want to be named are.
    """

    licences: Mapping[str, int]
    outbound: str
    duties: tuple[str, ...]
    problem: str
    notice: str


def terms_of(shelf: Shelf, places: Iterable[Place]) -> Terms:
    """Return the terms of some episodes, from the rights records in the logs of their stores."""
    records: dict[int, Mapping[str, Any]] = {}
    counts: Counter[str] = Counter()
    works = []
    for place in places:
        state = shelf.stores[place.store].state
        record = state.rights[place.id]
        licence = record.get("licence")
        stated = str((licence if isinstance(licence, Mapping) else {}).get("expression", "NOASSERTION"))
        counts[stated] += 1
        if id(record) in records:
            continue
        records[id(record)] = record
        chosen = _chosen(stated)
        works.append(
            PublicEpisode(
                id=place.id,
                segment="",
                content="",
                licence=chosen or stated,
                tier=str(record.get("tier", "")),
                record="",
                rights=_to_tell(record),
            )
        )
    told = notice(works).decode() if works else ""
    try:
        parts = [id for stated in counts for id in (_chosen(stated) or stated).split(" AND ")]
        found = outbound(parts)
    except RightsError as error:
        return Terms(licences=counts, outbound="", duties=(), problem=str(error), notice=told)
    return Terms(
        licences=counts,
        outbound=found.expression,
        duties=tuple(sorted(found.duties)),
        problem="",
        notice=told,
    )


def _to_tell(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what of a record may be passed on: nobody is named who did not ask for it."""
    try:
        return {"licence": {}, **public_rights(Rights.from_document(record))}
    except SchemaError:
        return {"licence": {}}


def _chosen(expression: str) -> str:
    """Return the alternative of an expression that forbids least; empty if it cannot be read."""
    found = alternatives(expression)
    best = min(found, key=lambda one: (len(duties(one) & _FORBIDDING), preference(one)), default=None)
    return " AND ".join(sorted(best)) if best else ""
