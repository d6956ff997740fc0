"""Statistics are those that sorting everything would give."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from teleopen.hub import create_store
from teleopen.hub.train import Dataset, WindowError, open_dataset
from teleopen.hub.train.statistics import statistics_of

from tests.episodes import Recipe, make, values_of

DTYPES = [np.float32, np.float64, np.int64, np.uint8, np.bool_, np.int16]
SHARES = (0.0, 0.01, 0.25, 0.5, 0.9, 1.0)


def tables(dtype: Any) -> st.SearchStrategy[NDArray[Any]]:
    bounds: dict[str, Any] = {}
    if dtype is np.int64:
        bounds = {"min_value": -(2**50), "max_value": 2**50}
    elif np.issubdtype(dtype, np.floating):
        bounds = {"min_value": -(2.0**60), "max_value": 2.0**60}
    elements = hnp.from_dtype(np.dtype(dtype), **bounds)
    if np.issubdtype(dtype, np.floating):
        elements |= st.sampled_from([np.nan, np.inf, -np.inf])
    return hnp.arrays(dtype, st.tuples(st.integers(1, 60), st.integers(1, 3)), elements=elements)


@given(values=st.sampled_from(DTYPES).flatmap(tables), cuts=st.lists(st.integers(0, 60), max_size=3))
def test_all_of_it_agrees_with_numpy_however_it_is_cut(values: NDArray[Any], cuts: list[int]) -> None:
    def blocks() -> Iterator[NDArray[Any]]:
        yield from (part for part in np.split(values, sorted(min(c, len(values)) for c in cuts)) if len(part))

    good = np.isfinite(values)
    if not good.any():
        with pytest.raises(WindowError, match="no finite"):
            statistics_of(blocks, values.shape[1], shares=SHARES)
        return
    got = statistics_of(blocks, values.shape[1], shares=SHARES)
    for axis in range(values.shape[1]):
        column = values[good[:, axis], axis].astype(np.float64)
        assert got.count[axis] == len(column)
        assert got.not_finite[axis] == len(values) - len(column)
        if not len(column):
            assert np.isnan(got.mean[axis])
            continue
        assert (got.min[axis], got.max[axis]) == (column.min(), column.max())
        scale = max(1e-300, float(np.abs(column).max()))
        assert abs(got.mean[axis] - column.mean()) <= 1e-13 * scale
        assert abs(got.std[axis] - column.std()) <= 1e-7 * scale
        for share in SHARES:
            exact = np.quantile(column, share, method="inverted_cdf")
            assert got.quantiles[share][axis] == exact


def test_a_dataset_tells_the_statistics_of_its_streams(tmp_path_factory: pytest.TempPathFactory) -> None:
    made = create_store(tmp_path_factory.mktemp("statistics") / "store")
    steps = (50, 30)
    made.write(make(seed=n, steps=length, cameras=(), imu=False) for n, length in enumerate(steps))
    dataset: Dataset = open_dataset(made)
    whole = np.concatenate(
        [values_of(Recipe(seed=n, steps=s), "action", 0, s) for n, s in enumerate(steps)]
    ).astype(np.float64)
    got = dataset.statistics("action")
    np.testing.assert_allclose(got.mean, whole.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(got.std, whole.std(axis=0), rtol=1e-12)
    assert got.to_document()["quantiles"]["0.5"] == got.quantiles[0.5].tolist()
    with pytest.raises(WindowError, match="low-dimensional"):
        dataset.statistics("observation.depth.top")
