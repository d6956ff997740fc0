"""The same batches in other frameworks, where they are installed."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import numpy as np
import pytest
from teleopen.hub import WriteOptions, create_store
from teleopen.hub.train import Permuted, Windows, open_dataset
from teleopen.hub.train.frameworks import jax_batches, paddle_batches, tensorflow_dataset
from teleopen.schemas import MissingExtraError

from tests.episodes import make

CAMERA = "observation.images.top"


@pytest.fixture(scope="module")
def windows(tmp_path_factory: pytest.TempPathFactory) -> Windows:
    made = create_store(tmp_path_factory.mktemp("frameworks") / "store")
    made.write((make(seed=n, steps=20, imu=False) for n in range(2)), WriteOptions(profile="stream"))
    return open_dataset(made).windows({CAMERA: [0], "action": range(3)})


# In a process of their own: JAX starts threads, after which no other test may fork.
JAX = """
import sys
import numpy as np
from teleopen.hub.train import open_dataset
from teleopen.hub.train.frameworks import jax_batches

windows = open_dataset(sys.argv[1]).windows({"observation.images.top": [0], "action": range(3)})
for ours, theirs in zip(windows.loader(8), jax_batches(windows.loader(8)), strict=True):
    for name in ("action", "observation.images.top"):
        np.testing.assert_array_equal(np.asarray(theirs[name]), ours[name])
"""

GRAIN = """
import sys
import grain.python as grain
from teleopen.hub.train import open_dataset
from teleopen.hub.train.frameworks import GrainWindows

source = GrainWindows(open_dataset(sys.argv[1]).windows({"action": range(3)}))
assert "40 windows" in repr(source)
shuffled = grain.MapDataset.source(source).shuffle(seed=1).batch(4)
steps = [int(step) for n in range(len(shuffled)) for step in shuffled[n]["step"]]
assert sorted(steps) == sorted([*range(20), *range(20)])
"""


@pytest.mark.parametrize(("module", "script"), [("jax", JAX), ("grain", GRAIN)])
def test_frameworks_of_xla_get_the_same_numbers(windows: Windows, module: str, script: str) -> None:
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    url = windows.shelf.stores[0].url
    ended = subprocess.run([sys.executable, "-c", script, url], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_tensorflow_gets_the_same_numbers(windows: Windows) -> None:
    pytest.importorskip("tensorflow")
    for ours, theirs in zip(windows.loader(8), tensorflow_dataset(windows.loader(8)), strict=True):
        np.testing.assert_array_equal(theirs["action"].numpy(), ours["action"])


def test_paddle_gets_the_same_numbers(windows: Windows) -> None:
    pytest.importorskip("paddle")
    for ours, theirs in zip(windows.loader(8), paddle_batches(windows.loader(8)), strict=True):
        np.testing.assert_array_equal(theirs["action"].numpy(), ours["action"])


@pytest.mark.parametrize(
    ("module", "adapter"),
    [("jax", jax_batches), ("tensorflow", tensorflow_dataset), ("paddle", paddle_batches)],
)
def test_a_framework_that_is_absent_is_named(
    windows: Windows, module: str, adapter: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=module):
        next(iter(adapter(windows.loader(8, Permuted()))))  # type: ignore[operator]
