"""A dataset of the Hugging Face Hub as a store to read: one commit of it, by ranges, without a copy.

``hf://datasets/org/name``, with ``@branch``, ``@tag`` or ``@commit`` and a folder behind it if wanted. The
revision is resolved to a commit once, and the storage's URL names that commit: whoever opens it again, in
another process too, reads the same bytes. Files are at ``/datasets/<name>/resolve/<commit>/<path>`` of the
endpoint (huggingface_hub: src/huggingface_hub/constants.py, HUGGINGFACE_CO_URL_TEMPLATE), which sends on to a
content network for large ones. The token goes to the endpoint alone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from urllib.parse import quote, unquote, urlsplit

from ..schemas import NotFoundError, StoreError
from .storage import safe_key
from .web import WebStorage

_URL = re.compile(
    r"hf://datasets/(?P<name>[\w.-]+/[\w.-]+)"
    r"(?:@(?P<revision>refs/(?:convert|pr)/[\w.-]+|[^/@]+))?(?:/(?P<folder>.+))?"
)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_TARGET_S = 300.0
"""How long a place in the content network is gone back to; links to it that ran out are asked for anew."""


class HubStorage(WebStorage):
    """A commit of a dataset. Make one with `open_storage`.

    Raises
    ------
    StoreError
        If the URL is none of a dataset, or the Hub refuses or fails.
    NotFoundError
        If there is no such dataset or revision, or not for this token.
    """

    def __init__(self, url: str) -> None:
        from huggingface_hub import constants, get_token

        told = _URL.fullmatch(url.rstrip("/"))
        if told is None:
            raise StoreError(url, "is no dataset of the Hub; give hf://datasets/org/name or ...name@revision")
        self._endpoint = (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")
        self._token, self._name = get_token(), told["name"]
        folder = f"/{safe_key(told['folder'])}" if told["folder"] else ""
        revision = unquote(told["revision"] or constants.DEFAULT_REVISION)
        commit = revision if _COMMIT.fullmatch(revision) else self._commit(revision)
        super().__init__(f"hf://datasets/{self._name}@{commit}{folder}")
        self._root = f"{self._endpoint}/datasets/{self._name}/resolve/{commit}{quote(folder)}"

    def _commit(self, revision: str) -> str:
        from .sync.hub_client import call, connect

        api = connect(self._endpoint, self._token)
        place = f"hf://datasets/{self._name}@{revision}"
        return str(call(place, api.dataset_info, self._name, revision=revision, expand=["sha"]).sha)

    def address(self, key: str) -> str:
        return f"{self._root}/{quote(safe_key(key))}"

    def headers(self, url: str) -> Mapping[str, str]:
        ours = self._token and _origin(url) == _origin(self._endpoint)
        return {"Authorization": f"Bearer {self._token}"} if ours else {}

    def target_s(self, url: str) -> float:
        return _TARGET_S if _origin(url) == _origin(self._endpoint) else 0.0

    def refusal(self, key: str, status: int, headers: Mapping[str, str]) -> StoreError | NotFoundError:
        code = headers.get("X-Error-Code", "")
        page = f"{self._endpoint}/datasets/{self._name}"
        if code == "GatedRepo":
            why = f"is gated: ask for access at {page}, and log in with `hf auth login`"
        elif status == 401 or code == "RepoNotFound":
            why = (
                f"{page} is not there, or not for this token: check the name, and log in with `hf auth login`"
            )
        elif code == "RevisionNotFound":
            why = "the dataset has no such revision"
        else:
            return super().refusal(key, status, headers)
        return StoreError(self.url, why)


def _origin(url: str) -> tuple[str, str | None, int]:
    """Return scheme, host and port: what a secret is bound to (RFC 6454)."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
