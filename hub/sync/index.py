"""The index of what is published: a row for each episode, with a small picture, for people and for SQL.

``index/episodes.parquet`` is what the Hub's Dataset Viewer shows. Thumbnails are JPEG in a column of the type
``Image`` of the library ``datasets``: a struct of ``bytes`` and ``path``, told in the schema's metadata under
``huggingface`` (github.com/huggingface/datasets: src/datasets/features/image.py, arrow_writer.py).

A thumbnail is made once: of segments that do not change it is taken from what was kept, or from the index
that lies at the target.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...schemas import Array, Episode, StreamSpec, from_document
from .. import disk
from ..clocks import main_clock, rate_of
from .tree import PublicEpisode, Published

INDEX = "index/episodes.parquet"
THUMBNAIL = (160, 120)
"""Most pixels of a thumbnail, width and height."""

_LOOK = 1
"""Raised when thumbnails are made otherwise, since they are kept."""
_QUALITY = 80
_ROWS = 1_000  # of a row group
_COLUMNS = {
    "id": ("string", "Id of the episode, for `SRC#EPISODE`."),
    "task": ("string", "What the robot was asked to do."),
    "robot": ("string", "Robot and end effector."),
    "licence": ("string", "SPDX expression that the episode goes out under."),
    "outcome": ("string", "success, failure or unknown."),
    "duration_s": ("float64", "Length in seconds: steps by rate."),
    "steps": ("int64", "Samples on the clock of the commands."),
    "cameras": ("string", "Names of the camera streams."),
    "rate": ("float64", "Steps per second."),
    "segment": ("string", "Folder below segments/ that holds it."),
    "thumbnail": ("image", "The first picture of its first camera."),
    "attribution": ("string", "How the work wants to be named."),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """An episode as the index tells it, without its thumbnail; see ``_COLUMNS``."""

    id: str
    task: str
    robot: str
    licence: str
    outcome: str
    duration_s: float | None
    steps: int
    cameras: tuple[str, ...]
    rate: float | None
    segment: str
    attribution: str


@dataclass(frozen=True, slots=True)
class Overview:
    """All that is published, as far as documents tell of it.

    Attributes
    ----------
    rows
        In the order of the public log.
    streams
        The first spec of each name.
    """

    rows: tuple[Row, ...]
    streams: Mapping[str, StreamSpec]


def overview(published: Published) -> Overview:
    """Return what there is; reads the headers of one segment at a time."""
    rows: dict[str, Row] = {}
    streams: dict[str, StreamSpec] = {}
    for episode, document in published.headers():
        header = from_document(Episode, document)
        rows[episode] = _row(header, published.episodes[episode])
        for name, stream in header.streams.items():
            streams.setdefault(name, stream.spec)
    return Overview(tuple(rows[episode] for episode in published.episodes), dict(sorted(streams.items())))


def _row(header: Episode, public: PublicEpisode) -> Row:
    clock = main_clock(header)
    rate = rate_of(clock)
    return Row(
        id=header.id,
        task="; ".join(header.instructions),
        robot=header.embodiment,
        licence=public.licence,
        outcome=header.outcome,
        duration_s=clock.length / rate if rate else None,
        steps=clock.length,
        cameras=tuple(sorted(n for n, stream in header.streams.items() if stream.spec.kind == "video")),
        rate=rate,
        segment=public.segment,
        attribution="; ".join(map(credit, public.attribution)),
    )


def credit(told: Mapping[str, Any]) -> str:
    """Return in one line how a work wants to be named."""
    title = told.get("title") or "Untitled recordings"
    year = f" ({told['year']})" if "year" in told else ""
    creators = f"{', '.join(told['creators'])}: " if told.get("creators") else ""
    return f"{creators}{title}{year}"


# --- thumbnails -------------------------------------------------------------------------------------------


def thumbnail(frame: Array) -> bytes:
    """Return a picture (H, W, 3) or (H, W, 1) uint8 as a JPEG of at most `THUMBNAIL` pixels."""
    from PIL import Image

    picture = Image.fromarray(frame[..., 0] if frame.shape[2] == 1 else frame)
    picture.thumbnail(THUMBNAIL, Image.Resampling.BOX)
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=_QUALITY)
    return out.getvalue()


class _Thumbnails:
    """Thumbnails of what is published, each made once."""

    def __init__(self, published: Published) -> None:
        self._published = published
        self._folder = published.cache / "thumbnails"
        self._there: Mapping[str, dict[str, bytes | None]] | None = None
        disk.make_folder(self._folder)

    def of(self, segment: str, rows: Iterable[Row]) -> dict[str, bytes | None]:
        """Return the thumbnails of a segment's episodes by id; None for those without a camera."""
        kept = self._folder / f"{segment}-{_LOOK}.parquet"
        wanted = {row.id: row.cameras for row in rows}
        found = _read(kept)
        if found is None or found.keys() != wanted.keys():
            known = {**self._at_the_target(segment), **(found or {})}
            found = {id: known[id] if id in known else self._made(id, wanted[id]) for id in wanted}
            _write(kept, found)
        return found

    def _made(self, episode: str, cameras: tuple[str, ...]) -> bytes | None:
        return thumbnail(self._published.first_frame(episode, cameras[0])) if cameras else None

    def _at_the_target(self, segment: str) -> dict[str, bytes | None]:
        if self._there is None:
            self._there = _by_segment(self._published.read_previous(INDEX))
        return self._there.get(segment, {})


def _by_segment(raw: bytes | None) -> dict[str, dict[str, bytes | None]]:
    """Return the thumbnails of an index that was published, by segment and episode."""
    found: dict[str, dict[str, bytes | None]] = {}
    for row in _rows_of(raw, ["id", "segment", "thumbnail"]):
        picture = row["thumbnail"]
        found.setdefault(row["segment"], {})[row["id"]] = picture and picture["bytes"]
    return found


def _rows_of(raw: bytes | None, columns: list[str]) -> list[dict[str, Any]]:
    """Return rows of a table; none if it is not there or is no such table: it can be made again."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if raw is None:
        return []
    try:
        rows: list[dict[str, Any]] = pq.ParquetFile(io.BytesIO(raw)).read(columns).to_pylist()
    except (pa.ArrowException, OSError, KeyError):
        return []
    return rows if all(row.keys() == set(columns) for row in rows) else []


def _read(path: Path) -> dict[str, bytes | None] | None:
    if not path.exists():
        return None
    return {row["id"]: row["jpeg"] for row in _rows_of(path.read_bytes(), ["id", "jpeg"])}


def _write(path: Path, found: Mapping[str, bytes | None]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    fields: list[Any] = [pa.field("id", pa.string()), pa.field("jpeg", pa.binary())]
    kinds = pa.schema(fields)
    pq.write_table(pa.table({"id": list(found), "jpeg": list(found.values())}, kinds), sink)
    aside = path.with_name(f"{path.name}.{os.getpid()}")
    disk.unlink(aside)
    disk.write(aside, [sink.getvalue()])
    disk.rename(aside, path)


# --- the table --------------------------------------------------------------------------------------------


def index(published: Published, told: Overview) -> bytes:
    """Return the index: the same bytes for the same episodes and thumbnails."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    with pq.ParquetWriter(sink, _schema(), compression="zstd") as writer:
        for rows in _groups(published, told):
            writer.write_table(pa.Table.from_pylist(rows, _schema()))
    return sink.getvalue()


def _groups(published: Published, told: Overview) -> Iterator[list[dict[str, Any]]]:
    """Yield rows with thumbnails, as many at a time as go into a row group."""
    thumbnails = _Thumbnails(published)
    segments: dict[str, list[Row]] = {}
    for row in told.rows:
        segments.setdefault(row.segment, []).append(row)
    # Episodes of a segment lie together in the log's order, so that one segment's pictures are held.
    held: tuple[str, dict[str, bytes | None]] = ("", {})
    group: list[dict[str, Any]] = []
    for row in told.rows:
        if held[0] != row.segment:
            held = (row.segment, thumbnails.of(row.segment, segments[row.segment]))
        jpeg = held[1][row.id]
        picture = None if jpeg is None else {"bytes": jpeg, "path": f"{row.id}.jpg"}
        group.append({**{name: getattr(row, name, None) for name in _COLUMNS}, "thumbnail": picture})
        if len(group) == _ROWS:
            yield group
            group = []
    if group or not told.rows:
        yield group


def _schema() -> Any:
    import pyarrow as pa

    kinds: dict[str, Any] = {
        "string": pa.string(),
        "float64": pa.float64(),
        "int64": pa.int64(),
        "image": pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    }
    features: dict[str, Any] = {}
    fields = []
    for name, (kind, _) in _COLUMNS.items():
        value = {"_type": "Image"} if kind == "image" else {"dtype": kind, "_type": "Value"}
        if name == "cameras":
            features[name] = {"feature": value, "_type": "Sequence"}
            fields.append(pa.field(name, pa.list_(pa.string())))
        else:
            features[name] = value
            fields.append(pa.field(name, kinds[kind]))
    told = json.dumps({"info": {"features": features}})
    return pa.schema(fields, {"huggingface": told})


def columns() -> Mapping[str, tuple[str, str]]:
    """Return type and description of each column."""
    return _COLUMNS
