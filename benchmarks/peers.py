"""The libraries that we are compared with. One that is absent is named, never imitated."""

from __future__ import annotations

import importlib
from typing import Any

_HOW = {
    "simplejpeg": "pip install simplejpeg",
    "torchcodec": "pip install torch torchcodec (and FFmpeg's shared libraries)",
    "lerobot": "pip install lerobot==0.4.4 (see docs/benchmarks.md)",
}
_MODULES = {
    "simplejpeg": "simplejpeg",
    "torchcodec": "torchcodec.decoders",
    "lerobot": "lerobot.datasets.lerobot_dataset",
}


def peer(name: str, absent: list[str]) -> Any | None:
    """Return a peer's module; if it cannot be imported, None, and add to ``absent`` how to get it."""
    try:
        return importlib.import_module(_MODULES[name])
    except Exception as error:  # noqa: BLE001 - libraries that do not fit the machine raise all kinds
        why = "" if isinstance(error, ModuleNotFoundError) else f", and {type(error).__name__} on import"
        line = f"{name}{why}: {_HOW[name]}"
        if line not in absent:
            absent.append(line)
        return None
