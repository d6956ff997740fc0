"""What lies beside a recording: videos, and names that strangers chose."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

from ..schemas import Array, FormatError, Json, Packets, StreamSpec
from ._draft import Draft
from ._mp4 import Mp4Video
from .base import rows_in


def told_name(name: str) -> str:
    """Return a name that a stranger chose in the form in which a ledger tells it: short, printable ASCII."""
    return ascii(name)[1:-1][:300] or "_"


def named_members(document: Mapping[str, Json]) -> Iterator[tuple[str, str, Json]]:
    """Yield the members of a JSON object as key, name for the ledger, and value; no name comes twice."""
    taken: set[str] = set()
    for key, value in document.items():
        wanted = told_name(key)
        numbered = (f"{wanted}_{i}" for i in range(2, len(document) + 2))
        name = wanted if wanted not in taken else next(name for name in numbered if name not in taken)
        taken.add(name)
        yield key, name, value


def add_video(
    draft: Draft,
    video: Mp4Video,
    *,
    name: str,
    clock: str,
    source: str,
    block_bytes: int,
    attributes: Mapping[str, Json] | None = None,
    description: str = "",
) -> str:
    """Add all pictures of an MP4 as a stream, its packets as they came; return the stream's name.

    Pictures of a codec that is not passed on are decoded.
    """
    if video.pixel_format.startswith("gray") and video.pixel_format != "gray":
        raise FormatError(str(video.path), "", f"holds pictures of {video.pixel_format}, which are no video")
    spec = StreamSpec(
        name=name,
        kind="video",
        dtype="uint8",
        shape=(*video.size, 1 if video.pixel_format == "gray" else 3),
        unit=("1",),
        clock=clock,
        description=description,
        attributes={**video.attributes, **(attributes or {})},
    )
    packets = None
    if video.format is not None:
        packets = Packets(format=video.format, blocks=partial(video.blocks, 0, len(video)))
    how = [f"{video.codec} pictures, decoded"] if packets is None else []
    how += ["its sound is left out"] if video.audio else []
    read = partial(_frames, video, rows_in(block_bytes, spec))
    lossless = None if packets is None else True
    return draft.add(
        spec, len(video), read, source=source, how="; ".join(how), lossless=lossless, packets=packets
    )


def _frames(video: Mp4Video, rows: int, start: int, stop: int) -> Iterator[Array]:
    return video.frames(max(0, start), min(stop, len(video)), rows)
