"""robodm: pickles in Matroska, read without loading one."""

import pickle
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from teleopen.converters.robodm_vla import RobodmVla
from teleopen.schemas import Episode, FormatError

from tests.samples import robodm_vla


def only(path: Path, **options: Any) -> Episode:
    """Return the episode, read in this process: tests/converters/test_conformance.py reads confined."""
    (episode,) = RobodmVla(**options).unconfined(path)
    return episode


def test_another_matroska_file_is_not_claimed(tmp_path: Path) -> None:
    path = tmp_path / "film.mkv"
    with av.open(str(path), "w", format="matroska") as container:
        stream: Any = container.add_stream("libx264", rate=10)
        stream.height = stream.width = 32
        container.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
        container.mux(stream.encode(None))
    assert not RobodmVla().probe(path)


def test_a_text_that_changes_becomes_events(tmp_path: Path) -> None:
    texts = ["reach", "reach", "grasp", "lift"]
    tracks: dict[str, list[Any]] = {
        "action": [np.zeros(2)] * 4,
        "subtask": texts,
        "language_instruction": ["go", "go", "stop", "stop"],
    }
    episode = only(robodm_vla.write_vla(tmp_path / "a.vla", tracks))
    steps = [(e.text, e.start_ns, e.stop_ns) for e in episode.events if e.kind == "subtask"]
    assert steps == [
        ("reach", 0, 100_000_000),
        ("grasp", 100_000_000, 150_000_000),
        ("lift", 150_000_000, None),
    ]
    assert episode.instructions == ("go", "stop")


def test_lists_of_numbers_are_arrays_and_other_lists_are_refused(tmp_path: Path) -> None:
    episode = only(robodm_vla.write_vla(tmp_path / "a.vla", {"pose": [[1.0, 2.0], [3.0, 4.0]]}))
    np.testing.assert_array_equal(episode.streams["extra.pose"].values(), [[1.0, 2.0], [3.0, 4.0]])
    ragged = robodm_vla.write_vla(tmp_path / "b.vla", {"pose": [[[1.0], [2.0, 3.0]]]})
    with pytest.raises(FormatError, match="neither numbers nor text"):
        only(ragged)


def test_raw_pictures_are_video(tmp_path: Path) -> None:
    pictures = [np.full((8, 10, 3), i, np.uint8) for i in range(3)]
    episode = only(robodm_vla.write_vla(tmp_path / "a.vla", {"observation/images/top": pictures}))
    stream = episode.streams["observation.images.top"]
    assert stream.spec.kind == "video"
    np.testing.assert_array_equal(stream.values(), pictures)


def test_a_value_of_another_shape_is_told_where_it_stands(tmp_path: Path) -> None:
    stream = only(robodm_vla.write_vla(tmp_path / "a.vla", {"action": [np.zeros(2), np.zeros(3)]})).streams[
        "action"
    ]
    with pytest.raises(FormatError, match="the first is") as caught:
        stream.values()
    assert caught.value.where == "action: packet 1"


def test_batches_of_values_are_refused_by_name(tmp_path: Path) -> None:
    path = robodm_vla.write_vla(tmp_path / "a.vla", {"action": [b"PAR1 and so on"]})
    with pytest.raises(FormatError, match="rawvideo_pyarrow"):
        only(path)


def test_a_file_that_is_cut_off_is_refused_or_shorter(tmp_path: Path) -> None:
    path = robodm_vla.write_vla(tmp_path / "a.vla", {"action": [np.full(2, i) for i in range(20)]})
    whole = path.read_bytes()
    for size in range(700, len(whole), 397):
        path.write_bytes(whole[:size])
        try:
            found = only(path).streams["action"].values()
        except FormatError:
            continue
        np.testing.assert_array_equal(found, [np.full(2, i) for i in range(len(found))])


def oracle(path: Path) -> dict[str, list[Any]]:
    """Read a file as robodm does: unpickle what is no video, decode what is."""
    found: dict[str, list[Any]] = {}
    with av.open(str(path), format="matroska") as container:
        for packet in container.demux(list(container.streams.video)):
            name = packet.stream.metadata["FEATURE_NAME"]
            if packet.stream.codec_context.name == "rawvideo":
                found.setdefault(name, []).extend([pickle.loads(bytes(packet))] if packet.size else [])
            else:
                frames = [
                    frame.to_ndarray(format="rgb24")
                    for frame in packet.decode()
                    if isinstance(frame, av.VideoFrame)
                ]
                found.setdefault(name, []).extend(frames)
    return found


@pytest.mark.parametrize("name", ["insertion_auto", "nocam_list"])
def test_the_samples_are_what_robodm_loads(name: str, shared_data: Path) -> None:
    path = shared_data / "robodm_vla" / f"{name}.vla"
    episode, told = only(path), oracle(path)
    homes = {fate.field: fate.to[0] for fate in episode.provenance.ledger if fate.to}
    for feature, values in told.items():
        if isinstance(values[0], str):
            assert episode.instructions == (values[0],)
        else:
            np.testing.assert_array_equal(episode.streams[homes[feature]].values(), values, err_msg=feature)


def test_times_that_transcoding_spoilt_are_not_taken(shared_data: Path) -> None:
    path = shared_data / "robodm_vla" / "insertion_auto.vla"
    with av.open(str(path), format="matroska") as container:
        stamps = [packet.pts or 0 for packet in container.demux(container.streams.video[0]) if packet.size]
    assert stamps[-1] > 20_000_000
    assert stamps.count(stamps[-1]) == 34
    episode = only(path)
    assert {stream.spec.clock for stream in episode.streams.values()} == {"steps"}
    clock = episode.clocks["steps"]
    assert clock.measured_hz == 50.0
    assert clock.read()[-1] < 1_200_000_000
