"""A link to a moment of one recording: only a catalogue knows such links, so one serves it meanwhile."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from .layout import blueprint
from .plan import Recorded
from .rerun import catalogue
from .timing import FRAME

_NAME = "episode"


@contextmanager
def linking(path: Path, recorded: Recorded) -> Iterator[Callable[[int, int], str]]:
    """Serve a recording on this machine while the block runs.

    Gives what makes a link: from a frame of the main clock and its time, in nanoseconds of the episode, the
    address that opens the recording there, in its own layout.

    Raises
    ------
    MissingExtraError
        If Rerun is not installed with its catalogue.
    """
    with catalogue() as server, tempfile.TemporaryDirectory(prefix="teleopen-") as folder:
        dataset = server.client().create_dataset(_NAME)
        dataset.register([path.resolve().as_uri()]).wait()
        # A catalogue does not hand out the layout that is in a recording.
        layout = Path(folder, "layout.rbl")
        blueprint(recorded).save(_NAME, layout)
        dataset.register_blueprint(layout.as_uri())
        (segment,) = dataset.segment_ids()

        def link(frame: int, time_ns: int) -> str:
            at = frame if recorded.timeline == FRAME else np.timedelta64(time_ns, "ns")
            return str(dataset.segment_url(segment, timeline=recorded.timeline, start=at, end=at))

        yield link
