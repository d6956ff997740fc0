"""Packets of MP4 made into bitstreams by the block: as packet by packet, and as FFmpeg's own filters do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from teleopen.converters._bitstream import BitstreamForm, MalformedError, Setup, annexb_of

HEADER = b"\0\0\0\1\x67sps\0\0\0\1\x68pps"
PLAIN = Setup("h264", HEADER, None, 4)

Unit = bytes
Coded = tuple[list[Unit], bool]
"""The NAL units of a packet, and whether the container calls it a key."""

_BODY = st.binary(min_size=1, max_size=12).map(lambda body: body.replace(b"\0", b"\1"))
_OTHERS = st.lists(
    st.builds(lambda kind, body: bytes([kind]) + body, st.sampled_from([6, 9, 12]), _BODY), max_size=2
)


@st.composite
def h264(draw: st.DrawFn) -> Coded:
    """Draw a picture of one or more slices, with messages around it, as an encoder makes them."""
    kind, slices = draw(st.sampled_from([1, 5])), draw(st.integers(1, 5))
    reference = draw(st.integers(0, 3)) << 5
    units = draw(_OTHERS)
    for number in range(slices):
        begins = 0x80 if number == 0 else 0x40  # first_mb_in_slice: 0, or more
        units.append(bytes([reference | kind, begins]) + draw(_BODY))
    return [*units, *draw(_OTHERS)], kind == 5 or draw(st.booleans())


@st.composite
def hevc(draw: st.DrawFn) -> Coded:
    kind = draw(st.sampled_from([0, 1, 8, 9, 16, 19, 20, 21]))
    messages = [bytes([39 << 1, 1]) + body for body in draw(st.lists(_BODY, max_size=2))]
    slices = [bytes([kind << 1, 1]) + draw(_BODY) for _ in range(draw(st.integers(1, 4)))]
    return [*messages, *slices], kind >= 16


def block(packets: list[Coded]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return packets as MP4 holds them: data, sizes, keys."""
    raw = [b"".join(len(unit).to_bytes(4, "big") + unit for unit in units) for units, _ in packets]
    sizes, keys = [len(data) for data in raw], [key for _, key in packets]
    return np.frombuffer(bytearray(b"".join(raw)), np.uint8), np.array(sizes), np.array(keys)


def cut(data: np.ndarray, size: np.ndarray) -> list[bytes]:
    assert len(data) == size.sum()
    return [part.tobytes() for part in np.split(data, np.cumsum(size)[:-1])]


def one_by_one(units: list[Unit], *, key: bool) -> bytes:
    """Go unit by unit: parameter sets in front of the first slice of an IDR picture, or of any other key."""
    out = b""
    has_idr = any(unit[0] & 31 == 5 for unit in units)
    opened = False
    for unit in units:
        if unit[0] & 31 == 5 and not opened:
            out, opened = out + HEADER, True
        out += (b"\0\0\1" if out else b"\0\0\0\1") + unit
    return HEADER + out if key and not has_idr else out


@given(st.lists(h264(), min_size=1, max_size=8))
def test_a_block_gives_what_its_units_give_one_by_one(packets: list[Coded]) -> None:
    data, size, key = block(packets)
    found = annexb_of(PLAIN, data, size, key)
    assert found is not None
    assert cut(*found) == [one_by_one(units, key=key) for units, key in packets]


@pytest.fixture(scope="module")
def setups(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Setup]:
    """Return the setup of a real file of a codec, with FFmpeg's filter."""
    found: dict[str, Setup] = {}

    def of(codec: str) -> Setup:
        if codec not in found:
            path = tmp_path_factory.mktemp("setup") / f"{codec}.mp4"
            _film(path, {"h264": "libx264", "hevc": "libx265"}[codec])
            with av.open(str(path)) as container:
                stream = container.streams.video[0]
                list(container.demux(stream))
                found[codec] = Setup.of(stream, codec)
        return found[codec]

    return of


def _film(path: Path, encoder: str) -> None:
    with av.open(str(path), "w") as container:
        options = {"x265-params": "log-level=none:pools=none:frame-threads=1"} if encoder == "libx265" else {}
        stream = container.add_stream(encoder, rate=30, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width, stream.pix_fmt = 64, 80, "yuv420p"
        picture = np.zeros((64, 80, 3), np.uint8)
        container.mux([*stream.encode(av.VideoFrame.from_ndarray(picture)), *stream.encode(None)])


@pytest.mark.parametrize(("codec", "pictures"), [("h264", h264()), ("hevc", hevc())])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_block_gives_what_ffmpegs_filter_gives(
    codec: str, pictures: st.SearchStrategy[Coded], setups: Callable[[str], Setup], data: st.DataObject
) -> None:
    packets = data.draw(st.lists(pictures, min_size=1, max_size=6))
    setup = setups(codec)
    assert setup.length_bytes == 4
    filtered = BitstreamForm(setup)._one_by_one(*block(packets))
    at_once = annexb_of(setup, *block(packets))
    assert at_once is not None
    assert cut(*at_once) == cut(*filtered)


@pytest.mark.parametrize("kinds", [[7, 8, 5], [8, 5], [1, 5], [7, 1]])
def test_parameter_sets_among_the_packets_are_left_to_ffmpeg(
    kinds: list[int], setups: Callable[[str], Setup]
) -> None:
    setup = setups("h264")
    sets = {7: setup.header[4 : setup.header.index(b"\0\0\0\1\x68")], 8: setup.header.split(b"\0\0\0\1")[2]}
    odd: Coded = [sets.get(kind, bytes([kind | 96, 0x88, 1, 2])) for kind in kinds], True
    plain: list[Coded] = [([b"\x65\x88ab"], True), ([b"\x41\x88cd"], False)]
    packets = [plain[0], odd, plain[1], plain[0]]
    assert annexb_of(setup, *block(packets)) is None
    form, whole = BitstreamForm(setup), BitstreamForm(setup)._one_by_one(*block([*packets, *plain]))
    # Also of what comes afterwards: sets that were there once are what later pictures refer to.
    assert [*cut(*form.of(*block(packets))), *cut(*form.of(*block(plain)))] == cut(*whole)


@given(packets=st.lists(h264(), min_size=1, max_size=5), data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_length_that_leads_out_of_its_packet_is_refused(
    packets: list[Coded], data: st.DataObject, setups: Callable[[str], Setup]
) -> None:
    raw, size, key = block(packets)
    number = data.draw(st.integers(0, len(packets) - 1))
    units = packets[number][0]
    chosen = data.draw(st.integers(0, len(units) - 1))
    at = int(size[:number].sum()) + sum(4 + len(unit) for unit in units[:chosen])
    left = int(size[: number + 1].sum()) - at - 4
    wrong = data.draw(st.integers(left + 1, left + 300) | st.integers(2**31, 2**32 - 1))
    raw[at : at + 4] = list(wrong.to_bytes(4, "big"))
    assert annexb_of(setups("h264"), raw.copy(), size, key) is None
    with pytest.raises(MalformedError) as caught:
        BitstreamForm(setups("h264")).of(raw, size, key)
    assert caught.value.number == number


def test_more_units_than_a_picture_has_are_left_to_ffmpeg(setups: Callable[[str], Setup]) -> None:
    many: Coded = [b"\x41\x88" + bytes([1 + i % 200]) for i in range(100_000)], False
    assert annexb_of(setups("h264"), *block([many])) is None
    (found,) = cut(*BitstreamForm(setups("h264")).of(*block([many])))
    assert found.count(b"\0\0\1\x41\x88") == 100_000


# AV1


def obu(kind: int, body: bytes, *, sized: bool = True) -> bytes:
    size = (
        bytes([len(body) | 0x80, 0]) if len(body) % 2 else bytes([len(body)])
    )  # also in more bytes than needed
    return bytes([kind << 3 | 2 * sized]) + size * sized + body


@st.composite
def av1(draw: st.DrawFn) -> tuple[bytes, bool]:
    key = draw(st.booleans())
    units = [obu(1, draw(_BODY))] * draw(st.integers(0, 1))
    units += [obu(draw(st.sampled_from([3, 5, 6])), body) for body in draw(st.lists(_BODY, max_size=3))]
    return b"".join([*units, obu(6, draw(_BODY), sized=draw(st.integers(0, 9)) > 0)]), key


@given(st.lists(av1(), min_size=1, max_size=6))
def test_obus_of_a_block_are_those_of_its_packets(packets: list[tuple[bytes, bool]]) -> None:
    form = BitstreamForm(Setup("av1", b"\x0a\x03hdr"))
    size, key = np.array([len(raw) for raw, _ in packets]), np.array([key for _, key in packets])
    data = np.frombuffer(b"".join(raw for raw, _ in packets), np.uint8)
    assert cut(*form.of(data, size, key)) == [form._obus(raw, key=key) for raw, key in packets]


@given(st.lists(av1(), min_size=1, max_size=4), st.data())
def test_a_false_obu_is_refused_in_a_block_as_by_itself(
    packets: list[tuple[bytes, bool]], data: st.DataObject
) -> None:
    number = data.draw(st.integers(0, len(packets) - 1))
    raw, key = packets[number]
    at = data.draw(st.integers(0, len(raw) - 1))
    packets[number] = raw[:at] + bytes([data.draw(st.integers(0, 255))]) + raw[at + 1 :], key
    form = BitstreamForm(Setup("av1", b"\x0a\x03hdr"))
    size, keys = np.array([len(raw) for raw, _ in packets]), np.array([key for _, key in packets])
    joined = np.frombuffer(b"".join(raw for raw, _ in packets), np.uint8)
    try:
        expected = [form._obus(raw, key=key) for raw, key in packets]
    except ValueError:
        with pytest.raises(MalformedError) as caught:
            form.of(joined, size, keys)
        assert caught.value.number == number
    else:
        assert cut(*form.of(joined, size, keys)) == expected
