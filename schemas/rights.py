"""The rights record: what is stated about a recording, by whom, and with what evidence.

A record holds facts. Whether they suffice to publish is decided elsewhere (`teleopen.schemas.reasons`),
anew each time. Every member defaults to "not stated", and what is not stated stays closed.

A lab writes the same document in TOML; `TEMPLATE` is that file with a comment on each member.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from datetime import date, datetime
from importlib.resources import files
from typing import Any, ClassVar

from .errors import Problem, SchemaError
from .licences import MAX_EXPRESSION, both, canonical_expression
from .records import Excludes, Record, Sub, Whole, member
from .shapes import HEX64, Count, Day, Flag, Instant, ListOf, Maybe, Text, Words, canonical, digest

RIGHTS_VERSION = "1.0"
_TEXT = Maybe(Text())
_HASH = Maybe(Text(HEX64, "a SHA-256 in lower-case hexadecimal", 64))
_INSTANT = Maybe(Instant())
_COUNTRY = Text("[A-Z]{2}(-[A-Z0-9]{1,3})?", "an ISO 3166 code such as CN or US-CA", 6)
_CHANNELS = ("own-recording", "synthetic", "commissioned", "crowd", "purchased", "public-dataset", "unknown")
_BASES = ("holder", "public-domain", "employment", "contract", "consent", "licence", "unknown")
_LIMITS = (
    "non-commercial|research-only|no-redistribution|no-reidentification|no-weapons|no-surveillance"
    "|no-biometrics|ethics-approval|cite|return-results|institution-only"
    "|region:[A-Z]{2}|time-limit:[12][0-9]{3}-[0-1][0-9]-[0-3][0-9]"
)
_PII_KINDS = "face|body|voice|name|screen|document|plate|location|home-interior|biometric-motion"


@dataclass(frozen=True)
class Expression(Text):
    """An SPDX licence expression. Any text is accepted; what cannot be read never opens anything."""

    pattern: str = r"[^\x00-\x1f\x7f\u202a-\u202e\u2066-\u2069\ud800-\udfff]*"
    what: str = "an SPDX licence expression such as CC-BY-4.0"
    max_length: int = MAX_EXPRESSION

    def read(self, value: str) -> str:
        """Return it in canonical form: ``cc-by-4.0`` is ``CC-BY-4.0``."""
        return canonical_expression(value)

    def join(self, one: str, other: str) -> str:
        """Return what asks for both."""
        return both(one, other)


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement(Record):
    """Where and when a licence was seen stated. Statements that contradict each other are all kept.

    Attributes
    ----------
    expression
        What this statement grants, if it differs from or confirms the record's.
    by
        Who says so: a mirror's word (``distributor``) is weaker than the ``holder``'s own page.
    """

    url: str = member(Text())
    revision: str | None = member(_TEXT, None)
    seen_at: datetime | None = member(_INSTANT, None)
    text_sha256: str | None = member(_HASH, None)
    quoted: str | None = member(Maybe(Text(max_length=300)), None)
    expression: str | None = member(Maybe(Expression()), None)
    by: str = member(Words(("holder", "distributor", "unknown")), "unknown")


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant(Record):
    """The licence, how it is known, and the hash of its text (needed for ``LicenseRef-*``)."""

    expression: str = member(Expression(), "NOASSERTION")
    state: str = member(
        Words(("stated-by-holder", "stated-by-distributor", "inferred", "not-stated")), "not-stated"
    )
    text_sha256: str | None = member(_HASH, None)
    statements: tuple[Statement, ...] = member(ListOf(Sub(Statement)), ())


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder(Record):
    """Who holds the rights. ``id`` is an ORCID, ROR or DID."""

    name: str = member(Text())
    kind: str | None = member(Maybe(Words(("person", "org"))), None)
    id: str | None = member(_TEXT, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Credit(Record):
    """How a work wants to be named. ``suppressed``: its creators asked not to be."""

    creators: tuple[str, ...] = member(ListOf(Text(), ordered=True), ())
    title: str | None = member(_TEXT, None)
    year: int | None = member(Maybe(Count()), None)
    cite: str | None = member(_TEXT, None)
    suppressed: bool = member(Flag(), default=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement(Record):
    """A contract that the recording came under. The document itself stays private."""

    id: str = member(Text())
    sha256: str | None = member(_HASH, None)
    expires: datetime | None = member(_INSTANT, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Acquisition(Record):
    """How the contributor came to the recording, and why that allows passing it on."""

    channel: str = member(Words(_CHANNELS), "unknown")
    basis: str = member(Words(_BASES), "unknown")
    agreement: tuple[Agreement, ...] = member(ListOf(Sub(Agreement)), ())


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsentForm(Record):
    """The form that people signed: its hash, what it covers, and when."""

    sha256: str = member(Text(HEX64, "a SHA-256 in lower-case hexadecimal", 64))
    scope: str | None = member(_TEXT, None)
    date: str | None = member(Maybe(Day()), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class People(Record):
    """Who can be seen, heard or recognised, and what they agreed to.

    Research consent and publication consent are two things: several laws ask for a separate consent to
    publication, and for one to sensitive data (in China articles 25, 28 and 29 of the PIPL).
    """

    present: str = member(Words(("none", "operator", "participants", "bystanders", "unknown")), "unknown")
    consent: str = member(
        Words(("recorded-publication", "not-needed", "recorded-research", "unknown", "none")), "unknown"
    )
    minors: str = member(Words(("none", "unknown", "present")), "unknown")
    form: tuple[ConsentForm, ...] = member(ListOf(Sub(ConsentForm), evidence=True), ())


@dataclass(frozen=True, slots=True, kw_only=True)
class Purpose(Record):
    """What the recording may not be used for."""

    limits: tuple[str, ...] = member(ListOf(Text(_LIMITS, "a purpose limit", 40)), ())


@dataclass(frozen=True, slots=True, kw_only=True)
class Jurisdiction(Record):
    """Where it was collected, where it may not go, and which laws its holder goes by."""

    collected_in: tuple[str, ...] = member(ListOf(_COUNTRY, evidence=True), ())
    export_block: tuple[str, ...] = member(ListOf(_COUNTRY), ())
    law: tuple[str, ...] = member(ListOf(Text(max_length=64)), ())


@dataclass(frozen=True, slots=True, kw_only=True)
class Pii(Record):
    """Personal data in the recording. ``removed`` means de-identified, which is less than anonymous."""

    rules: ClassVar[tuple[Excludes, ...]] = (Excludes("status", "none", "kinds"),)
    status: str = member(
        Words(("none", "removed", "consented", "present", "unknown"), frozenset({"removed", "consented"})),
        "unknown",
    )
    kinds: tuple[str, ...] = member(ListOf(Text(_PII_KINDS, "a kind of personal data", 20)), ())


@dataclass(frozen=True, slots=True, kw_only=True)
class DeidStep(Record):
    """One thing that was done to remove personal data."""

    op: str = member(Text())
    tool: str | None = member(_TEXT, None)
    version: str | None = member(_TEXT, None)
    model_sha256: str | None = member(_HASH, None)
    params: str | None = member(_TEXT, None)
    streams: tuple[str, ...] = member(ListOf(Text()), ())
    frames_affected: int | None = member(Maybe(Count()), None)
    report_sha256: str | None = member(_HASH, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeidCheck(Record):
    """How it was checked that nothing personal is left. ``sample_frames`` were looked at."""

    method: str = member(Text())
    by: str = member(Text())
    at: datetime = member(Instant())
    residual_detections: int | None = member(Maybe(Count()), None)
    sample_frames: int | None = member(Maybe(Count()), None)
    human_checked: bool = member(Flag(), default=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deid(Record):
    """What was done to remove personal data, and the checks of it."""

    steps: tuple[DeidStep, ...] = member(ListOf(Sub(DeidStep)), ())
    verification: tuple[DeidCheck, ...] = member(ListOf(Sub(DeidCheck), evidence=True), ())


@dataclass(frozen=True, slots=True, kw_only=True)
class Source(Record):
    """What the recording was made from. Without ``sha256`` it is not pinned."""

    uri: str = member(Text())
    revision: str | None = member(_TEXT, None)
    sha256: str | None = member(_HASH, None)
    bytes: int | None = member(Maybe(Count()), None)
    media_type: str | None = member(_TEXT, None)
    role: str | None = member(_TEXT, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent(Record):
    """Another record (its digest) that this one is made from, and how.

    ``format``: same values in another container. ``format-lossy``: re-encoded. ``adapted``: changed in
    substance (cropped, resampled, masked, annotated). ``collection``: put side by side.
    """

    record: str = member(Text(HEX64, "the digest of a rights record", 64))
    operation: str = member(Words(("format", "format-lossy", "collection", "adapted")))


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality(Record):
    """The outcome of the episode checks, and the hash of their report."""

    gate: str = member(Words(("pass", "risk", "not-run", "defect")), "not-run")
    report_sha256: str | None = member(_HASH, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignOff(Record):
    """Who states this record and when, in the sense of https://developercertificate.org .

    ``terms`` names the text that is signed off, such as ``DCO-1.1``.
    """

    by: str = member(Text())
    at: datetime = member(Instant())
    terms: str | None = member(_TEXT, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature(Record):
    """An Ed25519 signature (RFC 8032, in base64) over `Rights.signed_bytes`."""

    alg: str = member(Words(("ed25519",)))
    key_id: str = member(Text())
    signed_at: datetime = member(Instant())
    value: str = member(Text("[A-Za-z0-9+/]{86}==", "64 bytes in base64", 88))


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawal(Record):
    """A wish to take the recording back, and how far it has come."""

    state: str = member(Words(("none", "requested", "effective")), "none")
    scope: str | None = member(_TEXT, None)
    ground: str | None = member(Maybe(Words(("consent", "licence", "court", "error", "safety"))), None)
    requested_at: datetime | None = member(_INSTANT, None)
    effective_at: datetime | None = member(_INSTANT, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Review(Record):
    """What someone found who looked at this record. Decides nothing."""

    who: str = member(Text())
    at: datetime = member(Instant())
    verdict: str = member(Words(("agree", "question", "object")))
    note: str | None = member(_TEXT, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights(Record):
    """What is stated about the rights in a contribution, segment, episode or stream.

    Built without arguments it states nothing, and is closed. A record that exists is valid and in
    canonical form: making one checks it. Times are UTC; sets are sorted and hold each entry once.

    Attributes
    ----------
    tier
        What the contributor wants: ``open``, ``gated``, ``restricted`` or ``closed``.
    embargo_until
        Closed before this instant; None: no embargo.
    source, quality, signature
        These describe the very item that the record is about, and are not inherited as permissions.
    signoff
        Who states these rights, and when.

    Raises
    ------
    SchemaError
        With every problem and its place.
    """

    rights_version: str = member(Words((RIGHTS_VERSION,)), RIGHTS_VERSION, required=True)
    licence: Grant = member(Sub(Grant), Grant())
    tier: str = member(Words(("open", "gated", "restricted", "closed")), "closed")
    holder: tuple[Holder, ...] = member(ListOf(Sub(Holder), evidence=True), ())
    attribution: tuple[Credit, ...] = member(ListOf(Sub(Credit), evidence=True), ())
    acquisition: Acquisition = member(Sub(Acquisition), Acquisition())
    people: People = member(Sub(People), People())
    purpose: Purpose = member(Sub(Purpose), Purpose())
    embargo_until: datetime | None = member(Maybe(Instant(), latest=True), None)
    jurisdiction: Jurisdiction = member(Sub(Jurisdiction), Jurisdiction())
    pii: Pii = member(Sub(Pii), Pii())
    deid: Deid = member(Sub(Deid), Deid())
    source: tuple[Source, ...] = member(ListOf(Sub(Source), evidence=True), ())
    derived_from: tuple[Parent, ...] = member(ListOf(Sub(Parent)), ())
    quality: Quality = member(Sub(Quality), Quality())
    signoff: tuple[SignOff, ...] = member(ListOf(Sub(SignOff), evidence=True), ())
    signature: Signature | None = member(Maybe(Sub(Signature)), None)
    withdrawal: Withdrawal = member(Whole(Withdrawal, by="state"), Withdrawal())
    review: tuple[Review, ...] = member(ListOf(Sub(Review)), ())

    def __post_init__(self) -> None:
        document = self.to_document()
        if problems := rights_problems(document):
            raise SchemaError(problems)
        for name, value in _RIGHTS.read_members(document).items():
            object.__setattr__(self, name, value)

    @classmethod
    def from_document(cls, document: object) -> Rights:
        """Return the record that a JSON document tells of.

        Raises
        ------
        SchemaError
            With every problem and its place.
        """
        if problems := rights_problems(document):
            raise SchemaError(problems)
        record: Rights = _RIGHTS.read(document)  # type: ignore[arg-type]  # it is a dict: it has no problem
        return record

    @classmethod
    def from_toml(cls, text: str) -> Rights:
        """Return the record that a ``rights.toml`` tells of. TOML's own dates and times are welcome.

        Raises
        ------
        SchemaError
            With every problem and its place.
        """
        try:
            document = _without_toml_dates(tomllib.loads(text))
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise SchemaError([Problem("", f"is not TOML: {error}")]) from error
        return cls.from_document(document)

    def to_document(self) -> dict[str, Any]:
        """Return the record as plain JSON values. What is not stated is left out."""
        document: dict[str, Any] = _RIGHTS.write(self)
        return document

    @property
    def digest(self) -> str:
        """SHA-256 of the document's canonical bytes, in hexadecimal: the record's identity."""
        return digest(self.to_document())

    def signed_bytes(self) -> bytes:
        """Return what a signature of this record is made over: everything but the signature."""
        return canonical({key: value for key, value in self.to_document().items() if key != "signature"})


_RIGHTS = Sub(Rights)

RIGHTS_SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Rights record of a robot demonstration",
    **_RIGHTS.schema(),
}
"""JSON Schema of the document, for tools that are not ours. It says what `rights_problems` says."""

TEMPLATE = files(__package__).joinpath("rights_template.toml").read_text(encoding="utf-8")
"""A commented ``rights.toml`` to fill in. As it stands it is valid, and closed."""


def rights_problems(document: object) -> list[Problem]:
    """Return everything that is wrong with the document of a rights record. Never raises."""
    return list(_RIGHTS.problems(document, ""))


def _without_toml_dates(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_toml_dates(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_without_toml_dates(entry) for entry in value]
    return value.isoformat() if isinstance(value, date) else value
