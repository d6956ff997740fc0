"""What of a rights record leaves the house: enough for anyone to decide again, and nobody's name unasked.

The licence, how it is known, and how the work wants to be named leave as they are. People who are not among
those to be named, contracts, forms and notes do not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...schemas import Json, Rights, SchemaError, rights_problems
from .redact import Redactor, private_names

NOT_NAMED = "not named"
"""Stands for a person who did something that a record tells of, and who is not to be named."""

Document = dict[str, Any]


def names_to_remove(rights: Rights) -> tuple[str, ...]:
    """Return the names in a record that must not occur in anything that is published."""
    people = [holder.name for holder in rights.holder if holder.kind != "org"]
    people += [signoff.by for signoff in rights.signoff]
    people += [check.by for check in rights.deid.verification]
    people += [review.who for review in rights.review]
    people += [name for credit in rights.attribution if credit.suppressed for name in credit.creators]
    return private_names(people, _credited(rights))


def _credited(rights: Rights) -> set[str]:
    named = {name for credit in rights.attribution if not credit.suppressed for name in credit.creators}
    return named | {holder.name for holder in rights.holder if holder.kind == "org"}


def public_rights(rights: Rights) -> Document:
    """Return the document of a record as the public log tells it.

    Raises
    ------
    SchemaError
        If what is left is no record.
    """
    work = _Public(rights)
    document = rights.to_document()
    told = {name: rule(work, document[name]) for name, rule in RIGHTS.items() if name in document}
    public = {name: value for name, value in told.items() if value is not None}
    if problems := rights_problems(public):
        raise SchemaError(problems)
    return Rights.from_document(public).to_document()


def without_streams(public: Mapping[str, Json], withheld: frozenset[str]) -> Mapping[str, Json]:
    """Return a public record that neither names streams that stay nor tells what was done to them alone."""
    steps = public.get("deid", {}).get("steps", ())
    if not any(withheld.intersection(step.get("streams", ())) for step in steps):
        return public
    told = []
    for step in steps:
        streams = [name for name in step.get("streams", ()) if name not in withheld]
        if streams or not step.get("streams"):
            told.append({**step, "streams": streams} if streams else step)
    deid = {**public["deid"], "steps": told}
    return Rights.from_document({**public, "deid": deid}).to_document()


class _Public:
    """One record's pass."""

    def __init__(self, rights: Rights) -> None:
        self.credited = _credited(rights)
        self.redactor = Redactor(names_to_remove(rights))

    def text(self, value: Json) -> str | None:
        return None if value is None else self.redactor.text(value).strip() or None

    def person(self, name: str) -> str:
        return self.redactor.text(name) if name in self.credited else NOT_NAMED

    def link(self, value: str) -> str:
        return self.redactor.file_name(value)


def _keep(_: _Public, value: Json) -> Json:
    return value


def _licence(work: _Public, grant: Document) -> Document:
    kept = ("expression", "state", "text_sha256")
    told = {key: grant[key] for key in kept if key in grant}
    statements = [
        _without_none(
            {
                "url": work.redactor.page(statement["url"]),
                "revision": work.text(statement.get("revision")),
                "seen_at": statement.get("seen_at"),
                "text_sha256": statement.get("text_sha256"),
                "quoted": work.text(statement.get("quoted")),
                "expression": statement.get("expression"),
                "by": statement.get("by"),
            }
        )
        for statement in grant.get("statements", ())
    ]
    return {**told, "statements": statements} if statements else told


def _holders(work: _Public, holders: list[Document]) -> list[Document]:
    """Name organisations, and people who are also named as creators."""
    return [
        _without_none(
            {"name": work.redactor.text(h["name"]), "kind": h.get("kind"), "id": work.text(h.get("id"))}
        )
        if h["name"] in work.credited
        else _without_none({"name": NOT_NAMED, "kind": h.get("kind")})
        for h in holders
    ]


def _attribution(work: _Public, told: list[Document]) -> list[Document]:
    return [
        _without_none({"title": work.text(c.get("title")), "year": c.get("year"), "suppressed": True})
        if c.get("suppressed")
        else _without_none(
            {
                "creators": [work.redactor.text(name) for name in c.get("creators", ())],
                "title": work.text(c.get("title")),
                "year": c.get("year"),
                "cite": work.text(c.get("cite")),
            }
        )
        for c in told
    ]


def _acquisition(_: _Public, acquisition: Document) -> Document:
    """Tell channel and basis; of an agreement only when it ends, since it closes the record then."""
    told: Document = {key: acquisition[key] for key in ("channel", "basis") if key in acquisition}
    ends = [
        {"id": NOT_NAMED, "expires": a["expires"]} for a in acquisition.get("agreement", ()) if "expires" in a
    ]
    return {**told, "agreement": ends} if ends else told


def _people(_: _Public, people: Document) -> Document:
    told: Document = {key: people[key] for key in ("present", "consent", "minors") if key in people}
    forms = [{"sha256": form["sha256"]} for form in people.get("form", ())]
    return {**told, "form": forms} if forms else told


def _jurisdiction(work: _Public, told: Document) -> Document:
    return {**told, "law": [work.redactor.text(law) for law in told["law"]]} if "law" in told else told


def _deid(work: _Public, deid: Document) -> Document:
    kept = ("model_sha256", "streams", "frames_affected", "report_sha256")
    steps = [
        _without_none(
            {key: step[key] for key in kept if key in step}
            | {key: work.text(step.get(key)) for key in ("op", "tool", "version", "params")}
        )
        for step in deid.get("steps", ())
    ]
    counted = ("at", "residual_detections", "sample_frames", "human_checked")
    checks = [
        {key: check[key] for key in counted if key in check}
        | {"method": work.text(check["method"]), "by": work.person(check["by"])}
        for check in deid.get("verification", ())
    ]
    return {key: value for key, value in (("steps", steps), ("verification", checks)) if value}


def _sources(work: _Public, sources: list[Document]) -> list[Document]:
    return [
        _without_none(
            {
                "uri": work.link(source["uri"]),
                "sha256": source.get("sha256"),
                "bytes": source.get("bytes"),
                "media_type": work.text(source.get("media_type")),
                "role": work.text(source.get("role")),
            }
        )
        for source in sources
    ]


def _signoff(work: _Public, signoffs: list[Document]) -> list[Document]:
    return [
        _without_none({"by": work.person(s["by"]), "at": s["at"], "terms": work.text(s.get("terms"))})
        for s in signoffs
    ]


def _withdrawal(_: _Public, told: Document) -> Document:
    return {key: told[key] for key in ("state", "ground") if key in told}


def _gone(_: _Public, _value: Json) -> None:
    return None


def _without_none(document: Mapping[str, Json]) -> Document:
    return {key: value for key, value in document.items() if value is not None}


RIGHTS: dict[str, Any] = {
    "rights_version": _keep,
    "licence": _licence,
    "tier": _keep,
    "holder": _holders,
    "attribution": _attribution,
    "acquisition": _acquisition,
    "people": _people,
    "purpose": _keep,
    "embargo_until": _keep,
    "jurisdiction": _jurisdiction,
    "pii": _keep,
    "deid": _deid,
    "source": _sources,
    "derived_from": _keep,
    "quality": _keep,
    "signoff": _signoff,
    "signature": _gone,
    "withdrawal": _withdrawal,
    "review": _gone,
}
"""What is done to each member of a record. A test compares it with the record."""
