"""Headers survive JSON; the published schema and the validator agree; version 1 is readable for ever."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from teleopen.schemas import (
    Episode,
    SchemaError,
    canonical,
    from_document,
    json_schema,
    member_parser,
    problems_of,
    strict_json,
    to_document,
)

from tests.strategies import headers, json_values
from tools.schemas import FOLDER, documents

ODD: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    1,
    0.0,
    1.0,
    1.5,
    -1,
    1e300,
    "",
    "x",
    "a/b",
    [],
    ["x"],
    {},
    {"x": 1},
)
"""Values of every kind, for places where most of them do not belong."""
GOLDEN = Path(__file__).parent / "golden" / "episode-1.json"
VALIDATOR = jsonschema.Draft202012Validator(json_schema())
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@quick
@given(headers())
def test_a_header_survives_json(episode: Episode) -> None:
    assert problems_of(episode) == []
    raw = canonical(to_document(episode))
    again = from_document(Episode, strict_json(raw))
    assert again == episode
    assert canonical(to_document(again)) == raw


@quick
@given(headers())
def test_the_published_schema_accepts_what_the_validator_accepts(episode: Episode) -> None:
    VALIDATOR.validate(json.loads(canonical(to_document(episode))))


def places(document: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the place of every member of a document."""
    items = (
        document.items()
        if isinstance(document, dict)
        else enumerate(document)
        if isinstance(document, list)
        else ()
    )
    return [place for key, value in items for place in [(*at, key), *places(value, (*at, key))]]


def inner(document: Any, place: tuple[Any, ...]) -> Any:
    """Return what lies at a place."""
    for key in place:
        document = document[key]
    return document


def is_accepted(document: Any) -> bool:
    try:
        from_document(Episode, document)
    except SchemaError:
        return False
    return True


@quick
@given(headers(), json_values, st.data())
def test_schema_and_validator_agree_on_a_spoilt_document(
    episode: Episode, value: Any, data: st.DataObject
) -> None:
    document = json.loads(canonical(to_document(episode)))
    place = data.draw(st.sampled_from([p for p in places(document) if p[0] != "rights"]))
    target = inner(document, place[:-1])
    if data.draw(st.booleans()) and isinstance(target, dict):
        del target[place[-1]]
    else:
        target[place[-1]] = value
    assert is_accepted(document) == VALIDATOR.is_valid(document), place


def test_schema_and_validator_agree_on_each_place_of_a_document() -> None:
    text = GOLDEN.read_bytes()
    differ = []
    for place in places(json.loads(text)):
        for value in ODD if place[0] != "rights" else ():
            document = json.loads(text)
            inner(document, place[:-1])[place[-1]] = value
            if is_accepted(document) != VALIDATOR.is_valid(document):
                differ.append((place, value))
    assert differ == []


def outcome(parse: Callable[[Any], Any], value: object) -> Any:
    """Return what comes of a value, with its type, or all that is wrong with it."""
    try:
        parsed = parse(value)
    except SchemaError as error:
        return error.problems
    return type(parsed), parsed


def _member(name: str, document: object) -> Any:
    return getattr(from_document(Episode, document), name)


def test_a_member_by_itself_comes_to_what_it_comes_to_in_its_document() -> None:
    document = json.loads(GOLDEN.read_bytes())
    for name in document.keys() - {"schema"}:
        parse = member_parser(Episode, name)
        for value in (*ODD, document[name]):
            assert outcome(parse, value) == outcome(partial(_member, name), {**document, name: value})


def test_unknown_members_of_a_header_are_kept() -> None:
    document = {**json.loads(GOLDEN.read_bytes()), "from_the_future": {"x": [1, None]}}
    assert to_document(from_document(Episode, document)) == document


def test_version_1_is_read_as_it_was_written() -> None:
    raw = GOLDEN.read_bytes()
    episode = from_document(Episode, strict_json(raw))
    assert problems_of(episode) == []
    assert canonical(to_document(episode)) == raw.strip()


def test_a_newer_schema_is_refused() -> None:
    document = {**json.loads(GOLDEN.read_bytes()), "schema": 2}
    with pytest.raises(SchemaError, match="reads version 1"):
        from_document(Episode, document)


def test_every_problem_is_told_with_its_place() -> None:
    document = json.loads(GOLDEN.read_bytes())
    document["outcome"] = "maybe"
    document["clocks"]["steps"]["length"] = -1
    del document["streams"]["action"]["spec"]["dtype"]
    with pytest.raises(SchemaError) as caught:
        from_document(Episode, document)
    assert {p.where for p in caught.value.problems} == {
        "outcome",
        "clocks.steps.length",
        "streams.action.spec.dtype",
    }


@pytest.mark.parametrize("raw", ['{"a":1,"a":2}', "[NaN]", "[Infinity]", "[" * 100_000, '{"a"', "\ufeff{}"])
def test_json_that_readers_disagree_on_is_refused(raw: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        strict_json(raw)


@pytest.mark.parametrize("name", sorted(documents()))
def test_schema_files_are_fresh(name: str) -> None:
    assert FOLDER.joinpath(name).read_text(encoding="utf-8") == documents()[name], (
        "run: python tools/schemas.py"
    )
