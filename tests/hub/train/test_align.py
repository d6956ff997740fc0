"""Which sample stands for a time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from teleopen.hub.train.align import between, chosen

times_of = st.lists(st.integers(0, 10**9), min_size=1, max_size=40, unique=True).map(
    lambda told: np.array(sorted(told), np.int64)
)


@given(times=times_of, wanted=st.lists(st.integers(-(10**8), 11 * 10**8), min_size=1, max_size=20))
def test_previous_is_the_latest_that_was_known(
    times: np.ndarray[tuple[int], np.dtype[np.int64]], wanted: list[int]
) -> None:
    index, pad, part = chosen(times, np.array(wanted), "previous", None)
    assert not part.any()
    for time, at, padded in zip(wanted, index, pad, strict=True):
        known = [k for k, t in enumerate(times) if t <= time]
        assert at == (known[-1] if known else 0)
        assert padded or known


@given(times=times_of, wanted=st.lists(st.integers(0, 10**9), min_size=1, max_size=20))
def test_nearest_is_nearest_and_tolerance_is_kept(
    times: np.ndarray[tuple[int], np.dtype[np.int64]], wanted: list[int]
) -> None:
    index, pad, _ = chosen(times, np.array(wanted), "nearest", 1000)
    for time, at, padded in zip(wanted, index, pad, strict=True):
        least = min(abs(int(t) - time) for t in times)
        assert abs(int(times[at]) - time) == least
        assert padded == (least > 1000)


@given(times=times_of, wanted=st.lists(st.integers(0, 10**9), min_size=1, max_size=20))
def test_linear_agrees_with_numpy(
    times: np.ndarray[tuple[int], np.dtype[np.int64]], wanted: list[int]
) -> None:
    values = np.sin(times / 1e8)
    index, _, part = chosen(times, np.array(wanted), "linear", None)
    right = np.minimum(index + 1, len(times) - 1)
    got = between(values[index], values[right], part, spherical=False)
    np.testing.assert_allclose(got, np.interp(wanted, times, values), atol=1e-12)


def test_what_lies_outside_is_padding_with_the_nearest_end() -> None:
    times = np.array([100, 200, 300, 400])
    index, pad, _ = chosen(times, np.array([50, 100, 399, 449, 451]), "previous", None)
    assert index.tolist() == [0, 0, 2, 3, 3]
    assert pad.tolist() == [True, False, False, False, False]
    _, pad, _ = chosen(times, np.array([551]), "previous", None)
    assert pad.all()


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_slerp_turns_at_an_even_pace_the_short_way(sign: float) -> None:
    def turned(angle: float) -> list[float]:
        return [0.0, 0.0, np.sin(angle / 2), np.cos(angle / 2)]

    left, right = np.array([turned(0.2)]), sign * np.array([turned(1.4)])
    got = between(left, right, np.array([0.25]), spherical=True)
    np.testing.assert_allclose(got[0], turned(0.5), atol=1e-12)
    same = between(left, left, np.array([0.3]), spherical=True)
    np.testing.assert_allclose(same, left, atol=1e-12)
