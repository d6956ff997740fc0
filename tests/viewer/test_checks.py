"""Checks: planted faults are found where they are, and clean motion has none."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from teleopen.converters.registry import converter_for, read
from teleopen.schemas import ActionContract, ActionPart, Array, Episode, Event, Stream, StreamSpec, Times
from teleopen.viewer.checks import Limit, anomalies

from tests.viewer.made import episode_of

Rows = NDArray[np.float64]
RATE = 50
STEP_NS = 1_000_000_000 // RATE

JOINTS = ActionContract(parts=(ActionPart(start=0, stop=3, space="joint_position", mode="absolute"),))
STATE = StreamSpec(
    name="observation.state", kind="low_dim", dtype="float64", shape=(3,), unit=("rad",), axes=("a", "b", "c")
)
ACTION = replace(STATE, name="action", contract=JOINTS)
CAMERA = StreamSpec(name="observation.images.top", kind="video", dtype="uint8", shape=(48, 64, 3))


def smooth(seed: int, steps: int = 400, noise: float = 0.0) -> Rows:
    """Return positions (steps, 3) in rad that some sines below 1 Hz make: always in motion."""
    rng = np.random.default_rng(seed)
    time = np.arange(steps)[:, None, None] / RATE
    speeds, phases = rng.uniform(0.2, 1.0, (2, 3, 4))
    waves = rng.uniform(0.03, 0.1, (3, 4)) * np.sin(2 * np.pi * (speeds * time + phases))
    rows: Rows = waves.sum(axis=2) + rng.normal(0, noise, (steps, 3))
    return rows


def minimum_jerk(seed: int) -> Rows:
    """Return positions of a robot that goes from pose to pose with stops of up to 1 s between (Flash and
    Hogan, 1985)."""
    rng = np.random.default_rng(seed)
    parts, here = [], rng.uniform(-1, 1, 3)
    for _ in range(5):
        there = rng.uniform(-1, 1, 3)
        s = np.linspace(0, 1, int(rng.integers(30, 120)))[:, None]
        parts += [here + (there - here) * (10 * s**3 - 15 * s**4 + 6 * s**5)]
        parts += [np.repeat(there[None], int(rng.integers(1, 50)), axis=0)]
        here = there
    return np.concatenate(parts)


def found(episode: Episode, kind: str) -> list[Event]:
    return [event for event in anomalies(episode) if event.kind == f"anomaly.{kind}"]


def spans(event: Event, index: int) -> bool:
    """Tell whether an event holds at a sample."""
    return event.stop_ns is not None and event.start_ns <= index * STEP_NS < event.stop_ns


# ---------------------------------------------------------------- clean motion


@given(st.integers(0, 10_000), st.floats(0, 0.002))
def test_smooth_motion_with_the_noise_of_encoders_has_nothing_odd(seed: int, noise: float) -> None:
    state = smooth(seed, noise=noise)
    action = np.roll(state, -4, axis=0)
    action[-4:] = state[-1]
    assert anomalies(episode_of([(STATE, state), (ACTION, action)], rate_hz=RATE)) == []


@given(st.integers(0, 10_000))
def test_moves_with_stops_between_have_nothing_odd(seed: int) -> None:
    assert anomalies(episode_of([(STATE, minimum_jerk(seed))], rate_hz=RATE)) == []


# ---------------------------------------------------------------- numbers


@given(st.integers(0, 10_000), st.integers(20, 370), st.sampled_from([0, 1, 2]), st.floats(0.6, 3.0))
def test_a_step_that_no_motion_makes_is_a_jump_where_it_is(
    seed: int, at: int, axis: int, size: float
) -> None:
    state = smooth(seed)
    state[at:, axis] += size
    (jump,) = found(episode_of([(STATE, state)], rate_hz=RATE), "jump")
    assert (jump.start_ns, jump.stop_ns) == ((at - 1) * STEP_NS, at * STEP_NS)
    assert jump.attributes["axis"] == axis
    assert jump.attributes["unit"] == "rad"
    assert jump.attributes["value"] == pytest.approx(size, abs=0.15)


def test_jumps_are_found_on_either_side_of_a_block_that_is_read() -> None:
    state = smooth(3, steps=17_000)
    for at in (8_191, 8_192, 8_193, 16_384):
        state[at:] += 1.0
    jumps = found(episode_of([(STATE, state)], rate_hz=RATE), "jump")
    assert sorted({jump.start_ns // STEP_NS for jump in jumps}) == [8_190, 8_191, 8_192, 16_383]


def test_a_switch_an_angle_that_wraps_and_a_gripper_do_not_jump() -> None:
    rng = np.random.default_rng(0)
    turning = (np.linspace(0, 20, 400) + np.pi) % (2 * np.pi) - np.pi
    switch = (rng.random(400) < 0.05).astype(float)
    gripper = np.where(np.arange(400) < 200, 0.01, 0.99) + rng.normal(0, 1e-3, 400)
    spec = replace(STATE, axes=("yaw", "lamp", "gripper"))
    assert found(episode_of([(spec, np.stack([turning, switch, gripper], 1))], rate_hz=RATE), "jump") == []
    (first, *_) = found(episode_of([(STATE, np.stack([turning, switch, gripper], 1))], rate_hz=RATE), "jump")
    assert first.attributes["axis"] == 0, "a joint that jumps by a whole turn is a fault of its encoder"


@given(st.integers(0, 10_000), st.integers(30, 150), st.integers(180, 260))
def test_a_robot_that_stands_still_for_long_is_told(seed: int, start: int, length: int) -> None:
    moving = smooth(seed)
    state = np.concatenate([moving[:start], np.repeat(moving[start : start + 1], length, 0), moving[start:]])
    stills = found(episode_of([(STATE, state)], rate_hz=RATE), "still")
    assert len(stills) == 1
    assert stills[0].start_ns == pytest.approx(start * STEP_NS, abs=0.6e9)
    assert stills[0].attributes["value"] == pytest.approx(length / RATE, abs=1.0)


def test_a_joint_that_does_not_follow_its_command_is_told_with_how_far_it_is_off() -> None:
    action = smooth(5)
    state = action.copy()
    state[100:200, 1] += 1.0
    (event,) = found(episode_of([(STATE, state), (ACTION, action)], rate_hz=RATE), "tracking")
    assert spans(event, 120)
    assert spans(event, 170)
    assert event.attributes["axis"] == 1
    assert 0.5 < float(event.attributes["value"]) <= 1.0
    unstated = replace(ACTION, contract=ActionContract())
    assert found(episode_of([(STATE, state), (unstated, action)], rate_hz=RATE), "tracking") == []


def test_a_joint_beyond_its_limits_or_its_speed_is_told_in_the_units_of_the_joint() -> None:
    state = np.degrees(smooth(5))
    state[50:60, 2] = 100.0
    limits = [Limit(axis=2, joint="elbow", lower=-1.6, upper=1.6, velocity=3.0, scale=np.pi / 180)]
    episode = episode_of([(replace(STATE, unit=("deg",)), state)], rate_hz=RATE)
    events = {e.kind: e for e in anomalies(episode, {"observation.state": limits})}
    beyond, fast = events["anomaly.joint_limit"], events["anomaly.joint_speed"]
    assert (beyond.start_ns, beyond.stop_ns) == (50 * STEP_NS, 60 * STEP_NS)
    assert beyond.attributes["value"] == pytest.approx(np.radians(100) - 1.6)
    assert "elbow" in beyond.text
    assert fast.attributes["unit"] == "rad/s"
    assert "anomaly.joint_limit" not in {event.kind for event in anomalies(episode)}


# ---------------------------------------------------------------- times


def recorded(times: Times) -> Episode:
    return episode_of([(STATE, smooth(1, len(times)))], times=times)


@given(st.integers(0, 10_000), st.integers(10, 380), st.integers(1, 9))
def test_samples_that_are_missing_are_a_gap_with_their_number(seed: int, at: int, missing: int) -> None:
    jitter = np.random.default_rng(seed).normal(0, 0.01 * STEP_NS, 400).astype(np.int64)
    times = np.arange(400) * STEP_NS + jitter
    times[at:] += missing * STEP_NS
    (gap,) = found(recorded(times), "gap")
    assert (gap.start_ns, gap.stop_ns) == (times[at - 1], times[at])
    assert gap.attributes["samples"] == missing
    assert found(recorded(times), "jitter") == []


def test_a_clock_that_wavers_and_one_that_stands_are_told_and_one_without_a_period_is_not() -> None:
    rng = np.random.default_rng(0)
    wavering = np.sort(np.arange(400) * STEP_NS + rng.normal(0, 0.2 * STEP_NS, 400).astype(np.int64))
    (jitter,) = found(recorded(wavering), "jitter")
    assert jitter.attributes["unit"] == "ms"
    assert jitter.attributes["value"] == pytest.approx(0.2 * 2**0.5 * STEP_NS / 1e6, rel=0.2)
    standing = np.arange(400) * STEP_NS
    standing[200:203] = standing[199]
    (repeated,) = found(recorded(standing), "repeated_time")
    assert repeated.attributes["samples"] == 3
    now_and_then = np.cumsum(rng.exponential(STEP_NS, 400)).astype(np.int64)
    assert {e.kind for e in anomalies(recorded(now_and_then))} <= {"anomaly.jump", "anomaly.still"}


# ---------------------------------------------------------------- cameras


def pictures(frozen: range = range(0), black: range = range(0)) -> Array:
    """Return frames of a texture that moves by, with sensor noise; some are the same, some are dark."""
    rng = np.random.default_rng(0)
    wall = np.kron(rng.uniform(40, 220, (12, 116, 1)), np.ones((4, 4, 3)))
    frames = np.stack([wall[:, i : i + 64] for i in range(400)])
    frames = (frames + rng.normal(0, 2, frames.shape)).clip(0, 255).astype(np.uint8)
    frames[list(frozen)] = frames[frozen.start] if frozen else 0
    frames[list(black)] = rng.integers(0, 5, (len(black), 48, 64, 3))
    return frames


def test_a_camera_that_shows_one_picture_while_the_robot_moves_is_frozen() -> None:
    frames = pictures(frozen=range(100, 250))
    (event,) = found(episode_of([(STATE, smooth(1)), (CAMERA, frames)], rate_hz=RATE), "frozen")
    assert event.start_ns == pytest.approx(100 * STEP_NS, abs=0.5e9)
    assert event.stop_ns == pytest.approx(250 * STEP_NS, abs=0.5e9)
    resting = np.repeat(smooth(1)[:1], 400, axis=0)
    assert found(episode_of([(STATE, resting), (CAMERA, frames)], rate_hz=RATE), "frozen") == []
    assert found(episode_of([(CAMERA, frames)], rate_hz=RATE), "frozen") == []


def test_a_dark_camera_is_black_and_no_more_than_that() -> None:
    episode = episode_of([(STATE, smooth(1)), (CAMERA, pictures(black=range(200, 400)))], rate_hz=RATE)
    (event,) = anomalies(episode)
    assert event.kind == "anomaly.black"
    assert event.start_ns == pytest.approx(200 * STEP_NS, abs=0.5e9)
    assert anomalies(episode, pictures=False) == []


def test_no_more_than_two_pictures_a_second_are_decoded() -> None:
    asked: list[int] = []
    frames = pictures()

    def read(start: int, stop: int) -> Iterator[Array]:
        asked.append(stop - start)
        yield frames[start:stop]

    episode = episode_of([(STATE, smooth(1)), (CAMERA, frames)], rate_hz=RATE)
    camera = Stream(spec=CAMERA, length=400, read=read)
    anomalies(replace(episode, streams={**episode.streams, CAMERA.name: camera}))
    assert sum(asked) <= 2 * 400 / RATE + 1


LONG = 400_000


def _waves(start: int, stop: int) -> Iterator[Array]:
    for at in range(start, stop, 4_096):
        yield np.sin(np.arange(at, min(stop, at + 4_096))[:, None] / 50.0 + np.arange(64))


def count_of_a_long_episode() -> int:
    spec = replace(STATE, shape=(64,), axes=())
    episode = episode_of([(STATE, np.zeros((LONG, 3)))], rate_hz=RATE)
    stream = Stream(spec=spec, length=LONG, read=_waves)
    return len(anomalies(replace(episode, streams={spec.name: stream})))


@pytest.mark.slow
def test_memory_does_not_grow_with_the_numbers_of_an_episode(peak_memory: Callable[..., int]) -> None:
    """Of 205 MB of numbers a block, 65,536 steps an axis and the extremes of each quarter of a second are
    held."""
    assert peak_memory(count_of_a_long_episode) < 300 << 20


# ---------------------------------------------------------------- real recordings


def test_real_recordings_have_few_findings_and_each_is_within_its_episode(shared_data: Path) -> None:
    for name, kinds in {
        "lerobot/v3.0_so101_pick_place": set[str](),
        "droid_raw": set[str](),
        "rlds/octo_bridge_debug/bridge_dataset/1.0.0": {"anomaly.black"},
    }.items():
        path = shared_data / name
        episode = next(iter(read(converter_for(path), path)))
        events = anomalies(episode)
        last = max(int(clock.read()[-1]) for clock in episode.clocks.values() if clock.length)
        assert {event.kind for event in events} == kinds, name
        assert all(0 <= event.start_ns <= last for event in events)
