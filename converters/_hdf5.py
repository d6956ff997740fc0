"""Reading HDF5 that a stranger wrote.

An HDF5 file can name other files (external storage, external links, virtual datasets), contain itself, ask
for code to be loaded (filter plugins), and promise terabytes in a kilobyte. All of this is written in its
structure, so the structure is surveyed first and no payload is touched before that: `open_hdf5`.

Two dangers lie in the payload. The library inflates a gzip chunk into a buffer that doubles until the stream
ends, whatever size the header gives (H5Zdeflate.c); here chunks are inflated by zlib with a limit instead.
And a chunk that was never written reads as fill values, as if they had been measured; here it is an error.

What is merely of a type that is not read here (references, compounds) does no harm as long as nobody reads
it: it is listed with the reason, for the ledger to tell. Rows of variable length lie in a heap that is read
without the library (`_hdf5_heap.py`), one row at a time and only if they are bytes or text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NoReturn

import numpy as np

from ..schemas import Array, FormatError, Json, TeleopenError
from ..schemas.validate import has_controls
from ._hdf5_headers import stored_attribute
from ._hdf5_heap import REFERENCE_BYTES, GlobalHeap, references_of, row_sizes
from ._hdf5_rows import FILTERS, LZF, MAX_CHUNK_BYTES, MOST, REPACK, Rows
from ._hdf5_told import MAX_ATTRIBUTE_BYTES, characters_of, told
from ._hdf5_types import why_unread
from .base import MAX_EPISODE_BYTES

MAGIC = b"\x89HDF\r\n\x1a\n"
MAX_ROW_BYTES = 1 << 26
MAX_DEPTH = 32
MAX_OBJECTS = 100_000
MAX_ATTRIBUTES = 1_000
MAX_NAME = 500

# Bytes of an address and of a length, in files that are not of another age.
_WIDE = (8, 8)

# References to rows of variable length that are held at a time.
_REFERENCES = 4_096

# What a dataset may promise beyond what its stored bytes can hold, so that small empty ones do no harm.
_GRACE = 1 << 20

UNWRITTEN = "was not written to its end, so that values would be made up"


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """A dataset, and whether it can be read.

    Attributes
    ----------
    name
        Its path, without the leading slash.
    shape, dtype
        As NumPy has them. A dtype of kind ``S`` is bytes of a fixed length.
    chunks, filters
        Extent of a chunk and the numbers of its filters, if it is stored in chunks.
    stored
        Bytes that it takes in the file.
    unread
        Why `Hdf5.rows` does not read it; empty if it does.
    varying
        Its rows are bytes or text of any length, and `Hdf5.varying_rows` reads them.
    """

    name: str
    shape: tuple[int, ...] = ()
    dtype: np.dtype[Any] = field(default_factory=lambda: np.dtype("u1"))
    chunks: tuple[int, ...] | None = None
    filters: tuple[int, ...] = ()
    stored: int = 0
    unread: str = ""
    varying: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes of all values, in memory."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True, slots=True, kw_only=True)
class Hdf5:
    """An open file whose structure was found harmless.

    Attributes
    ----------
    fields
        Every dataset and every further name of one, by its path.
    attributes
        Every attribute that can be told as JSON, as ``path@name``; ``@name`` for those of the file.
    unread
        Why the others cannot, by the same names.
    passed_by
        What was not surveyed, since the caller asked for a part of the file: paths, in the file's order.
    """

    path: Path
    file: Any
    fields: Mapping[str, Field]
    attributes: Mapping[str, Json]
    unread: Mapping[str, str]
    passed_by: tuple[str, ...] = ()

    def rows(self, found: Field, start: int, stop: int, rows: int) -> Iterator[Array]:
        """Yield rows ``[start, stop)`` of a dataset, ``rows`` at a time; little endian.

        Holds one block and, if the dataset has filters, one row of chunks.
        """
        if self.fields.get(found.name) != found:
            raise FormatError(str(self.path), found.name, "is not what it was when the file was surveyed")
        if found.unread or not found.shape:
            raise FormatError(str(self.path), found.name, found.unread or "is one value, not rows of them")
        if math.prod(found.shape[1:]) * found.dtype.itemsize > MAX_CHUNK_BYTES:
            raise FormatError(
                str(self.path), found.name, f"has rows of {found.shape[1:]} values, more than 256 MiB"
            )
        reader = Rows(self.file[found.name], found)
        stop = min(stop, found.shape[0])
        for first in range(start, stop, rows):
            with _as_format_error(self.path, f"{found.name}[{first}]"):
                block = reader.read(first, min(first + rows, stop))
            yield block

    def varying_rows(self, found: Field, start: int, stop: int, most: int = MAX_ROW_BYTES) -> Iterator[bytes]:
        """Yield rows ``[start, stop)`` of a dataset of `Field.varying`, one by one, as bytes.

        Holds one row and some thousand references. A row of more than ``most`` bytes is an error, and so
        are rows that claim more than the file holds.
        """
        if self.fields.get(found.name) != found or not found.varying:
            raise FormatError(str(self.path), found.name, "holds no rows of variable length")
        stop = min(stop, math.prod(found.shape))
        with self.path.open("rb") as file:
            heap = GlobalHeap(file, self.path.stat().st_size)
            for first in range(start, stop, _REFERENCES):
                references = self._references(found, file, first, min(first + _REFERENCES, stop))
                for i, reference in enumerate(references_of(references), first):
                    with _as_format_error(self.path, f"{found.name}[{i}]"):
                        row = heap.row(reference, most)
                    yield row

    def _references(self, found: Field, file: BinaryIO, start: int, stop: int) -> bytes:
        """Return where rows of variable length lie, as the dataset stores it."""
        with _as_format_error(self.path, f"{found.name}[{start}]"):
            if found.chunks:
                plain = replace(found, dtype=np.dtype((np.void, REFERENCE_BYTES)))
                return Rows(self.file[plain.name], plain, own=True).read(start, stop).tobytes()
            file.seek(self.file[found.name].id.get_offset() + start * REFERENCE_BYTES)
            references = file.read((stop - start) * REFERENCE_BYTES)
            if len(references) != (stop - start) * REFERENCE_BYTES:
                raise ValueError("reaches beyond the end of the file")
            return references

    def told(self, found: Field) -> tuple[str, Json]:
        """Return a small dataset of numbers or texts as JSON, or why it cannot be: (why, value)."""
        doubtful = bool(found.filters) or found.dtype.kind == "O"
        if not found.stored or (found.unread and doubtful and not found.varying):
            return found.unread or "holds no values", None
        with _as_format_error(self.path, found.name):
            dataset = self.file[found.name]
            size = max(found.nbytes, found.stored)
            return told(dataset.id.get_type(), found.shape, size, partial(self._whole, found))

    def _whole(self, found: Field) -> object:
        if found.varying:
            texts = self._texts(found)
            return texts if found.shape else texts[0]
        if found.unread or not found.shape:
            return self.file[found.name][()]
        return next(self.rows(found, 0, found.shape[0], found.shape[0]))

    def _texts(self, found: Field) -> list[bytes]:
        count = math.prod(found.shape)
        with self.path.open("rb") as file:
            size = sum(row_sizes(self._references(found, file, 0, count)))
        if size > MAX_ATTRIBUTE_BYTES:
            raise ValueError(f"has {size} bytes, more than {MAX_ATTRIBUTE_BYTES}")
        return list(self.varying_rows(found, 0, count))


@contextmanager
def open_hdf5(path: Path, only: Callable[[str], bool] | None = None) -> Iterator[Hdf5]:
    """Open a file, survey its structure, and close it in the end.

    Parameters
    ----------
    only
        Tells of the path of a group or dataset whether it is to be surveyed, for files of so many
        demonstrations that one is surveyed at a time; what is passed by is neither opened nor known.

    Raises
    ------
    FormatError
        If it is no HDF5, cut off, damaged, reaches out of itself, wants unknown filters, contains itself,
        or promises more than it can hold.
    """
    import h5py

    with _as_format_error(path, ""):
        with path.open("rb") as raw:
            if raw.read(len(MAGIC)) != MAGIC:
                _refuse(path, "", "is not an HDF5 file")
        survey = _Survey(path, only)
        # Whoever can write there could have code loaded into this process.
        while h5py.h5pl.size():
            h5py.h5pl.remove(0)
        file = h5py.File(path, "r")
    with file:
        with _as_format_error(path, "/"):
            survey.walk(file, "", (), 0)
            survey.settle_links()
        yield Hdf5(
            path=path,
            file=file,
            fields=survey.fields,
            attributes=survey.attributes,
            unread=survey.unread,
            passed_by=tuple(survey.passed_by),
        )


def _refuse(path: Path, where: str, why: str, advice: str = "") -> NoReturn:
    raise FormatError(str(path), where, why, advice)


@contextmanager
def _as_format_error(path: Path, where: str) -> Iterator[None]:
    """Turn whatever the library makes of a damaged file into a `FormatError`."""
    try:
        yield
    except TeleopenError:
        raise
    except MemoryError as error:
        raise FormatError(str(path), where, "asks for more memory than there is") from error
    except Exception as error:  # the library's errors for damaged files are of any kind
        why = " ".join(str(error).strip("'\"").split()) or type(error).__name__
        raise FormatError(str(path), where, f"cannot be read: {why}", "Copy the file anew") from error


class _Survey:
    """One walk over the structure of a file: names, shapes, sizes; no payload."""

    def __init__(self, path: Path, only: Callable[[str], bool] | None = None) -> None:
        self.path = path
        self.size = path.stat().st_size
        self.passed_by: list[str] = []
        self._only = only
        self.fields: dict[str, Field] = {}
        self.attributes: dict[str, Json] = {}
        self.unread: dict[str, str] = {}
        self._names: dict[int, str] = {}
        self._soft: dict[str, str] = {}
        self._stored = self._promised = self._attributes = 0

    def walk(self, group: Any, name: str, above: tuple[int, ...], depth: int) -> None:
        """Survey a group and all below it; ``above`` are the addresses of the groups that hold it."""
        import h5py

        above = (*above, self._address(group))
        self._names[above[-1]] = name or "/"
        self._survey_attributes(group, name)
        if depth > MAX_DEPTH:
            _refuse(self.path, name, f"is nested deeper than {MAX_DEPTH} groups")
        for key in group:
            child = self._named(f"{name}/{key}".lstrip("/"))
            if len(self.fields) + len(self._names) + len(self.passed_by) > MAX_OBJECTS:
                _refuse(self.path, child, f"the file holds more than {MAX_OBJECTS} objects")
            if self._only is not None and not self._only(child):
                self.passed_by.append(child)
                continue
            link = group.get(key, getlink=True)
            if isinstance(link, h5py.SoftLink):
                self._soft[child] = link.path
                continue
            if not isinstance(link, h5py.HardLink):
                _refuse(self.path, child, "is a link to another file, which is never followed")
            member = group[key]
            address = self._address(member)
            if address in above:
                _refuse(self.path, child, f"holds itself: it is {self._names[address]!r} again")
            if address in self._names:
                self._alias(child, self._names[address])
            elif isinstance(member, h5py.Group):
                self.walk(member, child, above, depth + 1)
            else:
                self._names[address] = child
                self._survey_attributes(member, child)
                self.fields[child] = self._dataset(member, child)

    def settle_links(self) -> None:
        """List soft links as further names of what they lead to, which has to be in the file."""
        known = set(self._names.values())
        for name, target in self._soft.items():
            parent = PurePosixPath("/", name).parent
            goal = str(parent / target).removeprefix("/") or "/"
            if goal not in known and self._only is None:
                _refuse(self.path, name, f"is a link to {target!r}, which is no object of the file")
            self._alias(name, goal)

    def _alias(self, name: str, target: str) -> None:
        self.fields[name] = Field(name=name, unread=f"is another name of {target}")

    @staticmethod
    def _address(member: Any) -> int:
        import h5py

        return int(h5py.h5o.get_info(member.id).addr)

    def _survey_attributes(self, member: Any, name: str) -> None:
        import h5py

        count = h5py.h5a.get_num_attrs(member.id)
        if count > MAX_ATTRIBUTES:
            _refuse(self.path, name or "/", f"has {count} attributes, more than {MAX_ATTRIBUTES}")
        for key in member.attrs if count else ():
            attribute = h5py.h5a.open(member.id, key.encode(errors="surrogateescape"))
            size = attribute.get_storage_size()
            kind = attribute.get_type()
            read = partial(member.attrs.get, key)
            if kind.get_class() == h5py.h5t.STRING and kind.is_variable_str():
                read = partial(self._texts_of, member, key, attribute.shape)
            why, value = told(kind, attribute.shape, size, read)
            self._attributes += max(min(size, MAX_ATTRIBUTE_BYTES), characters_of(value))
            if self._attributes > 16 * MAX_ATTRIBUTE_BYTES:
                _refuse(self.path, name or "/", "the file's attributes take more than 16 MiB")
            if why:
                self.unread[self._named(f"{name}@{key}")] = why
            else:
                self.attributes[self._named(f"{name}@{key}")] = value

    def _texts_of(self, member: Any, key: str, shape: tuple[int, ...]) -> object:
        """Return an attribute's texts of any length; `ValueError` with the reason if they are not read."""
        stored, wanted = None, math.prod(shape) * REFERENCE_BYTES
        with self.path.open("rb") as file, _as_format_error(self.path, key):
            if member.file.id.get_create_plist().get_sizes() == _WIDE:
                name = key.encode(errors="surrogateescape")
                stored = stored_attribute(file, self.size, self._address(member), name)
            references = (stored or b"")[:wanted]
            size = sum(row_sizes(references)) if len(references) == wanted else 0
            if len(references) == wanted and size <= MAX_ATTRIBUTE_BYTES:
                heap = GlobalHeap(file, self.size)
                texts = np.empty(math.prod(shape), object)
                texts[:] = [heap.row(reference, size) for reference in references_of(references)]
                return texts.reshape(shape).tolist()
        if len(references) != wanted:
            raise ValueError("is stored in a way in which texts of any length are not read")
        raise ValueError(f"has {size} bytes, more than {MAX_ATTRIBUTE_BYTES}")

    def _named(self, name: str) -> str:
        """Return a name that may be shown and stored, or refuse the file."""
        if len(name) > MAX_NAME or has_controls(name):
            _refuse(self.path, ascii(name[:80]), f"is a name of over {MAX_NAME} or of unprintable characters")
        return name

    def _dataset(self, member: Any, name: str) -> Field:
        """Return the record of a dataset, or refuse it. Shapes last: a virtual one opens files for its."""
        import h5py

        if not isinstance(member, h5py.Dataset):
            return Field(name=name, unread="is the definition of a type")
        plan = member.id.get_create_plist()
        if plan.get_layout() == h5py.h5d.VIRTUAL:
            _refuse(
                self.path, name, "is a virtual dataset: its values lie in other files, which are never opened"
            )
        if plan.get_external_count():
            _refuse(self.path, name, "keeps its values in another file, which is never opened")
        filters = tuple(int(plan.get_filter(i)[0]) for i in range(plan.get_nfilters()))
        for number in filters:
            if number not in FILTERS:
                allowed = ", ".join(FILTERS.values())
                _refuse(self.path, name, f"uses filter {number}; only {allowed} are read", REPACK)
        if member.shape is None:
            return Field(name=name, unread="holds no values")
        try:
            dtype = member.dtype
        except TypeError:
            return Field(name=name, unread="holds values of a type that NumPy has not")
        found = Field(
            name=name,
            shape=member.shape,
            dtype=dtype,
            chunks=member.chunks,
            filters=filters,
            stored=member.id.get_storage_size(),
            unread=why_unread(member.id.get_type(), dtype),
        )
        self._check_promise(found, member.id.get_offset())
        if _is_varying(found, member):
            return replace(found, varying=True)
        return found if found.unread else _with_gaps(found, member)

    def _check_promise(self, found: Field, offset: int | None) -> None:
        """Refuse a dataset that promises more than its bytes can hold, or bytes that the file has not."""
        self._stored += found.stored
        self._promised += found.nbytes
        most = max((MOST.get(number, 1) for number in found.filters), default=1)
        if found.nbytes > found.stored * most + _GRACE or self._promised > MAX_EPISODE_BYTES:
            _refuse(
                self.path,
                found.name,
                f"promises {found.nbytes} bytes of values, and {found.stored} bytes are stored",
                "The recording was cut off, or the file is made to exhaust memory",
            )
        if self._stored > self.size or (offset is not None and offset + found.stored > self.size):
            _refuse(self.path, found.name, "reaches beyond the end of the file", "Copy the file anew")
        if found.chunks and math.prod(found.chunks) * found.dtype.itemsize > MAX_CHUNK_BYTES:
            _refuse(self.path, found.name, f"has chunks {found.chunks}, more than 256 MiB each", REPACK)


def _is_varying(found: Field, member: Any) -> bool:
    """Tell whether a dataset's rows are bytes or text of any length, stored as `GlobalHeap` reads them."""
    import h5py

    kind = member.id.get_type()
    family = kind.get_class()
    text = family == h5py.h5t.STRING and kind.is_variable_str()
    octets = family == h5py.h5t.VLEN and kind.get_super().get_class() in {h5py.h5t.INTEGER, h5py.h5t.OPAQUE}
    if not (text or (octets and kind.get_super().get_size() == 1)) or len(found.shape) > 1:
        return False
    placed = found.chunks is not None or member.id.get_offset() is not None
    small = math.prod(found.chunks or ()) * REFERENCE_BYTES <= MAX_CHUNK_BYTES
    wide = member.file.id.get_create_plist().get_sizes() == _WIDE
    return placed and small and wide and LZF not in found.filters


def _with_gaps(found: Field, member: Any) -> Field:
    """Return the record with a reason not to read it, if parts of the dataset were never written."""
    if found.chunks is None:
        gaps = bool(found.nbytes) and not found.stored
    else:
        wanted = math.prod(-(-n // c) for n, c in zip(found.shape, found.chunks, strict=True))
        gaps = member.id.get_num_chunks() < wanted
    return replace(found, unread=UNWRITTEN) if gaps else found
