"""What is known of the datasets of Open X-Embodiment and their kin: a table, ``_oxe.toml``, and its reader.

RLDS stores no rates, and nothing of what the axes of an action mean. The table tells these for datasets by
name, each with its source. It declares and changes no values.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

from ..schemas import ActionPart, Json

_TABLE = "_oxe.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of one feature.

    Attributes
    ----------
    stored_order
        ``bgr`` where red and blue of the stored pictures stand in each other's place.
    inflate
        NumPy name and shape of what the bytes of a text inflate to.
    text
        ``codepoints`` for integers that are characters, with zeros behind them.
    """

    unit: tuple[str, ...] = ()
    frame: str = ""
    axes: tuple[str, ...] = ()
    stored_order: str = ""
    inflate: tuple[str, tuple[int, ...]] | None = None
    text: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What is known of a dataset.

    Attributes
    ----------
    parts
        Of the action, by the feature's key below ``steps/``.
    features
        Other facts, by the feature's key below ``steps/``.
    quirks
        What a user of the data must know.
    """

    name: str
    rate_hz: float | None = None
    rate_source: str = ""
    robot: str = ""
    evidence: str = ""
    parts: Mapping[str, tuple[ActionPart, ...]] = field(default_factory=dict)
    features: Mapping[str, Facts] = field(default_factory=dict)
    quirks: tuple[str, ...] = ()


@cache
def table() -> Mapping[str, Entry]:
    """Return all entries by the dataset's name."""
    document = tomllib.loads(files(__package__).joinpath(_TABLE).read_text(encoding="utf-8"))
    sources, layouts = document["sources"], document["layouts"]
    return {name: _entry(name, told, sources, layouts) for name, told in document["datasets"].items()}


def entry_of(name: str) -> Entry:
    """Return what is known of a dataset; nothing, if its name is not in the table."""
    return table().get(name, Entry(name=name))


def _entry(
    name: str, told: Mapping[str, Any], sources: Mapping[str, str], layouts: Mapping[str, Mapping[str, Any]]
) -> Entry:
    layout = layouts[told["layout"]] if "layout" in told else {}
    action = {**layout.get("action", {}), **told.get("action", {})}
    said = dict.fromkeys([*layout.get("from", []), *told.get("from", [])])
    return Entry(
        name=name,
        rate_hz=told.get("rate_hz"),
        rate_source=sources[told["rate_from"]] if "rate_from" in told else "",
        robot=told.get("robot", ""),
        evidence="; ".join(sources[s] for s in said),
        parts={key: tuple(map(_part, parts)) for key, parts in action.items()},
        features={key: _facts(found) for key, found in told.get("features", {}).items()},
        quirks=tuple(told.get("quirks", ())),
    )


def _part(told: Mapping[str, Json]) -> ActionPart:
    """Return a part of an action. Joints and grippers stand in no coordinate frame."""
    start, stop = told["axes"]
    frameless = told["space"] in {"joint_position", "joint_velocity", "gripper"}
    return ActionPart(
        start=start,
        stop=stop,
        space=told["space"],
        mode=told.get("mode", "unknown"),
        frame=told.get("frame", None if frameless else "unknown"),
        rotation=told.get("rotation", "none" if frameless or told["space"] == "ee_position" else "unknown"),
        gripper_closed=_real(told.get("closed")),
        gripper_open=_real(told.get("open")),
    )


def _real(value: float | None) -> float | None:
    return None if value is None else float(value)


def _facts(told: Mapping[str, Any]) -> Facts:
    inflate = told.get("inflate")
    return Facts(
        unit=tuple(told.get("unit", ())),
        frame=told.get("frame", ""),
        axes=tuple(told.get("axes", ())),
        stored_order=told.get("stored_order", ""),
        inflate=(inflate["dtype"], tuple(inflate["shape"])) if inflate else None,
        text=told.get("text", ""),
        note=told.get("note", ""),
    )
