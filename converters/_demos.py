"""HDF5 files of many demonstrations, each a group of its own: robomimic's kin, LIBERO, ManiSkill, Minari.

The formats differ in names and in what they mean. Alike are a walk over one group at a time (a file may hold
thousands), clocks for arrays that have one row more or are of another length, and what becomes of a field
that a format does not know.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np

from ..schemas import Array, Event, FormatError, Json, StreamSpec
from ..schemas.episode import Outcome
from ..schemas.validate import has_controls
from ._draft import Draft, stream_name
from ._folder import small_bytes
from ._hdf5 import MAGIC, UNWRITTEN, Field, Hdf5, open_hdf5
from ._pictures import Decode, in_blocks
from .base import rows_in

MAX_TEXT = 1 << 17
"""Characters of a text that is kept in an episode's header; of a longer one, its digest is."""

FIXED_BYTES = "bytes of a fixed length, as numbers"

_MAX_JSON = 1 << 25
_MAX_CONTAINERS = 4_000_000
_MAX_DEPTH = 32
SMALL_VALUES = 1_024
"""Most values of an array that is kept in an episode's header."""
_MAX_EVENTS = 10_000
_MAX_EVENT = 100_000
_MAX_SOURCE = 900
_MAX_TEXT_ROWS = 1_000_000
_LEAST_SIDE = 8


def is_demo_file(path: Path, test: Callable[[Any], bool]) -> bool:
    """Tell whether ``path`` is an HDF5 file that passes a test of its names; never raises."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as raw:
            if raw.read(len(MAGIC)) != MAGIC:
                return False
        import h5py

        with h5py.File(path, "r") as file:
            return test(file)
    except Exception:  # noqa: BLE001 - whatever a damaged file makes of the library, it is not claimed
        return False


def own_group(parent: Any, name: str) -> Any:
    """Return a member that is a group of the same file, or None."""
    import h5py

    if not isinstance(parent.get(name, getlink=True), h5py.HardLink):
        return None
    member = parent[name]
    return member if isinstance(member, h5py.Group) else None


def first_numbered(parent: Any, pattern: re.Pattern[str]) -> Any:
    """Return the first group whose name fits, of those that come first; None if there is none."""
    names = (name for name in islice(parent, 1_000) if pattern.fullmatch(name))
    return next((group for name in names if (group := own_group(parent, name)) is not None), None)


def numbered(names: Iterable[str], pattern: re.Pattern[str]) -> list[str]:
    """Return the paths whose last part fits ``pattern``, by the number in it: 10 comes after 9."""
    found = [(int(m[1]), name) for name in names if (m := pattern.fullmatch(name.rpartition("/")[2]))]
    return [name for _, name in sorted(found)]


def only(*wanted: str) -> Callable[[str], bool]:
    """Return the test that lets pass these groups, all below them, and the way to them."""
    below = tuple(f"{name}/" for name in wanted)
    return lambda name: (
        name in wanted or name.startswith(below) or any(w.startswith(f"{name}/") for w in below)
    )


def json_of(text: Json) -> Json:
    """Return what a text of JSON says, as programs in Python write it; `ValueError` if it is none.

    ``NaN`` and ``Infinity``, which JSON has not, come out as texts. Refused is nesting deeper than 32.
    """
    if not isinstance(text, str) or len(text) > _MAX_JSON:
        raise ValueError("is no text, or a very long one")
    if text.count("[") + text.count("{") > _MAX_CONTAINERS:
        raise ValueError(f"has more than {_MAX_CONTAINERS} lists and objects")
    try:
        found = json.loads(text, parse_constant=str, parse_float=_finite)
    except RecursionError:
        raise ValueError("is nested too deep") from None
    _check_depth(found)
    json.dumps(found, ensure_ascii=False).encode()  # halves of surrogate pairs are a ValueError here
    return found


def members_in(path: Path) -> dict[str, Json]:
    """Return the members of the object in a JSON file that a program in Python wrote, like `json_of`."""
    data = small_bytes(path, _MAX_JSON)
    try:
        return members_of(json_of(data.decode()))
    except ValueError as error:
        raise FormatError(str(path), "", f"cannot be read as JSON: {error}") from error


def _finite(text: str) -> float | str:
    number = float(text)
    return number if math.isfinite(number) else text


def _check_depth(value: Json) -> None:
    level: list[Json] = [value]
    for _ in range(_MAX_DEPTH):
        inner = [v.values() if isinstance(v, dict) else v for v in level if isinstance(v, dict | list)]
        level = [member for members in inner for member in members]
    if level:
        raise ValueError("is nested too deep")


def members_of(value: Json) -> dict[str, Json]:
    """Return an object's members; none if it is no object."""
    return value if isinstance(value, dict) else {}


def number_of(value: Json) -> float | None:
    """Return a positive finite number, or None."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e9
    return float(value) if good else None


def read_rows(
    path: Path, found: Field, spec: StreamSpec, rows: int, start: int, stop: int
) -> Iterator[Array]:
    """Yield rows ``[start, stop)`` of a dataset as samples of a stream, ``rows`` at a time."""
    with open_hdf5(path, only(found.name)) as hdf5:
        for block in hdf5.rows(found, start, stop, rows):
            same = block.dtype.kind == spec.np_dtype.kind
            values = block if same else np.ascontiguousarray(block).view(spec.np_dtype)
            yield values.reshape(len(block), *spec.shape)


def read_encoded(
    path: Path, found: Field, _spec: StreamSpec, rows: int, start: int, stop: int, *, decode: Decode
) -> Iterator[Array]:
    """Yield rows ``[start, stop)`` of a dataset of encoded pictures, decoded, ``rows`` at a time."""

    def blame(number: int, why: str) -> FormatError:
        return FormatError(str(path), f"{found.name}[{number}]", why)

    with open_hdf5(path, only(found.name)) as hdf5:
        files = encoded_rows(hdf5, found, start, min(stop, found.shape[0]))
        yield from in_blocks(files, decode, rows, start, blame)


def encoded_rows(hdf5: Hdf5, found: Field, start: int, stop: int) -> Iterator[bytes]:
    """Yield the bytes of rows, of a fixed length or of any."""
    if found.varying:
        yield from hdf5.varying_rows(found, start, stop)
        return
    for row in hdf5.rows(found, start, stop, 1):
        yield row.tobytes()


def spec_of(
    found: Field,
    name: str,
    *,
    unit: tuple[str, ...] = ("unknown",),
    axes: tuple[str, ...] = (),
    frame: str | None = None,
    description: str = "",
    clock: str = "steps",
    **attributes: Json,
) -> StreamSpec:
    """Return the spec of a dataset's rows of numbers; what is known of another number of axes is left out."""
    shape = found.shape[1:]
    last = shape[-1] if shape else 1
    fits = (not axes or len(axes) == last) and len(unit) in {1, last}
    return StreamSpec(
        name=name,
        kind="low_dim",
        dtype=found.dtype.name,
        shape=shape,
        unit=unit if fits else ("unknown",),
        axes=axes if fits else (),
        frame=frame if fits else None,
        clock=clock,
        description=description if fits else "",
        attributes=attributes if fits else {},
    )


def picture_of(found: Field, name: str, **attributes: Json) -> StreamSpec | None:
    """Return the spec of a dataset of pictures, (T, H, W, 3 or 1) uint8; None if it is none."""
    shape = found.shape[1:]
    if found.dtype != np.uint8 or len(shape) != 3 or shape[2] not in {1, 3} or min(shape[:2]) < _LEAST_SIDE:
        return None
    return StreamSpec(name=name, kind="video", dtype="uint8", shape=shape, unit=("1",), attributes=attributes)


def depth_of(found: Field, name: str, unit: str, **attributes: Json) -> StreamSpec | None:
    """Return the spec of depths, (T, H, W) or (T, H, W, 1) of 16 bits or float32; None if they are none."""
    shape = found.shape[1:]
    flat = shape[:2] if len(shape) == 3 and shape[2] == 1 else shape
    if found.dtype.name not in {"uint16", "int16", "float32"} or len(flat) != 2 or min(flat) < _LEAST_SIDE:
        return None
    dtype = found.dtype.name.removeprefix("u").replace("int16", "uint16")
    return StreamSpec(name=name, kind="depth", dtype=dtype, shape=flat, unit=(unit,), attributes=attributes)


@dataclass(slots=True)
class Demo:
    """One demonstration, while its fields are gone through.

    Attributes
    ----------
    group
        Path of its group in the file.
    length
        Steps, which are the rows of its actions.
    rate_hz, rate_source
        Rate of its nominal clocks, and where that is from.
    one_more
        Beginnings of the names, below the group, of what the writer gives one row more than steps: an
        observation after the last action.
    """

    hdf5: Hdf5
    group: str
    draft: Draft
    length: int
    rate_hz: float
    rate_source: str
    block_bytes: int
    one_more: tuple[str, ...] = ()
    _lengths: dict[str, int] = field(default_factory=dict)

    def fields(self) -> Iterator[tuple[str, Field]]:
        """Yield the datasets of the group by their names below it; refuse one not written to its end."""
        for name, found in self.hdf5.fields.items():
            if found.unread == UNWRITTEN:
                self.draft.refuse(name, found.unread, "The recording was cut off")
            if name.startswith(f"{self.group}/"):
                yield name.removeprefix(f"{self.group}/"), found

    def place(self, spec: Callable[[str, Field], StreamSpec | None]) -> None:
        """Keep the datasets of the group, by what ``spec`` tells of those that have rows of numbers."""
        for name, found in self.fields():
            known = spec(name, found) if self.readable(found) else None
            if known is None:
                self.leave(name, found)
            else:
                self.keep(name, found, known)

    def rest(self) -> None:
        """Keep the file's other datasets that were surveyed, and all attributes."""
        told = {fate.field for fate in self.draft.ledger}
        for name, found in self.hdf5.fields.items():
            if name not in told and not name.startswith(f"{self.group}/"):
                tell_value(self.draft, self.hdf5, name, found)
        for name, why in self.hdf5.unread.items():
            self.draft.drop(name, why)
        for name, value in self.hdf5.attributes.items():
            if name not in told:
                tell_bounded(self.draft, name, value)

    def clock_of(self, name: str, rows: int) -> str:
        """Return the clock of rows of a field: the steps, the observations of one more, or one of its own."""
        if rows == self.length:
            clock = "steps"
        elif rows == self.length + 1 and name.startswith(self.one_more or ("\0",)):
            clock = "observations"
        else:
            clock = re.sub(r"[^A-Za-z0-9_@+-]", "_", name)[:80]
            numbers = (f"{clock}_{i}" for i in range(2, 1_000_000))
            while self._lengths.get(clock, rows) != rows or clock in {"steps", "observations"}:
                clock = next(numbers)
            self.draft.warn(
                f"{name} has {rows} rows and {self.length} were expected: it has a clock of its own"
            )
        if clock not in self._lengths:
            self._lengths[clock] = rows
            self.draft.nominal(clock, rows, self.rate_hz, self.rate_source)
        return clock

    def keep(
        self,
        name: str,
        found: Field,
        spec: StreamSpec,
        how: str = "",
        *,
        read: Callable[..., Iterator[Array]] = read_rows,
        lossless: bool | None = True,
    ) -> None:
        """Keep a dataset's rows as a stream.

        Parameters
        ----------
        read
            Takes path, dataset, spec, rows per block, start and stop, and gives samples. Without it they are
            the dataset's numbers, of another shape or sign at most.
        """
        if found.shape[1:] != spec.shape and not how:
            how = "without the last axis, which has one value"
        if found.dtype.kind == "i" and spec.dtype == "uint16":
            how = "16 bits as they are stored, taken for a number without sign"
        spec = dataclasses.replace(spec, clock=self.clock_of(name, found.shape[0]))
        rows = partial(read, self.hdf5.path, found, spec, rows_in(self.block_bytes, spec))
        self.draft.add(spec, found.shape[0], rows, source=found.name, how=how, lossless=lossless)

    def check_count(self, name: str) -> None:
        """Warn if an attribute of the group tells another number of steps than there are rows."""
        said = self.hdf5.attributes.get(f"{self.group}@{name}")
        if said is not None and said != self.length:
            self.draft.warn(f"{name} is {said}, and there are {self.length} rows")

    def readable(self, found: Field) -> bool:
        """Tell whether a dataset has rows of numbers, and values in them."""
        return (
            not found.unread
            and not found.varying
            and 0 not in (found.shape or (0,))
            and found.dtype.kind in "biuf"
        )

    def leave(self, name: str, found: Field) -> None:
        """Keep what the format does not know: as a stream, as events or in the header, or tell why not."""
        rows = found.shape[0] if found.shape else 0
        expected = rows == self.length or (rows == self.length + 1 and name.startswith(self.one_more or "\0"))
        small = math.prod(found.shape) <= SMALL_VALUES and not expected
        path = ("extra", *name.split("/"))
        if found.varying and expected and rows <= _MAX_TEXT_ROWS:
            tell_texts(self.draft, found.name, name, self.hdf5.varying_rows(found, 0, rows), self.rate_hz)
        elif found.unread or 0 in (found.shape or (0,)) or (small and not self.hdf5.told(found)[0]):
            tell_value(self.draft, self.hdf5, found.name, found)
        elif found.dtype.kind == "S":
            self.keep(name, found, bytes_spec(found, stream_name(*path)), FIXED_BYTES)
        else:
            self.keep(name, found, spec_of(found, stream_name(*path)))


def tell_value(draft: Draft, hdf5: Hdf5, name: str, found: Field) -> None:
    """Keep a small dataset in the header, or tell why not."""
    if not found.unread and 0 in found.shape:
        draft.drop(name, f"holds no values: {found.shape}")
        return
    why, value = hdf5.told(found)
    if not why and math.prod(found.shape) > SMALL_VALUES:
        why = f"has no row per step: {found.shape}"
    if why:
        draft.drop(name, why)
    else:
        draft.tell(name, value, "values")


def bytes_spec(found: Field, name: str, clock: str = "steps") -> StreamSpec:
    """Return the spec of rows of bytes of a fixed length, as numbers."""
    shape = (*found.shape[1:], found.dtype.itemsize)
    return StreamSpec(name=name, kind="low_dim", dtype="uint8", shape=shape, clock=clock)


def tell_texts(draft: Draft, source: str, name: str, texts: Iterable[bytes], rate_hz: float) -> None:
    """Keep a text per step as events of the kind ``name``, one for each run of the same."""
    events: list[Event] = []
    step, row = 1e9 / rate_hz, 0
    for raw, run in groupby(texts):
        first, row = row, row + sum(1 for _ in run)
        text = raw.decode("utf-8", "replace")
        if len(events) == _MAX_EVENTS or len(raw) > _MAX_EVENT or has_controls(text) or "\ufffd" in text:
            draft.drop(source, "holds bytes that are no text, long texts, or too many")
            return
        events.append(Event(kind=name, start_ns=round(first * step), stop_ns=round(row * step), text=text))
    draft.events += events
    draft.account(source, "transformed", ["events"], "one event for each run of the same text")


def tell_bounded(
    draft: Draft, source: str, value: Json, home: str = "attributes", to: Sequence[str] = ()
) -> None:
    """Keep a value in the header; of one that is long as JSON, keep its digest."""
    source = source if len(source) <= _MAX_SOURCE and not has_controls(source) else ascii(source[:200])
    text = value if isinstance(value, str) else json.dumps(value)
    if len(text) <= MAX_TEXT:
        draft.tell(source, value, home, to)
        return
    raw = text.encode()
    digest = {"sha256": hashlib.sha256(raw).hexdigest(), "bytes": len(raw)}
    draft.extra.setdefault("digests", {})[source] = digest
    how = f"a text of {len(raw)} bytes: its SHA-256 is kept"
    draft.account(source, "transformed", ["extra.digests", *to], how, lossless=False)


def rate_of(
    draft: Draft, option: float | None, told: Iterable[tuple[float | None, str]], usual: str
) -> tuple[float, str]:
    """Return the steps per second, and where that is from: the option, or the first that is told."""
    for rate, source in ((option, "option rate_hz"), *told):
        if rate is not None:
            return rate, source
    why = "nothing tells how many steps it has per second"
    return draft.refuse("", why, f"Say it: option rate_hz. {usual}")


def outcome_of(value: Json) -> Outcome:
    """Return the outcome that a truth value tells; anything else tells none."""
    if isinstance(value, bool):
        return "success" if value else "failure"
    return "unknown"
