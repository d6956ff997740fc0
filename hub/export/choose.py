"""Which episodes are exported, and what of each: what publishing would send, or all of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from ...schemas import Episode, RightsError, from_document, to_document
from ..store import Store
from ..sync.cut import part_content
from ..sync.facts import Facts
from ..sync.scrub import scrub
from ..sync.select import TIER, Court, Going, Selection, select
from ..sync.tree import EMPTY, PublicEpisode
from .options import ExportOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The episodes that are exported.

    Attributes
    ----------
    ids
        In the order of the store.
    licence
        What all of it goes out under; empty if everything goes, open or not.
    public
        What is told of the rights of each; empty likewise.
    staying
        How many stay for each reason code.
    """

    store: Store
    ids: tuple[str, ...]
    licence: str = ""
    public: dict[str, PublicEpisode]
    staying: dict[str, int]
    selection: Selection | None = None

    def episode(self, id: str) -> Episode:
        """Return an episode as it may go: header scrubbed, streams that stay left out."""
        whole = self.store.episode(id)
        if self.selection is None:
            return whole
        going = self.selection.going[id]
        withheld = self.selection.segments[going.segment].streams.keys() - going.streams
        told = from_document(Episode, scrub(to_document(whole), going.names, withheld).document)
        streams = {n: replace(whole.streams[n], spec=s.spec) for n, s in told.streams.items()}
        clocks = {n: replace(clock, read=whole.clocks[n].read) for n, clock in told.clocks.items()}
        return replace(told, streams=streams, clocks=clocks)


def choose(store: Store, options: ExportOptions, work: Path) -> Chosen:
    """Decide which episodes go.

    Parameters
    ----------
    work
        A folder for what is found out on the way.

    Raises
    ------
    RightsError
        If none is open, or those that are have several licences and none was chosen.
    NotFoundError
        If an episode that was asked for is not there.
    """
    asked = {store.find(key) for key in options.episodes} or set(store.ids)
    if options.everything:
        return Chosen(store=store, ids=tuple(e for e in store.ids if e in asked), public={}, staying={})
    court = Court(policy=options.policy, now=options.now)
    selection = select(store.state, Facts(store.storage, work), court, EMPTY)
    going = {e: one for e, one in selection.going.items() if e in asked}
    codes = [refusal.code for e, why in selection.staying.items() if e in asked for refusal in why]
    staying = {code: codes.count(code) for code in sorted(set(codes))}
    licence = _licence(store, going, staying, options)
    going = {e: one for e, one in going.items() if one.verdict.licence == licence}
    return Chosen(
        store=store,
        ids=tuple(going),
        licence=licence,
        public={e: _public(store, selection, e, one) for e, one in going.items()},
        staying=staying,
        selection=selection,
    )


def _licence(store: Store, going: dict[str, Going], staying: dict[str, int], options: ExportOptions) -> str:
    classes = sorted({one.verdict.licence for one in going.values()})
    wanted = [options.licence] if options.licence else classes
    if not set(wanted) & set(classes):
        told = f" under {options.licence}" if options.licence else ""
        why = f"{store.url}: no episode{told} is open; `teleopen why` tells what is missing"
        raise RightsError(why, sorted(staying))
    if len(wanted) > 1:
        raise RightsError(
            f"{store.url}: a dataset has one licence, and the open episodes have several: {', '.join(wanted)}"
            "; choose one with --licence"
        )
    return wanted[0]


def _public(store: Store, selection: Selection, id: str, going: Going) -> PublicEpisode:
    content = store.state.segments[going.segment].contents[id]
    withheld = selection.segments[going.segment].streams.keys() - going.streams
    return PublicEpisode(
        id=id,
        segment=going.segment,
        content=part_content(content, going.streams, frozenset(withheld)),
        licence=going.verdict.licence,
        tier=TIER,
        record=going.verdict.record,
        rights=going.verdict.public,
    )
