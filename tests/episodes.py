"""Episodes made up here: textured, noisy, lazy, and the same every time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from teleopen.schemas import (
    ActionContract,
    Array,
    Clock,
    Episode,
    FieldFate,
    Provenance,
    Rights,
    SourceFile,
    Stream,
    StreamSpec,
    Times,
    episode_id,
    median_rate,
    nominal_times,
)

BLOCK = 50
CLOSED = Rights()


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a made-up episode holds; everything follows from it."""

    seed: int = 0
    steps: int = 70
    size: tuple[int, int] = (48, 64)
    cameras: tuple[str, ...] = ("top",)
    depth: bool = True
    imu: bool = True
    embodiment: str = "test-arm"
    rights: Rights = CLOSED

    @property
    def imu_steps(self) -> int:
        """Samples of the second, irregular clock."""
        return self.steps * 3 + 1


@lru_cache(maxsize=8)
def _texture(seed: int, height: int, width: int) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    coarse = rng.normal(128, 45, (height // 4 + 4, width // 4 + 40, 3)).clip(0, 255)
    return np.kron(coarse, np.ones((4, 4, 1))).astype("float32")


def frame(recipe: Recipe, camera: str, index: int) -> NDArray[np.uint8]:
    """Return a camera frame: a texture that moves by, with sensor noise. (H, W, 3) uint8."""
    height, width = recipe.size
    seed = recipe.seed * 1000 + sum(camera.encode())
    shift = (index // 3) % 100
    view = _texture(seed, height, width)[4 : 4 + height, shift : shift + width]
    noise = np.random.default_rng((seed, index)).normal(0, 1.5, (height, width, 1))
    return (view + noise).clip(0, 255).astype("uint8")


def values_of(recipe: Recipe, name: str, start: int, stop: int) -> Array:
    """Return samples of a made-up stream."""
    if name.startswith("observation.images."):
        camera = name.rpartition(".")[2]
        return np.stack([frame(recipe, camera, i) for i in range(start, stop)])
    rng = np.random.default_rng((recipe.seed, sum(name.encode())))
    if name == "observation.depth.top":
        ramp = np.add.outer(np.arange(recipe.size[0]), np.arange(recipe.size[1])).astype("uint16")
        return np.stack([ramp * 7 + i for i in range(start, stop)]).astype("uint16")
    if name == "imu.accel":
        return rng.normal(size=(recipe.imu_steps, 3))[start:stop]
    if name == "phase":
        return (np.arange(recipe.steps) // 10).astype("int64")[start:stop]
    return rng.normal(size=(recipe.steps, 7)).astype("float32")[start:stop]


def _blocks(recipe: Recipe, name: str, start: int, stop: int) -> Iterator[Array]:
    for at in range(start, stop, BLOCK):
        yield values_of(recipe, name, at, min(stop, at + BLOCK))


def imu_times(recipe: Recipe) -> Times:
    """Return irregular times of the second clock."""
    steps = np.random.default_rng(recipe.seed).integers(1_000_000, 9_000_000, recipe.imu_steps)
    times: Times = np.cumsum(steps).astype(np.int64) - steps[0]
    return times


def specs(recipe: Recipe) -> list[StreamSpec]:
    """Return the streams of a recipe."""
    found = [
        StreamSpec(name="observation.state", kind="low_dim", dtype="float32", shape=(7,), unit=("rad",)),
        StreamSpec(name="action", kind="low_dim", dtype="float32", shape=(7,), contract=ActionContract()),
        StreamSpec(name="phase", kind="low_dim", dtype="int64", shape=(), unit=("1",)),
    ]
    found += [
        StreamSpec(name=f"observation.images.{c}", kind="video", dtype="uint8", shape=(*recipe.size, 3))
        for c in recipe.cameras
    ]
    if recipe.depth:
        found.append(
            StreamSpec(name="observation.depth.top", kind="depth", dtype="uint16", shape=recipe.size)
        )
    if recipe.imu:
        found.append(StreamSpec(name="imu.accel", kind="low_dim", dtype="float64", shape=(3,), clock="imu"))
    return found


def make(**options: Any) -> Episode:
    """Return the episode of a recipe."""
    return episode(Recipe(**options))


def episode(recipe: Recipe) -> Episode:
    """Return the episode of a recipe."""
    clocks = {
        "steps": Clock(
            name="steps",
            kind="nominal",
            declared_hz=30,
            length=recipe.steps,
            read=partial(nominal_times, recipe.steps, 30),
        )
    }
    if recipe.imu:
        clocks["imu"] = Clock(
            name="imu",
            kind="recorded",
            measured_hz=median_rate(imu_times(recipe)),
            length=recipe.imu_steps,
            read=partial(imu_times, recipe),
        )
    streams = {
        spec.name: Stream(
            spec=spec, length=clocks[spec.clock].length, read=partial(_blocks, recipe, spec.name)
        )
        for spec in specs(recipe)
    }
    digest = hashlib.sha256(repr(recipe).encode()).hexdigest()
    return Episode(
        id=episode_id([digest]),
        instructions=(f"do task {recipe.seed}",),
        embodiment=recipe.embodiment,
        rights=recipe.rights,
        provenance=Provenance(
            format="made-up",
            converter="tests",
            converter_version="1",
            sources=(SourceFile(uri="nowhere", size=1, sha256=digest),),
            ledger=tuple(FieldFate(field=f"/{n}", fate="kept", to=(n,), lossless=True) for n in streams),
        ),
        clocks=clocks,
        streams=streams,
    )
