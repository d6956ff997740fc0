"""Which paths a line of .gitattributes or .gitignore means. Source: git's gitattributes(5), gitignore(5)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache


@lru_cache(maxsize=4096)
def _matcher(pattern: str) -> re.Pattern[str]:
    anchored = "/" in pattern.rstrip("/")[:-1] or pattern.startswith("/")
    pattern = pattern.strip("/")
    out = "" if anchored else "(?:.*/)?"
    at = 0
    while at < len(pattern):
        if pattern.startswith("**/", at):
            out, at = out + "(?:.*/)?", at + 3
        elif pattern.startswith("**", at):
            out, at = out + ".*", at + 2
        elif pattern[at] in "*?":
            out, at = out + ("[^/]*" if pattern[at] == "*" else "[^/]"), at + 1
        else:
            out, at = out + re.escape(pattern[at]), at + 1
    return re.compile(out)


def _lines(text: str) -> Iterator[str]:
    for line in text.splitlines():
        told = line.strip()
        if told and not told.startswith("#"):
            yield told


def is_lfs(attributes: str, path: str) -> bool:
    """Tell whether .gitattributes sends a path through LFS; the last line that matches decides."""
    found = False
    for line in _lines(attributes):
        pattern, *told = line.split()
        if _matcher(pattern).fullmatch(path):
            for attribute in told:
                if attribute.lstrip("-!").partition("=")[0] == "filter":
                    found = attribute == "filter=lfs"
    return found


def is_ignored(ignore: str, path: str) -> bool:
    """Tell whether .gitignore leaves a path out: it, or a folder above it."""
    parts = path.split("/")
    for depth in range(1, len(parts) + 1):
        above, found = "/".join(parts[:depth]), False
        for line in _lines(ignore):
            pattern = line.removeprefix("!")
            is_folder = depth < len(parts)
            if (is_folder or not pattern.endswith("/")) and _matcher(pattern).fullmatch(above):
                found = not line.startswith("!")
        if found:
            return True
    return False
