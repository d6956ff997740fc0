"""The verb that tells what this machine can do, and how to get the rest."""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from .machine import installed, missing_of, pip_line, requirements
from .output import heading, line, megabytes, report, table

_MODULES = {"google-crc32c": "google_crc32c", "huggingface-hub": "huggingface_hub", "pillow": "PIL"}
_LITTLE_SPACE = 2 << 30
_RERUN = "0.41"  # as the extra and viewer/rerun.py pin it
_CODECS = (
    # What has it, r(ead) or w(rite), the names that FFmpeg may have it under, whether teleopen needs it.
    ("H.264 decoder", "r", ("h264",), True),
    ("AV1 decoder", "r", ("libdav1d",), True),
    ("HEVC decoder", "r", ("hevc",), True),
    ("VP9 decoder", "r", ("vp9",), True),
    ("H.264 encoder", "w", ("libx264",), True),
    ("H.264 RGB encoder", "w", ("libx264rgb",), True),
    ("AV1 encoder", "w", ("libsvtav1",), True),
)

Check = dict[str, Any]


def doctor(args: argparse.Namespace) -> int:
    """Tell what this machine can do; exit code 1 if something that teleopen cannot do without is broken."""
    checks = [*_python(), *_core(), *_codecs(), *_zarr_codec(), *_confinement(), *_viewer(), *_machine()]
    extras = [
        {"extra": extra, "missing": missing_of(extra), "fix": pip_line(extra) if missing_of(extra) else None}
        for extra in sorted(filter(None, requirements()))
    ]
    document = {
        "ok": all(check["state"] != "broken" for check in checks),
        "teleopen": installed("teleopen"),
        "checks": checks,
        "extras": extras,
    }
    report(document, _show, as_json=args.json)
    return 0 if document["ok"] else 1


def _check(name: str, state: str, detail: str, fix: str | None = None) -> Check:
    return {"name": name, "state": state, "detail": detail, "fix": fix}


def _python() -> Iterator[Check]:
    fine = sys.version_info >= (3, 11)
    told = f"{platform.python_version()} ({platform.python_implementation()}, {platform.platform()})"
    yield _check("python", "ok" if fine else "broken", told, None if fine else "install Python 3.11 or newer")


def _core() -> Iterator[Check]:
    for name in requirements()[""]:
        try:
            importlib.import_module(_MODULES.get(name, name))
        except Exception as error:  # noqa: BLE001 - a broken binary may raise anything, and that is the finding
            yield _check(
                name, "broken", f"cannot be imported: {error}", f"pip install --force-reinstall {name}"
            )
        else:
            yield _check(name, "ok", installed(name) or "version unknown")


def _codecs() -> Iterator[Check]:
    try:
        from av.codec import Codec
    except ImportError:
        return  # told already
    for what, mode, names, needed in _CODECS:
        found = next((name for name in names if _has_codec(Codec, name, mode)), None)
        if found:
            yield _check(what, "ok", found)
        else:
            fix = "pip install --force-reinstall --only-binary av av"
            yield _check(what, "broken" if needed else "absent", "PyAV's FFmpeg has none", fix)


def _has_codec(codec: Any, name: str, mode: str) -> bool:
    try:
        codec(name, mode)
    except ValueError:
        return False
    return True


def _confinement() -> Iterator[Check]:
    """Tell what keeps a reader of untrusted recordings in its place on this system."""
    from ..converters import confining

    for ability in confining():
        fix = None if ability.given else "docs/untrusted.md tells what is missing and what still holds"
        yield _check(f"confinement: {ability.name}", "ok" if ability.given else "absent", ability.detail, fix)


def _zarr_codec() -> Iterator[Check]:
    name = "zarr codec teleopen.video"
    try:
        from zarr.registry import get_codec_class

        found = get_codec_class("teleopen.video")
    except Exception as error:  # noqa: BLE001 - an entry point runs foreign code; whatever it raises is the finding
        fix = "pip install --force-reinstall --no-deps teleopen"
        yield _check(name, "broken", f"is not registered: {type(error).__name__}: {error}", fix)
    else:
        yield _check(name, "ok", f"{found.__module__}.{found.__qualname__}")


def _viewer() -> Iterator[Check]:
    """Check what the viewer needs beside its extra; nothing of it is needed for anything else."""
    from ..viewer.renderers import FONTS, GRAPHICS, fonts, has_vulkan, video_decoder

    found = installed("rerun-sdk")
    fits = found is not None and found.startswith(f"{_RERUN}.")
    state = "ok" if fits else "absent" if found is None else "old"
    yield _check("viewer: Rerun", state, found or "not installed", None if fits else pip_line("viewer"))
    graphics = has_vulkan()
    yield _check(
        "viewer: Vulkan",
        "ok" if graphics else "absent",
        "a driver is there" if graphics else "without it, no window and no picture of one",
        None if graphics else f"apt install {GRAPHICS}",
    )
    version, fine = video_decoder()
    yield _check(
        "viewer: ffmpeg",
        "ok" if fine else "old" if version else "absent",
        version or "without it, the viewer in a window shows no H.264 or HEVC; in a browser it does",
        None if fine else "apt install ffmpeg (5.1 or newer)",
    )
    names = fonts()
    yield _check(
        "viewer: fonts",
        "ok" if names else "absent",
        ", ".join(names) or "Chinese, Japanese and Korean texts are boxes",
        None if names else f"apt install {FONTS}",
    )


def _machine() -> Iterator[Check]:
    yield _check("processors", "ok", f"{_usable_cpus()} usable of {os.cpu_count()}")
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    fix = None if free >= _LITTLE_SPACE else "free some, or set TMPDIR to a larger disk"
    yield _check("temporary files", "low" if fix else "ok", f"{megabytes(free)} free in {folder}", fix)


def _usable_cpus() -> int:
    """Return how many cores this process may use, which in a container can be few of many."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _show(document: dict[str, Any]) -> None:
    line(f"teleopen {document['teleopen']}")
    line()
    table(
        ("what", "state", "detail", "how to mend it"),
        [(c["name"], c["state"], c["detail"], c["fix"]) for c in document["checks"]],
    )
    heading("extras")
    table(
        ("extra", "state", "how to add it"),
        [(e["extra"], "absent" if e["missing"] else "present", e["fix"]) for e in document["extras"]],
    )
    line()
    line(
        "everything that teleopen cannot do without works"
        if document["ok"]
        else "something is broken: see above"
    )
