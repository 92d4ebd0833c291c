"""`vllm.LLM` with molecules: input forms, caches, encoder batches and rejected prompts."""

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
ASPIRIN, WARFARIN = DRUGS["aspirin"], DRUGS["warfarin"]


@pytest.fixture(scope="module")
def llm(offline, tiny_roles):
    return offline(tiny_roles)


def generate(llm, prompt):
    """Return eight greedy tokens."""
    (output,) = llm.generate([prompt], GREEDY, use_tqdm=False)
    return list(output.outputs[0].token_ids)


def first_token_logprobs(llm, prompt):
    """Return the most probable first tokens, which are more sensitive than greedy tokens."""
    params = SamplingParams(temperature=0, max_tokens=1, logprobs=5)
    (output,) = llm.generate([prompt], params, use_tqdm=False)
    logprobs = output.outputs[0].logprobs[0]
    return {token: round(entry.logprob, 2) for token, entry in logprobs.items()}


def prompt_of(*molecules, text=None):
    return {
        "prompt": text or "<mol> " * len(molecules) + TASK.question + "\n",
        "multi_modal_data": {"molecule": list(molecules)},
    }


def counter(name: str) -> float:
    return REGISTRY.get_sample_value(name) or 0.0


def encoded_count() -> float:
    return counter("moltc_molecules_encoded_total")


def test_tags_in_text_equal_molecules_beside_it(llm):
    tagged = TASK.prompt([ASPIRIN, WARFARIN]).replace("<mol>", "")
    assert generate(llm, tagged) == generate(
        llm, prompt_of(ASPIRIN, WARFARIN, text=TASK.prompt([ASPIRIN, WARFARIN]))
    )


def test_strings_objects_and_molblocks_are_equivalent(llm):
    from rdkit import Chem

    prompt = TASK.prompt([ASPIRIN, WARFARIN])
    expected = generate(llm, prompt_of(ASPIRIN, WARFARIN, text=prompt))
    block = Chem.MolToMolBlock(Chem.MolFromSmiles(WARFARIN))
    assert (
        generate(llm, prompt_of({"smiles": ASPIRIN}, {"molblock": block}, text=prompt)) == expected
    )
    roles = prompt_of(
        {"smiles": ASPIRIN, "role": 0}, {"smiles": WARFARIN, "role": 1, "task": "ddi"}, text=prompt
    )
    assert generate(llm, roles) == expected


def test_answer_depends_on_order_and_repetition(llm):
    # The text has no SMILES, so that only the molecule tokens differ.
    answers = [
        first_token_logprobs(llm, prompt_of(*pair))
        for pair in [
            (ASPIRIN, WARFARIN),
            (WARFARIN, ASPIRIN),
            (ASPIRIN, ASPIRIN),
            (WARFARIN, WARFARIN),
        ]
    ]
    assert all(one != other for one, other in itertools.combinations(answers, 2))


def test_prompts_may_have_one_or_many_molecules(llm):
    prompts = [prompt_of("O"), prompt_of("[Na+]", "[H][H]"), prompt_of(*list(DRUGS.values())[:6])]
    assert len({tuple(generate(llm, prompt)) for prompt in prompts}) == 3


def test_warm_and_cold_caches_give_equal_answers(llm):
    prompt = prompt_of(DRUGS["morphine"], DRUGS["nicotine"])
    cold = generate(llm, prompt)
    assert generate(llm, prompt) == cold
    llm.reset_prefix_cache()
    llm.reset_mm_cache()
    llm.llm_engine.reset_encoder_cache()
    assert generate(llm, prompt) == cold


def test_different_smiles_of_a_molecule_are_encoded_once(llm):
    before = encoded_count()
    for smiles in ("CCCCO", "OCCCC", "C(CC)CO", "CCCCO"):
        generate(llm, prompt_of(smiles))
    assert encoded_count() - before == 1


def test_molecule_is_encoded_once_for_all_roles(llm):
    before, hits = encoded_count(), counter("moltc_encoder_cache_hits_total")
    both = generate(llm, prompt_of("CCCCN", "CCCCN"))  # in one batch of the encoder
    assert encoded_count() - before == 1
    # "NCCCC" is cached before the projectors, though vLLM's own cache may have evicted it.
    second = generate(llm, prompt_of("CCCCF", "NCCCC"))
    assert encoded_count() - before == 2
    assert generate(llm, prompt_of("CCCCN", "CCCCF")) != second
    assert encoded_count() - before == 2
    assert counter("moltc_encoder_cache_hits_total") - hits >= 2
    llm.reset_mm_cache()
    assert generate(llm, prompt_of("CCCCN", "CCCCN")) == both


def test_encoder_runs_once_per_scheduler_step(llm):
    prompts = [prompt_of("C" * (20 + i), "N" + "C" * (20 + i)) for i in range(12)]
    before, runs = encoded_count(), counter("moltc_encoder_runs_total")
    llm.generate(prompts, GREEDY, use_tqdm=False)
    assert encoded_count() - before == 24
    assert counter("moltc_encoder_runs_total") - runs == 1


def test_partly_cached_batch_equals_single_molecules(llm, monkeypatch):
    # A batch then needs several runs of the encoder.
    monkeypatch.setattr("moltc_vllm.plugin.modality.model._MAX_ATOMS_PER_RUN", 20)
    keys = [canonical_key(DRUGS[name]) for name in ("aspirin", "warfarin", "morphine", "nicotine")]
    rows = [pack_molecule(key, index % 2, packed_of(key)) for index, key in enumerate(keys)]

    def embed(model):
        alone = []
        for row in rows:
            model.encoder_cache.clear()
            alone += model.embed_multimodal(molecule_graph=[row])
        model.encoder_cache.clear()
        model.embed_multimodal(molecule_graph=[rows[2], rows[0]])
        return alone, model.embed_multimodal(molecule_graph=[rows[0], rows[1], *rows[2:], rows[1]])

    with torch.inference_mode():  # as vLLM's worker
        ((alone, together),) = llm.apply_model(embed)
    for one, other in zip([*alone, alone[1]], together, strict=True):
        torch.testing.assert_close(one, other)
    assert not torch.allclose(alone[0], alone[1])


def test_warm_up_encodes_one_molecule_per_kernel_size(llm):
    def warm_up(model):
        sizes = []
        hook = model.molecule_encoder.register_forward_pre_hook(
            lambda _, batches: sizes.append(len(batches[0].atoms))
        )
        before = {
            name: tensor.clone() for name, tensor in model.molecule_encoder.state_dict().items()
        }
        with torch.inference_mode():  # as vLLM's memory profile
            model.warm_up_kernels()
        hook.remove()
        after = model.molecule_encoder.state_dict()
        assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
        return sizes

    assert llm.apply_model(warm_up) == [[32, 64]]  # one tile of the fused kernel, and two


def test_inference_uses_folded_weights(llm):
    (folded,) = llm.apply_model(lambda model: model.molecule_encoder.graph_encoder._folded_weights)
    assert folded is not None


def test_reloaded_weights_replace_cached_results(llm, tiny_roles):
    prompt = prompt_of(DRUGS["morphine"], DRUGS["nicotine"])
    before = first_token_logprobs(llm, prompt)

    def load(scale):
        def weights():
            for name, tensor in read_weights(tiny_roles):
                if not name.startswith("language_model."):  # vLLM has repacked these weights
                    yield name, tensor * scale if ".atom_type." in name else tensor

        llm.apply_model(lambda model: model.load_weights(weights()))
        llm.reset_mm_cache()
        llm.llm_engine.reset_encoder_cache()
        llm.reset_prefix_cache()

    load(-3.0)
    assert first_token_logprobs(llm, prompt) != before
    load(1.0)
    assert first_token_logprobs(llm, prompt) == before


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        (prompt_of("C1CC"), "C1CC"),
        (prompt_of("CN(C)(C)C"), "valence"),
        (prompt_of("*CC"), "unsupported"),
        (prompt_of("C" * 600), "too_many_atoms"),
        (prompt_of("C" * 5000), "too_long"),
        (prompt_of(""), "empty"),
        (prompt_of({"smiles": "C", "rôle": 1}), "no field 'rôle'"),
        (prompt_of({"smiles": "C", "task": "x"}), "unknown task 'x'"),
        (prompt_of({"smiles": "C", "role": -1}), "negative"),
        (prompt_of({"smiles": "C", "role": True}), "integer"),
        (prompt_of({}), "one of 'smiles' and 'molblock'"),
        (prompt_of(3), "not int"),
        (prompt_of(*["C"] * 17), "17 molecules in one prompt, at most 16"),
        (prompt_of("C", text="<mol> <mol>"), "2 <mol> placeholders for 1 molecules"),
        (prompt_of("C", "C", text="<mol>"), "1 <mol> placeholders for 2 molecules"),
        ("a <mol> typed", "<mol> is reserved"),
        ("a ＜mol＞ typed", "1 <mol> placeholders for 0 molecules"),
        ("[START_I_SMILES]C", "no partner"),
    ],
)
def test_invalid_prompt_is_rejected_with_its_reason(llm, prompt, reason):
    with pytest.raises(VLLMValidationError, match=reason):
        llm.generate([prompt], GREEDY, use_tqdm=False)
    assert len(generate(llm, prompt_of("C"))) == 8  # the engine still works


def test_token_ids_with_placeholders_are_rejected(llm):
    mol = llm.get_tokenizer().convert_tokens_to_ids("<mol>")
    with pytest.raises(VLLMValidationError, match="1 <mol> placeholders for 0 molecules"):
        llm.generate([{"prompt_token_ids": [5, mol, 6]}], GREEDY, use_tqdm=False)
