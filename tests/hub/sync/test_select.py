"""Who goes. Read this as the specification: one closed episode that goes is a disaster."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from teleopen.hub.catalog import Add
from teleopen.hub.state import State, Where
from teleopen.hub.sync import select as selecting
from teleopen.hub.sync.facts import EpisodeFacts, Facts, SegmentFacts
from teleopen.hub.sync.planning import licence_classes, plan, split_target
from teleopen.hub.sync.select import Court, Stay, select
from teleopen.hub.sync.tree import EMPTY
from teleopen.schemas import OPEN_V1, Episode, Rights, RightsError

from tests.hub.sync.publishing import (
    NOW,
    OPEN,
    OPEN_DOCUMENT,
    TARGET,
    Place,
    codes,
    planned,
    rights,
    settings,
    small,
    store_of,
)
from tests.schemas.rights_cases import DELETE, HASH, LEVELS, OTHER_HASH, but
from tests.schemas.test_decision import should_be_open

Levels = dict[str, Any]
BASE = {path: levels[0] for path, levels in LEVELS.items()}


# --- against an oracle that shares no code -----------------------------------------------------------------


class OneSource(Facts):
    """Facts on episodes that were all made from the file with hash `HASH`."""

    def __init__(self) -> None:
        pass

    def of(self, add: Add, names: tuple[str, ...]) -> SegmentFacts:
        about = {
            episode: EpisodeFacts(row, HASH, unchanged=True, sources=(HASH,), foreign=False, problem="")
            for episode, row in add.episodes.items()
        }
        return SegmentFacts(len(about), unchanged=True, streams={"action": None}, episodes=about)


def state_of(records: Sequence[Mapping[str, Any]]) -> State:
    """Return the state of a store with an episode for each record, each of its own content."""
    ids = [f"{number:08x}-0000-8000-8000-000000000000" for number in range(len(records))]
    add = Add(
        segment="5" * 32,
        files={},
        episodes={episode: row for row, episode in enumerate(ids)},
        contents={episode: f"{row:064x}" for row, episode in enumerate(ids)},
        rights={},
    )
    return State(
        version=1,
        head="",
        dataset="",
        files={},
        segments={add.segment: add},
        episodes={episode: Where(add.segment, row) for row, episode in enumerate(ids)},
        contents={},
        rights=dict(zip(ids, records, strict=True)),
        withdrawn={},
    )


class Parsed:
    """Records that are put together from members that were parsed once each."""

    def __init__(self) -> None:
        self.names = list(Rights.__dataclass_fields__)
        self.members: dict[tuple[str, str], Any] = {}
        self.template = Rights.from_document(OPEN_DOCUMENT)

    def record(self, levels: Levels) -> Rights:
        record = object.__new__(Rights)
        for name in self.names:
            mine = {path: value for path, value in levels.items() if path.partition(".")[0] == name}
            key = (name, repr(sorted(mine.items(), key=lambda item: item[0])))
            if key not in self.members:
                document = but(mine, OPEN_DOCUMENT)
                self.members[key] = getattr(Rights.from_document(document), name)
            object.__setattr__(record, name, self.members[key])
        return record


def opened(records: Sequence[Rights], monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Return the numbers of the records that let an episode go."""
    documents = [{"number": number} for number in range(len(records))]
    monkeypatch.setattr(selecting, "_record", lambda document: records[document["number"]])
    # What leaves of a record that opens is no part of the decision, and takes fifty times as long.
    monkeypatch.setattr(selecting, "public_rights", lambda _: {})
    state = state_of(documents)
    found = select(state, OneSource(), Court(policy=OPEN_V1, now=NOW), EMPTY)
    assert len(found.going) + len(found.staying) == len(records)
    return {state.episodes[episode].row for episode in found.going}


BOUND: list[tuple[Any, bool]] = [
    (DELETE, True),  # the header names the files
    ([{"uri": "a", "sha256": HASH}], True),
    ([{"uri": "a", "sha256": HASH}, {"uri": "b", "sha256": OTHER_HASH}], True),
    ([{"uri": "b", "sha256": OTHER_HASH}], False),
    ([{"uri": "a", "sha256": HASH}, {"uri": "b"}], False),
]
PEOPLE = [
    ("none", "not-needed", True),
    ("none", DELETE, True),
    ("operator", "recorded-publication", True),
    ("operator", "recorded-research", False),
    ("bystanders", "none", False),
    ("unknown", "recorded-publication", False),
    (DELETE, DELETE, False),
]
EVIDENCE = [
    ("stated-by-holder", True),
    ("stated-by-distributor", True),
    ("inferred", True),
    (DELETE, True),
    ("stated-by-holder", False),
]
EXPIRY = [
    (DELETE, DELETE, True),
    ("2026-06-01T12:00:00Z", DELETE, True),
    ("2026-06-01T12:00:01Z", DELETE, False),
    ("2026-06-01T21:00:00+08:00", DELETE, False),
    (DELETE, [{"id": "1", "expires": "2026-06-01T12:00:01Z"}], True),
    (DELETE, [{"id": "1", "expires": "2026-06-01T12:00:00Z"}], False),
]
SIGNED = [{"by": "A. Author", "at": "2026-05-01T09:00:00Z"}]


def cube() -> Iterator[tuple[Levels, bool]]:
    """Yield every combination of tier, consent, licence, evidence, binding and expiry, and what is right."""
    anybody = {"CC-BY-4.0", "cc0-1.0", "ODbL-1.0", "MIT OR CC-BY-4.0", "CC0-1.0 OR CC-BY-ND-4.0"}
    for tier, people, licence, evidence, bound, expiry in itertools.product(
        LEVELS["tier"], PEOPLE, LEVELS["licence.expression"], EVIDENCE, BOUND, EXPIRY
    ):
        levels = {
            "tier": tier,
            "people.present": people[0],
            "people.consent": people[1],
            "licence.expression": licence,
            "licence.state": evidence[0],
            "signoff": SIGNED if evidence[1] else [],
            "source": bound[0],
            "embargo_until": expiry[0],
            "acquisition.agreement": expiry[1],
        }
        granted = (licence in anybody and evidence[0] in {"stated-by-holder", "stated-by-distributor"}) or (
            licence == "MIT" and evidence[0] == "stated-by-holder"
        )
        right = tier == "open" and people[2] and granted and evidence[1] and bound[1] and expiry[2]
        yield levels, right


def check_cube(step: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """Check every ``step``-th combination, and return how many."""
    parsed = Parsed()
    tried = 0
    cases = itertools.islice(cube(), 0, None, step)
    while batch := list(itertools.islice(cases, 20_000)):
        found = opened([parsed.record(levels) for levels, _ in batch], monkeypatch)
        assert found == {number for number, (_, right) in enumerate(batch) if right}
        tried += len(batch)
    return tried


CUBE = 5 * 7 * 15 * 5 * 5 * 6


def test_a_part_of_the_cube_of_statements_opens_what_the_oracle_opens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # 29 divides none of the cube's sides, so every value meets every other one.
    assert check_cube(29, monkeypatch) == -(-CUBE // 29)


@pytest.mark.slow
def test_the_whole_cube_of_statements_opens_what_the_oracle_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_cube(1, monkeypatch) == CUBE


def random_records(count: int, seed: int) -> Iterator[Levels]:
    """Yield records of which a few members are chosen blindly: with all of them nothing would be open."""
    draw = random.Random(seed)
    while count:
        bad = draw.choices(list(LEVELS), k=draw.randrange(6))
        levels = {**BASE, "source": DELETE, **{path: draw.choice(LEVELS[path]) for path in bad}}
        if not (levels["pii.status"] == "none" and levels["pii.kinds"] == ["face"]):
            count -= 1
            yield levels


def is_right_to_publish(levels: Levels) -> bool:
    """Decide as the oracle of the decision does, and on whether the record is about these very files."""
    source = levels["source"]
    if source in (DELETE, []):
        levels = {**levels, "source": [{"uri": "a", "sha256": HASH}]}  # then the header's files count
    elif all(one.get("sha256") != HASH for one in source):
        return False
    return should_be_open(levels, strict=False, signature_valid=False)


def check_random_records(count: int, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed, total = Parsed(), 0
    cases = random_records(count, seed)
    while batch := list(itertools.islice(cases, 20_000)):
        found = opened([parsed.record(levels) for levels in batch], monkeypatch)
        assert found == {number for number, levels in enumerate(batch) if is_right_to_publish(levels)}
        total += len(found)
    assert total > count // 20


def test_random_records_open_what_the_oracle_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    check_random_records(3_000, 1, monkeypatch)


@pytest.mark.slow
def test_a_million_random_records_open_what_the_oracle_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    check_random_records(1_000_000, 2, monkeypatch)


# --- what only a store knows -------------------------------------------------------------------------------


def with_sources(episode: Episode, *digests: str) -> Episode:
    files = tuple(dataclasses.replace(episode.provenance.sources[0], sha256=digest) for digest in digests)
    return dataclasses.replace(episode, provenance=dataclasses.replace(episode.provenance, sources=files))


def test_nothing_goes_by_default(tmp_path: Path) -> None:
    told = planned(store_of(tmp_path, small(1)))
    assert not told.changed
    assert told.files().files == {}
    assert "R01_LICENCE_MISSING" in next(iter(codes(told).values()))


def test_a_record_that_names_other_files_opens_nothing(tmp_path: Path) -> None:
    episode = with_sources(small(1, rights=OPEN), HASH)
    store = store_of(tmp_path, episode)
    store.set_rights(rights(source=[{"uri": "a", "sha256": OTHER_HASH}]))
    assert codes(planned(store)) == {episode.id: [Stay.S03_OTHER_CONTENT]}
    store.set_rights(rights(source=[{"uri": "a", "sha256": HASH}]))
    assert planned(store).changes.added == (episode.id,)


def test_an_open_episode_stays_if_a_closed_one_has_the_same_content(tmp_path: Path) -> None:
    one, other = small(1, rights=OPEN), small(1, embodiment="another arm")
    store = store_of(tmp_path, one, other)
    assert (
        store.state.segments[store.state.episodes[one.id].segment].contents[one.id]
        == (store.state.segments[store.state.episodes[other.id].segment].contents[other.id])
    )
    assert codes(planned(store))[one.id] == [Stay.S04_SHARED_CONTENT]


def test_an_open_episode_stays_if_one_that_was_withdrawn_has_the_same_content(tmp_path: Path) -> None:
    one, other = small(1, rights=OPEN), small(1, rights=OPEN, embodiment="another arm")
    store = store_of(tmp_path, one, other)
    store.withdraw([other.id], "consent")
    assert codes(planned(store)) == {one.id: [Stay.S04_SHARED_CONTENT]}


def test_what_the_target_buried_does_not_rise(tmp_path: Path) -> None:
    one, other, place = small(1, rights=OPEN), small(2, rights=OPEN), Place(tmp_path / "p")
    mine, theirs = store_of(tmp_path / "mine", one, other), store_of(tmp_path / "theirs", one)
    place.take(planned(mine))
    theirs.withdraw([one.id], "consent")
    place.take(planned(theirs, place.state(), day=1))
    assert place.store().ids == (other.id,)
    again = planned(mine, place.state(), day=2)
    assert codes(again) == {one.id: [Stay.S02_WITHDRAWN]}
    assert again.add.keys() == set()


def test_a_parent_that_is_not_known_to_be_open_keeps_its_children(tmp_path: Path) -> None:
    parent, child = small(1, rights=OPEN), small(2)
    store = store_of(tmp_path, parent, child)
    made_from = [{"record": OPEN.digest, "operation": "adapted"}]
    store.set_rights(rights(derived_from=made_from), [child.id])
    assert set(planned(store).changes.added) == {parent.id, child.id}
    store.set_rights(rights(tier="closed"), [parent.id])
    assert codes(planned(store))[child.id] == ["R12_PARENT_CLOSED"]


def test_a_child_that_sheds_its_parents_duties_stays(tmp_path: Path) -> None:
    share_alike = rights(licence__expression="CC-BY-SA-4.0")
    parent, child = small(1, rights=share_alike), small(2)
    store = store_of(tmp_path, parent, child)
    made_from = [{"record": share_alike.digest, "operation": "adapted"}]
    store.set_rights(rights(derived_from=made_from, licence__expression="CC0-1.0"), [child.id])
    assert codes(planned(store, licence="CC-BY-SA-4.0"))[child.id] == [Stay.S07_PARENT_ASKS_FOR_MORE]


def test_two_licences_that_each_want_the_whole_open_nothing(tmp_path: Path) -> None:
    both = rights(licence__expression="CC-BY-SA-4.0 AND ODbL-1.0")
    store = store_of(tmp_path, small(1, rights=both))
    assert list(codes(planned(store)).values()) == [[Stay.S06_NO_OUTBOUND_LICENCE]]


def test_a_licence_whose_text_cannot_be_passed_on_opens_nothing(tmp_path: Path) -> None:
    own = dataclasses.replace(OPEN_V1, references=frozenset({("LicenseRef-own", HASH)}))
    record = rights(licence__expression="LicenseRef-own", licence__text_sha256=HASH)
    store = store_of(tmp_path, small(1, rights=record))
    assert list(codes(planned(store, policy=own)).values()) == [[Stay.S06_NO_OUTBOUND_LICENCE]]


# --- one class in one place --------------------------------------------------------------------------------


def test_several_licences_are_refused_unless_they_are_split(tmp_path: Path) -> None:
    store = store_of(
        tmp_path,
        small(1, rights=OPEN),
        small(2, rights=rights(licence__expression="CC0-1.0")),
        small(3, rights=rights(licence__expression="CC-BY-NC-4.0")),
    )
    with pytest.raises(RightsError, match=r"CC-BY-4\.0 \(1\), CC0-1\.0 \(1\)"):
        planned(store)
    classes = licence_classes(store, settings())
    assert classes == {"CC-BY-4.0": 1, "CC0-1.0": 1}
    plans = {
        licence: plan(store, split_target(TARGET, licence), EMPTY, settings(licence=licence))
        for licence in classes
    }
    assert [told.target for told in plans.values()] == [f"{TARGET}-cc-by-4.0", f"{TARGET}-cc0-1.0"]
    gone = [set(told.files().episodes) for told in plans.values()]
    assert len(gone[0]) == len(gone[1]) == 1
    assert not gone[0] & gone[1]
    for licence, told in plans.items():
        assert {episode.licence for episode in told.files().episodes.values()} == {licence}


def test_a_target_of_another_licence_is_refused(tmp_path: Path) -> None:
    place = Place(tmp_path / "p")
    place.take(planned(store_of(tmp_path / "a", small(1, rights=OPEN))))
    other = store_of(tmp_path / "b", small(2, rights=rights(licence__expression="CC0-1.0")))
    with pytest.raises(RightsError, match=r"holds what is under CC-BY-4\.0"):
        planned(other, place.state(), day=1)


def test_streams_that_state_stricter_rights_stay_and_nothing_tells_of_them(tmp_path: Path) -> None:
    episode = small(1, rights=OPEN, cameras=("top", "face_secret"))
    stricter = cast("dict[str, Any]", {"rights_version": "1.0", "tier": "closed"})
    name = "observation.images.face_secret"
    spec = dataclasses.replace(episode.streams[name].spec, attributes={"rights": stricter})
    streams = {**episode.streams, name: dataclasses.replace(episode.streams[name], spec=spec)}
    store = store_of(tmp_path, dataclasses.replace(episode, streams=streams))
    place = Place(tmp_path / "p")
    place.take(planned(store))
    public = place.store()
    assert set(public.episode("0").streams) == set(streams) - {name}
    assert not public.verify(decode=True).damage
    assert b"face_secret" not in place.raw()


def test_nothing_that_goes_names_a_stream_that_stays(tmp_path: Path) -> None:
    name = "observation.images.face_secret"
    steps = [{"op": "blur", "streams": [name]}, {"op": "crop", "streams": [name, "observation.images.top"]}]
    pii = {"status": "removed"}
    checks = [
        {"method": "by eye", "by": "Ada", "at": "2026-05-01T09:00:00Z", "residual_detections": 0}
        | {"sample_frames": 9, "human_checked": True}
    ]
    told = rights(deid={"steps": steps, "verification": checks}, pii=pii)
    episode = small(1, rights=told, cameras=("top", "face_secret"))
    spec = dataclasses.replace(episode.streams[name].spec, attributes={"rights": {"tier": "closed"}})
    top = episode.streams["observation.images.top"]
    shared = dataclasses.replace(
        top.spec,
        description=f"seen with {name}",
        frame=f"{name}.optical",
        attributes={"extrinsics": {"to": name}, "encoding": f"as {name}"},
    )
    streams = {
        **episode.streams,
        name: dataclasses.replace(episode.streams[name], spec=spec),
        "observation.images.top": dataclasses.replace(top, spec=shared),
    }
    fates = tuple(
        dataclasses.replace(fate, field=f"/images/{fate.to[0][-11:]}", to=(*fate.to, "clocks.frames"))
        if name in fate.to
        else fate
        for fate in episode.provenance.ledger
    )
    provenance = dataclasses.replace(
        episode.provenance, ledger=fates, warnings=(f"{name} is dark",), selector=f"/{name}"
    )
    store = store_of(tmp_path, dataclasses.replace(episode, streams=streams, provenance=provenance))
    place = Place(tmp_path / "p")
    told_plan = place.take(planned(store))
    assert len(told_plan.changes.added) == 1
    assert b"face_secret" not in place.raw()
    assert b"face_secret" not in repr(place.store().episode("0")).encode()
    steps_told = place.store().rights("0").deid.steps
    assert [(step.op, step.streams) for step in steps_told] == [("crop", ("observation.images.top",))]


def test_a_stream_whose_statement_of_rights_is_empty_or_is_none_stays(tmp_path: Path) -> None:
    episode = small(1, rights=OPEN)
    nothings: tuple[Any, ...] = (None, "", [], 0)
    for n, nothing in enumerate(nothings):
        spec = dataclasses.replace(episode.streams["phase"].spec, attributes={"rights": nothing})
        streams = {**episode.streams, "phase": dataclasses.replace(episode.streams["phase"], spec=spec)}
        told = planned(store_of(tmp_path / str(n), dataclasses.replace(episode, streams=streams)))
        assert told.changes.added
        assert not [path for path in told.files().files if "/phase/" in path], repr(nothing)


def test_a_stream_that_claims_looser_rights_stays(tmp_path: Path) -> None:
    episode = small(1, rights=OPEN)
    looser = {"rights_version": "1.0", "licence": {"expression": "CC0-1.0"}}
    spec = dataclasses.replace(episode.streams["phase"].spec, attributes={"rights": looser})
    streams = {**episode.streams, "phase": dataclasses.replace(episode.streams["phase"], spec=spec)}
    store = store_of(tmp_path, dataclasses.replace(episode, streams=streams))
    told = planned(store)
    assert told.changes.added
    assert not [path for path in told.files().files if "/phase/" in path]
