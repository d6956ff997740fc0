"""Stores of every released format stay readable: each sample is what it was when the store was written."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from teleopen.hub import open_store

DATA = Path(__file__).parents[1] / "data"


@pytest.mark.parametrize("name", ["store-format-1"])
def test_a_golden_store_gives_what_it_always_gave(name: str) -> None:
    store = open_store(DATA / name)
    report = store.verify(decode=True)
    assert (report.damage, report.unclaimed) == ((), ())
    told = json.loads(DATA.joinpath(f"{name}.json").read_text())
    assert set(store.ids) == set(told)
    for episode in store:
        for stream, digest in told[episode.id].items():
            values = np.ascontiguousarray(episode.streams[stream].values())
            if isinstance(digest, list):  # lossy: the conversion to RGB may round otherwise elsewhere
                np.testing.assert_allclose(values.mean(axis=(1, 2, 3)), digest, atol=1)
            else:
                assert hashlib.sha256(values.data).hexdigest() == digest, (episode.id, stream)
    assert store.rights("2").tier == "gated"
