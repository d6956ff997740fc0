"""Episodes at rest: the store, its commit log, its camera codec. It does not know where episodes come from.

The names below load what they need when they are first used, so that importing the package is cheap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .ingest import WriteReport
    from .options import WriteOptions
    from .store import Store, create_store, open_store

_HOME = {
    "Store": "store",
    "WriteOptions": "options",
    "WriteReport": "ingest",
    "create_store": "store",
    "open_store": "store",
}

__all__ = ["Store", "WriteOptions", "WriteReport", "create_store", "open_store"]


def __getattr__(name: str) -> Any:
    import importlib

    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
