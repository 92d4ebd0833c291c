"""Engines that commands open, and the options that they pass."""

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from moltc_vllm.cli import app, predict
from moltc_vllm.cli.engines import EngineName, open_engine
from tests.evaluate.fakes import FakeEngine, make_answer


@pytest.fixture
def opened(monkeypatch):
    """Replace all engine classes and return the list of their constructor calls."""
    import moltc_vllm.engines.http
    import moltc_vllm.models.torch_engine
    import moltc_vllm.plugin.engine.vllm_engine

    calls = []
    for module, name in (
        (moltc_vllm.models.torch_engine, "TorchEngine"),
        (moltc_vllm.plugin.engine.vllm_engine, "VllmEngine"),
        (moltc_vllm.engines.http, "HttpEngine"),
    ):
        monkeypatch.setattr(
            module, name, lambda *args, _name=name, **options: calls.append((_name, args, options))
        )
    return calls


@pytest.mark.parametrize("beams", [1, 5])
def test_open_engine_passes_beams_only_if_not_default(opened, tiny, beams):
    options = {} if beams == 1 else {"beams": 5}
    open_engine(tiny, None, EngineName.torch, beams=beams)
    open_engine(tiny, None, EngineName.vllm, beams=beams)
    open_engine(None, "http://server", EngineName.vllm, beams=beams)
    open_engine(Path("nowhere"), "http://server", EngineName.torch, beams=beams)
    assert opened == [
        ("TorchEngine", (tiny,), options),
        ("VllmEngine", (tiny,), options),
        ("HttpEngine", ("http://server",), options),
        ("HttpEngine", ("http://server",), options),
    ]


def test_predict_passes_its_options(monkeypatch):
    calls = []

    def open_engine(*_, **options):
        calls.append(options)
        return FakeEngine(lambda task, pair: make_answer(task.name, 1))

    monkeypatch.setattr(predict, "open_engine", open_engine)
    runner = CliRunner()
    for options in ([], ["--beams", "5"]):
        result = runner.invoke(app, ["predict", "--task", "ddi", "C", "O", *options])
        assert result.stdout == "interaction\n"
    assert [(call["beams"], call["pad_query"]) for call in calls] == [(1, False), (5, False)]
    assert runner.invoke(app, ["predict", "--task", "ddi", "C", "O", "--beams", "0"]).exit_code == 2


def test_pad_query_needs_torch_engine(opened, tiny, capsys):
    open_engine(tiny, None, EngineName.torch, pad_query=True)
    assert opened == [("TorchEngine", (tiny,), {"pad_query": True})]
    for model, endpoint, name in (
        (tiny, None, EngineName.vllm),
        (None, "http://server", EngineName.torch),
    ):
        with pytest.raises(typer.Exit) as error:
            open_engine(model, endpoint, name, pad_query=True)
        assert error.value.exit_code == 2
        assert "--pad-query needs `--engine torch`" in capsys.readouterr().err
    assert len(opened) == 1
