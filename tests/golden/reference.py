"""Compare this package with outputs of the published code, on a fixture of the reference layout.

``python -m tests.golden.reference --report [--fixture DIR]`` converts the fixture's checkpoint with
the code of ``moltc convert``, loads it, and compares prompts, molecule tokens, the distribution of
the first token, and greedy and 5-beam texts with the records, for vLLM's engine and for plain
torch. The last line of the output is a JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")

import torch

from moltc_vllm.models import BatchMolGraph, MoltcModel, prepare_inputs
from moltc_vllm.models.prompt import expand_placeholders
from moltc_vllm.models.torch_engine import TorchEngine
from moltc_vllm.tasks import Answer
from tests.golden.comparisons import TOP, Comparison, FirstTokenComparison
from tests.golden.fixture import Fixture, Record, prompt_of

TOKENS_TOLERANCE = 1e-4
LOGPROBS_TOLERANCE = 2e-3
BEAMS = 5
STEPS = ("gnn", "ln", "query", "mol")
"""Names in the fixture for graph encoder, layer norm, Q-Former and molecule tokens."""


# Prompts and molecule tokens.


def compare_prompts(
    engine: TorchEngine, records: Iterable[Record]
) -> tuple[Comparison, Comparison]:
    """Compare the texts without placeholders, and the token ids with them."""
    texts, ids = Comparison(), Comparison()
    for record in records:
        prompt = prompt_of(record)
        raw = prompt.text.replace("<mol>", "")
        texts.add(raw == record.raw["raw_prompt"], f"{record.id}: {raw!r}")
        encoded = engine.tokenizer(prompt.text, add_special_tokens=False)["input_ids"]
        actual = expand_placeholders(encoded, engine.config)
        ids.add(actual == record.input_ids, f"{record.id}: {actual}")
    return texts, ids


def compare_molecules(engine: TorchEngine, records: Iterable[Record]) -> dict[str, float]:
    """Return the largest difference of each step of the molecule encoder and projector."""
    worst = dict.fromkeys(STEPS, 0.0)
    for record in records:
        inputs = prepare_inputs([prompt_of(record)], engine.tokenizer, engine.config)
        assert inputs.molecules is not None
        assert inputs.projector is not None
        steps = molecule_steps(engine.model, inputs.molecules, inputs.projector)
        for name, difference in differences(steps, record.arrays).items():
            worst[name] = max(worst[name], difference)
    return worst


@torch.inference_mode()
def molecule_steps(
    model: MoltcModel, batch: BatchMolGraph, projector: torch.Tensor
) -> list[dict[str, torch.Tensor]]:
    """Return the steps of each molecule of a batch, with names and shapes of the fixtures."""
    encoder = model.molecule_encoder
    atoms = encoder.graph_encoder.atom_states(batch)
    tokens, offsets = encoder.graph_encoder(batch)
    queries = encoder.qformer(tokens, offsets)
    molecules = model.projectors(queries, projector)
    steps = []
    for index in range(batch.num_molecules):
        own = atoms[slice(*batch.molecule_offsets[index : index + 2].tolist())]
        steps.append(
            {
                "gnn": torch.cat([own.mean(0, keepdim=True), own]),
                "ln": tokens[slice(*offsets[index : index + 2].tolist())],
                "query": queries[index],
                "mol": molecules[index],
            }
        )
    return steps


def differences(
    steps: Sequence[Mapping[str, torch.Tensor]], arrays: Mapping[str, Any]
) -> dict[str, float]:
    """Return each step's largest difference from a record's arrays; infinite for other shapes."""
    worst = dict.fromkeys(STEPS, 0.0)
    for number, step in enumerate(steps, start=1):
        for name, value in step.items():
            expected = torch.from_numpy(arrays[f"{name}{number}"])
            same_shape = value.shape == expected.shape
            difference = float((value - expected).abs().max()) if same_shape else float("inf")
            worst[name] = max(worst[name], difference)
    return worst


# Plain torch.


def torch_first_step(engine: TorchEngine, records: Iterable[Record]) -> FirstTokenComparison:
    """Compare the distribution of the first token."""
    step = FirstTokenComparison()
    for record in records:
        inputs = prepare_inputs([prompt_of(record)], engine.tokenizer, engine.config)
        out = engine.model.generate(**inputs._asdict(), max_new_tokens=1, eos_token_id=-1)
        values, ids = out.first_logprobs[0].topk(TOP)
        actual = list(zip(ids.tolist(), values.tolist(), strict=True))
        step.add(record, actual, _expected_logprobs(record))
    return step


def _expected_logprobs(record: Record) -> torch.Tensor:
    if "variant" not in record.raw:
        return record.first_logprobs
    # Variants store the most probable logits only, so their normalization is unknown.
    logits = torch.full((1 + max(token for token, _ in record.top20),), float("-inf"))
    for token, logit in record.top20:
        logits[token] = logit
    return logits


def torch_texts(engine: TorchEngine, records: Iterable[Record], result: str) -> Comparison:
    """Compare greedy or beam texts; ``result`` is a key of the records."""
    comparison = Comparison()
    engine.beams = BEAMS if result == "beam5" else 1
    for record in records:
        limits = record.limits(result)
        (output,) = engine.generate(record.task, [prompt_of(record)], limits)
        ids = list(output.token_ids)
        _compare_text(comparison, record, result, engine.text(ids), ids)
    engine.beams = 1
    return comparison


def torch_padded(engine: TorchEngine, records: Iterable[Record], result: str) -> Comparison:
    """Compare texts of right-padded batches, for records that have them."""
    comparison = Comparison()
    records = [record for record in records if "batch4" in record.raw]
    engine.beams = BEAMS if result == "beam5" else 1
    for record in records:
        batch = record.raw["batch4"]
        engine.pad_query = batch["pad"] > 0
        limits = record.limits(result)
        (output,) = engine.generate(record.task, [prompt_of(record)], limits)
        text, expected = engine.text(output.token_ids), batch[result]["text"]
        comparison.add(text == expected, f"{record.id}: {text!r} instead of {expected!r}")
    engine.pad_query, engine.beams = False, 1
    return comparison


def _compare_text(
    comparison: Comparison, record: Record, result: str, text: str, ids: Sequence[int]
) -> None:
    expected = record.raw[result]
    equal = text == expected["text"]
    reason = ""
    if not equal:
        expected_ids = expected["sequence"][1:]
        position = next(
            (i for i, (a, b) in enumerate(zip(ids, expected_ids, strict=False)) if a != b), "end"
        )
        margin = (
            f"the two best beams are {expected.get('score_gap_1_2')} apart"
            if result == "beam5"
            else f"the smallest margin is {expected.get('min_margin')}"
        )
        reason = f"{record.id}: differs at token {position}; {margin}"
    comparison.add(equal, reason)


# vLLM.


class VllmRunner:
    """Converted checkpoint in vLLM's engine."""

    def __init__(self, folder: Path) -> None:
        from moltc_vllm.plugin.engine.vllm_engine import VllmEngine

        self.engine = VllmEngine(folder, max_logprobs=TOP, max_in_flight=64)

    def first_step(self, records: Iterable[Record]) -> FirstTokenComparison:
        """Compare the distribution of the first token."""
        from vllm import SamplingParams

        step = FirstTokenComparison()
        params = SamplingParams(temperature=0, max_tokens=1, logprobs=TOP, ignore_eos=True)
        for index, record in enumerate(records):
            self.engine.request_builder.style = record.style
            prompt = self.engine.request_builder.build_prompt(
                record.task, record.pair.molecules, record.question
            )
            (inputs,) = self.engine.engine.renderer.render_cmpl([prompt])
            self.engine.engine.add_request(f"first-{index}", inputs, params)
            (output,) = self.run_to_end()
            top = output.outputs[0].logprobs[0]
            actual = sorted(
                ((token, entry.logprob) for token, entry in top.items()), key=lambda item: -item[1]
            )
            step.add(record, actual, record.first_logprobs)
        return step

    def texts(self, records: Iterable[Record], result: str) -> Comparison:
        """Compare greedy or beam texts of all pairs, batched by the engine."""
        comparison = Comparison()
        request_builder = self.engine.request_builder
        settings = request_builder.settings

        def group_key(record: Record) -> Any:
            return record.task.name, record.question or "", record.style, record.limits(result)

        # Question, style and limits are settings of a call, so equal ones are grouped.
        ordered = sorted(records, key=lambda record: repr(group_key(record)))
        for (_, question, style, limits), members in groupby(ordered, group_key):
            group = list(members)
            request_builder.style = style
            request_builder.settings = type(settings)(
                beams=BEAMS if result == "beam5" else 1, limits=limits
            )
            pairs = [record.pair._replace(row=row) for row, record in enumerate(group)]
            outputs = self.engine.generate(group[0].task, pairs, question or None)
            for pair, answer in outputs:
                if isinstance(answer, Answer):
                    comparison.add(False, f"{group[pair.row].id}: {answer.error}")
                    continue
                ids = list(answer.token_ids)
                text = request_builder.decode(ids)
                _compare_text(comparison, group[pair.row], result, text, ids)
        request_builder.settings = settings
        return comparison

    def run_to_end(self) -> list[Any]:
        """Run the engine until all requests are finished; return their outputs."""
        outputs: list[Any] = []
        while self.engine.engine.has_unfinished_requests():
            outputs += [output for output in self.engine.engine.step() if output.finished]
        return outputs


# The report.


def report(folder: Path, work: Path) -> dict[str, Any]:
    """Run and print all comparisons; return the figures."""
    fixture = Fixture(folder)
    records = fixture.records
    checkpoint = fixture.convert(work / "converted")
    print(f"{folder.name}: converted; {len(records)} pairs", flush=True)
    engine = TorchEngine(checkpoint, batch_size=1)
    texts, ids = compare_prompts(engine, records)
    print(f"prompts: texts {texts}; token ids {ids}")
    worst = compare_molecules(engine, records)
    print(
        "molecule tokens, largest differences:",
        {step: float(f"{difference:.1e}") for step, difference in worst.items()},
    )
    torch_comparisons = {
        result: torch_texts(engine, records, result) for result in ("greedy", "beam5")
    }
    print(f"plain torch: {torch_first_step(engine, records)}")
    for result, comparison in torch_comparisons.items():
        print(f"plain torch, {result}: {comparison}")
    for result in ("greedy", "beam5"):
        print(f"plain torch, {result}, padded batches: {torch_padded(engine, records, result)}")
    for name, rows in fixture.variants().items():
        _report_variant(fixture, name, rows, work)
    vllm = VllmRunner(checkpoint)
    first = vllm.first_step(records)
    print(f"vLLM: {first}")
    greedy, beams = (vllm.texts(records, result) for result in ("greedy", "beam5"))
    print(f"vLLM, greedy: {greedy}")
    print(f"vLLM, beam5: {beams}", flush=True)
    return {
        "pairs": len(records),
        "molecule_tokens_max_abs_difference": worst["mol"],
        "first_step_top20_ids_equal": first.top_equal.equal,
        "first_step_logprobs_max_abs_difference": first.largest_difference,
        "greedy_texts_equal": greedy.equal,
        "beam5_texts_equal": beams.equal,
    }


def _report_variant(fixture: Fixture, name: str, rows: list[Record], work: Path) -> None:
    checkpoint = convert_variant(fixture, name, work / name)
    engine = TorchEngine(checkpoint, batch_size=1)
    ids = Comparison()
    for record in rows:
        inputs = prepare_inputs([prompt_of(record)], engine.tokenizer, engine.config)
        out = engine.model.generate(**inputs._asdict(), max_new_tokens=1, eos_token_id=-1)
        actual = out.first_logprobs[0].topk(TOP).indices.tolist()
        ids.add(actual == [token for token, _ in record.top20], record.id)
    print(f"{name}, plain torch: first {TOP} ids {ids}")
    for result in ("greedy", "beam5"):
        print(f"{name}, plain torch, {result}: {torch_texts(engine, rows, result)}")


def convert_variant(fixture: Fixture, name: str, out: Path) -> Path:
    """Convert the checkpoint of a variant of the fixture."""
    if name == "no_lora":
        return fixture.convert(out, lora=None)
    if name.startswith("lora_"):
        return fixture.convert(out, lora=name)
    return fixture.convert(out, lora=None, language_model=name)


def parity_holds(figures: dict[str, Any]) -> bool:
    """Return whether all figures are within their tolerances."""
    pairs = figures["pairs"]
    return bool(
        figures["molecule_tokens_max_abs_difference"] <= TOKENS_TOLERANCE
        and figures["first_step_top20_ids_equal"] == pairs
        and figures["first_step_logprobs_max_abs_difference"] <= LOGPROBS_TOLERANCE
        and figures["greedy_texts_equal"] == pairs
        and figures["beam5_texts_equal"] >= 0.95 * pairs
    )


def main() -> int:
    """Run the command line; return the exit status."""
    from tests.paths import reference_dir

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--report", action="store_true", required=True)
    parser.add_argument(
        "--fixture", type=Path, help="Fixture folder; default: environment variable MOLTC_FIXTURES."
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="moltc-golden-") as work:
        figures = report(arguments.fixture or reference_dir(), Path(work))
    print(json.dumps(figures))
    return 0 if parity_holds(figures) else 1


if __name__ == "__main__":
    sys.exit(main())
