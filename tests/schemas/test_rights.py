"""What a rights record is, how it is told, and how records combine."""

from __future__ import annotations

import json
import pickle
import re
from datetime import UTC, datetime
from typing import Any

import jsonschema
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from teleopen.schemas import (
    POLICIES,
    RIGHTS_SCHEMA,
    TEMPLATE,
    Policy,
    Rights,
    SchemaError,
    join,
    reasons,
    rights_problems,
    tighten,
)
from teleopen.schemas.rights import Grant, Holder
from teleopen.schemas.shapes import canonical

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

# --- records ---------------------------------------------------------------------------------------------


def test_a_record_without_arguments_states_nothing_and_is_closed() -> None:
    assert Rights().to_document() == {"rights_version": "1.0"}
    for policy in POLICIES.values():
        assert reasons(Rights(), now=NOW, policy=policy, signature_valid=True)


def test_a_record_survives_its_document_and_a_process() -> None:
    for document in (GOOD, FULL, {"rights_version": "1.0"}):
        record = Rights.from_document(document)
        assert Rights.from_document(record.to_document()) == record
        assert Rights.from_document(json.loads(json.dumps(record.to_document()))) == record
        assert pickle.loads(pickle.dumps(record)) == record
        assert hash(record) == hash(Rights.from_document(document))


def test_a_record_that_states_everything_is_told_without_loss() -> None:
    told = Rights.from_document(FULL).to_document()
    assert told == but(
        {
            "embargo_until": "2026-04-30T16:00:00Z",  # the same instant
            "attribution": [{"title": "Kitchen", "creators": ["B", "A"], "year": 2026, "cite": "doi"}],
        },
        FULL,
    )


def test_every_way_of_writing_the_same_has_the_same_digest() -> None:
    one = but(
        {"licence.expression": "cc-by-4.0 AND mit", "jurisdiction.collected_in": ["US", "CN", "US"]}, FULL
    )
    two = but({"licence.expression": "MIT AND CC-BY-4.0", "jurisdiction.collected_in": ["CN", "US"]}, FULL)
    assert Rights.from_document(one).digest == Rights.from_document(dict(reversed(two.items()))).digest
    assert Rights.from_document(one).digest != Rights.from_document(FULL).digest


def test_the_order_of_creators_is_kept() -> None:
    (credit,) = Rights.from_document(FULL).attribution
    assert credit.creators == ("B", "A")


def test_a_signature_is_made_over_everything_else() -> None:
    plain = Rights.from_document(GOOD)
    signed = Rights.from_document(but({"signature": SIGNATURE}))
    assert signed.signed_bytes() == plain.signed_bytes() == canonical(plain.to_document())
    assert signed.digest != plain.digest


def test_making_a_record_checks_it_and_brings_it_into_canonical_form() -> None:
    record = Rights(
        licence=Grant(expression="cc0-1.0"),
        holder=(Holder(name="B"), Holder(name="A"), Holder(name="B")),
        embargo_until=datetime(2026, 1, 1, tzinfo=UTC),
    )
    assert record == Rights.from_document(record.to_document())
    assert record.licence.expression == "CC0-1.0"
    assert record.holder == (Holder(name="A"), Holder(name="B"))


@pytest.mark.parametrize(
    "members",
    [
        {"tier": "public"},
        {"tier": None},
        {"licence": None},
        {"licence": "CC-BY-4.0"},
        {"holder": "Lab"},
        {"holder": (Holder(name=""),)},
        {"embargo_until": datetime(2026, 1, 1)},  # noqa: DTZ001 - what is wrong with it
        {"signoff": ({"by": "A"},)},
        {"rights_version": "2.0"},
    ],
)
def test_no_record_exists_that_is_wrong(members: dict[str, Any]) -> None:
    with pytest.raises(SchemaError):
        Rights(**members)


# --- documents -------------------------------------------------------------------------------------------


def test_all_problems_are_told_with_their_places() -> None:
    document = but(
        {"tier": "public", "licence.expresion": "MIT", "holder": [{"name": ""}, {}], "rights_version": DELETE}
    )
    with pytest.raises(SchemaError) as caught:
        Rights.from_document(document)
    assert {(p.where, p.kind) for p in caught.value.problems} == {
        ("rights_version", "missing"),
        ("tier", "value"),
        ("licence.expresion", "unknown"),
        ("holder.0.name", "value"),
        ("holder.1.name", "missing"),
    }


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("embargo_until", "2026-02-30T00:00:00Z"),
        ("embargo_until", "2026-01-01T00:00:00"),
        ("embargo_until", "2026-01-01"),
        ("embargo_until", "2026-01-01T24:00:00Z"),
        ("embargo_until", "2026-01-01T00:00:00Z\n"),
        ("embargo_until", "9999-12-31T23:59:59Z"),
        ("embargo_until", 1767225600),
        ("holder", [{"name": " "}]),
        ("holder", [{"name": "a\x1b[2J"}]),
        ("holder", [{"name": "a\u202eb"}]),
        ("holder", [{"name": "a\ud800"}]),
        ("holder", {"name": "Lab"}),
        ("holder", [{"name": "x"}] * 10_001),
        ("source", [{"uri": "a", "sha256": HASH.upper()}]),
        ("source", [{"uri": "a", "bytes": -1}]),
        ("source", [{"uri": "a", "bytes": True}]),
        ("source", [{"uri": "a", "bytes": 1.5}]),
        ("jurisdiction.collected_in", ["China"]),
        ("purpose.limits", ["no-fun"]),
        ("people.form", [{"sha256": HASH, "date": "2026-02-29"}]),
        ("signature", {**SIGNATURE, "value": "AAAA"}),
        ("people", []),
        ("people", None),
    ],
)
def test_what_is_not_told_right_is_refused(path: str, value: object) -> None:
    problems = rights_problems(but({path: value}))
    assert problems
    assert all(problem.where.startswith(path) for problem in problems)


@given(st.integers(1, 60))
def test_the_ends_of_the_calendar_survive_their_document(minutes: int) -> None:
    for edge in (f"1000-01-01T00:00:00+00:{minutes % 60:02}", f"2999-12-31T23:59:59-00:{minutes % 60:02}"):
        record = Rights.from_document(but({"embargo_until": edge}))
        assert Rights.from_document(record.to_document()) == record


@pytest.mark.parametrize(
    "document", [float("nan"), {"a": object()}, "\ud800", [float("inf")], {1: 0, "1": 0}]
)
def test_what_has_no_json_form_has_no_canonical_bytes(document: object) -> None:
    with pytest.raises(SchemaError):
        canonical(document)


# --- the published schema --------------------------------------------------------------------------------


def _pattern(_: object, pattern: str, instance: object, __: object) -> Any:
    # ``$`` is the end of the text in JSON Schema; Python lets a newline follow.
    if isinstance(instance, str) and not re.fullmatch(pattern, instance):
        yield jsonschema.ValidationError("does not match")


Validator = jsonschema.validators.extend(jsonschema.Draft202012Validator, {"pattern": _pattern})
VALIDATOR = Validator(RIGHTS_SCHEMA, format_checker=jsonschema.FormatChecker(["date", "date-time"]))

LIKELY: st.SearchStrategy[Any] = st.sampled_from(
    [
        "open",
        "none",
        "unknown",
        "removed",
        "recorded-publication",
        "CC-BY-4.0",
        "",
        " ",
        "\n",
        "x\n",
        HASH,
        HASH + "\n",
        "2026-01-31",
        "2026-02-30",
        "2026-01-31T09:00:00Z",
        "2026-01-31T09:00:00+25:00",
        "2026-01-31T09:00:00.1234567Z",
        "2026-01-31t09:00:00z",
        "CN",
        "cn",
        "region:CN",
        "region:cn",
        "A" * 86 + "==",
        "x" * 301,
        "x" * 2001,
        "\ud800",
        "\u202e",
        "\x00",
        "ed25519",
        "face",
        0,
        -1,
        1,
        2**53,
        2**53 + 1,
        3.0,
        3.5,
        True,
        False,
        None,
        [],
        {},
        [[]],
        [{}],
        ["CN"],
        ["face"],
        [{"name": "x"}],
        [None],
        {"status": "none", "kinds": ["face"]},
        {"status": "none", "kinds": []},
    ]
)
JUNK = LIKELY | st.text(max_size=8) | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
MEMBER_NAMES = st.sampled_from(
    sorted({p[-1] for p in paths(FULL) if p and isinstance(p[-1], str)})
) | st.text(max_size=4)


@st.composite
def documents(draw: st.DrawFn) -> object:
    """Draw a document that states everything, then change a few things in it."""
    document: Any = draw(st.sampled_from([GOOD, FULL, FULL, {"rights_version": "1.0"}]))
    for _ in range(draw(st.integers(0, 3))):
        path = draw(st.sampled_from(list(paths(document))))
        at = document
        for step in path:
            at = at[step]
        kind = draw(st.sampled_from(["replace", "delete", "add"]))
        if kind == "add" and isinstance(at, dict):
            document = put(document, path, {**at, draw(MEMBER_NAMES): draw(JUNK)})
        elif kind == "add" and isinstance(at, list):
            document = put(document, path, [*at, draw(JUNK)])
        elif path:
            document = put(document, path, DELETE if kind == "delete" else draw(JUNK))
    return document


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(RIGHTS_SCHEMA)
    assert json.loads(json.dumps(RIGHTS_SCHEMA)) == RIGHTS_SCHEMA


@settings(max_examples=600)
@given(documents())
@example(FULL)
@example(None)
def test_the_schema_and_the_validator_agree(document: object) -> None:
    assert VALIDATOR.is_valid(document) == (not rights_problems(document))


@given(documents())
def test_what_has_no_problem_is_a_record(document: object) -> None:
    if not rights_problems(document):
        record = Rights.from_document(document)
        assert Rights.from_document(record.to_document()) == record


# --- rights.toml -----------------------------------------------------------------------------------------


def test_the_template_is_valid_and_closed_as_it_stands() -> None:
    record = Rights.from_toml(TEMPLATE)
    assert record == Rights()
    assert len(reasons(record, now=NOW)) == 8


def test_every_word_of_a_vocabulary_is_told_in_the_template() -> None:
    words = set(re.findall(r'"enum": \[([^\]]*)\]', json.dumps(RIGHTS_SCHEMA)))
    by_the_lab = {w for group in words for w in json.loads(f"[{group}]")}
    not_by_the_lab = {
        "ed25519",
        "agree",
        "question",
        "object",
        "pass",
        "risk",
        "not-run",
        "defect",
        "requested",
        "effective",
        "consent",
        "court",
        "error",
        "safety",
        "format",
        "format-lossy",
        "collection",
        "adapted",
    }
    assert {word for word in by_the_lab - not_by_the_lab if f'"{word}"' not in TEMPLATE} == set()


def filled_in() -> str:
    """Return the template with its examples taken out of their comments."""
    text = re.sub(r"(?m)^# (?=\[\[|[a-z_0-9]+ = )", "", TEMPLATE)
    return re.sub(r'(?m)^((?:text_)?sha256 = )"\.\.\."', rf'\1"{HASH}"', text)


def test_the_examples_of_the_template_are_valid_too() -> None:
    record = Rights.from_toml(filled_in())
    assert record.embargo_until == datetime(2027, 1, 31, 8, tzinfo=UTC)
    assert record.holder[0].name == "Example Robotics Lab"
    assert record.people.form[0].date == "2026-01-31"
    assert record.deid.verification[0].human_checked


def test_a_filled_in_template_opens_once_it_is_converted() -> None:
    text = filled_in().replace("suppressed = false", "").replace("2027-01-31", "2026-01-31")
    for member, value in {
        "expression": '"CC-BY-4.0"',
        "state": '"stated-by-holder"',
        "tier": '"open"',
        "channel": '"own-recording"',
        "basis": '"holder"',
        "present": '"operator"',
        "consent": '"recorded-publication"',
        "minors": '"none"',
        "status": '"removed"',
        "kinds": '["face"]',
        "collected_in": '["CN"]',
    }.items():
        text = re.sub(rf"(?m)^{member} = .*$", f"{member} = {value}", text)
    text = text.replace("export_block = []", "")
    record = Rights.from_toml(text)
    assert [r.code[:3] for r in reasons(record, now=NOW)] == ["R11"]
    converted = tighten(record, {"source": [{"uri": "a.hdf5", "sha256": HASH}]})
    assert reasons(converted, now=NOW) == ()


@pytest.mark.parametrize(
    "text",
    [
        "tier = ",
        "tier = 'open'",
        "rights_version = '1.0'\nembargo_until = 2026-01-01T00:00:00",
        "rights_version = '1.0'\nembargo_until = 09:00:00",
        "a." * 5_000 + "a = 1",
        "a = " + "[" * 5_000,
        "tier = 'open'\ntier = 'closed'",
    ],
)
def test_toml_that_is_wrong_is_refused_with_the_reason(text: str) -> None:
    with pytest.raises(SchemaError):
        Rights.from_toml(text)


# --- joining and tightening ------------------------------------------------------------------------------


@st.composite
def records(draw: st.DrawFn) -> Rights:
    """Draw a record, mostly of values that keep it open, so that a false opening would be seen."""
    edits = {path: draw(st.sampled_from([levels[0], levels[0], *levels])) for path, levels in LEVELS.items()}
    if edits["pii.status"] == "none":
        edits["pii.kinds"] = DELETE  # no record can say that
    return Rights.from_document(but(edits))


@st.composite
def nearly_open(draw: st.DrawFn) -> Rights:
    """Draw a record with a few statements about people and personal data, where joining is subtle."""
    names = ["people.present", "people.consent", "people.minors", "people.form", "pii.status", "pii.kinds"]
    names += ["deid.verification", "licence.state", "licence.expression", "attribution"]
    edits = {path: draw(st.sampled_from(LEVELS[path])) for path in names}
    if edits["pii.status"] == "none":
        edits["pii.kinds"] = DELETE
    return Rights.from_document(but(edits))


SOME = records() | nearly_open()
POLICY = st.sampled_from(list(POLICIES.values()))


def is_open(record: Rights, policy: Policy) -> bool:
    return not reasons(record, now=NOW, policy=policy, signature_valid=True)


@settings(max_examples=400)
@given(SOME, SOME, POLICY)
def test_what_closes_one_closes_the_join(a: Rights, b: Rights, policy: Policy) -> None:
    if is_open(join(a, b), policy):
        assert is_open(a, policy)
        assert is_open(b, policy)


@given(SOME, SOME, SOME)
def test_joining_is_the_same_in_any_order_and_grouping_and_however_often(
    a: Rights, b: Rights, c: Rights
) -> None:
    assert join(a) == a
    assert join(a, a) == a
    assert join(a, b) == join(b, a)
    assert join(join(a, b), c) == join(a, join(b, c)) == join(a, b, c)
    assert join(a, join(a, b)) == join(a, b)


@given(SOME)
def test_nothing_is_stricter_than_a_record_that_states_nothing(a: Rights) -> None:
    for policy in POLICIES.values():
        assert not is_open(join(a, Rights()), policy)


def test_joining_keeps_open_what_may_stay_open() -> None:
    operator = but({"people": {"present": "operator", "consent": "recorded-publication", "minors": "none"}})
    masked = but(
        {"pii": {"status": "removed", "kinds": ["face"]}, "deid": {"verification": [CHECK]}}, operator
    )
    share = but({"licence.expression": "CC-BY-SA-4.0", "holder": [{"name": "Other"}]})
    later = but({"embargo_until": "2026-05-01T00:00:00Z", "source": [{"uri": "b", "sha256": OTHER_HASH}]})
    joined = join(*map(Rights.from_document, (GOOD, operator, masked, share, later)))
    assert reasons(joined, now=NOW) == ()
    assert joined.licence.expression == "CC-BY-4.0 AND CC-BY-SA-4.0"
    assert [holder.name for holder in joined.holder] == ["Lab", "Other"]
    assert joined.people.present == "operator"
    assert len(joined.source) == 2


def test_removing_and_consenting_do_not_vouch_for_each_other() -> None:
    operator = but({"people": {"present": "operator", "consent": "recorded-publication", "minors": "none"}})
    removed = but({"pii": {"status": "removed"}, "deid": {"verification": [CHECK]}}, operator)
    consented = but({"pii": {"status": "consented"}}, operator)
    joined = join(Rights.from_document(removed), Rights.from_document(consented))
    assert joined.pii.status == "present"


WHOLE = Rights.from_document(GOOD)


def test_a_part_that_states_nothing_inherits_everything_but_the_signature() -> None:
    assert tighten(WHOLE, {}) == WHOLE
    assert tighten(Rights.from_document(but({"signature": SIGNATURE})), {}) == WHOLE


@pytest.mark.parametrize(
    "part",
    [
        {"tier": "gated"},
        {"tier": "closed"},
        {"people": {"present": "operator", "consent": "recorded-publication"}},
        {"people": {"present": "operator", "consent": "recorded-research"}},
        {"pii": {"status": "removed", "kinds": ["face"]}, "deid": {"verification": [CHECK]}},
        {"licence": {"expression": "CC-BY-4.0 AND CC0-1.0"}},
        {"licence": {"state": "stated-by-distributor"}},
        {"embargo_until": "2030-01-01T00:00:00Z"},
        {"purpose": {"limits": ["cite"]}},
        {"withdrawal": {"state": "requested"}},
        {"source": [{"uri": "b", "sha256": OTHER_HASH}]},
        {"quality": {"gate": "defect"}},
        {"derived_from": [{"record": HASH, "operation": "adapted"}]},
    ],
    ids=str,
)
def test_a_part_may_tighten(part: Document) -> None:
    tight = tighten(WHOLE, part)
    for key, value in part.items():
        told = tight.to_document().get(key, "closed")
        assert {**told, **value} == told if isinstance(value, dict) else told == value


@pytest.mark.parametrize(
    ("part", "places"),
    [
        ({"tier": "open"}, ["tier"]),
        ({"people": {"present": "none", "minors": "none"}}, ["people.present"]),
        ({"licence": {"expression": "CC0-1.0"}}, ["licence.expression"]),
        ({"licence": {"state": "stated-by-holder"}}, ["licence.state"]),
        ({"embargo_until": None}, ["embargo_until"]),
        ({"embargo_until": "2030-01-01T00:00:00+01:00"}, ["embargo_until"]),
        ({"purpose": {"limits": []}}, ["purpose.limits"]),
        ({"purpose": {"limits": ["cite"]}, "tier": "open"}, ["purpose.limits", "tier"]),
        ({"signoff": [{"by": "Z", "at": "2026-01-01T00:00:00Z"}]}, ["signoff"]),
        ({"withdrawal": {"state": "none"}}, ["withdrawal.state"]),
    ],
    ids=str,
)
def test_a_part_that_loosens_is_invalid_and_not_ignored(part: Document, places: list[str]) -> None:
    whole = Rights.from_document(
        but(
            {
                "tier": "gated",
                "people": {"present": "operator", "consent": "recorded-research", "minors": "unknown"},
                "licence.state": "stated-by-distributor",
                "embargo_until": "2030-01-01T00:00:00Z",
                "purpose.limits": ["no-weapons"],
                "signoff": DELETE,
                "withdrawal.state": "requested",
            }
        )
    )
    with pytest.raises(SchemaError) as caught:
        tighten(whole, part)
    found = {problem.where for problem in caught.value.problems}
    assert set(places) <= found
    assert {problem.kind for problem in caught.value.problems} == {"conflict"}


@pytest.mark.parametrize(
    "part", [None, [], WHOLE, {"tier": "public"}, {1: 2}, {"open": True}, "tier", {"people": None}]
)
def test_a_part_that_is_no_document_is_invalid(part: object) -> None:
    with pytest.raises(SchemaError):
        tighten(WHOLE, part)


@settings(max_examples=300)
@given(SOME, SOME, st.sets(st.sampled_from(list(Rights.__dataclass_fields__))), POLICY)
def test_no_part_opens_what_is_closed(whole: Rights, other: Rights, stated: set[str], policy: Policy) -> None:
    part = {key: value for key, value in other.to_document().items() if key in stated}
    try:
        tight = tighten(whole, part)
    except SchemaError:
        return
    if is_open(tight, policy):
        # what describes the item itself is its own; all else was open before
        own = {key: tight.to_document().get(key, DELETE) for key in ("source", "quality", "signature")}
        assert is_open(Rights.from_document(but(own, whole.to_document())), policy)
