"""Headers that are alike cost less, and come to just what each of them comes to by itself."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from teleopen.hub.sync import alike
from teleopen.hub.sync.alike import PublicHeader, Scrubber
from teleopen.hub.sync.scrub import Scrubbed, scrub
from teleopen.schemas import Clock, Episode, canonical, episode_id, strict_json, to_document

from tests.hub.sync.publishing import small
from tests.strategies import headers

NAMES = ("Ada Lovelace",)
FAILURES = (ValueError, KeyError, TypeError, AttributeError)
TOKENS = re.compile(r'"(?:[^"\\]|\\.)*"(?!:)|-?[0-9][0-9.eE+-]*|true|false|null|\[\]|\{\}')
"""Values of a JSON text that have none in them."""
ODD = (
    *("0", "1", "1.0", "1e0", "01", "-0", "-1", "96", "96.0", "true", "false", "null", "NaN", "1e999"),
    *('"x"', '""', '"1"', r'"\u0078"', r'"\ud800"', r'"\u0000"', '"\u202e"', '"a\u0301"', '"é%s"', '"%d"'),
    *(
        '"gpu17.lab.example.edu"',
        '"/home/alice/x"',
        '"Ada Lovelace"',
        f'"{"a" * 1001}"',
        '"steps"',
        '"action"',
    ),
    *("[]", "{}", "[1]", '["x"]', '{"a":1}', '{"a":1,"a":1}', '{"b":1,"a":1}', "[1 ]", "[" * 70 + "]" * 70),
    *("9" * 5000, "1],[2", "1}", '1,"length":1', "0" * 64, f'"{"0" * 64}"', f'"{"0" * 63}g"'),
)
"""Texts that may be, or may be no, values of a member."""
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def in_full(text: str, withheld: frozenset[str] = frozenset()) -> PublicHeader | type[Exception]:
    """Return what a header comes to without any other: the words of each step, one after the other."""
    try:
        header = strict_json(text)
        told = scrub(header, NAMES, withheld)
        public = canonical(told.document).decode()
        return PublicHeader(
            id=str(told.document.get("id", "")),
            embodiment=str(told.document.get("embodiment", "")),
            text=public,
            problems=told.problems,
            unchanged=canonical(header).decode() == public,
            sources=tuple(file["sha256"] for file in header["provenance"]["sources"]),
        )
    except FAILURES as error:
        return type(error)


def by_others(scrubber: Scrubber, text: str) -> PublicHeader | type[Exception]:
    try:
        return scrubber.public(text)
    except FAILURES as error:
        return type(error)


def told(document: object) -> str:
    return canonical(document).decode()


@st.composite
def spoilt(draw: st.DrawFn, text: str) -> str:
    """Draw a text with some of its values exchanged, by odd ones or by one another."""
    for _ in range(draw(st.integers(0, 3))):
        found = [match.span() for match in TOKENS.finditer(text)]
        if not found:
            break
        start, stop = draw(st.sampled_from(found))
        other = draw(st.sampled_from([*ODD, *(text[first:last] for first, last in found)]))
        text = text[:start] + other + text[stop:]
    return text


@quick
@given(headers(), st.data())
def test_a_header_comes_to_the_same_among_others_as_by_itself(header: Episode, data: st.DataObject) -> None:
    text = told(to_document(header))
    withheld = frozenset(data.draw(st.lists(st.sampled_from(sorted(header.streams)), max_size=2)))
    scrubber = Scrubber(NAMES, withheld)
    for one in (text, *data.draw(st.lists(spoilt(text), min_size=4, max_size=6)), text):
        assert by_others(scrubber, one) == in_full(one, withheld), one


def header_text(**changes: Any) -> str:
    """Return the header of a small episode."""
    return told({**to_document(small(1)), **changes})


PLAIN = header_text()
CHANGES = {
    "a number that is another one": ('"length":{n}', '"length":{n}.0'),
    "a truth in the place of a number": ('"length":{n}', '"length":true'),
    "a length that is none": ('"length":{n}', '"length":0'),
    "a stream that is longer than its clock": ('"length":{n},"spec"', '"length":{n}0,"spec"'),
    "a doubled key": ('"extra":{{', '"extra":{{"a":1,"a":1'),
    "keys in another order": ('"extra":{{', '"extra":{{"b":1,"a":1'),
    "what is no number": ('"extra":{{', '"extra":{{"a":NaN'),
    "a half of a pair": ('"extra":{{', '"extra":{{"a":"\\ud800"'),
    "nesting that is just too deep": ('"extra":{{', '"extra":{{"a":' + "[" * 62 + "]" * 62),
    "nesting that is just not": ('"extra":{{', '"extra":{{"a":' + "[" * 61 + "]" * 61),
    "a space": ('"extra":{{', '"extra": {{'),
    "a secret": ('"instructions":[', '"instructions":["token: s3cr3tvalue"'),
    "a control character": ('"instructions":[', '"instructions":["\\u0007"'),
    "an id that is none": ('"id":"', '"id":"x'),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_wrong_with_one_is_found_though_it_is_like_another(change: str) -> None:
    text = header_text(extra={}, instructions=[])
    length = re.search(r'"length":([0-9]+)', text)
    assert length is not None
    before, after = (part.format(n=length[1]) for part in CHANGES[change])
    assert before in text
    other = text.replace(before, after, 1)
    scrubber = Scrubber(NAMES, frozenset())
    assert scrubber.public(text) == in_full(text)
    assert scrubber._models
    assert by_others(scrubber, other) == in_full(other)
    assert scrubber.public(text) == in_full(text)


@pytest.mark.parametrize("stays", ["x", 1, [], {}, {"spec": "x"}, {"spec": {}}, {"spec": {"clock": []}}])
def test_a_stream_that_stays_may_have_any_form(stays: Any) -> None:
    document = json.loads(PLAIN)
    text = told({**document, "streams": {**document["streams"], "private": stays}})
    scrubber = Scrubber(NAMES, frozenset({"private"}))
    for one in (text, PLAIN, text):
        assert by_others(scrubber, one) == in_full(one, frozenset({"private"}))


def another(number: int) -> str:
    """Return a header that differs from others as episodes of one kind do."""
    document = json.loads(PLAIN)
    document["id"] = episode_id([], str(number))
    document["instructions"] = [f"Take cup {number % 7}"]
    for one in (*document["clocks"].values(), *document["streams"].values()):
        one["length"] = 1 + number % 90
    for source in document["provenance"]["sources"]:
        source |= {"uri": f"/data/run {number}/episode_{number:06d}.hdf5", "sha256": f"{number:064x}"}
    return told(document)


def test_of_many_that_are_alike_only_one_is_scrubbed_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = []

    def counted(header: Any, *about: Any) -> Scrubbed:
        whole.append(header["id"])
        return scrub(header, *about)

    monkeypatch.setattr(alike, "scrub", counted)
    scrubber = Scrubber(NAMES, frozenset())
    found = [scrubber.public(another(number)) for number in range(200)]
    assert len(whole) == 1
    assert found == [in_full(another(number)) for number in range(200)]
    assert len({one.text for one in found}) == 200
    assert not any("/data/run" in one.text for one in found)


def test_what_is_remembered_does_not_grow_without_end() -> None:
    scrubber = Scrubber((), frozenset())
    for number in range(3 * alike._MODELS):
        document = json.loads(another(number)) | {"embodiment": f"robot {number}"}
        scrubber.public(told(document))
    assert len(scrubber._models) == alike._MODELS
    for number in range(alike._KNOWN + 50):
        scrubber.public(another(number))
    assert all(len(gap.known) <= alike._KNOWN for model in scrubber._models for _, gap, _ in model.parts)
    long = json.loads(PLAIN) | {"instructions": ["x" * (alike._LONGEST_KNOWN + 1)]}
    scrubber.public(told(long))
    assert max(len(raw) for m in scrubber._models for _, gap, _ in m.parts for raw in gap.known) < 1000


@example('%s %d {0} \\ " %%')
@given(st.text())
def test_no_text_of_a_header_is_taken_for_a_gap_of_its_model(text: str) -> None:
    scrubber = Scrubber((), frozenset())
    for embodiment in (f"x{text}", f"x{text}"):
        header = header_text(embodiment=embodiment, instructions=[text])
        found = by_others(scrubber, header)
        if isinstance(found, PublicHeader) and not found.problems:
            assert strict_json(found.text)["id"] == json.loads(header)["id"]


def test_a_clock_is_asked_for_a_sample_as_contradictions_ask() -> None:
    clock = Clock(name="steps", kind="nominal", declared_hz=30.0)
    assert list(alike._TOGETHER[Clock, "length"](clock.length)) == ["a clock needs at least one sample"]
