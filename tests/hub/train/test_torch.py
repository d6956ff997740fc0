"""Batches in PyTorch: the same windows, in any kind of worker, and gone on with exactly."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
import pytest
from teleopen.hub import WriteOptions, create_store
from teleopen.hub.train import Blocks, Order, Permuted, Windows, open_dataset
from teleopen.hub.train.shared import IS_AVAILABLE

from tests.episodes import make
from tests.measure import in_fresh_process

torch = pytest.importorskip("torch", reason="PyTorch is not installed: these tests need a CPU build of it")

CAMERA = "observation.images.top"


@pytest.fixture(scope="module")
def windows(tmp_path_factory: pytest.TempPathFactory) -> Windows:
    made = create_store(tmp_path_factory.mktemp("torch") / "store")
    made.write((make(seed=n, steps=40 + n, imu=False) for n in range(3)), WriteOptions(profile="stream"))
    return open_dataset(made).windows({CAMERA: [-1, 0], "action": range(4)})


def drawn(batches: Any) -> list[tuple[int, int]]:
    return [(int(e), int(s)) for b in batches for e, s in zip(b["episode"], b["step"], strict=True)]


def test_tensors_are_the_arrays(windows: Windows) -> None:
    from teleopen.hub.train.torch import TorchWindows

    dataset = TorchWindows(windows)
    assert len(dataset) == len(windows)
    for name, values in windows[50].items():
        np.testing.assert_array_equal(dataset[50][name].numpy(), values)
    batch = next(iter(torch.utils.data.DataLoader(dataset, batch_size=4)))
    np.testing.assert_array_equal(batch[CAMERA][2].numpy(), windows[2][CAMERA])
    assert batch[CAMERA].shape == (4, 2, 3, 48, 64)


@pytest.mark.parametrize("context", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_share_an_epoch(windows: Windows, context: str) -> None:
    in_fresh_process(_share, windows, context)


def _share(windows: Windows, context: str) -> None:
    from teleopen.hub.train.torch import TorchLoader

    loader = TorchLoader(windows.loader(8, Blocks(4, 4)), workers=2, multiprocessing_context=context)
    batches = list(loader)
    assert len(batches) == len(loader)
    assert sorted(drawn(batches)) == sorted(drawn(windows.loader(8, Blocks(4, 4), threads=0)))
    by_number = {int(b["batch"]): b for b in batches}
    for number, batch in enumerate(windows.loader(8, Blocks(4, 4), threads=0)):
        np.testing.assert_array_equal(by_number[number][CAMERA].numpy(), batch[CAMERA])


@pytest.mark.parametrize("context", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_pictures_of_workers_are_seen_where_they_lie(windows: Windows, context: str) -> None:
    in_fresh_process(_see, windows, context)


def _see(windows: Windows, context: str) -> None:
    copied: list[str] = []
    kept = []
    batches = _Flipped(windows.loader(64, Permuted(3)))
    for batch in torch.utils.data.DataLoader(
        batches, batch_size=None, num_workers=2, multiprocessing_context=context
    ):
        assert type(batch) is dict
        copied += [name for name, values in batch.items() if values.is_shared()]
        kept.append(batch)
    pictures = [] if IS_AVAILABLE else [CAMERA]
    assert set(copied) == {"flipped", *pictures}, "PyTorch copied what it need not, or not what it must"
    by_number = {int(b["batch"]): b for b in kept}
    for number, batch in enumerate(windows.loader(64, Permuted(3), threads=0)):
        for name, values in batch.items():
            np.testing.assert_array_equal(by_number[number][name].numpy(), values)
        np.testing.assert_array_equal(by_number[number]["flipped"].numpy(), batch[CAMERA][:, ::-1])


class _Flipped(torch.utils.data.IterableDataset):  # type: ignore[misc,name-defined]
    """A dataset around ours that adds a tensor of its own, in the worker."""

    def __init__(self, loader: Any) -> None:
        from teleopen.hub.train.torch import TorchBatches

        self.inner = TorchBatches(loader)

    def __iter__(self) -> Any:
        for batch in self.inner:
            batch["flipped"] = batch[CAMERA].flip(1)
            yield batch


@pytest.mark.parametrize("order", [Permuted(3), Blocks(4, 4, 3)])
def test_an_epoch_goes_on_with_another_number_of_workers(windows: Windows, order: Order) -> None:
    in_fresh_process(_go_on, windows, order)


def _go_on(windows: Windows, order: Order) -> None:
    from teleopen.hub.train.torch import TorchLoader

    whole = drawn(windows.loader(8, order, threads=0))
    found, state = [], windows.loader(8, order).state_dict()
    for workers, take in ((2, 5), (0, 2), (3, 4), (1, 100)):
        loader = TorchLoader(windows.loader(8, order), workers=workers)
        loader.load_state_dict(state)
        batches = iter(loader)
        found += drawn(islice(batches, take))
        state = loader.state_dict()
        del batches
    assert sorted(found) == sorted(whole)
    assert len(set(found)) == len(found)
    assert state["epoch"] == 1


def test_torchdata_keeps_the_state_of_each_worker(windows: Windows) -> None:
    pytest.importorskip("torchdata")
    in_fresh_process(_keep_states, windows)


def _keep_states(windows: Windows) -> None:
    import torchdata.stateful_dataloader as stateful
    from teleopen.hub.train.torch import TorchBatches

    def loader() -> Any:
        batches = TorchBatches(windows.loader(8, Permuted(1)))
        return stateful.StatefulDataLoader(batches, batch_size=None, num_workers=2)

    first = loader()
    begun = iter(first)
    found = drawn(islice(begun, 6))
    state = first.state_dict()
    del begun
    second = loader()
    second.load_state_dict(state)
    found += drawn(second)
    assert sorted(found) == sorted(drawn(windows.loader(8, Permuted(1), threads=0)))
    assert len(set(found)) == len(found)
