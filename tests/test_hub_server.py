"""The Hub on this machine speaks the real client's language, and git's."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import huggingface_hub.constants
import huggingface_hub.utils._http
import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile

from tests.hub_server import Fault, Hub, hub_server
from tests.hub_server.git import blob_id, folders
from tests.hub_server.hub import READER, STRANGER, TOKEN
from tests.hub_server.patterns import is_ignored, is_lfs
from tests.hub_server.repository import Limits

# The client hands files to its HTTP library in a way that the library calls outdated.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

REPO = "lab/arms"
COVER = b"data/** filter=lfs diff=lfs merge=lfs -text\n"


@pytest.fixture(scope="module")
def _server() -> Iterator[Hub]:
    with pytest.MonkeyPatch.context() as patch, hub_server() as hub:
        patch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        patch.setattr("huggingface_hub.utils._http.time.sleep", lambda _seconds: None)
        yield hub
        huggingface_hub.close_session()


@pytest.fixture
def hub(_server: Hub) -> Hub:
    _server.reset()
    return _server


@pytest.fixture
def api(hub: Hub) -> HfApi:
    api = HfApi(endpoint=hub.url, token=TOKEN)
    api.create_repo(REPO, repo_type="dataset")
    return api


def _add(**files: bytes) -> list[Any]:
    return [
        CommitOperationAdd(path.replace("__", "/").replace("_", "."), data) for path, data in files.items()
    ]


def _commit(api: HfApi, operations: list[Any], **options: Any) -> str:
    made: str = api.create_commit(REPO, operations, commit_message="test", repo_type="dataset", **options).oid
    return made


def _head(api: HfApi) -> str:
    return str(api.dataset_info(REPO).sha)


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_object_ids_are_those_that_git_computes(hub: Hub, api: HfApi, tmp_path: Path) -> None:
    _commit(api, _add(b__c__d_txt=b"deep", b_txt=b"text", b0=b"zero", a__x=b"x"))
    files = hub.repositories[REPO].resolve("main").files

    def git(*words: str) -> str:
        ran = subprocess.run(["git", "-C", str(tmp_path), *words], check=True, capture_output=True, text=True)
        return ran.stdout.strip()

    git("init", "-q")
    for path, file in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(hub.repositories[REPO].content(file))
    git("-c", "core.autocrlf=false", "add", "-A")
    assert git("write-tree") == folders(files)[""]
    assert git("hash-object", "b.txt") == files["b.txt"].blob == blob_id(b"text")


@pytest.mark.parametrize(
    ("line", "path", "covered"),
    [
        ("*.bin", "a/b.bin", True),
        ("data/**", "data/a/b", True),
        ("data/**", "other/data/a", False),
        ("data/*", "data/a/b", False),
        ("/top", "top", True),
        ("/top", "a/top", False),
        ("**/c/*", "a/b/c/0", True),
        ("*.bin filter=lfs\nkeep.bin -filter", "keep.bin", False),
    ],
)
def test_attributes_mean_what_git_says(line: str, path: str, covered: bool) -> None:
    text = line if "filter" in line else f"{line} filter=lfs diff=lfs merge=lfs -text"
    assert is_lfs(text, path) is covered


@pytest.mark.parametrize(
    ("text", "path", "ignored"),
    [
        ("*.log", "a/b.log", True),
        ("build/", "build/x", True),
        ("build/", "build", False),
        ("*.log\n!keep.log", "keep.log", False),
        ("c", "a/c/0", True),
    ],
)
def test_ignore_files_mean_what_git_says(text: str, path: str, ignored: bool) -> None:
    assert is_ignored(text, path) is ignored


def test_a_commit_adds_copies_and_deletes_files_and_folders(hub: Hub, api: HfApi) -> None:
    _commit(api, _add(_gitattributes=COVER))
    _commit(api, _add(README_md=b"---\nlicense: mit\n---\n", data__a=b"bytes", data__b=b"more", old__x=b"x"))
    _commit(
        api,
        [
            CommitOperationCopy("data/a", "data/copy"),
            CommitOperationCopy("README.md", "copy.md"),
            CommitOperationDelete("data/b"),
            CommitOperationDelete("old/"),
        ],
    )
    tree = {
        e.path: e
        for e in api.list_repo_tree(REPO, recursive=True, repo_type="dataset")
        if isinstance(e, RepoFile)
    }
    assert set(tree) == {".gitattributes", "README.md", "copy.md", "data/a", "data/copy"}
    assert tree["data/copy"].lfs is not None
    assert tree["data/copy"].lfs.sha256 == hashlib.sha256(b"bytes").hexdigest()
    assert tree["README.md"].lfs is None


def test_a_commit_on_a_stale_parent_is_refused_and_changes_nothing(hub: Hub, api: HfApi) -> None:
    base = _head(api)
    _commit(api, _add(a=b"1"), parent_commit=base)
    after = _head(api)
    with pytest.raises(HfHubHTTPError) as caught:
        _commit(api, _add(b=b"2"), parent_commit=base)
    assert caught.value.response.status_code == 412
    assert _head(api) == after
    hub.checks_parent = False
    assert _commit(api, _add(b=b"2"), parent_commit=base) != after


def test_lfs_files_that_no_pattern_covers_add_a_line_each(hub: Hub, api: HfApi) -> None:
    _commit(api, _add(c__0=b"\0binary", c__1=b"\0more"))
    found = hub.repositories[REPO]
    text = found.text(found.resolve("main"), ".gitattributes")
    assert "c/0 filter=lfs" in text
    assert "c/1 filter=lfs" in text


def test_attributes_in_the_same_commit_come_too_late(hub: Hub, api: HfApi) -> None:
    _commit(api, _add(_gitattributes=COVER, data__a=b"text"))
    assert hub.repositories[REPO].resolve("main").files["data/a"].lfs is None


def test_a_remote_ignore_file_makes_the_client_drop_files_in_silence(hub: Hub, api: HfApi) -> None:
    _commit(api, _add(_gitignore=b"*.json\n"))
    _commit(api, _add(a_json=b"{}", b_txt=b"b"))
    assert "a.json" not in hub.repositories[REPO].resolve("main").files
    assert "b.txt" in hub.repositories[REPO].resolve("main").files


def test_large_files_come_in_parts(hub: Hub, api: HfApi) -> None:
    hub.part_bytes = 1000
    data = bytes(range(256)) * 13
    _commit(api, _add(data__large=data))
    found = hub.repositories[REPO]
    assert found.content(found.resolve("main").files["data/large"]) == data
    assert sum(r.path.startswith("/lfs/") for r in hub.record) == 4


def test_a_second_upload_of_known_bytes_sends_none(hub: Hub, api: HfApi) -> None:
    _commit(api, _add(a=b"\0same"))
    hub.record.clear()
    _commit(api, _add(b=b"\0same"))
    assert "PUT" not in hub.record.methods()


@pytest.mark.parametrize("path", ["a\\b", "a//b", "a/\x07b"])
def test_paths_that_no_repository_may_hold_are_refused(api: HfApi, path: str) -> None:
    with pytest.raises((HfHubHTTPError, ValueError)):
        _commit(api, [CommitOperationAdd(path, b"x")])


def test_limits_are_kept(hub: Hub, api: HfApi) -> None:
    hub.limits = Limits(folder_entries=3, quota_bytes=100)
    with pytest.raises(HfHubHTTPError, match="folder"):
        _commit(api, [CommitOperationAdd(f"many/{n}", b"x") for n in range(4)])
    with pytest.raises(HfHubHTTPError, match="Storage limit"):
        _commit(api, _add(large=b"\0" * 101))


def test_trees_and_histories_come_in_pages(hub: Hub, api: HfApi) -> None:
    hub.page = 2
    _commit(api, _add(a=b"1", b__c=b"2", b__d=b"3", e=b"4"))
    found = [entry.path for entry in api.list_repo_tree(REPO, recursive=True, repo_type="dataset")]
    assert found == [".gitattributes", "a", "b", "b/c", "b/d", "e"]
    assert [e.path for e in api.list_repo_tree(REPO, "b", repo_type="dataset")] == ["b/c", "b/d"]
    assert [c.title for c in api.list_repo_commits(REPO, repo_type="dataset")] == ["test", "initial commit"]
    assert [p.path for p in api.get_paths_info(REPO, ["a", "b", "nope"], repo_type="dataset")] == ["a", "b"]


def test_files_are_read_whole_and_in_ranges_by_every_reader_of_the_client(
    hub: Hub, api: HfApi, tmp_path: Path
) -> None:
    data = bytes(range(256)) * 40
    _commit(api, _add(data__a=b"\0" + data, small_txt=b"small"))
    folder = huggingface_hub.snapshot_download(
        REPO, repo_type="dataset", endpoint=hub.url, token=TOKEN, cache_dir=tmp_path
    )
    assert (Path(folder) / "data/a").read_bytes() == b"\0" + data
    assert (Path(folder) / "small.txt").read_bytes() == b"small"
    files = huggingface_hub.HfFileSystem(endpoint=hub.url, token=TOKEN, skip_instance_cache=True)
    assert files.cat_file(f"datasets/{REPO}/data/a", start=1, end=11) == data[:10]
    assert sorted(files.find(f"datasets/{REPO}")) == [
        f"datasets/{REPO}/{name}" for name in (".gitattributes", "data/a", "small.txt")
    ]
    with pytest.raises(EntryNotFoundError):
        api.hf_hub_download(REPO, "nope", repo_type="dataset", cache_dir=tmp_path)
    with pytest.raises(RevisionNotFoundError):
        api.dataset_info(REPO, revision="nope")


def test_tags_and_branches_are_made_moved_never_and_deleted(hub: Hub, api: HfApi) -> None:
    first = _head(api)
    api.create_tag(REPO, tag="v1", repo_type="dataset")
    _commit(api, _add(a=b"1"))
    api.create_tag(REPO, tag="v1", repo_type="dataset", exist_ok=True)
    api.create_branch(REPO, branch="side", revision=first, repo_type="dataset")
    refs = api.list_repo_refs(REPO, repo_type="dataset", include_pull_requests=True)
    assert {tag.name: tag.target_commit for tag in refs.tags} == {"v1": first}
    assert {b.name: b.target_commit for b in refs.branches} == {"main": _head(api), "side": first}
    api.delete_tag(REPO, tag="v1", repo_type="dataset")
    api.delete_branch(REPO, branch="side", repo_type="dataset")
    assert list(hub.repositories[REPO].refs) == ["refs/heads/main"]


def test_settings_are_kept_and_a_deaf_server_only_says_so(hub: Hub, api: HfApi) -> None:
    api.update_repo_settings(REPO, private=True, gated="manual", repo_type="dataset")
    info = api.dataset_info(REPO)
    assert (info.private, info.gated) == (True, "manual")
    hub.heeds_settings = False
    api.update_repo_settings(REPO, private=False, repo_type="dataset")
    assert api.dataset_info(REPO).private


def test_who_may_see_read_and_write_what(hub: Hub, api: HfApi) -> None:
    _commit(api, _add(data__a=b"\0a"))
    nobody, eve = HfApi(endpoint=hub.url, token=False), HfApi(endpoint=hub.url, token=STRANGER)
    hub.repositories[REPO].gated = "manual"
    assert nobody.dataset_info(REPO).sha
    for who in (nobody, eve):
        with pytest.raises(GatedRepoError):
            who.auth_check(REPO, repo_type="dataset")
    hub.repositories[REPO].allowed.add("eve")
    eve.auth_check(REPO, repo_type="dataset")
    hub.repositories[REPO].private = True
    for who in (nobody, eve):
        with pytest.raises(RepositoryNotFoundError):
            who.dataset_info(REPO)
    reader = HfApi(endpoint=hub.url, token=READER)
    assert reader.dataset_info(REPO).private
    with pytest.raises(HfHubHTTPError) as caught:
        _commit(reader, _add(a=b"1"))
    assert caught.value.response.status_code == 403
    with pytest.raises(HfHubHTTPError) as caught:
        HfApi(endpoint=hub.url, token="hf_wrong").whoami()
    assert caught.value.response.status_code == 401
    assert api.whoami()["name"] == "ada"


def test_a_name_in_another_case_leads_to_the_repository(hub: Hub, api: HfApi) -> None:
    assert api.dataset_info("Lab/Arms").id == REPO


def test_a_licence_that_the_hub_does_not_know_is_refused(api: HfApi) -> None:
    with pytest.raises(ValueError, match="allowed types"):
        _commit(api, _add(README_md=b"---\nlicense: made-up\n---\n"))


def test_squashing_a_branch_leaves_its_tags_history(hub: Hub, api: HfApi) -> None:
    _commit(api, _add(data__a=b"\0a"))
    api.create_tag(REPO, tag="v1", repo_type="dataset")
    api.super_squash_history(REPO, repo_type="dataset")
    assert len(api.list_repo_commits(REPO, repo_type="dataset")) == 1
    assert len(api.list_repo_commits(REPO, repo_type="dataset", revision="v1")) == 2


def test_purged_objects_are_in_no_commit_of_a_branch_and_nowhere_to_be_had(
    hub: Hub, api: HfApi, tmp_path: Path
) -> None:
    _commit(api, _add(data__a=b"\0secret", data__b=b"\0kept"))
    old = _head(api)
    _commit(api, [CommitOperationDelete("data/a")])
    wanted = [f for f in api.list_lfs_files(REPO, repo_type="dataset") if f.filename == "data/a"]
    api.permanently_delete_lfs_files(REPO, wanted, repo_type="dataset")
    assert len(wanted) == 1
    assert not any(
        "data/a" in c.files for c in hub.repositories[REPO].history(hub.repositories[REPO].resolve("main"))
    )
    with pytest.raises((EntryNotFoundError, HfHubHTTPError)):
        api.hf_hub_download(REPO, "data/a", repo_type="dataset", revision=old, cache_dir=tmp_path)


# ---------------------------------------------------------------- faults and the record


def test_a_lost_answer_means_committed_and_not_known(hub: Hub, api: HfApi) -> None:
    before = _head(api)
    hub.faults.add(Fault("lost", "POST", "/commit/", status=500))
    with pytest.raises(HfHubHTTPError):
        _commit(api, _add(a=b"1"))
    assert _head(api) != before
    hub.faults.add(Fault("drop-after", "POST", "/commit/"))
    with pytest.raises(Exception, match="disconnected"):
        _commit(api, _add(b=b"1"))
    assert "b" in hub.repositories[REPO].resolve("main").files


def test_the_client_rides_out_what_it_retries(hub: Hub, api: HfApi) -> None:
    hub.faults.add(
        Fault("status", "POST", "/preupload/", status=429, headers={"Retry-After": "0"}),
        Fault("drop", "POST", "objects/batch"),
        Fault("status", "PUT", "/lfs/", status=500),
    )
    _commit(api, _add(data__a=b"\0a"))
    assert "data/a" in hub.repositories[REPO].resolve("main").files


def test_bodies_are_cut_and_bent(hub: Hub, api: HfApi) -> None:
    _commit(api, _add(data__a=b"\0" * 1000))
    files = huggingface_hub.HfFileSystem(endpoint=hub.url, token=TOKEN, skip_instance_cache=True)
    hub.faults.add(Fault("corrupt", "GET", "/cdn/"))
    assert files.cat_file(f"datasets/{REPO}/data/a") != b"\0" * 1000
    hub.faults.add(Fault("truncate", "GET", "/cdn/", times=99))
    with pytest.raises(Exception, match=r"incomplete|closed"):
        files.cat_file(f"datasets/{REPO}/data/a")


def test_the_rate_limit_is_told_and_waited_for(hub: Hub, api: HfApi) -> None:
    hub.rate = 0
    _commit(api, _add(a=b"1"))
    assert any(request.status == 429 for request in hub.record)


def test_the_record_finds_a_marker_in_paths_samples_contents_and_columns(hub: Hub, api: HfApi) -> None:
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    out = io.BytesIO()
    pq.write_table(pa.table({"name": ["in-a-column"] * 100}), out, compression="zstd")
    _commit(
        api,
        _add(
            **{
                "in-a-path": b"x",
                "text": b"in-a-content",
                "data__large": b"\0" * 600 + b"in-an-object",
                "table_parquet": out.getvalue(),
            }
        ),
    )
    markers = ["in-a-path", "in-a-content", "in-an-object", "in-a-column", "never-sent"]
    assert {marker for marker, _ in hub.record.holding(markers)} == set(markers[:-1])
