"""Adapters on a language model in plain torch: one at a time, as its task is asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

from torch import Tensor, nn

from moltc_vllm.models.adapters import Adapter, LowRank


class AdapterSwitcher:
    """Adds an adapter's products to the outputs of the layers it changes.

    Not merged into the weights, and not by PEFT: base weights stay what they are, so nothing has to
    be put back and no rounding is left behind when tasks alternate, adapters share one model, and
    products are taken in vLLM's order, ``(x A) B``. What is left of PEFT then is this hook.

    Args:
        language_model: The causal language model.
        adapters: Adapters that fit it.
    """

    def __init__(self, language_model: nn.Module, adapters: Sequence[Adapter]) -> None:
        self._active: Mapping[str, LowRank] = {}
        self._adapters: dict[str, dict[str, LowRank]] = {}
        for adapter in adapters:
            self._adapters[adapter.name] = {
                name: _beside(language_model.get_parameter(f"{name}.weight"), layer)
                for name, layer in adapter.layers.items()
            }
        for name in {name for layers in self._adapters.values() for name in layers}:
            language_model.get_submodule(name).register_forward_hook(partial(self._add, name))

    @contextmanager
    def using(self, name: str) -> Iterator[None]:
        """Run with this adapter; without any, if there is none of that name."""
        before, self._active = self._active, self._adapters.get(name, {})
        try:
            yield
        finally:
            self._active = before

    def _add(self, name: str, module: nn.Module, inputs: tuple[Tensor], out: Tensor) -> Tensor:
        layer = self._active.get(name)
        if layer is None:
            return out
        return out + (inputs[0] @ layer.a.T) @ layer.b.T * layer.scale


def _beside(weight: Tensor, layer: LowRank) -> LowRank:
    """On the layer's device and in its number format, as vLLM has adapters."""
    return LowRank(layer.a.to(weight), layer.b.to(weight), layer.scale)
