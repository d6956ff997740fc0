"""Every reader against mutants of its own sample: it reads them or refuses them, and does nothing else.

Eight for each reader by default. The slow run goes on for a while with each, up to a thousand;
``TELEOPEN_FUZZ=n`` reads n of them however long that takes, and ``TELEOPEN_FUZZ_SECONDS=s`` goes on for as
long as that. A mutant that is found is shown by ``python -m tests.fuzz FORMAT NUMBER``.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from teleopen.converters import converters

from tests.fuzz import CHANGES, Fuzzer
from tests.reading import Reader, Task

KNOWN = sorted(n for n, c in converters().items() if c.__module__.startswith("teleopen.converters."))
FEW = 8
MANY = int(os.environ.get("TELEOPEN_FUZZ", "1000"))
SHARE_S = float(os.environ.get("TELEOPEN_FUZZ_SECONDS", "inf" if "TELEOPEN_FUZZ" in os.environ else "7"))
"""Time of a reader in the slow run."""


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    with Reader() as one:
        yield one


@pytest.fixture(params=KNOWN)
def fuzzer(request: pytest.FixtureRequest, tmp_path: Path) -> Fuzzer:
    try:
        return Fuzzer(request.param, tmp_path)
    except ImportError as error:
        pytest.skip(f"the sample of {request.param} cannot be written here: {error}")


def faults(fuzzer: Fuzzer, reader: Reader, numbers: range, until: float) -> list[str]:
    found: list[str] = []
    for number in numbers:
        if time.monotonic() > until:
            break
        found += fuzzer.faults(reader, range(number, number + 1))
    return found


def test_mutants_are_read_or_refused(fuzzer: Fuzzer, reader: Reader) -> None:
    assert reader.outcome(Task(format=fuzzer.name, path=str(fuzzer.path))).kind == "read"
    assert faults(fuzzer, reader, range(FEW), float("inf")) == []


@pytest.mark.slow
def test_many_mutants_are_read_or_refused(fuzzer: Fuzzer, reader: Reader) -> None:
    assert faults(fuzzer, reader, range(FEW, MANY), time.monotonic() + SHARE_S) == []


def test_a_number_is_one_mutant_and_nothing_stays_broken(tmp_path: Path) -> None:
    fuzzer = Fuzzer("mcap", tmp_path)
    sound = fuzzer.path.read_bytes()
    seen: dict[int, tuple[str, bytes]] = {}
    for number in (*range(40), *range(40)):
        with fuzzer.mutant(number) as what:
            mutant = (what, fuzzer.path.read_bytes())
        assert seen.setdefault(number, mutant) == mutant
        assert fuzzer.path.read_bytes() == sound
    assert len({content for _, content in seen.values()} - {sound}) > 30
    assert {what.rpartition(": ")[2] for what, _ in seen.values()} == {c.__name__.strip("_") for c in CHANGES}


def test_a_process_that_dies_or_is_late_is_told_and_replaced(tmp_path: Path) -> None:
    nothing = Task(format="mcap", path=str(tmp_path / "none.mcap"))
    with Reader() as reader:
        assert reader.outcome(nothing).kind == "refused"
        assert reader.outcome(Task(format="no such format", path="")).kind == "died"
        assert reader.outcome(nothing).kind == "refused"
        assert reader.outcome(nothing, seconds=0).kind == "late"
        assert reader.outcome(nothing).kind == "refused"
