"""Renderers for tests; where there is none, tests are skipped loudly."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from teleopen.viewer.screen import Viewer


def need(backend: str) -> None:
    """Skip the test where a backend cannot work, or fail it where TELEOPEN_REQUIRE_RENDERER asks for it."""
    absent = ["the extra `viewer`"]
    if importlib.util.find_spec("rerun") is not None:
        from teleopen.viewer.renderers import missing

        absent = missing(backend)
    if absent and os.environ.get("TELEOPEN_REQUIRE_RENDERER"):
        pytest.fail(f"{backend} needs {', '.join(absent)}, and TELEOPEN_REQUIRE_RENDERER is set")
    if absent:
        pytest.skip(f"{backend} cannot draw here: there is no {', no '.join(absent)}")


@pytest.fixture(scope="module")
def native() -> Iterator[Viewer]:
    """Give a viewer without a window that tells nobody that it was used."""
    need("native")
    from teleopen.viewer.process import silent
    from teleopen.viewer.screen import viewer

    with silent() as environment, viewer(environment, "--headless", size=(480, 360)) as shown:
        yield shown
