"""Laws of a storage: on a local disk, in memory and in a bucket; and what each place must refuse."""

import errno
import functools
import os
import pickle
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from teleopen.hub import disk
from teleopen.hub.storage import Storage, open_storage, safe_key
from teleopen.schemas import DamageError, MissingExtraError, NotFoundError, StoreError

from tests.hub.bucket import BUSY, CONFLICT, FORBIDDEN, Gate, answering, losing_the_answer, s3_server
from tests.hub.web import Broken, Plain, Ranges, serving

HOSTILE = (
    "",
    "/",
    "/etc/passwd",
    "..",
    "../x",
    "a/../../x",
    "a/..",
    ".",
    "./a",
    "a/./b",
    "a//b",
    "a/",
    "a\\b",
    "..\\x",
    "\\\\host\\share",
    "C:",
    "c:/windows",
    "ab:stream",
    "a\0b",
    "a\nb",
    "a\tb",
    "a\x7fb",
    "a\x85b",
    "a\u202eb",
    "a\u2066b",
    "a\u200bb",
    "a\ufeffb",
    "a\ud800b",
    "e\u0301",
    "x" * 256,
    "é" * 128,
    "a/" + "x" * 256,
)


@pytest.fixture(scope="module")
def gate() -> Iterator[Gate]:
    pytest.importorskip("moto")
    pytest.importorskip("s3fs")
    with s3_server() as gate:
        yield gate


@pytest.fixture(params=["local", "memory", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "local":
        return open_storage(tmp_path)
    if request.param == "memory":
        return open_storage(f"memory://{uuid.uuid4().hex}")
    request.getfixturevalue("gate")
    return open_storage(f"s3://hub/{uuid.uuid4().hex}")


@pytest.fixture
def bucket(gate: Gate) -> Iterator[Storage]:
    yield open_storage(f"s3://hub/{uuid.uuid4().hex}")
    gate.deaf = False
    gate.spoilers.clear()


# ---------------------------------------------------------------- keys and URLs


@pytest.mark.parametrize("key", HOSTILE, ids=ascii)
def test_a_hostile_key_is_refused(key: str) -> None:
    with pytest.raises(StoreError, match="no safe key"):
        safe_key(key)


@pytest.mark.parametrize(
    "key", ["zarr.json", "c/0/0", "a b", ".staging/x", "摇杆/数据", "x" * 255, "..a/b.."]
)
def test_a_harmless_key_is_taken(key: str) -> None:
    assert safe_key(key) == key


@pytest.mark.parametrize("key", ["../x", "/x", "a\\b"])
def test_no_method_takes_a_hostile_key(storage: Storage, key: str, tmp_path: Path) -> None:
    calls: list[Callable[[], Any]] = [
        lambda: storage.read(key),
        lambda: storage.read_many([(key, 0, 1)]),
        lambda: storage.size(key),
        lambda: storage.exists(key),
        lambda: list(storage.keys(key)),
        lambda: storage.age_s([key]),
        lambda: storage.create(key, b""),
        lambda: storage.replace(key, b""),
        lambda: storage.put_folder(tmp_path, key),
        lambda: storage.delete([key]),
        lambda: storage.delete_folder(key),
        lambda: storage.local(key),
    ]
    for call in calls:
        with pytest.raises(StoreError, match="no safe key"):
            call()


@pytest.mark.parametrize(
    "url",
    [
        "reference://",
        "simplecache::s3://hub/x",
        "zip://a.zip",
        "zip://x::s3://hub/a.zip",
        "filecache://x",
        "dir://x",
        "data://x",
        "github://a:b@c",
        "gopher://x",
        "https://host/x?token=secret",
        "https://me:secret@host/x",
        "s3://hub/x#y",
    ],
)
def test_a_url_that_may_lead_elsewhere_is_refused(url: str) -> None:
    with pytest.raises(StoreError) as caught:
        open_storage(url)
    assert "secret" not in str(caught.value)


def test_a_missing_folder_is_made_only_if_asked_for(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no such folder"):
        open_storage(tmp_path / "a" / "b")
    assert open_storage(tmp_path / "a" / "b", create=True).url == str(tmp_path / "a" / "b")
    assert open_storage(f"file://{tmp_path}/a").url == str(tmp_path / "a")


def test_what_speaks_the_protocol_and_is_absent_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_args: object, **_kwargs: object) -> None:
        raise ImportError("Install gcsfs")

    monkeypatch.setattr("teleopen.hub.remote.url_to_fs", absent)
    with pytest.raises(MissingExtraError, match=r"teleopen\[gcs\]"):
        open_storage("gs://hub/x")


# ---------------------------------------------------------------- laws


@pytest.mark.usefixtures("no_leaks")
def test_what_was_created_is_read_and_stays(storage: Storage) -> None:
    storage.create("a/b/c", b"first")
    with pytest.raises(FileExistsError):
        storage.create("a/b/c", b"second")
    assert storage.read("a/b/c") == b"first"
    assert storage.size("a/b/c") == 5
    assert storage.exists("a/b/c")
    assert 0 <= storage.age_s(["a/b/c"]) + 1 < 60


def test_a_read_is_a_slice(storage: Storage) -> None:
    data = bytes(range(100))
    storage.create("x", data)
    for start, stop in [
        (0, None),
        (0, 0),
        (0, 10),
        (90, 200),
        (50, None),
        (100, None),
        (100, 120),
        (150, 160),
    ]:
        assert storage.read("x", start, stop) == data[start:stop], (start, stop)


def test_many_ranges_come_exactly_or_not_at_all(storage: Storage) -> None:
    storage.create("x", bytes(range(100)))
    storage.create("y", b"yy")
    wanted = [("x", 0, 100), ("y", 1, 2), ("x", 99, 100), ("x", 7, 7)]
    assert storage.read_many(wanted) == [bytes(range(100)), b"y", b"c", b""]
    assert storage.read_many([]) == []
    for short in [("x", 90, 101), ("x", 100, 101), ("x", 300, 400)]:
        with pytest.raises(DamageError, match="ends"):
            storage.read_many([("y", 0, 1), short])
    with pytest.raises(NotFoundError):
        storage.read_many([("x", 0, 1), ("z", 0, 1)])


def test_what_is_absent_is_not_found(storage: Storage) -> None:
    storage.create("a/b", b"")
    for key in ("z", "a/z", "a", "a/b/z"):
        for look in (storage.read, storage.size):
            with pytest.raises(NotFoundError):
                look(key)
        assert not storage.exists(key)


def test_keys_are_listed_below_a_folder_in_order(storage: Storage) -> None:
    made = sorted(["a/b", "a/b-c", "a/b.c/d", "a/bc/d", "ab/c", "z"])
    for key in reversed(made):
        storage.create(key, b"")
    listed = list(storage.keys())
    assert [key for key in listed if not key.startswith(".staging")] == made
    assert list(storage.keys("a")) == [key for key in made if key.startswith("a/")]
    assert list(storage.keys("a/b")) == []
    assert list(storage.keys("nothing")) == []
    storage.create("a/later", b"")
    assert list(storage.keys("a"))[-1] == "a/later"


def test_replace_takes_the_place_of_what_was_there(storage: Storage) -> None:
    storage.replace("a/hint", b"1")
    storage.replace("a/hint", b"2")
    assert storage.read("a/hint") == b"2"


def test_a_finished_folder_is_put_whole(storage: Storage) -> None:
    folder = storage.staging() / "new"
    disk.make_folder(folder / "c")
    disk.write(folder / "zarr.json", [b"{}"])
    disk.write(folder / "c" / "0", [b"shard"])
    storage.put_folder(folder, "segments/s")
    assert list(storage.keys("segments/s")) == ["segments/s/c/0", "segments/s/zarr.json"]
    assert storage.read("segments/s/c/0") == b"shard"
    assert not folder.exists()
    disk.make_folder(folder)
    with pytest.raises(FileExistsError):
        storage.put_folder(folder, "segments/s")
    storage.delete_folder("segments/s")
    storage.delete_folder("segments/s")
    assert list(storage.keys("segments")) == []


def test_delete_takes_keys_by_the_letter(storage: Storage) -> None:
    for key in ("a/x*", "a/xy", "a/[x]"):
        storage.create(key, b"")
    storage.delete(["a/x*", "a/[x]", "a/absent"])
    assert list(storage.keys("a")) == ["a/xy"]


def test_a_storage_survives_pickling(storage: Storage) -> None:
    storage.create("x", b"data")
    assert pickle.loads(pickle.dumps(storage)).read("x") == b"data"


def test_of_many_creators_exactly_one_wins(storage: Storage) -> None:
    def create(name: int) -> int | None:
        try:
            storage.create("catalog/1", f"{name}".encode())
        except FileExistsError:
            return None
        return name

    with ThreadPoolExecutor(16) as pool:
        winners = [name for name in pool.map(create, range(16)) if name is not None]
    assert [storage.read("catalog/1")] == [f"{name}".encode() for name in winners]


# ---------------------------------------------------------------- local disk


def test_links_below_the_root_are_refused_and_listed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    outside.joinpath("secret").write_bytes(b"secret")
    root = tmp_path / "store"
    storage = open_storage(root, create=True)
    root.joinpath("file").symlink_to(outside / "secret")
    root.joinpath("folder").symlink_to(outside)
    root.joinpath("loop").symlink_to("loop")
    for key in ("file", "folder/secret", "folder/new", "loop", "loop/x"):
        for act in (storage.read, storage.size, storage.exists, storage.local):
            with pytest.raises(StoreError, match="symbolic link"):
                act(key)
        with pytest.raises(StoreError, match="symbolic link"):
            storage.create(key, b"")
        with pytest.raises(StoreError, match="symbolic link"):
            storage.delete([key])
    assert list(storage.keys()) == ["file", "folder", "loop"]
    assert [p.name for p in outside.iterdir()] == ["secret"]


def test_a_root_that_is_a_link_is_the_users_choice(tmp_path: Path) -> None:
    tmp_path.joinpath("there").mkdir()
    tmp_path.joinpath("here").symlink_to("there")
    storage = open_storage(tmp_path / "here")
    storage.create("x", b"x")
    assert tmp_path.joinpath("there", "x").read_bytes() == b"x"


def test_removing_a_tree_does_not_follow_links(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    outside.joinpath("kept").write_bytes(b"")
    tree = tmp_path / "tree"
    tree.mkdir()
    tree.joinpath("link").symlink_to(outside)
    disk.remove_tree(tree)
    assert not tree.exists()
    assert outside.joinpath("kept").exists()


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(NotFoundError, match="no file"):
        open_storage(tmp_path).read("pipe")


class Failing:
    """Stands for the module `os` in `disk`, and fails at one call."""

    NAMES = ("open", "write", "fsync", "close", "link", "rename", "unlink", "mkdir", "rmdir", "scandir")

    def __init__(self, at: int, fail: Callable[[], None]) -> None:
        self.calls: list[str] = []
        self.at, self.fail = at, fail

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in self.NAMES:
            return real

        def counted(*args: Any, **kwargs: Any) -> Any:
            self.calls.append(name)
            if len(self.calls) == self.at:
                if name == "close":
                    real(*args)  # the kernel forgets the descriptor, whatever it answers
                self.fail()
            return real(*args, **kwargs)

        return counted


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT])
def test_a_failing_disk_leaves_a_whole_object_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def fail() -> None:
        raise OSError(code, os.strerror(code))

    for at in range(1, 100):
        storage = open_storage(tmp_path / str(at), create=True)
        shim = Failing(at, fail)
        with monkeypatch.context() as patch:
            patch.setattr(disk, "os", shim)
            with suppress(StoreError):
                storage.create("catalog/1", b"whole")
        left = list(storage.keys())
        assert left in ([], ["catalog/1"]) or shim.calls[at - 1] in {"unlink", "close"}, shim.calls
        if "catalog/1" in left:
            assert storage.read("catalog/1") == b"whole"
        else:
            storage.create("catalog/1", b"whole")
        if len(shim.calls) < at:
            return
    pytest.fail("never came to an end")


def test_a_full_disk_is_told_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_fd: int, _data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.write", full)
    with pytest.raises(StoreError, match="disk is full; free some space"):
        open_storage(tmp_path).create("x", b"x")


def test_a_disk_that_takes_a_byte_at_a_time_gets_them_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr("os.write", lambda fd, data: write(fd, data[:1]))
    disk.write(tmp_path / "x", [b"", b"abc", memoryview(bytearray(0)), memoryview(b"def")])
    assert tmp_path.joinpath("x").read_bytes() == b"abcdef"


def test_a_file_system_without_hard_links_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    with pytest.raises(StoreError, match="no hard links"):
        open_storage(tmp_path).create("x", b"x")


def test_a_link_whose_answer_was_lost_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def twice(source: Path, target: Path, **kwargs: Any) -> None:
        link(source, target, **kwargs)
        link(source, target, **kwargs)

    monkeypatch.setattr("os.link", twice)
    storage = open_storage(tmp_path)
    storage.create("x", b"x")
    assert list(storage.keys()) == ["x"]


def test_what_a_writer_could_not_finish_goes(tmp_path: Path) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"half"
        raise RuntimeError

    with pytest.raises(RuntimeError):
        disk.write(tmp_path / "x", chunks())
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- bucket


def test_each_create_bears_the_condition(gate: Gate, bucket: Storage) -> None:
    bucket.create("catalog/1", b"x")
    puts = [seen for seen in gate.seen if seen[0] == "PUT" and bucket.url.rpartition("/")[2] in seen[1]]
    assert [condition for _, _, condition in puts] == ["*"] * 3  # two to try it out
    assert list(bucket.keys()) == ["catalog/1"]


def test_a_server_that_ignores_the_condition_is_refused(gate: Gate, bucket: Storage) -> None:
    gate.deaf = True
    for _ in range(2):
        with pytest.raises(StoreError, match="ignores If-None-Match"):
            bucket.create("catalog/1", b"x")
    assert list(bucket.keys()) == []


@pytest.mark.parametrize("answer", [CONFLICT, BUSY], ids=lambda answer: answer[1])
def test_what_passes_is_tried_again(gate: Gate, bucket: Storage, answer: tuple[str, str]) -> None:
    bucket.create("warm", b"")
    gate.spoilers += [answering(*answer)] * 2
    bucket.create("catalog/1", b"x")
    assert bucket.read("catalog/1") == b"x"
    assert not gate.spoilers


def test_a_lost_answer_is_no_lost_object(gate: Gate, bucket: Storage) -> None:
    bucket.create("warm", b"")
    gate.spoilers.append(losing_the_answer)
    bucket.create("catalog/1", b"mine")
    assert bucket.read("catalog/1") == b"mine"
    with pytest.raises(FileExistsError):
        bucket.create("catalog/1", b"another's")


def test_a_refusal_is_no_success(gate: Gate, bucket: Storage) -> None:
    bucket.create("warm", b"")
    gate.spoilers.append(answering(*FORBIDDEN))
    with pytest.raises(StoreError, match="PermissionError"):
        bucket.create("catalog/1", b"x")
    assert not bucket.exists("catalog/1")


def test_a_bucket_that_is_not_there_cannot_be_written(gate: Gate) -> None:
    with pytest.raises(StoreError):
        open_storage("s3://no-such-bucket/x").create("a", b"")


# ---------------------------------------------------------------- web server


def web_folder(tmp_path: Path) -> functools.partial[Ranges]:
    local = open_storage(tmp_path / "store", create=True)
    local.create("a/x", bytes(range(100)))
    local.create("a/100% [é]", b"odd")
    return functools.partial(Ranges, directory=str(tmp_path))


def test_a_web_server_is_read_and_no_more(tmp_path: Path) -> None:
    with serving(web_folder(tmp_path)) as url:
        storage = open_storage(url)
        assert storage.read("a/x") == bytes(range(100))
        assert storage.read("a/x", 10, 20) == bytes(range(10, 20))
        assert storage.read_many([("a/x", 1, 3), ("a/x", 98, 100)]) == [b"\1\2", b"bc"]
        assert storage.size("a/x") == 100
        assert storage.read("a/100% [é]") == b"odd"
        assert not storage.exists("a/y")
        with pytest.raises(NotFoundError):
            storage.read("a/y")
        with pytest.raises(DamageError):
            storage.read_many([("a/x", 90, 101)])
        with pytest.raises(StoreError, match="cannot list"):
            list(storage.keys())
        for write in (storage.create, storage.replace):
            with pytest.raises(StoreError, match="read only"):
                write("a/z", b"")


def test_a_server_that_ignores_ranges_is_told(tmp_path: Path) -> None:
    web_folder(tmp_path)
    with serving(functools.partial(Plain, directory=str(tmp_path))) as url:
        storage = open_storage(url)
        assert storage.read("a/x") == bytes(range(100))
        with pytest.raises(StoreError, match="ignores byte ranges"):
            storage.read_many([("a/x", 10, 20)])
        with pytest.raises(StoreError, match="ignores byte ranges"):
            storage.read("a/x", 10, 20)


def test_a_failing_server_is_no_absence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("teleopen.hub.web.FIRST_PAUSE_S", 0.0)
    with serving(Broken) as url:
        storage = open_storage(url)
    for server in (serving(Broken), serving(Broken)):
        with server as url:
            storage = open_storage(url)
            for look in (storage.read, storage.size, storage.exists):
                with pytest.raises(StoreError):
                    look("a/x")
    for look in (storage.read, storage.size, storage.exists):  # nobody answers any more
        with pytest.raises(StoreError):
            look("a/x")
