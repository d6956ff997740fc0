"""What an episode's streams are held against: the arrays that h5py itself reads."""

from pathlib import Path

import h5py
import numpy as np
from teleopen.schemas import Episode


def assert_same_as_h5py(episode: Episode, path: Path) -> int:
    """Hold every stream of plain numbers against its dataset, bit for bit; return how many there were."""
    compared = 0
    with h5py.File(path) as file:
        for fate in episode.provenance.ledger:
            for name in set(fate.to) & set(episode.streams):
                stored, got = file[fate.field][()], episode.streams[name].values()
                assert got.tobytes() == np.ascontiguousarray(stored).tobytes(), fate.field
                assert len(got) == len(stored)
                compared += 1
    return compared


def assert_all_fields_are_told(episode: Episode, path: Path, group: str) -> None:
    """Look that the ledger has every dataset and attribute of a group and of the file around it."""
    told = {fate.field for fate in episode.provenance.ledger}

    def look(name: str, member: h5py.Group | h5py.Dataset) -> None:
        own = name == group or name.startswith(f"{group}/") or group.startswith(f"{name}/")
        if own:
            assert {f"{name}@{key}" for key in member.attrs} <= told
            assert not isinstance(member, h5py.Dataset) or name in told, name

    with h5py.File(path) as file:
        file.visititems(look)
