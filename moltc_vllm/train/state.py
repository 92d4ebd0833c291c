"""The state of a run on disk: everything that the next step depends on."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

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


def remember_recipe(run: Path, content: dict[str, object]) -> None:
    """Write the run's recipe, or refuse to go on with another one.

    Raises:
        ValueError: Naming what differs from the recipe that the run began with.
    """
    path = run / RECIPE_FILE
    if path.is_file():
        before = json.loads(path.read_text())
        told = json.loads(json.dumps(content))
        differ = [key for key in {**before, **told} if before.get(key) != told.get(key)]
        if differ:
            raise ValueError(f"{run} was begun with other {', '.join(sorted(differ))}")
        return
    run.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")
