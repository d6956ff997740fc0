"""Every converter has its page and its line in the index, and every page its converter."""

import re
from dataclasses import fields
from pathlib import Path

import pytest
from teleopen.converters import converters

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "formats"
KNOWN = {n: c for n, c in converters().items() if c.__module__.startswith("teleopen.converters.")}
INDEX = FOLDER.joinpath("README.md").read_text("utf-8")
LINES = {
    cells[0].partition("]")[0].strip("[ "): [cell.strip() for cell in cells]
    for cells in re.findall(r"^\| (\[.*?) \|(.*?)\|(.*?)\|(.*?)\|(.*?)\|(.*?)\|$", INDEX, re.MULTILINE)
}

TOLD = {"rate_hz": ("rate_hz", "--rate"), "instruction": ("`instruction`", "--instruction")}
"""Options that the command line has words of its own for."""


def test_every_converter_has_a_page_and_every_page_a_converter() -> None:
    assert {page.stem for page in FOLDER.glob("*.md")} - {"README"} == set(KNOWN)


def test_the_index_has_a_line_for_each_in_order() -> None:
    assert list(LINES) == sorted(KNOWN)


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_the_line_of_a_format_is_true(name: str) -> None:
    link, recordings, clock, units, extra, confined = LINES[name]
    assert link == f"[{name}]({name}.md)"
    assert all((recordings, clock, units))
    assert extra == (f"`{KNOWN[name].format.extra}`" if KNOWN[name].format.extra else "")
    assert confined == ("always" if hasattr(KNOWN[name], "unconfined") else "on request")
    if "`rate_hz`" in clock:
        assert "rate_hz" in {field.name for field in fields(KNOWN[name])}  # type: ignore[arg-type]


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_the_page_of_a_format_tells_what_a_reader_asks(name: str) -> None:
    page = FOLDER.joinpath(f"{name}.md").read_text("utf-8")
    title = page.partition("\n")[0]
    assert title.startswith("# ")
    assert name in title
    options = {field.name for field in fields(KNOWN[name])} - {"block_bytes"}  # type: ignore[arg-type]
    missing = {option for option in options if not any(word in page for word in TOLD.get(option, (option,)))}
    assert not missing, f"docs/formats/{name}.md does not tell of {', '.join(sorted(missing))}"
