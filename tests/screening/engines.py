"""Engines that answer at once, and always the same."""

import hashlib
import random
import time
from itertools import islice

from moltc_vllm.chem import MoleculeError, canonical_key
from moltc_vllm.tasks import get_task


def answer_of(task, molecules):
    """A number or label that the molecules decide."""
    try:
        for one in molecules:
            canonical_key(one)
    except MoleculeError as error:
        return task.failed("bad_molecule", str(error))
    digest = hashlib.sha256(" ".join(molecules).encode()).digest()
    target = -digest[0] / 16 if task.name == "solvation" else digest[0] % 2
    answer = task.answer(task.write(target))
    return answer.model_copy(update={"confidence": digest[1] / 255})


class HashEngine:
    """Answers some pairs at a time, in a random order.

    Args:
        window: So many are drawn before one is answered.
        pause_s: Seconds per window.
        fails_after: Then the engine is gone.
    """

    def __init__(self, window=7, pause_s=0.0, fails_after=None):
        self.window, self.pause_s, self.fails_after = window, pause_s, fails_after
        self.asked = []

    def submit(self, task, pairs, question=None):
        source, wanted, rng = iter(pairs), get_task(task), random.Random(0)
        while batch := list(islice(source, self.window)):
            time.sleep(self.pause_s)
            rng.shuffle(batch)
            for pair in batch:
                if self.fails_after is not None and len(self.asked) >= self.fails_after:
                    raise ConnectionError("the engine is gone")
                self.asked.append(pair.molecules)
                yield pair, answer_of(wanted, pair.molecules)


class FailingEngine(HashEngine):
    """Fails for every third pair, and remembers what it was asked."""

    def __init__(self, failing=True):
        super().__init__()
        self.failing, self.places = failing, []

    def submit(self, task, pairs, question=None):
        for pair, answer in super().submit(task, pairs, question):
            self.places.append(pair.row)
            failed = self.failing and pair.row % 3 == 0
            yield pair, get_task(task).failed("error", "too busy") if failed else answer


if __name__ == "__main__":  # a screen to be killed: OUT LEFT RIGHT
    import sys
    from pathlib import Path

    from moltc_vllm.screening.prepare import ScreenConfig, prepare
    from moltc_vllm.screening.run import run

    class Nobody:
        def at(self, progress):
            print(progress.done, flush=True)

    out, left, right = map(Path, sys.argv[1:])
    config = ScreenConfig("solvation", out, left=left, right=right, part_rows=20, block=16)
    run(prepare(config, {"name": "hash"}).screen, HashEngine(pause_s=0.02), Nobody())
