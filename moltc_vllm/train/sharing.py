"""Selection of trained weights, and their optimizer groups.

Dynamic parameter sharing (MolTC section 3.3): both molecules of a pair share the graph encoder in
every stage. They share one projector in pretraining; fine-tuning may split it by role, or by task
and role, and each copy starts from the shared weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from moltc_vllm.models.moltc import MoltcModel
from moltc_vllm.train.recipe import LoraSettings, Recipe


def prepare_model(model: MoltcModel, recipe: Recipe) -> None:
    """Set dropout rates, add LoRA layers and select the trained weights, in place.

    Trained weights become float32 regardless of their stored precision, because the small updates
    of an optimizer are lost in half precision. A frozen language model keeps its dtype.

    Args:
        model: Model to prepare.
        recipe: Recipe of the stage.
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
        _add_lora(model, recipe.lora)


def _add_lora(model: MoltcModel, settings: LoraSettings) -> None:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=settings.r,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=list(settings.targets),
        bias="none",
        task_type="CAUSAL_LM",
    )
    model.language_model = get_peft_model(model.language_model, config)
    for weight in model.language_model.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return the trained parameters for AdamW; only matrices of linear layers decay.

    Args:
        model: Prepared model.
        weight_decay: Weight decay of the decaying group.
    """
    decaying = {id(weight) for weight in _linear_weights(model)}
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    return [
        {"params": [w for w in trained if id(w) in decaying], "weight_decay": weight_decay},
        {"params": [w for w in trained if id(w) not in decaying], "weight_decay": 0.0},
    ]


def _linear_weights(model: nn.Module) -> Iterator[Tensor]:
    """Yield the matrices of linear layers, except an output head tied to an embedding."""
    embeddings = {
        id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)
    }
    for module in model.modules():
        if isinstance(module, nn.Linear) and id(module.weight) not in embeddings:
            yield module.weight


def _set_dropout(model: nn.Module, rate: float) -> None:
    """Set the dropout rate of all modules.

    Some models store the rate in `nn.Dropout` modules, others in numeric attributes.
    """
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = rate
        for name in ("dropout", "attention_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, rate)
