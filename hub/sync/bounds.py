"""How much of what lies at a target is read at once: its owner may be anybody.

Documents (log, manifest, lists, metadata of segments) are read whole, so they have a bound. It is held
against what the place says of their sizes before anything is fetched, and against what comes. Samples are
read in parts.
"""

from __future__ import annotations

from ...schemas import DamageError, NotFoundError
from ..storage import Storage

DOCUMENT_BYTES = 64 << 20
"""Most bytes of a document: the log and the manifest of 100,000 episodes have 16 and 27 million."""
_MOST_NESTS = 8
_SMALL = 1 << 20


def check_size(place: str, size: int) -> None:
    """Raise `DamageError` if a document is larger than any that is read from a target."""
    if size > DOCUMENT_BYTES:
        why = f"has {size:,} bytes or more; of a target, documents of at most {DOCUMENT_BYTES:,} are read"
        raise DamageError(place, why)


def checked_document(place: str, raw: bytes) -> bytes:
    """Return the bytes of a document, or raise `DamageError` if they would fill the memory once parsed."""
    check_size(place, len(raw))
    # Empty lists take forty times their text; what is published has a bracket in a hundred characters.
    nests = raw.count(b"[") + raw.count(b"{") if len(raw) > _SMALL and place.endswith(".json") else 0
    if nests * _MOST_NESTS > len(raw):
        raise DamageError(place, "is made of brackets more than of anything else")
    return raw


def document_or_none(storage: Storage, key: str) -> bytes | None:
    """Return a document of a target, or None if it is absent; `DamageError` if it is too large."""
    try:
        raw = storage.read(key, 0, DOCUMENT_BYTES + 1)
    except NotFoundError:
        return None
    return checked_document(f"{storage.url}/{key}", raw)
