"""Calibrated answers of vLLM equal those of plain torch, scored and generated."""

import pytest

from moltc_vllm.checkpoints.shipped import shipped_checkpoint
from moltc_vllm.models.interval_tokens import interval_vocabulary
from moltc_vllm.models.prompt import Prompt
from moltc_vllm.models.torch_engine import TorchEngine
from moltc_vllm.plugin.engine.request_builder import GenerationSettings
from moltc_vllm.plugin.engine.vllm_engine import VllmEngine
from moltc_vllm.tasks import get_task
from moltc_vllm.tasks.engine import Pair
from tests.calibrated import KNOWN, SIMILAR, UNLIKE, calibrated_checkpoint

MOLECULES = {"known": KNOWN, "similar": SIMILAR, "unlike": UNLIKE}
PAIRS = [
    *(Pair(row, (smiles, "O")) for row, smiles in enumerate(MOLECULES.values())),
    Pair(3, ("C1CC", "O")),
    # The canonical key counts, not the way the SMILES is written.
    Pair(4, ("OCCCCCCCC", "[OH2]")),
]
TASKS = ("solvation", "ddi", "absorption")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return calibrated_checkpoint(tmp_path_factory.mktemp("calibrated") / "model")


@pytest.fixture(scope="module")
def torch_engine(folder):
    return TorchEngine(folder)


@pytest.fixture(scope="module")
def vllm_engine(folder):
    return VllmEngine(folder)


def answers(engine, task):
    return {pair.row: answer for pair, answer in engine.submit(task, PAIRS)}


@pytest.mark.parametrize("score", [False, True])
def test_vllm_agrees_with_torch(torch_engine, vllm_engine, score):
    vllm_engine.request_builder.settings = GenerationSettings(score=score)
    for task in TASKS:
        expected, actual = answers(torch_engine, task), answers(vllm_engine, task)
        # Without calibration the 20 likeliest tokens may hold one that is not an interval.
        rel = 0.005 if task == "absorption" else 0
        for row, answer in actual.items():
            assert answer.status == expected[row].status
            assert answer.familiarity == expected[row].familiarity
            assert answer.likeliest_interval == expected[row].likeliest_interval
            for name in ("value", "std", "low", "high"):
                number = getattr(expected[row], name)
                assert getattr(answer, name) == (
                    None if number is None else pytest.approx(number, abs=0.021, rel=rel)
                ), (task, name)
            if answer.confidence is not None:
                assert answer.confidence == pytest.approx(expected[row].confidence, abs=0.01)


def test_coverage_of_an_engine_is_used(folder, torch_engine, vllm_engine):
    wide = TorchEngine(folder, coverage=0.95)
    vllm_engine.request_builder.settings = GenerationSettings(score=True, coverage=0.95)
    scored = answers(vllm_engine, "solvation")
    for row, answer in answers(wide, "solvation").items():
        if answer.status == "ok":
            narrow = answers(torch_engine, "solvation")[row]
            assert answer.low < narrow.low <= answer.value <= narrow.high < answer.high
            assert (answer.value, answer.std) == (narrow.value, narrow.std)
            assert scored[row].low == pytest.approx(answer.low, abs=0.021)


def test_familiarity_decides_confidence_and_width(torch_engine):
    solvation, ddi = answers(torch_engine, "solvation"), answers(torch_engine, "ddi")
    for row, name in enumerate(MOLECULES):
        assert solvation[row].familiarity == ddi[row].familiarity == name
    assert solvation[4].familiarity == "known"
    raw = answers(TorchEngine(shipped_checkpoint()), "ddi")
    for row, slope in enumerate((1.0, 0.5, 0.1)):
        odds = raw[row].confidence / (1 - raw[row].confidence)
        assert ddi[row].label == raw[row].label
        assert ddi[row].confidence == pytest.approx(odds**slope / (1 + odds**slope), abs=1e-4)
    assert ddi[2].confidence < 0.7


def test_value_is_the_mean_over_all_intervals(folder, torch_engine):
    task = get_task("solvation")
    intervals = interval_vocabulary(task, torch_engine.tokenizer)
    for row, smiles in enumerate(MOLECULES.values()):
        text, _ = torch_engine.style.compose(task, (smiles, "O"))
        (result,) = torch_engine.generate(task, [Prompt(text, [smiles, "O"], task.name)])
        assert len(set(result.first_token_candidates.token_ids)) == len(intervals.token_ids)
        logs = intervals.log_probabilities(result.first_token_candidates)
        assert answers(torch_engine, "solvation")[row].value == intervals.mean_value(logs)


def test_failed_answers_and_other_tasks_are_not_calibrated(torch_engine):
    failed = answers(torch_engine, "solvation")[3]
    assert (failed.status, failed.familiarity, failed.low) == ("bad_molecule", None, None)
    other = answers(torch_engine, "absorption")[0]
    assert (other.status, other.familiarity, other.low, other.std) == ("ok", None, None, None)


def test_folder_without_the_files_answers_as_before(tmp_path):
    from moltc_vllm.models.interval_tokens import NUM_CANDIDATES

    folder = calibrated_checkpoint(tmp_path / "model")
    (folder / "calibration.json").unlink()
    (folder / "familiarity.safetensors").unlink()
    engine = TorchEngine(folder)
    for row, answer in answers(engine, "solvation").items():
        if answer.status == "ok":
            assert answer.value is not None, row
            assert (answer.low, answer.high, answer.std, answer.familiarity) == (None,) * 4
    assert engine.calibrator.num_candidates(get_task("solvation")) == NUM_CANDIDATES
