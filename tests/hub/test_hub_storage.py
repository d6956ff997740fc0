"""A dataset of the Hub is read as a store: at one commit, by ranges, with the token for the Hub alone."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import huggingface_hub.constants
import numpy as np
import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from teleopen.hub import WriteOptions, create_store, open_store
from teleopen.hub.storage import open_storage
from teleopen.hub.store import Store
from teleopen.hub.train import open_dataset
from teleopen.schemas import DamageError, NotFoundError, StoreError

from tests.episodes import make
from tests.hub_server import Fault, Hub, hub_server
from tests.hub_server.hub import STRANGER, TOKEN

# The client hands files to its HTTP library in a way that the library calls outdated.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

REPO = "lab/arms"
URL = f"hf://datasets/{REPO}"
CAMERA = "observation.images.top"
LARGE = b"segments/**/c/** filter=lfs diff=lfs merge=lfs -text\n"


@pytest.fixture(scope="module")
def _server() -> Iterator[Hub]:
    with pytest.MonkeyPatch.context() as patch, hub_server() as hub:
        patch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        patch.setattr("teleopen.hub.web.FIRST_PAUSE_S", 0.01)
        patch.setattr("teleopen.hub.sync.hub_client.sleep", lambda _seconds: None)
        patch.setenv("HF_ENDPOINT", hub.url)
        patch.setenv("HF_TOKEN", TOKEN)
        yield hub
        huggingface_hub.close_session()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = create_store(tmp_path_factory.mktemp("hub") / "store")
    store.write([make(seed=1, steps=70), make(seed=2, steps=40)], WriteOptions(profile="stream"))
    return store


@pytest.fixture
def hub(_server: Hub, made: Store) -> Hub:
    _server.reset()
    api = HfApi(endpoint=_server.url, token=TOKEN)
    api.create_repo(REPO, repo_type="dataset")
    _upload(api, Path(made.url))
    _server.record.clear()
    return _server


def _upload(api: HfApi, folder: Path, below: str = "") -> None:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and ".staging" not in path.parts]
    adds = [CommitOperationAdd(below + path.relative_to(folder).as_posix(), path) for path in files]
    covered = [CommitOperationAdd(".gitattributes", LARGE), *adds]
    api.create_commit(REPO, covered, commit_message="a store", repo_type="dataset")


def asked(hub: Hub, part: str) -> list[str]:
    return [one.path for one in hub.record if part in one.path]


def test_a_store_on_the_hub_is_read_like_any_other(hub: Hub, made: Store) -> None:
    store = open_store(URL)
    wants = {CAMERA: [-1, 0], "action": range(3), "imu.accel": [0.0]}
    here, there = (open_dataset(s).windows(wants).loader(16, threads=2) for s in (made, store))
    for mine, theirs in zip(here, there, strict=True):
        for name, values in mine.items():
            np.testing.assert_array_equal(theirs[name], values)
    assert [episode.id for episode in store] == list(made.ids)
    assert asked(hub, "/resolve/")
    assert not asked(hub, "/tree/")
    with pytest.raises(StoreError, match="read only"):
        store.write([make(seed=3, steps=3)])


def test_the_token_goes_to_the_hub_and_not_to_where_it_sends_us(hub: Hub) -> None:
    hub.repositories[REPO].private = True
    list(open_dataset(URL).windows({CAMERA: [0]}).loader(64, threads=0))
    seen = {
        part: [dict(one.headers) for one in hub.record if part in one.path] for part in ("/resolve/", "/cdn/")
    }
    assert seen["/cdn/"]
    assert all("Authorization" not in headers for headers in seen["/cdn/"])
    assert all(headers["Authorization"] == f"Bearer {TOKEN}" for headers in seen["/resolve/"])
    assert TOKEN.encode() not in pickle.dumps(open_storage(URL))


def test_it_is_the_commit_of_the_moment_it_was_opened(hub: Hub, made: Store, tmp_path: Path) -> None:
    first = open_store(URL)
    later = create_store(tmp_path / "later")
    later.write([make(seed=9, steps=5, cameras=(), depth=False)])
    _upload(HfApi(endpoint=hub.url, token=TOKEN), Path(later.url))
    assert first.refresh().ids == made.ids
    assert open_store(first.url).ids == made.ids
    assert open_store(URL).ids == later.ids
    copy = pickle.loads(pickle.dumps(first.storage))
    assert copy.url == first.url
    hub.record.clear()
    open_store(first.url)
    assert not asked(hub, "/api/"), "a commit needs no resolving"


def test_a_branch_a_tag_and_a_folder_can_be_named(hub: Hub, made: Store) -> None:
    api = HfApi(endpoint=hub.url, token=TOKEN)
    api.create_tag(REPO, tag="v1", repo_type="dataset")
    _upload(api, Path(made.url), below="levels/24x32/")
    for url in (f"{URL}@v1", f"{URL}@main", f"{URL}@main/levels/24x32"):
        assert open_store(url).ids == made.ids
    with pytest.raises(NotFoundError, match="not there"):
        open_store(f"{URL}@v2")
    with pytest.raises(StoreError, match="no store"):
        open_store(f"{URL}/elsewhere")
    for url in ("hf://lab/arms", "hf://datasets/arms", "hf://models/lab/arms", f"{URL}@v1/../x"):
        with pytest.raises(StoreError):
            open_storage(url)


def test_where_the_hub_sends_us_is_remembered_until_it_fails(hub: Hub, made: Store) -> None:
    reader, _, _ = open_store(URL).array("0", CAMERA)
    mine, _, _ = made.array("0", CAMERA)
    hub.record.clear()
    assert reader.chunk(0) == mine.chunk(0)
    asked_first = len(asked(hub, "/resolve/"))
    assert reader.chunk(1) == mine.chunk(1)
    assert len(asked(hub, "/resolve/")) == asked_first == 1
    hub.faults.add(Fault("status", path="/cdn/", status=403))
    assert reader.chunk(2) == mine.chunk(2), "a link that ran out is asked for again"
    assert len(asked(hub, "/resolve/")) == 2


@pytest.mark.parametrize(
    "fault",
    [
        Fault("status", path="/cdn/|/resolve/", times=3, status=503),
        Fault("status", path="/cdn/|/resolve/", times=2, status=429, headers={"Retry-After": "0"}),
        Fault("drop", path="/cdn/|/resolve/", times=3),
        Fault("truncate", path="/cdn/", times=3),
    ],
    ids=lambda fault: fault.kind,
)
def test_what_passes_is_ridden_out(hub: Hub, made: Store, fault: Fault) -> None:
    store = open_store(URL)
    wants = {CAMERA: [-1, 0], "action": range(3)}
    fault.hits = 0
    hub.faults.add(fault)
    batch = open_dataset(store).windows(wants).batch([0, 1], [33, 12])
    for name, values in open_dataset(made).windows(wants).batch([0, 1], [33, 12]).items():
        np.testing.assert_array_equal(batch[name], values)
    assert fault.hits == fault.times


def test_what_does_not_pass_is_told_once_and_clearly(hub: Hub) -> None:
    windows = open_dataset(URL).windows({CAMERA: [0]})
    hub.faults.add(Fault("ignore-range", path="/cdn/", times=99))
    with pytest.raises(StoreError, match="ignores byte ranges"):
        windows.batch([0], [0])
    hub.faults.clear()
    hub.faults.add(Fault("status", path="/cdn/|/resolve/", times=10**6, status=503))
    with pytest.raises(StoreError, match=r"failed 5 times.*503"):
        windows.batch([0], [0])
    hub.faults.clear()
    hub.faults.add(Fault("corrupt", path="/cdn/", times=99))
    with pytest.raises(DamageError):
        windows.batch([0], [0])


def test_a_dataset_that_is_not_for_us_says_what_to_do(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = open_storage(URL).url
    hub.repositories[REPO].gated = "auto"
    monkeypatch.setenv("HF_TOKEN", STRANGER)
    with pytest.raises(StoreError, match=r"ask for access at .*/datasets/lab/arms.*hf auth login"):
        open_store(URL)
    hub.repositories[REPO].private = True
    monkeypatch.delenv("HF_TOKEN")
    for url in (URL, commit, "hf://datasets/lab/nothing"):
        with pytest.raises((StoreError, NotFoundError), match="hf auth login"):
            open_store(url)
    monkeypatch.setenv("HF_TOKEN", "hf_no_such_token")
    with pytest.raises(StoreError, match="hf auth login"):
        open_store(URL)
