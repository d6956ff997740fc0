"""Robots: kinematics against independent libraries, axes that are found, URDFs that are refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from teleopen.schemas import (
    ActionContract,
    ActionPart,
    Array,
    Episode,
    FormatError,
    NotFoundError,
    SchemaError,
    StreamSpec,
)
from teleopen.viewer.kinematics import Chain, Joint, pose_of
from teleopen.viewer.robots import limits, placed, registry, robot_from, robot_named, robot_of, trail
from teleopen.viewer.urdf import read_urdf, with_meshes

from tests.viewer.made import episode_of

REFERENCE: dict[str, Any] = json.loads(Path(__file__).with_name("poses.json").read_bytes())
"""Poses by MuJoCo and yourdfpy, from the descriptions that they name; see its members."""

TENTH_DEGREE = np.radians(0.1)


def pose_errors(found: Array, expected: Array) -> tuple[float, float]:
    """Return the distance in metres and the angle in radians between two poses (3, 4)."""
    turn = found[:3, :3].T @ expected[:3, :3]
    angle = np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1))
    return float(np.linalg.norm(found[:3, 3] - expected[:3, 3])), float(angle)


@pytest.mark.parametrize("name", REFERENCE)
def test_links_stand_where_an_independent_library_says(name: str) -> None:
    chain = registry()[name].chain
    for case in REFERENCE[name]["poses"]:
        positions = {joint: np.array([value]) for joint, value in case["positions"].items()}
        found = chain.poses(positions)[case["link"]][0]
        distance, angle = pose_errors(found, np.reshape(case["pose"], (3, 4)))
        assert distance < 1e-3, (case["link"], distance)
        assert angle < TENTH_DEGREE, (case["link"], angle)


def test_every_bundled_robot_is_checked_against_another_library() -> None:
    assert {*REFERENCE, "aloha"} == set(registry())
    assert registry()["aloha"].chain == registry()["viperx-300s"].chain


@pytest.mark.parametrize("name", registry())
def test_a_bundled_robot_is_complete(name: str) -> None:
    robot = registry()[name]
    joints = {joint.name: joint for joint in robot.chain.joints}
    assert set(robot.order) <= set(joints)
    assert robot.tip in {joint.child for joint in joints.values()}
    assert all(len(names) == len(robot.order) for names in robot.names)
    for joint in joints.values():
        if joint.type != "fixed":
            assert joint.lower is not None
            assert joint.upper is not None
            assert joint.lower < joint.upper


def test_an_arm_of_two_links_reaches_where_trigonometry_says() -> None:
    """A planar arm of two links of 1 m: trigonometry gives its tip."""
    chain = Chain(
        (
            Joint(name="b", type="revolute", parent="one", child="two", xyz=(1, 0, 0), axis=(0, 0, 2)),
            Joint(name="a", type="revolute", parent="base", child="one", axis=(0, 0, 1)),
            Joint(name="c", type="prismatic", parent="two", child="tip", axis=(1, 0, 0)),
        )
    )
    a, b, c = np.array([0.0, 0.3, -2.0]), np.array([0.5, 0.1, 1.0]), np.array([1.0, 1.5, 0.0])
    tip = chain.poses({"a": a, "b": b, "c": c})["tip"][:, :3, 3]
    expected = np.stack([np.cos(a) + c * np.cos(a + b), np.sin(a) + c * np.sin(a + b), 0 * a], axis=1)
    np.testing.assert_allclose(tip, expected, atol=1e-12)
    assert chain.root == "base"
    assert chain.leaf() == "tip"


def test_a_joint_that_mimics_another_follows_it() -> None:
    panda = registry()["franka-panda"].chain
    poses = panda.poses({"panda_finger_joint1": np.array([0.03])})
    left, right = (poses[f"panda_{side}finger"][0, :3, 3] for side in ("left", "right"))
    assert np.linalg.norm(left - right) == pytest.approx(0.06)


def test_joints_that_are_no_tree_are_refused() -> None:
    def joint(name: str, parent: str, child: str) -> Joint:
        return Joint(name=name, type="fixed", parent=parent, child=child)

    with pytest.raises(SchemaError, match="no tree"):
        Chain((joint("a", "x", "y"), joint("b", "z", "y")))
    with pytest.raises(SchemaError, match="no tree"):
        Chain((joint("a", "x", "y"), joint("b", "y", "x")))
    with pytest.raises(SchemaError, match="circle"):
        Chain((joint("a", "base", "end"), joint("b", "x", "y"), joint("c", "y", "x")))


# ---------------------------------------------------------------- whose axes they are


def arm_episode(
    axes: tuple[str, ...], unit: str = "rad", embodiment: str = "panda", steps: int = 5
) -> Episode:
    rows = np.linspace(-1, 1, steps * len(axes)).reshape(steps, len(axes)).astype("float32")
    contract = ActionContract(
        parts=(ActionPart(start=0, stop=len(axes), space="joint_position", mode="absolute"),)
    )
    shape: dict[str, Any] = {"kind": "low_dim", "dtype": "float32", "shape": (len(axes),), "axes": axes}
    state = StreamSpec(name="observation.state", unit=(unit,), **shape)
    action = StreamSpec(name="action", unit=(unit,), contract=contract, **shape)
    return episode_of([(state, rows), (action, rows + 0.1)], rate_hz=10, embodiment=embodiment)


PANDA = tuple(f"joint_{i}" for i in range(1, 8))
ALOHA = tuple(
    f"{side}_{name}"
    for side in ("left", "right")
    for name in ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate", "gripper")
)


def test_a_robot_is_found_by_the_words_of_its_embodiment() -> None:
    def found(text: str) -> str | None:
        robot = robot_of(arm_episode(PANDA, embodiment=text))
        return robot.name if robot else None

    assert found("droid panda") == "Franka Panda"
    assert found("so101_follower") == "SO-101"
    assert found("UR5e with Robotiq 2F-85") == "Universal Robots UR5e"
    assert found("expandable") is None
    assert found("unknown") is None


def test_a_robot_that_is_not_bundled_is_an_error_that_lists_those_that_are() -> None:
    assert robot_named("XARM7").name == "UFACTORY xArm 7"
    with pytest.raises(NotFoundError, match="franka-panda"):
        robot_named("Baxter")


def test_joints_are_taken_from_axes_by_name_in_any_order() -> None:
    mixed = ("gripper_width", *reversed(PANDA))
    (arm,) = placed(arm_episode(mixed), robot_named("panda"))
    assert arm.state is not None
    assert {c.joint: c.axis for c in arm.state.columns} == {f"panda_joint{i}": 8 - i for i in range(1, 8)}


def test_both_arms_of_a_robot_with_two_are_found_with_their_grippers() -> None:
    arms = placed(arm_episode(ALOHA, embodiment="aloha"), robot_named("aloha"))
    assert [arm.arm.name for arm in arms] == ["left", "right"]
    for arm, first in zip(arms, (0, 7), strict=True):
        assert arm.state is not None
        assert arm.command is not None
        assert [c.axis for c in arm.state.columns] == list(range(first, first + 7))
        opened = arm.state.positions(np.ones((1, 14)))
        assert opened["left_finger"] == pytest.approx(0.058)


def test_degrees_become_radians_and_an_unknown_unit_is_not_guessed() -> None:
    panda = robot_named("panda")
    (arm,) = placed(arm_episode(PANDA, unit="deg"), panda)
    assert arm.state is not None
    assert arm.state.positions(np.full((1, 7), 180.0))["panda_joint1"] == pytest.approx(np.pi)
    assert placed(arm_episode(PANDA, unit="unknown"), panda) == ()
    (told,) = placed(arm_episode(PANDA, unit="unknown"), panda, unit="deg")
    assert told.state == arm.state


def numbered_axes(word: str, first: int = 0, count: int = 7) -> tuple[str, ...]:
    return tuple(f"{word}{number}" for number in range(first, first + count))


@pytest.mark.parametrize(
    "axes",
    [
        numbered_axes("j"),
        numbered_axes("joint"),
        numbered_axes("Joint_"),
        numbered_axes("q", 1),
        numbered_axes("motor_"),
        numbered_axes(""),
    ],
)
def test_joints_that_are_only_counted_are_in_the_order_of_the_robot_that_is_named_and_it_is_told(
    axes: tuple[str, ...],
) -> None:
    (arm,) = placed(arm_episode(axes, embodiment="Franka Emika Panda"), robot_named("panda"))
    assert arm.state is not None
    assert arm.command is not None
    assert [(c.joint, c.axis) for c in arm.state.columns] == [(f"panda_joint{i + 1}", i) for i in range(7)]
    (note,) = arm.notes()
    assert note.startswith("joint order assumed from the embodiment: observation.state and action as panda_")
    assert limits([arm]) == {}, "an assumption is no ground for a finding"


def test_joints_that_are_named_are_not_assumed() -> None:
    (arm,) = placed(arm_episode(PANDA), robot_named("panda"))
    assert arm.notes() == []


@pytest.mark.parametrize(
    ("axes", "told"),
    [
        (numbered_axes("j", count=8), {}),  # a gripper, but which?
        (numbered_axes("j", count=6), {}),
        ((*numbered_axes("j", count=6), "gripper"), {}),
        ((*numbered_axes("j", count=6), "j7"), {}),  # j6 is missing
        (numbered_axes("j", 2), {}),
        (tuple(reversed(numbered_axes("j"))), {}),
        (("x", "y", "z", "qx", "qy", "qz", "qw"), {}),
        (numbered_axes("j"), {"embodiment": "not a panda"}),
        (numbered_axes("j"), {"embodiment": "two panda"}),
        (numbered_axes("j"), {"embodiment": "unknown"}),
        (numbered_axes("j"), {"unit": "unknown"}),
        (numbered_axes("motor_"), {"unit": "m"}),
    ],
)
def test_nothing_is_assumed_of_joints_that_do_not_fit_or_of_a_robot_that_is_not_certain(
    axes: tuple[str, ...], told: dict[str, Any]
) -> None:
    assert placed(arm_episode(axes, **told), robot_named("panda")) == ()


def test_numbers_without_names_are_joints_only_where_the_stream_says_so() -> None:
    panda = robot_named("panda")
    episode = arm_episode(numbered_axes("axis_"), unit="unknown")
    assert placed(episode, panda, unit="rad") == (), "seven numbers can be the pose of a hand"
    (arm,) = placed(arm_episode(numbered_axes("joint_"), unit="unknown"), panda, unit="rad")
    assert arm.notes()


def test_a_user_who_names_the_robot_is_certain() -> None:
    episode = arm_episode(numbered_axes("j"), embodiment="lab 3")
    assert placed(episode, robot_named("panda")) == ()
    (arm,) = placed(episode, robot_named("panda"), is_certain=True)
    assert arm.notes()


def test_two_arms_are_never_assumed() -> None:
    for count in (12, 14):
        episode = arm_episode(numbered_axes("joint_", count=count), embodiment="aloha")
        assert placed(episode, robot_named("aloha")) == ()


def test_an_action_that_is_not_all_joint_positions_is_not_taken_for_joints() -> None:
    episode = arm_episode(numbered_axes("j"))
    action = episode.streams["action"]
    parts = (
        ActionPart(start=0, stop=6, space="joint_position", mode="absolute"),
        ActionPart(start=6, stop=7, space="gripper", mode="absolute"),
    )
    spec = replace(action.spec, contract=ActionContract(parts=parts))
    mixed = replace(episode, streams={**episode.streams, "action": replace(action, spec=spec)})
    (arm,) = placed(mixed, robot_named("panda"))
    assert arm.state is not None
    assert arm.command is None


def test_limits_go_with_the_axes_in_the_units_of_the_stream() -> None:
    arms = placed(arm_episode(PANDA, unit="deg"), robot_named("panda"))
    found = limits(arms)["observation.state"]
    assert [limit.axis for limit in found] == list(range(7))
    assert found[3].upper == pytest.approx(-0.0698)
    assert found[3].scale == pytest.approx(np.pi / 180)


def test_a_trail_starts_at_the_base_of_its_arm() -> None:
    arms = placed(arm_episode(ALOHA, embodiment="aloha"), robot_named("aloha"))
    reach = [trail(arm, arm.state, np.zeros((1, 14)))[0] for arm in arms if arm.state is not None]
    assert reach[0][0] == pytest.approx(-reach[1][0])
    assert reach[0][0] == pytest.approx(
        -0.469 + 0.05955 + 0.2 + 0.1 + 0.069744 + 0.042825 + 0.025875 + 0.0275
    )
    assert reach[0][2] == pytest.approx(0.079 + 0.04805 + 0.3)


# ---------------------------------------------------------------- URDFs of others

URDF = """<?xml version="1.0"?>
<robot name="arm">
  <link name="base"/>
  <link name="one"><visual><geometry><mesh filename="{mesh}"/></geometry></visual></link>
  <joint name="turn" type="revolute">
    <origin xyz="0 0 0.5" rpy="0 0 1.5707963267948966"/><parent link="base"/><child link="one"/>
    <axis xyz="0 0 1"/><limit lower="-1" upper="1" velocity="2" effort="1"/>
  </joint>
  <transmission name="t"><joint name="turn"/></transmission>
</robot>
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "arm.urdf"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_urdf_of_a_user_is_a_robot(tmp_path: Path) -> None:
    robot = robot_from(written(tmp_path, URDF.format(mesh="one.stl")))
    assert robot.order == ("turn",)
    pose = robot.chain.poses({"turn": np.array([0.0])})["one"][0]
    np.testing.assert_allclose(pose, pose_of((0, 0, 0.5), (0, 0, np.pi / 2)), atol=1e-12)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no XML"),
        ("<sdf/>", "no <robot>"),
        ("<robot/>", "no joint"),
        ('<!DOCTYPE r [<!ENTITY a SYSTEM "file:///etc/passwd">]><robot name="&a;"/>', "document type"),
        (URDF.replace('"0 0 0.5"', '"0 0"'), "three numbers"),
        (URDF.replace('"0 0 0.5"', '"0 0 nan"'), "no number"),
        (URDF.replace('"revolute"', '"floating"'), "not supported"),
        (URDF.replace('<parent link="base"/>', ""), "no parent"),
        ("<robot>" + "<link>" * 100_000, "too deep"),
    ],
)
def test_a_urdf_that_is_wrong_or_dangerous_is_refused(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(FormatError, match=why):
        read_urdf(written(tmp_path, text))


def test_a_urdf_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "arm.urdf"
    with path.open("wb") as file:
        file.truncate(9 << 20)
    with pytest.raises(FormatError, match="bytes"):
        read_urdf(path)


def test_meshes_are_taken_from_beside_the_urdf_only(tmp_path: Path) -> None:
    home = tmp_path / "arm_description" / "urdf"
    home.mkdir(parents=True)
    (home.parent / "meshes").mkdir()
    tmp_path.joinpath("secret.stl").write_bytes(b"x")
    for place in (home / "one.stl", home.parent / "meshes" / "one.stl"):
        place.write_bytes(b"solid")
    home.joinpath("link.stl").symlink_to(tmp_path / "secret.stl")

    def found(mesh: str) -> dict[str, Path] | None:
        return read_urdf(written(home, URDF.format(mesh=mesh))).mesh_files()

    assert found("one.stl") == {"one.stl": home / "one.stl"}
    package = "package://arm_description/meshes/one.stl"
    assert found(package) == {package: home.parent / "meshes" / "one.stl"}
    for outside in (
        "../../secret.stl",
        str(tmp_path / "secret.stl"),
        "link.stl",
        "package://other/x.stl",
        "no.stl",
    ):
        assert found(outside) is None, outside


def test_meshes_are_named_by_their_full_path_for_the_viewer_and_nothing_else_is(tmp_path: Path) -> None:
    tmp_path.joinpath("one.stl").write_bytes(b"solid")
    text = URDF.format(mesh="one.stl").replace(
        "</robot>", "<material><texture filename='/etc/x.png'/></material></robot>"
    )
    document = read_urdf(written(tmp_path, text))
    told = with_meshes(document, document.mesh_files() or {})
    assert f'filename="{tmp_path / "one.stl"}"' in told
    assert "/etc" not in told
