"""Result of a conversion."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moltc_vllm.models.config import MoltcConfig


@dataclass(frozen=True, slots=True)
class ConversionReport:
    """Summary of a written checkpoint folder.

    Attributes:
        folder: Checkpoint folder.
        config: Configuration of the checkpoint.
        tensors: Number of weights.
        card: Content of ``card.json``, without the checksums of the written files.
    """

    folder: Path
    config: MoltcConfig
    tensors: int
    card: dict[str, Any]
