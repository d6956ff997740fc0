"""What this machine has to draw with, found without starting any of it."""

from __future__ import annotations

import ctypes.util
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

GRAPHICS = "mesa-vulkan-drivers libvulkan1"
FONTS = "fonts-wqy-microhei"
PACKAGES = {
    "native": f"{GRAPHICS} ffmpeg",
    "xvfb": f"{GRAPHICS} ffmpeg xvfb xauth libgl1-mesa-dri libegl1 {FONTS}",
    "chromium": f"chromium {FONTS}, and with pip: playwright 'rerun-sdk[catalog]'",
}
"""Debian's packages that each way to draw needs."""

_LEAST_FFMPEG = (5, 1)
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_FONT_FOLDERS = ("/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts")
_CJK = re.compile(
    r"(CJK|wqy-|SourceHan|NotoSans(SC|TC|JP|KR)|ipa[gm]|takao|unifont|uming|ukai)", re.IGNORECASE
)


def missing(backend: str) -> list[str]:
    """Return what a way to draw needs and is not here; empty: it can be tried."""
    found = []
    if backend in {"native", "xvfb"}:
        found += [] if has_vulkan() else ["a Vulkan driver"]
        found += [] if shutil.which("ffmpeg") else ["ffmpeg"]
    if backend == "xvfb" and shutil.which("Xvfb") is None:
        found.append("Xvfb")
    if backend == "chromium":
        found += [] if browser() else ["chromium"]
        found += [name for name in ("playwright", "datafusion") if importlib.util.find_spec(name) is None]
    return found


def has_vulkan() -> bool:
    """Tell whether there is a Vulkan loader and a driver for it, or a system that has its own."""
    if sys.platform != "linux":
        return True
    told = os.environ.get("VK_DRIVER_FILES") or os.environ.get("VK_ICD_FILENAMES")
    folders = [Path(place, "vulkan", "icd.d") for place in ("/usr/share", "/etc", "/usr/local/share")]
    drivers = told or any(any(folder.glob("*.json")) for folder in folders)
    return bool(drivers and ctypes.util.find_library("vulkan"))


def browser() -> str | None:
    """Return a browser that can be driven."""
    return next(filter(None, map(shutil.which, _BROWSERS)), None)


def video_decoder() -> tuple[str, bool]:
    """Return the version of the viewer's ffmpeg, "" for none, and whether it is new enough."""
    program = shutil.which("ffmpeg")
    if program is None:
        return "", False
    done = subprocess.run([program, "-version"], capture_output=True, text=True, check=False, timeout=20)
    version = re.match(r"ffmpeg version (\S+)", done.stdout)
    numbers = re.match(r"n?(\d+)\.(\d+)", version[1]) if version else None
    if version is None or numbers is None:
        return "of an unknown version", True  # a build from a branch, which names no release
    return version[1], (int(numbers[1]), int(numbers[2])) >= _LEAST_FFMPEG


def fonts() -> list[str]:
    """Return the fonts of the system that have the characters of Chinese, Japanese and Korean."""
    if sys.platform != "linux":
        return ["the system's"]
    folders = [Path(folder).expanduser() for folder in _FONT_FOLDERS]
    files = (file for folder in folders if folder.is_dir() for file in folder.rglob("*.[to]t[fc]"))
    return sorted({file.stem for file in files if _CJK.search(file.name)})[:3]
