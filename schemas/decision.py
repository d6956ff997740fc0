"""Whether a recording may be published, and if not, every reason why.

A pure and total function: it reads no clock, no file and no setting, and whatever it is given, it returns.
Open is the empty list of reasons. Anything absent, unknown, malformed or contradictory is a reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from .errors import Problem
from .licences import LICENCES, Alternative, alternatives, duties, is_reference, names_no_licence
from .policy import OPEN_V1, Policy
from .records import members
from .rights import RIGHTS_VERSION, Rights, rights_problems


class Code(StrEnum):
    """Why a recording stays closed. The names are stable; `explanation` and `remedy` are for people."""

    R00_MALFORMED = "R00_MALFORMED"
    R01_LICENCE_MISSING = "R01_LICENCE_MISSING"
    R02_LICENCE_NOT_OPEN = "R02_LICENCE_NOT_OPEN"
    R03_TIER_NOT_OPEN = "R03_TIER_NOT_OPEN"
    R04_BASIS_UNKNOWN = "R04_BASIS_UNKNOWN"
    R05_CONSENT = "R05_CONSENT"
    R06_EMBARGO = "R06_EMBARGO"
    R07_PII = "R07_PII"
    R08_PURPOSE_LIMIT = "R08_PURPOSE_LIMIT"
    R09_WITHDRAWN = "R09_WITHDRAWN"
    R10_UNSIGNED = "R10_UNSIGNED"
    R11_SOURCE_UNPINNED = "R11_SOURCE_UNPINNED"
    R12_PARENT_CLOSED = "R12_PARENT_CLOSED"
    R13_CONFLICT = "R13_CONFLICT"
    R14_JURISDICTION = "R14_JURISDICTION"
    R15_QUALITY = "R15_QUALITY"

    @property
    def explanation(self) -> str:
        """What this reason means, in a sentence."""
        return _RULES[self].explanation

    @property
    def remedy(self) -> str:
        """What would change it, in a sentence."""
        return _RULES[self].remedy


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason, with what in this very record gives rise to it."""

    code: Code
    detail: str

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """All that a decision depends on."""

    rights: Rights
    problems: list[Problem]
    now: datetime
    policy: Policy
    parents_open: bool
    signature_valid: bool
    chosen: Alternative | None


def reasons(
    record: object,
    *,
    now: datetime,
    policy: Policy = OPEN_V1,
    parents_open: bool = True,
    signature_valid: bool = False,
) -> tuple[Reason, ...]:
    """Return every reason for which a recording stays closed; none: it is open.

    Parameters
    ----------
    record
        A `Rights` or the document of one. Anything else is malformed, and closed.
    now
        The time to decide for, with its time zone. Without one nothing opens.
    policy
        What the operator asks for.
    parents_open
        Whether all records that this one derives from are open.
    signature_valid
        Whether the caller has verified the record's signature with a key that the operator trusts.
        There is no cryptography here; unless the caller says so, no signature counts.
    """
    try:
        problems = [] if type(record) is Rights else rights_problems(record)
        rights = record if type(record) is Rights else _readable(record, problems)
        case = _Case(
            rights=rights,
            problems=problems,
            now=now,
            policy=policy,
            parents_open=parents_open,
            signature_valid=signature_valid,
            chosen=policy.choose(rights.licence.expression, rights.licence),
        )
        found = ((code, "; ".join(rule.details(case))) for code, rule in _RULES.items())
        return tuple(Reason(code, detail) for code, detail in found if detail)
    except Exception:  # noqa: BLE001 - whatever goes wrong here must close, never open
        return (Reason(Code.R00_MALFORMED, "the decision could not be made"),)


def published_as(record: Rights, policy: Policy = OPEN_V1) -> str | None:
    """Return the licence that an open recording goes out under; None where the licence is not open.

    Of several alternatives it is the one with the fewest share-alike licences, then the fewest terms.
    A repository holds recordings of one such class only: a card has room for one licence, and
    share-alike material must not lie beside anything that it would claim.
    """
    chosen = policy.choose(record.licence.expression, record.licence)
    return None if chosen is None else " AND ".join(sorted(chosen))


def _readable(document: object, problems: list[Problem]) -> Rights:
    """Return what can be read of a document: each member that is sound, all others not stated."""
    if not problems:
        return Rights.from_document(document)
    if type(document) is not dict or any(type(key) is not str for key in document):
        return Rights()
    sound = {"rights_version": RIGHTS_VERSION}
    for key in members(Rights):
        if key in document and not rights_problems({**sound, key: document[key]}):
            sound[key] = document[key]
    return Rights.from_document(sound)


# --- one rule per code: yields what is wrong ------------------------------------------------------------


def _malformed(case: _Case) -> Iterator[str]:
    problems = [problem for problem in case.problems if problem.kind != "conflict"]
    yield from map(str, problems[:5])
    if problems[5:]:
        yield f"and {len(problems) - 5} more problems"


def _licence_missing(case: _Case) -> Iterator[str]:
    licence = case.rights.licence
    if names_no_licence(licence.expression):
        yield f"licence.expression is {licence.expression!r}, which names no licence"
    if licence.state in {"inferred", "not-stated"}:
        yield f"licence.state is {licence.state!r}"


def _licence_not_open(case: _Case) -> Iterator[str]:
    licence = case.rights.licence
    if case.chosen is not None or names_no_licence(licence.expression):
        return
    known = alternatives(licence.expression)
    if not known:
        yield f"licence.expression {licence.expression!r} is no SPDX expression that can be read"
    for id in sorted({id for one in known for id in one if not case.policy.admits(id, licence)}):
        yield f"{id} {_why_not(id, case.policy)}"


def _why_not(id: str, policy: Policy) -> str:
    row = LICENCES.get(id)
    if is_reference(id):
        return f"with this text_sha256 is not admitted by policy {policy.id}"
    if row is None:
        return "is not in the table of licences"
    if id in policy.licences and row.grant == "open-if-stated-by-holder":
        return "opens data only if its holder states it"
    return f"({row.family}) is not admitted by policy {policy.id}"


def _tier(case: _Case) -> Iterator[str]:
    if case.rights.tier != "open":
        yield f"tier is {case.rights.tier!r}"


def _basis(case: _Case) -> Iterator[str]:
    acquisition = case.rights.acquisition
    if acquisition.channel == "unknown":
        yield "acquisition.channel is not stated"
    if acquisition.basis == "unknown":
        yield "acquisition.basis is not stated"
    if not case.rights.holder:
        yield "no holder is named"
    for agreement in acquisition.agreement:
        if agreement.expires is not None and not (_aware(case.now) and case.now < agreement.expires):
            yield f"agreement {agreement.id!r} has expired"


def _consent(case: _Case) -> Iterator[str]:
    people = case.rights.people
    if people.minors == "present":
        yield "people.minors is 'present'"
    if people.present == "none":
        return
    if people.present == "unknown":
        yield "people.present is not stated"
    if people.consent != "recorded-publication":
        yield f"people.consent is {people.consent!r}"
    if people.minors == "unknown":
        yield "people.minors is not stated"
    if case.policy.consent_form and not people.form:
        yield "people.form names no signed form"


def _embargo(case: _Case) -> Iterator[str]:
    until = case.rights.embargo_until
    if not _aware(case.now):
        yield "the time to decide for has no time zone, so no embargo is known to have ended"
    elif until is not None and case.now < until:
        yield f"embargo_until is {until.isoformat()}"


def _aware(now: datetime) -> bool:
    return isinstance(now, datetime) and now.utcoffset() is not None


def _pii(case: _Case) -> Iterator[str]:
    pii, checks = case.rights.pii, case.rights.deid.verification
    if pii.status in {"present", "unknown"}:
        yield f"pii.status is {pii.status!r}"
    if pii.status == "consented" and case.rights.people.consent != "recorded-publication":
        yield "pii.status is 'consented' without a recorded consent to publication"
    if pii.status != "removed":
        return
    if not checks:
        yield "pii.status is 'removed' without a verification"
    for check in checks:
        if check.residual_detections != 0 or not check.sample_frames:
            yield f"the verification by {check.by!r} does not say that nothing was left in what was looked at"
        if case.policy.human_check and not check.human_checked:
            yield f"the verification by {check.by!r} was not looked at by a person"


def _purpose(case: _Case) -> Iterator[str]:
    if case.rights.purpose.limits:
        yield f"purpose.limits has {', '.join(case.rights.purpose.limits)}"


def _withdrawn(case: _Case) -> Iterator[str]:
    if case.rights.withdrawal.state != "none":
        yield f"withdrawal.state is {case.rights.withdrawal.state!r}"


def _unsigned(case: _Case) -> Iterator[str]:
    if not case.rights.signoff:
        yield "nobody has signed off these rights"
    if case.policy.signature and case.rights.signature is None:
        yield f"policy {case.policy.id} asks for a signature"
    elif case.policy.signature and case.signature_valid is not True:
        yield "the signature was not verified with a trusted key"


def _source(case: _Case) -> Iterator[str]:
    if not case.rights.source:
        yield "no source is named"
    for source in case.rights.source:
        if source.sha256 is None:
            yield f"source {source.uri!r} has no sha256"


def _parents(case: _Case) -> Iterator[str]:
    if case.parents_open is not True:
        yield "a record that this one derives from is closed"


def _conflict(case: _Case) -> Iterator[str]:
    rights, licence = case.rights, case.rights.licence
    yield from (str(problem) for problem in case.problems if problem.kind == "conflict")
    for statement in licence.statements:
        # A mirror's card is often a tool's default; it does not count against the holder's own word.
        outweighed = statement.by == "distributor" and licence.state == "stated-by-holder"
        grants = statement.expression
        if grants is not None and not outweighed and case.policy.choose(grants, licence) is None:
            yield f"{statement.url} states {grants!r}, which is not open"
    if case.chosen is None:
        return
    if rights.purpose.limits:
        yield "purpose.limits adds terms to a licence that allows every purpose"
    if rights.tier == "gated" and rights.acquisition.basis == "licence":
        yield "tier is 'gated': the holder's open licence allows no further terms on its material"
    if "BY" in duties(case.chosen) and not (rights.attribution and all(map(_creditable, rights.attribution))):
        yield "the licence asks for attribution, and attribution does not name a title and its creators"


def _creditable(credit: object) -> bool:
    title, creators = getattr(credit, "title", None), getattr(credit, "creators", ())
    return bool(title and (creators or getattr(credit, "suppressed", False)))


def _jurisdiction(case: _Case) -> Iterator[str]:
    jurisdiction = case.rights.jurisdiction
    if not jurisdiction.collected_in:
        yield "jurisdiction.collected_in is not stated"
    if jurisdiction.export_block:
        yield f"export is blocked to {', '.join(jurisdiction.export_block)}, which nobody can ensure"


def _quality(case: _Case) -> Iterator[str]:
    if case.rights.quality.gate not in case.policy.gates:
        yield f"quality.gate is {case.rights.quality.gate!r}"


class _Rule(NamedTuple):
    details: Callable[[_Case], Iterator[str]]
    explanation: str
    remedy: str


_RULES: dict[Code, _Rule] = {
    Code.R00_MALFORMED: _Rule(
        _malformed,
        "The rights record cannot be read as one.",
        "Correct the members that are named; `teleopen rights check` lists all of them.",
    ),
    Code.R01_LICENCE_MISSING: _Rule(
        _licence_missing,
        "Nobody who may do so has stated a licence for the data.",
        "State an SPDX id in licence.expression and who says so in licence.state; the licence of the code "
        "that recorded the data is not the licence of the data.",
    ),
    Code.R02_LICENCE_NOT_OPEN: _Rule(
        _licence_not_open,
        "The licence does not let everyone use, change and pass on the data for any purpose.",
        "Only the holder can change this, by granting an open licence such as CC-BY-4.0 or CC0-1.0.",
    ),
    Code.R03_TIER_NOT_OPEN: _Rule(
        _tier, "The contributor does not want it published openly.", 'Set tier = "open", if that is the wish.'
    ),
    Code.R04_BASIS_UNKNOWN: _Rule(
        _basis,
        "It is not known by what right the contributor may publish this.",
        "State holder, acquisition.channel and acquisition.basis; renew an agreement that has expired.",
    ),
    Code.R05_CONSENT: _Rule(
        _consent,
        "People may be recognised who have not agreed to publication.",
        "State people.present; if there are any, obtain and record their consent to publication, which is "
        "more than consent to research. Recordings of minors are not published.",
    ),
    Code.R06_EMBARGO: _Rule(
        _embargo, "Its embargo has not ended.", "Wait until embargo_until; nothing else needs to be done."
    ),
    Code.R07_PII: _Rule(
        _pii,
        "Personal data is in it, or may be.",
        "State pii.status; remove personal data and record a verification that found nothing left.",
    ),
    Code.R08_PURPOSE_LIMIT: _Rule(
        _purpose,
        "It may not be used for every purpose, and an open repository cannot tell purposes apart.",
        "Only whoever set the limits can lift them; otherwise offer it in a gated repository.",
    ),
    Code.R09_WITHDRAWN: _Rule(
        _withdrawn,
        "It has been withdrawn, or someone has asked for that.",
        "If the request was mistaken or is taken back, record that by setting withdrawal.state to none.",
    ),
    Code.R10_UNSIGNED: _Rule(
        _unsigned,
        "Nobody stands up for what this record states.",
        "Add a signoff with name and time; where the policy asks for it, sign the record with a trusted key.",
    ),
    Code.R11_SOURCE_UNPINNED: _Rule(
        _source,
        "It is not pinned to the files it was made from, so the record could be about anything.",
        "Name every source file with its sha256; converting with teleopen does this.",
    ),
    Code.R12_PARENT_CLOSED: _Rule(
        _parents,
        "It is made from something that is closed.",
        "Open every parent first, or leave that part out.",
    ),
    Code.R13_CONFLICT: _Rule(
        _conflict,
        "Its statements contradict each other.",
        "Find out which statement is true and correct the other; if in doubt, ask the holder.",
    ),
    Code.R14_JURISDICTION: _Rule(
        _jurisdiction,
        "Where it was collected is not stated, or where it may go is restricted.",
        "State jurisdiction.collected_in; an export block has to be lifted by whoever set it.",
    ),
    Code.R15_QUALITY: _Rule(
        _quality,
        "It has not passed the checks of the recording itself.",
        "Repair or leave out what the quality report names, or run the checks.",
    ),
}
