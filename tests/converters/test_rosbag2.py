"""The quirks of bags of ROS 2: two storages, compression, splits, and definitions that are not there."""

import io
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rosbags.rosbag2 import CompressionMode, Reader, StoragePlugin
from rosbags.typesys import Stores, get_typestore
from teleopen.converters import converter_for
from teleopen.converters.rosbag2 import Rosbag2
from teleopen.schemas import Episode, FormatError

from tests.samples._ros import Run
from tests.samples.rosbag2 import write_bag


def only(path: Path, **options: Any) -> Episode:
    (episode,) = Rosbag2(**options).episodes(path)
    return episode


KINDS = [(storage, mode) for storage in StoragePlugin for mode in CompressionMode]


@pytest.mark.parametrize(
    ("storage", "mode"), [kind for kind in KINDS if kind != (StoragePlugin.SQLITE3, CompressionMode.STORAGE)]
)
def test_every_storage_and_compression_is_read_alike(
    tmp_path: Path, storage: StoragePlugin, mode: CompressionMode
) -> None:
    episode = only(write_bag(tmp_path / "run", Run(2), storage, mode))
    for name, values in Run(2).streams().items():
        np.testing.assert_array_equal(episode.streams[name].values(), values, err_msg=name)


def test_a_database_alone_is_a_bag(tmp_path: Path) -> None:
    path = write_bag(tmp_path / "run", Run(2)) / "run.db3"
    assert converter_for(path).format.name == "rosbag2"
    assert set(only(path).streams) == set(Run(2).streams())


def test_types_that_a_bag_does_not_define_are_taken_as_published(tmp_path: Path) -> None:
    path = write_bag(tmp_path / "run", Run(2))
    database = sqlite3.connect(path / "run.db3")
    database.executescript("DELETE FROM message_definitions; DROP TABLE schema;")
    database.close()
    episode = only(path)
    for name, values in Run(2).streams().items():
        np.testing.assert_array_equal(episode.streams[name].values(), values, err_msg=name)


def test_a_type_that_nobody_published_is_dropped_aloud(tmp_path: Path) -> None:
    path = write_bag(tmp_path / "run", Run(2))
    database = sqlite3.connect(path / "run.db3")
    database.executescript(
        "DELETE FROM message_definitions;UPDATE topics SET type = 'lab_msgs/msg/Grip' WHERE name = '/gripper'"
    )
    database.close()
    episode = only(path)
    (fate,) = (f for f in episode.provenance.ledger if f.field == "/gripper")
    assert fate.fate == "dropped"
    assert "lab_msgs" in fate.how


def test_fewer_messages_than_announced_are_an_error(tmp_path: Path) -> None:
    path = write_bag(tmp_path / "run", Run(2))
    database = sqlite3.connect(path / "run.db3")
    database.executescript("DELETE FROM messages WHERE id = 5")
    database.close()
    with pytest.raises(FormatError, match="announces"):
        only(path)


def test_a_split_bag_is_one_episode_of_all_files(shared_data: Path) -> None:
    episode = only(shared_data / "ros2_bag/wbag_db3_multifile")
    assert len(episode.provenance.sources) == 6
    assert len(episode.events) == 6074
    assert {event.kind for event in episode.events} == {letter * 3 for letter in "ABCDEFGH"}


def test_a_bag_that_lacks_a_file_says_which(shared_data: Path, tmp_path: Path) -> None:
    path = tmp_path / "bag"
    shutil.copytree(shared_data / "ros2_bag/wbag_db3_multifile", path, copy_function=shutil.copyfile)
    (path / "wbag_2.db3").unlink()
    with pytest.raises(FormatError, match="wbag_2"):
        only(path)


@pytest.mark.parametrize("name", ["g1_bottle_humble_db3", "g1_bottle_jazzy_mcap"])
def test_jpeg_frames_have_the_colours_of_a_standard_decoder(shared_data: Path, name: str) -> None:
    path = shared_data / "ros2_bag" / name
    store = get_typestore(Stores.ROS2_HUMBLE)
    stream = only(path).streams["observation.images.cam_high.image_raw.compressed"]
    with Reader(path) as bag:
        wanted = [c for c in bag.connections if c.topic == "/cam_high/image_raw/compressed"]
        for index, (connection, _, raw) in enumerate(bag.messages(wanted)):
            if index % 20 == 0:
                message: Any = store.deserialize_cdr(raw, connection.msgtype)
                data = message.data.tobytes()
                theirs = np.asarray(Image.open(io.BytesIO(data)))
                np.testing.assert_array_equal(stream.values(index, index + 1)[0], theirs)


def test_a_joint_command_is_not_called_an_observation(shared_data: Path) -> None:
    episode = only(shared_data / "ros2_bag/g1_bottle_humble_db3")
    assert {"observation.joint_states.position", "extra.joint_command.position"} <= set(episode.streams)
    assert episode.instructions == ("Pick up the yellow bottle on the table.",)
