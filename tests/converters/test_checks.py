"""Contracts against rows: what contradicts is told, what agrees is left in peace, and nothing is changed."""

import dataclasses
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from teleopen.cli.main import main
from teleopen.converters import converter_for, read
from teleopen.converters._checks import MOST_ROWS, checked, findings
from teleopen.converters._motion import LEAST_ROWS
from teleopen.schemas import (
    ActionContract,
    ActionPart,
    Array,
    Clock,
    Episode,
    FormatError,
    Provenance,
    Stream,
    StreamSpec,
    TeleopenError,
    nominal_times,
)

Rows = NDArray[np.float64]
JOINTS = ("j1", "j2", "j3")
POSITIONS = ActionPart(start=0, stop=3, space="joint_position", mode="absolute", frame=None, rotation="none")
GRIPPER = ActionPart(
    start=0, stop=1, space="gripper", mode="absolute", frame=None, gripper_closed=0.0, gripper_open=1.0
)


def blocks_of(values: Array, rows: int, start: int, stop: int) -> Iterator[Array]:
    for first in range(start, stop, rows):
        yield values[first : min(first + rows, stop)]


def stream(name: str, values: Array, rows: int = 64, **members: Any) -> Stream:
    spec = StreamSpec(
        name=name,
        kind="low_dim",
        dtype=values.dtype.name,
        shape=values.shape[1:],
        **{"clock": "steps"} | members,
    )
    return Stream(spec=spec, length=len(values), read=partial(blocks_of, values, rows))


def episode(*streams: Stream, **clocks: float) -> Episode:
    """Put an episode together; each clock is given its rate in Hz."""
    rates = {"steps": 50.0} | clocks
    lengths = {s.spec.clock: s.length for s in streams}
    return Episode(
        id="00000000-0000-8000-8000-000000000000",
        provenance=Provenance(format="made", converter="made", converter_version="1"),
        clocks={
            name: Clock(name=name, kind="nominal", length=n, read=partial(nominal_times, n, rates[name]))
            for name, n in lengths.items()
        },
        streams={s.spec.name: s for s in streams},
    )


def commanded(
    action: Array,
    state: Array,
    part: ActionPart | None = POSITIONS,
    offset: int | None = 0,
    **state_members: Any,
) -> Episode:
    contract = ActionContract(parts=(part,) if part else (), offset_steps=offset)
    told: dict[str, Any] = {"axes": JOINTS, "unit": ("rad",)}
    return episode(
        stream("action", action, contract=contract, **told),
        stream("observation.state", state, **told | state_members),
    )


def path_of(seed: int, rows: int, columns: int = 3, step: float = 0.05) -> Rows:
    """Draw a way that a hand may take: smooth over some rows, never at rest, within a turn."""
    random = np.random.default_rng(seed)
    steps = random.normal(size=(rows + 20, columns))
    smooth = np.apply_along_axis(lambda s: np.convolve(s, np.hanning(9) / 4, "same"), 0, steps)
    way = np.cumsum(smooth * step, axis=0)[20:]
    return np.asarray(way - way.mean(axis=0) + random.uniform(-0.5, 0.5, columns))


def follower(action: Rows, lag: int, seed: int, noise: float = 2e-3) -> Rows:
    """Return a state that is where the action was ``lag`` rows ago; a negative lag runs ahead."""
    random = np.random.default_rng(seed)
    return np.asarray(np.roll(action, lag, axis=0) + random.normal(scale=noise, size=action.shape))


seeds = st.integers(0, 2**32 - 1)
ways = st.builds(path_of, seeds, st.integers(120, 500))
few = settings(max_examples=20)


@few
@given(ways, st.integers(0, 9), seeds)
def test_a_state_that_follows_an_absolute_command_raises_no_warning(way: Rows, lag: int, seed: int) -> None:
    assert findings(commanded(way[:-20], follower(way, lag, seed)[:-20])) == []


@few
@given(ways, st.integers(0, 3), seeds)
def test_a_state_that_follows_changes_raises_no_warning(way: Rows, lag: int, seed: int) -> None:
    action = follower(np.roll(np.diff(way, axis=0, append=way[-1:]), 0, axis=0), -lag, seed, 1e-4)
    part = dataclasses.replace(POSITIONS, mode="delta")
    assert findings(commanded(action, way, part)) == []


@few
@given(ways, st.integers(1, 9), seeds)
def test_a_state_that_runs_ahead_of_its_command_is_told_with_its_lag(
    way: Rows, ahead: int, seed: int
) -> None:
    (told,) = findings(commanded(way[20:], follower(way, -ahead, seed)[20:]))
    assert f"{ahead} rows ahead" in told
    assert f"best lag {-ahead}," in told
    assert "offset_steps is declared 0" in told


@few
@given(ways, st.integers(0, 4), seeds)
def test_an_offset_that_leaves_no_time_to_answer_is_told(way: Rows, lag: int, seed: int) -> None:
    sound = commanded(way, follower(way, lag, seed), offset=lag)
    wrong = commanded(way, follower(way, lag, seed), offset=lag + 3)
    assert findings(sound) == []
    assert "3 rows ahead of what that allows" in findings(wrong)[0]


@few
@given(ways, st.integers(0, 3), seeds)
def test_changes_that_are_declared_absolute_are_told(way: Rows, lag: int, seed: int) -> None:
    action = follower(np.diff(way, axis=0, append=way[-1:]), -lag, seed, 1e-4)
    (told,) = findings(commanded(action, way))
    assert "is declared absolute, and the data say delta" in told


@few
@given(ways, st.integers(0, 9), seeds)
def test_positions_that_are_declared_changes_are_told(way: Rows, lag: int, seed: int) -> None:
    part = dataclasses.replace(POSITIONS, mode="delta")
    (told,) = findings(commanded(way, follower(way, lag, seed), part))
    assert "is declared delta, and the data say absolute" in told
    assert f"{lag} rows later" in told


@few
@given(ways, st.integers(0, 9), seeds)
def test_degrees_where_radians_are_declared_are_told(way: Rows, lag: int, seed: int) -> None:
    state = follower(way, lag, seed)
    both = findings(commanded(np.rad2deg(way), np.rad2deg(state)))
    assert any("more than a turn: the numbers look like degrees" in told for told in both)
    one = findings(commanded(np.rad2deg(way), state))
    assert any("numbers look like degrees" in told and "times as large" in told for told in one)
    other = findings(commanded(way, np.rad2deg(state)))
    assert any("numbers look like radians" in told for told in other)


def hand(seed: int, rows: int = 200) -> Rows:
    """Draw a gripper that opens and closes a few times: (rows, 1) from 0 to 1."""
    edges = np.sort(np.random.default_rng(seed).choice(np.arange(20, rows - 20), 4, replace=False))
    switched = np.searchsorted(edges, np.arange(rows)) % 2
    smooth = np.convolve(np.pad(switched.astype(float), 10, "edge"), np.ones(7) / 7, "same")[10:-10]
    return np.asarray(smooth[:, None])


def gripped(action: Rows, state: Rows, part: ActionPart = GRIPPER, **state_members: Any) -> Episode:
    contract = ActionContract(parts=(part,), offset_steps=0)
    told: dict[str, Any] = {"axes": ("gripper",), "unit": ("1",)}
    return episode(
        stream("action.gripper", action, contract=contract, **told),
        stream("observation.gripper", state, **told | state_members),
    )


@few
@given(seeds)
def test_a_gripper_that_moves_the_other_way_is_told(seed: int) -> None:
    command = hand(seed)
    state = np.roll(command, 3, axis=0)
    assert findings(gripped(command, state)) == []
    (told,) = findings(gripped(command, 1 - state))
    assert "moves the other way (correlation -0." in told or "moves the other way (correlation -1" in told


@few
@given(seeds)
def test_a_width_is_large_where_the_gripper_is_open(seed: int) -> None:
    command = hand(seed)
    width = 0.08 * np.roll(command, 3, axis=0)
    for closed, opened, axis, number in ((0, 1, "width", 0), (1, 0, "width", 1), (1, 0, "finger", 0)):
        part = dataclasses.replace(GRIPPER, gripper_closed=float(closed), gripper_open=float(opened))
        contract = ActionContract(parts=(part,), offset_steps=0)
        made = episode(
            stream("action.gripper", command, contract=contract, unit=("1",)),
            stream("observation.gripper", width, axes=(axis,), unit=("m",)),
        )
        assert len(findings(made)) == number, "a unit alone does not tell which way is open"


def test_a_gripper_far_beyond_its_declared_ends_is_told() -> None:
    command = hand(1)
    assert findings(gripped(command * 1.3 - 0.1, command)) == []
    (told,) = findings(gripped(command * 2 - 1, command))
    assert "declared 0 to 1 and reach from -1 to 1" in told


def test_positions_copied_from_the_state_are_told_as_such() -> None:
    way = path_of(3, 100)
    assert "is the next row's observation.state bit for bit" in findings(commanded(way[1:], way[:-1]))[0]
    assert "is the same row's observation.state bit for bit" in findings(commanded(way, way))[0]


@pytest.mark.parametrize("part", [None, dataclasses.replace(POSITIONS, mode="unknown")])
def test_what_nobody_declares_is_hinted_and_stays_undeclared(part: ActionPart | None) -> None:
    way = path_of(4, 300)
    absolute = commanded(way, follower(way, 2, 5), part, offset=None)
    changes = commanded(np.diff(way, axis=0, append=way[-1:]), way, part, offset=None)
    (of_absolute,), (of_changes,) = findings(absolute), findings(changes)
    assert of_absolute.startswith("hint: action")
    assert "look like absolute values of observation.state" in of_absolute
    assert "look like changes of observation.state" in of_changes
    (told,) = checked([absolute])
    assert told.streams["action"].spec == absolute.streams["action"].spec


def test_streams_on_clocks_of_their_own_are_paired_by_time() -> None:
    fine = path_of(6, 1_000)
    state, action = fine, fine[::5] + 1e-4
    contract = ActionContract(parts=(dataclasses.replace(POSITIONS, mode="delta"),), offset_steps=0)
    told: dict[str, Any] = {"axes": JOINTS, "unit": ("rad",)}
    made = episode(
        stream("action", action, contract=contract, **told),
        stream("observation.state", state, clock="fast", **told),
        fast=250.0,
    )
    assert "is declared delta, and the data say absolute: it is observation.state 0 rows" in findings(made)[0]


@pytest.mark.parametrize(
    "change",
    [
        {"axes": ("j1", "j2", "j4")},
        {"axes": ("j1", "j1", "j3")},
        {"axes": ()},
        {"clock": "steps", "unit": ("deg",)},
    ],
)
def test_what_is_not_surely_the_same_quantity_is_not_compared(change: dict[str, Any]) -> None:
    way = path_of(7, 200)
    part = dataclasses.replace(POSITIONS, mode="delta")
    assert findings(commanded(way, follower(way, 2, 8), part, **change)) == []


def test_poses_in_other_frames_are_not_compared() -> None:
    way = path_of(9, 200)
    part = ActionPart(start=0, stop=3, space="ee_position", mode="delta", frame="base")
    told: dict[str, Any] = {"axes": ("x", "y", "z"), "unit": ("m",)}
    contract = ActionContract(parts=(part,), offset_steps=0)
    for frame, number in (("base", 1), ("world", 0), ("unknown", 0), (None, 0)):
        made = episode(
            stream("action", way, contract=contract, frame="base", **told),
            stream("observation.ee_position", follower(way, 2, 10), frame=frame, **told),
        )
        assert len(findings(made)) == number, frame


@few
@example(np.zeros((60, 3)), np.zeros((60, 3)))
@example(np.full((60, 3), np.nan), np.zeros((60, 3)))
@example(np.full((60, 3), 1e300), np.linspace(0, 1e300, 180).reshape(60, 3))
@given(
    arrays.arrays(st.sampled_from([np.float32, np.float64]), (60, 3)),
    arrays.arrays(st.sampled_from([np.float32, np.float64, np.int16, np.bool_]), st.just((60, 3))),
)
def test_no_rows_whatever_raise_anything(action: Array, state: Array) -> None:
    for part in (None, POSITIONS, dataclasses.replace(POSITIONS, mode="delta"), GRIPPER):
        made = commanded(action, state, part)
        assert findings(made) == findings(made)


@few
@given(ways, st.sampled_from([1, 7, 10_000]))
def test_the_size_of_blocks_changes_no_word(way: Rows, rows: int) -> None:
    made = commanded(way, follower(way, -3, 1))
    again = {
        n: dataclasses.replace(s, read=partial(blocks_of, s.values(), rows)) for n, s in made.streams.items()
    }
    assert findings(made) == findings(dataclasses.replace(made, streams=again))


def test_few_rows_tell_nothing_and_many_are_not_all_read() -> None:
    way = path_of(11, MOST_ROWS * 2)
    short = way[: LEAST_ROWS - 1]
    assert findings(commanded(short, short)) == []
    asked: list[int] = []

    def read_and_tell(start: int, stop: int) -> Iterator[Array]:
        asked.append(stop)
        yield way[start:stop]

    made = commanded(way, follower(way, -3, 1))
    told = {n: dataclasses.replace(s, read=read_and_tell) for n, s in made.streams.items()}
    assert findings(dataclasses.replace(made, streams=told))
    assert asked == [MOST_ROWS, MOST_ROWS], "each stream is read once, and its beginning only"


def test_rows_that_cannot_be_read_are_an_error_for_their_reader_alone() -> None:
    def fail(_start: int, _stop: int) -> Iterator[Array]:
        raise FormatError("run.h5", "action", "is damaged")

    made = commanded(path_of(12, 100), path_of(12, 100))
    broken = {n: dataclasses.replace(s, read=fail) for n, s in made.streams.items()}
    (told,) = checked([dataclasses.replace(made, streams=broken)])
    assert told.provenance.warnings == ()
    with pytest.raises(FormatError):
        told.streams["action"].values()


def test_findings_join_the_warnings_once_and_change_nothing_else() -> None:
    way = path_of(13, 200)
    made = commanded(way, follower(way, -3, 1))
    (told,) = checked([made])
    assert told.provenance.warnings == tuple(findings(made))
    assert dataclasses.replace(told, provenance=made.provenance) == made
    (again,) = checked([told])
    assert again.provenance.warnings == told.provenance.warnings


# Where recordings come in


@pytest.fixture
def shifted(tmp_path: Path) -> Path:
    """Write an ALOHA episode whose arms are ahead of their commands."""
    way = path_of(14, 120, 14).astype(np.float32)
    with h5py.File(tmp_path / "episode_0.hdf5", "w") as file:
        file.attrs["sim"] = True
        file["action"], file["observations/qpos"] = way[:100], way[4:104]
    return tmp_path / "episode_0.hdf5"


def test_every_way_into_a_store_checks(shifted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (told,) = read(converter_for(shifted), shifted)
    assert any("4 rows ahead" in warning for warning in told.provenance.warnings)
    store = str(shifted.parent / "store")
    assert main(["convert", str(shifted), store]) == 0
    assert "4 rows ahead" in "".join(capsys.readouterr())
    for argument in (str(shifted), store):
        assert main(["show", f"{argument}#0", "--json"]) == 0
        assert "4 rows ahead" in capsys.readouterr().out


def samples(folder: Path) -> Iterator[tuple[str, Any, Path]]:
    """Yield each recording of a folder with its converter."""
    try:
        yield folder.name, converter_for(folder), folder
    except TeleopenError:
        for inner in sorted(folder.iterdir()) if folder.is_dir() else ():
            yield from samples(inner)


TRUE_OF_THE_SAMPLES = (
    # Scripted for a simulator, which was given -1 and 1 where the robot's own software gives 0 and 1.
    ("bridge-tfrecord", "gripper commands are declared 0 to 1 and reach from -1"),
    # Put together from observations.
    ("rlds", "bit for bit"),
    ("lerobot-v2", "bit for bit"),
    ("umi-zarr", "bit for bit"),
)
"""What the samples are known to have."""


def test_no_sample_is_accused_falsely(shared_data: Path) -> None:
    judged = 0
    for _, converter, path in samples(shared_data):
        options = {"rate_hz": 20.0} if hasattr(converter, "rate_hz") else {}
        try:
            episodes = list(dataclasses.replace(converter, **options).episodes(path))
        except FormatError:  # LeRobot before 2.0
            continue
        for made in episodes[:4]:
            judged += any(s.spec.contract for s in made.streams.values())
            for told in findings(made):
                known = any(
                    made.provenance.format == format and word in told for format, word in TRUE_OF_THE_SAMPLES
                )
                assert known or told.startswith("hint: "), (path, told)
    assert judged > 30
