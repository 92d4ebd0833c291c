"""Old spellings of what users type or import still work for one release, and warn."""

import importlib
import json
import sys

import httpx
import pytest

from moltc_vllm.tasks import get_task
from moltc_vllm.tasks.engine import Pair


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


def test_answer_stated_warns_and_equals_generated_value():
    task = get_task("solvation")
    answer = task.parse_answer(task.write(-3.25))
    old_name = "stated"
    with pytest.warns(FutureWarning, match="generated_value"):
        assert getattr(answer, old_name) == answer.generated_value == -3.25


def test_http_engine_reads_answers_of_version_0_1():
    """A server of version 0.1 sends the field ``stated`` and no ``generated_value``."""
    from moltc_vllm.engines.http import HttpEngine

    content = {"task": "solvation", "status": "ok", "value": -3.2, "stated": -3.25}
    transport = httpx.MockTransport(lambda request: httpx.Response(200, json={"data": [content]}))
    engine = HttpEngine("http://server")
    engine.client = httpx.Client(transport=transport, base_url="http://server")
    ((_, answer),) = engine.submit("solvation", [Pair(0, ("CCO", "O"))])
    assert (answer.value, answer.generated_value) == (-3.2, -3.25)


def test_predict_json_has_both_names_of_generated_value(monkeypatch):
    from typer.testing import CliRunner

    from moltc_vllm.cli import app, predict

    class Engine:
        def submit(self, task, pairs, question=None):
            kind = get_task(task)
            return ((pair, kind.parse_answer(kind.write(-3.25))) for pair in pairs)

    monkeypatch.setattr(predict, "open_engine", lambda *_, **__: Engine())
    result = CliRunner().invoke(app, ["predict", "CCO", "O", "--task", "solvation", "--json"])
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert answer["generated_value"] == answer["stated"] == -3.25


def test_featurize_library_accepts_old_argument_block():
    from moltc_vllm.chem import featurize_library

    with pytest.warns(FutureWarning, match="'chunk_size'"):
        rows = list(featurize_library(["CO", "CC", "CN"], workers=0, block=2))
    assert [key for key, _ in rows] == ["CO", "CC", "CN"]


def test_screened_finish_calls_finalize():
    import moltc_vllm
    from tests.screening.fake_engines import HashEngine

    screened = moltc_vllm.screen("ddi", [("C", "O")], engine=HashEngine())
    with pytest.warns(FutureWarning, match=r"Screened\.finalize"):
        summary = screened.finish()
    assert summary.rows == 1
    assert (screened.folder / "report.html").is_file()


def test_models_prepare_warns_and_calls_prepare_inputs(tiny):
    from moltc_vllm.models import Prompt, load_config, load_tokenizer, prepare, prepare_inputs

    arguments = ([Prompt("<mol>", ["CCO"])], load_tokenizer(tiny), load_config(tiny))
    with pytest.warns(FutureWarning, match="prepare_inputs"):
        inputs = prepare(*arguments)
    assert inputs.input_ids.equal(prepare_inputs(*arguments).input_ids)
