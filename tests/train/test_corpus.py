"""What a recipe trains on."""

import pytest

from moltc_vllm.data.rows import Row
from moltc_vllm.train.corpus import tasks_of, without_contradicted
from moltc_vllm.train.recipe import load_recipe
from tests.train.test_loop import small


def rows(*labelled):
    return [Row(number, pair, label) for number, (*pair, label) in enumerate(labelled)]


def as_pairs(found):
    return [(*row.molecules, row.target) for row in found]


@pytest.fixture
def learned():
    return {
        "zhangddi": rows(("C", "O", 0), ("N", "C", 0), ("C[C@H](N)O", "S", 0), ("C", "S", 1)),
        "chchminer": rows(("O", "C", 1), ("CC(N)O", "S", 1), ("S", "C", 0), ("F", "C", 0)),
        "combisolv_exp": rows(("C", "O", 0.0)),
        "drugbank86": rows(("N", "C", 1)),
    }


def test_a_report_is_better_evidence_than_none(learned):
    kept = without_contradicted(learned)
    assert as_pairs(kept["zhangddi"]) == [("N", "C", 0), ("C", "S", 1)]
    assert as_pairs(kept["chchminer"]) == [("O", "C", 1), ("CC(N)O", "S", 1), ("F", "C", 0)]
    assert kept["combisolv_exp"] == learned["combisolv_exp"]  # a number is no no
    assert kept["drugbank86"] == learned["drugbank86"]


def test_a_data_set_alone_contradicts_nobody(learned):
    alone = {"zhangddi": [*learned["zhangddi"], *rows(("C", "O", 1))]}
    assert without_contradicted(alone) == alone


def test_a_recipe_is_about_the_tasks_of_its_data_sets():
    assert [task.name for task in tasks_of(small())] == ["ddi", "solvation"]
    pretrained = {task.name for task in tasks_of(load_recipe("mini-pretrain"))}
    assert pretrained == {"solvation", "pair_properties"}
