"""What several rooms' tests share: small checkpoints and one running server."""

import os
from pathlib import Path
from typing import Any

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

TESTS = Path(__file__).parent


def pytest_configure(config: pytest.Config) -> None:
    """Choose how Triton kernels run: compiled for `-m gpu`, else interpreted.

    Here, because importing vLLM imports Triton, and the first import decides.
    """
    if not selects_gpu(config):
        import_triton()


_LONG = ("train", "integration", "golden", "kernels")
_OWN_SERVER = ("test_adapters.py", "test_shipped.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long folders come first, so that no process is left with one of them at the end."""
    items.sort(key=lambda item: item.path.relative_to(TESTS).parts[0] not in _LONG)


@pytest.hookimpl(optionalhook=True)  # there is no such hook without xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `pytest -n`: one process has a file, or the files with the common server.

    Not by `--dist loadgroup`: xdist 3.8 does not see its groups under pytest 9.2, and every
    process then starts every server.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Rooms(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            folder, _, file = nodeid.partition("::")[0].rpartition("/")
            common = folder.endswith("integration") and file not in _OWN_SERVER
            return folder if common else f"{folder}/{file}"

    return Rooms(config, log)


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
