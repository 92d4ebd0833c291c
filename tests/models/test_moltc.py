"""`MoltcModel`: splicing, training, generation."""

import pytest
import torch

from moltc_vllm.models import Prompt, load_model, load_tokenizer, prepare
from moltc_vllm.tasks import get_task


def inputs_for(folder, pairs, task="solvation"):
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    prompts = [Prompt(get_task(task).prompt(pair), pair, task) for pair in pairs]
    return model, tokenizer, prepare(prompts, tokenizer, model.config)


@pytest.mark.parametrize("name", ["tiny", "tiny_llama", "tiny_roles"])
def test_a_prompt_does_not_notice_its_batch(name, request):
    folder = request.getfixturevalue(name)
    pairs = [("CCO", "O"), ("O", "CCO"), ("O", "O"), ("C" * 150, "N")]
    model, tokenizer, inputs = inputs_for(folder, pairs)
    together = model.generate(**inputs._asdict(), max_new_tokens=12, eos_token_id=-1)
    for row, pair in enumerate(pairs):
        prompt = Prompt(get_task("solvation").prompt(pair), pair, "solvation")
        alone = model.generate(
            **prepare([prompt], tokenizer, model.config)._asdict(),
            max_new_tokens=12,
            eos_token_id=-1,
        )
        assert alone.token_ids[0] == together.token_ids[row]
        difference = (alone.first_logprobs[0] - together.first_logprobs[row]).abs()
        assert difference[torch.isfinite(difference)].max() < 1e-4
    # Order matters; the same molecule twice is a pair like any other.
    first = together.first_logprobs
    finite = torch.isfinite(first[0])
    for a, b in [(0, 1), (0, 2), (1, 2)]:
        assert (first[a] - first[b])[finite].abs().max() > 1e-3


def test_the_placeholder_is_never_an_answer(tiny):
    model, _, inputs = inputs_for(tiny, [("CCO", "O")])
    with torch.no_grad():  # make it the likeliest token by far
        embedding = model.get_input_embeddings().weight
        embedding[model.config.molecule_token_id] = embedding.abs().max() * 50
    out = model.generate(**inputs._asdict(), max_new_tokens=8, eos_token_id=-1)
    assert model.config.molecule_token_id not in out.token_ids[0]
    logits = model(**inputs._asdict()).logits
    assert torch.isneginf(logits[..., model.config.molecule_token_id]).all()


def test_molecules_change_the_answer_only_through_their_tokens(tiny):
    model, _, inputs = inputs_for(tiny, [("CCO", "O")])
    embeds = model.embed(inputs.input_ids, inputs.molecules, inputs.projector)
    places = inputs.input_ids == model.config.molecule_token_id
    plain = model.get_input_embeddings()(inputs.input_ids)
    assert torch.equal(embeds[~places], plain[~places])
    tokens = model.encode_molecules(inputs.molecules, inputs.projector)
    assert torch.equal(embeds[places], tokens.flatten(0, 1))


def test_placeholders_must_fit(tiny):
    model, tokenizer, inputs = inputs_for(tiny, [("CCO", "O")])
    with pytest.raises(ValueError, match="16 placeholder tokens for 0 molecules"):
        model.embed(inputs.input_ids, None, None)
    with pytest.raises(ValueError, match="2 placeholders for 1 molecules"):
        prepare([Prompt("<mol> <mol>", ["C"])], tokenizer, model.config)


def test_learns_a_handful_of_pairs_by_heart(tiny):
    """Gradients reach every part: the model must overfit eight pairs that differ by molecule."""
    torch.manual_seed(0)
    model, tokenizer = load_model(tiny), load_tokenizer(tiny)
    task = get_task("ddi")
    molecules = ["CCO", "c1ccccc1", "CC(=O)O", "CN"]
    pairs = [(a, b) for a in molecules for b in ("O", "ClC(Cl)Cl")]
    # The text says nothing about the molecules: only their tokens can tell the pairs apart.
    question = "<mol> <mol> " + task.question + "\n"
    words = [task.kind.write(number // 2 % 2) for number in range(len(pairs))]
    full = [
        Prompt(question + word + tokenizer.eos_token, pair)
        for pair, word in zip(pairs, words, strict=True)
    ]
    inputs = prepare(full, tokenizer, model.config)
    labels = inputs.input_ids.clone()
    for row, word in enumerate(words):
        answer = len(tokenizer(word + tokenizer.eos_token)["input_ids"])
        labels[row, : labels.shape[1] - answer] = -100
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    model.train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    for _ in range(150):
        optimiser.zero_grad()
        loss = model(**inputs._asdict(), labels=labels).loss
        loss.backward()
        optimiser.step()
        if loss < 0.01:
            break
    assert loss < 0.05
    unmoved = [name for name, p in model.named_parameters() if torch.equal(p, before[name])]
    assert unmoved == []
    with torch.no_grad():  # batch norm's running statistics follow the last weights
        for _ in range(50):
            model(**inputs._asdict())
    model.eval()
    out = model.generate(
        **prepare([Prompt(question, pair) for pair in pairs], tokenizer, model.config)._asdict(),
        max_new_tokens=task.max_tokens,
    )
    assert [tokenizer.decode(ids) for ids in out.token_ids] == words
