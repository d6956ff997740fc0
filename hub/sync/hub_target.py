"""A dataset repository of the Hugging Face Hub, or of a server that speaks its API, as a target.

The switch is one commit that names its parent. What surrounds it rests on how the client and the server
behave (docs/publish.md has the list with sources):

- ``.gitattributes`` gets a commit of its own before any data, since the server looks at the one that is there
  *before* a commit; without it files would become plain git blobs, which can never be deleted for good.
- The client sends path, size and first bytes of every file before a commit, so nothing is told to it that was
  not decided to be public; and it drops in silence what a remote ``.gitignore`` names, which is overruled.
- A commit whose answer is lost may have been made. The head's manifest tells; nothing is sent again blindly.
- Not every server that speaks the API refuses a stale parent, or keeps the settings that it said yes to. Both
  are tried out and read back.
- A new repository is private until what is in it was checked from outside.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
import uuid
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import count, islice
from pathlib import Path
from typing import Any, Literal

from ...schemas import DamageError, NotFoundError, StoreError
from .. import disk
from ..verify import Finding
from . import hub_client
from .audit_refs import RefReport, look_at_refs
from .hub_client import as_ours, call, connect, described, is_passing, pause, status_of
from .hub_files import ATTRIBUTES, REPO_TYPE, Cache, Entry, Reader, check_bytes, git_id
from .plan import Plan
from .planning import GIT_ATTRIBUTES
from .public_log import read_public
from .target import Progress, Purged, StaleError, silent
from .tree import EMPTY, MANIFEST, Blob, PublicState, Tombstone, is_data

COMMIT_FILES = 10_000
"""Most data files of the switching commit; what is more goes ahead of it. The Hub takes 25,000 (its docs)."""

_BATCH = 256
_NO_COMMIT = "0" * 40
_TITLE = re.compile(r"Publish version (\d+): ")
_URL = re.compile(r"hf://datasets/([\w.-]+/[\w.-]+?)(?:@([\w./-]+))?/?")
_CONFLICT, _STALE = 409, 412

Gated = Literal["auto", "manual", False]


class HubTarget:
    """A dataset repository.

    Parameters
    ----------
    url
        ``hf://datasets/org/name`` or ``hf://datasets/org/name@branch``.
    private, gated
        How open it is to be. A repository that exists must be so already.
    endpoint, token
        See `hub_client.connect`.
    single_writer
        Publish even if the server does not refuse stale parents: the caller promises to be alone.
    cache
        Folder for small files that were read, and for what is known of servers.
    """

    def __init__(
        self,
        url: str,
        *,
        private: bool = False,
        gated: Gated = False,
        endpoint: str | None = None,
        token: str | None = None,
        single_writer: bool = False,
        cache: Path | None = None,
    ) -> None:
        found = _URL.fullmatch(url)
        if not found:
            raise StoreError(url, "is no dataset of the Hub; give hf://datasets/org/name or ...name@branch")
        self.url = url
        self.repository, self.branch = found[1], found[2] or "main"
        self._private, self._gated, self._alone = private, gated, single_writer
        self._api = connect(endpoint, token)
        self._cache = Cache(cache)
        self._reader = Reader(self._api, self.repository, self._cache)
        self._operations: dict[tuple[str, str], Any] = {}
        self._staging: Path | None = None

    # ------------------------------------------------------------ looking

    def look(self, revision: str | None = None) -> PublicState:
        info = self._reader.info(revision or self.branch)
        if info is None:
            if revision is not None:
                raise NotFoundError(f"{self.url} is not there, or not for this token")
            return EMPTY
        entries = self._reader.entries(info.sha)
        files = self._reader.files(info.sha, entries)
        return read_public(self._reader.snapshot(info.sha, entries, files), info.sha, files)

    def refs(self, state: PublicState) -> tuple[list[RefReport], list[Finding], list[str]]:
        """Return what branches and tags hold, what is wrong there, and data there that nothing claims."""
        return look_at_refs(self._api, self._reader, state)

    def probe(self, state: PublicState, paths: Sequence[str]) -> None:
        if state.base is None:
            raise NotFoundError(f"{self.url}: nothing was published there")
        info = self._info()
        entries = self._reader.entries(state.base)
        is_open = not info.private and not info.gated
        reader = Reader(self._as_stranger(), self.repository, self._cache) if is_open else self._reader
        check_bytes(reader, state.base, entries, paths)
        if not is_open:
            self._check_closed(state.base, entries, paths)

    def _as_stranger(self) -> Any:
        from huggingface_hub import HfApi

        return HfApi(endpoint=self._api.endpoint, token=False, library_name="teleopen")

    def _check_closed(self, commit: str, entries: Mapping[str, Entry], paths: Sequence[str]) -> None:
        stranger = Reader(self._as_stranger(), self.repository, self._cache)
        for path in paths[:1]:
            try:
                stranger.get(commit, path, 0, entries[path].size, entries[path].size)
            except NotFoundError:
                continue
            except StoreError as error:
                if status_of(error.__cause__) in {401, 403}:
                    continue
                raise
            raise StoreError(self.url, f"is to be closed to strangers, yet anyone can read {path}")

    def _info(self) -> Any:
        info = self._reader.info(self.branch)
        if info is None:
            raise NotFoundError(f"{self.url} is not there, or not for this token")
        return info

    # ------------------------------------------------------------ preparing

    def prepare(self) -> None:
        if not self._api.token:
            why = "publishing needs a token; log in with `hf auth login`, or set HF_TOKEN"
            raise StoreError(self.url, why)
        info = self._reader.info(self.branch) or self._create()
        self._check_settings(info)
        for attempt in range(hub_client.TRIES):
            entry = self._reader.entries(info.sha).get(ATTRIBUTES)
            if entry is not None and entry.blob == git_id(GIT_ATTRIBUTES):
                break
            with suppress(StaleError):  # another publisher was faster, and may have done it
                self._commit(
                    info.sha, [self._operation(Blob.of(ATTRIBUTES, GIT_ATTRIBUTES))], "Prepare for publishing"
                )
            pause(attempt)
            info = self._info()
        else:
            raise StoreError(
                self.url, f"{ATTRIBUTES} is not what was committed; does another program write it?"
            )
        self._check_locking()

    def _create(self) -> Any:
        """Make the repository: private, then gated, then read back; whoever makes it public comes later."""
        try:
            self._api.create_repo(self.repository, repo_type=REPO_TYPE, visibility="private")
        except Exception as error:
            # If the answer was lost, or another publisher was faster, it is there.
            if status_of(error) != _CONFLICT and not is_passing(error):
                raise as_ours(self.url, error) from error
            pause(0, error)
            if status_of(error) != _CONFLICT and self._reader.info("main") is None:
                call(self.url, self._create_again)
        if self._gated:
            call(
                self.url,
                self._api.update_repo_settings,
                self.repository,
                gated=self._gated,
                repo_type=REPO_TYPE,
            )
        if self.branch != "main":
            call(
                self.url,
                self._api.create_branch,
                self.repository,
                branch=self.branch,
                repo_type=REPO_TYPE,
                exist_ok=True,
            )
        return self._info()

    def _create_again(self) -> None:
        self._api.create_repo(self.repository, repo_type=REPO_TYPE, visibility="private", exist_ok=True)

    def _check_settings(self, info: Any, names: Mapping[str, str] | None = None) -> None:
        told = f"planned are private={self._private}, gated={self._gated}"
        if (info.gated or False) != self._gated:
            raise StoreError(self.url, f"is gated={info.gated or False}; {told}. Change one of them first")
        if bool(info.private) == self._private:
            return
        if not info.private:
            raise StoreError(self.url, f"is public; {told}. Make it private first, or publish openly")
        # Whoever opens it does so before naming anything, so that only a look after the names tells.
        if names if names is not None else (self._names() and self._info().private):
            raise StoreError(self.url, f"was made private after publishing; {told}. Change one of them first")

    def _check_locking(self) -> None:
        """Try out whether a commit on a parent that is not the head is refused; once per server."""
        if self._alone:
            return
        known = self._known_servers()
        if self._api.endpoint not in known:
            note = f"# teleopen asks whether stale parents are refused: {uuid.uuid4()}\n".encode()
            try:
                self._send(_NO_COMMIT, [self._operation(Blob.of(ATTRIBUTES, GIT_ATTRIBUTES + note))], "Probe")
                refuses = False
            except Exception as error:
                if is_passing(error) and status_of(error) != _CONFLICT:
                    # Nothing is known yet, and nothing was sent: the next attempt asks again.
                    raise as_ours(self.url, error) from error
                refuses = True
            if not refuses:
                self._send(
                    self._info().sha, [self._operation(Blob.of(ATTRIBUTES, GIT_ATTRIBUTES))], "Prepare again"
                )
            known = {**known, self._api.endpoint: refuses}
            self._cache.note("servers.json", json.dumps(known).encode())
        if not known[self._api.endpoint]:
            why = "this server accepts commits on a stale parent, so publishers could undo each other"
            raise StoreError(self.url, f"{why}; if nobody else publishes here, say so: --single-writer")

    def _known_servers(self) -> dict[str, bool]:
        with suppress(ValueError):
            known = json.loads(self._cache.noted("servers.json") or b"{}")
            if isinstance(known, dict):
                return known
        return {}

    # ------------------------------------------------------------ sending

    def stage(self, blobs: Sequence[Blob], progress: Progress) -> None:
        self._bring(blobs, progress)
        if len(blobs) > COMMIT_FILES:
            self._commit_ahead(blobs)

    def unstage(self, paths: Sequence[str]) -> None:
        """Forget them: what no commit names cannot be read, and what went ahead the switch removes."""
        self._operations = {key: one for key, one in self._operations.items() if key[0] not in paths}

    def _bring(self, blobs: Sequence[Blob], progress: Progress) -> None:
        waiting = iter([b for b in blobs if (b.path, b.sha256) not in self._operations])
        while batch := list(islice(waiting, _BATCH)):
            operations = [self._operation(blob) for blob in batch]
            self._upload(operations)
            for blob, operation in zip(batch, operations, strict=True):
                self._operations[blob.path, blob.sha256] = operation
                progress(blob.path, blob.size)

    def _upload(self, operations: Sequence[Any]) -> None:
        call(
            self.url,
            self._api.preupload_lfs_files,
            self.repository,
            additions=operations,
            repo_type=REPO_TYPE,
            revision=self.branch,
            free_memory=False,
            gitignore_content="",
        )
        for operation in operations:
            path, size = operation.path_in_repo, operation.upload_info.size
            if operation._should_ignore:  # noqa: SLF001 - the client drops such files without a word
                raise StoreError(
                    f"{self.url}/{path}", "the server would leave it out; is there a .gitignore?"
                )
            if size and is_data(path) and operation._upload_mode != "lfs":  # noqa: SLF001
                why = (
                    f"the server would keep it as a plain file, which no purge reaches; look at {ATTRIBUTES}"
                )
                raise StoreError(f"{self.url}/{path}", why)

    def _operation(self, blob: Blob) -> Any:
        """Return what the client sends of a blob: the planned bytes, which are checked here."""
        from huggingface_hub import CommitOperationAdd

        if blob.data is not None:
            return CommitOperationAdd(blob.path, blob.data)
        operation = CommitOperationAdd(blob.path, blob.local() or self._spooled(blob))
        info = operation.upload_info
        if info.size != blob.size or info.sha256.hex() != blob.sha256:
            raise DamageError(blob.path, "is not what was planned to be published; check the store")
        return operation

    def _spooled(self, blob: Blob) -> Path:
        """Return a local copy of a blob that lies on another machine: the client sends local files only."""
        if self._staging is None:
            self._staging = Path(tempfile.mkdtemp(prefix="teleopen-"))
            weakref.finalize(self, shutil.rmtree, self._staging, ignore_errors=True)
        place = self._staging / blob.sha256
        if not place.exists():
            aside = place.with_suffix(".aside")
            disk.write(aside, blob.chunks())
            disk.rename(aside, place)
        return place

    def _commit_ahead(self, blobs: Sequence[Blob]) -> None:
        """Commit data files before the switch. No log names them yet, so readers do not see them."""
        there = self._reader.entries(self._info().sha)
        waiting = iter([b for b in blobs if b.path not in there or there[b.path].lfs != b.sha256])
        while batch := list(islice(waiting, COMMIT_FILES)):
            operations = [self._operations[blob.path, blob.sha256] for blob in batch]
            self._commit(self._info().sha, operations, "Add data ahead of publishing")

    def switch(self, plan: Plan) -> str:
        from huggingface_hub import CommitOperationDelete

        if plan.base is None:
            raise StaleError(self.url, "has come into being since it was looked at")
        tree = plan.files()
        self._bring([tree.files[path] for path in plan.add], silent)
        operations: list[Any] = [self._operations[path, file.sha256] for path, file in plan.add.items()]
        operations += [CommitOperationDelete(path, is_folder=False) for path in plan.delete]
        manifest = tree.files[MANIFEST]
        title = f"Publish version {plan.version}: {plan.episodes} episodes"  # _TITLE reads it
        commit = self._commit(plan.base, operations, title, f"Plan {plan.digest}", manifest)
        for blob in tree.files.values():
            if blob.data is not None:
                self._cache.put(blob.data, git_id(blob.data))
                self._cache.put(blob.data, blob.sha256)
        return commit

    def _commit(
        self, base: str, operations: Sequence[Any], title: str, text: str = "", manifest: Blob | None = None
    ) -> str:
        """Make a commit on ``base``, and return its id. If an answer is lost, the head tells what happened.

        Raises
        ------
        StaleError
            If the head is another.
        StoreError
            If the server refuses.
        """
        for attempt in range(hub_client.TRIES):
            try:
                return self._send(base, operations, title, text)
            except Exception as error:
                if not is_passing(error) and status_of(error) not in {_CONFLICT, _STALE}:
                    raise as_ours(self.url, error) from error
                head = self._info().sha
                if head != base:
                    if self._is_ours(head, operations, manifest):
                        return str(head)
                    why = f"another publisher was faster: its head is {head}, not {base}"
                    raise StaleError(self.url, why) from error
                if attempt + 1 == hub_client.TRIES:
                    why = f"the commit was tried {attempt + 1} times and is not there ({described(error)})"
                    raise StoreError(self.url, why) from error
                pause(attempt, error)
        raise AssertionError

    def _send(self, base: str, operations: Sequence[Any], title: str, text: str = "") -> str:
        commit = self._api.create_commit(
            self.repository,
            operations,
            commit_message=title,
            commit_description=text,
            parent_commit=base,
            revision=self.branch,
            repo_type=REPO_TYPE,
        )
        for operation in operations:
            if hasattr(operation, "_is_committed"):
                operation._is_committed = False  # noqa: SLF001 - what is not committed yet may be sent again
        return str(commit.oid)

    def _is_ours(self, head: str, operations: Sequence[Any], manifest: Blob | None) -> bool:
        """Tell whether a head that is not the base is the commit whose answer was lost."""
        entries = self._reader.entries(head)
        if manifest is not None:
            entry = entries.get(MANIFEST)
            return entry is not None and (entry.lfs or entry.blob) in {
                manifest.sha256,
                git_id(manifest.read()),
            }
        sent = {op.path_in_repo: op.upload_info.sha256.hex() for op in operations}
        return all(
            path in entries
            and (
                entries[path].lfs or hashlib.sha256(self._reader.small(head, path, entries[path])).hexdigest()
            )
            == sha256
            for path, sha256 in sent.items()
        )

    # ------------------------------------------------------------ afterwards

    def finish(self, base: str, version: int) -> tuple[str, ...]:
        done, unnamed = [], {base: version}
        names = self._names()
        info = self._info()
        self._check_settings(info, names)
        if bool(info.private) != self._private:
            if not self._may_be_opened(base):
                return ()
            self._open()
            done.append("made public")
            unnamed |= self._versions()
        for commit in [commit for commit in unnamed if commit not in names.values()]:
            name = self._name(commit, unnamed[commit], names)
            done.append(f"named {name}")
            names = {**names, name: commit}
        return tuple(done)

    def _open(self) -> None:
        call(
            self.url,
            self._api.update_repo_settings,
            self.repository,
            visibility="public",
            repo_type=REPO_TYPE,
        )
        if self._info().private:
            raise StoreError(self.url, "said yes to being made public, and is private still")

    def _versions(self) -> dict[str, int]:
        """Return the versions that were published so far by their commits."""
        told = call(
            self.url,
            self._api.list_repo_commits,
            self.repository,
            revision=self.branch,
            repo_type=REPO_TYPE,
        )
        titles = {commit.commit_id: _TITLE.match(commit.title) for commit in told}
        return {commit: int(title[1]) for commit, title in titles.items() if title}

    def _may_be_opened(self, base: str) -> bool:
        """Tell whether no commit, on any ref, holds more than is public at ``base``.

        If one does since somebody else published meanwhile, it is for them to open it, after they have
        checked theirs, and to name all that was published until then: a closed repository with names is one
        that its owner closed.
        """
        from .hub_purge import unpublished

        found = unpublished(self._api, self._reader, base)
        if found is not None and self._info().sha == base:
            why = f"is private, and {found}, which everyone could read if it were made public"
            raise StoreError(self.url, f"{why}. Nobody has seen it yet: delete it, and publish again")
        return found is None

    def _names(self) -> dict[str, str]:
        """Return the commit of each tag that publishing made."""
        refs = call(self.url, self._api.list_repo_refs, self.repository, repo_type=REPO_TYPE)
        return {tag.name: tag.target_commit for tag in refs.tags if re.fullmatch(r"v\d+(\.\d+)?", tag.name)}

    def _name(self, base: str, version: int, names: Mapping[str, str]) -> str:
        """Give a commit a tag that no other commit has, and check that it is there and leads to it."""
        for attempt in range(hub_client.TRIES):
            candidates = (f"v{version}" if turn == 0 else f"v{version}.{turn}" for turn in count())
            name = next(name for name in candidates if name not in names)
            try:
                self._api.create_tag(self.repository, tag=name, revision=base, repo_type=REPO_TYPE)
            except Exception as error:
                if status_of(error) != _CONFLICT and not is_passing(error):
                    raise as_ours(f"{self.url}@{name}", error) from error
                pause(attempt, error)
            names = self._names()
            found = next((name for name, commit in names.items() if commit == base), None)
            if found is not None:
                return found
        raise StoreError(
            f"{self.url}@v{version}", "is published, and the server takes no tag for it; try again"
        )

    def purge(self, tombstones: Sequence[Tombstone], progress: Progress) -> Purged:
        from .hub_purge import purge

        return purge(self._api, self._reader, self.branch, self.look(), tombstones, progress)
