"""A quick look at some pairs: at the distribution of their answers' first tokens alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from moltc_vllm.models.interval_tokens import interval_vocabulary
from moltc_vllm.models.moltc import MoltcModel
from moltc_vllm.models.tokenizer import MoltcTokenizer
from moltc_vllm.tasks import Choice
from moltc_vllm.train.batch import Collator, Item
from moltc_vllm.train.examples import Examples
from moltc_vllm.train.loss import answer_logits


def validate(
    model: MoltcModel,
    collator: Collator,
    tokenizer: MoltcTokenizer,
    examples: dict[str, Examples],
    batch: int = 256,
) -> dict[str, dict[str, float]]:
    """Metrics of each data set.

    ``hits``: how often the likeliest first token is the right one. Numbers whose intervals are one
    token: ``rmse`` and ``mae`` of the expected value. Labels: ``accuracy``, and ``auroc`` of two;
    a symmetric task is asked in both orders and the mean is taken.
    """
    was_training = model.training
    model.eval()
    found = {
        name: _Validation(model, collator, tokenizer, one, batch).metrics()
        for name, one in examples.items()
        if len(one)
    }
    model.train(was_training)
    return found


class _Validation:
    def __init__(
        self,
        model: MoltcModel,
        collator: Collator,
        tokenizer: MoltcTokenizer,
        examples: Examples,
        batch: int,
    ) -> None:
        self.model, self.collator, self.tokenizer = model, collator, tokenizer
        self.examples, self.batch = examples, batch

    def metrics(self) -> dict[str, float]:
        kind = self.examples.task.kind
        firsts = np.array([text[0] for text in self.examples.texts])[self.examples.answers]
        labels = self._label_tokens(kind)
        scale = interval_vocabulary(self.examples.task, self.tokenizer)
        if scale is not None and not scale.places.keys() >= set(firsts.tolist()):
            scale = None  # answers without intervals
        hits: list[npt.NDArray[np.bool_]] = []
        found: list[npt.NDArray[np.float64]] = []
        start = 0
        for logits in self._logits(self.examples):
            stop = start + len(logits)
            hits.append(logits.argmax(-1).numpy() == firsts[start:stop])
            if labels is not None:
                found.append(logits[:, labels].double().softmax(-1).numpy())
            elif scale is not None:
                found.append(scale.expected(logits))
            start = stop
        metrics = {"hits": float(np.concatenate(hits).mean())}
        if labels is not None and isinstance(kind, Choice):
            metrics |= self._of_labels(kind, np.concatenate(found), labels)
        elif scale is not None:
            off = np.concatenate(found) - self.examples.values
            metrics |= {"rmse": float(np.sqrt((off**2).mean())), "mae": float(np.abs(off).mean())}
        return metrics

    def _of_labels(
        self, kind: Choice, chances: npt.NDArray[np.float64], labels: list[int]
    ) -> dict[str, float]:
        truth = self.examples.values
        if self.examples.task.symmetric:
            swapped = replace(self.examples, molecules=self.examples.molecules[:, ::-1])
            others = [one[:, labels].double().softmax(-1).numpy() for one in self._logits(swapped)]
            chances = (chances + np.concatenate(others)) / 2
        ids = np.array([one.id for one in kind.labels])
        metrics = {"accuracy": float((ids[chances.argmax(1)] == truth).mean())}
        if len(ids) == 2 and len(np.unique(truth)) == 2:
            metrics["auroc"] = float(roc_auc_score(truth, chances[:, 1]))
        return metrics

    def _label_tokens(self, kind: object) -> list[int] | None:
        """The first token of each label's sentence; ``None`` if two have the same."""
        if not isinstance(kind, Choice):
            return None
        tokens = [
            self.tokenizer.encode(one.text, add_special_tokens=False)[0] for one in kind.labels
        ]
        return tokens if len(set(tokens)) == len(tokens) else None

    def _logits(self, examples: Examples) -> Iterator[Tensor]:
        return first_logits(self.model, self.collator, examples, self.batch)


@torch.inference_mode()
def first_logits(
    model: MoltcModel, collator: Collator, examples: Examples, batch: int
) -> Iterator[Tensor]:
    """Logits of the answers' first tokens, ``[<= batch, V]`` float32 on the host, in order."""
    for start in range(0, len(examples), batch):
        items = [
            Item(examples.task, pair, (), 0.0)
            for pair in examples.molecules[start : start + batch].tolist()
        ]
        found: dict[int, Tensor] = {}
        for group, logits in answer_logits(model, collator(items), whole=False):
            found |= dict(zip(group.numbers, logits[:, 0].cpu(), strict=True))
        yield torch.stack([found[number] for number in range(len(items))])
