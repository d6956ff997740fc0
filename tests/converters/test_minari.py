"""Minari: spaces within spaces, three layouts, one observation more than actions."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from teleopen.converters import converter_for
from teleopen.converters.minari import Minari
from teleopen.schemas import Episode, FormatError, problems_of

from tests.samples._same import assert_same_as_h5py
from tests.samples.minari import film, jpeg, metadata, numbers, write

STEPS = 6


def first(path: Path, **options: Any) -> Episode:
    episode = next(iter(Minari(**options).episodes(path)))
    assert problems_of(episode) == []
    return episode


def read_all(path: Path) -> None:
    for episode in Minari(rate_hz=20.0).episodes(path):
        for stream in episode.streams.values():
            for _ in stream:
                pass


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    return write(tmp_path).path


@pytest.fixture(params=["arrow", "parquet"])
def layout(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def told(path: Path, **members: Any) -> Path:
    """Change the metadata of a data set."""
    file = path / "data" / "metadata.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **members}))
    return path


def fixed(values: NDArray[Any]) -> "pa.Array[Any]":
    flat = values.reshape(len(values), -1)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), flat.shape[1])


def padded(values: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate([values, np.zeros_like(values[:1])])


def batch(values: dict[str, NDArray[Any]], pictures: NDArray[np.uint8]) -> pa.RecordBatch:
    """Lay an episode out as arrow_storage.py does."""
    contacts = pa.StructArray.from_arrays(
        [fixed(values["observation.arm.contacts.0"]), pa.array(values["observation.arm.contacts.1"])],
        names=["0", "1"],
    )
    arm = pa.StructArray.from_arrays(
        [fixed(values["observation.arm.position"]), contacts], names=["position", "contacts"]
    )
    camera = pa.array([jpeg(picture) for picture in pictures], type=pa.binary())
    mission = pa.array(["go"] * len(pictures))
    wide = np.arange(len(pictures) * 6.0).reshape(len(pictures), 2, 3)
    info = pa.field("wide", fixed(wide).type, metadata={"shape": "2,3"})
    return pa.RecordBatch.from_pydict(
        {
            "observations": pa.StructArray.from_arrays([arm, camera, mission], ["arm", "camera", "mission"]),
            "actions": fixed(padded(values["action"])),
            "rewards": pa.array(padded(values["next.reward"])),
            "terminations": pa.array(padded(values["next.terminated"])),
            "truncations": pa.array(padded(values["next.truncated"])),
            "infos": pa.StructArray.from_arrays([fixed(wide)], fields=[info]),
        }
    )


def store(file: Path, table: pa.RecordBatch, **options: Any) -> None:
    if file.suffix == ".parquet":
        pq.write_table(pa.Table.from_batches([table]), file)
        return
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, table.schema, **options) as writer:
        writer.write_batch(table)


@pytest.fixture
def tables(tmp_path: Path) -> Callable[..., tuple[Path, dict[str, NDArray[Any]], NDArray[np.uint8]]]:
    """Write a data set of one episode in a layout of tables."""

    def make(layout: str) -> tuple[Path, dict[str, NDArray[Any]], NDArray[np.uint8]]:
        random = np.random.default_rng(3)
        values, pictures = numbers(random, STEPS), film(random, STEPS + 1)
        path = tmp_path / "tables-v0"
        (path / "data" / "0").mkdir(parents=True)
        store(path / "data" / "0" / f"part-0.{layout}", batch(values, pictures))
        (path / "data" / "0" / "metadata.json").write_text(json.dumps({"id": 0, "total_steps": STEPS}))
        (path / "data" / "metadata.json").write_text(json.dumps(metadata(layout, STEPS, total_episodes=1)))
        return path, values, pictures

    return make


def test_observations_and_infos_have_one_row_more(sample: Path) -> None:
    streams = first(sample).streams
    assert streams["observation.arm.position"].spec.clock == "observations"
    assert streams["extra.infos.success"].spec.clock == "observations"
    assert streams["action"].spec.clock == "steps"
    contract = streams["action"].spec.contract
    assert contract is not None
    assert (contract.parts, contract.offset_steps) == ((), 0)


def test_limits_that_are_numbers_are_kept(sample: Path) -> None:
    streams = first(sample).streams
    assert streams["action"].spec.attributes == {"low": [-1.0] * 4, "high": [1.0] * 4}
    assert streams["observation.arm.position"].spec.attributes == {}
    assert streams["observation.arm.contacts.1"].spec.attributes == {"n": 4, "start": 0}


def test_a_text_per_step_becomes_events(sample: Path) -> None:
    assert [(e.text, e.start_ns) for e in first(sample).events] == [
        ("go there", 0),
        ("come back", 300_000_000),
    ]


def test_authors_are_evidence_and_the_environment_is_a_text(sample: Path) -> None:
    episode = first(sample)
    assert episode.provenance.evidence == {"metadata.json@author": ["A. Person"]}
    assert "reach.envs:ReachEnv" in episode.extra["dataset"]["metadata.json@env_spec"]
    assert episode.embodiment == "unknown"


def test_the_folder_of_the_data_may_be_given_itself(sample: Path) -> None:
    assert first(sample / "data").id == first(sample).id
    assert converter_for(sample / "data").format.name == "minari"


def test_the_rate_has_to_be_said_where_the_environment_was_not_told_one(sample: Path) -> None:
    for spec in ("{", "[]", '{"kwargs": {"control_freq": -1}}', "[" * 100_000):
        with pytest.raises(FormatError, match="option rate_hz"):
            first(told(sample, env_spec=spec))
    assert first(sample, rate_hz=12.5).clocks["steps"].declared_hz == 12.5


def test_pictures_that_were_not_compressed_are_taken_as_they_are(sample: Path) -> None:
    raw = film(np.random.default_rng(4), 8)
    with h5py.File(sample / "data" / "main_data.hdf5", "r+") as file:
        del file["episode_0/observations/camera"]
        file["episode_0/observations/camera"] = raw
    np.testing.assert_array_equal(first(sample).streams["observation.images.camera"].values(), raw)


def test_jpegs_of_equal_length_may_lie_side_by_side(sample: Path) -> None:
    one = np.frombuffer(jpeg(film(np.random.default_rng(4), 1)[0]), np.uint8)
    with h5py.File(sample / "data" / "main_data.hdf5", "r+") as file:
        del file["episode_0/observations/camera"]
        file["episode_0/observations/camera"] = np.stack([one] * 8)
    assert len(np.unique(first(sample).streams["observation.images.camera"].values(), axis=0)) == 1


@pytest.mark.parametrize("member", ["observation_space", "action_space"])
@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "{", 3])
def test_a_space_that_is_none_is_refused(sample: Path, member: str, text: Any) -> None:
    with pytest.raises(FormatError, match=member):
        first(told(sample, **{member: text}))


@pytest.mark.parametrize(
    "space",
    [
        {"type": "Dict", "subspaces": []},
        {"type": "Tuple", "subspaces": [{}] * 9},
        {"type": "Box", "shape": [-1], "dtype": "no", "low": "x", "high": {}},
        {"type": "Dict", "subspaces": {"camera": {"type": "Box", "dtype": "uint8", "shape": [32, 48, 3]}}},
    ],
)
def test_a_space_that_lies_changes_no_number(sample: Path, space: Any) -> None:
    truth = first(sample).streams["observation.arm.position"].values()
    lied = first(told(sample, observation_space=json.dumps(space)))
    np.testing.assert_array_equal(lied.streams["observation.arm.position"].values(), truth)


def test_metadata_nested_too_deep_are_refused(sample: Path) -> None:
    (sample / "data" / "metadata.json").write_text('{"total_episodes": 1, "data_format": ' + "[" * 100_000)
    assert Minari().probe(sample)
    with pytest.raises(FormatError, match="nested too deep"):
        first(sample)


def test_counts_that_lie_are_warnings(sample: Path) -> None:
    with h5py.File(sample / "data" / "main_data.hdf5", "r+") as file:
        file["episode_0"].attrs["total_steps"] = -4
    warnings = first(told(sample, total_episodes=10**9)).provenance.warnings
    assert any("total_steps is -4" in warning for warning in warnings)
    assert any("total_episodes is 1000000000" in warning for warning in warnings)


def test_another_layout_is_refused_by_name(sample: Path) -> None:
    with pytest.raises(FormatError, match="'pickle'"):
        first(told(sample, data_format="pickle"))


def test_a_group_that_holds_itself_is_refused(sample: Path) -> None:
    with h5py.File(sample / "data" / "main_data.hdf5", "r+") as file:
        file["episode_0/infos/again"] = file["episode_0"]
    with pytest.raises(FormatError, match="holds itself"):
        first(sample)


def test_data_in_another_folder_are_not_followed(sample: Path, tmp_path: Path) -> None:
    main = sample / "data" / "main_data.hdf5"
    main.rename(tmp_path / "elsewhere.hdf5")
    main.symlink_to(tmp_path / "elsewhere.hdf5")
    with pytest.raises(FormatError, match="outside"):
        first(sample)


# Arrow and Parquet


def test_tables_come_out_without_their_padding(
    tables: Callable[..., tuple[Path, dict[str, NDArray[Any]], NDArray[np.uint8]]], layout: str
) -> None:
    path, values, pictures = tables(layout)
    episode = first(path)
    for name, truth in values.items():
        if not name.startswith("extra."):
            np.testing.assert_array_equal(episode.streams[name].values(), truth, err_msg=name)
    film = episode.streams["observation.images.camera"]
    assert np.abs(film.values().astype(int) - pictures).mean() < 4
    np.testing.assert_array_equal(film.values(2, 5), film.values()[2:5])
    assert episode.streams["extra.infos.wide"].spec.shape == (2, 3)
    assert episode.streams["extra.infos.wide"].values()[1, 1, 2] == 11
    assert [(e.kind, e.text) for e in episode.events] == [("observations/mission", "go")]
    assert not episode.provenance.warnings


def test_blocks_of_tables_are_of_the_size_that_was_asked_for(
    tables: Callable[..., tuple[Path, dict[str, NDArray[Any]], NDArray[np.uint8]]], layout: str
) -> None:
    path, values, _ = tables(layout)
    stream = first(path, block_bytes=100).streams["observation.arm.position"]
    assert [len(block) for block in stream] == [2, 2, 2, 1]
    np.testing.assert_array_equal(stream.values(1, 6), values["observation.arm.position"][1:6])


def test_rows_go_on_over_batches(
    tables: Callable[..., tuple[Path, dict[str, NDArray[Any]], NDArray[np.uint8]]],
) -> None:
    path, values, pictures = tables("arrow")
    whole, file = batch(values, pictures), path / "data" / "0" / "part-0.arrow"
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, whole.schema) as writer:
        for start, size in ((0, 3), (3, 1), (4, 3)):
            writer.write_batch(whole.slice(start, size))
    episode = first(path)
    for name in ("action", "observation.arm.position", "next.truncated"):
        np.testing.assert_array_equal(episode.streams[name].values(), values[name], err_msg=name)
        np.testing.assert_array_equal(episode.streams[name].values(2, 5), values[name][2:5], err_msg=name)


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_compressed_buffers_are_refused_before_they_are_read(
    tables: Callable[..., tuple[Path, dict[str, NDArray[Any]], NDArray[np.uint8]]],
    codec: Literal["lz4", "zstd"],
) -> None:
    path, values, pictures = tables("arrow")
    options = pa.ipc.IpcWriteOptions(compression=codec)
    store(path / "data" / "0" / "part-0.arrow", batch(values, pictures), options=options)
    with pytest.raises(FormatError, match="compress"):
        first(path)


def test_a_table_that_was_cut_off_or_damaged_is_refused(
    tables: Callable[..., tuple[Path, dict[str, NDArray[Any]], NDArray[np.uint8]]], layout: str
) -> None:
    path, _, _ = tables(layout)
    file = path / "data" / "0" / f"part-0.{layout}"
    whole = file.read_bytes()
    for cut in (0, 5, 100, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:cut])
        with pytest.raises(FormatError) as caught:
            read_all(path)
        assert Path(caught.value.path).is_relative_to(path.resolve())


def test_no_damage_to_an_arrow_file_is_anything_but_a_format_error(
    tables: Callable[..., tuple[Path, dict[str, NDArray[Any]], NDArray[np.uint8]]],
) -> None:
    path, _, _ = tables("arrow")
    file = path / "data" / "0" / "part-0.arrow"
    whole, random = file.read_bytes(), np.random.default_rng(5)
    footer = len(whole) - 10 - int.from_bytes(whole[-10:-6], "little")
    places = [*random.integers(0, 2_000, 30), *random.integers(footer, len(whole), 70)]
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(random.integers(8))
        file.write_bytes(damaged)
        try:
            read_all(path)
        except FormatError:
            continue


def test_values_that_are_absent_are_refused(
    tables: Callable[..., tuple[Path, dict[str, NDArray[Any]], NDArray[np.uint8]]], layout: str
) -> None:
    path, values, pictures = tables(layout)
    whole = batch(values, pictures)
    rewards = pa.array([1.0, None] + [0.0] * (STEPS - 1))
    holed = whole.set_column(whole.schema.get_field_index("rewards"), "rewards", rewards)
    store(path / "data" / "0" / f"part-0.{layout}", holed)
    with pytest.raises(FormatError, match="absent"):
        read_all(path)


def test_an_episode_of_several_files_is_refused(
    tables: Callable[..., tuple[Path, dict[str, NDArray[Any]], NDArray[np.uint8]]],
) -> None:
    path, values, pictures = tables("arrow")
    store(path / "data" / "0" / "part-1.arrow", batch(values, pictures))
    with pytest.raises(FormatError, match="one file too many"):
        first(path)


# Real data sets


def test_a_real_hdf5_data_set_comes_out_as_h5py_reads_it(shared_data: Path) -> None:
    path = shared_data / "minari" / "fetch" / "pickplace-sample-v0"
    assert converter_for(path).format.name == "minari"
    episodes = list(Minari(rate_hz=25.0).episodes(path))
    assert len(episodes) == 3
    for episode in episodes:
        assert problems_of(episode) == []
        assert assert_same_as_h5py(episode, path / "data" / "main_data.hdf5") == 7


def test_a_real_arrow_data_set_comes_out_as_pyarrow_reads_it(shared_data: Path) -> None:
    path = shared_data / "minari" / "fetch" / "reach-sample-v0"
    assert converter_for(path).format.name == "minari"
    for i, episode in enumerate(Minari(rate_hz=25.0).episodes(path)):
        assert problems_of(episode) == []
        with pa.OSFile(str(path / "data" / str(i) / "part-0.arrow"), "rb") as source:
            table = pa.ipc.open_file(source).read_all()
        rows = table.to_pylist()
        for key in ("achieved_goal", "desired_goal", "observation"):
            truth = np.array([row["observations"][key] for row in rows])
            np.testing.assert_array_equal(episode.streams[f"observation.{key}"].values(), truth)
        truth = np.array([row["actions"] for row in rows[:-1]], np.float32)
        np.testing.assert_array_equal(episode.streams["action"].values(), truth)
        for column, name in (
            ("rewards", "reward"),
            ("terminations", "terminated"),
            ("truncations", "truncated"),
        ):
            got = episode.streams[f"next.{name}"].values().tolist()
            assert got == [row[column] for row in rows[:-1]]
