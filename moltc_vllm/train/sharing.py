"""Which weights a stage trains, and which of them both molecules share.

Dynamic parameter sharing (MolTC section 3.3): the graph encoder is one for both molecules in every
stage; the projector is one in pretraining and may be split per role, or per task and role, in
fine-tuning, where each copy begins as the shared one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from moltc_vllm.models.moltc import MoltcModel
from moltc_vllm.train.recipe import Recipe


def prepare_model(model: MoltcModel, recipe: Recipe) -> None:
    """Set dropout, adapters and which weights want gradients, in place.

    What is trained is float32, whatever it was stored in: half precision is for products, and an
    optimiser's small steps are lost in it. A language model that stays as it is keeps its dtype.
    """
    _set_dropout(model, recipe.dropout)
    model.requires_grad_(True)
    model.molecule_encoder.float()
    model.projectors.float()
    if recipe.language_model == "full":
        model.language_model.float()
        return
    model.language_model.requires_grad_(False)
    if recipe.language_model == "lora":
        from peft import LoraConfig, get_peft_model

        lora = recipe.lora
        config = LoraConfig(
            r=lora.r,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=list(lora.targets),
            bias="none",
            task_type="CAUSAL_LM",
        )
        model.language_model = get_peft_model(model.language_model, config)
        for weight in model.language_model.parameters():
            if weight.requires_grad:
                weight.data = weight.data.float()


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Trained parameters for AdamW: only matrices of linear layers decay."""
    decayed = {id(weight) for weight in _linear_weights(model)}
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    return [
        {"params": [w for w in trained if id(w) in decayed], "weight_decay": weight_decay},
        {"params": [w for w in trained if id(w) not in decayed], "weight_decay": 0.0},
    ]


def _linear_weights(model: nn.Module) -> Iterator[Tensor]:
    embeddings = {id(part.weight) for part in model.modules() if isinstance(part, nn.Embedding)}
    for part in model.modules():
        if isinstance(part, nn.Linear) and id(part.weight) not in embeddings:  # a tied head is one
            yield part.weight


def _set_dropout(model: MoltcModel, rate: float) -> None:
    """Ours is a number, as in some language models; others have modules, or one for attention."""
    for part in model.modules():
        if isinstance(part, nn.Dropout):
            part.p = rate
        for name in ("dropout", "attention_dropout"):
            if isinstance(getattr(part, name, None), float):
                setattr(part, name, rate)
