"""The confined side of `_confined`: reads for a parent that believes nothing it says.

It is started with a converter and a path, gives up what `_sandbox` can take, and then answers one request
after the other. A message is a JSON document and, behind it, bytes; each is preceded by its length.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import resource
import struct
from collections.abc import Generator, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..schemas import Array, Episode, FormatError, MissingExtraError, Packet, to_document
from ._sandbox import confine

HEAD = struct.Struct("=IQ")
"""Length of a message's document and of the bytes behind it."""

_KEPT_EPISODES = 256
_SPARE_SECONDS = 60

Reply = tuple[Mapping[str, Any], bytes | memoryview]


def main() -> None:
    """Answer requests until the parent closes the pipe."""
    inlet, outlet = os.fdopen(0, "rb"), os.fdopen(os.dup(1), "wb")
    silence = os.open(os.devnull, os.O_RDWR)
    for stream in (1, 2):  # a library that prints must not speak to the parent
        os.dup2(silence, stream)
    setup, payload = _received(inlet)
    # The one pickle here comes from the parent, who wrote it of its own converter.
    converter = pickle.loads(payload) if payload else None  # noqa: S301
    abilities = confine(setup["readable"], setup["memory_bytes"])
    _send(outlet, {"abilities": [dataclasses.asdict(ability) for ability in abilities]})
    reader = _Reader(converter, Path(setup["path"]))
    while True:
        try:
            request, _ = _received(inlet)
        except EOFError:
            os._exit(0)  # nothing here is worth tidying up
        _extend_cpu_time(setup["seconds"])
        _send(outlet, *reader.answer(request))


def _received(inlet: BinaryIO) -> tuple[dict[str, Any], bytes]:
    head = inlet.read(HEAD.size)
    if len(head) != HEAD.size:
        raise EOFError
    document, payload = HEAD.unpack(head)
    return json.loads(inlet.read(document)), inlet.read(payload)


def _send(outlet: BinaryIO, document: Mapping[str, Any], payload: bytes | memoryview = b"") -> None:
    text = json.dumps(document, ensure_ascii=False, allow_nan=False).encode()
    outlet.write(HEAD.pack(len(text), len(payload)))
    outlet.write(text)
    outlet.write(payload)
    outlet.flush()


def _extend_cpu_time(seconds: float) -> None:
    """Allow as much processor time for this request as the parent waits for it, should it no longer wait."""
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    soft = int(used + seconds) + _SPARE_SECONDS
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard < 0 else min(soft, hard), hard))


class _Reader:
    """What is being read: the converter's episodes, and the iterators that the parent draws from."""

    def __init__(self, converter: Any, path: Path) -> None:
        self._converter, self._path = converter, path
        self._open: dict[int, Generator[Reply, None, None]] = {}
        self._opened = 0
        self._kept: dict[int, Episode] = {}

    def answer(self, request: Mapping[str, Any]) -> Reply:
        """Return the reply to a request; an error is a reply as well."""
        try:
            return self._answer(request)
        except FormatError as error:
            return {"error": [error.path, error.where, error.why, error.advice]}, b""
        except MissingExtraError as error:
            return {"missing": str(error)}, b""
        except MemoryError:
            return {"error": [str(self._path), "", "wants more memory than a confined reader has", ""]}, b""
        except Exception as error:  # noqa: BLE001 - whatever a hostile file provokes ends here
            why = f"cannot be read: {type(error).__name__}: {error}"
            return {"error": [str(self._path), "", why[:1_000], ""]}, b""

    def _answer(self, request: Mapping[str, Any]) -> Reply:
        asked = request["ask"]
        for unwanted in request["unwanted"]:
            self._open.pop(unwanted).close()
        if asked == "nothing":
            return {}, b""
        if asked == "next":
            return next(self._open[request["of"]], ({"end": True}, b""))
        if asked == "probe":
            return {"claims": bool(self._converter.probe(self._path))}, b""
        if asked == "times":
            times = self._episode(request).clocks[request["clock"]].read()
            return _told(times)
        return self._begin(request)

    def _begin(self, request: Mapping[str, Any]) -> Reply:
        begin = {"episodes": self._episodes, "blocks": self._blocks, "packets": self._packets}
        self._opened += 1
        self._open[self._opened] = begin[request["ask"]](request)
        return {"of": self._opened}, b""

    def _all(self) -> Iterator[Episode]:
        read = getattr(self._converter, "unconfined", self._converter.episodes)
        found: Iterator[Episode] = read(self._path)
        return found

    def _episodes(self, _: Mapping[str, Any]) -> Generator[Reply, None, None]:
        self._kept.clear()
        for index, episode in enumerate(self._all()):
            if len(self._kept) >= _KEPT_EPISODES:
                self._kept.pop(next(iter(self._kept)))
            self._kept[index] = episode
            packets = {n: to_document(s.packets.format) for n, s in episode.streams.items() if s.packets}
            yield {"packets": packets}, json.dumps(to_document(episode), allow_nan=False).encode()

    def _episode(self, request: Mapping[str, Any]) -> Episode:
        index = request["episode"]
        episode = self._kept.get(index) or next(islice(self._all(), index, None), None)
        if episode is None or episode.id != request["id"]:
            raise FormatError(str(self._path), f"episode {index}", "has changed since its header was read")
        self._kept[index] = episode
        return episode

    def _blocks(self, request: Mapping[str, Any]) -> Generator[Reply, None, None]:
        stream = self._episode(request).streams[request["stream"]]
        for block in stream.read(request["start"], request["stop"]):
            yield _told(block)

    def _packets(self, request: Mapping[str, Any]) -> Generator[Reply, None, None]:
        packets = self._episode(request).streams[request["stream"]].packets
        packet: Packet
        for packet in packets.read() if packets else ():
            yield {"pts": packet.pts, "key": packet.key}, packet.data


def _told(values: Array) -> Reply:
    block = np.ascontiguousarray(values)
    return {"dtype": block.dtype.str, "shape": block.shape}, block.reshape(-1).view(np.uint8).data
