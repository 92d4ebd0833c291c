"""What a recipe trains on."""

import pytest

from moltc_vllm.data.dataset import Row
from moltc_vllm.data.unseen import KNOWN, read_unseen
from moltc_vllm.models.config import MoltcConfig
from moltc_vllm.models.tokenizer import train_tokenizer
from moltc_vllm.train.dataset import read_training_data, tasks_of, without_contradicted
from moltc_vllm.train.recipe import load_recipe
from tests.data.small import small_data
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


def test_unseen_molecules_are_in_nothing_that_is_trained_on(tmp_path):
    folder = small_data(tmp_path / "small")  # in made data every molecule is in too many pairs
    parts = {"combisolv_exp": {"pairs": 4}, "zhangddi": {"pairs": 4}}
    recipe = small(parts=parts, unseen={"fraction": 0.3, "seed": 4})
    config = MoltcConfig()
    tokenizer = train_tokenizer(["a question"], 400)
    unseen, _ = read_unseen(folder, 4, 0.3)
    corpus = read_training_data(recipe, folder, config, tokenizer)
    assert unseen.aside
    assert not any(map(unseen.is_aside, corpus.molecules.smiles))
    for name in parts:
        assert len(corpus.train[name]) == len(unseen.rows[name][KNOWN]) > 0
    whole = read_training_data(small(parts=parts), folder, config, tokenizer)
    assert set(corpus.molecules.smiles) < set(whole.molecules.smiles)


def test_what_is_ablated(made_data):
    recipe = small(ablate=["lower", "graph"])
    tokenizer = train_tokenizer(["is above and below, so the accurate value is"], 400)
    corpus = read_training_data(recipe, made_data, MoltcConfig(), tokenizer)
    said = [tokenizer.decode(one) for one in corpus.train["combisolv_exp"].texts]
    assert said
    assert all("free energy of these two molecules is -" in text for text in said)
    assert not any("above" in text for text in said)
    labels = [tokenizer.decode(one) for one in corpus.train["zhangddi"].texts]
    assert any("interact" in text for text in labels)
    # Methane's graph for each of them.
    assert {len(one.atoms) for one in corpus.molecules.packed} == {1}
    assert len(corpus.molecules.smiles) > 10


def test_a_recipe_is_about_the_tasks_of_its_data_sets():
    assert [task.name for task in tasks_of(small())] == ["ddi", "solvation"]
    pretrained = {task.name for task in tasks_of(load_recipe("mini-pretrain"))}
    assert pretrained == {"solvation", "pair_properties"}
