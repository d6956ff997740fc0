"""The stack machine of `_pickled`, with a table of what each opcode does (CPython: Lib/pickletools.py)."""

from __future__ import annotations

import codecs
import re
import struct
from collections.abc import Callable, Mapping
from typing import Any

from ._pickle_values import (
    BUILDERS,
    KNOWN,
    MAX_HELD,
    Dtype,
    Name,
    NdArray,
    RefusedError,
    key,
    ordered,
    size,
    tell_array,
)

_MAX_OPCODES = 20_000_000
_MAX_LINE = 1 << 16
_MAX_INTEGER_BYTES = 32
_HIGHEST_PROTOCOL = 5
_OBJECT_COST = 64
_MEMO_COST = 100

_INTEGER = re.compile(r"[+-]?\d{1,80}")
_TRUTH = {"00": False, "01": True}
_MARK = object()


def _too_much() -> RefusedError:
    return RefusedError("is a pickle that builds more than a recording needs")


class Machine:
    """The stack machine, with a table of what each opcode does."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._held = 0

    def run(self) -> Any:
        data, end = self._data, len(self._data)
        for _ in range(_MAX_OPCODES):
            if self.at >= end:
                raise self._cut_off()
            code = data[self.at]
            self.at += 1
            todo = _TABLE[code]
            if todo is not None:
                todo(self)
            elif code == _STOP:
                break
            else:
                raise RefusedError(_REFUSED.get(code, f"holds the unknown opcode {code:#04x}"))
        else:
            raise RefusedError(f"is a pickle of more than {_MAX_OPCODES:,} steps")
        if len(self._stack) != 1:
            raise RefusedError("is a pickle that leaves no single object")
        return self._stack[0]

    # Reading

    def take(self, size: int) -> bytes:
        piece = self._data[self.at : self.at + size]
        if len(piece) != size:
            raise self._cut_off()
        self.at += size
        return piece

    def number(self, size: int, *, signed: bool = False) -> int:
        return int.from_bytes(self.take(size), "little", signed=signed)

    def _cut_off(self) -> RefusedError:
        return RefusedError(f"ends at byte {len(self._data)}, in the midst of an object")

    def line(self) -> str:
        end = self._data.find(b"\n", self.at, self.at + _MAX_LINE)
        if end < 0:
            raise RefusedError(f"holds at byte {self.at} a line without end")
        line = self._data[self.at : end]
        self.at = end + 1
        return line.decode("latin-1")

    # The stack

    def push(self, value: Any, cost: int = 0) -> None:
        self._held += cost + _OBJECT_COST
        if self._held > MAX_HELD:
            raise _too_much()
        self._stack.append(value)

    def charge(self, cost: int) -> None:
        self._held += cost + _OBJECT_COST
        if self._held > MAX_HELD:
            raise _too_much()

    def pop(self) -> Any:
        value = self._stack.pop()
        if value is _MARK:
            raise RefusedError("takes a mark for an object")
        return value

    def top(self, kind: type) -> Any:
        value = self._stack[-1]
        if type(value) is not kind:
            raise RefusedError(f"adds to what is no {kind.__name__}")
        return value

    def since_mark(self) -> list[Any]:
        for i in range(len(self._stack) - 1, -1, -1):
            if self._stack[i] is _MARK:
                items = self._stack[i + 1 :]
                del self._stack[i:]
                return items
        raise RefusedError("lacks a mark")

    # Plain values

    def none(self) -> None:
        self.push(None)

    def true(self) -> None:
        self.push(value=True)

    def false(self) -> None:
        self.push(value=False)

    def int_line(self) -> None:
        line = self.line()
        self.push(_TRUTH[line] if line in _TRUTH else self.integer(line))

    def long_line(self) -> None:
        self.push(self.integer(self.line().removesuffix("L")))

    def integer(self, text: str) -> int:
        if not _INTEGER.fullmatch(text):
            raise RefusedError("holds a number that is none")
        return int(text)

    def float_line(self) -> None:
        self.push(float(self.line()))

    def sized_integer(self, prefix: int) -> None:
        size = self.number(prefix)
        if size > _MAX_INTEGER_BYTES:
            raise RefusedError(f"holds an integer of {size} bytes")
        self.push(self.number(size, signed=True))

    def real(self) -> None:
        self.push(struct.unpack(">d", self.take(8))[0])

    def bytes_of(self, prefix: int) -> None:
        raw = self.take(self.number(prefix))
        self.push(raw, len(raw))

    def text(self, prefix: int) -> None:
        raw = self.take(self.number(prefix))
        self.push(str(raw, "utf-8", "surrogatepass"), 4 * len(raw))

    def text_line(self) -> None:
        self.push(self.line().encode("latin-1").decode("raw-unicode-escape"), _MAX_LINE)

    def old_string(self, prefix: int) -> None:
        """Push a string of Python 2: a text if it is ASCII, else bytes."""
        raw = self.take(self.number(prefix))
        self.push(_text_or_bytes(raw), len(raw))

    def old_string_line(self) -> None:
        line = self.line()
        if len(line) < 2 or line[0] not in "'\"" or line[-1] != line[0]:
            raise RefusedError("holds a string without quotes")
        raw = codecs.escape_decode(line[1:-1].encode("latin-1"))[0]
        self.push(_text_or_bytes(raw), len(raw))

    # Containers

    def mark(self) -> None:
        self.push(_MARK)

    def pop_one(self) -> None:
        self._stack.pop()

    def pop_to_mark(self) -> None:
        self.since_mark()

    def again(self) -> None:
        value = self.pop()
        self._stack.append(value)
        self.push(value)

    def new(self, kind: Callable[[], Any]) -> None:
        self.push(kind(), _OBJECT_COST)

    def tuple_of(self, count: int) -> None:
        items = [self.pop() for _ in range(count)]
        self.push(tuple(reversed(items)), 8 * count)

    def make_tuple(self) -> None:
        self.collect(tuple)

    def make_list(self) -> None:
        self.collect(list)

    def collect(self, kind: Callable[[list[Any]], Any]) -> None:
        items = self.since_mark()
        self.push(kind(items), 8 * len(items))

    def make_dict(self) -> None:
        items = self.since_mark()
        self.push({}, _OBJECT_COST)
        self.fill(items)

    def make_frozenset(self) -> None:
        items = self.since_mark()
        self.push(frozenset(map(key, items)), 32 * len(items))

    def append(self) -> None:
        value = self.pop()
        self.charge(8)
        self.top(list).append(value)

    def appends(self) -> None:
        items = self.since_mark()
        self.charge(8 * len(items))
        self.top(list).extend(items)

    def set_item(self) -> None:
        value, key = self.pop(), self.pop()
        self.fill([key, value])

    def set_items(self) -> None:
        self.fill(self.since_mark())

    def fill(self, items: list[Any]) -> None:
        if len(items) % 2:
            raise RefusedError("gives a dict a key without a value")
        self.charge(50 * len(items))
        self.top(dict).update(zip(map(key, items[::2]), items[1::2], strict=True))

    def add_items(self) -> None:
        items = self.since_mark()
        self.charge(32 * len(items))
        self.top(set).update(map(key, items))

    # The memo

    def keep(self, index: int) -> None:
        if self._stack[-1] is _MARK:
            raise RefusedError("remembers a mark")
        self.charge(_MEMO_COST)
        self._memo[index] = self._stack[-1]

    def keep_line(self) -> None:
        self.keep(self.integer(self.line()))

    def keep_sized(self, size: int) -> None:
        self.keep(self.number(size))

    def keep_next(self) -> None:
        self.keep(len(self._memo))

    def recall_line(self) -> None:
        self.push(self._memo[self.integer(self.line())])

    def recall_sized(self, size: int) -> None:
        self.push(self._memo[self.number(size)])

    # Frame and protocol

    def protocol(self) -> None:
        version = self.number(1)
        if version > _HIGHEST_PROTOCOL:
            raise RefusedError(f"is a pickle of protocol {version}")

    def frame(self) -> None:
        size = self.number(8)
        if size > len(self._data) - self.at:
            raise RefusedError(f"ends at byte {len(self._data)}, in the midst of a frame")

    # What a pickle names, and what it asks to be done with that

    def global_line(self) -> None:
        self.named(self.line(), self.line())

    def global_stack(self) -> None:
        name, module = self.pop(), self.pop()
        if type(name) is not str or type(module) is not str:
            raise RefusedError("names something by what is no text")
        self.named(module, name)

    def named(self, module: str, name: str) -> None:
        what = KNOWN.get(f"{module}.{name}")
        if what is None:
            shown = ascii(f"{module}.{name}"[:100])
            raise RefusedError(f"asks for {shown}, which is neither plain data nor a NumPy array")
        self.push(Name(what))

    def reduce(self) -> None:
        arguments, function = self.pop(), self.pop()
        if type(function) is not Name or type(arguments) is not tuple:
            raise RefusedError("calls what is no function")
        build = BUILDERS.get(function.what)
        if build is None:
            raise RefusedError(f"calls {function.what}, which plain data does not need")
        value = build(*arguments)
        self.push(value, size(value))

    def build(self) -> None:
        state, target = self.pop(), self._stack[-1]
        if type(target) is Dtype:
            target.value = ordered(target.value, state)
        elif type(target) is NdArray:
            self.charge(tell_array(target, state))
        else:
            raise RefusedError("sets the state of what is neither an array nor its dtype")


def _text_or_bytes(raw: bytes) -> str | bytes:
    return raw.decode("ascii") if raw.isascii() else raw


def _sized(do: Callable[[Machine, int], None], size: int) -> Callable[[Machine], None]:
    return lambda machine: do(machine, size)


def _made(kind: Callable[[], Any]) -> Callable[[Machine], None]:
    return lambda machine: machine.new(kind)


def _signed(size: int) -> Callable[[Machine], None]:
    signed = size == 4  # Lib/pickletools.py: BININT is signed, BININT1 and BININT2 are not
    return lambda machine: machine.push(machine.number(size, signed=signed))


_STOP = ord(".")
_M = Machine
_OPCODES: Mapping[int, Callable[[Machine], None]] = {
    ord(code): do
    for code, do in {
        "(": _M.mark,
        "0": _M.pop_one,
        "1": _M.pop_to_mark,
        "2": _M.again,
        "N": _M.none,
        "\x88": _M.true,
        "\x89": _M.false,
        "I": _M.int_line,
        "L": _M.long_line,
        "F": _M.float_line,
        "G": _M.real,
        "J": _signed(4),
        "K": _signed(1),
        "M": _signed(2),
        "\x8a": _sized(_M.sized_integer, 1),
        "\x8b": _sized(_M.sized_integer, 4),
        "B": _sized(_M.bytes_of, 4),
        "C": _sized(_M.bytes_of, 1),
        "\x8e": _sized(_M.bytes_of, 8),
        "\x96": _sized(_M.bytes_of, 8),
        "V": _M.text_line,
        "X": _sized(_M.text, 4),
        "\x8c": _sized(_M.text, 1),
        "\x8d": _sized(_M.text, 8),
        "S": _M.old_string_line,
        "T": _sized(_M.old_string, 4),
        "U": _sized(_M.old_string, 1),
        ")": _made(tuple),
        "]": _made(list),
        "}": _made(dict),
        "\x8f": _made(set),
        "\x85": _sized(_M.tuple_of, 1),
        "\x86": _sized(_M.tuple_of, 2),
        "\x87": _sized(_M.tuple_of, 3),
        "t": _M.make_tuple,
        "l": _M.make_list,
        "d": _M.make_dict,
        "\x91": _M.make_frozenset,
        "a": _M.append,
        "e": _M.appends,
        "s": _M.set_item,
        "u": _M.set_items,
        "\x90": _M.add_items,
        "p": _M.keep_line,
        "q": _sized(_M.keep_sized, 1),
        "r": _sized(_M.keep_sized, 4),
        "\x94": _M.keep_next,
        "g": _M.recall_line,
        "h": _sized(_M.recall_sized, 1),
        "j": _sized(_M.recall_sized, 4),
        "\x80": _M.protocol,
        "\x95": _M.frame,
        "c": _M.global_line,
        "\x93": _M.global_stack,
        "R": _M.reduce,
        "b": _M.build,
    }.items()
}

_REFUSED: Mapping[int, str] = {
    ord("P"): "holds a persistent id, which only the program that wrote it can resolve",
    ord("Q"): "holds a persistent id, which only the program that wrote it can resolve",
    ord("i"): "constructs an object of a class",
    ord("o"): "constructs an object of a class",
    0x81: "constructs an object of a class",
    0x92: "constructs an object of a class",
    0x82: "names a class by a number of the extension registry",
    0x83: "names a class by a number of the extension registry",
    0x84: "names a class by a number of the extension registry",
    0x97: "holds a buffer that lies outside of it",
    0x98: "holds a buffer that lies outside of it",
}

_TABLE = [_OPCODES.get(code) for code in range(256)]
