"""Comparisons of two engines that answer the same pairs in turn."""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

from common import DATA, MOLECULE_FILES, read_smiles

from moltc_vllm.tasks import Answer
from moltc_vllm.tasks.engine import Engine, Pair

Rates = dict[str, list[float]]
"""Pairs per second of each round, by engine."""

RoundAnswers = dict[int, Answer]
"""Answers of a round, by row."""


def score(options: argparse.Namespace) -> dict[str, Any]:
    """Compare scored answers with generated ones: their speed and their agreement."""
    from moltc_vllm.plugin.engine.vllm_engine import VllmEngine

    settings = _vllm_settings(options)
    openers = {
        "generated": lambda: VllmEngine(options.model, **settings),
        "scored": lambda: VllmEngine(options.model, score=True, **settings),
    }
    rates, answers = _alternate(openers, options, (20, 25))
    agreement = _agreement(
        [
            (generated[row], scored[row])
            for generated, scored in zip(answers["generated"], answers["scored"], strict=True)
            for row in generated
        ]
    )
    print(agreement)
    return {**_compare(rates), "agreement": agreement}


def loop(options: argparse.Namespace) -> dict[str, Any]:
    """Compare loops over padded batches, of `transformers` and of `TorchEngine`, with vLLM."""
    from moltc_vllm.models.torch_engine import TorchEngine
    from moltc_vllm.plugin.engine.vllm_engine import VllmEngine

    openers: dict[str, Callable[[], Engine]] = {
        "transformers": lambda: _open_torch(
            _transformers_engine_class(), options, constrained=False
        ),
        "torch": lambda: _open_torch(TorchEngine, options),
        "vllm": lambda: VllmEngine(options.model, score=True, **_vllm_settings(options)),
    }
    rates, _ = _alternate(openers, options, (50, 40))
    return {
        name: _compare({name: rates[name], "vllm": rates["vllm"]})
        for name in ("transformers", "torch")
    }


def _vllm_settings(options: argparse.Namespace) -> dict[str, Any]:
    """Return the options that are passed to vLLM; unset ones keep vLLM's defaults."""
    settings = {"dtype": options.dtype, "gpu_memory_utilization": options.gpu_memory}
    return {name: value for name, value in settings.items() if value is not None}


def _open_torch(engine_class: Any, options: argparse.Namespace, **settings: Any) -> Engine:
    import torch

    engine = engine_class(
        options.model, batch_size=options.batch, device=options.device, **settings
    )
    if options.dtype:
        engine.model.to(getattr(torch, options.dtype))
    return engine  # type: ignore[no-any-return]


def _transformers_engine_class() -> Any:
    """Define an engine that generates with `transformers`, as typical research scripts do."""
    import torch

    from moltc_vllm.models.torch_engine import TorchEngine, TorchGeneration

    class TransformersEngine(TorchEngine):
        """Encodes a batch's molecules and calls the language model's ``generate``."""

        def _generate(self, task: Any, inputs: dict[str, Any], limits: Any) -> list[Any]:
            model, mask = self.model, inputs["attention_mask"]
            with torch.inference_mode():
                embeds = model.embed(inputs["input_ids"], inputs["molecules"], inputs["projector"])
                token_ids = model.language_model.generate(
                    inputs_embeds=embeds,
                    attention_mask=mask,
                    max_new_tokens=limits.max_new_tokens,
                    do_sample=False,
                    eos_token_id=self.tokenizer.eos_token_id,
                    pad_token_id=self.tokenizer.pad_token_id,
                )
            end_tokens = {self.tokenizer.eos_token_id, self.tokenizer.pad_token_id}
            rows = [
                [token for token in row if token not in end_tokens] for row in token_ids.tolist()
            ]
            return [TorchGeneration(row, [0.0] * len(row)) for row in rows]

    return TransformersEngine


def _alternate(
    openers: Mapping[str, Callable[[], Engine]],
    options: argparse.Namespace,
    size: tuple[int, int],
) -> tuple[Rates, dict[str, list[RoundAnswers]]]:
    """Let engines answer the same pairs in turn, with new molecules in each round.

    The order of the engines is reversed in every second round. The first round warms up and is not
    counted.

    Args:
        openers: Functions that open the engines, by name.
        options: Options of the benchmark.
        size: Number of drugs and of library molecules per round.

    Returns:
        Pairs per second of each engine and round, and the answers.
    """
    rounds = options.rounds + 1
    drugs, library = (
        list(itertools.islice(read_smiles(DATA / MOLECULE_FILES[name]), count * rounds))
        for name, count in zip(("approved", "zinc250k"), size, strict=True)
    )
    engines = {name: open_engine() for name, open_engine in openers.items()}
    rates: Rates = {name: [] for name in openers}
    answers: dict[str, list[RoundAnswers]] = {name: [] for name in openers}
    for round_index in range(rounds):
        product = itertools.product(
            drugs[round_index * size[0] : (round_index + 1) * size[0]],
            library[round_index * size[1] : (round_index + 1) * size[1]],
        )
        pairs = [Pair(row, molecules) for row, molecules in enumerate(product)]
        for name in list(openers)[:: -1 if round_index % 2 else 1]:
            begin = time.perf_counter()
            result = {
                pair.row: answer for pair, answer in engines[name].submit(options.task, pairs)
            }
            rate = len(pairs) / (time.perf_counter() - begin)
            if round_index:
                rates[name].append(rate)
                answers[name].append(result)
                print(f"{name}: {rate:.1f} pairs/s", flush=True)
    return rates, answers


def _compare(rates: Rates) -> dict[str, Any]:
    """Return the medians of two engines' rates, and the ratios of the second to the first."""
    base, other = rates.values()
    ratios = [second / first for first, second in zip(base, other, strict=True)]
    medians = {name: statistics.median(values) for name, values in rates.items()}
    print(f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    return {"pairs_per_s": medians, "ratio": statistics.median(ratios), "ratios": ratios}


def _agreement(answers: list[tuple[Answer, Answer]]) -> dict[str, Any]:
    """Count the differences between two engines' answers to the same pairs."""
    answered = [
        (first, second) for first, second in answers if first.status == second.status == "ok"
    ]
    return {
        "pairs": len(answers),
        "status_differs": sum(first.status != second.status for first, second in answers),
        "label_differs": sum(first.label != second.label for first, second in answered),
        "interval_differs": sum(
            first.likeliest_interval != second.likeliest_interval for first, second in answered
        ),
        "value_off_by": _max_difference(
            [(first.value, second.value) for first, second in answered]
        ),
        "confidence_off_by": _max_difference(
            [(first.confidence, second.confidence) for first, second in answered]
        ),
    }


def _max_difference(values: list[tuple[float | None, float | None]]) -> float | None:
    differences = [
        abs(first - second) for first, second in values if first is not None and second is not None
    ]
    return max(differences, default=None)
