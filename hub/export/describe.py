"""The documents of a LeRobot dataset: info.json, modality.json, card, licences, and what became of all."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..sync.card import licence_members, size_category
from ..sync.markup import Word, Yaml, code, shown, table, yaml_block
from ..sync.notice import NOTICE, licence_files, notice
from .choose import Chosen
from .features import ACTION, BOOKKEEPING, RECORDED, STATE, Column, Features, Slice
from .tables import DATA_PATH
from .tables import FILE_BYTES as DATA_BYTES
from .video import FILE_BYTES as VIDEO_BYTES
from .video import PER_CHUNK, VIDEO_PATH

if TYPE_CHECKING:
    from .lerobot import ExportReport

VERSION = "v3.0"
_ROTATIONS = {
    "axis_angle": "axis_angle",
    "rotation_6d": "rotation_6d",
    "matrix": "matrix",
    "euler_xyz": "euler_angles_rpy",
    "quaternion_xyzw": "quaternion",
    "quaternion_wxyz": "quaternion",
}


def info(
    features: Features, forms: Mapping[str, tuple[str, str, int, int]], report: ExportReport, tasks: int
) -> dict[str, Any]:
    """Return info.json.

    Parameters
    ----------
    forms
        Codec, pixel format, width and height of each camera.
    """
    return {
        "codebase_version": VERSION,
        "robot_type": features.robot,
        "total_episodes": report.episodes,
        "total_frames": report.frames,
        "total_tasks": tasks,
        "chunks_size": PER_CHUNK,
        "data_files_size_in_mb": DATA_BYTES >> 20,
        "video_files_size_in_mb": VIDEO_BYTES >> 20,
        "fps": features.fps,
        "splits": {"train": f"0:{report.episodes}"},
        "data_path": DATA_PATH,
        "video_path": VIDEO_PATH if features.cameras else None,
        "features": {
            **{column.name: _column(column) for column in features.columns},
            **{name: _camera(form, features.fps) for name, form in forms.items()},
            **_bookkeeping(recorded=features.recorded),
        },
    }


def _column(column: Column) -> dict[str, Any]:
    names = list(column.names) if column.names else None
    return {"dtype": column.dtype, "shape": list(column.shape), "names": names}


def _camera(form: tuple[str, str, int, int], fps: float) -> dict[str, Any]:
    codec, pixels, width, height = form
    return {
        "dtype": "video",
        "shape": [height, width, 3],
        "names": ["height", "width", "channels"],
        "info": {
            "video.height": height,
            "video.width": width,
            "video.codec": codec,
            "video.pix_fmt": pixels,
            "video.is_depth_map": False,
            "video.fps": fps,
            "video.channels": 3,
            "has_audio": False,
        },
    }


def _bookkeeping(*, recorded: bool) -> dict[str, Any]:
    one = {"shape": [1], "names": None}
    names = [RECORDED, *BOOKKEEPING] if recorded else BOOKKEEPING
    return {name: {"dtype": "float32" if name == "timestamp" else "int64", **one} for name in names}


def modality(features: Features) -> dict[str, Any]:
    """Return GR00T's modality.json: the named slices of state and action, the cameras, the task."""
    columns = {column.name: column for column in features.columns}
    sections: dict[str, Any] = {"state": {}, "action": {}}
    for section, name in (("state", STATE), ("action", ACTION)):
        for part in columns[name].slices if name in columns else ():
            sections[section] |= _slice(features, part)
    cameras = {name.rpartition(".")[2]: {"original_key": name} for name in features.cameras}
    text = {"human.task_description": {"original_key": "task_index"}}
    return {**sections, "video": cameras, "annotation": text}


def _slice(features: Features, part: Slice) -> dict[str, Any]:
    """Return the entries of a slice: one for each part of its contract, where that is known."""
    contract = features.specs[part.stream].contract
    if contract is None or not contract.parts:
        return {part.name: {"start": part.start, "end": part.stop}}
    found = {}
    spaces = Counter(one.space for one in contract.parts)
    for at, one in enumerate(contract.parts):
        name = one.space if spaces[one.space] == 1 else f"{one.space}_{at}"
        whole = len(contract.parts) == 1 and one.stop - one.start == part.stop - part.start
        told: dict[str, Any] = {"start": part.start + one.start, "end": part.start + one.stop}
        if one.mode != "unknown":
            told["absolute"] = one.mode == "absolute"
        if one.rotation in _ROTATIONS:
            told["rotation_type"] = _ROTATIONS[one.rotation]
        found[part.name if whole else f"{part.name}_{name}"] = told
    return found


def documents(
    chosen: Chosen, features: Features, report: ExportReport, made: Mapping[str, Any], tool: str
) -> dict[str, bytes]:
    """Return all documents by path: those of LeRobot, the card, the licences, the report."""
    found = {path: _json(document) for path, document in made.items()}
    found["meta/teleopen.json"] = _json(_report(chosen, features, report, tool))
    found["README.md"] = _card(chosen, features, report)
    if chosen.licence:
        found |= licence_files(chosen.licence)
        changes = "\nAll of it was then brought into the format of LeRobot v3.0: see README.md.\n"
        found[NOTICE] = notice(chosen.public.values()) + changes.encode()
    return found


def _json(document: object) -> bytes:
    return json.dumps(document, ensure_ascii=False, indent=4, allow_nan=False).encode() + b"\n"


def _report(chosen: Chosen, features: Features, report: ExportReport, tool: str) -> dict[str, Any]:
    """Return meta/teleopen.json; what stays, and the private store itself, are matters of the house."""
    state, open_only = chosen.store.state, chosen.selection is not None
    source = {"dataset": state.dataset, "version": state.version, "head": state.head}
    return {
        "export": 1,
        "tool": tool,
        "source": None if open_only else source,
        "open_only": open_only,
        "licence": chosen.licence or None,
        "episodes": report.episodes,
        "clock": features.clock or "that of the commands",
        "vectors": {
            column.name: [
                {"name": s.name, "stream": s.stream, "start": s.start, "stop": s.stop} for s in column.slices
            ]
            for column in features.columns
            if column.name in {STATE, ACTION}
        },
        "cameras": report.cameras,
        "dropped": report.dropped,
        "notes": list(report.notes),
        "units": {name: list(spec.unit) for name, spec in features.specs.items() if spec.kind == "low_dim"},
    }


# --- the card -----------------------------------------------------------------------------------------


def _card(chosen: Chosen, features: Features, report: ExportReport) -> bytes:
    licence: dict[str, Yaml] = {"license": Word("other"), "license_name": Word("not-for-others")}
    header: dict[str, Yaml] = {
        **(licence_members(chosen.licence) if chosen.licence else licence),
        "task_categories": [Word("robotics")],
        "tags": [Word("LeRobot"), Word("robotics"), Word("teleopen")],
        "size_categories": [size_category(report.frames)],
        "configs": [{"config_name": Word("default"), "data_files": "data/*/*.parquet"}],
    }
    size = f"{report.episodes:,} episodes, {report.frames:,} frames at {report.fps:g} Hz"
    parts = [
        "# Robot demonstrations for LeRobot\n",
        f"{size}, exported from a teleopen store. meta/teleopen.json tells what became of everything.\n",
        _licence(chosen),
        _use(),
        "## What is in it\n\n" + _contents(features, report),
    ]
    if report.dropped:
        rows = [[code(what), shown(why)] for what, why in report.dropped.items()]
        parts.append("## What was left out\n\n" + table(("of the store", "why"), rows))
    if report.notes:
        parts.append("## Notes\n\n" + "".join(f"- {shown(note)}\n" for note in report.notes))
    return f"---\n{yaml_block(header)}---\n\n{chr(10).join(parts)}".encode()


def _licence(chosen: Chosen) -> str:
    if not chosen.licence:
        return (
            "**This holds episodes whether they are open or not. It is for the house that recorded them, "
            "and not to be passed on or published.**\n"
        )
    return (
        f"Every episode is open under {code(chosen.licence)}. [NOTICE](NOTICE) names the works and "
        "LICENSES/ has the full texts; both belong to every copy.\n"
    )


def _use() -> str:
    return """\
```python
from lerobot.datasets.lerobot_dataset import LeRobotDataset

dataset = LeRobotDataset("org/name", root="this folder")
```
"""


def _contents(features: Features, report: ExportReport) -> str:
    rows = [
        [
            code(column.name),
            code(column.dtype),
            " × ".join(map(str, column.shape)),
            ", ".join(f"{code(part.stream)} {part.start}:{part.stop}" for part in column.slices),
        ]
        for column in features.columns
    ]
    for name, told in report.cameras.items():
        anew = "; ".join(f"{count:,} encoded anew: {shown(why)}" for why, count in told["transcoded"].items())
        kept = f"{told['remuxed']:,} episodes with the packets of the store"
        rows.append([code(name), "video", "", "; ".join(filter(None, [kept, anew]))])
    return table(("feature", "type", "shape", "made of"), rows)
