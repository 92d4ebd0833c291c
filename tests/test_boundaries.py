"""Imports point one way; vLLM stays under plugin/ and Ray under deploy/; light rooms are light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import moltc_vllm

PACKAGE = Path(moltc_vllm.__file__).parent
ROOT = PACKAGE.parent

HALL = {"affinity", "files", "interruption"}
"""Modules that any room may use: they know of nothing but Python's own library."""

# What each room may import of ours; `chem`, `tasks` and the hall are open to all.
ALLOWED = {
    "chem": set(),
    "tasks": set(),
    "models": set(),
    "plugin": {"models"},
    "deploy": {"plugin", "models", "shipped", "screening", "evaluate", "engines"},
    "screening": set(),
    "evaluate": {"data"},
    "data": set(),
    "train": {"data", "models", "shipped"},
    "cli": {
        "engines",
        "deploy",
        "screening",
        "evaluate",
        "train",
        "data",
        "plugin",
        "models",
        "shipped",
    },
}


def modules():
    return sorted(PACKAGE.rglob("*.py"))


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else ""


@pytest.mark.parametrize(("library", "room"), [("vllm", "plugin"), ("ray", "deploy")])
def test_heavy_libraries_have_one_room(library, room):
    for path in modules():
        if room_of(path) != room:
            used = {name for name in imports_of(path) if name.split(".")[0] == library}
            assert not used, f"{path.relative_to(ROOT)} imports {used}"


def test_rooms_import_downwards_only():
    for path in modules():
        room = room_of(path)
        if not room:
            continue
        for name in imports_of(path):
            parts = name.split(".")
            if parts[0] != "moltc_vllm" or len(parts) < 3:
                continue
            other = parts[1]
            assert other in {room, "chem", "tasks", *HALL, *ALLOWED[room]}, (
                f"{path.relative_to(ROOT)} imports {name}"
            )


@pytest.mark.parametrize("name", sorted(HALL))
def test_the_hall_knows_of_no_room(name):
    used = {one.split(".")[0] for one in imports_of(PACKAGE / f"{name}.py")}
    assert used <= {"__future__", *sys.stdlib_module_names}


def test_light_rooms_know_nothing_of_torch():
    for path in modules():
        if room_of(path) in {"chem", "tasks", "evaluate"}:
            used = {n.split(".")[0] for n in imports_of(path)} & {"torch", "transformers"}
            assert not used, f"{path.relative_to(ROOT)} imports {used}"


def test_kernels_import_torch_and_triton_only():
    root = ROOT / "kernels"
    assert not (root / "__init__.py").exists()
    allowed = {"torch", "triton", "moltc_kernels", *sys.stdlib_module_names}
    for path in root.rglob("*.py"):
        used = {name.split(".")[0] for name in imports_of(path)}
        assert used <= allowed, f"{path.relative_to(ROOT)} imports {used - allowed}"


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("moltc_vllm", ["torch", "vllm", "ray", "rdkit", "transformers"]),
        ("moltc_vllm.chem", ["torch", "vllm", "ray", "numba"]),
        ("moltc_vllm.tasks", ["torch", "vllm", "ray", "rdkit"]),
        ("moltc_vllm.models", ["vllm", "ray"]),
        ("moltc_vllm.screening", ["torch", "vllm", "ray"]),
        ("moltc_vllm.evaluate", ["torch", "vllm", "ray", "matplotlib"]),
        ("moltc_vllm.cli", ["torch", "vllm", "ray", "rdkit", "transformers", "sklearn", "pyarrow"]),
        ("moltc_vllm.plugin", ["torch", "vllm", "ray"]),
        ("moltc_vllm.plugin.launcher", ["torch", "vllm", "ray"]),
    ],
)
def test_importing_a_room_does_not_load(module, forbidden):
    code = f"import {module}, sys; print([m for m in {forbidden!r} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
