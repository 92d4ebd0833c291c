"""Converting small published files, and what the checkpoint folders hold then."""

import pytest
from safetensors.torch import load_file

from moltc_vllm.models.conversion.convert import convert_published
from moltc_vllm.models.weights import WeightsError
from tests.models.published import files

GRAPH = "molecule_encoder.graph_encoder."
BATCH_NORM = "blip2opt.graph_encoder.batch_norms."
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def weights_of(folder):
    return load_file(folder / "model.safetensors")


def without(state, *endings):
    return {key: tensor for key, tensor in state.items() if not key.endswith(endings)}


def fails(tmp_path, small, state=None, *, message, **options):
    """Convert a changed file; the error's details."""
    before = sorted(path.name for path in tmp_path.iterdir())
    source = tmp_path / "changed" / "stage2.ckpt"
    source.parent.mkdir(exist_ok=True)
    told = options.pop("told", files.TOLD)
    files.write_lightning(source, small.state if state is None else state, hyper_parameters=told)
    with pytest.raises(WeightsError, match=message) as caught:
        convert_published(source, small.language_model, tmp_path / "out", **options)
    assert "\n" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted({*before, "changed"})
    return caught.value.details
