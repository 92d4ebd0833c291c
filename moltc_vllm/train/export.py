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


def export_checkpoint(
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
    adapter: dict[str, bytes] = {}
    tasks = list(card["tasks"])
    if hasattr(language, "peft_config") and len(tasks) > 1:
        model.language_model = language.merge_and_unload()
    elif hasattr(language, "peft_config"):
        with tempfile.TemporaryDirectory() as scratch:
            language.save_pretrained(scratch)
            names = (CONFIG_FILE, WEIGHTS_FILE)
            adapter = {name: (Path(scratch) / name).read_bytes() for name in names}
        model.language_model = language.unload()

    def add_adapter(checkpoint: Path) -> None:
        for name, content in adapter.items():
            target = checkpoint / FOLDER / tasks[0] / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)

    weights = state_of(model).items()
    write_checkpoint(folder, model.config, tokenizer, weights, card, extra=add_adapter)
