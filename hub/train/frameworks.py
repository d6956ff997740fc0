"""Batches for other frameworks: thin, and none of them is needed until it is asked for.

Arrays go over without a copy where the framework can take memory as it lies (DLPack); pictures in the
layout ``chw`` lie as ``hwc``, which TensorFlow copies.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

from ...schemas import MissingExtraError
from .loader import Loader
from .plan import Batch
from .windows import Windows


def _need(name: str, package: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtraError(f"this needs {name}: pip install '{package}'") from error


def jax_batches(loader: Loader, device: Any = None) -> Iterator[dict[str, Any]]:
    """Yield the loader's batches as JAX arrays, on ``device`` if one is given.

    Raises
    ------
    MissingExtraError
        If JAX is not installed.
    """
    jax = _need("jax", "jax")
    for batch in loader:
        yield {name: jax.device_put(np.ascontiguousarray(values), device) for name, values in batch.items()}


class GrainWindows:
    """A random access data source for ``grain.python.DataLoader`` or ``grain.MapDataset.source``.

    It has ``__len__`` and ``__getitem__`` and pickles, which is all that Grain asks of a source
    (google/grain: grain/_src/python/data_sources.py); sampling, sharding and resuming are Grain's own.
    """

    def __init__(self, windows: Windows) -> None:
        self.windows = windows

    def __len__(self) -> int:
        """Return the number of windows."""
        return len(self.windows)

    def __getitem__(self, index: Any) -> Batch:
        """Return one window as NumPy arrays."""
        return self.windows[int(index)]

    def __repr__(self) -> str:
        """Return what Grain writes into its checkpoints to know the source again."""
        return f"GrainWindows({len(self.windows)} windows of {', '.join(self.windows.wants)})"


def tensorflow_dataset(loader: Loader) -> Any:
    """Return a ``tf.data.Dataset`` of the loader's batches; the size of the last may be smaller.

    Raises
    ------
    MissingExtraError
        If TensorFlow is not installed.
    """
    tf = _need("tensorflow", "tensorflow")
    plan = loader.schedule.windows.plan([0], [0])
    example = plan.read(plan.fetch())
    signature = {
        name: tf.TensorSpec((None, *values.shape[1:]), tf.as_dtype(values.dtype))
        for name, values in example.items()
    }
    return tf.data.Dataset.from_generator(lambda: iter(loader), output_signature=signature)


def paddle_batches(loader: Loader) -> Iterator[dict[str, Any]]:
    """Yield the loader's batches as Paddle tensors.

    Raises
    ------
    MissingExtraError
        If PaddlePaddle is not installed.
    """
    paddle = _need("paddle", "paddlepaddle")
    for batch in loader:
        yield {name: paddle.to_tensor(np.ascontiguousarray(values)) for name, values in batch.items()}
