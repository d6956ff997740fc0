"""Checking and bringing home what was published, from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from teleopen.cli.main import main
from teleopen.hub import open_store
from teleopen.hub.sync.generation import REVOCATIONS

from tests.hub.sync.world import World, make_world


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Give a store of four episodes, of which two are open and published."""
    found = make_world(tmp_path)
    assert main(["publish", found.store.url, str(tmp_path / "mirror"), "--yes"]) == 0
    return found


def told(capsys: pytest.CaptureFixture[str], *words: object, code: int = 0) -> Any:
    capsys.readouterr()
    assert main([*map(str, words), "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_what_is_sound_passes_and_what_is_not_is_named(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = told(capsys, "audit", tmp_path / "mirror", "--full")
    assert (found["ok"], found["episodes"], found["licence"]) == (True, 2, "CC-BY-4.0")
    (tmp_path / "mirror" / "stray.txt").write_text("mine")
    bad = told(capsys, "audit", tmp_path / "mirror", code=1)
    assert [finding["path"] for finding in bad["findings"]] == ["stray.txt"]
    assert main(["audit", str(tmp_path / "mirror")]) == 1
    assert "NOT SOUND" in capsys.readouterr().out


def test_nothing_there_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "nothing was published" in told(capsys, "audit", tmp_path / "none", code=1)["error"]["message"]
    assert (
        "nothing was published"
        in told(capsys, "pull", tmp_path / "none", tmp_path / "h", code=1)["error"]["message"]
    )


def test_it_comes_home_and_withdrawals_are_told(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = told(capsys, "pull", tmp_path / "mirror", tmp_path / "home")
    assert (done["episodes"], done["withdrawn"]) == (2, [])
    gone = world.store.ids[0]
    told(capsys, "withdraw", world.store.url, gone, "--reason", "consent")
    plan = told(capsys, "publish", world.store.url, tmp_path / "mirror", "--yes", "--purge")["plans"][0]
    assert plan["published"]["purged"]["files"]
    assert (tmp_path / "mirror" / REVOCATIONS).exists()
    assert main(["pull", str(tmp_path / "mirror"), str(tmp_path / "home")]) == 0
    assert gone in capsys.readouterr().out
    assert gone not in open_store(tmp_path / "home").ids
    again = told(capsys, "publish", world.store.url, tmp_path / "mirror", "--yes", "--purge")["plans"][0]
    assert again["published"]["purged"]["files"] == []


def test_settings_of_the_hub_are_refused_for_a_mirror(world: World, tmp_path: Path) -> None:
    assert main(["publish", world.store.url, str(tmp_path / "mirror"), "--yes", "--private"]) == 2
