"""What holds for every test: no network, nobody's account, samples where there are any."""

import ipaddress
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import hypothesis
import pytest

from tests.measure import leaking_nothing
from tests.measure import peak_memory as measure_peak_memory

ROOT = Path(__file__).resolve().parents[1]
SHARED_DATA = ROOT.parent / "shared" / "data"

# Set before any library reads them, and inherited by what the tests start: no token, key or cache of the
# person at the keyboard may take part in a test.
os.environ |= {
    "HF_HOME": str(ROOT / "build" / "hf-home"),
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_EC2_METADATA_DISABLED": "true",
}
for secret in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
    os.environ.pop(secret, None)

# Examples differ from run to run at a desk, and repeat in CI; a deadline would only measure the load.
hypothesis.settings.register_profile("teleopen", deadline=None)
hypothesis.settings.load_profile("teleopen")


class NetworkError(AssertionError):
    """A test reached for the network."""


def _is_here(family: int, address: Any) -> bool:
    if family == socket.AF_UNIX:
        return True
    host = str(address[0])
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in {"", "localhost"}


@pytest.fixture(autouse=True, scope="session")
def _no_network() -> Iterator[None]:
    """Refuse connections to other machines. Libraries that are not Python are not seen by this."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex"):
            patch.setattr(socket.socket, name, _only_here(getattr(socket.socket, name)))
        yield


def _only_here(connect: Callable[[socket.socket, Any], Any]) -> Callable[[socket.socket, Any], Any]:
    def guarded(self: socket.socket, address: Any) -> Any:
        if not _is_here(self.family, address):
            _refuse(address)
        return connect(self, address)

    return guarded


def _refuse(address: Any) -> NoReturn:
    raise NetworkError(f"tests stay on this machine, and this one reached for {address}")


@pytest.fixture
def no_leaks() -> Iterator[None]:
    """Fail the test if it leaves a file open or a thread running. Ask for it before other fixtures."""
    with leaking_nothing():
        yield


@pytest.fixture
def peak_memory() -> Callable[..., int]:
    """Give `tests.measure.peak_memory`, or skip where the system does not tell."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("peak memory is read from /proc, which is Linux's")
    return measure_peak_memory


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Give the folder of sample recordings, or skip and say where it was looked for."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no sample recordings at {os.path.relpath(SHARED_DATA, ROOT)}, beside the checkout")
    return SHARED_DATA


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what asks for the sample recordings, before -m chooses."""
    for item in items:
        if "shared_data" in getattr(item, "fixturenames", ()):
            item.add_marker("data")


def pytest_report_header() -> str:
    """Say first what will be skipped."""
    state = "present" if SHARED_DATA.is_dir() else "absent: every test marked `data` will be skipped"
    return f"sample recordings (../shared/data): {state}"
