"""Engines without a model: they answer at once, and every call gives the same answers."""

import hashlib
import random
import time
from itertools import islice

from moltc_vllm.chem import MoleculeError, canonical_key, pair_notes
from moltc_vllm.tasks import get_task

FAMILIARITIES = ("known", "similar", "unlike")


def answer_of(task, molecules):
    """The answer of the engines below: a number or label derived from a hash of the molecules."""
    try:
        for smiles in molecules:
            canonical_key(smiles)
    except MoleculeError as error:
        return task.failed("bad_molecule", str(error))
    digest = hashlib.sha256(" ".join(molecules).encode()).digest()
    target = {"solvation": -digest[0] / 16, "ddi_type": digest[0] % 86 + 1}.get(
        task.name, digest[0] % 2
    )
    answer = task.parse_answer(task.write(target))
    update = {
        "confidence": digest[1] / 255,
        "familiarity": FAMILIARITIES[digest[2] % 3],
        "notes": pair_notes(molecules, task.roles, "as-drawn"),
    }
    if answer.value is not None:
        update |= {"std": 0.5, "low": answer.value - digest[3] / 64, "high": answer.value + 1.0}
    return task.with_direction(answer.model_copy(update=update), molecules)


class HashEngine:
    """Answers batches of pairs in a random order, and keeps the molecules it was given.

    Args:
        window: Number of pairs per batch.
        pause_s: Seconds per batch.
        fails_after: Number of answers after which the engine raises; default: never.

    Attributes:
        submitted: Molecules of every answered pair.
    """

    def __init__(self, window=7, pause_s=0.0, fails_after=None):
        self.window, self.pause_s, self.fails_after = window, pause_s, fails_after
        self.submitted = []

    def submit(self, task, pairs, question=None):
        source, known_task, rng = iter(pairs), get_task(task), random.Random(0)
        while batch := list(islice(source, self.window)):
            time.sleep(self.pause_s)
            rng.shuffle(batch)
            for pair in batch:
                if self.fails_after is not None and len(self.submitted) >= self.fails_after:
                    raise ConnectionError("the engine is gone")
                self.submitted.append(pair.molecules)
                yield pair, answer_of(known_task, pair.molecules)


class FailingEngine(HashEngine):
    """Fails for every third pair, and keeps the rows it was given.

    Args:
        failing: Whether pairs fail; may be changed later.

    Attributes:
        submitted_rows: `Pair.row` of every answered pair.
    """

    def __init__(self, failing=True):
        super().__init__()
        self.failing, self.submitted_rows = failing, []

    def submit(self, task, pairs, question=None):
        for pair, answer in super().submit(task, pairs, question):
            self.submitted_rows.append(pair.row)
            failed = self.failing and pair.row % 3 == 0
            yield pair, get_task(task).failed("error", "too busy") if failed else answer


if __name__ == "__main__":  # a screen for a test to kill: OUT LEFT RIGHT
    import sys
    from pathlib import Path

    from moltc_vllm.screening.config import ScreenConfig
    from moltc_vllm.screening.prepare import prepare
    from moltc_vllm.screening.run import LocalExecutor, run_screen

    class PrintedProgress:
        def update(self, progress):
            print(progress.done, flush=True)

    out, left, right = map(Path, sys.argv[1:])
    config = ScreenConfig("solvation", out, left=left, right=right, part_rows=20, block=16)
    screen = prepare(config, {"name": "hash"}).screen
    run_screen(screen, LocalExecutor(HashEngine(pause_s=0.02)), PrintedProgress())
