"""Every shipped configuration of `moltc serve` is one that vLLM's own parser takes.

Those of Ray Serve: tests/deploy/test_configuration.py.
"""

from pathlib import Path

import pytest

FILES = sorted((Path(__file__).parents[1] / "serve_configs").glob("vllm-*.yaml"))


def test_there_are_some():
    assert FILES


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_vllm_takes_it(path):
    import yaml

    from moltc_vllm.plugin.launcher import parse

    _, parsed = parse(["folder", "--config", str(path)])
    wanted = yaml.safe_load(path.read_text())
    for key, value in wanted.items():
        assert getattr(parsed, key.replace("-", "_")) == value
    assert parsed.tokenizer_mode == "moltc"
