"""Fixtures and pytest hooks of all tests: small checkpoints, xdist scheduling, GPU selection."""

import os
from pathlib import Path
from typing import Any

import pytest

# These variables are set before anything imports vLLM, torch or a hub client, which read them then.
if "PYTEST_XDIST_WORKER" in os.environ:
    # Parallel workers that each use all cores would wait for one another.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")

from moltc_vllm.plugin.launcher import prepare_environment
from tests.kernels.interpreter import import_triton

prepare_environment()

TESTS = Path(__file__).parent


def pytest_configure(config: pytest.Config) -> None:
    """Choose how Triton kernels run: compiled for `-m gpu`, otherwise interpreted.

    Triton's first import decides it, and importing vLLM imports Triton.
    """
    if not selects_gpu(config):
        import_triton()


_SLOW_FOLDERS = ("train", "integration", "golden", "kernels")
_FILES_WITH_OWN_SERVER = ("test_adapters.py", "test_shipped.py")


_HEAVY_FOLDERS = ("deploy", "examples", "golden", "integration", "plugin", "train")
_HEAVY_FILES = (
    "benchmarks/test_problem.py",
    "chem/test_library.py",
    "chem/test_partial_sanitize.py",
    "cli/test_cli.py",
    "cli/test_convert.py",
    "cli/test_data.py",
    "cli/test_evaluate.py",
    "cli/test_screen_signals.py",
    "data/test_build.py",
    "docs/test_executed_blocks.py",
    "docs/test_reference_pages.py",
    "kernels/test_aot.py",
    "kernels/test_triton.py",
    "kernels/test_triton_gin.py",
    "models/test_decoding.py",
    "models/test_kernel_backends.py",
    "screening/test_resume.py",
    "test_boundaries.py",
    "test_written_by_0_1.py",
)
"""Folders and files with tests that start an engine, a server, training or many processes,
interpret GPU kernels, or read much data: `make test-fast` leaves them out."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark heavy tests and sort slow folders first, so that no worker ends with one of them."""
    for item in items:
        path = item.path.relative_to(TESTS)
        if path.parts[0] in _HEAVY_FOLDERS or path.as_posix() in _HEAVY_FILES:
            item.add_marker(pytest.mark.heavy)
    items.sort(key=lambda item: item.path.relative_to(TESTS).parts[0] not in _SLOW_FOLDERS)


@pytest.hookimpl(optionalhook=True)  # the hook exists only with xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Schedule whole files, and files that share a server together, for `pytest -n`.

    `--dist loadgroup` is no alternative: xdist 3.8 ignores its groups under pytest 9.2, so that
    every worker would start every server.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ServerScheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            folder, _, file = nodeid.partition("::")[0].rpartition("/")
            shares_server = folder.endswith("integration") and file not in _FILES_WITH_OWN_SERVER
            return folder if shares_server else f"{folder}/{file}"

    return ServerScheduling(config, log)


def selects_gpu(config: pytest.Config) -> bool:
    """Return whether this run selects the tests that need a GPU."""
    expression = config.getoption("-m")
    return "gpu" in expression and "not gpu" not in expression


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """Create a random checkpoint with a Galactica-style language model."""
    return _create(tmp_path_factory, "tiny")


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory) -> Path:
    """Create a random checkpoint with a Llama-style model and a projector per task and role."""
    return _create(tmp_path_factory, "tiny-llama", projector_sharing="task_role")


@pytest.fixture(scope="session")
def tiny_roles(tmp_path_factory) -> Path:
    """Create a random checkpoint with a Galactica-style model and a projector per role."""
    return _create(tmp_path_factory, "tiny", name="tiny-roles", projector_sharing="role")


@pytest.fixture(scope="session")
def tiny_extended(tmp_path_factory) -> Path:
    """Create a random checkpoint whose encoder uses extended atom features and descriptors."""
    from dataclasses import replace

    from moltc_vllm.models import presets

    tiny = presets.PRESETS["tiny"]
    graph = {**tiny.graph, "atom_features": "extended", "descriptors": True}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(presets.PRESETS, "tiny", replace(tiny, graph=graph))
        return _create(tmp_path_factory, "tiny", name="tiny-extended")


@pytest.fixture(scope="session")
def published(tmp_path_factory) -> Path:
    """Convert the reference fixture's checkpoint with the options that its outputs need."""
    from tests.golden.fixture import Fixture
    from tests.paths import reference_dir

    folder = tmp_path_factory.mktemp("checkpoints") / "published"
    return Fixture(reference_dir()).convert(folder)


@pytest.fixture(scope="session")
def published_unpinned(tmp_path_factory) -> Path:
    """Convert it without the embedding row of ``<mol>``, which real checkpoints lack."""
    from tests.golden.fixture import Fixture
    from tests.paths import reference_dir

    folder = tmp_path_factory.mktemp("checkpoints") / "published-unpinned"
    return Fixture(reference_dir()).convert(folder, pinned=False)


def _create(tmp_path_factory, preset: str, name: str | None = None, **options) -> Path:
    from moltc_vllm.models import create_checkpoint

    folder = tmp_path_factory.mktemp("checkpoints") / (name or preset)
    create_checkpoint(preset, folder, **options)
    return folder
