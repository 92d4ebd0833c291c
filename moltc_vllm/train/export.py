"""Export of the trained model as a checkpoint folder."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moltc_vllm.models.adapters import ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE, ADAPTERS_FOLDER
from moltc_vllm.models.checkpoint import untied_state_dict, write_checkpoint
from moltc_vllm.models.moltc import MoltcModel
from moltc_vllm.models.tokenizer import MoltcTokenizer


def export_checkpoint(
    folder: Path, model: MoltcModel, tokenizer: MoltcTokenizer, card: Mapping[str, Any]
) -> None:
    """Write a trained model to a checkpoint folder.

    LoRA weights of a model that was trained for one task become the folder's adapter for it. Those
    of several tasks are merged into the language model, because a request selects one task.

    Args:
        folder: Folder that does not exist or is empty.
        model: Trained model; its LoRA layers are removed.
        tokenizer: Tokenizer of the model.
        card: Content of the card; ``tasks`` lists the tasks that the model was trained for.
    """
    language: Any = model.language_model
    adapter: dict[str, bytes] = {}
    tasks = list(card["tasks"])
    if hasattr(language, "peft_config") and len(tasks) > 1:
        model.language_model = language.merge_and_unload()
    elif hasattr(language, "peft_config"):
        with tempfile.TemporaryDirectory() as scratch:
            language.save_pretrained(scratch)
            names = (ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE)
            adapter = {name: (Path(scratch) / name).read_bytes() for name in names}
        model.language_model = language.unload()

    def add_adapter(checkpoint: Path) -> None:
        for name, content in adapter.items():
            path = checkpoint / ADAPTERS_FOLDER / tasks[0] / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    weights = untied_state_dict(model).items()
    write_checkpoint(folder, model.config, tokenizer, weights, card, extra=add_adapter)
