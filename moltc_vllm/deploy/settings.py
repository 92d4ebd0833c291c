"""Settings of a replica: the keys under ``args`` in a Ray Serve configuration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

FlagValue = bool | int | float | str | list[str] | dict[str, Any] | None


ENGINE_DIED_STATUS = 70
"""Exit status of a replica or actor whose engine died; it appears in Ray's log."""


class ReplicaSettings(BaseModel):
    """Arguments of `moltc_vllm.deploy.build`.

    Attributes:
        model: Checkpoint folder, with the same path on every node. Default: the shipped checkpoint.
        flags: Flags of ``moltc serve`` without their dashes. ``true`` and ``false`` become
            ``--flag`` and ``--no-flag``, a list gives several values, a mapping is passed as JSON,
            and null leaves the flag out.
        shared_cache_mb: Size of the cache of encoded molecules that the replicas of one machine
            share, in MB; 0 disables it, so that each replica encodes all its molecules itself.
        watch_s: Interval between checks of the engine, in seconds. A replica whose engine has died
            exits at once, and Ray starts a replacement.
        metrics_s: Interval between exports of the molecule counters to Ray's metrics exporter, in
            seconds; 0 disables the export.
        max_body_mb: Largest accepted request body, in MB; larger ones get status 413. Serve's proxy
            accepts 64 MB at most.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str | None = None
    flags: dict[str, FlagValue] = {}
    shared_cache_mb: Annotated[float, Field(ge=0)] = 256.0
    watch_s: Annotated[float, Field(gt=0)] = 0.5
    metrics_s: Annotated[float, Field(ge=0)] = 5.0
    max_body_mb: Annotated[float, Field(gt=0)] = 64.0

    def serve_arguments(self, cache_folder: Path) -> list[str]:
        """Return the settings as arguments of ``moltc serve``.

        Args:
            cache_folder: Folder of the cache of encoded molecules.

        Raises:
            ValueError: If ``additional-config`` is not a mapping.
        """
        from moltc_vllm.checkpoints.shipped import NAME, shipped_checkpoint

        flags = {name.replace("_", "-"): value for name, value in self.flags.items()}
        if self.model is None:
            flags.setdefault("served-model-name", NAME)
        if self.shared_cache_mb:
            additional_config = flags.get("additional-config") or {}
            if not isinstance(additional_config, dict):
                raise ValueError("the flag additional-config has to be a mapping")
            defaults = {
                "moltc_shared_cache": str(cache_folder),
                "moltc_shared_cache_mb": self.shared_cache_mb,
            }
            flags["additional-config"] = {**defaults, **additional_config}
        arguments = [self.model or str(shipped_checkpoint())]
        for name, value in flags.items():
            arguments += _flag_arguments(name, value)
        return arguments


def _flag_arguments(name: str, value: FlagValue) -> list[str]:
    if value is None:
        return []
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no-{name}"]
    if isinstance(value, dict):
        return [f"--{name}", json.dumps(value)]
    values = value if isinstance(value, list) else [value]
    return [f"--{name}", *map(str, values)]
