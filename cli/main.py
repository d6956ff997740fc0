"""The command line: words in, one verb called, errors told, exit code out.

Exit codes: 0 done, 1 told why not, 2 misused, 130 interrupted. Data goes to stdout, talk to stderr. Only
what the command line itself needs is imported here; a verb imports the rest when it is called.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from .parser import build_parser

if TYPE_CHECKING:
    import argparse

_INTERRUPTED = 130
_BROKEN_PIPE = 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit code.

    Parameters
    ----------
    argv
        The words after ``teleopen``; None: those that this process was started with.

    Raises
    ------
    SystemExit
        From argparse: 0 after ``--help``, 2 when the words make no sense.
    """
    for stream in (sys.stdout, sys.stderr):
        _never_fail_on_a_character(stream)
    parser = build_parser()
    args = parser.parse_args(argv)
    if not hasattr(args, "run"):
        parser.print_help(sys.stderr)
        return 2
    try:
        code = _run(args)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has left. Nothing may be written any more, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    return code


def _run(args: argparse.Namespace) -> int:
    """Call the verb; tell an error that was raised on purpose. Any other is a bug and shows its trace."""
    module, _, verb = args.run.partition(":")
    from ..schemas import TeleopenError
    from .output import MisuseError, tell_error

    try:
        code: int = getattr(importlib.import_module(f".{module}", __package__), verb)(args)
    except (TeleopenError, MisuseError) as error:
        tell_error(error, as_json=getattr(args, "json", False))
        return 2 if isinstance(error, MisuseError) else 1
    return code


def _never_fail_on_a_character(stream: TextIO) -> None:
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")
