"""Zarr stores that lie, climb, explode or rot: each is refused, with a place and in little memory."""

import json
import os
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
from teleopen.converters.umi_zarr import UmiZarr
from teleopen.schemas import FormatError

Files = dict[str, bytes]
MIB = 1 << 20
EEF = "data/robot0_eef_pos"
UMI = ("eef_pos", "eef_rot_axis_angle", "gripper_width", "demo_start_pose", "demo_end_pose")
BLOSC = {"id": "blosc", "cname": "zstd", "clevel": 5, "shuffle": 1, "blocksize": 0}


def zarray(**changed: Any) -> bytes:
    """Describe robot0_eef_pos."""
    return json.dumps(
        {
            "zarr_format": 2,
            "shape": [6, 3],
            "chunks": [4, 3],
            "dtype": "<f4",
            "compressor": None,
            "filters": None,
            "fill_value": 0.0,
            "order": "C",
        }
        | changed
    ).encode()


def buffer(**changed: Any) -> Files:
    """Lay out a sound UMI buffer of two episodes, 6 steps, with some members of one ``.zarray`` changed."""
    group = b'{"zarr_format": 2}'
    files = {".zgroup": group, "data/.zgroup": group, "meta/.zgroup": group}
    for i, key in enumerate(UMI):
        chunks = np.arange(24, dtype="<f4").reshape(2, 12) + i
        files |= {
            f"data/robot0_{key}/.zarray": zarray(),
            f"data/robot0_{key}/0.0": chunks[0].tobytes(),
            f"data/robot0_{key}/1.0": chunks[1].tobytes(),
        }
    files["meta/episode_ends/.zarray"] = zarray(shape=[2], chunks=[3], dtype="<i8")
    files["meta/episode_ends/0"] = np.array([2, 6, 0], "<i8").tobytes()
    files[f"{EEF}/.zarray"] = zarray(**changed)
    return files


def encoded(codec: Any, config: dict[str, Any], chunk: bytes = b"\0" * 48) -> Files:
    """Lay out a buffer whose first array is compressed."""
    return buffer(compressor=config) | {f"{EEF}/0.0": codec(chunk), f"{EEF}/1.0": codec(chunk)}


def folder(root: Path, files: Files) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def zipped(path: Path, files: Files, method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def read_all(path: Path) -> None:
    """Read whatever is there; damage may lie in the payload."""
    for episode in UmiZarr().episodes(path):
        for clock in episode.clocks.values():
            clock.read()
        for stream in episode.streams.values():
            for _ in stream:
                pass


def read_if_sound(path: Path) -> None:
    """Read whatever is there; run where memory is measured."""
    try:
        read_all(path)
    except FormatError:
        return


def assert_refused(path: Path, why: str | None = None) -> FormatError:
    UmiZarr().probe(path)
    with pytest.raises(FormatError, match=why) as caught:
        read_all(path)
    assert caught.value.path
    return caught.value


def test_the_sound_buffer_is_sound(tmp_path: Path) -> None:
    read_all(folder(tmp_path / "a", buffer()))
    read_all(zipped(tmp_path / "a.zip", buffer()))
    read_all(zipped(tmp_path / "b.zip", buffer(), zipfile.ZIP_DEFLATED))


LIES: dict[str, dict[str, Any]] = {
    "bomb of 10^13 elements": {"shape": [10**13, 3]},
    "many chunks": {"shape": [6, 10**6], "chunks": [1, 1]},
    "huge whole": {"shape": [10**400, 3]},
    "beyond int64": {"shape": [2**63, 3]},
    "product overflows": {"shape": [2**32, 2**32, 2**32], "chunks": [1, 1, 1]},
    "empty axis hides a bomb": {"shape": [0, 2**47, 2**47], "chunks": [1, 1, 1]},
    "negative": {"shape": [-6, 3]},
    "float": {"shape": [6.0, 3]},
    "huge float": {"shape": [1e308, 3]},
    "bool": {"shape": [True, 3]},
    "text": {"shape": "63"},
    "null": {"shape": None},
    "nested": {"shape": [[6], 3]},
    "too many axes": {"shape": [1] * 60, "chunks": [1] * 60},
    "chunk of nothing": {"chunks": [0, 3]},
    "negative chunk": {"chunks": [-4, 3]},
    "huge chunk": {"chunks": [10**9, 3]},
    "wide row of chunks": {"shape": [6, 10**8], "chunks": [4, 10**6]},
    "fewer axes": {"chunks": [4]},
    "shorter": {"shape": [5, 3]},
    "scalar": {"shape": [], "chunks": []},
    "object dtype": {"dtype": "|O"},
    "structured dtype": {"dtype": [["a", "<f4"], ["b", "|O"]]},
    "void": {"dtype": "|V12"},
    "time": {"dtype": "<M8[ns]"},
    "complex": {"dtype": "<c8"},
    "texts": {"dtype": "<U3"},
    "long double": {"dtype": "<f16"},
    "code as dtype": {"dtype": "__import__('os')"},
    "other width": {"dtype": "<f8"},
    "pickle": {"compressor": {"id": "pickle"}},
    "pickle filter": {"filters": [{"id": "pickle"}]},
    "object codec": {"dtype": "|O", "filters": [{"id": "pickle"}]},
    "json2": {"filters": [{"id": "json2"}]},
    "msgpack": {"filters": [{"id": "msgpack2"}]},
    "vlen": {"filters": [{"id": "vlen-bytes"}]},
    "base64": {"compressor": {"id": "base64"}},
    "filter as compressor": {"compressor": {"id": "shuffle"}},
    "compressor as filter": {"filters": [{"id": "zlib"}]},
    "many filters": {"filters": [{"id": "shuffle", "elementsize": 4}] * 50},
    "shuffle of nothing": {"filters": [{"id": "shuffle", "elementsize": 0}]},
    "shuffle of text": {"filters": [{"id": "shuffle", "elementsize": "4"}]},
    "delta of objects": {"filters": [{"id": "delta", "dtype": "|O"}]},
    "delta that widens": {"filters": [{"id": "delta", "dtype": "<f4", "astype": "<f8"}]},
    "delta of a list": {"filters": [{"id": "delta", "dtype": ["<f4"]}]},
    "filters are text": {"filters": "shuffle"},
    "filters are numbers": {"filters": [1]},
    "no id": {"compressor": {"cname": "zstd"}},
    "empty id": {"compressor": {"id": ""}},
    "id is a list": {"compressor": {"id": ["zlib"]}},
    "compressor is text": {"compressor": "zlib"},
    "nested settings": {"compressor": {"id": "zlib", "level": {"a": {}}}},
    "raw lzma": {"compressor": {"id": "lzma", "format": 3}},
    "picture among several": {"compressor": {"id": "imagecodecs_jpegxl", "index": 5}},
    "picture with filters": {
        "compressor": {"id": "imagecodecs_png"},
        "filters": [{"id": "shuffle", "elementsize": 4}],
    },
    "order": {"order": "K"},
    "order is a list": {"order": ["C"]},
    "separator": {"dimension_separator": "/../"},
    "version 3": {"zarr_format": 3},
    "version is text": {"zarr_format": "2" * 5000},
}


@pytest.mark.parametrize("lie", LIES)
def test_a_zarray_that_lies_is_refused(tmp_path: Path, lie: str) -> None:
    error = assert_refused(folder(tmp_path / "a", buffer(**LIES[lie])))
    assert error.where
    assert len(str(error)) < 1000
    assert_refused(zipped(tmp_path / "a.zip", buffer(**LIES[lie])))


TEXTS = {
    "nan": b'{"zarr_format": 2, "shape": [NaN, 3]}',
    "infinite": b'{"zarr_format": 2, "shape": [1e999, 3]}',
    "deep": b"[" * 200_000,
    "deep object": b'{"a":' * 200_000,
    "twice": b'{"zarr_format": 2, "zarr_format": 2}',
    "no object": b"[]",
    "empty": b"",
    "binary": bytes(range(256)),
    "long number": b'{"shape": [' + b"9" * 5000 + b"]}",
    "large": b" " * (MIB + 1),
}


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("name", [".zgroup", f"{EEF}/.zarray", f"{EEF}/.zattrs"])
def test_json_that_is_none_is_refused(tmp_path: Path, name: str, text: str) -> None:
    assert_refused(folder(tmp_path / "a", buffer() | {name: TEXTS[text]}))


UNTELLABLE = (b'{"a": 1e999}', b'{"a": "\\ud800"}', b'{"a": NaN}', b'{"a":' + b"[" * 60 + b"]" * 60 + b"}")


@pytest.mark.parametrize("attributes", UNTELLABLE)
def test_attributes_that_no_header_can_hold_are_refused(tmp_path: Path, attributes: bytes) -> None:
    assert_refused(folder(tmp_path / "a", buffer() | {".zattrs": attributes}), "zattrs")


ENDS: dict[str, tuple[str, list[Any], str]] = {
    "decreasing": ("<i8", [4, 2], "after 4"),
    "equal": ("<i8", [6, 6], "after 6"),
    "too long": ("<i8", [2, 7], "last episode ends at 7"),
    "too short": ("<i8", [2, 5], "last episode ends at 5"),
    "negative": ("<i8", [-1, 6], "-1 after 0"),
    "unsigned underflow": ("<u8", [2**64 - 1, 6], "after 0"),
    "float": ("<f8", [2.0, 6.0], "whole numbers"),
    "bool": ("|b1", [True, True], "whole numbers"),
    "endless": ("<i8", [2, 2**62], "no episode"),
}


@pytest.mark.parametrize("case", ENDS)
def test_episode_ends_that_make_no_sense_are_refused(tmp_path: Path, case: str) -> None:
    dtype, ends, why = ENDS[case]
    files = buffer() | {
        "meta/episode_ends/.zarray": zarray(shape=[2], chunks=[2], dtype=dtype),
        "meta/episode_ends/0": np.array(ends, dtype).tobytes(),
    }
    assert_refused(folder(tmp_path / "a", files), why)


@pytest.mark.parametrize("shape", [[1, 2], [], [0]])
def test_episode_ends_of_another_shape_are_refused(tmp_path: Path, shape: list[int]) -> None:
    files = buffer()
    files["meta/episode_ends/.zarray"] = zarray(shape=shape, chunks=[1 for _ in shape], dtype="<i8")
    files |= {"meta/episode_ends/0.0": b"\6" + bytes(7), "meta/episode_ends/0.1": b"\6" + bytes(7)}
    assert_refused(folder(tmp_path / "a", files))


def test_no_episode_ends_at_all_are_refused(tmp_path: Path) -> None:
    files = {name: content for name, content in buffer().items() if not name.startswith("meta/")}
    assert_refused(folder(tmp_path / "a", files), "episode_ends")


@pytest.mark.parametrize("name", [f"{EEF}/0.0", f"{EEF}/1.0", "meta/episode_ends/0"])
def test_a_missing_chunk_is_never_fill_values(tmp_path: Path, name: str) -> None:
    files = buffer()
    del files[name]
    assert assert_refused(folder(tmp_path / "a", files), "missing").where == name
    assert_refused(zipped(tmp_path / "a.zip", files), "missing")


def test_a_chunk_that_goes_missing_while_reading_is_an_error(tmp_path: Path) -> None:
    root = folder(tmp_path / "a", buffer())
    stream = next(UmiZarr().episodes(root)).streams["observation.robot0.ee_position"]
    (root / EEF / "0.0").unlink()
    with pytest.raises(FormatError, match="cannot be read"):
        stream.values()
    (root / EEF / "0.0").symlink_to(tmp_path / "a" / ".zgroup")
    with pytest.raises(FormatError, match="cannot be read"):
        stream.values()


@pytest.mark.parametrize("size", [0, 1, 47, 49, 96, 200_000])
def test_a_chunk_of_another_size_is_refused(tmp_path: Path, size: int) -> None:
    assert_refused(folder(tmp_path / "a", buffer() | {f"{EEF}/0.0": b"x" * size}), "bytes")


CODECS: dict[str, tuple[Any, dict[str, Any]]] = {
    "zlib": (numcodecs.Zlib().encode, {"id": "zlib"}),
    "gzip": (numcodecs.GZip().encode, {"id": "gzip"}),
    "bz2": (numcodecs.BZ2().encode, {"id": "bz2"}),
    "lzma": (numcodecs.LZMA().encode, {"id": "lzma"}),
    "zstd": (numcodecs.Zstd().encode, {"id": "zstd"}),
    "lz4": (numcodecs.LZ4().encode, {"id": "lz4"}),
    "blosc": (numcodecs.Blosc("zstd").encode, BLOSC),
}


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("size", [1, 47, 49, 10 * MIB])
def test_a_chunk_that_decodes_to_another_size_is_refused(tmp_path: Path, codec: str, size: int) -> None:
    encode, config = CODECS[codec]
    read_all(folder(tmp_path / "sound", encoded(encode, config)))
    error = assert_refused(folder(tmp_path / "lie", encoded(encode, config, b"\0" * size)))
    assert error.where.startswith(EEF)


@pytest.mark.parametrize("codec", CODECS)
def test_a_bomb_is_refused_in_little_memory(
    tmp_path: Path, codec: str, peak_memory: Callable[..., int]
) -> None:
    encode, config = CODECS[codec]
    root = folder(tmp_path / "a", encoded(encode, config, b"\0" * (100 * MIB)))
    assert_refused(root)
    assert peak_memory(read_if_sound, root) < 64 * MIB


@pytest.mark.parametrize("codec", ["blosc", "zstd", "lz4"])
def test_a_header_that_announces_the_right_size_and_lies_is_refused(tmp_path: Path, codec: str) -> None:
    encode, config = CODECS[codec]
    long = bytearray(encode(b"\0" * MIB))
    if codec == "blosc":
        struct.pack_into("<I", long, 4, 48)
    elif codec == "lz4":
        struct.pack_into("<i", long, 0, 48)
    else:
        # A single segment of 48 bytes: descriptor and size instead of what stood there.
        body = long[4 + 1 + {0: 1, 1: 2, 2: 4}[long[4] >> 6] :]
        long = long[:4] + bytes([0x20, 48]) + body
    files = buffer(compressor=config) | {f"{EEF}/{i}.0": bytes(long) for i in (0, 1)}
    assert_refused(folder(tmp_path / "a", files))


def test_a_zstd_frame_that_does_not_tell_its_size_is_refused(tmp_path: Path) -> None:
    # Magic, descriptor without size, window, one empty last block.
    frame = struct.pack("<I", 0xFD2FB528) + b"\x00\x58" + b"\x01\x00\x00"
    files = buffer(compressor={"id": "zstd"}) | {f"{EEF}/{i}.0": frame for i in (0, 1)}
    assert_refused(folder(tmp_path / "a", files), "size of its content")


def test_many_small_bombs_in_one_array_are_refused(tmp_path: Path) -> None:
    chunk = numcodecs.Blosc("zstd", clevel=9).encode(b"\0" * (200 * MIB))
    files = buffer()
    files[f"{EEF}/.zarray"] = zarray(shape=[6, 50 * MIB], chunks=[1, 50 * MIB], compressor=BLOSC)
    files |= {f"{EEF}/{i}.0": chunk for i in range(6)}
    assert_refused(folder(tmp_path / "a", files), "declares")


@pytest.mark.slow
def test_the_largest_chunk_that_is_read_stays_under_a_gibibyte(
    tmp_path: Path, peak_memory: Callable[..., int]
) -> None:
    filters = [{"id": "delta", "dtype": "<f4"}, {"id": "shuffle", "elementsize": 4}]
    files = buffer(shape=[6, 11 * MIB], chunks=[6, 11 * MIB - 65_536], compressor=BLOSC, filters=filters)
    assert_refused(folder(tmp_path / "b", files), "decodes to more")
    files = buffer(shape=[6, 10 * MIB], chunks=[6, 10 * MIB], compressor=BLOSC, filters=filters)
    files[f"{EEF}/0.0"] = numcodecs.Blosc("zstd", clevel=1).encode(b"\1" * (240 * MIB))
    root = folder(tmp_path / "a", files)
    assert peak_memory(read_all, root) < 1024 * MIB


def picture_bomb(codec: str, side: int) -> bytes:
    imagecodecs = pytest.importorskip("imagecodecs")
    pixels = np.zeros((side, side, 3), np.uint8)
    options = {"effort": 1, "lossless": True} if codec == "jpegxl" else {}
    return bytes(getattr(imagecodecs, f"{codec}_encode")(pixels, **options))


@pytest.mark.parametrize("codec", ["jpegxl", "jpeg2k", "png"])
def test_a_picture_of_another_size_is_refused_before_it_is_decoded(
    tmp_path: Path, codec: str, peak_memory: Callable[..., int]
) -> None:
    config = {"id": f"imagecodecs_{codec}"}
    shape = {"shape": [6, 8, 8, 3], "chunks": [1, 8, 8, 3], "dtype": "|u1", "compressor": config}
    sound = buffer() | {"data/camera0_rgb/.zarray": zarray(**shape)}
    sound |= {f"data/camera0_rgb/{i}.0.0.0": picture_bomb(codec, 8) for i in range(6)}
    read_all(folder(tmp_path / "sound", sound))
    root = folder(tmp_path / "lie", sound | {"data/camera0_rgb/3.0.0.0": picture_bomb(codec, 4000)})
    assert assert_refused(root).where == "data/camera0_rgb/3.0.0.0"
    assert peak_memory(read_if_sound, root) < 32 * MIB


def test_a_picture_behind_a_decoy_is_refused(tmp_path: Path) -> None:
    config = {"id": "imagecodecs_jpeg2k"}
    shape = {"shape": [6, 8, 8, 3], "chunks": [6, 8, 8, 3], "dtype": "|u1", "compressor": config}
    big, small = picture_bomb("jpeg2k", 600), picture_bomb("jpeg2k", 8)
    decoy = small[small.index(b"\xff\x4f\xff\x51") :]
    for raw in (
        big[:12] + struct.pack(">I4s", 8 + len(decoy), b"xml ") + decoy + big[12:],
        b"\0\0\0\4jp2c" + big,
        b"",
        b"\xff\x4f\xff\x51",
        small[:60],
    ):
        files = buffer() | {"data/camera0_rgb/.zarray": zarray(**shape), "data/camera0_rgb/0.0.0.0": raw}
        assert_refused(folder(tmp_path / str(len(raw)), files))


NAMES = [
    "../evil",
    "data/../../evil",
    "/etc/evil",
    "C:/evil",
    "C:evil",
    "data\\..\\evil",
    "data//evil",
    "./evil",
    "data/./evil",
    "evil\0.txt",
    "evil\x1b[2J",
    "evil\u202etxt",
    "x" * 300,
    "/".join("abcdefghijklmnopqrstuvwxyz"),
]


@pytest.mark.parametrize("name", NAMES)
def test_a_zip_member_of_a_dangerous_name_is_refused(tmp_path: Path, name: str) -> None:
    path = zipped(tmp_path / "a.zip", buffer())
    with zipfile.ZipFile(path, "a") as archive:
        info = zipfile.ZipInfo("placeholder")
        info.filename = name
        archive.writestr(info, b"")
    assert_refused(path, "is not the name of a file inside")
    assert not (tmp_path / "evil").exists()


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", buffer())
    with zipfile.ZipFile(path, "a") as archive:
        info = zipfile.ZipInfo("data/link")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, b"/etc/passwd")
    assert_refused(path, "link")


def test_a_name_that_occurs_twice_in_a_zip_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", buffer())
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(f"{EEF}/0.0", b"\1" * 48)
    assert_refused(path, "twice")


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", buffer())
    raw = bytearray(path.read_bytes())
    at = raw.index(b"PK\1\2")
    raw[at + 8] |= 1
    path.write_bytes(raw)
    assert_refused(path, "encrypted")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_methods_of_zip_are_refused(tmp_path: Path, method: int) -> None:
    assert_refused(zipped(tmp_path / "a.zip", buffer(), method), "method")


def test_a_zip_bomb_is_refused_in_little_memory(tmp_path: Path, peak_memory: Callable[..., int]) -> None:
    for name in (f"{EEF}/0.0", ".zattrs", f"{EEF}/.zarray"):
        files = buffer() | {name: b" " * (100 * MIB)}
        path = zipped(tmp_path / f"{len(name)}.zip", files, zipfile.ZIP_DEFLATED)
        assert path.stat().st_size < MIB
        assert_refused(path, "bytes")
        assert peak_memory(read_if_sound, path) < 64 * MIB


def test_a_zip_member_that_inflates_to_more_than_it_announces_is_refused(
    tmp_path: Path, peak_memory: Callable[..., int]
) -> None:
    path = zipped(tmp_path / "a.zip", buffer() | {f"{EEF}/0.0": b" " * (40 * MIB)}, zipfile.ZIP_DEFLATED)
    raw = bytearray(path.read_bytes())
    at = raw.index(f"{EEF}/0.0".encode(), raw.index(b"PK\1\2")) - 46
    struct.pack_into("<I", raw, at + 24, 48)
    path.write_bytes(raw)
    assert assert_refused(path).where == f"{EEF}/0.0"
    assert peak_memory(read_if_sound, path) < 32 * MIB


def test_overlapping_zip_members_are_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", buffer() | {"big": os.urandom(5000)})
    raw = bytearray(path.read_bytes())
    big = raw.index(b"big", raw.index(b"PK\1\2")) - 46
    for name in (f"{EEF}/0.0", f"{EEF}/1.0"):
        at = raw.index(name.encode(), raw.index(b"PK\1\2")) - 46
        raw[at + 16 : at + 28] = raw[big + 16 : big + 28]
        raw[at + 42 : at + 46] = raw[big + 42 : big + 46]
    path.write_bytes(raw)
    assert_refused(path)


def test_a_wrong_crc_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", buffer())
    raw = path.read_bytes()
    chunk = buffer()[f"{EEF}/1.0"]
    path.write_bytes(raw.replace(chunk, chunk[:-1] + b"\7"))
    assert_refused(path, "CRC")


def test_a_truncated_zip_is_refused_wherever_it_is_cut(tmp_path: Path) -> None:
    raw = zipped(tmp_path / "a.zip", buffer()).read_bytes()
    cut = tmp_path / "cut.zip"
    for size in [*range(0, len(raw) - 1, 37), *range(len(raw) - 30, len(raw))]:
        cut.write_bytes(raw[:size])
        assert not UmiZarr().probe(cut)
        assert_refused(cut)


def test_links_in_a_folder_are_refused(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"\1" * 48)
    (tmp_path / "folder").mkdir()
    links = {f"{EEF}/0.0": secret, "data/more": tmp_path / "folder", "gone": tmp_path / "no"}
    for name, target in links.items():
        root = folder(tmp_path / name.replace("/", "_"), buffer())
        (root / name).unlink(missing_ok=True)
        (root / name).symlink_to(target)
        assert_refused(root, "link")


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    root = folder(tmp_path / "a", buffer())
    (root / EEF / "0.0").unlink()
    os.mkfifo(root / EEF / "0.0")
    assert_refused(root, "neither a file")


def test_a_folder_in_the_place_of_a_chunk_is_refused(tmp_path: Path) -> None:
    root = folder(tmp_path / "a", buffer())
    (root / EEF / "0.0").unlink()
    (root / EEF / "0.0").mkdir()
    assert_refused(root, "missing")


def test_names_that_are_no_text_do_no_harm(tmp_path: Path) -> None:
    root = folder(tmp_path / "a", buffer())
    (root / os.fsdecode(b"data/\xff\xfe")).write_bytes(b"")
    assert_refused(root, "is not the name")


def test_a_key_of_markup_stays_a_plain_name(tmp_path: Path) -> None:
    files = buffer() | {"data/<b onload=x>/.zarray": zarray()}
    files |= {f"data/<b onload=x>/{i}.0": b"\0" * 48 for i in (0, 1)}
    (episode, _) = UmiZarr().episodes(folder(tmp_path / "a", files))
    assert "extra._b_onload_x_" in episode.streams


def test_no_pickle_is_ever_loaded(tmp_path: Path) -> None:
    payload = b"cos\nsystem\n(S'touch owned'\ntR."
    for changed in (LIES["pickle"], LIES["pickle filter"], LIES["object codec"], LIES["object dtype"]):
        files = buffer(**changed) | {f"{EEF}/0.0": payload, f"{EEF}/1.0": payload}
        assert_refused(zipped(tmp_path / "a.zip", files))
    assert not Path("owned").exists()


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_damaged_bytes_are_refused_or_do_no_harm(tmp_path: Path, method: int) -> None:
    files = buffer()
    for (encode, config), key in zip(CODECS.values(), UMI, strict=False):
        chunks = np.random.default_rng(1).integers(0, 4, 24).astype("<f4").tobytes()
        files[f"data/robot0_{key}/.zarray"] = zarray(compressor=config)
        files |= {f"data/robot0_{key}/{i}.0": bytes(encode(chunks[i * 48 : i * 48 + 48])) for i in (0, 1)}
    raw = zipped(tmp_path / "a.zip", files, method).read_bytes()
    chance = random.Random(method)
    damaged = tmp_path / "damaged.zip"
    for _ in range(150):
        bad = bytearray(raw)
        for _ in range(chance.randint(1, 4)):
            bad[chance.randrange(len(bad))] = chance.randrange(256)
        damaged.write_bytes(bad)
        UmiZarr().probe(damaged)
        read_if_sound(damaged)


@pytest.mark.parametrize("codec", [*CODECS, "jpegxl", "jpeg2k", "png"])
def test_damaged_chunks_are_refused_or_do_no_harm(tmp_path: Path, codec: str) -> None:
    """A folder has no checksums, so that the damage reaches the decoders."""
    if codec in CODECS:
        encode, config = CODECS[codec]
        shape: dict[str, Any] = {"shape": [6, 64], "chunks": [6, 64]}
        name = f"{EEF}/0.0"
        chunk = bytes(encode(np.random.default_rng(1).integers(0, 9, 384).astype("<f4").tobytes()))
    else:
        config = {"id": f"imagecodecs_{codec}"}
        shape = {"shape": [6, 8, 3], "chunks": [6, 8, 3], "dtype": "|u1"}
        imagecodecs = pytest.importorskip("imagecodecs")
        pixels = np.random.default_rng(1).integers(0, 255, (6, 8, 3), dtype=np.uint8)
        name, chunk = f"{EEF}/0.0.0", bytes(getattr(imagecodecs, f"{codec}_encode")(pixels))
    root = folder(tmp_path / "a", buffer(**shape, compressor=config) | {name: chunk})
    read_all(root)
    (root / EEF / "0.0").touch()
    chance = random.Random(codec)
    for _ in range(100):
        bad = bytearray(chunk)
        for _ in range(chance.randint(1, 3)):
            bad[chance.randrange(len(bad))] = chance.randrange(256)
        (root / name).write_bytes(bad[: chance.choice([len(bad), chance.randrange(len(bad))])])
        read_if_sound(root)


def test_a_zip64_end_record_is_followed_and_may_lie(tmp_path: Path) -> None:
    raw = zipped(tmp_path / "a.zip", buffer()).read_bytes()
    end = raw.rindex(b"PK\5\6")
    size, offset = struct.unpack_from("<II", raw, end + 12)
    count = struct.unpack_from("<H", raw, end + 10)[0]
    for lie in (0, 1 << 60, 1 << 63):
        record = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size + lie, offset)
        locator = struct.pack("<4sIQI", b"PK\6\7", 0, end, 1)
        tail = raw[end : end + 12] + b"\xff" * 8 + raw[end + 20 :]
        path = tmp_path / f"{lie}.zip"
        path.write_bytes(raw[:end] + record + locator + tail)
        if lie:
            assert_refused(path)
        else:
            assert UmiZarr().probe(path)
            read_all(path)


def test_a_member_list_of_a_huge_size_is_not_loaded(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", buffer())
    raw = bytearray(path.read_bytes())
    struct.pack_into("<I", raw, raw.rindex(b"PK\5\6") + 12, 1 << 30)
    path.write_bytes(raw)
    assert_refused(path, "larger than any honest one")


def test_text_that_is_called_zip_is_refused(tmp_path: Path) -> None:
    for i, content in enumerate((b"", b"hello", b"PK\3\4", b"PK\5\6" + bytes(18), zlib.compress(b"x"))):
        path = tmp_path / f"{i}.zarr.zip"
        path.write_bytes(content)
        assert not UmiZarr().probe(path)
        assert_refused(path)
    assert_refused(tmp_path / "absent.zarr.zip")
