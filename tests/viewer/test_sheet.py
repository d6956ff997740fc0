"""The contact sheet shows what is there, reads no more than it shows, and takes whatever comes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from teleopen.schemas import (
    ActionContract,
    Array,
    Clock,
    Episode,
    Provenance,
    Rights,
    Stream,
    StreamSpec,
    episode_id,
    nominal_times,
)
from teleopen.schemas.episode import Event
from teleopen.viewer._draw import COMMANDED, OBSERVED, fitted, limits, short, width_of, wrapped
from teleopen.viewer.sheet import _nearest, sheet

from tests.test_cli import NASTY, OPEN_RIGHTS

Values = Callable[[NDArray[np.int64]], Array]
STEPS = 60
SECOND = 1_000_000_000


class Reads:
    """A stream that remembers what was read of it."""

    def __init__(self, spec: StreamSpec, values: Values, steps: int = STEPS) -> None:
        self.spec, self.values, self.asked = spec, values, list[tuple[int, int]]()
        self.stream = Stream(spec=spec, length=steps, read=self.read)

    def read(self, start: int, stop: int) -> Iterator[Array]:
        self.asked.append((start, stop))
        for at in range(start, stop, 7):
            yield self.values(np.arange(at, min(stop, at + 7))).astype(self.spec.np_dtype)


def grey_by_time(index: NDArray[np.int64]) -> Array:
    return np.broadcast_to((index * 4)[:, None, None, None], (len(index), 30, 40, 3))


CAMERA = Reads(
    StreamSpec(name="observation.images.top", kind="video", dtype="uint8", shape=(30, 40, 3)), grey_by_time
)


def state(name: str, *axes: str, **told: Any) -> StreamSpec:
    contract = ActionContract() if name.startswith("action") else None
    return StreamSpec(
        name=name, kind="low_dim", dtype="float64", shape=(len(axes),), axes=axes, contract=contract, **told
    )


def waves(index: NDArray[np.int64], count: int = 2) -> Array:
    return np.sin(index[:, None] / 9 + np.arange(count))


def episode(*streams: Reads, steps: int = STEPS, **told: Any) -> Episode:
    clock = Clock(
        name="steps", kind="nominal", declared_hz=20, length=steps, read=lambda: nominal_times(steps, 20)
    )
    return Episode(
        id=episode_id(["sheet"]),
        provenance=Provenance(format="made-up", converter="tests", converter_version="1"),
        clocks={"steps": clock},
        streams={one.spec.name: one.stream for one in streams},
        **told,
    )


def drawn(episode: Episode, tmp_path: Path, **options: Any) -> NDArray[np.uint8]:
    """Return the pixels of a sheet: (H, W, 3)."""
    path = tmp_path / "sheet.png"
    width, height = sheet(episode, path, **options)
    with Image.open(path) as image:
        assert (image.width, image.height) == (width, height)
        return np.asarray(image.convert("RGB"))


def holds(pixels: NDArray[np.uint8], colour: tuple[int, int, int]) -> bool:
    return bool(np.any(np.all(pixels == colour, axis=-1)))


def test_frames_are_evenly_spaced_in_time_and_no_other_is_read(tmp_path: Path) -> None:
    CAMERA.asked.clear()
    pixels = drawn(episode(CAMERA), tmp_path, columns=6)
    assert len(CAMERA.asked) == 6
    assert all(stop - start == 1 for start, stop in CAMERA.asked)
    shown = [start for start, _ in CAMERA.asked]
    assert shown == [5, 15, 25, 34, 44, 54]
    for column, index in enumerate(shown):
        x = 40 + int((column + 0.5) * 1520 / 6)
        assert (pixels[:, x] == index * 4).all(axis=-1).any()


def test_of_a_short_episode_each_frame_is_read_once(tmp_path: Path) -> None:
    camera = Reads(CAMERA.spec, CAMERA.values, steps=1)
    drawn(episode(camera, steps=1), tmp_path, columns=8)
    assert camera.asked == [(0, 1)]


def test_the_nearest_sample_is_taken() -> None:
    random = np.random.default_rng(3)
    times = np.sort(random.uniform(0, 10, 50))
    wanted = random.uniform(-1, 11, 200)
    distance = np.abs(times[_nearest(times, wanted)] - wanted)
    np.testing.assert_allclose(distance, np.abs(times[None] - wanted[:, None]).min(axis=1))


def test_state_and_command_share_a_panel(tmp_path: Path) -> None:
    observed = Reads(state("observation.state", "left_a", "right_a", unit=("rad",)), waves)
    commanded = Reads(state("action", "left_a", "right_a"), lambda i: waves(i) + 0.5)
    both = drawn(episode(observed, commanded), tmp_path)
    alone = drawn(episode(observed), tmp_path)
    assert holds(both, OBSERVED)
    assert holds(both, COMMANDED)
    assert not holds(alone, COMMANDED)
    assert both.shape == alone.shape


def test_a_long_stream_is_read_once_block_by_block(tmp_path: Path) -> None:
    steps = 50_000
    spike = Reads(state("observation.state", "a"), lambda i: waves(i, 1), steps=steps)
    drawn(episode(spike, steps=steps), tmp_path)
    assert spike.asked == [(0, steps)]


def test_open_is_green_and_closed_is_not(tmp_path: Path) -> None:
    closed = drawn(episode(CAMERA), tmp_path)
    opened = drawn(episode(CAMERA, rights=Rights.from_toml(OPEN_RIGHTS)), tmp_path)
    assert holds(opened, (224, 243, 232))
    assert not holds(closed, (224, 243, 232))


def test_depth_is_coloured_and_what_was_not_measured_is_grey(tmp_path: Path) -> None:
    spec = StreamSpec(
        name="observation.depth.top", kind="depth", dtype="float32", shape=(30, 40), unit=("m",)
    )

    def ramp(index: NDArray[np.int64]) -> Array:
        frames = np.broadcast_to(np.linspace(0.5, 2.5, 40), (len(index), 30, 40)).copy()
        frames[:, :10], frames[:, 10:12] = np.nan, 0
        return frames

    pixels = drawn(episode(Reads(spec, ramp)), tmp_path)
    assert holds(pixels, (226, 229, 233))
    strip = pixels[200:, 40:220]
    assert (strip[..., 2].astype(int) - strip[..., 0] > 60).any()
    assert (strip[..., 0].astype(int) - strip[..., 2] > 60).any()


def test_whatever_comes_is_drawn(tmp_path: Path) -> None:
    odd = [
        Reads(
            StreamSpec(name="observation.images.mono", kind="video", dtype="uint8", shape=(90, 20, 1)), _mono
        ),
        Reads(StreamSpec(name="observation.depth.blind", kind="depth", dtype="uint16", shape=(9, 9)), _blind),
        Reads(
            state("observation.state", "a", "b", "c"), lambda i: np.full((len(i), 3), [np.nan, np.inf, 7.0])
        ),
        Reads(StreamSpec(name="done", kind="low_dim", dtype="bool", shape=()), lambda i: i % 2 == 0),
        Reads(
            StreamSpec(name="pose", kind="low_dim", dtype="float32", shape=(4, 4)),
            lambda i: np.ones((len(i), 4, 4)),
        ),
        Reads(
            StreamSpec(name="skin", kind="low_dim", dtype="uint8", shape=(32, 32)),
            lambda i: np.ones((len(i), 32, 32)),
        ),
        Reads(state("action.base", *(f"axis {n} {NASTY}" for n in range(40))), lambda i: 1e9 * waves(i, 40)),
    ]
    events = (
        Event(kind="phase", start_ns=0, stop_ns=SECOND, text="把红色杯子放到架子上"),
        Event(kind="phase", start_ns=SECOND, stop_ns=99 * SECOND, text=NASTY),
        Event(kind="marker", start_ns=-SECOND, text="before it began"),
        *(Event(kind=f"kind {n}", start_ns=n) for n in range(9)),
    )
    told = episode(*odd, events=events, instructions=("Ünïcödé — " * 40, NASTY), embodiment="x" * 900)
    warned = replace(told.provenance, warnings=tuple(f"warning {n}" for n in range(5)))
    pixels = drawn(replace(told, provenance=warned), tmp_path, columns=3)
    assert pixels.shape[1] == 1600


def _mono(index: NDArray[np.int64]) -> Array:
    return np.broadcast_to(index[:, None, None, None], (len(index), 90, 20, 1))


def _blind(index: NDArray[np.int64]) -> Array:
    return np.zeros((len(index), 9, 9))


def test_a_text_is_cut_to_fit() -> None:
    for text in ("short", "a very long text that goes on and on", "没有空格的长文本" * 20, NASTY * 9, ""):
        for width in (10, 80, 300):
            assert width_of(fitted(text, 18, width), 18) <= width
            assert all(width_of(line, 18) <= width for line in wrapped(text, 18, width, 2))
            assert len(wrapped(text, 18, width, 2)) <= 2
    assert fitted("short\n text", 18, 500) == "short text"


def test_limits_hold_what_is_finite_and_are_never_empty() -> None:
    assert limits([np.array([np.nan, 1.0, 3.0]), np.array([-2.0])]) == (-2.0, 3.0)
    for values in ([], [np.nan], [0.0], [5.0, 5.0], [1e9], [np.inf]):
        low, high = limits([np.array(values, float)])
        assert low < high
    assert [short(v, 1.0) for v in (0.5, -0.0001, 123456789.0)] == ["0.50", "0.00", "1.2e+08"]
