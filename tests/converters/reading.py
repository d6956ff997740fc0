"""Reading recordings as the tests of converters do: one that is alone, every sample, or into a refusal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from teleopen.schemas import Episode, FormatError, problems_of

if TYPE_CHECKING:
    from teleopen.converters import Converter


def only(converter: Converter, path: Path) -> Episode:
    """Return the episode of a recording that holds one, which has no problem."""
    (episode,) = converter.episodes(path)
    assert problems_of(episode) == []
    return episode


def read_all(converter: Converter, path: Path) -> None:
    """Read every sample of every stream."""
    for episode in converter.episodes(path):
        for stream in episode.streams.values():
            for _ in stream:
                pass


def refusal(converter: Converter, path: Path) -> FormatError:
    """Return the error in which reading ends; whoever calls looks at what it says."""
    with pytest.raises(FormatError) as caught:
        read_all(converter, path)
    assert caught.value.path.startswith(str(path))
    return caught.value
