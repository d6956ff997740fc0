"""What a test measures from outside: descriptors, threads, memory. Linux tells these in ``/proc``."""

import gc
import multiprocessing
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
PROC = Path("/proc/self")

# Event loops that zarr, fsspec and asyncio start once and keep for as long as the process lives.
IMMORTAL = ("fsspecIO", "zarr_io", "zarr_pool", "asyncio_")


def open_files() -> Counter[str]:
    """Count the descriptors on files. Sockets and pipes are left out: immortal event loops own some."""
    found: Counter[str] = Counter()
    for link in PROC.joinpath("fd").iterdir():
        try:
            target = str(link.readlink())
        except FileNotFoundError:  # the descriptor that lists the folder itself
            continue
        if target.startswith("/") and not target.startswith(("/dev/", "/proc/")):
            found[target] += 1
    return found


def own_threads() -> Counter[str]:
    """Count the threads that someone ought to end, by name."""
    return Counter(t.name for t in threading.enumerate() if not t.name.startswith(IMMORTAL))


@contextmanager
def leaking_nothing(grace_s: float = 2.0) -> Iterator[None]:
    """Fail if the block leaves a file open or a thread running; threads have a while to end."""
    files, threads = open_files(), own_threads()
    yield
    gc.collect()
    until = time.monotonic() + grace_s
    while (own_threads() - threads or open_files() - files) and time.monotonic() < until:
        time.sleep(0.02)
    assert not open_files() - files, f"left open: {dict(open_files() - files)}"
    assert not own_threads() - threads, f"left running: {dict(own_threads() - threads)}"


def peak_memory(function: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> int:
    """Return by how many bytes a call raises the resident memory of a fresh process at its peak.

    The function lies at the top of a module, since the process finds it by name. What that module imports
    is loaded before the measurement begins and does not count. The kernel counts to about one MiB.
    """
    return in_fresh_process(_growth, function, args, kwargs)


def in_fresh_process(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call a function in a fresh process and return its value, or raise what it raises.

    For what forks: other tests leave threads behind, and a child that is forked beside a thread may hang on
    a lock which that thread held. The function lies at the top of a module.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as process:
        return process.submit(function, *args, **kwargs).result()


def _growth(function: Callable[..., object], args: tuple[object, ...], kwargs: dict[str, object]) -> int:
    # getrusage would not do: its maximum is inherited from the process that started this one.
    PROC.joinpath("clear_refs").write_text("5")
    before = _status_bytes("VmRSS")
    function(*args, **kwargs)
    return _status_bytes("VmHWM") - before


def _status_bytes(field: str) -> int:
    for line in PROC.joinpath("status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.removesuffix("kB")) * 1024
    raise LookupError(field)
