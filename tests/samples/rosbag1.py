"""A bag of ROS 1, written by the library `rosbags` with lz4 chunks."""

from pathlib import Path

from rosbags.rosbag1 import Writer

from tests.samples import EpisodeTruth, Truth
from tests.samples._ros import INSTRUCTION, Run


def write_bag(path: Path, run: Run, compression: Writer.CompressionFormat | None = None) -> Path:
    """Write a run as a bag."""
    bag = Writer(path)
    if compression is not None:
        bag.set_compression(compression)
    with bag:
        connections = {}
        for told in sorted(run.messages(), key=lambda told: told.log_ns):
            if told.topic not in connections:
                connections[told.topic] = bag.add_connection(told.topic, told.type, typestore=run.store)
            raw = run.store.serialize_ros1(told.message, told.type)
            bag.write(connections[told.topic], told.log_ns, raw)
    return path


def write(folder: Path) -> Truth:
    """Write the run, and a bag that was cut off."""
    run = Run(1)
    whole = write_bag(folder / "run.bag", run, Writer.CompressionFormat.LZ4)
    broken = folder / "broken.bag"
    broken.write_bytes(whole.read_bytes()[:-300])
    truth = EpisodeTruth(values=run.streams(), times=run.times(), instructions=(INSTRUCTION,))
    return Truth(path=whole, episodes=(truth,), fields=run.fields(), broken=broken)
