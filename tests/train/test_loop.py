"""The training loop: it learns, it can be cut off anywhere, and it writes what can be served."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from accelerate.state import AcceleratorState

from moltc_vllm.models.checkpoint import CheckpointError, load_config, load_model
from moltc_vllm.models.torch_engine import TorchEngine
from moltc_vllm.tasks.engine import Pair
from moltc_vllm.train.log import read_log
from moltc_vllm.train.loop import learning_rate, train
from moltc_vllm.train.recipe import Recipe
from tests.train.conftest import Quiet

SMALL = {
    "name": "small",
    "stage": "finetune",
    "start": "mini",
    "projectors": "role",
    "parts": {
        "combisolv_exp": {"pairs": 12, "block": [3, 3]},
        "zhangddi": {"pairs": 4, "both_orders": True},
    },
    "steps": 12,
    "learning_rate": 1e-3,
    "warmup": 4,
    "dropout": 0.1,  # so that the state of random numbers matters
    "average": 0.9,
    "validate_every": 0,
    "save_every": 5,
}


def small(**changes):
    return Recipe.model_validate({**SMALL, **changes})


def losses(run):
    return [line["loss"] for line in read_log(run) if "loss" in line]


@pytest.fixture(scope="module")
def whole(made_data, tmp_path_factory):
    run = tmp_path_factory.mktemp("run") / "whole"
    watcher = Quiet()
    return train(small(), made_data, run, watcher), watcher, run


def test_the_loss_falls_and_the_log_says_so(whole):
    outcome, watcher, run = whole
    assert outcome.step == 12
    assert watcher.losses[12] < 0.8 * watcher.losses[1]
    assert losses(run)
    assert (run / "loss.png").stat().st_size > 1000
    assert set(outcome.valid["combisolv_exp"]) == {"hits", "rmse", "mae"}
    assert set(outcome.valid["zhangddi"]) == {"hits", "accuracy", "auroc"}


def test_what_it_writes_answers(whole):
    outcome, _, run = whole
    engine = TorchEngine(outcome.checkpoint)
    pairs = [Pair(0, ("CCO", "O")), Pair(1, ("CCC", "nonsense"))]
    statuses = {pair.row: answer.status for pair, answer in engine.submit("solvation", pairs)}
    assert statuses == {0: "ok", 1: "bad_molecule"}
    card = json.loads((outcome.checkpoint / "card.json").read_text())
    assert card["trained_on"] == ["combisolv_exp", "zhangddi"]
    assert [stage["steps"] for stage in card["stages"]] == [12]
    assert card["tasks"] == load_config(outcome.checkpoint).tasks == ["ddi", "solvation"]
    # What was only needed to go on is gone.
    assert not list(run.glob("state-*"))
    assert not (run / "start").exists()


@pytest.mark.parametrize("cut", [3, 5, 8])
def test_a_run_that_was_cut_off_comes_to_the_same(whole, made_data, tmp_path, cut):
    _, reference, _ = whole
    run = tmp_path / "run"
    broken = Quiet(stop_after=cut)
    with pytest.raises(ConnectionResetError):
        train(small(), made_data, run, broken)
    watcher = Quiet()
    outcome = train(small(), made_data, run, watcher)
    last_saved = 5 * (cut // 5) if cut > 5 else 0
    assert min(watcher.losses) == last_saved + 1
    assert watcher.losses == pytest.approx(
        {step: loss for step, loss in reference.losses.items() if step > last_saved}, abs=1e-5
    )
    expected = load_model(whole[0].checkpoint).state_dict()
    for name, tensor in load_model(outcome.checkpoint).state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=1e-5, msg=name)


def test_a_run_goes_on_with_its_own_recipe_only(whole, made_data):
    *_, run = whole
    with pytest.raises(ValueError, match="was begun with other learning_rate, steps"):
        train(small(steps=13, learning_rate=1e-4), made_data, run, Quiet())


def test_a_run_begun_before_a_setting_was_added_can_go_on(whole, made_data):
    *_, run = whole
    content = json.loads((run / "recipe.json").read_text())
    del content["ablate"], content["unseen"], content["processes"]
    (run / "recipe.json").write_text(json.dumps(content))
    train(small(), made_data, run, Quiet())
    with pytest.raises(ValueError, match=r"was begun with other ablate$"):
        train(small(ablate=["lower"]), made_data, run, Quiet())


def test_a_run_that_could_not_begin_remembers_nothing(made_data, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(CheckpointError):
        train(small(), made_data, run, Quiet(), checkpoint=tmp_path / "tpyo")
    assert not (run / "recipe.json").exists()
    with pytest.raises(CheckpointError, match="unknown preset 'mni'"):
        train(small(start="mni"), made_data, run, Quiet())
    assert not (run / "recipe.json").exists()


def test_a_signal_ends_a_run_with_a_saved_state(whole, made_data, tmp_path):
    class Impatient(Quiet):
        def at(self, step, steps, pairs_per_second, loss):
            super().at(step, steps, pairs_per_second, loss)
            if step == 7:
                os.kill(os.getpid(), signal.SIGTERM)

    run, watcher = tmp_path / "run", Impatient()
    outcome = train(small(), made_data, run, watcher)
    assert (outcome.checkpoint, outcome.step) == (None, 7)
    assert watcher.lines[-1] == "interrupted after step 7; run again to go on"
    again = Quiet()
    outcome = train(small(), made_data, run, again)
    assert min(again.losses) == 8
    expected = load_model(whole[0].checkpoint).state_dict()
    for name, tensor in load_model(outcome.checkpoint).state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=1e-5, msg=name)


def test_a_damaged_state_costs_only_the_steps_since_the_one_before_it(made_data, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(ConnectionResetError):
        train(small(), made_data, run, Quiet(stop_after=11))
    (last,) = run.glob("state-*10")
    for path in last.glob("model*"):
        path.write_bytes(path.read_bytes()[:1000])
    watcher = Quiet()
    train(small(), made_data, run, watcher)
    assert any(line.startswith(f"{last.name} cannot be read: ") for line in watcher.lines)
    assert min(watcher.losses) == 6


def test_half_precision(made_data, tmp_path, request):
    # The precision is the process's, and other tests have another one.
    AcceleratorState._reset_state()
    request.addfinalizer(AcceleratorState._reset_state)
    recipe = small(precision="bf16", projectors="role", steps=2, gradient_checkpointing=True)
    watcher = Quiet()
    outcome = train(recipe, made_data, tmp_path / "run", watcher)
    assert len(watcher.losses) == 2
    weights = load_model(outcome.checkpoint).state_dict().values()
    assert {one.dtype for one in weights if one.is_floating_point()} == {torch.float32}


@pytest.mark.slow
def test_killed_then_resumed(made_data, tmp_path):
    """As users meet it: `kill -9`, then the same command again."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps({**SMALL, "steps": 40}))
    command = [
        *(sys.executable, "-m", "moltc_vllm.cli", "train", str(recipe)),
        *("--data", str(made_data), "--json", "--out"),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    straight = subprocess.run(
        [*command, str(tmp_path / "straight")], capture_output=True, text=True, env=environment
    )
    assert straight.returncode == 0, straight.stderr
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
    again = subprocess.run([*command, str(run)], capture_output=True, text=True, env=environment)
    assert again.returncode == 0, again.stderr
    assert "going on after step" in again.stderr
    assert losses(run) == pytest.approx(losses(tmp_path / "straight"), abs=1e-3)
    first, second = (json.loads(one.stdout.splitlines()[-1]) for one in (straight, again))
    assert second["valid"]["combisolv_exp"] == pytest.approx(
        first["valid"]["combisolv_exp"], rel=1e-3
    )


def test_the_learning_rate_rises_and_falls():
    recipe = small(steps=104, warmup=4, floor=0.1)
    rates = [learning_rate(recipe, step) for step in range(105)]
    assert rates[0] == pytest.approx(0.25e-3)
    assert max(rates) == rates[3] == rates[4] == pytest.approx(1e-3)
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert rates[104] == pytest.approx(1e-4)


def test_a_finished_run_is_left_as_it_is(whole, made_data):
    outcome, _, run = whole
    before = (outcome.checkpoint / "card.json").read_bytes()
    watcher = Quiet()
    again = train(small(), made_data, run, watcher)
    assert not watcher.losses
    assert again.checkpoint == outcome.checkpoint
    assert again.valid == outcome.valid
    assert (outcome.checkpoint / "card.json").read_bytes() == before
