"""What a sample's author says is in it: written without the converters, so it can judge them.

Each module here is called like a converter and has ``write(folder) -> Truth``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class EpisodeTruth:
    """The author's word on one episode.

    Attributes
    ----------
    values
        Every stream whose samples must come back bit for bit.
    close
        Streams whose source is lossy video: the frames that went in, and the least PSNR in dB.
    times
        Nanoseconds since the start, by clock.
    """

    values: Mapping[str, NDArray[Any]]
    close: Mapping[str, tuple[NDArray[np.uint8], float]] = field(default_factory=dict)
    times: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    instructions: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Truth:
    """A sample on disk, what is in it, and one that is broken.

    Attributes
    ----------
    fields
        Every field of the source that the fidelity ledger must account for.
    broken
        A source of the format that the converter must refuse with a `FormatError`.
    """

    path: Path
    episodes: tuple[EpisodeTruth, ...]
    fields: frozenset[str]
    broken: Path
