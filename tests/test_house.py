"""The plan of the house: who may import whom, what is shipped, what a start may cost."""

import ast
import importlib.util
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

MAY_ENTER: dict[str, set[str]] = {
    "schemas": set(),
    "converters": {"schemas"},
    "hub": {"schemas"},
    "viewer": {"schemas"},
    "cli": {"schemas", "converters", "hub", "viewer"},
}

# Of an extra, or of nobody: these may be absent, so only a function may import them.
OPTIONAL = {
    "distributed",
    "gcsfs",
    "imagecodecs",
    "jax",
    "lz4",
    "mcap",
    "mcap_ros2",
    "moto",
    "rerun",
    "rosbags",
    "s3fs",
    "tensorflow",
    "torch",
    "yaml",
    "zstandard",
}

# Always there, but slow to load: `teleopen --help` must not wait for them.
HEAVY = {"PIL", "av", "h5py", "huggingface_hub", "pyarrow", "zarr"}

# The only files that may import these at the top, since they are nothing without them.
ONLY_HOME = {"torch": "hub/train/torch.py", "rerun": "viewer/rerun.py"}


def files_of(room: str) -> Iterator[Path]:
    yield from sorted(ROOT.joinpath(room).rglob("*.py"))


def tree_of(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"), filename=str(file))


def imported_packages(nodes: Iterator[ast.AST]) -> Iterator[str]:
    """Yield the top-level name of each absolute import."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield (node.module or "").partition(".")[0]


def rooms_entered(file: Path) -> Iterator[str]:
    """Yield each room that a file of another room imports, as ``..room``."""
    depth = len(file.relative_to(ROOT).parts)
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.ImportFrom) and node.level >= depth:
            yield from {node.module.partition(".")[0]} if node.module else {a.name for a in node.names}


def run_at_import(tree: ast.Module) -> Iterator[ast.AST]:
    """Yield the nodes that run when a module is imported: functions and type-checking blocks do not."""
    todo: list[ast.AST] = [tree]
    while todo:
        node = todo.pop()
        yield node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            todo += node.orelse
            continue
        todo += ast.iter_child_nodes(node)


@pytest.mark.parametrize("room", MAY_ENTER)
def test_a_room_enters_only_those_below(room: str) -> None:
    for file in files_of(room):
        assert set(rooms_entered(file)) <= MAY_ENTER[room], file


@pytest.mark.parametrize("room", MAY_ENTER)
def test_rooms_reach_each_other_by_relative_imports(room: str) -> None:
    for file in files_of(room):
        absolute = set(imported_packages(ast.walk(tree_of(file))))
        assert not absolute & {*MAY_ENTER, "teleopen", "tests"}, file


def test_the_ground_floor_needs_numpy_only() -> None:
    for file in files_of("schemas"):
        foreign = set(imported_packages(ast.walk(tree_of(file)))) - sys.stdlib_module_names
        assert foreign <= {"numpy"}, file


@pytest.mark.parametrize("room", MAY_ENTER)
def test_what_may_be_absent_is_imported_inside_functions(room: str) -> None:
    for file in files_of(room):
        found = set(imported_packages(run_at_import(tree_of(file)))) & OPTIONAL
        at_home = {name for name, home in ONLY_HOME.items() if file == ROOT / home}
        assert found <= at_home, file


def test_every_folder_of_code_is_shipped() -> None:
    project = tomllib.loads(ROOT.joinpath("pyproject.toml").read_text(encoding="utf-8"))
    folders = {file.parent for room in MAY_ENTER for file in files_of(room)}
    assert set(project["tool"]["setuptools"]["packages"]) == {
        ".".join(("teleopen", *folder.relative_to(ROOT).parts)) for folder in folders
    }
    for folder in folders:
        assert folder.joinpath("__init__.py").is_file(), f"{folder} holds modules and no __init__.py"


@pytest.mark.parametrize("room", MAY_ENTER)
def test_every_room_ships_its_types(room: str) -> None:
    assert ROOT.joinpath(room, "py.typed").is_file()


def test_the_command_line_starts_without_the_heavy_libraries() -> None:
    if importlib.util.find_spec("teleopen.cli.main") is None:
        pytest.skip("cli/main.py is not written yet")
    loaded = subprocess.run(
        [sys.executable, "-c", "import json, sys, teleopen.cli.main; print(json.dumps(list(sys.modules)))"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert not set(json.loads(loaded)) & (HEAVY | OPTIONAL)
