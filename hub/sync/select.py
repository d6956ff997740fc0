"""Who goes: every episode of a store is decided on, and stays unless nothing at all speaks against it.

What the rights say is decided by `teleopen.schemas.reasons`; here come the reasons that only a store knows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from ...schemas import (
    LICENCES,
    Json,
    Policy,
    Rights,
    RightsError,
    SchemaError,
    StoreError,
    outbound,
    published_as,
    reasons,
    tighten,
)
from ...schemas.licences import duties
from ...schemas.rights import Source
from ..catalog import Add
from ..state import State
from .facts import EpisodeFacts, Facts, SegmentFacts
from .notice import has_text
from .plan import Refusal, Staying
from .public_rights import names_to_remove, public_rights
from .tree import PublicState

TIER = "open"
NOT_FOR_GOOD = "rights"
"""Ground of a tombstone that is no withdrawal: the rights closed the episode, and may open it again."""


class Stay(StrEnum):
    """Why an episode stays though its rights record is open. The names are stable."""

    S01_DAMAGED = "S01_DAMAGED"
    S02_WITHDRAWN = "S02_WITHDRAWN"
    S03_OTHER_CONTENT = "S03_OTHER_CONTENT"
    S04_SHARED_CONTENT = "S04_SHARED_CONTENT"
    S05_NO_OPEN_STREAM = "S05_NO_OPEN_STREAM"
    S06_NO_OUTBOUND_LICENCE = "S06_NO_OUTBOUND_LICENCE"
    S07_PARENT_ASKS_FOR_MORE = "S07_PARENT_ASKS_FOR_MORE"
    S08_CANNOT_BE_SCRUBBED = "S08_CANNOT_BE_SCRUBBED"
    S09_FOREIGN_PICTURES = "S09_FOREIGN_PICTURES"

    @property
    def explanation(self) -> str:
        """What this reason means, in a sentence."""
        return _EXPLANATIONS[self]


_EXPLANATIONS = {
    Stay.S01_DAMAGED: "Its segment is damaged, so it is not known what would be published.",
    Stay.S02_WITHDRAWN: "It was withdrawn from the target, and may not come back.",
    Stay.S03_OTHER_CONTENT: "Its rights record names other source files than it was made from.",
    Stay.S04_SHARED_CONTENT: "An episode that is not open, or was withdrawn, has the same content.",
    Stay.S05_NO_OPEN_STREAM: "Each of its streams states rights that keep it closed.",
    Stay.S06_NO_OUTBOUND_LICENCE: "No one licence can hold for all of it.",
    Stay.S07_PARENT_ASKS_FOR_MORE: "What it is made from asks for more than its licence passes on.",
    Stay.S08_CANNOT_BE_SCRUBBED: "Its header holds what must not leave, in a place that cannot be changed.",
    Stay.S09_FOREIGN_PICTURES: "A camera's packets, taken as they came, hold pictures of what stays.",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a rights record comes to, for every episode that it is put on.

    Attributes
    ----------
    refusals
        Why it keeps them closed; empty if it does not.
    licence
        What they go out under.
    record
        SHA-256 of the record.
    public
        What of it is published.
    names
        Of people that must not occur in what is published.
    sources
        SHA-256 of the source files that it names; empty if it names none.
    """

    refusals: tuple[Refusal, ...]
    licence: str
    record: str
    public: Mapping[str, Json]
    names: tuple[str, ...]
    sources: frozenset[str]
    rights: Rights


@dataclass(frozen=True, slots=True)
class Going:
    """An open episode: where it lies, its rights, the streams that go, names to remove from its header."""

    segment: str
    facts: EpisodeFacts
    content: str
    verdict: Verdict
    streams: frozenset[str]
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Selection:
    """Who goes, in the order of the store's log, and who stays and why."""

    going: Mapping[str, Going]
    staying: Mapping[str, tuple[Refusal, ...]]
    segments: Mapping[str, SegmentFacts]

    def groups(self) -> tuple[Staying, ...]:
        """Return those who stay, by their reasons."""
        found: dict[tuple[Refusal, ...], list[str]] = {}
        for episode, refusals in self.staying.items():
            found.setdefault(refusals, []).append(episode)
        return tuple(Staying(episodes=tuple(episodes), reasons=why) for why, episodes in found.items())

    def classes(self) -> dict[str, int]:
        """Return how many episodes go out under each licence."""
        found: dict[str, int] = {}
        for going in self.going.values():
            found[going.verdict.licence] = found.get(going.verdict.licence, 0) + 1
        return dict(sorted(found.items()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Court:
    """Decides on rights records, each once.

    Attributes
    ----------
    policy, now
        What the operator asks for, and the time to decide for.
    signed
        Tells whether a record's signature was verified with a key that the operator trusts.
    """

    policy: Policy
    now: datetime
    signed: Callable[[Rights], bool] = field(default=lambda _rights: False)
    _verdicts: dict[tuple[int, bool], Verdict] = field(default_factory=dict)
    _held: list[Mapping[str, Json]] = field(default_factory=list)
    _known: dict[str, Mapping[str, Json]] = field(default_factory=dict)

    def knows(self, documents: Iterable[Mapping[str, Json]]) -> None:
        """Take note of records that others may say they are made from."""
        different = {id(document): document for document in documents}
        if any("derived_from" in document for document in different.values()):
            for document in different.values():
                record = _record(document)
                if record is not None:
                    self._known[record.digest] = document

    def verdict(self, document: Mapping[str, Json], *, pinned: bool) -> Verdict:
        """Return what a record comes to.

        Parameters
        ----------
        pinned
            Whether the header names source files with their hashes, which counts where the record names none.
        """
        key = (id(document), pinned)
        if key not in self._verdicts:
            self._held.append(document)  # so that its id stays its own
            self._verdicts[key] = self._decide(document, pinned=pinned, above=frozenset())
        return self._verdicts[key]

    def _decide(self, document: Mapping[str, Json], *, pinned: bool, above: frozenset[str]) -> Verdict:
        record = _record(document)
        if record is None:
            found = reasons(document, now=self.now, policy=self.policy)
            return Verdict(_refusals(found), "", "", {}, (), frozenset(), Rights())
        stated = frozenset(source.sha256 for source in record.source if source.sha256 is not None)
        whole = _pinned(record) if pinned else record
        parents, lost = self._parents(record, above)
        found = reasons(
            whole,
            now=self.now,
            policy=self.policy,
            parents_open=parents,
            signature_valid=self.signed(record),
        )
        licence = published_as(record, self.policy) or ""
        refusals = [*_refusals(found), *lost]
        public: Mapping[str, Json] = {}
        if not refusals:
            refusals += _outbound_refusals(licence)
            try:
                public = public_rights(record)
            except SchemaError as error:
                refusals.append(Refusal(code=Stay.S08_CANNOT_BE_SCRUBBED, detail=f"rights: {error}"))
        names = () if refusals else names_to_remove(record)
        return Verdict(tuple(refusals), licence, record.digest, public, names, stated, record)

    def _parents(self, record: Rights, above: frozenset[str]) -> tuple[bool, list[Refusal]]:
        """Tell whether all parents are known to be open, and which of their duties this record sheds."""
        asked: set[str] = set()
        for parent in record.derived_from:
            document = self._known.get(parent.record)
            if document is None or parent.record in above:
                return False, []
            found = self._decide(document, pinned=True, above=above | {parent.record})
            if found.refusals:
                return False, []
            asked |= duties(found.licence.split(" AND "))
        passed = duties((published_as(record, self.policy) or "").split(" AND "))
        shed = sorted(asked - passed) if asked else []
        refusal = Refusal(code=Stay.S07_PARENT_ASKS_FOR_MORE, detail=f"it sheds {', '.join(shed)}")
        return True, [refusal] if shed else []


def _record(document: Mapping[str, Json]) -> Rights | None:
    try:
        return Rights.from_document(document)
    except SchemaError:
        return None


def _refusals(found: Iterable[Any]) -> tuple[Refusal, ...]:
    return tuple(Refusal(code=str(reason.code), detail=reason.detail) for reason in found)


def _outbound_refusals(licence: str) -> list[Refusal]:
    """Refuse where all that goes out under one licence could not be used as one work."""
    ids = licence.split(" AND ")
    known = [id for id in ids if id in LICENCES]
    if missing := [id for id in ids if not has_text(id)]:
        detail = f"the text of {missing[0]} is not at hand, so it cannot be passed on"
        return [Refusal(code=Stay.S06_NO_OUTBOUND_LICENCE, detail=detail)]
    try:
        if known:
            outbound(known)
    except RightsError as error:
        return [Refusal(code=Stay.S06_NO_OUTBOUND_LICENCE, detail=str(error))]
    return []


def select(state: State, facts: Facts, court: Court, previous: PublicState) -> Selection:
    """Decide on every live episode of a store."""
    court.knows(state.rights.values())
    going: dict[str, Going] = {}
    staying: dict[str, tuple[Refusal, ...]] = {}
    segments: dict[str, SegmentFacts] = {}
    for add in state.segments.values():
        _decide_segment(add, state, facts, court, (going, staying, segments))
    _refuse_what_was_withdrawn(going, staying, previous)
    _refuse_shared_content(going, staying, state)
    _refuse_foreign_pictures(going, staying, state, facts)
    _refuse_shared_content(going, staying, state)
    order = [episode for episode in state.episodes if episode in going]
    return Selection({episode: going[episode] for episode in order}, staying, segments)


def _decide_segment(
    add: Add,
    state: State,
    facts: Facts,
    court: Court,
    found: tuple[dict[str, Going], dict[str, tuple[Refusal, ...]], dict[str, SegmentFacts]],
) -> None:
    going, staying, segments = found
    # Whatever closes an episode without its header spares opening its segment.
    verdicts = {episode: court.verdict(state.rights[episode], pinned=True) for episode in add.episodes}
    for episode, verdict in verdicts.items():
        if verdict.refusals:
            staying[episode] = verdict.refusals
    hopeful = [episode for episode in add.episodes if not verdicts[episode].refusals]
    if not hopeful:
        return
    names = tuple(sorted({name for episode in hopeful for name in verdicts[episode].names}))
    try:
        known = facts.of(add, names)
    except StoreError as error:
        damaged = (Refusal(code=Stay.S01_DAMAGED, detail=str(error)),)
        staying.update(dict.fromkeys(hopeful, damaged))
        return
    segments[add.segment] = known
    for episode in hopeful:
        about = known.episodes[episode]
        verdict = court.verdict(state.rights[episode], pinned=bool(about.sources))
        streams = _open_streams(known, verdict, court)
        refusals = [*verdict.refusals, *_binding(about, verdict)]
        if not streams:
            refusals.append(Refusal(code=Stay.S05_NO_OPEN_STREAM, detail="no stream of it is open"))
        if refusals:
            staying[episode] = tuple(refusals)
        else:
            going[episode] = Going(add.segment, about, add.contents[episode], verdict, streams, names)


def _binding(about: EpisodeFacts, verdict: Verdict) -> list[Refusal]:
    """Refuse a record that was made for other files, and a header that cannot be made public."""
    found = []
    foreign = [source for source in about.sources if verdict.sources and source not in verdict.sources]
    if foreign:
        detail = f"the record does not name source {foreign[0]}"
        found.append(Refusal(code=Stay.S03_OTHER_CONTENT, detail=detail))
    if about.problem:
        found.append(Refusal(code=Stay.S08_CANNOT_BE_SCRUBBED, detail=about.problem))
    return found


def _open_streams(known: SegmentFacts, verdict: Verdict, court: Court) -> frozenset[str]:
    """Return the streams that go: those without rights of their own, and those whose own are open too."""
    return frozenset(
        name for name, stated in known.streams.items() if stated is None or _opens(stated, verdict, court)
    )


def _opens(stated: Json, verdict: Verdict, court: Court) -> bool:
    try:
        record = tighten(verdict.rights, stated)
    except SchemaError:
        return False
    # A signature is of the whole record, which was decided on; a part has none.
    policy = replace(court.policy, signature=False)
    found = reasons(_pinned(record), now=court.now, policy=policy)
    return not found and published_as(record, court.policy) == verdict.licence


def _refuse_what_was_withdrawn(
    going: dict[str, Going], staying: dict[str, tuple[Refusal, ...]], previous: PublicState
) -> None:
    stones = previous.state.withdrawn if previous.state else {}
    for episode in going.keys() & stones.keys():
        if stones[episode].ground != NOT_FOR_GOOD:
            detail = f"withdrawn from the target: {stones[episode].ground}"
            staying[episode] = (Refusal(code=Stay.S02_WITHDRAWN, detail=detail),)
            del going[episode]


def _refuse_foreign_pictures(
    going: dict[str, Going], staying: dict[str, tuple[Refusal, ...]], state: State, facts: Facts
) -> None:
    """Refuse an episode whose packets show pictures from outside of it, unless all that may be is open too.

    Those pictures are of the same source files. So nothing is given away if every episode that was made from
    one of these files goes; of episodes that were withdrawn it is not known what they were made from.
    """
    odd = [episode for episode, one in going.items() if one.facts.foreign]
    if not odd:
        return
    closed = _sources_of(staying, state, facts)
    for episode in odd:
        if closed is None or state.withdrawn or closed.intersection(going[episode].facts.sources):
            detail = "convert it again with cameras encoded anew (--transcode)"
            staying[episode] = (Refusal(code=Stay.S09_FOREIGN_PICTURES, detail=detail),)
            del going[episode]


def _sources_of(episodes: Iterable[str], state: State, facts: Facts) -> set[str] | None:
    """Return the hashes of all files that episodes were made from; None where that cannot be told."""
    found: set[str] = set()
    try:
        for episode in episodes:
            known = facts.of(state.segments[state.episodes[episode].segment], ())
            found.update(known.episodes[episode].sources)
    except StoreError:
        return None
    return found


def _refuse_shared_content(
    going: dict[str, Going], staying: dict[str, tuple[Refusal, ...]], state: State
) -> None:
    """Refuse an episode whose very bytes are those of one that stays."""
    closed = {withdrawal.content for withdrawal in state.withdrawn.values()}
    for episode in staying:
        closed.add(state.segments[state.episodes[episode].segment].contents[episode])
    for episode in [e for e, one in going.items() if one.content in closed]:
        detail = f"content {going[episode].content}"
        staying[episode] = (Refusal(code=Stay.S04_SHARED_CONTENT, detail=detail),)
        del going[episode]


def only(selection: Selection, licence: str) -> Selection:
    """Return the part of a selection that goes out under one licence."""
    going = {e: one for e, one in selection.going.items() if one.verdict.licence == licence}
    return replace(selection, going=going)


def the_one_class(selection: Selection, previous: PublicState) -> str:
    """Return the licence that all of a selection goes out under.

    Raises
    ------
    RightsError
        If there are several, or the target holds episodes under another one.
    """
    there = str(previous.manifest.get("licence", ""))
    classes = selection.classes()
    if there and classes.keys() - {there}:
        told = ", ".join(sorted(classes.keys() - {there}))
        raise RightsError(f"the target holds what is under {there}; {told} needs a target of its own")
    if len(classes) > 1:
        told = ", ".join(f"{licence} ({count})" for licence, count in classes.items())
        raise RightsError(
            f"a repository has one licence, and the open episodes have several: {told}; "
            "publish each class to a target of its own, which splitting does"
        )
    return there or next(iter(classes), "")


def still_open(document: Mapping[str, Json], court: Court, licence: str) -> bool:
    """Tell whether a public record opens an episode that only the target has, under the licence of the whole.

    Its signature was of the private record; the header tells what it was made from; its parents are known
    to whoever published it.
    """
    record = _record(document)
    policy = replace(court.policy, signature=False)
    if record is None or published_as(record, court.policy) != licence:
        return False
    return not reasons(_pinned(record), now=court.now, policy=policy)


def _pinned(record: Rights) -> Rights:
    """Return a record that names a source, as it holds where the header names the files with their hashes."""
    return record if record.source else replace(record, source=(Source(uri="recording", sha256="0" * 64),))
