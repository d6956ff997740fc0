"""Two episodes on one timeline: what a phase is laid over, and that time never runs backward."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from teleopen.schemas import Episode, Event, NotFoundError, StreamSpec
from teleopen.viewer.align import Warp, align, phases

from tests.viewer.made import episode_of

STATE = StreamSpec(name="observation.state", kind="low_dim", dtype="float64", shape=(1,))
SECOND = 1_000_000_000


def episode(seconds: int, starts: dict[str, float], kind: str = "phase") -> Episode:
    events = tuple(Event(kind=kind, start_ns=round(at * SECOND), text=text) for text, at in starts.items())
    made = episode_of([(STATE, np.zeros((seconds * 10 + 1, 1)))], rate_hz=10)
    return replace(made, events=events)


def test_phases_of_b_begin_when_those_of_a_do_and_both_end_together() -> None:
    a = episode(10, {"reach": 1, "grasp": 4, "lift": 8})
    b = episode(20, {"reach": 3, "grasp": 5, "lift": 18})
    found = align(a, b, "phase")
    times = np.array([0, 3, 4, 5, 18, 20, 21]) * SECOND
    np.testing.assert_array_equal(found.b(times), np.array([0, 1, 2.5, 4, 8, 10, 11]) * SECOND)
    np.testing.assert_array_equal(found.a(times), times)
    assert found.phases == ("reach", "grasp", "lift")


def test_a_phase_that_only_one_of_them_has_is_passed_over() -> None:
    a = episode(10, {"reach": 1, "grasp": 4, "lift": 8})
    b = episode(10, {"reach": 2, "wait": 3, "lift": 6})
    found = align(a, b, "phase")
    assert found.phases == ("reach", "lift")
    assert found.b(np.array([2, 6]) * SECOND).tolist() == [SECOND, 8 * SECOND]


def test_a_phase_that_comes_twice_is_matched_in_order() -> None:
    twice = (
        Event(kind="phase", start_ns=SECOND, text="grasp"),
        Event(kind="phase", start_ns=3 * SECOND, text="grasp"),
    )
    later = tuple(replace(event, start_ns=event.start_ns + SECOND) for event in twice)
    a, b = episode(5, {}), episode(6, {})
    found = align(replace(a, events=twice), replace(b, events=later), "phase")
    assert found.b(np.array([2, 4]) * SECOND).tolist() == [SECOND, 3 * SECOND]


def test_other_events_stand_in_for_phases_and_without_any_it_is_said() -> None:
    assert len(phases(episode(5, {"a": 1, "b": 2}, kind="subtask"))) == 2
    assert phases(episode(5, {"a": 1}, kind="instruction")) == []
    with pytest.raises(NotFoundError, match="align them by start"):
        align(episode(5, {"a": 1}), episode(5, {"b": 1}), "phase")


def test_by_start_both_begin_at_0_and_by_time_they_stand_as_far_apart_as_they_were() -> None:
    a, b = episode(5, {}), episode(9, {})
    both = align(a, b, "start")
    assert both.a(np.array([0])).tolist() == both.b(np.array([0])).tolist() == [0]
    late = 1_700_000_000 * SECOND
    apart = align(a, b, "time", (late + 7 * SECOND, late))
    assert (apart.a(np.array([0])).tolist(), apart.b(np.array([0])).tolist()) == ([7 * SECOND], [0])
    with pytest.raises(NotFoundError, match="when they were recorded"):
        align(a, b, "time", (None, late))


@given(
    st.lists(st.tuples(st.integers(1, 10**12), st.integers(1, 10**12)), min_size=1, max_size=9),
    st.lists(st.integers(-(10**12), 10**13), min_size=2, max_size=50),
)
def test_a_warp_meets_its_anchors_and_never_runs_backward(
    steps: list[tuple[int, int]], times: list[int]
) -> None:
    at, to = np.cumsum(steps, axis=0).T
    warp = Warp(tuple(at.tolist()), tuple(to.tolist()))
    np.testing.assert_array_equal(warp(at), to)
    assert (np.diff(warp(np.sort(np.array(times)))) >= 0).all()
