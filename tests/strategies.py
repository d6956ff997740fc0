"""Hypothesis strategies: what an episode's header may be."""

from __future__ import annotations

import string
from itertools import pairwise

from hypothesis import strategies as st
from teleopen.schemas import (
    ActionContract,
    ActionPart,
    Clock,
    Episode,
    Event,
    FieldFate,
    Provenance,
    SourceFile,
    Stream,
    StreamSpec,
    episode_id,
)
from teleopen.schemas.episode import Kind

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
words = st.text(string.ascii_letters + " -_éü機", min_size=1, max_size=20)
names = st.lists(
    st.text(string.ascii_lowercase + string.digits + "_", min_size=1, max_size=6), min_size=1, max_size=3
).map(".".join)
digests = st.text("0123456789abcdef", min_size=64, max_size=64)
extents = st.integers(1, 6)


@st.composite
def contracts(draw: st.DrawFn, axes: int) -> ActionContract:
    """Draw a contract whose parts lie in order within the axes."""
    edges = sorted(draw(st.lists(st.integers(0, axes), unique=True, max_size=4)))
    parts = tuple(
        ActionPart(
            start=start,
            stop=stop,
            space=draw(st.sampled_from(["joint_position", "gripper", "ee_pose", "unknown"])),
            mode=draw(st.sampled_from(["absolute", "delta", "unknown"])),
            gripper_closed=draw(st.none() | st.floats(-1, 1)),
        )
        for start, stop in pairwise(edges)
    )
    return ActionContract(
        parts=parts, offset_steps=draw(st.none() | st.integers(-2, 2)), evidence=draw(words)
    )


@st.composite
def specs(draw: st.DrawFn, name: str, clock: str) -> StreamSpec:
    """Draw a stream's header of any kind."""
    kinds: list[Kind] = ["low_dim", "video", "depth"]
    kind = draw(st.sampled_from(kinds))
    shape: tuple[int, ...]
    if kind == "video":
        dtype, shape = "uint8", (draw(extents), draw(extents), draw(st.sampled_from([1, 3])))
    elif kind == "depth":
        dtype, shape = draw(st.sampled_from(["uint16", "float32"])), (draw(extents), draw(extents))
    else:
        dtype = draw(st.sampled_from(["float32", "float64", "int64", "uint8", "bool"]))
        shape = tuple(draw(st.lists(extents, max_size=2)))
    last = shape[-1] if shape else 1
    command = name.split(".", maxsplit=1)[0] == "action"
    return StreamSpec(
        name=name,
        kind=kind,
        dtype=dtype,
        shape=shape,
        unit=draw(st.sampled_from([("unknown",), ("rad",), ("m/s",) * last])),
        frame=draw(st.none() | words),
        axes=tuple(f"axis {i}" for i in range(last)) if draw(st.booleans()) else (),
        clock=clock,
        contract=draw(contracts(last)) if command else None,
        description=draw(words),
        attributes=draw(st.dictionaries(words, json_values, max_size=2)),
    )


@st.composite
def headers(draw: st.DrawFn) -> Episode:
    """Draw an episode's header that breaks no rule."""
    clocks = {
        name: Clock(
            name=name,
            kind=draw(st.sampled_from(["recorded", "nominal"])),
            declared_hz=draw(st.floats(0.1, 1000)),
            measured_hz=draw(st.none() | st.floats(0.1, 1000)),
            source=draw(words),
            length=draw(st.integers(1, 10**7)),
        )
        for name in draw(st.lists(st.sampled_from(["steps", "imu", "camera_2"]), min_size=1, unique=True))
    }
    streams = {}
    for name in draw(
        st.lists(names | st.sampled_from(["action", "action.base"]), min_size=1, max_size=4, unique=True)
    ):
        spec = draw(specs(name, draw(st.sampled_from(sorted(clocks)))))
        streams[name] = Stream(spec=spec, length=clocks[spec.clock].length)
    ledger = tuple(FieldFate(field=f"/{name}", fate="renamed", to=(name,), lossless=True) for name in streams)
    return Episode(
        id=episode_id([draw(digests)]),
        instructions=tuple(draw(st.lists(words, max_size=2))),
        embodiment=draw(words),
        outcome=draw(st.sampled_from(["success", "failure", "unknown"])),
        provenance=Provenance(
            format=draw(words),
            converter="test",
            converter_version="1",
            sources=(SourceFile(uri=draw(words), size=draw(st.integers(0, 2**40)), sha256=draw(digests)),),
            ledger=(*ledger, FieldFate(field="left out", fate="dropped", how=draw(words))),
            evidence=draw(st.dictionaries(words, json_values, max_size=2)),
            warnings=tuple(draw(st.lists(words, max_size=2))),
        ),
        clocks=clocks,
        streams=streams,
        events=tuple(
            Event(kind="phase", start_ns=t, stop_ns=t + 5, text=draw(words))
            for t in draw(st.lists(st.integers(0, 9), max_size=2))
        ),
        extra=draw(st.dictionaries(words, json_values, max_size=2)),
    )
