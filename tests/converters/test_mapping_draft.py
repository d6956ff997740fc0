"""A drafted mapping converts as it is, and once a person has filled it in."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from teleopen.converters._mapping_draft import draft
from teleopen.converters.mapped import Mapped
from teleopen.schemas import Episode, FormatError

from tests.converters.tables import KINDS, write_table
from tests.samples.mapped import write

STEPS = 6


def converted(path: Path, text: str) -> list[Episode]:
    mapping = path.with_name("drafted.toml")
    mapping.write_text(text, "utf-8")
    return list(Mapped(mapping=str(mapping)).episodes(path))


@pytest.mark.parametrize("kind", KINDS)
def test_a_draft_converts_as_it_is_and_says_nothing_of_meaning(tmp_path: Path, kind: str) -> None:
    columns = {"t": np.arange(STEPS) / 4, "q": np.zeros((STEPS, 3)), "say": ["go"] * STEPS}
    path = write_table(tmp_path, kind, columns)
    (episode,) = converted(path, draft(path))
    assert set(episode.streams) == {"extra.t", "extra.q"}
    assert {stream.spec.unit for stream in episode.streams.values()} == {("unknown",)}
    assert episode.clocks["steps"].source.startswith("unknown")
    assert episode.instructions == ()


def test_a_draft_that_was_filled_in_says_what_it_was_told(tmp_path: Path) -> None:
    path = write_table(tmp_path, "hdf5", {"t": np.arange(STEPS) / 4, "q": np.zeros((STEPS, 3), np.float32)})
    text = draft(path)
    changes = {
        'rate_hz = "unknown"': "#",
        '# field = "t"\n': 'field = "t"\n',
        '# unit = "s"': 'unit = "s"',
        '[streams."extra.q"]': '[streams."observation.joint_position"]',
        "# axes = []": 'axes = ["a", "b", "c"]',
        'field = "q"\nunit = "unknown"': 'field = "q"\nunit = "rad"',
        '# instruction = "..."': 'instruction = "wave" #',
    }
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    (episode,) = converted(path, text)
    spec = episode.streams["observation.joint_position"].spec
    assert (spec.unit, spec.axes) == (("rad",), ("a", "b", "c"))
    assert (episode.clocks["steps"].kind, episode.instructions) == ("recorded", ("wave",))


def test_groups_that_differ_by_a_number_are_proposed_as_episodes(tmp_path: Path) -> None:
    path = tmp_path / "all.h5"
    with h5py.File(path, "w") as file:
        for i in range(11):
            file[f"data/demo_{i}/q"] = np.zeros((STEPS, 2))
        file["mask/train"] = np.arange(3)
    text = draft(path)
    assert 'groups = "data/demo_*"' in text
    assert text.count("[streams.") == 1
    assert [e.provenance.selector for e in converted(path, text)][-1] == "data/demo_10"


def test_a_folder_is_told_by_its_first_file(tmp_path: Path) -> None:
    tmp_path.joinpath("a.txt").write_text("x")
    write_table(tmp_path, "npz", {"q": np.zeros((STEPS, 2))})
    text = draft(tmp_path)
    assert 'files = "*.npz"' in text
    tmp_path.joinpath("teleopen.toml").write_text(text)
    assert len(list(Mapped().episodes(tmp_path))) == 1


def test_everything_that_a_file_holds_is_in_the_draft(tmp_path: Path) -> None:
    site = write(tmp_path).path
    text = draft(site / "runs" / "2.h5")
    names = ["control/stamp", "control/phase", "camera/front", "camera/wrist", "camera/K", "debug/a", "@ok"]
    assert [name for name in names if f'"{name}"' not in text] == []
    assert "bytes in each of 4 rows" in text
    (episode,) = converted(site / "runs" / "2.h5", text)
    assert "extra.control.state" in episode.streams


def test_a_folder_without_recordings_has_no_draft(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="holds no file"):
        draft(tmp_path)


@settings(max_examples=25)
@given(
    name=st.text(
        st.characters(exclude_categories=["Cs", "Cc", "Cf"], exclude_characters="/"), min_size=1, max_size=12
    )
)
def test_names_of_any_letters_are_quoted_as_toml_wants(
    tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    if name in {".", ".."}:
        return
    path = tmp_path_factory.mktemp("draft") / "a.npz"
    arrays: dict[str, Any] = {"q": np.zeros((STEPS, 2)), name: np.zeros(STEPS)}
    np.savez(path, **arrays)
    (episode,) = converted(path, draft(path))
    assert name in {fate.field for fate in episode.provenance.ledger}


@pytest.mark.parametrize(
    "place", ["ros1_bag/lift_panda_lz4.bag", "ros2_bag/g1_bottle_humble_db3", "mcap/g1_foxglove_h264.mcap"]
)
def test_topics_of_real_bags_are_drafted(shared_data: Path, tmp_path: Path, place: str) -> None:
    text = draft(shared_data / place)
    mapping = tmp_path / "lab.toml"
    mapping.write_text(text, "utf-8")
    (episode,) = Mapped(mapping=str(mapping)).episodes(shared_data / place)
    assert all(clock.kind == "recorded" for clock in episode.clocks.values())
    assert len(episode.streams) >= 4
