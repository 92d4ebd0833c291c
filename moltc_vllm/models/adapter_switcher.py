"""Switching between LoRA adapters on a language model in plain torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

from torch import Tensor, nn

from moltc_vllm.models.adapters import Adapter, LoraDelta


class AdapterSwitcher:
    """Forward hooks that add the active adapter's products to the outputs of linear layers.

    Adapters are neither merged into the weights nor applied by PEFT. Base weights stay unchanged,
    so alternating between tasks leaves no rounding error, adapters share one model, and products
    are computed in the same order as in vLLM: ``(x A) B``.

    Args:
        language_model: Causal language model.
        adapters: Adapters that fit it.
    """

    def __init__(self, language_model: nn.Module, adapters: Sequence[Adapter]) -> None:
        self._active: Mapping[str, LoraDelta] = {}
        self._adapters: dict[str, dict[str, LoraDelta]] = {}
        for adapter in adapters:
            self._adapters[adapter.name] = {
                name: _cast_like(language_model.get_parameter(f"{name}.weight"), delta)
                for name, delta in adapter.layers.items()
            }
        for name in {name for layers in self._adapters.values() for name in layers}:
            language_model.get_submodule(name).register_forward_hook(partial(self._hook, name))

    @contextmanager
    def activate(self, name: str) -> Iterator[None]:
        """Activate an adapter within the context.

        Args:
            name: Name of the adapter; with an unknown name the base model runs.
        """
        previous, self._active = self._active, self._adapters.get(name, {})
        try:
            yield
        finally:
            self._active = previous

    def _hook(self, name: str, module: nn.Module, inputs: tuple[Tensor], out: Tensor) -> Tensor:
        delta = self._active.get(name)
        if delta is None:
            return out
        return out + (inputs[0] @ delta.a.T) @ delta.b.T * delta.scale  # [..., out]


def _cast_like(weight: Tensor, delta: LoraDelta) -> LoraDelta:
    """Move a delta to the device and dtype of its layer's weight, as vLLM does."""
    return LoraDelta(delta.a.to(weight), delta.b.to(weight), delta.scale)
