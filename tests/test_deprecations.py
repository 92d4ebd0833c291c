"""Old spellings of what users type or import still work for one release, and warn."""

import importlib
import sys

import pytest


@pytest.mark.parametrize(
    ("old", "new", "name"),
    [
        ("moltc_vllm.shipped", "moltc_vllm.checkpoints.shipped", "shipped_checkpoint"),
        ("moltc_vllm.deploy.front", "moltc_vllm.deploy.proxy_middleware", "middlewares"),
    ],
)
def test_old_module_warns_and_has_same_object(old, new, name):
    sys.modules.pop(old, None)
    with pytest.warns(FutureWarning, match=new):
        module = importlib.import_module(old)
    assert getattr(module, name) is getattr(importlib.import_module(new), name)
