"""Verbs that replay one episode in the viewer, or take a picture of that."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..schemas import Episode, Event, NotFoundError
from ..viewer.checks import anomalies
from ..viewer.robots import limits
from .origin import Origin, opened, split
from .output import MisuseError, amount, line, megabytes, report, say
from .verbs_browse import arms_of

if TYPE_CHECKING:
    from ..viewer.plan import RecordOptions
    from ..viewer.timing import At

_PICTURES = 24  # of a moving picture, unless told


def view(args: argparse.Namespace) -> int:
    """Replay one episode: in a window, in a browser, or as a file for later."""
    from ..viewer import show
    from ..viewer.link import linking
    from ..viewer.record import write
    from ..viewer.scene import robots
    from ..viewer.timing import Timing

    if not (args.save or args.web or show.has_display()):
        error = NotFoundError("there is no display here to open a window on")
        error.add_note(
            "--web shows it in a browser, --save FILE.rrd keeps it, `teleopen shot` takes a picture"
        )
        raise error
    origin, number, episode = chosen(args)
    at = _at(args)
    moment = None if at is None else Timing(episode, {}).moment(at)
    with tempfile.TemporaryDirectory(prefix="teleopen-") as folder:
        path = Path(args.save) if args.save else Path(folder, "episode.rrd")
        arms = arms_of(episode, args)
        options = options_of(origin, number, episode, anomalies(episode, limits(arms), pictures=False))
        recorded = write(episode, path, options, extend=robots(arms))
        if args.save:
            document = {**_about(args, number, episode), "bytes": path.stat().st_size}
            report(document, lambda d: line(f"{d['file']}: {megabytes(d['bytes'])}"), as_json=args.json)
        if args.web and moment is not None:
            with linking(path, recorded) as link:
                show.web_of(link(*moment), _tell, port=args.port)
        elif args.web:
            show.web([path], _tell, port=args.port)
        elif not args.save:
            show.window([path], None if at is None else partial(_go, at))
    return 0


def _tell(address: str) -> None:
    say(f"open {address} in a browser; Ctrl-C ends it")


def _at(args: argparse.Namespace) -> At | None:
    from ..viewer.timing import At

    if args.at is None:
        return None
    return At(frame=args.at) if isinstance(args.at, int) else At(seconds=args.at)


def _go(at: At, port: int) -> None:
    """Bring the viewer that listens on a port to a frame or a time of the episode."""
    from ..viewer.rerun import connected
    from ..viewer.timing import EPISODE_TIME, FRAME

    if at.frame is not None:
        connected(port).set_time(FRAME, sequence=at.frame, play_state="paused")
    elif at.seconds is not None:
        connected(port).set_time(EPISODE_TIME, duration=at.seconds, play_state="paused")


def shot(args: argparse.Namespace) -> int:
    """Take a picture of the viewer that replays one episode, still or moving; no display is needed."""
    from ..viewer.film import FORMATS, film
    from ..viewer.scene import robots
    from ..viewer.shot import shot as take

    path = Path(args.out)
    moves = path.suffix.lower() in FORMATS
    if moves and args.at is not None:
        raise MisuseError(f"--at is for a still picture, and {args.out} moves; give one")
    if args.frames is not None and not moves:
        raise MisuseError(f"--frames is for a moving picture: end {args.out} in {' or '.join(FORMATS)}")
    origin, number, episode = chosen(args)
    arms = arms_of(episode, args)
    options = options_of(origin, number, episode, anomalies(episode, limits(arms), pictures=False))
    document: dict[str, Any] = _about(args, number, episode)
    extend = robots(arms)
    if moves:
        made = film(
            episode, path, args.frames or _PICTURES, backend=args.backend, options=options, extend=extend
        )
        seconds, size = made.seconds, (made.width, made.height)
        document |= {"backend": made.backend, "frames": list(made.frames)}
    else:
        taken = take(episode, path, _at(args), backend=args.backend, options=options, extend=extend)
        seconds, size = taken.seconds, (taken.width, taken.height)
        document |= {"backend": taken.backend, "frame": taken.frame}
    document |= {"seconds": round(seconds, 6), "width": size[0], "height": size[1]}
    report(document, _show_film if moves else _show_shot, as_json=args.json)
    return 0


def _show_film(document: dict[str, Any]) -> None:
    line(
        f"{document['file']}: {amount(len(document['frames']), 'frame')} in {document['seconds']:.2f} s, "
        f"{document['width']} x {document['height']} pixels, drawn by {document['backend']}"
    )


def _show_shot(document: dict[str, Any]) -> None:
    line(
        f"{document['file']}: frame {document['frame']} at {document['seconds']:.2f} s, "
        f"{document['width']} x {document['height']} pixels, drawn by {document['backend']}"
    )


def _about(args: argparse.Namespace, number: int, episode: Episode) -> dict[str, Any]:
    file = getattr(args, "out", None) or args.save
    return {"source": split(args.src)[0], "number": number, "episode": episode.id, "file": file}


def chosen(args: argparse.Namespace) -> tuple[Origin, int, Episode]:
    """Return where the episode that the command line names comes from, its number, and itself."""
    source, key = split(args.src)
    origin = opened(source, args)
    return origin, *origin.episode(key)


def options_of(origin: Origin, number: int, episode: Episode, events: Sequence[Event] = ()) -> RecordOptions:
    """Return how an episode is recorded: a store decides over what is in it."""
    from ..viewer.plan import RecordOptions

    closed_by = origin.store.why(episode.id) if origin.store else None
    return RecordOptions(closed_by=closed_by, source=f"{origin.text}#{number}", events=events)
