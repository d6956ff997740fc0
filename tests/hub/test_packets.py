"""Packets by the block and one by one: the same packets, of which one block is held."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st
from teleopen.hub.sinks import told_of
from teleopen.schemas import Packet, Packets, VideoFormat, packet_blocks
from teleopen.schemas.episode import PACKET_BLOCK_BYTES

VIDEO = VideoFormat(
    codec="h264",
    bitstream="annexb",
    pixel_format="yuv420p",
    matrix="bt601",
    range="limited",
    width=8,
    height=8,
)
PACKETS = st.lists(st.builds(Packet, st.binary(max_size=20), st.integers(-(2**40), 2**40), st.booleans()))


@given(PACKETS)
def test_packets_come_out_of_blocks_as_they_went_in(packets: list[Packet]) -> None:
    taken = Packets(format=VIDEO, blocks=lambda: packet_blocks(packets))
    assert list(taken.read()) == list(taken.read()) == packets
    assert sum(map(len, taken.blocks())) == len(packets)


def test_a_block_ends_once_it_is_large() -> None:
    drawn = 0

    def endless() -> Iterator[Packet]:
        nonlocal drawn
        while True:
            drawn += 1
            yield Packet(bytes(PACKET_BLOCK_BYTES // 4), drawn, key=True)

    blocks = packet_blocks(endless())
    assert len(next(blocks)) == drawn == 4
    many = list(packet_blocks(Packet(b".", i, key=True) for i in range(10_000)))
    assert max(map(len, many)) <= 4096


@given(PACKETS)
def test_what_counts_of_packets_is_what_the_format_says(packets: list[Packet]) -> None:
    """docs/format.md, 2.3: pts as int64, the key flag as one byte, and the bytes."""
    told = b"".join(map(told_of, packet_blocks(packets)))
    assert told == b"".join(struct.pack("<q?", p.pts, p.key) + p.data for p in packets)
