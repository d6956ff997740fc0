"""Where a camera stands and how it projects, as far as a stream's attributes say so without doubt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..schemas import Json, StreamSpec

Matrix = NDArray[np.float64]

_SAME_SHAPE = 0.01  # of the pictures that were calibrated and those of the stream, as a ratio


@dataclass(frozen=True, slots=True)
class Pose:
    """Where a camera is in the world: ``world = rotation @ camera + translation``.

    Attributes
    ----------
    axes
        The camera's own axes: ``RDF`` (right, down, forward; OpenCV) or ``RUB`` (right, up, back; OpenGL).
    """

    rotation: Matrix
    translation: Matrix
    axes: str


def intrinsics(spec: StreamSpec) -> Matrix | None:
    """Return the matrix (3, 3) that projects onto a camera's pictures, in pixels; None if it is not known.

    Attributes are told as converters tell them: ``intrinsics`` is the matrix, or the fields of a ROS
    ``sensor_msgs/CameraInfo`` with its ``K``. If they are of pictures of another size, they are scaled.
    """
    told = spec.attributes.get("intrinsics")
    size = spec.attributes.get("calibrated_at")
    if isinstance(told, Mapping):
        size = (told.get("width"), told.get("height"))
        told = told.get("K", told.get("k"))
    matrix = _matrix(told, 3, 3)
    if matrix is None or matrix[0, 0] <= 0 or matrix[1, 1] <= 0:
        return None
    height, width = spec.shape[:2]
    match size:
        case (int(across), int(down)) if across > 0 and down > 0:
            x, y = width / across, height / down
            if abs(x / y - 1) > _SAME_SHAPE:
                return None
            return np.diag([x, y, 1.0]) @ matrix
    # Without a size the principal point has to tell whether it is of these pictures.
    return matrix if 0 < matrix[0, 2] < width and 0 < matrix[1, 2] < height else None


def pose(attributes: Mapping[str, Json]) -> Pose | None:
    """Return where a camera stands that never moves; None if that is not known.

    ``extrinsic_cv`` takes the world to a camera of OpenCV's axes, ``cam2world_gl`` a camera of OpenGL's to
    the world, as ManiSkill and RoboTwin name them (github.com/haosulab/SAPIEN: sapien/wrapper/pythonapi, the
    camera's get_extrinsic_matrix and get_model_matrix).
    """
    matrix = _matrix(attributes.get("cam2world_gl"), 3, 4)
    if matrix is not None:
        return _rigid(matrix, "RUB")
    matrix = _matrix(attributes.get("extrinsic_cv"), 3, 4)
    if matrix is None:
        return None
    rotation = matrix[:, :3].T
    return _rigid(np.column_stack([rotation, -rotation @ matrix[:, 3]]), "RDF")


def _rigid(matrix: Matrix, axes: str) -> Pose | None:
    """Return a pose, unless the matrix does more than turn and move."""
    rotation = matrix[:, :3]
    if not np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-3):
        return None
    return Pose(rotation, matrix[:, 3], axes)


def _matrix(told: Json, rows: int, columns: int) -> Matrix | None:
    """Return the upper left of a matrix that is told as rows, or as one row of a 3 x 3 matrix."""
    try:
        found = np.asarray(told, np.float64)
    except (TypeError, ValueError):
        return None
    if found.shape == (9,):
        found = found.reshape(3, 3)
    fits = found.ndim == 2 and rows <= found.shape[0] <= 4 and columns <= found.shape[1] <= 4
    if not fits or not np.isfinite(found).all():
        return None
    return found[:rows, :columns]
