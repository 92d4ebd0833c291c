"""Compare this project with what the published code gave, on a fixture of the reference layout.

``python -m tests.golden.reference --report [--fixture DIR]`` converts the fixture's checkpoint with
``moltc convert``'s code, loads it, and compares prompts, molecule tokens, first-step distribution,
greedy and 5-beam texts with the records: with vLLM's engine and with plain torch. The last line is
one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")

import torch

from moltc_vllm.models import BatchMolGraph, MoltcModel, prepare
from moltc_vllm.models.prompt import expand_placeholders
from moltc_vllm.models.torch_engine import TorchEngine
from moltc_vllm.tasks import Answer
from tests.golden.fixture import Fixture, Record, prompt_of

TOKENS_WITHIN = 1e-4
LOGPROBS_WITHIN = 2e-3
NOISE = 1e-4
"""Two tokens whose reference logits are closer than this may stand in either order."""

BEAMS = 5
TOP = 20
STEPS = ("gnn", "ln", "query", "mol")
"""Graph encoder, layer norm, Q-Former and molecule tokens, as the fixtures name them."""


@dataclass
class Comparison:
    """How many texts are equal, and why others are not."""

    equal: int = 0
    of: int = 0
    reasons: list[str] = field(default_factory=list)

    def add(self, equal: bool, reason: str) -> None:
        self.of += 1
        self.equal += equal
        if not equal:
            self.reasons.append(reason)

    def __str__(self) -> str:
        return f"{self.equal} of {self.of} equal" + "".join(f"\n    {r}" for r in self.reasons)


@dataclass
class FirstStep:
    """The distribution of the first token."""

    top_equal: Comparison = field(default_factory=Comparison)
    excused: list[str] = field(default_factory=list)
    largest: float = 0.0

    def add(self, record: Record, got: Sequence[tuple[int, float]], expected: torch.Tensor) -> None:
        """Compare the likeliest tokens, best first, with their log-probabilities."""
        wanted = [token for token, _ in record.top20]
        ids = [token for token, _ in got[: len(wanted)]]
        changed = [(a, b) for a, b in zip(ids, wanted, strict=True) if a != b]
        gap = max((abs(float(expected[a] - expected[b])) for a, b in changed), default=0.0)
        self.top_equal.add(gap < NOISE, f"{record.id}: {ids} instead of {wanted}")
        if changed and gap < NOISE:
            self.excused.append(f"{record.id}: {changed[0]} change places, {gap:.1e} apart")
        of = dict(got)
        missing = [token for token in wanted if token not in of]
        differences = [abs(of[t] - float(expected[t])) for t in wanted if t in of]
        self.largest = max([self.largest, *differences, *[float("inf")] * bool(missing)])

    def __str__(self) -> str:
        notes = "".join(f"\n    {one}" for one in self.excused)
        return f"top {TOP}: {self.top_equal}; log-probabilities within {self.largest:.1e}{notes}"


# Prompts and the molecule side.


def compare_prompts(
    engine: TorchEngine, records: Iterable[Record]
) -> tuple[Comparison, Comparison]:
    """Texts before placeholders, and token ids with them."""
    texts, ids = Comparison(), Comparison()
    for record in records:
        prompt = prompt_of(record)
        raw = prompt.text.replace("<mol>", "")
        texts.add(raw == record.raw["raw_prompt"], f"{record.id}: {raw!r}")
        encoded = engine.tokenizer(prompt.text, add_special_tokens=False)["input_ids"]
        got = expand_placeholders(encoded, engine.config)
        ids.add(got == record.input_ids, f"{record.id}: {got}")
    return texts, ids


def compare_molecules(engine: TorchEngine, records: Iterable[Record]) -> dict[str, float]:
    """Largest differences of every step of the molecule side."""
    worst = dict.fromkeys(STEPS, 0.0)
    for record in records:
        inputs = prepare([prompt_of(record)], engine.tokenizer, engine.config)
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
    """Every step of each molecule of a batch, as the fixtures name and lay them out."""
    encoder = model.molecule_encoder
    atoms = encoder.graph_encoder.atom_states(batch)
    tokens, offsets = encoder.graph_encoder(batch)
    queries = encoder.qformer(tokens, offsets)
    molecules = model.projectors(queries, projector)
    steps = []
    for place in range(batch.num_molecules):
        own = atoms[slice(*batch.molecule_offsets[place : place + 2].tolist())]
        steps.append(
            {
                "gnn": torch.cat([own.mean(0, keepdim=True), own]),
                "ln": tokens[slice(*offsets[place : place + 2].tolist())],
                "query": queries[place],
                "mol": molecules[place],
            }
        )
    return steps


def differences(
    steps: Sequence[Mapping[str, torch.Tensor]], arrays: Mapping[str, Any]
) -> dict[str, float]:
    """Largest difference of each step from a record's arrays; infinite for another shape."""
    worst = dict.fromkeys(STEPS, 0.0)
    for place, step in enumerate(steps, start=1):
        for name, value in step.items():
            expected = torch.from_numpy(arrays[f"{name}{place}"])
            same = value.shape == expected.shape
            difference = float((value - expected).abs().max()) if same else float("inf")
            worst[name] = max(worst[name], difference)
    return worst


# Plain torch.


def torch_first_step(engine: TorchEngine, records: Iterable[Record]) -> FirstStep:
    """The first token's distribution."""
    step = FirstStep()
    for record in records:
        inputs = prepare([prompt_of(record)], engine.tokenizer, engine.config)
        out = engine.model.generate(**inputs._asdict(), max_new_tokens=1, eos_token_id=-1)
        values, ids = out.first_logprobs[0].topk(TOP)
        got = list(zip(ids.tolist(), values.tolist(), strict=True))
        step.add(record, got, _expected_logprobs(record))
    return step


def _expected_logprobs(record: Record) -> torch.Tensor:
    if "variant" not in record.raw:
        return record.first_logprobs
    # Variants have logits of the likeliest only: their normaliser is not known.
    logits = torch.full((1 + max(t for t, _ in record.top20),), float("-inf"))
    for token, logit in record.top20:
        logits[token] = logit
    return logits


def torch_texts(engine: TorchEngine, records: Iterable[Record], result: str) -> Comparison:
    """Greedy or beam texts; ``result`` is a key of the records."""
    comparison = Comparison()
    engine.beams = BEAMS if result == "beam5" else 1
    for record in records:
        limits = record.limits(result)
        (found,) = engine.generate(record.task, [prompt_of(record)], limits)
        ids = list(found.token_ids)
        _compare_text(comparison, record, result, engine.text(ids), ids)
    engine.beams = 1
    return comparison


def torch_padded(engine: TorchEngine, records: Iterable[Record], result: str) -> Comparison:
    """The same pairs inside the published right-padded batches, where the fixture has them."""
    comparison = Comparison()
    records = [record for record in records if "batch4" in record.raw]
    engine.beams = BEAMS if result == "beam5" else 1
    for record in records:
        batch = record.raw["batch4"]
        engine.pad_query = batch["pad"] > 0
        limits = record.limits(result)
        (found,) = engine.generate(record.task, [prompt_of(record)], limits)
        text, expected = engine.text(found.token_ids), batch[result]["text"]
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
        wanted = expected["sequence"][1:]
        place = next(
            (i for i, (a, b) in enumerate(zip(ids, wanted, strict=False)) if a != b), "end"
        )
        margin = (
            f"the two best beams are {expected.get('score_gap_1_2')} apart"
            if result == "beam5"
            else f"the smallest margin is {expected.get('min_margin')}"
        )
        reason = f"{record.id}: differs at token {place}; {margin}"
    comparison.add(equal, reason)


# vLLM.


class Vllm:
    """The converted checkpoint in vLLM's engine."""

    def __init__(self, folder: Path) -> None:
        from moltc_vllm.plugin.engine.vllm_engine import VllmEngine

        self.engine = VllmEngine(folder, max_logprobs=TOP, max_in_flight=64)

    def first_step(self, records: Iterable[Record]) -> FirstStep:
        """The first token's distribution."""
        from vllm import SamplingParams

        step = FirstStep()
        params = SamplingParams(temperature=0, max_tokens=1, logprobs=TOP, ignore_eos=True)
        for number, record in enumerate(records):
            self.engine.request_builder.style = record.style
            prompt = self.engine.request_builder.prompt(
                record.task, record.pair.molecules, record.question
            )
            (inputs,) = self.engine.engine.renderer.render_cmpl([prompt])
            self.engine.engine.add_request(f"first-{number}", inputs, params)
            (output,) = self.finished()
            top = output.outputs[0].logprobs[0]
            got = sorted(((t, one.logprob) for t, one in top.items()), key=lambda one: -one[1])
            step.add(record, got, record.first_logprobs)
        return step

    def texts(self, records: Iterable[Record], result: str) -> Comparison:
        """Greedy or beam texts of all pairs together, as the engine batches them."""
        comparison = Comparison()
        request_builder = self.engine.request_builder
        settings = request_builder.settings

        def kind(record: Record) -> Any:
            return record.task.name, record.question or "", record.style, record.limits(result)

        for (_, question, style, limits), group in groupby(
            sorted(records, key=repr_of(kind)), kind
        ):
            same = list(group)
            request_builder.style = style
            request_builder.settings = type(settings)(
                beams=BEAMS if result == "beam5" else 1, limits=limits
            )
            pairs = [record.pair._replace(row=row) for row, record in enumerate(same)]
            found = self.engine.generate(same[0].task, pairs, question or None)
            for pair, answer in found:
                if isinstance(answer, Answer):
                    comparison.add(False, f"{same[pair.row].id}: {answer.error}")
                    continue
                ids = list(answer.token_ids)
                text = request_builder.text(ids)
                _compare_text(comparison, same[pair.row], result, text, ids)
        request_builder.settings = settings
        return comparison

    def finished(self) -> list[Any]:
        """Run the engine until nothing is left to do."""
        outputs: list[Any] = []
        while self.engine.engine.has_unfinished_requests():
            outputs += [one for one in self.engine.engine.step() if one.finished]
        return outputs


def repr_of(key: Any) -> Any:
    """A sort key for things that have no order."""
    return lambda record: repr(key(record))


# The report.


def report(folder: Path, work: Path) -> dict[str, Any]:
    """Run all comparisons, print them, and return the figures."""
    fixture = Fixture(folder)
    records = fixture.records
    checkpoint = fixture.convert(work / "converted")
    print(f"{folder.name}: converted; {len(records)} pairs", flush=True)
    engine = TorchEngine(checkpoint, batch=1)
    texts, ids = compare_prompts(engine, records)
    print(f"prompts: texts {texts}; token ids {ids}")
    worst = compare_molecules(engine, records)
    print("molecule side, largest differences:", {k: float(f"{v:.1e}") for k, v in worst.items()})
    plain = {result: torch_texts(engine, records, result) for result in ("greedy", "beam5")}
    print(f"plain torch: {torch_first_step(engine, records)}")
    for result, comparison in plain.items():
        print(f"plain torch, {result}: {comparison}")
    for result in ("greedy", "beam5"):
        print(
            f"plain torch, {result}, as in padded batches: {torch_padded(engine, records, result)}"
        )
    for name, rows in fixture.variants().items():
        _report_variant(fixture, name, rows, work)
    vllm = Vllm(checkpoint)
    first = vllm.first_step(records)
    print(f"vLLM: {first}")
    greedy, beams = (vllm.texts(records, result) for result in ("greedy", "beam5"))
    print(f"vLLM, greedy: {greedy}")
    print(f"vLLM, beam5: {beams}", flush=True)
    return {
        "pairs": len(records),
        "molecule_tokens_max_abs_difference": worst["mol"],
        "first_step_top20_ids_equal": first.top_equal.equal,
        "first_step_logprobs_max_abs_difference": first.largest,
        "greedy_texts_equal": greedy.equal,
        "beam5_texts_equal": beams.equal,
    }


def _report_variant(fixture: Fixture, name: str, rows: list[Record], work: Path) -> None:
    checkpoint = convert_variant(fixture, name, work / name)
    engine = TorchEngine(checkpoint, batch=1)
    ids = Comparison()
    for record in rows:
        inputs = prepare([prompt_of(record)], engine.tokenizer, engine.config)
        out = engine.model.generate(**inputs._asdict(), max_new_tokens=1, eos_token_id=-1)
        got = out.first_logprobs[0].topk(TOP).indices.tolist()
        ids.add(got == [token for token, _ in record.top20], record.id)
    print(f"{name}, plain torch: first {TOP} ids {ids}")
    for result in ("greedy", "beam5"):
        print(f"{name}, plain torch, {result}: {torch_texts(engine, rows, result)}")


def convert_variant(fixture: Fixture, name: str, out: Path) -> Path:
    """The checkpoint of one of the fixture's variants."""
    if name == "no_lora":
        return fixture.convert(out, lora=None)
    if name.startswith("lora_"):
        return fixture.convert(out, lora=name)
    return fixture.convert(out, lora=None, language_model=name)


def good(figures: dict[str, Any]) -> bool:
    """Whether parity holds."""
    pairs = figures["pairs"]
    return bool(
        figures["molecule_tokens_max_abs_difference"] <= TOKENS_WITHIN
        and figures["first_step_top20_ids_equal"] == pairs
        and figures["first_step_logprobs_max_abs_difference"] <= LOGPROBS_WITHIN
        and figures["greedy_texts_equal"] == pairs
        and figures["beam5_texts_equal"] >= 0.95 * pairs
    )


def main() -> int:
    """Command line."""
    from tests.paths import reference_dir

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--report", action="store_true", required=True)
    parser.add_argument(
        "--fixture", type=Path, help="default: env MOLTC_FIXTURES, or the shared one"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="moltc-golden-") as work:
        figures = report(arguments.fixture or reference_dir(), Path(work))
    print(json.dumps(figures))
    return 0 if good(figures) else 1


if __name__ == "__main__":
    sys.exit(main())
