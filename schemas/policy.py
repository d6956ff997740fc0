"""What an operator of a hub asks for before anything is published."""

from __future__ import annotations

from dataclasses import dataclass, fields

from .licences import LICENCES, Alternative, alternatives, is_reference, preference
from .rights import Grant
from .shapes import digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The conditions of a hub. It can only narrow what ``licences.json`` grants, save for `references`.

    Attributes
    ----------
    id
        Name and version; recorded with each decision, together with `hash`.
    licences
        SPDX ids that may open.
    references
        ``(LicenseRef id, SHA-256 of its text)`` of licences without an SPDX id that the operator has
        read. The id alone says nothing: anybody can write another text under it.
    gates
        Outcomes of the episode checks that may open.
    signature
        A valid signature is asked for, besides the sign-off.
    consent_form
        The hash of the form that people signed is asked for.
    human_check
        A person must have looked at the result of de-identification.
    """

    id: str
    licences: frozenset[str]
    references: frozenset[tuple[str, str]] = frozenset()
    gates: frozenset[str] = frozenset({"pass", "risk", "not-run"})
    signature: bool = False
    consent_form: bool = False
    human_check: bool = False

    @property
    def hash(self) -> str:
        """SHA-256 of all that decides: the conditions, and the rows of the table that they admit."""
        document = {f.name: getattr(self, f.name) for f in fields(self)}
        for name in ("licences", "references", "gates"):
            document[name] = sorted(document[name])
        document["table"] = [[id, LICENCES[id].grant] for id in sorted(self.licences & LICENCES.keys())]
        return digest(document)

    def admits(self, id: str, grant: Grant) -> bool:
        """Tell whether one licence of an expression may open, as it is stated."""
        if is_reference(id):
            return (id, grant.text_sha256) in self.references
        row = LICENCES.get(id)
        if row is None or id not in self.licences:
            return False
        return row.grant == "open" or (
            row.grant == "open-if-stated-by-holder" and grant.state == "stated-by-holder"
        )

    def choose(self, expression: str, grant: Grant) -> Alternative | None:
        """Return the alternative of an expression that is taken; None where none may open."""
        open_ones = [a for a in alternatives(expression) if all(self.admits(id, grant) for id in a)]
        return min(open_ones, key=preference, default=None)


OPEN_V1 = Policy(
    id="open-v1", licences=frozenset(row.id for row in LICENCES.values() if row.grant != "closed")
)
"""The default: all that ``licences.json`` grants, stated and signed off by someone."""

STRICT = Policy(
    id="strict",
    licences=frozenset(
        row.id
        for row in LICENCES.values()
        if row.grant != "closed" and row.open_definition in {"recommended", "conformant"}
    ),
    gates=frozenset({"pass", "risk"}),
    signature=True,
    consent_form=True,
    human_check=True,
)
"""Licences of the Open Definition only, and evidence for everything: signatures, forms, checks."""

POLICIES = {policy.id: policy for policy in (OPEN_V1, STRICT)}
"""The policies that ship, by id."""
