"""The reference of mapping files is whole, and its examples work."""

import dataclasses
import re
from pathlib import Path

import h5py
import numpy as np
import pytest
from teleopen.converters._mapping import (
    ClockRule,
    EpisodeRule,
    EventRule,
    Rules,
    SplitRule,
    StreamRule,
    read_mapping,
)
from teleopen.converters.mapped import Mapped
from teleopen.schemas import problems_of

from tests.converters.tables import write_table

PAGE = Path(__file__).resolve().parents[2] / "docs" / "formats" / "mapped.md"
EXAMPLES = re.findall(r"^```toml\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
INNER = {"counted"}
"""Written in the file as another key's word."""


@pytest.mark.parametrize("rule", [Rules, SplitRule, EpisodeRule, ClockRule, StreamRule, EventRule])
def test_every_key_is_on_the_page(rule: type) -> None:
    text = PAGE.read_text("utf-8")
    keys = {field.name for field in dataclasses.fields(rule)} - INNER
    assert {
        key for key in keys if not re.search(rf"`\[*{key}\b|^{key} =|\[\[?{key}\b", text, re.MULTILINE)
    } == set()


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_every_example_is_a_mapping(tmp_path: Path, number: int) -> None:
    path = tmp_path / "lab.toml"
    path.write_text(EXAMPLES[number], "utf-8")
    assert read_mapping(path).rules.streams


def test_the_first_example_converts_what_it_speaks_of(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "run.h5", "w") as file:
        file["timestamps"] = np.arange(5) * 20_000_000
        file["obs/q"], file["act"] = np.zeros((5, 8)), np.zeros((5, 7))
        file["obs/front"] = np.zeros((5, 4, 6, 3), np.uint8)
        file["debug/x"] = np.zeros(5)
    tmp_path.joinpath("run.teleopen.toml").write_text(EXAMPLES[0], "utf-8")
    (episode,) = Mapped().episodes(tmp_path / "run.h5")
    assert problems_of(episode) == []
    contract = episode.streams["action"].spec.contract
    assert contract is not None
    assert [part.space for part in contract.parts] == ["ee_pose", "gripper"]
    assert len(episode.streams) == 4


def test_the_second_example_takes_joints_from_columns(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from tests.converters.test_mapped import encoded, film

    joints = {f"joint_{i}": np.arange(12) + i for i in range(3)}
    images = [encoded(picture, "PNG").tobytes() for picture in film()]
    stamps = pa.array(np.arange(12) * 50, pa.timestamp("ms"))
    index = np.repeat([0, 1], 6)
    table = pa.table({"episode_index": index, "timestamp": stamps, "image": images, **joints})
    pq.write_table(table, tmp_path / "all.parquet")
    tmp_path.joinpath("teleopen.toml").write_text(EXAMPLES[1], "utf-8")
    first, second = Mapped().episodes(tmp_path / "all.parquet")
    assert problems_of(first) == problems_of(second) == []
    np.testing.assert_array_equal(second.streams["observation.joint_position"].values()[0], [6, 7, 8])


def test_the_third_example_takes_a_folder(tmp_path: Path) -> None:
    for i in range(3):
        write_table(
            tmp_path, "npz", {"state": np.zeros((4, 2)), "action": np.zeros((4, 2))}, name=f"episode_{i}"
        )
    tmp_path.joinpath("teleopen.toml").write_text(EXAMPLES[2], "utf-8")
    assert len(list(Mapped().episodes(tmp_path))) == 3
