"""Which recordings were meant, and how each is read: files, folders, folders of them, patterns, URLs."""

from __future__ import annotations

import argparse
import glob
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..converters.base import Converter
from ..converters.registry import converter_for, converter_named, converters, read
from ..hub.fetch import expand, fetch, pin
from ..schemas import Episode, NotFoundError, Rights, UnknownFormatError
from .origin import asked_of, converter_of, trusted, with_options

_MAX_DEPTH = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """A recording and how it is to be read.

    Attributes
    ----------
    name
        A path of this machine, or a URL that is fetched first.
    converter
        None: whichever claims it, once it is here.
    format, options
        What was asked for on the command line, for a recording whose converter is not known yet.
    rights
        What holds for all of its episodes; None: nothing is stated.
    untrusted
        It is read in a confined process.
    optional
        It was found in a folder: if no converter claims it, it is passed over.
    """

    name: str
    converter: Converter | None = None
    format: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    rights: Rights | None = None
    untrusted: bool = False
    optional: bool = False

    def episodes(self, scratch: Path) -> Iterator[Episode]:
        """Yield its episodes, headers only, having fetched it into ``scratch`` if it is elsewhere."""
        path, revision = Path(self.name), None
        if "://" in self.name:
            pinned = pin(self.name)
            path, revision = fetch(pinned.url, scratch), pinned.revision
        for episode in read(self._reader(path), path):
            yield self._told(episode, revision)

    def _reader(self, path: Path) -> Converter:
        if self.converter is not None:
            return self.converter
        found = converter_named(self.format)() if self.format else converter_for(path)
        return trusted(with_options(found, self.options), untrusted=self.untrusted)

    def _told(self, episode: Episode, revision: str | None) -> Episode:
        if revision is not None:
            episode = replace(episode, provenance=replace(episode.provenance, revision=revision))
        return episode if self.rights is None else replace(episode, rights=self.rights)


def recordings(args: argparse.Namespace, rights: Rights | None) -> list[Recorded]:
    """Return the recordings that the sources of a command line mean, in their order, each once.

    Raises
    ------
    UnknownFormatError
        If a source that was named is of no known format, or holds nothing of one.
    NotFoundError
        If a pattern fits nothing.
    """
    found: dict[str, Recorded] = {}
    for source in args.src:
        for recorded in _meant(source, args):
            found.setdefault(recorded.name, replace(recorded, rights=rights))
    return list(found.values())


def _meant(source: str, args: argparse.Namespace) -> Iterator[Recorded]:
    if "://" in source:
        for url in expand(source):
            yield Recorded(
                name=url, format=args.format or "", options=asked_of(args), untrusted=args.untrusted
            )
        return
    for path in _globbed(source):
        try:
            yield Recorded(name=path, converter=converter_of(path, args))
        except UnknownFormatError as error:
            below = [] if args.format or not Path(path).is_dir() else list(_below(Path(path), args))
            if not below:
                raise
            yield from below
            error.__traceback__ = None


def _globbed(source: str) -> Sequence[str]:
    """Return the paths that a pattern stands for, should the shell have left it alone."""
    if Path(source).exists() or not glob.has_magic(source):
        return [source]
    found = sorted(glob.glob(source, recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
    if not found:
        raise NotFoundError(f"{source}: nothing there fits")
    return found


def _below(folder: Path, args: argparse.Namespace, depth: int = 0) -> Iterator[Recorded]:
    """Yield what may be a recording in a folder that is none itself.

    Folders are asked here, since one that is a recording hides what is in it. Files are told by their
    endings, and asked where they are read, on all cores.
    """
    endings = tuple({ending for c in converters().values() for ending in c.format.suffixes})
    for path in sorted(folder.iterdir(), key=lambda p: p.name):
        if path.name.startswith(".") or path.is_symlink():
            continue
        if path.is_file() and path.name.lower().endswith(endings):
            yield Recorded(name=str(path), options=asked_of(args), untrusted=args.untrusted, optional=True)
        elif path.is_dir() and depth < _MAX_DEPTH:
            try:
                found = with_options(converter_for(path), asked_of(args))
                yield Recorded(name=str(path), converter=trusted(found, untrusted=args.untrusted))
            except UnknownFormatError:
                yield from _below(path, args, depth + 1)
