"""Rows of variable length in HDF5: read without the library, equal to what it reads, and never believed."""

import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from teleopen.converters._hdf5 import Hdf5, open_hdf5
from teleopen.converters._hdf5_headers import stored_attribute
from teleopen.schemas import FormatError

BYTES, TEXT = h5py.vlen_dtype(np.uint8), h5py.string_dtype()
REFERENCE = struct.Struct("<IQI")


def write(path: Path, rows: list[Any], kind: Any = BYTES, **plan: Any) -> Path:
    with h5py.File(path, "w") as file:
        found = file.create_dataset("rows", (len(rows),), kind, **plan)
        for i, row in enumerate(rows):
            found[i] = np.frombuffer(row, np.uint8) if kind is BYTES else row
    return path


def read(path: Path, start: int = 0, stop: int = 1 << 40, **limit: int) -> list[bytes]:
    with open_hdf5(path) as hdf5:
        return list(hdf5.varying_rows(hdf5.fields["rows"], start, stop, **limit))


def by_library(path: Path) -> list[bytes]:
    with h5py.File(path, "r") as file:
        rows = file["rows"][()]
    return [row if isinstance(row, bytes) else row.tobytes() for row in rows]


def references_at(path: Path) -> int:
    """Return where in the file the references of the dataset lie."""
    with h5py.File(path, "r") as file:
        return int(file["rows"].id.get_offset())


def overwrite(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def refusal(path: Path) -> FormatError:
    with pytest.raises(FormatError) as caught:
        read(path)
    assert caught.value.path == str(path)
    assert caught.value.where.startswith("rows[")
    return caught.value


# What is sound


@pytest.mark.parametrize(
    "plan",
    [
        {},
        {"chunks": (7,)},
        {"chunks": (7,), "maxshape": (None,)},
        {"chunks": (3,), "compression": "gzip", "shuffle": True},
    ],
)
def test_rows_are_what_the_library_reads(tmp_path: Path, plan: dict[str, Any]) -> None:
    random = np.random.default_rng(3)
    rows = [random.bytes(int(size)) for size in random.choice([0, 1, 7, 8, 300, 5_000, 90_000], 40)]
    path = write(tmp_path / "a.h5", rows, **plan)
    assert read(path) == rows == by_library(path)
    assert read(path, 11, 29) == rows[11:29]
    assert read(path, 40, 90) == []


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=300))
@settings(max_examples=20)
def test_rows_of_any_bytes_come_back(tmp_path_factory: pytest.TempPathFactory, rows: list[bytes]) -> None:
    path = write(tmp_path_factory.mktemp("any") / "a.h5", rows)
    assert read(path) == rows


def test_rows_of_several_datasets_written_in_turn_share_heaps(tmp_path: Path) -> None:
    names, path = ("left", "right", "depth"), tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        for name in names:
            file.create_dataset(name, (200,), BYTES, chunks=(64,))
        for i in range(200):
            for k, name in enumerate(names):
                file[name][i] = np.full(i * (k + 1) % 900, i, np.uint8)
    with open_hdf5(path) as hdf5:
        for k, name in enumerate(names):
            got = list(hdf5.varying_rows(hdf5.fields[name], 0, 200))
            assert got == [bytes([i]) * (i * (k + 1) % 900) for i in range(200)]


@pytest.mark.parametrize("plan", [{}, {"chunks": (2,)}])
def test_texts_come_back_as_their_bytes_and_are_told(tmp_path: Path, plan: dict[str, Any]) -> None:
    texts = ["put the cup down", "", "Tür öffnen", "拿起杯子"]
    path = write(tmp_path / "a.h5", texts, TEXT, **plan)
    assert read(path) == [text.encode() for text in texts] == by_library(path)
    with open_hdf5(path) as hdf5:
        assert hdf5.told(hdf5.fields["rows"]) == ("", texts)


def test_one_text_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["rows"] = "fold the towel"
    with open_hdf5(path) as hdf5:
        assert hdf5.told(hdf5.fields["rows"]) == ("", "fold the towel")
        assert list(hdf5.varying_rows(hdf5.fields["rows"], 0, 9)) == [b"fold the towel"]


@pytest.mark.parametrize(
    "kind", [h5py.vlen_dtype(np.float32), h5py.vlen_dtype(np.uint16), np.dtype("u1"), np.dtype("S4")]
)
def test_other_rows_are_not_taken_for_bytes(tmp_path: Path, kind: Any) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("rows", (3,), kind)
    with pytest.raises(FormatError, match="holds no rows of variable length"):
        read(path)


def test_those_who_do_not_ask_for_rows_find_them_unread(tmp_path: Path) -> None:
    with open_hdf5(write(tmp_path / "a.h5", [b"x"])) as hdf5:
        found = hdf5.fields["rows"]
        assert found.varying
        assert "variable length" in found.unread
        with pytest.raises(FormatError, match="variable length"):
            next(hdf5.rows(found, 0, 1, 1))


# What is not


def change_reference(path: Path, row: int, change: Callable[[int, int, int], tuple[int, int, int]]) -> None:
    at = references_at(path) + row * REFERENCE.size
    size, address, index = REFERENCE.unpack(path.read_bytes()[at : at + REFERENCE.size])
    overwrite(path, at, REFERENCE.pack(*change(size, address, index)))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda _, a, i: (0xFFFFFFFF, a, i), "claims 4294967295 bytes"),
        (lambda s, a, i: (s + 1, a, i), "claims 51 bytes of object"),
        (lambda s, a, i: (s - 1, a, i), "claims 49 bytes of object"),
        (lambda s, _, i: (s, 0, i), "no heap begins"),
        (lambda s, a, i: (s, a + 8, i), "no heap begins"),
        (lambda s, _, i: (s, (1 << 64) - 1, i), "beyond the end"),
        (lambda s, _, i: (s, 1 << 40, i), "beyond the end"),
        (lambda s, a, _: (s, a, 999), "of object 999"),
        (lambda s, a, _: (s, a, 0), "of object 0"),
        (lambda s, a, _: (s, a, 0xFFFFFFFF), "of object 4294967295"),
    ],
)
def test_a_reference_that_lies_is_refused(tmp_path: Path, change: Any, why: str) -> None:
    path = write(tmp_path / "a.h5", [bytes([i]) * 50 for i in range(9)])
    change_reference(path, 4, change)
    error = refusal(path)
    assert error.where == "rows[4]"
    assert why in error.why
    assert read(path, 0, 4) == [bytes([i]) * 50 for i in range(4)]


def heap_of(path: Path, row: int) -> int:
    at = references_at(path) + row * REFERENCE.size
    return int(REFERENCE.unpack(path.read_bytes()[at : at + REFERENCE.size])[1])


@pytest.mark.parametrize(
    ("place", "data", "why"),
    [
        (0, b"GCOK", "no heap begins"),
        (4, b"\2", "no heap begins"),
        (8, struct.pack("<Q", 1 << 40), "more than the file can hold"),
        (8, struct.pack("<Q", (1 << 64) - 1), "more than the file can hold"),
        (8, struct.pack("<Q", 16), "which has 0"),
        (16 + 8, struct.pack("<Q", 1 << 40), "damaged heap"),
        (16 + 8, struct.pack("<Q", (1 << 64) - 1), "damaged heap"),
        (16 + 16 + 56, struct.pack("<H", 1), "damaged heap"),
    ],
)
def test_a_heap_that_lies_is_refused(tmp_path: Path, place: int, data: bytes, why: str) -> None:
    path = write(tmp_path / "a.h5", [bytes([i]) * 50 for i in range(9)])
    overwrite(path, heap_of(path, 0) + place, data)
    assert why in refusal(path).why


def test_rows_that_all_lead_to_one_object_give_no_more_than_the_file_holds(tmp_path: Path) -> None:
    rows = [b"x" * 100_000, *[b"y" * 10] * 999]
    path = write(tmp_path / "a.h5", rows)
    whole = path.read_bytes()
    at = references_at(path)
    overwrite(path, at, whole[at : at + REFERENCE.size] * 1000)
    error = refusal(path)
    assert error.where in {"rows[1]", "rows[2]"}
    assert "more than the file can hold" in error.why


def test_references_to_ever_other_heaps_cannot_keep_us_busy(tmp_path: Path) -> None:
    """References that jump between heaps have each of them looked through anew, but not without end."""
    rows = [bytes([i % 256]) * 3_000 for i in range(100)]
    path = write(tmp_path / "a.h5", rows + [b"z"] * 4_900)
    at = references_at(path)
    first = path.read_bytes()[at : at + 100 * REFERENCE.size]
    tiny = b"".join(
        REFERENCE.pack(3_000, *REFERENCE.unpack(first[i : i + 16])[1:]) for i in range(0, len(first), 16)
    )
    overwrite(path, at, tiny * 50)
    assert "more than the file can hold" in refusal(path).why


def test_a_row_beyond_the_cap_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", [b"a" * 100, b"b" * 101])
    assert read(path, 0, 1, most=100) == [b"a" * 100]
    with pytest.raises(FormatError, match="claims 101 bytes: more than 100"):
        read(path, most=100)


def test_rows_never_written_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("rows", (20,), BYTES, chunks=(5,))[3] = np.ones(4, np.uint8)
    assert read(path, 0, 5) == [b"", b"", b"", b"\1" * 4, b""]
    assert "never written" in refusal(path).why


def test_a_text_larger_than_is_told_costs_no_memory(tmp_path: Path, peak_memory: Callable[..., int]) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["rows"] = "x" * (64 << 20)
    assert peak_memory(_tell, path) < 40 << 20


def _tell(path: Path) -> None:
    with open_hdf5(path) as hdf5:
        assert hdf5.told(hdf5.fields["rows"]) == ("has 67108864 bytes, more than 1048576", None)


def test_large_texts_of_attributes_are_told_as_such_and_others_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["values"] = np.zeros(1 << 18)
        file.attrs.update(
            {"long": "x" * (3 << 20), "task": "fold", "texts": ["a", "b"], "some": "y" * 900_000}
        )
        file["values"].attrs["note"] = "of a dataset"
    with open_hdf5(path) as hdf5:
        assert hdf5.unread["@long"] == "has 3145728 bytes, more than 1048576"
        assert hdf5.attributes["@task"] == "fold"
        assert hdf5.attributes["@texts"] == ["a", "b"]
        assert len(hdf5.attributes["@some"]) == 900_000
        assert hdf5.attributes["values@note"] == "of a dataset"


@pytest.mark.parametrize("libver", ["earliest", "latest"])
@pytest.mark.parametrize("count", [1, 7, 60])
def test_texts_of_attributes_are_what_the_library_reads(tmp_path: Path, libver: str, count: int) -> None:
    path, random = tmp_path / "a.h5", np.random.default_rng(count)
    with h5py.File(path, "w", libver=libver) as file:
        for member in (file, file.create_group("group/inner"), file.create_dataset("rows", (3,), "f4")):
            for i in range(count):
                text = "Größe " * int(random.integers(0, 9))
                member.attrs[f"näme {i}"] = [text, ""] if i % 3 == 1 else [[text], [text]] if i % 3 else text
                member.attrs[f"number {i}"] = i
        del file.attrs["näme 0"]
        file.attrs["näme 0"] = "later"
    with open_hdf5(path) as hdf5, h5py.File(path) as file:
        if libver == "latest" and count > 4:  # more than 8 attributes go to a heap of their own
            assert "stored in a way" in hdf5.unread["@näme 5"]
            return
        for name in ("/", "group/inner", "rows"):
            for key, value in file[name].attrs.items():
                plain = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
                assert hdf5.attributes[f"{name.strip('/')}@{key}"] == plain


def test_an_attribute_of_a_header_in_circles_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.attrs.update({f"text {i}": "x" for i in range(40)})
        root = h5py.h5o.get_info(file.id).addr
    data = bytearray(path.read_bytes())
    at = data.index(struct.pack("<HH", 0x10, 16), root)
    struct.pack_into("<QQ", data, at + 8, root + 16, 400)
    path.write_bytes(data)
    with path.open("rb") as raw, pytest.raises(ValueError, match="without end"):
        stored_attribute(raw, len(data), root, b"absent")


def test_an_attribute_that_claims_4_gb_in_a_file_of_6_kb_costs_no_memory(
    tmp_path: Path, peak_memory: Callable[..., int]
) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.attrs["text"] = "y" * 60
    data = bytearray(path.read_bytes())
    at = data.index(struct.pack("<QI", data.index(b"GCOL"), 1)) - 4
    struct.pack_into("<I", data, at, 0xFFFFFFFF)
    path.write_bytes(data)
    assert peak_memory(_survey_small, path) < 30 << 20


def _survey_small(path: Path) -> None:
    with open_hdf5(path) as hdf5:
        assert hdf5.unread["@text"] == "has 4294967295 bytes, more than 1048576"


def test_an_attribute_that_claims_a_gigabyte_of_nothing_costs_no_memory(
    tmp_path: Path, peak_memory: Callable[..., int]
) -> None:
    """A file of 8 kB that pretends to hold a text of 1.4 GB in a heap of which nothing was ever written."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.attrs["text"] = "y" * 60
        file["rows"] = np.zeros(3)
    data = bytearray(path.read_bytes())
    length, claimed = len(data), 1_400_000_000
    at = data.index(struct.pack("<QI", data.index(b"GCOL"), 1)) - 4
    REFERENCE.pack_into(data, at, claimed, length, 1)
    end = length + 40 + claimed
    struct.pack_into("<Q", data, data.index(struct.pack("<Q", length)), end)
    data += b"GCOL" + struct.pack("<B3xQ", 1, end - length) + struct.pack("<HH4xQ", 1, 1, claimed)
    path.write_bytes(data)
    with path.open("r+b") as file:
        file.truncate(end)
    assert peak_memory(_survey, path) < 30 << 20


def _survey(path: Path) -> None:
    with open_hdf5(path) as hdf5:
        assert hdf5.unread["@text"] == "has 1400000000 bytes, more than 1048576"


def test_a_damaged_text_is_refused_and_not_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", ["lift the lid"], TEXT)
    change_reference(path, 0, lambda size, address, index: (size + 1, address, index))
    with open_hdf5(path) as hdf5, pytest.raises(FormatError, match="claims 13 bytes"):
        hdf5.told(hdf5.fields["rows"])


def test_a_file_cut_off_within_the_heap_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", [b"x" * 5_000] * 9)
    path.write_bytes(path.read_bytes()[:-5_000])
    with pytest.raises(FormatError):
        read(path)


def test_changed_bytes_are_refused_or_harmless(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", [bytes([i]) * 40 for i in range(30)], chunks=(8,))
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    for at in random.integers(8, len(whole), 150):
        spoilt = bytearray(whole)
        spoilt[at] ^= 1 << int(random.integers(8))
        path.write_bytes(spoilt)
        with suppress(FormatError, KeyError):  # KeyError: where the name itself was changed
            assert len(read(path)) <= 30


def test_a_dataset_that_was_replaced_meanwhile_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", [b"abc"] * 4)
    with open_hdf5(path) as hdf5:
        before = hdf5.fields["rows"]
    write(path, [b"abc"] * 5)

    def ask(hdf5: Hdf5) -> None:
        next(hdf5.varying_rows(before, 0, 1))

    with open_hdf5(path) as hdf5, pytest.raises(FormatError):
        ask(hdf5)
