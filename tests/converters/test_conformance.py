"""What every converter owes. A new one is judged here without a line being added."""

import dataclasses
import importlib
import pickle
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from teleopen.converters import Converter, converter_for, converters
from teleopen.schemas import (
    Episode,
    FormatError,
    MissingExtraError,
    Rights,
    Stream,
    block_problems,
    problems_of,
    time_problems,
)

from tests.converters.reading import read_all
from tests.measure import leaking_nothing
from tests.samples import EpisodeTruth, Truth

SAMPLES = Path(__file__).parents[1] / "samples"
KNOWN = {n: c for n, c in converters().items() if c.__module__.startswith("teleopen.converters.")}
BLOCKS = (1, 1_000, 1 << 30)


@pytest.fixture(params=sorted(KNOWN))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def converter(name: str) -> Converter:
    return KNOWN[name]()


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Truth]:
    """Write each format's sample once; tests read it only."""
    written: dict[str, Truth] = {}

    def of(name: str) -> Truth:
        if name not in written:
            module = name.replace("-", "_")
            try:
                author = importlib.import_module(f"tests.samples.{module}")
                written[name] = author.write(tmp_path_factory.mktemp(module))
            except ImportError as error:
                pytest.skip(f"the sample of {name} cannot be written here: {error}")
        return written[name]

    return of


@pytest.fixture
def truth(name: str, sample: Callable[[str], Truth], converter: Converter) -> Truth:
    told = sample(name)
    try:
        next(iter(converter.episodes(told.path)))
    except MissingExtraError as error:
        pytest.skip(str(error))
    return told


def pairs(converter: Converter, truth: Truth) -> Iterator[tuple[Episode, EpisodeTruth]]:
    yield from zip(converter.episodes(truth.path), truth.episodes, strict=True)


def joined(stream: Stream, start: int, stop: int) -> NDArray[Any]:
    blocks = list(stream.read(start, stop))
    for block in blocks:
        assert block_problems(stream.spec, block) == []
        assert len(block)
    return np.concatenate(blocks) if blocks else np.empty((0, *stream.spec.shape), stream.spec.np_dtype)


def psnr(left: NDArray[np.uint8], right: NDArray[np.uint8]) -> float:
    error = float(np.mean((left.astype(np.float64) - right) ** 2))
    return float("inf") if not error else 10 * float(np.log10(255**2 / error))


def test_keeps_the_protocol(converter: Converter, name: str) -> None:
    assert isinstance(converter, Converter)
    assert converter.format.name == name
    assert converter.format.title
    assert type(converter).__module__.rpartition(".")[2] == name.replace("-", "_")


def test_crosses_a_process(converter: Converter) -> None:
    assert pickle.loads(pickle.dumps(converter)) == converter


def test_its_options_are_frozen_fields_with_defaults(converter: Converter) -> None:
    assert dataclasses.is_dataclass(converter)
    with pytest.raises(dataclasses.FrozenInstanceError):
        converter.block_bytes = 2


def test_claims_its_own_sample_alone(name: str, truth: Truth) -> None:
    assert converter_for(truth.path).format.name == name


def test_claims_nothing_else(converter: Converter, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for ending in ("", ".txt", *converter.format.suffixes):
        empty, text = tmp_path / f"empty{ending}", tmp_path / f"text{ending}"
        empty.write_bytes(b"")
        text.write_text("not a recording")
        assert not converter.probe(empty)
        assert not converter.probe(text)
    for other in (bare, tmp_path, tmp_path / "absent"):
        assert not converter.probe(other)


def test_headers_are_valid_and_the_same_twice(converter: Converter, truth: Truth) -> None:
    first = list(converter.episodes(truth.path))
    assert [problems_of(episode) for episode in first] == [[] for _ in truth.episodes]
    assert [repr(e) for e in first] == [repr(e) for e in converter.episodes(truth.path)]
    assert len({episode.id for episode in first}) == len(first)


def test_options_and_sources_are_on_record(converter: Converter, truth: Truth) -> None:
    for episode in converter.episodes(truth.path):
        provenance = episode.provenance
        assert provenance.format == converter.format.name
        assert provenance.sources
        assert not any(Path(source.uri).is_absolute() for source in provenance.sources)


def test_what_it_makes_is_closed(converter: Converter, truth: Truth) -> None:
    for episode in converter.episodes(truth.path):
        assert episode.rights == Rights()


def test_instructions_are_the_truth(converter: Converter, truth: Truth) -> None:
    for episode, told in pairs(converter, truth):
        assert episode.instructions == told.instructions


def test_payload_is_the_truth_twice(converter: Converter, truth: Truth) -> None:
    for episode, told in pairs(converter, truth):
        assert set(episode.streams) == {*told.values, *told.close}
        for _ in range(2):
            for name, stream in episode.streams.items():
                got = joined(stream, 0, stream.length)
                if name in told.values:
                    np.testing.assert_array_equal(got, told.values[name], err_msg=name)
                    assert got.dtype == told.values[name].dtype.newbyteorder("<"), name
                else:
                    frames, least = told.close[name]
                    assert got.shape == frames.shape, name
                    assert min(map(psnr, got, frames)) >= least, name


def test_ranges_are_slices_of_the_whole(converter: Converter, truth: Truth) -> None:
    for episode in converter.episodes(truth.path):
        for name, stream in episode.streams.items():
            whole, n = stream.values(), stream.length
            for start, stop in {(0, 0), (0, 1), (n // 3, n // 2), (1, n), (n - 1, n), (n, n)}:
                got = joined(stream, start, stop)
                np.testing.assert_array_equal(got, whole[start:stop], err_msg=f"{name}[{start}:{stop}]")


@pytest.mark.parametrize("block_bytes", BLOCKS)
def test_the_size_of_blocks_changes_nothing_else(
    converter: Converter, truth: Truth, block_bytes: int
) -> None:
    bounded = type(converter)(block_bytes=block_bytes)  # type: ignore[call-arg]
    for episode, same in zip(bounded.episodes(truth.path), converter.episodes(truth.path), strict=True):
        assert episode.id == same.id
        for name, stream in episode.streams.items():
            blocks = list(stream)
            most = max(block_bytes, stream.spec.sample_bytes)
            assert max(block.nbytes for block in blocks) <= most, name
            np.testing.assert_array_equal(np.concatenate(blocks), same.streams[name].values(), err_msg=name)


def test_times_are_the_truth(converter: Converter, truth: Truth) -> None:
    for episode, told in pairs(converter, truth):
        for name, clock in episode.clocks.items():
            assert time_problems(clock, clock.read()) == []
            if name in told.times:
                np.testing.assert_array_equal(clock.read(), told.times[name], err_msg=name)
        assert set(told.times) <= set(episode.clocks)


def test_the_ledger_accounts_for_every_field(converter: Converter, truth: Truth) -> None:
    for episode in converter.episodes(truth.path):
        ledger = episode.provenance.ledger
        assert truth.fields - {fate.field for fate in ledger} == set()
        assert set(episode.streams) <= {to for fate in ledger for to in fate.to}


def test_packets_show_every_sample_once(converter: Converter, truth: Truth) -> None:
    for episode in converter.episodes(truth.path):
        for name, stream in episode.streams.items():
            if stream.packets is None:
                continue
            packets = list(stream.packets.read())
            assert packets[0].key, name
            # Packets from before or after the episode are there where its own frames need them.
            shown = sorted(packet.pts for packet in packets if 0 <= packet.pts < stream.length)
            assert shown == list(range(stream.length)), name
            assert [p.pts for p in stream.packets.read()] == [p.pts for p in packets], name


def test_says_where_a_source_is_broken(converter: Converter, truth: Truth) -> None:
    with pytest.raises(FormatError) as caught:
        read_all(converter, truth.broken)
    assert Path(caught.value.path).resolve().is_relative_to(truth.broken.resolve())
    assert caught.value.where
    assert caught.value.why
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_leaves_nothing_open(converter: Converter, truth: Truth) -> None:
    def look() -> None:
        converter.probe(truth.path)
        for episode in islice(converter.episodes(truth.path), 1):
            for stream in episode.streams.values():
                blocks = stream.read(0, stream.length)
                next(blocks)
                blocks.close()  # type: ignore[attr-defined]

    look()  # what is kept for good, such as a library's own files, is opened now
    with leaking_nothing():
        look()


def test_every_converter_has_a_sample_and_every_sample_a_converter() -> None:
    samples = {file.stem.replace("_", "-") for file in SAMPLES.glob("[!_]*.py")}
    assert samples == set(KNOWN)
