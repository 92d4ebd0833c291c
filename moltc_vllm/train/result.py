"""The trained model as a checkpoint folder."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moltc_vllm.models.adapters import CONFIG_FILE, FOLDER, WEIGHTS_FILE
from moltc_vllm.models.checkpoint import state_of, write_checkpoint
from moltc_vllm.models.moltc import MoltcModel
from moltc_vllm.models.tokenizer import MoltcTokenizer


def save_trained(
    folder: Path, model: MoltcModel, tokenizer: MoltcTokenizer, card: Mapping[str, Any]
) -> None:
    """Write a trained model.

    LoRA weights of a model that was trained for one task become the folder's adapter for it; those
    of several tasks, which no request could choose, are merged into the language model.

    Args:
        folder: Must not exist, or be empty.
        model: As it was trained; LoRA layers are taken out of it.
        tokenizer: Its tokenizer.
        card: What it was trained and measured on; ``tasks`` names what it was trained for.
    """
    language: Any = model.language_model
    if not hasattr(language, "peft_config"):
        write_checkpoint(folder, model.config, tokenizer, state_of(model).items(), card)
        return
    tasks = list(card["tasks"])
    if len(tasks) > 1:
        model.language_model = language.merge_and_unload()
        write_checkpoint(folder, model.config, tokenizer, state_of(model).items(), card)
        return
    with tempfile.TemporaryDirectory() as scratch:
        language.save_pretrained(scratch)
        model.language_model = language.unload()

        def add_adapter(checkpoint: Path) -> None:
            target = checkpoint / FOLDER / tasks[0]
            target.mkdir(parents=True)
            for name in (CONFIG_FILE, WEIGHTS_FILE):
                (target / name).write_bytes((Path(scratch) / name).read_bytes())

        weights = state_of(model).items()
        write_checkpoint(folder, model.config, tokenizer, weights, card, extra=add_adapter)
