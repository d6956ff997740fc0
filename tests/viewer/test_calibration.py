"""A camera is put into the world only if what is told of it leaves no doubt."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from teleopen.schemas import StreamSpec
from teleopen.viewer.calibration import intrinsics, pose

K = [[500.0, 0.0, 320.0], [0.0, 510.0, 240.0], [0.0, 0.0, 1.0]]
FLAT = [number for row in K for number in row]
TURN = [[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]


def camera(shape: tuple[int, ...] = (480, 640, 3), **attributes: Any) -> StreamSpec:
    return StreamSpec(
        name="observation.images.top", kind="video", dtype="uint8", shape=shape, attributes=attributes
    )


@pytest.mark.parametrize(
    "told", [K, FLAT, {"K": FLAT, "width": 640, "height": 480}, [[*row, 0.0] for row in K]]
)
def test_the_matrix_is_read_however_converters_tell_it(told: Any) -> None:
    found = intrinsics(camera(intrinsics=told))
    assert found is not None
    assert np.array_equal(found, K)


def test_a_calibration_of_larger_pictures_is_scaled() -> None:
    found = intrinsics(camera((240, 320, 3), intrinsics=K, calibrated_at=[640, 480]))
    assert found is not None
    assert np.allclose(found, [[250, 0, 160], [0, 255, 120], [0, 0, 1]])


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"intrinsics": K, "calibrated_at": [640, 640]},
        {"intrinsics": [[0.0] * 3] * 3},
        {"intrinsics": [[float("nan")] * 3] * 3},
        {"intrinsics": "K"},
        {"intrinsics": {"left": K}},
        {"intrinsics": [[500, 0, 900], [0, 500, 240], [0, 0, 1]]},
    ],
)
def test_what_cannot_be_of_these_pictures_is_not_taken(attributes: dict[str, Any]) -> None:
    assert intrinsics(camera(**attributes)) is None


def test_a_camera_stands_where_both_conventions_say() -> None:
    world = np.eye(4)
    world[:3, :3], world[:3, 3] = TURN, [1, 2, 3]
    inverse = np.linalg.inv(world)
    by_cv, by_gl = pose({"extrinsic_cv": inverse[:3].tolist()}), pose({"cam2world_gl": world.tolist()})
    assert by_cv is not None
    assert by_gl is not None
    assert np.allclose(by_cv.translation, [1, 2, 3])
    assert np.allclose(by_cv.rotation, TURN)
    assert np.allclose(by_gl.translation, [1, 2, 3])
    assert (by_cv.axes, by_gl.axes) == ("RDF", "RUB")


def test_a_matrix_that_does_more_than_turn_and_move_is_no_pose() -> None:
    assert pose({"cam2world_gl": (2 * np.eye(4)).tolist()}) is None
    assert pose({}) is None
