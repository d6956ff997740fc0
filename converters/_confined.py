"""Converters whose reading happens in a process that can do nothing else.

A library that reads what a stranger wrote may have a hole. Here it runs in a child that may open nothing but
the recording and the Python installation, has no network, no secrets in its environment, little memory and
little time (`_sandbox` tells how). The child is not believed: what it says comes as JSON and raw bytes,
lengths are judged before anything is allocated, headers pass the validator, blocks must be what the header
said. A child that dies, hangs or lies is a `FormatError` here, and is ended.

The child stays for the next request of the same recording, since starting one takes some tenths of a second,
and the sources' digests are computed in it. It holds no file between requests.
"""

from __future__ import annotations

import dataclasses
import os
import pickle
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, cast

import numpy as np

from ..schemas import (
    Array,
    Clock,
    Episode,
    FormatError,
    MissingExtraError,
    PacketBlock,
    Packets,
    Rights,
    Stream,
    StreamSpec,
    Times,
    VideoFormat,
    check,
    from_document,
    packet_blocks,
    strict_json,
    time_problems,
)
from ._confined_worker import DEFAULT, Limits, Reply, Worker
from ._sandbox import Ability
from .base import MAX_EPISODE_BYTES, Converter, Format

_MAX_HEADER = 1 << 24
_MAX_SAMPLE = 1 << 28
_MAX_PACKET = 1 << 28
_MAX_CLOCK = 1 << 26
_KEPT = 2


@dataclass(frozen=True)
class Confined:
    """A converter that reads as the one it wraps does, in a confined process.

    Attributes
    ----------
    converter
        What reads; its module must be importable in a new process.
    """

    converter: Converter
    limits: Limits = DEFAULT

    @property
    def format(self) -> Format:
        """The format of the wrapped converter."""
        return self.converter.format

    @property
    def block_bytes(self) -> int:
        """The bound of the wrapped converter."""
        return self.converter.block_bytes

    def probe(self, path: Path) -> bool:
        """Tell whether the wrapped converter claims ``path``. Never raises."""
        try:
            worker = _worker(_Recording(self.converter, path, self.limits))
            return worker.ask({"ask": "probe"}, Reply.plain).get("claims") is True
        except (FormatError, MissingExtraError, OSError, ValueError):
            return False

    def episodes(self, path: Path) -> Iterator[Episode]:
        """Yield the episodes of ``path``, as `Converter.episodes`."""
        return episodes(self.converter, path, self.limits)


def confined(converter: Converter, limits: Limits = DEFAULT) -> Converter:
    """Return the converter with all of its reading confined."""
    return cast("Converter", Confined(converter, limits))


def episodes(converter: Converter, path: Path, limits: Limits = DEFAULT) -> Iterator[Episode]:
    """Yield the episodes that ``converter`` finds at ``path``, read in a confined process.

    A converter whose format must never be read in the open has a method ``unconfined`` that does what
    `Converter.episodes` promises, and calls this in ``episodes``.

    Raises
    ------
    FormatError
        What the converter raises; and if its process dies, takes too long, or says what cannot be.
    """
    return _Recording(converter, path, limits).episodes()


def abilities() -> tuple[Ability, ...]:
    """Return what this system can do to confine a reader, tried in a process of its own."""
    worker = Worker(None, Path(os.devnull), DEFAULT)
    worker.end()
    return worker.abilities


@dataclass(frozen=True, slots=True)
class _Recording:
    """A recording, and how the parts of its episodes are asked for. Pickles, like all that streams hold."""

    converter: Converter
    path: Path
    limits: Limits

    def episodes(self) -> Iterator[Episode]:
        worker = _worker(self)
        request, numbers = {"ask": "episodes"}, count()
        return worker.drawn(
            request, lambda reply: self._episode(reply, next(numbers)), _MAX_HEADER, patient=True
        )

    def _episode(self, reply: Reply, index: int) -> Episode:
        header = from_document(Episode, strict_json(reply.taken()))
        told = reply.document.get("packets", {})
        formats = {name: from_document(VideoFormat, told[name]) for name in told}
        if header.rights != Rights() or header.provenance.format != self.converter.format.name:
            raise ValueError("its header speaks for somebody else")
        key = {"episode": index, "id": header.id}
        streams = {n: self._stream(key, s, formats.pop(n, None)) for n, s in header.streams.items()}
        clocks = {n: self._clock(key, n, clock) for n, clock in header.clocks.items()}
        if formats:
            raise ValueError("it has packets of no stream")
        return check(dataclasses.replace(header, streams=streams, clocks=clocks))

    def _stream(self, key: Mapping[str, Any], stream: Stream, video: VideoFormat | None) -> Stream:
        spec = stream.spec
        np.dtype(spec.dtype)  # a name that is none is a TypeError
        if spec.sample_bytes > _MAX_SAMPLE or spec.sample_bytes * stream.length > MAX_EPISODE_BYTES:
            raise ValueError(f"{spec.name} declares samples that are too large")
        asked = {**key, "stream": spec.name}
        packets = Packets(format=video, blocks=partial(self.packets, asked)) if video else None
        return Stream(
            spec=spec, length=stream.length, read=partial(self.blocks, asked, spec), packets=packets
        )

    def _clock(self, key: Mapping[str, Any], name: str, clock: Clock) -> Clock:
        if clock.length > _MAX_CLOCK:
            raise ValueError(f"the clock {name} declares more samples than can be")
        return dataclasses.replace(clock, read=partial(self.times, {**key, "clock": name}, clock))

    def blocks(self, asked: Mapping[str, Any], spec: StreamSpec, start: int, stop: int) -> Iterator[Array]:
        worker = _worker(self)
        request = {"ask": "blocks", **asked, "start": start, "stop": stop}
        most = max(self.converter.block_bytes, spec.sample_bytes)
        left = stop - start
        for block in worker.drawn(
            request, partial(Reply.array, dtype=spec.np_dtype, sample=spec.shape), most
        ):
            left -= len(block)
            if left < 0:
                raise worker.lost(spec.name, "it gave more samples than it was asked for")
            yield block
        if left:
            raise worker.lost(spec.name, f"it gave {left} samples less than it was asked for")

    def packets(self, asked: Mapping[str, Any]) -> Iterator[PacketBlock]:
        return packet_blocks(_worker(self).drawn({"ask": "packets", **asked}, Reply.packet, _MAX_PACKET))

    def times(self, asked: Mapping[str, Any], clock: Clock) -> Times:
        def checked(reply: Reply) -> Times:
            times: Times = reply.array(dtype=np.dtype("<i8"), sample=())
            if problems := time_problems(clock, times):
                raise ValueError(str(problems[0]))
            return times

        return _worker(self).ask({"ask": "times", **asked}, checked, 8 * clock.length)


@dataclass(slots=True)
class _Kept:
    """The children that may be asked again, the last used at the end."""

    workers: dict[bytes, Worker] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def of(self, recording: _Recording) -> Worker:
        key = pickle.dumps((recording.converter, recording.path.absolute(), recording.limits))
        with self.lock:
            worker = self.workers.pop(key, None)
            if worker is None or not worker.alive:
                worker = Worker(recording.converter, recording.path, recording.limits)
            self.workers[key] = worker
            while len(self.workers) > _KEPT:
                # Whoever draws from it still holds it; the last to let go ends it.
                self.workers.pop(next(iter(self.workers)))
            return worker


_kept = _Kept()


def _worker(recording: _Recording) -> Worker:
    return _kept.of(recording)


def _forget() -> None:
    """Begin anew in a forked process, where the pipes of these children are its parent's."""
    global _kept  # noqa: PLW0603 - what was kept belongs to another process
    _kept = _Kept()


os.register_at_fork(after_in_child=_forget)
