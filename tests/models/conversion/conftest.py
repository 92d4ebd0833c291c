"""Small published files, written once per session."""

from types import SimpleNamespace

import pytest


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """Files of a small published checkpoint, with the tensors they hold."""
    # Imported here because the kernels' conftest must choose Triton's backend first.
    import torch

    from tests.models.conversion import published_files as files

    root = tmp_path_factory.mktemp("small")
    gin = {
        key: torch.randn_like(t.float()).to(t.dtype) for key, t in files.Gin().state_dict().items()
    }
    torch.save(gin, root / "graphcl_80.pth")
    return SimpleNamespace(
        root=root,
        state=files.published_state(),
        lightning=files.write_lightning(root / "stage2.ckpt", files.published_state()),
        language_model=files.write_language_model(root / "galactica-1.3b"),
        graph_encoder=root / "graphcl_80.pth",
        gin=gin,
        lora=files.write_lora(root / "lora_epoch_9", {**files.ATTENTION, **files.FEED_FORWARDS}),
    )


@pytest.fixture(scope="session")
def converted(small, tmp_path_factory):
    """Checkpoint folder converted from the small files with default options."""
    from moltc_vllm.models.conversion.convert import convert_published

    folder = tmp_path_factory.mktemp("converted") / "plain"
    convert_published(small.lightning, small.language_model, folder)
    return folder
