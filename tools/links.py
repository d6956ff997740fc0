"""Lay ``build/links``: the import package as one folder of links.

mypy and documentation tools cannot follow ``package-dir``; they can follow links. Nothing that is shipped or
run needs this folder, and it is never committed.
"""

import os
import shutil
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Make the folder anew from what pyproject.toml says."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    links = ROOT / "build" / "links"
    shutil.rmtree(links, ignore_errors=True)
    for package, folder in project["tool"]["setuptools"]["package-dir"].items():
        link = links.joinpath(*package.split("."))
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(ROOT / folder, link.parent), target_is_directory=True)


if __name__ == "__main__":
    main()
