"""The ``openai`` client against a server."""

import math
import re

import pytest

from moltc_vllm.engines.http import HttpEngine
from moltc_vllm.tasks import TASKS, get_task
from tests.molecules import DRUGS
from tests.server import MODEL

ASPIRIN, WARFARIN = DRUGS["aspirin"], DRUGS["warfarin"]
TASK = get_task("ddi")


def molecule_part(smiles):
    return {"type": "molecule", "molecule": {"smiles": smiles}}


def text_part(text):
    return {"type": "text", "text": text}


def tag(smiles):
    return f"[START_I_SMILES]{smiles}[END_I_SMILES]"


KEEP_WRITING = {"ignore_eos": True}
"""Options with which random weights do not end an answer after a few tokens."""


def chat(server, content, **options):
    options = {"temperature": 0, "max_tokens": 12, **options}
    return server.openai.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": content}], **options
    )


def answer_text(server, content, **options) -> str:
    return chat(server, content, **options).choices[0].message.content


def test_server_lists_models_and_tasks(server):
    assert [model.id for model in server.openai.models.list()] == [MODEL]
    listed = server.http.get("/v1/tasks").json()
    tasks = {task["id"]: task for task in listed["data"]}
    assert tasks["solvation"]["unit"] == "kcal/mol"
    assert tasks["solvation"]["roles"] == ["solute", "solvent"]
    assert len(tasks) == len(TASKS)
    assert {name for name, task in tasks.items() if task["caution"]} == {"ddi_side_effects"}
    assert not any(task["ignores_order"] for task in tasks.values())  # `symmetric_order` is given
    # A screen refuses to resume with other weights.
    assert re.fullmatch("[0-9a-f]{64}", listed["weights"])
    assert HttpEngine(server.url).weights() == listed["weights"]


def test_parts_tags_and_completions_are_equivalent(server):
    parts = answer_text(
        server, [molecule_part(ASPIRIN), molecule_part(WARFARIN), text_part(TASK.question)]
    )
    tags = answer_text(server, f"{tag(ASPIRIN)} {tag(WARFARIN)} {TASK.question}")
    mixed = answer_text(
        server, [molecule_part(ASPIRIN), text_part(f"{tag(WARFARIN)} {TASK.question}")]
    )
    completion = server.openai.completions.create(
        model=MODEL,
        prompt=f"{tag(ASPIRIN)} {tag(WARFARIN)} {TASK.question}\n",
        temperature=0,
        max_tokens=12,
    )
    assert parts == tags == mixed == completion.choices[0].text
    assert parts


def test_molecule_parts_may_be_in_any_position(server):
    only = answer_text(server, [molecule_part(ASPIRIN), molecule_part(WARFARIN)])
    before = answer_text(
        server,
        [text_part("Look at"), molecule_part(ASPIRIN), text_part("and"), molecule_part(WARFARIN)],
    )
    same = answer_text(server, f"Look at {tag(ASPIRIN)} and {tag(WARFARIN)}")
    assert before == same
    assert only == answer_text(server, f"{tag(ASPIRIN)} {tag(WARFARIN)}")
    assert only != answer_text(server, [molecule_part(WARFARIN), molecule_part(ASPIRIN)])
    assert answer_text(server, [molecule_part(ASPIRIN), molecule_part(ASPIRIN)]) not in ("", only)


def test_molblock_equals_its_smiles(server):
    from rdkit import Chem

    block = Chem.MolToMolBlock(Chem.MolFromSmiles(WARFARIN))
    canonical = Chem.MolToSmiles(Chem.MolFromSmiles(WARFARIN))
    by_block = [molecule_part(ASPIRIN), {"type": "molecule", "molecule": {"molblock": block}}]
    assert answer_text(server, by_block) == answer_text(
        server, [molecule_part(ASPIRIN), molecule_part(canonical)]
    )


def test_conversation_may_have_molecules_in_two_turns(server):
    messages = [
        {"role": "system", "content": "You know molecules."},
        {"role": "user", "content": [molecule_part(ASPIRIN), text_part("What is it?")]},
        {"role": "assistant", "content": "A drug."},
        {"role": "user", "content": [molecule_part(WARFARIN), text_part("And this?")]},
    ]
    answer = server.openai.chat.completions.create(
        model=MODEL, messages=messages, temperature=0, max_tokens=6
    )
    assert answer.choices[0].message.content
    assert answer.usage.prompt_tokens > len(ASPIRIN) + len(WARFARIN) + 16


@pytest.mark.parametrize("kind", ["chat", "completion"])
def test_stream_equals_whole_text(server, kind):
    if kind == "chat":
        content = [molecule_part(ASPIRIN), molecule_part(WARFARIN)]
        options = {"max_tokens": 24, "extra_body": KEEP_WRITING}
        whole = answer_text(server, content, **options)
        stream = chat(server, content, stream=True, **options)
        pieces = [chunk.choices[0].delta.content or "" for chunk in stream]
    else:
        request = {
            "model": MODEL,
            "prompt": f"{tag(ASPIRIN)} is",
            "temperature": 0,
            "max_tokens": 24,
            "extra_body": KEEP_WRITING,
        }
        whole = server.openai.completions.create(**request).choices[0].text
        stream = server.openai.completions.create(**request, stream=True)
        pieces = [chunk.choices[0].text for chunk in stream]
    assert "".join(pieces) == whole
    assert sum(bool(piece) for piece in pieces) > 5


def test_chat_returns_logprobs(server):
    answer = chat(
        server,
        [molecule_part(ASPIRIN), molecule_part(WARFARIN)],
        logprobs=True,
        top_logprobs=5,
        extra_body=KEEP_WRITING,
    )
    content = answer.choices[0].logprobs.content
    assert len(content) == 12
    for token in content:
        assert token.logprob == pytest.approx(max(top.logprob for top in token.top_logprobs))
        assert sum(math.exp(top.logprob) for top in token.top_logprobs) <= 1 + 1e-6


def test_chat_returns_n_samples(server):
    answer = chat(
        server, [molecule_part(ASPIRIN), molecule_part(WARFARIN)], n=4, temperature=1.5, seed=7
    )
    assert len({choice.message.content for choice in answer.choices}) > 1
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]


def test_completion_answers_list_of_prompts(server):
    prompts = [f"{tag(smiles)} is" for smiles in (ASPIRIN, WARFARIN, "O")]
    together = server.openai.completions.create(
        model=MODEL, prompt=prompts, temperature=0, max_tokens=6
    )
    alone = [
        server.openai.completions.create(model=MODEL, prompt=prompt, temperature=0, max_tokens=6)
        for prompt in prompts
    ]
    assert [choice.text for choice in together.choices] == [
        answer.choices[0].text for answer in alone
    ]


def test_structured_output_constrains_chat(server):
    labels = [label.text for label in TASK.kind.labels]
    answer = answer_text(
        server,
        [molecule_part(ASPIRIN), molecule_part(WARFARIN), text_part(TASK.question)],
        max_tokens=64,
        extra_body={"structured_outputs": {"choice": labels}},
    )
    assert answer in labels


def test_tokenize_counts_molecule_tokens(server):
    body = {"model": MODEL, "prompt": f"{tag('CCO')}"}
    answer = server.http.post("/tokenize", json=body)
    assert answer.status_code == 200
    assert answer.json()["count"] >= 6
