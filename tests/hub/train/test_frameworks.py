"""The same batches in other frameworks, where they are installed."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from teleopen.hub import WriteOptions, create_store
from teleopen.hub.train import Permuted, Windows, open_dataset
from teleopen.hub.train.frameworks import GrainWindows, jax_batches, paddle_batches, tensorflow_dataset
from teleopen.schemas import MissingExtraError

from tests.episodes import make

CAMERA = "observation.images.top"


@pytest.fixture(scope="module")
def windows(tmp_path_factory: pytest.TempPathFactory) -> Windows:
    made = create_store(tmp_path_factory.mktemp("frameworks") / "store")
    made.write((make(seed=n, steps=20, imu=False) for n in range(2)), WriteOptions(profile="stream"))
    return open_dataset(made).windows({CAMERA: [0], "action": range(3)})


def test_jax_gets_the_same_numbers(windows: Windows) -> None:
    pytest.importorskip("jax")
    for ours, theirs in zip(windows.loader(8), jax_batches(windows.loader(8)), strict=True):
        for name in ("action", CAMERA):
            np.testing.assert_array_equal(np.asarray(theirs[name]), ours[name])


def test_grain_reads_windows_as_a_source(windows: Windows) -> None:
    grain = pytest.importorskip("grain.python")
    source = GrainWindows(windows)
    assert "40 windows" in repr(source)
    shuffled = grain.MapDataset.source(source).shuffle(seed=1).batch(4)
    steps = np.concatenate([shuffled[n]["step"] for n in range(len(shuffled))])
    assert sorted(steps.tolist()) == sorted([*range(20), *range(20)])


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
