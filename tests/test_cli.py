"""The command line, as people and programs use it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
from teleopen.cli import intake, verbs_read
from teleopen.cli import main as entry
from teleopen.cli.main import main
from teleopen.cli.origin import split
from teleopen.converters import registry
from teleopen.converters.base import Format, need
from teleopen.schemas import Array, Episode, FormatError

from tests.episodes import make
from tests.test_docs import VERBS

NASTY = "\x1b[31mred\x07 \u202egnitide\u202c [bold]x[/bold] 杯"

OPEN_RIGHTS = """
rights_version = "1.0"
tier = "open"
[licence]
expression = "CC-BY-4.0"
state = "stated-by-holder"
[[holder]]
name = "Lab"
[[attribution]]
title = "Demonstrations"
creators = ["A. Author"]
[acquisition]
channel = "own-recording"
basis = "holder"
[people]
present = "none"
consent = "not-needed"
minors = "none"
[pii]
status = "none"
[jurisdiction]
collected_in = ["CH"]
[[signoff]]
by = "A. Author"
at = 2026-01-31T09:00:00Z
[[source]]
uri = "made-up"
sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
"""


@dataclass(frozen=True)
class MadeUp:
    """Reads files that name the seeds of made-up episodes."""

    format: ClassVar[Format] = Format(
        name="made-up", title="Made-up recordings", suffixes=(".made",), extra="none"
    )
    block_bytes: int = 1 << 20
    rate_hz: float | None = None
    instruction: str | None = None
    flavour: Literal["sweet", "sour"] = "sweet"
    parts: tuple[int, ...] = ()

    def probe(self, path: Path) -> bool:
        return path.suffix == ".made"

    def episodes(self, path: Path) -> Iterator[Episode]:
        told = json.loads(path.read_text())
        if "needs" in told:
            need(told["needs"], of=self.format)
        for seed in told["seeds"]:
            episode = make(seed=seed, steps=12, depth=False, imu=False)
            if told.get("nasty"):
                warned = replace(episode.provenance, warnings=(NASTY,), evidence={"licence": NASTY})
                episode = replace(episode, embodiment=NASTY, provenance=warned, extra={"note": NASTY})
            if self.instruction:
                episode = replace(episode, instructions=(self.instruction,))
            if told.get("broken") == seed:
                episode = broken(episode, str(path))
            yield episode


@dataclass(frozen=True)
class Rival(MadeUp):
    """Claims what `MadeUp` claims, if the file allows it."""

    format: ClassVar[Format] = Format(name="rival", title="The same again")

    def probe(self, path: Path) -> bool:
        return path.suffix == ".made" and "rival" in path.read_text()


def broken(episode: Episode, path: str) -> Episode:
    """Return the episode with a camera that breaks off."""
    whole = episode.streams["observation.images.top"]

    def read(start: int, stop: int) -> Iterator[Array]:
        yield from whole.read(start, min(stop, 5))
        raise FormatError(path, "frame 5", "the picture is cut off")

    return replace(episode, streams={**episode.streams, whole.spec.name: replace(whole, read=read)})


@pytest.fixture(autouse=True)
def _made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {**registry.converters(), "made-up": MadeUp, "rival": Rival}
    monkeypatch.setattr(registry, "converters", lambda: known)
    monkeypatch.setattr(verbs_read, "converters", lambda: known)
    monkeypatch.setattr(intake, "converters", lambda: known)


def recording(path: Path, *seeds: int, **told: Any) -> str:
    path.write_text(json.dumps({"seeds": seeds, **told}))
    return str(path)


def bytes_below(folder: Path) -> dict[str, str]:
    """Return the digest of every file that a reader of the store can see."""
    return {
        str(p.relative_to(folder)): sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and ".staging" not in p.parts
    }


@pytest.fixture
def store(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> str:
    """Give a store of two episodes."""
    assert main(["convert", recording(tmp_path / "two.made", 0, 1), str(tmp_path / "store")]) == 0
    capfd.readouterr()
    return str(tmp_path / "store")


@pytest.fixture
def rights(tmp_path: Path) -> str:
    path = tmp_path / "rights.toml"
    path.write_text(OPEN_RIGHTS)
    return str(path)


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Give a function that runs a command and returns its exit code, stdout and stderr."""

    def call(*words: str) -> tuple[int, str, str]:
        code = main(words)
        return code, *capfd.readouterr()

    return call


@pytest.fixture
def ask(run: Callable[..., tuple[int, str, str]]) -> Callable[..., Any]:
    """Give a function that runs a command with ``--json`` and returns the document; stderr is quiet."""

    def call(*words: str, code: int = 0) -> Any:
        got, out, err = run(*words, "--json")
        assert got == code
        assert err == "" or code
        return json.loads(out)

    return call


Run = Callable[..., tuple[int, str, str]]
Ask = Callable[..., Any]


# ---------------------------------------------------------------- words


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main([*verb.split()[1:], "--help"])
    assert done.value.code == 0
    assert f"usage: {verb}" in capfd.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        ["frobnicate"],
        ["convert", "only-one"],
        ["convert", "a", "b", "--video", "beautiful"],
        ["convert", "a", "b", "--quality", "-3"],
        ["convert", "a", "b", "--workers", "0"],
        ["convert", "a", "b", "--rate", "fast"],
        ["convert", "a", "b", "--rate", "nan"],
        ["probe", "a", "--limit", "-1"],
        ["gc", "a", "--grace", "inf"],
        ["why", "a", "--policy", "lenient"],
        ["rights"],
        ["info"],
        ["info", "a", "--js"],
    ],
)
def test_words_that_make_no_sense_are_misuse(words: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(words)
    assert done.value.code == 2
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "teleopen" in captured.err


def test_no_words_at_all_print_the_help_and_are_misuse(run: Run) -> None:
    code, out, err = run()
    assert (code, out) == (2, "")
    assert "convert" in err


def test_an_episode_is_named_after_the_last_hash(tmp_path: Path) -> None:
    odd = tmp_path / "take#1"
    assert split("a/b") == ("a/b", None)
    assert split("a/b#3") == ("a/b", "3")
    assert split(str(odd)) == (str(tmp_path / "take"), "1")
    odd.touch()
    assert split(str(odd)) == (str(odd), None)
    assert split(f"{odd}#0") == (str(odd), "0")
    assert split("s3://bucket/store#ab") == ("s3://bucket/store", "ab")


# ---------------------------------------------------------------- convert


def test_convert_adds_once(tmp_path: Path, run: Run, ask: Ask) -> None:
    source, store = recording(tmp_path / "a.made", 0, 1), tmp_path / "store"
    first = ask("convert", source, str(store))
    assert len(first["added"]) == 2
    assert first["sources"] == [{"source": source, "format": "made-up", "episodes": 2}]
    (camera,) = first["cameras"]
    assert (camera["stream"], camera["profile"], camera["codec"]) == (
        "observation.images.top",
        "train",
        "h264",
    )
    assert camera["min_psnr_db"] > 30
    assert first["stored_bytes"] > 0
    assert first["rights"]["closed"] == 2
    before = bytes_below(store)
    again = ask("convert", source, str(store))
    assert (again["added"], again["already_there"]) == ([], first["added"])
    assert bytes_below(store) == before
    code, out, err = run("convert", source, str(store))
    assert (code, err) == (0, "")
    assert "already there  2 episodes" in out


def test_several_sources_are_one_commit_in_the_order_they_were_named(tmp_path: Path, ask: Ask) -> None:
    sources = [recording(tmp_path / f"{n}.made", n) for n in (3, 1, 2)]
    done = ask("convert", *sources, str(tmp_path / "store"))
    listed = ask("episodes", str(tmp_path / "store"))
    assert listed["version"] == done["version"] == 2
    assert [e["instructions"][0] for e in listed["episodes"]] == ["do task 3", "do task 1", "do task 2"]


@pytest.mark.parametrize("video", ["lossless", "stream"])
def test_the_video_profile_is_told(tmp_path: Path, video: str, ask: Ask) -> None:
    source = recording(tmp_path / "a.made", 0)
    done = ask("convert", source, str(tmp_path / "store"), "--video", video, "--workers", "1")
    (camera,) = done["cameras"]
    assert camera["profile"] == video
    assert (camera["psnr_db"] is None) == (video == "lossless")


def test_a_bad_source_leaves_the_store_as_it_was(store: str, tmp_path: Path, run: Run, ask: Ask) -> None:
    good, bad = recording(tmp_path / "good.made", 7), recording(tmp_path / "bad.made", 8, 9, broken=9)
    before = bytes_below(Path(store))
    code, out, err = run("convert", good, bad, store, "--strict")
    assert (code, out) == (1, "")
    assert err == f"teleopen: error: {bad} [frame 5]: the picture is cut off\n"
    assert bytes_below(Path(store)) == before
    told = ask("convert", good, bad, store, "--strict", code=1)["error"]
    assert (told["kind"], told["path"], told["where"]) == ("format", bad, "frame 5")
    assert ask("convert", bad, store, "--option", "parts=9", "--strict", code=1)["error"] == told


def test_a_bad_source_is_left_out_and_told_while_the_rest_goes_on(tmp_path: Path, run: Run, ask: Ask) -> None:
    store, sources = str(tmp_path / "store"), [recording(tmp_path / "good.made", 7)]
    sources += [recording(tmp_path / "bad.made", 8, 9, 10, broken=9), recording(tmp_path / "last.made", 11)]
    done = ask("convert", *sources, store, code=1)
    (left,) = done["quarantined"]
    assert (left["source"], left["error"]["where"]) == (sources[1], "frame 5")
    assert left["episode"] not in done["added"]
    assert len(done["added"]) == 4
    assert run("verify", store)[0] == 0
    code, out, _ = run("convert", *sources, store)
    assert code == 1
    assert "left out       1 episode" in out
    assert "the picture is cut off" in out


def test_a_folder_is_gone_through_for_recordings(tmp_path: Path, ask: Ask, run: Run) -> None:
    below = tmp_path / "takes" / "monday"
    below.mkdir(parents=True)
    sources = [recording(below / "a.made", 1), recording(below.parent / "b.made", 2)]
    (below / "notes.txt").write_text("fine weather")
    done = ask("convert", str(tmp_path / "takes"), str(tmp_path / "store"))
    assert sorted(s["source"] for s in done["sources"]) == sorted(sources)
    globbed = ask("convert", str(tmp_path / "takes" / "**" / "*.made"), str(tmp_path / "store"))
    assert sorted(globbed["already_there"]) == sorted(done["added"])
    code, _, err = run("convert", str(tmp_path / "takes" / "*.h5"), str(tmp_path / "store"))
    assert code == 1
    assert "nothing there fits" in err


def test_a_recording_is_fetched_from_a_url(tmp_path: Path, ask: Ask) -> None:
    import fsspec

    there = fsspec.filesystem("memory")
    local = recording(tmp_path / "a.made", 5)
    there.pipe_file("/lab/takes/a.made", Path(local).read_bytes())
    for store, url in enumerate(("memory://lab/takes/a.made", "memory://lab/takes/*.made")):
        done = ask("convert", url, local, str(tmp_path / f"store{store}"))
        assert len(done["added"]) == 1
        assert len(done["already_there"]) == 1
    told = ask("convert", "memory://lab/none.made", str(tmp_path / "other"), code=1)["error"]
    assert told["kind"] == "not-found"


def test_an_unclaimed_source_is_told_before_anything_is_written(tmp_path: Path, run: Run) -> None:
    (tmp_path / "notes.txt").write_text("no recording")
    good, store = recording(tmp_path / "a.made", 0), tmp_path / "store"
    code, _, err = run("convert", good, str(tmp_path / "notes.txt"), str(store))
    assert code == 1
    assert "no converter knows this" in err
    assert "teleopen formats" in err
    assert not store.exists()


def test_two_claims_ask_for_the_format(tmp_path: Path, run: Run, ask: Ask) -> None:
    source = recording(tmp_path / "a.made", 0, rival=True)
    code, _, err = run("probe", source)
    assert code == 1
    assert "made-up and rival both claim this" in err
    assert ask("probe", source, "--format", "rival")["format"] == "rival"
    assert ask("probe", source, "--format", "unheard-of", code=1)["error"]["kind"] == "unknown-format"


def test_a_missing_extra_is_named(tmp_path: Path, run: Run) -> None:
    source = recording(tmp_path / "a.made", 0, needs="no_such_module")
    code, _, err = run("convert", source, str(tmp_path / "store"))
    assert code == 1
    assert "pip install 'teleopen[none]'" in err
    assert not (tmp_path / "store").exists()


def test_options_reach_the_converter(tmp_path: Path, ask: Ask, run: Run) -> None:
    source, store = recording(tmp_path / "a.made", 0), str(tmp_path / "store")
    words = [
        "--rate",
        "5",
        "--instruction",
        "pour the tea",
        "--option",
        "flavour=sour",
        "--option",
        "parts=1, 2",
    ]
    assert ask("probe", source, *words)["episodes"][0]["instructions"] == ["pour the tea"]
    for option, why in {
        "colour=red": "no option 'colour'; it has: block_bytes, rate_hz, instruction, flavour, parts",
        "flavour=salty": "'salty' is none of sweet, sour",
        "block_bytes=many": "option block_bytes of made-up",
        "flavour": "write KEY=VALUE",
    }.items():
        code, out, err = run("convert", source, store, "--option", option)
        assert (code, out) == (2, "")
        assert why in err
    assert not Path(store).exists()


def test_a_dry_run_writes_nothing(store: str, tmp_path: Path, ask: Ask, run: Run) -> None:
    before, source = bytes_below(Path(store)), recording(tmp_path / "three.made", 0, 5)
    found = ask("convert", source, store, "--dry-run")["episodes"]
    assert [e["there_already"] for e in found] == [True, False]
    assert "nothing was written" in run("convert", source, store, "--dry-run")[1]
    assert bytes_below(Path(store)) == before
    ask("convert", source, str(tmp_path / "none"), "--dry-run")
    assert not (tmp_path / "none").exists()


def test_a_folder_of_other_things_becomes_no_store(tmp_path: Path, run: Run) -> None:
    source = recording(tmp_path / "a.made", 0)
    code, _, err = run("convert", source, str(tmp_path))
    assert code == 1
    assert "is no store and not empty" in err
    assert [p.name for p in tmp_path.iterdir()] == ["a.made"]


# ---------------------------------------------------------------- look


def test_show_tells_the_same_of_a_recording_and_of_a_store(store: str, tmp_path: Path, ask: Ask) -> None:
    source = str(tmp_path / "two.made")
    one, other = ask("show", f"{source}#1"), ask("show", f"{store}#1")
    assert one["header"]["id"] == other["header"]["id"]
    assert one["header"]["clocks"] == other["header"]["clocks"]
    assert (one["kind"], other["kind"]) == ("recording", "store")
    fields = [fate["field"] for fate in other["header"]["provenance"]["ledger"]]
    assert set(fields) == {"/observation.state", "/action", "/phase", "/observation.images.top"}
    assert other["clocks"]["steps"]["last_ns"] == 366_666_667
    assert not other["decision"]["open"]
    prefix = one["header"]["id"][:9]
    assert ask("show", f"{source}#{prefix}")["number"] == 1


@pytest.mark.parametrize("kind", ["recording", "store"])
def test_an_episode_has_to_be_chosen_where_there_are_several(
    store: str, tmp_path: Path, kind: str, run: Run
) -> None:
    place = store if kind == "store" else str(tmp_path / "two.made")
    code, _, err = run("show", place)
    assert code == 1
    assert "more than one episode" in err
    assert f"{place}#0" in err
    for key in ("2", "zz", ""):
        assert run("show", f"{place}#{key}")[0] == 1


def test_show_prints_every_field_of_the_source(store: str, run: Run) -> None:
    code, out, err = run("show", f"{store}#0")
    assert (code, err) == (0, "")
    for word in ("/observation.images.top", "psnr_db", "R01_LICENCE_MISSING", "30 Hz", "sha256"):
        assert word in out


@pytest.mark.parametrize("words", [["probe"], ["show"], ["convert"]])
def test_a_recording_cannot_drive_the_terminal(tmp_path: Path, words: list[str], run: Run) -> None:
    source = recording(tmp_path / "a.made", 0, nasty=True)
    target = [str(tmp_path / "store")] if words == ["convert"] else []
    code, out, err = run(*words, source, *target)
    assert code == 0
    assert not set("\x1b\x07\u202e\u202c") & set(out + err)
    assert "\\x1b[31mred\\x07 \\u202egnitide\\u202c [bold]x[/bold] 杯" in out


def test_json_gives_such_texts_back_and_still_cannot_drive_the_terminal(tmp_path: Path, run: Run) -> None:
    code, out, _ = run("show", recording(tmp_path / "a.made", 0, nasty=True), "--json")
    assert code == 0
    assert not set("\x1b\x07\u202e\u202c") & set(out)
    assert json.loads(out)["header"]["embodiment"] == NASTY


def test_probe_lists_up_to_a_limit(tmp_path: Path, ask: Ask, run: Run) -> None:
    source = recording(tmp_path / "a.made", *range(5))
    short, full = ask("probe", source, "--limit", "2"), ask("probe", source, "--limit", "0")
    assert (len(short["episodes"]), short["more"]) == (2, True)
    assert (len(full["episodes"]), full["more"]) == (5, False)
    assert "--limit 0" in run("probe", source, "--limit", "2")[1]


def test_formats_lists_options_and_what_is_missing(ask: Ask, run: Run) -> None:
    found = {f["name"]: f for f in ask("formats")["formats"]}
    options = {o["name"]: o for o in found["made-up"]["options"]}
    assert options["rate_hz"] == {"name": "rate_hz", "type": "float | None", "default": None}
    assert options["flavour"]["type"] == "Literal['sweet', 'sour']"
    assert found["aloha-hdf5"]["missing"] == []
    assert "made-up" in run("formats")[1]


def test_a_sheet_is_drawn_from_a_recording_and_from_a_store(store: str, tmp_path: Path, ask: Ask) -> None:
    out = tmp_path / "sheet.png"
    for source in (str(tmp_path / "two.made"), store):
        told = ask("sheet", f"{source}#1", str(out), "--columns", "3")
        assert out.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        assert told["width"] == 1600
        out.unlink()
    assert ask("sheet", f"{store}#1", str(tmp_path / "no" / "x.png"), code=1)["error"]["kind"] == "store"


# ---------------------------------------------------------------- rights


def test_rights_init_never_overwrites(tmp_path: Path, run: Run, ask: Ask) -> None:
    file = tmp_path / "rights.toml"
    assert ask("rights", "init", str(file))["file"] == str(file)
    before = file.read_bytes()
    code, _, err = run("rights", "init", str(file))
    assert code == 1
    assert "is not overwritten" in err
    assert file.read_bytes() == before
    told = ask("rights", "check", str(file))
    assert told["valid"]
    assert not told["open"]
    assert "R03_TIER_NOT_OPEN" in [reason["code"] for reason in told["reasons"]]


def test_rights_check_tells_every_problem_with_its_place(tmp_path: Path, ask: Ask, run: Run) -> None:
    file = tmp_path / "bad.toml"
    file.write_text('rights_version = "1.0"\ntier = "ajar"\nlicense = 3\n')
    told = ask("rights", "check", str(file), code=1)
    assert not told["valid"]
    assert {problem["where"] for problem in told["problems"]} == {"tier", "license"}
    assert "tier" in run("rights", "check", str(file))[1]
    file.write_text("tier = [")
    assert "is not TOML" in ask("rights", "check", str(file), code=1)["problems"][0]["message"]
    file.write_bytes(b"\xff")
    assert ask("rights", "check", str(file), code=1)["error"]["kind"] == "store"
    code, _, err = run("rights", "check", str(tmp_path / "none.toml"))
    assert code == 1
    assert "teleopen rights init" in err


def test_rights_open_what_they_are_put_on(store: str, rights: str, ask: Ask, run: Run) -> None:
    assert ask("rights", "check", rights)["published_as"] == "CC-BY-4.0"
    assert not ask("rights", "check", rights, "--policy", "strict")["open"]
    done = ask("rights", "set", store, rights, "--episode", "1")
    assert (len(done["changed"]), done["rights"]["open"]) == (1, 1)
    told = ask("why", store)
    assert (told["rights"]["open"], told["rights"]["closed"]) == (1, 1)
    assert [e["published_as"] for e in told["episodes"]] == [None, "CC-BY-4.0"]
    assert ask("why", f"{store}#1")["episodes"][0]["reasons"] == []
    assert ask("why", f"{store}#1", "--policy", "strict")["rights"]["closed"] == 1
    assert ask("episodes", store)["episodes"][1]["open"]
    assert ask("info", store)["licences"] == {"NOASSERTION": 1, "CC-BY-4.0": 1}
    code, out, err = run("why", store)
    assert (code, err) == (0, "")
    assert "1 open, 1 closed" in out
    again = ask("rights", "set", store, rights, "--episode", "1", "--author", "somebody")
    assert (again["changed"], again["unchanged"]) == ([], 1)


def test_rights_hold_for_all_that_is_converted(tmp_path: Path, rights: str, ask: Ask) -> None:
    source = recording(tmp_path / "a.made", 0, 1)
    done = ask("convert", source, str(tmp_path / "store"), "--rights", rights)
    assert done["rights"]["open"] == 2
    (tmp_path / "bad.toml").write_text("tier = 1")
    bad = ask("convert", source, str(tmp_path / "other"), "--rights", str(tmp_path / "bad.toml"), code=1)
    assert bad["error"]["kind"] == "schema"
    assert {"where": "tier", "kind": "type"}.items() <= bad["error"]["problems"][-1].items()
    assert not (tmp_path / "other").exists()


# ---------------------------------------------------------------- keep


def test_verify_names_the_damaged_file(store: str, ask: Ask, run: Run) -> None:
    assert ask("verify", store, "--decode")["ok"]
    assert "whole: 2 episodes" in run("verify", store)[1]
    victim = next(Path(store).rglob("episodes.parquet"))
    raw = bytearray(victim.read_bytes())
    raw[40] ^= 1
    victim.chmod(0o644)
    victim.write_bytes(raw)
    found = ask("verify", store, code=1)
    assert not found["ok"]
    assert [d["path"] for d in found["damage"]] == [str(victim.relative_to(store))]
    code, out, _ = run("verify", store)
    assert code == 1
    assert "DAMAGED" in out
    assert ask("show", f"{store}#0", code=1)["error"]["kind"] == "damage"


def test_compact_merges_and_gc_collects(store: str, tmp_path: Path, ask: Ask, run: Run) -> None:
    assert ask("compact", store)["removed"] == []
    ask("convert", recording(tmp_path / "more.made", 5), store)
    done = ask("compact", store)
    assert (len(done["removed"]), len(done["added"])) == (2, 1)
    assert ask("gc", store)["removed"] == []
    assert "younger than 24 h" in run("gc", store)[1]
    would = ask("gc", store, "--grace", "0", "--dry-run")
    assert len(would["removed"]) == 2
    assert ask("gc", store, "--grace", "0")["removed"] == would["removed"]
    assert ask("verify", store)["unclaimed"] == []
    assert ask("info", store)["episodes"] == 3
    assert run("gc", store)[0] == run("compact", store)[0] == 0


@pytest.mark.parametrize("verb", ["info", "episodes", "why", "verify", "compact", "gc"])
def test_what_is_no_store_is_told(tmp_path: Path, verb: str, ask: Ask) -> None:
    assert ask(verb, str(tmp_path), code=1)["error"]["kind"] == "store"
    assert ask(verb, str(tmp_path / "none"), code=1)["error"]["kind"] == "store"


# ---------------------------------------------------------------- the whole, and its edges


def test_demo_tells_the_whole_story_and_again(tmp_path: Path, ask: Ask, run: Run) -> None:
    folder = tmp_path / "demo"
    told = ask("demo", str(folder))
    assert told["verified"]["ok"]
    assert len(told["converted"]["added"]) == 1
    assert (folder / "episode.png").stat().st_size > 10_000
    before = bytes_below(folder / "store")
    code, out, err = run("demo", str(folder))
    assert (code, err) == (0, "")
    assert "already there  1 episode" in out
    assert "Nobody who may do so has stated a licence" in out
    assert bytes_below(folder / "store") == before


def test_doctor_knows_this_machine(ask: Ask, run: Run) -> None:
    told = ask("doctor")
    assert told["ok"]
    states = {check["name"]: check["state"] for check in told["checks"]}
    assert states["zarr codec teleopen.video"] == states["H.264 encoder"] == "ok"
    fixes = {extra["extra"]: extra["fix"] for extra in told["extras"]}
    assert fixes["torch"] in {None, "pip install 'teleopen[torch]'"}
    assert "dev" not in fixes
    assert "zarr" in run("doctor")[1]


def test_doctor_says_what_is_broken(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    code, out, _ = run("doctor")
    assert code == 1
    assert "pip install --force-reinstall h5py" in out


def test_a_bug_shows_its_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken_verb(_args: object) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(verbs_read, "formats", broken_verb)
    with pytest.raises(ZeroDivisionError):
        main(["formats"])


def test_an_interrupt_is_quiet(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    def interrupted(_args: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(entry, "_run", interrupted)
    assert run("formats") == (130, "", "")


def test_a_bar_is_shown_to_a_terminal_only_and_only_if_it_lasts(
    store: str, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    monkeypatch.setattr("teleopen.cli.progress.PATIENCE_S", 0.0)
    assert run("verify", store)[2] == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert "verify" in run("verify", store)[2]
    monkeypatch.setattr("teleopen.cli.progress.PATIENCE_S", 60.0)
    assert run("verify", store)[2] == ""


def program(*words: str, **options: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "teleopen.cli", *words], stderr=subprocess.PIPE, **options)


def test_the_program_has_the_exit_codes(tmp_path: Path) -> None:
    runs = {
        0: program("--version", stdout=subprocess.PIPE),
        1: program("info", str(tmp_path / "none"), "--json", stdout=subprocess.PIPE),
        2: program("info", stdout=subprocess.PIPE),
    }
    for code, process in runs.items():
        out, err = process.communicate()
        assert process.returncode == code
        assert b"Traceback" not in err
        if code == 1:
            assert json.loads(out)["error"]["kind"] == "store"


def test_a_reader_that_leaves_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with program("formats", stdout=writer) as process:
        os.close(writer)
        _, err = process.communicate()
    assert process.returncode == 141
    assert err == b""


# ---------------------------------------------------------------- recordings nobody trusts or knows


def test_an_untrusted_recording_is_read_in_a_confined_process(tmp_path: Path, ask: Ask) -> None:
    sample = str(Path(entry.__file__).parent / "sample" / "mobile_aloha.hdf5")
    plain = ask("convert", sample, str(tmp_path / "plain"), "--video", "stream")
    confined = ask("convert", sample, str(tmp_path / "confined"), "--video", "stream", "--untrusted")
    assert confined["added"] == plain["added"]
    assert confined["stored_bytes"] == plain["stored_bytes"]


def test_a_mapping_is_drafted_for_what_no_converter_knows(tmp_path: Path, run: Run, ask: Ask) -> None:
    import numpy as np

    np.savez(tmp_path / "lab.npz", joints=np.zeros((5, 3), np.float32))
    code, out, _ = run("probe", str(tmp_path / "lab.npz"), "--draft-mapping")
    assert code == 0
    (tmp_path / "lab.toml").write_text(out)
    words = ("--format", "mapped", "--option", f"mapping={tmp_path / 'lab.toml'}")
    done = ask("convert", str(tmp_path / "lab.npz"), str(tmp_path / "store"), *words)
    assert len(done["added"]) == 1


def test_a_level_is_made_and_told(tmp_path: Path, ask: Ask, run: Run) -> None:
    store = str(tmp_path / "store")
    ask("convert", recording(tmp_path / "a.made", 0, 1), store)
    done = ask("derive", store, "--resize", "24x32")
    assert (done["size"], len(done["added"])) == ([24, 32], 2)
    assert run("verify", f"{store}/levels/24x32")[0] == 0
    assert ask("derive", store, "--resize", "24x32")["already_there"] == 2
    with pytest.raises(SystemExit, match="2"):
        run("derive", store, "--resize", "24by32")
