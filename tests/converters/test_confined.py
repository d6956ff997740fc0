"""A reader that cannot do anything but read, and a parent that does not believe it."""

import importlib
import os
import pickle
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from teleopen.converters import Converter, converter_named, converters
from teleopen.converters._confined import Confined, abilities, confined
from teleopen.converters._confined_worker import Limits
from teleopen.schemas import Episode, FormatError, MissingExtraError, to_document

from tests import liars
from tests.measure import leaking_nothing
from tests.samples import Truth

QUICK = {"aloha-hdf5", "lerobot-v3", "umi-zarr"}
KNOWN = sorted(n for n, c in converters().items() if c.__module__.startswith("teleopen.converters."))
GIVEN = {ability.name: ability.given for ability in abilities()}


@pytest.fixture(
    scope="module", params=[pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in KNOWN]
)
def truth(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Converter, Truth]:
    """Give each format's converter and its sample; what takes long only if it is asked for."""
    try:
        author = importlib.import_module(f"tests.samples.{request.param.replace('-', '_')}")
        told = author.write(tmp_path_factory.mktemp("sample"))
        converter = converter_named(request.param)()
        next(iter(converter.episodes(told.path)))
    except (ImportError, MissingExtraError) as error:
        pytest.skip(f"the sample of {request.param} cannot be written or read here: {error}")
    return converter, told


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "recording"
    path.write_bytes(b"anything")
    return path


def lying(how: str, **limits: Any) -> Converter:
    return confined(liars.Liar(how), Limits(**limits))


def only(converter: Converter, path: Path) -> Episode:
    (episode,) = converter.episodes(path)
    return episode


def test_a_confined_converter_is_a_converter(truth: tuple[Converter, Truth]) -> None:
    converter = confined(truth[0])
    assert isinstance(converter, Converter)
    assert converter.format == truth[0].format
    assert pickle.loads(pickle.dumps(converter)) == converter
    assert converter.probe(truth[1].path)


def test_what_is_read_confined_is_what_is_read_in_the_open(truth: tuple[Converter, Truth]) -> None:
    converter, told = truth
    for held, free in zip(
        confined(converter).episodes(told.path), converter.episodes(told.path), strict=True
    ):
        assert to_document(held) == to_document(free)
        for name, clock in free.clocks.items():
            np.testing.assert_array_equal(held.clocks[name].read(), clock.read())
        for name, stream in free.streams.items():
            mine, length = held.streams[name], stream.length
            for start, stop in ((0, length), (length // 3, length // 2), (0, 0)):
                np.testing.assert_array_equal(mine.values(start, stop), stream.values(start, stop))
            assert (mine.packets is None) == (stream.packets is None)
            if mine.packets and stream.packets:
                assert mine.packets.format == stream.packets.format
                assert list(mine.packets.read()) == list(stream.packets.read())


def test_errors_of_the_reader_are_its_own(truth: tuple[Converter, Truth]) -> None:
    def read(converter: Converter) -> None:
        for episode in converter.episodes(truth[1].broken):
            for stream in episode.streams.values():
                stream.values()

    def error(converter: Converter) -> str:
        with pytest.raises(FormatError) as caught:
            read(converter)
        return str(caught.value)

    assert error(confined(truth[0])) == error(truth[0])


def test_streams_can_be_read_at_once_and_left_half_read(truth: tuple[Converter, Truth]) -> None:
    small = type(truth[0])(block_bytes=1)  # type: ignore[call-arg]
    with leaking_nothing():
        episode = next(iter(confined(small).episodes(truth[1].path)))
        readers = {name: iter(stream) for name, stream in episode.streams.items()}
        for _ in range(2):
            for name, reader in readers.items():
                assert next(reader).shape[1:] == episode.streams[name].spec.shape
        del readers, reader


def values_elsewhere(stream: bytes) -> None:
    np.testing.assert_array_equal(pickle.loads(stream).values(), np.arange(liars.ROWS))


def test_streams_read_in_another_process(file: Path, peak_memory: Callable[..., int]) -> None:
    episode = only(lying(""), file)
    peak_memory(values_elsewhere, pickle.dumps(episode.streams["extra.count"]))


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # Python 3.12 warns of what is tried
def test_a_forked_process_asks_a_reader_of_its_own(file: Path) -> None:
    stream = only(lying(""), file).streams["extra.count"]
    child = os.fork()
    if not child:
        code = 1
        try:
            code = int(not np.array_equal(stream.values(), np.arange(liars.ROWS)))
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    np.testing.assert_array_equal(stream.values(), np.arange(liars.ROWS))


# What the reader may not do

NEEDS = {
    "landlock": ("read a", "list the", "read through", "write"),
    "seccomp": (
        *("open a", "connect", "start", "replace", "fork", "kill", "trace", "limit", "have", "change"),
        *("use memory", "share", "grow"),
    ),
    "limits": ("allocate",),
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Let a hijacked reader try everything once, and return what came of it."""
    folder = tmp_path_factory.mktemp("hijacked")
    folder.joinpath("recording").write_bytes(b"anything")
    folder.joinpath("recording.d").mkdir()
    for name in ("secret", "recording10", "recording.d/secret"):
        folder.joinpath(name).write_text("secret")
    for name in ("link", "recording.json"):
        folder.joinpath(name).symlink_to("/etc/passwd")
    episode = only(lying("escape"), folder / "recording")
    found: dict[str, str] = episode.extra["attributes"]["found"]
    assert folder.joinpath("recording").read_bytes() == b"anything"
    assert not folder.joinpath("canary").exists()
    return found


@pytest.mark.parametrize("escape", liars.ESCAPES)
def test_a_hijacked_reader_cannot(escape: str, outcomes: dict[str, str]) -> None:
    for ability, escapes in NEEDS.items():
        if escape.startswith(escapes) and not GIVEN[ability]:
            pytest.skip(f"this system has no {ability}: readers are confined less than they could be")
    assert outcomes[escape].startswith("refused"), outcomes[escape]


def test_the_same_reader_in_the_open_could(tmp_path: Path, file: Path) -> None:
    tmp_path.joinpath("secret").write_text("secret")
    for escape in (
        "read a file of the system",
        "read a neighbour",
        "write beside it",
        "open a socket",
        "see a secret",
    ):
        assert liars._tried(liars.ESCAPES[escape], file).startswith("done"), escape


def test_abilities_tell_each_part_and_why_it_is_absent() -> None:
    told = abilities()
    assert [ability.name for ability in told] == ["limits", "no network", "landlock", "seccomp"]
    assert all(ability.detail for ability in told)


STRACE = shutil.which("strace")
READS = """
import sys
from pathlib import Path
from teleopen.converters import converter_for
from teleopen.converters._confined import confined
path = Path(sys.argv[1])
for episode in confined(converter_for(path)).episodes(path):
    for stream in episode.streams.values():
        stream.values()
"""


@pytest.mark.slow
@pytest.mark.skipif(STRACE is None, reason="strace is not installed: system calls cannot be watched")
def test_system_calls_show_no_other_file_and_no_socket(
    truth: tuple[Converter, Truth], tmp_path: Path
) -> None:
    if not GIVEN["landlock"]:
        pytest.skip("this kernel lacks Landlock: files outside of the recording can be opened")
    log = tmp_path / "calls"
    watched = "trace=openat,open,socket,connect,execve,landlock_restrict_self"
    command = [str(STRACE), "-ff", "-qq", "-e", watched, "-o", str(log), sys.executable, "-c", READS]
    ran = subprocess.run(
        [*command, str(truth[1].path)], capture_output=True, text=True, check=False, timeout=120
    )
    if "ptrace" in ran.stderr and ran.returncode:
        pytest.skip("this system does not let strace watch")
    assert ran.returncode == 0, ran.stderr
    (calls,) = [text for f in tmp_path.glob("calls.*") if "landlock_restrict_self" in (text := f.read_text())]
    after = calls.partition("landlock_restrict_self")[2]
    assert not re.search(r"^(socket|connect|execve)\(.* = \d", after, re.MULTILINE)
    opened = set(re.findall(r'^open(?:at)?\((?:\w+, )?"([^"]*)".* = \d+$', after, re.MULTILINE))
    recording = str(truth[1].path.with_name(truth[1].path.stem))
    libraries = (*sysconfig.get_paths().values(), sys.base_prefix, "/lib", "/usr/lib", "/etc/ld.so")
    rooms = [str(Path(__file__).parents[2] / room) for room in ("converters", "schemas")]
    assert any(path.startswith(recording) for path in opened)
    beside = map(str, getattr(truth[0], "beside", lambda _: ())(truth[1].path))
    allowed = (recording, *beside, *libraries, *rooms, "/dev/null", "/dev/urandom")
    assert [path for path in opened if not path.startswith(allowed)] == []


# What the parent does not believe


@pytest.mark.parametrize("lie", liars.HEADERS)
def test_a_lying_header_is_a_format_error(lie: str, file: Path) -> None:
    with pytest.raises(FormatError) as caught:
        only(lying(lie), file)
    assert caught.value.path == str(file)
    assert caught.value.why


@pytest.mark.parametrize("lie", [*liars.BLOCKS, "dies", "eats", "babbles", "exits"])
def test_a_lying_or_dying_stream_is_a_format_error(lie: str, file: Path) -> None:
    stream = only(lying(lie), file).streams["extra.count"]
    with pytest.raises(FormatError):
        list(stream)


@pytest.mark.parametrize(
    "misdeed", ["hangs", *(pytest.param(m, marks=pytest.mark.slow) for m in ("spins", "header: hangs"))]
)
def test_a_reader_that_takes_too_long_is_ended(misdeed: str, file: Path) -> None:
    converter = lying(misdeed, seconds=1.5)
    began = time.monotonic()
    with pytest.raises(FormatError, match=r"longer than 1\.5 s"):
        only(converter, file).streams["extra.count"].values()
    assert time.monotonic() - began < 20


def test_a_clock_that_runs_backwards_is_a_format_error(file: Path) -> None:
    clock = only(lying("times"), file).clocks["steps"]
    with pytest.raises(FormatError, match="backwards"):
        clock.read()


def test_a_reader_that_dies_while_it_looks_claims_nothing(file: Path) -> None:
    assert not lying("probe").probe(file)
    assert not confined(liars.Liar()).probe(file.with_name("\0"))


def test_a_flood_from_the_reader_fills_no_memory_of_the_parent(
    file: Path, peak_memory: Callable[..., int]
) -> None:
    assert peak_memory(refuse_flood, file) < 64 << 20


def refuse_flood(path: Path) -> None:
    with pytest.raises(FormatError):
        only(lying("a header of gigabytes"), path)
    with pytest.raises(FormatError):
        list(only(lying("a flood"), path).streams["extra.count"])


def test_a_reader_that_was_killed_is_started_anew(file: Path) -> None:
    converter = lying("")
    stream = only(converter, file).streams["extra.count"]
    from teleopen.converters import _confined

    for worker in _confined._kept.workers.values():
        worker.end()
    np.testing.assert_array_equal(stream.values(), np.arange(liars.ROWS))


def test_a_recording_that_changed_is_not_taken_for_the_one_before(file: Path) -> None:
    stream = only(lying(""), file).streams["extra.count"]
    file.write_bytes(b"something else")
    from teleopen.converters import _confined

    for worker in _confined._kept.workers.values():
        worker.end()
    with pytest.raises(FormatError, match="has changed"):
        stream.values()


def test_errors_name_the_path_that_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.joinpath("broken.hdf5").write_bytes(b"\x89HDF\r\n\x1a\n but not for long")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FormatError) as caught:
        list(Confined(converter_named("aloha-hdf5")()).episodes(Path("broken.hdf5")))
    assert caught.value.path == "broken.hdf5"
