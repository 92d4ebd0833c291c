"""What a Ray Serve configuration says to our application, under ``args``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Flag = bool | int | float | str | list[str] | dict[str, Any] | None


class Settings(BaseModel):
    """Arguments of `moltc_vllm.deploy.build`.

    Attributes:
        model: Checkpoint folder, the same on every node; default: the shipped one.
        flags: Flags of ``moltc serve``, without their dashes. ``true`` and ``false`` switch one on
            and off, a list gives several values, a table is JSON.
        shared_cache_mb: Encoded molecules that the replicas of one machine have in common; 0: each
            encodes what it is asked about by itself.
        watch_s: How often the engine is looked after. When it has died its replica leaves at once,
            and Ray starts another one.
        metrics_s: How often the counters of molecules go to Ray's exporter; 0: never.
        max_body_mb: Larger requests are refused (413); Serve's proxy lets through 64 MB at most.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str | None = None
    flags: dict[str, Flag] = {}
    shared_cache_mb: Annotated[float, Field(ge=0)] = 256.0
    watch_s: Annotated[float, Field(gt=0)] = 0.5
    metrics_s: Annotated[float, Field(ge=0)] = 5.0
    max_body_mb: Annotated[float, Field(gt=0)] = 64.0

    def arguments(self, encoded: Path) -> list[str]:
        """As ``moltc serve`` takes them.

        Args:
            encoded: Folder of the molecules that replicas have in common.

        Raises:
            ValueError: If ``additional-config`` is no table.
        """
        from moltc_vllm.checkpoints.shipped import NAME, shipped_checkpoint

        flags = {name.replace("_", "-"): value for name, value in self.flags.items()}
        if self.model is None:
            flags.setdefault("served-model-name", NAME)
        if self.shared_cache_mb:
            extra = flags.get("additional-config") or {}
            if not isinstance(extra, dict):
                raise ValueError("additional-config has to be a table")
            ours = {
                "moltc_shared_cache": str(encoded),
                "moltc_shared_cache_mb": self.shared_cache_mb,
            }
            flags["additional-config"] = {**ours, **extra}
        words = [self.model or str(shipped_checkpoint())]
        for name, value in flags.items():
            if value is None:
                continue
            if isinstance(value, bool):
                words.append(f"--{name}" if value else f"--no-{name}")
            elif isinstance(value, dict):
                words += [f"--{name}", json.dumps(value)]
            else:
                values = value if isinstance(value, list) else [value]
                words += [f"--{name}", *map(str, values)]
        return words
