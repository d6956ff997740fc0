"""Makes plans: looks at a store and a target, decides, cuts what has to be cut, says what would change.

Nothing is sent. What is public already is recognised by the ids of public segments, so that only what changed
is opened and made.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from ...schemas import (
    OPEN_V1,
    Array,
    ConflictError,
    Json,
    Policy,
    Rights,
    RightsError,
    StoreError,
    digest,
    strict_json,
)
from .. import disk
from ..catalog import Add, SetRights, State
from ..checkpoint import checkpoint_key
from ..log import HEAD, File, entry_key, unsealed, utc
from ..storage import Storage
from ..store import Store, open_segment
from ..version import TOOL
from .alike import scrubber
from .arrange import Arrangement, arrange
from .bounds import check_size
from .cut import Cut, Cutter
from .facts import CACHE, Facts
from .manifest import manifest, told_tombstones
from .notice import NOTICE, licence_files, notice
from .plan import (
    Changes,
    Plan,
    Refusal,
    limit_problems,
    plan_digest,
)
from .public_log import AUTHOR, ROOT, SEGMENTS, Entry, Wanted, dataset_id, next_entry
from .public_rights import without_streams
from .select import TIER, Court, Selection, Stay, only, select, the_one_class
from .tree import (
    EMPTY,
    MANIFEST,
    Blob,
    Describe,
    PublicEpisode,
    PublicState,
    PublicTree,
    Published,
    Tombstone,
    is_data,
    public_place,
)

GIT_ATTRIBUTES = b"".join(
    f"{pattern} filter=lfs diff=lfs merge=lfs -text\n".encode()
    for pattern in ("catalog/**", "index/**", "segments/**", MANIFEST, "croissant.json")
)
"""What is large or names episodes becomes LFS objects, which can be deleted for good after a withdrawal."""
_OWN = frozenset({".gitattributes", "README.md"})
"""What a repository holds when it was just created."""


def _nothing(_: Published) -> Mapping[str, bytes]:
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to decide and what to make.

    Attributes
    ----------
    policy, signed
        What the operator asks for, and whether a record's signature was verified.
    now
        The time to decide for.
    time
        The time that the log and the manifest bear; None: `now`. A plan that is confirmed keeps its own.
    licence
        The class that goes; None: there may be only one.
    prune
        Remove episodes that are merely not in this store.
    author
        Whom public entries name.
    describe
        Makes card, Croissant and index.
    cache
        Folder for what is kept between plans; None: the store's staging folder.
    """

    policy: Policy = OPEN_V1
    signed: Callable[[Rights], bool] = field(default=lambda _rights: False)
    now: datetime
    time: datetime | None = None
    licence: str | None = None
    prune: bool = False
    author: str = AUTHOR
    describe: Describe = _nothing
    cache: Path | None = None

    @property
    def court(self) -> Court:
        """A court that decides so."""
        return Court(policy=self.policy, now=self.now, signed=self.signed)

    @property
    def stamp(self) -> str:
        """The time that the log and the manifest bear."""
        return utc(self.time or self.now)


def plan(store: Store, target: str, previous: PublicState, settings: Settings) -> Plan:
    """Return what publishing the open episodes of a store would change at a target.

    Episodes at the target that are not in this store stay there, unless they are pruned: another store may
    publish to it too. Those that were withdrawn here, or are open no longer, leave with a tombstone.

    Raises
    ------
    RightsError
        If the open episodes have several licences, or another one than the target.
    ConflictError
        If the target holds what was not published so, or is newer than the clock says.
    StoreError
        If a public segment would have to be cut that can be read neither here nor there.
    """
    _check_target(target, previous, settings)
    return _Planning(store, target, previous, settings).run()


def licence_classes(store: Store, settings: Settings) -> dict[str, int]:
    """Return how many episodes of a store are open under each licence."""
    facts = _cache(store, settings)[0]
    return select(store.refresh().state, facts, settings.court, EMPTY).classes()


def split_target(target: str, licence: str) -> str:
    """Return the name of the target for one licence class, where a store is split."""
    return f"{target.rstrip('/')}-{re.sub('[^a-z0-9.]+', '-', licence.lower())}"


def confirm(saved: Plan, store: Store, previous: PublicState, settings: Settings) -> Plan:
    """Return a saved plan with all bytes at hand, if it is still what would be decided now.

    Raises
    ------
    ConflictError
        If the target or any decision has changed since: look at a new plan.
    """
    if saved.base != previous.base:
        raise ConflictError(saved.target, "has changed since the plan was made; make a new one")
    then = datetime.fromisoformat(saved.time)
    licence = saved.licence or None
    again = plan(
        store, saved.target, previous, replace(settings, time=then, licence=licence, prune=saved.prune)
    )
    if again.digest != saved.digest:
        raise ConflictError(saved.target, _what_differs(saved, again))
    return again


def follow(approved: Plan, store: Store, previous: PublicState, settings: Settings) -> Plan:
    """Return the plan for another state of a target that publishes no more than one that was approved.

    Raises
    ------
    ConflictError
        If it would publish an episode, or say something of its rights, that nobody approved.
    """
    licence = approved.licence or None
    again = plan(store, approved.target, previous, replace(settings, licence=licence, prune=approved.prune))
    seen = approved.files().episodes
    for episode in (*again.changes.added, *again.changes.again, *again.changes.rights):
        known = seen.get(episode)
        if known is None or known.record != again.files().episodes[episode].record:
            why = f"episode {episode} or its rights have changed since the plan was approved; look again"
            raise ConflictError(approved.target, why)
    return again


def recheck(planned: Plan, store: Store, settings: Settings) -> None:
    """Decide once more on all that a plan publishes from a store, just before it is switched to.

    Raises
    ------
    RightsError
        If any of it may not go any more, or its rights are others.
    """
    state = store.refresh().state
    selection = select(state, _cache(store, settings)[0], settings.court, EMPTY)
    for episode in planned.files().episodes.values():
        going = selection.going.get(episode.id)
        here = episode.id in state.episodes or episode.id in state.withdrawn
        if here and (going is None or going.verdict.record != episode.record):
            codes = [refusal.code for refusal in selection.staying.get(episode.id, ())]
            raise RightsError(f"episode {episode.id} has changed since the plan was made; plan again", codes)


def _what_differs(saved: Plan, again: Plan) -> str:
    names = (
        ("policy_hash", "the policy"),
        ("changes", "which episodes go"),
        ("staying", "which episodes stay, or why"),
        ("tombstones", "what was withdrawn"),
        ("add", "the files"),
    )
    told = [words for name, words in names if getattr(saved, name) != getattr(again, name)]
    return f"decisions have changed since the plan was made ({', '.join(told) or 'settings'}); make a new one"


def _check_target(target: str, previous: PublicState, settings: Settings) -> None:
    # Data of a publisher that died before its switch may lie there; it is used, or removed.
    foreign = {path for path in previous.files if not is_data(path)} - _OWN
    if previous.state is None and foreign:
        odd = min(foreign)
        raise ConflictError(target, f"holds {odd!r}, which was not published from a store; give an empty one")
    last = str(previous.manifest.get("time", ""))
    if last > utc(settings.now):
        raise ConflictError(
            target, f"was last published to at {last}, and this machine's clock is behind that"
        )


def _cache(store: Store, settings: Settings) -> tuple[Facts, Path]:
    """Return the facts on a store's segments, and the folder for what is kept between plans."""
    folder = settings.cache or store.storage.staging() / CACHE
    disk.make_folder(folder)
    os.utime(folder)  # `gc` leaves alone what is young
    return Facts(store.storage, folder / "facts"), folder


class _Planning:
    """One plan in the making."""

    def __init__(self, store: Store, target: str, previous: PublicState, settings: Settings) -> None:
        self.store, self.target, self.previous, self.settings = store, target, previous, settings
        self.state = store.refresh().state
        self.facts, self.folder = _cache(store, settings)
        self.cutter = Cutter(self.folder / "cuts")
        self.dataset = previous.state.dataset if previous.state else dataset_id(target)

    def run(self) -> Plan:
        court = self.settings.court
        selection = select(self.state, self.facts, court, self.previous)
        licence = self.settings.licence or the_one_class(selection, self.previous)
        there = str(self.previous.manifest.get("licence", ""))
        if there and licence != there:
            raise RightsError(f"the target holds what is under {there}; {licence} needs a target of its own")
        selection = only(selection, licence)
        while True:
            arrangement = arrange(
                self.state,
                selection,
                self.previous,
                court,
                self._remote_facts,
                licence=licence,
                prune=self.settings.prune,
            )
            cuts, damaged = self._cut(arrangement)
            if not damaged:
                return self._plan(licence, selection, arrangement, cuts)
            selection = _without(selection, damaged)

    def _cut(self, arrangement: Arrangement) -> tuple[list[Cut], dict[str, Refusal]]:
        """Make the public segments; return them, and the episodes of those that are damaged."""
        cuts: list[Cut] = []
        damaged: dict[str, Refusal] = {}
        for part in arrangement.parts:
            try:
                cuts.append(self.cutter.cut(self.store.storage, part, self.facts.headers))
            except StoreError as error:
                refusal = Refusal(code=Stay.S01_DAMAGED, detail=str(error))
                damaged.update(dict.fromkeys(part.source.episodes, refusal))
        torn = arrangement.remote_parts(self._remote_facts)
        cuts += [self.cutter.cut(self._remote(), part) for part in torn]
        return cuts, damaged

    def _remote(self) -> Storage:
        if self.previous.storage is None:
            raise StoreError(
                self.target, "holds a segment of which a part must leave, and it cannot be read from here"
            )
        return self.previous.storage

    def _remote_facts(self) -> Facts:
        return Facts(self._remote(), self.folder / "facts")

    def _plan(self, licence: str, selection: Selection, arranged: Arrangement, cuts: list[Cut]) -> Plan:
        public = self.previous.state
        rights = _public_rights(selection, arranged.going)
        if public is not None:
            rights |= {e: public.rights[e] for e in public.episodes if e in arranged.keeping}
        elif not rights:
            empty = PublicTree(files={}, episodes={}, segments=())
            return self._told("", 0, selection, Changes(), empty)
        wanted = Wanted(
            add=[replace(cut.add, rights=rights[next(iter(cut.add.episodes))]) for cut in cuts],
            remove=arranged.remove,
            withdrawn=arranged.withdrawn,
            rights=rights,
        )
        entry = next_entry(self.previous, self.dataset, wanted, self.settings.stamp, self.settings.author)
        files = self._lying(entry, cuts)
        published = self._published(licence, selection, entry)
        files |= self._documents(published)
        tree = PublicTree(
            files=dict(sorted(files.items())),
            episodes=published.episodes,
            segments=tuple(entry.state.segments),
            tombstones=published.tombstones,
        )
        changes = _changes(public, entry, arranged, cuts)
        return self._with_manifest(self._told(licence, entry.state.version, selection, changes, tree), entry)

    def _published(self, licence: str, selection: Selection, entry: Entry) -> Published:
        episodes = {}
        for episode, where in entry.state.episodes.items():
            going = selection.going.get(episode)
            rights = entry.state.rights[episode]
            episodes[episode] = PublicEpisode(
                id=episode,
                segment=where.segment,
                content=entry.state.segments[where.segment].contents[episode],
                licence=licence,
                tier=TIER,
                record=going.verdict.record if going else digest(rights),
                rights=rights,
            )
        return Published(
            target=public_place(self.target),
            dataset=self.dataset,
            version=entry.state.version,
            licence=licence,
            policy=self.settings.policy.id,
            time=self.settings.time or self.settings.now,
            tool=TOOL,
            episodes=episodes,
            segments={add.segment: add.files for add in entry.state.segments.values()},
            headers=lambda: self._headers(selection, entry),
            changed=self._changed(entry),
            first_frame=lambda episode, stream: self._first_frame(selection, entry, episode, stream),
            read_previous=self._read_previous,
            cache=self.folder,
            tombstones=self._tombstones(entry),
        )

    def _headers(self, selection: Selection, entry: Entry) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the public header of every episode, a segment at a time."""
        lying: dict[str, list[str]] = {}
        for episode, one in selection.going.items():
            lying.setdefault(one.segment, []).append(episode)
        for segment, episodes in lying.items():
            add = self.state.segments[segment]
            table = open_segment(self.store.storage, add).table["header"]
            for episode in episodes:
                one = selection.going[episode]
                withheld = selection.segments[segment].streams.keys() - one.streams
                public = scrubber(one.names, frozenset(withheld)).public(table[add.episodes[episode]])
                yield episode, strict_json(public.text)
        for add in entry.state.segments.values():
            elsewhere = [episode for episode in add.episodes if episode not in selection.going]
            if elsewhere:
                table = open_segment(self._remote(), self._public_add(add)).table["header"]
                yield from ((episode, strict_json(table[add.episodes[episode]])) for episode in elsewhere)

    def _changed(self, entry: Entry) -> str:
        """Return when the newest entry of the public log was made: the same until the next one."""
        raw = None if entry.operations else self._read_previous(entry_key(entry.state.version))
        told = unsealed(raw, entry_key(entry.state.version)) if raw else {"time": self.settings.stamp}
        return str(told["time"])

    def _first_frame(self, selection: Selection, entry: Entry, episode: str, stream: str) -> Array:
        """Decode the first frame of a camera, here where the episode is here."""
        if episode in selection.going:
            storage, add = self.store.storage, self.state.segments[selection.going[episode].segment]
        else:
            add = self._public_add(entry.state.segments[entry.state.episodes[episode].segment])
            storage = self._remote()
        array, start, _ = open_segment(storage, add).stream(stream, add.episodes[episode])
        frame: Array = array.frames([start])[0]
        return frame

    def _read_previous(self, path: str) -> bytes | None:
        told = self.previous.files.get(path)
        if told is None or self.previous.storage is None:
            return None
        raw = self.previous.storage.read(path)
        return raw if sha256(raw).hexdigest() == told.sha256 else None

    def _public_add(self, add: Add) -> Add:
        """Return a segment as the target has it now: one that is cut anew is read where it was cut from."""
        public = self.previous.state
        if public is None or add.segment in public.segments:
            return add
        where = public.episodes[next(iter(add.episodes))]
        return public.segments[where.segment]

    def _tombstones(self, entry: Entry) -> tuple[Tombstone, ...]:
        """Return what was public once, with the time at which it left."""
        gone = entry.state.withdrawn
        before = {one.id: one for one in told_tombstones(self.previous.manifest)}
        old = [one for one in before.values() if one.id in gone and one.ground == gone[one.id].ground]
        known = {one.id for one in old}
        new = (
            Tombstone(id=e, ground=gone[e].ground, time=self.settings.stamp) for e in gone if e not in known
        )
        return (*old, *new)

    def _lying(self, entry: Entry, cuts: list[Cut]) -> dict[str, Blob]:
        """Return the files of the log and of all segments."""
        was = self.previous.state.version if self.previous.state else 0
        log = {ROOT, SEGMENTS, HEAD, *(key(n + 1) for n in range(was) for key in (entry_key, checkpoint_key))}
        files = {path: _held(path, file) for path, file in self.previous.files.items() if path in log}
        new = {cut.add.segment: cut for cut in cuts}
        for add in entry.state.segments.values():
            if add.segment in new:
                files |= {blob.path: blob for blob in new[add.segment].blobs.values()}
            else:
                paths = ((f"segments/{add.segment}/{path}", file) for path, file in add.files.items())
                files |= {path: _held(path, file) for path, file in paths}
        return {**files, **entry.blobs}

    def _documents(self, published: Published) -> dict[str, Blob]:
        """Return the files that are made from what is published."""
        made = {
            ".gitattributes": GIT_ATTRIBUTES,
            NOTICE: notice(published.episodes.values()),
            **licence_files(published.licence),
        }
        told = self.settings.describe(published)
        if taken := sorted(path for path in told if path in made or path == MANIFEST or "/zarr.json" in path):
            raise ValueError(f"the description may not make {taken[0]}")
        return {path: Blob.of(path, raw) for path, raw in {**made, **told}.items()}

    def _told(
        self, licence: str, version: int, selection: Selection, changes: Changes, tree: PublicTree
    ) -> Plan:
        """Return the plan of a tree that has no manifest yet."""
        there = self.previous.files
        files = {path: blob.file for path, blob in tree.files.items()}
        add = {path: file for path, file in files.items() if there.get(path) != file}
        new = [one for one in tree.tombstones if one.id in changes.withdrawn]
        told = Plan(
            target=self.target,
            base=self.previous.base,
            store=self.state.dataset,
            store_version=self.state.version,
            dataset=self.dataset,
            version=version,
            licence=licence,
            policy=self.settings.policy.id,
            policy_hash=self.settings.policy.hash,
            tool=TOOL,
            time=self.settings.stamp,
            prune=self.settings.prune,
            episodes=len(tree.episodes),
            add=add,
            delete=tuple(sorted(there.keys() - files.keys() - {MANIFEST})) if files else (),
            keep=len(files) - len(add),
            changes=changes,
            staying=selection.groups(),
            tombstones=tuple(new),
            problems=tuple(limit_problems(files, add)),
            tree_digest=tree.digest,
            digest="0" * 64,
            tree=tree,
        )
        return replace(told, digest=plan_digest(told))

    def _with_manifest(self, told: Plan, entry: Entry) -> Plan:
        """Return a plan with the manifest in its tree: the one that lies there, if nothing else changes."""
        tree, there = told.files(), self.previous.files.get(MANIFEST)
        if there is not None and not told.changed:
            blob = _held(MANIFEST, there)
        else:
            blob = manifest(told, entry.state.head)
            check_size(f"{self.target}/{MANIFEST}", blob.size)
        whole = replace(tree, files=dict(sorted({**tree.files, MANIFEST: blob}.items())))
        kept = there == blob.file
        return replace(
            told,
            add=told.add if kept else dict(sorted({**told.add, MANIFEST: blob.file}.items())),
            keep=told.keep + kept,
            tree=whole,
            tree_digest=whole.digest,
        )


def _without(selection: Selection, damaged: Mapping[str, Refusal]) -> Selection:
    going = {episode: one for episode, one in selection.going.items() if episode not in damaged}
    staying = {**selection.staying, **{episode: (refusal,) for episode, refusal in damaged.items()}}
    return replace(selection, going=going, staying=staying)


def _public_rights(selection: Selection, going: list[str]) -> dict[str, Mapping[str, Json]]:
    """Return what is told of each episode's rights; those of one record and the same streams share it."""
    told: dict[tuple[int, frozenset[str]], Mapping[str, Json]] = {}
    found = {}
    for episode in going:
        one = selection.going[episode]
        withheld = frozenset(selection.segments[one.segment].streams) - one.streams
        key = (id(one.verdict.public), withheld)
        if key not in told:
            told[key] = without_streams(one.verdict.public, withheld)
        found[episode] = told[key]
    return found


def _held(path: str, file: File) -> Blob:
    """Return a file that the target has."""
    return Blob(path=path, size=file.size, sha256=file.sha256)


def _changes(public: State | None, entry: Entry, arranged: Arrangement, cuts: list[Cut]) -> Changes:
    was = public.episodes if public else {}
    cut = [episode for one in cuts for episode in one.add.episodes]
    rights = {
        e for operation in entry.operations if isinstance(operation, SetRights) for e in operation.episodes
    }
    return Changes(
        added=tuple(episode for episode in cut if episode not in was),
        again=tuple(episode for episode in cut if episode in was),
        rights=tuple(sorted(rights & was.keys())),
        withdrawn=tuple(sorted(arranged.withdrawn)),
        pruned=arranged.pruned,
    )
