"""Publishing from the command line, to a mirror in a folder."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from teleopen.cli.main import main
from teleopen.hub.store import Store
from teleopen.hub.sync.select import Stay

from tests.hub.sync.publishing import OPEN, rights, small, store_of


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Give a store of three episodes, of which two are open."""
    found = store_of(tmp_path, *(small(seed, steps=8) for seed in range(3)))
    found.set_rights(OPEN, ["0", "1"])
    return found


def told(capsys: pytest.CaptureFixture[str], *words: object, code: int = 0) -> Any:
    capsys.readouterr()
    assert main([*map(str, words), "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_a_plan_tells_who_goes_and_who_stays_and_sends_nothing(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = told(capsys, "publish", store.url, tmp_path / "mirror", "--plan-only")
    (plan,) = document["plans"]
    assert plan["changes"]["added"] == list(store.ids[:2])
    assert plan["staying"][0]["episodes"] == [store.ids[2]]
    assert {reason["code"] for reason in plan["staying"][0]["reasons"]} >= {"R01_LICENCE_MISSING"}
    assert all(reason["explanation"] for reason in plan["staying"][0]["reasons"])
    assert not (tmp_path / "mirror").exists()
    assert main(["publish", store.url, str(tmp_path / "mirror"), "--plan-only"]) == 0
    text = capsys.readouterr().out
    assert "R01_LICENCE_MISSING" in text
    assert "2 episodes" in text
    assert "digest" in text


def test_publishing_asks_and_takes_no_answer_for_a_no(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["publish", store.url, str(tmp_path / "mirror")]
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert main(words) == 2
    assert "--yes" in capsys.readouterr().err

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", Terminal("no\n"))
    assert main(words) == 1
    assert not (tmp_path / "mirror").exists()
    monkeypatch.setattr("sys.stdin", Terminal("yes\n"))
    assert main(words) == 0
    assert "published: 2 episodes" in capsys.readouterr().out


def test_a_second_publish_sends_nothing(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("publish", store.url, tmp_path / "mirror", "--yes")
    assert told(capsys, *words)["plans"][0]["published"]["episodes"] == 2
    again = told(capsys, *words)["plans"][0]
    assert not again["changed"]
    assert (again["published"]["added"], again["published"]["sent_bytes"]) == (0, 0)


def test_a_withdrawn_episode_leaves_with_the_next_publish(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("publish", store.url, tmp_path / "mirror", "--yes")
    told(capsys, *words)
    gone = told(capsys, "withdraw", store.url, store.ids[0], "--reason", "consent", "--note", "a call")
    assert gone["withdrawn"] == [store.ids[0]]
    (plan,) = told(capsys, *words)["plans"]
    assert plan["changes"]["withdrawn"] == gone["withdrawn"]
    assert [stone["ground"] for stone in plan["tombstones"]] == ["consent"]
    assert plan["published"]["episodes"] == 1


def test_a_saved_plan_is_carried_out_unless_something_changed(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place, file = tmp_path / "mirror", tmp_path / "plan.json"
    told(capsys, "publish", store.url, place, "--plan-only", "--out", file)
    store.set_rights(OPEN, ["2"])
    error = told(capsys, "publish", store.url, place, "--apply", file, "--yes", code=1)
    assert "decisions have changed" in error["error"]["message"]
    store.set_rights(rights(tier="closed"), ["2"])
    file.unlink()
    saved = told(capsys, "publish", store.url, place, "--plan-only", "--out", file)["plans"][0]
    done = told(capsys, "publish", store.url, place, "--apply", file, "--yes")["plans"][0]
    assert done["digest"] == saved["digest"]
    assert done["published"]["episodes"] == 2


def test_each_licence_has_a_target_of_its_own(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store.set_rights(rights(licence__expression="CC0-1.0"), ["1"])
    refused = told(capsys, "publish", store.url, tmp_path / "m", "--yes", code=1)
    assert refused["error"]["kind"] == "rights"
    plans = told(capsys, "publish", store.url, tmp_path / "m", "--yes", "--split")["plans"]
    assert [Path(plan["target"]).name for plan in plans] == ["m-cc-by-4.0", "m-cc0-1.0"]
    assert [plan["published"]["episodes"] for plan in plans] == [1, 1]


@pytest.mark.parametrize(
    "words", [["--apply", "p.json", "--plan-only"], ["--out", "p.json"], ["--apply", "p.json", "--split"]]
)
def test_words_that_make_no_sense_together_are_misuse(store: Store, tmp_path: Path, words: list[str]) -> None:
    assert main(["publish", store.url, str(tmp_path / "m"), *words]) == 2


def test_reasons_that_only_a_store_knows_are_explained() -> None:
    assert all(stay.explanation for stay in Stay)
