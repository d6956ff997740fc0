"""``python -m benchmarks``: the ratios that this project aims at, measured on this machine in one run."""

from __future__ import annotations

import argparse
import importlib
import json
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
    parser.add_argument("--save", action="store_true", help=f"write {RESULTS.name}; needs a full run")
    told = parser.parse_args()
    if unknown := set(told.tables) - set(TABLES):
        parser.error(f"no such table: {', '.join(sorted(unknown))}")
    if told.save and (told.quick or told.tables):
        parser.error("--save keeps a full run: neither --quick nor a choice of tables")
    run(told.tables or TABLES, quick=told.quick, as_json=told.json, save=told.save)


def run(names: tuple[str, ...] | list[str], *, quick: bool, as_json: bool, save: bool) -> None:
    """Measure and tell."""
    about = conditions()
    about["load"] = {"before": load_average()}
    if not as_json:
        print(_heading(about, quick=quick), flush=True)
    tables = []
    with TemporaryDirectory(prefix="benchmarks-") as folder:
        bench = Bench(Path(folder), quick)
        for name in names:
            found: Table = importlib.import_module(f".{name}", __package__).table(bench)
            tables.append(found)
            if not as_json:
                print(f"\n{found.text()}", flush=True)
    about["load"]["after"] = load_average()
    if as_json:
        print(json.dumps({**about, "quick": quick, "tables": [t.document() for t in tables]}, indent=1))
    else:
        print(f"\nLoad average afterwards: {about['load']['after']}")
    if save:
        text = [_heading(about, quick=quick), *(table.text() for table in tables)]
        text.append(f"Load average afterwards: {about['load']['after']}")
        RESULTS.write_text("\n\n".join(text) + "\n")


def _heading(about: dict[str, Any], *, quick: bool) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in about["packages"].items())
    lines = [
        "# Benchmarks" + (" (quick: fewer rounds, no figures to quote)" if quick else ""),
        "",
        f"{about['date']}, {about['cores']} × {about['cpu']}, {about['system']}, Python {about['python']}.",
        f"{versions}.",
        f"Load average before: {about['load']['before']} (of the machine, others' jobs included).",
        "Written by `python -m benchmarks`; docs/benchmarks.md says how to read it.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
