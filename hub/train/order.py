"""In which order windows are drawn: pure functions of a position, so that any position can be gone to.

Nothing is shuffled in memory. A seeded permutation of any length is computed where it is asked for, so an
order over a hundred million windows costs nothing to make, and going on at a position is exact.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]

_ROUNDS = 4
_SALTS = (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


class Order(Protocol):
    """An order of drawing. Frozen, picklable, and the same everywhere for the same seed."""

    def size(self, lengths: Indices) -> int:
        """Return how many windows an epoch has, over episodes of these numbers of anchors."""
        ...

    def draw(self, positions: Indices, epoch: int, space: Space) -> tuple[Indices, Indices]:
        """Return episode and anchor of the windows at these positions of an epoch."""
        ...


@dataclass(frozen=True, eq=False)
class Space:
    """What is drawn from: episodes with their numbers of anchors.

    Attributes
    ----------
    lengths
        (E,) anchors of each episode.
    chunk
        Steps that lie in one camera chunk, which are cheap to read together.
    weights
        (E,) how likely each anchor of an episode is, where windows are drawn with replacement.
    """

    lengths: Indices
    chunk: int = 32
    weights: NDArray[np.float64] | None = None
    _ends: dict[int, Indices] = field(default_factory=dict, repr=False)

    def ends(self, unit: int = 1) -> Indices:
        """Return the running sum of whole ``unit``s of anchors: (E,)."""
        if unit not in self._ends:
            self._ends[unit] = np.cumsum(self.lengths // unit)
        return self._ends[unit]

    def left(self, unit: int) -> Indices:
        """Return the running sum of the anchors that whole ``unit``s leave over: (E,)."""
        if -unit not in self._ends:
            self._ends[-unit] = np.cumsum(self.lengths % unit)
        return self._ends[-unit]


def _locate(ends: Indices, at: Indices) -> tuple[Indices, Indices]:
    """Return which episode each running number falls into, and how far into it."""
    episode = np.searchsorted(ends, at, side="right")
    before = np.where(episode > 0, ends[np.maximum(episode - 1, 0)], 0)
    return episode.astype(np.int64), at - before


@dataclass(frozen=True, slots=True)
class Sequential:
    """Every window once, in the order of the recordings."""

    def size(self, lengths: Indices) -> int:
        return int(lengths.sum())

    def draw(self, positions: Indices, epoch: int, space: Space) -> tuple[Indices, Indices]:
        del epoch
        return _locate(space.ends(), positions)


@dataclass(frozen=True, slots=True)
class Permuted:
    """Every window once in an epoch, in random order: the best mixing, and the dearest reading."""

    seed: int = 0

    def size(self, lengths: Indices) -> int:
        return int(lengths.sum())

    def draw(self, positions: Indices, epoch: int, space: Space) -> tuple[Indices, Indices]:
        total = self.size(space.lengths)
        return _locate(space.ends(), permuted(positions, total, _mix(self.seed, epoch)))


@dataclass(frozen=True, slots=True)
class Replaced:
    """Windows drawn at random with replacement, by the weights of their episodes.

    Attributes
    ----------
    epoch_windows
        How many make an epoch; None: as many as there are.
    """

    seed: int = 0
    epoch_windows: int | None = None

    def size(self, lengths: Indices) -> int:
        return self.epoch_windows if self.epoch_windows is not None else int(lengths.sum())

    def draw(self, positions: Indices, epoch: int, space: Space) -> tuple[Indices, Indices]:
        key = _mix(self.seed, epoch)
        chance = _hash(positions.astype(np.uint64) * np.uint64(2), key)
        if space.weights is None:
            total = int(space.lengths.sum())
            return _locate(space.ends(), (chance % np.uint64(total)).astype(np.int64))
        ends = np.cumsum(space.weights * space.lengths)
        aim = chance.astype(np.float64) / 2.0**64 * ends[-1]
        episode = np.minimum(np.searchsorted(ends, aim, side="right"), len(ends) - 1).astype(np.int64)
        second = _hash(positions.astype(np.uint64) * np.uint64(2) + np.uint64(1), key)
        return episode, (second % space.lengths[episode].astype(np.uint64)).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Blocks:
    """Every window once in an epoch, ``windows`` at a time from one camera chunk.

    A chunk that was read gives several windows at little more than the cost of one. Visits to chunks come in
    random order, and the windows of a chunk are spread over its visits at random. ``buffer`` visits at a time
    are read together and mixed; nothing else is held in memory. Mixing: two windows of one batch are from
    the same chunk with the chance ``(windows - 1) / (windows * buffer - 1)``, where a permutation has next
    to none; over an epoch each window comes once, as there.

    Attributes
    ----------
    windows
        Drawn from each visited chunk.
    buffer
        Visits that are read together and mixed. ``windows * buffer`` windows are in memory at a time; they
        are a whole number of batches, or a batch is a whole number of them.
    """

    windows: int = 4
    buffer: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        if self.windows < 1 or self.buffer < 1:
            raise ValueError("windows and buffer are at least 1")

    def size(self, lengths: Indices) -> int:
        return int(lengths.sum())

    def draw(self, positions: Indices, epoch: int, space: Space) -> tuple[Indices, Indices]:
        key = _mix(self.seed, epoch)
        visit, within = self._mixed(positions, self.size(space.lengths), key)
        whole = int(space.ends(self.windows)[-1]) if len(space.lengths) else 0
        episode, anchor = np.empty_like(visit), np.empty_like(visit)
        full = visit < whole
        episode[full], anchor[full] = self._visited(visit[full], within[full], space, key, whole)
        rest = (visit[~full] - whole) * self.windows + within[~full]
        episode[~full], anchor[~full] = self._left_over(rest, space, key)
        return episode, anchor

    def _mixed(self, positions: Indices, total: int, key: int) -> tuple[Indices, Indices]:
        """Return which visit a position belongs to, and which of its windows: mixed within a buffer."""
        block = self.windows * self.buffer
        start = positions // block * block
        size = np.minimum(block, total - start)
        inner = _permuted_each(positions - start, size, key, positions // block)
        return (start + inner) // self.windows, (start + inner) % self.windows

    def _visited(
        self, visit: Indices, within: Indices, space: Space, key: int, whole: int
    ) -> tuple[Indices, Indices]:
        episode, number = _locate(space.ends(self.windows), permuted(visit, whole, key + 1))
        # Only whole visits are counted here; what the last chunks have over is drawn at the end.
        per_chunk = max(1, space.chunk // self.windows)
        chunk = number // per_chunk
        at = (number % per_chunk) * self.windows + within
        return episode, self._spread(episode, chunk, at, space, key)

    def _spread(self, episode: Indices, chunk: Indices, at: Indices, space: Space, key: int) -> Indices:
        """Return the anchor at a place in its chunk's own random order."""
        stride = max(1, space.chunk // self.windows) * self.windows
        first = chunk * stride
        size = np.minimum(stride, space.lengths[episode] - first)
        return first + _permuted_each(at, size, key + 2, episode * 1_000_003 + chunk)

    def _left_over(self, rest: Indices, space: Space, key: int) -> tuple[Indices, Indices]:
        total = int(space.left(self.windows)[-1]) if len(space.lengths) else 0
        episode, number = _locate(space.left(self.windows), permuted(rest, total, key + 3))
        stride = max(1, space.chunk // self.windows) * self.windows
        chunk = (space.lengths[episode] - 1) // stride
        taken = space.lengths[episode] // self.windows * self.windows - chunk * stride
        return episode, self._spread(episode, chunk, taken + number, space, key)


# ---------------------------------------------------------------- permutations


def permuted(positions: Indices, size: int, key: int) -> Indices:
    """Return where a seeded permutation of ``size`` numbers sends each position.

    A Feistel network on the next even power of two, walked until it falls below ``size`` (Black and Rogaway,
    "Ciphers with arbitrary finite domains", 2002): a bijection, at a few operations a position.
    """
    return _permuted_each(positions, np.full_like(positions, size), key, np.zeros_like(positions))


def _permuted_each(positions: Indices, sizes: Indices, key: int, tweak: Indices) -> Indices:
    """Permute each position among its own number of places, differently for each tweak."""
    found = positions.astype(np.uint64)
    if not len(found):
        return positions
    limits = sizes.astype(np.uint64)
    salt = _hash(tweak.astype(np.uint64), key)
    half = np.maximum(1, np.ceil(np.log2(np.maximum(2, sizes.astype(np.float64))) / 2)).astype(np.uint64)
    mask = (np.uint64(1) << half) - np.uint64(1)
    todo = np.arange(len(found))
    while len(todo):
        found[todo] = _feistel(found[todo], half[todo], mask[todo], salt[todo])
        todo = todo[found[todo] >= limits[todo]]
    return found.astype(np.int64)


def _feistel(
    at: NDArray[np.uint64], half: NDArray[np.uint64], mask: NDArray[np.uint64], salt: NDArray[np.uint64]
) -> NDArray[np.uint64]:
    left, right = at >> half, at & mask
    for turn in range(_ROUNDS):
        left, right = right, left ^ (_scramble(right + salt * np.uint64(2 * turn + 1)) & mask)
    return (left << half) | right


def _scramble(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scramble as SplitMix64 ends (Steele, Lea, Flood: "Fast splittable pseudorandom numbers", 2014)."""
    with np.errstate(over="ignore"):
        x = x + np.uint64(_SALTS[0])
        x = (x ^ (x >> np.uint64(30))) * np.uint64(_SALTS[1])
        x = (x ^ (x >> np.uint64(27))) * np.uint64(_SALTS[2])
        return x ^ (x >> np.uint64(31))


def _hash(x: NDArray[np.uint64], key: int) -> NDArray[np.uint64]:
    return _scramble(_scramble(x) + np.uint64(key & 0xFFFFFFFFFFFFFFFF))


def _mix(seed: int, epoch: int) -> int:
    """Return one key of seed and epoch."""
    told = _hash(np.array([seed & 0xFFFFFFFFFFFFFFFF], np.uint64), epoch)
    return int(told[0]) & 0x7FFFFFFFFFFFFFFF
