"""Table of all tasks."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches

from moltc_vllm.tasks.answer_kinds import Choice, Label, Terms, Text
from moltc_vllm.tasks.ddi_types import DDI_TYPES, DIRECTED_DDI_TYPES
from moltc_vllm.tasks.number import Number
from moltc_vllm.tasks.side_effects import SIDE_EFFECTS
from moltc_vllm.tasks.task import Task

_DRUGS = ("drug 1", "drug 2")
_SOLUTION = ("solute", "solvent")  # column order of the data; published prompts reverse it
_DYE = ("chromophore", "solvent")

_INTERACTS = Choice(
    (
        Label(0, "no_interaction", "#Drug1 and #Drug2 do not exhibit drug-drug interaction."),
        Label(1, "interaction", "#Drug1 and #Drug2 exhibit drug-drug interaction."),
    )
)

# The interactions of BIOSNAP are DrugBank's, those of the task `ddi` are adverse-event reports. The
# same two drugs may have one and not the other, so the data sets have questions of their own.
_BIOSNAP_LISTS = Choice(
    (
        Label(0, "no_interaction", "BIOSNAP lists no interaction of #Drug1 and #Drug2."),
        Label(1, "interaction", "BIOSNAP lists an interaction of #Drug1 and #Drug2."),
    )
)

# Bounds are wider than any measured value. The interval widths of solvation and the wavelengths
# are the published ones; the published width of 10 for all dye properties would put every quantum
# yield into one interval.
_SOLVATION = Number("solvation Gibbs free energy", "kcal/mol", (-80, 40), 0.5, 2)
_SOLUBILITY = Number("log solubility", "log10 mol/L", (-20, 10), 0.5, 2)
_ABSORPTION = Number("Absorption max", "nm", (100, 2000), 10, 1)
_EMISSION = Number("Emission max", "nm", (100, 2000), 10, 1)
# Lifetimes span seven decades with a median of 3 ns, so equal widths would put nearly all of them
# into one interval.
_LIFETIME = Number("Lifetime", "ns", (0, 5000), 0.01, 3, scale="1-2-5")
_QUANTUM_YIELD = Number("Quantum yield", "", (0, 1), 0.1, 3)

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            "ddi",
            "Drug-drug interaction",
            "Do these two drugs interact?",
            _DRUGS,
            _INTERACTS,
            max_tokens=64,
            symmetric=True,
        ),
        Task(
            "ddi_biosnap",
            "Drug-drug interaction listed in BIOSNAP",
            "Does BIOSNAP list an interaction of these two drugs?",
            _DRUGS,
            _BIOSNAP_LISTS,
            max_tokens=64,
            symmetric=True,
            fallback="ddi",
        ),
        Task(
            "ddi_type",
            "Type of drug-drug interaction",
            "How do these two drugs interact?",
            _DRUGS,
            Choice(DDI_TYPES),
            max_tokens=176,
            directed_labels=DIRECTED_DDI_TYPES,
        ),
        Task(
            "ddi_side_effects",
            "Side effects of two drugs taken together",
            "What are the side effects of these two drugs?",
            _DRUGS,
            Terms("The side effects of these two drugs are ", vocabulary=SIDE_EFFECTS),
            max_tokens=512,  # the median pair of TWOSIDES has 53 side effects
            symmetric=True,
            caution="experimental: no shipped model is better than one list for all pairs; compare "
            "f1 and constant_f1 of `moltc evaluate`",
        ),
        Task(
            "solvation",
            "Solvation Gibbs free energy",
            "What is the solvation Gibbs free energy of this pair of molecules?",
            _SOLUTION,
            _SOLVATION,
            max_tokens=128,
        ),
        Task(
            "solubility",
            "Solubility",
            "What is the log solubility of this pair of molecules?",
            _SOLUTION,
            _SOLUBILITY,
            max_tokens=128,
        ),
        Task(
            "absorption",
            "Absorption maximum",
            "What is the Absorption max?",
            _DYE,
            _ABSORPTION,
            max_tokens=128,
        ),
        Task(
            "emission",
            "Emission maximum",
            "What is the Emission max?",
            _DYE,
            _EMISSION,
            max_tokens=128,
        ),
        Task(
            "lifetime",
            "Fluorescence lifetime",
            "What is the Lifetime?",
            _DYE,
            _LIFETIME,
            max_tokens=128,
        ),
        Task(
            "quantum_yield",
            "Quantum yield",
            "What is the Quantum yield?",
            _DYE,
            _QUANTUM_YIELD,
            max_tokens=128,
        ),
        Task(
            "properties",
            "Properties of a molecule",
            "What are the biochemical properties of this molecule?",
            ("molecule",),
            Text(),
            max_tokens=256,
        ),
        Task(
            "pair_properties",
            "Properties of two molecules",
            "What are the biochemical properties of these two molecules, one by one?",
            ("molecule 1", "molecule 2"),
            Text(),
            max_tokens=256,
        ),
        Task(
            "caption",
            "Description of a molecule",
            "Describe this molecule.",
            ("molecule",),
            Text(),
            max_tokens=256,
        ),
        Task(
            "ask",
            "Any question about any molecules",
            "",
            ("molecule",),
            Text(),
            max_tokens=256,
            any_molecules=True,
            takes_question=True,
        ),
    )
}


class UnknownTaskError(ValueError):
    """Task name that is not in the table."""


def resolve_task(task: Task, checkpoint_tasks: Collection[str]) -> Task:
    """Return the task to ask of a checkpoint: the given one, or its fallback if that is all it has.

    Args:
        task: Task of a data set.
        checkpoint_tasks: Names of the tasks that the checkpoint answers; empty if unknown.
    """
    if task.fallback is None or task.name in checkpoint_tasks:
        return task
    return TASKS[task.fallback] if task.fallback in checkpoint_tasks else task


def find_task_by_question(text: str) -> Task | None:
    """Return the task whose question occurs in a text; the longest question if several do."""
    matches = [task for task in TASKS.values() if task.question and task.question in text]
    return max(matches, key=lambda task: len(task.question), default=None)


def get_task(name: str) -> Task:
    """Return the task with the given name.

    Raises:
        UnknownTaskError: If the name is unknown; the message lists all tasks and suggests the
            most similar name.
    """
    if name in TASKS:
        return TASKS[name]
    near = get_close_matches(name.lower().replace("-", "_"), TASKS, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise UnknownTaskError(f"unknown task {name!r}.{hint} Known tasks: {', '.join(TASKS)}.")
