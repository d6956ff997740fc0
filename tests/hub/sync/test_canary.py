"""Markers in every place of what stays: none of them may be in any byte or path of what is published."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from teleopen.hub.store import Store
from teleopen.schemas import Array, Episode, Event, FieldFate, Rights, SourceFile, Stream

from tests.hub.sync.publishing import OPEN, Place, planned, rights, small, store_of
from tests.schemas.rights_cases import but

CANARY = "cAnArY7f3a"
RAW = np.frombuffer(b"\xde\xc0cAnArYraw\xad\x0b", np.uint8)
"""Bytes that are samples of what stays; rows are stored as they are."""


def raw_rows(spec: Any, start: int, stop: int) -> Iterator[Array]:
    rows = np.zeros((stop - start, int(np.prod(spec.shape, dtype=int)) * spec.np_dtype.itemsize), np.uint8)
    rows[:, : len(RAW)] = RAW[: rows.shape[1]]
    yield rows.view(spec.np_dtype).reshape(stop - start, *spec.shape)


def with_canaries(episode: Episode, *, names: bool) -> Episode:
    """Return an episode with a marker in every place of its header, in its samples and its rights.

    Parameters
    ----------
    names
        Also in the names of streams, which are names of folders. Such an episode has a segment of its own.
    """
    streams = {}
    for name, stream in episode.streams.items():
        bears = f"{name}.{CANARY}" if names else name
        spec = (
            dataclasses.replace(
                stream.spec,
                name=bears,
                description=CANARY,
                frame=CANARY,
                attributes={CANARY: CANARY, "order_evidence": CANARY},
            )
            if names
            else dataclasses.replace(stream.spec, name=bears)
        )
        read = partial(raw_rows, spec) if spec.name.startswith("observation.state") else stream.read
        streams[bears] = Stream(spec=spec, length=stream.length, read=read)
    ledger = tuple(
        FieldFate(
            field=f"/{CANARY}/{name}", fate="transformed", to=(name,), how=CANARY, error={CANARY: CANARY}
        )
        for name in streams
    )
    provenance = dataclasses.replace(
        episode.provenance,
        format=CANARY,
        revision=CANARY,
        selector=CANARY,
        sources=(SourceFile(uri=f"/x/{CANARY}", size=1, sha256="c" * 64, role=CANARY),),
        options={CANARY: CANARY},
        ledger=ledger,
        evidence={CANARY: CANARY},
        warnings=(CANARY,),
    )
    return dataclasses.replace(
        episode,
        instructions=(f"task {CANARY}",),
        provenance=provenance,
        streams=streams,
        events=(Event(kind=CANARY, start_ns=0, text=CANARY, attributes={CANARY: CANARY}),),
        extra={CANARY: CANARY},
        embodiment=CANARY if names else episode.embodiment,
    )


SECRET_RIGHTS = {
    "tier": "closed",
    "holder": [{"name": CANARY, "kind": "org", "id": CANARY}],
    "attribution": [{"title": CANARY, "creators": [CANARY], "cite": CANARY}],
    "licence.statements": [{"url": f"https://example.org/{CANARY}", "quoted": CANARY}],
    "signoff": [{"by": CANARY, "at": "2026-05-01T09:00:00Z", "terms": CANARY}],
    "review": [{"who": CANARY, "at": "2026-05-01T09:00:00Z", "verdict": "agree", "note": CANARY}],
    "source": [{"uri": CANARY, "sha256": "c" * 64}],
}


def assert_no_canary(place: Place, *ids: str) -> None:
    raw = place.raw()
    assert CANARY.encode() not in raw
    assert RAW.tobytes() not in raw
    for one in ids:
        assert one.encode() not in raw


def closed_store(folder: Path) -> tuple[Store, list[str], list[str]]:
    """Return a store of open episodes beside closed ones with canaries, and the ids of both."""
    closed_rights = Rights.from_document(but(SECRET_RIGHTS))
    opened = [small(seed) for seed in (1, 3, 5)]
    beside = [with_canaries(small(seed), names=False) for seed in (2, 4)]
    apart = with_canaries(small(6), names=True)
    store = store_of(folder, opened[0], beside[0], opened[1], beside[1], opened[2], apart)
    assert len(store.state.segments) == 2, "open and closed episodes share a segment"
    secret = [episode.id for episode in (*beside, apart)]
    store.set_rights(closed_rights, secret)
    store.set_rights(OPEN, [episode.id for episode in opened])
    return store, [episode.id for episode in opened], secret


def test_nothing_of_a_closed_episode_is_in_what_is_published(tmp_path: Path) -> None:
    store, opened, secret = closed_store(tmp_path)
    place = Place(tmp_path / "public")
    place.take(planned(store))
    assert list(place.store().ids) == opened
    assert_no_canary(place, *secret)
    assert CANARY.encode() in b"".join(
        path.read_bytes() for path in (tmp_path / "private").rglob("*") if path.is_file()
    )


def test_the_canaries_would_be_found_if_they_were_published(tmp_path: Path) -> None:
    store, _, secret = closed_store(tmp_path)
    store.set_rights(OPEN, [secret[0]])
    place = Place(tmp_path / "public")
    place.take(planned(store))
    assert RAW.tobytes() in place.raw()
    assert CANARY.encode() in place.raw()


def test_the_names_of_a_withdrawal_stay(tmp_path: Path) -> None:
    store, opened, _ = closed_store(tmp_path)
    place = Place(tmp_path / "public")
    place.take(planned(store))
    store.withdraw([opened[0]], "consent", f"asked by {CANARY}", author=CANARY)
    place.take(planned(store, place.state(), day=1))
    assert_no_canary(place)


Step = tuple[str, int]
steps = st.lists(
    st.tuples(st.sampled_from(["open", "close", "withdraw", "compact", "publish"]), st.integers(0, 5)),
    min_size=3,
    max_size=10,
)


@pytest.mark.slow
@settings(max_examples=25)
@given(steps=steps)
def test_whatever_is_done_only_what_is_open_is_public_after_a_publish(
    steps: list[Step], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("story")
    store = store_of(folder, *(small(seed, steps=8) for seed in range(6)))
    ids, place = list(store.ids), Place(folder / "public")
    shown = {e: store.episode(e).streams["observation.state"].values().tobytes() for e in ids}
    opened: set[str] = set()
    for day, (what, number) in enumerate([*steps, ("publish", 0)]):
        episode = ids[number]
        if what == "open" and episode in store.ids:
            store.set_rights(OPEN, [episode])
            opened.add(episode)
        elif what == "close" and episode in store.ids:
            store.set_rights(rights(tier="closed"), [episode])
            opened.discard(episode)
        elif what == "withdraw" and episode in store.ids:
            store.withdraw([episode], "consent")
            opened.discard(episode)
        elif what == "compact":
            store.compact()
        elif what == "publish":
            place.take(planned(store, place.state(), day=day))
            public = place.store() if place.files() else None
            assert set(public.ids if public else ()) == opened
            assert public is None or public.verify(decode=True).damage == ()
            raw = place.raw()
            assert [e for e in ids if shown[e] in raw] == [e for e in ids if e in opened]
            assert not planned(store, place.state(), day=day).changed
