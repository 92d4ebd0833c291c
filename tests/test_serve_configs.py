"""vLLM's own parser accepts every shipped configuration of `moltc serve`.

The configurations of Ray Serve are tested in tests/deploy/test_configuration.py.
"""

from pathlib import Path

import pytest

FILES = sorted((Path(__file__).parents[1] / "serve_configs").glob("vllm-*.yaml"))


def test_serve_configs_exist():
    assert FILES


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_vllm_parser_accepts_serve_config(path):
    import yaml

    from moltc_vllm.plugin.launcher import parse

    _, parsed = parse(["folder", "--config", str(path)])
    expected = yaml.safe_load(path.read_text())
    for key, value in expected.items():
        assert getattr(parsed, key.replace("-", "_")) == value
    assert parsed.tokenizer_mode == "moltc"
