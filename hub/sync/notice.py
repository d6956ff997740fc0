"""NOTICE and LICENSES: what the licences of the published episodes ask to be passed on.

Both follow from the public rights records alone: sorted, each block once, the same for the same records.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from ...schemas import LICENCES, Json, NotFoundError
from ...schemas.licences import duties
from .public_rights import NOT_NAMED
from .tree import PublicEpisode

NOTICE = "NOTICE"
_CHANGES = "converted to teleopen format 1 (Zarr); what became of each field is in the episode's ledger"
_HEAD = """\
This repository holds recordings of several works. Each block below is one work, with its licence.
The full texts of the licences are in LICENSES/.
"""


@cache
def _texts() -> Mapping[str, str]:
    """Return licence texts by SPDX id.

    They are those of github.com/spdx/license-list-data, as the npm package spdx-license-list 6.12.0 carries
    them, without blanks at the ends of lines.
    """
    raw = files(__package__).joinpath("licence_texts.json").read_text(encoding="utf-8")
    texts: Mapping[str, str] = json.loads(raw)
    return texts


def has_text(id: str) -> bool:
    """Tell whether the full text of a licence is at hand."""
    return id in _texts()


def licence_files(licence: str) -> dict[str, bytes]:
    """Return the full text of each licence of an expression, by path.

    Raises
    ------
    NotFoundError
        If the text of a licence is not at hand: it cannot be passed on then.
    """
    found = {}
    for id in sorted(set(licence.split(" AND "))):
        if not has_text(id):
            raise NotFoundError(f"{id}: its text is not at hand, so what is under it cannot be published")
        found[f"LICENSES/{id}.txt"] = _texts()[id].encode()
    return found


def notice(episodes: Iterable[PublicEpisode]) -> bytes:
    """Return the NOTICE of all that is published: a block for each work and licence."""
    different = {(episode.licence, id(episode.rights)): episode for episode in episodes}
    blocks = {block for episode in different.values() for block in _blocks(episode)}
    return "\n".join((_HEAD, *sorted(blocks))).encode()


def _blocks(episode: PublicEpisode) -> Iterator[str]:
    for credit in episode.attribution or ({},):
        yield "".join(f"{line}\n" for line in _block(credit, episode))


def _block(credit: Mapping[str, Json], episode: PublicEpisode) -> Iterator[str]:
    ids = episode.licence.split(" AND ")
    rows = [LICENCES[id] for id in ids if id in LICENCES]
    title = credit.get("title") or "Untitled recordings"
    yield title + (f" ({credit['year']})" if "year" in credit else "")
    if credit.get("creators"):
        yield f"  by {', '.join(credit['creators'])}"
    if holders := _holders(episode.rights):
        yield f"  rights held by {', '.join(holders)}"
    if "cite" in credit:
        yield f"  cite as: {credit['cite']}"
    for row in rows:
        yield f"  licence: {row.id}, {row.name}, {row.url}"
    for url in _pages(episode.rights):
        yield f"  licence stated at: {url}"
    if "CHANGES" in duties(ids):
        steps = [step["op"] for step in episode.rights.get("deid", {}).get("steps", ())]
        yield "  changes: " + "; ".join([_CHANGES, *sorted(set(steps))])
    yield from (f"  {row.notice.format(title=title)}" for row in rows if row.notice)


def _holders(rights: Mapping[str, Any]) -> list[str]:
    return sorted({h["name"] for h in rights.get("holder", ()) if h["name"] != NOT_NAMED})


def _pages(rights: Mapping[str, Any]) -> list[str]:
    return sorted({s["url"] for s in rights["licence"].get("statements", ()) if "://" in s["url"]})
