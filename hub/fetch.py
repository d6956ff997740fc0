"""Brings recordings from any fsspec URL to this machine, as they are at one moment."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..schemas import FormatError, NotFoundError

_MAX_FILES = 1_000_000


@dataclass(frozen=True, slots=True)
class Pinned:
    """A URL that will give the same tomorrow, as far as the place can promise it.

    Attributes
    ----------
    revision
        The commit it names; None where there are none.
    """

    url: str
    revision: str | None = None


def expand(url: str) -> list[str]:
    """Return the URLs that a URL with ``*``, ``?`` or ``[`` stands for, in order; else the URL itself.

    Raises
    ------
    NotFoundError
        If none fits.
    FormatError
        If the place cannot be asked.
    """
    if not any(mark in url for mark in "*?["):
        return [url]
    scheme = url.partition("://")[0]
    with _told(url):
        fs, path = _opened(url)
        found = sorted(str(name) for name in fs.glob(path))
    if not found:
        raise NotFoundError(f"{url}: nothing there fits")
    return [name if "://" in name else f"{scheme}://{name}" for name in found]


def pin(url: str) -> Pinned:
    """Return the URL with the commit that its branch is at now; only ``hf://`` has such.

    Raises
    ------
    FormatError
        If the Hub cannot be asked.
    """
    if not url.startswith("hf://"):
        return Pinned(url)
    from dataclasses import replace

    with _told(url):
        fs, path = _opened(url)
        place = fs.resolve_path(path)
        # The place of an old client has one more field, in which it keeps the revision as it was typed.
        plain = {"_raw_revision": None} if hasattr(place, "_raw_revision") else {}
        told = fs._api.repo_info(place.repo_id, repo_type=place.repo_type, revision=place.revision)  # noqa: SLF001 - the client with this endpoint and token has no public name
        return Pinned(f"hf://{replace(place, revision=told.sha, **plain).unresolve()}", told.sha)


def fetch(url: str, folder: Path) -> Path:
    """Copy a file, or all that is below a folder, into ``folder``; return where it is.

    Raises
    ------
    NotFoundError
        If there is nothing.
    FormatError
        If the place or this disk fails, names climb out, or the disk has no room for it.
    """
    with _told(url):
        fs, path = _opened(url)
        root = str(fs.info(path)["name"]).rstrip("/")
        files = _files(fs, root)
    if not files:
        raise NotFoundError(f"{url}: holds no file")
    folder.mkdir(parents=True, exist_ok=True)
    free, size = shutil.disk_usage(folder).free, sum(files.values())
    if size > free:
        raise FormatError(
            url, "", f"is {size:,} bytes; there is room for {free:,}", "Make room, or name a part"
        )
    target = folder / (root.rpartition("/")[2] or "recording")
    for name in files:
        local = target / _inside(url, name) if name else target
        local.parent.mkdir(parents=True, exist_ok=True)
        with _told(url):
            fs.get_file(f"{root}/{name}" if name else root, str(local))
        if local.stat().st_size != files[name]:
            raise FormatError(url, name, "arrived with another size than was announced", "Try again")
    return target


def _files(fs: Any, root: str) -> dict[str, int]:
    """Return the sizes of the files below a folder by relative name; of a file itself under ``""``."""
    if fs.isfile(root):
        return {"": int(fs.size(root))}
    found: dict[str, int] = {}
    for name, info in fs.find(root, detail=True).items():
        if len(found) >= _MAX_FILES:
            raise FormatError(root, "", f"holds more than {_MAX_FILES:,} files", "Name a part of it")
        relative = str(name).removeprefix(f"{root}/")
        if relative and not relative.endswith("/"):
            found[relative] = int(info["size"])
    return found


def _inside(url: str, name: str) -> str:
    """Return a relative name that a server gave, if it stays below the folder."""
    if name.startswith("/") or "\0" in name or "\\" in name or ".." in name.split("/"):
        raise FormatError(url, ascii(name), "is a name that leads out of the folder")
    return name


def _opened(url: str) -> tuple[Any, str]:
    import fsspec

    fs, path = fsspec.url_to_fs(url)
    # A listing that was kept may be of another moment.
    fs.invalidate_cache()
    return fs, path


@contextmanager
def _told(url: str) -> Iterator[None]:
    """Make what any file system raises one of ours."""
    try:
        yield
    except (NotFoundError, FormatError):
        raise
    except FileNotFoundError as error:
        raise NotFoundError(f"{url}: there is nothing") from error
    except (OSError, ValueError, ImportError) as error:
        raise FormatError(url, "", f"cannot be fetched: {error}") from error
