"""Any mapping over any table: an episode that accounts for everything, or an error made on purpose."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from teleopen.converters.mapped import Mapped
from teleopen.schemas import Episode, TeleopenError, block_problems, problems_of, time_problems

from tests.converters.tables import KINDS, write_mapping, write_table

NAMES = ["q", "t", "a/b", "img", "text", "index", "absent"]
STREAMS = ["action", "observation.q", "observation.images.top", "observation.state", "Action", "extra.q"]


@st.composite
def columns(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a table: some columns share a number of rows."""
    table: dict[str, Any] = {"q": np.zeros((6, 3), np.float32)}
    for name in draw(st.lists(st.sampled_from(NAMES[:-1]), max_size=4, unique=True)):
        rows = draw(st.sampled_from([6, 6, 6, 6, 1, 5, 40]))
        what = draw(st.sampled_from(["f4", "i8", "u1", "?", "u2", "text", "times", "nan", "runs"]))
        shape = draw(st.sampled_from([(), (1,), (3,), (7,), (2, 3), (4, 5, 3), (3, 4, 5)]))
        random = np.random.default_rng(draw(st.integers(0, 9)))
        if what == "text":
            table[name] = [f"say {i // 3}" for i in range(rows)]
        elif what == "times":
            table[name] = np.cumsum(random.integers(0, 9, rows))
        elif what == "runs":
            table[name] = np.repeat(np.arange(rows), 2)[:rows]
        elif what == "nan":
            table[name] = np.full((rows, *shape), np.nan)
        else:
            table[name] = random.integers(0, 2, (rows, *shape)).astype(what)
    return table


OPTIONAL: dict[str, list[Any]] = {
    "columns": [[0, 1], [1, 3], [0, 9], [3, 2]],
    "kind": ["video", "depth", "low_dim"],
    "encoding": ["jpeg", "png", "raw"],
    "order": ["rgb", "bgr"],
    "layout": ["chw", "hwc"],
    "unit": ["rad", ["m", "m", "1"]],
    "axes": [["x", "y", "z"], ["x"]],
    "shape": [[3], [4, 5, 3]],
    "clock": ["steps", "other", "none"],
    "frame": ["none", "base"],
}


@st.composite
def mappings(draw: st.DrawFn, table: dict[str, Any]) -> dict[str, Any]:
    """Draw a mapping that speaks of a table, mostly without contradictions."""

    def seldom(often: int = 5) -> bool:
        return draw(st.integers(0, often)) == often

    def field() -> str:
        return draw(st.sampled_from(NAMES if seldom(12) else ["q", *table]))

    def clock() -> dict[str, Any]:
        if seldom(4):
            return {
                "field": draw(st.sampled_from(["t", field()])),
                "unit": draw(st.sampled_from(["s", "ms", "ns"])),
            }
        return {"rate_hz": draw(st.sampled_from([50, 0.5, "unknown", 1e9]))}

    def stream() -> dict[str, Any]:
        rule = {"field": [field(), field()] if seldom() else field()}
        for key in draw(st.lists(st.sampled_from(sorted(OPTIONAL)), max_size=2)) if seldom(2) else []:
            rule[key] = draw(st.sampled_from(OPTIONAL[key]))
        return rule

    names = draw(st.lists(st.sampled_from(STREAMS), min_size=1, max_size=2, unique=True))
    document: dict[str, Any] = {"clocks": {"steps": clock()}, "streams": {name: stream() for name in names}}
    if seldom(8):
        document["clocks"]["other"] = clock()
    if seldom():
        document["events"] = [{"field": field(), "kind": "phase"}]
    if seldom():
        document["drop"] = {draw(st.sampled_from([field(), "a/*", "i*"])): "not needed"}
    if seldom():
        document["episode"] = {draw(st.sampled_from(["outcome_field", "instruction_field"])): field()}
    if seldom():
        splits = [{"column": "index"}, {"column": field()}, {"ends": "t"}, {"groups": "a"}, {"groups": "*"}]
        document["episodes"] = draw(st.sampled_from(splits))
    return document


def toml(document: dict[str, Any], home: str = "") -> str:
    """Write a document as TOML: inline but for its tables."""
    own, below = [], []
    for key, value in document.items():
        name = f"{home}.{json.dumps(key)}".lstrip(".")
        if isinstance(value, dict):
            below.append(f"[{name}]\n{toml(value, name)}")
        elif key == "events":
            own.append(
                "events = ["
                + ", ".join(f'{{field = {json.dumps(e["field"])}, kind = "phase"}}' for e in value)
                + "]\n"
            )
        else:
            own.append(f"{json.dumps(key)} = {json.dumps(value)}\n")
    return "".join(own + below)


anything = given(
    table=columns(),
    kind=st.sampled_from(KINDS),
    block_bytes=st.sampled_from([1, 100, 1 << 20]),
    data=st.data(),
)


@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@anything
def test_a_mapping_makes_whole_episodes_or_says_what_is_wrong(
    tmp_path_factory: pytest.TempPathFactory,
    table: dict[str, Any],
    kind: str,
    block_bytes: int,
    data: st.DataObject,
) -> None:
    convert(tmp_path_factory.mktemp("mapped"), table, kind, block_bytes, data)


@pytest.mark.slow
@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@anything
def test_many_mappings_make_whole_episodes_or_say_what_is_wrong(
    tmp_path_factory: pytest.TempPathFactory,
    table: dict[str, Any],
    kind: str,
    block_bytes: int,
    data: st.DataObject,
) -> None:
    convert(tmp_path_factory.mktemp("mapped"), table, kind, block_bytes, data)


def convert(folder: Path, table: dict[str, Any], kind: str, block_bytes: int, data: st.DataObject) -> None:
    """Write a table, draw a mapping for it, and judge what comes out."""
    if kind == "parquet":
        shortest = min(map(len, table.values()))
        table = {name: value[:shortest] for name, value in table.items()}
    document = data.draw(mappings(table))
    path = write_table(folder, kind, table)
    converter = Mapped(
        mapping=str(write_mapping(folder / "lab.toml", toml(document))), block_bytes=block_bytes
    )
    try:
        for episode in converter.episodes(path):
            judge(episode, set(table))
            event("an episode")
    except TeleopenError:
        event("refused")


def judge(episode: Episode, names: set[str]) -> None:
    """Hold an episode against the rules, its payload as well; every column has to be in the ledger."""
    assert problems_of(episode) == []
    assert {name.rpartition("/")[2] for name in names} <= {
        fate.field.rpartition("/")[2] for fate in episode.provenance.ledger
    }
    for stream in episode.streams.values():
        blocks = list(stream)
        assert sum(map(len, blocks)) == stream.length
        assert [p for block in blocks for p in block_problems(stream.spec, block)] == []
    for clock in episode.clocks.values():
        assert time_problems(clock, clock.read()) == []
