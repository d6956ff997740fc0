"""Which types of HDF5 are read as rows of numbers or bytes."""

from __future__ import annotations

from typing import Any

import numpy as np


def why_unread(kind: Any, dtype: np.dtype[Any]) -> str:
    """Return why values of an HDF5 type are not read; empty if they are."""
    import h5py

    names = {
        h5py.h5t.VLEN: "rows of variable length",
        h5py.h5t.REFERENCE: "references",
        h5py.h5t.COMPOUND: "compound values",
        h5py.h5t.OPAQUE: "opaque values",
        h5py.h5t.ARRAY: "arrays of arrays",
    }
    family = kind.get_class()
    if family in names:
        return f"holds {names[family]}, which are not read"
    if family == h5py.h5t.STRING:
        # Of other fixed strings the library keeps what lies before the first NUL, and pictures hold many.
        whole = not kind.is_variable_str() and kind.get_strpad() == h5py.h5t.STR_NULLPAD
        return "" if whole else "holds strings that cannot be read as bytes"
    base = kind.get_super() if family == h5py.h5t.ENUM else kind
    truth = dtype.kind == "b"
    plain = np.dtype("u1" if truth else dtype.str)
    # Numbers of odd widths have a NumPy type that they are converted to; their stored bytes are not it.
    odd = dtype.kind not in "biuf" or dtype.itemsize > 8 or base.get_size() != plain.itemsize
    if odd or not (truth or base.equal(h5py.h5t.py_create(plain))):
        return f"holds numbers of the type {dtype}, which are not read"
    return ""
