"""The state of a run on disk: everything that the next step depends on."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from moltc_vllm.train.recipe import Recipe
from moltc_vllm.utils.atomic_files import new_file

RECIPE_FILE = "recipe.json"

_NAME = re.compile(r"state-(\d{7})")
_KEPT = 2  # should the last one be damaged, there is one before it


def states(run: Path) -> list[tuple[int, Path]]:
    """Steps and folders of the states of a run, oldest first."""
    if not run.is_dir():
        return []
    found = [(match, path) for path in run.iterdir() if (match := _NAME.fullmatch(path.name))]
    return sorted((int(match[1]), path) for match, path in found)


@contextlib.contextmanager
def new_state(run: Path, step: int, *, main: bool, wait: Callable[[], None]) -> Iterator[Path]:
    """A folder for a state, which counts when the block ends; older states are then removed.

    Args:
        run: Folder of the run.
        step: That the state is of.
        main: Whether this is the process that makes and renames folders.
        wait: For all processes; every one of them writes its own files into the folder.
    """
    partial = run / f".state-{step:07}.partial"
    if main:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    wait()
    yield partial
    wait()
    if not main:
        return
    final = run / f"state-{step:07}"
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
    for _, path in states(run)[:-_KEPT]:
        shutil.rmtree(path)


class RunIdentity(NamedTuple):
    """How a run was begun, and has to go on."""

    recipe: Recipe
    start: str  # checkpoint, or preset
    processes: int


def check_run_identity(run: Path, wanted: RunIdentity) -> None:
    """Refuse to go on with a run in another way than it was begun.

    Raises:
        ValueError: Naming what differs.
    """
    path = run / RECIPE_FILE
    if not path.is_file():
        return
    # Through the recipe, as one that is older lacks what was added since.
    content = json.loads(path.read_text())
    start, processes = content.pop("from"), content.pop("processes", 1)
    before = _content(RunIdentity(Recipe.model_validate(content), start, processes))
    told = _content(wanted)
    differ = [key for key in told if before[key] != told[key]]
    if differ:
        raise ValueError(f"{run} was begun with other {', '.join(sorted(differ))}")


def write_run_identity(run: Path, begun: RunIdentity) -> None:
    """Write how a run is begun, once all else has gone well."""
    path = run / RECIPE_FILE
    if not path.is_file():
        with new_file(path) as partial:
            partial.write_text(json.dumps(_content(begun), indent=2) + "\n")


def _content(begun: RunIdentity) -> dict[str, Any]:
    recipe = begun.recipe.model_dump(mode="json")
    return {**recipe, "from": begun.start, "processes": begun.processes}
