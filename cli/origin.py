"""Where episodes come from: a store, or a recording through its converter; and which of them is meant."""

from __future__ import annotations

import argparse
import dataclasses
import json
import types
import typing
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

from ..converters.base import Converter
from ..converters.registry import converter_for, converter_named, read
from ..schemas import Episode, NotFoundError, UnknownFormatError
from .output import MisuseError

if TYPE_CHECKING:
    from ..hub.store import Store


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """A store, or a recording with the converter that reads it; one of the two is None."""

    text: str
    store: Store | None = None
    converter: Converter | None = None

    @property
    def format(self) -> str:
        """Name of the recording's format, or ``teleopen``."""
        return self.converter.format.name if self.converter else "teleopen"

    def __iter__(self) -> Iterator[Episode]:
        """Yield the episodes, headers only."""
        if self.store is not None:
            yield from self.store
        elif self.converter is not None:
            yield from read(self.converter, Path(self.text))

    def episode(self, key: str | None) -> tuple[int, Episode]:
        """Return the episode that ``key`` means, and its number.

        Parameters
        ----------
        key
            An id, a unique beginning of one, or a number counted from 0; None: the only one.

        Raises
        ------
        NotFoundError
            If there is none, or more than one.
        """
        if key is None:
            return self._only()
        if self.store is not None:
            id = self.store.find(key)
            return self.store.ids.index(id), self.store.episode(id)
        if key.isdecimal():
            found = next(islice(self, int(key), None), None)
            if found is not None:
                return int(key), found
        same = [(n, e) for n, e in enumerate(self) if e.id.startswith(key)] if key else []
        if len(same) == 1:
            return same[0]
        why = f"{len(same)} episodes begin with {key!r}" if same else f"has no episode {key!r}"
        raise self._told(NotFoundError(f"{self.text}: {why}"))

    def _only(self) -> tuple[int, Episode]:
        first = list(islice(self, 2))
        if not first:
            raise NotFoundError(f"{self.text}: holds no episode")
        if len(first) > 1:
            raise self._told(NotFoundError(f"{self.text}: holds more than one episode; say which"))
        return 0, first[0]

    def _told(self, error: NotFoundError) -> NotFoundError:
        verb = "probe" if self.store is None else "episodes"
        error.add_note(f"name one as '{self.text}#0'; `teleopen {verb} {self.text}` lists them")
        return error


def split(text: str) -> tuple[str, str | None]:
    """Split ``SRC#EPISODE`` at the last ``#``, unless the whole is a path that exists."""
    if "#" not in text or Path(text).exists():
        return text, None
    source, _, key = text.rpartition("#")
    return source, key


def is_store(text: str) -> bool:
    """Tell whether this names a store rather than a recording: any URL, or a folder that says so itself."""
    if "://" in text:
        return True
    try:
        document = json.loads(Path(text, "zarr.json").read_bytes())
    except (OSError, ValueError):
        return False
    attributes = document.get("attributes") if isinstance(document, dict) else None
    return isinstance(attributes, dict) and "teleopen" in attributes


def opened(text: str, args: argparse.Namespace) -> Origin:
    """Open what ``text`` names.

    Raises
    ------
    TeleopenError
        If it is no store and no converter claims it.
    """
    if is_store(text):
        from ..hub import open_store

        return Origin(text=text, store=open_store(text))
    return Origin(text=text, converter=converter_of(text, args))


def converter_of(text: str, args: argparse.Namespace) -> Converter:
    """Return the converter that reads a recording, with the options of the command line.

    Raises
    ------
    UnknownFormatError
        If none claims it, or more than one does.
    MisuseError
        If it has no such option, or the option takes no such value.
    """
    if "://" in text:
        raise UnknownFormatError(f"{text}: recordings are read from this machine; fetch it first")
    path = Path(text)
    if args.format and path.exists():
        converter = converter_named(args.format)()
    else:
        try:
            converter = converter_for(path)
        except UnknownFormatError as error:
            if path.is_dir():
                error.add_note(f"name the recordings in it, such as {text}/*")
            raise
    return trusted(with_options(converter, asked_of(args)), untrusted=args.untrusted)


def trusted(converter: Converter, *, untrusted: bool) -> Converter:
    """Return the converter, confined if what it reads is not to be trusted."""
    if not untrusted:
        return converter
    from ..converters import confined

    return confined(converter)


def asked_of(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options of a converter that were asked for: texts to parse, or values."""
    asked: dict[str, Any] = {}
    for pair in args.option:
        key, divider, value = pair.partition("=")
        if not divider:
            raise MisuseError(f"--option {pair}: write KEY=VALUE")
        asked[key.replace("-", "_")] = value
    if args.rate is not None:
        asked["rate_hz"] = args.rate
    if args.instruction is not None:
        asked["instruction"] = args.instruction
    return asked


def options_of(converter: type[Converter]) -> dict[str, tuple[Any, Any]]:
    """Return the options that a converter has: name -> (type, default)."""
    if not dataclasses.is_dataclass(converter):
        return {}
    hints = typing.get_type_hints(converter)
    plain = converter()
    return {f.name: (hints[f.name], getattr(plain, f.name)) for f in dataclasses.fields(converter) if f.init}


def with_options(converter: Converter, asked: Mapping[str, Any]) -> Converter:
    """Return the converter with its options changed."""
    if not asked:
        return converter
    known = options_of(type(converter))
    name = converter.format.name
    values: dict[str, Any] = {}
    for key, value in asked.items():
        if key not in known:
            raise MisuseError(f"{name} has no option {key!r}; it has: {', '.join(known) or 'none'}")
        try:
            values[key] = _parsed(known[key][0], value) if isinstance(value, str) else value
        except ValueError as error:
            raise MisuseError(f"option {key} of {name}: {error}") from None
    try:
        changed: Converter = dataclasses.replace(converter, **values)  # type: ignore[type-var]
    except ValueError as error:
        raise MisuseError(f"options of {name}: {error}") from error
    return changed


def _parsed(kind: Any, text: str) -> Any:
    """Return the value of type ``kind`` that a text tells.

    Raises
    ------
    ValueError
        If it tells none.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in {Union, types.UnionType}:
        if text.lower() == "none" and types.NoneType in arguments:
            return None
        return _parsed(next(a for a in arguments if a is not types.NoneType), text)
    if origin is Literal:
        return _one_of({str(a): a for a in arguments}, text)
    if kind is bool:
        return _one_of(
            {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}, text.lower()
        )
    if origin is tuple:
        return tuple(_parsed(arguments[0], part.strip()) for part in text.split(",") if part.strip())
    if kind in {int, float, str, Path}:
        return kind(text)
    return json.loads(text)


def _one_of(choices: Mapping[str, Any], text: str) -> Any:
    if text not in choices:
        raise ValueError(f"{text!r} is none of {', '.join(choices)}")
    return choices[text]
