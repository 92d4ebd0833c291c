"""Actors compute the same rows as one process, each once; without Ray, and on Ray (slow)."""

import os
import pickle
import subprocess
import sys
import textwrap
from dataclasses import dataclass

import pyarrow.parquet as pa_parquet
import pytest

from moltc_vllm.deploy import ray_data
from moltc_vllm.deploy.ray_data import PartActor, RayDataExecutor
from moltc_vllm.screening.config import ScreenConfig
from moltc_vllm.screening.parts import part_path
from moltc_vllm.screening.prepare import prepare
from moltc_vllm.screening.run import LocalExecutor, PartExecutor, run_screen
from moltc_vllm.tasks.engine import EngineError
from tests.screening.fake_engines import HashEngine


@dataclass
class FakeEngineSpec:
    """Stands for `EngineSpec` and opens the given engine."""

    engine: object

    def open(self):
        return self.engine


@pytest.fixture
def files(tmp_path):
    left, right = tmp_path / "left.smi", tmp_path / "right.smi"
    left.write_text("".join(f"{'C' * n}O\n" for n in range(1, 12)) + "C1CC broken\n")
    right.write_text("".join(f"{'C' * n}N\n" for n in range(1, 10)))
    return left, right


def prepared_screen(files, out):
    left, right = files
    config = ScreenConfig("solvation", out, left=left, right=right, part_rows=10, block=4)
    return prepare(config, {"name": "hash"}).screen


def new_actor(screen, engine, tmp_path):
    return PartActor(screen, FakeEngineSpec(engine), tmp_path / "stop")


def read_part(screen, part):
    return pa_parquet.read_table(part_path(screen.folder, part)).to_pylist()


def read_all_rows(screen):
    return [row for part in range(screen.part_count) for row in read_part(screen, part)]


def test_executor_satisfies_protocol():
    assert isinstance(RayDataExecutor(FakeEngineSpec(None), "auto"), PartExecutor)


def test_actor_computes_given_parts(files, tmp_path):
    local, remote = (prepared_screen(files, tmp_path / name) for name in ("local", "remote"))
    assert run_screen(local, LocalExecutor(HashEngine()))
    # Ray sends the screen to the actor as a pickle.
    actor = new_actor(pickle.loads(pickle.dumps(remote)), HashEngine(), tmp_path)
    result = actor({"part": [3, 4, 10]})
    assert result["part"] == [3, 4, 10]
    assert result["written"] == [True] * 3
    actor({"part": [part for part in range(remote.part_count) if part not in (3, 4, 10)]})
    assert remote.missing_parts() == []
    assert read_all_rows(remote) == read_all_rows(local)
    assert sum(result["failed"]) == sum(
        row["status"] != "ok" for part in (3, 4, 10) for row in read_part(remote, part)
    )


def test_actor_does_not_compute_written_part_again(files, tmp_path):
    class UnusedEngine:
        def submit(self, task, pairs, question=None):
            assert list(pairs) == []
            return iter(())

    screen = prepared_screen(files, tmp_path / "out")
    new_actor(screen, HashEngine(), tmp_path)({"part": [0]})
    actor = new_actor(screen, UnusedEngine(), tmp_path)
    assert actor({"part": [0]}) == {"part": [0], "written": [True], "failed": [0]}


def test_actor_starts_no_part_after_stop(files, tmp_path):
    screen = prepared_screen(files, tmp_path / "out")
    (tmp_path / "stop").touch()
    actor = new_actor(screen, HashEngine(), tmp_path)
    assert actor({"part": [0, 1]})["written"] == [False, False]
    assert len(screen.missing_parts()) == screen.part_count


def test_actor_exits_when_engine_died(files, tmp_path, monkeypatch):
    class DeadEngine:
        def submit(self, task, pairs, question=None):
            next(iter(pairs))
            raise EngineError("vLLM's engine has ended")
            yield

    statuses = []

    def fake_exit(status):
        statuses.append(status)
        raise SystemExit(status)

    monkeypatch.setattr(ray_data.os, "_exit", fake_exit)
    actor = new_actor(prepared_screen(files, tmp_path / "out"), DeadEngine(), tmp_path)
    with pytest.raises(SystemExit):
        actor({"part": [0]})
    assert statuses == [70]


@pytest.mark.slow
def test_killed_actor_loses_no_row(tiny, files, tmp_path):
    """Two actors with plain torch; one of them is killed after the first part."""
    script = """
        import os, signal, sys, threading, time
        from pathlib import Path
        import psutil
        from moltc_vllm.deploy.cluster import LocalCluster

        def kill_actor():
            while not list((Path(sys.argv[1]) / "out").glob("part-*.parquet")):
                time.sleep(0.05)
            actors = [
                process
                for process in psutil.Process(cluster.process.pid).children(recursive=True)
                if "MapWorker" in " ".join(process.cmdline()[:1])
            ]
            print(len(actors), "actors", flush=True)
            actors[0].send_signal(signal.SIGKILL)

        if __name__ == "__main__":
            with LocalCluster(cpus=4) as cluster:
                import moltc_vllm
                from moltc_vllm.deploy.ray_data import EngineSpec, RayDataExecutor
                from moltc_vllm.engines.factory import EngineName

                folder, model = Path(sys.argv[1]), Path(sys.argv[2])
                threading.Thread(target=kill_actor, daemon=True).start()
                spec = EngineSpec(model, engine=EngineName.torch)
                rows = moltc_vllm.screen(
                    "solvation",
                    left=folder / "left.smi",
                    right=folder / "right.smi",
                    out=folder / "out",
                    model=model,
                    engine=RayDataExecutor(spec, cluster.address, (2, 2)),
                    part_rows=2,
                )
                numbers = sorted(row["row"] for row in rows)
                assert numbers == list(range(1, 109)), numbers
                print("complete")
    """
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(script))
    result = subprocess.run(
        [sys.executable, str(path), str(tmp_path), str(tiny)],
        capture_output=True,
        text=True,
        timeout=400,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, result.stderr[-3000:]
    expected = ("2 actors", "complete")  # Ray may print further lines
    assert tuple(line for line in result.stdout.splitlines() if line in expected) == expected
