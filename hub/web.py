"""Storage on a web server: read only, by exact ranges, over connections that a process keeps open.

What may pass by itself (a server that stumbles or asks for patience, a connection that breaks, an answer that
is cut off) is tried again, each range for itself. A server that ignores ranges is told from its headers, so
that no object is loaded for a part of it. Statuses, ``Range``, ``Content-Range``: RFC 9110, sections 14, 15.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import random
import re
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar
from urllib.parse import quote, urljoin, urlsplit

from ..schemas import NotFoundError, StoreError
from .ranges import Range, cut, merged
from .storage import exactly, open_storage, safe_key

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession

Result = TypeVar("Result")

TRIES = 5
FIRST_PAUSE_S = 0.1
SILENCE_S = 30.0
"""Longest silence of a server, after which it is asked again."""

_LONGEST_PAUSE_S = 60.0
_CONNECTIONS = 64
_MOST_REDIRECTS = 5
_REDIRECTS = {301, 302, 303, 307, 308}
_PASSING = {408, 425, 429, 500, 502, 503, 504}
_ABSENT = {404, 410}
_RESET = re.compile(r"\bt\s*=\s*(\d+)")
_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")


class _PassingError(Exception):
    """What may be gone at the next attempt; ``wait_s`` is how long the server asks to wait, if it does."""

    def __init__(self, why: str, wait_s: float | None = None) -> None:
        super().__init__(why)
        self.wait_s = wait_s


class _StaleError(Exception):
    """A place that the server once sent us to does not answer any more."""


class WebStorage:
    """A folder on a web server; keys lie below the URL's path.

    Safe to share between threads, and with processes that are forked: each has connections of its own.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.can_list = False
        self._targets: dict[str, tuple[str, float]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return open_storage, (self.url,)

    # ------------------------------------------------------------ what a kind of server differs in

    def address(self, key: str) -> str:
        """Return the URL of an object."""
        return f"{self.url}/{quote(safe_key(key))}"

    def headers(self, url: str) -> Mapping[str, str]:
        """Return what is sent along to this URL, and to no other."""
        del url
        return {}

    def target_s(self, url: str) -> float:
        """Return for how many seconds to go where this URL redirected to without asking it again."""
        del url
        return 0.0

    def refusal(self, key: str, status: int, headers: Mapping[str, str]) -> StoreError | NotFoundError:
        """Return the error that a refused request is."""
        del headers
        place = f"{self.url}/{key}"
        if status in _ABSENT:
            return NotFoundError(f"{place} is not there")
        return StoreError(place, f"the server answers {status}")

    # ------------------------------------------------------------ reading

    def read(self, key: str, start: int = 0, stop: int | None = None) -> bytes:
        if stop is not None and start >= stop:
            safe_key(key)
            return b""
        return _run(self._read(key, start, stop))

    def read_many(self, ranges: Sequence[Range]) -> list[bytes]:
        parts = merged(ranges)

        async def all_of_them() -> list[bytes]:
            return await asyncio.gather(*(self._read(*part) for part in parts))

        found = dict(zip(parts, _run(all_of_them()) if parts else [], strict=True))
        for (key, start, stop), data in found.items():
            exactly(f"{self.url}/{key}", start, stop, data)
        return cut(ranges, found)

    def size(self, key: str) -> int:
        return _run(self._patiently(key, lambda: self._size(key)))

    def exists(self, key: str) -> bool:
        try:
            self.size(key)
        except NotFoundError:
            return False
        return True

    def local(self, key: str) -> None:
        safe_key(key)

    async def _read(self, key: str, start: int, stop: int | None) -> bytes:
        return await self._patiently(key, lambda: self._once(key, start, stop))

    async def _patiently(self, key: str, attempt: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        from aiohttp import ClientError

        for turn in range(TRIES):
            try:
                return await attempt()
            except (_PassingError, ClientError, TimeoutError, OSError) as error:
                if isinstance(error, StoreError | NotFoundError):
                    raise
                if turn == TRIES - 1:
                    why = f"the server failed {TRIES} times, at last so: {_described(error)}"
                    raise StoreError(f"{self.url}/{key}", why) from error
                asked = getattr(error, "wait_s", None)
                await asyncio.sleep(asked or FIRST_PAUSE_S * 2**turn * random.uniform(0.5, 1.5))
        raise AssertionError  # the last attempt returned or raised

    async def _once(self, key: str, start: int, stop: int | None) -> bytes:
        asked = (
            {}
            if (start, stop) == (0, None)
            else {"Range": f"bytes={start}-{'' if stop is None else stop - 1}"}
        )
        async with self._answer(key, asked) as answer:
            if answer.status == 416:  # nothing lies at or behind the start
                return b""
            if answer.status == 206 and asked:
                return await self._part(key, answer, start, stop)
            if answer.status != 200:
                raise self.refusal(key, answer.status, answer.headers)
            told = answer.content_length
            if asked and (start > 0 or told is None or (stop is not None and told > stop)):
                why = "the server ignores byte ranges, so parts of a file cannot be read from it"
                raise StoreError(f"{self.url}/{key}", why)
            return await _body(answer, f"{self.url}/{key}", stop)

    async def _part(self, key: str, answer: ClientResponse, start: int, stop: int | None) -> bytes:
        place = f"{self.url}/{key}"
        told = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        if told is None or told[1] is None or int(told[1]) != start or (stop and int(told[2]) >= stop):
            raise StoreError(place, "the server answers another range than it was asked for")
        data = await _body(answer, place, int(told[2]) + 1 - start)
        if len(data) != int(told[2]) + 1 - start:
            raise _PassingError(f"the answer was cut off after {len(data)} bytes")
        return data

    async def _size(self, key: str) -> int:
        async with self._answer(key, {"Range": "bytes=0-0"}) as answer:
            told = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
            if answer.status in {206, 416} and told and told[3] != "*":
                return int(told[3])
            if answer.status != 200:
                raise self.refusal(key, answer.status, answer.headers)
            if answer.content_length is None:
                raise StoreError(f"{self.url}/{key}", "the server does not tell its size")
            return answer.content_length

    @asynccontextmanager
    async def _answer(self, key: str, asked: Mapping[str, str]) -> AsyncIterator[ClientResponse]:
        """Give the answer to a request, from where the server sends us, now or a while ago."""
        target, until = self._targets.get(key, ("", 0.0))
        if time.monotonic() < until:
            with suppress(_StaleError):
                async with self._followed(key, target, asked) as answer:
                    if answer.status not in {200, 206, 416} and answer.status not in _PASSING:
                        raise _StaleError
                    _check_passing(answer)
                    yield answer
                    return
            self._targets.pop(key, None)
        async with self._followed(key, self.address(key), asked) as answer:
            _check_passing(answer)
            yield answer

    @asynccontextmanager
    async def _followed(self, key: str, url: str, asked: Mapping[str, str]) -> AsyncIterator[ClientResponse]:
        from yarl import URL

        session = await _session()
        keep_s = self.target_s(url)
        for _ in range(_MOST_REDIRECTS + 1):
            # What is secret goes to whom it is for, and nowhere that it is sent on to.
            headers = {"Accept-Encoding": "identity", **asked, **self.headers(url)}
            async with session.get(URL(url, encoded=True), headers=headers, allow_redirects=False) as answer:
                if answer.status not in _REDIRECTS:
                    yield answer
                    return
                url = self._next(key, url, answer)
            if keep_s:
                self._targets[key] = url, time.monotonic() + keep_s
        raise StoreError(f"{self.url}/{key}", f"the server sends us on more than {_MOST_REDIRECTS} times")

    def _next(self, key: str, url: str, answer: ClientResponse) -> str:
        found = urljoin(url, answer.headers.get("Location", ""))
        schemes = urlsplit(url).scheme, urlsplit(found).scheme
        if schemes not in {("https", "https"), ("http", "http"), ("http", "https")} or found == url:
            raise StoreError(
                f"{self.url}/{key}", "the server sends us on to a place that is not safe to follow"
            )
        return found

    # ------------------------------------------------------------ what a web server does not do

    def keys(self, prefix: str = "") -> Iterator[str]:
        del prefix
        raise StoreError(self.url, "a web server cannot list a store; read it, or check it where it lies")

    def age_s(self, keys: Sequence[str]) -> float:
        del keys
        return self._refuse()

    def create(self, key: str, data: bytes) -> None:
        del key, data
        self._refuse()

    def replace(self, key: str, data: bytes) -> None:
        del key, data
        self._refuse()

    def put_folder(self, local: Path, key: str) -> None:
        del local, key
        self._refuse()

    def put_file(self, local: Path, key: str) -> None:
        del local, key
        self._refuse()

    def delete(self, keys: Sequence[str]) -> None:
        del keys
        self._refuse()

    def delete_folder(self, key: str) -> None:
        del key
        self._refuse()

    def staging(self) -> Path:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise StoreError(
            self.url, f"is read only: {self.url.partition('://')[0]}:// takes no commits from here"
        )


def _check_passing(answer: ClientResponse) -> None:
    """Raise if the server asks for patience, or stumbled.

    It tells for how long by ``Retry-After`` (RFC 9110, 10.2.3), the Hub by ``RateLimit`` (huggingface_hub:
    src/huggingface_hub/utils/_http.py).
    """
    if answer.status not in _PASSING:
        return
    asked = answer.headers.get("Retry-After") or ""
    reset = _RESET.search(answer.headers.get("RateLimit", ""))
    wait = asked if asked.isdecimal() else reset[1] if reset else ""
    raise _PassingError(
        f"it answers {answer.status} {answer.reason or ''}".rstrip(),
        min(_LONGEST_PAUSE_S, float(wait)) + random.uniform(0, 0.1) if wait else None,
    )


async def _body(answer: ClientResponse, place: str, most: int | None) -> bytes:
    """Return the body of an answer, or raise once it is longer than it may be."""
    if most is not None and (answer.content_length or 0) > most:
        raise StoreError(place, "the server answers more than it was asked for")
    parts, size = [], 0
    async for part in answer.content.iter_any():
        size += len(part)
        if most is not None and size > most:
            raise StoreError(place, "the server answers more than it was asked for")
        parts.append(part)
    return b"".join(parts)


def _described(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".removeprefix("_PassingError: ").splitlines()[0][:300]


# ---------------------------------------------------------------- connections

# By process: what a parent opened stays the parent's, and a child only keeps it from being closed.
_sessions: dict[int, ClientSession] = {}


async def _session() -> ClientSession:
    """Return the connections of this process; called in fsspec's event loop alone."""
    from aiohttp import ClientSession, ClientTimeout, TCPConnector

    found = _sessions.get(os.getpid())
    if found is None:
        found = _sessions[os.getpid()] = ClientSession(
            connector=TCPConnector(limit=_CONNECTIONS, keepalive_timeout=60),
            timeout=ClientTimeout(total=None, sock_connect=SILENCE_S, sock_read=SILENCE_S),
            trust_env=True,  # proxies, as every other client on the machine
        )
    return found


def _run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run something in the event loop that fsspec keeps for this process."""
    from fsspec.asyn import get_loop, sync

    found: Result = sync(get_loop(), lambda: work)
    return found


@atexit.register
def _close() -> None:
    """Take leave of the servers: what is open at the end of a process is complained about."""
    if session := _sessions.pop(os.getpid(), None):
        with suppress(Exception):  # the process ends anyway
            from fsspec.asyn import get_loop, sync

            sync(get_loop(), session.close, timeout=1)
