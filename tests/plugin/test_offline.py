"""`vllm.LLM` with molecules: the ways of giving them, and what is refused."""

import itertools

import pytest
import torch
from prometheus_client import REGISTRY
from vllm import SamplingParams
from vllm.exceptions import VLLMValidationError

from moltc_vllm.chem import canonical_key, packed_of
from moltc_vllm.models.checkpoint import read_weights
from moltc_vllm.plugin.modality.serialization import pack_molecule
from moltc_vllm.tasks import get_task
from tests.molecules import DRUGS

GREEDY = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)
TASK = get_task("ddi")
A, B = DRUGS["aspirin"], DRUGS["warfarin"]


@pytest.fixture(scope="module")
def llm(offline, tiny_roles):
    return offline(tiny_roles)


def answer(llm, prompt):
    (output,) = llm.generate([prompt], GREEDY, use_tqdm=False)
    return list(output.outputs[0].token_ids)


def likeliest(llm, prompt):
    """The first token's likeliest ids and log-probabilities: they hear more than greedy tokens."""
    params = SamplingParams(temperature=0, max_tokens=1, logprobs=5)
    (output,) = llm.generate([prompt], params, use_tqdm=False)
    return {token: round(one.logprob, 2) for token, one in output.outputs[0].logprobs[0].items()}


def given(*molecules, prompt=None):
    return {
        "prompt": prompt or "<mol> " * len(molecules) + TASK.question + "\n",
        "multi_modal_data": {"molecule": list(molecules)},
    }


def counter(name: str) -> float:
    return REGISTRY.get_sample_value(name) or 0.0


def encoded() -> float:
    return counter("moltc_molecules_encoded_total")


def test_tags_in_text_are_molecules(llm):
    tagged = TASK.prompt([A, B]).replace("<mol>", "")
    assert answer(llm, tagged) == answer(llm, given(A, B, prompt=TASK.prompt([A, B])))


def test_molecules_as_strings_objects_and_molblocks(llm):
    from rdkit import Chem

    prompt = TASK.prompt([A, B])
    expected = answer(llm, given(A, B, prompt=prompt))
    block = Chem.MolToMolBlock(Chem.MolFromSmiles(B))
    assert answer(llm, given({"smiles": A}, {"molblock": block}, prompt=prompt)) == expected
    roles = given({"smiles": A, "role": 0}, {"smiles": B, "role": 1, "task": "ddi"}, prompt=prompt)
    assert answer(llm, roles) == expected


def test_order_and_repetition_are_heard(llm):
    # Without SMILES in the text, only the molecule tokens differ.
    answers = [likeliest(llm, given(*pair)) for pair in [(A, B), (B, A), (A, A), (B, B)]]
    assert all(a != b for a, b in itertools.combinations(answers, 2))


def test_one_molecule_many_molecules_and_one_atom(llm):
    prompts = [given("O"), given("[Na+]", "[H][H]"), given(*list(DRUGS.values())[:6])]
    assert len({tuple(answer(llm, prompt)) for prompt in prompts}) == 3


def test_warm_and_cold_caches_give_the_same(llm):
    prompt = given(DRUGS["morphine"], DRUGS["nicotine"])
    cold = answer(llm, prompt)
    assert answer(llm, prompt) == cold
    llm.reset_prefix_cache()
    llm.reset_mm_cache()
    llm.llm_engine.reset_encoder_cache()
    assert answer(llm, prompt) == cold


def test_spellings_of_one_molecule_are_encoded_once(llm):
    before = encoded()
    for smiles in ("CCCCO", "OCCCC", "C(CC)CO", "CCCCO"):
        answer(llm, given(smiles))
    assert encoded() - before == 1


def test_a_molecule_is_encoded_once_for_all_roles(llm):
    before, hits = encoded(), counter("moltc_encoder_cache_hits_total")
    both = answer(llm, given("CCCCN", "CCCCN"))  # in one batch of the encoder
    assert encoded() - before == 1
    second = answer(llm, given("CCCCF", "NCCCC"))  # known, but vLLM may have dropped it
    assert encoded() - before == 2
    assert answer(llm, given("CCCCN", "CCCCF")) != second
    assert encoded() - before == 2
    assert counter("moltc_encoder_cache_hits_total") - hits >= 2
    llm.reset_mm_cache()
    assert answer(llm, given("CCCCN", "CCCCN")) == both


def test_the_encoder_runs_once_for_a_step_of_many_requests(llm):
    prompts = [given("C" * (20 + i), "N" + "C" * (20 + i)) for i in range(12)]
    before, runs = encoded(), counter("moltc_encoder_runs_total")
    llm.generate(prompts, GREEDY, use_tqdm=False)
    assert encoded() - before == 24
    assert counter("moltc_encoder_runs_total") - runs == 1


def test_molecules_of_a_step_that_are_known_in_part(llm, monkeypatch):
    monkeypatch.setattr(
        "moltc_vllm.plugin.modality.model._ATOMS", 20
    )  # so in several runs of the encoder
    keys = [canonical_key(DRUGS[name]) for name in ("aspirin", "warfarin", "morphine", "nicotine")]
    rows = [pack_molecule(key, number % 2, packed_of(key)) for number, key in enumerate(keys)]

    def embedded(model):
        alone = []
        for row in rows:
            model.encoded.clear()
            alone += model.embed_multimodal(molecule_graph=[row])
        model.encoded.clear()
        model.embed_multimodal(molecule_graph=[rows[2], rows[0]])
        return alone, model.embed_multimodal(molecule_graph=[rows[0], rows[1], *rows[2:], rows[1]])

    with torch.inference_mode():  # as vLLM's worker
        ((alone, together),) = llm.apply_model(embedded)
    for one, other in zip([*alone, alone[1]], together, strict=True):
        torch.testing.assert_close(one, other)
    assert not torch.allclose(alone[0], alone[1])


def test_small_molecules_are_encoded_before_users_wait_for_their_kernels(llm):
    def used(model):
        sizes = []
        hook = model.molecule_encoder.register_forward_pre_hook(
            lambda _, batches: sizes.append(len(batches[0].atoms))
        )
        before = {name: one.clone() for name, one in model.molecule_encoder.state_dict().items()}
        with torch.inference_mode():  # as vLLM's memory profile
            model.use_each_kernel()
        hook.remove()
        after = model.molecule_encoder.state_dict()
        assert all(torch.equal(one, after[name]) for name, one in before.items())
        return sizes

    assert llm.apply_model(used) == [[32, 64]]  # one tile of the fused kernel, and two


def test_inference_uses_folded_weights(llm):
    (folded,) = llm.apply_model(lambda model: model.molecule_encoder.graph_encoder._folded)
    assert folded is not None


def test_weights_that_are_loaded_again_are_used(llm, tiny_roles):
    prompt = given(DRUGS["morphine"], DRUGS["nicotine"])
    before = likeliest(llm, prompt)

    def load(scale):
        def weights():
            for name, tensor in read_weights(tiny_roles):
                if not name.startswith("language_model."):  # vLLM has repacked those
                    yield name, tensor * scale if ".atom_type." in name else tensor

        llm.apply_model(lambda model: model.load_weights(weights()))
        llm.reset_mm_cache()
        llm.llm_engine.reset_encoder_cache()
        llm.reset_prefix_cache()

    load(-3.0)
    assert likeliest(llm, prompt) != before
    load(1.0)
    assert likeliest(llm, prompt) == before


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        (given("C1CC"), "C1CC"),
        (given("CN(C)(C)C"), "valence"),
        (given("*CC"), "unsupported"),
        (given("C" * 600), "too_many_atoms"),
        (given("C" * 5000), "too_long"),
        (given(""), "empty"),
        (given({"smiles": "C", "rôle": 1}), "no field 'rôle'"),
        (given({"smiles": "C", "task": "x"}), "unknown task 'x'"),
        (given({"smiles": "C", "role": -1}), "negative"),
        (given({"smiles": "C", "role": True}), "integer"),
        (given({}), "one of 'smiles' and 'molblock'"),
        (given(3), "not int"),
        (given(*["C"] * 17), "17 molecules in one prompt, at most 16"),
        (given("C", prompt="<mol> <mol>"), "2 <mol> placeholders for 1 molecules"),
        (given("C", "C", prompt="<mol>"), "1 <mol> placeholders for 2 molecules"),
        ("a <mol> typed", "<mol> is reserved"),
        ("a ＜mol＞ typed", "1 <mol> placeholders for 0 molecules"),
        ("[START_I_SMILES]C", "no partner"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(llm, prompt, reason):
    with pytest.raises(VLLMValidationError, match=reason):
        llm.generate([prompt], GREEDY, use_tqdm=False)
    assert len(answer(llm, given("C"))) == 8  # and nothing is broken by it


def test_token_ids_with_placeholders_are_refused(llm):
    mol = llm.get_tokenizer().convert_tokens_to_ids("<mol>")
    with pytest.raises(VLLMValidationError, match="1 <mol> placeholders for 0 molecules"):
        llm.generate([{"prompt_token_ids": [5, mol, 6]}], GREEDY, use_tqdm=False)
