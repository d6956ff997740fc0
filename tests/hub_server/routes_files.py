"""Routes about files: what is there, download, preupload, LFS, commit."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import Any
from urllib.parse import quote

from .git import Commit, pointer
from .http import Answer, RefusedError, Request, as_json
from .hub import Hub
from .patterns import is_ignored, is_lfs
from .repository import Repository, check_path
from .routes_repo import API, NAME, Route, page, route, time_of

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_MOST_PATHS = 1000


# ---------------------------------------------------------------- listing


def _tree(hub: Hub, request: Request, name: str, revision: str, path: str = "") -> Answer:
    found = hub.repository(request, name)
    commit = found.resolve(revision)
    if path and path not in commit.folders:
        raise RefusedError(404, f"{path} does not exist on {revision}", "EntryNotFound")
    below = f"{path}/" if path else ""
    expand, recursive = request.flag("expand"), request.flag("recursive")
    entries = [
        _entry(commit, entry, expand=expand)
        for entry in sorted([*commit.files, *(folder for folder in commit.folders if folder)])
        if entry.startswith(below) and (recursive or "/" not in entry[len(below) :])
    ]
    return page(hub, request, entries, min(hub.page, 50) if expand else hub.page)


def _entry(commit: Commit, path: str, *, expand: bool) -> dict[str, Any]:
    file = commit.files.get(path)
    told: dict[str, Any] = {"type": "directory", "oid": commit.folders.get(path), "size": 0, "path": path}
    if file:
        told |= {"type": "file", "oid": file.blob, "size": file.size}
        if file.lfs:
            size = len(pointer(file.lfs, file.size))
            told["lfs"] = {"oid": file.lfs, "size": file.size, "pointerSize": size}
    if expand:
        told["lastCommit"] = {"id": commit.id, "title": commit.title, "date": time_of(commit.time)}
    return told


def _paths_info(hub: Hub, request: Request, name: str, revision: str) -> Answer:
    commit = hub.repository(request, name).resolve(revision)
    form = request.form() if "form" in request.headers.get("content-type", "") else request.json()
    paths = [path.rstrip("/") for path in form.get("paths", [])]
    if len(paths) > _MOST_PATHS:
        raise RefusedError(413, "too many parameters")
    expand = str(form.get("expand", [""])[0]).lower() == "true" if isinstance(form, dict) else False
    there = [path for path in paths if path in commit.files or (path and path in commit.folders)]
    return as_json([_entry(commit, path, expand=expand) for path in there])


# ---------------------------------------------------------------- download


def _resolve(hub: Hub, request: Request, name: str, revision: str, path: str) -> Answer:
    found = hub.readable(request, name)
    commit = found.resolve(revision)
    file = found.file(commit, path)
    headers = {"X-Repo-Commit": commit.id, "ETag": f'"{file.etag}"', "Accept-Ranges": "bytes"}
    if file.lfs is None:
        return _ranged(request, found.content(file), headers)
    headers |= {
        "X-Linked-Size": str(file.size),
        "X-Linked-ETag": f'"{file.lfs}"',
        "Location": f"{hub.cdn}/cdn/{quote(found.id)}/{file.lfs}",
    }
    return Answer(302, b"", headers)


def _cdn(hub: Hub, request: Request, name: str, sha256: str) -> Answer:
    if "authorization" in request.headers:
        raise RefusedError(400, "a token was sent to the content network")
    data = hub.repositories[name].lfs.get(sha256) if name in hub.repositories else None
    if data is None:
        raise RefusedError(404, "no such object")
    return _ranged(request, data, {"ETag": f'"{sha256}"', "Accept-Ranges": "bytes"})


def _ranged(request: Request, data: bytes, headers: dict[str, str]) -> Answer:
    """Return the bytes that a Range header asks for. Source: RFC 9110, section 14."""
    told = _RANGE.fullmatch(request.headers.get("range", ""))
    if not told or told.group(0) == "bytes=-":
        return Answer(200, data, headers)
    first, last = told.groups()
    start = int(first) if first else max(0, len(data) - int(last))
    stop = min(len(data), int(last) + 1 if first and last else len(data))
    if start >= len(data):
        return Answer(416, b"", {**headers, "Content-Range": f"bytes */{len(data)}"})
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
    return Answer(206, data[start:stop], headers)


# ---------------------------------------------------------------- upload


def _preupload(hub: Hub, request: Request, name: str, revision: str) -> Answer:
    found = hub.writable(request, name)
    commit = found.resolve(revision)
    told = request.json()
    attributes = found.text(commit, ".gitattributes")
    ignore = told.get("gitIgnore", found.text(commit, ".gitignore"))
    answers = []
    for file in told["files"]:
        check_path(file["path"])
        sample = base64.b64decode(file["sample"])
        # The Hub's rule for binary samples is not documented; git's own is a zero byte.
        lfs = is_lfs(attributes, file["path"]) or file["size"] > hub.limits.regular_bytes or b"\0" in sample
        there = commit.files.get(file["path"])
        answers.append(
            {
                "path": file["path"],
                "uploadMode": "lfs" if lfs else "regular",
                "shouldIgnore": is_ignored(ignore, file["path"]),
                "oid": there.etag if there else None,
            }
        )
    return as_json({"files": answers})


def _batch(hub: Hub, request: Request, name: str) -> Answer:
    found = hub.writable(request, name)
    told = request.json()
    if told["operation"] != "upload" or told.get("hash_algo") != "sha256":
        raise RefusedError(400, "only uploads by sha256")
    coming = sum(one["size"] for one in told["objects"] if one["oid"] not in found.lfs)
    quota = hub.limits.quota_bytes
    if quota is not None and found.used_bytes + coming > quota:
        raise RefusedError(403, "Storage limit reached: the namespace has no space left")
    return as_json({"transfer": "basic", "objects": [_actions(hub, found, one) for one in told["objects"]]})


def _actions(hub: Hub, found: Repository, one: dict[str, Any]) -> dict[str, Any]:
    told: dict[str, Any] = {"oid": one["oid"], "size": one["size"]}
    if one["oid"] in found.lfs:
        return told
    upload: dict[str, Any] = {"href": f"{hub.cdn}/lfs/{quote(found.id)}/{one['oid']}"}
    if one["size"] >= hub.part_bytes:
        count = -(-one["size"] // hub.part_bytes)
        upload["header"] = {"chunk_size": str(hub.part_bytes)} | {
            str(n): f"{upload['href']}/{n}" for n in range(1, count + 1)
        }
        upload["href"] = f"{hub.url}/lfs-complete/{quote(found.id)}/{one['oid']}"
    told["actions"] = {"upload": upload}
    if hub.verifies:
        told["actions"]["verify"] = {"href": f"{hub.url}/lfs-verify/{quote(found.id)}/{one['oid']}"}
    return told


def _put(hub: Hub, request: Request, name: str, sha256: str, part: str = "") -> Answer:
    if part:
        hub.parts.setdefault((name, sha256), {})[int(part)] = request.body
    else:
        hub.repositories[name].put_lfs(sha256, request.body)
    return Answer(200, b"", {"ETag": f'"{hashlib.md5(request.body, usedforsecurity=False).hexdigest()}"'})


def _complete(hub: Hub, request: Request, name: str, sha256: str) -> Answer:
    parts = hub.parts.get((name, sha256), {})
    for told in request.json()["parts"]:
        data = parts.get(told["partNumber"], b"")
        if told["etag"].strip('"') != hashlib.md5(data, usedforsecurity=False).hexdigest():
            raise RefusedError(400, f"InvalidPart: {told['partNumber']}")
    hub.repositories[name].put_lfs(sha256, b"".join(parts[number] for number in sorted(parts)))
    return as_json({})


def _verify(hub: Hub, request: Request, name: str, sha256: str) -> Answer:
    data = hub.writable(request, name).lfs.get(sha256)
    if data is None or len(data) != request.json()["size"]:
        raise RefusedError(404, "the object is not there")
    return as_json({})


def _commit(hub: Hub, request: Request, name: str, revision: str) -> Answer:
    found = hub.writable(request, name)
    user = hub.user(request)
    assert user is not None
    try:
        lines = [json.loads(line) for line in request.body.splitlines() if line.strip()]
    except ValueError:
        raise RefusedError(400, "the body is no NDJSON") from None
    parent = next((line["value"].get("parentCommit") for line in lines if line["key"] == "header"), None)
    ref = f"refs/heads/{revision}"
    if ref not in found.refs:
        raise RefusedError(404, f"no branch {revision}", "RevisionNotFound")
    if hub.checks_parent and parent is not None and parent != found.refs[ref]:
        raise RefusedError(412, "A commit has happened since. Please refresh and try again.")
    told: dict[str, Any] = {}
    if request.flag("create_pr"):
        number = 1 + sum(other.startswith("refs/pr/") for other in found.refs)
        found.refs[f"refs/pr/{number}"] = found.refs[ref]
        ref = f"refs/pr/{number}"
        told["pullRequestUrl"] = f"{hub.url}/datasets/{name}/discussions/{number}"
    made = found.commit(ref, lines, hub.limits, user.name)
    told |= {
        "success": True,
        "commitOid": made.id,
        "commitUrl": f"{hub.url}/datasets/{name}/commit/{made.id}",
    }
    return as_json(told)


_SHA = r"(?P<sha256>[0-9a-f]{64})"
_REV = r"(?P<revision>refs/[^/]+/[^/]+|[^/]+)"
ROUTES: tuple[Route, ...] = (
    route("GET", rf"{API}/tree/{_REV}(?:/(?P<path>.+))?", _tree),
    route("POST", rf"{API}/paths-info/{_REV}", _paths_info),
    route("GET HEAD", rf"/datasets/{NAME}/resolve/{_REV}/(?P<path>.+)", _resolve),
    route("GET HEAD", rf"/cdn/{NAME}/{_SHA}", _cdn),
    route("POST", rf"{API}/preupload/{_REV}", _preupload),
    route("POST", rf"/datasets/{NAME}\.git/info/lfs/objects/batch", _batch),
    route("PUT", rf"/lfs/{NAME}/{_SHA}(?:/(?P<part>\d+))?", _put),
    route("POST", rf"/lfs-complete/{NAME}/{_SHA}", _complete),
    route("POST", rf"/lfs-verify/{NAME}/{_SHA}", _verify),
    route("POST", rf"{API}/commit/{_REV}", _commit),
)
