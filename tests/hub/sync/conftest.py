"""A Hub on this machine and a small world, for tests of publishing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from teleopen.hub.sync.hub_target import HubTarget

from tests.hub.sync.world import URL, World, make_world, real_client
from tests.hub_server import Hub, hub_server
from tests.hub_server.hub import TOKEN


@pytest.fixture(scope="module")
def _server() -> Iterator[Hub]:
    with hub_server() as hub, real_client(hub):
        yield hub


@pytest.fixture
def hub(_server: Hub) -> Hub:
    """Give an empty Hub."""
    _server.reset()
    return _server


@pytest.fixture
def world(ram_path: Path) -> World:
    """Give a store with two open and two closed episodes."""
    return make_world(ram_path)


@pytest.fixture
def target(hub: Hub, ram_path: Path) -> Callable[..., HubTarget]:
    """Give what makes a target as a new process would."""

    def make(url: str = URL, **options: Any) -> HubTarget:
        told = {"endpoint": hub.url, "token": TOKEN, "cache": ram_path / "cache", **options}
        return HubTarget(url, **told)

    return make
