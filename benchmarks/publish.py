"""Publishing to a Hub on this machine, compared with the bare client sending the same files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
from huggingface_hub import CommitOperationAdd, HfApi
from teleopen.hub import Store, create_store
from teleopen.hub.sync.audit_log import AuditLog
from teleopen.hub.sync.hub_target import HubTarget
from teleopen.hub.sync.plan import Plan
from teleopen.hub.sync.planning import Settings, plan
from teleopen.hub.sync.publish import apply
from teleopen.hub.sync.tree import PublicState, materialise
from teleopen.schemas import (
    Array,
    Clock,
    Episode,
    Provenance,
    Rights,
    SourceFile,
    Stream,
    StreamSpec,
    episode_id,
    nominal_times,
)

from tests.hub_server import Hub, hub_server
from tests.hub_server.hub import TOKEN

from .corpus import Bench
from .measure import interleaved_jobs
from .report import Aim, Row, Table

_SAMPLE = 1 << 16
_STEPS = 256
_URL = "hf://datasets/lab/bench{}"
_OPEN = Rights.from_document(
    {
        "rights_version": "1.0",
        "licence": {"expression": "CC-BY-4.0", "state": "stated-by-holder"},
        "tier": "open",
        "holder": [{"name": "Benchmark Lab", "kind": "org"}],
        "attribution": [{"creators": ["Benchmark Lab"], "title": "Noise"}],
        "acquisition": {"channel": "synthetic", "basis": "holder"},
        "people": {"present": "none"},
        "jurisdiction": {"collected_in": ["DE"]},
        "pii": {"status": "none"},
        "signoff": [{"by": "Benchmark Lab", "at": "2026-01-01T00:00:00Z"}],
    }
)


def table(bench: Bench) -> Table:
    """Measure sending a store of noise for the first time, and sending it again."""
    store = create_store(bench.new_folder(), author="benchmarks")
    store.write(map(_noise, range(2 if bench.quick else 12)))
    with hub_server() as hub:
        first = _Publishing(store, hub, bench.new_folder())
        tree = bench.new_folder() / "tree"
        tree.mkdir()
        megabytes = first.materialise(tree) / 1e6
        jobs = {
            "ours": (partial(_ours, store, hub, bench), 1),
            "bare": (partial(_bare, tree, hub), 1),
        }
        samples = interleaved_jobs(jobs, 2 if bench.quick else 5)
        asked, sent = first.no_change()
    return Table(
        "publish: CPU time to a Hub on this machine, the server's included",
        notes=[
            f"{megabytes:.0f} MB. Ours decides, checks all hashes, makes one commit, reads a sample, tags;",
            "the bare client commits the same files. Ratio: bare / ours; for the second run, requests.",
        ],
        rows=[
            Row(
                what="first publishing",
                figure=f"{megabytes / samples.median('ours'):.0f} MB per CPU second",
                peer="create_commit",
                peer_figure=f"{megabytes / samples.median('bare'):.0f} MB per CPU second",
                ratio=samples.ratio("bare", "ours"),
                aim=Aim(">=", 0.8),
            ),
            Row(what="publishing again: requests", figure=str(asked), ratio=float(asked), aim=Aim("<=", 5)),
            Row(what="publishing again: bytes sent", figure=str(sent), ratio=float(sent), aim=Aim("<=", 0)),
        ],
    )


def _noise(number: int) -> Episode:
    def read(start: int, stop: int) -> Iterator[Array]:
        for step in range(start, stop):
            yield np.random.default_rng((number, step)).integers(0, 256, (1, _SAMPLE), np.uint8)

    spec = StreamSpec(name="observation.state", kind="low_dim", dtype="uint8", shape=(_SAMPLE,), unit=("1",))
    clock = Clock(
        name="steps",
        kind="nominal",
        declared_hz=30,
        length=_STEPS,
        read=partial(nominal_times, _STEPS, 30),
    )
    digest = f"{number:064x}"
    return Episode(
        id=episode_id([digest]),
        instructions=("make noise",),
        embodiment="none",
        rights=_OPEN,
        provenance=Provenance(
            format="noise",
            converter="benchmarks",
            converter_version="1",
            sources=(SourceFile(uri="noise", size=1, sha256=digest),),
        ),
        clocks={"steps": clock},
        streams={spec.name: Stream(spec=spec, length=_STEPS, read=read)},
    )


class _Publishing:
    """One store and one repository."""

    def __init__(self, store: Store, hub: Hub, folder: Path, name: str = "") -> None:
        self._store, self._hub, self._folder = store, hub, folder
        self._url = _URL.format(name)

    def target(self) -> HubTarget:
        return HubTarget(self._url, endpoint=self._hub.url, token=TOKEN, cache=self._folder / "cache")

    def plan(self, state: PublicState) -> Plan:
        return plan(self._store, self._url, state, Settings(now=datetime.now(UTC)))

    def publish(self) -> None:
        target = self.target()
        apply(self.plan(target.look()), target, self.plan, log=AuditLog(self._folder / "log"))

    def materialise(self, folder: Path) -> int:
        """Write what will be published into a folder, and return its bytes."""
        tree = self.plan(self.target().look()).files()
        materialise(tree, folder)
        return tree.bytes

    def no_change(self) -> tuple[int, int]:
        """Publish twice, and return the requests and the bytes that the second time sent."""
        self.publish()
        self._hub.record.clear()
        self.publish()
        return len(self._hub.record), self._hub.record.body_bytes


def _ours(store: Store, hub: Hub, bench: Bench, turn: int) -> None:
    with _forgotten(hub):
        _Publishing(store, hub, bench.new_folder(), f"-ours-{turn}").publish()


def _bare(tree: Path, hub: Hub, turn: int) -> None:
    with _forgotten(hub):
        api = HfApi(endpoint=hub.url, token=TOKEN)
        name = f"lab/bench-bare-{turn}"
        api.create_repo(name, repo_type="dataset")
        files = sorted(path for path in tree.rglob("*") if path.is_file())
        attributes = [path for path in files if path.name == ".gitattributes"]
        for batch in (attributes, [path for path in files if path not in attributes]):
            operations = [CommitOperationAdd(path.relative_to(tree).as_posix(), path) for path in batch]
            api.create_commit(name, operations, commit_message="bench", repo_type="dataset")


@contextmanager
def _forgotten(hub: Hub) -> Iterator[None]:
    """Let the server forget what it got, so that rounds find the same memory."""
    yield
    hub.repositories.clear()
    hub.record.clear()
