"""Routes about repositories as such: who asks, create, settings, refs, history, purge, cards."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import import_module
from typing import Any
from urllib.parse import quote

from .http import Answer, RefusedError, Request, as_json
from .hub import Hub
from .licences import ALLOWED
from .repository import MAIN, Repository

Route = tuple[set[str], re.Pattern[str], Callable[..., Answer]]

NAME = r"(?P<name>[^/]+/[^/]+)"
yaml: Any = import_module("yaml")  # the client brings it, without types
_EPOCH = 1_700_000_000


def time_of(ticks: int) -> str:
    """Return a time as the API tells it; time is a count here, so that states repeat."""
    return datetime.fromtimestamp(_EPOCH + ticks, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def page(hub: Hub, request: Request, items: list[dict[str, Any]], size: int) -> Answer:
    """Return one page of items, with the address of the next one in the header that tells it."""
    start = int(request.query.get("cursor") or 0)
    link = ""
    if start + size < len(items):
        query = {**request.query, "cursor": str(start + size)}
        told = "&".join(f"{quote(key)}={quote(value)}" for key, value in query.items())
        link = f'<{hub.url}{quote(request.path)}?{told}>; rel="next"'
    answer = as_json(items[start : start + size])
    if link:
        answer.headers["Link"] = link
    return answer


def _whoami(hub: Hub, request: Request) -> Answer:
    user = hub.user(request)
    if user is None:
        raise RefusedError(401, "Invalid username or password.")
    return as_json(
        {
            "type": "user",
            "name": user.name,
            "orgs": [{"name": org, "type": "org"} for org in user.orgs],
            "auth": {"accessToken": {"displayName": "token", "role": user.role}},
        }
    )


def _create(hub: Hub, request: Request) -> Answer:
    told = request.json()
    user = hub.user(request)
    if user is None:
        raise RefusedError(401, "Invalid username or password.")
    namespace = told.get("organization") or user.name
    if not user.may_write(namespace):
        raise RefusedError(
            403, f'You don\'t have the rights to create a dataset under the namespace "{namespace}"'
        )
    name = f"{namespace}/{told['name']}"
    url = f"{hub.url}/datasets/{name}"
    if any(name.lower() == other.lower() for other in hub.repositories):
        return as_json({"error": "You already created this dataset repo", "url": url}, 409)
    found = hub.repositories[name] = Repository(name)
    _apply_settings(hub, found, told)
    return as_json({"url": url, "name": name, "id": name})


def _delete(hub: Hub, request: Request) -> Answer:
    told = request.json()
    user = hub.user(request)
    name = f"{told.get('organization') or (user.name if user else '')}/{told['name']}"
    del hub.repositories[hub.writable(request, name).id]
    return as_json({})


def _settings(hub: Hub, request: Request, name: str) -> Answer:
    _apply_settings(hub, hub.writable(request, name), request.json())
    return as_json({})


def _apply_settings(hub: Hub, found: Repository, told: dict[str, Any]) -> None:
    gated = told.get("gated", found.gated)
    if gated not in {"auto", "manual", False}:
        raise RefusedError(400, f"gated: {gated!r} is none of auto, manual, false")
    if hub.heeds_settings:
        found.private = (
            told.get("visibility") == "private"
            if "visibility" in told
            else bool(told.get("private", found.private))
        )
        found.gated = gated


def _info(hub: Hub, request: Request, name: str, revision: str = "main") -> Answer:
    found = hub.repository(request, name)
    commit = found.resolve(revision)
    siblings: list[dict[str, Any]] = [{"rfilename": path} for path in sorted(commit.files)]
    if request.flag("blobs"):
        for sibling in siblings:
            file = commit.files[sibling["rfilename"]]
            sibling |= {"size": file.size, "blobId": file.blob}
            if file.lfs:
                sibling["lfs"] = {"sha256": file.lfs, "size": file.size, "pointerSize": 133}
    return as_json(
        {
            "_id": "0" * 24,
            "id": found.id,
            "author": found.id.partition("/")[0],
            "sha": commit.id,
            "private": found.private,
            "gated": found.gated,
            "disabled": False,
            "tags": [],
            "downloads": 0,
            "likes": 0,
            "lastModified": time_of(commit.time),
            "createdAt": time_of(0),
            "usedStorage": found.used_bytes,
            "cardData": _card(found.text(commit, "README.md")) or None,
            "siblings": siblings,
        }
    )


def _card(text: str) -> dict[str, Any]:
    found = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    told = yaml.safe_load(found[1]) if found else {}
    return told if isinstance(told, dict) else {}


def _auth_check(hub: Hub, request: Request, name: str) -> Answer:
    hub.readable(request, name)
    return as_json({})


def _auth_check_write(hub: Hub, request: Request, name: str) -> Answer:
    hub.writable(request, name)
    return as_json({})


_GROUPS = {"heads": "branches", "tags": "tags", "convert": "converts", "pr": "pullRequests"}


def _refs(hub: Hub, request: Request, name: str) -> Answer:
    found = hub.repository(request, name)
    told: dict[str, list[dict[str, str]]] = {group: [] for group in _GROUPS.values()}
    for ref, commit in sorted(found.refs.items()):
        _, kind, short = ref.split("/", 2)
        told[_GROUPS[kind]].append({"name": short, "ref": ref, "targetCommit": commit})
    if not request.flag("include_prs"):
        del told["pullRequests"]
    return as_json(told)


def _tag(hub: Hub, request: Request, name: str, revision: str) -> Answer:
    found = hub.writable(request, name)
    if request.method == "DELETE":
        if found.refs.pop(f"refs/tags/{revision}", None) is None:
            raise RefusedError(404, f"Tag {revision} doesn't exist", "RevisionNotFound")
        return as_json({})
    ref = f"refs/tags/{request.json()['tag']}"
    if ref in found.refs:
        raise RefusedError(409, f"Tag reference exists already: {ref}")
    found.refs[ref] = found.resolve(revision).id
    return as_json({})


def _branch(hub: Hub, request: Request, name: str, branch: str) -> Answer:
    found = hub.writable(request, name)
    ref = f"refs/heads/{branch}"
    if request.method == "DELETE":
        if ref == MAIN:
            raise RefusedError(403, "the main branch cannot be deleted")
        if found.refs.pop(ref, None) is None:
            raise RefusedError(404, f"Branch {branch} doesn't exist", "RevisionNotFound")
        return as_json({})
    if ref in found.refs:
        raise RefusedError(409, f"Reference already exists: {ref}")
    found.refs[ref] = found.resolve(request.json().get("startingPoint", "main")).id
    return as_json({})


def _commits(hub: Hub, request: Request, name: str, revision: str) -> Answer:
    found = hub.repository(request, name)
    told = [
        {
            "id": commit.id,
            "title": commit.title,
            "message": commit.message,
            "date": time_of(commit.time),
            "authors": [{"user": commit.author}],
        }
        for commit in found.history(found.resolve(revision))
    ]
    return page(hub, request, told, 50)


def _squash(hub: Hub, request: Request, name: str, branch: str) -> Answer:
    hub.writable(request, name).squash(branch, request.json().get("message") or "squashed")
    return as_json({})


def _lfs_files(hub: Hub, request: Request, name: str) -> Answer:
    found = hub.writable(request, name)
    paths = {
        file.lfs: path for commit in found.reachable() for path, file in commit.files.items() if file.lfs
    }
    told = [
        {
            "fileOid": sha256,
            "filename": paths.get(sha256, ""),
            "oid": sha256[:40],
            "pushedAt": time_of(0),
            "ref": "main" if sha256 in paths else None,
            "size": len(data),
        }
        for sha256, data in sorted(found.lfs.items())
    ]
    return page(hub, request, told, hub.page)


def _purge(hub: Hub, request: Request, name: str) -> Answer:
    told = request.json()["deletions"]
    if len(told["sha"]) > 1000:
        raise RefusedError(413, "Payload Too Large: at most 1000 at a time")
    hub.writable(request, name).purge(set(told["sha"]), rewrite=bool(told.get("rewriteHistory")))
    return as_json({"success": True})


def _validate_yaml(_hub: Hub, request: Request) -> Answer:
    try:
        card = _card(request.json()["content"])
    except yaml.YAMLError as error:
        return as_json({"errors": [{"message": f"YAML: {error}"}], "warnings": []}, 400)
    told = card.get("license", [])
    wrong = [one for one in (told if isinstance(told, list) else [told]) if one not in ALLOWED]
    if wrong:
        why = f'"license" with value "{wrong[0]}" does not match any of the allowed types'
        return as_json({"errors": [{"message": why}], "warnings": []}, 400)
    warnings = [] if card else [{"message": "empty or missing yaml metadata in repo card"}]
    return as_json({"errors": [], "warnings": warnings})


def route(methods: str, pattern: str, function: Callable[..., Answer]) -> Route:
    return set(methods.split()), re.compile(pattern), function


API = rf"/api/datasets/{NAME}"
ROUTES: tuple[Route, ...] = (
    route("GET", "/api/whoami-v2", _whoami),
    route("POST", "/api/repos/create", _create),
    route("DELETE", "/api/repos/delete", _delete),
    route("POST", "/api/validate-yaml", _validate_yaml),
    route("GET", rf"{API}/auth-check", _auth_check),
    route("GET", rf"{API}/auth-check/write", _auth_check_write),
    route("PUT", rf"{API}/settings", _settings),
    route("GET", rf"{API}/refs", _refs),
    route("POST DELETE", rf"{API}/tag/(?P<revision>.+)", _tag),
    route("POST DELETE", rf"{API}/branch/(?P<branch>.+)", _branch),
    route("GET", rf"{API}/commits/(?P<revision>.+)", _commits),
    route("POST", rf"{API}/super-squash/(?P<branch>.+)", _squash),
    route("GET", rf"{API}/lfs-files", _lfs_files),
    route("POST", rf"{API}/lfs-files/batch", _purge),
    route("GET", rf"{API}/revision/(?P<revision>.+)", _info),
    route("GET", API, _info),
)
