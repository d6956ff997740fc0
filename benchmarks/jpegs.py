"""The recording as JPEG files, for the peers that read such."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .corpus import Bench
from .sample import ACTION, CAMERAS, EPISODES, STATE


def make_jpegs(bench: Bench, folder: Path) -> None:
    """Write all episodes' pictures one behind the other, a file for each camera, and where each begins."""
    folder.mkdir()
    offsets: list[list[tuple[int, int]]] = []
    for number, camera in enumerate(CAMERAS):
        offsets.append([])
        jpegs = [_as_jpeg(frame) for frame in bench.clips[camera]]
        with folder.joinpath(f"{number}.bin").open("wb") as file:
            for jpeg in jpegs * EPISODES:
                offsets[-1].append((file.tell(), len(jpeg)))
                file.write(jpeg)
    folder.joinpath("offsets.json").write_text(json.dumps(offsets))
    np.savez(folder / "values.npz", **{name: bench.streams[name] for name in (STATE, ACTION)})


def _as_jpeg(frame: np.ndarray[Any, Any]) -> bytes:
    """Return a picture as JPEG q80 4:2:0."""
    data = io.BytesIO()
    Image.fromarray(frame).save(data, "JPEG", quality=80, subsampling="4:2:0")
    return data.getvalue()
