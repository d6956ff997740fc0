"""Recordings that were made to do harm: every format's sample, spoilt in each way that its files allow.

`corpus` writes them. Each has to be refused by name. None may lead a reader to `SECRET`, which lies outside
of all of them and which many name.
"""

from __future__ import annotations

import importlib
import os
import pickle
import random
import shutil
import sqlite3
import struct
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tests.converters import test_hostile_pickles as pickles
from tests.converters import test_hostile_ros as ros
from tests.converters import test_hostile_zarr as zarrs

SECRET = b"nobody may read this"
Spoil = Callable[[Path, Path], None]
"""Spoils a file; the second path is that of the secret."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A hostile recording: what was done to it, the converter that is asked, and where it lies."""

    name: str
    format: str
    path: Path


# Any file


def _half(file: Path, _secret: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def _nothing(file: Path, _secret: Path) -> None:
    os.truncate(file, 0)


def _noise(file: Path, _secret: Path) -> None:
    file.write_bytes(random.Random(0).randbytes(file.stat().st_size))


# HDF5


def _hdf5(change: Callable[[h5py.File, str, Path], None]) -> Spoil:
    """Return what changes a file's largest dataset of numbers."""

    def spoil(file: Path, secret: Path) -> None:
        with h5py.File(file, "r+") as hdf5:
            change(hdf5, _largest(hdf5), secret)

    return spoil


def _largest(hdf5: h5py.File) -> str:
    found: list[tuple[int, str]] = []

    def look(name: str, member: Any) -> None:
        if isinstance(member, h5py.Dataset) and member.dtype.kind in "fiu" and member.ndim:
            found.append((member.size, name))

    hdf5.visititems(look)
    return max(found)[1]


def _replaced(hdf5: h5py.File, name: str, **plan: Any) -> None:
    del hdf5[name]
    hdf5.create_dataset(name, **plan)


def _stored_outside(hdf5: h5py.File, name: str, secret: Path) -> None:
    shape = hdf5[name].shape
    _replaced(hdf5, name, shape=shape, dtype="u1", external=[(str(secret), 0, int(np.prod(shape)))])


def _linked_outside(hdf5: h5py.File, name: str, secret: Path) -> None:
    del hdf5[name]
    hdf5[name] = h5py.ExternalLink(str(secret), "/values")


def _virtual(hdf5: h5py.File, name: str, secret: Path) -> None:
    shape = hdf5[name].shape
    layout = h5py.VirtualLayout(shape, "u1")
    layout[...] = h5py.VirtualSource(str(secret), "values", shape)
    del hdf5[name]
    hdf5.create_virtual_dataset(name, layout)


def _promises(hdf5: h5py.File, name: str, _secret: Path) -> None:
    rows = hdf5[name].shape[0]
    _replaced(hdf5, name, shape=(rows, 10**6, 10**6), dtype="u1", chunks=(1, 100, 10**4), compression="gzip")


def _in_itself(hdf5: h5py.File, name: str, _secret: Path) -> None:
    parent = hdf5[name].parent
    del hdf5[name]
    hdf5[name] = parent


def _bomb(hdf5: h5py.File, name: str, _secret: Path) -> None:
    rows = hdf5[name].shape[0]
    _replaced(
        hdf5, name, data=np.zeros((rows, 1 << 16), "u1"), chunks=(rows, 1 << 16), compression="gzip",
        compression_opts=9,
    )  # fmt: skip
    from tests.converters.test_hostile_hdf5 import half_a_gigabyte_of_nothing

    hdf5[name].id.write_direct_chunk((0, 0), half_a_gigabyte_of_nothing())


# Texts, tables, films, pictures, arrays


def _deep(file: Path, _secret: Path) -> None:
    file.write_bytes(b'{"a":' * 200_000)


def _no_text(file: Path, _secret: Path) -> None:
    file.write_bytes(bytes(range(256)) * 4)


def _footer(file: Path, _secret: Path) -> None:
    data = file.read_bytes()
    file.write_bytes(data[:-8] + struct.pack("<I", 0x7FFF_FFFF) + data[-4:])


def _many_samples(file: Path, _secret: Path) -> None:
    """Claim four thousand million pictures in an MP4's table (ISO/IEC 14496-12, 8.7.3)."""
    data = bytearray(file.read_bytes())
    at = data.index(b"stsz") + 12
    data[at : at + 4] = b"\xff\xff\xff\xff"
    file.write_bytes(bytes(data))


def _huge_png(file: Path, _secret: Path) -> None:
    data = bytearray(file.read_bytes())
    data[16:24] = struct.pack(">II", 60_000, 60_000)
    file.write_bytes(bytes(data))


def _huge_jpeg(file: Path, _secret: Path) -> None:
    data = bytearray(file.read_bytes())
    at = next(data.index(mark) for mark in (b"\xff\xc0\x00\x11", b"\xff\xc2\x00\x11") if mark in data)
    data[at + 5 : at + 9] = struct.pack(">HH", 65_000, 65_000)
    file.write_bytes(bytes(data))


def _npy(header: str) -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def _huge_array(file: Path, _secret: Path) -> None:
    raw = _npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 7), }")
    _array(file, raw + bytes(64))


def _objects(file: Path, secret: Path) -> None:
    raw = _npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }")
    _array(file, raw + pickle.dumps(pickles.CALLS["shutil.copy"](secret)))


def _array(file: Path, raw: bytes) -> None:
    """Put an array in the place of a file's, or of the first of an archive's."""
    if not zipfile.is_zipfile(file):
        file.write_bytes(raw)
        return
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w") as archive:
        for name in members:
            archive.writestr(name, raw)


def _pickle(name: str) -> Spoil:
    def spoil(file: Path, _secret: Path) -> None:
        file.write_bytes(pickles.HOSTILE[name])

    return spoil


def _call(name: str) -> Spoil:
    def spoil(file: Path, secret: Path) -> None:
        file.write_bytes(pickle.dumps(pickles.CALLS[name](secret)))

    return spoil


def _long_record(file: Path, _secret: Path) -> None:
    """Claim a record of 2^62 bytes, with the checksum that belongs to that claim."""
    from google_crc32c import value

    length = struct.pack("<Q", 1 << 62)
    crc = value(length)
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFF_FFFF
    file.write_bytes(length + struct.pack("<I", masked) + file.read_bytes()[12:])


def _a_program(file: Path, _secret: Path) -> None:
    with closing(sqlite3.connect(file)) as base:
        base.executescript("DROP TABLE messages; CREATE VIEW messages AS SELECT 1 AS id;")


BY_ENDING: dict[tuple[str, ...], dict[str, Spoil]] = {
    (".h5", ".hdf5"): {
        "storage outside": _hdf5(_stored_outside),
        "link outside": _hdf5(_linked_outside),
        "virtual": _hdf5(_virtual),
        "promises": _hdf5(_promises),
        "holds itself": _hdf5(_in_itself),
        "bomb": _hdf5(_bomb),
    },
    (".json",): {"deep text": _deep, "no text": _no_text},
    (".parquet",): {"long footer": _footer},
    (".mp4",): {"many samples": _many_samples},
    (".png",): {"huge png": _huge_png},
    (".jpg",): {"huge jpeg": _huge_jpeg},
    (".npy", ".npz"): {"huge array": _huge_array, "objects": _objects},
    (".pkl",): {
        **{name: _pickle(name) for name in ("billions of laughs", "a call by INST", "an array of pointers")},
        **{f"call of {name}": _call(name) for name in ("os.system", "eval", "as a factory")},
    },
    (".tfrecord",): {"long record": _long_record},
    (".db3",): {"a view for a table": _a_program},
}
ANY: dict[str, Spoil] = {"half": _half, "nothing": _nothing, "noise": _noise}


def corpus(root: Path, formats: list[str]) -> Iterator[Case]:
    """Write the hostile recordings of these formats below ``root / "corpus"``."""
    secret = root / "outside" / "secret"
    secret.parent.mkdir(parents=True)
    secret.write_bytes(SECRET * 1_000)
    for name in formats:
        author = importlib.import_module(f"tests.samples.{name.replace('-', '_')}")
        folder = root / "samples" / name
        folder.mkdir(parents=True)
        sound: Path = author.write(folder).path
        for number, (title, file, spoil) in enumerate(_attacks(sound)):
            path = root / "corpus" / name / str(number) / sound.name
            path.parent.mkdir(parents=True)
            shutil.copytree(sound, path) if sound.is_dir() else shutil.copy(sound, path)
            spoil(path / file if sound.is_dir() else path, secret)
            yield Case(name=f"{file.name}: {title}", format=name, path=path)
    yield from _by_hand(root / "corpus" / "by hand", secret, set(formats))


def _attacks(sound: Path) -> Iterator[tuple[str, Path, Spoil]]:
    """Yield what is done to which file: anything to the largest, and to the first of each ending its own."""
    if sound.is_file():
        files = [Path(sound.name)]
        size = {files[0]: sound.stat().st_size}
    else:
        files = sorted(p.relative_to(sound) for p in sound.rglob("*") if p.is_file())
        size = {p: sound.joinpath(p).stat().st_size for p in files}
    largest = max(files, key=lambda p: (size[p], str(p)))
    for title, spoil in ANY.items():
        yield title, largest, spoil
    if sound.is_dir():
        yield "a link out", largest, _link_out
    for endings, spoils in BY_ENDING.items():
        mine = [p for p in files if any(ending in p.name for ending in endings)]
        for title, spoil in spoils.items() if mine else ():
            yield title, max(mine, key=lambda p: (size[p], str(p))), spoil


def _link_out(file: Path, secret: Path) -> None:
    """Move a file out of the recording, sound as it is, and leave a link in its place."""
    target = secret.with_name(f"{abs(hash(str(file)))}{file.suffix}")
    shutil.move(file, target)
    file.symlink_to(target)


def _by_hand(folder: Path, secret: Path, formats: set[str]) -> Iterator[Case]:
    """Yield recordings that are made anew rather than spoilt."""
    folder.mkdir(parents=True)
    if "umi-zarr" in formats:
        for name, lie in zarrs.LIES.items():
            path = zarrs.zipped(folder / f"{len(list(folder.iterdir()))}.zarr.zip", zarrs.buffer(**lie))
            yield Case(name=f"zarray: {name}", format="umi-zarr", path=path)
        for name in ("../evil", "/etc/evil", str(secret), "data\\..\\evil"):
            path = zarrs.zipped(
                folder / f"{len(list(folder.iterdir()))}.zarr.zip", zarrs.buffer() | {name: SECRET}
            )
            yield Case(name=f"zip member {name}", format="umi-zarr", path=path)
    for converter, path in ros.bombs(folder):
        if converter.format.name in formats:
            yield Case(name=f"bomb {path.name}", format=converter.format.name, path=path)
