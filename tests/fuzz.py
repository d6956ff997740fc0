"""Samples with something broken in them, by number: the same number breaks the same thing in every run.

``python -m tests.fuzz FORMAT NUMBER`` reads one mutant in this process and shows the whole trace.
"""

from __future__ import annotations

import importlib
import random
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from teleopen.converters import converters

from tests.reading import MEMORY, SECONDS, Outcome, Reader, Task, read_all

Change = Callable[[random.Random, bytearray], bytes]
_NUMBERS = (0, 1, -1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFF_FFFF, 0xFFFF_FFFF, 1 << 40, (1 << 63) - 1)
_WORDS = (b"-1", b"0", b"1e999", b"99999999999999999999", b"null", b"[]", b"{}", b'"x"', b"NaN", b"true", b"")


def _flips(dice: random.Random, data: bytearray) -> bytes:
    for _ in range(dice.choice((1, 1, 2, 8))):
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    return bytes(data)


def _cut(dice: random.Random, data: bytearray) -> bytes:
    return bytes(data[: dice.randrange(len(data))])


def _span(dice: random.Random, data: bytearray) -> slice:
    start = dice.randrange(len(data))
    return slice(start, min(len(data), start + 1 + int(dice.expovariate(1 / 64))))


def _erased(dice: random.Random, data: bytearray) -> bytes:
    del data[_span(dice, data)]
    return bytes(data)


def _doubled(dice: random.Random, data: bytearray) -> bytes:
    span = _span(dice, data)
    return bytes(data[: span.stop] + data[span] + data[span.stop :])


def _blanked(dice: random.Random, data: bytearray) -> bytes:
    span = _span(dice, data)
    data[span] = bytes([dice.choice((0, 0xFF, 0x20))]) * (span.stop - span.start)
    return bytes(data)


def _spliced(dice: random.Random, data: bytearray) -> bytes:
    span = _span(dice, data)
    start = dice.randrange(len(data))
    data[start : start + span.stop - span.start] = data[span]
    return bytes(data)


def _number(dice: random.Random, data: bytearray) -> bytes:
    """Put another number where a length, a count or an offset may stand."""
    size = dice.choice((1, 2, 4, 8))
    order: Literal["little", "big"] = dice.choice(("little", "big"))
    at = dice.randrange(max(1, len(data) - size))
    was = int.from_bytes(data[at : at + size], order)
    new = dice.choice((was + 1, was - 1, was * 2, was // 2, dice.choice(_NUMBERS)))
    data[at : at + size] = (new % (1 << 8 * size)).to_bytes(size, order)
    return bytes(data)


def _word(dice: random.Random, data: bytearray) -> bytes:
    """Put another value in the place of one, in a text; elsewhere a number."""
    found = list(
        re.finditer(rb'-?\d+(\.\d+)?|"[^"\n]{0,80}"|\btrue\b|\bfalse\b|\bnull\b', bytes(data[:65536]))
    )
    if not found or 0 in data[:1024]:
        return _number(dice, data)
    one = dice.choice(found)
    return bytes(data[: one.start()] + dice.choice(_WORDS) + data[one.end() :])


CHANGES: tuple[Change, ...] = (_flips, _cut, _erased, _doubled, _blanked, _spliced, _number, _number, _word)


class Fuzzer:
    """A format's sample, of which one file at a time is broken.

    Attributes
    ----------
    path
        The recording; sound whenever no mutant is at hand.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        author = importlib.import_module(f"tests.samples.{name.replace('-', '_')}")
        self.path: Path = author.write(folder).path
        inside = self.path.rglob("*") if self.path.is_dir() else [self.path]
        files = sorted(p for p in inside if p.is_file() and p.stat().st_size)
        by_kind: dict[str, list[Path]] = {}
        for file in files:
            by_kind.setdefault(re.sub(r"\d+", "", file.name), []).append(file)
        self._kinds = list(by_kind.values())

    @contextmanager
    def mutant(self, number: int) -> Iterator[str]:
        """Break something while the block lasts, and tell what: the file and the change."""
        dice = random.Random(f"{self.name} {number}")
        file = dice.choice(dice.choice(self._kinds))
        sound = file.read_bytes()
        change = dice.choice(CHANGES)
        file.write_bytes(change(dice, bytearray(sound)))
        try:
            yield f"{file.name}: {change.__name__.strip('_')}"
        finally:
            file.write_bytes(sound)

    def faults(self, reader: Reader, numbers: range) -> Iterator[str]:
        """Yield what went wrong with each mutant that was neither read nor refused."""
        for number in numbers:
            with self.mutant(number) as what:
                found: Outcome = reader.outcome(Task(format=self.name, path=str(self.path)))
            if found.kind not in {"read", "refused"} or found.peak > MEMORY or found.seconds > SECONDS:
                yield (
                    f"python -m tests.fuzz {self.name} {number}  ({what}): {found.kind} after "
                    f"{found.seconds:.1f} s, {found.peak >> 20} MiB\n{found.error}"
                )


def main() -> None:
    """Read one mutant in the open."""
    name, number = sys.argv[1], int(sys.argv[2])
    with TemporaryDirectory() as folder:
        fuzzer = Fuzzer(name, Path(folder))
        with fuzzer.mutant(number) as what:
            sys.stderr.write(f"{what}\n")
            converter = converters()[name]()
            read_all(getattr(converter, "unconfined", converter.episodes)(fuzzer.path))


if __name__ == "__main__":
    main()
