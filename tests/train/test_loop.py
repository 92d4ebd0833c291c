"""Training loop: learning, resuming after any interruption, and the exported checkpoint."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from accelerate.state import AcceleratorState

from moltc_vllm.models.checkpoint import CheckpointError, load_config, load_model, load_tokenizer
from moltc_vllm.models.torch_engine import TorchEngine
from moltc_vllm.tasks import get_task
from moltc_vllm.tasks.engine import Pair
from moltc_vllm.train.card import ship
from moltc_vllm.train.loop import train
from tests.train.helpers import (
    SMALL_RECIPE,
    RecordingProgress,
    assert_same_weights,
    logged_losses,
    small_recipe,
)


@pytest.fixture(scope="module")
def finished(generated_data, tmp_path_factory):
    """Result, progress and folder of an uninterrupted run."""
    run = tmp_path_factory.mktemp("run") / "finished"
    progress = RecordingProgress()
    return train(small_recipe(), generated_data, run, progress), progress, run


def test_train_lowers_loss_and_logs_it(finished):
    result, progress, run = finished
    assert result.step == 12
    assert progress.losses[12] < 0.8 * progress.losses[1]
    assert logged_losses(run)
    assert (run / "loss.png").stat().st_size > 1000


def test_train_validates_each_data_set(finished):
    result, *_ = finished
    assert set(result.valid["combisolv_exp"]) == {"hits", "rmse", "mae"}
    assert set(result.valid["zhangddi"]) == {"hits", "accuracy", "auroc"}


def test_trained_checkpoint_answers(finished):
    result, *_ = finished
    engine = TorchEngine(result.checkpoint)
    pairs = [Pair(0, ("CCO", "O")), Pair(1, ("CCC", "nonsense"))]
    statuses = {pair.row: answer.status for pair, answer in engine.submit("solvation", pairs)}
    assert statuses == {0: "ok", 1: "bad_molecule"}


def test_trained_checkpoint_has_card(finished):
    result, *_ = finished
    card = json.loads((result.checkpoint / "card.json").read_text())
    assert card["trained_on"] == ["combisolv_exp", "zhangddi"]
    assert [stage["max_steps"] for stage in card["stages"]] == [12]
    assert card["tasks"] == load_config(result.checkpoint).tasks == ["ddi", "solvation"]


def test_finished_run_has_no_states(finished):
    *_, run = finished
    assert not list(run.glob("state-*"))
    assert not (run / "start").exists()


@pytest.mark.parametrize("step", [3, 5, 8])
def test_train_resumes_with_same_losses_and_weights(finished, generated_data, tmp_path, step):
    reference, reference_progress, _ = finished
    run = tmp_path / "run"
    with pytest.raises(ConnectionResetError):
        train(small_recipe(), generated_data, run, RecordingProgress(fail_after=step))
    progress = RecordingProgress()
    result = train(small_recipe(), generated_data, run, progress)
    last_saved = 5 * (step // 5) if step > 5 else 0
    assert min(progress.losses) == last_saved + 1
    assert progress.losses == pytest.approx(
        {step: loss for step, loss in reference_progress.losses.items() if step > last_saved},
        abs=1e-5,
    )
    assert_same_weights(result.checkpoint, reference.checkpoint)


def test_training_of_an_older_checkpoint_keeps_its_tasks(finished, generated_data, tmp_path):
    result, *_ = finished
    mixture = {"chchminer": {"batch_size": 4}}
    recipe = small_recipe(mixture=mixture, max_steps=2, warmup_steps=1)
    run = tmp_path / "run"
    trained = train(recipe, generated_data, run, RecordingProgress(), checkpoint=result.checkpoint)
    card = json.loads((trained.checkpoint / "card.json").read_text())
    assert (card["trained_on"], card["tasks"]) == (["chchminer"], ["ddi"])
    assert "ddi_biosnap" not in load_config(trained.checkpoint).tasks
    assert set(trained.valid["chchminer"]) == {"hits", "accuracy", "auroc"}
    shipped = tmp_path / "shipped"
    ship(trained.checkpoint, generated_data, shipped, name="older")
    card = json.loads((shipped / "card.json").read_text())
    assert card["data"]["chchminer"]["task"] == "ddi"
    assert set(card["metrics"]["test"]["chchminer"]) == {"pairs", "hits", "accuracy", "auroc"}


def test_new_model_has_token_for_each_phrase_of_new_task(generated_data, tmp_path):
    mixture = {"zhangddi": {"batch_size": 4}, "chchminer": {"batch_size": 4}}
    recipe = small_recipe(mixture=mixture, max_steps=2, warmup_steps=1)
    trained = train(recipe, generated_data, tmp_path / "run", RecordingProgress())
    assert load_config(trained.checkpoint).tasks == ["ddi", "ddi_biosnap"]
    tokenizer = load_tokenizer(trained.checkpoint)
    tokens = [
        tokenizer.encode(text, add_special_tokens=False)
        for name in ("ddi", "ddi_biosnap")
        for text in (
            f"{get_task(name).question}\n",
            *(label.text for label in get_task(name).kind.labels),
        )
    ]
    assert all(len(ids) == 1 for ids in tokens)
    assert len({ids[0] for ids in tokens}) == 6


def test_train_refuses_to_resume_with_another_recipe(finished, generated_data):
    *_, run = finished
    recipe = small_recipe(max_steps=13, learning_rate=1e-4)
    message = "was started with another value of learning_rate, max_steps;"
    with pytest.raises(ValueError, match=message):
        train(recipe, generated_data, run, RecordingProgress())


def test_train_refuses_to_resume_with_another_checkpoint(finished, generated_data):
    result, _, run = finished
    with pytest.raises(ValueError, match="another value of --model;"):
        train(
            small_recipe(),
            generated_data,
            run,
            RecordingProgress(),
            checkpoint=result.checkpoint,
        )


def test_train_resumes_run_older_than_a_setting(finished, generated_data):
    *_, run = finished
    content = json.loads((run / "recipe.json").read_text())
    del content["ablate"], content["unseen"], content["processes"]
    (run / "recipe.json").write_text(json.dumps(content))
    train(small_recipe(), generated_data, run, RecordingProgress())
    with pytest.raises(ValueError, match=r"was started with another value of ablate;"):
        train(small_recipe(ablate=["lower"]), generated_data, run, RecordingProgress())


def test_failed_start_does_not_fix_the_recipe(generated_data, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(CheckpointError):
        train(
            small_recipe(),
            generated_data,
            run,
            RecordingProgress(),
            checkpoint=tmp_path / "tpyo",
        )
    assert not (run / "recipe.json").exists()
    with pytest.raises(CheckpointError, match="unknown preset 'mni'"):
        train(small_recipe(init_from="mni"), generated_data, run, RecordingProgress())
    assert not (run / "recipe.json").exists()


def test_train_saves_state_on_signal(finished, generated_data, tmp_path):
    class Interrupting(RecordingProgress):
        def update(self, step, max_steps, pairs_per_second, loss):
            super().update(step, max_steps, pairs_per_second, loss)
            if step == 7:
                os.kill(os.getpid(), signal.SIGTERM)

    run, progress = tmp_path / "run", Interrupting()
    result = train(small_recipe(), generated_data, run, progress)
    assert (result.checkpoint, result.step) == (None, 7)
    assert progress.messages[-1] == "interrupted after step 7; run the command again to resume"
    resumed = RecordingProgress()
    result = train(small_recipe(), generated_data, run, resumed)
    assert min(resumed.losses) == 8
    assert_same_weights(result.checkpoint, finished[0].checkpoint)


def test_train_resumes_from_older_state_if_newest_is_damaged(generated_data, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(ConnectionResetError):
        train(small_recipe(), generated_data, run, RecordingProgress(fail_after=11))
    (newest,) = run.glob("state-*10")
    for path in newest.glob("model*"):
        path.write_bytes(path.read_bytes()[:1000])
    progress = RecordingProgress()
    train(small_recipe(), generated_data, run, progress)
    assert any(text.startswith(f"{newest.name} cannot be read: ") for text in progress.messages)
    assert min(progress.losses) == 6


def test_train_in_half_precision_keeps_float32_weights(generated_data, tmp_path, request):
    # Accelerate's precision is global, and other tests use another one.
    AcceleratorState._reset_state()
    request.addfinalizer(AcceleratorState._reset_state)
    recipe = small_recipe(
        precision="bf16", projectors="role", max_steps=2, gradient_checkpointing=True
    )
    progress = RecordingProgress()
    result = train(recipe, generated_data, tmp_path / "run", progress)
    assert len(progress.losses) == 2
    weights = load_model(result.checkpoint).state_dict().values()
    assert {w.dtype for w in weights if w.is_floating_point()} == {torch.float32}


@pytest.mark.slow
def test_train_command_resumes_after_kill(generated_data, tmp_path):
    """The process gets SIGKILL, and the same command runs again."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps({**SMALL_RECIPE, "max_steps": 40}))
    command = [
        *(sys.executable, "-m", "moltc_vllm.cli", "train", str(recipe)),
        *("--data", str(generated_data), "--json", "--out"),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    reference = subprocess.run(
        [*command, str(tmp_path / "reference")], capture_output=True, text=True, env=environment
    )
    assert reference.returncode == 0, reference.stderr
    run = tmp_path / "killed"
    with subprocess.Popen(
        [*command, str(run)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as process:
        deadline = time.monotonic() + 120
        while not list(run.glob("state-*")) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert list(run.glob("state-*"))
    assert not (run / "checkpoint").exists()
    resumed = subprocess.run([*command, str(run)], capture_output=True, text=True, env=environment)
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming after step" in resumed.stderr
    assert logged_losses(run) == pytest.approx(logged_losses(tmp_path / "reference"), abs=1e-3)
    first, second = (
        json.loads(process.stdout.splitlines()[-1]) for process in (reference, resumed)
    )
    assert second["valid"]["combisolv_exp"] == pytest.approx(
        first["valid"]["combisolv_exp"], rel=1e-3
    )


def test_train_leaves_finished_run_unchanged(finished, generated_data):
    result, _, run = finished
    before = (result.checkpoint / "card.json").read_bytes()
    progress = RecordingProgress()
    again = train(small_recipe(), generated_data, run, progress)
    assert not progress.losses
    assert again.checkpoint == result.checkpoint
    assert again.valid == result.valid
    assert (result.checkpoint / "card.json").read_bytes() == before
