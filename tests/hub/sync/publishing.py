"""What the tests of publishing share: stores with rights, plans at a fixed time, and a folder as a target."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from teleopen.hub.storage import open_storage
from teleopen.hub.store import Store, create_store, open_store
from teleopen.hub.sync.plan import Plan
from teleopen.hub.sync.planning import Settings, plan
from teleopen.hub.sync.public_log import read_public
from teleopen.hub.sync.tree import EMPTY, PublicState
from teleopen.schemas import Episode, Rights

from tests.episodes import make
from tests.schemas.rights_cases import DELETE, but

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
TARGET = "hf://datasets/lab/kitchen"
OPEN_DOCUMENT = but({"source": DELETE})
OPEN = Rights.from_document(OPEN_DOCUMENT)
"""Opens whatever it is put on, under CC-BY-4.0."""
SMALL = {"steps": 12, "size": (16, 16), "imu": False, "depth": False}


def rights(**edits: Any) -> Rights:
    """Return `OPEN` with members replaced, dots written as double underscores."""
    return Rights.from_document(but({k.replace("__", "."): v for k, v in edits.items()}, OPEN_DOCUMENT))


def small(seed: int, **options: Any) -> Episode:
    """Return a small made-up episode."""
    return make(seed=seed, **{**SMALL, **options})


def store_of(folder: Path, *episodes: Episode) -> Store:
    """Return a new store that holds these."""
    store = create_store(folder / "private", author="test")
    store.write(episodes)
    return store


def settings(day: float = 0, **options: Any) -> Settings:
    """Return the settings of a day, counted from `NOW`."""
    return Settings(now=NOW + timedelta(days=day), **options)


def planned(store: Store, previous: PublicState = EMPTY, *, day: float = 0, **options: Any) -> Plan:
    """Return a plan for `TARGET`."""
    return plan(store, TARGET, previous, settings(day, **options))


class Place:
    """A local folder that plans are carried out on, file by file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.folder.mkdir(parents=True)

    def take(self, told: Plan) -> Plan:
        """Carry a plan out; every byte is checked as it is read."""
        tree = told.files()
        for path in told.delete:
            self.folder.joinpath(path).unlink()
        for path in told.add:
            place = self.folder.joinpath(path)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(tree.files[path].read())
        assert self.files() == {path: blob.sha256 for path, blob in tree.files.items()}
        return told

    def files(self) -> dict[str, str]:
        """Return the SHA-256 of every file."""
        return {
            path.relative_to(self.folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(self.folder.rglob("*"))
            if path.is_file()
        }

    def raw(self) -> bytes:
        """Return every path and every byte."""
        files = [path for path in sorted(self.folder.rglob("*")) if path.is_file()]
        return b"\0".join(
            part for f in files for part in (f.relative_to(self.folder).as_posix().encode(), f.read_bytes())
        )

    def state(self, *, readable: bool = True) -> PublicState:
        """Return what lies there."""
        if not self.files():
            return EMPTY
        found = read_public(open_storage(self.folder), str(len(list(self.folder.rglob("*")))))
        return found if readable else replace(found, storage=None)

    def store(self) -> Store:
        """Return it as the store that it is."""
        return open_store(self.folder)


def codes(told: Plan) -> dict[str, list[str]]:
    """Return the codes of those who stay, by id."""
    return {e: [r.code for r in group.reasons] for group in told.staying for e in group.episodes}
