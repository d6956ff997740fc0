"""A small world to publish in: a private store with markers in all that must stay."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import huggingface_hub
import huggingface_hub.constants
import huggingface_hub.utils._http
import numpy as np
import pytest
from teleopen.hub import WriteOptions, create_store
from teleopen.hub.log import Withdraw
from teleopen.hub.store import Store, open_store
from teleopen.hub.sync import hub_client
from teleopen.hub.sync.audit import audit
from teleopen.hub.sync.audit_log import AuditLog
from teleopen.hub.sync.plan import Plan
from teleopen.hub.sync.planning import Settings, plan
from teleopen.hub.sync.public_log import read_public
from teleopen.hub.sync.publish import Report, apply
from teleopen.hub.sync.target import Snapshot, Target
from teleopen.hub.sync.tree import MANIFEST, Blob, PublicState, Published
from teleopen.schemas import (
    Clock,
    Episode,
    FieldFate,
    Provenance,
    Rights,
    SourceFile,
    Stream,
    StreamSpec,
    episode_id,
)

from tests.hub_server import Hub
from tests.hub_server.hub import TOKEN

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
MARKER = "CANARY"
_TICKS = count()
REPO = "lab/arms"
_ID = re.compile(rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
URL = f"hf://datasets/{REPO}"

OPEN = Rights.from_document(
    {
        "rights_version": "1.0",
        "licence": {"expression": "CC-BY-4.0", "state": "stated-by-holder"},
        "tier": "open",
        "holder": [{"name": "Open Robot Lab", "kind": "org"}],
        "attribution": [{"creators": ["Open Robot Lab"], "title": "Arms"}],
        "acquisition": {"channel": "own-recording", "basis": "holder"},
        "people": {"present": "none"},
        "jurisdiction": {"collected_in": ["DE"]},
        "pii": {"status": "none"},
        "signoff": [{"by": "Ada", "at": "2026-01-01T00:00:00Z"}],
    }
)
"""Rights that open an episode, but for the source files, which the store adds."""


def tiny(seed: int, rights: Rights = OPEN, marker: str = "") -> Episode:
    """Return an episode of a few numbers; with a marker in all that a private one could leak by."""
    steps = 4
    text = marker or f"task {seed}"
    raw = (marker.encode() or b"%d" % seed).ljust(4 * 3 * steps, b".")[: 4 * 3 * steps]
    values = np.frombuffer(raw, np.uint8).reshape(steps, 12)

    def read(start: int, stop: int) -> Iterator[Any]:
        yield values[start:stop]

    spec = StreamSpec(name="observation.state", kind="low_dim", dtype="uint8", shape=(12,), unit=("1",))
    digest = f"{seed:064x}"
    clock = Clock(
        name="steps",
        kind="nominal",
        declared_hz=30,
        length=steps,
        read=lambda: np.arange(steps, dtype=np.int64) * 33_333_333,
    )
    return Episode(
        id=episode_id([digest]),
        instructions=(text,),
        embodiment="arm",
        rights=rights,
        provenance=Provenance(
            format="made-up",
            converter="tests",
            converter_version="1",
            sources=(SourceFile(uri=f"{text}.bin", size=1, sha256=digest),),
            ledger=(FieldFate(field=f"/{text}", fate="kept", to=(spec.name,), lossless=True),),
        ),
        clocks={"steps": clock},
        streams={spec.name: Stream(spec=spec, length=steps, read=read)},
        extra={"note": text} if marker else {},
    )


def describe(published: Published) -> Mapping[str, bytes]:
    """Return a card and an index, as small as they can be."""
    card = f"---\nlicense: cc-by-4.0\n---\n# {len(published.episodes)} episodes\n"
    return {"README.md": card.encode(), "index/episodes.txt": "\n".join(published.episodes).encode()}


@dataclass
class World:
    """A private store. The clock of all worlds goes on by a second whenever somebody decides.

    Attributes
    ----------
    shift
        How far this world's own clock is off.
    """

    store: Store
    folder: Path
    shift: timedelta = timedelta()

    @property
    def public(self) -> list[str]:
        """Ids of the episodes that are open, sorted."""
        return sorted(e for e, rights in self.store.state.rights.items() if rights.get("tier") == "open")

    def leaks(self, hub: Hub) -> list[str]:
        """Return what a server received of what must stay: marked text, and ids of private episodes."""
        private = {e.encode() for e in self.store.ids}.difference(e.encode() for e in self.public)
        return [
            f"{request.method} {request.path}"
            for request in hub.record
            for text in request.texts()
            if MARKER.encode() in text or private.intersection(_ID.findall(text))
        ]

    def settings(self, **options: Any) -> Settings:
        now = NOW + timedelta(seconds=next(_TICKS)) + self.shift
        return Settings(now=now, describe=describe, **options)

    def replan(self, target: Target, store: Store | None = None) -> Callable[[PublicState], Plan]:
        chosen = store or self.store
        return lambda state: plan(chosen, target.url, state, self.settings())

    def log(self) -> AuditLog:
        return AuditLog(self.folder / "publish.jsonl")

    def publish(self, target: Target, store: Store | None = None) -> Report:
        """Look, plan, publish."""
        replan = self.replan(target, store)
        return apply(replan(target.look()), target, replan, log=self.log())

    def add(self, *episodes: Episode) -> None:
        self.store.write(list(episodes), WriteOptions())

    def withdraw(self, *episodes: str, ground: str = "consent") -> None:
        self.store.catalog.commit(lambda _state: [Withdraw(tuple(episodes), ground)], author="ada")
        self.store.refresh()


def make_world(folder: Path, *, opened: int = 2, closed: int = 2) -> World:
    """Make a store with open episodes, and with closed ones full of markers."""
    store = create_store(folder / "private")
    rng = [tiny(seed) for seed in range(opened)]
    rng += [tiny(1000 + seed, Rights(), f"{MARKER}{seed:04d}") for seed in range(closed)]
    store.write(rng, WriteOptions())
    return World(store, folder)


def again(world: World) -> World:
    """Return the world as another process would open it."""
    return replace(world, store=open_store(world.folder / "private"))


def shown(hub: Hub) -> list[list[str]]:
    """Return the public episodes of every state that a reader of the main branch ever saw, oldest first.

    Each of them is audited in full; those before the first publishing hold nothing of a store.
    """
    found = hub.repositories.get(REPO)
    states = []
    for commit in reversed(list(found.history(found.resolve("main")))) if found else []:
        if MANIFEST in commit.files:
            states.append(_audited(_Commit(found, commit)))
        else:
            assert not any(path.startswith(("segments/", "catalog/", "index/")) for path in commit.files)
    return states


_AUDITED: dict[str, list[str]] = {}


def _audited(place: _Commit) -> list[str]:
    """Return the episodes of a state, having audited it in full; one that is the same was audited before."""
    if place.base not in _AUDITED:
        found = audit(place, full=True, now=NOW + timedelta(days=1))  # type: ignore[arg-type]  # it can be looked at
        assert not found.findings
        _AUDITED[place.base] = sorted(place.look().state.episodes)
    return _AUDITED[place.base]


class _Commit:
    """A commit in the server's memory, as a target that can be looked at."""

    url = URL

    def __init__(self, repository: Any, commit: Any) -> None:
        self._repository, self._commit = repository, commit
        self.base = commit.id

    def look(self, _revision: str | None = None) -> Any:
        content = {path: self._repository.content(file) for path, file in self._commit.files.items()}
        files = {path: Blob.of(path, data).file for path, data in content.items()}
        storage = Snapshot(self.url, files, lambda path, start, stop: content[path][start:stop])
        return read_public(storage, self._commit.id, files)


@contextmanager
def real_client(hub: Hub) -> Iterator[None]:
    """Let the real client speak to a server on this machine, without waiting and without Xet."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        patch.setattr("huggingface_hub.utils._http.time.sleep", lambda _seconds: None)
        patch.setattr(hub_client, "sleep", lambda _seconds: None)
        patch.setenv("HF_TOKEN", TOKEN)
        yield
        huggingface_hub.close_session()
