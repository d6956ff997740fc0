"""The documentation is a contract: no verb and no option without a page and help."""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from teleopen.cli.parser import build_parser

PAGE = Path(__file__).resolve().parents[1] / "docs" / "cli.md"


def verbs_of(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Yield the parser of every verb, those of groups of verbs among them."""
    groups = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    if not groups:
        yield parser
    for group in groups:
        for verb in group.choices.values():
            yield from verbs_of(verb)


VERBS = {verb.prog: verb for verb in verbs_of(build_parser())}
SECTIONS = dict(
    re.findall(r"^### (teleopen [a-z ]+)\n(.*?)(?=^##|\Z)", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
)
READING = re.search(
    r"^## How recordings are read\n(.*?)^## ", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL
)


def test_the_page_tells_of_the_verbs_that_there_are() -> None:
    assert VERBS
    assert set(SECTIONS) == set(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_has_help_and_is_documented(verb: str) -> None:
    assert READING is not None
    for action in VERBS[verb]._actions:
        assert action.help, action
        shared = action.dest in {"format", "rate", "instruction", "option", "untrusted"}
        place = READING[1] if shared else SECTIONS[verb]
        for option in action.option_strings:
            if option not in {"-h", "--help"}:
                assert f"- `{option}" in place, f"{verb}: {option}"


@pytest.mark.parametrize("verb", VERBS)
def test_the_page_names_no_option_that_is_not_there(verb: str) -> None:
    told = set(re.findall(r"^- `(--[a-z-]+)", SECTIONS[verb], re.MULTILINE))
    assert told <= {option for action in VERBS[verb]._actions for option in action.option_strings}


def test_relative_links_lead_somewhere() -> None:
    for page in PAGE.parent.rglob("*.md"):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
