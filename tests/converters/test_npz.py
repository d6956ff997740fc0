"""NumPy's files: read by rows as NumPy itself reads them, and refused where they mean harm."""

import io
import pickle
import struct
import time
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.lib import format as npy
from teleopen.converters._npz import arrays_of, rows, whole
from teleopen.schemas import FormatError


class Trap:
    """Leaves a mark when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("trapped"),)


def save(path: Path, **arrays: Any) -> Path:
    np.savez_compressed(path, **arrays)
    return path


def header(text: str, version: tuple[int, int] = (1, 0)) -> bytes:
    raw = text.encode()
    size = struct.pack("<H" if version == (1, 0) else "<I", len(raw))
    return npy.MAGIC_PREFIX + bytes(version) + size + raw


def read_all(path: Path) -> None:
    for found in arrays_of(path).values():
        for _ in rows(path, found, 0, 1 << 60, 1 << 10):
            pass


def refusal(path: Path) -> FormatError:
    with pytest.raises(FormatError) as caught:
        read_all(path)
    assert caught.value.path == str(path)
    return caught.value


dtypes = (
    hnp.integer_dtypes()
    | hnp.floating_dtypes(sizes=(16, 32, 64))
    | hnp.boolean_dtypes()
    | hnp.byte_string_dtypes()
)


@settings(max_examples=40)
@given(
    array=hnp.arrays(dtypes, hnp.array_shapes(min_dims=1, max_dims=4, max_side=6)),
    fortran=st.booleans(),
    start=st.integers(0, 7),
    stop=st.integers(0, 9),
    step=st.integers(1, 4),
    packed=st.booleans(),
)
def test_rows_are_those_that_numpy_reads(
    tmp_path_factory: pytest.TempPathFactory,
    array: Any,
    fortran: bool,
    start: int,
    stop: int,
    step: int,
    packed: bool,
) -> None:
    path = tmp_path_factory.mktemp("npz") / "a.npz"
    (np.savez_compressed if packed else np.savez)(path, x=np.asfortranarray(array) if fortran else array)
    found = arrays_of(path)["x"]
    blocks = list(rows(path, found, start, stop, step))
    assert all(len(block) <= step for block in blocks)
    got = np.concatenate(blocks) if blocks else array[:0]
    np.testing.assert_array_equal(got, np.load(path)["x"][start:stop])
    np.testing.assert_array_equal(whole(path, found, 1 << 20), array)


@pytest.mark.filterwarnings("ignore:Stored array in format")
def test_headers_of_the_second_version_and_long_ones_are_read(tmp_path: Path) -> None:
    wide = np.zeros(3, [(f"field_number_{i}", "<f4") for i in range(300)])
    np.save(tmp_path / "a.npy", wide)
    assert len(arrays_of(tmp_path / "a.npy")["array"].dtype.names or ()) == 300
    np.save(tmp_path / "b.npy", np.zeros(3, [("长度", "<f4")]))
    assert "version (3, 0)" in arrays_of(tmp_path / "b.npy")["array"].unread


def test_pickles_are_listed_and_never_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "a.npz", bad=np.array([Trap()], object), good=np.arange(3))
    found = arrays_of(tmp_path / "a.npz")
    assert (found["bad"].unread != "", found["good"].unread) == (True, "")
    assert "pickles" in refusal(tmp_path / "a.npz").why
    tmp_path.joinpath("b.npy").write_bytes(pickle.dumps(Trap()))
    refusal(tmp_path / "b.npy")
    assert not Path("trapped").exists()


HEADERS = {
    "a shape of terabytes": "{'descr': '<f8', 'fortran_order': False, 'shape': (10000000000000,)}",
    "a negative shape": "{'descr': '<f8', 'fortran_order': False, 'shape': (-1, 8)}",
    "a shape that overflows": "{'descr': '<f8', 'fortran_order': False, 'shape': (4294967296, 4294967296)}",
    "a code": "__import__('os').system('true')",
    "a key that is missing": "{'descr': '<f8', 'shape': (1,)}",
    "a type that is none": "{'descr': 'no type', 'fortran_order': False, 'shape': (1,)}",
    "brackets without end": "(" * 9_000,
    "a sum": "1+" * 4_000 + "1",
    "nothing": "",
    "a list": "[]",
}


@pytest.mark.parametrize("what", HEADERS)
@pytest.mark.filterwarnings("ignore::SyntaxWarning")
def test_headers_that_lie_are_refused(tmp_path: Path, what: str) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(header(HEADERS[what]) + bytes(64))
    started = time.monotonic()
    refusal(path)
    assert time.monotonic() - started < 5


def test_a_header_beyond_the_bound_is_not_parsed(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(header("{" + " " * 100_000 + "}", (2, 0)))
    assert "Header" in refusal(path).why or "header" in refusal(path).why


def test_an_array_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.arange(100.0))
    path.write_bytes(path.read_bytes()[:-8])
    assert "792" in refusal(path).why


def test_a_member_that_inflates_beyond_its_claim_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.npz", x=np.zeros(1 << 20))
    raw = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        at = raw.rfind(b"PK\x01\x02")
        size = archive.infolist()[0].file_size
    assert struct.unpack_from("<I", raw, at + 24) == (size,)
    for claim in (size // 2, 0xFFFFFFF0):
        struct.pack_into("<I", raw, at + 24, claim)
        path.write_bytes(raw)
        refusal(path)


def test_members_that_lie_over_each_other_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, x=np.zeros(1000), y=np.zeros(1000))
    raw = bytearray(path.read_bytes())
    at = raw.rfind(b"PK\x01\x02")
    struct.pack_into("<II", raw, at + 20, 15_000, 15_000)
    path.write_bytes(raw)
    assert "lie over each other" in refusal(path).why


def test_a_flipped_bit_is_found_by_the_checksum(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, x=np.arange(1000))
    raw = bytearray(path.read_bytes())
    raw[2_000] ^= 1
    path.write_bytes(raw)
    assert "CRC" in refusal(path).why
    with pytest.raises(FormatError, match="CRC"):
        list(rows(path, arrays_of(path)["x"], 500, 1000, 100))


def test_other_compressions_and_doubled_names_are_refused(tmp_path: Path) -> None:
    out = io.BytesIO()
    np.save(out, np.arange(3))
    for name, method in (("lzma", zipfile.ZIP_LZMA), ("bzip2", zipfile.ZIP_BZIP2)):
        with zipfile.ZipFile(tmp_path / name, "w", method) as archive:
            archive.writestr("x.npy", out.getvalue())
        assert "neither stored nor deflated" in refusal(tmp_path / name).why
    with zipfile.ZipFile(tmp_path / "twice", "w") as archive:
        archive.writestr("x.npy", out.getvalue())
        archive.writestr("x", b"other")
    assert "twice" in refusal(tmp_path / "twice").why


@settings(max_examples=50)
@given(noise=st.binary(max_size=400), cut=st.integers(0, 900), data=st.data())
def test_damage_of_any_kind_is_a_format_error(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, cut: int, data: st.DataObject
) -> None:
    path = save(tmp_path_factory.mktemp("npz") / "a.npz", x=np.arange(40.0).reshape(8, 5), y=np.arange(3))
    raw = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at : at + len(noise)] = noise
    path.write_bytes(raw[: max(4, len(raw) - cut)])
    with suppress(FormatError):
        read_all(path)


def read_bomb(path: Path) -> None:
    read_all(path)


@pytest.mark.slow
def test_reading_holds_a_block_and_not_the_array(tmp_path: Path, peak_memory: Any) -> None:
    path = save(tmp_path / "a.npz", x=np.zeros((1 << 16, 1 << 10)))  # 512 MiB in half a MiB
    assert peak_memory(read_bomb, path) < 64 << 20
