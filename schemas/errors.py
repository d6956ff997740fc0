"""Every error that teleopen raises on purpose, and the `Problem` that validation reports.

One class per thing a caller can *do* about it, not per place where it can happen. Each is also the
built-in that a stranger would catch, and each survives pickling, since conversion runs in workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, and where.

    Attributes
    ----------
    where
        Dotted path of the member, such as ``streams.action.axes``.
    message
        What is wrong and what would be right, for people.
    kind
        Stable word for programs: ``missing``, ``type``, ``value``, ``unknown``, ``conflict``.
    """

    where: str
    message: str
    kind: str = "value"

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message


class TeleopenError(Exception):
    """Root of every error raised on purpose. The command line shows it in one line and exits 1."""


class FormatError(TeleopenError, ValueError):
    """A source recording breaks its own format, or is dangerous to read.

    Attributes
    ----------
    path, where, why, advice
        The file, the place in it (a dataset, topic, row, byte offset), what is wrong there, and
        what the owner of the file can do (may be empty).
    """

    def __init__(self, path: str, where: str, why: str, advice: str = "") -> None:
        super().__init__(path, where, why, advice)
        self.path, self.where, self.why, self.advice = path, where, why, advice

    def __str__(self) -> str:
        place = f"{self.path} [{self.where}]" if self.where else self.path
        return f"{place}: {self.why}" + (f". {self.advice}" if self.advice else "")


class UnknownFormatError(TeleopenError, LookupError):
    """No converter claims a source, or more than one does."""


class SchemaError(TeleopenError, ValueError):
    """An episode, stream or rights record breaks the schema.

    Attributes
    ----------
    problems
        All of them, not just the first.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(tuple(problems))
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return "; ".join(map(str, self.problems))


class RightsError(TeleopenError, PermissionError):
    """The rights on record forbid what was asked.

    Attributes
    ----------
    codes
        The reason codes of `teleopen.schemas.reasons`.
    """

    def __init__(self, message: str, codes: Sequence[str] = ()) -> None:
        super().__init__(message, tuple(codes))
        self.message, self.codes = message, tuple(codes)

    def __str__(self) -> str:
        return f"{self.message} ({', '.join(self.codes)})" if self.codes else self.message


class MissingExtraError(TeleopenError, ImportError):
    """An optional dependency is absent; the message names the extra that brings it."""


class NotFoundError(TeleopenError, LookupError):
    """The episode, stream, segment or file that was asked for is not there."""


class StoreError(TeleopenError, OSError):
    """A store cannot be read or written: it is absent, of another format, or storage failed.

    Attributes
    ----------
    path, why
        The file or URL, and what is wrong with it.
    """

    def __init__(self, path: str, why: str) -> None:
        super().__init__(path, why)
        self.path, self.why = path, why

    def __str__(self) -> str:
        return f"{self.path}: {self.why}"


class DamageError(StoreError):
    """Stored bytes are not what was written: a flipped bit, a missing file or chunk, a lying header."""


class ConflictError(StoreError):
    """Another writer committed something that makes this commit wrong; nothing was written."""
