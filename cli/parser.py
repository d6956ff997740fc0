"""The words that the command line understands. Light: it is built before anything else is imported.

Each verb names the function that does it as ``module:function``; `teleopen.cli.main` imports it then.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    _Group = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - it has no public name

PROFILES = ("auto", "train", "stream", "archive", "lossless", "source")
Verbs = Callable[..., argparse.ArgumentParser]

_EPILOG = """\
Stores are folders or URLs (s3://, https://); sources are recordings, here or behind a URL.
SRC#EPISODE is one episode of either: its id, the beginning of it, or its number counted from 0.
Exit codes: 0 done, 1 told why not, 2 misused. With --json, stdout is one JSON document.
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="teleopen",
        description="An open data hub for robot demonstrations: convert, keep the rights, verify, look.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    verbs = parser.add_subparsers(metavar="VERB", title="verbs")

    def add(name: str, run: str, summary: str, to: _Group = verbs) -> argparse.ArgumentParser:
        verb: argparse.ArgumentParser = to.add_parser(
            name, help=summary, description=summary[0].upper() + summary[1:] + ".", allow_abbrev=False
        )
        verb.set_defaults(run=run)
        return verb

    _begin(add)
    _convert(add)
    _look(add)
    _rights(add, verbs)
    _keep(add)
    _sync(add)
    _export(add)
    return parser


class _Version(argparse.Action):
    """Prints the version; it is read from the installation, which costs time, only when asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        parser.exit(message=f"teleopen {version('teleopen')}\n")


def _json(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--json", action="store_true", help="print one JSON document instead of text")


def _store(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("store", metavar="STORE", help="folder or URL of a store")


def _author(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--author", metavar="NAME", default="", help="who does this, for the commit log (login name)"
    )


def _policy(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--policy",
        default="open-v1",
        choices=("open-v1", "strict"),
        help="what is asked for before anything opens (open-v1)",
    )


def _reading(verb: argparse.ArgumentParser) -> None:
    """Add how a recording is read; a store needs none of it."""
    group = verb.add_argument_group("how recordings are read")
    group.add_argument(
        "--format", metavar="F", help="name of the format, where more than one claims a source"
    )
    group.add_argument(
        "--rate", metavar="HZ", type=_positive, help="rate of sources that do not record their times"
    )
    group.add_argument(
        "--instruction", metavar="TEXT", help="what the robot was asked to do, if the source is silent"
    )
    group.add_argument(
        "--option",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="any other option of the converter, as `teleopen formats` lists them; may be repeated",
    )
    group.add_argument(
        "--untrusted",
        action="store_true",
        help="read in a confined process: no network, no other file, bounded memory and time",
    )


def _begin(add: Verbs) -> None:
    verb = add(
        "demo", "verbs_demo:demo", "the whole story on the bundled sample: convert, verify, plan, look"
    )
    verb.add_argument(
        "dir", metavar="DIR", nargs="?", default="teleopen-demo", help="folder to put it in (./teleopen-demo)"
    )
    _json(verb)
    verb = add("formats", "verbs_read:formats", "list what can be read, with each converter's options")
    _json(verb)
    verb = add("probe", "verbs_read:probe", "tell what a recording is and what it holds; reads headers only")
    verb.add_argument("src", metavar="SRC", help="file or folder of a recording")
    verb.add_argument(
        "--limit", metavar="N", type=_count, default=20, help="list no more than N episodes; 0: all (20)"
    )
    verb.add_argument(
        "--draft-mapping",
        action="store_true",
        help="print a mapping file to fill in, for a recording that no converter knows",
    )
    _reading(verb)
    _json(verb)
    verb = add("doctor", "verbs_doctor:doctor", "tell what this machine can do, and how to get the rest")
    _json(verb)


def _convert(add: Verbs) -> None:
    verb = add(
        "convert",
        "verbs_convert:convert",
        "bring recordings into a store, in one commit; a bad one is left out and told",
    )
    verb.add_argument(
        "src",
        metavar="SRC",
        nargs="+",
        help="recordings: files, folders, folders of them, patterns, URLs (s3://, hf://, https://)",
    )
    verb.add_argument("store", metavar="STORE", help="folder or URL of the store; made if there is none")
    verb.add_argument(
        "--rights", metavar="FILE", help="rights.toml that holds for all of them; else they stay closed"
    )
    verb.add_argument(
        "--video",
        choices=PROFILES,
        default="train",
        help="how cameras that come as frames are stored; docs/codec.md tells of each (train)",
    )
    verb.add_argument(
        "--quality",
        metavar="DB",
        type=_positive,
        default=37.0,
        help="PSNR that lossy profiles aim at, in dB (37)",
    )
    verb.add_argument("--transcode", action="store_true", help="encode anew also what comes encoded")
    verb.add_argument("--workers", metavar="N", type=_natural, help="cores to work on (all)")
    verb.add_argument(
        "--dask",
        metavar="ADDRESS",
        help="work on the Dask cluster of this scheduler, such as tcp://host:8786",
    )
    verb.add_argument(
        "--strict", action="store_true", help="one bad recording ends it all; else the rest goes on"
    )
    verb.add_argument(
        "--dry-run", action="store_true", help="read the headers, tell what would be done, write nothing"
    )
    _author(verb)
    _reading(verb)
    _json(verb)


def _look(add: Verbs) -> None:
    verb = add("info", "verbs_read:info", "tell what a store holds")
    _store(verb)
    _json(verb)
    verb = add("episodes", "verbs_read:episodes", "list the episodes of a store")
    _store(verb)
    _json(verb)
    verb = add(
        "show",
        "verbs_show:show",
        "tell all about one episode: streams, clocks, rights, what became of each field",
    )
    verb.add_argument("src", metavar="SRC#EPISODE", help="an episode of a store or of a recording")
    _reading(verb)
    _json(verb)
    verb = add(
        "sheet", "verbs_show:sheet", "draw one episode as a contact sheet: cameras, states, commands, events"
    )
    verb.add_argument("src", metavar="SRC#EPISODE", help="an episode of a store or of a recording")
    verb.add_argument("out", metavar="OUT.png", help="the picture to write")
    verb.add_argument("--columns", metavar="N", type=_natural, default=8, help="frames per camera (8)")
    _reading(verb)
    _json(verb)
    verb = add("view", "verbs_view:view", "replay one episode in the viewer: Rerun, of the extra `viewer`")
    verb.add_argument("src", metavar="SRC#EPISODE", help="an episode of a store or of a recording")
    verb.add_argument("--web", action="store_true", help="show it in a browser of this machine")
    verb.add_argument(
        "--port", metavar="N", type=_natural, default=0, help="port of the browser's page (any that is free)"
    )
    verb.add_argument("--save", metavar="FILE.rrd", help="keep it as a file that `rerun` opens")
    verb.add_argument(
        "--at",
        metavar="FRAME|SECONDS",
        type=_moment,
        help="frame (120) or time (4.0s) that it begins at",
    )
    _robot(verb)
    _reading(verb)
    _json(verb)
    verb = add(
        "shot", "verbs_view:shot", "take a picture of the viewer that shows one episode; needs no display"
    )
    verb.add_argument("src", metavar="SRC#EPISODE", help="an episode of a store or of a recording")
    verb.add_argument(
        "out", metavar="OUT", help="the picture to write: PNG, or for one that moves OUT.webp or OUT.gif"
    )
    verb.add_argument(
        "--at", metavar="FRAME|SECONDS", type=_moment, help="frame (120) or time (4.0s) to show (the middle)"
    )
    verb.add_argument(
        "--frames", metavar="N", type=_natural, help="pictures of one that moves, the first to the last (24)"
    )
    verb.add_argument(
        "--backend",
        default="auto",
        choices=("auto", "native", "xvfb", "chromium"),
        help="what draws: the viewer without a window, in a window without a screen, a browser (auto)",
    )
    _robot(verb)
    _reading(verb)
    _json(verb)

    _look_at_many(add)


def _look_at_many(add: Verbs) -> None:
    verb = add(
        "events",
        "verbs_browse:events",
        "tell what is odd about episodes: gaps, frozen cameras, jumps, limits",
    )
    verb.add_argument("src", metavar="STORE|SRC[#EPISODE]", help="a store, a recording, or one episode of it")
    verb.add_argument("--no-cameras", action="store_true", help="do not decode any picture")
    _robot(verb)
    _reading(verb)
    _json(verb)
    verb = add("compare", "verbs_browse:compare", "replay two episodes side by side, with one cursor")
    verb.add_argument("a", metavar="A#EPISODE", help="an episode of a store or of a recording")
    verb.add_argument("b", metavar="B#EPISODE", help="another, of the same or of another")
    verb.add_argument(
        "--align",
        choices=("start", "time", "phase"),
        default="start",
        help="begin both at 0, or keep the time of day, or lay the phases of B over those of A (start)",
    )
    verb.add_argument("--web", action="store_true", help="show it in a browser of this machine")
    verb.add_argument(
        "--port", metavar="N", type=_natural, default=0, help="port of the page (any that is free)"
    )
    verb.add_argument("--save", metavar="FILE.rrd", help="keep it as a file that `rerun` opens")
    _robot(verb)
    _reading(verb)
    _json(verb)
    verb = add(
        "browse", "verbs_browse:browse", "show the episodes of a store as cards, with filters and links"
    )
    _store(verb)
    verb.add_argument("--task", metavar="TEXT", default="", help="only episodes whose task holds this")
    verb.add_argument("--robot", metavar="TEXT", default="", help="only episodes whose robot holds this")
    verb.add_argument(
        "--licence", metavar="ID", default="", help="only episodes under this licence, as in CC-BY-4.0"
    )
    verb.add_argument("--open-only", action="store_true", help="only episodes that may be passed on")
    verb.add_argument(
        "--limit", metavar="N", type=_natural, default=24, help="no more than so many cards (24)"
    )
    verb.add_argument("--web", action="store_true", help="show it in a browser of this machine")
    verb.add_argument(
        "--serve", action="store_true", help="open nothing: serve the catalogue, for a viewer that is open"
    )
    verb.add_argument(
        "--port", metavar="N", type=_natural, default=0, help="port of the catalogue (any that is free)"
    )
    verb.add_argument("--cache", metavar="DIR", help="where recordings are kept (the user's cache)")
    verb.add_argument(
        "--cache-size", metavar="GB", type=_positive, default=4.0, help="what the cache is kept below (4)"
    )
    _json(verb)


def _robot(verb: argparse.ArgumentParser) -> None:
    """Add which robot is drawn, and whose limits hold."""
    group = verb.add_argument_group("which robot it is")
    group.add_argument(
        "--robot", metavar="NAME", help="a bundled robot, such as so101; `none` (what the episode says)"
    )
    group.add_argument("--urdf", metavar="FILE", help="a robot of your own")
    group.add_argument("--joint-unit", choices=("rad", "deg"), help="of joints whose unit nobody has told")


def _rights(add: Verbs, verbs: _Group) -> None:
    group = verbs.add_parser(
        "rights", help="state rights: init, check, set", description="State rights.", allow_abbrev=False
    )
    below = group.add_subparsers(metavar="init|check|set", title="verbs", required=True)
    verb = add("init", "verbs_rights:init", "write a commented rights.toml to fill in", below)
    verb.add_argument(
        "file",
        metavar="FILE",
        nargs="?",
        default="rights.toml",
        help="file to write, never over another (rights.toml)",
    )
    _json(verb)
    verb = add(
        "check",
        "verbs_rights:check",
        "tell what is wrong with a rights.toml, and what it still keeps closed",
        below,
    )
    verb.add_argument("file", metavar="FILE", help="the rights.toml to check")
    _policy(verb)
    _json(verb)
    verb = add(
        "set", "verbs_rights:set_rights", "put the rights of a rights.toml on episodes of a store", below
    )
    _store(verb)
    verb.add_argument("file", metavar="FILE", help="the rights.toml that holds from now on")
    verb.add_argument(
        "--episode",
        metavar="E",
        action="append",
        help="only this episode: id, beginning of it or number; may be repeated",
    )
    _author(verb)
    _json(verb)
    verb = add(
        "why", "verbs_rights:why", "tell what keeps the episodes of a store closed, and what would open them"
    )
    verb.add_argument("store", metavar="STORE[#EPISODE]", help="a store, or one episode of it")
    _policy(verb)
    _json(verb)


def _keep(add: Verbs) -> None:
    verb = add(
        "verify", "verbs_keep:verify", "check every hash, index and count of a store; exit 1 on any damage"
    )
    _store(verb)
    verb.add_argument("--decode", action="store_true", help="also decode every frame of every camera")
    _json(verb)
    verb = add("compact", "verbs_keep:compact", "merge small segments into large ones by copying bytes")
    _store(verb)
    _author(verb)
    _json(verb)
    verb = add(
        "derive", "verbs_keep:derive", "make smaller copies of the cameras, for training on small pictures"
    )
    _store(verb)
    verb.add_argument(
        "--resize", metavar="HxW", type=_size, required=True, help="height and width, or one number for both"
    )
    verb.add_argument("--video", choices=PROFILES, default="train", help="how they are stored (train)")
    verb.add_argument(
        "--quality", metavar="DB", type=_positive, default=37.0, help="PSNR to aim at, in dB (37)"
    )
    _author(verb)
    _json(verb)
    verb = add("gc", "verbs_keep:gc", "remove what no entry of the commit log claims")
    _store(verb)
    verb.add_argument(
        "--grace",
        metavar="HOURS",
        type=_hours,
        default=24.0,
        help="leave alone what is younger than this (24)",
    )
    verb.add_argument("--dry-run", action="store_true", help="tell what would be removed, remove nothing")
    _json(verb)


def _sync(add: Verbs) -> None:
    verb = add("publish", "verbs_sync:publish", "publish exactly the open episodes of a store")
    _store(verb)
    verb.add_argument(
        "target", metavar="TARGET", help="hf://datasets/ORG/NAME, or a folder or URL of a mirror"
    )
    verb.add_argument("--plan-only", action="store_true", help="tell what would be done, and send nothing")
    verb.add_argument("--out", metavar="PLAN.json", help="with --plan-only: save the plan to a new file")
    verb.add_argument("--apply", metavar="PLAN.json", help="carry out a saved plan, if it still holds")
    verb.add_argument("--yes", action="store_true", help="do not ask before anything is sent")
    verb.add_argument(
        "--split", action="store_true", help="a target for each licence: its id is put behind TARGET"
    )
    verb.add_argument(
        "--prune", action="store_true", help="also remove episodes that are merely not in this store"
    )
    verb.add_argument(
        "--author", metavar="NAME", default="publisher", help="whom the public log names (publisher)"
    )
    verb.add_argument("--private", action="store_true", help="for the Hub: nobody but its owners may see it")
    verb.add_argument(
        "--gated",
        choices=("auto", "manual"),
        default=False,
        help="for the Hub: whoever wants the files has to ask, and is let in by itself or by a person",
    )
    verb.add_argument(
        "--single-writer",
        action="store_true",
        help="promise that nobody else publishes there, where a server cannot tell publishers apart",
    )
    verb.add_argument(
        "--purge",
        action="store_true",
        help="then delete for good what withdrawn episodes left in older revisions; those are gone for all",
    )
    _policy(verb)
    _json(verb)
    verb = add("withdraw", "verbs_sync:withdraw", "take episodes of a store back, for good")
    _store(verb)
    verb.add_argument(
        "episode", metavar="EPISODE", nargs="+", help="an episode: id, beginning of it or number"
    )
    verb.add_argument(
        "--reason",
        required=True,
        choices=("consent", "licence", "court", "error", "safety"),
        help="why; it becomes public",
    )
    verb.add_argument(
        "--note", metavar="TEXT", default="", help="what else there is to say; it stays private"
    )
    _author(verb)
    _json(verb)
    verb = add("audit", "verbs_sync:audit", "check what is published anywhere, with nothing but the place")
    verb.add_argument(
        "target", metavar="TARGET", help="hf://datasets/ORG/NAME, or a folder or URL of a mirror"
    )
    verb.add_argument("--full", action="store_true", help="read and hash every file instead of a sample")
    verb.add_argument("--revision", metavar="REV", help="an earlier state: commit, tag or generation")
    _json(verb)
    verb = add("pull", "verbs_sync:pull", "bring what is published home, or an earlier pull up to date")
    verb.add_argument(
        "target", metavar="TARGET", help="hf://datasets/ORG/NAME, or a folder or URL of a mirror"
    )
    verb.add_argument("dir", metavar="DIR", help="local folder of a store")
    verb.add_argument("--revision", metavar="REV", help="an earlier state: commit, tag or generation")
    _json(verb)


def _export(add: Verbs) -> None:
    verb = add("export", "verbs_export:export", "write the open episodes of a store in another format")
    _store(verb)
    verb.add_argument("dir", metavar="DIR", help="new folder")
    verb.add_argument("--to", required=True, choices=("lerobot-v3",), help="the format")
    verb.add_argument(
        "--all", action="store_true", help="also what is not open, for use in the house; the card says so"
    )
    verb.add_argument(
        "--episode",
        metavar="E",
        action="append",
        help="only this episode: id, beginning of it or number; may be repeated",
    )
    verb.add_argument("--licence", metavar="ID", help="the class that goes, where there are several")
    verb.add_argument("--clock", metavar="NAME", help="whose samples become rows (that of the commands)")
    verb.add_argument(
        "--align",
        choices=("drop", "previous"),
        default="drop",
        help="streams on other clocks: leave them out, or take the latest sample before each row (drop)",
    )
    _policy(verb)
    _json(verb)


# argparse says "invalid _positive value" unless the type raises its own error.
def _positive(text: str) -> float:
    number = _number(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not above 0")
    return number


def _size(text: str) -> tuple[int, int]:
    height, divider, width = text.lower().partition("x")
    return _natural(height), _natural(width if divider else height)


def _hours(text: str) -> float:
    number = _number(text)
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of hours")
    return number


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None


def _moment(text: str) -> int | float:
    # A whole number is a frame; one with a point or an s is seconds.
    if text.isascii() and text.isdecimal():
        return int(text)
    try:
        seconds = float(text.removesuffix("s"))
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no frame, such as 120, and no time, such as 4.0s")
    return seconds


def _count(text: str) -> int:
    if not text.isascii() or not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0 up")
    return int(text)


def _natural(text: str) -> int:
    if _count(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not above 0")
    return int(text)
