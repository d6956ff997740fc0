"""The client library of the Hugging Face Hub, made fit for publishing: timeouts, retries, errors of ours.

What the library leaves to its caller (huggingface_hub 1.31 to 2.x, `hf_api.py`, `utils/_http.py`): its API
calls have no timeout; the commit, `dataset_info`, refs, tags, settings and creation are not tried again; and
where hf_xet is installed it is used against any server, whether that speaks Xet or not.
"""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from ...schemas import NotFoundError, StoreError

Result = TypeVar("Result")

HUB = "https://huggingface.co"
TIMEOUT_S = 120.0
"""Longest silence of a server. A commit may take it a minute, after which it goes on by itself (hub docs)."""
TRIES = 6
_LONGEST_PAUSE_S = 60.0
_PASSING = {408, 425, 429, 500, 502, 503, 504}
_RESET = re.compile(r"\bt\s*=\s*(\d+)")
_SECRET = re.compile(r"\b(hf_|api_org_)[A-Za-z0-9_]{6,}")
_setup = threading.Lock()
_is_set_up = False

sleep = time.sleep


def connect(endpoint: str | None, token: str | None) -> Any:
    """Return an ``HfApi``; the library is told once about timeouts, progress bars and Xet.

    Parameters
    ----------
    endpoint
        A server that speaks the Hub's API; None: as the library's own settings say.
    token
        None: as the library's own settings say. It is never written anywhere.
    """
    from huggingface_hub import HfApi, constants, get_token

    global _is_set_up  # noqa: PLW0603 - the library's own settings are as wide as the process
    with _setup:
        if not _is_set_up:
            _set_up()
            _is_set_up = True
    api = HfApi(endpoint=endpoint, token=token or get_token() or False, library_name="teleopen")
    if api.endpoint.rstrip("/") != HUB:
        # The library no longer asks whether a server speaks Xet, and fails halfway if it does not.
        constants.HF_HUB_DISABLE_XET = True
    return api


def utilities() -> Any:
    """Return the client's tools; it does not mark what it exports, so checkers of types do not find them."""
    import huggingface_hub.utils

    return huggingface_hub.utils


def _set_up() -> None:
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils._http import default_client_factory

    def limit(request: Any) -> None:
        # Many calls say timeout=None, which overrides the client's own.
        told = request.extensions.get("timeout") or {}
        limits = {kind: told.get(kind) or TIMEOUT_S for kind in ("connect", "read", "write", "pool")}
        request.extensions = {**request.extensions, "timeout": limits}

    def client() -> Any:
        made = default_client_factory()
        made.event_hooks["request"].append(limit)
        return made

    utilities().disable_progress_bars()
    set_client_factory(client)


def status_of(error: BaseException | None) -> int | None:
    """Return the HTTP status that an error, or what caused it, tells of."""
    for _ in range(4):
        status = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(status, int) or error is None:
            return status
        error = error.__cause__
    return None


def is_passing(error: BaseException) -> bool:
    """Tell whether trying again may help: the network or the server stumbled, and nobody said no."""
    status = status_of(error)
    if status is not None:
        return status in _PASSING
    # What the client's HTTP library raises has no common parent over its versions but these; a proxy's HTML
    # page where JSON is due ends in a ValueError of the decoder; a client that another thread closed says so.
    names = {cls.__name__ for kind in _causes(error) for cls in type(kind).__mro__}
    closed = isinstance(error, RuntimeError) and "closed" in str(error)
    return closed or bool(names & {"TransportError", "JSONDecodeError", "ConnectionError", "StreamError"})


def _causes(error: BaseException) -> list[BaseException]:
    found = [error]
    while found[-1].__cause__ is not None and len(found) < 4:
        found.append(found[-1].__cause__)
    return found


def pause(attempt: int, error: BaseException | None = None) -> None:
    """Wait before another attempt: as long as the server asks for, else a little longer each time."""
    headers = getattr(getattr(error, "response", None), "headers", {})
    asked = headers.get("Retry-After") or (_RESET.search(headers.get("RateLimit", "")) or [None, None])[1]
    if asked and asked.isdigit():
        sleep(min(_LONGEST_PAUSE_S * 5, float(asked) + random.random()))
    else:
        sleep(min(_LONGEST_PAUSE_S, random.uniform(0.5, 1) * 2**attempt))


def call(place: str, function: Callable[..., Result], *args: Any, **options: Any) -> Result:
    """Call something that may be called again without harm, until it answers.

    Raises
    ------
    NotFoundError
        If the repository, revision or file is not there, or not for this token.
    StoreError
        If the server refuses, or does not answer.
    """
    for attempt in range(TRIES):
        try:
            return function(*args, **options)
        except Exception as error:
            if attempt + 1 == TRIES or not is_passing(error):
                raise as_ours(place, error) from error
            pause(attempt, error)
    raise AssertionError


def as_ours(place: str, error: BaseException) -> StoreError | NotFoundError:
    """Return the error of ours that tells what one of the library means, in one line and without secrets."""
    if isinstance(error, StoreError | NotFoundError):
        return error
    names = {cls.__name__ for cls in type(error).__mro__}
    status = status_of(error)
    if "GatedRepoError" in names:
        return StoreError(
            place, "is gated, and this token has no access yet; ask for it on the page of the dataset"
        )
    if names & {"RepositoryNotFoundError", "RevisionNotFoundError", "EntryNotFoundError"}:
        if status == 401:
            return NotFoundError(f"{place} is not there, or not without a token; log in with `hf auth login`")
        return NotFoundError(f"{place} is not there, or not for this token")
    if status == 401:
        return StoreError(place, "the server does not accept the token; log in with `hf auth login`")
    why = {
        403: "the token may not do this here; it needs the right to write to this repository",
        402: "the server asks for payment",
        413: "the server finds this too large",
        429: "the server asks for a slower pace, and did so to the end; try again later",
        507: "the server has no space left",
    }.get(status or 0, "the server failed" if is_passing(error) else "the server refuses")
    return StoreError(place, f"{why} ({described(error)})")


def described(error: BaseException) -> str:
    """Return one line about an error, without anything that looks like a token."""
    told = getattr(error, "server_message", None) or str(error) or type(error).__name__
    lines = [line.strip() for line in str(told).splitlines() if line.strip()]
    cause = f" - {described(error.__cause__)}" if isinstance(error, RuntimeError) and error.__cause__ else ""
    return without_secrets(f"{type(error).__name__}: {' '.join(lines)[:300]}{cause}")


def without_secrets(text: str) -> str:
    """Return a text with whatever looks like a token of the Hub taken out."""
    return _SECRET.sub("<secret>", text)
