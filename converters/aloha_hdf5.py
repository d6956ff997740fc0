"""ALOHA's HDF5 files and their dialects: ACT simulation, ALOHA, Mobile ALOHA, AgileX Cobot Magic.

Field notes. One file is one episode; what wrote it is told from its content, not from its name:

- ``act-sim`` (tonyzhaozh/act: record_sim_episodes.py): attribute ``sim`` is true.
- ``aloha`` (tonyzhaozh/aloha: aloha_scripts/record_episodes.py): ``sim`` is false.
- ``mobile-aloha`` (MarkFzp/mobile-aloha: aloha_scripts/record_episodes.py): has ``base_action`` too.
- ``agilex`` (agilexrobotics/cobot_magic: collect_data/collect_data.py): ``compress`` is false.
- ``unknown``: somebody else's; nothing is said about what its numbers mean.

Any of them may have been made smaller afterwards (MarkFzp/act-plus-plus: compress_data.py).

*Time.* No recorder stores a stamp or a rate. The clock is nominal: 50 Hz (constants.py: DT = 0.02), for
AgileX 30 Hz (default of --frame_rate), unless an attribute ``fps`` or the option ``rate_hz`` says otherwise.

*Rows.* Every recorder has one observation more than actions and drops the last. What a row pairs differs:
ALOHA waits a step between command and observation (real_env.py: step), so its row is "observe, then act".
Mobile ALOHA observes at once after the command and then waits, and AgileX collects its first observation one
turn before its first action, so that in both an action is a step younger than the observation in its row.
ACT's loader takes the action of the row before for real robots (utils.py), which is the same remark.

*Grippers.* ALOHA scales them, 0 closed to 1 open, but with the leader's range for actions and the follower's
finger travel for positions (constants.py, real_env.py): they agree at the ends only. AgileX stores the raw
seventh joint.

*``base_action``* is no command: it is the base's measured velocity at the observation (``base_vel``), which
policies are trained to give. AgileX writes zeros where the base was not recorded.

*Colour.* Images are what the camera's driver gave (CvBridge ``passthrough``). Every recorder comes with a
visualize_episodes.py that swaps red and blue before it hands an image to OpenCV, so they are taken as RGB.
Mobile ALOHA and compress_data.py give them to `cv2.imencode`, which expects BGR: in their JPEGs red and blue
are swapped for every decoder but OpenCV's. Here they come out as the recorder held them. JPEGs in a file that
does not say ``compress`` come from elsewhere and are taken at their word.

*``compress_len``* is not used. Its rows follow the order of a camera list that is not stored, and the
recorder's own reader takes them in alphabetical order. JPEG says itself where it ends.

*Depth* of AgileX has 40 rows of zeros added above and below (collect_data.py), so it does not lie on the
colour image, whatever its shape says. It is left as it is.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, count
from pathlib import Path
from typing import ClassVar, NoReturn

import numpy as np

from ..schemas import (
    UNKNOWN,
    Array,
    Clock,
    Episode,
    FieldFate,
    FormatError,
    Json,
    Provenance,
    Stream,
    StreamSpec,
    episode_id,
    nominal_times,
)
from ..schemas.episode import Fate
from ..schemas.validate import has_controls
from ._aloha import DIALECTS, Dialect, dialect_of
from ._aloha_cameras import Cameras, Read, stream_name
from ._hdf5 import MAGIC, UNWRITTEN, Field, Hdf5, open_hdf5
from ._jpeg import ChannelOrder
from .base import Format, contained, rows_in, source_file

VERSION = "1"

_EPISODE = re.compile(r"episode_(\d+)\.(hdf5|h5)")
_VALUES = 1_024
"""Numbers that an array without a row per step may have to be kept in the header."""

_CHECKED_ROWS = 2_000
_FPS = "the file's attribute fps"
_IMAGES = ("observations/images", "observations/images_depth")
_CORE = {
    "action": ("action", "rad", "1"),
    "base_action": ("action.base", "", ""),
    "observations/qpos": ("observation.state", "rad", "1"),
    "observations/qvel": ("observation.velocity", "rad/s", "1/s"),
    "observations/effort": ("observation.effort", UNKNOWN, UNKNOWN),
}
"""Stream, unit of joints and unit of scaled grippers of the datasets that make the format."""

_SENTENCES = {
    "action": "Joint positions that the arms were sent to.",
    "action.base": "Measured velocity of the base, which policies are trained to give.",
    "observation.state": "Measured joint positions.",
    "observation.velocity": "Measured joint velocities.",
    "observation.effort": "Joint efforts as the motors' driver gives them; their unit is not stored.",
}
_INSTRUCTIONS = ("language_instruction", "instruction", "task")
_EVIDENCE = re.compile(
    r"licen[cs]e|copyright|author|owner|creator|operator|consent|attribution|citation", re.IGNORECASE
)


@dataclass(frozen=True)
class AlohaHdf5:
    """Reads ALOHA files: one of them, or a folder of ``episode_<n>.hdf5``.

    Attributes
    ----------
    block_bytes
        Most payload bytes in a block.
    rate_hz
        Rate of the nominal clock; None: what the file or its dialect says.
    instruction
        What the robot was asked to do, since the format has no place for it; None: what the file says.
    embodiment
        The robot, since the format has no place for it.
    jpeg_order
        Which decoder gives the pixels that went into the JPEGs; None: ``opencv`` if the file says
        ``compress``, since those who write that use OpenCV, and ``standard`` otherwise.
    """

    format: ClassVar[Format] = Format(
        name="aloha-hdf5",
        title="ALOHA HDF5 (ACT, Mobile ALOHA, AgileX Cobot Magic)",
        suffixes=(".hdf5", ".h5"),
        spec="https://github.com/tonyzhaozh/act/blob/main/record_sim_episodes.py",
    )
    block_bytes: int = 16 << 20
    rate_hz: float | None = None
    instruction: str | None = None
    embodiment: str = UNKNOWN
    jpeg_order: ChannelOrder | None = None

    def probe(self, path: Path) -> bool:
        """Tell whether ``path`` is an ALOHA file or a folder of them, by the names in the first one."""
        try:
            if path.is_dir():
                first = next(iter(_episodes_in(path)), None)
                return first is not None and _is_aloha(path / first)
            return _is_aloha(path)
        except Exception:  # noqa: BLE001 - whatever a damaged file makes of the library, it is not claimed
            return False

    def episodes(self, path: Path) -> Iterator[Episode]:
        """Yield the episode of a file, or those of a folder in the order of their numbers."""
        if not path.is_dir():
            yield self._episode(path, path, ())
            return
        names = _episodes_in(path)
        if not names:
            raise FormatError(str(path), "", "holds no episode_<n>.hdf5", "Name the file itself")
        others = _others_in(path, names)
        for name in names:
            yield self._episode(contained(path, name, path=path, where=name), path, others)

    def _episode(self, path: Path, root: Path, warnings: tuple[str, ...]) -> Episode:
        with open_hdf5(path) as hdf5:
            draft = _Draft(hdf5, dialect_of(hdf5.fields, hdf5.attributes), self)
            draft.compose()
        source = source_file(path, root.resolve() if root != path else path)
        return Episode(
            id=episode_id([source.sha256]),
            instructions=draft.instructions(),
            embodiment=self.embodiment,
            clocks=draft.clocks(),
            streams=draft.streams,
            extra=draft.extra(),
            provenance=Provenance(
                format=self.format.name,
                converter="aloha_hdf5",
                converter_version=VERSION,
                sources=(source,),
                options={
                    "rate_hz": self.rate_hz,
                    "instruction": self.instruction,
                    "embodiment": self.embodiment,
                    "jpeg_order": self.jpeg_order,
                },
                ledger=tuple(draft.ledger),
                evidence=draft.evidence(),
                warnings=(*draft.warnings, *warnings),
            ),
        )


def _is_aloha(path: Path) -> bool:
    """Look at names only: neither a shape nor a link is followed before the file has been surveyed."""
    import h5py

    with path.open("rb") as raw:
        if raw.read(len(MAGIC)) != MAGIC:
            return False
    with h5py.File(path, "r") as file:
        hard = [
            isinstance(file.get(name, getlink=True), h5py.HardLink) for name in ("action", "observations")
        ]
        if not all(hard) or not isinstance(file["action"], h5py.Dataset):
            return False
        observations = file["observations"]
        return isinstance(observations, h5py.Group) and bool(observations.get("qpos", getlink=True))


def _episodes_in(folder: Path) -> list[str]:
    """Return the names of a folder's episodes by their numbers: 10 comes after 9."""
    found = [
        (int(m[1]), p.name) for p in folder.iterdir() if (m := _EPISODE.fullmatch(p.name)) and p.is_file()
    ]
    return [name for _, name in sorted(found)]


def _others_in(folder: Path, episodes: list[str]) -> tuple[str, ...]:
    """Return a warning that names what in a folder is not read."""
    names = sorted({p.name for p in folder.iterdir()} - set(episodes))
    if not names:
        return ()
    told = ", ".join(ascii(name) for name in names[:20]) + (" ..." if len(names) > 20 else "")
    return (f"not read, since no episode_<n>.hdf5: {len(names)} of the folder's files: {told}",)


@dataclass(slots=True)
class _Draft:
    """An episode while its file's fields are gone through, one by one."""

    hdf5: Hdf5
    dialect: Dialect
    options: AlohaHdf5
    streams: dict[str, Stream] = field(default_factory=dict)
    ledger: list[FieldFate] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    values: dict[str, Json] = field(default_factory=dict)
    length: int = 0

    def compose(self) -> None:
        """Decide what becomes of every field."""
        for name in ("action", "observations/qpos"):
            if name not in self.hdf5.fields:
                self._refuse(name, "is missing, so this is no ALOHA episode")
        self.length = (self.hdf5.fields["action"].shape or (0,))[0]
        if not self.length:
            self._refuse("action", self.hdf5.fields["action"].unread or "has no rows")
        for found in self.hdf5.fields.values():
            self._place(found)
        for name, why in self.hdf5.unread.items():
            self._drop(name, why)
        for name, value in self.hdf5.attributes.items():
            self._tell(name, value, "extra.attributes")

    def _refuse(self, where: str, why: str, advice: str = "") -> NoReturn:
        raise FormatError(str(self.hdf5.path), where, why, advice)

    def _place(self, found: Field) -> None:
        group, _, last = found.name.rpartition("/")
        if found.name in _CORE:
            self._core(found, *_CORE[found.name])
        elif found.name == "compress_len":
            self._drop(found.name, "not needed: a JPEG tells its own end, and the rows' order is not stored")
        elif group in _IMAGES and found.unread == UNWRITTEN:
            self._refuse(found.name, found.unread, "The recording was cut off")
        elif group in _IMAGES and found.unread:
            self._drop(found.name, found.unread)
            self.warnings.append(f"camera {last!r} was left out: {found.unread}")
        elif found.unread or not (group in _IMAGES and self._clock(found) and self._image(found, last)):
            self._extra(found)

    def _clock(self, found: Field) -> str:
        """Return the clock that a dataset's rows belong to; empty if it has no row per step."""
        rows = found.shape[0] if found.shape else 0
        if rows == self.length:
            return "steps"
        return "observations" if rows == self.length + 1 and found.name.startswith("observations/") else ""

    def _core(self, found: Field, stream: str, joint: str, gripper: str) -> None:
        """Keep one of the arrays that make the format."""
        if found.unread or found.dtype.kind not in "fiu" or len(found.shape) != 2 or not found.shape[1]:
            self._refuse(
                found.name, found.unread or f"is {found.dtype} {found.shape}; must be rows of numbers"
            )
        if not self._clock(found):
            self._refuse(
                found.name,
                f"has {found.shape[0]} rows, action {self.length}: nothing tells which belong together",
            )
        known = bool(self.dialect.joints) and found.shape[1] == len(self.dialect.axes)
        if stream == "action.base":
            self._base(found)
            return
        if self.dialect.joints and not known:
            self.warnings.append(
                f"{found.name} has {found.shape[1]} columns, not 14: their meaning is unknown"
            )
        contract = (self.dialect if known else DIALECTS["unknown"]).contract() if stream == "action" else None
        self._add(
            found,
            StreamSpec(
                name=stream,
                kind="low_dim",
                dtype=found.dtype.name,
                shape=found.shape[1:],
                unit=self.dialect.units(joint, gripper) if known else (UNKNOWN,),
                axes=self.dialect.axes if known else (),
                contract=contract,
                description=_SENTENCES[stream],
            ),
        )

    def _base(self, found: Field) -> None:
        known = self.dialect.has_base and found.shape[1] == 2
        spec = StreamSpec(
            name="action.base",
            kind="low_dim",
            dtype=found.dtype.name,
            shape=found.shape[1:],
            unit=("m/s", "rad/s") if known else (UNKNOWN,),
            frame="base" if known else None,
            axes=("linear", "angular") if known else (),
            contract=(self.dialect if known else DIALECTS["unknown"]).base_contract(),
            description=_SENTENCES["action.base"],
        )
        self._add(found, spec)
        rows = min(self.length, _CHECKED_ROWS)
        if self.dialect.name == "agilex" and known and not next(self.hdf5.rows(found, 0, rows, rows)).any():
            self.warnings.append(
                "base_action is zero throughout: its recorder writes that where no base is recorded"
            )

    def _image(self, found: Field, name: str) -> bool:
        """Keep a camera's dataset; False if it is none of the layouts of images."""
        camera = Cameras(self.hdf5, self.dialect, self.options.jpeg_order).of(found, name)
        if camera is None:
            return False
        self.warnings += camera.warnings
        self._add(found, camera.spec, camera.read, how=camera.how, lossless=camera.lossless)
        return True

    def _extra(self, found: Field) -> None:
        """Keep what the format does not know: as a stream, in the header, or not at all, and say so."""
        if self._clock(found) and 0 not in found.shape and not found.unread:
            fixed = found.dtype.kind == "S"
            spec = StreamSpec(
                name=stream_name("extra", *found.name.split("/")),
                kind="low_dim",
                dtype="uint8" if fixed else found.dtype.name,
                shape=(*found.shape[1:], found.dtype.itemsize) if fixed else found.shape[1:],
            )
            self._add(found, spec, how="bytes of a fixed length, as numbers" if fixed else "")
            return
        why, value = self.hdf5.told(found)
        if math.prod(found.shape) > _VALUES:
            why = f"has no row per step: {found.shape}"
        if why:
            self._drop(found.name, why)
            return
        self.values[found.name] = value
        self._tell(found.name, value, "extra.values")

    def _add(
        self,
        found: Field,
        spec: StreamSpec,
        read: Read | None = None,
        *,
        how: str = "",
        lossless: bool | None = True,
    ) -> None:
        spec = replace(spec, name=self._free(spec.name), clock=self._clock(found))
        whole = partial(
            read or _read_rows, self.hdf5.path, found, spec.shape, rows_in(self.options.block_bytes, spec)
        )
        self.streams[spec.name] = Stream(spec=spec, length=found.shape[0], read=whole)
        fate: Fate = "transformed" if how else "kept" if spec.name == found.name else "renamed"
        self.ledger.append(
            FieldFate(field=found.name, fate=fate, to=(spec.name,), how=how, lossless=lossless)
        )

    def _drop(self, name: str, why: str) -> None:
        self.ledger.append(FieldFate(field=name, fate="dropped", how=why))

    def _free(self, wanted: str) -> str:
        """Return the name, with a number behind it if there is such a stream already."""
        taken = {name.casefold() for name in self.streams}
        names = chain([wanted], (f"{wanted}_{i}" for i in count(2)))
        return next(name for name in names if name.casefold() not in taken)

    def _tell(self, name: str, value: Json, home: str) -> None:
        """Note where in the header a value went."""
        to = [home]
        to += ["provenance.evidence"] if _speaks_of_rights(name) else []
        to += ["instructions"] if value in self.instructions() and _is_instruction(name, value) else []
        to += ["clocks"] if name == "@fps" and self._rate()[1] == _FPS else []
        self.ledger.append(FieldFate(field=name, fate="renamed", to=tuple(to), lossless=True))

    def _told(self) -> dict[str, Json]:
        return {**self.hdf5.attributes, **self.values}

    def evidence(self) -> dict[str, Json]:
        """Return what speaks of rights or people, word for word."""
        return {name: value for name, value in self._told().items() if _speaks_of_rights(name)}

    def instructions(self) -> tuple[str, ...]:
        """Return what the robot was asked to do: the option's word, or that of the file."""
        if self.options.instruction is not None:
            return (self.options.instruction,)
        return tuple(dict.fromkeys(v for name, v in self._told().items() if _is_instruction(name, v)))

    def _rate(self) -> tuple[float, str]:
        """Return the nominal rate in Hz, and where it is from."""
        said = self.hdf5.attributes.get("@fps")
        if self.options.rate_hz is not None:
            return self.options.rate_hz, "option rate_hz"
        if isinstance(said, int | float) and said is not True and 0 < said < 1e6:
            return float(said), _FPS
        return self.dialect.rate_hz, self.dialect.rate_source

    def clocks(self) -> dict[str, Clock]:
        """Return the clocks that streams belong to: the steps, and the observations if there is one more."""
        rate, source = self._rate()
        return {
            name: Clock(
                name=name,
                kind="nominal",
                declared_hz=rate,
                source=source,
                length=length,
                read=partial(nominal_times, length, rate),
            )
            for name, length in {s.spec.clock: s.length for s in self.streams.values()}.items()
        }

    def extra(self) -> dict[str, Json]:
        """Return what has no place in an episode's header."""
        members = {
            "dialect": self.dialect.name,
            "attributes": dict(self.hdf5.attributes),
            "values": self.values,
        }
        return {name: member for name, member in members.items() if member}


def _speaks_of_rights(name: str) -> bool:
    return bool(_EVIDENCE.search(re.split("[/@]", name)[-1]))


def _is_instruction(name: str, value: Json) -> bool:
    known = re.split("[/@]", name)[-1] in _INSTRUCTIONS
    return known and isinstance(value, str) and 0 < len(value) <= 100_000 and not has_controls(value)


def _read_rows(
    path: Path, found: Field, shape: tuple[int, ...], rows: int, start: int, stop: int
) -> Iterator[Array]:
    with open_hdf5(path) as hdf5:
        for block in hdf5.rows(found, start, stop, rows):
            numbers = np.ascontiguousarray(block).view(np.uint8) if block.dtype.kind == "S" else block
            yield numbers.reshape(len(block), *shape)


CONVERTER = AlohaHdf5
