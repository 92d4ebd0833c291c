"""A reference fixture: what the published code gave for a checkpoint, and how to ask for it here.

The layout is described in the fixture's own README; sizes, seeds and molecules may be any.
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
from moltc_vllm.tasks import Limits, PromptStyle, Task, get_style, get_task
from moltc_vllm.tasks.engine import Pair
from moltc_vllm.tasks.published import CURRENT, PublishedStyle

# The fixture's tasks are the published dataset classes.
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
    """One pair with everything the published code gave for it."""

    raw: dict[str, Any]
    folder: Path

    @property
    def id(self) -> str:
        return str(self.raw["id"])

    @property
    def written(self) -> tuple[str, str]:
        """The SMILES in the order of the prompt."""
        return self.raw["smiles1"], self.raw["smiles2"]

    @property
    def task(self) -> Task:
        return get_task(_TASKS[self.raw.get("task") or self.id.rsplit("_", 1)[0]])

    @property
    def pair(self) -> Pair:
        """The SMILES in the order of our task's roles."""
        first, second = self.written
        swapped = self.task.name in _SOLVENT_FIRST
        return Pair(0, (second, first) if swapped else (first, second))

    @property
    def question(self) -> str | None:
        """The query of the published universal class."""
        if not self.task.takes_question:
            return None
        return str(self.raw["raw_prompt"]).rpartition("</s> . ")[2]

    @property
    def style(self) -> PromptStyle:
        """The prompt of one molecule differs: pretraining had no blank after it."""
        prompt = self.raw["raw_prompt"]
        match = re.fullmatch(r"</s> (.*?)\[START_I_SMILES\].*?\[END_I_SMILES\](.*?) </s>.*", prompt)
        assert match, prompt
        return get_style(CURRENT, f"{match[1]}[START_I_SMILES]{{}}[END_I_SMILES]{match[2]}")

    @property
    def input_ids(self) -> list[int]:
        return list(self.raw["input_ids"])

    def limits(self, result: str) -> Limits:
        lengths = self.raw[result]
        return PublishedStyle.limits_of_length(lengths["max_length"], lengths["min_length"])

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        return dict(np.load(self.folder / self.raw["arrays"]))

    @property
    def first_logprobs(self) -> torch.Tensor:
        """The whole distribution of the first token, ``[vocabulary]``."""
        return torch.from_numpy(self.arrays["first_logits"]).float().log_softmax(-1)

    @property
    def top20(self) -> list[tuple[int, float]]:
        """The likeliest first tokens and their logits, best first."""
        return [(int(token), float(logit)) for token, logit in self.raw["first_logits_top20"]]


@dataclass(frozen=True)
class Fixture:
    """A folder of the reference layout."""

    folder: Path

    @cached_property
    def records(self) -> list[Record]:
        return self._read("expected.jsonl")

    def variants(self) -> dict[str, list[Record]]:
        """Other language models and adapters, on some of the same pairs."""
        found: dict[str, list[Record]] = {}
        pairs = {record.id: record.raw for record in self.records}
        if (self.folder / "expected_variants.jsonl").is_file():
            for record in self._read("expected_variants.jsonl"):
                raw = {**pairs[record.id], **record.raw}
                found.setdefault(raw["variant"], []).append(Record(raw, self.folder))
        return found

    def convert(
        self,
        out: Path,
        *,
        lora: str | None = "lora_full",
        language_model: str = "galactica-1.3b",
        pinned: bool = True,
    ) -> Path:
        """Convert the checkpoint as its users would; ``pinned``: with the known ``<mol>`` row."""
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
    """The record's prompt as this project writes it."""
    text, order = record.style.compose(record.task, record.pair.molecules, record.question)
    return Prompt(text, [record.pair.molecules[place] for place in order], record.task.name)
