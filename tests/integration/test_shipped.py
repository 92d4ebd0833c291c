"""The shipped model: answers of a server equal those of the training code."""

import json
import re

import pytest

from moltc_vllm.checkpoints.shipped import NAME, shipped_checkpoint
from moltc_vllm.data import COLUMNS, read_dataset
from moltc_vllm.data.dataset_registry import DATASETS
from moltc_vllm.engines.http import HttpEngine
from moltc_vllm.models.interval_tokens import interval_vocabulary
from moltc_vllm.models.prompt import Prompt
from moltc_vllm.models.torch_engine import TorchEngine
from moltc_vllm.plugin.server.server_process import ServerProcess
from moltc_vllm.tasks import get_task
from moltc_vllm.tasks.engine import Pair
from tests.paths import data_dir
from tests.server import Server

DATASET_NAMES = ("drugbank86", "zhangddi", "combisolv_exp", "solubility", "deep4chem_absorption")
PAIRS_PER_DATASET = 40


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
    return TorchEngine(shipped_checkpoint(), batch_size=32)


def real_pairs(name):
    spec = DATASETS[name]
    rows = read_dataset(
        data_dir() / spec.file, get_task(spec.task), split="test", limit=PAIRS_PER_DATASET, seed=5
    )
    return spec.task, [Pair(row.number, row.molecules) for row in rows.rows]


def answers(engine, task, pairs):
    return {pair.row: answer for pair, answer in engine.submit(task, pairs)}


@pytest.mark.parametrize("name", DATASET_NAMES)
def test_server_answers_as_training_code_does(server, training_code, name):
    task, pairs = real_pairs(name)
    served = answers(HttpEngine(server.url), task, pairs)
    expected = answers(training_code, task, pairs)
    assert len(served) == PAIRS_PER_DATASET
    for row, answer in expected.items():
        other = served[row]
        assert (other.status, other.text, other.label) == (answer.status, answer.text, answer.label)
        assert other.likeliest_interval == answer.likeliest_interval
        if answer.value is not None:  # rounded
            assert other.value == pytest.approx(answer.value, rel=1e-3, abs=0.011)
        assert other.confidence == pytest.approx(answer.confidence, abs=1e-3)
    assert all(answer.status == "ok" for answer in served.values())


def test_question_selects_the_task_in_chat_and_completions(server):
    task = get_task("solvation")
    ((_, typed),) = HttpEngine(server.url).submit("solvation", [Pair(0, ("CCO", "O"))])
    regex = {"structured_outputs": {"regex": task.grammar().value}}
    parts = [{"type": "molecule", "molecule": {"smiles": smiles}} for smiles in ("CCO", "O")]
    parts.append({"type": "text", "text": task.question})
    chat = server.openai.chat.completions.create(
        model=NAME,
        messages=[{"role": "user", "content": parts}],
        temperature=0,
        max_tokens=64,
        extra_body=regex,
    )
    assert chat.choices[0].message.content == typed.text
    for space in ("", " "):
        prompt = (
            f"[START_I_SMILES]CCO[END_I_SMILES]{space}[START_I_SMILES]O[END_I_SMILES]{space}"
            f"{task.question}\n"
        )
        completion = server.openai.completions.create(
            model=NAME, prompt=prompt, temperature=0, max_tokens=64, extra_body=regex
        )
        assert completion.choices[0].text == typed.text


def test_value_is_mean_over_intervals(server):
    pairs = [Pair(0, ("CCO", "O")), Pair(1, ("c1ccccc1", "CCCCCC"))]
    task, engine = get_task("solvation"), TorchEngine(shipped_checkpoint())
    vocabulary = interval_vocabulary(task, engine.tokenizer)
    for pair, answer in HttpEngine(server.url).submit("solvation", pairs):
        low, high = answer.likeliest_interval
        assert low <= answer.generated_value < high
        text, _ = engine.style.compose(task, pair.molecules)
        (result,) = engine.generate(task, [Prompt(text, list(pair.molecules), task.name)])
        assert answer.value == pytest.approx(
            vocabulary.mean_value(vocabulary.log_probabilities(result.first_token_candidates)),
            abs=0.011,
        )
        assert answer.value != answer.generated_value


def test_card_describes_data_license_and_metrics():
    card = json.loads((shipped_checkpoint() / "card.json").read_text())
    assert set(card["trained_on"]) <= set(DATASETS)
    assert "research" in card["licence"]
    assert card["metrics"]
    size = sum(path.stat().st_size for path in shipped_checkpoint().iterdir())
    assert size <= 40e6
    # The card has no paths of the machine that trained the model.
    assert not re.search(r"/(work|home|tmp|root)/", json.dumps(card))
    assert set(card["tasks"]) <= set(COLUMNS)
