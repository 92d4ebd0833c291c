"""Run folder on disk: identity of the run and list of its saved states."""

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
from moltc_vllm.utils.json_objects import read_json_object

RECIPE_FILE = "recipe.json"

# Names in error messages of the keys of recipe.json that are not keys of a recipe.
_LABELS = {"from": "--model", "processes": "the number of processes"}

_STATE_NAME = re.compile(r"state-(\d{7})")
_KEPT_STATES = 2  # the older one is used if the newer one is damaged


def list_states(run: Path) -> list[tuple[int, Path]]:
    """Return steps and folders of a run's saved states, oldest first."""
    if not run.is_dir():
        return []
    matches = [
        (match, path) for path in run.iterdir() if (match := _STATE_NAME.fullmatch(path.name))
    ]
    return sorted((int(match[1]), path) for match, path in matches)


@contextlib.contextmanager
def new_state_folder(
    run: Path, step: int, *, is_main: bool, wait: Callable[[], None]
) -> Iterator[Path]:
    """Create the folder of a state; on exit it gets its final name and old states are removed.

    Args:
        run: Folder of the run.
        step: Number of finished steps.
        is_main: Whether this process creates and renames the folder.
        wait: Barrier over all processes; each of them writes its own files into the folder.
    """
    partial = run / f".state-{step:07}.partial"
    if is_main:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    wait()
    yield partial
    wait()
    if not is_main:
        return
    final = run / f"state-{step:07}"
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
    for _, path in list_states(run)[:-_KEPT_STATES]:
        shutil.rmtree(path)


class RunIdentity(NamedTuple):
    """Settings of a run that must not change when it is resumed.

    Attributes:
        recipe: Recipe of the run.
        init_from: Checkpoint folder or preset with the initial weights.
        processes: Number of training processes.
    """

    recipe: Recipe
    init_from: str
    processes: int

    def as_json(self) -> dict[str, Any]:
        """Return the content of the run's ``recipe.json``."""
        recipe = self.recipe.model_dump(mode="json")
        return {**recipe, "from": self.init_from, "processes": self.processes}


def check_run_identity(run: Path, identity: RunIdentity) -> None:
    """Refuse to resume a run with settings other than its own.

    Args:
        run: Folder of the run; a run that has not started yet accepts any settings.
        identity: Settings of this command.

    Raises:
        ValueError: If settings differ; the message names them.
    """
    path = run / RECIPE_FILE
    if not path.is_file():
        return
    content = read_json_object(path)
    init_from, processes = content.pop("from"), content.pop("processes", 1)
    # Validation supplies settings that are newer than the file and translates old names.
    recipe = Recipe.model_validate(content)
    original = RunIdentity(recipe, init_from, processes).as_json()
    current = identity.as_json()
    differing = sorted(_LABELS.get(key, key) for key in current if original[key] != current[key])
    if differing:
        raise ValueError(
            f"{run} was started with another value of {', '.join(differing)}; "
            "use the original settings or another --out folder"
        )


def write_run_identity(run: Path, identity: RunIdentity) -> None:
    """Write the settings of a new run; those of a resumed run are kept."""
    path = run / RECIPE_FILE
    if not path.is_file():
        with new_file(path) as partial:
            partial.write_text(json.dumps(identity.as_json(), indent=2) + "\n")
