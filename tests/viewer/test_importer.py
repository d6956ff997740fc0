"""Rerun opens recordings and pointers to episodes by the importer; what is not ours costs nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from teleopen.cli.importer import NOT_OURS, main
from teleopen.hub import WriteOptions, create_store

from tests.viewer import numbered

pytest.importorskip("rerun", reason="the extra `viewer` is not installed")

from tests.viewer.recordings import Read


def run(path: Path) -> int:
    return main([str(path), "--recording-id", "any"])


def test_a_pointer_opens_an_episode_of_a_store_beside_it(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    store = create_store(tmp_path / "store")
    store.write([numbered.episode(6)], WriteOptions(profile="stream"))
    pointer = tmp_path / "look.teleopen"
    pointer.write_text("store#0\n")
    assert run(pointer) == 0
    (tmp_path / "out.rrd").write_bytes(capsysbinary.readouterr().out)
    assert Read.of(tmp_path / "out.rrd").properties["id"] == numbered.episode(6).id


@pytest.mark.parametrize("content", [b"", b"RRF2 and more", b"\x89PNG\r\n\x1a\n", b"store#0\nand more"])
def test_what_is_not_ours_is_left_to_others_without_loading_anything(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / ("x.teleopen" if content.startswith(b"store") else "x.dat")
    path.write_bytes(content)
    code = (
        "import sys; from teleopen.cli.importer import main\n"
        f"code = main([{str(path)!r}]); heavy = {{'rerun', 'zarr', 'h5py', 'numpy'}} & set(sys.modules)\n"
        "sys.exit(code if not heavy else 1)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (NOT_OURS, b"")


def test_a_folder_and_a_file_that_is_not_there_are_not_ours(tmp_path: Path) -> None:
    assert run(tmp_path) == NOT_OURS
    assert run(tmp_path / "nothing.teleopen") == NOT_OURS


def test_an_hdf5_file_that_no_converter_claims_is_not_ours(tmp_path: Path) -> None:
    path = tmp_path / "x.hdf5"
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(200))
    assert run(path) == NOT_OURS


def test_a_pointer_to_nothing_is_not_ours(tmp_path: Path) -> None:
    pointer = tmp_path / "look.teleopen"
    pointer.write_text("nowhere#0")
    assert run(pointer) == NOT_OURS
