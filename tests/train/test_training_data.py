"""Rows, molecules and answers that a recipe trains on."""

import pytest

from moltc_vllm.data.dataset import Row
from moltc_vllm.data.unseen import KNOWN, read_unseen
from moltc_vllm.models.config import MoltcConfig
from moltc_vllm.models.tokenizer import train_tokenizer
from moltc_vllm.tasks import get_task
from moltc_vllm.train.recipe import load_recipe
from moltc_vllm.train.training_data import read_training_data, recipe_tasks, without_contradicted
from tests.data.small import small_data
from tests.train.helpers import small_recipe


def rows(*labeled):
    return [Row(number, pair, label) for number, (*pair, label) in enumerate(labeled)]


def pairs_with_targets(rows):
    return [(*row.molecules, row.target) for row in rows]


@pytest.fixture
def training_rows():
    return {
        "zhangddi": rows(("C", "O", 0), ("N", "C", 0), ("C[C@H](N)O", "S", 0), ("C", "S", 1)),
        "chchminer": rows(("O", "C", 1), ("CC(N)O", "S", 1), ("S", "C", 0), ("F", "C", 0)),
        "combisolv_exp": rows(("C", "O", 0.0)),
        "drugbank86": rows(("N", "C", 1)),
    }


def test_without_contradicted_drops_negatives_reported_elsewhere(training_rows):
    # A model of version 0.1 has one task for both data sets.
    kept = without_contradicted(training_rows, ["ddi", "ddi_type"])
    assert pairs_with_targets(kept["zhangddi"]) == [("N", "C", 0), ("C", "S", 1)]
    assert pairs_with_targets(kept["chchminer"]) == [
        ("O", "C", 1),
        ("CC(N)O", "S", 1),
        ("F", "C", 0),
    ]


def test_without_contradicted_keeps_negatives_of_different_tasks(training_rows):
    assert without_contradicted(training_rows) == training_rows
    assert without_contradicted(training_rows, ["ddi", "ddi_biosnap"]) == training_rows


def test_without_contradicted_keeps_tasks_that_are_not_binary(training_rows):
    kept = without_contradicted(training_rows)
    assert kept["combisolv_exp"] == training_rows["combisolv_exp"]
    assert kept["drugbank86"] == training_rows["drugbank86"]


def test_without_contradicted_keeps_single_data_set(training_rows):
    alone = {"zhangddi": [*training_rows["zhangddi"], *rows(("C", "O", 1))]}
    assert without_contradicted(alone) == alone


def test_unseen_molecules_are_not_trained_on(tmp_path):
    # In generated data every molecule is in too many pairs to be held out.
    folder = small_data(tmp_path / "small")
    mixture = {"combisolv_exp": {"batch_size": 4}, "zhangddi": {"batch_size": 4}}
    recipe = small_recipe(mixture=mixture, unseen={"fraction": 0.3, "seed": 4})
    config = MoltcConfig()
    tokenizer = train_tokenizer(["a question"], 400)
    unseen, _ = read_unseen(folder, 4, 0.3)
    data = read_training_data(recipe, folder, config, tokenizer)
    assert unseen.excluded
    assert not any(map(unseen.is_excluded, data.molecules.smiles))
    for name in mixture:
        assert len(data.train[name]) == len(unseen.rows[name][KNOWN]) > 0
    whole = read_training_data(small_recipe(mixture=mixture), folder, config, tokenizer)
    assert set(data.molecules.smiles) < set(whole.molecules.smiles)


@pytest.fixture
def ablated(generated_data):
    tokenizer = train_tokenizer(["is above and below, so the accurate value is"], 400)
    recipe = small_recipe(ablate=["lower", "graph"])
    return read_training_data(recipe, generated_data, MoltcConfig(), tokenizer), tokenizer


def test_ablation_lower_drops_intervals(ablated):
    data, tokenizer = ablated
    texts = [tokenizer.decode(ids) for ids in data.train["combisolv_exp"].texts.as_lists()]
    assert texts
    assert all("free energy of these two molecules is -" in text for text in texts)
    assert not any("above" in text for text in texts)
    labels = [tokenizer.decode(ids) for ids in data.train["zhangddi"].texts.as_lists()]
    assert any("interact" in text for text in labels)


def test_ablation_graph_gives_every_molecule_the_graph_of_methane(ablated):
    data, _ = ablated
    assert {len(graph.atoms) for graph in data.molecules.packed} == {1}
    assert len(data.molecules.smiles) > 10


def test_recipe_tasks_are_those_of_the_mixture():
    assert [task.name for task in recipe_tasks(small_recipe())] == ["ddi", "solvation"]
    mixture = {"zhangddi": {"batch_size": 1}, "chchminer": {"batch_size": 1}}
    recipe = small_recipe(mixture=mixture)
    assert [task.name for task in recipe_tasks(recipe)] == ["ddi", "ddi_biosnap"]
    assert [task.name for task in recipe_tasks(recipe, ["ddi"])] == ["ddi"]
    pretrained = {task.name for task in recipe_tasks(load_recipe("mini-pretrain"))}
    assert pretrained == {"solvation", "pair_properties"}


@pytest.mark.parametrize("tasks", [["ddi"], ["ddi", "ddi_biosnap"]])
def test_chchminer_is_trained_as_the_task_of_the_checkpoint(generated_data, tasks):
    recipe = small_recipe(mixture={"chchminer": {"batch_size": 4}})
    tokenizer = train_tokenizer(["a question"], 400)
    data = read_training_data(recipe, generated_data, MoltcConfig(tasks=tasks), tokenizer)
    assert data.train["chchminer"].task.name == tasks[-1]
    texts = {tokenizer.decode(ids) for ids in data.train["chchminer"].texts.as_lists()}
    expected = {label.text for label in get_task(tasks[-1]).kind.labels}
    assert {text.removesuffix("</s>") for text in texts} == expected
