"""Windows are what slicing the plain arrays gives, whatever is asked for and from wherever."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from teleopen.hub import WriteOptions, create_store
from teleopen.hub.store import Store
from teleopen.hub.train import (
    Blocks,
    Dataset,
    Order,
    Permuted,
    Replaced,
    Sequential,
    Want,
    WindowError,
    open_dataset,
)
from teleopen.schemas import DamageError, NotFoundError

from tests.episodes import Recipe, imu_times, make, values_of

STEPS = (70, 41, 9)
CAMERA = "observation.images.top"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    made = create_store(tmp_path_factory.mktemp("train") / "store")
    made.write(
        (make(seed=n, steps=steps) for n, steps in enumerate(STEPS)),
        WriteOptions(profile="lossless", segment_episodes=2),
    )
    return made


@pytest.fixture(scope="module")
def dataset(store: Store) -> Dataset:
    return open_dataset(store)


@cache
def truth(number: int, stream: str) -> NDArray[Any]:
    recipe = Recipe(seed=number, steps=STEPS[number])
    length = recipe.imu_steps if stream == "imu.accel" else recipe.steps
    return values_of(recipe, stream, 0, length)


def padded(values: NDArray[Any], index: Sequence[int]) -> tuple[NDArray[Any], list[bool]]:
    inside = np.clip(index, 0, len(values) - 1)
    return values[inside], [bool(a != b) for a, b in zip(index, inside, strict=True)]


offsets = st.lists(st.integers(-12, 12), min_size=1, max_size=5)


@settings(deadline=None, max_examples=30)
@given(data=st.data(), asked=st.fixed_dictionaries({CAMERA: offsets, "action": offsets, "phase": offsets}))
def test_windows_by_steps_are_slices_with_padding(
    dataset: Dataset, data: st.DataObject, asked: dict[str, list[int]]
) -> None:
    windows = dataset.windows(asked)
    assert len(windows) == sum(STEPS)
    episodes = data.draw(st.lists(st.integers(0, 2), min_size=1, max_size=6))
    anchors = [data.draw(st.integers(0, STEPS[e] - 1)) for e in episodes]
    batch = windows.batch(episodes, anchors)
    assert batch["episode"].tolist() == episodes
    assert batch["step"].tolist() == anchors
    for name, steps in asked.items():
        for row, (episode, anchor) in enumerate(zip(episodes, anchors, strict=True)):
            values, pad = padded(truth(episode, name), [anchor + step for step in steps])
            got = batch[name][row]
            if name == CAMERA:
                got = got.transpose(0, 2, 3, 1)
            np.testing.assert_array_equal(got, values)
            assert batch[f"{name}.pad"][row].tolist() == pad


@settings(deadline=None, max_examples=25)
@given(
    episode=st.integers(0, 2), data=st.data(), seconds=st.lists(st.floats(-0.3, 0.3), min_size=1, max_size=4)
)
def test_windows_across_clocks_take_what_was_known_at_the_time(
    dataset: Dataset, episode: int, data: st.DataObject, seconds: list[float]
) -> None:
    anchor = data.draw(st.integers(0, STEPS[episode] - 1))
    wants = {"action": Want(steps=(0,)), "imu.accel": Want(seconds=tuple(seconds))}
    batch = dataset.windows(wants).batch([episode], [anchor])
    times = imu_times(Recipe(seed=episode, steps=STEPS[episode]))
    now = int(batch["time_ns"][0])
    for k, offset in enumerate(seconds):
        at = int(np.searchsorted(times, now + round(offset * 1e9), side="right")) - 1
        np.testing.assert_array_equal(batch["imu.accel"][0, k], truth(episode, "imu.accel")[max(at, 0)])
        assert at >= 0 or batch["imu.accel.pad"][0, k]


LOW_DIM = ("observation.state", "action", "phase", "imu.accel")


@settings(deadline=None, max_examples=40)
@given(
    data=st.data(),
    steps=offsets,
    streams=st.lists(st.sampled_from(LOW_DIM), min_size=1, max_size=4, unique=True),
    align=st.sampled_from(["previous", "nearest"]),
)
def test_streams_are_put_side_by_side_each_as_it_would_be_alone(
    dataset: Dataset, data: st.DataObject, steps: list[int], streams: list[str], align: Any
) -> None:
    want = {"steps": tuple(steps), "align": align}
    wants = {"action": Want(**want), "all": Want(**want, streams=tuple(streams))}
    windows = dataset.windows(wants | {stream: Want(**want) for stream in streams}, clock="steps")
    episodes = data.draw(st.lists(st.integers(0, 2), min_size=1, max_size=4))
    anchors = [data.draw(st.integers(0, STEPS[e] - 1)) for e in episodes]
    batch = windows.batch(episodes, anchors)
    slices = windows.slices("all")
    assert list(slices) == streams
    assert batch["all"].dtype == np.result_type(*(batch[stream].dtype for stream in streams))
    assert batch["all"].shape[2] == max(part.stop for part in slices.values())
    for stream, part in slices.items():
        alone = batch[stream].reshape(len(episodes), len(steps), -1)
        np.testing.assert_array_equal(batch["all"][..., part], alone)
    pads = np.stack([batch[f"{stream}.pad"] for stream in streams])
    np.testing.assert_array_equal(batch["all.pad"], pads.any(0))


def test_only_numbers_are_put_side_by_side(dataset: Dataset) -> None:
    with pytest.raises(WindowError, match="only low-dimensional streams"):
        dataset.windows({"state": Want(steps=(0,), streams=("action", CAMERA))})
    with pytest.raises(NotFoundError, match="no stream 'state'"):
        dataset.windows({"all": Want(steps=(0,), streams=("action", "state"))})
    assert dataset.windows({"action": [0]}).slices("action") == {}


def test_a_rate_makes_its_own_anchors(dataset: Dataset) -> None:
    windows = dataset.windows({"action": [0, 1], "imu.accel": Want(steps=(0,), align="linear")}, rate_hz=10)
    assert len(windows) == sum(int((steps - 1) / 3) + 1 for steps in STEPS)
    batch = windows.batch([0, 0], [0, 5])
    assert batch["time_ns"].tolist() == [0, 500_000_000]
    np.testing.assert_array_equal(batch["action"][1], truth(0, "action")[[15, 18]])
    times, values = imu_times(Recipe(seed=0, steps=70)), truth(0, "imu.accel")
    wanted = [np.interp(500_000_000, times, values[:, axis]) for axis in range(3)]
    np.testing.assert_allclose(batch["imu.accel"][1, 0], wanted)


def test_pictures_come_in_the_form_that_is_asked_for(dataset: Dataset) -> None:
    def drawn(**form: Any) -> NDArray[Any]:
        batch = dataset.windows({CAMERA: Want(steps=(0,), **form)}).batch([0], [7])
        return np.asarray(batch[CAMERA][0, 0])

    whole = truth(0, CAMERA)[7]
    np.testing.assert_array_equal(drawn(layout="hwc"), whole)
    np.testing.assert_array_equal(drawn(), whole.transpose(2, 0, 1))
    np.testing.assert_array_equal(drawn(layout="hwc", crop=(8, 16, 20, 30)), whole[8:28, 16:46])
    np.testing.assert_allclose(drawn(layout="hwc", dtype="float32"), whole / 255, atol=1e-6)
    half = drawn(layout="hwc", size=(24, 32))
    means = whole.reshape(24, 2, 32, 2, 3).mean((1, 3))
    assert np.abs(half - means).mean() < 2
    part = drawn(layout="hwc", crop=(0, 0, 24, 32), size=(12, 16))
    assert np.abs(part.astype(float) - means[:12, :16]).mean() < 4


def test_planes_are_given_as_they_are_coded(tmp_path_factory: pytest.TempPathFactory) -> None:
    made = create_store(tmp_path_factory.mktemp("planes") / "store")
    made.write([make(seed=1, steps=9)])
    windows = open_dataset(made).windows({CAMERA: Want(steps=(0,), layout="yuv420")})
    planes = windows.batch([0], [3])[CAMERA][0, 0]
    assert planes.shape == (48 * 3 // 2, 64)
    rgb = open_dataset(made).windows({CAMERA: Want(steps=(0,), layout="hwc")}).batch([0], [3])[CAMERA][0, 0]
    grey = rgb.astype(float) @ [0.299, 0.587, 0.114]
    assert np.abs(planes[:48].astype(float) - (grey * 219 / 255 + 16)).mean() < 3


@pytest.mark.parametrize("order", [Sequential(), Permuted(4), Blocks(4, 3, 4), Replaced(4)])
@pytest.mark.parametrize("threads", [0, 2])
def test_a_loader_gives_each_batch_of_the_order_once(dataset: Dataset, order: Order, threads: int) -> None:
    windows = dataset.windows({"action": range(3), CAMERA: [-1, 0]})
    loader = windows.loader(6, order, threads=threads)
    batches = list(loader)
    assert len(batches) == len(loader) == -(-sum(STEPS) // 6)
    drawn = np.concatenate([np.stack([b["episode"], b["step"]], 1) for b in batches])
    wanted = np.stack(order.draw(np.arange(sum(STEPS)), 0, windows.space), 1)
    if isinstance(order, Replaced):
        np.testing.assert_array_equal(drawn, wanted)
    else:
        assert sorted(drawn.tolist()) == sorted(wanted.tolist())
    again = np.concatenate([b["step"] for b in loader])
    assert loader.epoch == 2
    assert isinstance(order, Sequential) or again.tolist() != drawn[:, 1].tolist()


@settings(deadline=None, max_examples=40)
@given(
    ranks=st.integers(1, 4),
    size=st.sampled_from([1, 3, 6, 12]),
    order=st.sampled_from([Permuted(2), Blocks(3, 4, 2), Sequential()]),
    drop=st.booleans(),
)
def test_ranks_share_an_epoch_without_overlap(
    dataset: Dataset, ranks: int, size: int, order: Order, drop: bool
) -> None:
    windows = dataset.windows({"action": [0]})
    drawn: list[tuple[int, int]] = []
    lengths = set()
    for rank in range(ranks):
        loader = windows.loader(size, order, rank=rank, ranks=ranks, drop_last=drop, threads=0)
        batches = list(loader)
        lengths.add(len(batches))
        for batch in batches:
            drawn += zip(batch["episode"].tolist(), batch["step"].tolist(), strict=True)
    assert len(lengths) == 1
    assert len(set(drawn)) == len(drawn)
    least = sum(STEPS) // ranks // size * size * ranks if drop else sum(STEPS) // ranks * ranks
    assert len(drawn) == least


@settings(deadline=None, max_examples=40)
@given(
    data=st.data(),
    order=st.sampled_from([Permuted(1), Blocks(3, 4, 1), Sequential(), Replaced(1)]),
    size=st.sampled_from([2, 4, 12]),
)
def test_an_epoch_goes_on_anywhere_with_any_number_of_workers(
    dataset: Dataset, data: st.DataObject, order: Order, size: int
) -> None:
    windows = dataset.windows({"action": [0]})
    whole = [b["step"].tolist() for b in windows.loader(size, order, threads=0)]
    delivered: dict[int, list[int]] = {}
    state = windows.loader(size, order, threads=0).state_dict()
    while len(delivered) < len(whole):
        loader = windows.loader(size, order, threads=0)
        loader.load_state_dict(pickle.loads(pickle.dumps(state)))
        workers = data.draw(st.integers(1, 4))
        parts = [loader.part(worker, workers) for worker in range(workers)]
        left = data.draw(st.integers(1, len(whole)))
        while parts and left:
            part = parts.pop(0)
            found = next(part, None)
            if found is not None:
                number, batch = found
                assert number not in delivered
                delivered[number] = batch["step"].tolist()
                loader.progress.note(number)
                parts.append(part)
                left -= 1
        state = loader.state_dict()
    assert [delivered[number] for number in range(len(whole))] == whole


def test_windows_cross_processes(dataset: Dataset) -> None:
    windows = dataset.windows({"action": range(3), CAMERA: [0]})
    copy = pickle.loads(pickle.dumps(windows))
    for name, values in windows.batch([1], [5]).items():
        np.testing.assert_array_equal(copy.batch([1], [5])[name], values)


def test_stores_are_mixed_by_their_shares(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("mixture")
    for name, seed, steps in (("small", 1, 20), ("large", 2, 200)):
        create_store(folder / name).write([make(seed=seed, steps=steps, cameras=(), depth=False)])
    mixed = open_dataset({str(folder / "small"): 0.5, str(folder / "large"): 0.5})
    batch = next(iter(mixed.windows({"action": [0]}).loader(4000, Replaced(1, 4000), threads=0)))
    assert np.mean(batch["episode"] == 0) == pytest.approx(0.5, abs=0.05)
    assert len(open_dataset([folder / "small", folder / "large"])) == 2


def test_episodes_are_chosen_by_their_headers_and_split_by_their_ids(dataset: Dataset) -> None:
    kept = dataset.filter(lambda episode: episode.instructions == ("do task 1",))
    assert [e.instructions for e in kept] == [("do task 1",)]
    batch = kept.windows({"action": [0]}).batch([0], [3])
    np.testing.assert_array_equal(batch["action"][0], truth(1, "action")[3:4])
    parts = dataset.split({"train": 0.6, "test": 0.4}, seed=3)
    ids = [sorted(place.id for place in part.places) for part in parts.values()]
    assert sorted(ids[0] + ids[1]) == sorted(place.id for place in dataset.places)


def test_what_cannot_be_drawn_is_told(dataset: Dataset) -> None:
    with pytest.raises(NotFoundError, match=r"no stream 'nothing'.*observation\.state"):
        dataset.windows({"nothing": [0]})
    with pytest.raises(NotFoundError, match="no episode"):
        dataset.subset([]).windows({"action": [0]})
    with pytest.raises(WindowError, match="real numbers"):
        dataset.windows({"phase": Want(steps=(0,), align="linear")})
    with pytest.raises(WindowError, match="quaternions"):
        dataset.windows({"action": Want(steps=(0,), align="slerp")})
    with pytest.raises(WindowError, match="does not lie"):
        dataset.windows({CAMERA: Want(steps=(0,), crop=(40, 0, 40, 10))}).batch([0], [0])
    with pytest.raises(WindowError, match="multiple"):
        dataset.windows({"action": [0]}).loader(5, Blocks(4, 3))
    with pytest.raises(IndexError):
        dataset.windows({"action": [0]})[10_000]


def test_a_damaged_chunk_raises_or_is_skipped_and_counted(tmp_path_factory: pytest.TempPathFactory) -> None:
    made = create_store(tmp_path_factory.mktemp("damage") / "store")
    made.write([make(seed=1, steps=70)])
    reader, _, _ = made.array("0", CAMERA)
    key, start, stop = reader.place(1)
    path = made.storage.local(key)
    assert path is not None
    raw = bytearray(path.read_bytes())
    raw[(start + stop) // 2] ^= 0xFF
    path.write_bytes(raw)
    windows = open_dataset(made.url).windows({CAMERA: [0], "action": [0]})
    with pytest.raises(DamageError, match=r"chunk 1"):
        list(windows.loader(10, Sequential()))
    loader = windows.loader(10, Sequential(), skip_damage=True)
    steps = np.concatenate([batch["step"] for batch in loader])
    assert steps.tolist() == [*range(32), *range(64, 70)]
    assert loader.skipped.windows == 32
    assert "chunk 1" in loader.skipped.why
