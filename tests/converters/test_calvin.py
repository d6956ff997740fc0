"""CALVIN: sessions of play, described in parts."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from teleopen.converters.calvin import Calvin
from teleopen.schemas import Episode, FormatError

from tests.samples import calvin


@pytest.fixture
def split(tmp_path: Path) -> Path:
    calvin.write_split(tmp_path / "training")
    return tmp_path / "training"


def sessions(path: Path, **options: Any) -> list[Episode]:
    """Return the episodes, read in this process: tests/converters/test_conformance.py reads confined."""
    return list(Calvin(**options).unconfined(path))


def told(split: Path, spans: list[tuple[int, int]]) -> None:
    language = {
        "language": {
            "ann": ["a"] * len(spans),
            "task": ["t"] * len(spans),
            "emb": np.zeros((len(spans), 1, 4)),
        },
        "info": {"episodes": [], "indx": spans},
    }
    target = split / "lang_annotations" / "auto_lang_ann.npy"
    np.save(target, np.array(language, object), allow_pickle=True)


def test_a_described_span_is_an_event_with_its_rows(split: Path) -> None:
    first, second = sessions(split)
    (event,) = first.events
    assert (event.kind, event.text, event.attributes["task"]) == (
        "instruction",
        "push the red block",
        "push_red",
    )
    assert event.attributes["rows"] == [1, 4]
    times = first.clocks["steps"].read()
    assert abs(event.start_ns - times[1]) <= 1
    assert abs((event.stop_ns or 0) - times[4]) <= 1
    assert second.events[0].attributes["rows"] == [0, 3]


def test_descriptions_that_overlap_or_leave_the_session_are_told(split: Path) -> None:
    told(split, [(5, 9), (6, 7), (8, 11), (100, 110)])
    first, second = sessions(split)
    assert [event.attributes["rows"] for event in first.events] == [[0, 5], [1, 3]]
    for session in (first, second):
        assert any("beyond this session" in warning for warning in session.provenance.warnings)
    assert not second.events


def test_the_next_pose_is_the_action_and_the_relative_one_is_scaled(split: Path) -> None:
    specs = {name: stream.spec for name, stream in sessions(split)[0].streams.items()}
    absolute, relative = specs["action"].contract, specs["action.relative"].contract
    assert absolute is not None
    assert relative is not None
    assert [part.mode for part in absolute.parts] == ["absolute"] * 3
    assert [part.mode for part in relative.parts] == ["delta", "delta", "absolute"]
    assert (absolute.parts[2].gripper_closed, absolute.parts[2].gripper_open) == (-1.0, 1.0)
    assert specs["action.relative"].attributes["scale"][:4] == [0.02, 0.02, 0.02, 0.05]


def test_tactile_pictures_of_six_channels_are_no_video(split: Path) -> None:
    specs = {name: stream.spec for name, stream in sessions(split)[0].streams.items()}
    assert specs["observation.images.static"].kind == "video"
    assert specs["observation.images.tactile"].kind == "low_dim"
    assert specs["observation.depth.static"].kind == "depth"
    assert specs["observation.depth.tactile"].kind == "low_dim"


def test_the_rate_is_the_formats_the_configurations_or_the_options(split: Path) -> None:
    def rate(**options: Any) -> float | None:
        return sessions(split, **options)[0].clocks["steps"].declared_hz

    assert rate() == 30.0
    (split / ".hydra").mkdir()
    (split / ".hydra" / "merged_config.yaml").write_text("env:\n  control_freq: 15\n")
    assert rate() == 15.0
    assert rate(rate_hz=10.0) == 10.0


def test_both_splits_of_a_folder_are_read(split: Path) -> None:
    calvin.write_split(split.with_name("validation"))
    found = [e.extra["calvin"]["split"] for e in sessions(split.parent)]
    assert found == ["training", "training", "validation", "validation"]


@pytest.mark.parametrize("spans", [[[9, 5]], [[-3, 5]], [[0, 1 << 40]], [[5, 9, 1]], [5, 9]])
def test_spans_that_cannot_be_are_refused(split: Path, spans: Any) -> None:
    np.save(split / "ep_start_end_ids.npy", np.array(spans))
    with pytest.raises(FormatError, match=r"span|list"):
        sessions(split)


def test_a_missing_step_is_told(split: Path) -> None:
    split.joinpath("episode_0000008.npz").unlink()
    with pytest.raises(FormatError) as caught:
        sessions(split)
    assert Path(caught.value.path).name == "episode_0000008.npz"


def test_a_step_that_is_no_archive_is_told_when_it_is_read(split: Path) -> None:
    split.joinpath("episode_0000007.npz").write_bytes(b"PK\3\4 cut off")
    stream = sessions(split)[0].streams["action"]
    assert len(stream.values(0, 2)) == 2
    with pytest.raises(FormatError) as caught:
        stream.values()
    assert Path(caught.value.path).name == "episode_0000007.npz"
    assert caught.value.where == "actions"


@pytest.mark.parametrize(
    "held", [{"language": {}}, [1], {"language": {"ann": ["a"], "task": []}, "info": {"indx": []}}]
)
def test_annotations_of_another_make_are_refused(split: Path, held: Any) -> None:
    np.save(split / "lang_annotations" / "auto_lang_ann.npy", np.array(held, object), allow_pickle=True)
    with pytest.raises(FormatError, match="does not tell"):
        sessions(split)


def test_the_sample_is_what_numpy_reads(shared_data: Path) -> None:
    root = shared_data / "calvin_npz" / "sample_D" / "training"
    episodes = list(Calvin().episodes(root))
    assert [len(e.streams["action"].values()) for e in episodes] == [30, 25]
    language = np.load(root / "lang_annotations" / "auto_lang_ann.npy", allow_pickle=True).item()["language"]
    assert [text for e in episodes for text in e.instructions] == language["ann"]
    for (first, last), episode in zip(np.load(root / "ep_start_end_ids.npy"), episodes, strict=True):
        for key, stream in {**calvin.STREAMS, "rgb_gripper": "observation.images.gripper"}.items():
            if "tactile" in key:
                continue
            steps = [np.load(root / f"episode_{number:07d}.npz")[key] for number in range(first, last + 1)]
            np.testing.assert_array_equal(episode.streams[stream].values(), steps, err_msg=key)
