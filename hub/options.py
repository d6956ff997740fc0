"""How episodes are written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .encode import Profile


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteOptions:
    """How episodes are written.

    Attributes
    ----------
    profile
        Video profile for cameras that come as frames; see docs/codec.md.
    quality_db
        PSNR that lossy profiles aim at, in dB over RGB.
    transcode
        Encode anew also what comes as packets. Otherwise packets are taken as they are.
    workers
        Encoding threads; None: one per core.
    segment_bytes, segment_episodes
        A segment is closed when it has grown to either.
    """

    profile: Profile = "train"
    quality_db: float = 37.0
    transcode: bool = False
    workers: int | None = None
    segment_bytes: int = 1 << 30
    segment_episodes: int = 1000
