"""From a task and its molecules to an engine's prompt, and from its output to an `Answer`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vllm.inputs import TextPrompt
from vllm.outputs import RequestOutput
from vllm.sampling_params import RequestOutputKind, SamplingParams, StructuredOutputsParams

from moltc_vllm.models.config import MoltcConfig
from moltc_vllm.plugin.molecules import MODALITY, BadMoleculeError, MoleculeSpec
from moltc_vllm.tasks import Answer, FailedStatus, Task, TokenLogprob


def text_prompt(
    task: Task, molecules: Sequence[Any], config: MoltcConfig, question: str | None = None
) -> TextPrompt:
    """The prompt of one pair.

    Raises:
        VLLMValidationError: If a molecule is not given as one.
        PromptError: If the question is missing, or has reserved tokens.
    """
    specs = [
        MoleculeSpec.of(molecule, f"molecule {place + 1}", config)._replace(task=task.name)
        for place, molecule in enumerate(molecules)
    ]
    return TextPrompt(
        prompt=task.prompt([spec.smiles for spec in specs], question),
        multi_modal_data={MODALITY: specs},
    )


def sampling_params(
    task: Task, *, constrained: bool = True, max_tokens: int | None = None
) -> SamplingParams:
    """Greedy decoding, held to the task's grammar where it has one."""
    grammar = task.grammar() if constrained else None
    structured = None
    if grammar is not None:
        structured = (
            StructuredOutputsParams(choice=list(grammar.value))
            if grammar.kind == "choice"
            else StructuredOutputsParams(regex=str(grammar.value))
        )
    return SamplingParams(
        temperature=0.0,
        max_tokens=max_tokens or task.max_tokens,
        logprobs=0,  # of the chosen token only
        structured_outputs=structured,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def read_output(task: Task, output: RequestOutput) -> Answer:
    """The typed answer in a finished request."""
    completion = output.outputs[0]
    tokens = [
        TokenLogprob(chosen[token].decoded_token or "", chosen[token].logprob)
        for token, chosen in zip(completion.token_ids, completion.logprobs or [], strict=False)
    ]
    answer = task.answer(completion.text, tokens)
    if answer.status == "unparsed" and completion.finish_reason == "length":
        return task.failed(
            "unparsed",
            f"{answer.error} (cut off after {len(completion.token_ids)} tokens)",
            text=completion.text,
        )
    return answer


def failure(task: Task, error: Exception) -> Answer:
    """The answer of a pair that could not be asked."""
    status: FailedStatus = "bad_molecule" if isinstance(error, BadMoleculeError) else "error"
    # The message without vLLM's parameter suffix: it names the molecule already.
    message = str(error.args[0]) if error.args else str(error)
    return task.failed(status, message or type(error).__name__)
