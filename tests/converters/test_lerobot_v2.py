"""What is special about LeRobot v2: a file per episode, lines of JSON, and GR00T's names for slices."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from teleopen.converters import _lerobot_tables, converter_for
from teleopen.converters.lerobot_v2 import LerobotV2
from teleopen.converters.lerobot_v3 import LerobotV3
from teleopen.schemas import Episode, FormatError, NotFoundError, problems_of

from tests.samples import lerobot_v2 as sample
from tests.samples import lerobot_v3
from tests.samples.lerobot_v2 import CAMERA, LENGTHS, TASKS, VALIDITY, data_path, video_path

EPISODES, TASK_LINES, MODALITY = "meta/episodes.jsonl", "meta/tasks.jsonl", "meta/modality.json"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sample.write(tmp_path_factory.mktemp("lerobot")).path


@pytest.fixture
def root(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "dataset"))


def read(root: Path, **options: Any) -> list[Episode]:
    episodes = list(LerobotV2(**options).episodes(root))
    for episode in episodes:
        assert problems_of(episode) == []
    return episodes


def edit_json(root: Path, name: str, **changes: Any) -> None:
    path = root / name
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_line(root: Path, name: str, line: int, **changes: Any) -> None:
    path = root / name
    rows = [json.loads(text) for text in path.read_text().splitlines()]
    rows[line] |= changes
    sample.write_lines(path, rows)


def edit_table(path: Path, edit: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(edit(pq.read_table(path)), path)


def slices(**entries: Any) -> dict[str, Any]:
    return sample.MODALITY | {"action": entries}


# Where things lie


def test_sources_are_the_files_of_the_episode_alone(root: Path) -> None:
    last = read(root)[2]
    assert {s.uri: s.role for s in last.provenance.sources} == {
        data_path(2): "recording",
        video_path(2): "video",
        **dict.fromkeys(("meta/info.json", TASK_LINES, EPISODES, MODALITY), "metadata"),
    }
    assert last.provenance.selector == "episode_index=2"
    assert (last.provenance.format, last.provenance.converter) == ("lerobot-v2", "lerobot_v2")


def test_lines_may_be_in_any_order_and_episodes_come_by_index(root: Path) -> None:
    told = [e.id for e in read(root)]
    lines = root.joinpath(EPISODES).read_text().splitlines()
    root.joinpath(EPISODES).write_text("\n\n".join(reversed(lines)))
    assert [e.id for e in read(root)] == told


def test_tasks_of_an_episode_that_are_no_texts_are_a_warning_and_no_crash(root: Path) -> None:
    lines(EPISODES, 0, tasks=[["pick"], 3])(root)
    first = read(root)[0]
    assert any("those of the rows" in warning for warning in first.provenance.warnings)


def test_only_some_episodes_are_read(root: Path) -> None:
    root.joinpath(data_path(1)).unlink()
    assert [e.provenance.selector for e in read(root, only=(2, 0))] == ["episode_index=0", "episode_index=2"]
    with pytest.raises(NotFoundError, match="no episode 9"):
        read(root, only=(9,))
    with pytest.raises(FormatError, match="is absent"):
        read(root)


def test_pictures_beyond_the_rows_are_left_out_with_a_warning(root: Path) -> None:
    film = lerobot_v3.film(np.random.default_rng(0), LENGTHS[0] + 2)
    root.joinpath(video_path(0)).write_bytes(lerobot_v3.encoded(film, "libx264"))
    first = read(root)[0]
    assert first.streams[CAMERA].length == LENGTHS[0]
    assert any("the last ones were left out" in warning for warning in first.provenance.warnings)


def test_columns_that_say_nothing_new_may_be_absent(root: Path) -> None:
    edit_table(root / data_path(0), lambda table: table.drop_columns(["frame_index", "index"]))
    told = {fate.field for fate in read(root)[0].provenance.ledger}
    assert not told & {"data#frame_index", "data#index"}
    edit_table(root / data_path(0), lambda table: table.drop_columns(["timestamp"]))
    with pytest.raises(FormatError, match="absent"):
        read(root)


def test_an_index_that_jumps_is_kept_as_a_stream(root: Path) -> None:
    def jump(table: pa.Table) -> pa.Table:
        at = table.schema.get_field_index("index")
        return table.set_column(at, "index", pa.array(np.arange(table.num_rows) * 2))

    assert read(root)[1].extra["first_index"] == LENGTHS[0]
    edit_table(root / data_path(1), jump)
    episode = read(root)[1]
    assert episode.streams["index"].values().tolist() == list(range(0, 2 * LENGTHS[1], 2))
    assert episode.provenance.warnings


def test_members_of_an_episodes_line_are_kept(root: Path) -> None:
    edit_line(root, EPISODES, 1, action_config=[{"start_frame": 0, "text": "reach"}], license="CC0-1.0")
    episode = read(root)[1]
    assert episode.extra["episode"]["action_config"] == [{"start_frame": 0, "text": "reach"}]
    assert episode.provenance.evidence[f"{EPISODES}#license"] == "CC0-1.0"


def test_statistics_of_both_versions_are_left_behind(root: Path) -> None:
    root.joinpath("meta/stats.json").write_text("{}")
    edit_json(root, "meta/info.json", codebase_version="v2.0")
    fates = {fate.field: fate.fate for fate in read(root)[0].provenance.ledger}
    assert fates["meta/stats.json"] == fates["meta/episodes_stats.jsonl"] == "dropped"


# GR00T


def test_slices_name_axes_and_say_what_an_action_is(root: Path) -> None:
    episode = read(root)[0]
    state, action = (episode.streams[name].spec for name in ("observation.state", "action"))
    assert state.axes == ("arm.0", "arm.1", "gripper")
    assert state.attributes["modality"]["state.gripper"] == {"start": 2, "end": 3, "range": [0, 1]}
    assert action.axes == ("shoulder", "elbow", "gripper")  # info.json's own names come first
    assert action.contract is not None
    told = [(p.start, p.stop, p.mode, p.rotation) for p in action.contract.parts]
    assert told == [(0, 2, "delta", "euler_xyz"), (2, 3, "absolute", "unknown")]
    assert episode.streams[CAMERA].spec.attributes["modality"] == {"video.ego_view": {}}
    assert episode.extra["modality"] == sample.MODALITY


def test_what_is_not_declared_stays_unknown(root: Path) -> None:
    edit_json(root, MODALITY, action={"arm": {"start": 0, "end": 3, "rotation_type": "quaternion"}})
    contract = read(root)[0].streams["action"].spec.contract
    assert contract is not None
    assert [(p.mode, p.rotation) for p in contract.parts] == [("unknown", "unknown")]


def test_slices_that_overlap_are_attributes_and_no_parts(root: Path) -> None:
    edit_json(root, MODALITY, action={"all": {"start": 0, "end": 3}, "hand": {"start": 2, "end": 3}})
    spec = read(root)[0].streams["action"].spec
    assert spec.contract is not None
    assert spec.contract.parts == ()
    assert set(spec.attributes["modality"]) == {"action.all", "action.hand"}


def test_slices_of_other_columns_go_to_them(root: Path) -> None:
    entry = {"start": 0, "end": 1, "original_key": "next.reward"}
    edit_json(root, MODALITY, state={"reward": entry}, action={"lost": entry | {"original_key": "nothing"}})
    episode = read(root)[0]
    assert episode.streams["next.reward"].spec.attributes["modality"] == {"state.reward": entry}
    assert any("'nothing'" in warning for warning in episode.provenance.warnings)


def test_annotations_are_events_with_the_texts_of_tasks(root: Path) -> None:
    events = [e for e in read(root)[0].events if e.kind == VALIDITY]
    assert [(e.text, e.attributes) for e in events] == [(TASKS[1], {VALIDITY: 1})]
    assert events[0].stop_ns == round(LENGTHS[0] * 1e9 / sample.FPS)


def test_version_three_is_read_with_modality_too(tmp_path: Path) -> None:
    root = lerobot_v3.write(tmp_path).path
    bare = next(iter(LerobotV3().episodes(root)))
    root.joinpath(MODALITY).write_text(json.dumps(sample.MODALITY))
    told = next(iter(LerobotV3().episodes(root)))
    contract = told.streams["action"].spec.contract
    assert contract is not None
    assert [part.mode for part in contract.parts] == ["delta", "absolute"]
    assert told.id == bare.id


# What is refused


def lines(name: str, line: int, **changes: Any) -> Callable[[Path], None]:
    return lambda root: edit_line(root, name, line, **changes)


def modality(**changes: Any) -> Callable[[Path], None]:
    return lambda root: edit_json(root, MODALITY, **changes)


def appended(name: str, raw: bytes) -> Callable[[Path], None]:
    def append(root: Path) -> None:
        with root.joinpath(name).open("ab") as file:
            file.write(raw)

    return append


def other_episode(root: Path) -> None:
    shutil.copy(root / data_path(1), root / data_path(0))


def swapped(root: Path) -> None:
    edit_line(root, EPISODES, 0, length=LENGTHS[1])
    edit_line(root, EPISODES, 1, length=LENGTHS[0])


def in_place_of(path: Path, text: str) -> None:
    path.write_text(text)


def two_episodes(root: Path) -> None:
    parts = [pq.read_table(root / data_path(i)) for i in (0, 1)]
    pq.write_table(pa.concat_tables(parts), root / data_path(0))


HOSTILE: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "length that lies": (lines(EPISODES, 0, length=LENGTHS[0] + 1), "info.json", "total_frames"),
    "lengths swapped": (
        swapped,
        "episode_000000.parquet",
        "episode 0",
    ),
    "length negative": (lines(EPISODES, 1, length=-5), "episodes.jsonl", "row 1, length"),
    "length of 2^63": (lines(EPISODES, 1, length=1 << 63), "episodes.jsonl", "row 1, length"),
    "length true": (lines(EPISODES, 1, length=True), "episodes.jsonl", "row 1, length"),
    "an episode twice": (lines(EPISODES, 1, episode_index=0), "episodes.jsonl", "row 1"),
    "an episode of words": (lines(EPISODES, 1, episode_index="../0"), "episodes.jsonl", "row 1"),
    "a line that is no JSON": (appended(EPISODES, b"{"), "episodes.jsonl", "byte "),
    "a line that is no object": (appended(EPISODES, b"[1]"), "episodes.jsonl", "byte "),
    "a line that is no UTF-8": (appended(TASK_LINES, b'{"task": "\xff"}'), "tasks.jsonl", "byte "),
    "a line that nests": (appended(EPISODES, b"[" * 5_000), "episodes.jsonl", "byte "),
    "a line without end": (appended(EPISODES, b"1" * (1 << 22)), "episodes.jsonl", "byte "),
    "a task twice": (lines(TASK_LINES, 1, task_index=0), "tasks.jsonl", "row 1"),
    "a task that is no text": (lines(TASK_LINES, 1, task=7), "tasks.jsonl", "row 1"),
    "a task that is absent": (
        lambda root: sample.write_lines(root / TASK_LINES, [{"task_index": 5, "task": "x"}]),
        "episode_000000.parquet",
        "task_index, row 0",
    ),
    "no tasks": (lambda root: root.joinpath(TASK_LINES).unlink(), "tasks.jsonl", ""),
    "no episodes": (lambda root: root.joinpath(EPISODES).unlink(), "episodes.jsonl", ""),
    "chunks of zero": (
        lambda root: edit_json(root, "meta/info.json", chunks_size=0),
        "info.json",
        "chunks_size",
    ),
    "a path that climbs": (
        lambda root: edit_json(root, "meta/info.json", data_path="../{episode_index}.parquet"),
        "info.json",
        "data_path",
    ),
    "a file of another episode": (other_episode, "episode_000000.parquet", "episode_index, episode 0"),
    "a file of two episodes": (two_episodes, "episode_000000.parquet", "episode_index, episode 0"),
    "a slice beyond the axes": (
        modality(action={"arm": {"start": 0, "end": 4}}),
        "modality.json",
        "action.arm",
    ),
    "a slice of 2^63": (modality(state={"a": {"start": 0, "end": 1 << 63}}), "modality.json", "state.a"),
    "a slice backwards": (modality(state={"a": {"start": 2, "end": 1}}), "modality.json", "state.a"),
    "a slice from the end": (modality(state={"a": {"start": -1, "end": 1}}), "modality.json", "state.a"),
    "a slice of words": (modality(state={"a": {"start": "0", "end": 1}}), "modality.json", "state.a"),
    "a slice of a table": (
        modality(state={"a": {"start": 0, "end": 2, "original_key": "observation.touch"}}),
        "modality.json",
        "state.a",
    ),
    "a list of slices": (modality(state=[1]), "modality.json", "state"),
    "a modality of words": (lambda root: in_place_of(root / MODALITY, '"x"'), "modality.json", ""),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_and_broken_datasets_are_refused_with_their_place(name: str, root: Path) -> None:
    breaks, file, where = HOSTILE[name]
    breaks(root)
    with pytest.raises(FormatError) as caught:
        read(root)
    assert caught.value.path.endswith(file), caught.value
    assert where in caught.value.where, caught.value


def test_a_table_of_many_episodes_keeps_places_and_not_lines(
    tmp_path: Path, peak_memory: Callable[..., int]
) -> None:
    path = tmp_path / "episodes.jsonl"
    tasks = ["x" * 2_000]
    sample.write_lines(path, ({"episode_index": i, "tasks": tasks, "length": 1} for i in range(20_000)))
    assert path.stat().st_size > 38 << 20
    assert peak_memory(_lerobot_tables.LinesTable.open, tmp_path, path.name) < 16 << 20


# Real recordings


REAL = {"v2.0_umi": [200], "v2.1_g1_bottle": [120, 100]}


@pytest.mark.parametrize("name", REAL)
def test_real_numbers_are_those_of_pyarrow(name: str, shared_data: Path) -> None:
    root = shared_data / "lerobot" / name
    assert converter_for(root).format.name == "lerobot-v2"
    episodes = read(root)
    assert [e.clocks["steps"].length for e in episodes] == REAL[name]
    for index, episode in enumerate(episodes):
        assert not episode.provenance.warnings
        table = pq.read_table(root / f"data/chunk-000/episode_{index:06d}.parquet")
        for stream in episode.streams.values():
            if stream.spec.kind == "low_dim":
                told = np.array(table.column(stream.spec.name).to_pylist(), stream.spec.np_dtype)
                assert stream.values().tobytes() == told.tobytes()


def test_both_versions_of_one_recording_give_the_same(shared_data: Path) -> None:
    """The second was made from the first by LeRobot's own script."""
    old = read(shared_data / "lerobot/v2.1_g1_bottle")
    new = list(LerobotV3().episodes(shared_data / "lerobot/v3.0_g1_bottle_officially_converted"))
    for before, after in zip(old, new, strict=True):
        assert before.instructions == after.instructions
        assert before.embodiment == after.embodiment
        assert before.streams.keys() == after.streams.keys()
        np.testing.assert_array_equal(before.clocks["steps"].read(), after.clocks["steps"].read())
        for name, stream in before.streams.items():
            assert stream.spec.axes == after.streams[name].spec.axes
            for left, right in zip(stream, after.streams[name], strict=True):
                np.testing.assert_array_equal(left, right)


def test_version_three_is_not_claimed_and_version_one_is_refused_by_name(shared_data: Path) -> None:
    versions = {p: p.name[:2] for p in shared_data.joinpath("lerobot").iterdir()}
    assert set(versions.values()) == {"v1", "v2", "v3"}
    for path, version in versions.items():
        assert LerobotV2().probe(path) == (version != "v3"), path
        if version == "v1":
            with pytest.raises(FormatError, match=r"version 1 .*convert_dataset_v1_to_v2"):
                read(path)
