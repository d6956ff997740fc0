"""What is installed here: teleopen's own requirements and extras, as its metadata tells them."""

from __future__ import annotations

import re
from functools import cache
from importlib.metadata import PackageNotFoundError, requires, version

_REQUIREMENT = re.compile(r"""([A-Za-z0-9._-]+)[^;]*(?:;.*extra\s*==\s*["']([^"']+)["'])?""")
_NOT_FOR_USERS = {"dev"}


@cache
def requirements() -> dict[str, tuple[str, ...]]:
    """Return the distributions that each extra asks for; those of ``""`` are always needed."""
    found: dict[str, list[str]] = {"": []}
    for text in requires("teleopen") or []:
        match = _REQUIREMENT.match(text)
        if match and match[2] not in _NOT_FOR_USERS:
            found.setdefault(match[2] or "", []).append(match[1])
    return {extra: tuple(names) for extra, names in found.items()}


def installed(distribution: str) -> str | None:
    """Return the version of a distribution, or None if it is not installed."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def missing_of(extra: str) -> list[str]:
    """Return what an extra asks for and is not installed."""
    return [name for name in requirements().get(extra, ()) if extra and installed(name) is None]


def pip_line(extra: str) -> str:
    """Return the command that adds an extra."""
    return f"pip install 'teleopen[{extra}]'"
