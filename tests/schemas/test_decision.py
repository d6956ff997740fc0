"""When a recording is open. Read this as the specification: one closed record that opens is a disaster."""

from __future__ import annotations

import itertools
import random
import types
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any, NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from teleopen.schemas import OPEN_V1, POLICIES, STRICT, Code, Policy, Reason, Rights, published_as, reasons

from tests.schemas.rights_cases import (
    CHECK,
    DELETE,
    FULL,
    GOOD,
    HASH,
    LEVELS,
    NOW,
    OTHER_HASH,
    SIGNATURE,
    Document,
    but,
    paths,
    put,
)


def codes(record: object, **given: Any) -> list[str]:
    """Return the numbers of the reasons, such as R02."""
    return [reason.code[:3] for reason in reasons(record, **{"now": NOW, **given})]


def with_all_evidence(document: Document) -> Document:
    return but({"signature": SIGNATURE, "people.form": [{"sha256": HASH}]}, document)


REMOVED = {"pii.status": "removed", "pii.kinds": ["face"], "deid.verification": [CHECK]}
FOUND_ONE = {**REMOVED, "deid.verification": [{**CHECK, "residual_detections": 1}]}
LOOKED_AT_NONE = {**REMOVED, "deid.verification": [{**CHECK, "sample_frames": 0}]}
NOT_MY_OWN = {"licence.state": "stated-by-distributor"}
OPERATOR = {"people.present": "operator", "people.consent": "recorded-publication"}


def stated_elsewhere(by: str) -> dict[str, Any]:
    return {"licence.statements": [{"url": "u", "by": by, "expression": "CC-BY-NC-4.0"}]}


def ends(at: str) -> dict[str, Any]:
    return {"acquisition.agreement": [{"id": "1", "expires": at}]}


TRUTH: list[tuple[str, dict[str, Any], list[str]]] = [
    ("nothing changed", {}, []),
    # the licence
    ("public domain", {"licence.expression": "CC0-1.0"}, []),
    ("share-alike", {"licence.expression": "CC-BY-SA-4.0"}, []),
    ("share-alike for databases", {"licence.expression": "ODbL-1.0"}, []),
    ("an id in lower case", {"licence.expression": "cc-by-4.0"}, []),
    ("an older version", {"licence.expression": "CC-BY-3.0"}, []),
    ("one alternative is open", {"licence.expression": "CC-BY-NC-4.0 OR CC-BY-4.0"}, []),
    ("both are open", {"licence.expression": "CC-BY-4.0 AND CC0-1.0"}, []),
    ("a software licence by its holder", {"licence.expression": "MIT"}, []),
    (
        "a software licence by somebody else",
        {"licence.expression": "MIT", "licence.state": "stated-by-distributor"},
        ["R02"],
    ),
    ("a data licence by a distributor", {"licence.state": "stated-by-distributor"}, []),
    ("non-commercial", {"licence.expression": "CC-BY-NC-SA-4.0"}, ["R02"]),
    ("no derivatives", {"licence.expression": "CC-BY-ND-4.0"}, ["R02"]),
    ("one part is not open", {"licence.expression": "CC-BY-4.0 AND CC-BY-NC-4.0"}, ["R02"]),
    ("not an id", {"licence.expression": "CC BY 4.0"}, ["R02"]),
    ("an exception", {"licence.expression": "CC-BY-4.0 WITH Classpath-exception-2.0"}, ["R02"]),
    ("or later", {"licence.expression": "CC-BY-4.0+"}, ["R02"]),
    ("an unknown id", {"licence.expression": "CC-BY-5.0"}, ["R02"]),
    ("a licence of one's own", {"licence.expression": "LicenseRef-own"}, ["R02"]),
    ("share-alike data not reviewed", {"licence.expression": "CDLA-Sharing-1.0"}, ["R02"]),
    ("no licence", {"licence": DELETE}, ["R01"]),
    ("no expression", {"licence.expression": DELETE}, ["R01"]),
    ("an empty expression", {"licence.expression": ""}, ["R01"]),
    ("an expression that asserts nothing", {"licence.expression": "NOASSERTION"}, ["R01"]),
    ("the Hub's other", {"licence.expression": "other"}, ["R01"]),
    ("a family of licences", {"licence.expression": "cc"}, ["R01"]),
    ("an inferred licence", {"licence.state": "inferred"}, ["R01"]),
    ("nobody states the licence", {"licence.state": DELETE}, ["R01"]),
    # what the contributor wants and may do
    ("gated", {"tier": "gated"}, ["R03"]),
    ("no tier", {"tier": DELETE}, ["R03"]),
    ("no basis", {"acquisition.basis": "unknown"}, ["R04"]),
    ("no channel", {"acquisition.channel": DELETE}, ["R04"]),
    ("no holder", {"holder": []}, ["R04"]),
    ("an agreement that holds", ends("2026-06-01T12:00:01Z"), []),
    ("an agreement at its end", ends("2026-06-01T12:00:00Z"), ["R04"]),
    # people
    ("an operator who consents to publication", OPERATOR, []),
    ("an operator who consents to research", {**OPERATOR, "people.consent": "recorded-research"}, ["R05"]),
    ("bystanders without consent", {"people.present": "bystanders", "people.consent": "none"}, ["R05"]),
    ("an operator, and consent not needed", {"people.present": "operator"}, ["R05"]),
    ("people unknown", {"people.present": "unknown"}, ["R05"]),
    ("nothing on people", {"people": DELETE}, ["R05"]),
    ("people, and minors unknown", {**OPERATOR, "people.minors": DELETE}, ["R05"]),
    ("minors with consent", {**OPERATOR, "people.minors": "present"}, ["R05"]),
    ("no people, and minors unknown", {"people.minors": DELETE}, []),
    ("no people, and minors present", {"people.minors": "present"}, ["R05"]),
    # embargo
    ("embargo until tomorrow", {"embargo_until": "2026-06-02T12:00:00Z"}, ["R06"]),
    ("embargo over", {"embargo_until": "2026-05-31T12:00:00Z"}, []),
    ("embargo null", {"embargo_until": None}, []),
    ("embargo soon", {"embargo_until": "soon"}, ["R00"]),
    ("embargo without an offset", {"embargo_until": "2026-05-31T12:00:00"}, ["R00"]),
    # personal data
    ("personal data", {"pii.status": "present"}, ["R07"]),
    ("personal data unknown", {"pii.status": DELETE}, ["R07"]),
    ("personal data removed, not verified", {**REMOVED, "deid.verification": []}, ["R07"]),
    ("personal data removed and verified", REMOVED, []),
    ("a verification that found something", FOUND_ONE, ["R07"]),
    ("a verification of nothing", LOOKED_AT_NONE, ["R07"]),
    ("personal data with consent", {**OPERATOR, "pii.status": "consented", "pii.kinds": ["face"]}, []),
    ("personal data with nobody's consent", {"pii.status": "consented"}, ["R07"]),
    # everything else
    ("a purpose limit on an open licence", {"purpose.limits": ["non-commercial"]}, ["R08", "R13"]),
    (
        "a purpose limit on a licence that is not open",
        {"purpose.limits": ["cite"], "licence.expression": "CC-BY-NC-4.0"},
        ["R02", "R08"],
    ),
    ("withdrawal requested", {"withdrawal.state": "requested"}, ["R09"]),
    ("withdrawn", {"withdrawal.state": "effective"}, ["R09"]),
    ("not signed off", {"signoff": DELETE}, ["R10"]),
    ("no source", {"source": []}, ["R11"]),
    ("one source without a hash", {"source": [{"uri": "a", "sha256": HASH}, {"uri": "b"}]}, ["R11"]),
    ("no attribution where the licence asks for it", {"attribution": DELETE}, ["R13"]),
    ("attribution without creators", {"attribution": [{"title": "T"}]}, ["R13"]),
    ("creators who asked not to be named", {"attribution": [{"title": "T", "suppressed": True}]}, []),
    ("no attribution where none is asked for", {"attribution": DELETE, "licence.expression": "CC0-1.0"}, []),
    ("a gate before the holder's open licence", {"tier": "gated", "acquisition.basis": "licence"},
     ["R03", "R13"]),
    ("the holder says otherwise elsewhere", stated_elsewhere("holder"), ["R13"]),
    ("a mirror says otherwise than the holder", stated_elsewhere("distributor"), []),
    ("a mirror says otherwise than a mirror", {**NOT_MY_OWN, **stated_elsewhere("distributor")}, ["R13"]),
    ("kinds of personal data, and none of it", {"pii.kinds": ["face"]}, ["R07", "R13"]),
    ("no place of collection", {"jurisdiction": DELETE}, ["R14"]),
    ("an export block", {"jurisdiction.export_block": ["US"]}, ["R14"]),
    ("quality not checked", {"quality": DELETE}, []),
    ("a defect", {"quality.gate": "defect"}, ["R15"]),
    # the document
    ("another version of the record", {"rights_version": "2.0"}, ["R00"]),
    ("no version", {"rights_version": DELETE}, ["R00"]),
    ("a member that nobody knows", {"open": True}, ["R00"]),
    ("a tier that nobody knows", {"tier": "public"}, ["R00", "R03"]),
    ("a tier in other letters", {"tier": "Open"}, ["R00", "R03"]),
]  # fmt: skip


@pytest.mark.parametrize(("edits", "expected"), [t[1:] for t in TRUTH], ids=[t[0] for t in TRUTH])
def test_the_truth_table_of_the_default_policy(edits: dict[str, Any], expected: list[str]) -> None:
    assert codes(but(edits)) == expected


def test_a_closed_parent_closes() -> None:
    assert codes(GOOD, parents_open=False) == ["R12"]
    assert codes(GOOD, parents_open=None) == ["R12"]


def test_an_empty_document_has_every_reason_that_an_empty_record_has_and_is_malformed() -> None:
    nothing = ["R01", "R03", "R04", "R05", "R07", "R10", "R11", "R14"]
    assert codes({}) == ["R00", *nothing]
    assert codes({"rights_version": "1.0"}) == nothing
    assert codes(Rights()) == nothing


STRICTER: list[tuple[str, dict[str, Any], list[str]]] = [
    ("nothing changed", {}, []),
    ("no signature", {"signature": DELETE}, ["R10"]),
    ("no signoff", {"signoff": DELETE}, ["R10"]),
    ("a software licence", {"licence.expression": "MIT"}, ["R02"]),
    ("MIT or CC BY", {"licence.expression": "MIT OR CC-BY-4.0"}, []),
    ("a licence off the list", {"licence.expression": "CDLA-Permissive-2.0"}, ["R02"]),
    ("people without the form", {**OPERATOR, "people.form": []}, ["R05"]),
    ("people with the form", OPERATOR, []),
    ("quality not checked", {"quality": DELETE}, ["R15"]),
    ("a person looked", REMOVED, []),
    ("nobody looked", {**REMOVED, "deid.verification": [{**CHECK, "human_checked": False}]}, ["R07"]),
]


@pytest.mark.parametrize(("edits", "expected"), [t[1:] for t in STRICTER], ids=[t[0] for t in STRICTER])
def test_the_truth_table_of_the_strict_policy(edits: dict[str, Any], expected: list[str]) -> None:
    record = but(edits, with_all_evidence(GOOD))
    assert codes(record, policy=STRICT, signature_valid=True) == expected


@pytest.mark.parametrize("word", [False, None, 1, "yes"])
def test_a_signature_that_nobody_verified_does_not_count(word: Any) -> None:
    assert codes(with_all_evidence(GOOD), policy=STRICT) == ["R10"]
    assert codes(with_all_evidence(GOOD), policy=STRICT, signature_valid=word) == ["R10"]


# --- against an oracle that shares no code ---------------------------------------------------------------

ALWAYS = {"CC-BY-4.0", "cc0-1.0", "ODbL-1.0", "MIT OR CC-BY-4.0", "CC0-1.0 OR CC-BY-ND-4.0"}
NAMES_CREATORS = {"CC-BY-4.0", "ODbL-1.0", "MIT OR CC-BY-4.0"}
SOON = {"2026-06-01T12:00:01Z", "2026-06-01T21:00:00+08:00"}


def should_be_open(d: dict[str, Any], *, strict: bool, signature_valid: bool) -> bool:  # noqa: C901, PLR0911, PLR0912
    """Decide on what `LEVELS` can make of a document, written anew from the specification."""
    by_holder = d["licence.state"] == "stated-by-holder"
    expression = d["licence.expression"]
    if d["licence.state"] not in ("stated-by-holder", "stated-by-distributor"):
        return False
    if expression not in ALWAYS and not (expression == "MIT" and by_holder and not strict):
        return False
    # of MIT and CC BY both, equally short, the first in the alphabet is taken
    if expression in NAMES_CREATORS:
        named = d["attribution"]
        if named is DELETE or not named:
            return False
        if any("title" not in c or not (c.get("creators") or c.get("suppressed")) for c in named):
            return False
    for s in [] if d["licence.statements"] is DELETE else d["licence.statements"]:
        if s["expression"] == "CC-BY-NC-4.0" and (s["by"] == "holder" or not by_holder):
            return False
    if d["tier"] != "open" or d["holder"] in (DELETE, []) or d["signoff"] in (DELETE, []):
        return False
    if d["acquisition.channel"] in (DELETE, "unknown") or d["acquisition.basis"] in (DELETE, "unknown"):
        return False
    if d["acquisition.agreement"] is not DELETE and len(d["acquisition.agreement"]) == 2:
        return False
    if d["people.minors"] == "present" or d["people.present"] in (DELETE, "unknown"):
        return False
    published = d["people.consent"] == "recorded-publication"
    if d["people.present"] != "none":
        if not published or d["people.minors"] != "none":
            return False
        if strict and d["people.form"] in (DELETE, []):
            return False
    if d["purpose.limits"] not in (DELETE, []) or d["embargo_until"] in SOON:
        return False
    if d["jurisdiction.collected_in"] in (DELETE, []) or d["jurisdiction.export_block"] not in (DELETE, []):
        return False
    status, checks = d["pii.status"], d["deid.verification"]
    if status == "none" and d["pii.kinds"] == ["face"]:
        return False
    if status == "removed":
        good = [[CHECK]] if strict else [[CHECK], [{**CHECK, "human_checked": False}]]
        if checks not in good:
            return False
    elif status == "consented":
        if not published:
            return False
    elif status != "none":
        return False
    if d["source"] in (DELETE, []) or len(d["source"]) == 2:
        return False
    if d["quality.gate"] == "defect" or (strict and d["quality.gate"] not in ("pass", "risk")):
        return False
    if strict and (d["signature"] is DELETE or not signature_valid):
        return False
    return d["withdrawal.state"] in (DELETE, "none")


def check_against_oracle(levels: dict[str, Any]) -> int:
    """Return how many of the policies open a combination; fail where the oracle differs."""
    document, opened = but(levels), 0
    try:
        record: object = Rights.from_document(document)  # decided faster, and no differently
    except ValueError:
        record = document
    for strict, valid in ((False, False), (True, True), (True, False)):
        found = reasons(record, now=NOW, policy=STRICT if strict else OPEN_V1, signature_valid=valid)
        expected = should_be_open(levels, strict=strict, signature_valid=valid)
        assert (not found) == expected, (levels, strict, found)
        opened += expected
    return opened


BASE = {path: levels[0] for path, levels in LEVELS.items()}


def test_every_pair_of_values_agrees_with_the_oracle() -> None:
    choices = {path: range(len(levels)) for path, levels in LEVELS.items()}
    tried = opened = 0
    for a, b in itertools.combinations(LEVELS, 2):
        for i, j in itertools.product(choices[a], choices[b]):
            opened += check_against_oracle({**BASE, a: LEVELS[a][i], b: LEVELS[b][j]})
            tried += 1
    assert tried > 6_000
    assert opened > 500


def test_many_random_combinations_agree_with_the_oracle() -> None:
    # Members are parsed once each, so that the decision is what takes the time; see the test above for
    # whole documents. Mostly good values: with 26 members chosen blindly nothing would ever be open.
    draw = random.Random(20260601)
    parsed: dict[str, dict[Any, Any]] = {}

    def member(name: str, levels: dict[str, Any]) -> Any:
        mine = {path: value for path, value in levels.items() if path.partition(".")[0] == name}
        key = repr(sorted(mine.items(), key=lambda item: item[0]))
        if key not in parsed.setdefault(name, {}):
            document = but(mine, {"rights_version": "1.0"})
            parsed[name][key] = getattr(Rights.from_document(document), name)
        return parsed[name][key]

    names = list(Rights.__dataclass_fields__)
    template = Rights.from_document(GOOD)
    opened = tried = 0
    while tried < 120_000:
        bad = draw.choices(list(LEVELS), k=draw.randrange(6))
        levels = {**BASE, **{path: draw.choice(LEVELS[path]) for path in bad}}
        if levels["pii.status"] == "none" and levels["pii.kinds"] == ["face"]:
            continue  # no record can say this
        tried += 1
        record = object.__new__(Rights)
        for name in names:
            told = name in {path.partition(".")[0] for path in bad}
            object.__setattr__(record, name, member(name, levels) if told else getattr(template, name))
        for strict, valid in ((False, False), (True, True)):
            found = reasons(record, now=NOW, policy=STRICT if strict else OPEN_V1, signature_valid=valid)
            assert (not found) == should_be_open(levels, strict=strict, signature_valid=valid), (
                levels,
                found,
            )
            opened += not found
    assert opened > 10_000


# --- laws ------------------------------------------------------------------------------------------------

OPEN_RECORDS = [
    GOOD,
    but({"licence.expression": "CC0-1.0 AND CC-BY-SA-4.0"}),
    but({**OPERATOR, **REMOVED}),
    but({**OPERATOR, "pii.status": "consented", "acquisition.channel": "crowd"}),
    but({"embargo_until": "2026-05-31T12:00:00Z", "licence.state": "stated-by-distributor"}),
]
RESTRICTING: list[dict[str, Any]] = [
    {"licence.expression": "CC-BY-NC-4.0"},
    {"licence.expression": "NOASSERTION"},
    {"licence.state": "inferred"},
    {"tier": "gated"},
    {"tier": "restricted"},
    {"tier": "closed"},
    {"people.present": "unknown"},
    {"people.present": "bystanders", "people.consent": "none"},
    {"people.minors": "present"},
    {"pii.status": "present"},
    {"pii.status": "unknown"},
    {"embargo_until": "2026-06-01T12:00:01Z"},
    {"purpose.limits": ["no-weapons"]},
    {"withdrawal.state": "requested"},
    {"jurisdiction.export_block": ["US"]},
    {"acquisition.agreement": [{"id": "1", "expires": "2020-01-01T00:00:00Z"}]},
    {"acquisition.basis": "unknown"},
    {"quality.gate": "defect"},
    {"signoff": []},
    {"source": [{"uri": "a"}]},
]


@pytest.mark.parametrize("record", OPEN_RECORDS)
@pytest.mark.parametrize("edit", RESTRICTING, ids=str)
def test_each_restricting_edit_closes_an_open_record(record: Document, edit: dict[str, Any]) -> None:
    assert codes(record) == []
    assert codes(but(edit, record)) != []


@pytest.mark.parametrize(
    "path",
    [
        "rights_version",
        "licence",
        "licence.expression",
        "licence.state",
        "tier",
        "holder",
        "attribution",
        "acquisition",
        "acquisition.channel",
        "acquisition.basis",
        "people",
        "people.present",
        "people.consent",
        "people.minors",
        "jurisdiction",
        "jurisdiction.collected_in",
        "pii",
        "pii.status",
        "deid",
        "deid.verification",
        "source",
        "signoff",
    ],
)
def test_deleting_any_required_member_closes_it(path: str) -> None:
    assert codes(but({path: DELETE}, but({**OPERATOR, **REMOVED}))) != []


@pytest.mark.parametrize("path", [p for p in paths(GOOD) if p and p[-1] != "kind"])
def test_null_in_place_of_any_statement_of_an_open_record_closes_it(path: tuple[Any, ...]) -> None:
    assert codes(put(GOOD, path, None)) != []


def test_every_code_can_be_reached_and_tells_what_it_means_and_what_would_change_it() -> None:
    reached = {code for _, _, expected in TRUTH for code in expected} | {"R12"}
    assert reached == {code[:3] for code in Code}
    for code in Code:
        assert code.explanation.endswith(".")
        assert code.remedy.endswith(".")


def test_reasons_come_once_per_code_and_in_order() -> None:
    found = [reason.code for reason in reasons(None, now=NOW)]
    assert found == sorted(set(found))


def test_a_reason_names_what_in_the_record_gives_rise_to_it() -> None:
    (reason,) = reasons(but({"licence.expression": "CC-BY-NC-4.0"}), now=NOW)
    assert "CC-BY-NC-4.0" in reason.detail
    assert str(reason) == f"R02_LICENCE_NOT_OPEN: {reason.detail}"


def test_the_same_question_has_the_same_answer_for_a_document_and_its_record() -> None:
    for _, edits, _ in TRUTH:
        document = but(edits)
        if "R00" not in codes(document) and "R13" not in codes(document):
            assert reasons(document, now=NOW) == reasons(Rights.from_document(document), now=NOW)


# --- time ------------------------------------------------------------------------------------------------


@given(
    st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1)),  # noqa: DTZ001 - the zones are drawn below
    st.integers(-23 * 60, 23 * 60),
    st.integers(-23 * 60, 23 * 60),
    st.sampled_from([timedelta(microseconds=1), timedelta(seconds=1), timedelta(days=400)]),
)
def test_an_embargo_ends_at_its_instant_whatever_the_time_zones(
    at: datetime, zone: int, other: int, step: timedelta
) -> None:
    until = at.replace(tzinfo=timezone(timedelta(minutes=zone)))
    record = but({"embargo_until": until.isoformat()})
    there = timezone(timedelta(minutes=other))
    assert codes(record, now=(until - step).astimezone(there)) == ["R06"]
    assert codes(record, now=until.astimezone(there)) == []
    assert codes(record, now=(until + step).astimezone(there)) == []


class Nowhere(tzinfo):
    """Claims to be a time zone and has no offset."""

    def utcoffset(self, _: datetime | None) -> None:
        return None

    tzname = dst = utcoffset


class Broken(tzinfo):
    """Claims to be a time zone and breaks."""

    def utcoffset(self, _: datetime | None) -> NoReturn:
        raise OSError

    tzname = dst = utcoffset


@pytest.mark.parametrize(
    "now",
    [
        datetime(2026, 6, 1),  # noqa: DTZ001 - what is wrong with it
        None,
        "2026-06-01T00:00:00Z",
        1.8e9,
        NOW.date(),
        NOW.replace(tzinfo=Nowhere()),
        NOW.replace(tzinfo=Broken()),
        object(),
    ],
)
@pytest.mark.parametrize("embargo", [DELETE, "2020-01-01T00:00:00Z"])
def test_without_a_time_zone_nothing_opens(now: Any, embargo: Any) -> None:
    assert codes(but({"embargo_until": embargo}), now=now) != []


@pytest.mark.parametrize(
    "now", [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=timezone(timedelta(hours=-9)))]
)
def test_the_ends_of_time_are_times(now: datetime) -> None:
    late = now.year > 9000
    assert codes(but({"embargo_until": "2999-12-31T23:59:59-23:59"}), now=now) == ([] if late else ["R06"])


# --- total -----------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["open", "none"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_any_json_is_decided_and_closed(document: object) -> None:
    assert "R00" in codes(document)


@settings(max_examples=300)
@given(st.sampled_from(list(paths(FULL))), JSON, st.sampled_from(list(POLICIES.values())))
def test_any_json_in_any_place_is_decided(path: tuple[Any, ...], junk: object, policy: Policy) -> None:
    assert all(type(reason) is Reason for reason in reasons(put(FULL, path, junk), now=NOW, policy=policy))


class Hostile:
    """Breaks whatever is asked of it."""

    def _refuse(self, *_: object) -> Any:
        raise RuntimeError("do not touch")

    __eq__ = __ne__ = __lt__ = __len__ = __iter__ = __getitem__ = __repr__ = __str__ = __bool__ = _refuse
    __getattribute__ = __contains__ = __int__ = __float__ = __index__ = _refuse

    def __hash__(self) -> int:
        return hash("tier")  # collides with a member, so that looking that up would compare


class HostileType(type):
    """A class that breaks when it is looked up or named."""

    def __hash__(cls) -> int:
        raise RuntimeError("do not touch")

    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise RuntimeError("do not touch")


class HostileText(str):
    """Text that agrees with everything."""

    __slots__ = ()

    def __eq__(self, _: object) -> bool:
        return True

    __hash__ = str.__hash__


class HostileDict(dict[str, Any]):
    """Shows one thing and does another."""

    def _refuse(self, *_: object) -> Any:
        raise RuntimeError("do not touch")

    get = __getitem__ = __contains__ = __iter__ = keys = items = _refuse


def nested(depth: int) -> object:
    value: Any = {}
    for _ in range(depth):
        value = {"licence": [value]}
    return value


def loop() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


class LyingRights(Rights):
    """A subclass could answer anything."""

    __slots__ = ()


WEIRD: list[Any] = [
    None,
    0,
    -1,
    10**5000,
    float("nan"),
    float("inf"),
    1j,
    b"open",
    "",
    "x" * 10_000_000,
    "\x00",
    "\ud800",
    object(),
    object,
    type,
    types,
    len,
    ...,
    NotImplemented,
    iter(()),
    {1, 2},
    (),
    (GOOD,),
    frozenset(),
    memoryview(b""),
    bytearray(),
    range(10**9),
    Hostile(),
    HostileType("X", (), {})(),
    HostileText("open"),
    HostileDict(GOOD),
    {Hostile(): 1},
    {None: 1},
    {("tier",): "open"},
    nested(100_000),
    loop(),
    ValueError(),
    lambda: GOOD,
    NOW,
    GOOD["tier"],
    Rights,
    [GOOD],
    {"rights_version": "1.0", "x" * 10**6: 1},
    LyingRights.__new__(LyingRights),
    types.MappingProxyType(GOOD),
    {HostileText("rights_version"): "1.0"},
]


@pytest.mark.parametrize("thing", range(len(WEIRD)))
def test_any_python_object_is_decided_and_closed(thing: int) -> None:
    assert "R00" in codes(WEIRD[thing])


@pytest.mark.parametrize("thing", range(len(WEIRD)))
def test_any_python_object_in_any_place_of_a_document_is_decided(thing: int) -> None:
    for path in paths(FULL):
        found = reasons(put(FULL, path, WEIRD[thing]), now=NOW)
        assert found  # FULL itself is closed


def test_no_foreign_object_in_an_open_record_passes_for_what_it_imitates() -> None:
    for path in paths(GOOD):
        value = GOOD
        for step in path:
            value = value[step]
        if isinstance(value, str):
            assert "R00" in codes(put(GOOD, path, HostileText(value)))
        if isinstance(value, dict):
            assert "R00" in codes(put(GOOD, path, HostileDict(value)))


def test_a_record_that_was_tampered_with_is_closed_and_not_an_error() -> None:
    for name in Rights.__dataclass_fields__:
        for junk in (Hostile(), None, 7, "open open", (Hostile(),)):
            record = Rights.from_document(but({"tier": "closed"}))
            object.__setattr__(record, name, junk)
            assert reasons(record, now=NOW)


@pytest.mark.parametrize("policy", [None, "open-v1", object(), Policy])
def test_no_policy_opens_nothing(policy: Any) -> None:
    assert codes(GOOD, policy=policy) == ["R00"]


# --- policies --------------------------------------------------------------------------------------------


def own_licence(sha256: str | None) -> Document:
    return but({"licence.expression": "LicenseRef-own OR CC-BY-NC-4.0", "licence.text_sha256": sha256})


def test_a_licence_of_ones_own_opens_only_where_the_policy_names_its_id_and_its_text() -> None:
    policy = Policy(id="mine", licences=OPEN_V1.licences, references=frozenset({("LicenseRef-own", HASH)}))
    assert codes(own_licence(HASH), policy=policy) == []
    assert codes(own_licence(OTHER_HASH), policy=policy) == ["R02"]
    assert codes(own_licence(None), policy=policy) == ["R02"]
    assert codes(own_licence(HASH)) == ["R02"]
    other = but({"licence.expression": "LicenseRef-Own", "licence.text_sha256": HASH})
    assert codes(other, policy=policy) == ["R02"]


def test_no_policy_can_open_what_the_table_of_licences_does_not_grant() -> None:
    greedy = Policy(id="greedy", licences=frozenset({"CC-BY-NC-4.0", "Invented-1.0", "MIT"}))
    assert codes(but({"licence.expression": "CC-BY-NC-4.0"}), policy=greedy) == ["R02"]
    assert codes(but({"licence.expression": "Invented-1.0"}), policy=greedy) == ["R02"]
    by_mirror = but({"licence.expression": "MIT", "licence.state": "stated-by-distributor"})
    assert codes(by_mirror, policy=greedy) == ["R02"]


def test_a_policy_is_known_by_its_hash() -> None:
    assert {name: policy.id for name, policy in POLICIES.items()} == {
        "open-v1": "open-v1",
        "strict": "strict",
    }
    variants = [
        OPEN_V1,
        STRICT,
        Policy(id="open-v1", licences=frozenset({"CC0-1.0"})),
        Policy(id="open-v1", licences=OPEN_V1.licences, signature=True),
        Policy(id="open-v1", licences=OPEN_V1.licences, references=frozenset({("LicenseRef-a", HASH)})),
    ]
    assert len({policy.hash for policy in variants}) == len(variants)
    assert Policy(id="open-v1", licences=OPEN_V1.licences).hash == OPEN_V1.hash


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("cc-by-4.0", "CC-BY-4.0"),
        ("CC-BY-SA-4.0 OR CC-BY-4.0", "CC-BY-4.0"),
        ("CC-BY-4.0 AND CC0-1.0 OR ODC-By-1.0", "ODC-By-1.0"),
        ("CC0-1.0 AND CC-BY-4.0 OR CC-BY-SA-4.0", "CC-BY-4.0 AND CC0-1.0"),
        ("CC-BY-NC-4.0 OR ODbL-1.0", "ODbL-1.0"),
        ("CC-BY-NC-4.0", None),
        ("NOASSERTION", None),
    ],
)
def test_an_open_record_is_published_under_the_alternative_that_asks_least(
    expression: str, expected: str | None
) -> None:
    assert published_as(Rights.from_document(but({"licence.expression": expression}))) == expected
