"""Which converters there are, and which one reads a given source."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING

from ..schemas import Episode, UnknownFormatError
from ._checks import checked
from .base import Converter

if TYPE_CHECKING:
    from ._sandbox import Ability

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


def read(converter: Converter, path: Path) -> Iterator[Episode]:
    """Yield the episodes of ``path``, with what their rows say against their contracts among the warnings.

    The door by which episodes leave this room: what holds for every format is done here, and no converter
    can forget it. Raises what `Converter.episodes` raises.
    """
    return checked(converter.episodes(path))


def confined(converter: Converter) -> Converter:
    """Return the converter with all of its reading done in a confined process; docs/untrusted.md."""
    from ._confined import confined as wrapped

    return wrapped(converter)


def confining() -> tuple[Ability, ...]:
    """Return what this system can do to confine a reader, tried in a process of its own."""
    from ._confined import abilities

    return abilities()


def draft_mapping(path: Path) -> str:
    """Return a mapping file to fill in, for a recording of tables or topics; docs/formats/mapped.md.

    Raises
    ------
    FormatError
        If it holds no tables that can be read.
    """
    from ._mapping_draft import draft

    return draft(path)
