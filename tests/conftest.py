"""What several rooms' tests share: small checkpoints and one running server."""

import os
from pathlib import Path

import pytest

# Before anything imports vLLM, torch or a hub client.
if "PYTEST_XDIST_WORKER" in os.environ:
    # Processes side by side that each take all cores wait for one another.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")

from moltc_vllm.plugin.launcher import prepare_environment
from tests.kernels.interpreter import import_triton

prepare_environment()


def pytest_configure(config: pytest.Config) -> None:
    """Choose how Triton kernels run: compiled for `-m gpu`, else interpreted.

    Here, because importing vLLM imports Triton, and the first import decides.
    """
    if not selects_gpu(config):
        import_triton()


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in this very hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say what runs in one process of several: a file, and the folder with the common server.

    Folders of long tests come first, so that no process is left with one of them at the end.
    """
    items.sort(key=lambda item: _room(item) not in _LONG)
    for item in items:
        shared = _room(item) == "integration"
        item.add_marker(pytest.mark.xdist_group("integration" if shared else str(item.path)))


_LONG = ("train", "integration", "kernels")


def _room(item: pytest.Item) -> str:
    """The folder of a test, below the one of all tests."""
    return item.path.relative_to(Path(__file__).parent).parts[0]


def selects_gpu(config: pytest.Config) -> bool:
    """Whether this run is of the tests that need a GPU."""
    expression = config.getoption("-m")
    return "gpu" in expression and "not gpu" not in expression


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """A random checkpoint on a Galactica-style language model."""
    return _create(tmp_path_factory, "tiny")


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory) -> Path:
    """The same on a Llama-style one, with a projector per task and role."""
    return _create(tmp_path_factory, "tiny-llama", projector_sharing="task_role")


@pytest.fixture(scope="session")
def tiny_roles(tmp_path_factory) -> Path:
    """As `tiny`, with a projector per role."""
    return _create(tmp_path_factory, "tiny", name="tiny-roles", projector_sharing="role")


@pytest.fixture(scope="session")
def published(tmp_path_factory) -> Path:
    """The reference fixture's checkpoint, converted as its outputs were made."""
    from tests.golden.fixture import Fixture
    from tests.paths import reference_dir

    folder = tmp_path_factory.mktemp("checkpoints") / "published"
    return Fixture(reference_dir()).convert(folder)


@pytest.fixture(scope="session")
def published_unpinned(tmp_path_factory) -> Path:
    """The same without the row of ``<mol>``, which real checkpoints lack."""
    from tests.golden.fixture import Fixture
    from tests.paths import reference_dir

    folder = tmp_path_factory.mktemp("checkpoints") / "published-unpinned"
    return Fixture(reference_dir()).convert(folder, pinned=False)


def _create(tmp_path_factory, preset: str, name: str | None = None, **options) -> Path:
    from moltc_vllm.models import create_checkpoint

    folder = tmp_path_factory.mktemp("checkpoints") / (name or preset)
    create_checkpoint(preset, folder, **options)
    return folder
