"""PyTorch datasets over windows: one to index, and one that gives whole batches and resumes exactly.

In a `DataLoader`'s workers each decodes its own batches with one thread; fork, forkserver and spawn all work.
Where the system can, pictures of a worker are not sent: its parent sees them where they lie.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from ...schemas import Array
from .loader import Loader
from .memory import LEAST_BYTES, MEMORY
from .plan import Batch
from .progress import Progress
from .shared import IS_AVAILABLE, SharedMemory
from .windows import Windows

Tensors = dict[str, torch.Tensor]

_SHARED_BYTES = 512 << 20
"""Of a worker's batches that wait, are used or are being made."""


def tensors(batch: Batch) -> Tensors:
    """Return the arrays of a batch as tensors that share their memory."""
    return {name: torch.from_numpy(np.asarray(values)) for name, values in batch.items()}


class _Batch(dict[str, torch.Tensor]):
    """A worker's batch. What arrives at the other end of a queue is a dict of tensors."""

    def __init__(self, batch: Tensors, memory: SharedMemory) -> None:
        super().__init__(batch)
        self._memory = memory

    def __copy__(self) -> _Batch:
        """Return another dict of the same tensors."""
        return _Batch(self, self._memory)

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrived, ({name: self._sent(values) for name, values in self.items()},)

    def _sent(self, values: Any) -> Any:
        """Return what stands for a tensor: where it lies, its content if that is little, or itself."""
        if type(values) is not torch.Tensor or values.device.type != "cpu" or values.requires_grad:
            return values
        array = values.numpy()
        if where := self._memory.handed(array):
            return _Sent(where)
        return _Sent(partial(np.asarray, array)) if array.nbytes < LEAST_BYTES else values


class _Sent(NamedTuple):
    """A tensor on its way."""

    array: Callable[[], Array]


def _arrived(sent: Mapping[str, Any]) -> Tensors:
    """Return the tensors of a worker's batch, in the process that it was sent to."""
    return {
        name: torch.from_numpy(values.array()) if isinstance(values, _Sent) else values
        for name, values in sent.items()
    }


def _here(windows: Windows) -> Windows:
    """Return windows whose connections are this process's own: those of a parent break when it forks."""
    return windows.reopened() if windows.shelf.is_remote else windows


class TorchWindows(Dataset[Tensors]):
    """Windows by number, for samplers of your own. A batch of indices is read at once."""

    def __init__(self, windows: Windows) -> None:
        self.windows, self._worker = windows, -1

    def __len__(self) -> int:
        """Return the number of windows."""
        return len(self.windows)

    def __getitem__(self, index: int) -> Tensors:
        """Return one window."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Tensors]:
        """Return some windows, each chunk they need read once: what `DataLoader` calls for a batch."""
        self._settle()
        episodes, anchors = self.windows.located(indices)
        batch = tensors(self.windows.batch(episodes, anchors))
        return [{name: values[at] for name, values in batch.items()} for at in range(len(indices))]

    def _settle(self) -> None:
        info = get_worker_info()
        if info is not None and self._worker != info.id:
            self.windows, self._worker = _here(self.windows), info.id


class TorchBatches(IterableDataset[Tensors]):
    """Whole batches of a loader's order, for ``DataLoader(dataset, batch_size=None, num_workers=N)``.

    Each batch has its number in the epoch under ``batch``. `TorchLoader` uses it to resume with any number of
    workers; torchdata's ``StatefulDataLoader`` keeps each worker's state through `state_dict`, and resumes
    with the same number of them.
    """

    def __init__(self, loader: Loader) -> None:
        self.loader, self._mine = loader, set[int]()
        self._shared: SharedMemory | None = None

    def __iter__(self) -> Iterator[Tensors]:
        """Yield this worker's batches of the epoch that are left."""
        info = get_worker_info()
        if info is None:
            yield from self._part(self.loader, 0, 1)
            return
        if IS_AVAILABLE and self._shared is None:
            self._shared = SharedMemory(_SHARED_BYTES)
        memory = self._shared or MEMORY
        loader = self.loader.within(_here(self.loader.schedule.windows), threads=0, memory=memory)
        for batch in self._part(loader, info.id, info.num_workers):
            yield _Batch(batch, self._shared) if self._shared else batch

    def _part(self, loader: Loader, part: int, parts: int) -> Iterator[Tensors]:
        for number, batch in loader.part(part, parts):
            if number not in self._mine:
                self._mine.add(number)
                yield {**tensors(batch), "batch": torch.tensor(number)}
        self._mine.clear()

    def state_dict(self) -> dict[str, Any]:
        """Return what of its part this worker has delivered."""
        return {"loader": self.loader.state_dict(), "mine": sorted(self._mine)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where this worker was."""
        self.loader.load_state_dict(state["loader"])
        self._mine = set(state["mine"])


class TorchLoader:
    """A `DataLoader` over whole batches whose state any number of workers can go on from.

    Parameters
    ----------
    loader
        Order, batch size and rank; where it is, is where this begins.
    workers
        Processes that read; 0: threads of this one.
    options
        Of `DataLoader`, such as ``prefetch_factor``, ``multiprocessing_context``, ``pin_memory``.
    """

    def __init__(self, loader: Loader, workers: int = 0, **options: Any) -> None:
        self.loader, self.workers, self.options = loader, workers, options

    def __len__(self) -> int:
        """Return the number of batches of a whole epoch."""
        return len(self.loader)

    def __iter__(self) -> Iterator[Tensors]:
        """Yield the batches of the epoch that are not delivered yet, then turn to the next epoch."""
        loader = self.loader
        for batch in DataLoader(
            TorchBatches(loader), batch_size=None, num_workers=self.workers, **self.options
        ):
            loader.progress.note(int(batch["batch"]))
            yield batch
        loader.epoch, loader.progress = loader.epoch + 1, Progress()

    def state_dict(self) -> dict[str, Any]:
        """Return which batches were delivered, as plain numbers."""
        return self.loader.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where another loader was, whatever its number of workers."""
        self.loader.load_state_dict(state)
