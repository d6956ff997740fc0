"""What of an episode's header leaves the house: an allow-list, field by field.

Every field of the header's data classes stands in a table below with what is done to it; whatever is in no
table is dropped, so that a new field, or one that a newer version wrote, stays private until someone decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...schemas import (
    UNKNOWN,
    ActionContract,
    ActionPart,
    Clock,
    Episode,
    Event,
    FieldFate,
    Json,
    Provenance,
    Rights,
    SchemaError,
    SourceFile,
    Stream,
    StreamSpec,
    from_document,
)
from ...schemas.validate import contradictions
from .redact import GONE, Redactor

VERSION = 4
"""Raised with every change to what comes out, since results are kept between runs."""

ATTRIBUTES = frozenset(
    {
        "crop",
        "depth_scale",
        "distortion",
        "encoding",
        "extrinsics",
        "inpainted",
        "intrinsics",
        "lens",
        "masked",
        "order_evidence",
        "orientation",
        "rotation",
        "stored_order",
    }
)
"""Attributes of a stream that leave: what a reader needs to make sense of the values."""
ENCODING = frozenset({"codec", "crf", "encoder", "profile", "reason", "settings"})
"""Members of a camera's note on how it was encoded that leave."""
OPTIONS = frozenset({"rate_hz"})
"""Options of a converter that leave."""
RIGHTS_OF_A_STREAM = "rights"
"""Attribute in which a stream states stricter rights than its episode's; never published."""

_PRIVATE_TARGETS = ("extra", "provenance.evidence", "provenance.options", "attributes", "unknown")
_NO_RIGHTS = Rights().to_document()

Document = dict[str, Any]
Rule = Callable[["Pass", Any], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scrubbed:
    """A header that may leave.

    Attributes
    ----------
    document
        The header's document.
    problems
        Why it may not leave after all; empty if it may.
    """

    document: Document
    problems: tuple[str, ...]


@dataclass(slots=True)
class Pass:
    """One header's pass: what is known of it, and what was found."""

    redactor: Redactor
    withheld: frozenset[str] = frozenset()
    problems: list[str] = field(default_factory=list)

    def name(self, what: str, name: str) -> str:
        """Check a name that files and arrays bear: it cannot be changed by copying, so it must be clean."""
        if not self.redactor.is_clean_name(name):
            self.problems.append(f"a {what}'s name holds what must not leave; convert it under another name")
        return name

    def speaks_of_withheld(self, text: str) -> bool:
        """Tell whether a text names a stream that stays."""
        return any(name in text for name in self.withheld)


def scrub(header: Mapping[str, Json], names: Iterable[str] = (), withheld: Iterable[str] = ()) -> Scrubbed:
    """Return the public form of an episode's header.

    It says nothing about rights: those stand in the public log.

    Parameters
    ----------
    header
        The document as it is stored.
    names
        Of people that nobody asked to be named.
    withheld
        Streams that stay, and of which nothing is told.
    """
    work = pass_over(header, names, withheld)
    document = {"schema": header.get("schema"), **_record(EPISODE)(work, header)}
    kept = {stream["spec"]["clock"] for stream in document["streams"].values()}
    document["clocks"] = {name: clock for name, clock in document["clocks"].items() if name in kept}
    try:
        problems = contradictions(from_document(Episode, document))
    except SchemaError as error:
        problems = list(error.problems)
    return Scrubbed(document=document, problems=(*work.problems, *map(str, problems)))


def pass_over(header: Mapping[str, Json], names: Iterable[str], withheld: Iterable[str]) -> Pass:
    """Return what is known of a header before any of it is looked at."""
    fates = header.get("provenance", {}).get("ledger", ())
    inner = frozenset(f["field"] for f in fates) | frozenset(header.get("streams", ()))
    return Pass(Redactor(tuple(names), inner), frozenset(withheld))


def scrub_spec(spec: Mapping[str, Json], names: Iterable[str] = (), withheld: Iterable[str] = ()) -> Document:
    """Return the public form of a stream's header, as the attributes of its array tell it."""
    document: Document = _record(STREAM_SPEC)(Pass(Redactor(tuple(names)), frozenset(withheld)), spec)
    return document


def scrub_encodings(
    notes: Iterable[Mapping[str, Json]], names: Iterable[str] = (), withheld: Iterable[str] = ()
) -> list[Document]:
    """Return the public form of the notes on how a camera was encoded."""
    work = Pass(Redactor(tuple(names)), frozenset(withheld))
    return [_chosen(ENCODING)(work, note) for note in notes]


# --- what is done to a field ----------------------------------------------------------------------------


def _keep(_: Pass, value: Any) -> Any:
    """Keep: numbers, and words of a closed list or of a pattern that has no room for more."""
    return value


def _text(work: Pass, value: str) -> str:
    return "" if work.speaks_of_withheld(value) else work.redactor.text(value)


def _word(work: Pass, value: str | None) -> str | None:
    return None if value is None else _text(work, value) or UNKNOWN


def _place(work: Pass, value: str) -> str:
    return GONE if work.speaks_of_withheld(value) else work.redactor.place(value)


def _texts(work: Pass, values: Iterable[str]) -> list[str]:
    return [work.redactor.text(value) for value in values if not work.speaks_of_withheld(value)]


def _axes(work: Pass, values: Iterable[str]) -> list[str]:
    """Keep all names or none: with one of them changed, two might be the same."""
    axes = list(values)
    return (
        axes if not any(map(work.speaks_of_withheld, axes)) and all(map(work.redactor.is_clean, axes)) else []
    )


def _unit(work: Pass, values: Iterable[str]) -> list[str]:
    return [value if work.redactor.is_clean(value) else UNKNOWN for value in values]


def _revision(work: Pass, value: str | None) -> str | None:
    """Keep the hash of a commit, which in any other place would count as a secret."""
    is_hash = value is not None and len(value) in {40, 64} and set(value) <= set("0123456789abcdef")
    return value if is_hash else _word(work, value)


def _uri(work: Pass, value: str) -> str:
    return "file" if work.speaks_of_withheld(value) else work.redactor.file_name(value)


def _gone(substitute: Callable[[], Any]) -> Rule:
    return lambda _work, _value: substitute()


def _plain(work: Pass, value: Json) -> Json:
    """Keep the numbers of a JSON value, redact its texts, and drop members whose names are not clean."""
    if isinstance(value, str):
        return _text(work, value)
    if isinstance(value, Mapping):
        return {
            key: _plain(work, member)
            for key, member in value.items()
            if work.redactor.is_clean(key) and not work.speaks_of_withheld(key)
        }
    if isinstance(value, list | tuple):
        return [_plain(work, member) for member in value]
    return value


def _chosen(keys: frozenset[str]) -> Rule:
    """Keep these members of a free mapping, and of them what `_plain` keeps."""
    return lambda work, value: {key: _plain(work, value[key]) for key in sorted(keys & value.keys())}


def _record(table: Mapping[str, Rule]) -> Rule:
    return lambda work, value: {
        name: rule(work, value[name]) for name, rule in table.items() if name in value
    }


def _maybe(rule: Rule) -> Rule:
    return lambda work, value: None if value is None else rule(work, value)


def _each(rule: Rule) -> Rule:
    return lambda work, values: [rule(work, value) for value in values]


def _named(what: str, rule: Rule) -> Rule:
    return lambda work, values: {
        work.name(what, name): rule(work, value)
        for name, value in values.items()
        if what != "stream" or name not in work.withheld
    }


def _name_of(what: str) -> Rule:
    return lambda work, value: work.name(what, value)


def _ledger(work: Pass, fates: Iterable[Document]) -> list[Document]:
    """Scrub each fate; what went only to a stream that stays is not told of at all."""
    found: dict[str, Document] = {}
    for fate in fates:
        went = fate["to"]
        reached = [target for target in went if target not in work.withheld]
        if went and not reached:
            continue
        told = _record(FIELD_FATE)(work, fate)
        if reached != list(went):
            told["field"] = GONE  # it may name a stream that stays, as the source does
        told["to"] = [t for t in reached if not t.startswith(_PRIVATE_TARGETS) and work.redactor.is_clean(t)]
        if went and not told["to"]:
            told |= {"fate": "dropped", "how": "is not published", "lossless": None, "error": None}
        elif fate["how"] and not told["how"]:
            told["how"] = "is not told"
        name = told["field"]
        while told["field"] in found:
            told["field"] = f"{name} ({len(found) + 1})"
        found[told["field"]] = told
    return list(found.values())


# --- the tables: every field of every data class that a header holds ---------------------------------------

ACTION_PART: dict[str, Rule] = {
    "start": _keep,
    "stop": _keep,
    "space": _keep,
    "mode": _keep,
    "frame": _word,
    "rotation": _keep,
    "gripper_closed": _keep,
    "gripper_open": _keep,
}
ACTION_CONTRACT: dict[str, Rule] = {
    "parts": _each(_record(ACTION_PART)),
    "offset_steps": _keep,
    "evidence": _text,
}
STREAM_SPEC: dict[str, Rule] = {
    "name": _name_of("stream"),
    "kind": _keep,
    "dtype": _keep,
    "shape": _keep,
    "unit": _unit,
    "frame": _word,
    "axes": _axes,
    "clock": _keep,
    "contract": _maybe(_record(ACTION_CONTRACT)),
    "description": _text,
    "attributes": _chosen(ATTRIBUTES),
}
STREAM: dict[str, Rule] = {"spec": _record(STREAM_SPEC), "length": _keep}
CLOCK: dict[str, Rule] = {
    "name": _name_of("clock"),
    "kind": _keep,
    "declared_hz": _keep,
    "measured_hz": _keep,
    "source": _text,
    "length": _keep,
}
EVENT: dict[str, Rule] = {
    "kind": _word,
    "start_ns": _keep,
    "stop_ns": _keep,
    "text": _text,
    "attributes": _gone(dict),
}
SOURCE_FILE: dict[str, Rule] = {"uri": _uri, "size": _keep, "sha256": _keep, "role": _word}
FIELD_FATE: dict[str, Rule] = {
    "field": _place,
    "fate": _keep,
    "to": _keep,
    "how": _text,
    "lossless": _keep,
    "error": _maybe(_plain),
}
PROVENANCE: dict[str, Rule] = {
    "format": _word,
    "converter": _word,
    "converter_version": _word,
    "sources": _each(_record(SOURCE_FILE)),
    "revision": _revision,
    "selector": _place,
    "options": _chosen(OPTIONS),
    "ledger": _ledger,
    "evidence": _gone(dict),
    "warnings": _texts,
}
EPISODE: dict[str, Rule] = {
    "id": _keep,
    "instructions": _texts,
    "embodiment": _word,
    "outcome": _keep,
    "rights": _gone(lambda: dict(_NO_RIGHTS)),
    "provenance": _record(PROVENANCE),
    "clocks": _named("clock", _record(CLOCK)),
    "streams": _named("stream", _record(STREAM)),
    "events": _each(_record(EVENT)),
    "extra": _gone(dict),
}
TABLES: Mapping[type, Mapping[str, Rule]] = {
    ActionPart: ACTION_PART,
    ActionContract: ACTION_CONTRACT,
    StreamSpec: STREAM_SPEC,
    Stream: STREAM,
    Clock: CLOCK,
    Event: EVENT,
    SourceFile: SOURCE_FILE,
    FieldFate: FIELD_FATE,
    Provenance: PROVENANCE,
    Episode: EPISODE,
}
"""What is done to each field of each data class of a header. A test compares them with the classes."""
