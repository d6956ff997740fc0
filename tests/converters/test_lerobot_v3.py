"""What is special about LeRobot v3: episodes cut out of shared files, and what contradicts itself there."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image
from teleopen.converters import _lerobot_meta, _lerobot_shared, _mp4, _parquet
from teleopen.converters.base import version_of
from teleopen.converters.lerobot_v3 import LerobotV3
from teleopen.schemas import Episode, FormatError, NotFoundError, StreamSpec, problems_of

from tests.samples.lerobot_v3 import CAMERAS, FPS, LENGTHS, TASKS, video_path, write

Film = NDArray[np.uint8]
TOP, WRIST = CAMERAS
DATA = "data/chunk-000/file-000.parquet"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"
MIB = 1 << 20
_WHOLE = _parquet.whole


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("lerobot")).path


@pytest.fixture
def root(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "dataset"))


def read(root: Path, **options: Any) -> list[Episode]:
    episodes = list(LerobotV3(**options).episodes(root))
    for episode in episodes:
        assert problems_of(episode) == []
    return episodes


def edit_info(root: Path, **changes: Any) -> None:
    path = root / "meta/info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_feature(root: Path, name: str, **changes: Any) -> None:
    features = json.loads(root.joinpath("meta/info.json").read_text())["features"]
    edit_info(root, features=features | {name: features.get(name, {}) | changes})


def edit_rows(path: Path, edit: Callable[[list[dict[str, Any]]], Any], **types: pa.DataType) -> None:
    """Let ``edit`` change the rows of a Parquet file; columns that it adds are of these types."""
    old = pq.read_table(path)
    rows = old.to_pylist()
    edit(rows)
    schema = pa.schema([f if f.name not in types else f.with_type(types[f.name]) for f in old.schema])
    schema = pa.schema([*schema, *(pa.field(n, t) for n, t in types.items() if n not in schema.names)])
    pq.write_table(pa.Table.from_pylist(rows, schema), path)


def set_in(rows: list[dict[str, Any]], column: str, values: dict[int, Any]) -> None:
    for row, value in values.items():
        rows[row][column] = value


def in_sequence(path: Path) -> Film:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def fates(episode: Episode) -> dict[str, tuple[str, tuple[str, ...]]]:
    return {fate.field: (fate.fate, fate.to) for fate in episode.provenance.ledger}


# Cutting


@pytest.mark.parametrize("camera", CAMERAS)
def test_pictures_are_those_of_the_whole_file_decoded_in_sequence(root: Path, camera: str) -> None:
    whole = in_sequence(root / video_path(camera, 0))
    start = 0
    for episode in read(root, only=(0, 1, 2)):
        stream = episode.streams[camera]
        np.testing.assert_array_equal(stream.values(), whole[start : start + stream.length])
        start += stream.length
    assert start == len(whole)


def test_a_cut_within_a_group_begins_with_preroll(root: Path) -> None:
    _, second, *_ = read(root)
    packets = second.streams[WRIST].packets
    assert packets is not None
    assert [p.pts for p in packets.read()][:2] == [-1, 2]
    packets = second.streams[TOP].packets
    assert packets is not None
    assert [p.pts for p in packets.read()] == list(range(LENGTHS[1]))


def test_each_file_is_indexed_once(root: Path) -> None:
    before = _mp4._cached_index.cache_info().misses
    for episode in read(root):
        for camera in CAMERAS:
            episode.streams[camera].values(0, 1)
    assert _mp4._cached_index.cache_info().misses - before == 2 * len(CAMERAS)


def test_a_column_that_episodes_share_is_decoded_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[str] = []

    def whole(file: pq.ParquetFile, path: Path, column: str, spec: StreamSpec) -> Any:
        decoded.append(f"{path.name} {column}")
        return _WHOLE(file, path, column, spec)

    monkeypatch.setattr(_parquet, "whole", whole)
    episodes = read(root)
    for episode in episodes:
        episode.streams["action"].values()
    files = {e.provenance.sources[0].uri for e in episodes}
    assert len(files) < len(episodes)
    assert len([name for name in decoded if name.endswith(" action")]) == len(files)


def test_columns_too_large_to_be_kept_give_the_same_samples(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = [episode.streams["action"].values() for episode in read(root)]
    monkeypatch.setattr(_lerobot_shared, "_KEPT_BYTES", 0)
    _lerobot_shared._columns_kept.cache_clear()
    for episode, values in zip(read(root), kept, strict=True):
        np.testing.assert_array_equal(episode.streams["action"].values(), values)
    assert all(
        v is None for v in _lerobot_shared._columns_kept(*version_of((root / DATA).resolve())).values()
    )


def test_damage_in_one_episodes_rows_leaves_the_others_readable(root: Path) -> None:
    path = root / DATA
    table = pq.read_table(path)
    options: dict[str, Any] = {"compression": "none", "use_dictionary": False, "write_page_checksum": True}
    with pq.ParquetWriter(path, table.schema, **options) as writer:
        for start, stop in _lerobot_shared.runs_of(table["episode_index"].to_numpy()):
            writer.write_table(table.slice(start, stop - start))
    truth = [e.streams["action"].values() for e in read(root, only=(0, 1))]
    group = pq.read_metadata(path).row_group(1)
    column = next(
        c for i in range(group.num_columns) if (c := group.column(i)).path_in_schema.split(".")[0] == "action"
    )
    with path.open("r+b") as file:
        file.seek(column.data_page_offset + column.total_compressed_size // 2)
        (byte,) = file.read(1)
        file.seek(-1, io.SEEK_CUR)
        file.write(bytes([byte ^ 0xFF]))
    first, second = read(root, only=(0, 1))
    np.testing.assert_array_equal(first.streams["action"].values(), truth[0])
    with pytest.raises(FormatError, match="action"):
        second.streams["action"].values()


def test_rows_are_looked_up_by_value_and_not_by_position(root: Path) -> None:
    told = read(root)
    edit_rows(root / EPISODES, lambda rows: rows.reverse())
    assert [e.id for e in read(root)] == [e.id for e in told]
    assert [e.instructions for e in read(root)] == [e.instructions for e in told]


def test_seconds_that_drifted_are_corrected_by_counting(root: Path) -> None:
    told = read(root)

    def drift(rows: list[dict[str, Any]]) -> None:
        for i, row in enumerate(rows):
            row[f"videos/{TOP}/from_timestamp"] += 1.2 * i / FPS

    edit_rows(root / EPISODES, drift)
    first, second, third, _ = read(root)
    assert not any("pictures" in warning for warning in first.provenance.warnings)
    assert any("[26, 46); [25, 46) were taken" in w for w in second.provenance.warnings), second.provenance
    for episode, before in zip((first, second, third), told, strict=False):
        np.testing.assert_array_equal(episode.streams[TOP].values(), before.streams[TOP].values())


def shorten(root: Path, index: int, by: int) -> None:
    """Take the last rows of an episode of the first file away, and leave its pictures."""
    end = sum(LENGTHS[: index + 1])

    def episodes(rows: list[dict[str, Any]]) -> None:
        rows[index]["length"] -= by
        rows[index]["dataset_to_index"] -= by

    edit_rows(root / EPISODES, episodes)
    edit_rows(root / DATA, lambda rows: rows.__delitem__(slice(end - by, end)))
    edit_info(root, total_frames=sum(LENGTHS) - by)


def test_pictures_of_a_discarded_take_are_left_out(root: Path) -> None:
    told = read(root)
    shorten(root, 1, 4)
    _, second, third, _ = read(root)
    assert any("4 more than there are rows" in w for w in second.provenance.warnings)
    np.testing.assert_array_equal(
        second.streams[TOP].values(), told[1].streams[TOP].values(0, LENGTHS[1] - 4)
    )
    np.testing.assert_array_equal(third.streams[TOP].values(), told[2].streams[TOP].values())


def test_an_episode_with_too_few_pictures_is_refused_alone(root: Path) -> None:
    def swap(rows: list[dict[str, Any]]) -> None:
        # The last episode is told to end early, and something is left over so that counting is no help.
        rows[2][f"videos/{TOP}/to_timestamp"] -= 5 / FPS

    shorten(root, 0, 2)
    edit_rows(root / EPISODES, swap)
    with pytest.raises(FormatError, match=r"\[episode 2\].*fewer than the 19 rows"):
        read(root)
    assert len(read(root, only=(3, 1, 0, 1))) == 3


def cuts(lengths: list[int], spans: list[tuple[float, float]], pictures: int) -> list[Any]:
    times = (np.arange(pictures) * 1e9).astype(np.int64)
    moments = np.array([[a * 1e9, b * 1e9] for a, b in spans], np.int64)
    return list(_lerobot_shared._cuts(times, moments, np.array(lengths), 1e9))


def test_cuts_by_the_seconds() -> None:
    assert cuts([3, 4], [(0, 3), (3.4, 7.4)], 10) == [(0, ""), (3, "")]


def test_cuts_by_counting() -> None:
    found = cuts([3, 4], [(0, 3), (3.6, 7.6)], 7)
    assert [start for start, _ in found] == [0, 3]
    assert [bool(warning) for _, warning in found] == [False, True]


@pytest.mark.parametrize(
    ("lengths", "spans", "pictures", "why"),
    [
        ([3, 3], [(0, 3), (8, 11)], 10, "wanted of a video of 10"),
        ([3, 3], [(0, 3), (20, 23)], 10, "outside"),
        ([3, 3], [(0, 3), (-9, -6)], 10, "outside"),
        ([3, 3], [(0, 3), (2, 5)], 10, "another episode"),
        ([3, 3], [(0, 3), (3, 5)], 10, "fewer"),
        # They add up to all pictures, but in which order is unclear.
        ([3, 4], [(4, 7), (0, 4)], 7, ""),
    ],
)
def test_cuts_that_contradict_themselves(
    lengths: list[int], spans: list[tuple[float, float]], pictures: int, why: str
) -> None:
    found = cuts(lengths, spans, pictures)[1]
    assert why in found if why else found == (0, "")


def test_pictures_off_their_rows_are_told() -> None:
    times = (np.arange(4) * 2e9).astype(np.int64)
    (found,) = _lerobot_shared._cuts(times, np.array([[0, 8_000_000_000]]), np.array([4]), 1e9)
    assert found == (0, "pictures stand up to 3000.0 ms off the times of their rows")


# Time and bookkeeping


def test_times_that_were_measured_are_recorded_and_kept(root: Path) -> None:
    measured = np.cumsum(np.full(LENGTHS[0], 0.034, np.float32), dtype=np.float32)
    edit_rows(root / DATA, lambda rows: set_in(rows, "timestamp", dict(enumerate(measured.tolist()))))
    first, second, *_ = read(root)
    clock = first.clocks["steps"]
    assert (clock.kind, second.clocks["steps"].kind) == ("recorded", "nominal")
    expected = np.rint((measured.astype(np.float64) - measured.astype(np.float64)[0]) * 1e9)
    np.testing.assert_array_equal(clock.read(), expected.astype(np.int64))
    np.testing.assert_array_equal(first.streams["source.timestamp"].values(), measured)
    assert fates(first)["data#timestamp"] == ("renamed", ("source.timestamp",))


def test_counters_that_do_not_count_are_kept(root: Path) -> None:
    edit_rows(root / DATA, lambda rows: set_in(rows, "index", {3: 99}))
    first, second, *_ = read(root)
    assert first.streams["index"].values()[3] == 99
    assert fates(second)["data#index"] == ("transformed", ("extra.episode",))
    assert "index" not in second.streams


def test_a_task_that_changes_is_told_by_events(root: Path) -> None:
    _, second, third, _ = read(root)
    told = [(e.text, e.start_ns, e.attributes) for e in second.events if e.kind == "instruction"]
    assert told == [(TASKS[0], 0, {"task_index": 0}), (TASKS[1], 266_666_667, {"task_index": 1})]
    assert third.extra["task_index"] == 1
    assert not [e for e in third.events if e.kind == "instruction"]


def test_texts_per_row_become_events(root: Path) -> None:
    first = read(root)[0]
    assert [(e.kind, e.text) for e in first.events] == [("subgoal", "reach"), ("subgoal", "grasp")]
    assert first.events[0].stop_ns == first.events[1].start_ns == 400_000_000
    assert first.events[1].stop_ns == round(LENGTHS[0] * 1e9 / FPS)


def test_tasks_are_found_by_number_under_any_name(root: Path) -> None:
    table = pa.table({"task": list(reversed(TASKS)), "task_index": [1, 0]})
    pq.write_table(table, root / "meta/tasks.parquet")
    first = read(root)[0]
    assert first.instructions == TASKS[:1]
    assert any("not in order" in warning for warning in first.provenance.warnings)


def test_control_characters_stay_out_of_instructions(root: Path) -> None:
    table = pa.table({"task": ["Pick\x1b[2J up\r", TASKS[1]], "task_index": [0, 1]})
    pq.write_table(table, root / "meta/tasks.parquet")
    assert read(root)[0].instructions == ("Pick[2J up",)


def test_subtasks_become_events(root: Path) -> None:
    pq.write_table(
        pa.table({"subtask_index": [0, 1], "subtask": ["go", "grasp"]}), root / "meta/subtasks.parquet"
    )
    edit_feature(root, "subtask_index", dtype="int64", shape=[1], names=None)
    for path in sorted(root.glob("data/**/*.parquet")):
        edit_rows(
            path,
            lambda rows: [r.update(subtask_index=int(r["frame_index"] > 4)) for r in rows],
            subtask_index=pa.int64(),
        )
    first = read(root)[0]
    assert [e.text for e in first.events if e.kind == "subtask"] == ["go", "grasp"]
    assert first.streams["subtask_index"].values().sum() == LENGTHS[0] - 5


def test_language_columns_become_events(root: Path) -> None:
    said = [{"role": "user", "content": "faster", "timestamp": 0.5}]
    members: list[tuple[str, pa.DataType]] = [
        ("role", pa.string()),
        ("content", pa.string()),
        ("timestamp", pa.float32()),
    ]
    edit_feature(root, "language_events", dtype="language", shape=[1], names=None)
    for path in sorted(root.glob("data/**/*.parquet")):
        edit_rows(
            path,
            lambda rows: [r.update(language_events=said if r["frame_index"] == 3 else []) for r in rows],
            language_events=pa.list_(pa.struct(members)),
        )
    (event,) = [e for e in read(root)[0].events if e.kind == "language_events"]
    assert (event.start_ns, event.stop_ns) == (100_000_000, 133_333_333)
    assert event.attributes == {"value": said}


# Features


@pytest.mark.parametrize(
    ("names", "axes"),
    [
        (["a", "b"], ("a", "b")),
        ({"motors": ["a", "b"]}, ("a", "b")),
        ([["a", "b"]], ("a", "b")),
        ({"b": 1, "a": 0}, ("a", "b")),
        (["a", "a"], ()),
        (["a"], ()),
        (["a", 3], ()),
        ({"x": ["a"], "y": ["b"]}, ()),
        ("ab", ()),
        (None, ()),
    ],
)
def test_names_come_in_many_forms(names: Any, axes: tuple[str, ...]) -> None:
    found, attributes = _lerobot_meta.axes_of({"names": names}, (2,))
    assert found == axes
    assert attributes.get("names", list(axes) or None) == names


def test_what_an_action_means_is_unknown(root: Path) -> None:
    action = read(root)[0].streams["action"].spec
    assert action.contract is not None
    assert (action.contract.parts, action.contract.offset_steps) == ((), None)
    assert (action.unit, action.frame) == (("unknown",), "unknown")


def test_streams_are_typed_as_the_data_and_not_as_declared(root: Path) -> None:
    edit_feature(root, "action", dtype="float64")
    first = read(root)[0]
    assert first.streams["action"].spec.dtype == "float32"
    assert any("declares 'float64'" in warning for warning in first.provenance.warnings)


def test_columns_that_are_not_declared_are_kept_and_told(root: Path) -> None:
    edit_rows(
        root / DATA,
        lambda rows: [
            r.update({"__index_level_0__": i, "odd name/°": [1.5], "start": 2}) for i, r in enumerate(rows)
        ],
        **{"__index_level_0__": pa.int64(), "odd name/°": pa.list_(pa.float32(), 1), "start": pa.int64()},
    )
    first = read(root)[0]
    assert first.streams["__index_level_0__"].values().tolist() == list(range(LENGTHS[0]))
    assert fates(first)["data#odd name/°"] == ("renamed", ("odd_name__",))
    assert fates(first)["data#start"] == ("renamed", ("source.start",))
    assert first.streams["odd_name__"].spec.shape == (1,)


@pytest.mark.parametrize(
    ("mode", "shape", "kind"),
    [("L", (6, 8, 1), "video"), ("I;16", (6, 8), "depth"), ("RGB", (6, 8, 3), "video")],
)
def test_images_of_other_modes(root: Path, mode: str, shape: tuple[int, ...], kind: str) -> None:
    dtype = np.uint16 if mode == "I;16" else np.uint8
    picture = np.random.default_rng(1).integers(0, 255, shape, dtype)
    out = io.BytesIO()
    Image.fromarray(picture[..., 0] if mode == "L" else picture).save(out, "PNG")
    edit_rows(
        root / DATA,
        lambda rows: [
            r.update({"observation.images.still": {"bytes": out.getvalue(), "path": None}}) for r in rows
        ],
    )
    first = read(root)[0]
    stream = first.streams["observation.images.still"]
    assert (stream.spec.kind, stream.spec.shape, stream.spec.dtype) == (kind, shape, np.dtype(dtype).name)
    np.testing.assert_array_equal(stream.values(2, 3)[0], picture)
    assert any("holds pictures of" in warning for warning in first.provenance.warnings)


# Provenance


def test_the_licence_is_evidence_word_for_word(root: Path) -> None:
    card = "---\nlicense:\n- cc-by-nc-4.0\n- other\nlicense_name: mine\ntags: []\n---\nlicense: mit\n"
    root.joinpath("README.md").write_text(card)
    edit_info(root, license="cc0-1.0")
    edit_rows(
        root / EPISODES,
        lambda rows: [r.update(consent_form=f"form {i}") for i, r in enumerate(rows)],
        consent_form=pa.string(),
    )
    second = read(root)[1]
    assert second.provenance.evidence == {
        "README.md": "license:\n- cc-by-nc-4.0\n- other\nlicense_name: mine\n",
        "meta/info.json#license": "cc0-1.0",
        "meta/episodes#consent_form": "form 1",
    }


def test_the_default_licence_is_told_to_be_one(root: Path) -> None:
    assert any("apache-2.0" in warning for warning in read(root)[0].provenance.warnings)
    root.joinpath("README.md").unlink()
    assert not read(root)[0].provenance.warnings
    assert not read(root)[0].provenance.evidence


def test_sources_are_all_files_the_episode_lives_in(root: Path) -> None:
    last = read(root)[3]
    assert {s.uri: s.role for s in last.provenance.sources} == {
        "data/chunk-000/file-001.parquet": "recording",
        **{video_path(camera, 1): "video" for camera in CAMERAS},
        "meta/episodes/chunk-000/file-001.parquet": "metadata",
        **dict.fromkeys(("meta/info.json", "meta/tasks.parquet", "README.md"), "metadata"),
    }
    assert last.provenance.selector == "episode_index=3"


def test_the_id_is_of_the_payload_alone(root: Path) -> None:
    told = read(root)
    edit_info(root, robot_type=None)
    assert [e.id for e in read(root)] == [e.id for e in told]
    assert read(root)[0].embodiment == "unknown"


def test_only_some_episodes_are_read(root: Path) -> None:
    assert [e.provenance.selector for e in read(root, only=(2, 0))] == ["episode_index=0", "episode_index=2"]
    with pytest.raises(NotFoundError, match="no episode 7"):
        read(root, only=(7,))


# What is refused


def test_version_two_is_refused_with_advice(root: Path) -> None:
    edit_info(root, codebase_version="v2.1")
    assert not LerobotV3().probe(root)
    with pytest.raises(FormatError, match="script") as caught:
        read(root)
    assert caught.value.where == "codebase_version"


def test_templates_reach_nothing_else() -> None:
    values = {"video_key": "{chunk_index}", "chunk_index": 7}
    assert _lerobot_meta._filled("a/{video_key}/{chunk_index:03d}.mp4", values) == "a/{chunk_index}/007.mp4"
    for template in (
        "{chunk_index.__class__}",
        "{chunk_index:999999999d}",
        "{other}",
        "{0}",
        "{{}}",
        "{chunk_index!r}",
    ):
        assert _lerobot_meta._filled(template, values) is None


def absurd(shape: Any) -> Callable[[Path], None]:
    return lambda root: edit_feature(root, "action", shape=shape)


def in_episodes(column: str, value: Any) -> Callable[[Path], None]:
    return lambda root: edit_rows(root / EPISODES, lambda rows: set_in(rows, column, {1: value}))


def in_data(column: str, value: Any) -> Callable[[Path], None]:
    return lambda root: edit_rows(root / DATA, lambda rows: set_in(rows, column, {30: value}))


def damaged(name: str, share: float) -> Callable[[Path], None]:
    def cut(root: Path) -> None:
        raw = root.joinpath(name).read_bytes()
        root.joinpath(name).write_bytes(raw[: int(len(raw) * share)])

    return cut


def scribbled(name: str) -> Callable[[Path], None]:
    def scribble(root: Path) -> None:
        raw = bytearray(root.joinpath(name).read_bytes())
        raw[40 : len(raw) // 2] = bytes(b ^ 0x5A for b in raw[40 : len(raw) // 2])
        root.joinpath(name).write_bytes(raw)

    return scribble


def no_utf8(name: str, text: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        raw, old = root.joinpath(name).read_bytes(), text.encode()
        assert old in raw
        root.joinpath(name).write_bytes(raw.replace(old, b"\xff" * len(old)))

    return change


def other_image(root: Path) -> None:
    out = io.BytesIO()
    Image.new("RGB", (9, 9)).save(out, "PNG")
    in_data("observation.images.still", {"bytes": out.getvalue(), "path": None})(root)


def ffconcat(root: Path) -> None:
    path = root / video_path(WRIST, 0)
    path.rename(path.with_name("real.mp4"))
    path.write_text("ffconcat version 1.0\nfile real.mp4\n")


def climbing(root: Path) -> None:
    outside = root.parent / "outside.parquet"
    shutil.copy(root / DATA, outside)
    edit_info(root, data_path="../outside.parquet")


def linked(root: Path) -> None:
    outside = root.parent / "outside.parquet"
    shutil.move(root / DATA, outside)
    root.joinpath(DATA).symlink_to(outside)


def info_text(old: str, new: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        path = root / "meta/info.json"
        path.write_text(path.read_text().replace(old, new))

    return change


HOSTILE: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "info is no JSON": (damaged("meta/info.json", 0.5), "info.json", ""),
    "a key twice": (info_text('"fps"', '"fps": 10, "fps"'), "info.json", ""),
    "fps NaN": (info_text('"fps": 30', '"fps": NaN'), "info.json", ""),
    "fps infinite": (info_text('"fps": 30', '"fps": 1e999'), "info.json", ""),
    "fps zero": (lambda root: edit_info(root, fps=0), "info.json", "fps"),
    "fps true": (lambda root: edit_info(root, fps=True), "info.json", "fps"),
    "Lance": (lambda root: edit_info(root, storage_format="lance"), "info.json", "storage_format"),
    "too many episodes": (lambda root: edit_info(root, total_episodes=5), "info.json", "total_episodes"),
    "too many frames": (lambda root: edit_info(root, total_frames=10**12), "info.json", "total_frames"),
    "no features": (lambda root: edit_info(root, features=None), "info.json", "features"),
    "a feature's name": (
        lambda root: edit_feature(root, "../x", dtype="float32", shape=[1]),
        "info.json",
        "../x",
    ),
    "shape of ten thousand billions": (absurd([10**13]), "info.json", "features.action.shape"),
    "shape of zero": (absurd([0]), "info.json", "features.action.shape"),
    "shape of a text": (absurd("3"), "info.json", "features.action.shape"),
    "shape too large": (absurd([300]), "file-000.parquet", "action"),
    "shape too deep": (absurd([1, 3]), "file-000.parquet", "action"),
    "a column is absent": (
        lambda root: edit_feature(root, "nothing", dtype="float32", shape=[1]),
        "file-000.parquet",
        "nothing",
    ),
    "data path climbs out": (climbing, "info.json", "data_path"),
    "data path is absolute": (
        lambda root: edit_info(root, data_path="/etc/passwd"),
        "info.json",
        "data_path",
    ),
    "data file links out": (linked, "info.json", "data_path"),
    "template of attributes": (
        lambda root: edit_info(root, data_path="{chunk_index.real}"),
        "info.json",
        "data_path",
    ),
    "no video path": (lambda root: edit_info(root, video_path=None), "info.json", "video_path"),
    "video is absent": (lambda root: root.joinpath(video_path(TOP, 0)).unlink(), "info.json", "episode 0"),
    "video is an ffconcat script": (ffconcat, "file-000.mp4", "byte 4"),
    "video is cut off": (damaged(video_path(TOP, 0), 0.7), "file-000.mp4", "moov"),
    "data is cut off": (damaged(DATA, 0.7), "file-000.parquet", ""),
    "data is garbled": (scribbled(DATA), "file-000.parquet", ""),
    "episodes are garbled": (scribbled(EPISODES), "file-000.parquet", ""),
    "tasks are cut off": (damaged("meta/tasks.parquet", 0.5), "tasks.parquet", ""),
    "a task is unknown": (in_data("task_index", 2), "file-000.parquet", "task_index, row 30"),
    "a task is no text": (no_utf8("meta/tasks.parquet", "tray"), "tasks.parquet", ""),
    "a text is none": (no_utf8(DATA, "grasp"), "file-000.parquet", "subgoal"),
    "a value is absent": (in_data("next.reward", None), "file-000.parquet", "next.reward"),
    "a list is short": (
        in_data("observation.touch", [[1.0], [2.0]]),
        "file-000.parquet",
        "observation.touch",
    ),
    "an image is of another size": (other_image, "file-000.parquet", "observation.images.still, row 30"),
    "an image is no image": (
        in_data("observation.images.still", {"bytes": b"GIF89a", "path": None}),
        "file-000.parquet",
        "observation.images.still, row 30",
    ),
    "an image is elsewhere": (
        in_data("observation.images.still", {"bytes": None, "path": "/etc/passwd"}),
        "file-000.parquet",
        "observation.images.still, row 30",
    ),
    "time runs backwards": (in_data("timestamp", -1.0), "file-000.parquet", "timestamp, row 30"),
    "time is no number": (in_data("timestamp", float("nan")), "file-000.parquet", "timestamp, episode 1"),
    "rows of two episodes mixed": (in_data("episode_index", 0), "file-000.parquet", "episode_index, row 30"),
    "an episode twice": (in_episodes("episode_index", 0), "file-000.parquet", "row 1"),
    "length does not fit": (in_episodes("dataset_to_index", 99), "file-000.parquet", "episode 1"),
    "length is negative": (in_episodes("length", -1), "file-000.parquet", "length"),
    "file of another episode": (in_episodes("data/file_index", 1), "file-001.parquet", "episode 1"),
    "file number is negative": (in_episodes("data/file_index", -1), "file-000.parquet", "data/file_index"),
    "seconds are absent": (
        in_episodes(f"videos/{TOP}/from_timestamp", None),
        "file-000.parquet",
        f"videos/{TOP}/from_timestamp",
    ),
    "no table of episodes": (lambda root: shutil.rmtree(root / "meta/episodes"), "info.json", ""),
}


def read_through(root: Path) -> None:
    for episode in LerobotV3().episodes(root):
        for stream in episode.streams.values():
            for _ in stream:
                pass


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_and_broken_datasets_are_refused_with_their_place(name: str, root: Path) -> None:
    breaks, file, where = HOSTILE[name]
    breaks(root)
    with pytest.raises(FormatError) as caught:
        read_through(root)
    assert caught.value.path.endswith(file), caught.value
    assert where in caught.value.where, caught.value


def test_seconds_that_are_no_number_are_refused(root: Path) -> None:
    in_episodes(f"videos/{TOP}/from_timestamp", float("nan"))(root)
    with pytest.raises(FormatError, match=r"\[episode 1\]: from_timestamp lies outside of the video"):
        read(root)


# Parquet


def one_row_group(path: Path, rows: int) -> None:
    table = pa.table({"x": pa.array(np.random.default_rng(0).random(rows))})
    pq.write_table(table, path, row_group_size=rows, use_dictionary=False, compression="none")


def read_column(path: Path, rows: int) -> None:
    spec = StreamSpec(name="x", kind="low_dim", dtype="float64", shape=())
    for block in _parquet.numbers(path, "x", spec, MIB, 0, 0, rows):
        assert block.nbytes <= MIB


def test_a_large_row_group_is_read_piece_by_piece(tmp_path: Path, peak_memory: Callable[..., int]) -> None:
    # What the library itself takes when it is first used is taken by the small one, too.
    small, large = tmp_path / "small.parquet", tmp_path / "large.parquet"
    one_row_group(small, MIB // 8)
    one_row_group(large, 8 * MIB)
    assert large.stat().st_size > 60 * MIB
    growth = peak_memory(read_column, large, 8 * MIB) - peak_memory(read_column, small, MIB // 8)
    assert growth < 16 * MIB


# Real recordings


REAL = {
    "v3.0_aloha_sim_2tasks": ([60, 60, 40], "observation.images.top"),
    "v3.0_g1_bottle_officially_converted": ([120, 100], "observation.images.cam_high"),
    "v3.0_so101_pick_place": ([383, 386, 379, 382, 90, 162], "observation.images.wrist"),
}


@pytest.mark.parametrize("name", REAL)
def test_real_recordings_are_cut_exactly(name: str, shared_data: Path) -> None:
    root, (lengths, camera) = shared_data / "lerobot" / name, REAL[name]
    episodes = read(root)
    assert [e.streams[camera].length for e in episodes] == lengths
    assert not [w for e in episodes for w in e.provenance.warnings]
    start = 0
    with av.open(str(next(root.glob("videos/**/*.mp4")))) as container:
        decoded = (frame.to_ndarray(format="rgb24") for frame in container.decode(video=0))
        for episode, length in zip(episodes, lengths, strict=True):
            assert episode.clocks["steps"].kind == "nominal"
            for block in episode.streams[camera]:
                for picture in block:
                    np.testing.assert_array_equal(picture, next(decoded))
            start += length
        assert next(decoded, None) is None


@pytest.mark.parametrize("name", REAL)
def test_real_numbers_are_those_of_pyarrow(name: str, shared_data: Path) -> None:
    root = shared_data / "lerobot" / name
    table = pq.read_table(root / "data/chunk-000/file-000.parquet")
    for index, episode in enumerate(read(root)):
        rows = table.filter(pa.compute.field("episode_index") == index)
        for stream in episode.streams.values():
            if stream.spec.kind == "low_dim":
                told = np.array(rows.column(stream.spec.name).to_pylist(), stream.spec.np_dtype)
                assert stream.values().tobytes() == told.tobytes()


def test_other_versions_are_not_claimed(shared_data: Path) -> None:
    others = [p for p in shared_data.joinpath("lerobot").iterdir() if not p.name.startswith("v3")]
    assert others
    assert not [p for p in others if LerobotV3().probe(p)]
    with pytest.raises(FormatError, match=r"v2\.1"):
        read(shared_data / "lerobot/v2.1_g1_bottle")
