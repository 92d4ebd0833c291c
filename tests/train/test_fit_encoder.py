"""Vocabularies and scales of a new encoder, from its training molecules."""

import numpy as np
import pytest
import torch

from moltc_vllm.models import create_checkpoint
from moltc_vllm.models.batch import BatchMolGraph
from moltc_vllm.models.checkpoint import load_model, load_tokenizer
from moltc_vllm.train.ema import create_ema
from moltc_vllm.train.fit_encoder import MIN_MOLECULES, fit_encoder
from moltc_vllm.train.training_data import read_training_data
from tests.train.helpers import small_recipe


@pytest.fixture
def untrained(tmp_path):
    folder = tmp_path / "mini"
    create_checkpoint("mini", folder, projector_sharing="role", tasks=["solvation", "ddi"])
    return load_model(folder), load_tokenizer(folder)


def read_data(recipe, generated_data, model, tokenizer):
    return read_training_data(recipe, generated_data, model.config, tokenizer)


def test_encoder_is_fitted_to_training_molecules(untrained, generated_data):
    model, tokenizer = untrained
    recipe = small_recipe()
    data = read_data(recipe, generated_data, model, tokenizer)
    messages = []
    fit_encoder(model, data, recipe, messages.append)
    encoder = model.molecule_encoder.graph_encoder
    batch = BatchMolGraph.from_molecules(data.molecules.packed)
    rows = encoder.environments.eval().rows(encoder.hashes(batch))
    smiles = data.molecules.smiles
    sizes = batch.molecule_offsets.diff().tolist()
    by_molecule = dict(zip(smiles, rows.split(sizes), strict=True))
    # The end of an ethyl group is in several molecules, bromine in one only.
    assert int(by_molecule["CCO"][0, 0]) > 0
    assert int(by_molecule["CCO"][0, 0]) == int(by_molecule["CCOC"][0, 0])
    assert int(by_molecule["CCBr"][-1, 0]) == 0
    assert messages[0] == (
        f"{encoder.environments.vocabulary.size} environments of {len(smiles)} training "
        "molecules have rows"
    )
    assert MIN_MOLECULES > 1
    pairs = sum(
        np.bincount(e.molecules.ravel(), minlength=len(smiles)) for e in data.train.values()
    )
    assert encoder.known_molecules.vocabulary.size == (pairs >= 15).sum()
    normalized = (batch.descriptors - encoder.descriptors.mean) / encoder.descriptors.std
    trained = np.unique(np.concatenate([e.molecules.ravel() for e in data.train.values()]))
    assert normalized[trained].mean(0).abs().max() < 1e-3


def test_later_stage_keeps_environments(untrained, generated_data):
    model, tokenizer = untrained
    pretraining = small_recipe(
        stage="pretrain", projectors="shared", mixture={"combisolv_qm": {"batch_size": 4}}
    )
    fit_encoder(model, read_data(pretraining, generated_data, model, tokenizer), pretraining)
    encoder = model.molecule_encoder.graph_encoder
    assert encoder.known_molecules.vocabulary.size == 0  # computed pairs are no measurements
    keys = encoder.environments.vocabulary.keys.clone()
    finetuning = small_recipe()
    fit_encoder(model, read_data(finetuning, generated_data, model, tokenizer), finetuning)
    assert torch.equal(encoder.environments.vocabulary.keys, keys)
    assert encoder.known_molecules.vocabulary.size > 0


def test_average_keeps_hash_keys(untrained):
    model, _ = untrained
    vocabulary = model.molecule_encoder.graph_encoder.known_molecules.vocabulary
    vocabulary.fit(torch.tensor([(1 << 62) + 1, -7]), torch.tensor([1, 1]), min_count=1)
    average = create_ema(model, 0.9)
    vocabulary.fit(torch.tensor([(1 << 62) + 3, 5]), torch.tensor([1, 1]), min_count=1)
    average.update_parameters(model)  # the first update copies
    vocabulary.fit(torch.tensor([(1 << 62) + 5, 5]), torch.tensor([1, 1]), min_count=1)
    average.update_parameters(model)
    averaged = average.module.molecule_encoder.graph_encoder.known_molecules.vocabulary
    assert averaged.keys[:2].tolist() == [5, (1 << 62) + 5]
