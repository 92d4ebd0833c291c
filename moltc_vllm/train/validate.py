"""Fast validation from the distribution of the answers' first tokens, without decoding."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from moltc_vllm.models.interval_tokens import IntervalVocabulary, interval_vocabulary
from moltc_vllm.models.moltc import MoltcModel
from moltc_vllm.models.prompt_composer import ignores_order
from moltc_vllm.models.tokenizer import MoltcTokenizer
from moltc_vllm.tasks import Choice
from moltc_vllm.train.batch import Collator, PairBlock
from moltc_vllm.train.examples import Examples
from moltc_vllm.train.loss import answer_logits, label_tokens


def validate(
    model: MoltcModel,
    collator: Collator,
    tokenizer: MoltcTokenizer,
    examples: dict[str, Examples],
    batch_size: int = 256,
) -> dict[str, dict[str, float]]:
    """Compute metrics of each data set.

    ``hits`` is the fraction of pairs whose most probable first token is correct. Numbers whose
    intervals are one token each have ``rmse`` and ``mae`` of the expected value. Labels have
    ``accuracy``, and binary labels also ``auroc``. The probabilities of a symmetric task are
    averaged over both orders of the molecules.

    Args:
        model: Model to validate; its training mode is restored.
        collator: Collator of the examples' molecules.
        tokenizer: Tokenizer of the model.
        examples: Examples by data set; empty ones are skipped.
        batch_size: Pairs in a batch.
    """
    was_training = model.training
    model.eval()
    metrics = {
        name: _Validation(model, collator, tokenizer, dataset_examples, batch_size).metrics()
        for name, dataset_examples in examples.items()
        if len(dataset_examples)
    }
    model.train(was_training)
    return metrics


class _Validation:
    """Validation of one data set."""

    def __init__(
        self,
        model: MoltcModel,
        collator: Collator,
        tokenizer: MoltcTokenizer,
        examples: Examples,
        batch_size: int,
    ) -> None:
        self.model, self.collator, self.tokenizer = model, collator, tokenizer
        self.examples, self.batch_size = examples, batch_size

    def metrics(self) -> dict[str, float]:
        kind = self.examples.task.kind
        first_tokens = self.examples.texts.ids[self.examples.answers, 0]
        first_label_tokens = label_tokens(self.examples.task, self.tokenizer)
        vocabulary = self._interval_vocabulary(first_tokens)
        hits: list[npt.NDArray[np.bool_]] = []
        outputs: list[npt.NDArray[np.float64]] = []  # label probabilities or expected values
        start = 0
        for logits in self._logits(self.examples):
            stop = start + len(logits)
            hits.append(logits.argmax(-1).numpy() == first_tokens[start:stop])
            if first_label_tokens is not None:
                outputs.append(_probabilities(logits, first_label_tokens))
            elif vocabulary is not None:
                outputs.append(vocabulary.expected_values(logits))
            start = stop
        metrics = {"hits": float(np.concatenate(hits).mean())}
        if first_label_tokens is not None and isinstance(kind, Choice):
            metrics |= self._label_metrics(kind, np.concatenate(outputs), first_label_tokens)
        elif vocabulary is not None:
            error = np.concatenate(outputs) - self.examples.values
            metrics["rmse"] = float(np.sqrt((error**2).mean()))
            metrics["mae"] = float(np.abs(error).mean())
        return metrics

    def _interval_vocabulary(
        self, first_tokens: npt.NDArray[np.int64]
    ) -> IntervalVocabulary | None:
        """Return the interval tokens, unless the answers have no intervals."""
        vocabulary = interval_vocabulary(self.examples.task, self.tokenizer)
        if vocabulary is None or not vocabulary.index_of.keys() >= set(first_tokens.tolist()):
            return None
        return vocabulary

    def _label_metrics(
        self, kind: Choice, probabilities: npt.NDArray[np.float64], tokens: list[int]
    ) -> dict[str, float]:
        truth = self.examples.values
        task = self.examples.task
        if task.symmetric and not ignores_order(self.model.config, task):
            swapped = replace(self.examples, molecules=self.examples.molecules[:, ::-1])
            others = [_probabilities(logits, tokens) for logits in self._logits(swapped)]
            probabilities = (probabilities + np.concatenate(others)) / 2
        ids = np.array([label.id for label in kind.labels])
        metrics = {"accuracy": float((ids[probabilities.argmax(1)] == truth).mean())}
        if len(ids) == 2 and len(np.unique(truth)) == 2:
            metrics["auroc"] = float(roc_auc_score(truth, probabilities[:, 1]))
        return metrics

    def _logits(self, examples: Examples) -> Iterator[Tensor]:
        return first_token_logits(self.model, self.collator, examples, self.batch_size)


def _probabilities(logits: Tensor, tokens: list[int]) -> npt.NDArray[np.float64]:
    """Normalize the probabilities of the labels' first tokens; ``[B, labels]``."""
    probabilities: npt.NDArray[np.float64] = logits[:, tokens].double().softmax(-1).numpy()
    return probabilities


@torch.inference_mode()
def first_token_logits(
    model: MoltcModel, collator: Collator, examples: Examples, batch_size: int
) -> Iterator[Tensor]:
    """Yield the logits of the answers' first tokens, in the order of the examples.

    Args:
        model: Model in evaluation mode.
        collator: Collator of the examples' molecules.
        examples: Examples of one task.
        batch_size: Pairs in a batch.

    Yields:
        ``[B, V]`` float32 on the host, for each batch.
    """
    for start in range(0, len(examples), batch_size):
        molecules = examples.molecules[start : start + batch_size]
        count = len(molecules)
        zeros = np.zeros(count, np.int64)
        block = PairBlock(examples.task, molecules, examples.texts, zeros, zeros, np.zeros(count))
        rows: Tensor | None = None
        for group, logits in answer_logits(model, collator([block]), full_text=False):
            if rows is None:
                rows = logits.new_empty(count, logits.shape[-1], device="cpu")
            rows[torch.from_numpy(group.pair_indices)] = logits[:, 0].cpu()
        assert rows is not None
        yield rows
