"""`TorchEngine` with the adapters of a checkpoint folder."""

import json

import pytest

from moltc_vllm.models import Prompt
from moltc_vllm.models.adapters import AdapterError
from moltc_vllm.models.torch_engine import TorchEngine
from moltc_vllm.tasks import GenerationLimits, get_task
from moltc_vllm.tasks.engine import Pair
from tests.molecules import DRUGS

A, B = list(DRUGS.values())[:2]


def test_torch_engine_uses_adapter_of_task(adapted):
    engine = TorchEngine(adapted, constrained=False)
    without = TorchEngine(adapted, constrained=False, adapters=False)

    def texts(engine, task):
        pairs = [Pair(0, (A, B)), Pair(1, (B, A))]
        return [answer.text for _, answer in engine.submit(task, pairs)]

    expected = {task: texts(engine, task) for task in ("ddi", "solvation", "emission")}
    assert texts(without, "emission") == expected["emission"]
    assert texts(without, "ddi") != expected["ddi"]
    assert texts(without, "solvation") != expected["solvation"]
    # Interleaved tasks: each pair is answered with the adapter of its own task.
    engine.batch_size = 1
    pairs = [Pair(0, (A, B)), Pair(1, (B, A))]
    running = {task: engine.submit(task, iter(pairs)) for task in expected}
    for row in range(2):
        for task, answers in running.items():
            assert next(answers)[1].text == expected[task][row]


def test_beam_search_uses_adapter(adapted):
    task = get_task("ddi")
    prompt = Prompt(task.prompt((A, B)), [A, B], "ddi")
    generations = [
        TorchEngine(adapted, beams=3, adapters=use).generate(task, [prompt], GenerationLimits(8))
        for use in (True, False)
    ]
    assert generations[0] != generations[1]


def test_torch_engine_refuses_invalid_adapter(broken):
    path = broken / "adapters" / "ddi" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "use_dora": True}))
    with pytest.raises(AdapterError, match="adapter 'ddi': use_dora"):
        TorchEngine(broken)
    TorchEngine(broken, adapters=False)
