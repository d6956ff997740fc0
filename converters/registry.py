"""Which converters there are, and which one reads a given source."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

from ..schemas import UnknownFormatError
from .base import Converter

_NOT_CONVERTERS = {"base", "registry"}


@cache
def converters() -> dict[str, type[Converter]]:
    """Return every converter by its format's name: the files of this folder, then installed plugins."""
    found: dict[str, type[Converter]] = {}
    package = importlib.import_module(__package__)
    for module in sorted(pkgutil.iter_modules(package.__path__), key=lambda m: m.name):
        if module.name not in _NOT_CONVERTERS and not module.name.startswith("_"):
            converter = importlib.import_module(f".{module.name}", __package__).CONVERTER
            found[converter.format.name] = converter
    for plugin in entry_points(group="teleopen.converters"):
        converter = plugin.load()
        found.setdefault(converter.format.name, converter)
    return found


def converter_named(name: str) -> type[Converter]:
    """Return the converter of a format's name, or raise `UnknownFormatError` that names the known ones."""
    try:
        return converters()[name]
    except KeyError:
        known = ", ".join(sorted(converters()))
        raise UnknownFormatError(f"no format is called {name!r}; there are: {known}") from None


def converter_for(path: Path) -> Converter:
    """Return the one converter that claims ``path``.

    Raises
    ------
    UnknownFormatError
        If there is nothing at ``path``, or not exactly one converter claims it.
    """
    if not path.exists():
        raise UnknownFormatError(f"{path}: there is no such file or folder")
    claims = [converter() for converter in converters().values() if converter().probe(path)]
    if not claims:
        known = ", ".join(sorted(converters()))
        raise UnknownFormatError(f"{path}: no converter knows this; there are: {known}")
    if len(claims) > 1:
        rivals = " and ".join(c.format.name for c in claims)
        raise UnknownFormatError(f"{path}: {rivals} both claim this; say which with --format")
    return claims[0]
