"""The page on adding a format is followed to the letter: its converter is run, and held against the laws."""

from __future__ import annotations

import dataclasses
import importlib
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from teleopen.converters import Converter
from teleopen.schemas import FormatError, block_problems, problems_of, time_problems

from tests.converters.reading import read_all

PAGE = Path(__file__).resolve().parents[2] / "docs" / "add-a-format.md"
ROWS = np.random.default_rng(3).normal(size=(23, 4))


@pytest.fixture
def converter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type[Any]:
    """Put the page's code into a module of its own, as somebody's package would, and import it."""
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    home = tmp_path / "package"
    home.mkdir()
    home.joinpath("acme_teleopen.py").write_text(code, "utf-8")
    monkeypatch.syspath_prepend(str(home))
    importlib.invalidate_caches()
    module = importlib.import_module("acme_teleopen")
    found: type[Any] = module.CONVERTER
    return found


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "a.acme"
    path.write_text("ACME 25\n" + "".join(" ".join(map(repr, row)) + "\n" for row in ROWS.tolist()))
    return path


def test_it_keeps_the_protocol(converter: type[Any], log: Path, tmp_path: Path) -> None:
    made = converter()
    assert isinstance(made, Converter)
    assert pickle.loads(pickle.dumps(made)) == made
    assert dataclasses.is_dataclass(converter)
    assert made.probe(log)
    assert not any(made.probe(path) for path in (tmp_path, tmp_path / "absent", PAGE))


@pytest.mark.parametrize("block_bytes", [1, 100, 1 << 20])
def test_it_gives_what_was_written_in_any_range(converter: type[Any], log: Path, block_bytes: int) -> None:
    (episode,) = converter(block_bytes=block_bytes).episodes(log)
    assert problems_of(episode) == []
    stream = pickle.loads(pickle.dumps(episode)).streams["observation.joint_position"]
    for start, stop in ((0, 23), (0, 1), (7, 11), (22, 23), (5, 5)):
        blocks = list(stream.read(start, stop))
        got = np.concatenate(blocks) if blocks else np.empty((0, 4))
        np.testing.assert_array_equal(got, ROWS[start:stop])
        assert all(len(block) == 1 or block.nbytes <= block_bytes for block in blocks)
        assert [p for block in blocks for p in block_problems(stream.spec, block)] == []
    clock = episode.clocks["steps"]
    assert time_problems(clock, clock.read()) == []
    assert (clock.declared_hz, clock.kind) == (25, "nominal")
    assert {fate.field for fate in episode.provenance.ledger} == {"rows", "rate"}


@pytest.mark.parametrize(
    "text",
    [
        "ACME 25\n",
        "ACME\n1 2\n",
        "ACME x\n1 2\n",
        "ACME 25\n1 2\n3\n",
        "ACME 25\n1 y\n",
        "ACME 25\n1 2",
        "ACME 25\n" + "1" * 5000,
    ],
)
def test_it_says_where_a_log_is_broken(converter: type[Any], tmp_path: Path, text: str) -> None:
    path = tmp_path / "b.acme"
    path.write_text(text)
    with pytest.raises(FormatError) as caught:
        read_all(converter(), path)
    assert caught.value.where


def test_the_page_names_files_that_are_there() -> None:
    text = PAGE.read_text("utf-8")
    home = PAGE.parents[1] / "converters"
    readers = re.findall(r"`(_[a-z0-9_]+\.py)`", text)
    assert readers
    assert [name for name in readers if not home.joinpath(name).is_file()] == []
