"""HDF5 files that mean harm, and files that came to harm: refused by name, before they cost anything."""

import multiprocessing
import shutil
import zlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from teleopen.converters._hdf5 import open_hdf5
from teleopen.converters.aloha_hdf5 import AlohaHdf5
from teleopen.schemas import FormatError

from tests.samples.aloha_hdf5 import STEPS, film, jpeg, padded

GIB = 1 << 30
SECRET = b"the key to the house lies under the mat"
CAMERA = "observations/images/top"

Spoil = Callable[[h5py.File], None]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Write a small sound episode beside a file that is nobody's business."""
    (tmp_path / "secret").write_bytes(SECRET * 100)
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["action"] = np.frombuffer(SECRET, np.uint8)
    with h5py.File(tmp_path / "episode_0.hdf5", "w") as file:
        file.attrs["sim"] = True
        for name in ("action", "observations/qpos", "observations/qvel"):
            file[name] = np.zeros((STEPS, 14), np.float32)
    return tmp_path / "episode_0.hdf5"


def read_all(path: Path, rows: int = 1 << 40) -> None:
    """Read all streams, or the first rows of each."""
    for episode in AlohaHdf5().episodes(path):
        for stream in episode.streams.values():
            for _ in stream.read(0, min(rows, stream.length)):
                pass


def refusal(path: Path, spoil: Spoil) -> FormatError:
    """Change a file, read all of it, and return the error."""
    with h5py.File(path, "r+") as file:
        spoil(file)
    with pytest.raises(FormatError) as caught:
        read_all(path)
    assert SECRET.decode() not in str(caught.value)
    assert caught.value.path == str(path)
    assert caught.value.where
    return caught.value


def replaced(name: str, **plan: Any) -> Spoil:
    """Put another dataset in the place of one."""

    def spoil(file: h5py.File) -> None:
        if name in file:
            del file[name]
        file.create_dataset(name, **plan)

    return spoil


# What is sound


@pytest.mark.parametrize("compression", [None, "gzip", "lzf"])
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("fletcher32", [False, True])
@pytest.mark.parametrize("dtype", ["?", "u1", "<i2", ">i4", "<f2", ">f8", "S5"])
@pytest.mark.parametrize("chunks", [(7, 2), (1, 5), (40, 3)])
def test_what_is_sound_comes_back(
    tmp_path: Path,
    compression: str | None,
    shuffle: bool,
    fletcher32: bool,
    dtype: str,
    chunks: tuple[int, int],
) -> None:
    values = np.random.default_rng(8).integers(0, 90, (40, 5)).astype(dtype)
    path = tmp_path / "sound.h5"
    with h5py.File(path, "w") as file:
        filters = {"compression": compression, "shuffle": shuffle, "fletcher32": fletcher32}
        file.create_dataset("values", data=values, chunks=chunks, **filters)
    with open_hdf5(path) as found:
        blocks = list(found.rows(found.fields["values"], 3, 38, 6))
    np.testing.assert_array_equal(np.concatenate(blocks), values[3:38])
    assert {len(block) for block in blocks} == {6, 5}


# What reaches out of the file


def test_external_storage(path: Path) -> None:
    store = [(str(path.parent / "secret"), 0, 14 * STEPS)]
    error = refusal(path, replaced(CAMERA, shape=(STEPS, 14), dtype="u1", external=store))
    assert (error.where, "in another file" in error.why) == (CAMERA, True)


@pytest.mark.parametrize("name", ["action", CAMERA, "elsewhere"])
def test_external_link(path: Path, name: str) -> None:
    def spoil(file: h5py.File) -> None:
        if name in file:
            del file[name]
        file[name] = h5py.ExternalLink("secret.h5", "/action")

    assert "link to another file" in refusal(path, spoil).why


@pytest.mark.parametrize("target", ["/nowhere", "nowhere", "/out/action", "../action"])
def test_soft_link_to_nothing_in_the_file(path: Path, target: str) -> None:
    def spoil(file: h5py.File) -> None:
        file["extra"] = h5py.SoftLink(target)

    assert "no object of the file" in refusal(path, spoil).why


def test_soft_link_through_an_external_one(path: Path) -> None:
    def spoil(file: h5py.File) -> None:
        file["out"] = h5py.ExternalLink("secret.h5", "/")
        file["extra"] = h5py.SoftLink("/out/action")

    assert "link to another file" in refusal(path, spoil).why


@pytest.mark.parametrize("growing", [False, True])
def test_virtual_dataset(path: Path, growing: bool) -> None:
    layout = h5py.VirtualLayout((STEPS, len(SECRET)), "u1", maxshape=(None, len(SECRET)))
    source = h5py.VirtualSource(
        path.parent / "secret.h5", "action", shape=(1, len(SECRET)), maxshape=(None, len(SECRET))
    )
    rows = slice(0, h5py.h5s.UNLIMITED) if growing else slice(0, 1)
    layout[rows] = source[rows]

    def spoil(file: h5py.File) -> None:
        file.create_virtual_dataset(CAMERA, layout)

    assert "virtual" in refusal(path, spoil).why


def test_probing_follows_no_link(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["action"]
        file["action"] = h5py.ExternalLink("secret.h5", "/action")
    assert not AlohaHdf5().probe(path)


def test_unknown_filters_are_not_looked_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with h5py.File(path, "r+") as file:
        replaced(CAMERA, data=np.zeros((STEPS, 100), "u1"), chunks=(1, 100), compression="lzf")(file)
    data = path.read_bytes()
    assert data.count(b"\x00\x7d") == 1
    path.write_bytes(data.replace(b"\x00\x7d", b"\x01\x7d"))
    h5py.h5pl.append(str(path.parent).encode())
    with pytest.raises(FormatError, match=r"filter 32001.*h5repack"):
        read_all(path)
    assert h5py.h5pl.size() == 0


# What has no end


def test_group_in_itself(path: Path) -> None:
    def spoil(file: h5py.File) -> None:
        file["observations/again"] = file["/"]

    assert refusal(path, spoil).why == "holds itself: it is '/' again"


def test_groups_without_bottom(path: Path) -> None:
    def spoil(file: h5py.File) -> None:
        file.create_group("/".join("g" * 100))

    assert "nested deeper" in refusal(path, spoil).why


def test_attributes_without_number(path: Path) -> None:
    def spoil(file: h5py.File) -> None:
        for i in range(1_001):
            file.attrs[f"a{i}"] = 0

    assert "has 1002 attributes" in refusal(path, spoil).why


def test_large_attributes_are_not_read(path: Path) -> None:
    with h5py.File(path.parent / "large.hdf5", "w", libver="latest") as file:
        file.attrs["large"] = np.zeros(1 << 18)
    with open_hdf5(path.parent / "large.hdf5") as found:
        assert dict(found.attributes) == {}
        assert found.unread["@large"] == "has 2097152 bytes, more than 1048576"


def test_names_that_write_on_the_terminal(path: Path) -> None:
    def spoil(file: h5py.File) -> None:
        file["\x1b[31mred"] = 1

    assert "\x1b" not in str(refusal(path, spoil))


# What promises more than it holds


@pytest.mark.parametrize(
    "plan",
    [
        {"shape": (10**6, 10**6), "dtype": "u1"},
        {"shape": (10**7, 10**6), "dtype": "u1"},
        {"shape": (10**6, 10**6), "dtype": "u1", "chunks": (1, 10**6), "compression": "gzip"},
        {"shape": (STEPS, 10**5, 10**5), "dtype": "f8", "chunks": (1, 1000, 1000), "compression": "lzf"},
        {"shape": (STEPS, 10**10), "dtype": "u1", "chunks": (1, 10**6), "maxshape": (None, None)},
    ],
)
@pytest.mark.parametrize("name", ["action", CAMERA, "elsewhere"])
def test_declared_bomb(path: Path, name: str, plan: dict[str, Any]) -> None:
    error = refusal(path, replaced(name, **plan))
    assert (error.where, error.why.startswith("promises")) == (name, True)
    assert path.stat().st_size < 20_000


def test_dataset_never_written(path: Path) -> None:
    error = refusal(path, replaced("action", shape=(STEPS, 14), dtype="f4"))
    assert "was not written to its end" in error.why


def test_camera_written_in_part(path: Path) -> None:
    def spoil(file: h5py.File) -> None:
        file.create_dataset(CAMERA, (STEPS, 8, 8, 3), "u1", chunks=(1, 8, 8, 3))
        file[CAMERA][:5] = 1

    assert "was not written to its end" in refusal(path, spoil).why


@cache
def half_a_gigabyte_of_nothing() -> bytes:
    squeeze = zlib.compressobj(9)
    return b"".join([*(squeeze.compress(bytes(1 << 24)) for _ in range(32)), squeeze.flush()])


def bomb(path: Path, hidden: bool) -> None:
    """Store a chunk of half a megabyte that inflates to half a gigabyte.

    If hidden, the header gives a size for the chunk that its stored bytes are right for.
    """
    data = half_a_gigabyte_of_nothing()
    width = len(data) if hidden else 4096
    noise = np.random.default_rng(1).integers(0, 255, (STEPS, width), "u1")
    with h5py.File(path, "r+") as file:
        target = file.create_dataset(CAMERA, data=noise, chunks=(1, width), compression="gzip")
        target.id.write_direct_chunk((0, 0), data)


def refuse_quietly(path: str) -> None:
    try:
        read_all(Path(path))
    except FormatError:
        return
    raise AssertionError("nothing was refused")


@pytest.mark.parametrize("hidden", [False, True])
def test_gzip_bomb(path: Path, hidden: bool, peak_memory: Callable[..., int]) -> None:
    bomb(path, hidden)
    with pytest.raises(FormatError, match="its header says" if hidden else "more than it can need"):
        read_all(path)
    assert peak_memory(refuse_quietly, str(path)) < GIB // 4


def test_gzip_that_gives_too_little(path: Path) -> None:
    def spoil(file: h5py.File) -> None:
        target = file.create_dataset(CAMERA, (STEPS, 100), "u1", chunks=(4, 100), compression="gzip")
        target[:] = 7
        target.id.write_direct_chunk((8, 0), zlib.compress(bytes(50)))

    error = refusal(path, spoil)
    assert (error.where, "has 50 bytes" in error.why) == (f"{CAMERA}[0]", True)


def test_checksum_of_a_chunk(path: Path) -> None:
    def spoil(file: h5py.File) -> None:
        target = file.create_dataset("touch", data=np.arange(STEPS), chunks=(STEPS,), fletcher32=True)
        _, data = target.id.read_direct_chunk((0,))
        target.id.write_direct_chunk((0,), bytes([data[0] ^ 1]) + data[1:])

    assert "checksum" in refusal(path, spoil).why


# Pictures


def with_pictures(path: Path, change: Callable[[list[bytes]], list[bytes]]) -> FormatError:
    rows = padded(change([jpeg(frame) for frame in film(np.random.default_rng(2))]))

    def spoil(file: h5py.File) -> None:
        file.attrs["compress"] = True
        file[CAMERA] = rows

    return refusal(path, spoil)


def sized(data: bytes, height: int, width: int) -> bytes:
    """Let a JPEG claim another size."""
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + data[at + 4 :]


@pytest.mark.parametrize("size", [(65_500, 65_500), (8_000, 8_000), (2_000, 3_000), (0, 64)])
@pytest.mark.parametrize("row", [0, 20])
def test_jpeg_that_lies_about_its_size(path: Path, size: tuple[int, int], row: int) -> None:
    error = with_pictures(path, lambda all_: [*all_[:row], sized(all_[row], *size), *all_[row + 1 :]])
    assert error.where == f"{CAMERA}[{row}]"
    assert f"{size[1]}×{size[0]}" in error.why


def lying_jpegs(path: str) -> None:
    for size in ((65_500, 65_500), (7_900, 7_900)):
        copy = Path(f"{path}.{size[0]}")
        shutil.copy(path, copy)
        with_pictures(copy, lambda all_, size=size: [sized(data, *size) for data in all_])  # type: ignore[misc]


def test_lying_jpegs_cost_no_memory(path: Path, peak_memory: Callable[..., int]) -> None:
    assert peak_memory(lying_jpegs, str(path)) < GIB // 8


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda data: data[:-2], "no end marker"),
        (lambda data: b"\x89PNG\r\n\x1a\n" + data[8:], "is not a JPEG"),
        (lambda data: bytes(len(data)), "no end marker"),
        (lambda data: data[:2] + data[-2:], "without a frame header"),
        (lambda data: data.replace(b"\xff\xc0", b"\xff\xc9"), "uncommon process"),
        (lambda data: data[:-2] + b"\xff\xda\0" * 65 + data[-2:], "scans"),
    ],
)
def test_damaged_jpeg(path: Path, change: Callable[[bytes], bytes], why: str) -> None:
    error = with_pictures(path, lambda all_: [*all_[:9], change(all_[9]), *all_[10:]])
    assert error.where == f"{CAMERA}[9]"
    assert why in error.why


# Files that came to harm


def outcomes(original: str, copies: list[bytes]) -> Counter[str]:
    """Read damaged copies of a file; count what came of it."""
    found: Counter[str] = Counter()
    path = Path(original).with_name("damaged.hdf5")
    for data in copies:
        path.write_bytes(data)
        AlohaHdf5().probe(path)
        try:
            read_all(path, rows=3)
        except FormatError as error:
            found["refused" if error.path == str(path) else "another file"] += 1
        else:
            found["read"] += 1
    return found


def apart(original: Path, copies: list[bytes]) -> Counter[str]:
    """Do it in another process, which a fault in the library may end."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as process:
        return process.submit(outcomes, str(original), copies).result(timeout=300)


@pytest.fixture
def sound(path: Path) -> Path:
    """Add what has the most ways to be damaged: JPEGs, filters, texts."""
    rows = padded([jpeg(frame) for frame in film(np.random.default_rng(6))])
    with h5py.File(path, "r+") as file:
        file.attrs["compress"] = True
        file[CAMERA] = rows
        file["language_instruction"] = "wipe the table"
        plan = {"chunks": (7, 2), "compression": "gzip", "shuffle": True, "fletcher32": True}
        file.create_dataset("touch", data=np.random.default_rng(7).normal(size=(STEPS, 3)), **plan)
    read_all(path)
    return path


def test_a_file_cut_off_anywhere_is_refused(sound: Path) -> None:
    data = sound.read_bytes()
    copies = [data[: len(data) * i // 60] for i in range(60)] + [data[:-1]]
    assert apart(sound, copies) == {"refused": len(copies)}


def test_changed_bytes_are_refused_or_harmless(sound: Path) -> None:
    random = np.random.default_rng(3)
    data = np.frombuffer(sound.read_bytes(), np.uint8)
    structure = 6_000
    copies = []
    for i in range(300):
        copy = data.copy()
        # Two in three hit the start of the file, where most of the structure lies.
        reach = len(data) if i % 3 == 0 else structure
        at = random.integers(0, reach, random.integers(1, 5))
        copy[at] = random.integers(0, 256, len(at))
        copies.append(copy.tobytes())
    found = apart(sound, copies)
    assert found.total() == len(copies)
    assert found["refused"] > 50


@pytest.mark.parametrize("content", [b"", b"\x89HDF\r\n\x1a\n", b"\x89HDF\r\n\x1a\n" + bytes(4096), b"text"])
def test_what_is_no_hdf5(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "episode_0.hdf5"
    path.write_bytes(content)
    assert not AlohaHdf5().probe(path)
    with pytest.raises(FormatError):
        read_all(path)


def test_what_is_not_there_or_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.hdf5", tmp_path):
        with pytest.raises(FormatError), open_hdf5(path):
            pass


def test_a_file_that_changed_since_its_header_was_read(path: Path) -> None:
    (episode,) = AlohaHdf5().episodes(path)
    with h5py.File(path, "r+") as file:
        replaced("action", data=np.zeros((STEPS, 7), np.float32))(file)
    with pytest.raises(FormatError, match="is not what it was"):
        episode.streams["action"].values()


def test_a_link_out_of_a_folder(path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "episode_0.hdf5").symlink_to(path)
    with pytest.raises(FormatError, match="outside of the recording"):
        list(AlohaHdf5().episodes(folder))
