"""Levels: the cameras of a store once more, smaller, for those who train on small pictures.

A level is a store of its own below ``levels/<height>x<width>`` of the store it is made from, with episodes of
the same ids that hold the resized cameras alone. So whatever works on a store works on a level. Which
episodes there are is decided by the store: readers look an episode up there, and take its pictures here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from ..schemas import (
    Array,
    Episode,
    FieldFate,
    NotFoundError,
    Problem,
    Provenance,
    SchemaError,
    SourceFile,
    StoreError,
    Stream,
    canonical,
    strict_json,
)
from ..schemas.rights import Parent
from .arrays import ArrayReader
from .catalog import Operation, State, Withdraw
from .decode import Form, scatter
from .ingest import WriteReport
from .options import WriteOptions
from .sinks import Progress
from .storage import LEVELS, Storage
from .store import Store, create_store, open_store, whoami

INDEX = f"{LEVELS}/index.json"
"""Names the levels of a store, since a web server cannot list."""

_CONVERTER_VERSION = "1"
Size = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeriveReport:
    """What `derive` did.

    Attributes
    ----------
    url
        Of the level.
    written
        The episodes that are new there.
    withdrawn, rights
        Ids of the episodes that left it since they left the store, and of those whose rights followed.
    """

    url: str
    written: WriteReport
    withdrawn: tuple[str, ...]
    rights: tuple[str, ...]


def derive(
    store: Store,
    size: Size,
    options: WriteOptions | None = None,
    *,
    author: str = "",
    progress: Progress | None = None,
) -> DeriveReport:
    """Make a level of a store, or bring it up to date.

    Each picture is resized as a whole to ``size`` by averaging, and encoded anew; its shape may change, so
    this is no crop. The rights of an episode hold for its level, with this operation on record: of the class
    ``adapted``, which a licence without derivatives forbids.

    Parameters
    ----------
    size
        (height, width) of the pictures; no larger than those of the store.

    Raises
    ------
    SchemaError
        If a camera is smaller than this.
    TeleopenError
        If the store is damaged or storage fails; the level is then as it was.
    """
    name = f"{size[0]}x{size[1]}"
    level = create_store(f"{store.url}/{LEVELS}/{name}", author=author)
    _tell(store.storage, name)
    gone = _withdraw_what_left(store, level, author or whoami())
    missing = [episode for episode in store.ids if episode not in level.state.episodes]
    told = {} if progress is None else {"progress": progress}
    reduced = (_reduced(store, episode, size) for episode in missing)
    written = level.write((e for e in reduced if e.streams), options, author=author, **told)
    changed: list[str] = []
    for episode in level.ids:
        changed += level.set_rights(_rights_of(store, episode), [episode], author=author)
    return DeriveReport(url=level.url, written=written, withdrawn=gone, rights=tuple(changed))


def levels_of(storage: Storage) -> list[Size]:
    """Return the sizes of a store's levels, the smallest first; none if there are none.

    Raises
    ------
    StoreError
        If the place fails, or its list of levels is none.
    """
    try:
        told = strict_json(storage.read(INDEX))
        names = [str(name).split("x") for name in told["levels"]]
        return sorted((int(height), int(width)) for height, width in names)
    except NotFoundError:
        return []
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{storage.url}/{INDEX}", f"is no list of levels: {error}") from error


def open_level(store: Store, size: Size) -> Store:
    """Open a level of a store."""
    return open_store(f"{store.url}/{LEVELS}/{size[0]}x{size[1]}")


def _tell(storage: Storage, name: str) -> None:
    known = {f"{height}x{width}" for height, width in levels_of(storage)}
    if name not in known:
        storage.replace(INDEX, canonical({"levels": sorted({*known, name})}))


def _withdraw_what_left(store: Store, level: Store, author: str) -> tuple[str, ...]:
    """Withdraw from the level what is not in the store any more."""
    gone = [episode for episode in level.ids if episode not in store.state.episodes]

    def build(state: State) -> list[Operation]:
        still = tuple(episode for episode in gone if episode in state.episodes)
        return [Withdraw(episodes=still, ground="error", note="left the store")] if still else []

    level.state = level.catalog.commit(build, author=author)
    return tuple(gone)


def _rights_of(store: Store, episode: str) -> Any:
    """Return the rights of an episode's level: those of the episode, and what was done to it."""
    rights = store.rights(episode)
    parent = Parent(record=rights.digest, operation="adapted")
    return replace(rights, derived_from=(*rights.derived_from, parent))


def _reduced(store: Store, key: str, size: Size) -> Episode:
    """Return an episode that holds the resized cameras of another, under its id."""
    whole = store.episode(key)
    cameras = {n: s for n, s in whole.streams.items() if s.spec.kind == "video" and s.spec.shape[2] == 3}
    clocks = {stream.spec.clock for stream in cameras.values()}
    content = store.state.segments[store.state.episodes[key].segment].contents[key]
    return replace(
        whole,
        rights=_rights_of(store, key),
        provenance=Provenance(
            format="teleopen",
            converter="levels",
            converter_version=_CONVERTER_VERSION,
            sources=(SourceFile(uri=f"episodes/{key}", size=0, sha256=content, role="episode"),),
            options={"size": list(size)},
            ledger=tuple(
                FieldFate(field=name, fate="transformed", to=(name,), how=_how(stream, size), lossless=False)
                if name in cameras
                else FieldFate(field=name, fate="dropped", how="a level holds cameras only")
                for name, stream in whole.streams.items()
            ),
        ),
        clocks={name: clock for name, clock in whole.clocks.items() if name in clocks},
        streams={name: _resized(store, key, stream, size) for name, stream in cameras.items()},
        events=(),
        extra={},
    )


def _how(stream: Stream, size: Size) -> str:
    height, width, _ = stream.spec.shape
    return f"resized from {height} × {width} to {size[0]} × {size[1]} by averaging"


def _resized(store: Store, key: str, stream: Stream, size: Size) -> Stream:
    height, width, _ = stream.spec.shape
    if size[0] > height or size[1] > width:
        why = f"is {height} × {width}, smaller than {size[0]} × {size[1]}"
        raise SchemaError([Problem(stream.spec.name, why)])
    array, start, _ = store.array(key, stream.spec.name)
    attributes = {**stream.spec.attributes, "resized_from": [height, width]}
    spec = replace(stream.spec, shape=(*size, 3), attributes=attributes)
    read = partial(_frames, array, start, Form(crop=(0, 0, height, width), size=size))
    return Stream(spec=spec, length=stream.length, read=read)


def _frames(array: ArrayReader, first: int, form: Form, start: int, stop: int) -> Iterator[Array]:
    """Yield resized frames, those of a chunk at a time."""
    video, size = array.layout.video, array.layout.chunk
    assert video is not None  # noqa: S101 - the stream is a camera
    at, end = first + start, first + stop
    while at < end:
        chunk = at // size
        until = min(end, (chunk + 1) * size)
        out = np.empty((until - at, *form.shape), np.uint8)
        rows = {slot - chunk * size: [slot - at] for slot in range(at, until)}
        scatter(array.chunk(chunk), video, rows, out, form=form)
        yield out
        at = until
