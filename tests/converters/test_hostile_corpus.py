"""All formats against the hostile corpus: refused by name, soon, in little memory; nothing else is opened."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import pytest
from teleopen.cli.main import main
from teleopen.converters import converters
from teleopen.converters._confined import abilities

from tests.hostile import SECRET, Case, corpus
from tests.reading import MEMORY, SECONDS, Outcome, Reader, Task

KNOWN = sorted(n for n, c in converters().items() if c.__module__.startswith("teleopen.converters."))
PROCESSES = 2


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")


@pytest.fixture(scope="module")
def cases(root: Path) -> list[Case]:
    return list(corpus(root, KNOWN))


@pytest.fixture(scope="module")
def outcomes(root: Path, cases: list[Case]) -> list[tuple[Case, Outcome]]:
    """Read each in one of a few processes that may open nothing but the corpus."""
    readers: SimpleQueue[Reader] = SimpleQueue()

    def outcome(case: Case) -> Outcome:
        reader = readers.get()
        try:
            return reader.outcome(Task(format=case.format, path=str(case.path)))
        finally:
            readers.put(reader)

    held = [Reader([root / "corpus"]) for _ in range(PROCESSES)]
    for reader in held:
        readers.put(reader)
    try:
        with ThreadPoolExecutor(PROCESSES) as pool:
            return list(zip(cases, pool.map(outcome, cases), strict=True))
    finally:
        for reader in held:
            reader.__exit__()


def accused(found: Iterator[tuple[Case, Outcome]]) -> list[str]:
    return [f"{case.format}, {case.name}: {outcome}" for case, outcome in found]


def test_there_are_many_of_every_format(cases: list[Case]) -> None:
    assert len(cases) >= 200
    numbers = {name: sum(case.format == name for case in cases) for name in KNOWN}
    assert min(numbers.values()) >= 3, numbers


def test_each_is_refused_by_an_error_that_names_it(outcomes: list[tuple[Case, Outcome]]) -> None:
    assert accused((c, o) for c, o in outcomes if o.kind != "refused" or str(c.path) not in o.error) == []


def test_none_takes_long_or_much(outcomes: list[tuple[Case, Outcome]]) -> None:
    assert accused((c, o) for c, o in outcomes if o.seconds > SECONDS or o.peak > MEMORY // 2) == []


def test_none_leads_out_of_its_folder(outcomes: list[tuple[Case, Outcome]]) -> None:
    assert accused((c, o) for c, o in outcomes if o.opened or SECRET.decode() in o.error) == []


def test_a_reader_of_the_corpus_can_read_nothing_else(root: Path, cases: list[Case]) -> None:
    if not {ability.name: ability.given for ability in abilities()}["landlock"]:
        pytest.skip("this kernel has no Landlock")
    sound = next(path for path in (root / "samples" / "mcap").rglob("run.mcap"))
    task = Task(format="mcap", path=str(sound))
    with Reader([root / "corpus"]) as held, Reader() as free:
        assert free.outcome(task).kind == "read"
        assert "ermission denied" in held.outcome(task).error
    assert cases


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=() if n in {"aloha-hdf5", "lerobot-v3", "mcap"} else pytest.mark.slow)
        for n in KNOWN
    ],
)
def test_the_command_line_names_it_and_exits_1(
    cases: list[Case], name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, case in enumerate([case for case in cases if case.format == name][:4]):
        target = tmp_path / f"store{number}"
        assert main(["convert", str(case.path), str(target), "--format", name]) == 1, case
        told = "".join(capsys.readouterr())
        assert str(case.path) in told
        assert "Traceback" not in told
        assert SECRET.decode() not in told


@pytest.mark.slow
def test_no_library_opens_anything_outside_either(root: Path, cases: list[Case], tmp_path: Path) -> None:
    """Ask the kernel, since HDF5, FFmpeg and SQLite open files without Python's knowing."""
    strace, log = shutil.which("strace"), tmp_path / "calls"
    if not strace or subprocess.run([strace, "-o", "/dev/null", "true"], check=False).returncode:
        pytest.skip("no strace, or it may not trace")
    outside = str(root / "outside")
    with Reader(wrapper=(strace, "-f", "-qq", "-e", "trace=open,openat,openat2", "-o", str(log))) as reader:
        for case in cases:
            reader.outcome(Task(format=case.format, path=str(case.path)))
    calls = log.read_text(errors="replace")
    assert calls.count(str(root / "corpus")) >= len(cases) // 2, "the trace shows what was opened"
    assert [line for line in calls.splitlines() if re.search(re.escape(outside), line)] == []
