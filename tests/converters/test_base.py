"""What converters share: which files a source may name."""

from __future__ import annotations

from pathlib import Path

import pytest
from teleopen.converters.base import contained
from teleopen.schemas import FormatError


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/passwd", "a/../../secret", "link", "x\0y", "folder/out/secret"]
)
def test_a_file_outside_of_the_recording_is_refused(tmp_path: Path, name: str) -> None:
    root = tmp_path / "set"
    root.joinpath("folder").mkdir(parents=True)
    tmp_path.joinpath("secret").write_text("secret")
    root.joinpath("link").symlink_to(tmp_path / "secret")
    root.joinpath("folder", "out").symlink_to(tmp_path)
    with pytest.raises(FormatError, match="outside") as caught:
        contained(root, name, path=root / "meta", where="video_path")
    assert caught.value.where == "video_path"


def test_files_and_links_inside_are_followed(tmp_path: Path) -> None:
    tmp_path.joinpath("a").write_text("a")
    tmp_path.joinpath("b").symlink_to("a")
    assert contained(tmp_path, "b", path=tmp_path, where="") == tmp_path.resolve() / "a"


def test_a_download_cache_of_the_hub_is_one_recording(tmp_path: Path) -> None:
    snapshot = tmp_path / "datasets--org--name" / "snapshots" / "0123abc"
    blobs = tmp_path / "datasets--org--name" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    blobs.joinpath("beef").write_text("x")
    snapshot.joinpath("video.mp4").symlink_to("../../blobs/beef")
    assert contained(snapshot, "video.mp4", path=snapshot, where="") == blobs.resolve() / "beef"
    snapshot.joinpath("bad").symlink_to(tmp_path)
    with pytest.raises(FormatError, match="outside"):
        contained(snapshot, "bad", path=snapshot, where="")
