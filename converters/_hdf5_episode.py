"""An episode that lies in one HDF5 file, while its datasets are given their places one by one.

What a dataset means is the converter's business. Alike are small arrays that are read at once, calibrations
that stand in every row and never change, pictures stored as encoded bytes, and what becomes of the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from ..schemas import Array, Json, StreamSpec
from ._demos import (
    FIXED_BYTES,
    SMALL_VALUES,
    bytes_spec,
    encoded_rows,
    read_encoded,
    read_rows,
    spec_of,
    tell_value,
)
from ._draft import Draft, stream_name
from ._hdf5 import UNWRITTEN, Field, Hdf5
from ._pictures import Decode
from .base import MAX_EPISODE_BYTES, rows_in

_SMALL = 1 << 26


@dataclass(slots=True)
class Hdf5Episode:
    """The file's datasets, and which of them have found their place.

    Attributes
    ----------
    steps
        Rows of the clock ``steps``.
    """

    hdf5: Hdf5
    draft: Draft
    block_bytes: int
    steps: int
    placed: set[str] = field(default_factory=set)

    def numbers(self, name: str) -> Field | None:
        """Return a dataset that has rows of numbers, or None; refuse one that was cut off."""
        found = self.hdf5.fields.get(name)
        if found is not None and found.unread == UNWRITTEN:
            self.draft.refuse(name, found.unread, "The recording was cut off")
        if found is None or found.unread or not found.shape or 0 in found.shape:
            return None
        return found if found.dtype.kind in "biuf" else None

    def whole(self, name: str) -> Array | None:
        """Return all rows of a dataset that is small, or None if there is no such dataset of numbers."""
        found = self.numbers(name)
        if found is None:
            return None
        if found.nbytes > _SMALL:
            self.draft.refuse(name, f"has {found.nbytes} bytes, where at most {_SMALL} were expected")
        return next(self.hdf5.rows(found, 0, found.shape[0], found.shape[0]))

    def constant(self, name: str) -> Json:
        """Return the value of all rows of a small dataset as JSON, if they are the same and finite."""
        found = self.numbers(name)
        if found is None or math.prod(found.shape[1:]) > SMALL_VALUES or found.nbytes > _SMALL:
            return None
        values = self.whole(name)
        if values is None or not np.isfinite(values).all() or np.any(values != values[0]):
            return None
        return values[0].tolist()

    def tell_once(self, name: str, to: str) -> None:
        """Note that a dataset of equal rows went to one place as one value."""
        self.placed.add(name)
        self.draft.account(name, "transformed", [to], "the same in every row: told once")

    def keep(self, name: str, spec: StreamSpec, how: str = "") -> str:
        """Keep the rows of a dataset of numbers as a stream; return its name."""
        found = self.hdf5.fields[name]
        self.placed.add(name)
        read = partial(read_rows, self.hdf5.path, found, spec, rows_in(self.block_bytes, spec))
        return self.draft.add(spec, found.shape[0], read, source=name, how=how)

    def first_encoded(self, found: Field) -> bytes:
        """Return the first row of a dataset of encoded pictures; ``b""`` if it holds no such thing."""
        if not (found.shape and found.shape[0]) or (found.unread and not found.varying):
            return b""
        return next(encoded_rows(self.hdf5, found, 0, 1))

    def keep_pictures(
        self, name: str, spec: StreamSpec, decode: Decode, how: str, *, lossless: bool | None = None
    ) -> str:
        """Keep a dataset whose rows are encoded pictures as a stream of pixels; return its name."""
        found = self.hdf5.fields[name]
        self.placed.add(name)
        if found.shape[0] * spec.sample_bytes > MAX_EPISODE_BYTES:
            self.draft.refuse(name, f"promises {found.shape[0]} pictures of {spec.shape}")
        read = partial(
            read_encoded, self.hdf5.path, found, spec, rows_in(self.block_bytes, spec), decode=decode
        )
        return self.draft.add(spec, found.shape[0], read, source=name, how=how, lossless=lossless)

    def rest(self, clock_of: Callable[[Field], str]) -> None:
        """Keep what has found no place: rows as ``extra`` streams, small values and attributes in the header.

        Parameters
        ----------
        clock_of
            Gives the clock of a dataset's rows; ``""`` if it has none.
        """
        for name, found in self.hdf5.fields.items():
            if name not in self.placed:
                self._leave(name, found, clock_of)
        for name, why in self.hdf5.unread.items():
            self.draft.drop(name, why)
        for name, value in self.hdf5.attributes.items():
            if name not in self.placed:
                self.draft.tell(name, value)

    def _leave(self, name: str, found: Field, clock_of: Callable[[Field], str]) -> None:
        if found.unread == UNWRITTEN:
            self.draft.refuse(name, found.unread, "The recording was cut off")
        small = math.prod(found.shape) <= SMALL_VALUES and found.shape[:1] != (self.steps,)
        none = found.unread or not found.shape or 0 in found.shape or small
        clock = "" if none else clock_of(found)
        stream = stream_name("extra", *name.split("/"))
        if not clock:
            tell_value(self.draft, self.hdf5, name, found)
        elif found.dtype.kind == "S":
            self.keep(name, bytes_spec(found, stream, clock), FIXED_BYTES)
        else:
            self.keep(name, spec_of(found, stream, clock=clock))
