"""What is wrong with an episode is told, every problem with its place."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from teleopen.schemas import (
    ActionContract,
    ActionPart,
    Clock,
    Episode,
    Event,
    FieldFate,
    Stream,
    StreamSpec,
    block_problems,
    canonical,
    episode_id,
    from_document,
    nominal_times,
    problems_of,
    time_problems,
)

from tests.schemas.test_document import GOLDEN


@pytest.fixture
def episode() -> Episode:
    return from_document(Episode, json.loads(GOLDEN.read_bytes()))


def with_stream(episode: Episode, **changes: Any) -> Episode:
    stream = episode.streams["action"]
    changed = replace(stream, spec=replace(stream.spec, **changes))
    return replace(episode, streams={**episode.streams, "action": changed})


def with_contract(*parts: tuple[int, int]) -> ActionContract:
    return ActionContract(parts=tuple(ActionPart(start=a, stop=b, space="unknown") for a, b in parts))


SPOILT: dict[str, Callable[[Episode], Episode]] = {
    "streams.action.axes": lambda e: with_stream(e, axes=("only one",)),
    "streams.action.unit": lambda e: with_stream(e, unit=("rad", "rad")),
    "streams.action.dtype": lambda e: with_stream(e, dtype="object"),
    "streams.action.shape": lambda e: with_stream(e, kind="video"),
    "streams.action.contract": lambda e: with_stream(e, contract=None),
    "streams.action.contract.parts.1": lambda e: with_stream(e, contract=with_contract((0, 2), (1, 3))),
    "streams.action.contract.parts.0": lambda e: with_stream(e, contract=with_contract((0, 99))),
    "streams.action.clock": lambda e: with_stream(e, clock="nowhere"),
    "streams.action.other": lambda e: with_stream(e, name="action.other"),
    "clocks.steps.declared_hz": lambda e: replace(
        e, clocks={"steps": replace(e.clocks["steps"], kind="nominal", declared_hz=None)}
    ),
    "events.0.stop_ns": lambda e: replace(e, events=(Event(kind="phase", start_ns=5, stop_ns=4),)),
    "instructions.0": lambda e: replace(e, instructions=("pick\x1b[2Jup",)),
    "streams.Action": lambda e: replace(
        e,
        streams={
            **e.streams,
            "Action": Stream(spec=replace(e.streams["action"].spec, name="Action"), length=3),
        },
    ),
    "provenance.ledger.0": lambda e: replace(
        e,
        provenance=replace(
            e.provenance, ledger=(FieldFate(field="x", fate="dropped", to=("action",), how="y"),)
        ),
    ),
    "streams.timestamp": lambda e: replace(
        e,
        streams={
            **e.streams,
            "timestamp": Stream(
                spec=StreamSpec(name="timestamp", kind="low_dim", dtype="float32", shape=()), length=3
            ),
        },
    ),
}


@pytest.mark.parametrize("where", SPOILT)
def test_a_spoilt_header_is_told_with_its_place(episode: Episode, where: str) -> None:
    found = {problem.where for problem in problems_of(SPOILT[where](episode))}
    assert where in found, found


def test_a_stream_that_no_field_of_the_ledger_explains_is_a_problem(episode: Episode) -> None:
    ledger = tuple(fate for fate in episode.provenance.ledger if "action" not in fate.to)
    spoilt = replace(episode, provenance=replace(episode.provenance, ledger=ledger))
    assert [p.where for p in problems_of(spoilt)] == ["streams.action"]


def test_blocks_and_times_are_held_to_the_header(episode: Episode) -> None:
    spec = episode.streams["action"].spec
    good = np.zeros((3, *spec.shape), spec.np_dtype)
    assert block_problems(spec, good) == []
    assert block_problems(spec, good.astype("float64"))[0].kind == "type"
    assert block_problems(spec, good[:, :-1])
    clock = Clock(name="steps", kind="nominal", declared_hz=50, length=3)
    assert time_problems(clock, nominal_times(3, 50)) == []
    assert time_problems(clock, np.array([0, 2, 1])) != []
    assert time_problems(clock, nominal_times(2, 50)) != []


def test_the_id_of_an_episode_is_of_its_content_alone() -> None:
    assert episode_id(["b" * 64, "a" * 64], "7") == episode_id(["a" * 64, "b" * 64], "7")
    assert len({episode_id(["a"]), episode_id(["b"]), episode_id(["a"], "1"), episode_id(["a", "1"])}) == 4
    assert episode_id(["a"])[14] == "8"


def test_canonical_json_has_one_form() -> None:
    assert canonical({"b": 1.5, "a": ["ü", None]}) == '{"a":["ü",null],"b":1.5}'.encode()
    with pytest.raises(ValueError, match=r"."):
        canonical(float("nan"))
