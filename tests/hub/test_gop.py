"""The bytes of a chunk: what goes in comes out, and nothing else is taken for a chunk."""

import struct

import google_crc32c
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from teleopen.hub.gop import Entries, Entry, needed, pack, pack_all, runs, unpack
from teleopen.schemas import DamageError


@st.composite
def chunks(draw: st.DrawFn) -> tuple[list[Entry], int]:
    """Draw packets in any decode order, with preroll and pictures from behind the chunk."""
    n_frames = draw(st.integers(1, 12))
    beyond = draw(st.sets(st.integers(-20, -1) | st.integers(n_frames, 40), max_size=5))
    order = draw(st.permutations([*range(n_frames), *beyond]))
    entries = []
    for index, pts in enumerate(order):
        key = index == 0 or draw(st.booleans())
        data = draw(st.binary(min_size=1, max_size=20))
        entries.append(Entry(data, pts, key, not key and draw(st.booleans())))
    return entries, n_frames


SMALL = pack([Entry(b"key", 0, True, False), Entry(b"b", 2, False, False), Entry(b"c!", 1, False, True)], 3)


@given(chunks())
def test_what_is_packed_comes_out(chunk: tuple[list[Entry], int]) -> None:
    entries, n_frames = chunk
    found = unpack(pack(entries, n_frames), slots=n_frames)
    assert found.n_frames == n_frames
    assert [entry._replace(data=bytes(entry.data)) for entry in found.packets] == entries


def test_the_bytes_are_those_of_the_specification() -> None:
    body = b"TOV1" + struct.pack("<HHI", 1, 1, 0) + struct.pack("<IhBB", 3, 0, 1, 0) + b"key"
    expected = body + struct.pack("<I", google_crc32c.value(body))
    assert pack([Entry(b"key", 0, True, False)], 1) == expected


def test_every_flipped_bit_is_found() -> None:
    for bit in range(8 * len(SMALL)):
        broken = bytearray(SMALL)
        broken[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DamageError):
            unpack(bytes(broken), 3)


def test_every_truncation_and_every_addition_is_found() -> None:
    for length in range(len(SMALL)):
        with pytest.raises(DamageError):
            unpack(SMALL[:length], 3)
    with pytest.raises(DamageError):
        unpack(SMALL + b"\0", 3)


@given(chunks(), st.data())
def test_a_flipped_bit_is_found_anywhere(chunk: tuple[list[Entry], int], data: st.DataObject) -> None:
    whole = bytearray(pack(*chunk))
    bit = data.draw(st.integers(0, 8 * len(whole) - 1))
    whole[bit // 8] ^= 1 << bit % 8
    with pytest.raises(DamageError):
        unpack(bytes(whole))


@given(st.binary(max_size=80), st.integers(0, 0xFFFF), st.integers(0, 0xFFFF))
def test_a_head_that_lies_is_found_though_its_checksum_is_right(
    rest: bytes, n_frames: int, n_packets: int
) -> None:
    body = b"TOV1" + struct.pack("<HHI", n_frames, n_packets, 0) + rest
    chunk = body + struct.pack("<I", google_crc32c.value(body))
    try:
        found = unpack(chunk, 32)
    except DamageError:
        return
    assert found.n_frames <= 32
    assert sum(len(entry.data) for entry in found.packets) <= len(rest)


@pytest.mark.parametrize(
    ("entries", "n_frames"),
    [
        ([], 1),
        ([Entry(b"a", 0, True, False)], 0),
        ([Entry(b"a", 0, True, False)], 2),
        ([Entry(b"a", 0, False, False)], 1),
        ([Entry(b"", 0, True, False)], 1),
        ([Entry(b"a", 0, True, True)], 1),
        ([Entry(b"a", 0, True, False), Entry(b"b", 0, False, False)], 1),
        ([Entry(b"a", 0, True, False), Entry(b"b", 40_000, False, False)], 1),
        ([Entry(b"a", -40_000, True, False), Entry(b"b", 0, False, False)], 1),
    ],
)
def test_what_would_not_be_read_is_not_packed(entries: list[Entry], n_frames: int) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        pack(entries, n_frames)


def test_more_frames_than_slots_is_damage() -> None:
    with pytest.raises(DamageError, match="3 frames for 2 slots"):
        unpack(SMALL, 2)


def packets_of(*entries: tuple[int, str]) -> list[Entry]:
    """Build packets from (pts, "key" | "ref" | "leaf")."""
    return [Entry(b".", pts, kind == "key", kind == "leaf") for pts, kind in entries]


def fed(packets: list[Entry], wanted: set[int]) -> list[list[int]]:
    return [[entry.pts for entry in run] for run in runs(packets, wanted)]


def test_only_what_is_needed_is_fed() -> None:
    star = packets_of((0, "key"), (3, "ref"), (1, "leaf"), (2, "leaf"), (5, "ref"), (4, "leaf"))
    assert fed(star, {0}) == [[0]]
    assert fed(star, {2}) == [[0, 3, 2]]
    assert fed(star, {1, 4}) == [[0, 3, 1, 5, 4]]


def test_each_closed_group_is_a_run_of_its_own() -> None:
    groups = packets_of((0, "key"), (1, "ref"), (2, "key"), (3, "ref"), (4, "key"), (5, "ref"))
    assert fed(groups, {1, 5}) == [[0, 1], [4, 5]]
    assert fed(groups, {1, 2}) == [[0, 1], [2]]


def test_a_picture_shown_before_its_key_is_decoded_from_the_key_before() -> None:
    # 4 is a key picture, 2 and 3 follow it in decode order and are shown before it.
    leading = packets_of((0, "key"), (1, "ref"), (4, "key"), (2, "ref"), (3, "leaf"), (5, "ref"))
    assert fed(leading, {3}) == [[0, 1, 4, 2, 3]]
    assert fed(leading, {5}) == [[4, 5]]
    assert fed(leading, {3, 5}) == [[0, 1, 4, 2, 3, 5]]


def test_a_picture_without_a_key_is_damage() -> None:
    with pytest.raises(DamageError, match="key packet"):
        runs(packets_of((2, "key"), (0, "ref"), (1, "ref")), {1})


def side_by_side(entries: list[Entry]) -> Entries:
    data, pts, key, disposable = zip(*entries, strict=True)
    return Entries(
        np.frombuffer(b"".join(data), np.uint8),
        np.array([len(part) for part in data]),
        np.array(pts),
        np.array(key),
        np.array(disposable),
    )


@given(chunks(), st.data())
def test_packets_side_by_side_are_chosen_and_packed_like_single_ones(
    chunk: tuple[list[Entry], int], data: st.DataObject
) -> None:
    entries, n_frames = chunk
    start = data.draw(st.integers(0, n_frames - 1))
    stop = data.draw(st.integers(start + 1, n_frames))
    columns = side_by_side(entries)
    try:
        expected = [entry for run in runs(entries, range(start, stop)) for entry in run]
    except DamageError:
        with pytest.raises(DamageError, match="no key packet"):
            needed(columns, start, stop)
        return
    chosen = needed(columns, start, stop)
    assert [entries[number] for number in chosen] == expected
    shifted = [entry._replace(pts=entry.pts - start) for entry in expected]
    assert pack_all(columns, stop - start, chosen, start) == pack(shifted, stop - start)
    part = columns.at(chosen)
    assert pack_all(part, stop - start, np.arange(len(part)), start) == pack(shifted, stop - start)
