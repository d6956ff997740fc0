"""An RLDS episode, put together feature by feature.

The field notes of ``rlds.py`` say what is odd and what was chosen, ``_tfds.py`` how features are stored.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ..schemas import UNKNOWN, ActionContract, Array, Episode, Event, FormatError, Json, StreamSpec
from . import _rlds_values as rlds_values
from . import _tfds as tfds
from ._draft import Draft, stream_name
from ._oxe import Entry, Facts, entry_of
from ._tfds import FEATURES, INFO, Feature, Shard
from ._tfrecord import Record, Values, example_of, rows_of
from .base import source_file

STEPS = "steps/"
_INSTRUCTIONS = ("language_instruction", "natural_language_instruction")
_AS_THEY_ARE = {"reward", "discount", "is_first", "is_last", "is_terminal"}
_ANSWERS = "google-research/rlds: README.md: the action is taken in the observation of its step"

_MAX_LIST = 10_000
_MAX_BYTES = 1 << 20
_MAX_RUNS = 100_000
_MAX_TEXT = 100_000


@dataclass(frozen=True)
class Dataset:
    """What all episodes share."""

    root: Path
    info: Mapping[str, Json]
    features: tuple[Feature, ...]
    entry: Entry
    rate_hz: float
    rate_source: str
    shards: tuple[tuple[Shard, int], ...]

    @classmethod
    def open(cls, root: Path, *, rate_hz: float | None, name: str, split: str) -> Dataset:
        """Read both files and look for the shards; the rate is told or known, or the dataset is refused."""
        info = tfds.read(root, INFO)
        kind = str(info.get("fileFormat") or "tfrecord")
        if kind != "tfrecord":
            advice = "Write it again as TFRecord: tfds.builder(..., file_format='tfrecord')"
            raise FormatError(str(root / INFO), "fileFormat", f"is {kind[:40]!r}; TFRecord is read", advice)
        features = tfds.features_of(root / FEATURES, tfds.read(root, FEATURES))
        shards = [s for s in tfds.shards_of(root, info) if split in {"", s.split}]
        if not shards:
            raise FormatError(str(root / INFO), "splits", f"there is no split {split!r}")
        there = [s.split for s in shards]
        name = name or str(info.get("name") or "")
        entry = entry_of(name)
        rate, source = rate_hz, "option rate_hz"
        if rate is None:
            rate, source = entry.rate_hz, f"what is known of {name}: {entry.rate_source}"
        if rate is None:
            why = f"RLDS stores no rate, and none is known of {name[:100]!r}"
            raise FormatError(str(root / INFO), "name", why, "Say the steps per second: option rate_hz")
        counted = tuple((s, s.of - there.count(s.split)) for s in shards)
        return cls(root, info, tuple(features), entry, rate, source, counted)


class Builder:
    """Puts one episode together, feature by feature."""

    def __init__(
        self, dataset: Dataset, shard: Shard, record: Record, missing: int, block_bytes: int
    ) -> None:
        self.dataset, self.shard, self.record, self.block = dataset, shard, record, block_bytes
        self.draft = Draft(path=shard.path, where=f"record {record.number}")
        self.values = example_of(record)
        self.used: set[str] = set()
        self.length, self.teller = self._length()
        if missing:
            self.draft.warn(f"{missing} of {shard.of} files of the split {shard.split!r} are absent")

    def build(self, converter: Any, version: str) -> Episode:
        """Return the episode."""
        draft, dataset = self.draft, self.dataset
        draft.nominal("steps", self.length, dataset.rate_hz, dataset.rate_source)
        for quirk in dataset.entry.quirks:
            draft.warn(quirk)
        for feature in dataset.features:
            self._add(feature)
        for key in self.values:
            if key not in self.used:
                draft.drop(key, f"{FEATURES} does not declare it")
        self._add_info()
        root = dataset.root.resolve()
        sources = [source_file(self.shard.path, root)]
        sources += [source_file(root / name, root, "metadata") for name in (INFO, FEATURES)]
        shard = self.shard
        return draft.build(
            converter,
            sources,
            version=version,
            selector=f"split={shard.split} shard={shard.number} record={self.record.number}",
            embodiment=dataset.entry.robot or UNKNOWN,
            revision=str(dataset.info.get("version") or "")[:1_000] or None,
        )

    # How many steps there are

    def _length(self) -> tuple[int, str]:
        """Return the number of steps and which feature tells it."""
        features = [f for f in self.dataset.features if f.key.startswith(STEPS)]
        features.sort(key=lambda f: f.key != f"{STEPS}is_first")
        told = ((f.key, rows) for f in features if (rows := self._rows(f)) is not None)
        key, rows = next(told, ("steps", 0))
        if not rows:
            self.draft.refuse(key, "the episode has no steps")
        return rows, key

    def _rows(self, feature: Feature) -> int | None:
        """Return how many steps a feature has values for; None if that cannot be told from it alone."""
        values = self.values.get(feature.key)
        if feature.rank > 1:
            values = self.values.get(f"{feature.key}/ragged_row_lengths_0")
            return values.count if values else None
        if values is None or feature.kind == "unknown" or feature.rank != 1:
            return None
        if feature.kind in {"image", "text"} or feature.encoding in {"bytes", "zlib"}:
            return values.count
        if None in feature.shape or 0 in feature.shape:
            return None
        rows, rest = rows_of(values, tuple(n for n in feature.shape if n is not None))
        if rest:
            self.draft.refuse(feature.key, f"{values.count} values are no samples of {list(feature.shape)}")
        return rows

    # Features

    def _add(self, feature: Feature) -> None:
        key = feature.key
        self.used |= {key, *(k for k in self.values if k.startswith(f"{key}/"))}
        steps = key.startswith(STEPS)
        rows = self._rows(feature) if steps else None
        if rows not in {None, self.length}:
            self.draft.refuse(key, f"has values for {rows} steps, but {self.teller} for {self.length}")
        if feature.kind == "unknown":
            self.draft.drop(
                key, f"only {feature.python_class!r}, which is never imported, tells what it holds"
            )
        elif steps and feature.rank > 1:
            self._add_ragged(feature)
        elif key not in self.values:
            self._add_absent(feature)
        elif not steps:
            self._tell(feature)
        elif self.values[key].form not in {_form(feature), None}:
            self.draft.refuse(key, f"holds {self.values[key].form}s, but {FEATURES} declares {feature.dtype}")
        elif feature.kind == "image":
            self._add_pictures(feature)
        elif feature.dtype == "string":
            self._add_bytes(feature)
        elif feature.encoding != "none":
            self._add_encoded(feature, self.values[key], feature.shape)
        elif self._facts(feature).text == "codepoints" and len(feature.shape) == 1:
            self._add_codepoints(feature)
        else:
            self._add_numbers(feature)

    def _facts(self, feature: Feature) -> Facts:
        return self.dataset.entry.features.get(feature.key.removeprefix(STEPS), Facts())

    def _add_absent(self, feature: Feature) -> None:
        value = self.values.get(f"{feature.key}/value")
        if value is not None and feature.rank == 1:
            self._add_dynamic(feature, value)
        elif feature.optional:
            self.draft.drop(feature.key, "optional, and absent in this episode")
        else:
            self.draft.refuse(feature.key, f"is absent, though {FEATURES} declares it")

    def _spec(self, feature: Feature, spec: StreamSpec) -> StreamSpec:
        """Return a stream with all that is known of its feature."""
        key = feature.key.removeprefix(STEPS)
        facts, attributes = self._facts(feature), dict(spec.attributes)
        name = _name_of(key, spec)
        if facts.stored_order:
            attributes |= {"stored_order": facts.stored_order, "order_evidence": self.dataset.entry.evidence}
            self.draft.warn(f"{name} was stored with blue first; its pixels are as stored")
        if feature.dtype not in {spec.dtype, "string"}:
            attributes["declared_dtype"] = feature.dtype
        if facts.note:
            attributes["note"] = facts.note
        axes = facts.axes if spec.shape and len(facts.axes) == spec.shape[-1] else ()
        unit = facts.unit if len(facts.unit) in {1, *spec.shape[-1:]} else (UNKNOWN,)
        picture = spec.kind != "low_dim"
        return replace(
            spec,
            name=name,
            unit=unit if facts.unit else ("1",) if spec.kind == "video" else (UNKNOWN,),
            frame=facts.frame or (None if picture or name in _AS_THEY_ARE else UNKNOWN),
            axes=axes,
            contract=self._contract(key, spec) if name == "action" or name.startswith("action.") else None,
            description=feature.description,
            attributes=attributes,
        )

    def _contract(self, key: str, spec: StreamSpec) -> ActionContract:
        entry = self.dataset.entry
        parts, extent = entry.parts.get(key, ()), spec.shape[-1] if spec.shape else 1
        if parts and parts[-1].stop > extent:
            self.draft.warn(f"{key} has {extent} axes, fewer than are known of {entry.name}: not declared")
            parts = ()
        said = "; ".join(filter(None, [entry.evidence if parts else "", _ANSWERS]))
        return ActionContract(parts=parts, offset_steps=0, evidence=said)

    def _add_numbers(self, feature: Feature) -> None:
        values, shape = self.values[feature.key], tuple(n for n in feature.shape if n is not None)
        if len(shape) < len(feature.shape) or 0 in shape:
            self.draft.drop(feature.key, "its shape is not told, or holds no values")
            return
        spec = _shown(feature, shape)
        if values.form == "float" and feature.dtype != "float32":
            spec = replace(spec, attributes={"stored_dtype": "float32"})
        spec = self._spec(feature, spec)
        read = partial(rlds_values.numbers, values, feature.dtype, spec, self.block)
        self.draft.add(spec, self.length, read, source=feature.key)

    def _add_encoded(self, feature: Feature, values: Values, shape: tuple[int | None, ...]) -> None:
        fixed = tuple(n for n in shape if n is not None)
        if len(fixed) != len(shape):
            self.draft.drop(feature.key, "its shape is not told, so its bytes cannot be read")
            return
        spec = self._spec(feature, _shown(feature, fixed))
        decode = partial(
            rlds_values.raw_tensor, dtype=feature.dtype, shape=spec.shape, encoding=feature.encoding
        )
        read = partial(rlds_values.decoded, values, decode, spec, self.block)
        how = "inflated by zlib" if feature.encoding == "zlib" else "the bytes of each tensor"
        self.draft.add(spec, self.length, read, source=feature.key, how=how)

    def _add_dynamic(self, feature: Feature, values: Values) -> None:
        """Add a tensor whose shape is stored beside it, if all have the same."""
        told = self.values.get(f"{feature.key}/shape")
        sides = len(feature.shape)
        if told is None or told.form != "int" or told.count != self.length * sides:
            self.draft.refuse(feature.key, "the shapes of its tensors are absent")
        shapes = told.numbers(0, told.count).reshape(-1, sides)
        if values.count != self.length or np.any(shapes != shapes[0]) or np.any(shapes[0] < 1):
            self.draft.drop(feature.key, "its shape changes from step to step")
        elif values.form != "bytes" or math.prod(shapes[0].tolist()) > 1 << 28:
            self.draft.refuse(feature.key, f"{shapes[0].tolist()} is no shape of a tensor that is read")
        else:
            self._add_encoded(feature, values, tuple(shapes[0].tolist()))

    def _add_pictures(self, feature: Feature) -> None:
        values = self.values[feature.key]
        first = next(values.pieces(0, 1))
        try:
            spec, form, decode = rlds_values.picture(first, feature.key, real=feature.dtype == "float32")
        except ValueError as error:
            raise FormatError(str(values.path), f"{values.where}[0]", str(error)) from error
        declared = [n for n in feature.shape if n is not None]
        if len(declared) == len(feature.shape) == 3 and math.prod(declared) != math.prod(spec.shape):
            told = f"{FEATURES} declares {declared}"
            self.draft.warn(f"{feature.key} holds pictures of {list(spec.shape)}; {told}")
        spec = self._spec(feature, replace(spec, attributes={"encoding": form}))
        read = partial(rlds_values.decoded, values, decode, spec, self.block)
        lossless = None if form == "jpeg" else True
        self.draft.add(
            spec,
            self.length,
            read,
            source=feature.key,
            how=f"decoded {form.upper()} files",
            lossless=lossless,
        )

    # Texts and bytes

    def _add_bytes(self, feature: Feature) -> None:
        values, per = self.values[feature.key], math.prod(n or 1 for n in feature.shape)
        inflate = self._facts(feature).inflate
        if inflate is not None and per == 1:
            dtype, shape = inflate
            spec = self._spec(feature, StreamSpec(name="x", kind="low_dim", dtype=dtype, shape=shape))
            decode = partial(rlds_values.raw_tensor, dtype=dtype, shape=shape, encoding="zlib")
            read = partial(rlds_values.decoded, values, decode, spec, self.block)
            self.draft.add(spec, self.length, read, source=feature.key, how="inflated by zlib")
            return
        texts = self._texts(feature, values)
        if texts is None:
            self._keep_bytes(feature, values)
        elif per == 1:
            self._add_texts(feature, texts)
        else:
            self._add_runs(feature, [texts[i : i + per] for i in range(0, len(texts), per)])

    def _texts(self, feature: Feature, values: Values) -> list[str] | None:
        """Return a feature's texts; None if they are not all short UTF-8."""
        if int(values.sizes.max(initial=0)) > _MAX_TEXT:
            return None
        known: dict[bytes, str] = {}
        found = []
        for piece in values.pieces(0, values.count):
            if piece not in known:
                if len(known) == _MAX_RUNS:
                    self.draft.refuse(feature.key, f"holds more than {_MAX_RUNS:,} different texts")
                try:
                    known[piece] = piece.decode()
                except UnicodeDecodeError:
                    return None
            found.append(known[piece])
        return found

    def _add_texts(self, feature: Feature, texts: list[str]) -> None:
        spoken = feature.key.rpartition("/")[2].startswith(_INSTRUCTIONS)
        spoken = spoken or self._facts(feature).text != ""
        told = [text for text in dict.fromkeys(texts) if text]
        if spoken:
            for text in told:
                self.draft.instruct(text)
        if len(set(texts)) == 1:
            self.draft.tell(feature.key, texts[0], "texts", ["instructions"] if spoken and told else [])
        else:
            self._add_runs(feature, texts)

    def _add_runs(self, feature: Feature, values: list[Any]) -> None:
        """Add an event for each run of steps with one value."""
        changes = [0, *(i for i, (a, b) in enumerate(pairwise(values), 1) if a != b), len(values)]
        if len(changes) > _MAX_RUNS:
            self.draft.refuse(feature.key, f"changes more than {_MAX_RUNS:,} times")
        times = self.draft.clocks["steps"].read()
        after = int(times[-1]) + round(1e9 / self.dataset.rate_hz)
        kind = feature.key.removeprefix(STEPS)
        for start, stop in pairwise(changes):
            value = values[start]
            self.draft.events.append(
                Event(
                    kind=kind,
                    start_ns=int(times[start]),
                    stop_ns=int(times[stop]) if stop < len(times) else after,
                    text=value if isinstance(value, str) else "",
                    attributes={} if isinstance(value, str) else {"value": value},
                )
            )
        self.draft.account(feature.key, "transformed", ["events"], "an event for each run of one value")

    def _add_codepoints(self, feature: Feature) -> None:
        """Turn rows of characters, filled up with zeros, into texts."""
        values, width = self.values[feature.key], feature.shape[0] or 1
        texts: list[str] = []
        for block in rlds_values.numbers(values, "int64", _row(width), self.block, 0, self.length):
            for row in block:
                end = int(np.argmin(row != 0)) if not row.all() else width
                text = _spelled(row[:end])
                if text is None or row[end:].any():
                    self._add_numbers(feature)
                    return
                texts.append(text)
        self._add_texts(feature, texts)

    def _keep_bytes(self, feature: Feature, values: Values) -> None:
        """Keep bytes that are no text as they are: as a stream if they are of one length."""
        sizes = values.sizes
        same = len(sizes) == self.length and bool(np.all(sizes == sizes[0])) and 0 < int(sizes[0]) <= 1 << 20
        if same:
            spec = StreamSpec(name="x", kind="low_dim", dtype="uint8", shape=(int(sizes[0]),))
            spec = self._spec(feature, spec)
            decode = partial(rlds_values.raw_tensor, dtype="uint8", shape=spec.shape, encoding="bytes")
            read = partial(rlds_values.decoded, values, decode, spec, self.block)
            self.draft.add(spec, self.length, read, source=feature.key, how="bytes as stored, no text")
        elif int(sizes.sum()) <= _MAX_BYTES:
            kept = [base64.b64encode(piece).decode() for piece in values.pieces(0, values.count)]
            self.draft.tell(feature.key, kept, "base64")
        else:
            why = f"bytes of changing length, no text, and {int(sizes.sum()):,} in all: too many for a header"
            self.draft.drop(feature.key, why)

    # What has no fixed shape, and what is told once

    def _add_ragged(self, feature: Feature) -> None:
        """Keep a feature of changing length, whose lengths must add up."""
        key = feature.key
        flat = self.values.get(f"{key}/ragged_flat_values")
        if flat is None:
            self.draft.refuse(key, "is absent, or lacks its ragged_flat_values")
        lengths, count = [], self.length
        for level in range(feature.rank - 1):
            told = self.values.get(f"{key}/ragged_row_lengths_{level}")
            if told is None or told.form not in {"int", None} or told.count != count:
                self.draft.refuse(key, f"its row lengths of level {level} are no {count} integers")
            lengths.append(told.numbers(0, count) if count else np.empty(0, np.int64))
            if np.any(lengths[-1] < 0) or int(lengths[-1].max(initial=0)) > flat.count:
                self.draft.refuse(key, f"its row lengths of level {level} do not fit {flat.count} values")
            count = int(lengths[-1].sum())
        per = math.prod(n or 1 for n in feature.shape) if feature.kind == "tensor" else 1
        if count * per != flat.count:
            self.draft.refuse(key, f"its row lengths add up to {count * per} values; there are {flat.count}")
        if feature.rank > 2 or feature.kind == "image" or feature.encoding in {"bytes", "zlib"}:
            self.draft.drop(key, "sequences of sequences, or of pictures, within a step are not read")
        elif flat.count > _MAX_LIST:
            self.draft.drop(key, f"of changing length, and {flat.count:,} values are too many for a header")
        else:
            self._tell_ragged(feature, flat, lengths[0])

    def _tell_ragged(self, feature: Feature, flat: Values, lengths: Array) -> None:
        found = self._listed(feature, flat)
        if found is None:
            self.draft.drop(feature.key, "holds what is neither text nor a finite number")
            return
        per = len(found) // max(1, int(lengths.sum()))
        ends = [0, *(np.cumsum(lengths) * per).tolist()]
        rows = [found[a:b] for a, b in pairwise(ends)]
        self.draft.tell(feature.key, rows, "ragged")

    def _tell(self, feature: Feature) -> None:
        """Keep what is told of the whole episode."""
        key, values = feature.key, self.values[feature.key]
        if feature.kind == "image" or feature.encoding in {"bytes", "zlib"} or values.count > _MAX_LIST:
            self.draft.drop(key, "told once per episode, and not a text or a few numbers")
            return
        found = self._listed(feature, values)
        if found is None:
            self.draft.drop(key, "holds what is neither text nor a finite number")
            return
        single = not feature.shape and not feature.rank and len(found) == 1
        self.draft.tell(key, found[0] if single else found, "episode")
        camera = key.rpartition("/has_")[2]
        if single and found[0] is False and f"{STEPS}observation/{camera}" in self.values:
            self.draft.warn(f"{key} is false: the pictures of {camera!r} are no recording")

    def _listed(self, feature: Feature, values: Values) -> list[Any] | None:
        """Return values as JSON."""
        if feature.dtype == "string":
            return self._texts(feature, values) if values.form == "bytes" else None
        if values.form == "bytes":
            return None
        if values.form is None:
            return []
        found = values.numbers(0, values.count)
        if not np.all(np.isfinite(found)):
            return None
        listed: list[Any] = (found.astype(bool) if feature.dtype == "bool" else found).tolist()
        return listed

    def _add_info(self) -> None:
        """Keep what dataset_info.json says."""
        for member, value in self.dataset.info.items():
            if member == "splits":
                why = "tells where all episodes of the dataset are; provenance.selector tells of this one"
                self.draft.drop(f"{INFO}/{member}", why)
            elif isinstance(value, dict) and value:
                for name, inner in value.items():
                    self.draft.tell(f"{INFO}/{member}/{name}", inner, "dataset_info")
            else:
                self.draft.tell(f"{INFO}/{member}", value, "dataset_info")
        how = "dtype, shape and description of each stream"
        self.draft.account(FEATURES, "transformed", self.draft.streams, how)


def _form(feature: Feature) -> str:
    """Return the kind of list in which TFDS stores a feature."""
    if feature.kind == "image" or feature.dtype == "string" or feature.encoding in {"bytes", "zlib"}:
        return "bytes"
    return "float" if feature.dtype.startswith("float") else "int"


def _name_of(key: str, spec: StreamSpec) -> str:
    """Return the stream's name for a feature's key below ``steps/``."""
    first, *rest = key.split("/")
    if first in {"action", "action_dict"}:
        return stream_name("action", *rest)
    if first == "observation" and rest:
        folder = {"video": ["images"], "depth": ["depth"]}.get(spec.kind, [])
        return stream_name("observation", *folder, *rest)
    if key in _AS_THEY_ARE:
        return key
    return stream_name("extra", first, *rest)


def _shown(feature: Feature, shape: tuple[int, ...]) -> StreamSpec:
    """Return the stream of a tensor, which is a picture if its name and its form say so."""
    name, flat = feature.key.lower(), shape[:2] if shape[2:] == (1,) else shape
    if "depth" in name and len(flat) == 2 and min(flat) > 15 and feature.dtype in {"uint16", "float32"}:
        return StreamSpec(name="x", kind="depth", dtype=feature.dtype, shape=flat)
    pictures = len(shape) == 3 and shape[2] in {1, 3} and min(shape[:2]) > 15 and feature.dtype == "uint8"
    if pictures and ("image" in name or "rgb" in name):
        return StreamSpec(name="x", kind="video", dtype="uint8", shape=shape)
    return StreamSpec(name="x", kind="low_dim", dtype=feature.dtype, shape=shape)


def _row(width: int) -> StreamSpec:
    return StreamSpec(name="x", kind="low_dim", dtype="int64", shape=(width,))


def _spelled(row: Array) -> str | None:
    """Return the text of some characters' numbers, if they are characters."""
    if np.any((row < 0) | (row > 0x10FFFF) | ((row >= 0xD800) & (row < 0xE000))):
        return None
    return "".join(map(chr, row.tolist()))
