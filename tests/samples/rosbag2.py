"""A bag of ROS 2 in SQLite, written by the library `rosbags`."""

import shutil
from pathlib import Path

from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

from tests.samples import EpisodeTruth, Truth
from tests.samples._ros import INSTRUCTION, Run


def write_bag(
    path: Path,
    run: Run,
    storage: StoragePlugin = StoragePlugin.SQLITE3,
    mode: CompressionMode = CompressionMode.NONE,
) -> Path:
    """Write a run as a bag."""
    bag = Writer(path, version=9, storage_plugin=storage)
    if mode is not CompressionMode.NONE:
        bag.set_compression(mode, CompressionFormat.ZSTD)
    with bag:
        connections = {}
        for told in sorted(run.messages(), key=lambda told: told.log_ns):
            if told.topic not in connections:
                connections[told.topic] = bag.add_connection(told.topic, told.type, typestore=run.store)
            bag.write(connections[told.topic], told.log_ns, run.store.serialize_cdr(told.message, told.type))
    return path


def write(folder: Path) -> Truth:
    """Write the run, and a bag whose database ends early."""
    run = Run(2)
    whole = write_bag(folder / "run", run)
    broken = folder / "broken"
    shutil.copytree(whole, broken)
    database = broken / "run.db3"
    database.write_bytes(database.read_bytes()[:-9_000])
    truth = EpisodeTruth(values=run.streams(), times=run.times(), instructions=(INSTRUCTION,))
    fields = run.fields() | {"metadata.yaml/storage_identifier"}
    return Truth(path=whole, episodes=(truth,), fields=fields, broken=broken)
