"""The state of a Hub: who there is, which repositories, and what it is willing to do."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from .faults import Faults
from .http import RefusedError, Request
from .record import Record
from .repository import Limits, Repository

TOKEN = "hf_token_of_a_lab"
STRANGER = "hf_token_of_a_stranger"
READER = "hf_token_that_may_only_read"


@dataclass(frozen=True, slots=True)
class User:
    """Whom a token belongs to, and what it may do in which namespaces."""

    name: str
    role: Literal["read", "write"] = "write"
    orgs: tuple[str, ...] = ()

    def may_write(self, namespace: str) -> bool:
        """Tell whether the token may change what lies in a namespace."""
        return self.role == "write" and namespace in {self.name, *self.orgs}

    def belongs_to(self, namespace: str) -> bool:
        """Tell whether the user may see private things of a namespace."""
        return namespace in {self.name, *self.orgs}


def _users() -> dict[str, User]:
    return {
        TOKEN: User("ada", orgs=("lab",)),
        READER: User("ada", role="read", orgs=("lab",)),
        STRANGER: User("eve"),
    }


@dataclass(slots=True)
class Hub:
    """A Hub. One lock serialises all requests, so each is atomic.

    Attributes
    ----------
    url
        The endpoint.
    checks_parent, heeds_settings
        False makes it the kind of server that accepts a stale parent, or says yes to settings and does not
        keep them.
    page
        Entries of a page of a tree.
    part_bytes
        Size from which, and parts in which, LFS objects are uploaded by parts.
    verifies
        Whether LFS uploads end with a verify action.
    rate
        Requests that are left before 429; None: no end.
    """

    url: str = ""
    cdn: str = ""
    users: Mapping[str, User] = field(default_factory=_users)
    repositories: dict[str, Repository] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    checks_parent: bool = True
    heeds_settings: bool = True
    page: int = 1000
    part_bytes: int = 5 << 20
    verifies: bool = True
    rate: int | None = None
    record: Record = field(default_factory=Record)
    faults: Faults = field(default_factory=Faults)
    parts: dict[tuple[str, str], dict[int, bytes]] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def user(self, request: Request) -> User | None:
        """Return who asks; None: nobody in particular."""
        told = request.headers.get("authorization", "")
        if not told:
            return None
        user = self.users.get(told.removeprefix("Bearer "))
        if user is None:
            raise RefusedError(401, "Invalid credentials in Authorization header")
        return user

    def repository(self, request: Request, name: str) -> Repository:
        """Return a repository that the request may see the outside of."""
        user = self.user(request)
        found = self.repositories.get(name)
        if found is None:
            folded = next((r for key, r in self.repositories.items() if key.lower() == name.lower()), None)
            if folded is not None:
                where = request.path.replace(name, folded.id, 1)
                raise RefusedError(307, "moved", headers={"Location": request.base + where})
        if found is None or (found.private and not (user and user.belongs_to(name.partition("/")[0]))):
            # To a stranger a private repository is not there.
            status = 404 if user else 401
            raise RefusedError(status, "Repository not found", "RepoNotFound")
        return found

    def readable(self, request: Request, name: str) -> Repository:
        """Return a repository whose files the request may read."""
        found = self.repository(request, name)
        user = self.user(request)
        if found.gated and not (
            user and (user.belongs_to(name.partition("/")[0]) or user.name in found.allowed)
        ):
            why = f"Access to dataset {name} is restricted."
            raise RefusedError(403 if user else 401, why, "GatedRepo")
        return found

    def writable(self, request: Request, name: str) -> Repository:
        """Return a repository that the request may change."""
        found = self.repository(request, name)
        user = self.user(request)
        if user is None:
            raise RefusedError(401, "Invalid username or password.")
        if not user.may_write(name.partition("/")[0]):
            raise RefusedError(403, f"Forbidden: you don't have the rights to write to {name}")
        return found

    def reset(self) -> None:
        """Empty it, for the next test."""
        self.repositories.clear()
        self.parts.clear()
        self.faults.clear()
        self.record.clear()
        self.limits, self.rate, self.page = Limits(), None, 1000
        self.checks_parent = self.heeds_settings = self.verifies = True
        self.part_bytes = 5 << 20
