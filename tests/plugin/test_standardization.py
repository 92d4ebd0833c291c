"""Molecules are standardized as the checkpoint or the option says, in every engine."""

import json
import shutil

import pytest

from moltc_vllm.checkpoints.shipped import shipped_checkpoint
from moltc_vllm.chem import MoleculeError, canonical_key, packed_of
from moltc_vllm.models.checkpoint import load_config
from moltc_vllm.models.errors import CheckpointError
from moltc_vllm.models.prompt import encoder_key_fn
from moltc_vllm.models.torch_engine import TorchEngine
from moltc_vllm.plugin.engine.vllm_engine import VllmEngine
from moltc_vllm.tasks.engine import Pair
from moltc_vllm.train.examples import MoleculeTable

# Each pair of molecules is one after cleanup; notes are those of the second one.
EQUAL = [
    ("O", "[2H]O[2H]", "isotope"),
    ("CS(C)=O", "C[S+](C)[O-]", "resonance form changed"),
    ("CC(=O)[O-].[Na+]", "CC(=O)O[Na]", "metal bonds removed"),
    ("CN1C=CC(=O)C=C1", "C[n+]1ccc([O-])cc1", "resonance form changed"),
]
PAIRS = [Pair(row, (smiles, "CCO")) for row, smiles in enumerate(s for e in EQUAL for s in e[:2])]


def set_mode(folder, target, mode):
    shutil.copytree(folder, target)
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps({**config, "standardization": mode}))
    return target


def answers(engine):
    by_row = {pair.row: answer for pair, answer in engine.submit("solvation", PAIRS)}
    return [by_row[pair.row] for pair in PAIRS]


@pytest.fixture(scope="module")
def vllm(tiny):
    return VllmEngine(tiny, standardize="cleanup")


def test_engines_encode_the_standardized_molecule_and_note_changes(tiny, tmp_path, vllm):
    folder = set_mode(tiny, tmp_path / "checkpoint", "cleanup")
    found = answers(vllm)
    for engine in (TorchEngine(tiny, standardize="cleanup"), TorchEngine(folder)):
        assert engine.standardize == vllm.standardize == "cleanup"
        for answer, other in zip(answers(engine), found, strict=True):
            assert (answer.status, answer.text) == (other.status, other.text)
            assert answer.notes == other.notes
    key = encoder_key_fn(vllm.request_builder.config)
    for (*smiles, note), first, second in zip(EQUAL, found[::2], found[1::2], strict=True):
        assert len(set(map(key, smiles))) == 1
        assert f"solute: {note}" in second.notes
        assert f"solute: {note}" not in first.notes
        assert all(text.startswith("solute: ") for text in second.notes)


def test_shipped_model_gives_one_answer_to_one_molecule():
    # Its prompts have no SMILES, unlike those of the tiny checkpoint, which show them as written.
    engine = TorchEngine(shipped_checkpoint(), standardize="cleanup")
    found = answers(engine)
    for first, second in zip(found[::2], found[1::2], strict=True):
        assert (first.value, first.text) == (second.value, second.text)


def test_option_replaces_mode_of_checkpoint(tiny, tmp_path):
    folder = set_mode(tiny, tmp_path / "checkpoint", "parent")
    assert load_config(tiny).standardization == "as-drawn"
    assert load_config(folder).standardization == "parent"
    as_drawn = TorchEngine(folder, standardize="as-drawn")
    assert encoder_key_fn(as_drawn.config)("C[S+](C)[O-]") == "C[S+](C)[O-]"
    assert encoder_key_fn(load_config(folder))("CC(=O)[O-].[Na+]") == "CC(=O)O"


def test_unknown_mode_is_refused(tiny, tmp_path):
    folder = set_mode(tiny, tmp_path / "checkpoint", "always")
    with pytest.raises(CheckpointError, match="'always' is not one of as-drawn, cleanup, parent"):
        load_config(folder)
    with pytest.raises(ValueError, match="'always' is not one of"):
        TorchEngine(tiny, standardize="always")


def test_training_reads_molecules_as_the_checkpoint_standardizes_them(tiny, tmp_path):
    config = load_config(set_mode(tiny, tmp_path / "checkpoint", "cleanup"))
    molecules = MoleculeTable(config)
    molecules.add(["C[S+](C)[O-]", "CS(C)=O", "C1"], workers=0)
    packed = [molecules.packed[molecules.index(text)] for text in ("C[S+](C)[O-]", "CS(C)=O")]
    key = canonical_key("C[S+](C)[O-]", standardization="cleanup")
    for molecule in packed:
        assert molecule.atoms.tolist() == packed_of(key).atoms.tolist()
    assert [type(error) for error in molecules.rejected] == [MoleculeError]
