"""An MCAP file, written by the library `mcap`: the run of an arm as ROS 2, and a topic in JSON."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from mcap.writer import CompressionType, Writer

from tests.samples import EpisodeTruth, Truth
from tests.samples._ros import INSTRUCTION, LATE, START, Run

FORCE = [0.5, 1, 2.25, -3]


def write_file(
    path: Path,
    run: Run,
    compression: CompressionType = CompressionType.ZSTD,
    *,
    chunk_size: int = 2_000,
    **options: Any,
) -> Path:
    """Write a run as an MCAP file, of many chunks by default."""
    with path.open("wb") as file:
        writer: Any = Writer(file, compression=compression, chunk_size=chunk_size, **options)
        writer.start(profile="ros2", library="a test")
        channels: dict[str, int] = {}
        for told in sorted(run.messages(), key=lambda told: told.log_ns):
            if told.topic not in channels:
                text = run.definition(told.type).encode()
                schema = writer.register_schema(told.type, "ros2msg", text)
                channels[told.topic] = writer.register_channel(told.topic, "cdr", schema)
            raw = bytes(run.store.serialize_cdr(told.message, told.type))
            writer.add_message(channels[told.topic], told.log_ns, raw, told.log_ns)
        schema = writer.register_schema("Force", "jsonschema", b"{}")
        channel = writer.register_channel("/force", "json", schema)
        for i, force in enumerate(FORCE):
            raw = json.dumps({"newton": force, "ok": i > 1, "phase": f"phase {i}"}).encode()
            writer.add_message(channel, START + LATE + i * 70_000_000, raw, START + LATE + i * 70_000_000 - 5)
        writer.add_metadata("session", {"operator": "nobody", "site": "bench 3"})
        writer.add_attachment(START, START, "arm.urdf", "application/octet-stream", b"\0\1")
        writer.finish()
    return path


def write(folder: Path) -> Truth:
    """Write the run, and a file with a byte that flipped within a chunk."""
    run = Run(2)
    whole = write_file(folder / "run.mcap", run)
    broken = write_file(folder / "broken.mcap", run, CompressionType.NONE)
    raw = bytearray(broken.read_bytes())
    raw[raw.index(b"wrist")] ^= 1
    broken.write_bytes(raw)
    force = {
        "extra.force.newton": np.array(FORCE),
        "extra.force.ok": np.array([False, False, True, True]),
        "extra.force.publish_time": START + LATE + np.arange(4) * 70_000_000 - 5,
    }
    truth = EpisodeTruth(
        values=run.streams() | force,
        times=run.times() | {"force": LATE + np.arange(4) * 70_000_000},
        instructions=(INSTRUCTION,),
    )
    others = {"/force:phase", "attachments/arm.urdf", "metadata/session/operator", "header/profile"}
    return Truth(path=whole, episodes=(truth,), fields=run.fields() | others, broken=broken)
