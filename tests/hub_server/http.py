"""What a request holds, what an answer holds, and how a request is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs


@dataclass(frozen=True, slots=True)
class Request:
    """A request: method, unquoted path, query, headers in lower case, body, and the server's own address."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    base: str

    def json(self) -> Any:
        """Return the body's JSON."""
        try:
            return json.loads(self.body or b"{}")
        except ValueError:
            raise RefusedError(400, "the body is no JSON") from None

    def form(self) -> dict[str, list[str]]:
        """Return the body's form fields."""
        return parse_qs(self.body.decode(), keep_blank_values=True)

    def flag(self, name: str) -> bool:
        """Return a flag of the query."""
        return self.query.get(name, "").lower() in {"1", "true"}


@dataclass(slots=True)
class Answer:
    """An answer: status, headers, body."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


def as_json(value: Any, status: int = 200, **headers: str) -> Answer:
    """Return an answer of JSON."""
    told = {name.replace("_", "-"): text for name, text in headers.items()}
    return Answer(status, json.dumps(value).encode(), {"Content-Type": "application/json", **told})


class RefusedError(Exception):
    """The server says no: a status, why, and the code by which the client tells its errors apart."""

    def __init__(
        self, status: int, why: str, code: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(why)
        self.status, self.why, self.code, self.headers = status, why, code, dict(headers or {})

    def answer(self) -> Answer:
        """Return it as an answer."""
        headers = {"X-Error-Message": self.why, **self.headers}
        if self.code:
            headers["X-Error-Code"] = self.code
        return as_json({"error": self.why}, self.status, **headers)
