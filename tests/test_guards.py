"""The guards of conftest.py catch what they are there to catch."""

import socket
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.measure import leaking_nothing

MIB = 1 << 20


def fill(size: int) -> None:
    np.ones(size, np.uint8)


def test_another_machine_is_out_of_reach() -> None:
    with socket.socket() as probe, pytest.raises(AssertionError, match="stay on this machine"):
        probe.connect(("192.0.2.1", 80))


def test_this_machine_is_in_reach() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()


def test_an_open_file_is_a_leak(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="left open"), leaking_nothing(grace_s=0):
        held = tmp_path.joinpath("held").open("wb")
    held.close()


def test_a_running_thread_is_a_leak() -> None:
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait, name="straggler")
    with pytest.raises(AssertionError, match="straggler"), leaking_nothing(grace_s=0):
        thread.start()
    stop.set()
    thread.join()


@pytest.mark.usefixtures("no_leaks")
def test_what_is_closed_in_time_is_no_leak(tmp_path: Path) -> None:
    tmp_path.joinpath("closed").write_bytes(b"")
    threading.Timer(0.1, fill, [1]).start()


def test_peak_memory_is_that_of_the_call(peak_memory: Callable[..., int]) -> None:
    assert peak_memory(fill, 1) < 16 * MIB
    assert 60 * MIB < peak_memory(fill, 64 * MIB) < 80 * MIB
