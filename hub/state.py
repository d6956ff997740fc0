"""What a store holds at one version of its log: a pure function of the log's entries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import overload

from ..schemas import DamageError, Json
from .log import Add, Create, Entry, File, Operation, Replace, SetRights, Withdraw


@dataclass(frozen=True, slots=True)
class Where:
    """Where an episode lies."""

    segment: str
    row: int


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """Why an episode is gone: ground and note as stated, the version that did it, its content's SHA-256."""

    ground: str
    note: str
    version: int
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A store at one version; never changed, only followed by the next.

    Attributes
    ----------
    version, head
        Number of the newest entry, and the SHA-256 of its bytes.
    dataset
        Id of the store.
    files
        The files outside of segments.
    segments
        Segments by id: each as it was added, without the episodes that are live no more. ``rights`` is the
        record it came with; what holds now is in `rights`.
    episodes
        Live episodes by id, in the order in which they were added.
    contents
        SHA-256 of each live episode's content, and the first episode that has it.
    rights
        The rights record of each live episode.
    withdrawn
        Episodes that were withdrawn and did not come back.
    """

    version: int
    head: str
    dataset: str
    files: Mapping[str, File]
    segments: Mapping[str, Add]
    episodes: Mapping[str, Where]
    contents: Mapping[str, str]
    rights: Mapping[str, Mapping[str, Json]]
    withdrawn: Mapping[str, Withdrawal]


@overload
def replay(state: State, entries: Iterable[Entry]) -> State: ...
@overload
def replay(state: State | None, entries: Iterable[Entry]) -> State | None: ...
def replay(state: State | None, entries: Iterable[Entry]) -> State | None:
    """Return the state after further entries; None is the state before the first.

    Raises
    ------
    DamageError
        If an entry contradicts those before it.
    """
    copy: _Replay | None = None
    for entry in entries:
        copy = copy or _Replay(state)
        copy.take(entry)
    return copy.state() if copy else state


def contents_of(episodes: Mapping[str, Where], segments: Mapping[str, Add]) -> dict[str, str]:
    """Return the index of contents: the first episode that has each."""
    index: dict[str, str] = {}
    for episode, where in episodes.items():
        index.setdefault(segments[where.segment].contents[episode], episode)
    return index


class _Replay:
    """A state in the making: copied once, however many entries follow."""

    def __init__(self, state: State | None) -> None:
        self.dataset = state.dataset if state else ""
        self.version, self.head = (state.version, state.head) if state else (0, "")
        self.files = dict(state.files) if state else {}
        self.segments = dict(state.segments) if state else {}
        self.episodes = dict(state.episodes) if state else {}
        self.contents = dict(state.contents) if state else {}
        self.rights = dict(state.rights) if state else {}
        self.withdrawn = dict(state.withdrawn) if state else {}
        self.place = ""
        self.contents_are_stale = False

    def state(self) -> State:
        if self.contents_are_stale:
            self.contents = contents_of(self.episodes, self.segments)
        return State(
            version=self.version,
            head=self.head,
            dataset=self.dataset,
            files=self.files,
            segments=self.segments,
            episodes=self.episodes,
            contents=self.contents,
            rights=self.rights,
            withdrawn=self.withdrawn,
        )

    def take(self, entry: Entry) -> None:
        self.place, self.version, self.head = entry.place, entry.version, entry.sha256
        for operation in entry.operations:
            self._apply(operation)
        self._demand(bool(self.dataset), "the log does not begin with the creation of the store")

    def _apply(self, operation: Operation) -> None:
        match operation:
            case Create():
                self._demand(not self.dataset and self.version == 1, "the store is created twice")
                self.dataset, self.files = operation.dataset, dict(operation.files)
            case Add():
                self._add(operation, came_back=frozenset())
            case SetRights():
                self._demand_live(operation.episodes)
                self.rights.update(dict.fromkeys(operation.episodes, operation.rights))
            case Withdraw():
                self._withdraw(operation)
            case Replace():
                self._replace(operation)

    def _add(self, add: Add, came_back: frozenset[str]) -> None:
        self._demand(add.segment not in self.segments, f"segment {add.segment} is there already")
        self.segments[add.segment] = add
        # JSON objects have no order; rows do.
        for episode, row in sorted(add.episodes.items(), key=lambda item: item[1]):
            free = episode not in self.episodes or episode in came_back
            self._demand(free, f"episode {episode} is there already")
            self.withdrawn.pop(episode, None)
            self.episodes[episode] = Where(add.segment, row)
            # Laying an episode anew never changes its rights, least of all to looser ones.
            self.rights.setdefault(episode, add.rights)
            self.contents.setdefault(add.contents[episode], episode)

    def _withdraw(self, operation: Withdraw) -> None:
        self._demand_live(operation.episodes)
        self._demand(len(set(operation.episodes)) == len(operation.episodes), "an episode is withdrawn twice")
        dead: dict[str, set[str]] = {}
        for episode in operation.episodes:
            segment = self.episodes[episode].segment
            content = self.segments[segment].contents[episode]
            dead.setdefault(segment, set()).add(episode)
            self.withdrawn[episode] = Withdrawal(operation.ground, operation.note, self.version, content)
            self._forget(episode)
        for segment, episodes in dead.items():
            self.segments[segment] = _without(self.segments[segment], episodes)

    def _replace(self, operation: Replace) -> None:
        gone: set[str] = set()
        for segment in operation.remove:
            self._demand(segment in self.segments, f"segment {segment}, which leaves, is not there")
            gone.update(self.segments.pop(segment).episodes)
        coming = [episode for add in operation.add for episode in add.episodes]
        for episode in coming:
            # Whoever replaces a segment may have looked at it before the withdrawal.
            self._demand(episode not in self.withdrawn, f"episode {episode} is withdrawn")
        self._demand(len(set(coming)) == len(coming), "an episode comes twice")
        for episode in gone.difference(coming):
            self._forget(episode)
        self.contents_are_stale = True
        for add in operation.add:
            self._add(add, came_back=frozenset(gone))

    def _forget(self, episode: str) -> None:
        del self.episodes[episode], self.rights[episode]
        self.contents_are_stale = True

    def _demand_live(self, episodes: Iterable[str]) -> None:
        for episode in episodes:
            self._demand(episode in self.episodes, f"episode {episode} is not there")

    def _demand(self, holds: bool, why: str) -> None:  # noqa: FBT001 - reads like a sentence
        if not holds:
            raise DamageError(self.place, f"contradicts the log before it: {why}")


def _without(add: Add, dead: set[str]) -> Add:
    return replace(
        add,
        episodes={episode: row for episode, row in add.episodes.items() if episode not in dead},
        contents={episode: content for episode, content in add.contents.items() if episode not in dead},
    )
