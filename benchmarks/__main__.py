"""``python -m benchmarks``: the ratios that this project aims at, measured on this machine in one run."""

from __future__ import annotations

import argparse
import importlib
import json
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from .corpus import Bench
from .measure import conditions, load_average
from .report import Table

TABLES = (
    "rows",
    "frames",
    "windows",
    "streaming",
    "size",
    "convert",
    "formats",
    "remux",
    "publish",
    "plan",
    "replay",
)
RESULTS = Path(__file__).parent / "RESULTS.md"


def main() -> None:
    """Run the tables that were asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "tables", nargs="*", metavar="table", help=f"some of: {', '.join(TABLES)} (default: all)"
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds: a look, no figures to quote")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of text")
    parser.add_argument("--save", action="store_true", help=f"put these tables into {RESULTS.name}")
    told = parser.parse_args()
    if unknown := set(told.tables) - set(TABLES):
        parser.error(f"no such table: {', '.join(sorted(unknown))}")
    if told.save and told.quick:
        parser.error("--save keeps figures that can be quoted, and those of --quick cannot")
    run(told.tables or TABLES, quick=told.quick, as_json=told.json, save=told.save)


def run(names: tuple[str, ...] | list[str], *, quick: bool, as_json: bool, save: bool) -> None:
    """Measure and tell."""
    about = conditions()
    if not as_json:
        print(_circumstances(about, quick=quick), flush=True)
    tables = []
    with TemporaryDirectory(prefix="benchmarks-") as folder:
        bench = Bench(Path(folder), quick)
        for name in names:
            before = load_average()
            found: Table = importlib.import_module(f".{name}", __package__).table(bench)
            found.load = f"{before} before, {load_average()} after"
            tables.append(found)
            if not as_json:
                print(f"\n{found.text()}", flush=True)
            if save:
                keep(name, f"{found.text()}\n\n{_circumstances(about, quick=False)}")
    if as_json:
        print(json.dumps({**about, "quick": quick, "tables": [t.document() for t in tables]}, indent=1))


def keep(name: str, text: str) -> None:
    """Put a table in the place of its last figures."""
    head, *sections = re.split(r"^<!-- (\w+) -->\n", RESULTS.read_text(), flags=re.MULTILINE)
    kept = dict(zip(sections[::2], sections[1::2], strict=True)) | {name: f"{text}\n\n"}
    told = (f"<!-- {name} -->\n{kept[name].strip()}\n" for name in TABLES if name in kept)
    RESULTS.write_text("\n".join([head.strip() + "\n", *told]))


def _circumstances(about: dict[str, Any], *, quick: bool) -> str:
    """Return what figures depend on besides the code."""
    versions = ", ".join(f"{name} {version}" for name, version in about["packages"].items())
    lines = [
        *(["Quick: fewer rounds, no figures to quote."] if quick else []),
        f"{about['date']}, {about['cores']} × {about['cpu']}, {about['system']}, Python {about['python']};",
        f"{versions}.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
