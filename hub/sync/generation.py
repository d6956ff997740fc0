"""The states of a mirror: the list of each, and where the bytes of a file lie. See `mirror_target`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from ...schemas import DamageError, NotFoundError, SchemaError, StoreError, from_document
from ...schemas.episode import Count, Digest
from ..log import File, Line, SegmentId, Time, unsealed
from ..storage import Storage, safe_key
from .bounds import document_or_none
from .tree import Blob, is_data

FOLDER = "generations"
HEAD = f"{FOLDER}/head.json"
MARK = f"{FOLDER}/format.json"
OBJECTS = "objects"
REVOCATIONS = "revocations.json"
KEPT = 16
"""Generations whose lists stay."""

_BLOCK = 8 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """One state of a mirror, as its list tells it.

    Attributes
    ----------
    number
        Counted from 1.
    previous
        SHA-256 of the list before.
    id
        Random, so that a publisher whose answer was lost knows its own.
    version, plan
        Of the public log, and the digest of the plan.
    files
        Every file of the tree by path.
    """

    number: Count
    previous: Digest | None
    id: SegmentId
    version: Count
    plan: Digest
    time: Time
    tool: Line
    files: Mapping[str, File]


@dataclass(frozen=True, slots=True)
class Found:
    """A generation that was read, and the SHA-256 of its bytes."""

    generation: Generation
    sha256: str

    @property
    def base(self) -> str:
        """Its name as the base of a plan."""
        return f"{self.generation.number:08d}-{self.sha256[:16]}"


def list_key(number: int) -> str:
    """Return where the list of a generation lies."""
    return f"{FOLDER}/{number:08d}.json"


def file_key(path: str, digest: str) -> str:
    """Return where the bytes of a file of the tree lie."""
    return path if is_data(path) else f"{OBJECTS}/{digest[:2]}/{digest}"


def keys_of(files: Mapping[str, File]) -> set[str]:
    """Return where the bytes of files lie."""
    return {file_key(path, file.sha256) for path, file in files.items()}


def data_there(storage: Storage, blobs: Sequence[Blob]) -> set[str]:
    """Return which data lies there already: one question for each segment."""
    segments = {"/".join(blob.path.split("/")[:2]) for blob in blobs if is_data(blob.path)}
    return {key for segment in sorted(segments) for key in storage.keys(segment)}


def holds(storage: Storage, key: str, told: File) -> bool:
    """Tell whether an object holds certain bytes."""
    try:
        if storage.size(key) != told.size:
            return False
        digest = sha256()
        for start in range(0, told.size, _BLOCK):
            digest.update(storage.read(key, start, min(told.size, start + _BLOCK)))
    except NotFoundError:
        return False
    return digest.hexdigest() == told.sha256


def read_list(storage: Storage, number: int) -> Found | None:
    """Return a generation, or None if there is none of that number.

    Raises
    ------
    DamageError
        If it is not what was written.
    """
    raw = document_or_none(storage, list_key(number))
    if raw is None:
        return None
    place = f"{storage.url}/{list_key(number)}"
    try:
        generation = from_document(Generation, unsealed(raw, place))
        for path in generation.files:
            safe_key(path)
    except (SchemaError, StoreError) as error:
        if isinstance(error, DamageError):
            raise
        raise DamageError(place, str(error)) from error
    if generation.number != number:
        raise DamageError(place, f"is the list of generation {generation.number}")
    return Found(generation, sha256(raw).hexdigest())
