"""Helpers for tests that convert small published files."""

import pytest
from safetensors.torch import load_file

from moltc_vllm.models.conversion.convert import convert_published
from moltc_vllm.models.weights import WeightsError
from tests.models.conversion import published_files as files

GRAPH = "molecule_encoder.graph_encoder."
BATCH_NORM = "blip2opt.graph_encoder.batch_norms."
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def read_weights(folder):
    """Return the weights of a checkpoint folder by name."""
    return load_file(folder / "model.safetensors")


def without(state, *suffixes):
    """Return a state dict without the weights whose names have one of the suffixes."""
    return {name: tensor for name, tensor in state.items() if not name.endswith(suffixes)}


def error_details(
    tmp_path,
    small,
    state=None,
    *,
    message,
    hyper_parameters=files.HYPER_PARAMETERS,
    **options,
):
    """Check that a modified file is rejected without output; return the error's details."""
    before = sorted(path.name for path in tmp_path.iterdir())
    source = tmp_path / "modified" / "stage2.ckpt"
    source.parent.mkdir(exist_ok=True)
    state = small.state if state is None else state
    files.write_lightning(source, state, hyper_parameters=hyper_parameters)
    with pytest.raises(WeightsError, match=message) as caught:
        convert_published(source, small.language_model, tmp_path / "out", **options)
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted({*before, "modified"})
    return caught.value.details
