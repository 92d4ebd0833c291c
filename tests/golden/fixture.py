"""Reader of a reference fixture: a checkpoint with the outputs of the published code.

The fixture's README describes the layout; sizes, seeds and molecules may vary.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from moltc_vllm.models import Prompt
from moltc_vllm.models.conversion.convert import convert_published
from moltc_vllm.tasks import GenerationLimits, PromptStyle, Task, get_style, get_task
from moltc_vllm.tasks.engine import Pair
from moltc_vllm.tasks.published_styles import MOLTC_2024, PublishedStyle

# Task of each published data-set class, as the fixture names them.
_TASKS = {
    "ddi": "ddi",
    "solve": "solvation",
    "chromophore": "emission",
    "pretrain": "pair_properties",
    "universal": "ask",
}
_SOLVENT_FIRST = ("solvation", "solubility")


@dataclass(frozen=True)
class Record:
    """Pair with all outputs of the published code."""

    raw: dict[str, Any]
    folder: Path

    @property
    def id(self) -> str:
        return str(self.raw["id"])

    @property
    def written(self) -> tuple[str, str]:
        """SMILES in the order of the prompt."""
        return self.raw["smiles1"], self.raw["smiles2"]

    @property
    def task(self) -> Task:
        return get_task(_TASKS[self.raw.get("task") or self.id.rsplit("_", 1)[0]])

    @property
    def pair(self) -> Pair:
        """SMILES in the order of the task's roles."""
        first, second = self.written
        swapped = self.task.name in _SOLVENT_FIRST
        return Pair(0, (second, first) if swapped else (first, second))

    @property
    def question(self) -> str | None:
        """Question of a task that takes one."""
        if not self.task.takes_question:
            return None
        return str(self.raw["raw_prompt"]).rpartition("</s> . ")[2]

    @property
    def style(self) -> PromptStyle:
        """Prompt style with the record's molecule prompt; pretraining has no blank after it."""
        prompt = self.raw["raw_prompt"]
        match = re.fullmatch(r"</s> (.*?)\[START_I_SMILES\].*?\[END_I_SMILES\](.*?) </s>.*", prompt)
        assert match, prompt
        return get_style(MOLTC_2024, f"{match[1]}[START_I_SMILES]{{}}[END_I_SMILES]{match[2]}")

    @property
    def input_ids(self) -> list[int]:
        return list(self.raw["input_ids"])

    def limits(self, result: str) -> GenerationLimits:
        lengths = self.raw[result]
        return PublishedStyle.limits_from_lengths(lengths["max_length"], lengths["min_length"])

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        return dict(np.load(self.folder / self.raw["arrays"]))

    @property
    def first_logprobs(self) -> torch.Tensor:
        """Log-probabilities of the first token, ``[vocabulary]``."""
        return torch.from_numpy(self.arrays["first_logits"]).float().log_softmax(-1)

    @property
    def top20(self) -> list[tuple[int, float]]:
        """Most probable first tokens and their logits, best first."""
        return [(int(token), float(logit)) for token, logit in self.raw["first_logits_top20"]]


@dataclass(frozen=True)
class Fixture:
    """Folder with the reference layout."""

    folder: Path

    @cached_property
    def records(self) -> list[Record]:
        return self._read("expected.jsonl")

    def variants(self) -> dict[str, list[Record]]:
        """Return records with other language models and adapters, by variant."""
        variants: dict[str, list[Record]] = {}
        pairs = {record.id: record.raw for record in self.records}
        if (self.folder / "expected_variants.jsonl").is_file():
            for record in self._read("expected_variants.jsonl"):
                raw = {**pairs[record.id], **record.raw}
                variants.setdefault(raw["variant"], []).append(Record(raw, self.folder))
        return variants

    def convert(
        self,
        out: Path,
        *,
        lora: str | None = "lora_full",
        language_model: str = "galactica-1.3b",
        pinned: bool = True,
    ) -> Path:
        """Convert the checkpoint; ``pinned`` uses the known embedding row of ``<mol>``."""
        convert_published(
            self.folder / "stage2.ckpt",
            self.folder / language_model,
            out,
            lora=self.folder / lora if lora else None,
            molecule_row=self.folder / "mol_row.pt" if pinned else None,
        )
        return out

    def _read(self, name: str) -> list[Record]:
        with (self.folder / name).open() as lines:
            return [Record(json.loads(line), self.folder) for line in lines]


def prompt_of(record: Record) -> Prompt:
    """Compose the record's prompt with this package."""
    text, order = record.style.compose(record.task, record.pair.molecules, record.question)
    return Prompt(text, [record.pair.molecules[index] for index in order], record.task.name)
