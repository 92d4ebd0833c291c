"""`MoltcModel`: merging molecule tokens, training, generation."""

import pytest
import torch

from moltc_vllm.models import Prompt, load_model, load_tokenizer, prepare_inputs
from moltc_vllm.tasks import get_task


def inputs_for(folder, pairs, task="solvation"):
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    prompts = [Prompt(get_task(task).prompt(pair), pair, task) for pair in pairs]
    return model, tokenizer, prepare_inputs(prompts, tokenizer, model.config)


@pytest.mark.parametrize("name", ["tiny", "tiny_llama", "tiny_roles"])
def test_generation_does_not_depend_on_batch(name, request):
    folder = request.getfixturevalue(name)
    pairs = [("CCO", "O"), ("O", "CCO"), ("O", "O"), ("C" * 150, "N")]
    model, tokenizer, inputs = inputs_for(folder, pairs)
    together = model.generate(**inputs._asdict(), max_new_tokens=12, eos_token_id=-1)
    for row, pair in enumerate(pairs):
        prompt = Prompt(get_task("solvation").prompt(pair), pair, "solvation")
        alone = model.generate(
            **prepare_inputs([prompt], tokenizer, model.config)._asdict(),
            max_new_tokens=12,
            eos_token_id=-1,
        )
        assert alone.token_ids[0] == together.token_ids[row]
        difference = (alone.first_logprobs[0] - together.first_logprobs[row]).abs()
        assert difference[torch.isfinite(difference)].max() < 1e-4
    # The order of molecules matters, and a molecule may be paired with itself.
    first = together.first_logprobs
    finite = torch.isfinite(first[0])
    for a, b in [(0, 1), (0, 2), (1, 2)]:
        assert (first[a] - first[b])[finite].abs().max() > 1e-3


def test_placeholder_is_never_generated(tiny):
    model, _, inputs = inputs_for(tiny, [("CCO", "O")])
    with torch.no_grad():  # make it by far the most probable token
        embedding = model.get_input_embeddings().weight
        embedding[model.config.molecule_token_id] = embedding.abs().max() * 50
    out = model.generate(**inputs._asdict(), max_new_tokens=8, eos_token_id=-1)
    assert model.config.molecule_token_id not in out.token_ids[0]
    logits = model(**inputs._asdict()).logits
    assert torch.isneginf(logits[..., model.config.molecule_token_id]).all()


def test_molecules_change_placeholder_embeddings_only(tiny):
    model, _, inputs = inputs_for(tiny, [("CCO", "O")])
    embeds = model.embed(inputs.input_ids, inputs.molecules, inputs.projector)
    is_placeholder = inputs.input_ids == model.config.molecule_token_id
    plain = model.get_input_embeddings()(inputs.input_ids)
    assert torch.equal(embeds[~is_placeholder], plain[~is_placeholder])
    tokens = model.encode_molecules(inputs.molecules, inputs.projector)
    assert torch.equal(embeds[is_placeholder], tokens.flatten(0, 1))


def test_number_of_placeholders_must_fit_molecules(tiny):
    model, tokenizer, inputs = inputs_for(tiny, [("CCO", "O")])
    with pytest.raises(ValueError, match="16 placeholder tokens for 0 molecules"):
        model.embed(inputs.input_ids, None, None)
    with pytest.raises(ValueError, match="2 placeholders for 1 molecules"):
        prepare_inputs([Prompt("<mol> <mol>", ["C"])], tokenizer, model.config)


def test_training_overfits_a_few_pairs(tiny):
    """Gradients reach every part: the model must overfit eight pairs that differ by molecule."""
    torch.manual_seed(0)
    model, tokenizer = load_model(tiny), load_tokenizer(tiny)
    task = get_task("ddi")
    molecules = ["CCO", "c1ccccc1", "CC(=O)O", "CN"]
    pairs = [(a, b) for a in molecules for b in ("O", "ClC(Cl)Cl")]
    # The text contains no SMILES, so only molecule tokens distinguish the pairs.
    question = "<mol> <mol> " + task.question + "\n"
    answers = [task.kind.write(index // 2 % 2) for index in range(len(pairs))]
    prompts = [
        Prompt(question + answer + tokenizer.eos_token, pair)
        for pair, answer in zip(pairs, answers, strict=True)
    ]
    inputs = prepare_inputs(prompts, tokenizer, model.config)
    labels = inputs.input_ids.clone()
    for row, answer in enumerate(answers):
        length = len(tokenizer(answer + tokenizer.eos_token)["input_ids"])
        labels[row, : labels.shape[1] - length] = -100
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    for _ in range(150):
        optimizer.zero_grad()
        loss = model(**inputs._asdict(), labels=labels).loss
        loss.backward()
        optimizer.step()
        if loss < 0.01:
            break
    assert loss < 0.05
    unchanged = [name for name, p in model.named_parameters() if torch.equal(p, before[name])]
    assert unchanged == []
    with torch.no_grad():  # update batch norm's running statistics to the last weights
        for _ in range(50):
            model(**inputs._asdict())
    model.eval()
    out = model.generate(
        **prepare_inputs(
            [Prompt(question, pair) for pair in pairs], tokenizer, model.config
        )._asdict(),
        max_new_tokens=task.max_tokens,
    )
    assert [tokenizer.decode(ids) for ids in out.token_ids] == answers
