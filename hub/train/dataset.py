"""A dataset: the episodes of one or more stores, narrowed to those that are wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...schemas import Array, Episode, NotFoundError, StreamSpec
from ..cache import Cache, CachedStorage
from ..catalog import Catalog
from ..levels import levels_of, open_level
from ..store import Store, open_store
from .shelf import Places, Shelf
from .statistics import QUANTILES, Statistics, statistics_of
from .terms import Terms, terms_of
from .wants import Offsets, Want, WindowError, wants_of
from .windows import Level, Windows

_BLOCK_BYTES = 8 << 20


@dataclass(frozen=True, eq=False)
class Dataset:
    """Episodes to train on. Make one with `open_dataset`.

    Attributes
    ----------
    places
        The episodes, by number; what a batch calls ``episode`` counts them.
    weights
        How likely each store is to be drawn from, where windows are drawn with replacement.
    """

    shelf: Shelf
    places: Places
    weights: Mapping[int, float] | None = None

    def __len__(self) -> int:
        """Return the number of episodes."""
        return len(self.places)

    def __iter__(self) -> Iterator[Episode]:
        """Yield the episodes, headers only."""
        return (self.episode(number) for number in range(len(self)))

    def episode(self, number: int) -> Episode:
        """Return an episode, its streams lazy."""
        place = self.places[number]
        return self.shelf.stores[place.store].episode(place.id)

    def filter(self, keep: Callable[[Episode], bool]) -> Dataset:
        """Return the dataset of the episodes for whose header this holds. Reads every header once."""
        return self.subset([number for number in range(len(self)) if keep(self.episode(number))])

    def subset(self, numbers: Sequence[int] | NDArray[np.integer]) -> Dataset:
        """Return the dataset of some of the episodes, by number."""
        return replace(self, places=self.places.subset(numbers))

    def split(self, parts: Mapping[str, float], *, seed: int = 0) -> dict[str, Dataset]:
        """Return disjoint parts, such as ``{"train": 0.9, "test": 0.1}``, by the ids of the episodes.

        An episode stays in its part when others are added, since only its id and the seed decide.
        """
        import hashlib

        ends = np.cumsum(list(parts.values()))
        if not np.isclose(ends[-1], 1.0):
            raise WindowError(f"the parts add up to {ends[-1]}, not to 1")
        digests = b"".join(hashlib.sha256(f"{seed}/{id}".encode()).digest()[:8] for id in self.places.ids)
        at = np.frombuffer(digests, ">u8").astype(np.float64) / 2.0**64
        drawn = np.minimum(np.searchsorted(ends, at, side="right"), len(ends) - 1)
        return {name: self.subset(np.flatnonzero(drawn == part)) for part, name in enumerate(parts)}

    def windows(
        self,
        wants: Mapping[str, Offsets | Want],
        *,
        rate_hz: float | None = None,
        clock: str | None = None,
    ) -> Windows:
        """Return the windows around every step of every episode.

        Parameters
        ----------
        wants
            For each stream the steps (whole numbers) or seconds (others) around the anchor, or a `Want`.
        rate_hz
            Anchors and steps are at this rate; None: they are those of ``clock``.
        clock
            Whose steps are the anchors; None: that of the first stream.

        Raises
        ------
        NotFoundError
            If there is no episode, or no such stream.
        WindowError
            If this cannot be drawn, such as pictures by linear interpolation.
        """
        asked = wants_of(wants)
        if not len(self.places):
            raise NotFoundError("there is no episode to draw windows from")
        if rate_hz is not None and not 0 < rate_hz < 1e6:
            raise WindowError(f"rate_hz is {rate_hz}")
        specs = self.shelf.open(self.places[0].segment).specs
        sources = [(stream, want) for name, want in asked.items() for stream in want.sources(name)]
        for stream, want in sources:
            if stream not in specs:
                raise NotFoundError(f"there is no stream {stream!r}; there are {', '.join(sorted(specs))}")
            _check(specs[stream], want)
        return Windows(
            self.shelf,
            self.places,
            asked,
            clock or specs[sources[0][0]].clock,
            rate_hz,
            self._shares(),
            self._levels(asked, specs),
        )

    def _levels(
        self, wants: Mapping[str, Want], specs: Mapping[str, StreamSpec]
    ) -> dict[tuple[int, str], Level]:
        """Find the smallest level of each store that is large enough for the pictures that are wanted."""
        found: dict[tuple[int, str], Level] = {}
        small = {
            name: want.size
            for name, want in wants.items()
            if want.size is not None and want.crop is None and name in specs and specs[name].kind == "video"
        }
        for number, store in enumerate(self.shelf.stores if small else ()):
            opened: dict[tuple[int, int], Level] = {}
            sizes = levels_of(store.storage)
            for name, size in small.items():
                fits = [s for s in sizes if s[0] >= size[0] and s[1] >= size[1]]
                if fits:
                    best = min(fits, key=lambda s: s[0] * s[1])
                    if best not in opened:
                        cache = store.storage.cache if isinstance(store.storage, CachedStorage) else None
                        opened[best] = Level.of(Shelf([_cached(open_level(store, best), cache)]))
                    found[number, name] = opened[best]
        return found

    def terms(self) -> Terms:
        """Return under which terms what is made of these episodes may be passed on, and whom to name."""
        return terms_of(self.shelf, self.places)

    def statistics(self, stream: str, shares: Sequence[float] = QUANTILES) -> Statistics:
        """Return extremes, moments and exact quantiles of each axis of a low-dimensional stream.

        Reads the stream up to five times, a bounded block at a time.

        Raises
        ------
        NotFoundError
            If an episode has no such stream.
        WindowError
            If it is not low-dimensional, its shape differs between episodes, or nothing of it is finite.
        """
        segments = self.shelf.open_many(np.unique(self.places.segments).tolist())
        specs = [segment.specs.get(stream) for segment in segments]
        shapes = {spec.shape for spec in specs if spec is not None}
        if None in specs or not specs:
            raise NotFoundError(f"there are episodes without a stream {stream!r}")
        if len(shapes) > 1 or any(spec.kind != "low_dim" for spec in specs if spec is not None):
            raise WindowError(f"{stream}: statistics are of low-dimensional streams of one shape")
        axes = int(np.prod(next(iter(shapes)), dtype=np.int64))
        return statistics_of(partial(self._blocks, stream), axes, shares=shares)

    def _blocks(self, stream: str) -> Iterator[Array]:
        for place in self.places:
            segment = self.shelf.open(place.segment)
            clock = segment.specs[stream].clock
            start, length = (int(of[clock][place.row]) for of in (segment.starts, segment.lengths))
            yield from segment.arrays[stream].blocks(start, start + length, _BLOCK_BYTES)

    def _shares(self) -> NDArray[np.float64] | None:
        if self.weights is None:
            return None
        weights = np.array([self.weights[number] for number in range(len(self.shelf.stores))], np.float64)
        found: NDArray[np.float64] = weights[self.places.stores]
        return found


def _check(spec: StreamSpec, want: Want) -> None:
    """Refuse what cannot be made of a stream."""
    if want.streams and spec.kind != "low_dim":
        raise WindowError(f"{spec.name}: only low-dimensional streams are put side by side")
    if want.align in {"linear", "slerp"} and spec.np_dtype.kind != "f":
        raise WindowError(f"{spec.name}: {want.align} is for streams of real numbers")
    if want.align == "slerp" and spec.shape[-1:] != (4,):
        raise WindowError(f"{spec.name}: slerp is for quaternions, and this is {spec.shape}")


def open_dataset(
    stores: str | Path | Store | Sequence[str | Path | Store] | Mapping[str, float],
    *,
    cache: Cache | None = None,
) -> Dataset:
    """Open one or more stores as one dataset.

    Parameters
    ----------
    stores
        Paths, URLs (``https://``, ``s3://``, ``hf://datasets/org/name@commit``) or opened stores; a mapping
        gives each a weight: the share of the windows that is drawn from it, with `Replaced`.
    cache
        Keeps what is read of remote stores on this machine's disk.

    Raises
    ------
    StoreError
        If there is no store, or it is of a newer format.
    """
    given: list[Any] = [stores] if isinstance(stores, str | Path | Store) else list(stores)
    shelf = Shelf([_cached(s if isinstance(s, Store) else open_store(s), cache) for s in given])
    weights = dict(enumerate(stores.values())) if isinstance(stores, Mapping) else None
    return Dataset(shelf, shelf.places(), weights)


def _cached(store: Store, cache: Cache | None) -> Store:
    if cache is None or store.storage.local("segments") is not None:
        return store
    storage = CachedStorage(store.storage, cache)
    return Store(storage, Catalog(storage), store.state)
