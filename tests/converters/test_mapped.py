"""What a mapping file can say, that it is taken at its word, and that nothing else is."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from teleopen.converters import _hdf5, converter_for
from teleopen.converters._columns import even
from teleopen.converters.mapped import Mapped
from teleopen.schemas import Episode, FormatError, UnknownFormatError, problems_of

from tests.converters.tables import KINDS, write_mapping, write_table

STEPS = 12
RATE = "[clocks.steps]\nrate_hz = 50\n"
Q = '[streams."observation.q"]\nfield = "q"\n'

Convert = Callable[..., list[Episode]]


@pytest.fixture
def convert(tmp_path: Path) -> Convert:
    """Write a table and a mapping, and read all episodes."""

    def run(text: str, kind: str = "hdf5", path: Path | None = None, **columns: Any) -> list[Episode]:
        table = path or write_table(tmp_path, kind, {k.replace("__", "/"): v for k, v in columns.items()})
        mapping = write_mapping(tmp_path / "lab.toml", text)
        episodes = list(Mapped(mapping=str(mapping)).episodes(table))
        for episode in episodes:
            assert problems_of(episode) == []
            for stream in episode.streams.values():
                assert len(stream.values()) == stream.length
        return episodes

    return run


@pytest.fixture
def refused(convert: Convert) -> Callable[..., FormatError]:
    """Return the error that a mapping ends in."""

    def run(text: str, kind: str = "hdf5", path: Path | None = None, **columns: Any) -> FormatError:
        with pytest.raises(FormatError) as caught:
            convert(text, kind, path, **columns)
        assert caught.value.where
        return caught.value

    return run


def q(axes: int = 3) -> NDArray[np.float32]:
    return np.arange(STEPS * axes, dtype=np.float32).reshape(STEPS, axes)


def fates(episode: Episode) -> dict[str, Any]:
    return {fate.field: fate for fate in episode.provenance.ledger}


# Containers


@pytest.mark.parametrize("kind", KINDS)
def test_one_mapping_serves_every_kind_of_table(convert: Convert, kind: str) -> None:
    times = 1_000_000 + np.arange(STEPS) * 20_000
    text = (
        '[clocks.steps]\nfield = "t"\nunit = "us"\n'
        '[streams."observation.joint_position"]\nfield = "q"\nunit = "rad"\n'
        '[streams.action]\nfield = "a"\ncolumns = [0, 2]\n'
        '[[events]]\nfield = "phase"\nkind = "phase"\n'
    )
    phase = ["reach"] * 5 + ["lift"] * 7
    a = np.arange(STEPS * 4, dtype=np.int16).reshape(STEPS, 4)
    (episode,) = convert(text, kind, t=times, q=q(), a=a, phase=phase, spare=np.ones(STEPS))
    assert set(episode.streams) == {"observation.joint_position", "action", "extra.a.2-4", "extra.spare"}
    np.testing.assert_array_equal(episode.streams["observation.joint_position"].values(), q())
    np.testing.assert_array_equal(episode.streams["action"].values(), a[:, :2])
    np.testing.assert_array_equal(episode.streams["extra.a.2-4"].values(), a[:, 2:])
    np.testing.assert_array_equal(episode.times("action"), np.arange(STEPS) * 20_000_000)
    assert episode.streams["observation.joint_position"].spec.unit == ("rad",)
    assert [(e.text, e.start_ns) for e in episode.events] == [("reach", 0), ("lift", 100_000_000)]
    assert set(fates(episode)) == {"t", "q", "a", "phase", "spare"}


@given(sizes=st.lists(st.integers(1, 9), max_size=6), rows=st.integers(1, 10))
def test_blocks_are_made_even_and_lose_nothing(sizes: list[int], rows: int) -> None:
    whole = np.arange(sum(sizes))
    blocks = list(even(np.split(whole, np.cumsum(sizes)[:-1]) if sizes else [], rows))
    assert [len(block) for block in blocks[:-1]] == [rows] * (len(blocks) - 1)
    assert np.concatenate([whole[:0], *blocks]).tolist() == whole.tolist()


def test_a_single_array_is_called_array(convert: Convert, tmp_path: Path) -> None:
    np.save(tmp_path / "run.npy", q())
    (episode,) = convert(RATE + '[streams.action]\nfield = "array"\n', path=tmp_path / "run.npy")
    np.testing.assert_array_equal(episode.streams["action"].values(), q())


def test_fields_of_a_structured_array_are_columns(convert: Convert, tmp_path: Path) -> None:
    table = np.zeros(STEPS, [("t", ">f8"), ("q", "<f4", (3,)), ("note", "S4")])
    table["t"], table["q"] = np.arange(STEPS) / 8, q()
    np.save(tmp_path / "run.npy", table)
    text = '[clocks.steps]\nfield = "array.t"\nunit = "s"\n[streams.action]\nfield = "array.q"\n'
    (episode,) = convert(text, path=tmp_path / "run.npy")
    np.testing.assert_array_equal(episode.streams["action"].values(), q())
    assert episode.times("action")[1] == 125_000_000
    assert episode.streams["extra.array_note"].spec.shape == (4,)


def test_times_of_arrow_know_their_unit(convert: Convert, refused: Any, tmp_path: Path) -> None:
    stamps = pa.array(np.arange(STEPS) * 40, pa.timestamp("ms"))
    pq.write_table(pa.table({"t": stamps, "q": pa.array(np.arange(STEPS))}), tmp_path / "run.parquet")
    text = '[clocks.steps]\nfield = "t"\n'
    (episode,) = convert(text + Q, path=tmp_path / "run.parquet")
    assert episode.times("observation.q")[1] == 40_000_000
    error = refused(text + 'unit = "s"\n' + Q, path=tmp_path / "run.parquet")
    assert error.where == "clocks.steps.unit"


def test_topics_are_columns_on_clocks_of_their_own(shared_data: Path, convert: Convert) -> None:
    from mcap.reader import make_reader
    from mcap_ros2.decoder import DecoderFactory

    bag = shared_data / "ros2_bag" / "g1_bottle_jazzy_mcap"
    text = (
        '[episode]\ninstruction_field = "/task_instruction:data"\n'
        '[clocks.joints]\ntopic = "/joint_states"\nstamps = "header"\n'
        '[clocks.camera]\ntopic = "/cam_high/image_raw/compressed"\nstamps = "log"\n'
        '[streams."observation.joint_position"]\nfield = "/joint_states:position"\nunit = "rad"\n'
        '[streams."observation.images.high"]\nfield = "/cam_high/image_raw/compressed:data"\n'
        'kind = "video"\nencoding = "jpeg"\norder = "rgb"\n'
        '[streams.action]\nfield = "/joint_command:position"\n'
    )
    (episode,) = convert(text, path=bag)
    stamps: list[int] = []
    positions: list[Any] = []
    pictures: list[NDArray[Any]] = []
    with next(bag.glob("*.mcap")).open("rb") as file:
        reader = make_reader(file, decoder_factories=[DecoderFactory()])
        for _, channel, _, message in reader.iter_decoded_messages():
            if channel.topic == "/joint_states":
                positions.append(message.position)
                stamps.append(message.header.stamp.sec * 10**9 + message.header.stamp.nanosec)
            elif channel.topic == "/cam_high/image_raw/compressed" and len(pictures) < 3:
                pictures.append(np.asarray(Image.open(io.BytesIO(bytes(message.data)))))
    joints = episode.streams["observation.joint_position"]
    np.testing.assert_array_equal(joints.values(), positions)
    assert joints.spec.clock == "joints"
    np.testing.assert_array_equal(np.diff(episode.times("observation.joint_position")), np.diff(stamps))
    np.testing.assert_array_equal(episode.streams["observation.images.high"].values(0, 3), pictures)
    assert episode.streams["action"].spec.clock == "joint_command"
    assert episode.clocks["joint_command"].source == "log stamps of /joint_command"
    assert len(episode.instructions) == 1
    assert min(int(clock.read()[0]) for clock in episode.clocks.values()) == 0


def test_a_topic_of_another_epoch_is_not_forced_onto_the_others(shared_data: Path, convert: Convert) -> None:
    topic = "/device_0/sensor_1/Color_0/image/data"
    bag = shared_data / "ros1_bag" / "realsense_d400.bag"
    text = f'[clocks.camera]\ntopic = "{topic}"\nstamps = "header"\n'
    text += f'[streams.frame]\nfield = "{topic}:header.seq"\n'
    (episode,) = convert(text, path=bag)
    assert int(episode.clocks["camera"].read()[0]) == 0
    assert any("of another epoch" in warning for warning in episode.provenance.warnings)


# Time


@pytest.mark.parametrize(("unit", "scale"), [("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9)])
@pytest.mark.parametrize("dtype", ["int64", "uint64", "float64"])
def test_times_are_read_in_their_unit(convert: Convert, unit: str, scale: int, dtype: str) -> None:
    seconds = 1_700_000_000 + np.arange(STEPS)
    (episode,) = convert(
        f'[clocks.steps]\nfield = "t"\nunit = "{unit}"\n' + Q, t=(seconds * scale).astype(dtype), q=q()
    )
    np.testing.assert_allclose(episode.times("observation.q"), np.arange(STEPS) * 10**9, atol=300)
    assert episode.extra["clocks"]["steps"]["first"].startswith("1700000000.000000")
    assert episode.clocks["steps"].kind == "recorded"


def test_clocks_of_one_epoch_keep_their_distance_and_others_do_not(convert: Convert) -> None:
    text = (
        '[clocks.steps]\nfield = "t"\nunit = "ms"\n[clocks.camera]\nfield = "c"\nunit = "ms"\n'
        '[clocks.imu]\nfield = "i"\nunit = "ms"\nepoch = "own"\n' + Q
    )
    i = np.arange(7) + 5_000_000_000_000
    (episode,) = convert(text, t=np.arange(STEPS) + 1_030, c=np.arange(4) + 1_000, i=i, q=q())
    assert [int(episode.clocks[name].read()[0]) for name in ("steps", "camera", "imu")] == [30_000_000, 0, 0]


def test_an_unknown_rate_is_counted_and_said(convert: Convert) -> None:
    (episode,) = convert('[clocks.steps]\nrate_hz = "unknown"\n' + Q, q=q())
    assert episode.clocks["steps"].source.startswith("unknown")
    assert any("rates and durations mean nothing" in warning for warning in episode.provenance.warnings)


TIMES = {
    "backwards": (np.arange(STEPS)[::-1], "runs backwards"),
    "no number": (np.full(STEPS, np.nan), "no time"),
    "a truth": (np.ones(STEPS, bool), "no time"),
    "a far future": (np.linspace(0, 1e30, STEPS), "century"),
    "several": (np.zeros((STEPS, 2)), "one number for each row"),
}


@pytest.mark.parametrize("what", TIMES)
def test_what_is_no_time_is_refused(refused: Any, what: str) -> None:
    times, why = TIMES[what]
    assert why in str(refused('[clocks.steps]\nfield = "t"\nunit = "s"\n' + Q, t=times, q=q()))


def test_epochs_that_are_a_day_apart_are_asked_about(refused: Any) -> None:
    text = '[clocks.steps]\nfield = "t"\nunit = "s"\n[clocks.c]\nfield = "c"\nunit = "s"\n' + Q
    error = refused(text, t=np.arange(STEPS), c=np.arange(4) + 1.7e9, q=q())
    assert (error.where, 'epoch = "own"' in error.advice) == ("clocks.c", True)


# Numbers


def test_fields_side_by_side_make_one_stream(convert: Convert) -> None:
    (episode,) = convert(
        RATE + '[streams.action]\nfield = ["b", "a"]\n', a=q(2), b=np.arange(STEPS, dtype="f4")
    )
    np.testing.assert_array_equal(
        episode.streams["action"].values(), np.column_stack([np.arange(STEPS), q(2)])
    )
    assert fates(episode)["a"].to == fates(episode)["b"].to == ("action",)


def test_a_field_in_two_streams_is_told_once(convert: Convert) -> None:
    text = RATE + Q + 'columns = [0, 1]\n[streams."observation.r"]\nfield = "q"\ncolumns = [2, 3]\n'
    (episode,) = convert(text, q=q(4))
    assert set(episode.streams) == {"observation.q", "observation.r", "extra.q.1-2", "extra.q.3-4"}
    assert fates(episode)["q"].to == ("observation.q", "observation.r", "extra.q.1-2", "extra.q.3-4")


def test_a_contract_is_what_the_mapping_says(convert: Convert) -> None:
    part = '{start = 0, stop = 3, space = "gripper", gripper_closed = -1, gripper_open = 1, frame = "none"}'
    text = RATE + f'[streams.action]\nfield = "q"\ncontract = {{offset_steps = 1, parts = [{part}]}}\n'
    (episode,) = convert(text, q=q())
    contract = episode.streams["action"].spec.contract
    assert contract is not None
    assert (contract.offset_steps, contract.parts[0].frame, contract.parts[0].gripper_closed) == (1, None, -1)


def test_what_is_not_said_is_unknown(convert: Convert) -> None:
    (episode,) = convert(RATE + '[streams.action]\nfield = "q"\n', q=q())
    spec = episode.streams["action"].spec
    assert (spec.unit, spec.frame, spec.axes) == (("unknown",), None, ())
    assert spec.contract is not None
    assert (spec.contract.parts, spec.contract.offset_steps) == ((), None)
    assert (episode.embodiment, episode.outcome, episode.instructions) == ("unknown", "unknown", ())


# Pictures


def encoded(picture: NDArray[Any], form: str) -> NDArray[np.uint8]:
    out = io.BytesIO()
    Image.fromarray(picture).save(out, form, **({"quality": 95} if form == "JPEG" else {}))
    return np.frombuffer(out.getvalue(), np.uint8)


def film(steps: int = STEPS) -> NDArray[np.uint8]:
    t, y, x = np.meshgrid(np.arange(steps), np.arange(10), np.arange(14), indexing="ij")
    return np.stack([30 + t + y, 100 + 2 * x, 220 - y - t], axis=-1).astype(np.uint8)


def video(**rules: str) -> str:
    more = "".join(f"{key} = {value}\n" for key, value in rules.items())
    return RATE + f'[streams."observation.images.top"]\nfield = "p"\nkind = "video"\n{more}'


@pytest.mark.parametrize("kind", ["hdf5", "npz"])
@pytest.mark.parametrize("order", ["rgb", "bgr"])
@pytest.mark.parametrize("layout", ["hwc", "chw", "flat"])
def test_raw_pixels_come_out_red_first_and_channels_last(
    convert: Convert, kind: str, order: str, layout: str
) -> None:
    stored = film()[..., ::-1] if order == "bgr" else film()
    shapes = {"hwc": stored, "chw": stored.transpose(0, 3, 1, 2), "flat": stored.reshape(STEPS, -1)}
    more = {"shape": "[10, 14, 3]"} if layout == "flat" else {"layout": f'"{layout}"'}
    (episode,) = convert(video(order=f'"{order}"', **more), kind, p=np.ascontiguousarray(shapes[layout]))
    stream = episode.streams["observation.images.top"]
    np.testing.assert_array_equal(stream.values(), film())
    assert stream.spec.attributes["stored_order"] == order


def test_files_of_pictures_are_decoded_wherever_they_lie(convert: Convert, tmp_path: Path) -> None:
    pictures = [encoded(picture, "PNG") for picture in film()]
    size = max(map(len, pictures)) + 5
    padded = np.stack([np.pad(p, (0, size - len(p))) for p in pictures])
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["p"] = padded
    with h5py.File(tmp_path / "b.h5", "w") as file:
        rows = file.create_dataset("p", STEPS, h5py.vlen_dtype(np.uint8))
        for i, picture in enumerate(pictures):
            rows[i] = picture
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file["p"] = np.array([p.tobytes() for p in padded], f"S{size}")
    raw = [p.tobytes() for p in pictures]
    pq.write_table(pa.table({"p": raw}), tmp_path / "d.parquet")
    pq.write_table(pa.table({"p": [{"bytes": r, "path": None} for r in raw]}), tmp_path / "e.parquet")
    for name in ("a.h5", "b.h5", "c.h5", "d.parquet", "e.parquet"):
        (episode,) = convert(video(encoding='"png"', order='"rgb"'), path=tmp_path / name)
        np.testing.assert_array_equal(
            episode.streams["observation.images.top"].values(), film(), err_msg=name
        )


def test_jpegs_of_opencv_are_turned_round(convert: Convert) -> None:
    pictures = [encoded(np.ascontiguousarray(p[..., ::-1]), "JPEG") for p in film()]
    size = max(map(len, pictures))
    padded = np.stack([np.pad(p, (0, size - len(p))) for p in pictures])
    (episode,) = convert(video(encoding='"jpeg"', order='"bgr"'), p=padded)
    values = episode.streams["observation.images.top"].values().astype(int)
    assert np.abs(values - film()).max() < 12


def test_depth_is_read_as_numbers_as_files_and_as_bytes(convert: Convert) -> None:
    depth = np.random.default_rng(2).integers(0, 60_000, (STEPS, 4, 6)).astype(np.uint16)
    pictures = [encoded(picture, "PNG") for picture in depth]
    size = max(map(len, pictures))
    layouts = {
        "": depth,
        'encoding = "png"\n': np.stack([np.pad(p, (0, size - len(p))) for p in pictures]),
        'values = "uint16"\nshape = [4, 6]\n': depth.reshape(STEPS, -1).astype("<u2").view(np.uint8),
    }
    for rule, stored in layouts.items():
        text = RATE + f'[streams."observation.depth.top"]\nfield = "d"\nkind = "depth"\nunit = "mm"\n{rule}'
        (episode,) = convert(text, d=stored)
        np.testing.assert_array_equal(episode.streams["observation.depth.top"].values(), depth, err_msg=rule)


def test_a_picture_that_is_none_is_named_with_its_row(convert: Convert) -> None:
    pictures = np.stack([np.pad(encoded(p, "PNG"), (0, 400))[:400] for p in film()])
    pictures[7] = 0
    with pytest.raises(FormatError, match=r"p\[7\]"):
        convert(video(encoding='"png"'), p=pictures)


# Episodes


def test_groups_are_episodes_in_the_order_of_their_numbers(convert: Convert) -> None:
    columns = {f"data__demo_{i}__q": np.full((i + 2, 3), i) for i in (0, 2, 10)}
    episodes = convert(
        '[episodes]\ngroups = "data/demo_*"\n' + RATE + Q, **columns, mask__train=np.arange(2), other=q()
    )
    assert [e.provenance.selector for e in episodes] == ["data/demo_0", "data/demo_2", "data/demo_10"]
    assert [e.streams["observation.q"].length for e in episodes] == [2, 4, 12]
    assert len({e.id for e in episodes}) == 3
    assert episodes[0].extra["values"]["/mask/train"] == [0, 1]
    assert all({"q", "/mask/train", "/other"} == set(fates(e)) for e in episodes)
    assert "extra.other" not in episodes[2].streams  # as many rows, and not this episode's


@pytest.mark.parametrize("kind", KINDS)
def test_a_column_of_numbers_tells_the_episodes_apart(convert: Convert, kind: str) -> None:
    index = np.repeat([4, 7, 5], [3, 5, 4])
    text = '[episodes]\ncolumn = "episode"\n[clocks.steps]\nfield = "t"\nunit = "ms"\n' + Q
    episodes = convert(text, kind, episode=index, q=q(), t=np.arange(STEPS))
    assert [e.provenance.selector for e in episodes] == ["episode=4", "episode=7", "episode=5"]
    joined = np.concatenate([e.streams["observation.q"].values() for e in episodes])
    np.testing.assert_array_equal(joined, q())
    assert all(e.times("observation.q")[0] == 0 for e in episodes)


def test_ends_of_episodes_cut_rows_and_values_of_episodes(convert: Convert) -> None:
    text = '[episodes]\nends = "meta/ends"\n' + RATE + Q
    episodes = convert(text, meta__ends=np.array([5, 12]), q=q(), score=np.array([0.5, 0.75]), K=np.eye(3))
    assert [e.streams["observation.q"].length for e in episodes] == [5, 7]
    assert [e.extra["values"]["score"] for e in episodes] == [0.5, 0.75]
    assert episodes[1].extra["values"]["K"] == np.eye(3).tolist()


SPLITS = {
    "a column that comes back": ('column = "e"', np.repeat([1, 2, 1], 4)),
    "a column of fractions": ('column = "e"', np.linspace(0, 1, STEPS)),
    "ends that do not grow": ('ends = "e"', np.array([5, 5, 12])),
    "ends beyond the rows": ('ends = "e"', np.array([5, 13])),
    "a column that is not there": ('column = "f"', np.zeros(STEPS)),
    "groups that are not there": ('groups = "data/*"', np.zeros(STEPS)),
    "two ways at once": ('column = "e"\nends = "e"', np.zeros(STEPS)),
}


@pytest.mark.parametrize("what", SPLITS)
def test_contradictory_episodes_are_refused(refused: Any, what: str) -> None:
    rule, values = SPLITS[what]
    refused(f"[episodes]\n{rule}\n" + RATE + Q, e=values, q=q())


def test_files_of_a_folder_are_episodes(tmp_path: Path) -> None:
    for i in (1, 2, 10):
        write_table(tmp_path, "npz", {"q": q() + i}, name=f"run_{i}")
    tmp_path.joinpath("notes.txt").write_text("x")
    write_mapping(tmp_path / "teleopen.toml", '[episodes]\nfiles = "run_*.npz"\n' + RATE + Q)
    episodes = list(converter_for(tmp_path).episodes(tmp_path))
    assert [e.streams["observation.q"].values()[0, 0] for e in episodes] == [1, 2, 10]
    assert [e.provenance.sources[0].uri for e in episodes] == ["run_1.npz", "run_2.npz", "run_10.npz"]


@pytest.mark.parametrize("pattern", ["../*.h5", "/etc/*", "*.none", ""])
def test_a_pattern_of_files_stays_in_the_folder(tmp_path: Path, pattern: str) -> None:
    folder = tmp_path / "site"
    folder.mkdir()
    write_table(tmp_path, "hdf5", {"q": q()})
    write_mapping(folder / "teleopen.toml", f'[episodes]\nfiles = "{pattern}"\n' + RATE + Q)
    with pytest.raises(FormatError) as caught:
        list(Mapped().episodes(folder))
    assert caught.value.where == "episodes.files"


# The episode's header


def test_header_fields_are_taken_from_attributes(convert: Convert, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "run.h5", "w") as file:
        file["q"] = q()
        file.attrs.update({"task": "open the drawer", "arm": "xArm 6", "ok": False, "license": "CC-BY-4.0"})
    text = '[episode]\ninstruction_field = "@task"\nembodiment_field = "@arm"\noutcome_field = "@ok"\n'
    (episode,) = convert(text + RATE + Q, path=tmp_path / "run.h5")
    assert (episode.instructions, episode.embodiment, episode.outcome) == (
        ("open the drawer",),
        "xArm 6",
        "failure",
    )
    assert episode.provenance.evidence == {"@license": "CC-BY-4.0"}
    assert fates(episode)["@task"].to == ("extra.attributes", "instructions")


@pytest.mark.parametrize("kind", KINDS)
def test_texts_of_the_rows_are_instructions_and_events(convert: Convert, kind: str) -> None:
    text = '[episode]\ninstruction_field = "say"\n' + RATE + Q
    (episode,) = convert(text, kind, q=q(), say=["open"] * 6 + ["close"] * 6)
    assert episode.instructions == ("open", "close")
    assert [(e.kind, e.start_ns, e.text) for e in episode.events] == [
        ("instruction", 0, "open"),
        ("instruction", 120_000_000, "close"),
    ]


def test_what_is_neither_success_nor_failure_is_unknown(convert: Convert, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "run.h5", "w") as file:
        file["q"] = q()
        file.attrs["ok"] = 0.7
    (episode,) = convert('[episode]\noutcome_field = "@ok"\n' + RATE + Q, path=tmp_path / "run.h5")
    assert episode.outcome == "unknown"
    assert any("'@ok'" in warning for warning in episode.provenance.warnings)


# What the mapping does not speak of


def test_the_rest_is_kept_or_told_and_never_lost(convert: Convert) -> None:
    (episode,) = convert(
        RATE + Q,
        q=q(),
        rows=q(2),
        constant=["a"] * STEPS,
        changing=["a", "b"] * 6,
        small=np.eye(2),
        nan=np.array([np.nan]),
        large=np.zeros(5_000),
        empty=np.zeros((STEPS, 0)),
    )
    told = {name: (fate.fate, fate.to) for name, fate in fates(episode).items()}
    assert told == {
        "q": ("renamed", ("observation.q",)),
        "rows": ("renamed", ("extra.rows",)),
        "constant": ("renamed", ("extra.values",)),
        "changing": ("transformed", ("events",)),
        "small": ("renamed", ("extra.values",)),
        "nan": ("dropped", ()),
        "large": ("dropped", ()),
        "empty": ("dropped", ()),
    }


def test_what_is_dropped_is_dropped_for_the_reason_given(convert: Convert) -> None:
    (episode,) = convert(RATE + Q + '[drop]\n"x/*" = "raw debug output"\n', q=q(), x__a=q(), x__b=q())
    assert "raw debug output" in fates(episode)["x/a"].how
    assert set(episode.streams) == {"observation.q"}


# Refusals

WRONG = {
    "no field of that name": (RATE + '[streams.a]\nfield = "qq"\n', "streams.a.field"),
    "a key that is none": (RATE + Q + "speed = 3\n", "streams.observation.q.speed"),
    "a table that is none": ("[camera]\n" + RATE + Q, "camera"),
    "a value of another type": (RATE + Q + "axes = 3\n", "streams.observation.q.axes"),
    "a number of axes that differs": (RATE + Q + 'axes = ["x"]\n', "streams.observation.q.axes"),
    "another number of units": (RATE + Q + 'unit = ["m", "m"]\n', "streams.observation.q.unit"),
    "another shape": (RATE + Q + "shape = [7]\n", "streams.observation.q.shape"),
    "columns beyond the row": (RATE + Q + "columns = [0, 9]\n", "streams.observation.q.columns"),
    "columns backwards": (RATE + Q + "columns = [2, 1]\n", "streams.observation.q.columns"),
    "a clock that is none": (RATE + Q + 'clock = "imu"\n', "streams.observation.q.clock"),
    "no clock": (Q, "streams.observation.q.clock"),
    "rate and field": ('[clocks.steps]\nrate_hz = 5\nfield = "q"\n' + Q, "clocks.steps"),
    "no rate at all": ("[clocks.steps]\nrate_hz = 0.0\n" + Q, "clocks.steps"),
    "counted by its inner name": ("[clocks.steps]\ncounted = true\n" + Q, "clocks.steps.counted "),
    "rows that differ": (RATE + Q + '[streams.b]\nfield = "b"\n', "streams.b"),
    "side by side of two types": (RATE + '[streams.c]\nfield = ["q", "i"]\n', "streams.c.field"),
    "video that is none": (RATE + Q + 'kind = "video"\n', "streams.observation.q.field"),
    "encoding of numbers": (RATE + Q + 'encoding = "png"\n', "streams.observation.q"),
    "a contract of no command": (
        RATE + Q + "contract = {offset_steps = 0}\n",
        "streams.observation.q.contract",
    ),
    "a contract that is too long": (
        RATE
        + '[streams.action]\nfield = "q"\ncontract = {parts = [{start = 0, stop = 9, space = "other"}]}\n',
        "streams.action.contract.parts.0",
    ),
    "events of rows of numbers": (RATE + Q + '[[events]]\nfield = "q"\nkind = "x"\n', "events.0.field"),
    "a drop of nothing": (RATE + Q + '[drop]\n"nothing*" = "x"\n', "drop"),
    "a drop without a reason": (RATE + Q + '[drop]\n"b" = ""\n', "drop.b"),
    "dropped and used": (RATE + Q + '[drop]\n"q" = "x"\n', "streams.observation.q.field"),
    "instruction twice": (
        '[episode]\ninstruction = "a"\ninstruction_field = "b"\n' + RATE + Q,
        "episode.instruction",
    ),
    "an instruction of rows": (
        '[episode]\ninstruction_field = "q"\n' + RATE + Q,
        "episode.instruction_field",
    ),
    "names alike but for their case": (
        RATE + Q + '[streams."observation.Q"]\nfield = "q"\n',
        "streams.observation.Q",
    ),
    "a reserved name": (RATE + '[streams.timestamp]\nfield = "q"\n', "streams.timestamp"),
    "a name that is none": (RATE + '[streams."a b"]\nfield = "q"\n', "streams.a b"),
    "a licence": ('licence = "CC0-1.0"\n' + RATE + Q, "licence"),
    "rights": ("[rights]\nx = 1\n" + RATE + Q, "rights"),
    "consent in attributes": (
        RATE + Q + "attributes = {consent = true}\n",
        "streams.observation.q.attributes.consent",
    ),
    "a tier": ('[episode]\ntier = "open"\n' + RATE + Q, "episode.tier"),
    "a time of day": (RATE + Q + "attributes = {at = 2020-01-01}\n", "streams.observation.q.attributes.at"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_mapping_that_is_wrong_is_refused_with_the_place_in_it(refused: Any, what: str) -> None:
    text, where = WRONG[what]
    error = refused(text, q=q(), b=np.zeros(4), i=np.zeros(STEPS, np.int64))
    assert error.path.endswith("lab.toml")
    assert error.where == where


def test_a_field_that_is_not_there_is_told_with_the_nearest(refused: Any) -> None:
    error = refused(RATE + '[streams.a]\nfield = "observations/qpos"\n', observations__q_pos=q(), t=q())
    assert "'observations/q_pos'" in error.advice


def test_an_attempt_to_state_rights_points_to_where_they_are_stated(refused: Any) -> None:
    assert "rights.toml" in refused('license = "MIT"\n' + RATE + Q, q=q()).advice


def test_all_that_is_wrong_is_told_at_once(refused: Any) -> None:
    error = refused(RATE + Q + "speed = 3\nheight = 4\nframe = 5\n", q=q())
    assert all(word in str(error) for word in ("speed", "height", "frame"))


NO_MAPPINGS = [
    "mapping = 2\n",
    "",
    "[[[",
    "a = 1\na = 2\n",
    "x = " + "[" * 90_000,
    "a" + ".a" * 90_000 + "=1",
    "\0",
]


@pytest.mark.parametrize("text", NO_MAPPINGS, ids=range(len(NO_MAPPINGS)))
def test_what_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    mapping, table = tmp_path / "lab.toml", write_table(tmp_path, "hdf5", {"q": q()})
    mapping.write_text(text)
    with pytest.raises(FormatError):
        list(Mapped(mapping=str(mapping)).episodes(table))


def test_a_mapping_that_is_absent_or_too_large_is_refused(tmp_path: Path) -> None:
    table = write_table(tmp_path, "hdf5", {"q": q()})
    with pytest.raises(FormatError, match="cannot be read"):
        list(Mapped(mapping=str(tmp_path / "none.toml")).episodes(table))
    with pytest.raises(FormatError, match="has no mapping file"):
        list(Mapped().episodes(table))
    tmp_path.joinpath("lab.toml").write_text("#" * 300_000)
    with pytest.raises(FormatError, match="more than"):
        list(Mapped(mapping=str(tmp_path / "lab.toml")).episodes(table))


# What is claimed, and what is put on record


@pytest.mark.parametrize("name", ["teleopen.toml", "run.h5.teleopen.toml", "run.teleopen.toml"])
def test_a_recording_is_claimed_if_a_mapping_lies_beside_it(tmp_path: Path, name: str) -> None:
    table = write_table(tmp_path, "hdf5", {"q": q()})
    with pytest.raises(UnknownFormatError):
        converter_for(table)
    write_mapping(tmp_path / name, RATE + Q)
    assert converter_for(table).format.name == "mapped"
    tmp_path.joinpath(name).write_text("no mapping")
    with pytest.raises(UnknownFormatError):
        converter_for(table)


def test_a_mapping_of_its_own_comes_before_that_of_the_folder(tmp_path: Path) -> None:
    table = write_table(tmp_path, "hdf5", {"q": q()})
    write_mapping(tmp_path / "teleopen.toml", RATE + Q)
    write_mapping(tmp_path / "run.teleopen.toml", RATE + '[streams.action]\nfield = "q"\n')
    (episode,) = Mapped().episodes(table)
    assert set(episode.streams) == {"action"}


def test_a_mapping_that_is_a_link_to_elsewhere_is_refused(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    table = write_table(site, "hdf5", {"q": q()})
    site.joinpath("teleopen.toml").symlink_to(write_mapping(tmp_path / "mine.toml", RATE + Q))
    assert not Mapped().probe(table)
    with pytest.raises(FormatError, match="outside"):
        list(Mapped().episodes(table))


def test_the_mapping_is_on_record_and_its_place_is_not(tmp_path: Path, convert: Convert) -> None:
    (episode,) = convert(RATE + Q, q=q())
    recording, mapping = episode.provenance.sources
    assert (recording.uri, recording.role) == ("run.h5", "recording")
    assert (mapping.uri, mapping.role) == ("lab.toml", "mapping")
    assert episode.provenance.options == {"mapping": "lab.toml", "mapping_text": "mapping = 1\n" + RATE + Q}
    assert str(tmp_path) not in repr(episode.provenance)


def test_another_mapping_makes_the_same_episode(convert: Convert) -> None:
    (one,) = convert(RATE + Q, q=q())
    (other,) = convert(RATE + '[streams.action]\nfield = "q"\n', q=q())
    assert one.id == other.id


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_was_changed_meanwhile_is_an_error(convert: Convert, tmp_path: Path, kind: str) -> None:
    (episode,) = convert(RATE + Q, kind, q=q())
    write_table(tmp_path, kind, {"q": q(5)[:-1]})
    with pytest.raises(FormatError):
        episode.streams["observation.q"].values()


@pytest.mark.parametrize("kind", KINDS)
def test_an_episode_crosses_a_process(convert: Convert, kind: str) -> None:
    (episode,) = convert(RATE + Q, kind, q=q())
    there = pickle.loads(pickle.dumps(episode))
    np.testing.assert_array_equal(there.streams["observation.q"].values(), q())


def test_one_demonstration_of_many_is_read_without_looking_at_the_others(convert: Convert) -> None:
    columns = {f"data__demo_{i}__q": q() for i in range(60)}
    *_, last = convert('[episodes]\ngroups = "data/demo_*"\n' + RATE + Q, **columns)
    opened: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_hdf5._Survey, "_dataset", counting(_hdf5._Survey._dataset, opened))
        np.testing.assert_array_equal(last.streams["observation.q"].values(), q())
    assert opened == ["data/demo_59/q"]


def counting(method: Any, names: list[str]) -> Any:
    def counted(self: Any, member: Any, name: str) -> Any:
        names.append(name)
        return method(self, member, name)

    return counted
