"""Pictures as a file a frame."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from ..schemas import Array, FormatError
from ._folder import small_bytes
from ._pictures import Encoding, Shown, in_blocks, pixels_of, shown

_MAX_BYTES = 1 << 26


def shown_in(path: Path, encoding: Encoding, kind: str) -> Shown:
    """Return what a file's header says; `FormatError` if it is no such picture of a stream of this kind."""
    try:
        found = shown(small_bytes(path, _MAX_BYTES), encoding)
        if found.kind != kind:
            raise ValueError(f"is {found.picture}, which is no {kind}")
    except FormatError:
        raise
    except ValueError as error:
        raise _damaged(path, str(error)) from error
    return found


def read_files(files: Sequence[Path], want: Shown, rows: int, start: int, stop: int) -> Iterator[Array]:
    """Yield the pictures of files ``[start, stop)``, ``rows`` at a time."""
    data = (small_bytes(path, _MAX_BYTES) for path in files[start:stop])
    decode = partial(pixels_of, want=want)
    return in_blocks(data, decode, rows, start, lambda number, why: _damaged(files[number], why))


def _damaged(path: Path, why: str) -> FormatError:
    return FormatError(str(path), "picture", why, "Copy the recording anew")
