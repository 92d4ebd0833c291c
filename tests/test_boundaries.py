"""Imports point one way; vLLM stays under plugin/, Ray under deploy/."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import moltc_vllm

PACKAGE = Path(moltc_vllm.__file__).parent
ROOT = PACKAGE.parent

LAYERS = [
    {"_version", "utils", "checkpoints"},
    {"chem"},
    {"tasks"},
    {"tables"},
    {"models", "screening", "data"},
    {"plugin", "train", "evaluate"},
    {"engines", "shipped"},
    {"deploy"},
    {"api"},
    {"__init__"},
    {"cli"},
]
"""Packages and top-level modules from bottom to top: each imports from lower layers only."""

RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}


def source_files():
    return sorted(PACKAGE.rglob("*.py"))


def imports_of(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def unit_of(path: Path) -> str:
    """The package below `moltc_vllm` that a file belongs to, or the name of a top-level module."""
    parts = path.relative_to(PACKAGE).parts
    return parts[0].removesuffix(".py")


def imported_unit(name: str) -> str | None:
    """The package or top-level module of ours that an imported name belongs to."""
    parts = name.split(".")
    if parts[0] != "moltc_vllm":
        return None
    return parts[1] if len(parts) > 1 and parts[1] in RANK else "__init__"


def test_layers_list_every_package_and_module():
    found = {unit_of(path) for path in source_files()}
    assert found == set(RANK)


def test_imports_point_to_lower_layers():
    for path in source_files():
        unit = unit_of(path)
        for name in imports_of(path):
            other = imported_unit(name)
            assert other is None or other == unit or RANK[other] < RANK[unit], (
                f"{path.relative_to(ROOT)} imports {name}"
            )


@pytest.mark.parametrize(("library", "package"), [("vllm", "plugin"), ("ray", "deploy")])
def test_heavy_library_is_imported_by_one_package(library, package):
    for path in source_files():
        if unit_of(path) != package:
            used = {name for name in imports_of(path) if name.split(".")[0] == library}
            assert not used, f"{path.relative_to(ROOT)} imports {used}"


@pytest.mark.parametrize("package", ["utils", "checkpoints"])
def test_bottom_layer_imports_standard_library_only(package):
    for path in sorted((PACKAGE / package).rglob("*.py")):
        others = {name for name in imports_of(path) if imported_unit(name) != package}
        used = {name.split(".")[0] for name in others}
        assert used <= {"__future__", *sys.stdlib_module_names}, path


@pytest.mark.parametrize("package", ["chem", "tasks", "tables", "evaluate", "screening"])
def test_light_packages_do_not_import_torch(package):
    for path in sorted((PACKAGE / package).rglob("*.py")):
        used = {name.split(".")[0] for name in imports_of(path)} & {"torch", "transformers"}
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
        ("moltc_vllm.screening.run", ["torch", "vllm", "ray"]),
        ("moltc_vllm.engines.factory", ["torch", "vllm", "ray"]),
        ("moltc_vllm.evaluate.scoring", ["torch", "vllm", "ray", "matplotlib"]),
        ("moltc_vllm.cli", ["torch", "vllm", "ray", "rdkit", "transformers", "sklearn", "pyarrow"]),
        ("moltc_vllm.plugin", ["torch", "vllm", "ray"]),
        ("moltc_vllm.plugin.launcher", ["torch", "vllm", "ray"]),
        ("moltc_vllm.deploy.cluster", ["ray"]),
    ],
)
def test_import_does_not_load(module, forbidden):
    code = f"import {module}, sys; print([m for m in {forbidden!r} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
