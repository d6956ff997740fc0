"""``rerun-importer-teleopen``: lets Rerun open recordings of robots, by the name that it finds on the PATH.

Rerun runs every program that is called ``rerun-importer-*`` for every file that anybody opens, and takes a
recording from the stdout of those that do not end with code 66 (Rerun's manual: concepts, importers). So this
looks at a few bytes first and imports next to nothing until the file is known to be ours: one file that a
converter claims, or a pointer, a text file ``*.teleopen`` that names one episode as ``SRC#EPISODE``, which
may be of a store.

Files that Rerun reads by itself are left to it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

NOT_OURS = 66
POINTER = ".teleopen"

_LONGEST_POINTER = 4_096
# What recordings in one file begin with. MCAP and .rrd are not here: Rerun opens them itself.
_HDF5 = b"\x89HDF\r\n\x1a\n"
_BAG = b"#ROSBAG V2.0\n"
_ZIPS = (".zarr.zip",)


def main(argv: Sequence[str] | None = None) -> int:
    """Write a file as a recording to stdout; return 66 if it is not ours.

    Parameters
    ----------
    argv
        The words after the program's name: the file, and options of Rerun's that are not needed.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    names = [word for word in words[:1] if not word.startswith("-")]
    source = _source_of(Path(names[0])) if names else None
    if source is None:
        return NOT_OURS
    return _write(source)


def _source_of(path: Path) -> str | None:
    """Return the episode that a file is or names; None if it is not ours."""
    try:
        with path.open("rb") as file:
            start = file.read(_LONGEST_POINTER + 1)
    except OSError:
        return None  # a folder, or nothing
    if path.suffix == POINTER:
        return _pointed_at(path, start)
    ours = start.startswith((_HDF5, _BAG)) or path.name.endswith(_ZIPS)
    return f"{path}#0" if ours else None


def _pointed_at(path: Path, text: bytes) -> str | None:
    """Return what a pointer names; paths in it are relative to it."""
    try:
        named = text.decode().strip()
    except UnicodeDecodeError:
        return None
    if not named or "\n" in named or len(text) > _LONGEST_POINTER:
        return None
    return named if "://" in named else str(path.parent / named)


def _write(source: str) -> int:
    """Write an episode to stdout; return 66 if it cannot be read, after saying why on stderr."""
    import argparse
    import shutil
    import tempfile

    from ..schemas import TeleopenError, UnknownFormatError
    from .output import say
    from .verbs_view import chosen, options_of

    asked = argparse.Namespace(src=source, format=None, rate=None, instruction=None, option=[])
    try:
        from ..viewer.record import write

        origin, number, episode = chosen(asked)
        with tempfile.TemporaryDirectory(prefix="teleopen-") as folder:
            path = Path(folder, "episode.rrd")
            write(episode, path, options_of(origin, number, episode))
            with path.open("rb") as file:
                shutil.copyfileobj(file, sys.stdout.buffer)
    except UnknownFormatError:
        return NOT_OURS
    except TeleopenError as error:
        say(f"rerun-importer-teleopen: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
