"""The model that is shipped: its answers through a real server are those of the training code."""

import json
import re

import pytest

from moltc_vllm.checkpoints.shipped import NAME, shipped_checkpoint
from moltc_vllm.data import COLUMNS, read_dataset
from moltc_vllm.data.datasets import DATASETS
from moltc_vllm.engines.http import HttpEngine
from moltc_vllm.models.interval_tokens import interval_vocabulary
from moltc_vllm.models.prompt import Prompt
from moltc_vllm.models.torch_engine import TorchEngine
from moltc_vllm.plugin.server.server_process import ServerProcess
from moltc_vllm.tasks import get_task
from moltc_vllm.tasks.engine import Pair
from tests.paths import data_dir
from tests.server import Server

ASKED = ("drugbank86", "zhangddi", "combisolv_exp", "solubility", "deep4chem_absorption")
PAIRS_OF_EACH = 40


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    log = tmp_path_factory.mktemp("server") / "server.log"
    environment = {"VLLM_ENABLE_V1_MULTIPROCESSING": "1"}
    arguments = ["--served-model-name", NAME]
    with ServerProcess(
        shipped_checkpoint(), arguments, log=log, environment=environment
    ) as process:
        yield Server(process.url)


@pytest.fixture(scope="module")
def training_code():
    return TorchEngine(shipped_checkpoint(), batch=32)


def real_pairs(name):
    source = DATASETS[name]
    rows = read_dataset(
        data_dir() / source.file, get_task(source.task), split="test", limit=PAIRS_OF_EACH, seed=5
    )
    return source.task, [Pair(row.number, row.molecules) for row in rows.rows]


def answers(engine, task, pairs):
    return {pair.row: answer for pair, answer in engine.submit(task, pairs)}


@pytest.mark.parametrize("name", ASKED)
def test_two_hundred_answers_equal_those_of_the_training_code(server, training_code, name):
    task, pairs = real_pairs(name)
    served = answers(HttpEngine(server.url), task, pairs)
    expected = answers(training_code, task, pairs)
    assert len(served) == PAIRS_OF_EACH
    for row, answer in expected.items():
        other = served[row]
        assert (other.status, other.text, other.label) == (answer.status, answer.text, answer.label)
        assert other.interval == answer.interval
        if answer.value is not None:  # it is rounded
            assert other.value == pytest.approx(answer.value, rel=1e-3, abs=0.011)
        assert other.confidence == pytest.approx(answer.confidence, abs=1e-3)
    assert all(answer.status == "ok" for answer in served.values())


def test_all_ways_in_come_to_the_same(server):
    """Chat and text name no task: its question does."""
    task = get_task("solvation")
    ((_, typed),) = HttpEngine(server.url).submit("solvation", [Pair(0, ("CCO", "O"))])
    regex = {"structured_outputs": {"regex": task.grammar().value}}
    parts = [{"type": "molecule", "molecule": {"smiles": one}} for one in ("CCO", "O")]
    parts.append({"type": "text", "text": task.question})
    chat = server.openai.chat.completions.create(
        model=NAME,
        messages=[{"role": "user", "content": parts}],
        temperature=0,
        max_tokens=64,
        extra_body=regex,
    )
    assert chat.choices[0].message.content == typed.text
    for blank in ("", " "):
        prompt = (
            f"[START_I_SMILES]CCO[END_I_SMILES]{blank}[START_I_SMILES]O[END_I_SMILES]{blank}"
            f"{task.question}\n"
        )
        text = server.openai.completions.create(
            model=NAME, prompt=prompt, temperature=0, max_tokens=64, extra_body=regex
        )
        assert text.choices[0].text == typed.text


def test_a_number_is_the_mean_of_what_is_possible(server):
    pairs = [Pair(0, ("CCO", "O")), Pair(1, ("c1ccccc1", "CCCCCC"))]
    task, engine = get_task("solvation"), TorchEngine(shipped_checkpoint())
    scale = interval_vocabulary(task, engine.tokenizer)
    for pair, answer in HttpEngine(server.url).submit("solvation", pairs):
        low, high = answer.interval
        assert low <= answer.stated < high
        text, _ = engine.style.compose(task, pair.molecules)
        (found,) = engine.generate(task, [Prompt(text, list(pair.molecules), task.name)])
        assert answer.value == pytest.approx(scale.mean(found.likely), abs=0.011)
        assert answer.value != answer.stated


def test_the_card_says_what_it_is():
    card = json.loads((shipped_checkpoint() / "card.json").read_text())
    assert set(card["trained_on"]) <= set(DATASETS)
    assert "research" in card["licence"]
    assert card["metrics"]
    size = sum(path.stat().st_size for path in shipped_checkpoint().iterdir())
    assert size <= 40e6
    # Nothing of the machine that trained it.
    assert not re.search(r"/(work|home|tmp|root)/", json.dumps(card))
    assert set(card["tasks"]) <= set(COLUMNS)
