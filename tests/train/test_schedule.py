"""Learning rate schedule."""

import pytest

from moltc_vllm.train.schedule import learning_rate
from tests.train.helpers import small_recipe


def test_learning_rate_rises_linearly_and_falls_to_minimum():
    recipe = small_recipe(max_steps=104, warmup_steps=4, min_lr_ratio=0.1)
    rates = [learning_rate(recipe, step) for step in range(105)]
    assert rates[0] == pytest.approx(0.25e-3)
    assert max(rates) == rates[3] == rates[4] == pytest.approx(1e-3)
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert rates[104] == pytest.approx(1e-4)
