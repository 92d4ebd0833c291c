"""Helpers that run a small screen and read its rows."""

import pyarrow as pa
import pyarrow.parquet as pa_parquet

from moltc_vllm.screening.parts import part_path
from moltc_vllm.screening.prepare import prepare
from moltc_vllm.screening.run import LocalExecutor, run_screen
from tests.screening.fake_engines import HashEngine

MODEL = {"name": "hash"}
LEFT = ["C" * n for n in range(1, 12)] + ["C1CC"]
RIGHT = ["O", "CO", "CCO", "", "c1ccccc1", "CC#N", "CS(C)=O"]


class RecordedProgress:
    """Keeps the progress of every update as ``(done, total, failed)``."""

    def __init__(self):
        self.updates = []

    def update(self, progress):
        self.updates.append((progress.done, progress.total, progress.failed))


def run_config(config, engine=None, model=MODEL, should_stop=lambda: False):
    """Run a screen; return it, whether it is complete, and its progress."""
    prepared = prepare(config, model)
    progress = RecordedProgress()
    executor = LocalExecutor(engine or HashEngine())
    is_complete = run_screen(prepared.screen, executor, progress, should_stop)
    return prepared, is_complete, progress


def read_rows(prepared):
    screen = prepared.screen
    paths = [part_path(screen.folder, number) for number in range(screen.part_count)]
    return pa.concat_tables([pa_parquet.read_table(path) for path in paths]).to_pylist()
