"""What is special about Unitree's recordings: templates, gaps, hands, arms that overlap, and hostile JSON."""

import hashlib
import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from teleopen.converters import _unitree_steps
from teleopen.converters.unitree_json import UnitreeJson
from teleopen.schemas import Episode, problems_of

from tests.converters import reading
from tests.samples.unitree_json import HEAD, HEIGHT, WIDTH, jpeg, step, write_episode

ARMS = {"states.left_arm.qpos": [0.0] * 7, "actions.left_arm.qpos": [0.1] * 7}


def only(path: Path, **options: Any) -> Episode:
    return reading.only(UnitreeJson(**options), path)


def head(**members: Any) -> dict[str, Any]:
    return {**HEAD, **members}


def steps_of(count: int, **numbers: Any) -> list[dict[str, Any]]:
    return [step(i, {**ARMS, **{k.replace("__", "."): v for k, v in numbers.items()}}) for i in range(count)]


def with_pictures(folder: Path, present: list[bool], home: str = "colors") -> list[dict[str, Any]]:
    folder.joinpath(home).mkdir(parents=True)
    steps = []
    for i, there in enumerate(present):
        name = f"{home}/{i:06}_color_0.jpg"
        folder.joinpath(name).write_bytes(jpeg(np.full((HEIGHT, WIDTH, 3), 10 * i, np.uint8)))
        steps.append(step(i, ARMS, **{home: {"color_0": name} if there else {}}))
    return steps


def test_real_episodes_hold_what_their_json_and_pictures_hold(shared_data: Path) -> None:
    task = shared_data / "unitree_json" / "pick_bottle"
    episodes = list(UnitreeJson().episodes(task))
    assert [e.streams["action.left_arm.joint_position"].length for e in episodes] == [60, 45]
    for folder, episode in zip(sorted(task.glob("episode_*")), episodes, strict=True):
        assert problems_of(episode) == []
        data = json.loads(folder.joinpath("data.json").read_text("utf-8"))["data"]
        for side, shown in (("states", "observation"), ("actions", "action")):
            for part in ("left_arm", "right_arm", "left_ee", "right_ee"):
                told = np.array([row[side][part]["qpos"] for row in data])
                np.testing.assert_array_equal(
                    episode.streams[f"{shown}.{part}.joint_position"].values(), told
                )
        for i in (0, 17, len(data) - 1):
            with Image.open(folder / data[i]["colors"]["color_0"]) as image:
                picture = episode.streams["observation.images.color_0"].values(i, i + 1)[0]
                np.testing.assert_array_equal(picture, np.asarray(image))
        assert episode.clocks["steps"].kind == "nominal"
        assert episode.instructions == ()
        assert any("writer's own example" in warning for warning in episode.provenance.warnings)


def test_a_digest_of_pictures_is_what_sha256sum_prints(tmp_path: Path) -> None:
    episode = only(write_episode(tmp_path / "e", with_pictures(tmp_path / "e", [True] * 3)))
    names = sorted(p.relative_to(tmp_path / "e").as_posix() for p in tmp_path.glob("e/colors/*"))
    lines = [f"{hashlib.sha256((tmp_path / 'e' / n).read_bytes()).hexdigest()}  {n}\n" for n in names]
    source = episode.provenance.sources[1]
    assert (source.uri, source.role) == ("colors.color_0", "video")
    assert source.sha256 == hashlib.sha256("".join(lines).encode()).hexdigest()


def test_another_picture_makes_another_episode(tmp_path: Path) -> None:
    folder = write_episode(tmp_path / "e", with_pictures(tmp_path / "e", [True] * 2))
    before = only(folder).id
    folder.joinpath("colors/000001_color_0.jpg").write_bytes(jpeg(np.full((HEIGHT, WIDTH, 3), 99, np.uint8)))
    assert only(folder).id != before


@pytest.mark.parametrize("goal", ["Pick up the red cup on the table.", "pick up cube."])
def test_the_writers_example_is_no_instruction(tmp_path: Path, goal: str) -> None:
    folder = write_episode(tmp_path, steps_of(2), head(text={"goal": goal, "desc": "", "steps": ""}))
    episode = only(folder)
    assert episode.instructions == ()
    assert episode.extra["text"]["text.goal"] == goal
    assert any(goal in warning for warning in episode.provenance.warnings)
    told = only(folder, instruction="fold the towel")
    assert told.instructions == ("fold the towel",)
    assert told.id == episode.id


def test_the_writers_constants_say_nothing_of_author_or_outcome(tmp_path: Path) -> None:
    episode = only(write_episode(tmp_path, steps_of(2), head(rewards={"success": True})))
    assert episode.outcome == "unknown"
    assert episode.provenance.evidence == {"info.author": "unitree"}
    constants = [w for w in episode.provenance.warnings if "constant" in w]
    assert len(constants) == 2


def test_both_writers_give_the_same(tmp_path: Path) -> None:
    steps = steps_of(3)
    late = write_episode(tmp_path / "a", steps)
    early = tmp_path / "b"
    early.mkdir()
    early.joinpath("data.json").write_text(json.dumps({**HEAD, "data": steps}, indent=4), "utf-8")
    one, other = only(late), only(early)
    assert one.streams.keys() == other.streams.keys()
    for name in one.streams:
        np.testing.assert_array_equal(one.streams[name].values(), other.streams[name].values())


def test_a_window_over_the_text_ends_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = steps_of(5, states__left_ee__qpos=[1.5, -2.25e-3])
    folder = write_episode(tmp_path, steps, {"serial": 12345, **HEAD})
    whole = only(folder)
    for piece in (1, 7, 64):
        monkeypatch.setattr(_unitree_steps, "_PIECE", piece)
        _unitree_steps._recording.cache_clear()
        pieced = only(folder)
        assert repr(pieced) == repr(whole)
        for name in whole.streams:
            np.testing.assert_array_equal(pieced.streams[name].values(), whole.streams[name].values())


def test_body_is_joints_in_states_and_a_velocity_in_actions(tmp_path: Path) -> None:
    steps = steps_of(2, states__body__qpos=[0.5] * 29, actions__body__qpos=[0.1, 0.0, -0.2])
    streams = only(write_episode(tmp_path, steps)).streams
    assert streams["observation.body.joint_position"].spec.unit == ("rad",)
    command = streams["action.body.base_velocity"].spec
    assert (command.unit, command.axes) == (("m/s", "m/s", "rad/s"), ("vx", "vy", "vyaw"))
    assert command.contract is not None
    assert command.contract.parts[0].space == "base_velocity"


def test_a_command_to_the_body_of_other_than_three_numbers_is_unknown(tmp_path: Path) -> None:
    steps = steps_of(2, actions__body__qpos=[0.5] * 29)
    spec = only(write_episode(tmp_path, steps)).streams["action.body.joint_position"].spec
    assert spec.unit == ("unknown",)
    assert spec.contract is not None
    assert spec.contract.parts == ()


@pytest.mark.parametrize(
    ("numbers", "unit", "space", "opened"),
    [(1, "rad", "gripper", 5.4), (6, "1", "joint_position", None), (7, "rad", "joint_position", None)],
)
def test_hands_are_told_by_how_many_numbers_they_have(
    tmp_path: Path, numbers: int, unit: str, space: str, opened: float | None
) -> None:
    steps = steps_of(2, actions__left_ee__qpos=[0.5] * numbers)
    spec = only(write_episode(tmp_path, steps)).streams["action.left_ee.joint_position"].spec
    assert spec.unit == (unit,)
    assert spec.contract is not None
    assert (spec.contract.parts[0].space, spec.contract.parts[0].gripper_open) == (space, opened)


def test_a_hand_of_another_number_of_joints_is_unknown(tmp_path: Path) -> None:
    spec = only(write_episode(tmp_path, steps_of(2, actions__left_ee__qpos=[0.5] * 12))).streams
    assert spec["action.left_ee.joint_position"].spec.unit == ("unknown",)


@pytest.mark.parametrize(("joints", "word"), [(8, "four"), (10, "five"), (14, "")])
def test_arms_that_overlap_are_told_and_lose_their_names(tmp_path: Path, joints: int, word: str) -> None:
    both = np.random.default_rng(1).normal(size=(3, joints))
    steps = [
        step(i, {**ARMS, "states.left_arm.qpos": q[:7].tolist(), "states.right_arm.qpos": q[-7:].tolist()})
        for i, q in enumerate(both)
    ]
    episode = only(write_episode(tmp_path, steps))
    told = [warning for warning in episode.provenance.warnings if f"{word} joints to an arm" in warning]
    assert bool(told) == bool(word)
    assert bool(episode.streams["observation.left_arm.joint_position"].spec.axes) == (not word)


def test_arms_at_rest_are_not_taken_for_overlapping(tmp_path: Path) -> None:
    episode = only(write_episode(tmp_path, steps_of(3, states__right_arm__qpos=[0.0] * 7)))
    assert not any("arm" in warning for warning in episode.provenance.warnings)


def test_a_camera_that_misses_steps_has_a_clock_with_gaps(tmp_path: Path) -> None:
    episode = only(write_episode(tmp_path, with_pictures(tmp_path, [True, False, True, True])))
    camera = episode.streams["observation.images.color_0"]
    assert (camera.length, camera.spec.clock) == (3, "colors_color_0")
    np.testing.assert_array_equal(episode.times(camera.spec.name), [0, 50_000_000, 75_000_000])
    assert camera.values()[:, 0, 0, 0].tolist() == [0, 20, 30]
    assert "colors.color_0 is missing in 1 steps" in episode.provenance.warnings


def test_turns_that_were_not_written_are_gaps_in_time(tmp_path: Path) -> None:
    steps = [step(i, ARMS) for i in (3, 4, 7)]
    episode = only(write_episode(tmp_path, steps))
    np.testing.assert_array_equal(episode.clocks["steps"].read(), [0, 25_000_000, 100_000_000])
    assert any("2 turns" in warning for warning in episode.provenance.warnings)


def test_an_index_that_counts_nothing_is_not_believed(tmp_path: Path) -> None:
    episode = only(write_episode(tmp_path, [step(0, ARMS), step(0, ARMS)]))
    np.testing.assert_array_equal(episode.clocks["steps"].read(), [0, 25_000_000])
    assert any("idx does not count" in warning for warning in episode.provenance.warnings)


def test_depth_is_marked_as_what_jpeg_left_of_it(tmp_path: Path) -> None:
    folder = tmp_path / "depths"
    folder.mkdir()
    folder.joinpath("a.jpg").write_bytes(jpeg(np.full((HEIGHT, WIDTH), 255, np.uint8)))
    episode = only(write_episode(tmp_path, [step(0, ARMS, depths={"depth_0": "depths/a.jpg"})]))
    spec = episode.streams["observation.depth.depth_0"].spec
    assert (spec.kind, spec.dtype, spec.unit) == ("depth", "uint16", ("unknown",))
    assert spec.attributes["stored_bits"] == 8
    assert any("cut off at 255" in warning for warning in episode.provenance.warnings)


def test_states_of_a_simulator_are_kept(tmp_path: Path) -> None:
    steps = steps_of(4)
    for i, one in enumerate(steps):
        one["sim_state"] = {"pose": [i, 0.5], "phase": "reach" if i < 2 else "lift", "task": "cup"}
    episode = only(write_episode(tmp_path, steps))
    np.testing.assert_array_equal(episode.streams["extra.sim_state.pose"].values()[:, 0], range(4))
    assert episode.extra["steps"] == {"data.sim_state.task": "cup"}
    assert [(e.kind, e.start_ns, e.text) for e in episode.events] == [
        ("sim_state.phase", 0, "reach"),
        ("sim_state.phase", 50_000_000, "lift"),
    ]


def test_a_joint_that_gave_no_number_is_kept_as_none(tmp_path: Path) -> None:
    steps = steps_of(2, states__left_arm__torque=[float("nan"), 1.0])
    steps[0]["states"]["left_arm"]["torque"] = steps[1]["states"]["left_arm"]["torque"] = [float("nan"), 1]
    values = only(write_episode(tmp_path, steps)).streams["observation.left_arm.joint_effort"].values()
    assert np.isnan(values[0, 0])


def test_a_rate_must_come_from_the_file_or_the_option(tmp_path: Path) -> None:
    folder = write_episode(tmp_path, steps_of(2), head(info={**HEAD["info"], "image": {}}))
    assert "rate_hz" in reading.refusal(UnitreeJson(), folder).advice
    clock = only(folder, rate_hz=20.0).clocks["steps"]
    assert (clock.declared_hz, clock.source) == (20.0, "option rate_hz")


def test_unfinished_episodes_of_a_task_are_named(tmp_path: Path) -> None:
    write_episode(tmp_path / "episode_0010", steps_of(2))
    write_episode(tmp_path / "episode_0009", steps_of(3))
    tmp_path.joinpath("episode_0011").mkdir()
    episodes = list(UnitreeJson().episodes(tmp_path))
    assert [next(iter(e.streams.values())).length for e in episodes] == [3, 2]
    assert any("episode_0011" in warning for warning in episodes[0].provenance.warnings)


@pytest.mark.parametrize(
    "name", ["../secret.jpg", "/etc/passwd", "colors/../../secret.jpg", "link.jpg", "a\0b"]
)
def test_a_picture_outside_of_the_episode_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "e"
    folder.joinpath("colors").mkdir(parents=True)
    tmp_path.joinpath("secret.jpg").write_bytes(jpeg(np.zeros((4, 4, 3), np.uint8)))
    folder.joinpath("link.jpg").symlink_to(tmp_path / "secret.jpg")
    error = reading.refusal(UnitreeJson(), write_episode(folder, [step(0, ARMS, colors={"color_0": name})]))
    assert "outside" in error.why


def test_a_picture_that_changes_its_size_or_is_gone_is_named(tmp_path: Path) -> None:
    folder = write_episode(tmp_path, with_pictures(tmp_path, [True] * 3))
    picture = folder / "colors/000002_color_0.jpg"
    picture.write_bytes(jpeg(np.zeros((4, 4, 3), np.uint8)))
    assert "000002_color_0.jpg" in reading.refusal(UnitreeJson(), folder).why
    picture.unlink()
    assert reading.refusal(UnitreeJson(), folder).path.endswith("000002_color_0.jpg")


def test_sound_with_pickles_in_it_is_never_loaded(tmp_path: Path) -> None:
    out = io.BytesIO()
    np.save(out, np.array([{"a": 1}], object), allow_pickle=True)
    tmp_path.joinpath("a.npy").write_bytes(out.getvalue())
    error = reading.refusal(UnitreeJson(), write_episode(tmp_path, [step(0, ARMS, audios={"mic0": "a.npy"})]))
    assert "pickle" in error.why


BROKEN: dict[str, Callable[[str], str]] = {
    "cut off": lambda text: text[: len(text) // 2],
    "empty": lambda _: "",
    "a list": lambda _: "[]",
    "no data": lambda _: '{"info": {}}',
    "no steps": lambda _: '{"data": []}',
    "data twice": lambda text: text.rstrip("}\n ") + ', "data": [{"idx": 1}]}',
    "a name twice": lambda text: text.replace('"idx": 0', '"idx": 0, "idx": 1'),
    "a step that is none": lambda text: text.replace('"data": [', '"data": [7,'),
    "more behind the end": lambda text: text + "{}",
    "rows of different lengths": lambda text: text.replace("0.1", "0.1, 0.1", 1),
    "a text in place of numbers": lambda text: text.replace("0.1", '"x"', 1),
    "numbers beyond 53 bits": lambda text: text.replace('"idx": 0', '"idx": 9007199254740993'),
    "nesting without end": lambda text: text.replace('"idx": 0', '"idx": ' + "[" * 200_000),
    "a value that is too large": lambda text: text.replace('"idx": 0', '"idx": "' + "x" * 5_000_000 + '"'),
    "not UTF-8": lambda text: text.replace("bottle", "b\udcffttle"),
    "a name of controls": lambda text: text.replace('"idx"', '"id\\u0007x"'),
    "fields without end": lambda text: text.replace(
        '"idx": 0', ",".join(f'"f{i}": 1' for i in range(1100)) + ', "idx": 0'
    ),
}


@pytest.mark.parametrize("damage", BROKEN)
def test_broken_json_is_refused_with_its_place(tmp_path: Path, damage: str) -> None:
    folder = write_episode(tmp_path, steps_of(3))
    data = folder / "data.json"
    text = BROKEN[damage](data.read_text("utf-8"))
    data.write_bytes(text.encode(errors="surrogateescape"))
    started = time.monotonic()
    error = reading.refusal(UnitreeJson(), folder)
    assert error.path == str(data)
    assert error.where
    assert time.monotonic() - started < 10


def test_a_file_above_the_bound_is_not_read(tmp_path: Path) -> None:
    folder = write_episode(tmp_path, steps_of(1))
    with folder.joinpath("data.json").open("r+b") as file:
        file.truncate(_unitree_steps.MAX_JSON_BYTES + 1)
    assert "at most" in reading.refusal(UnitreeJson(), folder).why


def read_hostile(folder: Path) -> None:
    reading.refusal(UnitreeJson(), folder)


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["{},", '{"a":[' + "0," * 2000 + "0]},", '{"colors":{"c":"x"}},', "[],"])
def test_the_densest_json_takes_less_than_a_gibibyte(tmp_path: Path, unit: str, peak_memory: Any) -> None:
    count = (_unitree_steps.MAX_JSON_BYTES - 100) // len(unit)
    tmp_path.joinpath("data.json").write_text('{"info":{},"data":[' + unit * count)
    started = time.monotonic()
    assert peak_memory(read_hostile, tmp_path) < 1 << 30
    assert time.monotonic() - started < 30
