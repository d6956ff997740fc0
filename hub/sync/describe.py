"""The documents for visitors, made together: card, index, Croissant."""

from __future__ import annotations

from collections.abc import Mapping

from .card import CARD, card
from .croissant import CROISSANT, croissant
from .index import INDEX, index, overview
from .tree import Describe, Published


def describer(*, gated: bool = False) -> Describe:
    """Return what makes the documents; ``gated`` tells whether visitors have to ask for the files."""

    def describe(published: Published) -> Mapping[str, bytes]:
        told = overview(published)
        table = index(published, told)
        return {
            CARD: card(published, told, gated=gated),
            INDEX: table,
            CROISSANT: croissant(published, told, table),
        }

    return describe
