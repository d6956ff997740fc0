"""The terms of a mixture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from teleopen.hub import create_store
from teleopen.hub.train import open_dataset
from teleopen.schemas import Rights

from tests.episodes import make


def licensed(expression: str, title: str) -> Rights:
    return Rights.from_document(
        {
            "rights_version": "1.0",
            "licence": {"expression": expression, "state": "stated-by-holder"},
            "attribution": [{"title": title, "creators": ["A. Author"]}],
        }
    )


@pytest.mark.parametrize(
    ("licences", "outbound", "problem"),
    [
        (("CC-BY-4.0", "CC-BY-4.0"), "CC-BY-4.0", ""),
        (("CC-BY-4.0", "CC0-1.0"), "CC-BY-4.0 AND CC0-1.0", ""),
        (("CC-BY-4.0", "CC-BY-SA-4.0"), "CC-BY-SA-4.0", ""),
        (("CC-BY-SA-4.0", "ODbL-1.0"), "", "collection"),
        (("CC-BY-4.0", "CC-BY-ND-4.0"), "", "does not allow"),
        (("CC-BY-NC-4.0 OR MIT",), "MIT", ""),
    ],
)
def test_a_mixture_passes_on_what_its_parts_ask_for(
    tmp_path: Path, licences: tuple[str, ...], outbound: str, problem: str
) -> None:
    store = create_store(tmp_path / "store")
    store.write(
        replace(make(seed=n, steps=9, cameras=(), depth=False, imu=False), rights=licensed(told, f"Work {n}"))
        for n, told in enumerate(licences)
    )
    terms = open_dataset(store).terms()
    assert sum(terms.licences.values()) == len(licences)
    assert terms.outbound == outbound
    assert problem in terms.problem
    assert bool(terms.problem) != bool(terms.outbound)
    for n in range(len(licences)):
        assert f"Work {n}" in terms.notice


def test_without_a_stated_licence_there_is_none(tmp_path: Path) -> None:
    store = create_store(tmp_path / "store")
    store.write([make(seed=1, steps=9, cameras=(), depth=False, imu=False)])
    terms = open_dataset(store).terms()
    assert (terms.outbound, dict(terms.licences)) == ("", {"NOASSERTION": 1})
    assert terms.problem


def test_a_notice_names_nobody_who_asked_not_to_be_named(tmp_path: Path) -> None:
    told = licensed("CC-BY-4.0", "Work").to_document()
    credit = {"title": "Work", "creators": ["Jane Roe"], "suppressed": True}
    told |= {"attribution": [credit], "holder": [{"name": "Richard Roe", "kind": "person"}]}
    store = create_store(tmp_path / "store")
    one = make(seed=1, steps=9, cameras=(), depth=False, imu=False)
    store.write([replace(one, rights=Rights.from_document(told))])
    notice = open_dataset(store).terms().notice
    assert "Work" in notice
    assert "Roe" not in notice
