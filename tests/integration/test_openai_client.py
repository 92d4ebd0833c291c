"""The real ``openai`` client against the real server."""

import math
import re

import pytest

from moltc_vllm.engines.http import HttpEngine
from moltc_vllm.tasks import TASKS, get_task
from tests.molecules import DRUGS
from tests.server import MODEL

A, B = DRUGS["aspirin"], DRUGS["warfarin"]
TASK = get_task("ddi")


def part(smiles):
    return {"type": "molecule", "molecule": {"smiles": smiles}}


def text(words):
    return {"type": "text", "text": words}


def tag(smiles):
    return f"[START_I_SMILES]{smiles}[END_I_SMILES]"


def chat(server, content, **options):
    options = {"temperature": 0, "max_tokens": 12, **options}
    return server.openai.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": content}], **options
    )


def said(server, content, **options) -> str:
    return chat(server, content, **options).choices[0].message.content


def test_models_and_tasks_are_listed(server):
    assert [model.id for model in server.openai.models.list()] == [MODEL]
    listed = server.http.get("/v1/tasks").json()
    tasks = {task["id"]: task for task in listed["data"]}
    assert tasks["solvation"]["unit"] == "kcal/mol"
    assert tasks["solvation"]["roles"] == ["solute", "solvent"]
    assert len(tasks) == len(TASKS)
    # Of the weights: a screen that goes on with others is refused.
    assert re.fullmatch("[0-9a-f]{64}", listed["weights"])
    assert HttpEngine(server.url).weights() == listed["weights"]


def test_all_ways_of_naming_molecules_are_one(server):
    parts = said(server, [part(A), part(B), text(TASK.question)])
    tags = said(server, f"{tag(A)} {tag(B)} {TASK.question}")
    mixed = said(server, [part(A), text(f"{tag(B)} {TASK.question}")])
    completion = server.openai.completions.create(
        model=MODEL,
        prompt=f"{tag(A)} {tag(B)} {TASK.question}\n",
        temperature=0,
        max_tokens=12,
    )
    assert parts == tags == mixed == completion.choices[0].text
    assert parts


def test_parts_in_any_position_and_only_molecules(server):
    only = said(server, [part(A), part(B)])
    before = said(server, [text("Look at"), part(A), text("and"), part(B)])
    same = said(server, f"Look at {tag(A)} and {tag(B)}")
    assert before == same
    assert only == said(server, f"{tag(A)} {tag(B)}")
    assert only != said(server, [part(B), part(A)])
    assert said(server, [part(A), part(A)]) not in ("", only)


def test_molblock(server):
    from rdkit import Chem

    block = Chem.MolToMolBlock(Chem.MolFromSmiles(B))
    canonical = Chem.MolToSmiles(Chem.MolFromSmiles(B))
    by_block = [part(A), {"type": "molecule", "molecule": {"molblock": block}}]
    assert said(server, by_block) == said(server, [part(A), part(canonical)])


def test_conversation_with_molecules_in_two_turns(server):
    messages = [
        {"role": "system", "content": "You know molecules."},
        {"role": "user", "content": [part(A), text("What is it?")]},
        {"role": "assistant", "content": "A drug."},
        {"role": "user", "content": [part(B), text("And this?")]},
    ]
    answer = server.openai.chat.completions.create(
        model=MODEL, messages=messages, temperature=0, max_tokens=6
    )
    assert answer.choices[0].message.content
    assert answer.usage.prompt_tokens > len(A) + len(B) + 16


@pytest.mark.parametrize("kind", ["chat", "completion"])
def test_streaming_says_the_same(server, kind):
    if kind == "chat":
        whole = said(server, [part(A), part(B)], max_tokens=24)
        stream = chat(server, [part(A), part(B)], max_tokens=24, stream=True)
        pieces = [chunk.choices[0].delta.content or "" for chunk in stream]
    else:
        request = {"model": MODEL, "prompt": f"{tag(A)} is", "temperature": 0, "max_tokens": 24}
        whole = server.openai.completions.create(**request).choices[0].text
        stream = server.openai.completions.create(**request, stream=True)
        pieces = [chunk.choices[0].text for chunk in stream]
    assert "".join(pieces) == whole
    assert sum(bool(piece) for piece in pieces) > 5


def test_logprobs(server):
    answer = chat(server, [part(A), part(B)], logprobs=True, top_logprobs=5)
    content = answer.choices[0].logprobs.content
    assert len(content) == 12
    for token in content:
        assert token.logprob == pytest.approx(max(t.logprob for t in token.top_logprobs))
        assert sum(math.exp(t.logprob) for t in token.top_logprobs) <= 1 + 1e-6


def test_n_samples(server):
    answer = chat(server, [part(A), part(B)], n=4, temperature=1.5, seed=7)
    assert len({choice.message.content for choice in answer.choices}) > 1
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]


def test_list_prompts(server):
    prompts = [f"{tag(smiles)} is" for smiles in (A, B, "O")]
    together = server.openai.completions.create(
        model=MODEL, prompt=prompts, temperature=0, max_tokens=6
    )
    alone = [
        server.openai.completions.create(model=MODEL, prompt=p, temperature=0, max_tokens=6)
        for p in prompts
    ]
    assert [c.text for c in together.choices] == [a.choices[0].text for a in alone]


def test_structured_output(server):
    labels = [label.text for label in TASK.kind.labels]
    answer = said(
        server,
        [part(A), part(B), text(TASK.question)],
        max_tokens=64,
        extra_body={"structured_outputs": {"choice": labels}},
    )
    assert answer in labels


def test_tokenize_counts_molecule_tokens(server):
    body = {"model": MODEL, "prompt": f"{tag('CCO')}"}
    answer = server.http.post("/tokenize", json=body)
    assert answer.status_code == 200
    assert answer.json()["count"] >= 6
