"""The verb that tells the whole story once, on a recording that comes with the package."""

from __future__ import annotations

import argparse
import sys
from importlib.resources import as_file, files
from pathlib import Path
from shlex import quote
from typing import Any

from ..converters.registry import converter_for
from ..hub import WriteOptions, open_store
from ..hub.verify import verify
from ..schemas import Episode, StoreError, TeleopenError
from ..viewer.sheet import sheet
from .intake import Recorded
from .output import amount, heading, line, megabytes, report, say
from .verbs_convert import show_summary, write_all

SAMPLE = "mobile_aloha.hdf5"


def demo(args: argparse.Namespace) -> int:
    """Convert the bundled sample, verify it, tell what keeps it closed, draw it, replay it."""
    folder = Path(args.dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(args.dir, f"cannot be made: {error.strerror}") from error
    url = str(folder / "store")
    with as_file(files(__package__).joinpath("sample", SAMPLE)) as sample:
        recorded = Recorded(name=str(sample), converter=converter_for(sample))
        converted = write_all(url, [recorded], WriteOptions())
    store = open_store(url)
    checked = verify(store.storage)
    picture = folder / "episode.png"
    episode = store.episode("0")
    sheet(episode, picture)
    replay = _replay(episode, folder)
    document: dict[str, Any] = {
        "folder": str(folder),
        "store": url,
        "sheet": str(picture),
        "replay": replay,
        "converted": converted,
        "verified": {"ok": not checked.damage, "files": checked.files, "bytes": checked.bytes},
        "next": [
            f"teleopen info {quote(url)}",
            f"teleopen show {quote(f'{url}#0')}",
            f"teleopen view {quote(f'{url}#0')} --web",
            f"teleopen why {quote(url)}",
            f"teleopen rights init {quote(str(folder / 'rights.toml'))}",
            "teleopen formats",
        ],
    }
    report(document, _show, as_json=args.json)
    if replay["recording"] and not args.json:
        _open(Path(replay["recording"]))
    return 0 if not checked.damage else 1


def _replay(episode: Episode, folder: Path) -> dict[str, str | None]:
    """Write a recording and a picture of the viewer, as far as this machine can; tell what it lacks."""
    found: dict[str, str | None] = {"recording": None, "picture": None, "missing": None}
    try:
        from ..viewer.record import write
        from ..viewer.shot import shot

        write(episode, folder / "episode.rrd")
        found["recording"] = str(folder / "episode.rrd")
        shot(episode, folder / "replay.png")
        found["picture"] = str(folder / "replay.png")
    except TeleopenError as error:
        found["missing"] = str(error)
    return found


def _open(recording: Path) -> None:
    """Show the recording, where a person sits in front of a display."""
    from ..viewer import show

    if sys.stdout.isatty() and show.has_display():
        line("\nclose the viewer to end")
        try:
            show.window([recording])
        except TeleopenError as error:
            say(f"the viewer does not open here: {error}")


def _show(document: dict[str, Any]) -> None:
    line("1. A recording of a mobile ALOHA becomes a store", style="bold")
    show_summary({**document["converted"], "next": []})
    heading("2. The store is what was written")
    checked = document["verified"]
    told = f"{amount(checked['files'], 'file')}, {megabytes(checked['bytes'])}: every hash, index and count"
    line(told if checked["ok"] else "DAMAGED: run `teleopen verify` on it")
    heading("3. What is where")
    line(f"  {document['store']}  the store: Zarr v3, readable with plain zarr-python")
    line(f"  {document['sheet']}  the episode at a glance")
    replay = document["replay"]
    if replay["recording"]:
        line(f"  {replay['recording']}  the episode to replay: `rerun {quote(replay['recording'])}`")
    if replay["picture"]:
        line(f"  {replay['picture']}  the viewer that shows it")
    if replay["missing"]:
        line(f"  not all of the replay is here: {replay['missing']}")
    heading("4. Next")
    for step in document["next"]:
        line(f"  {step}")
