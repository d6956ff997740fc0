"""Pickles made to run code, exhaust memory or never end: refused, and nothing of them is executed."""

import collections
import contextlib
import os
import pickle
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from teleopen.converters._pickled import json_of, unpickled, unpickled_npy
from teleopen.converters.bridge_raw import BridgeRaw
from teleopen.converters.calvin import Calvin
from teleopen.converters.robodm_vla import RobodmVla
from teleopen.schemas import FormatError

from tests.samples import bridge_raw, calvin, robodm_vla

HERE = Path("some.pkl")
GIB = 1 << 30
PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


class Runs:
    """Makes a pickle that calls a function when it is loaded."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


class Stateful:
    """An object whose state is set by code of its own."""

    def __init__(self) -> None:
        self.value = 1

    def __setstate__(self, state: Any) -> None:
        raise AssertionError("a stranger's __setstate__ was called")


class Slotted:
    """An object that protocol 2 constructs by `__new__` with arguments."""

    def __new__(cls, *_: Any, **__: Any) -> Self:
        return super().__new__(cls)

    def __getnewargs_ex__(self) -> tuple[tuple[int], dict[str, int]]:
        return (1,), {"two": 2}


class Array(np.ndarray[Any, Any]):
    """An array of a class of its own."""


def laughs(levels: int, width: int) -> bytes:
    """Return a pickle of a list of lists of lists ..., each of which is one list over and over."""
    program = [b"\x80\x04]\x94"]
    for level in range(levels):
        program += [b"](", b"h" + bytes([level]), b"2" * (width - 1), b"e\x94"]
    return b"".join([*program, b"."])


def told(text: bytes) -> bytes:
    return b"X" + struct.pack("<I", len(text)) + text


def array_of(shape: bytes, dtype: bytes, data: bytes, *, fortran: bytes = b"\x89") -> bytes:
    """Return a pickle of an array whose state says what it likes."""
    made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
    state = b"(K\x03" + told(b"<") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t"
    kind = b"cnumpy\ndtype\n" + told(dtype) + b"\x89\x88\x87R" + state + b"b"
    return b"\x80\x04" + made + b"(K\x01" + shape + kind + fortran + data + b"tb."


def scalar_of(dtype: bytes, data: bytes) -> bytes:
    return (
        b"\x80\x04cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\n"
        + told(dtype)
        + b"\x89\x88\x87R"
        + data
        + b"\x86R."
    )


CALLS: dict[str, Callable[[Path], Any]] = {
    "os.system": lambda canary: Runs(os.system, f"touch {canary}"),
    "eval": lambda canary: Runs(eval, f"__import__('os').mkdir({str(canary)!r})"),
    "exec": lambda canary: Runs(exec, f"import os; os.mkdir({str(canary)!r})"),
    "shutil.copy": lambda canary: Runs(shutil.copy, __file__, str(canary)),
    "mkdir": lambda canary: Runs(os.mkdir, str(canary)),
    "in a list": lambda canary: [1, {"a": (Runs(os.mkdir, str(canary)),)}],
    "as a factory": lambda canary: Runs(collections.defaultdict, Runs(os.mkdir, str(canary))),
}


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "canary"


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", CALLS)
def test_a_call_is_refused_and_not_made(name: str, protocol: int, canary: Path) -> None:
    data = pickle.dumps(CALLS[name](canary), protocol)
    with pytest.raises(FormatError):
        unpickled(data, path=HERE)
    assert not canary.exists()


@pytest.mark.parametrize("name", CALLS)
def test_these_calls_would_be_made_by_python(name: str, canary: Path) -> None:
    with contextlib.suppress(TypeError):  # the factory of a dict must be callable: by then it was called
        pickle.loads(pickle.dumps(CALLS[name](canary)))
    assert canary.exists()


def test_the_error_names_the_call_the_file_and_the_place() -> None:
    with pytest.raises(FormatError, match=r"posix\.system") as caught:
        unpickled(pickle.dumps([1, Runs(os.system, "true")]), path=HERE, where="packet 3")
    assert caught.value.path == "some.pkl"
    assert caught.value.where.startswith("packet 3: byte ")
    assert "run code" in caught.value.advice


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "made", [Stateful, Slotted, lambda: np.arange(3).view(Array), lambda: slice(1), lambda: np.ma.array([1])]
)
def test_objects_of_classes_are_never_constructed(made: Callable[[], Any], protocol: int) -> None:
    with pytest.raises(FormatError):
        unpickled(pickle.dumps(made(), protocol), path=HERE)


HOSTILE = {
    "a call of a module's attribute": b"cos.path\njoin\n(Va\ntR.",
    "a call by INST": b"(S'true'\nios\nsystem\n.",
    "a call by OBJ": b"(cos\nsystem\nS'true'\no.",
    "an object by NEWOBJ of a known name": b"\x80\x02cnumpy\nndarray\nK\x01\x85\x85\x81.",
    "a known name that is called": b"c__builtin__\nint\nK\x01\x85R.",
    "a known name with a stranger's arguments": b"c_codecs\nencode\nVabc\nVrot13\n\x86R.",
    "a known name as a value": b"cnumpy\nndarray\n.",
    "a bare dtype": b"cnumpy\ndtype\nVf8\n\x85R.",
    "a name made of numbers": b"K\x01K\x02\x93.",
    "a dtype that is evaluated": b"cnumpy\ndtype\nVi4, (2,3)f8\n\x85R.",
    "a persistent id": b"Pwhatever\n.",
    "a persistent id on the stack": b"K\x01Q.",
    "a number of the extension registry": b"\x82\x01.",
    "a larger number of the extension registry": b"\x83\x01\x01.",
    "the largest number of the extension registry": b"\x84\x01\x01\x01\x01.",
    "a buffer outside": b"\x80\x05\x97.",
    "a read-only buffer": b"\x80\x05C\x01a\x98.",
    "a protocol of the future": b"\x80\x06N.",
    "an unknown opcode": b"\xff.",
    "no end": b"N",
    "nothing": b"",
    "two objects": b"NN.",
    "a mark as an object": b"(.",
    "a remembered mark": b"(\x94.",
    "a mark in a list": b"](a.",
    "an object from an empty stack": b"R.",
    "what was never remembered": b"h\x07.",
    "a state for a dict": b"}}b.",
    "a state for an object": b"c__builtin__\ndict\n)R}b.",
    "bytes longer than all memory": b"\x8e" + struct.pack("<Q", 1 << 62) + b"a.",
    "a text longer than all memory": b"\x8d" + struct.pack("<Q", 1 << 62) + b"a.",
    "a bytearray longer than all memory": b"\x96" + struct.pack("<Q", 1 << 62) + b"a.",
    "a frame longer than the file": b"\x80\x04\x95" + struct.pack("<Q", 1 << 62) + b"N.",
    "an integer of a megabyte": b"\x8b" + struct.pack("<I", 1 << 20) + b"\1" * (1 << 20) + b".",
    "an integer of negative length": b"\x8b\xff\xff\xff\xff.",
    "an integer of many digits": b"L" + b"9" * 50_000 + b"L\n.",
    "a line without end": b"V" + b"a" * 100_000,
    "a text that is no UTF-8": b"X\x01\0\0\0\xff.",
    "a list as a key": b"}]Ns.",
    "an array as a key": b"}" + array_of(b"K\x01\x85", b"i8", b"C\x08" + bytes(8))[2:-1] + b"Ns.",
    "a key without a value": b"}(Nu.",
    "a list in a set": b"\x8f(]\x90.",
    "billions of laughs": laughs(9, 100),
    "a list in itself": b"]\x94h\x00a.",
    "a dict in itself": b"}\x94K\x01h\x00s.",
    "a tuple in itself": b"]\x94(h\x00\x85a.",
    "a thousand lists in each other": b"]" * 1000 + b"a" * 999 + b".",
    "a hundred thousand tuples in each other": b")" + b"\x85" * 100_000 + b".",
    "a key of nested tuples": b"})" + b"\x85" * 100_000 + b"Ns.",
    "an array that claims terabytes": array_of(b"J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86", b"f8", b"C\x01a"),
    "an array of a negative shape": array_of(b"J\xff\xff\xff\xff\x85", b"f8", b"C\0"),
    "an array of too little data": array_of(b"K\x04\x85", b"f8", b"C\x08" + bytes(8)),
    "an array of a hundred axes": array_of(b"(" + b"K\x01" * 100 + b"t", b"f8", b"C\x08" + bytes(8)),
    "an array of records": array_of(b"K\x01\x85", b"V8", b"C\x08" + bytes(8)),
    "an array of pointers": array_of(b"K\x01\x85", b"O8", b"C\x08" + bytes(8)),
    "an array of fewer objects than it says": array_of(b"K\x05\x85", b"O8", b"]"),
    "an array whose values come twice": array_of(b"K\x01\x85", b"f8", b"C\x08" + bytes(8))[:-1] + b"Nb.",
    "an array without values": array_of(b")", b"f8", b"N").partition(b"(K\x01")[0] + b".",
    "a pointer as a scalar": scalar_of(b"O8", b"C\x08" + bytes(8)),
    "a scalar of too little data": scalar_of(b"f8", b"C\x04" + bytes(4)),
}  # fmt: skip


FLOODS = {
    "objects by the million": b"(" + b"]" * 8_000_000 + b"l.",
    "dicts by the million": b"(" + b"}" * 8_000_000 + b"l.",
    "a memo of millions": b"N" + b"\x94" * 8_000_000 + b".",
    "billions of laughs": HOSTILE["billions of laughs"],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_pickle_is_refused_at_once(name: str) -> None:
    began = time.monotonic()
    with pytest.raises(FormatError):
        unpickled(HOSTILE[name], path=HERE)
    assert time.monotonic() - began < 30


def refuse(name: str) -> None:
    with pytest.raises(FormatError):
        unpickled(FLOODS[name], path=HERE)


@pytest.mark.slow
@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_of_objects_takes_less_than_a_gigabyte(name: str, peak_memory: Callable[..., int]) -> None:
    began = time.monotonic()
    assert peak_memory(refuse, name) < GIB
    assert time.monotonic() - began < 30


def same(left: Any, right: Any) -> bool:
    """Tell whether two plain values are the same in type, and in value bit for bit."""
    if isinstance(left, np.ndarray):
        return (
            isinstance(right, np.ndarray)
            and left.dtype == right.dtype
            and left.shape == right.shape
            and (left.tobytes() == right.tobytes())
        )
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right) if isinstance(left, set) else repr(left) == repr(right)


numbers = hnp.arrays(
    st.sampled_from(["?", "u1", "<i4", ">i8", "<f4", ">f8", "c16", "<U3", "S2", "f2"]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)
leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 200), 1 << 200),
    st.floats(),
    st.text(),
    st.binary(),
    numbers,
    numbers.map(np.asfortranarray),
    hnp.from_dtype(np.dtype("f4")),
)
keys = st.one_of(st.text(), st.integers(), st.tuples(st.integers(), st.text()))
plain = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner), st.lists(inner).map(tuple), st.dictionaries(keys, inner), st.sets(st.integers())
    ),
    max_leaves=12,
)


@given(plain, st.sampled_from(PROTOCOLS))
@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=150)
def test_plain_data_comes_back_as_python_would_load_it(value: Any, protocol: int) -> None:
    assert same(unpickled(pickle.dumps(value, protocol), path=HERE), value)


@given(plain, st.sampled_from(PROTOCOLS), st.data())
@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=150)
def test_a_damaged_pickle_is_refused_or_gives_plain_data(
    value: Any, protocol: int, data: st.DataObject
) -> None:
    raw = bytearray(pickle.dumps(value, protocol))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(raw)))
    try:
        found = unpickled(bytes(raw[: cut or len(raw)]), path=HERE)
    except FormatError:
        return
    known = (type(None), bool, int, float, str, bytes, list, tuple, dict, set, np.ndarray, np.generic)
    assert isinstance(found, known)


def test_ordered_dicts_and_default_dicts_are_dicts() -> None:
    held = [collections.OrderedDict(a=1), collections.defaultdict(list, b=[2])]
    for protocol in PROTOCOLS:
        assert unpickled(pickle.dumps(held, protocol), path=HERE) == [{"a": 1}, {"b": [2]}]


def test_arrays_of_objects_are_lists(tmp_path: Path) -> None:
    grid = np.empty((2, 2), object)
    grid[:] = [[1, "a"], [None, 2.5]]
    assert unpickled(pickle.dumps(grid), path=HERE) == [[1, "a"], [None, 2.5]]
    np.save(tmp_path / "told.npy", np.array({"color": [1, 2]}, object), allow_pickle=True)
    assert unpickled_npy(tmp_path / "told.npy") == {"color": [1, 2]}


def test_pickles_of_python_2_are_read() -> None:
    # pickle.dumps({'a': np.arange(2.)}, 2) of Python 2.7: strings of bytes, and what numpy.core was called.
    data = (
        b"\x80\x02}q\x00U\x01aq\x01cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85U\x01b"
        b"\x87Rq\x04(K\x01K\x02\x85cnumpy\ndtype\nq\x05U\x02f8K\x00K\x01\x87Rq\x06(K\x03U\x01<NNNJ\xff\xff\xff\xff"
        b"J\xff\xff\xff\xffK\x00tb\x89U\x10\0\0\0\0\0\0\0\0\0\0\0\0\0\0\xf0?tbs."
    )
    np.testing.assert_array_equal(unpickled(data, path=HERE)["a"], [0.0, 1.0])


def test_a_numeric_npy_file_is_no_file_of_objects(tmp_path: Path) -> None:
    np.save(tmp_path / "numbers.npy", np.arange(3))
    with pytest.raises(FormatError, match=r"no \.npy file of objects"):
        unpickled_npy(tmp_path / "numbers.npy")


def test_what_json_has_no_word_for_is_told() -> None:
    assert json_of({1: np.arange(2), "t": (np.float32(0.5), None)}) == {"1": [0, 1], "t": [0.5, None]}
    for value in (b"raw", float("nan"), np.array([np.inf]), np.zeros(20_000), "a\x1b[2J", [[0]] * 10_000):
        with pytest.raises(ValueError, match=r"holds|large"):
            json_of(value)


# The same through the converters: in a confined process, and without anything executed.


def test_a_trajectory_whose_pickle_runs_code_is_refused(tmp_path: Path, canary: Path) -> None:
    for name in ("obs_dict.pkl", "policy_out.pkl", "agent_data.pkl"):
        folder = tmp_path / name
        bridge_raw.write_trajectory(folder, 1, "")
        folder.joinpath(name).write_bytes(pickle.dumps(Runs(os.mkdir, str(canary))))
        with pytest.raises(FormatError, match="mkdir") as caught:
            list(BridgeRaw().episodes(folder))
        assert Path(caught.value.path).name == name
    assert not canary.exists()


def test_annotations_that_run_code_are_refused(tmp_path: Path, canary: Path) -> None:
    calvin.write_split(tmp_path / "split")
    target = tmp_path / "split" / "lang_annotations" / "auto_lang_ann.npy"
    np.save(target, np.array(Runs(os.mkdir, str(canary)), object), allow_pickle=True)
    with pytest.raises(FormatError, match="mkdir"):
        list(Calvin().episodes(tmp_path / "split"))
    assert not canary.exists()


def test_a_packet_that_runs_code_is_refused_where_it_stands(tmp_path: Path, canary: Path) -> None:
    bad = pickle.dumps(Runs(os.mkdir, str(canary)))
    path = robodm_vla.write_vla(tmp_path / "bad.vla", {"action": [np.zeros(2), np.zeros(2), bad]})
    (episode,) = RobodmVla().episodes(path)
    assert len(episode.streams["action"].values(0, 2)) == 2
    with pytest.raises(FormatError, match="mkdir") as caught:
        episode.streams["action"].values()
    assert caught.value.where.startswith("action: packet 2")
    assert not canary.exists()
