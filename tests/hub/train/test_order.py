"""Orders: every window once, the same for a seed, and mixed as promised."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from teleopen.hub.train import Blocks, Order, Permuted, Replaced, Sequential
from teleopen.hub.train.order import Space, permuted

from tests.measure import peak_memory

lengths_of = st.lists(st.integers(1, 150), min_size=1, max_size=20).map(lambda told: np.array(told, np.int64))


def whole(order: Order, space: Space, epoch: int = 0) -> list[tuple[int, int]]:
    episodes, anchors = order.draw(np.arange(order.size(space.lengths)), epoch, space)
    return list(zip(episodes.tolist(), anchors.tolist(), strict=True))


@given(size=st.integers(1, 3000), key=st.integers(0, 2**60))
def test_a_permutation_sends_each_place_to_another(size: int, key: int) -> None:
    assert sorted(permuted(np.arange(size), size, key).tolist()) == list(range(size))


@given(
    lengths=lengths_of,
    order=st.one_of(
        st.just(Sequential()),
        st.builds(Permuted, st.integers(0, 99)),
        st.builds(Blocks, st.integers(1, 9), st.integers(1, 40), st.integers(0, 99)),
    ),
    chunk=st.sampled_from([1, 16, 32, 64]),
    epoch=st.integers(0, 5),
)
def test_an_epoch_has_every_window_once(
    lengths: np.ndarray[tuple[int], np.dtype[np.int64]], order: Order, chunk: int, epoch: int
) -> None:
    drawn = whole(order, Space(lengths, chunk), epoch)
    wanted = {(episode, anchor) for episode, length in enumerate(lengths) for anchor in range(length)}
    assert len(drawn) == len(wanted)
    assert set(drawn) == wanted


@given(lengths=lengths_of, seed=st.integers(0, 99), data=st.data())
def test_any_position_can_be_gone_to(
    lengths: np.ndarray[tuple[int], np.dtype[np.int64]], seed: int, data: st.DataObject
) -> None:
    for order in (Permuted(seed), Blocks(4, 8, seed), Replaced(seed)):
        space = Space(lengths)
        every = whole(order, space)
        at = data.draw(st.integers(0, len(every) - 1))
        episode, anchor = order.draw(np.array([at]), 0, space)
        assert (int(episode[0]), int(anchor[0])) == every[at]


@pytest.mark.parametrize("order", [Permuted, Blocks, Replaced])
def test_seeds_and_epochs_differ(order: type[Permuted]) -> None:
    space = Space(np.full(40, 300))
    assert whole(order(seed=1), space) == whole(order(seed=1), space)
    assert whole(order(seed=1), space) != whole(order(seed=2), space)
    assert whole(order(seed=1), space, 0) != whole(order(seed=1), space, 1)


def test_a_permutation_is_even() -> None:
    """Each tenth of the epoch holds about a tenth of each episode."""
    space = Space(np.full(50, 400))
    drawn = np.array([episode for episode, _ in whole(Permuted(3), space)]).reshape(10, -1)
    counts = np.stack([np.bincount(part, minlength=50) for part in drawn])
    assert counts.min() > 20
    assert counts.max() < 65


def test_blocks_visit_a_chunk_for_so_many_windows_and_mix_as_they_say() -> None:
    space, order = Space(np.full(64, 320), 32), Blocks(windows=4, buffer=8, seed=1)
    drawn = whole(order, space)
    block = order.windows * order.buffer
    same, pairs = 0, 0
    for start in range(0, len(drawn) // block * block, block):
        chunks = [(episode, anchor // 32) for episode, anchor in drawn[start : start + block]]
        assert len(set(chunks)) <= order.buffer
        for left in range(block):
            same += sum(chunks[left] == chunks[right] for right in range(left))
            pairs += left
    promised = (order.windows - 1) / (block - 1)
    assert same / pairs == pytest.approx(promised, rel=0.1)


def test_replacement_keeps_to_the_weights() -> None:
    space = Space(np.array([100, 300]), weights=np.array([0.75 / 100, 0.25 / 300]))
    order = Replaced(seed=5, epoch_windows=20_000)
    episodes, anchors = order.draw(np.arange(20_000), 0, space)
    assert np.mean(episodes == 0) == pytest.approx(0.75, abs=0.02)
    for episode, length in enumerate((100, 300)):
        assert np.bincount(anchors[episodes == episode], minlength=length).min() > 0


def draw_from_many() -> None:
    space = Space(np.full(333_334, 300))
    for order in (Permuted(), Blocks()):
        order.draw(np.arange(64), 0, space)


def test_an_order_over_a_hundred_million_windows_costs_nothing_to_make() -> None:
    assert peak_memory(draw_from_many) < 50 << 20
