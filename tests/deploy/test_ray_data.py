"""Parts made elsewhere: the same rows as here, each once. Without Ray, and (slow) on it."""

import os
import pickle
import subprocess
import sys
import textwrap
from dataclasses import dataclass

import pyarrow.parquet as pa_parquet
import pytest

from moltc_vllm.deploy import ray_data as offline
from moltc_vllm.deploy.ray_data import PartActor
from moltc_vllm.screening.prepare import ScreenConfig, prepare
from moltc_vllm.screening.run import NullProgress, run
from moltc_vllm.tasks.engine import EngineError
from tests.screening.engines import HashEngine


@dataclass
class EngineSpec:
    engine: object

    def open(self):
        return self.engine


@pytest.fixture
def files(tmp_path):
    left, right = tmp_path / "left.smi", tmp_path / "right.smi"
    left.write_text("".join(f"{'C' * n}O\n" for n in range(1, 12)) + "C1CC broken\n")
    right.write_text("".join(f"{'C' * n}N\n" for n in range(1, 10)))
    return left, right


def prepared(files, out, **options):
    left, right = files
    wish = ScreenConfig("solvation", out, left=left, right=right, part_rows=10, block=4, **options)
    return prepare(wish, {"name": "hash"}).screen


def rows(folder):
    tables = [pa_parquet.read_table(path) for path in sorted(folder.glob("part-*.parquet"))]
    return [row for table in tables for row in table.to_pylist()]


def made(maker, numbers):
    return maker({"part": numbers})


def test_an_actor_makes_the_parts_it_is_given(files, tmp_path):
    here, there = (prepared(files, tmp_path / name) for name in ("here", "there"))
    assert run(here, HashEngine(), NullProgress())
    # As an actor gets it.
    screen = pickle.loads(pickle.dumps(there))
    maker = PartActor(screen, EngineSpec(HashEngine()), tmp_path / "stop")
    first = made(maker, [3, 4, 10])
    assert first["part"] == [3, 4, 10]
    assert first["made"] == [True] * 3
    made(maker, [number for number in range(screen.parts) if number not in (3, 4, 10)])
    assert there.missing() == []
    assert rows(there.folder) == rows(here.folder)
    assert sum(first["failed"]) == sum(
        row["status"] != "ok"
        for path in (3, 4, 10)
        for row in pa_parquet.read_table(there.folder / f"part-{path:06d}.parquet").to_pylist()
    )


def test_what_is_there_is_not_asked_again(files, tmp_path):
    class Idle:
        def submit(self, task, pairs, question=None):
            assert list(pairs) == []
            return iter(())

    screen = prepared(files, tmp_path / "out")
    made(PartActor(screen, EngineSpec(HashEngine()), tmp_path / "stop"), [0])
    maker = PartActor(screen, EngineSpec(Idle()), tmp_path / "stop")
    assert made(maker, [0]) == {"part": [0], "made": [True], "failed": [0]}


def test_when_it_is_told_to_stop_nothing_new_is_begun(files, tmp_path):
    screen = prepared(files, tmp_path / "out")
    (tmp_path / "stop").touch()
    maker = PartActor(screen, EngineSpec(HashEngine()), tmp_path / "stop")
    assert made(maker, [0, 1])["made"] == [False, False]
    assert len(screen.missing()) == screen.parts


def test_an_actor_whose_engine_died_ends(files, tmp_path, monkeypatch):
    class Dead:
        def submit(self, task, pairs, question=None):
            next(iter(pairs))
            raise EngineError("vLLM's engine has ended")
            yield

    ended = []

    def leave(status):
        ended.append(status)
        raise SystemExit(status)

    monkeypatch.setattr(offline.os, "_exit", leave)
    maker = PartActor(prepared(files, tmp_path / "out"), EngineSpec(Dead()), tmp_path / "stop")
    with pytest.raises(SystemExit):
        made(maker, [0])
    assert ended == [70]


@pytest.mark.slow
def test_an_actor_that_is_killed_costs_no_row(tiny, files, tmp_path):
    """On a cluster of two actors with plain torch: the screen goes on, and each row is there."""
    script = """
        import os, signal, sys, threading, time
        from pathlib import Path
        import psutil
        from moltc_vllm.deploy.cluster import LocalCluster

        def kill():
            while not list((Path(sys.argv[1]) / "out").glob("part-*.parquet")):
                time.sleep(0.05)
            actors = [
                one
                for one in psutil.Process(cluster.process.pid).children(recursive=True)
                if "MapWorker" in " ".join(one.cmdline()[:1])
            ]
            print(len(actors), "actors", flush=True)
            actors[0].send_signal(signal.SIGKILL)

        if __name__ == "__main__":
            with LocalCluster(cpus=4) as cluster:
                import moltc_vllm
                from moltc_vllm.deploy.ray_data import EngineSpec, RayDataExecutor
                from moltc_vllm.engines.factory import EngineName

                folder, model = Path(sys.argv[1]), Path(sys.argv[2])
                threading.Thread(target=kill, daemon=True).start()
                opening = EngineSpec(model, engine=EngineName.torch)
                found = moltc_vllm.screen(
                    "solvation",
                    left=folder / "left.smi",
                    right=folder / "right.smi",
                    out=folder / "out",
                    model=model,
                    engine=RayDataExecutor(opening, cluster.address, (2, 2)),
                    part_rows=2,
                )
                numbers = sorted(row["row"] for row in found)
                assert numbers == list(range(1, 109)), numbers
                print("whole")
    """
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(script))
    done = subprocess.run(
        [sys.executable, str(path), str(tmp_path), str(tiny)],
        capture_output=True,
        text=True,
        timeout=400,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    said = ("2 actors", "whole")  # Ray may print there, too
    assert tuple(one for one in done.stdout.splitlines() if one in said) == said
