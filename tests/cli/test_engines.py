"""Which engine a command opens, and what it is told."""

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from moltc_vllm.cli import app, predict
from moltc_vllm.cli.engines import EngineName, open_engine
from tests.evaluate.fakes import FakeEngine, said


@pytest.fixture
def opened(monkeypatch):
    """Stand-ins for all engines; the calls of their constructors."""
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
def test_beams_are_named_only_if_there_are_some(opened, tiny, beams):
    told = {} if beams == 1 else {"beams": 5}
    open_engine(tiny, None, EngineName.torch, beams=beams)
    open_engine(tiny, None, EngineName.vllm, beams=beams)
    open_engine(None, "http://somewhere", EngineName.vllm, beams=beams)
    open_engine(Path("nowhere"), "http://somewhere", EngineName.torch, beams=beams)
    assert opened == [
        ("TorchEngine", (tiny,), told),
        ("VllmEngine", (tiny,), told),
        ("HttpEngine", ("http://somewhere",), told),
        ("HttpEngine", ("http://somewhere",), told),
    ]


def test_predict_hands_its_beams_on(monkeypatch):
    told = []

    def open_engine(*_, **options):
        told.append(options)
        return FakeEngine(lambda task, pair: said(task.name, 1))

    monkeypatch.setattr(predict, "open_engine", open_engine)
    runner = CliRunner()
    for options in ([], ["--beams", "5"]):
        result = runner.invoke(app, ["predict", "--task", "ddi", "C", "O", *options])
        assert result.stdout == "interaction\n"
    assert [(one["beams"], one["pad_query"]) for one in told] == [(1, False), (5, False)]
    assert runner.invoke(app, ["predict", "--task", "ddi", "C", "O", "--beams", "0"]).exit_code == 2


def test_the_query_is_padded_by_plain_torch_only(opened, tiny, capsys):
    open_engine(tiny, None, EngineName.torch, pad_query=True)
    assert opened == [("TorchEngine", (tiny,), {"pad_query": True})]
    for model, endpoint, name in (
        (tiny, None, EngineName.vllm),
        (None, "http://somewhere", EngineName.torch),
    ):
        with pytest.raises(typer.Exit) as caught:
            open_engine(model, endpoint, name, pad_query=True)
        assert caught.value.exit_code == 2
        assert "`--engine torch` only" in capsys.readouterr().err
    assert len(opened) == 1
