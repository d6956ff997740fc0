"""Which public segments stay as they are, which leave, and what is cut anew.

A public segment stays if what it would be made of now has the very id that it has. So nothing that is public
is opened or sent again, unless something in it changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ..catalog import Add
from ..state import State
from ..store import GROUNDS
from .cut import Part, part_content, part_id
from .facts import Facts
from .select import NOT_FOR_GOOD, Court, Going, Selection, Stay, still_open
from .tree import PublicState


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrangement:
    """Where every episode that is to be public will lie.

    Attributes
    ----------
    going
        Episodes of this store that are to be public, in its order.
    keeping
        Episodes that only the target has, and that stay there.
    withdrawn
        Ground of each episode that leaves with a tombstone.
    pruned
        Episodes that leave without one.
    remove
        Public segments that leave.
    parts
        What is cut from this store.
    torn
        Public segments that leave and hold episodes that stay and are nowhere else, with just these.
    """

    going: list[str]
    keeping: frozenset[str]
    withdrawn: Mapping[str, str]
    pruned: tuple[str, ...]
    remove: tuple[str, ...]
    parts: tuple[Part, ...]
    torn: tuple[Add, ...]

    def remote_parts(self, facts: Callable[[], Facts]) -> Iterator[Part]:
        """Yield what is cut from the target itself."""
        for add in self.torn:
            known = facts().of(add, ())
            rows = [(e, add.contents[e], known.episodes[e].header) for e in _in_rows(add)]
            yield Part(
                source=add,
                streams=frozenset(known.streams),
                withheld=frozenset(),
                names=(),
                id=part_id(rows, frozenset()),
                rows=known.rows,
            )


def arrange(
    state: State,
    selection: Selection,
    previous: PublicState,
    court: Court,
    remote: Callable[[], Facts],
    *,
    licence: str,
    prune: bool,
) -> Arrangement:
    """Return where the episodes of a selection will lie, given what lies at the target.

    Parameters
    ----------
    remote
        Gives the facts on the target's own segments.
    licence
        What all of it goes out under.
    """
    public = previous.state
    fate = _fates(state, selection, public, court, licence=licence, prune=prune)
    stay: set[str] = set()
    remove: list[str] = []
    torn: list[Add] = []
    for add in public.segments.values() if public else ():
        if _stays(add, state, selection, fate, remote):
            stay.update(add.episodes)
        else:
            remove.append(add.segment)
            if rest := [episode for episode in add.episodes if fate[episode] == "keep"]:
                torn.append(_with_only(add, rest))
    missing = [episode for episode in selection.going if episode not in stay]
    return Arrangement(
        going=list(selection.going),
        keeping=frozenset(episode for episode, what in fate.items() if what == "keep"),
        withdrawn={e: what for e, what in fate.items() if what not in {"goes", "keep", "prune"}},
        pruned=tuple(episode for episode, what in fate.items() if what == "prune"),
        remove=tuple(remove),
        parts=tuple(_parts(missing, state, selection, public)),
        torn=tuple(torn),
    )


def _fates(
    state: State, selection: Selection, public: State | None, court: Court, *, licence: str, prune: bool
) -> dict[str, str]:
    """Return what happens to each public episode: ``goes``, ``keep``, ``prune``, or a tombstone's ground."""
    fate: dict[str, str] = {}
    opens: dict[int, bool] = {}
    for episode in public.episodes if public else ():
        if episode in selection.going:
            fate[episode] = "goes"
        elif episode in state.withdrawn:
            ground = state.withdrawn[episode].ground
            # A log may hold any text there; what becomes public is one of a few words.
            fate[episode] = ground if ground in GROUNDS else "error"
        elif episode in state.episodes and not _only_damaged(selection, episode):
            withdrawal = state.rights[episode].get("withdrawal")
            wish = withdrawal.get("ground") if isinstance(withdrawal, Mapping) else None
            fate[episode] = str(wish) if wish in GROUNDS else NOT_FOR_GOOD
        elif prune and episode not in state.episodes:
            fate[episode] = "prune"
        else:
            record = public.rights[episode] if public else {}
            if id(record) not in opens:
                opens[id(record)] = still_open(record, court, licence)
            fate[episode] = "keep" if opens[id(record)] else NOT_FOR_GOOD
    return fate


def _only_damaged(selection: Selection, episode: str) -> bool:
    """Tell whether an episode stays only since its copy here is damaged: the public one is none the worse."""
    return [refusal.code for refusal in selection.staying.get(episode, ())] == [Stay.S01_DAMAGED]


def _stays(
    add: Add,
    state: State,
    selection: Selection,
    fate: Mapping[str, str],
    remote: Callable[[], Facts],
) -> bool:
    """Tell whether a public segment is just what it would be if it were made now."""
    fates = {fate[episode] for episode in add.episodes}
    if not fates <= {"goes", "keep"} or not fates:
        return False
    if fates == {"keep"}:
        return True  # it holds what only the target has, and nothing in it has to leave
    episodes = [episode for episode in _in_rows(add) if fate[episode] == "goes"]
    going = [selection.going[episode] for episode in episodes]
    withheld = {_withheld(one, selection) for one in going}
    if "keep" in fates:
        known = remote().of(add, ()).episodes
        same = all(known[one].header == selection.going[one].facts.header for one in episodes)
        return same and withheld == {frozenset()}
    if len(withheld) > 1:
        return False
    if add.segment in state.segments and not any(withheld):
        source = state.segments[add.segment]
        return source.episodes == add.episodes and _is_verbatim(going, selection)
    return part_id(_rows(episodes, selection), withheld.pop()) == add.segment


def _parts(
    missing: Sequence[str], state: State, selection: Selection, public: State | None
) -> Iterator[Part]:
    """Yield what has to be cut: episodes of one segment that go with the same streams."""
    stones = public.withdrawn if public else {}
    groups: dict[tuple[str, frozenset[str], bool], list[str]] = {}
    for episode in missing:
        one = selection.going[episode]
        # What comes back from a tombstone is added; what is laid anew takes the place of what was there.
        key = (one.segment, _withheld(one, selection), episode in stones)
        groups.setdefault(key, []).append(episode)
    for (segment, withheld, _), episodes in groups.items():
        source = state.segments[segment]
        known = selection.segments[segment]
        chosen = sorted(episodes, key=lambda episode: source.episodes[episode])
        going = [selection.going[episode] for episode in chosen]
        part = _with_only(source, chosen)
        streams = going[0].streams
        contents = {e: part_content(source.contents[e], streams, withheld) for e in chosen}
        verbatim = not withheld and len(chosen) == known.rows and _is_verbatim(going, selection)
        yield Part(
            source=replace(part, contents=contents),
            streams=streams,
            withheld=withheld,
            names=going[0].names,
            id=segment if verbatim else part_id(_rows(chosen, selection), withheld),
            rows=known.rows,
        )


def _is_verbatim(going: Sequence[Going], selection: Selection) -> bool:
    known = selection.segments[going[0].segment]
    return known.unchanged and len(going) == known.rows and all(one.facts.unchanged for one in going)


def _withheld(one: Going, selection: Selection) -> frozenset[str]:
    return frozenset(selection.segments[one.segment].streams) - one.streams


def _rows(episodes: Sequence[str], selection: Selection) -> list[tuple[str, str, str]]:
    going = selection.going
    return [(episode, going[episode].content, going[episode].facts.header) for episode in episodes]


def _with_only(add: Add, episodes: Sequence[str]) -> Add:
    rows = {episode: add.episodes[episode] for episode in episodes}
    return replace(add, episodes=rows, contents={episode: add.contents[episode] for episode in episodes})


def _in_rows(add: Add) -> list[str]:
    return sorted(add.episodes, key=lambda episode: add.episodes[episode])
