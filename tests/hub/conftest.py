"""A folder in memory, for tests that would wait for the disk thousands of times."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

_RAM = "/dev/shm"


@pytest.fixture
def ram_path() -> Iterator[Path]:
    """Give a new folder in memory where the system has such a place, else on disk."""
    folder = tempfile.mkdtemp(prefix="teleopen-", dir=_RAM if os.access(_RAM, os.W_OK) else None)
    yield Path(folder)
    shutil.rmtree(folder, ignore_errors=True)
