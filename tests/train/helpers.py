"""A recipe of seconds, a progress receiver and comparisons of runs."""

from typing import Any, NamedTuple

import numpy as np
import torch

from moltc_vllm.models.checkpoint import load_model
from moltc_vllm.train.batch import PairBlock
from moltc_vllm.train.examples import AnswerTokens
from moltc_vllm.train.log import read_log
from moltc_vllm.train.recipe import Recipe

SMALL_RECIPE = {
    "name": "small",
    "stage": "finetune",
    "init_from": "mini",
    "projectors": "role",
    "mixture": {
        "combisolv_exp": {"batch_size": 12, "block": [3, 3]},
        "zhangddi": {"batch_size": 4, "both_orders": True},
    },
    "max_steps": 12,
    "learning_rate": 1e-3,
    "warmup_steps": 4,
    "dropout": 0.1,  # so that the state of the random number generators matters
    "ema_decay": 0.9,
    "validate_every": 0,
    "save_every": 5,
}


def small_recipe(**changes):
    return Recipe.model_validate({**SMALL_RECIPE, **changes})


class RecordingProgress:
    """Progress receiver that keeps messages and losses.

    Args:
        fail_after: Step after which the run fails, if any.
    """

    def __init__(self, fail_after=None):
        self.messages = []
        self.losses = {}
        self.fail_after = fail_after

    def message(self, text):
        self.messages.append(text)

    def update(self, step, max_steps, pairs_per_second, loss):
        self.losses[step] = loss
        if step == self.fail_after:
            raise ConnectionResetError("the machine is gone")


def logged_losses(run):
    return [line["loss"] for line in read_log(run) if "loss" in line]


def assert_same_weights(checkpoint, expected):
    weights = load_model(expected).state_dict()
    for name, tensor in load_model(checkpoint).state_dict().items():
        torch.testing.assert_close(tensor, weights[name], rtol=0, atol=1e-5, msg=name)


class PairItem(NamedTuple):
    """One pair, the tokens of its answer to train on, and its value."""

    task: Any
    molecules: list[int]
    answer: list[int]
    value: float

    def block(self):
        return PairBlock(
            self.task,
            np.array([self.molecules]),
            AnswerTokens.from_lists([self.answer]),
            np.array([0]),
            np.array([len(self.answer)]),
            np.array([self.value]),
        )
