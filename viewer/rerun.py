"""The only door to Rerun: whatever this package uses of it is imported here, and nowhere else.

Rerun's API and its recordings change with every minor version, so the extra ``viewer`` pins one and this
module refuses any other. What Rerun would log and drop elsewhere is an error here: strict mode is on.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from ..schemas import MissingExtraError, StoreError

VERSION = "0.41"
_FAREWELL = 3.0  # seconds that viewers have to leave a catalogue that ends
_ADVICE = "pip install 'teleopen[viewer]'"

try:
    import rerun as rr
    import rerun.blueprint as rrb
    import rerun.chunk as rrc
except ImportError as error:
    raise MissingExtraError(f"the viewer needs rerun-sdk {VERSION}: {_ADVICE}") from error

if not rr.__version__.startswith(f"{VERSION}."):
    raise MissingExtraError(f"rerun-sdk is {rr.__version__}, and the viewer needs {VERSION}: {_ADVICE}")

if TYPE_CHECKING:
    from rerun.experimental import ViewerClient

rr.set_strict_mode(True)

__all__ = ["VERSION", "catalogue", "connected", "executable", "rr", "rrb", "rrc", "saved", "tables"]


def executable() -> Path:
    """Return the viewer's program. The command ``rerun`` only starts it, and would leave it behind.

    Raises
    ------
    MissingExtraError
        If this installation of rerun-sdk has none.
    """
    found = importlib.util.find_spec("rerun_cli")
    folder = Path(found.origin if found and found.origin else "rerun_cli").parent
    places = ("rerun", "rerun.exe", "Rerun.app/Contents/MacOS/Rerun")
    for place in places:
        if folder.joinpath(place).is_file():
            return folder.joinpath(place)
    raise MissingExtraError(f"this rerun-sdk came without its viewer: {_ADVICE}")


@contextmanager
def saved(path: Path, application: str, recording: str) -> Iterator[rr.RecordingStream]:
    """Give a recording that is a file once the block has ended without an error, and nothing otherwise.

    Parameters
    ----------
    path
        Where it goes; a file that is there is replaced.
    application
        Recordings of one application share the viewer's layout.
    recording
        Its id.

    Raises
    ------
    StoreError
        If the file cannot be written.
    """
    part = path.with_name(f".{path.name}.part")
    stream = rr.RecordingStream(application, recording_id=recording, send_properties=False)
    try:
        try:
            stream.save(part)
        except RuntimeError as error:
            raise StoreError(str(path), f"the recording cannot be written: {error}") from error
        yield stream
        stream.flush()
        stream.disconnect()
        try:
            part.replace(path)
        except OSError as error:
            raise StoreError(str(path), f"the recording cannot be written: {error.strerror}") from error
    finally:
        stream.disconnect()
        part.unlink(missing_ok=True)


def connected(port: int) -> ViewerClient:
    """Return what drives a viewer of this machine that listens on a port."""
    from rerun.experimental import ViewerClient

    return ViewerClient(f"rerun+http://127.0.0.1:{port}/proxy")


@contextmanager
def catalogue(port: int = 0) -> Iterator[Any]:
    """Give Rerun's own server of recordings, as `rerun.server.Server`, which listens on this machine only.

    Raises
    ------
    MissingExtraError
        If what it needs is not installed, or the port is taken.
    """
    try:
        from rerun.server import Server

        server = Server(host="127.0.0.1", port=port)
    except ImportError as error:
        raise MissingExtraError(f"this needs rerun-sdk with its catalogue: {_ADVICE}") from error
    except (OSError, RuntimeError, ValueError) as error:
        raise MissingExtraError(
            f"the catalogue cannot listen on port {port} of this machine: {error}"
        ) from error
    try:
        yield server
    finally:
        # It waits for its viewers to go, which they may not: the process is not kept for that.
        ending = Thread(target=server.shutdown, daemon=True)
        ending.start()
        ending.join(_FAREWELL)


def tables() -> Any:
    """Return `rerun.blueprint.table`: how a catalogue is laid out."""
    import rerun.blueprint.table as layout

    return layout
